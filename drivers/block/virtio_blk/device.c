// SPDX-License-Identifier: GPL-2.0
/*
 * The virtio device's status: reset, feature negotiation, and a device that is gone.
 */

#include <linux/delay.h>
#include <linux/device.h>
#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/slab.h>
#include <linux/virtio_config.h>

#include "virtio_blk.h"

/* The time between two looks at a device that the virtio core may be setting up. */
#define VIRTBLK_SET_UP_POLL_MS	10

/**
 * virtblk_is_gone() - is the device gone?
 * @vdev: the device
 *
 * Return: true if the status reads as all ones, as all registers of a PCI device that
 * is gone do; a device never has this status.
 */
bool virtblk_is_gone(struct virtio_device *vdev)
{
	return vdev->config->get_status(vdev) == 0xff;
}

/**
 * virtblk_reset_device() - reset the device unless it is gone
 * @vdev: the device
 *
 * A device that is gone never completes the reset, and the virtio core waits for it
 * without a timeout.
 *
 * Context: may sleep.
 */
void virtblk_reset_device(struct virtio_device *vdev)
{
	if (!virtblk_is_gone(vdev))
		virtio_reset_device(vdev);
}

/**
 * virtblk_needs_reset() - does the device request a reset?
 * @vdev: the device
 *
 * Return: true if DEVICE_NEEDS_RESET is set (VIRTIO 1.4, 2.1).
 */
bool virtblk_needs_reset(struct virtio_device *vdev)
{
	return vdev->config->get_status(vdev) & VIRTIO_CONFIG_S_NEEDS_RESET;
}

/**
 * virtblk_was_reset() - was the live device reset by somebody other than the driver?
 * @vdev: the device
 *
 * The virtio core reports a reset of the PCI function from 6.14 on, and not if the
 * disk was being probed when the reset began.  If the reset came in the middle of the
 * probe, DRIVER_OK was set after it and the bits before that are missing, or the core
 * has set FAILED because no driver was ready for the device's return.
 *
 * Return: true if the device's status is not the one that the driver gave it.
 */
bool virtblk_was_reset(struct virtio_device *vdev)
{
	u8 status = vdev->config->get_status(vdev);
	u8 live = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER |
		  VIRTIO_CONFIG_S_DRIVER_OK;

	if (virtio_has_feature(vdev, VIRTIO_F_VERSION_1))
		live |= VIRTIO_CONFIG_S_FEATURES_OK;
	return (status & (live | VIRTIO_CONFIG_S_FAILED)) != live;
}

/**
 * virtblk_reset_again() - reset a device that the virtio core has set up meanwhile
 * @vdev: the device, reset, its driver being removed
 *
 * After a reset of the PCI function the core sets the device up again, also while the driver
 * is being removed, and ends with FAILED because there is no disk.  It warns about a device
 * that is not reset after its removal.
 *
 * Context: may sleep.
 */
void virtblk_reset_again(struct virtio_device *vdev)
{
	unsigned long end = jiffies + VIRTBLK_SET_UP_TIME;
	u8 status;

	while (time_before(jiffies, end)) {
		status = vdev->config->get_status(vdev);
		if (!status || status == 0xff)
			return;
		if (status & VIRTIO_CONFIG_S_FAILED)
			break;
		msleep(VIRTBLK_SET_UP_POLL_MS);
	}
	virtblk_reset_device(vdev);
}

/**
 * virtblk_negotiate() - negotiate features as the virtio core does
 * @vdev: the device, after a reset, with the features to negotiate
 *
 * Context: may sleep.
 *
 * Return: 0, -ENODEV if the device rejects the features, or the transport's error.
 */
int virtblk_negotiate(struct virtio_device *vdev)
{
	int err;

	virtio_add_status(vdev, VIRTIO_CONFIG_S_ACKNOWLEDGE);
	virtio_add_status(vdev, VIRTIO_CONFIG_S_DRIVER);
	err = vdev->config->finalize_features(vdev);
	if (err || !virtio_has_feature(vdev, VIRTIO_F_VERSION_1))
		return err;

	virtio_add_status(vdev, VIRTIO_CONFIG_S_FEATURES_OK);
	if (!(vdev->config->get_status(vdev) & VIRTIO_CONFIG_S_FEATURES_OK))
		return -ENODEV;
	return 0;
}

/**
 * virtblk_set_ready() - set DRIVER_OK
 * @vdev: the device, its virtqueues set up
 *
 * The virtio core warns about a device that has DRIVER_OK already, as one does that is gone
 * and reads as all ones, or that is hostile.  It reads the status again, so a device that
 * changes it at that moment still has it warn.
 *
 * Context: may sleep.
 *
 * Return: 0, or -EIO for such a device.
 */
int virtblk_set_ready(struct virtio_device *vdev)
{
	u8 status = vdev->config->get_status(vdev);

	if (status & VIRTIO_CONFIG_S_DRIVER_OK) {
		dev_err(&vdev->dev, "its status is %#x before the driver sets DRIVER_OK: it is gone or broken\n",
			status);
		return -EIO;
	}
	virtio_device_ready(vdev);
	return 0;
}

/* A device that is gone */

/* A transport's operations, except that get_status() returns 0. */
struct virtblk_gone_ops {
	struct list_head list;
	const struct virtio_config_ops *real;
	struct virtio_config_ops ops;
};

static LIST_HEAD(virtblk_gone_ops);
static DEFINE_MUTEX(virtblk_gone_lock);

static u8 virtblk_get_gone_status(struct virtio_device *vdev)
{
	return 0;
}

/* Keep the operations until the module is unloaded: sysfs uses them without a lock. */
static struct virtblk_gone_ops *
virtblk_find_gone_ops(const struct virtio_config_ops *real)
{
	struct virtblk_gone_ops *gone;

	mutex_lock(&virtblk_gone_lock);
	list_for_each_entry(gone, &virtblk_gone_ops, list)
		if (gone->real == real)
			goto out;
	gone = kzalloc_obj(*gone, GFP_KERNEL);
	if (gone) {
		gone->real = real;
		gone->ops = *real;
		gone->ops.get_status = virtblk_get_gone_status;
		list_add(&gone->list, &virtblk_gone_ops);
	}
out:
	mutex_unlock(&virtblk_gone_lock);
	return gone;
}

void virtblk_free_gone_ops(void)
{
	struct virtblk_gone_ops *gone, *next;

	list_for_each_entry_safe(gone, next, &virtblk_gone_ops, list)
		kfree(gone);
}

static void virtblk_restore_ops(void *data)
{
	struct virtio_device *vdev = data;

	vdev->config = container_of(vdev->config, struct virtblk_gone_ops,
				    ops)->real;
}

/*
 * After remove() the virtio core warns if the device's status is not 0, because the
 * driver should have reset it.  The status of a device that is gone reads 0xff, and
 * the driver cannot reset it.  Return 0 as its status until the driver core is done
 * with the driver.  Otherwise a surprise removal panics a guest with panic_on_warn.
 */
void virtblk_hide_gone(struct virtio_device *vdev)
{
	struct virtblk_gone_ops *gone;

	if (!virtblk_is_gone(vdev))
		return;
	gone = virtblk_find_gone_ops(vdev->config);
	if (gone && !devm_add_action(&vdev->dev, virtblk_restore_ops, vdev))
		vdev->config = &gone->ops;
}
