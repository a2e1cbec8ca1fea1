// SPDX-License-Identifier: GPL-2.0
/* Rules of status, features, reset and configuration. */

#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "rules.h"

#define AT_DRIVER	(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER)
#define AT_FEATURES	(AT_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK)

/* VIRTIO 1.4, 2.1; the headers do not have it. */
#define S_SUSPEND	16

/* The bits that VIRTIO 1.4 defines: 5.2.3 without the legacy ones, and 6. */
#define BITS(first, last)	(~0ull >> (63 - (last)) & ~0ull << (first))
#define DEFINED_BLK	(BITS(1, 2) | BITS(4, 6) | BITS(9, 17))
#define DEFINED_RINGS	(BITS(28, 29) | BITS(32, 36) | BITS(38, 40) | BITS(43, 43))

struct config_message {
	struct vhost_vdpa_config head;
	struct virtio_blk_config config;
};

static struct virtio_blk_config read_config(struct dev *d)
{
	struct config_message message = { .head.len = sizeof(message.config) };

	IOCTL(d, VHOST_VDPA_GET_CONFIG, &message);
	return message.config;
}

/* Whether the device accepts some features, from reset to FEATURES_OK. */
static bool accepts(struct dev *d, uint64_t features)
{
	set_status(d, 0);
	set_status(d, AT_DRIVER);
	if (ioctl(d->fd, VHOST_SET_FEATURES, &features) < 0 && errno != EINVAL)
		fail("VHOST_SET_FEATURES: %s", strerror(errno));
	set_status(d, AT_FEATURES);
	return get_status(d) & VIRTIO_CONFIG_S_FEATURES_OK;
}

void check_status_reset(struct dev *d)
{
	begin(d);
	set_status(d, 0);
	if (get_status(d))
		fail("status %#x after a reset", get_status(d));
}

void check_reset_quiet(struct dev *d)
{
	struct queue *q = begin(d);
	uint8_t *copy = malloc(mem_bytes);
	unsigned int s;

	if (!copy)
		fail("malloc: %s", strerror(errno));
	for (s = 0; s < d->depth; s++)
		put_read(q, s);
	kick(q, false);
	set_status(d, 0);
	was_called(q, 0);
	/* Another request, at which the device must not look. */
	for (s = 0; has_used(q); s++)
		take_used(q, &(uint32_t){ 0 });
	if (q->slots[0].busy)
		*status_of(q, 0) = 0xff;
	else
		put_read(q, 0);
	ring_of(q)->wants_kick(q, q->avail - q->added);
	memcpy(copy, mem, mem_bytes);
	kick(q, true);
	must_be_quiet(q, "after a reset");
	if (memcmp(copy, mem, mem_bytes))
		fail("the device wrote to memory after a reset");
	free(copy);
}

void check_reset_forgets(struct dev *d)
{
	const uint8_t mode = d->config.wce;
	struct queue *q = begin(d);
	uint32_t base;

	put_read(q, 0);
	kick(q, false);
	finish(q, "read", NULL);
	if (d->accepted & F(VIRTIO_BLK_F_CONFIG_WCE))
		set_cache_mode(d, !mode);
	set_status(d, 0);
	/* The interrupt of the read may have come after its used entry. */
	was_called(q, 0);
	if (read_config(d).wce != mode)
		fail("writeback %u after a reset, and %u at first", read_config(d).wce, mode);
	base = get_base(d, 0);
	if (base)
		fail("the ring begins at %#x after a reset", base);
	/* The rings are not set up, so there is nothing to serve. */
	put_read(q, 0);
	negotiate(d);
	set_status(d, AT_FEATURES | VIRTIO_CONFIG_S_DRIVER_OK);
	kick(q, true);
	must_be_quiet(q, "with the virtqueue of the last driver");
	if (get_status(d) & NEEDS_RESET)
		fail("status %#x with virtqueues that are not enabled", get_status(d));
	q = begin(d);
	put_read(q, 0);
	kick(q, false);
	expect_status(finish(q, "read", NULL), VIRTIO_BLK_S_OK, "read after resets");
}

void check_not_before_driver_ok(struct dev *d)
{
	struct queue *q = &d->queues[0];

	negotiate(d);
	/* From the last driver. */
	was_called(q, 0);
	start_queue(d, 0, NULL);
	map_all(d, true);
	put_read(q, 0);
	kick(q, true);
	must_be_quiet(q, "before DRIVER_OK");
	set_status(d, AT_FEATURES | VIRTIO_CONFIG_S_DRIVER_OK);
	kick(q, true);
	expect_status(finish(q, "after DRIVER_OK", NULL), VIRTIO_BLK_S_OK, "after DRIVER_OK");
}

/* A buffer that the device writes comes before one that it reads. */
void check_needs_reset(struct dev *d)
{
	struct queue *q = begin(d);
	struct vring_desc list[] = { part(buffer_of(q, 0), 512, true),
				     header(q, 0, VIRTIO_BLK_T_IN, 0), status_desc(q, 0) };

	put_chain(q, 0, list, LENGTH(list));
	kick(q, false);
	must_need_reset(d, "a chain in the wrong order");
	set_status(d, 0);
	if (get_status(d))
		fail("status %#x after a reset", get_status(d));
	q = begin(d);
	put_read(q, 0);
	kick(q, false);
	expect_status(finish(q, "read", NULL), VIRTIO_BLK_S_OK, "read after NEEDS_RESET");
}

/* Neither before DRIVER_OK nor later, because the device does not offer F_SUSPEND. */
void check_suspend_ignored(struct dev *d)
{
	struct queue *q;

	set_status(d, 0);
	set_status(d, AT_DRIVER);
	set_status(d, AT_DRIVER | S_SUSPEND);
	if (get_status(d) != AT_DRIVER)
		fail("status %#x after SUSPEND before FEATURES_OK", get_status(d));
	q = begin(d);
	set_status(d, get_status(d) | S_SUSPEND);
	if (get_status(d) != (AT_FEATURES | VIRTIO_CONFIG_S_DRIVER_OK))
		fail("status %#x after SUSPEND", get_status(d));
	put_read(q, 0);
	kick(q, false);
	expect_status(finish(q, "read", NULL), VIRTIO_BLK_S_OK, "read after SUSPEND");
}

/* A device on the vDPA bus has nothing of PCI: SR_IOV and ADMIN_VQ. */
void check_feature_undefined(struct dev *d)
{
	const uint64_t defined = DEFINED_BLK | DEFINED_RINGS;

	if (d->features & ~defined)
		fail("features %#llx: %#llx are not defined for this device",
		     (unsigned long long)d->features,
		     (unsigned long long)(d->features & ~defined));
}

void check_feature_depends(struct dev *d)
{
	if (d->features & F(VIRTIO_BLK_F_CONFIG_WCE) && !(d->features & F(VIRTIO_BLK_F_FLUSH)))
		fail("features %#llx: CONFIG_WCE without FLUSH", (unsigned long long)d->features);
}

void check_feature_not_offered(struct dev *d)
{
	unsigned int bit;

	for (bit = 0; bit < 64; bit++) {
		/* QEMU accepts ACCESS_PLATFORM on behalf of the guest. */
		if (d->features & F(bit) || bit == VIRTIO_F_ACCESS_PLATFORM)
			continue;
		if (accepts(d, d->features | F(bit)))
			fail("the device does not offer bit %u, and sets FEATURES_OK with it",
			     bit);
	}
}

void check_feature_subset(struct dev *d)
{
	unsigned int bit;

	for (bit = 0; bit < 64; bit++)
		if (d->features & F(bit) && bit != VIRTIO_F_VERSION_1 &&
		    !accepts(d, d->features & ~F(bit)))
			fail("no FEATURES_OK without bit %u", bit);
	if (!accepts(d, F(VIRTIO_F_VERSION_1)))
		fail("no FEATURES_OK with VERSION_1 alone");
}

void check_feature_again(struct dev *d)
{
	unsigned int i;

	for (i = 0; i < 4; i++)
		if (!accepts(d, i & 1 ? F(VIRTIO_F_VERSION_1) : d->features))
			fail("no FEATURES_OK in negotiation %u", i);
}

void check_version_1(struct dev *d)
{
	if (!(d->features & F(VIRTIO_F_VERSION_1)))
		fail("features %#llx have no VERSION_1", (unsigned long long)d->features);
}

void check_config_early(struct dev *d)
{
	struct virtio_blk_config early, late;

	set_status(d, 0);
	set_status(d, AT_DRIVER);
	early = read_config(d);
	if (!early.capacity || !early.blk_size || !early.num_queues)
		fail("capacity %llu, blk_size %u, num_queues %u before FEATURES_OK",
		     (unsigned long long)early.capacity, early.blk_size, early.num_queues);
	negotiate(d);
	late = read_config(d);
	if (memcmp(&early, &late, sizeof(late)))
		fail("the configuration differs after FEATURES_OK");
}

void check_config_padding(struct dev *d)
{
	struct virtio_blk_config c = read_config(d);

	if (c.unused | c.unused1[0] | c.unused1[1] | c.unused1[2])
		fail("padding %u, %u, %u, %u", c.unused, c.unused1[0], c.unused1[1],
		     c.unused1[2]);
}

void check_cache_without_flush(struct dev *d)
{
	if (!(d->features & F(VIRTIO_BLK_F_CONFIG_WCE)))
		return;
	d->refused = F(VIRTIO_BLK_F_FLUSH);
	negotiate(d);
	if (read_config(d).wce)
		fail("writeback is 1 after CONFIG_WCE was accepted and FLUSH was not");
	/* Nor can the driver turn it on. */
	set_cache_mode(d, 1);
	if (read_config(d).wce)
		fail("writeback can be set without FLUSH");
}
