// SPDX-License-Identifier: GPL-2.0
/* Find the disk that a word of the command line means, and list names. */

#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "vblkstat.h"

/* A list names at most so many disks, queues or tasks. */
#define MAX_NAMES		4

/* "vda1" is on vda.  The kernel has the partition in the disk's directory. */
static bool is_partition_of(const char *name, const char *disk)
{
	char path[PATH_MAX];
	DIR *directory;

	snprintf(path, sizeof(path), "/sys/block/%s/%s", disk, name);
	directory = open_directory(path);
	if (directory)
		closedir(directory);
	return directory;
}

/* Copy the kernel's name of a node: the target of a link such as those of udev. */
static bool read_node(char *name, size_t size, const char *node)
{
	char path[PATH_MAX], target[PATH_MAX];

	if (!root_path(path, sizeof(path), "%s", node) || !realpath(path, target))
		return false;
	copy_text(name, size, strrchr(target, '/') + 1);
	return true;
}

/*
 * Find the name of the disk for vda, /dev/vda, vda1 or /dev/disk/by-id/...  Return the
 * word itself if it is no disk.  The caller frees the name.
 */
char *disk_name(const char *word)
{
	static const char device[] = "/dev/";
	char name[256], disk[256], *found;
	bool node = !strncmp(word, device, strlen(device));

	/* A copy has no nodes. */
	if (!node || !read_node(name, sizeof(name), word))
		snprintf(name, sizeof(name), "%s",
			 word + (node ? strlen(device) : 0));
	strcpy(disk, name);
	disk[strcspn(disk, "0123456789")] = '\0';
	found = strdup(disk[0] && strcmp(disk, name) && is_partition_of(name, disk) ?
		       disk : name);
	if (!found)
		fail("out of memory");
	return found;
}

/* Add a disk, a queue or a task to a list. */
void add_name(struct names *names, const char *format, ...)
{
	size_t length = strlen(names->text);
	va_list args;

	if (names->count++ < MAX_NAMES && length < sizeof(names->text) - 3) {
		if (length) {
			strcpy(names->text + length, ", ");
			length += 2;
		}
		va_start(args, format);
		vsnprintf(names->text + length, sizeof(names->text) - length,
			  format, args);
		va_end(args);
	} else if (names->count == MAX_NAMES + 1 &&
		   length < sizeof(names->text) - 8) {
		strcpy(names->text + length, ", ...");
	}
}
