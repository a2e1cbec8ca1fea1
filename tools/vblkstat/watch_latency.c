// SPDX-License-Identifier: GPL-2.0
/* vblkstat watch: how long requests take. */

#include <string.h>

#include "latency.h"

/* Below 1024 ns, then doublings: see bucket_ns(). */
#define NR_ROWS		30

/* Columns of a histogram: a time, and a count with a bar for each kind of requests. */
#define TIME_WIDTH	7
#define COUNT_WIDTH	7
#define MAX_BAR		60

/* Return a time such as "9.8 us" or "320 ms", of at most 6 characters; "-": not known. */
static const char *time_text(double ns)
{
	static const char *const units[] = { "ns", "us", "ms", "s" };
	static char text[32];
	unsigned int unit = 0;

	if (ns < 0)
		return "-";
	while (ns >= 999.5 && unit < ARRAY_SIZE(units) - 1) {
		ns /= 1000;
		unit++;
	}
	snprintf(text, sizeof(text), "%.*f %s", unit && ns < 9.95, ns, units[unit]);
	return text;
}

/* Tables */

/* Add p50, p99 and the longest time of each kind. */
static void add_times(struct table *table, const struct disk *disk,
		      unsigned int queue)
{
	struct histogram histogram;

	for (unsigned int kind = 0; kind < NR_KINDS; kind++) {
		/* An interval that is not known is empty. */
		if (!latency_interval(&histogram, disk, queue, kind))
			memset(&histogram, 0, sizeof(histogram));
		table_text(table, "%s",
			   time_text(histogram_percentile(&histogram, 50)));
		table_text(table, "%s",
			   time_text(histogram_percentile(&histogram, 99)));
		table_text(table, "%s", time_text(histogram_max(&histogram)));
	}
}

static bool is_known(const struct disk *disk)
{
	struct histogram histogram;

	return latency_interval(&histogram, disk, ALL_QUEUES, KIND_READS);
}

static bool any_known(const struct machine *machine)
{
	for (unsigned int i = 0; i < machine->nr_disks; i++)
		if (is_known(&machine->disks[i]))
			return true;
	return false;
}

static void print_latency(const struct machine *machine, FILE *out, bool queues)
{
	const struct column columns[] = {
		{ queues ? "QUEUE" : "DISK", true, 5 },
		{ "READ P50", false, 0 }, { "P99", false, 0 }, { "MAX", false, 0 },
		{ "WRITE P50", false, 0 }, { "P99", false, 0 }, { "MAX", false, 0 },
		{ "OTHER P50", false, 0 }, { "P99", false, 0 }, { "MAX", false, 0 },
	};
	struct table table = { .columns = columns,
			       .nr_columns = ARRAY_SIZE(columns) };

	/* A note says why there is nothing to show. */
	if (!any_known(machine))
		return;
	for (unsigned int i = 0; i < machine->nr_disks; i++) {
		const struct disk *disk = &machine->disks[i];

		if (!queues) {
			table_name(&table, disk->name);
			add_times(&table, disk, ALL_QUEUES);
		}
		for (unsigned int j = 0; queues && j < disk->nr_queues; j++) {
			table_text(&table, "%s %u", disk->name,
				   disk->queues[j].index);
			add_times(&table, disk, disk->queues[j].index);
		}
	}
	fputc('\n', out);
	table_print(&table, out);
}

void print_latency_of_disks(const struct machine *machine, FILE *out)
{
	print_latency(machine, out, false);
}

void print_latency_of_queues(const struct machine *machine, FILE *out)
{
	print_latency(machine, out, true);
}

/* Histograms */

/* Counts by doubling. */
struct rows {
	uint64_t counts[NR_ROWS];
	uint64_t most;
};

static unsigned int find_row(unsigned int bucket)
{
	return bucket < 2 ? bucket : bucket < 4 ? 2 : bucket / 4 + 2;
}

/* Return where a row begins. */
static uint64_t row_ns(unsigned int row)
{
	return row ? (uint64_t)BUCKET_NS << (row - 1) : 0;
}

static void count_rows(struct rows *rows, const struct histogram *histogram)
{
	memset(rows, 0, sizeof(*rows));
	for (unsigned int i = 0; i < NR_BUCKETS; i++) {
		uint64_t *count = &rows->counts[find_row(i)];

		*count += histogram->counts[i];
		if (*count > rows->most)
			rows->most = *count;
	}
}

/* Return whether no kind has a request in a row. */
static bool is_empty(const struct rows *kinds, unsigned int row)
{
	for (unsigned int i = 0; i < NR_KINDS; i++)
		if (kinds[i].counts[row])
			return false;
	return true;
}

/* Return a count of at most 7 characters: from 10 million on in thousands, and so on. */
static const char *count_text(uint64_t count)
{
	static const char *const units[] = { "", "k", "M", "G", "T" };
	static char text[32];
	unsigned int unit = 0;

	while (count >= (unit ? 1000000 : 10000000) && unit < ARRAY_SIZE(units) - 1) {
		count /= 1000;
		unit++;
	}
	snprintf(text, sizeof(text), "%llu%s", (unsigned long long)count, units[unit]);
	return text;
}

/* A count that is not 0 has a bar that can be seen. */
static unsigned int scale_bar(const struct rows *rows, unsigned int row,
			      unsigned int width)
{
	uint64_t count = rows->counts[row];
	double length = rows->most ? (double)count * width / rows->most : 0;

	return count && length < 1 ? 1 : length;
}

/* Return how wide bars can be. */
static unsigned int fit_bars(void)
{
	unsigned int used = TIME_WIDTH + NR_KINDS * (2 + COUNT_WIDTH + 1) + 1;
	unsigned int width = screen_width();

	width = width > used + NR_KINDS ? (width - used) / NR_KINDS : 1;
	return width < MAX_BAR ? width : MAX_BAR;
}

static void print_row(FILE *out, const struct rows *kinds, unsigned int row)
{
	static const char bar[] =
		"############################################################";
	unsigned int width = fit_bars();

	fprintf(out, "%*s", TIME_WIDTH, time_text(row_ns(row)));
	for (unsigned int i = 0; i < NR_KINDS; i++) {
		unsigned int length = scale_bar(&kinds[i], row, width);

		fprintf(out, "  %*s", COUNT_WIDTH, count_text(kinds[i].counts[row]));
		if (i < NR_KINDS - 1)
			fprintf(out, " %-*.*s", width, length, bar);
		else if (length)
			fprintf(out, " %.*s", length, bar);
	}
	fputc('\n', out);
}

/* Print the slowest requests first: a terminal may have no room for all rows. */
static void print_rows(FILE *out, const struct disk *disk, const struct rows *kinds)
{
	unsigned int first = 0, end = NR_ROWS;

	while (first < end && is_empty(kinds, first))
		first++;
	while (end > first && is_empty(kinds, end - 1))
		end--;
	if (first == end) {
		fprintf(out, "%s: no requests\n", disk->name);
		return;
	}
	fprintf(out, "%-*s  %*s %*s  %*s %*s  %*s\n", TIME_WIDTH, disk->name, COUNT_WIDTH,
		"READS", fit_bars(), "", COUNT_WIDTH, "WRITES", fit_bars(), "",
		COUNT_WIDTH, "OTHERS");
	while (end-- > first)
		print_row(out, kinds, end);
}

static void print_histogram(FILE *out, const struct disk *disk)
{
	struct rows kinds[NR_KINDS];
	struct histogram histogram;

	for (unsigned int i = 0; i < NR_KINDS; i++) {
		if (!latency_interval(&histogram, disk, ALL_QUEUES, i)) {
			fprintf(out, "%s: -\n", disk->name);
			return;
		}
		count_rows(&kinds[i], &histogram);
	}
	print_rows(out, disk, kinds);
}

/* Print a bar for each doubling of the time that requests took. */
void print_histograms(const struct machine *machine, FILE *out)
{
	for (unsigned int i = 0; i < machine->nr_disks; i++) {
		fputc('\n', out);
		print_histogram(out, &machine->disks[i]);
	}
}

/* JSON */

static void json_buckets(struct json *json, const struct histogram *histogram)
{
	json_open(json, "buckets", '[');
	for (unsigned int i = 0; i < NR_BUCKETS; i++) {
		if (!histogram->counts[i])
			continue;
		json_open(json, NULL, '{');
		json_number(json, "from_ns", bucket_ns(i));
		json_number(json, "to_ns", bucket_ns(i + 1));
		json_number(json, "requests", histogram->counts[i]);
		json_close(json, '}');
	}
	json_close(json, ']');
}

/* Print the times of a queue, or of ALL_QUEUES of a disk. */
void json_latency(struct json *json, const struct disk *disk, unsigned int queue,
		  bool buckets)
{
	struct histogram kinds[NR_KINDS];
	bool known = true;

	for (unsigned int i = 0; i < NR_KINDS; i++)
		known &= latency_interval(&kinds[i], disk, queue, i);
	if (!known) {
		json_null(json, "latency");
		return;
	}
	json_open(json, "latency", '{');
	for (unsigned int i = 0; i < NR_KINDS; i++) {
		json_open(json, kind_names[i], '{');
		json_number(json, "requests", histogram_count(&kinds[i]));
		json_float(json, "p50_us", histogram_percentile(&kinds[i], 50) / 1e3);
		json_float(json, "p99_us", histogram_percentile(&kinds[i], 99) / 1e3);
		json_float(json, "max_us", histogram_max(&kinds[i]) / 1e3);
		if (buckets)
			json_buckets(json, &kinds[i]);
		json_close(json, '}');
	}
	json_close(json, '}');
}
