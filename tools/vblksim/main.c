// SPDX-License-Identifier: GPL-2.0
/* Start and end. */

#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "fuzz.h"
#include "vblksim.h"

/* Lost requests of a device that is being removed are returned that often. */
#define RETURN_INTERVAL	2000000000ull

enum exit_status {
	ALL_WELL	= 0,
	WENT_WRONG	= 1,
	BAD_SETTING	= 2,
	RULE_BROKEN	= 3,
};

static int add_scripts(struct sim *sim)
{
	char why[512];

	sim->script = script_new();
	if (!sim->script)
		return WENT_WRONG;
	for (unsigned int i = 0; i < sim->set.nr_scripts; i++)
		if (script_add(sim->script, sim->set.scripts[i], why,
			       sizeof(why))) {
			fprintf(stderr, "vblksim: script \"%s\": %s\n",
				sim->set.scripts[i], why);
			return BAD_SETTING;
		}
	return ALL_WELL;
}

static bool is_zoned(const struct settings *set)
{
	/* Without a zone size there are no zones, whatever the model. */
	return set->features & 1ull << BLK_F_ZONED && set->config.zone_sectors &&
	       (set->config.model == BLK_Z_HM ||
		set->config.model == BLK_Z_HA);
}

static int open_disk(struct sim *sim)
{
	uint64_t sectors = le64toh(sim->set.config.capacity);

	sim->store = store_open(sim->set.file, sectors);
	if (!sim->store)
		return -1;
	if (is_zoned(&sim->set)) {
		sim->zones = zones_new(&sim->set);
		if (!sim->zones)
			return -1;
	}
	return ring_init(sim);
}

static void return_lost(struct sim *sim, void *arg)
{
	(void)arg;
	ring_return_lost(sim);
	loop_after(RETURN_INTERVAL, return_lost, NULL);
}

void calm_down(struct sim *sim)
{
	static bool calm;

	script_clear(sim->script);
	fuzz_calm(sim);
	if (!calm && (!sim->fuzz || !fuzz_is_stubborn(sim->fuzz)))
		return_lost(sim, NULL);
	calm = true;
}

static void signalled(struct sim *sim, void *arg)
{
	int fd = (int)(intptr_t)arg;
	struct signalfd_siginfo info;

	if (read(fd, &info, sizeof(info)) == sizeof(info))
		sim->front->stop(sim);
}

static int catch_signals(void)
{
	sigset_t set;
	int fd;

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	if (sigprocmask(SIG_BLOCK, &set, NULL))
		return -1;
	fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	if (fd < 0)
		return -1;
	return loop_add_fd(fd, signalled, (void *)(intptr_t)fd);
}

static int write_report(const struct sim *sim)
{
	FILE *out = stdout;

	if (sim->set.report)
		out = fopen(sim->set.report, "we");
	if (!out) {
		fprintf(stderr, "vblksim: report: cannot write %s: %s\n",
			sim->set.report, strerror(errno));
		return -1;
	}
	watch_report(&sim->watch, out);
	return out == stdout ? fflush(out) : fclose(out);
}

/* Fail now instead of at the end, when there is a report to write. */
static int check_report(const struct sim *sim)
{
	FILE *out;

	if (!sim->set.report)
		return 0;
	out = fopen(sim->set.report, "ae");
	if (out)
		return fclose(out);
	fprintf(stderr, "vblksim: report: cannot write %s: %s; name a file in an existing directory\n",
		sim->set.report, strerror(errno));
	return -1;
}

static bool is_rule_broken(const struct sim *sim)
{
	if (sim->fuzz)
		return false;
	for (int rule = 0; rule < NR_RULES; rule++)
		if (sim->watch.broken[rule] && !sim->set.tolerate[rule])
			return true;
	return false;
}

/* The store is honest; only the configuration and replies are mutated. */
static int make_hostile(struct sim *sim)
{
	sim->fuzz = fuzz_new(sim->set.seed, sim->set.mutate);
	if (!sim->fuzz)
		return -1;
	sim->watch.quiet = true;
	fuzz_config(sim, stdout);
	fuzz_start(sim);
	return 0;
}

/* Run the device until it is told to end. */
static int run(struct sim *sim)
{
	int error;

	if (control_open(sim))
		return -1;
	if (sim->set.socket ? vhost_user_open(sim) : vduse_open(sim)) {
		control_close(sim);
		return -1;
	}
	error = loop_run(sim);
	control_close(sim);
	return sim->front->close(sim) | error | write_report(sim);
}

int simulate(int argc, char **argv)
{
	static struct sim sim;
	int status;

	settings_init(&sim.set);
	status = settings_parse(&sim.set, argc, argv);
	if (status >= 0)
		return status;
	status = add_scripts(&sim);
	if (status)
		return status;
	if (check_report(&sim))
		return WENT_WRONG;
	if (open_disk(&sim) || (sim.set.fuzz && make_hostile(&sim)) ||
	    catch_signals() || run(&sim))
		return WENT_WRONG;
	ring_free(&sim);
	status = is_rule_broken(&sim) ? RULE_BROKEN : ALL_WELL;
	zones_free(sim.zones);
	store_close(sim.store);
	script_free(sim.script);
	fuzz_free(sim.fuzz);
	watch_free(&sim.watch);
	return status;
}

int main(int argc, char **argv)
{
	if (argc > 1 && !strcmp(argv[1], "ctl"))
		return control_main(argc - 1, argv + 1);
	if (argc > 1 && !strcmp(argv[1], "fuzz"))
		return campaign_main(argc - 1, argv + 1);
	return simulate(argc, argv);
}
