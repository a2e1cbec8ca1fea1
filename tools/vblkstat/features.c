// SPDX-License-Identifier: GPL-2.0
/* Names of feature bits: VIRTIO 1.4, 5.2.3 and 6. */

#include "vblkstat.h"

static const struct {
	const char *name;
	const char *words;
} known_features[MAX_FEATURES] = {
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
	[F_DISCARD] = { "DISCARD", "discard" },
	[F_WRITE_ZEROES] = { "WRITE_ZEROES", "write zeroes" },
	[F_LIFETIME] = { "LIFETIME", "lifetime" },
	[F_SECURE_ERASE] = { "SECURE_ERASE", "secure erase" },
	[F_ZONED] = { "ZONED", "zones" },
	[24] = { "NOTIFY_ON_EMPTY", "interrupt on empty ring" },
	[27] = { "ANY_LAYOUT", "any descriptor layout" },
	[F_INDIRECT_DESC] = { "INDIRECT_DESC", "indirect descriptors" },
	[F_EVENT_IDX] = { "EVENT_IDX", "event index" },
	[32] = { "VERSION_1", "virtio 1" },
	[F_ACCESS_PLATFORM] = { "ACCESS_PLATFORM", "platform DMA" },
	[34] = { "RING_PACKED", "packed rings" },
	[35] = { "IN_ORDER", "in-order completion" },
	[36] = { "ORDER_PLATFORM", "platform memory barriers" },
	[37] = { "SR_IOV", "SR-IOV" },
	[38] = { "NOTIFICATION_DATA", "data in notifications" },
	[39] = { "NOTIF_CONFIG_DATA", "device-defined data in notifications" },
	[40] = { "RING_RESET", "reset of single queues" },
	[41] = { "ADMIN_VQ", "administration queue" },
	[43] = { "SUSPEND", "suspend of the device" },
};

/* Return a feature's name without its prefix, or "bit N" if it has none. */
static const char *feature_name(unsigned int bit)
{
	static char text[16];

	if (known_features[bit].name)
		return known_features[bit].name;
	snprintf(text, sizeof(text), "bit %u", bit);
	return text;
}

/* Return a feature's description, or feature_name() if it has none. */
static const char *feature_words(unsigned int bit)
{
	return known_features[bit].words ? known_features[bit].words :
					   feature_name(bit);
}

/* Return the descriptions of features.  The text is valid until the next call. */
const char *features_text(const bool *features)
{
	static char text[4096];
	size_t length = 0;

	for (unsigned int bit = 0; bit < MAX_FEATURES; bit++)
		if (features[bit] && length < sizeof(text))
			length += snprintf(text + length, sizeof(text) - length,
					   "%s%s", length ? ", " : "",
					   feature_words(bit));
	return length ? text : "no features";
}

/* Print features as a list of objects. */
void json_features(struct json *json, const char *key, const bool *features)
{
	json_open(json, key, '[');
	for (unsigned int bit = 0; bit < MAX_FEATURES; bit++) {
		if (!features[bit])
			continue;
		json_open(json, NULL, '{');
		json_number(json, "bit", bit);
		json_string(json, "name", feature_name(bit));
		json_string(json, "words", feature_words(bit));
		json_close(json, '}');
	}
	json_close(json, ']');
}
