// SPDX-License-Identifier: GPL-2.0
/*
 * Life cycles, each in a process of its own, that follow from consecutive seeds.  Some
 * processes are killed, and some devices are deleted and added again meanwhile.
 *
 * `vdpadrv fuzz NODE --seed N --count 1` repeats the life cycle of seed N, and prints its
 * parts.  The order of events on different CPUs does not follow from the seed.
 */

#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../vblksim/vdpa.h"
#include "vdpadrv.h"

/* Limits in ms: emulated guests on a busy host are slow. */
#define HANG_MS		30000
#define LIFE_MS		180000
/* A deletion waits for the process that has the node; the kernel reports long waits. */
#define DELETION_MS	5000

struct plan {			/* what happens to a life cycle from outside */
	uint64_t seed;
	bool kill, delete;
	unsigned int kill_ms, delete_ms;	/* after its start */
};

static struct plan make_plan(const struct dev *d, uint64_t seed)
{
	uint64_t state = seed * 0xd1342543de82ef95ULL | 1;
	struct plan plan = { .seed = seed };
	unsigned int shift;

	plan.kill = rnd(&state) % 4 == 0;
	/* In one expression the order of the two calls would be the compiler's choice. */
	shift = rnd(&state) % 9;
	plan.kill_ms = rnd(&state) % (2U << shift);
	plan.delete = d->name && rnd(&state) % 16 == 0;
	plan.delete_ms = rnd(&state) % 100;
	return plan;
}

static void __attribute__((noreturn)) fail_cycle(const struct dev *d, const struct plan *plan,
						  const char *what)
{
	fail("life cycle with seed %llu: %s; again: vdpadrv fuzz %s --seed %llu --count 1%s%s",
	     (unsigned long long)plan->seed, what, d->path, (unsigned long long)plan->seed,
	     d->name ? " --name " : "", d->name ? d->name : "");
}

/* The device */

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);

	/* If it fails, the device gets no node. */
	if (fd < 0)
		return;
	if (write(fd, text, strlen(text)) < 0)
		fprintf(stderr, "write %s to %s: %s\n", text, path, strerror(errno));
	close(fd);
}

/* Returns the device's node in a buffer of its own, or NULL if there is none. */
static const char *find_node(const char *name)
{
	static char node[300];
	struct dirent *entry;
	char path[300];
	DIR *dir;

	snprintf(path, sizeof(path), "/sys/bus/vdpa/devices/%s", name);
	dir = opendir(path);
	node[0] = 0;
	while (dir && (entry = readdir(dir)))
		if (!strncmp(entry->d_name, "vhost-vdpa-", strlen("vhost-vdpa-")))
			snprintf(node, sizeof(node), "/dev/%s", entry->d_name);
	if (dir)
		closedir(dir);
	return node[0] && !access(node, F_OK) ? node : NULL;
}

/* Add the device again.  Where there is virtio_vdpa as well, it must not take the device. */
static void add_device(struct dev *d, const struct plan *plan)
{
	uint64_t end = now_ms() + HANG_MS;
	char path[300];
	int error;

	write_file("/sys/bus/vdpa/drivers_autoprobe", "0");
	error = vdpa_add_to("vdpa_blk", d->name);
	if (error)
		fail_cycle(d, plan, strerror(error));
	snprintf(path, sizeof(path), "/sys/bus/vdpa/devices/%s/driver_override", d->name);
	write_file(path, "vhost_vdpa");
	write_file("/sys/bus/vdpa/drivers_probe", d->name);
	write_file("/sys/bus/vdpa/drivers_autoprobe", "1");
	while (!(d->path = find_node(d->name))) {
		d->path = "NODE";
		if (now_ms() > end)
			fail_cycle(d, plan, "the device was added again, and has no node");
		usleep(1000);
	}
}

/* Life cycles */

static void start_life(struct dev *d, const struct plan *plan, struct child *life, bool verbose)
{
	if (verbose)
		printf("seed %llu%s%s\n", (unsigned long long)plan->seed,
		       plan->kill ? ", killed" : "", plan->delete ? ", device deleted" : "");
	if (start_child(life))
		return;
	d->seed = plan->seed;
	live(d, verbose);
	exit(0);
}

/* Start to delete the device once the process has its node. */
static void start_deletion(struct dev *d, const struct plan *plan, struct child *life,
			   uint64_t cycles, struct child *deletion)
{
	uint64_t end = now_ms() + LIFE_MS;

	while (load(&counts->cycles) == cycles && !has_ended(life, 0)) {
		if (now_ms() > end) {
			print_stacks(life);
			fail_cycle(d, plan, "hang: the process does not open the node");
		}
		usleep(500);
	}
	has_ended(life, plan->delete_ms);
	if (!start_child(deletion))
		_exit(vdpa_delete(d->name));
}

static void end_life(struct dev *d, const struct plan *plan, struct child *life)
{
	unsigned int ms = plan->kill ? plan->kill_ms : plan->delete ? DELETION_MS : LIFE_MS;
	bool killed = false;

	if (!has_ended(life, ms) && (plan->kill || plan->delete)) {
		killed = true;
		kill(life->pid, SIGKILL);
	}
	if (!has_ended(life, LIFE_MS)) {
		print_stacks(life);
		fail_cycle(d, plan, killed ? "hang: the process was killed, and does not end" :
			   "hang: the process does not end");
	}
	if (killed && WIFSIGNALED(life->status))
		count(&counts->killed);
	else if (life->status)
		fail_cycle(d, plan, "the process has failed");
}

static void end_deletion(struct dev *d, const struct plan *plan, struct child *deletion)
{
	if (!has_ended(deletion, LIFE_MS)) {
		print_stacks(deletion);
		fail_cycle(d, plan, "hang: the device is not deleted");
	}
	if (deletion->status)
		fail_cycle(d, plan, "the device could not be deleted");
	count(&counts->deleted);
	add_device(d, plan);
}

static void run_cycle(struct dev *d, const struct plan *plan, bool verbose)
{
	uint64_t cycles = load(&counts->cycles);
	struct child life, deletion;

	start_life(d, plan, &life, verbose);
	if (plan->delete)
		start_deletion(d, plan, &life, cycles, &deletion);
	end_life(d, plan, &life);
	if (plan->delete)
		end_deletion(d, plan, &deletion);
}

static void print_counts(void)
{
	const struct {
		const char *name;
		uint64_t value;
	} sums[] = {
		{ "life cycles", counts->cycles }, { "malformed requests", counts->malformed },
		{ "requests", counts->requests }, { "verified reads", counts->verified },
		{ "killed", counts->killed }, { "devices deleted", counts->deleted },
	};
	unsigned int i;

	for (i = 0; i < LENGTH(sums); i++)
		printf("count %s: %llu\n", sums[i].name, (unsigned long long)sums[i].value);
	for (i = 0; i < nr_parts; i++)
		printf("part %s: %llu\n", part_names[i], (unsigned long long)counts->parts[i]);
	for (i = 0; i < nr_kinds; i++)
		printf("kind %s: %llu\n", kinds[i].name, (unsigned long long)counts->kinds[i]);
}

/* As many life cycles as --count, or as fit into --seconds, but one at least. */
void run_fuzz(struct dev *d)
{
	uint64_t end = now_ms() + d->seconds * 1000ULL, seed = d->seed;
	struct plan plan;
	unsigned int i;

	counts = mmap(NULL, sizeof(*counts), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (counts == MAP_FAILED)
		fail("mmap: %s", strerror(errno));
	hang_ms = HANG_MS;
	for (i = 0; i < d->count && (!i || !d->seconds || now_ms() < end); i++) {
		plan = make_plan(d, seed + i);
		run_cycle(d, &plan, d->count == 1);
	}
	print_counts();
	printf("ok fuzz: %u life cycles from seed %llu\n", i, (unsigned long long)seed);
}
