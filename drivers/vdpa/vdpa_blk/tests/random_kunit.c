// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit test for ring.c and chain.c: the driver and the device work on one ring for many
 * laps, each doing one of its steps at random.  Chains are of different lengths, complete
 * in any order, and fill the ring.  No chain is lost or comes twice, and the driver gets
 * each interrupt that it waits for.
 *
 * The test runs when somebody writes to /sys/kernel/debug/kunit/vdpa_blk_random/run.
 */

#include <kunit/test.h>
#include <linux/prandom.h>

#include "ring_driver.h"

#define STEPS	30000
/* Chains at a time, and descriptors of each at most: together less than a split ring. */
#define CHAINS	5
#define DESCS	3

struct random_chain {
	u16 id;
	u16 nr;
	u32 len;
};

struct random_list {
	struct random_chain chains[CHAINS];
	unsigned int nr;
};

/**
 * struct random_test - what the driver and the device have done
 * @rnd: the source of random numbers
 * @posted: chains that the device has not taken
 * @taken: those that it has not returned
 * @returned: those that the driver has not seen
 * @visible: the first of @returned, which the driver can see
 * @ids: a bit for each id that is in use
 * @left: descriptors of a packed ring that are free
 * @from: the first used entry for which the device has not decided
 * @from_wrap: its wrap counter
 * @since: used entries from there on
 * @event: the entry for which the driver wants an interrupt
 * @event_wrap: its wrap counter
 * @signals: interrupts by whether they were due
 */
struct random_test {
	struct rnd_state rnd;
	struct random_list posted;
	struct random_list taken;
	struct random_list returned;
	unsigned int visible;
	unsigned long ids;
	u16 left;
	u16 from;
	bool from_wrap;
	u16 since;
	u16 event;
	bool event_wrap;
	unsigned int signals[2];
};

static u32 random_below(struct random_test *r, u32 limit)
{
	return prandom_u32_state(&r->rnd) % limit;
}

static void random_push(struct random_list *list, struct random_chain chain)
{
	list->chains[list->nr++] = chain;
}

static struct random_chain random_pull(struct random_list *list, unsigned int i)
{
	struct random_chain chain = list->chains[i];

	list->nr--;
	memmove(&list->chains[i], &list->chains[i + 1],
		(list->nr - i) * sizeof(list->chains[0]));
	return chain;
}

static void random_post(struct kunit *test, struct random_test *r)
{
	static const struct vdpa_blk_test_desc descs[DESCS] = {
		{ 16, NEXT }, { 512, WRITE_ONLY | NEXT }, { 1, WRITE_ONLY },
	};
	struct random_chain chain = { .nr = 1 + random_below(r, DESCS) };
	unsigned int slot = random_below(r, CHAINS);
	struct vdpa_blk_test *t = test->priv;

	if (test_bit(slot, &r->ids) || (t->packed && chain.nr > r->left))
		return;
	__set_bit(slot, &r->ids);
	r->left -= chain.nr;
	chain.id = slot * DESCS;
	vdpa_blk_test_post(t, descs + DESCS - chain.nr, chain.nr, chain.id, 0);
	random_push(&r->posted, chain);
}

static void random_take(struct kunit *test, struct random_test *r)
{
	struct vdpa_blk_test *t = test->priv;
	struct random_chain chain;

	KUNIT_ASSERT_EQ(test, vdpa_blk_has_more(&t->q->ring), r->posted.nr > 0);
	KUNIT_ASSERT_EQ(test, vdpa_blk_next_chain(t->q), r->posted.nr > 0);
	if (!r->posted.nr)
		return;
	chain = random_pull(&r->posted, 0);
	KUNIT_ASSERT_EQ(test, t->q->chain.id, chain.id);
	KUNIT_ASSERT_EQ(test, t->q->chain.nr_out + t->q->chain.nr_in, chain.nr);
	random_push(&r->taken, chain);
}

static void random_publish(struct kunit *test, struct random_test *r)
{
	struct vdpa_blk_test *t = test->priv;
	bool due;

	if (!r->since)
		return;
	due = !t->q->ring.event_idx ||
	      vdpa_blk_test_passes(t, r->from, r->from_wrap, r->since, r->event,
				   r->event_wrap);
	KUNIT_ASSERT_EQ(test, vdpa_blk_test_publish(t), due);
	r->signals[due]++;
	vdpa_blk_test_next(t, &r->from, &r->from_wrap, r->since);
	r->since = 0;
	r->visible = r->returned.nr;
}

static void random_return(struct kunit *test, struct random_test *r)
{
	struct vdpa_blk_test *t = test->priv;
	struct random_chain chain;
	u16 used;

	if (!r->taken.nr)
		return;
	chain = random_pull(&r->taken, random_below(r, r->taken.nr));
	chain.len = random_below(r, 3) ? prandom_u32_state(&r->rnd) : 0;
	used = t->packed ? chain.nr : 1;
	/* A lap without a decision cannot be: the driver waits for it. */
	if (r->since + used > t->num)
		random_publish(test, r);
	vdpa_blk_test_return(t, chain.id, used, chain.len);
	r->since += used;
	random_push(&r->returned, chain);
	if (t->packed)
		r->visible = r->returned.nr;
}

static void random_set_event(struct kunit *test, struct random_test *r)
{
	struct vdpa_blk_test *t = test->priv;

	if (t->packed) {
		r->event = random_below(r, t->num);
		r->event_wrap = random_below(r, 2);
	} else {
		r->event = r->from - 2 + random_below(r, 6);
	}
	if (t->q->ring.event_idx)
		vdpa_blk_test_set_event(t, r->event, r->event_wrap);
}

static void random_reclaim(struct kunit *test, struct random_test *r)
{
	struct vdpa_blk_test *t = test->priv;
	struct random_chain chain;
	u32 id, len;

	for (; r->visible; r->visible--) {
		chain = random_pull(&r->returned, 0);
		KUNIT_ASSERT_TRUE(test, vdpa_blk_test_take_used(t, chain.nr, &id, &len));
		KUNIT_ASSERT_EQ(test, id, chain.id);
		KUNIT_ASSERT_EQ(test, len, chain.len);
		__clear_bit(chain.id / DESCS, &r->ids);
		r->left += chain.nr;
	}
	KUNIT_ASSERT_FALSE(test, vdpa_blk_test_take_used(t, 1, &id, &len));
	random_set_event(test, r);
}

static void random_test_ring(struct kunit *test)
{
	static void (*const steps[])(struct kunit *test, struct random_test *r) = {
		random_post, random_post, random_take, random_take, random_return,
		random_return, random_publish, random_reclaim,
	};
	u64 features = vdpa_blk_test_features(test);
	struct vdpa_blk_test *t = test->priv;
	struct random_test *r;
	unsigned int i;

	r = kunit_kzalloc(test, sizeof(*r), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, r);
	prandom_seed_state(&r->rnd, 18);
	vdpa_blk_test_map(test, features & PACKED ? 7 : 16, features, 0, true);
	r->left = t->num;
	r->from_wrap = true;
	random_set_event(test, r);
	for (i = 0; i < STEPS; i++)
		steps[random_below(r, ARRAY_SIZE(steps))](test, r);
	/* Both decisions were made often. */
	KUNIT_EXPECT_GT(test, r->signals[true], STEPS / 100);
	if (features & EVENT_IDX)
		KUNIT_EXPECT_GT(test, r->signals[false], STEPS / 100);
}

static struct kunit_case random_test_cases[] = {
	KUNIT_CASE_PARAM_ATTR(random_test_ring, vdpa_blk_test_kinds,
			      { .speed = KUNIT_SPEED_SLOW }),
	{}
};

static struct kunit_suite random_test_suite = {
	.name		= "vdpa_blk_random",
	.init		= vdpa_blk_test_init,
	.exit		= vdpa_blk_test_exit,
	.test_cases	= random_test_cases,
};

kunit_test_suite(random_test_suite);
