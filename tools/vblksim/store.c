// SPDX-License-Identifier: GPL-2.0
/*
 * The data of the device: in memory or in a file.
 *
 * Memory is an unnamed file, so that both use the same code, holes take no
 * memory, and a capacity of many TiB costs nothing until it is written.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vblksim.h"

/* the driver may see a larger capacity, but there is no data behind this */
#define STORE_MAX	(1ull << 62)

/**
 * struct store - the data
 * @fd: its file
 * @bytes: its size
 * @memory: memory instead of the user's file: nothing to flush
 * @fixed: a block device, which has a fixed size
 */
struct store {
	int fd;
	uint64_t bytes;
	bool memory;
	bool fixed;
};

static uint64_t store_bytes(uint64_t sectors)
{
	return sectors > STORE_MAX / SECTOR_SIZE ? STORE_MAX :
						   sectors * SECTOR_SIZE;
}

static int open_file(struct store *store, const char *file)
{
	struct stat st;

	store->memory = !file;
	store->fd = file ? open(file, O_RDWR | O_CREAT | O_CLOEXEC, 0644) :
			   memfd_create("vblksim", MFD_CLOEXEC);
	if (store->fd < 0 || fstat(store->fd, &st) < 0) {
		fprintf(stderr, "vblksim: cannot open %s: %s\n",
			file ? file : "memory", strerror(errno));
		return -1;
	}
	store->fixed = S_ISBLK(st.st_mode);
	if (!store->fixed && !S_ISREG(st.st_mode)) {
		fprintf(stderr,
			"vblksim: %s is neither a file nor a block device\n",
			file);
		return -1;
	}
	return 0;
}

/* extend the file to the device's size, but do not truncate it */
static int open_size(struct store *store)
{
	off_t end = lseek(store->fd, 0, SEEK_END);

	if (end < 0)
		return -1;
	if ((uint64_t)end >= store->bytes)
		return 0;
	if (store->fixed) {
		fprintf(stderr,
			"vblksim: the block device has %" PRIu64 " bytes, but the capacity needs %" PRIu64 "\n",
			(uint64_t)end, store->bytes);
		errno = ENOSPC;
		return -1;
	}
	return ftruncate(store->fd, store->bytes);
}

/**
 * store_open() - open the data
 * @file: file for the data, NULL for memory
 * @sectors: number of sectors
 *
 * Return: the store, or NULL after a message to standard error.
 */
struct store *store_open(const char *file, uint64_t sectors)
{
	struct store *store = calloc(1, sizeof(*store));

	if (!store)
		return NULL;
	store->bytes = store_bytes(sectors);
	if (open_file(store, file))
		goto fail;
	if (open_size(store)) {
		fprintf(stderr,
			"vblksim: cannot make %s %" PRIu64 " bytes long: %s\n",
			file ? file : "the memory", store->bytes,
			strerror(errno));
		goto fail;
	}
	return store;

fail:
	store_close(store);
	return NULL;
}

/**
 * store_close() - close the data
 * @store: the store, or NULL
 */
void store_close(struct store *store)
{
	if (!store)
		return;
	if (store->fd >= 0)
		close(store->fd);
	free(store);
}

/**
 * store_resize() - make the device larger or smaller
 * @store: the store
 * @sectors: the new number of sectors
 *
 * Data that is cut off is lost: it reads as zeroes if the device grows again.
 *
 * Return: 0, or -1 with errno set.
 */
int store_resize(struct store *store, uint64_t sectors)
{
	uint64_t bytes = store_bytes(sectors);

	if (store->fixed) {
		off_t end = lseek(store->fd, 0, SEEK_END);

		if (end < 0 || (uint64_t)end < bytes) {
			errno = ENOSPC;
			return -1;
		}
	} else if (ftruncate(store->fd, bytes)) {
		return -1;
	}
	store->bytes = bytes;
	return 0;
}

static bool store_has(const struct store *store, uint64_t offset, uint64_t len)
{
	if (offset <= store->bytes && len <= store->bytes - offset)
		return true;
	errno = ENXIO;
	return false;
}

/**
 * store_read() - copy data out
 * @store: the store
 * @offset: the first byte
 * @to: the destination
 * @len: number of bytes
 *
 * Return: 0, or -1 with errno set.
 */
int store_read(struct store *store, uint64_t offset, void *to, size_t len)
{
	uint8_t *p = to;

	if (!store_has(store, offset, len))
		return -1;
	while (len) {
		ssize_t got = pread(store->fd, p, len, offset);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -1;
		if (!got) {
			errno = EIO;
			return -1;
		}
		p += got;
		offset += got;
		len -= got;
	}
	return 0;
}

/**
 * store_write() - copy data in
 * @store: the store
 * @offset: the first byte
 * @from: the source
 * @len: number of bytes
 *
 * Return: 0, or -1 with errno set.
 */
int store_write(struct store *store, uint64_t offset, const void *from,
		size_t len)
{
	const uint8_t *p = from;

	if (!store_has(store, offset, len))
		return -1;
	while (len) {
		ssize_t put = pwrite(store->fd, p, len, offset);

		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0)
			return -1;
		p += put;
		offset += put;
		len -= put;
	}
	return 0;
}

static int write_zeroes(struct store *store, uint64_t offset, uint64_t len)
{
	static const uint8_t zeroes[65536];

	while (len) {
		size_t now = len < sizeof(zeroes) ? len : sizeof(zeroes);

		if (store_write(store, offset, zeroes, now))
			return -1;
		offset += now;
		len -= now;
	}
	return 0;
}

/* skip holes of memory, which already read as zeroes */
static int write_zeroes_over_data(struct store *store, uint64_t offset,
				  uint64_t len)
{
	uint64_t end = offset + len;

	while (offset < end) {
		off_t from = lseek(store->fd, offset, SEEK_DATA);
		off_t hole;

		if (from < 0)
			return errno == ENXIO ? 0 : -1;
		if ((uint64_t)from >= end)
			return 0;
		hole = lseek(store->fd, from, SEEK_HOLE);
		if (hole < 0)
			return -1;
		if ((uint64_t)hole > end)
			hole = end;
		if (write_zeroes(store, from, hole - from))
			return -1;
		offset = hole;
	}
	return 0;
}

/**
 * store_zero() - make a range read as zeroes
 * @store: the store
 * @offset: the first byte
 * @len: number of bytes
 * @unmap: free the space
 *
 * Return: 0, or -1 with errno set.
 */
int store_zero(struct store *store, uint64_t offset, uint64_t len, bool unmap)
{
	int how = unmap ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE;

	if (!store_has(store, offset, len))
		return -1;
	if (!len)
		return 0;
	if (store->memory && !unmap)
		return write_zeroes_over_data(store, offset, len);
	if (!fallocate(store->fd, how | FALLOC_FL_KEEP_SIZE, offset, len))
		return 0;
	if (errno != EOPNOTSUPP && errno != ENOSYS)
		return -1;
	return write_zeroes(store, offset, len);
}

int store_erase(struct store *store, uint64_t offset, uint64_t len)
{
	if (!store_has(store, offset, len))
		return -1;
	if (store->memory)
		return write_zeroes_over_data(store, offset, len);
	return write_zeroes(store, offset, len) || store_flush(store) ? -1 : 0;
}

/**
 * store_flush() - make written data durable
 * @store: the store
 *
 * Return: 0, or -1 with errno set.
 */
int store_flush(struct store *store)
{
	return store->memory ? 0 : fdatasync(store->fd);
}
