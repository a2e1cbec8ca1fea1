/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The types of the vDPA block device, and the functions that its files share.
 *
 * struct vdpa_blk is the device.  struct vdpa_blk_queue is one of its virtqueues,
 * which one struct vdpa_blk_worker serves.  struct vdpa_blk_request is a request that
 * the device has taken off a ring.
 */
#ifndef VDPA_BLK_H
#define VDPA_BLK_H

#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/mempool.h>
#include <linux/mutex.h>
#include <linux/sizes.h>
#include <linux/spinlock.h>
#include <linux/vdpa.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include "memory.h"
#include "queue.h"
#include "settings.h"

/*
 * Pieces of memory in a bio.  A segment that crosses from one extent to the next has two:
 * requests that need more than a bio can have are copied.
 */
#define VDPA_BLK_MAX_VECS	BIO_MAX_VECS

/* Data of up to this many pieces needs no table of its own. */
#define VDPA_BLK_INLINE_VECS	8

/* Ranges of a discard, write zeroes or secure erase. */
#define VDPA_BLK_MAX_RANGES	64

/* Pieces in which a request is copied whose buffers the backing device cannot use. */
#define VDPA_BLK_BOUNCE_BYTES	((unsigned int)SZ_64K)

struct vdpa_blk_zones;

/**
 * struct vdpa_blk_request - a request that the device has taken off a ring
 * @q: its queue
 * @next: the next request of the list that it is in
 * @status: where the device writes the status byte
 * @len: bytes that the device writes if the request succeeds, the status included
 * @status_only: the device may write nothing but the status
 * @id: what the used ring returns
 * @descs: entries of a packed ring that it takes
 * @result: its status, once it is known
 * @end_work: completes a flush outside of the block layer's lock, or finds out why a
 *	zone refuses a request
 * @sector: of a read, write or append, of a device with zones
 * @sectors: their number
 * @resubmitted: a zone refused it, and it has been submitted once more
 * @append: where the device writes the sector of an append, NULL if it has to be copied
 * @vecs: the data, @inline_vecs or a table from vdpa_blk_vecs
 * @bio: for the backing device
 * @inline_vecs: data of few pieces
 */
struct vdpa_blk_request {
	struct vdpa_blk_queue *q;
	struct vdpa_blk_request *next;
	u8 *status;
	u32 len;
	bool status_only;
	bool resubmitted;
	u8 result;
	struct work_struct end_work;
	u16 id;
	u16 descs;
	u32 sectors;
	u64 sector;
	void *append;
	struct bio_vec *vecs;
	struct bio bio;
	struct bio_vec inline_vecs[VDPA_BLK_INLINE_VECS];
};

/**
 * struct vdpa_blk_slow - an operation that sleeps
 * @work: runs it
 * @rq: the request
 * @type: VIRTIO_BLK_T_...
 * @sector: of a read, write or append, or of the zone
 * @nr_segs: number of @segs with data
 * @nr_sector_segs: number of @segs after them, for the sector of an append
 * @nr_ranges: number of @ranges
 * @ranges: of a discard, write zeroes or secure erase
 * @segs: the data
 */
struct vdpa_blk_slow {
	struct work_struct work;
	struct vdpa_blk_request *rq;
	u32 type;
	u64 sector;
	unsigned int nr_segs;
	unsigned int nr_sector_segs;
	unsigned int nr_ranges;
	struct virtio_blk_discard_write_zeroes ranges[VDPA_BLK_MAX_RANGES];
	struct vdpa_blk_seg segs[VDPA_BLK_MAX_SEGS];
};

/**
 * struct vdpa_blk - a device
 * @vdpa: what the vDPA bus has of it
 * @settings: a copy from the time when the device was added
 * @bdev_file: the backing device, claimed
 * @bdev: the same
 * @align_mask: bits that are 0 in addresses and lengths of pieces that it can use
 * @sector_mask: bits that are 0 in the sectors of its blocks
 * @end_io: ends a read or write
 * @zones: what is known of its zones, NULL if it has none
 * @gone: the backing device has been removed
 * @config: the configuration space; @config_lock protects it
 * @generation: of the configuration space (VIRTIO 1.4, 2.5)
 * @features: that the device offers
 * @driver_features: that the driver has accepted
 * @writeback: a write is durable only after a flush (VIRTIO 1.4, 5.2.6.2)
 * @lock: protects the set-up of queues and @memory, and serializes changes of @status;
 *	held while workers are parked and requests in flight are waited for.  Taken by
 *	operations of the vDPA bus only, never by a worker or a work.
 * @status: the device status
 * @paused: the workers are parked, and a task may wait for requests in flight
 * @suspended: the monitor has suspended the device
 * @stopping: operations that sleep end early, with an error
 * @stalled: a bit for each queue that waits for memory that a request will free, or for
 *	a write that is copied
 * @tables: tables for data of many pieces
 * @slow_pool: operations that sleep
 * @buffers: buffers of operations that sleep
 * @wq: for work on the device, and completions that must not run where they happen
 * @slow_wq: for operations that sleep
 * @memory: what the driver shares, NULL if nothing
 * @map_failed: NULL because there was no memory for the list; the virtqueues wait for
 *	the next one
 * @config_lock: protects @config, @generation, @status, @config_cb and @config_missed,
 *	and is held while the callback runs; taken with interrupts off
 * @config_cb: the driver's callback for changes of the configuration
 * @config_missed: it has changed while the driver could not be called
 * @drained: wakes the task that waits for requests in flight
 * @capacity_work: follows the capacity of the backing device
 * @break_work: sets DEVICE_NEEDS_RESET
 * @debugfs: the device's directory
 * @nr_workers: number of @workers
 * @workers: the workers
 * @queues: the virtqueues
 */
struct vdpa_blk {
	struct vdpa_device vdpa;
	struct vdpa_blk_settings settings;
	struct file *bdev_file;
	struct block_device *bdev;
	u32 align_mask;
	u32 sector_mask;
	bio_end_io_t *end_io;
	struct vdpa_blk_zones *zones;
	bool gone;
	struct virtio_blk_config config;
	u32 generation;
	u64 features;
	u64 driver_features;
	bool writeback;
	struct mutex lock;		/* see above */
	u8 status;
	bool paused;
	bool suspended;
	bool stopping;
	DECLARE_BITMAP(stalled, VDPA_BLK_MAX_QUEUES);
	mempool_t *tables;
	mempool_t *slow_pool;
	mempool_t *buffers;
	struct workqueue_struct *wq;
	struct workqueue_struct *slow_wq;
	struct vdpa_blk_memory *memory;
	bool map_failed;
	spinlock_t config_lock;		/* see above */
	struct vdpa_callback config_cb;
	bool config_missed;
	wait_queue_head_t drained;
	struct delayed_work capacity_work;
	struct work_struct break_work;
	struct dentry *debugfs;
	unsigned int nr_workers;
	struct vdpa_blk_worker *workers;
	struct vdpa_blk_queue **queues;
};

static inline struct vdpa_blk *vdpa_to_blk(struct vdpa_device *vdpa)
{
	return container_of(vdpa, struct vdpa_blk, vdpa);
}

/* Whether the backing device has zones (VIRTIO 1.4, 5.2.3). */
static inline bool vdpa_blk_is_zoned(const struct vdpa_blk *vb)
{
	return IS_ENABLED(CONFIG_BLK_DEV_ZONED) && vb->zones;
}

/* The status of a request that has nothing to do with zones. */
static inline u8 vdpa_blk_to_status(blk_status_t status)
{
	switch (status) {
	case BLK_STS_OK:
		return VIRTIO_BLK_S_OK;
	case BLK_STS_NOTSUPP:
		return VIRTIO_BLK_S_UNSUPP;
	default:
		return VIRTIO_BLK_S_IOERR;
	}
}

static inline __virtio32 vdpa_blk_le32(u32 value)
{
	return __cpu_to_virtio32(true, value);
}

/* The operation and the flags of a read, write or append. */
static inline blk_opf_t vdpa_blk_opf(struct vdpa_blk *vb, u32 type)
{
	blk_opf_t opf = type == VIRTIO_BLK_T_ZONE_APPEND ? REQ_OP_ZONE_APPEND :
							   REQ_OP_WRITE;

	if (type == VIRTIO_BLK_T_IN)
		return REQ_OP_READ;
	/* Without a write cache a write that is done is durable. */
	return opf | REQ_SYNC | REQ_IDLE |
	       (READ_ONCE(vb->writeback) ? 0 : REQ_FUA);
}

/* Whether the device may have a cache that a driver must flush. */
static inline bool vdpa_blk_has_cache(const struct vdpa_blk *vb)
{
	return vb->settings.write_cache && bdev_write_cache(vb->bdev);
}

/* zoned.c */
int vdpa_blk_init_zones(struct vdpa_blk *vb);
void vdpa_blk_init_zoned_config(struct vdpa_blk *vb);
int vdpa_blk_check_zoned_features(struct vdpa_blk *vb);
u64 vdpa_blk_zoned_capacity(const struct vdpa_blk *vb);
u8 vdpa_blk_check_zones(const struct vdpa_blk *vb, u32 type, u64 sector,
			u32 sectors);
u8 vdpa_blk_check_zone_request(const struct vdpa_blk *vb, u32 type, u64 sector,
			       u64 bytes);
u8 vdpa_blk_zone_status(struct vdpa_blk *vb, u32 type, u64 sector, u32 sectors,
			blk_status_t error, bool *again);
u8 vdpa_blk_manage_zone(struct vdpa_blk *vb, u32 type, u64 sector);
u8 vdpa_blk_report_zones(struct vdpa_blk_slow *slow, void *buf, u32 size);

/* pool.c */
int vdpa_blk_init_pools(void);
void vdpa_blk_exit_pools(void);
int vdpa_blk_alloc_pools(struct vdpa_blk *vb);
void vdpa_blk_free_pools(struct vdpa_blk *vb);

/* complete.c */
void vdpa_blk_restart_stalled(struct vdpa_blk *vb);
void vdpa_blk_free_table(struct vdpa_blk_request *rq);
void vdpa_blk_complete(struct vdpa_blk_request *rq, u8 status);
void vdpa_blk_flush_completions(struct vdpa_blk_queue *q);

/* slow.c */
bool vdpa_blk_append_fits(struct bio *bio);
struct vdpa_blk_slow *vdpa_blk_alloc_slow(struct vdpa_blk_request *rq, u32 type);
void vdpa_blk_free_slow(struct vdpa_blk_slow *slow);
void vdpa_blk_queue_slow(struct vdpa_blk_slow *slow);

/* request.c */
void vdpa_blk_end_bio(struct bio *bio);
void vdpa_blk_end_zoned_bio(struct bio *bio);
int vdpa_blk_handle_chain(struct vdpa_blk_queue *q);

/* backing.c */
int vdpa_blk_open_backing(struct vdpa_blk *vb);
void vdpa_blk_close_backing(struct vdpa_blk *vb);
void vdpa_blk_init_config(struct vdpa_blk *vb);
bool vdpa_blk_update_capacity(struct vdpa_blk *vb);

/* device.c */
extern const struct vdpa_config_ops vdpa_blk_ops;
void vdpa_blk_config_changed(struct vdpa_blk *vb);
void vdpa_blk_break_work(struct work_struct *work);
void vdpa_blk_capacity_work(struct work_struct *work);
void vdpa_blk_reset_device(struct vdpa_blk *vb);

/* debugfs.c */
void vdpa_blk_init_debugfs(void);
void vdpa_blk_exit_debugfs(void);
void vdpa_blk_create_debugfs(struct vdpa_blk *vb);
void vdpa_blk_remove_debugfs(struct vdpa_blk *vb);

#endif /* VDPA_BLK_H */
