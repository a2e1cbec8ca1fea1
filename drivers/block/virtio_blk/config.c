// SPDX-License-Identifier: GPL-2.0
/*
 * Decline features that the driver does not use, and follow what the device may change
 * while the disk is in use: its capacity and its cache mode.
 */

#include <linux/blk-mq.h>
#include <linux/jiffies.h>
#include <linux/log2.h>
#include <linux/ratelimit.h>
#include <linux/string_helpers.h>

#include "trace.h"
#include "virtio_blk.h"
#include "zoned.h"

/* Decline the commands that take a list of ranges. */
static void virtblk_clear_range_commands(struct virtio_device *vdev)
{
	__virtio_clear_bit(vdev, VIRTIO_BLK_F_DISCARD);
	__virtio_clear_bit(vdev, VIRTIO_BLK_F_SECURE_ERASE);
	__virtio_clear_bit(vdev, VIRTIO_BLK_F_WRITE_ZEROES);
}

/*
 * VIRTIO 1.4, 5.2.5.1: the driver must not use DISCARD with host-managed zones.
 * SECURE_ERASE and WRITE_ZEROES would move write pointers behind the block layer's
 * back; the block layer zeroes by writing instead.  A device that the driver cannot
 * use fails here, before FEATURES_OK is set.
 *
 * Without ZONED a host-aware device is an ordinary disk.  With it, writes would have
 * to keep to its write granularity.  Legacy devices cannot have it.
 */
static int virtblk_validate_zones(struct virtio_device *vdev)
{
	u8 model;

	if (!virtio_has_feature(vdev, VIRTIO_BLK_F_ZONED))
		return 0;
	if (!virtio_has_feature(vdev, VIRTIO_F_VERSION_1)) {
		dev_warn(&vdev->dev, "a legacy device cannot have zones; using it as an ordinary disk\n");
		__virtio_clear_bit(vdev, VIRTIO_BLK_F_ZONED);
		return 0;
	}

	virtio_cread(vdev, struct virtio_blk_config, zoned.model, &model);
	if (model > VIRTIO_BLK_Z_HA) {
		dev_err(&vdev->dev, "zoned model %u is not known; give the device 0 (none), 1 (host-managed) or 2 (host-aware)\n",
			model);
		return -EINVAL;
	}

	if (model != VIRTIO_BLK_Z_HM) {
		__virtio_clear_bit(vdev, VIRTIO_BLK_F_ZONED);
		return 0;
	}
	if (!IS_ENABLED(CONFIG_BLK_DEV_ZONED)) {
		dev_err(&vdev->dev, "host-managed zones need a kernel with CONFIG_BLK_DEV_ZONED\n");
		return -EINVAL;
	}
	virtblk_clear_range_commands(vdev);
	return 0;
}

/**
 * virtblk_validate() - the virtio core's validate(): decline features
 * @vdev: the device, before features are negotiated
 *
 * Return: 0, or -EINVAL if the driver cannot use the device.
 */
int virtblk_validate(struct virtio_device *vdev)
{
	if (!vdev->config->get) {
		dev_err(&vdev->dev, "the transport gives no access to the configuration space\n");
		return -EINVAL;
	}

	/* VIRTIO 1.4, 5.2.5.2: a device that offers CONFIG_WCE must offer FLUSH. */
	if (virtio_has_feature(vdev, VIRTIO_BLK_F_CONFIG_WCE) &&
	    !virtio_has_feature(vdev, VIRTIO_BLK_F_FLUSH)) {
		dev_warn(&vdev->dev, "the device offers CONFIG_WCE without FLUSH; not using CONFIG_WCE, so the cache mode is fixed\n");
		__virtio_clear_bit(vdev, VIRTIO_BLK_F_CONFIG_WCE);
	}
	/*
	 * With VIRTIO_F_IN_ORDER, virtio_ring does not check used ids and makes up
	 * lengths, and disks hang (Documentation/conformance.rst).  With
	 * VIRTIO_F_NOTIFICATION_DATA, virtqueue_notify() reads the ring's indexes.
	 * That needs the queue's lock, which the driver drops before it notifies, and
	 * notifications may overtake each other.
	 */
	__virtio_clear_bit(vdev, VIRTIO_F_IN_ORDER);
	__virtio_clear_bit(vdev, VIRTIO_F_NOTIFICATION_DATA);
	/*
	 * Ranges are little-endian on legacy devices, too (VIRTIO 1.4, 5.2.6).
	 * QEMU's legacy devices read them in the byte order of a big-endian guest,
	 * and a misread range destroys data.
	 */
	if (!virtio_is_little_endian(vdev))
		virtblk_clear_range_commands(vdev);
	return virtblk_validate_zones(vdev);
}

/**
 * virtblk_writeback() - does the device have a volatile write cache?
 * @vdev: the device, its features negotiated
 *
 * VIRTIO 1.4, 5.2.5.1: with CONFIG_WCE the device reports its cache mode.  Without
 * it the driver assumes that a device with FLUSH has a write cache.
 *
 * Return: true if writes are durable only after a flush.
 */
bool virtblk_writeback(struct virtio_device *vdev)
{
	u8 writeback;

	if (!virtio_has_feature(vdev, VIRTIO_BLK_F_CONFIG_WCE))
		return virtio_has_feature(vdev, VIRTIO_BLK_F_FLUSH);

	virtio_cread(vdev, struct virtio_blk_config, wce, &writeback);
	if (writeback > 1)
		dev_warn_ratelimited(&vdev->dev, "cache mode %u is neither 0 nor 1; using 1 (writeback)\n",
				     writeback);
	return writeback;
}

/**
 * virtblk_set_write_cache() - set whether the block layer flushes
 * @vblk: the disk
 * @writeback: the device has a volatile write cache
 *
 * Context: may sleep, waits for I/O in flight.  The caller holds cache_lock.
 *
 * Return: 0 or the block layer's error.
 */
int virtblk_set_write_cache(struct virtio_blk *vblk, bool writeback)
{
	struct request_queue *rq_queue = vblk->disk->queue;
	struct queue_limits lim = queue_limits_start_update(rq_queue);
	int err;

	if (writeback)
		lim.features |= BLK_FEAT_WRITE_CACHE;
	else
		lim.features &= ~BLK_FEAT_WRITE_CACHE;
	err = queue_limits_commit_update_frozen(rq_queue, &lim);
	/*
	 * Not earlier: the block layer does not flush after a write that was in flight.  If
	 * the device was reset before that completed, it had to return without a cache.
	 */
	if (!err)
		WRITE_ONCE(vblk->writeback, writeback);
	return err;
}

/**
 * virtblk_start_flushing() - have the block layer flush, and flush what is written already
 * @vblk: the disk, whose device has a volatile write cache
 *
 * Context: may sleep, waits for I/O in flight.  The caller holds cache_lock.
 *
 * Return: 0 or the error of the change or of the flush.
 */
int virtblk_start_flushing(struct virtio_blk *vblk)
{
	int err = vblk->writeback ? 0 : virtblk_set_write_cache(vblk, true);

	return err ?: blkdev_issue_flush(vblk->disk->part0);
}

/**
 * virtblk_restore_writeback() - restore the device's cache mode after a reset
 * @vblk: the disk, suspended or resetting, its device ready again
 *
 * A reset may change the mode (VIRTIO 1.4, 5.2.5).  If the device keeps a cache that the
 * block layer does not know about, the disk cannot be used: requests that wait, and bios
 * that wait for a frozen queue, were issued for a device without a cache, and the block
 * layer would not flush after them.
 *
 * Context: may sleep.
 *
 * Return: 0, or -EIO if the device does not turn its cache off.
 */
int virtblk_restore_writeback(struct virtio_blk *vblk)
{
	u8 writeback = READ_ONCE(vblk->writeback);

	if (!virtio_has_feature(vblk->vdev, VIRTIO_BLK_F_CONFIG_WCE))
		return 0;
	virtio_cwrite(vblk->vdev, struct virtio_blk_config, wce, &writeback);
	if (writeback || !virtblk_writeback(vblk->vdev))
		return 0;

	dev_err(&vblk->vdev->dev, "[%s] came back with a volatile write cache that cannot be turned off, and writes that waited rely on having none\n",
		vblk->disk->disk_name);
	return -EIO;
}

/* A device may turn a cache on by itself; the block layer must then flush it. */
static void virtblk_update_writeback(struct virtio_blk *vblk, bool writeback)
{
	if (vblk->writeback || !writeback)
		return;

	dev_warn(&vblk->vdev->dev, "[%s] has a volatile write cache now, flushing it from now on\n",
		 vblk->disk->disk_name);
	virtblk_start_flushing(vblk);
}

static void virtblk_log_capacity(struct virtio_blk *vblk, u64 capacity,
				 const char *what)
{
	unsigned int block = queue_logical_block_size(vblk->disk->queue);
	struct device *dev = &vblk->vdev->dev;
	char decimal[16], binary[16];

	string_get_size(capacity, SECTOR_SIZE, STRING_UNITS_10, decimal,
			sizeof(decimal));
	string_get_size(capacity, SECTOR_SIZE, STRING_UNITS_2, binary,
			sizeof(binary));
	dev_notice(dev, "[%s] %s%llu %u-byte logical blocks (%s/%s)\n",
		   vblk->disk->disk_name, what,
		   capacity >> (ilog2(block) - SECTOR_SHIFT), block, decimal,
		   binary);
	if (!capacity)
		dev_warn(dev, "[%s] the capacity is 0, no I/O is possible until the device reports another\n",
			 vblk->disk->disk_name);
}

/*
 * Read the capacity, and return the sectors that the disk has.  The log gets a line if
 * the device reports another number than before, and the disk cannot use all of it.
 */
static u64 virtblk_current_capacity(struct virtio_blk *vblk)
{
	static DEFINE_RATELIMIT_STATE(unusable, DEFAULT_RATELIMIT_INTERVAL,
				      DEFAULT_RATELIMIT_BURST);
	const struct queue_limits *lim = &vblk->config.lim;
	u64 reported = virtblk_read_capacity(vblk->vdev);
	u64 usable = virtblk_usable_capacity(lim, reported);

	if (reported != vblk->reported_capacity && usable != reported &&
	    __ratelimit(&unusable))
		virtblk_warn_capacity(&vblk->vdev->dev, lim, reported);
	vblk->reported_capacity = reported;
	return usable;
}

/**
 * virtblk_init_capacity() - set the disk's capacity at probe
 * @vblk: the disk
 */
void virtblk_init_capacity(struct virtio_blk *vblk)
{
	u64 capacity = virtblk_current_capacity(vblk);

	virtblk_log_capacity(vblk, capacity, "");
	set_capacity(vblk->disk, capacity);
}

static void virtblk_update_capacity(struct virtio_blk *vblk, u64 capacity)
{
	static DEFINE_RATELIMIT_STATE(changes, DEFAULT_RATELIMIT_INTERVAL,
				      DEFAULT_RATELIMIT_BURST);

	if (capacity == get_capacity(vblk->disk))
		return;

	trace_virtblk_config(vblk, capacity);
	if (virtblk_check_nr_zones(vblk, capacity))
		return;
	if (__ratelimit(&changes))
		virtblk_log_capacity(vblk, capacity, "new size: ");
	set_capacity_and_notify(vblk->disk, capacity);
	/* A disk that has died meanwhile has none. */
	if (READ_ONCE(vblk->recovery.state) == VIRTBLK_DEAD) {
		set_capacity(vblk->disk, 0);
		return;
	}
	if (virtblk_revalidate_zones(vblk))
		dev_err_ratelimited(&vblk->vdev->dev, "[%s] the zones cannot be read after the capacity changed\n",
				    vblk->disk->disk_name);
}

/* Returns false if the device is not live; the work runs again when it returns. */
static bool virtblk_read_changes(struct virtio_blk *vblk, bool *writeback,
				 u64 *capacity)
{
	unsigned int noio = virtblk_lock_recovery(&vblk->recovery);
	bool live;

	live = vblk->recovery.state == VIRTBLK_LIVE &&
	       !READ_ONCE(vblk->recovery.removing);
	if (live) {
		*writeback = virtblk_writeback(vblk->vdev);
		*capacity = virtblk_current_capacity(vblk);
		/* If the device disappeared meanwhile, the fields read as all ones. */
		live = !virtblk_is_gone(vblk->vdev);
	}
	virtblk_unlock_recovery(&vblk->recovery, noio);
	return live;
}

/**
 * virtblk_config_work() - follow a change of the configuration space
 * @work: the disk's config_work
 *
 * The driver follows the capacity, and the cache mode, which a reset may change.  In
 * VIRTIO 1.4 no other field that the driver uses changes.
 */
void virtblk_config_work(struct work_struct *work)
{
	struct virtio_blk *vblk = container_of(to_delayed_work(work),
					       struct virtio_blk, config_work);
	bool live, writeback;
	u64 capacity;

	WRITE_ONCE(vblk->followed, jiffies);
	mutex_lock(&vblk->cache_lock);
	live = virtblk_read_changes(vblk, &writeback, &capacity);
	if (live)
		virtblk_update_writeback(vblk, writeback);
	mutex_unlock(&vblk->cache_lock);
	if (live)
		virtblk_update_capacity(vblk, capacity);
}

/**
 * virtblk_schedule_config_work() - schedule virtblk_config_work()
 * @vblk: the disk
 *
 * The work runs at once, but at most ten times a second: a device may change its
 * configuration, and make the driver log that, at any rate.
 *
 * Context: any.
 */
void virtblk_schedule_config_work(struct virtio_blk *vblk)
{
	unsigned long pause = HZ / 10;
	bool soon = time_before(jiffies, READ_ONCE(vblk->followed) + pause);

	schedule_delayed_work(&vblk->config_work, soon ? pause : 0);
}

/**
 * virtblk_getgeo() - the block layer's getgeo(): answer HDIO_GETGEO
 * @disk: the disk
 * @geo: filled in
 *
 * Return: 0.
 */
int virtblk_getgeo(struct gendisk *disk, struct hd_geometry *geo)
{
	struct virtio_blk *vblk = disk->private_data;
	const struct hd_geometry *device = &vblk->config.geometry;
	sector_t cylinders = get_capacity(disk);

	if (device->cylinders) {
		geo->heads = device->heads;
		geo->sectors = device->sectors;
		geo->cylinders = device->cylinders;
		return 0;
	}

	/* Other drivers report this for disks without a geometry, too. */
	geo->heads = 64;
	geo->sectors = 32;
	sector_div(cylinders, 64 * 32);
	geo->cylinders = min_t(sector_t, cylinders, USHRT_MAX);
	return 0;
}
