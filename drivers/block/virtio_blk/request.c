// SPDX-License-Identifier: GPL-2.0
/*
 * A request as the device sees it (VIRTIO 1.3, 5.2.6): header, data or ranges, the
 * chain and result of a zone append; and the driver's own requests to the device.
 */

#include <linux/blk-mq.h>
#include <linux/dma-mapping.h>
#include <linux/io.h>
#include <linux/slab.h>

#include "ring.h"
#include "virtio_blk.h"

/* Bytes of the table of a request with one segment. */
#define VIRTBLK_USUAL_TABLE	((1 + VIRTBLK_EXTRA_DESCS) * sizeof(struct vring_desc))

/* The table of a ring that the driver runs itself is little-endian; see ring.h. */
static inline void virtblk_set_buffer(struct vring_desc *desc, u64 addr, u32 len)
{
	desc->addr = (__force __virtio64)cpu_to_le64(addr);
	desc->len = (__force __virtio32)cpu_to_le32(len);
}

static inline void virtblk_set_flags(struct vring_desc *desc, u16 flags)
{
	desc->flags = (__force __virtio16)cpu_to_le16(flags);
}

/**
 * virtblk_init_request() - blk-mq's init_request: set up a request slot
 * @set: the tag set
 * @req: the request
 * @hctx_index: the index of its queue
 * @numa_node: the NUMA node of its memory
 *
 * Return: 0.
 */
int virtblk_init_request(struct blk_mq_tag_set *set, struct request *req,
			 unsigned int hctx_index, int numa_node)
{
	struct virtblk_req *vbr = blk_mq_rq_to_pdu(req);

	vbr->table_addr = virt_to_phys(vbr->table);
	return 0;
}

/* Fill in what is the same for each I/O of the slot, on a ring of the virtio core. */
static noinline void virtblk_init_sgs(struct virtblk_req *vbr)
{
	sg_init_one(&vbr->hdr_sg, &vbr->out_hdr, sizeof(vbr->out_hdr));
	sg_init_one(&vbr->status_sg, &vbr->status, sizeof(vbr->status));
	sg_init_table(vbr->inline_sg, VIRTBLK_INLINE_SGS);
	vbr->has_sgs = true;
	vbr->table_len = 0;
}

/* The flags of the data's entries (VIRTIO 1.3, 2.7.5). */
static inline u16 virtblk_data_flags(struct request *req)
{
	return rq_data_dir(req) == READ ? VRING_DESC_F_NEXT | VRING_DESC_F_WRITE :
					  VRING_DESC_F_NEXT;
}

/* Fill in header, status and links of a table, on a ring that the driver runs. */
static void virtblk_init_table(struct virtblk_req *vbr, struct request *req,
			       struct vring_desc *table, unsigned int entries)
{
	struct vring_desc *status = &table[entries - 1];
	unsigned int i;

	for (i = 0; i < entries - 1; i++) {
		virtblk_set_flags(&table[i], virtblk_data_flags(req));
		table[i].next = (__force __virtio16)cpu_to_le16(i + 1);
	}
	virtblk_set_flags(&table[0], VRING_DESC_F_NEXT);
	virtblk_set_buffer(&table[0], virt_to_phys(&vbr->out_hdr),
			   sizeof(vbr->out_hdr));
	virtblk_set_buffer(status, virt_to_phys(&vbr->status),
			   sizeof(vbr->status));
	virtblk_set_flags(status, VRING_DESC_F_WRITE);
	status->next = 0;
	vbr->table_len = entries * sizeof(*table);
	vbr->has_sgs = false;
}

static void virtblk_set_range(struct virtio_blk_discard_write_zeroes *range,
			      sector_t sector, unsigned int sectors, u32 flags)
{
	range->sector = cpu_to_le64(sector);
	range->num_sectors = cpu_to_le32(sectors);
	range->flags = cpu_to_le32(flags);
}

/*
 * Each bio of a discard becomes a range.  If the device accepts only one, the block
 * layer has merged only bios that follow each other.
 */
static bool virtblk_fill_ranges(struct virtio_blk_discard_write_zeroes *ranges,
				unsigned int count, struct request *req,
				u32 flags)
{
	unsigned int n = 0;
	struct bio *bio;

	if (count == 1) {
		virtblk_set_range(ranges, blk_rq_pos(req), blk_rq_sectors(req),
				  flags);
		return true;
	}

	__rq_for_each_bio(bio, req) {
		if (n < count)
			virtblk_set_range(&ranges[n], bio->bi_iter.bi_sector,
					  bio_sectors(bio), flags);
		n++;
	}
	return n == count;
}

/*
 * The ranges become the request's special payload.  VIRTIO 1.3, 5.2.6: unmap is set in
 * write zeroes requests only, and here only if the device said that it may unmap.
 */
static blk_status_t virtblk_add_ranges(struct virtio_blk *vblk, struct request *req)
{
	struct virtblk_req *vbr = blk_mq_rq_to_pdu(req);
	struct virtio_blk_discard_write_zeroes *ranges;
	unsigned int count = 1;
	u32 flags = 0;

	if (req_op(req) == REQ_OP_WRITE_ZEROES) {
		if (vblk->config.write_zeroes_may_unmap &&
		    !(req->cmd_flags & REQ_NOUNMAP))
			flags = VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;
	} else if (req_op(req) == REQ_OP_DISCARD &&
		   queue_max_discard_segments(req->q) > 1) {
		count = blk_rq_nr_discard_segments(req);
	}

	ranges = kmalloc_array(count, sizeof(*ranges),
			       GFP_ATOMIC | __GFP_NOWARN);
	if (!ranges)
		return BLK_STS_RESOURCE;

	if (WARN_ON_ONCE(!virtblk_fill_ranges(ranges, count, req, flags))) {
		kfree(ranges);
		return BLK_STS_IOERR;
	}

	req->special_vec.bv_page = virt_to_page(ranges);
	req->special_vec.bv_offset = offset_in_page(ranges);
	req->special_vec.bv_len = count * sizeof(*ranges);
	req->rq_flags |= RQF_SPECIAL_PAYLOAD;
	vbr->borrowed |= VIRTBLK_BORROWED_RANGES;
	return BLK_STS_OK;
}

static void virtblk_free_ranges(struct request *req)
{
	kfree(bvec_virt(&req->special_vec));
	req->rq_flags &= ~RQF_SPECIAL_PAYLOAD;
}

/* Borrow a scatterlist: there are more segments than VIRTBLK_INLINE_SGS. */
static blk_status_t virtblk_map_table(struct virtblk_req *vbr,
				      struct request *req)
{
	if (sg_alloc_table_chained(&vbr->sg_table, blk_rq_nr_phys_segments(req),
				   NULL, 0))
		return BLK_STS_RESOURCE;

	vbr->borrowed |= VIRTBLK_BORROWED_SGS;
	vbr->data = vbr->sg_table.sgl;
	if (blk_rq_map_sg(req, vbr->data) <= 0)
		return BLK_STS_IOERR;
	return BLK_STS_OK;
}

/* Out of line, so that a request with one segment uses less stack. */
static noinline blk_status_t virtblk_map_segments(struct virtblk_req *vbr,
						  struct request *req)
{
	if (blk_rq_nr_phys_segments(req) > VIRTBLK_INLINE_SGS)
		return virtblk_map_table(vbr, req);

	vbr->data = vbr->inline_sg;
	if (unlikely(blk_rq_map_sg(req, vbr->data) <= 0))
		return BLK_STS_IOERR;
	return BLK_STS_OK;
}

static blk_status_t virtblk_map_data(struct virtblk_req *vbr,
				     struct request *req)
{
	unsigned short segments = blk_rq_nr_phys_segments(req);
	struct bio_vec bv;

	if (unlikely(!vbr->has_sgs))
		virtblk_init_sgs(vbr);
	if (!segments) {
		vbr->data = NULL;
		return BLK_STS_OK;
	}
	if (segments > 1)
		return virtblk_map_segments(vbr, req);

	/* One segment may be several bio_vecs that are adjacent in memory. */
	bv = req_bvec(req);
	if (bv.bv_len != blk_rq_payload_bytes(req))
		return virtblk_map_segments(vbr, req);

	vbr->data = vbr->inline_sg;
	sg_set_page(vbr->data, bv.bv_page, bv.bv_len, bv.bv_offset);
	sg_mark_end(vbr->data);
	return BLK_STS_OK;
}

/*
 * Describe the data in @table, beginning with its second entry.  Returns the number of
 * entries; -1 if they are more than @most.
 *
 * Buffers that are adjacent in memory share an entry, as they share a segment for the
 * block layer, whose limit of segments would not hold otherwise.
 */
static int virtblk_fill_entries(struct vring_desc *table, struct request *req,
				unsigned int most)
{
	u32 longest = queue_max_segment_size(req->q), len = 0, left, part;
	struct req_iterator iter;
	struct bio_vec bv;
	unsigned int n = 0;
	u64 addr, end = 0;

	rq_for_each_bvec(bv, req, iter) {
		addr = page_to_phys(bv.bv_page) + bv.bv_offset;
		for (left = bv.bv_len; left; left -= part, addr += part) {
			if (n && addr == end && len < longest) {
				part = min(left, longest - len);
			} else {
				if (n++ == most)
					return -1;
				part = min(left, longest);
				len = 0;
				end = addr;
			}
			len += part;
			end += part;
			virtblk_set_buffer(&table[n], end - len, len);
		}
	}
	return n;
}

/*
 * Borrow a table for a request with more segments than its own has room for.  Returns NULL
 * if memory is short and another request has the spare table.
 */
static struct vring_desc *virtblk_borrow_table(struct virtblk_queue *q,
					       struct virtblk_req *vbr,
					       unsigned int entries)
{
	vbr->long_table = kmalloc_array(entries, sizeof(*vbr->long_table),
					GFP_ATOMIC | __GFP_NOWARN);
	if (!vbr->long_table) {
		if (!q->spare || test_and_set_bit_lock(0, &q->spare_busy))
			return NULL;
		vbr->long_table = q->spare;
	}
	vbr->borrowed |= VIRTBLK_BORROWED_TABLE;
	return vbr->long_table;
}

/* Any number of segments.  Out of line, so that a request with one uses less stack. */
static noinline blk_status_t virtblk_fill_any(struct virtblk_req *vbr,
					      struct request *req)
{
	unsigned int segments = blk_rq_nr_phys_segments(req);
	struct virtblk_queue *q = req->mq_hctx->driver_data;
	struct vring_desc *table = vbr->table;
	int n = 0;

	/* On an error the table must be made again, whatever it has by then. */
	vbr->table_len = 0;
	vbr->has_sgs = false;
	if (segments + VIRTBLK_EXTRA_DESCS > VIRTBLK_TABLE_ENTRIES) {
		table = virtblk_borrow_table(q, vbr,
					     segments + VIRTBLK_EXTRA_DESCS);
		if (!table)
			return BLK_STS_RESOURCE;
		vbr->table_addr = virt_to_phys(table);
	}
	if (segments)
		n = virtblk_fill_entries(table, req, segments);
	if (WARN_ON_ONCE(n < 0))
		return BLK_STS_IOERR;

	virtblk_init_table(vbr, req, table, n + VIRTBLK_EXTRA_DESCS);
	return BLK_STS_OK;
}

/* Map the data for the device, and describe it in @table from its second entry on. */
static blk_status_t virtblk_map_pages(struct virtblk_queue *q,
				      struct virtblk_req *vbr,
				      struct request *req,
				      struct vring_desc *table)
{
	struct scatterlist *sg;
	dma_addr_t addr;

	for (sg = vbr->data; sg; sg = sg_next(sg)) {
		addr = dma_map_page(q->dma_dev, sg_page(sg), sg->offset,
				    sg->length, rq_dma_dir(req));
		if (dma_mapping_error(q->dma_dev, addr))
			return BLK_STS_RESOURCE;
		sg->dma_address = addr;
		vbr->mapped++;
		virtblk_set_buffer(&table[vbr->mapped], addr, sg->length);
	}
	return BLK_STS_OK;
}

/*
 * The data of a request whose device needs the DMA API.  The addresses to unmap later are
 * in the scatterlist, and not only where the device can change them.
 */
static noinline blk_status_t virtblk_fill_mapped(struct virtblk_req *vbr,
						 struct virtblk_queue *q,
						 struct request *req)
{
	unsigned int entries = blk_rq_nr_phys_segments(req) + VIRTBLK_EXTRA_DESCS;
	struct virtblk_shared *shared = &q->shared[req->tag];
	dma_addr_t addr = q->shared_addr + req->tag * sizeof(*shared);
	struct vring_desc *table = shared->table;
	blk_status_t status;
	unsigned int i;

	status = virtblk_map_data(vbr, req);
	if (unlikely(status))
		return status;
	if (entries > VIRTBLK_TABLE_ENTRIES) {
		table = virtblk_borrow_table(q, vbr, entries);
		if (!table)
			return BLK_STS_RESOURCE;
	}

	vbr->mapped = 0;
	vbr->borrowed |= VIRTBLK_MAPPED_DATA;
	status = virtblk_map_pages(q, vbr, req, table);
	if (unlikely(status))
		return status;

	shared->out_hdr = vbr->out_hdr;
	WRITE_ONCE(shared->status, VIRTBLK_STATUS_UNWRITTEN);
	entries = vbr->mapped + VIRTBLK_EXTRA_DESCS;
	for (i = 0; i < entries - 1; i++) {
		virtblk_set_flags(&table[i], i ? virtblk_data_flags(req) :
						 VRING_DESC_F_NEXT);
		table[i].next = (__force __virtio16)cpu_to_le16(i + 1);
	}
	virtblk_set_buffer(&table[0], addr + offsetof(typeof(*shared), out_hdr),
			   sizeof(shared->out_hdr));
	virtblk_set_buffer(&table[i], addr + offsetof(typeof(*shared), status),
			   sizeof(shared->status));
	virtblk_set_flags(&table[i], VRING_DESC_F_WRITE);
	table[i].next = 0;

	vbr->table_len = entries * sizeof(*table);
	vbr->table_addr = addr + offsetof(typeof(*shared), table);
	if (table == shared->table)
		return BLK_STS_OK;
	addr = dma_map_single(q->dma_dev, table, vbr->table_len, DMA_TO_DEVICE);
	if (dma_mapping_error(q->dma_dev, addr))
		return BLK_STS_RESOURCE;
	vbr->table_addr = addr;
	vbr->borrowed |= VIRTBLK_MAPPED_TABLE;
	return BLK_STS_OK;
}

/* The data of a request, on a ring that the driver runs itself. */
static blk_status_t virtblk_fill_usual(struct virtblk_req *vbr,
				       struct request *req)
{
	struct vring_desc *data = &vbr->table[1];
	struct bio_vec bv;

	if (unlikely(blk_rq_nr_phys_segments(req) != 1))
		return virtblk_fill_any(vbr, req);
	/* One segment may be several bio_vecs that are adjacent in memory. */
	bv = req_bvec(req);
	if (unlikely(bv.bv_len != blk_rq_payload_bytes(req)))
		return virtblk_fill_any(vbr, req);

	if (vbr->table_len != VIRTBLK_USUAL_TABLE)
		virtblk_init_table(vbr, req, vbr->table,
				   VIRTBLK_USUAL_TABLE / sizeof(*data));
	virtblk_set_buffer(data, page_to_phys(bv.bv_page) + bv.bv_offset,
			   bv.bv_len);
	virtblk_set_flags(data, virtblk_data_flags(req));
	return BLK_STS_OK;
}

/* Unmap what is mapped for the device, which writes to none of it any more. */
static void virtblk_unmap_pages(struct virtblk_queue *q,
				struct virtblk_req *vbr, struct request *req)
{
	struct scatterlist *sg;

	for (sg = vbr->data; vbr->mapped; sg = sg_next(sg), vbr->mapped--)
		dma_unmap_page(q->dma_dev, sg->dma_address, sg->length,
			       rq_dma_dir(req));
}

/* Return what the request has borrowed or mapped. */
static noinline void virtblk_return_borrowed(struct virtblk_req *vbr,
					     struct request *req)
{
	struct virtblk_queue *q = req->mq_hctx->driver_data;

	if (vbr->borrowed & VIRTBLK_MAPPED_TABLE)
		dma_unmap_single(q->dma_dev, vbr->table_addr, vbr->table_len,
				 DMA_TO_DEVICE);
	if (vbr->borrowed & VIRTBLK_MAPPED_DATA)
		virtblk_unmap_pages(q, vbr, req);
	if (vbr->borrowed & VIRTBLK_BORROWED_SGS)
		sg_free_table_chained(&vbr->sg_table, 0);
	if (vbr->borrowed & VIRTBLK_BORROWED_TABLE) {
		if (vbr->long_table == q->spare)
			clear_bit_unlock(0, &q->spare_busy);
		else
			kfree(vbr->long_table);
		vbr->table_addr = virt_to_phys(vbr->table);
		vbr->table_len = 0;
	}
	vbr->borrowed = 0;
}

/**
 * virtblk_free_data() - what virtblk_unmap_data() rarely has to do
 * @vbr: the driver's part of the request
 * @req: the request
 */
void virtblk_free_data(struct virtblk_req *vbr, struct request *req)
{
	bool ranges = vbr->borrowed & VIRTBLK_BORROWED_RANGES;

	virtblk_return_borrowed(vbr, req);
	if (ranges)
		virtblk_free_ranges(req);
}

/* VIRTIO 1.3, 5.2.6: the type of an operation on zones; -EOPNOTSUPP for any other. */
static int virtblk_zone_type(struct request *req)
{
	switch (req_op(req)) {
	case REQ_OP_ZONE_APPEND:
		return VIRTIO_BLK_T_ZONE_APPEND;
	case REQ_OP_ZONE_OPEN:
		return VIRTIO_BLK_T_ZONE_OPEN;
	case REQ_OP_ZONE_CLOSE:
		return VIRTIO_BLK_T_ZONE_CLOSE;
	case REQ_OP_ZONE_FINISH:
		return VIRTIO_BLK_T_ZONE_FINISH;
	case REQ_OP_ZONE_RESET:
		return VIRTIO_BLK_T_ZONE_RESET;
	case REQ_OP_ZONE_RESET_ALL:
		return VIRTIO_BLK_T_ZONE_RESET_ALL;
	default:
		return -EOPNOTSUPP;
	}
}

/*
 * Fill in what the device reads first of a request.  @sector is 0 for a type that has
 * no place (VIRTIO 1.3, 5.2.6).
 */
static void virtblk_set_header(struct virtio_blk *vblk, struct request *req,
			       u32 type, u64 sector)
{
	struct virtblk_req *vbr = blk_mq_rq_to_pdu(req);

	vbr->out_hdr.type = cpu_to_virtio32(vblk->vdev, type);
	vbr->out_hdr.sector = cpu_to_virtio64(vblk->vdev, sector);
	/* Legacy devices take a priority here; later the field is reserved. */
	vbr->out_hdr.ioprio = vblk->legacy ?
		cpu_to_virtio32(vblk->vdev, req_get_ioprio(req)) : 0;
}

/*
 * A read or write of one segment, in a slot that had one before, on a ring that the driver
 * runs: only what differs from the last one is written.  Returns false for all others.
 */
static __always_inline bool virtblk_build_usual(struct virtblk_req *vbr,
						struct request *req)
{
	struct vring_desc *data = &vbr->table[1];
	unsigned int op = (__force unsigned int)req_op(req);
	struct bio_vec bv;

	BUILD_BUG_ON(VIRTIO_BLK_T_IN != (__force unsigned int)REQ_OP_READ ||
		     VIRTIO_BLK_T_OUT != (__force unsigned int)REQ_OP_WRITE);

	if (op > VIRTIO_BLK_T_OUT || blk_rq_nr_phys_segments(req) != 1 ||
	    vbr->table_len != VIRTBLK_USUAL_TABLE || req->rq_flags & RQF_DONTPREP)
		return false;
	bv = req_bvec(req);
	if (unlikely(bv.bv_len != blk_rq_bytes(req)))
		return false;

	req->rq_flags |= RQF_DONTPREP;
	vbr->timed_out = false;
	vbr->resent = 0;
	vbr->sent = jiffies;
	vbr->status = VIRTBLK_STATUS_UNWRITTEN;
	vbr->out_hdr.type = (__force __virtio32)cpu_to_le32(op);
	vbr->out_hdr.sector = (__force __virtio64)cpu_to_le64(blk_rq_pos(req));
	virtblk_set_buffer(data, page_to_phys(bv.bv_page) + bv.bv_offset,
			   bv.bv_len);
	virtblk_set_flags(data, virtblk_data_flags(req));
	return true;
}

/* All requests but those of virtblk_build_usual(). */
static noinline blk_status_t virtblk_build_any(struct virtblk_queue *q,
					       struct virtblk_req *vbr,
					       struct request *req)
{
	struct virtio_blk *vblk = q->vblk;
	blk_status_t status;
	int type;

	vbr->status = VIRTBLK_STATUS_UNWRITTEN;
	/* A request that is sent again keeps these. */
	if (!(req->rq_flags & RQF_DONTPREP)) {
		vbr->timed_out = false;
		vbr->resent = 0;
		req->rq_flags |= RQF_DONTPREP;
	}
	if (!vbr->timed_out)
		vbr->sent = jiffies;

	switch (req_op(req)) {
	case REQ_OP_READ:
		virtblk_set_header(vblk, req, VIRTIO_BLK_T_IN,
				   blk_rq_pos(req));
		break;
	case REQ_OP_WRITE:
		virtblk_set_header(vblk, req, VIRTIO_BLK_T_OUT,
				   blk_rq_pos(req));
		break;
	case REQ_OP_FLUSH:
		virtblk_set_header(vblk, req, VIRTIO_BLK_T_FLUSH, 0);
		break;
	case REQ_OP_DISCARD:
		virtblk_set_header(vblk, req, VIRTIO_BLK_T_DISCARD, 0);
		status = virtblk_add_ranges(vblk, req);
		if (status)
			return status;
		break;
	case REQ_OP_WRITE_ZEROES:
		virtblk_set_header(vblk, req, VIRTIO_BLK_T_WRITE_ZEROES, 0);
		status = virtblk_add_ranges(vblk, req);
		if (status)
			return status;
		break;
	case REQ_OP_SECURE_ERASE:
		virtblk_set_header(vblk, req, VIRTIO_BLK_T_SECURE_ERASE, 0);
		status = virtblk_add_ranges(vblk, req);
		if (status)
			return status;
		break;
	case REQ_OP_DRV_IN:
		/* virtblk_query() has set the header. */
		break;
	default:
		type = virtblk_zone_type(req);
		if (type < 0)
			return BLK_STS_NOTSUPP;
		/* A reset of all zones has no sector (VIRTIO 1.3, 5.2.6.1). */
		virtblk_set_header(vblk, req, type,
				   req_op(req) == REQ_OP_ZONE_RESET_ALL ?
				   0 : blk_rq_pos(req));
	}

	if (!q->own_ring)
		status = virtblk_map_data(vbr, req);
	else if (unlikely(q->shared))
		status = virtblk_fill_mapped(vbr, q, req);
	else
		status = virtblk_fill_usual(vbr, req);
	if (unlikely(status))
		virtblk_unmap_data(vbr, req);
	return status;
}

/**
 * virtblk_build() - turn a request into what the device reads
 * @q: its queue
 * @req: the request to send
 *
 * Return: BLK_STS_OK, and the request is started; BLK_STS_RESOURCE if memory is
 * short; BLK_STS_NOTSUPP for an operation that the driver does not know;
 * BLK_STS_IOERR for a request that is not what its segment count says.
 */
blk_status_t virtblk_build(struct virtblk_queue *q, struct request *req)
{
	struct virtblk_req *vbr = blk_mq_rq_to_pdu(req);
	bool own = q->own_ring;
	blk_status_t status;

	if (!own || q->shared || !virtblk_build_usual(vbr, req)) {
		status = virtblk_build_any(q, vbr, req);
		if (unlikely(status))
			return status;
	}

	if (own)
		virtblk_ring_describe(q, req);
	req->timeout = VIRTBLK_RECHECK;
	blk_mq_start_request(req);
	return BLK_STS_OK;
}

/**
 * virtblk_add_append() - add a zone append to the ring
 * @q: its queue, with its lock held and room in its ring
 * @req: the request
 *
 * Only a zone append returns a sector; it precedes the status.
 *
 * Return: 0 or the error of virtqueue_add_sgs().
 */
int virtblk_add_append(struct virtblk_queue *q, struct request *req)
{
	struct virtblk_req *vbr = blk_mq_rq_to_pdu(req);
	struct scatterlist *sgs[3], in_hdr;

	BUILD_BUG_ON(offsetofend(struct virtblk_req, append_sector) !=
		     offsetof(struct virtblk_req, status));
	sg_init_one(&in_hdr, &vbr->append_sector,
		    sizeof(vbr->append_sector) + sizeof(vbr->status));

	sgs[0] = &vbr->hdr_sg;
	sgs[1] = vbr->data;
	sgs[2] = &in_hdr;
	return virtqueue_add_sgs(q->vq, sgs, 2, 1, vbr, GFP_ATOMIC);
}

/*
 * The block layer believes the sector of a zone append, so the driver checks that it
 * is in the zone that starts at blk_rq_pos().
 */
static blk_status_t virtblk_set_append_sector(struct request *req)
{
	struct virtblk_req *vbr = blk_mq_rq_to_pdu(req);
	struct virtio_blk *vblk = req->q->disk->private_data;
	u64 sector = virtio64_to_cpu(vblk->vdev, vbr->append_sector);
	u64 start = blk_rq_pos(req);

	if (sector < start ||
	    sector - start > vblk->config.lim.chunk_sectors -
			     blk_rq_sectors(req)) {
		dev_err_ratelimited(&vblk->vdev->dev, "[%s] the device reports an append at sector %llu for the zone at %llu, failing it\n",
				    vblk->disk->disk_name, sector, start);
		return BLK_STS_IOERR;
	}
	req->__sector = sector;
	return BLK_STS_OK;
}

/**
 * virtblk_zone_result() - find out the result of a request to a zoned disk
 * @req: the request, which the device has returned
 *
 * Return: its status; for a successful zone append, @req has the sector as well.
 */
blk_status_t virtblk_zone_result(struct request *req)
{
	struct virtblk_req *vbr = blk_mq_rq_to_pdu(req);

	switch (vbr->status) {
	case VIRTIO_BLK_S_OK:
		if (req_op(req) == REQ_OP_ZONE_APPEND)
			return virtblk_set_append_sector(req);
		return BLK_STS_OK;
	case VIRTIO_BLK_S_UNSUPP:
		return BLK_STS_NOTSUPP;
	case VIRTIO_BLK_S_ZONE_OPEN_RESOURCE:
		return BLK_STS_ZONE_OPEN_RESOURCE;
	case VIRTIO_BLK_S_ZONE_ACTIVE_RESOURCE:
		return BLK_STS_ZONE_ACTIVE_RESOURCE;
	default:
		return BLK_STS_IOERR;
	}
}

/**
 * virtblk_end_request() - complete a request that the device did not return
 * @req: the request, in flight for blk-mq and on no ring
 * @status: its result
 *
 * The block layer's flush request stays allocated after that, and must no longer count
 * as in flight.
 */
void virtblk_end_request(struct request *req, blk_status_t status)
{
	blk_mq_set_request_complete(req);
	blk_mq_end_request(req, status);
}

/**
 * virtblk_query() - have the device fill a buffer
 * @disk: the disk
 * @type: the request's type, VIRTIO_BLK_T_...
 * @sector: its sector, 0 for a type without one
 * @buf: memory from kmalloc() or vmalloc(), not from a stack
 * @len: the buffer's length in bytes
 *
 * Context: may sleep.
 *
 * Return: 0, -ENOMEM, -ENODEV if the disk is gone, or the request's error
 * (-EOPNOTSUPP, -EIO).
 */
int virtblk_query(struct gendisk *disk, u32 type, u64 sector, void *buf,
		  unsigned int len)
{
	struct virtio_blk *vblk = disk->private_data;
	struct request *req;
	int err;

	req = blk_mq_alloc_request(disk->queue, REQ_OP_DRV_IN, 0);
	if (IS_ERR(req))
		return PTR_ERR(req);

	virtblk_set_header(vblk, req, type, sector);
	/* A queue with this request cannot freeze: do not wait for another request. */
	err = blk_rq_map_kern(req, buf, len, GFP_NOIO);
	if (!err)
		err = blk_status_to_errno(blk_execute_rq(req, false));
	blk_mq_free_request(req);
	return err;
}

/**
 * virtblk_get_id() - read the device's ID string
 * @disk: the disk
 * @id: filled in, and always terminated by a NUL
 *
 * VIRTIO 1.3, 5.2.6: up to 20 bytes, without a NUL if it has all 20.
 * Context: may sleep.
 *
 * Return: 0 or the error of virtblk_query().
 */
int virtblk_get_id(struct gendisk *disk, char id[VIRTIO_BLK_ID_BYTES + 1])
{
	void *buf;
	int err;

	buf = kzalloc(VIRTIO_BLK_ID_BYTES, GFP_KERNEL);
	if (!buf)
		return -ENOMEM;

	err = virtblk_query(disk, VIRTIO_BLK_T_GET_ID, 0, buf,
			    VIRTIO_BLK_ID_BYTES);
	if (!err) {
		memcpy(id, buf, VIRTIO_BLK_ID_BYTES);
		id[VIRTIO_BLK_ID_BYTES] = '\0';
	}
	kfree(buf);
	return err;
}
