/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A driver that can break every rule, on a device without a guest.
 *
 * A bench is a device whose front has rings in this process's memory.  A test
 * case opens a bench, acts as a driver, by hand or with the well-behaved helpers
 * below, and closes it with the list of rules that must be broken.  No other rule
 * may be broken.  At the end some case must have broken each rule of the table.
 */
#ifndef VBLKSIM_SELFTEST_H
#define VBLKSIM_SELFTEST_H

#include "vblksim.h"
#include "virtio.h"

/* Addresses of the bench's memory: there is none below MEMORY_START and from
 * MEMORY_END on.  Mappings from MEMORY_PIECES on are in pieces. */
#define MEMORY_START	0x100000ull
#define MEMORY_PIECES	0x800000ull
#define MEMORY_END	0x1000000ull
#define PIECE_BYTES	0x1000ull

/* The largest number of parts of a driver's buffer. */
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
 * struct part - a piece of a driver's buffer
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
 * @bench: its bench
 * @queue: its number
 * @where: size and addresses
 * @packed: its format
 * @event_idx: the driver has accepted EVENT_IDX
 * @desc: the descriptors
 * @driver_area: available ring or driver event suppression
 * @device_area: used ring or device event suppression
 * @idx: split: available buffers; packed: position in the ring
 * @wrap: packed: the driver's wrap counter
 * @kicked: @idx, and @kicked_wrap @wrap, at the last kick
 * @used: split: number of reaped entries; packed: position in the ring
 * @used_wrap: packed: the wrap counter of the next used descriptor
 * @free: free descriptors; split: a list of them
 * @nr_free: their number
 * @id_descs: number of descriptors of each head or ID, 0 if it is free
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
 * @next: next address of bench_alloc()
 * @next_piece: next address of bench_alloc_pieces()
 * @features: the features that the driver has written
 * @interrupts: number of interrupts of each queue
 * @config_changes: number of configuration change interrupts
 * @needs_resets: how often the device has set DEVICE_NEEDS_RESET
 * @hold: keep chains in @held instead of passing them to request.c
 * @held: received chains, the oldest first
 * @driver: the driver of each queue that bench_start() has set up
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

/* Open a device with settings as on the command line, up to NULL.  The driver
 * has not reset it yet. */
struct bench *bench_open(const char *setting, ...) __attribute__((sentinel));
/* Negotiate exactly these of the offered features by the rules, set up all
 * queues, and set DRIVER_OK. */
bool bench_start(struct bench *bench, uint64_t features);
/* The same with all offered features except MQ, and so with one queue. */
struct driver *bench_start_all(struct bench *bench);
/* The steps of bench_start(). */
void bench_reset(struct bench *bench);
bool bench_negotiate(struct bench *bench, uint64_t features);
bool bench_add_queue(struct bench *bench, unsigned int queue,
		     unsigned int size);
void bench_run(struct bench *bench);

/* Allocate zeroed memory until the bench is closed; return its address for the
 * device. */
uint64_t bench_alloc(struct bench *bench, uint64_t len, uint64_t align);
/* The same with a mapping in pieces. */
uint64_t bench_alloc_pieces(struct bench *bench, uint64_t len);
/* Return the pointer to an address of the device. */
void *bench_at(struct bench *bench, uint64_t addr);

/* A well-behaved driver.  driver_add() makes a buffer available, in one indirect
 * descriptor if @indirect, and returns its head or ID, or -1 if the ring is full.
 * driver_kick() kicks the device unless suppressed.  driver_reap() takes one used
 * buffer and returns its head or ID, or -1. */
int driver_add(struct driver *driver, const struct part *parts, unsigned int nr,
	       bool indirect);
bool driver_kick(struct driver *driver);
int driver_reap(struct driver *driver, uint32_t *written);
/* Ask to be interrupted at the next used buffer. */
void driver_want_interrupt(struct driver *driver);

/*
 * Send a block request of a well-behaved driver and reap it: a header, then
 * parts with @out bytes from @data to the device, and @in bytes from the device
 * to @data, then the status byte.  Return the status, or 0x100 if the request was
 * not answered.
 */
int bench_request(struct bench *bench, uint32_t type, uint64_t sector,
		  void *data, uint32_t out, uint32_t in);

/* Close a bench and check that these rules were broken, up to -1, and no other.
 * Rules after BESIDES may be broken or not. */
#define BESIDES		-2
void bench_expect(struct bench *bench, const char *name, ...);
/* Close a bench without a check. */
void bench_close(struct bench *bench);
/* Report a case without a bench, or a further check. */
void test_result(const char *name, bool good, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* The cases of each part. */
void selftest_ring(void);
void selftest_fuzz(void);
void selftest_block(void) __attribute__((weak));

#endif /* VBLKSIM_SELFTEST_H */
