/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the administrator sets before a device is added, and its limits.
 */
#ifndef VDPA_BLK_SETTINGS_H
#define VDPA_BLK_SETTINGS_H

#include <linux/cpumask.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>

#define VDPA_BLK_MAX_QUEUES	256

/* Features that each device offers. */
#define VDPA_BLK_ALWAYS							\
	(BIT_ULL(VIRTIO_F_VERSION_1) | BIT_ULL(VIRTIO_F_ACCESS_PLATFORM) | \
	 BIT_ULL(VIRTIO_F_RING_PACKED) | BIT_ULL(VIRTIO_RING_F_INDIRECT_DESC) | \
	 BIT_ULL(VIRTIO_RING_F_EVENT_IDX) | BIT_ULL(VIRTIO_BLK_F_SEG_MAX) | \
	 BIT_ULL(VIRTIO_BLK_F_BLK_SIZE) | BIT_ULL(VIRTIO_BLK_F_TOPOLOGY) | \
	 BIT_ULL(VIRTIO_BLK_F_MQ) | BIT_ULL(VIRTIO_BLK_F_FLUSH) |	\
	 BIT_ULL(VIRTIO_BLK_F_CONFIG_WCE))

/* Those that some devices offer, by their settings and backing device. */
#define VDPA_BLK_FEATURES						\
	(VDPA_BLK_ALWAYS | BIT_ULL(VIRTIO_BLK_F_RO) |			\
	 BIT_ULL(VIRTIO_BLK_F_DISCARD) | BIT_ULL(VIRTIO_BLK_F_WRITE_ZEROES) | \
	 BIT_ULL(VIRTIO_BLK_F_SECURE_ERASE) | BIT_ULL(VIRTIO_BLK_F_ZONED))

/**
 * struct vdpa_blk_settings - what the administrator has chosen
 * @path: path of the backing device
 * @serial: the ID string, not terminated if it has all bytes
 * @cpus: CPUs for the workers, one after the other; empty: any
 * @queues: number of virtqueues
 * @ring_size: the largest ring
 * @workers: number of workers, 0: one for each queue and CPU
 * @features: the features that the device may offer, of those that it has
 * @poll_us: how long a worker polls its queues before it sleeps, in microseconds
 * @readonly: offer VIRTIO_BLK_F_RO
 * @write_cache: offer a cache that is written back, if the backing device has one
 */
struct vdpa_blk_settings {
	char path[256];
	char serial[VIRTIO_BLK_ID_BYTES];
	struct cpumask cpus;
	unsigned int queues;
	unsigned int ring_size;
	unsigned int workers;
	u64 features;
	unsigned int poll_us;
	bool readonly;
	bool write_cache;
};

int vdpa_blk_init_configfs(void);
void vdpa_blk_exit_configfs(void);
int vdpa_blk_find_settings(const char *name, struct vdpa_blk_settings *settings);

#endif /* VDPA_BLK_SETTINGS_H */
