/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Trace points: a request's way to the device and back, and recovery.
 * Documentation/abi.rst lists them; their names and fields are stable.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM virtio_blk

#if !defined(VIRTIO_BLK_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define VIRTIO_BLK_TRACE_H

#include <linux/tracepoint.h>

#include "virtio_blk.h"

#ifndef VIRTBLK_STEPS
#define VIRTBLK_STEPS

/**
 * enum virtblk_step - what the driver does about a device that does not answer
 * @VIRTBLK_STEP_POLL: a request has timed out, the driver polls the ring
 * @VIRTBLK_STEP_KICK: the driver notifies the device again
 * @VIRTBLK_STEP_RESET: the driver has reset the device and requeued what it had not
 *	answered
 * @VIRTBLK_STEP_RESEND: the device has returned, the requeued requests are sent again
 * @VIRTBLK_STEP_DEAD: the disk is dead
 */
enum virtblk_step {
	VIRTBLK_STEP_POLL,
	VIRTBLK_STEP_KICK,
	VIRTBLK_STEP_RESET,
	VIRTBLK_STEP_RESEND,
	VIRTBLK_STEP_DEAD,
};

/* The operations as numbers: perf and trace-cmd read them from the event's format. */
enum virtblk_op {
	VIRTBLK_OP_READ = (__force u8)REQ_OP_READ,
	VIRTBLK_OP_WRITE = (__force u8)REQ_OP_WRITE,
	VIRTBLK_OP_FLUSH = (__force u8)REQ_OP_FLUSH,
	VIRTBLK_OP_DISCARD = (__force u8)REQ_OP_DISCARD,
	VIRTBLK_OP_WRITE_ZEROES = (__force u8)REQ_OP_WRITE_ZEROES,
	VIRTBLK_OP_SECURE_ERASE = (__force u8)REQ_OP_SECURE_ERASE,
	VIRTBLK_OP_ZONE_APPEND = (__force u8)REQ_OP_ZONE_APPEND,
	VIRTBLK_OP_ZONE_OPEN = (__force u8)REQ_OP_ZONE_OPEN,
	VIRTBLK_OP_ZONE_CLOSE = (__force u8)REQ_OP_ZONE_CLOSE,
	VIRTBLK_OP_ZONE_FINISH = (__force u8)REQ_OP_ZONE_FINISH,
	VIRTBLK_OP_ZONE_RESET = (__force u8)REQ_OP_ZONE_RESET,
	VIRTBLK_OP_ZONE_RESET_ALL = (__force u8)REQ_OP_ZONE_RESET_ALL,
	VIRTBLK_OP_QUERY = (__force u8)REQ_OP_DRV_IN,
};

/* A device may interrupt before the disk exists. */
static inline const char *virtblk_trace_name(struct virtio_blk *vblk)
{
	return vblk->disk ? vblk->disk->disk_name : "";
}

#endif

TRACE_DEFINE_ENUM(VIRTBLK_STEP_POLL);
TRACE_DEFINE_ENUM(VIRTBLK_STEP_KICK);
TRACE_DEFINE_ENUM(VIRTBLK_STEP_RESET);
TRACE_DEFINE_ENUM(VIRTBLK_STEP_RESEND);
TRACE_DEFINE_ENUM(VIRTBLK_STEP_DEAD);

TRACE_DEFINE_ENUM(VIRTBLK_OP_READ);
TRACE_DEFINE_ENUM(VIRTBLK_OP_WRITE);
TRACE_DEFINE_ENUM(VIRTBLK_OP_FLUSH);
TRACE_DEFINE_ENUM(VIRTBLK_OP_DISCARD);
TRACE_DEFINE_ENUM(VIRTBLK_OP_WRITE_ZEROES);
TRACE_DEFINE_ENUM(VIRTBLK_OP_SECURE_ERASE);
TRACE_DEFINE_ENUM(VIRTBLK_OP_ZONE_APPEND);
TRACE_DEFINE_ENUM(VIRTBLK_OP_ZONE_OPEN);
TRACE_DEFINE_ENUM(VIRTBLK_OP_ZONE_CLOSE);
TRACE_DEFINE_ENUM(VIRTBLK_OP_ZONE_FINISH);
TRACE_DEFINE_ENUM(VIRTBLK_OP_ZONE_RESET);
TRACE_DEFINE_ENUM(VIRTBLK_OP_ZONE_RESET_ALL);
TRACE_DEFINE_ENUM(VIRTBLK_OP_QUERY);

#define virtblk_show_op(op) __print_symbolic(op, \
	{ VIRTBLK_OP_READ, "read" }, \
	{ VIRTBLK_OP_WRITE, "write" }, \
	{ VIRTBLK_OP_FLUSH, "flush" }, \
	{ VIRTBLK_OP_DISCARD, "discard" }, \
	{ VIRTBLK_OP_WRITE_ZEROES, "write_zeroes" }, \
	{ VIRTBLK_OP_SECURE_ERASE, "secure_erase" }, \
	{ VIRTBLK_OP_ZONE_APPEND, "zone_append" }, \
	{ VIRTBLK_OP_ZONE_OPEN, "zone_open" }, \
	{ VIRTBLK_OP_ZONE_CLOSE, "zone_close" }, \
	{ VIRTBLK_OP_ZONE_FINISH, "zone_finish" }, \
	{ VIRTBLK_OP_ZONE_RESET, "zone_reset" }, \
	{ VIRTBLK_OP_ZONE_RESET_ALL, "zone_reset_all" }, \
	{ VIRTBLK_OP_QUERY, "query" })

/* The ring has accepted a request; the lock for submission is held. */
TRACE_EVENT(virtblk_submit,
	TP_PROTO(struct virtblk_queue *q, struct request *req),
	TP_ARGS(q, req),
	TP_STRUCT__entry(
		__field(dev_t, dev)
		__array(char, disk, DISK_NAME_LEN)
		__field(u16, queue)
		__field(u8, op)
		__field(u32, tag)
		__field(u64, sector)
		__field(u32, bytes)
	),
	TP_fast_assign(
		__entry->dev = disk_devt(req->q->disk);
		memcpy(__entry->disk, req->q->disk->disk_name, DISK_NAME_LEN);
		__entry->queue = q->hctx->queue_num;
		__entry->op = (__force u8)req_op(req);
		__entry->tag = req->tag;
		__entry->sector = blk_rq_pos(req);
		__entry->bytes = blk_rq_bytes(req);
	),
	TP_printk("%s queue=%u tag=%u %s sector=%llu bytes=%u",
		  __entry->disk, __entry->queue, __entry->tag,
		  virtblk_show_op(__entry->op),
		  __entry->sector, __entry->bytes)
);

/* The driver has taken a completed request off the ring. */
TRACE_EVENT(virtblk_complete,
	TP_PROTO(struct virtblk_queue *q, struct request *req,
		 unsigned int written),
	TP_ARGS(q, req, written),
	TP_STRUCT__entry(
		__field(dev_t, dev)
		__array(char, disk, DISK_NAME_LEN)
		__field(u16, queue)
		__field(u8, op)
		__field(u8, status)
		__field(u32, tag)
		__field(u64, sector)
		__field(u32, bytes)
		__field(u32, written)
	),
	TP_fast_assign(
		const struct virtblk_req *vbr = blk_mq_rq_to_pdu(req);

		__entry->dev = disk_devt(req->q->disk);
		memcpy(__entry->disk, req->q->disk->disk_name, DISK_NAME_LEN);
		__entry->queue = q->hctx->queue_num;
		__entry->op = (__force u8)req_op(req);
		__entry->status = vbr->status;
		__entry->tag = req->tag;
		__entry->sector = blk_rq_pos(req);
		__entry->bytes = blk_rq_bytes(req);
		__entry->written = written;
	),
	TP_printk("%s queue=%u tag=%u %s sector=%llu bytes=%u status=%u written=%u",
		  __entry->disk, __entry->queue, __entry->tag,
		  virtblk_show_op(__entry->op),
		  __entry->sector, __entry->bytes, __entry->status,
		  __entry->written)
);

/* The driver has decided whether to notify the device of requests in the ring. */
TRACE_EVENT(virtblk_kick,
	TP_PROTO(struct virtblk_queue *q, bool sent),
	TP_ARGS(q, sent),
	TP_STRUCT__entry(
		__array(char, disk, DISK_NAME_LEN)
		__field(u16, queue)
		__field(bool, sent)
	),
	TP_fast_assign(
		memcpy(__entry->disk, q->vblk->disk->disk_name, DISK_NAME_LEN);
		__entry->queue = q->hctx->queue_num;
		__entry->sent = sent;
	),
	TP_printk("%s queue=%u %s", __entry->disk, __entry->queue,
		  __entry->sent ? "sent" : "suppressed")
);

DECLARE_EVENT_CLASS(virtblk_queue,
	TP_PROTO(struct virtblk_queue *q),
	TP_ARGS(q),
	TP_STRUCT__entry(
		__array(char, disk, DISK_NAME_LEN)
		__field(u16, queue)
	),
	TP_fast_assign(
		strscpy_pad(__entry->disk, virtblk_trace_name(q->vblk),
			    DISK_NAME_LEN);
		__entry->queue = q->hctx ? q->hctx->queue_num : 0;
	),
	TP_printk("%s queue=%u", __entry->disk, __entry->queue)
);

/* The queue's interrupt has arrived. */
DEFINE_EVENT(virtblk_queue, virtblk_interrupt,
	TP_PROTO(struct virtblk_queue *q),
	TP_ARGS(q)
);

/* The ring is full; the hctx is stopped until a request completes. */
DEFINE_EVENT(virtblk_queue, virtblk_stop,
	TP_PROTO(struct virtblk_queue *q),
	TP_ARGS(q)
);

/* The driver recovers a device that does not answer or asks for a reset. */
TRACE_EVENT(virtblk_recover,
	TP_PROTO(struct virtio_blk *vblk, enum virtblk_step step,
		 unsigned int requests),
	TP_ARGS(vblk, step, requests),
	TP_STRUCT__entry(
		__array(char, disk, DISK_NAME_LEN)
		__field(int, step)
		__field(u32, requests)
	),
	TP_fast_assign(
		memcpy(__entry->disk, vblk->disk->disk_name, DISK_NAME_LEN);
		__entry->step = step;
		__entry->requests = requests;
	),
	TP_printk("%s %s requests=%u", __entry->disk,
		  __print_symbolic(__entry->step,
				   { VIRTBLK_STEP_POLL, "poll" },
				   { VIRTBLK_STEP_KICK, "kick" },
				   { VIRTBLK_STEP_RESET, "reset" },
				   { VIRTBLK_STEP_RESEND, "resend" },
				   { VIRTBLK_STEP_DEAD, "dead" }),
		  __entry->requests)
);

/* The device reports another capacity, in sectors of 512 bytes. */
TRACE_EVENT(virtblk_config,
	TP_PROTO(struct virtio_blk *vblk, u64 capacity),
	TP_ARGS(vblk, capacity),
	TP_STRUCT__entry(
		__array(char, disk, DISK_NAME_LEN)
		__field(u64, capacity)
	),
	TP_fast_assign(
		memcpy(__entry->disk, vblk->disk->disk_name, DISK_NAME_LEN);
		__entry->capacity = capacity;
	),
	TP_printk("%s capacity=%llu", __entry->disk, __entry->capacity)
);

#endif /* VIRTIO_BLK_TRACE_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace

#include <trace/define_trace.h>
