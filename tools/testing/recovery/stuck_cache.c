// SPDX-License-Identifier: GPL-2.0
/*
 * Keep a virtio disk's write cache on: drop writes of the driver to the wce field of
 * the configuration space.  test_recovery_return.py needs this, because neither QEMU
 * nor VDUSE has such a device.
 */

#include <linux/blkdev.h>
#include <linux/fs.h>
#include <linux/module.h>
#include <linux/virtio.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>

static char *disk;
module_param(disk, charp, 0444);
MODULE_PARM_DESC(disk, "The disk, such as /dev/vda");

static struct virtio_device *vdev;
static const struct virtio_config_ops *real;
static struct virtio_config_ops stuck;

static void stuck_set(struct virtio_device *vdev, unsigned int offset,
		      const void *buf, unsigned int len)
{
	if (offset == offsetof(struct virtio_blk_config, wce))
		dev_info(&vdev->dev, "the write cache stays on\n");
	else
		real->set(vdev, offset, buf, len);
}

static int __init stuck_init(void)
{
	struct file *file;

	file = bdev_file_open_by_path(disk, BLK_OPEN_READ, NULL, NULL);
	if (IS_ERR(file))
		return PTR_ERR(file);
	vdev = dev_to_virtio(disk_to_dev(file_bdev(file)->bd_disk)->parent);
	fput(file);

	real = vdev->config;
	stuck = *real;
	stuck.set = stuck_set;
	vdev->config = &stuck;
	return 0;
}

static void __exit stuck_exit(void)
{
	vdev->config = real;
}

module_init(stuck_init);
module_exit(stuck_exit);
MODULE_DESCRIPTION("A virtio disk whose write cache stays on");
MODULE_LICENSE("GPL");
