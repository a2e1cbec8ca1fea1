// SPDX-License-Identifier: GPL-2.0
/* Parts of a life cycle: memory that is unmapped and mapped again under I/O. */

#define _GNU_SOURCE
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vdpadrv.h"

static void change_a_while(struct dev *d)
{
	change_mappings(d, between(d, 20, 100));
}

/* Requests fail at most while their memory is not mapped. */
void part_mappings(struct dev *d)
{
	fresh_start(d);
	d->tolerant = true;
	d->count = UINT32_MAX;
	run_io(d, change_a_while);
	d->tolerant = false;
	d->count = d->places;
	run_io(d, NULL);
}

/* The victim: memory that only the device writes while it is mapped */

#define UNMAPPED_BYTE	0xc3

static void submit_victim(struct queue *q, unsigned int s)
{
	uint32_t bytes = mem_bytes - q->dev->victim, at, len;
	bool write = rnd(&q->random) % 8 == 0;
	struct vring_desc list[3];

	len = 4096 * (1 + rnd(&q->random) % 8);
	at = rnd(&q->random) % (bytes - len);
	/* Others are copied, which takes longer. */
	if (rnd(&q->random) % 4)
		at -= at % 512;
	list[0] = header(q, s, write ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN, 0);
	list[1] = part(q->dev->victim + at, len, !write);
	list[2] = status_desc(q, s);
	q->slots[s].kind = NULL;
	put_chain(q, s, list, 3);
}

static void check_victim(struct queue *q, unsigned int s, uint32_t len)
{
	(void)len;
	if (*status_of(q, s) > VIRTIO_BLK_S_IOERR)
		fail("queue %u: a request to memory that was unmapped has status %u",
		     q->index, *status_of(q, s));
	count(&counts->requests);
}

static void map_victim(struct dev *d, bool map)
{
	unsigned int i;

	if (d->scatter)
		batch_mappings(d, true);
	for (i = 0; i < d->nr_pieces; i++)
		if (d->pieces[i].at >= d->victim && (map || rnd(&d->random) % 4))
			map_piece(d, &d->pieces[i], map);
	if (d->scatter)
		batch_mappings(d, false);
}

/* Nothing may write to memory that is not mapped. */
static void check_unmapped(struct dev *d)
{
	unsigned int i;
	uint32_t at;

	for (i = 0; i < d->nr_pieces; i++)
		if (!d->pieces[i].mapped)
			memset(mem + d->pieces[i].at, UNMAPPED_BYTE, d->pieces[i].len);
	usleep(between(d, 0, 1000));
	for (i = 0; i < d->nr_pieces; i++)
		for (at = d->pieces[i].at; !d->pieces[i].mapped &&
		     at < d->pieces[i].at + d->pieces[i].len; at += 64)
			if (mem[at] != UNMAPPED_BYTE)
				fail("the device wrote to offset %#x, which is not mapped", at);
}

void part_victim(struct dev *d)
{
	unsigned int turns = between(d, 2, 6), i, s;

	fresh_start(d);
	while (turns--) {
		for (i = 0; i < d->nr_queues; i++) {
			for (s = 0; s < d->depth; s++)
				submit_victim(&d->queues[i], s);
			kick(&d->queues[i], false);
		}
		/* The device has the pages that it was given, not their successors. */
		if (rnd(&d->random) % 4 == 0)
			madvise(mem + d->victim, mem_bytes - d->victim, MADV_DONTNEED);
		usleep(between(d, 0, 300));
		map_victim(d, false);
		check_unmapped(d);
		map_victim(d, true);
		for (i = 0; i < d->nr_queues; i++)
			take_all(&d->queues[i], check_victim);
	}
}

/* Take back memory with rings, under requests. */
void part_ring_unmap(struct dev *d)
{
	unsigned int i;

	fresh_start(d);
	fill_queues(d);
	for (i = 0; i < d->nr_pieces; i++)
		if (d->pieces[i].at == 0)
			map_piece(d, &d->pieces[i], false);
	must_need_reset(d, "a ring that was unmapped");
	count(&counts->malformed);
	map_all(d, true);
	for (i = 0; i < d->nr_queues; i++)
		kick(&d->queues[i], true);
}
