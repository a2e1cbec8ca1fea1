/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The driver's operations with the types that older kernels expect.  The build includes
 * this file first in disk.c, which has the tables of operations.
 */
#ifndef VIRTBLK_COMPAT_OPS_H
#define VIRTBLK_COMPAT_OPS_H

#include <linux/blk-mq.h>
#include <linux/blkdev.h>

#define VIRTBLK_OP(name)	virtblk_compat_##name

/* 6.13: queue_rqs takes a struct rq_list, which has a tail pointer. */
#ifndef VIRTBLK_HAVE_RQ_LIST
void virtblk_queue_rqs(struct rq_list *rqlist);

static inline void virtblk_compat_queue_rqs(struct request **head)
{
	struct rq_list rqlist = { .head = *head };

	virtblk_queue_rqs(&rqlist);
	*head = rqlist.head;
}
#else
#define virtblk_compat_queue_rqs	virtblk_queue_rqs
#endif

/* 7.0: init_request takes the node as an int. */
#ifndef VIRTBLK_HAVE_SIGNED_NODE
int virtblk_init_request(struct blk_mq_tag_set *set, struct request *req,
			 unsigned int hctx_index, int numa_node);

static inline int virtblk_compat_init_request(struct blk_mq_tag_set *set,
					      struct request *req,
					      unsigned int hctx_index,
					      unsigned int numa_node)
{
	return virtblk_init_request(set, req, hctx_index, numa_node);
}
#else
#define virtblk_compat_init_request	virtblk_init_request
#endif

/* 6.17: getgeo takes a disk instead of a block device. */
#ifndef VIRTBLK_HAVE_GETGEO_DISK
struct hd_geometry;

int virtblk_getgeo(struct gendisk *disk, struct hd_geometry *geo);

static inline int virtblk_compat_getgeo(struct block_device *bdev,
					struct hd_geometry *geo)
{
	return virtblk_getgeo(bdev->bd_disk, geo);
}
#else
#define virtblk_compat_getgeo		virtblk_getgeo
#endif

/* 6.19: report_zones takes the callback and its data in one structure. */
#if defined(CONFIG_BLK_DEV_ZONED) && !defined(VIRTBLK_HAVE_REPORT_ZONES_ARGS)
int virtblk_report_zones(struct gendisk *disk, sector_t sector,
			 unsigned int nr_zones,
			 struct blk_report_zones_args *args);

static inline int virtblk_compat_report_zones(struct gendisk *disk,
					      sector_t sector,
					      unsigned int nr_zones,
					      report_zones_cb cb, void *data)
{
	struct blk_report_zones_args args = { .cb = cb, .data = data };

	return virtblk_report_zones(disk, sector, nr_zones, &args);
}
#else
#define virtblk_compat_report_zones	virtblk_report_zones
#endif

#endif /* VIRTBLK_COMPAT_OPS_H */
