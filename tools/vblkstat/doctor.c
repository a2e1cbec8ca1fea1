// SPDX-License-Identifier: GPL-2.0
/*
 * vblkstat doctor: what is wrong or unwise, why it matters, and what to change.
 *
 * Each check takes a disk, and adds what it finds.
 */

#define _GNU_SOURCE
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "vblkstat.h"

/* With fewer requests than that, ratios tell nothing. */
#define MIN_REQUESTS		1000
/* Kicks per request from which on they are many. */
#define MANY_KICKS		0.5
#define NEARLY_ALL_KICKS	0.9
/* Rings that are full for more than this share of requests. */
#define OFTEN_FULL		0.01
#define MIN_FULL		100
/* Requests in flight on a queue that any load can need. */
#define MIN_DEPTH		64
#define LONG_WAIT_MS		5000
/* How many queues a finding names. */
#define NAMED_QUEUES		4

struct finding {
	const char *disk;
	const char *level;
	const char *id;
	char *what;
	const char *why;	/* and what to change, NULL for nothing */
	const char *host;
	const char *guest;
};

/* At work; earlier is the disk at the first of two looks, NULL if there is one. */
struct doctor {
	const struct machine *machine;
	const struct machine *before;
	const struct disk *earlier;
	struct finding *findings;
	unsigned int count;
};

static const char WRONG[] = "wrong";
static const char UNWISE[] = "unwise";

static struct finding *found(struct doctor *doctor, const struct disk *disk,
			     const char *level, const char *id,
			     const char *format, ...)
	__printf(5, 6);

/* Add a finding, to which the caller adds what to do about it. */
static struct finding *found(struct doctor *doctor, const struct disk *disk,
			     const char *level, const char *id,
			     const char *format, ...)
{
	struct finding *new;
	va_list args;
	int length;

	doctor->findings = grow(doctor->findings, doctor->count, sizeof(*new));
	new = &doctor->findings[doctor->count++];
	*new = (struct finding){ .disk = disk->name, .level = level, .id = id };
	va_start(args, format);
	length = vasprintf(&new->what, format, args);
	va_end(args);
	if (length < 0)
		fail("out of memory");
	return new;
}

static void advise(struct finding *finding, const char *why, const char *host,
		   const char *guest)
{
	finding->why = why;
	finding->host = host;
	finding->guest = guest;
}

/* A list of what is found on queues, a few of which are named. */
struct names {
	char text[1024];
	unsigned int count;
};

static void add_name(struct names *names, const char *format, ...)
	__printf(2, 3);

static void add_name(struct names *names, const char *format, ...)
{
	size_t length = strlen(names->text);
	va_list args;

	if (names->count++ < NAMED_QUEUES && length < sizeof(names->text) - 3) {
		if (length) {
			strcpy(names->text + length, ", ");
			length += 2;
		}
		va_start(args, format);
		vsnprintf(names->text + length, sizeof(names->text) - length,
			  format, args);
		va_end(args);
	} else if (names->count == NAMED_QUEUES + 1 &&
		   length < sizeof(names->text) - 8) {
		strcpy(names->text + length, ", ...");
	}
}

/* Sums over a disk's queues; UNKNOWN where no queue is counted. */
static uint64_t total(const struct disk *disk, enum counter counter)
{
	uint64_t sum = UNKNOWN;

	for (unsigned int i = 0; i < disk->nr_queues; i++) {
		uint64_t value = disk->queues[i].counter[counter];

		if (value != UNKNOWN)
			sum = sum == UNKNOWN ? value : sum + value;
	}
	return sum;
}

static uint64_t total_requests(const struct disk *disk)
{
	uint64_t sum = UNKNOWN;

	for (unsigned int i = 0; i < disk->nr_queues; i++) {
		uint64_t value = counters_requests(&disk->queues[i]);

		if (value != UNKNOWN)
			sum = sum == UNKNOWN ? value : sum + value;
	}
	return sum;
}

/* Tell whether something that is counted has happened. */
static bool happened(uint64_t count)
{
	return count != UNKNOWN && count;
}

static uint64_t parameter(const struct disk *disk, const char *name)
{
	return read_number("/sys/module/%s/parameters/%s", disk->driver, name);
}

/* State */

static void check_driver(struct doctor *doctor, const struct disk *disk)
{
	struct finding *new;

	if (disk->ours)
		return;
	new = found(doctor, disk, UNWISE, "kernels-own-driver",
		    "the kernel's own driver is in use");
	advise(new,
	       "it has no state, no counters, and does not look after requests that have no answer",
	       NULL,
	       "load the virtio_blk that vblkstat comes with; \"modinfo -n virtio_blk\" says which one would be loaded");
}

static void check_state(struct doctor *doctor, const struct disk *disk)
{
	struct finding *new;

	if (!strcmp(disk->state, "stalled")) {
		new = found(doctor, disk, WRONG, "stalled",
			    "requests have had no answer for longer than io_timeout");
		advise(new,
		       "who waits for them hangs",
		       "look for what keeps the storage behind this disk; is the process that serves it alive?",
		       "echo 1 > recovery/reset in the disk's directory of sysfs has the device reset and all sent again; the parameter reset_after does so by itself; with QEMU's own block drivers a reset waits for the same storage");
	} else if (!strcmp(disk->state, "dead")) {
		new = found(doctor, disk, WRONG, "dead",
			    "the disk is dead: all its I/O fails");
		advise(new,
		       "the device is gone, is broken, or has not come back as it was; the kernel's log says which",
		       "put right what the log names",
		       "unmount what is on it, remove the device and scan its bus again");
	} else if (!strcmp(disk->state, "resetting") ||
		   !strcmp(disk->state, "suspended")) {
		new = found(doctor, disk, WRONG, disk->state,
			    "the device is %s: its I/O waits",
			    !strcmp(disk->state, "suspended") ?
			    "suspended or is being reset" : "being reset");
		advise(new,
		       "that takes moments; if it is so still when looked at again, the device does not come back",
		       "look whether the process that serves it hangs",
		       NULL);
	}
}

/* A queue that has requests, and neither gets more nor ends any. */
static bool is_stuck(const struct queue *queue, const struct queue *before)
{
	return queue->index == before->index && queue->counted &&
	       strcmp(queue->type, "poll") &&
	       happened(queue->counter[C_IN_FLIGHT]) &&
	       queue->counter[C_IN_FLIGHT] == before->counter[C_IN_FLIGHT] &&
	       queue->counter[C_INTERRUPTS] != UNKNOWN &&
	       queue->counter[C_INTERRUPTS] == before->counter[C_INTERRUPTS] &&
	       counters_requests(queue) == counters_requests(before);
}

static uint64_t ended(const struct disk *disk)
{
	static const enum figure kinds[] = { S_READS, S_WRITES, S_DISCARDS,
					   S_FLUSHES };
	uint64_t sum = 0;

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (disk->stat[kinds[i]] != UNKNOWN)
			sum += disk->stat[kinds[i]];
	return sum;
}

static void check_stuck(struct doctor *doctor, const struct disk *disk)
{
	const struct disk *before = doctor->earlier;
	struct names queues = { };
	struct finding *new;
	double seconds;

	/* A copy does not tell whether anything moves. */
	if (!before || before->seq != disk->seq)
		return;
	seconds = disk->when - before->when;
	for (unsigned int i = 0; i < disk->nr_queues && i < before->nr_queues; i++)
		if (is_stuck(&disk->queues[i], &before->queues[i]))
			add_name(&queues, "%u", disk->queues[i].index);
	if (queues.count)
		new = found(doctor, disk, WRONG, "stuck",
			    "requests are in flight on queues %s, and none ended in %.1f s",
			    queues.text, seconds);
	else if (disk->iostats && happened(disk->in_flight) &&
		 happened(before->in_flight) && ended(disk) == ended(before))
		new = found(doctor, disk, WRONG, "stuck",
			    "%llu requests are in flight, and none ended in %.1f s",
			    (unsigned long long)disk->in_flight, seconds);
	else
		return;
	advise(new,
	       "the device does not answer, or is so slow that tasks wait for seconds",
	       "look at the load, throttling and health of the storage behind this disk",
	       "look again for longer: \"vblkstat doctor DISK 10\"; a hung task is in the kernel's log");
}

static void check_waits(struct doctor *doctor, const struct disk *disk)
{
	uint64_t longest = 0;
	struct finding *new;

	for (unsigned int i = 0; i < disk->nr_queues; i++) {
		uint64_t wait = disk->queues[i].counter[C_LONGEST_WAIT_MS];

		if (wait != UNKNOWN && wait > longest)
			longest = wait;
	}
	if (longest >= LONG_WAIT_MS) {
		new = found(doctor, disk, WRONG, "long-wait",
			    "a request took %llu.%llu s to be answered",
			    (unsigned long long)longest / 1000,
			    (unsigned long long)longest % 1000 / 100);
		advise(new,
		       "that is the time from its sending to its end, which a polled queue finds only when it is polled",
		       "look for pauses of the storage or of the guest itself at that time",
		       NULL);
	}
	if (happened(disk->timeouts)) {
		new = found(doctor, disk, WRONG, "timeouts",
			    "requests took longer than io_timeout %llu times",
			    (unsigned long long)disk->timeouts);
		advise(new,
		       "the device did not answer for so long, and whoever waited hung",
		       "look for pauses of the storage at the times in the guest's kernel log",
		       NULL);
	}
}

static void check_recovery(struct doctor *doctor, const struct disk *disk)
{
	struct finding *new;

	if (happened(disk->lost_interrupts)) {
		new = found(doctor, disk, WRONG, "lost-interrupts",
			    "%llu requests had ended and no interrupt told of it",
			    (unsigned long long)disk->lost_interrupts);
		advise(new,
		       "each waited for its io_timeout until the driver looked",
		       "update QEMU or whatever emulates the device and the interrupt controller",
		       NULL);
	}
	if (happened(disk->resets)) {
		new = found(doctor, disk, WRONG, "resets",
			    "the device had to be reset, %llu time%s",
			    (unsigned long long)disk->resets,
			    disk->resets == 1 ? "" : "s");
		advise(new,
		       "it asked for it, or did not answer, and all I/O waited meanwhile; if it was you who wrote to recovery/reset, nothing is wrong",
		       "look for errors of what serves the disk, at the times in the guest's kernel log",
		       NULL);
	}
}

static void check_errors(struct doctor *doctor, const struct disk *disk)
{
	uint64_t ioerr = total(disk, C_IOERR);
	uint64_t other = total(disk, C_OTHER_ERRORS);
	uint64_t unsupp = total(disk, C_UNSUPP);
	struct finding *new;

	if (happened(ioerr) || happened(other)) {
		new = found(doctor, disk, WRONG, "errors",
			    "the device answered %llu requests with an I/O error, %llu with another one",
			    (unsigned long long)(happened(ioerr) ? ioerr : 0),
			    (unsigned long long)(happened(other) ? other : 0));
		advise(new,
		       "data could not be read, or was not written",
		       "look into the log of what serves the disk; is the storage behind it full or broken?",
		       "check the file systems on it");
	}
	if (happened(unsupp)) {
		new = found(doctor, disk, UNWISE, "unsupported",
			    "the device did not support %llu requests",
			    (unsigned long long)unsupp);
		advise(new,
		       "it refuses what it offers, or was asked for something that is not among its features",
		       "update what serves the disk",
		       NULL);
	}
}

/* Data */

static void check_cache(struct doctor *doctor, const struct disk *disk)
{
	bool device_caches = !strcmp(disk->cache_type, "write back");
	bool layer_flushes = !strcmp(disk->write_cache, "write back");
	struct finding *new;

	if ((device_caches || layer_flushes) && disk->features_known &&
	    !disk->features[F_FLUSH]) {
		new = found(doctor, disk, WRONG, "no-flush",
			    "the write cache is taken for volatile, and there is no feature to flush it");
		advise(new,
		       "what was written may be lost when the host fails, and fsync cannot help it",
		       "offer FLUSH, or write through: QEMU's write-cache=off",
		       NULL);
	} else if (device_caches && disk->write_cache[0] && !layer_flushes) {
		new = found(doctor, disk, WRONG, "flush-off",
			    "the device has a volatile write cache, and the block layer was told not to flush it");
		advise(new,
		       "what fsync said to be safe may be lost when the host fails",
		       NULL,
		       "echo write back > queue/write_cache in the disk's directory of sysfs");
	}
}

static void check_lifetime(struct doctor *doctor, const struct disk *disk)
{
	static const char *const files[] = { "lifetime/pre_eol_info",
					     "lifetime/est_typ_a",
					     "lifetime/est_typ_b" };
	static const char *const bad[] = { "warning", "urgent", "exceeded" };
	struct finding *new;
	char text[64];

	if (strcmp(disk->state, "live"))
		return;
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		if (!ask_device(text, sizeof(text), disk->name, files[i]))
			continue;
		for (size_t j = 0; j < ARRAY_SIZE(bad); j++) {
			if (!strstr(text, bad[j]))
				continue;
			new = found(doctor, disk, WRONG, "worn",
				    "the device's storage is worn: %s is \"%s\"",
				    files[i], bad[j]);
			advise(new,
			       "storage at the end of its life loses data or takes no more writes",
			       "replace the storage behind this disk",
			       NULL);
		}
	}
}

/* Queues */

static void check_queue_count(struct doctor *doctor, const struct disk *disk)
{
	unsigned int cpus = cpus_count(&doctor->machine->online);
	unsigned int all = disk->nr_queues;
	unsigned int usual = disk_queues(disk, "default");
	bool limited = parameter(disk, "num_request_queues") == all;
	const char *guest = NULL;
	struct finding *new;

	if (disk_queues(disk, ""))
		usual = all;
	if (!usual || !cpus || usual >= cpus)
		return;
	new = found(doctor, disk, UNWISE, "few-queues", "%u queue%s for %u CPUs%s",
		    usual, usual > 1 ? "s" : "", cpus, usual < all ?
		    "; the disk's others are for reads alone, or polled" : "");
	if (limited && usual < all)
		guest = "set the parameter num_request_queues to 0, lower read_queues and poll_queues, and bind the disk anew";
	else if (limited)
		guest = "set the parameter num_request_queues to 0 and bind the disk anew";
	else if (usual < all)
		guest = "lower the parameters read_queues and poll_queues";
	advise(new,
	       "CPUs that share a queue wait for each other's lock, and one of them gets all its interrupts; it is right where the disk does little, or many disks share few vectors",
	       all >= cpus || limited ? NULL :
	       "give the device as many queues as the guest has CPUs: QEMU's num-queues=, libvirt's <driver queues='...'/>",
	       guest);
}

/* Only CPUs that are online count: others get no interrupts. */
static void compare_affinity(const struct doctor *doctor,
			     const struct queue *queue, struct names *names)
{
	const struct cpus *online = &doctor->machine->online;
	struct cpus cpus = queue->cpus, affinity = queue->affinity;
	struct cpus effective = queue->effective;

	if (queue->vector != VECTOR_OWN || !cpus.known || !affinity.known)
		return;
	cpus_and(&cpus, online);
	cpus_and(&affinity, online);
	cpus_and(&effective, online);
	if (!cpus_count(&cpus))
		return;
	if (!cpus_equal(&cpus, &affinity)) {
		add_name(names, "queue %u of CPUs %s has IRQ %llu at %s",
			 queue->index, cpus_text(&cpus),
			 (unsigned long long)queue->irq, cpus_text(&affinity));
		return;
	}
	/* Of the CPUs that it may go to it goes to one, or to some. */
	if (!effective.known || !cpus_count(&effective))
		return;
	cpus_and(&cpus, &effective);
	if (!cpus_equal(&cpus, &effective))
		add_name(names, "queue %u of CPUs %s has IRQ %llu go to %s",
			 queue->index, cpus_text(&queue->cpus),
			 (unsigned long long)queue->irq, cpus_text(&effective));
}

static void check_affinity(struct doctor *doctor, const struct disk *disk)
{
	struct names names = { };
	struct finding *new;

	for (unsigned int i = 0; i < disk->nr_queues; i++)
		compare_affinity(doctor, &disk->queues[i], &names);
	if (!names.count)
		return;
	new = found(doctor, disk, UNWISE, "affinity",
		    "%u of %u interrupts go elsewhere than their queue's CPUs: %s",
		    names.count, disk->nr_queues, names.text);
	advise(new,
	       "a request then ends on another CPU than it came from, at the cost of an interrupt between CPUs and of cold caches",
	       NULL,
	       "echo the queue's CPUs into /proc/irq/N/smp_affinity_list; if that is refused the kernel has set it: unbind and bind the disk. Have irqbalance leave these interrupts alone");
}

static void check_vectors(struct doctor *doctor, const struct disk *disk)
{
	static const char why[] = "an interrupt looks into all queues, mostly on another CPU";
	const struct queue *last = NULL;
	unsigned int sharing = 0;
	struct finding *new;

	for (unsigned int i = 0; i < disk->nr_queues; i++) {
		const struct queue *queue = &disk->queues[i];

		if (queue->vector == VECTOR_SHARED ||
		    queue->vector == VECTOR_DEVICE) {
			last = queue;
			sharing++;
		}
	}
	/* One queue shares with changes of the configuration at most. */
	if (sharing < 2)
		return;
	new = found(doctor, disk, UNWISE, "shared-vector",
		    "%u queues share interrupt %llu%s", sharing,
		    (unsigned long long)last->irq,
		    last->vector == VECTOR_SHARED ? "" :
		    ", the device's only one");
	if (last->vector == VECTOR_SHARED)
		advise(new, why,
		       "give the device a vector for each queue and one more: QEMU's vectors=, or leave that to QEMU",
		       "the kernel may have had no vectors left: fewer disks, or fewer queues of each by num_request_queues");
	else if (!strcmp(disk->transport, "mmio"))
		advise(new, why,
		       "virtio-mmio has one interrupt for each device: use virtio-pci",
		       NULL);
	else
		advise(new, why,
		       "give the device MSI-X: QEMU's vectors= is 0 or 1, or the machine has no MSI",
		       "take pci=nomsi off the kernel's command line if it is there");
}

static void check_depth(struct doctor *doctor, const struct disk *disk)
{
	const struct queue *queue = disk->queues;
	uint64_t wanted = parameter(disk, "queue_depth");
	bool direct = disk->features_known && !disk->features[F_INDIRECT_DESC];
	const char *guest = NULL;
	struct finding *new;

	if (!disk->nr_queues || queue->depth == UNKNOWN)
		return;
	if (wanted != UNKNOWN && wanted > queue->depth) {
		guest = "or lower the parameter queue_depth to what a queue has";
		new = found(doctor, disk, UNWISE, "clamped-depth",
			    "queue_depth=%llu was asked for, and a queue has %llu%s",
			    (unsigned long long)wanted,
			    (unsigned long long)queue->depth,
			    direct ? "; each request takes three descriptors or more" :
			    "");
	} else if (queue->depth < MIN_DEPTH && (!happened(wanted) ||
					      wanted > queue->depth)) {
		new = found(doctor, disk, UNWISE, "small-ring",
			    "a queue has %llu requests in flight at most%s",
			    (unsigned long long)queue->depth, direct ?
			    "; each takes three descriptors or more" : "");
	} else {
		return;
	}
	advise(new,
	       "storage that does many requests at a time, or is far away, is kept waiting for them",
	       "give the device a larger ring, QEMU's queue-size=256 to 1024, and indirect descriptors, indirect_desc=on",
	       guest);
}

static void check_full(struct doctor *doctor, const struct disk *disk)
{
	bool direct = disk->features_known && !disk->features[F_INDIRECT_DESC];
	uint64_t full = total(disk, C_RING_FULL);
	uint64_t requests = total_requests(disk);
	struct finding *new;

	if (full == UNKNOWN || requests == UNKNOWN || full < MIN_FULL ||
	    full < requests * OFTEN_FULL)
		return;
	new = found(doctor, disk, UNWISE, "ring-full",
		    "the ring was full %llu times, in %llu requests",
		    (unsigned long long)full, (unsigned long long)requests);
	advise(new,
	       "the queue stops until a request ends: the ring holds less than the queue's depth of such requests",
	       "give the device a larger ring: QEMU's queue-size=1024",
	       direct ? "have fewer requests in flight, by queue_depth=" : NULL);
}

static void check_kicks(struct doctor *doctor, const struct disk *disk)
{
	uint64_t kicks = total(disk, C_KICKS), requests = total_requests(disk);
	uint64_t one = 0, more = 0;
	struct finding *new;
	double each = 0;

	if (kicks != UNKNOWN && requests != UNKNOWN && requests >= MIN_REQUESTS)
		each = (double)kicks / requests;
	if (disk->features_known && !disk->features[F_EVENT_IDX]) {
		new = found(doctor, disk, UNWISE, "no-event-index",
			    "the device has no event index%s", each < MANY_KICKS ?
			    "" : ", and is notified of most requests");
		advise(new,
		       "the device is notified of more than it has to be, each time the guest is left, and interrupts more often",
		       "offer it: QEMU's event_idx=on",
		       NULL);
		return;
	}
	for (unsigned int i = 0; i < disk->nr_queues; i++) {
		const uint64_t *batches = disk->queues[i].batches;

		for (unsigned int j = 1; j < NR_BATCHES; j++)
			if (batches[j] != UNKNOWN)
				*(j > 1 ? &more : &one) += batches[j];
	}
	/* With one request at a time it cannot be otherwise. */
	if (each < NEARLY_ALL_KICKS || more <= one)
		return;
	new = found(doctor, disk, UNWISE, "many-kicks",
		    "the device is notified %.2f times for each request, though many end at a time",
		    each);
	advise(new,
	       "each time the guest is left, which costs more than the rest of the request",
	       "a thread of its own for the device notices requests without being told: QEMU's iothread= with poll-max-ns",
	       "have programs submit several requests at a time: io_uring, or libaio with more than one per io_submit");
}

static void check_scheduler(struct doctor *doctor, const struct disk *disk)
{
	struct finding *new;

	if (disk->nr_queues < 2 ||
	    (disk->zoned[0] && strcmp(disk->zoned, "none")) ||
	    (strcmp(disk->scheduler, "mq-deadline") &&
	     strcmp(disk->scheduler, "bfq")))
		return;
	new = found(doctor, disk, UNWISE, "scheduler",
		    "the I/O scheduler %s is in front of %u queues",
		    disk->scheduler, disk->nr_queues);
	advise(new,
	       "it has one lock for the whole disk, which all CPUs wait for, and the host sorts requests by itself",
	       NULL,
	       "echo none > queue/scheduler in the disk's directory of sysfs, unless its priorities or fairness are wanted");
}

static void (*const checks[])(struct doctor *doctor, const struct disk *disk) = {
	check_state, check_stuck, check_waits, check_recovery, check_errors,
	check_cache, check_lifetime, check_driver, check_queue_count,
	check_affinity, check_vectors, check_depth, check_full, check_kicks,
	check_scheduler,
};

static void examine(struct doctor *doctor)
{
	for (unsigned int i = 0; i < doctor->machine->nr_disks; i++) {
		const struct disk *disk = &doctor->machine->disks[i];

		if (doctor->before)
			doctor->earlier = machine_disk(doctor->before,
						       disk->name);
		for (size_t j = 0; j < ARRAY_SIZE(checks); j++)
			checks[j](doctor, disk);
	}
}

static void print_text(const struct doctor *doctor)
{
	unsigned int disks = doctor->machine->nr_disks;

	for (unsigned int i = 0; i < doctor->count; i++) {
		const struct finding *finding = &doctor->findings[i];

		printf("%s: %s: %s\n", finding->disk, finding->level,
		       finding->what);
		print_wrapped(stdout, "    why:   ", finding->why);
		if (finding->host)
			print_wrapped(stdout, "    host:  ", finding->host);
		if (finding->guest)
			print_wrapped(stdout, "    guest: ", finding->guest);
	}
	printf("%s%u finding%s on %u disk%s\n", doctor->count ? "\n" : "",
	       doctor->count, doctor->count == 1 ? "" : "s", disks,
	       disks == 1 ? "" : "s");
}

static void print_json(const struct doctor *doctor)
{
	struct json json = { .out = stdout };

	json_begin(&json, "doctor");
	json_open(&json, "disks", '[');
	for (unsigned int i = 0; i < doctor->machine->nr_disks; i++)
		json_text(&json, NULL, doctor->machine->disks[i].name);
	json_close(&json, ']');
	json_open(&json, "findings", '[');
	for (unsigned int i = 0; i < doctor->count; i++) {
		const struct finding *finding = &doctor->findings[i];

		json_open(&json, NULL, '{');
		json_text(&json, "disk", finding->disk);
		json_text(&json, "level", finding->level);
		json_text(&json, "id", finding->id);
		json_text(&json, "what", finding->what);
		json_text(&json, "why", finding->why);
		json_string(&json, "host", finding->host ? finding->host : "");
		json_string(&json, "guest", finding->guest ? finding->guest : "");
		json_close(&json, '}');
	}
	json_close(&json, ']');
	json_end(&json);
}

static void report(struct doctor *doctor, const struct request *request)
{
	if (!doctor->before)
		note("this is a copy of files: whether requests are stuck cannot be told");
	examine(doctor);
	if (request->json) {
		print_json(doctor);
	} else {
		print_text(doctor);
		notes_print(stderr);
	}
	for (unsigned int i = 0; i < doctor->count; i++)
		free(doctor->findings[i].what);
	free(doctor->findings);
}

int doctor_main(const struct request *request)
{
	struct machine first, second = { };
	struct doctor doctor = { .machine = &first };
	bool there = machine_read(&first, request);
	bool live = first.live;

	if (there && live && first.nr_disks) {
		pause_until(clock_now() + request->interval);
		there = machine_read(&second, request);
		doctor.machine = &second;
		doctor.before = &first;
	}
	if (there && !doctor.machine->nr_disks)
		fputs("vblkstat: no virtio-blk disks to look at\n", stderr);
	else if (there)
		report(&doctor, request);
	there = there && doctor.machine->nr_disks;
	machine_free(&first);
	machine_free(&second);
	return !there ? FAILED : doctor.count ? HAS_FINDINGS : ALL_WELL;
}
