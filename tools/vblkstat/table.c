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

static void print_cell(const struct table *table, unsigned int column,
		       size_t width, const char *text, FILE *out)
{
	bool last = column == table->nr_columns - 1;

	if (!table->columns[column].left)
		fprintf(out, "%*s", (int)width, text);
	else
		fprintf(out, "%-*s", last ? 0 : (int)width, text);
	fputs(last ? "\n" : "  ", out);
}

/* Print the table and free its cells. */
void table_print(struct table *table, FILE *out)
{
	size_t *widths = calloc(table->nr_columns, sizeof(*widths));
	unsigned int i, column;

	if (!widths)
		fail("out of memory");
	for (i = 0; i < table->nr_columns; i++) {
		widths[i] = column_width(table, i);
		print_cell(table, i, widths[i], table->columns[i].name, out);
	}
	for (i = 0; i < table->nr_cells; i++) {
		column = i % table->nr_columns;
		print_cell(table, column, widths[column], table->cells[i], out);
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

/* Print @first and @text, wrapped at words and indented by the width of @first. */
void print_wrapped(FILE *out, const char *first, const char *text)
{
	size_t indent = strlen(first), column = indent, length;

	fputs(first, out);
	while (*text) {
		length = strcspn(text, " ");
		if (column > indent && column + 1 + length >= screen_width()) {
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
