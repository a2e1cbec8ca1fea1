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

/* A header and a status take two descriptors of each request's chain. */
#define VIRTBLK_EXTRA_DESCS	2

/*
 * What the status byte holds while a request is with the device.  No device
 * may return it (VIRTIO 1.3, 5.2.6), so one that never wrote the byte cannot
 * be mistaken for one that did.
 */
#define VIRTBLK_STATUS_UNWRITTEN	0xff

/* VIRTIO 1.2 and later; the kernel's headers have no name for them. */
#define VIRTBLK_F_LIFETIME	15
#define VIRTBLK_T_GET_LIFETIME	10

struct virtblk_lifetime {
	__le16 pre_eol_info;
	__le16 device_lifetime_est_typ_a;
	__le16 device_lifetime_est_typ_b;
};

struct virtio_blk;

/**
 * struct virtblk_queue - one virtqueue and the hctx that it serves
 * @vq: the virtqueue, "req.N"; another one after each suspend or reset, NULL
 *	while there is none; changes under @lock
 * @vblk: the disk
 * @hctx: the hardware context, from init_hctx() on
 * @indirect: a request takes one descriptor of the ring, however long it is
 * @ring_size: descriptors in the ring
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
	unsigned int ring_size;

	spinlock_t lock ____cacheline_aligned_in_smp;
	bool stopped;
};

/**
 * struct virtblk_req - what the driver keeps with each request
 * @out_hdr: the header that the device reads
 * @append_sector: where the data of a zone append went; the device writes it
 *	together with @status
 * @status: the byte that the device writes last
 * @data: the scatterlist of the data, NULL for a request without
 * @sg_table: a borrowed scatterlist, sgl is NULL if there is none
 * @hdr_sg: names @out_hdr; set up once for each slot
 * @status_sg: names @status; set up once for each slot
 * @inline_sg: scatterlist of requests with few segments
 */
struct virtblk_req {
	struct virtio_blk_outhdr out_hdr;
	__virtio64 append_sector;
	u8 status;
	struct scatterlist *data;
	struct sg_table sg_table;
	struct scatterlist hdr_sg;
	struct scatterlist status_sg;
	struct scatterlist inline_sg[VIRTBLK_INLINE_SGS];
};

/**
 * struct virtblk_raw_config - what the device says of itself, none of it checked
 * @features: its negotiated features; a field whose feature is missing is 0
 * @max_chain: descriptors that a request may have at most
 * @max_dma_size: the longest segment that the DMA layer maps, in bytes
 *
 * The other fields are those of the configuration space (VIRTIO 1.3, 5.2.4).
 */
struct virtblk_raw_config {
	u64 features;
	unsigned int max_chain;
	size_t max_dma_size;

	u32 size_max;
	u32 seg_max;
	u16 cylinders;
	u8 heads;
	u8 sectors;
	u32 blk_size;
	u8 physical_block_exp;
	u8 alignment_offset;
	u16 min_io_size;
	u32 opt_io_size;
	u8 writeback;
	u32 max_discard_sectors;
	u32 max_discard_seg;
	u32 discard_sector_alignment;
	u32 max_write_zeroes_sectors;
	u32 max_write_zeroes_seg;
	u8 write_zeroes_may_unmap;
	u32 max_secure_erase_sectors;
	u32 max_secure_erase_seg;
	u32 secure_erase_sector_alignment;
	u8 zone_model;
	u32 zone_sectors;
	u32 max_open_zones;
	u32 max_active_zones;
	u32 max_append_sectors;
	u32 write_granularity;
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
 * enum virtblk_state - whether the device is there
 * @VIRTBLK_WORKING: it is
 * @VIRTBLK_AWAY: it is suspended or being reset, and has no virtqueues
 * @VIRTBLK_OFFLINE: it was away and did not come back as it was; I/O fails
 */
enum virtblk_state {
	VIRTBLK_WORKING,
	VIRTBLK_AWAY,
	VIRTBLK_OFFLINE,
};

/**
 * struct virtio_blk - a disk
 * @vdev: the virtio device
 * @disk: the block layer's view of the disk
 * @tag_set: its tags, and the maps from CPUs to queues
 * @legacy: the device has no VIRTIO_F_VERSION_1
 * @writeback: the block layer takes the device's write cache for volatile
 * @config: the configuration space as it was when the disk was probed
 * @config_work: follows changes of the configuration space
 * @return_work: takes the disk offline if its device has not come back
 * @state: whether the device is there
 * @index: number in the disk's name and minors
 * @ring_size: descriptors in each ring
 * @direct: the device takes indirect descriptors, and was told that there will
 *	be none
 * @vectors_spread: the transport gave each queue that interrupts a vector of
 *	its own and spread them over the CPUs
 * @nr_queues: how many queues serve each type of hctx
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
	struct virtblk_config config;
	struct work_struct config_work;
	struct delayed_work return_work;
	enum virtblk_state state;
	int index;
	unsigned int ring_size;
	bool direct;
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

/**
 * virtblk_set_header() - fill in what the device reads first of a request
 * @vblk: the disk
 * @req: the request
 * @type: what to do, VIRTIO_BLK_T_...
 * @sector: where, 0 for a type that has no place (VIRTIO 1.3, 5.2.6)
 */
static inline void virtblk_set_header(struct virtio_blk *vblk,
				      struct request *req, u32 type, u64 sector)
{
	struct virtblk_req *vbr = blk_mq_rq_to_pdu(req);

	vbr->out_hdr.type = cpu_to_virtio32(vblk->vdev, type);
	vbr->out_hdr.sector = cpu_to_virtio64(vblk->vdev, sector);
	/* Legacy devices take a priority here; later the field is reserved. */
	vbr->out_hdr.ioprio = vblk->legacy ?
		cpu_to_virtio32(vblk->vdev, req_get_ioprio(req)) : 0;
}

/* config.c */
void virtblk_read_config(struct virtio_device *vdev, unsigned int max_chain,
			 struct virtblk_raw_config *raw);
int virtblk_check_config(struct device *dev,
			 const struct virtblk_raw_config *raw,
			 struct virtblk_config *config);
const char *virtblk_config_shrunk(const struct virtblk_config *was,
				  const struct virtblk_config *now);
int virtblk_validate(struct virtio_device *vdev);
bool virtblk_writeback(struct virtio_device *vdev);
int virtblk_set_write_cache(struct virtio_blk *vblk, bool writeback);
void virtblk_restore_writeback(struct virtio_blk *vblk);
void virtblk_update_capacity(struct virtio_blk *vblk, bool resize);
void virtblk_config_work(struct work_struct *work);
int virtblk_getgeo(struct gendisk *disk, struct hd_geometry *geo);

/* queue.c */
extern unsigned int virtblk_num_request_queues;
extern unsigned int virtblk_poll_queues;
extern unsigned int virtblk_read_queues;
extern unsigned int virtblk_queue_depth;

unsigned int virtblk_device_queues(struct virtio_device *vdev);
unsigned int virtblk_count_queues(struct virtio_device *vdev,
				  unsigned int nr_queues[HCTX_MAX_TYPES]);
int virtblk_find_vqs(struct virtio_blk *vblk);
void virtblk_del_vqs(struct virtio_blk *vblk);
int virtblk_set_up_vqs(struct virtio_blk *vblk);
unsigned int virtblk_longest_chain(const struct virtio_blk *vblk);
int virtblk_alloc_queues(struct virtio_blk *vblk);
void virtblk_free_queues(struct virtio_blk *vblk);
void virtblk_bind_vqs(struct virtio_blk *vblk);
void virtblk_unbind_vqs(struct virtio_blk *vblk);
void virtblk_poll_all(struct virtio_blk *vblk);
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
int virtblk_ask(struct gendisk *disk, u32 type, u64 sector, void *buf,
		unsigned int len);
int virtblk_get_id(struct gendisk *disk, char id[VIRTIO_BLK_ID_BYTES + 1]);

/* recovery.c */
void virtblk_stop_device(struct virtio_blk *vblk, unsigned long timeout);
int virtblk_restart_device(struct virtio_blk *vblk);
void virtblk_return_work(struct work_struct *work);
void virtblk_give_up(struct virtio_blk *vblk);

/* zoned.c */
#ifdef CONFIG_BLK_DEV_ZONED
int virtblk_zone_type(struct request *req);
blk_status_t virtblk_zone_result(struct request *req);
int virtblk_add_append(struct virtblk_queue *q, struct request *req);
int virtblk_report_zones(struct gendisk *disk, sector_t sector,
			 unsigned int nr_zones,
			 struct blk_report_zones_args *args);
int virtblk_revalidate_zones(struct virtio_blk *vblk);
#else
static inline int virtblk_zone_type(struct request *req)
{
	return -EOPNOTSUPP;
}

static inline blk_status_t virtblk_zone_result(struct request *req)
{
	return BLK_STS_IOERR;
}

static inline int virtblk_add_append(struct virtblk_queue *q,
				     struct request *req)
{
	return -EIO;
}

static inline int virtblk_revalidate_zones(struct virtio_blk *vblk)
{
	return 0;
}

#define virtblk_report_zones	NULL
#endif

/* sysfs.c */
const struct attribute_group **virtblk_attr_groups(struct virtio_blk *vblk);

#endif /* VIRTIO_BLK_DRIVER_H */
