// SPDX-License-Identifier: GPL-2.0
/*
 * The device goes away and comes back: suspend, hibernation, and a reset of the
 * transport.
 *
 *	          virtblk_stop_device()          virtblk_restart_device()
 *	working ------------------------> away -------------------------> working
 *	                                    |
 *	                                    | it does not come back, or with
 *	                                    | less than requests rely on
 *	                                    v
 *	                                 offline
 *
 * While it is away there are no virtqueues, and requests wait in a quiesced
 * queue.  An offline disk fails them, and stays so until it is removed.
 */

#include <linux/blk-mq.h>
#include <linux/workqueue.h>

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

	if (vblk->state != VIRTBLK_WORKING)
		return;

	/* First: it asks for zones, which a quiesced queue would hold up. */
	cancel_work_sync(&vblk->config_work);

	/*
	 * No interrupt tells of what is polled for, and the tasks that poll
	 * may be frozen.  Quiescing also waits for submitters that have yet to
	 * kick.
	 */
	blk_freeze_queue_start(rq_queue);
	while (!blk_mq_freeze_queue_wait_timeout(rq_queue, 1))
		virtblk_poll_all(vblk);
	blk_mq_quiesce_queue(rq_queue);
	blk_mq_unfreeze_queue_nomemrestore(rq_queue);

	virtio_reset_device(vblk->vdev);
	virtblk_unbind_vqs(vblk);
	virtblk_del_vqs(vblk);

	/*
	 * The virtio core does not tell if the device refuses to come back.
	 * This work is frozen until a suspend is over, or a hibernation's image
	 * is written.
	 */
	vblk->state = VIRTBLK_AWAY;
	queue_delayed_work(system_freezable_wq, &vblk->return_work, timeout);
}

/* The device's virtqueues are there; is it the device that it was? */
static int virtblk_check_return(struct virtio_blk *vblk)
{
	struct virtio_device *vdev = vblk->vdev;
	struct virtblk_raw_config raw;
	struct virtblk_config config;
	const char *shrunk;
	int err;

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

	/* A queue that is not there is not to be used; more are left alone. */
	if (nr_vqs < vblk->nr_vqs) {
		dev_err(&vblk->vdev->dev, "[%s] came back with %u queues and has to have %u\n",
			vblk->disk->disk_name, nr_vqs, vblk->nr_vqs);
		return -ENOENT;
	}
	return virtblk_find_vqs(vblk);
}

/* Fail what waits and what is to come, instead of letting it wait for ever. */
static void virtblk_end_disk(struct virtio_blk *vblk)
{
	vblk->state = VIRTBLK_OFFLINE;
	/* First: who is told that the disk is dead may wait for its I/O. */
	blk_mq_unquiesce_queue(vblk->disk->queue);
	blk_mark_disk_dead(vblk->disk);
}

static void virtblk_take_offline(struct virtio_blk *vblk)
{
	dev_err(&vblk->vdev->dev, "[%s] is offline, its I/O fails from now on; remove the device and add it again\n",
		vblk->disk->disk_name);
	virtblk_end_disk(vblk);
}

/**
 * virtblk_restart_device() - take up work again with a device that was reset
 * @vblk: the disk, its device's features negotiated as they were
 *
 * Context: may sleep.
 *
 * Return: 0; or an error, and the disk is offline.
 */
int virtblk_restart_device(struct virtio_blk *vblk)
{
	int err;

	cancel_delayed_work_sync(&vblk->return_work);
	/* Offline it stays. */
	if (vblk->state != VIRTBLK_AWAY)
		return -ENODEV;

	err = virtblk_find_vqs_again(vblk);
	if (err)
		goto out_offline;
	err = virtblk_check_return(vblk);
	if (err)
		goto out_del_vqs;

	virtblk_bind_vqs(vblk);
	virtio_device_ready(vblk->vdev);
	virtblk_restore_writeback(vblk);
	vblk->state = VIRTBLK_WORKING;

	blk_mq_unquiesce_queue(vblk->disk->queue);
	/* What the device says may have changed while nobody listened. */
	schedule_work(&vblk->config_work);
	return 0;

out_del_vqs:
	virtio_reset_device(vblk->vdev);
	virtblk_del_vqs(vblk);
out_offline:
	virtblk_take_offline(vblk);
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
	virtblk_take_offline(vblk);
}

/**
 * virtblk_give_up() - wait no longer for a device that is away
 * @vblk: the disk, about to be removed
 *
 * Context: may sleep.
 */
void virtblk_give_up(struct virtio_blk *vblk)
{
	if (cancel_delayed_work_sync(&vblk->return_work))
		virtblk_end_disk(vblk);
}
