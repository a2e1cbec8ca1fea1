// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit test for chain.c and ring.c: the chains that the device takes off a ring and those
 * that it refuses, and when it asks for kicks.  used_kunit.c has the other direction.
 *
 * The test runs when somebody writes to /sys/kernel/debug/kunit/vdpa_blk_ring/run.
 */

#include <kunit/test.h>
#include <linux/io.h>
#include <linux/sizes.h>

#include "ring_driver.h"

struct ring_test_chain {
	int found;
	unsigned int nr_out;
	unsigned int nr_in;
};

/**
 * struct ring_test_row - a chain
 * @name: what is special about it
 * @nr: number of @ring
 * @ring: descriptors in the ring
 * @nr_table: number of @table
 * @table: descriptors in the table
 * @table_bytes: length of the table, if it is not that of its descriptors
 * @without_tables: the driver has not accepted INDIRECT_DESC
 * @split: what the device finds in a split ring
 * @packed: what it finds in a packed ring
 */
struct ring_test_row {
	const char *name;
	unsigned int nr;
	struct vdpa_blk_test_desc ring[4];
	unsigned int nr_table;
	struct vdpa_blk_test_desc table[4];
	u32 table_bytes;
	bool without_tables;
	struct ring_test_chain split;
	struct ring_test_chain packed;
};

#define COUNT(...)	ARRAY_SIZE(((struct vdpa_blk_test_desc[]){ __VA_ARGS__ }))
#define RING(...)	.nr = COUNT(__VA_ARGS__), .ring = { __VA_ARGS__ }
#define TABLE(...)	.nr_table = COUNT(__VA_ARGS__), .table = { __VA_ARGS__ }
#define GOOD(out, in)	{ 1, (out), (in) }
#define BAD		{ -EINVAL }
#define BOTH(...)	.split = __VA_ARGS__, .packed = __VA_ARGS__
#define OUT		{ 16 }
#define IN		{ 512, WRITE_ONLY }
#define OUT_NEXT	{ 16, NEXT }
#define IN_NEXT		{ 512, WRITE_ONLY | NEXT }
#define IN_TABLE	{ 0, INDIRECT }

static const struct ring_test_row ring_test_rows[] = {
	/* In the ring. */
	{ "one to read", RING(OUT), BOTH(GOOD(1, 0)) },
	{ "one to write", RING(IN), BOTH(GOOD(0, 1)) },
	{ "one to read, two to write", RING(OUT_NEXT, IN_NEXT, IN), BOTH(GOOD(1, 2)) },
	{ "two to read, two to write", RING(OUT_NEXT, OUT_NEXT, IN_NEXT, IN),
	  BOTH(GOOD(2, 2)) },
	{ "others follow", RING(OUT_NEXT, IN, OUT), BOTH(GOOD(1, 1)) },
	{ "largest length", RING({ U32_MAX }), BOTH(GOOD(1, 0)) },
	{ "to read after to write", RING(IN_NEXT, OUT), BOTH(BAD) },
	{ "to read between", RING(OUT_NEXT, IN_NEXT, OUT_NEXT, IN), BOTH(BAD) },
	{ "length 0, first", RING({ 0, NEXT }, IN), BOTH(BAD) },
	{ "length 0, last", RING(OUT_NEXT, { 0, WRITE_ONLY }), BOTH(BAD) },

	/* In a table. */
	{ "table of one", RING(IN_TABLE), TABLE(IN), BOTH(GOOD(0, 1)) },
	{ "table of three", RING(IN_TABLE), TABLE(OUT_NEXT, IN_NEXT, IN),
	  BOTH(GOOD(1, 2)) },
	/* VIRTIO 1.4, 2.7.5.3.2 and 2.8.7: the device ignores that flag. */
	{ "table to write", RING({ 0, INDIRECT | WRITE_ONLY }), TABLE(OUT_NEXT, IN),
	  BOTH(GOOD(1, 1)) },
	/* VIRTIO 1.4, 2.8.7: in a table of a packed ring NEXT has no meaning. */
	{ "table that ends early", RING(IN_TABLE), TABLE(OUT, IN),
	  .split = GOOD(1, 0), .packed = GOOD(1, 1) },
	{ "table that does not end", RING(IN_TABLE), TABLE(OUT_NEXT, IN_NEXT),
	  .split = BAD, .packed = GOOD(1, 1) },
	{ "table to read after to write", RING(IN_TABLE), TABLE(IN_NEXT, OUT), BOTH(BAD) },
	{ "table with length 0", RING(IN_TABLE), TABLE(OUT_NEXT, { 0, WRITE_ONLY }), BOTH(BAD) },
	/* In a table of a packed ring INDIRECT has no meaning, either. */
	{ "table in a table", RING(IN_TABLE), TABLE(OUT_NEXT, { 16, INDIRECT }),
	  .split = BAD, .packed = GOOD(2, 0) },
	{ "table in a table, first", RING(IN_TABLE), TABLE({ 16, INDIRECT | NEXT }, IN),
	  .split = BAD, .packed = GOOD(1, 1) },
	{ "table and more", RING({ 0, INDIRECT | NEXT }, IN), TABLE(OUT), BOTH(BAD) },
	{ "table of 0 bytes", RING({ 0, INDIRECT }), BOTH(BAD) },
	{ "table of 15 bytes", RING(IN_TABLE), TABLE(IN), .table_bytes = 15, BOTH(BAD) },
	{ "table of 17 bytes", RING(IN_TABLE), TABLE(IN), .table_bytes = 17, BOTH(BAD) },
	{ "table of all bytes", RING(IN_TABLE), TABLE(IN), .table_bytes = U32_MAX - 15,
	  BOTH(BAD) },
	{ "table that is not accepted", RING(IN_TABLE), TABLE(IN), .without_tables = true,
	  BOTH(BAD) },

	/* Both: a split ring may end with a table (VIRTIO 1.4, 2.7.5.3.1). */
	{ "ring, then table", RING(OUT_NEXT, IN_TABLE), TABLE(OUT_NEXT, IN),
	  .split = GOOD(2, 1), .packed = BAD },
	{ "ring to write, then table to read", RING(IN_NEXT, IN_TABLE), TABLE(OUT),
	  BOTH(BAD) },
	{ "ring, then table of the rest", RING(OUT_NEXT, IN_NEXT, IN_TABLE),
	  TABLE(IN_NEXT, IN), .split = GOOD(1, 3), .packed = BAD },
};

KUNIT_ARRAY_PARAM_DESC(ring_test_row, ring_test_rows, name);

static void ring_test_expect_segs(struct kunit *test, const struct ring_test_row *row)
{
	const struct vdpa_blk_chain *chain = &((struct vdpa_blk_test *)test->priv)->q->chain;
	unsigned int in_ring = 0, i;

	while (in_ring < row->nr && !(row->ring[in_ring].flags & INDIRECT))
		in_ring++;
	for (i = 0; i < chain->nr_out + chain->nr_in; i++) {
		bool table = i >= in_ring;
		const struct vdpa_blk_test_desc *desc =
			table ? &row->table[i - in_ring] : &row->ring[i];

		KUNIT_EXPECT_EQ(test, chain->segs[i].addr,
				vdpa_blk_test_addr(table, table ? i - in_ring : i));
		KUNIT_EXPECT_EQ(test, chain->segs[i].len, desc->len);
		KUNIT_EXPECT_EQ(test, i >= chain->nr_out, !!(desc->flags & WRITE_ONLY));
	}
}

/* A table in the table of a split ring is a good one, if it were allowed. */
static void ring_test_put_in_table(struct vdpa_blk_test *t, unsigned int i,
				   const struct vdpa_blk_test_desc *desc)
{
	u8 *inner = t->table + SZ_4K;
	u64 addr = vdpa_blk_test_addr(true, i);
	u32 len = desc->len;

	if (desc->flags & INDIRECT && !t->packed) {
		vdpa_blk_test_put(inner, 0, addr, 512, WRITE_ONLY, 0);
		addr = virt_to_phys(inner);
		len = DESC_BYTES;
	}
	vdpa_blk_test_put(t->table, i, addr, len, t->packed ? 0 : desc->flags,
			  t->packed ? desc->flags : i + 1);
}

static void ring_test_one_row(struct kunit *test, const struct ring_test_row *row,
			      u64 features, u16 num, u16 at)
{
	const struct ring_test_chain *want = features & PACKED ? &row->packed : &row->split;
	struct vdpa_blk_test *t = test->priv;
	struct vdpa_blk_chain *chain = &t->q->chain;
	u16 id = num - 1;
	unsigned int i;

	if (!row->without_tables)
		features |= TABLES;
	vdpa_blk_test_map(test, num, features, at, true);
	for (i = 0; i < row->nr_table; i++)
		ring_test_put_in_table(t, i, &row->table[i]);
	KUNIT_EXPECT_EQ(test, vdpa_blk_next_chain(t->q), 0);
	vdpa_blk_test_post(t, row->ring, row->nr, id,
			   row->table_bytes ?: row->nr_table * DESC_BYTES);
	KUNIT_ASSERT_EQ(test, vdpa_blk_next_chain(t->q), want->found);
	if (want->found < 0)
		return;
	KUNIT_EXPECT_EQ(test, chain->nr_out, want->nr_out);
	KUNIT_EXPECT_EQ(test, chain->nr_in, want->nr_in);
	KUNIT_EXPECT_EQ(test, chain->descs, t->packed && !row->nr_table ?
			want->nr_out + want->nr_in : 1);
	/* In a packed ring the last descriptor of the chain has the id. */
	if (!t->packed || chain->descs == row->nr)
		KUNIT_EXPECT_EQ(test, chain->id, id);
	ring_test_expect_segs(test, row);
}

/* One row of the table: in each kind of ring, and across its end. */
static void ring_test_rows_of_both(struct kunit *test)
{
	ring_test_one_row(test, test->param_value, 0, 8, U16_MAX);
	ring_test_one_row(test, test->param_value, PACKED, 7, 0);
	ring_test_one_row(test, test->param_value, PACKED, 7, 6);
	ring_test_one_row(test, test->param_value, PACKED, 5, 3);
	/* Of a ring with as many entries as the longest of them takes. */
	ring_test_one_row(test, test->param_value, 0, 4, 0);
	ring_test_one_row(test, test->param_value, PACKED, 4, 1);
}

/* Chains: indexes, loops, lengths */

/* A descriptor beyond the ring or the table, and one that the chain has already. */
static void ring_test_bad_index(struct kunit *test)
{
	static const struct {
		u16 head;
		u16 next;
		u16 in_table;
		int found;
	} cases[] = {
		{ 1, 2, 1, 1 }, { 8, 0, 1, -EINVAL }, { U16_MAX, 0, 1, -EINVAL },
		{ 0, 8, 1, -EINVAL }, { 0, U16_MAX, 1, -EINVAL }, { 0, 0, 1, -EINVAL },
		{ 1, 2, 2, -EINVAL }, { 1, 2, U16_MAX, -EINVAL }, { 1, 2, 0, -EINVAL },
	};
	struct vdpa_blk_test *t = test->priv;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		vdpa_blk_test_map(test, 8, TABLES, 0, false);
		/* Those beyond would be good ones. */
		vdpa_blk_test_put(t->desc, 8, SZ_1M, 16, 0, 0);
		vdpa_blk_test_put((u8 *)&t->q->table, 2, SZ_1M, 16, 0, 0);
		vdpa_blk_test_put(t->desc, 0, SZ_1M, 16, NEXT, cases[i].next);
		vdpa_blk_test_put(t->desc, 1, SZ_1M, 16, NEXT, 2);
		vdpa_blk_test_put(t->desc, 2, virt_to_phys(t->table), 2 * DESC_BYTES,
				  INDIRECT, 0);
		vdpa_blk_test_put(t->table, 0, SZ_1M, 16, NEXT, cases[i].in_table);
		vdpa_blk_test_put(t->table, 1, SZ_1M, 16, 0, 0);
		vdpa_blk_test_offer(t, cases[i].head, 1);
		KUNIT_EXPECT_EQ_MSG(test, vdpa_blk_next_chain(t->q), cases[i].found,
				    "case %u", i);
	}
}

/* A chain that comes back to itself, in rings shorter and longer than any chain. */
static void ring_test_loop(struct kunit *test)
{
	static const u16 sizes[] = { 1, 4, 256, 1024 };
	struct vdpa_blk_test *t = test->priv;
	unsigned int i, j;

	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		vdpa_blk_test_map(test, sizes[i], 0, 0, false);
		for (j = 0; j < sizes[i]; j++)
			vdpa_blk_test_put(t->desc, j, SZ_1M, 16, NEXT, j % 2 ? j - 1 : j);
		vdpa_blk_test_offer(t, sizes[i] - 1, 1);
		KUNIT_EXPECT_EQ(test, vdpa_blk_next_chain(t->q), -EINVAL);

		/* All descriptors of a packed ring say that one more follows. */
		vdpa_blk_test_map(test, sizes[i], PACKED, 0, true);
		for (j = 0; j < sizes[i]; j++)
			vdpa_blk_test_put(t->desc, j, SZ_1M, 16, 0, packed_flags(NEXT, true));
		KUNIT_EXPECT_EQ(test, vdpa_blk_next_chain(t->q), -EINVAL);
	}
}

static int ring_test_try_length(struct kunit *test, u64 features, unsigned int in_ring,
				unsigned int in_table)
{
	struct vdpa_blk_test *t = test->priv;
	unsigned int i;
	u16 flags;

	vdpa_blk_test_map(test, 512, features, 0, true);
	for (i = 0; i < in_ring; i++) {
		flags = i < in_ring - 1 || in_table ? NEXT : 0;
		vdpa_blk_test_put(t->desc, i, SZ_1M, 16, t->packed ? 0 : flags,
				  t->packed ? packed_flags(flags, true) : i + 1);
	}
	for (i = 0; i < in_table; i++) {
		flags = i < in_table - 1 ? NEXT : 0;
		vdpa_blk_test_put(t->table, i, SZ_1M, 16, t->packed ? 0 : flags,
				  t->packed ? flags : i + 1);
	}
	if (in_table)
		vdpa_blk_test_put(t->desc, in_ring, virt_to_phys(t->table),
				  in_table * DESC_BYTES, t->packed ? 0 : INDIRECT,
				  t->packed ? packed_flags(INDIRECT, true) : 0);
	vdpa_blk_test_offer(t, 0, in_ring + !!in_table);
	return vdpa_blk_next_chain(t->q);
}

/* The longest chain, and one that is longer by one descriptor. */
static void ring_test_length(struct kunit *test)
{
	const unsigned int most = VDPA_BLK_MAX_SEGS;

	KUNIT_EXPECT_EQ(test, ring_test_try_length(test, TABLES, most, 0), 1);
	KUNIT_EXPECT_EQ(test, ring_test_try_length(test, TABLES, most + 1, 0), -EINVAL);
	KUNIT_EXPECT_EQ(test, ring_test_try_length(test, TABLES, 0, most), 1);
	KUNIT_EXPECT_EQ(test, ring_test_try_length(test, TABLES, 0, most + 1), -EINVAL);
	KUNIT_EXPECT_EQ(test, ring_test_try_length(test, TABLES, 1, most - 1), 1);
	KUNIT_EXPECT_EQ(test, ring_test_try_length(test, TABLES, 1, most), -EINVAL);
	KUNIT_EXPECT_EQ(test, ring_test_try_length(test, PACKED | TABLES, most, 0), 1);
	KUNIT_EXPECT_EQ(test, ring_test_try_length(test, PACKED | TABLES, most + 1, 0),
			-EINVAL);
	KUNIT_EXPECT_EQ(test, ring_test_try_length(test, PACKED | TABLES, 0, most), 1);
	KUNIT_EXPECT_EQ(test, ring_test_try_length(test, PACKED | TABLES, 0, most + 1),
			-EINVAL);
}

/* Available entries */

/* A split ring has as many chains as the index says, in order, and at most all. */
static void ring_test_avail_index(struct kunit *test)
{
	static const u16 starts[] = { 0, 1, 0x7ffd, 0x7fff, 0x8000, 0xfffd, 0xffff };
	struct vdpa_blk_test *t = test->priv;
	unsigned int i, j, k;

	for (i = 0; i < ARRAY_SIZE(starts); i++) {
		for (j = 0; j <= 4; j++) {
			vdpa_blk_test_map(test, 4, 0, starts[i], false);
			for (k = 0; k < j; k++) {
				vdpa_blk_test_put(t->desc, 3 - k, SZ_1M, 16, 0, 0);
				vdpa_blk_test_offer(t, 3 - k, 1);
			}
			KUNIT_EXPECT_EQ(test, vdpa_blk_has_more(&t->q->ring), j > 0);
			for (k = 0; k < j; k++) {
				KUNIT_EXPECT_EQ(test, vdpa_blk_next_chain(t->q), 1);
				KUNIT_EXPECT_EQ(test, t->q->chain.id, 3 - k);
			}
			KUNIT_EXPECT_EQ(test, vdpa_blk_next_chain(t->q), 0);
			KUNIT_EXPECT_FALSE(test, vdpa_blk_has_more(&t->q->ring));
		}
		/* One more than the ring has, half of all indexes, and one back. */
		for (j = 0; j < 3; j++) {
			vdpa_blk_test_map(test, 4, 0, starts[i], false);
			vdpa_blk_test_put(t->desc, 0, SZ_1M, 16, 0, 0);
			put16(t->driver + 2, starts[i] +
			      (j == 0 ? 5 : j == 1 ? 0x8000 : 0xffff));
			KUNIT_EXPECT_EQ(test, vdpa_blk_next_chain(t->q), -EINVAL);
		}
	}
}

/* Of the four states of the flags, one says that a descriptor is available. */
static void ring_test_avail_flags(struct kunit *test)
{
	struct vdpa_blk_test *t = test->priv;
	unsigned int state;
	bool wrap, good;

	for (state = 0; state < 8; state++) {
		wrap = state & 4;
		good = !!(state & 1) == wrap && !!(state & 2) != wrap;
		vdpa_blk_test_map(test, 3, PACKED, 1, wrap);
		vdpa_blk_test_put(t->desc, 1, SZ_1M, 16, 7,
				  (state & 1) << VRING_PACKED_DESC_F_AVAIL |
				  (state >> 1 & 1) << VRING_PACKED_DESC_F_USED);
		KUNIT_EXPECT_EQ(test, vdpa_blk_has_more(&t->q->ring), good);
		KUNIT_EXPECT_EQ(test, vdpa_blk_next_chain(t->q), good);
	}
}

/* Kicks: what the device writes to suppress and to allow them, at the end of a ring. */
static void ring_test_kicks(struct kunit *test)
{
	static const struct vdpa_blk_test_desc desc = OUT;
	u64 features = vdpa_blk_test_features(test);
	bool event_idx = features & EVENT_IDX;
	struct vdpa_blk_test *t = test->priv;
	struct vdpa_blk_ring *ring;
	u8 *flags, *event;
	unsigned int i;

	ring = vdpa_blk_test_map(test, 4, features, features & PACKED ? 2 : 0xfffe, true);
	flags = t->packed ? t->device + 2 : t->device;
	event = t->packed ? t->device : t->device + 4 + 8 * 4;
	for (i = 0; i < 4; i++) {
		put16(event, 0x5555);
		vdpa_blk_suppress_kicks(ring);
		KUNIT_EXPECT_EQ(test, get16(flags), t->packed || !event_idx);
		KUNIT_EXPECT_EQ(test, get16(event), 0x5555);
		KUNIT_EXPECT_FALSE(test, vdpa_blk_allow_kicks(ring));
		KUNIT_EXPECT_EQ(test, get16(flags), t->packed && event_idx ? 2 : 0);
		/* The driver kicks for the very next chain. */
		KUNIT_EXPECT_EQ(test, get16(event), !event_idx ? 0x5555 : !t->packed ?
				t->avail : t->avail | t->avail_wrap << 15);
		vdpa_blk_test_post(t, &desc, 1, i, 0);
		KUNIT_EXPECT_TRUE(test, vdpa_blk_allow_kicks(ring));
		KUNIT_EXPECT_EQ(test, vdpa_blk_next_chain(t->q), 1);
	}
}

static struct kunit_case ring_test_cases[] = {
	KUNIT_CASE_PARAM(ring_test_rows_of_both, ring_test_row_gen_params),
	KUNIT_CASE(ring_test_bad_index),
	KUNIT_CASE(ring_test_loop),
	KUNIT_CASE(ring_test_length),
	KUNIT_CASE(ring_test_avail_index),
	KUNIT_CASE(ring_test_avail_flags),
	KUNIT_CASE_PARAM(ring_test_kicks, vdpa_blk_test_kinds),
	{}
};

static struct kunit_suite ring_test_suite = {
	.name		= "vdpa_blk_ring",
	.init		= vdpa_blk_test_init,
	.exit		= vdpa_blk_test_exit,
	.test_cases	= ring_test_cases,
};

kunit_test_suite(ring_test_suite);
