// SPDX-License-Identifier: GPL-2.0
/*
 * Fault injection, for tests.  For each kind of fault a disk's directory in debugfs,
 * virtio_blk/<disk>/, has the attributes of the kernel's fault injection
 * (Documentation/fault-injection/fault-injection.rst).  Write the number of a queue to
 * confuse_device to make the device ask for a reset.  Write anything to break_device to
 * break the virtqueues.
 *
 * delay makes the driver wait, for delay_us microseconds, after it has dropped a lock
 * and before its next step, so that another event is likely to come in between.
 */

#include <linux/blk-mq.h>
#include <linux/debugfs.h>
#include <linux/delay.h>

#include "virtio_blk.h"

/* The default and the maximum of delay_us. */
#define VIRTBLK_DELAY_US	5000
#define VIRTBLK_MAX_DELAY_US	100000

/* Time for the device to ask for a reset, in milliseconds. */
#define VIRTBLK_NEEDS_RESET_MS	2000

/*
 * Offer the device a request whose descriptor is not in the ring.  A device that follows
 * VIRTIO 1.4, 2.1.2 sets DEVICE_NEEDS_RESET then, and does not touch the disk.
 */
static int virtblk_confuse_device(void *data, u64 index)
{
	struct virtio_blk *vblk = data;
	struct virtio_device *vdev = vblk->vdev;
	unsigned int ms = VIRTBLK_NEEDS_RESET_MS;
	const struct vring *ring;
	struct virtqueue *vq;
	u16 was;

	if (index >= vblk->nr_vqs)
		return -EINVAL;
	if (virtio_has_feature(vdev, VIRTIO_F_RING_PACKED))
		return -EOPNOTSUPP;

	mutex_lock(&vblk->recovery.lock);
	blk_mq_quiesce_queue(vblk->disk->queue);
	vq = vblk->queues[index]->vq;
	if (vq) {
		ring = virtqueue_get_vring(vq);
		was = virtio16_to_cpu(vdev, ring->avail->idx);
		ring->avail->ring[was % ring->num] =
			cpu_to_virtio16(vdev, U16_MAX);
		/* The device reads the entry after the index. */
		wmb();
		ring->avail->idx = cpu_to_virtio16(vdev, was + 1);
		virtqueue_notify(vq);
		while (--ms && !virtblk_needs_reset(vdev))
			fsleep(1000);
	}
	blk_mq_unquiesce_queue(vblk->disk->queue);
	mutex_unlock(&vblk->recovery.lock);
	return ms ? 0 : -ETIMEDOUT;
}
DEFINE_DEBUGFS_ATTRIBUTE(virtblk_confuse_fops, NULL, virtblk_confuse_device,
			 "%llu\n");

static int virtblk_break_device(void *data, u64 ignored)
{
	struct virtio_blk *vblk = data;

	virtio_break_device(vblk->vdev);
	return 0;
}
DEFINE_DEBUGFS_ATTRIBUTE(virtblk_break_fops, NULL, virtblk_break_device,
			 "%llu\n");

/**
 * virtblk_create_faults() - create a disk's files
 * @vblk: the disk, which has its directory in debugfs
 */
void virtblk_create_faults(struct virtio_blk *vblk)
{
	static DECLARE_FAULT_ATTR(none);
	struct virtblk_faults *faults = &vblk->faults;
	struct dentry *dir = vblk->debugfs;

	faults->drop_interrupt = none;
	faults->drop_kick = none;
	faults->fail_add = none;
	faults->delay = none;
	faults->delay_us = VIRTBLK_DELAY_US;

	fault_create_debugfs_attr("drop_interrupt", dir,
				  &faults->drop_interrupt);
	fault_create_debugfs_attr("drop_kick", dir, &faults->drop_kick);
	fault_create_debugfs_attr("fail_add", dir, &faults->fail_add);
	fault_create_debugfs_attr("delay", dir, &faults->delay);
	debugfs_create_u32("delay_us", 0600, dir, &faults->delay_us);
	debugfs_create_bool("no_guard", 0600, dir, &faults->no_guard);
	debugfs_create_file_unsafe("confuse_device", 0200, dir, vblk,
				   &virtblk_confuse_fops);
	debugfs_create_file_unsafe("break_device", 0200, dir, vblk,
				   &virtblk_break_fops);
}

/**
 * virtblk_drop_interrupt() - must the driver ignore an interrupt?
 * @vblk: the disk
 *
 * Context: any.
 *
 * Return: true if it must.
 */
bool virtblk_drop_interrupt(struct virtio_blk *vblk)
{
	return should_fail(&vblk->faults.drop_interrupt, 1);
}

/**
 * virtblk_drop_kick() - must the driver omit a notification?
 * @vblk: the disk
 *
 * Context: any.
 *
 * Return: true if it must.
 */
bool virtblk_drop_kick(struct virtio_blk *vblk)
{
	return should_fail(&vblk->faults.drop_kick, 1);
}

/**
 * virtblk_fail_add() - must adding a request to the ring fail?
 * @vblk: the disk
 *
 * Context: any.
 *
 * Return: true if it must, as if memory were short.
 */
bool virtblk_fail_add(struct virtio_blk *vblk)
{
	return should_fail(&vblk->faults.fail_add, 1);
}

/**
 * virtblk_has_guard() - must the driver poll where the virtio core drops an interrupt?
 * @vblk: the disk
 *
 * Context: any.
 *
 * Return: true unless a test wants to lose that interrupt.
 */
bool virtblk_has_guard(struct virtio_blk *vblk)
{
	return !READ_ONCE(vblk->faults.no_guard);
}

static unsigned int virtblk_delay_length(struct virtio_blk *vblk)
{
	if (!should_fail(&vblk->faults.delay, 1))
		return 0;
	return min_t(u32, READ_ONCE(vblk->faults.delay_us),
		     VIRTBLK_MAX_DELAY_US);
}

/**
 * virtblk_delay() - sleep for delay_us, if fault injection decides so
 * @vblk: the disk
 *
 * Context: may sleep.
 */
void virtblk_delay(struct virtio_blk *vblk)
{
	unsigned int us = virtblk_delay_length(vblk);

	if (us)
		fsleep(us);
}

/**
 * virtblk_delay_atomic() - spin for delay_us, if fault injection decides so
 * @vblk: the disk
 *
 * Context: any.
 */
void virtblk_delay_atomic(struct virtio_blk *vblk)
{
	unsigned int us = virtblk_delay_length(vblk);

	for (; us >= USEC_PER_MSEC; us -= USEC_PER_MSEC)
		mdelay(1);
	udelay(us);
}
