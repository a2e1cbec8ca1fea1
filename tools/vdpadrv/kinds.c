// SPDX-License-Identifier: GPL-2.0
/*
 * Kinds of malformed chains: by what they do to the device, and which ring they need.
 */

#define _GNU_SOURCE
#include <string.h>
#include <unistd.h>

#include "vdpadrv.h"

/* Chains that no driver may make */

static void make_loop(struct queue *q, unsigned int s, struct chain *c)
{
	unsigned int i;

	c->list[1].next = s * q->per + rnd(&q->random) % 2;
	if (!q->dev->packed)
		return;
	c->nr = q->dev->num;
	for (i = 1; i < c->nr; i++)
		c->list[i] = c->list[1];
}

static void make_far_next(struct queue *q, unsigned int s, struct chain *c)
{
	(void)s;
	c->list[1].next = q->dev->num + rnd(&q->random) % (65536 - q->dev->num);
}

static void make_table(struct queue *q, unsigned int s, struct chain *c)
{
	c->list[0] = fill_table(q, s, c->list, c->nr);
	c->nr = 1;
}

static struct vring_desc *table_of(struct queue *q, unsigned int s)
{
	return (struct vring_desc *)(q->meta + TABLES) + s * MAX_LIST;
}

static void make_table_length(struct queue *q, unsigned int s, struct chain *c)
{
	make_table(q, s, c);
	c->list[0].len = rnd(&q->random) & 1 ? 0 : 1 + rnd(&q->random) % 47;
	if (c->list[0].len % 16 == 0)
		c->list[0].len = 0;
}

static void make_table_nested(struct queue *q, unsigned int s, struct chain *c)
{
	c->list[1].flags |= VRING_DESC_F_INDIRECT;
	make_table(q, s, c);
}

static void make_table_long(struct queue *q, unsigned int s, struct chain *c)
{
	make_table(q, s, c);
	c->list[0].len = 16 << (9 + rnd(&q->random) % 12);
}

static void make_table_next(struct queue *q, unsigned int s, struct chain *c)
{
	c->list[0] = fill_table(q, s, c->list, c->nr);
	c->list[0].flags |= VRING_DESC_F_NEXT;
	c->list[0].next = s * q->per + 1;
}

static void make_table_unshared(struct queue *q, unsigned int s, struct chain *c)
{
	const uint64_t places[] = { IOVA + mem_bytes - 16, IOVA + mem_bytes + 4096, ~0ULL - 15,
				    rnd(&q->random) << 24 };

	make_table(q, s, c);
	c->list[0].addr = places[rnd(&q->random) % LENGTH(places)];
}

static void make_table_loop(struct queue *q, unsigned int s, struct chain *c)
{
	make_table(q, s, c);
	table_of(q, s)[1].next = rnd(&q->random) % 2;
}

static void make_table_far_next(struct queue *q, unsigned int s, struct chain *c)
{
	make_table(q, s, c);
	table_of(q, s)[1].next = 3 + rnd(&q->random) % (65536 - 3);
}

static void make_avail_jump(struct queue *q, unsigned int s, struct chain *c)
{
	(void)s;
	c->jump = q->dev->num + rnd(&q->random) % (65536 - 2 * q->dev->num);
}

static void make_far_head(struct queue *q, unsigned int s, struct chain *c)
{
	(void)s;
	c->head = q->dev->num + rnd(&q->random) % (65536 - q->dev->num);
}

static void make_order(struct queue *q, unsigned int s, struct chain *c)
{
	(void)q;
	(void)s;
	c->list[0].flags |= VRING_DESC_F_WRITE;
	c->list[1].flags &= ~VRING_DESC_F_WRITE;
}

static void make_no_status(struct queue *q, unsigned int s, struct chain *c)
{
	c->list[1].flags = 0;
	c->nr = 2;
	link_chain(q, s, c);
}

static void make_status_unshared(struct queue *q, unsigned int s, struct chain *c)
{
	(void)s;
	c->list[2].addr = rnd(&q->random) & 1 ? IOVA - 1 : IOVA + mem_bytes;
}

static void make_status_readonly(struct queue *q, unsigned int s, struct chain *c)
{
	(void)s;
	c->list[2].addr = IOVA + readonly_at(q->dev);
}

static void make_zero_length(struct queue *q, unsigned int s, struct chain *c)
{
	(void)s;
	c->list[rnd(&q->random) % 3].len = 0;
}

/* Addresses */

static void make_header_unshared(struct queue *q, unsigned int s, struct chain *c)
{
	(void)s;
	c->list[0].addr = rnd(&q->random) & 1 ? IOVA - 8 : ~0ULL - 7;
}

static void make_data_unshared(struct queue *q, unsigned int s, struct chain *c)
{
	const uint64_t places[] = { 0, rnd(&q->random) << 24, ~0ULL - 4095, ~0ULL - 511,
				    IOVA + mem_bytes };

	(void)s;
	c->list[1].addr = places[rnd(&q->random) % LENGTH(places)];
}

static void make_data_straddles(struct queue *q, unsigned int s, struct chain *c)
{
	(void)s;
	c->list[1].addr = IOVA + mem_bytes - 1 - rnd(&q->random) % 4095;
}

static void make_read(struct queue *q, unsigned int s, struct chain *c)
{
	struct virtio_blk_outhdr *head = (void *)(mem + c->list[0].addr - IOVA);

	head->type = VIRTIO_BLK_T_IN;
	c->list[1].flags |= VRING_DESC_F_WRITE;
	link_chain(q, s, c);
}

/* All of the buffer cannot be written, or what is behind its beginning. */
static void make_data_readonly(struct queue *q, unsigned int s, struct chain *c)
{
	uint32_t at = rnd(&q->random) & 1 ? HEADERS - 512 : readonly_at(q->dev);

	make_read(q, s, c);
	c->list[1].addr = IOVA + at + rnd(&q->random) % 2;
}

/* The request is well formed; when its driver wants an interrupt is not. */
static void make_odd_event(struct queue *q, unsigned int s, struct chain *c)
{
	make_read(q, s, c);
	ring_of(q)->confuse(q);
	c->status = VIRTIO_BLK_S_OK;
}

/* VIRTIO 1.4, 2.8.7: in a table of a packed ring only WRITE has a meaning. */
static void make_table_flags(struct queue *q, unsigned int s, struct chain *c)
{
	make_read(q, s, c);
	c->list[rnd(&q->random) % 3].flags |= VRING_DESC_F_INDIRECT;
	make_table(q, s, c);
	c->status = VIRTIO_BLK_S_OK;
}

/* Chains that the device may accept */

static struct vring_desc garbage(struct queue *q)
{
	uint64_t r = rnd(&q->random);
	struct vring_desc desc = { .addr = IOVA + rnd(&q->random) % (mem_bytes + 0x2000),
				   .len = r % 3 ? r % 5000 : r, .flags = (r >> 32) & 7,
				   .next = (r >> 35) % 8 };

	/* Most addresses are shared, and some are in the ring itself. */
	if (r % 16 == 0)
		desc.addr = rnd(&q->random) << 20 | (r & 0xfff);
	return desc;
}

static void make_garbage(struct queue *q, unsigned int s, struct chain *c)
{
	unsigned int i;

	(void)s;
	c->nr = 1 + rnd(&q->random) % (q->per < 8 ? q->per : 8);
	for (i = 0; i < c->nr; i++)
		c->list[i] = garbage(q);
}

/* The same head again, while the request is in flight. */
static void make_twice(struct queue *q, unsigned int s, struct chain *c)
{
	unsigned int most = q->dev->packed ? (q->dev->num - q->descs) / 3 :
			    q->dev->num - q->in_flight;

	make_read(q, s, c);
	c->times = 1 + rnd(&q->random) % most;
}

/* Heads of earlier requests, or of none. */
static void make_stale(struct queue *q, unsigned int s, struct chain *c)
{
	make_read(q, s, c);
	c->jump = 1 + rnd(&q->random) % (q->dev->num - 1);
}

/* The device writes its data to the ring that it reads. */
static void make_own_ring(struct queue *q, unsigned int s, struct chain *c)
{
	make_read(q, s, c);
	c->list[1] = part(q->index * META + rnd(&q->random) % 8 * 512, 4096 * 3, true);
	link_chain(q, s, c);
}

/* Entries behind the chain are garbage, and available by their wrap counters. */
static void make_wrap(struct queue *q, unsigned int s, struct chain *c)
{
	struct vring_packed_desc *ring = (void *)q->meta;
	unsigned int i, at = q->avail, num = q->dev->num;
	bool wrap = q->avail_wrap;
	struct vring_desc desc;

	make_read(q, s, c);
	for (i = 0; i < num - q->descs; i++) {
		desc = garbage(q);
		ring[at].addr = desc.addr;
		ring[at].len = desc.len;
		ring[at].id = rnd(&q->random);
		/* The first one is the chain's, which is not there yet. */
		if (i)
			ring[at].flags = desc.flags | (wrap ? 1 << VRING_PACKED_DESC_F_AVAIL :
						       1 << VRING_PACKED_DESC_F_USED);
		if (++at == num) {
			at = 0;
			wrap = !wrap;
		}
	}
}

const struct kind kinds[] = {
	{ "loop", BREAKS, EMPTY_RING, make_loop },
	{ "next-range", BREAKS, SPLIT_ONLY, make_far_next },
	{ "table-length", BREAKS, INDIRECT, make_table_length },
	{ "table-nested", BREAKS, INDIRECT | SPLIT_ONLY, make_table_nested },
	{ "table-long", BREAKS, INDIRECT, make_table_long },
	{ "table-next", BREAKS, INDIRECT, make_table_next },
	{ "table-unshared", BREAKS, INDIRECT, make_table_unshared },
	{ "table-loop", BREAKS, INDIRECT | SPLIT_ONLY, make_table_loop },
	{ "table-next-range", BREAKS, INDIRECT | SPLIT_ONLY, make_table_far_next },
	{ "table-refused", BREAKS, NO_INDIRECT, make_table },
	{ "avail-jump", BREAKS, SPLIT_ONLY | ALONE, make_avail_jump },
	{ "head-range", BREAKS, SPLIT_ONLY, make_far_head },
	{ "order", BREAKS, MAY_INDIRECT, make_order },
	{ "no-status", BREAKS, MAY_INDIRECT, make_no_status },
	{ "status-unshared", BREAKS, MAY_INDIRECT, make_status_unshared },
	{ "status-readonly", BREAKS, MAY_INDIRECT, make_status_readonly },
	{ "zero-length", BREAKS, MAY_INDIRECT, make_zero_length },
	{ "header-unshared", ANSWERS, MAY_INDIRECT, make_header_unshared },
	{ "header-short", ANSWERS, MAY_INDIRECT, make_short_header },
	{ "data-unshared", ANSWERS, MAY_INDIRECT, make_data_unshared },
	{ "data-straddles", ANSWERS, MAY_INDIRECT, make_data_straddles },
	{ "data-readonly", ANSWERS, MAY_INDIRECT, make_data_readonly },
	{ "data-length", ANSWERS, MAY_INDIRECT, make_odd_length },
	{ "data-long", ANSWERS, MAY_INDIRECT, make_long_data },
	{ "data-missing", ANSWERS, MAY_INDIRECT, make_no_data },
	{ "sector-range", ANSWERS, MAY_INDIRECT, make_far_sector },
	{ "type", ANSWERS, MAY_INDIRECT, make_unknown_type },
	{ "ranges-length", ANSWERS, MAY_INDIRECT, make_ranges_odd },
	{ "ranges-many", ANSWERS, MAY_INDIRECT, make_ranges_many },
	{ "ranges-range", ANSWERS, MAY_INDIRECT, make_ranges_far },
	{ "ranges-flags", ANSWERS, MAY_INDIRECT, make_ranges_flags },
	{ "id-unshared", ANSWERS, MAY_INDIRECT, make_id_unshared },
	{ "table-flags", ANSWERS, INDIRECT | PACKED_ONLY | WELL_FORMED, make_table_flags },
	{ "event-index", ANSWERS, MAY_INDIRECT | WELL_FORMED, make_odd_event },
	{ "garbage", EITHER, 0, make_garbage },
	{ "twice", EITHER, 0, make_twice },
	{ "stale", EITHER, SPLIT_ONLY, make_stale },
	{ "own-ring", EITHER, 0, make_own_ring },
	{ "wrap", EITHER, PACKED_ONLY, make_wrap },
	{ "id", EITHER, PACKED_ONLY, make_far_head },
	{ "scribble", EITHER, SCRIBBLE, make_garbage },
};

const unsigned int nr_kinds = LENGTH(kinds);

_Static_assert(LENGTH(kinds) <= MAX_KINDS, "each kind has a count");

bool kind_fits(const struct queue *q, const struct kind *kind)
{
	const struct dev *d = q->dev;

	if (kind->flags & (d->packed ? SPLIT_ONLY : PACKED_ONLY) ||
	    kind->flags & (d->indirect ? NO_INDIRECT : INDIRECT))
		return false;
	if (kind->flags & EMPTY_RING && d->packed)
		return !q->descs;
	/* None of the others is longer. */
	return !d->packed || q->descs + 4 <= d->num;
}

/* A kind with this outcome that the ring can have, or NULL. */
const struct kind *pick_kind(struct queue *q, enum outcome outcome)
{
	const struct kind *kind;
	unsigned int i;

	for (i = 0; i < 200; i++) {
		kind = &kinds[rnd(&q->random) % nr_kinds];
		if (kind->outcome == outcome && kind_fits(q, kind))
			return kind;
	}
	return NULL;
}

void put_kind(struct queue *q, unsigned int s, const struct kind *kind)
{
	/* What is verified elsewhere on the disk must stay. */
	uint64_t sector = rnd(&q->random) % (q->dev->config.capacity / 128) * 128;
	bool write = rnd(&q->random) & 1;
	struct chain c = {
		.list = { header(q, s, write ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN, sector),
			  part(buffer_of(q, s), 4096, !write), status_desc(q, s) },
		.nr = 3, .head = ring_of(q)->head(q, s), .times = 1,
		.status = VIRTIO_BLK_S_IOERR };

	link_chain(q, s, &c);
	kind->make(q, s, &c);
	if (kind->flags & MAY_INDIRECT && q->dev->indirect && rnd(&q->random) & 1)
		make_table(q, s, &c);
	q->slots[s].kind = kind;
	q->slots[s].status = c.status;
	put_raw(q, s, c.list, c.nr, c.head);
	while (--c.times)
		ring_of(q)->put(q, s, c.list, c.nr, c.head);
	q->avail += c.jump;
}

/* Change random parts of the ring while the device uses it. */
void scribble(struct queue *q)
{
	uint64_t end = now_ms() + 10, one = 1;
	uint32_t at;

	do {
		at = rnd(&q->random) % 4 * 0x1000;
		if (at == STATUSES)
			at = TABLES;
		at += rnd(&q->random) % (at == DEVICE_AREA || at == DRIVER_AREA ? 64 : 1024);
		if (rnd(&q->random) % 2 && at < DRIVER_AREA)
			((struct vring_desc *)q->meta)[at % 16] = garbage(q);
		else
			store(q->meta + at, (uint8_t)rnd(&q->random));
		if (write(q->kick, &one, sizeof(one)) < 0)
			fail("kick: %s", strerror(errno));
	} while (now_ms() < end);
}

/* The device has refused one, or has seen it. */
void count_kind(const struct kind *kind)
{
	if (!(kind->flags & WELL_FORMED))
		count(&counts->malformed);
	count(&counts->kinds[kind - kinds]);
}
