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

/* An older driver has no rings of its own, and does not say so. */
static bool own_ring(const struct disk *disk)
{
	return disk->nr_queues && disk->queues[0].counter[C_OWN_RING] == 1;
}

static const char *const sources[] = { "", "device", "udev" };

/* The columns that show a stall come first: a narrow screen or a pager may hide the rest. */
static void print_state(const struct machine *machine)
{
	static const struct column columns[] = {
		{ "DISK", true, 0 }, { "STATE", true, 0 },
		{ "IN FLIGHT", false, 0 }, { "OLDEST", false, 0 },
		{ "SIZE", false, 0 }, { "CACHE", true, 0 },
		{ "SERIAL", true, 8 },
	};
	struct table table = { .columns = columns,
			       .nr_columns = ARRAY_SIZE(columns) };

	for (unsigned int i = 0; i < machine->nr_disks; i++) {
		const struct disk *disk = &machine->disks[i];
		char shown[sizeof(disk->serial)];

		copy_text(shown, sizeof(shown), disk->serial);
		table_name(&table, disk->name);
		table_name(&table, disk->state);
		table_number(&table, disk_in_flight(disk));
		table_age(&table, disk->oldest_ms);
		table_name(&table, size_text(disk->sectors));
		table_name(&table, disk->cache_type);
		table_name(&table, shown);
	}
	table_print(&table, stdout);
}

static void print_devices(const struct machine *machine)
{
	static const struct column columns[] = {
		{ "DISK", true, 0 }, { "DEVICE", true, 0 }, { "BUS", true, 0 },
		{ "ADDRESS", true, 12 }, { "DRIVER", true, 12 },
		{ "QUEUES", true, 10 }, { "DEPTH", false, 0 },
		{ "RING", false, 0 },
	};
	struct table table = { .columns = columns,
			       .nr_columns = ARRAY_SIZE(columns) };

	for (unsigned int i = 0; i < machine->nr_disks; i++) {
		const struct disk *disk = &machine->disks[i];
		char own[32];

		table_name(&table, disk->name);
		table_name(&table, disk->device);
		table_name(&table, disk->transport);
		table_name(&table, disk->address);
		table_name(&table, driver_text(disk));
		table_name(&table, queues_text(disk));
		table_number(&table, depth(disk));
		snprintf(own, sizeof(own), "%llu, own",
			 (unsigned long long)ring(disk));
		if (own_ring(disk))
			table_name(&table, own);
		else
			table_number(&table, ring(disk));
	}
	puts("");
	table_print(&table, stdout);
}

static bool same_features(const struct disk *one, const struct disk *other)
{
	return one->features_known == other->features_known &&
	       !memcmp(one->features, other->features, sizeof(one->features));
}

static void print_features_of(const struct disk *disk, const char *names)
{
	printf("\n%s:\n", names);
	print_wrapped(stdout, "    ", disk->features_known ?
		      features_text(disk->features) : "features not known");
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

static void json_queues(struct json *json, const struct disk *disk)
{
	json_open(json, "queues", '{');
	json_number(json, "total", disk->nr_queues);
	for (size_t i = 0; i < ARRAY_SIZE(types); i++)
		json_number(json, types[i], disk_queues(disk, "") ?
			    UNKNOWN : disk_queues(disk, types[i]));
	json_close(json, '}');
}

static void json_disk(struct json *json, const struct disk *disk)
{
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
	/* Empty if the device has no serial number, null if it is not known. */
	if (disk->serial_source != SERIAL_UNKNOWN)
		json_text(json, "serial", disk->serial);
	else
		json_null(json, "serial");
	json_string(json, "serial_source", sources[disk->serial_source]);
	json_string(json, "address", disk->address);
	json_number(json, "in_flight", disk_in_flight(disk));
	json_number(json, "oldest_ms", disk->oldest_ms);
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
	json_bool(json, "own_ring", own_ring(disk));
	if (disk->features_known)
		json_features(json, "features", disk->features);
	else
		json_null(json, "features");
	json_close(json, '}');
}

static void print_json(const struct machine *machine)
{
	struct json json = { .out = stdout };

	json_begin(&json, "list");
	json_open(&json, "disks", '[');
	for (unsigned int i = 0; i < machine->nr_disks; i++)
		json_disk(&json, &machine->disks[i]);
	json_close(&json, ']');
	json_end(&json);
}

static void print_text(const struct machine *machine)
{
	print_state(machine);
	print_devices(machine);
	print_features(machine);
}

int list_main(const struct request *request)
{
	return machine_show(request, true, print_json, print_text);
}

/* "vblkstat vda": all of a disk, without errors and warnings. */
static void print_all(const struct machine *machine)
{
	print_text(machine);
	puts("");
	queues_text_of(machine);
}

static void json_all(const struct machine *machine)
{
	print_json(machine);
	queues_json_of(machine);
}

int show_main(const struct request *request)
{
	return machine_show(request, true, json_all, print_all);
}
