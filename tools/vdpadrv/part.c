// SPDX-License-Identifier: GPL-2.0
/* A start with other features, rings and virtqueues than the last. */

#include "vdpadrv.h"

unsigned int between(struct dev *d, unsigned int low, unsigned int high)
{
	return low + rnd(&d->random) % (high - low + 1);
}

struct queue *any_queue(struct dev *d)
{
	return &d->queues[rnd(&d->random) % d->nr_queues];
}

/* Features that a driver can do without. */
#define OPTIONAL								\
	(F(VIRTIO_BLK_F_SEG_MAX) | F(VIRTIO_BLK_F_BLK_SIZE) | F(VIRTIO_BLK_F_TOPOLOGY) |	\
	 F(VIRTIO_BLK_F_MQ) | F(VIRTIO_BLK_F_FLUSH) | F(VIRTIO_BLK_F_CONFIG_WCE) |	\
	 F(VIRTIO_BLK_F_DISCARD) | F(VIRTIO_BLK_F_WRITE_ZEROES) |			\
	 F(VIRTIO_BLK_F_SECURE_ERASE))

static void vary(struct dev *d)
{
	d->packed = rnd(&d->random) & 1 && d->features & F(VIRTIO_F_RING_PACKED);
	d->indirect = rnd(&d->random) % 4;
	d->event_idx = rnd(&d->random) & 1;
	d->refused = rnd(&d->random) & 1 ? rnd(&d->random) & OPTIONAL : 0;
	d->num = 8U << rnd(&d->random) % 6;
	if (d->num > d->max_num)
		d->num = d->max_num;
	d->depth = between(d, 1, d->num / 4);
	if (d->depth > d->max_depth)
		d->depth = d->max_depth;
	d->nr_queues = between(d, 1, d->max_queues);
	d->any_base = rnd(&d->random) & 1;
}

void fresh_start(struct dev *d)
{
	vary(d);
	start_dev(d, NULL, true);
	mark_readonly(d);
}
