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
#include <linux/hrtimer.h>
#include <linux/jump_label.h>
#include <linux/mutex.h>
#include <linux/scatterlist.h>
#include <linux/spinlock.h>
#include <linux/virtio.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <linux/workqueue.h>

#include "fault_inject.h"
#include "latency.h"
#include "limits.h"
#include "recovery.h"

/*
 * Limit for the segments of a request whose scatterlist is part of struct virtblk_req;
 * a request with more borrows a table from the kernel's pool.
 */
#define VIRTBLK_INLINE_SGS	2

/* Entries of the indirect table that is part of struct virtblk_req. */
#define VIRTBLK_TABLE_ENTRIES	8

/* What a request has to give back when it is complete; bits of struct virtblk_req. */
#define VIRTBLK_BORROWED_SGS	BIT(0)
#define VIRTBLK_BORROWED_TABLE	BIT(1)
#define VIRTBLK_MAPPED_TABLE	BIT(2)
#define VIRTBLK_MAPPED_DATA	BIT(3)
#define VIRTBLK_BORROWED_RANGES	BIT(4)

/* A header and a status take two descriptors of each request's chain. */
#define VIRTBLK_EXTRA_DESCS	2

/*
 * The status byte while a request is in flight.  No device may return this value
 * (VIRTIO 1.4, 5.2.6), so it shows that the device did not write the byte.
 */
#define VIRTBLK_STATUS_UNWRITTEN	0xff

/*
 * Prepared requests: the driver owns the indirect table of a request on a ring that the
 * virtio core runs.  Only a kernel with tools/packaging/upstream/virtio_ring.patch has them.
 */
#ifdef virtqueue_add_prepared
#define VIRTBLK_HAVE_PREPARED	true
#else
#define VIRTBLK_HAVE_PREPARED	false
static inline int virtqueue_add_prepared(struct virtqueue *vq, dma_addr_t table, u32 len,
					 u32 in_len, void *data)
{
	return -EOPNOTSUPP;
}
#endif

/* VIRTIO 1.2 and later; the kernel's headers have no name for it. */
#define VIRTBLK_F_LIFETIME	15

struct virtio_blk;

#define VIRTBLK_NR_OPS	((__force unsigned int)REQ_OP_LAST)

/* Limit for the requests that one poll takes off the ring. */
#define VIRTBLK_REAP_BATCH	32

/**
 * struct virtblk_submit_stats - what a queue has submitted since its disk was probed
 * @kicks: notifications of the device
 * @kicks_suppressed: notifications that the device had suppressed
 * @requests: requests added to the ring, by enum req_op
 * @bytes: their bytes
 *
 * The lock under which requests are submitted protects them.
 */
struct virtblk_submit_stats {
	u64 kicks;
	u64 kicks_suppressed;
	u64 requests[VIRTBLK_NR_OPS];
	u64 bytes[VIRTBLK_NR_OPS];
};

/**
 * struct virtblk_stats - what else a queue has done since then
 * @note_from: a request that takes at least that long is passed to virtblk_note_wait(),
 *	in jiffies
 * @polls: polls of the ring, by the number of completed requests found
 * @longest_wait: the longest time from submission to completion, in jiffies
 * @slow: requests that took VIRTBLK_SLOW or longer, by their time
 * @ring_full: how often the ring had no room
 * @requeues: requests that blk-mq has to dispatch again because room or memory was
 *	short
 * @ioerr: requests that the device completed with VIRTIO_BLK_S_IOERR
 * @unsupp: with VIRTIO_BLK_S_UNSUPP
 * @other_errors: with any other status except VIRTIO_BLK_S_OK
 * @timeouts: requests that timed out
 * @lost_interrupts: how often requests had completed without an interrupt
 * @resent: requests sent again after a reset
 *
 * The queue's lock protects the counters, except the atomic ones at the end.  Completion
 * counts errors without the lock: it may run in a softirq, and a transport may map memory
 * under locks of its own that leave interrupts on, as VDUSE does below
 * virtqueue_add_sgs().
 */
struct virtblk_stats {
	unsigned long note_from;
	u64 polls[VIRTBLK_REAP_BATCH + 1];
	unsigned long longest_wait;
	u64 slow[VIRTBLK_NR_KINDS][VIRTBLK_SLOW_BUCKETS];
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
 * struct virtblk_ring - a split ring that the driver runs itself
 * @desc: the descriptors
 * @avail: the available ring, followed by the event index for interrupts
 * @used: the used ring, followed by the event index for notifications
 * @mask: entries of each, less one
 * @nr_tags: tags that requests can have
 * @event_idx: VIRTIO_RING_F_EVENT_IDX is negotiated
 * @weak_barriers: the device is ordered as a CPU is (VIRTIO_F_ORDER_PLATFORM is not
 *	negotiated)
 */
struct virtblk_ring {
	struct vring_desc *desc;
	struct vring_avail *avail;
	struct vring_used *used;
	u16 mask;
	u16 nr_tags;
	bool event_idx;
	bool weak_barriers;
};

/**
 * struct virtblk_shared - what the device accesses of a request, if it needs the DMA API
 * @table: the indirect table
 * @out_hdr: the header
 * @status: the status
 *
 * In coherent memory, so that only the data is mapped for each I/O.  The driver copies
 * header and status from and to struct virtblk_req.
 */
struct virtblk_shared {
	struct vring_desc table[VIRTBLK_TABLE_ENTRIES];
	struct virtio_blk_outhdr out_hdr;
	u8 status;
} __aligned(sizeof(struct vring_desc));

/**
 * struct virtblk_queue - one virtqueue and its hctx
 * @vq: the virtqueue, "req.N"; NULL while there is none, another one after each suspend
 *	or reset; changes under @submit_lock and @lock
 * @vblk: the disk
 * @hctx: the hardware context, from init_hctx() on
 * @own_ring: the driver runs the ring itself; changes with @vq
 * @prepared: the virtio core runs the ring, and requests are prepared; changes with @vq
 * @packed: the ring is packed
 * @ring: the ring, if @own_ring
 * @slots: the requests in flight by their tags, if @own_ring; NULL if the driver never
 *	runs the ring itself
 * @shared: by tag, what the device accesses of a request; NULL unless requests have a
 *	table and the device needs the DMA API
 * @shared_addr: the device's address of @shared
 * @dma_dev: the device to map memory for, if @shared
 * @indirect: each request takes one descriptor of the ring
 * @ring_size: descriptors in the ring
 * @histogram: counts how long requests take; NULL while no process has the file latency
 *	open; changes under @lock
 * @spare: memory for the longest table, if requests have one, or the most ranges of a
 *	request, in case memory is short; or NULL
 * @spare_busy: bit 0 is set while a request has @spare
 * @work: completes requests that a hard interrupt left on the ring
 * @rechecked: when virtblk_timeout() last checked the queue, in jiffies
 * @lost_at: @interrupts when virtblk_timeout() last found that one was lost
 * @lost_in_a_row: how often it has found that since the last interrupt
 * @guard: polls the ring as long as the virtio core may drop an interrupt
 * @guard_ns: the time until it does so again
 * @submit_lock: protects the available ring, if @own_ring; no interrupt takes it
 * @avail_idx: index of the next entry of the available ring
 * @kicked: @avail_idx when the driver last decided whether to notify the device
 * @submit_stats: counters of submission
 * @lock: protects the rest of the ring, or all of it unless @own_ring, and @stopped;
 *	taken with interrupts off
 * @used_idx: index of the next entry of the used ring
 * @stopped: the ring was full and @hctx was stopped; the next completion starts it
 * @interrupts: the number of interrupts; only the queue's own interrupt writes it
 * @stats: counters of completion
 *
 * Allocated one by one on the NUMA node of the queue's CPUs.  While the disk is live
 * the first cache lines are only read; submission and completion write those that begin
 * with their locks.
 */
struct virtblk_queue {
	struct virtqueue *vq;
	struct virtio_blk *vblk;
	struct blk_mq_hw_ctx *hctx;
	struct request **slots;
	struct virtblk_ring ring;
	bool own_ring;
	bool indirect;
	bool prepared;
	bool packed;
	unsigned int ring_size;
	struct virtblk_shared *shared;
	dma_addr_t shared_addr;
	struct device *dma_dev;
	struct virtblk_histogram *histogram;
	struct vring_desc *spare;
	unsigned long spare_busy;
	struct work_struct work;
	u64 rechecked;
	u64 lost_at;
	unsigned int lost_in_a_row;
	struct hrtimer guard;
	u32 guard_ns;

	spinlock_t submit_lock ____cacheline_aligned_in_smp;
	u16 avail_idx;
	u16 kicked;
	struct virtblk_submit_stats submit_stats;

	spinlock_t lock ____cacheline_aligned_in_smp;
	u16 used_idx;
	bool stopped;
	u64 interrupts;
	struct virtblk_stats stats;
};

/**
 * struct virtblk_req - the driver's part of a request
 * @align: not used
 * @table: the indirect table, on a ring that the driver runs itself, or for which it
 *	prepares requests; entries of struct vring_packed_desc if the ring is packed
 * @hdr_sg: describes @out_hdr; filled in once for each slot
 * @status_sg: describes @status; filled in once for each slot
 * @inline_sg: scatterlist of a request with few segments
 * @out_hdr: the header that the device reads
 * @append_sector: the sector of a zone append; the device writes it together with
 *	@status
 * @status: the byte that the device writes last
 * @borrowed: what the request has to give back: VIRTBLK_BORROWED_* and VIRTBLK_MAPPED_*
 * @has_sgs: @hdr_sg and @status_sg are filled in
 * @timed_out: the request has taken longer than io_timeout
 * @resent: how often the driver sent it again after a reset
 * @table_len: length of the request's indirect table in bytes; as long as it is that of
 *	@table the entries of header and status are in their places
 * @mapped: entries of @data that are mapped for the device
 * @table_addr: the device's address of the table
 * @sent: when the driver sent it, in jiffies; if it has timed out, when it was first
 *	sent
 * @sent_ns: when the driver first sent it, in ns; older if the queue did not count latency
 *	then
 * @long_table: an indirect table for more segments than @table has room for
 * @data: the scatterlist of the data, NULL for a request without data
 * @sg_table: a borrowed scatterlist
 */
struct virtblk_req {
	/* Some devices want @table aligned; struct request before it begins a cache line. */
	u8 align[-sizeof(struct request) % sizeof(struct vring_desc)];
	union {
		struct vring_desc table[VIRTBLK_TABLE_ENTRIES];
		struct {
			struct scatterlist hdr_sg;
			struct scatterlist status_sg;
			struct scatterlist inline_sg[VIRTBLK_INLINE_SGS];
		};
	};
	struct virtio_blk_outhdr out_hdr;
	__virtio64 append_sector;
	u8 status;
	u8 borrowed;
	bool has_sgs;
	bool timed_out;
	u8 resent;
	u16 mapped;
	u32 table_len;
	u64 table_addr;
	unsigned long sent;
	u64 sent_ns;
	struct vring_desc *long_table;
	struct scatterlist *data;
	struct sg_table sg_table;
};

static_assert(!((sizeof(struct request) + offsetof(struct virtblk_req, table)) %
		sizeof(struct vring_desc)));

/**
 * struct virtio_blk - a disk
 * @vdev: the virtio device
 * @disk: the block layer's view of the disk
 * @tag_set: its tags, and the maps from CPUs to queues
 * @legacy: the device has no VIRTIO_F_VERSION_1
 * @writeback: the cache mode that a return of the device restores; if it is set, the block
 *	layer flushes
 * @cache_lock: held while the cache mode changes
 * @config: the configuration space at probe
 * @reported_capacity: the capacity when the driver last read it, in sectors, not checked
 * @config_work: reads the capacity and cache mode again
 * @followed: when @config_work last ran, in jiffies
 * @recovery: the state of the disk
 * @debugfs: the disk's directory in debugfs
 * @latency: the disk's file of that name in debugfs, NULL if memory was short
 * @faults: fault injection
 * @users: callbacks of the virtio core that use the disk
 * @index: number in the disk's name and minors
 * @ring_size: descriptors in each ring
 * @own_rings: decided at probe: the driver runs the rings itself where it can
 * @prepared: decided at probe: the driver prepares the requests of other rings
 * @direct: the device offers indirect descriptors, and the driver declined them
 * @has_vqs: there are virtqueues
 * @spread: at probe the transport gave each queue with an interrupt its own vector and
 *	spread the vectors over the CPUs, and the queue map follows them
 * @own_vectors: at probe each queue with an interrupt had its own vector, on PCI
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
	u64 reported_capacity;
	struct delayed_work config_work;
	unsigned long followed;
	struct virtblk_recovery recovery;
	struct dentry *debugfs;
	struct virtblk_latency *latency;
#ifdef CONFIG_FAULT_INJECTION_DEBUG_FS
	struct virtblk_faults faults;
#endif
	unsigned int users;
	int index;
	unsigned int ring_size;
	bool own_rings;
	bool prepared;
	bool direct;
	bool has_vqs;
	bool spread;
	bool own_vectors;
	bool managed;
	struct hlist_node cpuhp_node;
	unsigned int nr_queues[HCTX_MAX_TYPES];
	unsigned int nr_vqs;
	char (*vq_names)[16];
	struct virtblk_queue *queues[];
};

/**
 * virtblk_is_prepared() - does the virtio core take prepared requests of a queue?
 * @q: the queue
 *
 * Return: true if it does.
 */
static inline bool virtblk_is_prepared(const struct virtblk_queue *q)
{
	return VIRTBLK_HAVE_PREPARED && q->prepared;
}

/**
 * virtblk_has_packed_tables() - have a queue's tables the entries of a packed ring?
 * @q: the queue, whose requests have tables
 *
 * Return: true if they have.
 */
static inline bool virtblk_has_packed_tables(const struct virtblk_queue *q)
{
	return VIRTBLK_HAVE_PREPARED && q->packed;
}

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
/* The same, and no work on it runs during a suspend. */
extern struct workqueue_struct *virtblk_freezable_wq;
/* For completions: no work on it sleeps, so that the recovery of a disk delays none. */
extern struct workqueue_struct *virtblk_complete_wq;

int virtblk_init_workqueues(void);
void virtblk_exit_workqueues(void);

/* config.c */
int virtblk_validate(struct virtio_device *vdev);
bool virtblk_writeback(struct virtio_device *vdev);
int virtblk_set_write_cache(struct virtio_blk *vblk, bool writeback);
int virtblk_start_flushing(struct virtio_blk *vblk);
int virtblk_restore_writeback(struct virtio_blk *vblk);
void virtblk_init_capacity(struct virtio_blk *vblk);
void virtblk_config_work(struct work_struct *work);
void virtblk_schedule_config_work(struct virtio_blk *vblk);
int virtblk_getgeo(struct gendisk *disk, struct hd_geometry *geo);

/* device.c */
bool virtblk_is_gone(struct virtio_device *vdev);
void virtblk_reset_device(struct virtio_device *vdev);
bool virtblk_needs_reset(struct virtio_device *vdev);
bool virtblk_was_reset(struct virtio_device *vdev);
void virtblk_reset_again(struct virtio_device *vdev);
int virtblk_negotiate(struct virtio_device *vdev);
int virtblk_set_ready(struct virtio_device *vdev);
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
void virtblk_alloc_spares(struct virtio_blk *vblk);
void virtblk_free_queues(struct virtio_blk *vblk);
void virtblk_bind_vqs(struct virtio_blk *vblk);
void virtblk_unbind_vqs(struct virtio_blk *vblk);
void virtblk_poll_polled(struct virtio_blk *vblk);
void virtblk_cancel_queue_works(struct virtio_blk *vblk);
unsigned int virtblk_choose_depth(struct virtio_blk *vblk);
int virtblk_init_hctx(struct blk_mq_hw_ctx *hctx, void *data,
		      unsigned int index);

/* ring.c */
bool virtblk_may_own_rings(struct virtio_device *vdev);
bool virtblk_may_prepare(struct virtio_device *vdev);
void virtblk_take_ring(struct virtblk_queue *q);
void virtblk_start_prepared(struct virtblk_queue *q);

/* affinity.c */
void virtblk_init_affinity(struct virtio_blk *vblk,
			   struct irq_affinity *affinity);
bool virtblk_check_spread(struct virtio_blk *vblk);
void virtblk_map_queues(struct blk_mq_tag_set *set);
bool virtblk_vectors_match(struct virtio_blk *vblk);
bool virtblk_has_own_vectors(struct virtio_blk *vblk);
void virtblk_queue_cpus(struct virtio_blk *vblk, unsigned int index,
			struct cpumask *mask);
void virtblk_set_affinity(struct virtio_blk *vblk);
int virtblk_irq(struct virtio_blk *vblk, unsigned int index);
int virtblk_init_cpuhp(void);
void virtblk_exit_cpuhp(void);
int virtblk_add_cpuhp(struct virtio_blk *vblk);
void virtblk_remove_cpuhp(struct virtio_blk *vblk);

/* data.c */
int virtblk_init_request(struct blk_mq_tag_set *set, struct request *req,
			 unsigned int hctx_index, int numa_node);
blk_status_t virtblk_add_ranges(struct virtio_blk *vblk, struct request *req);
blk_status_t virtblk_map_data(struct virtblk_queue *q, struct virtblk_req *vbr,
			      struct request *req);
void virtblk_free_data(struct virtblk_req *vbr, struct request *req);

/* request.c */
blk_status_t virtblk_build(struct virtblk_queue *q, struct request *req);
void virtblk_end_request(struct request *req, blk_status_t status);
int virtblk_query(struct gendisk *disk, u32 type, u64 sector, void *buf,
		  unsigned int len);
int virtblk_get_id(struct gendisk *disk, char id[VIRTIO_BLK_ID_BYTES + 1]);

/* submit.c */
blk_status_t virtblk_queue_rq(struct blk_mq_hw_ctx *hctx,
			      const struct blk_mq_queue_data *bd);
void virtblk_queue_rqs(struct rq_list *rqlist);
void virtblk_commit_rqs(struct blk_mq_hw_ctx *hctx);

/* complete.c */
/* The driver checks the lengths that the device returns; see virtblk_check_length(). */
DECLARE_STATIC_KEY_FALSE(virtblk_hardened);

int virtblk_poll_queue(struct virtblk_queue *q, struct io_comp_batch *iob);
int virtblk_poll(struct blk_mq_hw_ctx *hctx, struct io_comp_batch *iob);
void virtblk_complete_rq(struct request *req);
void virtblk_interrupt(struct virtqueue *vq);
void virtblk_poll_ring(struct virtblk_queue *q);
void virtblk_complete_work(struct work_struct *work);
enum hrtimer_restart virtblk_guard_poll(struct hrtimer *timer);

/* debugfs.c */
void virtblk_init_debugfs(void);
void virtblk_exit_debugfs(void);
void virtblk_create_debugfs(struct virtio_blk *vblk);
void virtblk_remove_debugfs(struct virtio_blk *vblk);

/* sysfs.c */
const struct attribute_group **virtblk_attr_groups(struct virtio_blk *vblk);

/* disk.c */
void virtblk_free(struct virtio_blk *vblk);
int virtblk_alloc_tag_set(struct virtio_blk *vblk);
int virtblk_alloc_disk(struct virtio_blk *vblk);
struct virtio_blk *virtblk_alloc(struct virtio_device *vdev);
int virtblk_init_disks(void);
void virtblk_exit_disks(void);

/**
 * virtblk_unmap_data() - free what virtblk_build() got for a request
 * @vbr: the driver's part of the request
 * @req: the request, which the device does not have
 *
 * May be called again.
 */
static inline void virtblk_unmap_data(struct virtblk_req *vbr, struct request *req)
{
	/* Not in rq_flags, which blk-mq's timeout work writes while the request completes. */
	if (unlikely(vbr->borrowed))
		virtblk_free_data(vbr, req);
}

#endif /* VIRTIO_BLK_DRIVER_H */
