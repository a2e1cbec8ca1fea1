/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The virtqueues of a device, and the workers that serve them.
 */
#ifndef VDPA_BLK_QUEUE_H
#define VDPA_BLK_QUEUE_H

#include <linux/blkdev.h>
#include <linux/sched.h>
#include <linux/spinlock.h>
#include <linux/vdpa.h>
#include <linux/virtio_blk.h>

#include "memory.h"
#include "ring.h"
#include "settings.h"

struct vdpa_blk;
struct vdpa_blk_request;

/* The longest chain: header, status, and the data of one request. */
#define VDPA_BLK_MAX_DATA_SEGS	254
#define VDPA_BLK_MAX_SEGS	(VDPA_BLK_MAX_DATA_SEGS + 2)

/**
 * struct vdpa_blk_chain - a request's buffers, the worker's alone
 * @id: what the used ring returns
 * @descs: entries of a packed ring that it takes
 * @nr_out: the first of @segs, which the device reads
 * @nr_in: those after them, which the device writes
 * @taken: how many of the @nr_out have been copied
 * @segs: the buffers
 */
struct vdpa_blk_chain {
	u16 id;
	u16 descs;
	unsigned int taken;
	unsigned int nr_out;
	unsigned int nr_in;
	struct vdpa_blk_seg segs[VDPA_BLK_MAX_SEGS];
};

/**
 * struct vdpa_blk_stats - what a queue's worker has done since the device was added
 * @requests: requests by direction: reads, writes, flushes, others
 * @bytes: bytes read and written
 * @broken: chains that no driver may make
 * @wakeups: how often the worker served the queue
 * @empty: how often it found nothing
 * @bounced: requests that were copied
 */
struct vdpa_blk_stats {
	u64 requests[4];
	u64 bytes[2];
	u64 broken;
	u64 wakeups;
	u64 empty;
	u64 bounced;
};

/**
 * struct vdpa_blk_used_stats - what completions have counted
 * @errors: requests that failed
 * @unsupported: requests with a type or flags that the device does not offer, and those
 *	that the block layer does not support
 * @signals: interrupts of the driver
 * @suppressed: interrupts that the driver had suppressed
 */
struct vdpa_blk_used_stats {
	u64 errors;
	u64 unsupported;
	u64 signals;
	u64 suppressed;
};

enum vdpa_blk_kind {
	VDPA_BLK_READ,
	VDPA_BLK_WRITE,
	VDPA_BLK_FLUSH,
	VDPA_BLK_OTHER,
};

/**
 * struct vdpa_blk_queue - a virtqueue
 * @vb: the device
 * @worker: the worker that serves it
 * @index: its index
 * @num: entries of the ring, as the driver set them
 * @ready: the driver has enabled it
 * @running: its ring is mapped, and the worker may serve it
 * @broken: the driver has broken it; only a reset starts it again
 * @desc_addr: address of the descriptor area, as the driver has it
 * @driver_addr: of the driver area
 * @device_addr: of the device area
 * @state: where the ring begins
 * @has_state: @state is set; without it a ring begins where VIRTIO says
 * @ring: the ring
 * @hint: the extent in which the worker's last table, header or status was, since the ring
 *	was mapped
 * @data_hint: the extent in which its last data was
 * @must_copy: the next read or write waits to be copied
 * @may_stall: the worker has set the queue's bit in @vb->stalled, and has not cleared it
 * @free: free requests
 * @done: requests that have completed while the worker submits a batch
 * @done_end: where the next of them goes
 * @nr_done: their number
 * @header: of the request that the worker parses
 * @chain: its chain
 * @table: a copy of an indirect table
 * @requests: as many as a ring has entries at most, the setting ring_size
 * @batching: the worker, while it submits a batch: it collects what completes meanwhile
 *	on it, see vdpa_blk_flush_completions()
 * @stats: the worker's counters
 * @lock: protects the used side of @ring, @cb, @returned and @used_stats; taken with
 *	interrupts off.  Completions write what follows from here on, and read what is
 *	before it.
 * @cb: the driver's callback
 * @returned: free requests that completions have left for the worker
 * @used_stats: the counters of completions
 * @in_flight: requests that have not completed
 * @copied_writes: of them, writes that are copied to a device with zones; the worker
 *	keeps the order of writes, and waits for these
 *
 * @vb, @worker, @index and @requests do not change.  The device's lock protects @num,
 * @ready, the addresses, @state and @has_state, which the bus driver sets.
 *
 * @running changes with that lock held while the workers are parked, and the worker clears
 * it when it breaks the virtqueue.  It sets @broken then, as set-up does; a reset clears
 * @broken with the config lock held.
 *
 * The worker alone uses @hint to @table and @stats, and others only while it is parked.  A
 * completion adds to @done only if it runs in the worker, which @batching shows.
 */
struct vdpa_blk_queue {
	struct vdpa_blk *vb;
	struct vdpa_blk_worker *worker;
	unsigned int index;
	u32 num;
	bool ready;
	bool running;
	bool broken;
	u64 desc_addr;
	u64 driver_addr;
	u64 device_addr;
	struct vdpa_vq_state state;
	bool has_state;
	struct vdpa_blk_ring ring;
	const struct vdpa_blk_extent *hint;
	const struct vdpa_blk_extent *data_hint;
	bool must_copy;
	bool may_stall;
	struct vdpa_blk_request *free;
	struct vdpa_blk_request *done;
	struct vdpa_blk_request **done_end;
	unsigned int nr_done;
	struct virtio_blk_outhdr header;
	struct vdpa_blk_chain chain;
	union {
		struct vring_desc split[VDPA_BLK_MAX_SEGS];
		struct vring_packed_desc packed[VDPA_BLK_MAX_SEGS];
	} table;
	struct vdpa_blk_request *requests;
	struct task_struct *batching;
	struct vdpa_blk_stats stats;

	spinlock_t lock ____cacheline_aligned_in_smp;
	struct vdpa_callback cb;
	struct vdpa_blk_request *returned;
	struct vdpa_blk_used_stats used_stats;
	atomic_t in_flight;
	atomic_t copied_writes;
};

/**
 * struct vdpa_blk_worker - a thread that serves queues
 * @vb: the device
 * @task: the thread
 * @index: its index
 * @words: how many of @pending have a bit for a queue of the device
 * @plug: collects the bios of a batch
 * @pending: a bit for each queue that the driver has kicked, which any context can set
 *
 * @vb, @task, @index and @words do not change.  @plug is the worker's alone.
 */
struct vdpa_blk_worker {
	struct vdpa_blk *vb;
	struct task_struct *task;
	unsigned int index;
	unsigned int words;
	struct blk_plug plug;
	DECLARE_BITMAP(pending, VDPA_BLK_MAX_QUEUES);
};

/**
 * vdpa_blk_wake_worker() - have a queue served
 * @q: the queue
 *
 * Context: any.
 */
static inline void vdpa_blk_wake_worker(struct vdpa_blk_queue *q)
{
	/*
	 * The worker sets its state before it reads the bits.  If the bit is set already,
	 * somebody wakes the worker for it, or has done so.
	 */
	if (!test_and_set_bit(q->index, q->worker->pending))
		wake_up_process(q->worker->task);
}

/* worker.c */
int vdpa_blk_start_workers(struct vdpa_blk *vb);
void vdpa_blk_stop_workers(struct vdpa_blk *vb);
void vdpa_blk_park_workers(struct vdpa_blk *vb);
void vdpa_blk_unpark_workers(struct vdpa_blk *vb);
void vdpa_blk_break(struct vdpa_blk_queue *q, const char *why);

/* queue.c */
int vdpa_blk_alloc_queues(struct vdpa_blk *vb);
void vdpa_blk_free_queues(struct vdpa_blk *vb);
void vdpa_blk_start_queues(struct vdpa_blk *vb);
void vdpa_blk_stop_queue(struct vdpa_blk_queue *q);
void vdpa_blk_stop_queues(struct vdpa_blk *vb);
void vdpa_blk_reset_queue(struct vdpa_blk_queue *q);

#endif /* VDPA_BLK_QUEUE_H */
