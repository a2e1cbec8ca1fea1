/* SPDX-License-Identifier: GPL-2.0 */
/*
 * memory.c: what each request runs through.
 */
#ifndef VDPA_BLK_MEMORY_H
#define VDPA_BLK_MEMORY_H

#include <linux/mm.h>
#include <linux/nospec.h>
#include <linux/sizes.h>
#include <linux/uaccess.h>

#include "vdpa_blk.h"

/**
 * vdpa_blk_translate() - find an address in memory
 * @memory: the list
 * @hint: one of its extents, in which the caller's last address was; set to the one in
 *	which this one is
 * @addr: the address, as the driver has it
 * @len: bytes from there on, at least 1
 * @write: the device wants to write there
 * @phys: set to the physical address
 *
 * The driver of this kernel is as trustworthy as the device: each of its addresses is in
 * the one extent that there is.
 *
 * Context: any.
 *
 * Return: how many of the bytes are contiguous, or 0 if the driver does not share the
 * first.
 */
static inline u32 vdpa_blk_translate(const struct vdpa_blk_memory *memory,
				     const struct vdpa_blk_extent **hint, u64 addr,
				     u32 len, bool write, u64 *phys)
{
	const struct vdpa_blk_extent *extent = *hint;
	u64 at = addr - extent->first, size = extent->last - extent->first + 1;

	if (unlikely(at >= size)) {
		extent = vdpa_blk_find_extent(memory, hint, addr);
		if (!extent)
			return 0;
		at = addr - extent->first;
		size = extent->last - extent->first + 1;
	}
	if (unlikely(write && !extent->writable))
		return 0;
	/* Also a CPU that speculates stays in the extent. */
	at = array_index_nospec(at, size);
	*phys = extent->first + at + extent->offset;
	return min_t(u64, size - at, len);
}

/**
 * vdpa_blk_read() - copy from the driver's memory
 * @memory: the list
 * @hint: see vdpa_blk_translate()
 * @to: where to copy to
 * @addr: the address, as the driver has it
 * @len: bytes, at least 1 and less than 4 GiB
 *
 * Context: any.
 *
 * Return: 0 or -EFAULT.
 */
static inline int vdpa_blk_read(const struct vdpa_blk_memory *memory,
				const struct vdpa_blk_extent **hint, void *to,
				u64 addr, size_t len)
{
	if (!memory->identity)
		return vdpa_blk_read_pieces(memory, hint, to, addr, len);
	memcpy(to, phys_to_virt(addr), len);
	/* The driver may change it: use the copy from here on. */
	barrier();
	return 0;
}

#endif /* VDPA_BLK_MEMORY_H */
