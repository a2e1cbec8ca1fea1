// SPDX-License-Identifier: GPL-2.0
/*
 * vblksim fuzz: many hostile devices, one after the other, and I/O to each.
 *
 * There are three kinds of processes.  The first one keeps the requested number of
 * configurations running, and enforces their time limit.  Each configuration has
 * a runner.  It starts the device, adds it to the vDPA bus, starts programs that
 * use the disk, removes the device, sometimes while they use it, and waits for
 * all of them.
 */

#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "fuzz.h"
#include "vblksim.h"
#include "vdpa.h"

#define MAX_JOBS	16
#define BOUNCE_BYTES	"4194304"
/* The limit until a device can be added to the bus. */
#define READY_MS	20000
/* The interval of polling, which takes CPU time from the devices. */
#define POLL_US		20000

/* The stage of a configuration. */
enum stage {
	STARTING,
	PROBING,
	IN_USE,
	REMOVING,
	ENDING,
};

static const char *const stages[] = {
	[STARTING] = "the device is being started",
	[PROBING] = "the driver is probing it",
	[IN_USE] = "it is in use",
	[REMOVING] = "it is being removed",
	[ENDING] = "its users have not ended",
};

/**
 * struct tally - counters that all processes share
 * @configurations: devices that have ended
 * @disks: devices for which the driver created a disk
 * @requests: requests that the devices received
 * @mutated: replies that they mutated
 */
struct tally {
	uint64_t configurations;
	uint64_t disks;
	uint64_t requests;
	uint64_t mutated;
};

/**
 * struct slot - a place for a configuration
 * @runner: its process, 0 if it is free
 * @seed: the configuration's seed
 * @since: when it began, in milliseconds
 * @stage: its stage; @ready: the device can be added to the bus; other processes
 *	set both
 */
struct slot {
	pid_t runner;
	uint64_t seed;
	uint64_t since;
	volatile enum stage stage;
	volatile bool ready;
};

/* Memory that all processes share. */
static struct shared {
	struct tally tally;
	struct slot slot[MAX_JOBS];
} *shared;

/* The options. */
static struct {
	uint64_t seed;
	uint64_t configurations;
	uint64_t jobs;
	uint64_t load_ms;
	uint64_t limit;
} wanted = {
	.seed = 1,
	.configurations = 100,
	.jobs = 4,
	.load_ms = 300,
	.limit = 60,
};

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000ull + ts.tv_nsec / 1000000;
}

static void count(uint64_t *counter, uint64_t more)
{
	__atomic_fetch_add(counter, more, __ATOMIC_RELAXED);
}

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		fprintf(stderr, "vblksim: cannot write %s: %s\n", path,
			strerror(errno));
	if (fd >= 0)
		close(fd);
}

/* Write a line to the kernel's log, among the driver's lines. */
static void log_line(const char *fmt, ...)
	__attribute__((format(printf, 1, 2)));

static void log_line(const char *fmt, ...)
{
	va_list args;
	char line[128];

	/* Not vdprintf(), because it seeks, which fails on /dev/kmsg. */
	va_start(args, fmt);
	vsnprintf(line, sizeof(line), fmt, args);
	va_end(args);
	write_file("/dev/kmsg", line);
}

/* ---- a configuration ---- */

static pid_t start(void)
{
	pid_t child = fork();

	if (!child)
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	return child;
}

/* Run the device.  Its report goes to a file that the runner reads. */
static void be_device(const struct slot *slot, const char *name)
{
	char words[4][96];
	char *argv[] = { "vblksim", words[0], words[1], words[2], words[3] };

	snprintf(words[0], sizeof(words[0]), "--fuzz=%" PRIu64, slot->seed);
	snprintf(words[1], sizeof(words[1]), "--name=%s", name);
	snprintf(words[2], sizeof(words[2]), "--attach=no");
	snprintf(words[3], sizeof(words[3]), "--report=/run/vblksim-%s.json",
		 name);
	exit(simulate(ARRAY_SIZE(argv), argv));
}

/* Find the entry of a directory whose name begins with a text. */
static bool find_entry(const char *directory, const char *begin, char *name,
		       size_t size)
{
	DIR *dir = opendir(directory);
	struct dirent *entry;
	bool found = false;

	if (!dir)
		return false;
	while (!found && (entry = readdir(dir)))
		found = !strncmp(entry->d_name, begin, strlen(begin)) &&
			snprintf(name, size, "%s", entry->d_name) < (int)size;
	closedir(dir);
	return found;
}

static bool find_disk(const char *name, char *virtio, char *disk, size_t size)
{
	char place[256];

	snprintf(place, sizeof(place), "/sys/bus/vdpa/devices/%s", name);
	if (!find_entry(place, "virtio", virtio, size))
		return false;
	snprintf(place, sizeof(place), "/sys/bus/vdpa/devices/%s/%s/block",
		 name, virtio);
	return find_entry(place, "vd", disk, size);
}

/* Add the device to the bus when it exists; this lasts until probe has ended. */
static int attach(struct slot *slot, const char *name)
{
	char path[96];
	uint64_t limit = now_ms() + READY_MS;
	int error;

	snprintf(path, sizeof(path), "/run/vblksim-%s.sock", name);
	/* The control socket exists before the device. */
	while (access(path, F_OK) && now_ms() < limit)
		usleep(POLL_US);
	snprintf(path, sizeof(path), "/dev/vduse/%s", name);
	while (access(path, F_OK) && now_ms() < limit)
		usleep(POLL_US);
	/* Few bounce buffers, because VDUSE walks through all at each reset. */
	snprintf(path, sizeof(path), "/sys/class/vduse/%s/bounce_size", name);
	if (!access(path, W_OK))
		write_file(path, BOUNCE_BYTES);
	slot->stage = PROBING;
	/* VDUSE returns EINVAL for a device whose queues are not set up yet. */
	do {
		error = vdpa_add(name);
	} while (error == EINVAL && now_ms() < limit && !usleep(POLL_US));
	return error;
}

/* Run programs on the disk; half of the devices are removed meanwhile. */
static void use_disk(struct slot *slot, const char *disk, pid_t *users)
{
	slot->stage = IN_USE;
	count(&shared->tally.disks, 1);
	for (unsigned int how = 0; how < LOADS; how++) {
		users[how] = start();
		if (users[how])
			continue;
		load_disk(disk, how, slot->seed, wanted.load_ms);
		_exit(0);
	}
	usleep(wanted.load_ms * (slot->seed % 2 ? 500 : 1100));
}

static uint64_t read_number(const char *text, const char *key)
{
	const char *at = strstr(text, key);

	return at ? strtoull(at + strlen(key), NULL, 10) : 0;
}

static void read_report(const char *name)
{
	char path[96], text[4096] = "";
	FILE *file;

	snprintf(path, sizeof(path), "/run/vblksim-%s.json", name);
	file = fopen(path, "re");
	if (!file)
		return;
	if (fread(text, 1, sizeof(text) - 1, file)) {
		count(&shared->tally.requests,
		      read_number(text, "\"requests\": "));
		count(&shared->tally.mutated,
		      read_number(text, "\"mutated\": "));
	}
	fclose(file);
}

/* The runner.  Returns whether the device was probed and ended without an error. */
static bool run(struct slot *slot, const char *name)
{
	char virtio[64] = "none", disk[64];
	pid_t users[LOADS] = { 0 }, device;
	int status, error;

	slot->stage = STARTING;
	device = start();
	if (!device)
		be_device(slot, name);
	error = attach(slot, name);
	if (error)
		fprintf(stderr, "vblksim: seed %" PRIu64 ": cannot add the device to the vDPA bus: %s\n",
			slot->seed, strerror(error));
	else if (find_disk(name, virtio, disk, sizeof(disk)))
		use_disk(slot, disk, users);
	slot->stage = REMOVING;
	kill(device, SIGTERM);
	waitpid(device, &status, 0);
	slot->stage = ENDING;
	for (unsigned int how = 0; how < LOADS; how++)
		if (users[how] > 0)
			waitpid(users[how], NULL, 0);
	log_line("vblksim: %s was seed %" PRIu64 "\n", virtio, slot->seed);
	read_report(name);
	if (!WIFEXITED(status) || WEXITSTATUS(status))
		fprintf(stderr, "vblksim: seed %" PRIu64 ": the device ended with status %#x\n",
			slot->seed, status);
	return !error && WIFEXITED(status) && !WEXITSTATUS(status);
}

/* ---- all of them ---- */

static void start_runner(struct slot *slot, uint64_t seed)
{
	char name[24];
	pid_t runner;

	slot->seed = seed;
	slot->since = now_ms();
	slot->stage = STARTING;
	snprintf(name, sizeof(name), "fuzz%zu", (size_t)(slot - shared->slot));
	fflush(NULL);
	runner = start();
	if (!runner)
		_exit(run(slot, name) ? 0 : 1);
	slot->runner = runner;
}

/* Returns false if a configuration has failed or hangs. */
static bool look_after(struct slot *slot)
{
	int status;

	if (!slot->runner)
		return true;
	if (waitpid(slot->runner, &status, WNOHANG) == slot->runner) {
		slot->runner = 0;
		shared->tally.configurations++;
		return WIFEXITED(status) && !WEXITSTATUS(status);
	}
	if (now_ms() - slot->since < wanted.limit * 1000)
		return true;
	fprintf(stderr, "vblksim: seed %" PRIu64 " hangs: after %" PRIu64 " s %s\n",
		slot->seed, wanted.limit, stages[slot->stage]);
	return false;
}

static bool campaign(void)
{
	uint64_t next = 0, busy;

	do {
		busy = 0;
		for (uint64_t i = 0; i < wanted.jobs; i++) {
			struct slot *slot = &shared->slot[i];

			if (!look_after(slot))
				return false;
			if (!slot->runner && next < wanted.configurations)
				start_runner(slot, wanted.seed + next++);
			busy += !!slot->runner;
		}
		usleep(POLL_US);
	} while (busy);
	return true;
}

static bool take_word(const char *word)
{
	const struct {
		const char *key;
		uint64_t *to;
		uint64_t least, most;
	} words[] = {
		{ "--seed=", &wanted.seed, 0, UINT64_MAX },
		{ "--configurations=", &wanted.configurations, 1, UINT32_MAX },
		{ "--jobs=", &wanted.jobs, 1, MAX_JOBS },
		{ "--load=", &wanted.load_ms, 1, 1000000 },
		{ "--limit=", &wanted.limit, 1, 1000000 },
	};
	char *end;

	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		size_t len = strlen(words[i].key);

		if (strncmp(word, words[i].key, len))
			continue;
		*words[i].to = strtoull(word + len, &end, 0);
		if (end != word + len && !*end &&
		    *words[i].to >= words[i].least &&
		    *words[i].to <= words[i].most)
			return true;
		fprintf(stderr, "vblksim: \"%s\": %s takes %" PRIu64 " to %" PRIu64 "\n",
			word, words[i].key, words[i].least, words[i].most);
		return false;
	}
	fprintf(stderr, "vblksim: fuzz does not know \"%s\"; it takes", word);
	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		fprintf(stderr, " %sN", words[i].key);
	fputc('\n', stderr);
	return false;
}

int campaign_main(int argc, char **argv)
{
	const struct tally *tally;
	bool good;

	for (int i = 1; i < argc; i++)
		if (!take_word(argv[i]))
			return 2;
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		return 1;
	good = campaign();
	tally = &shared->tally;
	printf("{\"configurations\": %" PRIu64 ", \"disks\": %" PRIu64
	       ", \"replies\": %" PRIu64 ", \"mutated\": %" PRIu64 "}\n",
	       tally->configurations, tally->disks, tally->requests,
	       tally->mutated);
	return good ? 0 : 1;
}
