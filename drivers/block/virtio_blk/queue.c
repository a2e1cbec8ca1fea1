// SPDX-License-Identifier: GPL-2.0
/*
 * The disk's queues: their number, virtqueues, depth and hctx.  affinity.c maps them
 * to CPUs.
 */

#include <linux/blk-mq.h>
#include <linux/cpumask.h>
#include <linux/crash_dump.h>
#include <linux/dma-mapping.h>
#include <linux/interrupt.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/topology.h>

#include "virtio_blk.h"

/* Requests in flight that a ring must have room for if queue_depth is 0. */
#define VIRTBLK_USUAL_DEPTH	256

/* With direct descriptors a request takes at most 1/8 of the ring. */
#define VIRTBLK_MIN_DIRECT_RING	256
#define VIRTBLK_DIRECT_SHARE	8

static unsigned int virtblk_num_request_queues;
module_param_named(num_request_queues, virtblk_num_request_queues, uint, 0644);
MODULE_PARM_DESC(num_request_queues,
		 "Use at most this many queues for each disk (0: as many as the device and the CPUs allow). Read when a disk is probed.");

static unsigned int virtblk_poll_queues;
module_param_named(poll_queues, virtblk_poll_queues, uint, 0644);
MODULE_PARM_DESC(poll_queues,
		 "Number of polled queues, which have no interrupt, among the queues of each disk. Read when a disk is probed.");

static unsigned int virtblk_read_queues;
module_param_named(read_queues, virtblk_read_queues, uint, 0644);
MODULE_PARM_DESC(read_queues,
		 "Number of queues for reads among the queues of each disk; the other queues then get no reads. Read when a disk is probed.");

static unsigned int virtblk_queue_depth;
module_param_named(queue_depth, virtblk_queue_depth, uint, 0444);
MODULE_PARM_DESC(queue_depth,
		 "Maximum number of requests in flight on each queue (0: as many as the ring holds)");

/**
 * virtblk_device_queues() - read the number of the device's queues
 * @vdev: the device, its features negotiated
 *
 * Return: the number, 1 or more.
 */
unsigned int virtblk_device_queues(struct virtio_device *vdev)
{
	u16 num_queues;

	if (!virtio_has_feature(vdev, VIRTIO_BLK_F_MQ))
		return 1;

	virtio_cread(vdev, struct virtio_blk_config, num_queues, &num_queues);
	if (!num_queues) {
		dev_warn_ratelimited(&vdev->dev, "the device offers MQ, but it has 0 queues; using 1\n");
		return 1;
	}
	return num_queues;
}

/**
 * virtblk_count_queues() - decide how many queues to use
 * @vdev: the device, its features negotiated
 * @nr_queues: filled in, the number for each type of hctx
 *
 * The driver uses at most as many queues as the device has, as there are possible CPUs,
 * and as num_request_queues allows.  Of these, poll_queues are polled, and of the rest,
 * read_queues serve reads.
 *
 * Return: the sum over the types.
 */
unsigned int virtblk_count_queues(struct virtio_device *vdev,
				  unsigned int nr_queues[HCTX_MAX_TYPES])
{
	unsigned int limit = READ_ONCE(virtblk_num_request_queues);
	unsigned int poll = READ_ONCE(virtblk_poll_queues);
	unsigned int read = READ_ONCE(virtblk_read_queues);
	unsigned int queues, total;

	queues = min(virtblk_device_queues(vdev), num_possible_cpus());
	/* A kdump kernel has little memory, and blk-mq uses one queue there. */
	if (is_kdump_kernel())
		queues = 1;
	total = min_not_zero(queues, limit);
	if (limit > queues)
		dev_notice(&vdev->dev, "num_request_queues=%u: using %u, the most that the device and the number of CPUs allow\n",
			   limit, queues);

	if (poll > total - 1) {
		dev_notice(&vdev->dev, "poll_queues=%u: using %u, one of %u queues must have an interrupt\n",
			   poll, total - 1, total);
		poll = total - 1;
	}

	if (read > total - poll - 1) {
		dev_notice(&vdev->dev, "read_queues=%u: using %u, one of %u queues must take writes\n",
			   read, total - poll - 1, total);
		read = total - poll - 1;
	}

	nr_queues[HCTX_TYPE_DEFAULT] = total - poll - read;
	nr_queues[HCTX_TYPE_READ] = read;
	nr_queues[HCTX_TYPE_POLL] = poll;
	return total;
}

/**
 * virtblk_find_vqs() - have the transport set up the virtqueues
 * @vblk: the disk, its numbers of queues decided
 * @managed: have the kernel spread the vectors over the CPUs, if the transport has a
 *	vector for each virtqueue with an interrupt
 *
 * virtblk_bind_vqs() then binds the virtqueues to their queues.
 *
 * Context: may sleep.
 *
 * Return: 0, -ENOMEM, or the transport's error.
 */
int virtblk_find_vqs(struct virtio_blk *vblk, bool managed)
{
	struct virtio_device *vdev = vblk->vdev;
	struct irq_affinity affinity = { };
	struct virtqueue_info *vqs_info;
	struct virtqueue **vqs;
	unsigned int i;
	int err = -ENOMEM;

	virtblk_init_affinity(vblk, &affinity);
	vqs_info = kcalloc(vblk->nr_vqs, sizeof(*vqs_info), GFP_KERNEL);
	vqs = kcalloc(vblk->nr_vqs, sizeof(*vqs), GFP_KERNEL);
	if (!vqs_info || !vqs)
		goto out;

	for (i = 0; i < vblk->nr_vqs; i++) {
		snprintf(vblk->vq_names[i], sizeof(vblk->vq_names[i]),
			 "req.%u", i);
		vqs_info[i].name = vblk->vq_names[i];
		if (i < virtblk_first_polled(vblk))
			vqs_info[i].callback = virtblk_interrupt;
	}

	err = virtio_find_vqs(vdev, vblk->nr_vqs, vqs, vqs_info,
			      managed ? &affinity : NULL);
	if (err) {
		/* A return that is short of memory tries many times. */
		dev_err_ratelimited(&vdev->dev, "setting up %u virtqueues failed: %d\n",
				    vblk->nr_vqs, err);
		goto out;
	}

	vblk->has_vqs = true;
	vblk->managed = managed;
	/* In practice all rings have one size; the smallest size suits all of them. */
	vblk->ring_size = virtqueue_get_vring_size(vqs[0]);
	for (i = 1; i < vblk->nr_vqs; i++)
		vblk->ring_size = min(vblk->ring_size,
				      virtqueue_get_vring_size(vqs[i]));
out:
	kfree(vqs);
	kfree(vqs_info);
	return err;
}

/**
 * virtblk_del_vqs() - delete the virtqueues, if there are any
 * @vblk: the disk, its device reset
 */
void virtblk_del_vqs(struct virtio_blk *vblk)
{
	if (!vblk->has_vqs)
		return;
	vblk->has_vqs = false;
	vblk->vdev->config->del_vqs(vblk->vdev);
}

/* VIRTIO 1.4, 2.7.5.3: an indirect request takes one descriptor of the ring. */
static bool virtblk_has_indirect(struct virtio_device *vdev)
{
	return virtio_has_feature(vdev, VIRTIO_RING_F_INDIRECT_DESC);
}

/* How many reads or writes of one segment a ring of direct descriptors holds. */
static unsigned int virtblk_direct_depth(struct virtio_blk *vblk)
{
	return vblk->ring_size / (1 + VIRTBLK_EXTRA_DESCS);
}

/*
 * virtio_ring allocates, zeroes and frees an indirect table for each request, which
 * takes some 300 instructions.  Direct descriptors avoid this, but take more of the
 * ring.  Prefer them if the ring is large enough.
 */
static bool virtblk_prefers_direct(struct virtio_blk *vblk)
{
	unsigned int depth = virtblk_queue_depth ?: VIRTBLK_USUAL_DEPTH;

	return !vblk->own_rings && !vblk->prepared &&
	       virtblk_has_indirect(vblk->vdev) &&
	       vblk->ring_size >= VIRTBLK_MIN_DIRECT_RING &&
	       virtblk_direct_depth(vblk) >= depth;
}

/**
 * virtblk_find_vqs_unmanaged() - set up the virtqueues again, with unmanaged vectors
 * @vblk: the disk, its virtqueues set up with managed vectors
 *
 * The kernel shuts a managed vector down when the last of its CPUs goes offline.  If
 * vectors do not match the queue map, other CPUs that use the queue would then wait
 * for an interrupt that does not come.  virtblk_set_affinity() sends each unmanaged
 * vector to the CPUs of its queue.
 *
 * Context: may sleep.
 *
 * Return: 0, or the transport's error; there are no virtqueues then.
 */
int virtblk_find_vqs_unmanaged(struct virtio_blk *vblk)
{
	int err;

	virtblk_reset_device(vblk->vdev);
	virtblk_del_vqs(vblk);
	err = virtblk_negotiate(vblk->vdev);
	return err ?: virtblk_find_vqs(vblk, false);
}

/* Features can only change after a reset, while there are no virtqueues. */
static int virtblk_drop_indirect(struct virtio_blk *vblk)
{
	struct virtio_device *vdev = vblk->vdev;

	virtblk_reset_device(vdev);
	virtblk_del_vqs(vblk);

	__virtio_clear_bit(vdev, VIRTIO_RING_F_INDIRECT_DESC);
	vblk->direct = !virtblk_negotiate(vdev);
	if (vblk->direct)
		return 0;

	/* A device may reject a driver that declines what it offers. */
	__virtio_set_bit(vdev, VIRTIO_RING_F_INDIRECT_DESC);
	virtblk_reset_device(vdev);
	return virtblk_negotiate(vdev);
}

/**
 * virtblk_init_vqs() - set up the virtqueues at probe
 * @vblk: the disk, its numbers of queues decided
 *
 * The size of the rings, and so whether the driver prefers indirect descriptors, is
 * known only after the virtqueues are set up.  If the driver prefers direct ones, it
 * negotiates the features again.  After that virtblk_find_vqs() is enough.
 *
 * Context: may sleep.
 *
 * Return: 0, -ENOMEM, or the transport's error; there are no virtqueues then.
 */
int virtblk_init_vqs(struct virtio_blk *vblk)
{
	int err;

	err = virtblk_find_vqs(vblk, true);
	if (err)
		return err;
	vblk->own_rings = virtblk_may_own_rings(vblk->vdev);
	vblk->prepared = virtblk_may_prepare(vblk->vdev);
	if (virtblk_prefers_direct(vblk)) {
		err = virtblk_drop_indirect(vblk);
		if (!err)
			err = virtblk_find_vqs(vblk, true);
		if (err)
			return err;
	}
	err = virtblk_check_spread(vblk) ? 0 : virtblk_find_vqs_unmanaged(vblk);
	if (!err)
		vblk->own_vectors = virtblk_has_own_vectors(vblk);
	return err;
}

/**
 * virtblk_max_chain() - return the most descriptors that a request may have
 * @vblk: the disk, its virtqueues set up
 *
 * If the driver declined indirect descriptors, the ring must still hold many requests.
 *
 * Return: the number, with those of the header and the status.
 */
unsigned int virtblk_max_chain(const struct virtio_blk *vblk)
{
	return vblk->direct ? vblk->ring_size / VIRTBLK_DIRECT_SHARE :
			      vblk->ring_size;
}

/**
 * virtblk_choose_depth() - decide how many requests each queue may have in flight
 * @vblk: the disk, its virtqueues set up
 *
 * With indirect descriptors a request takes one entry of the ring.  With direct ones
 * a read or write of one segment takes three.
 *
 * Return: the depth, 1 or more.
 */
unsigned int virtblk_choose_depth(struct virtio_blk *vblk)
{
	unsigned int depth = virtblk_queue_depth;
	unsigned int limit;

	limit = virtblk_has_indirect(vblk->vdev) ? vblk->ring_size :
						   virtblk_direct_depth(vblk);
	limit = clamp_t(unsigned int, limit, 1, BLK_MQ_MAX_DEPTH);

	if (depth > limit)
		dev_notice(&vblk->vdev->dev, "queue_depth=%u: using %u, the most that a ring of %u holds\n",
			   depth, limit, vblk->ring_size);
	return min_not_zero(depth, limit);
}

/* The node of a queue's own memory. */
static int virtblk_queue_node(const struct virtblk_queue *q)
{
	return page_to_nid(virt_to_page(q));
}

/*
 * Allocate what a queue needs to run its ring, or to prepare requests.  Without coherent
 * memory the virtio core runs the ring, and nothing is prepared.
 */
static int virtblk_alloc_slots(struct virtblk_queue *q, struct virtqueue *vq)
{
	unsigned int depth = q->vblk->tag_set.queue_depth;

	if (virtio_has_feature(vq->vdev, VIRTIO_F_ACCESS_PLATFORM)) {
		q->dma_dev = virtqueue_dma_dev(vq);
		if (!q->dma_dev)
			return 0;
		q->shared = dma_alloc_coherent(q->dma_dev,
					       depth * sizeof(*q->shared),
					       &q->shared_addr,
					       GFP_KERNEL | __GFP_NOWARN);
		if (!q->shared)
			return 0;
	}
	if (!q->vblk->own_rings)
		return 0;
	q->slots = kvmalloc_node(depth * sizeof(*q->slots), GFP_KERNEL | __GFP_ZERO,
				 virtblk_queue_node(q));
	return q->slots ? 0 : -ENOMEM;
}

static void virtblk_free_slots(struct virtblk_queue *q)
{
	kfree(q->spare);
	kvfree(q->slots);
	if (q->shared)
		dma_free_coherent(q->dma_dev, q->vblk->tag_set.queue_depth *
				  sizeof(*q->shared), q->shared,
				  q->shared_addr);
}

/**
 * virtblk_alloc_queues() - allocate the queues near the CPUs that they serve
 * @vblk: the disk, its tag set allocated and its virtqueues set up
 *
 * Return: 0, or -ENOMEM; virtblk_free_queues() frees the queues in both cases.
 */
int virtblk_alloc_queues(struct virtio_blk *vblk)
{
	struct virtblk_queue *q;
	struct virtqueue *vq;
	cpumask_var_t mask;
	unsigned int i, cpu;
	size_t size;
	int err;

	if (!alloc_cpumask_var(&mask, GFP_KERNEL))
		return -ENOMEM;

	/* kmalloc() guarantees alignment only for sizes that are powers of two. */
	size = roundup_pow_of_two(sizeof(*q));
	for (i = 0; i < vblk->nr_vqs; i++) {
		virtblk_queue_cpus(vblk, i, mask);
		cpu = cpumask_first(mask);
		q = kzalloc_node(size, GFP_KERNEL, cpu < nr_cpu_ids ?
				 cpu_to_node(cpu) : NUMA_NO_NODE);
		if (!q)
			break;
		spin_lock_init(&q->submit_lock);
		spin_lock_init(&q->lock);
		INIT_WORK(&q->work, virtblk_complete_work);
		hrtimer_setup(&q->guard, virtblk_guard_poll, CLOCK_MONOTONIC,
			      HRTIMER_MODE_REL);
		q->vblk = vblk;
		q->indirect = virtblk_has_indirect(vblk->vdev);
		/* A hostile device interrupts already: virtblk_interrupt() reads it. */
		smp_store_release(&vblk->queues[i], q);
	}
	free_cpumask_var(mask);
	if (i < vblk->nr_vqs)
		return -ENOMEM;

	if (!vblk->own_rings && !vblk->prepared)
		return 0;
	virtio_device_for_each_vq(vblk->vdev, vq) {
		/* virtio_pci has an administration virtqueue of its own. */
		if (vq->index >= vblk->nr_vqs)
			continue;
		err = virtblk_alloc_slots(vblk->queues[vq->index], vq);
		if (err)
			return err;
	}
	return 0;
}

/* The most ranges of a request; 0 if the device takes no command that has ranges. */
static unsigned int virtblk_most_ranges(struct virtio_blk *vblk)
{
	struct virtio_device *vdev = vblk->vdev;

	if (virtio_has_feature(vdev, VIRTIO_BLK_F_DISCARD))
		return max(1U, vblk->config.lim.max_discard_segments);
	return virtio_has_feature(vdev, VIRTIO_BLK_F_WRITE_ZEROES) ||
	       virtio_has_feature(vdev, VIRTIO_BLK_F_SECURE_ERASE);
}

/**
 * virtblk_alloc_spares() - allocate what requests borrow when memory is short
 * @vblk: the disk, its queues allocated and its limits known
 *
 * With it a request of many segments, or with ranges, makes progress while memory waits for
 * it.  Without it such a request is tried again until there is memory, and blk-mq sends
 * nothing behind it.  virtblk_free_queues() frees it.
 */
void virtblk_alloc_spares(struct virtio_blk *vblk)
{
	unsigned int longest = vblk->config.lim.max_segments + VIRTBLK_EXTRA_DESCS;
	unsigned int ranges = virtblk_most_ranges(vblk), i, entries;
	struct virtblk_queue *q;

	for (i = 0; i < vblk->nr_vqs; i++) {
		q = vblk->queues[i];
		entries = ranges;
		if ((q->slots || vblk->prepared) && longest > VIRTBLK_TABLE_ENTRIES)
			entries = max(entries, longest);
		if (entries)
			q->spare = kmalloc_array_node(entries, sizeof(*q->spare),
						      GFP_KERNEL | __GFP_NOWARN,
						      virtblk_queue_node(q));
	}
}

/**
 * virtblk_free_queues() - free the queues
 * @vblk: the disk, its virtqueues deleted
 */
void virtblk_free_queues(struct virtio_blk *vblk)
{
	unsigned int i;

	for (i = 0; i < vblk->nr_vqs; i++) {
		if (vblk->queues[i])
			virtblk_free_slots(vblk->queues[i]);
		kfree(vblk->queues[i]);
		vblk->queues[i] = NULL;
	}
}

static void virtblk_set_vq(struct virtblk_queue *q, struct virtqueue *vq)
{
	unsigned long flags;
	bool restart;

	spin_lock(&q->submit_lock);
	spin_lock_irqsave(&q->lock, flags);
	q->vq = vq;
	q->ring_size = vq ? virtqueue_get_vring_size(vq) : 0;
	/* Callbacks read it without a lock. */
	WRITE_ONCE(q->own_ring, false);
	q->prepared = false;
	if (vq) {
		virtblk_take_ring(q);
		virtblk_start_prepared(q);
	}
	/* A new ring has room; without a virtqueue, requests must fail, not wait. */
	restart = q->stopped;
	WRITE_ONCE(q->stopped, false);
	spin_unlock_irqrestore(&q->lock, flags);
	spin_unlock(&q->submit_lock);

	if (restart)
		blk_mq_start_stopped_hw_queue(q->hctx, true);
}

/**
 * virtblk_bind_vqs() - bind each queue to its virtqueue
 * @vblk: the disk, its virtqueues set up and its queues allocated
 *
 * Called at probe, and again after each suspend or reset.
 *
 * Context: may sleep.
 */
void virtblk_bind_vqs(struct virtio_blk *vblk)
{
	struct virtqueue *vq;

	/* The transport may have added an administration virtqueue. */
	virtio_device_for_each_vq(vblk->vdev, vq)
		if (vq->index < vblk->nr_vqs)
			virtblk_set_vq(vblk->queues[vq->index], vq);
	virtblk_set_affinity(vblk);
}

/**
 * virtblk_unbind_vqs() - unbind the queues from their virtqueues
 * @vblk: the disk
 *
 * Called before virtblk_del_vqs().  Requests fail while a queue has no virtqueue.
 */
void virtblk_unbind_vqs(struct virtio_blk *vblk)
{
	unsigned int i;

	for (i = 0; i < vblk->nr_vqs; i++)
		if (vblk->queues[i])
			virtblk_set_vq(vblk->queues[i], NULL);
}

/**
 * virtblk_cancel_queue_works() - cancel the completion work and timer of all queues
 * @vblk: the disk, after the last callback of its virtqueues
 *
 * Context: may sleep.
 */
void virtblk_cancel_queue_works(struct virtio_blk *vblk)
{
	unsigned int i;

	for (i = 0; i < vblk->nr_vqs; i++)
		if (vblk->queues[i]) {
			hrtimer_cancel(&vblk->queues[i]->guard);
			cancel_work_sync(&vblk->queues[i]->work);
		}
}

/**
 * virtblk_poll_polled() - poll the rings of all polled queues
 * @vblk: the disk
 *
 * The driver polls when the submitting tasks cannot, because they are frozen or wait.
 */
void virtblk_poll_polled(struct virtio_blk *vblk)
{
	unsigned int i;

	for (i = virtblk_first_polled(vblk); i < vblk->nr_vqs; i++)
		virtblk_poll_queue(vblk->queues[i], NULL);
}

/**
 * virtblk_init_hctx() - blk-mq's init_hctx(): bind a queue to its hctx
 * @hctx: the hardware context
 * @data: the disk
 * @index: the number of the hctx, and of its virtqueue
 *
 * Return: 0.
 */
int virtblk_init_hctx(struct blk_mq_hw_ctx *hctx, void *data,
		      unsigned int index)
{
	struct virtio_blk *vblk = data;
	struct virtblk_queue *q = vblk->queues[index];

	q->hctx = hctx;
	hctx->driver_data = q;
	return 0;
}
