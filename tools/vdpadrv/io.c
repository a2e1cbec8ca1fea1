// SPDX-License-Identifier: GPL-2.0
/* Verified I/O on all queues. */

#define _GNU_SOURCE
#include <pthread.h>
#include <stdlib.h>

#include "vdpadrv.h"

/* Write or read the first @nr places; @good has those that are known to be written. */
void run_phase(struct queue *q, uint32_t type, unsigned int nr, uint64_t round, bool *good)
{
	bool flush = q->dev->accepted & F(VIRTIO_BLK_F_FLUSH);
	unsigned int sent = 0, s, batch;
	uint32_t len;

	while (sent < nr || q->in_flight) {
		batch = 1 + rnd(&q->random) % q->dev->depth;
		for (s = 0; s < q->dev->depth && batch && sent < nr; s++) {
			if (q->slots[s].busy)
				continue;
			batch--;
			if (rnd(&q->random) % 32 == 0)
				submit(q, s, flush && rnd(&q->random) & 1 ?
				       VIRTIO_BLK_T_FLUSH : VIRTIO_BLK_T_GET_ID, 0, 0);
			else
				submit(q, s, type, sent++, round);
		}
		kick(q, false);
		must_wait(q);
		while (has_used(q)) {
			bool ok, io;

			s = take_used(q, &len);
			io = q->slots[s].type <= VIRTIO_BLK_T_OUT;
			ok = check(q, s, len, io && good[q->slots[s].place]);
			if (io && q->slots[s].type == VIRTIO_BLK_T_OUT)
				good[q->slots[s].place] = ok;
		}
	}
}

static void *io_thread(void *arg)
{
	struct queue *q = arg;
	struct dev *d = q->dev;
	unsigned int places = place_sectors(q), left = d->count, n;
	bool *good = calloc(places + 1, sizeof(*good));
	uint64_t round;

	if (!places || !good)
		fail("the disk of %llu sectors is too small", (unsigned long long)d->config.capacity);
	if (places > d->places)
		places = d->places;
	for (round = rnd(&q->random); left && !load(&d->stop); round++, left -= n) {
		n = left < places ? left : places;
		run_phase(q, VIRTIO_BLK_T_OUT, n, round, good);
		run_phase(q, VIRTIO_BLK_T_IN, n, round, good);
	}
	free(good);
	return NULL;
}

/* I/O on all queues that are not reserved; @meanwhile runs beside it and ends it. */
void run_io(struct dev *d, void (*meanwhile)(struct dev *d))
{
	unsigned int nr = d->nr_queues - d->reserved, i;
	pthread_t threads[MAX_QUEUES];

	d->stop = false;
	for (i = 0; i < nr; i++)
		if (pthread_create(&threads[i], NULL, io_thread, &d->queues[i]))
			fail("pthread_create");
	if (meanwhile) {
		meanwhile(d);
		store(&d->stop, true);
	}
	for (i = 0; i < nr; i++)
		pthread_join(threads[i], NULL);
}

uint64_t total(struct dev *d, bool errors)
{
	uint64_t sum = 0;
	unsigned int i;

	for (i = 0; i < d->nr_queues; i++)
		sum += errors ? d->queues[i].errors : d->queues[i].done;
	return sum;
}

/* That the device works after something else. */
void check_io(struct dev *d)
{
	unsigned int count = d->count;

	d->count = 64;
	start_dev(d, NULL, true);
	run_io(d, NULL);
	d->count = count;
}
