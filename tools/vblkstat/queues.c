// SPDX-License-Identifier: GPL-2.0
/* vblkstat queues: CPUs, interrupt, depth and requests in flight of each queue. */

#include "vblkstat.h"

static const char *const vector_words[] = {
	[VECTOR_NONE] = "",
	[VECTOR_OWN] = "own",
	[VECTOR_SHARED] = "shared",
	[VECTOR_DEVICE] = "device",
};

static void print_queue(struct table *table, const struct queue *queue)
{
	table_number(table, queue->index);
	table_name(table, queue->type);
	table_cpus(table, &queue->cpus);
	table_number(table, queue->irq);
	table_name(table, vector_words[queue->vector]);
	table_cpus(table, &queue->affinity);
	table_cpus(table, &queue->effective);
	table_number(table, queue->interrupts);
	table_number(table, queue->depth);
	table_number(table, queue->counter[C_RING]);
	table_number(table, queue->counter[C_FREE]);
	table_number(table, queue_in_flight(queue));
	table_name(table, queue->counter[C_STOPPED] == UNKNOWN ? "" :
		   queue->counter[C_STOPPED] ? "yes" : "no");
}

static void print_disk(const struct disk *disk)
{
	static const struct column columns[] = {
		{ "QUEUE", false }, { "TYPE", true }, { "CPUS", true },
		{ "IRQ", false }, { "VECTOR", true }, { "AFFINITY", true },
		{ "EFFECTIVE", true }, { "INTERRUPTS", false },
		{ "DEPTH", false }, { "RING", false }, { "FREE", false },
		{ "IN FLIGHT", false }, { "STOPPED", true },
	};
	struct table table = { .columns = columns,
			       .nr_columns = ARRAY_SIZE(columns) };

	printf("%s, %s, %s%s%s", disk->name,
	       disk->device[0] ? disk->device : "unknown device",
	       disk->ours ? disk->driver : "in-tree driver",
	       disk->state[0] ? ", " : "", disk->state);
	if (disk->in_flight != UNKNOWN)
		printf(", %llu in flight", (unsigned long long)disk->in_flight);
	puts("");
	for (unsigned int i = 0; i < disk->nr_queues; i++)
		print_queue(&table, &disk->queues[i]);
	table_print(&table, stdout);
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
	json_open(json, "completions", '[');
	for (unsigned int i = 0; i < NR_BATCHES; i++)
		json_number(json, NULL, queue->batches[i]);
	json_close(json, ']');
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
	if (queue->counter[C_STOPPED] == UNKNOWN)
		json_null(json, "stopped");
	else
		json_bool(json, "stopped", queue->counter[C_STOPPED]);
	json_counters(json, queue);
	json_close(json, '}');
}

static void print_json(const struct machine *machine)
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
		json_number(&json, "in_flight", disk->in_flight);
		json_open(&json, "queues", '[');
		for (unsigned int j = 0; j < disk->nr_queues; j++)
			json_queue(&json, &disk->queues[j]);
		json_close(&json, ']');
		json_close(&json, '}');
	}
	json_close(&json, ']');
	json_end(&json);
}

static void print_text(const struct machine *machine)
{
	for (unsigned int i = 0; i < machine->nr_disks; i++) {
		if (i)
			puts("");
		print_disk(&machine->disks[i]);
	}
}

int queues_main(const struct request *request)
{
	return machine_show(request, print_json, print_text);
}
