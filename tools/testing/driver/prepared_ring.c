// SPDX-License-Identifier: GPL-2.0
/*
 * Play the device of virtqueues without a transport, and compare what virtio_ring makes
 * of prepared requests and of scatterlists, mixed at random: split and packed rings, in
 * order and not.  test_prepared.py loads the module; its init fails if anything is wrong.
 *
 * The driver declines VIRTIO_F_IN_ORDER, so its own I/O does not reach those rings.
 */

#include <linux/io.h>
#include <linux/module.h>
#include <linux/prandom.h>
#include <linux/scatterlist.h>
#include <linux/slab.h>
#include <linux/virtio.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>

#define RING	8U
/* The indexes of a split ring come round. */
#define REQUESTS	70000U
#define TABLE(n)	(0x100000ULL + 0x1000 * (n))
#define IN_LEN(n)	(512 + (n) % 1000)
#define USED_LEN(n)	(7 + (n) % 300)

#define CHECK(condition, n)							\
	do {									\
		if (!(condition)) {						\
			pr_err("prepared_ring: %s, request %u: %s is false\n",	\
			       name, (n), #condition);				\
			return -EINVAL;						\
		}								\
	} while (0)

/* What the device knows of a request that it has not returned. */
struct taken {
	unsigned int n;
	u16 id;
};

static struct virtio_device vdev;
static struct virtqueue *vq;
static struct rnd_state rnd;
static const char *name;
static bool packed, in_order;
static struct vring_packed_desc *ring;
static u16 avail, used;
static bool avail_wrap, used_wrap;
static struct taken taken[RING];
static unsigned int nr_taken;
/* Requests are numbered in the order in which the driver adds them. */
static bool prepared[REQUESTS];
static u32 lengths[REQUESTS];
static u8 out_byte, in_byte;

static bool notify(struct virtqueue *vq)
{
	return true;
}

static void callback(struct virtqueue *vq)
{
}

/* A token is the number of the request and one. */
static void *token(unsigned int n)
{
	return (void *)(unsigned long)(n + 1);
}

static unsigned int below(unsigned int limit)
{
	return prandom_u32_state(&rnd) % limit;
}

static int add(unsigned int n)
{
	struct scatterlist out, in, *sgs[] = { &out, &in };

	prepared[n] = below(3);
	if (prepared[n])
		return virtqueue_add_prepared(vq, TABLE(n), 48, IN_LEN(n), token(n));
	sg_init_one(&out, &out_byte, 1);
	sg_init_one(&in, &in_byte, 1);
	return virtqueue_add_sgs(vq, sgs, 1, 1, token(n), GFP_KERNEL);
}

/* The device takes the next request; its number is @n. */
static int take(unsigned int n)
{
	struct taken *next = &taken[nr_taken++];
	u16 flags, wanted;
	u64 addr;
	u32 len;

	next->n = n;
	if (packed) {
		wanted = VRING_DESC_F_INDIRECT |
			 1 << (avail_wrap ? VRING_PACKED_DESC_F_AVAIL :
					    VRING_PACKED_DESC_F_USED);
		flags = le16_to_cpu(ring[avail].flags);
		addr = le64_to_cpu(ring[avail].addr);
		len = le32_to_cpu(ring[avail].len);
		next->id = le16_to_cpu(ring[avail].id);
		avail = (avail + 1) % RING;
		avail_wrap ^= !avail;
	} else {
		const struct vring *vring = virtqueue_get_vring(vq);
		struct vring_desc *desc;

		CHECK(virtio16_to_cpu(&vdev, vring->avail->idx) == (u16)(n + 1), n);
		next->id = virtio16_to_cpu(&vdev, vring->avail->ring[avail++ % RING]);
		CHECK(next->id < RING, n);
		desc = &vring->desc[next->id];
		wanted = VRING_DESC_F_INDIRECT;
		flags = virtio16_to_cpu(&vdev, desc->flags);
		addr = virtio64_to_cpu(&vdev, desc->addr);
		len = virtio32_to_cpu(&vdev, desc->len);
	}
	CHECK(flags == wanted, n);
	CHECK(!prepared[n] || (addr == TABLE(n) && len == 48), n);
	CHECK(prepared[n] || len == 32, n);
	return 0;
}

/* The device writes one entry, for @count requests of which @last is the last one. */
static void put(const struct taken *last, unsigned int count, u32 len)
{
	if (packed) {
		struct vring_packed_desc *desc = &ring[used];

		desc->id = cpu_to_le16(last->id);
		desc->len = cpu_to_le32(len);
		desc->flags = cpu_to_le16(used_wrap ? 1 << VRING_PACKED_DESC_F_AVAIL |
						      1 << VRING_PACKED_DESC_F_USED : 0);
		used += count;
		if (used >= RING) {
			used -= RING;
			used_wrap = !used_wrap;
		}
	} else {
		const struct vring *vring = virtqueue_get_vring(vq);

		vring->used->ring[used % RING].id = cpu_to_virtio32(&vdev, last->id);
		vring->used->ring[used % RING].len = cpu_to_virtio32(&vdev, len);
		used += count;
		vring->used->idx = cpu_to_virtio16(&vdev, used);
	}
}

/* The device returns requests, and the driver gets them. */
static int give_back(void)
{
	unsigned int count = in_order ? 1 + below(nr_taken) : 1, i, n, len;
	unsigned int which = in_order ? count - 1 : below(nr_taken);
	void *found;

	n = taken[which].n;
	lengths[n] = USED_LEN(n);
	put(&taken[which], count, lengths[n]);
	for (i = 0; i < count; i++) {
		n = taken[in_order ? i : which].n;
		/* In order, the device tells the length of the last one alone. */
		if (in_order && i < count - 1)
			lengths[n] = prepared[n] ? IN_LEN(n) : 1;
		found = virtqueue_get_buf(vq, &len);
		CHECK(found == token(n), n);
		CHECK(len == lengths[n], n);
	}
	CHECK(!virtqueue_get_buf(vq, &len), n);
	nr_taken -= count;
	memmove(&taken[in_order ? 0 : which], &taken[in_order ? count : which + 1],
		(in_order ? nr_taken : nr_taken - which) * sizeof(*taken));
	return 0;
}

static int run(void)
{
	unsigned int n = 0, target, left;
	int err = 0;

	while (!err && n < REQUESTS) {
		for (target = below(RING + 1); nr_taken < target && n < REQUESTS; n++) {
			CHECK(vq->num_free == RING - nr_taken, n);
			err = add(n);
			CHECK(!err, n);
			err = take(n);
			if (err)
				return err;
		}
		virtqueue_kick_prepare(vq);
		if (nr_taken == RING) {
			CHECK(virtqueue_add_prepared(vq, TABLE(0), 48, 1, token(0)) ==
			      -ENOSPC, n);
			CHECK(!vq->num_free, n);
		}
		while (!err && nr_taken && below(4))
			err = give_back();
	}
	if (err)
		return err;
	CHECK(!virtqueue_is_broken(vq), n);
	/* What is left is detached, in any order, as before a reset. */
	for (left = nr_taken; left; left--)
		CHECK(virtqueue_detach_unused_buf(vq), left);
	CHECK(!virtqueue_detach_unused_buf(vq), n);
	CHECK(vq->num_free == RING, n);
	return 0;
}

static int try_ring(const char *title, bool is_packed, bool is_in_order, bool event_idx)
{
	int err;

	name = title;
	packed = is_packed;
	in_order = is_in_order;
	avail = 0;
	used = 0;
	avail_wrap = true;
	used_wrap = true;
	nr_taken = 0;
	memset(&vdev, 0, sizeof(vdev));
	INIT_LIST_HEAD(&vdev.vqs);
	spin_lock_init(&vdev.vqs_list_lock);
	__virtio_set_bit(&vdev, VIRTIO_F_VERSION_1);
	__virtio_set_bit(&vdev, VIRTIO_RING_F_INDIRECT_DESC);
	if (packed)
		__virtio_set_bit(&vdev, VIRTIO_F_RING_PACKED);
	if (in_order)
		__virtio_set_bit(&vdev, VIRTIO_F_IN_ORDER);
	if (event_idx)
		__virtio_set_bit(&vdev, VIRTIO_RING_F_EVENT_IDX);
	vq = vring_create_virtqueue(0, RING, SMP_CACHE_BYTES, &vdev, true, false, false,
				    notify, callback, title);
	if (!vq)
		return -ENOMEM;
	__virtio_unbreak_device(&vdev);
	if (packed)
		ring = phys_to_virt(virtqueue_get_desc_addr(vq));
	err = run();
	vring_del_virtqueue(vq);
	if (!err)
		pr_info("prepared_ring: %s: %u requests\n", title, REQUESTS);
	return err;
}

static int __init prepared_ring_init(void)
{
	static const char *const titles[] = {
		"split", "packed", "split in order", "packed in order" };
	unsigned int i;
	int err = 0;

	prandom_seed_state(&rnd, 1);
	for (i = 0; !err && i < 2 * ARRAY_SIZE(titles); i++)
		err = try_ring(titles[i / 2], i / 2 & 1, i / 2 & 2, i & 1);
	return err;
}

static void __exit prepared_ring_exit(void)
{
}

module_init(prepared_ring_init);
module_exit(prepared_ring_exit);
MODULE_DESCRIPTION("A device of virtqueues that take prepared requests");
MODULE_LICENSE("GPL");
