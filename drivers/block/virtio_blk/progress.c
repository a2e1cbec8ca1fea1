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
static unsigned int virtblk_default_removal_timeout = 300;
module_param_named(removal_timeout, virtblk_default_removal_timeout, uint, 0644);
MODULE_PARM_DESC(removal_timeout,
		 "Default of recovery/removal_timeout: seconds without any completion after which the removal of a disk fails the I/O that its device does not answer (0: never)");

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
 * virtblk_count_polls() - count the polls of a queue that found completed requests
 * @q: the queue
 *
 * Return: a number that changes with each of them.
 */
u64 virtblk_count_polls(struct virtblk_queue *q)
{
	unsigned int n;
	u64 polls = 0;

	for (n = 1; n <= VIRTBLK_REAP_BATCH; n++) {
		/* No lock, because any difference is enough. */
		polls += data_race(q->stats.polls[n]);
	}
	return polls;
}

/**
 * virtblk_count_completions() - count the polls that found completed requests
 * @vblk: the disk
 *
 * Return: a number that changes with each of them, on any queue.
 */
u64 virtblk_count_completions(struct virtio_blk *vblk)
{
	unsigned int i;
	u64 polls = 0;

	for (i = 0; i < vblk->nr_vqs; i++)
		polls += virtblk_count_polls(vblk->queues[i]);
	return polls;
}

/**
 * virtblk_scan_one() - count a request if it is in flight
 * @req: the request, to which the caller holds a reference
 * @data: the struct virtblk_stall to add it to
 *
 * Return: true.
 */
bool virtblk_scan_one(struct request *req, void *data)
{
	struct virtblk_req *vbr = blk_mq_rq_to_pdu(req);
	struct virtblk_stall *stall = data;
	unsigned long sent;

	if (virtblk_rq_done(req))
		return true;
	/* sysfs counts while a reset may send the request again. */
	sent = data_race(vbr->sent);
	if (!stall->in_flight++ || time_before(sent, stall->oldest))
		stall->oldest = sent;
	if (!READ_ONCE(vbr->timed_out))
		return true;
	if (!stall->timed_out++ || time_before(sent, stall->oldest_timed_out))
		stall->oldest_timed_out = sent;
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
 * virtblk_sync_timeouts() - wait for the timeout handlers that run
 * @queue: the queue, which starts no more requests
 *
 * Context: may sleep.
 */
void virtblk_sync_timeouts(struct request_queue *queue)
{
	/* Again, because a handler that runs arms the timer. */
	do {
		blk_sync_queue(queue);
	} while (timer_pending(&queue->timeout) ||
		 work_busy(&queue->timeout_work));
}

/**
 * virtblk_update_silence() - note progress, and measure the time since the last
 * @vblk: the disk, its recovery.lock held
 * @stall: what is in flight, from virtblk_scan_inflight()
 *
 * Return: the time in jiffies, 0 if nothing is in flight.
 */
unsigned long virtblk_update_silence(struct virtio_blk *vblk,
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
 * virtblk_age_ms() - get the age of the oldest request in flight
 * @stall: what is in flight, from virtblk_scan_inflight()
 *
 * Return: the time since the driver sent it, in ms, for the first time if it has timed
 * out; 0 if there is none.
 */
unsigned int virtblk_age_ms(const struct virtblk_stall *stall)
{
	return stall->in_flight ? jiffies_to_msecs(jiffies - stall->oldest) : 0;
}

/**
 * virtblk_setting() - get a setting of a disk
 * @setting: that of the disk, VIRTBLK_UNSET if it follows the module's parameter
 * @parameter: the module's parameter
 * @most: the maximum
 *
 * Return: the value, at most @most.
 */
unsigned int virtblk_setting(const unsigned int *setting,
			     const unsigned int *parameter, unsigned int most)
{
	unsigned int value = READ_ONCE(*setting);

	if (value == VIRTBLK_UNSET)
		value = READ_ONCE(*parameter);
	return min(value, most);
}

/**
 * virtblk_removal_timeout() - get the time that a removal waits for a silent device
 * @vblk: the disk
 *
 * Return: the time without any completion, in seconds; 0: as long as it takes.
 */
unsigned int virtblk_removal_timeout(struct virtio_blk *vblk)
{
	return virtblk_setting(&vblk->recovery.removal_timeout,
			       &virtblk_default_removal_timeout,
			       VIRTBLK_MAX_SECONDS);
}

/**
 * virtblk_removal_timed_out() - has the removal waited for removal_timeout?
 * @vblk: the disk, its recovery.lock held
 *
 * Return: true if the disk is being removed and was silent for removal_timeout.
 */
bool virtblk_removal_timed_out(struct virtio_blk *vblk)
{
	unsigned long timeout = virtblk_removal_timeout(vblk) * (unsigned long)HZ;
	struct virtblk_stall stall = { };

	if (!READ_ONCE(vblk->recovery.removing) || !timeout)
		return false;
	virtblk_scan_inflight(vblk, &stall);
	return virtblk_update_silence(vblk, &stall) >= timeout;
}

/* So many of the block layer's timeouts, VIRTBLK_MAX_ANSWER at most. */
static unsigned long virtblk_block_timeouts(struct virtio_blk *vblk,
					    unsigned int count)
{
	u64 timeout = READ_ONCE(vblk->disk->queue->rq_timeout);

	return min_t(u64, count * timeout, VIRTBLK_MAX_ANSWER);
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
	return virtblk_block_timeouts(vblk, 2);
}

/**
 * virtblk_probe_timeout() - get the time that a probe waits for its device
 * @vblk: the disk
 *
 * A probe holds locks: that of the device, and those of who adds it.  Others wait for
 * them, so that a device without an answer would block all devices that are added later.
 * But storage that fails over is silent for minutes, and a root disk is probed only once:
 * five times the block layer's timeout, 150 s by default, VIRTBLK_MAX_ANSWER at most.
 *
 * Return: the time without any completion, in jiffies.
 */
unsigned long virtblk_probe_timeout(struct virtio_blk *vblk)
{
	return virtblk_block_timeouts(vblk, 5);
}

/**
 * virtblk_probe_timed_out() - has the probe waited long enough for the device?
 * @vblk: the disk, its recovery.lock held
 *
 * Return: true if the disk is being probed and was silent for virtblk_probe_timeout().
 */
bool virtblk_probe_timed_out(struct virtio_blk *vblk)
{
	struct virtblk_stall stall = { };

	if (!vblk->recovery.probing)
		return false;
	virtblk_scan_inflight(vblk, &stall);
	return virtblk_update_silence(vblk, &stall) >= virtblk_probe_timeout(vblk);
}
