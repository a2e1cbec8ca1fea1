// SPDX-License-Identifier: GPL-2.0
/*
 * vblkstat doctor: the disk does not answer now.
 *
 * The state, the age of the oldest request and two readings without progress are signs
 * of one incident.  It is one finding, with all that an administrator needs next.
 */

#include <string.h>

#include "doctor.h"

#define LONG_WAIT_MS		5000

/* Return "io_timeout", with its value if that is known. */
const char *timeout_text(const struct disk *disk)
{
	static char text[64];
	uint64_t ms = read_number("/sys/block/%s/queue/io_timeout", disk->name);

	if (ms == UNKNOWN)
		return "io_timeout";
	snprintf(text, sizeof(text), "io_timeout (now %.1f s)", ms / 1e3);
	return text;
}

/* A queue is stuck if it has requests in flight and sent and completed none. */
static bool is_stuck(const struct queue *queue, const struct queue *before)
{
	return queue->index == before->index && queue->counted &&
	       !queue_is_polled(queue) &&
	       happened(queue->counter[C_IN_FLIGHT]) &&
	       queue->counter[C_IN_FLIGHT] == before->counter[C_IN_FLIGHT] &&
	       queue->counter[C_INTERRUPTS] != UNKNOWN &&
	       queue->counter[C_INTERRUPTS] == before->counter[C_INTERRUPTS] &&
	       counters_requests(queue) == counters_requests(before);
}

static uint64_t completed_requests(const struct disk *disk)
{
	static const enum figure kinds[] = { S_READS, S_WRITES, S_DISCARDS,
					   S_FLUSHES };
	uint64_t sum = 0;

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (disk->stat[kinds[i]] != UNKNOWN)
			sum += disk->stat[kinds[i]];
	return sum;
}

/* Return whether no request completed between the two readings, on some queue. */
static bool no_progress(const struct doctor *doctor, const struct disk *disk)
{
	const struct disk *before = doctor->earlier;

	/* A copy of files is read only once and shows no progress. */
	if (!before || before->seq != disk->seq)
		return false;
	for (unsigned int i = 0; i < disk->nr_queues && i < before->nr_queues; i++)
		if (is_stuck(&disk->queues[i], &before->queues[i]))
			return true;
	return disk->iostats && happened(disk->in_flight) &&
	       happened(before->in_flight) &&
	       completed_requests(disk) == completed_requests(before);
}

static bool is_away(const struct disk *disk)
{
	return !strcmp(disk->state, "resetting") ||
	       !strcmp(disk->state, "suspended");
}

static const char *incident_id(const struct doctor *doctor,
			       const struct disk *disk)
{
	if (is_away(disk) || !strcmp(disk->state, "dead") ||
	    !strcmp(disk->state, "stalled"))
		return disk->state;
	if (no_progress(doctor, disk))
		return "stuck";
	if (disk->oldest_ms != UNKNOWN && disk->oldest_ms >= LONG_WAIT_MS)
		return "long-wait";
	return NULL;
}

/* What has happened */

/* "the device has not answered 17 requests, the oldest for 15.2 s" */
static struct finding *add_incident(struct doctor *doctor,
				    const struct disk *disk, const char *id)
{
	uint64_t requests = disk_in_flight(disk);
	char count[48] = "requests";
	const char *back = !strcmp(id, "suspended") ?
			   "suspended or is being reset" : "being reset";

	if (requests != UNKNOWN)
		snprintf(count, sizeof(count), "%llu request%s",
			 (unsigned long long)requests, requests == 1 ? "" : "s");
	if (!strcmp(id, "dead"))
		return add_finding(doctor, disk, ERROR, id,
				   "the disk is dead; all its I/O fails");
	if (is_away(disk))
		return add_finding(doctor, disk, ERROR, id,
				   "the device is %s; its I/O waits", back);
	if (happened(disk->oldest_ms))
		return add_finding(doctor, disk, ERROR, id,
				   "the device has not answered %s, the oldest for %s",
				   count, age_text(disk->oldest_ms));
	if (!strcmp(id, "stalled"))
		return add_finding(doctor, disk, ERROR, id,
				   "the device has not answered %s for longer than %s",
				   count, timeout_text(disk));
	return add_finding(doctor, disk, ERROR, id,
			   "the device completed none of %s in %.1f s", count,
			   disk->when - doctor->earlier->when);
}

static const char *why(const char *id)
{
	if (!strcmp(id, "dead"))
		return "The device is gone, is broken, or came back changed. The kernel log says which.";
	if (!strcmp(id, "resetting") || !strcmp(id, "suspended"))
		return "This normally takes moments. If doctor reports it again, the device does not come back.";
	if (!strcmp(id, "stalled"))
		return "Tasks that wait for these requests hang. No data is lost as long as the driver waits.";
	return "The device does not answer, or it is so slow that tasks wait for seconds. \"vblkstat doctor DISK 10\" measures for longer and tells the two apart.";
}

/* Which disk */

static void add_identity(struct finding *finding, const struct disk *disk)
{
	static const char *const known[] = { "", "", ", says udev" };
	const char *size = size_text(disk->sectors);
	enum serial_source source = disk->serial_source;
	char shown[sizeof(disk->serial)];

	copy_text(shown, sizeof(shown), disk->serial);
	if (shown[0])
		add_fact(finding, FACT_DISK, "serial number %s%s", shown,
			 known[source]);
	else if (source == SERIAL_UNKNOWN)
		add_fact(finding, FACT_DISK, "serial number not known; the device does not answer, and udev has none");
	else
		add_fact(finding, FACT_DISK, "no serial number");
	add_fact(finding, FACT_DISK, "%s%s%s on %s%s%s%s%s",
		 disk->device[0] ? disk->device : "unknown device",
		 disk->driver[0] ? ", driver " : "",
		 disk->ours ? disk->driver : "virtio_blk (in-tree)",
		 disk->transport[0] ? disk->transport : "an unknown bus",
		 disk->address[0] ? " " : "", disk->address,
		 size[0] ? ", " : "", size);
}

/* Since when */

static void list_queues(struct names *queues, const struct disk *disk)
{
	for (unsigned int i = 0; i < disk->nr_queues; i++) {
		const struct queue *queue = &disk->queues[i];

		if (happened(queue_in_flight(queue)))
			add_name(queues, "%u", queue->index);
	}
}

static void add_since(struct finding *finding, const struct doctor *doctor,
		      const struct disk *disk)
{
	uint64_t now = doctor->machine->time;
	struct names queues = { };
	uint64_t sent = UNKNOWN, reset_after;

	reset_after = read_number("/sys/block/%s/recovery/reset_after",
				  disk->name);
	if (happened(disk->oldest_ms)) {
		if (now != UNKNOWN && disk->oldest_ms / 1000 <= now)
			sent = now - disk->oldest_ms / 1000;
		add_fact(finding, FACT_SINCE, "%s%s%s ago the driver sent the oldest request in flight",
			 clock_text(sent), sent == UNKNOWN ? "" : ", ",
			 age_text(disk->oldest_ms));
		finding->first = sent;
	} else if (!strcmp(finding->id, "stalled")) {
		add_fact(finding, FACT_SINCE, "for longer than %s; this driver does not show the exact time",
			 timeout_text(disk));
	} else if (!strcmp(finding->id, "stuck")) {
		add_fact(finding, FACT_SINCE, "for %.1f s or longer; this driver does not show the exact time",
			 disk->when - doctor->earlier->when);
	}
	if (happened(reset_after))
		add_fact(finding, FACT_SINCE, "the driver resets the device after %llu s without any completion (reset_after)",
			 (unsigned long long)reset_after);
	list_queues(&queues, disk);
	if (queues.count)
		add_fact(finding, FACT_SINCE, "%llu in flight on queue%s %s",
			 (unsigned long long)disk_in_flight(disk),
			 queues.count == 1 ? "" : "s", queues.text);
}

/* Return whether a disk does not answer. */
bool is_silent(const struct doctor *doctor, const struct disk *disk)
{
	return incident_id(doctor, disk);
}

/* Report a disk that does not answer.  Return whether it does not. */
bool check_incident(struct doctor *doctor, const struct disk *disk)
{
	const char *id = incident_id(doctor, disk);
	struct finding *new;

	if (!id)
		return false;
	new = add_incident(doctor, disk, id);
	new->why = why(id);
	new->count = disk_in_flight(disk);
	new->last = doctor->machine->time;
	add_identity(new, disk);
	add_since(new, doctor, disk);
	add_advice(new, disk);
	return true;
}
