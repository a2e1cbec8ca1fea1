// SPDX-License-Identifier: GPL-2.0
/*
 * Operations on a block device that busybox lacks or does not guarantee:
 *
 *	blkctl write DEVICE OFFSET LENGTH BLOCK		standard input, and flush
 *	blkctl read DEVICE OFFSET LENGTH BLOCK		to standard output
 *	blkctl zeroout DEVICE OFFSET LENGTH
 *	blkctl geometry DEVICE				cylinders, heads, sectors
 *
 * read and write use requests of BLOCK bytes past the page cache.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <linux/fs.h>
#include <linux/hdreg.h>

#define ALIGNMENT	4096

struct range {
	uint64_t offset;
	uint64_t length;
	uint64_t block;
};

/* Read a whole block or fail, however many pieces the pipe delivers. */
static int read_input(char *data, size_t size)
{
	return fread(data, 1, size, stdin) == size ? 0 : -1;
}

static int write_output(const char *data, size_t size)
{
	return fwrite(data, 1, size, stdout) == size ? 0 : -1;
}

static int check_whole(ssize_t done, uint64_t block)
{
	if (done < 0)
		return -1;
	errno = EIO;
	return (uint64_t)done == block ? 0 : -1;
}

static int copy(int fd, const struct range *range, int write)
{
	uint64_t end = range->offset + range->length;
	void *data;

	if (posix_memalign(&data, ALIGNMENT, range->block))
		return -1;
	for (uint64_t at = range->offset; at < end; at += range->block) {
		ssize_t done;

		if (write && read_input(data, range->block))
			return -1;
		done = write ? pwrite(fd, data, range->block, at) :
			       pread(fd, data, range->block, at);
		if (check_whole(done, range->block))
			return -1;
		if (!write && write_output(data, range->block))
			return -1;
	}
	return write ? fsync(fd) : fflush(stdout);
}

static int print_geometry(int fd)
{
	struct hd_geometry geometry;

	if (ioctl(fd, HDIO_GETGEO, &geometry))
		return -1;
	printf("%u %u %u\n", geometry.cylinders, geometry.heads,
	       geometry.sectors);
	return 0;
}

static int zero_out(int fd, const struct range *range)
{
	uint64_t words[2] = { range->offset, range->length };

	return ioctl(fd, BLKZEROOUT, words);
}

static int run(const char *verb, int fd, const struct range *range)
{
	if (!strcmp(verb, "geometry"))
		return print_geometry(fd);
	if (!strcmp(verb, "zeroout"))
		return zero_out(fd, range);
	return copy(fd, range, !strcmp(verb, "write"));
}

static uint64_t number(int argc, char **argv, int place)
{
	return place < argc ? strtoull(argv[place], NULL, 0) : 0;
}

int main(int argc, char **argv)
{
	struct range range = {
		.offset = number(argc, argv, 3),
		.length = number(argc, argv, 4),
		.block = number(argc, argv, 5),
	};
	int fd;

	if (argc < 3) {
		fprintf(stderr, "usage: see the top of blkctl.c\n");
		return 2;
	}
	fd = open(argv[2], O_RDWR | O_DIRECT);
	if (fd < 0 || run(argv[1], fd, &range)) {
		fprintf(stderr, "%s %s: %s\n", argv[1], argv[2],
			strerror(errno));
		return 1;
	}
	return 0;
}
