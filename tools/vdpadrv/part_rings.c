// SPDX-License-Identifier: GPL-2.0
/* Parts of a life cycle: rings, chains and requests. */

#define _GNU_SOURCE
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "vdpadrv.h"

void part_verify(struct dev *d)
{
	fresh_start(d);
	d->count = d->places * between(d, 1, 2);
	run_io(d, NULL);
}

/* One queue after the other, the last one to its end. */
void part_attack(struct dev *d)
{
	unsigned int turns = between(d, 1, 3), i;

	while (turns--) {
		fresh_start(d);
		for (i = 0; i < d->nr_queues; i++)
			attack_queue(&d->queues[i], between(d, 2, 10), false);
		attack_queue(any_queue(d), between(d, 0, 1), true);
		check_readonly(d, "malformed requests");
	}
}

static void attack_last(struct dev *d)
{
	attack_queue(&d->queues[d->nr_queues - 1], between(d, 2, 15), rnd(&d->random) & 1);
}

/* One queue, while others have verified I/O. */
void part_attack_beside(struct dev *d)
{
	fresh_start(d);
	d->reserved = 1;
	d->count = UINT32_MAX;
	run_io(d, attack_last);
	d->reserved = 0;
	check_readonly(d, "malformed requests beside others");
}

/* Chains after which nothing is sure but that a reset helps. */
void part_wild(struct dev *d)
{
	unsigned int turns = between(d, 2, 8), s;
	const struct kind *kind;
	struct queue *q;
	enum seen seen;

	while (turns--) {
		fresh_start(d);
		q = any_queue(d);
		for (s = 0; s + 1 < d->depth && rnd(&d->random) % 4; s++) {
			if (q->descs + q->per + 4 > d->num)
				break;
			submit(q, s, VIRTIO_BLK_T_IN, s, 0);
		}
		kind = pick_kind(q, EITHER);
		if (!kind)
			continue;
		put_kind(q, s, kind);
		kick(q, true);
		if (kind->flags & SCRIBBLE)
			scribble(q);
		seen = watch(q, s, 50);
		/* A used entry can be that of one of the reads, if there are some. */
		if (seen == BROKE || (seen == ANSWERED && !s))
			count_kind(kind);
		set_status(d, 0);
		check_readonly(d, kind->name);
	}
}

/* Set-ups that are not allowed */

static void refuse(struct dev *d, unsigned long request, void *arg, int error, const char *name)
{
	if (ioctl(d->fd, request, arg) >= 0 || errno != error)
		fail("%s: %s, expected %s", name, strerror(errno), strerror(error));
	count(&counts->malformed);
}

static void refuse_features(struct dev *d)
{
	uint64_t features = d->features | F(60);
	uint8_t status = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER;

	set_status(d, 0);
	set_status(d, status);
	refuse(d, VHOST_SET_FEATURES, &features, EINVAL, "an unknown feature");
	features = d->features & ~F(VIRTIO_F_VERSION_1);
	refuse(d, VHOST_SET_FEATURES, &features, EINVAL, "features without VERSION_1");
	set_status(d, status | VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK);
	if (get_status(d) != status)
		fail("status %#x though the features were refused", get_status(d));
}

static void refuse_numbers(struct dev *d)
{
	struct vhost_vring_state state = { .index = 0, .num = 0 };

	refuse(d, VHOST_SET_VRING_NUM, &state, EINVAL, "a ring without entries");
	state.num = 3;
	refuse(d, VHOST_SET_VRING_NUM, &state, EINVAL, "a ring of 3 entries");
	state.index = 0x10000;
	refuse(d, VHOST_VDPA_SET_VRING_ENABLE, &state, ENOBUFS, "queue 65536");
}

/* A ring that is not where a ring can be. */
static void misplace_ring(struct dev *d)
{
	uint64_t desc = IOVA, driver = desc + DRIVER_AREA, device = desc + DEVICE_AREA;
	struct vhost_vring_state base = { .index = 0 };

	switch (rnd(&d->random) % 6) {
	case 0:
		desc += 8;
		break;
	case 1:
		desc = IOVA + mem_bytes - 16;
		break;
	case 2:
		desc = ~0ULL - 15;
		break;
	case 3:
		driver = IOVA - 0x1000;
		break;
	case 4:
		device = IOVA + readonly_at(d);
		break;
	default:
		if (!d->packed) {
			device = IOVA + mem_bytes;
			break;
		}
		base.num = d->num + rnd(&d->random) % (0x8000 - d->num);
		base.num |= rnd(&d->random) << 15;
		IOCTL(d, VHOST_SET_VRING_BASE, &base);
	}
	set_ring_addresses(d, 0, desc, driver, device);
}

void part_set_up(struct dev *d)
{
	unsigned int turns = between(d, 2, 6);
	uint8_t status;

	while (turns--) {
		fresh_start(d);
		refuse_features(d);
		refuse_numbers(d);
		negotiate(d);
		start_queue(d, 0, NULL);
		misplace_ring(d);
		status = get_status(d);
		set_status(d, status | VIRTIO_CONFIG_S_DRIVER_OK);
		must_need_reset(d, "a ring that is not there");
		kick(&d->queues[0], true);
		count(&counts->malformed);
	}
}
