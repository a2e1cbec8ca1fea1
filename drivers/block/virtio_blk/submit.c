// SPDX-License-Identifier: GPL-2.0
/*
 * Submit: from blk-mq to the virtqueue.  request.c builds the request, complete.c has the
 * way back.
 *
 * The only locks are those of the request's queue, and no code here walks all queues.  A
 * request as the device sees it (VIRTIO 1.4, 5.2.6), on a ring that the virtio core runs
 * (ring.c has the other):
 *
 *	           struct virtblk_req              descriptors
 *	         +--------------------+
 *	hdr_sg   | out_hdr: type      |  device   +-----------+
 *	-------->|          ioprio    |  reads    | 16 bytes  |
 *	         |          sector    |           +-----------+
 *	         |                    |                 |
 *	data     |                    |           +-----------+
 *	---------+--> inline_sg, or   |  reads    | data or   |  one for each
 *	         |    sg_table        |  or       | ranges    |  segment, none
 *	         |                    |  writes   +-----------+  for a flush
 *	         |                    |                 |
 *	status_sg|                    |  device   +-----------+
 *	-------->| status             |  writes   | 1 byte    |
 *	         +--------------------+           +-----------+
 *
 * The driver fills in the first and last scatterlist once for each request slot.
 * inline_sg holds the common case of one segment; a request with more segments than
 * fit there borrows a table.
 */

#include <linux/blk-mq.h>

#include "ring.h"
#include "trace.h"
#include "virtio_blk.h"
#include "zoned.h"

/*
 * The driver runs the ring of most disks itself (ring.c), and submission then has a lock of
 * its own.  On the other rings the driver relies on the following behaviour of virtio_ring,
 * which its interface does not document.  tools/testing/driver/test_ring.py tests each point
 * on each kind of ring: split and packed, with direct and with indirect descriptors.
 *
 *  - vq->num_free is the number of free descriptors, exact under the queue's lock:
 *    equal to the ring's size when no request is in flight, less by one for each
 *    request with indirect descriptors, by its number of descriptors for each
 *    other one (virtblk_in_flight(), virtblk_add()).  If there is no memory for
 *    its table, virtio_ring gives a request direct descriptors.
 *  - virtqueue_get_buf() returns each request once, in any order, and NULL when the
 *    device has returned nothing more or has broken the virtqueue, for example by
 *    an id that is not in flight (virtblk_reap()).
 *  - virtqueue_enable_cb() returns false if a request was returned meanwhile; if it
 *    returns true, a callback comes for the next one.  Callbacks may come at other
 *    times as well, with interrupts disabled too (virtblk_unmask()).
 *  - virtqueue_add_sgs() notifies the device by itself, and returns -ENOSPC, when a
 *    split ring has no room.  The driver does not call it then (virtblk_add()), but a
 *    request without its table may need more room.
 *  - virtqueue_add_prepared() takes one descriptor, and does not notify the device
 *    (virtblk_add()).
 *  - virtqueue_notify() and virtqueue_is_broken() need no lock.
 *  - virtqueue_detach_unused_buf() returns a buffer as long as one is in flight;
 *    the driver never calls it once more (virtblk_detach_one()).
 *
 * With VIRTIO_F_IN_ORDER virtio_ring returns a whole run of requests for one used
 * entry and makes their lengths up, and with VIRTIO_F_NOTIFICATION_DATA it reads
 * its indexes without the lock to notify.  virtblk_validate() accepts neither.
 */

/*
 * Add a request to a ring that the virtio core runs.  Check for room first, because
 * virtqueue_add_sgs() notifies the device, under the lock, when the ring has none.
 */
static int virtblk_add_sgs(struct virtblk_queue *q, struct request *req)
{
	struct virtblk_req *vbr = blk_mq_rq_to_pdu(req);
	unsigned int out = 0, in = 0, descs = 1;
	struct scatterlist *sgs[3];

	if (!q->indirect)
		descs = blk_rq_nr_phys_segments(req) + VIRTBLK_EXTRA_DESCS;
	if (unlikely(q->vq->num_free < descs))
		return -ENOSPC;
	if (unlikely(req_op(req) == REQ_OP_ZONE_APPEND))
		return virtblk_add_append(q, req);

	sgs[out++] = &vbr->hdr_sg;
	if (vbr->data) {
		if (rq_data_dir(req) == WRITE)
			sgs[out++] = vbr->data;
		else
			sgs[out + in++] = vbr->data;
	}
	sgs[out + in++] = &vbr->status_sg;

	return virtqueue_add_sgs(q->vq, sgs, out, in, vbr, GFP_ATOMIC);
}

/* The same with a table that the driver has prepared. */
static int virtblk_add_prepared(struct virtblk_queue *q, struct request *req)
{
	struct virtblk_req *vbr = blk_mq_rq_to_pdu(req);
	u32 in_len = sizeof(vbr->status);

	if (rq_data_dir(req) == READ)
		in_len += blk_rq_bytes(req);
	return virtqueue_add_prepared(q->vq, vbr->table_addr, vbr->table_len, in_len, vbr);
}

/*
 * Return the error for which the queue takes no request, or 0.  There is no virtqueue while
 * the disk is suspended or resetting, or once it is dead.
 */
static __always_inline int virtblk_check_vq(struct virtblk_queue *q, const bool own)
{
	if (unlikely(!q->vq))
		return -ENODEV;
	/* On its own rings the virtio core checks this. */
	return own && unlikely(virtqueue_is_broken(q->vq)) ? -EIO : 0;
}

/* Add a request to the ring; @own is q->own_ring. */
static __always_inline int virtblk_add(struct virtblk_queue *q,
				       struct request *req, const bool own)
{
	if (virtblk_fail_add(q->vblk))
		return -ENOMEM;
	if (!own)
		return virtblk_is_prepared(q) ? virtblk_add_prepared(q, req) :
						virtblk_add_sgs(q, req);
	virtblk_ring_add(q, req);
	return 0;
}

/* The ring has accepted a request. */
static __always_inline void virtblk_note_sent(struct virtblk_queue *q,
					      struct request *req)
{
	unsigned int op = (__force unsigned int)req_op(req);

	q->submit_stats.requests[op]++;
	q->submit_stats.bytes[op] += blk_rq_bytes(req);
	trace_virtblk_submit(q, req);
}

/*
 * The ring did not accept @count requests.  If it has no room, stop the hctx until a
 * completion makes some.  Needs the queue's lock, so that a completion either sees the
 * queue stopped, or the driver has used the room that the completion made.
 */
static void virtblk_refuse(struct virtblk_queue *q, int err, unsigned int count)
{
	if (err != -ENODEV && !virtqueue_is_broken(q->vq))
		atomic64_add(count, &q->stats.requeues);
	if (err != -ENOSPC)
		return;
	q->stats.ring_full++;
	trace_virtblk_stop(q);
	blk_mq_stop_hw_queue(q->hctx);
	WRITE_ONCE(q->stopped, true);
}

/*
 * A full ring is BLK_STS_RESOURCE, not BLK_STS_DEV_RESOURCE, although a completion
 * starts the hctx again.  That completion may come after the queue's lock was
 * released and before blk-mq has listed the request, and finds nothing to run.  If
 * BLK_MQ_S_SCHED_RESTART is set as well, by another dispatcher, blk-mq relies on a
 * later completion, which may be one of a batch and does not look at the bit.  For
 * BLK_STS_RESOURCE blk-mq runs the hctx again by itself (tools/testing/model/full_ring.pml).
 *
 * Unless the virtqueue is broken any other error means that memory is short, bounce
 * buffers included: a packed ring returns -EIO then.
 */
static blk_status_t virtblk_add_error(struct virtblk_queue *q, int err)
{
	if (err == -ENODEV)
		return BLK_STS_IOERR;
	if (virtqueue_is_broken(q->vq)) {
		queue_work(virtblk_wq, &q->vblk->recovery.work);
		return BLK_STS_IOERR;
	}
	return BLK_STS_RESOURCE;
}

/* Must the driver notify the device? */
static __always_inline bool virtblk_kick_prepare(struct virtblk_queue *q,
						 const bool own)
{
	bool kick;

	if (unlikely(!q->vq))
		return false;
	kick = own ? virtblk_ring_must_kick(q) : virtqueue_kick_prepare(q->vq);
	if (!kick) {
		q->submit_stats.kicks_suppressed++;
		trace_virtblk_kick(q, false);
		return false;
	}
	q->submit_stats.kicks++;
	trace_virtblk_kick(q, true);
	return !virtblk_drop_kick(q->vblk);
}

/* Notify the device.  Only a broken virtqueue refuses: recovery finds the disk dead. */
static void virtblk_notify(struct virtblk_queue *q)
{
	if (unlikely(!virtqueue_notify(q->vq)))
		queue_work(virtblk_wq, &q->vblk->recovery.work);
}

/*
 * Submission needs the queue's submit_lock if the driver runs the ring (@own), else the
 * queue's lock.  Returns true if the driver must notify the device.
 */
static __always_inline bool virtblk_submit_one(struct virtblk_queue *q,
					       struct request *req, bool last,
					       int *err, const bool own)
{
	*err = virtblk_check_vq(q, own) ?: virtblk_add(q, req, own);
	if (likely(!*err)) {
		virtblk_note_sent(q, req);
		if (own) {
			virtblk_ring_expect(q, req);
			virtblk_ring_publish(q);
		}
	} else {
		virtblk_refuse(q, *err, 1);
	}
	/* After an error no later request kicks for those before it. */
	return (last || unlikely(*err)) && virtblk_kick_prepare(q, own);
}

/**
 * virtblk_queue_rq() - blk-mq's queue_rq: submit one request
 * @hctx: the hardware context
 * @bd: the request, and whether it is the last one of a batch
 *
 * Return: BLK_STS_OK; BLK_STS_RESOURCE if memory is short or the ring is full, and
 * then the hctx is stopped; BLK_STS_NOTSUPP for an operation that the driver does
 * not know; BLK_STS_IOERR if the virtqueue is broken or gone.
 */
blk_status_t virtblk_queue_rq(struct blk_mq_hw_ctx *hctx,
			      const struct blk_mq_queue_data *bd)
{
	struct virtblk_queue *q = hctx->driver_data;
	struct request *req = bd->rq;
	blk_status_t status;
	unsigned long flags;
	bool kick;
	int err;

	status = virtblk_build(q, req);
	if (unlikely(status)) {
		if (status == BLK_STS_RESOURCE)
			atomic64_inc(&q->stats.requeues);
		return status;
	}

	if (q->own_ring) {
		spin_lock(&q->submit_lock);
		kick = virtblk_submit_one(q, req, bd->last, &err, true);
		spin_unlock(&q->submit_lock);
	} else {
		spin_lock_irqsave(&q->lock, flags);
		kick = virtblk_submit_one(q, req, bd->last, &err, false);
		spin_unlock_irqrestore(&q->lock, flags);
	}

	if (kick)
		virtblk_notify(q);

	if (unlikely(err)) {
		virtblk_unmap_data(blk_mq_rq_to_pdu(req), req);
		virtblk_delay_atomic(q->vblk);
		return virtblk_add_error(q, err);
	}
	return BLK_STS_OK;
}

/* Returns true if the driver must notify the device; @count is what is left. */
static __always_inline bool virtblk_submit_some(struct virtblk_queue *q,
						struct rq_list *rqlist,
						unsigned int *count,
						const bool own)
{
	struct request *req;
	int err;

	err = virtblk_check_vq(q, own);
	while (likely(!err) && *count) {
		req = rq_list_peek(rqlist);
		err = virtblk_add(q, req, own);
		if (unlikely(err))
			break;
		virtblk_note_sent(q, req);
		rq_list_pop(rqlist);
		if (own)
			virtblk_ring_expect(q, req);
		--*count;
	}
	if (unlikely(err))
		virtblk_refuse(q, err, *count);
	if (own && likely(err != -ENODEV))
		virtblk_ring_publish(q);
	return virtblk_kick_prepare(q, own);
}

/* Submit the first @count requests of @rqlist, which are built, to @q. */
static void virtblk_submit_batch(struct virtblk_queue *q,
				 struct rq_list *rqlist, unsigned int count)
{
	struct request *req;
	unsigned long flags;
	bool kick;

	if (q->own_ring) {
		spin_lock(&q->submit_lock);
		kick = virtblk_submit_some(q, rqlist, &count, true);
		spin_unlock(&q->submit_lock);
	} else {
		spin_lock_irqsave(&q->lock, flags);
		kick = virtblk_submit_some(q, rqlist, &count, false);
		spin_unlock_irqrestore(&q->lock, flags);
	}

	if (kick)
		virtblk_notify(q);

	if (unlikely(count))
		virtblk_delay_atomic(q->vblk);
	/* These requests are started, so they go to the requeue list. */
	while (unlikely(count)) {
		req = rq_list_pop(rqlist);
		virtblk_unmap_data(blk_mq_rq_to_pdu(req), req);
		blk_mq_requeue_request(req, true);
		count--;
	}
}

/**
 * virtblk_queue_rqs() - blk-mq's queue_rqs: submit a plugged batch
 * @rqlist: the requests; a request that cannot be built now, or whose queue is
 *	stopped, stays on the list with all that follow it, and blk-mq passes them to
 *	virtblk_queue_rq() one by one or puts them on hctx->dispatch
 *
 * Takes the lock once, and kicks at most once, for each run of requests of the same
 * queue.
 */
void virtblk_queue_rqs(struct rq_list *rqlist)
{
	struct request *req;

	while ((req = rq_list_peek(rqlist))) {
		struct blk_mq_hw_ctx *hctx = req->mq_hctx;
		struct virtblk_queue *q = hctx->driver_data;
		unsigned int built = 0;

		/* blk-mq waits until the ring has room.  An own ring never stops its hctx. */
		if (!q->own_ring && unlikely(READ_ONCE(q->stopped)))
			break;
		rq_list_for_each(rqlist, req) {
			if (req->mq_hctx != hctx ||
			    virtblk_build(q, req) != BLK_STS_OK)
				break;
			built++;
		}

		if (built)
			virtblk_submit_batch(q, rqlist, built);
		/* The next request of this queue could not be built. */
		if (unlikely(req && req->mq_hctx == hctx))
			break;
	}
}

/**
 * virtblk_commit_rqs() - blk-mq's commit_rqs: the batch ends early
 * @hctx: the hardware context
 *
 * Kicks for requests that virtblk_queue_rq() added as not the last of their batch.
 */
void virtblk_commit_rqs(struct blk_mq_hw_ctx *hctx)
{
	struct virtblk_queue *q = hctx->driver_data;
	unsigned long flags;
	bool kick;

	if (q->own_ring) {
		spin_lock(&q->submit_lock);
		kick = virtblk_kick_prepare(q, true);
		spin_unlock(&q->submit_lock);
	} else {
		spin_lock_irqsave(&q->lock, flags);
		kick = virtblk_kick_prepare(q, false);
		spin_unlock_irqrestore(&q->lock, flags);
	}

	if (kick)
		virtblk_notify(q);
}
