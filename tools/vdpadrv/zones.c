// SPDX-License-Identifier: GPL-2.0
/*
 * Requests to a device with zones, and the status that VIRTIO 1.4, 5.2.6 demands for each
 * of them.  The device needs two conventional zones or more at its beginning, sequential
 * ones whose capacity is less than their size, and a limit of open zones.
 *
 * If one of the last zones is read-only or offline, it must refuse requests as such.
 */

#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#include "vdpadrv.h"

/* Newer than Linux 6.1 */
enum {
	F_ZONED = 17,
	T_APPEND = 15, T_REPORT = 16, T_OPEN = 18, T_CLOSE = 20, T_FINISH = 22, T_RESET = 24,
	T_RESET_ALL = 26,
	S_OK = 0, S_IOERR = 1, S_UNSUPP = 2, S_INVALID = 3, S_UNALIGNED = 4, S_OPEN = 5,
	S_ACTIVE = 6,
	EMPTY = 1, EXPLICIT = 3, CLOSED = 4, READONLY = 13, FULL = 14, OFFLINE = 15,
};

#define CONFIG_AT	72	/* of struct virtio_blk_config */
#define MAX_ZONES	64
#define TAIL		9	/* bytes after the data of an append */

struct zoned {
	uint32_t zone_sectors, max_open, max_active, max_append, granularity;
	uint8_t model, unused[3];
};

struct zone {
	uint64_t cap, start, wp;
	uint8_t type, state, unused[38];
};

struct report {
	uint64_t nr;
	uint8_t unused[56];
	struct zone zones[MAX_ZONES];
};

static struct zoned zoned;
static uint32_t block;		/* sectors of the smallest write */
static struct report *report;

static uint32_t data_at(void)
{
	return DATA + 0x1000;
}

static void read_config(struct dev *d)
{
	struct {
		struct vhost_vdpa_config head;
		struct zoned zoned;
	} buf = { .head = { .off = CONFIG_AT, .len = sizeof(buf.zoned) } };

	IOCTL(d, VHOST_VDPA_GET_CONFIG, &buf);
	zoned = buf.zoned;
	if (!(d->features & F(F_ZONED)) || zoned.model != 1)
		fail("features %#llx, zoned model %u: no zones that the host manages",
		     (unsigned long long)d->features, zoned.model);
	if (d->features & (F(VIRTIO_BLK_F_DISCARD) | F(VIRTIO_BLK_F_SECURE_ERASE)))
		fail("features %#llx: zones, and a discard or secure erase",
		     (unsigned long long)d->features);
	block = zoned.granularity / 512;
	if (!block || !zoned.max_open || zoned.max_append < block ||
	    (zoned.max_active && zoned.max_active <= zoned.max_open))
		fail("zones of %u sectors, granularity %u, append %u, open %u, active %u",
		     zoned.zone_sectors, zoned.granularity, zoned.max_append, zoned.max_open,
		     zoned.max_active);
	/* check_data() needs the sectors twice; another block makes an append too long. */
	if (((uint64_t)zoned.max_append + 16 * block) * 2 > (mem_bytes - data_at() - TAIL) / 512)
		fail("appends of %u sectors, granularity %u: too long for %u bytes of memory",
		     zoned.max_append, zoned.granularity, mem_bytes);
}

/* Wait for the only request on queue 0; returns its used length. */
static uint32_t finish(struct dev *d, const char *what, uint8_t status)
{
	struct queue *q = &d->queues[0];
	uint32_t len;

	kick(q, false);
	if (!wait_used(q, hang_ms))
		fail("%s: hang; device status %#x", what, get_status(d));
	take_used(q, &len);
	if (*status_of(q, 0) != status)
		fail("%s: status %u, expected %u", what, *status_of(q, 0), status);
	q->done++;
	return len;
}

/* A request with one buffer, or without if @len is 0; returns the used length. */
static uint32_t request(struct dev *d, const char *what, uint32_t type, uint64_t sector,
			uint32_t len, uint8_t status)
{
	struct queue *q = &d->queues[0];
	bool write = type == VIRTIO_BLK_T_IN || type == T_REPORT;
	struct vring_desc list[MAX_LIST] = { header(q, 0, type, sector) };
	unsigned int n = 1;

	if (len)
		list[n++] = part(data_at(), len, write);
	list[n++] = status_desc(q, 0);
	put_chain(q, 0, list, n);
	return finish(d, what, status);
}

/* A pattern that says which sector it belongs to. */
static void fill(uint32_t at, uint64_t first, uint32_t sectors)
{
	uint64_t words[64];
	uint32_t i, k;

	for (i = 0; i < sectors; i++) {
		for (k = 0; k < 64; k++)
			words[k] = (first + i) * 1000003 + k;
		memcpy(mem + at + i * 512, words, 512);
	}
}

static void check_data(struct dev *d, const char *what, uint64_t sector, uint64_t first,
		       uint32_t sectors)
{
	uint32_t at = data_at(), bytes = sectors * 512, copy = at + bytes;

	memset(mem + at, 0, bytes);
	if (request(d, what, VIRTIO_BLK_T_IN, sector, bytes, S_OK) != bytes + 1)
		fail("%s: wrong used length of a read", what);
	fill(copy, first, sectors);
	if (memcmp(mem + at, mem + copy, bytes))
		fail("%s: %u sectors from %llu on are not what was written", what, sectors,
		     (unsigned long long)sector);
}

/* Reports */

static void read_report(struct dev *d, const char *what, uint64_t sector, unsigned int most,
			uint32_t more)
{
	uint32_t len = 64 + most * sizeof(struct zone) + more, used, want;

	memset(mem + data_at(), 0xff, len);
	report = (void *)(mem + data_at());
	used = request(d, what, T_REPORT, sector, len, S_OK);
	want = 64 + report->nr * sizeof(struct zone);
	/* The status byte follows immediately, or there is a gap. */
	want += want == len;
	if (report->nr > most || used != want)
		fail("%s: %llu zones in %u bytes, used length %u, expected %u", what,
		     (unsigned long long)report->nr, len, used, want);
}

static struct zone zone_at(struct dev *d, uint64_t sector)
{
	read_report(d, "report on a zone", sector, 1, 0);
	if (report->nr != 1)
		fail("no report on the zone at %llu", (unsigned long long)sector);
	return report->zones[0];
}

static void expect_state(struct dev *d, const char *what, uint64_t sector, uint8_t state)
{
	struct zone zone = zone_at(d, sector);

	if (zone.state != state)
		fail("%s: zone at %llu has state %u, expected %u", what,
		     (unsigned long long)sector, zone.state, state);
}

static void check_reports(struct dev *d)
{
	uint64_t capacity = d->config.capacity, size = zoned.zone_sectors, i;
	unsigned int nr = (capacity + size - 1) / size;

	if (nr > MAX_ZONES)
		fail("%u zones, at most %u are possible", nr, MAX_ZONES);
	read_report(d, "report on all zones", 0, nr, 0);
	if (report->nr != nr)
		fail("report on %llu of %u zones", (unsigned long long)report->nr, nr);
	for (i = 0; i < nr; i++)
		if (report->zones[i].start != i * size || report->zones[i].cap > size ||
		    report->zones[i].type > 2)
			fail("zone %llu: start %llu, capacity %llu, type %u",
			     (unsigned long long)i, (unsigned long long)report->zones[i].start,
			     (unsigned long long)report->zones[i].cap, report->zones[i].type);
	read_report(d, "report with room for more", 0, MAX_ZONES, 17);
	if (report->nr != nr)
		fail("report on %llu of %u zones", (unsigned long long)report->nr, nr);
	read_report(d, "report without room for a zone", 0, 0, 63);
	if (report->nr)
		fail("report on %llu zones without room", (unsigned long long)report->nr);
	read_report(d, "report from the middle of a zone", size * 3 + size / 2, 2, 0);
	if (report->nr != 2 || report->zones[0].start != size * 3)
		fail("report from the middle of a zone begins elsewhere");
	request(d, "report without room for a header", T_REPORT, 0, 63, S_INVALID);
	request(d, "report without a buffer", T_REPORT, 0, 0, S_INVALID);
	request(d, "report from the capacity on", T_REPORT, capacity, 4096, S_INVALID);
	request(d, "report from sector 2^64-1 on", T_REPORT, ~0ULL, 4096, S_INVALID);
}

/* Reads and writes */

static void check_writes(struct dev *d, uint64_t start)
{
	uint64_t size = zoned.zone_sectors, cap = zone_at(d, start).cap;
	uint32_t len = block * 512;

	fill(data_at(), start, 8 * block);
	request(d, "write to the beginning", VIRTIO_BLK_T_OUT, start, 8 * len, S_OK);
	request(d, "write behind the pointer", VIRTIO_BLK_T_OUT, start, len, S_UNALIGNED);
	request(d, "write across the pointer", VIRTIO_BLK_T_OUT, start + 7 * block, 2 * len,
		S_UNALIGNED);
	request(d, "write before the pointer", VIRTIO_BLK_T_OUT, start + 9 * block, len,
		S_UNALIGNED);
	if (block > 1)
		request(d, "write of less than a block", VIRTIO_BLK_T_OUT, start + 8 * block, 512,
			S_UNALIGNED);
	request(d, "write beyond the zone's capacity", VIRTIO_BLK_T_OUT, start + cap - block,
		2 * len, S_INVALID);
	request(d, "write to the next zone", VIRTIO_BLK_T_OUT, start + size - block, 2 * len,
		S_INVALID);
	request(d, "read to the next zone", VIRTIO_BLK_T_IN, start + size - block, 2 * len,
		S_INVALID);
	request(d, "read from a conventional zone to this", VIRTIO_BLK_T_IN, 2 * size - block,
		2 * len, S_INVALID);
	request(d, "write between conventional zones", VIRTIO_BLK_T_OUT, size - block, 2 * len,
		S_OK);
	request(d, "write at the capacity", VIRTIO_BLK_T_OUT, d->config.capacity, len, S_IOERR);
	/* None of them has done any harm. */
	fill(data_at(), start + 8 * block, 8 * block);
	request(d, "write to the pointer", VIRTIO_BLK_T_OUT, start + 8 * block, 8 * len, S_OK);
	check_data(d, "data of writes", start, start, 16 * block);
	request(d, "discard, not offered", VIRTIO_BLK_T_DISCARD, 0, 16, S_UNSUPP);
}

/* Appends */

/* The sector and the status are in @pieces buffers; returns the sector. */
static uint64_t append(struct dev *d, const char *what, uint64_t zone, uint32_t at,
		       uint32_t len, unsigned int pieces, uint8_t status)
{
	struct queue *q = &d->queues[0];
	struct vring_desc list[MAX_LIST] = { header(q, 0, T_APPEND, zone) };
	struct vring_desc last = status_desc(q, 0);
	/* The bytes before the status byte of slot 0 are free. */
	uint64_t tail = last.addr - (TAIL - 1), sector = ~0ULL;
	unsigned int n = 1, i, done = 0, each;
	uint8_t *to = (uint8_t *)status_of(q, 0) - (TAIL - 1);
	uint32_t used;

	memset(to, 0xff, TAIL - 1);
	if (len)
		list[n++] = part(at, len, false);
	for (i = 0; i < pieces; i++, n++) {
		each = i + 1 == pieces ? TAIL - done : (TAIL - 1) / (pieces - 1 ? pieces - 1 : 1);
		list[n] = last;
		list[n].addr = tail + done;
		list[n].len = each;
		done += each;
	}
	put_chain(q, 0, list, n);
	used = finish(d, what, status);
	if (status)
		return 0;
	memcpy(&sector, to, sizeof(sector));
	if (used != TAIL)
		fail("%s: used length %u, expected %u", what, used, TAIL);
	return sector;
}

static void check_append(struct dev *d, const char *what, uint64_t zone, uint64_t *wp,
			 uint32_t shift, uint32_t sectors, unsigned int pieces)
{
	uint64_t sector;

	fill(data_at() + shift, *wp, sectors);
	sector = append(d, what, zone, data_at() + shift, sectors * 512, pieces, S_OK);
	if (sector != *wp)
		fail("%s: sector %llu, expected %llu", what, (unsigned long long)sector,
		     (unsigned long long)*wp);
	check_data(d, what, *wp, *wp, sectors);
	*wp += sectors;
}

static void check_appends(struct dev *d, uint64_t zone)
{
	uint64_t wp = zone, end = zone + zone_at(d, zone).cap;
	uint32_t most = zoned.max_append, at = data_at(), len = block * 512;
	unsigned int n;

	for (n = 1; n <= TAIL; n *= 3)
		check_append(d, "append", zone, &wp, 0, block, n);
	check_append(d, "append, status in a buffer of its own", zone, &wp, 0, 2 * block, 2);
	check_append(d, "append from an odd address", zone, &wp, 3, 3 * block, 1);
	check_append(d, "the longest append", zone, &wp, 0, most, 1);
	check_append(d, "the longest append, from an odd address", zone, &wp, 1, most, TAIL);
	append(d, "append that is too long", zone, at, (most + block) * 512, 1, S_INVALID);
	append(d, "append of less than a block", zone, at, 512, 1,
	       block > 1 ? S_UNALIGNED : S_OK);
	wp += block > 1 ? 0 : 1;
	append(d, "append to a conventional zone", 0, at, len, 1, S_INVALID);
	append(d, "append to the middle of a zone", zone + block, at, len, 1, S_INVALID);
	append(d, "append at the capacity", d->config.capacity, at, len, 1, S_IOERR);
	append(d, "append without data", zone, at, 0, 1, S_IOERR);
	append(d, "append from memory that is not shared", zone, mem_bytes + 0x1000, len, 1,
	       S_IOERR);
	request(d, "append without room for a sector", T_APPEND, zone, len, S_IOERR);
	while (end - wp >= most)
		check_append(d, "append", zone, &wp, 0, most, 1);
	append(d, "append that is longer than the rest", zone, at, most * 512, 1, S_INVALID);
	if (end > wp)
		check_append(d, "append of the rest", zone, &wp, 0, end - wp, 1);
	expect_state(d, "zone that appends have filled", zone, FULL);
	append(d, "append to a full zone", zone, at, len, 1, S_INVALID);
}

/* Changes of zones */

static void check_changes(struct dev *d, uint64_t zone)
{
	static const uint32_t types[] = { T_OPEN, T_CLOSE, T_FINISH, T_RESET };
	uint32_t len = block * 512, i;

	for (i = 0; i < LENGTH(types); i++) {
		request(d, "change of a conventional zone", types[i], 0, 0, S_INVALID);
		request(d, "change in the middle of a zone", types[i], zone + 8, 0, S_INVALID);
		request(d, "change at the capacity", types[i], d->config.capacity, 0, S_INVALID);
		request(d, "change at sector 2^64-1", types[i], ~0ULL, 0, S_INVALID);
	}
	request(d, "close of an empty zone", T_CLOSE, zone, 0, S_INVALID);
	request(d, "open", T_OPEN, zone, 0, S_OK);
	expect_state(d, "open", zone, EXPLICIT);
	request(d, "second open", T_OPEN, zone, 0, S_OK);
	request(d, "close", T_CLOSE, zone, 0, S_OK);
	expect_state(d, "close of a zone without data", zone, EMPTY);
	request(d, "write", VIRTIO_BLK_T_OUT, zone, len, S_OK);
	request(d, "close", T_CLOSE, zone, 0, S_OK);
	expect_state(d, "close", zone, CLOSED);
	request(d, "finish", T_FINISH, zone, 0, S_OK);
	expect_state(d, "finish", zone, FULL);
	request(d, "second finish", T_FINISH, zone, 0, S_OK);
	request(d, "open of a full zone", T_OPEN, zone, 0, S_INVALID);
	request(d, "close of a full zone", T_CLOSE, zone, 0, S_INVALID);
	request(d, "write to a full zone", VIRTIO_BLK_T_OUT, zone + block, len, S_INVALID);
	request(d, "reset", T_RESET, zone, 0, S_OK);
	expect_state(d, "reset", zone, EMPTY);
	request(d, "write after a reset", VIRTIO_BLK_T_OUT, zone, len, S_OK);
}

/* As many zones are active as the device allows; the first ones are open. */
static void check_active(struct dev *d, uint64_t first)
{
	uint64_t size = zoned.zone_sectors, next;
	uint32_t len = block * 512, i;

	for (i = 0; i < zoned.max_active; i++) {
		next = first + i * size;
		request(d, "write", VIRTIO_BLK_T_OUT, next, len, S_OK);
		request(d, "close", T_CLOSE, next, 0, S_OK);
	}
	next = first + i * size;
	request(d, "open of one more active", T_OPEN, next, 0, S_ACTIVE);
	request(d, "write to one more active", VIRTIO_BLK_T_OUT, next, len, S_ACTIVE);
	append(d, "append to one more active", next, data_at(), len, 1, S_ACTIVE);
	request(d, "open of a closed zone", T_OPEN, first, 0, S_OK);
	request(d, "reset of one zone", T_RESET, first, 0, S_OK);
	request(d, "write to a zone that refused", VIRTIO_BLK_T_OUT, next, len, S_OK);
	request(d, "reset of one zone", T_RESET, next, 0, S_OK);
}

/* As many zones are open as the device allows. */
static void check_resources(struct dev *d, uint64_t first)
{
	uint64_t size = zoned.zone_sectors, next;
	uint32_t len = block * 512, i;

	request(d, "reset of all zones", T_RESET_ALL, 0, 0, S_OK);
	for (i = 0; i < zoned.max_open; i++)
		request(d, "open", T_OPEN, first + i * size, 0, S_OK);
	next = first + i * size;
	request(d, "open of one more", T_OPEN, next, 0, S_OPEN);
	request(d, "write to one more", VIRTIO_BLK_T_OUT, next, len, S_OPEN);
	append(d, "append to one more", next, data_at(), len, 1, S_OPEN);
	request(d, "reset of one zone", T_RESET, first, 0, S_OK);
	/* The block layer has not lost the write pointer of the zone that refused. */
	request(d, "write to a zone that refused", VIRTIO_BLK_T_OUT, next, len, S_OK);
	request(d, "reset of all zones", T_RESET_ALL, 0, 0, S_OK);
	if (zoned.max_active)
		check_active(d, first);
	request(d, "reset of all zones", T_RESET_ALL, 0, 0, S_OK);
	expect_state(d, "reset of all zones", next, EMPTY);
}

/* Zones that have failed */

static void check_failed(struct dev *d, uint64_t zone, uint8_t state)
{
	uint32_t len = block * 512;

	request(d, "read of a failed zone", VIRTIO_BLK_T_IN, zone, len,
		state == OFFLINE ? S_INVALID : S_OK);
	request(d, "write to a failed zone", VIRTIO_BLK_T_OUT, zone, len, S_INVALID);
	append(d, "append to a failed zone", zone, data_at(), len, 1, S_INVALID);
	request(d, "open of a failed zone", T_OPEN, zone, 0, S_INVALID);
	request(d, "reset of a failed zone", T_RESET, zone, 0, S_INVALID);
	expect_state(d, "failed zone", zone, state);
}

/* Many in flight */

/*
 * Make all slots of queue 0 available at once.  A third of them has an odd address, and is
 * copied.  Writes succeed if the device keeps their order.
 */
static void submit_many(struct dev *d, uint32_t type, uint64_t zone, uint32_t sectors)
{
	struct queue *q = &d->queues[0];
	struct vring_desc list[MAX_LIST];
	unsigned int s, n;
	uint32_t at;

	for (s = 0; s < d->depth; s++) {
		n = 0;
		at = buffer_of(q, s) + (s % 3 == 1);
		fill(at, zone + s * sectors, sectors);
		list[n++] = header(q, s, type, type == T_APPEND ? zone : zone + s * sectors);
		list[n++] = part(at, sectors * 512, false);
		/* The other queues' buffers are free. */
		if (type == T_APPEND)
			list[n++] = part(buffer_of(&d->queues[1], s), 8, true);
		list[n++] = status_desc(q, s);
		put_chain(q, s, list, n);
	}
	kick(q, false);
	while (q->in_flight) {
		must_wait(q);
		while (has_used(q)) {
			uint32_t len;

			s = take_used(q, &len);
			if (*status_of(q, s))
				fail("request %u of %u to the zone at %llu: type %u, status %u",
				     s, d->depth, (unsigned long long)zone, type,
				     *status_of(q, s));
			q->done++;
		}
	}
}

static void check_many(struct dev *d, uint64_t zone)
{
	uint32_t sectors = 4 * block;
	uint64_t sector, all = 0;
	unsigned int s;

	request(d, "reset", T_RESET, zone, 0, S_OK);
	submit_many(d, VIRTIO_BLK_T_OUT, zone, sectors);
	check_data(d, "writes in flight", zone, zone, d->depth * sectors);

	request(d, "reset", T_RESET, zone, 0, S_OK);
	submit_many(d, T_APPEND, zone, sectors);
	for (s = 0; s < d->depth; s++) {
		memcpy(&sector, mem + buffer_of(&d->queues[1], s), sizeof(sector));
		sector -= zone;
		if (sector % sectors || sector / sectors >= d->depth ||
		    all & F(sector / sectors))
			fail("append %u of %u: sector %llu of the zone", s, d->depth,
			     (unsigned long long)sector);
		all |= F(sector / sectors);
		check_data(d, "appends in flight", zone + sector, zone + s * sectors, sectors);
	}
}

/* VIRTIO 1.4, 5.2.5.2: a driver that does not accept the zones gets no device. */
static void check_refusal(struct dev *d)
{
	uint64_t features = d->features & ~F(F_ZONED);
	uint8_t status = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER;

	set_status(d, 0);
	set_status(d, status);
	if (!ioctl(d->fd, VHOST_SET_FEATURES, &features))
		fail("the device accepts a driver without ZONED");
	set_status(d, status | VIRTIO_CONFIG_S_FEATURES_OK);
	if (get_status(d) & VIRTIO_CONFIG_S_FEATURES_OK)
		fail("FEATURES_OK without ZONED");
}

void run_zones(struct dev *d)
{
	struct zone last[2];
	unsigned int mode, i;
	uint64_t first;

	read_config(d);
	first = 2 * zoned.zone_sectors;
	check_refusal(d);
	for (mode = 0; mode < 4; mode++) {
		d->packed = mode & 1;
		d->indirect = mode & 2;
		start_dev(d, NULL, true);
		request(d, "reset of all zones", T_RESET_ALL, 0, 0, S_OK);
		check_reports(d);
		check_writes(d, first);
		check_appends(d, first + zoned.zone_sectors);
		check_changes(d, first + 2 * zoned.zone_sectors);
		check_many(d, first + 3 * zoned.zone_sectors);
		check_resources(d, first);
		for (i = 0; i < 2; i++) {
			last[i] = zone_at(d, d->config.capacity - 1 - i * zoned.zone_sectors);
			if (last[i].state >= READONLY && last[i].state != FULL)
				check_failed(d, last[i].start, last[i].state);
		}
	}
	printf("ok zones: %llu requests, last states %u %u\n",
	       (unsigned long long)total(d, false), last[1].state, last[0].state);
}
