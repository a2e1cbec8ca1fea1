// SPDX-License-Identifier: GPL-2.0
/*
 * The device side of split and packed rings: take chains of descriptors off the
 * ring, and push used entries.
 *
 * The driver may write to its rings at any time, so the device copies each
 * descriptor once and checks the copy.  struct slot and struct buffer keep the
 * copies until the buffer is used, to detect a driver that uses a descriptor
 * twice, or changes it meanwhile.
 *
 * The device executes a chain that breaks a rule but can be parsed.  If it
 * cannot be parsed, the device returns it with length 0 if its head or ID is
 * known.  Otherwise the device stops the queue, and needs a reset.
 */

#define _GNU_SOURCE
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "vblksim.h"
#include "virtio.h"

#define DESC_BYTES		16u
/* The device does not read a larger indirect table. */
#define MAX_TABLE		65536u
/* After so many chains the event loop handles other events. */
#define CHAINS_AT_ONCE		1024u

/*
 * Layout in memory; the last two are flags and next in a split ring, ID and
 * flags in a packed one.
 */
struct raw_desc {
	uint64_t addr;
	uint32_t len;
	uint16_t third;
	uint16_t fourth;
};

struct desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags;
};

/**
 * struct slot - a place in the descriptor table or ring
 * @seen: its contents when the device took it
 * @owner: head or ID of its buffer
 * @taken: it belongs to a buffer that the device has
 */
struct slot {
	struct raw_desc seen;
	uint16_t owner;
	bool taken;
};

/**
 * struct buffer - the state of a head or buffer ID
 * @first: its first slot
 * @descs: number of its slots
 * @out: the device has it
 * @lost: the device never answers it
 */
struct buffer {
	uint16_t first;
	uint16_t descs;
	bool out;
	bool lost;
};

/**
 * struct queue - a virtqueue
 * @sim: the device
 * @index: its number
 * @running: it is set up, and the driver has set DRIVER_OK
 * @given_up: the device has stopped it after an error
 * @packed: its format
 * @event_idx: EVENT_IDX was negotiated
 * @life: counts how often it was started or stopped
 * @at: its size and addresses
 * @desc: the descriptors, NULL until mapped
 * @driver: the part that the driver writes
 * @device: the part that the device writes
 * @avail: split: number of taken heads; packed: position in the ring
 * @avail_wrap: packed: the driver's expected wrap counter at @avail
 * @used: split: number of used entries; packed: position in the ring
 * @used_wrap: packed: the device's wrap counter
 * @seen_idx: the available ring's idx at the last read
 * @out: number of slots that the device has
 * @slot: state of each descriptor, @at.size of them
 * @buffer: state of each head, or ID
 * @list: descriptors of the chain that is being taken
 * @list_len: their number
 * @list_room: allocated length of @list
 * @table: a copy of an indirect table
 * @table_room: allocated length of @table
 * @kicks: number of kicks since its start
 * @wanted: upper bound of the kicks that the device has asked for
 * @idle_kicks: @kicks at the last ring_check_idle()
 * @idle_at: @avail at that time
 * @idle_work: there were chains to take at that time
 * @resume: timer that continues after CHAINS_AT_ONCE chains
 */
struct queue {
	struct sim *sim;
	unsigned int index;
	bool running;
	bool given_up;
	bool packed;
	bool event_idx;
	uint32_t life;
	struct queue_addresses at;
	struct raw_desc *desc;
	uint16_t *driver;
	uint16_t *device;
	uint16_t avail;
	bool avail_wrap;
	uint16_t used;
	bool used_wrap;
	uint16_t seen_idx;
	uint32_t out;
	struct slot *slot;
	struct buffer *buffer;
	struct desc *list;
	uint32_t list_len;
	uint32_t list_room;
	struct raw_desc *table;
	uint32_t table_room;
	uint64_t kicks;
	uint64_t wanted;
	uint64_t idle_kicks;
	uint16_t idle_at;
	bool idle_work;
	struct loop_timer *resume;
};

/* Check a rule; the message names the queue. */
#define check(q, rule, kept, fmt, ...)					\
	watch_check(&(q)->sim->watch, RULE_##rule, kept,		\
		    "queue %u: " fmt, (q)->index __VA_OPT__(,) __VA_ARGS__)

/* The same if packed rings have their own rule. */
#define check_either(q, split, other, kept, fmt, ...)			\
	watch_check(&(q)->sim->watch,					\
		    (q)->packed ? RULE_##other : RULE_##split, kept,	\
		    "queue %u: " fmt, (q)->index __VA_OPT__(,) __VA_ARGS__)

static uint16_t load16(const uint16_t *from)
{
	return le16toh(__atomic_load_n(from, __ATOMIC_ACQUIRE));
}

static void store16(uint16_t *to, uint16_t value)
{
	__atomic_store_n(to, htole16(value), __ATOMIC_RELEASE);
}

/* Order a write for the driver before a read of the driver's next write. */
static void full_barrier(void)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

/* Fields of a split ring's driver and device parts, in units of 16 bits. */
static const uint16_t *avail_flags(const struct queue *q)
{
	return q->driver;
}

static const uint16_t *avail_idx(const struct queue *q)
{
	return q->driver + 1;
}

static const uint16_t *avail_entry(const struct queue *q, uint16_t i)
{
	return q->driver + 2 + i % q->at.size;
}

static const uint16_t *used_event(const struct queue *q)
{
	return q->driver + 2 + q->at.size;
}

static uint16_t *used_idx(const struct queue *q)
{
	return q->device + 1;
}

static uint16_t *avail_event(const struct queue *q)
{
	return q->device + 2 + 4u * q->at.size;
}

unsigned int ring_index(const struct queue *queue)
{
	return queue->index;
}

/* Stop the queue: the ring is not usable any more. */
static void give_up(struct queue *q, const char *why)
{
	struct sim *sim = q->sim;
	bool told;

	if (q->given_up)
		return;
	q->given_up = true;
	if (sim->front->broken)
		sim->front->broken(sim, q->index);
	told = sim->front->needs_reset && sim->front->needs_reset(sim);
	if (!sim->watch.quiet)
		fprintf(stderr, "vblksim: queue %u is given up: %s%s\n",
			q->index, why, told ? "" :
			"; the front cannot set DEVICE_NEEDS_RESET");
}

/* Memory. */

static void *map_part(struct queue *q, const char *what, uint64_t addr,
		      uint64_t len, bool write)
{
	struct front *front = q->sim->front;
	uint64_t run = 0;
	void *part = front->map(q->sim, addr, len, write, &run);

	/* cppcheck-suppress syntaxError; cppcheck does not expand this macro. */
	if (!check(q, RING_MEMORY, part && run >= len,
		   "its %s of %" PRIu64 " bytes at %#" PRIx64, what, len, addr))
		return NULL;
	return part;
}

static bool map_ring(struct queue *q)
{
	uint64_t size = q->at.size;
	uint64_t driver = q->packed ? 4 : 6 + 2 * size;
	uint64_t device = q->packed ? 4 : 6 + 8 * size;

	if (q->desc)
		return true;
	q->driver = map_part(q, "driver area", q->at.driver, driver, false);
	q->device = map_part(q, "device area", q->at.device, device, true);
	q->desc = map_part(q, "descriptor area", q->at.desc, size * DESC_BYTES,
			   q->packed);
	if (q->driver && q->device && q->desc)
		return true;
	q->desc = NULL;
	return false;
}

static bool map_running(struct queue *q)
{
	if (q->desc || map_ring(q))
		return true;
	give_up(q, "its memory is gone");
	return false;
}

void ring_remap(struct sim *sim)
{
	for (unsigned int i = 0; sim->queue && i < sim->set.queues; i++)
		sim->queue[i].desc = NULL;
}

/* Copy from the driver's memory: all of it or nothing. */
static bool copy_from(struct queue *q, uint64_t addr, void *to, uint64_t len)
{
	uint64_t run;
	void *from;

	while (len) {
		run = 0;
		from = q->sim->front->map(q->sim, addr, len, false, &run);
		if (!from || !run)
			return false;
		if (run > len)
			run = len;
		memcpy(to, from, run);
		to = (uint8_t *)to + run;
		addr += run;
		len -= run;
	}
	return true;
}

/* Pushing used entries. */

static bool split_interrupts(struct queue *q, uint16_t before)
{
	if (!q->event_idx)
		return !(load16(avail_flags(q)) & AVAIL_F_NO_INTERRUPT);
	return load16(used_event(q)) == before;
}

/* Read the driver's event suppression: place and mode of the next interrupt. */
static void read_event(struct queue *q, uint16_t *where, uint16_t *mode)
{
	uint32_t both = le32toh(__atomic_load_n((uint32_t *)q->driver,
						__ATOMIC_ACQUIRE));

	*where = both;
	*mode = both >> 16;
	check(q, PACKED_EVENT, !(*mode & ~3) && *mode != 3,
	      "driver event suppression flags are %#x", *mode);
	if ((*mode & 3) == EVENT_DESC)
		check(q, PACKED_EVENT_FEATURE, q->event_idx &&
		      (*where & ~EVENT_WRAP) < q->at.size,
		      "event for descriptor %u of %u, EVENT_IDX %s negotiated",
		      *where & ~EVENT_WRAP, q->at.size,
		      q->event_idx ? "was" : "was not");
}

static bool packed_interrupts(struct queue *q, uint32_t descs)
{
	uint32_t size = q->at.size, event, new = q->used;
	uint16_t where, mode;

	read_event(q, &where, &mode);
	if ((mode & 3) != EVENT_DESC || !q->event_idx)
		return (mode & 3) != EVENT_DISABLE;
	/* Is the event among the descs before new?  An event of the previous
	 * round is size further back. */
	event = where & ~EVENT_WRAP;
	if (!!(where & EVENT_WRAP) == q->used_wrap)
		event += size;
	return new + size - event - 1 < descs;
}

static void push_split(struct queue *q, uint32_t id, uint32_t written)
{
	uint32_t *entry = (uint32_t *)(q->device + 2) +
			  2 * (q->used % q->at.size);

	entry[0] = htole32(id);
	entry[1] = htole32(written);
	store16(used_idx(q), ++q->used);
}

static void push_packed(struct queue *q, uint16_t id, uint16_t descs,
			uint32_t written)
{
	struct raw_desc *desc = &q->desc[q->used];
	uint16_t flags = written ? DESC_F_WRITE : 0;

	if (q->used_wrap)
		flags |= DESC_F_AVAIL | DESC_F_USED;
	desc->len = htole32(written);
	desc->third = htole16(id);
	store16(&desc->fourth, flags);

	/* All of these belong to the driver now, whichever buffer they were in. */
	for (uint16_t i = 0; i < descs; i++) {
		q->slot[q->used].taken = false;
		if (++q->used == q->at.size) {
			q->used = 0;
			q->used_wrap = !q->used_wrap;
		}
	}
}

static void push(struct queue *q, uint32_t id, uint16_t descs, uint32_t written)
{
	uint16_t before = q->used;
	bool interrupt;

	if (q->packed)
		push_packed(q, id, descs, written);
	else
		push_split(q, id, written);
	full_barrier();
	interrupt = q->packed ? packed_interrupts(q, descs) :
				split_interrupts(q, before);
	if (interrupt && !q->sim->mute)
		q->sim->front->interrupt(q->sim, q->index);
}

void ring_push_used(struct sim *sim, unsigned int queue, uint32_t id,
		    uint16_t descs, uint32_t written)
{
	struct queue *q = &sim->queue[queue];

	if (q->running && map_running(q))
		push(q, id, descs, written);
}

/* Check that a descriptor has not changed since the device took it. */
static void check_slot(struct queue *q, uint16_t i)
{
	struct slot *slot = &q->slot[i];

	check(q, EXPOSED_CHANGED,
	      !memcmp(&slot->seen, &q->desc[i], sizeof(slot->seen)),
	      "descriptor %u of buffer %u has changed", i, slot->owner);
}

static uint16_t next_slot(struct queue *q, uint16_t i)
{
	if (!q->packed)
		return le16toh(q->slot[i].seen.fourth);
	return i + 1 == q->at.size ? 0 : i + 1;
}

/* Release a buffer's slots before the buffer is used. */
static void release_buffer(struct queue *q, uint16_t id)
{
	struct buffer *buffer = &q->buffer[id];
	uint16_t i = buffer->first;

	for (uint16_t left = buffer->descs; left; left--) {
		if (q->slot[i].taken && q->slot[i].owner == id) {
			check_slot(q, i);
			q->slot[i].taken = false;
		}
		if (left > 1)
			i = next_slot(q, i);
	}
	q->out -= buffer->descs;
	buffer->out = false;
	buffer->lost = false;
}

static void give_back(struct queue *q, uint16_t id, uint32_t written)
{
	uint16_t descs = q->buffer[id].descs;

	release_buffer(q, id);
	push(q, id, descs, written);
}

void ring_complete(struct sim *sim, struct chain *chain, uint32_t written)
{
	struct queue *q = chain->queue;

	(void)sim;
	if (q && q->running && chain->life == q->life &&
	    q->buffer[chain->id].out && map_running(q))
		give_back(q, chain->id, written);
	chain_free(chain);
}

/*
 * Linux's virtio_ring follows NEXT in this memory when it detaches a used chain,
 * and counts the descriptors that it finds.
 */
void ring_cut(struct chain *chain)
{
	struct queue *q = chain->queue;
	struct raw_desc *first;

	if (!q || !q->running || q->packed || chain->life != q->life ||
	    !map_running(q))
		return;
	first = &q->desc[chain->id];
	first->third &= htole16((uint16_t)~DESC_F_NEXT);
	/* The driver did not change it. */
	q->slot[chain->id].seen = *first;
}

void chain_free(struct chain *chain)
{
	struct queue *q = chain->queue;

	if (q && q->running && chain->life == q->life &&
	    q->buffer[chain->id].out)
		q->buffer[chain->id].lost = true;
	free(chain);
}

void ring_return_lost(struct sim *sim)
{
	for (unsigned int n = 0; n < sim->set.queues; n++) {
		struct queue *q = &sim->queue[n];

		if (!q->running || !map_running(q))
			continue;
		for (uint32_t id = 0; id < 65536 && q->out; id++)
			if ((q->packed || id < q->at.size) &&
			    q->buffer[id].lost)
				give_back(q, id, 0);
	}
}

/* Taking chains off the ring. */

static bool grow(void **array, uint32_t *room, uint32_t need, size_t each)
{
	uint32_t more = *room ? *room : 64;
	void *larger;

	if (need <= *room)
		return true;
	while (more < need)
		more *= 2;
	larger = realloc(*array, more * each);
	if (!larger)
		return false;
	*array = larger;
	*room = more;
	return true;
}

static bool append(struct queue *q, const struct raw_desc *raw, uint16_t flags)
{
	if (!grow((void **)&q->list, &q->list_room, q->list_len + 1,
		  sizeof(*q->list)))
		return false;
	q->list[q->list_len++] = (struct desc) {
		.addr = le64toh(raw->addr),
		.len = le32toh(raw->len),
		.flags = flags,
	};
	return true;
}

static bool take_split_table(struct queue *q, uint32_t descs)
{
	uint32_t i = 0, steps = 0;
	uint16_t flags;

	for (;;) {
		flags = le16toh(q->table[i].third);
		check(q, SPLIT_FLAGS, !(flags & ~(DESC_F_NEXT | DESC_F_WRITE |
						  DESC_F_INDIRECT)),
		      "flags %#x in an indirect table", flags);
		if (!check(q, SPLIT_INDIRECT_NESTED, !(flags & DESC_F_INDIRECT),
			   "descriptor %u of an indirect table is INDIRECT", i))
			return false;
		if (!append(q, &q->table[i], flags))
			return false;
		if (!(flags & DESC_F_NEXT))
			return true;
		i = le16toh(q->table[i].fourth);
		if (!check(q, SPLIT_NEXT, i < descs,
			   "next is %u in an indirect table of %u", i, descs))
			return false;
		steps++;
		if (!check(q, SPLIT_LOOP, steps < descs,
			   "%u steps in an indirect table of %u", steps, descs))
			return false;
	}
}

static bool take_packed_table(struct queue *q, uint32_t descs)
{
	for (uint32_t i = 0; i < descs; i++) {
		uint16_t flags = le16toh(q->table[i].fourth);

		check(q, PACKED_INDIRECT_FLAGS, !(flags & ~DESC_F_WRITE),
		      "flags %#x in an indirect table", flags);
		if (!append(q, &q->table[i], flags & DESC_F_WRITE))
			return false;
	}
	return true;
}

static bool take_table(struct queue *q, uint64_t addr, uint32_t len)
{
	uint32_t descs = len / DESC_BYTES;

	if (!check_either(q, SPLIT_INDIRECT_LENGTH, PACKED_INDIRECT_LENGTH,
			  len && !(len % DESC_BYTES),
			  "an indirect table has %u bytes", len))
		return false;
	if (descs > MAX_TABLE) {
		check_either(q, CHAIN_LENGTH, PACKED_LENGTH, false,
			     "an indirect table has %u descriptors", descs);
		return false;
	}
	if (!grow((void **)&q->table, &q->table_room, descs, DESC_BYTES))
		return false;
	if (!check(q, BUFFER_MEMORY, copy_from(q, addr, q->table, len),
		   "an indirect table of %u bytes at %#" PRIx64, len, addr))
		return false;
	return q->packed ? take_packed_table(q, descs) :
			   take_split_table(q, descs);
}

static bool take_indirect(struct queue *q, const struct raw_desc *raw)
{
	if (!check_either(q, SPLIT_INDIRECT_FEATURE, PACKED_INDIRECT_FEATURE,
			  has_feature(q->sim, F_INDIRECT_DESC),
			  "a descriptor is INDIRECT"))
		return false;
	return take_table(q, le64toh(raw->addr), le32toh(raw->len));
}

/* Check the rules on a chain as a whole. */
static void check_list(struct queue *q)
{
	uint64_t bytes = 0;
	bool writable = false, ordered = true;

	for (uint32_t i = 0; i < q->list_len; i++) {
		bytes += q->list[i].len;
		if (q->list[i].flags & DESC_F_WRITE)
			writable = true;
		else if (writable)
			ordered = false;
	}
	check_either(q, SPLIT_ORDER, PACKED_ORDER, ordered,
		     "a readable descriptor follows a writable one");
	check_either(q, CHAIN_LENGTH, PACKED_LENGTH, q->list_len <= q->at.size,
		     "%u descriptors in a ring of %u", q->list_len, q->at.size);
	if (!q->packed)
		check(q, SPLIT_BYTES, bytes <= 1ull << 32,
		      "a chain of %" PRIu64 " bytes", bytes);
}

/* Add a descriptor's memory, in one or more segments. */
static bool add_segments(struct queue *q, const struct desc *desc,
			 struct segment **to, uint32_t *len, uint32_t *room)
{
	bool write = desc->flags & DESC_F_WRITE;
	uint64_t addr = desc->addr, left = desc->len, run;
	uint8_t *base;

	while (left) {
		run = 0;
		base = q->sim->front->map(q->sim, addr, left, write, &run);
		if (!check(q, BUFFER_MEMORY, base && run,
			   "a buffer of %u bytes at %#" PRIx64, desc->len,
			   desc->addr))
			return false;
		if (run > left)
			run = left;
		if (!grow((void **)to, room, *len + 1, sizeof(**to)))
			return false;
		(*to)[(*len)++] = (struct segment) {
			.base = base,
			.len = run,
			.joined = left < desc->len,
		};
		addr += run;
		left -= run;
	}
	return true;
}

struct segments {
	struct segment *at;
	uint32_t len;
	uint32_t room;
};

static uint64_t sum_segments(const struct segments *which)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < which->len; i++)
		sum += which->at[i].len;
	return sum;
}

static struct chain *new_chain(struct queue *q, uint16_t id,
			       const struct segments *out,
			       const struct segments *in)
{
	struct chain *chain;

	chain = malloc(sizeof(*chain) +
		       ((size_t)out->len + in->len) * sizeof(struct segment));
	if (!chain)
		return NULL;
	*chain = (struct chain) {
		.queue = q,
		.id = id,
		.descs = q->buffer[id].descs,
		.out = (struct segment *)(chain + 1),
		.nr_out = out->len,
		.nr_in = in->len,
		.out_len = sum_segments(out),
		.in_len = sum_segments(in),
		.number = ++q->sim->requests,
		.life = q->life,
	};
	chain->in = chain->out + out->len;
	if (out->len)
		memcpy(chain->out, out->at, out->len * sizeof(*out->at));
	if (in->len)
		memcpy(chain->in, in->at, in->len * sizeof(*in->at));
	return chain;
}

/* Make a chain of a complete list whose head or ID is known. */
static struct chain *finish_list(struct queue *q, uint16_t id)
{
	struct segments out = {}, in = {};
	struct chain *chain = NULL;
	bool good = true;

	check_list(q);
	for (uint32_t i = 0; good && i < q->list_len; i++) {
		bool write = q->list[i].flags & DESC_F_WRITE;
		struct segments *to = write ? &in : &out;

		good = add_segments(q, &q->list[i], &to->at, &to->len,
				    &to->room);
	}
	if (good)
		chain = new_chain(q, id, &out, &in);
	free(out.at);
	free(in.at);
	return chain;
}

static void own(struct queue *q, uint16_t id, uint16_t first, uint16_t descs)
{
	q->buffer[id] = (struct buffer) {
		.first = first,
		.descs = descs,
		.out = true,
	};
	q->out += descs;
}

/* Pass a taken list on, or return it at once. */
static void deliver(struct queue *q, uint16_t id, bool good)
{
	struct chain *chain = good ? finish_list(q, id) : NULL;

	if (chain)
		request_arrive(q->sim, chain);
	else
		give_back(q, id, 0);
}

/*
 * Follow a chain in a split ring's table, from a free head in the table.  Return
 * the number of taken descriptors, all of which then belong to the head.
 */
static uint16_t walk_split(struct queue *q, uint16_t head, bool *good)
{
	uint16_t i = head, descs = 0, flags;
	struct slot *slot;

	*good = false;
	for (;;) {
		slot = &q->slot[i];
		if (slot->taken) {
			check(q, SPLIT_LOOP, slot->owner != head,
			      "descriptor %u comes twice", i);
			check(q, SPLIT_REUSED, slot->owner == head,
			      "descriptor %u is in chains %u and %u", i,
			      slot->owner, head);
			return descs;
		}
		slot->seen = q->desc[i];
		slot->owner = head;
		slot->taken = true;
		descs++;

		flags = le16toh(slot->seen.third);
		check(q, SPLIT_FLAGS, !(flags & ~(DESC_F_NEXT | DESC_F_WRITE |
						  DESC_F_INDIRECT)),
		      "descriptor %u has flags %#x", i, flags);
		if (flags & DESC_F_INDIRECT) {
			*good = check(q, SPLIT_INDIRECT_NEXT,
				      !(flags & DESC_F_NEXT),
				      "descriptor %u is INDIRECT and has NEXT",
				      i) && take_indirect(q, &slot->seen);
			return descs;
		}
		if (!append(q, &slot->seen, flags))
			return descs;
		if (!(flags & DESC_F_NEXT)) {
			*good = true;
			return descs;
		}
		i = le16toh(slot->seen.fourth);
		if (!check(q, SPLIT_NEXT, i < q->at.size,
			   "next is %u in a table of %u", i, q->at.size))
			return descs;
		check(q, SPLIT_LOOP, true, "no loop yet");
	}
}

static void take_split(struct queue *q, uint16_t head)
{
	uint16_t descs;
	bool good;

	if (!check(q, SPLIT_HEAD, head < q->at.size,
		   "the available ring has %u, of %u", head, q->at.size)) {
		give_up(q, "a chain without a valid head cannot be answered");
		return;
	}
	if (!check(q, SPLIT_REUSED, !q->buffer[head].out &&
		   !q->slot[head].taken,
		   "descriptor %u is made available, which the device has",
		   head)) {
		give_up(q, "a chain that is available twice cannot be answered twice");
		return;
	}
	q->list_len = 0;
	descs = walk_split(q, head, &good);
	own(q, head, head, descs);
	deliver(q, head, good);
}

static void check_avail_flags(struct queue *q)
{
	uint16_t flags = load16(avail_flags(q));

	if (q->event_idx)
		check(q, SPLIT_AVAIL_FLAGS_EVENT, !flags, "they are %#x",
		      flags);
	else
		check(q, SPLIT_AVAIL_FLAGS, !(flags & ~AVAIL_F_NO_INTERRUPT),
		      "they are %#x", flags);
}

/* Read the available ring's idx; return false if it is invalid. */
static bool read_avail_idx(struct queue *q, uint16_t *idx)
{
	uint16_t moved;

	*idx = load16(avail_idx(q));
	moved = *idx - q->seen_idx;
	if (!check(q, SPLIT_IDX_BACK, moved <= MAX_RING,
		   "idx went from %u to %u", q->seen_idx, *idx) ||
	    !check(q, SPLIT_IDX_AHEAD,
		   (uint16_t)(*idx - q->avail) <= q->at.size,
		   "idx is %u, the device is at %u of a ring of %u", *idx,
		   q->avail, q->at.size)) {
		give_up(q, "idx of the available ring is invalid");
		return false;
	}
	q->seen_idx = *idx;
	/* Without EVENT_IDX the driver may kick for each new buffer. */
	if (!q->event_idx)
		q->wanted += moved;
	return true;
}

static bool take_packed(struct queue *q);

/* Take the next chain, if there is one. */
static bool take_next(struct queue *q)
{
	uint16_t idx;

	if (q->packed)
		return take_packed(q);
	if (!read_avail_idx(q, &idx) || idx == q->avail)
		return false;
	take_split(q, load16(avail_entry(q, q->avail++)));
	return true;
}

static bool is_available(uint16_t flags, bool wrap)
{
	return !!(flags & DESC_F_AVAIL) == wrap &&
	       !!(flags & DESC_F_USED) != wrap;
}

/* Take a descriptor of a list in a packed ring; return false if invalid. */
static bool take_packed_desc(struct queue *q, const struct raw_desc *raw,
			     uint16_t flags, bool first)
{
	check(q, PACKED_FLAGS, !(flags & ~(DESC_F_NEXT | DESC_F_WRITE |
					   DESC_F_INDIRECT | DESC_F_AVAIL |
					   DESC_F_USED)),
	      "a descriptor has flags %#x", flags);
	if (!(flags & DESC_F_INDIRECT))
		return append(q, raw, flags);
	return check(q, PACKED_INDIRECT_LIST, first && !(flags & DESC_F_NEXT),
		     "a descriptor is INDIRECT and in a list") &&
	       take_indirect(q, raw);
}

static bool take_packed(struct queue *q)
{
	uint16_t first = q->avail, i = first, descs = 0, id, flags;
	bool wrap = q->avail_wrap, good = true;
	struct raw_desc *raw;

	flags = load16(&q->desc[i].fourth);
	if (!is_available(flags, wrap))
		return false;
	q->list_len = 0;
	for (;;) {
		if (!check(q, PACKED_SPACE, q->out + descs < q->at.size,
			   "descriptor %u is made available and not free", i)) {
			give_up(q, "its descriptors overlap");
			return false;
		}
		raw = &q->slot[i].seen;
		*raw = q->desc[i];
		if (descs)
			flags = le16toh(raw->fourth);
		else
			raw->fourth = htole16(flags);
		if (descs && !check(q, PACKED_FIRST_LAST,
				    is_available(flags, wrap),
				    "descriptor %u has flags %#x", i, flags)) {
			give_up(q, "a list is not complete");
			return false;
		}
		good = good && take_packed_desc(q, raw, flags, !descs);
		descs++;
		id = le16toh(raw->third);
		q->slot[i].taken = true;
		if (++i == q->at.size) {
			i = 0;
			wrap = !wrap;
		}
		if (!(flags & DESC_F_NEXT))
			break;
		if (!check(q, PACKED_LENGTH, descs < q->at.size,
			   "a list does not end within the ring of %u",
			   q->at.size)) {
			give_up(q, "a list has no end");
			return false;
		}
	}
	q->avail = i;
	q->avail_wrap = wrap;
	if (!check(q, PACKED_ID, !q->buffer[id].out,
		   "buffer ID %u is there twice", id)) {
		give_up(q, "two buffers have the same ID");
		return false;
	}
	for (uint16_t left = descs, at = first; left; left--) {
		q->slot[at].owner = id;
		at = next_slot(q, at);
	}
	own(q, id, first, descs);
	deliver(q, id, good);
	return true;
}

/* Ask for a kick when there is a new buffer. */
static void ask_for_kick(struct queue *q)
{
	uint16_t where = q->avail;

	if (!q->event_idx)
		return;
	if (q->packed) {
		where |= q->avail_wrap ? EVENT_WRAP : 0;
		store16(q->device, where);
		store16(q->device + 1, EVENT_DESC);
	} else if (load16(avail_event(q)) != where) {
		store16(avail_event(q), where);
		q->wanted++;
	}
	full_barrier();
}

static bool has_work(struct queue *q)
{
	if (q->packed)
		return is_available(load16(&q->desc[q->avail].fourth),
				    q->avail_wrap);
	return load16(avail_idx(q)) != q->avail;
}

static void serve(struct queue *q);

static void resume(struct sim *sim, void *arg)
{
	struct queue *q = arg;

	(void)sim;
	q->resume = NULL;
	serve(q);
}

static bool usable(struct queue *q)
{
	return q->running && !q->given_up && map_running(q);
}

static void serve(struct queue *q)
{
	uint32_t budget = CHAINS_AT_ONCE;

	if (q->resume || !usable(q))
		return;
	if (!q->packed)
		check_avail_flags(q);
	do {
		while (budget && usable(q) && take_next(q))
			budget--;
		if (!usable(q))
			return;
		if (!budget) {
			q->resume = loop_after(0, resume, q);
			return;
		}
		ask_for_kick(q);
	} while (has_work(q));
}

/* Check whether kicks were asked for.  On a packed ring a kick is always valid. */
static void count_kicks(struct queue *q, uint64_t times)
{
	uint16_t idx;

	if (!times || !usable(q))
		return;
	q->kicks += times;
	if (has_work(q))
		check_either(q, KICK_MISSING, PACKED_KICK_MISSING, true,
			     "it came");
	if (q->packed || !read_avail_idx(q, &idx))
		return;
	check(q, KICK_UNWANTED, q->kicks <= q->wanted,
	      "%" PRIu64 " notifications, of which %" PRIu64 " may have been asked for",
	      q->kicks, q->wanted);
	/* Count each unwanted kick once. */
	if (q->kicks > q->wanted)
		q->kicks = q->wanted;
}

void ring_kicked(struct sim *sim, unsigned int queue, uint64_t times)
{
	struct queue *q;
	bool live = sim->status & STATUS_DRIVER_OK;

	if (times && !watch_check(&sim->watch, RULE_KICK_EARLY, live,
				  "queue %u: status is %#x", queue,
				  sim->status))
		return;
	if (times && !watch_check(&sim->watch, RULE_KICK_SUSPENDED,
				  !(sim->status & STATUS_SUSPEND),
				  "queue %u: status is %#x", queue, sim->status))
		return;
	if (!live || !sim->queue || queue >= sim->set.queues)
		return;
	q = &sim->queue[queue];
	count_kicks(q, times);
	serve(q);
}

void ring_check_idle(struct sim *sim)
{
	for (unsigned int n = 0; sim->queue && n < sim->set.queues; n++) {
		struct queue *q = &sim->queue[n];
		bool work = usable(q) && !q->resume && has_work(q);

		if (work && q->idle_work && q->idle_at == q->avail &&
		    q->idle_kicks == q->kicks) {
			check_either(q, KICK_MISSING, PACKED_KICK_MISSING,
				     false, "work at %u, and no notification",
				     q->avail);
			serve(q);
			work = false;
		}
		q->idle_work = work;
		q->idle_at = q->avail;
		q->idle_kicks = q->kicks;
	}
}

/* Starting and stopping. */

int ring_init(struct sim *sim)
{
	sim->queue = calloc(sim->set.queues, sizeof(*sim->queue));
	if (!sim->queue)
		return -1;
	for (unsigned int i = 0; i < sim->set.queues; i++) {
		sim->queue[i].sim = sim;
		sim->queue[i].index = i;
	}
	return 0;
}

void ring_free(struct sim *sim)
{
	for (unsigned int i = 0; sim->queue && i < sim->set.queues; i++) {
		ring_stop(sim, i);
		free(sim->queue[i].list);
		free(sim->queue[i].table);
	}
	free(sim->queue);
	sim->queue = NULL;
}

static bool check_size(struct queue *q)
{
	const struct sim *sim = q->sim;
	unsigned int size = q->at.size;
	unsigned int queues = has_feature(sim, BLK_F_MQ) ?
			      le16toh(sim->set.config.num_queues) : 1;
	bool good;

	good = check(q, RING_SIZE, size && size <= MAX_RING &&
		     size <= sim->set.ring_size,
		     "it has %u entries, and may have %u", size,
		     sim->set.ring_size);
	if (!q->packed)
		good &= check(q, SPLIT_SIZE_POWER, !(size & (size - 1)),
			      "it has %u entries", size);
	check(q, QUEUE_NUMBER, q->index < (queues ? queues : 1),
	      "it is set up, and there are %u queues", queues);
	return good;
}

static void check_alignment(struct queue *q)
{
	unsigned int driver = q->packed ? 4 : 2;

	check_either(q, SPLIT_ALIGNMENT, PACKED_ALIGNMENT,
		     !(q->at.desc % 16) && !(q->at.driver % driver) &&
		     !(q->at.device % 4),
		     "descriptors at %#" PRIx64 ", driver area at %#" PRIx64
		     ", device area at %#" PRIx64, q->at.desc, q->at.driver,
		     q->at.device);
}

static void begin(struct queue *q)
{
	q->given_up = false;
	q->avail = q->at.avail_index;
	q->avail_wrap = q->at.avail_wrap;
	q->used = q->packed ? q->avail : load16(used_idx(q));
	q->used_wrap = q->avail_wrap;
	q->seen_idx = q->avail;
	q->out = 0;
	q->kicks = 0;
	/* The new used ring asks for the first kick. */
	q->wanted = q->event_idx;
	q->idle_work = false;
	if (!q->packed)
		check(q, SPLIT_USED_FLAGS, !load16(q->device), "they are %#x",
		      load16(q->device));
}

int ring_start(struct sim *sim, unsigned int queue,
	       const struct queue_addresses *where)
{
	struct queue *q = &sim->queue[queue];

	ring_stop(sim, queue);
	q->at = *where;
	q->packed = has_feature(sim, F_RING_PACKED);
	q->event_idx = has_feature(sim, F_EVENT_IDX);
	if (!check_size(q) || (q->packed && where->avail_index >= where->size))
		return -1;
	check_alignment(q);
	q->slot = calloc(q->at.size, sizeof(*q->slot));
	q->buffer = calloc(q->packed ? 65536 : q->at.size, sizeof(*q->buffer));
	if (!q->slot || !q->buffer || !map_ring(q)) {
		ring_stop(sim, queue);
		return -1;
	}
	begin(q);
	q->running = true;
	return 0;
}

void ring_stop(struct sim *sim, unsigned int queue)
{
	struct queue *q = &sim->queue[queue];

	if (q->resume)
		loop_cancel(q->resume);
	q->resume = NULL;
	free(q->slot);
	free(q->buffer);
	q->slot = NULL;
	q->buffer = NULL;
	q->desc = NULL;
	q->running = false;
	q->life++;
}

void ring_state(const struct sim *sim, unsigned int queue,
		struct queue_addresses *where)
{
	const struct queue *q = &sim->queue[queue];

	*where = q->at;
	where->avail_index = q->avail;
	where->avail_wrap = q->avail_wrap;
}

/* Reading and writing chains. */

static size_t copy_segments(const struct segment *at, unsigned int nr,
			    size_t offset, uint8_t *bytes, size_t len,
			    bool write)
{
	size_t done = 0, piece;

	for (unsigned int i = 0; i < nr && done < len; i++) {
		if (offset >= at[i].len) {
			offset -= at[i].len;
			continue;
		}
		piece = at[i].len - offset;
		if (piece > len - done)
			piece = len - done;
		if (write)
			memcpy(at[i].base + offset, bytes + done, piece);
		else
			memcpy(bytes + done, at[i].base + offset, piece);
		done += piece;
		offset = 0;
	}
	return done;
}

size_t chain_read(const struct chain *chain, size_t offset, void *to,
		  size_t len)
{
	return copy_segments(chain->out, chain->nr_out, offset, to, len, false);
}

size_t chain_write(const struct chain *chain, size_t offset, const void *from,
		   size_t len)
{
	return copy_segments(chain->in, chain->nr_in, offset, (uint8_t *)from,
			     len, true);
}
