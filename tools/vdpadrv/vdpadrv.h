/* SPDX-License-Identifier: GPL-2.0 */
/*
 * vdpadrv: drive a vDPA block device through /dev/vhost-vdpa-N, as a virtio driver in
 * user space.  Types, and what the files share.  A file calls only files that are listed
 * before it:
 *
 *	util.c		errors, random numbers, the clock
 *	memory.c	the memory that the device may use
 *	device.c	ioctls of the node
 *	ring_split.c	split rings
 *	ring_packed.c	packed rings
 *	ring.c		chains on either of them, and waiting for them
 *	start.c		from reset to DRIVER_OK
 *	request.c	well-formed requests, and the check of their data
 *	io.c		verified I/O on all queues
 *	errors.c	requests with a known error
 *	survey.c	a request for each block of a range
 *	rules_util.c	what the checks of rules share
 *	rules_device.c	rules of status, features and configuration
 *	rules_ring.c	rules of rings and notifications
 *	rules_block.c	rules of requests
 *	rules.c		all rules (rules.h)
 *	zones.c		requests to zones
 *	kinds_block.c	requests that VIRTIO's block chapter does not allow
 *	kinds.c		kinds of malformed chains, these among them
 *	attack.c	malformed chains among well-formed ones
 *	broken.c	one malformed chain, and a reset
 *	hostile.c	unmapped memory, closes, suspends
 *	states.c	interrupts, mappings and rings in other states
 *	part.c		a start with other features and rings
 *	part_*.c	parts of a life cycle of the fuzzer
 *	life.c		a life cycle, from open to close
 *	child.c		processes, and where they hang
 *	fuzz.c		life cycles in processes of their own
 *	large.c		reads that take many seconds
 *	early.c		a request that completes at once, among reads that wait
 *	pages.c		pages of memory that no process has freed
 *	main.c		commands and options
 */
#ifndef VDPADRV_H
#define VDPADRV_H

#include <errno.h>
#include <linux/vhost.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Newer than Linux 6.1 */
#ifndef VHOST_VDPA_RESUME
#define VHOST_VDPA_RESUME	_IO(VHOST_VIRTIO, 0x7E)
#endif

#define F(bit)		(1ULL << (bit))
#define NEEDS_RESET	0x40
#define MAX_QUEUES	16
#define MAX_DEPTH	32
#define MAX_LIST	64	/* descriptors of a chain, and entries of a table */
#define MAX_BYTES	65536	/* data of a request */
#define MAX_CHAIN	256	/* descriptors of a malformed chain */

/*
 * The shared memory.  Each queue has META bytes with its rings, status bytes and
 * indirect tables, a page of headers, and a data buffer for each slot.
 */
#define IOVA		0x100000ULL
#define MEM_BYTES	(16U << 20)
#define META		0x10000U
#define DRIVER_AREA	0x1000U
#define DEVICE_AREA	0x2000U
#define STATUSES	0x3000U
#define TABLES		0x4000U
#define HEADERS		(MAX_QUEUES * META)
#define DATA		(HEADERS + MAX_QUEUES * 0x1000U)
#define BUFFER		(MAX_BYTES + 0x1000U)

#define load(p)		__atomic_load_n(p, __ATOMIC_ACQUIRE)
#define store(p, v)	__atomic_store_n(p, v, __ATOMIC_RELEASE)
#define mb()		__atomic_thread_fence(__ATOMIC_SEQ_CST)
#define count(p)	__atomic_add_fetch(p, 1, __ATOMIC_RELAXED)

#define LENGTH(array)	(sizeof(array) / sizeof((array)[0]))

struct kind;

struct seg {
	uint32_t at;		/* offset in the shared memory */
	uint32_t len;
};

struct slot {			/* a request in flight */
	bool busy;
	uint16_t descs;		/* ring entries that it takes */
	uint32_t type;
	uint32_t place;
	uint32_t len;
	uint64_t key;		/* of the data pattern */
	unsigned int nr_segs;
	struct seg segs[MAX_LIST];
	const struct kind *kind;	/* malformed, or NULL */
	uint8_t status;		/* expected of it */
};

struct queue {
	struct dev *dev;
	unsigned int index;
	uint8_t *meta;
	int kick, call;
	uint16_t per;		/* descriptors of a slot in a split ring */
	uint16_t avail, used;	/* split: free running; packed: in the ring */
	uint16_t added;		/* ring entries since the last kick */
	bool avail_wrap, used_wrap;
	unsigned int in_flight, descs;	/* requests, and their ring entries */
	uint64_t random;
	uint64_t done, errors, kicks;
	struct slot slots[MAX_DEPTH];
	uint64_t lin[MAX_BYTES / 8];
};

struct piece {			/* a mapping */
	uint32_t at, len;
	bool mapped;
};

struct dev {
	const char *path, *name;
	int fd, config_call;
	bool packed, indirect, event_idx, scatter;
	bool tolerant;		/* requests may return VIRTIO_BLK_S_IOERR */
	bool any_base;		/* rings begin anywhere */
	bool no_base;		/* do not tell vhost where they begin */
	bool no_write;		/* the survey only reads */
	bool write_through;	/* the survey turns the write cache off */
	bool stop;		/* ends I/O; another thread sets it */
	unsigned int nr_queues, depth, num, count, seconds;
	unsigned int max_queues, max_depth, max_num;
	unsigned int reserved;	/* queues, the last ones, without I/O of their own */
	unsigned int places;	/* that a queue writes, then reads */
	unsigned int most_bytes;	/* data of a request */
	unsigned int bytes;	/* of a buffer of a large read */
	unsigned int offset;	/* in its page, of a buffer of the survey */
	unsigned int slice_ms;	/* look at rings so often, interrupt or not; 0: do not */
	uint64_t sector;	/* where the survey begins */
	uint64_t seed, random;	/* the random numbers of the main thread */
	uint64_t features, accepted;
	uint64_t refused;	/* features not to accept */
	struct virtio_blk_config config;
	uint32_t victim;	/* offset of memory that no CPU writes while it is mapped */
	unsigned int nr_pieces;
	struct piece pieces[MEM_BYTES / 4096];
	struct queue queues[MAX_QUEUES];
};

#define MAX_KINDS	64
#define MAX_PARTS	16

/* What has happened.  The fuzzer's processes share it. */
struct counts {
	uint64_t cycles;	/* from an open to a close */
	uint64_t malformed;	/* rings, chains and requests that it refused or answered */
	uint64_t requests;	/* well-formed requests with the right status and length */
	uint64_t verified;	/* reads whose data is right, among these */
	uint64_t killed, deleted;	/* life cycles that ended so */
	uint64_t kinds[MAX_KINDS];
	uint64_t parts[MAX_PARTS];
};

/* util.c */
extern struct counts *counts;

void __attribute__((noreturn, format(printf, 1, 2))) fail(const char *format, ...);
uint64_t rnd(uint64_t *state);
uint64_t now_ms(void);

/* memory.c */
extern uint8_t *mem;
extern uint32_t mem_bytes;

void batch_mappings(struct dev *d, bool begin);
void map_piece(struct dev *d, struct piece *piece, bool map);
void map_all(struct dev *d, bool map);
void make_pieces(struct dev *d, uint32_t bytes, uint32_t victim_bytes);

/* device.c */
#define IOCTL(d, request, arg)	call_ioctl(d, request, arg, #request)

/* Longest wait for a request; the fuzzer allows for a host that is busy. */
extern unsigned int hang_ms;

void call_ioctl(struct dev *d, unsigned long request, void *arg, const char *name);
uint8_t get_status(struct dev *d);
void set_status(struct dev *d, uint8_t status);
void set_cache_mode(struct dev *d, uint8_t mode);
void open_dev(struct dev *d);
bool await_needs_reset(struct dev *d, const char *when);
void must_need_reset(struct dev *d, const char *when);

/* ring_split.c, ring_packed.c */
struct ring_ops {
	/* Empty the ring; its next entry is @at.  Returns the base for vhost. */
	uint32_t (*init)(struct queue *q, uint16_t at, bool wrap);
	/* Returns the base of the next entry. */
	uint32_t (*base)(const struct queue *q);
	void (*fill_table)(void *table, const struct vring_desc *list, unsigned int nr);
	/* Returns what a used entry of slot @s has: its head, or its id. */
	unsigned int (*head)(const struct queue *q, unsigned int s);
	/* Make descriptors available as they are, in the place of slot @s. */
	void (*put)(struct queue *q, unsigned int s, const struct vring_desc *list,
		    unsigned int nr, unsigned int head);
	bool (*wants_kick)(struct queue *q, uint16_t old);
	bool (*has_used)(const struct queue *q);
	/* Returns the slot of the next used entry, MAX_DEPTH if it is none. */
	unsigned int (*peek)(const struct queue *q, unsigned int *id, uint32_t *len);
	void (*pop)(struct queue *q, unsigned int descs);
	/* Ask for an interrupt after @later more entries than one, or for none. */
	void (*arm)(struct queue *q, unsigned int later);
	void (*disarm)(struct queue *q);
	/* Write values that VIRTIO does not allow where the driver asks for interrupts. */
	void (*confuse)(struct queue *q);
};

extern const struct ring_ops split_ring, packed_ring;

/* ring.c */
const struct ring_ops *ring_of(const struct queue *q);
struct vring_desc fill_table(struct queue *q, unsigned int s,
			     const struct vring_desc *list, unsigned int nr);
void put_raw(struct queue *q, unsigned int s, const struct vring_desc *list,
	     unsigned int nr, unsigned int head);
void put_chain(struct queue *q, unsigned int s, struct vring_desc *list, unsigned int nr);
void kick(struct queue *q, bool always);
bool has_used(struct queue *q);
unsigned int take_used(struct queue *q, uint32_t *len);
bool wait_used(struct queue *q, unsigned int ms);
void must_wait(struct queue *q);
void take_all(struct queue *q, void (*judge)(struct queue *q, unsigned int s, uint32_t len));

/* start.c */
void negotiate(struct dev *d);
void start_queue(struct dev *d, unsigned int i, const uint32_t *base);
void set_ring_addresses(struct dev *d, unsigned int i, uint64_t desc, uint64_t driver,
			uint64_t device);
void start_dev(struct dev *d, const uint32_t *bases, bool share);
void limit_options(struct dev *d);
uint32_t get_base(struct dev *d, unsigned int i);
void get_bases(struct dev *d, uint32_t *bases);

/* request.c */
volatile uint8_t *status_of(struct queue *q, unsigned int s);
uint32_t buffer_of(const struct queue *q, unsigned int s);
struct vring_desc part(uint32_t at, uint32_t len, bool write);
struct vring_desc header(struct queue *q, unsigned int s, uint32_t type, uint64_t sector);
struct vring_desc status_desc(struct queue *q, unsigned int s);
uint64_t place_sectors(const struct queue *q);
void submit(struct queue *q, unsigned int s, uint32_t type, uint32_t place, uint64_t round);
bool check(struct queue *q, unsigned int s, uint32_t len, bool compare);

/* io.c */
void run_phase(struct queue *q, uint32_t type, unsigned int nr, uint64_t round, bool *good);
void run_io(struct dev *d, void (*meanwhile)(struct dev *d));
uint64_t total(struct dev *d, bool errors);
void check_io(struct dev *d);

/* errors.c */
void check_errors(struct dev *d);

/* survey.c */
void run_survey(struct dev *d);

/* rules.c */
void run_rules(struct dev *d);

/* zones.c */
void run_zones(struct dev *d);

/* kinds_block.c */
struct chain {
	struct vring_desc list[MAX_CHAIN];
	unsigned int nr, head;
	unsigned int times;	/* how often it is made available */
	uint16_t jump;		/* of the index of a split ring, afterwards */
	uint8_t status;		/* that the device returns */
};

void link_chain(struct queue *q, unsigned int s, struct chain *c);
uint32_t readonly_at(const struct dev *d);
void make_short_header(struct queue *q, unsigned int s, struct chain *c);
void make_odd_length(struct queue *q, unsigned int s, struct chain *c);
void make_long_data(struct queue *q, unsigned int s, struct chain *c);
void make_far_sector(struct queue *q, unsigned int s, struct chain *c);
void make_no_data(struct queue *q, unsigned int s, struct chain *c);
void make_unknown_type(struct queue *q, unsigned int s, struct chain *c);
void make_ranges_odd(struct queue *q, unsigned int s, struct chain *c);
void make_ranges_many(struct queue *q, unsigned int s, struct chain *c);
void make_ranges_far(struct queue *q, unsigned int s, struct chain *c);
void make_ranges_flags(struct queue *q, unsigned int s, struct chain *c);
void make_id_unshared(struct queue *q, unsigned int s, struct chain *c);

/* kinds.c */
enum outcome {
	BREAKS,			/* the queue stops, and the device needs a reset */
	ANSWERS,		/* it returns the status of the slot */
	EITHER,			/* one of the two, and the data of others is not safe */
};

#define SPLIT_ONLY	1
#define PACKED_ONLY	2
#define INDIRECT	4	/* needs it */
#define NO_INDIRECT	8	/* needs that it was not accepted */
#define MAY_INDIRECT	16	/* can be put into a table */
#define EMPTY_RING	32	/* takes all of a packed ring */
#define SCRIBBLE	64	/* scribble() follows */
#define ALONE		128	/* the device takes no chain that comes before it, either */
#define WELL_FORMED	256	/* the device must execute the request */

struct kind {
	const char *name;
	enum outcome outcome;
	unsigned int flags;
	/* Spoil @c, which is a well-formed read or write of slot @s. */
	void (*make)(struct queue *q, unsigned int s, struct chain *c);
};

extern const struct kind kinds[];
extern const unsigned int nr_kinds;

bool kind_fits(const struct queue *q, const struct kind *kind);
const struct kind *pick_kind(struct queue *q, enum outcome outcome);
void put_kind(struct queue *q, unsigned int s, const struct kind *kind);
void scribble(struct queue *q);
void count_kind(const struct kind *kind);

/* attack.c */
void mark_readonly(struct dev *d);
void check_readonly(struct dev *d, const char *when);
void attack_queue(struct queue *q, unsigned int batches, bool break_it);

/* broken.c */
enum seen { BROKE, ANSWERED, NEITHER };

enum seen watch(struct queue *q, unsigned int s, unsigned int ms);
void run_broken(struct dev *d);

/* hostile.c */
void change_mappings(struct dev *d, unsigned int ms);
void fill_queues(struct dev *d);
void submit_all(struct dev *d);
void suspend_often(struct dev *d, unsigned int times);
void run_unshared(struct dev *d);
void run_unmap(struct dev *d);
void run_close(struct dev *d);
void run_suspend(struct dev *d);

/* states.c */
void run_config(struct dev *d);
void run_remap(struct dev *d);
void run_zero(struct dev *d);
void run_starve(struct dev *d);

/* part.c */
void fresh_start(struct dev *d);
unsigned int between(struct dev *d, unsigned int low, unsigned int high);
struct queue *any_queue(struct dev *d);

/* part_*.c: each begins with a reset, and leaves the device running or broken */
void part_verify(struct dev *d);
void part_attack(struct dev *d);
void part_attack_beside(struct dev *d);
void part_wild(struct dev *d);
void part_set_up(struct dev *d);
void part_mappings(struct dev *d);
void part_victim(struct dev *d);
void part_ring_unmap(struct dev *d);
void part_suspend(struct dev *d);
void part_move(struct dev *d);
void part_enable(struct dev *d);
void part_calls(struct dev *d);
void part_resets(struct dev *d);
void part_ioctls(struct dev *d);

/* life.c */
extern const char * const part_names[];
extern const unsigned int nr_parts;

void live(struct dev *d, bool verbose);

/* child.c */
struct child {
	pid_t pid;
	bool ended;
	int status;		/* of waitpid(), once it has ended */
};

bool start_child(struct child *child);
bool has_ended(struct child *child, unsigned int ms);
void print_stacks(const struct child *child);

/* fuzz.c */
void run_fuzz(struct dev *d);

/* large.c */
void run_reset(struct dev *d);
void run_kill(struct dev *d);

/* early.c */
void run_early(struct dev *d);

/* pages.c */
void run_pages(struct dev *d);

#endif /* VDPADRV_H */
