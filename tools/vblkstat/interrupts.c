// SPDX-License-Identifier: GPL-2.0
/* Parse /proc/interrupts: find the interrupt of a queue, and its count. */

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "vblkstat.h"

/* Longer lines are ignored.  The kernel prints 11 characters for each CPU. */
#define MAX_LINE	(MAX_CPUS * 11 + 1024)
#define MAX_LINES	1000000

struct interrupt {
	char name[40];
	unsigned int irq;
	uint64_t count;
};

struct interrupts {
	struct interrupt *all;
	unsigned int count;
};

/* Read a line without its newline.  A line that is too long becomes empty. */
static bool read_line(FILE *file, char *line)
{
	size_t length;
	int c;

	if (!fgets(line, MAX_LINE, file))
		return false;
	length = strlen(line);
	if (length && line[length - 1] == '\n') {
		line[length - 1] = '\0';
	} else if (length == MAX_LINE - 1) {
		line[0] = '\0';
		for (unsigned int i = 0; i < MAX_TEXT * 64u; i++) {
			c = getc(file);
			if (c == EOF || c == '\n')
				break;
		}
	}
	return true;
}

static unsigned int count_words(const char *line, const char *prefix)
{
	unsigned int count = 0;

	while ((line = strstr(line, prefix))) {
		count++;
		line += strlen(prefix);
	}
	return count;
}

static void add_interrupt(struct interrupts *table, const char *name,
			  unsigned int irq, uint64_t count)
{
	struct interrupt *new;

	if (table->count >= MAX_INTERRUPTS)
		return;
	table->all = grow(table->all, table->count, sizeof(*table->all));
	new = &table->all[table->count++];
	copy_text(new->name, sizeof(new->name), name);
	new->irq = irq;
	new->count = count;
}

/* "40: 12 0 PCI-MSIX-0000:00:05.0 1-edge virtio2-req.0", for two CPUs. */
static void parse_line(struct interrupts *table, char *line, unsigned int cpus)
{
	uint64_t irq, count, total = 0;
	char *word, *next, *save;

	irq = parse_number(line, &next);
	if (irq > INT_MAX || *next++ != ':')
		return;
	while (cpus--) {
		count = parse_number(next, &word);
		if (word == next || count == UNKNOWN)
			return;
		total += count;
		next = word;
	}
	/* Several devices may share an interrupt: "virtio0, virtio1". */
	for (word = strtok_r(next, " ,\t", &save); word;
	     word = strtok_r(NULL, " ,\t", &save))
		if (!strncmp(word, "virtio", strlen("virtio")))
			add_interrupt(table, word, irq, total);
}

static int compare(const void *one, const void *other)
{
	return strcmp(((const struct interrupt *)one)->name,
		      ((const struct interrupt *)other)->name);
}

/* Read the interrupts of virtio devices.  The table is empty without the file. */
struct interrupts *interrupts_read(void)
{
	struct interrupts *table = calloc(1, sizeof(*table));
	char path[PATH_MAX], *line = malloc(MAX_LINE);
	unsigned int cpus = 0, lines = 0;
	FILE *file = NULL;

	if (!table || !line)
		fail("out of memory");
	if (root_path(path, sizeof(path), "/proc/interrupts"))
		file = open_file(path);
	if (!file)
		note_missing("cannot read %s/proc/interrupts; interrupts are not shown", root);
	else if (read_line(file, line))
		cpus = count_words(line, "CPU");
	while (file && lines++ < MAX_LINES && read_line(file, line))
		parse_line(table, line, cpus);
	if (file)
		fclose(file);
	free(line);
	if (table->count)
		qsort(table->all, table->count, sizeof(*table->all), compare);
	return table;
}

void interrupts_free(struct interrupts *table)
{
	if (table)
		free(table->all);
	free(table);
}

static const struct interrupt *find(const struct interrupts *table,
				    const char *device, const char *vector)
{
	struct interrupt key = { 0 };

	if (!table->count)
		return NULL;
	snprintf(key.name, sizeof(key.name), "%s%s", device, vector);
	return bsearch(&key, table->all, table->count, sizeof(*table->all),
		       compare);
}

/* Find the interrupt of a queue and store it there. */
void interrupts_find(const struct interrupts *table, const char *device,
		     struct queue *queue)
{
	const struct interrupt *found;
	char own[24];

	queue->vector = VECTOR_NONE;
	queue->irq = UNKNOWN;
	queue->interrupts = UNKNOWN;
	if (!strcmp(queue->type, "poll"))
		return;
	snprintf(own, sizeof(own), "-req.%u", queue->index);
	found = find(table, device, own);
	queue->vector = VECTOR_OWN;
	if (!found) {
		found = find(table, device, "-virtqueues");
		queue->vector = VECTOR_SHARED;
	}
	if (!found) {
		found = find(table, device, "");
		queue->vector = VECTOR_DEVICE;
	}
	if (!found) {
		queue->vector = VECTOR_NONE;
		return;
	}
	queue->irq = found->irq;
	queue->interrupts = found->count;
}
