/* SPDX-License-Identifier: GPL-2.0 */
/*
 * zoned.c: appends and results, reports, and zone writes after a reset.
 */
#ifndef VIRTBLK_ZONED_H
#define VIRTBLK_ZONED_H

#include <linux/blk-mq.h>

struct virtblk_queue;
struct virtio_blk;

#ifdef CONFIG_BLK_DEV_ZONED
int virtblk_add_append(struct virtblk_queue *q, struct request *req);
blk_status_t virtblk_zone_result(struct request *req);
int virtblk_report_zones(struct gendisk *disk, sector_t sector,
			 unsigned int nr_zones,
			 struct blk_report_zones_args *args);
int virtblk_check_nr_zones(struct virtio_blk *vblk, u64 capacity);
int virtblk_revalidate_zones(struct virtio_blk *vblk);
bool virtblk_is_zone_write(struct request *req);
int virtblk_settle_zone_writes(struct virtio_blk *vblk);
#else
static inline int virtblk_add_append(struct virtblk_queue *q, struct request *req)
{
	return -EOPNOTSUPP;
}

static inline blk_status_t virtblk_zone_result(struct request *req)
{
	return BLK_STS_NOTSUPP;
}

static inline int virtblk_check_nr_zones(struct virtio_blk *vblk, u64 capacity)
{
	return 0;
}

static inline int virtblk_revalidate_zones(struct virtio_blk *vblk)
{
	return 0;
}

static inline bool virtblk_is_zone_write(struct request *req)
{
	return false;
}

static inline int virtblk_settle_zone_writes(struct virtio_blk *vblk)
{
	return 0;
}

#define virtblk_report_zones	NULL
#endif

#endif /* VIRTBLK_ZONED_H */
