// SPDX-License-Identifier: GPL-2.0
/*
 * The fuzzer: a seed makes the same device on any system, seeds make all kinds of
 * devices, and decisions take effect.
 */

#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "selftest.h"

#define SEEDS		200u
#define REPLIES		512u
#define ASKED		64u
#define SECTORS		8u

/* A summary of a seed's device. */
struct outcome {
	struct blk_config config;
	uint64_t features;
	unsigned int queues;
	unsigned int ring_size;
	struct fuzz_decision decision[REPLIES];
};

/* Some types; most requests are of the first two. */
static const uint32_t asked[] = {
	BLK_T_IN, BLK_T_OUT, BLK_T_GET_ID, BLK_T_ZONE_REPORT,
};

/* Counts of the properties of devices. */
static FILE *nowhere;

static struct bench *open_hostile(uint64_t seed)
{
	struct bench *bench = bench_open("--capacity=16M", NULL);
	struct sim *sim = &bench->sim;

	sim->fuzz = fuzz_new(seed, 0);
	if (!sim->fuzz)
		exit(1);
	return bench;
}

static void close_hostile(struct bench *bench)
{
	struct fuzz *fuzz = bench->sim.fuzz;

	bench_close(bench);
	fuzz_free(fuzz);
}

static void find_outcome(uint64_t seed, struct outcome *outcome)
{
	struct bench *bench = open_hostile(seed);
	struct sim *sim = &bench->sim;
	const struct settings *set = &sim->set;

	memset(outcome, 0, sizeof(*outcome));
	fuzz_settings(&sim->set, seed);
	fuzz_config(sim, nowhere);
	outcome->config = set->config;
	outcome->features = set->features;
	outcome->queues = set->queues;
	outcome->ring_size = set->ring_size;
	for (unsigned int i = 0; i < REPLIES; i++)
		outcome->decision[i] = fuzz_decide(sim->fuzz, i + 1,
					asked[i % ARRAY_SIZE(asked)]);
	/* Keep the number of queues that the bench was opened with. */
	sim->set.queues = 4;
	close_hostile(bench);
}

static void test_decisions(void)
{
	static struct outcome first, again, other;
	unsigned int same = 0, different = 0, usual = 0;
	unsigned int seen[NR_FUZZ_KINDS] = { 0 }, missing = 0;

	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		find_outcome(seed, &first);
		find_outcome(seed, &again);
		find_outcome(seed + SEEDS, &other);
		same += !memcmp(&first, &again, sizeof(first));
		different += !!memcmp(&first, &other, sizeof(first));
		usual += le64toh(first.config.capacity) == 32768 &&
			 le32toh(first.config.blk_size) == 512;
		for (unsigned int i = 0; i < REPLIES; i++)
			seen[first.decision[i].kind]++;
	}
	for (unsigned int kind = 0; kind < NR_FUZZ_KINDS; kind++)
		if (!seen[kind])
			missing = kind;
	test_result("fuzz: a seed determines the device", same == SEEDS,
		    "%u of %u seeds do", same, SEEDS);
	test_result("fuzz: seeds differ", different == SEEDS,
		    "%u of %u seeds do", different, SEEDS);
	test_result("fuzz: every kind occurs", !missing,
		    "kind %u does not occur", missing);
	test_result("fuzz: some disks can be used, and some cannot",
		    usual > SEEDS / 3 && usual < SEEDS * 9 / 10,
		    "%u of %u disks can be used", usual, SEEDS);
}

/* The bytes and used lengths of the answers to some reads. */
static uint64_t ask(uint64_t seed, uint64_t *mutated)
{
	struct bench *bench = open_hostile(seed);
	uint8_t data[SECTORS * SECTOR_SIZE];
	uint64_t sum = 0;

	bench_start_all(bench);
	for (unsigned int i = 0; i < ASKED; i++) {
		memset(data, 0, sizeof(data));
		sum = sum * 31 + bench_request(bench, BLK_T_IN, 0, data, 0,
					       sizeof(data));
		for (size_t at = 0; at < sizeof(data); at++)
			sum = sum * 31 + data[at];
		/* A held request has no answer: the next one would look like it. */
		if (script_release(&bench->sim))
			break;
	}
	*mutated = bench->sim.watch.mutated;
	close_hostile(bench);
	return sum;
}

/* Mutations with a used entry that a driver can reap. */
static bool is_gentle(uint64_t seed)
{
	struct fuzz *fuzz = fuzz_new(seed, 0);
	bool gentle = fuzz && !fuzz_is_rough(fuzz);

	fuzz_free(fuzz);
	return gentle;
}

static void test_replies(void)
{
	unsigned int tried = 0, same = 0;
	uint64_t mutated, mutated_again, all = 0, sum;

	for (uint64_t seed = 1; tried < 50; seed++) {
		if (!is_gentle(seed))
			continue;
		tried++;
		sum = ask(seed, &mutated);
		same += sum == ask(seed, &mutated_again) &&
			mutated == mutated_again;
		all += mutated;
	}
	test_result("fuzz: a seed determines the replies", same == tried,
		    "%u of %u do", same,
		    tried);
	test_result("fuzz: replies are mutated", all > 100, "%u replies are",
		    (unsigned int)all);
}

static void test_calm(void)
{
	uint64_t seed = 1;
	struct fuzz *fuzz;

	/* Find a stubborn device: it must be a rough one. */
	while ((fuzz = fuzz_new(seed++, 0)) && !fuzz_is_stubborn(fuzz))
		fuzz_free(fuzz);
	test_result("fuzz: only rough devices are stubborn",
		    fuzz && fuzz_is_rough(fuzz), "seed %u is not",
		    (unsigned int)seed - 1);
	fuzz_free(fuzz);
}

void selftest_fuzz(void)
{
	nowhere = fopen("/dev/null", "w");
	if (!nowhere)
		exit(1);
	test_decisions();
	test_replies();
	test_calm();
	fclose(nowhere);
}
