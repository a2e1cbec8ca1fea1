// SPDX-License-Identifier: GPL-2.0
/*
 * vblkstat doctor: what happened to a disk, according to the driver's counters.
 *
 * A counter that grows between the two readings is a finding of now.  Otherwise the
 * event is past: it is reported until it is cleared, but does not change the exit status.
 */

#include <string.h>

#include "doctor.h"

#define LONG_WAIT_S		5

/* Return a counter of the disk's sysfs files, without what has been cleared. */
static uint64_t counted(const struct doctor *doctor, const struct disk *disk,
			const char *name, uint64_t value)
{
	value = since_baseline(doctor, disk, name, value);
	return value == UNKNOWN ? 0 : value;
}

static bool grew(uint64_t before, uint64_t now)
{
	return before != UNKNOWN && now != UNKNOWN && now > before;
}

/* Set when a finding happened, and whether it happens now. */
static void date(const struct doctor *doctor, const struct disk *disk,
		 struct finding *finding, enum event event, bool now)
{
	log_find(doctor->log, disk, event, &finding->first, &finding->last);
	finding->past = !now;
	if (now)
		finding->last = doctor->machine->time;
}

/*
 * Drop the newest finding if it ended before the time of --since.  Return whether it
 * stays.
 */
static bool keep_recent(struct doctor *doctor)
{
	struct finding *newest = &doctor->findings[doctor->count - 1];

	if (!newest->past || newest->last == UNKNOWN ||
	    newest->last >= doctor->since)
		return true;
	free_finding(newest);
	doctor->count--;
	return false;
}

/* Return the longest wait that ended, in ms; 0 if it was cleared. */
static uint64_t longest_since(const struct doctor *doctor, const struct disk *disk)
{
	uint64_t longest = longest_wait(disk);
	uint64_t cleared = baseline_value(doctor->baseline, disk, "longest_wait_ms");

	return cleared != UNKNOWN && longest <= cleared ? 0 : longest;
}

static void add_long_wait(struct doctor *doctor, const struct disk *disk)
{
	uint64_t count = count_long_requests(doctor, disk);
	struct finding *new;
	char more[64] = "";

	if (count > 1)
		snprintf(more, sizeof(more), ", and %llu more took 4.1 s or longer",
			 (unsigned long long)count - 1);
	new = add_finding(doctor, disk, ERROR, "long-wait",
			  "a request took %s (expected: less than %u s)%s",
			  age_text(longest_since(doctor, disk)), LONG_WAIT_S, more);
	if (count)
		new->count = count;
	advise(new,
	       "Tasks waited that long. The time is from sending the request to its completion, which a polled queue notices only when a task polls it.",
	       "Check whether the storage or the whole guest paused at that time.",
	       NULL);
	new->past = true;
}

/* "; the longest wait that ended was 95.0 s; the driver reset the device 2 times" */
static const char *consequences(const struct doctor *doctor, const struct disk *disk)
{
	uint64_t resets = counted(doctor, disk, "resets", disk->resets);
	uint64_t longest = longest_since(doctor, disk);
	static char text[160];
	size_t length = 0;

	text[0] = '\0';
	if (longest)
		length = snprintf(text, sizeof(text),
				  "; the longest wait that ended was %s",
				  age_text(longest));
	if (resets)
		snprintf(text + length, sizeof(text) - length,
			 "; the driver reset the device %llu time%s",
			 (unsigned long long)resets, resets == 1 ? "" : "s");
	return text;
}

/* An older driver counts no stalls, and a request again after each io_timeout. */
static void add_timeouts(struct doctor *doctor, const struct disk *disk,
			 uint64_t timeouts)
{
	uint64_t stalls = counted(doctor, disk, "stalls", disk->stalls);
	const struct disk *before = doctor->earlier;
	struct finding *new;

	if (disk->stalls == UNKNOWN)
		new = add_finding(doctor, disk, ERROR, "timeouts",
				  "%s expired %llu time%s without an answer%s",
				  timeout_text(disk), (unsigned long long)timeouts,
				  timeouts == 1 ? "" : "s",
				  consequences(doctor, disk));
	else
		new = add_finding(doctor, disk, ERROR, "timeouts",
				  "the disk stalled %llu time%s: %llu request%s took longer than %s%s",
				  (unsigned long long)stalls, stalls == 1 ? "" : "s",
				  (unsigned long long)timeouts,
				  timeouts == 1 ? "" : "s", timeout_text(disk),
				  consequences(doctor, disk));
	advise(new,
	       disk->stalls == UNKNOWN ?
	       "The device did not answer for that long, and the tasks that waited hung. A request that waits for a minute counts twice if io_timeout is 30 s." :
	       "The device did not answer for that long, and the tasks that waited hung.",
	       "Check whether the storage paused at the times in the guest's kernel log.",
	       NULL);
	new->count = timeouts;
	date(doctor, disk, new, EVENT_TIMEOUT,
	     before && grew(before->timeouts, disk->timeouts));
}

static void add_lost_interrupts(struct doctor *doctor, const struct disk *disk,
				uint64_t lost)
{
	const struct disk *before = doctor->earlier;
	struct finding *new;

	new = add_finding(doctor, disk, ERROR, "lost-interrupts",
			  "%llu request%s completed without an interrupt",
			  (unsigned long long)lost, lost == 1 ? "" : "s");
	advise(new,
	       "Each of them waited until the driver polled the ring by itself.",
	       "Update QEMU, or the program that emulates the device and the interrupt controller.",
	       NULL);
	new->count = lost;
	date(doctor, disk, new, EVENT_LOST_INTERRUPT,
	     before && grew(before->lost_interrupts, disk->lost_interrupts));
}

static void add_resets(struct doctor *doctor, const struct disk *disk,
		       uint64_t resets)
{
	const struct disk *before = doctor->earlier;
	struct finding *new;

	new = add_finding(doctor, disk, ERROR, "resets",
			  "the driver reset the device %llu time%s",
			  (unsigned long long)resets, resets == 1 ? "" : "s");
	advise(new,
	       "The device requested the reset or did not answer, and all I/O waited meanwhile. If you wrote to recovery/reset yourself, this is no error.",
	       "Check the program that serves the disk for errors at the times in the guest's kernel log.",
	       NULL);
	new->count = resets;
	date(doctor, disk, new, EVENT_RESET,
	     before && grew(before->resets, disk->resets));
}

/*
 * One pause of the device can cause timeouts, resets and a long wait: report it once.
 * Return whether there is a finding.  If --since left it out, it explains no late
 * requests, because doctor would then show neither.
 */
bool check_past(struct doctor *doctor, const struct disk *disk)
{
	uint64_t timeouts = counted(doctor, disk, "timeouts", disk->timeouts);
	uint64_t lost = counted(doctor, disk, "lost_interrupts",
				disk->lost_interrupts);
	uint64_t resets = counted(doctor, disk, "resets", disk->resets);
	bool reported = false;

	if (lost) {
		add_lost_interrupts(doctor, disk, lost);
		reported = keep_recent(doctor);
	}
	/* An older driver counts a lost interrupt as a timeout, too. */
	if (disk->stalls == UNKNOWN)
		timeouts -= timeouts < lost ? timeouts : lost;
	if (timeouts)
		add_timeouts(doctor, disk, timeouts);
	else if (resets)
		add_resets(doctor, disk, resets);
	else if (!lost && longest_since(doctor, disk) >= LONG_WAIT_S * 1000)
		add_long_wait(doctor, disk);
	else
		return reported;
	return keep_recent(doctor) || reported;
}

static bool total_grew(const struct doctor *doctor, const struct disk *disk,
		       enum counter counter)
{
	return doctor->earlier &&
	       grew(total(doctor->earlier, counter), total(disk, counter));
}

static void check_failed(struct doctor *doctor, const struct disk *disk)
{
	uint64_t ioerr = total_since(doctor, disk, C_IOERR);
	uint64_t other = total_since(doctor, disk, C_OTHER_ERRORS);
	struct finding *new;

	ioerr = happened(ioerr) ? ioerr : 0;
	other = happened(other) ? other : 0;
	if (!ioerr && !other)
		return;
	new = add_finding(doctor, disk, ERROR, "errors",
			  "the device failed requests: %llu with an I/O error, %llu with another error",
			  (unsigned long long)ioerr, (unsigned long long)other);
	advise(new,
	       "Data could not be read, or was not written.",
	       "Check the log of the program that serves the disk, and whether the storage behind it is full or broken.",
	       "Check the file systems on the disk.");
	new->count = ioerr + other;
	date(doctor, disk, new, EVENT_IO_ERROR,
	     total_grew(doctor, disk, C_IOERR) ||
	     total_grew(doctor, disk, C_OTHER_ERRORS));
	keep_recent(doctor);
}

static void check_refused(struct doctor *doctor, const struct disk *disk)
{
	uint64_t unsupp = total_since(doctor, disk, C_UNSUPP);
	struct finding *new;

	if (!happened(unsupp))
		return;
	new = add_finding(doctor, disk, WARNING, "unsupported",
			  "the device refused %llu request%s as not supported",
			  (unsigned long long)unsupp, unsupp == 1 ? "" : "s");
	advise(new,
	       "The device refuses requests that it offers, or it was sent requests that are not among its features.",
	       "Update the program that serves the disk.",
	       NULL);
	new->count = unsupp;
	new->past = !total_grew(doctor, disk, C_UNSUPP);
	if (!new->past)
		new->last = doctor->machine->time;
}

void check_errors(struct doctor *doctor, const struct disk *disk)
{
	check_failed(doctor, disk);
	check_refused(doctor, disk);
}
