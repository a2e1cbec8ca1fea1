// SPDX-License-Identifier: GPL-2.0
/*
 * vblkstat doctor: finds errors and warnings, why they matter, and what to do.
 *
 * Each check examines one disk and adds its findings.  The checks of a disk's state and
 * data are here, those of its queues in doctor_queues.c.
 */

#include <stdlib.h>
#include <string.h>

#include "doctor.h"

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
	if (!device_answers(doctor->machine, disk)) {
		if (disk->features[F_LIFETIME])
			note_missing("%s: the device does not report its wear",
				     disk->name);
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		if (!ask_device(text, sizeof(text), disk->name, files[i])) {
			if (disk->features[F_LIFETIME])
				note_missing("%s: the device does not report its wear",
					     disk->name);
			continue;
		}
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

/* What the driver counted of one incident is one finding, also while it lasts. */
static void check_incidents(struct doctor *doctor, const struct disk *disk)
{
	if (!check_incident(doctor, disk))
		check_tail(doctor, disk, check_past(doctor, disk));
}

/* Blind spots */

static bool is_there(const struct disk *disk, const char *file)
{
	char text[256];

	return read_text(text, sizeof(text), "/sys/block/%s/%s", disk->name, file);
}

/* A missing file of sysfs is no good news: name it. */
static void note_missing_files(const struct disk *disk)
{
	static const char *const files[] = {
		"stat", "inflight", "state", "recovery/timeouts",
		"recovery/lost_interrupts", "recovery/resets",
	};
	/* The in-tree driver has only these. */
	size_t count = disk->ours ? ARRAY_SIZE(files) : 2;

	for (size_t i = 0; i < count; i++)
		if (!is_there(disk, files[i]))
			note_missing("%s: cannot read %s/sys/block/%s/%s", disk->name,
				     root, disk->name, files[i]);
	if (!disk->features_known)
		note_missing("%s: cannot read the features of its device", disk->name);
	if (!disk->nr_queues)
		note_missing("%s: cannot read its queues in %s/sys/block/%s/mq",
			     disk->name, root, disk->name);
}

/* An older driver counts requests, but not those that were slow. */
static void note_slow_requests(const struct disk *disk)
{
	bool counted = disk->nr_queues;

	for (unsigned int i = 0; i < disk->nr_queues; i++)
		counted &= disk->queues[i].counted;
	/* Another note names the counters that are missing. */
	for (unsigned int kind = 0; kind < NR_KINDS && counted; kind++)
		if (disk_slow(disk, kind, 0) == UNKNOWN)
			note_missing("%s: the driver is older and does not count slow requests",
				     disk->name);
}

/* Without a second reading, only the age of requests shows whether they are stuck. */
static void note_progress(const struct doctor *doctor, const struct disk *disk)
{
	if (!doctor->earlier && disk->oldest_ms == UNKNOWN && disk_in_flight(disk))
		note_missing("%s: requests may be stuck; a copy of files does not show whether they progress",
			     disk->name);
}

static void check_sight(struct doctor *doctor, const struct disk *disk)
{
	note_missing_files(disk);
	note_slow_requests(disk);
	note_progress(doctor, disk);
}

static void (*const checks[])(struct doctor *doctor, const struct disk *disk) = {
	check_sight, check_incidents, check_errors, check_cache,
	check_lifetime, check_driver, check_space, check_machine, check_queues,
};

static void find_earlier(struct doctor *doctor, const struct disk *disk)
{
	doctor->earlier = doctor->before ?
			  machine_disk(doctor->before, disk->name) : NULL;
}

static void examine(struct doctor *doctor)
{
	const struct machine *machine = doctor->machine;

	for (unsigned int i = 0; i < machine->nr_disks; i++) {
		find_earlier(doctor, &machine->disks[i]);
		doctor->silent |= is_silent(doctor, &machine->disks[i]);
	}
	for (unsigned int i = 0; i < machine->nr_disks; i++) {
		find_earlier(doctor, &machine->disks[i]);
		for (size_t j = 0; j < ARRAY_SIZE(checks); j++)
			checks[j](doctor, &machine->disks[i]);
	}
}

/* Read all that doctor reads, for a snapshot. */
void doctor_examine(const struct machine *machine)
{
	struct doctor doctor = { .machine = machine };

	doctor.baseline = baseline_read();
	examine(&doctor);
	free_findings(&doctor);
	baseline_free(doctor.baseline);
}

static int verdict(const struct doctor *doctor)
{
	for (unsigned int i = 0; i < doctor->count; i++)
		if (!doctor->findings[i].past &&
		    doctor->findings[i].level != NOTICE)
			return HAS_FINDINGS;
	return notes_complete() ? ALL_WELL : INCOMPLETE;
}

/* Check and print.  Return the exit status. */
static int report(struct doctor *doctor, const struct request *request)
{
	int status;

	if (!request->since_boot)
		doctor->baseline = baseline_read();
	doctor->log = log_read(doctor->machine);
	doctor->since = request->since;
	examine(doctor);
	if (request->json) {
		json_report(doctor);
	} else {
		print_report(doctor);
		notes_print(stderr);
	}
	status = verdict(doctor);
	free_findings(doctor);
	baseline_free(doctor->baseline);
	log_free(doctor->log);
	return status;
}

int doctor_main(const struct request *request)
{
	struct machine first, second = { };
	struct doctor doctor = { .machine = &first };
	bool found = machine_read(&first, request);
	int status = FAILED;

	if (found && !request->clear && first.live && first.nr_disks) {
		pause_until(clock_now() + request->interval);
		found = machine_read(&second, request);
		doctor.machine = &second;
		doctor.before = &first;
	}
	if (found && !doctor.machine->nr_disks) {
		fputs("vblkstat: there are no virtio-blk disks to check\n", stderr);
	} else if (found && request->clear) {
		status = baseline_clear(doctor.machine);
	} else if (found) {
		read_serials(doctor.before ? &second : &first, false);
		status = report(&doctor, request);
	}
	machine_free(&first);
	machine_free(&second);
	return status;
}
