// SPDX-License-Identifier: GPL-2.0
/*
 * vblkstat snapshot: write what vblkstat reads to a tar archive, for --root on another
 * machine.  It runs all that list, queues, doctor and host read, and records it.
 */

#define _GNU_SOURCE
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "doctor.h"
#include "record.h"
#include "vdpa.h"

#define BLOCK		512
#define NAME_BYTES	100
#define MAX_FILE	(16 << 20)

/* A header of POSIX's ustar format. */
struct header {
	char name[NAME_BYTES];
	char mode[8], uid[8], gid[8], size[12], mtime[12], checksum[8];
	char type;
	char link[NAME_BYTES];
	char magic[6], version[2];
	char user[32], group[32], major[8], minor[8], prefix[155];
	char rest[12];
};

static_assert(sizeof(struct header) == BLOCK, "a header is one block");

static FILE *archive;
static uint64_t archive_time;

static void write_header(const char *name, char type, size_t size, const char *link)
{
	struct header header = { .type = type };
	unsigned int sum = 0;

	snprintf(header.name, sizeof(header.name), "%.99s", name);
	snprintf(header.link, sizeof(header.link), "%.99s", link);
	snprintf(header.mode, sizeof(header.mode), "%07o",
		 type == '5' ? 0755u : 0644u);
	snprintf(header.uid, sizeof(header.uid), "%07o", 0u);
	snprintf(header.gid, sizeof(header.gid), "%07o", 0u);
	snprintf(header.size, sizeof(header.size), "%011zo", size);
	snprintf(header.mtime, sizeof(header.mtime), "%011llo",
		 (unsigned long long)archive_time);
	/* GNU's magic, because of the long names. */
	memcpy(header.magic, "ustar ", 6);
	memcpy(header.version, " \0", 2);
	memset(header.checksum, ' ', sizeof(header.checksum));
	for (size_t i = 0; i < sizeof(header); i++)
		sum += ((const unsigned char *)&header)[i];
	snprintf(header.checksum, sizeof(header.checksum), "%06o", sum & 0777777);
	fwrite(&header, sizeof(header), 1, archive);
}

static void write_data(const char *data, size_t size)
{
	static const char zeroes[BLOCK];

	fwrite(data, 1, size, archive);
	if (size % BLOCK)
		fwrite(zeroes, 1, BLOCK - size % BLOCK, archive);
}

/* A name that is too long for the header comes before it, as in GNU tar. */
static void write_long(const char *name, char type)
{
	if (strlen(name) < NAME_BYTES)
		return;
	write_header("././@LongLink", type, strlen(name) + 1, "");
	write_data(name, strlen(name) + 1);
}

static void write_entry(const struct record *record, const char *data, size_t size)
{
	static const char types[] = { [RECORD_FILE] = '0', [RECORD_DIRECTORY] = '5',
				      [RECORD_LINK] = '2' };
	const char *link = record->type == RECORD_LINK ? record->data : "";

	write_long(link, 'K');
	write_long(record->path + 1, 'L');
	write_header(record->path + 1, types[record->type], size, link);
	if (size)
		write_data(data, size);
}

static void write_file(const struct record *record)
{
	char *data = NULL;
	size_t size = 0, more;
	char path[4096];
	FILE *file = NULL;

	if (root_path(path, sizeof(path), "%s", record->path))
		file = open_file(path);
	if (!file)
		return;
	data = malloc(MAX_FILE);
	if (!data)
		fail("out of memory");
	while (size < MAX_FILE && (more = fread(data + size, 1, MAX_FILE - size, file)))
		size += more;
	fclose(file);
	write_entry(record, data, size);
	free(data);
}

static void write_record(const struct record *record)
{
	if (record->type != RECORD_FILE)
		write_entry(record, "", 0);
	else if (record->data)
		write_entry(record, record->data, strlen(record->data));
	else
		write_file(record);
}

/* Read everything, and print nothing. */
static void read_all(const struct request *request)
{
	struct vdpa_devices devices;
	struct names tasks = { };
	struct machine machine;
	char uuid[40], *log;

	if (!machine_read(&machine, request))
		fail("cannot read the disks");
	archive_time = machine.time == UNKNOWN ? 0 : machine.time;
	read_serials(&machine, false);
	doctor_examine(&machine);
	for (unsigned int i = 0; i < machine.nr_disks; i++) {
		struct users users;

		users_find(&users, &machine.disks[i]);
		users_free(&users);
	}
	find_blocked_tasks(&tasks);
	read_uuid(uuid, sizeof(uuid));
	log = log_copy(&machine);
	record_text("/dev/kmsg", log);
	free(log);
	machine_free(&machine);
	vdpa_read(&devices, request);
	vdpa_free(&devices);
}

/* @request->disks: the file */
int snapshot_main(const struct request *request)
{
	static const char end[2 * BLOCK];
	const char *path = request->nr_disks == 1 ? request->disks[0] : NULL;
	struct stat status;
	int fd;

	if (!path)
		fail("snapshot takes the name of one file; use \"vblkstat snapshot FILE.tar\"");
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	/* A file that was there keeps its mode. */
	if (fd < 0 || fstat(fd, &status) ||
	    (S_ISREG(status.st_mode) && fchmod(fd, 0600)))
		fail("cannot write %s: %s", path, strerror(errno));
	archive = fdopen(fd, "w");
	if (!archive)
		fail("cannot write %s: %s", path, strerror(errno));
	record_start();
	read_all(&(struct request){ });
	record_walk(write_record);
	record_free();
	fwrite(end, sizeof(end), 1, archive);
	if (fflush(archive) || ferror(archive) || fclose(archive))
		fail("cannot write %s: %s", path, strerror(errno));
	notes_print(stderr);
	printf("wrote %s; to read it: mkdir DIR; tar -xf %s -C DIR; vblkstat --root=DIR doctor\n",
	       path, path);
	return notes_complete() ? ALL_WELL : INCOMPLETE;
}
