/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The end of a request.
 */
#ifndef VDPA_BLK_COMPLETE_H
#define VDPA_BLK_COMPLETE_H

#include "queue.h"
#include "request.h"
#include "vdpa_blk.h"

void vdpa_blk_restart_stalled(struct vdpa_blk *vb);
void vdpa_blk_free_table(struct vdpa_blk_request *rq);
void vdpa_blk_complete(struct vdpa_blk_request *rq, u8 status);
void vdpa_blk_flush_completions(struct vdpa_blk_queue *q);
void vdpa_blk_end_bio(struct bio *bio);

#endif /* VDPA_BLK_COMPLETE_H */
