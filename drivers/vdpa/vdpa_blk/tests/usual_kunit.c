// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit test for request.c: the usual chain, and chains that differ from it in one value.
 *
 * vdpa_blk_handle_chain() must do the same with each of them as vdpa_blk_handle_any(), on a
 * disk of the test's own.  The test compares what the driver, the disk and the counters
 * show.  It also checks which of them take the short path.
 *
 * The test runs when somebody writes to /sys/kernel/debug/kunit/vdpa_blk_usual/run.
 */

#include <kunit/test.h>
#include <linux/blkdev.h>
#include <linux/sizes.h>
#include <linux/slab.h>

#include "ring_driver.h"
#include "../complete.h"
#include "../request.h"

#define CAPACITY	1024
#define ENTRIES		8
#define REQUESTS	2
#define BIOS		2
/* What vdpa_blk_handle_any() overwrites, and the short path does not. */
#define POISON		0xabcd

/* Addresses as the driver has them, if it shares its memory in extents. */
#define TABLES_AT	SZ_1M
#define DATA_AT		SZ_2M
#define DATA_END	(SZ_2M + SZ_8K)
#define READ_ONLY_AT	(SZ_2M + SZ_1M)
#define NOTHING_AT	SZ_8M

/**
 * struct usual_test_extent - an extent, and the part of struct vdpa_blk_test.memory in it
 * @first: its first address
 * @part: where the part begins
 * @bytes: its length
 * @writable: the device may write to it
 */
struct usual_test_extent {
	u64 first;
	u32 part;
	u32 bytes;
	bool writable;
};

/* The first is the ring.  Those of the data meet for the driver, but not in memory. */
static const struct usual_test_extent usual_test_extents[] = {
	{ 0, 0, SZ_32K, true },
	{ TABLES_AT, SZ_32K, SZ_8K, true },
	{ DATA_AT, SZ_32K + SZ_8K, SZ_8K, true },
	{ DATA_END, SZ_32K + SZ_8K + SZ_16K, SZ_8K, true },
	{ READ_ONLY_AT, SZ_32K, SZ_16K, false },
};

/* What a row changes. */
enum usual_test_value {
	NOTHING,
	/* The descriptor in the ring. */
	HEAD, RING_FLAGS, TABLE_ADDR, TABLE_LEN,
	/* The table. */
	HEADER_ADDR, HEADER_LEN, HEADER_FLAGS, HEADER_NEXT,
	DATA_ADDR, DATA_LEN, DATA_FLAGS, DATA_NEXT,
	STATUS_ADDR, STATUS_LEN, STATUS_FLAGS, STATUS_NEXT,
	/* The header. */
	TYPE, SECTOR,
	/* The device. */
	FEATURES, ALIGN_MASK, BLOCK_MASK, READONLY, WRITEBACK, MUST_COPY, FREE, RETURNED,
	NR_VALUES,
};

enum usual_test_path {
	ANY,
	SHORT_READ,
	SHORT_WRITE,
	SHORT,
};

/**
 * struct usual_test_row - the usual chain, with one value changed
 * @name: what is special about it
 * @what: the value
 * @to: the value, after the change
 * @path: which of the read and the write take the short path
 * @in_extents: the address is one of an extent only
 */
struct usual_test_row {
	const char *name;
	enum usual_test_value what;
	u64 to;
	enum usual_test_path path;
	bool in_extents;
};

static const struct usual_test_row usual_test_rows[] = {
	{ "usual", NOTHING, 0, SHORT },

	{ "another head", HEAD, 0, SHORT },
	{ "head beyond the ring", HEAD, ENTRIES },
	{ "last head", HEAD, U16_MAX },
	{ "no table", RING_FLAGS, 0 },
	{ "table and more", RING_FLAGS, INDIRECT | NEXT },
	{ "table to write", RING_FLAGS, INDIRECT | WRITE_ONLY },
	{ "table, reserved flag", RING_FLAGS, INDIRECT | 8 },
	{ "table of 0 bytes", TABLE_LEN, 0 },
	{ "table of 32 bytes", TABLE_LEN, 32 },
	{ "table of 47 bytes", TABLE_LEN, 47 },
	{ "table of 49 bytes", TABLE_LEN, 49 },
	{ "table of 64 bytes", TABLE_LEN, 64 },
	{ "table of all bytes", TABLE_LEN, U32_MAX - 15 },
	{ "tables not accepted", FEATURES, 0 },

	{ "header of 0 bytes", HEADER_LEN, 0 },
	{ "header of 15 bytes", HEADER_LEN, 15 },
	{ "header of 17 bytes", HEADER_LEN, 17 },
	{ "header only", HEADER_FLAGS, 0 },
	{ "header to write", HEADER_FLAGS, NEXT | WRITE_ONLY },
	{ "header, table", HEADER_FLAGS, NEXT | INDIRECT },
	{ "header, reserved flag", HEADER_FLAGS, NEXT | 0x8000 },
	{ "header, next is itself", HEADER_NEXT, 0 },
	{ "header, next is status", HEADER_NEXT, 2 },
	{ "header, next is beyond", HEADER_NEXT, 3 },

	{ "data of 0 bytes", DATA_LEN, 0 },
	{ "data of 1 byte", DATA_LEN, 1 },
	{ "data of 511 bytes", DATA_LEN, 511 },
	{ "data of 512 bytes", DATA_LEN, 512, SHORT },
	{ "data of 4097 bytes", DATA_LEN, SZ_4K + 1 },
	{ "data of 8192 bytes", DATA_LEN, SZ_8K, SHORT },
	{ "data, address of 1", DATA_ADDR, DATA_AT + 1 },
	{ "data, address of 256", DATA_ADDR, DATA_AT + 256 },
	{ "data, address of 512", DATA_ADDR, DATA_AT + 512, SHORT },
	{ "data to read", DATA_FLAGS, NEXT, SHORT_WRITE },
	{ "data to write", DATA_FLAGS, NEXT | WRITE_ONLY, SHORT_READ },
	{ "data last", DATA_FLAGS, WRITE_ONLY },
	{ "data, table", DATA_FLAGS, NEXT | WRITE_ONLY | INDIRECT },
	{ "data, reserved flag", DATA_FLAGS, NEXT | WRITE_ONLY | 8 },
	{ "data, reserved flag, to read", DATA_FLAGS, NEXT | 8 },
	{ "data, next is header", DATA_NEXT, 0 },
	{ "data, next is itself", DATA_NEXT, 1 },
	{ "data, next is beyond", DATA_NEXT, U16_MAX },

	{ "status of 0 bytes", STATUS_LEN, 0 },
	{ "status of 2 bytes", STATUS_LEN, 2 },
	{ "status of 513 bytes", STATUS_LEN, 513 },
	{ "status to read", STATUS_FLAGS, 0 },
	{ "status and more", STATUS_FLAGS, NEXT | WRITE_ONLY },
	{ "status, table", STATUS_FLAGS, WRITE_ONLY | INDIRECT },
	{ "status, reserved flag", STATUS_FLAGS, WRITE_ONLY | 0x100 },
	{ "status, next has no meaning", STATUS_NEXT, 7, SHORT },

	{ "type IN", TYPE, VIRTIO_BLK_T_IN, SHORT_READ },
	{ "type OUT", TYPE, VIRTIO_BLK_T_OUT, SHORT_WRITE },
	{ "type FLUSH", TYPE, VIRTIO_BLK_T_FLUSH },
	{ "type GET_ID", TYPE, VIRTIO_BLK_T_GET_ID },
	{ "type DISCARD", TYPE, VIRTIO_BLK_T_DISCARD },
	{ "type ZONE_APPEND", TYPE, VIRTIO_BLK_T_ZONE_APPEND },
	{ "unknown type", TYPE, 2 },
	{ "type of all bits", TYPE, U32_MAX },
	{ "type with the highest bit", TYPE, BIT(31) },

	{ "first sector", SECTOR, 0, SHORT },
	{ "last sectors", SECTOR, CAPACITY - 8, SHORT },
	{ "one sector beyond", SECTOR, CAPACITY - 7 },
	{ "at the end", SECTOR, CAPACITY },
	{ "beyond the end", SECTOR, CAPACITY + 1 },
	{ "sector that wraps", SECTOR, U64_MAX - 7 },
	{ "last sector of all", SECTOR, U64_MAX },

	{ "blocks that fit", BLOCK_MASK, 7, SHORT },
	{ "blocks that do not fit", BLOCK_MASK, 15 },
	{ "alignment that fits", ALIGN_MASK, SZ_4K - 1, SHORT },
	{ "alignment that does not fit", ALIGN_MASK, SZ_8K - 1 },
	{ "device to read only", READONLY, true, SHORT_READ },
	{ "writes that must be durable", WRITEBACK, false, SHORT },
	{ "data that must be copied", MUST_COPY, true },
	{ "no free request", FREE, false },
	{ "returned requests only", RETURNED, true },

	{ "table not shared", TABLE_ADDR, NOTHING_AT, .in_extents = true },
	{ "table shared in part", TABLE_ADDR, TABLES_AT + SZ_8K - 32, .in_extents = true },
	{ "table to read", TABLE_ADDR, READ_ONLY_AT, SHORT, true },
	{ "header not shared", HEADER_ADDR, NOTHING_AT, .in_extents = true },
	{ "header shared in part", HEADER_ADDR, TABLES_AT - 8, .in_extents = true },
	{ "data not shared", DATA_ADDR, NOTHING_AT, .in_extents = true },
	{ "data of another extent", DATA_ADDR, DATA_END, SHORT, true },
	{ "data up to the next extent", DATA_ADDR, DATA_END - SZ_4K, SHORT, true },
	{ "data of two extents", DATA_ADDR, DATA_END - 512, ANY, true },
	{ "data shared in part", DATA_ADDR, DATA_END + SZ_8K - 512, .in_extents = true },
	{ "data to read only", DATA_ADDR, READ_ONLY_AT + SZ_8K, SHORT_WRITE, true },
	{ "data that wraps", DATA_ADDR, U64_MAX - 511, .in_extents = true },
	{ "status not shared", STATUS_ADDR, NOTHING_AT, .in_extents = true },
	{ "status to read only", STATUS_ADDR, READ_ONLY_AT + SZ_2K, .in_extents = true },
};

KUNIT_ARRAY_PARAM_DESC(usual_test_row, usual_test_rows, name);

/* A bio that the disk got; @place is in the test's memory, or 0 for a copy. */
struct usual_test_bio {
	u64 sector;
	u64 place;
	u32 bytes;
	u32 opf;
};

/**
 * struct usual_test_result - all that shows how a chain was served
 * @stats: counters of the worker
 * @used_stats: counters of completions
 * @bios: what the disk got
 * @nr_bios: how many
 * @err: what the function returned
 * @in_flight: of the queue
 * @id: of the used entry
 * @len: of the used entry
 * @used: whether there is one
 * @next_avail: of the ring
 * @left: of the ring
 * @status: the status byte
 */
struct usual_test_result {
	struct vdpa_blk_stats stats;
	struct vdpa_blk_used_stats used_stats;
	struct usual_test_bio bios[BIOS];
	u32 nr_bios;
	int err;
	int in_flight;
	u32 id;
	u32 len;
	u32 used;
	u16 next_avail;
	u16 left;
	u32 status;
};

/* The disk, and what it got since a chain was posted. */
static struct gendisk *usual_test_disk;
static struct usual_test_bio usual_test_bios[BIOS];
static unsigned int usual_test_nr_bios;
static u64 usual_test_memory;

static void usual_test_submit_bio(struct bio *bio)
{
	struct usual_test_bio *seen = &usual_test_bios[usual_test_nr_bios % BIOS];
	u64 phys;

	usual_test_nr_bios++;
	seen->sector = bio->bi_iter.bi_sector;
	seen->bytes = bio->bi_iter.bi_size;
	seen->opf = (__force u32)bio->bi_opf;
	seen->place = 0;
	if (seen->bytes) {
		phys = bvec_phys(&bio->bi_io_vec[0]);
		if (phys - usual_test_memory < SZ_64K)
			seen->place = phys - usual_test_memory;
	}
	bio_endio(bio);
}

static const struct block_device_operations usual_test_fops = {
	.owner		= THIS_MODULE,
	.submit_bio	= usual_test_submit_bio,
};

static int usual_test_add_disk(struct kunit_suite *suite)
{
	struct queue_limits lim = { .features = BLK_FEAT_WRITE_CACHE | BLK_FEAT_FUA };
	struct gendisk *disk = blk_alloc_disk(&lim, NUMA_NO_NODE);
	int err;

	if (IS_ERR(disk))
		return PTR_ERR(disk);
	strscpy(disk->disk_name, "vdpa-blk-kunit");
	disk->fops = &usual_test_fops;
	disk->flags |= GENHD_FL_NO_PART;
	set_capacity(disk, CAPACITY);
	err = add_disk(disk);
	if (err) {
		put_disk(disk);
		return err;
	}
	usual_test_disk = disk;
	return 0;
}

static void usual_test_del_disk(struct kunit_suite *suite)
{
	if (!usual_test_disk)
		return;
	del_gendisk(usual_test_disk);
	put_disk(usual_test_disk);
	usual_test_disk = NULL;
}

static int usual_test_init(struct kunit *test)
{
	int err = vdpa_blk_test_init(test);
	struct vdpa_blk_test *t = test->priv;

	if (err)
		return err;
	t->vb->bdev = usual_test_disk->part0;
	t->vb->end_io = vdpa_blk_end_bio;
	t->vb->vdpa.dev.init_name = "kunit";
	strscpy(t->vb->settings.serial, "usual");
	t->q->requests = kunit_kcalloc(test, REQUESTS, sizeof(*t->q->requests), GFP_KERNEL);
	if (!t->q->requests)
		return -ENOMEM;
	spin_lock_init(&t->q->lock);
	usual_test_memory = virt_to_phys(t->memory);
	return vdpa_blk_alloc_pools(t->vb);
}

static void usual_test_exit(struct kunit *test)
{
	struct vdpa_blk_test *t = test->priv;

	if (t && t->vb)
		vdpa_blk_free_pools(t->vb);
	vdpa_blk_test_exit(test);
}

/* The chain */

static u64 usual_test_phys(u64 addr)
{
	const struct usual_test_extent *extent = usual_test_extents;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(usual_test_extents); i++, extent++)
		if (addr - extent->first < extent->bytes)
			return usual_test_memory + extent->part + addr - extent->first;
	return 0;
}

/* Where the test can write to what the driver has at an address, if it shares it. */
static u8 *usual_test_virt(u64 addr)
{
	u64 phys = usual_test_phys(addr);

	return phys ? phys_to_virt(phys) : NULL;
}

static struct vdpa_blk_memory *usual_test_share(struct kunit *test)
{
	const struct usual_test_extent *extent = usual_test_extents;
	struct vdpa_blk_memory *memory;
	unsigned int i;

	memory = kunit_kzalloc(test, struct_size(memory, extents,
						 ARRAY_SIZE(usual_test_extents)), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, memory);
	memory->nr = ARRAY_SIZE(usual_test_extents);
	for (i = 0; i < memory->nr; i++, extent++)
		memory->extents[i] = (struct vdpa_blk_extent) {
			.first = extent->first,
			.last = extent->first + extent->bytes - 1,
			.offset = usual_test_memory + extent->part - extent->first,
			.writable = extent->writable,
		};
	return memory;
}

static void usual_test_set_values(u64 *values, const struct usual_test_row *row, bool read)
{
	memset(values, 0, NR_VALUES * sizeof(*values));
	values[HEAD] = ENTRIES - 1;
	values[RING_FLAGS] = INDIRECT;
	values[TABLE_ADDR] = TABLES_AT;
	values[TABLE_LEN] = 3 * DESC_BYTES;
	values[HEADER_ADDR] = TABLES_AT + SZ_1K;
	values[HEADER_LEN] = 16;
	values[HEADER_FLAGS] = NEXT;
	values[HEADER_NEXT] = 1;
	values[DATA_ADDR] = DATA_AT;
	values[DATA_LEN] = SZ_4K;
	values[DATA_FLAGS] = read ? NEXT | WRITE_ONLY : NEXT;
	values[DATA_NEXT] = 2;
	values[STATUS_ADDR] = TABLES_AT + SZ_2K;
	values[STATUS_LEN] = 1;
	values[STATUS_FLAGS] = WRITE_ONLY;
	values[TYPE] = read ? VIRTIO_BLK_T_IN : VIRTIO_BLK_T_OUT;
	values[SECTOR] = 8;
	values[FEATURES] = TABLES;
	values[ALIGN_MASK] = SECTOR_SIZE - 1;
	values[WRITEBACK] = true;
	values[FREE] = true;
	values[row->what] = row->to;
}

/* Set up the device, and post the chain.  @shared is whether there are extents. */
static void usual_test_post(struct kunit *test, const u64 *values, bool shared)
{
	struct vdpa_blk_test *t = test->priv;
	struct vdpa_blk_queue *q = t->q;
	struct vdpa_blk *vb = t->vb;
	struct vdpa_blk_request *rq;
	u64 addr[4];
	unsigned int i;
	u8 *at;

	vdpa_blk_test_prepare(t, ENTRIES, values[FEATURES], 0, false);
	if (shared) {
		q->desc_addr -= usual_test_memory;
		q->driver_addr -= usual_test_memory;
		q->device_addr -= usual_test_memory;
	}
	KUNIT_ASSERT_EQ(test, vdpa_blk_map_ring(q), 0);
	vb->align_mask = values[ALIGN_MASK];
	vb->sector_mask = values[BLOCK_MASK];
	vb->settings.readonly = values[READONLY];
	vb->writeback = values[WRITEBACK];
	q->must_copy = values[MUST_COPY];
	memset(&q->stats, 0, sizeof(q->stats));
	memset(&q->used_stats, 0, sizeof(q->used_stats));
	memset(q->requests, 0, REQUESTS * sizeof(*q->requests));
	q->free = NULL;
	q->returned = NULL;
	for (i = 0; i < REQUESTS; i++) {
		rq = &q->requests[i];
		rq->q = q;
		rq->vecs = rq->inline_vecs;
		rq->next = q->free;
		q->free = rq;
	}
	if (values[RETURNED])
		q->returned = q->free;
	if (values[RETURNED] || !values[FREE])
		q->free = NULL;
	q->done = NULL;
	q->done_end = &q->done;
	q->nr_done = 0;
	q->chain.descs = POISON;
	memset(usual_test_bios, 0, sizeof(usual_test_bios));
	usual_test_nr_bios = 0;

	for (i = 0; i < ARRAY_SIZE(addr); i++) {
		addr[i] = values[i == 0 ? TABLE_ADDR : i == 1 ? HEADER_ADDR :
				 i == 2 ? DATA_ADDR : STATUS_ADDR];
		if (!shared)
			addr[i] = usual_test_phys(addr[i]);
	}
	/* In the table where the device finds it. */
	at = usual_test_virt(values[TABLE_ADDR]);
	if (at) {
		vdpa_blk_test_put(at, 0, addr[1], values[HEADER_LEN], values[HEADER_FLAGS],
				  values[HEADER_NEXT]);
		vdpa_blk_test_put(at, 1, addr[2], values[DATA_LEN], values[DATA_FLAGS],
				  values[DATA_NEXT]);
		vdpa_blk_test_put(at, 2, addr[3], values[STATUS_LEN], values[STATUS_FLAGS],
				  values[STATUS_NEXT]);
	}
	at = usual_test_virt(values[HEADER_ADDR]);
	if (at) {
		put_unaligned_le32(values[TYPE], at);
		put_unaligned_le64(values[SECTOR], at + 8);
	}
	at = usual_test_virt(values[STATUS_ADDR]);
	if (at)
		*at = POISON & 0xff;
	if (values[HEAD] < ENTRIES)
		vdpa_blk_test_put(t->desc, values[HEAD], addr[0], values[TABLE_LEN],
				  values[RING_FLAGS], 0);
	vdpa_blk_test_offer(t, values[HEAD], 1);
}

/* Serve the chain as the worker does, wait until all of it is done, and note the result. */
static void usual_test_serve(struct kunit *test, const u64 *values, bool any,
			     struct usual_test_result *result)
{
	struct vdpa_blk_test *t = test->priv;
	struct vdpa_blk_queue *q = t->q;
	u8 *status = usual_test_virt(values[STATUS_ADDR]);

	KUNIT_ASSERT_EQ(test, vdpa_blk_find_chains(&q->ring), 1);
	WRITE_ONCE(q->batching, current);
	memset(result, 0, sizeof(*result));
	result->err = any ? vdpa_blk_handle_any(q) : vdpa_blk_handle_chain(q);
	WRITE_ONCE(q->batching, NULL);
	if (q->nr_done)
		vdpa_blk_flush_completions(q);
	flush_workqueue(t->vb->slow_wq);
	flush_workqueue(t->vb->wq);

	result->stats = q->stats;
	result->used_stats = q->used_stats;
	memcpy(result->bios, usual_test_bios, sizeof(result->bios));
	result->nr_bios = usual_test_nr_bios;
	result->in_flight = atomic_read(&q->in_flight);
	result->used = vdpa_blk_test_take_used(t, 1, &result->id, &result->len);
	result->next_avail = q->ring.next_avail;
	result->left = q->ring.left;
	if (status)
		result->status = *status;
}

static void usual_test_compare(struct kunit *test, bool read, bool shared)
{
	const struct usual_test_row *row = test->param_value;
	struct usual_test_result *results;
	struct vdpa_blk_test *t = test->priv;
	u64 values[NR_VALUES];
	bool is_short;

	results = kunit_kcalloc(test, 2, sizeof(*results), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, results);
	usual_test_set_values(values, row, read);
	usual_test_post(test, values, shared);
	usual_test_serve(test, values, true, &results[0]);
	usual_test_post(test, values, shared);
	usual_test_serve(test, values, false, &results[1]);
	is_short = results[1].err == 1 && t->q->chain.descs == POISON;

	KUNIT_EXPECT_MEMEQ_MSG(test, &results[0], &results[1], sizeof(results[0]),
			       "%s, %s", read ? "read" : "write",
			       shared ? "extents" : "identity");
	KUNIT_EXPECT_EQ_MSG(test, is_short, !!(row->path & (read ? SHORT_READ : SHORT_WRITE)),
			    "%s, %s", read ? "read" : "write",
			    shared ? "extents" : "identity");
	/* A chain that takes the short path is served. */
	if (is_short) {
		KUNIT_EXPECT_EQ(test, results[1].status, VIRTIO_BLK_S_OK);
		KUNIT_EXPECT_EQ(test, results[1].nr_bios, 1);
		KUNIT_EXPECT_EQ(test, results[1].used, 1);
		KUNIT_EXPECT_EQ(test, results[1].len, read ? values[DATA_LEN] + 1 : 1);
		KUNIT_EXPECT_EQ(test, results[1].bios[0].sector, values[SECTOR]);
		KUNIT_EXPECT_EQ(test, results[1].bios[0].bytes, values[DATA_LEN]);
		KUNIT_EXPECT_EQ(test, results[1].bios[0].place + usual_test_memory,
				usual_test_phys(values[DATA_ADDR]));
	}
}

/* Both functions do the same, with memory in one piece and in extents. */
static void usual_test_both(struct kunit *test)
{
	const struct usual_test_row *row = test->param_value;
	struct vdpa_blk_test *t = test->priv;
	struct vdpa_blk_memory *identity = t->vb->memory;

	if (!row->in_extents) {
		usual_test_compare(test, true, false);
		usual_test_compare(test, false, false);
	}
	vdpa_blk_unmap_ring(t->q);
	t->vb->memory = usual_test_share(test);
	usual_test_compare(test, true, true);
	usual_test_compare(test, false, true);
	vdpa_blk_unmap_ring(t->q);
	t->vb->memory = identity;
}

static struct kunit_case usual_test_cases[] = {
	KUNIT_CASE_PARAM(usual_test_both, usual_test_row_gen_params),
	{}
};

static struct kunit_suite usual_test_suite = {
	.name		= "vdpa_blk_usual",
	.suite_init	= usual_test_add_disk,
	.suite_exit	= usual_test_del_disk,
	.init		= usual_test_init,
	.exit		= usual_test_exit,
	.test_cases	= usual_test_cases,
};

kunit_test_suite(usual_test_suite);
