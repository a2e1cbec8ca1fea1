/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Classes of the times that requests take; latency.c counts them.
 */
#ifndef VIRTBLK_LATENCY_H
#define VIRTBLK_LATENCY_H

#include <linux/bitops.h>
#include <linux/jiffies.h>
#include <linux/math64.h>
#include <linux/minmax.h>
#include <linux/time64.h>
#include <linux/types.h>

struct request;
struct virtblk_queue;
struct virtio_blk;

/* A slow request takes VIRTBLK_SLOW_MS or longer; VIRTBLK_SLOW is the same in jiffies. */
#define VIRTBLK_SLOW_MS		16U
#define VIRTBLK_SLOW		msecs_to_jiffies(VIRTBLK_SLOW_MS)

/* Classes of slow requests: the first is 16 to 31 ms, the last from 32768 ms. */
#define VIRTBLK_SLOW_BUCKETS	12U

/* The last bucket begins at 481 s. */
#define VIRTBLK_LATENCY_BUCKETS	112U

/* The driver counts each kind of requests separately. */
enum virtblk_kind {
	VIRTBLK_READS,
	VIRTBLK_WRITES,
	VIRTBLK_OTHERS,
	VIRTBLK_NR_KINDS,
};

/**
 * virtblk_slow_bucket() - the class of a slow request
 * @wait: the time that it took, in jiffies, VIRTBLK_SLOW or more
 *
 * Return: an index below VIRTBLK_SLOW_BUCKETS.  Each class is twice as wide as the last.
 */
static inline unsigned int virtblk_slow_bucket(unsigned long wait)
{
	/* jiffies_to_msecs() rounds up. */
	u64 ms = div_u64((u64)wait * MSEC_PER_SEC, HZ);

	return min_t(unsigned int, fls64(div_u64(ms, VIRTBLK_SLOW_MS)) - 1,
		     VIRTBLK_SLOW_BUCKETS - 1);
}

/**
 * virtblk_latency_bucket() - the bucket of a time
 * @ns: the time, in ns
 *
 * Four buckets of 1024 ns, then four in each doubling.
 *
 * Return: an index below VIRTBLK_LATENCY_BUCKETS.
 */
static inline unsigned int virtblk_latency_bucket(u64 ns)
{
	u64 units = ns / 1024;
	unsigned int shift;

	if (units < 4)
		return units;
	shift = fls64(units) - 3;
	return min_t(unsigned int, 4 * shift + (units >> shift),
		     VIRTBLK_LATENCY_BUCKETS - 1);
}

/**
 * virtblk_bucket_ns() - where a bucket begins
 * @bucket: its index
 *
 * Return: the shortest time in it, in ns.
 */
static inline u64 virtblk_bucket_ns(unsigned int bucket)
{
	u64 units = bucket < 4 ? bucket : (4ULL + bucket % 4) << (bucket / 4 - 1);

	return units * 1024;
}

void virtblk_note_wait(struct virtblk_queue *q, struct request *req);
void virtblk_create_latency(struct virtio_blk *vblk);
void virtblk_remove_latency(struct virtio_blk *vblk);

#endif /* VIRTBLK_LATENCY_H */
