/* SPDX-License-Identifier: GPL-2.0 */
/*
 * limits.c: read the device's configuration space and check its values.
 */
#ifndef VIRTBLK_LIMITS_H
#define VIRTBLK_LIMITS_H

#include <linux/blk-mq.h>
#include <linux/hdreg.h>
#include <linux/types.h>

struct device;
struct virtio_device;

/**
 * struct virtblk_raw_config - the configuration space, not checked
 * @features: the negotiated features; a field whose feature is missing is 0
 * @max_chain: the most descriptors that a request may have
 * @max_dma_size: the longest segment that the DMA layer maps, in bytes
 *
 * The other fields are those of the configuration space (VIRTIO 1.4, 5.2.4).
 */
struct virtblk_raw_config {
	u64 features;
	unsigned int max_chain;
	size_t max_dma_size;

	u64 capacity;
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
 * struct virtblk_config - the checked configuration space
 * @lim: limits for the block layer
 * @capacity: what virtblk_usable_capacity() leaves of the capacity, in sectors
 * @geometry: geometry to report; if cylinders is 0, it is derived from the capacity
 * @write_zeroes_may_unmap: a write zeroes request may ask the device to unmap
 */
struct virtblk_config {
	struct queue_limits lim;
	u64 capacity;
	struct hd_geometry geometry;
	bool write_zeroes_may_unmap;
};

u64 virtblk_read_capacity(struct virtio_device *vdev);
u64 virtblk_usable_capacity(const struct queue_limits *lim, u64 capacity);
void virtblk_warn_capacity(struct device *dev, const struct queue_limits *lim,
			   u64 capacity);
void virtblk_read_config(struct virtio_device *vdev, unsigned int max_chain,
			 struct virtblk_raw_config *raw);
int virtblk_check_config(struct device *dev,
			 const struct virtblk_raw_config *raw,
			 struct virtblk_config *config);
const char *virtblk_config_shrunk(const struct virtblk_config *was,
				  const struct virtblk_config *now);

#endif /* VIRTBLK_LIMITS_H */
