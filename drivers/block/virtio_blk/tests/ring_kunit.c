// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit test for ring.h: a ring that the driver runs itself, against a device that the
 * test plays.  A hostile device can make the entries of the used ring anything.
 *
 * The virtqueue is the virtio core's, without a transport.
 */

#include <kunit/test.h>
#include <linux/prandom.h>

#include "../ring.h"

#define VIRTBLK_TEST_RING	8U
#define VIRTBLK_TEST_DEPTH	6U
/* The indexes come round twice. */
#define VIRTBLK_TEST_REQUESTS	(2 * 65536U + 100)

struct virtblk_ring_test {
	struct virtio_device vdev;
	struct virtio_blk *vblk;
	struct virtblk_queue *q;
	struct request *reqs[VIRTBLK_TEST_DEPTH];
	u16 used;
};

static bool virtblk_test_notify(struct virtqueue *vq)
{
	return true;
}

static void virtblk_test_del_vq(void *vq)
{
	vring_del_virtqueue(vq);
}

/* Make a virtqueue and a queue; the driver takes the ring over if it can. */
static struct virtblk_ring_test *virtblk_test_init(struct kunit *test, bool event_idx,
						   unsigned int depth)
{
	struct virtblk_ring_test *t = kunit_kzalloc(test, sizeof(*t), GFP_KERNEL);
	struct virtblk_req *vbr;
	unsigned int i;

	KUNIT_ASSERT_NOT_NULL(test, t);
	INIT_LIST_HEAD(&t->vdev.vqs);
	spin_lock_init(&t->vdev.vqs_list_lock);
	__virtio_set_bit(&t->vdev, VIRTIO_F_VERSION_1);
	__virtio_set_bit(&t->vdev, VIRTIO_RING_F_INDIRECT_DESC);
	if (event_idx)
		__virtio_set_bit(&t->vdev, VIRTIO_RING_F_EVENT_IDX);
	t->vblk = kunit_kzalloc(test, sizeof(*t->vblk), GFP_KERNEL);
	t->q = kunit_kzalloc(test, sizeof(*t->q), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, t->vblk);
	KUNIT_ASSERT_NOT_NULL(test, t->q);
	t->vblk->vdev = &t->vdev;
	t->vblk->tag_set.queue_depth = depth;
	t->q->vblk = t->vblk;
	t->q->slots = kunit_kcalloc(test, depth, sizeof(*t->q->slots), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, t->q->slots);
	for (i = 0; i < VIRTBLK_TEST_DEPTH; i++) {
		t->reqs[i] = kunit_kzalloc(test, sizeof(**t->reqs) + sizeof(*vbr),
					   GFP_KERNEL);
		KUNIT_ASSERT_NOT_NULL(test, t->reqs[i]);
		t->reqs[i]->tag = i;
		vbr = blk_mq_rq_to_pdu(t->reqs[i]);
		vbr->table_addr = 0x1000 * (i + 1);
		vbr->table_len = 48;
	}
	t->q->vq = vring_create_virtqueue(0, VIRTBLK_TEST_RING, SMP_CACHE_BYTES,
					  &t->vdev, true, false, false,
					  virtblk_test_notify, NULL, "test");
	KUNIT_ASSERT_NOT_NULL(test, t->q->vq);
	KUNIT_ASSERT_EQ(test, 0, kunit_add_action_or_reset(test, virtblk_test_del_vq,
							   t->q->vq));
	return t;
}

static struct virtblk_ring_test *virtblk_test_take(struct kunit *test, bool event_idx)
{
	struct virtblk_ring_test *t = virtblk_test_init(test, event_idx,
							VIRTBLK_TEST_DEPTH);

	virtblk_take_ring(t->q);
	KUNIT_ASSERT_TRUE(test, t->q->own_ring);
	return t;
}

static void virtblk_test_add(struct virtblk_ring_test *t, unsigned int tag)
{
	virtblk_ring_describe(t->q, t->reqs[tag]);
	virtblk_ring_add(t->q, t->reqs[tag]);
	virtblk_ring_expect(t->q, t->reqs[tag]);
}

static struct request *virtblk_test_get(struct virtblk_ring_test *t,
					unsigned int *len)
{
	return virtblk_ring_count_used(t->q) ? virtblk_ring_get(t->q, len) : NULL;
}

/* The device returns a request. */
static void virtblk_test_return(struct virtblk_ring_test *t, u32 id, u32 len)
{
	struct vring_used *used = t->q->ring.used;
	struct vring_used_elem *elem = &used->ring[t->used % VIRTBLK_TEST_RING];

	elem->id = (__force __virtio32)cpu_to_le32(id);
	elem->len = (__force __virtio32)cpu_to_le32(len);
	used->idx = (__force __virtio16)cpu_to_le16(++t->used);
}

/* What the device reads of the request that was made available at an index. */
static void virtblk_test_check_avail(struct kunit *test, struct virtblk_ring_test *t,
				     u16 index, unsigned int tag)
{
	struct virtblk_ring *ring = &t->q->ring;
	u16 head = virtblk_ring_read(&ring->avail->ring[index % VIRTBLK_TEST_RING]);
	struct vring_desc *desc = &ring->desc[head];

	KUNIT_EXPECT_EQ(test, head, tag);
	KUNIT_EXPECT_EQ(test, le64_to_cpu((__force __le64)desc->addr),
			0x1000 * (tag + 1));
	KUNIT_EXPECT_EQ(test, le32_to_cpu((__force __le32)desc->len), 48);
	KUNIT_EXPECT_EQ(test, virtblk_ring_read(&desc->flags),
			VRING_DESC_F_INDIRECT);
}

/* Set what the device wants to be notified of; returns whether it wants to, by 2.7. */
static bool virtblk_test_set_event(struct virtblk_ring_test *t, bool event_idx, u16 old,
				   u16 new, struct rnd_state *rnd)
{
	struct vring_used *used = t->q->ring.used;
	u16 event = old + prandom_u32_state(rnd) % (2 * VIRTBLK_TEST_RING);

	if (event_idx) {
		*(__le16 *)&used->ring[VIRTBLK_TEST_RING] = cpu_to_le16(event);
		return (u16)(event - old) < (u16)(new - old);
	}
	used->flags = (__force __virtio16)cpu_to_le16(event & 1 ?
						      VRING_USED_F_NO_NOTIFY : 0);
	return !(event & 1);
}

/* Each request comes back once, whatever the order, and kicks follow the device's wish. */
static void virtblk_ring_test_order(struct kunit *test)
{
	bool event_idx = *(const bool *)test->param_value, wanted;
	struct virtblk_ring_test *t = virtblk_test_take(test, event_idx);
	unsigned int tags[VIRTBLK_TEST_DEPTH], n, i, k, len;
	struct request *req;
	u32 sent = 0;
	struct rnd_state rnd;
	u16 index = 0, from;

	prandom_seed_state(&rnd, 1);
	while (sent < VIRTBLK_TEST_REQUESTS && !test->status) {
		n = 1 + prandom_u32_state(&rnd) % VIRTBLK_TEST_DEPTH;
		from = index;
		for (i = 0; i < n; i++) {
			tags[i] = (sent + i) % VIRTBLK_TEST_DEPTH;
			virtblk_test_add(t, tags[i]);
			KUNIT_EXPECT_EQ(test, virtblk_ring_read(&t->q->ring.avail->idx),
					from);
		}
		virtblk_ring_publish(t->q);
		for (i = 0; i < n; i++)
			virtblk_test_check_avail(test, t, index++, tags[i]);
		KUNIT_EXPECT_EQ(test, virtblk_ring_read(&t->q->ring.avail->idx), index);
		wanted = virtblk_test_set_event(t, event_idx, from, index, &rnd);
		KUNIT_EXPECT_EQ(test, virtblk_ring_must_kick(t->q), wanted);
		KUNIT_EXPECT_FALSE(test, virtblk_ring_has_used(t->q));
		for (i = n; i; i--) {
			k = prandom_u32_state(&rnd) % i;
			swap(tags[k], tags[i - 1]);
			virtblk_test_return(t, tags[i - 1], sent + i);
			req = virtblk_test_get(t, &len);
			KUNIT_EXPECT_PTR_EQ(test, req, t->reqs[tags[i - 1]]);
			KUNIT_EXPECT_EQ(test, len, sent + i);
		}
		KUNIT_EXPECT_NULL(test, virtblk_test_get(t, &len));
		sent += n;
	}
	KUNIT_EXPECT_FALSE(test, virtqueue_is_broken(t->q->vq));
	for (i = 0; i < VIRTBLK_TEST_DEPTH; i++)
		KUNIT_EXPECT_NULL(test, t->q->slots[i]);
}

/* An id that is not in flight breaks the virtqueue, and completes nothing. */
static void virtblk_ring_test_bad_id(struct kunit *test)
{
	const u32 ids[] = { 0, 2, VIRTBLK_TEST_DEPTH, VIRTBLK_TEST_RING, U16_MAX,
			    U16_MAX + 2, U32_MAX };
	struct virtblk_ring_test *t;
	unsigned int i, len;

	for (i = 0; i < ARRAY_SIZE(ids); i++) {
		t = virtblk_test_take(test, true);
		virtblk_test_add(t, 0);
		virtblk_test_add(t, 1);
		virtblk_ring_publish(t->q);
		virtblk_test_return(t, 0, 1);
		KUNIT_EXPECT_PTR_EQ(test, virtblk_test_get(t, &len), t->reqs[0]);
		/* Tag 0 is in flight no more, 2 never was. */
		virtblk_test_return(t, ids[i], 1);
		KUNIT_EXPECT_NULL(test, virtblk_test_get(t, &len));
		KUNIT_EXPECT_TRUE(test, virtqueue_is_broken(t->q->vq));
		KUNIT_EXPECT_PTR_EQ(test, t->q->slots[1], t->reqs[1]);
	}
}

/* The device is asked for an interrupt for the next request, and none is missed. */
static void virtblk_ring_test_unmask(struct kunit *test)
{
	bool event_idx = *(const bool *)test->param_value;
	struct virtblk_ring_test *t = virtblk_test_take(test, event_idx);
	struct virtblk_ring *ring = &t->q->ring;
	unsigned int len;

	virtblk_test_add(t, 3);
	virtblk_ring_publish(t->q);
	virtblk_ring_mask(t->q);
	KUNIT_EXPECT_EQ(test, virtblk_ring_read(&ring->avail->flags),
			event_idx ? 0 : VRING_AVAIL_F_NO_INTERRUPT);
	virtblk_test_return(t, 3, 1);
	KUNIT_EXPECT_FALSE(test, virtblk_ring_unmask(t->q));
	KUNIT_EXPECT_PTR_EQ(test, virtblk_test_get(t, &len), t->reqs[3]);
	KUNIT_EXPECT_TRUE(test, virtblk_ring_unmask(t->q));
	KUNIT_EXPECT_EQ(test, virtblk_ring_read(&ring->avail->flags), 0);
	if (event_idx)
		KUNIT_EXPECT_EQ(test, virtblk_ring_read(&ring->avail->ring[VIRTBLK_TEST_RING]),
				1);
}

/* The driver does not take a ring that is too small, or that was used before. */
static void virtblk_ring_test_refused(struct kunit *test)
{
	struct virtblk_ring_test *t = virtblk_test_init(test, true,
							VIRTBLK_TEST_RING + 1);
	const struct vring *vring;

	virtblk_take_ring(t->q);
	KUNIT_EXPECT_FALSE(test, t->q->own_ring);

	t = virtblk_test_init(test, true, VIRTBLK_TEST_DEPTH);
	vring = virtqueue_get_vring(t->q->vq);
	vring->avail->idx = (__force __virtio16)cpu_to_le16(5);
	vring->used->idx = (__force __virtio16)cpu_to_le16(5);
	virtblk_take_ring(t->q);
	KUNIT_EXPECT_FALSE(test, t->q->own_ring);
}

static const bool virtblk_event_idx[] = { false, true };

static void virtblk_describe(const bool *event_idx, char *name)
{
	strscpy(name, *event_idx ? "event index" : "flags", KUNIT_PARAM_DESC_SIZE);
}

KUNIT_ARRAY_PARAM(virtblk_kind, virtblk_event_idx, virtblk_describe);

static struct kunit_case virtblk_ring_test_cases[] = {
	KUNIT_CASE_PARAM(virtblk_ring_test_order, virtblk_kind_gen_params),
	KUNIT_CASE(virtblk_ring_test_bad_id),
	KUNIT_CASE_PARAM(virtblk_ring_test_unmask, virtblk_kind_gen_params),
	KUNIT_CASE(virtblk_ring_test_refused),
	{}
};

static struct kunit_suite virtblk_ring_test_suite = {
	.name		= "virtio_blk_ring",
	.test_cases	= virtblk_ring_test_cases,
};

kunit_test_suite(virtblk_ring_test_suite);
