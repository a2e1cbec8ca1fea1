// SPDX-License-Identifier: GPL-2.0
/* Print tables and paragraphs. */

#define _GNU_SOURCE
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "vblkstat.h"

#define USUAL_WIDTH	80

/* Return whether a count is known and not 0. */
bool happened(uint64_t count)
{
	return count != UNKNOWN && count;
}

/* Return a negative number if the ratio is not known. */
double ratio(uint64_t part, uint64_t whole)
{
	if (part == UNKNOWN || whole == UNKNOWN || !whole)
		return -1;
	return (double)part / whole;
}

/* Return a size such as "16.0 GiB", or an empty text if it is not known. */
const char *size_text(uint64_t sectors)
{
	static const char *const units[] = { "KiB", "MiB", "GiB", "TiB", "PiB",
					     "EiB" };
	static char text[32];
	double size = sectors / 2.0;
	unsigned int unit = 0;

	if (sectors == UNKNOWN)
		return "";
	while (size >= 1024 && unit < ARRAY_SIZE(units) - 1) {
		size /= 1024;
		unit++;
	}
	snprintf(text, sizeof(text), "%.1f %s", size, units[unit]);
	return text;
}

/* Return a time such as "140 ms", "15.2 s" or "35 min"; "-" if it is not known. */
const char *age_text(uint64_t ms)
{
	static char texts[4][32];
	static unsigned int turn;
	char *text = texts[turn++ % ARRAY_SIZE(texts)];
	size_t size = sizeof(texts[0]);
	uint64_t seconds = ms / 1000;

	if (ms == UNKNOWN)
		return "-";
	if (!ms)
		return "0";
	if (ms < 1000)
		snprintf(text, size, "%llu ms", (unsigned long long)ms);
	else if (seconds < 100)
		snprintf(text, size, "%.1f s", ms / 1e3);
	else if (seconds < 600)
		snprintf(text, size, "%llu s", (unsigned long long)seconds);
	else if (seconds < 100 * 60)
		snprintf(text, size, "%llu min", (unsigned long long)seconds / 60);
	else if (seconds < 100 * 3600)
		snprintf(text, size, "%.1f h", seconds / 3600.0);
	else
		snprintf(text, size, "%llu days",
			 (unsigned long long)seconds / 86400);
	return text;
}

/* Add a cell.  After the last column, the next row begins. */
void table_text(struct table *table, const char *format, ...)
{
	char *text = NULL;
	va_list args;
	int length;

	va_start(args, format);
	length = vasprintf(&text, format, args);
	va_end(args);
	if (length < 0)
		fail("out of memory");
	table->cells = grow(table->cells, table->nr_cells, sizeof(*table->cells));
	table->cells[table->nr_cells++] = text;
}

void table_name(struct table *table, const char *name)
{
	table_text(table, "%s", name[0] ? name : "-");
}

void table_number(struct table *table, uint64_t number)
{
	if (number == UNKNOWN)
		table_text(table, "-");
	else
		table_text(table, "%llu", (unsigned long long)number);
}

/* A negative number is unknown. */
void table_float(struct table *table, double number, int decimals)
{
	if (number < 0)
		table_text(table, "-");
	else
		table_text(table, "%.*f", decimals, number);
}

void table_age(struct table *table, uint64_t ms)
{
	table_text(table, "%s", age_text(ms));
}

/* Keep columns of rates narrow: a large number needs no decimals. */
void table_rate(struct table *table, double number)
{
	if (number < 100000)
		table_float(table, number, number < 1000 ? 1 : 0);
	else
		table_text(table, "%.0fk", number / 1000);
}

void table_cpus(struct table *table, const struct cpus *cpus)
{
	table_text(table, "%s", cpus_text(cpus));
}

static size_t column_width(const struct table *table, unsigned int column)
{
	size_t width = strlen(table->columns[column].name), length;

	for (unsigned int i = column; i < table->nr_cells; i += table->nr_columns) {
		length = strlen(table->cells[i]);
		width = length > width ? length : width;
	}
	return width;
}

static unsigned int table_width(const struct table *table, const size_t *widths,
				unsigned int gap)
{
	size_t width = (table->nr_columns - 1) * gap;

	for (unsigned int i = 0; i < table->nr_columns; i++)
		width += widths[i];
	return width;
}

/* Make a table fit the screen: first with smaller gaps, then with shorter cells. */
static unsigned int fit(const struct table *table, size_t *widths)
{
	unsigned int screen = screen_width(), gap = 2;

	if (table_width(table, widths, gap) > screen)
		gap = 1;
	for (unsigned int i = 0; i < table->nr_columns; i++) {
		size_t narrow = table->columns[i].narrow;
		size_t name = strlen(table->columns[i].name);

		narrow = narrow && narrow < name ? name : narrow;
		while (narrow && widths[i] > narrow &&
		       table_width(table, widths, gap) > screen)
			widths[i]--;
	}
	return gap;
}

static void print_cell(const struct table *table, unsigned int column,
		       size_t width, unsigned int gap, const char *text, FILE *out)
{
	bool last = column == table->nr_columns - 1;
	bool cut = strlen(text) > width;
	int shown = cut ? (int)width - 1 : (int)strlen(text);
	int blanks = (int)width - shown - cut;

	if (!table->columns[column].left)
		fprintf(out, "%*s", blanks, "");
	fprintf(out, "%.*s%s", shown, text, cut ? "+" : "");
	if (table->columns[column].left && !last)
		fprintf(out, "%*s", blanks, "");
	fprintf(out, "%*s", last ? 0 : (int)gap, "");
	if (last)
		fputc('\n', out);
}

/* Print the table and free its cells. */
void table_print(struct table *table, FILE *out)
{
	size_t *widths = calloc(table->nr_columns, sizeof(*widths));
	unsigned int i, column, gap;

	if (!widths)
		fail("out of memory");
	for (i = 0; i < table->nr_columns; i++)
		widths[i] = column_width(table, i);
	gap = fit(table, widths);
	for (i = 0; i < table->nr_columns; i++)
		print_cell(table, i, widths[i], gap, table->columns[i].name, out);
	for (i = 0; i < table->nr_cells; i++) {
		column = i % table->nr_columns;
		print_cell(table, column, widths[column], gap, table->cells[i], out);
		free(table->cells[i]);
	}
	free(widths);
	free(table->cells);
	table->cells = NULL;
	table->nr_cells = 0;
}

/* Return the width of standard output in characters. */
unsigned int screen_width(void)
{
	struct winsize size;

	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) || size.ws_col < 20)
		return USUAL_WIDTH;
	return size.ws_col;
}

/* Return the width of paragraphs: long lines are hard to read. */
unsigned int text_width(void)
{
	unsigned int width = screen_width();

	return width < USUAL_WIDTH ? width : USUAL_WIDTH;
}

/* Print @first and @text, wrapped at words and indented by the width of @first. */
void print_wrapped(FILE *out, const char *first, const char *text)
{
	size_t indent = strlen(first), column = indent, length;

	fputs(first, out);
	while (*text) {
		length = strcspn(text, " ");
		if (column > indent && column + 1 + length >= text_width()) {
			fprintf(out, "\n%*s", (int)indent, "");
			column = indent;
		}
		if (column > indent) {
			fputc(' ', out);
			column++;
		}
		fprintf(out, "%.*s", (int)length, text);
		column += length;
		text += length;
		text += strspn(text, " ");
	}
	fputc('\n', out);
}
