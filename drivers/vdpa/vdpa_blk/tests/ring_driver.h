/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The driver's side of a ring, for the KUnit tests of ring.c and chain.c.
 *
 * The rings are in memory of the kernel.  The test writes and reads them by the offsets
 * of VIRTIO 1.4, 2.7 and 2.8, without the structures that they use.  Whether an interrupt
 * is due it finds by walking over the used entries, without vring_need_event().
 */
#ifndef VDPA_BLK_RING_DRIVER_H
#define VDPA_BLK_RING_DRIVER_H

#include <kunit/test.h>
#include <linux/unaligned.h>

#include "../chain.h"

#define DESC_BYTES	16
#define NEXT		VRING_DESC_F_NEXT
#define WRITE_ONLY	VRING_DESC_F_WRITE
#define INDIRECT	VRING_DESC_F_INDIRECT

#define PACKED		BIT_ULL(VIRTIO_F_RING_PACKED)
#define EVENT_IDX	BIT_ULL(VIRTIO_RING_F_EVENT_IDX)
#define TABLES		BIT_ULL(VIRTIO_RING_F_INDIRECT_DESC)

/**
 * struct vdpa_blk_test - a ring, and the driver's place in it
 * @vb: a device that has memory and features, and nothing else
 * @q: its queue
 * @memory: the pages of all that follows
 * @desc: descriptor area
 * @driver: driver area
 * @device: device area
 * @table: room for an indirect table
 * @num: entries of the ring
 * @packed: the ring is packed
 * @avail: the next available index or, in a packed ring, descriptor
 * @avail_wrap: wrap counter of a packed ring
 * @used: the next used index or descriptor
 * @used_wrap: wrap counter of a packed ring
 * @filled: entries of a split ring that the device has filled in, and not published
 */
struct vdpa_blk_test {
	struct vdpa_blk *vb;
	struct vdpa_blk_queue *q;
	u8 *memory;
	u8 *desc;
	u8 *driver;
	u8 *device;
	u8 *table;
	u16 num;
	bool packed;
	u16 avail;
	bool avail_wrap;
	u16 used;
	bool used_wrap;
	u16 filled;
};

/* A descriptor; its address follows from its place. */
struct vdpa_blk_test_desc {
	u32 len;
	u16 flags;
};

/* A kind of rings. */
struct vdpa_blk_test_kind {
	const char *name;
	u64 features;
};

static inline u16 get16(const u8 *at)
{
	return get_unaligned_le16(at);
}

static inline void put16(u8 *at, u16 value)
{
	put_unaligned_le16(value, at);
}

/* VIRTIO 1.4, 2.8.1: the flags of a descriptor that is available, and not used. */
static inline u16 packed_flags(u16 flags, bool wrap)
{
	return flags | wrap << VRING_PACKED_DESC_F_AVAIL |
	       !wrap << VRING_PACKED_DESC_F_USED;
}

/* Take the next chain off the ring, as the worker does; 0 if there is none. */
static inline int vdpa_blk_next_chain(struct vdpa_blk_queue *q)
{
	int found = vdpa_blk_find_chains(&q->ring);

	return found > 0 ? vdpa_blk_take_chain(q) : found;
}

/* Return a chain to the driver, as a completion does.  A split ring does not show it yet. */
static inline void vdpa_blk_test_return(struct vdpa_blk_test *t, u16 id, u16 descs, u32 len)
{
	struct vdpa_blk_ring *ring = &t->q->ring;
	u16 at = ring->next_used + t->filled;

	if (t->packed) {
		vdpa_blk_add_used_packed(ring, id, descs, len);
		return;
	}
	vdpa_blk_set_used(&vdpa_blk_used(ring)->ring[at & (ring->num - 1)], id, len);
	t->filled++;
}

/* Publish the chains that were returned; true if the driver wants an interrupt. */
static inline bool vdpa_blk_test_publish(struct vdpa_blk_test *t)
{
	u16 next = t->q->ring.next_used + t->filled;

	t->filled = 0;
	return t->packed ? vdpa_blk_publish_packed(&t->q->ring) :
			   vdpa_blk_publish_split(&t->q->ring, next);
}

int vdpa_blk_test_init(struct kunit *test);
void vdpa_blk_test_exit(struct kunit *test);
const void *vdpa_blk_test_kinds(struct kunit *test, const void *last, char *name);
u64 vdpa_blk_test_features(struct kunit *test);
void vdpa_blk_test_prepare(struct vdpa_blk_test *t, u16 num, u64 features, u16 at,
			   bool wrap);
struct vdpa_blk_ring *vdpa_blk_test_map(struct kunit *test, u16 num, u64 features,
					u16 at, bool wrap);
void vdpa_blk_test_next(struct vdpa_blk_test *t, u16 *at, bool *wrap, u16 count);
u64 vdpa_blk_test_addr(bool in_table, unsigned int i);
void vdpa_blk_test_put(u8 *table, unsigned int i, u64 addr, u32 len, u16 third,
		       u16 fourth);
void vdpa_blk_test_offer(struct vdpa_blk_test *t, u16 head, u16 count);
void vdpa_blk_test_post(struct vdpa_blk_test *t, const struct vdpa_blk_test_desc *descs,
			unsigned int nr, u16 id, u32 table_len);
bool vdpa_blk_test_take_used(struct vdpa_blk_test *t, u16 count, u32 *id, u32 *len);
void vdpa_blk_test_set_event(struct vdpa_blk_test *t, u16 at, bool wrap);
bool vdpa_blk_test_passes(struct vdpa_blk_test *t, u16 at, bool wrap, u16 count,
			  u16 event, bool event_wrap);

#endif /* VDPA_BLK_RING_DRIVER_H */
