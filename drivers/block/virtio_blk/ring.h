/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The hot path of a ring that the driver runs itself; ring.c has the rest.
 *
 * All fields of the ring are little-endian, because the driver requires
 * VIRTIO_F_VERSION_1.
 */
#ifndef VIRTBLK_RING_H
#define VIRTBLK_RING_H

#include <linux/hrtimer.h>
#include <linux/virtio_ring.h>

#include "virtio_blk.h"

/*
 * How often a ring is polled whose interrupt the virtio core may drop.  The time doubles
 * with each poll, so that a device that stalls there costs little.
 */
#define VIRTBLK_GUARD_NS	((u32)(100 * NSEC_PER_USEC))
#define VIRTBLK_MAX_GUARD_NS	((u32)(10 * NSEC_PER_MSEC))

/* Bytes of the table of a request with one segment. */
#define VIRTBLK_USUAL_TABLE	((1 + VIRTBLK_EXTRA_DESCS) * sizeof(struct vring_desc))

void virtblk_start_guard(struct virtblk_queue *q);
void virtblk_break_ring(struct virtblk_queue *q, u32 tag);

static inline u16 virtblk_ring_read(const __virtio16 *value)
{
	return le16_to_cpu((__force __le16)READ_ONCE(*value));
}

static inline void virtblk_ring_write(__virtio16 *place, u16 value)
{
	WRITE_ONCE(*place, (__force __virtio16)cpu_to_le16(value));
}

/* An entry of a table: @addr is a physical or a DMA address, @len in bytes. */
static inline void virtblk_set_buffer(struct vring_desc *desc, u64 addr, u32 len)
{
	desc->addr = (__force __virtio64)cpu_to_le64(addr);
	desc->len = (__force __virtio32)cpu_to_le32(len);
}

static inline void virtblk_set_flags(struct vring_desc *desc, u16 flags)
{
	desc->flags = (__force __virtio16)cpu_to_le16(flags);
}

/*
 * The entries of a packed ring's table have the same size.  Their flags are in another
 * place, and they have no links (VIRTIO 1.4, 2.8.7).
 */
static inline void virtblk_set_entry_flags(struct vring_desc *desc, u16 flags, bool packed)
{
	if (packed)
		((struct vring_packed_desc *)desc)->flags =
			cpu_to_le16(flags & VRING_DESC_F_WRITE);
	else
		virtblk_set_flags(desc, flags);
}

/* Set the flags of an entry, and the number of the @next one. */
static inline void virtblk_link_entry(struct vring_desc *desc, u16 flags, u16 next,
				      bool packed)
{
	virtblk_set_entry_flags(desc, flags, packed);
	if (packed)
		((struct vring_packed_desc *)desc)->id = 0;
	else
		desc->next = (__force __virtio16)cpu_to_le16(next);
}

/* The flags of the data's entries (VIRTIO 1.4, 2.7.5). */
static inline u16 virtblk_data_flags(struct request *req)
{
	return rq_data_dir(req) == READ ? VRING_DESC_F_NEXT | VRING_DESC_F_WRITE :
					  VRING_DESC_F_NEXT;
}

/*
 * If the device needs the DMA API it writes the status of a request to memory that it
 * shares.
 */
static inline void virtblk_fetch_status(struct virtblk_queue *q, struct virtblk_req *vbr,
					u32 tag)
{
	vbr->status = READ_ONCE(q->shared[tag].status);
}

/**
 * virtblk_ring_describe() - write the descriptor of a request
 * @q: the queue
 * @req: the request, its table filled in
 *
 * Needs no lock: the descriptor belongs to the request's tag.
 */
static inline void virtblk_ring_describe(struct virtblk_queue *q,
					 struct request *req)
{
	struct virtblk_req *vbr = blk_mq_rq_to_pdu(req);
	struct vring_desc *desc = &q->ring.desc[req->tag];

	desc->addr = (__force __virtio64)cpu_to_le64(vbr->table_addr);
	desc->len = (__force __virtio32)cpu_to_le32(vbr->table_len);
}

/**
 * virtblk_ring_add() - add a request to the available ring
 * @q: the queue, its submit_lock held
 * @req: the request, its descriptor written
 *
 * The device does not see it before virtblk_ring_publish().
 */
static inline void virtblk_ring_add(struct virtblk_queue *q, struct request *req)
{
	struct virtblk_ring *ring = &q->ring;
	u16 idx = q->avail_idx;

	virtblk_ring_write(&ring->avail->ring[idx & ring->mask], req->tag);
	/* Completion reads it to guess whether more will complete. */
	WRITE_ONCE(q->avail_idx, idx + 1);
}

/**
 * virtblk_ring_expect() - let completion find a request that was added
 * @q: the queue, its submit_lock held
 * @req: the request, which the caller does not use any more: a device that misbehaves may
 *	return it before it is published
 */
static inline void virtblk_ring_expect(struct virtblk_queue *q, struct request *req)
{
	/* Pairs with the address dependency in virtblk_ring_get(). */
	smp_store_release(&q->slots[req->tag], req);
}

/**
 * virtblk_ring_publish() - make the requests that were added visible to the device
 * @q: the queue, its submit_lock held
 */
static inline void virtblk_ring_publish(struct virtblk_queue *q)
{
	virtio_wmb(q->ring.weak_barriers);
	virtblk_ring_write(&q->ring.avail->idx, q->avail_idx);
}

/**
 * virtblk_ring_kick_event() - read the event index for notifications
 * @ring: the ring, with an event index
 *
 * Return: the index of the available ring at which the device wants to be notified.
 */
static inline u16 virtblk_ring_kick_event(const struct virtblk_ring *ring)
{
	return virtblk_ring_read((__virtio16 *)&ring->used->ring[ring->mask + 1]);
}

/**
 * virtblk_ring_must_kick() - must the driver notify the device of what it published?
 * @q: the queue, its submit_lock held
 *
 * VIRTIO 1.4, 2.7.10 and 2.7.13.4.
 *
 * Return: true if it must.
 */
static inline bool virtblk_ring_must_kick(struct virtblk_queue *q)
{
	struct virtblk_ring *ring = &q->ring;
	u16 old = q->kicked, new = q->avail_idx;

	q->kicked = new;
	/* The device may reach 0 now, where the core drops an interrupt. */
	if (unlikely(new < (u16)(new - old)))
		virtblk_start_guard(q);

	virtio_mb(ring->weak_barriers);
	if (ring->event_idx)
		return vring_need_event(virtblk_ring_kick_event(ring), new, old);
	return !(virtblk_ring_read(&ring->used->flags) & VRING_USED_F_NO_NOTIFY);
}

/**
 * virtblk_ring_lost_kick() - does the device wait for a notification that it has missed?
 * @q: the queue, which has made no progress for a while
 *
 * VIRTIO 1.4, 2.7.10.  Only an event index tells: a device that has read all that the driver
 * published asks for a notification of the next request.
 *
 * Return: true if it does.
 */
static inline bool virtblk_ring_lost_kick(struct virtblk_queue *q)
{
	struct virtblk_ring *ring = &q->ring;

	return ring->event_idx &&
	       virtblk_ring_kick_event(ring) != virtblk_ring_read(&ring->avail->idx);
}

/**
 * virtblk_ring_guarded() - may the virtio core still drop an interrupt?
 * @q: the queue, its lock held
 *
 * Return: true until the driver has taken the request off the ring that brought the used
 * index to 0.
 */
static inline bool virtblk_ring_guarded(struct virtblk_queue *q)
{
	return (s16)q->used_idx < 0;
}

/**
 * virtblk_ring_count_used() - how many requests has the device returned?
 * @q: the queue, its lock held
 *
 * A device that misbehaves can make it any number.
 *
 * Return: the number; what the device wrote about them can be read.
 */
static inline u16 virtblk_ring_count_used(struct virtblk_queue *q)
{
	u16 n = virtblk_ring_read(&q->ring.used->idx) - q->used_idx;

	virtio_rmb(q->ring.weak_barriers);
	return n;
}

/**
 * virtblk_ring_has_used() - has the device returned requests?
 * @q: the queue
 *
 * Return: true if it has; exact with its lock held.
 */
static inline bool virtblk_ring_has_used(struct virtblk_queue *q)
{
	return virtblk_ring_read(&q->ring.used->idx) != READ_ONCE(q->used_idx);
}

/**
 * virtblk_ring_get() - take one request off the used ring
 * @q: the queue, its lock held; virtblk_ring_count_used() has counted the request
 * @len: filled in, the length that the device reports
 *
 * Each value of the device is read once, and checked before it is used.
 *
 * Return: the request; NULL if it is not in flight, and the virtqueue is broken then.
 */
static inline struct request *virtblk_ring_get(struct virtblk_queue *q,
					       unsigned int *len)
{
	struct virtblk_ring *ring = &q->ring;
	const struct vring_used_elem *used;
	struct request *req;
	u32 tag;

	used = &ring->used->ring[q->used_idx & ring->mask];
	tag = le32_to_cpu((__force __le32)READ_ONCE(used->id));
	*len = le32_to_cpu((__force __le32)READ_ONCE(used->len));
	req = tag < ring->nr_tags ? READ_ONCE(q->slots[tag]) : NULL;
	if (unlikely(!req)) {
		virtblk_break_ring(q, tag);
		return NULL;
	}
	if (q->shared)
		virtblk_fetch_status(q, blk_mq_rq_to_pdu(req), tag);
	WRITE_ONCE(q->slots[tag], NULL);
	WRITE_ONCE(q->used_idx, q->used_idx + 1);
	return req;
}

/**
 * virtblk_ring_mask() - ask for no more interrupts
 * @q: the queue, its lock held
 *
 * The device may send some nevertheless.  With an event index it sends none until the
 * driver sets another one.
 */
static inline void virtblk_ring_mask(struct virtblk_queue *q)
{
	if (!q->ring.event_idx)
		virtblk_ring_write(&q->ring.avail->flags,
				   VRING_AVAIL_F_NO_INTERRUPT);
}

/**
 * virtblk_ring_unmask() - ask for an interrupt for the next request
 * @q: the queue, its lock held
 *
 * VIRTIO 1.4, 2.7.7 and 2.7.8.
 *
 * Return: false if the device has returned requests meanwhile, for which no interrupt may
 * come.
 */
static inline bool virtblk_ring_unmask(struct virtblk_queue *q)
{
	struct virtblk_ring *ring = &q->ring;

	if (ring->event_idx)
		virtblk_ring_write(&ring->avail->ring[ring->mask + 1],
				   q->used_idx);
	else
		virtblk_ring_write(&ring->avail->flags, 0);
	virtio_mb(ring->weak_barriers);
	return !virtblk_ring_has_used(q);
}

#endif /* VIRTBLK_RING_H */
