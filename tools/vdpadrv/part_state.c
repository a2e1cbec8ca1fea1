// SPDX-License-Identifier: GPL-2.0
/* Parts of a life cycle: the state of device and virtqueues changes under I/O. */

#define _GNU_SOURCE
#include <fcntl.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "vdpadrv.h"

static void run_beside(struct dev *d, void (*meanwhile)(struct dev *d))
{
	fresh_start(d);
	d->count = UINT32_MAX;
	run_io(d, meanwhile);
}

static void suspend_a_few(struct dev *d)
{
	suspend_often(d, between(d, 1, 4));
}

void part_suspend(struct dev *d)
{
	uint32_t bases[MAX_QUEUES];

	run_beside(d, suspend_a_few);
	IOCTL(d, VHOST_VDPA_SUSPEND, NULL);
	get_bases(d, bases);
}

static void check_read(struct queue *q, unsigned int s, uint32_t len)
{
	check(q, s, len, true);
}

/* Another device takes over with requests on the rings. */
void part_move(struct dev *d)
{
	unsigned int turns = between(d, 1, 3), i, s;
	uint32_t bases[MAX_QUEUES];
	bool good[MAX_DEPTH] = { };

	fresh_start(d);
	for (i = 0; i < d->nr_queues; i++)
		run_phase(&d->queues[i], VIRTIO_BLK_T_OUT, d->depth, 1, good);
	while (turns--) {
		for (i = 0; i < d->nr_queues; i++) {
			for (s = 0; s < d->depth; s++)
				submit(&d->queues[i], s, VIRTIO_BLK_T_IN, s, 1);
			kick(&d->queues[i], false);
		}
		usleep(between(d, 0, 500));
		IOCTL(d, VHOST_VDPA_SUSPEND, NULL);
		for (i = 0; i < d->nr_queues; i++)
			bases[i] = get_base(d, i);
		start_dev(d, bases, true);
		for (i = 0; i < d->nr_queues; i++)
			take_all(&d->queues[i], check_read);
	}
}

static void enable_often(struct dev *d)
{
	unsigned int turns = between(d, 3, 20);
	struct vhost_vring_state state;

	while (turns--) {
		state.index = any_queue(d)->index;
		state.num = 0;
		IOCTL(d, VHOST_VDPA_SET_VRING_ENABLE, &state);
		get_base(d, state.index);
		usleep(between(d, 0, 2000));
		state.num = 1;
		IOCTL(d, VHOST_VDPA_SET_VRING_ENABLE, &state);
		usleep(between(d, 0, 2000));
	}
}

void part_enable(struct dev *d)
{
	run_beside(d, enable_often);
}

/* Eventfds */

static void set_fd(struct dev *d, unsigned long request, unsigned int i, int fd)
{
	struct vhost_vring_file file = { .index = i, .fd = fd };

	call_ioctl(d, request, &file, "VHOST_SET_VRING_CALL or KICK");
}

/*
 * An eventfd that is replaced stays open: vhost may still be signalling it, and holds no
 * reference while it does.
 */
static void change_calls(struct dev *d)
{
	int spare[2] = { eventfd(0, EFD_NONBLOCK), eventfd(0, EFD_NONBLOCK) };
	unsigned int turns = between(d, 5, 50);
	struct queue *q;
	int fd;

	while (turns--) {
		q = any_queue(d);
		fd = rnd(&d->random) & 1 ? q->call : rnd(&d->random) & 1 ? spare[0] : -1;
		set_fd(d, VHOST_SET_VRING_CALL, q->index, fd);
		if (rnd(&d->random) % 4 == 0)
			set_fd(d, VHOST_SET_VRING_KICK, q->index, -1);
		fd = rnd(&d->random) & 1 ? d->config_call : spare[1];
		IOCTL(d, VHOST_VDPA_SET_CONFIG_CALL, &fd);
		usleep(between(d, 0, 1000));
		set_fd(d, VHOST_SET_VRING_KICK, q->index, q->kick);
		set_fd(d, VHOST_SET_VRING_CALL, q->index, q->call);
	}
	IOCTL(d, VHOST_VDPA_SET_CONFIG_CALL, &d->config_call);
}

void part_calls(struct dev *d)
{
	d->slice_ms = 10;
	run_beside(d, change_calls);
	d->slice_ms = 0;
}

/* Resets under requests, one after the other. */
void part_resets(struct dev *d)
{
	unsigned int turns = between(d, 3, 12);

	fresh_start(d);
	while (turns--) {
		submit_all(d);
		set_status(d, 0);
	}
	part_verify(d);
}

/* Other ioctls */

static void change_config(struct dev *d)
{
	struct {
		struct vhost_vdpa_config head;
		uint8_t bytes[sizeof(struct virtio_blk_config) + 2];
	} buf;
	unsigned int i;

	for (i = 0; i < sizeof(buf.bytes); i++)
		buf.bytes[i] = rnd(&d->random);
	buf.head.off = rnd(&d->random) % sizeof(buf.bytes);
	buf.head.len = rnd(&d->random) % sizeof(buf.bytes);
	/* Beyond the end it returns an error. */
	ioctl(d->fd, rnd(&d->random) & 1 ? VHOST_VDPA_SET_CONFIG : VHOST_VDPA_GET_CONFIG, &buf);
}

/* What must not be changed while the device is live. */
static void change_ring(struct dev *d)
{
	struct vhost_vring_addr addr = { .index = any_queue(d)->index,
					 .desc_user_addr = IOVA, .avail_user_addr = IOVA,
					 .used_user_addr = IOVA };
	struct vhost_vring_state state = { .index = addr.index, .num = rnd(&d->random) & 0x7fff };
	uint64_t features = 0;
	uint8_t status = 0xff;

	if (ioctl(d->fd, VHOST_SET_VRING_ADDR, &addr) >= 0 ||
	    ioctl(d->fd, VHOST_SET_VRING_BASE, &state) >= 0)
		fail("the ring of queue %u was changed while the device was live", addr.index);
	if (ioctl(d->fd, VHOST_SET_FEATURES, &features) >= 0)
		fail("features were changed while the device was live");
	state.num = 1U << rnd(&d->random) % 10;
	ioctl(d->fd, VHOST_SET_VRING_NUM, &state);
	status = VIRTIO_CONFIG_S_ACKNOWLEDGE;
	if (ioctl(d->fd, VHOST_VDPA_SET_STATUS, &status) >= 0)
		fail("status bits were cleared without a reset");
}

static void use_ioctls(struct dev *d)
{
	unsigned int turns = between(d, 5, 40);
	int fd;

	while (turns--) {
		change_config(d);
		change_ring(d);
		get_base(d, any_queue(d)->index);
		fd = open(d->path, O_RDWR | O_CLOEXEC);
		/* The node is away if the device is being deleted. */
		if (fd >= 0 || (errno != EBUSY && errno != ENOENT && errno != ENXIO))
			fail("a second open of %s: %s", d->path,
			     fd >= 0 ? "it succeeded" : strerror(errno));
		usleep(between(d, 0, 500));
	}
}

void part_ioctls(struct dev *d)
{
	run_beside(d, use_ioctls);
}
