// SPDX-License-Identifier: GPL-2.0
/*
 * A request as the device sees it (VIRTIO 1.3, 5.2.6): header, data or ranges, the
 * chain and result of a zone append; and the driver's own requests to the device.
 */

#include <linux/blk-mq.h>
#include <linux/slab.h>

#include "virtio_blk.h"

/**
 * virtblk_init_request() - blk-mq's init_request: set up a request slot
 * @set: the tag set
 * @req: the request
 * @hctx_index: the index of its queue
 * @numa_node: the NUMA node of its memory
 *
 * Fills in once the scatterlists that are the same for each I/O of the slot.
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
				   NULL, 0)) {
		vbr->sg_table.sgl = NULL;
		return BLK_STS_RESOURCE;
	}

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

/**
 * virtblk_unmap_data() - free a request's borrowed scatterlist and its ranges
 * @vbr: the driver's part of the request
 * @req: the request
 */
void virtblk_unmap_data(struct virtblk_req *vbr, struct request *req)
{
	if (vbr->sg_table.sgl) {
		sg_free_table_chained(&vbr->sg_table, 0);
		vbr->sg_table.sgl = NULL;
	}
	if (req->rq_flags & RQF_SPECIAL_PAYLOAD)
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

/**
 * virtblk_build() - turn a request into what the device reads
 * @vblk: the disk
 * @req: the request to send
 *
 * Return: BLK_STS_OK, and the request is started; BLK_STS_RESOURCE if memory is
 * short; BLK_STS_NOTSUPP for an operation that the driver does not know;
 * BLK_STS_IOERR for a request that is not what its segment count says.
 */
blk_status_t virtblk_build(struct virtio_blk *vblk, struct request *req)
{
	struct virtblk_req *vbr = blk_mq_rq_to_pdu(req);
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

	status = virtblk_map_data(vbr, req);
	if (unlikely(status)) {
		virtblk_unmap_data(vbr, req);
		return status;
	}

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
