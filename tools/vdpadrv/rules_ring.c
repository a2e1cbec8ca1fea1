// SPDX-License-Identifier: GPL-2.0
/* Rules of rings and notifications. */

#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "rules.h"

#define CANARY	0xa5
#define ON_DISK	0x3c
#define BYTES	4096U

/* Framing */

/* Cut the header after @cut bytes, and the data into three buffers. */
static void check_cut_header(struct queue *q, unsigned int cut)
{
	uint32_t at = DATA + BUFFER, i;
	struct vring_desc h = header(q, 0, VIRTIO_BLK_T_IN, 64), h2 = h;
	struct vring_desc list[] = { h, h2, part(at, 1, true), part(at + 1, 510, true),
				     part(at + 511, BYTES - 511, true), status_desc(q, 0) };

	list[0].len = cut;
	list[1].addr += cut;
	list[1].len -= cut;
	memset(mem + at, CANARY, BYTES);
	expect_status(send_chain(q, "header in two buffers", list, LENGTH(list), NULL),
		      VIRTIO_BLK_S_OK, "header in two buffers");
	for (i = 0; i < BYTES; i++)
		if (mem[at + i] != ON_DISK)
			fail("header cut at %u: byte %u of the data is %#x", cut, i, mem[at + i]);
}

/* Header and data, and then data and status, are in one buffer. */
static void check_joined(struct queue *q)
{
	uint32_t at = DATA + BUFFER, i;
	struct virtio_blk_outhdr *head = (void *)(mem + at);
	struct vring_desc write[] = { part(at, sizeof(*head) + BYTES, false), status_desc(q, 0) };
	struct vring_desc read[] = { header(q, 0, VIRTIO_BLK_T_IN, 128),
				     part(at, BYTES + 1, true) };

	*head = (struct virtio_blk_outhdr){ .type = VIRTIO_BLK_T_OUT, .sector = 128 };
	memset(head + 1, ON_DISK, BYTES);
	expect_status(send_chain(q, "header and data in one buffer", write, LENGTH(write), NULL),
		      VIRTIO_BLK_S_OK, "header and data in one buffer");
	memset(mem + at, CANARY, BYTES + 1);
	send_chain(q, "data and status in one buffer", read, LENGTH(read), NULL);
	expect_status(mem[at + BYTES], VIRTIO_BLK_S_OK, "data and status in one buffer");
	for (i = 0; i < BYTES; i++)
		if (mem[at + i] != ON_DISK)
			fail("data and status in one buffer: byte %u is %#x", i, mem[at + i]);
}

void check_framing(struct dev *d)
{
	unsigned int cut;
	struct queue *q;

	/* A slot of a split ring needs six descriptors. */
	d->depth = 8;
	q = begin(d);
	fill_disk(q, 64, ON_DISK, BYTES);
	for (cut = 1; cut < sizeof(struct virtio_blk_outhdr); cut++)
		check_cut_header(q, cut);
	check_joined(q);
}

/* What the device writes */

static const struct {
	const char *what;
	uint32_t type;
	bool at_end;		/* at the capacity, where nothing is */
	uint32_t bytes;		/* of the buffer; 0: none */
	bool in;		/* the device may write to it */
	uint8_t status;
} requests[] = {
	{ "read", VIRTIO_BLK_T_IN, false, BYTES, true, VIRTIO_BLK_S_OK },
	{ "write", VIRTIO_BLK_T_OUT, false, BYTES, false, VIRTIO_BLK_S_OK },
	{ "flush", VIRTIO_BLK_T_FLUSH, false, 0, false, VIRTIO_BLK_S_OK },
	{ "flush with a buffer", VIRTIO_BLK_T_FLUSH, false, 512, true, VIRTIO_BLK_S_OK },
	{ "ID", VIRTIO_BLK_T_GET_ID, false, 20, true, VIRTIO_BLK_S_OK },
	{ "ID to 8 bytes", VIRTIO_BLK_T_GET_ID, false, 8, true, VIRTIO_BLK_S_OK },
	{ "ID to 64 bytes", VIRTIO_BLK_T_GET_ID, false, 64, true, VIRTIO_BLK_S_OK },
	{ "unknown type", 0x7777, false, 512, true, VIRTIO_BLK_S_UNSUPP },
	{ "read beyond the capacity", VIRTIO_BLK_T_IN, true, 512, true, VIRTIO_BLK_S_IOERR },
	{ "write beyond the capacity", VIRTIO_BLK_T_OUT, true, 512, false, VIRTIO_BLK_S_IOERR },
	{ "read of 1000 bytes", VIRTIO_BLK_T_IN, false, 1000, true, VIRTIO_BLK_S_IOERR },
	{ "zeroes of a wrong length", VIRTIO_BLK_T_WRITE_ZEROES, false, 15, false,
	  VIRTIO_BLK_S_IOERR },
};

/* Where the device may write: buffers, and its part of the ring. */
struct places {
	struct seg segs[8];
	unsigned int nr;
};

static void allow(struct places *places, uint32_t at, uint32_t len)
{
	places->segs[places->nr++] = (struct seg){ at, len };
}

static void allow_ring(struct places *places, const struct queue *q, uint16_t first)
{
	const uint32_t ring = q->index * META;
	const struct vring_used *used;

	if (!q->dev->packed) {
		allow(places, ring + DEVICE_AREA, sizeof(*used) + 2 +
		      q->dev->num * sizeof(used->ring[0]));
		return;
	}
	allow(places, ring + DEVICE_AREA, sizeof(struct vring_packed_desc_event));
	/* Length, id and flags of the first descriptor, but not its address. */
	allow(places, ring + first * sizeof(struct vring_packed_desc) + 8, 8);
}

/* Compare the shared memory with a copy from before the request. */
static void compare_memory(uint8_t *copy, const struct places *places, const char *what)
{
	uint32_t i;

	for (i = 0; i < places->nr; i++)
		memcpy(copy + places->segs[i].at, mem + places->segs[i].at, places->segs[i].len);
	for (i = 0; i < mem_bytes; i++)
		if (copy[i] != mem[i])
			fail("%s: the device wrote %#x to offset %#x, where it may not write",
			     what, mem[i], i);
}

/* The first @len bytes that the device may write have been written. */
static void compare_length(uint32_t at, uint32_t bytes, uint8_t status, uint32_t len,
			   const char *what)
{
	uint32_t i;

	if (len > bytes + 1)
		fail("%s: used length %u, and the buffers have %u bytes", what, len, bytes + 1);
	if (len == bytes + 1 && status == 0xff)
		fail("%s: used length %u, and there is no status", what, len);
	for (i = 0; i < len && i < bytes; i++)
		if (mem[at + i] == CANARY)
			fail("%s: used length %u, and byte %u was not written", what, len, i);
}

/* Send each of the requests, and look at all of the memory, or at the used length. */
static void check_requests(struct dev *d, bool all_memory)
{
	uint8_t *copy = malloc(mem_bytes);
	uint32_t at = DATA + BUFFER, len;
	struct queue *q = begin(d);
	unsigned int i;

	if (!copy)
		fail("malloc: %s", strerror(errno));
	fill_disk(q, 0, ON_DISK, BYTES);
	for (i = 0; i < LENGTH(requests); i++) {
		uint64_t sector = requests[i].at_end ? d->config.capacity : 0;
		uint32_t bytes = requests[i].bytes;
		struct vring_desc list[] = { header(q, 0, requests[i].type, sector),
					     part(at, bytes, requests[i].in), { } };
		struct places places = { .nr = 0 };
		uint16_t first = q->avail;

		list[1 + !!bytes] = status_desc(q, 0);
		memset(mem + at, requests[i].in ? CANARY : ON_DISK, 2 * BYTES);
		put_chain(q, 0, list, 2 + !!bytes);
		/* All that the driver writes is written before the copy. */
		ring_of(q)->wants_kick(q, q->avail - q->added);
		memcpy(copy, mem, mem_bytes);
		kick(q, true);
		await_used(q, requests[i].what, 100);
		allow(&places, q->index * META + STATUSES, 1);
		if (requests[i].in)
			allow(&places, at, bytes);
		allow_ring(&places, q, first);
		/* The device asks for kicks again after that. */
		usleep(1000);
		if (all_memory)
			compare_memory(copy, &places, requests[i].what);
		expect_status(finish(q, requests[i].what, &len), requests[i].status,
			      requests[i].what);
		if (!all_memory)
			compare_length(at, requests[i].in ? bytes : 0, *status_of(q, 0), len,
				       requests[i].what);
	}
	free(copy);
}

void check_writes(struct dev *d)
{
	check_requests(d, true);
}

void check_used_length(struct dev *d)
{
	check_requests(d, false);
}

/* All is written when the used entry is there: data, status, and the entry's length. */
void check_used_last(struct dev *d)
{
	uint32_t at = buffer_of(&d->queues[0], 0), bytes = d->config.blk_size, len;
	unsigned int i, id, slot;
	struct queue *q = begin(d);

	fill_disk(q, 0, ON_DISK, bytes);
	for (i = 0; i < 300; i++) {
		mem[at] = CANARY;
		mem[at + bytes - 1] = CANARY;
		put_read(q, 0);
		kick(q, true);
		await_used(q, "read", 0);
		slot = ring_of(q)->peek(q, &id, &len);
		if (slot || len != bytes + 1 || *status_of(q, 0) != VIRTIO_BLK_S_OK ||
		    mem[at] != ON_DISK || mem[at + bytes - 1] != ON_DISK)
			fail("used entry with id %u and length %u, status %#x, data %#x to %#x",
			     id, len, *status_of(q, 0), mem[at], mem[at + bytes - 1]);
		take_used(q, &len);
	}
}

/* The data is there when the status byte changes. */
void check_status_last(struct dev *d)
{
	uint32_t at = buffer_of(&d->queues[0], 0), bytes = d->config.blk_size;
	struct queue *q = begin(d);
	unsigned int i;
	uint64_t end;

	fill_disk(q, 0, ON_DISK, bytes);
	for (i = 0; i < 300; i++) {
		mem[at] = CANARY;
		mem[at + bytes - 1] = CANARY;
		put_read(q, 0);
		kick(q, true);
		end = now_ms() + hang_ms;
		while (load(status_of(q, 0)) == 0xff)
			check_hang(q, "read", end);
		if (mem[at] != ON_DISK || mem[at + bytes - 1] != ON_DISK)
			fail("status %u, and the data is %#x to %#x", *status_of(q, 0), mem[at],
			     mem[at + bytes - 1]);
		finish(q, "read", NULL);
	}
}

/* Indirect tables */

void check_table_write_flag(struct dev *d)
{
	struct vring_desc list[3];
	struct queue *q;

	d->indirect = true;
	q = begin(d);
	list[0] = header(q, 0, VIRTIO_BLK_T_IN, 0);
	list[1] = part(buffer_of(q, 0), d->config.blk_size, true);
	list[2] = status_desc(q, 0);
	list[0] = fill_table(q, 0, list, 3);
	list[0].flags |= VRING_DESC_F_WRITE;
	put_raw(q, 0, list, 1, ring_of(q)->head(q, 0));
	kick(q, false);
	expect_status(finish(q, "a table with the flag WRITE", NULL), VIRTIO_BLK_S_OK,
		      "a table with the flag WRITE");
}

void check_table_after_chain(struct dev *d)
{
	struct vring_desc list[3];
	struct queue *q;
	uint32_t at;

	d->indirect = true;
	q = begin(d);
	at = buffer_of(q, 0);
	fill_disk(q, 0, ON_DISK, d->config.blk_size);
	memset(mem + at, CANARY, d->config.blk_size);
	list[0] = header(q, 0, VIRTIO_BLK_T_IN, 0);
	list[1] = part(at, d->config.blk_size, true);
	list[2] = status_desc(q, 0);
	list[1] = fill_table(q, 0, list + 1, 2);
	list[0].flags |= VRING_DESC_F_NEXT;
	list[0].next = 1;
	put_raw(q, 0, list, 2, ring_of(q)->head(q, 0));
	kick(q, false);
	expect_status(finish(q, "a table at the end of a chain", NULL), VIRTIO_BLK_S_OK,
		      "a table at the end of a chain");
	if (mem[at] != ON_DISK)
		fail("a table at the end of a chain: data %#x", mem[at]);
}

/* Interrupts */

static void complete_one(struct queue *q)
{
	uint32_t len;

	put_read(q, 0);
	kick(q, true);
	await_used(q, "read", 100);
	take_used(q, &len);
}

/* Flags alone decide; where the driver would like to have an interrupt is ignored. */
void check_signal_without_index(struct dev *d)
{
	struct queue *q;
	unsigned int i;

	d->event_idx = false;
	q = begin(d);
	for (i = 0; i < 4; i++) {
		ring_of(q)->arm(q, i * 1000);
		complete_one(q);
		if (!was_called(q, hang_ms))
			fail("no interrupt, and the driver has not suppressed it");
		ring_of(q)->disarm(q);
		complete_one(q);
		if (was_called(q, QUIET_MS))
			fail("an interrupt that the driver has suppressed");
	}
}

/* An interrupt for the entry that the driver names, and for none before. */
static void check_signal_at(struct queue *q, unsigned int later)
{
	unsigned int i;

	ring_of(q)->arm(q, later * (q->dev->packed ? 3 : 1));
	for (i = 0; i < later; i++)
		complete_one(q);
	if (was_called(q, QUIET_MS))
		fail("an interrupt for entry %u or before, and the driver asked for one after %u",
		     later - 1, later);
	complete_one(q);
	if (!was_called(q, hang_ms))
		fail("no interrupt for entry %u, for which the driver asked", later);
}

void check_signal_index(struct dev *d)
{
	const unsigned int bases[] = { 0, 1, 2 };
	struct queue *q;
	unsigned int i;

	for (i = 0; i < LENGTH(bases); i++) {
		/* With the next bases the rings and their indexes wrap around. */
		d->any_base = i;
		d->num = i == 2 ? 8 : d->max_num;
		d->depth = 2;
		q = begin(d);
		check_signal_at(q, 0);
		check_signal_at(q, 1);
		check_signal_at(q, i == 2 ? 1 : 5);
		check_signal_at(q, 0);
	}
}

void check_signal_flag_ignored(struct dev *d)
{
	struct queue *q = begin(d);
	struct vring_avail *avail = (void *)(q->meta + DRIVER_AREA);

	ring_of(q)->arm(q, 0);
	store(&avail->flags, VRING_AVAIL_F_NO_INTERRUPT);
	complete_one(q);
	if (!was_called(q, hang_ms))
		fail("with an event index the device does not ignore the flag");
}

/* Kicks */

void check_kick_flags(struct dev *d)
{
	unsigned int mode, i;
	uint16_t flags;
	uint64_t end;

	for (mode = 0; mode < 2; mode++) {
		struct vring_used *used;
		struct queue *q;

		d->event_idx = mode;
		q = begin(d);
		used = (void *)(q->meta + DEVICE_AREA);
		for (i = 0; i < 100; i++) {
			put_read(q, 0);
			kick(q, true);
			end = now_ms() + hang_ms;
			while (!has_used(q)) {
				check_hang(q, "read", end);
				flags = load(&used->flags);
				if (flags > !mode)
					fail("flags %#x of the used ring, %s an event index",
					     flags, mode ? "with" : "without");
			}
			take_used(q, &(uint32_t){ 0 });
		}
	}
}

void check_kick_spurious(struct dev *d)
{
	struct queue *q = begin(d);
	unsigned int i;

	*status_of(q, 0) = 0xff;
	for (i = 0; i < 100; i++)
		kick(q, true);
	must_be_quiet(q, "after kicks without a request");
	if (get_status(d) & NEEDS_RESET)
		fail("status %#x after kicks without a request", get_status(d));
	put_read(q, 0);
	kick(q, false);
	expect_status(finish(q, "read", NULL), VIRTIO_BLK_S_OK, "read after spurious kicks");
}

/* Packed rings */

/* A chain is there, except that its first descriptor is not marked as available. */
void check_packed_available(struct dev *d)
{
	struct queue *q = begin(d);
	struct vring_packed_desc *first = (struct vring_packed_desc *)q->meta + q->avail;
	uint16_t flags;

	put_read(q, 0);
	flags = first->flags;
	store(&first->flags, flags ^ (1 << VRING_PACKED_DESC_F_AVAIL));
	kick(q, true);
	must_be_quiet(q, "a descriptor that is not available");
	store(&first->flags, flags);
	q->added = 3;
	kick(q, true);
	expect_status(finish(q, "read", NULL), VIRTIO_BLK_S_OK, "a descriptor that is available");
}

void check_packed_used_stays(struct dev *d)
{
	struct queue *q = begin(d);
	struct vring_packed_desc *ring = (void *)q->meta, kept[6];
	unsigned int i;

	complete_one(q);
	complete_one(q);
	memcpy(kept, ring, sizeof(kept));
	for (i = 0; i < 8; i++)
		complete_one(q);
	if (memcmp(kept, ring, sizeof(kept)))
		fail("the device changed a descriptor after it had marked it as used");
}
