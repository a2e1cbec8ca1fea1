// SPDX-License-Identifier: GPL-2.0
/*
 * A request's way: from its chain to a bio on the backing device, and back.
 *
 * The worker submits reads, writes and flushes without an allocation and without a copy:
 * the bio names the driver's own pages.  Operations that sleep or allocate memory go to a
 * workqueue, see slow.c.
 *
 * The device completes a chain that is well formed with an error if it cannot serve it.  A
 * chain without a status byte that the device can write to breaks the queue.
 */

#include <linux/mempool.h>
#include <linux/sched/mm.h>
#include <linux/unaligned.h>

#include "chain.h"
#include "complete.h"
#include "memory.h"
#include "queue.h"
#include "request.h"
#include "trace.h"
#include "vdpa_blk.h"
#include "zoned.h"

/* Data of more than this is copied, because a reset can end a copy at any piece. */
#define VDPA_BLK_MAX_DIRECT	((unsigned int)SZ_16M)

/* Reads, writes and appends */

/* Make the bio of a read, write or append, whose data is in @rq->vecs. */
static __always_inline void
vdpa_blk_init_bio(struct vdpa_blk_request *rq, u32 type, u64 sector,
		  unsigned int vecs, u32 bytes)
{
	struct vdpa_blk *vb = rq->q->vb;

	bio_init(&rq->bio, vb->bdev, rq->vecs, vecs, vdpa_blk_opf(vb, type));
	rq->bio.bi_vcnt = vecs;
	rq->bio.bi_iter.bi_sector = sector;
	rq->bio.bi_iter.bi_size = bytes;
	rq->bio.bi_end_io = vb->end_io;
}

static u32 vdpa_blk_type_of(const struct bio *bio)
{
	switch (bio_op(bio)) {
	case REQ_OP_READ:
		return VIRTIO_BLK_T_IN;
	case REQ_OP_ZONE_APPEND:
		return VIRTIO_BLK_T_ZONE_APPEND;
	default:
		return VIRTIO_BLK_T_OUT;
	}
}

static void vdpa_blk_zone_error_work(struct work_struct *work)
{
	struct vdpa_blk_request *rq = container_of(work, struct vdpa_blk_request,
						   end_work);
	u32 type = vdpa_blk_type_of(&rq->bio);
	unsigned int noio = memalloc_noio_save();
	bool again;

	rq->result = vdpa_blk_find_zone_status(rq->q->vb, type, rq->sector, rq->sectors,
					       rq->bio.bi_status, &again);
	if (again && !rq->resubmitted) {
		rq->resubmitted = true;
		vdpa_blk_init_bio(rq, type, rq->sector, rq->bio.bi_vcnt,
				  rq->sectors << SECTOR_SHIFT);
		submit_bio(&rq->bio);
	} else {
		vdpa_blk_complete(rq, rq->result);
	}
	memalloc_noio_restore(noio);
}

/**
 * vdpa_blk_end_zoned_bio() - end a bio of a device with zones
 * @bio: the bio
 *
 * To find out why a zone refuses a request, the device must sleep.
 *
 * Context: any.
 */
void vdpa_blk_end_zoned_bio(struct bio *bio)
{
	struct vdpa_blk_request *rq = container_of(bio, struct vdpa_blk_request,
						   bio);

	/* Without zones the work, and what it calls, is not built. */
	if (!IS_ENABLED(CONFIG_BLK_DEV_ZONED) || likely(!bio->bi_status)) {
		if (bio_op(bio) == REQ_OP_ZONE_APPEND)
			put_unaligned_le64(bio->bi_iter.bi_sector, rq->append);
		vdpa_blk_end_bio(bio);
		return;
	}
	bio_uninit(bio);
	INIT_WORK(&rq->end_work, vdpa_blk_zone_error_work);
	queue_work(rq->q->vb->wq, &rq->end_work);
}

/* The chain */

/* The header is one buffer in most chains, but need not be (VIRTIO 1.4, 2.7.4.2). */
static int vdpa_blk_take_header(struct vdpa_blk_queue *q)
{
	struct vdpa_blk_chain *chain = &q->chain;
	struct vdpa_blk_seg *seg = chain->segs;

	chain->taken = 0;
	if (unlikely(!chain->nr_out || seg->len != sizeof(q->header)))
		return vdpa_blk_take_bytes(q, &q->header, sizeof(q->header));
	chain->taken = 1;
	return vdpa_blk_read(q->vb->memory, &q->hint, &q->header, seg->addr,
			     sizeof(q->header));
}

/* The status is the last byte that the device writes (VIRTIO 1.4, 5.2.6). */
static u8 *vdpa_blk_find_status(struct vdpa_blk_queue *q)
{
	struct vdpa_blk_chain *chain = &q->chain;
	struct vdpa_blk_seg *last;
	u64 phys;

	if (!chain->nr_in)
		return NULL;
	last = &chain->segs[chain->nr_out + chain->nr_in - 1];
	last->len--;
	if (!vdpa_blk_translate(q->vb->memory, &q->hint, last->addr + last->len, 1,
				true, &phys))
		return NULL;
	if (!last->len)
		chain->nr_in--;
	return phys_to_virt(phys);
}

static noinline void vdpa_blk_get_returned(struct vdpa_blk_queue *q)
{
	spin_lock_irq(&q->lock);
	q->free = q->returned;
	q->returned = NULL;
	spin_unlock_irq(&q->lock);
}

static struct vdpa_blk_request *vdpa_blk_get_request(struct vdpa_blk_queue *q)
{
	struct vdpa_blk_request *rq;

	if (unlikely(!q->free))
		vdpa_blk_get_returned(q);
	rq = q->free;
	if (rq)
		q->free = rq->next;
	return rq;
}

/* Data */

/*
 * Add up the bytes of a request's data.  @fits is set to whether the backing device can
 * use all segments where they are.
 */
static u64 vdpa_blk_measure_data(const struct vdpa_blk *vb, const struct vdpa_blk_seg *segs,
				 unsigned int nr, bool *fits)
{
	u64 bytes = 0, addrs = 0, lens = 0;

	for (; nr; segs++, nr--) {
		bytes += segs->len;
		addrs |= segs->addr;
		lens |= segs->len;
	}
	*fits = !((addrs | lens) & READ_ONCE(vb->align_mask));
	return bytes;
}

/*
 * Make room for another piece.  Data of many pieces needs a table; -EAGAIN if there is no
 * memory for one now, -EINVAL if a bio cannot have as many pieces.
 */
static int vdpa_blk_use_table(struct vdpa_blk_request *rq, unsigned int vecs)
{
	struct bio_vec *table;

	if (vecs > VDPA_BLK_INLINE_VECS)
		return vecs < VDPA_BLK_MAX_VECS ? 0 : -EINVAL;
	table = mempool_alloc(rq->q->vb->tables, GFP_NOWAIT | __GFP_NOWARN);
	if (!table)
		return -EAGAIN;
	memcpy(table, rq->inline_vecs, sizeof(rq->inline_vecs));
	rq->vecs = table;
	return 0;
}

static noinline int vdpa_blk_map_pieces(struct vdpa_blk_queue *q,
					struct vdpa_blk_request *rq,
					const struct vdpa_blk_seg *segs,
					unsigned int nr, bool write)
{
	u64 mask = READ_ONCE(q->vb->align_mask), addr, phys;
	unsigned int vecs = 0;
	u32 len, run;
	int err;

	for (; nr; segs++, nr--) {
		addr = segs->addr;
		for (len = segs->len; len; len -= run) {
			run = vdpa_blk_translate(q->vb->memory, &q->data_hint, addr, len,
						 write, &phys);
			if (unlikely(!run))
				return -EFAULT;
			/*
			 * Extents can meet inside a block that is larger than a page.
			 * Within a page a physical address is aligned as the driver's.
			 */
			if (unlikely(run & mask))
				return -EINVAL;
			if (unlikely(vecs >= VDPA_BLK_INLINE_VECS)) {
				err = vdpa_blk_use_table(rq, vecs);
				if (err)
					return err;
			}
			bvec_set_page(&rq->vecs[vecs++], pfn_to_page(PHYS_PFN(phys)),
				      run, offset_in_page(phys));
			addr += run;
		}
	}
	return vecs;
}

/*
 * Let the bio name the driver's pages.  Returns the number of pieces; -EFAULT for what
 * the driver does not share, -EAGAIN if memory is short, -EINVAL for too many pieces or
 * one that is not aligned.
 */
static int vdpa_blk_map_data(struct vdpa_blk_queue *q,
			     struct vdpa_blk_request *rq,
			     const struct vdpa_blk_seg *segs, unsigned int nr,
			     bool write)
{
	u32 len = segs->len;
	u64 phys;

	/* Small requests are of one piece, which needs no loop. */
	if (nr > 1 || vdpa_blk_translate(q->vb->memory, &q->data_hint, segs->addr, len,
					 write, &phys) < len)
		return vdpa_blk_map_pieces(q, rq, segs, nr, write);
	bvec_set_page(rq->inline_vecs, pfn_to_page(PHYS_PFN(phys)), len,
		      offset_in_page(phys));
	return 1;
}

/*
 * Execution.  A function returns a status to complete the request with; -EINPROGRESS; or
 * -EAGAIN if the request must wait, and the worker must take it off the ring again.
 */

static void vdpa_blk_count_data(struct vdpa_blk_queue *q, u32 type, u64 bytes)
{
	enum vdpa_blk_kind kind = type == VIRTIO_BLK_T_IN ? VDPA_BLK_READ :
							    VDPA_BLK_WRITE;

	q->stats.requests[kind]++;
	q->stats.bytes[kind] += bytes;
}

/*
 * Have a read, write or append copied; -EAGAIN if memory is short.  @must_copy then makes the
 * next try copy at once.  It must not map the data again: that could take a table, and
 * freeing the table makes other queues try again that may wait for the same memory.
 */
static int vdpa_blk_queue_copy(struct vdpa_blk_queue *q, struct vdpa_blk_request *rq,
			       u32 type, u64 sector, const struct vdpa_blk_seg *segs,
			       unsigned int nr)
{
	struct vdpa_blk_slow *slow = vdpa_blk_alloc_slow(rq, type);
	struct vdpa_blk_chain *chain = &q->chain;

	q->must_copy = !slow;
	if (!slow)
		return -EAGAIN;
	vdpa_blk_count_data(q, type, vdpa_blk_sum(segs, nr));
	q->stats.bounced++;
	slow->sector = sector;
	slow->nr_segs = nr;
	memcpy(slow->segs, segs, nr * sizeof(*segs));
	if (type == VIRTIO_BLK_T_ZONE_APPEND) {
		slow->nr_sector_segs = chain->nr_in;
		memcpy(slow->segs + nr, chain->segs + chain->nr_out,
		       chain->nr_in * sizeof(*segs));
	}
	vdpa_blk_queue_slow(slow);
	return -EINPROGRESS;
}

/* Check a request against the zones.  -EAGAIN if it must wait for the writes before it. */
static noinline int vdpa_blk_check_zoned(struct vdpa_blk_queue *q,
					 struct vdpa_blk_request *rq, u32 type,
					 u64 sector, u64 bytes)
{
	if (READ_ONCE(q->vb->gone))
		return VIRTIO_BLK_S_IOERR;
	rq->sector = sector;
	rq->sectors = bytes >> SECTOR_SHIFT;
	rq->resubmitted = false;
	if (type != VIRTIO_BLK_T_IN && atomic_read(&q->copied_writes))
		return -EAGAIN;
	return vdpa_blk_check_zones(q->vb, type, sector, rq->sectors);
}

static int vdpa_blk_execute_data(struct vdpa_blk_queue *q,
				 struct vdpa_blk_request *rq, u32 type, u64 sector,
				 const struct vdpa_blk_seg *segs, unsigned int nr)
{
	bool read = type == VIRTIO_BLK_T_IN, fits;
	struct vdpa_blk *vb = q->vb;
	int vecs, status;
	u64 bytes;

	bytes = vdpa_blk_measure_data(vb, segs, nr, &fits);
	/* What fits is of whole blocks.  Without data the length is 0. */
	if (unlikely(!fits || bytes - 1 >= VDPA_BLK_MAX_DIRECT)) {
		if (!bytes || bytes > UINT_MAX || bytes & (SECTOR_SIZE - 1))
			return VIRTIO_BLK_S_IOERR;
		fits = false;
	}
	if (!read && vb->settings.readonly)
		return VIRTIO_BLK_S_IOERR;
	if (vdpa_blk_is_zoned(vb)) {
		status = vdpa_blk_check_zoned(q, rq, type, sector, bytes);
		if (status != VIRTIO_BLK_S_OK)
			return status;
	}
	if (!vdpa_blk_in_capacity(vb, sector, bytes >> SECTOR_SHIFT))
		return VIRTIO_BLK_S_IOERR;

	if (read)
		rq->len = bytes + 1;
	else if (type == VIRTIO_BLK_T_OUT)
		rq->len = rq->status_only;
	/* Before a table is taken: freeing it would make the worker try again. */
	if (unlikely(!fits || q->must_copy))
		return vdpa_blk_queue_copy(q, rq, type, sector, segs, nr);
	vecs = vdpa_blk_map_data(q, rq, segs, nr, read);
	if (unlikely(vecs < 0)) {
		if (vecs == -EFAULT)
			return VIRTIO_BLK_S_IOERR;
		if (vecs == -EAGAIN)
			return vecs;
		return vdpa_blk_queue_copy(q, rq, type, sector, segs, nr);
	}

	vdpa_blk_init_bio(rq, type, sector, vecs, bytes);
	if (type == VIRTIO_BLK_T_ZONE_APPEND &&
	    (!rq->append || !vdpa_blk_append_fits(&rq->bio))) {
		bio_uninit(&rq->bio);
		return vdpa_blk_queue_copy(q, rq, type, sector, segs, nr);
	}
	vdpa_blk_count_data(q, type, bytes);
	submit_bio(&rq->bio);
	return -EINPROGRESS;
}

/*
 * VIRTIO 1.4, 5.2.6: the device writes the sector of an append before the status.  Where
 * that is in several pieces, the append is copied.  Returns a status; if it is OK, the
 * append goes on as a write.
 */
static noinline int vdpa_blk_prepare_append(struct vdpa_blk_queue *q,
					    struct vdpa_blk_request *rq)
{
	struct vdpa_blk_chain *chain = &q->chain;
	const struct vdpa_blk_seg *in = chain->segs + chain->nr_out;
	const u32 len = sizeof(__le64);
	u64 phys;

	if (!vdpa_blk_is_zoned(q->vb))
		return VIRTIO_BLK_S_UNSUPP;
	if (vdpa_blk_sum(in, chain->nr_in) != len)
		return VIRTIO_BLK_S_IOERR;
	rq->len = len + 1;
	rq->append = NULL;
	if (vdpa_blk_translate(q->vb->memory, &q->hint, in->addr, in->len, true,
			       &phys) == len)
		rq->append = phys_to_virt(phys);
	return VIRTIO_BLK_S_OK;
}

static int vdpa_blk_execute(struct vdpa_blk_queue *q,
			    struct vdpa_blk_request *rq)
{
	struct vdpa_blk_chain *chain = &q->chain;
	unsigned int first, nr;
	int status;
	u64 sector;
	u32 type;

	if (unlikely(vdpa_blk_take_header(q)))
		return VIRTIO_BLK_S_IOERR;
	type = le32_to_cpu((__force __le32)q->header.type);
	sector = le64_to_cpu((__force __le64)q->header.sector);
	trace_vdpa_blk_begin(q, rq->id, type, sector);

	first = chain->taken;
	nr = chain->nr_out - first;
	if (likely(type == VIRTIO_BLK_T_IN)) {
		first = chain->nr_out;
		nr = chain->nr_in;
	} else if (type == VIRTIO_BLK_T_ZONE_APPEND) {
		status = vdpa_blk_prepare_append(q, rq);
		if (status != VIRTIO_BLK_S_OK)
			return status;
	} else if (unlikely(type != VIRTIO_BLK_T_OUT)) {
		return vdpa_blk_execute_nodata(q, rq, type, sector);
	}
	return vdpa_blk_execute_data(q, rq, type, sector, chain->segs + first, nr);
}

/**
 * vdpa_blk_handle_any() - vdpa_blk_handle_chain() for all chains, usual or not
 * @q: the queue
 *
 * A function of its own, so that vdpa_blk_handle_chain() saves few registers.
 *
 * Return: see there.
 */
noinline int vdpa_blk_handle_any(struct vdpa_blk_queue *q)
{
	struct vdpa_blk_request *rq;
	int status, err;
	u8 *byte;

	err = vdpa_blk_take_chain(q);
	if (unlikely(err <= 0))
		return err;
	byte = vdpa_blk_find_status(q);
	if (unlikely(!byte))
		return -EINVAL;
	rq = vdpa_blk_get_request(q);
	if (unlikely(!rq))
		return -EINVAL;
	rq->id = q->chain.id;
	rq->descs = q->chain.descs;
	rq->status = byte;
	rq->status_only = !q->chain.nr_in;
	atomic_inc(&q->in_flight);
	status = vdpa_blk_execute(q, rq);
	if (unlikely(status == -EAGAIN)) {
		vdpa_blk_free_table(rq);
		rq->next = q->free;
		q->free = rq;
		atomic_dec(&q->in_flight);
		return status;
	}
	if (status >= 0) {
		vdpa_blk_complete(rq, status);
		/* The next chain's bio may make the worker sleep. */
		vdpa_blk_flush_completions(q);
	}
	return 1;
}

/*
 * The usual chain of a split ring: a table of three descriptors, for the header, data in one
 * piece and the status byte.  It takes no loop.
 *
 * The worker copies the table and the header once, checks the copies, and uses them.  It
 * changes nothing before all checks have passed.  vdpa_blk_handle_any() serves all other
 * chains, good or bad, and reads them again from the beginning.
 */

/* Whether the next chain looks so; its table is in @q->table and its header in @q->header. */
static __always_inline bool vdpa_blk_read_usual(struct vdpa_blk_queue *q, u16 *head)
{
	const struct vring_desc *desc = vdpa_blk_find_head(&q->ring, head);
	struct vring_desc *table = q->table.split;
	const u32 size = 3 * sizeof(*table);

	if (unlikely(!desc ||
		     virtio16_to_cpu_le(READ_ONCE(desc->flags)) != VRING_DESC_F_INDIRECT ||
		     virtio32_to_cpu_le(READ_ONCE(desc->len)) != size))
		return false;
	if (unlikely(!vdpa_blk_read_table(q, table, virtio64_to_cpu_le(READ_ONCE(desc->addr)),
					  size)))
		return false;
	if (unlikely(virtio32_to_cpu_le(table[0].len) != sizeof(q->header) ||
		     virtio16_to_cpu_le(table[0].flags) != VRING_DESC_F_NEXT ||
		     virtio16_to_cpu_le(table[0].next) != 1 ||
		     (virtio16_to_cpu_le(table[1].flags) | VRING_DESC_F_WRITE) !=
		     (VRING_DESC_F_NEXT | VRING_DESC_F_WRITE) ||
		     virtio16_to_cpu_le(table[1].next) != 2 ||
		     virtio16_to_cpu_le(table[2].flags) != VRING_DESC_F_WRITE ||
		     virtio32_to_cpu_le(table[2].len) != 1))
		return false;
	return !vdpa_blk_read(q->vb->memory, &q->hint, &q->header,
			      virtio64_to_cpu_le(table[0].addr), sizeof(q->header));
}

/* Take the usual chain, and make its bio.  NULL if it is another one, or has to wait. */
static __always_inline struct vdpa_blk_request *
vdpa_blk_take_usual(struct vdpa_blk_queue *q)
{
	const struct vring_desc *data = &q->table.split[1], *last = &q->table.split[2];
	struct vdpa_blk_request *rq = q->free;
	struct vdpa_blk *vb = q->vb;
	u64 addr, sector, status, phys;
	u32 type, bytes;
	bool read;
	u16 head;

	if (unlikely(!rq || q->ring.packed || q->must_copy || vdpa_blk_is_zoned(vb) ||
		     !vdpa_blk_read_usual(q, &head)))
		return NULL;
	type = le32_to_cpu((__force __le32)q->header.type);
	sector = le64_to_cpu((__force __le64)q->header.sector);
	addr = virtio64_to_cpu_le(data->addr);
	bytes = virtio32_to_cpu_le(data->len);
	read = virtio16_to_cpu_le(data->flags) & VRING_DESC_F_WRITE;
	if (unlikely(type != (read ? VIRTIO_BLK_T_IN : VIRTIO_BLK_T_OUT) ||
		     (!read && vb->settings.readonly)))
		return NULL;
	/* As in vdpa_blk_execute_data(): data that fits is of whole blocks. */
	if (unlikely((addr | bytes) & READ_ONCE(vb->align_mask) ||
		     bytes - 1 >= VDPA_BLK_MAX_DIRECT ||
		     !vdpa_blk_in_capacity(vb, sector, bytes >> SECTOR_SHIFT)))
		return NULL;
	if (unlikely(!vdpa_blk_translate(vb->memory, &q->hint, virtio64_to_cpu_le(last->addr),
					 1, true, &status) ||
		     vdpa_blk_translate(vb->memory, &q->data_hint, addr, bytes, read,
					&phys) < bytes))
		return NULL;

	q->ring.next_avail++;
	q->ring.left--;
	q->free = rq->next;
	rq->id = head;
	rq->descs = 1;
	rq->status = phys_to_virt(status);
	rq->status_only = !read;
	rq->len = read ? bytes + 1 : 1;
	atomic_inc(&q->in_flight);
	trace_vdpa_blk_begin(q, head, type, sector);
	bvec_set_page(rq->inline_vecs, pfn_to_page(PHYS_PFN(phys)), bytes,
		      offset_in_page(phys));
	vdpa_blk_init_bio(rq, type, sector, 1, bytes);
	vdpa_blk_count_data(q, type, bytes);
	return rq;
}

/**
 * vdpa_blk_handle_chain() - take the next chain off the ring, and serve it
 * @q: the queue, with a chain by vdpa_blk_find_chains()
 *
 * Context: the queue's worker, in a batch.
 *
 * Return: 1; 0 if the chain is not there any more; -EAGAIN if it has to wait for memory, or
 * for a write that is copied, and the caller must put it back; -EINVAL if the ring or the
 * chain is broken or has no status byte, or there are more in flight than a ring has entries
 * at most, and the queue must not be used any more.
 */
int vdpa_blk_handle_chain(struct vdpa_blk_queue *q)
{
	struct vdpa_blk_request *rq = vdpa_blk_take_usual(q);

	if (unlikely(!rq))
		return vdpa_blk_handle_any(q);
	submit_bio(&rq->bio);
	return 1;
}
