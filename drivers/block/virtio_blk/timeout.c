// SPDX-License-Identifier: GPL-2.0
/*
 * Requests that time out, disks that stall, and removals that must end.
 *
 * An interrupt or a notification can get lost on its way through a host.  So the block
 * layer calls the driver for each request that is in flight for VIRTBLK_RECHECK, and
 * again after each further VIRTBLK_RECHECK.  The driver polls the ring of its queue if an
 * interrupt was lost, and notifies a device that has missed a notification.  Once the
 * request has taken longer than io_timeout it has timed out: the driver logs that, notifies
 * the device in any case, has its status checked, and waits on, because a slow host is not
 * a dead one.  A device that completes any request, on any queue, is alive.  So only the
 * silence of the whole disk ends a wait: the time for which requests were in flight and
 * none completed.  reset_after and removal_timeout count that time, and so do the waits of
 * a probe and of a suspend (pm.c).
 *
 * While a request has timed out, or the disk is being probed or removed, one work checks
 * the disk once a second.  It reads progress from counters that the completion path keeps
 * anyway.
 */

#include <linux/bitmap.h>
#include <linux/blk-mq.h>
#include <linux/delay.h>
#include <linux/jiffies.h>
#include <linux/log2.h>
#include <linux/module.h>
#include <linux/random.h>
#include <linux/sched/mm.h>

#include "ring.h"
#include "trace.h"
#include "virtio_blk.h"

/* An interrupt that is late arrives within this time, in milliseconds. */
#define VIRTBLK_INTERRUPT_MS		100
#define VIRTBLK_INTERRUPT_STEP_MS	10

/* So many lost interrupts of a queue, and none that arrived in between, are no accident. */
#define VIRTBLK_MAX_LOST_IN_A_ROW	8

/* How long after the first line about a stall the next one comes, and the maximum. */
#define VIRTBLK_LOG_INTERVAL		(60UL * HZ)
#define VIRTBLK_MAX_LOG_INTERVAL	(3600UL * HZ)

static unsigned int virtblk_io_timeout = 30;
module_param_named(io_timeout, virtblk_io_timeout, uint, 0644);
MODULE_PARM_DESC(io_timeout,
		 "Seconds after which a request times out: the driver logs it, notifies the device, and waits on (0: never). Read when a disk is probed; queue/io_timeout is that of one disk, in ms.");

static unsigned int virtblk_default_reset_after;
module_param_named(reset_after, virtblk_default_reset_after, uint, 0644);
MODULE_PARM_DESC(reset_after,
		 "Default of recovery/reset_after: seconds without any completion after which the driver resets the device (0: never, because a reset of a slow device waits for it)");

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

/**
 * virtblk_reset_after() - get the silence after which the driver resets a device
 * @vblk: the disk
 *
 * Return: the time without any completion, in seconds; 0: never.
 */
unsigned int virtblk_reset_after(struct virtio_blk *vblk)
{
	return virtblk_setting(&vblk->recovery.reset_after,
			       &virtblk_default_reset_after, VIRTBLK_MAX_SECONDS);
}

/* Timed out */

/* Has the device returned requests that are still on the ring? */
static bool virtblk_has_used(struct virtblk_queue *q)
{
	unsigned long flags;
	bool used = false;

	if (q->own_ring)
		return virtblk_ring_has_used(q);
	spin_lock_irqsave(&q->lock, flags);
	if (q->vq)
		used = virtqueue_poll(q->vq, virtqueue_enable_cb_prepare(q->vq));
	spin_unlock_irqrestore(&q->lock, flags);
	return used;
}

/*
 * Is there a completed request whose interrupt was lost?  One that is only late arrives
 * while this waits.
 */
static bool virtblk_missed_interrupt(struct virtblk_queue *q,
				     struct virtqueue *vq)
{
	u64 polls = virtblk_count_polls(q);
	unsigned int ms;

	/* A polled queue has no interrupt, and the queue's work comes without one. */
	if (!vq->callback || virtqueue_is_broken(vq) || work_busy(&q->work) ||
	    !virtblk_has_used(q))
		return false;
	for (ms = 0; ms < VIRTBLK_INTERRUPT_MS; ms += VIRTBLK_INTERRUPT_STEP_MS) {
		msleep(VIRTBLK_INTERRUPT_STEP_MS);
		/* A reset waits for this handler. */
		if (READ_ONCE(q->vblk->recovery.state) != VIRTBLK_LIVE ||
		    virtblk_count_polls(q) != polls)
			return false;
	}
	return true;
}

/*
 * If the interrupts of a queue do not arrive any more, a reset sets the vectors up again.
 * x86 kernels without "x86/irq: Plug vector setup race" can lose a vector that a reset frees
 * and allocates again: a late interrupt of the old one clears the entry of the new one.  If a
 * reset does not help, another would not either, so the queues that it should have helped
 * wait for an interrupt before they ask for the next.
 */
static void virtblk_reset_for_interrupts(struct virtio_blk *vblk)
{
	unsigned int i;

	for (i = 0; i < vblk->nr_vqs; i++)
		if (vblk->queues[i]->lost_in_a_row)
			vblk->queues[i]->lost_in_a_row = VIRTBLK_MAX_LOST_IN_A_ROW;
	virtblk_request_reset(vblk, VIRTBLK_RESET_NO_INTERRUPT);
}

static void virtblk_note_lost(struct virtblk_queue *q)
{
	struct virtio_blk *vblk = q->vblk;
	u64 interrupts;

	/* An interrupt that arrives now only delays the reset. */
	interrupts = data_race(q->interrupts);
	if (interrupts != q->lost_at) {
		q->lost_at = interrupts;
		q->lost_in_a_row = 0;
	}
	if (++q->lost_in_a_row == VIRTBLK_MAX_LOST_IN_A_ROW)
		virtblk_reset_for_interrupts(vblk);

	atomic64_inc(&q->stats.lost_interrupts);
	if (__ratelimit(&vblk->recovery.lost_log))
		dev_warn(&vblk->vdev->dev, "[%s] queue %u: a request completed without an interrupt\n",
			 vblk->disk->disk_name, q->hctx->queue_num);
}

/*
 * Check the queue of a request that waits, once for all that wait on it, and again for each
 * that has just timed out: the first one that blk-mq finds may be younger.
 */
static void virtblk_recheck(struct virtblk_queue *q, bool timed_out, bool just)
{
	struct virtqueue *vq = READ_ONCE(q->vq);
	bool lost;

	if (!vq || (!just && time_before64(get_jiffies_64(),
					   q->rechecked + VIRTBLK_RECHECK / 2)))
		return;
	lost = virtblk_missed_interrupt(q, vq);
	q->rechecked = get_jiffies_64();
	if (lost)
		virtblk_note_lost(q);
	if (lost || !vq->callback) {
		trace_virtblk_recover(q->vblk, VIRTBLK_STEP_POLL, 1);
		virtblk_poll_ring(q);
	}
	/* Without evidence VIRTIO asks the driver not to notify, so wait for io_timeout. */
	if (timed_out || (q->own_ring && virtblk_ring_lost_kick(q))) {
		trace_virtblk_recover(q->vblk, VIRTBLK_STEP_KICK, 1);
		virtqueue_notify(vq);
	}
}

/*
 * Ask for another call.  The deadlines of all requests that wait are on a grid, so that
 * one run of blk-mq's timeout work serves all of them.
 */
static enum blk_eh_timer_return virtblk_wait_on(struct request *req)
{
	unsigned long now = jiffies;

	req->timeout = ((now + VIRTBLK_RECHECK) |
			(rounddown_pow_of_two(HZ) - 1)) - now;
	return BLK_EH_RESET_TIMER;
}

/**
 * virtblk_timeout() - blk-mq's timeout: a request has been in flight for VIRTBLK_RECHECK
 * @req: the request, to which blk-mq holds a reference
 *
 * Context: may sleep.  The virtqueues stay as long as this runs on a live disk.  It runs
 * for one request of a disk at a time.
 *
 * Return: BLK_EH_DONE if it has completed; BLK_EH_RESET_TIMER to be called again.
 */
enum blk_eh_timer_return virtblk_timeout(struct request *req)
{
	struct virtblk_req *vbr = blk_mq_rq_to_pdu(req);
	struct virtblk_queue *q = req->mq_hctx->driver_data;
	struct virtio_blk *vblk = q->vblk;
	bool timed_out;

	if (virtblk_rq_done(req))
		return BLK_EH_DONE;
	/* A reset requeues it, and is about to delete the virtqueues. */
	if (READ_ONCE(vblk->recovery.state) != VIRTBLK_LIVE)
		return virtblk_wait_on(req);

	timed_out = !vbr->timed_out &&
		    time_after_eq(jiffies, vbr->sent + READ_ONCE(req->q->rq_timeout));
	if (timed_out) {
		atomic64_inc(&q->stats.timeouts);
		WRITE_ONCE(vbr->timed_out, true);
	}
	virtblk_recheck(q, vbr->timed_out, timed_out);
	if (virtblk_rq_done(req))
		return BLK_EH_DONE;

	if (vbr->timed_out) {
		/* The device may be gone, or its interrupt that asks for a reset was lost. */
		queue_work(virtblk_wq, &vblk->recovery.work);
		/* It runs once a second from now on. */
		queue_delayed_work(virtblk_wq, &vblk->recovery.watch, 0);
	}
	return virtblk_wait_on(req);
}

/* Watch */

static void virtblk_log_stall(struct virtio_blk *vblk,
			      const struct virtblk_stall *stall)
{
	dev_warn(&vblk->vdev->dev, "[%s] %u requests on queues %*pbl have timed out, the oldest after %lu s; notified the device again, waiting\n",
		 vblk->disk->disk_name, stall->timed_out,
		 stall->queues ? vblk->nr_vqs : 0, stall->queues,
		 (jiffies - stall->oldest_timed_out) / HZ);
}

/* Log when a stall begins, again whenever it has lasted twice as long, and its end. */
static void virtblk_note_stall(struct virtio_blk *vblk,
			       const struct virtblk_stall *stall)
{
	struct virtblk_recovery *recovery = &vblk->recovery;

	if (stall->timed_out && !recovery->stalled) {
		WRITE_ONCE(recovery->stalls, recovery->stalls + 1);
		recovery->stalled_since = stall->oldest_timed_out;
		recovery->most_timed_out = 0;
		recovery->log_interval = VIRTBLK_LOG_INTERVAL;
		recovery->next_log = jiffies;
	} else if (!stall->timed_out && recovery->stalled) {
		dev_notice(&vblk->vdev->dev, "[%s] all requests that had timed out have completed; the disk was stalled for %lu s, with up to %u of them\n",
			   vblk->disk->disk_name,
			   (jiffies - recovery->stalled_since) / HZ,
			   recovery->most_timed_out);
	}
	recovery->most_timed_out = max(recovery->most_timed_out,
				       stall->timed_out);
	if (stall->timed_out && time_after_eq(jiffies, recovery->next_log)) {
		virtblk_log_stall(vblk, stall);
		recovery->next_log = jiffies + recovery->log_interval;
		recovery->log_interval = min(2 * recovery->log_interval,
					     VIRTBLK_MAX_LOG_INTERVAL);
	}
	if (recovery->stalled == !!stall->timed_out)
		return;
	WRITE_ONCE(recovery->stalled, stall->timed_out);
	virtblk_report_state(vblk);
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

/*
 * The guest was restored from a snapshot.  A notification or an interrupt of the time
 * between may be lost.
 */
static int virtblk_restored(struct notifier_block *vmfork, unsigned long action,
			    void *data)
{
	struct virtblk_recovery *recovery =
		container_of(vmfork, struct virtblk_recovery, vmfork);

	WRITE_ONCE(recovery->poll_all, true);
	mod_delayed_work(virtblk_wq, &recovery->watch, 0);
	return NOTIFY_DONE;
}

/**
 * virtblk_register_vmfork() - have the kernel call the driver when the guest is restored
 * @vblk: the disk
 *
 * The kernel learns of it if the host has a VM generation ID.
 */
void virtblk_register_vmfork(struct virtio_blk *vblk)
{
	vblk->recovery.vmfork.notifier_call = virtblk_restored;
	register_random_vmfork_notifier(&vblk->recovery.vmfork);
}

/**
 * virtblk_unregister_vmfork() - end virtblk_register_vmfork()
 * @vblk: the disk
 */
void virtblk_unregister_vmfork(struct virtio_blk *vblk)
{
	unregister_random_vmfork_notifier(&vblk->recovery.vmfork);
}

/* Check a live disk; return true to be called again.  Needs recovery.lock, and NOIO. */
static bool virtblk_watch(struct virtio_blk *vblk)
{
	struct virtblk_recovery *recovery = &vblk->recovery;
	unsigned long reset = virtblk_reset_after(vblk) * (unsigned long)HZ;
	bool removing = READ_ONCE(recovery->removing);
	struct virtblk_stall stall = { };
	unsigned long silence;

	/* Without memory the log does not name the queues. */
	stall.queues = bitmap_zalloc(vblk->nr_vqs, GFP_KERNEL);
	virtblk_scan_inflight(vblk, &stall);
	virtblk_note_stall(vblk, &stall);
	bitmap_free(stall.queues);

	if (xchg(&recovery->poll_all, false)) {
		dev_info(&vblk->vdev->dev, "[%s] the guest was restored, polling and notifying all queues\n",
			 vblk->disk->disk_name);
		virtblk_poll_and_kick(vblk);
	}
	if (xchg(&recovery->affinity_late, false))
		virtblk_set_affinity(vblk);
	/* The core may refuse to report a reset that begins early in the probe. */
	if (READ_ONCE(recovery->was_reset) || recovery->probing)
		queue_work(virtblk_wq, &recovery->work);
	silence = virtblk_update_silence(vblk, &stall);
	/* What was lost must not fail the disk: look before recovery decides. */
	if ((removing && silence >= HZ) ||
	    (recovery->probing &&
	     silence >= virtblk_probe_timeout(vblk) / 4 * 3)) {
		virtblk_poll_and_kick(vblk);
		/* It checks removal_timeout and the probe's. */
		queue_work(virtblk_wq, &recovery->work);
	}
	if (reset && (stall.timed_out || removing) && silence >= reset)
		virtblk_request_reset(vblk, VIRTBLK_RESET_STALLED);
	return stall.timed_out || removing || recovery->probing ||
	       READ_ONCE(recovery->was_reset);
}

/**
 * virtblk_watch_work() - check a disk that stalls, or is being probed or removed
 * @work: the disk's recovery.watch
 */
void virtblk_watch_work(struct work_struct *work)
{
	struct virtio_blk *vblk = container_of(to_delayed_work(work),
					       struct virtio_blk,
					       recovery.watch);
	struct virtblk_recovery *recovery = &vblk->recovery;
	unsigned int noio = memalloc_noio_save();
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
	memalloc_noio_restore(noio);

	if (again)
		queue_delayed_work(virtblk_wq, &recovery->watch, HZ);
}
