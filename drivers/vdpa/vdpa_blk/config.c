// SPDX-License-Identifier: GPL-2.0
/*
 * The features and the configuration space: what the device offers by its backing device
 * and settings, and what changes while a driver uses it.
 */

#include <linux/blkdev.h>
#include <linux/log2.h>
#include <uapi/linux/vdpa.h>

#include "erase.h"
#include "queue.h"
#include "settings.h"
#include "vdpa_blk.h"
#include "zoned.h"

#define VDPA_BLK_CAPACITY_SECONDS	2

static __virtio16 vdpa_blk_le16(u16 value)
{
	return __cpu_to_virtio16(true, value);
}

static __virtio64 vdpa_blk_le64(u64 value)
{
	return __cpu_to_virtio64(true, value);
}

/* What the device offers */

/* Sectors that the device can offer. */
static u64 vdpa_blk_capacity(const struct vdpa_blk *vb)
{
	u64 sectors = bdev_nr_sectors(vb->bdev);

	return vdpa_blk_is_zoned(vb) ? min(sectors, vdpa_blk_zoned_capacity(vb)) :
				       sectors;
}

static u32 vdpa_blk_in_blocks(struct block_device *bdev, unsigned int bytes)
{
	return bytes / bdev_logical_block_size(bdev);
}

static void vdpa_blk_init_topology(struct vdpa_blk *vb)
{
	struct block_device *bdev = vb->bdev;
	struct virtio_blk_config *config = &vb->config;
	int offset = bdev_alignment_offset(bdev);

	config->blk_size = vdpa_blk_le32(bdev_logical_block_size(bdev));
	config->physical_block_exp = ilog2(bdev_physical_block_size(bdev) /
					   bdev_logical_block_size(bdev));
	config->alignment_offset =
		offset > 0 ? min(vdpa_blk_in_blocks(bdev, offset), 255U) : 0;
	config->min_io_size =
		vdpa_blk_le16(min_t(u32, vdpa_blk_in_blocks(bdev, bdev_io_min(bdev)),
				    U16_MAX));
	config->opt_io_size = vdpa_blk_le32(vdpa_blk_in_blocks(bdev, bdev_io_opt(bdev)));
}

/**
 * vdpa_blk_init_config() - fill in the features and the configuration space
 * @vb: the device, its backing device open
 */
void vdpa_blk_init_config(struct vdpa_blk *vb)
{
	struct virtio_blk_config *config = &vb->config;
	struct vdpa_blk_settings *settings = &vb->settings;

	vb->features = VDPA_BLK_ALWAYS;
	if (settings->readonly)
		vb->features |= BIT_ULL(VIRTIO_BLK_F_RO);

	config->capacity = vdpa_blk_le64(vdpa_blk_capacity(vb));
	config->seg_max = vdpa_blk_le32(min(VDPA_BLK_MAX_DATA_SEGS,
					    (int)settings->ring_size - 2));
	config->num_queues = vdpa_blk_le16(settings->queues);
	config->wce = vdpa_blk_has_cache(vb);
	vdpa_blk_init_topology(vb);
	vdpa_blk_init_erase_config(vb);
	if (vdpa_blk_is_zoned(vb))
		vdpa_blk_init_zoned_config(vb);
	vb->features &= settings->features;
}

/**
 * vdpa_blk_limit_features() - leave out features, as `vdpa dev add ... device_features` says
 * @vb: the device, its features filled in
 * @config: what the administrator has passed
 *
 * Return: 0 or -EINVAL, which is in the log.
 */
int vdpa_blk_limit_features(struct vdpa_blk *vb,
			    const struct vdpa_dev_set_config *config)
{
	u64 wanted = config->device_features;

	if (!(config->mask & BIT_ULL(VDPA_ATTR_DEV_FEATURES)))
		return 0;
	if (wanted & ~vb->features) {
		dev_err(&vb->vdpa.dev, "device_features %#llx has %#llx, which the device cannot offer; it has %#llx\n",
			wanted, wanted & ~vb->features, vb->features);
		return -EINVAL;
	}
	if (!(wanted & BIT_ULL(VIRTIO_F_VERSION_1))) {
		dev_err(&vb->vdpa.dev, "device_features %#llx lacks VERSION_1 (bit 32), without which no driver can use the device\n",
			wanted);
		return -EINVAL;
	}
	vb->features = wanted;
	return 0;
}

/**
 * vdpa_blk_check_features() - check those that depend on others, which may be left out
 * @vb: the device, its features limited
 *
 * Return: 0 or -EINVAL, which is in the log.
 */
int vdpa_blk_check_features(struct vdpa_blk *vb)
{
	/* VIRTIO 1.4, 5.2.5.2: not without FLUSH. */
	if (!(vb->features & BIT_ULL(VIRTIO_BLK_F_FLUSH)))
		vb->features &= ~BIT_ULL(VIRTIO_BLK_F_CONFIG_WCE);
	if (vb->settings.readonly && !(vb->features & BIT_ULL(VIRTIO_BLK_F_RO))) {
		dev_err(&vb->vdpa.dev, "the features %#llx lack RO (bit 5), and readonly is 1; a driver would write to the device\n",
			vb->features);
		return -EINVAL;
	}
	return vdpa_blk_is_zoned(vb) ? vdpa_blk_check_zoned_features(vb) : 0;
}

/**
 * vdpa_blk_accepts_features() - may a driver accept these features?
 * @vb: the device
 * @features: what the driver accepts
 *
 * Return: true if it may.
 */
bool vdpa_blk_accepts_features(const struct vdpa_blk *vb, u64 features)
{
	/* QEMU accepts ACCESS_PLATFORM on behalf of a guest that does not. */
	if (!(features & BIT_ULL(VIRTIO_F_VERSION_1)) ||
	    features & ~(vb->features | BIT_ULL(VIRTIO_F_ACCESS_PLATFORM)))
		return false;
	/* Zones need a driver that knows them (VIRTIO 1.4, 5.2.5.2). */
	return !vdpa_blk_is_zoned(vb) || features & BIT_ULL(VIRTIO_BLK_F_ZONED);
}

/* Changes */

/**
 * vdpa_blk_call_config() - interrupt the driver for the configuration
 * @vb: the device, its config_lock held: after a reset the driver is not called any more
 *
 * Before DRIVER_OK the interrupt waits for it: the driver may have read the old values.
 * virtio_vdpa does not reset a device whose driver has failed, and then frees what the
 * callback uses.
 */
void vdpa_blk_call_config(struct vdpa_blk *vb)
{
	const u8 both = VIRTIO_CONFIG_S_DRIVER_OK | VIRTIO_CONFIG_S_FAILED;

	vb->config_missed = (vb->status & both) != VIRTIO_CONFIG_S_DRIVER_OK;
	if (!vb->config_missed && vb->config_cb.callback)
		vb->config_cb.callback(vb->config_cb.private);
}

static void vdpa_blk_config_changed(struct vdpa_blk *vb)
{
	unsigned long flags;

	spin_lock_irqsave(&vb->config_lock, flags);
	vdpa_blk_call_config(vb);
	spin_unlock_irqrestore(&vb->config_lock, flags);
}

/* Follow the capacity and the limits; returns true if the capacity has changed. */
static bool vdpa_blk_update_capacity(struct vdpa_blk *vb)
{
	__virtio64 capacity = vdpa_blk_le64(vdpa_blk_capacity(vb));
	bool changed;

	/*
	 * The block layer sets the capacity of a removed disk to 0.  Reads must fail then,
	 * and not return 0 bytes, as reads at the end of a disk do.
	 */
	if (!capacity)
		return false;
	vdpa_blk_update_limits(vb);
	spin_lock_irq(&vb->config_lock);
	changed = vb->config.capacity != capacity;
	if (changed) {
		vb->config.capacity = capacity;
		vb->generation++;
	}
	spin_unlock_irq(&vb->config_lock);
	return changed;
}

/**
 * vdpa_blk_capacity_work() - follow the capacity of the backing device
 * @work: the device's capacity_work
 *
 * The block layer does not report a change to the holder of a block device.
 */
void vdpa_blk_capacity_work(struct work_struct *work)
{
	struct vdpa_blk *vb = container_of(to_delayed_work(work),
					   struct vdpa_blk, capacity_work);

	if (vdpa_blk_update_capacity(vb))
		vdpa_blk_config_changed(vb);
	queue_delayed_work(vb->wq, &vb->capacity_work, VDPA_BLK_CAPACITY_SECONDS * HZ);
}

/* Whether writes are cached if the driver does not choose (VIRTIO 1.4, 5.2.5.2). */
static bool vdpa_blk_default_writeback(struct vdpa_blk *vb)
{
	return vdpa_blk_has_cache(vb) &&
	       vb->driver_features & BIT_ULL(VIRTIO_BLK_F_FLUSH);
}

/**
 * vdpa_blk_update_writeback() - choose the cache mode by what the driver has accepted
 * @vb: the device, its config_lock held
 *
 * VIRTIO 1.4, 5.2.5.2 and 5.2.6.2: without CONFIG_WCE the mode follows from FLUSH, and a
 * driver without FLUSH has none to make its writes durable.
 */
void vdpa_blk_update_writeback(struct vdpa_blk *vb)
{
	bool writeback = vdpa_blk_default_writeback(vb);

	if (vb->driver_features & BIT_ULL(VIRTIO_BLK_F_CONFIG_WCE)) {
		vb->config.wce = vb->config.wce && writeback;
		writeback = vb->config.wce;
	}
	WRITE_ONCE(vb->writeback, writeback);
}
