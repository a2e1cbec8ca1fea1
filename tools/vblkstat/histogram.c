// SPDX-License-Identifier: GPL-2.0
/* The buckets of a histogram, and what is computed from them. */

#include "latency.h"

/* Return where a bucket begins; UNKNOWN is the end of the last. */
uint64_t bucket_ns(unsigned int bucket)
{
	if (bucket >= NR_BUCKETS)
		return UNKNOWN;
	if (bucket < 4)
		return (uint64_t)bucket * BUCKET_NS;
	return (4ull + bucket % 4) * BUCKET_NS << (bucket / 4 - 1);
}

unsigned int find_bucket(uint64_t ns)
{
	unsigned int bucket = NR_BUCKETS - 1;

	while (bucket_ns(bucket) > ns)
		bucket--;
	return bucket;
}

uint64_t histogram_count(const struct histogram *histogram)
{
	uint64_t sum = 0;

	for (unsigned int i = 0; i < NR_BUCKETS; i++)
		sum += histogram->counts[i];
	return sum;
}

/*
 * Return a time in ns that so many percent of the requests do not exceed, a negative
 * number if there are none.  Requests count as spread evenly over their bucket, so that
 * the error is less than the bucket's width: a quarter of the time, or 1024 ns.
 */
double histogram_percentile(const struct histogram *histogram, unsigned int percent)
{
	uint64_t all = histogram_count(histogram), below = 0, end;
	uint64_t rank = all / 100 * percent + (all % 100 * percent + 99) / 100;
	double low, high, ns;

	for (unsigned int i = 0; i < NR_BUCKETS; i++) {
		uint64_t count = histogram->counts[i];

		if (!count || count < rank - below) {
			below += count;
			continue;
		}
		end = bucket_ns(i + 1);
		low = bucket_ns(i);
		high = end < histogram->max_ns ? end : histogram->max_ns;
		/* Count a request in the middle of its share. */
		ns = low + (high - low) * (rank - below - 0.5) / count;
		return ns < high ? ns : high;
	}
	return -1;
}

/* Return a time in ns that no request exceeds, a negative number if there are none. */
double histogram_max(const struct histogram *histogram)
{
	return histogram_count(histogram) ? (double)histogram->max_ns : -1;
}
