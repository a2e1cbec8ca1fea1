// SPDX-License-Identifier: GPL-2.0
/*
 * Turn the device's configuration space into limits for the block layer.
 *
 * The driver checks each value against what the block layer accepts before it uses
 * the value as a limit.  If a value that the disk needs is not usable, probe fails.  If
 * a value that is only a hint is not usable, the driver ignores it and logs a warning.
 */

#include <linux/blk-mq.h>
#include <linux/log2.h>
#include <linux/sizes.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>

#include "limits.h"
#include "virtio_blk.h"

/* The payload of a discard is one segment of 4 KiB at most. */
#define VIRTBLK_MAX_DISCARD_RANGES \
	(4096 / sizeof(struct virtio_blk_discard_write_zeroes))

/* The largest disk whose size in bytes fits a loff_t. */
#define VIRTBLK_MAX_CAPACITY	((u64)LLONG_MAX >> SECTOR_SHIFT)

/*
 * The block layer reads ahead twice the optimal I/O size.  A stripe of 32 disks with
 * 2 MiB of each is as large as this.
 */
#define VIRTBLK_MAX_IO_OPT	SZ_64M

/* Limit for open and for active zones; no known disk has more. */
#define VIRTBLK_MAX_OPEN_ZONES	4096U

/*
 * From here to virtblk_check_config() the code depends only on the raw values, so
 * that tests/config_kunit.c can test values without a device that has them.
 */
static bool virtblk_raw_has(const struct virtblk_raw_config *raw,
			    unsigned int feature)
{
	return raw->features & BIT_ULL(feature);
}

static int virtblk_check_block_size(struct device *dev,
				    const struct virtblk_raw_config *raw,
				    struct queue_limits *lim)
{
	lim->logical_block_size = SECTOR_SIZE;
	if (!virtblk_raw_has(raw, VIRTIO_BLK_F_BLK_SIZE))
		return 0;

	if (blk_validate_block_size(raw->blk_size)) {
		dev_err(dev, "block size %u is not a power of two from %u to %lu; give the device such a block size\n",
			raw->blk_size, SECTOR_SIZE,
			(unsigned long)BLK_MAX_BLOCK_SIZE);
		return -EINVAL;
	}
	lim->logical_block_size = raw->blk_size;
	return 0;
}

static int virtblk_check_segments(struct device *dev,
				  const struct virtblk_raw_config *raw,
				  struct queue_limits *lim)
{
	size_t size_max = min_t(size_t, raw->max_dma_size, UINT_MAX);
	u32 seg_max = 1;

	/*
	 * A chain must not be longer than the ring, even in an indirect table
	 * (VIRTIO 1.4, 2.7.5.3.1).
	 */
	if (raw->max_chain <= VIRTBLK_EXTRA_DESCS) {
		dev_err(dev, "a ring of %u has no room for a request with data; give the device a queue size of 4 or more\n",
			raw->max_chain);
		return -EINVAL;
	}

	if (virtblk_raw_has(raw, VIRTIO_BLK_F_SEG_MAX)) {
		if (!raw->seg_max)
			dev_warn(dev, "seg_max is 0; using 1\n");
		seg_max = max(raw->seg_max, 1U);
	}
	lim->max_segments = min3(seg_max, raw->max_chain - VIRTBLK_EXTRA_DESCS,
				 (u32)USHRT_MAX);

	/* qemu-storage-daemon's vhost-user-blk reports 0 for no limit. */
	if (virtblk_raw_has(raw, VIRTIO_BLK_F_SIZE_MAX) && raw->size_max)
		size_max = min_t(size_t, size_max, raw->size_max);
	if (round_down(size_max, lim->logical_block_size) < PAGE_SIZE) {
		dev_err(dev, "segments of %zu bytes are too small; size_max and the DMA layer must allow %lu or more\n",
			size_max,
			max_t(unsigned long, lim->logical_block_size, PAGE_SIZE));
		return -EINVAL;
	}
	lim->max_segment_size = round_down(size_max, lim->logical_block_size);
	lim->max_hw_sectors = UINT_MAX;
	return 0;
}

/*
 * An optimal I/O is a whole number of the smallest efficient ones.  Bridges and RAID
 * controllers report values like 2^32 - 512, by which the block layer would set the
 * read-ahead to 4 GiB.
 */
static void virtblk_check_io_opt(struct device *dev,
				 const struct virtblk_raw_config *raw,
				 struct queue_limits *lim)
{
	u64 io_opt = (u64)raw->opt_io_size * lim->logical_block_size;
	u32 least = max(lim->io_min, lim->physical_block_size);

	if (io_opt > VIRTBLK_MAX_IO_OPT)
		dev_warn(dev, "ignoring an optimal I/O size of %u blocks: more than %u MiB\n",
			 raw->opt_io_size, VIRTBLK_MAX_IO_OPT / SZ_1M);
	else if ((u32)io_opt % least)
		dev_warn(dev, "ignoring an optimal I/O size of %u blocks: no multiple of the minimum of %u bytes\n",
			 raw->opt_io_size, least);
	else
		lim->io_opt = io_opt;
}

/* The topology is only a hint, so the driver ignores values that make no sense. */
static void virtblk_check_topology(struct device *dev,
				   const struct virtblk_raw_config *raw,
				   struct queue_limits *lim)
{
	unsigned int block = lim->logical_block_size;
	u64 io_min;

	lim->physical_block_size = block;
	if (!virtblk_raw_has(raw, VIRTIO_BLK_F_TOPOLOGY))
		return;

	if (raw->physical_block_exp > 31 - ilog2(block))
		dev_warn(dev, "ignoring a physical block of 2^%u logical blocks: larger than 2 GiB\n",
			 raw->physical_block_exp);
	else
		lim->physical_block_size = block << raw->physical_block_exp;

	if ((u64)raw->alignment_offset * block >= lim->physical_block_size &&
	    raw->alignment_offset)
		dev_warn(dev, "ignoring an alignment offset of %u blocks: not less than the physical block of %u bytes\n",
			 raw->alignment_offset, lim->physical_block_size);
	else
		lim->alignment_offset = raw->alignment_offset * block;

	/* The block layer raises a smaller one to the physical block. */
	io_min = (u64)raw->min_io_size * block;
	if (io_min > UINT_MAX)
		dev_warn(dev, "ignoring a minimum I/O size of %u blocks: 4 GiB or more\n",
			 raw->min_io_size);
	else if (io_min > lim->physical_block_size &&
		 io_min & (lim->physical_block_size - 1))
		dev_warn(dev, "ignoring a minimum I/O size of %u blocks: no multiple of the physical block of %u bytes\n",
			 raw->min_io_size, lim->physical_block_size);
	else
		lim->io_min = io_min;

	virtblk_check_io_opt(dev, raw, lim);
}

/*
 * Devices report 0 for no limit.  A request consists of whole logical blocks.  A
 * bio counts its bytes in 32 bits; before 6.9 the block layer's write zeroes needs
 * a limit that fits them.
 */
static unsigned int virtblk_sector_limit(const struct queue_limits *lim, u32 v)
{
	return round_down(min_not_zero(v, UINT_MAX >> SECTOR_SHIFT),
			  lim->logical_block_size >> SECTOR_SHIFT);
}

/*
 * The block layer splits discards and secure erases at multiples of one granularity.
 * It must be a multiple of the logical block and fit into a request.
 */
static bool virtblk_alignment_fits(const struct queue_limits *lim,
				   u32 alignment, unsigned int max_sectors)
{
	u64 bytes = (u64)alignment << SECTOR_SHIFT;

	return bytes <= UINT_MAX && alignment <= max_sectors &&
	       !(bytes & (lim->logical_block_size - 1));
}

static void virtblk_check_discard(struct device *dev,
				  const struct virtblk_raw_config *raw,
				  struct queue_limits *lim)
{
	u32 alignment = raw->discard_sector_alignment;
	unsigned int sectors;

	if (!virtblk_raw_has(raw, VIRTIO_BLK_F_DISCARD))
		return;

	sectors = virtblk_sector_limit(lim, raw->max_discard_sectors);
	/* The granularity is a physical block or more and must fit into a discard. */
	if (sectors < lim->physical_block_size >> SECTOR_SHIFT) {
		dev_warn(dev, "no discard: max_discard_sectors is %u, less than a physical block of %u bytes\n",
			 raw->max_discard_sectors, lim->physical_block_size);
		return;
	}
	lim->max_hw_discard_sectors = sectors;
	/* There are devices that report 0; a discard has one range or more. */
	if (!raw->max_discard_seg)
		dev_warn(dev, "max_discard_seg is 0; using 1\n");
	lim->max_discard_segments = clamp_t(u32, raw->max_discard_seg, 1,
					    VIRTBLK_MAX_DISCARD_RANGES);

	if (!virtblk_alignment_fits(lim, alignment, sectors)) {
		dev_warn(dev, "ignoring a discard alignment of %u sectors: not whole blocks, or more than a discard\n",
			 alignment);
		alignment = 0;
	}
	lim->discard_granularity = max(alignment << SECTOR_SHIFT,
				       lim->physical_block_size);
}

static void virtblk_check_secure_erase(struct device *dev,
				       const struct virtblk_raw_config *raw,
				       struct queue_limits *lim)
{
	u32 alignment = raw->secure_erase_sector_alignment;
	unsigned int sectors, granularity;

	if (!virtblk_raw_has(raw, VIRTIO_BLK_F_SECURE_ERASE))
		return;

	/* The block layer sends one range per request. */
	if (!raw->max_secure_erase_seg) {
		dev_warn(dev, "no secure erase: max_secure_erase_seg is 0\n");
		return;
	}

	sectors = virtblk_sector_limit(lim, raw->max_secure_erase_sectors);
	if (sectors < max(lim->discard_granularity, lim->physical_block_size) >>
		      SECTOR_SHIFT) {
		dev_warn(dev, "no secure erase: max_secure_erase_sectors is %u, less than the granularity of %u bytes\n",
			 raw->max_secure_erase_sectors,
			 max(lim->discard_granularity,
			     lim->physical_block_size));
		return;
	}
	lim->max_secure_erase_sectors = sectors;

	/* Discards and secure erases share one granularity; it must fit both. */
	granularity = lim->discard_granularity >> SECTOR_SHIFT;
	if (!virtblk_alignment_fits(lim, alignment, sectors) ||
	    (granularity && alignment && granularity % alignment &&
	     (alignment % granularity ||
	      alignment > lim->max_hw_discard_sectors))) {
		dev_warn(dev, "ignoring a secure erase alignment of %u sectors: not whole blocks, more than a request, or no match for the discard granularity\n",
			 alignment);
		alignment = 0;
	}
	lim->discard_granularity = max3(lim->discard_granularity,
					alignment << SECTOR_SHIFT,
					lim->physical_block_size);
	/* Up to 7.2 the block layer merges and splits erases by the discard limit. */
	if (lim->max_hw_discard_sectors)
		lim->max_hw_discard_sectors =
			min(lim->max_hw_discard_sectors, sectors);
}

static void virtblk_check_write_zeroes(struct device *dev,
				       const struct virtblk_raw_config *raw,
				       struct virtblk_config *config)
{
	struct queue_limits *lim = &config->lim;
	unsigned int sectors;

	if (!virtblk_raw_has(raw, VIRTIO_BLK_F_WRITE_ZEROES))
		return;

	/* The block layer sends one range per request. */
	if (!raw->max_write_zeroes_seg) {
		dev_warn(dev, "no write zeroes: max_write_zeroes_seg is 0\n");
		return;
	}

	sectors = virtblk_sector_limit(lim, raw->max_write_zeroes_sectors);
	if (!sectors) {
		dev_warn(dev, "no write zeroes: max_write_zeroes_sectors is %u, less than a logical block of %u bytes\n",
			 raw->max_write_zeroes_sectors,
			 lim->logical_block_size);
		return;
	}
	lim->max_write_zeroes_sectors = sectors;
	config->write_zeroes_may_unmap = raw->write_zeroes_may_unmap;
	if (raw->write_zeroes_may_unmap)
		lim->max_hw_wzeroes_unmap_sectors = sectors;
}

static bool virtblk_zone_append_fits(const struct virtblk_raw_config *raw,
				     const struct queue_limits *lim)
{
	return raw->max_append_sectors >=
	       lim->zone_write_granularity >> SECTOR_SHIFT;
}

/* The block layer allocates memory for each zone that may be open or active. */
static u32 virtblk_clamp_zones(struct device *dev, const char *name, u32 zones)
{
	if (zones <= VIRTBLK_MAX_OPEN_ZONES)
		return zones;
	dev_warn(dev, "%s is %u, using %u\n", name, zones,
		 VIRTBLK_MAX_OPEN_ZONES);
	return VIRTBLK_MAX_OPEN_ZONES;
}

/*
 * Only the host-managed model differs from an ordinary disk (VIRTIO 1.4, 5.2.5.1).
 * Check here what Linux requires of zones: the block layer would only return an error
 * number, and the driver logs the reason.
 */
static int virtblk_check_zones(struct device *dev,
			       const struct virtblk_raw_config *raw,
			       struct queue_limits *lim)
{
	u32 zone = raw->zone_sectors, granularity = raw->write_granularity;

	if (!virtblk_raw_has(raw, VIRTIO_BLK_F_ZONED) ||
	    raw->zone_model != VIRTIO_BLK_Z_HM)
		return 0;

	if (!is_power_of_2(zone) ||
	    zone < lim->physical_block_size >> SECTOR_SHIFT) {
		dev_err(dev, "zones of %u sectors: Linux needs a power of two, %u or more; give the device zones of such a size\n",
			zone, lim->physical_block_size >> SECTOR_SHIFT);
		return -EINVAL;
	}
	if (!is_power_of_2(granularity) || granularity < SECTOR_SIZE ||
	    granularity >> SECTOR_SHIFT > zone) {
		dev_err(dev, "a write granularity of %u bytes: Linux needs a power of two, from %u to the size of a zone; give the device such a granularity\n",
			granularity, SECTOR_SIZE);
		return -EINVAL;
	}

	lim->features |= BLK_FEAT_ZONED;
	lim->chunk_sectors = zone;
	lim->zone_write_granularity = max(granularity, lim->logical_block_size);
	lim->max_active_zones = virtblk_clamp_zones(dev, "max_active_zones",
						    raw->max_active_zones);
	if (raw->max_active_zones && raw->max_open_zones >= raw->max_active_zones) {
		if (raw->max_open_zones > raw->max_active_zones)
			dev_warn(dev, "max_open_zones is %u, more than max_active_zones, which is %u; using %u\n",
				 raw->max_open_zones, raw->max_active_zones,
				 lim->max_active_zones);
		lim->max_open_zones = lim->max_active_zones;
	} else {
		lim->max_open_zones = virtblk_clamp_zones(dev, "max_open_zones",
							  raw->max_open_zones);
	}

	/*
	 * The block layer limits an append by the smallest of three limits, and
	 * converts it to bytes in 32 bits.  In zones of 4 GiB or more each append
	 * would fail if all three were larger than that.
	 */
	lim->max_hw_sectors =
		round_down(UINT_MAX >> SECTOR_SHIFT,
			   lim->zone_write_granularity >> SECTOR_SHIFT);
	/* With a limit of 0 the block layer emulates append (since 6.11). */
	if (virtblk_zone_append_fits(raw, lim))
		lim->max_hw_zone_append_sectors =
			round_down(min3(raw->max_append_sectors, zone,
					lim->max_hw_sectors),
				   lim->zone_write_granularity >> SECTOR_SHIFT);
	else if (raw->max_append_sectors)
		dev_warn(dev, "no zone append: max_append_sectors is %u, less than the write granularity of %u bytes\n",
			 raw->max_append_sectors,
			 lim->zone_write_granularity);
	return 0;
}

/**
 * virtblk_usable_capacity() - how much of its capacity a disk can use
 * @lim: the disk's limits
 * @capacity: the capacity that the device reports, in sectors
 *
 * A request consists of whole logical blocks, so a part of a block at the end cannot be
 * read or written.  Programs that take the size for the end of the disk, as sfdisk and
 * blkdiscard do, would fail there.
 *
 * Return: the number of sectors in whole logical blocks, at most as large as Linux can
 * address.
 */
u64 virtblk_usable_capacity(const struct queue_limits *lim, u64 capacity)
{
	u64 sectors = lim->logical_block_size >> SECTOR_SHIFT;

	return round_down(min(capacity, VIRTBLK_MAX_CAPACITY), sectors);
}

/**
 * virtblk_warn_capacity() - log that a disk cannot use all of its capacity
 * @dev: the device that the message names
 * @lim: the disk's limits
 * @capacity: the capacity that the device reports, in sectors
 */
void virtblk_warn_capacity(struct device *dev, const struct queue_limits *lim,
			   u64 capacity)
{
	u64 usable = virtblk_usable_capacity(lim, capacity);

	if (capacity > VIRTBLK_MAX_CAPACITY)
		dev_warn(dev, "a capacity of %llu sectors is more than Linux can address, using %llu\n",
			 capacity, usable);
	else
		dev_warn(dev, "a capacity of %llu sectors is no multiple of the logical block of %u bytes, using %llu\n",
			 capacity, lim->logical_block_size, usable);
}

/*
 * Programs divide by heads and sectors.  The driver does not compare the geometry with
 * the capacity: QEMU reports two cylinders or more for the smallest disk, and 16383 at
 * most for the largest.
 */
static void virtblk_check_geometry(struct device *dev,
				   const struct virtblk_raw_config *raw,
				   struct virtblk_config *config)
{
	if (!raw->cylinders)
		return;
	if (!raw->heads || !raw->sectors) {
		dev_warn(dev, "ignoring a geometry of %u cylinders, %u heads and %u sectors: no number may be 0\n",
			 raw->cylinders, raw->heads, raw->sectors);
		return;
	}
	config->geometry.cylinders = raw->cylinders;
	config->geometry.heads = raw->heads;
	config->geometry.sectors = raw->sectors;
}

static void virtblk_check_capacity(struct device *dev,
				   const struct virtblk_raw_config *raw,
				   struct virtblk_config *config)
{
	const struct queue_limits *lim = &config->lim;

	config->capacity = virtblk_usable_capacity(lim, raw->capacity);
	if (config->capacity != raw->capacity)
		virtblk_warn_capacity(dev, lim, raw->capacity);
}

/**
 * virtblk_check_config() - check the configuration space and derive limits from it
 * @dev: the device that messages name
 * @raw: the configuration space
 * @config: filled in
 *
 * Depends only on @raw.
 *
 * Return: 0, or -EINVAL if the block layer cannot serve a device with these values;
 * the log has the reason.
 */
int virtblk_check_config(struct device *dev,
			 const struct virtblk_raw_config *raw,
			 struct virtblk_config *config)
{
	struct queue_limits *lim = &config->lim;
	int err;

	memset(config, 0, sizeof(*config));

	/* The in-tree driver reports a rotational disk, too. */
	lim->features |= BLK_FEAT_ROTATIONAL;
	if (raw->writeback > 1)
		dev_warn(dev, "cache mode %u is neither 0 nor 1; using 1 (writeback)\n",
			 raw->writeback);
	if (virtblk_raw_has(raw, VIRTIO_BLK_F_CONFIG_WCE) ? raw->writeback :
	    virtblk_raw_has(raw, VIRTIO_BLK_F_FLUSH))
		lim->features |= BLK_FEAT_WRITE_CACHE;

	err = virtblk_check_block_size(dev, raw, lim);
	if (err)
		return err;
	err = virtblk_check_segments(dev, raw, lim);
	if (err)
		return err;
	virtblk_check_topology(dev, raw, lim);
	err = virtblk_check_zones(dev, raw, lim);
	if (err)
		return err;
	virtblk_check_discard(dev, raw, lim);
	virtblk_check_secure_erase(dev, raw, lim);
	virtblk_check_write_zeroes(dev, raw, config);

	virtblk_check_capacity(dev, raw, config);
	virtblk_check_geometry(dev, raw, config);
	return 0;
}

static u32 virtblk_config_generation(struct virtio_device *vdev)
{
	return vdev->config->generation ? vdev->config->generation(vdev) : 0;
}

/**
 * virtblk_read_capacity() - read the device's capacity
 * @vdev: the device
 *
 * The capacity is the only field of more than 32 bits.  Both halves must come from the
 * same generation (VIRTIO 1.4, 2.5.1).  Bound the retries: a device whose generation
 * keeps changing must notify the driver of the change, which reads the field again.
 *
 * Context: may sleep.
 *
 * Return: the capacity in sectors, not checked.
 */
u64 virtblk_read_capacity(struct virtio_device *vdev)
{
	const unsigned int at = offsetof(struct virtio_blk_config, capacity);
	unsigned int attempts = 8;
	__virtio64 capacity;
	u32 generation;

	do {
		generation = virtblk_config_generation(vdev);
		vdev->config->get(vdev, at, &capacity, sizeof(capacity));
	} while (virtblk_config_generation(vdev) != generation && --attempts);
	return virtio64_to_cpu(vdev, capacity);
}

/* A field whose feature was not negotiated stays 0. */
#define virtblk_read_field(vdev, feature, field, to)			\
	virtio_cread_feature(vdev, VIRTIO_BLK_F_##feature,		\
			     struct virtio_blk_config, field, to)

/**
 * virtblk_read_config() - read the configuration space
 * @vdev: the device, its features negotiated
 * @max_chain: the most descriptors that a request may have
 * @raw: filled in
 *
 * Context: may sleep.
 */
void virtblk_read_config(struct virtio_device *vdev, unsigned int max_chain,
			 struct virtblk_raw_config *raw)
{
	memset(raw, 0, sizeof(*raw));
	/* Feature bits 24 to 49 do not belong to the device type. */
	raw->features = vdev->features & GENMASK_ULL(23, 0);
	raw->max_chain = max_chain;
	raw->max_dma_size = virtio_max_dma_size(vdev);
	raw->capacity = virtblk_read_capacity(vdev);

	virtblk_read_field(vdev, SIZE_MAX, size_max, &raw->size_max);
	virtblk_read_field(vdev, SEG_MAX, seg_max, &raw->seg_max);
	virtblk_read_field(vdev, GEOMETRY, geometry.cylinders, &raw->cylinders);
	virtblk_read_field(vdev, GEOMETRY, geometry.heads, &raw->heads);
	virtblk_read_field(vdev, GEOMETRY, geometry.sectors, &raw->sectors);
	virtblk_read_field(vdev, BLK_SIZE, blk_size, &raw->blk_size);
	virtblk_read_field(vdev, TOPOLOGY, physical_block_exp,
			   &raw->physical_block_exp);
	virtblk_read_field(vdev, TOPOLOGY, alignment_offset,
			   &raw->alignment_offset);
	virtblk_read_field(vdev, TOPOLOGY, min_io_size, &raw->min_io_size);
	virtblk_read_field(vdev, TOPOLOGY, opt_io_size, &raw->opt_io_size);
	virtblk_read_field(vdev, CONFIG_WCE, wce, &raw->writeback);
	virtblk_read_field(vdev, DISCARD, max_discard_sectors,
			   &raw->max_discard_sectors);
	virtblk_read_field(vdev, DISCARD, max_discard_seg,
			   &raw->max_discard_seg);
	virtblk_read_field(vdev, DISCARD, discard_sector_alignment,
			   &raw->discard_sector_alignment);
	virtblk_read_field(vdev, WRITE_ZEROES, max_write_zeroes_sectors,
			   &raw->max_write_zeroes_sectors);
	virtblk_read_field(vdev, WRITE_ZEROES, max_write_zeroes_seg,
			   &raw->max_write_zeroes_seg);
	virtblk_read_field(vdev, WRITE_ZEROES, write_zeroes_may_unmap,
			   &raw->write_zeroes_may_unmap);
	virtblk_read_field(vdev, SECURE_ERASE, max_secure_erase_sectors,
			   &raw->max_secure_erase_sectors);
	virtblk_read_field(vdev, SECURE_ERASE, max_secure_erase_seg,
			   &raw->max_secure_erase_seg);
	virtblk_read_field(vdev, SECURE_ERASE, secure_erase_sector_alignment,
			   &raw->secure_erase_sector_alignment);
	virtblk_read_field(vdev, ZONED, zoned.model, &raw->zone_model);
	virtblk_read_field(vdev, ZONED, zoned.zone_sectors, &raw->zone_sectors);
	virtblk_read_field(vdev, ZONED, zoned.max_open_zones,
			   &raw->max_open_zones);
	virtblk_read_field(vdev, ZONED, zoned.max_active_zones,
			   &raw->max_active_zones);
	virtblk_read_field(vdev, ZONED, zoned.max_append_sectors,
			   &raw->max_append_sectors);
	virtblk_read_field(vdev, ZONED, zoned.write_granularity,
			   &raw->write_granularity);
}

/* 0 means that any number of zones may be open or active. */
static bool virtblk_fewer_zones(unsigned int was, unsigned int now)
{
	return now && (!was || now < was);
}

/**
 * virtblk_config_shrunk() - check whether waiting requests still fit the limits
 * @was: the limits when the disk was probed
 * @now: the limits now
 *
 * The block layer split waiting requests to fit @was.
 *
 * Return: NULL if they fit @now, or the name of the limit that they may exceed.
 */
const char *virtblk_config_shrunk(const struct virtblk_config *was,
				  const struct virtblk_config *now)
{
	const struct queue_limits *old = &was->lim, *new = &now->lim;

	if (new->logical_block_size != old->logical_block_size)
		return "block size";
	if (new->max_segments < old->max_segments)
		return "number of segments";
	if (new->max_segment_size < old->max_segment_size)
		return "segment size";
	if (new->max_hw_discard_sectors < old->max_hw_discard_sectors ||
	    new->max_discard_segments < old->max_discard_segments)
		return "discard limit";
	if (new->max_secure_erase_sectors < old->max_secure_erase_sectors)
		return "secure erase limit";
	if (new->max_write_zeroes_sectors < old->max_write_zeroes_sectors)
		return "write zeroes limit";
	if ((new->features ^ old->features) & BLK_FEAT_ZONED ||
	    new->chunk_sectors != old->chunk_sectors ||
	    new->zone_write_granularity != old->zone_write_granularity ||
	    new->max_hw_zone_append_sectors < old->max_hw_zone_append_sectors ||
	    virtblk_fewer_zones(old->max_open_zones, new->max_open_zones) ||
	    virtblk_fewer_zones(old->max_active_zones, new->max_active_zones))
		return "zones";
	return NULL;
}
