// SPDX-License-Identifier: GPL-2.0
/*
 * Requests that time out, disks that stall, and removals that must end.
 *
 * An interrupt or a notification can get lost on its way through a host.  When a
 * request has taken longer than io_timeout the driver
 *
 *  - polls the ring, and
 *  - if the request is still in flight, notifies the device again and has its
 *    status checked,
 *
 * and waits on, because a slow host is not a dead one.  A device that completes any
 * request, on any queue, is alive.  So only the silence of the whole disk ends a wait:
 * the time for which requests were in flight and none completed.  reset_after and
 * removal_timeout count that time, and so does the wait of a suspend (pm.c).
 *
 * While a request has timed out, or the disk is being removed, one work checks the disk
 * once a second.  It reads progress from counters that the completion path keeps anyway.
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
		 "Seconds after which a request times out: the driver polls and notifies the device, and waits on (0: never). Read when a disk is probed; queue/io_timeout is that of one disk, in ms.");

static unsigned int virtblk_reset_after;
module_param_named(reset_after, virtblk_reset_after, uint, 0644);
MODULE_PARM_DESC(reset_after,
		 "Seconds without any completion after which the driver resets the device (0: never, because a reset of a slow device waits for it)");

/**
 * virtblk_timeout_jiffies() - the time after which a request times out
 *
 * Return: the time for blk_mq_tag_set, in jiffies.
 */
unsigned int virtblk_timeout_jiffies(void)
{
	/* 0 means never.  The block layer replaces 0 by its default, so use a year. */
	unsigned int most = min_t(u64, 365ULL * 24 * 3600 * HZ, INT_MAX) / HZ;
	unsigned int seconds = virtblk_io_timeout;

	return (seconds ? min(seconds, most) : most) * HZ;
}

/* Timed out */

/**
 * virtblk_timeout() - blk-mq's timeout: a request has timed out
 * @req: the request, to which blk-mq holds a reference
 *
 * Context: may sleep.  The virtqueues stay as long as this runs on a live disk.
 *
 * Return: BLK_EH_DONE if it has completed; BLK_EH_RESET_TIMER to be called again.
 */
enum blk_eh_timer_return virtblk_timeout(struct request *req)
{
	struct virtblk_req *vbr = blk_mq_rq_to_pdu(req);
	struct virtblk_queue *q = req->mq_hctx->driver_data;
	struct virtio_blk *vblk = q->vblk;
	struct virtqueue *vq;

	if (virtblk_rq_done(req))
		return BLK_EH_DONE;
	/* A reset requeues it, and is about to delete the virtqueues. */
	if (READ_ONCE(vblk->recovery.state) != VIRTBLK_LIVE)
		return BLK_EH_RESET_TIMER;

	atomic64_inc(&q->stats.timeouts);
	trace_virtblk_recover(vblk, VIRTBLK_STEP_POLL, 1);
	virtblk_poll_ring(q);
	if (virtblk_rq_done(req)) {
		atomic64_inc(&q->stats.lost_interrupts);
		dev_warn_ratelimited(&vblk->vdev->dev,
				     "[%s] queue %u: a request completed without an interrupt\n",
				     vblk->disk->disk_name, q->hctx->queue_num);
		return BLK_EH_DONE;
	}

	vq = READ_ONCE(q->vq);
	if (vq) {
		trace_virtblk_recover(vblk, VIRTBLK_STEP_KICK, 1);
		virtqueue_notify(vq);
	}
	/* The device may be gone, or its interrupt that asks for a reset was lost. */
	queue_work(virtblk_wq, &vblk->recovery.work);
	WRITE_ONCE(vbr->timed_out, true);
	queue_delayed_work(virtblk_wq, &vblk->recovery.watch, 0);
	return BLK_EH_RESET_TIMER;
}

/* Watch */

static void virtblk_log_stall(struct virtio_blk *vblk,
			      const struct virtblk_stall *stall)
{
	struct device *dev = &vblk->vdev->dev;

	if (stall->timed_out && !vblk->recovery.stalled)
		dev_warn(dev, "[%s] %u requests on queues %*pbl have timed out after %lu s; notified the device again, waiting\n",
			 vblk->disk->disk_name, stall->timed_out,
			 stall->queues ? vblk->nr_vqs : 0, stall->queues,
			 (jiffies - stall->oldest_timed_out) / HZ);
	else if (!stall->timed_out && vblk->recovery.stalled)
		dev_notice(dev, "[%s] all requests that had timed out have completed\n",
			   vblk->disk->disk_name);
	WRITE_ONCE(vblk->recovery.stalled, stall->timed_out);
}

/* Poll and notify all queues, in case an interrupt or a notification was lost. */
static void virtblk_poll_and_kick(struct virtio_blk *vblk)
{
	unsigned int i;

	for (i = 0; i < vblk->nr_vqs; i++) {
		virtblk_poll_ring(vblk->queues[i]);
		virtqueue_notify(vblk->queues[i]->vq);
	}
}

/* Check a live disk; return true to be called again.  Needs recovery.lock. */
static bool virtblk_watch(struct virtio_blk *vblk)
{
	struct virtblk_recovery *recovery = &vblk->recovery;
	unsigned long reset = virtblk_seconds(&virtblk_reset_after);
	bool removing = READ_ONCE(recovery->removing);
	struct virtblk_stall stall = { };
	unsigned long silence;

	/* Without memory the log does not name the queues. */
	stall.queues = bitmap_zalloc(vblk->nr_vqs, GFP_NOIO);
	virtblk_scan_inflight(vblk, &stall);
	virtblk_log_stall(vblk, &stall);
	bitmap_free(stall.queues);

	silence = virtblk_silence(vblk, &stall);
	if (removing && silence >= HZ) {
		virtblk_poll_and_kick(vblk);
		/* It checks removal_timeout. */
		queue_work(virtblk_wq, &recovery->work);
	}
	if (reset && silence >= reset)
		virtblk_request_reset(vblk, VIRTBLK_RESET_STALLED);
	return stall.timed_out || removing;
}

/**
 * virtblk_watch_work() - check a disk that stalls or is being removed
 * @work: the disk's recovery.watch
 */
void virtblk_watch_work(struct work_struct *work)
{
	struct virtio_blk *vblk = container_of(to_delayed_work(work),
					       struct virtio_blk,
					       recovery.watch);
	struct virtblk_recovery *recovery = &vblk->recovery;
	bool again;

	/* The lock keeps the virtqueues; no code under it waits for a request. */
	mutex_lock(&recovery->lock);
	/* It takes a while until the requests that a reset requeued are sent. */
	if (recovery->state == VIRTBLK_LIVE &&
	    !virtblk_recently_reset(vblk, MSEC_PER_SEC))
		again = virtblk_watch(vblk);
	else
		/* A dead disk has nothing in flight. */
		again = recovery->state != VIRTBLK_DEAD;
	mutex_unlock(&recovery->lock);

	if (again)
		queue_delayed_work(virtblk_wq, &recovery->watch, HZ);
}
