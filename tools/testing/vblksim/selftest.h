/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A driver that can break every rule, on a device without a guest.
 *
 * A bench is a device whose front has rings in this process's memory.  A test
 * case opens one, does what a driver does, by hand or with the well-behaved
 * helpers below, and closes it, telling which rules must have been broken: no
 * other may have been.  At the end each rule of the table has to have been
 * broken somewhere.
 */
#ifndef VBLKSIM_SELFTEST_H
#define VBLKSIM_SELFTEST_H

#include "vblksim.h"
#include "virtio.h"

/* Addresses of the bench's memory: below MEMORY_START and from MEMORY_END on
 * there is nothing.  Mappings from MEMORY_PIECES on are in pieces. */
#define MEMORY_START	0x100000ull
#define MEMORY_PIECES	0x800000ull
#define MEMORY_END	0x1000000ull
#define PIECE_BYTES	0x1000ull

/* The most that one driver's buffer has in parts. */
#define MAX_PARTS	64

struct bench;

/* A descriptor in memory: .third and .fourth are flags and next in a split
 * ring, ID and flags in a packed one. */
struct test_desc {
	uint64_t addr;
	uint32_t len;
	uint16_t third;
	uint16_t fourth;
};

/**
 * struct part - a piece of a buffer, as a driver has it
 * @addr: its address, for the device
 * @len: its length
 * @write: the device writes it
 */
struct part {
	uint64_t addr;
	uint32_t len;
	bool write;
};

/**
 * struct driver - the driver's side of a queue
 * @bench: where it is
 * @queue: its number
 * @where: size and addresses
 * @packed: its format
 * @event_idx: the driver has accepted EVENT_IDX
 * @desc: the descriptors
 * @driver_area: available ring or driver event suppression
 * @device_area: used ring or device event suppression
 * @idx: split: available buffers; packed: position in the ring
 * @wrap: packed: the driver's wrap counter
 * @kicked: @idx, and @kicked_wrap @wrap, when last notified
 * @used: split: used entries seen; packed: position in the ring
 * @used_wrap: packed: the wrap counter of what is to be used next
 * @free: descriptors that are free; split: a list of them
 * @nr_free: how many
 * @id_descs: how many descriptors each head or ID has, 0 if it is free
 * @table: address of an indirect table for each head or ID
 */
struct driver {
	struct bench *bench;
	unsigned int queue;
	struct queue_addresses where;
	bool packed;
	bool event_idx;
	struct test_desc *desc;
	uint16_t *driver_area;
	uint16_t *device_area;
	uint16_t idx;
	bool wrap;
	uint16_t kicked;
	bool kicked_wrap;
	uint16_t used;
	bool used_wrap;
	uint16_t *free;
	unsigned int nr_free;
	uint16_t *id_descs;
	uint64_t *table;
};

/**
 * struct bench - a device, its memory and its driver
 * @sim: the device
 * @front: its front
 * @memory: from MEMORY_START to MEMORY_END
 * @next: where bench_alloc() goes on
 * @next_piece: where bench_alloc_pieces() goes on
 * @features: what the driver has written as features
 * @interrupts: how many each queue has sent
 * @config_changes: how many there were
 * @needs_resets: how often the device has set DEVICE_NEEDS_RESET
 * @hold: keep chains in @held, and do not let request.c have them
 * @held: chains that have arrived, the first being the oldest
 * @driver: of each queue that bench_start() has set up
 */
struct bench {
	struct sim sim;
	struct front front;
	uint8_t *memory;
	uint64_t next;
	uint64_t next_piece;
	uint64_t features;
	unsigned int interrupts[MAX_QUEUES];
	unsigned int config_changes;
	unsigned int needs_resets;
	bool hold;
	struct chain *held;
	struct driver driver[MAX_QUEUES];
};

/* A device by settings as on the command line, up to NULL.  It is new: the
 * driver has not even reset it. */
struct bench *bench_open(const char *setting, ...) __attribute__((sentinel));
/* Negotiate, by the rules, exactly these features of those offered, and set up
 * all queues there are then; ends with DRIVER_OK. */
bool bench_start(struct bench *bench, uint64_t features);
/* The same without MQ, thus with one queue, and all else the device offers. */
struct driver *bench_start_all(struct bench *bench);
/* Steps of that. */
void bench_reset(struct bench *bench);
bool bench_negotiate(struct bench *bench, uint64_t features);
bool bench_add_queue(struct bench *bench, unsigned int queue,
		     unsigned int size);
void bench_run(struct bench *bench);

/* Memory, zeroed, for as long as the bench is there: its address for the
 * device. */
uint64_t bench_alloc(struct bench *bench, uint64_t len, uint64_t align);
/* The same where a mapping is in pieces. */
uint64_t bench_alloc_pieces(struct bench *bench, uint64_t len);
/* Where it is here. */
void *bench_at(struct bench *bench, uint64_t addr);

/* A well-behaved driver.  driver_add() makes a buffer available, in one
 * indirect descriptor if asked for, and tells its head or ID, or -1 if there is
 * no room.  driver_kick() notifies the device if that wants it.  driver_reap()
 * takes one used buffer: its head or ID and used length, or -1. */
int driver_add(struct driver *driver, const struct part *parts, unsigned int nr,
	       bool indirect);
bool driver_kick(struct driver *driver);
int driver_reap(struct driver *driver, uint32_t *written);
/* Ask to be interrupted at the next used buffer. */
void driver_want_interrupt(struct driver *driver);

/*
 * A block request of a well-behaved driver, done and reaped: a header, then
 * parts with @out bytes that go to the device from @data, and @in bytes that
 * come from it to @data, then the status, which it tells; 0x100 if the request
 * was not answered.
 */
int bench_request(struct bench *bench, uint32_t type, uint64_t sector,
		  void *data, uint32_t out, uint32_t in);

/* Close a bench and check: these rules were broken, up to -1, and no other.
 * Those after BESIDES may have been or not. */
#define BESIDES		-2
void bench_expect(struct bench *bench, const char *name, ...);
/* Close a bench of which nothing is expected. */
void bench_close(struct bench *bench);
/* One more case, that has no bench or something more to say. */
void test_result(const char *name, bool good, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* The cases of each part. */
void selftest_ring(void);
void selftest_fuzz(void);
void selftest_block(void) __attribute__((weak));

#endif /* VBLKSIM_SELFTEST_H */
