// SPDX-License-Identifier: GPL-2.0
/* Split rings (VIRTIO 1.4, 2.7). */

#include <string.h>

#include "vdpadrv.h"

static struct vring_avail *avail_of(const struct queue *q)
{
	return (void *)(q->meta + DRIVER_AREA);
}

static struct vring_used *used_of(const struct queue *q)
{
	return (void *)(q->meta + DEVICE_AREA);
}

static uint16_t *used_event(const struct queue *q)
{
	return &avail_of(q)->ring[q->dev->num];
}

static uint16_t *avail_event(const struct queue *q)
{
	return (uint16_t *)&used_of(q)->ring[q->dev->num];
}

static uint32_t split_init(struct queue *q, uint16_t at, bool wrap)
{
	(void)wrap;
	memset(q->meta, 0, TABLES);
	q->avail = at;
	q->used = at;
	avail_of(q)->idx = at;
	used_of(q)->idx = at;
	return at;
}

static uint32_t split_base(const struct queue *q)
{
	return q->avail;
}

static void split_fill_table(void *table, const struct vring_desc *list, unsigned int nr)
{
	struct vring_desc *desc = table;
	unsigned int i;

	for (i = 0; i < nr; i++) {
		desc[i] = list[i];
		desc[i].next = i + 1;
		if (i + 1 < nr)
			desc[i].flags |= VRING_DESC_F_NEXT;
	}
}

static unsigned int split_head(const struct queue *q, unsigned int s)
{
	return s * q->per;
}

static void split_put(struct queue *q, unsigned int s, const struct vring_desc *list,
		      unsigned int nr, unsigned int head)
{
	struct vring_desc *desc = (void *)q->meta;

	q->added++;
	memcpy(desc + s * q->per, list, nr * sizeof(*list));
	avail_of(q)->ring[q->avail++ & (q->dev->num - 1)] = head;
}

static bool split_wants_kick(struct queue *q, uint16_t old)
{
	store(&avail_of(q)->idx, q->avail);
	/* Either the device sees the chains, or the driver sees that it must kick. */
	mb();
	if (q->dev->event_idx)
		return vring_need_event(load(avail_event(q)), q->avail, old);
	return !(load(&used_of(q)->flags) & VRING_USED_F_NO_NOTIFY);
}

static bool split_has_used(const struct queue *q)
{
	return load(&used_of(q)->idx) != q->used;
}

static unsigned int split_peek(const struct queue *q, unsigned int *id, uint32_t *len)
{
	const struct vring_used_elem *elem = &used_of(q)->ring[q->used & (q->dev->num - 1)];

	*id = elem->id;
	*len = elem->len;
	return *id % q->per ? MAX_DEPTH : *id / q->per;
}

static void split_pop(struct queue *q, unsigned int descs)
{
	(void)descs;
	q->used++;
}

static void split_arm(struct queue *q, unsigned int later)
{
	store(&avail_of(q)->flags, 0);
	store(used_event(q), q->used + later);
}

static void split_disarm(struct queue *q)
{
	store(&avail_of(q)->flags, VRING_AVAIL_F_NO_INTERRUPT);
}

static void split_confuse(struct queue *q)
{
	uint16_t behind = q->used - 1;

	store(&avail_of(q)->flags, rnd(&q->random));
	store(used_event(q), rnd(&q->random) & 1 ? behind : (uint16_t)rnd(&q->random));
}

const struct ring_ops split_ring = {
	.init = split_init,
	.base = split_base,
	.fill_table = split_fill_table,
	.head = split_head,
	.put = split_put,
	.wants_kick = split_wants_kick,
	.has_used = split_has_used,
	.peek = split_peek,
	.pop = split_pop,
	.arm = split_arm,
	.disarm = split_disarm,
	.confuse = split_confuse,
};
