/* SPDX-License-Identifier: GPL-2.0 */
/* The vdpa_blk devices of a host, which vdpa.c reads and host.c shows. */
#ifndef VDPA_H
#define VDPA_H

#include "vblkstat.h"

/* Lines of a virtqueue's file in debugfs. */
enum vdpa_counter {
	V_WORKER, V_RUNNING, V_RING, V_IN_FLIGHT,
	V_READS, V_READ_BYTES, V_WRITES, V_WRITE_BYTES, V_FLUSHES, V_OTHERS,
	V_ERRORS, V_UNSUPPORTED, V_BROKEN, V_BOUNCED, V_WAKEUPS, V_EMPTY_WAKEUPS,
	V_INTERRUPTS, V_INTERRUPTS_SUPPRESSED,
	NR_VDPA_COUNTERS
};

struct vdpa_queue {
	unsigned int index;
	uint64_t counter[NR_VDPA_COUNTERS];
};

/**
 * struct vdpa_worker - a thread that serves virtqueues
 * @thread: its name; empty if /proc does not show it
 * @cpus: CPUs that are online and on which it may run
 * @last_cpu: the CPU on which it ran last
 */
struct vdpa_worker {
	uint64_t pid;
	char thread[64];
	struct cpus cpus;
	uint64_t last_cpu;
};

/**
 * struct vdpa_device - a device of vdpa_blk
 * @driver: its bus driver, vhost_vdpa or virtio_vdpa; empty if it has none
 * @disk: its disk on this machine, with virtio_vdpa
 * @node: its node in /dev, with vhost_vdpa
 * @known: what follows is known
 * @path: path of the backing device
 * @gone: the backing device has been removed
 * @status: the device status (VIRTIO 1.4, 2.1)
 * @offered: features that it offers
 * @accepted: features that its driver has accepted
 */
struct vdpa_device {
	char name[256];
	char driver[32];
	char disk[16];
	char node[32];
	bool known;
	char path[256];
	uint64_t gone;
	uint64_t sectors;
	uint64_t status;
	uint64_t suspended;
	bool features_known;
	bool offered[MAX_FEATURES];
	bool accepted[MAX_FEATURES];
	struct vdpa_worker *workers;
	unsigned int nr_workers;
	struct vdpa_queue *queues;
	unsigned int nr_queues;
};

struct vdpa_devices {
	struct vdpa_device *all;
	unsigned int count;
};

extern const char *const vdpa_counter_names[NR_VDPA_COUNTERS];
bool vdpa_read(struct vdpa_devices *devices, const struct request *request);
void vdpa_free(struct vdpa_devices *devices);
bool vdpa_module_loaded(void);
const char *vdpa_state(const struct vdpa_device *device);
uint64_t vdpa_requests(const struct vdpa_queue *queue);

#endif /* VDPA_H */
