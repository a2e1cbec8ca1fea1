/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The device, and the functions of the files that have no header of their own.
 *
 * struct vdpa_blk is the device.  struct vdpa_blk_queue (queue.h) is one of its
 * virtqueues, which one struct vdpa_blk_worker serves.  struct vdpa_blk_request
 * (request.h) is a request that the device has taken off a ring.
 */
#ifndef VDPA_BLK_H
#define VDPA_BLK_H

#include <linux/blkdev.h>
#include <linux/mempool.h>
#include <linux/mutex.h>
#include <linux/spinlock.h>
#include <linux/vdpa.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include "settings.h"

struct vdpa_blk_memory;
struct vdpa_blk_queue;
struct vdpa_blk_worker;
struct vdpa_blk_zones;

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
 * @gone: the backing device has been removed; set once
 * @config: the configuration space
 * @generation: of the configuration space (VIRTIO 1.4, 2.5)
 * @features: that the device offers
 * @driver_features: that the driver has accepted
 * @writeback: a write is durable only after a flush (VIRTIO 1.4, 5.2.6.2)
 * @lock: protects what the bus driver sets: of the queues (queue.h), @driver_features,
 *	@suspended, @memory and @map_failed, and all of @status except NEEDS_RESET; held
 *	while workers are parked and requests in flight are waited for.  Taken by operations
 *	of the vDPA bus only, never by a worker or a work.
 * @status: the device status; changes with @config_lock held as well
 * @paused: the workers are parked, and a task may wait for requests in flight
 * @suspended: the monitor has suspended the device
 * @stopping: operations that sleep end early, with an error
 * @stalled: a bit for each queue that waits for memory that a request will free, or for
 *	a write that is copied; any context can clear it
 * @tables: tables for data of many pieces
 * @slow_pool: operations that sleep
 * @buffers: buffers of operations that sleep
 * @wq: for work on the device, and completions that must not run where they happen
 * @slow_wq: for operations that sleep
 * @memory: what the driver shares, NULL if nothing; changes while the workers are parked
 *	and nothing is in flight, and both read it
 * @map_failed: @memory is NULL because the table of mappings cannot be used; the virtqueues
 *	wait for the next one
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
 *
 * A flag or mask is read without a lock where requests need it: @capacity_work changes
 * @align_mask and @sector_mask, the holder of @config_lock @writeback, and the holder of
 * @lock @paused and @stopping.  What is not named here does not change after the device was
 * added.
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

static inline __virtio32 vdpa_blk_le32(u32 value)
{
	return __cpu_to_virtio32(true, value);
}

/* Whether the device may have a cache that a driver must flush. */
static inline bool vdpa_blk_has_cache(const struct vdpa_blk *vb)
{
	return vb->settings.write_cache && bdev_write_cache(vb->bdev);
}

/* pool.c */
int vdpa_blk_init_pools(void);
void vdpa_blk_exit_pools(void);
int vdpa_blk_alloc_pools(struct vdpa_blk *vb);
void vdpa_blk_free_pools(struct vdpa_blk *vb);

/* backing.c */
int vdpa_blk_open_backing(struct vdpa_blk *vb);
void vdpa_blk_close_backing(struct vdpa_blk *vb);
void vdpa_blk_update_limits(struct vdpa_blk *vb);

/* config.c */
void vdpa_blk_init_config(struct vdpa_blk *vb);
int vdpa_blk_limit_features(struct vdpa_blk *vb,
			    const struct vdpa_dev_set_config *config);
int vdpa_blk_check_features(struct vdpa_blk *vb);
bool vdpa_blk_accepts_features(const struct vdpa_blk *vb, u64 features);
void vdpa_blk_call_config(struct vdpa_blk *vb);
void vdpa_blk_capacity_work(struct work_struct *work);
void vdpa_blk_update_writeback(struct vdpa_blk *vb);

/* device.c */
extern const struct vdpa_config_ops vdpa_blk_ops;
void vdpa_blk_break_work(struct work_struct *work);
void vdpa_blk_reset_device(struct vdpa_blk *vb);

/* debugfs.c */
void vdpa_blk_init_debugfs(void);
void vdpa_blk_exit_debugfs(void);
void vdpa_blk_create_debugfs(struct vdpa_blk *vb);
void vdpa_blk_remove_debugfs(struct vdpa_blk *vb);

#endif /* VDPA_BLK_H */
