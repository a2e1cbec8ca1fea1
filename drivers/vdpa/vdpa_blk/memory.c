// SPDX-License-Identifier: GPL-2.0
/*
 * The memory that the driver shares with the device.
 *
 * vhost-vdpa passes its whole table of mappings with each change.  The device makes a
 * sorted list of extents from it, with a reference to each page: vhost-vdpa unpins pages
 * before it reports that they are unmapped.  While workers run, the list does not
 * change; device.c parks them and waits for requests in flight before it puts another
 * one in its place.
 *
 * virtio_vdpa shares this kernel's memory, and passes no table.  The driver keeps its
 * rings until it has disabled their virtqueues, so their pages need no reference; they
 * may be the tail of an allocation that is not split, which must not get one.
 */

#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/sched.h>
#include <linux/uaccess.h>
#include <linux/vhost_iotlb.h>
#include <linux/vmalloc.h>

#include "vdpa_blk.h"

/* Pages to handle before others get the CPU. */
#define VDPA_BLK_RESCHED_PAGES	4096

static void vdpa_blk_get_pages(unsigned long pfn, unsigned long nr)
{
	unsigned long i;

	for (i = 0; i < nr; i++) {
		get_page(pfn_to_page(pfn + i));
		if (!(i % VDPA_BLK_RESCHED_PAGES))
			cond_resched();
	}
}

static void vdpa_blk_put_pages(unsigned long pfn, unsigned long nr, bool dirty)
{
	struct page *page;
	unsigned long i;

	for (i = 0; i < nr; i++) {
		page = pfn_to_page(pfn + i);
		if (dirty)
			set_page_dirty_lock(page);
		put_page(page);
		if (!(i % VDPA_BLK_RESCHED_PAGES))
			cond_resched();
	}
}

static unsigned long vdpa_blk_extent_pages(const struct vdpa_blk_extent *extent)
{
	return (extent->last - extent->first + 1) >> PAGE_SHIFT;
}

/* Whether the next mapping goes on where the extent ends, in both address spaces. */
static bool vdpa_blk_continues(const struct vdpa_blk_extent *extent,
			       const struct vhost_iotlb_map *map)
{
	return map->start == extent->last + 1 &&
	       PHYS_PFN(map->addr) == extent->pfn + vdpa_blk_extent_pages(extent) &&
	       extent->writable == !!(map->perm & VHOST_MAP_WO);
}

/**
 * vdpa_blk_create_memory() - make a list of extents from a table of mappings
 * @iotlb: the table
 *
 * Context: may sleep.
 *
 * Return: the list, or an error pointer: -ENOMEM, or -EINVAL for a mapping that is not
 * of whole pages of memory.
 */
struct vdpa_blk_memory *vdpa_blk_create_memory(struct vhost_iotlb *iotlb)
{
	struct vdpa_blk_extent *extent = NULL;
	struct vdpa_blk_memory *memory;
	struct vhost_iotlb_map *map;

	memory = kvzalloc(struct_size(memory, extents, iotlb->nmaps),
			  GFP_KERNEL_ACCOUNT);
	if (!memory)
		return ERR_PTR(-ENOMEM);

	for (map = vhost_iotlb_itree_first(iotlb, 0, U64_MAX); map;
	     map = vhost_iotlb_itree_next(map, 0, U64_MAX)) {
		if (!PAGE_ALIGNED(map->start) || !PAGE_ALIGNED(map->last + 1) ||
		    !PAGE_ALIGNED(map->addr) || !pfn_valid(PHYS_PFN(map->addr))) {
			vdpa_blk_free_memory(memory);
			return ERR_PTR(-EINVAL);
		}
		vdpa_blk_get_pages(PHYS_PFN(map->addr),
				   (map->last - map->start + 1) >> PAGE_SHIFT);
		if (extent && vdpa_blk_continues(extent, map)) {
			extent->last = map->last;
			continue;
		}
		extent = &memory->extents[memory->nr++];
		extent->first = map->start;
		extent->last = map->last;
		extent->pfn = PHYS_PFN(map->addr);
		extent->writable = map->perm & VHOST_MAP_WO;
	}
	return memory;
}

/**
 * vdpa_blk_create_identity() - share the memory of this kernel
 *
 * Return: the list, or an error pointer.
 */
struct vdpa_blk_memory *vdpa_blk_create_identity(void)
{
	struct vdpa_blk_memory *memory = kvzalloc(sizeof(*memory), GFP_KERNEL);

	if (!memory)
		return ERR_PTR(-ENOMEM);
	memory->identity = true;
	return memory;
}

/**
 * vdpa_blk_free_memory() - release the pages of a list, and the list
 * @memory: the list, or NULL; nothing uses it
 *
 * Context: may sleep.
 */
void vdpa_blk_free_memory(struct vdpa_blk_memory *memory)
{
	unsigned int i;

	if (!memory)
		return;
	for (i = 0; i < memory->nr; i++)
		vdpa_blk_put_pages(memory->extents[i].pfn,
				   vdpa_blk_extent_pages(&memory->extents[i]),
				   memory->extents[i].writable);
	kvfree(memory);
}

static const struct vdpa_blk_extent *
vdpa_blk_find_extent(const struct vdpa_blk_memory *memory, unsigned int *hint,
		     u64 addr)
{
	const struct vdpa_blk_extent *extent;
	unsigned int low = 0, high = memory->nr, middle;

	if (likely(*hint < memory->nr)) {
		extent = &memory->extents[*hint];
		if (likely(addr >= extent->first && addr <= extent->last))
			return extent;
	}
	while (low < high) {
		middle = low + (high - low) / 2;
		extent = &memory->extents[middle];
		if (addr < extent->first) {
			high = middle;
		} else if (addr > extent->last) {
			low = middle + 1;
		} else {
			*hint = middle;
			return extent;
		}
	}
	return NULL;
}

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
 * Context: any.
 *
 * Return: how many of the bytes are contiguous, or -EFAULT if the driver does not share
 * the first.
 */
int vdpa_blk_translate(const struct vdpa_blk_memory *memory,
		       unsigned int *hint, u64 addr, u32 len, bool write,
		       struct page **page, unsigned int *offset)
{
	const struct vdpa_blk_extent *extent;
	unsigned long pfn;

	*offset = offset_in_page(addr);
	len = min_t(u32, len, INT_MAX);
	if (memory->identity) {
		pfn = PHYS_PFN(addr);
		if (unlikely(!pfn_valid(pfn)))
			return -EFAULT;
		*page = pfn_to_page(pfn);
		return len;
	}

	extent = vdpa_blk_find_extent(memory, hint, addr);
	if (unlikely(!extent || (write && !extent->writable)))
		return -EFAULT;
	pfn = extent->pfn + ((addr - extent->first) >> PAGE_SHIFT);
	*page = pfn_to_page(pfn);
	return min_t(u64, len, extent->last - addr + 1);
}

/**
 * vdpa_blk_read() - copy from the driver's memory
 * @memory: the list
 * @hint: see vdpa_blk_translate()
 * @to: where to copy to
 * @addr: the address, as the driver has it
 * @len: bytes
 *
 * Return: 0 or -EFAULT.
 */
int vdpa_blk_read(const struct vdpa_blk_memory *memory, unsigned int *hint,
		  void *to, u64 addr, size_t len)
{
	unsigned int offset;
	struct page *page;
	int run;

	while (len) {
		run = vdpa_blk_translate(memory, hint, addr, len, false, &page,
					 &offset);
		if (run < 0)
			return run;
		/* A page of a process may be poisoned. */
		if (copy_mc_to_kernel(to, page_address(page) + offset, run))
			return -EFAULT;
		to += run;
		addr += run;
		len -= run;
	}
	return 0;
}

/**
 * vdpa_blk_write() - copy to the driver's memory
 * @memory: the list
 * @hint: see vdpa_blk_translate()
 * @addr: the address, as the driver has it
 * @from: what to copy
 * @len: bytes
 *
 * Return: 0 or -EFAULT.
 */
int vdpa_blk_write(const struct vdpa_blk_memory *memory, unsigned int *hint,
		   u64 addr, const void *from, size_t len)
{
	unsigned int offset;
	struct page *page;
	int run;

	while (len) {
		run = vdpa_blk_translate(memory, hint, addr, len, true, &page,
					 &offset);
		if (run < 0)
			return run;
		memcpy(page_address(page) + offset, from, run);
		from += run;
		addr += run;
		len -= run;
	}
	return 0;
}

/**
 * vdpa_blk_map_area() - map a part of a ring
 * @memory: the list
 * @area: filled in
 * @addr: the address, as the driver has it
 * @len: bytes
 * @write: the device writes to it
 *
 * Context: may sleep.
 *
 * Return: 0, -ENOMEM, or -EFAULT if the driver does not share all of it.
 */
int vdpa_blk_map_area(const struct vdpa_blk_memory *memory,
		      struct vdpa_blk_area *area, u64 addr, size_t len,
		      bool write)
{
	unsigned int nr = PFN_UP(offset_in_page(addr) + len), hint = 0, i, offset;
	struct page *page;
	int err = -EFAULT;

	if (!memory || addr + len < addr)
		return -EFAULT;
	if (WARN_ON_ONCE(area->pages))
		return -EBUSY;
	area->referenced = !memory->identity;
	area->pages = kcalloc(nr, sizeof(*area->pages), GFP_KERNEL);
	if (!area->pages)
		return -ENOMEM;
	for (i = 0; i < nr; i++) {
		if (vdpa_blk_translate(memory, &hint,
				       (addr & PAGE_MASK) + (u64)i * PAGE_SIZE,
				       PAGE_SIZE, write, &page, &offset) < 0)
			goto out_unmap;
		if (area->referenced)
			get_page(page);
		area->pages[area->nr_pages++] = page;
	}
	err = -ENOMEM;
	area->base = vmap(area->pages, nr, VM_MAP, PAGE_KERNEL);
	if (!area->base)
		goto out_unmap;
	area->addr = area->base + offset_in_page(addr);
	return 0;

out_unmap:
	vdpa_blk_unmap_area(area, false);
	return err;
}

/**
 * vdpa_blk_unmap_area() - undo vdpa_blk_map_area()
 * @area: the area, mapped or not; cleared
 * @write: the device may have written to it
 *
 * Context: may sleep.
 */
void vdpa_blk_unmap_area(struct vdpa_blk_area *area, bool write)
{
	unsigned int i;

	vunmap(area->base);
	for (i = 0; area->referenced && i < area->nr_pages; i++) {
		if (write)
			set_page_dirty_lock(area->pages[i]);
		put_page(area->pages[i]);
	}
	kfree(area->pages);
	memset(area, 0, sizeof(*area));
}
