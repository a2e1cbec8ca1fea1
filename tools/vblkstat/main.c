// SPDX-License-Identifier: GPL-2.0
/* The command line. */

#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "vblkstat.h"

#define MIN_INTERVAL	0.1
#define MAX_INTERVAL	86400.0

static const struct command {
	const char *name;
	int (*run)(const struct request *request);
	double interval;
} commands[] = {
	{ "list", list_main, 0 },
	{ "queues", queues_main, 0 },
	{ "watch", watch_main, 1 },
	{ "doctor", doctor_main, 1 },
};

static const char help[] =
"vblkstat - show virtio-blk disks and their queues\n"
"\n"
"  vblkstat list   [DISK...]           disks, drivers, queues, features\n"
"  vblkstat queues [DISK...]           CPUs, interrupts, affinity, depth, in flight\n"
"  vblkstat watch  [DISK...] [SECONDS [COUNT]]\n"
"                                      rates and latency; each second until ^C\n"
"  vblkstat doctor [DISK...] [SECONDS] errors and warnings, and what to do; waits\n"
"                                      SECONDS to find stuck requests\n"
"\n"
"  --json       print JSON, one object on a line\n"
"  --root=DIR   read a copy of /sys and /proc below DIR\n"
"  --help, --version\n"
"\n"
"DISK is a name like vda; the default is all disks. Counters of queues, their types\n"
"and their requests in flight need root and debugfs, and the counters the driver that\n"
"vblkstat comes with. Everything else works for any user and with the in-tree driver.\n"
"\n"
"Exit status: 0: success; 1: doctor has findings; 2: failure.\n";

enum option_value {
	OPTION_JSON = 256,
	OPTION_ROOT,
	OPTION_HELP,
	OPTION_VERSION,
};

static const struct option options[] = {
	{ "json", no_argument, NULL, OPTION_JSON },
	{ "root", required_argument, NULL, OPTION_ROOT },
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

static void parse_options(int argc, char **argv, struct request *request)
{
	int option;

	while ((option = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		switch (option) {
		case OPTION_JSON:
			request->json = true;
			break;
		case OPTION_ROOT:
			set_root(optarg);
			break;
		case 'h':
		case OPTION_HELP:
			fputs(help, stdout);
			exit(ALL_WELL);
		case OPTION_VERSION:
			puts("vblkstat " VBLKSTAT_VERSION);
			exit(ALL_WELL);
		default:
			fail("see \"vblkstat --help\"");
		}
	}
}

static const struct command *find_command(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		if (!strcmp(name, commands[i].name))
			return &commands[i];
	fail("there is no command \"%s\"; use list, queues, watch or doctor", name);
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
	static const char device[] = "/dev/";
	int i, most = command->run == watch_main ? 2 :
		      command->run == doctor_main ? 1 : 0;

	for (i = 0; i < count && !is_number(words[i]); i++)
		if (!strncmp(words[i], device, strlen(device)))
			words[i] += strlen(device);
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
		fail("the command is missing; use list, queues, watch or doctor");
	command = find_command(argv[optind]);
	parse_words(argc - optind - 1, argv + optind + 1, command, &request);
	status = command->run(&request);
	if (fflush(stdout) || ferror(stdout))
		fail("cannot write to standard output: %s", strerror(errno));
	return status;
}
