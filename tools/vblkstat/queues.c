// SPDX-License-Identifier: GPL-2.0
/* vblkstat queues: CPUs, interrupt, depth and requests in flight of each queue. */

#include "vblkstat.h"

static const char *const vector_words[] = {
	[VECTOR_NONE] = "",
	[VECTOR_OWN] = "own",
	[VECTOR_SHARED] = "shared",
	[VECTOR_DEVICE] = "device",
};

/* What a queue does now.  The columns that show a stall come first. */
static void print_work(const struct disk *disk)
{
	static const struct column columns[] = {
		{ "QUEUE", false, 0 }, { "TYPE", true, 0 }, { "CPUS", true, 6 },
		{ "IN FLIGHT", false, 0 }, { "OLDEST", false, 0 },
		{ "STOPPED", true, 0 }, { "DEPTH", false, 0 },
		{ "RING", false, 0 }, { "FREE", false, 0 },
	};
	struct table table = { .columns = columns,
			       .nr_columns = ARRAY_SIZE(columns) };

	for (unsigned int i = 0; i < disk->nr_queues; i++) {
		const struct queue *queue = &disk->queues[i];

		table_number(&table, queue->index);
		table_name(&table, queue->type);
		table_cpus(&table, &queue->cpus);
		table_number(&table, queue_in_flight(queue));
		table_age(&table, queue->counter[C_OLDEST_MS]);
		table_name(&table, queue->counter[C_STOPPED] == UNKNOWN ? "" :
			   queue->counter[C_STOPPED] ? "yes" : "no");
		table_number(&table, queue->depth);
		table_number(&table, queue->counter[C_RING]);
		table_number(&table, queue->counter[C_FREE]);
	}
	table_print(&table, stdout);
}

static void print_interrupts(const struct disk *disk)
{
	static const struct column columns[] = {
		{ "QUEUE", false, 0 }, { "IRQ", false, 0 }, { "VECTOR", true, 0 },
		{ "AFFINITY", true, 12 }, { "EFFECTIVE", true, 12 },
		{ "INTERRUPTS", false, 0 },
	};
	struct table table = { .columns = columns,
			       .nr_columns = ARRAY_SIZE(columns) };

	for (unsigned int i = 0; i < disk->nr_queues; i++) {
		const struct queue *queue = &disk->queues[i];

		table_number(&table, queue->index);
		table_number(&table, queue->irq);
		table_name(&table, vector_words[queue->vector]);
		table_cpus(&table, &queue->affinity);
		table_cpus(&table, &queue->effective);
		table_number(&table, queue->interrupts);
	}
	puts("");
	table_print(&table, stdout);
}

/* Say why FREE and IN FLIGHT do not add up to RING. */
static void explain_rings(const struct disk *disk)
{
	bool more = false, fewer = false;

	for (unsigned int i = 0; i < disk->nr_queues; i++) {
		const struct queue *queue = &disk->queues[i];
		uint64_t ring = queue->counter[C_RING];
		uint64_t free = queue->counter[C_FREE];
		uint64_t requests = queue->counter[C_IN_FLIGHT];

		if (ring == UNKNOWN || free == UNKNOWN || requests == UNKNOWN ||
		    free > ring)
			continue;
		more |= ring - free > requests;
		fewer |= ring - free < requests;
	}
	if (more && disk->features_known && !disk->features[F_INDIRECT_DESC])
		print_wrapped(stdout, "    ", "RING - FREE is more than IN FLIGHT: without indirect descriptors, a request takes three entries of the ring or more.");
	else if (more)
		print_wrapped(stdout, "    ", "RING - FREE is more than IN FLIGHT: requests with direct descriptors take several entries, and requests completed while vblkstat read.");
	if (fewer)
		print_wrapped(stdout, "    ", "RING - FREE is less than IN FLIGHT: the driver is about to send requests, or holds them back while it resets the device.");
}

static void print_disk(const struct disk *disk)
{
	printf("%s, %s, %s%s%s", disk->name,
	       disk->device[0] ? disk->device : "unknown device",
	       disk->ours ? disk->driver : "in-tree driver",
	       disk->state[0] ? ", " : "", disk->state);
	if (disk_in_flight(disk) != UNKNOWN)
		printf(", %llu in flight",
		       (unsigned long long)disk_in_flight(disk));
	if (happened(disk->oldest_ms))
		printf(", the oldest for %s", age_text(disk->oldest_ms));
	puts("");
	print_work(disk);
	explain_rings(disk);
	print_interrupts(disk);
}

static void json_list(struct json *json, const char *name, const uint64_t *list,
		      unsigned int count)
{
	json_open(json, name, '[');
	for (unsigned int i = 0; i < count; i++)
		json_number(json, NULL, list[i]);
	json_close(json, ']');
}

static void json_counters(struct json *json, const struct queue *queue)
{
	if (!queue->counted) {
		json_null(json, "counters");
		return;
	}
	json_open(json, "counters", '{');
	for (unsigned int i = C_READS; i < NR_COUNTERS; i++)
		json_number(json, counter_names[i], queue->counter[i]);
	json_list(json, "completions", queue->batches, NR_BATCHES);
	for (unsigned int i = 0; i < NR_KINDS; i++)
		json_list(json, slow_names[i], queue->slow[i], NR_SLOW);
	json_close(json, '}');
}

static void json_queue(struct json *json, const struct queue *queue)
{
	json_open(json, NULL, '{');
	json_number(json, "queue", queue->index);
	json_string(json, "type", queue->type);
	json_cpus(json, "cpus", &queue->cpus);
	json_number(json, "irq", queue->irq);
	json_string(json, "vector", vector_words[queue->vector]);
	json_cpus(json, "affinity", &queue->affinity);
	json_cpus(json, "effective_affinity", &queue->effective);
	json_number(json, "interrupts", queue->interrupts);
	json_number(json, "depth", queue->depth);
	json_number(json, "ring", queue->counter[C_RING]);
	json_number(json, "free", queue->counter[C_FREE]);
	json_number(json, "in_flight", queue_in_flight(queue));
	json_number(json, "oldest_ms", queue->counter[C_OLDEST_MS]);
	if (queue->counter[C_STOPPED] == UNKNOWN)
		json_null(json, "stopped");
	else
		json_bool(json, "stopped", queue->counter[C_STOPPED]);
	json_counters(json, queue);
	json_close(json, '}');
}

void queues_json_of(const struct machine *machine)
{
	struct json json = { .out = stdout };

	json_begin(&json, "queues");
	json_open(&json, "disks", '[');
	for (unsigned int i = 0; i < machine->nr_disks; i++) {
		const struct disk *disk = &machine->disks[i];

		json_open(&json, NULL, '{');
		json_string(&json, "name", disk->name);
		json_string(&json, "device", disk->device);
		json_string(&json, "state", disk->state);
		json_number(&json, "in_flight", disk_in_flight(disk));
		json_number(&json, "oldest_ms", disk->oldest_ms);
		json_open(&json, "queues", '[');
		for (unsigned int j = 0; j < disk->nr_queues; j++)
			json_queue(&json, &disk->queues[j]);
		json_close(&json, ']');
		json_close(&json, '}');
	}
	json_close(&json, ']');
	json_end(&json);
}

void queues_text_of(const struct machine *machine)
{
	for (unsigned int i = 0; i < machine->nr_disks; i++) {
		if (i)
			puts("");
		print_disk(&machine->disks[i]);
	}
}

int queues_main(const struct request *request)
{
	return machine_show(request, false, queues_json_of, queues_text_of);
}
