// SPDX-License-Identifier: GPL-2.0
/*
 * vblkstat doctor: some requests are late, although most are fast.
 *
 * The driver counts requests that took 16 ms or longer.  A request is late if it took
 * far longer than most of its kind.  If many are late since the disk was added or
 * cleared, the tail is past.  If many are late between the two readings, it is of now.
 */

#include <stdlib.h>
#include <string.h>

#include "doctor.h"

/*
 * A request is late if it takes 256 ms or longer (16 ms, doubled four times), and eight
 * times as long as half of its kind do not reach.  A hard disk needs some 8 ms for a
 * request, and 256 ms for the last of 32 in its queue.  If its queue is full all the time,
 * or flushes take 50 ms, half of the requests are slow, and the limit is higher.
 *
 * The guest can also cause late requests itself.  If it sends 256 at once to a disk that
 * serves 500 in a second, the last of them takes half a second.  The counts do not show
 * this, so the advice begins with the load of the guest.
 */
#define LATE_INDEX	4
#define LATE_DOUBLINGS	3

/* One late request in so many is a tail: the p99 that monitoring usually shows. */
#define TAIL_SHARE	100

/* So many are a tail, in addition to those that one pause of the host can delay. */
#define MIN_LATE	20

/* A tail of the past is of now if so many more are late: one or two can be chance. */
#define MIN_MORE	3

/* From 4096 ms on: long-wait and timeouts report these requests as well. */
#define LONG_INDEX	8

/*
 * A stall delays the requests that arrive before its end by any time up to its length,
 * evenly spread.  If it takes 5 s or longer, fewer than 8 requests are late for each one
 * that it delays by 4096 ms or more.
 */
#define STALL_RATIO	8

/**
 * struct sample - the requests of a disk in one period
 * @now: the period is the time between the two readings
 * @end: leave out requests that took so long: 16 ms, doubled so many times
 * @least: fewer late requests are no tail
 * @all: requests that the driver sent; OTHERS are flushes only
 * @slow: those that completed, by the time that they took
 */
struct sample {
	const struct doctor *doctor;
	const struct disk *disk;
	bool now;
	unsigned int end;
	uint64_t least;
	uint64_t all[NR_KINDS];
	uint64_t slow[NR_KINDS][NR_SLOW];
};

static const char *const kind_words[NR_KINDS] = {
	[KIND_READS] = "reads",
	[KIND_WRITES] = "writes",
	[KIND_OTHERS] = "flushes",
};

static uint64_t replace_unknown(uint64_t count)
{
	return count == UNKNOWN ? 0 : count;
}

/* Count */

/* Return how many slow requests the disk completed in the period. */
static uint64_t count_slow(const struct sample *sample, enum kind kind,
			   unsigned int index)
{
	const struct doctor *doctor = sample->doctor;
	const struct disk *disk = sample->disk;

	if (sample->now)
		return replace_unknown(find_growth(disk_slow(doctor->earlier, kind, index),
						   disk_slow(disk, kind, index)));
	return replace_unknown(slow_since(doctor, disk, kind, index));
}

/* Return how many requests the disk was sent in the period. */
static uint64_t count_sent(const struct sample *sample, enum counter counter)
{
	const struct doctor *doctor = sample->doctor;
	const struct disk *disk = sample->disk;

	if (sample->now)
		return replace_unknown(find_growth(disk_sent(doctor->earlier, counter),
						   disk_sent(disk, counter)));
	return replace_unknown(sent_since(doctor, disk, counter));
}

/*
 * The driver counts slow flushes together with requests that may take long on healthy
 * storage, such as discards.  Take all of these for the slowest, so that those that are
 * left are flushes for sure.
 */
static void leave_flushes(struct sample *sample)
{
	static const enum counter rest[] = {
		C_DISCARDS, C_WRITE_ZEROES, C_SECURE_ERASES, C_ZONE_APPENDS,
		C_ZONE_OPS, C_QUERIES,
	};
	uint64_t *slow = sample->slow[KIND_OTHERS], left = 0;

	for (size_t i = 0; i < ARRAY_SIZE(rest); i++)
		left += count_sent(sample, rest[i]);
	for (unsigned int i = NR_SLOW; i-- > 0;) {
		uint64_t some = slow[i] < left ? slow[i] : left;

		slow[i] -= some;
		left -= some;
	}
}

static void count_requests(struct sample *sample)
{
	sample->all[KIND_READS] = count_sent(sample, C_READS);
	sample->all[KIND_WRITES] = count_sent(sample, C_WRITES);
	sample->all[KIND_OTHERS] = count_sent(sample, C_FLUSHES);
	for (unsigned int kind = 0; kind < NR_KINDS; kind++)
		for (unsigned int i = 0; i < NR_SLOW; i++)
			sample->slow[kind][i] = count_slow(sample, kind, i);
	leave_flushes(sample);
}

static uint64_t count_from(const uint64_t *slow, unsigned int first,
			   unsigned int end)
{
	uint64_t sum = 0;

	for (unsigned int i = first; i < end; i++)
		sum += slow[i];
	return sum;
}

/* Return how often to double 16 ms for a time that half of a kind do not reach. */
static unsigned int find_usual(const struct sample *sample, enum kind kind)
{
	const uint64_t *slow = sample->slow[kind];
	unsigned int i = 0;

	while (i < NR_SLOW && count_from(slow, i, NR_SLOW) > sample->all[kind] / 2)
		i++;
	return i;
}

static unsigned int find_first_late(const struct sample *sample, enum kind kind)
{
	unsigned int first = find_usual(sample, kind) + LATE_DOUBLINGS;

	return first < LATE_INDEX ? LATE_INDEX : first;
}

static uint64_t count_late(const struct sample *sample, enum kind kind)
{
	return count_from(sample->slow[kind], find_first_late(sample, kind), sample->end);
}

static uint64_t count_all_late(const struct sample *sample)
{
	uint64_t sum = 0;

	for (unsigned int kind = 0; kind < NR_KINDS; kind++)
		sum += count_late(sample, kind);
	return sum;
}

/* Return whether late requests are at least 1 in 100. */
static bool is_share(uint64_t late, uint64_t all)
{
	return late >= all / TAIL_SHARE + !!(all % TAIL_SHARE);
}

static bool has_tail(const struct sample *sample, enum kind kind)
{
	uint64_t late = count_late(sample, kind);

	return late >= sample->least && is_share(late, sample->all[kind]);
}

/* Return how many of a queue's requests are late, also those that were cleared. */
static uint64_t count_late_of_queue(const struct sample *sample, unsigned int queue,
				    enum kind kind)
{
	const struct disk *disk = sample->disk, *before = sample->doctor->earlier;
	uint64_t sum = 0;

	for (unsigned int i = find_first_late(sample, kind); i < sample->end; i++) {
		uint64_t count = disk->queues[queue].slow[kind][i];

		if (sample->now && queue < before->nr_queues)
			count = find_growth(before->queues[queue].slow[kind][i], count);
		sum += replace_unknown(count);
	}
	return sum;
}

/* The text */

/* "256 to 511 ms", or "32768 ms or longer" */
static void print_times(FILE *out, const struct sample *sample, enum kind kind)
{
	unsigned int first = find_first_late(sample, kind), last = sample->end - 1;
	const uint64_t *slow = sample->slow[kind];

	while (!slow[first])
		first++;
	while (!slow[last])
		last--;
	if (last == NR_SLOW - 1)
		fprintf(out, "%u ms or longer", SLOW_MS << first);
	else
		fprintf(out, "%u to %u ms", SLOW_MS << first,
			(SLOW_MS << (last + 1)) - 1);
}

/* ", on queues 1, 3", or ", on all 4 queues" */
static void print_queues(FILE *out, const struct sample *sample, enum kind kind)
{
	const struct disk *disk = sample->disk;
	struct names queues = { };
	uint64_t sum = 0;

	for (unsigned int i = 0; i < disk->nr_queues; i++) {
		uint64_t late = queue_is_polled(&disk->queues[i]) ? 0 :
				count_late_of_queue(sample, i, kind);

		sum += late;
		if (late)
			add_name(&queues, "%u", disk->queues[i].index);
	}
	/*
	 * Some of these requests were cleared, or are discards that count with the
	 * flushes.  Which queues had them is not known.
	 */
	if (sum != count_late(sample, kind))
		return;
	if (queues.count > 1 && queues.count == disk->nr_queues)
		fprintf(out, ", on all %u queues", queues.count);
	else
		fprintf(out, ", on queue%s %s", queues.count == 1 ? "" : "s",
			queues.text);
}

/* "2000 of 18000 reads (11.1%) took 256 to 511 ms, on queues 1, 3; most ..." */
static void print_kind(FILE *out, const struct sample *sample, enum kind kind,
		       bool first)
{
	uint64_t late = count_late(sample, kind), all = sample->all[kind];

	/* Requests that were in flight at the first reading were sent before it. */
	if (all < late)
		all = late;
	fprintf(out, "%s%llu of %llu %s (%.1f%%) took ", first ? "" : "; ",
		(unsigned long long)late, (unsigned long long)all, kind_words[kind],
		100.0 * late / all);
	print_times(out, sample, kind);
	fputs(first ? "" : " as well", out);
	print_queues(out, sample, kind);
	fprintf(out, "; most %s take less than %u ms", kind_words[kind],
		SLOW_MS << find_usual(sample, kind));
}

/* Print all kinds that have a tail.  Return how many of their requests are late. */
static uint64_t print_sample(FILE *out, const struct sample *sample)
{
	uint64_t count = 0;

	if (sample->now)
		fprintf(out, "in the last %.1f s, ",
			sample->disk->when - sample->doctor->earlier->when);
	for (unsigned int kind = 0; kind < NR_KINDS; kind++) {
		if (!has_tail(sample, kind))
			continue;
		print_kind(out, sample, kind, !count);
		count += count_late(sample, kind);
	}
	return count;
}

/* Report all kinds that have a tail as one finding.  Return NULL if none has. */
static struct finding *add_tail(struct doctor *doctor, const struct sample *sample)
{
	struct finding *new = NULL;
	char *text = NULL;
	uint64_t count;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	if (!out)
		fail("out of memory");
	count = print_sample(out, sample);
	if (fclose(out))
		fail("out of memory");
	if (count) {
		new = add_finding(doctor, sample->disk, WARNING, "tail-latency", "%s",
				  text);
		advise(new,
		       "Programs wait for the slowest of their requests, and a mean hides this. See IN FLIGHT in \"vblkstat watch DISK\": if it is high, the guest sends more than the disk can take.",
		       "Otherwise run \"iostat -x 1\". If r_await or w_await of the storage behind the disk rises, the storage is late: a medium that fails, a full cache, or a neighbour that loads it. If not, look for a limit of the disk: \"virsh blkdeviotune VM TARGET\", or \"info block\" in QEMU's monitor.",
		       "Run \"vblkstat watch --histogram DISK\" to see whether it continues, and \"vmstat 1\": with st above 0 the host gives the guest's CPUs to others. After a change run \"vblkstat doctor --clear DISK\", and later \"vblkstat doctor DISK 300\".");
		new->count = count;
	}
	free(text);
	return new;
}

/* What delayed them */

/* Return how many completed requests took 4096 ms or longer. */
uint64_t count_long_requests(const struct doctor *doctor, const struct disk *disk)
{
	uint64_t sum = 0;

	for (unsigned int kind = 0; kind < NR_KINDS; kind++)
		for (unsigned int i = LONG_INDEX; i < NR_SLOW; i++)
			sum += replace_unknown(slow_since(doctor, disk, kind, i));
	return sum;
}

/* Return how many requests can be in flight, on all queues that are not polled. */
static uint64_t sum_depths(const struct disk *disk)
{
	uint64_t sum = 0;

	for (unsigned int i = 0; i < disk->nr_queues; i++)
		if (!queue_is_polled(&disk->queues[i]))
			sum += replace_unknown(disk->queues[i].depth);
	return sum;
}

/*
 * Return whether the incidents that doctor reports may have delayed all late requests.  A
 * lost interrupt, a reset and a stall each delay at most the requests in flight.  A pause
 * that is not counted shows in the requests that it delayed by 4096 ms or more.
 */
static bool is_explained(const struct sample *sample)
{
	const struct doctor *doctor = sample->doctor;
	const struct disk *disk = sample->disk;
	uint64_t incidents =
		replace_unknown(since_baseline(doctor, disk, "lost_interrupts",
					       disk->lost_interrupts)) +
		replace_unknown(since_baseline(doctor, disk, "resets", disk->resets)) +
		replace_unknown(since_baseline(doctor, disk, "stalls", disk->stalls));

	return count_all_late(sample) <= incidents * sum_depths(disk) +
	       STALL_RATIO * count_long_requests(doctor, disk);
}

/* Return whether something between the two readings delayed all requests in flight. */
static bool has_stalled(const struct disk *before, const struct disk *disk)
{
	return happened(find_growth(before->timeouts, disk->timeouts)) ||
	       happened(find_growth(before->lost_interrupts, disk->lost_interrupts)) ||
	       happened(find_growth(before->resets, disk->resets));
}

/* Return how many requests were in flight at one of the readings. */
static uint64_t count_in_flight(const struct disk *before, const struct disk *disk)
{
	uint64_t then = replace_unknown(disk_in_flight(before));
	uint64_t now = replace_unknown(disk_in_flight(disk));

	return then > now ? then : now;
}

/* Past and present */

/*
 * Return whether a kind that has a tail of the past has late requests now.  The past has
 * more of them, so it says which are late.
 */
static bool is_continued(const struct sample *past, const struct sample *now)
{
	for (unsigned int kind = 0; kind < NR_KINDS; kind++) {
		uint64_t late = count_from(now->slow[kind], find_first_late(past, kind),
					   now->end);

		if (has_tail(past, kind) && late >= MIN_MORE &&
		    is_share(late, now->all[kind]))
			return true;
	}
	return false;
}

/*
 * Report requests that are late while most are fast.  The disk answers now.
 *
 * One pause of the host delays the requests that are in flight, and no more.  Between
 * the two readings their number is known.  Of the past only the depth of the queues is
 * known, so all of them count as full: a disk that is young, or was just cleared, has no
 * tail because the host paused once.
 *
 * @incident: doctor reports timeouts, a reset, lost interrupts or a long wait
 */
void check_tail(struct doctor *doctor, const struct disk *disk, bool incident)
{
	const struct disk *before = doctor->earlier;
	struct sample past = { .doctor = doctor, .disk = disk,
			       .end = incident ? LONG_INDEX : NR_SLOW,
			       .least = MIN_LATE + sum_depths(disk) };
	struct sample now = { .doctor = doctor, .disk = disk, .now = true,
			      .end = NR_SLOW };
	struct finding *new = NULL;

	if (before && before->seq == disk->seq && !has_stalled(before, disk)) {
		now.least = MIN_LATE + count_in_flight(before, disk);
		count_requests(&now);
		new = add_tail(doctor, &now);
	}
	if (!new) {
		count_requests(&past);
		if (!incident || !is_explained(&past))
			new = add_tail(doctor, &past);
		if (!new)
			return;
		new->past = !is_continued(&past, &now);
	}
	if (!new->past)
		new->last = doctor->machine->time;
}
