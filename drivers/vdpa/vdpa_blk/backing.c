// SPDX-License-Identifier: GPL-2.0
/*
 * The backing device, and the configuration space and features that follow from it.
 */

#include <linux/blkdev.h>
#include <linux/log2.h>
#include <linux/mm.h>
#include <uapi/linux/virtio_ring.h>

#include "complete.h"
#include "erase.h"
#include "queue.h"
#include "request.h"
#include "vdpa_blk.h"
#include "zoned.h"

/* Called when the backing device is removed.  Its I/O fails from now on. */
static void vdpa_blk_mark_dead(struct block_device *bdev, bool surprise)
{
	struct vdpa_blk *vb = bdev->bd_holder;

	WRITE_ONCE(vb->gone, true);
	dev_err(&vb->vdpa.dev, "the backing device %s is gone, I/O fails from now on; delete the device\n",
		vb->settings.path);
	/* The device may be deleted from here on. */
	mutex_unlock(&bdev->bd_holder_lock);
}

static const struct blk_holder_ops vdpa_blk_holder_ops = {
	.mark_dead	= vdpa_blk_mark_dead,
};

static const char *vdpa_blk_explain(int err)
{
	switch (err) {
	case -EBUSY:
		return "; it is in use, as a file system, swap, or by another device";
	case -EACCES:
		return "; if it is read-only, write 1 to readonly";
	default:
		return "";
	}
}

/*
 * Note what a bio for the backing device must be like: each request looks at it.
 *
 * A piece is of whole blocks, because the block layer splits requests only at blocks, and
 * the backing device has a limit of pieces.  It also begins at a multiple of a block,
 * because zram takes a piece for whole pages whatever its alignment of DMA is.
 */
static void vdpa_blk_update_limits(struct vdpa_blk *vb)
{
	u32 block = bdev_logical_block_size(vb->bdev) - 1;

	WRITE_ONCE(vb->align_mask, bdev_dma_alignment(vb->bdev) | block);
	WRITE_ONCE(vb->sector_mask, block >> SECTOR_SHIFT);
}

/*
 * The device does not use the page cache of the block device.  Pages that an earlier user
 * has left dirty must not be written over the driver's data later, and clean ones must not
 * hide it from those that read the block device.  The whole disk of a partition has pages of
 * its own.
 */
static int vdpa_blk_drop_cache(struct vdpa_blk *vb)
{
	struct block_device *bdevs[] = { vb->bdev, bdev_whole(vb->bdev) };
	unsigned int i;
	int err;

	for (i = 0; i < ARRAY_SIZE(bdevs); i++) {
		err = sync_blockdev(bdevs[i]);
		if (err) {
			pr_err("vdpa_blk: cannot write the cached data of %s: error %d\n",
			       vb->settings.path, err);
			return err;
		}
		invalidate_bdev(bdevs[i]);
	}
	return 0;
}

/**
 * vdpa_blk_open_backing() - open and claim the backing device
 * @vb: the device
 *
 * Context: may sleep.
 *
 * Return: 0 or an error, which is in the log; vdpa_blk_close_backing() closes what is open.
 */
int vdpa_blk_open_backing(struct vdpa_blk *vb)
{
	struct vdpa_blk_settings *settings = &vb->settings;
	blk_mode_t mode = BLK_OPEN_READ;
	int err;

	if (!settings->readonly)
		mode |= BLK_OPEN_WRITE;
	vb->bdev_file = bdev_file_open_by_path(settings->path, mode, vb,
					       &vdpa_blk_holder_ops);
	if (IS_ERR(vb->bdev_file)) {
		err = PTR_ERR(vb->bdev_file);
		vb->bdev_file = NULL;
		pr_err("vdpa_blk: cannot open path %s: error %d%s\n",
		       settings->path, err, vdpa_blk_explain(err));
		return err;
	}
	vb->bdev = file_bdev(vb->bdev_file);
	err = vdpa_blk_drop_cache(vb);
	if (err)
		return err;
	vdpa_blk_update_limits(vb);
	vb->end_io = vdpa_blk_end_bio;
	if (!bdev_is_zoned(vb->bdev))
		return 0;
	vb->end_io = vdpa_blk_end_zoned_bio;
	return vdpa_blk_init_zones(vb);
}

/**
 * vdpa_blk_close_backing() - close the backing device
 * @vb: the device, without I/O
 */
void vdpa_blk_close_backing(struct vdpa_blk *vb)
{
	if (vb->bdev_file)
		bdev_fput(vb->bdev_file);
	vb->bdev_file = NULL;
	vb->bdev = NULL;
	kvfree(vb->zones);
	vb->zones = NULL;
}

/* Sectors that the device can offer. */
static u64 vdpa_blk_capacity(const struct vdpa_blk *vb)
{
	u64 sectors = bdev_nr_sectors(vb->bdev);

	return vdpa_blk_is_zoned(vb) ? min(sectors, vdpa_blk_zoned_capacity(vb)) :
				       sectors;
}

static __virtio16 vdpa_blk_le16(u16 value)
{
	return __cpu_to_virtio16(true, value);
}

static __virtio64 vdpa_blk_le64(u64 value)
{
	return __cpu_to_virtio64(true, value);
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
 * vdpa_blk_update_capacity() - follow the capacity and limits of the backing device
 * @vb: the device
 *
 * Return: true if its capacity has changed.
 */
bool vdpa_blk_update_capacity(struct vdpa_blk *vb)
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
