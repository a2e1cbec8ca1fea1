// SPDX-License-Identifier: GPL-2.0
/*
 * vblkstat doctor: finds errors and warnings, why they matter, and what to do.
 *
 * Each check examines one disk and adds its findings.
 */

#define _GNU_SOURCE
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "vblkstat.h"

/* Ratios are meaningless with fewer requests. */
#define MIN_REQUESTS		1000
/* Limits of kicks per request. */
#define MANY_KICKS		0.5
#define NEARLY_ALL_KICKS	0.9
/* A ring is full too often from this share of requests, and this count. */
#define OFTEN_FULL		0.01
#define MIN_FULL		100
/* Requests in flight that a queue must allow. */
#define MIN_DEPTH		64
#define LONG_WAIT_S		5
/* A finding names at most so many queues. */
#define NAMED_QUEUES		4

struct finding {
	const char *disk;
	const char *level;
	const char *id;
	char *what;
	const char *why;
	/* What to do there; NULL: nothing. */
	const char *host;
	const char *guest;
};

/**
 * struct doctor - a run of the checks
 * @machine: the machine to check
 * @before: the same machine, read earlier; NULL if it was read only once
 * @earlier: the disk in @before; NULL if it was not there
 */
struct doctor {
	const struct machine *machine;
	const struct machine *before;
	const struct disk *earlier;
	struct finding *findings;
	unsigned int count;
};

static const char ERROR[] = "error";
static const char WARNING[] = "warning";

static struct finding *add_finding(struct doctor *doctor,
				   const struct disk *disk, const char *level,
				   const char *id, const char *format, ...)
	__printf(5, 6);

/* Add a finding.  The caller must call advise() for it. */
static struct finding *add_finding(struct doctor *doctor,
				   const struct disk *disk, const char *level,
				   const char *id, const char *format, ...)
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

/* Text that names the first NAMED_QUEUES queues; count counts all of them. */
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

/* Return the sum over a disk's queues, UNKNOWN if no queue has the counter. */
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

static bool happened(uint64_t count)
{
	return count != UNKNOWN && count;
}

/* Return "io_timeout", with its value if that is known. */
static const char *timeout_text(const struct disk *disk)
{
	static char text[64];
	uint64_t ms = read_number("/sys/block/%s/queue/io_timeout", disk->name);

	if (ms == UNKNOWN)
		return "io_timeout";
	snprintf(text, sizeof(text), "io_timeout (now %.1f s)", ms / 1e3);
	return text;
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
	new = add_finding(doctor, disk, WARNING, "in-tree-driver",
			  "the in-tree driver serves the disk");
	advise(new,
	       "The in-tree driver shows no state and no counters, and does nothing about requests that the device does not answer.",
	       NULL,
	       "Load the virtio_blk module that vblkstat comes with. \"modinfo -n virtio_blk\" names the module that modprobe would load.");
}

static void check_state(struct doctor *doctor, const struct disk *disk)
{
	struct finding *new;

	if (!strcmp(disk->state, "stalled")) {
		new = add_finding(doctor, disk, ERROR, "stalled",
				  "the device has not answered requests for longer than %s",
				  timeout_text(disk));
		advise(new,
		       "Tasks that wait for these requests hang.",
		       "Check whether the process that serves the disk is alive, and what delays the storage behind it.",
		       "Run \"echo 1 > /sys/block/DISK/recovery/reset\" to reset the device and send the requests again. The parameter reset_after does this automatically. With QEMU's own block drivers, a reset waits for the same storage.");
	} else if (!strcmp(disk->state, "dead")) {
		new = add_finding(doctor, disk, ERROR, "dead",
				  "the disk is dead; all its I/O fails");
		advise(new,
		       "The device is gone, is broken, or came back changed. The kernel log says which.",
		       "Fix the cause that the guest's kernel log names.",
		       "Unmount the file systems on the disk, remove the device and rescan its bus.");
	} else if (!strcmp(disk->state, "resetting") ||
		   !strcmp(disk->state, "suspended")) {
		new = add_finding(doctor, disk, ERROR, disk->state,
				  "the device is %s; its I/O waits",
				  !strcmp(disk->state, "suspended") ?
				  "suspended or is being reset" : "being reset");
		advise(new,
		       "This normally takes moments. If doctor reports it again, the device does not come back.",
		       "Check whether the process that serves the disk hangs.",
		       NULL);
	}
}

/* A queue is stuck if it has requests in flight and sent and completed none. */
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

static uint64_t completed_requests(const struct disk *disk)
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

	/* A copy of files is read only once and shows no progress. */
	if (!before || before->seq != disk->seq)
		return;
	seconds = disk->when - before->when;
	for (unsigned int i = 0; i < disk->nr_queues && i < before->nr_queues; i++)
		if (is_stuck(&disk->queues[i], &before->queues[i]))
			add_name(&queues, "%u", disk->queues[i].index);
	if (queues.count)
		new = add_finding(doctor, disk, ERROR, "stuck",
				  "requests are in flight on queues %s, and none completed in %.1f s",
				  queues.text, seconds);
	else if (disk->iostats && happened(disk->in_flight) &&
		 happened(before->in_flight) &&
		 completed_requests(disk) == completed_requests(before))
		new = add_finding(doctor, disk, ERROR, "stuck",
				  "%llu requests are in flight, and none completed in %.1f s",
				  (unsigned long long)disk->in_flight, seconds);
	else
		return;
	advise(new,
	       "The device does not answer, or it is so slow that tasks wait for seconds.",
	       "Check the load, the throttling and the health of the storage behind the disk.",
	       "Measure for longer with \"vblkstat doctor DISK 10\". Check the kernel log for hung tasks.");
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
	if (longest >= LONG_WAIT_S * 1000) {
		new = add_finding(doctor, disk, ERROR, "long-wait",
				  "a request took %llu.%llu s (expected: less than %u s)",
				  (unsigned long long)longest / 1000,
				  (unsigned long long)longest % 1000 / 100,
				  LONG_WAIT_S);
		advise(new,
		       "Tasks waited that long. The time is from sending the request to its completion, which a polled queue notices only when a task polls it.",
		       "Check whether the storage or the whole guest paused at that time.",
		       NULL);
	}
	if (happened(disk->timeouts)) {
		new = add_finding(doctor, disk, ERROR, "timeouts",
				  "requests exceeded %s %llu time%s", timeout_text(disk),
				  (unsigned long long)disk->timeouts,
				  disk->timeouts == 1 ? "" : "s");
		advise(new,
		       "The device did not answer for that long, and the tasks that waited hung.",
		       "Check whether the storage paused at the times in the guest's kernel log.",
		       NULL);
	}
}

static void check_recovery(struct doctor *doctor, const struct disk *disk)
{
	struct finding *new;

	if (happened(disk->lost_interrupts)) {
		new = add_finding(doctor, disk, ERROR, "lost-interrupts",
				  "%llu request%s completed without an interrupt",
				  (unsigned long long)disk->lost_interrupts,
				  disk->lost_interrupts == 1 ? "" : "s");
		advise(new,
		       "Each of them waited for its io_timeout, until the driver polled the ring.",
		       "Update QEMU, or the program that emulates the device and the interrupt controller.",
		       NULL);
	}
	if (happened(disk->resets)) {
		new = add_finding(doctor, disk, ERROR, "resets",
				  "the driver reset the device %llu time%s",
				  (unsigned long long)disk->resets,
				  disk->resets == 1 ? "" : "s");
		advise(new,
		       "The device requested the reset or did not answer, and all I/O waited meanwhile. If you wrote to recovery/reset yourself, this is no error.",
		       "Check the program that serves the disk for errors at the times in the guest's kernel log.",
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
		new = add_finding(doctor, disk, ERROR, "errors",
				  "the device failed requests: %llu with an I/O error, %llu with another error",
				  (unsigned long long)(happened(ioerr) ? ioerr : 0),
				  (unsigned long long)(happened(other) ? other : 0));
		advise(new,
		       "Data could not be read, or was not written.",
		       "Check the log of the program that serves the disk, and whether the storage behind it is full or broken.",
		       "Check the file systems on the disk.");
	}
	if (happened(unsupp)) {
		new = add_finding(doctor, disk, WARNING, "unsupported",
				  "the device refused %llu request%s as not supported",
				  (unsigned long long)unsupp, unsupp == 1 ? "" : "s");
		advise(new,
		       "The device refuses requests that it offers, or it was sent requests that are not among its features.",
		       "Update the program that serves the disk.",
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
		new = add_finding(doctor, disk, ERROR, "no-flush",
				  "the write cache counts as volatile, but the device does not offer FLUSH");
		advise(new,
		       "Written data may be lost when the host fails, and fsync cannot prevent this.",
		       "Offer FLUSH, or write through: QEMU's write-cache=off.",
		       NULL);
	} else if (device_caches && disk->write_cache[0] && !layer_flushes) {
		new = add_finding(doctor, disk, ERROR, "flush-off",
				  "the device has a volatile write cache, but queue/write_cache is \"%s\"",
				  disk->write_cache);
		advise(new,
		       "The block layer does not flush the cache. Data that fsync reported as safe may be lost when the host fails.",
		       NULL,
		       "Run \"echo write back > /sys/block/DISK/queue/write_cache\".");
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
			new = add_finding(doctor, disk, ERROR, "worn",
					  "the device's storage is worn: %s is \"%s\"",
					  files[i], bad[j]);
			advise(new,
			       "Storage at the end of its life loses data or accepts no more writes.",
			       "Replace the storage behind the disk.",
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
	new = add_finding(doctor, disk, WARNING, "few-queues",
			  "%u queue%s for %u CPUs%s",
			  usual, usual > 1 ? "s" : "", cpus, usual < all ?
			  "; its other queues are only for reads, or polled" : "");
	if (limited && usual < all)
		guest = "Set the parameter num_request_queues to 0, lower read_queues and poll_queues, and bind the disk again.";
	else if (limited)
		guest = "Set the parameter num_request_queues to 0 and bind the disk again.";
	else if (usual < all)
		guest = "Lower the parameters read_queues and poll_queues.";
	advise(new,
	       "CPUs that share a queue wait for its lock, and one of them gets all its interrupts. Few queues are right if the disk does little I/O, or if many disks share few interrupt vectors.",
	       all >= cpus || limited ? NULL :
	       "Give the device as many queues as the guest has CPUs: QEMU's num-queues=, libvirt's <driver queues='...'/>.",
	       guest);
}

/* Only CPUs that are online count, because the others get no interrupts. */
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
		add_name(names, "queue %u (CPUs %s): IRQ %llu may go to CPUs %s",
			 queue->index, cpus_text(&cpus),
			 (unsigned long long)queue->irq, cpus_text(&affinity));
		return;
	}
	/* The interrupt goes to one or some of the CPUs in its affinity. */
	if (!effective.known || !cpus_count(&effective))
		return;
	cpus_and(&cpus, &effective);
	if (!cpus_equal(&cpus, &effective))
		add_name(names, "queue %u (CPUs %s): IRQ %llu goes to CPUs %s",
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
	new = add_finding(doctor, disk, WARNING, "affinity",
			  "the interrupt affinity differs from the queue's CPUs on %u of %u queues: %s",
			  names.count, disk->nr_queues, names.text);
	advise(new,
	       "A request then completes on another CPU than the one that submitted it. This costs an interrupt between CPUs and cold caches.",
	       NULL,
	       "Write the queue's CPUs to /proc/irq/N/smp_affinity_list. If the kernel refuses this, it has set the affinity itself: unbind and bind the disk. Exclude these interrupts from irqbalance.");
}

static void check_vectors(struct doctor *doctor, const struct disk *disk)
{
	static const char why[] = "Each interrupt polls all rings, mostly on another CPU than the one that submitted the request.";
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
	/* A single queue shares at most with configuration changes. */
	if (sharing < 2)
		return;
	new = add_finding(doctor, disk, WARNING, "shared-vector",
			  "%u queues share interrupt %llu%s", sharing,
			  (unsigned long long)last->irq,
			  last->vector == VECTOR_SHARED ? "" :
			  ", the only one of the device");
	if (last->vector == VECTOR_SHARED)
		advise(new, why,
		       "Give the device one vector for each queue and one more with QEMU's vectors=, or remove that option and let QEMU choose.",
		       "Use fewer disks, or fewer queues for each with num_request_queues, if the kernel had no vectors left.");
	else if (!strcmp(disk->transport, "mmio"))
		advise(new, why,
		       "Use virtio-pci: virtio-mmio has only one interrupt for each device.",
		       NULL);
	else
		advise(new, why,
		       "Give the device MSI-X: raise QEMU's vectors= if it is 0 or 1, or use a machine that has MSI.",
		       "Remove pci=nomsi from the kernel command line if it is there.");
}

static void check_depth(struct doctor *doctor, const struct disk *disk)
{
	const struct queue *queue = disk->queues;
	uint64_t requested = parameter(disk, "queue_depth");
	bool direct = disk->features_known && !disk->features[F_INDIRECT_DESC];
	const char *guest = NULL;
	struct finding *new;

	if (!disk->nr_queues || queue->depth == UNKNOWN)
		return;
	if (requested != UNKNOWN && requested > queue->depth) {
		guest = "Lower the parameter queue_depth instead, to the depth of a queue.";
		new = add_finding(doctor, disk, WARNING, "clamped-depth",
				  "the parameter queue_depth is %llu, but a queue can have only %llu requests in flight%s",
				  (unsigned long long)requested,
				  (unsigned long long)queue->depth,
				  direct ? "; each takes three descriptors or more" :
				  "");
	} else if (queue->depth < MIN_DEPTH && (!happened(requested) ||
					      requested > queue->depth)) {
		new = add_finding(doctor, disk, WARNING, "small-ring",
				  "a queue can have only %llu requests in flight (expected: %u or more)%s",
				  (unsigned long long)queue->depth, MIN_DEPTH, direct ?
				  "; each takes three descriptors or more" : "");
	} else {
		return;
	}
	advise(new,
	       "Storage that serves many requests at a time, or is far away, idles while it waits for requests.",
	       "Give the device a larger ring, QEMU's queue-size=256 to 1024, and indirect descriptors, indirect_desc=on.",
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
	new = add_finding(doctor, disk, WARNING, "ring-full",
			  "the ring was full %llu times in %llu requests (expected: less than %g%%)",
			  (unsigned long long)full, (unsigned long long)requests,
			  OFTEN_FULL * 100);
	advise(new,
	       "The queue stops until a request completes, because the ring holds fewer of these requests than the queue's depth.",
	       "Give the device a larger ring: QEMU's queue-size=1024.",
	       direct ? "Lower the parameter queue_depth to have fewer requests in flight." :
	       NULL);
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
		if (each < MANY_KICKS)
			new = add_finding(doctor, disk, WARNING, "no-event-index",
					  "the device does not offer the event index");
		else
			new = add_finding(doctor, disk, WARNING, "no-event-index",
					  "the device does not offer the event index, and the driver notifies it %.2f times per request (expected: less than %.2f)",
					  each, MANY_KICKS);
		advise(new,
		       "The driver notifies the device more often than necessary, and each notification exits the guest. The device also sends more interrupts.",
		       "Offer the event index: QEMU's event_idx=on.",
		       NULL);
		return;
	}
	for (unsigned int i = 0; i < disk->nr_queues; i++) {
		const uint64_t *batches = disk->queues[i].batches;

		for (unsigned int j = 1; j < NR_BATCHES; j++)
			if (batches[j] != UNKNOWN)
				*(j > 1 ? &more : &one) += batches[j];
	}
	/* With one request at a time, each request needs its notification. */
	if (each < NEARLY_ALL_KICKS || more <= one)
		return;
	new = add_finding(doctor, disk, WARNING, "many-kicks",
			  "the driver notifies the device %.2f times per request (expected: less than %.2f), although most interrupts complete several",
			  each, NEARLY_ALL_KICKS);
	advise(new,
	       "Each notification exits the guest, which costs more than the rest of the request.",
	       "Give the device a thread of its own, which notices requests without notifications: QEMU's iothread= with poll-max-ns.",
	       "Submit several requests at a time: io_uring, or libaio with more than one request per io_submit.");
}

static void check_scheduler(struct doctor *doctor, const struct disk *disk)
{
	struct finding *new;

	if (disk->nr_queues < 2 ||
	    (disk->zoned[0] && strcmp(disk->zoned, "none")) ||
	    (strcmp(disk->scheduler, "mq-deadline") &&
	     strcmp(disk->scheduler, "bfq")))
		return;
	new = add_finding(doctor, disk, WARNING, "scheduler",
			  "the I/O scheduler %s is active on a disk with %u queues",
			  disk->scheduler, disk->nr_queues);
	advise(new,
	       "The scheduler has one lock for the whole disk, on which all CPUs wait. The host sorts requests itself.",
	       NULL,
	       "Run \"echo none > /sys/block/DISK/queue/scheduler\", unless you need the scheduler's priorities or fairness.");
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
		note("cannot check for stuck requests in a copy of files; run doctor on the machine itself");
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
	bool found = machine_read(&first, request);
	bool live = first.live;

	if (found && live && first.nr_disks) {
		pause_until(clock_now() + request->interval);
		found = machine_read(&second, request);
		doctor.machine = &second;
		doctor.before = &first;
	}
	if (found && !doctor.machine->nr_disks)
		fputs("vblkstat: there are no virtio-blk disks to check\n", stderr);
	else if (found)
		report(&doctor, request);
	found = found && doctor.machine->nr_disks;
	machine_free(&first);
	machine_free(&second);
	return !found ? FAILED : doctor.count ? HAS_FINDINGS : ALL_WELL;
}
