// SPDX-License-Identifier: GPL-2.0
/*
 * A split ring that the driver runs itself, and requests that it prepares for the others.
 *
 * The virtio core creates, deletes and notifies the virtqueue; the driver writes the
 * available ring and reads the used ring.  So it does per I/O only what a request needs
 * (VIRTIO 1.4, 2.7):
 *
 *	descriptor ring         indirect table, in struct virtblk_req
 *	+-------+             +--------+------+------+--------+
 *	| [tag] |------------>| header | data | data | status |
 *	+-------+             +--------+------+------+--------+
 *	                       once     each I/O      once
 *
 * A request's descriptor is the one with the number of its tag, so there is no free list,
 * the ring is never full, and what the device returns is a tag.  Submission and completion
 * share no state: each has a lock of its own.
 *
 * The core keeps shadows of the ring's indexes, which stay as they were when the driver
 * took the ring over.  So virtqueue_add_sgs(), virtqueue_get_buf(),
 * virtqueue_kick_prepare(), and the functions that enable and disable callbacks cannot be
 * used with such a ring.  virtqueue_notify(), virtqueue_is_broken() and del_vqs() can.
 *
 * One thing depends on these shadows: vring_interrupt() does not call the driver if the
 * index of the used ring is 0, as at the takeover, because it takes the interrupt for one
 * without work.  After 65536 completions the index is 0 again, and then that is wrong.
 * From the moment the driver submits the request with which the device may reach 0, until
 * the driver has consumed that request, a timer polls the ring (virtblk_guard_poll(),
 * tools/testing/model/own_ring.pml).
 *
 * virtqueue_notify() reads an index of the core for VIRTIO_F_NOTIFICATION_DATA, which
 * virtblk_validate() declines.
 *
 * With VIRTIO_F_ACCESS_PLATFORM header, table and status are in coherent memory, in struct
 * virtblk_shared, and the driver maps the data alone for each I/O.
 *
 * The driver leaves a ring to the virtio core if it is packed, if the device does not
 * offer indirect descriptors or has no VIRTIO_F_VERSION_1, if the disk is zoned, if it is not
 * known how to map memory for the device (virtblk_can_map()), under Xen and KMSAN, and if
 * own_ring is off.
 *
 * Some kernels have virtqueue_add_prepared(), which takes the address of a table.  Then the
 * same tables serve for packed rings, and for split ones with own_ring off.  The virtio core
 * runs these rings, with all of its state: free descriptors, wrap counters, event indexes.
 */

#include <linux/blk-mq.h>
#include <linux/io.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <xen/xen.h>

#include "ring.h"
#include "virtio_blk.h"

static bool virtblk_own_ring = true;
module_param_named(own_ring, virtblk_own_ring, bool, 0644);
MODULE_PARM_DESC(own_ring,
		 "Run split rings by the driver instead of the virtio core, which takes fewer instructions (default: Y). Read when a disk is probed.");

/* On other kernels there is no such parameter. */
static bool virtblk_prepared = VIRTBLK_HAVE_PREPARED;
#ifdef virtqueue_add_prepared
module_param_named(prepared, virtblk_prepared, bool, 0644);
MODULE_PARM_DESC(prepared,
		 "Prepare requests for the rings that the virtio core runs, which takes fewer instructions (default: Y). Read when a disk is probed.");
#endif

/*
 * Devices that need the DMA API are left to the virtio core if it does not say for which
 * device to map: before 6.6, and if a device has operations of its own
 * (struct virtio_map_ops).  So are vDPA devices that map by themselves, as VDUSE does below
 * 6.18: its locks leave interrupts on, and the driver unmaps in interrupts.
 */
static bool virtblk_can_map(struct virtio_device *vdev)
{
	struct virtqueue *vq;
	struct device *dev;

	if (!virtio_has_feature(vdev, VIRTIO_F_ACCESS_PLATFORM))
		return true;
	virtio_device_for_each_vq(vdev, vq) {
		dev = virtqueue_dma_dev(vq);
		if (!dev || (dev->bus && !strcmp(dev->bus->name, "vdpa")))
			return false;
	}
	return true;
}

/*
 * May requests have a table of the driver's?  KMSAN must be told what the device writes, and
 * Xen maps memory by itself: both are left to the virtio core.
 */
static bool virtblk_may_have_tables(struct virtio_device *vdev)
{
	return !IS_ENABLED(CONFIG_KMSAN) && !xen_domain() &&
	       virtio_has_feature(vdev, VIRTIO_F_VERSION_1) &&
	       virtio_has_feature(vdev, VIRTIO_RING_F_INDIRECT_DESC) &&
	       !virtio_has_feature(vdev, VIRTIO_BLK_F_ZONED) &&
	       virtblk_can_map(vdev);
}

/**
 * virtblk_may_own_rings() - may the driver run the rings of a disk itself?
 * @vdev: the device, its virtqueues set up
 *
 * Return: true if it may.
 */
bool virtblk_may_own_rings(struct virtio_device *vdev)
{
	return READ_ONCE(virtblk_own_ring) &&
	       !virtio_has_feature(vdev, VIRTIO_F_RING_PACKED) &&
	       virtblk_may_have_tables(vdev);
}

/**
 * virtblk_may_prepare() - may the driver prepare requests for the virtio core's rings?
 * @vdev: the device, its virtqueues set up
 *
 * Return: true if it may.
 */
bool virtblk_may_prepare(struct virtio_device *vdev)
{
	return READ_ONCE(virtblk_prepared) && virtblk_may_have_tables(vdev);
}

/**
 * virtblk_start_guard() - poll a ring until its used index has passed 0
 * @q: the queue, its submit_lock held
 */
void virtblk_start_guard(struct virtblk_queue *q)
{
	/* A queue that is polled anyway has no callback. */
	if (!q->vq->callback || !virtblk_has_guard(q->vblk))
		return;
	WRITE_ONCE(q->guard_ns, VIRTBLK_GUARD_NS);
	hrtimer_start(&q->guard, ns_to_ktime(VIRTBLK_GUARD_NS), HRTIMER_MODE_REL);
}

/**
 * virtblk_break_ring() - break a virtqueue whose device returned an unknown request
 * @q: the queue, its lock held
 * @tag: what the device returned
 */
void virtblk_break_ring(struct virtblk_queue *q, u32 tag)
{
	dev_err_ratelimited(&q->vblk->vdev->dev, "queue %u: the device returned request %u, which is not in flight\n",
			    q->vq->index, tag);
	__virtqueue_break(q->vq);
}

/**
 * virtblk_take_ring() - take a ring over from the virtio core
 * @q: the queue, with its virtqueue and nothing in flight
 *
 * Does nothing if the ring has no descriptor for each tag, has been used, or is not what
 * the driver expects of the core.
 *
 * Context: process, both of the queue's locks held.
 */
void virtblk_take_ring(struct virtblk_queue *q)
{
	struct virtqueue *vq = q->vq;
	struct virtio_device *vdev = vq->vdev;
	const struct vring *vring = virtqueue_get_vring(vq);
	struct virtblk_ring *ring = &q->ring;
	unsigned int i;

	if (!q->slots)
		return;
	if (vring->num < q->vblk->tag_set.queue_depth ||
	    READ_ONCE(vring->avail->idx) || READ_ONCE(vring->used->idx) ||
	    (!q->shared &&
	     virt_to_phys(vring->desc) != virtqueue_get_desc_addr(vq))) {
		dev_notice(&vdev->dev, "queue %u: the virtio core runs the ring, of %u descriptors: it has been used, is too small, or is not at its physical address\n",
			   vq->index, vring->num);
		return;
	}

	ring->desc = vring->desc;
	ring->avail = vring->avail;
	ring->used = vring->used;
	ring->mask = vring->num - 1;
	ring->nr_tags = q->vblk->tag_set.queue_depth;
	ring->event_idx = virtio_has_feature(vdev, VIRTIO_RING_F_EVENT_IDX);
	ring->weak_barriers = !virtio_has_feature(vdev, VIRTIO_F_ORDER_PLATFORM);
	q->avail_idx = 0;
	q->kicked = 0;
	q->used_idx = 0;
	for (i = 0; i < ring->nr_tags; i++)
		WRITE_ONCE(q->slots[i], NULL);
	for (i = 0; i < vring->num; i++)
		vring->desc[i].flags =
			(__force __virtio16)cpu_to_le16(VRING_DESC_F_INDIRECT);
	/* A callback that sees it sees the ring as well. */
	smp_store_release(&q->own_ring, true);
}

/**
 * virtblk_start_prepared() - prepare the requests of a ring that the virtio core runs
 * @q: the queue, with its virtqueue and nothing in flight
 *
 * Does nothing if the driver runs the ring itself, may not prepare requests, or has no
 * memory for it that the device shares.
 *
 * Context: process, both of the queue's locks held.
 */
void virtblk_start_prepared(struct virtblk_queue *q)
{
	struct virtio_device *vdev = q->vq->vdev;

	q->packed = virtio_has_feature(vdev, VIRTIO_F_RING_PACKED);
	q->prepared = q->vblk->prepared && !q->own_ring &&
		      (q->shared || !virtio_has_feature(vdev, VIRTIO_F_ACCESS_PLATFORM));
}
