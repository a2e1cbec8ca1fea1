// SPDX-License-Identifier: GPL-2.0
/* vblkstat host: the vdpa_blk devices of a host, their workers and their virtqueues. */

#include <stdlib.h>
#include <string.h>

#include "vdpa.h"

/* Return the difference, UNKNOWN if it is not known or, in a race, negative. */
static uint64_t difference(uint64_t count, uint64_t less)
{
	return count == UNKNOWN || less == UNKNOWN || less > count ? UNKNOWN :
								      count - less;
}

/* A wakeup that found nothing served no batch. */
static double requests_per_wakeup(const struct vdpa_queue *queue)
{
	return ratio(vdpa_requests(queue),
		     difference(queue->counter[V_WAKEUPS],
				queue->counter[V_EMPTY_WAKEUPS]));
}

static double requests_per_interrupt(const struct vdpa_queue *queue)
{
	return ratio(difference(vdpa_requests(queue), queue->counter[V_IN_FLIGHT]),
		     queue->counter[V_INTERRUPTS]);
}

/* Return the queues of a worker as a set, so that they print as CPUs do. */
static struct cpus queues_of(const struct vdpa_device *device, unsigned int worker)
{
	struct cpus set = { .known = true };

	for (unsigned int i = 0; i < device->nr_queues; i++) {
		const struct vdpa_queue *queue = &device->queues[i];

		if (queue->counter[V_WORKER] == worker && queue->index < MAX_CPUS)
			set.bits[queue->index / 64] |= 1ull << queue->index % 64;
	}
	return set;
}

/* Text */

static void print_workers(const struct vdpa_device *device)
{
	static const struct column columns[] = {
		{ "WORKER", false, 0 }, { "THREAD", true, 0 }, { "PID", false, 0 },
		{ "CPUS", true, 0 }, { "LAST CPU", false, 0 }, { "QUEUES", true, 0 },
	};
	struct table table = { .columns = columns,
			       .nr_columns = ARRAY_SIZE(columns) };

	if (!device->nr_workers)
		return;
	for (unsigned int i = 0; i < device->nr_workers; i++) {
		const struct vdpa_worker *worker = &device->workers[i];
		struct cpus queues = queues_of(device, i);

		table_number(&table, i);
		table_name(&table, worker->thread);
		table_number(&table, worker->pid);
		table_cpus(&table, &worker->cpus);
		table_number(&table, worker->last_cpu);
		table_cpus(&table, &queues);
	}
	puts("");
	table_print(&table, stdout);
}

static void add_counters(struct table *table, const struct vdpa_queue *queue,
			 const enum vdpa_counter *counters, size_t count)
{
	for (size_t i = 0; i < count; i++)
		table_number(table, queue->counter[counters[i]]);
}

static void print_requests(const struct vdpa_device *device)
{
	static const struct column columns[] = {
		{ "QUEUE", false, 0 }, { "WORKER", false, 0 }, { "RUNNING", true, 0 },
		{ "RING", false, 0 }, { "READS", false, 0 }, { "WRITES", false, 0 },
		{ "FLUSHES", false, 0 }, { "OTHERS", false, 0 },
		{ "IN FLIGHT", false, 0 },
	};
	static const enum vdpa_counter counters[] = {
		V_RING, V_READS, V_WRITES, V_FLUSHES, V_OTHERS, V_IN_FLIGHT,
	};
	struct table table = { .columns = columns,
			       .nr_columns = ARRAY_SIZE(columns) };

	for (unsigned int i = 0; i < device->nr_queues; i++) {
		const struct vdpa_queue *queue = &device->queues[i];
		uint64_t running = queue->counter[V_RUNNING];

		table_number(&table, queue->index);
		table_number(&table, queue->counter[V_WORKER]);
		table_name(&table, running == UNKNOWN ? "" : running ? "yes" : "no");
		add_counters(&table, queue, counters, ARRAY_SIZE(counters));
	}
	puts("");
	table_print(&table, stdout);
}

static void print_batches(const struct vdpa_device *device)
{
	static const struct column columns[] = {
		{ "QUEUE", false, 0 }, { "WORKER", false, 0 },
		{ "IO/WAKEUP", false, 0 }, { "IO/IRQ", false, 0 },
		{ "INTERRUPTS", false, 0 }, { "SUPPRESSED", false, 0 },
		{ "ERRORS", false, 0 }, { "UNSUPP", false, 0 },
		{ "BROKEN", false, 0 },
	};
	static const enum vdpa_counter counters[] = {
		V_INTERRUPTS, V_INTERRUPTS_SUPPRESSED, V_ERRORS, V_UNSUPPORTED,
		V_BROKEN,
	};
	struct table table = { .columns = columns,
			       .nr_columns = ARRAY_SIZE(columns) };

	for (unsigned int i = 0; i < device->nr_queues; i++) {
		const struct vdpa_queue *queue = &device->queues[i];

		table_number(&table, queue->index);
		table_number(&table, queue->counter[V_WORKER]);
		table_float(&table, requests_per_wakeup(queue), 1);
		table_float(&table, requests_per_interrupt(queue), 1);
		add_counters(&table, queue, counters, ARRAY_SIZE(counters));
	}
	puts("");
	table_print(&table, stdout);
}

static void print_features(const struct vdpa_device *device)
{
	bool left[MAX_FEATURES];

	if (!device->features_known)
		return;
	for (unsigned int bit = 0; bit < MAX_FEATURES; bit++)
		left[bit] = device->offered[bit] && !device->accepted[bit];
	puts("");
	print_wrapped(stdout, "    accepted:     ", features_text(device->accepted));
	print_wrapped(stdout, "    not accepted: ", features_text(left));
}

/* "disk0, /dev/nvme0n1, 1.0 TiB, running, vhost_vdpa, /dev/vhost-vdpa-0" */
static void print_device(const struct vdpa_device *device)
{
	const char *user = device->disk[0] ? device->disk : device->node;
	const char *size = size_text(device->sectors);
	const char *state = vdpa_state(device);

	printf("%s, %s", device->name,
	       device->path[0] ? device->path : "unknown backing device");
	if (size[0] && device->gone != 1)
		printf(", %s", size);
	if (state[0])
		printf(", %s", state);
	printf(", %s%s%s\n", device->driver[0] ? device->driver : "no bus driver",
	       user[0] ? ", " : "", user);
	print_workers(device);
	if (device->nr_queues) {
		print_requests(device);
		print_batches(device);
	}
	print_features(device);
}

static void print_text(const struct vdpa_devices *devices)
{
	for (unsigned int i = 0; i < devices->count; i++) {
		if (i)
			puts("");
		print_device(&devices->all[i]);
	}
}

/* JSON */

static void json_flag(struct json *json, const char *key, uint64_t flag)
{
	if (flag == UNKNOWN)
		json_null(json, key);
	else
		json_bool(json, key, flag);
}

static void json_workers(struct json *json, const struct vdpa_device *device)
{
	json_open(json, "workers", '[');
	for (unsigned int i = 0; i < device->nr_workers; i++) {
		const struct vdpa_worker *worker = &device->workers[i];
		struct cpus queues = queues_of(device, i);

		json_open(json, NULL, '{');
		json_number(json, "worker", i);
		json_string(json, "thread", worker->thread);
		json_number(json, "pid", worker->pid);
		json_cpus(json, "cpus", &worker->cpus);
		json_number(json, "last_cpu", worker->last_cpu);
		json_cpus(json, "queues", &queues);
		json_close(json, '}');
	}
	json_close(json, ']');
}

static void json_queues(struct json *json, const struct vdpa_device *device)
{
	json_open(json, "queues", '[');
	for (unsigned int i = 0; i < device->nr_queues; i++) {
		const struct vdpa_queue *queue = &device->queues[i];

		json_open(json, NULL, '{');
		json_number(json, "queue", queue->index);
		json_number(json, "worker", queue->counter[V_WORKER]);
		json_flag(json, "running", queue->counter[V_RUNNING]);
		json_number(json, "ring", queue->counter[V_RING]);
		json_number(json, "in_flight", queue->counter[V_IN_FLIGHT]);
		json_float(json, "requests_per_wakeup", requests_per_wakeup(queue));
		json_float(json, "requests_per_interrupt",
			   requests_per_interrupt(queue));
		json_open(json, "counters", '{');
		for (unsigned int j = V_READS; j < NR_VDPA_COUNTERS; j++)
			json_number(json, vdpa_counter_names[j], queue->counter[j]);
		json_close(json, '}');
		json_close(json, '}');
	}
	json_close(json, ']');
}

static void json_accepted(struct json *json, const struct vdpa_device *device)
{
	if (!device->features_known) {
		json_null(json, "features");
		return;
	}
	json_open(json, "features", '{');
	json_features(json, "offered", device->offered);
	json_features(json, "accepted", device->accepted);
	json_close(json, '}');
}

static void json_device(struct json *json, const struct vdpa_device *device)
{
	json_open(json, NULL, '{');
	json_string(json, "name", device->name);
	json_string(json, "driver", device->driver);
	json_string(json, "disk", device->disk);
	json_string(json, "node", device->node);
	json_string(json, "state", vdpa_state(device));
	json_number(json, "status", device->status);
	json_flag(json, "suspended", device->suspended);
	json_string(json, "path", device->path);
	json_flag(json, "gone", device->gone);
	json_number(json, "bytes", device->sectors > UINT64_MAX / 512 ?
		    UNKNOWN : device->sectors * 512);
	json_accepted(json, device);
	if (device->known)
		json_workers(json, device);
	else
		json_null(json, "workers");
	if (device->nr_queues)
		json_queues(json, device);
	else
		json_null(json, "queues");
	json_close(json, '}');
}

static void print_json(const struct vdpa_devices *devices)
{
	struct json json = { .out = stdout };

	json_begin(&json, "host");
	json_open(&json, "devices", '[');
	for (unsigned int i = 0; i < devices->count; i++)
		json_device(&json, &devices->all[i]);
	json_close(&json, ']');
	json_end(&json);
}

int host_main(const struct request *request)
{
	struct vdpa_devices devices;
	bool found = vdpa_read(&devices, request);

	if (found && request->json) {
		print_json(&devices);
	} else if (found && !devices.count) {
		puts(vdpa_module_loaded() ? "no vdpa_blk devices" :
		     "no vdpa_blk devices; the module vdpa_blk is not loaded");
	} else if (found) {
		print_text(&devices);
		notes_print(stderr);
	}
	vdpa_free(&devices);
	return found ? ALL_WELL : FAILED;
}
