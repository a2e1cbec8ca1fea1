// SPDX-License-Identifier: GPL-2.0
/*
 * Tests of requests, zones, data and script: hand-made requests on a split
 * ring in this program's memory, and the device's answers.
 *
 * A request that breaks a rule must count against that rule only, and a correct
 * one against none.
 */

#define _GNU_SOURCE
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "selftest.h"

#define BIT(nr)		(1ull << (nr))
#define NO_RULE		NR_RULES
#define NEVER		0xee	/* the initial value of the status byte */
#define LOST		0x1ee	/* there was no used entry for the request */
#define DATA_BYTES	65536u
#define ENVELOPES	64u

/* capacity of the device without zones */
#define CAPACITY	4096u
#define SEG_LIMIT	4u
#define SIZE_LIMIT	8192u
#define RANGE_LIMIT	1024u

/* capacity of the zoned one: 2 conventional zones, 13 others, a short last one */
#define ZONE		64u
#define ZONE_CAP	48u
#define ZONES		16u
#define LAST_ZONE	32u
#define CONVENTIONAL	2u
#define GRANULE		8u
#define APPEND_LIMIT	16u

#define FEATURES	(BIT(BLK_F_SIZE_MAX) | BIT(BLK_F_SEG_MAX) |	\
			 BIT(BLK_F_FLUSH) | BIT(BLK_F_DISCARD) |	\
			 BIT(BLK_F_WRITE_ZEROES) | BIT(BLK_F_LIFETIME) | \
			 BIT(BLK_F_SECURE_ERASE) | BIT(F_VERSION_1))

/**
 * struct rig - a bench that checks each request by itself
 * @bench: the device and its memory
 * @sim: the device
 * @desc: the first queue's descriptors
 * @avail: its available ring: flags, idx, heads
 * @used: its used ring: flags, idx, entries
 * @size: number of its descriptors
 * @next: next descriptor to use
 * @seen: number of reaped used entries
 * @broken: how often each rule was broken at the last check
 * @out: memory for data
 * @in: memory for data
 * @envelopes: memory for headers and status bytes
 * @last: the last envelope that was used
 * @len: used length of the last request
 */
struct rig {
	struct bench *bench;
	struct sim *sim;
	struct test_desc *desc;
	uint16_t *avail;
	uint16_t *used;
	uint16_t size;
	uint16_t next;
	uint16_t seen;
	uint64_t broken[NR_RULES];
	uint8_t *out;
	uint8_t *in;
	struct envelope *envelopes;
	unsigned int last;
	uint32_t len;
};

/* the header and the status of a request, which may be pending for long */
struct envelope {
	struct blk_header header;
	uint8_t status;
};

#define expect(good, ...) do {						\
	if (!(good))							\
		test_result(__func__, false, __VA_ARGS__);		\
} while (0)

/* size of the pieces of memory, 0 for one piece */
static uint32_t piece;
static void *(*map_whole)(struct sim *sim, uint64_t addr, uint64_t len,
			  bool write, uint64_t *run);

static void *map_pieces(struct sim *sim, uint64_t addr, uint64_t len,
			bool write, uint64_t *run)
{
	void *at = map_whole(sim, addr, len, write, run);

	if (piece && *run > piece)
		*run = piece;
	return at;
}

static void set_plain(struct settings *set)
{
	set->features = FEATURES;
	memcpy(set->id, "exactly-20-bytes-id!", BLK_ID_BYTES);
	set->lifetime = (struct blk_lifetime){ htole16(1), htole16(2),
					       htole16(3) };
	set->config = (struct blk_config){
		.capacity = htole64(CAPACITY),
		.size_max = htole32(SIZE_LIMIT),
		.seg_max = htole32(SEG_LIMIT),
		.max_discard_sectors = htole32(RANGE_LIMIT),
		.max_discard_seg = htole32(3),
		.max_write_zeroes_sectors = htole32(RANGE_LIMIT),
		.max_write_zeroes_seg = htole32(3),
		.max_secure_erase_sectors = htole32(RANGE_LIMIT),
		.max_secure_erase_seg = htole32(3),
	};
}

static void set_zoned(struct settings *set)
{
	set_plain(set);
	set->features |= BIT(BLK_F_ZONED);
	set->features &= ~BIT(BLK_F_DISCARD);
	set->zone_conventional = CONVENTIONAL;
	set->zone_capacity = ZONE_CAP;
	set->config.capacity = htole64(ZONE * (ZONES - 1) + LAST_ZONE);
	set->config.zone_sectors = htole32(ZONE);
	set->config.max_open_zones = htole32(2);
	set->config.max_active_zones = htole32(3);
	set->config.max_append_sectors = htole32(APPEND_LIMIT);
	set->config.write_granularity = htole32(GRANULE * SECTOR_SIZE);
	set->config.model = BLK_Z_HM;
}

static void set_aware(struct settings *set)
{
	set_zoned(set);
	set->features |= BIT(BLK_F_DISCARD);
	set->config.model = BLK_Z_HA;
}

static void *rig_memory(struct rig *b, uint32_t len)
{
	return bench_at(b->bench, bench_alloc(b->bench, len, 16));
}

/* the driver accepts all offered features except those in without */
static struct rig *rig_new(void (*set)(struct settings *set), uint64_t without)
{
	struct rig *b = calloc(1, sizeof(*b));
	struct bench *bench = bench_open(NULL, NULL);
	struct sim *sim = &bench->sim;
	struct driver *driver = &bench->driver[0];

	b->bench = bench;
	b->sim = sim;
	set(&sim->set);
	store_close(sim->store);
	zones_free(sim->zones);
	sim->store = store_open(sim->set.file,
				le64toh(sim->set.config.capacity));
	sim->zones = zones_new(&sim->set);
	sim->watch.quiet = true;
	if (!sim->store || !bench_start(bench, sim->set.features & ~without)) {
		fprintf(stderr, "a device does not start\n");
		exit(1);
	}
	map_whole = bench->front.map;
	bench->front.map = map_pieces;
	piece = 0;
	b->desc = driver->desc;
	b->avail = driver->driver_area;
	b->used = driver->device_area;
	b->size = driver->where.size;
	b->out = rig_memory(b, DATA_BYTES);
	b->in = rig_memory(b, DATA_BYTES);
	b->envelopes = rig_memory(b, ENVELOPES * sizeof(*b->envelopes));
	memcpy(b->broken, sim->watch.broken, sizeof(b->broken));
	return b;
}

/* check that all broken rules are named, up to the last */
#define CLOSE(b, ...) do {						\
	bench_expect((b)->bench, __func__, ##__VA_ARGS__, -1);		\
	free(b);							\
} while (0)

/* fill one descriptor with the bench's memory */
struct bit {
	const void *base;
	uint32_t len;
	bool in;
};

/* make a request available, and kick the device; returns its head */
static uint16_t submit(struct rig *b, const struct bit *bits, unsigned int nr)
{
	uint16_t head = b->next % b->size;

	for (unsigned int i = 0; i < nr; i++) {
		uint16_t at = b->next++ % b->size;

		b->desc[at] = (struct test_desc){
			.addr = (const uint8_t *)bits[i].base -
				b->bench->memory + MEMORY_START,
			.len = bits[i].len,
			.third = (bits[i].in ? DESC_F_WRITE : 0) |
				 (i + 1 < nr ? DESC_F_NEXT : 0),
			.fourth = b->next % b->size,
		};
	}
	b->avail[2 + b->avail[1] % b->size] = head;
	b->avail[1]++;
	ring_kicked(b->sim, 0, !b->used[0]);
	return head;
}

/* the next used entry, if there is one */
static bool take_used(struct rig *b, uint32_t *id, uint32_t *len)
{
	const struct {
		uint32_t id;
		uint32_t len;
	} *entries = (const void *)(b->used + 2);

	*id = 0;
	*len = 0;
	if (b->seen == b->used[1])
		return false;
	*id = entries[b->seen % b->size].id;
	*len = entries[b->seen % b->size].len;
	b->seen++;
	return true;
}

static struct envelope *last_envelope(struct rig *b)
{
	return &b->envelopes[b->last];
}

static uint16_t post(struct rig *b, uint32_t type, uint64_t sector,
		     uint32_t out, uint32_t in)
{
	struct envelope *env;
	struct bit bits[4];
	unsigned int nr = 0;

	b->last = (b->last + 1) % ENVELOPES;
	env = last_envelope(b);
	env->header = (struct blk_header){ htole32(type), 0, htole64(sector) };
	env->status = NEVER;
	bits[nr++] = (struct bit){ &env->header, sizeof(env->header), false };
	if (out)
		bits[nr++] = (struct bit){ b->out, out, false };
	if (in)
		bits[nr++] = (struct bit){ b->in, in, true };
	bits[nr++] = (struct bit){ &env->status, 1, true };
	return submit(b, bits, nr);
}

static unsigned int ask(struct rig *b, uint32_t type, uint64_t sector,
			uint32_t out, uint32_t in)
{
	uint16_t head = post(b, type, sector, out, in);
	uint32_t id;

	if (!take_used(b, &id, &b->len) || id != head)
		return LOST;
	return last_envelope(b)->status;
}

/* return the rule broken since the last call, NR_RULES + 1 for several */
static unsigned int news(struct rig *b)
{
	unsigned int which = NO_RULE;

	for (unsigned int i = 0; i < NR_RULES; i++) {
		if (b->sim->watch.broken[i] == b->broken[i])
			continue;
		which = which == NO_RULE ? i : NR_RULES + 1;
		b->broken[i] = b->sim->watch.broken[i];
	}
	return which;
}

static const char *rule_name(unsigned int rule)
{
	if (rule == NO_RULE)
		return "none";
	return rule < NR_RULES ? rule_texts[rule].name : "several";
}

#define EXPECT_RULE(b, rule) do {					\
	unsigned int was = news(b);					\
	expect(was == (rule), "broken: %s, not %s", rule_name(was),	\
	       rule_name(rule));					\
} while (0)

#define EXPECT_STATUS(status, call) do {				\
	unsigned int got = call;					\
	expect(got == (status), "status 0x%x, not 0x%x: %s", got,	\
	       (unsigned int)(status), #call);				\
} while (0)

/* expect no broken rule and this status */
#define GOOD(b, status, ...) do {					\
	EXPECT_STATUS(status, ask(b, __VA_ARGS__));			\
	EXPECT_RULE(b, NO_RULE);					\
} while (0)

/* expect one broken rule and this status */
#define BAD(b, rule, status, ...) do {					\
	EXPECT_STATUS(status, ask(b, __VA_ARGS__));			\
	EXPECT_RULE(b, RULE_##rule);					\
} while (0)

static void put_range(struct rig *b, unsigned int nr, uint64_t sector,
		      uint32_t sectors, uint32_t flags)
{
	((struct blk_range *)b->out)[nr] = (struct blk_range){
		htole64(sector), htole32(sectors), htole32(flags),
	};
}

static bool all_bytes(const uint8_t *p, size_t len, uint8_t byte)
{
	while (len--)
		if (*p++ != byte)
			return false;
	return true;
}

/* does a sector that the driver reads consist of that byte? */
static bool sector_has(struct rig *b, uint64_t sector, uint8_t byte)
{
	memset(b->in, ~byte, SECTOR_SIZE);
	return !ask(b, BLK_T_IN, sector, 0, SECTOR_SIZE) &&
	       all_bytes(b->in, SECTOR_SIZE, byte);
}

static void fill(struct rig *b, uint64_t sector, uint32_t sectors,
		 uint8_t byte)
{
	memset(b->out, byte, sectors * SECTOR_SIZE);
	expect(!ask(b, BLK_T_OUT, sector, sectors * SECTOR_SIZE, 0),
	       "the device fails a write to sector %" PRIu64, sector);
}

/* ---- requests ---- */

static void test_types(void)
{
	struct rig *b = rig_new(set_plain, 0);

	for (unsigned int i = 0; i < 4096; i++)
		b->out[i] = i * 7 + i / 512;
	GOOD(b, BLK_S_OK, BLK_T_OUT, 8, 4096, 0);
	expect(b->len == 1, "used length %u", b->len);
	GOOD(b, BLK_S_OK, BLK_T_IN, 8, 0, 4096);
	expect(b->len == 4097, "used length %u", b->len);
	expect(!memcmp(b->in, b->out, 4096), "other data than written");
	GOOD(b, BLK_S_OK, BLK_T_FLUSH, 0, 0, 0);
	GOOD(b, BLK_S_OK, BLK_T_GET_ID, 0, 0, 20);
	expect(b->len == 21, "used length %u", b->len);
	expect(!memcmp(b->in, "exactly-20-bytes-id!", 20),
	       "GET_ID returns another ID");
	GOOD(b, BLK_S_OK, BLK_T_GET_LIFETIME, 0, 0, 6);
	expect(!memcmp(b->in, "\1\0\2\0\3", 6),
	       "GET_LIFETIME returns other values");
	memset(b->sim->set.id, 0, BLK_ID_BYTES);
	strcpy(b->sim->set.id, "short");
	GOOD(b, BLK_S_OK, BLK_T_GET_ID, 0, 0, 20);
	expect(!memcmp(b->in, b->sim->set.id, 20),
	       "GET_ID does not pad a short ID with zeros");
	GOOD(b, BLK_S_OK, BLK_T_IN, CAPACITY - 1, 0, 512);
	GOOD(b, BLK_S_OK, BLK_T_OUT, CAPACITY - 16, 8192, 0);
	GOOD(b, BLK_S_OK, BLK_T_IN, 0, 0, 0);
	expect(b->sim->watch.types[BLK_T_IN] == 3, "%" PRIu64 " reads counted",
	       b->sim->watch.types[BLK_T_IN]);
	CLOSE(b);
}

static void test_ranges(void)
{
	static const uint32_t kinds[] = {
		BLK_T_DISCARD, BLK_T_WRITE_ZEROES, BLK_T_SECURE_ERASE,
	};
	struct rig *b = rig_new(set_plain, 0);

	for (unsigned int i = 0; i < 6; i++) {
		uint32_t flags = kinds[i % 3] == BLK_T_WRITE_ZEROES && i > 2;

		for (unsigned int j = 0; j < 4; j++)
			fill(b, 96 + 16 * j, 16, 0x5a);
		put_range(b, 0, 100, 1, flags);
		put_range(b, 1, 102, 16, flags);
		put_range(b, 2, 121, 0, flags);
		GOOD(b, BLK_S_OK, kinds[i % 3], 0, 48, 0);
		for (unsigned int at = 99; at < 121; at++) {
			bool gone = at == 100 || (at >= 102 && at < 118);

			expect(sector_has(b, at, gone ? 0 : 0x5a),
			       "%s: sector %u", request_type_name(kinds[i % 3]),
			       at);
		}
	}
	put_range(b, 0, 0, RANGE_LIMIT, 0);
	GOOD(b, BLK_S_OK, BLK_T_DISCARD, 0, 16, 0);
	put_range(b, 0, CAPACITY - RANGE_LIMIT, RANGE_LIMIT, 0);
	GOOD(b, BLK_S_OK, BLK_T_WRITE_ZEROES, 0, 16, 0);
	CLOSE(b);
}

/* split each number of sectors into segments at odd offsets */
static void test_framing(void)
{
	struct rig *b = rig_new(set_plain, 0);
	const uint32_t out_bytes = 16 + 1024, in_bytes = 1024 + 1;
	uint8_t *message = rig_memory(b, out_bytes);
	uint8_t *reply = rig_memory(b, in_bytes);
	struct blk_header *header = (void *)message;
	uint32_t id, len;

	*header = (struct blk_header){ htole32(BLK_T_OUT), 0, htole64(3) };
	for (unsigned int i = 0; i < 1024; i++)
		message[16 + i] = i * 13 + 1;
	for (unsigned int cut = 1; cut < out_bytes; cut += 37) {
		struct bit out[] = {
			{ message, cut, false },
			{ message + cut, out_bytes - cut, false },
			{ reply, 1, true },
		};
		struct bit in[] = {
			{ message, 5, false },
			{ message + 5, 11, false },
			{ reply, cut < 1024 ? cut : 1024, true },
			{ reply + (cut < 1024 ? cut : 1024),
			  cut < 1024 ? 1025 - cut : 1, true },
		};

		piece = cut % 3 ? 0 : 100;
		header->type = htole32(BLK_T_OUT);
		reply[0] = NEVER;
		submit(b, out, 3);
		expect(take_used(b, &id, &len) && len == 1 && !reply[0],
		       "write cut at %u: status %u", cut, reply[0]);
		header->type = htole32(BLK_T_IN);
		memset(reply, NEVER, in_bytes);
		submit(b, in, 4);
		expect(take_used(b, &id, &len) && len == in_bytes &&
		       !reply[1024] && !memcmp(reply, message + 16, 1024),
		       "read cut at %u: status %u", cut, reply[1024]);
		EXPECT_RULE(b, NO_RULE);
	}
	CLOSE(b);
}

static void test_header_rules(void)
{
	struct rig *b = rig_new(set_plain, 0);
	struct envelope *env = last_envelope(b);
	uint32_t id, len;

	/* a header that is too short, and a missing status */
	env->header.type = htole32(BLK_T_GET_ID);
	submit(b, (struct bit[]){ { &env->header, 15, false },
				  { &env->status, 1, true } }, 2);
	expect(take_used(b, &id, &len) && len == 1 &&
	       env->status == BLK_S_IOERR, "a short header does not fail");
	EXPECT_RULE(b, RULE_REQUEST_HEADER);
	env->status = NEVER;
	submit(b, (struct bit[]){ { &env->status, 1, true } }, 1);
	expect(take_used(b, &id, &len) && len == 1 &&
	       env->status == BLK_S_IOERR,
	       "a request without a header does not fail");
	EXPECT_RULE(b, RULE_REQUEST_HEADER);
	env->header.type = htole32(BLK_T_FLUSH);
	submit(b, (struct bit[]){ { &env->header, 16, false } }, 1);
	expect(take_used(b, &id, &len) && len == 0,
	       "a request without a status byte is not returned");
	EXPECT_RULE(b, RULE_REQUEST_STATUS);
	env->header.reserved = htole32(1);
	submit(b, (struct bit[]){ { &env->header, 16, false },
				  { &env->status, 1, true } }, 2);
	expect(take_used(b, &id, &len) && len == 1 &&
	       env->status == BLK_S_OK,
	       "a priority in the header fails the request");
	EXPECT_RULE(b, RULE_REQUEST_RESERVED);

	BAD(b, REQUEST_TYPE, BLK_S_UNSUPP, 5, 0, 0, 0);
	BAD(b, REQUEST_TYPE, BLK_S_UNSUPP, 2, 0, 0, 0);
	BAD(b, REQUEST_TYPE, BLK_S_UNSUPP, 0x80000000, 0, 0, 512);
	expect(b->len == 513, "used length %u", b->len);
	expect(b->sim->watch.types[31] == 1, "types above 31 are not counted");
	BAD(b, REQUEST_SECTOR, BLK_S_OK, BLK_T_GET_ID, 1, 0, 20);
	BAD(b, REQUEST_SECTOR, BLK_S_OK, BLK_T_GET_LIFETIME, 1, 0, 6);
	put_range(b, 0, 0, 1, 0);
	BAD(b, REQUEST_SECTOR, BLK_S_OK, BLK_T_DISCARD, 1, 16, 0);
	BAD(b, REQUEST_SECTOR, BLK_S_OK, BLK_T_WRITE_ZEROES, 1, 16, 0);
	BAD(b, REQUEST_SECTOR, BLK_S_OK, BLK_T_SECURE_ERASE, 1, 16, 0);
	CLOSE(b, RULE_REQUEST_HEADER, RULE_REQUEST_STATUS,
	      RULE_REQUEST_RESERVED, RULE_REQUEST_TYPE, RULE_REQUEST_SECTOR);
}

static void test_data_rules(void)
{
	struct rig *b = rig_new(set_plain, 0);

	BAD(b, REQUEST_DIRECTION, BLK_S_OK, BLK_T_IN, 0, 512, 512);
	BAD(b, REQUEST_DIRECTION, BLK_S_OK, BLK_T_OUT, 0, 512, 512);
	BAD(b, REQUEST_DIRECTION, BLK_S_OK, BLK_T_OUT, 0, 0, 512);
	BAD(b, REQUEST_DIRECTION, BLK_S_IOERR, BLK_T_GET_ID, 0, 20, 0);
	BAD(b, REQUEST_DIRECTION, BLK_S_IOERR, BLK_T_DISCARD, 0, 0, 16);
	BAD(b, DATA_LENGTH, BLK_S_IOERR, BLK_T_IN, 0, 0, 511);
	BAD(b, DATA_LENGTH, BLK_S_IOERR, BLK_T_OUT, 0, 513, 0);
	BAD(b, CAPACITY, BLK_S_IOERR, BLK_T_IN, CAPACITY, 0, 512);
	expect(b->len == 513 && all_bytes(b->in, 512, 0),
	       "a failed read changed its buffer");
	BAD(b, CAPACITY, BLK_S_IOERR, BLK_T_IN, CAPACITY - 1, 0, 1024);
	BAD(b, CAPACITY, BLK_S_IOERR, BLK_T_OUT, CAPACITY - 1, 1024, 0);
	BAD(b, CAPACITY, BLK_S_IOERR, BLK_T_OUT, UINT64_MAX, 1024, 0);
	BAD(b, CAPACITY, BLK_S_IOERR, BLK_T_IN, 1ull << 55, 0, 512);
	BAD(b, FLUSH_SECTOR, BLK_S_OK, BLK_T_FLUSH, 1, 0, 0);
	BAD(b, FLUSH_DATA, BLK_S_OK, BLK_T_FLUSH, 0, 512, 0);
	BAD(b, FLUSH_DATA, BLK_S_OK, BLK_T_FLUSH, 0, 0, 512);
	BAD(b, GET_ID_LENGTH, BLK_S_IOERR, BLK_T_GET_ID, 0, 0, 19);
	BAD(b, GET_ID_LENGTH, BLK_S_IOERR, BLK_T_GET_ID, 0, 0, 0);
	BAD(b, GET_ID_LENGTH, BLK_S_OK, BLK_T_GET_ID, 0, 0, 21);
	BAD(b, LIFETIME_LENGTH, BLK_S_IOERR, BLK_T_GET_LIFETIME, 0, 0, 5);
	BAD(b, LIFETIME_LENGTH, BLK_S_OK, BLK_T_GET_LIFETIME, 0, 0, 8);
	BAD(b, SEGMENT_SIZE, BLK_S_OK, BLK_T_IN, 0, 0, SIZE_LIMIT + 512);
	BAD(b, SEGMENT_SIZE, BLK_S_OK, BLK_T_OUT, 0, SIZE_LIMIT + 512, 0);
	CLOSE(b, RULE_REQUEST_DIRECTION, RULE_SEGMENT_SIZE, RULE_DATA_LENGTH,
	      RULE_CAPACITY, RULE_FLUSH_SECTOR, RULE_FLUSH_DATA,
	      RULE_GET_ID_LENGTH, RULE_LIFETIME_LENGTH);
}

static void test_segments(void)
{
	struct rig *b = rig_new(set_plain, 0);
	struct envelope *env = last_envelope(b);
	struct bit parts[SEG_LIMIT + 3] = { { &env->header, 16, false } };
	uint32_t id, len;

	for (unsigned int nr = SEG_LIMIT; nr <= SEG_LIMIT + 1; nr++) {
		for (unsigned int i = 0; i < nr; i++)
			parts[1 + i] = (struct bit){ b->in + 512 * i, 512,
						      true };
		parts[1 + nr] = (struct bit){ &env->status, 1,
							 true };
		env->status = NEVER;
		submit(b, parts, nr + 2);
		expect(take_used(b, &id, &len) && !env->status,
		       "%u segments", nr);
		EXPECT_RULE(b, nr > SEG_LIMIT ? (unsigned int)
			    RULE_SEGMENT_COUNT : NO_RULE);
	}
	/* memory in pieces is still one segment of the driver's */
	piece = 512;
	GOOD(b, BLK_S_OK, BLK_T_IN, 0, 0, SIZE_LIMIT);
	BAD(b, SEGMENT_SIZE, BLK_S_OK, BLK_T_IN, 0, 0, SIZE_LIMIT + 512);
	CLOSE(b, RULE_SEGMENT_SIZE, RULE_SEGMENT_COUNT);

	b = rig_new(set_plain, BIT(BLK_F_SIZE_MAX) | BIT(BLK_F_SEG_MAX));
	GOOD(b, BLK_S_OK, BLK_T_IN, 0, 0, SIZE_LIMIT + 512);
	CLOSE(b);
}

static void test_range_rules(void)
{
	struct rig *b = rig_new(set_plain, 0);

	for (unsigned int i = 0; i < 4; i++)
		put_range(b, i, i, 1, 0);
	BAD(b, RANGE_NONE, BLK_S_IOERR, BLK_T_DISCARD, 0, 0, 0);
	BAD(b, RANGE_LENGTH, BLK_S_IOERR, BLK_T_WRITE_ZEROES, 0, 24, 0);
	BAD(b, RANGE_LENGTH, BLK_S_IOERR, BLK_T_SECURE_ERASE, 0, 15, 0);
	BAD(b, DISCARD_SEG, BLK_S_IOERR, BLK_T_DISCARD, 0, 64, 0);
	BAD(b, WRITE_ZEROES_SEG, BLK_S_IOERR, BLK_T_WRITE_ZEROES, 0, 64, 0);
	BAD(b, ERASE_SEG, BLK_S_IOERR, BLK_T_SECURE_ERASE, 0, 64, 0);
	put_range(b, 0, CAPACITY - 1, 2, 0);
	BAD(b, RANGE_CAPACITY, BLK_S_IOERR, BLK_T_DISCARD, 0, 16, 0);
	BAD(b, RANGE_CAPACITY, BLK_S_IOERR, BLK_T_WRITE_ZEROES, 0, 32, 0);
	put_range(b, 0, UINT64_MAX, 2, 0);
	BAD(b, RANGE_CAPACITY, BLK_S_IOERR, BLK_T_SECURE_ERASE, 0, 16, 0);
	put_range(b, 0, 0, RANGE_LIMIT + 1, 0);
	BAD(b, DISCARD_SECTORS, BLK_S_IOERR, BLK_T_DISCARD, 0, 16, 0);
	BAD(b, WRITE_ZEROES_SECTORS, BLK_S_IOERR, BLK_T_WRITE_ZEROES, 0, 16,
	    0);
	BAD(b, ERASE_SECTORS, BLK_S_IOERR, BLK_T_SECURE_ERASE, 0, 16, 0);
	put_range(b, 0, 0, 1, BLK_RANGE_UNMAP);
	BAD(b, DISCARD_UNMAP, BLK_S_UNSUPP, BLK_T_DISCARD, 0, 16, 0);
	BAD(b, ERASE_UNMAP, BLK_S_UNSUPP, BLK_T_SECURE_ERASE, 0, 16, 0);
	put_range(b, 0, 0, 1, 2);
	BAD(b, RANGE_FLAGS, BLK_S_UNSUPP, BLK_T_DISCARD, 0, 16, 0);
	BAD(b, RANGE_FLAGS, BLK_S_UNSUPP, BLK_T_WRITE_ZEROES, 0, 16, 0);
	CLOSE(b, RULE_RANGE_LENGTH, RULE_RANGE_NONE, RULE_RANGE_CAPACITY,
	      RULE_RANGE_FLAGS, RULE_DISCARD_UNMAP, RULE_ERASE_UNMAP,
	      RULE_DISCARD_SEG, RULE_WRITE_ZEROES_SEG, RULE_ERASE_SEG,
	      RULE_DISCARD_SECTORS, RULE_WRITE_ZEROES_SECTORS,
	      RULE_ERASE_SECTORS);
}

static void test_features(void)
{
	struct rig *b = rig_new(set_plain, ~BIT(F_VERSION_1));

	put_range(b, 0, 0, 1, 0);
	BAD(b, REQUEST_FEATURE, BLK_S_UNSUPP, BLK_T_FLUSH, 0, 0, 0);
	BAD(b, REQUEST_FEATURE, BLK_S_UNSUPP, BLK_T_GET_LIFETIME, 0, 0, 6);
	BAD(b, REQUEST_FEATURE, BLK_S_UNSUPP, BLK_T_DISCARD, 0, 16, 0);
	BAD(b, REQUEST_FEATURE, BLK_S_UNSUPP, BLK_T_WRITE_ZEROES, 0, 16, 0);
	BAD(b, REQUEST_FEATURE, BLK_S_UNSUPP, BLK_T_SECURE_ERASE, 0, 16, 0);
	BAD(b, REQUEST_FEATURE, BLK_S_UNSUPP, BLK_T_ZONE_APPEND, 0, 4096, 8);
	BAD(b, REQUEST_FEATURE, BLK_S_UNSUPP, BLK_T_ZONE_REPORT, 0, 0, 128);
	BAD(b, REQUEST_FEATURE, BLK_S_UNSUPP, BLK_T_ZONE_OPEN, 0, 0, 0);
	BAD(b, REQUEST_FEATURE, BLK_S_UNSUPP, BLK_T_ZONE_CLOSE, 0, 0, 0);
	BAD(b, REQUEST_FEATURE, BLK_S_UNSUPP, BLK_T_ZONE_FINISH, 0, 0, 0);
	BAD(b, REQUEST_FEATURE, BLK_S_UNSUPP, BLK_T_ZONE_RESET, 0, 0, 0);
	BAD(b, REQUEST_FEATURE, BLK_S_UNSUPP, BLK_T_ZONE_RESET_ALL, 0, 0, 0);
	GOOD(b, BLK_S_OK, BLK_T_GET_ID, 0, 0, 20);
	GOOD(b, BLK_S_OK, BLK_T_OUT, 0, 512, 0);
	CLOSE(b, RULE_REQUEST_FEATURE);
}

static void set_read_only(struct settings *set)
{
	set_plain(set);
	set->features |= BIT(BLK_F_RO);
}

static void test_read_only(void)
{
	struct rig *b = rig_new(set_read_only, 0);

	memset(b->out, 0x11, 512);
	BAD(b, READ_ONLY, BLK_S_IOERR, BLK_T_OUT, 0, 512, 0);
	expect(sector_has(b, 0, 0), "a write changed a read-only device");
	GOOD(b, BLK_S_OK, BLK_T_FLUSH, 0, 0, 0);
	GOOD(b, BLK_S_OK, BLK_T_IN, 0, 0, 512);
	put_range(b, 0, 0, 1, 0);
	BAD(b, READ_ONLY, BLK_S_IOERR, BLK_T_DISCARD, 0, 16, 0);
	BAD(b, READ_ONLY, BLK_S_IOERR, BLK_T_WRITE_ZEROES, 0, 16, 0);
	BAD(b, READ_ONLY, BLK_S_IOERR, BLK_T_SECURE_ERASE, 0, 16, 0);
	CLOSE(b, RULE_READ_ONLY);

	/* also if the driver has not negotiated RO */
	b = rig_new(set_read_only, BIT(BLK_F_RO));
	BAD(b, READ_ONLY_ACCEPTED, BLK_S_OK, BLK_T_IN, 0, 0, 512);
	EXPECT_STATUS(BLK_S_IOERR, ask(b, BLK_T_OUT, 0, 512, 0));
	CLOSE(b, RULE_READ_ONLY, RULE_READ_ONLY_ACCEPTED);
}

/* ---- zones ---- */

#define APPENDED(b)	le64toh(*(uint64_t *)(b)->in)

static struct blk_zone_descriptor zone_of(struct rig *b, unsigned int nr)
{
	struct blk_zone_descriptor zone = { .z_state = 0xff };

	zones_report(b->sim, nr * ZONE, &zone, 1);
	return zone;
}

#define EXPECT_ZONE(b, nr, state, wp) do {				\
	struct blk_zone_descriptor z = zone_of(b, nr);			\
	uint64_t at = le64toh(z.z_wp);					\
	expect(z.z_state == (state), "zone %u: state %u, not %u", nr,	\
	       z.z_state, (unsigned int)(state));			\
	expect(at == (wp), "zone %u: pointer %" PRIu64 ", not %" PRIu64, \
	       nr, at, (uint64_t)(wp));					\
} while (0)

#define NO_WP		UINT64_MAX
#define START(nr)	((uint64_t)(nr) * ZONE)
#define BYTES(sectors)	((sectors) * SECTOR_SIZE)

/* bring a new zone into a state, within the limits */
static void make_state(struct rig *b, unsigned int nr, uint8_t state)
{
	GOOD(b, BLK_S_OK, BLK_T_ZONE_RESET, START(nr), 0, 0);
	switch (state) {
	case BLK_ZS_IOPEN:
		GOOD(b, BLK_S_OK, BLK_T_OUT, START(nr), 4096, 0);
		break;
	case BLK_ZS_EOPEN:
		GOOD(b, BLK_S_OK, BLK_T_ZONE_OPEN, START(nr), 0, 0);
		break;
	case BLK_ZS_CLOSED:
		GOOD(b, BLK_S_OK, BLK_T_OUT, START(nr), 4096, 0);
		GOOD(b, BLK_S_OK, BLK_T_ZONE_CLOSE, START(nr), 0, 0);
		break;
	case BLK_ZS_FULL:
		GOOD(b, BLK_S_OK, BLK_T_ZONE_FINISH, START(nr), 0, 0);
		break;
	case BLK_ZS_RDONLY:
		expect(!zones_force(b->sim, nr, "readonly"), "readonly");
		break;
	case BLK_ZS_OFFLINE:
		expect(!zones_force(b->sim, nr, "offline"), "offline");
		break;
	}
	expect(zone_of(b, nr).z_state == state, "zone %u is not in state %u",
	       nr, state);
}

/* all requests in all states: their status and the zone's new state */
static void test_transitions(void)
{
	enum { INVALID = 0x80 };
	static const uint8_t states[] = {
		BLK_ZS_EMPTY, BLK_ZS_IOPEN, BLK_ZS_EOPEN, BLK_ZS_CLOSED,
		BLK_ZS_FULL, BLK_ZS_RDONLY, BLK_ZS_OFFLINE,
	};
	static const struct {
		uint32_t type;
		uint8_t to[7];		/* in the order of states */
	} moves[] = {
		{ BLK_T_ZONE_OPEN, { BLK_ZS_EOPEN, BLK_ZS_EOPEN, BLK_ZS_EOPEN,
				     BLK_ZS_EOPEN, INVALID, INVALID,
				     INVALID } },
		{ BLK_T_ZONE_CLOSE, { INVALID, BLK_ZS_CLOSED, BLK_ZS_EMPTY,
				      BLK_ZS_CLOSED, INVALID, INVALID,
				      INVALID } },
		{ BLK_T_ZONE_FINISH, { BLK_ZS_FULL, BLK_ZS_FULL, BLK_ZS_FULL,
				       BLK_ZS_FULL, BLK_ZS_FULL, INVALID,
				       INVALID } },
		{ BLK_T_ZONE_RESET, { BLK_ZS_EMPTY, BLK_ZS_EMPTY, BLK_ZS_EMPTY,
				      BLK_ZS_EMPTY, BLK_ZS_EMPTY, INVALID,
				      INVALID } },
		{ BLK_T_ZONE_RESET_ALL, { BLK_ZS_EMPTY, BLK_ZS_EMPTY,
					  BLK_ZS_EMPTY, BLK_ZS_EMPTY,
					  BLK_ZS_EMPTY, BLK_ZS_RDONLY,
					  BLK_ZS_OFFLINE } },
		{ BLK_T_OUT, { BLK_ZS_IOPEN, BLK_ZS_IOPEN, BLK_ZS_EOPEN,
			       BLK_ZS_IOPEN, INVALID, INVALID, INVALID } },
		{ BLK_T_ZONE_APPEND, { BLK_ZS_IOPEN, BLK_ZS_IOPEN,
				       BLK_ZS_EOPEN, BLK_ZS_IOPEN, INVALID,
				       INVALID, INVALID } },
	};
	struct rig *b = rig_new(set_zoned, 0);
	uint64_t sector;

	for (size_t i = 0; i < ARRAY_SIZE(moves); i++)
		for (size_t j = 0; j < ARRAY_SIZE(states); j++) {
			uint8_t to = moves[i].to[j];
			uint32_t type = moves[i].type;
			struct blk_zone_descriptor zone;
			unsigned int status;

			expect(!zones_force(b->sim, 5, "empty"), "empty");
			make_state(b, 5, states[j]);
			zone = zone_of(b, 5);
			sector = type == BLK_T_ZONE_RESET_ALL ? 0 : START(5);
			if (type == BLK_T_OUT && le64toh(zone.z_wp) != NO_WP)
				sector = le64toh(zone.z_wp);
			status = ask(b, type, sector, type == BLK_T_OUT ||
				     type == BLK_T_ZONE_APPEND ? 4096 : 0,
				     type == BLK_T_ZONE_APPEND ? 8 : 0);
			expect(status == (to == INVALID ?
					  BLK_S_ZONE_INVALID_CMD : BLK_S_OK),
			       "%s in state %u: status %u",
			       request_type_name(type), states[j], status);
			zone = zone_of(b, 5);
			expect(zone.z_state == (to == INVALID ? states[j] : to),
			       "%s in state %u: state %u then",
			       request_type_name(type), states[j],
			       zone.z_state);
			/* a write into a full zone breaks a rule */
			EXPECT_RULE(b, (type == BLK_T_OUT ||
					type == BLK_T_ZONE_APPEND) &&
				    states[j] == BLK_ZS_FULL ? (unsigned int)
				    RULE_ZONE_WRITE_CAPACITY : NO_RULE);
		}
	/* an explicitly open zone with data is closed, not empty */
	expect(!zones_force(b->sim, 5, "empty"), "empty");
	make_state(b, 5, BLK_ZS_EOPEN);
	GOOD(b, BLK_S_OK, BLK_T_OUT, START(5), 4096, 0);
	GOOD(b, BLK_S_OK, BLK_T_ZONE_CLOSE, START(5), 0, 0);
	EXPECT_ZONE(b, 5, BLK_ZS_CLOSED, START(5) + 8);
	CLOSE(b, RULE_ZONE_WRITE_CAPACITY);
}

static void test_zone_writes(void)
{
	struct rig *b = rig_new(set_zoned, 0);

	memset(b->out, 0xa1, 8192);
	GOOD(b, BLK_S_OK, BLK_T_OUT, START(3), 8192, 0);
	EXPECT_ZONE(b, 3, BLK_ZS_IOPEN, START(3) + 16);
	memset(b->out, 0xa2, 8192);
	GOOD(b, BLK_S_OK, BLK_T_ZONE_APPEND, START(3), 8192, 8);
	expect(APPENDED(b) == START(3) + 16 && b->len == 9,
	       "appended to sector %" PRIu64, APPENDED(b));
	expect(sector_has(b, START(3) + 15, 0xa1) &&
	       sector_has(b, START(3) + 16, 0xa2) &&
	       sector_has(b, START(3) + 31, 0xa2) &&
	       sector_has(b, START(3) + 32, 0), "other data than written");
	GOOD(b, BLK_S_OK, BLK_T_ZONE_APPEND, START(3), 8192, 8);
	EXPECT_ZONE(b, 3, BLK_ZS_FULL, NO_WP);

	/* after a reset the zone reads as zeroes, and its space is free */
	GOOD(b, BLK_S_OK, BLK_T_ZONE_RESET, START(3), 0, 0);
	EXPECT_ZONE(b, 3, BLK_ZS_EMPTY, START(3));
	expect(sector_has(b, START(3), 0), "a zone has data after its reset");
	expect(!store_read(b->sim->store, START(3) * SECTOR_SIZE, b->in, 512) &&
	       all_bytes(b->in, 512, 0),
	       "the store has data of a zone after its reset");
	GOOD(b, BLK_S_OK, BLK_T_OUT, START(3), 8192, 0);
	expect(sector_has(b, START(3) + 16, 0),
	       "a read returns data from before the reset");

	/* write zeroes moves the pointer like a write */
	put_range(b, 0, START(3) + 16, 8, 0);
	GOOD(b, BLK_S_OK, BLK_T_WRITE_ZEROES, 0, 16, 0);
	EXPECT_ZONE(b, 3, BLK_ZS_IOPEN, START(3) + 24);
	GOOD(b, BLK_S_ZONE_UNALIGNED_WP, BLK_T_WRITE_ZEROES, 0, 16, 0);

	/* a write without data changes nothing */
	GOOD(b, BLK_S_OK, BLK_T_OUT, START(4), 0, 0);
	GOOD(b, BLK_S_OK, BLK_T_ZONE_APPEND, START(4), 0, 8);
	expect(APPENDED(b) == START(4),
	       "an append without data returns another sector");
	EXPECT_ZONE(b, 4, BLK_ZS_EMPTY, START(4));

	/* conventional zones accept writes anywhere, also across zones */
	GOOD(b, BLK_S_OK, BLK_T_OUT, ZONE - 1, 1024, 0);
	GOOD(b, BLK_S_OK, BLK_T_IN, ZONE - 1, 0, 1024);
	EXPECT_ZONE(b, 0, BLK_ZS_NOT_WP, NO_WP);
	GOOD(b, BLK_S_ZONE_INVALID_CMD, BLK_T_ZONE_RESET, 0, 0, 0);
	GOOD(b, BLK_S_ZONE_INVALID_CMD, BLK_T_ZONE_OPEN, ZONE, 0, 0);
	GOOD(b, BLK_S_ZONE_INVALID_CMD, BLK_T_ZONE_CLOSE, ZONE, 0, 0);
	GOOD(b, BLK_S_ZONE_INVALID_CMD, BLK_T_ZONE_FINISH, ZONE, 0, 0);

	/* no reads across sequential-write-required zones, or from offline zones */
	GOOD(b, BLK_S_ZONE_INVALID_CMD, BLK_T_IN, START(4) - 1, 0, 1024);
	GOOD(b, BLK_S_ZONE_INVALID_CMD, BLK_T_IN, START(2) - 1, 0, 1024);
	GOOD(b, BLK_S_ZONE_INVALID_CMD, BLK_T_OUT, START(2) - 1, 1024, 0);
	GOOD(b, BLK_S_OK, BLK_T_IN, START(3) + 8, 0, 8192);
	make_state(b, 7, BLK_ZS_OFFLINE);
	GOOD(b, BLK_S_ZONE_INVALID_CMD, BLK_T_IN, START(7), 0, 512);
	expect(!zones_force(b->sim, 3, "readonly"), "readonly");
	memset(b->in, 1, 512);
	GOOD(b, BLK_S_OK, BLK_T_IN, START(3), 0, 512);

	/* the short last zone has fewer writable sectors than the others */
	GOOD(b, BLK_S_OK, BLK_T_OUT, START(15), 8192, 0);
	GOOD(b, BLK_S_OK, BLK_T_OUT, START(15) + 16, 8192, 0);
	EXPECT_ZONE(b, 15, BLK_ZS_FULL, NO_WP);
	expect(le64toh(zone_of(b, 15).z_cap) == LAST_ZONE,
	       "the last zone has another capacity");
	CLOSE(b);
}

static void test_zone_limits(void)
{
	struct rig *b = rig_new(set_zoned, 0);

	/* two may be open: the device closes one that a write opened */
	make_state(b, 2, BLK_ZS_IOPEN);
	make_state(b, 3, BLK_ZS_EOPEN);
	make_state(b, 4, BLK_ZS_IOPEN);
	EXPECT_ZONE(b, 2, BLK_ZS_CLOSED, START(2) + 8);
	/* three may be active */
	GOOD(b, BLK_S_ZONE_ACTIVE_RESOURCE, BLK_T_OUT, START(5), 4096, 0);
	GOOD(b, BLK_S_ZONE_ACTIVE_RESOURCE, BLK_T_ZONE_OPEN, START(5), 0, 0);
	GOOD(b, BLK_S_ZONE_ACTIVE_RESOURCE, BLK_T_ZONE_APPEND, START(5), 4096,
	     8);
	EXPECT_ZONE(b, 4, BLK_ZS_IOPEN, START(4) + 8);
	EXPECT_ZONE(b, 5, BLK_ZS_EMPTY, START(5));
	/* the device does not close explicitly opened zones; not at the active limit */
	GOOD(b, BLK_S_OK, BLK_T_ZONE_OPEN, START(4), 0, 0);
	GOOD(b, BLK_S_ZONE_OPEN_RESOURCE, BLK_T_OUT, START(2) + 8, 4096, 0);
	GOOD(b, BLK_S_ZONE_OPEN_RESOURCE, BLK_T_ZONE_OPEN, START(2), 0, 0);
	GOOD(b, BLK_S_ZONE_OPEN_RESOURCE, BLK_T_ZONE_APPEND, START(2), 4096,
	     8);
	EXPECT_ZONE(b, 2, BLK_ZS_CLOSED, START(2) + 8);
	/* each transition out of a state frees its resources */
	GOOD(b, BLK_S_OK, BLK_T_ZONE_FINISH, START(4), 0, 0);
	GOOD(b, BLK_S_OK, BLK_T_ZONE_OPEN, START(2), 0, 0);
	GOOD(b, BLK_S_ZONE_OPEN_RESOURCE, BLK_T_OUT, START(5), 4096, 0);
	GOOD(b, BLK_S_OK, BLK_T_ZONE_CLOSE, START(3), 0, 0);
	EXPECT_ZONE(b, 3, BLK_ZS_EMPTY, START(3));
	GOOD(b, BLK_S_OK, BLK_T_ZONE_OPEN, START(5), 0, 0);
	GOOD(b, BLK_S_OK, BLK_T_ZONE_RESET_ALL, 0, 0, 0);
	for (unsigned int nr = 2; nr < ZONES; nr++)
		EXPECT_ZONE(b, nr, BLK_ZS_EMPTY, START(nr));
	make_state(b, 2, BLK_ZS_EOPEN);
	make_state(b, 3, BLK_ZS_EOPEN);
	make_state(b, 3, BLK_ZS_OFFLINE);
	make_state(b, 4, BLK_ZS_EOPEN);
	/* no limits */
	b->sim->set.config.max_open_zones = 0;
	b->sim->set.config.max_active_zones = 0;
	for (unsigned int nr = 5; nr < ZONES; nr++)
		make_state(b, nr, BLK_ZS_EOPEN);
	CLOSE(b);
}

static void test_zone_rules(void)
{
	struct rig *b = rig_new(set_zoned, 0);
	const uint64_t beyond = START(ZONES);

	BAD(b, ZONE_SECTOR, BLK_S_ZONE_INVALID_CMD, BLK_T_ZONE_OPEN,
	    START(2) + 1, 0, 0);
	BAD(b, ZONE_SECTOR, BLK_S_ZONE_INVALID_CMD, BLK_T_ZONE_CLOSE, beyond,
	    0, 0);
	BAD(b, ZONE_SECTOR, BLK_S_ZONE_INVALID_CMD, BLK_T_ZONE_FINISH,
	    START(3) - 1, 0, 0);
	BAD(b, ZONE_SECTOR, BLK_S_ZONE_INVALID_CMD, BLK_T_ZONE_RESET,
	    UINT64_MAX, 0, 0);
	BAD(b, ZONE_RESET_ALL_SECTOR, BLK_S_OK, BLK_T_ZONE_RESET_ALL, 1, 0, 0);
	BAD(b, ZONE_NO_DATA, BLK_S_OK, BLK_T_ZONE_OPEN, START(2), 512, 0);
	BAD(b, ZONE_NO_DATA, BLK_S_OK, BLK_T_ZONE_RESET, START(2), 0, 512);
	BAD(b, ZONE_REPORT_SECTOR, BLK_S_ZONE_INVALID_CMD, BLK_T_ZONE_REPORT,
	    beyond, 0, 128);
	BAD(b, ZONE_REPORT_HEADER, BLK_S_IOERR, BLK_T_ZONE_REPORT, 0, 0, 63);
	BAD(b, ZONE_REPORT_LENGTH, BLK_S_OK, BLK_T_ZONE_REPORT, 0, 0, 129);

	BAD(b, ZONE_APPEND_ROOM, BLK_S_IOERR, BLK_T_ZONE_APPEND, START(2),
	    4096, 7);
	BAD(b, ZONE_APPEND_ROOM, BLK_S_IOERR, BLK_T_ZONE_APPEND, START(2),
	    4096, 0);
	BAD(b, ZONE_APPEND_SECTOR, BLK_S_ZONE_INVALID_CMD, BLK_T_ZONE_APPEND,
	    START(2) + 8, 4096, 8);
	BAD(b, ZONE_APPEND_SECTOR, BLK_S_ZONE_INVALID_CMD, BLK_T_ZONE_APPEND,
	    beyond, 4096, 8);
	BAD(b, ZONE_APPEND_POINTER, BLK_S_ZONE_INVALID_CMD, BLK_T_ZONE_APPEND,
	    ZONE, 4096, 8);
	b->sim->set.config.max_append_sectors = htole32(8);
	BAD(b, ZONE_APPEND_MAX, BLK_S_ZONE_INVALID_CMD, BLK_T_ZONE_APPEND,
	    START(2), 8192, 8);
	b->sim->set.config.max_append_sectors = 0;
	BAD(b, ZONE_APPEND_MAX, BLK_S_UNSUPP, BLK_T_ZONE_APPEND, START(2),
	    4096, 8);
	b->sim->set.config.max_append_sectors = htole32(APPEND_LIMIT);
	BAD(b, REQUEST_DIRECTION, BLK_S_OK, BLK_T_ZONE_APPEND, START(2), 4096,
	    12);
	GOOD(b, BLK_S_OK, BLK_T_ZONE_RESET, START(2), 0, 0);

	BAD(b, ZONE_WRITE_SIZE, BLK_S_ZONE_UNALIGNED_WP, BLK_T_OUT, START(2),
	    512, 0);
	BAD(b, ZONE_WRITE_SIZE, BLK_S_ZONE_UNALIGNED_WP, BLK_T_ZONE_APPEND,
	    START(2), 512, 8);
	BAD(b, ZONE_WRITE_SIZE, BLK_S_IOERR, BLK_T_ZONE_APPEND, START(2), 513,
	    8);
	EXPECT_ZONE(b, 2, BLK_ZS_EMPTY, START(2));
	BAD(b, ZONE_WRITE_ALIGNMENT, BLK_S_ZONE_UNALIGNED_WP, BLK_T_OUT,
	    START(2) + 1, 4096, 0);
	BAD(b, ZONE_WRITE_POINTER, BLK_S_ZONE_UNALIGNED_WP, BLK_T_OUT,
	    START(2) + 8, 4096, 0);
	for (unsigned int i = 0; i < 2; i++)
		GOOD(b, BLK_S_OK, BLK_T_OUT, START(2) + 16 * i, 8192, 0);
	GOOD(b, BLK_S_OK, BLK_T_OUT, START(2) + 32, 4096, 0);
	BAD(b, ZONE_WRITE_CAPACITY, BLK_S_ZONE_INVALID_CMD, BLK_T_OUT,
	    START(2) + 40, 8192, 0);
	BAD(b, ZONE_WRITE_CAPACITY, BLK_S_ZONE_INVALID_CMD, BLK_T_ZONE_APPEND,
	    START(2), 8192, 8);
	EXPECT_ZONE(b, 2, BLK_ZS_IOPEN, START(2) + 40);
	put_range(b, 0, START(2), ZONE - 1, 0);
	BAD(b, ZONE_ERASE_SIZE, BLK_S_ZONE_INVALID_CMD, BLK_T_SECURE_ERASE, 0,
	    16, 0);
	put_range(b, 0, START(14) + 8, ZONE - 8 + LAST_ZONE, 0);
	BAD(b, ZONE_ERASE_SIZE, BLK_S_ZONE_INVALID_CMD, BLK_T_SECURE_ERASE, 0,
	    16, 0);
	put_range(b, 0, START(2) + 8, ZONE, 0);
	GOOD(b, BLK_S_ZONE_INVALID_CMD, BLK_T_SECURE_ERASE, 0, 16, 0);
	put_range(b, 0, START(2), ZONE, 0);
	GOOD(b, BLK_S_OK, BLK_T_SECURE_ERASE, 0, 16, 0);
	EXPECT_ZONE(b, 2, BLK_ZS_EMPTY, START(2));
	put_range(b, 0, START(14), ZONE + LAST_ZONE, 0);
	GOOD(b, BLK_S_OK, BLK_T_SECURE_ERASE, 0, 16, 0);
	CLOSE(b, RULE_REQUEST_DIRECTION, RULE_ZONE_NO_DATA, RULE_ZONE_SECTOR,
	      RULE_ZONE_RESET_ALL_SECTOR, RULE_ZONE_REPORT_SECTOR,
	      RULE_ZONE_REPORT_HEADER, RULE_ZONE_REPORT_LENGTH,
	      RULE_ZONE_APPEND_ROOM, RULE_ZONE_APPEND_SECTOR,
	      RULE_ZONE_APPEND_POINTER, RULE_ZONE_APPEND_MAX,
	      RULE_ZONE_WRITE_SIZE, RULE_ZONE_WRITE_ALIGNMENT,
	      RULE_ZONE_WRITE_CAPACITY, RULE_ZONE_WRITE_POINTER,
	      RULE_ZONE_ERASE_SIZE);
}

static void test_report(void)
{
	struct rig *b = rig_new(set_zoned, 0);
	struct blk_zone_report *report = (void *)b->in;
	struct blk_zone_descriptor *zone = (void *)(b->in + sizeof(*report));

	GOOD(b, BLK_S_OK, BLK_T_OUT, START(2), 4096, 0);
	memset(b->in, 0xcc, 64 * 20);
	GOOD(b, BLK_S_OK, BLK_T_ZONE_REPORT, 0, 0, 64 * 20);
	expect(b->len == 64 * 20 + 1, "used length %u", b->len);
	expect(le64toh(report->nr_zones) == ZONES, "%" PRIu64 " zones",
	       le64toh(report->nr_zones));
	expect(zone[0].z_type == BLK_ZT_CONV && zone[2].z_type == BLK_ZT_SWR &&
	       zone[2].z_state == BLK_ZS_IOPEN &&
	       le64toh(zone[2].z_start) == START(2) &&
	       le64toh(zone[2].z_cap) == ZONE_CAP &&
	       le64toh(zone[2].z_wp) == START(2) + 8 &&
	       le64toh(zone[0].z_cap) == ZONE,
	       "the zone descriptors have other values");
	expect(all_bytes(b->in + 64 * 17, 64 * 3, 0),
	       "the rest of the report is not zero");
	/* from the middle of a zone, and with room for a few zones */
	GOOD(b, BLK_S_OK, BLK_T_ZONE_REPORT, START(14) + 5, 0, 64 * 5);
	expect(le64toh(report->nr_zones) == 2 &&
	       le64toh(zone[0].z_start) == START(14),
	       "a report from zone 14 has other zones");
	GOOD(b, BLK_S_OK, BLK_T_ZONE_REPORT, ZONE, 0, 64 * 3);
	expect(le64toh(report->nr_zones) == 2 &&
	       le64toh(zone[1].z_start) == START(2),
	       "a buffer for two zones has other zones");
	GOOD(b, BLK_S_OK, BLK_T_ZONE_REPORT, ZONE, 0, 64);
	expect(!report->nr_zones, "a buffer for no zone has zones");
	CLOSE(b);
}

static void test_host_aware(void)
{
	struct rig *b = rig_new(set_aware, 0);

	expect(zone_of(b, 2).z_type == BLK_ZT_SWP, "the zone has another type");
	memset(b->out, 0xb1, 8192);
	GOOD(b, BLK_S_OK, BLK_T_OUT, START(2), 8192, 0);
	BAD(b, ZONE_WRITE_ORDER, BLK_S_OK, BLK_T_OUT, START(2), 4096, 0);
	EXPECT_ZONE(b, 2, BLK_ZS_IOPEN, START(2) + 16);
	/* a gap reads as zeroes */
	BAD(b, ZONE_WRITE_ORDER, BLK_S_OK, BLK_T_OUT, START(2) + 32, 4096, 0);
	EXPECT_ZONE(b, 2, BLK_ZS_IOPEN, START(2) + 40);
	expect(sector_has(b, START(2) + 31, 0) &&
	       sector_has(b, START(2) + 32, 0xb1),
	       "a write beyond the write pointer is not kept");
	/* misalignment breaks a rule, but does not fail */
	BAD(b, ZONE_WRITE_ALIGNMENT, BLK_S_OK, BLK_T_OUT, START(2) + 1, 4096,
	    0);
	BAD(b, ZONE_WRITE_SIZE, BLK_S_OK, BLK_T_OUT, START(2) + 40, 512, 0);
	/* beyond the capacity a write fails, and there are no appends */
	BAD(b, ZONE_WRITE_ORDER, BLK_S_ZONE_INVALID_CMD, BLK_T_OUT,
	    START(2) + 48, 4096, 0);
	GOOD(b, BLK_S_ZONE_INVALID_CMD, BLK_T_ZONE_APPEND, START(3), 4096, 8);
	/* a full one can be written again */
	make_state(b, 4, BLK_ZS_FULL);
	GOOD(b, BLK_S_OK, BLK_T_OUT, START(4), 4096, 0);
	EXPECT_ZONE(b, 4, BLK_ZS_FULL, NO_WP);
	expect(sector_has(b, START(4), 0xb1),
	       "a failed write changed a full zone");
	/* reads across zones are allowed */
	GOOD(b, BLK_S_OK, BLK_T_IN, START(4) - 1, 0, 1024);
	expect(all_bytes(b->in, 512, 0) && all_bytes(b->in + 512, 512, 0xb1),
	       "a read across zones returns other data");
	put_range(b, 0, START(4), 1, 0);
	GOOD(b, BLK_S_OK, BLK_T_DISCARD, 0, 16, 0);
	expect(sector_has(b, START(4), 0), "a discarded zone has data");
	expect(!zones_force(b->sim, 4, "readonly"), "readonly");
	put_range(b, 0, START(4), 1, 0);
	GOOD(b, BLK_S_ZONE_INVALID_CMD, BLK_T_DISCARD, 0, 16, 0);
	CLOSE(b, RULE_ZONE_WRITE_SIZE, RULE_ZONE_WRITE_ALIGNMENT,
	      RULE_ZONE_WRITE_ORDER);

	/* a driver that has not negotiated ZONED */
	b = rig_new(set_aware, BIT(BLK_F_ZONED));
	GOOD(b, BLK_S_OK, BLK_T_OUT, START(3) - 1, 1024, 0);
	GOOD(b, BLK_S_OK, BLK_T_OUT, START(6) + 5, 512, 0);
	EXPECT_ZONE(b, 3, BLK_ZS_FULL, NO_WP);
	EXPECT_ZONE(b, 4, BLK_ZS_EMPTY, START(4));
	expect(!zones_force(b->sim, 5, "offline"), "offline");
	GOOD(b, BLK_S_OK, BLK_T_OUT, START(5), 512, 0);
	GOOD(b, BLK_S_OK, BLK_T_OUT, 0, 512, 0);
	EXPECT_ZONE(b, 5, BLK_ZS_OFFLINE, NO_WP);
	EXPECT_ZONE(b, 0, BLK_ZS_NOT_WP, NO_WP);
	CLOSE(b);
}

static void set_drive_managed(struct settings *set)
{
	set_zoned(set);
	set->config.model = BLK_Z_NONE;
}

static void set_no_zone_size(struct settings *set)
{
	set_zoned(set);
	set->config.zone_sectors = 0;
}

static void set_odd_zones(struct settings *set)
{
	set_zoned(set);
	set->config.zone_sectors = htole32(56);
	set->zone_capacity = 1000;
}

static void set_small_zones(struct settings *set)
{
	set_zoned(set);
	set->config.zone_sectors = htole32(8);
}

static void set_too_many_zones(struct settings *set)
{
	set_zoned(set);
	set->config.zone_sectors = htole32(1);
	set->config.capacity = UINT64_MAX;
}

static void test_odd_zones(void)
{
	struct settings set = { 0 };
	struct rig *b = rig_new(set_drive_managed, 0);

	expect(!b->sim->zones, "a drive-managed device has zones");
	BAD(b, ZONE_MODEL, BLK_S_UNSUPP, BLK_T_ZONE_REPORT, 0, 0, 128);
	BAD(b, ZONE_MODEL, BLK_S_UNSUPP, BLK_T_ZONE_OPEN, START(2), 0, 0);
	GOOD(b, BLK_S_OK, BLK_T_OUT, START(3) - 1, 1024, 0);
	CLOSE(b, RULE_ZONE_MODEL);

	b = rig_new(set_no_zone_size, 0);
	expect(!b->sim->zones, "the device has zones without sectors");
	GOOD(b, BLK_S_UNSUPP, BLK_T_ZONE_REPORT, 0, 0, 128);
	GOOD(b, BLK_S_OK, BLK_T_OUT, START(3) - 1, 1024, 0);
	CLOSE(b);

	b = rig_new(set_odd_zones, 0);
	GOOD(b, BLK_S_OK, BLK_T_OUT, 56 * 3, 8192, 0);
	GOOD(b, BLK_S_OK, BLK_T_ZONE_FINISH, 56 * 3, 0, 0);
	GOOD(b, BLK_S_OK, BLK_T_ZONE_REPORT, 56 * 4 - 1, 0, 128);
	expect(b->in[64 + offsetof(struct blk_zone_descriptor, z_state)] ==
	       BLK_ZS_FULL, "zones of 56 sectors");
	CLOSE(b);

	/* many in one report */
	b = rig_new(set_small_zones, 0);
	GOOD(b, BLK_S_OK, BLK_T_ZONE_REPORT, 8, 0, 64 * 101);
	expect(b->in[0] == 100, "%u zones", b->in[0]);
	for (unsigned int i = 0; i < 100; i++) {
		struct blk_zone_descriptor *zone = (void *)(b->in + 64);

		expect(le64toh(zone[i].z_start) == 8 * (i + 1), "zone %u", i);
	}
	CLOSE(b);

	set_too_many_zones(&set);
	expect(!zones_new(&set), "2^64 zones");
	set.config.capacity = htole64((1 << 24) + 1);
	expect(!zones_new(&set), "more zones than the limit");
	expect(zones_force(&(struct sim){ 0 }, 0, "full"), "no zones");
}

static void test_zone_resize(void)
{
	struct rig *b = rig_new(set_zoned, 0);

	GOOD(b, BLK_S_OK, BLK_T_OUT, START(3), 8192, 0);
	GOOD(b, BLK_S_OK, BLK_T_OUT, START(14), 8192, 0);
	b->sim->set.config.capacity = htole64(START(3) + 8);
	GOOD(b, BLK_S_OK, BLK_T_ZONE_REPORT, START(3), 0, 192);
	expect(b->in[0] == 1, "%u zones", b->in[0]);
	EXPECT_ZONE(b, 3, BLK_ZS_FULL, NO_WP);
	b->sim->set.config.capacity = htole64(START(ZONES));
	EXPECT_ZONE(b, 14, BLK_ZS_EMPTY, START(14));
	EXPECT_ZONE(b, 15, BLK_ZS_EMPTY, START(15));
	/* no zone is open or active */
	make_state(b, 5, BLK_ZS_EOPEN);
	make_state(b, 6, BLK_ZS_EOPEN);
	expect(zones_force(b->sim, 0, "full") &&
	       zones_force(b->sim, ZONES, "full") &&
	       zones_force(b->sim, 2, "nothing"), "states that cannot be");
	CLOSE(b);
}

/* ---- the script ---- */

static void add_line(struct rig *b, const char *line)
{
	char why[200] = "";

	script_clear(b->sim->script);
	expect(!script_add(b->sim->script, line, why, sizeof(why)), "%s: %s",
	       line, why);
}

static void stop_loop(struct sim *sim, void *arg)
{
	(void)sim;
	(void)arg;
	loop_stop();
}

static void run_for(struct rig *b, uint64_t ms)
{
	loop_after(ms * 1000000, stop_loop, NULL);
	loop_run(b->sim);
}

static void test_conditions(void)
{
	struct rig *b = rig_new(set_plain, 0);
	static const struct {
		const char *line;
		const char *taken;	/* of ten writes to sectors 0 to 9 */
	} cases[] = {
		{ "on type=out: fail ioerr", "xxxxxxxxxx" },
		{ "type=write: fail 1", "xxxxxxxxxx" },
		{ ": fail ioerr", "xxxxxxxxxx" },
		{ "type=in: fail ioerr", ".........." },
		{ "type=1 queue=0: fail ioerr", "xxxxxxxxxx" },
		{ "queue=1: fail ioerr", ".........." },
		{ "sector=3: fail ioerr", "...x......" },
		{ "sector=3-5: fail ioerr", "...xxx...." },
		{ "sector=3-5 nth=2: fail ioerr", "....x....." },
		{ "nth=1: fail ioerr", "x........." },
		{ "from=8: fail ioerr", ".......xxx" },
		{ "every=3: fail ioerr", "..x..x..x." },
		{ "from=2 every=4: fail ioerr", ".x...x...x" },
		{ "from=2 every=4 count=2: fail ioerr", ".x...x...." },
		{ "count=1: fail ioerr", "x........." },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char taken[11] = "";

		add_line(b, cases[i].line);
		for (unsigned int j = 0; j < 10; j++)
			taken[j] = ask(b, BLK_T_OUT, j, 512, 0) ? 'x' : '.';
		expect(!strcmp(taken, cases[i].taken), "%s: %s, not %s",
		       cases[i].line, taken, cases[i].taken);
	}
	/* several lines: the first one that is due; ranges have sectors, too */
	add_line(b, "type=out nth=2: fail ioerr");
	expect(!script_add(b->sim->script, "sector=7: fail 0x77", NULL, 0) &&
	       !script_add(b->sim->script, " # none", NULL, 0) &&
	       !script_add(b->sim->script, "", NULL, 0), "more lines");
	EXPECT_STATUS(0x77, ask(b, BLK_T_OUT, 0, 8192, 0));
	EXPECT_STATUS(BLK_S_IOERR, ask(b, BLK_T_OUT, 7, 512, 0));
	EXPECT_STATUS(0x77, ask(b, BLK_T_OUT, 7, 512, 0));
	put_range(b, 0, 0, 1, 0);
	put_range(b, 1, 7, 1, 0);
	EXPECT_STATUS(BLK_S_OK, ask(b, BLK_T_DISCARD, 0, 16, 0));
	EXPECT_STATUS(0x77, ask(b, BLK_T_DISCARD, 0, 32, 0));
	EXPECT_STATUS(BLK_S_OK, ask(b, BLK_T_FLUSH, 0, 0, 0));
	CLOSE(b);
}

static void test_script_errors(void)
{
	static const struct {
		const char *line;
		const char *named;	/* text that the error must contain */
	} cases[] = {
		{ "fail ioerr", "colon" },
		{ "type=nothing: fail ioerr", "nothing" },
		{ "type=99999999999: drop", "99999999999" },
		{ "color=red: drop", "color" },
		{ "often: drop", "often" },
		{ "queue=64: drop", "63" },
		{ "sector=5-3: drop", "5-3" },
		{ "sector=x: drop", "x" },
		{ "nth=0: drop", "nth=0" },
		{ "count=-1: drop", "-1" },
		{ "every=18446744073709551616: drop", "18446744073709551616" },
		{ "type=in: explode", "explode" },
		{ "type=in:", "''" },
		{ "type=in: delay", "delay" },
		{ "type=in: delay 10", "10" },
		{ "type=in: delay 99999999999999s", "99999999999999s" },
		{ "type=in: delay 5h", "5h" },
		{ "type=in: delay 9000000000s", "9000000000s" },
		{ "type=in: fail 256", "256" },
		{ "type=in: fail badly", "badly" },
		{ "type=in: short", "short" },
		{ "type=in: drop 5", "5" },
		{ "type=in: short 5 6", "6" },
		{ "type=in: late 5", "5" },
		{ "type=out: part", "part" },
		{ "type=out: lose 1", "1" },
	};
	struct script *script = script_new();
	char why[200], line[300];

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		strcpy(why, "");
		expect(script_add(script, cases[i].line, why, sizeof(why)) &&
		       strstr(why, cases[i].named), "%s: '%s'", cases[i].line,
		       why);
	}
	memset(line, 'x', sizeof(line));
	line[sizeof(line) - 1] = '\0';
	expect(script_add(script, line, why, sizeof(why)) &&
	       strstr(why, "299"), "a long line: '%s'", why);
	script_free(script);
}

static void test_waiting(void)
{
	struct rig *b = rig_new(set_plain, 0);
	uint32_t id, len;
	uint16_t head[4];
	struct envelope *first;

	add_line(b, "type=in nth=1: delay 20ms");
	head[0] = post(b, BLK_T_IN, 0, 0, 512);
	first = last_envelope(b);
	EXPECT_STATUS(BLK_S_OK, ask(b, BLK_T_IN, 0, 0, 512));
	expect(first->status == NEVER, "the device does not delay its answer");
	run_for(b, 5);
	expect(first->status == NEVER,
	       "the device delays its answer by less than 5 ms");
	run_for(b, 40);
	expect(take_used(b, &id, &len) && id == head[0] && !first->status,
	       "the device does not answer after a delay");

	add_line(b, "type=out: hold");
	for (unsigned int i = 0; i < 3; i++)
		head[i] = post(b, BLK_T_OUT, i, 512, 0);
	expect(!take_used(b, &id, &len),
	       "the device answers a request that it holds");
	expect(script_release(b->sim) == 3,
	       "the device does not hold 3 requests");
	for (unsigned int i = 0; i < 3; i++)
		expect(take_used(b, &id, &len) && id == head[i],
		       "a held request is not returned in its order");
	expect(!take_used(b, &id, &len), "a held request is returned twice");

	add_line(b, "type=out: reorder 3");
	for (unsigned int i = 0; i < 3; i++) {
		expect(!take_used(b, &id, &len),
		       "the device answers before it reorders");
		head[i] = post(b, BLK_T_OUT, i, 512, 0);
	}
	head[3] = post(b, BLK_T_OUT, 3, 512, 0);
	for (unsigned int i = 0; i < 3; i++)
		expect(take_used(b, &id, &len) && id == head[2 - i] &&
		       len == 1, "the answers are not reordered");
	expect(!take_used(b, &id, &len),
	       "the fourth request does not wait for two others");
	run_for(b, 1100);
	expect(take_used(b, &id, &len) && id == head[3],
	       "a reordered request is never answered");
	/* removing the line answers its waiting requests */
	head[0] = post(b, BLK_T_OUT, 0, 512, 0);
	script_clear(b->sim->script);
	expect(take_used(b, &id, &len) && id == head[0],
	       "a reordered request is lost");

	/* a reset frees all waiting requests: none is answered after it */
	add_line(b, "nth=1: hold");
	script_add(b->sim->script, "nth=2: delay 1ms", NULL, 0);
	script_add(b->sim->script, "nth=3: reorder 2", NULL, 0);
	for (unsigned int i = 0; i < 3; i++)
		post(b, BLK_T_OUT, i, 512, 0);
	request_reset(b->sim);
	expect(!script_release(b->sim), "a request is held over a reset");
	run_for(b, 10);
	expect(!take_used(b, &id, &len),
	       "a request from before a reset is answered");
	CLOSE(b);
}

static void test_bad_answers(void)
{
	struct rig *b = rig_new(set_plain, 0);
	uint32_t id, len;
	uint16_t head;

	fill(b, 0, 2, 0x44);
	fill(b, 2, 2, 0x55);
	add_line(b, "type=out: status unsupp");
	memset(b->out, 0x66, 512);
	EXPECT_STATUS(BLK_S_UNSUPP, ask(b, BLK_T_OUT, 2, 512, 0));
	expect(sector_has(b, 2, 0x66), "the request is not executed");
	add_line(b, "type=out: fail zone_open_resource");
	EXPECT_STATUS(BLK_S_ZONE_OPEN_RESOURCE, ask(b, BLK_T_OUT, 3, 512, 0));
	expect(sector_has(b, 3, 0x55), "a failed request is executed");
	add_line(b, "type=in: fail ioerr");
	memset(b->in, 1, 512);
	EXPECT_STATUS(BLK_S_IOERR, ask(b, BLK_T_IN, 0, 0, 512));
	expect(b->len == 513 && all_bytes(b->in, 512, 0),
	       "a failed read returns data");

	add_line(b, "type=in: no_status");
	EXPECT_STATUS(NEVER, ask(b, BLK_T_IN, 0, 0, 512));
	expect(b->len == 512 && all_bytes(b->in, 512, 0x44),
	       "no_status: the data or its length is wrong");
	add_line(b, "type=in: short 100");
	EXPECT_STATUS(BLK_S_OK, ask(b, BLK_T_IN, 0, 0, 512));
	expect(b->len == 413, "short: %u", b->len);
	add_line(b, "type=in: short 1000");
	EXPECT_STATUS(BLK_S_OK, ask(b, BLK_T_IN, 0, 0, 512));
	expect(!b->len, "short: %u", b->len);
	add_line(b, "type=in: long 100");
	EXPECT_STATUS(BLK_S_OK, ask(b, BLK_T_IN, 0, 0, 512));
	expect(b->len == 613, "long: %u", b->len);
	add_line(b, "type=in: long 0xffffffff");
	EXPECT_STATUS(BLK_S_OK, ask(b, BLK_T_IN, 0, 0, 512));
	expect(b->len == UINT32_MAX, "long: %u", b->len);

	add_line(b, "type=in: corrupt");
	EXPECT_STATUS(BLK_S_OK, ask(b, BLK_T_IN, 0, 0, 1024));
	expect(b->in[0] == 0xbb && b->in[1] == 0x44 && b->in[511] == 0x44 &&
	       b->in[512] == 0xbb,
	       "corrupt: the data is not changed in one place");
	add_line(b, "type=in: garbage");
	EXPECT_STATUS(BLK_S_OK, ask(b, BLK_T_IN, 0, 0, 512));
	expect(!all_bytes(b->in, 256, 0x44) &&
	       memcmp(b->in, b->in + 256, 256),
	       "garbage: the data is not random");

	add_line(b, "type=in nth=1: twice");
	head = post(b, BLK_T_IN, 0, 0, 512);
	for (unsigned int i = 0; i < 2; i++)
		expect(take_used(b, &id, &len) && id == head && len == 513,
		       "twice: time %u", i + 1);
	expect(!take_used(b, &id, &len),
	       "twice: the request is answered three times");
	add_line(b, "type=in nth=1: bad_id 0xfffff");
	post(b, BLK_T_IN, 0, 0, 512);
	expect(take_used(b, &id, &len) && id == 0xfffff && len == 513,
	       "bad_id: %u", id);
	expect(!take_used(b, &id, &len),
	       "bad_id: the device also returns the right id");
	CLOSE(b);

	b = rig_new(set_zoned, 0);
	add_line(b, "type=zone_report: nr_zones 1000000");
	EXPECT_STATUS(BLK_S_OK, ask(b, BLK_T_ZONE_REPORT, 0, 0, 192));
	expect(APPENDED(b) == 1000000 && b->in[64 + 25 + 64] == BLK_ZS_NOT_WP,
	       "nr_zones: %" PRIu64, APPENDED(b));
	add_line(b, "type=zone_report: garbage");
	EXPECT_STATUS(BLK_S_OK, ask(b, BLK_T_ZONE_REPORT, 0, 0, 192));
	expect(!all_bytes(b->in + 8, 56, 0), "garbage: a report is not random");
	CLOSE(b);
}

/* execution without an answer: of all, of a part, and with zones */
static void test_lost_answers(void)
{
	struct rig *b = rig_new(set_plain, 0);
	uint32_t id, len;

	fill(b, 0, 8, 0x11);
	add_line(b, "type=out nth=1: lose");
	script_add(b->sim->script, "type=out nth=2: part 2", NULL, 0);
	script_add(b->sim->script, "type=out nth=3: part 100", NULL, 0);
	script_add(b->sim->script, "type=flush: lose", NULL, 0);
	memset(b->out, 0x22, 2048);
	EXPECT_STATUS(LOST, ask(b, BLK_T_OUT, 0, 1024, 0));
	EXPECT_STATUS(LOST, ask(b, BLK_T_OUT, 2, 2048, 0));
	EXPECT_STATUS(LOST, ask(b, BLK_T_OUT, 6, 512, 0));
	EXPECT_STATUS(LOST, ask(b, BLK_T_FLUSH, 0, 0, 0));
	for (unsigned int i = 0; i < 8; i++)
		expect(sector_has(b, i, i < 4 || i == 6 ? 0x22 : 0x11),
		       "sector %u", i);
	request_reset(b->sim);
	run_for(b, 5);
	expect(!take_used(b, &id, &len), "lose: the device answers");
	CLOSE(b);

	b = rig_new(set_zoned, 0);
	add_line(b, "nth=1: lose");
	script_add(b->sim->script, "nth=2: part 8", NULL, 0);
	EXPECT_STATUS(LOST, ask(b, BLK_T_OUT, 2 * ZONE, 8192, 0));
	EXPECT_STATUS(LOST, ask(b, BLK_T_OUT, 3 * ZONE, 8192, 0));
	expect(le64toh(zone_of(b, 2).z_wp) == 2 * ZONE + 16,
	       "lose: the write pointer does not advance");
	expect(le64toh(zone_of(b, 3).z_wp) == 3 * ZONE + 8,
	       "part: the write pointer is not after the part");
	CLOSE(b);
}

static void test_late_interrupt(void)
{
	struct rig *b = rig_new(set_plain, 0);
	unsigned int *interrupts = &b->bench->interrupts[0];
	unsigned int before = *interrupts;

	add_line(b, "nth=1: late 20ms");
	script_add(b->sim->script, "nth=3: late 20ms", NULL, 0);
	EXPECT_STATUS(BLK_S_OK, ask(b, BLK_T_FLUSH, 0, 0, 0));
	run_for(b, 5);
	expect(*interrupts == before, "late: the interrupt is not late");
	run_for(b, 40);
	expect(*interrupts == before + 1, "late: there is no interrupt");
	EXPECT_STATUS(BLK_S_OK, ask(b, BLK_T_FLUSH, 0, 0, 0));
	expect(*interrupts == before + 2,
	       "late: the next interrupt is late, too");
	EXPECT_STATUS(BLK_S_OK, ask(b, BLK_T_FLUSH, 0, 0, 0));
	request_reset(b->sim);
	run_for(b, 40);
	expect(*interrupts == before + 2,
	       "late: an interrupt comes after a reset");
	CLOSE(b);
}

static void test_cut_chains(void)
{
	struct rig *b = rig_new(set_plain, 0);
	uint16_t head;

	add_line(b, "nth=1: cut");
	script_add(b->sim->script, "nth=2: cut_done", NULL, 0);
	head = post(b, BLK_T_OUT, 0, 512, 0);
	expect(!(b->desc[head].third & DESC_F_NEXT),
	       "cut: the chain is not cut");
	expect(b->desc[head + 1].third & DESC_F_NEXT,
	       "cut: the chain is cut in two places");
	expect(last_envelope(b)->status == NEVER, "cut: the device answers");
	EXPECT_STATUS(BLK_S_OK, ask(b, BLK_T_OUT, 0, 512, 0));
	expect(!(b->desc[head + 3].third & DESC_F_NEXT),
	       "cut_done: the chain is not cut");
	/* the device has changed the descriptor, not the driver */
	ring_return_lost(b->sim);
	CLOSE(b);
}

static void test_silence(void)
{
	struct rig *b = rig_new(set_plain, 0);
	uint32_t id, len;
	int status;
	pid_t child;

	add_line(b, "nth=1: drop");
	EXPECT_STATUS(LOST, ask(b, BLK_T_FLUSH, 0, 0, 0));
	EXPECT_STATUS(BLK_S_OK, ask(b, BLK_T_FLUSH, 0, 0, 0));
	add_line(b, "nth=2: stop");
	EXPECT_STATUS(BLK_S_OK, ask(b, BLK_T_FLUSH, 0, 0, 0));
	EXPECT_STATUS(LOST, ask(b, BLK_T_FLUSH, 0, 0, 0));
	script_clear(b->sim->script);
	EXPECT_STATUS(LOST, ask(b, BLK_T_FLUSH, 0, 0, 0));
	request_reset(b->sim);
	EXPECT_STATUS(BLK_S_OK, ask(b, BLK_T_FLUSH, 0, 0, 0));
	add_line(b, "nth=1: needs_reset");
	EXPECT_STATUS(LOST, ask(b, BLK_T_FLUSH, 0, 0, 0));
	expect(b->bench->needs_resets,
	       "needs_reset: the device requests no reset");
	EXPECT_STATUS(LOST, ask(b, BLK_T_FLUSH, 0, 0, 0));
	request_reset(b->sim);
	expect(!take_used(b, &id, &len), "stop: the device answers");

	add_line(b, "nth=1: kill");
	fflush(NULL);
	child = fork();
	if (!child) {
		ask(b, BLK_T_FLUSH, 0, 0, 0);
		_exit(99);
	}
	expect(child > 0 && waitpid(child, &status, 0) == child &&
	       WIFEXITED(status) && WEXITSTATUS(status) == EXIT_FAILURE,
	       "kill: the device is not killed");
	CLOSE(b);
}

/* each behaviour has a line in the help */
static void test_help(void)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	script_help(out);
	fclose(out);
	expect(strstr(text, "reorder") && strstr(text, "needs_reset") &&
	       strstr(text, "lose") && strstr(text, "cut_done") &&
	       strstr(text, "sector=FIRST-LAST"),
	       "the help lacks an action or a condition");
	free(text);
}

/* ---- the data ---- */

static uint64_t blocks_of(const char *name)
{
	struct stat st;

	return stat(name, &st) ? 0 : st.st_blocks;
}

static void test_store(struct store *store, const char *file)
{
	uint8_t data[1024], back[1024];

	memset(data, 0x77, sizeof(data));
	expect(!store_write(store, 4096, data, 1024) &&
	       !store_read(store, 4096, back, 1024) &&
	       !memcmp(data, back, 1024), "the store returns other data");
	expect(!store_zero(store, 4096, 512, false) &&
	       !store_read(store, 4096, back, 1024) &&
	       all_bytes(back, 512, 0) && all_bytes(back + 512, 512, 0x77),
	       "the store does not write zeroes");
	expect(!store_zero(store, 4608, 100, true) &&
	       !store_read(store, 4608, back, 512) &&
	       all_bytes(back, 100, 0) && back[100] == 0x77,
	       "a hole has data, or its neighbour has none");
	expect(!store_erase(store, 0, 8192) &&
	       !store_read(store, 4096, back, 1024) &&
	       all_bytes(back, 1024, 0), "erased sectors have data");
	expect(!store_write(store, 8192, data, 512) &&
	       !store_zero(store, 0, 2048, false) &&
	       !store_erase(store, 0, 2048) &&
	       !store_read(store, 8192, back, 512) &&
	       all_bytes(back, 512, 0x77), "zeroes go beyond their range");
	expect(!store_flush(store), "the store does not flush");

	/* no access beyond the end, and data that was cut off is lost */
	expect(store_write(store, 65536 - 512, data, 1024) &&
	       store_read(store, 65536, back, 1) &&
	       store_zero(store, UINT64_MAX, 2, false) &&
	       store_erase(store, 65536, 1),
	       "the store serves sectors beyond its end");
	expect(!store_write(store, 65536 - 512, data, 512),
	       "the last sector cannot be written");
	expect(!store_resize(store, 64) &&
	       store_read(store, 32768, back, 512) &&
	       !store_resize(store, 256) &&
	       !store_read(store, 65536 - 512, back, 1024) &&
	       all_bytes(back, 1024, 0) &&
	       !store_write(store, 131072 - 512, data, 512),
	       "the store does not grow");

	/* only written data takes memory */
	if (!file)
		return;
	for (unsigned int i = 0; i < 64; i++)
		store_write(store, i * 1024, data, 1024);
	store_flush(store);
	expect(blocks_of(file) >= 128, "the file has too few blocks");
	expect(!store_zero(store, 0, 131072, true) && !blocks_of(file),
	       "unmap leaves %" PRIu64 " blocks", blocks_of(file));
}

static void test_stores(void)
{
	char file[] = "/tmp/vblksim-test-XXXXXX";
	int fd = mkstemp(file);
	struct store *store = store_open(NULL, 128);
	uint8_t back[512];

	test_store(store, NULL);
	store_close(store);
	expect(fd >= 0, "cannot create a file for the test");
	store = store_open(file, 128);
	test_store(store, file);
	memset(back, 0x99, sizeof(back));
	store_write(store, 0, back, sizeof(back));
	store_close(store);
	/* a file keeps its data, and a smaller device does not truncate it */
	store = store_open(file, 1);
	expect(!store_read(store, 0, back, 512) && all_bytes(back, 512, 0x99) &&
	       store_read(store, 512, back, 1),
	       "the file has other data when it is opened again");
	store_close(store);
	expect(lseek(fd, 0, SEEK_END) == 131072, "the file has another size");
	close(fd);
	unlink(file);

	/* absurd capacities cost nothing */
	store = store_open(NULL, UINT64_MAX);
	expect(store && !store_write(store, 1ull << 61, back, 512) &&
	       !store_read(store, 1ull << 61, back, 512) &&
	       !store_zero(store, 0, 1ull << 61, false) &&
	       store_read(store, 1ull << 62, back, 1),
	       "the store wraps around at 2^64 bytes");
	store_close(store);
}

static char stale_file[] = "/tmp/vblksim-test-XXXXXX";

static void set_stale(struct settings *set)
{
	set_zoned(set);
	set->file = stale_file;
}

static void set_stale_aware(struct settings *set)
{
	set_aware(set);
	set->file = stale_file;
}

/* zones are empty initially, whatever the file has */
static void test_stale_file(void)
{
	int fd = mkstemp(stale_file);
	uint8_t data[4096];
	struct rig *b;

	memset(data, 0x3c, sizeof(data));
	for (unsigned int i = 0; i < 128; i++)
		expect(write(fd, data, sizeof(data)) == sizeof(data), "write");
	close(fd);
	b = rig_new(set_stale, 0);
	expect(sector_has(b, 0, 0x3c), "a conventional zone has other data");
	expect(sector_has(b, START(3), 0), "an empty zone has data");
	fill(b, START(3), 8, 0x4d);
	GOOD(b, BLK_S_OK, BLK_T_IN, START(3), 0, 8192);
	expect(all_bytes(b->in, 4096, 0x4d) &&
	       all_bytes(b->in + 4096, 4096, 0),
	       "there is data at the write pointer");
	GOOD(b, BLK_S_OK, BLK_T_ZONE_FINISH, START(3), 0, 0);
	expect(sector_has(b, START(3) + 7, 0x4d) &&
	       sector_has(b, START(3) + 8, 0),
	       "the rest of a finished zone has data");
	CLOSE(b);

	b = rig_new(set_stale_aware, 0);
	BAD(b, ZONE_WRITE_ORDER, BLK_S_OK, BLK_T_OUT, START(4) + 8, 4096, 0);
	expect(sector_has(b, START(4) + 7, 0), "a gap has old data");
	CLOSE(b, RULE_ZONE_WRITE_ORDER);
	unlink(stale_file);
}

/* data that was read before a failure does not reach the driver */
static void test_read_error(void)
{
	struct rig *b = rig_new(set_plain, 0);

	piece = 512;
	fill(b, 63, 1, 0x42);
	expect(!store_resize(b->sim->store, 64), "smaller");
	memset(b->in, 0x17, 1024);
	GOOD(b, BLK_S_IOERR, BLK_T_IN, 63, 0, 1024);
	expect(all_bytes(b->in, 1024, 0), "a read beyond the new end has data");
	GOOD(b, BLK_S_IOERR, BLK_T_OUT, 64, 512, 0);
	CLOSE(b);
}

/* replaces libc's fdatasync() for the device */
static unsigned int flushes;
static bool flush_fails;

int fdatasync(int fd)
{
	flushes++;
	return flush_fails ? -1 : fsync(fd);
}

static char flush_file[] = "/tmp/vblksim-test-XXXXXX";

static void set_flush(struct settings *set)
{
	set_plain(set);
	set->features |= BIT(BLK_F_CONFIG_WCE);
	set->config.writeback = 1;
	set->file = flush_file;
}

static bool flushes_on(struct rig *b, uint32_t type, uint32_t out)
{
	flushes = 0;
	put_range(b, 0, 0, 1, 0);
	expect(!ask(b, type, 0, out, 0), "%s", request_type_name(type));
	return flushes;
}

static bool writes_through(struct rig *b)
{
	bool out = flushes_on(b, BLK_T_OUT, 512);

	expect(flushes_on(b, BLK_T_WRITE_ZEROES, 16) == out,
	       "write zeroes are flushed unlike writes");
	return out;
}

/* write zeroes frees space with UNMAP, and otherwise keeps it */
static void test_unmap(struct rig *b)
{
	uint64_t before, kept;

	for (unsigned int i = 0; i < 16; i++)
		fill(b, 256 + 16 * i, 16, 0x31);
	store_flush(b->sim->store);
	before = blocks_of(flush_file);
	put_range(b, 0, 256, 256, 0);
	GOOD(b, BLK_S_OK, BLK_T_WRITE_ZEROES, 0, 16, 0);
	kept = blocks_of(flush_file);
	expect(kept == before, "%" PRIu64 " blocks of %" PRIu64, kept, before);
	put_range(b, 0, 256, 256, BLK_RANGE_UNMAP);
	GOOD(b, BLK_S_OK, BLK_T_WRITE_ZEROES, 0, 16, 0);
	kept = blocks_of(flush_file);
	expect(kept < before, "%" PRIu64 " blocks of %" PRIu64, kept,
	       before);
}

/* data is durable after a flush, or after each write in write-through mode */
static void test_flush(void)
{
	struct rig *b;

	close(mkstemp(flush_file));
	b = rig_new(set_flush, 0);
	expect(!writes_through(b), "each write is flushed");
	expect(flushes_on(b, BLK_T_FLUSH, 0), "a flush does nothing");
	flush_fails = true;
	GOOD(b, BLK_S_IOERR, BLK_T_FLUSH, 0, 0, 0);
	b->sim->set.config.writeback = 0;
	GOOD(b, BLK_S_IOERR, BLK_T_OUT, 0, 512, 0);
	flush_fails = false;
	expect(writes_through(b), "a write is not flushed with writethrough");
	CLOSE(b);

	/* first without FLUSH, then with FLUSH */
	b = rig_new(set_flush, BIT(BLK_F_CONFIG_WCE) | BIT(BLK_F_FLUSH));
	expect(writes_through(b),
	       "a write is not flushed for a driver without FLUSH");
	CLOSE(b);
	b = rig_new(set_flush, BIT(BLK_F_CONFIG_WCE));
	expect(!writes_through(b), "each write is flushed");
	test_unmap(b);
	CLOSE(b);
	unlink(flush_file);

	b = rig_new(set_plain, 0);
	expect(!flushes_on(b, BLK_T_FLUSH, 0), "memory is flushed");
	CLOSE(b);
}

/* the device gets smaller and larger while it runs, as after a command */
static void test_resize(void)
{
	struct rig *b = rig_new(set_plain, 0);

	fill(b, 2048, 1, 0x21);
	b->sim->set.config.capacity = htole64(1024);
	expect(!store_resize(b->sim->store, 1024), "smaller");
	BAD(b, CAPACITY, BLK_S_IOERR, BLK_T_IN, 2048, 0, 512);
	b->sim->set.config.capacity = htole64(8192);
	expect(!store_resize(b->sim->store, 8192), "larger");
	expect(sector_has(b, 2048, 0),
	       "data is back after the disk shrank and grew");
	fill(b, 8191, 1, 0x22);
	expect(sector_has(b, 8191, 0x22), "the last sector has other data");
	CLOSE(b, RULE_CAPACITY);
}

void selftest_block(void)
{
	test_types();
	test_ranges();
	test_framing();
	test_header_rules();
	test_data_rules();
	test_segments();
	test_range_rules();
	test_features();
	test_read_only();
	test_transitions();
	test_zone_writes();
	test_zone_limits();
	test_zone_rules();
	test_report();
	test_host_aware();
	test_odd_zones();
	test_zone_resize();
	test_conditions();
	test_script_errors();
	test_waiting();
	test_bad_answers();
	test_lost_answers();
	test_late_interrupt();
	test_cut_chains();
	test_silence();
	test_help();
	test_stores();
	test_stale_file();
	test_read_error();
	test_flush();
	test_resize();
}
