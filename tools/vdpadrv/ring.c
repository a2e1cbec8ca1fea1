// SPDX-License-Identifier: GPL-2.0
/* Chains on a ring of either kind, and waiting for them. */

#define _GNU_SOURCE
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "vdpadrv.h"

const struct ring_ops *ring_of(const struct queue *q)
{
	return q->dev->packed ? &packed_ring : &split_ring;
}

/* Copy a list of descriptors into an indirect table; returns the descriptor for it. */
struct vring_desc fill_table(struct queue *q, unsigned int s,
			     const struct vring_desc *list, unsigned int nr)
{
	uint32_t at = TABLES + s * MAX_LIST * sizeof(struct vring_desc);

	ring_of(q)->fill_table(q->meta + at, list, nr);
	return (struct vring_desc){ .addr = IOVA + q->index * META + at,
				    .len = nr * sizeof(struct vring_desc),
				    .flags = VRING_DESC_F_INDIRECT };
}

/* Make descriptors available as they are, for slot @s. */
void put_raw(struct queue *q, unsigned int s, const struct vring_desc *list,
	     unsigned int nr, unsigned int head)
{
	q->slots[s].busy = true;
	q->slots[s].descs = nr;
	q->in_flight++;
	q->descs += nr;
	ring_of(q)->put(q, s, list, nr, head);
}

void put_chain(struct queue *q, unsigned int s, struct vring_desc *list, unsigned int nr)
{
	unsigned int i;

	if (q->dev->indirect && (nr > q->per || rnd(&q->random) % 4)) {
		list[0] = fill_table(q, s, list, nr);
		nr = 1;
	}
	for (i = 0; i + 1 < nr; i++) {
		list[i].flags |= VRING_DESC_F_NEXT;
		list[i].next = s * q->per + i + 1;
	}
	put_raw(q, s, list, nr, ring_of(q)->head(q, s));
}

void kick(struct queue *q, bool always)
{
	uint16_t old = q->avail - q->added;
	uint64_t one = 1;

	q->added = 0;
	if (!ring_of(q)->wants_kick(q, old) && !always)
		return;
	q->kicks++;
	if (write(q->kick, &one, sizeof(one)) < 0)
		fail("kick: %s", strerror(errno));
}

bool has_used(struct queue *q)
{
	return ring_of(q)->has_used(q);
}

/* Returns the slot of the next used entry, which must exist. */
unsigned int take_used(struct queue *q, uint32_t *len)
{
	unsigned int id, s = ring_of(q)->peek(q, &id, len);

	if (s >= q->dev->depth || !q->slots[s].busy)
		fail("queue %u: used entry %u has id %u, which is not in flight",
		     q->index, q->used, id);
	q->slots[s].busy = false;
	q->in_flight--;
	q->descs -= q->slots[s].descs;
	ring_of(q)->pop(q, q->slots[s].descs);
	return s;
}

/* Ask for an interrupt; with an event index, after some of what is in flight. */
static void arm_call(struct queue *q)
{
	ring_of(q)->arm(q, rnd(&q->random) % (q->dev->packed ? q->descs : q->in_flight));
	/* Either the driver sees a used entry, or the device sees that it must interrupt. */
	mb();
}

/* Wait for a used entry.  Returns false after @ms. */
bool wait_used(struct queue *q, unsigned int ms)
{
	uint64_t end = now_ms() + ms, value, now;
	struct pollfd call = { .fd = q->call, .events = POLLIN };
	unsigned int slice = q->dev->slice_ms;
	int found;

	for (;;) {
		arm_call(q);
		if (has_used(q))
			break;
		now = now_ms();
		if (now >= end)
			return false;
		found = poll(&call, 1, slice && slice < end - now ? slice : end - now);
		if (!found && !slice)
			return false;
		if (found && read(q->call, &value, sizeof(value)) < 0 && errno != EAGAIN)
			fail("read of the call's eventfd: %s", strerror(errno));
	}
	ring_of(q)->disarm(q);
	return true;
}

void must_wait(struct queue *q)
{
	if (wait_used(q, hang_ms))
		return;
	fail("queue %u: %s within %u ms: %u in flight, avail %u, used %u, status %#x",
	     q->index, has_used(q) ? "used entries, but no interrupt" : "hang, no used entry",
	     hang_ms, q->in_flight, q->avail, q->used, get_status(q->dev));
}

/* Wait for all requests in flight, and judge each. */
void take_all(struct queue *q, void (*judge)(struct queue *q, unsigned int s, uint32_t len))
{
	unsigned int s;
	uint32_t len;

	while (q->in_flight) {
		must_wait(q);
		while (has_used(q)) {
			s = take_used(q, &len);
			judge(q, s, len);
		}
	}
}
