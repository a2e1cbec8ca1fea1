// SPDX-License-Identifier: GPL-2.0
/*
 * Requests that carry no data of the disk: flushes, IDs, discards, zeroes and erasures,
 * and requests to zones, except appends.  No function of this file is inlined into the path
 * of reads and writes.
 */

#include <linux/bio.h>
#include <linux/blkdev.h>

#include "chain.h"
#include "complete.h"
#include "erase.h"
#include "memory.h"
#include "queue.h"
#include "request.h"
#include "vdpa_blk.h"
#include "zoned.h"

static int vdpa_blk_queue_zones(struct vdpa_blk_queue *q,
				struct vdpa_blk_request *rq, u32 type, u64 sector,
				const struct vdpa_blk_seg *segs, unsigned int nr)
{
	struct vdpa_blk_slow *slow;
	u8 status;

	if (!vdpa_blk_is_zoned(q->vb))
		return VIRTIO_BLK_S_UNSUPP;
	status = vdpa_blk_check_zone_request(q->vb, type, sector,
					     vdpa_blk_sum(segs, nr));
	if (status != VIRTIO_BLK_S_OK)
		return status;
	slow = vdpa_blk_alloc_slow(rq, type);
	if (!slow)
		return -EAGAIN;
	q->stats.requests[VDPA_BLK_OTHER]++;
	slow->sector = sector;
	slow->nr_segs = nr;
	memcpy(slow->segs, segs, nr * sizeof(*segs));
	vdpa_blk_queue_slow(slow);
	return -EINPROGRESS;
}

static int vdpa_blk_submit_flush(struct vdpa_blk_queue *q, struct vdpa_blk_request *rq)
{
	q->stats.requests[VDPA_BLK_FLUSH]++;
	if (!bdev_write_cache(q->vb->bdev))
		return VIRTIO_BLK_S_OK;
	/* As writes: wbt does not throttle what is both sync and idle. */
	bio_init(&rq->bio, q->vb->bdev, NULL, 0,
		 REQ_OP_WRITE | REQ_PREFLUSH | REQ_SYNC | REQ_IDLE);
	rq->bio.bi_end_io = vdpa_blk_end_bio;
	submit_bio(&rq->bio);
	return -EINPROGRESS;
}

static int vdpa_blk_get_id(struct vdpa_blk_queue *q, struct vdpa_blk_request *rq,
			   const struct vdpa_blk_seg *segs, unsigned int nr)
{
	const char *serial = q->vb->settings.serial;
	u64 bytes = vdpa_blk_sum(segs, nr);
	u32 at = 0, part;

	q->stats.requests[VDPA_BLK_OTHER]++;
	for (; nr && at < VIRTIO_BLK_ID_BYTES; segs++, nr--) {
		part = min_t(u32, segs->len, VIRTIO_BLK_ID_BYTES - at);
		if (vdpa_blk_write(q->vb->memory, &q->hint, segs->addr,
				   serial + at, part))
			return VIRTIO_BLK_S_IOERR;
		at += part;
	}
	/* The status byte counts only if there is nothing unwritten before it. */
	rq->len = at + (at == bytes);
	return VIRTIO_BLK_S_OK;
}

static int vdpa_blk_queue_ranges(struct vdpa_blk_queue *q,
				 struct vdpa_blk_request *rq, u32 type,
				 const struct vdpa_blk_seg *segs, unsigned int nr)
{
	u64 bytes = vdpa_blk_sum(segs, nr), count;
	struct vdpa_blk *vb = q->vb;
	struct vdpa_blk_slow *slow;
	u8 status;

	if (!(vb->driver_features & vdpa_blk_erase_feature(type)))
		return VIRTIO_BLK_S_UNSUPP;
	count = bytes / sizeof(slow->ranges[0]);
	if (!count || bytes % sizeof(slow->ranges[0]) ||
	    count > VDPA_BLK_MAX_RANGES || vb->settings.readonly)
		return VIRTIO_BLK_S_IOERR;
	slow = vdpa_blk_alloc_slow(rq, type);
	if (!slow)
		return -EAGAIN;
	q->stats.requests[VDPA_BLK_OTHER]++;
	slow->nr_ranges = count;
	status = vdpa_blk_take_bytes(q, slow->ranges, bytes) ?
		 VIRTIO_BLK_S_IOERR : vdpa_blk_check_ranges(slow);
	if (status != VIRTIO_BLK_S_OK) {
		vdpa_blk_free_slow(slow);
		return status;
	}
	vdpa_blk_queue_slow(slow);
	return -EINPROGRESS;
}

/**
 * vdpa_blk_execute_nodata() - execute a request that carries no data of the disk
 * @q: its queue, whose chain is that of the request
 * @rq: the request
 * @type: VIRTIO_BLK_T_..., known or not
 * @sector: the request's sector
 *
 * Context: the queue's worker, in a batch.
 *
 * Return: a status to complete with; -EINPROGRESS; or -EAGAIN if memory is short, and it
 * must be taken off the ring again.
 */
int vdpa_blk_execute_nodata(struct vdpa_blk_queue *q, struct vdpa_blk_request *rq,
			    u32 type, u64 sector)
{
	struct vdpa_blk_chain *chain = &q->chain;
	struct vdpa_blk_seg *in = chain->segs + chain->nr_out;

	/* The block layer fails reads and writes by itself. */
	if (READ_ONCE(q->vb->gone))
		return VIRTIO_BLK_S_IOERR;
	rq->len = rq->status_only;
	switch (type) {
	case VIRTIO_BLK_T_FLUSH:
		return vdpa_blk_submit_flush(q, rq);
	case VIRTIO_BLK_T_GET_ID:
		return vdpa_blk_get_id(q, rq, in, chain->nr_in);
	case VIRTIO_BLK_T_DISCARD:
	case VIRTIO_BLK_T_WRITE_ZEROES:
	case VIRTIO_BLK_T_SECURE_ERASE:
		return vdpa_blk_queue_ranges(q, rq, type, chain->segs + chain->taken,
					     chain->nr_out - chain->taken);
	case VIRTIO_BLK_T_ZONE_REPORT:
	case VIRTIO_BLK_T_ZONE_OPEN:
	case VIRTIO_BLK_T_ZONE_CLOSE:
	case VIRTIO_BLK_T_ZONE_FINISH:
	case VIRTIO_BLK_T_ZONE_RESET:
	case VIRTIO_BLK_T_ZONE_RESET_ALL:
		return vdpa_blk_queue_zones(q, rq, type, sector, in, chain->nr_in);
	default:
		return VIRTIO_BLK_S_UNSUPP;
	}
}
