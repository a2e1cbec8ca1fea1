/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The chains of a ring, and what each request runs through of chain.c.
 */
#ifndef VDPA_BLK_CHAIN_H
#define VDPA_BLK_CHAIN_H

#include <linux/nospec.h>

#include "memory.h"
#include "queue.h"
#include "ring.h"
#include "vdpa_blk.h"

bool vdpa_blk_parse_split(struct vdpa_blk_queue *q, unsigned int i);
int vdpa_blk_take_packed(struct vdpa_blk_queue *q);
int vdpa_blk_take_bytes(struct vdpa_blk_queue *q, void *to, u32 len);

/* Copy an indirect table; returns its number of entries, or 0. */
static __always_inline unsigned int
vdpa_blk_read_table(struct vdpa_blk_queue *q, void *to, u64 addr, u32 len)
{
	/* The subtraction makes a length of 0 the longest one, which is refused. */
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

/* Read the index of the next chain's first descriptor; NULL if that is not in the ring. */
static __always_inline const struct vring_desc *
vdpa_blk_find_head(const struct vdpa_blk_ring *ring, u16 *head)
{
	const struct vring_desc *desc = ring->desc.addr;

	*head = virtio16_to_cpu_le(READ_ONCE(vdpa_blk_avail(ring)->ring[ring->next_avail &
									(ring->num - 1)]));
	if (unlikely(*head >= ring->num))
		return NULL;
	/* Also a CPU that speculates stays in the ring. */
	return desc + array_index_nospec(*head, ring->num);
}

static __always_inline int vdpa_blk_take_split(struct vdpa_blk_queue *q)
{
	struct vdpa_blk_ring *ring = &q->ring;
	const struct vring_desc *desc;
	u16 head, flags;

	desc = vdpa_blk_find_head(ring, &head);
	if (unlikely(!desc))
		return -EINVAL;
	q->chain.id = head;
	q->chain.descs = 1;
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

#endif /* VDPA_BLK_CHAIN_H */
