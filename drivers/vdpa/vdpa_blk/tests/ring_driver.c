// SPDX-License-Identifier: GPL-2.0
/* The driver's side of a ring, for the KUnit tests of ring.c and chain.c: see ring_driver.h. */

#include <linux/io.h>
#include <linux/sizes.h>
#include <linux/slab.h>

#include "ring_driver.h"

/* Where the areas are: the driver's and the device's not at the beginning of a page. */
#define MEMORY_BYTES	SZ_64K
#define DRIVER_AT	(SZ_16K + 0x44)
#define DEVICE_AT	(SZ_16K + SZ_4K + 0x84)
#define TABLE_AT	SZ_32K

static const struct vdpa_blk_test_kind kinds[] = {
	{ "split", TABLES },
	{ "split, event index", TABLES | EVENT_IDX },
	{ "packed", TABLES | PACKED },
	{ "packed, event index", TABLES | PACKED | EVENT_IDX },
};

KUNIT_ARRAY_PARAM_DESC(kind, kinds, name);

/**
 * vdpa_blk_test_kinds() - generate the kinds of rings, for KUNIT_CASE_PARAM()
 * @test: the test
 * @last: the kind before, or NULL
 * @name: the name of the kind
 *
 * Return: the next kind, or NULL.
 */
const void *vdpa_blk_test_kinds(struct kunit *test, const void *last, char *name)
{
	return kind_gen_params(test, last, name);
}

/**
 * vdpa_blk_test_features() - the features of the kind of rings that is tested
 * @test: the test, with a parameter of vdpa_blk_test_kinds()
 *
 * Return: feature bits.
 */
u64 vdpa_blk_test_features(struct kunit *test)
{
	return ((const struct vdpa_blk_test_kind *)test->param_value)->features;
}

/**
 * vdpa_blk_test_init() - allocate a queue, and memory for its ring
 * @test: the test
 *
 * Return: 0 or -ENOMEM; vdpa_blk_test_exit() frees what there is.
 */
int vdpa_blk_test_init(struct kunit *test)
{
	struct vdpa_blk_test *t = kunit_kzalloc(test, sizeof(*t), GFP_KERNEL);

	if (!t)
		return -ENOMEM;
	test->priv = t;
	t->vb = kunit_kzalloc(test, sizeof(*t->vb), GFP_KERNEL);
	t->q = kvzalloc_obj(*t->q, GFP_KERNEL);
	/* The pages are one compound page, so that the device can have references. */
	t->memory = (u8 *)__get_free_pages(GFP_KERNEL | __GFP_ZERO | __GFP_COMP,
					   get_order(MEMORY_BYTES));
	if (!t->vb || !t->q || !t->memory)
		return -ENOMEM;
	t->vb->memory = vdpa_blk_create_identity();
	if (IS_ERR(t->vb->memory)) {
		t->vb->memory = NULL;
		return -ENOMEM;
	}
	t->q->vb = t->vb;
	t->desc = t->memory;
	t->driver = t->memory + DRIVER_AT;
	t->device = t->memory + DEVICE_AT;
	t->table = t->memory + TABLE_AT;
	return 0;
}

/**
 * vdpa_blk_test_exit() - undo vdpa_blk_test_init() and vdpa_blk_test_map()
 * @test: the test
 */
void vdpa_blk_test_exit(struct kunit *test)
{
	struct vdpa_blk_test *t = test->priv;

	if (!t)
		return;
	if (t->q)
		vdpa_blk_unmap_ring(t->q);
	if (t->vb)
		vdpa_blk_free_memory(t->vb->memory, NULL);
	free_pages((unsigned long)t->memory, get_order(MEMORY_BYTES));
	kvfree(t->q);
}

/**
 * vdpa_blk_test_prepare() - set up an empty ring, which is not mapped
 * @t: the ring
 * @num: its size
 * @features: that the driver has accepted
 * @at: the index or, in a packed ring, descriptor at which driver and device are
 * @wrap: the wrap counter of both
 */
void vdpa_blk_test_prepare(struct vdpa_blk_test *t, u16 num, u64 features, u16 at,
			   bool wrap)
{
	struct vdpa_blk_queue *q = t->q;

	vdpa_blk_unmap_ring(q);
	memset(t->memory, 0, MEMORY_BYTES);
	t->num = num;
	t->packed = features & PACKED;
	t->avail = at;
	t->avail_wrap = wrap;
	t->used = at;
	t->used_wrap = wrap;
	t->filled = 0;
	memset(&q->state, 0, sizeof(q->state));
	q->has_state = true;
	if (t->packed) {
		q->state.packed.last_avail_idx = at;
		q->state.packed.last_avail_counter = wrap;
		q->state.packed.last_used_idx = at;
		q->state.packed.last_used_counter = wrap;
	} else {
		q->state.split.avail_index = at;
		put16(t->driver + 2, at);
		put16(t->device + 2, at);
	}
	t->vb->driver_features = features;
	q->num = num;
	q->desc_addr = virt_to_phys(t->desc);
	q->driver_addr = virt_to_phys(t->driver);
	q->device_addr = virt_to_phys(t->device);
}

/**
 * vdpa_blk_test_map() - set up an empty ring, and have the device map it
 * @test: the test
 * @num: see vdpa_blk_test_prepare()
 * @features: likewise
 * @at: likewise
 * @wrap: likewise
 *
 * Return: the device's ring; the test ends if it cannot be mapped.
 */
struct vdpa_blk_ring *vdpa_blk_test_map(struct kunit *test, u16 num, u64 features,
					u16 at, bool wrap)
{
	struct vdpa_blk_test *t = test->priv;

	vdpa_blk_test_prepare(t, num, features, at, wrap);
	KUNIT_ASSERT_EQ(test, vdpa_blk_map_ring(t->q), 0);
	return &t->q->ring;
}

/**
 * vdpa_blk_test_next() - go on in a ring
 * @t: the ring
 * @at: the index or descriptor, which changes
 * @wrap: the wrap counter, which changes at the end of a packed ring
 * @count: by so many, at most the size of the ring
 */
void vdpa_blk_test_next(struct vdpa_blk_test *t, u16 *at, bool *wrap, u16 count)
{
	*at += count;
	if (t->packed && *at >= t->num) {
		*at -= t->num;
		*wrap = !*wrap;
	}
}

/**
 * vdpa_blk_test_addr() - the address of a buffer, to which nothing is written
 * @in_table: the descriptor is in a table, not in the ring
 * @i: its number
 *
 * Return: the address.
 */
u64 vdpa_blk_test_addr(bool in_table, unsigned int i)
{
	return (in_table ? SZ_1G : SZ_1M) * (i + 1ULL);
}

/**
 * vdpa_blk_test_put() - write a descriptor
 * @table: a ring, or a table
 * @i: the index
 * @addr: the address
 * @len: the length
 * @third: flags in a split ring, the id in a packed one
 * @fourth: next in a split ring, flags in a packed one
 */
void vdpa_blk_test_put(u8 *table, unsigned int i, u64 addr, u32 len, u16 third,
		       u16 fourth)
{
	u8 *at = table + i * DESC_BYTES;

	put_unaligned_le64(addr, at);
	put_unaligned_le32(len, at + 8);
	put16(at + 12, third);
	put16(at + 14, fourth);
}

/**
 * vdpa_blk_test_offer() - make a chain available that is written
 * @t: the ring
 * @head: its first descriptor, in a split ring
 * @count: its number of descriptors, in a packed ring
 */
void vdpa_blk_test_offer(struct vdpa_blk_test *t, u16 head, u16 count)
{
	if (!t->packed) {
		put16(t->driver + 4 + 2 * (t->avail % t->num), head);
		put16(t->driver + 2, t->avail + 1);
		count = 1;
	}
	vdpa_blk_test_next(t, &t->avail, &t->avail_wrap, count);
}

/**
 * vdpa_blk_test_post() - write a chain, and make it available
 * @t: the ring
 * @descs: the descriptors; INDIRECT is for the table
 * @nr: their number
 * @id: the id; in a split ring the chain begins there and goes on at the next ones
 * @table_len: the length of the table
 */
void vdpa_blk_test_post(struct vdpa_blk_test *t, const struct vdpa_blk_test_desc *descs,
			unsigned int nr, u16 id, u32 table_len)
{
	bool wrap = t->avail_wrap, table;
	u16 at = t->packed ? t->avail : id;
	unsigned int i;
	u64 addr;
	u32 len;

	for (i = 0; i < nr; i++) {
		table = descs[i].flags & INDIRECT;
		addr = table ? virt_to_phys(t->table) : vdpa_blk_test_addr(false, i);
		len = table ? table_len : descs[i].len;
		/* In a packed ring the last descriptor has the id. */
		if (t->packed)
			vdpa_blk_test_put(t->desc, at, addr, len, i == nr - 1 ? id : ~id,
					  packed_flags(descs[i].flags, wrap));
		else
			vdpa_blk_test_put(t->desc, at % t->num, addr, len,
					  descs[i].flags, (at + 1) % t->num);
		vdpa_blk_test_next(t, &at, &wrap, 1);
	}
	vdpa_blk_test_offer(t, id, nr);
}

/**
 * vdpa_blk_test_take_used() - take the next chain that the device has returned
 * @t: the ring
 * @count: the chain's number of descriptors
 * @id: set to its id
 * @len: set to the bytes that the device has written
 *
 * Return: false if there is none, or its flags are wrong.
 */
bool vdpa_blk_test_take_used(struct vdpa_blk_test *t, u16 count, u32 *id, u32 *len)
{
	u8 *at = t->device + 4 + 8 * (t->used % t->num);
	u16 flags;

	if (t->packed) {
		at = t->desc + DESC_BYTES * t->used;
		flags = get16(at + 14);
		*id = get16(at + 12);
		*len = get_unaligned_le32(at + 8);
		/* Used, and WRITE if the length is not 0 (VIRTIO 1.4, 2.8.1 and 2.8.3). */
		if (flags != ((t->used_wrap ? BIT(VRING_PACKED_DESC_F_AVAIL) |
			       BIT(VRING_PACKED_DESC_F_USED) : 0) |
			      (*len ? WRITE_ONLY : 0)))
			return false;
	} else {
		if (get16(t->device + 2) == t->used)
			return false;
		*id = get_unaligned_le32(at);
		*len = get_unaligned_le32(at + 4);
		count = 1;
	}
	vdpa_blk_test_next(t, &t->used, &t->used_wrap, count);
	return true;
}

/**
 * vdpa_blk_test_set_event() - ask for an interrupt when the device has used an entry
 * @t: the ring, with EVENT_IDX
 * @at: the entry
 * @wrap: its wrap counter, in a packed ring
 */
void vdpa_blk_test_set_event(struct vdpa_blk_test *t, u16 at, bool wrap)
{
	if (t->packed) {
		put16(t->driver, at | wrap << VRING_PACKED_EVENT_F_WRAP_CTR);
		put16(t->driver + 2, VRING_PACKED_EVENT_FLAG_DESC);
	} else {
		put16(t->driver + 4 + 2 * t->num, at);
	}
}

/**
 * vdpa_blk_test_passes() - walk over used entries
 * @t: the ring
 * @at: the first
 * @wrap: its wrap counter
 * @count: their number
 * @event: an entry
 * @event_wrap: its wrap counter
 *
 * Return: true if @event is among them.
 */
bool vdpa_blk_test_passes(struct vdpa_blk_test *t, u16 at, bool wrap, u16 count,
			  u16 event, bool event_wrap)
{
	for (; count--; vdpa_blk_test_next(t, &at, &wrap, 1))
		if (at == event && (!t->packed || wrap == event_wrap))
			return true;
	return false;
}
