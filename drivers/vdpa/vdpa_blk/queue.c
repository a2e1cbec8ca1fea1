// SPDX-License-Identifier: GPL-2.0
/*
 * The memory of a device: its virtqueues with their requests, and all that it holds when
 * it is freed.
 */

#include <linux/slab.h>

#include "memory.h"
#include "queue.h"
#include "request.h"
#include "vdpa_blk.h"

static void vdpa_blk_free_queues(struct vdpa_blk *vb)
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
 * Return: 0 or -ENOMEM; vdpa_blk_free_device() frees what there is.
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
 * vdpa_blk_free_device() - free what a device holds
 * @vb: the device, which has no user any more, or whose set-up has failed
 *
 * The vDPA bus calls it with the last reference, and frees the structure itself.
 */
void vdpa_blk_free_device(struct vdpa_blk *vb)
{
	vdpa_blk_stop_workers(vb);
	/* A completion may still be at its end. */
	synchronize_rcu();
	vdpa_blk_free_pools(vb);
	vdpa_blk_free_memory(vb->memory, NULL);
	vdpa_blk_close_backing(vb);
	vdpa_blk_free_queues(vb);
}
