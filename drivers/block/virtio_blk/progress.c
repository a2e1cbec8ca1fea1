// SPDX-License-Identifier: GPL-2.0
/*
 * What is in flight on a disk, and for how long none of it has completed.
 */

#include <linux/bitmap.h>
#include <linux/blk-mq.h>
#include <linux/jiffies.h>
#include <linux/module.h>

#include "virtio_blk.h"

/* The maximum wait for a device that completes nothing. */
#define VIRTBLK_MAX_ANSWER	(300 * HZ)

/*
 * Healthy storage pauses during a failover: open-iscsi queues for 120 s
 * (replacement_timeout), Ceph's monitors need some 20 s to notice a dead OSD and its
 * placement groups as long again to recover, a SCSI host retries a command of 30 s
 * five times.  The default is above all of these.
 */
static unsigned int virtblk_removal_timeout = 300;
module_param_named(removal_timeout, virtblk_removal_timeout, uint, 0644);
MODULE_PARM_DESC(removal_timeout,
		 "Seconds without any completion after which the removal of a disk fails the I/O that its device does not answer (0: never)");

/**
 * virtblk_rq_done() - has a request left the ring?
 * @req: the request
 *
 * Return: true if it is no longer in flight.
 */
bool virtblk_rq_done(struct request *req)
{
	return blk_mq_rq_state(req) != MQ_RQ_IN_FLIGHT;
}

/**
 * virtblk_count_completions() - count the polls that found completed requests
 * @vblk: the disk
 *
 * Return: a number that changes with each of them, on any queue.
 */
u64 virtblk_count_completions(struct virtio_blk *vblk)
{
	u64 polls = 0, *counts;
	unsigned int i, n;

	for (i = 0; i < vblk->nr_vqs; i++) {
		counts = vblk->queues[i]->stats.polls;
		for (n = 1; n <= VIRTBLK_REAP_BATCH; n++) {
			/* No lock, because any difference is enough. */
			polls += data_race(counts[n]);
		}
	}
	return polls;
}

static bool virtblk_scan_one(struct request *req, void *data)
{
	struct virtblk_req *vbr = blk_mq_rq_to_pdu(req);
	struct virtblk_stall *stall = data;

	if (virtblk_rq_done(req))
		return true;
	if (!stall->in_flight++ || time_before(vbr->sent, stall->oldest))
		stall->oldest = vbr->sent;
	if (!READ_ONCE(vbr->timed_out))
		return true;
	if (!stall->timed_out++ ||
	    time_before(vbr->sent, stall->oldest_timed_out))
		stall->oldest_timed_out = vbr->sent;
	if (stall->queues)
		__set_bit(req->mq_hctx->queue_num, stall->queues);
	return true;
}

/**
 * virtblk_scan_inflight() - count the requests in flight
 * @vblk: the disk
 * @stall: filled in; zeroed by the caller, who may provide memory for @queues
 */
void virtblk_scan_inflight(struct virtio_blk *vblk, struct virtblk_stall *stall)
{
	blk_mq_tagset_busy_iter(&vblk->tag_set, virtblk_scan_one, stall);
}

/**
 * virtblk_silence() - measure the time since the disk last completed a request
 * @vblk: the disk, its recovery.lock held
 * @stall: what is in flight, from virtblk_scan_inflight()
 *
 * Return: the time in jiffies, 0 if nothing is in flight.
 */
unsigned long virtblk_silence(struct virtio_blk *vblk,
			      const struct virtblk_stall *stall)
{
	struct virtblk_recovery *recovery = &vblk->recovery;
	u64 completed = virtblk_count_completions(vblk);

	if (completed != recovery->completed || !stall->in_flight) {
		recovery->completed = completed;
		recovery->progress = jiffies;
	}
	/* Before it sent the oldest request the driver did not wait for the device. */
	if (stall->in_flight && time_after(stall->oldest, recovery->progress))
		recovery->progress = stall->oldest;
	return jiffies - recovery->progress;
}

/**
 * virtblk_seconds() - read a parameter that is a time
 * @parameter: the parameter, in seconds
 *
 * Return: the time in jiffies.
 */
unsigned long virtblk_seconds(unsigned int *parameter)
{
	return min(READ_ONCE(*parameter), (unsigned int)INT_MAX / HZ) *
	       (unsigned long)HZ;
}

/**
 * virtblk_removal_timed_out() - has the removal waited for removal_timeout?
 * @vblk: the disk, its recovery.lock held
 *
 * Return: true if the disk is being removed and was silent for removal_timeout.
 */
bool virtblk_removal_timed_out(struct virtio_blk *vblk)
{
	unsigned long timeout = virtblk_seconds(&virtblk_removal_timeout);
	struct virtblk_stall stall = { };

	if (!READ_ONCE(vblk->recovery.removing) || !timeout)
		return false;
	virtblk_scan_inflight(vblk, &stall);
	return virtblk_silence(vblk, &stall) >= timeout;
}

/**
 * virtblk_answer_timeout() - get the time to wait for a device that must answer
 * @vblk: the disk
 *
 * A suspend, a reset of the function, and a return need the device's answer.  They wait
 * for twice the block layer's timeout, VIRTBLK_MAX_ANSWER at most.
 *
 * Return: the time without any completion, in jiffies.
 */
unsigned long virtblk_answer_timeout(struct virtio_blk *vblk)
{
	unsigned long timeout = READ_ONCE(vblk->disk->queue->rq_timeout);

	return min_t(unsigned long, 2 * timeout, VIRTBLK_MAX_ANSWER);
}
