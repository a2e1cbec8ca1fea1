// SPDX-License-Identifier: GPL-2.0
/*
 * Read the vdpa_blk devices of a host: their users from sysfs, their threads from
 * procfs, and all else from debugfs, where each line is a name and a value.  A later
 * module may have more names; they are ignored.
 */

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vdpa.h"

#define DEVICES		"/sys/bus/vdpa/devices"
#define OURS		"/sys/devices/vdpa_blk"
#define DEBUGFS		"/sys/kernel/debug/vdpa_blk"

/* The device status: VIRTIO 1.4, 2.1. */
#define STATUS_DRIVER		2
#define STATUS_DRIVER_OK	4
#define STATUS_NEEDS_RESET	64
#define STATUS_FAILED		128

/* The field "processor" of /proc/PID/stat, and the first one after the name. */
#define STAT_PROCESSOR	39
#define STAT_STATE	3

const char *const vdpa_counter_names[NR_VDPA_COUNTERS] = {
	[V_WORKER] = "worker",
	[V_RUNNING] = "running",
	[V_RING] = "ring",
	[V_IN_FLIGHT] = "in_flight",
	[V_READS] = "reads",
	[V_READ_BYTES] = "read_bytes",
	[V_WRITES] = "writes",
	[V_WRITE_BYTES] = "write_bytes",
	[V_FLUSHES] = "flushes",
	[V_OTHERS] = "others",
	[V_ERRORS] = "errors",
	[V_UNSUPPORTED] = "unsupported",
	[V_BROKEN] = "broken",
	[V_BOUNCED] = "bounced",
	[V_WAKEUPS] = "wakeups",
	[V_EMPTY_WAKEUPS] = "empty_wakeups",
	[V_INTERRUPTS] = "interrupts",
	[V_INTERRUPTS_SUPPRESSED] = "interrupts_suppressed",
};

/* Users */

/* Find the first name in a device's directory that begins with a word. */
static bool find_child(char *name, size_t size, const char *device, const char *path,
		       const char *prefix)
{
	char whole[512];
	const char *entry;
	DIR *directory;

	name[0] = '\0';
	snprintf(whole, sizeof(whole), DEVICES "/%s/%s", device, path);
	directory = open_directory(whole);
	while ((entry = next_entry(directory)))
		if (!name[0] && !strncmp(entry, prefix, strlen(prefix)))
			copy_text(name, size, entry);
	return name[0];
}

static void read_user(struct vdpa_device *device)
{
	static const char block[] = "/block";
	char child[32];

	read_link(device->driver, sizeof(device->driver), DEVICES "/%s/driver",
		  device->name);
	if (find_child(child, sizeof(child), device->name, "", "vhost-vdpa-"))
		snprintf(device->node, sizeof(device->node), "/dev/%.26s", child);
	/* Leave room for the rest of the path: a copy can have names of any length. */
	if (find_child(child, sizeof(child) - strlen(block), device->name, "", "virtio")) {
		strcat(child, block);
		find_child(device->disk, sizeof(device->disk), device->name, child,
			   "vd");
	}
}

/* Workers */

static bool is_thread_of(const struct vdpa_device *device, unsigned int index,
			 const char *thread)
{
	char expected[sizeof(device->name) + 32];

	snprintf(expected, sizeof(expected), "vdpa_blk/%s:%u", device->name, index);
	/* The kernel truncates the names of its threads. */
	expected[sizeof(device->workers->thread) - 1] = '\0';
	return !strcmp(thread, expected);
}

static uint64_t last_cpu(uint64_t pid)
{
	char text[MAX_TEXT], *field, *end;

	if (!read_text(text, sizeof(text), "/proc/%llu/stat", (unsigned long long)pid))
		return UNKNOWN;
	/* A name can have parentheses and blanks in it. */
	field = strrchr(text, ')');
	for (int i = STAT_STATE; field && i <= STAT_PROCESSOR; i++)
		field = strchr(field + 1, ' ');
	return field ? parse_number(field, &end) : UNKNOWN;
}

static void read_allowed(struct cpus *cpus, uint64_t pid)
{
	static const char name[] = "\nCpus_allowed_list:";
	char text[MAX_TEXT], *list;

	read_text(text, sizeof(text), "/proc/%llu/status", (unsigned long long)pid);
	list = strstr(text, name);
	if (!list)
		return;
	list += strlen(name);
	list += strspn(list, " \t");
	list[strcspn(list, "\n")] = '\0';
	cpus_parse(cpus, list);
}

static void add_worker(struct vdpa_device *device, uint64_t pid)
{
	unsigned int index = device->nr_workers;
	struct vdpa_worker *worker;
	char thread[256];

	device->workers = grow(device->workers, index, sizeof(*worker));
	worker = &device->workers[device->nr_workers++];
	*worker = (struct vdpa_worker){ .pid = pid, .last_cpu = UNKNOWN };
	/* In another PID namespace the number is another thread's, or none's. */
	read_text(thread, sizeof(thread), "/proc/%llu/comm", (unsigned long long)pid);
	if (!is_thread_of(device, index, thread)) {
		note("no threads and CPUs of workers; %s/proc does not show them", root);
		return;
	}
	copy_text(worker->thread, sizeof(worker->thread), thread);
	read_allowed(&worker->cpus, pid);
	worker->last_cpu = last_cpu(pid);
}

static void parse_workers(struct vdpa_device *device, const char *pids)
{
	uint64_t pid;
	char *end;

	while (device->nr_workers < MAX_QUEUES) {
		pid = parse_number(pids, &end);
		if (pid == UNKNOWN)
			return;
		add_worker(device, pid);
		pids = end;
	}
}

/* Files in debugfs */

static void parse_features(bool *features, uint64_t bits)
{
	for (unsigned int bit = 0; bit < 64; bit++)
		features[bit] = bits >> bit & 1;
}

static void parse_device_line(struct vdpa_device *device, const char *name,
			      const char *value)
{
	uint64_t bits;
	char *end;

	if (!strcmp(name, "path")) {
		copy_text(device->path, sizeof(device->path), value);
	} else if (!strcmp(name, "gone")) {
		device->gone = parse_number(value, &end);
	} else if (!strcmp(name, "capacity")) {
		device->sectors = parse_number(value, &end);
	} else if (!strcmp(name, "worker_pids")) {
		parse_workers(device, value);
	} else if (!strcmp(name, "features") || !strcmp(name, "driver_features")) {
		bits = parse_hex(value);
		device->features_known |= bits != UNKNOWN;
		if (bits != UNKNOWN)
			parse_features(name[0] == 'f' ? device->offered :
				       device->accepted, bits);
	} else if (!strcmp(name, "status")) {
		device->status = parse_hex(value);
	} else if (!strcmp(name, "suspended")) {
		device->suspended = parse_number(value, &end);
	}
}

/* Split the next line of a file into a name and a value. */
static char *next_line(char **text, char **value)
{
	char *line, *blank;

	while ((line = strsep(text, "\n"))) {
		blank = strchr(line, ' ');
		if (!blank)
			continue;
		*blank = '\0';
		*value = blank + 1;
		return line;
	}
	return NULL;
}

static void read_device(struct vdpa_device *device)
{
	char text[MAX_TEXT], *rest = text, *name, *value;

	device->gone = UNKNOWN;
	device->sectors = UNKNOWN;
	device->status = UNKNOWN;
	device->suspended = UNKNOWN;
	device->known = read_text(text, sizeof(text), DEBUGFS "/%s/device",
				  device->name);
	if (!device->known && errno == EPERM)
		note("the kernel is locked down and hides the state of devices");
	while (device->known && (name = next_line(&rest, &value)))
		parse_device_line(device, name, value);
}

static void read_queue(const struct vdpa_device *device, struct vdpa_queue *queue)
{
	char text[MAX_TEXT], *rest = text, *name, *value, *end;

	for (unsigned int i = 0; i < NR_VDPA_COUNTERS; i++)
		queue->counter[i] = UNKNOWN;
	read_text(text, sizeof(text), DEBUGFS "/%s/queue%u", device->name,
		  queue->index);
	while ((name = next_line(&rest, &value)))
		for (unsigned int i = 0; i < NR_VDPA_COUNTERS; i++)
			if (!strcmp(name, vdpa_counter_names[i]))
				queue->counter[i] = parse_number(value, &end);
}

static void add_queue(struct vdpa_device *device, const char *name)
{
	static const char prefix[] = "queue";
	uint64_t index;
	char *end;

	if (strncmp(name, prefix, strlen(prefix)))
		return;
	index = parse_number(name + strlen(prefix), &end);
	if (*end || index > UINT16_MAX || device->nr_queues >= MAX_QUEUES)
		return;
	device->queues = grow(device->queues, device->nr_queues,
			      sizeof(*device->queues));
	device->queues[device->nr_queues++].index = index;
}

static int compare_queues(const void *one, const void *other)
{
	return (int)((const struct vdpa_queue *)one)->index -
	       (int)((const struct vdpa_queue *)other)->index;
}

static void read_queues(struct vdpa_device *device)
{
	const char *name;
	char path[512];
	DIR *directory;

	snprintf(path, sizeof(path), DEBUGFS "/%s", device->name);
	directory = open_directory(path);
	while ((name = next_entry(directory)))
		add_queue(device, name);
	if (device->nr_queues)
		qsort(device->queues, device->nr_queues, sizeof(*device->queues),
		      compare_queues);
	for (unsigned int i = 0; i < device->nr_queues; i++)
		read_queue(device, &device->queues[i]);
}

/* All devices */

static bool has_directory(const char *path)
{
	DIR *directory = open_directory(path);

	if (directory)
		closedir(directory);
	return directory;
}

/* A bus can have devices of other modules, too. */
static bool is_ours(const char *name)
{
	char path[512];

	snprintf(path, sizeof(path), OURS "/%s", name);
	return has_directory(path);
}

bool vdpa_module_loaded(void)
{
	return has_directory(OURS);
}

static bool is_requested(const struct request *request, const char *name)
{
	for (unsigned int i = 0; i < request->nr_disks; i++)
		if (!strcmp(request->disks[i], name))
			return true;
	return !request->nr_disks;
}

static void add_device(struct vdpa_devices *devices, const char *name)
{
	struct vdpa_device *device;

	for (const char *c = name; *c; c++) {
		if (*c >= ' ' && *c <= '~')
			continue;
		note("a device whose name is not ASCII; vblkstat ignores it");
		return;
	}
	if (devices->count >= MAX_DISKS) {
		note("more than %u devices; vblkstat ignores the rest, unless you name the devices",
		     MAX_DISKS);
		return;
	}
	devices->all = grow(devices->all, devices->count, sizeof(*device));
	device = &devices->all[devices->count++];
	memset(device, 0, sizeof(*device));
	copy_text(device->name, sizeof(device->name), name);
}

static int compare_devices(const void *one, const void *other)
{
	return strcmp(((const struct vdpa_device *)one)->name,
		      ((const struct vdpa_device *)other)->name);
}

/* If files of debugfs are missing, note why and how to get them. */
static void note_debugfs(const struct vdpa_devices *devices)
{
	static const char what[] = "only names and users of devices";
	unsigned int known = 0;
	enum debugfs state;

	for (unsigned int i = 0; i < devices->count; i++)
		known += devices->all[i].known;
	if (known == devices->count)
		return;
	state = debugfs_state();
	if (state == DEBUGFS_REFUSED)
		note("%s; run vblkstat as root", what);
	else if (state == DEBUGFS_MISSING)
		note("%s; the kernel has no debugfs", what);
	else if (state == DEBUGFS_EMPTY && !sysfs_is_live())
		note("%s; the copy has no files of debugfs", what);
	else if (state == DEBUGFS_EMPTY)
		note("%s; run \"mount -t debugfs none %s/sys/kernel/debug\"", what, root);
	else
		note("no backing devices and workers; the module vdpa_blk is older");
}

static void read_all(struct vdpa_devices *devices, const struct request *request)
{
	DIR *directory = open_directory(DEVICES);
	struct cpus online;
	const char *name;

	if (!directory && errno != ENOENT)
		fail("cannot read %s" DEVICES ": %s", root, strerror(errno));
	while ((name = next_entry(directory)))
		if (is_requested(request, name) && is_ours(name))
			add_device(devices, name);
	if (devices->count)
		qsort(devices->all, devices->count, sizeof(*devices->all),
		      compare_devices);
	cpus_read(&online, "/sys/devices/system/cpu/online");
	for (unsigned int i = 0; i < devices->count; i++) {
		struct vdpa_device *device = &devices->all[i];

		read_user(device);
		read_device(device);
		read_queues(device);
		for (unsigned int j = 0; j < device->nr_workers; j++)
			cpus_and(&device->workers[j].cpus, &online);
	}
	note_debugfs(devices);
}

static bool is_there(const struct vdpa_devices *devices, const char *name)
{
	for (unsigned int i = 0; i < devices->count; i++)
		if (!strcmp(devices->all[i].name, name))
			return true;
	return false;
}

/*
 * Read the devices.  Return false and print a message if a requested device does not
 * exist.  The caller must call vdpa_free() in either case.
 */
bool vdpa_read(struct vdpa_devices *devices, const struct request *request)
{
	memset(devices, 0, sizeof(*devices));
	read_all(devices, request);
	for (unsigned int i = 0; i < request->nr_disks; i++) {
		if (is_there(devices, request->disks[i]))
			continue;
		fprintf(stderr,
			"vblkstat: there is no vdpa_blk device %s; \"vblkstat host\" shows all devices\n",
			request->disks[i]);
		return false;
	}
	return true;
}

void vdpa_free(struct vdpa_devices *devices)
{
	for (unsigned int i = 0; i < devices->count; i++) {
		free(devices->all[i].workers);
		free(devices->all[i].queues);
	}
	free(devices->all);
	memset(devices, 0, sizeof(*devices));
}

/* Return the state of a device in a word, empty if it is not known. */
const char *vdpa_state(const struct vdpa_device *device)
{
	if (device->gone == 1)
		return "gone";
	if (device->status == UNKNOWN)
		return "";
	if (device->status & STATUS_FAILED)
		return "failed";
	if (device->status & STATUS_NEEDS_RESET)
		return "needs reset";
	if (device->suspended == 1)
		return "suspended";
	if (device->status & STATUS_DRIVER_OK)
		return "running";
	/* After a reset, virtio_vdpa sets ACKNOWLEDGE without a driver. */
	return device->status & STATUS_DRIVER ? "starting" : "idle";
}

/* Return how many requests the device took off a ring, UNKNOWN without counters. */
uint64_t vdpa_requests(const struct vdpa_queue *queue)
{
	static const enum vdpa_counter kinds[] = {
		V_READS, V_WRITES, V_FLUSHES, V_OTHERS,
	};
	uint64_t sum = 0;

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		if (queue->counter[kinds[i]] == UNKNOWN)
			return UNKNOWN;
		sum += queue->counter[kinds[i]];
	}
	return sum;
}
