// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit test for latency.h: each time belongs to one bucket, and a bucket is narrow.
 */

#include <kunit/test.h>

#include "../latency.h"

static void virtblk_test_buckets(struct kunit *test)
{
	unsigned int i;
	u64 begin, end;

	KUNIT_EXPECT_EQ(test, virtblk_bucket_ns(0), 0ULL);
	for (i = 0; i < VIRTBLK_LATENCY_BUCKETS - 1; i++) {
		begin = virtblk_bucket_ns(i);
		end = virtblk_bucket_ns(i + 1);
		KUNIT_EXPECT_LT(test, begin, end);
		KUNIT_EXPECT_EQ(test, virtblk_latency_bucket(begin), i);
		KUNIT_EXPECT_EQ(test, virtblk_latency_bucket(end - 1), i);
		/* A percentile that is read from the bucket is not further off. */
		if (i >= 4)
			KUNIT_EXPECT_LE(test, end - begin, begin / 4);
	}
}

static void virtblk_test_longest(struct kunit *test)
{
	KUNIT_EXPECT_EQ(test, virtblk_bucket_ns(VIRTBLK_LATENCY_BUCKETS - 1),
			481036337152ULL);
	KUNIT_EXPECT_EQ(test, virtblk_latency_bucket(U64_MAX),
			VIRTBLK_LATENCY_BUCKETS - 1);
	KUNIT_EXPECT_EQ(test, virtblk_slow_bucket(MAX_JIFFY_OFFSET),
			VIRTBLK_SLOW_BUCKETS - 1);
}

static void virtblk_test_slow(struct kunit *test)
{
	unsigned int i, ms = VIRTBLK_SLOW_MS;

	for (i = 0; i < VIRTBLK_SLOW_BUCKETS; i++, ms *= 2) {
		KUNIT_EXPECT_EQ(test, virtblk_slow_bucket(msecs_to_jiffies(ms)), i);
		if (i)
			KUNIT_EXPECT_EQ(test, virtblk_slow_bucket(msecs_to_jiffies(ms) - 1),
					i - 1);
	}
}

static struct kunit_case virtblk_latency_cases[] = {
	KUNIT_CASE(virtblk_test_buckets),
	KUNIT_CASE(virtblk_test_longest),
	KUNIT_CASE(virtblk_test_slow),
	{}
};

static struct kunit_suite virtblk_latency_suite = {
	.name = "virtio_blk_latency",
	.test_cases = virtblk_latency_cases,
};

kunit_test_suite(virtblk_latency_suite);
