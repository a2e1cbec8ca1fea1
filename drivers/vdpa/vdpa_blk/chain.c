// SPDX-License-Identifier: GPL-2.0
/*
 * The chains that the driver makes available, in split and packed rings and in indirect
 * tables (VIRTIO 1.4, 2.7.5, 2.7.5.3, 2.8.5 and 2.8.7).
 *
 * The driver may write to its memory at any time, so each value is read once, checked,
 * and used from there on.  A chain is no longer than VDPA_BLK_MAX_SEGS, wherever its
 * descriptors are.
 */

#include "chain.h"

/* Device-readable buffers precede those that the device writes. */
static bool vdpa_blk_add_seg(struct vdpa_blk_chain *chain, u64 addr, u32 len,
			     bool write)
{
	unsigned int nr = chain->nr_out + chain->nr_in;

	if (nr == VDPA_BLK_MAX_SEGS || !len || (!write && chain->nr_in))
		return false;
	chain->segs[nr].addr = addr;
	chain->segs[nr].len = len;
	if (write)
		chain->nr_in++;
	else
		chain->nr_out++;
	return true;
}

/**
 * vdpa_blk_parse_split() - copy any chain of a split ring into q->chain
 * @q: the queue
 * @i: the chain's first descriptor
 *
 * Return: false if VIRTIO does not allow the chain.
 */
bool vdpa_blk_parse_split(struct vdpa_blk_queue *q, unsigned int i)
{
	struct vdpa_blk_seg *seg = q->chain.segs, *in = NULL;
	const struct vring_desc *table = q->ring.desc.addr;
	unsigned int num = q->ring.num;
	bool in_table = false;
	u16 flags;
	u64 addr;
	u32 len;

	do {
		/* A loop is longer than a chain may be. */
		if (i >= num || seg == q->chain.segs + VDPA_BLK_MAX_SEGS)
			return false;
		i = array_index_nospec(i, num);
		flags = virtio16_to_cpu_le(READ_ONCE(table[i].flags));
		addr = virtio64_to_cpu_le(READ_ONCE(table[i].addr));
		len = virtio32_to_cpu_le(READ_ONCE(table[i].len));
		if (unlikely(flags & VRING_DESC_F_INDIRECT)) {
			/* A table ends the chain, and has no table in it. */
			if (in_table || flags & VRING_DESC_F_NEXT)
				return false;
			num = vdpa_blk_read_table(q, &q->table, addr, len);
			table = q->table.split;
			in_table = true;
			flags = VRING_DESC_F_NEXT;
			i = 0;
			continue;
		}
		/* Device-readable buffers precede those that the device writes. */
		if (!(flags & VRING_DESC_F_WRITE)) {
			if (in)
				return false;
		} else if (!in) {
			in = seg;
		}
		if (!len)
			return false;
		seg->addr = addr;
		seg->len = len;
		seg++;
		i = virtio16_to_cpu_le(READ_ONCE(table[i].next));
	} while (flags & VRING_DESC_F_NEXT);

	q->chain.nr_out = (in ?: seg) - q->chain.segs;
	q->chain.nr_in = seg - q->chain.segs - q->chain.nr_out;
	return true;
}

static bool vdpa_blk_parse_table(struct vdpa_blk_queue *q, u64 addr, u32 len)
{
	unsigned int num = vdpa_blk_read_table(q, &q->table, addr, len), i;
	const struct vring_packed_desc *desc = q->table.packed;

	/* VIRTIO 1.4, 2.8.7: the device ignores the flags except WRITE. */
	for (i = 0; i < num; i++)
		if (!vdpa_blk_add_seg(&q->chain, le64_to_cpu(desc[i].addr),
				      le32_to_cpu(desc[i].len),
				      le16_to_cpu(desc[i].flags) &
				      VRING_DESC_F_WRITE))
			return false;
	return num;
}

/**
 * vdpa_blk_take_packed() - vdpa_blk_take_chain() for a packed ring
 * @q: the queue
 *
 * Return: see there.
 */
int vdpa_blk_take_packed(struct vdpa_blk_queue *q)
{
	struct vdpa_blk_ring *ring = &q->ring;
	struct vring_packed_desc *all = ring->desc.addr, *desc;
	unsigned int i = ring->next_avail, descs = 0;
	bool wrap = ring->avail_wrap, good;
	u16 flags;

	q->chain.nr_out = 0;
	q->chain.nr_in = 0;
	/* The driver writes the flags of the first descriptor last. */
	flags = le16_to_cpu((__force __le16)smp_load_acquire(&all[i].flags));
	if (!vdpa_blk_is_available(ring, flags, wrap))
		return 0;
	for (;;) {
		desc = &all[i];
		if (flags & VRING_DESC_F_INDIRECT)
			good = !descs && !(flags & VRING_DESC_F_NEXT) &&
			       vdpa_blk_parse_table(q, le64_to_cpu(READ_ONCE(desc->addr)),
						    le32_to_cpu(READ_ONCE(desc->len)));
		else
			good = vdpa_blk_add_seg(&q->chain,
						le64_to_cpu(READ_ONCE(desc->addr)),
						le32_to_cpu(READ_ONCE(desc->len)),
						flags & VRING_DESC_F_WRITE);
		if (!good || ++descs > ring->num)
			return -EINVAL;
		/* The id is in the last descriptor. */
		q->chain.id = le16_to_cpu(READ_ONCE(desc->id));
		if (++i == ring->num) {
			i = 0;
			wrap = !wrap;
		}
		if (!(flags & VRING_DESC_F_NEXT))
			break;
		flags = le16_to_cpu(READ_ONCE(all[i].flags));
	}
	q->chain.descs = descs;
	ring->next_avail = i;
	ring->avail_wrap = wrap;
	return 1;
}

/**
 * vdpa_blk_take_bytes() - copy the next bytes of what the driver has written
 * @q: the queue, with a chain by vdpa_blk_take_chain() and @taken set
 * @to: where to copy to
 * @len: bytes
 *
 * Context: the queue's worker.
 *
 * Return: 0; -EINVAL if the chain has less, or -EFAULT for memory that the driver does not
 * share.
 */
int vdpa_blk_take_bytes(struct vdpa_blk_queue *q, void *to, u32 len)
{
	struct vdpa_blk_chain *chain = &q->chain;
	struct vdpa_blk_seg *seg;
	u32 part;
	int err;

	while (len) {
		if (chain->taken == chain->nr_out)
			return -EINVAL;
		seg = &chain->segs[chain->taken];
		part = min(len, seg->len);
		err = vdpa_blk_read(q->vb->memory, &q->hint, to, seg->addr, part);
		if (err)
			return err;
		to += part;
		len -= part;
		seg->addr += part;
		seg->len -= part;
		if (!seg->len)
			chain->taken++;
	}
	return 0;
}
