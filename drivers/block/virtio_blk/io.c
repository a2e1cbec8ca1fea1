// SPDX-License-Identifier: GPL-2.0
/*
 * The path of each request: submit, complete, poll.  request.c builds it.
 *
 * The only locks are those of the request's queue, and no code here walks all queues.  A
 * request as the device sees it (VIRTIO 1.3, 5.2.6), on a ring that the virtio core runs
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

/*
 * The driver runs the ring of most disks itself (ring.c), and submission then has a lock of
 * its own.  What the driver assumes of virtio_ring on the other rings, beyond its
 * documented interface.  tools/testing/test_ring.py tests each of them on each kind of ring:
 * split and packed, with direct and with indirect descriptors.
 *
 *  - vq->num_free is the number of free descriptors, exact under the queue's lock:
 *    equal to the ring's size when no request is in flight, less by one for each
 *    request with indirect descriptors, by its number of descriptors for each
 *    other one (virtblk_in_flight(), virtblk_add()).
 *  - virtqueue_get_buf() returns each request once, in any order, and NULL when the
 *    device has returned nothing more or has broken the virtqueue, for example by
 *    an id that is not in flight (virtblk_reap()).
 *  - virtqueue_enable_cb() returns false if a request was returned meanwhile; if it
 *    returns true, a callback comes for the next one.  Callbacks may come at other
 *    times as well, with interrupts disabled too (virtblk_unmask()).
 *  - virtqueue_add_sgs() notifies the device by itself when the ring has no room;
 *    the driver never calls it then (virtblk_add()).
 *  - virtqueue_notify() and virtqueue_is_broken() need no lock.
 *  - virtqueue_detach_unused_buf() returns a buffer as long as one is in flight;
 *    the driver never calls it once more (virtblk_detach_one()).
 *
 * With VIRTIO_F_IN_ORDER virtio_ring returns a whole run of requests for one used
 * entry and makes their lengths up, and with VIRTIO_F_NOTIFICATION_DATA it reads
 * its indexes without the lock to notify.  virtblk_validate() accepts neither.
 */

/* Limit for the requests that one hard interrupt of a queue completes. */
#define VIRTBLK_IRQ_BUDGET	256

DEFINE_STATIC_KEY_FALSE(virtblk_hardened);

/*
 * Does the device have requests?  Needs the queue's lock, and is a guess if the driver
 * runs the ring.
 */
static bool virtblk_in_flight(struct virtblk_queue *q)
{
	if (q->own_ring)
		return READ_ONCE(q->avail_idx) != q->used_idx;
	return q->vq->num_free != q->ring_size;
}

/* Submit */

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

/*
 * Why can the queue take no request?  There is no virtqueue while the disk is suspended or
 * resetting, or once it is dead.
 */
static __always_inline int virtblk_check_vq(struct virtblk_queue *q, const bool own)
{
	if (unlikely(!q->vq))
		return -ENODEV;
	/* Else the virtio core looks. */
	return own && unlikely(virtqueue_is_broken(q->vq)) ? -EIO : 0;
}

/* Add a request to the ring; @own is q->own_ring. */
static __always_inline int virtblk_add(struct virtblk_queue *q,
				       struct request *req, const bool own)
{
	if (virtblk_fail_add(q->vblk))
		return -ENOMEM;
	if (!own)
		return virtblk_add_sgs(q, req);
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
	/* The ring is full: the device must not wait for the next kick. */
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

		/* blk-mq checks again that the hctx is stopped, which an own ring never does. */
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

/* Complete */

static blk_status_t virtblk_result(struct request *req)
{
	struct virtblk_req *vbr = blk_mq_rq_to_pdu(req);

	if (unlikely(blk_queue_is_zoned(req->q)))
		return virtblk_zone_result(req);

	switch (vbr->status) {
	case VIRTIO_BLK_S_OK:
		return BLK_STS_OK;
	case VIRTIO_BLK_S_UNSUPP:
		return BLK_STS_NOTSUPP;
	default:
		return BLK_STS_IOERR;
	}
}

static void virtblk_count_error(struct request *req)
{
	struct virtblk_queue *q = req->mq_hctx->driver_data;
	struct virtblk_req *vbr = blk_mq_rq_to_pdu(req);

	if (vbr->status == VIRTIO_BLK_S_IOERR)
		atomic64_inc(&q->stats.ioerr);
	else if (vbr->status == VIRTIO_BLK_S_UNSUPP)
		atomic64_inc(&q->stats.unsupp);
	else
		atomic64_inc(&q->stats.other_errors);
}

/**
 * virtblk_complete_rq() - blk-mq's complete: complete one request
 * @req: the request, which the device has returned
 *
 * Runs on the CPU that submitted @req, or on one that shares its cache.
 */
void virtblk_complete_rq(struct request *req)
{
	struct virtblk_req *vbr = blk_mq_rq_to_pdu(req);

	if (unlikely(vbr->status != VIRTIO_BLK_S_OK))
		virtblk_count_error(req);
	virtblk_unmap_data(vbr, req);
	blk_mq_end_request(req, virtblk_result(req));
}

/*
 * A batch completes its requests with BLK_STS_OK, so a request that failed is not part
 * of one.  Neither is a zone append, because its result is more than a status.
 */
static bool virtblk_may_batch(struct request *req)
{
	struct virtblk_req *vbr = blk_mq_rq_to_pdu(req);

	return vbr->status == VIRTIO_BLK_S_OK &&
	       req_op(req) != REQ_OP_ZONE_APPEND;
}

/*
 * Complete requests that are off the ring, each on the CPU that it belongs to.
 * Without @iob complete each of them alone.  A batch that io_uring polls may hold requests
 * of other queues and disks.
 */
static void virtblk_complete_list(struct virtblk_queue *q, struct rq_list *done,
				  struct io_comp_batch *iob)
{
	struct request *req;
	bool local;

	/* Before the disk exists there is no hctx either. */
	if (rq_list_empty(done))
		return;
	/* Then all of them belong to this CPU, and need not be asked one by one. */
	local = q->hctx->nr_ctx == 1 &&
		cpumask_test_cpu(raw_smp_processor_id(), q->hctx->cpumask);
	while ((req = rq_list_pop(done))) {
		if (!local && blk_mq_complete_request_remote(req))
			continue;
		virtblk_unmap_data(blk_mq_rq_to_pdu(req), req);
		if (!virtblk_may_batch(req) ||
		    !blk_mq_add_to_batch(req, iob, false,
					 blk_mq_end_request_batch))
			virtblk_complete_rq(req);
	}
}

/*
 * A device that reports a read as successful, but writes less than the request asked
 * for, leaves older data in the rest of the buffer (VIRTIO 1.3, 2.7.8.2).  In a
 * confidential guest that is a leak, so that read fails.  Elsewhere the driver does not
 * check, because some devices return wrong lengths.
 */
static void virtblk_check_length(struct virtblk_req *vbr, unsigned int len)
{
	struct request *req = blk_mq_rq_from_pdu(vbr);
	struct virtio_blk *vblk = req->q->disk->private_data;
	unsigned int asked = blk_rq_payload_bytes(req) + sizeof(vbr->status);

	if (req_op(req) != REQ_OP_READ || vbr->status != VIRTIO_BLK_S_OK ||
	    len >= asked)
		return;
	vbr->status = VIRTIO_BLK_S_IOERR;
	dev_err_ratelimited(&vblk->vdev->dev, "[%s] the device reports %u bytes written for a read of %u and its status, failing it\n",
			    vblk->disk->disk_name, len,
			    blk_rq_payload_bytes(req));
}

/* Add a request that is off the ring to @done.  Needs the queue's lock. */
static __always_inline void virtblk_note_done(struct virtblk_queue *q,
					      struct request *req,
					      unsigned int len,
					      struct rq_list *done)
{
	struct virtblk_req *vbr = blk_mq_rq_to_pdu(req);

	if (unlikely(blk_should_fake_timeout(req->q)))
		return;
	if (static_branch_unlikely(&virtblk_hardened))
		virtblk_check_length(vbr, len);
	trace_virtblk_complete(q, req, len);
	if (unlikely(jiffies - vbr->sent > q->stats.longest_wait))
		q->stats.longest_wait = jiffies - vbr->sent;
	/* From here on a reset does not requeue it. */
	blk_mq_set_request_complete(req);
	rq_list_add_tail(done, req);
}

/*
 * Move up to VIRTBLK_REAP_BATCH completed requests from the ring to @done.  Needs the
 * queue's lock and a virtqueue.
 */
static unsigned int virtblk_reap(struct virtblk_queue *q, struct rq_list *done)
{
	struct virtblk_req *vbr;
	unsigned int len, n = 0;

	if (unlikely(virtqueue_is_broken(q->vq)))
		return 0;
	do {
		vbr = virtqueue_get_buf(q->vq, &len);
		if (!vbr)
			break;
		virtblk_note_done(q, blk_mq_rq_from_pdu(vbr), len, done);
	} while (++n < VIRTBLK_REAP_BATCH && virtblk_in_flight(q));
	q->stats.polls[n]++;
	return n;
}

/* The same on a ring that the driver runs itself. */
static unsigned int virtblk_reap_own(struct virtblk_queue *q, struct rq_list *done)
{
	unsigned int len, most, n;
	struct request *req;

	if (unlikely(virtqueue_is_broken(q->vq)))
		return 0;
	most = min_t(unsigned int, virtblk_ring_count_used(q), VIRTBLK_REAP_BATCH);
	for (n = 0; n < most; n++) {
		req = virtblk_ring_get(q, &len);
		if (unlikely(!req))
			break;
		virtblk_note_done(q, req, len, done);
	}
	q->stats.polls[n]++;
	return n;
}

/* Is the hctx stopped?  The ring has room again.  Needs the queue's lock. */
static bool virtblk_clear_stopped(struct virtblk_queue *q)
{
	bool stopped = q->stopped;

	WRITE_ONCE(q->stopped, false);
	return stopped;
}

/*
 * Unmask the queue's interrupt.  Needs the queue's lock.  Returns false if the ring
 * has more completed requests, for which no interrupt may come.
 */
static __always_inline bool virtblk_unmask(struct virtblk_queue *q)
{
	if (q->own_ring)
		return virtblk_ring_unmask(q);
	if (virtblk_in_flight(q))
		return virtqueue_enable_cb(q->vq);
	virtqueue_enable_cb_prepare(q->vq);
	return true;
}

/* Mask the queue's interrupt and reap.  Needs the queue's lock and a virtqueue. */
static __always_inline unsigned int virtblk_mask_and_reap(struct virtblk_queue *q,
							  struct rq_list *done)
{
	if (q->own_ring) {
		virtblk_ring_mask(q);
		return virtblk_reap_own(q, done);
	}
	virtqueue_disable_cb(q->vq);
	return virtblk_reap(q, done);
}

/*
 * Unmask the interrupt of a ring that the driver runs, unless it has more completed
 * requests.  This takes less than another poll.
 */
static bool virtblk_unmask_empty(struct virtblk_queue *q)
{
	unsigned long flags;
	bool unmasked;

	spin_lock_irqsave(&q->lock, flags);
	/* The interrupt of another virtqueue is not masked. */
	unmasked = !q->own_ring ||
		   (!virtblk_ring_has_used(q) && virtblk_ring_unmask(q));
	spin_unlock_irqrestore(&q->lock, flags);
	return unmasked;
}

/*
 * Take completed requests off the ring under the queue's lock, and complete them
 * without it.  After @budget requests leave the rest to the queue's work, with the
 * interrupt masked until then: several CPUs that feed one fast queue must not keep
 * another CPU in a hard interrupt.
 */
static __always_inline void virtblk_complete_queue(struct virtblk_queue *q,
						   struct virtqueue *vq,
						   unsigned int budget)
{
	unsigned int n = 0, done_so_far = 0;
	bool unmasked, restart, own;
	struct rq_list done;
	unsigned long flags;

	do {
		DEFINE_IO_COMP_BATCH(iob);

		rq_list_init(&done);
		unmasked = true;
		restart = false;
		own = false;
		spin_lock_irqsave(&q->lock, flags);
		/* Without a virtqueue no interrupt is needed either. */
		if (likely(q->vq)) {
			own = q->own_ring;
			n = virtblk_mask_and_reap(q, &done);
			/*
			 * More requests may complete while the driver completes
			 * these: keep the interrupt masked until a poll finds none.
			 */
			unmasked = (!n || !virtblk_in_flight(q)) &&
				virtblk_unmask(q);
			restart = n && virtblk_clear_stopped(q);
		}
		spin_unlock_irqrestore(&q->lock, flags);
		virtblk_delay_atomic(q->vblk);

		virtblk_complete_list(q, &done, &iob);
		if (!rq_list_empty(&iob.req_list))
			blk_mq_end_request_batch(&iob);
		if (unlikely(restart))
			blk_mq_start_stopped_hw_queue(q->hctx, true);
		done_so_far += n;
		if (own && !unmasked && n < VIRTBLK_REAP_BATCH)
			unmasked = virtblk_unmask_empty(q);
	} while (unlikely(!unmasked) && done_so_far < budget &&
		 !virtqueue_is_broken(vq));

	if (likely(n && unmasked))
		return;
	/* virtio_ring breaks the virtqueue when the device returns an unknown id. */
	if (virtqueue_is_broken(vq))
		queue_work(virtblk_wq, &q->vblk->recovery.work);
	else if (!unmasked)
		queue_work(virtblk_complete_wq, &q->work);
}

/**
 * virtblk_complete_work() - complete requests that a hard interrupt left on the ring
 * @work: the queue's work
 */
void virtblk_complete_work(struct work_struct *work)
{
	struct virtblk_queue *q = container_of(work, struct virtblk_queue, work);
	struct virtqueue *vq = READ_ONCE(q->vq);

	if (vq)
		virtblk_complete_queue(q, vq, VIRTBLK_IRQ_BUDGET);
}

/**
 * virtblk_guard_poll() - poll a ring whose interrupt the virtio core may drop; see ring.c
 * @timer: the queue's guard
 *
 * Context: hard interrupt; softirq with PREEMPT_RT.
 *
 * Return: HRTIMER_NORESTART; it starts the timer itself as long as the core may.
 */
enum hrtimer_restart virtblk_guard_poll(struct hrtimer *timer)
{
	struct virtblk_queue *q = container_of(timer, struct virtblk_queue, guard);
	struct virtqueue *vq = READ_ONCE(q->vq);
	bool guarded = false;
	unsigned long flags;
	u32 ns;

	if (!vq)
		return HRTIMER_NORESTART;
	virtblk_complete_queue(q, vq, VIRTBLK_IRQ_BUDGET);
	spin_lock_irqsave(&q->lock, flags);
	if (q->vq && q->own_ring && !virtqueue_is_broken(vq))
		guarded = virtblk_ring_guarded(q);
	spin_unlock_irqrestore(&q->lock, flags);
	if (!guarded)
		return HRTIMER_NORESTART;
	/*
	 * A submitter may start it meanwhile, too; then one poll comes late.  So this is
	 * not hrtimer_forward_now(), which may not change a timer that is started.
	 */
	ns = min(2 * READ_ONCE(q->guard_ns), VIRTBLK_MAX_GUARD_NS);
	WRITE_ONCE(q->guard_ns, ns);
	hrtimer_start(timer, ns_to_ktime(ns), HRTIMER_MODE_REL);
	return HRTIMER_NORESTART;
}

/**
 * virtblk_interrupt() - the virtqueue's callback: requests have completed
 * @vq: the virtqueue
 *
 * Context: hard interrupt.
 */
void virtblk_interrupt(struct virtqueue *vq)
{
	struct virtio_blk *vblk = vq->vdev->priv;
	struct virtblk_queue *q = vblk->queues[vq->index];

	/* Only a device that does not wait for DRIVER_OK interrupts so early. */
	if (unlikely(!q))
		return;
	/*
	 * The virtio core passes on each interrupt of a ring that it does not run; one of
	 * a shared vector may be for another queue.
	 */
	if (smp_load_acquire(&q->own_ring) && !virtblk_ring_has_used(q))
		return;
	trace_virtblk_interrupt(q);
	if (virtblk_drop_interrupt(vblk))
		return;
	/* Only this interrupt writes it; debugfs may read the value before. */
	data_race(q->interrupts++);
	virtblk_complete_queue(q, vq, VIRTBLK_IRQ_BUDGET);
}

/**
 * virtblk_poll_ring() - complete requests of a queue without an interrupt
 * @q: the queue
 *
 * Unless requests complete meanwhile, the ring has no completed request afterwards.
 *
 * Context: process; the caller makes sure that the virtqueue stays.
 */
void virtblk_poll_ring(struct virtblk_queue *q)
{
	struct virtio_blk *vblk = q->vblk;
	struct virtqueue *vq = READ_ONCE(q->vq);

	if (!vq)
		return;
	if (vq->index < virtblk_first_polled(vblk))
		virtblk_complete_queue(q, vq, virtqueue_get_vring_size(vq));
	else
		while (virtblk_poll_queue(q, NULL) == VIRTBLK_REAP_BATCH)
			;
}

/* Poll */

/**
 * virtblk_poll_queue() - poll a queue that has no interrupt
 * @q: the queue
 * @iob: collects requests that complete together; NULL to complete each alone
 *
 * Return: the number of completed requests, VIRTBLK_REAP_BATCH at most.
 */
int virtblk_poll_queue(struct virtblk_queue *q, struct io_comp_batch *iob)
{
	bool restart = false, broken = false;
	struct rq_list done;
	unsigned long flags;
	unsigned int n = 0;

	rq_list_init(&done);
	spin_lock_irqsave(&q->lock, flags);
	if (likely(q->vq)) {
		n = q->own_ring ? virtblk_reap_own(q, &done) :
				  virtblk_reap(q, &done);
		restart = n && virtblk_clear_stopped(q);
		broken = !n && virtqueue_is_broken(q->vq);
	}
	spin_unlock_irqrestore(&q->lock, flags);

	virtblk_complete_list(q, &done, iob);

	if (unlikely(restart))
		blk_mq_start_stopped_hw_queue(q->hctx, true);
	if (unlikely(broken))
		queue_work(virtblk_wq, &q->vblk->recovery.work);
	return n;
}

/**
 * virtblk_poll() - blk-mq's poll: virtblk_poll_queue() for an hctx
 * @hctx: the hardware context
 * @iob: see virtblk_poll_queue()
 *
 * Return: the number of completed requests.
 */
int virtblk_poll(struct blk_mq_hw_ctx *hctx, struct io_comp_batch *iob)
{
	return virtblk_poll_queue(hctx->driver_data, iob);
}
