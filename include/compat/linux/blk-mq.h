/* SPDX-License-Identifier: GPL-2.0 */
/* Additions to linux/blk-mq.h of older kernels. */
#ifndef VIRTBLK_COMPAT_LINUX_BLK_MQ_H
#define VIRTBLK_COMPAT_LINUX_BLK_MQ_H

#include_next <linux/blk-mq.h>
#include <linux/blkdev.h>
#include <linux/rcupdate.h>
#include <linux/version.h>

/* 6.13: struct rq_list has a tail; before, a list is only a pointer to its head. */
#ifndef VIRTBLK_HAVE_RQ_LIST
struct rq_list {
	struct request *head;
	struct request *tail;
};

#undef rq_list_peek
#undef rq_list_pop
#undef rq_list_add_tail
#undef rq_list_empty

static inline void rq_list_init(struct rq_list *rl)
{
	rl->head = NULL;
	rl->tail = NULL;
}

/* These also take the list of an io_comp_batch, which is only a head. */
#define rq_list_peek(list)	(*(struct request **)(list))
#define rq_list_empty(list)	(!rq_list_peek(list))

static inline struct request *rq_list_pop(struct rq_list *rl)
{
	struct request *rq = rl->head;

	if (rq) {
		rl->head = rq->rq_next;
		rq->rq_next = NULL;
	}
	return rq;
}

static inline void rq_list_add_tail(struct rq_list *rl, struct request *rq)
{
	rq->rq_next = NULL;
	if (rl->head)
		rl->tail->rq_next = rq;
	else
		rl->head = rq;
	rl->tail = rq;
}
#endif

/*
 * 6.7: blk-mq enters each request that starts into the table that timeouts, resets and all
 * other iterations over requests in flight read.  Before, queue_rqs must do so.  No header
 * differs.
 */
#if KERNEL_VERSION(6, 7, 0) > LINUX_VERSION_CODE
static inline void virtblk_compat_start_request(struct request *rq)
{
	rq->mq_hctx->tags->rqs[rq->tag] = rq;
	blk_mq_start_request(rq);
}

#define blk_mq_start_request(rq)	virtblk_compat_start_request(rq)
#endif

/* 6.14: the block layer merges requests by default. */
#ifndef VIRTBLK_HAVE_MERGE_BY_DEFAULT
static inline int virtblk_compat_alloc_tag_set(struct blk_mq_tag_set *set)
{
	set->flags |= BLK_MQ_F_SHOULD_MERGE;
	return blk_mq_alloc_tag_set(set);
}

#define blk_mq_alloc_tag_set(set)	virtblk_compat_alloc_tag_set(set)
#endif

/* 6.14 */
#if defined(VIRTBLK_HAVE_QUEUE_FEATURES) && !defined(VIRTBLK_HAVE_COMMIT_FROZEN)
static inline int
queue_limits_commit_update_frozen(struct request_queue *q,
				  struct queue_limits *lim)
{
	int err;

	blk_mq_freeze_queue(q);
	err = queue_limits_commit_update(q, lim);
	blk_mq_unfreeze_queue(q);
	return err;
}
#endif

/* 6.14: freezing a queue keeps the task's allocations from waiting for I/O. */
#ifndef VIRTBLK_HAVE_FREEZE_MEMFLAGS
static inline void blk_mq_unfreeze_queue_nomemrestore(struct request_queue *q)
{
	blk_mq_unfreeze_queue(q);
}

#define blk_mq_freeze_queue(q)		({ blk_mq_freeze_queue(q); 0; })
#define blk_mq_unfreeze_queue(q, flags)	\
	({ (void)(flags); blk_mq_unfreeze_queue(q); })
#endif

/* 6.13: for lockdep, the task that freezes a queue owns the freeze. */
#ifndef VIRTBLK_HAVE_FREEZE_NON_OWNER
#define blk_freeze_queue_start_non_owner(q)	blk_freeze_queue_start(q)
#define blk_mq_unfreeze_queue_non_owner(q) \
	blk_mq_unfreeze_queue_nomemrestore(q)
#endif

/*
 * 6.13 and stable 6.12, like the above: a submitter that saw the hctx stopped or the
 * queue quiesced adds its request to the dispatch list and runs the hctx.  Older
 * kernels only add it, and if the hctx was started meanwhile, nothing runs it.
 */
#ifndef VIRTBLK_HAVE_FREEZE_NON_OWNER
#define VIRTBLK_COMPAT_RUN_AGAIN_MS	10

/* This must not sleep: the requeue work runs all hctxs after the request is added. */
static inline void
virtblk_compat_start_stopped_hw_queue(struct blk_mq_hw_ctx *hctx, bool async)
{
	blk_mq_start_stopped_hw_queue(hctx, async);
	blk_mq_delay_kick_requeue_list(hctx->queue,
				       VIRTBLK_COMPAT_RUN_AGAIN_MS);
}

#define blk_mq_start_stopped_hw_queue(hctx, async) \
	virtblk_compat_start_stopped_hw_queue(hctx, async)

static inline void virtblk_compat_unquiesce_queue(struct request_queue *q)
{
	blk_mq_unquiesce_queue(q);
	synchronize_rcu();
	blk_mq_run_hw_queues(q, true);
}

#define blk_mq_unquiesce_queue(q)	virtblk_compat_unquiesce_queue(q)

/*
 * Older kernels freeze the queue of a dead disk, and submitters wait to enter it until
 * the disk is deleted.  A request of config_work would wait there, and remove() for
 * config_work.
 */
static inline void virtblk_compat_mark_disk_dead(struct gendisk *disk)
{
	blk_queue_flag_set(QUEUE_FLAG_DYING, disk->queue);
	blk_mark_disk_dead(disk);
}

#define blk_mark_disk_dead(disk)	virtblk_compat_mark_disk_dead(disk)
#endif

/* 6.15 */
#ifndef VIRTBLK_HAVE_MAP_SG_WITHOUT_QUEUE
static inline int virtblk_compat_map_sg(struct request *rq,
					struct scatterlist *sgl)
{
	return blk_rq_map_sg(rq->q, rq, sgl);
}

#define blk_rq_map_sg(rq, sgl)	virtblk_compat_map_sg(rq, sgl)
#endif

#ifndef VIRTBLK_HAVE_MAP_KERN_WITHOUT_QUEUE
static inline int virtblk_compat_map_kern(struct request *rq, void *buf,
					  unsigned int len, gfp_t gfp)
{
	return blk_rq_map_kern(rq->q, rq, buf, len, gfp);
}

#define blk_rq_map_kern(rq, buf, len, gfp) \
	virtblk_compat_map_kern(rq, buf, len, gfp)
#endif

/*
 * 6.11: the limits include the features of a queue, and the driver sets all limits at
 * once.  Older kernels have a function for each limit.
 */
#ifndef VIRTBLK_HAVE_QUEUE_FEATURES
#ifdef VIRTBLK_HAVE_LIMITS_UPDATE
#error "Linux 6.9 and 6.10 are not supported; use 6.1 to 6.8, or 6.11 and later"
#endif

#define BLK_FEAT_WRITE_CACHE	BIT(0)
#define BLK_FEAT_ROTATIONAL	BIT(2)	/* the default before 6.11 */
#define BLK_FEAT_ZONED		BIT(10)

struct virtblk_compat_limits {
	unsigned int features;
	unsigned int logical_block_size;
	unsigned int physical_block_size;
	unsigned int alignment_offset;
	unsigned int io_min;
	unsigned int io_opt;
	unsigned int max_hw_sectors;
	unsigned int max_segments;
	unsigned int max_segment_size;
	unsigned int max_hw_discard_sectors;
	unsigned int max_discard_segments;
	unsigned int discard_granularity;
	unsigned int max_write_zeroes_sectors;
	unsigned int max_secure_erase_sectors;
	unsigned int chunk_sectors;
	unsigned int max_open_zones;
	unsigned int max_active_zones;
	unsigned int max_zone_append_sectors;
	unsigned int zone_write_granularity;
};

static inline void
virtblk_compat_set_limits(struct request_queue *q,
			  const struct virtblk_compat_limits *lim)
{
	blk_queue_logical_block_size(q, lim->logical_block_size);
	blk_queue_physical_block_size(q, lim->physical_block_size);
	blk_queue_alignment_offset(q, lim->alignment_offset);
	blk_queue_io_min(q, max(lim->io_min, lim->physical_block_size));
	blk_queue_io_opt(q, lim->io_opt);
	blk_queue_max_hw_sectors(q, lim->max_hw_sectors);
	blk_queue_max_segments(q, lim->max_segments);
	blk_queue_max_segment_size(q, lim->max_segment_size);
	blk_queue_max_discard_sectors(q, lim->max_hw_discard_sectors);
	blk_queue_max_discard_segments(q, max(lim->max_discard_segments, 1U));
	q->limits.discard_granularity = lim->discard_granularity;
	blk_queue_max_write_zeroes_sectors(q, lim->max_write_zeroes_sectors);
	blk_queue_max_secure_erase_sectors(q, lim->max_secure_erase_sectors);
	blk_queue_write_cache(q, lim->features & BLK_FEAT_WRITE_CACHE, false);
}

#ifdef CONFIG_BLK_DEV_ZONED
/* On these kernels only mq-deadline keeps the writes of a zone in order. */
static inline void
virtblk_compat_set_zones(struct gendisk *disk,
			 const struct virtblk_compat_limits *lim)
{
	struct request_queue *q = disk->queue;

#ifdef VIRTBLK_HAVE_ZONED_MODEL
	disk_set_zoned(disk, BLK_ZONED_HM);
#else
	disk_set_zoned(disk);	/* 6.8 */
#endif
	blk_queue_chunk_sectors(q, lim->chunk_sectors);
	blk_queue_zone_write_granularity(q, lim->zone_write_granularity);
	disk_set_max_open_zones(disk, lim->max_open_zones);
	disk_set_max_active_zones(disk, lim->max_active_zones);
	/* The default is 0, and the function warns if it is called with 0. */
	if (lim->max_zone_append_sectors)
		blk_queue_max_zone_append_sectors(q, lim->max_zone_append_sectors);
	blk_queue_required_elevator_features(q, ELEVATOR_F_ZBD_SEQ_WRITE);
	blk_queue_flag_set(QUEUE_FLAG_ZONE_RESETALL, q);
}

#define blk_revalidate_disk_zones(disk)	blk_revalidate_disk_zones(disk, NULL)
#else
static inline void
virtblk_compat_set_zones(struct gendisk *disk,
			 const struct virtblk_compat_limits *lim)
{
}
#endif

static inline struct gendisk *
virtblk_compat_alloc_disk(struct blk_mq_tag_set *set,
			  const struct virtblk_compat_limits *lim,
			  void *queuedata, struct lock_class_key *key)
{
	struct gendisk *disk = __blk_mq_alloc_disk(set, queuedata, key);

	if (IS_ERR(disk))
		return disk;
	virtblk_compat_set_limits(disk->queue, lim);
	if (lim->features & BLK_FEAT_ZONED)
		virtblk_compat_set_zones(disk, lim);
	return disk;
}

#undef blk_mq_alloc_disk
#define blk_mq_alloc_disk(set, lim, queuedata)				\
({									\
	static struct lock_class_key key;				\
									\
	virtblk_compat_alloc_disk(set, lim, queuedata, &key);		\
})

/* The driver changes only the features later. */
static inline struct virtblk_compat_limits
queue_limits_start_update(struct request_queue *q)
{
	return (struct virtblk_compat_limits) {
		.features = test_bit(QUEUE_FLAG_WC, &q->queue_flags) ?
			BLK_FEAT_WRITE_CACHE : 0,
	};
}

static inline int
queue_limits_commit_update_frozen(struct request_queue *q,
				  const struct virtblk_compat_limits *lim)
{
	unsigned int memflags = blk_mq_freeze_queue(q);

	blk_queue_write_cache(q, lim->features & BLK_FEAT_WRITE_CACHE, false);
	blk_mq_unfreeze_queue(q, memflags);
	return 0;
}

/* Last: from here on, the name means the structure that the driver fills in. */
#define queue_limits virtblk_compat_limits
#endif

#endif /* VIRTBLK_COMPAT_LINUX_BLK_MQ_H */
