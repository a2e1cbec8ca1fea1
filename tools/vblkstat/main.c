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
"vblkstat - look into virtio-blk disks and their queues\n"
"\n"
"  vblkstat list   [DISK...]           disks, driver, features in words, queues\n"
"  vblkstat queues [DISK...]           CPUs, interrupt, affinity, depth, in flight\n"
"  vblkstat watch  [DISK...] [SECONDS [COUNT]]\n"
"                                      rates and latency; every second, until ^C\n"
"  vblkstat doctor [DISK...] [SECONDS] what is wrong or unwise, and what to change;\n"
"                                      looks for requests that are stuck that long\n"
"\n"
"  --json       JSON, one object on a line\n"
"  --root=DIR   look into a copy of /sys and /proc below DIR\n"
"  --help, --version\n"
"\n"
"DISK is a name like vda; without one it is all of them. Counters by queue take\n"
"root, a debugfs, and the driver that vblkstat comes with; all else any user, and\n"
"the kernel's own driver, too.\n"
"\n"
"Exit status: 0; 1 if doctor has found something; 2 if it could not be done.\n";

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

/* Paths go behind it, so a root of "/" is none. */
static void set_root(char *path)
{
	size_t length = strlen(path);

	if (!length)
		fail("--root= is empty: name the directory that has sys and proc");
	while (length && path[length - 1] == '/')
		path[--length] = '\0';
	root = path;
}

static void take_options(int argc, char **argv, struct request *request)
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
			fail("\"vblkstat --help\" tells what there is");
		}
	}
}

static const struct command *find_command(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		if (!strcmp(name, commands[i].name))
			return &commands[i];
	fail("no command \"%s\"; there are list, queues, watch and doctor", name);
}

static bool is_number(const char *text)
{
	return text[0] && strspn(text, "0123456789.") == strlen(text);
}

static double take_interval(const char *text)
{
	double seconds;
	char *end;

	seconds = strtod(text, &end);
	if (*end || !(seconds >= MIN_INTERVAL && seconds <= MAX_INTERVAL))
		fail("%s is no interval: %g to %.0f seconds", text, MIN_INTERVAL,
		     MAX_INTERVAL);
	return seconds;
}

static unsigned long take_count(const char *text)
{
	unsigned long count;
	char *end;

	errno = 0;
	count = strtoul(text, &end, 10);
	if (*end || errno || !count)
		fail("%s is no count: how often to look, 1 or more", text);
	return count;
}

/* After the names of disks come numbers, for those commands that take any. */
static void take_words(int count, char **words, const struct command *command,
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
		fail("%s: too much after \"%s\"; see \"vblkstat --help\"",
		     words[i + most], command->name);
	if (i < count)
		request->interval = take_interval(words[i++]);
	if (i < count)
		request->count = take_count(words[i]);
}

int main(int argc, char **argv)
{
	struct request request = { };
	const struct command *command;
	int status;

	take_options(argc, argv, &request);
	if (optind == argc)
		fail("a command is missing: list, queues, watch or doctor");
	command = find_command(argv[optind]);
	take_words(argc - optind - 1, argv + optind + 1, command, &request);
	status = command->run(&request);
	if (fflush(stdout) || ferror(stdout))
		fail("cannot write: %s", strerror(errno));
	return status;
}
