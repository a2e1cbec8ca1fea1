// SPDX-License-Identifier: GPL-2.0
/*
 * vblkstat doctor: discards that give no space back to the host.
 *
 * A file system must ask for discards, the disk must take them, and a freed extent must
 * cover a whole unit of the disk's granularity at the right alignment.
 */

#include <stdlib.h>
#include <string.h>

#include "doctor.h"

/* Larger than a block of any file system here: freed extents often miss it. */
#define LARGE_GRANULARITY	(1u << 20)
#define SECTOR			512

static uint64_t limit(const struct disk *disk, const char *name)
{
	return read_number("/sys/block/%s/queue/%s", disk->name, name);
}

/* Only these file systems discard: others would need no advice. */
static bool can_discard(const struct mount *mount)
{
	static const char *const types[] = { "ext4", "xfs", "btrfs", "f2fs", "vfat",
					     "exfat", "ntfs3", "nilfs2" };

	for (size_t i = 0; i < ARRAY_SIZE(types); i++)
		if (!strcmp(mount->type, types[i]))
			return true;
	return false;
}

static bool has_option(const struct mount *mount, const char *name)
{
	size_t length = strlen(name);
	const char *option = mount->options;

	for (; *option; option += strcspn(option, ","), option += *option == ',')
		if (!strncmp(option, name, length) &&
		    strchr(",=", option[length]))
			return true;
	return false;
}

/* systemd's timer is enabled if timers.target wants it; distributions differ where. */
static bool has_timer(void)
{
	static const char *const files[] = {
		"/etc/systemd/system/timers.target.wants/fstrim.timer",
		"/lib/systemd/system/timers.target.wants/fstrim.timer",
		"/usr/lib/systemd/system/timers.target.wants/fstrim.timer",
		"/run/systemd/units/invocation:fstrim.timer",
		"/etc/cron.weekly/fstrim",
	};

	for (size_t i = 0; i < ARRAY_SIZE(files); i++)
		if (path_exists(files[i]))
			return true;
	return false;
}

/* What is in the way of discards, with the mounts or devices that it concerns. */
struct obstacles {
	struct names layers;
	struct names unused;
	struct names misaligned;
	struct names coarse;
};

static bool is_layer(const struct disk *disk, const struct mount *mount)
{
	return strncmp(mount->device, disk->name, strlen(disk->name));
}

/* Return how far the start of a partition is from a unit of the granularity. */
static uint64_t misaligned(const struct disk *disk, const struct mount *mount,
			   uint64_t granularity)
{
	uint64_t start = read_number("/sys/block/%s/%s/start", disk->name,
				     mount->device);
	uint64_t offset = read_number("/sys/block/%s/discard_alignment",
				      disk->name);

	/* A volume or a whole disk has no start. */
	if (start == UNKNOWN || start > UINT64_MAX / SECTOR / 2)
		return 0;
	return (start * SECTOR + granularity -
		(offset == UNKNOWN ? 0 : offset % granularity)) % granularity;
}

static void check_mount(const struct doctor *doctor, const struct disk *disk,
			const struct mount *mount, struct obstacles *found)
{
	uint64_t granularity = limit(disk, "discard_granularity");
	uint64_t distance;

	/* The device mapper passes discards on only if its targets do. */
	if (is_layer(disk, mount) &&
	    !read_number("/sys/block/%s/queue/discard_max_bytes", mount->device)) {
		add_name(&found->layers, "%s (%s)", mount->device, mount->path);
		return;
	}
	/* A copy of sysfs and procfs says nothing about timers. */
	if (!has_option(mount, "discard") && !has_timer() &&
	    (doctor->machine->live || path_exists("/etc/systemd")))
		add_name(&found->unused, "%s", mount->path);
	if (granularity == UNKNOWN || !granularity || granularity > UINT32_MAX)
		return;
	distance = misaligned(disk, mount, granularity);
	if (distance)
		add_name(&found->misaligned, "%s by %llu bytes", mount->device,
			 (unsigned long long)distance);
	else if (granularity > LARGE_GRANULARITY)
		add_name(&found->coarse, "%s", mount->path);
}

static void report_obstacles(struct doctor *doctor, const struct disk *disk,
			     const struct obstacles *found)
{
	unsigned long long granularity = limit(disk, "discard_granularity");

	if (found->layers.count)
		advise(add_finding(doctor, disk, NOTICE, "discard-layer",
				   "discards do not pass through %s to the disk",
				   found->layers.text),
		       "Files that are deleted there keep their space on the host.",
		       NULL,
		       "With dm-crypt, allow discards: \"cryptsetup refresh --allow-discards NAME\", or the option discard in /etc/crypttab. Other targets may not support them.");
	if (found->unused.count)
		advise(add_finding(doctor, disk, NOTICE, "discard-unused",
				   "nothing asks for discards on %s: no mount option discard, and fstrim.timer is not enabled",
				   found->unused.text),
		       "Files that are deleted there keep their space on the host.",
		       NULL,
		       "Run \"systemctl enable --now fstrim.timer\", or \"fstrim -av\" once.");
	if (found->misaligned.count)
		advise(add_finding(doctor, disk, NOTICE, "discard-misaligned",
				   "not at a multiple of the discard granularity of %llu bytes: %s",
				   granularity, found->misaligned.text),
		       "Discards that the file system aligns are not aligned on the host, which then frees less than it could, or nothing.",
		       NULL,
		       "Let partitions begin at a multiple of the granularity when you make the next ones.");
	if (found->coarse.count)
		advise(add_finding(doctor, disk, NOTICE, "discard-coarse",
				   "the discard granularity is %llu bytes, larger than most extents that are freed on %s",
				   granularity, found->coarse.text),
		       "Smaller free extents keep their space on the host. fstrim frees more than the mount option, because free extents have grown together by then.",
		       "Lower the granularity if the storage allows it: QEMU's discard_granularity=.",
		       "Use fstrim.timer rather than the mount option discard.");
}

static void report_off(struct doctor *doctor, const struct disk *disk)
{
	bool refused = !happened(limit(disk, "discard_max_hw_bytes"));

	advise(add_finding(doctor, disk, NOTICE, "discard-off",
			   "the device offers discards, but queue/discard_max_bytes is 0"),
	       "No file system can discard, so files that are deleted keep their space on the host.",
	       refused ? "Give the device other limits: the driver refuses these, and the guest's kernel log names them." : NULL,
	       refused ? NULL : "Write the value of discard_max_hw_bytes to discard_max_bytes in /sys/block/DISK/queue.");
}

/* A disk that does not offer discards need not have them: it may be a whole device. */
void check_space(struct doctor *doctor, const struct disk *disk)
{
	struct obstacles found = { };
	struct users users;

	/* The files of the timer may be on a disk that does not answer. */
	if (doctor->silent || !disk->features_known || !disk->features[F_DISCARD])
		return;
	if (!limit(disk, "discard_max_bytes")) {
		report_off(doctor, disk);
		return;
	}
	users_find(&users, disk);
	for (unsigned int i = 0; i < users.nr_mounts; i++)
		if (can_discard(&users.mounts[i]) &&
		    !has_option(&users.mounts[i], "ro"))
			check_mount(doctor, disk, &users.mounts[i], &found);
	users_free(&users);
	report_obstacles(doctor, disk, &found);
}
