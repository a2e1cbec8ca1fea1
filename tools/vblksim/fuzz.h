/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A hostile device: fuzz.c decides what it does, campaign.c runs many of them.
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

/* Mutations of a reply.  Up to FUZZ_LATER the driver gets the right reply, from
 * FUZZ_ROUGH on it loses a request or the virtqueue. */
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
 * struct fuzz_decision - the mutation of one reply
 * @kind: the mutation
 * @value: the status, length, ID or time
 * @where: for FUZZ_PATCH, which 8 bytes of the reply; any number
 */
struct fuzz_decision {
	enum fuzz_kind kind;
	uint64_t value;
	uint64_t where;
};

/* The first half of a configuration: queues, rings, features, zones.  A seed has
 * the same result for the same settings on any system. */
void fuzz_settings(struct settings *set, uint64_t seed);
/* Make the state of a seed's device; NULL without memory.  It mutates rate of 256
 * replies, or with 0 a number from the seed. */
struct fuzz *fuzz_new(uint64_t seed, unsigned int rate);
void fuzz_free(struct fuzz *fuzz);
/* Does it have any mutation from FUZZ_ROUGH on? */
bool fuzz_is_rough(const struct fuzz *fuzz);
/* Does it keep unanswered requests even when it is removed? */
bool fuzz_is_stubborn(const struct fuzz *fuzz);
/* Return the mutation of the reply to a request, by number and type. */
struct fuzz_decision fuzz_decide(const struct fuzz *fuzz, uint64_t number,
				 uint32_t type);
/* The second half, when the device has its disk: the configuration space.  Prints
 * both halves in one line. */
void fuzz_config(struct sim *sim, FILE *out);
/* Start spurious interrupts and changes of fields. */
void fuzz_start(struct sim *sim);
/* Does the fuzzer answer this request? */
bool fuzz_takes(struct sim *sim, struct chain *chain);
/* The device is being removed: lose no more requests, unless it is stubborn. */
void fuzz_calm(struct sim *sim);

/* load.c: use a disk in one of LOADS ways for ms milliseconds */
#define LOADS	3
void load_disk(const char *disk, unsigned int how, uint64_t seed, uint64_t ms);

/* campaign.c: vblksim fuzz */
int campaign_main(int argc, char **argv);

#endif /* VBLKSIM_FUZZ_H */
