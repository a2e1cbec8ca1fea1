// SPDX-License-Identifier: GPL-2.0
/*
 * The data of a request, as the device sees it (VIRTIO 1.4, 5.2.6): the block layer's
 * buffers, or ranges.
 *
 *  - On a ring that the virtio core runs: a scatterlist, see submit.c.
 *  - On a ring that the driver runs, and in a prepared request: a table of descriptors,
 *    with physical addresses.
 *  - The same for a device that needs the DMA API: the table is in memory that the
 *    device shares, and the scatterlist keeps the addresses to unmap.
 */

#include <linux/blk-mq.h>
#include <linux/dma-mapping.h>
#include <linux/io.h>
#include <linux/slab.h>

#include "ring.h"
#include "virtio_blk.h"

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
 * Borrow memory for @count entries of a table, or for as many ranges, which have the same
 * size.  Returns NULL if memory is short and another request has the spare memory.
 */
static void *virtblk_borrow(struct virtblk_queue *q, unsigned int count)
{
	void *memory = kmalloc_array(count, sizeof(struct vring_desc),
				     GFP_ATOMIC | __GFP_NOWARN);

	BUILD_BUG_ON(sizeof(struct vring_desc) !=
		     sizeof(struct virtio_blk_discard_write_zeroes));
	if (memory)
		return memory;
	if (!q->spare || test_and_set_bit_lock(0, &q->spare_busy))
		return NULL;
	return q->spare;
}

static void virtblk_give_back(struct virtblk_queue *q, void *memory)
{
	if (memory == q->spare)
		clear_bit_unlock(0, &q->spare_busy);
	else
		kfree(memory);
}

/**
 * virtblk_add_ranges() - make the ranges of a request its special payload
 * @vblk: the disk
 * @req: a discard, secure erase or write zeroes
 *
 * VIRTIO 1.4, 5.2.6: unmap is set in write zeroes requests only, and here only if the
 * device said that it may unmap.
 *
 * Return: BLK_STS_OK; BLK_STS_RESOURCE if memory is short; BLK_STS_IOERR if the request
 * is not what its segment count says.
 */
blk_status_t virtblk_add_ranges(struct virtio_blk *vblk, struct request *req)
{
	struct virtblk_queue *q = req->mq_hctx->driver_data;
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

	ranges = virtblk_borrow(q, count);
	if (!ranges)
		return BLK_STS_RESOURCE;

	if (WARN_ON_ONCE(!virtblk_fill_ranges(ranges, count, req, flags))) {
		virtblk_give_back(q, ranges);
		return BLK_STS_IOERR;
	}

	req->special_vec.bv_page = virt_to_page(ranges);
	req->special_vec.bv_offset = offset_in_page(ranges);
	req->special_vec.bv_len = count * sizeof(*ranges);
	req->rq_flags |= RQF_SPECIAL_PAYLOAD;
	vbr->borrowed |= VIRTBLK_BORROWED_RANGES;
	return BLK_STS_OK;
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

/* Link the entries of a table; @data_flags are those of the data's. */
static __always_inline void virtblk_link_table(const struct virtblk_queue *q,
					       struct vring_desc *table,
					       unsigned int entries, u16 data_flags)
{
	bool packed = virtblk_has_packed_tables(q);
	unsigned int i;

	for (i = 0; i < entries - 1; i++)
		virtblk_link_entry(&table[i], i ? data_flags : VRING_DESC_F_NEXT, i + 1,
				   packed);
	virtblk_link_entry(&table[i], VRING_DESC_F_WRITE, 0, packed);
}

/* Fill in header, status and links of a table. */
static __always_inline void virtblk_init_table(const struct virtblk_queue *q,
					       struct virtblk_req *vbr,
					       struct request *req,
					       struct vring_desc *table,
					       unsigned int entries)
{
	virtblk_link_table(q, table, entries, virtblk_data_flags(req));
	virtblk_set_buffer(&table[0], virt_to_phys(&vbr->out_hdr),
			   sizeof(vbr->out_hdr));
	virtblk_set_buffer(&table[entries - 1], virt_to_phys(&vbr->status),
			   sizeof(vbr->status));
	vbr->table_len = entries * sizeof(*table);
	vbr->has_sgs = false;
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

/* Put the data into a scatterlist. */
static blk_status_t virtblk_map_sgs(struct virtblk_req *vbr,
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

/* Borrow a table for a request with more segments than its own has room for, or NULL. */
static struct vring_desc *virtblk_borrow_table(struct virtblk_queue *q,
					       struct virtblk_req *vbr,
					       unsigned int entries)
{
	vbr->long_table = virtblk_borrow(q, entries);
	if (vbr->long_table)
		vbr->borrowed |= VIRTBLK_BORROWED_TABLE;
	return vbr->long_table;
}

/* Any number of segments.  Out of line, so that a request with one uses less stack. */
static noinline blk_status_t virtblk_fill_any(struct virtblk_queue *q,
					      struct virtblk_req *vbr,
					      struct request *req)
{
	unsigned int segments = blk_rq_nr_phys_segments(req);
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

	virtblk_init_table(q, vbr, req, table, n + VIRTBLK_EXTRA_DESCS);
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

	status = virtblk_map_sgs(vbr, req);
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
	virtblk_link_table(q, table, entries, virtblk_data_flags(req));
	virtblk_set_buffer(&table[0], addr + offsetof(typeof(*shared), out_hdr),
			   sizeof(shared->out_hdr));
	virtblk_set_buffer(&table[entries - 1],
			   addr + offsetof(typeof(*shared), status),
			   sizeof(shared->status));

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

/* The data of a request that has a table. */
static blk_status_t virtblk_fill_usual(struct virtblk_queue *q,
				       struct virtblk_req *vbr,
				       struct request *req)
{
	struct vring_desc *data = &vbr->table[1];
	struct bio_vec bv;

	if (unlikely(blk_rq_nr_phys_segments(req) != 1))
		return virtblk_fill_any(q, vbr, req);
	/* One segment may be several bio_vecs that are adjacent in memory. */
	bv = req_bvec(req);
	if (unlikely(bv.bv_len != blk_rq_payload_bytes(req)))
		return virtblk_fill_any(q, vbr, req);

	if (vbr->table_len != VIRTBLK_USUAL_TABLE)
		virtblk_init_table(q, vbr, req, vbr->table,
				   VIRTBLK_USUAL_TABLE / sizeof(*data));
	virtblk_set_buffer(data, page_to_phys(bv.bv_page) + bv.bv_offset,
			   bv.bv_len);
	virtblk_set_entry_flags(data, virtblk_data_flags(req),
				virtblk_has_packed_tables(q));
	return BLK_STS_OK;
}

/**
 * virtblk_map_data() - describe the data of a request for the device
 * @q: its queue
 * @vbr: the driver's part of the request
 * @req: the request, its header set and its ranges added
 *
 * virtblk_unmap_data() undoes it, also after an error.
 *
 * Return: BLK_STS_OK; BLK_STS_RESOURCE if memory is short; BLK_STS_IOERR if the request
 * is not what its segment count says.
 */
blk_status_t virtblk_map_data(struct virtblk_queue *q, struct virtblk_req *vbr,
			      struct request *req)
{
	if (!q->own_ring && !virtblk_is_prepared(q))
		return virtblk_map_sgs(vbr, req);
	if (unlikely(q->shared))
		return virtblk_fill_mapped(vbr, q, req);
	return virtblk_fill_usual(q, vbr, req);
}

/*
 * blk-mq's timeout work writes rq_flags at the same time, and one of the two changes may be
 * lost.  Neither matters: the request ends, or is built again with ranges and a new timer.
 */
static void virtblk_free_ranges(struct request *req)
{
	virtblk_give_back(req->mq_hctx->driver_data,
			  bvec_virt(&req->special_vec));
	req->rq_flags &= ~RQF_SPECIAL_PAYLOAD;
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
		virtblk_give_back(q, vbr->long_table);
		vbr->table_addr = virt_to_phys(vbr->table);
		vbr->table_len = 0;
	}
	vbr->borrowed = 0;
}

/**
 * virtblk_free_data() - free what a request has borrowed or mapped
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
