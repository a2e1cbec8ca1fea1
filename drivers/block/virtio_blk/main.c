// SPDX-License-Identifier: GPL-2.0
/*
 * A block driver for virtio disks with one virtqueue for each blk-mq hardware
 * context.
 *
 * This file has the module, the features, and the steps from probe to remove.  A
 * file calls only files that are listed before it:
 *
 *	work.c		workqueues that all disks share
 *	trace.h		trace points
 *	device.c	the device's status: reset, features, gone
 *	fault_inject.c	faults on purpose
 *	limits.c	configuration space -> checked limits
 *	ring.c		a split ring that the driver runs itself; prepared requests
 *	affinity.c	which CPUs use a queue, where its interrupts go
 *	progress.c	what is in flight, and for how long nothing has completed
 *	latency.c	how long requests take
 *	data.c		the data of a request as the device sees it
 *	request.c	requests of the block layer and of the driver
 *	zoned.c		zone appends, results, reports, writes after a reset
 *	submit.c	submit
 *	complete.c	complete, poll
 *	queue.c		how many queues, their virtqueues, depth and hctxs
 *	config.c	declined features; capacity and cache mode, which may change
 *	state.c		the state of the disk, and events
 *	reset.c		reset of the device
 *	pm.c		suspend, reset of the PCI function
 *	timeout.c	requests that time out, disks that stall
 *	sysfs.c		the disk's files in sysfs
 *	debugfs.c	counters of each queue
 *	disk.c		a disk's memory, number, tags and gendisk
 */

#include <linux/blk-mq.h>
#include <linux/cc_platform.h>
#include <linux/module.h>
#include <linux/spinlock.h>
#include <linux/virtio_ids.h>
#include <linux/wait.h>

#include "version.h"
#include "virtio_blk.h"
#include "zoned.h"

static int virtblk_harden = -1;
module_param_named(harden, virtblk_harden, int, 0444);
MODULE_PARM_DESC(harden,
		 "Fail a read for which the device reports fewer bytes than requested (1: yes, 0: no, -1: only in guests whose memory is encrypted)");

/*
 * The virtio core takes no lock to call reset_prepare and reset_done, so that the
 * driver may be unbound meanwhile.  The lock protects vdev->priv against that, and
 * @users of each disk; remove waits until no callback uses the disk.  Taken with
 * interrupts off.
 */
static DEFINE_SPINLOCK(virtblk_users_lock);
static DECLARE_WAIT_QUEUE_HEAD(virtblk_users_wait);

static struct virtio_blk *virtblk_get_disk(struct virtio_device *vdev)
{
	struct virtio_blk *vblk;

	spin_lock_irq(&virtblk_users_lock);
	vblk = vdev->priv;
	if (vblk)
		vblk->users++;
	spin_unlock_irq(&virtblk_users_lock);
	return vblk;
}

static void virtblk_put_disk(struct virtio_blk *vblk)
{
	spin_lock_irq(&virtblk_users_lock);
	vblk->users--;
	spin_unlock_irq(&virtblk_users_lock);
	wake_up_all(&virtblk_users_wait);
}

static bool virtblk_is_unused(struct virtio_blk *vblk)
{
	bool unused;

	spin_lock_irq(&virtblk_users_lock);
	unused = !vblk->users;
	spin_unlock_irq(&virtblk_users_lock);
	return unused;
}

/*
 * Hide the disk from the virtio core's callbacks, wait for those that use it, and cancel
 * the works that they have queued.
 */
static void virtblk_hide_disk(struct virtio_blk *vblk)
{
	spin_lock_irq(&virtblk_users_lock);
	vblk->vdev->priv = NULL;
	spin_unlock_irq(&virtblk_users_lock);
	wait_event(virtblk_users_wait, virtblk_is_unused(vblk));

	cancel_delayed_work_sync(&vblk->config_work);
	cancel_work_sync(&vblk->recovery.work);
}

/* Run recovery now: it declares the disk dead if the device is gone or broken. */
static void virtblk_start_removal(struct virtio_blk *vblk)
{
	struct virtblk_recovery *recovery = &vblk->recovery;

	WRITE_ONCE(recovery->removing, true);
	queue_work(virtblk_wq, &recovery->work);
	flush_work(&recovery->work);
	/* Do not wait for a suspended device to return. */
	if (cancel_delayed_work_sync(&recovery->deadline))
		virtblk_abandon_suspended(vblk);
	queue_delayed_work(virtblk_wq, &recovery->watch, HZ);
}

/*
 * Stop all work on the device and delete its virtqueues.  The disk has no users: it is
 * deleted, or the probe failed before it was added.
 */
static void virtblk_teardown(struct virtio_blk *vblk)
{
	struct virtblk_recovery *recovery = &vblk->recovery;

	WRITE_ONCE(recovery->removing, true);
	/* Without del_gendisk() the timer of the last request may still run. */
	if (vblk->disk)
		virtblk_sync_timeouts(vblk->disk->queue);
	/* The watch queues the work.  The work queues the watch unless it sees ->removing. */
	cancel_delayed_work_sync(&recovery->watch);
	cancel_work_sync(&recovery->work);
	cancel_delayed_work_sync(&recovery->watch);
	cancel_delayed_work_sync(&vblk->config_work);

	/* From here on recovery ignores virtqueues that break. */
	mutex_lock(&recovery->lock);
	if (recovery->state != VIRTBLK_DEAD)
		virtblk_set_state(vblk, VIRTBLK_DEAD);
	mutex_unlock(&recovery->lock);
	cancel_work_sync(&recovery->report);
	cancel_delayed_work_sync(&recovery->deadline);

	/* A submitter may still kick for a request that has completed already. */
	synchronize_rcu();
	/* The next probe needs disabled virtqueues, and only a reset disables them. */
	virtblk_reset_device(vblk->vdev);
	virtblk_unbind_vqs(vblk);
	if (vblk->has_vqs)
		virtio_synchronize_cbs(vblk->vdev);
	virtblk_cancel_queue_works(vblk);
	virtblk_del_vqs(vblk);
	/* Until here a virtqueue's callback finds the disk by its device. */
	virtblk_hide_disk(vblk);
	/* A disk that died may have requeued requests after del_gendisk(). */
	if (vblk->disk)
		cancel_delayed_work_sync(&vblk->disk->queue->requeue_work);
}

/*
 * From here on the probe may wait for requests: for reports on zones, and for the
 * partition table.  It holds no lock that the watch, recovery, or the failure of these
 * requests needs.
 */
static void virtblk_begin_probe_io(struct virtio_blk *vblk)
{
	struct virtblk_recovery *recovery = &vblk->recovery;

	mutex_lock(&recovery->lock);
	recovery->progress = jiffies;
	WRITE_ONCE(recovery->probing, true);
	virtblk_set_state(vblk, VIRTBLK_LIVE);
	mutex_unlock(&recovery->lock);
	/* The device may have been reset while it was set up. */
	queue_work(virtblk_wq, &recovery->work);
	queue_delayed_work(virtblk_wq, &recovery->watch, HZ);
}

/*
 * The probe waits for no more requests.  A disk that is suspended, by a function reset,
 * returns first.  Then, without an error @err, recovery and suspend are blocked until
 * virtblk_probed(), because the virtio core checks DRIVER_OK in between, and sets it if it
 * is missing: nothing else may set that bit at that moment.  Returns false if the disk has
 * died.
 */
static bool virtblk_end_probe_io(struct virtio_blk *vblk, int err)
{
	struct virtblk_recovery *recovery = &vblk->recovery;
	bool died;

	mutex_lock(&recovery->lock);
	while (recovery->state == VIRTBLK_SUSPENDED) {
		mutex_unlock(&recovery->lock);
		wait_event(recovery->wait,
			   READ_ONCE(recovery->state) != VIRTBLK_SUSPENDED);
		mutex_lock(&recovery->lock);
	}
	/* A probe that fails still waits for config_work. */
	WRITE_ONCE(recovery->probing, err);
	died = recovery->died_in_probe;
	WRITE_ONCE(recovery->held, !err && !died);
	mutex_unlock(&recovery->lock);
	return !died;
}

static int virtblk_start_disk(struct virtio_blk *vblk)
{
	struct virtio_device *vdev = vblk->vdev;
	int err;

	virtblk_init_capacity(vblk);
	err = virtblk_set_ready(vdev);
	if (err)
		return err;
	virtblk_begin_probe_io(vblk);

	err = virtblk_check_nr_zones(vblk, get_capacity(vblk->disk)) ?:
	      virtblk_revalidate_zones(vblk);
	if (err) {
		dev_err(&vdev->dev, "[%s] cannot use its zones: error %d; see the lines before\n",
			vblk->disk->disk_name, err);
		return err;
	}
	return device_add_disk(&vdev->dev, vblk->disk,
			       virtblk_attr_groups(vblk));
}

/* Remove a disk that was added.  Its last user frees it. */
static void virtblk_remove_disk(struct virtio_blk *vblk)
{
	struct virtio_device *vdev = vblk->vdev;

	/* First, because the device may never answer requests that the rest waits for. */
	virtblk_start_removal(vblk);
	virtblk_remove_debugfs(vblk);
	/* From here on config_work and report ignore the disk. */
	cancel_delayed_work_sync(&vblk->config_work);
	cancel_work_sync(&vblk->recovery.report);
	del_gendisk(vblk->disk);
	virtblk_remove_cpuhp(vblk);
	virtblk_teardown(vblk);
	virtblk_hide_gone(vdev);

	blk_mq_free_tag_set(&vblk->tag_set);
	virtblk_free_queues(vblk);
	put_disk(vblk->disk);
	/* Last, because the core may still begin to set the device up after it. */
	virtblk_reset_again(vdev);
}

static int virtblk_probe(struct virtio_device *vdev)
{
	struct virtblk_queue *q;
	struct virtio_blk *vblk;
	bool lives;
	int err;

	vblk = virtblk_alloc(vdev);
	if (IS_ERR(vblk))
		return PTR_ERR(vblk);
	vdev->priv = vblk;

	err = virtblk_init_vqs(vblk);
	if (err)
		goto out_free_vblk;

	err = virtblk_alloc_tag_set(vblk);
	if (err)
		goto out_teardown;

	err = virtblk_alloc_queues(vblk);
	if (err)
		goto out_teardown;
	virtblk_bind_vqs(vblk);

	err = virtblk_alloc_disk(vblk);
	if (err)
		goto out_teardown;

	q = vblk->queues[0];
	dev_info(&vdev->dev, "[%s] %u/%u/%u default/read/poll queues, ring %u, depth %u%s\n",
		 vblk->disk->disk_name, vblk->nr_queues[HCTX_TYPE_DEFAULT],
		 vblk->nr_queues[HCTX_TYPE_READ],
		 vblk->nr_queues[HCTX_TYPE_POLL], vblk->ring_size,
		 vblk->tag_set.queue_depth,
		 q->own_ring ? ", own ring" :
		 virtblk_is_prepared(q) ? ", prepared requests" : "");
	err = virtblk_add_cpuhp(vblk);
	if (err)
		goto out_teardown;
	err = virtblk_start_disk(vblk);
	lives = virtblk_end_probe_io(vblk, err);
	if (!lives)
		dev_err(&vdev->dev, "[%s] died while it was probed, so the probe fails; when the device answers again, write %s to /sys/bus/virtio/drivers/%s/bind\n",
			vblk->disk->disk_name, dev_name(&vdev->dev), KBUILD_MODNAME);
	if (err)
		goto out_stop;
	if (!lives) {
		/* The disk exists already, and its last user frees it. */
		virtblk_remove_disk(vblk);
		return -EIO;
	}
	virtblk_create_debugfs(vblk);
	virtblk_register_vmfork(vblk);
	return 0;

out_stop:
	/* config_work may wait for the device, so recovery goes on until that has ended. */
	virtblk_start_removal(vblk);
	cancel_delayed_work_sync(&vblk->config_work);
	virtblk_remove_cpuhp(vblk);
out_teardown:
	virtblk_teardown(vblk);
	if (vblk->disk)
		put_disk(vblk->disk);
	if (vblk->tag_set.tags)
		blk_mq_free_tag_set(&vblk->tag_set);
	/* Not earlier, because a virtqueue's callback uses its queue. */
	virtblk_free_queues(vblk);
out_free_vblk:
	virtblk_hide_disk(vblk);
	virtblk_free(vblk);
	return err;
}

/* The virtio core's scan, called after probe.  Between the two the core checks DRIVER_OK. */
static void virtblk_probed(struct virtio_device *vdev)
{
	virtblk_release_recovery(vdev->priv);
}

static void virtblk_remove(struct virtio_device *vdev)
{
	struct virtio_blk *vblk = vdev->priv;

	virtblk_unregister_vmfork(vblk);
	virtblk_remove_disk(vblk);
}

/*
 * Called with interrupts off.  The virtio core enables it after a function reset that
 * the driver refused, also while the disk is being probed or removed.
 */
static void virtblk_config_changed(struct virtio_device *vdev)
{
	struct virtio_blk *vblk;
	unsigned long flags;

	/* Under the lock, so that virtblk_hide_disk() cancels both works. */
	spin_lock_irqsave(&virtblk_users_lock, flags);
	vblk = vdev->priv;
	if (vblk) {
		/* The device reports DEVICE_NEEDS_RESET by the same interrupt. */
		queue_work(virtblk_wq, &vblk->recovery.work);
		virtblk_schedule_config_work(vblk);
	}
	spin_unlock_irqrestore(&virtblk_users_lock, flags);
}

/* Unused on a kernel that neither suspends nor reports a function reset. */
static int __maybe_unused virtblk_stop(struct virtio_device *vdev,
				       unsigned long return_within,
				       bool requeue)
{
	struct virtio_blk *vblk = virtblk_get_disk(vdev);
	int err;

	if (!vblk)
		return -ENODEV;
	err = virtblk_stop_device(vblk, return_within, requeue);
	virtblk_put_disk(vblk);
	return err;
}

static int __maybe_unused virtblk_start(struct virtio_device *vdev)
{
	struct virtio_blk *vblk = virtblk_get_disk(vdev);
	int err;

	if (!vblk)
		return -ENODEV;
	err = virtblk_start_device(vblk);
	virtblk_put_disk(vblk);
	return err;
}

#ifdef CONFIG_PM_SLEEP
/* After a suspend all devices are back before any freezable work runs. */
#define VIRTBLK_RESUME_TIMEOUT	HZ

static int virtblk_freeze(struct virtio_device *vdev)
{
	return virtblk_stop(vdev, VIRTBLK_RESUME_TIMEOUT, false);
}
#endif

#ifndef VIRTBLK_NO_DEVICE_RESET
/* Longer than PCI waits for a function to be ready after a reset. */
#define VIRTBLK_RESET_TIMEOUT	(90 * HZ)

static int virtblk_reset_prepare(struct virtio_device *vdev)
{
	return virtblk_stop(vdev, VIRTBLK_RESET_TIMEOUT, true);
}
#endif

static const struct virtio_device_id virtblk_id_table[] = {
	{ VIRTIO_ID_BLOCK, VIRTIO_DEV_ANY_ID },
	{ }
};

/* Beside the in-tree driver the module is loaded only by name. */
#ifndef VIRTBLK_BESIDE
MODULE_DEVICE_TABLE(virtio, virtblk_id_table);
#endif

static const unsigned int virtblk_features[] = {
	VIRTIO_BLK_F_SIZE_MAX,
	VIRTIO_BLK_F_SEG_MAX,
	VIRTIO_BLK_F_GEOMETRY,
	VIRTIO_BLK_F_RO,
	VIRTIO_BLK_F_BLK_SIZE,
	VIRTIO_BLK_F_FLUSH,
	VIRTIO_BLK_F_TOPOLOGY,
	VIRTIO_BLK_F_CONFIG_WCE,
	VIRTIO_BLK_F_MQ,
	VIRTIO_BLK_F_DISCARD,
	VIRTIO_BLK_F_WRITE_ZEROES,
	VIRTBLK_F_LIFETIME,
	VIRTIO_BLK_F_SECURE_ERASE,
	VIRTIO_BLK_F_ZONED,
};

static struct virtio_driver virtblk_driver = {
	.feature_table		= virtblk_features,
	.feature_table_size	= ARRAY_SIZE(virtblk_features),
	.driver.name		= KBUILD_MODNAME,
	.id_table		= virtblk_id_table,
	.validate		= virtblk_validate,
	.probe			= virtblk_probe,
	.scan			= virtblk_probed,
	.remove			= virtblk_remove,
	.config_changed		= virtblk_config_changed,
#ifdef CONFIG_PM_SLEEP
	.freeze			= virtblk_freeze,
	.restore		= virtblk_start,
#endif
#ifndef VIRTBLK_NO_DEVICE_RESET
	.reset_prepare		= virtblk_reset_prepare,
	.reset_done		= virtblk_start,
#endif
};

static int __init virtblk_init(void)
{
	int err;

	if (virtblk_harden < 0)
		virtblk_harden = cc_platform_has(CC_ATTR_GUEST_MEM_ENCRYPT);
	virtblk_harden = !!virtblk_harden;
	if (virtblk_harden)
		static_branch_enable(&virtblk_hardened);

	err = virtblk_init_workqueues();
	if (err)
		return err;

	err = virtblk_init_disks();
	if (err)
		goto out_exit_workqueues;

	err = virtblk_init_cpuhp();
	if (err)
		goto out_exit_disks;

	virtblk_init_debugfs();
	err = register_virtio_driver(&virtblk_driver);
	if (err)
		goto out_exit_debugfs;
	return 0;

out_exit_debugfs:
	virtblk_exit_debugfs();
	virtblk_exit_cpuhp();
out_exit_disks:
	virtblk_exit_disks();
out_exit_workqueues:
	virtblk_exit_workqueues();
	virtblk_free_gone_ops();
	return err;
}

static void __exit virtblk_exit(void)
{
	unregister_virtio_driver(&virtblk_driver);
	virtblk_exit_debugfs();
	virtblk_exit_cpuhp();
	virtblk_exit_disks();
	virtblk_exit_workqueues();
	virtblk_free_gone_ops();
}

module_init(virtblk_init);
module_exit(virtblk_exit);

MODULE_DESCRIPTION("Multi-queue virtio block driver");
MODULE_LICENSE("GPL");
MODULE_VERSION(VIRTIO_BLK_MQ_VERSION);
