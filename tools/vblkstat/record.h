/* SPDX-License-Identifier: GPL-2.0 */
/* What vblkstat snapshot copies. */
#ifndef RECORD_H
#define RECORD_H

#include "vblkstat.h"

enum record_type { RECORD_FILE, RECORD_DIRECTORY, RECORD_LINK };

/**
 * struct record - something that vblkstat has read
 * @path: without the root
 * @data: contents of the file, or target of the link; NULL: still to be read
 */
struct record {
	char *path;
	enum record_type type;
	char *data;
};

void record_start(void);
void record_file(const char *path, const char *data);
void record_link(const char *path);
void record_directory(const char *path);
void record_text(const char *path, const char *data);
void record_walk(void (*function)(const struct record *record));
void record_free(void);

#endif /* RECORD_H */
