/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Requests that the device has taken off a ring, and operations that execute them where
 * the device can sleep.
 */
#ifndef VDPA_BLK_REQUEST_H
#define VDPA_BLK_REQUEST_H

#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/sizes.h>
#include <linux/virtio_blk.h>
#include <linux/workqueue.h>

#include "memory.h"
#include "queue.h"
#include "vdpa_blk.h"

/*
 * Pieces of memory in a bio.  A segment that crosses from one extent to the next has two:
 * requests that need more than a bio can have are copied.
 */
#define VDPA_BLK_MAX_VECS	BIO_MAX_VECS

/* Data of up to this many pieces needs no table of its own. */
#define VDPA_BLK_INLINE_VECS	8

/* Pieces in which a request is copied whose buffers the backing device cannot use. */
#define VDPA_BLK_BOUNCE_BYTES	((unsigned int)SZ_64K)

/* Ranges of a discard, write zeroes or secure erase. */
#define VDPA_BLK_MAX_RANGES	64

/**
 * struct vdpa_blk_request - a request that the device has taken off a ring
 * @q: its queue
 * @next: the next request of the list that it is in
 * @status: where the device writes the status byte
 * @len: bytes that the device writes if the request succeeds, the status included
 * @status_only: the device may write nothing but the status
 * @id: what the used ring returns
 * @descs: entries of a packed ring that it takes
 * @result: its status, once it is known
 * @end_work: completes a flush outside of the block layer's lock, or finds out why a
 *	zone refuses a request
 * @sector: of a read, write or append, of a device with zones
 * @sectors: their number
 * @resubmitted: a zone refused it, and it has been submitted once more
 * @append: where the device writes the sector of an append, NULL if it has to be copied
 * @vecs: the data, @inline_vecs or a table from vdpa_blk_vecs
 * @bio: for the backing device
 * @inline_vecs: data of few pieces
 *
 * The worker owns a request from the time when it is off the ring until submit_bio() or
 * vdpa_blk_queue_slow(), and after that the bio or the operation does.  A free request is
 * in a list of its queue.
 */
struct vdpa_blk_request {
	struct vdpa_blk_queue *q;
	struct vdpa_blk_request *next;
	u8 *status;
	u32 len;
	bool status_only;
	bool resubmitted;
	u8 result;
	struct work_struct end_work;
	u16 id;
	u16 descs;
	u32 sectors;
	u64 sector;
	void *append;
	struct bio_vec *vecs;
	struct bio bio;
	struct bio_vec inline_vecs[VDPA_BLK_INLINE_VECS];
};

/**
 * struct vdpa_blk_slow - an operation that sleeps
 * @work: runs it
 * @rq: the request
 * @type: VIRTIO_BLK_T_...
 * @sector: of a read, write or append, or of the zone
 * @nr_segs: number of @segs with data
 * @nr_sector_segs: number of @segs after them, for the sector of an append
 * @nr_ranges: number of @ranges
 * @ranges: of a discard, write zeroes or secure erase
 * @segs: the data
 *
 * The worker fills it in, and @work owns it from vdpa_blk_queue_slow() on.
 */
struct vdpa_blk_slow {
	struct work_struct work;
	struct vdpa_blk_request *rq;
	u32 type;
	u64 sector;
	unsigned int nr_segs;
	unsigned int nr_sector_segs;
	unsigned int nr_ranges;
	struct virtio_blk_discard_write_zeroes ranges[VDPA_BLK_MAX_RANGES];
	struct vdpa_blk_seg segs[VDPA_BLK_MAX_SEGS];
};

/* The status of a request that has nothing to do with zones. */
static inline u8 vdpa_blk_to_status(blk_status_t status)
{
	switch (status) {
	case BLK_STS_OK:
		return VIRTIO_BLK_S_OK;
	case BLK_STS_NOTSUPP:
		return VIRTIO_BLK_S_UNSUPP;
	default:
		return VIRTIO_BLK_S_IOERR;
	}
}

/* The operation and the flags of a read, write or append. */
static inline blk_opf_t vdpa_blk_opf(struct vdpa_blk *vb, u32 type)
{
	blk_opf_t opf = type == VIRTIO_BLK_T_ZONE_APPEND ? REQ_OP_ZONE_APPEND :
							   REQ_OP_WRITE;

	if (type == VIRTIO_BLK_T_IN)
		return REQ_OP_READ;
	/* Without a write cache a write that is done is durable. */
	return opf | REQ_SYNC | REQ_IDLE |
	       (READ_ONCE(vb->writeback) ? 0 : REQ_FUA);
}

/* Whether the backing device has the sectors, and they are whole blocks. */
static inline bool vdpa_blk_in_capacity(struct vdpa_blk *vb, u64 sector, u64 sectors)
{
	u64 capacity = bdev_nr_sectors(vb->bdev);

	return sector <= capacity && sectors <= capacity - sector &&
	       !((sector | sectors) & READ_ONCE(vb->sector_mask));
}

/* slow.c */
bool vdpa_blk_append_fits(struct bio *bio);
struct vdpa_blk_slow *vdpa_blk_alloc_slow(struct vdpa_blk_request *rq, u32 type);
void vdpa_blk_free_slow(struct vdpa_blk_slow *slow);
void vdpa_blk_queue_slow(struct vdpa_blk_slow *slow);

/* nodata.c */
int vdpa_blk_execute_nodata(struct vdpa_blk_queue *q, struct vdpa_blk_request *rq,
			    u32 type, u64 sector);

/* request.c */
void vdpa_blk_end_zoned_bio(struct bio *bio);
int vdpa_blk_handle_any(struct vdpa_blk_queue *q);
int vdpa_blk_handle_chain(struct vdpa_blk_queue *q);

#endif /* VDPA_BLK_REQUEST_H */
