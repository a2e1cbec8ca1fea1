// SPDX-License-Identifier: GPL-2.0
/*
 * Requests that take long.
 *
 * An interrupt or a notification of the device can get lost on its way through
 * a host, and what waits for it would do so for ever.  A request that has taken
 * longer than io_timeout has the driver
 *
 *  - look at the ring, whatever interrupts said, and
 *  - notify the device once more, if the answer is not there, and look at its
 *    status,
 *
 * and then wait on: a slow host is not a dead one.  Only if the administrator
 * has asked for it, with reset_after, the device is reset.  As long as a request is
 * overdue a work looks every second whether there still is one, so that the log
 * has one line when the device no longer answers and one when it does again.
 */

#include <linux/bitmap.h>
#include <linux/blk-mq.h>
#include <linux/jiffies.h>
#include <linux/module.h>

#include "trace.h"
#include "virtio_blk.h"

static unsigned int virtblk_io_timeout = 30;
module_param_named(io_timeout, virtblk_io_timeout, uint, 0644);
MODULE_PARM_DESC(io_timeout,
		 "Seconds after which a request is looked after whose completion nobody told of (0: never). Read when a disk is probed; queue/io_timeout is that of one disk, in ms.");

static unsigned int virtblk_reset_after;
module_param_named(reset_after, virtblk_reset_after, uint, 0644);
MODULE_PARM_DESC(reset_after,
		 "Seconds after which a device that does not answer is reset (0: never, for it may be slow and the reset then waits for it)");

/**
 * virtblk_timeout_jiffies() - after how long a request is overdue
 *
 * Return: the time for blk_mq_tag_set, in jiffies.
 */
unsigned int virtblk_timeout_jiffies(void)
{
	/* A year is never; for the block layer 0 would be its own default. */
	unsigned int most = min_t(u64, 365ULL * 24 * 3600 * HZ, INT_MAX) / HZ;
	unsigned int seconds = virtblk_io_timeout;

	return (seconds ? min(seconds, most) : most) * HZ;
}

/**
 * virtblk_ended() - whether somebody has ended a request, maybe in a batch
 * @req: the request
 *
 * Return: true if it is no longer in flight.
 */
bool virtblk_ended(struct request *req)
{
	return blk_mq_rq_state(req) != MQ_RQ_IN_FLIGHT;
}

/**
 * virtblk_timeout() - blk-mq's timeout: a request takes long
 * @req: the request, to which blk-mq holds a reference
 *
 * Context: may sleep.  The virtqueues stay as long as this runs on a live disk.
 *
 * Return: BLK_EH_DONE if it has ended; BLK_EH_RESET_TIMER to be called again.
 */
enum blk_eh_timer_return virtblk_timeout(struct request *req)
{
	struct virtblk_req *vbr = blk_mq_rq_to_pdu(req);
	struct virtblk_queue *q = req->mq_hctx->driver_data;
	struct virtio_blk *vblk = q->vblk;
	struct virtqueue *vq;

	if (virtblk_ended(req))
		return BLK_EH_DONE;
	/* It is being taken back, and the virtqueues are about to go. */
	if (READ_ONCE(vblk->state) != VIRTBLK_LIVE)
		return BLK_EH_RESET_TIMER;

	atomic64_inc(&q->stats.timeouts);
	trace_virtblk_recover(vblk, VIRTBLK_LOOK, 1);
	virtblk_look(q);
	if (virtblk_ended(req)) {
		atomic64_inc(&q->stats.lost_interrupts);
		dev_warn_ratelimited(&vblk->vdev->dev,
				     "[%s] queue %u: a request had ended and no interrupt told of it\n",
				     vblk->disk->disk_name, q->hctx->queue_num);
		return BLK_EH_DONE;
	}

	vq = READ_ONCE(q->vq);
	if (vq) {
		trace_virtblk_recover(vblk, VIRTBLK_NOTIFY, 1);
		virtqueue_notify(vq);
	}
	/* It may be gone, or the word that it needs a reset was lost. */
	queue_work(virtblk_wq, &vblk->recover_work);
	WRITE_ONCE(vbr->overdue, true);
	queue_delayed_work(virtblk_wq, &vblk->watch_work, 0);
	return BLK_EH_RESET_TIMER;
}

struct virtblk_overdue {
	unsigned int requests;
	unsigned long since;
	unsigned long *queues;
};

static bool virtblk_count_overdue(struct request *req, void *data)
{
	struct virtblk_req *vbr = blk_mq_rq_to_pdu(req);
	struct virtblk_overdue *overdue = data;

	if (!READ_ONCE(vbr->overdue) || virtblk_ended(req))
		return true;
	if (!overdue->requests++ || time_before(vbr->sent, overdue->since))
		overdue->since = vbr->sent;
	if (overdue->queues)
		__set_bit(req->mq_hctx->queue_num, overdue->queues);
	return true;
}

/* Whether it is time to reset the device, for the first time or once more. */
static bool virtblk_takes_too_long(struct virtio_blk *vblk, unsigned long since)
{
	unsigned int seconds = min(READ_ONCE(virtblk_reset_after),
				   (unsigned int)INT_MAX / HZ);

	return seconds && time_after_eq(jiffies, since + seconds * HZ) &&
	       !virtblk_reset_within(vblk, (u64)seconds * MSEC_PER_SEC);
}

/* Whether what was taken back when the device was reset may not be sent yet. */
static bool virtblk_just_reset(struct virtio_blk *vblk)
{
	return READ_ONCE(vblk->state) == VIRTBLK_RECOVERING ||
	       virtblk_reset_within(vblk, MSEC_PER_SEC);
}

static void virtblk_tell_overdue(struct virtio_blk *vblk,
				 const struct virtblk_overdue *overdue)
{
	struct device *dev = &vblk->vdev->dev;

	if (overdue->requests && !vblk->stalled)
		dev_warn(dev, "[%s] %u requests on queues %*pbl have had no answer for %lu s; notified the device again, waiting\n",
			 vblk->disk->disk_name, overdue->requests,
			 overdue->queues ? vblk->nr_vqs : 0, overdue->queues,
			 (jiffies - overdue->since) / HZ);
	else if (!overdue->requests && vblk->stalled)
		dev_notice(dev, "[%s] all requests that took long have been answered\n",
			   vblk->disk->disk_name);
	WRITE_ONCE(vblk->stalled, overdue->requests);
}

/**
 * virtblk_watch_work() - look after overdue requests, and tell of them
 * @work: the disk's watch_work
 */
void virtblk_watch_work(struct work_struct *work)
{
	struct virtio_blk *vblk = container_of(to_delayed_work(work),
					       struct virtio_blk, watch_work);
	struct virtblk_overdue overdue = { };

	/* What it did not answer has failed. */
	if (READ_ONCE(vblk->state) == VIRTBLK_DEAD)
		return;
	if (virtblk_just_reset(vblk)) {
		queue_delayed_work(virtblk_wq, &vblk->watch_work, HZ);
		return;
	}

	/* Without memory the queues are not named. */
	overdue.queues = bitmap_zalloc(vblk->nr_vqs, GFP_NOIO);
	blk_mq_tagset_busy_iter(&vblk->tag_set, virtblk_count_overdue, &overdue);
	virtblk_tell_overdue(vblk, &overdue);
	bitmap_free(overdue.queues);

	if (!overdue.requests) {
		vblk->fruitless = 0;
		return;
	}
	if (virtblk_takes_too_long(vblk, overdue.since))
		virtblk_want_reset(vblk, VIRTBLK_RESET_STALLED);
	queue_delayed_work(virtblk_wq, &vblk->watch_work, HZ);
}
