// SPDX-License-Identifier: GPL-2.0
/* The guest's memory, as a monitor shares it by vhost-user. */

#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "vhost_user.h"

/**
 * struct mapping - a region that is mapped
 * @next: the next one of the retired ones
 * @region: the monitor's description
 * @whole: where the file is mapped, from its beginning on: only so is the offset
 *	right for files with large pages
 * @bytes: the length of that
 */
struct mapping {
	struct mapping *next;
	struct vhost_region region;
	uint8_t *whole;
	uint64_t bytes;
};

static struct mapping *mappings[VHOST_MAX_REGIONS];
static unsigned int nr_mappings;
static struct mapping *retired;

static void unmap(struct mapping *mapping)
{
	munmap(mapping->whole, mapping->bytes);
	free(mapping);
}

/* A file that ends too early would kill this process at the first access. */
static bool file_is_large(struct vhost_message *msg, unsigned int n,
			  uint64_t bytes)
{
	struct stat stat;

	if (fstat(msg->fds[n], &stat))
		return vhost_refuse(msg, "region %u: its file has no size: %s",
				    n, strerror(errno));
	if (stat.st_size < 0 || (uint64_t)stat.st_size < bytes)
		return vhost_refuse(msg, "region %u ends at byte %" PRIu64 " of a file of %" PRIu64 " bytes",
				    n, bytes, (uint64_t)stat.st_size);
	return true;
}

static struct mapping *map_region(struct vhost_message *msg, unsigned int n)
{
	const struct vhost_region *region = &msg->memory.region[n];
	uint64_t bytes = region->offset + region->size;
	struct mapping *mapping;

	if (!region->size || bytes < region->size ||
	    region->guest + region->size - 1 < region->guest ||
	    region->user + region->size - 1 < region->user) {
		vhost_refuse(msg, "region %u: %#" PRIx64 " bytes at %#" PRIx64 " are no range of addresses",
			     n, region->size, region->guest);
		return NULL;
	}
	if (!file_is_large(msg, n, bytes))
		return NULL;
	mapping = calloc(1, sizeof(*mapping));
	if (!mapping) {
		vhost_refuse(msg, "region %u: out of memory", n);
		return NULL;
	}
	mapping->region = *region;
	mapping->bytes = bytes;
	mapping->whole = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED,
			      msg->fds[n], 0);
	if (mapping->whole == MAP_FAILED) {
		vhost_refuse(msg, "region %u: its file cannot be mapped: %s", n,
			     strerror(errno));
		free(mapping);
		return NULL;
	}
	return mapping;
}

static void retire(void)
{
	while (nr_mappings) {
		struct mapping *mapping = mappings[--nr_mappings];

		mapping->next = retired;
		retired = mapping;
	}
}

bool vhost_memory_set(struct vhost_message *msg)
{
	struct mapping *new[VHOST_MAX_REGIONS];
	unsigned int count = msg->memory.count, n;

	if (count > VHOST_MAX_REGIONS || count != msg->nr_fds)
		return vhost_refuse(msg, "%u regions and %u files; there can be up to %u regions, each with a file",
				    count, msg->nr_fds, VHOST_MAX_REGIONS);
	for (n = 0; n < count; n++) {
		new[n] = map_region(msg, n);
		if (!new[n])
			goto undo;
	}
	retire();
	memcpy(mappings, new, count * sizeof(*new));
	nr_mappings = count;
	return true;

undo:
	while (n)
		unmap(new[--n]);
	return false;
}

void vhost_memory_trim(void)
{
	struct mapping *mapping;

	while ((mapping = retired)) {
		retired = mapping->next;
		unmap(mapping);
	}
}

void vhost_memory_free(void)
{
	retire();
	vhost_memory_trim();
}

/* Find the region that begins at or before an address and ends after it. */
static const struct mapping *find(uint64_t addr, bool in_monitor)
{
	for (unsigned int n = 0; n < nr_mappings; n++) {
		const struct vhost_region *region = &mappings[n]->region;
		uint64_t start = in_monitor ? region->user : region->guest;

		if (addr >= start && addr - start < region->size)
			return mappings[n];
	}
	return NULL;
}

void *vhost_memory_map(uint64_t addr, uint64_t len, uint64_t *run)
{
	uint8_t *first = NULL;

	if (!len || addr + len - 1 < addr)
		return NULL;
	while (len) {
		const struct mapping *mapping = find(addr, false);
		uint64_t offset, piece;

		if (!mapping)
			return NULL;
		offset = addr - mapping->region.guest;
		piece = mapping->region.size - offset;
		if (piece > len)
			piece = len;
		if (!first) {
			first = mapping->whole + mapping->region.offset + offset;
			*run = piece;
		}
		addr += piece;
		len -= piece;
	}
	return first;
}

bool vhost_memory_guest(uint64_t user, uint64_t *guest)
{
	const struct mapping *mapping = find(user, true);

	if (!mapping)
		return false;
	*guest = user - mapping->region.user + mapping->region.guest;
	return true;
}
