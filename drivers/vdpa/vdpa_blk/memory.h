/* SPDX-License-Identifier: GPL-2.0 */
/*
 * memory.c: what each request runs through.
 */
#ifndef VDPA_BLK_MEMORY_H
#define VDPA_BLK_MEMORY_H

#include <linux/mm.h>
#include <linux/sizes.h>
#include <linux/uaccess.h>

#include "vdpa_blk.h"

/**
 * vdpa_blk_translate() - find the page of an address
 * @memory: the list
 * @hint: the extent in which the caller's last address was
 * @addr: the address, as the driver has it
 * @len: bytes from there on, at least 1
 * @write: the device wants to write there
 * @page: set to the page
 * @offset: set to the offset in it
 *
 * The driver of this kernel is as trustworthy as the device.
 *
 * Context: any.
 *
 * Return: how many of the bytes are contiguous, or -EFAULT if the driver does not share
 * the first.
 */
static inline int vdpa_blk_translate(const struct vdpa_blk_memory *memory,
				     unsigned int *hint, u64 addr, u32 len,
				     bool write, struct page **page,
				     unsigned int *offset)
{
	const struct vdpa_blk_extent *extent;

	*offset = offset_in_page(addr);
	/* Each piece but the last has to be of whole blocks. */
	len = min_t(u32, len, SZ_1G);
	if (memory->identity) {
		*page = pfn_to_page(PHYS_PFN(addr));
		return len;
	}
	extent = &memory->extents[*hint];
	if (unlikely(*hint >= memory->nr || addr < extent->first ||
		     addr > extent->last))
		extent = vdpa_blk_find_extent(memory, hint, addr);
	if (unlikely(!extent || (write && !extent->writable)))
		return -EFAULT;
	*page = pfn_to_page(extent->pfn + PHYS_PFN(addr - extent->first));
	return min_t(u64, len, extent->last - addr + 1);
}

/**
 * vdpa_blk_read() - copy from the driver's memory
 * @memory: the list
 * @hint: see vdpa_blk_translate()
 * @to: where to copy to
 * @addr: the address, as the driver has it
 * @len: bytes, at least 1
 *
 * Context: any.
 *
 * Return: 0 or -EFAULT.
 */
static inline int vdpa_blk_read(const struct vdpa_blk_memory *memory,
				unsigned int *hint, void *to, u64 addr, size_t len)
{
	if (!memory->identity)
		return vdpa_blk_read_pieces(memory, hint, to, addr, len);
	memcpy(to, phys_to_virt(addr), len);
	return 0;
}

#endif /* VDPA_BLK_MEMORY_H */
