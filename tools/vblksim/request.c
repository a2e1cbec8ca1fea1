// SPDX-License-Identifier: GPL-2.0
/*
 * Parse the request of a chain, check it, and execute it.
 *
 * A request is parsed by bytes, not by descriptors, so any framing that 2.7.4.2
 * allows works.  The rules are checked when it arrives, and the script decides
 * when it is executed.  Any answer fills all of the device-writable part, with
 * zeroes where there is no data, so that the used length covers the status byte
 * and the driver may read it.
 */

#define _GNU_SOURCE
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "vblksim.h"

#define HEADER_BYTES	sizeof(struct blk_header)
#define NO_FEATURE	(-1)

enum data { DATA_NONE, DATA_OUT, DATA_IN };

/* properties of request types, by number */
static const struct type {
	const char *name;
	int feature;		/* required feature, or NO_FEATURE */
	enum data data;
	bool uses_sector;
	bool writes;
} types[] = {
	[BLK_T_IN] = {
		"in", NO_FEATURE, DATA_IN, true, false,
	},
	[BLK_T_OUT] = {
		"out", NO_FEATURE, DATA_OUT, true, true,
	},
	[BLK_T_FLUSH] = {
		"flush", BLK_F_FLUSH, DATA_NONE, false, false,
	},
	[BLK_T_GET_ID] = {
		"get_id", NO_FEATURE, DATA_IN, false, false,
	},
	[BLK_T_GET_LIFETIME] = {
		"get_lifetime", BLK_F_LIFETIME, DATA_IN, false, false,
	},
	[BLK_T_DISCARD] = {
		"discard", BLK_F_DISCARD, DATA_OUT, false, true,
	},
	[BLK_T_WRITE_ZEROES] = {
		"write_zeroes", BLK_F_WRITE_ZEROES, DATA_OUT, false, true,
	},
	[BLK_T_SECURE_ERASE] = {
		"secure_erase", BLK_F_SECURE_ERASE, DATA_OUT, false, true,
	},
	[BLK_T_ZONE_APPEND] = {
		"zone_append", BLK_F_ZONED, DATA_OUT, true, true,
	},
	[BLK_T_ZONE_REPORT] = {
		"zone_report", BLK_F_ZONED, DATA_IN, true, false,
	},
	[BLK_T_ZONE_OPEN] = {
		"zone_open", BLK_F_ZONED, DATA_NONE, true, true,
	},
	[BLK_T_ZONE_CLOSE] = {
		"zone_close", BLK_F_ZONED, DATA_NONE, true, true,
	},
	[BLK_T_ZONE_FINISH] = {
		"zone_finish", BLK_F_ZONED, DATA_NONE, true, true,
	},
	[BLK_T_ZONE_RESET] = {
		"zone_reset", BLK_F_ZONED, DATA_NONE, true, true,
	},
	[BLK_T_ZONE_RESET_ALL] = {
		"zone_reset_all", BLK_F_ZONED, DATA_NONE, false, true,
	},
};

static const struct type *find_type(uint32_t type)
{
	return type < ARRAY_SIZE(types) && types[type].name ? &types[type] :
							      NULL;
}

/**
 * request_type_name() - the name of a request type
 * @type: its number
 *
 * Return: its name.  The next call overwrites that of an unknown type.
 */
const char *request_type_name(uint32_t type)
{
	static char unknown[24];
	const struct type *known = find_type(type);

	if (known)
		return known->name;
	snprintf(unknown, sizeof(unknown), "type_%" PRIu32, type);
	return unknown;
}

int request_type_number(const char *name)
{
	if (!strcmp(name, "read"))
		return BLK_T_IN;
	if (!strcmp(name, "write"))
		return BLK_T_OUT;
	for (uint32_t type = 0; type < ARRAY_SIZE(types); type++)
		if (types[type].name && !strcmp(types[type].name, name))
			return type;
	return -1;
}

/* bytes of append_sector that the chain has room for */
static uint64_t append_room(const struct chain *chain)
{
	uint64_t in = chain->in_len ? chain->in_len - 1 : 0;

	return in < sizeof(uint64_t) ? in : sizeof(uint64_t);
}

/**
 * request_parse() - parse the request of a chain
 * @req: the result
 * @chain: the chain
 */
void request_parse(struct request *req, struct chain *chain)
{
	struct blk_header header = { 0 };

	*req = (struct request){ .chain = chain };
	if (chain->in_len)
		req->in_data = chain->in_len - 1;
	if (chain_read(chain, 0, &header, HEADER_BYTES) < HEADER_BYTES)
		return;
	req->has_header = true;
	req->type = le32toh(header.type);
	req->reserved = le32toh(header.reserved);
	req->sector = le64toh(header.sector);
	req->out_data = chain->out_len - HEADER_BYTES;
	if (req->type == BLK_T_ZONE_APPEND)
		req->in_data -= append_room(chain);
}

static uint64_t capacity(const struct sim *sim)
{
	return le64toh(sim->set.config.capacity);
}

static bool within_capacity(const struct sim *sim, uint64_t sector,
			    uint64_t sectors)
{
	return sector <= capacity(sim) && sectors <= capacity(sim) - sector;
}

/* also if the driver has not negotiated RO */
static bool is_read_only(const struct sim *sim)
{
	return sim->set.features & (1ull << BLK_F_RO);
}

/* in sectors, rounded up */
static uint64_t data_sectors(const struct request *req)
{
	uint64_t bytes = req->type == BLK_T_IN ? req->in_data : req->out_data;

	return bytes / SECTOR_SIZE + !!(bytes % SECTOR_SIZE);
}

static bool has_ranges(uint32_t type)
{
	return type == BLK_T_DISCARD || type == BLK_T_WRITE_ZEROES ||
	       type == BLK_T_SECURE_ERASE;
}

static bool get_range(const struct request *req, uint64_t nr,
		      struct blk_range *range)
{
	if (chain_read(req->chain, HEADER_BYTES + nr * sizeof(*range), range,
		       sizeof(*range)) < sizeof(*range))
		return false;
	range->sector = le64toh(range->sector);
	range->num_sectors = le32toh(range->num_sectors);
	range->flags = le32toh(range->flags);
	return true;
}

static bool overlaps(uint64_t sector, uint64_t sectors, uint64_t first,
		     uint64_t last)
{
	return sector <= last && (sector >= first || sectors > first - sector);
}

bool request_touches(const struct request *req, uint64_t first, uint64_t last)
{
	const struct type *type = find_type(req->type);
	struct blk_range range;
	uint64_t sectors;

	if (has_ranges(req->type)) {
		for (uint64_t i = 0; get_range(req, i, &range); i++)
			if (overlaps(range.sector, range.num_sectors, first,
				     last))
				return true;
		return false;
	}
	if (!type || !type->uses_sector)
		return false;
	sectors = type->data == DATA_NONE ? 1 : data_sectors(req);
	return overlaps(req->sector, sectors, first, last);
}

/* limits of a request on ranges */
struct range_limits {
	uint32_t seg;
	uint32_t sectors;
	enum rule seg_rule;
	enum rule sectors_rule;
};

static struct range_limits get_limits(const struct sim *sim, uint32_t type)
{
	const struct blk_config *config = &sim->set.config;

	switch (type) {
	case BLK_T_DISCARD:
		return (struct range_limits){
			le32toh(config->max_discard_seg),
			le32toh(config->max_discard_sectors),
			RULE_DISCARD_SEG, RULE_DISCARD_SECTORS,
		};
	case BLK_T_WRITE_ZEROES:
		return (struct range_limits){
			le32toh(config->max_write_zeroes_seg),
			le32toh(config->max_write_zeroes_sectors),
			RULE_WRITE_ZEROES_SEG, RULE_WRITE_ZEROES_SECTORS,
		};
	default:
		return (struct range_limits){
			le32toh(config->max_secure_erase_seg),
			le32toh(config->max_secure_erase_sectors),
			RULE_ERASE_SEG, RULE_ERASE_SECTORS,
		};
	}
}

/* ---- the rules ---- */

/* the last zone may be short */
static bool is_to_the_end(struct sim *sim, const struct blk_range *range)
{
	return zones_at_start(sim, range->sector) &&
	       range->sector + range->num_sectors == capacity(sim);
}

static void watch_range(struct sim *sim, const struct request *req,
			const struct range_limits *limits,
			const struct blk_range *range)
{
	const char *name = request_type_name(req->type);
	struct watch *watch = &sim->watch;
	uint32_t zone = zones_sectors(sim);

	watch_check(watch, RULE_RANGE_CAPACITY,
		    within_capacity(sim, range->sector, range->num_sectors),
		    "%s of %u sectors from sector %" PRIu64 " on, capacity is %" PRIu64,
		    name, range->num_sectors, range->sector, capacity(sim));
	watch_check(watch, limits->sectors_rule,
		    range->num_sectors <= limits->sectors,
		    "%s of %u sectors, the limit is %u", name,
		    range->num_sectors, limits->sectors);
	watch_check(watch, RULE_RANGE_FLAGS,
		    !(range->flags & ~BLK_RANGE_UNMAP), "%s with flags 0x%x",
		    name, range->flags);
	if (req->type != BLK_T_WRITE_ZEROES)
		watch_check(watch,
			    req->type == BLK_T_DISCARD ? RULE_DISCARD_UNMAP :
							 RULE_ERASE_UNMAP,
			    !(range->flags & BLK_RANGE_UNMAP),
			    "%s with flags 0x%x", name, range->flags);
	if (req->type == BLK_T_SECURE_ERASE && zones_used(sim))
		watch_check(watch, RULE_ZONE_ERASE_SIZE,
			    !(range->num_sectors % zone) ||
			    is_to_the_end(sim, range),
			    "secure erase of %u sectors, zones have %u",
			    range->num_sectors, zone);
}

static void watch_ranges(struct sim *sim, const struct request *req)
{
	struct range_limits limits = get_limits(sim, req->type);
	const char *name = request_type_name(req->type);
	uint64_t nr = req->out_data / sizeof(struct blk_range);
	struct blk_range range;

	if (!watch_check(&sim->watch, RULE_RANGE_NONE, req->out_data,
			 "%s without data", name))
		return;
	watch_check(&sim->watch, RULE_RANGE_LENGTH,
		    !(req->out_data % sizeof(range)),
		    "%s with %" PRIu64 " bytes of ranges", name, req->out_data);
	watch_check(&sim->watch, limits.seg_rule, nr <= limits.seg,
		    "%s of %" PRIu64 " ranges, the limit is %u", name, nr,
		    limits.seg);
	for (uint64_t i = 0; i < nr && get_range(req, i, &range); i++)
		watch_range(sim, req, &limits, &range);
}

/* check one direction's segments with data; return their number */
static unsigned int watch_segments(struct sim *sim, const struct segment *seg,
				   unsigned int nr, uint64_t from, uint64_t end)
{
	uint32_t most = le32toh(sim->set.config.size_max);
	unsigned int found = 0;
	uint64_t at = 0, len;

	for (unsigned int i = 0; i < nr; i++, at += len) {
		unsigned int first = i;

		len = seg[i].len;
		while (i + 1 < nr && seg[i + 1].joined)
			len += seg[++i].len;
		if (at + len <= from || at >= end)
			continue;
		found++;
		if (has_feature(sim, BLK_F_SIZE_MAX))
			watch_check(&sim->watch, RULE_SEGMENT_SIZE, len <= most,
				    "segment %u has %" PRIu64 " bytes, size_max is %u",
				    first, len, most);
	}
	return found;
}

static void watch_framing(struct sim *sim, const struct request *req)
{
	const struct chain *chain = req->chain;
	uint32_t most = le32toh(sim->set.config.seg_max);
	unsigned int found;

	found = watch_segments(sim, chain->out, chain->nr_out, HEADER_BYTES,
			       chain->out_len);
	found += watch_segments(sim, chain->in, chain->nr_in, 0, req->in_data);
	if (has_feature(sim, BLK_F_SEG_MAX))
		watch_check(&sim->watch, RULE_SEGMENT_COUNT, found <= most,
			    "%s with %u segments of data, seg_max is %u",
			    request_type_name(req->type), found, most);
}

/* returns whether the data can be checked further */
static bool watch_direction(struct sim *sim, const struct request *req,
			    const struct type *type)
{
	enum rule rule = RULE_REQUEST_DIRECTION;
	bool right;

	if (type->data == DATA_NONE) {
		rule = req->type == BLK_T_FLUSH ? RULE_FLUSH_DATA :
						  RULE_ZONE_NO_DATA;
		right = !req->in_data && !req->out_data;
	} else {
		right = type->data == DATA_IN ? !req->out_data : !req->in_data;
	}
	return watch_check(&sim->watch, rule, right,
			   "%s with %" PRIu64 " readable and %" PRIu64 " writable bytes of data",
			   type->name, req->out_data, req->in_data);
}

static void watch_data(struct sim *sim, const struct request *req)
{
	uint64_t bytes = req->type == BLK_T_IN ? req->in_data : req->out_data;
	const char *name = request_type_name(req->type);

	watch_check(&sim->watch, RULE_CAPACITY,
		    within_capacity(sim, req->sector, data_sectors(req)),
		    "%s of %" PRIu64 " sectors from sector %" PRIu64 " on, capacity is %" PRIu64,
		    name, data_sectors(req), req->sector, capacity(sim));
	watch_check(&sim->watch, RULE_DATA_LENGTH, !(bytes % SECTOR_SIZE),
		    "%s of %" PRIu64 " bytes", name, bytes);
}

static void watch_append(struct sim *sim, const struct request *req)
{
	uint32_t most = le32toh(sim->set.config.max_append_sectors);
	struct watch *watch = &sim->watch;

	watch_check(watch, RULE_ZONE_APPEND_ROOM,
		    append_room(req->chain) == sizeof(uint64_t),
		    "append with %" PRIu64 " bytes for append_sector",
		    append_room(req->chain));
	watch_check(watch, RULE_ZONE_APPEND_SECTOR,
		    zones_at_start(sim, req->sector),
		    "append to sector %" PRIu64, req->sector);
	watch_check(watch, RULE_ZONE_APPEND_MAX, data_sectors(req) <= most,
		    "append of %" PRIu64 " sectors, max_append_sectors is %u",
		    data_sectors(req), most);
}

static void watch_report_room(struct sim *sim, const struct request *req)
{
	const size_t header = sizeof(struct blk_zone_report);
	const size_t each = sizeof(struct blk_zone_descriptor);

	watch_check(&sim->watch, RULE_ZONE_REPORT_SECTOR,
		    req->sector < capacity(sim),
		    "zone report from sector %" PRIu64 " on, capacity is %" PRIu64,
		    req->sector, capacity(sim));
	if (watch_check(&sim->watch, RULE_ZONE_REPORT_HEADER,
			req->in_data >= header,
			"zone report into %" PRIu64 " bytes", req->in_data))
		watch_check(&sim->watch, RULE_ZONE_REPORT_LENGTH,
			    !((req->in_data - header) % each),
			    "zone report into %" PRIu64 " bytes", req->in_data);
}

/* check the rules of one type, for a request with data of the right direction */
static void watch_type(struct sim *sim, const struct request *req)
{
	struct watch *watch = &sim->watch;

	switch (req->type) {
	case BLK_T_IN:
	case BLK_T_OUT:
		watch_data(sim, req);
		break;
	case BLK_T_GET_ID:
		watch_check(watch, RULE_GET_ID_LENGTH,
			    req->in_data == BLK_ID_BYTES,
			    "GET_ID into %" PRIu64 " bytes", req->in_data);
		break;
	case BLK_T_GET_LIFETIME:
		watch_check(watch, RULE_LIFETIME_LENGTH,
			    req->in_data == sizeof(struct blk_lifetime),
			    "GET_LIFETIME into %" PRIu64 " bytes",
			    req->in_data);
		break;
	case BLK_T_DISCARD:
	case BLK_T_WRITE_ZEROES:
	case BLK_T_SECURE_ERASE:
		watch_ranges(sim, req);
		break;
	case BLK_T_ZONE_APPEND:
		watch_append(sim, req);
		break;
	case BLK_T_ZONE_REPORT:
		watch_report_room(sim, req);
		break;
	}
}

static void watch_sector(struct sim *sim, const struct request *req,
			 const struct type *type)
{
	enum rule rule = RULE_REQUEST_SECTOR;
	bool right = !req->sector;

	switch (req->type) {
	case BLK_T_FLUSH:
		rule = RULE_FLUSH_SECTOR;
		break;
	case BLK_T_ZONE_RESET_ALL:
		rule = RULE_ZONE_RESET_ALL_SECTOR;
		break;
	case BLK_T_ZONE_OPEN:
	case BLK_T_ZONE_CLOSE:
	case BLK_T_ZONE_FINISH:
	case BLK_T_ZONE_RESET:
		rule = RULE_ZONE_SECTOR;
		right = zones_at_start(sim, req->sector);
		break;
	default:
		if (type->uses_sector)
			return;
	}
	watch_check(&sim->watch, rule, right, "%s with sector %" PRIu64,
		    type->name, req->sector);
}

static bool watch_feature(struct sim *sim, const struct type *type)
{
	if (type->feature == NO_FEATURE)
		return true;
	if (!watch_check(&sim->watch, RULE_REQUEST_FEATURE,
			 has_feature(sim, type->feature),
			 "%s, and feature bit %d was not negotiated",
			 type->name, type->feature))
		return false;
	return type->feature != BLK_F_ZONED ||
	       watch_check(&sim->watch, RULE_ZONE_MODEL,
			   sim->set.config.model != BLK_Z_NONE, "%s",
			   type->name);
}

/*
 * Check all rules that a request can break.  Rules that it breaks only because
 * it breaks another one are left out, so that the report names causes.
 */
static void watch_request(struct sim *sim, const struct request *req)
{
	struct watch *watch = &sim->watch;
	const struct type *type;

	watch_check(watch, RULE_REQUEST_STATUS, req->chain->in_len,
		    "chain %u has no byte to write", req->chain->id);
	if (!watch_check(watch, RULE_REQUEST_HEADER, req->has_header,
			 "chain %u has %" PRIu64 " bytes to read",
			 req->chain->id, req->chain->out_len))
		return;
	watch_count(watch, req->type);
	watch_check(watch, RULE_REQUEST_RESERVED, !req->reserved,
		    "%s with 0x%x", request_type_name(req->type),
		    req->reserved);
	type = find_type(req->type);
	if (!watch_check(watch, RULE_REQUEST_TYPE, type, "type %" PRIu32,
			 req->type) ||
	    !watch_feature(sim, type))
		return;
	watch_framing(sim, req);
	watch_sector(sim, req, type);
	if (is_read_only(sim))
		watch_check(watch, RULE_READ_ONLY_ACCEPTED,
			    has_feature(sim, BLK_F_RO),
			    "%s, and RO was not negotiated", type->name);
	if (type->writes)
		watch_check(watch, RULE_READ_ONLY, !is_read_only(sim), "%s",
			    type->name);
	if (watch_direction(sim, req, type))
		watch_type(sim, req);
}

/* ---- execution ---- */

/* must a write be durable before its completion? (5.2.6.2) */
static bool is_write_through(const struct sim *sim)
{
	if (has_feature(sim, BLK_F_CONFIG_WCE))
		return !sim->set.config.writeback;
	return !has_feature(sim, BLK_F_FLUSH) &&
	       sim->set.features & (1ull << BLK_F_FLUSH);
}

static uint8_t finish_write(struct sim *sim)
{
	return is_write_through(sim) && store_flush(sim->store) ? BLK_S_IOERR :
								  BLK_S_OK;
}

/* fill the device-writable part with zeroes, up to the status byte */
static void fill_zeroes(const struct chain *chain, uint64_t from)
{
	uint64_t end = chain->in_len ? chain->in_len - 1 : 0;
	uint64_t at = 0;

	for (unsigned int i = 0; i < chain->nr_in && at < end; i++) {
		const struct segment *seg = &chain->in[i];
		uint64_t skip = from > at ? from - at : 0;
		uint64_t len = end - at < seg->len ? end - at : seg->len;

		if (skip < len)
			memset(seg->base + skip, 0, len - skip);
		at += seg->len;
	}
}

/* unwritten sectors read as zeroes, whatever the store has there */
static int read_piece(struct sim *sim, uint64_t offset, uint8_t *to,
		      uint64_t len)
{
	while (len) {
		uint64_t sector = offset / SECTOR_SIZE, now, run;
		bool written;

		run = zones_run(sim, sector, &written);
		now = run > len / SECTOR_SIZE ?
		      len : run * SECTOR_SIZE - offset % SECTOR_SIZE;
		if (now > len)
			now = len;
		if (!written)
			memset(to, 0, now);
		else if (store_read(sim->store, offset, to, now))
			return -1;
		offset += now;
		to += now;
		len -= now;
	}
	return 0;
}

static uint8_t do_read(struct sim *sim, const struct request *req)
{
	uint64_t left = req->in_data, offset = req->sector * SECTOR_SIZE;
	const struct segment *seg = req->chain->in;
	uint8_t status;

	if (left % SECTOR_SIZE ||
	    !within_capacity(sim, req->sector, data_sectors(req)))
		return BLK_S_IOERR;
	status = zones_check_read(sim, req->sector, data_sectors(req));
	if (status)
		return status;
	for (; left; seg++) {
		uint64_t len = seg->len < left ? seg->len : left;

		if (read_piece(sim, offset, seg->base, len))
			return BLK_S_IOERR;
		offset += len;
		left -= len;
	}
	return BLK_S_OK;
}

static uint8_t write_data(struct sim *sim, const struct request *req,
			  uint64_t sector)
{
	const struct chain *chain = req->chain;
	uint64_t offset = sector * SECTOR_SIZE, skip = HEADER_BYTES;
	uint64_t left = req->out_data;

	for (unsigned int i = 0; i < chain->nr_out && left; i++) {
		const struct segment *seg = &chain->out[i];
		uint64_t header = skip < seg->len ? skip : seg->len;
		uint64_t len = seg->len - header;

		if (len > left)
			len = left;
		if (store_write(sim->store, offset, seg->base + header, len))
			return BLK_S_IOERR;
		skip -= header;
		offset += len;
		left -= len;
	}
	return finish_write(sim);
}

static uint8_t do_write(struct sim *sim, const struct request *req)
{
	uint64_t sectors = data_sectors(req);
	uint8_t status;

	if (req->out_data % SECTOR_SIZE ||
	    !within_capacity(sim, req->sector, sectors))
		return BLK_S_IOERR;
	status = zones_write(sim, req->sector, sectors);
	return status ? status : write_data(sim, req, req->sector);
}

static uint8_t do_append(struct sim *sim, const struct request *req)
{
	uint64_t where;
	uint8_t status;

	if (append_room(req->chain) < sizeof(where) ||
	    req->out_data % SECTOR_SIZE)
		return BLK_S_IOERR;
	status = zones_append(sim, req->sector, data_sectors(req), &where);
	if (!status)
		status = write_data(sim, req, where);
	if (status)
		return status;
	where = htole64(where);
	chain_write(req->chain, req->in_data, &where, sizeof(where));
	return BLK_S_OK;
}

static uint8_t do_flush(struct sim *sim)
{
	return store_flush(sim->store) ? BLK_S_IOERR : BLK_S_OK;
}

static uint8_t do_get(const struct request *req, const void *what, size_t len)
{
	if (req->in_data < len)
		return BLK_S_IOERR;
	chain_write(req->chain, 0, what, len);
	return BLK_S_OK;
}

static uint8_t check_range(struct sim *sim, uint32_t type,
			   const struct range_limits *limits,
			   const struct blk_range *range)
{
	uint32_t known = type == BLK_T_WRITE_ZEROES ? BLK_RANGE_UNMAP : 0;

	if (range->flags & ~known)
		return BLK_S_UNSUPP;
	return range->num_sectors <= limits->sectors &&
	       within_capacity(sim, range->sector, range->num_sectors) ?
	       BLK_S_OK : BLK_S_IOERR;
}

static uint8_t zero_range(struct sim *sim, const struct blk_range *range,
			  bool unmap)
{
	return store_zero(sim->store, range->sector * SECTOR_SIZE,
			  (uint64_t)range->num_sectors * SECTOR_SIZE, unmap) ?
	       BLK_S_IOERR : BLK_S_OK;
}

static uint8_t do_range(struct sim *sim, uint32_t type,
			const struct blk_range *range)
{
	uint8_t status;

	switch (type) {
	case BLK_T_DISCARD:
		status = zones_check_discard(sim, range->sector,
					     range->num_sectors);
		return status ? status : zero_range(sim, range, true);
	case BLK_T_WRITE_ZEROES:
		status = zones_write(sim, range->sector, range->num_sectors);
		return status ? status :
		       zero_range(sim, range, range->flags & BLK_RANGE_UNMAP);
	default:
		status = zones_erase(sim, range->sector, range->num_sectors);
		if (status)
			return status;
		return store_erase(sim->store, range->sector * SECTOR_SIZE,
				   (uint64_t)range->num_sectors * SECTOR_SIZE) ?
		       BLK_S_IOERR : BLK_S_OK;
	}
}

static uint8_t do_ranges(struct sim *sim, const struct request *req)
{
	struct range_limits limits = get_limits(sim, req->type);
	uint64_t nr = req->out_data / sizeof(struct blk_range);
	struct blk_range range;
	uint8_t status;

	if (!nr || nr > limits.seg || req->out_data % sizeof(range))
		return BLK_S_IOERR;
	for (uint64_t i = 0; i < nr && get_range(req, i, &range); i++) {
		status = check_range(sim, req->type, &limits, &range);
		if (status)
			return status;
	}
	/* the driver may have changed the ranges since: check them again */
	for (uint64_t i = 0; i < nr && get_range(req, i, &range); i++) {
		status = check_range(sim, req->type, &limits, &range);
		if (!status)
			status = do_range(sim, req->type, &range);
		if (status)
			return status;
	}
	return finish_write(sim);
}

static uint8_t do_report(struct sim *sim, const struct request *req)
{
	struct blk_zone_report header = { 0 };
	struct blk_zone_descriptor zones[64];
	uint64_t at = sizeof(header), sector = req->sector, total = 0;

	if (req->in_data < at)
		return BLK_S_IOERR;
	if (sector >= capacity(sim))
		return BLK_S_ZONE_INVALID_CMD;
	while (sector < capacity(sim)) {
		uint64_t most = (req->in_data - at) / sizeof(zones[0]);
		uint64_t nr;

		if (most > ARRAY_SIZE(zones))
			most = ARRAY_SIZE(zones);
		nr = zones_report(sim, sector, zones, most);
		if (!nr)
			break;
		chain_write(req->chain, at, zones, nr * sizeof(zones[0]));
		at += nr * sizeof(zones[0]);
		sector += nr * zones_sectors(sim);
		total += nr;
	}
	header.nr_zones = htole64(total);
	chain_write(req->chain, 0, &header, sizeof(header));
	return BLK_S_OK;
}

static uint8_t do_type(struct sim *sim, const struct request *req)
{
	switch (req->type) {
	case BLK_T_IN:
		return do_read(sim, req);
	case BLK_T_OUT:
		return do_write(sim, req);
	case BLK_T_FLUSH:
		return do_flush(sim);
	case BLK_T_GET_ID:
		return do_get(req, sim->set.id, BLK_ID_BYTES);
	case BLK_T_GET_LIFETIME:
		return do_get(req, &sim->set.lifetime,
			      sizeof(sim->set.lifetime));
	case BLK_T_DISCARD:
	case BLK_T_WRITE_ZEROES:
	case BLK_T_SECURE_ERASE:
		return do_ranges(sim, req);
	case BLK_T_ZONE_APPEND:
		return do_append(sim, req);
	case BLK_T_ZONE_REPORT:
		return do_report(sim, req);
	default:
		return zones_manage(sim, req->type, req->sector);
	}
}

/**
 * request_run() - execute a request
 * @sim: the device
 * @req: the request
 *
 * Fills the device-writable part except for the status byte.
 *
 * Return: the status to answer.
 */
uint8_t request_run(struct sim *sim, const struct request *req)
{
	const struct type *type = find_type(req->type);
	uint8_t status;

	fill_zeroes(req->chain, req->type == BLK_T_IN ? req->in_data : 0);
	if (!req->chain->in_len || !req->has_header)
		return BLK_S_IOERR;
	if (!type || (type->feature != NO_FEATURE &&
		      !has_feature(sim, type->feature)) ||
	    (type->feature == BLK_F_ZONED && !zones_used(sim)))
		return BLK_S_UNSUPP;
	if (type->writes && is_read_only(sim))
		return BLK_S_IOERR;
	if (req->type == BLK_T_OUT || req->type == BLK_T_ZONE_APPEND)
		zones_watch(sim, req);
	status = do_type(sim, req);
	/* hide the data that was read before the failure */
	if (status && req->type == BLK_T_IN)
		fill_zeroes(req->chain, 0);
	return status;
}

/**
 * request_answer() - answer a request
 * @sim: the device
 * @chain: its chain, freed afterwards
 * @status: the status byte
 */
void request_answer(struct sim *sim, struct chain *chain, uint8_t status)
{
	uint64_t written = chain->in_len;

	if (written)
		chain_write(chain, written - 1, &status, sizeof(status));
	ring_complete(sim, chain, written > UINT32_MAX ? UINT32_MAX : written);
}

/**
 * request_execute() - execute a request, and answer it
 * @sim: the device
 * @chain: its chain, freed afterwards
 */
void request_execute(struct sim *sim, struct chain *chain)
{
	struct request req;

	request_parse(&req, chain);
	request_answer(sim, chain, request_run(sim, &req));
}

/**
 * request_fail() - answer a request without executing it
 * @sim: the device
 * @chain: its chain, freed afterwards
 * @status: the status byte
 */
void request_fail(struct sim *sim, struct chain *chain, uint8_t status)
{
	fill_zeroes(chain, 0);
	request_answer(sim, chain, status);
}

/**
 * request_arrive() - handle a request from the ring
 * @sim: the device
 * @chain: its chain; the function that answers it frees it
 */
void request_arrive(struct sim *sim, struct chain *chain)
{
	struct request req;

	request_parse(&req, chain);
	watch_request(sim, &req);
	if (!fuzz_takes(sim, chain) && !script_takes(sim, chain))
		request_execute(sim, chain);
}

/**
 * request_reset() - the device was reset: drop pending requests
 * @sim: the device
 */
void request_reset(struct sim *sim)
{
	script_reset(sim);
}
