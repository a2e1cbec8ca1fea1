/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The end of a request, and what the end of each bio runs through of complete.c.
 */
#ifndef VDPA_BLK_COMPLETE_H
#define VDPA_BLK_COMPLETE_H

#include "queue.h"
#include "request.h"
#include "trace.h"
#include "vdpa_blk.h"

void vdpa_blk_restart_stalled(struct vdpa_blk *vb);
void vdpa_blk_free_table(struct vdpa_blk_request *rq);
void vdpa_blk_complete(struct vdpa_blk_request *rq, u8 status);
void vdpa_blk_flush_completions(struct vdpa_blk_queue *q);
void vdpa_blk_end_bio(struct bio *bio);
void vdpa_blk_complete_now(struct vdpa_blk_queue *q, struct vdpa_blk_request *rq);

/* vdpa_blk_complete(), without a call if the worker collects the request. */
static __always_inline void vdpa_blk_collect(struct vdpa_blk_request *rq, u8 status)
{
	struct vdpa_blk_queue *q = rq->q;

	/* The length counts from the first byte, and only the status is sure. */
	if (unlikely(status != VIRTIO_BLK_S_OK))
		rq->len = rq->status_only;
	trace_vdpa_blk_end(q, rq->id, status, rq->len);
	if (unlikely(rq->vecs != rq->inline_vecs))
		vdpa_blk_free_table(rq);
	WRITE_ONCE(*rq->status, status);
	rq->result = status;
	rq->next = NULL;

	if (!in_task() || READ_ONCE(q->batching) != current) {
		vdpa_blk_complete_now(q, rq);
		return;
	}
	/* Completed while the worker submits: it publishes several at once. */
	*q->done_end = rq;
	q->done_end = &rq->next;
	q->nr_done++;
}

#endif /* VDPA_BLK_COMPLETE_H */
