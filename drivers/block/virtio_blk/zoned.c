// SPDX-License-Identifier: GPL-2.0
/*
 * Zones that the host manages (VIRTIO 1.4, 5.2.6): appends and the results of
 * requests to them, the device's reports, and the writes that a reset requeues.
 *
 * The block layer keeps the writes of a zone in order.  It knows the write pointers
 * from the reports.
 */

#include <linux/blk-mq.h>
#include <linux/delay.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>

#include "virtio_blk.h"
#include "zoned.h"

/* The driver asks for a longer report in pieces. */
#define VIRTBLK_REPORT_MAX_BYTES	SZ_256K

/* More than any disk has: 1 PiB in zones of 64 MiB. */
#define VIRTBLK_MAX_ZONES		SZ_16M

/* Appends and results */

/**
 * virtblk_add_append() - add a zone append to the ring
 * @q: its queue, with its lock held and room in its ring
 * @req: the request
 *
 * Only a zone append returns a sector; it precedes the status.
 *
 * Return: 0 or the error of virtqueue_add_sgs().
 */
int virtblk_add_append(struct virtblk_queue *q, struct request *req)
{
	struct virtblk_req *vbr = blk_mq_rq_to_pdu(req);
	struct scatterlist *sgs[3], in_hdr;

	BUILD_BUG_ON(offsetofend(struct virtblk_req, append_sector) !=
		     offsetof(struct virtblk_req, status));
	sg_init_one(&in_hdr, &vbr->append_sector,
		    sizeof(vbr->append_sector) + sizeof(vbr->status));

	sgs[0] = &vbr->hdr_sg;
	sgs[1] = vbr->data;
	sgs[2] = &in_hdr;
	return virtqueue_add_sgs(q->vq, sgs, 2, 1, vbr, GFP_ATOMIC);
}

/*
 * The block layer believes the sector of a zone append, so the driver checks that it
 * is in the zone that starts at blk_rq_pos().
 */
static blk_status_t virtblk_set_append_sector(struct request *req)
{
	struct virtblk_req *vbr = blk_mq_rq_to_pdu(req);
	struct virtio_blk *vblk = req->q->disk->private_data;
	u64 sector = virtio64_to_cpu(vblk->vdev, vbr->append_sector);
	u64 start = blk_rq_pos(req);

	if (sector < start ||
	    sector - start > vblk->config.lim.chunk_sectors -
			     blk_rq_sectors(req)) {
		dev_err_ratelimited(&vblk->vdev->dev, "[%s] the device reports an append at sector %llu for the zone at %llu, failing it\n",
				    vblk->disk->disk_name, sector, start);
		return BLK_STS_IOERR;
	}
	req->__sector = sector;
	return BLK_STS_OK;
}

/**
 * virtblk_zone_result() - find out the result of a request to a zoned disk
 * @req: the request, which the device has returned
 *
 * Return: its status; for a successful zone append, @req has the sector as well.
 */
blk_status_t virtblk_zone_result(struct request *req)
{
	struct virtblk_req *vbr = blk_mq_rq_to_pdu(req);

	switch (vbr->status) {
	case VIRTIO_BLK_S_OK:
		if (req_op(req) == REQ_OP_ZONE_APPEND)
			return virtblk_set_append_sector(req);
		return BLK_STS_OK;
	case VIRTIO_BLK_S_UNSUPP:
		return BLK_STS_NOTSUPP;
	case VIRTIO_BLK_S_ZONE_OPEN_RESOURCE:
		return BLK_STS_ZONE_OPEN_RESOURCE;
	case VIRTIO_BLK_S_ZONE_ACTIVE_RESOURCE:
		return BLK_STS_ZONE_ACTIVE_RESOURCE;
	default:
		return BLK_STS_IOERR;
	}
}

/* Reports */

/* Allocate a report on @nr_zones, or on fewer if memory is short. */
static struct virtio_blk_zone_report *
virtblk_alloc_report(struct virtio_blk *vblk, unsigned int nr_zones,
		     unsigned int *len)
{
	const struct queue_limits *lim = &vblk->config.lim;
	struct virtio_blk_zone_report *report;
	size_t size, most;

	/* Each page may be a segment of its own. */
	most = min_t(size_t, VIRTBLK_REPORT_MAX_BYTES,
		     (size_t)lim->max_segments * PAGE_SIZE);
	size = min_t(size_t, most,
		     struct_size(report, zones, (size_t)nr_zones));
	/* Whole pages, because it is mapped page by page. */
	size = round_up(size, PAGE_SIZE);

	while (size >= PAGE_SIZE) {
		report = __vmalloc(size, GFP_KERNEL | __GFP_NORETRY |
				   __GFP_NOWARN | __GFP_ZERO);
		if (report) {
			*len = size;
			return report;
		}
		size = round_down(size / 2, PAGE_SIZE);
	}
	return NULL;
}

/* Little-endian: only legacy devices have the guest's byte order, and no zones. */
static u64 virtblk_zone64_to_cpu(__virtio64 value)
{
	return __virtio64_to_cpu(true, value);
}

/*
 * Convert the device's description of the zone at @sector and check it: zones follow
 * each other, and a zone's write pointer is inside it.  The device itself may be gone.
 */
static int virtblk_parse_zone(struct virtio_blk *vblk, sector_t sector, u64 len,
			      const struct virtio_blk_zone_descriptor *desc,
			      struct blk_zone *zone)
{
	const struct queue_limits *lim = &vblk->config.lim;

	memset(zone, 0, sizeof(*zone));
	zone->start = virtblk_zone64_to_cpu(desc->z_start);
	zone->len = len;
	zone->capacity = virtblk_zone64_to_cpu(desc->z_cap);
	zone->wp = virtblk_zone64_to_cpu(desc->z_wp);
	zone->type = desc->z_type;
	zone->cond = desc->z_state;

	if (zone->start != sector)
		goto bad;
	/* The driver may have cut the last zone to whole logical blocks. */
	if (len < lim->chunk_sectors && zone->capacity > len &&
	    zone->capacity - len < lim->logical_block_size >> SECTOR_SHIFT) {
		zone->capacity = len;
		zone->wp = min(zone->wp, zone->start + len);
	}

	/* The numbers of types and states are Linux's own. */
	switch (zone->type) {
	case BLK_ZONE_TYPE_CONVENTIONAL:
		zone->cond = BLK_ZONE_COND_NOT_WP;
		zone->capacity = zone->len;
		break;
	case BLK_ZONE_TYPE_SEQWRITE_REQ:
		if (zone->cond == BLK_ZONE_COND_NOT_WP || !zone->capacity ||
		    zone->capacity > zone->len)
			goto bad;
		break;
	default:
		goto bad;
	}

	switch (zone->cond) {
	case BLK_ZONE_COND_EMPTY:
		zone->wp = zone->start;
		break;
	case BLK_ZONE_COND_IMP_OPEN:
	case BLK_ZONE_COND_EXP_OPEN:
	case BLK_ZONE_COND_CLOSED:
		if (zone->wp < zone->start ||
		    zone->wp - zone->start > zone->capacity)
			goto bad;
		break;
	case BLK_ZONE_COND_NOT_WP:
	case BLK_ZONE_COND_FULL:
		zone->wp = zone->start + zone->len;
		break;
	case BLK_ZONE_COND_READONLY:
	case BLK_ZONE_COND_OFFLINE:
		zone->wp = (sector_t)-1;
		break;
	default:
		goto bad;
	}
	return 0;

bad:
	dev_err_ratelimited(disk_to_dev(vblk->disk), "the device reports an invalid zone at sector %llu: start %llu, capacity %llu, write pointer %llu, type %u, state %u\n",
			    sector, zone->start, zone->capacity, zone->wp, desc->z_type,
			    desc->z_state);
	return -EIO;
}

/**
 * virtblk_report_zones() - the block layer's report_zones
 * @disk: the disk
 * @sector: a sector in the first zone to report
 * @nr_zones: the maximum number of zones to report
 * @args: passed to disk_report_zone() with each zone
 *
 * Context: may sleep.
 *
 * Return: the number of reported zones, -ENOMEM, -EOPNOTSUPP for a disk without zones,
 * -ENODEV for a disk that is gone, -EIO if the device's report is missing or invalid.
 */
int virtblk_report_zones(struct gendisk *disk, sector_t sector,
			 unsigned int nr_zones,
			 struct blk_report_zones_args *args)
{
	struct virtio_blk *vblk = disk->private_data;
	u64 capacity = get_capacity(disk), count, i;
	u32 zone_sectors = vblk->config.lim.chunk_sectors;
	struct virtio_blk_zone_report *report;
	unsigned int done = 0, len, most;
	struct blk_zone zone;
	int err = 0;

	if (!blk_queue_is_zoned(disk->queue))
		return -EOPNOTSUPP;
	if (sector >= capacity)
		return 0;

	sector = round_down(sector, zone_sectors);
	nr_zones = min_t(u64, nr_zones,
			 DIV_ROUND_UP_ULL(capacity - sector, zone_sectors));
	report = virtblk_alloc_report(vblk, nr_zones, &len);
	if (!report)
		return -ENOMEM;
	most = (len - sizeof(*report)) / sizeof(report->zones[0]);

	while (done < nr_zones && sector < capacity) {
		/* A device may report one zone at a time. */
		err = READ_ONCE(vblk->recovery.removing) ? -ENODEV : 0;
		if (err)
			break;
		memset(report, 0, len);
		err = virtblk_query(disk, VIRTIO_BLK_T_ZONE_REPORT, sector,
				    report, len);
		if (err)
			break;

		count = virtblk_zone64_to_cpu(report->nr_zones);
		if (!count || count > most) {
			dev_err_ratelimited(disk_to_dev(disk), "the device reports %llu zones from sector %llu on, the report has room for %u\n",
					    count, sector, most);
			err = -EIO;
			break;
		}

		for (i = 0; i < count && done < nr_zones &&
		     sector < capacity; i++) {
			err = virtblk_parse_zone(vblk, sector,
						 min_t(u64, zone_sectors,
						       capacity - sector),
						 &report->zones[i], &zone);
			if (!err)
				err = disk_report_zone(disk, &zone, done, args);
			if (err)
				goto out;
			done++;
			sector += zone.len;
		}
	}
out:
	vfree(report);
	return err ?: done;
}

/* Zone writes that a reset requeues */

/**
 * virtblk_is_zone_write() - may a request be a write to a sequential zone?
 * @req: the request
 *
 * Return: true if the zone's write pointer tells whether the device executed it.
 */
bool virtblk_is_zone_write(struct request *req)
{
	return blk_queue_is_zoned(req->q) && req_op(req) == REQ_OP_WRITE;
}

/* A report on one zone, asked for without a struct request. */
struct virtblk_zone_query {
	struct virtio_blk_outhdr out_hdr;
	u8 status;
	/* The last one: it ends with a flexible array. */
	struct virtio_blk_zone_report report;
};

/* Wait for the only buffer on @vq; on -ETIMEDOUT the device still has it. */
static int virtblk_await_query(struct virtio_blk *vblk, struct virtqueue *vq)
{
	unsigned long end = jiffies + virtblk_answer_timeout(vblk);
	unsigned int len;

	while (!virtqueue_get_buf(vq, &len)) {
		if (virtqueue_is_broken(vq) || virtblk_needs_reset(vblk->vdev) ||
		    time_after(jiffies, end))
			return -ETIMEDOUT;
		fsleep(USEC_PER_MSEC);
	}
	return 0;
}

/*
 * Ask for the zone at @sector.  Called before the queues have their virtqueues, so
 * that @vq holds nothing else.
 */
static int virtblk_query_zone(struct virtio_blk *vblk, struct virtqueue *vq,
			      struct virtblk_zone_query *query, size_t size,
			      sector_t sector)
{
	struct scatterlist hdr, report, status;
	struct scatterlist *sgs[] = { &hdr, &report, &status };
	int err;

	query->out_hdr.type = cpu_to_virtio32(vblk->vdev,
					      VIRTIO_BLK_T_ZONE_REPORT);
	query->out_hdr.ioprio = 0;
	query->out_hdr.sector = cpu_to_virtio64(vblk->vdev, sector);
	query->status = VIRTBLK_STATUS_UNWRITTEN;
	sg_init_one(&hdr, &query->out_hdr, sizeof(query->out_hdr));
	sg_init_one(&report, &query->report,
		    size - offsetof(struct virtblk_zone_query, report));
	sg_init_one(&status, &query->status, sizeof(query->status));

	if (virtqueue_add_sgs(vq, sgs, 1, 2, query, GFP_NOIO))
		return -ENOMEM;
	virtqueue_kick(vq);
	err = virtblk_await_query(vblk, vq);
	if (err) {
		/* The device writes to the buffer until it is reset. */
		virtblk_reset_device(vblk->vdev);
		virtqueue_detach_unused_buf(vq);
		return err;
	}
	return query->status == VIRTIO_BLK_S_OK ? 0 : -EIO;
}

/*
 * The write pointer of the zone of a requeued write.  The block layer has one write to
 * a zone in flight at a time.
 */
static sector_t virtblk_write_pointer(struct request *req,
				      const struct blk_zone *zone)
{
	sector_t end = blk_rq_pos(req) + blk_rq_sectors(req);

	switch (zone->cond) {
	case BLK_ZONE_COND_IMP_OPEN:
	case BLK_ZONE_COND_EXP_OPEN:
	case BLK_ZONE_COND_CLOSED:
		return zone->wp;
	case BLK_ZONE_COND_FULL:
		/* A finish may have preceded the write, unless the write fills the zone. */
		if (end == zone->start + zone->capacity)
			return end;
		fallthrough;
	default:
		return blk_rq_pos(req);
	}
}

/*
 * Complete the part of a write that the device has executed, and requeue the rest.  An
 * append that the block layer emulates fails if only a part was executed.
 */
static void virtblk_settle_zone_write(struct virtio_blk *vblk,
				      struct request *req, sector_t wp)
{
	u32 granularity = vblk->config.lim.zone_write_granularity;
	sector_t sector = blk_rq_pos(req);

	list_del_init(&req->queuelist);
	if (wp >= sector + blk_rq_sectors(req)) {
		virtblk_end_request(req, BLK_STS_OK);
		return;
	}
	wp = round_down(wp, max(granularity >> SECTOR_SHIFT, 1U));
	if (wp > sector)
		blk_update_request(req, BLK_STS_OK,
				   (wp - sector) << SECTOR_SHIFT);
	blk_mq_requeue_request(req, false);
}

/**
 * virtblk_settle_zone_writes() - complete the zone writes that the device has executed
 * @vblk: the disk, its device ready again, its queues without virtqueues yet
 *
 * A sequential zone accepts a write only at its write pointer.  If the device has
 * executed a write before a reset, and the driver sends it again, it fails at the
 * advanced pointer (VIRTIO 1.4, 5.2.6.2), although its data is on the disk.
 *
 * Context: may sleep, under memalloc_noio_save().
 *
 * Return: 0; -ENOMEM; or the error for which the device must be reset again.
 */
int virtblk_settle_zone_writes(struct virtio_blk *vblk)
{
	struct list_head *writes = &vblk->recovery.zone_writes;
	u32 zone_sectors = vblk->config.lim.chunk_sectors;
	size_t size = sizeof(struct virtblk_zone_query) +
		      sizeof(struct virtio_blk_zone_descriptor);
	struct virtblk_zone_query *query;
	struct request *req, *next;
	struct virtqueue *vq;
	int err = 0;

	if (list_empty(writes))
		return 0;
	query = kzalloc(size, GFP_NOIO);
	if (!query)
		return -ENOMEM;

	/* The virtqueue for administration, which some transports have, may come first. */
	virtio_device_for_each_vq(vblk->vdev, vq)
		if (!vq->index)
			break;
	list_for_each_entry_safe(req, next, writes, queuelist) {
		sector_t start = round_down(blk_rq_pos(req), zone_sectors);
		sector_t wp = blk_rq_pos(req);
		struct blk_zone zone;

		err = virtblk_query_zone(vblk, vq, query, size, start);
		if (err && err != -EIO)
			break;
		/* Without a report the write is sent again, and the device decides. */
		if (!err && !virtblk_parse_zone(vblk, start,
						min_t(u64, zone_sectors,
						      get_capacity(vblk->disk) - start),
						&query->report.zones[0], &zone))
			wp = virtblk_write_pointer(req, &zone);
		err = 0;
		virtblk_settle_zone_write(vblk, req, wp);
	}
	kfree(query);
	return err;
}

/* The number of zones in the block layer's table. */
static u64 virtblk_count_zones(struct virtio_blk *vblk, u64 capacity)
{
	return DIV_ROUND_UP_SECTOR_T(capacity, vblk->config.lim.chunk_sectors);
}

/**
 * virtblk_check_nr_zones() - check that a disk has not too many zones
 * @vblk: the disk, with or without zones
 * @capacity: the capacity to check, in sectors
 *
 * The block layer keeps some bytes for each zone, and reads all zones.
 *
 * Return: 0; or -EFBIG, which the function logs.
 */
int virtblk_check_nr_zones(struct virtio_blk *vblk, u64 capacity)
{
	if (!blk_queue_is_zoned(vblk->disk->queue) ||
	    virtblk_count_zones(vblk, capacity) <= VIRTBLK_MAX_ZONES)
		return 0;

	dev_err_ratelimited(&vblk->vdev->dev, "[%s] %llu sectors in zones of %u are more than %u zones; give the device larger zones\n",
			    vblk->disk->disk_name, capacity,
			    vblk->config.lim.chunk_sectors, VIRTBLK_MAX_ZONES);
	return -EFBIG;
}

/**
 * virtblk_revalidate_zones() - have the block layer read all zones
 * @vblk: the disk, with or without zones or a capacity
 *
 * When a disk has lost zones, the block layer's table keeps them until the disk has as
 * many again: writes to them may be in flight, and the block layer would note their
 * completion beyond the end of a shorter table.
 *
 * Context: may sleep; the device answers requests.
 *
 * Return: 0 or the block layer's error.
 */
int virtblk_revalidate_zones(struct virtio_blk *vblk)
{
	struct gendisk *disk = vblk->disk;
	struct queue_limits lim;
	int err;

	if (!blk_queue_is_zoned(disk->queue) || !get_capacity(disk) ||
	    virtblk_count_zones(vblk, get_capacity(disk)) < disk_nr_zones(disk))
		return 0;

	/* The block layer has dropped limits that a smaller disk could not reach. */
	lim = queue_limits_start_update(disk->queue);
	lim.max_open_zones = vblk->config.lim.max_open_zones;
	lim.max_active_zones = vblk->config.lim.max_active_zones;
	err = queue_limits_commit_update_frozen(disk->queue, &lim);
	return err ?: blk_revalidate_disk_zones(disk);
}
