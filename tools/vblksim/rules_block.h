/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Rules on the requests of a block device: X(name, section, strength, text).
 *
 * Some requirements for drivers in 5.2.5.1 and 5.2.6.1 are missing, because a
 * device cannot see whether a driver keeps them: what the driver reads from the
 * configuration space and when, what it assumes about caches, discarded data
 * and failed ranges, and what it is capable of.  Requirements on feature bits
 * and the number of queues are in rules_ring.h.  A zone sector address is a
 * multiple of 512 bytes by its unit.
 *
 * A format that the standard defines without a MUST counts as MUST.
 */
#ifndef VBLKSIM_RULES_BLOCK_H
#define VBLKSIM_RULES_BLOCK_H

#define BLOCK_RULES(X)							\
	X(REQUEST_HEADER, "5.2.6", MUST,				\
	  "the device-readable part starts with a header of 16 bytes")	\
	X(REQUEST_STATUS, "5.2.6", MUST,				\
	  "the device-writable part ends with a status byte")		\
	X(REQUEST_RESERVED, "5.2.6", SHOULD,				\
	  "the reserved word of the header is 0")			\
	X(REQUEST_TYPE, "5.2.6", MUST,					\
	  "the type is defined in the chapter")				\
	X(REQUEST_FEATURE, "5.2.3", MUST,				\
	  "the feature that a request type belongs to was negotiated")	\
	X(REQUEST_SECTOR, "5.2.6", MUST,				\
	  "sector is 0 in requests that do not use it")			\
	X(REQUEST_DIRECTION, "5.2.6", MUST,				\
	  "data is device-readable or device-writable as its type needs") \
	X(SEGMENT_SIZE, "5.2.3", MUST,					\
	  "no segment with data is longer than size_max")		\
	X(SEGMENT_COUNT, "5.2.3", MUST,					\
	  "data takes no more than seg_max segments")			\
	X(DATA_LENGTH, "5.2.6.1", MUST,					\
	  "data that is read or written is a multiple of 512 bytes")	\
	X(CAPACITY, "5.2.6.1", MUST,					\
	  "no read or write goes beyond the capacity")			\
	X(READ_ONLY, "5.2.5", SHOULD,					\
	  "nothing is written to a read-only device")			\
	X(READ_ONLY_ACCEPTED, "5.2.6.1", SHOULD,			\
	  "RO is accepted when offered")				\
	X(FLUSH_SECTOR, "5.2.6.1", MUST,				\
	  "the sector of a flush is 0")					\
	X(FLUSH_DATA, "5.2.6.1", SHOULD,				\
	  "a flush has no data")					\
	X(GET_ID_LENGTH, "5.2.6.1", MUST,				\
	  "the data of GET_ID is 20 bytes long")			\
	X(LIFETIME_LENGTH, "5.2.6", MUST,				\
	  "the data of GET_LIFETIME is 6 bytes long")			\
	X(RANGE_LENGTH, "5.2.6.1", MUST,				\
	  "the data of a request on ranges is a multiple of 16 bytes")	\
	X(RANGE_NONE, "5.2.6", MUST,					\
	  "a request on ranges of sectors has at least one range")	\
	X(RANGE_CAPACITY, "5.2.6.1", MUST,				\
	  "no range of sectors goes beyond the capacity")		\
	X(RANGE_FLAGS, "5.2.6", MUST,					\
	  "the reserved flags of a range are 0")			\
	X(DISCARD_UNMAP, "5.2.6.1", MUST,				\
	  "the unmap flag is 0 in a discard")				\
	X(ERASE_UNMAP, "5.2.6", MUST,					\
	  "the unmap flag is 0 in a secure erase")			\
	X(DISCARD_SEG, "5.2.6.1", MUST,					\
	  "a discard has no more than max_discard_seg ranges")		\
	X(WRITE_ZEROES_SEG, "5.2.6.1", MUST,				\
	  "write zeroes has no more than max_write_zeroes_seg ranges")	\
	X(ERASE_SEG, "5.2.6.1", MUST,					\
	  "a secure erase has no more than max_secure_erase_seg ranges") \
	X(DISCARD_SECTORS, "5.2.5", MUST,				\
	  "a range to discard has at most max_discard_sectors sectors")	\
	X(WRITE_ZEROES_SECTORS, "5.2.5", MUST,				\
	  "a range to zero has at most max_write_zeroes_sectors sectors") \
	X(ERASE_SECTORS, "5.2.5", MUST,					\
	  "a range to erase has at most max_secure_erase_sectors sectors") \
	X(ZONE_MODEL, "5.2.4", MUST,					\
	  "a device of model NONE is treated as one without zones")	\
	X(ZONE_NO_DATA, "5.2.6", MUST,					\
	  "requests that manage zones have no data")			\
	X(ZONE_SECTOR, "5.2.6.1", MUST,					\
	  "a request that manages a zone names its first sector")	\
	X(ZONE_RESET_ALL_SECTOR, "5.2.6.1", MUST,			\
	  "the sector of ZONE_RESET_ALL is 0")				\
	X(ZONE_REPORT_SECTOR, "5.2.6.1", MUST,				\
	  "a zone report starts in one of the device's zones")		\
	X(ZONE_REPORT_HEADER, "5.2.6", MUST,				\
	  "a zone report has room for its header of 64 bytes")		\
	X(ZONE_REPORT_LENGTH, "5.2.6", SHOULD,				\
	  "a zone report has room for whole descriptors of 64 bytes")	\
	X(ZONE_APPEND_ROOM, "5.2.6", MUST,				\
	  "an append has 8 bytes for append_sector before the status")	\
	X(ZONE_APPEND_SECTOR, "5.2.6.1", MUST,				\
	  "an append names the first sector of a zone")			\
	X(ZONE_APPEND_POINTER, "5.2.6.1", MUST,				\
	  "an append goes to a zone that has a write pointer")		\
	X(ZONE_APPEND_MAX, "5.2.6.1", MUST,				\
	  "an append has at most max_append_sectors sectors")		\
	X(ZONE_WRITE_SIZE, "5.2.6.1", MUST,				\
	  "data for a sequential zone is a multiple of write_granularity") \
	X(ZONE_WRITE_ALIGNMENT, "5.2.6.1", MUST,			\
	  "a write to a sequential zone is aligned to write_granularity") \
	X(ZONE_WRITE_CAPACITY, "5.2.6.1", MUST,				\
	  "a write fits between the write pointer and the zone's capacity") \
	X(ZONE_WRITE_POINTER, "5.2.6", MUST,				\
	  "a sequential-write-required zone is written at its pointer")	\
	X(ZONE_WRITE_ORDER, "5.2.6", SHOULD,				\
	  "a sequential-write-preferred zone is written at its pointer") \
	X(ZONE_ERASE_SIZE, "5.2.6.2", MUST,				\
	  "a secure erase of a zoned device erases whole zones")

#endif /* VBLKSIM_RULES_BLOCK_H */
