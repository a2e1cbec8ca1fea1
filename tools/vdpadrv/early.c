// SPDX-License-Identifier: GPL-2.0
/*
 * A request that completes at once, among reads that wait for each other: the backing
 * device executes one request at a time, and so the device's worker sleeps for the
 * others while it submits them.  With a second queue the first read is there, and has
 * begun before.
 */

#include <stdio.h>
#include <unistd.h>

#include "rules.h"

void run_early(struct dev *d)
{
	struct queue *q, *other = d->nr_queues > 1 ? &d->queues[1] : NULL;
	uint64_t begin, first = 0;
	unsigned int s;
	uint32_t len;

	if (d->count >= d->depth)
		fail("%u reads and an ID need a depth of %u", d->count, d->count + 1);
	start_dev(d, NULL, true);
	q = &d->queues[0];
	if (other) {
		put_read(other, 0);
		kick(other, true);
		usleep(100000);
	}
	begin = now_ms();
	submit(q, 0, VIRTIO_BLK_T_GET_ID, 0, 0);
	for (s = 1; s <= d->count; s++)
		put_read(q, s);
	kick(q, true);
	while (q->in_flight) {
		await_used(q, "a read or an ID", 1000);
		while (has_used(q))
			if (!take_used(q, &len))
				first = now_ms() - begin;
	}
	if (other) {
		await_used(other, "a read of the other queue", 1000);
		take_used(other, &len);
	}
	printf("ok early: the ID after %llu ms, all after %llu ms\n",
	       (unsigned long long)first, (unsigned long long)(now_ms() - begin));
}
