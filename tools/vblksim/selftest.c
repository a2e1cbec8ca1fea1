// SPDX-License-Identifier: GPL-2.0
/*
 * The bench for drivers that break rules, a driver that breaks none, and the
 * results of all cases.
 */

#define _GNU_SOURCE
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "selftest.h"

#define MEMORY_BYTES	(MEMORY_END - MEMORY_START)

static unsigned int passed, failed;
/* Rules that some case broke as expected, and rules that some case kept. */
static bool fired[NR_RULES], kept[NR_RULES];

/* The bench whose device receives requests. */
static struct bench *current;

void __real_request_arrive(struct sim *sim, struct chain *chain);
void __wrap_request_arrive(struct sim *sim, struct chain *chain);

/* The linker calls this instead of request.c's function. */
void __wrap_request_arrive(struct sim *sim, struct chain *chain)
{
	struct chain **at = &current->held;

	if (!current->hold) {
		__real_request_arrive(sim, chain);
		return;
	}
	while (*at)
		at = &(*at)->next;
	*at = chain;
}

/* There is no VDUSE here, and the control socket is not tested. */
static struct bench *bench_of(struct sim *sim)
{
	return (struct bench *)sim;
}

_Static_assert(!offsetof(struct bench, sim), "bench_of() relies on it");

void *bench_at(struct bench *bench, uint64_t addr)
{
	return bench->memory + (addr - MEMORY_START);
}

static void *map(struct sim *sim, uint64_t addr, uint64_t len, bool write,
		 uint64_t *run)
{
	struct bench *bench = bench_of(sim);

	(void)write;
	if (!len || addr < MEMORY_START || addr >= MEMORY_END ||
	    len > MEMORY_END - addr)
		return NULL;
	*run = len;
	if (addr >= MEMORY_PIECES && PIECE_BYTES - addr % PIECE_BYTES < len)
		*run = PIECE_BYTES - addr % PIECE_BYTES;
	return bench_at(bench, addr);
}

static void interrupt(struct sim *sim, unsigned int queue)
{
	bench_of(sim)->interrupts[queue]++;
}

static void config_changed(struct sim *sim)
{
	bench_of(sim)->config_changes++;
}

static uint64_t features(struct sim *sim)
{
	return bench_of(sim)->features;
}

static bool needs_reset(struct sim *sim)
{
	bench_of(sim)->needs_resets++;
	return true;
}

static void open_sim(struct sim *sim)
{
	char why[256];

	sim->watch.quiet = true;
	sim->script = script_new();
	for (unsigned int i = 0; i < sim->set.nr_scripts; i++)
		if (script_add(sim->script, sim->set.scripts[i], why,
			       sizeof(why))) {
			fprintf(stderr, "script \"%s\": %s\n",
				sim->set.scripts[i], why);
			exit(1);
		}
	sim->store = store_open(sim->set.file,
				le64toh(sim->set.config.capacity));
	if (sim->set.features >> BLK_F_ZONED & 1 &&
	    (sim->set.config.model == BLK_Z_HM ||
	     sim->set.config.model == BLK_Z_HA))
		sim->zones = zones_new(&sim->set);
	if (!sim->script || !sim->store || ring_init(sim)) {
		fprintf(stderr, "cannot open a bench\n");
		exit(1);
	}
}

struct bench *bench_open(const char *setting, ...)
{
	struct bench *bench = calloc(1, sizeof(*bench));
	char *argv[32] = { "selftest" };
	int argc = 1;
	va_list args;

	va_start(args, setting);
	for (; setting && argc < 31; setting = va_arg(args, const char *))
		argv[argc++] = (char *)setting;
	va_end(args);
	settings_init(&bench->sim.set);
	if (settings_parse(&bench->sim.set, argc, argv) >= 0)
		exit(1);
	bench->memory = calloc(1, MEMORY_BYTES);
	bench->next = MEMORY_START;
	bench->next_piece = MEMORY_PIECES;
	bench->front = (struct front) {
		.map = map,
		.interrupt = interrupt,
		.config_changed = config_changed,
		.features = features,
		.needs_reset = needs_reset,
	};
	bench->sim.front = &bench->front;
	open_sim(&bench->sim);
	current = bench;
	return bench;
}

void bench_close(struct bench *bench)
{
	while (bench->held) {
		struct chain *chain = bench->held;

		bench->held = chain->next;
		chain_free(chain);
	}
	bench_reset(bench);
	ring_free(&bench->sim);
	zones_free(bench->sim.zones);
	store_close(bench->sim.store);
	script_free(bench->sim.script);
	watch_free(&bench->sim.watch);
	for (unsigned int i = 0; i < MAX_QUEUES; i++) {
		free(bench->driver[i].free);
		free(bench->driver[i].id_descs);
		free(bench->driver[i].table);
	}
	free(bench->memory);
	free(bench);
	current = NULL;
}

static uint64_t alloc(uint64_t *next, uint64_t end, uint64_t len,
		      uint64_t align)
{
	uint64_t at = (*next + align - 1) / align * align;

	if (at + len > end) {
		fprintf(stderr, "a test needs more memory than a bench has\n");
		exit(1);
	}
	*next = at + len;
	return at;
}

uint64_t bench_alloc(struct bench *bench, uint64_t len, uint64_t align)
{
	return alloc(&bench->next, MEMORY_PIECES, len, align);
}

uint64_t bench_alloc_pieces(struct bench *bench, uint64_t len)
{
	return alloc(&bench->next_piece, MEMORY_END, len, 16);
}

/* Initialization by a driver. */

void bench_reset(struct bench *bench)
{
	status_written(&bench->sim, 0);
}

bool bench_negotiate(struct bench *bench, uint64_t accepted)
{
	struct sim *sim = &bench->sim;

	status_written(sim, STATUS_ACKNOWLEDGE);
	status_written(sim, STATUS_ACKNOWLEDGE | STATUS_DRIVER);
	bench->features = accepted;
	return status_written(sim, STATUS_ACKNOWLEDGE | STATUS_DRIVER |
			      STATUS_FEATURES_OK);
}

static void set_up_driver(struct driver *driver, struct bench *bench,
			  unsigned int queue, unsigned int size)
{
	*driver = (struct driver) {
		.bench = bench,
		.queue = queue,
		.packed = bench->features >> F_RING_PACKED & 1,
		.event_idx = bench->features >> F_EVENT_IDX & 1,
		.wrap = true,
		.kicked_wrap = true,
		.used_wrap = true,
		.nr_free = size,
		.free = calloc(size, sizeof(*driver->free)),
		.id_descs = calloc(size, sizeof(*driver->id_descs)),
		.table = calloc(size, sizeof(*driver->table)),
	};
	driver->where = (struct queue_addresses) {
		.size = size,
		.desc = bench_alloc(bench, 16 * size, 16),
		.driver = bench_alloc(bench, 6 + 2 * size, 4),
		.device = bench_alloc(bench, 6 + 8 * size, 4),
		.avail_wrap = driver->packed,
	};
	driver->desc = bench_at(bench, driver->where.desc);
	driver->driver_area = bench_at(bench, driver->where.driver);
	driver->device_area = bench_at(bench, driver->where.device);
	for (unsigned int i = 0; i < size; i++) {
		driver->free[i] = size - 1 - i;
		driver->table[i] = bench_alloc(bench, 16 * MAX_PARTS, 16);
	}
}

bool bench_add_queue(struct bench *bench, unsigned int queue, unsigned int size)
{
	struct driver *driver = &bench->driver[queue];

	free(driver->free);
	free(driver->id_descs);
	free(driver->table);
	set_up_driver(driver, bench, queue, size);
	return !ring_start(&bench->sim, queue, &driver->where);
}

void bench_run(struct bench *bench)
{
	status_written(&bench->sim, bench->sim.status | STATUS_DRIVER_OK);
	for (unsigned int i = 0; i < bench->sim.set.queues; i++)
		ring_kicked(&bench->sim, i, 0);
}

bool bench_start(struct bench *bench, uint64_t accepted)
{
	unsigned int queues = accepted >> BLK_F_MQ & 1 ?
			      le16toh(bench->sim.set.config.num_queues) : 1;

	bench_reset(bench);
	if (!bench_negotiate(bench, accepted))
		return false;
	for (unsigned int i = 0; i < queues; i++)
		if (!bench_add_queue(bench, i, bench->sim.set.ring_size))
			return false;
	bench_run(bench);
	return true;
}

struct driver *bench_start_all(struct bench *bench)
{
	uint64_t accepted = bench->sim.set.features & ~(1ull << BLK_F_MQ);

	/* 5.2.5.1: without DISCARD if the device is host-managed. */
	if (bench->sim.zones && bench->sim.set.config.model == BLK_Z_HM)
		accepted &= ~(1ull << BLK_F_DISCARD);
	if (!bench_start(bench, accepted)) {
		fprintf(stderr, "a bench does not start\n");
		exit(1);
	}
	return &bench->driver[0];
}

/* The driver's side of a ring. */

static void barrier(void)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

static void fill_desc(struct driver *driver, struct test_desc *desc,
		      const struct part *part, uint16_t flags, uint16_t other)
{
	desc->addr = htole64(part->addr);
	desc->len = htole32(part->len);
	desc->third = htole16(driver->packed ? other : flags);
	desc->fourth = htole16(driver->packed ? flags : other);
}

/* Put the parts into a buffer's indirect table; return the table as a part. */
static struct part fill_table(struct driver *driver, int id,
			      const struct part *parts, unsigned int nr)
{
	struct part whole = {
		.addr = driver->table[id],
		.len = nr * 16,
	};
	struct test_desc *table = bench_at(driver->bench, whole.addr);
	uint16_t flags;

	for (unsigned int i = 0; i < nr; i++) {
		flags = parts[i].write ? DESC_F_WRITE : 0;
		if (!driver->packed && i + 1 < nr)
			flags |= DESC_F_NEXT;
		fill_desc(driver, &table[i], &parts[i], flags,
			  driver->packed ? 0 : i + 1);
	}
	return whole;
}

static int add_split(struct driver *driver, const struct part *parts,
		     unsigned int nr, uint16_t extra)
{
	uint16_t head = driver->free[driver->nr_free - 1], i, flags;

	for (unsigned int n = 0; n < nr; n++) {
		i = driver->free[--driver->nr_free];
		flags = extra | (parts[n].write ? DESC_F_WRITE : 0);
		if (n + 1 < nr)
			flags |= DESC_F_NEXT;
		fill_desc(driver, &driver->desc[i], &parts[n], flags,
			  n + 1 < nr ? driver->free[driver->nr_free - 1] : 0);
	}
	driver->driver_area[2 + driver->idx % driver->where.size] =
		htole16(head);
	barrier();
	driver->idx++;
	driver->driver_area[1] = htole16(driver->idx);
	return head;
}

static int add_packed(struct driver *driver, int id, const struct part *parts,
		      unsigned int nr, uint16_t extra)
{
	uint16_t first_flags = 0, flags, first = driver->idx;

	for (unsigned int n = 0; n < nr; n++) {
		flags = extra | (parts[n].write ? DESC_F_WRITE : 0) |
			(driver->wrap ? DESC_F_AVAIL : DESC_F_USED);
		if (n + 1 < nr)
			flags |= DESC_F_NEXT;
		/* Make the first descriptor available last. */
		if (!n) {
			first_flags = flags;
			flags = le16toh(driver->desc[first].fourth);
		}
		fill_desc(driver, &driver->desc[driver->idx], &parts[n], flags,
			  id);
		if (++driver->idx == driver->where.size) {
			driver->idx = 0;
			driver->wrap = !driver->wrap;
		}
	}
	barrier();
	driver->desc[first].fourth = htole16(first_flags);
	driver->nr_free -= nr;
	return id;
}

static int find_id(const struct driver *driver)
{
	for (int id = 0; id < driver->where.size; id++)
		if (!driver->id_descs[id])
			return id;
	return -1;
}

int driver_add(struct driver *driver, const struct part *parts, unsigned int nr,
	       bool indirect)
{
	unsigned int descs = indirect ? 1 : nr;
	uint16_t extra = indirect ? DESC_F_INDIRECT : 0;
	struct part whole;
	int id;

	if (descs > driver->nr_free)
		return -1;
	id = driver->packed ? find_id(driver) :
			      driver->free[driver->nr_free - 1];
	if (indirect) {
		whole = fill_table(driver, id, parts, nr);
		parts = &whole;
	}
	if (driver->packed)
		add_packed(driver, id, parts, descs, extra);
	else
		add_split(driver, parts, descs, extra);
	driver->id_descs[id] = descs;
	return id;
}

/* Has the device asked for a kick for the new buffers? */
static bool is_wanted(struct driver *driver)
{
	uint16_t *area = driver->device_area, size = driver->where.size;
	uint16_t mode, where;
	uint32_t new, event, descs;

	if (!driver->packed && !driver->event_idx)
		return !(le16toh(area[0]) & 1);
	if (!driver->packed) {
		where = le16toh(area[2 + 4 * size]);
		return (uint16_t)(driver->idx - where - 1) <
		       (uint16_t)(driver->idx - driver->kicked);
	}
	mode = le16toh(area[1]) & 3;
	where = le16toh(area[0]);
	if (mode != EVENT_DESC)
		return mode == EVENT_ENABLE;
	descs = driver->idx - driver->kicked +
		(driver->wrap != driver->kicked_wrap ? size : 0);
	/* Positions in the ring in the previous round and in this one. */
	new = driver->idx + size;
	event = (where & ~EVENT_WRAP) +
		(!!(where & EVENT_WRAP) == driver->wrap ? size : 0);
	return new - event - 1 < descs;
}

bool driver_kick(struct driver *driver)
{
	bool wanted;

	barrier();
	wanted = (driver->idx != driver->kicked ||
		  driver->wrap != driver->kicked_wrap) && is_wanted(driver);
	driver->kicked = driver->idx;
	driver->kicked_wrap = driver->wrap;
	if (wanted)
		ring_kicked(&driver->bench->sim, driver->queue, 1);
	return wanted;
}

static int reap_split(struct driver *driver, uint32_t *written)
{
	uint32_t *entry = (uint32_t *)(driver->device_area + 2) +
			  2 * (driver->used % driver->where.size);
	uint32_t id;
	uint16_t i;

	if (le16toh(driver->device_area[1]) == driver->used)
		return -1;
	driver->used++;
	id = le32toh(entry[0]);
	*written = le32toh(entry[1]);
	if (id >= driver->where.size || !driver->id_descs[id])
		return id + 0x10000;
	i = id;
	for (unsigned int n = driver->id_descs[id]; n; n--) {
		driver->free[driver->nr_free++] = i;
		i = le16toh(driver->desc[i].fourth);
	}
	driver->id_descs[id] = 0;
	return id;
}

static int reap_packed(struct driver *driver, uint32_t *written)
{
	struct test_desc *desc = &driver->desc[driver->used];
	uint16_t flags = le16toh(desc->fourth), id;

	if (!!(flags & DESC_F_AVAIL) != driver->used_wrap ||
	    !!(flags & DESC_F_USED) != driver->used_wrap)
		return -1;
	id = le16toh(desc->third);
	*written = le32toh(desc->len);
	if (id >= driver->where.size || !driver->id_descs[id])
		return id + 0x10000;
	driver->nr_free += driver->id_descs[id];
	driver->used += driver->id_descs[id];
	if (driver->used >= driver->where.size) {
		driver->used -= driver->where.size;
		driver->used_wrap = !driver->used_wrap;
	}
	driver->id_descs[id] = 0;
	return id;
}

int driver_reap(struct driver *driver, uint32_t *written)
{
	barrier();
	return driver->packed ? reap_packed(driver, written) :
				reap_split(driver, written);
}

void driver_want_interrupt(struct driver *driver)
{
	uint16_t *area = driver->driver_area;

	if (!driver->event_idx) {
		area[driver->packed ? 1 : 0] = 0;
	} else if (driver->packed) {
		area[0] = htole16(driver->used |
				  (driver->used_wrap ? EVENT_WRAP : 0));
		area[1] = htole16(EVENT_DESC);
	} else {
		area[2 + driver->where.size] = htole16(driver->used);
	}
	barrier();
}

int bench_request(struct bench *bench, uint32_t type, uint64_t sector,
		  void *data, uint32_t out, uint32_t in)
{
	struct driver *driver = &bench->driver[0];
	uint64_t next = bench->next;
	struct blk_header header = {
		.type = htole32(type),
		.sector = htole64(sector),
	};
	struct part parts[4];
	unsigned int nr = 0;
	uint64_t at = bench_alloc(bench, 16 + (uint64_t)out + in + 1, 16);
	uint32_t written;
	uint8_t status;
	int id;

	memcpy(bench_at(bench, at), &header, sizeof(header));
	if (out)
		memcpy(bench_at(bench, at + 16), data, out);
	*(uint8_t *)bench_at(bench, at + 16 + out + in) = 0xff;
	parts[nr++] = (struct part) { at, 16, false };
	if (out)
		parts[nr++] = (struct part) { at + 16, out, false };
	if (in)
		parts[nr++] = (struct part) { at + 16 + out, in, true };
	parts[nr++] = (struct part) { at + 16 + out + in, 1, true };
	id = driver_add(driver, parts, nr, false);
	driver_kick(driver);
	if (id < 0 || driver_reap(driver, &written) != id)
		return 0x100;
	if (in)
		memcpy(data, bench_at(bench, at + 16 + out), in);
	status = *(uint8_t *)bench_at(bench, at + 16 + out + in);
	memset(bench_at(bench, at), 0, bench->next - at);
	bench->next = next;
	return status;
}

/* The results. */

void test_result(const char *name, bool good, const char *fmt, ...)
{
	va_list args;

	printf("%s %s", good ? "ok    " : "FAILED", name);
	if (!good) {
		printf(": ");
		va_start(args, fmt);
		vprintf(fmt, args);
		va_end(args);
	}
	printf("\n");
	if (good)
		passed++;
	else
		failed++;
}

static void note(char *text, size_t size, const char *what, int rule,
		 const struct watch *watch)
{
	size_t len = strlen(text);
	const char *first = watch->first[rule];

	snprintf(text + len, size - len, "%s%s %s%s%s%s", len ? "; " : "", what,
		 rule_texts[rule].name, first ? " (" : "", first ? first : "",
		 first ? ")" : "");
}

void bench_expect(struct bench *bench, const char *name, ...)
{
	enum { NOT, MAYBE, YES } expected[NR_RULES] = {};
	const struct watch *watch = &bench->sim.watch;
	bool besides = false;
	char wrong[2048] = "";
	va_list args;
	int rule;

	va_start(args, name);
	while ((rule = va_arg(args, int)) != -1) {
		if (rule == BESIDES)
			besides = true;
		else
			expected[rule] = besides ? MAYBE : YES;
	}
	va_end(args);
	for (rule = 0; rule < NR_RULES; rule++) {
		if (watch->checked[rule] > watch->broken[rule])
			kept[rule] = true;
		if (expected[rule] == YES && watch->broken[rule])
			fired[rule] = true;
		else if (expected[rule] == YES)
			note(wrong, sizeof(wrong),
			       "not reported:", rule, watch);
		else if (expected[rule] == NOT && watch->broken[rule])
			note(wrong, sizeof(wrong),
			       "reported, but not expected:", rule, watch);
	}
	test_result(name, !*wrong, "%s", wrong);
	bench_close(bench);
}

/* Each rule must have been broken, and kept. */
static void check_rules(void)
{
	for (int rule = 0; rule < NR_RULES; rule++) {
		if (!fired[rule])
			test_result(rule_texts[rule].name, false,
				    "no case breaks it");
		if (!kept[rule])
			test_result(rule_texts[rule].name, false,
				    "no case keeps it");
	}
}

int main(void)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	selftest_ring();
	if (selftest_block)
		selftest_block();
	selftest_fuzz();
	check_rules();
	printf("%u passed, %u failed\n", passed, failed);
	return failed ? 1 : 0;
}
