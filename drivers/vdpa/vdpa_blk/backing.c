// SPDX-License-Identifier: GPL-2.0
/*
 * The backing device: what it is opened for, what it can use, and its removal.
 */

#include <linux/blkdev.h>
#include <linux/mm.h>

#include "complete.h"
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

static const char *vdpa_blk_explain_error(int err)
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

/**
 * vdpa_blk_update_limits() - note what a bio for the backing device must be like
 * @vb: the device
 *
 * Each request looks at it.  A piece is of whole blocks, because the block layer splits
 * requests only at blocks, and the backing device has a limit of pieces.  It also begins at
 * a multiple of a block, because zram takes a piece for whole pages whatever its alignment
 * of DMA is.
 */
void vdpa_blk_update_limits(struct vdpa_blk *vb)
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
		       settings->path, err, vdpa_blk_explain_error(err));
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
