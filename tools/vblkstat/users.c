// SPDX-License-Identifier: GPL-2.0
/*
 * Who uses a disk: mounts, swap, the devices on top of it, and tasks that wait.
 *
 * Nothing here touches the disk or the address space of a task: /proc/PID/cmdline, for
 * example, can hang behind the same request as the task itself.
 */

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "doctor.h"

#define MAX_DEVICES	64
#define MAX_LINES	8	/* of each kind */
#define MAX_MOUNTS	100000

/* The disk, its partitions, and what is on top of them. */
struct device {
	char name[32];		/* vda1, dm-0 */
	char numbers[16];	/* 254:1 */
	char label[80];		/* of a device mapper's device: vg0-root */
	char below[32];		/* the device that it is on; empty for the disk */
};

struct devices {
	struct device all[MAX_DEVICES];
	unsigned int count;
};

static void add_device(struct devices *devices, const char *path,
		       const char *name, const char *below)
{
	struct device *new = &devices->all[devices->count];

	if (devices->count == MAX_DEVICES || strlen(name) >= sizeof(new->name))
		return;
	for (unsigned int i = 0; i < devices->count; i++)
		if (!strcmp(devices->all[i].name, name))
			return;
	memset(new, 0, sizeof(*new));
	copy_text(new->name, sizeof(new->name), name);
	copy_text(new->below, sizeof(new->below), below);
	read_word(new->numbers, sizeof(new->numbers), "%s/dev", path);
	read_word(new->label, sizeof(new->label), "%s/dm/name", path);
	devices->count++;
}

static void add_holders(struct devices *devices, const char *path,
			const char *below)
{
	char holders[128], holder[128];
	const char *name;
	DIR *directory;

	snprintf(holders, sizeof(holders), "%s/holders", path);
	directory = open_directory(holders);
	while ((name = next_entry(directory))) {
		snprintf(holder, sizeof(holder), "/sys/block/%.64s", name);
		add_device(devices, holder, name, below);
	}
}

/* Find the devices in the order in which they are on top of each other. */
static void find_devices(struct devices *devices, const struct disk *disk)
{
	char path[64], part[128];
	const char *name;
	DIR *directory;

	snprintf(path, sizeof(path), "/sys/block/%s", disk->name);
	add_device(devices, path, disk->name, "");
	add_holders(devices, path, disk->name);
	directory = open_directory(path);
	while ((name = next_entry(directory))) {
		if (strncmp(name, disk->name, strlen(disk->name)))
			continue;
		snprintf(part, sizeof(part), "%s/%.32s", path, name);
		add_device(devices, part, name, disk->name);
		add_holders(devices, part, name);
	}
	for (unsigned int i = 1; i < devices->count; i++) {
		snprintf(path, sizeof(path), "/sys/block/%s", devices->all[i].name);
		add_holders(devices, path, devices->all[i].name);
	}
}

static const struct device *find_numbers(const struct devices *devices,
					 const char *numbers)
{
	for (unsigned int i = 0; i < devices->count; i++)
		if (devices->all[i].numbers[0] &&
		    !strcmp(devices->all[i].numbers, numbers))
			return &devices->all[i];
	return NULL;
}

/* Find "/dev/vda1" or "/dev/mapper/vg0-root". */
static const struct device *find_node(const struct devices *devices,
				      const char *node)
{
	const char *name = strrchr(node, '/');

	if (strncmp(node, "/dev/", 5))
		return NULL;
	for (unsigned int i = 0; i < devices->count; i++)
		if (!strcmp(devices->all[i].name, name + 1) ||
		    (devices->all[i].label[0] &&
		     !strcmp(devices->all[i].label, name + 1)))
			return &devices->all[i];
	return NULL;
}

/* The kernel writes white space and backslashes as three octal digits. */
static void unescape(char *text)
{
	char *to = text;

	for (; *text; text++) {
		if (text[0] == '\\' && strspn(text + 1, "01234567") >= 3) {
			*to++ = (text[1] - '0') * 64 + (text[2] - '0') * 8 +
				text[3] - '0';
			text += 3;
		} else {
			*to++ = *text;
		}
	}
	*to = '\0';
}

/* Split a line of mountinfo: proc_pid_mountinfo(5).  Return false if it is none. */
static bool parse_mount(char *line, struct mount *mount)
{
	char *words[6], *save, *rest, *type, *source, *options;

	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		words[i] = strtok_r(i ? NULL : line, "\n ", &save);
		if (!words[i])
			return false;
	}
	for (rest = strtok_r(NULL, "\n ", &save); rest && strcmp(rest, "-");)
		rest = strtok_r(NULL, "\n ", &save);
	type = rest ? strtok_r(NULL, "\n ", &save) : NULL;
	source = type ? strtok_r(NULL, "\n ", &save) : NULL;
	options = source ? strtok_r(NULL, "\n ", &save) : NULL;
	if (!source)
		return false;
	unescape(words[4]);
	unescape(source);
	copy_text(mount->path, sizeof(mount->path), words[4]);
	copy_text(mount->type, sizeof(mount->type), type);
	snprintf(mount->options, sizeof(mount->options), "%s,%s", words[5],
		 options ? options : "");
	copy_text(mount->source, sizeof(mount->source), source);
	copy_text(mount->numbers, sizeof(mount->numbers), words[2]);
	return true;
}

static FILE *open_mounts(void)
{
	static const char *const files[] = { "/proc/1/mountinfo",
					     "/proc/self/mountinfo" };
	char path[PATH_MAX];
	FILE *file = NULL;

	/* The first process sees all mounts, but only root sees the first process. */
	for (size_t i = 0; !file && i < ARRAY_SIZE(files); i++)
		if (root_path(path, sizeof(path), "%s", files[i]))
			file = open_file(path);
	return file;
}

/* btrfs has numbers of its own, and names the device as its source. */
static const struct device *device_of(const struct devices *devices,
				      const struct mount *mount)
{
	const struct device *device = find_numbers(devices, mount->numbers);

	return device ? device : find_node(devices, mount->source);
}

static bool is_mounted(const struct users *users, const struct mount *mount)
{
	for (unsigned int i = 0; i < users->nr_mounts; i++)
		if (!strcmp(users->mounts[i].path, mount->path))
			return true;
	return false;
}

static void add_mounts(struct users *users, const struct devices *devices)
{
	FILE *file = open_mounts();
	const struct device *device;
	unsigned int lines = 0;
	char line[MAX_TEXT];
	struct mount mount;

	while (file && lines++ < MAX_MOUNTS && fgets(line, sizeof(line), file)) {
		if (!parse_mount(line, &mount))
			continue;
		device = device_of(devices, &mount);
		if (!device || is_mounted(users, &mount))
			continue;
		copy_text(mount.device, sizeof(mount.device), device->name);
		users->mounts = grow(users->mounts, users->nr_mounts,
				     sizeof(mount));
		users->mounts[users->nr_mounts++] = mount;
	}
	users->mounts_known = file;
	if (file)
		fclose(file);
}

static void add_text(struct users *users, const char *text)
{
	users->others = grow(users->others, users->nr_others,
			     sizeof(*users->others));
	copy_text(users->others[users->nr_others++].text,
		  sizeof(users->others->text), text);
}

static void add_swaps(struct users *users, const struct devices *devices)
{
	char text[MAX_TEXT], *line, *save, swap[64];
	const struct device *device;

	read_text(text, sizeof(text), "/proc/swaps");
	for (line = strtok_r(text, "\n", &save); line;
	     line = strtok_r(NULL, "\n", &save)) {
		line[strcspn(line, " \t")] = '\0';
		device = find_node(devices, line);
		if (!device)
			continue;
		snprintf(swap, sizeof(swap), "swap on %s", device->name);
		add_text(users, swap);
		copy_text(users->swap, sizeof(users->swap), line);
	}
}

static void add_layers(struct users *users, const struct devices *devices)
{
	char text[192];

	for (unsigned int i = 1; i < devices->count; i++) {
		const struct device *device = &devices->all[i];

		if (!strncmp(device->name, "vd", 2))
			continue;
		snprintf(text, sizeof(text), "%s%s%s%s on %s", device->name,
			 device->label[0] ? " (" : "", device->label,
			 device->label[0] ? ")" : "", device->below);
		add_text(users, text);
	}
}

/* Find what is mounted from a disk, swaps to it or is on top of it. */
void users_find(struct users *users, const struct disk *disk)
{
	struct devices devices = { };

	memset(users, 0, sizeof(*users));
	find_devices(&devices, disk);
	add_mounts(users, &devices);
	add_swaps(users, &devices);
	add_layers(users, &devices);
}

void users_free(struct users *users)
{
	free(users->mounts);
	free(users->others);
}

/* Tasks */

/* Return the name of a task in state D, in parentheses in its file stat. */
static char *blocked_name(char *stat)
{
	char *name = strchr(stat, '('), *end = strrchr(stat, ')');

	if (!name || !end || end < name || strncmp(end, ") D ", 4))
		return NULL;
	*end = '\0';
	return name + 1;
}

static void add_task(struct names *tasks, const char *pid, const char *tid)
{
	char text[512], shown[32], *name;

	if (!read_text(text, sizeof(text), "/proc/%s/task/%s/stat", pid, tid))
		return;
	name = blocked_name(text);
	if (!name)
		return;
	copy_text(shown, sizeof(shown), name);
	add_name(tasks, "%s %s", tid, shown);
}

/* Find the tasks in state D.  The kernel does not say for which disk they wait. */
void find_blocked_tasks(struct names *tasks)
{
	DIR *processes = open_directory("/proc"), *threads;
	char path[64], pid[16];
	const char *name, *tid;

	while ((name = next_entry(processes))) {
		if (name[strspn(name, "0123456789")] || strlen(name) >= sizeof(pid))
			continue;
		strcpy(pid, name);
		snprintf(path, sizeof(path), "/proc/%s/task", pid);
		threads = open_directory(path);
		while ((tid = next_entry(threads)))
			if (strlen(tid) < sizeof(pid))
				add_task(tasks, pid, tid);
	}
}

/* Add who is hit by a disk that does not answer. */
void add_users(struct finding *finding, const struct users *users)
{
	struct names tasks = { };

	for (unsigned int i = 0; i < users->nr_mounts && i < MAX_LINES; i++)
		add_fact(finding, FACT_HIT, "%s (%s on %s)", users->mounts[i].path,
			 users->mounts[i].type, users->mounts[i].device);
	if (users->nr_mounts > MAX_LINES)
		add_fact(finding, FACT_HIT, "and %u more mounts",
			 users->nr_mounts - MAX_LINES);
	for (unsigned int i = 0; i < users->nr_others && i < MAX_LINES; i++)
		add_fact(finding, FACT_HIT, "%s", users->others[i].text);
	if (users->nr_others > MAX_LINES)
		add_fact(finding, FACT_HIT, "and %u more devices",
			 users->nr_others - MAX_LINES);
	if (!users->mounts_known)
		add_fact(finding, FACT_HIT, "mounts are not known; cannot read %s/proc/1/mountinfo",
			 root);
	else if (!users->nr_mounts && !users->nr_others)
		add_fact(finding, FACT_HIT, "nothing is mounted from the disk or on top of it");
	find_blocked_tasks(&tasks);
	if (tasks.count)
		add_fact(finding, FACT_HIT, "%u task%s in state D, on this disk or another: %s",
			 tasks.count, tasks.count == 1 ? "" : "s", tasks.text);
}
