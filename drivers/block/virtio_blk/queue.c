// SPDX-License-Identifier: GPL-2.0
/*
 * The device's status and features, and its queues: how many, their virtqueues,
 * their depth, and the hctx that each belongs to.  affinity.c has which CPUs each
 * serves.
 */

#include <linux/blk-mq.h>
#include <linux/cpumask.h>
#include <linux/crash_dump.h>
#include <linux/interrupt.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/topology.h>

#include "virtio_blk.h"

/* Requests in flight that a queue has to have room for, unless told otherwise. */
#define VIRTBLK_USUAL_DEPTH	256

/* Where descriptors are direct, no request takes more than 1/8 of the ring. */
#define VIRTBLK_MIN_DIRECT_RING	256
#define VIRTBLK_DIRECT_SHARE	8

static unsigned int virtblk_num_request_queues;
module_param_named(num_request_queues, virtblk_num_request_queues, uint, 0644);
MODULE_PARM_DESC(num_request_queues,
		 "Use at most this many queues for each disk (0: as many as the device and the CPUs allow). Read when a disk is probed.");

static unsigned int virtblk_poll_queues;
module_param_named(poll_queues, virtblk_poll_queues, uint, 0644);
MODULE_PARM_DESC(poll_queues,
		 "How many of a disk's queues are polled, not interrupt driven. Read when a disk is probed.");

static unsigned int virtblk_read_queues;
module_param_named(read_queues, virtblk_read_queues, uint, 0644);
MODULE_PARM_DESC(read_queues,
		 "How many of a disk's queues are for reads alone; the others then have none. Read when a disk is probed.");

static unsigned int virtblk_queue_depth;
module_param_named(queue_depth, virtblk_queue_depth, uint, 0444);
MODULE_PARM_DESC(queue_depth,
		 "Requests in flight on each queue (0: as many as fill the ring)");

/**
 * virtblk_device_queues() - ask the device how many queues it has
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
		dev_warn_ratelimited(&vdev->dev, "the device offers MQ and says that it has 0 queues; using 1\n");
		return 1;
	}
	return num_queues;
}

/**
 * virtblk_count_queues() - decide how many queues to use
 * @vdev: the device, its features negotiated
 * @nr_queues: filled in, how many for each type of hctx
 *
 * As many as the device has, there are possible CPUs, and num_request_queues
 * allows, whichever is least; poll_queues of them without an interrupt,
 * read_queues of the others for reads.
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
	/* Memory is short where a crash is dumped, and blk-mq has one queue. */
	if (is_kdump_kernel())
		queues = 1;
	total = min_not_zero(queues, limit);
	if (limit > queues)
		dev_notice(&vdev->dev, "num_request_queues=%u: using %u, more would need a device with more queues, and a CPU for each\n",
			   limit, queues);

	if (poll > total - 1) {
		dev_notice(&vdev->dev, "poll_queues=%u: using %u, one of %u queues has to have an interrupt\n",
			   poll, total - 1, total);
		poll = total - 1;
	}

	if (read > total - poll - 1) {
		dev_notice(&vdev->dev, "read_queues=%u: using %u, one of %u queues has to take writes\n",
			   read, total - poll - 1, total);
		read = total - poll - 1;
	}

	nr_queues[HCTX_TYPE_DEFAULT] = total - poll - read;
	nr_queues[HCTX_TYPE_READ] = read;
	nr_queues[HCTX_TYPE_POLL] = poll;
	return total;
}

/**
 * virtblk_find_vqs() - have the transport set the virtqueues up
 * @vblk: the disk, its numbers of queues decided
 * @managed: have the kernel spread the vectors over the CPUs, where the transport
 *	has one for each virtqueue that interrupts
 *
 * virtblk_bind_vqs() gives the virtqueues to their queues.
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
		dev_err(&vdev->dev, "setting up %u virtqueues failed: %d\n",
			vblk->nr_vqs, err);
		goto out;
	}

	vblk->has_vqs = true;
	vblk->managed = managed;
	/* They are of one size in practice; the smallest suits them all. */
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
 * virtblk_del_vqs() - take the virtqueues down, if there are any
 * @vblk: the disk, its device reset
 */
void virtblk_del_vqs(struct virtio_blk *vblk)
{
	if (!vblk->has_vqs)
		return;
	vblk->has_vqs = false;
	vblk->vdev->config->del_vqs(vblk->vdev);
}

/* VIRTIO 1.3, 2.7.5.3: a request takes one descriptor of the ring. */
static bool virtblk_has_indirect(struct virtio_device *vdev)
{
	return virtio_has_feature(vdev, VIRTIO_RING_F_INDIRECT_DESC);
}

/* The reads and writes of one segment that a ring of direct descriptors holds. */
static unsigned int virtblk_direct_depth(struct virtio_blk *vblk)
{
	return vblk->ring_size / (1 + VIRTBLK_EXTRA_DESCS);
}

/*
 * An indirect table is allocated, zeroed and freed for each request, some 300
 * instructions of the kernel's.  Direct descriptors do without, but take more
 * of the ring: they are the better ones where it is large enough.
 */
static bool virtblk_prefers_direct(struct virtio_blk *vblk)
{
	unsigned int depth = virtblk_queue_depth ?: VIRTBLK_USUAL_DEPTH;

	return virtblk_has_indirect(vblk->vdev) &&
	       vblk->ring_size >= VIRTBLK_MIN_DIRECT_RING &&
	       virtblk_direct_depth(vblk) >= depth;
}

/**
 * virtblk_find_vqs_unmanaged() - set the virtqueues up again, with other vectors
 * @vblk: the disk, its virtqueues set up with vectors that the kernel manages
 *
 * A managed vector is shut down with the last of its CPUs.  Where vectors do not
 * match the queue map, other CPUs that use its queue would wait for an interrupt that
 * does not come.  virtblk_set_affinity() sends each of these vectors to the CPUs of
 * its queue.
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

/* Features can only be changed by starting over, and without virtqueues. */
static int virtblk_drop_indirect(struct virtio_blk *vblk)
{
	struct virtio_device *vdev = vblk->vdev;

	virtblk_reset_device(vdev);
	virtblk_del_vqs(vblk);

	__virtio_clear_bit(vdev, VIRTIO_RING_F_INDIRECT_DESC);
	vblk->direct = !virtblk_negotiate(vdev);
	if (vblk->direct)
		return 0;

	/* A device may insist on what it offers. */
	__virtio_set_bit(vdev, VIRTIO_RING_F_INDIRECT_DESC);
	virtblk_reset_device(vdev);
	return virtblk_negotiate(vdev);
}

/**
 * virtblk_init_vqs() - set the virtqueues up for the first time
 * @vblk: the disk, its numbers of queues decided
 *
 * How large the rings are, and so whether indirect descriptors are wanted, is
 * known only once they are there.  If they are not wanted, features are
 * negotiated once more; from then on virtblk_find_vqs() is enough.
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
	if (virtblk_prefers_direct(vblk)) {
		err = virtblk_drop_indirect(vblk);
		if (!err)
			err = virtblk_find_vqs(vblk, true);
		if (err)
			return err;
	}
	return virtblk_check_spread(vblk) ? 0 : virtblk_find_vqs_unmanaged(vblk);
}

/**
 * virtblk_max_chain() - how many descriptors a request may have
 * @vblk: the disk, its virtqueues set up
 *
 * Where indirect descriptors were given up, many requests are to fit still.
 *
 * Return: the number, of those that device and driver add included.
 */
unsigned int virtblk_max_chain(const struct virtio_blk *vblk)
{
	return vblk->direct ? vblk->ring_size / VIRTBLK_DIRECT_SHARE :
			      vblk->ring_size;
}

/**
 * virtblk_choose_depth() - decide how many requests each queue has in flight
 * @vblk: the disk, its virtqueues set up
 *
 * With indirect descriptors a request takes one entry of the ring.  Without, a
 * read or write of one segment takes three.
 *
 * Return: the depth, 1 or more.
 */
unsigned int virtblk_choose_depth(struct virtio_blk *vblk)
{
	unsigned int wanted = virtblk_queue_depth;
	unsigned int most;

	most = virtblk_has_indirect(vblk->vdev) ? vblk->ring_size :
						  virtblk_direct_depth(vblk);
	most = clamp_t(unsigned int, most, 1, BLK_MQ_MAX_DEPTH);

	if (wanted > most)
		dev_notice(&vblk->vdev->dev, "queue_depth=%u: using %u, what a ring of %u holds\n",
			   wanted, most, vblk->ring_size);
	return min_not_zero(wanted, most);
}

/**
 * virtblk_alloc_queues() - allocate the queues near the CPUs that they serve
 * @vblk: the disk, its tag set allocated
 *
 * Return: 0 or -ENOMEM; virtblk_free_queues() frees what there is.
 */
int virtblk_alloc_queues(struct virtio_blk *vblk)
{
	struct virtblk_queue *q;
	cpumask_var_t mask;
	unsigned int i, cpu;
	size_t size;

	if (!alloc_cpumask_var(&mask, GFP_KERNEL))
		return -ENOMEM;

	/* Only sizes that are powers of two are aligned by kmalloc() for sure. */
	size = roundup_pow_of_two(sizeof(*q));
	for (i = 0; i < vblk->nr_vqs; i++) {
		virtblk_queue_cpus(vblk, i, mask);
		cpu = cpumask_first(mask);
		q = kzalloc_node(size, GFP_KERNEL, cpu < nr_cpu_ids ?
				 cpu_to_node(cpu) : NUMA_NO_NODE);
		if (!q)
			break;
		spin_lock_init(&q->lock);
		INIT_WORK(&q->work, virtblk_complete_work);
		q->vblk = vblk;
		q->indirect = virtblk_has_indirect(vblk->vdev);
		vblk->queues[i] = q;
	}
	free_cpumask_var(mask);
	return i < vblk->nr_vqs ? -ENOMEM : 0;
}

/**
 * virtblk_free_queues() - free what virtblk_alloc_queues() allocated
 * @vblk: the disk, its virtqueues taken down
 */
void virtblk_free_queues(struct virtio_blk *vblk)
{
	unsigned int i;

	for (i = 0; i < vblk->nr_vqs; i++) {
		kfree(vblk->queues[i]);
		vblk->queues[i] = NULL;
	}
}

static void virtblk_set_vq(struct virtblk_queue *q, struct virtqueue *vq)
{
	unsigned long flags;
	bool restart;

	spin_lock_irqsave(&q->lock, flags);
	q->vq = vq;
	q->ring_size = vq ? virtqueue_get_vring_size(vq) : 0;
	/* An empty ring has room, and without one requests are to fail. */
	restart = q->stopped;
	WRITE_ONCE(q->stopped, false);
	spin_unlock_irqrestore(&q->lock, flags);

	if (restart)
		blk_mq_start_stopped_hw_queue(q->hctx, true);
}

/**
 * virtblk_bind_vqs() - give each queue its virtqueue
 * @vblk: the disk, its virtqueues set up and its queues allocated
 *
 * Called when the disk is probed, and again after each suspend or reset.
 * Context: may sleep.
 */
void virtblk_bind_vqs(struct virtio_blk *vblk)
{
	struct virtqueue *vq;

	/* Beyond ours there may be the transport's own, for administration. */
	virtio_device_for_each_vq(vblk->vdev, vq)
		if (vq->index < vblk->nr_vqs)
			virtblk_set_vq(vblk->queues[vq->index], vq);
	virtblk_set_affinity(vblk);
}

/**
 * virtblk_unbind_vqs() - take the virtqueues away from their queues
 * @vblk: the disk
 *
 * A request that comes now fails.  Called before virtblk_del_vqs().
 */
void virtblk_unbind_vqs(struct virtio_blk *vblk)
{
	unsigned int i;

	for (i = 0; i < vblk->nr_vqs; i++)
		if (vblk->queues[i])
			virtblk_set_vq(vblk->queues[i], NULL);
}

/**
 * virtblk_cancel_queue_works() - end the works of all queues
 * @vblk: the disk, whose virtqueues have no callbacks any more
 *
 * Context: may sleep.
 */
void virtblk_cancel_queue_works(struct virtio_blk *vblk)
{
	unsigned int i;

	for (i = 0; i < vblk->nr_vqs; i++)
		if (vblk->queues[i])
			cancel_work_sync(&vblk->queues[i]->work);
}

/**
 * virtblk_poll_all() - end what is done on the queues without interrupts
 * @vblk: the disk
 *
 * For when the tasks that would poll cannot: they are frozen, or have to wait.
 */
void virtblk_poll_all(struct virtio_blk *vblk)
{
	unsigned int i;

	for (i = virtblk_first_polled(vblk); i < vblk->nr_vqs; i++)
		virtblk_poll_queue(vblk->queues[i], NULL);
}

/**
 * virtblk_init_hctx() - blk-mq's init_hctx: bind a queue to its hctx
 * @hctx: the hardware context
 * @data: the disk
 * @index: number of the hctx, which is the virtqueue's
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
