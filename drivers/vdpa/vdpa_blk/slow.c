// SPDX-License-Identifier: GPL-2.0
/*
 * Operations that sleep, on the device's workqueue: requests whose data is copied, because
 * the backing device cannot use it where it is, or because a reset must be able to end
 * them; discards, zeroes and erasures; reports on zones and changes of zones.
 *
 * An operation completes the request that it belongs to.
 */

#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/mempool.h>
#include <linux/sched/mm.h>

#include "complete.h"
#include "erase.h"
#include "memory.h"
#include "queue.h"
#include "request.h"
#include "vdpa_blk.h"
#include "zoned.h"

/**
 * vdpa_blk_append_fits() - can the backing device execute an append?
 * @bio: the append, to be submitted to the backing device
 *
 * The block layer cannot split an append.
 *
 * Return: true if it need not be split.
 */
bool vdpa_blk_append_fits(struct bio *bio)
{
	const struct queue_limits *lim = &bdev_get_queue(bio->bi_bdev)->limits;
	unsigned int segs;

	return !bio_split_rw_at(bio, lim, &segs,
				bdev_max_zone_append_sectors(bio->bi_bdev) <<
				SECTOR_SHIFT);
}

/* Data that is copied */

/* Write the sector of an append to where the driver wants it (VIRTIO 1.4, 5.2.6). */
static int vdpa_blk_return_sector(const struct vdpa_blk_slow *slow, u64 sector)
{
	__le64 value = cpu_to_le64(sector);

	return vdpa_blk_copy_segs(slow->rq->q->vb->memory,
				  slow->segs + slow->nr_segs, slow->nr_sector_segs, 0,
				  &value, sizeof(value), true);
}

/* Execute the part of a read, write or append that is @at bytes from its beginning. */
static int vdpa_blk_bounce_piece(struct vdpa_blk_slow *slow, void *buf, u64 at,
				 u32 len)
{
	struct vdpa_blk *vb = slow->rq->q->vb;
	bool append = slow->type == VIRTIO_BLK_T_ZONE_APPEND;
	bool read = slow->type == VIRTIO_BLK_T_IN;
	struct bio_vec vec;
	struct bio bio;
	u64 sector;
	int err;

	if (!read) {
		err = vdpa_blk_copy_segs(vb->memory, slow->segs, slow->nr_segs,
					 at, buf, len, false);
		if (err)
			return err;
	}
	bio_init(&bio, vb->bdev, &vec, 1, vdpa_blk_opf(vb, slow->type));
	bio.bi_iter.bi_sector = slow->sector + (at >> SECTOR_SHIFT);
	__bio_add_page(&bio, virt_to_page(buf), len, offset_in_page(buf));
	err = append && !vdpa_blk_append_fits(&bio) ? -EIO : submit_bio_wait(&bio);
	sector = bio.bi_iter.bi_sector;
	bio_uninit(&bio);
	if (err || !(append || read))
		return err;
	if (append)
		return vdpa_blk_return_sector(slow, sector);
	return vdpa_blk_copy_segs(vb->memory, slow->segs, slow->nr_segs, at, buf,
				  len, true);
}

/*
 * Execute it, and once more if its zone would take it now.  Returns the status for the
 * driver.
 */
static u8 vdpa_blk_bounce_or_retry(struct vdpa_blk_slow *slow, void *buf,
				   u64 at, u32 len)
{
	struct vdpa_blk *vb = slow->rq->q->vb;
	unsigned int tries = 0;
	bool again;
	u8 status;
	int err;

	do {
		err = vdpa_blk_bounce_piece(slow, buf, at, len);
		/* Memory that the driver does not share is not the zone's fault. */
		if (!err || err == -EFAULT || !vdpa_blk_is_zoned(vb))
			return vdpa_blk_to_status(errno_to_blk_status(err));
		status = vdpa_blk_find_zone_status(vb, slow->type,
						   slow->sector + (at >> SECTOR_SHIFT),
						   len >> SECTOR_SHIFT,
						   errno_to_blk_status(err), &again);
	} while (again && !tries++);
	return status;
}

/* Copy a read, write or append through memory that the backing device can use. */
static u8 vdpa_blk_bounce(struct vdpa_blk_slow *slow)
{
	struct vdpa_blk *vb = slow->rq->q->vb;
	u64 bytes = vdpa_blk_sum(slow->segs, slow->nr_segs), at;
	bool append = slow->type == VIRTIO_BLK_T_ZONE_APPEND;
	u8 status = VIRTIO_BLK_S_OK;
	void *buf;
	u32 part;

	/* Fail before the append writes if the driver does not share these buffers. */
	if (append && vdpa_blk_return_sector(slow, 0))
		return VIRTIO_BLK_S_IOERR;
	buf = page_address(mempool_alloc(vb->buffers, GFP_NOIO));
	for (at = 0; at < bytes && status == VIRTIO_BLK_S_OK; at += part) {
		/* The buffer has room for a whole append. */
		part = append ? bytes : min_t(u64, bytes - at, VDPA_BLK_BOUNCE_BYTES);
		status = READ_ONCE(vb->stopping) ? VIRTIO_BLK_S_IOERR :
			 vdpa_blk_bounce_or_retry(slow, buf, at, part);
	}
	mempool_free(virt_to_page(buf), vb->buffers);
	return status;
}

/* Zones */

static u8 vdpa_blk_run_zone_request(struct vdpa_blk_slow *slow)
{
	struct vdpa_blk *vb = slow->rq->q->vb;
	void *buf;
	u8 status;

	if (slow->type != VIRTIO_BLK_T_ZONE_REPORT)
		return vdpa_blk_manage_zone(vb, slow->type, slow->sector);
	buf = page_address(mempool_alloc(vb->buffers, GFP_NOIO));
	status = vdpa_blk_report_zones(slow, buf, VDPA_BLK_BOUNCE_BYTES);
	mempool_free(virt_to_page(buf), vb->buffers);
	return status;
}

/* Returns the request's status. */
static u8 vdpa_blk_run_slow(struct vdpa_blk_slow *slow)
{
	switch (slow->type) {
	case VIRTIO_BLK_T_IN:
	case VIRTIO_BLK_T_OUT:
	case VIRTIO_BLK_T_ZONE_APPEND:
		return vdpa_blk_bounce(slow);
	case VIRTIO_BLK_T_DISCARD:
	case VIRTIO_BLK_T_WRITE_ZEROES:
	case VIRTIO_BLK_T_SECURE_ERASE:
		return vdpa_blk_to_status(errno_to_blk_status(vdpa_blk_erase_ranges(slow)));
	default:
		if (!vdpa_blk_is_zoned(slow->rq->q->vb))
			return VIRTIO_BLK_S_UNSUPP;
		return vdpa_blk_run_zone_request(slow);
	}
}

/* The operation */

/* Whether the worker must keep the order of a request and the writes after it. */
static bool vdpa_blk_is_ordered(const struct vdpa_blk *vb, u32 type)
{
	return vdpa_blk_is_zoned(vb) && (type == VIRTIO_BLK_T_OUT ||
					 type == VIRTIO_BLK_T_ZONE_APPEND);
}

/**
 * vdpa_blk_free_slow() - free an operation that sleeps
 * @slow: the operation, which does not run
 *
 * Context: any.
 */
void vdpa_blk_free_slow(struct vdpa_blk_slow *slow)
{
	struct vdpa_blk *vb = slow->rq->q->vb;

	mempool_free(slow, vb->slow_pool);
	vdpa_blk_restart_stalled(vb);
}

static void vdpa_blk_slow_work(struct work_struct *work)
{
	struct vdpa_blk_slow *slow = container_of(work, struct vdpa_blk_slow,
						  work);
	struct vdpa_blk_request *rq = slow->rq;
	struct vdpa_blk *vb = rq->q->vb;
	unsigned int noio = memalloc_noio_save();
	u8 status;

	status = vdpa_blk_run_slow(slow);
	memalloc_noio_restore(noio);
	if (vdpa_blk_is_ordered(vb, slow->type))
		atomic_dec(&rq->q->copied_writes);
	/* The worker sets its bit before it reads the counter again. */
	smp_mb__after_atomic();
	vdpa_blk_free_slow(slow);
	vdpa_blk_complete(rq, status);
}

/**
 * vdpa_blk_alloc_slow() - allocate an operation that sleeps
 * @rq: the request
 * @type: VIRTIO_BLK_T_...
 *
 * Context: any.
 *
 * Return: the operation, or NULL if memory is short; vdpa_blk_restart_stalled() runs when
 * there is some.
 */
struct vdpa_blk_slow *vdpa_blk_alloc_slow(struct vdpa_blk_request *rq, u32 type)
{
	struct vdpa_blk_slow *slow = mempool_alloc(rq->q->vb->slow_pool,
						   GFP_NOWAIT | __GFP_NOWARN);

	if (!slow)
		return NULL;
	INIT_WORK(&slow->work, vdpa_blk_slow_work);
	slow->rq = rq;
	slow->type = type;
	slow->nr_segs = 0;
	slow->nr_sector_segs = 0;
	slow->nr_ranges = 0;
	return slow;
}

/**
 * vdpa_blk_queue_slow() - start an operation that sleeps; it completes its request
 * @slow: the operation
 *
 * Context: the queue's worker.
 */
void vdpa_blk_queue_slow(struct vdpa_blk_slow *slow)
{
	struct vdpa_blk_queue *q = slow->rq->q;

	if (vdpa_blk_is_ordered(q->vb, slow->type))
		atomic_inc(&q->copied_writes);
	queue_work(q->vb->slow_wq, &slow->work);
}
