// SPDX-License-Identifier: GPL-2.0
/* Notes on data that is missing, and how to get it.  Each is printed once. */

#include <stdarg.h>
#include <string.h>

#include "vblkstat.h"

static char notes[16][256];
static unsigned int nr_notes;
static unsigned int nr_printed;

void note(const char *format, ...)
{
	char text[sizeof(notes[0])];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	for (unsigned int i = 0; i < nr_notes; i++)
		if (!strcmp(notes[i], text))
			return;
	if (nr_notes < ARRAY_SIZE(notes))
		strcpy(notes[nr_notes++], text);
}

/* Print the notes that were not printed before. */
void notes_print(FILE *out)
{
	for (; nr_printed < nr_notes; nr_printed++)
		fprintf(out, "vblkstat: %s\n", notes[nr_printed]);
}

unsigned int notes_count(void)
{
	return nr_notes;
}

const char *notes_text(unsigned int index)
{
	return notes[index];
}
