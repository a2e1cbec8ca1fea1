// SPDX-License-Identifier: GPL-2.0
/*
 * What is not hot about requests: setting up a slot, borrowing a scatterlist,
 * the ranges of discard, secure erase and write zeroes, asking the device for
 * something.
 */

#include <linux/blk-mq.h>
#include <linux/slab.h>

#include "virtio_blk.h"

/**
 * virtblk_init_request() - blk-mq's init_request: set up a request's slot
 * @set: the tag set
 * @req: the request
 * @hctx_index: the queue that it belongs to
 * @numa_node: where its memory is
 *
 * Does once what would otherwise be done for each I/O.
 *
 * Return: 0.
 */
int virtblk_init_request(struct blk_mq_tag_set *set, struct request *req,
			 unsigned int hctx_index, int numa_node)
{
	struct virtblk_req *vbr = blk_mq_rq_to_pdu(req);

	sg_init_one(&vbr->hdr_sg, &vbr->out_hdr, sizeof(vbr->out_hdr));
	sg_init_one(&vbr->status_sg, &vbr->status, sizeof(vbr->status));
	sg_init_table(vbr->inline_sg, VIRTBLK_INLINE_SGS);
	return 0;
}

/**
 * virtblk_map_table() - map a request's data into a borrowed scatterlist
 * @vbr: the driver's part of the request
 * @req: the request, with more segments than VIRTBLK_INLINE_SGS
 *
 * Return: BLK_STS_OK, with @vbr->data set; BLK_STS_RESOURCE if memory is
 * short.
 */
blk_status_t virtblk_map_table(struct virtblk_req *vbr, struct request *req)
{
	if (sg_alloc_table_chained(&vbr->sg_table, blk_rq_nr_phys_segments(req),
				   NULL, 0)) {
		vbr->sg_table.sgl = NULL;
		return BLK_STS_RESOURCE;
	}

	vbr->data = vbr->sg_table.sgl;
	if (blk_rq_map_sg(req, vbr->data) <= 0)
		return BLK_STS_IOERR;
	return BLK_STS_OK;
}

static void virtblk_set_range(struct virtio_blk_discard_write_zeroes *range,
			      sector_t sector, unsigned int sectors, u32 flags)
{
	range->sector = cpu_to_le64(sector);
	range->num_sectors = cpu_to_le32(sectors);
	range->flags = cpu_to_le32(flags);
}

/*
 * Each bio of a discard becomes a range, unless the device takes but one: then
 * the block layer has only merged bios that follow each other.
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

/**
 * virtblk_add_ranges() - give a request that erases or zeroes its payload
 * @vblk: the disk
 * @req: the request
 *
 * The ranges become the request's special payload; virtblk_free_ranges()
 * frees them.  VIRTIO 1.3, 5.2.6: unmap is set in write zeroes requests only,
 * and here only where the device said that it may unmap.
 *
 * Return: BLK_STS_OK, BLK_STS_RESOURCE if memory is short, BLK_STS_IOERR if
 * the request is not what its segment count says.
 */
blk_status_t virtblk_add_ranges(struct virtio_blk *vblk, struct request *req)
{
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
	return BLK_STS_OK;
}

/**
 * virtblk_free_ranges() - free what virtblk_add_ranges() allocated
 * @req: the request
 */
void virtblk_free_ranges(struct request *req)
{
	kfree(bvec_virt(&req->special_vec));
	req->rq_flags &= ~RQF_SPECIAL_PAYLOAD;
}

/**
 * virtblk_end_request() - end a request that the device did not return
 * @req: the request, in flight for blk-mq and on no ring
 * @status: what becomes of it
 *
 * A flush keeps its request beyond its end.  It must not count as in flight then.
 */
void virtblk_end_request(struct request *req, blk_status_t status)
{
	blk_mq_set_request_complete(req);
	blk_mq_end_request(req, status);
}

/**
 * virtblk_ask() - have the device fill in a buffer
 * @disk: the disk
 * @type: what to ask for, VIRTIO_BLK_T_...
 * @sector: where, 0 for a type that has no place
 * @buf: memory of kmalloc() or vmalloc(), not of a stack
 * @len: its length in bytes
 *
 * Context: may sleep.
 *
 * Return: 0, -ENOMEM, -ENODEV if the disk is gone, or what became of the
 * request (-EOPNOTSUPP, -EIO).
 */
int virtblk_ask(struct gendisk *disk, u32 type, u64 sector, void *buf,
		unsigned int len)
{
	struct virtio_blk *vblk = disk->private_data;
	struct request *req;
	int err;

	req = blk_mq_alloc_request(disk->queue, REQ_OP_DRV_IN, 0);
	if (IS_ERR(req))
		return PTR_ERR(req);

	virtblk_set_header(vblk, req, type, sector);
	/* This request keeps a queue from freezing: do not wait for another one. */
	err = blk_rq_map_kern(req, buf, len, GFP_NOIO);
	if (!err)
		err = blk_status_to_errno(blk_execute_rq(req, false));
	blk_mq_free_request(req);
	return err;
}

/**
 * virtblk_get_id() - ask the device for its ID string
 * @disk: the disk
 * @id: where to put the string; ended with a NUL in any case
 *
 * VIRTIO 1.3, 5.2.6: up to 20 bytes, without a NUL if it has all 20.
 * Context: may sleep.
 *
 * Return: 0 or the error of virtblk_ask().
 */
int virtblk_get_id(struct gendisk *disk, char id[VIRTIO_BLK_ID_BYTES + 1])
{
	void *buf;
	int err;

	buf = kzalloc(VIRTIO_BLK_ID_BYTES, GFP_KERNEL);
	if (!buf)
		return -ENOMEM;

	err = virtblk_ask(disk, VIRTIO_BLK_T_GET_ID, 0, buf,
			  VIRTIO_BLK_ID_BYTES);
	if (!err) {
		memcpy(id, buf, VIRTIO_BLK_ID_BYTES);
		id[VIRTIO_BLK_ID_BYTES] = '\0';
	}
	kfree(buf);
	return err;
}
