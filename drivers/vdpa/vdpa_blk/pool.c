// SPDX-License-Identifier: GPL-2.0
/*
 * Memory that is reserved for requests, and the workqueues of a device.
 */

#include <linux/mempool.h>
#include <linux/slab.h>

#include "request.h"
#include "vdpa_blk.h"

/*
 * Each device reserves these, because memory may be short until one of its requests has
 * completed: tables for data of many pieces, operations that sleep, buffers for them.
 */
#define VDPA_BLK_RESERVED_TABLES	8
#define VDPA_BLK_RESERVED_SLOW		4

static struct kmem_cache *vdpa_blk_table_cache;
static struct kmem_cache *vdpa_blk_slow_cache;

/**
 * vdpa_blk_alloc_pools() - allocate a device's reserves and workqueues
 * @vb: the device
 *
 * Return: 0 or -ENOMEM; vdpa_blk_free_pools() frees what there is.
 */
int vdpa_blk_alloc_pools(struct vdpa_blk *vb)
{
	u32 append = le32_to_cpu((__force __le32)vb->config.zoned.max_append_sectors);
	unsigned int order = get_order(max3(VDPA_BLK_BOUNCE_BYTES,
					    bdev_logical_block_size(vb->bdev),
					    append << SECTOR_SHIFT));

	vb->tables = mempool_create_slab_pool(VDPA_BLK_RESERVED_TABLES,
					      vdpa_blk_table_cache);
	vb->slow_pool = mempool_create_slab_pool(VDPA_BLK_RESERVED_SLOW,
						 vdpa_blk_slow_cache);
	vb->buffers = mempool_create_page_pool(1, order);
	vb->wq = alloc_workqueue("vdpa_blk/%s", WQ_UNBOUND | WQ_MEM_RECLAIM, 0,
				 dev_name(&vb->vdpa.dev));
	vb->slow_wq = alloc_workqueue("vdpa_blk_slow/%s", WQ_UNBOUND | WQ_MEM_RECLAIM,
				      VDPA_BLK_RESERVED_SLOW,
				      dev_name(&vb->vdpa.dev));
	return vb->tables && vb->slow_pool && vb->buffers && vb->wq && vb->slow_wq ?
	       0 : -ENOMEM;
}

/**
 * vdpa_blk_free_pools() - free what vdpa_blk_alloc_pools() has allocated
 * @vb: the device, with nothing in flight
 */
void vdpa_blk_free_pools(struct vdpa_blk *vb)
{
	if (vb->slow_wq)
		destroy_workqueue(vb->slow_wq);
	if (vb->wq)
		destroy_workqueue(vb->wq);
	mempool_destroy(vb->buffers);
	mempool_destroy(vb->slow_pool);
	mempool_destroy(vb->tables);
}

/**
 * vdpa_blk_init_pools() - allocate what all devices share
 *
 * Return: 0 or -ENOMEM.
 */
int vdpa_blk_init_pools(void)
{
	vdpa_blk_table_cache = kmem_cache_create("vdpa_blk_vecs", VDPA_BLK_MAX_VECS *
						 sizeof(struct bio_vec), 0, 0, NULL);
	if (!vdpa_blk_table_cache)
		return -ENOMEM;
	vdpa_blk_slow_cache = kmem_cache_create("vdpa_blk_slow",
						sizeof(struct vdpa_blk_slow),
						0, 0, NULL);
	if (!vdpa_blk_slow_cache) {
		kmem_cache_destroy(vdpa_blk_table_cache);
		return -ENOMEM;
	}
	return 0;
}

/**
 * vdpa_blk_exit_pools() - undo vdpa_blk_init_pools()
 */
void vdpa_blk_exit_pools(void)
{
	kmem_cache_destroy(vdpa_blk_slow_cache);
	kmem_cache_destroy(vdpa_blk_table_cache);
}
