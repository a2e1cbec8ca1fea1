// SPDX-License-Identifier: GPL-2.0
/* vblkstat watch: rates and latency between two samples. */

#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "latency.h"

#define MIB		1048576.0
#define SECTOR		512.0
#define USUAL_ROWS	24

/* An unknown rate.  Known rates are never negative. */
#define NO_RATE		(-1.0)

double clock_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec + now.tv_nsec / 1e9;
}

void pause_until(double when)
{
	struct timespec until = { .tv_sec = when };

	until.tv_nsec = (when - until.tv_sec) * 1e9;
	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) ==
	       EINTR)
		;
}

/* Two samples of a disk, or of one of its queues. */
struct disk_pair {
	const struct disk *before;
	const struct disk *now;
	double seconds;
};

struct queue_pair {
	const struct queue *before;
	const struct queue *now;
	double seconds;
};

static double rate(uint64_t count, double seconds)
{
	return count == UNKNOWN || seconds <= 0 ? NO_RATE : count / seconds;
}

static double scaled(double number, double unit)
{
	return number < 0 ? number : number / unit;
}

/* Values of a disk: the block layer counts them, with any driver. */

static uint64_t disk_growth(const struct disk_pair *pair, enum figure stat)
{
	return find_growth(pair->before->stat[stat], pair->now->stat[stat]);
}

static double disk_rate(const struct disk_pair *pair, enum figure stat)
{
	return rate(disk_growth(pair, stat), pair->seconds);
}

/* Return the mean ms from a request's arrival in the block layer to completion. */
static double disk_ms(const struct disk_pair *pair, enum figure ms, enum figure count)
{
	return ratio(disk_growth(pair, ms), disk_growth(pair, count));
}

static double busy_percent(const struct disk_pair *pair)
{
	double busy = disk_rate(pair, S_BUSY_MS) / 10;

	return busy > 100 ? 100 : busy;
}

/* Values of a queue: our driver counts them. */

static uint64_t queue_growth(const struct queue_pair *pair, enum counter counter)
{
	return find_growth(pair->before->counter[counter],
			   pair->now->counter[counter]);
}

static double queue_rate(const struct queue_pair *pair, enum counter counter)
{
	return rate(queue_growth(pair, counter), pair->seconds);
}

static uint64_t queue_requests(const struct queue_pair *pair)
{
	return find_growth(counters_requests(pair->before),
			   counters_requests(pair->now));
}

static uint64_t queue_bytes(const struct queue_pair *pair)
{
	return find_growth(counters_bytes(pair->before), counters_bytes(pair->now));
}

/* Return the rate of requests that are neither reads nor writes. */
static double other_rate(const struct queue_pair *pair)
{
	uint64_t all = queue_requests(pair);
	uint64_t reads = queue_growth(pair, C_READS);
	uint64_t writes = queue_growth(pair, C_WRITES);

	if (all == UNKNOWN || reads == UNKNOWN || writes == UNKNOWN)
		return NO_RATE;
	return rate(all - reads - writes, pair->seconds);
}

/* Use the driver's counter, or else the kernel's count of the queue's own vector. */
static uint64_t queue_interrupts(const struct queue_pair *pair)
{
	uint64_t counted = queue_growth(pair, C_INTERRUPTS);

	if (counted != UNKNOWN || pair->now->vector != VECTOR_OWN)
		return counted;
	return find_growth(pair->before->interrupts, pair->now->interrupts);
}

/* Return how many requests completed per interrupt. */
static double completed_per_interrupt(const struct queue_pair *pair)
{
	uint64_t sent = queue_requests(pair);
	uint64_t before = pair->before->counter[C_IN_FLIGHT];
	uint64_t now = pair->now->counter[C_IN_FLIGHT];

	if (sent == UNKNOWN || before == UNKNOWN || now == UNKNOWN ||
	    now > sent + before)
		return NO_RATE;
	return ratio(sent + before - now, queue_interrupts(pair));
}

/* Find the two samples. */

static bool pair_disk(struct disk_pair *pair, const struct machine *before,
		      const struct disk *now)
{
	pair->now = now;
	pair->before = machine_disk(before, now->name);
	if (!pair->before || pair->before->seq != now->seq ||
	    strcmp(pair->before->device, now->device))
		return false;
	pair->seconds = now->when - pair->before->when;
	return true;
}

static bool pair_queue(struct queue_pair *pair, const struct disk_pair *disks,
		       unsigned int index)
{
	const struct disk *before = disks->before;

	pair->now = &disks->now->queues[index];
	pair->seconds = disks->seconds;
	for (unsigned int i = 0; i < before->nr_queues; i++) {
		pair->before = &before->queues[i];
		if (pair->before->index == pair->now->index)
			return true;
	}
	return false;
}

/* Text output */

/* Columns that show a stall. */
static void print_state(const struct machine *before, const struct machine *now,
			FILE *out)
{
	static const struct column columns[] = {
		{ "DISK", true, 0 }, { "STATE", true, 0 },
		{ "IN FLIGHT", false, 0 }, { "OLDEST", false, 0 },
		{ "BUSY %", false, 0 }, { "READ MS", false, 0 },
		{ "WRITE MS", false, 0 }, { "FLUSH MS", false, 0 },
	};
	struct table table = { .columns = columns,
			       .nr_columns = ARRAY_SIZE(columns) };
	struct disk_pair pair;

	for (unsigned int i = 0; i < now->nr_disks; i++) {
		if (!pair_disk(&pair, before, &now->disks[i]))
			continue;
		table_name(&table, pair.now->name);
		table_name(&table, pair.now->state);
		table_number(&table, disk_in_flight(pair.now));
		table_age(&table, pair.now->oldest_ms);
		table_float(&table, busy_percent(&pair), 0);
		table_float(&table, disk_ms(&pair, S_READ_MS, S_READS), 2);
		table_float(&table, disk_ms(&pair, S_WRITE_MS, S_WRITES), 2);
		table_float(&table, disk_ms(&pair, S_FLUSH_MS, S_FLUSHES), 2);
	}
	table_print(&table, out);
}

static void print_rates(const struct machine *before, const struct machine *now,
			FILE *out)
{
	static const struct column columns[] = {
		{ "DISK", true, 0 }, { "READ/S", false, 0 },
		{ "WRITE/S", false, 0 }, { "DISCARD/S", false, 0 },
		{ "FLUSH/S", false, 0 }, { "READ MIB/S", false, 0 },
		{ "WRITE MIB/S", false, 0 },
	};
	static const enum figure requests[] = { S_READS, S_WRITES, S_DISCARDS,
						S_FLUSHES };
	static const enum figure sectors[] = { S_READ_SECTORS, S_WRITE_SECTORS };
	struct table table = { .columns = columns,
			       .nr_columns = ARRAY_SIZE(columns) };
	struct disk_pair pair;

	for (unsigned int i = 0; i < now->nr_disks; i++) {
		if (!pair_disk(&pair, before, &now->disks[i]))
			continue;
		table_name(&table, pair.now->name);
		for (size_t j = 0; j < ARRAY_SIZE(requests); j++)
			table_rate(&table, disk_rate(&pair, requests[j]));
		for (size_t j = 0; j < ARRAY_SIZE(sectors); j++)
			table_rate(&table, scaled(disk_rate(&pair, sectors[j]),
						  MIB / SECTOR));
	}
	table_print(&table, out);
}

static void add_queue_row(struct table *table, const char *disk,
			  const struct queue_pair *pair)
{
	table_text(table, "%s %u", disk, pair->now->index);
	table_number(table, queue_in_flight(pair->now));
	table_age(table, pair->now->counter[C_OLDEST_MS]);
	table_rate(table, queue_rate(pair, C_READS));
	table_rate(table, queue_rate(pair, C_WRITES));
	table_rate(table, other_rate(pair));
	table_rate(table, scaled(rate(queue_bytes(pair), pair->seconds), MIB));
	table_float(table, ratio(queue_growth(pair, C_KICKS),
				 queue_requests(pair)), 2);
	table_rate(table, rate(queue_interrupts(pair), pair->seconds));
	table_float(table, completed_per_interrupt(pair), 2);
	table_rate(table, queue_rate(pair, C_RING_FULL));
}

static void print_queues(const struct machine *before, const struct machine *now,
			 FILE *out)
{
	static const struct column columns[] = {
		{ "QUEUE", true, 0 }, { "FLIGHT", false, 0 },
		{ "OLDEST", false, 0 }, { "READ/S", false, 0 },
		{ "WRITE/S", false, 0 }, { "OTHER/S", false, 0 },
		{ "MIB/S", false, 0 }, { "KICK/IO", false, 0 },
		{ "IRQ/S", false, 0 }, { "IO/IRQ", false, 0 },
		{ "FULL/S", false, 0 },
	};
	struct table table = { .columns = columns,
			       .nr_columns = ARRAY_SIZE(columns) };
	struct disk_pair disks;
	struct queue_pair pair;

	for (unsigned int i = 0; i < now->nr_disks; i++) {
		if (!pair_disk(&disks, before, &now->disks[i]))
			continue;
		for (unsigned int j = 0; j < disks.now->nr_queues; j++)
			if (pair_queue(&pair, &disks, j))
				add_queue_row(&table, disks.now->name, &pair);
	}
	table_print(&table, out);
}

static void note_iostats(const struct machine *machine)
{
	for (unsigned int i = 0; i < machine->nr_disks; i++)
		if (!machine->disks[i].iostats)
			note("%s: the block layer does not count I/O; run \"echo 1 > %s/sys/block/%s/queue/iostats\"",
			     machine->disks[i].name, root,
			     machine->disks[i].name);
}

static void print_time(FILE *out)
{
	fprintf(out, "%s\n", clock_text(time(NULL)));
}

static void print_tables(const struct request *request,
			 const struct machine *before, const struct machine *now,
			 FILE *out)
{
	print_time(out);
	if (request->histogram) {
		print_latency_of_disks(now, out);
		print_histograms(now, out);
		return;
	}
	print_state(before, now, out);
	fputc('\n', out);
	print_rates(before, now, out);
	print_latency_of_disks(now, out);
	fputc('\n', out);
	print_queues(before, now, out);
	print_latency_of_queues(now, out);
}

/* Draw as many lines as fit on the screen. */
static void draw(const char *text)
{
	struct winsize size = { .ws_row = USUAL_ROWS };
	unsigned int row = 1, rows, left = 0;
	size_t length;

	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) || size.ws_row < 4)
		size.ws_row = USUAL_ROWS;
	rows = size.ws_row - 2;
	fputs("\033[H", stdout);
	for (; *text; text += length + (text[length] == '\n')) {
		length = strcspn(text, "\n");
		if (row++ > rows) {
			left++;
			continue;
		}
		printf("%.*s\033[K\n", (int)(length < screen_width() ?
					     length : screen_width() - 1), text);
	}
	if (left)
		printf("(%u more lines; name a disk to see less)\033[K\n", left);
	fputs("\033[J", stdout);
}

static void redraw(const struct request *request, const struct machine *before,
		   const struct machine *now)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	if (!out)
		fail("out of memory");
	print_tables(request, before, now, out);
	fputc('\n', out);
	for (unsigned int i = 0; i < notes_count(); i++)
		fprintf(out, "%s\n", notes_text(i));
	if (fclose(out))
		fail("out of memory");
	draw(text);
	free(text);
}

/* JSON output */

static void json_queue(struct json *json, const struct queue_pair *pair,
		       const struct disk *disk, bool buckets)
{
	json_open(json, NULL, '{');
	json_number(json, "queue", pair->now->index);
	json_float(json, "reads_per_second", queue_rate(pair, C_READS));
	json_float(json, "writes_per_second", queue_rate(pair, C_WRITES));
	json_float(json, "others_per_second", other_rate(pair));
	json_float(json, "bytes_per_second",
		   rate(queue_bytes(pair), pair->seconds));
	json_float(json, "kicks_per_second", queue_rate(pair, C_KICKS));
	json_float(json, "kicks_per_request",
		   ratio(queue_growth(pair, C_KICKS), queue_requests(pair)));
	json_float(json, "interrupts_per_second",
		   rate(queue_interrupts(pair), pair->seconds));
	json_float(json, "requests_per_interrupt", completed_per_interrupt(pair));
	json_float(json, "ring_full_per_second", queue_rate(pair, C_RING_FULL));
	json_number(json, "in_flight", queue_in_flight(pair->now));
	json_number(json, "oldest_ms", pair->now->counter[C_OLDEST_MS]);
	json_latency(json, disk, pair->now->index, buckets);
	json_close(json, '}');
}

static void json_disk(struct json *json, const struct disk_pair *pair, bool buckets)
{
	struct queue_pair queues;

	json_open(json, NULL, '{');
	json_string(json, "name", pair->now->name);
	json_float(json, "seconds", pair->seconds);
	json_float(json, "reads_per_second", disk_rate(pair, S_READS));
	json_float(json, "writes_per_second", disk_rate(pair, S_WRITES));
	json_float(json, "discards_per_second", disk_rate(pair, S_DISCARDS));
	json_float(json, "flushes_per_second", disk_rate(pair, S_FLUSHES));
	json_float(json, "read_bytes_per_second",
		   scaled(disk_rate(pair, S_READ_SECTORS), 1 / SECTOR));
	json_float(json, "write_bytes_per_second",
		   scaled(disk_rate(pair, S_WRITE_SECTORS), 1 / SECTOR));
	json_float(json, "read_ms", disk_ms(pair, S_READ_MS, S_READS));
	json_float(json, "write_ms", disk_ms(pair, S_WRITE_MS, S_WRITES));
	json_float(json, "discard_ms", disk_ms(pair, S_DISCARD_MS, S_DISCARDS));
	json_float(json, "flush_ms", disk_ms(pair, S_FLUSH_MS, S_FLUSHES));
	json_string(json, "state", pair->now->state);
	json_number(json, "in_flight", disk_in_flight(pair->now));
	json_number(json, "oldest_ms", pair->now->oldest_ms);
	json_float(json, "busy_percent", busy_percent(pair));
	json_latency(json, pair->now, ALL_QUEUES, buckets);
	json_open(json, "queues", '[');
	for (unsigned int i = 0; i < pair->now->nr_queues; i++)
		if (pair_queue(&queues, pair, i))
			json_queue(json, &queues, pair->now, buckets);
	json_close(json, ']');
	json_close(json, '}');
}

static void print_json(const struct request *request, const struct machine *before,
		       const struct machine *now)
{
	struct json json = { .out = stdout };
	struct disk_pair pair;

	json_begin(&json, "watch");
	json_number(&json, "time", time(NULL));
	json_open(&json, "disks", '[');
	for (unsigned int i = 0; i < now->nr_disks; i++)
		if (pair_disk(&pair, before, &now->disks[i]))
			json_disk(&json, &pair, request->histogram);
	json_close(&json, ']');
	json_end(&json);
}

static void show(const struct request *request, const struct machine *before,
		 const struct machine *now, bool first)
{
	note_iostats(now);
	if (request->json) {
		print_json(request, before, now);
	} else if (isatty(STDOUT_FILENO)) {
		if (first)
			fputs("\033[2J", stdout);
		redraw(request, before, now);
	} else {
		if (!first)
			putchar('\n');
		print_tables(request, before, now, stdout);
		notes_print(stderr);
	}
	/* Flush at once for the reader.  This fails if the reader has exited. */
	if (fflush(stdout))
		fail("cannot write to standard output: %s", strerror(errno));
}

int watch_main(const struct request *request)
{
	struct machine before, now;
	double next = clock_now();
	bool found = machine_read(&before, request);

	if (found)
		latency_sample(&before);
	for (unsigned long i = 0; found && (!request->count || i < request->count);
	     i++) {
		next += request->interval;
		/* Skip samples that were missed while the machine slept. */
		if (next < clock_now())
			next = clock_now() + request->interval;
		pause_until(next);
		found = machine_read(&now, request);
		if (found) {
			latency_sample(&now);
			show(request, &before, &now, !i);
		}
		machine_free(&before);
		before = now;
	}
	machine_free(&before);
	latency_close();
	return found ? ALL_WELL : FAILED;
}
