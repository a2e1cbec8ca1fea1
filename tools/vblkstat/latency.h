/* SPDX-License-Identifier: GPL-2.0 */
/* How long requests take, for watch; latency.c reads it. */
#ifndef LATENCY_H
#define LATENCY_H

#include "vblkstat.h"

/* Four buckets of 1024 ns, then four in each doubling; the last has no end. */
#define NR_BUCKETS	112
#define BUCKET_NS	1024

/* The queue that stands for all of them. */
#define ALL_QUEUES	UINT32_MAX

/**
 * struct histogram - the requests of one kind that completed in an interval
 * @max_ns: no request took longer
 */
struct histogram {
	uint64_t counts[NR_BUCKETS];
	uint64_t max_ns;
};

extern const char *const kind_names[NR_KINDS];

/* latency.c */
void latency_sample(const struct machine *machine);
void latency_close(void);
bool latency_interval(struct histogram *histogram, const struct disk *disk,
		      unsigned int queue, enum kind kind);

/* histogram.c */
uint64_t bucket_ns(unsigned int bucket);
unsigned int find_bucket(uint64_t ns);
uint64_t histogram_count(const struct histogram *histogram);
double histogram_percentile(const struct histogram *histogram, unsigned int percent);
double histogram_max(const struct histogram *histogram);

/* watch_latency.c */
void print_latency_of_disks(const struct machine *machine, FILE *out);
void print_latency_of_queues(const struct machine *machine, FILE *out);
void print_histograms(const struct machine *machine, FILE *out);
void json_latency(struct json *json, const struct disk *disk, unsigned int queue,
		  bool buckets);

#endif /* LATENCY_H */
