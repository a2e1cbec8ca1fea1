// SPDX-License-Identifier: GPL-2.0
/* vblkstat doctor: the checks of queues.  All of their findings are warnings. */

#include <string.h>

#include "doctor.h"

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

/* Return how many requests were sent, without those that were cleared. */
static uint64_t requests_since(const struct doctor *doctor, const struct disk *disk)
{
	return since_baseline(doctor, disk, "requests", total_requests(disk));
}

static uint64_t parameter(const struct disk *disk, const char *name)
{
	return read_number("/sys/module/%s/parameters/%s", disk->driver, name);
}

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
	struct cpus effective = queue->effective, spared;

	if (queue->vector != VECTOR_OWN || !cpus.known || !affinity.known)
		return;
	cpus_and(&cpus, online);
	cpus_and(&affinity, online);
	cpus_and(&effective, online);
	if (!cpus_count(&cpus))
		return;
	/* The interrupt may leave out isolated CPUs that use the queue. */
	spared = cpus;
	cpus_remove(&spared, &doctor->machine->isolated);
	if (!cpus_equal(&cpus, &affinity) && !cpus_equal(&spared, &affinity)) {
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

/*
 * Does an interrupt of a queue go to an isolated CPU for the I/O of other CPUs?  An
 * interrupt that queues share is for the I/O of all CPUs.
 */
static void find_intruder(const struct doctor *doctor, const struct queue *queue,
			  struct names *names)
{
	const struct machine *machine = doctor->machine;
	struct cpus hit = queue->effective, users = queue->cpus;

	if (queue->vector == VECTOR_NONE || !hit.known || !users.known)
		return;
	if (queue->vector != VECTOR_OWN)
		users = machine->online;
	cpus_and(&hit, &machine->isolated);
	cpus_and(&hit, &machine->online);
	cpus_and(&users, &machine->online);
	if (!cpus_count(&hit))
		return;
	cpus_remove(&users, &hit);
	if (!cpus_count(&users))
		return;
	add_name(names, "queue %u: IRQ %llu goes to CPU %s, and serves CPUs %s as well",
		 queue->index, (unsigned long long)queue->irq, cpus_text(&hit),
		 cpus_text(&users));
}

static void check_isolated(struct doctor *doctor, const struct disk *disk)
{
	struct names names = { };
	struct finding *new;

	for (unsigned int i = 0; i < disk->nr_queues; i++)
		find_intruder(doctor, &disk->queues[i], &names);
	if (!names.count)
		return;
	new = add_finding(doctor, disk, WARNING, "isolated-cpu",
			  "I/O of other CPUs interrupts isolated CPUs, by %u of %u queues: %s",
			  names.count, disk->nr_queues, names.text);
	advise(new,
	       "The interrupts delay the work that has the isolated CPU to itself.",
	       "Give the disk a queue for each CPU and a vector for each queue: QEMU's num-queues= and vectors=.",
	       "Boot with isolcpus=managed_irq,domain,CPUS, so that the kernel sends the interrupts of shared queues to the other CPUs. Move interrupts that the kernel does not manage: write other CPUs to /proc/irq/N/smp_affinity_list.");
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
	uint64_t full = total_since(doctor, disk, C_RING_FULL);
	uint64_t requests = requests_since(doctor, disk);
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
	uint64_t kicks = total_since(doctor, disk, C_KICKS);
	uint64_t requests = requests_since(doctor, disk);
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

/* Check the queues of a disk. */
void check_queues(struct doctor *doctor, const struct disk *disk)
{
	check_queue_count(doctor, disk);
	check_affinity(doctor, disk);
	check_isolated(doctor, disk);
	check_vectors(doctor, disk);
	check_depth(doctor, disk);
	check_full(doctor, disk);
	check_kicks(doctor, disk);
	check_scheduler(doctor, disk);
}
