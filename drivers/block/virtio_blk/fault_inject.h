/* SPDX-License-Identifier: GPL-2.0 */
/*
 * fault_inject.c: faults on purpose.
 */
#ifndef VIRTBLK_FAULT_INJECT_H
#define VIRTBLK_FAULT_INJECT_H

#include <linux/fault-inject.h>
#include <linux/types.h>

#ifdef CONFIG_FAULT_INJECTION_DEBUG_FS
/**
 * struct virtblk_faults - a disk's fault injection
 * @drop_interrupt: the driver ignores an interrupt of a virtqueue
 * @drop_kick: the driver omits a notification of the device
 * @fail_add: the ring has no memory for a request
 * @delay: the driver waits between two steps that another event may come between
 * @delay_us: the length of each delay, in microseconds
 * @no_guard: the driver does not poll a ring of its own where the virtio core drops an
 *	interrupt
 */
struct virtblk_faults {
	struct fault_attr drop_interrupt;
	struct fault_attr drop_kick;
	struct fault_attr fail_add;
	struct fault_attr delay;
	u32 delay_us;
	bool no_guard;
};
#endif

struct virtio_blk;

#ifdef CONFIG_FAULT_INJECTION_DEBUG_FS
void virtblk_create_faults(struct virtio_blk *vblk);
bool virtblk_drop_interrupt(struct virtio_blk *vblk);
bool virtblk_drop_kick(struct virtio_blk *vblk);
bool virtblk_fail_add(struct virtio_blk *vblk);
bool virtblk_has_guard(struct virtio_blk *vblk);
void virtblk_delay(struct virtio_blk *vblk);
void virtblk_delay_atomic(struct virtio_blk *vblk);
#else
static inline void virtblk_create_faults(struct virtio_blk *vblk) { }

static inline bool virtblk_drop_interrupt(struct virtio_blk *vblk)
{
	return false;
}

static inline bool virtblk_drop_kick(struct virtio_blk *vblk)
{
	return false;
}

static inline bool virtblk_fail_add(struct virtio_blk *vblk)
{
	return false;
}

static inline bool virtblk_has_guard(struct virtio_blk *vblk)
{
	return true;
}

static inline void virtblk_delay(struct virtio_blk *vblk) { }
static inline void virtblk_delay_atomic(struct virtio_blk *vblk) { }
#endif

#endif /* VIRTBLK_FAULT_INJECT_H */
