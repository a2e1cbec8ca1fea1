// SPDX-License-Identifier: GPL-2.0
/* Sets of CPUs. */

#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "vblkstat.h"

bool cpus_has(const struct cpus *set, unsigned int cpu)
{
	return cpu < MAX_CPUS && set->bits[cpu / 64] >> cpu % 64 & 1;
}

void cpus_add(struct cpus *set, unsigned int cpu)
{
	if (cpu < MAX_CPUS)
		set->bits[cpu / 64] |= 1ull << cpu % 64;
}

static void add_range(struct cpus *set, uint64_t first, uint64_t last)
{
	for (; first <= last && first < MAX_CPUS; first++)
		cpus_add(set, first);
}

/*
 * Parse a list in the kernel's format, "0-3,8" or "0, 1".  An empty text is an empty
 * set.  The set is not known if the text is anything else.
 */
void cpus_parse(struct cpus *set, const char *text)
{
	uint64_t first, last;
	char *end;

	memset(set, 0, sizeof(*set));
	while (*text) {
		first = parse_number(text, &end);
		last = first;
		if (*end == '-')
			last = parse_number(end + 1, &end);
		if (first == UNKNOWN || last == UNKNOWN || last < first)
			return;
		add_range(set, first, last);
		if (*end && *end != ',')
			return;
		text = *end ? end + 1 : end;
	}
	set->known = true;
}

/* Read a file with such a list.  The set is not known if that fails. */
void cpus_read(struct cpus *set, const char *format, ...)
{
	char path[PATH_MAX], text[MAX_TEXT];
	va_list args;

	va_start(args, format);
	vsnprintf(path, sizeof(path), format, args);
	va_end(args);
	set->known = false;
	if (read_text(text, sizeof(text), "%s", path))
		cpus_parse(set, text);
}

unsigned int cpus_count(const struct cpus *set)
{
	unsigned int count = 0;

	for (size_t i = 0; i < ARRAY_SIZE(set->bits); i++)
		count += __builtin_popcountll(set->bits[i]);
	return count;
}

/* Keep the CPUs that are in both sets.  An unknown @other changes nothing. */
void cpus_and(struct cpus *set, const struct cpus *other)
{
	if (!other->known)
		return;
	for (size_t i = 0; i < ARRAY_SIZE(set->bits); i++)
		set->bits[i] &= other->bits[i];
}

/* Add the CPUs of another set.  An unknown @other changes nothing. */
void cpus_or(struct cpus *set, const struct cpus *other)
{
	if (!other->known)
		return;
	for (size_t i = 0; i < ARRAY_SIZE(set->bits); i++)
		set->bits[i] |= other->bits[i];
}

/* Remove the CPUs of another set.  An unknown @other changes nothing. */
void cpus_remove(struct cpus *set, const struct cpus *other)
{
	if (!other->known)
		return;
	for (size_t i = 0; i < ARRAY_SIZE(set->bits); i++)
		set->bits[i] &= ~other->bits[i];
}

bool cpus_equal(const struct cpus *one, const struct cpus *other)
{
	return !memcmp(one->bits, other->bits, sizeof(one->bits));
}

/* Format a set as a list.  The text is valid for the next three calls. */
const char *cpus_text(const struct cpus *set)
{
	static char texts[4][MAX_TEXT];
	static unsigned int turn;
	char *text = texts[turn++ % 4];
	unsigned int cpu, last;
	size_t length = 0;

	if (!set->known)
		return "-";
	text[0] = '\0';
	for (cpu = 0; cpu < MAX_CPUS && length < MAX_TEXT - 16; cpu = last + 1) {
		last = cpu;
		if (!cpus_has(set, cpu))
			continue;
		while (cpus_has(set, last + 1))
			last++;
		length += sprintf(text + length, last > cpu ? "%s%u-%u" : "%s%u",
				  length ? "," : "", cpu, last);
	}
	return length ? text : "none";
}
