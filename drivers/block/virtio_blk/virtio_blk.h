/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The types of the virtio block driver, and the functions that its files share.
 *
 * struct virtio_blk is the disk.  struct virtblk_queue is one of its virtqueues
 * together with its hctx.  struct virtblk_req is the driver's part of a request, beside
 * blk-mq's struct request.
 */
#ifndef VIRTIO_BLK_DRIVER_H
#define VIRTIO_BLK_DRIVER_H

#include <linux/atomic.h>
#include <linux/blk-mq.h>
#include <linux/cache.h>
#include <linux/hdreg.h>
#include <linux/jump_label.h>
#include <linux/ktime.h>
#include <linux/mutex.h>
#include <linux/scatterlist.h>
#include <linux/spinlock.h>
#include <linux/virtio.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <linux/workqueue.h>

#include "fault_inject.h"
#include "limits.h"

/*
 * Limit for the segments of a request whose scatterlist is part of struct virtblk_req;
 * a request with more borrows a table from the kernel's pool.
 */
#define VIRTBLK_INLINE_SGS	2

/* A header and a status take two descriptors of each request's chain. */
#define VIRTBLK_EXTRA_DESCS	2

/*
 * The status byte while a request is in flight.  No device may return this value
 * (VIRTIO 1.3, 5.2.6), so it shows that the device did not write the byte.
 */
#define VIRTBLK_STATUS_UNWRITTEN	0xff

/* VIRTIO 1.2 and later; the kernel's headers have no name for it. */
#define VIRTBLK_F_LIFETIME	15

struct virtio_blk;

#define VIRTBLK_NR_OPS	((__force unsigned int)REQ_OP_LAST)

/* Limit for the requests that one poll takes off the ring. */
#define VIRTBLK_REAP_BATCH	32

/**
 * struct virtblk_stats - what a queue has done since its disk was probed
 * @longest_wait: the longest time from submission to completion, in jiffies
 * @kicks: notifications of the device
 * @kicks_suppressed: notifications that the device had suppressed
 * @requests: requests added to the ring, by enum req_op
 * @bytes: their bytes
 * @polls: polls of the ring, by the number of completed requests found
 * @ring_full: how often the ring had no room
 * @requeues: requests that blk-mq has to dispatch again because room or memory was
 *	short
 * @ioerr: requests that the device completed with VIRTIO_BLK_S_IOERR
 * @unsupp: with VIRTIO_BLK_S_UNSUPP
 * @other_errors: with any other status except VIRTIO_BLK_S_OK
 * @timeouts: how often a request timed out
 * @lost_interrupts: how often it had completed by then without an interrupt
 * @resent: requests sent again after a reset
 *
 * The queue's lock protects the counters, except the atomic ones at the end.  Completion
 * counts errors without the lock: it may run in a softirq, and a transport may map memory
 * under locks of its own that leave interrupts on, as VDUSE does below
 * virtqueue_add_sgs().
 */
struct virtblk_stats {
	unsigned long longest_wait;
	u64 kicks;
	u64 kicks_suppressed;
	u64 requests[VIRTBLK_NR_OPS];
	u64 bytes[VIRTBLK_NR_OPS];
	u64 polls[VIRTBLK_REAP_BATCH + 1];
	u64 ring_full;
	atomic64_t requeues;
	atomic64_t ioerr;
	atomic64_t unsupp;
	atomic64_t other_errors;
	atomic64_t timeouts;
	atomic64_t lost_interrupts;
	atomic64_t resent;
};

/**
 * struct virtblk_queue - one virtqueue and its hctx
 * @vq: the virtqueue, "req.N"; NULL while there is none, another one after each suspend
 *	or reset; changes under @lock
 * @vblk: the disk
 * @hctx: the hardware context, from init_hctx() on
 * @indirect: each request takes one descriptor of the ring
 * @ring_size: descriptors in the ring
 * @work: completes requests that a hard interrupt left on the ring
 * @lock: protects the ring and @stopped; taken with interrupts off
 * @stopped: the ring was full and @hctx was stopped; the next completion starts it
 * @interrupts: the number of interrupts; only the queue's own interrupt writes it
 * @stats: counters
 *
 * Allocated one by one on the NUMA node of the queue's CPUs.  While the disk is live
 * the first cache line is only read; the fields that submission and completion write
 * begin with the lock.
 */
struct virtblk_queue {
	struct virtqueue *vq;
	struct virtio_blk *vblk;
	struct blk_mq_hw_ctx *hctx;
	bool indirect;
	unsigned int ring_size;
	struct work_struct work;

	spinlock_t lock ____cacheline_aligned_in_smp;
	bool stopped;
	u64 interrupts;
	struct virtblk_stats stats;
};

/**
 * struct virtblk_req - the driver's part of a request
 * @out_hdr: the header that the device reads
 * @append_sector: the sector of a zone append; the device writes it together with
 *	@status
 * @status: the byte that the device writes last
 * @data: the scatterlist of the data, NULL for a request without data
 * @sg_table: a borrowed scatterlist, sgl is NULL if there is none
 * @hdr_sg: describes @out_hdr; filled in once for each slot
 * @status_sg: describes @status; filled in once for each slot
 * @timed_out: the request has taken longer than io_timeout
 * @resent: how often the driver sent it again after a reset
 * @sent: when the driver sent it, in jiffies; if it has timed out, when it was first
 *	sent
 * @inline_sg: scatterlist of a request with few segments
 */
struct virtblk_req {
	struct virtio_blk_outhdr out_hdr;
	__virtio64 append_sector;
	u8 status;
	struct scatterlist *data;
	struct sg_table sg_table;
	struct scatterlist hdr_sg;
	struct scatterlist status_sg;
	bool timed_out;
	u8 resent;
	unsigned long sent;
	struct scatterlist inline_sg[VIRTBLK_INLINE_SGS];
};

/**
 * enum virtblk_state - the state of a disk; see reset.c
 * @VIRTBLK_NEW: the disk is being probed
 * @VIRTBLK_LIVE: the device serves requests
 * @VIRTBLK_SUSPENDED: the device is suspended, or its PCI function is being reset; there
 *	are no virtqueues
 * @VIRTBLK_RESETTING: the driver resets the device; there are no virtqueues
 * @VIRTBLK_DEAD: the device is gone, or offers less than at probe; I/O fails
 */
enum virtblk_state {
	VIRTBLK_NEW,
	VIRTBLK_LIVE,
	VIRTBLK_SUSPENDED,
	VIRTBLK_RESETTING,
	VIRTBLK_DEAD,
};

/**
 * enum virtblk_reset - why the driver resets a device that does not ask for it
 * @VIRTBLK_RESET_NONE: it does not reset the device
 * @VIRTBLK_RESET_STALLED: the disk has completed no request for reset_after
 * @VIRTBLK_RESET_REQUESTED: the administrator asked for it
 */
enum virtblk_reset {
	VIRTBLK_RESET_NONE,
	VIRTBLK_RESET_STALLED,
	VIRTBLK_RESET_REQUESTED,
};

/**
 * struct virtblk_stall - the requests in flight of a disk
 * @in_flight: their number
 * @timed_out: how many of them have timed out
 * @oldest: when the oldest was sent, in jiffies
 * @oldest_timed_out: when the oldest that has timed out was sent, in jiffies
 * @queues: a bit for each queue with a request that has timed out, or NULL
 */
struct virtblk_stall {
	unsigned int in_flight;
	unsigned int timed_out;
	unsigned long oldest;
	unsigned long oldest_timed_out;
	unsigned long *queues;
};

/**
 * struct virtblk_recovery - the state of a disk, and the works that change it
 * @lock: held while @state changes, while virtqueues are created and deleted, and while
 *	the driver reads the device's status and configuration.  No holder waits for a
 *	request, or for a queue to freeze that is not frozen already.
 * @state: the state; only virtblk_set_state() changes it
 * @work: resets the device if it asks for it, declares the disk dead if it is gone
 * @watch: checks once a second for requests that have timed out
 * @deadline: declares a suspended disk dead whose device does not return
 * @held: @work ignores the device for now
 * @wanted: why @work must reset a device that does not ask for it
 * @last_reset: when the device returned from its last reset
 * @zone_writes: writes to sequential zones that a reset requeues
 * @drained: the disk is suspended, its queue frozen, and no request waits
 * @requeued: requests that the last reset requeued
 * @fruitless: resets of a stalled disk since a request last completed
 * @completed_at_reset: virtblk_count_completions() at the last of them
 * @resets: how often @work has reset the device
 * @completed: virtblk_count_completions() at the last check for silence
 * @progress: when it last changed, or the device last returned, in jiffies
 * @removing: the disk is being removed
 * @stalled: requests have timed out, and the driver has logged that
 */
struct virtblk_recovery {
	struct mutex lock;		/* see above */
	enum virtblk_state state;
	struct work_struct work;
	struct delayed_work watch;
	struct delayed_work deadline;
	bool held;
	enum virtblk_reset wanted;
	ktime_t last_reset;
	struct list_head zone_writes;
	bool drained;
	unsigned int requeued;
	unsigned int fruitless;
	u64 completed_at_reset;
	atomic_long_t resets;
	u64 completed;
	unsigned long progress;
	bool removing;
	bool stalled;
};

/**
 * struct virtio_blk - a disk
 * @vdev: the virtio device
 * @disk: the block layer's view of the disk
 * @tag_set: its tags, and the maps from CPUs to queues
 * @legacy: the device has no VIRTIO_F_VERSION_1
 * @writeback: the block layer flushes the device's write cache
 * @cache_lock: held while the cache mode changes
 * @config: the configuration space at probe
 * @config_work: reads the capacity and cache mode again
 * @followed: when @config_work last ran, in jiffies
 * @recovery: the state of the disk
 * @debugfs: the disk's directory in debugfs
 * @faults: fault injection
 * @users: callbacks of the virtio core that use the disk
 * @index: number in the disk's name and minors
 * @ring_size: descriptors in each ring
 * @direct: the device offers indirect descriptors, and the driver declined them
 * @has_vqs: there are virtqueues
 * @spread: at probe the transport gave each queue with an interrupt its own vector and
 *	spread the vectors over the CPUs, and the queue map follows them
 * @managed: the kernel spreads the present vectors, not the driver
 * @cpuhp_node: calls the driver when a CPU comes online
 * @nr_queues: the number of queues for each type of hctx
 * @nr_vqs: their sum
 * @vq_names: names of the virtqueues, which the virtio core refers to
 * @queues: the queues, in the order of enum hctx_type: those of all requests,
 *	or of all but reads; those of reads; those that are polled
 */
struct virtio_blk {
	struct virtio_device *vdev;
	struct gendisk *disk;
	struct blk_mq_tag_set tag_set;
	bool legacy;
	bool writeback;
	struct mutex cache_lock;	/* see above */
	struct virtblk_config config;
	struct delayed_work config_work;
	unsigned long followed;
	struct virtblk_recovery recovery;
	struct dentry *debugfs;
#ifdef CONFIG_FAULT_INJECTION_DEBUG_FS
	struct virtblk_faults faults;
#endif
	unsigned int users;
	int index;
	unsigned int ring_size;
	bool direct;
	bool has_vqs;
	bool spread;
	bool managed;
	struct hlist_node cpuhp_node;
	unsigned int nr_queues[HCTX_MAX_TYPES];
	unsigned int nr_vqs;
	char (*vq_names)[16];
	struct virtblk_queue *queues[];
};

/**
 * virtblk_first_polled() - where the polled queues begin
 * @vblk: the disk
 *
 * Return: the index of the first queue without an interrupt.
 */
static inline unsigned int virtblk_first_polled(const struct virtio_blk *vblk)
{
	return vblk->nr_vqs - vblk->nr_queues[HCTX_TYPE_POLL];
}

/* work.c: I/O may wait for this work, and memory reclaim for that I/O */
extern struct workqueue_struct *virtblk_wq;
/* For completions: no work on it sleeps, so that the recovery of a disk delays none. */
extern struct workqueue_struct *virtblk_complete_wq;

int virtblk_init_workqueues(void);
void virtblk_exit_workqueues(void);

/* config.c */
int virtblk_validate(struct virtio_device *vdev);
bool virtblk_writeback(struct virtio_device *vdev);
int virtblk_set_write_cache(struct virtio_blk *vblk, bool writeback);
int virtblk_restore_writeback(struct virtio_blk *vblk);
u64 virtblk_read_capacity(struct virtio_device *vdev);
void virtblk_init_capacity(struct virtio_blk *vblk);
void virtblk_config_work(struct work_struct *work);
void virtblk_schedule_config_work(struct virtio_blk *vblk);
int virtblk_getgeo(struct gendisk *disk, struct hd_geometry *geo);

/* device.c */
bool virtblk_is_gone(struct virtio_device *vdev);
void virtblk_reset_device(struct virtio_device *vdev);
bool virtblk_needs_reset(struct virtio_device *vdev);
bool virtblk_was_reset(struct virtio_device *vdev);
int virtblk_negotiate(struct virtio_device *vdev);
void virtblk_hide_gone(struct virtio_device *vdev);
void virtblk_free_gone_ops(void);

/* queue.c */
unsigned int virtblk_device_queues(struct virtio_device *vdev);
unsigned int virtblk_count_queues(struct virtio_device *vdev,
				  unsigned int nr_queues[HCTX_MAX_TYPES]);
int virtblk_find_vqs(struct virtio_blk *vblk, bool managed);
int virtblk_find_vqs_unmanaged(struct virtio_blk *vblk);
void virtblk_del_vqs(struct virtio_blk *vblk);
int virtblk_init_vqs(struct virtio_blk *vblk);
unsigned int virtblk_max_chain(const struct virtio_blk *vblk);
int virtblk_alloc_queues(struct virtio_blk *vblk);
void virtblk_free_queues(struct virtio_blk *vblk);
void virtblk_bind_vqs(struct virtio_blk *vblk);
void virtblk_unbind_vqs(struct virtio_blk *vblk);
void virtblk_poll_all(struct virtio_blk *vblk);
void virtblk_cancel_queue_works(struct virtio_blk *vblk);
unsigned int virtblk_choose_depth(struct virtio_blk *vblk);
int virtblk_init_hctx(struct blk_mq_hw_ctx *hctx, void *data,
		      unsigned int index);

/* affinity.c */
void virtblk_init_affinity(struct virtio_blk *vblk,
			   struct irq_affinity *affinity);
bool virtblk_check_spread(struct virtio_blk *vblk);
void virtblk_map_queues(struct blk_mq_tag_set *set);
bool virtblk_vectors_match(struct virtio_blk *vblk);
void virtblk_queue_cpus(struct virtio_blk *vblk, unsigned int index,
			struct cpumask *mask);
void virtblk_set_affinity(struct virtio_blk *vblk);
int virtblk_irq(struct virtio_blk *vblk, unsigned int index);
int virtblk_init_cpuhp(void);
void virtblk_exit_cpuhp(void);
int virtblk_add_cpuhp(struct virtio_blk *vblk);
void virtblk_remove_cpuhp(struct virtio_blk *vblk);

/* io.c */
/* The driver checks the lengths that the device returns; see virtblk_check_length(). */
DECLARE_STATIC_KEY_FALSE(virtblk_hardened);

blk_status_t virtblk_queue_rq(struct blk_mq_hw_ctx *hctx,
			      const struct blk_mq_queue_data *bd);
void virtblk_queue_rqs(struct rq_list *rqlist);
void virtblk_commit_rqs(struct blk_mq_hw_ctx *hctx);
int virtblk_poll_queue(struct virtblk_queue *q, struct io_comp_batch *iob);
int virtblk_poll(struct blk_mq_hw_ctx *hctx, struct io_comp_batch *iob);
void virtblk_complete_rq(struct request *req);
void virtblk_interrupt(struct virtqueue *vq);
void virtblk_poll_ring(struct virtblk_queue *q);
void virtblk_complete_work(struct work_struct *work);

/* request.c */
int virtblk_init_request(struct blk_mq_tag_set *set, struct request *req,
			 unsigned int hctx_index, int numa_node);
blk_status_t virtblk_build(struct virtio_blk *vblk, struct request *req);
void virtblk_unmap_data(struct virtblk_req *vbr, struct request *req);
int virtblk_add_append(struct virtblk_queue *q, struct request *req);
blk_status_t virtblk_zone_result(struct request *req);
void virtblk_end_request(struct request *req, blk_status_t status);
int virtblk_query(struct gendisk *disk, u32 type, u64 sector, void *buf,
		  unsigned int len);
int virtblk_get_id(struct gendisk *disk, char id[VIRTIO_BLK_ID_BYTES + 1]);

/* progress.c */
bool virtblk_rq_done(struct request *req);
u64 virtblk_count_completions(struct virtio_blk *vblk);
void virtblk_scan_inflight(struct virtio_blk *vblk, struct virtblk_stall *stall);
unsigned long virtblk_silence(struct virtio_blk *vblk,
			      const struct virtblk_stall *stall);
unsigned long virtblk_seconds(unsigned int *parameter);
bool virtblk_removal_timed_out(struct virtio_blk *vblk);
unsigned long virtblk_answer_timeout(struct virtio_blk *vblk);

/* reset.c */
const char *virtblk_state_name(enum virtblk_state state);
void virtblk_set_state(struct virtio_blk *vblk, enum virtblk_state state);
bool virtblk_recently_reset(struct virtio_blk *vblk, u64 ms);
void virtblk_requeue_inflight(struct virtio_blk *vblk);
int virtblk_restart_vqs(struct virtio_blk *vblk);
void virtblk_fail_waiting(struct virtio_blk *vblk);
void virtblk_log_offline(struct virtio_blk *vblk);
void virtblk_recovery_work(struct work_struct *work);
void virtblk_hold_recovery(struct virtio_blk *vblk, bool hold);
void virtblk_request_reset(struct virtio_blk *vblk, enum virtblk_reset why);
int virtblk_reset_now(struct virtio_blk *vblk);

/* pm.c */
int virtblk_stop_device(struct virtio_blk *vblk, unsigned long return_within,
			bool requeue);
int virtblk_start_device(struct virtio_blk *vblk);
bool virtblk_abandon_suspended(struct virtio_blk *vblk);
void virtblk_deadline_work(struct work_struct *work);

/* timeout.c */
unsigned int virtblk_timeout_jiffies(void);
enum blk_eh_timer_return virtblk_timeout(struct request *req);
void virtblk_watch_work(struct work_struct *work);

/* debugfs.c */
void virtblk_init_debugfs(void);
void virtblk_exit_debugfs(void);
void virtblk_create_debugfs(struct virtio_blk *vblk);
void virtblk_remove_debugfs(struct virtio_blk *vblk);

/* sysfs.c */
const struct attribute_group **virtblk_attr_groups(struct virtio_blk *vblk);

#endif /* VIRTIO_BLK_DRIVER_H */
