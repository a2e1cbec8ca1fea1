// SPDX-License-Identifier: GPL-2.0
/*
 * The reset of a device that cannot go on; state.c has the states.
 *
 * While requests wait here, other code in the kernel may hold a lock and wait for
 * them: CPU hotplug holds cpus_write_lock and waits for the requests of an hctx,
 * queue_limits_commit_update_frozen() holds limits_lock, an elevator switch holds
 * its own.  So from the moment a queue is quiesced nothing here takes such a lock,
 * allocates memory without NOIO, waits for a freeze, or waits for the device
 * without a bound, except for its reset.  What the virtio core and the transport do
 * follows the same rule as far as the driver can choose: virtblk_find_vqs() never
 * leaves it to the PCI core to count CPUs under cpus_read_lock.
 *
 * A request that was in flight is sent again after a reset: the device may execute
 * it twice.  A zone append fails, because only the device knows where its data
 * went.  A write to a sequential zone is first compared with the zone's write
 * pointer.
 */

#include <linux/blk-mq.h>
#include <linux/delay.h>
#include <linux/module.h>
#include <linux/sched/mm.h>
#include <linux/workqueue.h>

#include "trace.h"
#include "virtio_blk.h"
#include "zoned.h"

/* The minimum time between two resets. */
#define VIRTBLK_RESET_PAUSE_MS	500

/* How long a return tries again if memory is short, and how often. */
#define VIRTBLK_MEMORY_TIME	(5 * HZ)
#define VIRTBLK_MEMORY_PAUSE_MS	100

/* How long a device must read as gone before the driver gives it up. */
#define VIRTBLK_GONE_MS		2000
#define VIRTBLK_GONE_POLL_MS	100

static unsigned int virtblk_default_reset_attempts = 3;
module_param_named(reset_attempts, virtblk_default_reset_attempts, uint, 0644);
MODULE_PARM_DESC(reset_attempts,
		 "Default of recovery/reset_attempts: resets of a device that does not return or does not answer, before all its I/O fails; also how often a request is sent again before it fails");

/* The device */

/**
 * virtblk_recently_reset() - did the device return from a reset recently?
 * @vblk: the disk
 * @ms: how long ago that may be, in milliseconds
 *
 * Return: true if it did.
 */
bool virtblk_recently_reset(struct virtio_blk *vblk, u64 ms)
{
	return ktime_before(ktime_get(),
			    ktime_add_ms(READ_ONCE(vblk->recovery.last_reset),
					 ms));
}

/* Has virtio_ring broken a virtqueue, or the whole device? */
static bool virtblk_is_broken(struct virtio_blk *vblk)
{
	struct virtqueue *vq;

	virtio_device_for_each_vq(vblk->vdev, vq)
		if (vq->index < vblk->nr_vqs && virtqueue_is_broken(vq))
			return true;
	return false;
}

/*
 * Does the device stay gone?  A reset of the PCI function disables access for a while
 * as well, and before 6.14 the virtio core does not report it.  A removal does not wait
 * for that.
 */
static bool virtblk_stays_gone(struct virtio_blk *vblk)
{
	unsigned int ms;

	for (ms = 0; virtblk_is_gone(vblk->vdev); ms += VIRTBLK_GONE_POLL_MS) {
		if (ms >= VIRTBLK_GONE_MS ||
		    READ_ONCE(vblk->recovery.removing))
			return true;
		msleep(VIRTBLK_GONE_POLL_MS);
	}
	return false;
}

/* Requests in flight */

/**
 * virtblk_reset_attempts() - get the limit for resets of a device that does not return
 * @vblk: the disk
 *
 * Return: the limit, also for how often the driver sends a request again.
 */
unsigned int virtblk_reset_attempts(struct virtio_blk *vblk)
{
	return max(1U, virtblk_setting(&vblk->recovery.reset_attempts,
				       &virtblk_default_reset_attempts,
				       VIRTBLK_MAX_ATTEMPTS));
}

static bool virtblk_may_resend(struct virtio_blk *vblk, struct request *req)
{
	struct virtblk_req *vbr = blk_mq_rq_to_pdu(req);

	if (vblk->recovery.state == VIRTBLK_DEAD ||
	    req_op(req) == REQ_OP_ZONE_APPEND)
		return false;
	/* Bound the retries: this request may be what breaks the device. */
	return vbr->resent < virtblk_reset_attempts(vblk);
}

/*
 * Free virtio_ring's resources of one request.  Called exactly once for each request in
 * flight: virtqueue_detach_unused_buf() panics when it finds no buffer and the free
 * descriptors do not add up, and a hostile device can change their number by a flag in
 * a chain of direct descriptors.
 */
static bool virtblk_detach_one(struct request *req, void *data)
{
	struct virtblk_queue *q = req->mq_hctx->driver_data;
	unsigned long flags;

	if (virtblk_rq_done(req))
		return true;
	spin_lock_irqsave(&q->lock, flags);
	if (q->vq && q->vq->num_free != q->ring_size)
		virtqueue_detach_unused_buf(q->vq);
	spin_unlock_irqrestore(&q->lock, flags);
	return true;
}

/* What virtblk_requeue_one() needs. */
struct virtblk_requeue {
	struct virtio_blk *vblk;
	struct list_head failed;
};

static bool virtblk_requeue_one(struct request *req, void *data)
{
	struct virtblk_req *vbr = blk_mq_rq_to_pdu(req);
	struct virtblk_requeue *requeue = data;
	struct virtio_blk *vblk = requeue->vblk;

	/* The task that took it off the ring completes it. */
	if (virtblk_rq_done(req))
		return true;

	virtblk_unmap_data(vbr, req);
	if (virtblk_may_resend(vblk, req)) {
		struct virtblk_queue *q = req->mq_hctx->driver_data;

		vbr->resent++;
		atomic64_inc(&q->stats.resent);
		vblk->recovery.requeued++;
		if (virtblk_is_zone_write(req))
			list_add_tail(&req->queuelist,
				      &vblk->recovery.zone_writes);
		else
			blk_mq_requeue_request(req, false);
	} else {
		list_add_tail(&req->queuelist, &requeue->failed);
	}
	return true;
}

static void virtblk_fail_requests(struct list_head *failed)
{
	struct request *req, *next;

	list_for_each_entry_safe(req, next, failed, queuelist) {
		list_del_init(&req->queuelist);
		virtblk_end_request(req, BLK_STS_IOERR);
	}
}

/**
 * virtblk_requeue_inflight() - reset the device and requeue what is in flight
 * @vblk: the disk, its queue quiesced, its state no longer live, its
 *	recovery.lock held
 *
 * The device writes to no memory from then on.  Completes the requests that it has
 * returned, and requeues or fails the others.  No queue has a virtqueue afterwards, and
 * the caller deletes the virtqueues by virtblk_del_vqs().
 *
 * Context: may sleep.
 */
void virtblk_requeue_inflight(struct virtio_blk *vblk)
{
	struct virtblk_requeue requeue = { .vblk = vblk };
	struct virtio_device *vdev = vblk->vdev;
	unsigned int i;

	/* A handler that read ->state before it changed may still poll the rings. */
	virtblk_sync_timeouts(vblk->disk->queue);

	virtblk_delay(vblk);
	/* A device that only reads as gone, during a reset of its function, needs its reset. */
	if (vblk->recovery.state != VIRTBLK_DEAD)
		virtblk_stays_gone(vblk);
	virtblk_reset_device(vdev);
	for (i = 0; i < vblk->nr_vqs; i++)
		virtblk_poll_ring(vblk->queues[i]);
	blk_mq_tagset_busy_iter(&vblk->tag_set, virtblk_detach_one, NULL);
	virtblk_unbind_vqs(vblk);
	virtio_synchronize_cbs(vdev);
	/* Not earlier: a callback may queue it. */
	virtblk_cancel_queue_works(vblk);

	virtblk_delay(vblk);
	vblk->recovery.requeued = 0;
	INIT_LIST_HEAD(&requeue.failed);
	blk_mq_tagset_busy_iter(&vblk->tag_set, virtblk_requeue_one, &requeue);
	/* Not before: the block layer forgets the error of a flush that is being iterated. */
	virtblk_fail_requests(&requeue.failed);
}

/* Return */

/* The virtqueues are set up; does the device offer what it offered at probe? */
static int virtblk_check_return(struct virtio_blk *vblk)
{
	struct virtio_device *vdev = vblk->vdev;
	struct virtblk_raw_config raw;
	struct virtblk_config config;
	const char *shrunk;
	int err;

	virtblk_read_config(vdev, virtblk_max_chain(vblk), &raw);
	err = virtblk_check_config(&vdev->dev, &raw, &config);
	if (err)
		return err;
	vblk->reported_capacity = raw.capacity;

	/* During a reset a disk may shrink, as it may while it is live. */
	if (vblk->recovery.state == VIRTBLK_SUSPENDED &&
	    config.capacity < get_capacity(vblk->disk)) {
		dev_err(&vdev->dev, "[%s] capacity shrank from %llu to %llu sectors while suspended\n",
			vblk->disk->disk_name, get_capacity(vblk->disk),
			config.capacity);
		return -EINVAL;
	}
	shrunk = virtblk_config_shrunk(&vblk->config, &config);
	if (shrunk) {
		dev_err(&vdev->dev, "[%s] came back with another %s\n",
			vblk->disk->disk_name, shrunk);
		return -EINVAL;
	}
	/* Waiting requests are built again, and follow this flag. */
	vblk->config.write_zeroes_may_unmap = config.write_zeroes_may_unmap;
	return 0;
}

/*
 * Ask for vectors as at probe.  The kernel spreads managed vectors over the CPUs that
 * are online now, so with a CPU offline they may not match the queue map.
 */
static int virtblk_find_matching_vqs(struct virtio_blk *vblk)
{
	unsigned int nr_vqs = virtblk_device_queues(vblk->vdev);
	int err;

	if (nr_vqs < vblk->nr_vqs) {
		dev_err(&vblk->vdev->dev, "[%s] came back with %u queues and %u are in use\n",
			vblk->disk->disk_name, nr_vqs, vblk->nr_vqs);
		return -ENOENT;
	}
	err = virtblk_find_vqs(vblk, true);
	if (err || virtblk_vectors_match(vblk))
		return err;
	return virtblk_find_vqs_unmanaged(vblk);
}

/*
 * If memory is short virtio_ring makes rings smaller, and virtio_pci has virtqueues share
 * a vector.  So unless it is the @last try, either means -ENOMEM.
 */
static int virtblk_find_vqs_again(struct virtio_blk *vblk, bool last)
{
	unsigned int was = vblk->ring_size;
	int err = virtblk_find_matching_vqs(vblk);
	bool shared;

	if (err) {
		/* An attempt before may have had smaller rings. */
		vblk->ring_size = was;
		return err;
	}
	shared = vblk->own_vectors && !virtblk_has_own_vectors(vblk);
	if (vblk->ring_size >= was && !shared)
		return 0;
	if (!last) {
		vblk->ring_size = was;
		return -ENOMEM;
	}
	dev_warn_ratelimited(&vblk->vdev->dev, "[%s] came back with less than it had: rings of %u entries, before %u; %s\n",
			     vblk->disk->disk_name, vblk->ring_size, was,
			     shared ? "its virtqueues share a vector" :
				      "as many vectors");
	return 0;
}

static int virtblk_try_restart(struct virtio_blk *vblk, bool last)
{
	struct virtio_device *vdev = vblk->vdev;
	struct request_queue *rq_queue = vblk->disk->queue;
	int err;

	err = virtblk_find_vqs_again(vblk, last) ?: virtblk_check_return(vblk);
	if (err)
		goto out_del_vqs;

	virtblk_delay(vblk);
	err = virtblk_set_ready(vdev) ?: virtblk_restore_writeback(vblk);
	if (err)
		goto out_del_vqs;
	/* No queue has its virtqueue yet: nothing else is on the ring. */
	err = virtblk_settle_zone_writes(vblk);
	if (err)
		goto out_del_vqs;
	virtblk_bind_vqs(vblk);
	WRITE_ONCE(vblk->recovery.last_reset, ktime_get());
	WRITE_ONCE(vblk->recovery.was_reset, false);
	/* Drop requests for a reset that arrived meanwhile: this reset serves them. */
	WRITE_ONCE(vblk->recovery.wanted, VIRTBLK_RESET_NONE);
	vblk->recovery.progress = jiffies;
	virtblk_set_state(vblk, VIRTBLK_LIVE);

	virtblk_delay(vblk);
	blk_mq_unquiesce_queue(rq_queue);
	blk_mq_kick_requeue_list(rq_queue);
	/* The configuration may have changed while no interrupt reported it. */
	if (!READ_ONCE(vblk->recovery.removing))
		virtblk_schedule_config_work(vblk);
	return 0;

out_del_vqs:
	virtblk_reset_device(vdev);
	virtblk_del_vqs(vblk);
	return err;
}

/**
 * virtblk_restart_vqs() - set up a device that was reset and has its features
 * @vblk: the disk, suspended or resetting, its queue quiesced, its recovery.lock
 *	held
 *
 * Allocates about as much memory as virtblk_del_vqs() has freed, and may use the
 * reserves: if this disk holds swap, all other memory may wait for the requests that
 * are held back.  Without reclaim the rings, which are contiguous, may still find no
 * memory at first.  Then this tries again, while the kernel compacts memory.
 *
 * Context: may sleep.
 *
 * Return: 0, and the disk is live and its queue runs; or an error, and the device
 * is reset again and has no virtqueues.
 */
int virtblk_restart_vqs(struct virtio_blk *vblk)
{
	unsigned long end = jiffies + VIRTBLK_MEMORY_TIME;
	unsigned int noreclaim;
	bool last;
	int err;

	do {
		last = time_after_eq(jiffies, end) ||
		       READ_ONCE(vblk->recovery.removing);
		noreclaim = memalloc_noreclaim_save();
		err = virtblk_try_restart(vblk, last);
		memalloc_noreclaim_restore(noreclaim);
		if (err != -ENOMEM || last)
			return err;
		msleep(VIRTBLK_MEMORY_PAUSE_MS);
		err = virtblk_negotiate(vblk->vdev);
	} while (!err);
	virtblk_reset_device(vblk->vdev);
	return err;
}

/* Dead */

/**
 * virtblk_fail_waiting() - fail the requests that wait for a disk that is dead
 * @vblk: the disk, dead, its queues without virtqueues, its queue quiesced, its
 *	recovery.lock held
 *
 * The caller calls blk_mark_disk_dead() once it has released the lock: that calls
 * into the disk's users, who may wait for I/O.
 */
void virtblk_fail_waiting(struct virtio_blk *vblk)
{
	trace_virtblk_recover(vblk, VIRTBLK_STEP_DEAD, 0);
	virtblk_fail_requests(&vblk->recovery.zone_writes);
	blk_mq_unquiesce_queue(vblk->disk->queue);
	blk_mq_kick_requeue_list(vblk->disk->queue);
}

/**
 * virtblk_log_offline() - log that a disk is dead, and what to do
 * @vblk: the disk
 */
void virtblk_log_offline(struct virtio_blk *vblk)
{
	dev_err(&vblk->vdev->dev, "[%s] is offline, its I/O fails from now on; remove the device and add it again\n",
		vblk->disk->disk_name);
}

/* Recovery */

static int virtblk_reset_once(struct virtio_blk *vblk)
{
	struct virtio_device *vdev = vblk->vdev;
	u64 offered[VIRTIO_FEATURES_U64S];
	u64 lost;
	int err;

	virtblk_reset_device(vdev);
	virtio_get_features(vdev, offered);
	lost = vdev->features & ~offered[0];
	if (lost) {
		dev_err(&vdev->dev, "[%s] came back without features %#llx\n",
			vblk->disk->disk_name, lost);
		return -EINVAL;
	}
	err = virtblk_negotiate(vdev);
	return err ?: virtblk_restart_vqs(vblk);
}

/* The reason to declare the disk dead although its device is there, or NULL. */
static const char *virtblk_why_dead(struct virtio_blk *vblk)
{
	if (virtblk_is_broken(vblk))
		return "is broken";
	if (virtblk_removal_timed_out(vblk))
		return "completed no request for removal_timeout while it is being removed";
	if (virtblk_probe_timed_out(vblk))
		return "completed no request for five times its timeout while it is being probed";
	return NULL;
}

/*
 * Return true if the virtio core may still be setting the device up again, after a reset of
 * its PCI function; the watch then runs recovery again.  The core does that without a lock
 * that the probe or recovery takes, and calls virtblk_start_device() at its end, which waits
 * for recovery.lock.  A reset meanwhile could wait for a status of 0 without end, because
 * the core sets other bits.  The core ends with FAILED if it finds a disk that it did not
 * stop; before 6.14 it does nothing at all.
 */
static bool virtblk_leave_to_core(struct virtio_blk *vblk)
{
	struct virtblk_recovery *recovery = &vblk->recovery;
	u8 status = vblk->vdev->config->get_status(vblk->vdev);

	if (!virtblk_was_reset(vblk->vdev) || status & VIRTIO_CONFIG_S_FAILED) {
		WRITE_ONCE(recovery->was_reset, false);
		return false;
	}
	if (!recovery->was_reset)
		recovery->was_reset_since = jiffies;
	WRITE_ONCE(recovery->was_reset, true);
	if (time_after_eq(jiffies, recovery->was_reset_since + VIRTBLK_SET_UP_TIME))
		return false;
	/* The watch of a disk that is being removed runs already. */
	if (!READ_ONCE(recovery->removing))
		mod_delayed_work(virtblk_wq, &recovery->watch, HZ / 10);
	return true;
}

/* The reason to reset the device, or NULL. */
static const char *virtblk_why_reset(struct virtio_blk *vblk,
				     enum virtblk_reset wanted)
{
	if (virtblk_needs_reset(vblk->vdev))
		return "asks to be reset";
	if (virtblk_was_reset(vblk->vdev))
		return "was reset by somebody else, setting it up again";
	if (wanted == VIRTBLK_RESET_STALLED)
		return "completed no request for reset_after, resetting it";
	if (wanted == VIRTBLK_RESET_NO_INTERRUPT)
		return "gets no interrupts, resetting it";
	return wanted ? "is being reset, as the administrator asked" : NULL;
}

static void virtblk_declare_dead(struct virtio_blk *vblk, const char *why)
{
	dev_err(&vblk->vdev->dev, "[%s] %s, its I/O fails from now on\n",
		vblk->disk->disk_name, why);
	blk_mq_quiesce_queue(vblk->disk->queue);
	virtblk_set_state(vblk, VIRTBLK_DEAD);
	virtblk_requeue_inflight(vblk);
	/*
	 * First, because the kernel waits for readers of an interrupt's files in /proc
	 * before it frees the interrupt, and such a reader may wait for the disk.
	 */
	virtblk_fail_waiting(vblk);
	virtblk_del_vqs(vblk);
}

/*
 * Count a reset of a stalled disk.  Returns true if there were too many since a request last
 * completed.
 */
static bool virtblk_count_fruitless(struct virtio_blk *vblk)
{
	struct virtblk_recovery *recovery = &vblk->recovery;
	u64 completed = virtblk_count_completions(vblk);

	if (completed != recovery->completed_at_reset)
		recovery->fruitless = 0;
	recovery->completed_at_reset = completed;
	return recovery->fruitless++ >= virtblk_reset_attempts(vblk);
}

static int virtblk_reset_and_resend(struct virtio_blk *vblk, bool stalled)
{
	unsigned int attempts = virtblk_reset_attempts(vblk);
	int err = -ETIMEDOUT;

	/* A device that always asks for a reset must not keep a CPU busy. */
	if (virtblk_recently_reset(vblk, VIRTBLK_RESET_PAUSE_MS))
		msleep(VIRTBLK_RESET_PAUSE_MS);

	blk_mq_quiesce_queue(vblk->disk->queue);
	virtblk_set_state(vblk, VIRTBLK_RESETTING);
	virtblk_requeue_inflight(vblk);
	virtblk_del_vqs(vblk);
	trace_virtblk_recover(vblk, VIRTBLK_STEP_RESET, vblk->recovery.requeued);

	if (stalled && virtblk_count_fruitless(vblk))
		attempts = 0;
	while (attempts-- && !virtblk_stays_gone(vblk)) {
		err = virtblk_reset_once(vblk);
		if (!err || !attempts)
			break;
		/* A backend that reconnects needs a moment. */
		msleep(VIRTBLK_RESET_PAUSE_MS);
	}
	return err;
}

/* Returns true if the disk has died, for blk_mark_disk_dead(). */
static bool virtblk_recover(struct virtio_blk *vblk, enum virtblk_reset wanted)
{
	struct virtblk_recovery *recovery = &vblk->recovery;
	struct device *dev = &vblk->vdev->dev;
	bool gone = virtblk_stays_gone(vblk);
	const char *why;

	/* Also before the disk dies, because that resets the device as well. */
	if (!gone && virtblk_leave_to_core(vblk)) {
		cmpxchg(&recovery->wanted, VIRTBLK_RESET_NONE, wanted);
		return false;
	}
	why = gone ? "is gone" : virtblk_why_dead(vblk);
	if (why) {
		virtblk_declare_dead(vblk, why);
		return true;
	}
	why = virtblk_why_reset(vblk, wanted);
	if (!why)
		return false;

	dev_warn_ratelimited(dev, "[%s] %s\n", vblk->disk->disk_name, why);
	if (virtblk_reset_and_resend(vblk, wanted == VIRTBLK_RESET_STALLED)) {
		virtblk_set_state(vblk, VIRTBLK_DEAD);
		virtblk_fail_waiting(vblk);
		virtblk_log_offline(vblk);
		return true;
	}
	atomic_long_inc(&recovery->resets);
	trace_virtblk_recover(vblk, VIRTBLK_STEP_RESEND, recovery->requeued);
	dev_notice_ratelimited(dev, "[%s] was reset, %u requests were sent again\n",
			       vblk->disk->disk_name, recovery->requeued);
	return false;
}

/* The virtio core breaks all devices when the system goes down. */
static bool virtblk_system_shuts_down(void)
{
	return system_state >= SYSTEM_HALT && system_state <= SYSTEM_RESTART;
}

/**
 * virtblk_recovery_work() - reset the device or declare the disk dead, if necessary
 * @work: the disk's recovery.work
 *
 * VIRTIO 1.4, 2.1.1 and 2.1.2: a device in an error state sets DEVICE_NEEDS_RESET, and
 * the driver must not assume anything about requests in flight.
 */
void virtblk_recovery_work(struct work_struct *work)
{
	struct virtio_blk *vblk = container_of(work, struct virtio_blk,
					       recovery.work);
	struct virtblk_recovery *recovery = &vblk->recovery;
	unsigned int noio = virtblk_lock_recovery(recovery);
	enum virtblk_reset wanted;
	bool died = false;

	if (recovery->state == VIRTBLK_LIVE && !recovery->held &&
	    !virtblk_system_shuts_down()) {
		wanted = xchg(&recovery->wanted, VIRTBLK_RESET_NONE);
		/* The device may have answered while this waited for the lock. */
		if (wanted == VIRTBLK_RESET_STALLED &&
		    virtblk_count_completions(vblk) != recovery->completed)
			wanted = VIRTBLK_RESET_NONE;
		died = virtblk_recover(vblk, wanted);
	}
	virtblk_unlock_recovery(recovery, noio);

	if (died)
		blk_mark_disk_dead(vblk->disk);
}

/**
 * virtblk_release_recovery() - end what recovery.held blocks, because the probe is complete
 * @vblk: the disk
 *
 * Context: may sleep.
 */
void virtblk_release_recovery(struct virtio_blk *vblk)
{
	struct virtblk_recovery *recovery = &vblk->recovery;

	mutex_lock(&recovery->lock);
	WRITE_ONCE(recovery->held, false);
	mutex_unlock(&recovery->lock);
	wake_up_all(&recovery->wait);
	queue_work(virtblk_wq, &recovery->work);
}

/**
 * virtblk_request_reset() - have recovery reset a device that does not ask for it
 * @vblk: the disk
 * @why: the reason; only the administrator's request replaces another, because recovery
 *	drops a stall that has ended
 *
 * Context: any.
 */
void virtblk_request_reset(struct virtio_blk *vblk, enum virtblk_reset why)
{
	if (why == VIRTBLK_RESET_REQUESTED)
		WRITE_ONCE(vblk->recovery.wanted, why);
	else
		cmpxchg(&vblk->recovery.wanted, VIRTBLK_RESET_NONE, why);
	queue_work(virtblk_wq, &vblk->recovery.work);
}

/**
 * virtblk_reset_now() - reset the device and wait until it is back
 * @vblk: the disk
 *
 * Context: may sleep.
 *
 * Return: 0; -ENODEV if the disk is not live before or after; -EBUSY if the reset follows,
 * because the probe is not complete, or the virtio core may be setting the device up.
 */
int virtblk_reset_now(struct virtio_blk *vblk)
{
	virtblk_request_reset(vblk, VIRTBLK_RESET_REQUESTED);
	flush_work(&vblk->recovery.work);
	if (READ_ONCE(vblk->recovery.state) != VIRTBLK_LIVE)
		return -ENODEV;
	if (READ_ONCE(vblk->recovery.held) || READ_ONCE(vblk->recovery.was_reset))
		return -EBUSY;
	return 0;
}
