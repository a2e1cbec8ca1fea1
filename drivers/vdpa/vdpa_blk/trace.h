/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Trace points: begin and end of a request, and a batch of completions.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM vdpa_blk

#if !defined(VDPA_BLK_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define VDPA_BLK_TRACE_H

#include <linux/tracepoint.h>

#include "queue.h"
#include "vdpa_blk.h"

/* The worker has taken a request off the ring; type is the device's, VIRTIO_BLK_T_*. */
TRACE_EVENT(vdpa_blk_begin,
	TP_PROTO(struct vdpa_blk_queue *q, u16 id, u32 type, u64 sector),
	TP_ARGS(q, id, type, sector),
	TP_STRUCT__entry(
		__string(device, dev_name(&q->vb->vdpa.dev))
		__field(u16, queue)
		__field(u16, id)
		__field(u32, type)
		__field(u64, sector)
	),
	TP_fast_assign(
		__assign_str(device);
		__entry->queue = q->index;
		__entry->id = id;
		__entry->type = type;
		__entry->sector = sector;
	),
	TP_printk("%s queue=%u id=%u type=%u sector=%llu", __get_str(device),
		  __entry->queue, __entry->id, __entry->type, __entry->sector)
);

/* The device returns a request; len counts the bytes that it has written. */
TRACE_EVENT(vdpa_blk_end,
	TP_PROTO(struct vdpa_blk_queue *q, u16 id, u8 status, u32 len),
	TP_ARGS(q, id, status, len),
	TP_STRUCT__entry(
		__string(device, dev_name(&q->vb->vdpa.dev))
		__field(u16, queue)
		__field(u16, id)
		__field(u8, status)
		__field(u32, len)
	),
	TP_fast_assign(
		__assign_str(device);
		__entry->queue = q->index;
		__entry->id = id;
		__entry->status = status;
		__entry->len = len;
	),
	TP_printk("%s queue=%u id=%u status=%u len=%u", __get_str(device),
		  __entry->queue, __entry->id, __entry->status, __entry->len)
);

/* The worker publishes completions that it has collected. */
TRACE_EVENT(vdpa_blk_batch,
	TP_PROTO(struct vdpa_blk_queue *q, unsigned int requests, bool signal),
	TP_ARGS(q, requests, signal),
	TP_STRUCT__entry(
		__string(device, dev_name(&q->vb->vdpa.dev))
		__field(u16, queue)
		__field(u32, requests)
		__field(bool, signal)
	),
	TP_fast_assign(
		__assign_str(device);
		__entry->queue = q->index;
		__entry->requests = requests;
		__entry->signal = signal;
	),
	TP_printk("%s queue=%u requests=%u %s", __get_str(device), __entry->queue,
		  __entry->requests, __entry->signal ? "signalled" : "suppressed")
);

#endif /* VDPA_BLK_TRACE_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace

#include <trace/define_trace.h>
