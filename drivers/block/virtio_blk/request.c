// SPDX-License-Identifier: GPL-2.0
/*
 * Requests as the device sees them (VIRTIO 1.4, 5.2.6): those of the block layer, and the
 * driver's own.  data.c has their data.
 */

#include <linux/blk-mq.h>
#include <linux/io.h>
#include <linux/ktime.h>
#include <linux/slab.h>

#include "ring.h"
#include "virtio_blk.h"

/* VIRTIO 1.4, 5.2.6: the type of an operation on zones; -EOPNOTSUPP for any other. */
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
 * no place (VIRTIO 1.4, 5.2.6).
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
 * A read or write of one segment, in a slot that had one before and has a table: only what
 * differs from the last one is written.  Returns false for all others.
 */
static __always_inline bool virtblk_build_usual(struct virtblk_req *vbr,
						struct request *req, const bool packed)
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
	virtblk_set_entry_flags(data, virtblk_data_flags(req), packed);
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
		/* A reset of all zones has no sector (VIRTIO 1.4, 5.2.6.1). */
		virtblk_set_header(vblk, req, type,
				   req_op(req) == REQ_OP_ZONE_RESET_ALL ?
				   0 : blk_rq_pos(req));
	}

	status = virtblk_map_data(q, vbr, req);
	if (unlikely(status))
		virtblk_unmap_data(vbr, req);
	return status;
}

/* All requests that are prepared for the virtio core. */
static noinline blk_status_t virtblk_build_prepared(struct virtblk_queue *q,
						    struct virtblk_req *vbr,
						    struct request *req)
{
	if (!q->shared && virtblk_build_usual(vbr, req, virtblk_has_packed_tables(q)))
		return BLK_STS_OK;
	return virtblk_build_any(q, vbr, req);
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

	if (!own || q->shared || !virtblk_build_usual(vbr, req, false)) {
		if (virtblk_is_prepared(q))
			status = virtblk_build_prepared(q, vbr, req);
		else
			status = virtblk_build_any(q, vbr, req);
		if (unlikely(status))
			return status;
	}

	/* A request that is sent again keeps the time of the first. */
	if (unlikely(READ_ONCE(q->histogram)) && !vbr->timed_out && !vbr->resent)
		vbr->sent_ns = ktime_get_ns();
	if (own)
		virtblk_ring_describe(q, req);
	req->timeout = VIRTBLK_RECHECK;
	blk_mq_start_request(req);
	return BLK_STS_OK;
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
 * VIRTIO 1.4, 5.2.6: up to 20 bytes, without a NUL if it has all 20.
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
