// SPDX-License-Identifier: GPL-2.0
/*
 * Notes on data that is missing, and how to get it.  Each is printed once.  doctor must
 * not call a disk healthy if it could not read what a finding needs: these are marked.
 */

#include <stdarg.h>
#include <string.h>

#include "vblkstat.h"

static struct {
	char text[256];
	bool missing;
	bool printed;
} notes[16];
static unsigned int nr_notes;
static bool incomplete;

static void add_note(const char *format, va_list args, bool missing)
{
	char text[sizeof(notes[0].text)];

	incomplete |= missing;
	vsnprintf(text, sizeof(text), format, args);
	for (unsigned int i = 0; i < nr_notes; i++)
		if (!strcmp(notes[i].text, text))
			return;
	if (nr_notes == ARRAY_SIZE(notes))
		return;
	strcpy(notes[nr_notes].text, text);
	notes[nr_notes++].missing = missing;
}

void note(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	add_note(format, args, false);
	va_end(args);
}

/* Note that data is missing without which doctor may overlook an error. */
void note_missing(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	add_note(format, args, true);
	va_end(args);
}

/* Return whether doctor had all data that it needs. */
bool notes_complete(void)
{
	return !incomplete;
}

bool notes_is_missing(unsigned int index)
{
	return notes[index].missing;
}

/* Print the notes that were not printed before. */
void notes_print(FILE *out)
{
	for (unsigned int i = 0; i < nr_notes; i++) {
		if (!notes[i].printed)
			fprintf(out, "vblkstat: %s\n", notes[i].text);
		notes[i].printed = true;
	}
}

/* Print the notes on data without which doctor may overlook an error. */
void notes_print_missing(FILE *out)
{
	for (unsigned int i = 0; i < nr_notes; i++) {
		if (!notes[i].missing)
			continue;
		print_wrapped(out, "    - ", notes[i].text);
		notes[i].printed = true;
	}
}

unsigned int notes_count(void)
{
	return nr_notes;
}

const char *notes_text(unsigned int index)
{
	return notes[index].text;
}
