/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The types of the virtio block driver, and what its files offer each other.
 *
 * struct virtio_blk is the disk, struct virtblk_queue one of its virtqueues
 * together with the hctx that it serves, struct virtblk_req what the driver
 * keeps for each request beside blk-mq's own struct request.
 */
#ifndef VIRTIO_BLK_DRIVER_H
#define VIRTIO_BLK_DRIVER_H

#include <linux/blk-mq.h>
#include <linux/cache.h>
#include <linux/hdreg.h>
#include <linux/scatterlist.h>
#include <linux/spinlock.h>
#include <linux/virtio.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <linux/workqueue.h>

/* Each disk has as many minors as it always had: the disk and 15 partitions. */
#define VIRTBLK_PART_BITS	4

/*
 * A request with up to this many segments carries its scatterlist with it;
 * one with more borrows a table from the kernel's pool.
 */
#define VIRTBLK_INLINE_SGS	2

/*
 * What the status byte holds while a request is with the device.  No device
 * may return it (VIRTIO 1.3, 5.2.6), so one that never wrote the byte cannot
 * be mistaken for one that did.
 */
#define VIRTBLK_STATUS_UNWRITTEN	0xff

struct virtio_blk;

/**
 * struct virtblk_queue - one virtqueue and the hctx that it serves
 * @vq: the virtqueue, "req.N"; another one after each suspend
 * @vblk: the disk
 * @hctx: the hardware context, from init_hctx() on
 * @indirect: a request takes one descriptor of the ring, however long it is
 * @lock: protects the ring and @stopped; taken with interrupts off
 * @stopped: @hctx was stopped because the ring was full; its next completion
 *	starts it again
 *
 * Allocated one by one on the NUMA node of the queue's CPUs.  The first cache
 * line is only read once the disk is up; the lock's line is the only one that
 * submission and completion write.
 */
struct virtblk_queue {
	struct virtqueue *vq;
	struct virtio_blk *vblk;
	struct blk_mq_hw_ctx *hctx;
	bool indirect;

	spinlock_t lock ____cacheline_aligned_in_smp;
	bool stopped;
};

/**
 * struct virtblk_req - what the driver keeps with each request
 * @out_hdr: the header that the device reads
 * @status: the byte that the device writes last
 * @data: the scatterlist of the data, NULL for a request without
 * @sg_table: a borrowed scatterlist, sgl is NULL if there is none
 * @hdr_sg: names @out_hdr; set up once for each slot
 * @status_sg: names @status; set up once for each slot
 * @inline_sg: scatterlist of requests with few segments
 */
struct virtblk_req {
	struct virtio_blk_outhdr out_hdr;
	u8 status;
	struct scatterlist *data;
	struct sg_table sg_table;
	struct scatterlist hdr_sg;
	struct scatterlist status_sg;
	struct scatterlist inline_sg[VIRTBLK_INLINE_SGS];
};

/**
 * struct virtblk_config - the device's configuration space, once checked
 * @lim: what the block layer has to keep to
 * @geometry: geometry to report; zero cylinders mean: derive it from the size
 * @write_zeroes_may_unmap: a write zeroes request may ask for unmapping
 */
struct virtblk_config {
	struct queue_limits lim;
	struct hd_geometry geometry;
	bool write_zeroes_may_unmap;
};

/**
 * struct virtio_blk - a disk
 * @vdev: the virtio device
 * @disk: the block layer's view of the disk
 * @tag_set: its tags, and the maps from CPUs to queues
 * @legacy: the device has no VIRTIO_F_VERSION_1
 * @writeback: the block layer takes the device's write cache for volatile
 * @write_zeroes_may_unmap: a write zeroes request may ask for unmapping
 * @geometry: what HDIO_GETGEO says; zero cylinders: derived from the size
 * @config_work: follows changes of the configuration space
 * @index: number in the disk's name and minors
 * @ring_size: descriptors in each ring
 * @vectors_spread: the transport gave each queue a vector of its own and
 *	spread them over the CPUs
 * @nr_queues: how many queues serve each type of hctx
 * @nr_vqs: their sum
 * @vq_names: names of the virtqueues, which the virtio core refers to
 * @queues: the queues; the default ones first, then those that are polled
 */
struct virtio_blk {
	struct virtio_device *vdev;
	struct gendisk *disk;
	struct blk_mq_tag_set tag_set;
	bool legacy;
	bool writeback;
	bool write_zeroes_may_unmap;
	struct hd_geometry geometry;
	struct work_struct config_work;
	int index;
	unsigned int ring_size;
	bool vectors_spread;
	unsigned int nr_queues[HCTX_MAX_TYPES];
	unsigned int nr_vqs;
	char (*vq_names)[16];
	struct virtblk_queue *queues[];
};

/**
 * virtblk_has_indirect() - may a request take one descriptor of the ring?
 * @vdev: the device, its features negotiated
 *
 * Return: true if the device takes indirect descriptors (VIRTIO 1.3, 2.7.5.3).
 */
static inline bool virtblk_has_indirect(struct virtio_device *vdev)
{
	return virtio_has_feature(vdev, VIRTIO_RING_F_INDIRECT_DESC);
}

/* config.c */
int virtblk_read_config(struct virtio_device *vdev, unsigned int ring_size,
			struct virtblk_config *config);
int virtblk_validate(struct virtio_device *vdev);
bool virtblk_writeback(struct virtio_device *vdev);
int virtblk_set_write_cache(struct virtio_blk *vblk, bool writeback);
bool virtblk_restore_writeback(struct virtio_blk *vblk);
void virtblk_update_capacity(struct virtio_blk *vblk, bool resize);
void virtblk_config_work(struct work_struct *work);
int virtblk_getgeo(struct gendisk *disk, struct hd_geometry *geo);

/* queue.c */
extern unsigned int virtblk_num_request_queues;
extern unsigned int virtblk_poll_queues;
extern unsigned int virtblk_queue_depth;

unsigned int virtblk_count_queues(struct virtio_device *vdev,
				  unsigned int nr_queues[HCTX_MAX_TYPES]);
int virtblk_find_vqs(struct virtio_blk *vblk);
void virtblk_del_vqs(struct virtio_blk *vblk);
int virtblk_alloc_queues(struct virtio_blk *vblk);
void virtblk_free_queues(struct virtio_blk *vblk);
void virtblk_bind_vqs(struct virtio_blk *vblk);
void virtblk_drain_poll_queues(struct virtio_blk *vblk);
unsigned int virtblk_choose_depth(struct virtio_blk *vblk);
void virtblk_map_queues(struct blk_mq_tag_set *set);
int virtblk_init_hctx(struct blk_mq_hw_ctx *hctx, void *data,
		      unsigned int index);

/* io.c */
blk_status_t virtblk_queue_rq(struct blk_mq_hw_ctx *hctx,
			      const struct blk_mq_queue_data *bd);
void virtblk_queue_rqs(struct rq_list *rqlist);
void virtblk_commit_rqs(struct blk_mq_hw_ctx *hctx);
int virtblk_poll(struct blk_mq_hw_ctx *hctx, struct io_comp_batch *iob);
void virtblk_complete_rq(struct request *req);
void virtblk_interrupt(struct virtqueue *vq);

/* request.c */
int virtblk_init_request(struct blk_mq_tag_set *set, struct request *req,
			 unsigned int hctx_index, int numa_node);
blk_status_t virtblk_map_table(struct virtblk_req *vbr, struct request *req);
blk_status_t virtblk_add_ranges(struct virtio_blk *vblk, struct request *req);
void virtblk_free_ranges(struct request *req);
int virtblk_get_id(struct gendisk *disk, char id[VIRTIO_BLK_ID_BYTES + 1]);

/* sysfs.c */
extern const struct attribute_group *virtblk_attr_groups[];

#endif /* VIRTIO_BLK_DRIVER_H */
