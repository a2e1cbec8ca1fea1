// SPDX-License-Identifier: GPL-2.0
/*
 * Allocate what a disk is made of: struct virtio_blk, its number, its tags and the block
 * layer's view of it.
 */

#include <linux/blk-mq.h>
#include <linux/idr.h>
#include <linux/module.h>
#include <linux/slab.h>

#include "virtio_blk.h"
#include "zoned.h"

/* Before 7.0 include/compat/ops.h wraps operations whose types differ. */
#ifndef VIRTBLK_OP
#define VIRTBLK_OP(name)	virtblk_##name
#endif

/* How many lines about lost interrupts a disk logs in that time. */
#define VIRTBLK_LOST_INTERVAL	(60 * HZ)
#define VIRTBLK_LOST_BURST	3

/* Minors of a disk, as with the in-tree driver: the disk and 15 partitions. */
#define VIRTBLK_PART_BITS	4

/* Disks that have minors of their own: 2^20 minors, 16 each. */
#define VIRTBLK_MAX_DISKS	(1 << (MINORBITS - VIRTBLK_PART_BITS))

static int virtblk_major;
static DEFINE_IDA(virtblk_ida);

static const struct blk_mq_ops virtblk_mq_ops = {
	.queue_rq	= virtblk_queue_rq,
	.queue_rqs	= VIRTBLK_OP(queue_rqs),
	.commit_rqs	= virtblk_commit_rqs,
	.complete	= virtblk_complete_rq,
	.timeout	= virtblk_timeout,
	.map_queues	= virtblk_map_queues,
	.init_hctx	= virtblk_init_hctx,
	.init_request	= VIRTBLK_OP(init_request),
	.poll		= virtblk_poll,
};

/**
 * virtblk_free() - undo virtblk_alloc()
 * @vblk: what that returned; nothing uses it any more
 */
void virtblk_free(struct virtio_blk *vblk)
{
	ida_free(&virtblk_ida, vblk->index);
	kfree(vblk->vq_names);
	kfree(vblk);
}

/* The last user has closed the disk, maybe long after the device is gone. */
static void virtblk_free_disk(struct gendisk *disk)
{
	virtblk_free(disk->private_data);
}

static const struct block_device_operations virtblk_fops = {
	.owner		= THIS_MODULE,
	.getgeo		= VIRTBLK_OP(getgeo),
	.report_zones	= VIRTBLK_OP(report_zones),
	.free_disk	= virtblk_free_disk,
};

/*
 * Under another name the module can be loaded beside the in-tree driver.  Its disks
 * have other names then, because it does not know which of the usual ones are in use.
 */
#ifdef VIRTBLK_BESIDE
#define VIRTBLK_DISK_PREFIX	"vdmq"
#else
#define VIRTBLK_DISK_PREFIX	"vd"
#endif

/* 0 is vda, 25 vdz, 26 vdaa, 701 vdzz, 702 vdaaa. */
static void virtblk_name_disk(struct gendisk *disk, unsigned int index)
{
	char letters[8];
	char *p = letters + sizeof(letters);

	*--p = '\0';
	for (;;) {
		*--p = 'a' + index % 26;
		index /= 26;
		if (!index--)
			break;
	}
	snprintf(disk->disk_name, sizeof(disk->disk_name),
		 VIRTBLK_DISK_PREFIX "%s", p);
}

/* The maps are in the order of their types; a type without queues has an empty map. */
static unsigned int virtblk_count_maps(const struct virtio_blk *vblk)
{
	if (vblk->nr_queues[HCTX_TYPE_POLL])
		return HCTX_TYPE_POLL + 1;
	return vblk->nr_queues[HCTX_TYPE_READ] ? HCTX_TYPE_READ + 1 :
						 HCTX_TYPE_DEFAULT + 1;
}

/**
 * virtblk_alloc_tag_set() - allocate the tags of a disk, and its hctxs' maps
 * @vblk: the disk, with its virtqueues
 *
 * blk_mq_free_tag_set() undoes it.
 *
 * Context: process context.
 * Return: 0 or a negative error number.
 */
int virtblk_alloc_tag_set(struct virtio_blk *vblk)
{
	struct blk_mq_tag_set *set = &vblk->tag_set;

	set->ops = &virtblk_mq_ops;
	set->nr_hw_queues = vblk->nr_vqs;
	set->nr_maps = virtblk_count_maps(vblk);
	set->queue_depth = virtblk_choose_depth(vblk);
	set->numa_node = dev_to_node(vblk->vdev->dev.parent);
	set->timeout = virtblk_timeout_jiffies();
	set->cmd_size = sizeof(struct virtblk_req);
	set->driver_data = vblk;
	return blk_mq_alloc_tag_set(set);
}

/**
 * virtblk_alloc_disk() - read a disk's configuration and allocate its gendisk
 * @vblk: the disk, with its tags and queues
 *
 * The disk has no capacity yet, and no user can see it.  put_disk() undoes it.
 *
 * Context: process context.
 * Return: 0 or a negative error number; then @vblk has no gendisk.
 */
int virtblk_alloc_disk(struct virtio_blk *vblk)
{
	struct virtblk_config *config = &vblk->config;
	struct virtblk_raw_config raw;
	struct queue_limits lim;
	struct gendisk *disk;
	int err;

	virtblk_read_config(vblk->vdev, virtblk_max_chain(vblk), &raw);
	err = virtblk_check_config(&vblk->vdev->dev, &raw, config);
	if (err)
		return err;
	vblk->reported_capacity = raw.capacity;
	virtblk_alloc_spares(vblk);
	vblk->writeback = config->lim.features & BLK_FEAT_WRITE_CACHE;

	/* The block layer fills defaults into the limits that it is given. */
	lim = config->lim;
	disk = blk_mq_alloc_disk(&vblk->tag_set, &lim, vblk);
	if (IS_ERR(disk))
		return PTR_ERR(disk);

	disk->major = virtblk_major;
	disk->first_minor = vblk->index << VIRTBLK_PART_BITS;
	disk->minors = 1 << VIRTBLK_PART_BITS;
	disk->private_data = vblk;
	disk->fops = &virtblk_fops;
	virtblk_name_disk(disk, vblk->index);
	vblk->disk = disk;

	if (virtio_has_feature(vblk->vdev, VIRTIO_BLK_F_RO))
		set_disk_ro(disk, true);
	return 0;
}

/**
 * virtblk_alloc() - allocate a disk with its number, and initialize it
 * @vdev: its device, with the negotiated features
 *
 * The disk has no virtqueues yet.  virtblk_free() undoes it.
 *
 * Context: process context.
 * Return: the disk or an ERR_PTR().
 */
struct virtio_blk *virtblk_alloc(struct virtio_device *vdev)
{
	unsigned int nr_queues[HCTX_MAX_TYPES], nr_vqs;
	struct virtio_blk *vblk;
	int err = -ENOMEM;

	nr_vqs = virtblk_count_queues(vdev, nr_queues);
	vblk = kzalloc(struct_size(vblk, queues, nr_vqs), GFP_KERNEL);
	if (!vblk)
		return ERR_PTR(-ENOMEM);

	vblk->vq_names = kcalloc(nr_vqs, sizeof(*vblk->vq_names), GFP_KERNEL);
	if (!vblk->vq_names)
		goto out_free_vblk;

	err = ida_alloc_max(&virtblk_ida, VIRTBLK_MAX_DISKS - 1, GFP_KERNEL);
	if (err < 0)
		goto out_free_names;
	vblk->index = err;

	vblk->vdev = vdev;
	vblk->legacy = !virtio_has_feature(vdev, VIRTIO_F_VERSION_1);
	vblk->nr_vqs = nr_vqs;
	memcpy(vblk->nr_queues, nr_queues, sizeof(nr_queues));
	mutex_init(&vblk->cache_lock);
	INIT_DELAYED_WORK(&vblk->config_work, virtblk_config_work);
	mutex_init(&vblk->recovery.lock);
	init_waitqueue_head(&vblk->recovery.wait);
	INIT_WORK(&vblk->recovery.work, virtblk_recovery_work);
	INIT_DELAYED_WORK(&vblk->recovery.watch, virtblk_watch_work);
	INIT_DELAYED_WORK(&vblk->recovery.deadline, virtblk_deadline_work);
	INIT_WORK(&vblk->recovery.report, virtblk_report_work);
	ratelimit_state_init(&vblk->recovery.lost_log, VIRTBLK_LOST_INTERVAL,
			     VIRTBLK_LOST_BURST);
	vblk->recovery.reset_after = VIRTBLK_UNSET;
	vblk->recovery.reset_attempts = VIRTBLK_UNSET;
	vblk->recovery.removal_timeout = VIRTBLK_UNSET;
	INIT_LIST_HEAD(&vblk->recovery.zone_writes);
	return vblk;

out_free_names:
	kfree(vblk->vq_names);
out_free_vblk:
	kfree(vblk);
	return ERR_PTR(err);
}

/**
 * virtblk_init_disks() - register the major number of the disks
 *
 * Context: process context.
 * Return: 0 or a negative error number.
 */
int virtblk_init_disks(void)
{
	int major = register_blkdev(0, "virtblk");

	if (major < 0)
		return major;
	virtblk_major = major;
	return 0;
}

/**
 * virtblk_exit_disks() - undo virtblk_init_disks()
 *
 * There is no disk any more.
 */
void virtblk_exit_disks(void)
{
	unregister_blkdev(virtblk_major, "virtblk");
	ida_destroy(&virtblk_ida);
}
