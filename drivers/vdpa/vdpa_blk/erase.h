/* SPDX-License-Identifier: GPL-2.0 */
/*
 * erase.c: requests for ranges of sectors.
 */
#ifndef VDPA_BLK_ERASE_H
#define VDPA_BLK_ERASE_H

#include <linux/types.h>

struct vdpa_blk;
struct vdpa_blk_slow;

void vdpa_blk_init_erase_config(struct vdpa_blk *vb);
u64 vdpa_blk_erase_feature(u32 type);
u8 vdpa_blk_check_ranges(const struct vdpa_blk_slow *slow);
int vdpa_blk_erase_ranges(struct vdpa_blk_slow *slow);

#endif /* VDPA_BLK_ERASE_H */
