// SPDX-License-Identifier: GPL-2.0
/*
 * Virtqueues: their memory with their requests, start, stop and reset.
 */

#include <linux/slab.h>

#include "queue.h"
#include "request.h"
#include "ring.h"
#include "vdpa_blk.h"

/* Memory */

static int vdpa_blk_alloc_queue(struct vdpa_blk *vb, unsigned int index)
{
	unsigned int nr = vb->settings.ring_size, i;
	struct vdpa_blk_request *rq;
	struct vdpa_blk_queue *q;

	q = kvzalloc_obj(*q, GFP_KERNEL);
	if (!q)
		return -ENOMEM;
	vb->queues[index] = q;
	q->requests = kvcalloc(nr, sizeof(*q->requests), GFP_KERNEL);
	if (!q->requests)
		return -ENOMEM;
	q->vb = vb;
	q->index = index;
	q->num = nr;
	q->done_end = &q->done;
	spin_lock_init(&q->lock);
	for (i = 0; i < nr; i++) {
		rq = &q->requests[i];
		rq->q = q;
		rq->vecs = rq->inline_vecs;
		rq->next = q->free;
		q->free = rq;
	}
	return 0;
}

/**
 * vdpa_blk_alloc_queues() - allocate the virtqueues
 * @vb: the device
 *
 * Return: 0 or -ENOMEM; vdpa_blk_free_queues() frees what there is.
 */
int vdpa_blk_alloc_queues(struct vdpa_blk *vb)
{
	unsigned int i;
	int err;

	vb->queues = kcalloc(vb->settings.queues, sizeof(*vb->queues), GFP_KERNEL);
	if (!vb->queues)
		return -ENOMEM;
	for (i = 0; i < vb->settings.queues; i++) {
		err = vdpa_blk_alloc_queue(vb, i);
		if (err)
			return err;
	}
	return 0;
}

/**
 * vdpa_blk_free_queues() - free the virtqueues, as many as there are
 * @vb: the device, without workers
 */
void vdpa_blk_free_queues(struct vdpa_blk *vb)
{
	unsigned int i;

	for (i = 0; vb->queues && i < vb->settings.queues; i++) {
		if (vb->queues[i])
			kvfree(vb->queues[i]->requests);
		kvfree(vb->queues[i]);
	}
	kfree(vb->queues);
	vb->queues = NULL;
}

/* Start, stop and reset */

/* Map the ring of an enabled virtqueue.  Workers are parked. */
static void vdpa_blk_start_queue(struct vdpa_blk_queue *q)
{
	int err;

	if (!q->ready || q->running || q->broken)
		return;
	/* QEMU enables virtqueues that it does not use, without addresses. */
	if (!q->desc_addr && !q->driver_addr && !q->device_addr)
		return;
	err = vdpa_blk_map_ring(q);
	switch (err) {
	case 0:
		q->running = true;
		break;
	case -ENOMEM:
		vdpa_blk_break(q, "there is no memory for its ring");
		break;
	case -EINVAL:
		vdpa_blk_break(q, "its size, index or alignment is not valid");
		break;
	default:
		vdpa_blk_break(q, "the driver does not share all of its ring");
	}
}

/**
 * vdpa_blk_start_queues() - map the rings of enabled virtqueues
 * @vb: the device, its lock held, its workers parked
 *
 * Context: may sleep.
 */
void vdpa_blk_start_queues(struct vdpa_blk *vb)
{
	unsigned int i;

	for (i = 0; i < vb->settings.queues; i++)
		vdpa_blk_start_queue(vb->queues[i]);
}

/**
 * vdpa_blk_stop_queue() - unmap the ring of a virtqueue
 * @q: the virtqueue; the device's lock is held, and its workers are parked
 *
 * Context: may sleep.
 */
void vdpa_blk_stop_queue(struct vdpa_blk_queue *q)
{
	q->running = false;
	if (q->ring.desc.addr)
		vdpa_blk_unmap_ring(q);
}

/**
 * vdpa_blk_stop_queues() - unmap the rings of all virtqueues
 * @vb: the device, its lock held, its workers parked
 *
 * Context: may sleep.
 */
void vdpa_blk_stop_queues(struct vdpa_blk *vb)
{
	unsigned int i;

	for (i = 0; i < vb->settings.queues; i++)
		vdpa_blk_stop_queue(vb->queues[i]);
}

/**
 * vdpa_blk_reset_queue() - forget what the driver has set of a virtqueue
 * @q: the virtqueue, stopped; the device's lock is held
 */
void vdpa_blk_reset_queue(struct vdpa_blk_queue *q)
{
	q->ready = false;
	q->num = q->vb->settings.ring_size;
	q->desc_addr = 0;
	q->driver_addr = 0;
	q->device_addr = 0;
	memset(&q->state, 0, sizeof(q->state));
	q->has_state = false;
	q->must_copy = false;
	spin_lock_irq(&q->lock);
	memset(&q->cb, 0, sizeof(q->cb));
	spin_unlock_irq(&q->lock);
}
