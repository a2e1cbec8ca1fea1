// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit test for device.c: virtblk_set_ready() refuses a device whose status the virtio
 * core would warn about.
 *
 * The device is made up: QEMU and VDUSE keep the status themselves, so none of theirs has
 * DRIVER_OK before the driver sets it, and no test can unplug one at that very moment.
 */

#include <kunit/test.h>
#include <linux/virtio_config.h>

#include "../virtio_blk.h"

/**
 * struct virtblk_status_case - a row of the table
 * @name: what the device is
 * @status: its status before the driver sets DRIVER_OK
 * @err: what virtblk_set_ready() returns
 * @after: the status after it
 */
static const struct virtblk_status_case {
	const char *name;
	u8 status;
	int err;
	u8 after;
} virtblk_statuses[] = {
	{ "a device that was set up", 0xb, 0, 0xf },
	{ "a legacy device that was set up", 0x3, 0, 0x7 },
	{ "a device that needs a reset", 0x4b, 0, 0x4f },
	{ "a device that has DRIVER_OK", 0xf, -EIO, 0xf },
	{ "a device that is gone", 0xff, -EIO, 0xff },
};

KUNIT_ARRAY_PARAM_DESC(virtblk_status, virtblk_statuses, name);

static u8 virtblk_test_status;

static u8 virtblk_test_get_status(struct virtio_device *vdev)
{
	return virtblk_test_status;
}

static void virtblk_test_set_status(struct virtio_device *vdev, u8 status)
{
	virtblk_test_status = status;
}

static const struct virtio_config_ops virtblk_test_ops = {
	.get_status	= virtblk_test_get_status,
	.set_status	= virtblk_test_set_status,
};

static void virtblk_test_set_ready(struct kunit *test)
{
	const struct virtblk_status_case *row = test->param_value;
	struct virtio_device *vdev;

	vdev = kunit_kzalloc(test, sizeof(*vdev), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, vdev);
	vdev->config = &virtblk_test_ops;
	vdev->dev.init_name = "virtblk-device-test";
	virtblk_test_status = row->status;

	KUNIT_EXPECT_EQ(test, virtblk_set_ready(vdev), row->err);
	KUNIT_EXPECT_EQ(test, virtblk_test_status, row->after);
}

static struct kunit_case virtblk_device_cases[] = {
	KUNIT_CASE_PARAM(virtblk_test_set_ready, virtblk_status_gen_params),
	{}
};

static struct kunit_suite virtblk_device_suite = {
	.name		= "virtio_blk_device",
	.test_cases	= virtblk_device_cases,
};

kunit_test_suite(virtblk_device_suite);
