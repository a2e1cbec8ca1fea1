// SPDX-License-Identifier: GPL-2.0
/*
 * The device goes away for a time and is expected to return: suspend,
 * hibernation, a reset of its PCI function (from 6.14 on).
 *
 *	stop	freeze the queue -> wait for what is in flight -> suspended
 *	start	set the virtqueues up again -> live -> unfreeze
 *
 * The queue stays frozen until the device is back, so that no request waits in it:
 * a CPU that goes offline waits for the requests of its hctx, and a suspend takes
 * CPUs offline.  The freeze has no owner for lockdep because another task ends it.
 */

#include <linux/blk-mq.h>
#include <linux/sched/mm.h>
#include <linux/workqueue.h>

#include "virtio_blk.h"

/* How long the virtio core may need between the end of the driver's probe and its scan. */
#define VIRTBLK_HELD_TIME	HZ

/*
 * Wait until nothing is in flight.  recovery.lock is not held: recovery may run
 * meanwhile and get the device to answer.  Nothing but a timeout polls the rings without
 * an interrupt, because the tasks that would may be frozen.
 */
static bool virtblk_drain(struct virtio_blk *vblk)
{
	unsigned long timeout = virtblk_answer_timeout(vblk);
	u64 completed = virtblk_count_completions(vblk), now;
	unsigned long since = jiffies;

	while (!blk_mq_freeze_queue_wait_timeout(vblk->disk->queue, 1)) {
		virtblk_poll_polled(vblk);
		now = virtblk_count_completions(vblk);
		if (now != completed) {
			completed = now;
			since = jiffies;
		}
		/* Also if nothing is in flight, because a request may wait elsewhere. */
		if (time_after_eq(jiffies, since + timeout))
			return false;
	}
	return true;
}

/*
 * Take recovery.lock, as virtblk_lock_recovery(), once the probe is complete or waits for
 * requests; see recovery.held.  Returns whether that was so in time; without the lock if
 * not.
 */
static bool virtblk_lock_unheld(struct virtblk_recovery *recovery,
				unsigned int *noio)
{
	*noio = virtblk_lock_recovery(recovery);
	if (!recovery->held)
		return true;
	virtblk_unlock_recovery(recovery, *noio);
	/* It is set once only. */
	if (!wait_event_timeout(recovery->wait, !READ_ONCE(recovery->held),
				VIRTBLK_HELD_TIME))
		return false;
	*noio = virtblk_lock_recovery(recovery);
	return true;
}

/**
 * virtblk_stop_device() - suspend a disk
 * @vblk: the disk
 * @return_within: the disk is dead unless the device returns within this time, in
 *	jiffies, without the time for which the system is suspended
 * @requeue: requeue requests that the device does not answer, instead of aborting
 *
 * Waits for the requests in flight as long as any request of the disk completes.
 *
 * Context: may sleep.
 *
 * Return: 0; -ETIMEDOUT if the device does not answer and @requeue is false: the
 * disk stays live; -EBUSY if the disk is being probed and has no I/O yet, or no more.
 */
int virtblk_stop_device(struct virtio_blk *vblk, unsigned long return_within,
			bool requeue)
{
	struct virtblk_recovery *recovery = &vblk->recovery;
	struct request_queue *rq_queue;
	unsigned int noio;

	/* The probe is not done yet, or has failed before there was a disk. */
	if (READ_ONCE(recovery->state) == VIRTBLK_NEW || !vblk->disk)
		return -EBUSY;

	rq_queue = vblk->disk->queue;
	blk_freeze_queue_start_non_owner(rq_queue);
	if (!virtblk_drain(vblk) && !requeue) {
		dev_err(&vblk->vdev->dev, "[%s] completed no request for %lu s, cannot suspend\n",
			vblk->disk->disk_name, virtblk_answer_timeout(vblk) / HZ);
		blk_mq_unfreeze_queue_non_owner(rq_queue);
		return -ETIMEDOUT;
	}
	virtblk_delay(vblk);

	if (!virtblk_lock_unheld(recovery, &noio)) {
		blk_mq_unfreeze_queue_non_owner(rq_queue);
		return -EBUSY;
	}
	if (recovery->state == VIRTBLK_LIVE) {
		/* Also waits for submitters that have yet to notify the device. */
		blk_mq_quiesce_queue(rq_queue);
		virtblk_set_state(vblk, VIRTBLK_SUSPENDED);
		virtblk_requeue_inflight(vblk);
		virtblk_del_vqs(vblk);
		/*
		 * The virtio core does not report that a device refuses to return.
		 * This work is frozen during a suspend, and until the image of a
		 * hibernation is written.
		 */
		queue_delayed_work(virtblk_freezable_wq, &recovery->deadline,
				   READ_ONCE(recovery->removing) ? 0 :
								   return_within);
	} else {
		blk_mq_unfreeze_queue_non_owner(rq_queue);
	}
	virtblk_unlock_recovery(recovery, noio);
	return 0;
}

/* Needs recovery.lock; the caller releases it and calls blk_mark_disk_dead(). */
static void virtblk_fail_suspended(struct virtio_blk *vblk)
{
	virtblk_set_state(vblk, VIRTBLK_DEAD);
	virtblk_fail_waiting(vblk);
	blk_mq_unfreeze_queue_non_owner(vblk->disk->queue);
}

/*
 * The virtio core sets FAILED again if the device had that status when it was stopped, in
 * the middle of a recovery.  A device may ignore a driver that has failed.
 */
static int virtblk_clear_failed(struct virtio_device *vdev)
{
	if (!(vdev->config->get_status(vdev) & VIRTIO_CONFIG_S_FAILED))
		return 0;
	virtblk_reset_device(vdev);
	return virtblk_negotiate(vdev);
}

/**
 * virtblk_start_device() - make a disk live after virtblk_stop_device()
 * @vblk: the disk, its device's features negotiated as they were
 *
 * Context: may sleep.
 *
 * Return: 0; -EBUSY if the disk is not suspended, and recovery resets the device; or
 * another error, and the disk is dead.
 */
int virtblk_start_device(struct virtio_blk *vblk)
{
	struct virtblk_recovery *recovery = &vblk->recovery;
	unsigned int noio;
	int err = -ENODEV;
	bool died = false;

	cancel_delayed_work_sync(&recovery->deadline);
	noio = virtblk_lock_recovery(recovery);
	if (recovery->state == VIRTBLK_SUSPENDED) {
		err = virtblk_clear_failed(vblk->vdev) ?: virtblk_restart_vqs(vblk);
		died = err;
		if (died)
			virtblk_fail_suspended(vblk);
		else
			blk_mq_unfreeze_queue_non_owner(vblk->disk->queue);
	} else if (recovery->state != VIRTBLK_DEAD) {
		/*
		 * The virtio core has reset the device of another disk than it has
		 * stopped: the device was unbound and bound again meanwhile.  After an
		 * error the core sets FAILED, and not DRIVER_OK, which the core's probe
		 * may set at the same time.  Recovery waits for FAILED.
		 */
		queue_work(virtblk_wq, &recovery->work);
		err = -EBUSY;
	}
	virtblk_unlock_recovery(recovery, noio);

	if (died) {
		virtblk_log_offline(vblk);
		blk_mark_disk_dead(vblk->disk);
	}
	return err;
}

/**
 * virtblk_abandon_suspended() - declare a suspended disk dead
 * @vblk: the disk; nothing happens if it is not suspended
 *
 * Context: may sleep.
 *
 * Return: true if it was suspended.
 */
bool virtblk_abandon_suspended(struct virtio_blk *vblk)
{
	struct virtblk_recovery *recovery = &vblk->recovery;
	bool suspended;

	mutex_lock(&recovery->lock);
	suspended = recovery->state == VIRTBLK_SUSPENDED;
	if (suspended)
		virtblk_fail_suspended(vblk);
	mutex_unlock(&recovery->lock);

	if (suspended)
		blk_mark_disk_dead(vblk->disk);
	return suspended;
}

/**
 * virtblk_deadline_work() - the device has not returned in time
 * @work: the disk's recovery.deadline
 *
 * virtblk_start_device() cancels it, so the virtio core has given the device up
 * because it offers other features, or none.
 */
void virtblk_deadline_work(struct work_struct *work)
{
	struct virtio_blk *vblk = container_of(to_delayed_work(work),
					       struct virtio_blk,
					       recovery.deadline);

	if (!virtblk_abandon_suspended(vblk))
		return;
	dev_err(&vblk->vdev->dev, "[%s] did not return with the features that it had\n",
		vblk->disk->disk_name);
	virtblk_log_offline(vblk);
}
