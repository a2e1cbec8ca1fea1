// SPDX-License-Identifier: GPL-2.0
/*
 * Drivers that break the rules of rules_ring.h, one at a time, and drivers that
 * break none of them on thousands of chains.
 */

#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#include "selftest.h"

#define BIT(n)		(1ull << (n))
#define RING		8
#define ENDS		(-1)

/* The features that nearly all cases negotiate. */
#define PLAIN		(BIT(F_VERSION_1) | BIT(F_ACCESS_PLATFORM))

static uint32_t seed = 1;

/* Random numbers that are the same in each run. */
static uint32_t pick(uint32_t below)
{
	seed ^= seed << 13;
	seed ^= seed >> 17;
	seed ^= seed << 5;
	return seed % below;
}

/* Open a device that keeps its chains, with one running queue of RING entries. */
static struct driver *open_queue(uint64_t features)
{
	struct bench *bench = bench_open(features & BIT(F_RING_PACKED) ?
					 "--features=default,+packed" :
					 "--features=default",
					 "--ring_size=8", "--queues=2", NULL);

	bench->hold = true;
	if (!bench_start(bench, PLAIN | features))
		test_result("the queue starts", false, "features %#llx",
			    (unsigned long long)features);
	return &bench->driver[0];
}

static struct driver *open_split(void)
{
	return open_queue(BIT(F_INDIRECT_DESC));
}

static struct driver *open_packed(void)
{
	return open_queue(BIT(F_INDIRECT_DESC) | BIT(F_RING_PACKED));
}

static uint64_t buffer(struct driver *driver)
{
	return bench_alloc(driver->bench, 64, 64);
}

static void kick(struct driver *driver)
{
	ring_kicked(&driver->bench->sim, driver->queue, 1);
}

/* Descriptors by hand. */

static void put_split(struct test_desc *desc, uint64_t addr, uint32_t len,
		      uint16_t flags, uint16_t next)
{
	*desc = (struct test_desc) { addr, len, flags, next };
}

static void put_packed(struct test_desc *desc, uint64_t addr, uint32_t len,
		       uint16_t flags, uint16_t id)
{
	*desc = (struct test_desc) { addr, len, id, flags };
}

static void set_split(struct driver *driver, uint16_t i, uint16_t flags,
		      uint16_t next)
{
	put_split(&driver->desc[i], buffer(driver), 64, flags, next);
}

static void set_packed(struct driver *driver, uint16_t i, uint16_t flags,
		       uint16_t id)
{
	put_packed(&driver->desc[i], buffer(driver), 64, flags, id);
}

static void show(struct driver *driver, uint16_t head)
{
	driver->driver_area[2 + driver->idx % RING] = head;
	driver->driver_area[1] = ++driver->idx;
}

static void show_and_kick(struct driver *driver, uint16_t head)
{
	show(driver, head);
	kick(driver);
}

static void complete_first(struct bench *bench)
{
	struct chain *chain = bench->held;

	if (!chain)
		return;
	bench->held = chain->next;
	ring_complete(&bench->sim, chain, 0);
}

/* Status. */

static void test_status(void)
{
	struct bench *bench = bench_open(NULL, NULL);
	struct sim *sim = &bench->sim;

	bench_reset(bench);
	status_written(sim, 1);
	status_written(sim, 3);
	status_written(sim, 1);
	bench_expect(bench, "a status bit is cleared", RULE_STATUS_CLEARED,
		     ENDS);

	bench = bench_open(NULL, NULL);
	sim = &bench->sim;
	bench_reset(bench);
	status_written(sim, 1 | 32);
	bench_expect(bench, "an undefined status bit", RULE_STATUS_UNKNOWN,
		     ENDS);

	bench = bench_open(NULL, NULL);
	sim = &bench->sim;
	bench_reset(bench);
	status_written(sim, 1 | STATUS_NEEDS_RESET);
	bench_expect(bench, "the device's own status bit", RULE_STATUS_UNKNOWN,
		     ENDS);

	bench = bench_open(NULL, NULL);
	bench_start(bench, PLAIN);
	status_written(&bench->sim, bench->sim.status | STATUS_SUSPEND);
	bench_expect(bench, "SUSPEND without the feature", RULE_STATUS_SUSPEND,
		     ENDS);

	bench = bench_open("--features=+bit43", NULL);
	bench_reset(bench);
	bench_negotiate(bench, PLAIN | BIT(F_SUSPEND));
	status_written(&bench->sim, bench->sim.status | STATUS_SUSPEND);
	bench_expect(bench, "SUSPEND before DRIVER_OK", RULE_STATUS_SUSPEND,
		     ENDS);

	bench = bench_open("--features=+bit43", NULL);
	bench_start(bench, PLAIN | BIT(F_SUSPEND));
	status_written(&bench->sim, bench->sim.status | STATUS_SUSPEND);
	bench_expect(bench, "a driver that suspends its device", ENDS);

	bench = bench_open("--features=+bit43", NULL);
	bench_start(bench, PLAIN | BIT(F_SUSPEND));
	status_written(&bench->sim, bench->sim.status | STATUS_SUSPEND);
	ring_kicked(&bench->sim, 0, 1);
	bench_expect(bench, "a notification after SUSPEND", RULE_KICK_SUSPENDED,
		     ENDS);

	bench = bench_open(NULL, NULL);
	sim = &bench->sim;
	bench_reset(bench);
	status_written(sim, 1);
	status_written(sim, 1 | STATUS_FAILED);
	status_written(sim, 3 | STATUS_FAILED);
	bench_expect(bench, "on after FAILED", RULE_STATUS_AFTER_FAILED, ENDS);

	bench = bench_open(NULL, NULL);
	bench_negotiate(bench, PLAIN);
	bench_expect(bench, "no reset at first", RULE_STATUS_RESET_FIRST, ENDS);

	bench = bench_open(NULL, NULL);
	sim = &bench->sim;
	bench_reset(bench);
	status_written(sim, STATUS_DRIVER);
	bench_expect(bench, "DRIVER before ACKNOWLEDGE", RULE_STATUS_ORDER,
		     ENDS);
}

static void test_driver_ok(void)
{
	struct bench *bench = bench_open(NULL, NULL);
	struct sim *sim = &bench->sim;

	bench_reset(bench);
	status_written(sim, 1);
	status_written(sim, 3);
	bench->features = PLAIN;
	test_result("FEATURES_OK and DRIVER_OK at once are refused",
		    !status_written(sim, 15), "status is %#x", sim->status);
	bench_expect(bench, "the driver does not read FEATURES_OK back",
		     RULE_STATUS_FEATURES_REREAD, ENDS);

	bench = bench_open(NULL, NULL);
	sim = &bench->sim;
	bench_reset(bench);
	bench_negotiate(bench, PLAIN);
	bench->features |= BIT(F_EVENT_IDX);
	bench_run(bench);
	bench_expect(bench, "features after FEATURES_OK", RULE_FEATURES_LATE,
		     ENDS);

	bench = bench_open(NULL, NULL);
	sim = &bench->sim;
	bench_reset(bench);
	bench_negotiate(bench, PLAIN);
	bench_add_queue(bench, 0, RING);
	ring_kicked(sim, 0, 1);
	bench_expect(bench, "a notification before DRIVER_OK", RULE_KICK_EARLY,
		     ENDS);
}

/* Features. */

static void test_accepting(const char *name, const char *setting,
			   uint64_t accepted, bool good, int rule, int besides)
{
	struct bench *bench = bench_open(setting, NULL);
	bool is_good;

	bench_reset(bench);
	is_good = bench_negotiate(bench, accepted);
	if (is_good != good)
		test_result(name, false, "FEATURES_OK %s taken",
			    is_good ? "is" : "is not");
	if (besides >= 0)
		bench_expect(bench, name, rule, besides, ENDS);
	else
		bench_expect(bench, name, rule, ENDS);
}

static void test_features(void)
{
	struct blk_config view;
	struct bench *bench;

	test_accepting("a feature that was not offered", NULL,
		       PLAIN | BIT(BLK_F_RO), false, RULE_FEATURE_NOT_OFFERED,
		       -1);
	test_accepting("a feature that is not defined",
		       "--features=+bit50", PLAIN | BIT(50), true,
		       RULE_FEATURE_UNDEFINED, -1);
	test_accepting("a feature of network devices only",
		       "--features=+bit3", PLAIN | BIT(3), true,
		       RULE_FEATURE_UNDEFINED, -1);
	test_accepting("the last feature of network devices only",
		       "--features=+bit42", PLAIN | BIT(42), true,
		       RULE_FEATURE_UNDEFINED, -1);
	test_accepting("the first reserved feature",
		       "--features=+bit44", PLAIN | BIT(44), true,
		       RULE_FEATURE_UNDEFINED, -1);
	test_accepting("SR_IOV without PCI", "--features=+bit37",
		       PLAIN | BIT(F_SR_IOV), true, RULE_FEATURE_UNDEFINED, -1);
	test_accepting("ADMIN_VQ without PCI", "--features=+bit41",
		       PLAIN | BIT(F_ADMIN_VQ), true, RULE_FEATURE_UNDEFINED, -1);
	bench = bench_open("--features=+bit38,+bit39,+bit40,+bit43", NULL);
	bench_start(bench, PLAIN | BIT(F_NOTIFICATION_DATA) |
		    BIT(F_NOTIF_CONFIG_DATA) | BIT(F_RING_RESET) |
		    BIT(F_SUSPEND));
	bench_expect(bench, "features of queues that the device only offers",
		     ENDS);
	test_accepting("ZONED without VERSION_1", "--features=+zoned",
		       BIT(BLK_F_ZONED) | BIT(F_ACCESS_PLATFORM), false,
		       RULE_FEATURE_DEPENDENCY, RULE_FEATURE_VERSION_1);
	test_accepting("no VERSION_1", NULL, BIT(F_ACCESS_PLATFORM), false,
		       RULE_FEATURE_VERSION_1, -1);
	test_accepting("no ACCESS_PLATFORM", NULL, BIT(F_VERSION_1), true,
		       RULE_FEATURE_ACCESS_PLATFORM, -1);
	test_accepting("no RING_PACKED", "--features=+packed", PLAIN, true,
		       RULE_FEATURE_RING_PACKED, -1);
	test_accepting("no ORDER_PLATFORM", "--features=+order_platform", PLAIN,
		       true, RULE_FEATURE_ORDER_PLATFORM, -1);
	test_accepting("DISCARD of a host-managed device", "--model=hm",
		       PLAIN | BIT(BLK_F_ZONED) | BIT(BLK_F_DISCARD), true,
		       RULE_FEATURE_DISCARD_HM, -1);

	bench = bench_open("--model=hm", NULL);
	bench_reset(bench);
	test_result("a host-managed device refuses a driver without ZONED",
		    !bench_negotiate(bench, PLAIN), "it accepts the driver");
	bench_expect(bench, "the refusal of ZONED breaks no rule", ENDS);

	bench = bench_open("--required=blk_size", NULL);
	bench_reset(bench);
	test_result("the device refuses a driver without a required feature",
		    !bench_negotiate(bench, PLAIN), "it accepts the driver");
	bench_reset(bench);
	test_result("the device accepts a driver with the required feature",
		    bench_negotiate(bench, PLAIN | BIT(BLK_F_BLK_SIZE)),
		    "it is not");
	bench_expect(bench,
		     "declining a required feature breaks no rule", ENDS);

	bench = bench_open("--model=ha", "--zone_conventional=1", NULL);
	bench_reset(bench);
	bench_negotiate(bench, PLAIN);
	features_show_config(&bench->sim, &view);
	test_result("a driver without ZONED sees no zones",
		    !view.model && !view.zone_sectors, "model %u",
		    view.model);
	bench_expect(bench,
		     "a host-aware device accepts a driver without ZONED", ENDS);

	bench = bench_open("--features=all,-ro,+order_platform", "--model=hm",
			   NULL);
	bench_start(bench, bench->sim.set.features & ~BIT(BLK_F_DISCARD));
	bench_expect(bench, "all that is offered and allowed", ENDS);
}

/* Setting up rings. */

static void restart(struct driver *driver)
{
	ring_start(&driver->bench->sim, driver->queue, &driver->where);
}

static void test_start(void)
{
	struct driver *d = open_split();
	uint64_t was;

	bench_add_queue(d->bench, 1, RING);
	bench_expect(d->bench, "a second queue without MQ", RULE_QUEUE_NUMBER,
		     ENDS);

	d = open_split();
	d->where.size = 0;
	restart(d);
	bench_expect(d->bench, "a ring of 0", RULE_RING_SIZE, ENDS);

	d = open_split();
	d->where.size = 16;
	restart(d);
	bench_expect(d->bench, "a ring above the maximum", RULE_RING_SIZE,
		     ENDS);

	d = open_split();
	d->where.size = 6;
	restart(d);
	bench_expect(d->bench, "a split ring of 6", RULE_SPLIT_SIZE_POWER,
		     ENDS);

	d = open_split();
	d->where.desc += 8;
	restart(d);
	d->where.desc -= 8;
	d->where.driver += 1;
	restart(d);
	d->where.driver -= 1;
	d->where.device += 2;
	restart(d);
	test_result("the device counts the alignment of each part of the ring",
		    d->bench->sim.watch.broken[RULE_SPLIT_ALIGNMENT] == 3,
		    "the rule is not broken 3 times");
	bench_expect(d->bench, "parts are not aligned", RULE_SPLIT_ALIGNMENT,
		     ENDS);

	d = open_packed();
	d->where.driver += 2;
	restart(d);
	bench_expect(d->bench, "parts of a packed ring are not aligned",
		     RULE_PACKED_ALIGNMENT, ENDS);

	d = open_split();
	was = d->where.desc;
	d->where.desc = 0x1000;
	restart(d);
	d->where.desc = MEMORY_END - 64;
	restart(d);
	d->where.desc = was;
	d->where.device = -32ull;
	restart(d);
	bench_expect(d->bench, "a ring where there is no memory",
		     RULE_RING_MEMORY, ENDS);

	d = open_split();
	d->where.desc = MEMORY_PIECES + PIECE_BYTES - 64;
	restart(d);
	bench_expect(d->bench, "a ring that is in two pieces",
		     RULE_RING_MEMORY, ENDS);

	d = open_split();
	d->device_area[0] = 1;
	restart(d);
	bench_expect(d->bench, "the used ring's flags are 1 at first",
		     RULE_SPLIT_USED_FLAGS, ENDS);
}

/* Chains in a split ring. */

static void test_split_descs(void)
{
	struct driver *d = open_split();

	set_split(d, 0, 8, 0);
	show_and_kick(d, 0);
	bench_expect(d->bench, "an unknown flag", RULE_SPLIT_FLAGS, ENDS);

	d = open_split();
	set_split(d, 0, DESC_F_NEXT, RING);
	show_and_kick(d, 0);
	bench_expect(d->bench, "next is beyond the table", RULE_SPLIT_NEXT,
		     ENDS);

	d = open_split();
	set_split(d, 0, DESC_F_NEXT, 1);
	set_split(d, 1, DESC_F_NEXT, 0);
	show_and_kick(d, 0);
	bench_expect(d->bench, "a loop", RULE_SPLIT_LOOP, ENDS);

	d = open_split();
	set_split(d, 0, DESC_F_NEXT, 1);
	set_split(d, 1, 0, 0);
	set_split(d, 2, DESC_F_NEXT, 1);
	show_and_kick(d, 0);
	show_and_kick(d, 2);
	bench_expect(d->bench, "two chains share a descriptor",
		     RULE_SPLIT_REUSED, ENDS);

	d = open_split();
	set_split(d, 0, 0, 0);
	show_and_kick(d, 0);
	show_and_kick(d, 0);
	bench_expect(d->bench, "a head is made available twice",
		     RULE_SPLIT_REUSED, ENDS);

	d = open_split();
	set_split(d, 0, DESC_F_WRITE | DESC_F_NEXT, 1);
	set_split(d, 1, 0, 0);
	show_and_kick(d, 0);
	bench_expect(d->bench, "readable after writable", RULE_SPLIT_ORDER,
		     ENDS);

	d = open_split();
	put_split(&d->desc[0], MEMORY_START, -1u, DESC_F_NEXT, 1);
	put_split(&d->desc[1], MEMORY_START, -1u, 0, 0);
	show_and_kick(d, 0);
	bench_expect(d->bench, "more than 2^32 bytes", RULE_SPLIT_BYTES,
		     RULE_BUFFER_MEMORY, ENDS);
}

static void test_buffer_memory(void)
{
	static const struct {
		uint64_t addr;
		uint32_t len;
	} wild[] = {
		{ 0, 1 }, { MEMORY_END, 1 }, { MEMORY_END - 1, 2 },
		{ -1ull, 2 }, { -1ull, -1u }, { MEMORY_START - 1, 2 },
		{ 1ull << 63, 4096 },
	};
	struct driver *d = open_split();
	uint32_t written;

	for (size_t i = 0; i < ARRAY_SIZE(wild); i++) {
		struct part part = { wild[i].addr, wild[i].len, i % 2 };

		driver_add(d, &part, 1, false);
		kick(d);
		if (driver_reap(d, &written) < 0)
			test_result("the device returns a buffer outside of memory",
				    false,
				    "buffer %zu does not come back", i);
	}
	bench_expect(d->bench, "buffers where there is no memory",
		     RULE_BUFFER_MEMORY, ENDS);

	d = open_split();
	put_split(&d->desc[0], 0x10, 32, DESC_F_INDIRECT, 0);
	show_and_kick(d, 0);
	bench_expect(d->bench, "a table where there is no memory",
		     RULE_BUFFER_MEMORY, ENDS);
}

static struct driver *open_table(struct driver *driver, uint32_t len)
{
	driver->table[0] = bench_alloc(driver->bench, 4096, 16);
	if (driver->packed)
		put_packed(&driver->desc[0], driver->table[0], len,
			   DESC_F_INDIRECT | DESC_F_AVAIL, 0);
	else
		put_split(&driver->desc[0], driver->table[0], len,
			  DESC_F_INDIRECT, 0);
	return driver;
}

static struct test_desc *table_of(struct driver *driver)
{
	return bench_at(driver->bench, driver->table[0]);
}

static void test_split_tables(void)
{
	static const uint32_t lengths[] = { 0, 1, 17, 15, -1u };
	struct driver *d;

	for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) {
		d = open_table(open_split(), lengths[i]);
		show_and_kick(d, 0);
		bench_expect(d->bench, "a table's length",
			     RULE_SPLIT_INDIRECT_LENGTH, ENDS);
	}

	d = open_table(open_split(), 0xfffffff0);
	show_and_kick(d, 0);
	bench_expect(d->bench, "a table of 4 GiB", RULE_CHAIN_LENGTH, ENDS);

	d = open_table(open_queue(0), 16);
	put_split(table_of(d), buffer(d), 64, 0, 0);
	show_and_kick(d, 0);
	bench_expect(d->bench, "INDIRECT, which was not negotiated",
		     RULE_SPLIT_INDIRECT_FEATURE, ENDS);

	d = open_table(open_split(), 16);
	put_split(table_of(d), buffer(d), 64, DESC_F_INDIRECT, 0);
	show_and_kick(d, 0);
	bench_expect(d->bench, "a table in a table",
		     RULE_SPLIT_INDIRECT_NESTED, ENDS);

	d = open_table(open_split(), 16);
	put_split(table_of(d), buffer(d), 64, 0, 0);
	d->desc[0].third |= DESC_F_NEXT;
	d->desc[0].fourth = 1;
	set_split(d, 1, 0, 0);
	show_and_kick(d, 0);
	bench_expect(d->bench, "INDIRECT and NEXT", RULE_SPLIT_INDIRECT_NEXT,
		     ENDS);

	d = open_table(open_split(), 9 * 16);
	for (int i = 0; i < 9; i++)
		put_split(&table_of(d)[i], buffer(d), 64,
			  i < 8 ? DESC_F_NEXT : 0, i + 1);
	show_and_kick(d, 0);
	test_result("the device reads a chain longer than the ring",
		    d->bench->held && d->bench->held->out_len == 9 * 64, "it is not");
	bench_expect(d->bench, "a chain longer than the ring",
		     RULE_CHAIN_LENGTH, ENDS);

	d = open_table(open_split(), 2 * 16);
	put_split(&table_of(d)[0], buffer(d), 64, DESC_F_NEXT, 1);
	put_split(&table_of(d)[1], buffer(d), 64, DESC_F_NEXT, 0);
	show_and_kick(d, 0);
	bench_expect(d->bench, "a loop in a table", RULE_SPLIT_LOOP, ENDS);

	d = open_table(open_split(), 2 * 16);
	put_split(&table_of(d)[0], buffer(d), 64, DESC_F_NEXT, 2);
	show_and_kick(d, 0);
	bench_expect(d->bench, "next is beyond an indirect table",
		     RULE_SPLIT_NEXT, ENDS);

	d = open_table(open_split(), 16);
	put_split(table_of(d), buffer(d), 64, 0x100, 0);
	show_and_kick(d, 0);
	bench_expect(d->bench, "an unknown flag in a table", RULE_SPLIT_FLAGS,
		     ENDS);

	/* 2.7.5.3.2 allows all this. */
	d = open_table(open_split(), 16);
	put_split(table_of(d), buffer(d), 64, DESC_F_WRITE, 0);
	d->desc[1] = d->desc[0];
	d->desc[1].third |= DESC_F_WRITE;
	set_split(d, 0, DESC_F_NEXT, 1);
	show_and_kick(d, 0);
	test_result("direct descriptors and then a table are one chain",
		    d->bench->held && d->bench->held->nr_out == 1 &&
		    d->bench->held->nr_in == 1, "the chain has other parts");
	bench_expect(d->bench, "and break no rule", ENDS);
}

/* The available ring, and kicks. */

static void test_avail_ring(void)
{
	struct driver *d = open_split();

	show_and_kick(d, RING);
	test_result("the device needs a reset after a head beyond the table",
		    d->bench->needs_resets == 1,
		    "DEVICE_NEEDS_RESET is not set once");
	bench_expect(d->bench, "a head beyond the table", RULE_SPLIT_HEAD,
		     ENDS);

	d = open_split();
	set_split(d, 0, 0, 0);
	show_and_kick(d, 0);
	d->driver_area[1] = 0;
	kick(d);
	bench_expect(d->bench, "idx goes back", RULE_SPLIT_IDX_BACK, ENDS);

	d = open_split();
	d->driver_area[1] = RING + 1;
	kick(d);
	bench_expect(d->bench, "idx is too far ahead", RULE_SPLIT_IDX_AHEAD,
		     ENDS);

	d = open_split();
	d->driver_area[0] = 2;
	kick(d);
	bench_expect(d->bench, "the available ring's flags are 2",
		     RULE_SPLIT_AVAIL_FLAGS, BESIDES, RULE_KICK_UNWANTED, ENDS);

	d = open_queue(BIT(F_EVENT_IDX));
	d->driver_area[0] = 1;
	set_split(d, 0, 0, 0);
	show_and_kick(d, 0);
	bench_expect(d->bench, "the available ring's flags with EVENT_IDX",
		     RULE_SPLIT_AVAIL_FLAGS_EVENT, ENDS);
}

static void test_kicks(void)
{
	struct driver *d = open_split();

	set_split(d, 0, 0, 0);
	show(d, 0);
	ring_check_idle(&d->bench->sim);
	ring_check_idle(&d->bench->sim);
	test_result("the device serves a buffer without a notification",
		    d->bench->held, "it is not");
	bench_expect(d->bench, "no notification", RULE_KICK_MISSING, ENDS);

	d = open_packed();
	set_packed(d, 0, DESC_F_AVAIL, 0);
	ring_check_idle(&d->bench->sim);
	ring_check_idle(&d->bench->sim);
	bench_expect(d->bench, "no notification of a packed ring",
		     RULE_PACKED_KICK_MISSING, ENDS);

	d = open_split();
	set_split(d, 0, 0, 0);
	show_and_kick(d, 0);
	kick(d);
	bench_expect(d->bench, "a notification of nothing", RULE_KICK_UNWANTED,
		     ENDS);

	d = open_queue(BIT(F_EVENT_IDX));
	set_split(d, 0, 0, 0);
	set_split(d, 1, 0, 0);
	show(d, 0);
	show(d, 1);
	kick(d);
	kick(d);
	kick(d);
	bench_expect(d->bench, "a notification that was not asked for",
		     RULE_KICK_UNWANTED, ENDS);
}

static void test_exposed(void)
{
	struct driver *d = open_split();

	set_split(d, 0, DESC_F_NEXT, 1);
	set_split(d, 1, 0, 0);
	show_and_kick(d, 0);
	d->desc[1].len = 1;
	complete_first(d->bench);
	bench_expect(d->bench, "a descriptor changes", RULE_EXPOSED_CHANGED,
		     ENDS);

	d = open_packed();
	set_packed(d, 1, DESC_F_AVAIL, 3);
	set_packed(d, 0, DESC_F_AVAIL | DESC_F_NEXT, 3);
	kick(d);
	d->desc[1].addr++;
	complete_first(d->bench);
	bench_expect(d->bench, "a packed ring's descriptor changes",
		     RULE_EXPOSED_CHANGED, ENDS);
}

/* Packed rings. */

static void test_packed_descs(void)
{
	struct driver *d = open_packed();

	set_packed(d, 0, DESC_F_AVAIL | 0x10, 0);
	kick(d);
	bench_expect(d->bench, "an unknown flag in a packed ring",
		     RULE_PACKED_FLAGS, ENDS);

	d = open_packed();
	set_packed(d, 1, 0, 0);
	set_packed(d, 0, DESC_F_AVAIL | DESC_F_NEXT, 0);
	kick(d);
	bench_expect(d->bench, "a list's second descriptor is not available",
		     RULE_PACKED_FIRST_LAST, ENDS);

	d = open_packed();
	for (int i = 0; i < RING; i++)
		set_packed(d, i, DESC_F_AVAIL | DESC_F_NEXT, 0);
	kick(d);
	bench_expect(d->bench, "a list without end", RULE_PACKED_LENGTH, ENDS);

	d = open_packed();
	for (int i = 0; i < RING; i++)
		set_packed(d, i, DESC_F_AVAIL, i);
	kick(d);
	set_packed(d, 0, DESC_F_USED, 0);
	kick(d);
	bench_expect(d->bench, "a descriptor that is not free",
		     RULE_PACKED_SPACE, ENDS);

	d = open_packed();
	set_packed(d, 1, DESC_F_AVAIL, 0);
	set_packed(d, 0, DESC_F_AVAIL | DESC_F_NEXT | DESC_F_WRITE, 0);
	kick(d);
	bench_expect(d->bench, "readable after writable in a packed ring",
		     RULE_PACKED_ORDER, ENDS);

	d = open_packed();
	set_packed(d, 0, DESC_F_AVAIL, 5);
	set_packed(d, 1, DESC_F_AVAIL, 5);
	kick(d);
	bench_expect(d->bench, "a buffer ID is there twice", RULE_PACKED_ID,
		     ENDS);

	/* The standard lets the driver choose any ID. */
	d = open_packed();
	set_packed(d, 0, DESC_F_AVAIL, 65535);
	kick(d);
	complete_first(d->bench);
	test_result("the device returns the buffer ID of the driver",
		    d->desc[0].third == 65535, "it is %u", d->desc[0].third);
	bench_expect(d->bench, "and that breaks no rule", ENDS);
}

static void test_packed_tables(void)
{
	static const uint32_t lengths[] = { 0, 8, 24 };
	struct driver *d;

	for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) {
		d = open_table(open_packed(), lengths[i]);
		kick(d);
		bench_expect(d->bench, "the length of a packed ring's table",
			     RULE_PACKED_INDIRECT_LENGTH, ENDS);
	}

	d = open_table(open_queue(BIT(F_RING_PACKED)), 16);
	put_packed(table_of(d), buffer(d), 64, 0, 0);
	kick(d);
	bench_expect(d->bench, "INDIRECT in a packed ring, not negotiated",
		     RULE_PACKED_INDIRECT_FEATURE, ENDS);

	d = open_table(open_packed(), 16);
	put_packed(table_of(d), buffer(d), 64, DESC_F_NEXT, 0);
	kick(d);
	bench_expect(d->bench, "NEXT in a packed ring's table",
		     RULE_PACKED_INDIRECT_FLAGS, ENDS);

	d = open_table(open_packed(), 16);
	put_packed(table_of(d), buffer(d), 64, 0, 0);
	set_packed(d, 1, DESC_F_AVAIL, 0);
	d->desc[0].fourth |= DESC_F_NEXT;
	kick(d);
	bench_expect(d->bench, "INDIRECT in a list", RULE_PACKED_INDIRECT_LIST,
		     ENDS);

	d = open_table(open_packed(), 9 * 16);
	for (int i = 0; i < 9; i++)
		put_packed(&table_of(d)[i], buffer(d), 64, 0, 0);
	kick(d);
	bench_expect(d->bench, "a packed ring's table is longer than the ring",
		     RULE_PACKED_LENGTH, ENDS);
}

static void test_packed_event(const char *name, uint64_t features,
			      uint16_t where, uint16_t mode, int rule)
{
	struct driver *d = open_queue(BIT(F_RING_PACKED) | features);

	d->driver_area[0] = where;
	d->driver_area[1] = mode;
	set_packed(d, 0, DESC_F_AVAIL, 0);
	kick(d);
	complete_first(d->bench);
	bench_expect(d->bench, name, rule, ENDS);
}

static void test_packed_events(void)
{
	test_packed_event("a reserved event mode", BIT(F_EVENT_IDX), 0, 3,
			  RULE_PACKED_EVENT);
	test_packed_event("reserved bits of event suppression", 0, 0, 4,
			  RULE_PACKED_EVENT);
	test_packed_event("an event for a descriptor without EVENT_IDX", 0, 0,
			  EVENT_DESC, RULE_PACKED_EVENT_FEATURE);
	test_packed_event("an event beyond the ring", BIT(F_EVENT_IDX), RING,
			  EVENT_DESC, RULE_PACKED_EVENT_FEATURE);
}

/* Drivers that break no rule. */

#define MAX_OUT		128
#define SLOT_BYTES	8192
#define CHAINS		20000U

struct traffic {
	struct driver *driver;
	bool indirect;
	uint64_t memory;
	struct part parts[MAX_OUT][MAX_PARTS];
	unsigned int nr[MAX_OUT];
	uint32_t written[MAX_OUT];
	bool busy[MAX_OUT];
	int slot_of[65536];
	unsigned int out;
	unsigned int done;
	const char *wrong;
};

static uint8_t pattern(uint64_t addr, bool write)
{
	return addr * 31 + (addr >> 8) + (write ? 7 : 0);
}

/* A buffer of random shape: readable parts, then writable ones. */
static void shape(struct traffic *t, unsigned int slot)
{
	unsigned int most = t->driver->where.size < 20 ?
			    t->driver->where.size : 20;
	unsigned int nr = 1 + pick(most), out = pick(nr + 1);
	uint64_t at = t->memory + slot * SLOT_BYTES;

	t->nr[slot] = nr;
	for (unsigned int i = 0; i < nr; i++) {
		struct part *part = &t->parts[slot][i];

		*part = (struct part) { at, 1 + pick(300), i >= out };
		for (uint32_t n = 0; n < part->len; n++)
			*(uint8_t *)bench_at(t->driver->bench, at + n) =
				part->write ? 0 : pattern(at + n, false);
		at += part->len + pick(20);
	}
}

static bool add_one(struct traffic *t)
{
	unsigned int slot;
	int id;

	for (slot = 0; slot < MAX_OUT && t->busy[slot]; slot++)
		;
	if (slot == MAX_OUT)
		return false;
	shape(t, slot);
	id = driver_add(t->driver, t->parts[slot], t->nr[slot],
			t->indirect && pick(4));
	if (id < 0)
		return false;
	t->busy[slot] = true;
	t->slot_of[id] = slot;
	t->out++;
	return true;
}

/* Check that a chain has the driver's data, in the same order. */
static void check_chain(struct traffic *t, struct chain *chain,
			unsigned int slot)
{
	size_t out = 0, in = 0;
	uint8_t byte;

	for (unsigned int i = 0; i < t->nr[slot]; i++) {
		struct part *part = &t->parts[slot][i];

		for (uint32_t n = 0; n < part->len; n++) {
			if (part->write) {
				byte = pattern(part->addr + n, true);
				if (chain_write(chain, in++, &byte, 1) != 1)
					t->wrong = "too little to write";
			} else if (chain_read(chain, out++, &byte, 1) != 1 ||
				   byte != pattern(part->addr + n, false)) {
				t->wrong = "not what the driver wrote";
			}
		}
	}
	if (out != chain->out_len || in != chain->in_len)
		t->wrong = "another length";
}

static void complete_any(struct traffic *t)
{
	struct bench *bench = t->driver->bench;
	struct chain **at = &bench->held, *chain;
	unsigned int slot;

	for (unsigned int skip = pick(t->out); skip && (*at)->next; skip--)
		at = &(*at)->next;
	chain = *at;
	*at = chain->next;
	slot = t->slot_of[chain->id];
	check_chain(t, chain, slot);
	t->written[slot] = chain->in_len;
	ring_complete(&bench->sim, chain, chain->in_len);
}

static void check_reaped(struct traffic *t, unsigned int slot, uint32_t written)
{
	if (written != t->written[slot])
		t->wrong = "another used length";
	for (unsigned int i = 0; i < t->nr[slot]; i++) {
		struct part *part = &t->parts[slot][i];

		for (uint32_t n = 0; part->write && n < part->len; n++)
			if (*(uint8_t *)bench_at(t->driver->bench,
						 part->addr + n) !=
			    pattern(part->addr + n, true))
				t->wrong = "not what the device wrote";
	}
}

static void reap_all(struct traffic *t)
{
	uint32_t written;
	int id;

	while ((id = driver_reap(t->driver, &written)) >= 0) {
		if (id > 0xffff) {
			t->wrong = "a used entry of no buffer";
			return;
		}
		check_reaped(t, t->slot_of[id], written);
		t->busy[t->slot_of[id]] = false;
		t->out--;
		t->done++;
	}
}

/* Add some buffers and reap some; check that interrupts come as requested. */
static void one_round(struct traffic *t)
{
	struct bench *bench = t->driver->bench;
	unsigned int adds = 1 + pick(6), back, before, came;

	while (adds-- && add_one(t))
		;
	driver_kick(t->driver);
	if (!t->out || t->wrong)
		return;
	driver_want_interrupt(t->driver);
	before = bench->interrupts[0];
	back = pick(t->out + 1);
	for (unsigned int i = 0; i < back && bench->held; i++)
		complete_any(t);
	came = bench->interrupts[0] - before;
	if (came != (t->driver->event_idx ? !!back : back))
		t->wrong = "another number of interrupts";
	reap_all(t);
}

static void finish_traffic(struct traffic *t)
{
	while (t->out && t->driver->bench->held && !t->wrong) {
		complete_any(t);
		reap_all(t);
	}
	if (t->out && !t->wrong)
		t->wrong = "a buffer does not arrive";
}

static void test_traffic(unsigned int size, uint64_t features, bool pieces)
{
	static struct traffic traffic;
	struct traffic *t = &traffic;
	struct bench *bench;
	char setting[32], name[128];

	snprintf(setting, sizeof(setting), "--ring_size=%u", size);
	snprintf(name, sizeof(name), "%s ring of %u%s%s, %u chains%s",
		 features & BIT(F_RING_PACKED) ? "packed" : "split", size,
		 features & BIT(F_INDIRECT_DESC) ? ", indirect" : "",
		 features & BIT(F_EVENT_IDX) ? ", event index" : "", CHAINS,
		 pieces ? " in pieces" : "");
	bench = bench_open(setting, features & BIT(F_RING_PACKED) ?
			   "--features=default,+packed" : "--features=default",
			   NULL);
	bench->hold = true;
	memset(t, 0, sizeof(*t));
	if (!bench_start(bench, PLAIN | features))
		t->wrong = "it does not start";
	t->driver = &bench->driver[0];
	t->indirect = features & BIT(F_INDIRECT_DESC);
	t->memory = pieces ? bench_alloc_pieces(bench, MAX_OUT * SLOT_BYTES) :
			     bench_alloc(bench, MAX_OUT * SLOT_BYTES, 16);
	while (t->done < CHAINS && !t->wrong)
		one_round(t);
	finish_traffic(t);
	if (t->wrong)
		test_result(name, false, "%s after %u chains", t->wrong,
			    t->done);
	bench_expect(bench, name, ENDS);
}

static void test_good_drivers(void)
{
	static const unsigned int sizes[] = { 1, 2, 8, 128 };

	for (unsigned int bits = 0; bits < 8; bits++) {
		uint64_t features = (bits & 1 ? BIT(F_INDIRECT_DESC) : 0) |
				    (bits & 2 ? BIT(F_EVENT_IDX) : 0) |
				    (bits & 4 ? BIT(F_RING_PACKED) : 0);

		for (size_t i = 0; i < ARRAY_SIZE(sizes); i++)
			test_traffic(sizes[i], features, i % 2);
		if (bits & 4)
			test_traffic(7, features, true);
	}
}

/* Other functions of ring.c. */

static void stop_loop(struct sim *sim, void *arg)
{
	(void)sim;
	(void)arg;
	loop_stop();
}

static void test_many_at_once(void)
{
	struct bench *bench = bench_open("--ring_size=4096", NULL);
	struct part part = { MEMORY_START, 16, false };
	unsigned int came = 0;

	bench->hold = true;
	bench_start(bench, PLAIN);
	for (int i = 0; i < 4096; i++)
		driver_add(&bench->driver[0], &part, 1, false);
	driver_kick(&bench->driver[0]);
	loop_after(500000000, stop_loop, NULL);
	loop_run(&bench->sim);
	for (struct chain *chain = bench->held; chain; chain = chain->next)
		came++;
	test_result("the device serves 4096 chains after one notification",
		    came == 4096, "it returns %u", came);
	bench_expect(bench, "and break no rule", ENDS);
}

static void test_lost(void)
{
	struct driver *d = open_split();
	struct bench *bench = d->bench;
	struct chain *chain;
	struct part part = { MEMORY_START, 16, true };
	uint32_t written = 1;
	int id, back;

	id = driver_add(d, &part, 1, false);
	driver_kick(d);
	chain_free(bench->held);
	bench->held = NULL;
	back = driver_reap(d, &written);
	test_result("the device does not return a freed chain", back < 0,
		    "%d is used", back);
	ring_return_lost(&bench->sim);
	back = driver_reap(d, &written);
	test_result("return_lost returns a lost chain without data",
		    back == id && !written, "%d with %u bytes", back, written);

	driver_add(d, &part, 1, false);
	driver_kick(d);
	chain = bench->held;
	bench->held = NULL;
	bench_start(bench, PLAIN);
	ring_complete(&bench->sim, chain, 0);
	test_result("the device does not return a chain from before a reset",
		    driver_reap(d, &written) < 0, "it returns one");
	bench_expect(bench,
		     "chains that are freed, lost or reset break no rule", ENDS);
}

/* The device survives any contents of a ring. */
static void test_garbage(void)
{
	for (int round = 0; round < 4000; round++) {
		uint64_t features = (round & 1 ? BIT(F_RING_PACKED) : 0) |
				    (round & 2 ? BIT(F_EVENT_IDX) : 0) |
				    (round & 4 ? BIT(F_INDIRECT_DESC) : 0);
		struct driver *d = open_queue(features);

		d->bench->hold = false;
		for (int step = 0; step < 30; step++) {
			struct test_desc *desc = &d->desc[pick(RING)];
			uint16_t flags = pick(2) ? pick(8) : pick(65536);

			if (features & BIT(F_RING_PACKED))
				flags |= pick(2) ? DESC_F_AVAIL : DESC_F_USED;
			desc->addr = pick(4) ? MEMORY_START + pick(1 << 24) :
				     pick(-1u) * 5000000000ull;
			desc->len = pick(4) ? pick(64) * 16 : pick(-1u);
			desc->third = d->packed ? pick(RING) : flags;
			desc->fourth = d->packed ? flags : pick(RING + 1);
			if (!d->packed && pick(2))
				show(d, pick(RING + pick(2)));
			if (!pick(5))
				d->driver_area[pick(4)] = pick(65536);
			kick(d);
		}
		ring_check_idle(&d->bench->sim);
		bench_close(d->bench);
	}
	test_result("the device survives 4000 rings of garbage", true,
		    "it does not");
}

static void test_requests(uint64_t features, const char *name)
{
	struct bench *bench = bench_open("--ring_size=16",
					 "--features=default,+packed", NULL);
	static uint8_t out[4096], in[4096];
	int status = 0;

	bench_start(bench, PLAIN | BIT(F_RING_PACKED) | features);
	for (int i = 0; i < 3000 && !status; i++) {
		uint64_t sector = pick(1000) * 8;

		for (size_t n = 0; n < sizeof(out); n++)
			out[n] = pick(256);
		status = bench_request(bench, BLK_T_OUT, sector, out,
				       sizeof(out), 0);
		if (!status)
			status = bench_request(bench, BLK_T_IN, sector, in, 0,
					       sizeof(in));
		if (!status && memcmp(in, out, sizeof(in)))
			status = 0x200;
	}
	test_result(name, !status, "status %#x", status);
	bench_expect(bench, "and break no rule", ENDS);
}

void selftest_ring(void)
{
	test_status();
	test_driver_ok();
	test_features();
	test_start();
	test_split_descs();
	test_buffer_memory();
	test_split_tables();
	test_avail_ring();
	test_kicks();
	test_exposed();
	test_packed_descs();
	test_packed_tables();
	test_packed_events();
	test_good_drivers();
	test_many_at_once();
	test_lost();
	test_garbage();
	test_requests(0, "3000 writes and reads");
	test_requests(BIT(F_EVENT_IDX), "3000 more with event index");
}
