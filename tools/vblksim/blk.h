/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The constants and layouts of VIRTIO 1.4, section 5.2.
 *
 * linux/virtio_blk.h of older systems lacks half of them, and a checker should
 * not share its definitions with the driver.
 */
#ifndef VBLKSIM_BLK_H
#define VBLKSIM_BLK_H

#include <stdint.h>

#define BLK_DEVICE_ID		2
#define BLK_ID_BYTES		20

enum blk_feature {
	BLK_F_SIZE_MAX		= 1,
	BLK_F_SEG_MAX		= 2,
	BLK_F_GEOMETRY		= 4,
	BLK_F_RO		= 5,
	BLK_F_BLK_SIZE		= 6,
	BLK_F_FLUSH		= 9,
	BLK_F_TOPOLOGY		= 10,
	BLK_F_CONFIG_WCE	= 11,
	BLK_F_MQ		= 12,
	BLK_F_DISCARD		= 13,
	BLK_F_WRITE_ZEROES	= 14,
	BLK_F_LIFETIME		= 15,
	BLK_F_SECURE_ERASE	= 16,
	BLK_F_ZONED		= 17,
};

enum blk_type {
	BLK_T_IN		= 0,
	BLK_T_OUT		= 1,
	BLK_T_FLUSH		= 4,
	BLK_T_GET_ID		= 8,
	BLK_T_GET_LIFETIME	= 10,
	BLK_T_DISCARD		= 11,
	BLK_T_WRITE_ZEROES	= 13,
	BLK_T_SECURE_ERASE	= 14,
	BLK_T_ZONE_APPEND	= 15,
	BLK_T_ZONE_REPORT	= 16,
	BLK_T_ZONE_OPEN		= 18,
	BLK_T_ZONE_CLOSE	= 20,
	BLK_T_ZONE_FINISH	= 22,
	BLK_T_ZONE_RESET	= 24,
	BLK_T_ZONE_RESET_ALL	= 26,
};

enum blk_status {
	BLK_S_OK			= 0,
	BLK_S_IOERR			= 1,
	BLK_S_UNSUPP			= 2,
	BLK_S_ZONE_INVALID_CMD		= 3,
	BLK_S_ZONE_UNALIGNED_WP		= 4,
	BLK_S_ZONE_OPEN_RESOURCE	= 5,
	BLK_S_ZONE_ACTIVE_RESOURCE	= 6,
};

enum blk_zone_model { BLK_Z_NONE, BLK_Z_HM, BLK_Z_HA };
enum blk_zone_type { BLK_ZT_CONV = 1, BLK_ZT_SWR, BLK_ZT_SWP };

enum blk_zone_state {
	BLK_ZS_NOT_WP	= 0,
	BLK_ZS_EMPTY	= 1,
	BLK_ZS_IOPEN	= 2,
	BLK_ZS_EOPEN	= 3,
	BLK_ZS_CLOSED	= 4,
	BLK_ZS_RDONLY	= 13,
	BLK_ZS_FULL	= 14,
	BLK_ZS_OFFLINE	= 15,
};

struct blk_config {
	uint64_t capacity;
	uint32_t size_max;
	uint32_t seg_max;
	uint16_t cylinders;
	uint8_t heads;
	uint8_t sectors;
	uint32_t blk_size;
	uint8_t physical_block_exp;
	uint8_t alignment_offset;
	uint16_t min_io_size;
	uint32_t opt_io_size;
	uint8_t writeback;
	uint8_t unused0;
	uint16_t num_queues;
	uint32_t max_discard_sectors;
	uint32_t max_discard_seg;
	uint32_t discard_sector_alignment;
	uint32_t max_write_zeroes_sectors;
	uint32_t max_write_zeroes_seg;
	uint8_t write_zeroes_may_unmap;
	uint8_t unused1[3];
	uint32_t max_secure_erase_sectors;
	uint32_t max_secure_erase_seg;
	uint32_t secure_erase_sector_alignment;
	uint32_t zone_sectors;
	uint32_t max_open_zones;
	uint32_t max_active_zones;
	uint32_t max_append_sectors;
	uint32_t write_granularity;
	uint8_t model;
	uint8_t unused2[3];
} __attribute__((packed));

_Static_assert(sizeof(struct blk_config) == 96, "layout of 5.2.4");

struct blk_header {
	uint32_t type;
	uint32_t reserved;
	uint64_t sector;
} __attribute__((packed));

#define BLK_RANGE_UNMAP		1u

struct blk_range {
	uint64_t sector;
	uint32_t num_sectors;
	uint32_t flags;
} __attribute__((packed));

struct blk_lifetime {
	uint16_t pre_eol_info;
	uint16_t device_lifetime_est_typ_a;
	uint16_t device_lifetime_est_typ_b;
} __attribute__((packed));

struct blk_zone_report {
	uint64_t nr_zones;
	uint8_t reserved[56];
} __attribute__((packed));

struct blk_zone_descriptor {
	uint64_t z_cap;
	uint64_t z_start;
	uint64_t z_wp;
	uint8_t z_type;
	uint8_t z_state;
	uint8_t reserved[38];
} __attribute__((packed));

_Static_assert(sizeof(struct blk_zone_descriptor) == 64, "layout of 5.2.6");

#endif /* VBLKSIM_BLK_H */
