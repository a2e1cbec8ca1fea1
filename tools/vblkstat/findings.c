// SPDX-License-Identifier: GPL-2.0
/* Make the findings of vblkstat doctor, and sum the counters that they rest on. */

#define _GNU_SOURCE
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "doctor.h"

const char ERROR[] = "error";
const char WARNING[] = "warning";
const char NOTICE[] = "notice";

/* Add a finding.  The caller must call advise() for it. */
struct finding *add_finding(struct doctor *doctor, const struct disk *disk,
			    const char *level, const char *id,
			    const char *format, ...)
{
	struct finding *new;
	va_list args;
	int length;

	doctor->findings = grow(doctor->findings, doctor->count, sizeof(*new));
	new = &doctor->findings[doctor->count++];
	*new = (struct finding){ .disk = disk->name, .level = level, .id = id,
				 .count = UNKNOWN, .first = UNKNOWN,
				 .last = UNKNOWN };
	va_start(args, format);
	length = vasprintf(&new->what, format, args);
	va_end(args);
	if (length < 0)
		fail("out of memory");
	return new;
}

void free_finding(struct finding *finding)
{
	for (unsigned int i = 0; i < finding->nr_facts; i++)
		free(finding->facts[i].text);
	free(finding->facts);
	free(finding->what);
}

void free_findings(struct doctor *doctor)
{
	for (unsigned int i = 0; i < doctor->count; i++)
		free_finding(&doctor->findings[i]);
	free(doctor->findings);
}

void advise(struct finding *finding, const char *why, const char *host,
	    const char *guest)
{
	finding->why = why;
	finding->host = host;
	finding->guest = guest;
}

/* Add a sentence or a command to a finding about a disk that does not answer. */
void add_fact(struct finding *finding, enum fact_kind kind, const char *format, ...)
{
	struct fact *new;
	va_list args;
	int length;

	finding->facts = grow(finding->facts, finding->nr_facts, sizeof(*new));
	new = &finding->facts[finding->nr_facts++];
	new->kind = kind;
	va_start(args, format);
	length = vasprintf(&new->text, format, args);
	va_end(args);
	if (length < 0)
		fail("out of memory");
}

/* Return the sum over a disk's queues, UNKNOWN if no queue has the counter. */
uint64_t total(const struct disk *disk, enum counter counter)
{
	uint64_t sum = UNKNOWN;

	for (unsigned int i = 0; i < disk->nr_queues; i++) {
		uint64_t value = disk->queues[i].counter[counter];

		if (value != UNKNOWN)
			sum = sum == UNKNOWN ? value : sum + value;
	}
	return sum;
}

/* Like total(), without what the administrator has cleared. */
uint64_t total_since(const struct doctor *doctor, const struct disk *disk,
		     enum counter counter)
{
	return since_baseline(doctor, disk, counter_names[counter],
			      total(disk, counter));
}

/* Return how many requests a disk was sent, UNKNOWN if no queue counts them. */
uint64_t total_requests(const struct disk *disk)
{
	uint64_t sum = UNKNOWN;

	for (unsigned int i = 0; i < disk->nr_queues; i++) {
		uint64_t value = counters_requests(&disk->queues[i]);

		if (value != UNKNOWN)
			sum = sum == UNKNOWN ? value : sum + value;
	}
	return sum;
}

/* Return the longest wait of a disk's queues in ms, 0 if none is known. */
uint64_t longest_wait(const struct disk *disk)
{
	uint64_t longest = 0;

	for (unsigned int i = 0; i < disk->nr_queues; i++) {
		uint64_t wait = disk->queues[i].counter[C_LONGEST_WAIT_MS];

		if (wait != UNKNOWN && wait > longest)
			longest = wait;
	}
	return longest;
}
