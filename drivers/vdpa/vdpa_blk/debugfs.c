// SPDX-License-Identifier: GPL-2.0
/*
 * The state of a device, and the state and counters of each virtqueue:
 * vdpa_blk/<device>/device and vdpa_blk/<device>/queue<N> in debugfs, a line for each
 * name with its value.
 */

#include <linux/debugfs.h>
#include <linux/seq_file.h>

#include "queue.h"
#include "vdpa_blk.h"

static struct dentry *vdpa_blk_debugfs;

/* Without the device's lock, because its holder may wait for the backing device. */
static int vdpa_blk_device_show(struct seq_file *file, void *unused)
{
	struct vdpa_blk *vb = file->private;
	unsigned int i;
	u64 capacity;
	u8 status;

	spin_lock_irq(&vb->config_lock);
	capacity = le64_to_cpu((__force __le64)vb->config.capacity);
	status = vb->status;
	spin_unlock_irq(&vb->config_lock);

	seq_printf(file, "path %s\n", vb->settings.path);
	seq_printf(file, "gone %d\n", READ_ONCE(vb->gone));
	seq_printf(file, "capacity %llu\n", capacity);
	seq_printf(file, "queues %u\n", vb->settings.queues);
	seq_printf(file, "workers %u\n", vb->nr_workers);
	seq_puts(file, "worker_pids");
	for (i = 0; i < vb->nr_workers; i++)
		seq_printf(file, " %d", task_pid_nr(vb->workers[i].task));
	seq_putc(file, '\n');
	seq_printf(file, "features %#llx\n", vb->features);
	/* It changes with the device's lock held; an older value does no harm. */
	seq_printf(file, "driver_features %#llx\n", data_race(vb->driver_features));
	/* Likewise. */
	seq_printf(file, "suspended %d\n", data_race(vb->suspended));
	seq_printf(file, "status %#x\n", status);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(vdpa_blk_device);

static int vdpa_blk_queue_show(struct seq_file *file, void *unused)
{
	struct vdpa_blk_queue *q = file->private;
	struct vdpa_blk_used_stats used;
	struct vdpa_blk_stats stats;

	/* The worker adds to its own without a lock. */
	stats = data_race(q->stats);
	spin_lock_irq(&q->lock);
	used = q->used_stats;
	spin_unlock_irq(&q->lock);

	seq_printf(file, "worker %u\n", q->worker->index);
	seq_printf(file, "running %d\n", READ_ONCE(q->running));
	seq_printf(file, "ring %u\n", q->num);
	seq_printf(file, "in_flight %d\n", atomic_read(&q->in_flight));
	seq_printf(file, "reads %llu\n", stats.requests[VDPA_BLK_READ]);
	seq_printf(file, "read_bytes %llu\n", stats.bytes[VDPA_BLK_READ]);
	seq_printf(file, "writes %llu\n", stats.requests[VDPA_BLK_WRITE]);
	seq_printf(file, "write_bytes %llu\n", stats.bytes[VDPA_BLK_WRITE]);
	seq_printf(file, "flushes %llu\n", stats.requests[VDPA_BLK_FLUSH]);
	seq_printf(file, "others %llu\n", stats.requests[VDPA_BLK_OTHER]);
	seq_printf(file, "errors %llu\n", used.errors);
	seq_printf(file, "unsupported %llu\n", used.unsupported);
	seq_printf(file, "broken %llu\n", stats.broken);
	seq_printf(file, "bounced %llu\n", stats.bounced);
	seq_printf(file, "wakeups %llu\n", stats.wakeups);
	seq_printf(file, "empty_wakeups %llu\n", stats.empty);
	seq_printf(file, "interrupts %llu\n", used.signals);
	seq_printf(file, "interrupts_suppressed %llu\n", used.suppressed);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(vdpa_blk_queue);

/**
 * vdpa_blk_init_debugfs() - create the directory for all devices
 */
void vdpa_blk_init_debugfs(void)
{
	vdpa_blk_debugfs = debugfs_create_dir("vdpa_blk", NULL);
}

/**
 * vdpa_blk_exit_debugfs() - remove the directory for all devices
 */
void vdpa_blk_exit_debugfs(void)
{
	debugfs_remove(vdpa_blk_debugfs);
}

/**
 * vdpa_blk_create_debugfs() - create a device's directory
 * @vb: the device
 */
void vdpa_blk_create_debugfs(struct vdpa_blk *vb)
{
	char name[16];
	unsigned int i;

	vb->debugfs = debugfs_create_dir(dev_name(&vb->vdpa.dev),
					 vdpa_blk_debugfs);
	debugfs_create_file("device", 0400, vb->debugfs, vb, &vdpa_blk_device_fops);
	for (i = 0; i < vb->settings.queues; i++) {
		snprintf(name, sizeof(name), "queue%u", i);
		debugfs_create_file(name, 0400, vb->debugfs, vb->queues[i],
				    &vdpa_blk_queue_fops);
	}
}

/**
 * vdpa_blk_remove_debugfs() - remove a device's directory
 * @vb: the device
 */
void vdpa_blk_remove_debugfs(struct vdpa_blk *vb)
{
	debugfs_remove(vb->debugfs);
}
