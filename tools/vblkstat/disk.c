// SPDX-License-Identifier: GPL-2.0
/* Read the disks from sysfs. */

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "vblkstat.h"

/* Of /proc/stat, and of seconds since 1970. */
#define MAX_LINES	100000
#define MAX_TIME	(1ull << 40)

/* The disk's device */

static void find_transport(struct disk *disk)
{
	char bus[32];

	read_link(bus, sizeof(bus), "/sys/block/%s/device/../subsystem",
		  disk->name);
	copy_text(disk->transport, sizeof(disk->transport),
		  strcmp(bus, "platform") ? bus : "mmio");
	parent_name(disk->address, sizeof(disk->address), "/sys/block/%s/device",
		    disk->name);
}

static bool is_device_of(const struct disk *disk, const char *device)
{
	char path[PATH_MAX];
	DIR *directory;

	if (strlen(device) >= sizeof(disk->device))
		return false;
	snprintf(path, sizeof(path), "/sys/bus/virtio/devices/%s/block/%s",
		 device, disk->name);
	directory = open_directory(path);
	if (directory)
		closedir(directory);
	return directory;
}

/* Some copies of sysfs lack the links: search the devices for the disk. */
static void find_device(struct disk *disk)
{
	DIR *devices = open_directory("/sys/bus/virtio/devices");
	const char *name;

	while ((name = next_entry(devices)))
		if (!disk->device[0] && is_device_of(disk, name))
			copy_text(disk->device, sizeof(disk->device), name);
}

static void read_features(struct disk *disk)
{
	char text[MAX_FEATURES + 8];
	size_t length;

	read_text(text, sizeof(text), "/sys/bus/virtio/devices/%s/features",
		  disk->device);
	if (!text[0])
		read_text(text, sizeof(text), "/sys/block/%s/device/features",
			  disk->name);
	length = strspn(text, "01");
	disk->features_known = length && !text[length] && length <= MAX_FEATURES;
	for (size_t i = 0; disk->features_known && i < length; i++)
		disk->features[i] = text[i] == '1';
}

static void read_driver(struct disk *disk)
{
	char text[sizeof(disk->version)];

	if (!read_link(disk->driver, sizeof(disk->driver),
		       "/sys/block/%s/device/driver", disk->name))
		strcpy(disk->driver, "virtio_blk");
	read_text(text, sizeof(text), "/sys/module/%s/version", disk->driver);
	copy_text(disk->version, sizeof(disk->version), text);
	read_text(text, sizeof(text), "/sys/block/%s/state", disk->name);
	copy_text(disk->state, sizeof(disk->state), text);
	/* The in-tree driver has neither file. */
	disk->ours = disk->state[0] || disk->version[0];
}

/* The disk itself */

/* "none [mq-deadline] kyber": the name in brackets is the active scheduler. */
static void read_scheduler(struct disk *disk)
{
	char text[256], *first, *end;

	read_text(text, sizeof(text), "/sys/block/%s/queue/scheduler",
		  disk->name);
	first = strchr(text, '[');
	end = first ? strchr(first, ']') : NULL;
	if (end) {
		*end = '\0';
		copy_text(disk->scheduler, sizeof(disk->scheduler), first + 1);
	} else {
		copy_text(disk->scheduler, sizeof(disk->scheduler), text);
	}
}

static void read_stat(struct disk *disk)
{
	char text[512], *next = text, *end;

	for (unsigned int i = 0; i < NR_STATS; i++)
		disk->stat[i] = UNKNOWN;
	disk->when = clock_now();
	if (!read_text(text, sizeof(text), "/sys/block/%s/stat", disk->name))
		return;
	for (unsigned int i = 0; i < NR_STATS; i++) {
		disk->stat[i] = parse_number(next, &end);
		if (end == next)
			return;
		next = end;
	}
}

static void read_in_flight(struct disk *disk)
{
	uint64_t reads, writes;
	char text[64], *end;

	disk->in_flight = disk->stat[S_IN_FLIGHT];
	if (!read_text(text, sizeof(text), "/sys/block/%s/inflight", disk->name))
		return;
	reads = parse_number(text, &end);
	writes = parse_number(end, &end);
	if (reads != UNKNOWN && writes != UNKNOWN)
		disk->in_flight = reads + writes;
}

/* The disk's queues */

/* Add a queue; @all counts the queues of all disks. */
static void add_queue(struct disk *disk, const char *name, unsigned int *all)
{
	struct queue *queue;
	uint64_t index;
	char *end;

	index = parse_number(name, &end);
	if (*end || index > UINT16_MAX)
		return;
	if (disk->nr_queues >= MAX_QUEUES || *all >= MAX_ALL_QUEUES) {
		note("more than %u queues on a disk, or %u in all; vblkstat ignores the rest",
		     MAX_QUEUES, MAX_ALL_QUEUES);
		return;
	}
	disk->queues = grow(disk->queues, disk->nr_queues, sizeof(*queue));
	queue = &disk->queues[disk->nr_queues++];
	memset(queue, 0, sizeof(*queue));
	queue->index = index;
	++*all;
}

static int compare_queues(const void *one, const void *other)
{
	return (int)((const struct queue *)one)->index -
	       (int)((const struct queue *)other)->index;
}

/*
 * A queue's directory has a directory cpuM for each CPU that uses the queue.  Its file
 * cpu_list lacks isolated CPUs.
 */
static void read_queue_cpus(const struct disk *disk, struct queue *queue)
{
	const char *name;
	uint64_t cpu;
	DIR *files;
	char path[64], *end;

	snprintf(path, sizeof(path), "/sys/block/%s/mq/%u", disk->name,
		 queue->index);
	files = open_directory(path);
	while ((name = next_entry(files))) {
		if (strncmp(name, "cpu", 3))
			continue;
		cpu = parse_number(name + 3, &end);
		if (*end || cpu >= MAX_CPUS)
			continue;
		cpus_add(&queue->cpus, cpu);
		queue->cpus.known = true;
	}
}

static void read_queue(const struct machine *machine, const struct disk *disk,
		       struct queue *queue)
{
	read_queue_cpus(disk, queue);
	queue->depth = read_number("/sys/block/%s/mq/%u/nr_tags", disk->name,
				   queue->index);
	counters_read(disk, queue);
	if (!queue->cpus.known)
		cpus_read(&queue->cpus, "/sys/block/%s/mq/%u/cpu_list",
			  disk->name, queue->index);
	interrupts_find(machine->interrupts, disk->device, queue);
	if (queue->vector == VECTOR_NONE && queue->counter[C_IRQ] != UNKNOWN &&
	    queue->counter[C_IRQ]) {
		queue->vector = VECTOR_OWN;
		queue->irq = queue->counter[C_IRQ];
	}
	if (queue->irq == UNKNOWN)
		return;
	cpus_read(&queue->affinity, "/proc/irq/%llu/smp_affinity_list",
		  (unsigned long long)queue->irq);
	cpus_read(&queue->effective, "/proc/irq/%llu/effective_affinity_list",
		  (unsigned long long)queue->irq);
}

static void read_queues(const struct machine *machine, struct disk *disk,
			unsigned int *all)
{
	const char *name;
	char path[64];
	DIR *queues;

	snprintf(path, sizeof(path), "/sys/block/%s/mq", disk->name);
	queues = open_directory(path);
	while ((name = next_entry(queues)))
		add_queue(disk, name, all);
	if (disk->nr_queues)
		qsort(disk->queues, disk->nr_queues, sizeof(*disk->queues),
		      compare_queues);
	for (unsigned int i = 0; i < disk->nr_queues; i++)
		read_queue(machine, disk, &disk->queues[i]);
}

/* For a driver that shows the age of requests only in debugfs. */
static uint64_t oldest_of_queues(const struct disk *disk)
{
	uint64_t oldest = UNKNOWN;

	for (unsigned int i = 0; i < disk->nr_queues; i++) {
		uint64_t ms = disk->queues[i].counter[C_OLDEST_MS];

		if (ms != UNKNOWN && (oldest == UNKNOWN || ms > oldest))
			oldest = ms;
	}
	return oldest;
}

static void read_disk(const struct machine *machine, struct disk *disk,
		      unsigned int *all)
{
	const char *name = disk->name;

	if (!read_link(disk->device, sizeof(disk->device),
		       "/sys/block/%s/device", name))
		find_device(disk);
	find_transport(disk);
	read_features(disk);
	read_driver(disk);
	disk->seq = read_number("/sys/block/%s/diskseq", name);
	disk->sectors = read_number("/sys/block/%s/size", name);
	disk->read_only = read_number("/sys/block/%s/ro", name);
	disk->iostats = read_number("/sys/block/%s/queue/iostats", name);
	disk->oldest_ms = read_number("/sys/block/%s/oldest_ms", name);
	read_word(disk->numbers, sizeof(disk->numbers), "/sys/block/%s/dev", name);
	read_word(disk->cache_type, sizeof(disk->cache_type),
		  "/sys/block/%s/cache_type", name);
	read_word(disk->write_cache, sizeof(disk->write_cache),
		  "/sys/block/%s/queue/write_cache", name);
	read_word(disk->zoned, sizeof(disk->zoned), "/sys/block/%s/queue/zoned",
		  name);
	read_scheduler(disk);
	disk->stalls = read_number("/sys/block/%s/recovery/stalls", name);
	disk->timeouts = read_number("/sys/block/%s/recovery/timeouts", name);
	disk->lost_interrupts =
		read_number("/sys/block/%s/recovery/lost_interrupts", name);
	disk->resets = read_number("/sys/block/%s/recovery/resets", name);
	read_queues(machine, disk, all);
	read_stat(disk);
	read_in_flight(disk);
	if (disk->oldest_ms == UNKNOWN)
		disk->oldest_ms = oldest_of_queues(disk);
}

/* All disks */

/* "vda" to "vdzzz", or "vdmqa" to "vdmqzzz", but no partitions. */
static bool is_disk_name(const char *name)
{
	size_t length = strlen(name);

	if (strncmp(name, "vd", 2) || length < 3 || length > 7)
		return false;
	for (size_t i = 2; i < length; i++)
		if (name[i] < 'a' || name[i] > 'z')
			return false;
	return true;
}

static bool is_requested(const struct request *request, const char *name)
{
	for (unsigned int i = 0; i < request->nr_disks; i++)
		if (!strcmp(request->disks[i], name))
			return true;
	return !request->nr_disks;
}

static void add_disk(struct machine *machine, const char *name)
{
	struct disk *disk;

	if (machine->nr_disks >= MAX_DISKS) {
		note("more than %u disks; vblkstat ignores the rest, unless you name the disks",
		     MAX_DISKS);
		return;
	}
	machine->disks = grow(machine->disks, machine->nr_disks, sizeof(*disk));
	disk = &machine->disks[machine->nr_disks++];
	memset(disk, 0, sizeof(*disk));
	strcpy(disk->name, name);
}

/* Order: vda to vdz, then vdaa. */
static int compare_disks(const void *one, const void *other)
{
	const char *first = ((const struct disk *)one)->name;
	const char *second = ((const struct disk *)other)->name;
	int longer = (int)strlen(first) - (int)strlen(second);

	return longer ? longer : strcmp(first, second);
}

/* Count the queues that our driver serves, and those that have counters. */
static void count_queues(const struct machine *machine, unsigned int *ours,
			 unsigned int *counted)
{
	*ours = 0;
	*counted = 0;
	for (unsigned int i = 0; i < machine->nr_disks; i++) {
		const struct disk *disk = &machine->disks[i];

		for (unsigned int j = 0; disk->ours && j < disk->nr_queues; j++) {
			*counted += disk->queues[j].counted;
			++*ours;
		}
	}
}

/* If counters are missing, note why and how to get them. */
static void note_counters(const struct machine *machine)
{
	unsigned int ours, counted;
	enum debugfs state;

	count_queues(machine, &ours, &counted);
	if (!machine->nr_disks || (ours && counted == ours))
		return;
	state = debugfs_state();
	if (state == DEBUGFS_REFUSED)
		note_missing("no counters and types of queues; run vblkstat as root");
	else if (state == DEBUGFS_MISSING)
		note_missing("no counters and types of queues; the kernel has no debugfs");
	else if (state == DEBUGFS_EMPTY && machine->live)
		note_missing("no %stypes of queues; run \"mount -t debugfs none %s/sys/kernel/debug\"",
			     ours ? "counters and " : "", root);
	else if (ours && !machine->live && !counted)
		note_missing("no counters of queues; the copy has no files of debugfs");
	else if (ours)
		note_missing("no counters of some queues; the driver is older, or built without them");
	else
		note("no counters of queues; the in-tree driver has none");
}

static void read_disks(struct machine *machine, const struct request *request)
{
	DIR *directory = open_directory("/sys/block");
	unsigned int all = 0;
	const char *name;

	if (!directory)
		fail("cannot read %s/sys/block: %s; check that sysfs is mounted", root,
		     strerror(errno));
	while ((name = next_entry(directory)))
		if (is_disk_name(name) && is_requested(request, name))
			add_disk(machine, name);
	if (machine->nr_disks)
		qsort(machine->disks, machine->nr_disks, sizeof(*machine->disks),
		      compare_disks);
	for (unsigned int i = 0; i < machine->nr_disks; i++)
		read_disk(machine, &machine->disks[i], &all);
}

/* By isolcpus=domain, by nohz_full, and by partitions of cpusets. */
static void read_isolated(struct cpus *isolated)
{
	static const char *const files[] = {
		"/sys/devices/system/cpu/isolated",
		"/sys/devices/system/cpu/nohz_full",
		"/sys/fs/cgroup/cpuset.cpus.isolated",
	};
	struct cpus some;

	for (unsigned int i = 0; i < ARRAY_SIZE(files); i++) {
		cpus_read(&some, "%s", files[i]);
		cpus_or(isolated, &some);
	}
	isolated->known = true;
}

static uint64_t read_boot_time(void)
{
	char *end, line[128], path[PATH_MAX];
	uint64_t boot = UNKNOWN;
	unsigned int lines = 0;
	FILE *file = NULL;

	if (root_path(path, sizeof(path), "/proc/stat"))
		file = open_file(path);
	while (file && lines++ < MAX_LINES && fgets(line, sizeof(line), file))
		if (!strncmp(line, "btime ", 6))
			boot = parse_number(line + 6, &end);
	if (file)
		fclose(file);
	return boot > MAX_TIME ? UNKNOWN : boot;
}

/* A copy is as old as the machine was up.  The kernel log does not count suspends. */
static void read_times(struct machine *machine)
{
	char text[64], *end;
	uint64_t up;

	if (machine->live) {
		machine->time = time(NULL);
		machine->booted = machine->time - (uint64_t)clock_now();
		return;
	}
	machine->booted = read_boot_time();
	read_text(text, sizeof(text), "/proc/uptime");
	up = parse_number(text, &end);
	machine->time = machine->booted == UNKNOWN || up > MAX_TIME ?
			UNKNOWN : machine->booted + up;
}

/*
 * Read the state of the machine.  Return false and print a message if a requested
 * disk does not exist.  The caller must call machine_free() in either case.
 */
bool machine_read(struct machine *machine, const struct request *request)
{
	memset(machine, 0, sizeof(*machine));
	machine->live = sysfs_is_live();
	read_times(machine);
	cpus_read(&machine->online, "/sys/devices/system/cpu/online");
	read_isolated(&machine->isolated);
	machine->interrupts = interrupts_read();
	read_disks(machine, request);
	note_counters(machine);
	for (unsigned int i = 0; i < request->nr_disks; i++) {
		if (machine_disk(machine, request->disks[i]))
			continue;
		fprintf(stderr,
			"vblkstat: there is no virtio-blk disk %s; \"vblkstat list\" shows all disks\n",
			request->disks[i]);
		return false;
	}
	return true;
}

void machine_free(struct machine *machine)
{
	for (unsigned int i = 0; i < machine->nr_disks; i++)
		free(machine->disks[i].queues);
	free(machine->disks);
	interrupts_free(machine->interrupts);
	memset(machine, 0, sizeof(*machine));
}

/*
 * Read the machine, with serial numbers or without, and print it as JSON or text.
 * Return the exit status.
 */
int machine_show(const struct request *request, bool serials,
		 void (*json)(const struct machine *machine),
		 void (*text)(const struct machine *machine))
{
	struct machine machine;
	bool found = machine_read(&machine, request);

	if (found && serials)
		read_serials(&machine, false);
	if (found && request->json) {
		json(&machine);
	} else if (found && !machine.nr_disks) {
		puts("no virtio-blk disks");
	} else if (found) {
		text(&machine);
		notes_print(stderr);
	}
	machine_free(&machine);
	return found ? ALL_WELL : FAILED;
}

struct disk *machine_disk(const struct machine *machine, const char *name)
{
	for (unsigned int i = 0; i < machine->nr_disks; i++)
		if (!strcmp(machine->disks[i].name, name))
			return &machine->disks[i];
	return NULL;
}

/* Return how many queues of a type a disk has; "" is the unknown type. */
unsigned int disk_queues(const struct disk *disk, const char *type)
{
	unsigned int count = 0;

	for (unsigned int i = 0; i < disk->nr_queues; i++)
		count += !strcmp(disk->queues[i].type, type);
	return count;
}

/* Return a queue's requests in flight: the driver's count, or else blk-mq's. */
uint64_t queue_in_flight(const struct queue *queue)
{
	return queue->counter[C_IN_FLIGHT] != UNKNOWN ?
	       queue->counter[C_IN_FLIGHT] : queue->busy;
}

/* Return a disk's requests in flight: the sum of its queues, or the block layer's. */
uint64_t disk_in_flight(const struct disk *disk)
{
	uint64_t sum = 0;

	for (unsigned int i = 0; i < disk->nr_queues; i++) {
		if (queue_in_flight(&disk->queues[i]) == UNKNOWN)
			return disk->in_flight;
		sum += queue_in_flight(&disk->queues[i]);
	}
	return disk->nr_queues ? sum : disk->in_flight;
}

/*
 * A request of such a queue completes when a task polls, so that its time shows the task
 * and not the disk.
 */
bool queue_is_polled(const struct queue *queue)
{
	return !strcmp(queue->type, "poll");
}

/* Add the value of a queue to a sum, which is UNKNOWN if the value of a queue is. */
static uint64_t add_value(uint64_t sum, uint64_t value)
{
	return sum == UNKNOWN || value == UNKNOWN ? UNKNOWN : sum + value;
}

/* Sum a counter of requests over the queues whose times disk_slow() has. */
uint64_t disk_sent(const struct disk *disk, enum counter counter)
{
	uint64_t sum = disk->nr_queues ? 0 : UNKNOWN;

	for (unsigned int i = 0; i < disk->nr_queues; i++)
		if (!queue_is_polled(&disk->queues[i]))
			sum = add_value(sum, disk->queues[i].counter[counter]);
	return sum;
}

/*
 * Sum the slow requests of the queues that are not polled.  Without the value of one of
 * them, the sum is UNKNOWN, because a counter of the disk must not shrink.
 */
uint64_t disk_slow(const struct disk *disk, enum kind kind, unsigned int index)
{
	uint64_t sum = disk->nr_queues ? 0 : UNKNOWN;

	for (unsigned int i = 0; i < disk->nr_queues; i++)
		if (!queue_is_polled(&disk->queues[i]))
			sum = add_value(sum, disk->queues[i].slow[kind][index]);
	return sum;
}
