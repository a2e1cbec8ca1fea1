// SPDX-License-Identifier: GPL-2.0
/*
 * The hot path, in the order in which a request lives: build, submit,
 * complete, poll.
 *
 * Nothing here walks all queues, and the only lock is the queue's own.  What
 * a request looks like to the device (VIRTIO 1.3, 5.2.6):
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
 * The first and last scatterlist are made once for each request slot.  A
 * request whose data is one segment, the common 4 KiB, has it in inline_sg;
 * one with more segments than fit there borrows a table.
 */

#include <linux/blk-mq.h>

#include "trace.h"
#include "virtio_blk.h"

DEFINE_STATIC_KEY_FALSE(virtblk_hardened);

/* Whether the device has requests.  Called with the queue's lock held. */
static bool virtblk_in_flight(struct virtblk_queue *q)
{
	return q->vq->num_free != q->ring_size;
}

/* Build */

/* Out of line: the way of a single segment needs no stack. */
static noinline blk_status_t virtblk_map_segments(struct virtblk_req *vbr,
						  struct request *req)
{
	if (blk_rq_nr_phys_segments(req) > VIRTBLK_INLINE_SGS)
		return virtblk_map_table(vbr, req);

	vbr->data = vbr->inline_sg;
	if (unlikely(blk_rq_map_sg(req, vbr->data) <= 0))
		return BLK_STS_IOERR;
	return BLK_STS_OK;
}

static blk_status_t virtblk_map_data(struct virtblk_req *vbr,
				     struct request *req)
{
	unsigned short segments = blk_rq_nr_phys_segments(req);
	struct bio_vec bv;

	if (!segments) {
		vbr->data = NULL;
		return BLK_STS_OK;
	}
	if (segments > 1)
		return virtblk_map_segments(vbr, req);

	/* Blocks that are next to each other make one segment of several. */
	bv = req_bvec(req);
	if (bv.bv_len != blk_rq_payload_bytes(req))
		return virtblk_map_segments(vbr, req);

	vbr->data = vbr->inline_sg;
	sg_set_page(vbr->data, bv.bv_page, bv.bv_len, bv.bv_offset);
	sg_mark_end(vbr->data);
	return BLK_STS_OK;
}

/**
 * virtblk_unmap_data() - give back what names a request's data
 * @vbr: the request
 * @req: the same
 */
void virtblk_unmap_data(struct virtblk_req *vbr, struct request *req)
{
	if (vbr->sg_table.sgl) {
		sg_free_table_chained(&vbr->sg_table, 0);
		vbr->sg_table.sgl = NULL;
	}
	if (req->rq_flags & RQF_SPECIAL_PAYLOAD)
		virtblk_free_ranges(req);
}

static blk_status_t virtblk_build(struct virtio_blk *vblk, struct request *req)
{
	struct virtblk_req *vbr = blk_mq_rq_to_pdu(req);
	blk_status_t status;
	int type;

	vbr->status = VIRTBLK_STATUS_UNWRITTEN;
	/* What is remembered of a request outlives its being sent again. */
	if (!(req->rq_flags & RQF_DONTPREP)) {
		vbr->overdue = false;
		vbr->resent = 0;
		req->rq_flags |= RQF_DONTPREP;
	}
	if (!vbr->overdue)
		vbr->sent = jiffies;

	switch (req_op(req)) {
	case REQ_OP_READ:
		virtblk_set_header(vblk, req, VIRTIO_BLK_T_IN,
				   blk_rq_pos(req));
		break;
	case REQ_OP_WRITE:
		virtblk_set_header(vblk, req, VIRTIO_BLK_T_OUT,
				   blk_rq_pos(req));
		break;
	case REQ_OP_FLUSH:
		virtblk_set_header(vblk, req, VIRTIO_BLK_T_FLUSH, 0);
		break;
	case REQ_OP_DISCARD:
		virtblk_set_header(vblk, req, VIRTIO_BLK_T_DISCARD, 0);
		status = virtblk_add_ranges(vblk, req);
		if (status)
			return status;
		break;
	case REQ_OP_WRITE_ZEROES:
		virtblk_set_header(vblk, req, VIRTIO_BLK_T_WRITE_ZEROES, 0);
		status = virtblk_add_ranges(vblk, req);
		if (status)
			return status;
		break;
	case REQ_OP_SECURE_ERASE:
		virtblk_set_header(vblk, req, VIRTIO_BLK_T_SECURE_ERASE, 0);
		status = virtblk_add_ranges(vblk, req);
		if (status)
			return status;
		break;
	case REQ_OP_DRV_IN:
		/* virtblk_ask() has filled in the header. */
		break;
	default:
		type = virtblk_zone_type(req);
		if (type < 0)
			return BLK_STS_NOTSUPP;
		/* To reset all zones has no place (VIRTIO 1.3, 5.2.6.1). */
		virtblk_set_header(vblk, req, type,
				   req_op(req) == REQ_OP_ZONE_RESET_ALL ?
				   0 : blk_rq_pos(req));
	}

	status = virtblk_map_data(vbr, req);
	if (unlikely(status)) {
		virtblk_unmap_data(vbr, req);
		return status;
	}

	blk_mq_start_request(req);
	return BLK_STS_OK;
}

/* Submit */

/*
 * Called with the queue's lock held.  A ring without room is found out here:
 * virtqueue_add_sgs() would kick, under the lock.  There is no virtqueue while
 * the device is away, and none any more if it did not come back.
 */
static int virtblk_add(struct virtblk_queue *q, struct request *req)
{
	struct virtblk_req *vbr = blk_mq_rq_to_pdu(req);
	unsigned int out = 0, in = 0, descs = 1;
	struct scatterlist *sgs[3];

	if (unlikely(!q->vq))
		return -ENODEV;
	if (!q->indirect)
		descs = blk_rq_nr_phys_segments(req) + VIRTBLK_EXTRA_DESCS;
	if (unlikely(q->vq->num_free < descs))
		return -ENOSPC;
	if (virtblk_fail_add(q->vblk))
		return -ENOMEM;
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

/* The ring has taken a request. */
static __always_inline void virtblk_note_sent(struct virtblk_queue *q,
					      struct request *req)
{
	unsigned int op = (__force unsigned int)req_op(req);

	q->stats.requests[op]++;
	q->stats.bytes[op] += blk_rq_bytes(req);
	trace_virtblk_submit(q, req);
}

/*
 * The ring did not take @count requests.  If it has no room, keep requests away
 * until a completion has made some.  Called with the queue's lock held, so that
 * a completion sees either the queue stopped or the room that it made used.
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
	q->stopped = true;
}

/*
 * Unless the virtqueue is broken it is for want of memory that it takes no
 * request, bounce buffers for one: a packed ring then says -EIO.
 */
static blk_status_t virtblk_add_error(struct virtblk_queue *q, int err)
{
	if (err == -ENOSPC)
		return BLK_STS_DEV_RESOURCE;
	if (err == -ENODEV)
		return BLK_STS_IOERR;
	if (virtqueue_is_broken(q->vq)) {
		queue_work(virtblk_wq, &q->vblk->recover_work);
		return BLK_STS_IOERR;
	}
	return BLK_STS_RESOURCE;
}

/* Whether the device is to be notified.  Called with the queue's lock held. */
static __always_inline bool virtblk_kick_prepare(struct virtblk_queue *q)
{
	if (unlikely(!q->vq))
		return false;
	if (!virtqueue_kick_prepare(q->vq)) {
		q->stats.kicks_spared++;
		trace_virtblk_kick(q, false);
		return false;
	}
	q->stats.kicks++;
	trace_virtblk_kick(q, true);
	return !virtblk_drop_kick(q->vblk);
}

/**
 * virtblk_queue_rq() - blk-mq's queue_rq: send one request
 * @hctx: the hardware context
 * @bd: the request, and whether it is the last for now
 *
 * Return: BLK_STS_OK; BLK_STS_DEV_RESOURCE if the ring is full, and the queue
 * has been stopped; BLK_STS_RESOURCE if memory is short; BLK_STS_NOTSUPP for
 * an operation that the driver does not know; BLK_STS_IOERR if the virtqueue
 * is broken or gone.
 */
blk_status_t virtblk_queue_rq(struct blk_mq_hw_ctx *hctx,
			      const struct blk_mq_queue_data *bd)
{
	struct virtblk_queue *q = hctx->driver_data;
	struct request *req = bd->rq;
	blk_status_t status;
	unsigned long flags;
	bool kick = false;
	int err;

	status = virtblk_build(q->vblk, req);
	if (unlikely(status)) {
		if (status == BLK_STS_RESOURCE)
			atomic64_inc(&q->stats.requeues);
		return status;
	}

	spin_lock_irqsave(&q->lock, flags);
	err = virtblk_add(q, req);
	if (likely(!err))
		virtblk_note_sent(q, req);
	else
		virtblk_refuse(q, err, 1);
	/* A full ring is not to wait for a kick that may be long in coming. */
	if (bd->last || unlikely(err))
		kick = virtblk_kick_prepare(q);
	spin_unlock_irqrestore(&q->lock, flags);

	if (kick)
		virtqueue_notify(q->vq);

	if (unlikely(err)) {
		virtblk_unmap_data(blk_mq_rq_to_pdu(req), req);
		return virtblk_add_error(q, err);
	}
	return BLK_STS_OK;
}

/* Send the first @count requests of @rqlist, all of them built, to @q. */
static void virtblk_submit_batch(struct virtblk_queue *q,
				 struct rq_list *rqlist, unsigned int count)
{
	struct request *req;
	unsigned long flags;
	bool kick;
	int err;

	spin_lock_irqsave(&q->lock, flags);
	do {
		req = rq_list_peek(rqlist);
		err = virtblk_add(q, req);
		if (unlikely(err))
			break;
		virtblk_note_sent(q, req);
		rq_list_pop(rqlist);
	} while (--count);
	if (unlikely(err))
		virtblk_refuse(q, err, count);
	kick = virtblk_kick_prepare(q);
	spin_unlock_irqrestore(&q->lock, flags);

	if (kick)
		virtqueue_notify(q->vq);

	/* They were started, so blk-mq has to bring them back from there. */
	while (unlikely(count)) {
		req = rq_list_pop(rqlist);
		virtblk_unmap_data(blk_mq_rq_to_pdu(req), req);
		blk_mq_requeue_request(req, true);
		count--;
	}
}

/**
 * virtblk_queue_rqs() - blk-mq's queue_rqs: send a plugged batch
 * @rqlist: the requests; what cannot be built now is left on it with all that
 *	follows, and blk-mq then offers them to virtblk_queue_rq() one by one
 *
 * One lock, one decision about one kick, for each run of requests that go to
 * the same queue.
 */
void virtblk_queue_rqs(struct rq_list *rqlist)
{
	struct request *req;

	while ((req = rq_list_peek(rqlist))) {
		struct blk_mq_hw_ctx *hctx = req->mq_hctx;
		struct virtblk_queue *q = hctx->driver_data;
		unsigned int built = 0;

		rq_list_for_each(rqlist, req) {
			if (req->mq_hctx != hctx ||
			    virtblk_build(q->vblk, req) != BLK_STS_OK)
				break;
			built++;
		}

		if (built)
			virtblk_submit_batch(q, rqlist, built);
		/* The next one of this queue could not be built. */
		if (unlikely(req && req->mq_hctx == hctx))
			break;
	}
}

/**
 * virtblk_commit_rqs() - blk-mq's commit_rqs: no further request will come
 * @hctx: the hardware context
 *
 * Kicks for requests that were queued as not being the last.
 */
void virtblk_commit_rqs(struct blk_mq_hw_ctx *hctx)
{
	struct virtblk_queue *q = hctx->driver_data;
	unsigned long flags;
	bool kick;

	spin_lock_irqsave(&q->lock, flags);
	kick = virtblk_kick_prepare(q);
	spin_unlock_irqrestore(&q->lock, flags);

	if (kick)
		virtqueue_notify(q->vq);
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
 * virtblk_complete_rq() - blk-mq's complete: end a request
 * @req: a request that the device is done with
 *
 * Runs on the CPU, or one of those sharing its cache, that submitted @req.
 */
void virtblk_complete_rq(struct request *req)
{
	struct virtblk_req *vbr = blk_mq_rq_to_pdu(req);

	if (unlikely(vbr->status != VIRTIO_BLK_S_OK))
		virtblk_count_error(req);
	virtblk_unmap_data(vbr, req);
	blk_mq_end_request(req, virtblk_result(req));
}

/* What is in a batch of io_uring's may be of another queue, or another disk. */
static void virtblk_complete_batch(struct io_comp_batch *iob)
{
	struct request *req;

	rq_list_for_each(&iob->req_list, req)
		virtblk_unmap_data(blk_mq_rq_to_pdu(req), req);
	blk_mq_end_request_batch(iob);
}

/*
 * A batch ends all in it well, so what failed does not go there.  Nor does a
 * zone append: its result is more than a status.
 */
static bool virtblk_may_batch(struct request *req)
{
	struct virtblk_req *vbr = blk_mq_rq_to_pdu(req);

	return vbr->status == VIRTIO_BLK_S_OK &&
	       req_op(req) != REQ_OP_ZONE_APPEND;
}

/*
 * End requests that were taken off a ring, on the CPU that each belongs to.
 * Without @iob each is ended alone.
 */
static void virtblk_end(struct rq_list *done, struct io_comp_batch *iob)
{
	struct request *req;

	while ((req = rq_list_pop(done))) {
		if (blk_mq_complete_request_remote(req))
			continue;
		if (!virtblk_may_batch(req) ||
		    !blk_mq_add_to_batch(req, iob, false,
					 virtblk_complete_batch))
			virtblk_complete_rq(req);
	}
}

/*
 * A device that says that a read went well, and that it has written less than
 * was read, leaves in memory what was there before (VIRTIO 1.3, 2.7.8.2).  That
 * is another's data where memory is shared with a host that is not trusted; a
 * device that merely does not count well would lose its I/O by this.
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
	dev_err_ratelimited(&vblk->vdev->dev, "[%s] the device says that it wrote %u bytes for a read of %u and its status\n",
			    vblk->disk->disk_name, len,
			    blk_rq_payload_bytes(req));
}

/*
 * Take up to VIRTBLK_REAP_BATCH finished requests off the ring and put them on
 * @done.  Called with the queue's lock held; q->vq is there.
 */
static unsigned int virtblk_reap(struct virtblk_queue *q, struct rq_list *done)
{
	struct virtblk_req *vbr;
	unsigned int len, n = 0;
	struct request *req;

	do {
		vbr = virtqueue_get_buf(q->vq, &len);
		if (!vbr)
			break;
		req = blk_mq_rq_from_pdu(vbr);
		if (unlikely(blk_should_fake_timeout(req->q)))
			continue;
		if (static_branch_unlikely(&virtblk_hardened))
			virtblk_check_length(vbr, len);
		trace_virtblk_complete(q, req, len);
		if (unlikely(jiffies - vbr->sent > q->stats.longest_wait))
			q->stats.longest_wait = jiffies - vbr->sent;
		/* Not to be taken back as unanswered from now on. */
		blk_mq_set_request_complete(req);
		rq_list_add_tail(done, req);
	} while (++n < VIRTBLK_REAP_BATCH && virtblk_in_flight(q));
	q->stats.taken[n]++;
	return n;
}

/*
 * Whether requests waited for the room that there is now.  If so, what made it
 * must be ended one by one: the end of a batch does not clear the mark by which
 * blk-mq knows that requests wait (BLK_MQ_S_SCHED_RESTART).  As long as it is
 * set, blk-mq counts on a later end to run the queue, and a request that was
 * refused but is not yet on its list when the queue is started would stay there.
 */
static bool virtblk_unstop(struct virtblk_queue *q)
{
	bool stopped = q->stopped;

	q->stopped = false;
	return stopped;
}

/*
 * Have the device interrupt for the next request.  Called with the queue's
 * lock held; returns false if there are finished ones to be taken first.
 */
static bool virtblk_rearm(struct virtblk_queue *q)
{
	if (virtblk_in_flight(q))
		return virtqueue_enable_cb(q->vq);
	virtqueue_enable_cb_prepare(q->vq);
	return true;
}

/*
 * Take finished requests off the ring under the queue's lock, and end them
 * together outside of it.
 */
static __always_inline void virtblk_complete_queue(struct virtblk_queue *q,
						   struct virtqueue *vq)
{
	bool armed, restart;
	struct rq_list done;
	unsigned long flags;
	unsigned int n = 0;

	do {
		DEFINE_IO_COMP_BATCH(iob);

		rq_list_init(&done);
		armed = true;
		restart = false;
		spin_lock_irqsave(&q->lock, flags);
		/* Nor is there anything to wait for without a virtqueue. */
		if (likely(q->vq)) {
			virtqueue_disable_cb(vq);
			n = virtblk_reap(q, &done);
			/*
			 * To end them takes time, in which there may come more:
			 * no interrupt is needed until there came none.
			 */
			armed = (!n || !virtblk_in_flight(q)) &&
				virtblk_rearm(q);
			restart = n && virtblk_unstop(q);
		}
		spin_unlock_irqrestore(&q->lock, flags);

		virtblk_end(&done, unlikely(restart) ? NULL : &iob);
		if (!rq_list_empty(&iob.req_list))
			virtblk_complete_batch(&iob);
		if (unlikely(restart))
			blk_mq_start_stopped_hw_queue(q->hctx, true);
	} while (unlikely(!armed) && !virtqueue_is_broken(vq));

	/* A device that answers what it was never asked ends up so. */
	if (unlikely(!n || !armed) && virtqueue_is_broken(vq))
		queue_work(virtblk_wq, &q->vblk->recover_work);
}

/**
 * virtblk_interrupt() - the virtqueue's callback: requests are done
 * @vq: the virtqueue
 *
 * Context: hard interrupt.
 */
void virtblk_interrupt(struct virtqueue *vq)
{
	struct virtio_blk *vblk = vq->vdev->priv;
	struct virtblk_queue *q = vblk->queues[vq->index];

	/* Only a device that does not wait for DRIVER_OK gets here so early. */
	if (unlikely(!q))
		return;
	trace_virtblk_interrupt(q);
	if (virtblk_drop_interrupt(vblk))
		return;
	/* Nobody else writes it, and who shows it may come a little early. */
	data_race(q->interrupts++);
	virtblk_complete_queue(q, vq);
}

/**
 * virtblk_look() - end what is done on a queue, whatever interrupts say of it
 * @q: the queue, which has requests in flight
 *
 * Context: any.
 */
void virtblk_look(struct virtblk_queue *q)
{
	struct virtio_blk *vblk = q->vblk;
	struct virtqueue *vq = READ_ONCE(q->vq);

	if (!vq)
		return;
	if (vq->index < virtblk_first_polled(vblk))
		virtblk_complete_queue(q, vq);
	else
		virtblk_poll_queue(q, NULL);
}

/* Poll */

/**
 * virtblk_poll_queue() - end what is done on a queue without vector
 * @q: the queue
 * @iob: collects requests that can be ended together; NULL if they are to be
 *	ended one by one
 *
 * Return: how many requests were done.
 */
int virtblk_poll_queue(struct virtblk_queue *q, struct io_comp_batch *iob)
{
	bool restart = false, broken = false;
	struct rq_list done;
	unsigned long flags;
	unsigned int n = 0;

	rq_list_init(&done);
	spin_lock_irqsave(&q->lock, flags);
	/* The device may be away. */
	if (likely(q->vq)) {
		n = virtblk_reap(q, &done);
		restart = n && virtblk_unstop(q);
		broken = !n && virtqueue_is_broken(q->vq);
	}
	spin_unlock_irqrestore(&q->lock, flags);

	virtblk_end(&done, unlikely(restart) ? NULL : iob);

	if (unlikely(restart))
		blk_mq_start_stopped_hw_queue(q->hctx, true);
	if (unlikely(broken))
		queue_work(virtblk_wq, &q->vblk->recover_work);
	return n;
}

/**
 * virtblk_poll() - blk-mq's poll: virtblk_poll_queue() by the hctx
 * @hctx: the hardware context
 * @iob: see there
 *
 * Return: how many requests were done.
 */
int virtblk_poll(struct blk_mq_hw_ctx *hctx, struct io_comp_batch *iob)
{
	return virtblk_poll_queue(hctx->driver_data, iob);
}
