// SPDX-License-Identifier: GPL-2.0
/*
 * From the device's configuration space to checked limits.
 *
 * No value is believed: each is held against what the block layer can take
 * before it becomes a limit.  A value that the disk cannot do without stops
 * the probe, one that only advises is left out with a line in the log.
 */

#include <linux/blk-mq.h>
#include <linux/log2.h>
#include <linux/string_helpers.h>

#include "virtio_blk.h"

/* A header and a status take two descriptors of each request's chain. */
#define VIRTBLK_EXTRA_DESCS	2

/* The payload of a discard is one segment: its ranges fit in 4 KiB. */
#define VIRTBLK_MAX_DISCARD_RANGES \
	(4096 / sizeof(struct virtio_blk_discard_write_zeroes))

/* The largest disk whose size in bytes fits a loff_t. */
#define VIRTBLK_MAX_CAPACITY	((u64)LLONG_MAX >> SECTOR_SHIFT)

/**
 * virtblk_validate() - the virtio core's validate: look at what is offered
 * @vdev: the device, before features are negotiated
 *
 * Return: 0, or -EINVAL if the device cannot be driven.
 */
int virtblk_validate(struct virtio_device *vdev)
{
	if (!vdev->config->get) {
		dev_err(&vdev->dev, "the transport gives no access to the configuration space\n");
		return -EINVAL;
	}

	/* VIRTIO 1.3, 5.2.5.2: who offers CONFIG_WCE has to offer FLUSH. */
	if (virtio_has_feature(vdev, VIRTIO_BLK_F_CONFIG_WCE) &&
	    !virtio_has_feature(vdev, VIRTIO_BLK_F_FLUSH)) {
		dev_warn(&vdev->dev, "the device offers CONFIG_WCE without FLUSH; leaving the cache mode alone\n");
		__virtio_clear_bit(vdev, VIRTIO_BLK_F_CONFIG_WCE);
	}
	return 0;
}

/**
 * virtblk_writeback() - does the device have a volatile write cache?
 * @vdev: the device, its features negotiated
 *
 * VIRTIO 1.3, 5.2.5.1: with CONFIG_WCE the device says so; without it a device
 * with FLUSH is taken to have one.
 *
 * Return: true if writes are durable only once flushed.
 */
bool virtblk_writeback(struct virtio_device *vdev)
{
	u8 writeback;

	if (!virtio_has_feature(vdev, VIRTIO_BLK_F_CONFIG_WCE))
		return virtio_has_feature(vdev, VIRTIO_BLK_F_FLUSH);

	virtio_cread(vdev, struct virtio_blk_config, wce, &writeback);
	if (writeback > 1)
		dev_warn(&vdev->dev, "cache mode %u is neither 0 nor 1; taking it for writeback\n",
			 writeback);
	return writeback;
}

/**
 * virtblk_set_write_cache() - tell the block layer whether to flush
 * @vblk: the disk
 * @writeback: the device has a volatile write cache
 *
 * Context: may sleep, waits for I/O in flight.
 *
 * Return: 0 or the block layer's error.
 */
int virtblk_set_write_cache(struct virtio_blk *vblk, bool writeback)
{
	struct request_queue *rq_queue = vblk->disk->queue;
	struct queue_limits lim = queue_limits_start_update(rq_queue);
	int err;

	if (writeback)
		lim.features |= BLK_FEAT_WRITE_CACHE;
	else
		lim.features &= ~BLK_FEAT_WRITE_CACHE;
	err = queue_limits_commit_update_frozen(rq_queue, &lim);
	if (!err)
		vblk->writeback = writeback;
	return err;
}

/**
 * virtblk_restore_writeback() - give the device its cache mode back
 * @vblk: the disk, its device reset since
 *
 * A reset may change the mode (VIRTIO 1.3, 5.2.5), and a cache that the block
 * layer does not know of would never be flushed.
 *
 * Return: true if the device has the mode that the block layer knows of, or one
 * that needs no flush.
 */
bool virtblk_restore_writeback(struct virtio_blk *vblk)
{
	u8 writeback = vblk->writeback;

	if (virtio_has_feature(vblk->vdev, VIRTIO_BLK_F_CONFIG_WCE))
		virtio_cwrite(vblk->vdev, struct virtio_blk_config, wce,
			      &writeback);
	return writeback || !virtblk_writeback(vblk->vdev);
}

static int virtblk_read_block_size(struct virtio_device *vdev,
				   struct queue_limits *lim)
{
	u32 blk_size;

	lim->logical_block_size = SECTOR_SIZE;
	if (!virtio_has_feature(vdev, VIRTIO_BLK_F_BLK_SIZE))
		return 0;

	virtio_cread(vdev, struct virtio_blk_config, blk_size, &blk_size);
	if (blk_validate_block_size(blk_size)) {
		dev_err(&vdev->dev, "block size %u is not a power of two from %u to %lu; give the device one that is\n",
			blk_size, SECTOR_SIZE,
			(unsigned long)BLK_MAX_BLOCK_SIZE);
		return -EINVAL;
	}
	lim->logical_block_size = blk_size;
	return 0;
}

static int virtblk_read_segment_limits(struct virtio_device *vdev,
				       unsigned int ring_size,
				       struct queue_limits *lim)
{
	size_t size_max = virtio_max_dma_size(vdev);
	u32 seg_max = 1, v;

	/*
	 * A chain is never longer than the ring, be it in the ring or in an
	 * indirect table (VIRTIO 1.3, 2.7.5.3.1).
	 */
	if (ring_size <= VIRTBLK_EXTRA_DESCS) {
		dev_err(&vdev->dev, "a ring of %u has no room for a request with data; give the device a queue size of 4 or more\n",
			ring_size);
		return -EINVAL;
	}

	if (virtio_has_feature(vdev, VIRTIO_BLK_F_SEG_MAX)) {
		virtio_cread(vdev, struct virtio_blk_config, seg_max, &v);
		if (!v)
			dev_warn(&vdev->dev, "seg_max is 0; taking it for 1\n");
		seg_max = max(v, 1U);
	}
	lim->max_segments = min3(seg_max, ring_size - VIRTBLK_EXTRA_DESCS,
				 (u32)USHRT_MAX);

	if (virtio_has_feature(vdev, VIRTIO_BLK_F_SIZE_MAX)) {
		virtio_cread(vdev, struct virtio_blk_config, size_max, &v);
		/* qemu-storage-daemon's vhost-user-blk has no limit and says 0. */
		if (v)
			size_max = min_t(size_t, size_max, v);
	}
	size_max = round_down(min_t(size_t, size_max, UINT_MAX),
			      lim->logical_block_size);
	if (size_max < PAGE_SIZE) {
		dev_err(&vdev->dev, "segments of %zu bytes are too small; the block layer needs %lu or more\n",
			size_max, PAGE_SIZE);
		return -EINVAL;
	}
	lim->max_segment_size = size_max;
	lim->max_hw_sectors = UINT_MAX;
	return 0;
}

/* All of it only advises, so what makes no sense is left out. */
static void virtblk_read_topology(struct virtio_device *vdev,
				  struct queue_limits *lim)
{
	unsigned int block = lim->logical_block_size;
	u8 physical_block_exp, alignment_offset;
	u32 opt_io_size;
	u16 min_io_size;

	lim->physical_block_size = block;
	if (!virtio_has_feature(vdev, VIRTIO_BLK_F_TOPOLOGY))
		return;

	virtio_cread(vdev, struct virtio_blk_config, physical_block_exp,
		     &physical_block_exp);
	if (physical_block_exp > 31 - ilog2(block))
		dev_warn(&vdev->dev, "ignoring a physical block of 2^%u logical blocks\n",
			 physical_block_exp);
	else
		lim->physical_block_size = block << physical_block_exp;

	virtio_cread(vdev, struct virtio_blk_config, alignment_offset,
		     &alignment_offset);
	if ((u64)alignment_offset * block >= lim->physical_block_size &&
	    alignment_offset)
		dev_warn(&vdev->dev, "ignoring an alignment offset of %u blocks, it exceeds the physical block\n",
			 alignment_offset);
	else
		lim->alignment_offset = alignment_offset * block;

	virtio_cread(vdev, struct virtio_blk_config, min_io_size, &min_io_size);
	if ((u64)min_io_size * block > UINT_MAX)
		dev_warn(&vdev->dev, "ignoring a minimum I/O size of %u blocks\n",
			 min_io_size);
	else
		lim->io_min = min_io_size * block;

	virtio_cread(vdev, struct virtio_blk_config, opt_io_size, &opt_io_size);
	if ((u64)opt_io_size * block > UINT_MAX)
		dev_warn(&vdev->dev, "ignoring an optimal I/O size of %u blocks\n",
			 opt_io_size);
	else
		lim->io_opt = opt_io_size * block;
}

/*
 * What a limit of sectors means: 0 is how devices say that they have none, and
 * a request is made of whole logical blocks.  A bio counts its bytes in 32
 * bits, and before 6.9 write zeroes relies on a limit that heeds that.
 */
static unsigned int virtblk_sector_limit(const struct queue_limits *lim, u32 v)
{
	return round_down(min_not_zero(v, UINT_MAX >> SECTOR_SHIFT),
			  lim->logical_block_size >> SECTOR_SHIFT);
}

static void virtblk_read_discard(struct virtio_device *vdev,
				 struct queue_limits *lim)
{
	u32 sectors, segments, alignment;
	u64 granularity;

	if (!virtio_has_feature(vdev, VIRTIO_BLK_F_DISCARD))
		return;

	virtio_cread(vdev, struct virtio_blk_config, max_discard_sectors,
		     &sectors);
	virtio_cread(vdev, struct virtio_blk_config, max_discard_seg,
		     &segments);
	virtio_cread(vdev, struct virtio_blk_config, discard_sector_alignment,
		     &alignment);

	lim->max_hw_discard_sectors = virtblk_sector_limit(lim, sectors);
	if (!lim->max_hw_discard_sectors) {
		dev_warn(&vdev->dev, "no discard: %u sectors are less than a logical block\n",
			 sectors);
		return;
	}
	lim->max_discard_segments = clamp_t(u32, segments, 1,
					    VIRTBLK_MAX_DISCARD_RANGES);

	/*
	 * The block layer splits at multiples of the granularity: they have to
	 * be whole blocks, and one has to fit into a request.
	 */
	granularity = (u64)alignment << SECTOR_SHIFT;
	if (granularity > UINT_MAX ||
	    granularity & (lim->logical_block_size - 1) ||
	    alignment > lim->max_hw_discard_sectors) {
		dev_warn(&vdev->dev, "ignoring a discard alignment of %u sectors\n",
			 alignment);
		granularity = 0;
	}
	lim->discard_granularity = granularity ?: lim->logical_block_size;
}

static void virtblk_read_write_zeroes(struct virtio_device *vdev,
				      struct virtblk_config *config)
{
	struct queue_limits *lim = &config->lim;
	u32 sectors, segments;
	u8 may_unmap;

	if (!virtio_has_feature(vdev, VIRTIO_BLK_F_WRITE_ZEROES))
		return;

	virtio_cread(vdev, struct virtio_blk_config, max_write_zeroes_sectors,
		     &sectors);
	virtio_cread(vdev, struct virtio_blk_config, max_write_zeroes_seg,
		     &segments);
	virtio_cread(vdev, struct virtio_blk_config, write_zeroes_may_unmap,
		     &may_unmap);

	/* The block layer sends one range a request, so one is enough. */
	if (!segments) {
		dev_warn(&vdev->dev, "no write zeroes: max_write_zeroes_seg is 0\n");
		return;
	}

	lim->max_write_zeroes_sectors = virtblk_sector_limit(lim, sectors);
	config->write_zeroes_may_unmap = may_unmap;
	if (may_unmap)
		lim->max_hw_wzeroes_unmap_sectors =
			lim->max_write_zeroes_sectors;
}

static void virtblk_read_geometry(struct virtio_device *vdev,
				  struct hd_geometry *geometry)
{
	if (!virtio_has_feature(vdev, VIRTIO_BLK_F_GEOMETRY))
		return;

	virtio_cread(vdev, struct virtio_blk_config, geometry.cylinders,
		     &geometry->cylinders);
	virtio_cread(vdev, struct virtio_blk_config, geometry.heads,
		     &geometry->heads);
	virtio_cread(vdev, struct virtio_blk_config, geometry.sectors,
		     &geometry->sectors);
}

/**
 * virtblk_read_config() - read and check the configuration space
 * @vdev: the device, its features negotiated
 * @ring_size: descriptors in each ring
 * @config: filled in
 *
 * Context: may sleep.
 *
 * Return: 0, or -EINVAL, with a line in the log, if the block layer cannot
 * serve a device with these values.
 */
int virtblk_read_config(struct virtio_device *vdev, unsigned int ring_size,
			struct virtblk_config *config)
{
	struct queue_limits *lim = &config->lim;
	int err;

	memset(config, 0, sizeof(*config));

	/* As the kernel's own driver reports it, though nothing rotates. */
	lim->features |= BLK_FEAT_ROTATIONAL;
	if (virtblk_writeback(vdev))
		lim->features |= BLK_FEAT_WRITE_CACHE;

	err = virtblk_read_block_size(vdev, lim);
	if (err)
		return err;
	err = virtblk_read_segment_limits(vdev, ring_size, lim);
	if (err)
		return err;

	virtblk_read_topology(vdev, lim);
	virtblk_read_discard(vdev, lim);
	virtblk_read_write_zeroes(vdev, config);
	virtblk_read_geometry(vdev, &config->geometry);
	return 0;
}

/**
 * virtblk_update_capacity() - take over the device's capacity
 * @vblk: the disk
 * @resize: the disk is up already, tell its users
 *
 * Context: may sleep.
 */
void virtblk_update_capacity(struct virtio_blk *vblk, bool resize)
{
	unsigned int block = queue_logical_block_size(vblk->disk->queue);
	struct virtio_device *vdev = vblk->vdev;
	char decimal[16], binary[16];
	u64 capacity;

	virtio_cread(vdev, struct virtio_blk_config, capacity, &capacity);
	if (capacity > VIRTBLK_MAX_CAPACITY) {
		dev_warn(&vdev->dev, "a capacity of %llu sectors is more than Linux can address, using %llu\n",
			 capacity, VIRTBLK_MAX_CAPACITY);
		capacity = VIRTBLK_MAX_CAPACITY;
	}
	if (resize && capacity == get_capacity(vblk->disk))
		return;

	string_get_size(capacity, SECTOR_SIZE, STRING_UNITS_10, decimal,
			sizeof(decimal));
	string_get_size(capacity, SECTOR_SIZE, STRING_UNITS_2, binary,
			sizeof(binary));
	dev_notice(&vdev->dev, "[%s] %s%llu %u-byte logical blocks (%s/%s)\n",
		   vblk->disk->disk_name, resize ? "new size: " : "",
		   capacity >> (ilog2(block) - SECTOR_SHIFT), block, decimal,
		   binary);
	if (!capacity)
		dev_warn(&vdev->dev, "[%s] the capacity is 0, no I/O is possible until the device reports another\n",
			 vblk->disk->disk_name);

	if (resize)
		set_capacity_and_notify(vblk->disk, capacity);
	else
		set_capacity(vblk->disk, capacity);
}

/**
 * virtblk_config_work() - the configuration space has changed
 * @work: the disk's config_work
 *
 * Only the capacity is followed: VIRTIO 1.3 has nothing else change while the
 * driver runs.
 */
void virtblk_config_work(struct work_struct *work)
{
	struct virtio_blk *vblk = container_of(work, struct virtio_blk,
					       config_work);

	virtblk_update_capacity(vblk, true);
}

/**
 * virtblk_getgeo() - the block layer's getgeo: answer HDIO_GETGEO
 * @disk: the disk
 * @geo: filled in
 *
 * Return: 0.
 */
int virtblk_getgeo(struct gendisk *disk, struct hd_geometry *geo)
{
	struct virtio_blk *vblk = disk->private_data;
	sector_t cylinders = get_capacity(disk);

	if (vblk->geometry.cylinders) {
		geo->heads = vblk->geometry.heads;
		geo->sectors = vblk->geometry.sectors;
		geo->cylinders = vblk->geometry.cylinders;
		return 0;
	}

	/* As other drivers for disks without a geometry of their own. */
	geo->heads = 64;
	geo->sectors = 32;
	sector_div(cylinders, 64 * 32);
	geo->cylinders = min_t(sector_t, cylinders, USHRT_MAX);
	return 0;
}
