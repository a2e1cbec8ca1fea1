// SPDX-License-Identifier: GPL-2.0
/* The node's ioctls. */

#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "vdpadrv.h"

unsigned int hang_ms = 10000;

void call_ioctl(struct dev *d, unsigned long request, void *arg, const char *name)
{
	if (ioctl(d->fd, request, arg) < 0)
		fail("%s: %s", name, strerror(errno));
}

uint8_t get_status(struct dev *d)
{
	uint8_t status;

	IOCTL(d, VHOST_VDPA_GET_STATUS, &status);
	return status;
}

void set_status(struct dev *d, uint8_t status)
{
	IOCTL(d, VHOST_VDPA_SET_STATUS, &status);
}

/* Write the field writeback of the configuration. */
void set_cache_mode(struct dev *d, uint8_t mode)
{
	struct {
		struct vhost_vdpa_config head;
		uint8_t mode;
	} buf = { .head.off = offsetof(struct virtio_blk_config, wce), .head.len = 1,
		  .mode = mode };

	IOCTL(d, VHOST_VDPA_SET_CONFIG, &buf);
}

void open_dev(struct dev *d)
{
	struct {
		struct vhost_vdpa_config head;
		struct virtio_blk_config config;
	} buf = { .head.len = sizeof(buf.config) };
	uint64_t backend;
	unsigned int i;

	d->fd = open(d->path, O_RDWR | O_CLOEXEC);
	if (d->fd < 0)
		fail("open %s: %s", d->path, strerror(errno));
	IOCTL(d, VHOST_SET_OWNER, NULL);
	IOCTL(d, VHOST_GET_BACKEND_FEATURES, &backend);
	backend &= F(VHOST_BACKEND_F_IOTLB_MSG_V2) | F(VHOST_BACKEND_F_IOTLB_BATCH);
	IOCTL(d, VHOST_SET_BACKEND_FEATURES, &backend);
	IOCTL(d, VHOST_GET_FEATURES, &d->features);
	IOCTL(d, VHOST_VDPA_GET_CONFIG, &buf);
	d->config = buf.config;
	for (i = 0; i < d->nr_pieces; i++)
		d->pieces[i].mapped = false;
}

/*
 * Wait for NEEDS_RESET, and for the interrupt that VIRTIO 1.4, 2.1.2 demands with it.
 * Returns false if the interrupt does not come.
 */
bool await_needs_reset(struct dev *d, const char *when)
{
	struct pollfd p = { .fd = d->config_call, .events = POLLIN };
	uint64_t end = now_ms() + hang_ms, value;

	while (!(get_status(d) & NEEDS_RESET)) {
		if (now_ms() > end)
			fail("%s: status %#x without NEEDS_RESET within %u ms", when,
			     get_status(d), hang_ms);
		usleep(1000);
	}
	if (poll(&p, 1, hang_ms) != 1)
		return false;
	if (read(d->config_call, &value, sizeof(value)) < 0)
		fail("read of the configuration's eventfd: %s", strerror(errno));
	return true;
}

void must_need_reset(struct dev *d, const char *when)
{
	if (!await_needs_reset(d, when))
		fail("%s: NEEDS_RESET without a configuration interrupt within %u ms", when,
		     hang_ms);
}
