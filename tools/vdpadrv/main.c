// SPDX-License-Identifier: GPL-2.0
/*
 * Drive a vDPA block device through /dev/vhost-vdpa-N, as a virtio driver in user space.
 * It tests drivers/vdpa/vdpa_blk with rings, chains and mappings that no virtio driver in
 * a kernel makes.
 *
 *	gcc -O2 -Wall -Wextra -static -o vdpadrv *.c ../vblksim/vdpa.c
 *	vdpadrv io /dev/vhost-vdpa-0 --packed --count 2000
 *	vdpadrv fuzz /dev/vhost-vdpa-0 --seed 7 --count 100
 *
 * It overwrites the disk.  Each command prints "ok ..." and exits with 0, or prints
 * "FAIL: ..." and exits with 1.
 */

#define _GNU_SOURCE
#include <ctype.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#include "vdpadrv.h"

static void run_info(struct dev *d)
{
	struct virtio_blk_config *c = &d->config;

	printf("ok info: features %#llx capacity %llu blk_size %u seg_max %u num_queues %u wce %u ring %u\n",
	       (unsigned long long)d->features, (unsigned long long)c->capacity, c->blk_size,
	       c->seg_max, c->num_queues, c->wce, d->num);
}

static void wait_seconds(struct dev *d)
{
	sleep(d->seconds);
}

static uint64_t total_kicks(const struct dev *d)
{
	uint64_t sum = 0;
	unsigned int i;

	for (i = 0; i < d->nr_queues; i++)
		sum += d->queues[i].kicks;
	return sum;
}

/* With --seconds for so long, and otherwise --count requests on each queue. */
static void run_io_command(struct dev *d)
{
	uint64_t begin = now_ms();

	start_dev(d, NULL, true);
	if (d->seconds)
		d->count = UINT32_MAX;
	run_io(d, d->seconds ? wait_seconds : NULL);
	printf("count kicks: %llu\n", (unsigned long long)total_kicks(d));
	printf("ok io: %s%s%s%s, %u queues of %u, depth %u: %llu requests in %llu ms\n",
	       d->packed ? "packed" : "split", d->indirect ? ", indirect" : "",
	       d->event_idx ? ", event index" : "", d->scatter ? ", scattered" : "",
	       d->nr_queues, d->num, d->depth, (unsigned long long)total(d, false),
	       (unsigned long long)(now_ms() - begin));
	if (d->tolerant)
		printf("count failed: %llu\n", (unsigned long long)total(d, true));
}

static void run_errors(struct dev *d)
{
	unsigned int mode;

	for (mode = 0; mode < 4; mode++) {
		d->packed = mode & 1;
		d->indirect = mode & 2;
		check_errors(d);
	}
	printf("ok errors: %llu requests\n", (unsigned long long)total(d, false));
}

static const struct {
	const char *name;
	void (*run)(struct dev *d);
	unsigned int count, seconds;
	bool closed;		/* it opens the device itself */
} commands[] = {
	{ "info", run_info, 0, 0, false },
	{ "io", run_io_command, 1000, 0, false },
	{ "errors", run_errors, 0, 0, false },
	{ "survey", run_survey, 1024, 0, false },
	{ "rules", run_rules, 0, 0, false },
	{ "zones", run_zones, 0, 0, false },
	{ "unshared", run_unshared, 0, 0, false },
	{ "broken", run_broken, 300, 0, false },
	{ "unmap", run_unmap, 0, 10, false },
	{ "close", run_close, 20, 0, false },
	{ "suspend", run_suspend, 200, 0, false },
	{ "config", run_config, 0, 0, false },
	{ "remap", run_remap, 20, 0, false },
	{ "zero", run_zero, 20, 0, false },
	{ "starve", run_starve, 0, 0, false },
	{ "reset", run_reset, 256, 0, false },
	{ "kill", run_kill, 16, 0, false },
	{ "early", run_early, 4, 0, false },
	{ "fuzz", run_fuzz, 100, 0, true },
	{ "pages", run_pages, 0, 0, true },
};

/* The value of an option, which must be a number from @low to @high. */
static uint64_t parse_number(const char *text, uint64_t low, uint64_t high)
{
	uint64_t value;
	char *end;

	errno = 0;
	value = strtoull(text, &end, 0);
	if (errno || *end || !isdigit(*text) || value < low || value > high) {
		fprintf(stderr, "%s: the number must be from %llu to %llu\n", text,
			(unsigned long long)low, (unsigned long long)high);
		exit(2);
	}
	return value;
}

static void parse_options(struct dev *d, int argc, char **argv)
{
	static const struct option options[] = {
		{ "packed", no_argument, NULL, 'p' }, { "indirect", no_argument, NULL, 'i' },
		{ "no-event-idx", no_argument, NULL, 'e' }, { "scatter", no_argument, NULL, 'x' },
		{ "queues", required_argument, NULL, 'q' }, { "depth", required_argument, NULL, 'd' },
		{ "num", required_argument, NULL, 'n' }, { "count", required_argument, NULL, 'c' },
		{ "seed", required_argument, NULL, 's' }, { "seconds", required_argument, NULL, 't' },
		{ "name", required_argument, NULL, 'a' }, { "tolerant", no_argument, NULL, 'l' },
		{ "sector", required_argument, NULL, 'f' }, { "no-write", no_argument, NULL, 'w' },
		{ "refuse", required_argument, NULL, 'r' },
		{ "write-through", no_argument, NULL, 'h' },
		{ "hang-ms", required_argument, NULL, 'm' },
		{ "bytes", required_argument, NULL, 'b' },
		{ "offset", required_argument, NULL, 'o' },
		{ "no-base", no_argument, NULL, 'u' },
		{ },
	};
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 'p': d->packed = true; break;
		case 'i': d->indirect = true; break;
		case 'e': d->event_idx = false; break;
		case 'x': d->scatter = true; break;
		case 'q': d->nr_queues = parse_number(optarg, 1, MAX_QUEUES); break;
		case 'd': d->depth = parse_number(optarg, 1, MAX_DEPTH); break;
		/* A slot has three descriptors or more. */
		case 'n': d->num = parse_number(optarg, 8, 256); break;
		case 'c': d->count = parse_number(optarg, 0, UINT32_MAX); break;
		/* From 0 only zeroes follow. */
		case 's': d->seed = parse_number(optarg, 1, UINT64_MAX); break;
		case 't': d->seconds = parse_number(optarg, 0, UINT32_MAX / 1000); break;
		case 'a': d->name = optarg; break;
		case 'l': d->tolerant = true; break;
		case 'f': d->sector = parse_number(optarg, 0, UINT64_MAX); break;
		case 'w': d->no_write = true; break;
		case 'r': d->refused = parse_number(optarg, 0, UINT64_MAX); break;
		case 'h': d->write_through = true; break;
		case 'b': d->bytes = parse_number(optarg, 512, 4 << 20); break;
		case 'o': d->offset = parse_number(optarg, 0, 4088); break;
		case 'u': d->no_base = true; break;
		case 'm': hang_ms = parse_number(optarg, 1, INT32_MAX); break;
		default: exit(2);
		}
	}
	if (optind < argc) {
		fprintf(stderr, "%s: not an option\n", argv[optind]);
		exit(2);
	}
}

int main(int argc, char **argv)
{
	struct rlimit unlimited = { RLIM_INFINITY, RLIM_INFINITY };
	static struct dev d = { .seed = 1, .depth = 16, .event_idx = true, .places = 256,
				.most_bytes = MAX_BYTES, .bytes = 2 << 20 };
	unsigned int i;

	setvbuf(stdout, NULL, _IOLBF, 0);
	for (i = 0; argc > 2 && i < LENGTH(commands); i++) {
		if (strcmp(argv[1], commands[i].name))
			continue;
		d.path = argv[2];
		d.count = commands[i].count;
		d.seconds = commands[i].seconds;
		parse_options(&d, argc - 2, argv + 2);
		d.random = d.seed;
		/* vhost-vdpa counts the shared memory as locked. */
		setrlimit(RLIMIT_MEMLOCK, &unlimited);
		if (!commands[i].closed) {
			d.config_call = eventfd(0, EFD_NONBLOCK);
			make_pieces(&d, 0, 0);
			limit_options(&d);
		}
		commands[i].run(&d);
		return 0;
	}
	fprintf(stderr, "usage: %s", argv[0]);
	for (i = 0; i < LENGTH(commands); i++)
		fprintf(stderr, "%c%s", i ? '|' : ' ', commands[i].name);
	fprintf(stderr, " /dev/vhost-vdpa-N [options]\n");
	return 2;
}
