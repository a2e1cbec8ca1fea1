// SPDX-License-Identifier: GPL-2.0
/* Malformed chains among well-formed ones, on a queue of a device that is live. */

#define _GNU_SOURCE
#include <string.h>
#include <unistd.h>

#include "vdpadrv.h"

#define MAX_PLACES	16
#define CANARY		0x5a

/* Fill memory that the device may only read. */
void mark_readonly(struct dev *d)
{
	memset(mem + readonly_at(d), CANARY, DATA - readonly_at(d));
}

void check_readonly(struct dev *d, const char *when)
{
	uint32_t i;

	for (i = readonly_at(d); i < DATA; i++)
		if (mem[i] != CANARY)
			fail("%s: the device wrote to offset %#x, which is read-only", when, i);
}

static const char *ring_name(const struct queue *q)
{
	return q->dev->packed ? "packed" : "split";
}

/* Requests for slots 0 to @nr - 1, as many as the ring has room for. */
static void put_batch(struct queue *q, unsigned int nr, unsigned int places, uint64_t round)
{
	const struct kind *kind;
	unsigned int s;

	for (s = 0; s < nr; s++) {
		if (rnd(&q->random) % 4) {
			kind = pick_kind(q, ANSWERS);
			if (!kind)
				return;
			put_kind(q, s, kind);
		} else {
			if (q->descs + q->per > q->dev->num)
				return;
			submit(q, s, VIRTIO_BLK_T_IN, rnd(&q->random) % places, round);
		}
	}
}

static void take_answer(struct queue *q)
{
	const struct slot *slot;
	unsigned int s;
	uint32_t len;

	s = take_used(q, &len);
	slot = &q->slots[s];
	if (!slot->kind) {
		check(q, s, len, true);
		return;
	}
	if (*status_of(q, s) != slot->status ||
	    (slot->status == VIRTIO_BLK_S_OK ? len != 4097 : len > 1))
		fail("queue %u, %s ring, %s: status %u and used length %u, expected status %u",
		     q->index, ring_name(q), slot->kind->name, *status_of(q, s), len,
		     slot->status);
	count_kind(slot->kind);
}

/* Take answers, whether the device interrupts or not, until @left are in flight. */
static void take_answers(struct queue *q, unsigned int left)
{
	uint64_t end = now_ms() + hang_ms;

	while (q->in_flight > left) {
		if (has_used(q)) {
			take_answer(q);
			continue;
		}
		if (now_ms() > end)
			fail("queue %u, %s ring: hang, %u in flight after %u ms, status %#x",
			     q->index, ring_name(q), q->in_flight, hang_ms,
			     get_status(q->dev));
		usleep(50);
	}
}

/* A chain that the device must refuse, after others that it must answer. */
static void break_queue(struct queue *q, unsigned int places, uint64_t round)
{
	unsigned int s = q->dev->depth - 1;
	const struct kind *kind;

	put_batch(q, rnd(&q->random) % (s + 1), places, round);
	kind = pick_kind(q, BREAKS);
	if (!kind || kind->flags & ALONE) {
		kick(q, true);
		take_answers(q, 0);
	}
	if (!kind)
		kind = pick_kind(q, BREAKS);
	put_kind(q, s, kind);
	kick(q, true);
	take_answers(q, 1);
	if (!await_needs_reset(q->dev, kind->name))
		fail("queue %u, %s ring, %s: NEEDS_RESET without a configuration interrupt",
		     q->index, ring_name(q), kind->name);
	if (*status_of(q, s) != 0xff || has_used(q))
		fail("queue %u, %s ring, %s: the device answered with status %u",
		     q->index, ring_name(q), kind->name, *status_of(q, s));
	count_kind(kind);
}

/* @break_it: end with a chain that the queue does not survive. */
void attack_queue(struct queue *q, unsigned int batches, bool break_it)
{
	unsigned int places = q->dev->places < MAX_PLACES ? q->dev->places : MAX_PLACES;
	uint64_t round = rnd(&q->random);
	bool good[MAX_PLACES] = { };

	run_phase(q, VIRTIO_BLK_T_OUT, places, round, good);
	while (batches--) {
		put_batch(q, q->dev->depth, places, round);
		kick(q, rnd(&q->random) & 1);
		take_answers(q, 0);
	}
	if (break_it)
		break_queue(q, places, round);
}
