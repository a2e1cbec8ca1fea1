// SPDX-License-Identifier: GPL-2.0
/*
 * The end of a request: its status, its entry in the used ring, and the interrupt.
 *
 * The worker collects what completes while it submits a batch, and publishes it with one
 * interrupt at most.
 */

#include <linux/mempool.h>

#include "ring.h"
#include "trace.h"
#include "vdpa_blk.h"

static void vdpa_blk_signal(const struct vdpa_callback *cb)
{
	bool task = in_task() && !irqs_disabled();

	if (!cb->callback)
		return;
	/* A callback expects that no softirq comes in between, as in an interrupt. */
	if (task)
		local_bh_disable();
	cb->callback(cb->private);
	if (task)
		local_bh_enable();
}

/* Publish what is used; needs the queue's lock.  Returns true to signal @cb. */
static bool vdpa_blk_publish(struct vdpa_blk_queue *q, struct vdpa_callback *cb)
{
	if (!vdpa_blk_publish_used(&q->ring)) {
		q->stats.suppressed++;
		return false;
	}
	q->stats.signals++;
	*cb = q->cb;
	return true;
}

/**
 * vdpa_blk_drop_in_flight() - count requests as completed
 * @q: the queue
 * @done: their number
 *
 * The last use of the queue by a completion.  The device may be freed once nothing is in
 * flight, but waits for RCU before.
 *
 * Context: any.
 */
void vdpa_blk_drop_in_flight(struct vdpa_blk_queue *q, unsigned int done)
{
	struct vdpa_blk *vb = q->vb;

	rcu_read_lock();
	if (atomic_sub_and_test(done, &q->in_flight) && READ_ONCE(vb->paused))
		wake_up(&vb->drained);
	rcu_read_unlock();
}

/**
 * vdpa_blk_restart_stalled() - serve queues that wait for memory again
 * @vb: the device, of which a request has freed memory
 *
 * Context: any.
 */
void vdpa_blk_restart_stalled(struct vdpa_blk *vb)
{
	unsigned int i;

	for_each_set_bit(i, vb->stalled, vb->settings.queues)
		if (test_and_clear_bit(i, vb->stalled))
			vdpa_blk_wake_worker(vb->queues[i]);
}

/**
 * vdpa_blk_free_table() - free a request's table of data, if it has one
 * @rq: the request
 *
 * Context: any.
 */
void vdpa_blk_free_table(struct vdpa_blk_request *rq)
{
	struct vdpa_blk *vb = rq->q->vb;

	if (rq->vecs == rq->inline_vecs)
		return;
	mempool_free(rq->vecs, vb->tables);
	rq->vecs = rq->inline_vecs;
	vdpa_blk_restart_stalled(vb);
}

/**
 * vdpa_blk_complete() - return a request to the driver
 * @rq: the request, which the device must not use any more
 * @status: VIRTIO_BLK_S_...
 *
 * Context: any.
 */
void vdpa_blk_complete(struct vdpa_blk_request *rq, u8 status)
{
	struct vdpa_blk_queue *q = rq->q;
	struct vdpa_callback cb = { };
	bool signal = false, batched;
	unsigned long flags;
	u32 len = rq->len;

	/* The length counts from the first byte, and only the status is sure. */
	if (status != VIRTIO_BLK_S_OK)
		len = rq->status_only;
	trace_vdpa_blk_end(q, rq->id, status, len);
	vdpa_blk_free_table(rq);
	WRITE_ONCE(*rq->status, status);

	/* Completed while it was submitted: the worker publishes all at once. */
	batched = in_task() && READ_ONCE(q->batching) == current;
	spin_lock_irqsave(&q->lock, flags);
	if (unlikely(status == VIRTIO_BLK_S_UNSUPP))
		q->stats.unsupported++;
	else if (unlikely(status != VIRTIO_BLK_S_OK))
		q->stats.errors++;
	vdpa_blk_add_used(&q->ring, rq->id, rq->descs, len);
	rq->next = q->returned;
	q->returned = rq;
	if (batched)
		q->batched++;
	else
		signal = vdpa_blk_publish(q, &cb);
	spin_unlock_irqrestore(&q->lock, flags);

	if (batched)
		return;
	if (signal)
		vdpa_blk_signal(&cb);
	vdpa_blk_drop_in_flight(q, 1);
}

/**
 * vdpa_blk_flush_completions() - publish completions that the worker has collected
 * @q: the queue
 *
 * Context: the queue's worker, after a batch.
 */
void vdpa_blk_flush_completions(struct vdpa_blk_queue *q)
{
	struct vdpa_callback cb = { };
	bool signal = false;
	unsigned int done;

	spin_lock_irq(&q->lock);
	done = q->batched;
	q->batched = 0;
	if (done)
		signal = vdpa_blk_publish(q, &cb);
	spin_unlock_irq(&q->lock);

	if (!done)
		return;
	trace_vdpa_blk_batch(q, done, signal);
	if (signal)
		vdpa_blk_signal(&cb);
	vdpa_blk_drop_in_flight(q, done);
}
