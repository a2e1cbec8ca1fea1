// SPDX-License-Identifier: GPL-2.0
/*
 * A backing device with zones that the host manages, offered with VIRTIO_BLK_F_ZONED
 * (VIRTIO 1.4, 5.2.3 to 5.2.6).
 *
 * The backing device has the write pointers.  The device refuses a request that the
 * specification forbids for any write pointer.  For most other requests the block layer
 * reports only that they fail, so the device asks for a report on the zone afterwards,
 * which says why.
 *
 * After a write has failed the block layer has lost the zone's write pointer, and fails
 * all writes to the zone until there is a report (since 6.13, and in 6.12's updates).  A
 * write or append that fails only because of that is submitted once more.
 */

#include <linux/bitmap.h>
#include <linux/blkdev.h>
#include <linux/log2.h>
#include <linux/mm.h>
#include <linux/nospec.h>

#include "memory.h"
#include "request.h"
#include "vdpa_blk.h"
#include "zoned.h"

/* The longest zone append, which has to be copied in one piece. */
#define VDPA_BLK_MAX_APPEND	((unsigned int)SZ_256K)

/* Zones in the answer to a request.  The driver asks for the others. */
#define VDPA_BLK_MAX_REPORT	4096U

#define VDPA_BLK_REPORT_HEADER	((u64)sizeof(struct virtio_blk_zone_report))
#define VDPA_BLK_DESCRIPTOR	((u32)sizeof(struct virtio_blk_zone_descriptor))

/* The specification has Linux' numbers. */
static_assert(VIRTIO_BLK_ZT_CONV == (int)BLK_ZONE_TYPE_CONVENTIONAL);
static_assert(VIRTIO_BLK_ZT_SWR == (int)BLK_ZONE_TYPE_SEQWRITE_REQ);
static_assert(VIRTIO_BLK_ZS_NOT_WP == (int)BLK_ZONE_COND_NOT_WP);
static_assert(VIRTIO_BLK_ZS_EMPTY == (int)BLK_ZONE_COND_EMPTY);
static_assert(VIRTIO_BLK_ZS_IOPEN == (int)BLK_ZONE_COND_IMP_OPEN);
static_assert(VIRTIO_BLK_ZS_EOPEN == (int)BLK_ZONE_COND_EXP_OPEN);
static_assert(VIRTIO_BLK_ZS_CLOSED == (int)BLK_ZONE_COND_CLOSED);
static_assert(VIRTIO_BLK_ZS_RDONLY == (int)BLK_ZONE_COND_READONLY);
static_assert(VIRTIO_BLK_ZS_FULL == (int)BLK_ZONE_COND_FULL);
static_assert(VIRTIO_BLK_ZS_OFFLINE == (int)BLK_ZONE_COND_OFFLINE);

/**
 * struct vdpa_blk_zones - what stays the same of the backing device's zones
 * @capacity: sectors of all zones together
 * @nr: number of zones
 * @found: zones that the backing device has reported
 * @shift: binary logarithm of the sectors of a zone; the last one may have less
 * @granularity: sectors of the smallest write to a sequential zone, a power of two
 * @max_append: sectors of the longest append
 * @writable: sectors of a sequential zone that can be written
 * @last_writable: the same of the last zone
 * @sequential: a bit for each zone that must be written in sequence
 */
struct vdpa_blk_zones {
	u64 capacity;
	unsigned int nr;
	unsigned int found;
	unsigned int shift;
	u32 granularity;
	u32 max_append;
	u64 writable;
	u64 last_writable;
	unsigned long sequential[];
};

static u64 vdpa_blk_zone_start(const struct vdpa_blk_zones *zones, u64 sector)
{
	return sector >> zones->shift << zones->shift;
}

static bool vdpa_blk_is_sequential(const struct vdpa_blk_zones *zones, u64 sector)
{
	return test_bit(sector >> zones->shift, zones->sequential);
}

static u64 vdpa_blk_writable(const struct vdpa_blk_zones *zones, u64 sector)
{
	return sector >> zones->shift == zones->nr - 1 ? zones->last_writable :
							  zones->writable;
}

/* Set-up */

static int vdpa_blk_note_zone(struct blk_zone *zone, unsigned int idx, void *data)
{
	struct vdpa_blk_zones *zones = data;
	u64 nr = zone->start >> zones->shift;

	if (nr >= zones->nr)
		return -EINVAL;
	zones->found++;
	if (zone->type == BLK_ZONE_TYPE_CONVENTIONAL)
		return 0;
	__set_bit(nr, zones->sequential);
	/* The block layer demands that they have the same, except the last one. */
	if (nr == zones->nr - 1)
		zones->last_writable = zone->capacity;
	else
		zones->writable = max_t(u64, zones->writable, zone->capacity);
	return 0;
}

/**
 * vdpa_blk_init_zones() - read the zones of the backing device
 * @vb: the device, its backing device open, with zones
 *
 * Context: may sleep.
 *
 * Return: 0 or an error, which is in the log.  The caller frees @vb->zones.
 */
int vdpa_blk_init_zones(struct vdpa_blk *vb)
{
	struct block_device *bdev = vb->bdev;
	u64 capacity = bdev_nr_sectors(bdev), nr;
	unsigned int shift = ilog2(bdev_zone_sectors(bdev));
	struct vdpa_blk_zones *zones;
	int err;

	nr = (capacity + bdev_zone_sectors(bdev) - 1) >> shift;
	if (!nr || nr > INT_MAX) {
		pr_err("vdpa_blk: path %s has %llu zones, must be 1 to %d\n",
		       vb->settings.path, nr, INT_MAX);
		return -EINVAL;
	}
	zones = kvzalloc(struct_size(zones, sequential, BITS_TO_LONGS(nr)), GFP_KERNEL);
	if (!zones)
		return -ENOMEM;
	vb->zones = zones;
	zones->capacity = capacity;
	zones->nr = nr;
	zones->shift = shift;
	zones->granularity = max(bdev_zone_write_granularity(bdev) >> SECTOR_SHIFT, 1U);
	zones->max_append = round_down(min(bdev_max_zone_append_sectors(bdev),
					   VDPA_BLK_MAX_APPEND >> SECTOR_SHIFT),
				       zones->granularity);

	err = blkdev_report_zones(bdev, 0, BLK_ALL_ZONES, vdpa_blk_note_zone, zones);
	if (err >= 0 && zones->found == nr)
		return 0;
	pr_err("vdpa_blk: path %s reports %u of %llu zones, error %d\n",
	       vb->settings.path, zones->found, nr, min(err, 0));
	return err < 0 ? err : -EIO;
}

/**
 * vdpa_blk_zoned_capacity() - the capacity of the zones that the device knows
 * @vb: the device, with zones
 *
 * Return: the capacity in sectors.
 */
u64 vdpa_blk_zoned_capacity(const struct vdpa_blk *vb)
{
	return vb->zones->capacity;
}

/**
 * vdpa_blk_init_zoned_config() - fill in the feature and the configuration space
 * @vb: the device, with zones
 */
void vdpa_blk_init_zoned_config(struct vdpa_blk *vb)
{
	struct virtio_blk_config *config = &vb->config;
	const struct vdpa_blk_zones *zones = vb->zones;

	vb->features |= BIT_ULL(VIRTIO_BLK_F_ZONED);
	config->zoned.model = VIRTIO_BLK_Z_HM;
	config->zoned.zone_sectors = vdpa_blk_le32(1U << zones->shift);
	config->zoned.max_open_zones = vdpa_blk_le32(bdev_max_open_zones(vb->bdev));
	config->zoned.max_active_zones =
		vdpa_blk_le32(bdev_max_active_zones(vb->bdev));
	config->zoned.max_append_sectors = vdpa_blk_le32(zones->max_append);
	config->zoned.write_granularity =
		vdpa_blk_le32(zones->granularity << SECTOR_SHIFT);
}

/**
 * vdpa_blk_check_zoned_features() - check that the device can offer its zones
 * @vb: the device, with zones, its features final
 *
 * Return: 0 or -EINVAL, which is in the log.
 */
int vdpa_blk_check_zoned_features(struct vdpa_blk *vb)
{
	if (vb->features & BIT_ULL(VIRTIO_BLK_F_ZONED))
		return 0;
	dev_err(&vb->vdpa.dev, "features %#llx lack ZONED (bit %u), without which no driver can use the zones of path %s; add it\n",
		vb->features, VIRTIO_BLK_F_ZONED, vb->settings.path);
	return -EINVAL;
}

/* Checks before a request is submitted */

static u8 vdpa_blk_check_append(const struct vdpa_blk_zones *zones, u64 sector,
				u32 sectors)
{
	if (!zones->max_append)
		return VIRTIO_BLK_S_UNSUPP;
	if (sectors > zones->max_append ||
	    sector != vdpa_blk_zone_start(zones, sector) ||
	    !vdpa_blk_is_sequential(zones, sector) ||
	    sectors > vdpa_blk_writable(zones, sector))
		return VIRTIO_BLK_S_ZONE_INVALID_CMD;
	if (sectors & (zones->granularity - 1))
		return VIRTIO_BLK_S_ZONE_UNALIGNED_WP;
	return VIRTIO_BLK_S_OK;
}

/**
 * vdpa_blk_check_zones() - check a read, write or append
 * @vb: the device, with zones
 * @type: VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT or VIRTIO_BLK_T_ZONE_APPEND
 * @sector: the request's sector
 * @sectors: sectors of data, at least 1
 *
 * Context: any.
 *
 * Return: VIRTIO_BLK_S_OK if it may be submitted, or the status that VIRTIO 1.4, 5.2.6.2
 * demands.
 */
u8 vdpa_blk_check_zones(const struct vdpa_blk *vb, u32 type, u64 sector,
			u32 sectors)
{
	const struct vdpa_blk_zones *zones = vb->zones;
	u64 first, last;

	if (sector >= zones->capacity || sectors > zones->capacity - sector)
		return VIRTIO_BLK_S_IOERR;
	/* Also a CPU that speculates stays in the bitmap. */
	sector = array_index_nospec(sector, zones->capacity);
	if (type == VIRTIO_BLK_T_ZONE_APPEND)
		return vdpa_blk_check_append(zones, sector, sectors);
	first = sector >> zones->shift;
	last = array_index_nospec(sector + sectors - 1, zones->capacity) >> zones->shift;
	if (find_next_bit(zones->sequential, last + 1, first) > last)
		return VIRTIO_BLK_S_OK;
	if (first != last)
		return VIRTIO_BLK_S_ZONE_INVALID_CMD;
	if (type == VIRTIO_BLK_T_IN)
		return VIRTIO_BLK_S_OK;
	if (sector + sectors > vdpa_blk_zone_start(zones, sector) +
			       vdpa_blk_writable(zones, sector))
		return VIRTIO_BLK_S_ZONE_INVALID_CMD;
	if ((sector | sectors) & (zones->granularity - 1))
		return VIRTIO_BLK_S_ZONE_UNALIGNED_WP;
	return VIRTIO_BLK_S_OK;
}

/**
 * vdpa_blk_check_zone_request() - check a report on zones, or a change of a zone
 * @vb: the device, with zones
 * @type: VIRTIO_BLK_T_ZONE_..., except an append
 * @sector: the request's sector
 * @bytes: bytes that the device may write
 *
 * Context: any.
 *
 * Return: VIRTIO_BLK_S_OK if it may be executed, or another status.
 */
u8 vdpa_blk_check_zone_request(const struct vdpa_blk *vb, u32 type, u64 sector,
			       u64 bytes)
{
	const struct vdpa_blk_zones *zones = vb->zones;

	if (type == VIRTIO_BLK_T_ZONE_REPORT)
		return bytes < VDPA_BLK_REPORT_HEADER || sector >= zones->capacity ?
		       VIRTIO_BLK_S_ZONE_INVALID_CMD : VIRTIO_BLK_S_OK;
	if (vb->settings.readonly)
		return VIRTIO_BLK_S_IOERR;
	if (type == VIRTIO_BLK_T_ZONE_RESET_ALL)
		return VIRTIO_BLK_S_OK;
	if (sector >= zones->capacity)
		return VIRTIO_BLK_S_ZONE_INVALID_CMD;
	sector = array_index_nospec(sector, zones->capacity);
	if (sector != vdpa_blk_zone_start(zones, sector) ||
	    !vdpa_blk_is_sequential(zones, sector))
		return VIRTIO_BLK_S_ZONE_INVALID_CMD;
	return VIRTIO_BLK_S_OK;
}

/* Why a request has failed */

static int vdpa_blk_copy_zone(struct blk_zone *zone, unsigned int idx, void *data)
{
	memcpy(data, zone, sizeof(*zone));
	return 0;
}

/* Get a report on the sequential zone at @sector; returns false if there is none. */
static bool vdpa_blk_read_zone(struct vdpa_blk *vb, u64 sector, struct blk_zone *zone)
{
	if (READ_ONCE(vb->gone) || !vdpa_blk_is_sequential(vb->zones, sector))
		return false;
	return blkdev_report_zones(vb->bdev, vdpa_blk_zone_start(vb->zones, sector), 1,
				   vdpa_blk_copy_zone, zone) == 1;
}

/* Whether the state of a zone forbids a request (VIRTIO 1.4, 5.2.6 and 5.2.6.2). */
static bool vdpa_blk_zone_refuses(const struct blk_zone *zone, u32 type)
{
	switch (zone->cond) {
	case BLK_ZONE_COND_OFFLINE:
		return true;
	case BLK_ZONE_COND_READONLY:
		return type != VIRTIO_BLK_T_IN;
	case BLK_ZONE_COND_FULL:
		return type == VIRTIO_BLK_T_OUT || type == VIRTIO_BLK_T_ZONE_APPEND ||
		       type == VIRTIO_BLK_T_ZONE_OPEN ||
		       type == VIRTIO_BLK_T_ZONE_CLOSE;
	case BLK_ZONE_COND_EMPTY:
		return type == VIRTIO_BLK_T_ZONE_CLOSE;
	default:
		return false;
	}
}

/* Whether there is no room for a write or an append in the rest of a zone. */
static bool vdpa_blk_exceeds_zone(const struct blk_zone *zone, u32 type, u64 sector,
				  u32 sectors)
{
	u64 end = zone->start + zone->capacity;

	if (type == VIRTIO_BLK_T_ZONE_APPEND)
		sector = zone->wp;
	return sector > end || sectors > end - sector;
}

static u8 vdpa_blk_explain_zone(const struct blk_zone *zone, u32 type, u64 sector,
				u32 sectors, blk_status_t error, bool *again)
{
	if (vdpa_blk_zone_refuses(zone, type))
		return VIRTIO_BLK_S_ZONE_INVALID_CMD;
	if (type != VIRTIO_BLK_T_OUT && type != VIRTIO_BLK_T_ZONE_APPEND)
		return VIRTIO_BLK_S_IOERR;
	if (vdpa_blk_exceeds_zone(zone, type, sector, sectors))
		return VIRTIO_BLK_S_ZONE_INVALID_CMD;
	/* A medium, a path or a timeout is the reason of other errors. */
	if (error != BLK_STS_IOERR && error != BLK_STS_TARGET &&
	    error != BLK_STS_INVAL)
		return VIRTIO_BLK_S_IOERR;
	if (type == VIRTIO_BLK_T_OUT && sector != zone->wp)
		return VIRTIO_BLK_S_ZONE_UNALIGNED_WP;
	*again = true;
	return VIRTIO_BLK_S_IOERR;
}

/**
 * vdpa_blk_find_zone_status() - find out why the block layer has failed a request
 * @vb: the device, with zones
 * @type: the request's type
 * @sector: its sector
 * @sectors: sectors of data that it reads or writes
 * @error: the block layer's error
 * @again: set to whether the zone would take the request now
 *
 * After a failed write it has the block layer find the write pointer again.
 *
 * Context: may sleep, under memalloc_noio_save().
 *
 * Return: the status for the driver, not VIRTIO_BLK_S_OK.
 */
u8 vdpa_blk_find_zone_status(struct vdpa_blk *vb, u32 type, u64 sector, u32 sectors,
			     blk_status_t error, bool *again)
{
	struct blk_zone zone;
	bool known;

	*again = false;
	known = type != VIRTIO_BLK_T_ZONE_RESET_ALL &&
		vdpa_blk_read_zone(vb, sector, &zone);
	switch (error) {
	case BLK_STS_ZONE_OPEN_RESOURCE:
		return VIRTIO_BLK_S_ZONE_OPEN_RESOURCE;
	case BLK_STS_ZONE_ACTIVE_RESOURCE:
		return VIRTIO_BLK_S_ZONE_ACTIVE_RESOURCE;
	case BLK_STS_NOTSUPP:
		return VIRTIO_BLK_S_UNSUPP;
	default:
		return known ? vdpa_blk_explain_zone(&zone, type, sector, sectors,
						     error, again) :
			       VIRTIO_BLK_S_IOERR;
	}
}

/* Requests to zones */

static enum req_op vdpa_blk_zone_op(u32 type)
{
	switch (type) {
	case VIRTIO_BLK_T_ZONE_OPEN:
		return REQ_OP_ZONE_OPEN;
	case VIRTIO_BLK_T_ZONE_CLOSE:
		return REQ_OP_ZONE_CLOSE;
	case VIRTIO_BLK_T_ZONE_FINISH:
		return REQ_OP_ZONE_FINISH;
	case VIRTIO_BLK_T_ZONE_RESET:
		return REQ_OP_ZONE_RESET;
	default:
		return REQ_OP_ZONE_RESET_ALL;
	}
}

/**
 * vdpa_blk_manage_zone() - open, close, finish or reset a zone, or reset all
 * @vb: the device, with zones
 * @type: the request's type, which vdpa_blk_check_zone_request() has checked
 * @sector: its sector
 *
 * Context: may sleep, under memalloc_noio_save().
 *
 * Return: the status for the driver.
 */
u8 vdpa_blk_manage_zone(struct vdpa_blk *vb, u32 type, u64 sector)
{
	struct blk_zone zone;
	struct bio bio;
	bool again;
	int err;

	/* A SCSI disk says that it has opened or closed a zone in any state. */
	if ((type == VIRTIO_BLK_T_ZONE_OPEN || type == VIRTIO_BLK_T_ZONE_CLOSE) &&
	    vdpa_blk_read_zone(vb, sector, &zone) && vdpa_blk_zone_refuses(&zone, type))
		return VIRTIO_BLK_S_ZONE_INVALID_CMD;
	if (type == VIRTIO_BLK_T_ZONE_RESET_ALL)
		sector = 0;
	bio_init(&bio, vb->bdev, NULL, 0, vdpa_blk_zone_op(type) | REQ_SYNC);
	bio.bi_iter.bi_sector = sector;
	err = submit_bio_wait(&bio);
	bio_uninit(&bio);
	if (!err)
		return VIRTIO_BLK_S_OK;
	return vdpa_blk_find_zone_status(vb, type, sector, 0, errno_to_blk_status(err),
					 &again);
}

/**
 * struct vdpa_blk_report - a part of a report
 * @descs: where the descriptors go
 * @room: number of descriptors that fit
 * @nr: number of descriptors
 * @end: the sector after the last zone
 */
struct vdpa_blk_report {
	struct virtio_blk_zone_descriptor *descs;
	unsigned int room;
	unsigned int nr;
	u64 end;
};

static int vdpa_blk_describe_zone(struct blk_zone *zone, unsigned int idx,
				  void *data)
{
	struct vdpa_blk_report *report = data;
	struct virtio_blk_zone_descriptor *desc;

	if (report->nr == report->room)
		return -ENOSPC;
	desc = &report->descs[report->nr++];
	memset(desc, 0, sizeof(*desc));
	desc->z_cap = __cpu_to_virtio64(true, zone->capacity);
	desc->z_start = __cpu_to_virtio64(true, zone->start);
	desc->z_wp = __cpu_to_virtio64(true, zone->wp);
	desc->z_type = zone->type;
	desc->z_state = zone->cond;
	report->end = zone->start + zone->len;
	return 0;
}

/* Returns the number of zones described in the driver's buffers, or an error. */
static int vdpa_blk_describe_zones(struct vdpa_blk_slow *slow, void *buf, u32 size,
				   unsigned int most)
{
	struct vdpa_blk *vb = slow->rq->q->vb;
	struct vdpa_blk_report report = {
		.descs = buf,
		.end = vdpa_blk_zone_start(vb->zones, slow->sector),
	};
	unsigned int done = 0;
	int err;

	while (done < most && report.end < vb->zones->capacity) {
		if (READ_ONCE(vb->stopping) || READ_ONCE(vb->gone))
			return -EIO;
		report.nr = 0;
		report.room = min(most - done, size / VDPA_BLK_DESCRIPTOR);
		err = blkdev_report_zones(vb->bdev, report.end, report.room,
					  vdpa_blk_describe_zone, &report);
		if (err < 0)
			return err;
		if (!report.nr)
			return -EIO;
		err = vdpa_blk_copy_segs(vb->memory, slow->segs, slow->nr_segs,
					 VDPA_BLK_REPORT_HEADER +
					 (u64)done * VDPA_BLK_DESCRIPTOR, buf,
					 report.nr * VDPA_BLK_DESCRIPTOR, true);
		if (err)
			return err;
		done += report.nr;
	}
	return done;
}

/**
 * vdpa_blk_report_zones() - write a report on zones to the driver's buffers
 * @slow: the request, which vdpa_blk_check_zone_request() has checked
 * @buf: a buffer
 * @size: its size in bytes
 *
 * A report has at most VDPA_BLK_MAX_REPORT zones, so that a request takes no longer.
 *
 * Context: may sleep, under memalloc_noio_save().
 *
 * Return: the status for the driver.
 */
u8 vdpa_blk_report_zones(struct vdpa_blk_slow *slow, void *buf, u32 size)
{
	u64 bytes = vdpa_blk_sum(slow->segs, slow->nr_segs), written;
	struct virtio_blk_zone_report header = { };
	int nr;

	nr = vdpa_blk_describe_zones(slow, buf, size,
				     min_t(u64, VDPA_BLK_MAX_REPORT,
					   (bytes - VDPA_BLK_REPORT_HEADER) /
					   VDPA_BLK_DESCRIPTOR));
	if (nr < 0)
		return VIRTIO_BLK_S_IOERR;
	header.nr_zones = __cpu_to_virtio64(true, nr);
	if (vdpa_blk_copy_segs(slow->rq->q->vb->memory, slow->segs, slow->nr_segs, 0,
			       &header, VDPA_BLK_REPORT_HEADER, true))
		return VIRTIO_BLK_S_IOERR;
	written = VDPA_BLK_REPORT_HEADER + (u64)nr * VDPA_BLK_DESCRIPTOR;
	/* The status byte counts only if there is nothing unwritten before it. */
	slow->rq->len = written + (written == bytes);
	return VIRTIO_BLK_S_OK;
}
