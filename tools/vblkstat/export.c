// SPDX-License-Identifier: GPL-2.0
/*
 * vblkstat export: metrics of the disks in the text format of Prometheus, for the
 * textfile collector of node_exporter.
 *
 * A metric whose value is not known is left out, and virtio_blk_readable is 0.  The
 * names and labels are an interface: dashboards and rules rest on them.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vblkstat.h"

#define NO_FEATURE		MAX_FEATURES

/* Kinds of requests.  One whose feature the device lacks has no metrics. */
static const struct operation {
	const char *name;
	enum counter requests;
	enum counter bytes;	/* NR_COUNTERS: none */
	unsigned int feature;
} operations[] = {
	{ "read", C_READS, C_READ_BYTES, NO_FEATURE },
	{ "write", C_WRITES, C_WRITE_BYTES, NO_FEATURE },
	{ "flush", C_FLUSHES, NR_COUNTERS, F_FLUSH },
	{ "discard", C_DISCARDS, C_DISCARD_BYTES, F_DISCARD },
	{ "write_zeroes", C_WRITE_ZEROES, C_WRITE_ZEROES_BYTES, F_WRITE_ZEROES },
	{ "secure_erase", C_SECURE_ERASES, C_SECURE_ERASE_BYTES, F_SECURE_ERASE },
	{ "zone_append", C_ZONE_APPENDS, C_ZONE_APPEND_BYTES, F_ZONED },
	{ "zone_op", C_ZONE_OPS, NR_COUNTERS, F_ZONED },
	{ "query", C_QUERIES, NR_COUNTERS, NO_FEATURE },
};

static const struct {
	const char *name;
	enum counter counter;
} statuses[] = {
	{ "ioerr", C_IOERR },
	{ "unsupp", C_UNSUPP },
	{ "other", C_OTHER_ERRORS },
};

/* Metrics of queues that have one value. */
static const struct queue_metric {
	const char *name;
	const char *help;
	enum counter counter;
	bool gauge;
	bool ms;	/* shown in seconds */
} queue_metrics[] = {
	{ "kicks_total", "Notifications sent to the device.", C_KICKS, false, false },
	{ "kicks_suppressed_total",
	  "Notifications not sent because the device suppressed them.",
	  C_KICKS_SUPPRESSED, false, false },
	{ "interrupts_total", "Interrupts of the queue.", C_INTERRUPTS, false, false },
	{ "ring_full_total", "How often the ring was full.", C_RING_FULL, false, false },
	{ "requeues_total",
	  "Requests returned to the block layer because the ring or memory was full.",
	  C_REQUEUES, false, false },
	{ "resent_total", "Requests sent again after a reset.", C_RESENT, false, false },
	{ "in_flight", "Requests that the device has not answered.", C_IN_FLIGHT, true,
	  false },
	{ "ring_size", "Descriptors of the ring; 0 while there is none.", C_RING, true,
	  false },
	{ "queue_oldest_request_seconds",
	  "Age of the oldest request that the queue waits for; 0 without one.",
	  C_OLDEST_MS, true, true },
	{ "longest_wait_seconds",
	  "Longest time from sending a request to its completion, since the probe.",
	  C_LONGEST_WAIT_MS, true, true },
};

static const char *const states[] = {
	"live", "stalled", "removing", "suspended", "resetting", "dead",
};

/* The format */

static void print_family(FILE *out, const char *name, const char *type,
			 const char *help)
{
	fprintf(out, "# HELP virtio_blk_%s %s\n# TYPE virtio_blk_%s %s\n", name, help,
		name, type);
}

/* Print a label.  The device may have any bytes in its serial number. */
static void print_label(FILE *out, const char *name, const char *value)
{
	char text[64];

	copy_text(text, sizeof(text), value);
	fprintf(out, "%s=\"", name);
	for (const char *next = text; *next; next++) {
		if (*next == '\\' || *next == '"')
			fputc('\\', out);
		fputc(*next, out);
	}
	fputc('"', out);
}

/* Print a value of a disk with another label; NULL: no other label. */
static void print_value(FILE *out, const char *metric, const struct disk *disk,
			const char *label, const char *word, uint64_t value)
{
	if (value == UNKNOWN)
		return;
	fprintf(out, "virtio_blk_%s{", metric);
	print_label(out, "disk", disk->name);
	if (label) {
		fputc(',', out);
		print_label(out, label, word);
	}
	fprintf(out, "} %llu\n", (unsigned long long)value);
}

/* Print a value of a queue, as above. */
static void print_queue_value(FILE *out, const char *metric, const struct disk *disk,
			      const struct queue *queue, const char *label,
			      const char *word, uint64_t value)
{
	if (value == UNKNOWN)
		return;
	fprintf(out, "virtio_blk_%s{", metric);
	print_label(out, "disk", disk->name);
	fprintf(out, ",queue=\"%u\"", queue->index);
	if (label) {
		fputc(',', out);
		print_label(out, label, word);
	}
	fprintf(out, "} %llu\n", (unsigned long long)value);
}

/* Disks */

static void print_info(FILE *out, const struct machine *machine)
{
	print_family(out, "info", "gauge",
		     "The disk; its version is empty with the in-tree driver.");
	for (unsigned int i = 0; i < machine->nr_disks; i++) {
		const struct disk *disk = &machine->disks[i];
		const char *const labels[][2] = {
			{ "disk", disk->name }, { "serial", disk->serial },
			{ "driver", disk->driver }, { "version", disk->version },
			{ "device", disk->device }, { "bus", disk->transport },
		};

		fputs("virtio_blk_info{", out);
		for (size_t j = 0; j < ARRAY_SIZE(labels); j++) {
			fputs(j ? "," : "", out);
			print_label(out, labels[j][0], labels[j][1]);
		}
		fputs("} 1\n", out);
	}
}

static bool all_counted(const struct disk *disk)
{
	for (unsigned int i = 0; i < disk->nr_queues; i++)
		if (!disk->queues[i].counted)
			return false;
	return disk->nr_queues;
}

static void print_readable(FILE *out, const struct machine *machine)
{
	print_family(out, "readable", "gauge",
		     "Whether a source of metrics could be read: state, oldest_request and counters.");
	for (unsigned int i = 0; i < machine->nr_disks; i++) {
		const struct disk *disk = &machine->disks[i];

		print_value(out, "readable", disk, "source", "state", !!disk->state[0]);
		print_value(out, "readable", disk, "source", "oldest_request",
			    disk->oldest_ms != UNKNOWN);
		print_value(out, "readable", disk, "source", "counters",
			    all_counted(disk));
	}
}

static void print_states(FILE *out, const struct machine *machine)
{
	print_family(out, "state", "gauge",
		     "The state of the disk: 1 for the one that it is in.");
	for (unsigned int i = 0; i < machine->nr_disks; i++) {
		const struct disk *disk = &machine->disks[i];
		bool known = !disk->state[0];

		for (size_t j = 0; j < ARRAY_SIZE(states) && disk->state[0]; j++) {
			bool is_in = !strcmp(disk->state, states[j]);

			known |= is_in;
			print_value(out, "state", disk, "state", states[j], is_in);
		}
		/* Of a later driver. */
		if (!known)
			print_value(out, "state", disk, "state", disk->state, 1);
	}
}

static void print_seconds(FILE *out, uint64_t ms)
{
	fprintf(out, "%llu.%03u\n", (unsigned long long)(ms / 1000),
		(unsigned int)(ms % 1000));
}

static void print_age(FILE *out, const struct machine *machine)
{
	print_family(out, "oldest_request_seconds", "gauge",
		     "Age of the oldest request that the device has not answered; 0 without one.");
	for (unsigned int i = 0; i < machine->nr_disks; i++) {
		const struct disk *disk = &machine->disks[i];

		if (disk->oldest_ms == UNKNOWN)
			continue;
		fprintf(out, "virtio_blk_oldest_request_seconds{disk=\"%s\"} ",
			disk->name);
		print_seconds(out, disk->oldest_ms);
	}
}

static const struct {
	const char *metric;
	const char *help;
	size_t field;	/* of struct disk */
} recoveries[] = {
	{ "stalls_total", "How often the disk has stalled.",
	  offsetof(struct disk, stalls) },
	{ "timeouts_total", "Requests that timed out.",
	  offsetof(struct disk, timeouts) },
	{ "lost_interrupts_total",
	  "How often requests had completed and no interrupt came.",
	  offsetof(struct disk, lost_interrupts) },
	{ "resets_total", "How often the device came back from a reset by the driver.",
	  offsetof(struct disk, resets) },
};

static void print_recovery(FILE *out, const struct machine *machine)
{
	for (size_t i = 0; i < ARRAY_SIZE(recoveries); i++) {
		print_family(out, recoveries[i].metric, "counter", recoveries[i].help);
		for (unsigned int j = 0; j < machine->nr_disks; j++) {
			const struct disk *disk = &machine->disks[j];
			const void *field = (const char *)disk + recoveries[i].field;

			print_value(out, recoveries[i].metric, disk, NULL, "",
				    *(const uint64_t *)field);
		}
	}
}

/* Queues */

static void each_queue(FILE *out, const struct machine *machine,
		       void (*print)(FILE *out, const struct disk *disk,
				     const struct queue *queue, const void *data),
		       const void *data)
{
	for (unsigned int i = 0; i < machine->nr_disks; i++)
		for (unsigned int j = 0; j < machine->disks[i].nr_queues; j++)
			print(out, &machine->disks[i], &machine->disks[i].queues[j],
			      data);
}

static bool has_operation(const struct disk *disk, const struct operation *operation)
{
	return operation->feature == NO_FEATURE || !disk->features_known ||
	       disk->features[operation->feature];
}

static void print_requests(FILE *out, const struct disk *disk,
			   const struct queue *queue, const void *data)
{
	(void)data;
	for (size_t i = 0; i < ARRAY_SIZE(operations); i++)
		if (has_operation(disk, &operations[i]))
			print_queue_value(out, "requests_total", disk, queue, "operation",
					  operations[i].name,
					  queue->counter[operations[i].requests]);
}

static void print_bytes(FILE *out, const struct disk *disk, const struct queue *queue,
			const void *data)
{
	(void)data;
	for (size_t i = 0; i < ARRAY_SIZE(operations); i++)
		if (operations[i].bytes != NR_COUNTERS &&
		    has_operation(disk, &operations[i]))
			print_queue_value(out, "bytes_total", disk, queue, "operation",
					  operations[i].name,
					  queue->counter[operations[i].bytes]);
}

static void print_errors(FILE *out, const struct disk *disk, const struct queue *queue,
			 const void *data)
{
	(void)data;
	for (size_t i = 0; i < ARRAY_SIZE(statuses); i++)
		print_queue_value(out, "errors_total", disk, queue, "status",
				  statuses[i].name,
				  queue->counter[statuses[i].counter]);
}

static void print_metric(FILE *out, const struct disk *disk, const struct queue *queue,
			 const void *data)
{
	const struct queue_metric *metric = data;
	uint64_t value = queue->counter[metric->counter];

	if (!metric->ms) {
		print_queue_value(out, metric->name, disk, queue, NULL, "", value);
	} else if (value != UNKNOWN) {
		fprintf(out, "virtio_blk_%s{disk=\"%s\",queue=\"%u\"} ", metric->name,
			disk->name, queue->index);
		print_seconds(out, value);
	}
}

/* Slow requests.  Of a disk, because each queue would have 36 series. */

static const char *const slow_operations[NR_KINDS] = {
	[KIND_READS] = "read",
	[KIND_WRITES] = "write",
	[KIND_OTHERS] = "other",
};

static void print_slow_disk(FILE *out, const struct disk *disk, enum kind kind)
{
	uint64_t counts[NR_SLOW], more = 0;

	for (unsigned int i = NR_SLOW; i-- > 0;) {
		counts[i] = disk_slow(disk, kind, i);
		if (counts[i] == UNKNOWN)
			return;
		more += counts[i];
		counts[i] = more;
	}
	for (unsigned int i = 0; i < NR_SLOW; i++) {
		unsigned int ms = SLOW_MS << i;

		fprintf(out, "virtio_blk_slow_requests_total{disk=\"%s\",", disk->name);
		fprintf(out, "operation=\"%s\",at_least=\"%u.%03u\"} %llu\n",
			slow_operations[kind], ms / 1000, ms % 1000,
			(unsigned long long)counts[i]);
	}
}

static void print_slow(FILE *out, const struct machine *machine)
{
	print_family(out, "slow_requests_total", "counter",
		     "Requests that took at least so many seconds from sending to completion.");
	for (unsigned int i = 0; i < machine->nr_disks; i++)
		for (unsigned int kind = 0; kind < NR_KINDS; kind++)
			print_slow_disk(out, &machine->disks[i], kind);
}

static void print_queues(FILE *out, const struct machine *machine)
{
	print_family(out, "requests_total", "counter",
		     "Requests sent; a request that is sent again counts again.");
	each_queue(out, machine, print_requests, NULL);
	print_family(out, "bytes_total", "counter", "Bytes of the requests sent.");
	each_queue(out, machine, print_bytes, NULL);
	print_family(out, "errors_total", "counter",
		     "Requests that the device completed with another status than OK.");
	each_queue(out, machine, print_errors, NULL);
	for (size_t i = 0; i < ARRAY_SIZE(queue_metrics); i++) {
		print_family(out, queue_metrics[i].name,
			     queue_metrics[i].gauge ? "gauge" : "counter",
			     queue_metrics[i].help);
		each_queue(out, machine, print_metric, &queue_metrics[i]);
	}
}

static void print_metrics(FILE *out, const struct machine *machine)
{
	print_family(out, "disks", "gauge", "Number of virtio-blk disks.");
	fprintf(out, "virtio_blk_disks %u\n", machine->nr_disks);
	print_info(out, machine);
	print_readable(out, machine);
	print_states(out, machine);
	print_age(out, machine);
	print_recovery(out, machine);
	print_slow(out, machine);
	print_queues(out, machine);
}

/* The file */

/*
 * Replace a file in one step, because node_exporter may read it at any time.  It reads
 * files whose names end in .prom, which that of the new file does not.
 */
static void replace_file(const char *path, const struct machine *machine)
{
	char new[PATH_MAX];
	int fd, error = 0;
	FILE *out;

	if ((size_t)snprintf(new, sizeof(new), "%s.XXXXXX", path) >= sizeof(new))
		fail("--output=%s: the path is too long", path);
	fd = mkostemp(new, O_CLOEXEC);
	if (fd < 0)
		fail("cannot create %s: %s; does its directory exist, and may you write there?",
		     new, strerror(errno));
	out = fdopen(fd, "w");
	if (!out)
		fail("out of memory");
	print_metrics(out, machine);
	if (ferror(out) || fchmod(fd, 0644))
		error = errno;
	if (fclose(out) && !error)
		error = errno;
	if (!error && rename(new, path))
		error = errno;
	if (!error)
		return;
	unlink(new);
	fail("cannot write %s: %s", path, strerror(error));
}

int export_main(const struct request *request)
{
	struct machine machine;
	bool found = machine_read(&machine, request);

	/*
	 * Asking the device each time would cost a request, and a stalled disk would lose
	 * its serial number when that is needed.
	 */
	if (found)
		read_serials(&machine, true);
	if (found && request->output)
		replace_file(request->output, &machine);
	else if (found)
		print_metrics(stdout, &machine);
	if (found)
		notes_print(stderr);
	machine_free(&machine);
	return found ? ALL_WELL : FAILED;
}
