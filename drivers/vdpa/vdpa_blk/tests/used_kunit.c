// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit test for ring.c: the chains that the device returns, the interrupts that it owes
 * the driver for them, where a ring was and goes on, and which rings the device refuses.
 *
 * The test runs when somebody writes to /sys/kernel/debug/kunit/vdpa_blk_used/run.
 */

#include <kunit/test.h>
#include <linux/io.h>
#include <linux/sizes.h>
#include <linux/slab.h>

#include "ring_driver.h"

static const struct vdpa_blk_test_desc used_test_descs[] = {
	{ 16, NEXT }, { 512, WRITE_ONLY | NEXT }, { 1, WRITE_ONLY },
};

/* Post a chain of @nr descriptors, and have the device take it. */
static void used_test_take(struct kunit *test, u16 id, unsigned int nr)
{
	struct vdpa_blk_test *t = test->priv;

	vdpa_blk_test_post(t, used_test_descs + ARRAY_SIZE(used_test_descs) - nr, nr, id, 0);
	KUNIT_ASSERT_EQ(test, vdpa_blk_next_chain(t->q), 1);
	KUNIT_ASSERT_EQ(test, t->q->chain.id, id);
	KUNIT_ASSERT_EQ(test, t->q->chain.descs, t->packed ? nr : 1);
}

/* Used entries are in the order of completion, and go on across the end of the ring. */
static void used_test_order(struct kunit *test)
{
	struct vdpa_blk_test *t = test->priv;
	u32 id, len;
	u16 lap;

	/* Three chains take six of seven or eight descriptors. */
	vdpa_blk_test_map(test, vdpa_blk_test_features(test) & PACKED ? 7 : 8,
			  vdpa_blk_test_features(test),
			  vdpa_blk_test_features(test) & PACKED ? 5 : 0xfffb, false);
	for (lap = 0; lap < 20; lap++) {
		used_test_take(test, 0, 1);
		used_test_take(test, 1, 2);
		used_test_take(test, 3, 3);
		KUNIT_EXPECT_FALSE(test, vdpa_blk_test_take_used(t, 1, &id, &len));
		vdpa_blk_test_return(t, 3, t->packed ? 3 : 1, 513);
		vdpa_blk_test_return(t, 0, 1, 0);
		/* A split ring shows them when they are published. */
		if (!t->packed)
			KUNIT_EXPECT_FALSE(test, vdpa_blk_test_take_used(t, 3, &id, &len));
		vdpa_blk_test_publish(t);
		KUNIT_ASSERT_TRUE(test, vdpa_blk_test_take_used(t, 3, &id, &len));
		KUNIT_EXPECT_EQ(test, id, 3);
		KUNIT_EXPECT_EQ(test, len, 513);
		KUNIT_ASSERT_TRUE(test, vdpa_blk_test_take_used(t, 1, &id, &len));
		KUNIT_EXPECT_EQ(test, id, 0);
		KUNIT_EXPECT_EQ(test, len, 0);
		KUNIT_EXPECT_FALSE(test, vdpa_blk_test_take_used(t, 2, &id, &len));
		vdpa_blk_test_return(t, 1, t->packed ? 2 : 1, U32_MAX);
		vdpa_blk_test_publish(t);
		KUNIT_ASSERT_TRUE(test, vdpa_blk_test_take_used(t, 2, &id, &len));
		KUNIT_EXPECT_EQ(test, id, 1);
		KUNIT_EXPECT_EQ(test, len, U32_MAX);
	}
}

/* Interrupts */

/* What the device decides for @count entries that it returns as one chain or as many. */
static bool used_test_signals(struct vdpa_blk_test *t, u16 count, bool as_one)
{
	unsigned int i;

	if (as_one)
		vdpa_blk_test_return(t, 0, count, 0);
	for (i = 0; !as_one && i < count; i++)
		vdpa_blk_test_return(t, 0, 1, 0);
	return vdpa_blk_test_publish(t);
}

/* Split rings: each event near a batch, at the edges of the index. */
static void used_test_split_event(struct kunit *test)
{
	static const u16 starts[] = { 0, 1, 7, 0x7ff8, 0x7fff, 0x8000, 0x8001, 0xfff0,
				      0xfff8, 0xfff9, 0xfffe, 0xffff };
	struct vdpa_blk_test *t = test->priv;
	unsigned int i, count;
	bool want;
	int event;

	for (i = 0; i < ARRAY_SIZE(starts); i++)
		for (count = 1; count <= 8; count++)
			for (event = starts[i] - 10; event <= starts[i] + 10; event++) {
				vdpa_blk_test_map(test, 8, EVENT_IDX, starts[i], false);
				vdpa_blk_test_set_event(t, event, false);
				want = vdpa_blk_test_passes(t, starts[i], false, count,
							    event, false);
				KUNIT_EXPECT_EQ_MSG(test, want,
						    used_test_signals(t, count, false),
						    "%u from %#x on, event %#x",
						    count, starts[i], (u16)event);
			}
}

static void used_test_packed_batch(struct kunit *test, u16 num, u16 at, bool wrap,
				   u16 count)
{
	struct vdpa_blk_test *t = test->priv;
	unsigned int i;
	bool want;

	/* Each entry, with each wrap counter, and with one chain or many. */
	for (i = 0; i < num * 4U; i++) {
		u16 event = i / 4;
		bool event_wrap = i & 1;

		vdpa_blk_test_map(test, num, PACKED | EVENT_IDX, at, wrap);
		vdpa_blk_test_set_event(t, event, event_wrap);
		want = vdpa_blk_test_passes(t, at, wrap, count, event, event_wrap);
		KUNIT_EXPECT_EQ_MSG(test, want,
				    used_test_signals(t, count, i & 2),
				    "%u of %u from %u/%d on, event %u/%d",
				    count, num, at, wrap, event, event_wrap);
	}
}

/* Packed rings: each event, for each batch at each place of some small rings. */
static void used_test_packed_event(struct kunit *test)
{
	static const u16 sizes[] = { 1, 2, 3, 5 };
	unsigned int i;
	u16 at, count;

	for (i = 0; i < ARRAY_SIZE(sizes); i++)
		for (at = 0; at < sizes[i]; at++)
			for (count = 1; count <= sizes[i]; count++) {
				used_test_packed_batch(test, sizes[i], at, false, count);
				used_test_packed_batch(test, sizes[i], at, true, count);
			}
}

/* The flags that suppress interrupts, in the driver area, and what they do. */
static void used_test_suppression(struct kunit *test)
{
	static const struct {
		u64 features;
		u16 flags;
		u16 event;
		bool signals;
	} cases[] = {
		{ 0, 0, 0, true }, { 0, 1, 0, false }, { 0, U16_MAX, 0, false },
		{ 0, U16_MAX - 1, 0, true },
		/* VIRTIO 1.4, 2.7.7.2: with the event index the flag has no meaning. */
		{ EVENT_IDX, 1, 0, true }, { EVENT_IDX, 0, 1, false },
		{ PACKED, 0, 0, true }, { PACKED, 1, 0, false },
		/* Without the event index a driver may not ask for one. */
		{ PACKED, 2, 3, true }, { PACKED, 3, 0, true },
		{ PACKED | EVENT_IDX, 0, 3, true }, { PACKED | EVENT_IDX, 1, 0, false },
		{ PACKED | EVENT_IDX, 2, 0, true }, { PACKED | EVENT_IDX, 2, 1, false },
		/* The other bits are reserved. */
		{ PACKED | EVENT_IDX, 0xfffd, 0, false },
		{ PACKED | EVENT_IDX, 0xfffe, 1, false },
	};
	struct vdpa_blk_test *t = test->priv;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		vdpa_blk_test_map(test, 4, cases[i].features, 0, false);
		vdpa_blk_test_set_event(t, cases[i].event, false);
		put16(t->packed ? t->driver + 2 : t->driver, cases[i].flags);
		KUNIT_EXPECT_EQ_MSG(test, used_test_signals(t, 1, true),
				    cases[i].signals, "case %u", i);
	}
}

/* Where a ring was */

/* A ring that is unmapped while a chain is left goes on there, with its wrap counters. */
static void used_test_state(struct kunit *test)
{
	u64 features = vdpa_blk_test_features(test);
	struct vdpa_blk_test *t = test->priv;
	struct vdpa_vq_state *state = &t->q->state;
	struct vdpa_blk_ring *ring;
	u32 id, len;

	ring = vdpa_blk_test_map(test, 4, features, features & PACKED ? 2 : 0xffff, true);
	used_test_take(test, 0, 1);
	used_test_take(test, 1, 1);
	vdpa_blk_test_post(t, used_test_descs + 2, 1, 2, 0);
	vdpa_blk_test_return(t, 1, 1, 1);
	vdpa_blk_test_publish(t);

	/* Two of three chains are taken, one of them is returned. */
	vdpa_blk_save_state(t->q);
	/* The sums are no bit fields. */
	if (t->packed) {
		KUNIT_EXPECT_EQ(test, state->packed.last_avail_idx + 0, 0);
		KUNIT_EXPECT_EQ(test, state->packed.last_avail_counter + 0, 0);
		KUNIT_EXPECT_EQ(test, state->packed.last_used_idx + 0, 3);
		KUNIT_EXPECT_EQ(test, state->packed.last_used_counter + 0, 1);
	} else {
		KUNIT_EXPECT_EQ(test, state->split.avail_index, 1);
	}
	vdpa_blk_test_return(t, 0, 1, 1);
	vdpa_blk_test_publish(t);
	vdpa_blk_unmap_ring(t->q);
	KUNIT_EXPECT_NULL(test, ring->desc.addr);
	KUNIT_EXPECT_NULL(test, ring->driver.addr);
	KUNIT_EXPECT_NULL(test, ring->device.addr);

	memset(ring, 0, sizeof(*ring));
	KUNIT_ASSERT_EQ(test, vdpa_blk_map_ring(t->q), 0);
	KUNIT_EXPECT_EQ(test, vdpa_blk_next_chain(t->q), 1);
	KUNIT_EXPECT_EQ(test, t->q->chain.id, 2);
	KUNIT_EXPECT_EQ(test, vdpa_blk_next_chain(t->q), 0);
	vdpa_blk_test_return(t, 2, 1, 1);
	vdpa_blk_test_publish(t);
	KUNIT_ASSERT_TRUE(test, vdpa_blk_test_take_used(t, 1, &id, &len));
	KUNIT_EXPECT_EQ(test, id, 1);
	KUNIT_ASSERT_TRUE(test, vdpa_blk_test_take_used(t, 1, &id, &len));
	KUNIT_EXPECT_EQ(test, id, 0);
	KUNIT_ASSERT_TRUE(test, vdpa_blk_test_take_used(t, 1, &id, &len));
	KUNIT_EXPECT_EQ(test, id, 2);
}

/* The state of a split ring has no used index: the device reads it from the ring. */
static void used_test_split_used_index(struct kunit *test)
{
	struct vdpa_blk_test *t = test->priv;

	vdpa_blk_test_prepare(t, 4, 0, 0xffff, false);
	put16(t->device + 2, 0xfffd);
	KUNIT_ASSERT_EQ(test, vdpa_blk_map_ring(t->q), 0);
	KUNIT_EXPECT_EQ(test, t->q->ring.next_avail, 0xffff);
	KUNIT_EXPECT_EQ(test, t->q->ring.next_used, 0xfffd);
}

/* Sizes, states and addresses that the device refuses, beside some that it accepts. */
static void used_test_refused(struct kunit *test)
{
	static const struct {
		u64 features;
		u16 num;
		u16 avail;
		u16 used;
		u8 desc;
		u8 driver;
		u8 device;
		int err;
	} cases[] = {
		{ 0, 4, U16_MAX, 0, 0, 2, 4, 0 }, { 0, 3, 0, 0, 0, 0, 0, -EINVAL },
		{ 0, 4, 0, 0, 8, 0, 0, -EINVAL }, { 0, 4, 0, 0, 0, 1, 0, -EINVAL },
		{ 0, 4, 0, 0, 0, 0, 2, -EINVAL }, { PACKED, 3, 2, 2, 16, 4, 4, 0 },
		{ PACKED, 3, 3, 0, 0, 0, 0, -EINVAL }, { PACKED, 3, 0, 3, 0, 0, 0, -EINVAL },
		{ PACKED, 3, 0x7fff, 0, 0, 0, 0, -EINVAL },
		{ PACKED, 3, 0, 0, 8, 0, 0, -EINVAL }, { PACKED, 3, 0, 0, 0, 2, 0, -EINVAL },
		{ PACKED, 3, 0, 0, 0, 0, 2, -EINVAL },
	};
	struct vdpa_blk_test *t = test->priv;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		vdpa_blk_test_prepare(t, cases[i].num, cases[i].features, 0, false);
		if (t->packed) {
			t->q->state.packed.last_avail_idx = cases[i].avail;
			t->q->state.packed.last_used_idx = cases[i].used;
		} else {
			t->q->state.split.avail_index = cases[i].avail;
		}
		t->q->desc_addr += cases[i].desc;
		t->q->driver_addr += cases[i].driver;
		t->q->device_addr += cases[i].device;
		KUNIT_EXPECT_EQ_MSG(test, vdpa_blk_map_ring(t->q), cases[i].err,
				    "case %u", i);
	}
}

/* Memory that the driver shares in pieces */

#define RING_AT		SZ_1G
#define RING_BYTES	SZ_32K
#define PIECES_AT	SZ_1M

/* Two pages that follow each other for the driver are in reverse order in memory. */
static u8 *used_test_in_pieces(struct vdpa_blk_test *t, u64 addr)
{
	u64 offset = addr - PIECES_AT;

	return t->memory + RING_BYTES +
	       (offset < PAGE_SIZE ? offset + PAGE_SIZE : offset - PAGE_SIZE);
}

static void used_test_share(struct kunit *test, bool writable)
{
	struct vdpa_blk_test *t = test->priv;
	u64 phys = virt_to_phys(t->memory);
	struct vdpa_blk_memory *memory;
	unsigned int i;

	memory = kvzalloc(struct_size(memory, extents, 3), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, memory);
	memory->nr = 3;
	memory->extents[0] = (struct vdpa_blk_extent) {
		.first = PIECES_AT,
		.last = PIECES_AT + PAGE_SIZE - 1,
		.offset = phys + RING_BYTES + PAGE_SIZE - PIECES_AT,
	};
	memory->extents[1] = (struct vdpa_blk_extent) {
		.first = PIECES_AT + PAGE_SIZE,
		.last = PIECES_AT + 2 * PAGE_SIZE - 1,
		.offset = phys + RING_BYTES - (PIECES_AT + PAGE_SIZE),
	};
	memory->extents[2] = (struct vdpa_blk_extent) {
		.first = RING_AT,
		.last = RING_AT + RING_BYTES - 1,
		.offset = phys - RING_AT,
		.writable = writable,
	};
	for (i = 0; i < PHYS_PFN(RING_BYTES) + 2; i++)
		get_page(pfn_to_page(PHYS_PFN(phys) + i));
	vdpa_blk_unmap_ring(t->q);
	vdpa_blk_free_memory(t->vb->memory, NULL);
	t->vb->memory = memory;
}

/* Set up an empty ring that is in the third extent. */
static void used_test_prepare(struct vdpa_blk_test *t, u64 features)
{
	vdpa_blk_test_prepare(t, 8, features, 0, true);
	t->q->desc_addr = RING_AT;
	t->q->driver_addr = RING_AT + (t->driver - t->memory);
	t->q->device_addr = RING_AT + (t->device - t->memory);
}

/* Read a table of @nr descriptors from @addr on. */
static int used_test_read_table(struct kunit *test, u64 features, u64 addr, unsigned int nr)
{
	struct vdpa_blk_test *t = test->priv;
	u8 table[5 * DESC_BYTES];
	unsigned int i;

	used_test_prepare(t, features);
	KUNIT_ASSERT_EQ(test, vdpa_blk_map_ring(t->q), 0);
	for (i = 0; i < nr; i++)
		vdpa_blk_test_put(table, i, vdpa_blk_test_addr(true, i), 16,
				  t->packed || i == nr - 1 ? 0 : NEXT,
				  t->packed ? 0 : i + 1);
	for (i = 0; i < nr * DESC_BYTES; i++)
		if (addr + i >= PIECES_AT && addr + i < PIECES_AT + 2 * PAGE_SIZE)
			*used_test_in_pieces(t, addr + i) = table[i];
	vdpa_blk_test_put(t->desc, 0, addr, nr * DESC_BYTES, t->packed ? 0 : INDIRECT,
			  t->packed ? packed_flags(INDIRECT, true) : 0);
	vdpa_blk_test_offer(t, 0, 1);
	return vdpa_blk_next_chain(t->q);
}

/* A table is read across extents, and refused where the driver does not share it. */
static void used_test_pieces(struct kunit *test)
{
	static const unsigned int before[] = { 1, 8, 15, 16, 24, 40, 64 };
	u64 features = vdpa_blk_test_features(test), middle = PIECES_AT + PAGE_SIZE;
	struct vdpa_blk_test *t = test->priv;
	unsigned int i, j;

	used_test_share(test, true);
	for (i = 0; i < ARRAY_SIZE(before); i++) {
		KUNIT_ASSERT_EQ(test, used_test_read_table(test, features,
							   middle - before[i], 4), 1);
		KUNIT_ASSERT_EQ(test, t->q->chain.nr_out, 4);
		for (j = 0; j < 4; j++)
			KUNIT_EXPECT_EQ(test, t->q->chain.segs[j].addr,
					vdpa_blk_test_addr(true, j));
	}
	KUNIT_EXPECT_EQ(test, used_test_read_table(test, features,
						   middle + PAGE_SIZE - 64, 4), 1);
	KUNIT_EXPECT_EQ(test, used_test_read_table(test, features,
						   middle + PAGE_SIZE - 64, 5), -EINVAL);
	KUNIT_EXPECT_EQ(test, used_test_read_table(test, features, PIECES_AT - 1, 1),
			-EINVAL);
	KUNIT_EXPECT_EQ(test, used_test_read_table(test, features, U64_MAX - 15, 1),
			-EINVAL);
}

/* The areas of a ring may end where the shared memory does, and not behind. */
static void used_test_ends(struct kunit *test)
{
	u64 features = vdpa_blk_test_features(test), end = RING_AT + RING_BYTES;
	struct vdpa_blk_test *t = test->priv;
	/* VIRTIO 1.4, 2.7 and 2.8.10.1, for 8 entries. */
	u16 driver = features & PACKED ? 4 : 6 + 2 * 8;
	u16 device = features & PACKED ? 4 : ALIGN(6 + 8 * 8, 4);

	used_test_share(test, true);
	used_test_prepare(t, features);
	t->q->desc_addr = end - 8 * DESC_BYTES;
	KUNIT_EXPECT_EQ(test, vdpa_blk_map_ring(t->q), 0);
	used_test_prepare(t, features);
	t->q->desc_addr = end - 7 * DESC_BYTES;
	KUNIT_EXPECT_EQ(test, vdpa_blk_map_ring(t->q), -EFAULT);
	used_test_prepare(t, features);
	t->q->driver_addr = end - driver;
	KUNIT_EXPECT_EQ(test, vdpa_blk_map_ring(t->q), 0);
	used_test_prepare(t, features);
	t->q->driver_addr = end - driver + (t->packed ? 4 : 2);
	KUNIT_EXPECT_EQ(test, vdpa_blk_map_ring(t->q), -EFAULT);
	used_test_prepare(t, features);
	t->q->device_addr = end - device;
	KUNIT_EXPECT_EQ(test, vdpa_blk_map_ring(t->q), 0);
	used_test_prepare(t, features);
	t->q->device_addr = end - device + 4;
	KUNIT_EXPECT_EQ(test, vdpa_blk_map_ring(t->q), -EFAULT);
}

/* The device maps no ring that the driver does not share, or only to be read. */
static void used_test_not_shared(struct kunit *test)
{
	u64 features = vdpa_blk_test_features(test);
	struct vdpa_blk_test *t = test->priv;

	used_test_share(test, true);
	used_test_prepare(t, features);
	KUNIT_EXPECT_EQ(test, vdpa_blk_map_ring(t->q), 0);
	used_test_prepare(t, features);
	t->q->desc_addr = RING_AT + RING_BYTES - 64;
	KUNIT_EXPECT_EQ(test, vdpa_blk_map_ring(t->q), -EFAULT);
	used_test_prepare(t, features);
	t->q->driver_addr = 0;
	KUNIT_EXPECT_EQ(test, vdpa_blk_map_ring(t->q), -EFAULT);
	used_test_prepare(t, features);
	t->q->device_addr = U64_MAX - 3;
	KUNIT_EXPECT_EQ(test, vdpa_blk_map_ring(t->q), -EFAULT);

	used_test_share(test, false);
	used_test_prepare(t, features);
	KUNIT_EXPECT_EQ(test, vdpa_blk_map_ring(t->q), -EFAULT);
	vdpa_blk_free_memory(t->vb->memory, NULL);
	t->vb->memory = NULL;
	used_test_prepare(t, features);
	KUNIT_EXPECT_EQ(test, vdpa_blk_map_ring(t->q), -EFAULT);
}

static struct kunit_case used_test_cases[] = {
	KUNIT_CASE_PARAM(used_test_order, vdpa_blk_test_kinds),
	KUNIT_CASE(used_test_split_event),
	KUNIT_CASE(used_test_packed_event),
	KUNIT_CASE(used_test_suppression),
	KUNIT_CASE_PARAM(used_test_state, vdpa_blk_test_kinds),
	KUNIT_CASE(used_test_split_used_index),
	KUNIT_CASE(used_test_refused),
	KUNIT_CASE_PARAM(used_test_pieces, vdpa_blk_test_kinds),
	KUNIT_CASE_PARAM(used_test_ends, vdpa_blk_test_kinds),
	KUNIT_CASE_PARAM(used_test_not_shared, vdpa_blk_test_kinds),
	{}
};

static struct kunit_suite used_test_suite = {
	.name		= "vdpa_blk_used",
	.init		= vdpa_blk_test_init,
	.exit		= vdpa_blk_test_exit,
	.test_cases	= used_test_cases,
};

kunit_test_suite(used_test_suite);
