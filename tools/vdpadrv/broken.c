// SPDX-License-Identifier: GPL-2.0
/* One malformed chain after valid ones, and a reset: what each kind does. */

#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "vdpadrv.h"

/* Wait for up to @ms until the device has refused or answered the chain of slot @s. */
enum seen watch(struct queue *q, unsigned int s, unsigned int ms)
{
	const struct kind *kind = q->slots[s].kind;
	uint64_t end = now_ms() + ms;

	do {
		if (get_status(q->dev) & NEEDS_RESET)
			return BROKE;
		if (kind->outcome == EITHER ? has_used(q) :
		    kind->outcome == ANSWERS && *status_of(q, s) != 0xff)
			return ANSWERED;
		usleep(500);
	} while (now_ms() < end);
	return NEITHER;
}

static void judge(struct queue *q, unsigned int s, enum seen seen, unsigned int round)
{
	const struct kind *kind = q->slots[s].kind;
	struct dev *d = q->dev;

	if (kind->outcome == ANSWERS &&
	    (seen != ANSWERED || *status_of(q, s) != q->slots[s].status))
		fail("%s, %s, seed %llu, round %u: status %u, expected %u within %u ms",
		     kind->name, d->packed ? "packed" : "split", (unsigned long long)d->seed,
		     round, *status_of(q, s), q->slots[s].status, hang_ms);
	if (kind->outcome == BREAKS && seen != BROKE)
		fail("%s, %s, seed %llu, round %u: no NEEDS_RESET within %u ms, status %#x",
		     kind->name, d->packed ? "packed" : "split", (unsigned long long)d->seed,
		     round, hang_ms, get_status(d));
	set_status(d, 0);
	check_readonly(d, kind->name);
}

void run_broken(struct dev *d)
{
	unsigned int seen[MAX_KINDS][3] = { }, i, k, s, most, all = d->nr_queues;
	struct queue *q = &d->queues[0];
	enum seen found;

	d->nr_queues = 1;
	for (i = 0; i < d->count; i++) {
		do {
			k = rnd(&q->random) % nr_kinds;
			d->packed = rnd(&q->random) & 1;
			d->event_idx = rnd(&q->random) & 1;
			d->indirect = rnd(&q->random) % 4;
			q->descs = 0;
		} while (!kind_fits(q, &kinds[k]));
		start_dev(d, NULL, true);
		mark_readonly(d);
		/* Valid requests come first, except that a loop takes all of a packed ring. */
		most = d->packed && kinds[k].flags & EMPTY_RING ? 0 : rnd(&q->random) % 4;
		for (s = 0; s < most; s++)
			submit(q, s, VIRTIO_BLK_T_IN, s, 0);
		put_kind(q, s, &kinds[k]);
		kick(q, true);
		if (kinds[k].flags & SCRIBBLE)
			scribble(q);
		/* Only these kinds may have no effect at all. */
		found = watch(q, s, kinds[k].outcome == EITHER ? 200 : hang_ms);
		seen[k][found]++;
		judge(q, s, found, i);
	}
	for (k = 0; k < nr_kinds; k++)
		printf("  %-16s needs-reset %u used %u neither %u\n", kinds[k].name,
		       seen[k][BROKE], seen[k][ANSWERED], seen[k][NEITHER]);
	d->nr_queues = all;
	check_io(d);
	printf("ok broken: %u rounds, seed %llu\n", d->count, (unsigned long long)d->seed);
}
