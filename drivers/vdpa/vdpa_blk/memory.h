/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The memory that the driver shares with the device, and what each request runs through
 * of memory.c.
 */
#ifndef VDPA_BLK_MEMORY_H
#define VDPA_BLK_MEMORY_H

#include <linux/io.h>
#include <linux/mm.h>
#include <linux/nospec.h>
#include <linux/types.h>
#include <linux/uaccess.h>

struct vhost_iotlb;

/**
 * struct vdpa_blk_extent - a run of the driver's addresses that is contiguous in memory
 * @first: its first address
 * @last: its last address
 * @offset: what to add to an address for the physical one; it may wrap
 * @writable: the device may write to it
 */
struct vdpa_blk_extent {
	u64 first;
	u64 last;
	u64 offset;
	bool writable;
};

/**
 * struct vdpa_blk_memory - the memory that the driver shares with the device
 * @identity: it is this kernel's, for virtio_vdpa: one extent, without references
 * @nr: number of extents, at least 1
 * @extents: sorted by address, not overlapping; each page of them is referenced
 */
struct vdpa_blk_memory {
	bool identity;
	unsigned int nr;
	struct vdpa_blk_extent extents[];
};

/**
 * struct vdpa_blk_area - a part of that memory, mapped into the kernel
 * @addr: its address in the kernel
 * @base: what vmap() returned, NULL if there is no mapping
 * @pages: its pages
 * @nr_pages: their number
 * @referenced: each of them is referenced
 */
struct vdpa_blk_area {
	void *addr;
	void *base;
	struct page **pages;
	unsigned int nr_pages;
	bool referenced;
};

/**
 * struct vdpa_blk_seg - a descriptor's buffer, laid out as in a split ring
 * @addr: its address, as the driver has it
 * @len: its length in bytes
 * @flags: of the descriptor, not used once the chain is parsed
 * @next: likewise
 */
struct vdpa_blk_seg {
	u64 addr;
	u32 len;
	u16 flags;
	u16 next;
};

static inline u64 vdpa_blk_sum(const struct vdpa_blk_seg *segs, unsigned int nr)
{
	u64 sum = 0;

	while (nr--)
		sum += segs[nr].len;
	return sum;
}

struct vdpa_blk_memory *vdpa_blk_create_memory(struct vhost_iotlb *iotlb,
					       const struct vdpa_blk_memory *old);
struct vdpa_blk_memory *vdpa_blk_create_identity(void);
void vdpa_blk_free_memory(struct vdpa_blk_memory *memory,
			  const struct vdpa_blk_memory *successor);
const struct vdpa_blk_extent *
vdpa_blk_find_extent(const struct vdpa_blk_memory *memory,
		     const struct vdpa_blk_extent **hint, u64 addr);
int vdpa_blk_read_pieces(const struct vdpa_blk_memory *memory,
			 const struct vdpa_blk_extent **hint, void *to, u64 addr,
			 size_t len);
int vdpa_blk_write(const struct vdpa_blk_memory *memory,
		   const struct vdpa_blk_extent **hint, u64 addr, const void *from,
		   size_t len);
int vdpa_blk_copy_segs(const struct vdpa_blk_memory *memory,
		       const struct vdpa_blk_seg *segs, unsigned int nr, u64 at,
		       void *buf, u32 len, bool to_driver);
int vdpa_blk_map_area(const struct vdpa_blk_memory *memory,
		      struct vdpa_blk_area *area, u64 addr, size_t len,
		      bool write);
void vdpa_blk_unmap_area(struct vdpa_blk_area *area, bool write);

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
