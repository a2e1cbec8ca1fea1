// SPDX-License-Identifier: GPL-2.0
/*
 * A hostile device: its configuration and its replies come from a seed.
 *
 * Decisions on a reply depend only on the seed and the request's number, so that
 * the driver's timing does not change them.  A device has a character: how often
 * it misbehaves, and in which ways.  Only a few devices lose requests or
 * virtqueues, because that ends their use early.
 */

#define _GNU_SOURCE
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "vblksim.h"
#include "virtio.h"

#define BIT(n)		(1ull << (n))
#define MILLISECOND	1000000ull
/* Small, because many devices are in the guest's memory. */
#define CAPACITY	32768u
#define ZONE_SECTORS	1024u
/* Capacities between these have too many zones for the guest's memory or zoned.c. */
#define FEW_SECTORS	BIT(26)
#define MANY_SECTORS	BIT(44)

/* Each purpose has its own random numbers. */
enum purpose {
	FOR_SETTINGS,
	FOR_CHARACTER,
	FOR_CONFIG,
	FOR_EVENTS,
	FOR_REPLIES,
};

struct random {
	uint64_t state;
};

/**
 * struct fuzz - a hostile device
 * @seed: its seed
 * @rate: how many of 256 replies it mutates
 * @kinds: the mutations, a bit for each enum fuzz_kind
 * @stubborn: keeps unanswered requests even when it is removed
 * @calm: it is being removed, and loses no more requests
 * @interval: milliseconds between spontaneous events, 0 for none
 * @events: random numbers for these
 * @capacity: the initial value of the field
 */
struct fuzz {
	uint64_t seed;
	unsigned int rate;
	uint32_t kinds;
	bool stubborn;
	bool calm;
	unsigned int interval;
	struct random events;
	uint64_t capacity;
};

/* Names of the mutations that script.c implements. */
static const char *const behaviours[NR_FUZZ_KINDS] = {
	[FUZZ_DELAY] = "delay",
	[FUZZ_REORDER] = "reorder",
	[FUZZ_HOLD] = "hold",
	[FUZZ_STATUS] = "status",
	[FUZZ_FAIL] = "fail",
	[FUZZ_NO_STATUS] = "no_status",
	[FUZZ_SHORT] = "short",
	[FUZZ_LONG] = "long",
	[FUZZ_CORRUPT] = "corrupt",
	[FUZZ_GARBAGE] = "garbage",
	[FUZZ_NR_ZONES] = "nr_zones",
	[FUZZ_DROP] = "drop",
	[FUZZ_STOP] = "stop",
	[FUZZ_TWICE] = "twice",
	[FUZZ_BAD_ID] = "bad_id",
};

/* ---- numbers ---- */

/* Steele, Lea and Flood's SplitMix64. */
static uint64_t next(struct random *random)
{
	uint64_t z = random->state += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

static struct random random_for(uint64_t seed, enum purpose purpose,
				uint64_t number)
{
	struct random random = { seed };

	random.state = next(&random) ^ purpose;
	random.state = next(&random) ^ number;
	return random;
}

static uint64_t below(struct random *random, uint64_t limit)
{
	return next(random) % limit;
}

static bool one_in(struct random *random, uint64_t times)
{
	return !below(random, times);
}

/* Return a number of some bytes that often triggers bugs. */
static uint64_t interesting(struct random *random, size_t bytes)
{
	unsigned int bits = bytes * 8;
	uint64_t mask = bits == 64 ? UINT64_MAX : BIT(bits) - 1;
	uint64_t power = BIT(below(random, bits));

	switch (below(random, 8)) {
	case 0:
		return 0;
	case 1:
		return 1;
	case 2:
		return mask;
	case 3:
		return power;
	case 4:
		return power - 1;
	case 5:
		return (power + 1) & mask;
	case 6:
		return below(random, 256);
	default:
		return next(random) & mask;
	}
}

/* ---- configuration ---- */

static void flip_features(struct settings *set, struct random *random,
			  unsigned int one)
{
	const uint64_t fixed = BIT(F_ACCESS_PLATFORM) | BIT(BLK_F_CONFIG_WCE) |
			       BIT(F_VERSION_1);

	for (unsigned int bit = 0; bit < 64; bit++)
		if (feature_name(bit) && !(fixed & BIT(bit)) &&
		    one_in(random, one))
			set->features ^= BIT(bit);
	/* Features that this device does not know, or that it needs. */
	if (one_in(random, 16))
		set->features ^= BIT(below(random, 64)) & ~fixed;
	if (one_in(random, 256))
		set->features &= ~BIT(F_VERSION_1);
}

static void choose_zones(struct settings *set, struct random *random)
{
	set->features |= BIT(BLK_F_ZONED);
	set->config.model = one_in(random, 8) ? BLK_Z_HA : BLK_Z_HM;
	set->config.zone_sectors = htole32(ZONE_SECTORS);
	set->config.write_granularity = htole32(512);
	set->config.max_append_sectors = htole32(256);
	set->config.max_open_zones = htole32(below(random, 8));
	set->config.max_active_zones = htole32(below(random, 8));
	set->zone_conventional = below(random, 4);
}

void fuzz_settings(struct settings *set, uint64_t seed)
{
	struct random random = random_for(seed, FOR_SETTINGS, 0);

	set->config.capacity = htole64(CAPACITY);
	set->queues = 1 + below(&random, one_in(&random, 8) ? MAX_QUEUES : 6);
	set->config.num_queues = htole16(set->queues);
	/* The size of a split ring must be a power of two. */
	set->ring_size = one_in(&random, 8) ? 1 + below(&random, 1024) :
					      BIT(2 + below(&random, 9));
	if (one_in(&random, 4))
		set->features |= BIT(F_RING_PACKED);
	if (one_in(&random, 4))
		choose_zones(set, &random);
	if (one_in(&random, 2))
		flip_features(set, &random, 6);
}

/* zoned.c also uses the capacity, and allocates memory for each zone. */
static uint64_t bound_capacity(const struct sim *sim, uint64_t sectors)
{
	if (!sim->zones || sectors >= MANY_SECTORS)
		return sectors;
	return sectors % FEW_SECTORS;
}

static void set_field(struct sim *sim, const char *name, uint64_t value,
		      FILE *out)
{
	char text[24], why[256];

	if (!strcmp(name, "capacity"))
		value = bound_capacity(sim, value);
	snprintf(text, sizeof(text), "%" PRIu64, value);
	settings_set_config(&sim->set, name, text, why, sizeof(why));
	fprintf(out, " %s=%s", name, text);
}

/* Can the driver not refuse a disk because of this field? */
static bool is_harmless(const char *name)
{
	static const char *const vital[] = {
		"capacity", "size_max", "blk_size", "num_queues", "zone_sectors",
		"write_granularity", "model",
	};

	for (size_t i = 0; i < ARRAY_SIZE(vital); i++)
		if (!strcmp(vital[i], name))
			return false;
	return true;
}

/*
 * Half of the devices are usable, as far as that is possible.  Of the others one
 * field in three has a random value.
 */
static void mutate_fields(struct sim *sim, struct random *random, FILE *out)
{
	bool sane = one_in(random, 2);
	size_t bytes;
	const char *name;

	for (unsigned int i = 0; (name = settings_field(i, &bytes)); i++) {
		uint64_t value = interesting(random, bytes);

		if (one_in(random, sane ? 6 : 3) && (!sane || is_harmless(name)))
			set_field(sim, name, value, out);
	}
}

static void tell_features(const struct settings *set, FILE *out)
{
	uint64_t usual = features_default();

	for (unsigned int bit = 0; bit < 64; bit++) {
		const char *name = feature_name(bit);

		if (!((set->features ^ usual) & BIT(bit)))
			continue;
		fprintf(out, " %c", set->features & BIT(bit) ? '+' : '-');
		if (name)
			fputs(name, out);
		else
			fprintf(out, "bit%u", bit);
	}
}

static void tell_character(const struct fuzz *fuzz, FILE *out)
{
	fprintf(out, "; %u of 256 replies:", fuzz->rate);
	for (unsigned int kind = 0; kind < NR_FUZZ_KINDS; kind++)
		if (fuzz->kinds & BIT(kind))
			fprintf(out, " %s", kind == FUZZ_PATCH ? "patch" :
						     behaviours[kind]);
	if (fuzz->interval)
		fprintf(out, "; interrupts every %u ms", fuzz->interval);
	fprintf(out, "%s\n", fuzz->stubborn ? "; stubborn" : "");
	fflush(out);
}

void fuzz_config(struct sim *sim, FILE *out)
{
	struct random random = random_for(sim->fuzz->seed, FOR_CONFIG, 0);
	const struct settings *set = &sim->set;

	fprintf(out, "vblksim: seed %" PRIu64 ": %u queues of %u%s",
		sim->fuzz->seed, set->queues, set->ring_size,
		sim->zones ? ", zones" : "");
	tell_features(set, out);
	mutate_fields(sim, &random, out);
	sim->fuzz->capacity = le64toh(set->config.capacity);
	tell_character(sim->fuzz, out);
}

/* ---- replies ---- */

static uint32_t choose_kinds(struct random *random)
{
	uint32_t gentle = BIT(FUZZ_ROUGH) - BIT(FUZZ_DELAY);
	uint32_t kinds = next(random) & next(random) & gentle;

	if (one_in(random, 16))
		kinds = gentle;
	if (one_in(random, 12))
		kinds |= BIT(FUZZ_ROUGH + below(random, NR_FUZZ_KINDS -
						       FUZZ_ROUGH));
	return kinds;
}

struct fuzz *fuzz_new(uint64_t seed, unsigned int rate)
{
	static const unsigned int rates[] = { 8, 32, 128, 256 };
	struct random random = random_for(seed, FOR_CHARACTER, 0);
	struct fuzz *fuzz = calloc(1, sizeof(*fuzz));

	if (!fuzz)
		return NULL;
	fuzz->seed = seed;
	fuzz->rate = rates[below(&random, ARRAY_SIZE(rates))];
	if (rate)
		fuzz->rate = rate;
	fuzz->kinds = choose_kinds(&random);
	fuzz->stubborn = one_in(&random, 8) && fuzz_is_rough(fuzz);
	fuzz->interval = one_in(&random, 2) ? 1 + below(&random, 40) : 0;
	fuzz->events = random_for(seed, FOR_EVENTS, 0);
	return fuzz;
}

void fuzz_free(struct fuzz *fuzz)
{
	free(fuzz);
}

bool fuzz_is_rough(const struct fuzz *fuzz)
{
	return fuzz->kinds >> FUZZ_ROUGH;
}

bool fuzz_is_stubborn(const struct fuzz *fuzz)
{
	return fuzz->stubborn;
}

/* Pick one of the kinds in a mask that is not 0. */
static enum fuzz_kind pick_kind(struct random *random, uint32_t kinds)
{
	unsigned int skip = below(random, __builtin_popcount(kinds));

	while (skip--)
		kinds &= kinds - 1;
	return __builtin_ctz(kinds);
}

static uint64_t choose_value(struct random *random, enum fuzz_kind kind)
{
	switch (kind) {
	case FUZZ_DELAY:
		return below(random, 20) * MILLISECOND;
	case FUZZ_REORDER:
		return 2 + below(random, 6);
	case FUZZ_STATUS:
	case FUZZ_FAIL:
		return interesting(random, 1);
	case FUZZ_SHORT:
	case FUZZ_LONG:
		return interesting(random, 4);
	case FUZZ_BAD_ID:
		/* Often an ID in flight. */
		return one_in(random, 2) ? below(random, 64) :
					   interesting(random, 4);
	default:
		return interesting(random, 8);
	}
}

struct fuzz_decision fuzz_decide(const struct fuzz *fuzz, uint64_t number,
				 uint32_t type)
{
	struct random random = random_for(fuzz->seed, FOR_REPLIES, number);
	struct fuzz_decision decision = { FUZZ_HONEST, 0, 0 };
	uint32_t kinds = fuzz->kinds;

	if (!kinds || below(&random, 256) >= fuzz->rate)
		return decision;
	/* A queue that breaks early does not test much. */
	if (fuzz_is_rough(fuzz) && !one_in(&random, 64))
		kinds &= BIT(FUZZ_ROUGH) - 1;
	if (!kinds)
		return decision;
	decision.kind = pick_kind(&random, kinds);
	decision.value = choose_value(&random, decision.kind);
	decision.where = next(&random);
	if (decision.kind == FUZZ_NR_ZONES && type != BLK_T_ZONE_REPORT)
		decision.kind = FUZZ_PATCH;
	return decision;
}

/* Execute a request, and change 8 bytes of the reply. */
static void patch(struct sim *sim, struct chain *chain,
		  const struct fuzz_decision *decision)
{
	uint64_t value = htole64(decision->value), words;
	struct request req;
	uint8_t status;

	request_parse(&req, chain);
	status = request_run(sim, &req);
	words = chain->in_len / sizeof(value);
	if (words) {
		/* Headers, and the first zones of a report, matter most. */
		if (decision->where & BIT(63) && words > 64)
			words = 64;
		chain_write(chain, decision->where % words * sizeof(value),
			    &value, sizeof(value));
	}
	request_answer(sim, chain, status);
}

bool fuzz_takes(struct sim *sim, struct chain *chain)
{
	struct fuzz_decision decision;
	struct request req;

	if (!sim->fuzz)
		return false;
	request_parse(&req, chain);
	decision = fuzz_decide(sim->fuzz, chain->number, req.type);
	if (decision.kind == FUZZ_HONEST ||
	    (sim->fuzz->calm && decision.kind >= FUZZ_ROUGH))
		return false;
	if (decision.kind > FUZZ_LATER)
		sim->watch.mutated++;
	if (decision.kind == FUZZ_PATCH)
		patch(sim, chain, &decision);
	else
		script_treat(sim, chain, behaviours[decision.kind],
			     decision.value);
	return true;
}

/* ---- spontaneous events ---- */

static void change_capacity(struct sim *sim, struct random *random)
{
	uint64_t sectors = one_in(random, 2) ? sim->fuzz->capacity :
			   one_in(random, 2) ? below(random, 2 * CAPACITY) :
					       interesting(random, 8);

	sim->set.config.capacity = htole64(bound_capacity(sim, sectors));
	sim->front->config_changed(sim);
}

static void storm(struct sim *sim, struct random *random)
{
	for (uint64_t left = below(random, 64); left; left--)
		if (one_in(random, 4))
			change_capacity(sim, random);
		else
			sim->front->config_changed(sim);
}

static void interrupt_idly(struct sim *sim, struct random *random)
{
	unsigned int queue = below(random, sim->set.queues);

	for (uint64_t left = below(random, 16); left; left--)
		sim->front->interrupt(sim, queue);
}

static void happen(struct sim *sim, void *arg)
{
	struct fuzz *fuzz = sim->fuzz;
	struct random *random = &fuzz->events;

	(void)arg;
	loop_after(fuzz->interval * MILLISECOND, happen, NULL);
	if (!(sim->status & STATUS_DRIVER_OK))
		return;
	switch (below(random, 8)) {
	case 0:
		storm(sim, random);
		break;
	case 1:
		change_capacity(sim, random);
		break;
	case 2:
		if (!fuzz->stubborn)
			ring_return_lost(sim);
		break;
	default:
		interrupt_idly(sim, random);
	}
}

/* Release held requests in batches. */
static void let_go(struct sim *sim, void *arg)
{
	(void)arg;
	loop_after(20 * MILLISECOND, let_go, NULL);
	script_release(sim);
}

void fuzz_start(struct sim *sim)
{
	if (sim->fuzz->interval)
		happen(sim, NULL);
	let_go(sim, NULL);
}

void fuzz_calm(struct sim *sim)
{
	if (sim->fuzz && !sim->fuzz->stubborn)
		sim->fuzz->calm = true;
}
