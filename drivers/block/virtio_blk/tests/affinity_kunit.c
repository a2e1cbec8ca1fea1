// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit test for affinity.c: the queue map follows vectors that are spread over all
 * possible CPUs, and has a queue for each CPU if they are not.
 *
 * The table has the masks of the vectors of a transport that does not exist.  CPUs are
 * numbered from 0 without gaps, and those of a mask that are not possible do not count.
 */

#include <kunit/test.h>
#include <linux/cpumask.h>
#include <linux/device.h>

#include "../virtio_blk.h"

#define VIRTBLK_TEST_QUEUES	4
#define VIRTBLK_TEST_CPUS	4

/**
 * struct virtblk_spread_case - a row of the table
 * @name: what is special about the vectors
 * @read: how many of the queues are for reads
 * @cpus: for each vector the CPUs of its mask, as a bitmap; 0 ends the list
 * @empty: the vector that has an empty mask
 * @spread: the map must follow the vectors
 */
struct virtblk_spread_case {
	const char *name;
	unsigned int read;
	unsigned long cpus[VIRTBLK_TEST_QUEUES];
	int empty;
	bool spread;
};

#define NONE	(-1)

static const struct virtblk_spread_case virtblk_spreads[] = {
	{ "a CPU for each vector", 0, { 0x1, 0x2, 0x4, 0x8 }, NONE, true },
	{ "in another order", 0, { 0x8, 0x1, 0x4, 0x2 }, NONE, true },
	{ "two CPUs for each vector", 0, { 0x5, 0xa }, NONE, true },
	{ "one vector for all CPUs", 0, { 0xf }, NONE, true },
	{ "vectors of different sizes", 0, { 0x7, 0x8 }, NONE, true },
	{ "two sets of vectors", 2, { 0x3, 0xc, 0xc, 0x3 }, NONE, true },

	/* Partial masks: some CPUs have no vector. */
	{ "the last two CPUs without a vector", 0, { 0x1, 0x2 }, NONE, false },
	{ "the first two CPUs without a vector", 0, { 0x4, 0x8 }, NONE, false },
	{ "one CPU without a vector", 0, { 0x1, 0x2, 0x4 }, NONE, false },
	{ "a vector for one CPU", 0, { 0x2 }, NONE, false },
	{ "vectors inside an even spread", 0, { 0x1, 0x4 }, NONE, false },
	{ "reads without a vector for some CPUs", 2, { 0x3, 0xc, 0x1, 0x2 },
	  NONE, false },
	{ "writes without a vector for some CPUs", 2, { 0x1, 0x2, 0x3, 0xc },
	  NONE, false },
	{ "an empty mask, all CPUs in others", 0, { 0x5, 0x1, 0xa }, 1, true },
	{ "an empty mask, and a CPU without a vector", 0, { 0x3, 0x1, 0x4 }, 1,
	  false },
	{ "only empty masks", 0, { 0x1 }, 0, false },

	/* A CPU with several vectors. */
	{ "a CPU in two masks", 0, { 0x3, 0xe }, NONE, false },
	{ "all CPUs in all masks", 0, { 0xf, 0xf, 0xf, 0xf }, NONE, false },
	{ "a CPU in two masks, and one in none", 0, { 0x3, 0x6 }, NONE, false },
};

KUNIT_ARRAY_PARAM_DESC(virtblk_spread, virtblk_spreads, name);

/**
 * struct virtblk_spread_test - a disk on the transport
 * @vdev: its device
 * @parent: the device's parent, not on PCI
 * @ops: the transport's operations
 * @masks: the vectors' masks
 * @vblk: the disk, of which only the numbers of queues and the maps are set
 */
struct virtblk_spread_test {
	struct virtio_device vdev;
	struct device parent;
	struct virtio_config_ops ops;
	struct cpumask masks[VIRTBLK_TEST_QUEUES];
	struct virtio_blk *vblk;
};

static const struct cpumask *virtblk_test_mask(struct virtio_device *vdev,
					       int index)
{
	struct virtblk_spread_test *disk =
		container_of(vdev, struct virtblk_spread_test, vdev);

	return &disk->masks[index];
}

static struct virtblk_spread_test *
virtblk_test_vectors(struct kunit *test, const struct virtblk_spread_case *row)
{
	struct virtblk_spread_test *disk;
	struct virtio_blk *vblk;
	unsigned int i, cpu;

	disk = kunit_kzalloc(test, sizeof(*disk), GFP_KERNEL);
	vblk = kunit_kzalloc(test, struct_size(vblk, queues,
					       VIRTBLK_TEST_QUEUES), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, disk);
	KUNIT_ASSERT_NOT_NULL(test, vblk);
	disk->ops.get_vq_affinity = virtblk_test_mask;
	disk->vdev.config = &disk->ops;
	disk->vdev.dev.parent = &disk->parent;
	disk->vblk = vblk;
	vblk->vdev = &disk->vdev;
	vblk->tag_set.driver_data = vblk;

	for (i = 0; i < VIRTBLK_TEST_QUEUES && row->cpus[i]; i++)
		for (cpu = 0; cpu < VIRTBLK_TEST_CPUS; cpu++)
			if (row->cpus[i] & BIT(cpu) && (int)i != row->empty)
				cpumask_set_cpu(cpu, &disk->masks[i]);
	vblk->nr_vqs = i;
	vblk->nr_queues[HCTX_TYPE_READ] = row->read;
	vblk->nr_queues[HCTX_TYPE_DEFAULT] = i - row->read;
	vblk->tag_set.nr_maps = row->read ? HCTX_TYPE_READ + 1 : 1;
	for (i = 0; i < vblk->tag_set.nr_maps; i++) {
		unsigned int *map = kunit_kcalloc(test, nr_cpu_ids, sizeof(*map),
						  GFP_KERNEL);

		KUNIT_ASSERT_NOT_NULL(test, map);
		vblk->tag_set.map[i].mq_map = map;
	}
	return disk;
}

/* Each possible CPU must use one queue of the type, and each mask be that queue's. */
static void virtblk_test_type(struct kunit *test, struct virtblk_spread_test *disk,
			      unsigned int begin, unsigned int end)
{
	struct virtio_blk *vblk = disk->vblk;
	struct cpumask *cpus, *all;
	unsigned int i;

	cpus = kunit_kzalloc(test, sizeof(*cpus), GFP_KERNEL);
	all = kunit_kzalloc(test, sizeof(*all), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, cpus);
	KUNIT_ASSERT_NOT_NULL(test, all);

	for (i = begin; i < end; i++) {
		virtblk_queue_cpus(vblk, i, cpus);
		KUNIT_EXPECT_FALSE_MSG(test, cpumask_intersects(all, cpus),
				       "queue %u", i);
		cpumask_or(all, all, cpus);
		if (vblk->spread && !cpumask_empty(&disk->masks[i]))
			KUNIT_EXPECT_TRUE_MSG(test,
					      cpumask_equal(cpus, &disk->masks[i]),
					      "queue %u", i);
	}
	KUNIT_EXPECT_TRUE(test, cpumask_equal(all, cpu_possible_mask));
}

/* One row of the table. */
static void virtblk_test_spread(struct kunit *test)
{
	const struct virtblk_spread_case *row = test->param_value;
	struct virtblk_spread_test *disk;
	struct virtio_blk *vblk;

	if (num_possible_cpus() != VIRTBLK_TEST_CPUS)
		kunit_skip(test, "needs %u possible CPUs", VIRTBLK_TEST_CPUS);
	disk = virtblk_test_vectors(test, row);
	vblk = disk->vblk;

	/* Only a device on PCI has unmanaged vectors to go back to. */
	KUNIT_EXPECT_EQ(test, virtblk_check_spread(vblk), true);
	KUNIT_EXPECT_EQ(test, vblk->spread, row->spread);
	virtblk_map_queues(&vblk->tag_set);
	virtblk_test_type(test, disk, 0, vblk->nr_queues[HCTX_TYPE_DEFAULT]);
	if (row->read)
		virtblk_test_type(test, disk, vblk->nr_queues[HCTX_TYPE_DEFAULT],
				  vblk->nr_vqs);

	/* A return with these vectors: the driver keeps them only if no CPU lacks one. */
	vblk->spread = true;
	KUNIT_EXPECT_EQ(test, virtblk_vectors_match(vblk), row->spread);
}

static struct kunit_case virtblk_affinity_cases[] = {
	KUNIT_CASE_PARAM(virtblk_test_spread, virtblk_spread_gen_params),
	{}
};

static struct kunit_suite virtblk_affinity_suite = {
	.name		= "virtio_blk_affinity",
	.test_cases	= virtblk_affinity_cases,
};

kunit_test_suite(virtblk_affinity_suite);
