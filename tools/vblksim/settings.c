// SPDX-License-Identifier: GPL-2.0
/*
 * The command line and the settings file.  All settings are in one table, which
 * --help also prints.  The fields of the configuration space are in a second
 * one, which the control socket also uses.
 *
 * Fields may have any value that fits, to test how drivers handle it.
 */

#define _GNU_SOURCE
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "vblksim.h"
#include "virtio.h"

#define VERSION		"1.0"
#define WHY_SIZE	512

/* The unit of a number, which determines its suffixes. */
enum unit {
	COUNT,
	BYTES,
	SECTORS,
	MODEL,
};

static const struct field {
	const char *name;
	size_t offset;
	size_t size;
	enum unit unit;
} fields[] = {
#define FIELD(name, unit)						\
	{ #name, offsetof(struct blk_config, name),			\
	  sizeof(((struct blk_config *)0)->name), unit }
	FIELD(capacity, SECTORS),
	FIELD(size_max, BYTES),
	FIELD(seg_max, COUNT),
	FIELD(cylinders, COUNT),
	FIELD(heads, COUNT),
	FIELD(sectors, COUNT),
	FIELD(blk_size, BYTES),
	FIELD(physical_block_exp, COUNT),
	FIELD(alignment_offset, COUNT),
	FIELD(min_io_size, COUNT),
	FIELD(opt_io_size, COUNT),
	FIELD(writeback, COUNT),
	FIELD(unused0, COUNT),
	FIELD(num_queues, COUNT),
	FIELD(max_discard_sectors, SECTORS),
	FIELD(max_discard_seg, COUNT),
	FIELD(discard_sector_alignment, SECTORS),
	FIELD(max_write_zeroes_sectors, SECTORS),
	FIELD(max_write_zeroes_seg, COUNT),
	FIELD(write_zeroes_may_unmap, COUNT),
	FIELD(unused1, COUNT),
	FIELD(max_secure_erase_sectors, SECTORS),
	FIELD(max_secure_erase_seg, COUNT),
	FIELD(secure_erase_sector_alignment, SECTORS),
	FIELD(zone_sectors, SECTORS),
	FIELD(max_open_zones, COUNT),
	FIELD(max_active_zones, COUNT),
	FIELD(max_append_sectors, SECTORS),
	FIELD(write_granularity, BYTES),
	FIELD(model, MODEL),
	FIELD(unused2, COUNT),
#undef FIELD
};

static bool fail(char *why, size_t why_size, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

static bool fail(char *why, size_t why_size, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(why, why_size, fmt, args);
	va_end(args);
	return false;
}

/* A number with an optional suffix; up to a limit. */
static bool parse_number(const char *key, const char *value, enum unit unit,
			 uint64_t most, uint64_t *number, char *why,
			 size_t why_size)
{
	static const char suffixes[] = "kMGT";
	const char *suffix;
	uint64_t scale = 1;
	char *end;

	errno = 0;
	*number = strtoull(value, &end, 0);
	if (end == value || *value == '-' || isspace((unsigned char)*value) ||
	    errno)
		return fail(why, why_size,
			    "%s: \"%s\" is no number from 0 to %" PRIu64 "; write it as 4096%s",
			    key, value,
			    most, unit == COUNT ? "" : " or 64M");
	if (*end && unit != COUNT) {
		suffix = strchr(suffixes, *end == 'K' ? 'k' : *end);
		if (suffix) {
			scale <<= 10 * (suffix - suffixes + 1);
			/* With a suffix it is always bytes. */
			if (unit == SECTORS)
				scale /= SECTOR_SIZE;
			end++;
		}
	}
	if (*end)
		return fail(why, why_size, "%s: \"%s\" ends in \"%s\"; %s", key,
			    value, end, unit == COUNT ?
			    "it is a count and takes no suffix" :
			    "the suffixes are k, M, G and T");
	if (*number > most / scale)
		return fail(why, why_size,
			    "%s: %s is too large, the limit is %" PRIu64 "%s",
			    key, value, most,
			    unit == SECTORS ? " sectors" : "");
	*number *= scale;
	return true;
}

static bool parse_model(const char *key, const char *value, uint64_t *number,
			char *why, size_t why_size)
{
	static const char *const models[] = { "none", "hm", "ha" };

	for (size_t i = 0; i < ARRAY_SIZE(models); i++)
		if (!strcmp(value, models[i])) {
			*number = i;
			return true;
		}
	if (isdigit((unsigned char)*value))
		return parse_number(key, value, COUNT, 255, number, why,
				    why_size);
	return fail(why, why_size,
		    "%s: \"%s\" is no model; there are none, hm and ha, or any number to 255",
		    key, value);
}

static const struct field *find_field(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(fields); i++)
		if (!strcmp(fields[i].name, name))
			return &fields[i];
	return NULL;
}

static void store_field(struct blk_config *config, const struct field *field,
			uint64_t number)
{
	uint64_t le = htole64(number);

	/* Copy as many low bytes as the field has. */
	memcpy((uint8_t *)config + field->offset, &le, field->size);
}

const char *settings_field(unsigned int n, size_t *bytes)
{
	if (n >= ARRAY_SIZE(fields))
		return NULL;
	*bytes = fields[n].size;
	return fields[n].name;
}

int settings_set_config(struct settings *set, const char *name,
			const char *value, char *why, size_t why_size)
{
	const struct field *field = find_field(name);
	uint64_t most, number;
	bool good;

	if (!field) {
		fail(why, why_size,
			    "there is no field \"%s\"; the fields are those of struct virtio_blk_config, such as capacity",
			    name);
		return -1;
	}
	most = field->size == 8 ? UINT64_MAX : (1ull << 8 * field->size) - 1;
	if (field->unit == MODEL)
		good = parse_model(name, value, &number, why, why_size);
	else
		good = parse_number(name, value, field->unit, most, &number,
				    why, why_size);
	if (!good)
		return -1;
	store_field(&set->config, field, number);
	return 0;
}

/* Settings that were given, as opposed to defaults. */
static struct {
	bool access_platform;
	bool num_queues;
	bool model;
	bool zone_sectors;
	bool zoned_feature;
	bool control;
	bool max_open_zones;
	bool max_active_zones;
	bool max_append_sectors;
	bool write_granularity;
} said;

static bool apply_feature(const char *key, uint64_t *features, const char *name,
			  bool *first, char *why, size_t why_size)
{
	bool minus = *name == '-', sign = minus || *name == '+';
	uint64_t bits;
	int bit;

	name += sign;
	bit = feature_number(name);
	if (!strcmp(name, "default"))
		bits = features_default();
	else if (!strcmp(name, "all"))
		bits = features_all();
	else if (!strcmp(name, "none"))
		bits = 0;
	else if (bit >= 0)
		bits = 1ull << bit;
	else
		return fail(why, why_size,
			    "%s: there is no feature \"%s\"; use a name from --help, or a number such as bit40",
			    key, name);
	/* A list that begins without a sign replaces the default. */
	if (*first && !sign)
		*features = 0;
	*first = false;
	if (bit == BLK_F_ZONED && !strcmp(key, "features"))
		said.zoned_feature = true;
	if (bit == F_ACCESS_PLATFORM && !strcmp(key, "features"))
		said.access_platform = true;
	if (minus)
		*features &= ~bits;
	else
		*features |= bits;
	return true;
}

static bool apply_features(const char *key, const char *value,
			   uint64_t *features, char *why, size_t why_size)
{
	char *list = strdup(value), *rest = list, *name;
	bool first = true, good = true;

	while (good && (name = strsep(&rest, ", ")))
		if (*name)
			good = apply_feature(key, features, name, &first, why,
					     why_size);
	free(list);
	return good;
}

static bool apply_bool(const char *key, const char *value, bool *to, char *why,
		       size_t why_size)
{
	*to = !strcmp(value, "yes");
	if (*to || !strcmp(value, "no"))
		return true;
	return fail(why, why_size, "%s: \"%s\" is neither yes nor no", key,
		    value);
}

static bool apply_name(struct settings *set, const char *value, char *why,
		       size_t why_size)
{
	if (!*value || strlen(value) >= sizeof(set->name) ||
	    value[strspn(value, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")])
		return fail(why, why_size,
			    "name: \"%s\" is not 1 to %zu letters, digits, - and _",
			    value,
			    sizeof(set->name) - 1);
	strcpy(set->name, value);
	return true;
}

static bool apply_id(struct settings *set, const char *value, char *why,
		     size_t why_size)
{
	size_t len = strlen(value);

	if (len > sizeof(set->id))
		return fail(why, why_size,
			    "id: \"%s\" has %zu characters, the limit is %zu",
			    value, len,
			    sizeof(set->id));
	memset(set->id, 0, sizeof(set->id));
	memcpy(set->id, value, len);
	return true;
}

static bool tolerate_rule(struct settings *set, const char *name, char *why,
			  size_t why_size)
{
	for (int rule = 0; rule < NR_RULES; rule++)
		if (!strcmp(rule_texts[rule].name, name)) {
			set->tolerate[rule] = true;
			return true;
		}
	return fail(why, why_size,
		    "tolerate: there is no rule \"%s\"; --list-rules lists them",
		    name);
}

static bool apply_tolerate(struct settings *set, const char *value, char *why,
			   size_t why_size)
{
	char *list = strdup(value), *rest = list, *name;
	bool good = true;

	while (good && (name = strsep(&rest, ", ")))
		if (*name)
			good = tolerate_rule(set, name, why, why_size);
	free(list);
	return good;
}

static bool apply_script(struct settings *set, const char *value, char *why,
			 size_t why_size)
{
	char **more = realloc(set->scripts, (set->nr_scripts + 1) *
			      sizeof(*more));

	if (!more)
		return fail(why, why_size, "script: out of memory");
	set->scripts = more;
	more[set->nr_scripts++] = strdup(value);
	return true;
}

static char *trim(char *text)
{
	char *end;

	while (isspace((unsigned char)*text))
		text++;
	end = text + strlen(text);
	while (end > text && isspace((unsigned char)end[-1]))
		*--end = '\0';
	return text;
}

typedef bool (*line_fn)(struct settings *set, char *line, char *why,
			size_t why_size);

/* Call fn for each line of a file that is not empty or a comment. */
static bool each_line(struct settings *set, const char *key, const char *path,
		      line_fn fn, char *why, size_t why_size)
{
	FILE *file = fopen(path, "re");
	char *line = NULL, *text, inner[WHY_SIZE / 2];
	size_t room = 0;
	unsigned int number = 0;
	bool good = true;

	if (!file)
		return fail(why, why_size, "%s: cannot read %s: %s", key, path,
			    strerror(errno));
	while (good && getline(&line, &room, file) >= 0) {
		number++;
		text = trim(line);
		if (!*text || *text == '#')
			continue;
		good = fn(set, text, inner, sizeof(inner));
		if (!good)
			fail(why, why_size, "%s, line %u: %s", path, number,
			     inner);
	}
	free(line);
	fclose(file);
	return good;
}

static bool script_line(struct settings *set, char *line, char *why,
			size_t why_size)
{
	return apply_script(set, line, why, why_size);
}

/* All settings except the fields of the configuration space. */
enum kind {
	NAME,
	QUEUES,
	RING_SIZE,
	FEATURES,
	REQUIRED,
	ID,
	STORE,
	PRE_EOL,
	TYP_A,
	TYP_B,
	CONVENTIONAL,
	ZONE_CAPACITY,
	ATTACH,
	REPORT,
	CONTROL,
	SOCKET,
	SCRIPT,
	SCRIPT_FILE,
	TOLERATE,
	FUZZ,
	MUTATE,
	SETTINGS,
};

static const struct setting {
	const char *key;
	enum kind kind;
	const char *value;
	const char *help;
} table[] = {
	{ "socket", SOCKET, "PATH",
	  "be a vhost-user device for QEMU on this host, at this socket: none" },
	{ "name", NAME, "NAME", "name of the device on the vDPA bus: sim" },
	{ "queues", QUEUES, "N", "number of virtqueues, 1 to 64: 4" },
	{ "ring_size", RING_SIZE, "N",
	  "the largest ring, 1 to 65535 entries: 128" },
	{ "features", FEATURES, "LIST",
	  "offered features: default, or all, or names; -NAME and +NAME change the default" },
	{ "required", REQUIRED, "LIST",
	  "features that a driver must accept if they are offered: none" },
	{ "id", ID, "TEXT", "answer to GET_ID, up to 20 characters: vblksim" },
	{ "file", STORE, "PATH", "keep the data in a file instead of memory" },
	{ "pre_eol_info", PRE_EOL, "N", "answer to GET_LIFETIME: 1" },
	{ "device_lifetime_est_typ_a", TYP_A, "N", "the same: 1" },
	{ "device_lifetime_est_typ_b", TYP_B, "N", "the same: 2" },
	{ "zone_conventional", CONVENTIONAL, "N",
	  "number of conventional zones at the start: 0" },
	{ "zone_capacity", ZONE_CAPACITY, "SIZE",
	  "writable size of a sequential zone, 0 for all: 0" },
	{ "attach", ATTACH, "yes|no",
	  "add the device to the vDPA bus, so that the driver probes it: yes" },
	{ "report", REPORT, "PATH",
	  "file for the report at the end: standard output" },
	{ "control", CONTROL, "PATH",
	  "socket for vblksim ctl: /run/vblksim-NAME.sock" },
	{ "script", SCRIPT, "LINE",
	  "treat some requests badly, see --list-script; may be repeated" },
	{ "script_file", SCRIPT_FILE, "PATH", "file with such lines" },
	{ "tolerate", TOLERATE, "RULES",
	  "rules from --list-rules that do not change the exit status" },
	{ "fuzz", FUZZ, "SEED",
	  "be hostile: all except the name comes from this number" },
	{ "mutate", MUTATE, "N",
	  "mutate so many of 256 replies of --fuzz: from the seed" },
	{ "settings", SETTINGS, "PATH",
	  "more settings from a file, as lines KEY = VALUE" },
};

static bool apply(struct settings *set, const char *key, const char *value,
		  char *why, size_t why_size);

static bool settings_line(struct settings *set, char *line, char *why,
			  size_t why_size)
{
	char *equals = strchr(line, '=');

	if (!equals)
		return fail(why, why_size, "\"%s\" has no =; write KEY = VALUE",
			    line);
	*equals = '\0';
	return apply(set, trim(line), trim(equals + 1), why, why_size);
}

/* @to may be unaligned, because it is in a packed structure. */
static bool apply_u16(const char *key, const char *value, void *to, char *why,
		      size_t why_size)
{
	uint64_t number;
	uint16_t le;

	if (!parse_number(key, value, COUNT, UINT16_MAX, &number, why,
			  why_size))
		return false;
	le = htole16(number);
	memcpy(to, &le, sizeof(le));
	return true;
}

static bool apply_count(const char *key, const char *value, uint64_t least,
			uint64_t most, unsigned int *to, char *why,
			size_t why_size)
{
	uint64_t number;

	if (!parse_number(key, value, COUNT, most, &number, why, why_size))
		return false;
	if (number < least)
		return fail(why, why_size,
			    "%s: %s is too small, it takes %" PRIu64 " to %" PRIu64,
			    key, value, least, most);
	*to = number;
	return true;
}

static bool apply_setting(struct settings *set, const struct setting *it,
			  const char *value, char *why, size_t why_size)
{
	const char *key = it->key;

	switch (it->kind) {
	case NAME:
		return apply_name(set, value, why, why_size);
	case QUEUES:
		return apply_count(key, value, 1, MAX_QUEUES, &set->queues, why,
				   why_size);
	case RING_SIZE:
		return apply_count(key, value, 1, UINT16_MAX, &set->ring_size,
				   why, why_size);
	case FEATURES:
		return apply_features(key, value, &set->features, why, why_size);
	case REQUIRED:
		return apply_features(key, value, &set->required, why, why_size);
	case ID:
		return apply_id(set, value, why, why_size);
	case STORE:
		set->file = strdup(value);
		return true;
	case PRE_EOL:
		return apply_u16(key, value, &set->lifetime.pre_eol_info, why,
				 why_size);
	case TYP_A:
		return apply_u16(key, value,
				 &set->lifetime.device_lifetime_est_typ_a, why,
				 why_size);
	case TYP_B:
		return apply_u16(key, value,
				 &set->lifetime.device_lifetime_est_typ_b, why,
				 why_size);
	case CONVENTIONAL:
		return apply_count(key, value, 0, UINT32_MAX,
				   &set->zone_conventional, why, why_size);
	case ZONE_CAPACITY:
		return parse_number(key, value, SECTORS, UINT64_MAX,
				    &set->zone_capacity, why, why_size);
	case ATTACH:
		return apply_bool(key, value, &set->attach, why, why_size);
	case REPORT:
		set->report = strdup(value);
		return true;
	case CONTROL:
		set->control = strdup(value);
		said.control = true;
		return true;
	case SOCKET:
		set->socket = strdup(value);
		return true;
	case SCRIPT:
		return apply_script(set, value, why, why_size);
	case SCRIPT_FILE:
		return each_line(set, key, value, script_line, why, why_size);
	case TOLERATE:
		return apply_tolerate(set, value, why, why_size);
	case FUZZ:
		set->fuzz = true;
		return parse_number(key, value, COUNT, UINT64_MAX, &set->seed,
				    why, why_size);
	case MUTATE:
		return apply_count(key, value, 1, 256, &set->mutate, why,
				   why_size);
	case SETTINGS:
		return each_line(set, key, value, settings_line, why, why_size);
	}
	return false;
}

/* Note that a field was set, so that complete() does not choose a default. */
static void note_field(const char *key)
{
	said.num_queues |= !strcmp(key, "num_queues");
	said.model |= !strcmp(key, "model");
	said.zone_sectors |= !strcmp(key, "zone_sectors");
	said.max_open_zones |= !strcmp(key, "max_open_zones");
	said.max_active_zones |= !strcmp(key, "max_active_zones");
	said.max_append_sectors |= !strcmp(key, "max_append_sectors");
	said.write_granularity |= !strcmp(key, "write_granularity");
}

static bool apply(struct settings *set, const char *key, const char *value,
		  char *why, size_t why_size)
{
	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		if (!strcmp(table[i].key, key))
			return apply_setting(set, &table[i], value, why,
					     why_size);
	if (find_field(key)) {
		note_field(key);
		return !settings_set_config(set, key, value, why, why_size);
	}
	return fail(why, why_size, "there is no setting \"%s\"; --help lists all", key);
}

void settings_init(struct settings *set)
{
	memset(set, 0, sizeof(*set));
	memset(&said, 0, sizeof(said));
	strcpy(set->name, "sim");
	strcpy(set->id, "vblksim");
	set->features = features_default();
	set->queues = 4;
	set->ring_size = 128;
	set->attach = true;
	set->lifetime.pre_eol_info = htole16(1);
	set->lifetime.device_lifetime_est_typ_a = htole16(1);
	set->lifetime.device_lifetime_est_typ_b = htole16(2);
	set->config = (struct blk_config) {
		.capacity = htole64((64 << 20) / SECTOR_SIZE),
		.size_max = htole32(1 << 20),
		.seg_max = htole32(126),
		.cylinders = htole16(130),
		.heads = 16,
		.sectors = 63,
		.blk_size = htole32(512),
		.physical_block_exp = 3,
		.min_io_size = htole16(8),
		.opt_io_size = htole32(128),
		.num_queues = htole16(4),
		.max_discard_sectors = htole32(16384),
		.max_discard_seg = htole32(8),
		.discard_sector_alignment = htole32(8),
		.max_write_zeroes_sectors = htole32(16384),
		.max_write_zeroes_seg = htole32(8),
		.write_zeroes_may_unmap = 1,
		.max_secure_erase_sectors = htole32(16384),
		.max_secure_erase_seg = htole32(8),
		.secure_erase_sector_alignment = htole32(8),
	};
}

static void default_u32(bool was_said, uint32_t *field, uint32_t value)
{
	if (!was_said)
		*field = htole32(value);
}

/* Choose defaults for the zones of a zoned device. */
static void complete_zoned(struct settings *set)
{
	struct blk_config *config = &set->config;
	uint32_t zone_sectors, max_append_sectors, write_granularity;
	uint32_t max_open_zones, max_active_zones;

	if (!said.zoned_feature)
		set->features |= 1ull << BLK_F_ZONED;
	zone_sectors = config->zone_sectors;
	max_open_zones = config->max_open_zones;
	max_active_zones = config->max_active_zones;
	max_append_sectors = config->max_append_sectors;
	write_granularity = config->write_granularity;
	default_u32(said.zone_sectors, &zone_sectors, 8192);
	default_u32(said.max_open_zones, &max_open_zones, 6);
	default_u32(said.max_active_zones, &max_active_zones, 8);
	default_u32(said.max_append_sectors, &max_append_sectors, 1024);
	default_u32(said.write_granularity, &write_granularity, 512);
	config->zone_sectors = zone_sectors;
	config->max_open_zones = max_open_zones;
	config->max_active_zones = max_active_zones;
	config->max_append_sectors = max_append_sectors;
	config->write_granularity = write_granularity;
}

/* Choose defaults that depend on other settings. */
static void complete(struct settings *set)
{
	char *path;

	/* VDUSE requires it.  QEMU's devices offer it only if told to. */
	if (set->socket && !said.access_platform)
		set->features &= ~(1ull << F_ACCESS_PLATFORM);
	if (!said.num_queues)
		set->config.num_queues = htole16(set->queues);
	if (set->config.model == BLK_Z_HM || set->config.model == BLK_Z_HA)
		complete_zoned(set);
	if (!said.control && asprintf(&path, "/run/vblksim-%s.sock",
				      set->name) >= 0)
		set->control = path;
	if (set->fuzz)
		fuzz_settings(set, set->seed);
}

static void print_help(void)
{
	puts("usage: vblksim [--KEY=VALUE...]\n"
	     "       vblksim fuzz [--KEY=VALUE...]\n"
	     "       vblksim ctl [--control=PATH] COMMAND...\n\n"
	     "A virtio block device for this system, by VDUSE, or for a guest of QEMU, by\nvhost-user.  It checks its driver and misbehaves on demand.  Defaults are after the\ncolon.\n");
	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		printf("  --%s=%s\n\t%s\n", table[i].key, table[i].value,
		       table[i].help);
	puts("\nFields of the configuration space, with any value:\n");
	for (size_t i = 0; i < ARRAY_SIZE(fields); i++)
		printf("  --%s=%s\n", fields[i].name,
		       fields[i].unit == MODEL ? "none|hm|ha" :
		       fields[i].unit == COUNT ? "N" : "SIZE");
	puts("\nA SIZE may end in k, M, G or T.  Fields in sectors then are in bytes: 64M\nand 131072 are the same capacity.\n\nFeatures:\n");
	for (unsigned int bit = 0; bit < 64; bit++)
		if (feature_name(bit))
			printf("  %s%s\n", feature_name(bit),
			       features_default() >> bit & 1 ? "" :
			       " (not by default)");
	puts("\n  --list-rules   the rules that vblksim checks\n"
	     "  --list-script  the language of scripts\n"
	     "  ctl            commands to a running vblksim\n"
	     "  --version      the version\n"
	     "  --help         this text");
}

/* Options that print information and exit. */
static bool print_option(const char *option)
{
	if (!strcmp(option, "--help"))
		print_help();
	else if (!strcmp(option, "--version"))
		puts("vblksim " VERSION);
	else if (!strcmp(option, "--list-rules"))
		watch_list(stdout);
	else if (!strcmp(option, "--list-script"))
		script_help(stdout);
	else
		return false;
	return true;
}

static bool parse_option(struct settings *set, const char *option, char *why,
			 size_t why_size)
{
	const char *equals = strchr(option, '=');
	char *key;
	bool good;

	if (strncmp(option, "--", 2) || !equals)
		return fail(why, why_size,
			    "\"%s\" is no setting; write --KEY=VALUE, or --help",
			    option);
	key = strndup(option + 2, equals - option - 2);
	good = apply(set, key, equals + 1, why, why_size);
	free(key);
	return good;
}

int settings_parse(struct settings *set, int argc, char **argv)
{
	char why[WHY_SIZE];

	for (int i = 1; i < argc; i++) {
		if (print_option(argv[i]))
			return 0;
		if (!parse_option(set, argv[i], why, sizeof(why))) {
			fprintf(stderr, "vblksim: %s\n", why);
			return 2;
		}
	}
	if (set->mutate && !set->fuzz) {
		fprintf(stderr, "vblksim: mutate: only a hostile device mutates replies; give it a seed with --fuzz=N\n");
		return 2;
	}
	complete(set);
	return -1;
}
