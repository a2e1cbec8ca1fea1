// SPDX-License-Identifier: GPL-2.0
/*
 * A request's way: from its chain to a bio on the backing device, and back.
 *
 * Reads, writes and flushes are submitted by the worker, without an allocation and
 * without a copy: the bio names the driver's own pages.  What sleeps, or needs memory,
 * goes to a workqueue.
 *
 * A chain that is well formed but cannot be served is completed with an error.  A chain
 * without a status byte that the device can write to breaks the queue.
 */

#include <linux/mempool.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>

#include "trace.h"
#include "vdpa_blk.h"

/* Pieces in which a request is copied whose buffers the backing device cannot use. */
#define VDPA_BLK_BOUNCE_BYTES	((unsigned int)SZ_64K)

/*
 * What each device has in reserve, because memory may be short until one of its requests
 * has completed: tables for data of many pieces, operations that sleep, buffers for them.
 */
#define VDPA_BLK_RESERVED_TABLES	8
#define VDPA_BLK_RESERVED_SLOW		4

static struct kmem_cache *vdpa_blk_table_cache;
static struct kmem_cache *vdpa_blk_slow_cache;

/**
 * struct vdpa_blk_slow - an operation that sleeps
 * @work: runs it
 * @rq: the request
 * @type: VIRTIO_BLK_T_...
 * @sector: of a read or write
 * @nr_segs: number of @segs
 * @nr_ranges: number of @ranges
 * @ranges: of a discard, write zeroes or secure erase
 * @segs: the data
 */
struct vdpa_blk_slow {
	struct work_struct work;
	struct vdpa_blk_request *rq;
	u32 type;
	u64 sector;
	unsigned int nr_segs;
	unsigned int nr_ranges;
	struct virtio_blk_discard_write_zeroes ranges[VDPA_BLK_MAX_RANGES];
	struct vdpa_blk_seg segs[VDPA_BLK_MAX_SEGS];
};

/* Completion */

static u8 vdpa_blk_to_status(blk_status_t status)
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

static void vdpa_blk_signal(const struct vdpa_callback *cb)
{
	bool task = in_task() && !irqs_disabled();

	if (!cb->callback)
		return;
	/* A callback expects that no softirq comes in between, as in an interrupt. */
	if (task)
		local_bh_disable();
	cb->callback(cb->private);
	if (task)
		local_bh_enable();
}

/* Publish what is used; needs the queue's lock.  Returns true to signal @cb. */
static bool vdpa_blk_publish(struct vdpa_blk_queue *q, struct vdpa_callback *cb)
{
	if (!vdpa_blk_publish_used(&q->ring)) {
		q->stats.suppressed++;
		return false;
	}
	q->stats.signals++;
	*cb = q->cb;
	return true;
}

/*
 * The last use of the queue by a completion.  The device may be freed once nothing is in
 * flight, but waits for RCU before.
 */
static void vdpa_blk_drop_in_flight(struct vdpa_blk_queue *q, unsigned int done)
{
	struct vdpa_blk *vb = q->vb;

	rcu_read_lock();
	if (atomic_sub_and_test(done, &q->in_flight) && READ_ONCE(vb->paused))
		wake_up(&vb->drained);
	rcu_read_unlock();
}

/* A request has freed memory: go on with queues that wait for some. */
static void vdpa_blk_restart_stalled(struct vdpa_blk *vb)
{
	unsigned int i;

	for_each_set_bit(i, vb->stalled, vb->settings.queues)
		if (test_and_clear_bit(i, vb->stalled))
			vdpa_blk_wake_worker(vb->queues[i]);
}

static void vdpa_blk_free_table(struct vdpa_blk_request *rq)
{
	struct vdpa_blk *vb = rq->q->vb;

	if (rq->vecs == rq->inline_vecs)
		return;
	mempool_free(rq->vecs, vb->tables);
	rq->vecs = rq->inline_vecs;
	vdpa_blk_restart_stalled(vb);
}

static void vdpa_blk_complete(struct vdpa_blk_request *rq, u8 status)
{
	struct vdpa_blk_queue *q = rq->q;
	struct vdpa_callback cb = { };
	bool signal = false, batched;
	unsigned long flags;
	u32 len = rq->len;

	/* The length counts from the first byte, and only the status is sure. */
	if (status != VIRTIO_BLK_S_OK)
		len = rq->status_only;
	trace_vdpa_blk_end(q, rq->id, status, len);
	vdpa_blk_free_table(rq);
	WRITE_ONCE(*rq->status, status);

	/* Completed while it was submitted: the worker publishes all at once. */
	batched = in_task() && READ_ONCE(q->batching) == current;
	spin_lock_irqsave(&q->lock, flags);
	if (unlikely(status == VIRTIO_BLK_S_UNSUPP))
		q->stats.unsupported++;
	else if (unlikely(status != VIRTIO_BLK_S_OK))
		q->stats.errors++;
	vdpa_blk_add_used(&q->ring, rq->id, rq->descs, len);
	rq->next = q->returned;
	q->returned = rq;
	if (batched)
		q->batched++;
	else
		signal = vdpa_blk_publish(q, &cb);
	spin_unlock_irqrestore(&q->lock, flags);

	if (batched)
		return;
	if (signal)
		vdpa_blk_signal(&cb);
	vdpa_blk_drop_in_flight(q, 1);
}

/**
 * vdpa_blk_flush_completions() - publish completions that the worker has collected
 * @q: the queue
 *
 * Context: the queue's worker, after a batch.
 */
void vdpa_blk_flush_completions(struct vdpa_blk_queue *q)
{
	struct vdpa_callback cb = { };
	bool signal = false;
	unsigned int done;

	spin_lock_irq(&q->lock);
	done = q->batched;
	q->batched = 0;
	if (done)
		signal = vdpa_blk_publish(q, &cb);
	spin_unlock_irq(&q->lock);

	if (!done)
		return;
	trace_vdpa_blk_batch(q, done, signal);
	if (signal)
		vdpa_blk_signal(&cb);
	vdpa_blk_drop_in_flight(q, done);
}

static void vdpa_blk_flush_work(struct work_struct *work)
{
	struct vdpa_blk_request *rq = container_of(work, struct vdpa_blk_request,
						   flush_work);

	vdpa_blk_complete(rq, rq->result);
}

/*
 * The block layer completes a flush under a lock of its own.  A driver of this kernel may
 * complete one as well when it is signalled, and take a lock of the same kind.
 */
static bool vdpa_blk_must_defer(const struct vdpa_blk_request *rq)
{
	return rq->bio.bi_opf & (REQ_PREFLUSH | REQ_FUA) &&
	       rq->q->vb->memory->identity;
}

static void vdpa_blk_end_bio(struct bio *bio)
{
	struct vdpa_blk_request *rq = container_of(bio, struct vdpa_blk_request,
						   bio);
	bool defer = vdpa_blk_must_defer(rq);

	rq->result = vdpa_blk_to_status(bio->bi_status);
	bio_uninit(bio);
	if (unlikely(defer)) {
		INIT_WORK(&rq->flush_work, vdpa_blk_flush_work);
		queue_work(rq->q->vb->wq, &rq->flush_work);
		return;
	}
	vdpa_blk_complete(rq, rq->result);
}

/* The chain */

static u64 vdpa_blk_sum(const struct vdpa_blk_seg *segs, unsigned int nr)
{
	u64 sum = 0;

	while (nr--)
		sum += segs[nr].len;
	return sum;
}

/* Copy the first @len bytes of some segments, and drop them from the segments. */
static int vdpa_blk_take(struct vdpa_blk_queue *q, struct vdpa_blk_seg **segs,
			 unsigned int *nr, void *to, u32 len)
{
	struct vdpa_blk_seg *seg;
	u32 part;
	int err;

	while (len) {
		if (!*nr)
			return -EINVAL;
		seg = *segs;
		part = min(len, seg->len);
		err = vdpa_blk_read(q->vb->memory, &q->hint, to, seg->addr, part);
		if (err)
			return err;
		to += part;
		len -= part;
		seg->addr += part;
		seg->len -= part;
		if (!seg->len) {
			++*segs;
			--*nr;
		}
	}
	return 0;
}

/* The status is the last byte that the device writes (VIRTIO 1.3, 5.2.6). */
static u8 *vdpa_blk_find_status(struct vdpa_blk_queue *q)
{
	struct vdpa_blk_chain *chain = &q->chain;
	struct vdpa_blk_seg *last;
	unsigned int offset;
	struct page *page;

	if (!chain->nr_in)
		return NULL;
	last = &chain->segs[chain->nr_out + chain->nr_in - 1];
	last->len--;
	if (vdpa_blk_translate(q->vb->memory, &q->hint, last->addr + last->len,
			       1, true, &page, &offset) < 0)
		return NULL;
	if (!last->len)
		chain->nr_in--;
	return page_address(page) + offset;
}

static struct vdpa_blk_request *vdpa_blk_get_request(struct vdpa_blk_queue *q)
{
	struct vdpa_blk_request *rq;

	if (!q->free) {
		spin_lock_irq(&q->lock);
		q->free = q->returned;
		q->returned = NULL;
		spin_unlock_irq(&q->lock);
	}
	rq = q->free;
	if (rq)
		q->free = rq->next;
	return rq;
}

/* Data */

/*
 * A piece of data must not be less than a block: the block layer splits requests only
 * at blocks, and the backing device has a limit of pieces.
 */
static bool vdpa_blk_fits(struct block_device *bdev, u64 addr, u32 len)
{
	return !(addr & bdev_dma_alignment(bdev)) &&
	       !(len & (bdev_logical_block_size(bdev) - 1));
}

/* Data of many pieces needs a table; -EAGAIN if there is no memory for one now. */
static int vdpa_blk_use_table(struct vdpa_blk_request *rq)
{
	struct bio_vec *vecs;

	vecs = mempool_alloc(rq->q->vb->tables, GFP_NOWAIT | __GFP_NOWARN);
	if (!vecs)
		return -EAGAIN;
	memcpy(vecs, rq->inline_vecs, sizeof(rq->inline_vecs));
	rq->vecs = vecs;
	return 0;
}

/*
 * Let the bio name the driver's pages.  Returns the number of pieces; -EFAULT for what
 * the driver does not share, -EAGAIN if memory is short, -EINVAL for buffers that the
 * backing device cannot use where they are.
 */
static int vdpa_blk_map_data(struct vdpa_blk_queue *q,
			     struct vdpa_blk_request *rq,
			     const struct vdpa_blk_seg *segs, unsigned int nr,
			     bool write)
{
	struct block_device *bdev = q->vb->bdev;
	unsigned int vecs = 0, i, offset;
	struct page *page;
	int run, err;
	u64 addr;
	u32 len;

	for (i = 0; i < nr; i++) {
		addr = segs[i].addr;
		len = segs[i].len;
		if (!vdpa_blk_fits(bdev, addr, len))
			return -EINVAL;
		while (len) {
			run = vdpa_blk_translate(q->vb->memory, &q->hint, addr,
						 len, write, &page, &offset);
			if (run < 0)
				return run;
			if (vecs == VDPA_BLK_INLINE_VECS) {
				err = vdpa_blk_use_table(rq);
				if (err)
					return err;
			}
			if (vecs == VDPA_BLK_MAX_VECS)
				return -EINVAL;
			bvec_set_page(&rq->vecs[vecs++], page, run, offset);
			addr += run;
			len -= run;
		}
	}
	return vecs;
}

/* Operations that sleep */

static int vdpa_blk_copy_segs(struct vdpa_blk_queue *q,
			      const struct vdpa_blk_slow *slow, u64 at,
			      void *buf, u32 len, bool to_driver)
{
	unsigned int i, hint = 0;
	u32 part;
	int err;

	for (i = 0; i < slow->nr_segs && len; i++) {
		const struct vdpa_blk_seg *seg = &slow->segs[i];

		if (at >= seg->len) {
			at -= seg->len;
			continue;
		}
		part = min_t(u64, len, seg->len - at);
		err = to_driver ?
		      vdpa_blk_write(q->vb->memory, &hint, seg->addr + at, buf, part) :
		      vdpa_blk_read(q->vb->memory, &hint, buf, seg->addr + at, part);
		if (err)
			return err;
		buf += part;
		len -= part;
		at = 0;
	}
	return 0;
}

static int vdpa_blk_bounce_piece(struct vdpa_blk *vb, void *buf, u32 len,
				 u64 sector, blk_opf_t opf)
{
	struct bio_vec vec;
	struct bio bio;
	int err;

	bio_init(&bio, vb->bdev, &vec, 1, opf);
	bio.bi_iter.bi_sector = sector;
	__bio_add_page(&bio, virt_to_page(buf), len, offset_in_page(buf));
	err = submit_bio_wait(&bio);
	bio_uninit(&bio);
	return err;
}

/* Copy a read or write through memory that the backing device can use. */
static int vdpa_blk_bounce(struct vdpa_blk_slow *slow)
{
	struct vdpa_blk_queue *q = slow->rq->q;
	bool read = slow->type == VIRTIO_BLK_T_IN;
	u64 left = vdpa_blk_sum(slow->segs, slow->nr_segs), at = 0;
	blk_opf_t opf = read ? REQ_OP_READ : REQ_OP_WRITE;
	void *buf = page_address(mempool_alloc(q->vb->buffers, GFP_NOIO));
	int err = 0;
	u32 part;

	if (!read && !READ_ONCE(q->vb->writeback))
		opf |= REQ_FUA;
	for (; left && !err; left -= part, at += part) {
		if (READ_ONCE(q->vb->stopping)) {
			err = -EIO;
			break;
		}
		part = min_t(u64, left, VDPA_BLK_BOUNCE_BYTES);
		if (!read)
			err = vdpa_blk_copy_segs(q, slow, at, buf, part, false);
		if (!err)
			err = vdpa_blk_bounce_piece(q->vb, buf, part, slow->sector +
						    (at >> SECTOR_SHIFT), opf);
		if (!err && read)
			err = vdpa_blk_copy_segs(q, slow, at, buf, part, true);
	}
	mempool_free(virt_to_page(buf), q->vb->buffers);
	return err;
}

static int vdpa_blk_erase(struct vdpa_blk *vb, u32 type, u64 sector, u32 nr,
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

static int vdpa_blk_erase_all(struct vdpa_blk_slow *slow)
{
	struct vdpa_blk *vb = slow->rq->q->vb;
	unsigned int i;
	int err = 0;

	for (i = 0; i < slow->nr_ranges && !err; i++) {
		if (READ_ONCE(vb->stopping))
			return -EIO;
		err = vdpa_blk_erase(vb, slow->type,
				     le64_to_cpu(slow->ranges[i].sector),
				     le32_to_cpu(slow->ranges[i].num_sectors),
				     le32_to_cpu(slow->ranges[i].flags) &
				     VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP);
	}
	/* Zeroes are a write, and must be as durable (VIRTIO 1.3, 5.2.6.2). */
	if (!err && slow->type == VIRTIO_BLK_T_WRITE_ZEROES &&
	    !READ_ONCE(vb->writeback))
		err = blkdev_issue_flush(vb->bdev);
	return err;
}

static void vdpa_blk_slow_work(struct work_struct *work)
{
	struct vdpa_blk_slow *slow = container_of(work, struct vdpa_blk_slow,
						  work);
	struct vdpa_blk_request *rq = slow->rq;
	struct vdpa_blk *vb = rq->q->vb;
	unsigned int noio = memalloc_noio_save();
	int err;

	err = slow->nr_ranges ? vdpa_blk_erase_all(slow) : vdpa_blk_bounce(slow);
	memalloc_noio_restore(noio);
	mempool_free(slow, vb->slow_pool);
	vdpa_blk_restart_stalled(vb);
	vdpa_blk_complete(rq, vdpa_blk_to_status(errno_to_blk_status(err)));
}

static struct vdpa_blk_slow *vdpa_blk_alloc_slow(struct vdpa_blk_request *rq,
						 u32 type)
{
	struct vdpa_blk_slow *slow = mempool_alloc(rq->q->vb->slow_pool,
						   GFP_NOWAIT | __GFP_NOWARN);

	if (!slow)
		return NULL;
	INIT_WORK(&slow->work, vdpa_blk_slow_work);
	slow->rq = rq;
	slow->type = type;
	slow->nr_segs = 0;
	slow->nr_ranges = 0;
	return slow;
}

/*
 * Requests by type: each returns a status to complete with; -EINPROGRESS; or -EAGAIN if
 * memory is short, and the request must be taken off the ring again
 */

static bool vdpa_blk_in_capacity(struct vdpa_blk *vb, u64 sector, u64 sectors)
{
	u64 capacity = bdev_nr_sectors(vb->bdev);
	u32 block = bdev_logical_block_size(vb->bdev) >> SECTOR_SHIFT;

	return sector <= capacity && sectors <= capacity - sector &&
	       !((sector | sectors) & (block - 1));
}

static int vdpa_blk_read_write(struct vdpa_blk_queue *q,
			       struct vdpa_blk_request *rq, u32 type, u64 sector,
			       const struct vdpa_blk_seg *segs, unsigned int nr)
{
	bool read = type == VIRTIO_BLK_T_IN;
	u64 bytes = vdpa_blk_sum(segs, nr);
	struct vdpa_blk *vb = q->vb;
	struct vdpa_blk_slow *slow;
	blk_opf_t opf;
	int vecs;

	if (!bytes || bytes > UINT_MAX || bytes & (SECTOR_SIZE - 1) ||
	    !vdpa_blk_in_capacity(vb, sector, bytes >> SECTOR_SHIFT))
		return VIRTIO_BLK_S_IOERR;
	if (!read && vb->settings.readonly)
		return VIRTIO_BLK_S_IOERR;

	q->stats.requests[read ? VDPA_BLK_READ : VDPA_BLK_WRITE]++;
	q->stats.bytes[read ? VDPA_BLK_READ : VDPA_BLK_WRITE] += bytes;
	if (read)
		rq->len += bytes;
	vecs = vdpa_blk_map_data(q, rq, segs, nr, read);
	if (unlikely(vecs == -EFAULT))
		return VIRTIO_BLK_S_IOERR;
	if (unlikely(vecs == -EAGAIN))
		return vecs;
	if (unlikely(vecs < 0)) {
		slow = vdpa_blk_alloc_slow(rq, type);
		if (!slow)
			return -EAGAIN;
		q->stats.bounced++;
		slow->sector = sector;
		slow->nr_segs = nr;
		memcpy(slow->segs, segs, nr * sizeof(*segs));
		queue_work(vb->wq, &slow->work);
		return -EINPROGRESS;
	}

	opf = read ? REQ_OP_READ : REQ_OP_WRITE | REQ_SYNC | REQ_IDLE;
	/* Without a write cache a write that is done is durable. */
	if (!read && !READ_ONCE(vb->writeback))
		opf |= REQ_FUA;
	bio_init(&rq->bio, vb->bdev, rq->vecs, vecs, opf);
	rq->bio.bi_vcnt = vecs;
	rq->bio.bi_iter.bi_sector = sector;
	rq->bio.bi_iter.bi_size = bytes;
	rq->bio.bi_end_io = vdpa_blk_end_bio;
	submit_bio(&rq->bio);
	return -EINPROGRESS;
}

static int vdpa_blk_flush(struct vdpa_blk_queue *q, struct vdpa_blk_request *rq)
{
	q->stats.requests[VDPA_BLK_FLUSH]++;
	if (!bdev_write_cache(q->vb->bdev))
		return VIRTIO_BLK_S_OK;
	bio_init(&rq->bio, q->vb->bdev, NULL, 0, REQ_OP_WRITE | REQ_PREFLUSH);
	rq->bio.bi_end_io = vdpa_blk_end_bio;
	submit_bio(&rq->bio);
	return -EINPROGRESS;
}

static int vdpa_blk_get_id(struct vdpa_blk_queue *q, struct vdpa_blk_request *rq,
			   const struct vdpa_blk_seg *segs, unsigned int nr)
{
	const char *serial = q->vb->settings.serial;
	u32 at = 0, part;

	q->stats.requests[VDPA_BLK_OTHER]++;
	for (; nr && at < VIRTIO_BLK_ID_BYTES; segs++, nr--) {
		part = min_t(u32, segs->len, VIRTIO_BLK_ID_BYTES - at);
		if (vdpa_blk_write(q->vb->memory, &q->hint, segs->addr,
				   serial + at, part))
			return VIRTIO_BLK_S_IOERR;
		at += part;
	}
	rq->len += at;
	return VIRTIO_BLK_S_OK;
}

static u64 vdpa_blk_erase_feature(u32 type)
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

/* VIRTIO 1.3, 5.2.6.2: unknown flags, and unmap except for zeroes, are UNSUPP. */
static int vdpa_blk_check_range(struct vdpa_blk *vb, u32 type,
				const struct virtio_blk_discard_write_zeroes *range)
{
	u32 flags = le32_to_cpu(range->flags);
	u32 sectors = le32_to_cpu(range->num_sectors), most;

	if (flags & ~VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP ||
	    (flags && type != VIRTIO_BLK_T_WRITE_ZEROES))
		return VIRTIO_BLK_S_UNSUPP;
	most = type == VIRTIO_BLK_T_DISCARD ?
	       le32_to_cpu((__force __le32)vb->config.max_discard_sectors) :
	       type == VIRTIO_BLK_T_SECURE_ERASE ?
	       le32_to_cpu((__force __le32)vb->config.max_secure_erase_sectors) :
	       le32_to_cpu((__force __le32)vb->config.max_write_zeroes_sectors);
	if (sectors > most || !vdpa_blk_in_capacity(vb, le64_to_cpu(range->sector),
						    sectors))
		return VIRTIO_BLK_S_IOERR;
	return VIRTIO_BLK_S_OK;
}

static int vdpa_blk_ranges(struct vdpa_blk_queue *q, struct vdpa_blk_request *rq,
			   u32 type, struct vdpa_blk_seg *segs, unsigned int nr)
{
	u64 bytes = vdpa_blk_sum(segs, nr);
	struct vdpa_blk *vb = q->vb;
	struct vdpa_blk_slow *slow;
	unsigned int i, count;
	int status = VIRTIO_BLK_S_IOERR;

	q->stats.requests[VDPA_BLK_OTHER]++;
	if (!(vb->driver_features & vdpa_blk_erase_feature(type)))
		return VIRTIO_BLK_S_UNSUPP;
	count = bytes / sizeof(slow->ranges[0]);
	if (!count || bytes % sizeof(slow->ranges[0]) ||
	    count > VDPA_BLK_MAX_RANGES || vb->settings.readonly)
		return VIRTIO_BLK_S_IOERR;
	slow = vdpa_blk_alloc_slow(rq, type);
	if (!slow)
		return -EAGAIN;
	if (vdpa_blk_take(q, &segs, &nr, slow->ranges, bytes))
		goto out_free;
	for (i = 0; i < count; i++) {
		status = vdpa_blk_check_range(vb, type, &slow->ranges[i]);
		if (status != VIRTIO_BLK_S_OK)
			goto out_free;
	}
	slow->nr_ranges = count;
	queue_work(vb->wq, &slow->work);
	return -EINPROGRESS;

out_free:
	mempool_free(slow, vb->slow_pool);
	return status;
}

static int vdpa_blk_execute(struct vdpa_blk_queue *q,
			    struct vdpa_blk_request *rq)
{
	struct vdpa_blk_chain *chain = &q->chain;
	struct vdpa_blk_seg *out = chain->segs, *in = out + chain->nr_out;
	unsigned int nr_out = chain->nr_out;
	struct virtio_blk_outhdr hdr;
	u64 sector;
	u32 type;

	if (vdpa_blk_take(q, &out, &nr_out, &hdr, sizeof(hdr)))
		return VIRTIO_BLK_S_IOERR;
	type = le32_to_cpu((__force __le32)hdr.type);
	sector = le64_to_cpu((__force __le64)hdr.sector);
	trace_vdpa_blk_begin(q, rq->id, type, sector);
	if (READ_ONCE(q->vb->gone))
		return VIRTIO_BLK_S_IOERR;

	switch (type) {
	case VIRTIO_BLK_T_IN:
		return vdpa_blk_read_write(q, rq, type, sector, in, chain->nr_in);
	case VIRTIO_BLK_T_OUT:
		return vdpa_blk_read_write(q, rq, type, sector, out, nr_out);
	case VIRTIO_BLK_T_FLUSH:
		return vdpa_blk_flush(q, rq);
	case VIRTIO_BLK_T_GET_ID:
		return vdpa_blk_get_id(q, rq, in, chain->nr_in);
	case VIRTIO_BLK_T_DISCARD:
	case VIRTIO_BLK_T_WRITE_ZEROES:
	case VIRTIO_BLK_T_SECURE_ERASE:
		return vdpa_blk_ranges(q, rq, type, out, nr_out);
	default:
		return VIRTIO_BLK_S_UNSUPP;
	}
}

/**
 * vdpa_blk_handle_chain() - serve the chain that vdpa_blk_next_chain() has found
 * @q: the queue
 *
 * Context: the queue's worker, in a batch.
 *
 * Return: 0; -EAGAIN if memory is short; -EINVAL if the chain has no status byte, or
 * there are more in flight than the ring has entries, and the queue must not be used any
 * more.
 */
int vdpa_blk_handle_chain(struct vdpa_blk_queue *q)
{
	struct vdpa_blk_request *rq;
	u8 *byte;
	int status;

	byte = vdpa_blk_find_status(q);
	if (unlikely(!byte))
		return -EINVAL;
	rq = vdpa_blk_get_request(q);
	if (unlikely(!rq))
		return -EINVAL;
	rq->id = q->chain.id;
	rq->descs = q->chain.descs;
	rq->status = byte;
	rq->len = 1;
	rq->status_only = !q->chain.nr_in;
	atomic_inc(&q->in_flight);
	status = vdpa_blk_execute(q, rq);
	if (unlikely(status == -EAGAIN)) {
		vdpa_blk_free_table(rq);
		rq->next = q->free;
		q->free = rq;
		vdpa_blk_drop_in_flight(q, 1);
		return status;
	}
	if (status >= 0)
		vdpa_blk_complete(rq, status);
	return 0;
}

/**
 * vdpa_blk_alloc_pools() - allocate what a device has in reserve, and its workqueue
 * @vb: the device
 *
 * Return: 0 or -ENOMEM; vdpa_blk_free_pools() frees what there is.
 */
int vdpa_blk_alloc_pools(struct vdpa_blk *vb)
{
	unsigned int order = get_order(max(VDPA_BLK_BOUNCE_BYTES,
					   bdev_logical_block_size(vb->bdev)));

	vb->tables = mempool_create_slab_pool(VDPA_BLK_RESERVED_TABLES,
					      vdpa_blk_table_cache);
	vb->slow_pool = mempool_create_slab_pool(VDPA_BLK_RESERVED_SLOW,
						 vdpa_blk_slow_cache);
	vb->buffers = mempool_create_page_pool(1, order);
	vb->wq = alloc_workqueue("vdpa_blk/%s", WQ_UNBOUND | WQ_MEM_RECLAIM,
				 VDPA_BLK_RESERVED_SLOW, dev_name(&vb->vdpa.dev));
	return vb->tables && vb->slow_pool && vb->buffers && vb->wq ? 0 : -ENOMEM;
}

/**
 * vdpa_blk_free_pools() - free what vdpa_blk_alloc_pools() has allocated
 * @vb: the device, with nothing in flight
 */
void vdpa_blk_free_pools(struct vdpa_blk *vb)
{
	if (vb->wq)
		destroy_workqueue(vb->wq);
	mempool_destroy(vb->buffers);
	mempool_destroy(vb->slow_pool);
	mempool_destroy(vb->tables);
}

/**
 * vdpa_blk_init_requests() - allocate what all devices share
 *
 * Return: 0 or -ENOMEM.
 */
int vdpa_blk_init_requests(void)
{
	vdpa_blk_table_cache = kmem_cache_create("vdpa_blk_vecs", VDPA_BLK_MAX_VECS *
						 sizeof(struct bio_vec), 0, 0, NULL);
	if (!vdpa_blk_table_cache)
		return -ENOMEM;
	vdpa_blk_slow_cache = kmem_cache_create("vdpa_blk_slow",
						sizeof(struct vdpa_blk_slow),
						0, 0, NULL);
	if (!vdpa_blk_slow_cache) {
		kmem_cache_destroy(vdpa_blk_table_cache);
		return -ENOMEM;
	}
	return 0;
}

/**
 * vdpa_blk_exit_requests() - undo vdpa_blk_init_requests()
 */
void vdpa_blk_exit_requests(void)
{
	kmem_cache_destroy(vdpa_blk_slow_cache);
	kmem_cache_destroy(vdpa_blk_table_cache);
}
