// SPDX-License-Identifier: GPL-2.0
/* vblkstat doctor: what disks share: serial numbers, and the buffers of the DMA layer. */

#include <string.h>

#include "doctor.h"

/* The longest serial number: VIRTIO 1.4, 5.2.6. */
#define ID_BYTES	20

/* From this share of buffers in use, the next request may find none. */
#define NEARLY_FULL	0.9

/* Serial numbers */

static void check_same_serial(struct doctor *doctor, const struct disk *disk)
{
	const struct machine *machine = doctor->machine;
	struct names others = { };
	struct finding *new;

	/* Report each pair once, for the later disk. */
	for (const struct disk *one = machine->disks; one < disk; one++)
		if (!strcmp(disk->serial, one->serial))
			add_name(&others, "%s", one->name);
	if (!others.count)
		return;
	new = add_finding(doctor, disk, WARNING, "same-serial",
			  "the serial number is also that of %s", others.text);
	advise(new,
	       "/dev/disk/by-id has one link for all of them, which names the one that udev saw last. A reboot can change it.",
	       "Give each disk another serial number: QEMU's serial=, libvirt's <serial>.",
	       "Mount by UUID until then.");
}

static void check_cut_serial(struct doctor *doctor, const struct disk *disk)
{
	struct finding *new;

	if (strlen(disk->serial) != ID_BYTES)
		return;
	new = add_finding(doctor, disk, NOTICE, "cut-serial",
			  "the serial number has %u bytes, the most that there can be; it may have been cut",
			  ID_BYTES);
	advise(new,
	       "virtio cuts longer serial numbers, and those of several disks may then be equal. A serial number of exactly this length is no error.",
	       "Give the disk a serial number that is shorter, or compare it with the one in the configuration.",
	       NULL);
}

/* Bounce buffers */

static uint64_t read_slabs(const char *name)
{
	return read_number("/sys/kernel/debug/swiotlb/%s", name);
}

/* swiotlb is for devices that cannot reach the guest's memory themselves. */
static void check_bounce(struct doctor *doctor, const struct disk *disk)
{
	uint64_t all = read_slabs("io_tlb_nslabs"), used = read_slabs("io_tlb_used");
	uint64_t most = read_slabs(HIGH_WATER);
	struct finding *new;
	bool now;

	if (!disk->features_known || !disk->features[F_ACCESS_PLATFORM] ||
	    !happened(all))
		return;
	now = used != UNKNOWN && ratio(used, all) >= NEARLY_FULL;
	if (!now && (most == UNKNOWN || ratio(most, all) < NEARLY_FULL ||
		     most == baseline_value(doctor->baseline, disk, HIGH_WATER)))
		return;
	new = add_finding(doctor, disk, WARNING, "bounce-buffers",
			  "the DMA layer's bounce buffers %s %.0f%% in use (swiotlb, %llu slabs of 2 KiB)",
			  now ? "are" : "were", 100 * ratio(now ? used : most, all),
			  (unsigned long long)all);
	advise(new,
	       "The device uses the DMA layer (ACCESS_PLATFORM), and in a confidential guest each request then needs a bounce buffer. Without a free one, the driver sends the request later.",
	       NULL,
	       "Boot with swiotlb=N, where N is a larger number of slabs, or lower the parameter queue_depth.");
	new->past = !now;
	new->count = now ? used : most;
}

/* Check what a disk shares with others. */
void check_machine(struct doctor *doctor, const struct disk *disk)
{
	if (disk->serial[0]) {
		check_same_serial(doctor, disk);
		check_cut_serial(doctor, disk);
	}
	check_bounce(doctor, disk);
}
