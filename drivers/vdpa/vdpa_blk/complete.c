// SPDX-License-Identifier: GPL-2.0
/*
 * The end of a request: of its bio, its status, its entry in the used ring, and the
 * interrupt.
 *
 * The worker collects what completes while it submits a batch, and publishes it together,
 * with one interrupt at most, unless the next request may sleep.
 */

#include <linux/bio.h>
#include <linux/mempool.h>
#include <linux/workqueue.h>

#include "complete.h"
#include "memory.h"
#include "queue.h"
#include "request.h"
#include "ring.h"
#include "trace.h"
#include "vdpa_blk.h"

/**
 * struct vdpa_blk_interrupt - an interrupt of the driver
 * @callback: what to call, NULL if the driver wants none
 * @private: for the callback
 */
struct vdpa_blk_interrupt {
	irqreturn_t (*callback)(void *private);
	void *private;
};

static noinline void vdpa_blk_count_error(struct vdpa_blk_queue *q, u8 status)
{
	if (status == VIRTIO_BLK_S_UNSUPP)
		q->used_stats.unsupported++;
	else
		q->used_stats.errors++;
}

/*
 * Return a list of requests to the driver; needs the queue's lock.  Returns true if the
 * driver wants an interrupt.
 */
static __always_inline bool vdpa_blk_return_split(struct vdpa_blk_queue *q,
						  const struct vdpa_blk_request *rq)
{
	struct vdpa_blk_ring *ring = &q->ring;
	/* The compiler cannot keep fields of the ring in registers: an entry may alias them. */
	struct vring_used *used = vdpa_blk_used(ring);
	u16 mask = ring->num - 1, next = ring->next_used;

	do {
		if (unlikely(rq->result != VIRTIO_BLK_S_OK))
			vdpa_blk_count_error(q, rq->result);
		vdpa_blk_set_used(&used->ring[next++ & mask], rq->id, rq->len);
		rq = rq->next;
	} while (rq);
	return vdpa_blk_publish_split(ring, next);
}

static noinline bool vdpa_blk_return_packed(struct vdpa_blk_queue *q,
					    const struct vdpa_blk_request *rq)
{
	do {
		if (unlikely(rq->result != VIRTIO_BLK_S_OK))
			vdpa_blk_count_error(q, rq->result);
		vdpa_blk_add_used_packed(&q->ring, rq->id, rq->descs, rq->len);
		rq = rq->next;
	} while (rq);
	return vdpa_blk_publish_packed(&q->ring);
}

/*
 * Return a list of requests, which ends at @end, to the driver; needs the queue's lock.  They
 * become @free.  Returns the interrupt to send after the lock.
 */
static __always_inline struct vdpa_blk_interrupt
vdpa_blk_return_requests(struct vdpa_blk_queue *q, struct vdpa_blk_request *rq,
			 struct vdpa_blk_request **end, struct vdpa_blk_request **free)
{
	struct vdpa_blk_interrupt interrupt = { };
	bool signal;

	signal = likely(!q->ring.packed) ? vdpa_blk_return_split(q, rq) :
					   vdpa_blk_return_packed(q, rq);
	*end = *free;
	*free = rq;
	if (!signal) {
		q->used_stats.suppressed++;
		return interrupt;
	}
	q->used_stats.signals++;
	interrupt.callback = q->cb.callback;
	interrupt.private = q->cb.private;
	return interrupt;
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

static void vdpa_blk_signal(struct vdpa_blk_interrupt interrupt, bool in_task)
{
	if (!interrupt.callback)
		return;
	/* A callback expects that no softirq comes in between, as in an interrupt. */
	if (in_task)
		local_bh_disable();
	interrupt.callback(interrupt.private);
	if (in_task)
		local_bh_enable();
}

/*
 * The last use of the queue by a completion that is not its worker's.  The device may be
 * freed once nothing is in flight, but waits for RCU before.
 */
static void vdpa_blk_drop_in_flight(struct vdpa_blk_queue *q)
{
	struct vdpa_blk *vb = q->vb;

	rcu_read_lock();
	if (atomic_dec_and_test(&q->in_flight) && READ_ONCE(vb->paused))
		wake_up(&vb->drained);
	rcu_read_unlock();
}

/* Complete a request that the worker does not collect. */
static void vdpa_blk_complete_now(struct vdpa_blk_queue *q, struct vdpa_blk_request *rq)
{
	struct vdpa_blk_interrupt interrupt;
	unsigned long flags;

	spin_lock_irqsave(&q->lock, flags);
	interrupt = vdpa_blk_return_requests(q, rq, &rq->next, &q->returned);
	spin_unlock_irqrestore(&q->lock, flags);

	vdpa_blk_signal(interrupt, in_task() && !irqs_disabled());
	vdpa_blk_drop_in_flight(q);
}

/* Whether what completes here completes in the queue's worker, while it submits a batch. */
static __always_inline bool vdpa_blk_in_batch(const struct vdpa_blk_queue *q)
{
	return READ_ONCE(q->batching) == current && in_task();
}

/* Write the status of a request, whose length is known. */
static __always_inline void vdpa_blk_set_status(struct vdpa_blk_request *rq, u8 status)
{
	trace_vdpa_blk_end(rq->q, rq->id, status, rq->len);
	WRITE_ONCE(*rq->status, status);
	rq->result = status;
	rq->next = NULL;
}

/* Completed while the worker submits: it publishes several at once. */
static __always_inline void vdpa_blk_collect(struct vdpa_blk_queue *q,
					     struct vdpa_blk_request *rq)
{
	*q->done_end = rq;
	q->done_end = &rq->next;
	q->nr_done++;
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

	/* The length counts from the first byte, and only the status is sure. */
	if (status != VIRTIO_BLK_S_OK)
		rq->len = rq->status_only;
	vdpa_blk_free_table(rq);
	vdpa_blk_set_status(rq, status);
	if (vdpa_blk_in_batch(q))
		vdpa_blk_collect(q, rq);
	else
		vdpa_blk_complete_now(q, rq);
}

/**
 * vdpa_blk_flush_completions() - publish completions that the worker has collected
 * @q: the queue, with @nr_done of them, at least 1
 *
 * Context: the queue's worker, in a batch or after it.
 */
void vdpa_blk_flush_completions(struct vdpa_blk_queue *q)
{
	struct vdpa_blk_interrupt interrupt;
	unsigned int done = q->nr_done;

	spin_lock_irq(&q->lock);
	interrupt = vdpa_blk_return_requests(q, q->done, q->done_end, &q->free);
	spin_unlock_irq(&q->lock);
	q->done = NULL;
	q->done_end = &q->done;
	q->nr_done = 0;

	trace_vdpa_blk_batch(q, done, interrupt.callback);
	vdpa_blk_signal(interrupt, true);
	/* A task that waits for the last request has waited for the worker before. */
	atomic_sub(done, &q->in_flight);
}

/* The end of a bio */

static void vdpa_blk_end_work(struct work_struct *work)
{
	struct vdpa_blk_request *rq = container_of(work, struct vdpa_blk_request,
						   end_work);

	vdpa_blk_complete(rq, rq->result);
}

/*
 * The block layer completes a flush under a lock of its own.  A driver of this kernel may
 * complete one as well when it is signalled, and take a lock of the same kind.
 */
static bool vdpa_blk_must_defer(const struct vdpa_blk_request *rq)
{
	return rq->bio.bi_opf & (REQ_PREFLUSH | REQ_FUA) &&
	       rq->q->vb->memory->identity;
}

/* The end of any bio, after bio_uninit(). */
static noinline void vdpa_blk_end_any_bio(struct vdpa_blk_request *rq)
{
	u8 status = vdpa_blk_to_status(rq->bio.bi_status);

	if (!vdpa_blk_must_defer(rq)) {
		vdpa_blk_complete(rq, status);
		return;
	}
	rq->result = status;
	INIT_WORK(&rq->end_work, vdpa_blk_end_work);
	queue_work(rq->q->vb->wq, &rq->end_work);
}

/**
 * vdpa_blk_end_bio() - end a bio, and complete its request
 * @bio: the bio
 *
 * Most bios of a backing device that completes at once end well, in the batch.
 *
 * Context: any.
 */
void vdpa_blk_end_bio(struct bio *bio)
{
	struct vdpa_blk_request *rq = container_of(bio, struct vdpa_blk_request,
						   bio);
	struct vdpa_blk_queue *q = rq->q;

	bio_uninit(bio);
	if (unlikely(!vdpa_blk_in_batch(q) || bio->bi_status ||
		     bio->bi_opf & (REQ_PREFLUSH | REQ_FUA) ||
		     rq->vecs != rq->inline_vecs)) {
		vdpa_blk_end_any_bio(rq);
		return;
	}
	vdpa_blk_set_status(rq, VIRTIO_BLK_S_OK);
	vdpa_blk_collect(q, rq);
}
