// SPDX-License-Identifier: GPL-2.0
/*
 * Features and the device status: offered features, checks of those that the
 * driver accepts, and of the order of initialization.
 */

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "vblksim.h"
#include "virtio.h"

#define BIT(n)	(1ull << (n))

/* When the device offers a feature. */
enum offer {
	BY_DEFAULT,
	WHEN_ASKED,	/* by name, or by "all" */
	WHEN_NAMED,	/* by name only: the device works the same without it */
};

static const struct {
	const char *name;
	unsigned int bit;
	enum offer offer;
} features[] = {
	{ "size_max", BLK_F_SIZE_MAX, BY_DEFAULT },
	{ "seg_max", BLK_F_SEG_MAX, BY_DEFAULT },
	{ "geometry", BLK_F_GEOMETRY, BY_DEFAULT },
	{ "ro", BLK_F_RO, WHEN_ASKED },
	{ "blk_size", BLK_F_BLK_SIZE, BY_DEFAULT },
	{ "flush", BLK_F_FLUSH, BY_DEFAULT },
	{ "topology", BLK_F_TOPOLOGY, BY_DEFAULT },
	{ "config_wce", BLK_F_CONFIG_WCE, WHEN_NAMED },
	{ "mq", BLK_F_MQ, BY_DEFAULT },
	{ "discard", BLK_F_DISCARD, BY_DEFAULT },
	{ "write_zeroes", BLK_F_WRITE_ZEROES, BY_DEFAULT },
	{ "lifetime", BLK_F_LIFETIME, BY_DEFAULT },
	{ "secure_erase", BLK_F_SECURE_ERASE, BY_DEFAULT },
	{ "zoned", BLK_F_ZONED, WHEN_ASKED },
	{ "indirect_desc", F_INDIRECT_DESC, BY_DEFAULT },
	{ "event_idx", F_EVENT_IDX, BY_DEFAULT },
	{ "version_1", F_VERSION_1, BY_DEFAULT },
	{ "access_platform", F_ACCESS_PLATFORM, BY_DEFAULT },
	{ "ring_packed", F_RING_PACKED, WHEN_ASKED },
	{ "order_platform", F_ORDER_PLATFORM, WHEN_NAMED },
};

/* Features that require another one. */
static const struct {
	unsigned int bit;
	unsigned int needs;
} dependencies[] = {
	{ BLK_F_ZONED, F_VERSION_1 },
	{ F_RING_PACKED, F_VERSION_1 },
};

const char *feature_name(unsigned int bit)
{
	for (size_t i = 0; i < ARRAY_SIZE(features); i++)
		if (features[i].bit == bit)
			return features[i].name;
	return NULL;
}

int feature_number(const char *name)
{
	char *end;
	long bit;

	if (!strcmp(name, "packed"))
		return F_RING_PACKED;
	if (!strcmp(name, "indirect") || !strcmp(name, "ring_indirect_desc"))
		return F_INDIRECT_DESC;
	if (!strcmp(name, "ring_event_idx"))
		return F_EVENT_IDX;
	for (size_t i = 0; i < ARRAY_SIZE(features); i++)
		if (!strcmp(features[i].name, name))
			return features[i].bit;
	if (!strncmp(name, "bit", 3) && name[3]) {
		bit = strtol(name + 3, &end, 10);
		if (!*end && bit >= 0 && bit < 64)
			return bit;
	}
	return -1;
}

static uint64_t offered_at(enum offer most)
{
	uint64_t bits = 0;

	for (size_t i = 0; i < ARRAY_SIZE(features); i++)
		if (features[i].offer <= most)
			bits |= BIT(features[i].bit);
	return bits;
}

uint64_t features_default(void)
{
	return offered_at(BY_DEFAULT);
}

uint64_t features_all(void)
{
	return offered_at(WHEN_ASKED);
}

/*
 * The features that the standard defines for non-legacy block devices (VIRTIO 1.4, 2.2
 * and 6).  SR_IOV and ADMIN_VQ are for devices that are PCI functions themselves, which
 * this program never is.
 */
static uint64_t defined_features(void)
{
	uint64_t bits = offered_at(WHEN_NAMED) | BIT(F_SUSPEND);

	for (unsigned int bit = F_VERSION_1; bit <= F_RING_RESET; bit++)
		bits |= BIT(bit);
	return bits & ~BIT(F_SR_IOV);
}

static bool check_bits(struct sim *sim, enum rule rule, uint64_t wrong)
{
	unsigned int bit = wrong ? __builtin_ctzll(wrong) : 0;
	const char *name = feature_name(bit);

	return watch_check(&sim->watch, rule, !wrong,
			   "feature bit %u (%s) of %#" PRIx64 " accepted",
			   bit, name ? name : "without a name here", wrong);
}

/* Check the rule on a feature that the driver accepts if it is offered. */
static void check_accepted(struct sim *sim, enum rule rule, uint64_t accepted,
			   unsigned int bit)
{
	if (sim->set.features & BIT(bit))
		watch_check(&sim->watch, rule, accepted & BIT(bit),
			    "%s is not accepted", feature_name(bit));
}

static bool is_host_managed(const struct sim *sim)
{
	return sim->set.features & BIT(BLK_F_ZONED) &&
	       sim->set.config.model == BLK_Z_HM;
}

static bool check_dependencies(struct sim *sim, uint64_t accepted)
{
	bool good = true;

	for (size_t i = 0; i < ARRAY_SIZE(dependencies); i++)
		if (accepted & BIT(dependencies[i].bit))
			good &= watch_check(&sim->watch,
				RULE_FEATURE_DEPENDENCY,
				accepted & BIT(dependencies[i].needs),
				"%s is accepted without %s",
				feature_name(dependencies[i].bit),
				feature_name(dependencies[i].needs));
	return good;
}

bool features_accept(struct sim *sim, uint64_t accepted)
{
	bool good;

	good = check_bits(sim, RULE_FEATURE_NOT_OFFERED,
			  accepted & ~sim->set.features);
	check_bits(sim, RULE_FEATURE_UNDEFINED,
		   accepted & sim->set.features & ~defined_features());
	good &= check_dependencies(sim, accepted);
	check_accepted(sim, RULE_FEATURE_VERSION_1, accepted, F_VERSION_1);
	check_accepted(sim, RULE_FEATURE_ACCESS_PLATFORM, accepted,
		       F_ACCESS_PLATFORM);
	check_accepted(sim, RULE_FEATURE_RING_PACKED, accepted, F_RING_PACKED);
	check_accepted(sim, RULE_FEATURE_ORDER_PLATFORM, accepted,
		       F_ORDER_PLATFORM);
	if (is_host_managed(sim)) {
		check_bits(sim, RULE_FEATURE_DISCARD_HM,
			   accepted & BIT(BLK_F_DISCARD));
		good &= !!(accepted & BIT(BLK_F_ZONED));
	}
	good &= !(sim->set.required & sim->set.features & ~accepted);
	/* This program supports only little-endian devices. */
	good &= !!(accepted & BIT(F_VERSION_1));
	sim->driver_features = good ? accepted : 0;
	return good;
}

void features_show_config(const struct sim *sim, struct blk_config *view)
{
	*view = sim->set.config;
	/* 5.2.5.2: without ZONED accepted, its fields are zero. */
	if (sim->status & STATUS_FEATURES_OK &&
	    !has_feature(sim, BLK_F_ZONED))
		memset(&view->zone_sectors, 0,
		       sizeof(*view) - offsetof(struct blk_config,
						zone_sectors));
}

static void reset(struct sim *sim)
{
	script_reset(sim);
	request_reset(sim);
	for (unsigned int i = 0; sim->queue && i < sim->set.queues; i++)
		ring_stop(sim, i);
	sim->status = 0;
	sim->driver_features = 0;
	sim->was_reset = true;
}

static void check_status(struct sim *sim, uint8_t status)
{
	uint8_t old = sim->status, new = status & ~old;
	uint8_t known = STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_DRIVER_OK |
			STATUS_FEATURES_OK | STATUS_SUSPEND | STATUS_FAILED |
			old;
	struct watch *watch = &sim->watch;

	watch_check(watch, RULE_STATUS_RESET_FIRST, sim->was_reset,
		    "%#x is written before any reset", status);
	watch_check(watch, RULE_STATUS_CLEARED, !(old & ~status),
		    "%#x is written where there was %#x", status, old);
	watch_check(watch, RULE_STATUS_UNKNOWN, !(status & ~known),
		    "%#x is written where there was %#x", status, old);
	watch_check(watch, RULE_STATUS_SUSPEND,
		    !(new & STATUS_SUSPEND) || (old & STATUS_DRIVER_OK &&
						has_feature(sim, F_SUSPEND)),
		    "%#x is written where there was %#x", status, old);
	watch_check(watch, RULE_STATUS_AFTER_FAILED,
		    !(old & STATUS_FAILED) || !new,
		    "%#x is written where there was %#x", status, old);
	watch_check(watch, RULE_STATUS_ORDER,
		    (!(new & STATUS_DRIVER) || status & STATUS_ACKNOWLEDGE) &&
		    (!(new & STATUS_FEATURES_OK) || status & STATUS_DRIVER) &&
		    (!(new & STATUS_DRIVER_OK) || status & STATUS_DRIVER),
		    "%#x is written where there was %#x", status, old);
}

bool status_inferred(struct sim *sim)
{
	if (!features_accept(sim, sim->front->features(sim)))
		return false;
	sim->status = STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK |
		      STATUS_DRIVER_OK;
	return true;
}

bool status_written(struct sim *sim, uint8_t status)
{
	uint8_t new = status & ~sim->status;

	if (new & STATUS_FAILED && !sim->watch.quiet)
		fprintf(stderr, "vblksim: the driver has set FAILED for %s; see the kernel's log\n",
			sim->set.name);

	if (!status) {
		reset(sim);
		return true;
	}
	check_status(sim, status);
	if (new & STATUS_DRIVER_OK &&
	    !watch_check(&sim->watch, RULE_STATUS_FEATURES_REREAD,
			 sim->status & STATUS_FEATURES_OK,
			 "%#x is written where there was %#x", status,
			 sim->status))
		return false;
	if (new & STATUS_FEATURES_OK &&
	    !features_accept(sim, sim->front->features(sim)))
		return false;
	if (new & STATUS_DRIVER_OK) {
		uint64_t now = sim->front->features(sim);

		watch_check(&sim->watch, RULE_FEATURES_LATE,
			    now == sim->driver_features,
			    "they were %#" PRIx64 " and are %#" PRIx64,
			    sim->driver_features, now);
	}
	sim->status = status;
	return true;
}
