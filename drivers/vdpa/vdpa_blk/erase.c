// SPDX-License-Identifier: GPL-2.0
/*
 * Requests for ranges of sectors: discards, write zeroes and secure erases (VIRTIO 1.4,
 * 5.2.6).
 */

#include <linux/blkdev.h>
#include <linux/sizes.h>

#include "erase.h"
#include "request.h"
#include "vdpa_blk.h"
#include "zoned.h"

/* Sectors of a range that is erased: what is in flight must not delay a reset for long. */
#define VDPA_BLK_MAX_ERASE	((unsigned int)(SZ_1G >> SECTOR_SHIFT))

/**
 * vdpa_blk_init_erase_config() - fill in the features and the configuration space
 * @vb: the device, its backing device open
 *
 * The block layer splits what is longer, so the limits are those of one request.
 */
void vdpa_blk_init_erase_config(struct vdpa_blk *vb)
{
	struct block_device *bdev = vb->bdev;
	struct virtio_blk_config *config = &vb->config;
	u32 granularity = bdev_discard_granularity(bdev) >> SECTOR_SHIFT;
	unsigned int most;

	/* A zone is reset instead (VIRTIO 1.4, 5.2.5.1). */
	if (vb->settings.readonly || vdpa_blk_is_zoned(vb))
		return;
	most = min(bdev_max_discard_sectors(bdev), VDPA_BLK_MAX_ERASE);
	if (most) {
		vb->features |= BIT_ULL(VIRTIO_BLK_F_DISCARD);
		config->max_discard_sectors = vdpa_blk_le32(most);
		config->max_discard_seg = vdpa_blk_le32(VDPA_BLK_MAX_RANGES);
		config->discard_sector_alignment = vdpa_blk_le32(granularity);
	}
	most = min(bdev_max_secure_erase_sectors(bdev), VDPA_BLK_MAX_ERASE);
	if (most) {
		vb->features |= BIT_ULL(VIRTIO_BLK_F_SECURE_ERASE);
		config->max_secure_erase_sectors = vdpa_blk_le32(most);
		config->max_secure_erase_seg = vdpa_blk_le32(VDPA_BLK_MAX_RANGES);
		config->secure_erase_sector_alignment = vdpa_blk_le32(granularity);
	}
	/* Without support of the backing device the kernel writes zeroes. */
	vb->features |= BIT_ULL(VIRTIO_BLK_F_WRITE_ZEROES);
	most = min(bdev_write_zeroes_sectors(bdev) ?: SZ_1M >> SECTOR_SHIFT,
		   VDPA_BLK_MAX_ERASE);
	config->max_write_zeroes_sectors = vdpa_blk_le32(most);
	config->max_write_zeroes_seg = vdpa_blk_le32(VDPA_BLK_MAX_RANGES);
	config->write_zeroes_may_unmap = !!bdev_write_zeroes_sectors(bdev);
}

/* Checks before a request is executed */

/**
 * vdpa_blk_erase_feature() - which feature allows a request for ranges?
 * @type: VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES or VIRTIO_BLK_T_SECURE_ERASE
 *
 * Return: its bit.
 */
u64 vdpa_blk_erase_feature(u32 type)
{
	switch (type) {
	case VIRTIO_BLK_T_DISCARD:
		return BIT_ULL(VIRTIO_BLK_F_DISCARD);
	case VIRTIO_BLK_T_SECURE_ERASE:
		return BIT_ULL(VIRTIO_BLK_F_SECURE_ERASE);
	default:
		return BIT_ULL(VIRTIO_BLK_F_WRITE_ZEROES);
	}
}

/* Unknown flags, and unmap except for zeroes (VIRTIO 1.4, 5.2.6.2). */
static bool vdpa_blk_has_wrong_flags(const struct virtio_blk_discard_write_zeroes *range,
				     u32 type)
{
	u32 flags = le32_to_cpu(range->flags);

	return flags & ~VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP ||
	       (flags && type != VIRTIO_BLK_T_WRITE_ZEROES);
}

static bool vdpa_blk_may_erase(struct vdpa_blk *vb, u32 type,
			       const struct virtio_blk_discard_write_zeroes *range)
{
	u32 sectors = le32_to_cpu(range->num_sectors), most;

	most = type == VIRTIO_BLK_T_DISCARD ?
	       le32_to_cpu((__force __le32)vb->config.max_discard_sectors) :
	       type == VIRTIO_BLK_T_SECURE_ERASE ?
	       le32_to_cpu((__force __le32)vb->config.max_secure_erase_sectors) :
	       le32_to_cpu((__force __le32)vb->config.max_write_zeroes_sectors);
	return sectors <= most &&
	       vdpa_blk_in_capacity(vb, le64_to_cpu(range->sector), sectors);
}

/**
 * vdpa_blk_check_ranges() - check the ranges of a request
 * @slow: the request, its @ranges copied from the driver
 *
 * One range with wrong flags makes the request UNSUPP, wherever the others are.
 *
 * Context: any.
 *
 * Return: VIRTIO_BLK_S_OK if it may be executed, or another status.
 */
u8 vdpa_blk_check_ranges(const struct vdpa_blk_slow *slow)
{
	struct vdpa_blk *vb = slow->rq->q->vb;
	unsigned int i;

	for (i = 0; i < slow->nr_ranges; i++)
		if (vdpa_blk_has_wrong_flags(&slow->ranges[i], slow->type))
			return VIRTIO_BLK_S_UNSUPP;
	for (i = 0; i < slow->nr_ranges; i++)
		if (!vdpa_blk_may_erase(vb, slow->type, &slow->ranges[i]))
			return VIRTIO_BLK_S_IOERR;
	return VIRTIO_BLK_S_OK;
}

/* Execution */

static int vdpa_blk_erase_range(struct vdpa_blk *vb, u32 type, u64 sector, u32 nr,
				bool unmap)
{
	switch (type) {
	case VIRTIO_BLK_T_DISCARD:
		return blkdev_issue_discard(vb->bdev, sector, nr, GFP_NOIO);
	case VIRTIO_BLK_T_SECURE_ERASE:
		return blkdev_issue_secure_erase(vb->bdev, sector, nr, GFP_NOIO);
	default:
		return blkdev_issue_zeroout(vb->bdev, sector, nr, GFP_NOIO,
					    unmap ? 0 : BLKDEV_ZERO_NOUNMAP);
	}
}

/**
 * vdpa_blk_erase_ranges() - execute a request for ranges
 * @slow: the request, which vdpa_blk_check_ranges() has checked
 *
 * Context: may sleep, under memalloc_noio_save().
 *
 * Return: 0 or an error.
 */
int vdpa_blk_erase_ranges(struct vdpa_blk_slow *slow)
{
	struct vdpa_blk *vb = slow->rq->q->vb;
	unsigned int i;
	int err = 0;

	for (i = 0; i < slow->nr_ranges && !err; i++) {
		if (READ_ONCE(vb->stopping))
			return -EIO;
		err = vdpa_blk_erase_range(vb, slow->type,
					   le64_to_cpu(slow->ranges[i].sector),
					   le32_to_cpu(slow->ranges[i].num_sectors),
					   le32_to_cpu(slow->ranges[i].flags) &
					   VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP);
	}
	/* Zeroes are a write, and must be as durable (VIRTIO 1.4, 5.2.6.2). */
	if (!err && slow->type == VIRTIO_BLK_T_WRITE_ZEROES &&
	    !READ_ONCE(vb->writeback))
		err = blkdev_issue_flush(vb->bdev);
	return err;
}
