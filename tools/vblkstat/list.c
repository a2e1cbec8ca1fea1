// SPDX-License-Identifier: GPL-2.0
/* vblkstat list: disks, their drivers and their features. */

#include <string.h>

#include "vblkstat.h"

static const char *const types[] = { "default", "read", "poll" };

static const char *driver_text(const struct disk *disk)
{
	static char text[128];

	if (!disk->ours)
		return "in-tree";
	snprintf(text, sizeof(text), "%s%s%s", disk->driver,
		 disk->version[0] ? " " : "", disk->version);
	return text;
}

/* "16.0 GiB" */
static const char *size_text(const struct disk *disk)
{
	static const char *const units[] = { "KiB", "MiB", "GiB", "TiB", "PiB",
					     "EiB" };
	static char text[32];
	double size = disk->sectors / 2.0;
	unsigned int unit = 0;

	if (disk->sectors == UNKNOWN)
		return "";
	while (size >= 1024 && unit < ARRAY_SIZE(units) - 1) {
		size /= 1024;
		unit++;
	}
	snprintf(text, sizeof(text), "%.1f %s", size, units[unit]);
	return text;
}

/* "3 default, 1 poll", or only their number if the types are unknown. */
static const char *queues_text(const struct disk *disk)
{
	static char text[96];
	size_t length = 0;

	if (disk_queues(disk, "")) {
		snprintf(text, sizeof(text), "%u", disk->nr_queues);
		return text;
	}
	text[0] = '\0';
	for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
		unsigned int count = disk_queues(disk, types[i]);

		if (count)
			length += snprintf(text + length, sizeof(text) - length,
					   "%s%u %s", length ? ", " : "", count,
					   types[i]);
	}
	return text;
}

static uint64_t depth(const struct disk *disk)
{
	return disk->nr_queues ? disk->queues[0].depth : UNKNOWN;
}

static uint64_t ring(const struct disk *disk)
{
	return disk->nr_queues ? disk->queues[0].counter[C_RING] : UNKNOWN;
}

static bool read_serial(const struct machine *machine, const struct disk *disk,
			char *serial, size_t size)
{
	/* Do not ask: a device that is not live would not answer. */
	if (machine->live && disk->state[0] && strcmp(disk->state, "live")) {
		serial[0] = '\0';
		return false;
	}
	return ask_device(serial, size, disk->name, "serial");
}

static void print_table(const struct machine *machine)
{
	static const struct column columns[] = {
		{ "DISK", true }, { "DEVICE", true }, { "BUS", true },
		{ "DRIVER", true }, { "STATE", true }, { "SIZE", false },
		{ "QUEUES", true }, { "DEPTH", false }, { "RING", false },
		{ "CACHE", true }, { "SERIAL", true },
	};
	struct table table = { .columns = columns,
			       .nr_columns = ARRAY_SIZE(columns) };

	for (unsigned int i = 0; i < machine->nr_disks; i++) {
		const struct disk *disk = &machine->disks[i];
		char serial[64], shown[64];

		read_serial(machine, disk, serial, sizeof(serial));
		copy_text(shown, sizeof(shown), serial);
		table_name(&table, disk->name);
		table_name(&table, disk->device);
		table_name(&table, disk->transport);
		table_name(&table, driver_text(disk));
		table_name(&table, disk->state);
		table_name(&table, size_text(disk));
		table_name(&table, queues_text(disk));
		table_number(&table, depth(disk));
		table_number(&table, ring(disk));
		table_name(&table, disk->cache_type);
		table_name(&table, shown);
	}
	table_print(&table, stdout);
}

static bool same_features(const struct disk *one, const struct disk *other)
{
	return one->features_known == other->features_known &&
	       !memcmp(one->features, other->features, sizeof(one->features));
}

static void print_features_of(const struct disk *disk, const char *names)
{
	char text[4096];
	size_t length = 0;

	text[0] = '\0';
	for (unsigned int bit = 0; bit < MAX_FEATURES; bit++)
		if (disk->features[bit] && length < sizeof(text))
			length += snprintf(text + length, sizeof(text) - length,
					   "%s%s", length ? ", " : "",
					   feature_words(bit));
	printf("\n%s:\n", names);
	print_wrapped(stdout, "    ", disk->features_known ?
		      length ? text : "no features" : "features not known");
}

/* Print disks that have the same features together. */
static void print_features(const struct machine *machine)
{
	for (unsigned int i = 0; i < machine->nr_disks; i++) {
		char names[MAX_DISKS * 9];
		size_t length = 0;
		unsigned int j;

		for (j = 0; j < i; j++)
			if (same_features(&machine->disks[i], &machine->disks[j]))
				break;
		if (j < i)
			continue;
		for (; j < machine->nr_disks; j++)
			if (same_features(&machine->disks[i], &machine->disks[j]))
				length += sprintf(names + length, "%s%s",
						  length ? ", " : "",
						  machine->disks[j].name);
		print_features_of(&machine->disks[i], names);
	}
}

static void json_features(struct json *json, const struct disk *disk)
{
	if (!disk->features_known) {
		json_null(json, "features");
		return;
	}
	json_open(json, "features", '[');
	for (unsigned int bit = 0; bit < MAX_FEATURES; bit++) {
		if (!disk->features[bit])
			continue;
		json_open(json, NULL, '{');
		json_number(json, "bit", bit);
		json_string(json, "name", feature_name(bit));
		json_string(json, "words", feature_words(bit));
		json_close(json, '}');
	}
	json_close(json, ']');
}

static void json_queues(struct json *json, const struct disk *disk)
{
	json_open(json, "queues", '{');
	json_number(json, "total", disk->nr_queues);
	for (size_t i = 0; i < ARRAY_SIZE(types); i++)
		json_number(json, types[i], disk_queues(disk, "") ?
			    UNKNOWN : disk_queues(disk, types[i]));
	json_close(json, '}');
}

static void json_disk(struct json *json, const struct machine *machine,
		      const struct disk *disk)
{
	char serial[64];

	json_open(json, NULL, '{');
	json_string(json, "name", disk->name);
	json_string(json, "device", disk->device);
	json_string(json, "bus", disk->transport);
	json_open(json, "driver", '{');
	json_string(json, "name", disk->driver);
	json_string(json, "version", disk->version);
	json_bool(json, "in_tree", !disk->ours);
	json_close(json, '}');
	json_string(json, "state", disk->state);
	/* Empty if the device has no serial number, null if it did not answer. */
	if (read_serial(machine, disk, serial, sizeof(serial)))
		json_text(json, "serial", serial);
	else
		json_null(json, "serial");
	json_number(json, "bytes", disk->sectors > UINT64_MAX / 512 ?
		    UNKNOWN : disk->sectors * 512);
	if (disk->read_only == UNKNOWN)
		json_null(json, "read_only");
	else
		json_bool(json, "read_only", disk->read_only);
	json_string(json, "cache_type", disk->cache_type);
	json_string(json, "scheduler", disk->scheduler);
	json_string(json, "zoned", disk->zoned);
	json_queues(json, disk);
	json_number(json, "depth", depth(disk));
	json_number(json, "ring", ring(disk));
	json_features(json, disk);
	json_close(json, '}');
}

static void print_json(const struct machine *machine)
{
	struct json json = { .out = stdout };

	json_begin(&json, "list");
	json_open(&json, "disks", '[');
	for (unsigned int i = 0; i < machine->nr_disks; i++)
		json_disk(&json, machine, &machine->disks[i]);
	json_close(&json, ']');
	json_end(&json);
}

static void print_text(const struct machine *machine)
{
	print_table(machine);
	print_features(machine);
}

int list_main(const struct request *request)
{
	return machine_show(request, print_json, print_text);
}
