/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A virtqueue's ring, and what each request or batch runs through of ring.c.
 */
#ifndef VDPA_BLK_RING_H
#define VDPA_BLK_RING_H

#include <linux/cache.h>
#include <linux/virtio_ring.h>

#include "memory.h"

struct vdpa_blk_queue;

#define PACKED_AVAIL	BIT(VRING_PACKED_DESC_F_AVAIL)
#define PACKED_USED	BIT(VRING_PACKED_DESC_F_USED)

#define virtio16_to_cpu_le(v)	le16_to_cpu((__force __le16)(v))
#define virtio32_to_cpu_le(v)	le32_to_cpu((__force __le32)(v))
#define virtio64_to_cpu_le(v)	le64_to_cpu((__force __le64)(v))

/**
 * struct vdpa_blk_ring - a virtqueue's ring, as the device uses it
 * @num: entries
 * @packed: VIRTIO_F_RING_PACKED is negotiated
 * @event_idx: VIRTIO_RING_F_EVENT_IDX is
 * @indirect: VIRTIO_RING_F_INDIRECT_DESC is
 * @desc: descriptor area (VIRTIO 1.4, 2.6)
 * @driver: driver area, which the driver writes
 * @device: device area, which the device writes
 * @next_avail: index of the next available entry
 * @left: entries of a split ring from there on that are known to be available
 * @avail_wrap: the driver's wrap counter, of a packed ring
 * @next_used: index of the next used entry
 * @used_wrap: the device's wrap counter, of a packed ring
 * @unsignalled: used entries of a packed ring since the device last decided whether to
 *	signal
 *
 * The worker alone changes @next_avail, @left and @avail_wrap; the queue's lock protects
 * @next_used and those after it, which have a cache line of their own.  The others change
 * while the workers are parked and nothing is in flight, and completions read them as well.
 */
struct vdpa_blk_ring {
	u16 num;
	bool packed;
	bool event_idx;
	bool indirect;
	struct vdpa_blk_area desc;
	struct vdpa_blk_area driver;
	struct vdpa_blk_area device;
	u16 next_avail;
	u16 left;
	bool avail_wrap;

	u16 next_used ____cacheline_aligned_in_smp;
	bool used_wrap;
	u16 unsignalled;
};

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

int vdpa_blk_map_ring(struct vdpa_blk_queue *q);
void vdpa_blk_default_state(struct vdpa_blk_queue *q);
void vdpa_blk_save_state(struct vdpa_blk_queue *q);
void vdpa_blk_unmap_ring(struct vdpa_blk_queue *q);

/* Kicks */

/**
 * vdpa_blk_suppress_kicks() - ask the driver not to notify the device
 * @ring: the ring
 *
 * With an event index there is nothing to write: the driver does not notify again after it
 * has passed the index.
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

/**
 * vdpa_blk_find_chains() - how many chains has the driver made available?
 * @ring: the ring
 *
 * Context: the queue's worker.
 *
 * Return: 0 if there is none; otherwise at least 1 and at most their number; -EINVAL if a
 * split ring cannot have as many.
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
bool vdpa_blk_publish_packed(struct vdpa_blk_ring *ring);

/* Fill in an entry of the used ring of a split ring. */
static inline void vdpa_blk_set_used(struct vring_used_elem *used, u16 id, u32 len)
{
	used->id = (__force __virtio32)cpu_to_le32(id);
	used->len = (__force __virtio32)cpu_to_le32(len);
}

/**
 * vdpa_blk_publish_split() - let the driver of a split ring see chains that were returned
 * @ring: the ring, its queue's lock held
 * @next: index after the entries that are filled in, which begin at @ring->next_used
 *
 * Return: true if the driver wants an interrupt for them.
 */
static inline bool vdpa_blk_publish_split(struct vdpa_blk_ring *ring, u16 next)
{
	u16 old = ring->next_used, event;

	ring->next_used = next;
	/* The entries are there before the index. */
	smp_store_release(&vdpa_blk_used(ring)->idx,
			  (__force __virtio16)cpu_to_le16(next));
	/* Either the driver sees them, or the device sees that it wants to know. */
	smp_mb();
	if (unlikely(!ring->event_idx))
		return !(virtio16_to_cpu_le(READ_ONCE(vdpa_blk_avail(ring)->flags)) &
			 VRING_AVAIL_F_NO_INTERRUPT);
	event = le16_to_cpu(READ_ONCE(*vdpa_blk_used_event(ring)));
	return vring_need_event(event, next, old);
}

#endif /* VDPA_BLK_RING_H */
