// SPDX-License-Identifier: GPL-2.0
/* Packed rings (VIRTIO 1.4, 2.8). */

#include <string.h>

#include "vdpadrv.h"

#define AVAIL	(1 << VRING_PACKED_DESC_F_AVAIL)
#define USED	(1 << VRING_PACKED_DESC_F_USED)

static struct vring_packed_desc *descs_of(const struct queue *q)
{
	return (void *)q->meta;
}

static struct vring_packed_desc_event *driver_event(const struct queue *q)
{
	return (void *)(q->meta + DRIVER_AREA);
}

static struct vring_packed_desc_event *device_event(const struct queue *q)
{
	return (void *)(q->meta + DEVICE_AREA);
}

static uint32_t packed_base(const struct queue *q)
{
	return q->avail | q->avail_wrap << 15 | q->used << 16 |
	       (uint32_t)q->used_wrap << 31;
}

/* Entries are used: those before @at in this round of the ring, the others in the last. */
static uint32_t packed_init(struct queue *q, uint16_t at, bool wrap)
{
	unsigned int i;

	memset(q->meta, 0, TABLES);
	for (i = 0; i < q->dev->num; i++)
		if ((i < at) == wrap)
			descs_of(q)[i].flags = AVAIL | USED;
	q->avail = at;
	q->used = at;
	q->avail_wrap = wrap;
	q->used_wrap = wrap;
	return packed_base(q);
}

static void packed_fill_table(void *table, const struct vring_desc *list, unsigned int nr)
{
	struct vring_packed_desc *desc = table;
	unsigned int i;

	for (i = 0; i < nr; i++) {
		desc[i].addr = list[i].addr;
		desc[i].len = list[i].len;
		desc[i].flags = list[i].flags;
	}
}

static unsigned int packed_head(const struct queue *q, unsigned int s)
{
	(void)q;
	return s;
}

static void packed_put(struct queue *q, unsigned int s, const struct vring_desc *list,
		       unsigned int nr, unsigned int head)
{
	struct vring_packed_desc *desc = descs_of(q), *first = desc + q->avail;
	uint16_t flags, first_flags = 0;
	unsigned int i;

	(void)s;
	q->added += nr;
	for (i = 0; i < nr; i++) {
		flags = list[i].flags | (q->avail_wrap ? AVAIL : USED);
		desc[q->avail].addr = list[i].addr;
		desc[q->avail].len = list[i].len;
		desc[q->avail].id = head;
		if (i)
			desc[q->avail].flags = flags;
		else
			first_flags = flags;
		if (++q->avail == q->dev->num) {
			q->avail = 0;
			q->avail_wrap = !q->avail_wrap;
		}
	}
	store(&first->flags, first_flags);
}

static bool packed_wants_kick(struct queue *q, uint16_t old)
{
	struct vring_packed_desc_event *event = device_event(q);
	uint16_t off, flags;

	/* Either the device sees the chains, or the driver sees that it must kick. */
	mb();
	flags = load(&event->flags);
	if (flags != VRING_PACKED_EVENT_FLAG_DESC || !q->dev->event_idx)
		return flags != VRING_PACKED_EVENT_FLAG_DISABLE;
	off = load(&event->off_wrap);
	return vring_need_event((off & 0x7fff) - (off >> 15 == q->avail_wrap ? 0 : q->dev->num),
				q->avail, old);
}

static bool packed_has_used(const struct queue *q)
{
	uint16_t flags = load(&descs_of(q)[q->used].flags);

	return !!(flags & AVAIL) == q->used_wrap && !!(flags & USED) == q->used_wrap;
}

static unsigned int packed_peek(const struct queue *q, unsigned int *id, uint32_t *len)
{
	const struct vring_packed_desc *desc = &descs_of(q)[q->used];

	*id = desc->id;
	*len = desc->len;
	return *id;
}

static void packed_pop(struct queue *q, unsigned int descs)
{
	q->used += descs;
	if (q->used >= q->dev->num) {
		q->used -= q->dev->num;
		q->used_wrap = !q->used_wrap;
	}
}

static void packed_arm(struct queue *q, unsigned int later)
{
	struct vring_packed_desc_event *event = driver_event(q);
	bool wrap = q->used_wrap;

	if (!q->dev->event_idx) {
		store(&event->flags, VRING_PACKED_EVENT_FLAG_ENABLE);
		return;
	}
	later += q->used;
	if (later >= q->dev->num) {
		later -= q->dev->num;
		wrap = !wrap;
	}
	store(&event->off_wrap, later | wrap << 15);
	store(&event->flags, VRING_PACKED_EVENT_FLAG_DESC);
}

static void packed_disarm(struct queue *q)
{
	store(&driver_event(q)->flags, VRING_PACKED_EVENT_FLAG_DISABLE);
}

static void packed_confuse(struct queue *q)
{
	/* Flag 3 is reserved, and an offset can be beyond the ring. */
	store(&driver_event(q)->off_wrap, rnd(&q->random));
	store(&driver_event(q)->flags, rnd(&q->random) & 1 ? 3 : rnd(&q->random));
}

const struct ring_ops packed_ring = {
	.init = packed_init,
	.base = packed_base,
	.fill_table = packed_fill_table,
	.head = packed_head,
	.put = packed_put,
	.wants_kick = packed_wants_kick,
	.has_used = packed_has_used,
	.peek = packed_peek,
	.pop = packed_pop,
	.arm = packed_arm,
	.disarm = packed_disarm,
	.confuse = packed_confuse,
};
