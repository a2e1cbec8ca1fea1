// SPDX-License-Identifier: GPL-2.0
/* Names of feature bits: VIRTIO 1.3, 5.2.3 and 6. */

#include "vblkstat.h"

static const struct {
	const char *name;
	const char *words;
} features[MAX_FEATURES] = {
	[0] = { "BARRIER", "barriers" },
	[1] = { "SIZE_MAX", "limited segment size" },
	[2] = { "SEG_MAX", "limited number of segments" },
	[4] = { "GEOMETRY", "geometry" },
	[5] = { "RO", "read-only" },
	[6] = { "BLK_SIZE", "block size" },
	[7] = { "SCSI", "SCSI commands" },
	[F_FLUSH] = { "FLUSH", "flush" },
	[10] = { "TOPOLOGY", "topology" },
	[11] = { "CONFIG_WCE", "configurable write cache" },
	[F_MQ] = { "MQ", "multiple queues" },
	[13] = { "DISCARD", "discard" },
	[14] = { "WRITE_ZEROES", "write zeroes" },
	[15] = { "LIFETIME", "lifetime" },
	[16] = { "SECURE_ERASE", "secure erase" },
	[17] = { "ZONED", "zones" },
	[24] = { "NOTIFY_ON_EMPTY", "interrupt on empty ring" },
	[27] = { "ANY_LAYOUT", "any descriptor layout" },
	[F_INDIRECT_DESC] = { "INDIRECT_DESC", "indirect descriptors" },
	[F_EVENT_IDX] = { "EVENT_IDX", "event index" },
	[32] = { "VERSION_1", "virtio 1" },
	[33] = { "ACCESS_PLATFORM", "platform DMA" },
	[34] = { "RING_PACKED", "packed rings" },
	[35] = { "IN_ORDER", "in-order completion" },
	[36] = { "ORDER_PLATFORM", "platform memory barriers" },
	[37] = { "SR_IOV", "SR-IOV" },
	[38] = { "NOTIFICATION_DATA", "data in notifications" },
	[39] = { "NOTIF_CONFIG_DATA", "device-defined data in notifications" },
	[40] = { "RING_RESET", "reset of single queues" },
	[41] = { "ADMIN_VQ", "administration queue" },
};

/* Return a feature's name without its prefix, or "bit N" if it has none. */
const char *feature_name(unsigned int bit)
{
	static char text[16];

	if (features[bit].name)
		return features[bit].name;
	snprintf(text, sizeof(text), "bit %u", bit);
	return text;
}

/* Return a feature's description, or feature_name() if it has none. */
const char *feature_words(unsigned int bit)
{
	return features[bit].words ? features[bit].words : feature_name(bit);
}
