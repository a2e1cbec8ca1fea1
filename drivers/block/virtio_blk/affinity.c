// SPDX-License-Identifier: GPL-2.0
/*
 * Map CPUs to queues, and send each queue's interrupts to its CPUs.
 *
 * At probe the kernel spreads the vectors over the CPUs, and the queue map follows
 * them.  After that the map does not change.  If the device returns from a reset or a
 * suspend with vectors that do not match the map, the driver uses unmanaged vectors and
 * sets the affinity of each to the CPUs of its queue.  The kernel moves such a vector
 * when the last of these CPUs goes offline, and the driver moves it back when one comes
 * online.
 */

#include <linux/blk-mq.h>
#include <linux/cpuhotplug.h>
#include <linux/cpumask.h>
#include <linux/interrupt.h>
#include <linux/pci.h>
#include <linux/sched/isolation.h>
#include <linux/sched/mm.h>

#include "virtio_blk.h"

/*
 * The kernel spreads the vectors of each type of queue separately, so that each CPU has
 * one vector for reads and one for other requests.
 */
static void virtblk_calc_sets(struct irq_affinity *affinity,
			      unsigned int vectors)
{
	struct virtio_blk *vblk = affinity->priv;
	unsigned int other = vblk->nr_queues[HCTX_TYPE_DEFAULT];
	unsigned int read = vblk->nr_queues[HCTX_TYPE_READ];

	/* After a failure virtio_pci tries again with fewer vectors than queues. */
	if (!read || vectors < other + read) {
		affinity->nr_sets = 1;
		affinity->set_size[0] = vectors;
		return;
	}
	affinity->nr_sets = 2;
	affinity->set_size[0] = other;
	affinity->set_size[1] = read;
}

/**
 * virtblk_init_affinity() - describe how the kernel spreads the vectors
 * @vblk: the disk, its numbers of queues decided
 * @affinity: filled in
 *
 * Without calc_sets the PCI core counts CPUs under cpus_read_lock().  CPU hotplug may
 * hold that lock while it waits for requests that cannot complete before the reset.
 */
void virtblk_init_affinity(struct virtio_blk *vblk,
			   struct irq_affinity *affinity)
{
	affinity->calc_sets = virtblk_calc_sets;
	affinity->priv = vblk;
}

/* Returns the CPUs of a virtqueue's managed vector, or NULL if there is none. */
static const struct cpumask *virtblk_vector_cpus(struct virtio_blk *vblk,
						 unsigned int index)
{
	struct virtio_device *vdev = vblk->vdev;

	if (!vdev->config->get_vq_affinity)
		return NULL;
	return vdev->config->get_vq_affinity(vdev, index);
}

/* Is each possible CPU in the mask of exactly one of the vectors? */
static bool virtblk_is_spread(struct virtio_blk *vblk, unsigned int begin,
			      unsigned int end)
{
	const struct cpumask *mask;
	unsigned int cpu, i, owners;

	for (i = begin; i < end; i++)
		if (!virtblk_vector_cpus(vblk, i))
			return false;

	for_each_possible_cpu(cpu) {
		owners = 0;
		for (i = begin; i < end; i++) {
			mask = virtblk_vector_cpus(vblk, i);
			owners += cpumask_test_cpu(cpu, mask);
		}
		if (owners != 1)
			return false;
	}
	return true;
}

/**
 * virtblk_check_spread() - check whether the queue map can follow the vectors
 * @vblk: the disk, its virtqueues set up for the first time
 *
 * Return: false if the device is on PCI, and the queue map cannot follow its managed
 * vectors.
 */
bool virtblk_check_spread(struct virtio_blk *vblk)
{
	unsigned int type, begin, end = 0;

	vblk->spread = true;
	for (type = 0; type < HCTX_TYPE_POLL; type++) {
		begin = end;
		end += vblk->nr_queues[type];
		if (begin < end && !virtblk_is_spread(vblk, begin, end))
			vblk->spread = false;
	}
	return vblk->spread || !dev_is_pci(vblk->vdev->dev.parent) ||
	       !virtblk_vector_cpus(vblk, 0);
}

/**
 * virtblk_map_queues() - blk-mq's map_queues(): map CPUs to queues
 * @set: the disk's tag set
 *
 * Queues with an interrupt follow their vectors.  Polled queues, and queues whose
 * vectors are not spread over the CPUs, are spread evenly by blk-mq.
 */
void virtblk_map_queues(struct blk_mq_tag_set *set)
{
	struct virtio_blk *vblk = set->driver_data;
	unsigned int type, cpu, i, offset = 0;

	for (type = 0; type < set->nr_maps; type++) {
		struct blk_mq_queue_map *qmap = &set->map[type];

		qmap->nr_queues = vblk->nr_queues[type];
		qmap->queue_offset = offset;
		offset += qmap->nr_queues;
		if (!qmap->nr_queues)
			continue;

		blk_mq_map_queues(qmap);
		if (type == HCTX_TYPE_POLL || !vblk->spread)
			continue;
		for (i = qmap->queue_offset; i < offset; i++)
			for_each_cpu(cpu, virtblk_vector_cpus(vblk, i))
				qmap->mq_map[cpu] = i;
	}
}

static unsigned int *virtblk_queue_map(struct virtio_blk *vblk,
				       unsigned int index)
{
	unsigned int type = HCTX_TYPE_DEFAULT, end = vblk->nr_queues[type];

	while (index >= end)
		end += vblk->nr_queues[++type];
	return vblk->tag_set.map[type].mq_map;
}

/**
 * virtblk_queue_cpus() - get the CPUs that use a queue
 * @vblk: the disk, its tag set allocated
 * @index: the queue's index
 * @mask: filled in with the CPUs whose requests of the queue's type go to the queue
 */
void virtblk_queue_cpus(struct virtio_blk *vblk, unsigned int index,
			struct cpumask *mask)
{
	unsigned int *map = virtblk_queue_map(vblk, index);
	unsigned int cpu;

	cpumask_clear(mask);
	for_each_possible_cpu(cpu)
		if (map[cpu] == index)
			cpumask_set_cpu(cpu, mask);
}

/**
 * virtblk_vectors_match() - do the managed vectors match the queue map?
 * @vblk: the disk, its virtqueues set up again
 *
 * A vector must go to all CPUs of its queue: the kernel shuts it down with the last CPU
 * that it knows.
 *
 * Return: false if a vector goes to a CPU that uses another queue, or not to all that
 * use its own; true if not, or if there are no managed vectors.
 */
bool virtblk_vectors_match(struct virtio_blk *vblk)
{
	const struct cpumask *mask;
	unsigned int *map;
	unsigned int i, cpu;

	if (!vblk->spread && !dev_is_pci(vblk->vdev->dev.parent))
		return true;
	for (i = 0; i < virtblk_first_polled(vblk); i++) {
		mask = virtblk_vector_cpus(vblk, i);
		if (!mask)
			continue;
		map = virtblk_queue_map(vblk, i);
		for_each_possible_cpu(cpu) {
			bool user = map[cpu] == i;

			if (cpumask_test_cpu(cpu, mask) != user)
				return false;
		}
	}
	return true;
}

/*
 * The transport does not report a virtqueue's vector.  virtio_pci uses vector 0 for
 * configuration changes.  If there are enough vectors, each virtqueue with an
 * interrupt has its own, in order.  Otherwise all of them share vector 1.
 */
static int virtblk_own_irq(struct virtio_blk *vblk, unsigned int index)
{
	struct device *parent = vblk->vdev->dev.parent;
	struct pci_dev *pdev;

	if (!dev_is_pci(parent) || index >= virtblk_first_polled(vblk))
		return 0;
	pdev = to_pci_dev(parent);
	if (!pdev->msix_enabled ||
	    pci_irq_vector(pdev, virtblk_first_polled(vblk)) <= 0)
		return 0;
	return pci_irq_vector(pdev, index + 1);
}

/**
 * virtblk_has_own_vectors() - does each queue with an interrupt have its own vector?
 * @vblk: the disk, its virtqueues set up
 *
 * Return: true if so; false also if the device is not on PCI.
 */
bool virtblk_has_own_vectors(struct virtio_blk *vblk)
{
	return virtblk_own_irq(vblk, 0);
}

/*
 * Take isolated CPUs out of a queue's CPUs, unless all of them are isolated.  So the I/O
 * of other CPUs does not interrupt them.  The kernel does the same for vectors that it
 * manages.
 */
static void virtblk_spare_isolated(struct cpumask *mask)
{
	const struct cpumask *others = housekeeping_cpumask(HK_TYPE_MANAGED_IRQ);
	unsigned int cpu;

	/* As the kernel, keep the mask if all other CPUs of it are offline. */
	for_each_cpu_and(cpu, mask, others) {
		if (!cpu_online(cpu))
			continue;
		cpumask_and(mask, mask, others);
		return;
	}
}

/**
 * virtblk_set_affinity() - send each queue's interrupts to its CPUs
 * @vblk: the disk, its virtqueues bound
 *
 * The driver does this on transports that leave it to the driver (vDPA), and for
 * unmanaged vectors on PCI.  It leaves a shared vector alone, because one queue's
 * affinity would apply to all queues.
 *
 * Context: may sleep.
 */
void virtblk_set_affinity(struct virtio_blk *vblk)
{
	bool pci = dev_is_pci(vblk->vdev->dev.parent);
	cpumask_var_t mask;
	unsigned int i;

	if (vblk->managed && (vblk->spread || pci))
		return;
	if (pci && !virtblk_own_irq(vblk, 0))
		return;
	/* Without the affinity the disk is slower, but it works. */
	if (!alloc_cpumask_var(&mask, GFP_KERNEL))
		return;

	for (i = 0; i < virtblk_first_polled(vblk); i++) {
		virtblk_queue_cpus(vblk, i, mask);
		/* VDUSE would wait for a CPU that goes offline later. */
		if (pci)
			virtblk_spare_isolated(mask);
		virtqueue_set_affinity(vblk->queues[i]->vq, mask);
	}
	free_cpumask_var(mask);
}

/**
 * virtblk_irq() - get the number of a queue's interrupt
 * @vblk: the disk, its recovery.lock held
 * @index: the queue's index
 *
 * Return: the number, or 0 if the queue is polled, shares its interrupt, or is not on
 * PCI.
 */
int virtblk_irq(struct virtio_blk *vblk, unsigned int index)
{
	if (vblk->managed && !virtblk_vector_cpus(vblk, index))
		return 0;
	return virtblk_own_irq(vblk, index);
}

/* CPU hotplug */

static enum cpuhp_state virtblk_cpuhp_state;

/*
 * CPU hotplug calls this with cpus_write_lock() held, so it must not wait for recovery,
 * which may wait for the device.  If the lock is held, the watch sets the affinities.
 */
static int virtblk_cpu_online(unsigned int cpu, struct hlist_node *node)
{
	struct virtio_blk *vblk = hlist_entry_safe(node, struct virtio_blk,
						   cpuhp_node);
	unsigned int noio;

	if (!mutex_trylock(&vblk->recovery.lock)) {
		WRITE_ONCE(vblk->recovery.affinity_late, true);
		mod_delayed_work(virtblk_wq, &vblk->recovery.watch, 0);
		return 0;
	}
	noio = memalloc_noio_save();
	if (vblk->recovery.state == VIRTBLK_LIVE)
		virtblk_set_affinity(vblk);
	memalloc_noio_restore(noio);
	mutex_unlock(&vblk->recovery.lock);
	return 0;
}

/**
 * virtblk_init_cpuhp() - register virtblk_cpu_online()
 *
 * Return: 0 or the error of cpuhp_setup_state_multi().
 */
int virtblk_init_cpuhp(void)
{
	int state;

	state = cpuhp_setup_state_multi(CPUHP_AP_ONLINE_DYN,
					"block/virtio_blk:online",
					virtblk_cpu_online, NULL);
	if (state < 0)
		return state;
	virtblk_cpuhp_state = state;
	return 0;
}

/**
 * virtblk_exit_cpuhp() - undo virtblk_init_cpuhp()
 */
void virtblk_exit_cpuhp(void)
{
	cpuhp_remove_multi_state(virtblk_cpuhp_state);
}

/**
 * virtblk_add_cpuhp() - restore the disk's affinities when a CPU comes online
 * @vblk: the disk, its virtqueues bound, not live yet
 *
 * Takes cpus_read_lock(), so recovery must not hold back any request: CPU hotplug may
 * wait for it with the lock held.
 *
 * Return: 0 or an error.
 */
int virtblk_add_cpuhp(struct virtio_blk *vblk)
{
	return cpuhp_state_add_instance_nocalls(virtblk_cpuhp_state,
						&vblk->cpuhp_node);
}

/**
 * virtblk_remove_cpuhp() - undo virtblk_add_cpuhp()
 * @vblk: the disk, without requests
 */
void virtblk_remove_cpuhp(struct virtio_blk *vblk)
{
	cpuhp_state_remove_instance_nocalls(virtblk_cpuhp_state,
					    &vblk->cpuhp_node);
}
