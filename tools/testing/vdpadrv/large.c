// SPDX-License-Identifier: GPL-2.0
/* Reads that take the block device many seconds, and how soon the device ends them. */

#define _GNU_SOURCE
#include <stdio.h>
#include <unistd.h>

#include "vdpadrv.h"

#define BUFFERS		254
/* In a huge page of its own, where memory has huge pages. */
#define LARGE		0x400000U
#define LIMIT_MS	5000

/* Submit --count reads on queue 0, each of 254 times the same buffer of --bytes. */
static void submit_large(struct dev *d)
{
	struct vring_desc list[BUFFERS + 2], table;
	struct queue *q = &d->queues[0];
	unsigned int i;

	d->indirect = true;
	start_dev(d, NULL, true);
	list[0] = header(q, 0, VIRTIO_BLK_T_IN, 0);
	for (i = 1; i <= BUFFERS; i++)
		list[i] = part(LARGE, d->bytes, true);
	list[i] = status_desc(q, 0);
	table = fill_table(q, 0, list, LENGTH(list));
	for (i = 0; i < d->count && i < d->num; i++)
		put_raw(q, 0, &table, 1, ring_of(q)->head(q, 0));
	kick(q, true);
	/* The worker is at the first of them. */
	usleep(500000);
}

/* The next driver's read completes. */
static void must_read(struct dev *d)
{
	struct queue *q = &d->queues[0];
	unsigned int s;
	uint32_t len;

	start_dev(d, NULL, true);
	submit(q, 0, VIRTIO_BLK_T_IN, 0, 0);
	kick(q, false);
	must_wait(q);
	s = take_used(q, &len);
	check(q, s, len, false);
}

/* A reset under these reads. */
void run_reset(struct dev *d)
{
	uint64_t begin;

	submit_large(d);
	begin = now_ms();
	set_status(d, 0);
	begin = now_ms() - begin;
	if (begin > LIMIT_MS)
		fail("the reset took %llu ms", (unsigned long long)begin);
	must_read(d);
	printf("ok reset: %llu ms\n", (unsigned long long)begin);
}
