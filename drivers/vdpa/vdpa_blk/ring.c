// SPDX-License-Identifier: GPL-2.0
/*
 * A virtqueue's ring from the device's side: split and packed (VIRTIO 1.4, 2.7 and 2.8).
 *
 * The driver may write to its memory at any time, so each value is read once, checked,
 * and used from there on.  A chain is no longer than VDPA_BLK_MAX_SEGS, wherever its
 * descriptors are.  All devices are VIRTIO 1, so all values are little-endian.
 */

#include <linux/log2.h>
#include <linux/slab.h>

#include "memory.h"
#include "vdpa_blk.h"

#define PACKED_AVAIL	BIT(VRING_PACKED_DESC_F_AVAIL)
#define PACKED_USED	BIT(VRING_PACKED_DESC_F_USED)

/* Sizes of the areas */

static size_t vdpa_blk_desc_size(const struct vdpa_blk_ring *ring)
{
	return (size_t)ring->num * sizeof(struct vring_desc);
}

static size_t vdpa_blk_driver_size(const struct vdpa_blk_ring *ring)
{
	if (ring->packed)
		return sizeof(struct vring_packed_desc_event);
	/* The last entry is used_event. */
	return sizeof(struct vring_avail) + (ring->num + 1) * sizeof(__virtio16);
}

static size_t vdpa_blk_device_size(const struct vdpa_blk_ring *ring)
{
	if (ring->packed)
		return sizeof(struct vring_packed_desc_event);
	return sizeof(struct vring_used) +
	       ring->num * sizeof(struct vring_used_elem) + sizeof(__virtio16);
}

#define virtio16_to_cpu_le(v)	le16_to_cpu((__force __le16)(v))
#define virtio32_to_cpu_le(v)	le32_to_cpu((__force __le32)(v))
#define virtio64_to_cpu_le(v)	le64_to_cpu((__force __le64)(v))

static struct vring_avail *vdpa_blk_avail(const struct vdpa_blk_ring *ring)
{
	return ring->driver.addr;
}

static struct vring_used *vdpa_blk_used(const struct vdpa_blk_ring *ring)
{
	return ring->device.addr;
}

static __le16 *vdpa_blk_used_event(const struct vdpa_blk_ring *ring)
{
	return (__force __le16 *)&vdpa_blk_avail(ring)->ring[ring->num];
}

static __le16 *vdpa_blk_avail_event(const struct vdpa_blk_ring *ring)
{
	return (__force __le16 *)&vdpa_blk_used(ring)->ring[ring->num];
}

static void vdpa_blk_init_ring(struct vdpa_blk_queue *q)
{
	struct vdpa_blk_ring *ring = &q->ring;
	u64 features = q->vb->driver_features;

	ring->num = q->num;
	ring->packed = features & BIT_ULL(VIRTIO_F_RING_PACKED);
	ring->event_idx = features & BIT_ULL(VIRTIO_RING_F_EVENT_IDX);
	ring->indirect = features & BIT_ULL(VIRTIO_RING_F_INDIRECT_DESC);
	if (ring->packed) {
		ring->next_avail = q->state.packed.last_avail_idx;
		ring->avail_wrap = q->state.packed.last_avail_counter;
		ring->next_used = q->state.packed.last_used_idx;
		ring->used_wrap = q->state.packed.last_used_counter;
	} else {
		ring->next_avail = q->state.split.avail_index;
		ring->next_used = q->state.split.avail_index;
	}
	ring->unsignalled = 0;
}

/**
 * vdpa_blk_map_ring() - map a queue's ring
 * @q: the queue, its addresses, size and state set, the device's lock held
 *
 * Context: may sleep.
 *
 * Return: 0, -ENOMEM, -EINVAL for a state that the ring cannot have, or -EFAULT if the
 * driver does not share all of it.
 */
int vdpa_blk_map_ring(struct vdpa_blk_queue *q)
{
	const struct vdpa_blk_memory *memory = q->vb->memory;
	struct vdpa_blk_ring *ring = &q->ring;
	int err;

	vdpa_blk_init_ring(q);
	/* Indexes of a split ring wrap without a division. */
	if (!ring->packed && !is_power_of_2(ring->num))
		return -EINVAL;
	if (ring->packed && (ring->next_avail >= ring->num ||
			     ring->next_used >= ring->num))
		return -EINVAL;
	if (!IS_ALIGNED(q->desc_addr, VRING_DESC_ALIGN_SIZE) ||
	    !IS_ALIGNED(q->driver_addr, ring->packed ? 4 : VRING_AVAIL_ALIGN_SIZE) ||
	    !IS_ALIGNED(q->device_addr, VRING_USED_ALIGN_SIZE))
		return -EINVAL;

	/* The device writes used descriptors of a packed ring. */
	err = vdpa_blk_map_area(memory, &ring->desc, q->desc_addr,
				vdpa_blk_desc_size(ring), ring->packed);
	if (!err)
		err = vdpa_blk_map_area(memory, &ring->driver, q->driver_addr,
					vdpa_blk_driver_size(ring), false);
	if (!err)
		err = vdpa_blk_map_area(memory, &ring->device, q->device_addr,
					vdpa_blk_device_size(ring), true);
	if (err) {
		vdpa_blk_unmap_ring(q);
		return err;
	}
	/* The ring may have used entries from an earlier mapping. */
	if (!ring->packed)
		ring->next_used =
			virtio16_to_cpu_le(READ_ONCE(vdpa_blk_used(ring)->idx));
	return 0;
}

/**
 * vdpa_blk_save_state() - note where a queue's ring is
 * @q: the queue, its ring mapped, the device's lock held
 */
void vdpa_blk_save_state(struct vdpa_blk_queue *q)
{
	struct vdpa_blk_ring *ring = &q->ring;

	if (ring->packed) {
		q->state.packed.last_avail_idx = ring->next_avail;
		q->state.packed.last_avail_counter = ring->avail_wrap;
		q->state.packed.last_used_idx = ring->next_used;
		q->state.packed.last_used_counter = ring->used_wrap;
	} else {
		q->state.split.avail_index = ring->next_avail;
	}
}

/**
 * vdpa_blk_unmap_ring() - unmap a queue's ring, and keep where it was
 * @q: the queue, which has nothing in flight, the device's lock held
 *
 * Context: may sleep.
 */
void vdpa_blk_unmap_ring(struct vdpa_blk_queue *q)
{
	struct vdpa_blk_ring *ring = &q->ring;

	vdpa_blk_save_state(q);
	vdpa_blk_unmap_area(&ring->desc, ring->packed);
	vdpa_blk_unmap_area(&ring->driver, false);
	vdpa_blk_unmap_area(&ring->device, true);
}

/* Chains */

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

/* A copy of an indirect table is in q->table; returns its number of entries, or 0. */
static unsigned int vdpa_blk_read_table(struct vdpa_blk_queue *q, u64 addr,
					u32 len)
{
	if (!q->ring.indirect || !len || len % sizeof(struct vring_desc) ||
	    len > sizeof(q->table) ||
	    vdpa_blk_read(q->vb->memory, &q->hint, &q->table, addr, len))
		return 0;
	return len / sizeof(struct vring_desc);
}

static bool vdpa_blk_parse_split(struct vdpa_blk_queue *q,
				 const struct vring_desc *desc, unsigned int num,
				 unsigned int i, bool in_table)
{
	unsigned int steps = num;
	u16 flags;
	u64 addr;
	u32 len;

	do {
		/* A loop takes more steps than there are descriptors. */
		if (i >= num || !steps--)
			return false;
		flags = virtio16_to_cpu_le(READ_ONCE(desc[i].flags));
		addr = virtio64_to_cpu_le(READ_ONCE(desc[i].addr));
		len = virtio32_to_cpu_le(READ_ONCE(desc[i].len));
		if (flags & VRING_DESC_F_INDIRECT) {
			/* A table ends the chain, and has no table in it. */
			num = in_table || flags & VRING_DESC_F_NEXT ? 0 :
			      vdpa_blk_read_table(q, addr, len);
			return num && vdpa_blk_parse_split(q, q->table.split, num,
							   0, true);
		}
		if (!vdpa_blk_add_seg(&q->chain, addr, len,
				      flags & VRING_DESC_F_WRITE))
			return false;
		i = virtio16_to_cpu_le(READ_ONCE(desc[i].next));
	} while (flags & VRING_DESC_F_NEXT);
	return true;
}

static int vdpa_blk_next_split(struct vdpa_blk_queue *q)
{
	struct vdpa_blk_ring *ring = &q->ring;
	struct vring_avail *avail = vdpa_blk_avail(ring);
	u16 left, head;

	/* The driver fills in an entry before the index. */
	left = (u16)(virtio16_to_cpu_le(smp_load_acquire(&avail->idx)) -
		     ring->next_avail);
	if (!left)
		return 0;
	if (left > ring->num)
		return -EINVAL;
	head = virtio16_to_cpu_le(READ_ONCE(avail->ring[ring->next_avail &
							(ring->num - 1)]));
	q->chain.id = head;
	q->chain.descs = 1;
	if (!vdpa_blk_parse_split(q, ring->desc.addr, ring->num, head, false))
		return -EINVAL;
	ring->next_avail++;
	return 1;
}

static bool vdpa_blk_parse_table(struct vdpa_blk_queue *q, u64 addr, u32 len)
{
	unsigned int num = vdpa_blk_read_table(q, addr, len), i;
	const struct vring_packed_desc *desc = q->table.packed;

	for (i = 0; i < num; i++)
		if (le16_to_cpu(desc[i].flags) & VRING_DESC_F_INDIRECT ||
		    !vdpa_blk_add_seg(&q->chain, le64_to_cpu(desc[i].addr),
				      le32_to_cpu(desc[i].len),
				      le16_to_cpu(desc[i].flags) &
				      VRING_DESC_F_WRITE))
			return false;
	return num;
}

static bool vdpa_blk_is_available(const struct vdpa_blk_ring *ring, u16 flags,
				  bool wrap)
{
	return !!(flags & PACKED_AVAIL) == wrap &&
	       !!(flags & PACKED_USED) != wrap;
}

static int vdpa_blk_next_packed(struct vdpa_blk_queue *q)
{
	struct vdpa_blk_ring *ring = &q->ring;
	struct vring_packed_desc *all = ring->desc.addr, *desc;
	unsigned int i = ring->next_avail, descs = 0;
	bool wrap = ring->avail_wrap, good;
	u16 flags;

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
 * vdpa_blk_next_chain() - take the next chain off a ring
 * @q: the queue; its chain is filled in
 *
 * Context: the queue's worker.
 *
 * Return: 1; 0 if there is none; -EINVAL if the ring or the chain is broken, and the
 * queue must not be used any more.
 */
int vdpa_blk_next_chain(struct vdpa_blk_queue *q)
{
	q->chain.nr_out = 0;
	q->chain.nr_in = 0;
	return q->ring.packed ? vdpa_blk_next_packed(q) : vdpa_blk_next_split(q);
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
void vdpa_blk_suppress_kicks(struct vdpa_blk_ring *ring)
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
bool vdpa_blk_has_more(const struct vdpa_blk_ring *ring)
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
bool vdpa_blk_allow_kicks(struct vdpa_blk_ring *ring)
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

/* Used */

/**
 * vdpa_blk_add_used() - return a chain to the driver
 * @ring: the ring, its queue's lock held
 * @id: the chain's id
 * @descs: entries of a packed ring that it takes
 * @len: bytes that the device has written
 *
 * The driver of a split ring sees it after vdpa_blk_publish_used().
 */
void vdpa_blk_add_used(struct vdpa_blk_ring *ring, u16 id, u16 descs, u32 len)
{
	struct vring_packed_desc *desc;
	struct vring_used_elem *used;
	u16 flags;

	ring->unsignalled += descs;
	if (!ring->packed) {
		used = &vdpa_blk_used(ring)->ring[ring->next_used &
						  (ring->num - 1)];
		used->id = (__force __virtio32)cpu_to_le32(id);
		used->len = (__force __virtio32)cpu_to_le32(len);
		ring->next_used++;
		return;
	}
	desc = (struct vring_packed_desc *)ring->desc.addr + ring->next_used;
	desc->id = cpu_to_le16(id);
	desc->len = cpu_to_le32(len);
	flags = ring->used_wrap ? PACKED_AVAIL | PACKED_USED : 0;
	if (len)
		flags |= VRING_DESC_F_WRITE;
	/* The driver reads the rest after the flags. */
	smp_store_release(&desc->flags, cpu_to_le16(flags));
	ring->next_used += descs;
	if (ring->next_used >= ring->num) {
		ring->next_used -= ring->num;
		ring->used_wrap = !ring->used_wrap;
	}
}

static bool vdpa_blk_packed_needs_signal(struct vdpa_blk_ring *ring, u16 old)
{
	struct vring_packed_desc_event *event = ring->driver.addr;
	u16 flags = le16_to_cpu(READ_ONCE(event->flags)) & 3, off_wrap, off;
	bool wrap;

	if (flags != VRING_PACKED_EVENT_FLAG_DESC || !ring->event_idx)
		return flags != VRING_PACKED_EVENT_FLAG_DISABLE;
	/* The driver writes the index before the flags. */
	smp_rmb();
	off_wrap = le16_to_cpu(READ_ONCE(event->off_wrap));
	wrap = off_wrap >> VRING_PACKED_EVENT_F_WRAP_CTR;
	off = off_wrap & ~BIT(VRING_PACKED_EVENT_F_WRAP_CTR);
	/* As if the ring went on without an end before @next_used. */
	if (wrap != ring->used_wrap)
		off -= ring->num;
	return vring_need_event(off, ring->next_used, old);
}

/**
 * vdpa_blk_publish_used() - let the driver see all chains that were returned
 * @ring: the ring, its queue's lock held
 *
 * Return: true if the driver wants an interrupt for them.
 */
bool vdpa_blk_publish_used(struct vdpa_blk_ring *ring)
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
