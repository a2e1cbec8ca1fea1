/* SPDX-License-Identifier: GPL-2.0 */
/* Additions to linux/blkdev.h of older kernels. */
#ifndef VIRTBLK_COMPAT_LINUX_BLKDEV_H
#define VIRTBLK_COMPAT_LINUX_BLKDEV_H

#include_next <linux/blkdev.h>

/* 6.15 */
#ifndef BLK_MAX_BLOCK_SIZE
#define BLK_MAX_BLOCK_SIZE	PAGE_SIZE
#endif

/*
 * 6.17.  The driver sets it, if at all, to the value of max_write_zeroes_sectors, so
 * setting the latter twice is harmless.
 */
#ifndef VIRTBLK_HAVE_WZEROES_UNMAP
#define max_hw_wzeroes_unmap_sectors	max_write_zeroes_sectors
#endif

/* 6.13.  0 means the same as in max_zone_append_sectors before. */
#ifndef VIRTBLK_HAVE_HW_ZONE_APPEND
#define max_hw_zone_append_sectors	max_zone_append_sectors
#endif

/* 6.19: report_zones takes the callback and its data in one structure. */
#ifndef VIRTBLK_HAVE_REPORT_ZONES_ARGS
struct blk_report_zones_args {
	report_zones_cb cb;
	void *data;
};

static inline int disk_report_zone(struct gendisk *disk, struct blk_zone *zone,
				   unsigned int idx,
				   struct blk_report_zones_args *args)
{
	return args->cb(zone, idx, args->data);
}
#endif

#endif /* VIRTBLK_COMPAT_LINUX_BLKDEV_H */
