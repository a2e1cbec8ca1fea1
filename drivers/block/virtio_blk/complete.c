// SPDX-License-Identifier: GPL-2.0
/*
 * Complete: from the virtqueue back to blk-mq, by interrupt or by poll.
 *
 * The only locks are those of the request's queue, and no code here walks all queues.
 */

#include <linux/blk-mq.h>

#include "ring.h"
#include "trace.h"
#include "virtio_blk.h"
#include "zoned.h"

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
 * for, leaves older data in the rest of the buffer (VIRTIO 1.4, 2.7.8.2).  In a
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
	if (unlikely(jiffies - vbr->sent >= q->stats.note_from))
		virtblk_note_wait(q, req);
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
	struct request *req;
	unsigned int len, n = 0;

	if (unlikely(virtqueue_is_broken(q->vq)))
		return 0;
	do {
		vbr = virtqueue_get_buf(q->vq, &len);
		if (!vbr)
			break;
		req = blk_mq_rq_from_pdu(vbr);
		if (virtblk_is_prepared(q) && q->shared)
			virtblk_fetch_status(q, vbr, req->tag);
		virtblk_note_done(q, req, len, done);
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
	/* Pairs with virtblk_alloc_queues(): the queue is initialized. */
	struct virtblk_queue *q = smp_load_acquire(&vblk->queues[vq->index]);

	/* Only a device that does not wait for DRIVER_OK interrupts so early. */
	if (unlikely(!q))
		return;
	/*
	 * The virtio core passes on the interrupts of a ring that it does not run (ring.c has
	 * the exception); one of a shared vector may be for another queue.
	 */
	if (smp_load_acquire(&q->own_ring) && !virtblk_ring_has_used(q))
		return;
	trace_virtblk_interrupt(q);
	if (virtblk_drop_interrupt(vblk))
		return;
	/*
	 * Only this interrupt writes it, except on s390x, where two CPUs may run it at a
	 * time and a count may get lost; debugfs may read the value before.
	 */
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
