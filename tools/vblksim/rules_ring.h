/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Rules on the device status, feature bits and virtqueues: X(name, section,
 * strength, text).
 *
 * Where the standard defines something without a MUST, a driver that differs
 * does not follow the standard either.  Such a rule is a MUST here, with the
 * section of the definition.
 */
#ifndef VBLKSIM_RULES_RING_H
#define VBLKSIM_RULES_RING_H

#define RING_RULES(X)							\
	X(STATUS_CLEARED, "2.1.1", MUST,				\
	  "status bits are set, and cleared by a reset only")		\
	X(STATUS_UNKNOWN, "2.1", MUST,					\
	  "the driver sets no status bit that is undefined or the device's own") \
	X(STATUS_AFTER_FAILED, "2.1.1", MUST,				\
	  "after FAILED the driver only resets the device")		\
	X(STATUS_RESET_FIRST, "3.1.1", MUST,				\
	  "initialization begins with a reset")				\
	X(STATUS_ORDER, "3.1.1", MUST,					\
	  "ACKNOWLEDGE, DRIVER, FEATURES_OK and DRIVER_OK are set in this order") \
	X(STATUS_FEATURES_REREAD, "3.1.1", MUST,			\
	  "DRIVER_OK comes after FEATURES_OK was set, read back and still there") \
	X(FEATURES_LATE, "3.1.1", MUST,					\
	  "features do not change after FEATURES_OK")			\
	X(KICK_EARLY, "3.1.1", MUST,					\
	  "no notification is sent before DRIVER_OK")			\
	X(STATUS_SUSPEND, "3.4.1", SHOULD,				\
	  "SUSPEND is set only with VIRTIO_F_SUSPEND, and after DRIVER_OK") \
	X(KICK_SUSPENDED, "3.4.1", MUST,				\
	  "no notification is sent after SUSPEND")			\
	X(FEATURE_NOT_OFFERED, "2.2.1", MUST,				\
	  "only features that the device offers are accepted")		\
	X(FEATURE_UNDEFINED, "2.2.1", MUST,				\
	  "no feature is accepted that the standard does not define for this device and transport") \
	X(FEATURE_DEPENDENCY, "2.2.1", MUST,				\
	  "a feature is accepted only with the features that it requires") \
	X(FEATURE_VERSION_1, "6.1", MUST,				\
	  "VERSION_1 is accepted when offered")				\
	X(FEATURE_ACCESS_PLATFORM, "6.1", SHOULD,			\
	  "ACCESS_PLATFORM is accepted when offered")			\
	X(FEATURE_RING_PACKED, "6.1", SHOULD,				\
	  "RING_PACKED is accepted when offered")			\
	X(FEATURE_ORDER_PLATFORM, "6.1", SHOULD,			\
	  "ORDER_PLATFORM is accepted when offered")			\
	X(FEATURE_DISCARD_HM, "5.2.5.1", MUST,				\
	  "DISCARD is not accepted from a host-managed zoned device")	\
	X(QUEUE_NUMBER, "5.2.2", MUST,					\
	  "one queue is used without MQ, num_queues of them with it")	\
	X(RING_SIZE, "2.7", MUST,					\
	  "a ring has 1 to 32768 entries, and no more than the device said") \
	X(RING_MEMORY, "2.7", MUST,					\
	  "each part of a ring is in one piece of memory that the device can reach") \
	X(BUFFER_MEMORY, "6.1", MUST,					\
	  "buffers and indirect tables are in memory that the device can reach") \
	X(EXPOSED_CHANGED, "3.3.1", MUST,				\
	  "a descriptor that the device has does not change")		\
	X(SPLIT_SIZE_POWER, "2.7", MUST,				\
	  "the size of a split ring is a power of 2")			\
	X(SPLIT_ALIGNMENT, "2.7.1", MUST,				\
	  "descriptors, available and used ring are aligned to 16, 2 and 4 bytes") \
	X(SPLIT_ORDER, "2.7.4.2", MUST,					\
	  "device-writable descriptors come after all device-readable ones") \
	X(SPLIT_NEXT, "2.7.5", MUST,					\
	  "next is the index of a descriptor in the table")		\
	X(SPLIT_FLAGS, "2.7.5", MUST,					\
	  "a descriptor has no flags except NEXT, WRITE and INDIRECT")	\
	X(SPLIT_LOOP, "2.7.5.2", MUST,					\
	  "a chain of descriptors has no loop")				\
	X(SPLIT_BYTES, "2.7.5.2", MUST,					\
	  "a chain is not longer than 2^32 bytes")			\
	X(SPLIT_INDIRECT_LENGTH, "2.7.5.3", MUST,			\
	  "an indirect table has a whole number of descriptors, 1 or more") \
	X(SPLIT_INDIRECT_FEATURE, "2.7.5.3.1", MUST,			\
	  "INDIRECT is set only if INDIRECT_DESC was negotiated")	\
	X(SPLIT_INDIRECT_NESTED, "2.7.5.3.1", MUST,			\
	  "INDIRECT is not set within an indirect table")		\
	X(SPLIT_INDIRECT_NEXT, "2.7.5.3.1", MUST,			\
	  "INDIRECT and NEXT are not set together")			\
	X(CHAIN_LENGTH, "2.7.5.3.1", MUST,				\
	  "a chain is not longer than the ring")			\
	X(SPLIT_HEAD, "2.7.6", MUST,					\
	  "the available ring has indices of descriptors in the table")	\
	X(SPLIT_IDX_BACK, "2.7.6.1", MUST,				\
	  "the available ring's idx never goes back")			\
	X(SPLIT_IDX_AHEAD, "2.7.13", MUST,				\
	  "no more buffers are made available than the ring holds")	\
	X(SPLIT_REUSED, "2.7.13.1", MUST,				\
	  "a descriptor that the device has is not put into another chain") \
	X(SPLIT_AVAIL_FLAGS, "2.7.7.1", MUST,				\
	  "without EVENT_IDX the available ring's flags are 0 or 1")	\
	X(SPLIT_AVAIL_FLAGS_EVENT, "2.7.7.1", MUST,			\
	  "with EVENT_IDX the available ring's flags are 0")		\
	X(SPLIT_USED_FLAGS, "2.7.10.1", MUST,				\
	  "the used ring's flags are 0 initially")			\
	X(KICK_MISSING, "2.7.10.1", MUST,				\
	  "a notification is sent unless the device suppresses it")	\
	X(KICK_UNWANTED, "2.7.10.1", SHOULD,				\
	  "no notification is sent if the device suppresses it, or without new buffers") \
	X(PACKED_ALIGNMENT, "2.8.11", MUST,				\
	  "descriptor ring and event suppression are aligned to 16, 4 and 4 bytes") \
	X(PACKED_FLAGS, "2.8.13", MUST,					\
	  "a descriptor has no flags except NEXT, WRITE, INDIRECT, AVAIL and USED") \
	X(PACKED_EVENT, "2.8.14", MUST,					\
	  "the driver's event suppression has a valid mode and reserved bits of 0") \
	X(PACKED_EVENT_FEATURE, "2.8.10", MUST,				\
	  "an event for one descriptor is requested only with EVENT_IDX, and within the ring") \
	X(PACKED_SPACE, "2.8.17", MUST,					\
	  "there is room in the ring for a whole list before it is made available") \
	X(PACKED_LENGTH, "2.8.17", MUST,				\
	  "a list is not longer than the ring")				\
	X(PACKED_ORDER, "2.8.17", MUST,					\
	  "device-writable descriptors come after all device-readable ones") \
	X(PACKED_FIRST_LAST, "2.8.17", MUST,				\
	  "the first descriptor of a list is made available after all others") \
	X(PACKED_INDIRECT_FEATURE, "2.8.19", MUST,			\
	  "INDIRECT is set only if INDIRECT_DESC was negotiated")	\
	X(PACKED_INDIRECT_FLAGS, "2.8.19", MUST,			\
	  "descriptors in an indirect table have no flag except WRITE")	\
	X(PACKED_INDIRECT_LIST, "2.8.19", MUST,				\
	  "INDIRECT is not set in a list that NEXT links")		\
	X(PACKED_INDIRECT_LENGTH, "2.8.7", MUST,			\
	  "an indirect table has a whole number of descriptors, 1 or more") \
	X(PACKED_ID, "2.8.21.1", MUST,					\
	  "a buffer ID that the device has is not given to another buffer") \
	X(PACKED_KICK_MISSING, "2.8.21", MUST,			\
	  "a notification is sent unless the device suppresses it")

#endif /* VBLKSIM_RULES_RING_H */
