/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What VIRTIO 1.4 requires of a block device, and the function that checks it.
 *
 * X(name, section, where, check): @where says for which rings the check runs, and what
 * the device must offer.  Documentation/conformance-device.rst has a row for each.
 */
#ifndef RULES_H
#define RULES_H

#include "vdpadrv.h"

enum where { ONCE, SPLIT, PACKED, BOTH, READ_ONLY_DEVICE };

#define RULES(X)								\
	X(STATUS_RESET, "2.4.1", ONCE, check_status_reset)			\
	X(RESET_QUIET, "2.4.1", BOTH, check_reset_quiet)			\
	X(RESET_FORGETS, "2.4.1", BOTH, check_reset_forgets)			\
	X(NOT_BEFORE_DRIVER_OK, "2.1.2", BOTH, check_not_before_driver_ok)	\
	X(NEEDS_RESET, "2.1.2", BOTH, check_needs_reset)			\
	X(SUSPEND_IGNORED, "3.4.2", ONCE, check_suspend_ignored)		\
	X(FEATURE_UNDEFINED, "2.2.2", ONCE, check_feature_undefined)		\
	X(FEATURE_DEPENDS, "2.2.2", ONCE, check_feature_depends)		\
	X(FEATURE_NOT_OFFERED, "2.2.2", ONCE, check_feature_not_offered)	\
	X(FEATURE_SUBSET, "2.2.2", ONCE, check_feature_subset)			\
	X(FEATURE_AGAIN, "2.2.2", ONCE, check_feature_again)			\
	X(VERSION_1, "6.2", ONCE, check_version_1)				\
	X(CONFIG_EARLY, "2.5.2", ONCE, check_config_early)			\
	X(FRAMING, "2.7.4.1", BOTH, check_framing)				\
	X(WRITES, "2.7.5.1", BOTH, check_writes)				\
	X(USED_LENGTH, "2.7.8.2", BOTH, check_used_length)			\
	X(USED_LAST, "2.7.8.2", BOTH, check_used_last)				\
	X(STATUS_LAST, "5.2.6", BOTH, check_status_last)			\
	X(TABLE_WRITE_FLAG, "2.7.5.3.2", BOTH, check_table_write_flag)		\
	X(TABLE_AFTER_CHAIN, "2.7.5.3.2", SPLIT, check_table_after_chain)	\
	X(SIGNAL_WITHOUT_INDEX, "2.7.7.2", BOTH, check_signal_without_index)	\
	X(SIGNAL_INDEX, "2.7.7.2", BOTH, check_signal_index)			\
	X(SIGNAL_FLAG_IGNORED, "2.7.7.2", SPLIT, check_signal_flag_ignored)	\
	X(KICK_FLAGS, "2.7.10.2", SPLIT, check_kick_flags)			\
	X(KICK_SPURIOUS, "2.7.10.2", BOTH, check_kick_spurious)			\
	X(PACKED_AVAILABLE, "2.8.15", PACKED, check_packed_available)		\
	X(PACKED_USED_STAYS, "2.8.15", PACKED, check_packed_used_stays)		\
	X(CONFIG_PADDING, "5.2.5.2", ONCE, check_config_padding)		\
	X(CACHE_WITHOUT_FLUSH, "5.2.5.2", ONCE, check_cache_without_flush)	\
	X(READ_ONLY, "5.2.6.2", READ_ONLY_DEVICE, check_read_only)		\
	X(ERASE_FLAGS, "5.2.6.2", BOTH, check_erase_flags)			\
	X(ERASE_LIMITS, "5.2.6.1", BOTH, check_erase_limits)			\
	X(ZEROES, "5.2.6.2", BOTH, check_zeroes)				\
	X(RANGE, "5.2.6", BOTH, check_range)					\
	X(UNKNOWN_TYPE, "5.2.6", BOTH, check_unknown_type)			\
	X(ID, "5.2.6", BOTH, check_id)

#define DECLARE_RULE(name, section, where, check) void check(struct dev *d);
RULES(DECLARE_RULE)

/* rules_util.c */
#define QUIET_MS	100	/* in which nothing must happen */

struct queue *begin(struct dev *d);
void check_hang(struct queue *q, const char *what, uint64_t end);
void await_used(struct queue *q, const char *what, unsigned int us);
uint8_t finish(struct queue *q, const char *what, uint32_t *len);
uint8_t send_chain(struct queue *q, const char *what, struct vring_desc *list, unsigned int nr,
		   uint32_t *len);
uint8_t send_one(struct queue *q, const char *what, uint32_t type, uint64_t sector, uint32_t at,
		 uint32_t bytes);
void expect_status(uint8_t status, uint8_t expected, const char *what);
void put_read(struct queue *q, unsigned int s);
bool was_called(struct queue *q, unsigned int ms);
void must_be_quiet(struct queue *q, const char *when);
void fill_disk(struct queue *q, uint64_t sector, uint8_t byte, uint32_t bytes);

#endif
