// SPDX-License-Identifier: GPL-2.0
/* From reset to DRIVER_OK. */

#define _GNU_SOURCE
#include <sys/eventfd.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "vdpadrv.h"

/* Discard the interrupts of the last driver: each check waits for one of its own. */
static void drain_config_call(struct dev *d)
{
	uint64_t value;

	if (read(d->config_call, &value, sizeof(value)) < 0 && errno != EAGAIN)
		fail("read of the configuration's eventfd: %s", strerror(errno));
}

/* From reset to FEATURES_OK, with the features that the device and the options have. */
void negotiate(struct dev *d)
{
	uint8_t status = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER;
	uint64_t features = d->features;

	set_status(d, 0);
	drain_config_call(d);
	/* A reset can drop it. */
	IOCTL(d, VHOST_VDPA_SET_CONFIG_CALL, &d->config_call);
	set_status(d, status);
	if (d->packed && !(features & F(VIRTIO_F_RING_PACKED)))
		fail("the device does not offer packed rings");
	features &= ~(F(VIRTIO_F_RING_PACKED) | F(VIRTIO_RING_F_INDIRECT_DESC) |
		      F(VIRTIO_RING_F_EVENT_IDX) | d->refused);
	features |= d->features & ((uint64_t)d->packed << VIRTIO_F_RING_PACKED |
				   (uint64_t)d->indirect << VIRTIO_RING_F_INDIRECT_DESC |
				   (uint64_t)d->event_idx << VIRTIO_RING_F_EVENT_IDX);
	IOCTL(d, VHOST_SET_FEATURES, &features);
	d->accepted = features;
	set_status(d, status |= VIRTIO_CONFIG_S_FEATURES_OK);
	if (get_status(d) != status)
		fail("status %#x after FEATURES_OK", get_status(d));
}

void set_ring_addresses(struct dev *d, unsigned int i, uint64_t desc, uint64_t driver,
			uint64_t device)
{
	struct vhost_vring_addr addr = { .index = i, .desc_user_addr = desc,
					 .avail_user_addr = driver, .used_user_addr = device };

	IOCTL(d, VHOST_SET_VRING_ADDR, &addr);
}

static uint32_t empty_queue(struct queue *q)
{
	struct dev *d = q->dev;
	unsigned int s;

	for (s = 0; s < MAX_DEPTH; s++) {
		q->slots[s].busy = false;
		q->slots[s].kind = NULL;
	}
	q->added = 0;
	q->in_flight = 0;
	q->descs = 0;
	if (!d->any_base)
		return ring_of(q)->init(q, 0, true);
	return ring_of(q)->init(q, rnd(&q->random) % (d->packed ? d->num : 0x10000),
				rnd(&q->random) & 1);
}

/* Enable a virtqueue; @base is where its ring goes on, or NULL if it is empty. */
void start_queue(struct dev *d, unsigned int i, const uint32_t *base)
{
	struct queue *q = &d->queues[i];
	struct vhost_vring_state state = { .index = i, .num = d->num };
	struct vhost_vring_file file = { .index = i };
	uint64_t at = IOVA + i * META;

	q->per = d->num / d->depth;
	IOCTL(d, VHOST_SET_VRING_NUM, &state);
	set_ring_addresses(d, i, at, at + DRIVER_AREA, at + DEVICE_AREA);
	state.num = base ? *base : empty_queue(q);
	if (!d->no_base)
		IOCTL(d, VHOST_SET_VRING_BASE, &state);
	file.fd = q->kick;
	IOCTL(d, VHOST_SET_VRING_KICK, &file);
	file.fd = q->call;
	IOCTL(d, VHOST_SET_VRING_CALL, &file);
	state.num = 1;
	IOCTL(d, VHOST_VDPA_SET_VRING_ENABLE, &state);
}

/* @bases: see start_queue(); @share: map all memory. */
void start_dev(struct dev *d, const uint32_t *bases, bool share)
{
	uint8_t status = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER |
			 VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK;
	unsigned int i;

	negotiate(d);
	for (i = 0; i < d->nr_queues; i++)
		start_queue(d, i, bases ? &bases[i] : NULL);
	if (share)
		map_all(d, true);
	set_status(d, status);
	if (share && get_status(d) != status)
		fail("status %#x after DRIVER_OK", get_status(d));
}

/* Open the device, and take the most that it, its rings and the shared memory allow. */
void limit_options(struct dev *d)
{
	unsigned int most, i;
	uint16_t num;

	open_dev(d);
	IOCTL(d, VHOST_VDPA_GET_VRING_NUM, &num);
	if (!d->num || d->num > 256)
		d->num = num < 256 ? num : 256;
	if (d->num > num)
		d->num = num;
	if (d->num < 8)
		fail("rings of %u entries; vdpadrv needs 8", d->num);
	if (!d->nr_queues || d->nr_queues > d->config.num_queues)
		d->nr_queues = d->config.num_queues;
	if (d->nr_queues > MAX_QUEUES)
		d->nr_queues = MAX_QUEUES;
	most = (d->victim - DATA) / BUFFER / d->nr_queues;
	if (most > d->num / 3)
		most = d->num / 3;
	if (most > MAX_DEPTH)
		most = MAX_DEPTH;
	if (!d->depth || d->depth > most)
		d->depth = most;
	d->max_queues = d->nr_queues;
	d->max_depth = d->depth;
	d->max_num = d->num;
	for (i = 0; i < MAX_QUEUES; i++) {
		d->queues[i].dev = d;
		d->queues[i].index = i;
		d->queues[i].meta = mem + i * META;
		d->queues[i].random = d->seed * 31 + i + 1;
		d->queues[i].kick = eventfd(0, EFD_NONBLOCK);
		d->queues[i].call = eventfd(0, EFD_NONBLOCK);
	}
}

uint32_t get_base(struct dev *d, unsigned int i)
{
	struct vhost_vring_state state = { .index = i };

	IOCTL(d, VHOST_GET_VRING_BASE, &state);
	return state.num;
}

/* Where the rings are; all requests are complete, so the device is where the driver is. */
void get_bases(struct dev *d, uint32_t *bases)
{
	unsigned int i;

	for (i = 0; i < d->nr_queues; i++) {
		bases[i] = get_base(d, i);
		if (bases[i] != ring_of(&d->queues[i])->base(&d->queues[i]))
			fail("queue %u: VHOST_GET_VRING_BASE %#x, expected %#x", i, bases[i],
			     ring_of(&d->queues[i])->base(&d->queues[i]));
	}
}
