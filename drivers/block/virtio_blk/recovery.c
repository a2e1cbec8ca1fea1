// SPDX-License-Identifier: GPL-2.0
/*
 * The device goes away and comes back: suspend, hibernation, a reset of the
 * transport; or it has to be reset to go on.
 *
 *	             virtblk_stop_device()
 *	   .----------------------------------> away
 *	   |     virtblk_restart_device()        |  |
 *	   |  .----------------------------------'  | not back, or with less than
 *	   |  v                                     | requests rely on
 *	   live                                     v
 *	   ^  |  virtblk_recover_work()            dead
 *	   |  '-----------------> recovering        ^
 *	   '---------------------------'  '---------|
 *	      '-------------------------------------'
 *	        gone, broken, or no answer to the last requests of a removal
 *
 * While it is away or recovering there are no virtqueues, and requests wait in
 * a quiesced queue.  Before it goes away the device answers what is in flight.
 * What is in flight when it has to be reset is sent once more: it can do that
 * to any of it a second time, but for a zone append, which fails.  A dead disk
 * fails all requests, and stays so until it is removed.  What is said of stalled
 * and removing disks in sysfs are live ones, the device being there.
 */

#include <linux/blk-mq.h>
#include <linux/delay.h>
#include <linux/module.h>
#include <linux/sched/mm.h>
#include <linux/workqueue.h>

#include "trace.h"
#include "virtio_blk.h"

/**
 * virtblk_stop_device() - let go of the device's virtqueues
 * @vblk: the disk
 * @timeout: the disk goes offline if the device is not back by then, in jiffies
 *	of the time in which the system is not suspended
 *
 * Waits for what is in flight.  What comes after that waits in a quiesced
 * queue, which unlike a frozen one holds up nobody who only wants to change a
 * setting.
 *
 * Context: may sleep.
 */
void virtblk_stop_device(struct virtio_blk *vblk, unsigned long timeout)
{
	struct request_queue *rq_queue = vblk->disk->queue;

	/* First: it asks for zones, which a quiesced queue would hold up. */
	cancel_delayed_work_sync(&vblk->config_work);
	virtblk_cancel_remap(vblk);

	/*
	 * No interrupt tells of what is polled for, and the tasks that poll
	 * may be frozen.  What the device does not answer because it has to be
	 * reset recover_work sends again.
	 */
	blk_freeze_queue_start(rq_queue);
	while (!blk_mq_freeze_queue_wait_timeout(rq_queue, 1))
		virtblk_poll_all(vblk);

	/*
	 * Who holds the lock does not wait for the queue.  lockdep, to which
	 * all devices' interrupts are one, would not believe that.
	 */
	while (!mutex_trylock(&vblk->state_lock))
		fsleep(1000);
	if (vblk->state != VIRTBLK_LIVE) {
		blk_mq_unfreeze_queue_nomemrestore(rq_queue);
		goto out_unlock;
	}
	/* It also waits for submitters that have yet to kick. */
	blk_mq_quiesce_queue(rq_queue);
	blk_mq_unfreeze_queue_nomemrestore(rq_queue);

	virtblk_reset_device(vblk->vdev);
	virtblk_unbind_vqs(vblk);
	virtio_synchronize_cbs(vblk->vdev);
	virtblk_del_vqs(vblk);
	WRITE_ONCE(vblk->state, VIRTBLK_AWAY);
	/*
	 * The virtio core does not tell if the device refuses to come back.
	 * This work is frozen until a suspend is over, or a hibernation's image
	 * is written.
	 */
	queue_delayed_work(system_freezable_wq, &vblk->return_work, timeout);
out_unlock:
	mutex_unlock(&vblk->state_lock);
}

/* The device's virtqueues are there; is it the device that it was? */
static int virtblk_check_return(struct virtio_blk *vblk)
{
	struct virtio_device *vdev = vblk->vdev;
	struct virtblk_raw_config raw;
	struct virtblk_config config;
	const char *shrunk;
	int err;

	if (virtblk_read_capacity(vdev) < get_capacity(vblk->disk)) {
		dev_err(&vdev->dev, "[%s] came back with less than its %llu sectors\n",
			vblk->disk->disk_name, get_capacity(vblk->disk));
		return -EINVAL;
	}
	virtblk_read_config(vdev, virtblk_longest_chain(vblk), &raw);
	err = virtblk_check_config(&vdev->dev, &raw, &config);
	if (err)
		return err;

	shrunk = virtblk_config_shrunk(&vblk->config, &config);
	if (shrunk) {
		dev_err(&vdev->dev, "[%s] came back with another %s\n",
			vblk->disk->disk_name, shrunk);
		return -EINVAL;
	}
	return 0;
}

static int virtblk_find_vqs_again(struct virtio_blk *vblk)
{
	unsigned int nr_vqs = virtblk_device_queues(vblk->vdev);
	unsigned int noio;
	int err;

	/* A queue that is not there is not to be used; more are left alone. */
	if (nr_vqs < vblk->nr_vqs) {
		dev_err(&vblk->vdev->dev, "[%s] came back with %u queues and has to have %u\n",
			vblk->disk->disk_name, nr_vqs, vblk->nr_vqs);
		return -ENOENT;
	}
	/* Memory is not to be had by writing to this disk. */
	noio = memalloc_noio_save();
	err = virtblk_find_vqs(vblk);
	memalloc_noio_restore(noio);
	return err;
}

/* Fail what waits and what is to come, instead of letting it wait for ever. */
static void virtblk_end_disk(struct virtio_blk *vblk)
{
	vblk->state = VIRTBLK_DEAD;
	trace_virtblk_recover(vblk, VIRTBLK_GIVE_UP, 0);
	/* First: who is told that the disk is dead may wait for its I/O. */
	blk_mq_unquiesce_queue(vblk->disk->queue);
	blk_mq_kick_requeue_list(vblk->disk->queue);
	blk_mark_disk_dead(vblk->disk);
}

static void virtblk_take_offline(struct virtio_blk *vblk)
{
	dev_err(&vblk->vdev->dev, "[%s] is offline, its I/O fails from now on; remove the device and add it again\n",
		vblk->disk->disk_name);
	virtblk_end_disk(vblk);
}

/* Take up work again with a device that was reset and has its features. */
static int virtblk_bring_back(struct virtio_blk *vblk)
{
	struct request_queue *rq_queue = vblk->disk->queue;
	int err;

	err = virtblk_find_vqs_again(vblk);
	if (err)
		return err;
	err = virtblk_check_return(vblk);
	if (err) {
		virtblk_reset_device(vblk->vdev);
		virtblk_del_vqs(vblk);
		return err;
	}

	virtblk_bind_vqs(vblk);
	virtio_device_ready(vblk->vdev);
	virtblk_restore_writeback(vblk);
	WRITE_ONCE(vblk->last_reset, ktime_get());
	WRITE_ONCE(vblk->state, VIRTBLK_LIVE);

	blk_mq_unquiesce_queue(rq_queue);
	blk_mq_kick_requeue_list(rq_queue);
	if (!READ_ONCE(vblk->removing)) {
		virtblk_remap(vblk);
		/* What it says may have changed while nobody listened. */
		virtblk_follow_config(vblk);
	}
	return 0;
}

/**
 * virtblk_restart_device() - take up work again after virtblk_stop_device()
 * @vblk: the disk, its device's features negotiated as they were
 *
 * Context: may sleep.
 *
 * Return: 0; or an error, and the disk is dead.
 */
int virtblk_restart_device(struct virtio_blk *vblk)
{
	int err = -ENODEV;

	cancel_delayed_work_sync(&vblk->return_work);
	mutex_lock(&vblk->state_lock);
	/* Dead it stays. */
	if (vblk->state == VIRTBLK_AWAY) {
		err = virtblk_bring_back(vblk);
		if (err)
			virtblk_take_offline(vblk);
	}
	mutex_unlock(&vblk->state_lock);
	return err;
}

/**
 * virtblk_return_work() - the device should be back by now
 * @work: the disk's return_work
 *
 * virtblk_restart_device() cancels it, so the virtio core has given the device
 * up: it offers other features, or none.
 */
void virtblk_return_work(struct work_struct *work)
{
	struct virtio_blk *vblk = container_of(to_delayed_work(work),
					       struct virtio_blk, return_work);

	dev_err(&vblk->vdev->dev, "[%s] did not come back with the features that it had\n",
		vblk->disk->disk_name);
	mutex_lock(&vblk->state_lock);
	virtblk_take_offline(vblk);
	mutex_unlock(&vblk->state_lock);
}

/* Recovery */

/* The least time between two resets. */
#define VIRTBLK_RESET_PAUSE_MS	500

/* How long a request may take while the disk is being removed. */
#define VIRTBLK_LAST_PATIENCE	(2 * HZ)

static unsigned int virtblk_reset_attempts = 3;
module_param_named(reset_attempts, virtblk_reset_attempts, uint, 0644);
MODULE_PARM_DESC(reset_attempts,
		 "How often a device is reset that does not come back, or does not answer then either, before all its I/O fails; how often a request is sent again before it fails");

/* What a PCI device that was pulled out reads as; bits of it are reserved. */
static bool virtblk_is_gone(struct virtio_device *vdev)
{
	return vdev->config->get_status(vdev) == 0xff;
}

/**
 * virtblk_reset_device() - reset the device, if there is one
 * @vdev: the device
 *
 * One that is gone would never say that it is reset.  Context: may sleep.
 */
void virtblk_reset_device(struct virtio_device *vdev)
{
	if (!virtblk_is_gone(vdev))
		virtio_reset_device(vdev);
}

/**
 * virtblk_needs_reset() - does the device ask for a reset?
 * @vdev: the device
 *
 * Return: true if DEVICE_NEEDS_RESET is set (VIRTIO 1.3, 2.1).
 */
bool virtblk_needs_reset(struct virtio_device *vdev)
{
	return vdev->config->get_status(vdev) & VIRTIO_CONFIG_S_NEEDS_RESET;
}

/**
 * virtblk_reset_within() - did the device come back from a reset of late?
 * @vblk: the disk
 * @ms: how long that may be ago, in milliseconds
 *
 * Return: true if it did.
 */
bool virtblk_reset_within(struct virtio_blk *vblk, u64 ms)
{
	return ktime_before(ktime_get(),
			    ktime_add_ms(READ_ONCE(vblk->last_reset), ms));
}

/* Whether the virtio core has given up a virtqueue, or the whole device. */
static bool virtblk_is_broken(struct virtio_blk *vblk)
{
	struct virtqueue *vq;

	virtio_device_for_each_vq(vblk->vdev, vq)
		if (vq->index < vblk->nr_vqs && virtqueue_is_broken(vq))
			return true;
	return false;
}

static unsigned int virtblk_attempts(void)
{
	return clamp(READ_ONCE(virtblk_reset_attempts), 1U, (unsigned int)U8_MAX);
}

static bool virtblk_may_resend(struct virtio_blk *vblk, struct request *req)
{
	struct virtblk_req *vbr = blk_mq_rq_to_pdu(req);

	/* Where the data of an append went the device alone knows. */
	if (vblk->state == VIRTBLK_DEAD || req_op(req) == REQ_OP_ZONE_APPEND)
		return false;
	/* It may be this one that the device cannot stand. */
	return vbr->resent < virtblk_attempts();
}

static bool virtblk_take_back(struct request *req, void *data)
{
	struct virtblk_req *vbr = blk_mq_rq_to_pdu(req);
	struct virtio_blk *vblk = data;

	/* It was answered, and whoever took it off the ring ends it. */
	if (blk_mq_request_completed(req))
		return true;

	virtblk_unmap_data(vbr, req);
	if (virtblk_may_resend(vblk, req)) {
		struct virtblk_queue *q = req->mq_hctx->driver_data;

		vbr->resent++;
		atomic64_inc(&q->stats.resent);
		blk_mq_requeue_request(req, false);
		vblk->taken_back++;
	} else {
		blk_mq_end_request(req, BLK_STS_IOERR);
	}
	return true;
}

/*
 * Reset the device, which then no longer writes to any memory, and take back
 * what it has not answered.  Called with the queue quiesced.
 */
static void virtblk_reclaim(struct virtio_blk *vblk)
{
	struct virtio_device *vdev = vblk->vdev;
	struct virtqueue *vq;
	unsigned int i;

	/* Those that do not see the state by now look at the rings. */
	blk_sync_queue(vblk->disk->queue);

	virtblk_reset_device(vdev);
	for (i = 0; i < vblk->nr_vqs; i++)
		virtblk_look(vblk->queues[i]);
	virtblk_unbind_vqs(vblk);
	virtio_synchronize_cbs(vdev);
	virtio_device_for_each_vq(vdev, vq)
		if (vq->index < vblk->nr_vqs)
			while (virtqueue_detach_unused_buf(vq))
				;

	vblk->taken_back = 0;
	blk_mq_tagset_busy_iter(&vblk->tag_set, virtblk_take_back, vblk);
	virtblk_del_vqs(vblk);
}

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
	return err ?: virtblk_bring_back(vblk);
}

/* Why nothing is to be expected of the device any more, NULL if it is. */
static const char *virtblk_why_dead(struct virtio_blk *vblk)
{
	if (virtblk_is_gone(vblk->vdev))
		return "is gone";
	if (virtblk_is_broken(vblk))
		return "is broken";
	if (READ_ONCE(vblk->abandoned))
		return "does not answer and is being removed";
	return NULL;
}

/* Why the device is to be reset, NULL if it is not. */
static const char *virtblk_why_reset(struct virtio_blk *vblk,
				     enum virtblk_reset wanted)
{
	if (virtblk_needs_reset(vblk->vdev))
		return "asks to be reset";
	if (wanted == VIRTBLK_RESET_STALLED)
		return "has not answered for too long and is reset";
	return wanted ? "is reset, as somebody asked for" : NULL;
}

/* Wait no longer for a device that is gone or broken. */
static void virtblk_end_in_flight(struct virtio_blk *vblk, const char *why)
{
	dev_err(&vblk->vdev->dev, "[%s] %s, its I/O fails from now on\n",
		vblk->disk->disk_name, why);
	blk_mq_quiesce_queue(vblk->disk->queue);
	WRITE_ONCE(vblk->state, VIRTBLK_DEAD);
	virtblk_reclaim(vblk);
	virtblk_end_disk(vblk);
}

/* Reset the device and go on with it. */
static int virtblk_reset_and_resend(struct virtio_blk *vblk, bool stalled)
{
	unsigned int attempts = virtblk_attempts();
	int err = -ETIMEDOUT;

	/* One that does nothing but ask for resets is not to keep a CPU busy. */
	if (virtblk_reset_within(vblk, VIRTBLK_RESET_PAUSE_MS))
		msleep(VIRTBLK_RESET_PAUSE_MS);

	blk_mq_quiesce_queue(vblk->disk->queue);
	WRITE_ONCE(vblk->state, VIRTBLK_RECOVERING);
	virtblk_reclaim(vblk);
	trace_virtblk_recover(vblk, VIRTBLK_RESET, vblk->taken_back);
	/* Who wanted a reset meanwhile has it. */
	WRITE_ONCE(vblk->reset_wanted, VIRTBLK_RESET_NONE);

	/* It has come back as often and did not answer then either. */
	if (stalled && vblk->fruitless++ >= attempts)
		attempts = 0;
	while (err && attempts-- && !virtblk_is_gone(vblk->vdev))
		err = virtblk_reset_once(vblk);
	return err;
}

static void virtblk_recover(struct virtio_blk *vblk, enum virtblk_reset wanted)
{
	struct device *dev = &vblk->vdev->dev;
	const char *why;
	int err;

	why = virtblk_why_dead(vblk);
	if (why) {
		virtblk_end_in_flight(vblk, why);
		return;
	}
	why = virtblk_why_reset(vblk, wanted);
	if (!why)
		return;

	dev_warn_ratelimited(dev, "[%s] %s\n", vblk->disk->disk_name, why);
	err = virtblk_reset_and_resend(vblk, wanted == VIRTBLK_RESET_STALLED);
	if (err) {
		virtblk_take_offline(vblk);
		return;
	}
	atomic_long_inc(&vblk->resets);
	trace_virtblk_recover(vblk, VIRTBLK_RESEND, vblk->taken_back);
	dev_notice_ratelimited(dev, "[%s] was reset, %u requests were sent again\n",
			       vblk->disk->disk_name, vblk->taken_back);
}

/* On the way down the virtio core breaks all devices, and nothing is to be done. */
static bool virtblk_shutting_down(void)
{
	return system_state >= SYSTEM_HALT && system_state <= SYSTEM_RESTART;
}

/**
 * virtblk_recover_work() - see whether the device can go on, or has to be reset
 * @work: the disk's recover_work
 *
 * VIRTIO 1.3, 2.1.2: a device sets DEVICE_NEEDS_RESET when it cannot go on, and
 * its driver has to assume nothing of what is in flight.
 */
void virtblk_recover_work(struct work_struct *work)
{
	struct virtio_blk *vblk = container_of(work, struct virtio_blk,
					       recover_work);
	enum virtblk_reset wanted;

	mutex_lock(&vblk->state_lock);
	wanted = xchg(&vblk->reset_wanted, VIRTBLK_RESET_NONE);
	/* An interrupt may come before there is a disk. */
	if (vblk->state == VIRTBLK_LIVE && vblk->disk &&
	    !virtblk_shutting_down())
		virtblk_recover(vblk, wanted);
	mutex_unlock(&vblk->state_lock);
}

/**
 * virtblk_want_reset() - have a device reset that does not ask for it
 * @vblk: the disk
 * @why: the reason
 *
 * Context: any.
 */
void virtblk_want_reset(struct virtio_blk *vblk, enum virtblk_reset why)
{
	WRITE_ONCE(vblk->reset_wanted, why);
	queue_work(virtblk_wq, &vblk->recover_work);
}

/**
 * virtblk_reset_now() - reset the device and wait until it is back
 * @vblk: the disk
 *
 * Context: may sleep.
 *
 * Return: 0, or -ENODEV if the device is not there, before or after.
 */
int virtblk_reset_now(struct virtio_blk *vblk)
{
	virtblk_want_reset(vblk, VIRTBLK_RESET_TOLD);
	flush_work(&vblk->recover_work);
	return READ_ONCE(vblk->state) == VIRTBLK_LIVE ? 0 : -ENODEV;
}

/* Removal */

static bool virtblk_find_unanswered(struct request *req, void *data)
{
	struct virtblk_req *vbr = blk_mq_rq_to_pdu(req);
	bool *unanswered = data;

	if (virtblk_ended(req) ||
	    time_before(jiffies, vbr->sent + VIRTBLK_LAST_PATIENCE))
		return true;
	*unanswered = true;
	return false;
}

/**
 * virtblk_remove_work() - see that a removal does not wait for ever
 * @work: the disk's remove_work
 *
 * The block layer waits for what is in flight, and writes back what is dirty;
 * a device whose host has gone answers nothing of that.
 */
void virtblk_remove_work(struct work_struct *work)
{
	struct virtio_blk *vblk = container_of(to_delayed_work(work),
					       struct virtio_blk, remove_work);
	bool unanswered = false;

	blk_mq_tagset_busy_iter(&vblk->tag_set, virtblk_find_unanswered,
				&unanswered);
	if (unanswered) {
		WRITE_ONCE(vblk->abandoned, true);
		queue_work(virtblk_wq, &vblk->recover_work);
		return;
	}
	queue_delayed_work(virtblk_wq, &vblk->remove_work, HZ / 4);
}

/**
 * virtblk_begin_removal() - the disk is about to be removed
 * @vblk: the disk
 *
 * Ends what is in flight if the device is gone, and sees to it that what is in
 * flight until the end is not waited for in vain.
 *
 * Context: may sleep.
 */
void virtblk_begin_removal(struct virtio_blk *vblk)
{
	WRITE_ONCE(vblk->removing, true);
	queue_work(virtblk_wq, &vblk->recover_work);
	flush_work(&vblk->recover_work);
	/* One that is away is not waited for. */
	if (cancel_delayed_work_sync(&vblk->return_work)) {
		mutex_lock(&vblk->state_lock);
		virtblk_end_disk(vblk);
		mutex_unlock(&vblk->state_lock);
	}
	queue_delayed_work(virtblk_wq, &vblk->remove_work,
			   VIRTBLK_LAST_PATIENCE);
}

/**
 * virtblk_let_go() - end all that is done with the device, and its virtqueues
 * @vblk: the disk, which nobody uses any more, or which never came to be
 *
 * Context: may sleep.
 */
void virtblk_let_go(struct virtio_blk *vblk)
{
	bool live;

	WRITE_ONCE(vblk->removing, true);
	cancel_delayed_work_sync(&vblk->remove_work);
	cancel_delayed_work_sync(&vblk->watch_work);
	cancel_work_sync(&vblk->recover_work);
	virtblk_cancel_remap(vblk);
	cancel_delayed_work_sync(&vblk->config_work);

	/* The device may have its virtqueues break until they are gone. */
	mutex_lock(&vblk->state_lock);
	live = vblk->state == VIRTBLK_LIVE;
	WRITE_ONCE(vblk->state, VIRTBLK_DEAD);
	mutex_unlock(&vblk->state_lock);

	/* A submitter may be about to kick for a request that is done already. */
	synchronize_rcu();
	/* Only a reset disables virtqueues, and the next probe needs them so. */
	virtblk_reset_device(vblk->vdev);
	/* A disk that was dead has lost them before. */
	if (live)
		virtblk_del_vqs(vblk);
	cancel_work_sync(&vblk->recover_work);
	/* Dying it may have brought requests back after the disk was gone. */
	if (vblk->disk)
		cancel_delayed_work_sync(&vblk->disk->queue->requeue_work);
}
