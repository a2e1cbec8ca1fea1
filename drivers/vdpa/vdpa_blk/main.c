// SPDX-License-Identifier: GPL-2.0
/*
 * A virtio block device in the host's kernel, as software vDPA.
 *
 * This file has the module and a device's way from `vdpa dev add` to `vdpa dev del`.  A
 * file calls only files that are listed before it:
 *
 *	trace.h		trace points
 *	memory.[ch]	what the driver shares
 *	ring.[ch]	split and packed rings
 *	chain.[ch]	what the driver puts into them
 *	zoned.[ch]	zones of the backing device
 *	erase.[ch]	discards, write zeroes, secure erases
 *	pool.c		reserved memory, and workqueues
 *	complete.[ch]	the end of a request
 *	slow.c		operations that sleep
 *	nodata.c	requests without data of the disk
 *	request.[ch]	from a chain to a bio, and back
 *	worker.c	threads that serve rings
 *	backing.c	the backing device
 *	config.c	features and configuration space
 *	queue.[ch]	memory, start and stop of virtqueues
 *	device.c	operations of the vDPA bus
 *	configfs.c	settings
 *	debugfs.c	state and counters
 *
 * The types are in memory.h, ring.h, settings.h, vdpa_blk.h (the device), queue.h
 * (virtqueues and workers) and request.h.  Each includes only those before it.
 */

#include <linux/dma-mapping.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/vdpa.h>
#include <linux/workqueue.h>
#include <uapi/linux/vdpa.h>
#include <uapi/linux/virtio_ids.h>

#include "queue.h"
#include "settings.h"
#include "vdpa_blk.h"
#include "version.h"

/* include/compat has the place of older kernels. */
#ifndef vdpa_blk_dma_dev
#define vdpa_blk_dma_dev(vdpa)	((vdpa)->vmap.dma_dev)
#endif

static struct virtio_device_id vdpa_blk_ids[] = {
	{ VIRTIO_ID_BLOCK, VIRTIO_DEV_ANY_ID },
	{ }
};

static void vdpa_blk_release_mgmt(struct device *dev)
{
}

static struct device vdpa_blk_mgmt = {
	.init_name	= "vdpa_blk",
	.release	= vdpa_blk_release_mgmt,
};

static int vdpa_blk_init_dma(struct vdpa_blk *vb)
{
	struct device *dev = &vb->vdpa.dev;

	/* virtio_vdpa maps memory for it, as for a device that reaches all of it. */
	dev->dma_mask = &dev->coherent_dma_mask;
	vdpa_blk_dma_dev(&vb->vdpa) = dev;
	return dma_set_mask_and_coherent(dev, DMA_BIT_MASK(64));
}

static int vdpa_blk_dev_add(struct vdpa_mgmt_dev *mdev, const char *name,
			    const struct vdpa_dev_set_config *config)
{
	struct vdpa_blk *vb;
	int err;

	vb = vdpa_alloc_device(struct vdpa_blk, vdpa, &vdpa_blk_mgmt,
			       &vdpa_blk_ops, NULL, 1, 1, name, false);
	if (IS_ERR(vb))
		return PTR_ERR(vb);
	mutex_init(&vb->lock);
	spin_lock_init(&vb->config_lock);
	init_waitqueue_head(&vb->drained);
	INIT_DELAYED_WORK(&vb->capacity_work, vdpa_blk_capacity_work);
	INIT_WORK(&vb->break_work, vdpa_blk_break_work);
	vb->vdpa.mdev = mdev;

	err = vdpa_blk_find_settings(name, &vb->settings);
	if (err)
		goto out_put;
	err = vdpa_blk_init_dma(vb) ?: vdpa_blk_open_backing(vb);
	if (err)
		goto out_put;
	vdpa_blk_init_config(vb);
	err = vdpa_blk_limit_features(vb, config) ?: vdpa_blk_check_features(vb);
	if (err)
		goto out_put;
	err = vdpa_blk_alloc_pools(vb) ?: vdpa_blk_alloc_queues(vb) ?:
	      vdpa_blk_start_workers(vb);
	if (err)
		goto out_put;
	vdpa_blk_create_debugfs(vb);
	err = _vdpa_register_device(&vb->vdpa, vb->settings.queues);
	if (err)
		goto out_remove_debugfs;
	queue_delayed_work(vb->wq, &vb->capacity_work, HZ);
	dev_info(&vb->vdpa.dev, "%s: %u queues of %u, %u workers\n",
		 vb->settings.path, vb->settings.queues, vb->settings.ring_size,
		 vb->nr_workers);
	return 0;

out_remove_debugfs:
	vdpa_blk_remove_debugfs(vb);
out_put:
	put_device(&vb->vdpa.dev);
	return err;
}

static void vdpa_blk_dev_del(struct vdpa_mgmt_dev *mdev, struct vdpa_device *vdpa)
{
	struct vdpa_blk *vb = vdpa_to_blk(vdpa);

	get_device(&vdpa->dev);
	/* The work interrupts the driver, which is there only until the next line. */
	cancel_delayed_work_sync(&vb->capacity_work);
	_vdpa_unregister_device(vdpa);
	vdpa_blk_reset_device(vb);
	cancel_work_sync(&vb->break_work);
	vdpa_blk_remove_debugfs(vb);
	put_device(&vdpa->dev);
}

static const struct vdpa_mgmtdev_ops vdpa_blk_mgmt_ops = {
	.dev_add	= vdpa_blk_dev_add,
	.dev_del	= vdpa_blk_dev_del,
};

static struct vdpa_mgmt_dev vdpa_blk_mgmt_dev = {
	.device			= &vdpa_blk_mgmt,
	.ops			= &vdpa_blk_mgmt_ops,
	.id_table		= vdpa_blk_ids,
	.config_attr_mask	= BIT_ULL(VDPA_ATTR_DEV_FEATURES),
	.supported_features	= VDPA_BLK_FEATURES,
	.max_supported_vqs	= VDPA_BLK_MAX_QUEUES,
};

static int __init vdpa_blk_init(void)
{
	int err;

	err = vdpa_blk_init_pools();
	if (err)
		return err;
	vdpa_blk_init_debugfs();
	err = vdpa_blk_init_configfs();
	if (err)
		goto out_exit_debugfs;
	err = device_register(&vdpa_blk_mgmt);
	if (err) {
		put_device(&vdpa_blk_mgmt);
		goto out_exit_configfs;
	}
	err = vdpa_mgmtdev_register(&vdpa_blk_mgmt_dev);
	if (err)
		goto out_unregister_device;
	return 0;

out_unregister_device:
	device_unregister(&vdpa_blk_mgmt);
out_exit_configfs:
	vdpa_blk_exit_configfs();
out_exit_debugfs:
	vdpa_blk_exit_debugfs();
	vdpa_blk_exit_pools();
	return err;
}

static void __exit vdpa_blk_exit(void)
{
	/* Deletes the devices that there are. */
	vdpa_mgmtdev_unregister(&vdpa_blk_mgmt_dev);
	device_unregister(&vdpa_blk_mgmt);
	vdpa_blk_exit_configfs();
	vdpa_blk_exit_debugfs();
	vdpa_blk_exit_pools();
}

module_init(vdpa_blk_init);
module_exit(vdpa_blk_exit);

MODULE_DESCRIPTION("virtio block device in the kernel, by vDPA");
MODULE_LICENSE("GPL");
MODULE_VERSION(VIRTIO_BLK_MQ_VERSION);
