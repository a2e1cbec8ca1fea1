/* SPDX-License-Identifier: GPL-2.0 */
/*
 * zoned.c: a backing device with zones.  A kernel without CONFIG_BLK_DEV_ZONED has none of
 * the functions, and calls none: vdpa_blk_is_zoned() is false there.
 */
#ifndef VDPA_BLK_ZONED_H
#define VDPA_BLK_ZONED_H

#include <linux/blkdev.h>
#include <linux/kconfig.h>

#include "vdpa_blk.h"

struct vdpa_blk_slow;

/* Whether the backing device has zones (VIRTIO 1.4, 5.2.3). */
static inline bool vdpa_blk_is_zoned(const struct vdpa_blk *vb)
{
	return IS_ENABLED(CONFIG_BLK_DEV_ZONED) && vb->zones;
}

int vdpa_blk_init_zones(struct vdpa_blk *vb);
void vdpa_blk_init_zoned_config(struct vdpa_blk *vb);
int vdpa_blk_check_zoned_features(struct vdpa_blk *vb);
u64 vdpa_blk_zoned_capacity(const struct vdpa_blk *vb);
u8 vdpa_blk_check_zones(const struct vdpa_blk *vb, u32 type, u64 sector,
			u32 sectors);
u8 vdpa_blk_check_zone_request(const struct vdpa_blk *vb, u32 type, u64 sector,
			       u64 bytes);
u8 vdpa_blk_find_zone_status(struct vdpa_blk *vb, u32 type, u64 sector, u32 sectors,
			     blk_status_t error, bool *again);
u8 vdpa_blk_manage_zone(struct vdpa_blk *vb, u32 type, u64 sector);
u8 vdpa_blk_report_zones(struct vdpa_blk_slow *slow, void *buf, u32 size);

#endif /* VDPA_BLK_ZONED_H */
