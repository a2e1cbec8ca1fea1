/* SPDX-License-Identifier: GPL-2.0 */
/*
 * In a copy of vdpa_blk: one of its allocations fails, and each that succeeds is counted
 * until it is freed.  test_vdpa_allocations.py puts it after the includes of each file.
 *
 *	refuse	the number of the next allocation that fails, counted down; 0: none
 *	held	allocations that have not been freed
 *	reserves	1: mempools have their reserves only
 */
#include <linux/err.h>
#include <linux/kthread.h>
#include <linux/mempool.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>

extern int vdpa_blk_refuse, vdpa_blk_held;
extern bool vdpa_blk_reserves;

static inline bool vdpa_blk_is_refused(void)
{
	int left = READ_ONCE(vdpa_blk_refuse);

	while (left > 0)
		if (try_cmpxchg(&vdpa_blk_refuse, &left, left - 1))
			return left == 1;
	return false;
}

static inline void *vdpa_blk_count_held(void *got)
{
	if (!IS_ERR_OR_NULL(got))
		xadd(&vdpa_blk_held, 1);
	return got;
}

static inline void vdpa_blk_count_freed(const void *old)
{
	if (old)
		xadd(&vdpa_blk_held, -1);
}

#define VDPA_BLK_TRY(failed, call)					\
	(vdpa_blk_is_refused() ? (failed) : vdpa_blk_count_held(call))
#define VDPA_BLK_FREE(call, old)					\
	do {								\
		void *_old = (void *)(old);				\
									\
		vdpa_blk_count_freed(_old);				\
		call(_old);						\
	} while (0)

static inline void *vdpa_blk_pool_slab(gfp_t gfp, void *cache)
{
	return vdpa_blk_reserves ? NULL : mempool_alloc_slab(gfp, cache);
}

static inline void *vdpa_blk_pool_pages(gfp_t gfp, void *order)
{
	return vdpa_blk_reserves ? NULL : mempool_alloc_pages(gfp, order);
}

#undef kcalloc
#define kcalloc(n, size, gfp)						\
	VDPA_BLK_TRY(NULL, kmalloc_array(n, size, (gfp) | __GFP_ZERO))
#undef kvzalloc
#define kvzalloc(size, gfp)						\
	VDPA_BLK_TRY(NULL, kvmalloc(size, (gfp) | __GFP_ZERO))
#undef kvzalloc_obj
#define kvzalloc_obj(object, gfp)	kvzalloc(sizeof(object), gfp)
#undef kvcalloc
#define kvcalloc(n, size, gfp)						\
	VDPA_BLK_TRY(NULL, kvmalloc_array(n, size, (gfp) | __GFP_ZERO))
#define kfree(old)		VDPA_BLK_FREE(kfree, old)
#define kvfree(old)		VDPA_BLK_FREE(kvfree, old)

#define vmap(...)		VDPA_BLK_TRY(NULL, vmap(__VA_ARGS__))
#define vunmap(old)		VDPA_BLK_FREE(vunmap, old)

#undef mempool_create_slab_pool
#define mempool_create_slab_pool(nr, cache)				\
	VDPA_BLK_TRY(NULL, mempool_create(nr, vdpa_blk_pool_slab, mempool_free_slab, cache))
#undef mempool_create_page_pool
#define mempool_create_page_pool(nr, order)				\
	VDPA_BLK_TRY(NULL, mempool_create(nr, vdpa_blk_pool_pages,	\
					  mempool_free_pages, (void *)(long)(order)))
#define mempool_destroy(old)	VDPA_BLK_FREE(mempool_destroy, old)

#undef alloc_workqueue
#define alloc_workqueue(...)	VDPA_BLK_TRY(NULL, alloc_workqueue(__VA_ARGS__))
#define destroy_workqueue(old)	VDPA_BLK_FREE(destroy_workqueue, old)

#undef kthread_create
#define kthread_create(threadfn, data, ...)				\
	VDPA_BLK_TRY(ERR_PTR(-ENOMEM),					\
		     kthread_create_on_node(threadfn, data, NUMA_NO_NODE, __VA_ARGS__))
#define kthread_stop(task)						\
	do {								\
		vdpa_blk_count_freed(task);				\
		kthread_stop(task);					\
	} while (0)
