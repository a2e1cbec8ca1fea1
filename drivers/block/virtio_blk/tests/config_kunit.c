// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit test for limits.c: virtblk_check_config() must turn good and absurd values
 * of a device into limits that the block layer accepts, or refuse them and log why.
 *
 * The test makes a disk with each set of limits and checks the limits of that disk.
 * The block layer warns about bad limits only once per boot, and does not check that
 * a request can be split to fit them.  Therefore the rules here check all of it.
 *
 * The test supports only the newest kernel.  It runs when somebody writes to
 * /sys/kernel/debug/kunit/virtio_blk_config/run.
 */

#include <kunit/test.h>
#include <linux/device.h>
#include <linux/panic.h>
#include <linux/prandom.h>
#include <linux/sizes.h>
#include <linux/string.h>
#include <trace/events/printk.h>

#include "../limits.h"
#include "../virtio_blk.h"

#define VIRTBLK_TEST_DEVICE	"virtblk-config-test"

/* Enough that each pair of absurd values is likely to occur. */
#define VIRTBLK_TEST_RANDOM	3000

/* A bio counts its bytes in 32 bits. */
#define MAX_SECTORS		(UINT_MAX >> SECTOR_SHIFT)
#define MAX_SECTORS_4K		round_down(MAX_SECTORS, 8)

/* Lines that the test's device logged since the last case began. */
static struct {
	unsigned int lines;
	char text[1024];
} virtblk_logged;

static struct device *virtblk_test_device;
static struct blk_mq_tag_set virtblk_test_set;
static unsigned int virtblk_test_refusals;

/*
 * The result of a check: the limits of the disk, and the fields of struct
 * virtblk_config that the block layer does not see.
 */
static struct virtblk_outcome {
	struct queue_limits lim;
	struct hd_geometry geometry;
	u64 capacity;
	bool may_unmap;
	bool cache;
	bool zoned;
} virtblk_got;

/**
 * struct virtblk_value - expected value of a field of virtblk_got
 * @name: its name; NULL ends the list
 * @at: its address
 * @size: its size in bytes
 * @value: the expected value
 */
struct virtblk_value {
	const char *name;
	const void *at;
	size_t size;
	u64 value;
};

/**
 * struct virtblk_case - a row of the table
 * @name: what is special about the device
 * @raw: its configuration space
 * @refused: virtblk_check_config() must refuse it
 * @message: text that the log must contain; NULL if the log must stay empty
 * @extra_lines: number of lines that the log gets besides that one
 * @want: expected values of fields
 */
struct virtblk_case {
	const char *name;
	struct virtblk_raw_config raw;
	bool refused;
	const char *message;
	unsigned int extra_lines;
	struct virtblk_value want[10];
};

#define F(name)		BIT_ULL(VIRTIO_BLK_F_##name)
#define DEVICE(feat)	.features = (feat), .max_chain = 128, \
			.max_dma_size = SIZE_MAX
#define TOPOLOGY(exp, align, min, opt) \
	.physical_block_exp = (exp), .alignment_offset = (align), \
	.min_io_size = (min), .opt_io_size = (opt)
#define DISCARD(sectors, seg, align) \
	.max_discard_sectors = (sectors), .max_discard_seg = (seg), \
	.discard_sector_alignment = (align)
#define ERASE(sectors, seg, align) \
	.max_secure_erase_sectors = (sectors), .max_secure_erase_seg = (seg), \
	.secure_erase_sector_alignment = (align)
#define ZEROES(sectors, seg, unmap) \
	.max_write_zeroes_sectors = (sectors), .max_write_zeroes_seg = (seg), \
	.write_zeroes_may_unmap = (unmap)
#define ZONES(size, granularity, append, open, active) \
	.zone_model = VIRTIO_BLK_Z_HM, .zone_sectors = (size), \
	.write_granularity = (granularity), .max_append_sectors = (append), \
	.max_open_zones = (open), .max_active_zones = (active)

#define LOGS(words)	.message = (words)
#define REFUSED(words)	.refused = true, .message = (words)
#define WANT(...)	.want = { __VA_ARGS__ }
#define VALUE(at, v)	{ #at, &(at), sizeof(at), (v) }
#define V(field, v)	VALUE(virtblk_got.field, v)
#define L(field, v)	VALUE(virtblk_got.lim.field, v)

static const struct virtblk_case virtblk_cases[] = {
	/* Devices as they exist. */
	{ "says nothing", { DEVICE(0) },
	  WANT(L(logical_block_size, 512), L(physical_block_size, 512),
	       L(max_segments, 1), L(max_segment_size, UINT_MAX - 511),
	       L(io_min, 512), L(io_opt, 0), L(max_discard_sectors, 0),
	       L(max_write_zeroes_sectors, 0), V(cache, false)) },
	{ "says what QEMU does",
	  { DEVICE(F(SEG_MAX) | F(BLK_SIZE) | F(FLUSH) | F(TOPOLOGY) |
		   F(CONFIG_WCE) | F(DISCARD) | F(WRITE_ZEROES) | F(GEOMETRY)),
	    .seg_max = 126, .blk_size = 512, .writeback = 1,
	    .cylinders = 16383, .heads = 16, .sectors = 63,
	    DISCARD(4194303, 1, 1), ZEROES(4194303, 1, 1) },
	  WANT(L(max_segments, 126), L(max_discard_sectors, 4194303),
	       L(discard_granularity, 512), L(max_discard_segments, 1),
	       L(max_write_zeroes_sectors, 4194303), V(may_unmap, true),
	       V(cache, true), V(geometry.cylinders, 16383),
	       V(geometry.heads, 16), V(geometry.sectors, 63)) },
	{ "says what qemu-storage-daemon does",
	  { DEVICE(F(SIZE_MAX) | F(SEG_MAX) | F(BLK_SIZE) | F(TOPOLOGY) |
		   F(DISCARD) | F(WRITE_ZEROES) | F(CONFIG_WCE) | F(FLUSH)),
	    .size_max = 0, .seg_max = 126, .blk_size = 512, .writeback = 1,
	    TOPOLOGY(0, 0, 1, 1), DISCARD(32768, 1, 1), ZEROES(32768, 1, 0) },
	  WANT(L(max_segment_size, UINT_MAX - 511), L(max_segments, 126),
	       L(io_min, 512), L(io_opt, 512), L(max_discard_sectors, 32768),
	       L(max_wzeroes_unmap_sectors, 0), V(may_unmap, false)) },
	{ "says what a disk of 4 KiB sectors does",
	  { DEVICE(F(SEG_MAX) | F(BLK_SIZE) | F(TOPOLOGY) | F(FLUSH)),
	    .seg_max = 254, .blk_size = 4096, TOPOLOGY(0, 0, 16, 256) },
	  WANT(L(logical_block_size, 4096), L(physical_block_size, 4096),
	       L(max_segments, 126), L(io_min, SZ_64K), L(io_opt, SZ_1M),
	       V(cache, true)) },
	{ "says what a zoned disk does",
	  { DEVICE(F(SEG_MAX) | F(BLK_SIZE) | F(FLUSH) | F(ZONED)),
	    .seg_max = 126, .blk_size = 4096,
	    ZONES(524288, 4096, 1024, 128, 128) },
	  WANT(V(zoned, true), L(chunk_sectors, 524288),
	       L(zone_write_granularity, 4096),
	       L(max_zone_append_sectors, 1024),
	       L(max_open_zones, 128), L(max_active_zones, 128)) },
	{ "has bits of other purposes",
	  { DEVICE(F(RO) | F(MQ) | F(BARRIER) | F(SCSI) | BIT_ULL(63)) },
	  WANT(L(logical_block_size, 512), L(max_segments, 1),
	       L(max_discard_sectors, 0), V(cache, false), V(zoned, false)) },
	{ "has all bits and no values", { DEVICE(U64_MAX) },
	  REFUSED("block size 0 is not a power of two") },
	{ "has all bits and nothing but ones",
	  { .features = U64_MAX, .max_chain = UINT_MAX,
	    .max_dma_size = SIZE_MAX, .size_max = U32_MAX,
	    .seg_max = U32_MAX, .blk_size = U32_MAX, .writeback = U8_MAX,
	    TOPOLOGY(U8_MAX, U8_MAX, U16_MAX, U32_MAX) },
	  REFUSED("block size 4294967295 is not"), .extra_lines = 1 },
	{ "offers nothing and has values",
	  { DEVICE(0), .size_max = 1, .seg_max = 64, .blk_size = 4096,
	    .writeback = 1, TOPOLOGY(3, 1, 8, 8), DISCARD(100, 2, 8),
	    ZEROES(100, 2, 1), ERASE(100, 2, 8), ZONES(3, 1, 1, 2, 1) },
	  WANT(L(logical_block_size, 512), L(physical_block_size, 512),
	       L(max_segments, 1), L(max_segment_size, UINT_MAX - 511),
	       L(alignment_offset, 0), L(io_opt, 0), L(max_discard_sectors, 0),
	       L(max_secure_erase_sectors, 0), L(max_write_zeroes_sectors, 0),
	       V(cache, false)) },

	/* Block sizes. */
	{ "block 512", { DEVICE(F(BLK_SIZE)), .blk_size = 512 },
	  WANT(L(logical_block_size, 512), L(physical_block_size, 512)) },
	{ "block 1024", { DEVICE(F(BLK_SIZE)), .blk_size = 1024 },
	  WANT(L(logical_block_size, 1024), L(physical_block_size, 1024),
	       L(max_segment_size, UINT_MAX - 1023)) },
	{ "block 2048", { DEVICE(F(BLK_SIZE)), .blk_size = 2048 },
	  WANT(L(logical_block_size, 2048), L(io_min, 2048)) },
	{ "block 4096", { DEVICE(F(BLK_SIZE)), .blk_size = 4096 },
	  WANT(L(logical_block_size, 4096), L(physical_block_size, 4096),
	       L(io_min, 4096), L(max_segment_size, UINT_MAX - 4095)) },
	{ "largest block", { DEVICE(F(BLK_SIZE)), .blk_size = BLK_MAX_BLOCK_SIZE },
	  WANT(L(logical_block_size, BLK_MAX_BLOCK_SIZE)) },
	{ "block above the largest",
	  { DEVICE(F(BLK_SIZE)), .blk_size = 2 * BLK_MAX_BLOCK_SIZE },
	  REFUSED("is not a power of two from 512 to") },
	{ "block 0", { DEVICE(F(BLK_SIZE)), .blk_size = 0 },
	  REFUSED("block size 0 is not") },
	{ "block 1", { DEVICE(F(BLK_SIZE)), .blk_size = 1 },
	  REFUSED("block size 1 is not") },
	{ "block 256", { DEVICE(F(BLK_SIZE)), .blk_size = 256 },
	  REFUSED("block size 256 is not") },
	{ "block 511", { DEVICE(F(BLK_SIZE)), .blk_size = 511 },
	  REFUSED("block size 511 is not") },
	{ "block 513", { DEVICE(F(BLK_SIZE)), .blk_size = 513 },
	  REFUSED("block size 513 is not") },
	{ "block 520", { DEVICE(F(BLK_SIZE)), .blk_size = 520 },
	  REFUSED("block size 520 is not") },
	{ "block 3072", { DEVICE(F(BLK_SIZE)), .blk_size = 3072 },
	  REFUSED("block size 3072 is not") },
	{ "block 4097", { DEVICE(F(BLK_SIZE)), .blk_size = 4097 },
	  REFUSED("block size 4097 is not") },
	{ "block 2^31", { DEVICE(F(BLK_SIZE)), .blk_size = BIT(31) },
	  REFUSED("block size 2147483648 is not") },
	{ "block of all ones", { DEVICE(F(BLK_SIZE)), .blk_size = U32_MAX },
	  REFUSED("block size 4294967295 is not") },
	{ "odd block, not offered", { DEVICE(0), .blk_size = 3 },
	  WANT(L(logical_block_size, 512)) },

	/* Number of segments. */
	{ "seg_max 0", { DEVICE(F(SEG_MAX)), .seg_max = 0 },
	  LOGS("seg_max is 0"), WANT(L(max_segments, 1)) },
	{ "seg_max 1", { DEVICE(F(SEG_MAX)), .seg_max = 1 },
	  WANT(L(max_segments, 1)) },
	{ "seg_max 2", { DEVICE(F(SEG_MAX)), .seg_max = 2 },
	  WANT(L(max_segments, 2)) },
	{ "seg_max 3", { DEVICE(F(SEG_MAX)), .seg_max = 3 },
	  WANT(L(max_segments, 3)) },
	{ "seg_max one less than the ring takes",
	  { DEVICE(F(SEG_MAX)), .seg_max = 125 }, WANT(L(max_segments, 125)) },
	{ "seg_max what the ring takes",
	  { DEVICE(F(SEG_MAX)), .seg_max = 126 }, WANT(L(max_segments, 126)) },
	{ "seg_max one more than the ring takes",
	  { DEVICE(F(SEG_MAX)), .seg_max = 127 }, WANT(L(max_segments, 126)) },
	{ "seg_max of all ones",
	  { DEVICE(F(SEG_MAX)), .seg_max = U32_MAX },
	  WANT(L(max_segments, 126)) },
	{ "seg_max not offered", { DEVICE(0), .seg_max = 64 },
	  WANT(L(max_segments, 1)) },
	{ "ring 0", { .max_chain = 0, .max_dma_size = SIZE_MAX },
	  REFUSED("a ring of 0 has no room") },
	{ "ring 1", { .max_chain = 1, .max_dma_size = SIZE_MAX },
	  REFUSED("a ring of 1 has no room") },
	{ "ring 2", { .max_chain = 2, .max_dma_size = SIZE_MAX },
	  REFUSED("a ring of 2 has no room") },
	{ "ring 3",
	  { F(SEG_MAX), .max_chain = 3, .max_dma_size = SIZE_MAX,
	    .seg_max = 100 },
	  WANT(L(max_segments, 1)) },
	{ "ring 4",
	  { F(SEG_MAX), .max_chain = 4, .max_dma_size = SIZE_MAX,
	    .seg_max = 100 },
	  WANT(L(max_segments, 2)) },
	{ "ring 5",
	  { F(SEG_MAX), .max_chain = 5, .max_dma_size = SIZE_MAX,
	    .seg_max = 100 },
	  WANT(L(max_segments, 3)) },
	{ "ring 1024",
	  { F(SEG_MAX), .max_chain = 1024, .max_dma_size = SIZE_MAX,
	    .seg_max = U32_MAX },
	  WANT(L(max_segments, 1022)) },
	{ "ring 32768",
	  { F(SEG_MAX), .max_chain = 32768, .max_dma_size = SIZE_MAX,
	    .seg_max = U32_MAX },
	  WANT(L(max_segments, 32766)) },
	{ "ring 65536",
	  { F(SEG_MAX), .max_chain = 65536, .max_dma_size = SIZE_MAX,
	    .seg_max = U32_MAX },
	  WANT(L(max_segments, 65534)) },
	{ "ring 65538",
	  { F(SEG_MAX), .max_chain = 65538, .max_dma_size = SIZE_MAX,
	    .seg_max = 65536 },
	  WANT(L(max_segments, 65535)) },
	{ "ring of all ones",
	  { F(SEG_MAX), .max_chain = UINT_MAX, .max_dma_size = SIZE_MAX,
	    .seg_max = U32_MAX },
	  WANT(L(max_segments, 65535)) },
	{ "seg_max 0 and a ring of 2",
	  { F(SEG_MAX), .max_chain = 2, .max_dma_size = SIZE_MAX },
	  REFUSED("a ring of 2 has no room") },

	/* Length of segments. */
	{ "size_max 0", { DEVICE(F(SIZE_MAX)), .size_max = 0 },
	  WANT(L(max_segment_size, UINT_MAX - 511)) },
	{ "size_max 1", { DEVICE(F(SIZE_MAX)), .size_max = 1 },
	  REFUSED("segments of 1 bytes are too small") },
	{ "size_max 511", { DEVICE(F(SIZE_MAX)), .size_max = 511 },
	  REFUSED("segments of 511 bytes are too small") },
	{ "size_max 512", { DEVICE(F(SIZE_MAX)), .size_max = 512 },
	  REFUSED("segments of 512 bytes are too small") },
	{ "size_max one less than a page",
	  { DEVICE(F(SIZE_MAX)), .size_max = PAGE_SIZE - 1 },
	  REFUSED("bytes are too small") },
	{ "size_max a page", { DEVICE(F(SIZE_MAX)), .size_max = PAGE_SIZE },
	  WANT(L(max_segment_size, PAGE_SIZE)) },
	{ "size_max one more than a page",
	  { DEVICE(F(SIZE_MAX)), .size_max = PAGE_SIZE + 1 },
	  WANT(L(max_segment_size, PAGE_SIZE)) },
	{ "size_max of odd blocks",
	  { DEVICE(F(SIZE_MAX)), .size_max = PAGE_SIZE + 1000 },
	  WANT(L(max_segment_size, PAGE_SIZE + 512)) },
	{ "size_max 1 MiB", { DEVICE(F(SIZE_MAX)), .size_max = SZ_1M },
	  WANT(L(max_segment_size, SZ_1M)) },
	{ "size_max of all ones", { DEVICE(F(SIZE_MAX)), .size_max = U32_MAX },
	  WANT(L(max_segment_size, UINT_MAX - 511)) },
	{ "size_max not of whole large blocks",
	  { DEVICE(F(SIZE_MAX) | F(BLK_SIZE)), .blk_size = BLK_MAX_BLOCK_SIZE,
	    .size_max = 2 * BLK_MAX_BLOCK_SIZE - 1 },
	  WANT(L(max_segment_size, BLK_MAX_BLOCK_SIZE)) },
	{ "size_max less than a large block",
	  { DEVICE(F(SIZE_MAX) | F(BLK_SIZE)), .blk_size = BLK_MAX_BLOCK_SIZE,
	    .size_max = BLK_MAX_BLOCK_SIZE - 1 },
	  REFUSED("bytes are too small") },
	{ "size_max 1 not offered", { DEVICE(0), .size_max = 1 },
	  WANT(L(max_segment_size, UINT_MAX - 511)) },
	{ "DMA of 0 bytes", { .max_chain = 128, .max_dma_size = 0 },
	  REFUSED("segments of 0 bytes are too small") },
	{ "DMA of 1 byte", { .max_chain = 128, .max_dma_size = 1 },
	  REFUSED("segments of 1 bytes are too small") },
	{ "DMA of less than a page",
	  { .max_chain = 128, .max_dma_size = PAGE_SIZE - 1 },
	  REFUSED("bytes are too small") },
	{ "DMA of a page", { .max_chain = 128, .max_dma_size = PAGE_SIZE },
	  WANT(L(max_segment_size, PAGE_SIZE)) },
	{ "DMA of less than size_max",
	  { F(SIZE_MAX), .max_chain = 128, .max_dma_size = SZ_256K,
	    .size_max = SZ_1M },
	  WANT(L(max_segment_size, SZ_256K)) },
	{ "DMA of more than size_max",
	  { F(SIZE_MAX), .max_chain = 128, .max_dma_size = SZ_1M,
	    .size_max = SZ_64K },
	  WANT(L(max_segment_size, SZ_64K)) },
	{ "DMA of less than a page and size_max of more",
	  { F(SIZE_MAX), .max_chain = 128, .max_dma_size = 2048,
	    .size_max = SZ_64K },
	  REFUSED("segments of 2048 bytes are too small") },
	{ "DMA limited, size_max 0",
	  { F(SIZE_MAX), .max_chain = 128, .max_dma_size = SZ_64K },
	  WANT(L(max_segment_size, SZ_64K)) },
	{ "DMA of 4 GiB",
	  { .max_chain = 128, .max_dma_size = (size_t)UINT_MAX + 1 },
	  WANT(L(max_segment_size, UINT_MAX - 511)) },

	/* Topology. */
	{ "topology of zeroes", { DEVICE(F(TOPOLOGY)), TOPOLOGY(0, 0, 0, 0) },
	  WANT(L(physical_block_size, 512), L(alignment_offset, 0),
	       L(io_min, 512), L(io_opt, 0)) },
	{ "physical block of 8", { DEVICE(F(TOPOLOGY)), TOPOLOGY(3, 0, 0, 0) },
	  WANT(L(physical_block_size, 4096), L(io_min, 4096)) },
	{ "largest physical block",
	  { DEVICE(F(TOPOLOGY)), TOPOLOGY(22, 0, 0, 0) },
	  WANT(L(physical_block_size, BIT(31)), L(io_min, BIT(31))) },
	{ "physical block of 2^32 bytes",
	  { DEVICE(F(TOPOLOGY)), TOPOLOGY(23, 0, 0, 0) },
	  LOGS("physical block of 2^23"), WANT(L(physical_block_size, 512)) },
	{ "physical block of 2^31 blocks",
	  { DEVICE(F(TOPOLOGY)), TOPOLOGY(31, 0, 0, 0) },
	  LOGS("physical block of 2^31"), WANT(L(physical_block_size, 512)) },
	{ "physical block of 2^32 blocks",
	  { DEVICE(F(TOPOLOGY)), TOPOLOGY(32, 0, 0, 0) },
	  LOGS("physical block of 2^32"), WANT(L(physical_block_size, 512)) },
	{ "physical block of 2^255 blocks",
	  { DEVICE(F(TOPOLOGY)), TOPOLOGY(255, 0, 0, 0) },
	  LOGS("physical block of 2^255"), WANT(L(physical_block_size, 512)) },
	{ "largest physical block of 4 KiB ones",
	  { DEVICE(F(TOPOLOGY) | F(BLK_SIZE)), .blk_size = 4096,
	    TOPOLOGY(19, 0, 0, 0) },
	  WANT(L(physical_block_size, BIT(31))) },
	{ "physical block of too many 4 KiB ones",
	  { DEVICE(F(TOPOLOGY) | F(BLK_SIZE)), .blk_size = 4096,
	    TOPOLOGY(20, 0, 0, 0) },
	  LOGS("physical block of 2^20"), WANT(L(physical_block_size, 4096)) },
	{ "offset 1 of 8", { DEVICE(F(TOPOLOGY)), TOPOLOGY(3, 1, 0, 0) },
	  WANT(L(alignment_offset, 512)) },
	{ "offset 7 of 8", { DEVICE(F(TOPOLOGY)), TOPOLOGY(3, 7, 0, 0) },
	  WANT(L(alignment_offset, 3584)) },
	{ "offset 8 of 8", { DEVICE(F(TOPOLOGY)), TOPOLOGY(3, 8, 0, 0) },
	  LOGS("alignment offset of 8 blocks"), WANT(L(alignment_offset, 0)) },
	{ "offset 255 of 8", { DEVICE(F(TOPOLOGY)), TOPOLOGY(3, 255, 0, 0) },
	  LOGS("alignment offset of 255"), WANT(L(alignment_offset, 0)) },
	{ "offset 255 of 256", { DEVICE(F(TOPOLOGY)), TOPOLOGY(8, 255, 0, 0) },
	  WANT(L(alignment_offset, 130560)) },
	{ "offset 1 of 1", { DEVICE(F(TOPOLOGY)), TOPOLOGY(0, 1, 0, 0) },
	  LOGS("alignment offset of 1"), WANT(L(alignment_offset, 0)) },
	{ "offset 1 of 2 blocks of 4 KiB",
	  { DEVICE(F(TOPOLOGY) | F(BLK_SIZE)), .blk_size = 4096,
	    TOPOLOGY(1, 1, 0, 0) },
	  WANT(L(physical_block_size, 8192), L(alignment_offset, 4096)) },
	{ "minimum I/O of 8", { DEVICE(F(TOPOLOGY)), TOPOLOGY(0, 0, 8, 0) },
	  WANT(L(io_min, 4096)) },
	{ "minimum I/O of 3", { DEVICE(F(TOPOLOGY)), TOPOLOGY(0, 0, 3, 0) },
	  WANT(L(io_min, 1536)) },
	{ "minimum I/O below the physical block",
	  { DEVICE(F(TOPOLOGY)), TOPOLOGY(3, 0, 1, 0) },
	  WANT(L(io_min, 4096)) },
	{ "minimum I/O of all ones",
	  { DEVICE(F(TOPOLOGY)), TOPOLOGY(0, 0, U16_MAX, 0) },
	  WANT(L(io_min, 65535 * 512)) },
	{ "minimum I/O of all ones, in 4 KiB",
	  { DEVICE(F(TOPOLOGY) | F(BLK_SIZE)), .blk_size = 4096,
	    TOPOLOGY(0, 0, U16_MAX, 0) },
	  WANT(L(io_min, 65535 * 4096)) },
	{ "optimal I/O of 8", { DEVICE(F(TOPOLOGY)), TOPOLOGY(0, 0, 0, 8) },
	  WANT(L(io_opt, 4096)) },
	{ "minimum I/O of whole physical blocks",
	  { DEVICE(F(TOPOLOGY)), TOPOLOGY(3, 0, 24, 0) },
	  WANT(L(io_min, 12288)) },
	{ "minimum I/O of odd physical blocks",
	  { DEVICE(F(TOPOLOGY)), TOPOLOGY(3, 0, 12, 0) },
	  LOGS("minimum I/O size of 12 blocks: no multiple of the physical"),
	  WANT(L(io_min, 4096)) },
	{ "optimal I/O below the physical block",
	  { DEVICE(F(TOPOLOGY)), TOPOLOGY(3, 0, 0, 1) },
	  LOGS("optimal I/O size of 1 blocks: no multiple of the minimum of 4096"),
	  WANT(L(io_opt, 0)) },
	{ "optimal I/O of odd physical blocks",
	  { DEVICE(F(TOPOLOGY)), TOPOLOGY(3, 0, 0, 9) },
	  LOGS("optimal I/O size of 9 blocks: no multiple"),
	  WANT(L(io_opt, 0)) },
	{ "optimal I/O below the minimum",
	  { DEVICE(F(TOPOLOGY)), TOPOLOGY(0, 0, 128, 64) },
	  LOGS("optimal I/O size of 64 blocks: no multiple of the minimum of 65536"),
	  WANT(L(io_min, SZ_64K), L(io_opt, 0)) },
	{ "optimal I/O that is the minimum",
	  { DEVICE(F(TOPOLOGY)), TOPOLOGY(0, 0, 128, 128) },
	  WANT(L(io_min, SZ_64K), L(io_opt, SZ_64K)) },
	{ "optimal I/O of one and a half minimums",
	  { DEVICE(F(TOPOLOGY)), TOPOLOGY(0, 0, 128, 192) },
	  LOGS("optimal I/O size of 192 blocks: no multiple"),
	  WANT(L(io_min, SZ_64K), L(io_opt, 0)) },
	{ "optimal I/O of 5 minimums, no power of two",
	  { DEVICE(F(TOPOLOGY)), TOPOLOGY(0, 0, 24, 120) },
	  WANT(L(io_min, 12288), L(io_opt, 61440)) },
	{ "optimal I/O and a minimum that is ignored",
	  { DEVICE(F(TOPOLOGY)), TOPOLOGY(3, 0, 12, 16) },
	  LOGS("minimum I/O size of 12 blocks"),
	  WANT(L(io_min, 4096), L(io_opt, 8192)) },
	{ "optimal I/O of 2^16 - 1 blocks, as USB bridges report",
	  { DEVICE(F(TOPOLOGY)), TOPOLOGY(3, 0, 8, U16_MAX) },
	  LOGS("optimal I/O size of 65535 blocks: no multiple"),
	  WANT(L(io_min, 4096), L(io_opt, 0)) },
	{ "largest optimal I/O",
	  { DEVICE(F(TOPOLOGY)), TOPOLOGY(0, 0, 0, SZ_64M / 512) },
	  WANT(L(io_opt, SZ_64M)) },
	{ "optimal I/O of one block more than the largest",
	  { DEVICE(F(TOPOLOGY)), TOPOLOGY(0, 0, 0, SZ_64M / 512 + 1) },
	  LOGS("optimal I/O size of 131073 blocks: more than 64 MiB"),
	  WANT(L(io_opt, 0)) },
	{ "optimal I/O of 2^32 - 512 bytes, as USB bridges report",
	  { DEVICE(F(TOPOLOGY)), TOPOLOGY(0, 0, 0, MAX_SECTORS) },
	  LOGS("optimal I/O size of 8388607 blocks: more than 64 MiB"),
	  WANT(L(io_opt, 0)) },
	{ "optimal I/O of 4 GiB",
	  { DEVICE(F(TOPOLOGY)), TOPOLOGY(0, 0, 0, MAX_SECTORS + 1) },
	  LOGS("optimal I/O size of 8388608 blocks"), WANT(L(io_opt, 0)) },
	{ "optimal I/O of all ones",
	  { DEVICE(F(TOPOLOGY)), TOPOLOGY(0, 0, 0, U32_MAX) },
	  LOGS("optimal I/O size of 4294967295"), WANT(L(io_opt, 0)) },
	{ "optimal I/O of 4 GiB, in 4 KiB",
	  { DEVICE(F(TOPOLOGY) | F(BLK_SIZE)), .blk_size = 4096,
	    TOPOLOGY(0, 0, 0, BIT(20)) },
	  LOGS("optimal I/O size of 1048576"), WANT(L(io_opt, 0)) },
	{ "topology of all ones",
	  { DEVICE(F(TOPOLOGY)), TOPOLOGY(U8_MAX, U8_MAX, U16_MAX, U32_MAX) },
	  LOGS("physical block of 2^255"), .extra_lines = 2,
	  WANT(L(physical_block_size, 512), L(alignment_offset, 0),
	       L(io_opt, 0)) },

	/* The capacity, with each field that it could contradict. */
	{ "capacity 0", { DEVICE(0) }, WANT(V(capacity, 0)) },
	{ "capacity 1", { DEVICE(0), .capacity = 1 }, WANT(V(capacity, 1)) },
	{ "capacity of the largest disk",
	  { DEVICE(0), .capacity = LLONG_MAX >> SECTOR_SHIFT },
	  WANT(V(capacity, LLONG_MAX >> SECTOR_SHIFT)) },
	{ "capacity one more than the largest disk",
	  { DEVICE(0), .capacity = (LLONG_MAX >> SECTOR_SHIFT) + 1 },
	  LOGS("more than Linux can address"),
	  WANT(V(capacity, LLONG_MAX >> SECTOR_SHIFT)) },
	{ "capacity of all ones", { DEVICE(0), .capacity = U64_MAX },
	  LOGS("a capacity of 18446744073709551615 sectors is more than"),
	  WANT(V(capacity, LLONG_MAX >> SECTOR_SHIFT)) },
	{ "capacity of whole 4 KiB blocks",
	  { DEVICE(F(BLK_SIZE)), .blk_size = 4096, .capacity = 131072 },
	  WANT(V(capacity, 131072)) },
	{ "capacity of 3 sectors more than whole 4 KiB blocks",
	  { DEVICE(F(BLK_SIZE)), .blk_size = 4096, .capacity = 131075 },
	  LOGS("131075 sectors is no multiple of the logical block of 4096"),
	  WANT(V(capacity, 131072)) },
	{ "capacity of 7 sectors and a block of 8",
	  { DEVICE(F(BLK_SIZE)), .blk_size = 4096, .capacity = 7 },
	  LOGS("7 sectors is no multiple"), WANT(V(capacity, 0)) },
	{ "capacity of 8 sectors and a block of 8",
	  { DEVICE(F(BLK_SIZE)), .blk_size = 4096, .capacity = 8 },
	  WANT(V(capacity, 8)) },
	{ "capacity of one sector more than the largest block",
	  { DEVICE(F(BLK_SIZE)), .blk_size = BLK_MAX_BLOCK_SIZE,
	    .capacity = (BLK_MAX_BLOCK_SIZE >> SECTOR_SHIFT) + 1 },
	  LOGS("is no multiple"),
	  WANT(V(capacity, BLK_MAX_BLOCK_SIZE >> SECTOR_SHIFT)) },
	{ "capacity of all ones and 4 KiB blocks",
	  { DEVICE(F(BLK_SIZE)), .blk_size = 4096, .capacity = U64_MAX },
	  LOGS("more than Linux can address"),
	  WANT(V(capacity, round_down(LLONG_MAX >> SECTOR_SHIFT, 8))) },
	{ "odd capacity, block size not offered",
	  { DEVICE(0), .blk_size = 4096, .capacity = 7 }, WANT(V(capacity, 7)) },
	{ "capacity of no whole physical block",
	  { DEVICE(F(TOPOLOGY)), TOPOLOGY(3, 0, 0, 0), .capacity = 13 },
	  WANT(V(capacity, 13), L(physical_block_size, 4096)) },
	{ "capacity below the alignment offset",
	  { DEVICE(F(TOPOLOGY)), TOPOLOGY(3, 7, 0, 0), .capacity = 6 },
	  WANT(V(capacity, 6), L(alignment_offset, 3584)) },
	{ "capacity below minimum and optimal I/O, and may grow",
	  { DEVICE(F(TOPOLOGY)), TOPOLOGY(0, 0, 64, 128), .capacity = 8 },
	  WANT(V(capacity, 8), L(io_min, SZ_32K), L(io_opt, SZ_64K)) },
	{ "capacity below size_max and seg_max",
	  { DEVICE(F(SIZE_MAX) | F(SEG_MAX)), .size_max = SZ_1M,
	    .seg_max = 126, .capacity = 1 },
	  WANT(V(capacity, 1), L(max_segment_size, SZ_1M)) },
	{ "capacity below all limits of discard, erase and write zeroes",
	  { DEVICE(F(DISCARD) | F(SECURE_ERASE) | F(WRITE_ZEROES)),
	    DISCARD(2048, 1, 64), ERASE(2048, 1, 64), ZEROES(2048, 1, 0),
	    .capacity = 8 },
	  WANT(V(capacity, 8), L(max_discard_sectors, 2048),
	       L(discard_granularity, SZ_32K),
	       L(max_secure_erase_sectors, 2048),
	       L(max_write_zeroes_sectors, 2048)) },
	{ "capacity below the geometry, as QEMU's smallest disks",
	  { DEVICE(F(GEOMETRY)), .cylinders = 2, .heads = 16, .sectors = 63,
	    .capacity = 8 },
	  WANT(V(capacity, 8), V(geometry.cylinders, 2)) },
	{ "capacity below a zone",
	  { DEVICE(F(ZONED) | F(BLK_SIZE)), .blk_size = 4096,
	    ZONES(524288, 4096, 1024, 1, 1), .capacity = 524280 },
	  WANT(V(capacity, 524280), L(chunk_sectors, 524288)) },
	{ "capacity of no whole zone and no whole block",
	  { DEVICE(F(ZONED) | F(BLK_SIZE)), .blk_size = 4096,
	    ZONES(524288, 4096, 1024, 0, 0), .capacity = 524291 },
	  LOGS("524291 sectors is no multiple"),
	  WANT(V(capacity, 524288), L(chunk_sectors, 524288)) },
	{ "capacity of no whole block of a refused device",
	  { DEVICE(F(BLK_SIZE)), .blk_size = 3072, .capacity = 7 },
	  REFUSED("block size 3072 is not") },

	/* The write cache. */
	{ "flush", { DEVICE(F(FLUSH)) }, WANT(V(cache, true)) },
	{ "no flush", { DEVICE(0) }, WANT(V(cache, false)) },
	{ "writethrough", { DEVICE(F(FLUSH) | F(CONFIG_WCE)), .writeback = 0 },
	  WANT(V(cache, false)) },
	{ "writeback", { DEVICE(F(FLUSH) | F(CONFIG_WCE)), .writeback = 1 },
	  WANT(V(cache, true)) },
	{ "cache mode 2", { DEVICE(F(FLUSH) | F(CONFIG_WCE)), .writeback = 2 },
	  LOGS("cache mode 2 is neither"), WANT(V(cache, true)) },
	{ "cache mode 255",
	  { DEVICE(F(FLUSH) | F(CONFIG_WCE)), .writeback = 255 },
	  LOGS("cache mode 255 is neither"), WANT(V(cache, true)) },
	{ "writeback without flush",
	  { DEVICE(F(CONFIG_WCE)), .writeback = 1 }, WANT(V(cache, true)) },
	{ "mode not offered, flush",
	  { DEVICE(F(FLUSH)), .writeback = 0 }, WANT(V(cache, true)) },
	{ "mode not offered, no flush",
	  { DEVICE(0), .writeback = 1 }, WANT(V(cache, false)) },

	/* The geometry. */
	{ "largest geometry",
	  { DEVICE(F(GEOMETRY)), .cylinders = U16_MAX, .heads = U8_MAX,
	    .sectors = U8_MAX },
	  WANT(V(geometry.cylinders, U16_MAX), V(geometry.heads, U8_MAX),
	       V(geometry.sectors, U8_MAX)) },
	{ "geometry of zeroes", { DEVICE(F(GEOMETRY)) },
	  WANT(V(geometry.cylinders, 0), V(geometry.heads, 0)) },
	{ "geometry without heads",
	  { DEVICE(F(GEOMETRY)), .cylinders = 1, .heads = 0, .sectors = 63 },
	  LOGS("geometry of 1 cylinders, 0 heads and 63 sectors"),
	  WANT(V(geometry.cylinders, 0), V(geometry.sectors, 0)) },
	{ "geometry without sectors",
	  { DEVICE(F(GEOMETRY)), .cylinders = 1, .heads = 16, .sectors = 0 },
	  LOGS("geometry of 1 cylinders, 16 heads and 0 sectors"),
	  WANT(V(geometry.cylinders, 0), V(geometry.heads, 0)) },

	/* Discards. */
	{ "discard of no range", { DEVICE(F(DISCARD)), DISCARD(0, 0, 0) },
	  LOGS("max_discard_seg is 0; using 1"),
	  WANT(L(max_discard_sectors, MAX_SECTORS), L(max_discard_segments, 1),
	       L(discard_granularity, 512)) },
	{ "discard without limits", { DEVICE(F(DISCARD)), DISCARD(0, 1, 0) },
	  WANT(L(max_discard_sectors, MAX_SECTORS), L(max_discard_segments, 1),
	       L(discard_granularity, 512)) },
	{ "discard of ones", { DEVICE(F(DISCARD)), DISCARD(1, 1, 1) },
	  WANT(L(max_discard_sectors, 1), L(max_discard_segments, 1),
	       L(discard_granularity, 512)) },
	{ "discard, usual", { DEVICE(F(DISCARD)), DISCARD(2048, 16, 8) },
	  WANT(L(max_discard_sectors, 2048), L(max_discard_segments, 16),
	       L(discard_granularity, 4096)) },
	{ "discard of all ones",
	  { DEVICE(F(DISCARD)), DISCARD(U32_MAX, U32_MAX, U32_MAX) },
	  LOGS("discard alignment of 4294967295"),
	  WANT(L(max_discard_sectors, MAX_SECTORS),
	       L(max_discard_segments, 256), L(discard_granularity, 512)) },
	{ "255 ranges", { DEVICE(F(DISCARD)), DISCARD(0, 255, 0) },
	  WANT(L(max_discard_segments, 255)) },
	{ "256 ranges", { DEVICE(F(DISCARD)), DISCARD(0, 256, 0) },
	  WANT(L(max_discard_segments, 256)) },
	{ "257 ranges", { DEVICE(F(DISCARD)), DISCARD(0, 257, 0) },
	  WANT(L(max_discard_segments, 256)) },
	{ "65536 ranges", { DEVICE(F(DISCARD)), DISCARD(0, 65536, 0) },
	  WANT(L(max_discard_segments, 256)) },
	{ "largest discard", { DEVICE(F(DISCARD)), DISCARD(MAX_SECTORS, 1, 1) },
	  WANT(L(max_discard_sectors, MAX_SECTORS)) },
	{ "discard of 4 GiB",
	  { DEVICE(F(DISCARD)), DISCARD(MAX_SECTORS + 1, 1, 1) },
	  WANT(L(max_discard_sectors, MAX_SECTORS)) },
	{ "discard without limit, 4 KiB blocks",
	  { DEVICE(F(DISCARD) | F(BLK_SIZE)), .blk_size = 4096,
	    DISCARD(0, 1, 1) },
	  LOGS("discard alignment of 1 sectors"),
	  WANT(L(max_discard_sectors, MAX_SECTORS_4K),
	       L(discard_granularity, 4096)) },
	{ "discard of less than a block",
	  { DEVICE(F(DISCARD) | F(BLK_SIZE)), .blk_size = 4096,
	    DISCARD(7, 1, 8) },
	  LOGS("no discard: max_discard_sectors is 7, less than"),
	  WANT(L(max_discard_sectors, 0), L(discard_granularity, 0)) },
	{ "discard of a block",
	  { DEVICE(F(DISCARD) | F(BLK_SIZE)), .blk_size = 4096,
	    DISCARD(8, 1, 8) },
	  WANT(L(max_discard_sectors, 8), L(discard_granularity, 4096)) },
	{ "discard of not whole blocks",
	  { DEVICE(F(DISCARD) | F(BLK_SIZE)), .blk_size = 4096,
	    DISCARD(15, 1, 0) },
	  WANT(L(max_discard_sectors, 8), L(discard_granularity, 4096)) },
	{ "discard alignment of not whole blocks",
	  { DEVICE(F(DISCARD) | F(BLK_SIZE)), .blk_size = 4096,
	    DISCARD(800, 1, 9) },
	  LOGS("discard alignment of 9 sectors"),
	  WANT(L(max_discard_sectors, 800), L(discard_granularity, 4096)) },
	{ "discard alignment of three blocks",
	  { DEVICE(F(DISCARD) | F(BLK_SIZE)), .blk_size = 4096,
	    DISCARD(800, 1, 24) },
	  WANT(L(discard_granularity, 12288)) },
	{ "discard alignment of 3", { DEVICE(F(DISCARD)), DISCARD(100, 1, 3) },
	  WANT(L(discard_granularity, 1536)) },
	{ "discard alignment as large as a discard",
	  { DEVICE(F(DISCARD)), DISCARD(100, 1, 100) },
	  WANT(L(max_discard_sectors, 100), L(discard_granularity, 51200)) },
	{ "discard alignment larger than a discard",
	  { DEVICE(F(DISCARD)), DISCARD(100, 1, 101) },
	  LOGS("discard alignment of 101"), WANT(L(discard_granularity, 512)) },
	{ "largest discard alignment",
	  { DEVICE(F(DISCARD)), DISCARD(0, 1, MAX_SECTORS) },
	  WANT(L(discard_granularity, UINT_MAX - 511)) },
	{ "discard alignment of 4 GiB",
	  { DEVICE(F(DISCARD)), DISCARD(0, 1, MAX_SECTORS + 1) },
	  LOGS("discard alignment of 8388608"),
	  WANT(L(discard_granularity, 512)) },
	{ "discard of less than a physical block",
	  { DEVICE(F(DISCARD) | F(TOPOLOGY)), TOPOLOGY(3, 0, 0, 0),
	    DISCARD(7, 1, 1) },
	  LOGS("no discard: max_discard_sectors is 7,"),
	  WANT(L(max_discard_sectors, 0)) },
	{ "discard of a physical block",
	  { DEVICE(F(DISCARD) | F(TOPOLOGY)), TOPOLOGY(3, 0, 0, 0),
	    DISCARD(8, 1, 1) },
	  WANT(L(max_discard_sectors, 8), L(discard_granularity, 4096)) },
	{ "discard alignment of one and a half physical blocks",
	  { DEVICE(F(DISCARD) | F(TOPOLOGY)), TOPOLOGY(3, 0, 0, 0),
	    DISCARD(100, 1, 12) },
	  WANT(L(discard_granularity, 6144)) },
	{ "discard of almost the largest physical block",
	  { DEVICE(F(DISCARD) | F(TOPOLOGY)), TOPOLOGY(22, 0, 0, 0),
	    DISCARD(4194303, 1, 1) },
	  LOGS("no discard: max_discard_sectors is 4194303,"),
	  WANT(L(max_discard_sectors, 0)) },
	{ "discard of the largest physical block",
	  { DEVICE(F(DISCARD) | F(TOPOLOGY)), TOPOLOGY(22, 0, 0, 0),
	    DISCARD(0, 1, 1) },
	  WANT(L(max_discard_sectors, MAX_SECTORS),
	       L(discard_granularity, BIT(31))) },
	{ "discard not offered", { DEVICE(0), DISCARD(2048, 16, 8) },
	  WANT(L(max_discard_sectors, 0), L(discard_granularity, 0)) },

	/* Secure erase. */
	{ "erase of zeroes", { DEVICE(F(SECURE_ERASE)), ERASE(0, 0, 0) },
	  LOGS("no secure erase: max_secure_erase_seg is 0"),
	  WANT(L(max_secure_erase_sectors, 0)) },
	{ "erase without limit", { DEVICE(F(SECURE_ERASE)), ERASE(0, 1, 0) },
	  WANT(L(max_secure_erase_sectors, MAX_SECTORS),
	       L(max_discard_sectors, 0)) },
	{ "erase of ones", { DEVICE(F(SECURE_ERASE)), ERASE(1, 1, 1) },
	  WANT(L(max_secure_erase_sectors, 1)) },
	{ "erase of all ones",
	  { DEVICE(F(SECURE_ERASE)), ERASE(U32_MAX, U32_MAX, U32_MAX) },
	  LOGS("secure erase alignment of 4294967295"),
	  WANT(L(max_secure_erase_sectors, MAX_SECTORS)) },
	{ "erase of less than a block",
	  { DEVICE(F(SECURE_ERASE) | F(BLK_SIZE)), .blk_size = 4096,
	    ERASE(7, 1, 8) },
	  LOGS("no secure erase: max_secure_erase_sectors is 7,"),
	  WANT(L(max_secure_erase_sectors, 0)) },
	{ "erase of not whole blocks",
	  { DEVICE(F(SECURE_ERASE) | F(BLK_SIZE)), .blk_size = 4096,
	    ERASE(15, 1, 8) },
	  WANT(L(max_secure_erase_sectors, 8)) },
	{ "erase of less than a physical block",
	  { DEVICE(F(SECURE_ERASE) | F(TOPOLOGY)), TOPOLOGY(3, 0, 0, 0),
	    ERASE(7, 1, 1) },
	  LOGS("no secure erase: max_secure_erase_sectors is 7,"),
	  WANT(L(max_secure_erase_sectors, 0)) },
	{ "erase alignment larger than an erase",
	  { DEVICE(F(SECURE_ERASE)), ERASE(8, 1, 9) },
	  LOGS("secure erase alignment of 9"),
	  WANT(L(max_secure_erase_sectors, 8)) },
	{ "erase of less than a discard",
	  { DEVICE(F(SECURE_ERASE) | F(DISCARD)), DISCARD(2048, 1, 8),
	    ERASE(1024, 1, 8) },
	  WANT(L(max_secure_erase_sectors, 1024), L(max_discard_sectors, 1024),
	       L(discard_granularity, 4096)) },
	{ "erase of more than a discard",
	  { DEVICE(F(SECURE_ERASE) | F(DISCARD)), DISCARD(2048, 1, 8),
	    ERASE(4096, 1, 8) },
	  WANT(L(max_secure_erase_sectors, 4096), L(max_discard_sectors, 2048),
	       L(discard_granularity, 4096)) },
	{ "erase of less than discards are aligned to",
	  { DEVICE(F(SECURE_ERASE) | F(DISCARD)), DISCARD(2048, 1, 64),
	    ERASE(32, 1, 8) },
	  LOGS("no secure erase: max_secure_erase_sectors is 32,"),
	  WANT(L(max_secure_erase_sectors, 0), L(max_discard_sectors, 2048),
	       L(discard_granularity, SZ_32K)) },
	{ "erase aligned to twice as much as discards",
	  { DEVICE(F(SECURE_ERASE) | F(DISCARD)), DISCARD(2048, 1, 8),
	    ERASE(2048, 1, 16) },
	  WANT(L(discard_granularity, 8192)) },
	{ "erase aligned to half as much as discards",
	  { DEVICE(F(SECURE_ERASE) | F(DISCARD)), DISCARD(2048, 1, 16),
	    ERASE(2048, 1, 8) },
	  WANT(L(discard_granularity, 8192)) },
	{ "erase aligned to two thirds as much as discards",
	  { DEVICE(F(SECURE_ERASE) | F(DISCARD)), DISCARD(2048, 1, 24),
	    ERASE(2048, 1, 16) },
	  LOGS("secure erase alignment of 16"),
	  WANT(L(discard_granularity, 12288),
	       L(max_secure_erase_sectors, 2048)) },
	{ "erase aligned to more than a discard",
	  { DEVICE(F(SECURE_ERASE) | F(DISCARD)), DISCARD(8, 1, 8),
	    ERASE(64, 1, 16) },
	  LOGS("secure erase alignment of 16"),
	  WANT(L(discard_granularity, 4096), L(max_discard_sectors, 8),
	       L(max_secure_erase_sectors, 64)) },
	{ "erase and discard limits that their alignments do not divide",
	  { DEVICE(F(SECURE_ERASE) | F(DISCARD)), DISCARD(100, 1, 8),
	    ERASE(40, 1, 16) },
	  WANT(L(discard_granularity, 8192), L(max_discard_sectors, 40),
	       L(max_secure_erase_sectors, 40)) },
	{ "erase without limit and discard with one",
	  { DEVICE(F(SECURE_ERASE) | F(DISCARD)), DISCARD(1000, 1, 8),
	    ERASE(0, U32_MAX, 0) },
	  WANT(L(max_secure_erase_sectors, MAX_SECTORS),
	       L(max_discard_sectors, 1000)) },
	{ "erase usable and discard not",
	  { DEVICE(F(SECURE_ERASE) | F(DISCARD) | F(BLK_SIZE)),
	    .blk_size = 4096, DISCARD(1, 1, 1), ERASE(64, 1, 8) },
	  LOGS("no discard: max_discard_sectors is 1,"),
	  WANT(L(max_secure_erase_sectors, 64), L(max_discard_sectors, 0)) },
	{ "erase not offered", { DEVICE(0), ERASE(64, 1, 8) },
	  WANT(L(max_secure_erase_sectors, 0)) },

	/* Write zeroes. */
	{ "zeroes of zeroes", { DEVICE(F(WRITE_ZEROES)), ZEROES(0, 0, 0) },
	  LOGS("no write zeroes: max_write_zeroes_seg is 0"),
	  WANT(L(max_write_zeroes_sectors, 0), V(may_unmap, false)) },
	{ "zeroes of no segments may unmap",
	  { DEVICE(F(WRITE_ZEROES)), ZEROES(0, 0, 1) },
	  LOGS("no write zeroes: max_write_zeroes_seg is 0"),
	  WANT(L(max_wzeroes_unmap_sectors, 0), V(may_unmap, false)) },
	{ "zeroes without limit", { DEVICE(F(WRITE_ZEROES)), ZEROES(0, 1, 0) },
	  WANT(L(max_write_zeroes_sectors, MAX_SECTORS),
	       L(max_wzeroes_unmap_sectors, 0), V(may_unmap, false)) },
	{ "zeroes without limit may unmap",
	  { DEVICE(F(WRITE_ZEROES)), ZEROES(0, 1, 1) },
	  WANT(L(max_write_zeroes_sectors, MAX_SECTORS),
	       L(max_wzeroes_unmap_sectors, MAX_SECTORS),
	       V(may_unmap, true)) },
	{ "zeroes of one sector", { DEVICE(F(WRITE_ZEROES)), ZEROES(1, 1, 1) },
	  WANT(L(max_write_zeroes_sectors, 1), L(max_wzeroes_unmap_sectors, 1),
	       V(may_unmap, true)) },
	{ "zeroes of all ones",
	  { DEVICE(F(WRITE_ZEROES)), ZEROES(U32_MAX, U32_MAX, U8_MAX) },
	  WANT(L(max_write_zeroes_sectors, MAX_SECTORS), V(may_unmap, true)) },
	{ "zeroes of 4 GiB",
	  { DEVICE(F(WRITE_ZEROES)), ZEROES(MAX_SECTORS + 1, 1, 0) },
	  WANT(L(max_write_zeroes_sectors, MAX_SECTORS)) },
	{ "zeroes without limit, 4 KiB blocks",
	  { DEVICE(F(WRITE_ZEROES) | F(BLK_SIZE)), .blk_size = 4096,
	    ZEROES(0, 1, 1) },
	  WANT(L(max_write_zeroes_sectors, MAX_SECTORS_4K),
	       L(max_wzeroes_unmap_sectors, MAX_SECTORS_4K)) },
	{ "zeroes of less than a block",
	  { DEVICE(F(WRITE_ZEROES) | F(BLK_SIZE)), .blk_size = 4096,
	    ZEROES(7, 1, 1) },
	  LOGS("no write zeroes: max_write_zeroes_sectors is 7,"),
	  WANT(L(max_write_zeroes_sectors, 0), V(may_unmap, false)) },
	{ "zeroes of not whole blocks",
	  { DEVICE(F(WRITE_ZEROES) | F(BLK_SIZE)), .blk_size = 4096,
	    ZEROES(15, 1, 0) },
	  WANT(L(max_write_zeroes_sectors, 8)) },
	{ "zeroes of less than a physical block",
	  { DEVICE(F(WRITE_ZEROES) | F(TOPOLOGY)), TOPOLOGY(3, 0, 0, 0),
	    ZEROES(1, 1, 0) },
	  WANT(L(max_write_zeroes_sectors, 1)) },
	{ "zeroes not offered", { DEVICE(0), ZEROES(64, 1, 1) },
	  WANT(L(max_write_zeroes_sectors, 0), V(may_unmap, false)) },

	/* Zones. */
	{ "zones of no model", { DEVICE(F(ZONED)) },
	  WANT(V(zoned, false), L(chunk_sectors, 0)) },
	{ "zones that the device manages, absurd ones",
	  { DEVICE(F(ZONED)), .zone_model = VIRTIO_BLK_Z_HA,
	    .zone_sectors = 3, .write_granularity = 1, .max_open_zones = 2,
	    .max_active_zones = 1, .max_append_sectors = 1 },
	  WANT(V(zoned, false), L(chunk_sectors, 0), L(max_open_zones, 0),
	       L(max_active_zones, 0), L(zone_write_granularity, 0)) },
	{ "zones of an unknown model",
	  { DEVICE(F(ZONED)), .zone_model = U8_MAX, .zone_sectors = 3 },
	  WANT(V(zoned, false), L(chunk_sectors, 0)) },
	{ "zones not offered", { DEVICE(0), ZONES(524288, 4096, 8, 1, 1) },
	  WANT(V(zoned, false), L(max_open_zones, 0)) },
	{ "zones of 0", { DEVICE(F(ZONED)), ZONES(0, 512, 0, 0, 0) },
	  REFUSED("zones of 0 sectors") },
	{ "zones of 1", { DEVICE(F(ZONED)), ZONES(1, 512, 1, 0, 0) },
	  WANT(V(zoned, true), L(chunk_sectors, 1),
	       L(max_zone_append_sectors, 1)) },
	{ "zones of 3", { DEVICE(F(ZONED)), ZONES(3, 512, 0, 0, 0) },
	  REFUSED("zones of 3 sectors") },
	{ "zones of almost a power of two",
	  { DEVICE(F(ZONED)), ZONES(524287, 512, 0, 0, 0) },
	  REFUSED("zones of 524287 sectors") },
	{ "zones of just above a power of two",
	  { DEVICE(F(ZONED)), ZONES(524289, 512, 0, 0, 0) },
	  REFUSED("zones of 524289 sectors") },
	{ "zones of all ones",
	  { DEVICE(F(ZONED)), ZONES(U32_MAX, 512, 0, 0, 0) },
	  REFUSED("zones of 4294967295 sectors") },
	{ "largest zones",
	  { DEVICE(F(ZONED)), ZONES(BIT(31), 512, 256, 0, 0) },
	  WANT(L(chunk_sectors, BIT(31)), L(max_zone_append_sectors, 256)) },
	{ "zones of less than a block",
	  { DEVICE(F(ZONED) | F(BLK_SIZE)), .blk_size = 4096,
	    ZONES(4, 512, 0, 0, 0) },
	  REFUSED("zones of 4 sectors") },
	{ "zones of a block",
	  { DEVICE(F(ZONED) | F(BLK_SIZE)), .blk_size = 4096,
	    ZONES(8, 4096, 8, 0, 0) },
	  WANT(L(chunk_sectors, 8), L(max_zone_append_sectors, 8)) },
	{ "zones of less than a physical block",
	  { DEVICE(F(ZONED) | F(TOPOLOGY)), TOPOLOGY(3, 0, 0, 0),
	    ZONES(4, 512, 0, 0, 0) },
	  REFUSED("zones of 4 sectors") },
	{ "granularity 0", { DEVICE(F(ZONED)), ZONES(524288, 0, 8, 0, 0) },
	  REFUSED("write granularity of 0 bytes") },
	{ "granularity 1", { DEVICE(F(ZONED)), ZONES(524288, 1, 8, 0, 0) },
	  REFUSED("write granularity of 1 bytes") },
	{ "granularity 256", { DEVICE(F(ZONED)), ZONES(524288, 256, 8, 0, 0) },
	  REFUSED("write granularity of 256 bytes") },
	{ "granularity 513", { DEVICE(F(ZONED)), ZONES(524288, 513, 8, 0, 0) },
	  REFUSED("write granularity of 513 bytes") },
	{ "granularity 6144",
	  { DEVICE(F(ZONED)), ZONES(524288, 6144, 8, 0, 0) },
	  REFUSED("write granularity of 6144 bytes") },
	{ "granularity of all ones",
	  { DEVICE(F(ZONED)), ZONES(524288, U32_MAX, 8, 0, 0) },
	  REFUSED("write granularity of 4294967295 bytes") },
	{ "granularity above a zone",
	  { DEVICE(F(ZONED)), ZONES(8, 8192, 8, 0, 0) },
	  REFUSED("write granularity of 8192 bytes") },
	{ "granularity of a zone",
	  { DEVICE(F(ZONED)), ZONES(8, 4096, 8, 0, 0) },
	  WANT(L(zone_write_granularity, 4096), L(chunk_sectors, 8)) },
	{ "granularity below a block",
	  { DEVICE(F(ZONED) | F(BLK_SIZE)), .blk_size = 4096,
	    ZONES(524288, 512, 8, 0, 0) },
	  WANT(L(zone_write_granularity, 4096),
	       L(max_zone_append_sectors, 8)) },
	{ "append 0", { DEVICE(F(ZONED)), ZONES(524288, 4096, 0, 0, 0) },
	  WANT(L(max_hw_zone_append_sectors, 0),
	       L(max_zone_append_sectors, 524288)) },
	{ "append 0, largest zones",
	  { DEVICE(F(ZONED)), ZONES(BIT(31), 4096, 0, 0, 0) },
	  WANT(L(max_hw_zone_append_sectors, 0),
	       L(max_zone_append_sectors, MAX_SECTORS_4K)) },
	{ "append of less than the granularity",
	  { DEVICE(F(ZONED)), ZONES(524288, 4096, 7, 0, 0) },
	  LOGS("no zone append: max_append_sectors is 7,"),
	  WANT(L(max_hw_zone_append_sectors, 0)) },
	{ "append of less than a block",
	  { DEVICE(F(ZONED) | F(BLK_SIZE)), .blk_size = 4096,
	    ZONES(524288, 512, 1, 0, 0) },
	  LOGS("no zone append: max_append_sectors is 1,"),
	  WANT(L(max_hw_zone_append_sectors, 0)) },
	{ "append of the granularity",
	  { DEVICE(F(ZONED)), ZONES(524288, 4096, 8, 0, 0) },
	  WANT(L(max_hw_zone_append_sectors, 8)) },
	{ "append of not whole granules",
	  { DEVICE(F(ZONED)), ZONES(524288, 4096, 15, 0, 0) },
	  WANT(L(max_hw_zone_append_sectors, 8)) },
	{ "append of a zone",
	  { DEVICE(F(ZONED)), ZONES(2048, 4096, 2048, 0, 0) },
	  WANT(L(max_hw_zone_append_sectors, 2048)) },
	{ "append of more than a zone",
	  { DEVICE(F(ZONED)), ZONES(2048, 4096, 2049, 0, 0) },
	  WANT(L(max_hw_zone_append_sectors, 2048)) },
	{ "append of all ones",
	  { DEVICE(F(ZONED)), ZONES(524288, 4096, U32_MAX, 0, 0) },
	  WANT(L(max_hw_zone_append_sectors, 524288)) },
	{ "append of all ones, zones of 4 GiB",
	  { DEVICE(F(ZONED)), ZONES(MAX_SECTORS + 1, 4096, U32_MAX, 0, 0) },
	  WANT(L(max_hw_zone_append_sectors, MAX_SECTORS_4K),
	       L(max_zone_append_sectors, MAX_SECTORS_4K)) },
	{ "more open than active",
	  { DEVICE(F(ZONED)), ZONES(524288, 4096, 8, 10, 5) },
	  LOGS("max_open_zones is 10, more than max_active_zones, which is 5"),
	  WANT(L(max_open_zones, 5), L(max_active_zones, 5)) },
	{ "as many open as active",
	  { DEVICE(F(ZONED)), ZONES(524288, 4096, 8, 5, 5) },
	  WANT(L(max_open_zones, 5), L(max_active_zones, 5)) },
	{ "some open, all active",
	  { DEVICE(F(ZONED)), ZONES(524288, 4096, 8, 5, 0) },
	  WANT(L(max_open_zones, 5), L(max_active_zones, 0)) },
	{ "all open, some active",
	  { DEVICE(F(ZONED)), ZONES(524288, 4096, 8, 0, 5) },
	  WANT(L(max_open_zones, 0), L(max_active_zones, 5)) },
	{ "all ones open and active",
	  { DEVICE(F(ZONED)), ZONES(524288, 4096, 8, U32_MAX, U32_MAX) },
	  LOGS("max_active_zones is 4294967295, using 4096"),
	  WANT(L(max_open_zones, 4096), L(max_active_zones, 4096)) },
	{ "all ones open, any number active",
	  { DEVICE(F(ZONED)), ZONES(524288, 4096, 8, U32_MAX, 0) },
	  LOGS("max_open_zones is 4294967295, using 4096"),
	  WANT(L(max_open_zones, 4096), L(max_active_zones, 0)) },
	{ "as many open and active as are believed",
	  { DEVICE(F(ZONED)), ZONES(524288, 4096, 8, 4096, 4096) },
	  WANT(L(max_open_zones, 4096), L(max_active_zones, 4096)) },
	{ "all ones open, one active",
	  { DEVICE(F(ZONED)), ZONES(524288, 4096, 8, U32_MAX, 1) },
	  LOGS("max_open_zones is 4294967295"),
	  WANT(L(max_open_zones, 1), L(max_active_zones, 1)) },
	{ "zones and write zeroes of absurd sizes, ring too small",
	  { F(ZONED) | F(WRITE_ZEROES), .max_chain = 1,
	    .max_dma_size = SIZE_MAX, ZONES(3, 3, 3, 3, 3) },
	  REFUSED("a ring of 1 has no room") },
};

KUNIT_ARRAY_PARAM_DESC(virtblk_case, virtblk_cases, name);

static blk_status_t virtblk_test_queue_rq(struct blk_mq_hw_ctx *hctx,
					  const struct blk_mq_queue_data *bd)
{
	return BLK_STS_IOERR;
}

static const struct blk_mq_ops virtblk_test_ops = {
	.queue_rq	= virtblk_test_queue_rq,
};

/* Called for each line of the log; only the test logs with this device's name. */
static void virtblk_test_capture(void *data, const char *text, size_t len)
{
	size_t used = strlen(virtblk_logged.text);

	if (!strnstr(text, VIRTBLK_TEST_DEVICE ": ", len))
		return;
	virtblk_logged.lines++;
	strscpy(virtblk_logged.text + used, text,
		min(len + 1, sizeof(virtblk_logged.text) - used));
}

static void virtblk_test_clear_log(void)
{
	virtblk_logged.lines = 0;
	virtblk_logged.text[0] = '\0';
}

/*
 * Returns 0 or an error: of virtblk_check_config() if @refused is set, of the block
 * layer otherwise.
 */
static int virtblk_test_make_disk(const struct virtblk_raw_config *raw,
				  bool *refused)
{
	struct virtblk_outcome *got = &virtblk_got;
	struct virtblk_config config;
	struct gendisk *disk;
	int err;

	virtblk_test_clear_log();
	/* virtblk_check_config() must overwrite all of it. */
	memset(&config, 0xff, sizeof(config));
	err = virtblk_check_config(virtblk_test_device, raw, &config);
	*refused = err;
	if (err)
		return err;

	disk = blk_mq_alloc_disk(&virtblk_test_set, &config.lim, NULL);
	if (IS_ERR(disk))
		return PTR_ERR(disk);
	got->lim = disk->queue->limits;
	put_disk(disk);

	got->geometry = config.geometry;
	got->capacity = config.capacity;
	got->may_unmap = config.write_zeroes_may_unmap;
	got->cache = !!(got->lim.features & BLK_FEAT_WRITE_CACHE);
	got->zoned = !!(got->lim.features & BLK_FEAT_ZONED);
	return 0;
}

/*
 * Rules that limits must keep for any device.  Each set of rules is a function that
 * returns NULL or the first broken rule.
 */
#define RULE(condition)	((condition) ? NULL : #condition)

static const char *virtblk_first_broken(const char *const *rules,
					unsigned int nr)
{
	unsigned int i;

	for (i = 0; i < nr; i++) {
		if (rules[i])
			return rules[i];
	}
	return NULL;
}

/* A device limit of 0 means no limit. */
static bool virtblk_within(u64 limit, u64 device_limit)
{
	return !device_limit || limit <= device_limit;
}

static const char *virtblk_check_blocks(const struct virtblk_raw_config *raw,
					const struct queue_limits *lim)
{
	u32 device_block = raw->features & F(BLK_SIZE) ? raw->blk_size :
							  SECTOR_SIZE;
	u32 block = lim->logical_block_size;
	const char *const rules[] = {
		RULE(block == device_block),
		RULE(is_power_of_2(lim->physical_block_size)),
		RULE(lim->physical_block_size >= block),
		RULE(lim->alignment_offset < lim->physical_block_size),
		RULE(lim->alignment_offset % block == 0),
		RULE(lim->io_min >= lim->physical_block_size),
		RULE(lim->io_min % lim->physical_block_size == 0),
		RULE(lim->io_opt % lim->io_min == 0),
		RULE(lim->io_opt <= SZ_64M),
		RULE(virtblk_within(lim->io_opt,
				    (u64)raw->opt_io_size * block)),
		RULE(raw->features & F(TOPOLOGY) ||
		     (lim->physical_block_size == block &&
		      !lim->alignment_offset && lim->io_min == block &&
		      !lim->io_opt)),
	};

	return virtblk_first_broken(rules, ARRAY_SIZE(rules));
}

static const char *virtblk_check_request(const struct virtblk_raw_config *raw,
					 const struct queue_limits *lim)
{
	u32 block = lim->logical_block_size;
	u32 segments = raw->features & F(SEG_MAX) ? max(raw->seg_max, 1U) : 1;
	u32 size = raw->features & F(SIZE_MAX) ? raw->size_max : 0;
	const char *const rules[] = {
		RULE(lim->max_segments >= 1),
		RULE(lim->max_segments <= segments),
		RULE(lim->max_segments <= raw->max_chain - 2),
		RULE(lim->max_segment_size >= PAGE_SIZE),
		RULE(lim->max_segment_size % block == 0),
		RULE(lim->max_segment_size <= raw->max_dma_size),
		RULE(virtblk_within(lim->max_segment_size, size)),
		RULE(lim->max_sectors >= PAGE_SECTORS),
		RULE(lim->max_sectors <= MAX_SECTORS),
		RULE(lim->max_sectors % (block >> SECTOR_SHIFT) == 0),
		RULE(lim->max_sectors <= lim->max_hw_sectors),
	};

	return virtblk_first_broken(rules, ARRAY_SIZE(rules));
}

/* The block layer splits at multiples of the granularity, so one must fit. */
static const char *virtblk_check_discards(const struct virtblk_raw_config *raw,
					  const struct queue_limits *lim)
{
	u32 block = lim->logical_block_size >> SECTOR_SHIFT;
	u32 granularity = lim->discard_granularity >> SECTOR_SHIFT;
	const char *const rules[] = {
		RULE(raw->features & F(DISCARD) || !lim->max_discard_sectors),
		RULE(virtblk_within(lim->max_discard_sectors,
				    raw->max_discard_sectors)),
		RULE(lim->max_discard_sectors <= MAX_SECTORS),
		RULE(lim->max_discard_sectors % block == 0),
		RULE(lim->max_discard_segments >= 1),
		RULE(lim->max_discard_segments <= 256),
		RULE(lim->max_discard_segments <= max(raw->max_discard_seg, 1U)),
		RULE(granularity % block == 0),
		RULE(granularity <= lim->max_discard_sectors),
		RULE(!lim->max_discard_sectors ||
		     lim->discard_granularity >= lim->physical_block_size),

		RULE((raw->features & F(SECURE_ERASE) &&
		      raw->max_secure_erase_seg) ||
		     !lim->max_secure_erase_sectors),
		RULE(virtblk_within(lim->max_secure_erase_sectors,
				    raw->max_secure_erase_sectors)),
		RULE(lim->max_secure_erase_sectors <= MAX_SECTORS),
		RULE(lim->max_secure_erase_sectors % block == 0),
		RULE(!lim->max_secure_erase_sectors ||
		     granularity <= lim->max_secure_erase_sectors),
	};

	return virtblk_first_broken(rules, ARRAY_SIZE(rules));
}

static const char *virtblk_check_zeroes(const struct virtblk_raw_config *raw,
					const struct virtblk_outcome *got)
{
	const struct queue_limits *lim = &got->lim;
	u32 block = lim->logical_block_size >> SECTOR_SHIFT;
	const char *const rules[] = {
		RULE((raw->features & F(WRITE_ZEROES) &&
		      raw->max_write_zeroes_seg) ||
		     !lim->max_write_zeroes_sectors),
		RULE(virtblk_within(lim->max_write_zeroes_sectors,
				    raw->max_write_zeroes_sectors)),
		RULE(lim->max_write_zeroes_sectors <= MAX_SECTORS),
		RULE(lim->max_write_zeroes_sectors % block == 0),
		RULE(lim->max_wzeroes_unmap_sectors ==
		     (got->may_unmap ? lim->max_write_zeroes_sectors : 0)),
		RULE(got->may_unmap == (lim->max_write_zeroes_sectors &&
					raw->write_zeroes_may_unmap)),
	};

	return virtblk_first_broken(rules, ARRAY_SIZE(rules));
}

static const char *virtblk_check_no_zones(const struct queue_limits *lim)
{
	const char *const rules[] = {
		RULE(!lim->chunk_sectors && !lim->zone_write_granularity),
		RULE(!lim->max_open_zones && !lim->max_active_zones),
		RULE(!lim->max_zone_append_sectors),
	};

	return virtblk_first_broken(rules, ARRAY_SIZE(rules));
}

static const char *virtblk_check_zones(const struct virtblk_raw_config *raw,
				       const struct queue_limits *lim)
{
	u32 granularity = lim->zone_write_granularity >> SECTOR_SHIFT;
	u32 append = lim->max_zone_append_sectors;
	const char *const rules[] = {
		RULE(lim->chunk_sectors == raw->zone_sectors),
		RULE(is_power_of_2(lim->chunk_sectors)),
		RULE(lim->chunk_sectors >=
		     lim->physical_block_size >> SECTOR_SHIFT),
		RULE(is_power_of_2(lim->zone_write_granularity)),
		RULE(lim->zone_write_granularity >= lim->logical_block_size),
		RULE(lim->zone_write_granularity >= raw->write_granularity),
		RULE(granularity <= lim->chunk_sectors),
		RULE(lim->max_hw_zone_append_sectors <= raw->max_append_sectors),
		RULE(!lim->max_hw_zone_append_sectors ||
		     append == lim->max_hw_zone_append_sectors),
		RULE(append >= granularity),
		RULE(append <= lim->chunk_sectors),
		RULE(append <= MAX_SECTORS),
		RULE(!(append & (granularity - 1))),
		RULE(virtblk_within(lim->max_active_zones,
				    raw->max_active_zones)),
		RULE(virtblk_within(lim->max_open_zones, raw->max_open_zones)),
		RULE(virtblk_within(lim->max_open_zones,
				    raw->max_active_zones)),
	};

	return virtblk_first_broken(rules, ARRAY_SIZE(rules));
}

static const char *virtblk_check_zoned(const struct virtblk_raw_config *raw,
				       const struct virtblk_outcome *got)
{
	bool zoned = raw->features & F(ZONED) &&
		     raw->zone_model == VIRTIO_BLK_Z_HM;

	if (got->zoned != zoned)
		return RULE(got->zoned == zoned);
	return zoned ? virtblk_check_zones(raw, &got->lim) :
		       virtblk_check_no_zones(&got->lim);
}

static const char *virtblk_check_capacity(const struct virtblk_raw_config *raw,
					  const struct virtblk_outcome *got)
{
	u32 block = got->lim.logical_block_size >> SECTOR_SHIFT;
	const char *const rules[] = {
		RULE(!(got->capacity & (block - 1))),
		RULE(got->capacity <= raw->capacity),
		RULE(got->capacity <= LLONG_MAX >> SECTOR_SHIFT),
		RULE(raw->capacity > LLONG_MAX >> SECTOR_SHIFT ||
		     raw->capacity - got->capacity < block),
		RULE(!got->geometry.cylinders == !got->geometry.heads),
		RULE(!got->geometry.cylinders == !got->geometry.sectors),
	};

	return virtblk_first_broken(rules, ARRAY_SIZE(rules));
}

static const char *virtblk_check_cache(const struct virtblk_raw_config *raw,
				       const struct virtblk_outcome *got)
{
	bool cache = raw->features & F(CONFIG_WCE) ? raw->writeback :
						     raw->features & F(FLUSH);

	return RULE(got->cache == cache);
}

static const char *virtblk_broken_rule(const struct virtblk_raw_config *raw)
{
	const struct virtblk_outcome *got = &virtblk_got;

	return virtblk_check_blocks(raw, &got->lim) ?:
	       virtblk_check_request(raw, &got->lim) ?:
	       virtblk_check_discards(raw, &got->lim) ?:
	       virtblk_check_zeroes(raw, got) ?:
	       virtblk_check_zoned(raw, got) ?:
	       virtblk_check_capacity(raw, got) ?:
	       virtblk_check_cache(raw, got);
}

static u64 virtblk_read_value(const struct virtblk_value *value)
{
	switch (value->size) {
	case sizeof(u8):
		return *(const u8 *)value->at;
	case sizeof(u16):
		return *(const u16 *)value->at;
	case sizeof(u32):
		return *(const u32 *)value->at;
	default:
		return *(const u64 *)value->at;
	}
}

static void virtblk_test_check_log(struct kunit *test,
				   const struct virtblk_case *row)
{
	KUNIT_EXPECT_EQ_MSG(test, virtblk_logged.lines,
			    row->message ? row->extra_lines + 1 : 0,
			    "the log has: %s", virtblk_logged.text);
	if (row->message)
		KUNIT_EXPECT_NOT_NULL_MSG(test,
					  strstr(virtblk_logged.text,
						 row->message),
					  "message missing; the log has: %s",
					  virtblk_logged.text);
}

/* One row of the table. */
static void virtblk_test_case(struct kunit *test)
{
	const struct virtblk_case *row = test->param_value;
	const struct virtblk_value *want;
	unsigned int i;
	bool refused;
	int err;

	err = virtblk_test_make_disk(&row->raw, &refused);
	virtblk_test_check_log(test, row);
	KUNIT_EXPECT_EQ(test, refused, row->refused);
	if (refused) {
		KUNIT_EXPECT_EQ(test, err, -EINVAL);
		virtblk_test_refusals++;
		return;
	}

	KUNIT_ASSERT_EQ(test, err, 0);
	KUNIT_EXPECT_STREQ(test, virtblk_broken_rule(&row->raw) ?: "", "");
	for (i = 0; i < ARRAY_SIZE(row->want) && row->want[i].name; i++) {
		want = &row->want[i];
		KUNIT_EXPECT_EQ_MSG(test, virtblk_read_value(want),
				    want->value, "%s", want->name);
	}
	KUNIT_EXPECT_FALSE(test, test_taint(TAINT_WARN));
}

/* Report the number of rows; test_kunit.py reads it. */
static void virtblk_test_count(struct kunit *test)
{
	kunit_info(test, "%zu rows, %u refused", ARRAY_SIZE(virtblk_cases),
		   virtblk_test_refusals);
	KUNIT_EXPECT_GT(test, virtblk_test_refusals, 0);
}

/* A value that an absurd device may have: near a power of two, or any other. */
static u32 virtblk_random_value(struct rnd_state *rnd)
{
	u32 any = prandom_u32_state(rnd), bit = prandom_u32_state(rnd) % 32;

	switch (prandom_u32_state(rnd) % 8) {
	case 0:
		return 0;
	case 1:
		return U32_MAX >> bit;
	case 2:
		return BIT(bit) + 1;
	case 3:
		return any >> bit;
	default:
		return BIT(bit);
	}
}

/* A value of at least @least in seven of eight cases, any value in the eighth. */
static u32 virtblk_random_above(struct rnd_state *rnd, u32 least)
{
	u32 value = virtblk_random_value(rnd);

	return prandom_u32_state(rnd) % 8 ? max(value, least) : value;
}

/* @least times a power of two in seven of eight cases, any value in the eighth. */
static u32 virtblk_random_power(struct rnd_state *rnd, u32 least,
				unsigned int powers)
{
	u32 value = least << prandom_u32_state(rnd) % powers;

	return prandom_u32_state(rnd) % 8 ? value : virtblk_random_value(rnd);
}

static void virtblk_random_raw(struct rnd_state *rnd,
			       struct virtblk_raw_config *raw)
{
	memset(raw, 0, sizeof(*raw));
	raw->features = prandom_u32_state(rnd);
	raw->max_chain = virtblk_random_above(rnd, 3);
	raw->max_dma_size = prandom_u32_state(rnd) % 2 ? SIZE_MAX :
			    virtblk_random_above(rnd, PAGE_SIZE);
	/* Of whole blocks in seven of eight cases. */
	raw->capacity = (u64)virtblk_random_value(rnd) <<
			prandom_u32_state(rnd) % 40;
	if (prandom_u32_state(rnd) % 8)
		raw->capacity = round_down(raw->capacity, SZ_64K);
	raw->size_max = virtblk_random_above(rnd, PAGE_SIZE);
	raw->seg_max = virtblk_random_value(rnd);
	raw->cylinders = virtblk_random_value(rnd);
	raw->heads = virtblk_random_value(rnd) |
		     !!(prandom_u32_state(rnd) % 8);
	raw->sectors = virtblk_random_value(rnd) |
		       !!(prandom_u32_state(rnd) % 8);
	raw->blk_size = virtblk_random_power(rnd, SECTOR_SIZE,
					     ilog2(BLK_MAX_BLOCK_SIZE) - 8);
	raw->physical_block_exp = prandom_u32_state(rnd) % 4;
	if (!(prandom_u32_state(rnd) % 4))
		raw->physical_block_exp = virtblk_random_value(rnd);
	raw->alignment_offset = virtblk_random_value(rnd);
	raw->min_io_size = virtblk_random_power(rnd, 1, 16);
	raw->opt_io_size = virtblk_random_power(rnd, raw->min_io_size, 4);
	raw->writeback = prandom_u32_state(rnd) % 3;
	raw->max_discard_sectors = virtblk_random_value(rnd);
	raw->max_discard_seg = virtblk_random_value(rnd);
	raw->discard_sector_alignment = virtblk_random_value(rnd);
	raw->max_write_zeroes_sectors = virtblk_random_value(rnd);
	raw->max_write_zeroes_seg = virtblk_random_value(rnd);
	raw->write_zeroes_may_unmap = virtblk_random_value(rnd);
	raw->max_secure_erase_sectors = virtblk_random_value(rnd);
	raw->max_secure_erase_seg = virtblk_random_value(rnd);
	raw->secure_erase_sector_alignment = virtblk_random_value(rnd);
	raw->zone_model = prandom_u32_state(rnd) % 4;
	raw->zone_sectors = virtblk_random_power(rnd, 1, 32);
	raw->write_granularity = virtblk_random_power(rnd, SECTOR_SIZE, 8);
	raw->max_open_zones = virtblk_random_value(rnd);
	raw->max_active_zones = virtblk_random_value(rnd);
	raw->max_append_sectors = virtblk_random_value(rnd);
}

/* Returns NULL, or what is wrong with the result. */
static const char *virtblk_test_raw(const struct virtblk_raw_config *raw,
				    bool *refused)
{
	const char *broken;
	int err;

	err = virtblk_test_make_disk(raw, refused);
	if (*refused)
		return RULE(err == -EINVAL) ?: RULE(virtblk_logged.lines);
	if (err)
		return "the block layer refuses the limits";
	broken = virtblk_broken_rule(raw);
	return broken ?: RULE(!test_taint(TAINT_WARN));
}

/* Many devices with absurd combinations of values, the same in each run. */
static void virtblk_test_random(struct kunit *test)
{
	unsigned int i, refusals = 0;
	struct virtblk_raw_config raw;
	struct rnd_state rnd;
	const char *wrong;
	bool refused;

	prandom_seed_state(&rnd, 20260401);
	for (i = 0; i < VIRTBLK_TEST_RANDOM; i++) {
		virtblk_random_raw(&rnd, &raw);
		wrong = virtblk_test_raw(&raw, &refused);
		refusals += refused;
		if (!wrong)
			continue;
		KUNIT_FAIL(test, "device %u: %s; the log has: %s", i, wrong,
			   virtblk_logged.text);
		print_hex_dump(KERN_ERR, "raw config: ", DUMP_PREFIX_OFFSET,
			       16, 4, &raw, sizeof(raw), false);
		return;
	}

	kunit_info(test, "%u random devices, %u refused", i, refusals);
	/* Neither refused nor accepted devices may be rare. */
	KUNIT_EXPECT_GT(test, refusals, i / 10);
	KUNIT_EXPECT_GT(test, i - refusals, i / 10);
}

/* The limits of which virtblk_test_shrunk() changes one. */
static struct virtblk_config virtblk_changing;

/**
 * struct virtblk_change - a limit that differs after a reset
 * @name: its name
 * @at: its address in virtblk_changing
 * @size: its size in bytes
 * @less: return value of virtblk_config_shrunk() if the limit has decreased
 * @more: return value if it has increased
 */
struct virtblk_change {
	const char *name;
	void *at;
	size_t size;
	const char *less;
	const char *more;
};

#define LIMIT(at, less, more)	{ #at, &(at), sizeof(at), (less), (more) }
#define CHANGE(field, less, more) LIMIT(virtblk_changing.field, less, more)

static const struct virtblk_change virtblk_changes[] = {
	CHANGE(lim.logical_block_size, "block size", "block size"),
	CHANGE(lim.max_segments, "number of segments", NULL),
	CHANGE(lim.max_segment_size, "segment size", NULL),
	CHANGE(lim.max_hw_discard_sectors, "discard limit", NULL),
	CHANGE(lim.max_discard_segments, "discard limit", NULL),
	CHANGE(lim.max_secure_erase_sectors, "secure erase limit", NULL),
	CHANGE(lim.max_write_zeroes_sectors, "write zeroes limit", NULL),
	CHANGE(lim.chunk_sectors, "zones", "zones"),
	CHANGE(lim.zone_write_granularity, "zones", "zones"),
	CHANGE(lim.max_hw_zone_append_sectors, "zones", NULL),
	CHANGE(lim.max_open_zones, "zones", NULL),
	CHANGE(lim.max_active_zones, "zones", NULL),
	/* No waiting request depends on these. */
	CHANGE(write_zeroes_may_unmap, NULL, NULL),
	CHANGE(lim.physical_block_size, NULL, NULL),
	CHANGE(lim.alignment_offset, NULL, NULL),
	CHANGE(lim.io_min, NULL, NULL),
	CHANGE(lim.io_opt, NULL, NULL),
	CHANGE(lim.discard_granularity, NULL, NULL),
	CHANGE(geometry.cylinders, NULL, NULL),
	CHANGE(geometry.heads, NULL, NULL),
	CHANGE(geometry.sectors, NULL, NULL),
};

KUNIT_ARRAY_PARAM_DESC(virtblk_change, virtblk_changes, name);

static void virtblk_set_limit(const struct virtblk_change *change, u32 value)
{
	switch (change->size) {
	case sizeof(u8):
		*(u8 *)change->at = value;
		break;
	case sizeof(u16):
		*(u16 *)change->at = value;
		break;
	case sizeof(u32):
		*(u32 *)change->at = value;
		break;
	default:
		/* geometry.cylinders */
		*(unsigned long *)change->at = value;
	}
}

/* One row of virtblk_changes: the limit decreases, stays equal, increases. */
static void virtblk_test_shrunk(struct kunit *test)
{
	const struct virtblk_change *change = test->param_value;
	struct virtblk_config low, high;
	unsigned int i;

	/* Start with 1, because for some limits 0 means no limit. */
	for (i = 0; i < ARRAY_SIZE(virtblk_changes); i++)
		virtblk_set_limit(&virtblk_changes[i], 1);
	virtblk_changing.write_zeroes_may_unmap = false;
	low = virtblk_changing;
	if (change->at == &virtblk_changing.write_zeroes_may_unmap)
		virtblk_changing.write_zeroes_may_unmap = true;
	else
		virtblk_set_limit(change, 2);
	high = virtblk_changing;

	KUNIT_EXPECT_STREQ(test, virtblk_config_shrunk(&high, &low) ?: "",
			   change->less ?: "");
	KUNIT_EXPECT_STREQ(test, virtblk_config_shrunk(&low, &high) ?: "",
			   change->more ?: "");
	KUNIT_EXPECT_NULL(test, virtblk_config_shrunk(&low, &low));
	KUNIT_EXPECT_NULL(test, virtblk_config_shrunk(&high, &high));
}

/* For open and active zones, 0 means no limit. */
static void virtblk_test_shrunk_zones(struct kunit *test)
{
	struct virtblk_config all = {}, open = {}, active = {}, zoned = {};

	open.lim.max_open_zones = U32_MAX;
	active.lim.max_active_zones = U32_MAX;
	zoned.lim.features = BLK_FEAT_ZONED;

	KUNIT_EXPECT_STREQ(test, virtblk_config_shrunk(&all, &open) ?: "",
			   "zones");
	KUNIT_EXPECT_STREQ(test, virtblk_config_shrunk(&all, &active) ?: "",
			   "zones");
	KUNIT_EXPECT_NULL(test, virtblk_config_shrunk(&open, &all));
	KUNIT_EXPECT_NULL(test, virtblk_config_shrunk(&active, &all));
	KUNIT_EXPECT_STREQ(test, virtblk_config_shrunk(&all, &zoned) ?: "",
			   "zones");
	KUNIT_EXPECT_STREQ(test, virtblk_config_shrunk(&zoned, &all) ?: "",
			   "zones");
}

/* virtblk_restore_writeback() handles changes of the write cache. */
static void virtblk_test_shrunk_cache(struct kunit *test)
{
	struct virtblk_config with = {}, without = {};

	with.lim.features = BLK_FEAT_WRITE_CACHE;
	KUNIT_EXPECT_NULL(test, virtblk_config_shrunk(&with, &without));
	KUNIT_EXPECT_NULL(test, virtblk_config_shrunk(&without, &with));
}

static int virtblk_test_begin(struct kunit_suite *suite)
{
	int err;

	virtblk_test_refusals = 0;
	virtblk_test_device = root_device_register(VIRTBLK_TEST_DEVICE);
	if (IS_ERR(virtblk_test_device))
		return PTR_ERR(virtblk_test_device);

	err = blk_mq_alloc_sq_tag_set(&virtblk_test_set, &virtblk_test_ops, 2,
				      0);
	if (err)
		goto out_unregister;
	err = register_trace_console(virtblk_test_capture, NULL);
	if (err)
		goto out_free_tag_set;
	return 0;

out_free_tag_set:
	blk_mq_free_tag_set(&virtblk_test_set);
out_unregister:
	root_device_unregister(virtblk_test_device);
	return err;
}

static void virtblk_test_end(struct kunit_suite *suite)
{
	unregister_trace_console(virtblk_test_capture, NULL);
	tracepoint_synchronize_unregister();
	blk_mq_free_tag_set(&virtblk_test_set);
	root_device_unregister(virtblk_test_device);
}

static struct kunit_case virtblk_test_cases[] = {
	KUNIT_CASE_PARAM(virtblk_test_case, virtblk_case_gen_params),
	KUNIT_CASE(virtblk_test_count),
	KUNIT_CASE_SLOW(virtblk_test_random),
	KUNIT_CASE_PARAM(virtblk_test_shrunk, virtblk_change_gen_params),
	KUNIT_CASE(virtblk_test_shrunk_zones),
	KUNIT_CASE(virtblk_test_shrunk_cache),
	{}
};

static struct kunit_suite virtblk_test_suite = {
	.name		= "virtio_blk_config",
	.suite_init	= virtblk_test_begin,
	.suite_exit	= virtblk_test_end,
	.test_cases	= virtblk_test_cases,
};

kunit_test_suite(virtblk_test_suite);
