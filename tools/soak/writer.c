// SPDX-License-Identifier: GPL-2.0
/*
 * Write records, report which of them are durable, and check them later:
 *
 *	writer write TARGET OFFSET MARKS SEED NUMBER
 *	writer check TARGET OFFSET SEED NUMBER ACKED
 *	writer plan SEED NUMBER COUNT
 *
 * TARGET is a disk or a file; a writer uses AREA sectors of it from OFFSET (in
 * bytes) on.  SEED and the writer's NUMBER determine place and length of each
 * record; "plan" prints a line with first sector and number of sectors for each.
 *
 * "write" does not end.  When the kernel has confirmed that all records up to one
 * are durable, it prints NUMBER and the number of that record, and writes the same
 * to a sector of the disk MARKS.  Only then it writes the next records, BATCH at
 * most.  The way of writing depends on NUMBER: see "enum way".
 *
 * Each sector of a record has the number of the record, its place, and a checksum.
 * "check" reads each sector that a record up to ACKED covers.  The sector must have
 * the newest of these records, or a newer one; any other content is valid only if a
 * newer record may have been in flight.  It prints how many sectors it has checked,
 * and how many of them are lost.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#define SECTOR		512
#define AREA		2048
#define MAX_SECTORS	64
#define BATCH		8
#define MARK_DISTANCE	4096
#define MAX_TOLD	5

#define RECORD_MAGIC	0x64726f6365527642ULL
#define MARK_MAGIC	0x00006b72614d7642ULL

enum way {
	DIRECT_FDATASYNC,
	BUFFERED_FSYNC,
	DIRECT_DSYNC,		/* each record by itself */
	BUFFERED_DSYNC,		/* each record by itself */
	WAYS
};

struct sector {
	uint64_t magic;
	uint32_t seed;
	uint32_t number;
	uint64_t record;
	uint64_t place;
	uint8_t filling[SECTOR - 36];
	uint32_t crc;
};

struct writer {
	int fd;
	off_t offset;
	uint32_t seed;
	uint32_t number;
};

/* Where a record goes. */
struct extent {
	unsigned int first;
	unsigned int count;
};

static int fail(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	return 1;
}

/* Return a pseudo-random number that depends on the value only (splitmix64). */
static uint64_t scramble(uint64_t value)
{
	value += 0x9e3779b97f4a7c15ULL;
	value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9ULL;
	value = (value ^ value >> 27) * 0x94d049bb133111ebULL;
	return value ^ value >> 31;
}

static uint64_t choose(const struct writer *writer, uint64_t record,
		       unsigned int what)
{
	uint64_t value = scramble((uint64_t)writer->seed << 32 | writer->number);

	return scramble(scramble(value ^ record) ^ what);
}

static struct extent plan(const struct writer *writer, uint64_t record)
{
	struct extent extent;

	extent.count = 1 + choose(writer, record, 0) % MAX_SECTORS;
	extent.first = choose(writer, record, 1) % (AREA - extent.count + 1);
	return extent;
}

/* The same checksum as zlib's crc32(). */
static uint32_t checksum(const struct sector *sector)
{
	static uint32_t table[256];
	const uint8_t *data = (const uint8_t *)sector;
	uint32_t crc = ~0U;

	for (uint32_t byte = 0; !table[255] && byte < 256; byte++) {
		table[byte] = byte;
		for (int bit = 0; bit < 8; bit++)
			table[byte] = table[byte] >> 1 ^
				      (table[byte] & 1 ? 0xedb88320 : 0);
	}
	for (size_t at = 0; at < SECTOR - sizeof(sector->crc); at++)
		crc = crc >> 8 ^ table[(crc ^ data[at]) & 0xff];
	return ~crc;
}

static void fill(struct sector *sector, const struct writer *writer,
		 uint64_t magic, uint64_t record, uint64_t place)
{
	sector->magic = magic;
	sector->seed = writer->seed;
	sector->number = writer->number;
	sector->record = record;
	sector->place = place;
	memset(sector->filling, scramble(record ^ place),
	       sizeof(sector->filling));
	sector->crc = checksum(sector);
}

static bool intact(const struct sector *sector, const struct writer *writer,
		   uint64_t place)
{
	return sector->magic == RECORD_MAGIC && sector->seed == writer->seed &&
	       sector->number == writer->number && sector->place == place &&
	       sector->crc == checksum(sector);
}

/* Writing */

static int write_record(const struct writer *writer, uint64_t record,
			struct sector *sectors, int flags)
{
	struct extent extent = plan(writer, record);
	struct iovec piece = { sectors, extent.count * SECTOR };
	off_t at = writer->offset + (off_t)extent.first * SECTOR;
	ssize_t done;

	for (unsigned int n = 0; n < extent.count; n++)
		fill(&sectors[n], writer, RECORD_MAGIC, record,
		     extent.first + n);
	done = pwritev2(writer->fd, &piece, 1, at, flags);
	if (done == (ssize_t)piece.iov_len)
		return 0;
	errno = done < 0 ? errno : EIO;
	return -1;
}

/* Write some records and make them durable; return the number of the last one. */
static uint64_t write_batch(const struct writer *writer, uint64_t record,
			    struct sector *sectors)
{
	enum way way = writer->number % WAYS;
	uint64_t last = record;
	int flags = 0;

	if (way == DIRECT_DSYNC || way == BUFFERED_DSYNC)
		flags = RWF_DSYNC;
	else
		last += choose(writer, record, 2) % BATCH;
	for (; record <= last; record++)
		if (write_record(writer, record, sectors, flags))
			return 0;
	if (way == DIRECT_FDATASYNC && fdatasync(writer->fd))
		return 0;
	if (way == BUFFERED_FSYNC && fsync(writer->fd))
		return 0;
	return last;
}

static int acknowledge(const struct writer *writer, int marks, uint64_t record,
		       struct sector *mark)
{
	dprintf(STDOUT_FILENO, "%u %llu\n", writer->number,
		(unsigned long long)record);
	fill(mark, writer, MARK_MAGIC, record, 0);
	return pwrite(marks, mark, SECTOR, writer->number * MARK_DISTANCE) ==
	       SECTOR ? 0 : -1;
}

/* The file's name must be durable as well. */
static int sync_directory(const char *path)
{
	char *directory = strdup(path);
	char *slash = directory ? strrchr(directory, '/') : NULL;
	int fd, error;

	if (!slash) {
		free(directory);
		errno = EINVAL;
		return -1;
	}
	slash[1] = 0;
	fd = open(directory, O_RDONLY | O_DIRECTORY);
	free(directory);
	if (fd < 0)
		return -1;
	error = fsync(fd);
	close(fd);
	return error;
}

static int write_records(struct writer *writer, const char *target,
			 const char *marks_path)
{
	enum way way = writer->number % WAYS;
	bool direct = way == DIRECT_FDATASYNC || way == DIRECT_DSYNC;
	struct sector *sectors;
	int marks;

	writer->fd = open(target, O_RDWR | O_CREAT | (direct ? O_DIRECT : 0),
			  0644);
	if (writer->fd < 0 || sync_directory(target))
		return fail(target);
	marks = open(marks_path, O_WRONLY | O_DIRECT);
	if (marks < 0)
		return fail(marks_path);
	if (posix_memalign((void **)&sectors, 4096, MAX_SECTORS * SECTOR))
		return fail("memory");
	for (uint64_t record = 1;; record++) {
		record = write_batch(writer, record, sectors);
		if (!record)
			return fail(target);
		if (acknowledge(writer, marks, record, sectors))
			return fail(marks_path);
	}
}

/* Checking */

/* Read the area; anything beyond the end of the file is zero. */
static int read_area(const char *target, off_t offset, struct sector *area)
{
	char *data = (char *)area;
	size_t done = 0;
	ssize_t got;
	int fd;

	memset(area, 0, AREA * SECTOR);
	fd = open(target, O_RDONLY);
	if (fd < 0)
		return errno == ENOENT ? 0 : -1;
	do {
		got = pread(fd, data + done, AREA * SECTOR - done,
			    offset + done);
		done += got > 0 ? got : 0;
	} while (got > 0);
	close(fd);
	return got ? -1 : 0;
}

/* Note for each sector the newest of some records. */
static void note(const struct writer *writer, uint64_t first, uint64_t last,
		 uint64_t *newest)
{
	for (uint64_t record = first; record <= last; record++) {
		struct extent extent = plan(writer, record);

		for (unsigned int n = 0; n < extent.count; n++)
			newest[extent.first + n] = record;
	}
}

static uint64_t newest_found(const struct writer *writer,
			     const struct sector *area)
{
	uint64_t found = 0;

	for (unsigned int n = 0; n < AREA; n++)
		if (intact(&area[n], writer, n) && area[n].record > found)
			found = area[n].record;
	return found;
}

static int check_records(const struct writer *writer, const char *target,
			 uint64_t acked)
{
	static uint64_t wanted[AREA], coming[AREA];
	static struct sector area[AREA];
	unsigned int checked = 0, lost = 0;
	uint64_t newest;

	if (read_area(target, writer->offset, area))
		return fail(target);
	newest = newest_found(writer, area);
	note(writer, 1, acked, wanted);
	note(writer, acked + 1, (newest > acked ? newest : acked) + BATCH,
	     coming);
	for (unsigned int n = 0; n < AREA; n++) {
		bool whole = intact(&area[n], writer, n);

		if (!wanted[n])
			continue;
		checked++;
		if (whole ? area[n].record >= wanted[n] : coming[n] != 0)
			continue;
		if (lost++ < MAX_TOLD)
			printf("writer %u, sector %u: record %llu is acknowledged, "
			       "found %s %llu\n", writer->number, n,
			       (unsigned long long)wanted[n],
			       whole ? "record" : "other data, with",
			       (unsigned long long)area[n].record);
	}
	printf("checked %u lost %u\n", checked, lost);
	return 0;
}

static void print_plan(const struct writer *writer, uint64_t count)
{
	for (uint64_t record = 1; record <= count; record++) {
		struct extent extent = plan(writer, record);

		printf("%u %u\n", extent.first, extent.count);
	}
}

int main(int argc, char **argv)
{
	struct writer writer = { .fd = -1 };
	bool writes = argc == 7 && !strcmp(argv[1], "write");
	bool checks = argc == 7 && !strcmp(argv[1], "check");

	_Static_assert(sizeof(struct sector) == SECTOR, "a sector");
	if (argc == 5 && !strcmp(argv[1], "plan")) {
		writer.seed = strtoul(argv[2], NULL, 0);
		writer.number = strtoul(argv[3], NULL, 0);
		print_plan(&writer, strtoull(argv[4], NULL, 0));
		return 0;
	}
	if (!writes && !checks) {
		fprintf(stderr, "usage: see the top of writer.c\n");
		return 2;
	}
	writer.offset = strtoull(argv[3], NULL, 0);
	writer.seed = strtoul(argv[writes ? 5 : 4], NULL, 0);
	writer.number = strtoul(argv[writes ? 6 : 5], NULL, 0);
	if (writes)
		return write_records(&writer, argv[2], argv[4]);
	return check_records(&writer, argv[2], strtoull(argv[6], NULL, 0));
}
