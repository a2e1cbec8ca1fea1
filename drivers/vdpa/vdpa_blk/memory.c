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

#include "memory.h"

/* Pages to handle before others get the CPU. */
#define VDPA_BLK_RESCHED_PAGES	4096

/* Whether the next mapping goes on where the extent ends, in both address spaces. */
static bool vdpa_blk_continues(const struct vdpa_blk_extent *extent,
			       const struct vhost_iotlb_map *map)
{
	return map->start == extent->last + 1 &&
	       map->addr == map->start + extent->offset &&
	       extent->writable == !!(map->perm & VHOST_MAP_WO);
}

/* References */

/**
 * struct vdpa_blk_refs - what to do with the references to pages
 * @get: get one to each page, and count them in @pages
 * @dirty: before it is put, mark a page dirty that the device may have written to
 * @pages: the references that @get has got; how many to put at most
 */
struct vdpa_blk_refs {
	bool get;
	bool dirty;
	u64 pages;
};

/* Returns false if a folio has as many references as it can. */
static bool vdpa_blk_ref_folio(struct folio *folio, unsigned int nr)
{
	int refs = folio_ref_count(folio);

	/* Others get references one at a time, and refuse those of a negative count. */
	if (WARN_ON_ONCE(refs <= 0) || nr > INT_MAX / 2 - refs / 2)
		return false;
	folio_ref_add(folio, nr);
	return true;
}

/*
 * A folio has one count for all of its pages.  Returns false if a folio has as many
 * references as it can.
 */
static bool vdpa_blk_ref_pages(unsigned long pfn, u64 nr, bool writable,
			       struct vdpa_blk_refs *refs)
{
	struct folio *folio;
	struct page *page;
	u64 run;

	for (; nr; pfn += run, nr -= run) {
		page = pfn_to_page(pfn);
		folio = page_folio(page);
		run = min_t(u64, nr, folio_nr_pages(folio) - folio_page_idx(folio, page));
		if (refs->get) {
			if (!vdpa_blk_ref_folio(folio, run))
				return false;
			refs->pages += run;
		} else {
			run = min(run, refs->pages);
			if (!run)
				return false;
			refs->pages -= run;
			if (writable && refs->dirty)
				set_page_dirty_lock(page);
			folio_put_refs(folio, run);
		}
		/* A larger folio takes no longer. */
		if (!(pfn % VDPA_BLK_RESCHED_PAGES))
			cond_resched();
	}
	return true;
}

/* Whether both extents have the same page at the same address, where they overlap. */
static bool vdpa_blk_same_pages(const struct vdpa_blk_extent *a,
				const struct vdpa_blk_extent *b)
{
	return a->writable == b->writable && a->offset == b->offset;
}

/*
 * Get or put the references of a list, except to the pages that another list has at the
 * same addresses: vhost-vdpa may pass a table that has grown by one entry thousands of
 * times.  The identity has no references.
 */
static bool vdpa_blk_ref_changed(const struct vdpa_blk_memory *memory,
				 const struct vdpa_blk_memory *other,
				 struct vdpa_blk_refs *refs)
{
	const struct vdpa_blk_extent *extent, *next = NULL, *end = NULL;
	u64 at, last, stop;
	unsigned int i;
	bool same;

	if (memory->identity)
		return true;
	if (other && !other->identity) {
		next = other->extents;
		end = next + other->nr;
	}
	for (i = 0; i < memory->nr; i++) {
		extent = &memory->extents[i];
		last = PHYS_PFN(extent->last);
		for (at = PHYS_PFN(extent->first); at <= last; at = stop + 1) {
			while (next != end && PHYS_PFN(next->last) < at)
				next++;
			stop = last;
			same = false;
			if (next != end && PHYS_PFN(next->first) > at) {
				stop = min_t(u64, last, PHYS_PFN(next->first) - 1);
			} else if (next != end) {
				stop = min_t(u64, last, PHYS_PFN(next->last));
				same = vdpa_blk_same_pages(extent, next);
			}
			if (!same &&
			    !vdpa_blk_ref_pages(PHYS_PFN(PFN_PHYS(at) + extent->offset),
						stop - at + 1, extent->writable,
						refs))
				return false;
		}
	}
	return true;
}

/* Lists */

static int vdpa_blk_add_map(struct vdpa_blk_memory *memory,
			    const struct vhost_iotlb_map *map)
{
	struct vdpa_blk_extent *extent = &memory->extents[memory->nr];

	if (!PAGE_ALIGNED(map->start) || !PAGE_ALIGNED(map->last + 1) ||
	    !PAGE_ALIGNED(map->addr) || !pfn_valid(PHYS_PFN(map->addr)))
		return -EINVAL;
	if (memory->nr && vdpa_blk_continues(extent - 1, map)) {
		extent[-1].last = map->last;
		return 0;
	}
	extent->first = map->start;
	extent->last = map->last;
	extent->offset = map->addr - map->start;
	extent->writable = map->perm & VHOST_MAP_WO;
	memory->nr++;
	return 0;
}

/**
 * vdpa_blk_create_memory() - make a list of extents from a table of mappings
 * @iotlb: the table, not empty
 * @old: the list that the new one replaces, or NULL; the new one shares its references
 *	until vdpa_blk_free_memory()
 *
 * Context: may sleep.
 *
 * Return: the list, or an error pointer: -ENOMEM, or -EINVAL for a mapping that is not
 * of whole pages of memory.
 */
struct vdpa_blk_memory *vdpa_blk_create_memory(struct vhost_iotlb *iotlb,
					       const struct vdpa_blk_memory *old)
{
	struct vdpa_blk_refs refs = { .get = true };
	struct vdpa_blk_memory *memory;
	struct vhost_iotlb_map *map;
	int err = 0;

	memory = kvzalloc(struct_size(memory, extents, iotlb->nmaps),
			  GFP_KERNEL_ACCOUNT);
	if (!memory)
		return ERR_PTR(-ENOMEM);

	for (map = vhost_iotlb_itree_first(iotlb, 0, U64_MAX); map && !err;
	     map = vhost_iotlb_itree_next(map, 0, U64_MAX))
		err = vdpa_blk_add_map(memory, map);
	if (!err && !vdpa_blk_ref_changed(memory, old, &refs)) {
		refs.get = false;
		vdpa_blk_ref_changed(memory, old, &refs);
		err = -ENOMEM;
	}
	if (err) {
		kvfree(memory);
		return ERR_PTR(err);
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
	struct vdpa_blk_memory *memory;

	memory = kvzalloc(struct_size(memory, extents, 1), GFP_KERNEL);
	if (!memory)
		return ERR_PTR(-ENOMEM);
	memory->identity = true;
	memory->nr = 1;
	/* array_index_nospec() takes no larger size, and no memory is beyond it. */
	memory->extents[0].last = LONG_MAX - 1;
	memory->extents[0].writable = true;
	return memory;
}

/**
 * vdpa_blk_free_memory() - release the pages of a list, and the list
 * @memory: the list, or NULL; nothing uses it
 * @successor: the list that was made to replace it, or NULL
 *
 * Context: may sleep.
 */
void vdpa_blk_free_memory(struct vdpa_blk_memory *memory,
			  const struct vdpa_blk_memory *successor)
{
	/* No limit: put the references to all pages. */
	struct vdpa_blk_refs refs = { .dirty = true, .pages = U64_MAX };

	if (!memory)
		return;
	vdpa_blk_ref_changed(memory, successor, &refs);
	kvfree(memory);
}

/**
 * vdpa_blk_find_extent() - find the extent of an address, if it is not where it was last
 * @memory: the list
 * @hint: the extent in which the caller's last address was; set to the one found
 * @addr: the address, as the driver has it
 *
 * Context: any.
 *
 * Return: the extent, or NULL.
 */
const struct vdpa_blk_extent *
vdpa_blk_find_extent(const struct vdpa_blk_memory *memory,
		     const struct vdpa_blk_extent **hint, u64 addr)
{
	const struct vdpa_blk_extent *extent;
	unsigned int low = 0, high = memory->nr, middle;

	while (low < high) {
		middle = low + (high - low) / 2;
		extent = &memory->extents[middle];
		if (addr < extent->first) {
			high = middle;
		} else if (addr > extent->last) {
			low = middle + 1;
		} else {
			*hint = extent;
			return extent;
		}
	}
	return NULL;
}

/**
 * vdpa_blk_read_pieces() - copy from the driver's memory, what is not in one piece
 * @memory: the list
 * @hint: see vdpa_blk_translate()
 * @to: where to copy to
 * @addr: the address, as the driver has it
 * @len: bytes, less than 4 GiB
 *
 * Return: 0 or -EFAULT.
 */
int vdpa_blk_read_pieces(const struct vdpa_blk_memory *memory,
			 const struct vdpa_blk_extent **hint, void *to, u64 addr,
			 size_t len)
{
	u32 run;
	u64 phys;

	while (len) {
		run = vdpa_blk_translate(memory, hint, addr, len, false, &phys);
		/* A page of a process may be poisoned. */
		if (!run || copy_mc_to_kernel(to, phys_to_virt(phys), run))
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
 * @len: bytes, less than 4 GiB
 *
 * Return: 0 or -EFAULT.
 */
int vdpa_blk_write(const struct vdpa_blk_memory *memory,
		   const struct vdpa_blk_extent **hint, u64 addr, const void *from,
		   size_t len)
{
	u32 run;
	u64 phys;

	while (len) {
		run = vdpa_blk_translate(memory, hint, addr, len, true, &phys);
		if (!run)
			return -EFAULT;
		memcpy(phys_to_virt(phys), from, run);
		from += run;
		addr += run;
		len -= run;
	}
	return 0;
}

/**
 * vdpa_blk_copy_segs() - copy from or to the driver's buffers
 * @memory: the list
 * @segs: the buffers
 * @nr: their number
 * @at: bytes of the buffers to skip
 * @buf: where to copy to or from
 * @len: bytes to copy, which the buffers have
 * @to_driver: copy to the buffers
 *
 * Context: any.
 *
 * Return: 0 or -EFAULT.
 */
int vdpa_blk_copy_segs(const struct vdpa_blk_memory *memory,
		       const struct vdpa_blk_seg *segs, unsigned int nr, u64 at,
		       void *buf, u32 len, bool to_driver)
{
	const struct vdpa_blk_extent *hint = memory->extents;
	unsigned int i;
	u32 part;
	int err;

	for (i = 0; i < nr && len; i++) {
		if (at >= segs[i].len) {
			at -= segs[i].len;
			continue;
		}
		part = min_t(u64, len, segs[i].len - at);
		err = to_driver ?
		      vdpa_blk_write(memory, &hint, segs[i].addr + at, buf, part) :
		      vdpa_blk_read(memory, &hint, buf, segs[i].addr + at, part);
		if (err)
			return err;
		buf += part;
		len -= part;
		at = 0;
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
	unsigned int nr = PFN_UP(offset_in_page(addr) + len), i;
	const struct vdpa_blk_extent *hint;
	int err = -EFAULT;
	struct page *page;
	u64 phys;

	if (!memory || addr + len < addr)
		return -EFAULT;
	if (WARN_ON_ONCE(area->pages))
		return -EBUSY;
	area->referenced = !memory->identity;
	area->pages = kcalloc(nr, sizeof(*area->pages), GFP_KERNEL);
	if (!area->pages)
		return -ENOMEM;
	hint = memory->extents;
	for (i = 0; i < nr; i++) {
		if (!vdpa_blk_translate(memory, &hint,
					(addr & PAGE_MASK) + (u64)i * PAGE_SIZE,
					PAGE_SIZE, write, &phys))
			goto out_unmap;
		page = pfn_to_page(PHYS_PFN(phys));
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
