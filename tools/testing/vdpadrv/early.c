// SPDX-License-Identifier: GPL-2.0
/*
 * A request that completes at once, among reads that wait for each other: the backing
 * device executes one request at a time, and so the device's worker sleeps for the
 * others while it submits them.
 */

#include <stdio.h>

#include "rules.h"

void run_early(struct dev *d)
{
	uint64_t begin, first = 0;
	unsigned int s;
	struct queue *q;
	uint32_t len;

	if (d->count >= d->depth)
		fail("%u reads and an ID need a depth of %u", d->count, d->count + 1);
	start_dev(d, NULL, true);
	q = &d->queues[0];
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
	printf("ok early: the ID after %llu ms, all after %llu ms\n",
	       (unsigned long long)first, (unsigned long long)(now_ms() - begin));
}
