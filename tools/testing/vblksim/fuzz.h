/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A hostile device: fuzz.c decides what it does, campaign.c has many of them.
 */
#ifndef VBLKSIM_FUZZ_H
#define VBLKSIM_FUZZ_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct chain;
struct fuzz;
struct settings;
struct sim;

/* What becomes of a reply.  Up to FUZZ_LATER the driver gets what it asked for,
 * from FUZZ_ROUGH on it loses a request or the virtqueue. */
enum fuzz_kind {
	FUZZ_HONEST,
	FUZZ_DELAY,
	FUZZ_REORDER,
	FUZZ_HOLD,
	FUZZ_LATER = FUZZ_HOLD,
	FUZZ_STATUS,
	FUZZ_FAIL,
	FUZZ_NO_STATUS,
	FUZZ_SHORT,
	FUZZ_LONG,
	FUZZ_CORRUPT,
	FUZZ_GARBAGE,
	FUZZ_PATCH,
	FUZZ_NR_ZONES,
	FUZZ_ROUGH,
	FUZZ_DROP = FUZZ_ROUGH,
	FUZZ_STOP,
	FUZZ_TWICE,
	FUZZ_BAD_ID,
	NR_FUZZ_KINDS,
};

/**
 * struct fuzz_decision - what becomes of one reply
 * @kind: what
 * @value: the status, length, ID or time
 * @where: for FUZZ_PATCH, which of the reply's 8 bytes; any number
 */
struct fuzz_decision {
	enum fuzz_kind kind;
	uint64_t value;
	uint64_t where;
};

/* The first half of a configuration: queues, rings, features, zones.  A seed
 * makes the same of the same settings everywhere. */
void fuzz_settings(struct settings *set, uint64_t seed);
/* What the device of a seed is like; NULL without memory.  Of 256 replies it mutates
 * rate, or with 0 as many as its seed says. */
struct fuzz *fuzz_new(uint64_t seed, unsigned int rate);
void fuzz_free(struct fuzz *fuzz);
/* Whether it does anything from FUZZ_ROUGH on. */
bool fuzz_is_rough(const struct fuzz *fuzz);
/* Whether it keeps what it does not answer even when it is to go. */
bool fuzz_is_stubborn(const struct fuzz *fuzz);
/* What it does to its request of that number, which is of that type. */
struct fuzz_decision fuzz_decide(const struct fuzz *fuzz, uint64_t number,
				 uint32_t type);
/* The second half, once the device has its disk: the fields that it shows.  Both
 * halves are told in one line. */
void fuzz_config(struct sim *sim, FILE *out);
/* From now on there are interrupts that mean nothing, and changes of fields. */
void fuzz_start(struct sim *sim);
/* Does the fuzzer take this request over?  If so it is answered there. */
bool fuzz_takes(struct sim *sim, struct chain *chain);
/* The device is to go: lose no more requests, unless it is stubborn. */
void fuzz_calm(struct sim *sim);

/* load.c: use a disk, in one of LOADS ways, for that long */
#define LOADS	3
void load_disk(const char *disk, unsigned int how, uint64_t seed, uint64_t ms);

/* campaign.c: vblksim fuzz */
int campaign_main(int argc, char **argv);

#endif /* VBLKSIM_FUZZ_H */
