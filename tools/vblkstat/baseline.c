// SPDX-License-Identifier: GPL-2.0
/*
 * Counters that the administrator has cleared: the driver counts on, and doctor
 * subtracts the values of the time of "vblkstat doctor --clear".
 *
 * They are in a file that a reboot removes, like the counters, in lines such as
 * "vda 12 timeouts 83", where 12 is the disk's sequence number: a disk that is added
 * later under the same name counts from 0.
 */

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "doctor.h"

#define DIRECTORY	"/run/vblkstat"
#define BASELINE	DIRECTORY "/cleared"

/* write_disk() writes no more: values of the disk, sums of counters, slow requests. */
#define LINES_OF_DISK	(16 + 2 * NR_COUNTERS + NR_KINDS * NR_SLOW)
#define MAX_LINES	(MAX_DISKS * LINES_OF_DISK)

#define NAME_SIZE	32

struct entry {
	char disk[16];
	uint64_t seq;
	char name[NAME_SIZE];
	uint64_t value;
};

struct baseline {
	struct entry *entries;
	unsigned int count;
};

static bool parse_entry(char *line, struct entry *entry)
{
	char *words[4], *save, *end;

	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		words[i] = strtok_r(i ? NULL : line, "\n ", &save);
		if (!words[i])
			return false;
	}
	copy_text(entry->disk, sizeof(entry->disk), words[0]);
	entry->seq = parse_number(words[1], &end);
	copy_text(entry->name, sizeof(entry->name), words[2]);
	entry->value = parse_number(words[3], &end);
	return entry->value != UNKNOWN;
}

/* Order by disk, and then by counter, to search by halves. */
static int compare_entries(const void *one, const void *other)
{
	const struct entry *first = one, *second = other;
	int order = strcmp(first->disk, second->disk);

	if (!order)
		order = (first->seq > second->seq) - (first->seq < second->seq);
	return order ? order : strcmp(first->name, second->name);
}

/* Read the file; without it, nothing has been cleared. */
struct baseline *baseline_read(void)
{
	struct baseline *baseline = calloc(1, sizeof(*baseline));
	char line[128], path[PATH_MAX];
	FILE *file = NULL;
	struct entry entry;

	if (!baseline)
		fail("out of memory");
	if (root_path(path, sizeof(path), BASELINE))
		file = open_file(path);
	while (file && fgets(line, sizeof(line), file)) {
		if (!parse_entry(line, &entry))
			continue;
		if (baseline->count == MAX_LINES) {
			note("%s has more than %u lines; vblkstat ignores the rest, and may report what was cleared",
			     path, MAX_LINES);
			break;
		}
		baseline->entries = grow(baseline->entries, baseline->count,
					 sizeof(entry));
		baseline->entries[baseline->count++] = entry;
	}
	if (file)
		fclose(file);
	if (baseline->count)
		qsort(baseline->entries, baseline->count, sizeof(entry),
		      compare_entries);
	return baseline;
}

void baseline_free(struct baseline *baseline)
{
	if (baseline)
		free(baseline->entries);
	free(baseline);
}

/* Return a counter's value when it was cleared, UNKNOWN if it was not. */
uint64_t baseline_value(const struct baseline *baseline, const struct disk *disk,
			const char *name)
{
	struct entry key = { .seq = disk->seq };
	const struct entry *found;

	if (!baseline || !baseline->count)
		return UNKNOWN;
	copy_text(key.disk, sizeof(key.disk), disk->name);
	copy_text(key.name, sizeof(key.name), name);
	found = bsearch(&key, baseline->entries, baseline->count, sizeof(key),
			compare_entries);
	return found ? found->value : UNKNOWN;
}

/* Return when a disk was cleared, in seconds since 1970, UNKNOWN if it was not. */
uint64_t baseline_time(const struct baseline *baseline, const struct disk *disk)
{
	return baseline_value(baseline, disk, "time");
}

/* Return how much a counter has grown since it was cleared. */
uint64_t since_baseline(const struct doctor *doctor, const struct disk *disk,
			const char *name, uint64_t value)
{
	uint64_t cleared = baseline_value(doctor->baseline, disk, name);

	if (value == UNKNOWN || cleared == UNKNOWN || cleared > value)
		return value;
	return value - cleared;
}

/* "unpolled_reads": the requests among which some are slow. */
static void format_sent(char *name, size_t size, enum counter counter)
{
	snprintf(name, size, "unpolled_%s", counter_names[counter]);
}

/* "slow_reads_256" */
static void format_slow(char *name, size_t size, enum kind kind, unsigned int index)
{
	snprintf(name, size, "%s_%u", slow_names[kind], SLOW_MS << index);
}

/* Like disk_sent(), without what was cleared. */
uint64_t sent_since(const struct doctor *doctor, const struct disk *disk,
		    enum counter counter)
{
	char name[NAME_SIZE];

	format_sent(name, sizeof(name), counter);
	return since_baseline(doctor, disk, name, disk_sent(disk, counter));
}

/* Like disk_slow(), without what was cleared. */
uint64_t slow_since(const struct doctor *doctor, const struct disk *disk,
		    enum kind kind, unsigned int index)
{
	char name[NAME_SIZE];

	format_slow(name, sizeof(name), kind, index);
	return since_baseline(doctor, disk, name, disk_slow(disk, kind, index));
}

/* Clear */

static void write_value(FILE *file, const struct disk *disk, const char *name,
			uint64_t value)
{
	if (value != UNKNOWN)
		fprintf(file, "%s %llu %s %llu\n", disk->name,
			(unsigned long long)disk->seq, name,
			(unsigned long long)value);
}

/*
 * Write the requests by the time that they took.  Lines of each queue would be 36, and
 * doctor needs the sums only.  A line that is missing stands for 0.
 */
static void write_times(FILE *file, const struct disk *disk)
{
	char name[NAME_SIZE];

	for (unsigned int i = C_READS; i <= C_QUERIES; i++) {
		if (!happened(disk_sent(disk, i)))
			continue;
		format_sent(name, sizeof(name), i);
		write_value(file, disk, name, disk_sent(disk, i));
	}
	for (unsigned int kind = 0; kind < NR_KINDS; kind++) {
		for (unsigned int i = 0; i < NR_SLOW; i++) {
			format_slow(name, sizeof(name), kind, i);
			if (happened(disk_slow(disk, kind, i)))
				write_value(file, disk, name, disk_slow(disk, kind, i));
		}
	}
}

static void write_disk(FILE *file, const struct machine *machine,
		       const struct disk *disk)
{
	write_value(file, disk, "time", machine->time);
	write_value(file, disk, "stalls", disk->stalls);
	write_value(file, disk, "timeouts", disk->timeouts);
	write_value(file, disk, "lost_interrupts", disk->lost_interrupts);
	write_value(file, disk, "resets", disk->resets);
	write_value(file, disk, "longest_wait_ms", longest_wait(disk));
	write_value(file, disk, "requests", total_requests(disk));
	write_value(file, disk, HIGH_WATER,
		    read_number("/sys/kernel/debug/swiotlb/" HIGH_WATER));
	for (unsigned int i = C_READS; i < NR_COUNTERS; i++)
		if (i != C_LONGEST_WAIT_MS && i != C_TIMEOUTS &&
		    i != C_LOST_INTERRUPTS)
			write_value(file, disk, counter_names[i], total(disk, i));
	write_times(file, disk);
}

static bool is_there(const struct entry *entry)
{
	return read_number("/sys/block/%s/diskseq", entry->disk) == entry->seq;
}

/* Keep what was cleared for other disks, as long as these are there. */
static void write_others(FILE *file, const struct machine *machine)
{
	struct baseline *old = baseline_read();

	for (unsigned int i = 0; i < old->count; i++) {
		const struct entry *entry = &old->entries[i];

		if (!machine_disk(machine, entry->disk) && is_there(entry))
			fprintf(file, "%s %llu %s %llu\n", entry->disk,
				(unsigned long long)entry->seq, entry->name,
				(unsigned long long)entry->value);
	}
	baseline_free(old);
}

/* Clear the counters of the disks.  Return the exit status. */
int baseline_clear(const struct machine *machine)
{
	char directory[PATH_MAX], path[PATH_MAX], new[PATH_MAX], parent[PATH_MAX];
	FILE *file;
	bool done;

	if (!root_path(directory, sizeof(directory), DIRECTORY) ||
	    !root_path(path, sizeof(path), BASELINE) ||
	    !root_path(new, sizeof(new), BASELINE ".new"))
		fail("the path of --root is too long");
	if (!notes_complete()) {
		notes_print(stderr);
		fail("cannot clear counters that cannot be read");
	}
	/* A copy need not have /run. */
	if (root_path(parent, sizeof(parent), "/run"))
		mkdir(parent, 0755);
	mkdir(directory, 0755);
	file = fopen(new, "we");
	if (!file)
		fail("cannot write %s: %s; run vblkstat as root", new,
		     strerror(errno));
	write_others(file, machine);
	for (unsigned int i = 0; i < machine->nr_disks; i++)
		write_disk(file, machine, &machine->disks[i]);
	done = !fflush(file) && !ferror(file);
	if (fclose(file) || !done || rename(new, path))
		fail("cannot write %s: %s", path, strerror(errno));
	printf("cleared %u disk%s; doctor reports what happens from now on\n",
	       machine->nr_disks, machine->nr_disks == 1 ? "" : "s");
	notes_print(stderr);
	return ALL_WELL;
}
