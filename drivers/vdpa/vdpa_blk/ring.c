// SPDX-License-Identifier: GPL-2.0
/*
 * A virtqueue's ring from the device's side: split and packed (VIRTIO 1.4, 2.7 and 2.8).
 *
 * The driver may write to its memory at any time, so each value is read once, checked,
 * and used from there on.  All devices are VIRTIO 1, so all values are little-endian.
 */

#include <linux/log2.h>

#include "memory.h"
#include "queue.h"
#include "ring.h"
#include "vdpa_blk.h"

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

/**
 * vdpa_blk_default_state() - let a ring begin where it does after a reset
 * @q: the queue, the device's lock held
 *
 * Nothing happens if the bus driver has set where the ring begins, as it need not.  Both
 * wrap counters of a packed ring are 1 (VIRTIO 1.4, 2.8.1).
 */
void vdpa_blk_default_state(struct vdpa_blk_queue *q)
{
	if (q->has_state)
		return;
	/* What an earlier call has set for a packed ring is no index of a split one. */
	memset(&q->state, 0, sizeof(q->state));
	if (!(q->vb->driver_features & BIT_ULL(VIRTIO_F_RING_PACKED)))
		return;
	q->state.packed.last_avail_counter = 1;
	q->state.packed.last_used_counter = 1;
}

static void vdpa_blk_init_ring(struct vdpa_blk_queue *q)
{
	struct vdpa_blk_ring *ring = &q->ring;
	u64 features = q->vb->driver_features;

	vdpa_blk_default_state(q);
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
	ring->left = 0;
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
	/* Without memory nothing can be mapped, and nothing runs. */
	q->hint = memory ? memory->extents : NULL;
	q->data_hint = q->hint;
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
	q->has_state = true;
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

/* Used */

/**
 * vdpa_blk_add_used_packed() - return a chain to the driver of a packed ring
 * @ring: the ring, its queue's lock held
 * @id: the chain's id
 * @descs: entries of the ring that it takes
 * @len: bytes that the device has written
 *
 * The driver can see it at once.
 */
void vdpa_blk_add_used_packed(struct vdpa_blk_ring *ring, u16 id, u16 descs, u32 len)
{
	struct vring_packed_desc *desc;
	u16 flags;

	desc = (struct vring_packed_desc *)ring->desc.addr + ring->next_used;
	desc->id = cpu_to_le16(id);
	desc->len = cpu_to_le32(len);
	flags = ring->used_wrap ? PACKED_AVAIL | PACKED_USED : 0;
	if (len)
		flags |= VRING_DESC_F_WRITE;
	/* The driver reads the rest after the flags. */
	smp_store_release(&desc->flags, cpu_to_le16(flags));
	ring->unsignalled += descs;
	ring->next_used += descs;
	if (ring->next_used >= ring->num) {
		ring->next_used -= ring->num;
		ring->used_wrap = !ring->used_wrap;
	}
}

/**
 * vdpa_blk_publish_packed() - does the driver of a packed ring want an interrupt?
 * @ring: the ring, its queue's lock held, with chains by vdpa_blk_add_used_packed()
 *
 * Return: true if it does.
 */
bool vdpa_blk_publish_packed(struct vdpa_blk_ring *ring)
{
	struct vring_packed_desc_event *event = ring->driver.addr;
	u16 old = ring->next_used - ring->unsignalled, flags, off_wrap, off;
	bool wrap;

	/* Either the driver sees them, or the device sees that it wants to know. */
	smp_mb();
	ring->unsignalled = 0;
	flags = le16_to_cpu(READ_ONCE(event->flags)) & 3;
	if (flags != VRING_PACKED_EVENT_FLAG_DESC || !ring->event_idx)
		return flags != VRING_PACKED_EVENT_FLAG_DISABLE;
	/* The driver writes the index before the flags. */
	smp_rmb();
	off_wrap = le16_to_cpu(READ_ONCE(event->off_wrap));
	wrap = off_wrap >> VRING_PACKED_EVENT_F_WRAP_CTR;
	off = off_wrap & ~BIT(VRING_PACKED_EVENT_F_WRAP_CTR);
	/*
	 * Count from the turn of the ring that @next_used is in.  An index of the turn before
	 * is then negative, modulo 2^16, as vring_need_event() compares.
	 */
	if (wrap != ring->used_wrap)
		off -= ring->num;
	return vring_need_event(off, ring->next_used, old);
}
