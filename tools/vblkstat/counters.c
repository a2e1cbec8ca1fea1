// SPDX-License-Identifier: GPL-2.0
/*
 * The driver's counters of each queue: virtio_blk/vdX/queueN in debugfs.  Each line
 * is a name and a value.  A later driver may have more names; they are ignored.
 */

#include <errno.h>
#include <string.h>

#include "vblkstat.h"

const char *const counter_names[NR_COUNTERS] = {
	[C_IRQ] = "irq",
	[C_RING] = "ring",
	[C_OWN_RING] = "own_ring",
	[C_FREE] = "free",
	[C_IN_FLIGHT] = "in_flight",
	[C_STOPPED] = "stopped",
	[C_OLDEST_MS] = "oldest_ms",
	[C_READS] = "reads",
	[C_READ_BYTES] = "read_bytes",
	[C_WRITES] = "writes",
	[C_WRITE_BYTES] = "write_bytes",
	[C_FLUSHES] = "flushes",
	[C_DISCARDS] = "discards",
	[C_DISCARD_BYTES] = "discard_bytes",
	[C_WRITE_ZEROES] = "write_zeroes",
	[C_WRITE_ZEROES_BYTES] = "write_zeroes_bytes",
	[C_SECURE_ERASES] = "secure_erases",
	[C_SECURE_ERASE_BYTES] = "secure_erase_bytes",
	[C_ZONE_APPENDS] = "zone_appends",
	[C_ZONE_APPEND_BYTES] = "zone_append_bytes",
	[C_ZONE_OPS] = "zone_ops",
	[C_QUERIES] = "queries",
	[C_KICKS] = "kicks",
	[C_KICKS_SUPPRESSED] = "kicks_suppressed",
	[C_INTERRUPTS] = "interrupts",
	[C_RING_FULL] = "ring_full",
	[C_REQUEUES] = "requeues",
	[C_IOERR] = "ioerr",
	[C_UNSUPP] = "unsupp",
	[C_OTHER_ERRORS] = "other_errors",
	[C_LONGEST_WAIT_MS] = "longest_wait_ms",
	[C_TIMEOUTS] = "timeouts",
	[C_LOST_INTERRUPTS] = "lost_interrupts",
	[C_RESENT] = "resent",
};

const char *const slow_names[NR_KINDS] = {
	[KIND_READS] = "slow_reads",
	[KIND_WRITES] = "slow_writes",
	[KIND_OTHERS] = "slow_others",
};

/* Parse a line of several numbers, all of them or none. */
static void parse_list(uint64_t *list, unsigned int count, const char *value)
{
	char *end;

	for (unsigned int i = 0; i < count; i++) {
		list[i] = parse_number(value, &end);
		if (list[i] == UNKNOWN) {
			memset(list, 0xff, count * sizeof(*list));
			return;
		}
		value = end;
	}
}

/* Return where a queue keeps the numbers of a line, NULL if it has one or none. */
static uint64_t *find_list(struct queue *queue, const char *name,
			   unsigned int *count)
{
	*count = NR_BATCHES;
	if (!strcmp(name, "completions"))
		return queue->batches;
	*count = NR_SLOW;
	for (unsigned int i = 0; i < NR_KINDS; i++)
		if (!strcmp(name, slow_names[i]))
			return queue->slow[i];
	return NULL;
}

static void parse_line(struct queue *queue, char *line)
{
	char *value = strchr(line, ' '), *end;
	unsigned int count;
	uint64_t *list;

	if (!value)
		return;
	*value++ = '\0';
	list = find_list(queue, line, &count);
	if (!strcmp(line, "type")) {
		copy_text(queue->type, sizeof(queue->type), value);
	} else if (!strcmp(line, "cpus")) {
		if (!queue->cpus.known)
			cpus_parse(&queue->cpus, value);
	} else if (list) {
		parse_list(list, count, value);
	} else {
		for (unsigned int i = 0; i < NR_COUNTERS; i++)
			if (!strcmp(line, counter_names[i]))
				queue->counter[i] = parse_number(value, &end);
	}
}

/* Read blk-mq's own files in debugfs, which exist with any driver. */
static void read_block_layer(const struct disk *disk, struct queue *queue)
{
	static const char in_use[] = "busy=";
	char text[MAX_TEXT], *value, *end;

	if (!queue->type[0] &&
	    read_text(text, sizeof(text), "/sys/kernel/debug/block/%s/hctx%u/type",
		      disk->name, queue->index))
		copy_text(queue->type, sizeof(queue->type), text);
	if (!read_text(text, sizeof(text), "/sys/kernel/debug/block/%s/hctx%u/tags",
		       disk->name, queue->index))
		return;
	value = strstr(text, in_use);
	if (value)
		queue->busy = parse_number(value + strlen(in_use), &end);
}

static bool read_queue(char *text, const struct disk *disk,
		       const struct queue *queue)
{
	if (read_text(text, MAX_TEXT, "/sys/kernel/debug/%s/%s/queue%u",
		      disk->driver, disk->name, queue->index))
		return true;
	return errno == ENOENT &&
	       read_text(text, MAX_TEXT, "/sys/kernel/debug/virtio_blk/%s/queue%u",
			 disk->name, queue->index);
}

/* Read a queue's files in debugfs.  Values that cannot be read are UNKNOWN. */
void counters_read(const struct disk *disk, struct queue *queue)
{
	char text[MAX_TEXT], *line, *save;

	for (unsigned int i = 0; i < NR_COUNTERS; i++)
		queue->counter[i] = UNKNOWN;
	/* All bits are 1 in UNKNOWN. */
	memset(queue->batches, 0xff, sizeof(queue->batches));
	memset(queue->slow, 0xff, sizeof(queue->slow));
	queue->busy = UNKNOWN;
	queue->counted = read_queue(text, disk, queue);
	if (!queue->counted && errno == EPERM)
		note_missing("the kernel is locked down and hides the counters of queues");
	for (line = strtok_r(text, "\n", &save); line;
	     line = strtok_r(NULL, "\n", &save))
		parse_line(queue, line);
	read_block_layer(disk, queue);
}

static uint64_t sum(const struct queue *queue, const enum counter *counters,
		    unsigned int count)
{
	uint64_t total = 0;

	if (!queue->counted)
		return UNKNOWN;
	for (unsigned int i = 0; i < count; i++)
		if (queue->counter[counters[i]] != UNKNOWN)
			total += queue->counter[counters[i]];
	return total;
}

/* Return how many requests the driver sent on a queue, UNKNOWN without counters. */
uint64_t counters_requests(const struct queue *queue)
{
	static const enum counter kinds[] = {
		C_READS, C_WRITES, C_FLUSHES, C_DISCARDS, C_WRITE_ZEROES,
		C_SECURE_ERASES, C_ZONE_APPENDS, C_ZONE_OPS, C_QUERIES,
	};

	return sum(queue, kinds, ARRAY_SIZE(kinds));
}

/* Return how many bytes a queue read and wrote, UNKNOWN without counters. */
uint64_t counters_bytes(const struct queue *queue)
{
	static const enum counter kinds[] = {
		C_READ_BYTES, C_WRITE_BYTES, C_ZONE_APPEND_BYTES,
	};

	return sum(queue, kinds, ARRAY_SIZE(kinds));
}

/* Return how much a counter grew, UNKNOWN if it began again or is not known. */
uint64_t find_growth(uint64_t before, uint64_t now)
{
	if (before == UNKNOWN || now == UNKNOWN || now < before)
		return UNKNOWN;
	return now - before;
}
