// SPDX-License-Identifier: GPL-2.0
/*
 * Zones, their states and write pointers, by VIRTIO 1.4, 5.2.6.
 *
 * A driver that did not negotiate ZONED sees a device without zones.  Reads
 * beyond a write pointer return zeroes, whatever the store has there.
 */

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "vblksim.h"

/* more zones are an error in the settings */
#define MAX_ZONES	(1ull << 24)

struct zone {
	uint64_t written;	/* sectors up to the write pointer */
	uint8_t state;
};

/**
 * struct zones - the zones of a device
 * @zone: each zone's state
 * @nr: number of zones
 * @capacity: the device's capacity when @nr was computed
 * @sectors: sectors of a zone, except for the last one
 * @writable: largest number of writable sectors of a sequential zone
 * @conventional: number of conventional zones, from the first one on
 * @type: type of the others: BLK_ZT_SWR or BLK_ZT_SWP
 * @open: number of open zones, at most @max_open if that is not 0
 * @active: number of open or closed zones, at most @max_active if that is not 0
 */
struct zones {
	struct zone *zone;
	uint64_t nr;
	uint64_t capacity;
	uint32_t sectors;
	uint64_t writable;
	uint32_t conventional;
	uint8_t type;
	uint64_t open, max_open;
	uint64_t active, max_active;
};

static bool is_conventional(const struct zones *zones, uint64_t nr)
{
	return nr < zones->conventional;
}

static uint64_t zone_start(const struct zones *zones, uint64_t nr)
{
	return nr * zones->sectors;
}

/* the last zone may be short */
static uint64_t zone_length(const struct zones *zones, uint64_t nr)
{
	uint64_t left = zones->capacity - zone_start(zones, nr);

	return left < zones->sectors ? left : zones->sectors;
}

static uint64_t zone_writable(const struct zones *zones, uint64_t nr)
{
	uint64_t length = zone_length(zones, nr);

	return is_conventional(zones, nr) || length < zones->writable ?
	       length : zones->writable;
}

static bool is_open(uint8_t state)
{
	return state == BLK_ZS_IOPEN || state == BLK_ZS_EOPEN;
}

static bool is_active(uint8_t state)
{
	return is_open(state) || state == BLK_ZS_CLOSED;
}

static bool is_dead(uint8_t state)
{
	return state == BLK_ZS_RDONLY || state == BLK_ZS_OFFLINE;
}

static void set_state(struct zones *zones, struct zone *zone, uint8_t state)
{
	zones->open += is_open(state) - is_open(zone->state);
	zones->active += is_active(state) - is_active(zone->state);
	zone->state = state;
}

/* adapt the number of zones to the capacity; new zones are empty */
static int fit_zones(struct zones *zones, uint64_t capacity)
{
	uint64_t nr = capacity / zones->sectors + !!(capacity % zones->sectors);
	struct zone *zone;

	if (capacity == zones->capacity)
		return 0;
	if (nr > MAX_ZONES)
		return -1;
	for (uint64_t i = nr; i < zones->nr; i++)
		set_state(zones, &zones->zone[i], BLK_ZS_EMPTY);
	zone = realloc(zones->zone, (nr ? nr : 1) * sizeof(*zone));
	if (!zone)
		return -1;
	zones->zone = zone;
	for (uint64_t i = zones->nr; i < nr; i++)
		zone[i] = (struct zone){
			.state = is_conventional(zones, i) ? BLK_ZS_NOT_WP :
							     BLK_ZS_EMPTY,
		};
	zones->nr = nr;
	zones->capacity = capacity;
	/* the last zone may have become shorter than its written data */
	if (nr && zone[nr - 1].written > zone_writable(zones, nr - 1)) {
		zone[nr - 1].written = zone_writable(zones, nr - 1);
		if (!is_dead(zone[nr - 1].state))
			set_state(zones, &zone[nr - 1], BLK_ZS_FULL);
	}
	return 0;
}

/**
 * zones_new() - make the zones of a device
 * @set: the device's settings
 *
 * Return: the zones, all of them empty, or NULL for a device without zones:
 *	the model is NONE, ZONED is not offered, zone_sectors is 0, or there
 *	would be too many.
 */
struct zones *zones_new(const struct settings *set)
{
	const struct blk_config *config = &set->config;
	struct zones *zones;

	if (!(set->features & (1ull << BLK_F_ZONED)) ||
	    (config->model != BLK_Z_HM && config->model != BLK_Z_HA) ||
	    !config->zone_sectors)
		return NULL;

	zones = calloc(1, sizeof(*zones));
	if (!zones)
		return NULL;
	zones->sectors = le32toh(config->zone_sectors);
	zones->writable = set->zone_capacity ? set->zone_capacity :
					       zones->sectors;
	zones->conventional = set->zone_conventional;
	zones->type = config->model == BLK_Z_HM ? BLK_ZT_SWR : BLK_ZT_SWP;
	zones->max_open = le32toh(config->max_open_zones);
	zones->max_active = le32toh(config->max_active_zones);
	if (fit_zones(zones, le64toh(config->capacity))) {
		fprintf(stderr,
			"vblksim: %" PRIu64 " sectors in zones of %u make more than %llu zones: make zone_sectors larger\n",
			le64toh(config->capacity), zones->sectors, MAX_ZONES);
		zones_free(zones);
		return NULL;
	}
	return zones;
}

/**
 * zones_free() - the opposite of zones_new()
 * @zones: the zones, or NULL
 */
void zones_free(struct zones *zones)
{
	if (!zones)
		return;
	free(zones->zone);
	free(zones);
}

/* every access to zones begins here, because the capacity may have changed */
static struct zones *get_zones(struct sim *sim)
{
	struct zones *zones = sim->zones;

	if (zones && fit_zones(zones, le64toh(sim->set.config.capacity)))
		return NULL;
	return zones;
}

/* a command can also change the limits */
static struct zones *get_used_zones(struct sim *sim)
{
	struct zones *zones = zones_used(sim) ? get_zones(sim) : NULL;

	if (zones) {
		zones->max_open = le32toh(sim->set.config.max_open_zones);
		zones->max_active = le32toh(sim->set.config.max_active_zones);
	}
	return zones;
}

bool zones_used(const struct sim *sim)
{
	return sim->zones && has_feature(sim, BLK_F_ZONED);
}

uint32_t zones_sectors(const struct sim *sim)
{
	return sim->zones ? sim->zones->sectors : 0;
}

bool zones_at_start(struct sim *sim, uint64_t sector)
{
	struct zones *zones = get_zones(sim);

	return zones && sector < zones->capacity &&
	       !(sector % zones->sectors);
}

/* make the unwritten rest of a zone read as zeroes */
static int drop_data(struct sim *sim, uint64_t nr, uint64_t from)
{
	struct zones *zones = sim->zones;

	return store_zero(sim->store,
			  (zone_start(zones, nr) + from) * SECTOR_SIZE,
			  (zone_length(zones, nr) - from) * SECTOR_SIZE, true);
}

/* make room for another open zone: close one that was opened implicitly */
static bool close_one(struct zones *zones)
{
	for (uint64_t i = 0; i < zones->nr; i++)
		if (zones->zone[i].state == BLK_ZS_IOPEN) {
			set_state(zones, &zones->zone[i], BLK_ZS_CLOSED);
			return true;
		}
	return false;
}

static uint8_t open_zone(struct zones *zones, struct zone *zone, uint8_t state)
{
	if (!is_active(zone->state) && zones->max_active &&
	    zones->active >= zones->max_active)
		return BLK_S_ZONE_ACTIVE_RESOURCE;
	if (!is_open(zone->state) && zones->max_open &&
	    zones->open >= zones->max_open && !close_one(zones))
		return BLK_S_ZONE_OPEN_RESOURCE;
	set_state(zones, zone, state);
	return BLK_S_OK;
}

static uint32_t granularity(const struct sim *sim)
{
	return le32toh(sim->set.config.write_granularity);
}

/* is a number of sectors a multiple of write_granularity, or that 0? */
static bool is_granular(const struct sim *sim, uint64_t sectors)
{
	uint32_t bytes = granularity(sim);

	return !bytes || !((sectors % bytes) * SECTOR_SIZE % bytes);
}

/* write to a part of one zone: check first, then move the write pointer */
static uint8_t write_zone(struct sim *sim, uint64_t nr, uint64_t from,
			  uint64_t sectors)
{
	struct zones *zones = sim->zones;
	struct zone *zone = &zones->zone[nr];
	bool required = zones->type == BLK_ZT_SWR;
	uint64_t writable = zone_writable(zones, nr);
	uint8_t status;

	if (is_conventional(zones, nr))
		return BLK_S_OK;
	if (is_dead(zone->state) || (required && zone->state == BLK_ZS_FULL))
		return BLK_S_ZONE_INVALID_CMD;
	if (required && from != zone->written)
		return BLK_S_ZONE_UNALIGNED_WP;
	if (from > writable || sectors > writable - from)
		return BLK_S_ZONE_INVALID_CMD;
	if (required &&
	    !is_granular(sim, zone_start(zones, nr) + from + sectors))
		return BLK_S_ZONE_UNALIGNED_WP;
	if (zone->state == BLK_ZS_FULL)
		return BLK_S_OK;

	if (!is_open(zone->state)) {
		status = open_zone(zones, zone, BLK_ZS_IOPEN);
		if (status)
			return status;
	}
	if (from + sectors <= zone->written)
		return BLK_S_OK;
	/* a jump over the write pointer leaves a gap of unwritten data */
	if (from > zone->written && drop_data(sim, nr, zone->written))
		return BLK_S_IOERR;
	zone->written = from + sectors;
	if (zone->written == writable)
		set_state(zones, zone, BLK_ZS_FULL);
	return BLK_S_OK;
}

/* a driver without ZONED writes anywhere: its zones count as full */
static void forget_pointers(struct zones *zones, uint64_t sector,
			    uint64_t sectors)
{
	uint64_t last = (sector + sectors - 1) / zones->sectors;

	for (uint64_t nr = sector / zones->sectors; nr <= last; nr++) {
		struct zone *zone = &zones->zone[nr];

		if (is_conventional(zones, nr) || is_dead(zone->state))
			continue;
		zone->written = zone_length(zones, nr);
		set_state(zones, zone, BLK_ZS_FULL);
	}
}

/* does a range touch a sequential-write-required zone and another one? */
static bool crosses_required(const struct zones *zones, uint64_t sector,
			     uint64_t sectors)
{
	uint64_t last = (sector + sectors - 1) / zones->sectors;

	return zones->type == BLK_ZT_SWR && !is_conventional(zones, last) &&
	       sector / zones->sectors != last;
}

static bool touches_state(const struct zones *zones, uint64_t sector,
			  uint64_t sectors, uint8_t state)
{
	uint64_t last = (sector + sectors - 1) / zones->sectors;

	for (uint64_t nr = sector / zones->sectors; nr <= last; nr++)
		if (zones->zone[nr].state == state)
			return true;
	return false;
}

/**
 * zones_check_read() - may a range be read?
 * @sim: the device
 * @sector: the first sector
 * @sectors: how many; they are within the capacity
 *
 * Return: the status to answer.
 */
uint8_t zones_check_read(struct sim *sim, uint64_t sector, uint64_t sectors)
{
	struct zones *zones = get_used_zones(sim);

	if (!zones || !sectors)
		return BLK_S_OK;
	if (crosses_required(zones, sector, sectors) ||
	    touches_state(zones, sector, sectors, BLK_ZS_OFFLINE))
		return BLK_S_ZONE_INVALID_CMD;
	return BLK_S_OK;
}

uint8_t zones_check_discard(struct sim *sim, uint64_t sector, uint64_t sectors)
{
	struct zones *zones = get_used_zones(sim);

	if (zones && sectors &&
	    touches_state(zones, sector, sectors, BLK_ZS_RDONLY))
		return BLK_S_ZONE_INVALID_CMD;
	return zones_check_read(sim, sector, sectors);
}

uint64_t zones_run(struct sim *sim, uint64_t sector, bool *written)
{
	struct zones *zones = get_used_zones(sim);
	uint64_t nr, from;

	*written = true;
	if (!zones || sector >= zones->capacity)
		return UINT64_MAX;
	nr = sector / zones->sectors;
	from = sector % zones->sectors;
	if (is_conventional(zones, nr))
		return zone_length(zones, nr) - from;
	*written = from < zones->zone[nr].written;
	return (*written ? zones->zone[nr].written :
			   zone_length(zones, nr)) - from;
}

/**
 * zones_write() - check a write, and move the write pointers
 * @sim: the device
 * @sector: the first sector
 * @sectors: how many; they are within the capacity
 *
 * A write over several sequential-write-preferred zones may fail after it has
 * moved the first write pointers, like a write that fails in the middle.
 *
 * Return: the status to answer; the caller writes the data if it is OK.
 */
uint8_t zones_write(struct sim *sim, uint64_t sector, uint64_t sectors)
{
	struct zones *zones = get_zones(sim);

	if (!zones || !sectors)
		return BLK_S_OK;
	if (!get_used_zones(sim)) {
		forget_pointers(zones, sector, sectors);
		return BLK_S_OK;
	}
	if (crosses_required(zones, sector, sectors))
		return BLK_S_ZONE_INVALID_CMD;
	while (sectors) {
		uint64_t nr = sector / zones->sectors;
		uint64_t from = sector % zones->sectors;
		uint64_t now = zone_length(zones, nr) - from;
		uint8_t status;

		if (now > sectors)
			now = sectors;
		status = write_zone(sim, nr, from, now);
		if (status)
			return status;
		sector += now;
		sectors -= now;
	}
	return BLK_S_OK;
}

/**
 * zones_append() - check an append, and move the write pointer
 * @sim: the device
 * @sector: the request's sector: the first sector of the zone
 * @sectors: number of sectors to write
 * @where: set to the sector for the data
 *
 * Return: the status to answer; the caller writes the data if it is OK.
 */
uint8_t zones_append(struct sim *sim, uint64_t sector, uint64_t sectors,
		     uint64_t *where)
{
	uint32_t most = le32toh(sim->set.config.max_append_sectors);
	struct zones *zones = get_used_zones(sim);
	uint64_t nr, written, left;

	if (!zones || !most)
		return BLK_S_UNSUPP;
	if (sectors > most || !zones_at_start(sim, sector))
		return BLK_S_ZONE_INVALID_CMD;
	nr = sector / zones->sectors;
	if (is_conventional(zones, nr) || zones->type != BLK_ZT_SWR)
		return BLK_S_ZONE_INVALID_CMD;
	if (is_dead(zones->zone[nr].state) ||
	    zones->zone[nr].state == BLK_ZS_FULL)
		return BLK_S_ZONE_INVALID_CMD;
	written = zones->zone[nr].written;
	left = zone_writable(zones, nr) - written;
	if (sectors > left)
		return BLK_S_ZONE_INVALID_CMD;
	*where = sector + written;
	return sectors ? write_zone(sim, nr, written, sectors) : BLK_S_OK;
}

static uint8_t reset_zone(struct sim *sim, uint64_t nr)
{
	struct zone *zone = &sim->zones->zone[nr];

	if (is_dead(zone->state))
		return BLK_S_ZONE_INVALID_CMD;
	if (drop_data(sim, nr, 0))
		return BLK_S_IOERR;
	zone->written = 0;
	set_state(sim->zones, zone, BLK_ZS_EMPTY);
	return BLK_S_OK;
}

static uint8_t close_zone(struct zones *zones, struct zone *zone)
{
	if (!is_active(zone->state))
		return BLK_S_ZONE_INVALID_CMD;
	set_state(zones, zone, zone->written ? BLK_ZS_CLOSED : BLK_ZS_EMPTY);
	return BLK_S_OK;
}

/*
 * The standard's description of states has no transition from EMPTY or CLOSED to
 * FULL by a finish.  Its description of the request does not forbid them, and the
 * underlying standards have both.
 */
static uint8_t finish_zone(struct sim *sim, uint64_t nr)
{
	struct zone *zone = &sim->zones->zone[nr];

	if (is_dead(zone->state))
		return BLK_S_ZONE_INVALID_CMD;
	if (zone->state == BLK_ZS_FULL)
		return BLK_S_OK;
	if (drop_data(sim, nr, zone->written))
		return BLK_S_IOERR;
	zone->written = zone_writable(sim->zones, nr);
	set_state(sim->zones, zone, BLK_ZS_FULL);
	return BLK_S_OK;
}

static uint8_t reset_all(struct sim *sim)
{
	struct zones *zones = sim->zones;

	for (uint64_t nr = 0; nr < zones->nr; nr++) {
		uint8_t state = zones->zone[nr].state;

		if ((is_active(state) || state == BLK_ZS_FULL) &&
		    reset_zone(sim, nr))
			return BLK_S_IOERR;
	}
	return BLK_S_OK;
}

/**
 * zones_manage() - open, close, finish or reset a zone, or reset all of them
 * @sim: the device
 * @type: the request's type
 * @sector: the first sector of the zone
 *
 * Return: the status to answer.
 */
uint8_t zones_manage(struct sim *sim, uint32_t type, uint64_t sector)
{
	struct zones *zones = get_used_zones(sim);
	struct zone *zone;
	uint64_t nr;

	if (!zones)
		return BLK_S_UNSUPP;
	if (type == BLK_T_ZONE_RESET_ALL)
		return reset_all(sim);
	if (!zones_at_start(sim, sector))
		return BLK_S_ZONE_INVALID_CMD;
	nr = sector / zones->sectors;
	if (is_conventional(zones, nr))
		return BLK_S_ZONE_INVALID_CMD;
	zone = &zones->zone[nr];

	switch (type) {
	case BLK_T_ZONE_OPEN:
		if (is_dead(zone->state) || zone->state == BLK_ZS_FULL)
			return BLK_S_ZONE_INVALID_CMD;
		return open_zone(zones, zone, BLK_ZS_EOPEN);
	case BLK_T_ZONE_CLOSE:
		return close_zone(zones, zone);
	case BLK_T_ZONE_FINISH:
		return finish_zone(sim, nr);
	case BLK_T_ZONE_RESET:
		return reset_zone(sim, nr);
	default:
		return BLK_S_UNSUPP;
	}
}

uint8_t zones_erase(struct sim *sim, uint64_t sector, uint64_t sectors)
{
	struct zones *zones = get_used_zones(sim);
	uint64_t end = sector + sectors;

	if (!zones || !sectors)
		return BLK_S_OK;
	if (sector % zones->sectors ||
	    (end % zones->sectors && end != zones->capacity))
		return BLK_S_ZONE_INVALID_CMD;
	for (; sector < end; sector += zones->sectors) {
		uint64_t nr = sector / zones->sectors;
		uint8_t status;

		if (is_conventional(zones, nr))
			continue;
		status = reset_zone(sim, nr);
		if (status)
			return status;
	}
	return BLK_S_OK;
}

static void describe_zone(const struct zones *zones, uint64_t nr,
			  struct blk_zone_descriptor *to)
{
	const struct zone *zone = &zones->zone[nr];
	bool valid = is_active(zone->state) || zone->state == BLK_ZS_EMPTY;
	uint64_t pointer = zone_start(zones, nr) + zone->written;

	*to = (struct blk_zone_descriptor){
		.z_cap = htole64(zone_writable(zones, nr)),
		.z_start = htole64(zone_start(zones, nr)),
		/* undefined in the other states: an unusable value */
		.z_wp = valid ? htole64(pointer) : UINT64_MAX,
		.z_type = is_conventional(zones, nr) ? BLK_ZT_CONV :
						       zones->type,
		.z_state = zone->state,
	};
}

/**
 * zones_report() - describe zones
 * @sim: the device
 * @sector: a sector of the first zone to describe
 * @to: the descriptors
 * @most: number of descriptors that fit
 *
 * Return: the number of described zones.
 */
uint64_t zones_report(struct sim *sim, uint64_t sector,
		      struct blk_zone_descriptor *to, uint64_t most)
{
	struct zones *zones = get_zones(sim);
	uint64_t nr, done;

	if (!zones)
		return 0;
	nr = sector / zones->sectors;
	for (done = 0; done < most && nr < zones->nr; done++, nr++)
		describe_zone(zones, nr, &to[done]);
	return done;
}

/**
 * zones_force() - put a zone into a state, as failing hardware would
 * @sim: the device
 * @zone: number of the zone
 * @state: "empty", "full", "readonly" or "offline"
 *
 * Return: 0, or -1 if there is no such state or sequential zone.
 */
int zones_force(struct sim *sim, uint64_t zone, const char *state)
{
	struct zones *zones = get_zones(sim);
	struct zone *what;

	if (!zones || zone >= zones->nr || is_conventional(zones, zone))
		return -1;
	what = &zones->zone[zone];
	if (!strcmp(state, "offline") || !strcmp(state, "readonly")) {
		set_state(zones, what, *state == 'o' ? BLK_ZS_OFFLINE :
						       BLK_ZS_RDONLY);
		return 0;
	}
	if (strcmp(state, "empty") && strcmp(state, "full"))
		return -1;
	/* also from the states that have no transition back */
	set_state(zones, what, BLK_ZS_CLOSED);
	return (*state == 'e' ? reset_zone : finish_zone)(sim, zone) ? -1 : 0;
}

static void watch_size(struct sim *sim, const struct request *req)
{
	uint32_t bytes = granularity(sim);

	if (bytes)
		watch_check(&sim->watch, RULE_ZONE_WRITE_SIZE,
			    !(req->out_data % bytes),
			    "%s of %" PRIu64 " bytes to sector %" PRIu64 ", write_granularity is %u",
			    request_type_name(req->type), req->out_data,
			    req->sector, bytes);
}

static void watch_room(struct sim *sim, const struct request *req,
		       const struct zone *zone, uint64_t writable,
		       uint64_t from)
{
	uint64_t sectors = req->out_data / SECTOR_SIZE;

	watch_check(&sim->watch, RULE_ZONE_WRITE_CAPACITY,
		    from <= writable && sectors <= writable - from,
		    "%s of %" PRIu64 " sectors for zone sector %" PRIu64 " of %" PRIu64 " that can be written, state %u",
		    request_type_name(req->type), sectors, from, writable,
		    zone->state);
}

/* rules on an append; its sector was checked before */
static void watch_append(struct sim *sim, const struct request *req,
			 uint64_t nr)
{
	struct zones *zones = sim->zones;
	struct zone *zone = &zones->zone[nr];
	uint64_t writable = zone_writable(zones, nr);

	if (!watch_check(&sim->watch, RULE_ZONE_APPEND_POINTER,
			 !is_conventional(zones, nr),
			 "append to conventional zone %" PRIu64, nr))
		return;
	watch_size(sim, req);
	if (!is_dead(zone->state))
		watch_room(sim, req, zone, writable,
			   zone->state == BLK_ZS_FULL ? writable :
							zone->written);
}

/* rules on a write; rules that depend on a broken one are left out */
static void watch_write(struct sim *sim, const struct request *req,
			uint64_t nr)
{
	struct zones *zones = sim->zones;
	struct zone *zone = &zones->zone[nr];
	bool required = zones->type == BLK_ZT_SWR;
	uint64_t from = req->sector - zone_start(zones, nr);
	uint64_t writable = zone_writable(zones, nr);

	watch_size(sim, req);
	if (granularity(sim) &&
	    !watch_check(&sim->watch, RULE_ZONE_WRITE_ALIGNMENT,
			 is_granular(sim, req->sector),
			 "write to sector %" PRIu64 ", write_granularity is %u",
			 req->sector, granularity(sim)))
		return;
	if (is_active(zone->state) || zone->state == BLK_ZS_EMPTY) {
		if (!watch_check(&sim->watch,
				 required ? RULE_ZONE_WRITE_POINTER :
					    RULE_ZONE_WRITE_ORDER,
				 from == zone->written,
				 "write to sector %" PRIu64 " of zone %" PRIu64 ", the write pointer is at %" PRIu64,
				 req->sector, nr,
				 zone_start(zones, nr) + zone->written))
			return;
		watch_room(sim, req, zone, writable, from);
	} else if (required && zone->state == BLK_ZS_FULL) {
		watch_room(sim, req, zone, writable, writable);
	}
}

void zones_watch(struct sim *sim, const struct request *req)
{
	struct zones *zones = get_used_zones(sim);
	uint64_t nr;

	if (!zones || !req->out_data || req->sector >= zones->capacity)
		return;
	nr = req->sector / zones->sectors;
	if (req->type == BLK_T_ZONE_APPEND) {
		if (zones_at_start(sim, req->sector))
			watch_append(sim, req, nr);
	} else if (!is_conventional(zones, nr)) {
		watch_write(sim, req, nr);
	}
}
