// SPDX-License-Identifier: GPL-2.0
/*
 * How long requests take: virtio_blk/vdX/latency in debugfs.
 *
 * The driver counts while a process has the file open, and each read gives all counts
 * since then.  So keep the file open from one sample to the next, and subtract.
 */

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "latency.h"

#define MAX_FILE	(16 << 20)

/* Files besides those of the disks: three streams, and a few for a moment. */
#define OTHER_FILES	32

const char *const kind_names[NR_KINDS] = {
	[KIND_READS] = "reads",
	[KIND_WRITES] = "writes",
	[KIND_OTHERS] = "others",
};

/* The counts of a queue since the file was opened. */
struct row {
	unsigned int queue;
	struct histogram kinds[NR_KINDS];
};

struct reading {
	bool valid;
	struct row *rows;
	unsigned int nr_rows;
};

/**
 * struct source - a disk's file
 * @file: NULL if it is not open
 * @error: why it could not be opened or read
 * @failures: in how many samples in a row
 * @noted: a note has said so
 */
struct source {
	char disk[16];
	uint64_t seq;
	FILE *file;
	int error;
	unsigned int failures;
	bool noted;
	struct reading before;
	struct reading now;
};

static struct source *sources;
static unsigned int nr_sources;
static unsigned int nr_open;

/* Read the file */

/* Find the row of a queue.  @guess: where it probably is */
static struct row *find_row(const struct reading *reading, unsigned int queue,
			    unsigned int guess)
{
	if (guess < reading->nr_rows && reading->rows[guess].queue == queue)
		return &reading->rows[guess];
	for (unsigned int i = 0; i < reading->nr_rows; i++)
		if (reading->rows[i].queue == queue)
			return &reading->rows[i];
	return NULL;
}

static struct row *add_row(struct reading *reading, unsigned int queue)
{
	/* The lines of a queue follow each other. */
	struct row *row = reading->nr_rows ?
			  &reading->rows[reading->nr_rows - 1] : NULL;

	if (row && row->queue == queue)
		return row;
	if (reading->nr_rows == MAX_QUEUES)
		return NULL;
	reading->rows = grow(reading->rows, reading->nr_rows, sizeof(*row));
	row = &reading->rows[reading->nr_rows++];
	memset(row, 0, sizeof(*row));
	row->queue = queue;
	return row;
}

/* Parse "98304:12 114688:40". */
static void parse_buckets(struct histogram *histogram, const char *text)
{
	uint64_t ns, count;
	char *end;

	for (; *text; text = end) {
		ns = parse_number(text, &end);
		if (ns == UNKNOWN || *end != ':')
			return;
		count = parse_number(end + 1, &end);
		if (count == UNKNOWN)
			return;
		histogram->counts[find_bucket(ns)] += count;
	}
}

/* Parse "queue0 reads max 812345 98304:12 114688:40". */
static void parse_line(struct reading *reading, char *line)
{
	static const char prefix[] = "queue";
	uint64_t queue, max;
	struct row *row;
	char *end;

	if (strncmp(line, prefix, strlen(prefix)))
		return;
	queue = parse_number(line + strlen(prefix), &end);
	if (queue > UINT16_MAX || *end++ != ' ')
		return;
	for (unsigned int i = 0; i < NR_KINDS; i++) {
		size_t length = strlen(kind_names[i]);

		if (strncmp(end, kind_names[i], length) ||
		    strncmp(end + length, " max ", 5))
			continue;
		max = parse_number(end + length + 5, &end);
		row = max == UNKNOWN ? NULL : add_row(reading, queue);
		if (!row)
			return;
		row->kinds[i].max_ns = max;
		parse_buckets(&row->kinds[i], end);
		return;
	}
}

/* Read from the beginning, which gives the counts of now.  Return NULL on failure. */
static char *read_all(FILE *file)
{
	size_t size = 0, room = 0;
	char *text = NULL;
	ssize_t more = 1;

	while (more > 0 && size < MAX_FILE) {
		if (size + 1 >= room) {
			room = room ? 2 * room : 65536;
			text = realloc(text, room);
			if (!text)
				fail("out of memory");
		}
		more = pread(fileno(file), text + size, room - size - 1, size);
		if (more > 0)
			size += more;
	}
	text[size] = '\0';
	if (more < 0) {
		free(text);
		return NULL;
	}
	return text;
}

static void free_reading(struct reading *reading)
{
	free(reading->rows);
	*reading = (struct reading){ };
}

/* Return whether a queue that had requests has none now. */
static bool has_shrunk(const struct source *source)
{
	for (unsigned int i = 0; i < source->before.nr_rows; i++)
		if (!find_row(&source->now, source->before.rows[i].queue, i))
			return true;
	return false;
}

static void take_reading(struct source *source)
{
	char *text = read_all(source->file), *line, *save;

	source->error = errno;
	free_reading(&source->before);
	source->before = source->now;
	source->now = (struct reading){ .valid = text };
	for (line = text ? strtok_r(text, "\n", &save) : NULL; line;
	     line = strtok_r(NULL, "\n", &save))
		parse_line(&source->now, line);
	free(text);
	if (has_shrunk(source))
		free_reading(&source->before);
}

/* Keep files open */

/*
 * Return how many disks can have an open file.  Each needs one, so raise the limit of
 * open files as far as possible, and leave some to the rest of the program.
 */
static unsigned int raise_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit))
		return MAX_DISKS;
	limit.rlim_cur = limit.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &limit) || getrlimit(RLIMIT_NOFILE, &limit))
		return MAX_DISKS;
	if (limit.rlim_cur >= MAX_DISKS + OTHER_FILES)
		return MAX_DISKS;
	return limit.rlim_cur > OTHER_FILES ? limit.rlim_cur - OTHER_FILES : 0;
}

/* Open a disk's file.  Return NULL and set errno on failure. */
static FILE *open_latency(const struct disk *disk)
{
	const char *const drivers[] = { disk->driver, "virtio_blk" };
	char path[PATH_MAX];
	FILE *file = NULL;

	errno = ENOENT;
	/* An error other than ENOENT is of the file that exists. */
	for (size_t i = 0; i < ARRAY_SIZE(drivers) && !file && errno == ENOENT; i++)
		if (root_path(path, sizeof(path), "/sys/kernel/debug/%s/%s/latency",
			      drivers[i], disk->name))
			file = open_file(path);
	return file;
}

static void close_source(struct source *source)
{
	if (source->file) {
		fclose(source->file);
		nr_open--;
	}
	source->file = NULL;
	free_reading(&source->before);
	free_reading(&source->now);
}

static struct source *find_source(const char *disk)
{
	for (unsigned int i = 0; i < nr_sources; i++)
		if (!strcmp(sources[i].disk, disk))
			return &sources[i];
	return NULL;
}

/* Return the source of a disk, open if possible. */
static struct source *open_source(const struct disk *disk)
{
	struct source *source = find_source(disk->name);
	static unsigned int max_open;

	if (!source) {
		sources = grow(sources, nr_sources, sizeof(*source));
		source = &sources[nr_sources++];
		memset(source, 0, sizeof(*source));
		strcpy(source->disk, disk->name);
	}
	/* Another disk has got the name, or the file is that of a disk that was removed. */
	if (source->seq != disk->seq || (source->file && !source->now.valid))
		close_source(source);
	if (source->seq != disk->seq) {
		source->failures = 0;
		source->noted = false;
	}
	source->seq = disk->seq;
	if (source->file)
		return source;
	if (!max_open)
		max_open = raise_limit();
	source->error = EMFILE;
	if (nr_open < max_open) {
		source->file = open_latency(disk);
		source->error = errno;
	}
	nr_open += !!source->file;
	return source;
}

/* Say why a disk has no latency, and how to get it. */
static const char *explain_error(const struct disk *disk, int error)
{
	if (!disk->ours)
		return "the in-tree driver does not measure it";
	if (error == EPERM)
		return "the kernel is locked down";
	if (error == EACCES)
		return "run vblkstat as root";
	if (error == EMFILE)
		return "name fewer disks, or raise the limit of open files (ulimit -n)";
	if (error != ENOENT)
		return strerror(error);
	if (!sysfs_is_live())
		return "the copy has none";
	return debugfs_state() == DEBUGFS_THERE ? "the driver is older" :
	       "there is no debugfs";
}

/*
 * Return whether to note that a disk has no latency.  One failure is normal when a disk
 * is added, before the driver has made the file, or when it is removed.
 */
static bool needs_note(const struct disk *disk)
{
	const struct source *source = find_source(disk->name);

	return source && source->failures > 1 && !source->noted;
}

/* Note the disks without latency, those with the same reason together. */
static void note_failures(const struct machine *machine)
{
	for (unsigned int i = 0; i < machine->nr_disks; i++) {
		const struct disk *first = &machine->disks[i];
		struct names names = { };
		int error;

		if (!needs_note(first))
			continue;
		error = find_source(first->name)->error;
		for (unsigned int j = i; j < machine->nr_disks; j++) {
			const struct disk *disk = &machine->disks[j];

			if (!needs_note(disk) || disk->ours != first->ours ||
			    find_source(disk->name)->error != error)
				continue;
			add_name(&names, "%s", disk->name);
			find_source(disk->name)->noted = true;
		}
		note("no latency of %s; %s", names.text, explain_error(first, error));
	}
}

/* Read how long requests have taken, and forget disks that are gone. */
void latency_sample(const struct machine *machine)
{
	for (unsigned int i = 0; i < nr_sources; i++) {
		if (machine_disk(machine, sources[i].disk))
			continue;
		close_source(&sources[i]);
		sources[i].failures = 0;
	}
	for (unsigned int i = 0; i < machine->nr_disks; i++) {
		struct source *source = open_source(&machine->disks[i]);

		if (source->file)
			take_reading(source);
		source->failures = source->now.valid ? 0 : source->failures + 1;
	}
	note_failures(machine);
}

/* Let the driver stop counting. */
void latency_close(void)
{
	for (unsigned int i = 0; i < nr_sources; i++)
		close_source(&sources[i]);
	free(sources);
	sources = NULL;
	nr_sources = 0;
}

/* Subtract */

/*
 * Add what came between two readings.  Return false if a count shrank.
 *
 * The longest time of the interval is exact if it is the longest since the file was
 * opened.  Otherwise the end of the highest bucket is the bound.
 */
static bool add_growth(struct histogram *sum, const struct histogram *before,
		       const struct histogram *now)
{
	uint64_t max = 0;

	for (unsigned int i = 0; i < NR_BUCKETS; i++) {
		if (now->counts[i] < before->counts[i])
			return false;
		if (now->counts[i] == before->counts[i])
			continue;
		sum->counts[i] += now->counts[i] - before->counts[i];
		max = bucket_ns(i + 1) < now->max_ns ? bucket_ns(i + 1) : now->max_ns;
		/* The driver's max is not below its highest bucket, but a copy has any text. */
		if (max < bucket_ns(i))
			max = bucket_ns(i);
	}
	if (max && now->max_ns > before->max_ns && now->max_ns > max)
		max = now->max_ns;
	if (max > sum->max_ns)
		sum->max_ns = max;
	return true;
}

/*
 * Find what completed between the last two samples.  Return false if that is not known.
 * @queue: the number of a queue, or ALL_QUEUES
 */
bool latency_interval(struct histogram *histogram, const struct disk *disk,
		      unsigned int queue, enum kind kind)
{
	static const struct row none;
	const struct source *source = find_source(disk->name);

	memset(histogram, 0, sizeof(*histogram));
	if (!source || !source->before.valid || !source->now.valid)
		return false;
	for (unsigned int i = 0; i < source->now.nr_rows; i++) {
		const struct row *now = &source->now.rows[i];
		const struct row *before;

		if (queue != ALL_QUEUES && queue != now->queue)
			continue;
		before = find_row(&source->before, now->queue, i);
		if (!add_growth(histogram, before ? &before->kinds[kind] :
				&none.kinds[kind], &now->kinds[kind]))
			return false;
	}
	return true;
}
