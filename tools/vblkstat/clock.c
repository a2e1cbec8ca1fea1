// SPDX-License-Identifier: GPL-2.0
/*
 * Format and parse times without a wait for a disk: localtime() reads /etc/localtime, which can be
 * on the disk that does not answer.
 */

#define _GNU_SOURCE
#include <string.h>
#include <time.h>

#include "vblkstat.h"

#define ANSWER_MS	1000
#define DAY		86400

static ssize_t read_offset(const char *what, void *offset, size_t size)
{
	time_t now = time(NULL);
	struct tm *local = localtime(&now);

	(void)what;
	if (!local)
		return -1;
	memcpy(offset, &local->tm_gmtoff, size);
	return size;
}

/*
 * Find the distance from UTC in seconds, and return whether it is known.  It is that of
 * now: a time before the clocks were last changed is shown an hour off.
 */
static bool find_offset(long *offset)
{
	static int known = -1;
	static long found;

	if (known < 0)
		known = ask_child(read_offset, "", &found, sizeof(found), ANSWER_MS) ==
			(ssize_t)sizeof(found);
	*offset = known ? found : 0;
	return known;
}

static bool is_leap(unsigned int year)
{
	return (!(year % 4) && year % 100) || !(year % 400);
}

/* Find the date of a number of days since 1970: gmtime() reads /etc/localtime, too. */
static void find_date(uint64_t days, unsigned int *year, unsigned int *month,
		      unsigned int *day)
{
	static const unsigned int lengths[] = { 31, 28, 31, 30, 31, 30,
						31, 31, 30, 31, 30, 31 };
	unsigned int length;

	for (*year = 1970; days >= 365u + is_leap(*year); ++*year)
		days -= 365 + is_leap(*year);
	for (*month = 1; *month < 12; ++*month) {
		length = lengths[*month - 1] + (*month == 2 && is_leap(*year));
		if (days < length)
			break;
		days -= length;
	}
	*day = days + 1;
}

/* Format "2026-11-29 03:12:05", or nothing if the time is not known. */
const char *clock_text(uint64_t when)
{
	static char text[64];
	unsigned int year, month, day;
	long offset;
	bool known = find_offset(&offset);

	/* A time beyond the year 9999 is none. */
	if (when > 253402300799u - DAY ||
	    (offset < 0 && when < (uint64_t)-offset))
		return "";
	when += offset;
	find_date(when / DAY, &year, &month, &day);
	snprintf(text, sizeof(text), "%04u-%02u-%02u %02u:%02u:%02u%s", year, month,
		 day, (unsigned int)(when % DAY / 3600),
		 (unsigned int)(when % 3600 / 60), (unsigned int)(when % 60),
		 known ? "" : " UTC");
	return text;
}

/* Parse "02:30", the last time that the clock showed it. */
uint64_t clock_parse(const char *text)
{
	uint64_t now, then, hour, minute = UNKNOWN;
	long offset;
	char *end;

	hour = parse_number(text, &end);
	if (*end == ':')
		minute = parse_number(end + 1, &end);
	if (*end || hour >= 24 || minute >= 60)
		return UNKNOWN;
	find_offset(&offset);
	now = time(NULL) + offset;
	then = now - now % DAY + hour * 3600 + minute * 60;
	return (then > now ? then - DAY : then) - offset;
}
