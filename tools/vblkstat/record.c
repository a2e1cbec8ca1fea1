// SPDX-License-Identifier: GPL-2.0
/*
 * Record what vblkstat reads, for vblkstat snapshot: the same code that will read the
 * copy decides what is in it.
 *
 * A path is recorded as it really is: each symbolic link on the way as a link, and the
 * rest where the links lead to.
 */

#define _GNU_SOURCE
#include <limits.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "record.h"

#define MAX_LINKS	40

static bool recording;
static void *records;

void record_start(void)
{
	recording = true;
}

static int compare(const void *one, const void *other)
{
	return strcmp(((const struct record *)one)->path,
		      ((const struct record *)other)->path);
}

/* Add a record, unless there is one of the path.  Return the one that there is. */
static struct record *add(const char *path, enum record_type type)
{
	struct record key = { .path = (char *)path }, *new, **found;

	found = tfind(&key, &records, compare);
	if (found)
		return *found;
	new = calloc(1, sizeof(*new));
	if (new)
		new->path = strdup(path);
	if (!new || !new->path || !tsearch(new, &records, compare))
		fail("out of memory");
	new->type = type;
	return new;
}

static void keep(struct record *record, const char *data)
{
	if (record->data)
		return;
	record->data = strdup(data);
	if (!record->data)
		fail("out of memory");
}

static void go_up(char *path)
{
	char *slash = strrchr(path, '/');

	if (slash)
		*slash = '\0';
}

static bool read_target(const char *link, char *target, size_t size)
{
	ssize_t length = readlink(link, target, size - 1);

	target[length < 0 ? 0 : length] = '\0';
	return length > 0;
}

/* Go on from a link, whose target comes before @tail. */
static bool follow(char *real, char *rest, size_t size, const char *target,
		   const char *tail)
{
	if (target[0] == '/')
		real[0] = '\0';
	if (strlen(target) + strlen(tail) + 1 >= size)
		return false;
	memmove(rest + strlen(target), tail, strlen(tail) + 1);
	memcpy(rest, target, strlen(target));
	return true;
}

/*
 * Resolve a path below the root, component by component, and record its directories and
 * links.  Return false if it does not exist.
 * @last: resolve the last component, too, if it is a link
 */
static bool resolve(const char *path, char *real, bool last)
{
	char rest[PATH_MAX], target[PATH_MAX], next[PATH_MAX], whole[PATH_MAX];
	unsigned int links = 0;
	struct stat status;
	size_t length;

	real[0] = '\0';
	if (strlen(path) >= sizeof(rest))
		return false;
	strcpy(rest, path);
	while (rest[strspn(rest, "/")]) {
		const char *name = rest + strspn(rest, "/"), *tail;

		length = strcspn(name, "/");
		tail = name + length;
		if (length == 2 && !strncmp(name, "..", 2))
			go_up(real);
		if (length <= 2 && strspn(name, ".") == length) {
			memmove(rest, tail, strlen(tail) + 1);
			continue;
		}
		if (snprintf(next, sizeof(next), "%s/%.*s", real, (int)length,
			     name) >= (int)sizeof(next) ||
		    snprintf(whole, sizeof(whole), "%s%s", root, next) >=
		    (int)sizeof(whole) || lstat(whole, &status))
			return false;
		if (S_ISLNK(status.st_mode)) {
			if (!read_target(whole, target, sizeof(target)) ||
			    ++links > MAX_LINKS)
				return false;
			keep(add(next, RECORD_LINK), target);
			if (!last && !tail[strspn(tail, "/")]) {
				strcpy(real, next);
				return true;
			}
			if (!follow(real, rest, sizeof(rest), target, tail))
				return false;
			continue;
		}
		strcpy(real, next);
		if (S_ISDIR(status.st_mode))
			add(real, RECORD_DIRECTORY);
		memmove(rest, tail, strlen(tail) + 1);
	}
	return real[0];
}

/* A path as callers have it begins with the root. */
static const char *below_root(const char *path)
{
	size_t length = strlen(root);

	return strncmp(path, root, length) ? path : path + length;
}

/* Record a file; without @data, its contents are read when the copy is written. */
void record_file(const char *path, const char *data)
{
	char real[PATH_MAX];

	if (!recording)
		return;
	path = below_root(path);
	/* Of thousands of tasks, doctor wants those in state D. */
	if (!strncmp(path, "/proc/", 6) && strstr(path, "/task/") &&
	    (!data || !strstr(data, ") D ")))
		return;
	if (resolve(path, real, true)) {
		struct record *record = add(real, RECORD_FILE);

		if (data)
			keep(record, data);
	}
}

/* Record a link, or that a path exists. */
void record_link(const char *path)
{
	char real[PATH_MAX];

	if (recording && resolve(below_root(path), real, false))
		resolve(below_root(path), real, true);
}

/* Record a directory with the directories and links in it, but not those of /proc. */
void record_directory(const char *path)
{
	char entry[PATH_MAX], real[PATH_MAX];
	struct dirent *found;
	DIR *directory;

	if (!recording || !strncmp(below_root(path), "/proc", 5) ||
	    !resolve(below_root(path), real, true))
		return;
	directory = opendir(path);
	while (directory && (found = readdir(directory))) {
		if (found->d_name[0] == '.' ||
		    (found->d_type != DT_DIR && found->d_type != DT_LNK) ||
		    snprintf(entry, sizeof(entry), "%s/%s", below_root(path),
			     found->d_name) >= (int)sizeof(entry))
			continue;
		resolve(entry, real, false);
	}
	if (directory)
		closedir(directory);
}

/* Add a file that is none on this machine. */
void record_text(const char *path, const char *data)
{
	keep(add(path, RECORD_FILE), data);
}

static void (*visitor)(const struct record *record);

static void visit(const void *node, VISIT order, int depth)
{
	(void)depth;
	if (order == postorder || order == leaf)
		visitor(*(const struct record *const *)node);
}

/* Call a function for each record, in the order of their paths. */
void record_walk(void (*function)(const struct record *record))
{
	recording = false;
	visitor = function;
	twalk(records, visit);
}

static void free_record(void *node)
{
	struct record *record = node;

	free(record->path);
	free(record->data);
	free(record);
}

void record_free(void)
{
	tdestroy(records, free_record);
	records = NULL;
}
