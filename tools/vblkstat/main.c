// SPDX-License-Identifier: GPL-2.0
/* The command line. */

#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "vblkstat.h"

#define MIN_INTERVAL	0.1
#define MAX_INTERVAL	86400.0

/*
 * A command with its usual interval, and how many numbers it takes after the names.  A
 * vDPA device can have a number as its name.
 */
static const struct command {
	const char *name;
	int (*run)(const struct request *request);
	double interval;
	int numbers;
	bool any_name;
} commands[] = {
	{ .name = "list", .run = list_main },
	{ .name = "queues", .run = queues_main },
	{ .name = "watch", .run = watch_main, .interval = 1, .numbers = 2 },
	{ .name = "doctor", .run = doctor_main, .interval = 1, .numbers = 1 },
	{ .name = "host", .run = host_main, .any_name = true },
	{ .name = "snapshot", .run = snapshot_main, .any_name = true },
	{ .name = "check", .run = check_main },
	{ .name = "export", .run = export_main },
};

static const char names[] = "list, queues, watch, doctor, host, snapshot, check or export";

static const char help[] =
"vblkstat - show virtio-blk disks and their queues, in a guest or on a host\n"
"\n"
"  vblkstat DISK                       all of list and queues for a disk\n"
"  vblkstat list   [DISK...]           disks, drivers, queues, features\n"
"  vblkstat queues [DISK...]           CPUs, interrupts, affinity, depth, in flight\n"
"  vblkstat watch  [DISK...] [SECONDS [COUNT]]\n"
"                                      rates and latency (with root p50, p99 and the\n"
"                                      longest); each second until ^C\n"
"  vblkstat doctor [DISK...] [SECONDS] errors and warnings, and what to do; waits\n"
"                                      SECONDS to find stuck requests\n"
"  vblkstat host   [DEVICE...]         on a host: vdpa_blk devices, their backing\n"
"                                      devices, workers, queues, requests, batches\n"
"  vblkstat snapshot FILE.tar          all that these commands read, for --root\n"
"  vblkstat check  [-w AGE[,ERRORS]] [-c AGE[,ERRORS]] [-t SECONDS] [DISK...]\n"
"                                      a line for Nagios, Icinga and others; AGE is of\n"
"                                      the oldest unanswered request, in seconds\n"
"  vblkstat export [--output=FILE] [DISK...]\n"
"                                      metrics for Prometheus; FILE is replaced in one\n"
"                                      step, for the textfile collector\n"
"\n"
"  --json       print JSON, one object on a line\n"
"  --histogram  watch shows how many requests took how long\n"
"  --since=TIME doctor leaves out what ended before: 30m, 2h or 3d ago, or 02:30;\n"
"               --since=boot shows what was cleared, too\n"
"  --clear      doctor does not report again what has happened until now\n"
"  --root=DIR   read a copy of /sys and /proc below DIR\n"
"  --help, --version\n"
"\n"
"DISK is a name like vda, one of its partitions or its links in /dev/disk; DEVICE\n"
"is the name of a vDPA device; the default is all.\n"
"Counters of queues, their types and their requests in flight need root and debugfs,\n"
"and the counters and latency the driver that vblkstat comes with. host needs root\n"
"and debugfs for all but the names and users of devices. Everything else works for\n"
"any user and with the in-tree driver.\n"
"\n"
"Exit status: 0: success; 1: doctor has findings of now; 2: failure; 4: doctor has\n"
"none, or snapshot wrote FILE, but could not read everything.  That of check is\n"
"0: OK; 1: warning; 2: critical; 3: unknown.\n";

enum option_value {
	OPTION_JSON = 256,
	OPTION_HISTOGRAM,
	OPTION_ROOT,
	OPTION_SINCE,
	OPTION_CLEAR,
	OPTION_OUTPUT,
	OPTION_HELP,
	OPTION_VERSION,
};

static const struct option options[] = {
	{ "json", no_argument, NULL, OPTION_JSON },
	{ "histogram", no_argument, NULL, OPTION_HISTOGRAM },
	{ "root", required_argument, NULL, OPTION_ROOT },
	{ "since", required_argument, NULL, OPTION_SINCE },
	{ "clear", no_argument, NULL, OPTION_CLEAR },
	{ "output", required_argument, NULL, OPTION_OUTPUT },
	{ "help", no_argument, NULL, OPTION_HELP },
	{ "version", no_argument, NULL, OPTION_VERSION },
	{ }
};

/* Paths begin with a slash: a root of "/" becomes empty. */
static void set_root(char *path)
{
	size_t length = strlen(path);

	if (!length)
		fail("--root= is empty; name the directory that contains sys and proc");
	while (length && path[length - 1] == '/')
		path[--length] = '\0';
	root = path;
}

/* Parse "30m", which is that long ago.  Return UNKNOWN if it is something else. */
static uint64_t parse_ago(const char *text)
{
	static const char units[] = "smhd";
	static const uint64_t seconds[] = { 1, 60, 3600, 86400 };
	uint64_t number, now = time(NULL);
	const char *unit;
	char *end;

	number = parse_number(text, &end);
	unit = *end ? strchr(units, *end) : NULL;
	if (!unit || end[1] || number > now / seconds[unit - units])
		return UNKNOWN;
	return now - number * seconds[unit - units];
}

static void set_since(const char *text, struct request *request)
{
	request->since_boot = !strcmp(text, "boot");
	if (request->since_boot)
		return;
	request->since = parse_ago(text);
	if (request->since == UNKNOWN)
		request->since = clock_parse(text);
	if (request->since == UNKNOWN)
		fail("--since=%s is no time; use 30m, 2h or 3d for a time ago, 02:30, or boot",
		     text);
}

/* check reports a wrong command line, too, as a monitoring plugin. */
static bool is_plugin(int argc, char **argv)
{
	return optind < argc && !strcmp(argv[optind], "check");
}

/* Take an option that is a text.  Return false if there is no such option. */
static bool set_text(int option, struct request *request)
{
	switch (option) {
	case 'w':
		request->warning = optarg;
		return true;
	case 'c':
		request->critical = optarg;
		return true;
	case 't':
		request->timeout = optarg;
		return true;
	case OPTION_OUTPUT:
		request->output = optarg;
		return true;
	default:
		return false;
	}
}

static void parse_options(int argc, char **argv, struct request *request)
{
	char *directory = NULL;
	bool valid = true;
	int option;

	while ((option = getopt_long(argc, argv, "hVw:c:t:", options, NULL)) != -1) {
		switch (option) {
		case OPTION_JSON:
			request->json = true;
			break;
		case OPTION_HISTOGRAM:
			request->histogram = true;
			break;
		case OPTION_ROOT:
			directory = optarg;
			break;
		case OPTION_SINCE:
			set_since(optarg, request);
			break;
		case OPTION_CLEAR:
			request->clear = true;
			break;
		case 'h':
		case OPTION_HELP:
			fputs(help, stdout);
			exit(ALL_WELL);
		case 'V':
		case OPTION_VERSION:
			puts("vblkstat " VBLKSTAT_VERSION);
			exit(ALL_WELL);
		default:
			valid &= set_text(option, request);
		}
	}
	if (is_plugin(argc, argv))
		fail_as_plugin();
	if (!valid)
		fail("see \"vblkstat --help\"");
	if (directory)
		set_root(directory);
}

static const struct command *find_command(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		if (!strcmp(name, commands[i].name))
			return &commands[i];
	return NULL;
}

/* "vblkstat vda" shows the disk. */
static const struct command show = { .name = "show", .run = show_main };

static bool is_disk(const char *word)
{
	char *name = disk_name(word);
	bool found = read_number("/sys/block/%s/size", name) != UNKNOWN;

	free(name);
	return found;
}

/* Refuse options that a command does not have. */
static void check_options(const struct command *command,
			  const struct request *request)
{
	bool is_check = command->run == check_main;
	bool is_export = command->run == export_main;

	if ((request->warning || request->critical || request->timeout) && !is_check)
		fail("-w, -c and -t are for check, not for \"%s\"", command->name);
	if (request->output && !is_export)
		fail("--output is for export, not for \"%s\"", command->name);
	if (request->histogram && command->run != watch_main)
		fail("--histogram is for watch, not for \"%s\"", command->name);
	if (request->json && (is_check || is_export))
		fail("\"%s\" has no --json; its output has a format of its own",
		     command->name);
}

static bool is_number(const char *text)
{
	return text[0] && strspn(text, "0123456789.") == strlen(text);
}

static double parse_interval(const char *text)
{
	double seconds;
	char *end;

	seconds = strtod(text, &end);
	if (*end || !(seconds >= MIN_INTERVAL && seconds <= MAX_INTERVAL))
		fail("%s is not an interval; use %g to %.0f seconds", text,
		     MIN_INTERVAL, MAX_INTERVAL);
	return seconds;
}

static unsigned long parse_count(const char *text)
{
	unsigned long count;
	char *end;

	errno = 0;
	count = strtoul(text, &end, 10);
	if (*end || errno || !count)
		fail("%s is not a count; use 1 or more", text);
	return count;
}

/* Parse the names of disks and then the numbers that some commands take. */
static void parse_words(int count, char **words, const struct command *command,
			struct request *request)
{
	int i, most = command->numbers;

	for (i = 0; i < count && (command->any_name || !is_number(words[i])); i++)
		if (!command->any_name)
			words[i] = disk_name(words[i]);
	request->disks = words;
	request->nr_disks = i;
	request->interval = command->interval;
	if (count - i > most)
		fail("\"%s\": too many arguments for \"%s\"; see \"vblkstat --help\"",
		     words[i + most], command->name);
	if (i < count)
		request->interval = parse_interval(words[i++]);
	if (i < count)
		request->count = parse_count(words[i]);
}

int main(int argc, char **argv)
{
	struct request request = { };
	const struct command *command;
	int status;

	parse_options(argc, argv, &request);
	if (optind == argc)
		fail("the command is missing; use %s", names);
	command = find_command(argv[optind]);
	if (!command && is_disk(argv[optind])) {
		command = &show;
		optind--;
	} else if (!command) {
		fail("there is no command or disk \"%s\"; use %s, or a disk of \"vblkstat list\"",
		     argv[optind], names);
	}
	if (command->run != doctor_main &&
	    (request.clear || request.since || request.since_boot))
		fail("--clear and --since are only for doctor");
	check_options(command, &request);
	parse_words(argc - optind - 1, argv + optind + 1, command, &request);
	status = command->run(&request);
	for (unsigned int i = 0; !command->any_name && i < request.nr_disks; i++)
		free(request.disks[i]);
	if (fflush(stdout) || ferror(stdout))
		fail("cannot write to standard output: %s", strerror(errno));
	return status;
}
