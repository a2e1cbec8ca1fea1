// SPDX-License-Identifier: GPL-2.0
/*
 * When did it happen: the times at which the kernel logged events of a disk.
 *
 * /dev/kmsg has a record a line, "6,339,5140900,-;text", with the time in microseconds
 * since boot.  The log forgets old records, so a time can be missing, and the first
 * one that is left is not always the first.  It does not count suspends.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "doctor.h"

#define MAX_RECORDS	200000
#define MAX_RECORD	8192

/* Parts of the driver's messages, in Documentation/abi.rst, and of the block layer's. */
static const char *const words[NR_EVENTS][2] = {
	/* Its begin, and its end. */
	[EVENT_TIMEOUT] = { " have timed out", " had timed out have completed" },
	[EVENT_LOST_INTERRUPT] = { "completed without an interrupt" },
	[EVENT_RESET] = { "] was reset" },
	[EVENT_IO_ERROR] = { "I/O error, dev " },
};

struct entry {
	char disk[16];
	enum event event;
	uint64_t time;
};

struct log {
	struct entry *records;
	unsigned int count;
	FILE *copy;
};

/* Find the disk that a message names: "[vda] ..." or "I/O error, dev vda, ...". */
static bool find_disk(const char *text, enum event event, char *disk, size_t size)
{
	const char *name = strstr(text, event == EVENT_IO_ERROR ? ", dev " : "[vd");
	size_t length;

	if (!name)
		return false;
	name += event == EVENT_IO_ERROR ? strlen(", dev ") : 1;
	length = strspn(name, "abcdefghijklmnopqrstuvwxyz");
	if (!length || length >= size)
		return false;
	snprintf(disk, size, "%.*s", (int)length, name);
	return true;
}

static void add_event(struct log *log, const char *text, enum event event,
		      uint64_t time)
{
	struct entry new = { .event = event, .time = time };

	if (!find_disk(text, event, new.disk, sizeof(new.disk)))
		return;
	log->records = grow(log->records, log->count, sizeof(new));
	log->records[log->count++] = new;
}

/* Keep a record for a copy of the log. */
static void keep_record(struct log *log, const char *line)
{
	if (log->copy)
		fprintf(log->copy, "%s%s", line,
			line[0] && line[strlen(line) - 1] == '\n' ? "" : "\n");
}

/* @boot: seconds since 1970 at the time 0 of the log */
static void parse_record(struct log *log, char *line, uint64_t boot)
{
	char *field = line, *text = strchr(line, ';'), *end;
	unsigned int count = log->count;
	uint64_t us;

	for (int i = 0; i < 2 && field; i++) {
		field = strchr(field, ',');
		field = field ? field + 1 : NULL;
	}
	if (!field || !text)
		return;
	us = parse_number(field, &end);
	if (us == UNKNOWN)
		return;
	for (unsigned int event = 0; event < NR_EVENTS; event++)
		for (size_t i = 0; i < ARRAY_SIZE(words[0]); i++)
			if (words[event][i] && strstr(text, words[event][i]))
				add_event(log, text, event, boot + us / 1000000);
	if (log->count > count)
		keep_record(log, line);
}

static void parse_lines(struct log *log, char *text, uint64_t boot)
{
	char *line, *save;

	for (line = strtok_r(text, "\n", &save); line;
	     line = strtok_r(NULL, "\n", &save))
		parse_record(log, line, boot);
}

/* Each read of the device returns a record, and fails at the end of the log. */
static void read_records(struct log *log, int fd, uint64_t boot)
{
	char text[MAX_RECORD + 1];
	unsigned int records = 0;
	ssize_t length;

	while (records++ < MAX_RECORDS) {
		length = read(fd, text, MAX_RECORD);
		if (length < 0 && (errno == EPIPE || errno == EINTR))
			continue;
		if (length <= 0)
			return;
		text[length] = '\0';
		parse_lines(log, text, boot);
	}
}

static void read_copy(struct log *log, const char *path, uint64_t boot)
{
	FILE *file = open_file(path);
	unsigned int records = 0;
	char line[MAX_RECORD];

	while (file && records++ < MAX_RECORDS && fgets(line, sizeof(line), file))
		parse_record(log, line, boot);
	if (file)
		fclose(file);
}

static void read_log(struct log *log, const struct machine *machine)
{
	char path[PATH_MAX];
	struct stat status;
	int fd;

	if (machine->booted == UNKNOWN ||
	    !root_path(path, sizeof(path), "/dev/kmsg") || stat(path, &status))
		return;
	if (S_ISREG(status.st_mode)) {
		read_copy(log, path, machine->booted);
	} else if (S_ISCHR(status.st_mode) && machine->live) {
		fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
		if (fd >= 0) {
			read_records(log, fd, machine->booted);
			close(fd);
		}
	}
}

/* Read the kernel log; it is empty if the user may not read it. */
struct log *log_read(const struct machine *machine)
{
	struct log *log = calloc(1, sizeof(*log));

	if (!log)
		fail("out of memory");
	read_log(log, machine);
	return log;
}

/* Return the records of the kernel log that log_find() needs; the caller frees them. */
char *log_copy(const struct machine *machine)
{
	struct log log = { };
	char *text = NULL;
	size_t size;

	log.copy = open_memstream(&text, &size);
	if (!log.copy)
		fail("out of memory");
	read_log(&log, machine);
	if (fclose(log.copy))
		fail("out of memory");
	free(log.records);
	return text;
}

void log_free(struct log *log)
{
	if (log)
		free(log->records);
	free(log);
}

/* Find the first and the last time of an event that the log still has. */
bool log_find(const struct log *log, const struct disk *disk, enum event event,
	      uint64_t *first, uint64_t *last)
{
	bool found = false;

	for (unsigned int i = 0; log && i < log->count; i++) {
		const struct entry *record = &log->records[i];

		if (record->event != event || strcmp(record->disk, disk->name))
			continue;
		if (!found)
			*first = record->time;
		*last = record->time;
		found = true;
	}
	return found;
}
