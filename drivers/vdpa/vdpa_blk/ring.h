/* SPDX-License-Identifier: GPL-2.0 */
/*
 * ring.c: what each request or batch runs through.
 */
#ifndef VDPA_BLK_RING_H
#define VDPA_BLK_RING_H

#include <linux/nospec.h>

#include "memory.h"
#include "vdpa_blk.h"

#define PACKED_AVAIL	BIT(VRING_PACKED_DESC_F_AVAIL)
#define PACKED_USED	BIT(VRING_PACKED_DESC_F_USED)

#define virtio16_to_cpu_le(v)	le16_to_cpu((__force __le16)(v))
#define virtio32_to_cpu_le(v)	le32_to_cpu((__force __le32)(v))
#define virtio64_to_cpu_le(v)	le64_to_cpu((__force __le64)(v))

static inline struct vring_avail *vdpa_blk_avail(const struct vdpa_blk_ring *ring)
{
	return ring->driver.addr;
}

static inline struct vring_used *vdpa_blk_used(const struct vdpa_blk_ring *ring)
{
	return ring->device.addr;
}

static inline __le16 *vdpa_blk_used_event(const struct vdpa_blk_ring *ring)
{
	return (__force __le16 *)&vdpa_blk_avail(ring)->ring[ring->num];
}

static inline __le16 *vdpa_blk_avail_event(const struct vdpa_blk_ring *ring)
{
	return (__force __le16 *)&vdpa_blk_used(ring)->ring[ring->num];
}

static inline bool vdpa_blk_is_available(const struct vdpa_blk_ring *ring,
					 u16 flags, bool wrap)
{
	return !!(flags & PACKED_AVAIL) == wrap &&
	       !!(flags & PACKED_USED) != wrap;
}

/* Kicks */

/**
 * vdpa_blk_suppress_kicks() - ask the driver not to notify the device
 * @ring: the ring
 *
 * With an event index the one that the driver has already passed does.
 *
 * Context: the queue's worker.
 */
static inline void vdpa_blk_suppress_kicks(struct vdpa_blk_ring *ring)
{
	struct vring_packed_desc_event *event = ring->device.addr;

	if (ring->packed)
		WRITE_ONCE(event->flags,
			   cpu_to_le16(VRING_PACKED_EVENT_FLAG_DISABLE));
	else if (!ring->event_idx)
		WRITE_ONCE(vdpa_blk_used(ring)->flags, (__force __virtio16)
			   cpu_to_le16(VRING_USED_F_NO_NOTIFY));
}

/**
 * vdpa_blk_has_more() - does the ring have a chain for the device?
 * @ring: the ring
 *
 * Context: the queue's worker.
 *
 * Return: true if it has.
 */
static inline bool vdpa_blk_has_more(const struct vdpa_blk_ring *ring)
{
	struct vring_packed_desc *desc = ring->desc.addr;

	if (ring->packed)
		return vdpa_blk_is_available(ring,
					     le16_to_cpu(READ_ONCE(desc[ring->next_avail].flags)),
					     ring->avail_wrap);
	return virtio16_to_cpu_le(READ_ONCE(vdpa_blk_avail(ring)->idx)) !=
	       ring->next_avail;
}

/**
 * vdpa_blk_allow_kicks() - ask the driver to notify the device
 * @ring: the ring
 *
 * Context: the queue's worker.
 *
 * Return: true if there are chains already, for which no notification may come.
 */
static inline bool vdpa_blk_allow_kicks(struct vdpa_blk_ring *ring)
{
	struct vring_packed_desc_event *event = ring->device.addr;

	if (ring->packed && ring->event_idx) {
		WRITE_ONCE(event->off_wrap,
			   cpu_to_le16(ring->next_avail |
				       ring->avail_wrap <<
				       VRING_PACKED_EVENT_F_WRAP_CTR));
		/* The driver reads the index after the flags. */
		smp_wmb();
		WRITE_ONCE(event->flags,
			   cpu_to_le16(VRING_PACKED_EVENT_FLAG_DESC));
	} else if (ring->packed) {
		WRITE_ONCE(event->flags,
			   cpu_to_le16(VRING_PACKED_EVENT_FLAG_ENABLE));
	} else if (ring->event_idx) {
		WRITE_ONCE(*vdpa_blk_avail_event(ring),
			   cpu_to_le16(ring->next_avail));
	} else {
		WRITE_ONCE(vdpa_blk_used(ring)->flags, 0);
	}
	/* Either the driver sees this, or the device sees the chain. */
	smp_mb();
	return vdpa_blk_has_more(ring);
}

/* Chains */

bool vdpa_blk_parse_split(struct vdpa_blk_queue *q, unsigned int i);
int vdpa_blk_take_packed(struct vdpa_blk_queue *q);

/* Copy an indirect table; returns its number of entries, or 0. */
static __always_inline unsigned int
vdpa_blk_read_table(struct vdpa_blk_queue *q, void *to, u64 addr, u32 len)
{
	/* A length of 0 is too long as well. */
	if (unlikely(len - 1 >= sizeof(q->table) || len % sizeof(struct vring_desc) ||
		     !q->ring.indirect))
		return 0;
	if (unlikely(vdpa_blk_read(q->vb->memory, &q->hint, to, addr, len)))
		return 0;
	return len / sizeof(struct vring_desc);
}

/*
 * Take a table of a split ring into q->chain where its descriptors follow each other, as
 * drivers make them.  Returns false for all others, good or bad.
 */
static __always_inline bool
vdpa_blk_take_table(struct vdpa_blk_queue *q, u64 addr, u32 len)
{
	unsigned int num = vdpa_blk_read_table(q, q->chain.segs, addr, len), i, in = 0;
	struct vdpa_blk_seg *seg = q->chain.segs;
	u16 flags;

	static_assert(sizeof(*seg) == sizeof(struct vring_desc) &&
		      offsetof(struct vdpa_blk_seg, len) ==
		      offsetof(struct vring_desc, len) &&
		      offsetof(struct vdpa_blk_seg, flags) ==
		      offsetof(struct vring_desc, flags) &&
		      offsetof(struct vdpa_blk_seg, next) ==
		      offsetof(struct vring_desc, next));
	for (i = 1; i <= num; i++, seg++) {
		seg->addr = le64_to_cpu((__force __le64)seg->addr);
		seg->len = le32_to_cpu((__force __le32)seg->len);
		flags = le16_to_cpu((__force __le16)seg->flags);
		if (unlikely(!seg->len || flags & VRING_DESC_F_INDIRECT))
			return false;
		if (flags & VRING_DESC_F_WRITE)
			in++;
		else if (unlikely(in))
			return false;
		if (!(flags & VRING_DESC_F_NEXT)) {
			q->chain.nr_out = i - in;
			q->chain.nr_in = in;
			return true;
		}
		if (unlikely(le16_to_cpu((__force __le16)seg->next) != i))
			return false;
	}
	return false;
}

static __always_inline int vdpa_blk_take_split(struct vdpa_blk_queue *q)
{
	struct vdpa_blk_ring *ring = &q->ring;
	const struct vring_desc *desc = ring->desc.addr;
	u16 head, flags;

	head = virtio16_to_cpu_le(READ_ONCE(vdpa_blk_avail(ring)->ring[ring->next_avail &
								       (ring->num - 1)]));
	if (unlikely(head >= ring->num))
		return -EINVAL;
	q->chain.id = head;
	q->chain.descs = 1;
	/* Also a CPU that speculates stays in the ring. */
	desc += array_index_nospec(head, ring->num);
	flags = virtio16_to_cpu_le(READ_ONCE(desc->flags));
	/* What is not such a table, or changes meanwhile, is parsed from the beginning. */
	if (((flags & (VRING_DESC_F_INDIRECT | VRING_DESC_F_NEXT)) !=
	     VRING_DESC_F_INDIRECT ||
	     !vdpa_blk_take_table(q, virtio64_to_cpu_le(READ_ONCE(desc->addr)),
				  virtio32_to_cpu_le(READ_ONCE(desc->len)))) &&
	    !vdpa_blk_parse_split(q, head))
		return -EINVAL;
	ring->next_avail++;
	ring->left--;
	return 1;
}

/**
 * vdpa_blk_find_chains() - how many chains has the driver made available?
 * @ring: the ring
 *
 * Context: the queue's worker.
 *
 * Return: their number, or a lower one but 0; 0 if there is none; -EINVAL if a split ring
 * cannot have as many.
 */
static __always_inline int vdpa_blk_find_chains(struct vdpa_blk_ring *ring)
{
	u16 left = ring->left;

	if (left)
		return left;
	if (unlikely(ring->packed))
		return vdpa_blk_has_more(ring);
	/* The driver fills in entries before the index. */
	left = virtio16_to_cpu_le(smp_load_acquire(&vdpa_blk_avail(ring)->idx)) -
	       ring->next_avail;
	if (unlikely(left > ring->num))
		return -EINVAL;
	ring->left = left;
	return left;
}

/**
 * vdpa_blk_take_chain() - take the next chain off a ring
 * @q: the queue, with a chain by vdpa_blk_find_chains(); its chain is filled in
 *
 * Context: the queue's worker.
 *
 * Return: 1; 0 if the chain is not there any more; -EINVAL if the ring or the chain is
 * broken, and the queue must not be used any more.
 */
static __always_inline int vdpa_blk_take_chain(struct vdpa_blk_queue *q)
{
	return unlikely(q->ring.packed) ? vdpa_blk_take_packed(q) : vdpa_blk_take_split(q);
}

/**
 * vdpa_blk_put_back() - undo vdpa_blk_take_chain()
 * @ring: the ring
 * @descs: entries that the chain takes
 *
 * Context: the queue's worker.
 */
static inline void vdpa_blk_put_back(struct vdpa_blk_ring *ring, u16 descs)
{
	if (!ring->packed) {
		ring->next_avail--;
		ring->left++;
		return;
	}
	if (ring->next_avail < descs) {
		ring->next_avail += ring->num;
		ring->avail_wrap = !ring->avail_wrap;
	}
	ring->next_avail -= descs;
}

/* Used */

void vdpa_blk_add_used_packed(struct vdpa_blk_ring *ring, u16 id, u16 descs, u32 len);
bool vdpa_blk_packed_needs_signal(const struct vdpa_blk_ring *ring, u16 old);

/* Fill in entry @at of the used ring of a split ring. */
static inline void vdpa_blk_set_used(const struct vdpa_blk_ring *ring, u16 at, u16 id,
				     u32 len)
{
	struct vring_used_elem *used = &vdpa_blk_used(ring)->ring[at & (ring->num - 1)];

	used->id = (__force __virtio32)cpu_to_le32(id);
	used->len = (__force __virtio32)cpu_to_le32(len);
}

/**
 * vdpa_blk_add_used() - return a chain to the driver
 * @ring: the ring, its queue's lock held
 * @id: the chain's id
 * @descs: entries of a packed ring that it takes
 * @len: bytes that the device has written
 *
 * The driver of a split ring sees it after vdpa_blk_publish_used().
 */
static inline void vdpa_blk_add_used(struct vdpa_blk_ring *ring, u16 id, u16 descs,
				     u32 len)
{
	ring->unsignalled += descs;
	if (unlikely(ring->packed)) {
		vdpa_blk_add_used_packed(ring, id, descs, len);
		return;
	}
	vdpa_blk_set_used(ring, ring->next_used++, id, len);
}

/**
 * vdpa_blk_publish_used() - let the driver see all chains that were returned
 * @ring: the ring, its queue's lock held
 *
 * Return: true if the driver wants an interrupt for them.
 */
static inline bool vdpa_blk_publish_used(struct vdpa_blk_ring *ring)
{
	u16 old = ring->next_used - ring->unsignalled, event;

	if (!ring->packed)
		/* The entries are there before the index. */
		smp_store_release(&vdpa_blk_used(ring)->idx, (__force __virtio16)
				  cpu_to_le16(ring->next_used));
	/* Either the driver sees them, or the device sees that it wants to know. */
	smp_mb();
	ring->unsignalled = 0;
	if (ring->packed)
		return vdpa_blk_packed_needs_signal(ring, old);
	if (!ring->event_idx)
		return !(virtio16_to_cpu_le(READ_ONCE(vdpa_blk_avail(ring)->flags)) &
			 VRING_AVAIL_F_NO_INTERRUPT);
	event = le16_to_cpu(READ_ONCE(*vdpa_blk_used_event(ring)));
	return vring_need_event(event, ring->next_used, old);
}

#endif /* VDPA_BLK_RING_H */
