// SPDX-License-Identifier: GPL-2.0
/*
 * vblkstat doctor: what to do about a disk that does not answer.
 *
 * The commands have all names filled in that the guest knows, and are only those that
 * work on this disk.  A guest does not know which kind of backend serves its disk.
 */

#include <ctype.h>
#include <string.h>

#include "doctor.h"

static bool is_dead(const struct disk *disk)
{
	return !strcmp(disk->state, "dead");
}

static bool is_below_root(const struct users *users)
{
	for (unsigned int i = 0; i < users->nr_mounts; i++)
		if (!strcmp(users->mounts[i].path, "/"))
			return true;
	return false;
}

/* What not to type */

static void add_avoid(struct finding *finding, const struct disk *disk,
		      const struct users *users)
{
	if (is_dead(disk))
		return;
	add_fact(finding, FACT_AVOID, "ls, df, sync, umount%s or dd on %s: they wait for the disk, too, and nothing can kill them, not even kill -9",
		 users->swap[0] ? ", swapoff" : "",
		 users->nr_mounts ? "these mounts" : "the disk");
	if (disk->state[0] && strcmp(disk->state, "live"))
		add_fact(finding, FACT_AVOID, "cat /sys/block/%s/serial: it asks the device",
			 disk->name);
}

/* The host */

/* virtio_vdpa has made the disk, so this machine is the host. */
static void add_vdpa(struct finding *finding, const struct disk *disk)
{
	finding->host = "This machine is the host of the vDPA device: see whether its backing device and its workers make progress.";
	add_fact(finding, FACT_HOST, "vblkstat host %s", disk->address);
	add_fact(finding, FACT_HOST, "vdpa dev show %s", disk->address);
}

/* A serial number goes into a shell: take no characters that mean something there. */
static bool is_plain(const char *serial)
{
	size_t i;

	for (i = 0; serial[i]; i++)
		if (!isalnum((unsigned char)serial[i]) && !strchr("._-", serial[i]))
			return false;
	return i;
}

/* libvirt takes the UUID of a guest wherever it takes a name. */
static void add_virsh(struct finding *finding, const struct disk *disk)
{
	const char *serial = disk->serial;
	char uuid[40];

	if (read_uuid(uuid, sizeof(uuid)))
		add_fact(finding, FACT_HOST, "VM=%s", uuid);
	else
		add_fact(finding, FACT_HOST, "VM=NAME     # this guest in: virsh list --all");
	add_fact(finding, FACT_HOST, "virsh domstate $VM --reason");
	add_fact(finding, FACT_HOST, "virsh domblkerror $VM");
	if (is_plain(serial))
		add_fact(finding, FACT_HOST, "virsh dumpxml $VM | grep -B9 '>%s<'",
			 serial);
	else
		add_fact(finding, FACT_HOST, "virsh domblklist $VM --details");
	add_fact(finding, FACT_HOST, "virsh domstats $VM --block");
	add_fact(finding, FACT_HOST, "virsh qemu-monitor-command $VM --hmp info block");
	add_fact(finding, FACT_HOST, "QMP: {\"execute\": \"query-block\"}");
	add_fact(finding, FACT_HOST, "QMP: {\"execute\": \"query-blockstats\"}");
}

static void add_host(struct finding *finding, const struct disk *disk)
{
	if (!strcmp(disk->transport, "vdpa")) {
		add_vdpa(finding, disk);
		return;
	}
	finding->host = is_dead(disk) ?
		"Fix the cause that the guest's kernel log names." :
		"See whether the process that serves the disk runs, whether the storage behind it answers, and whether the disk is throttled.";
	add_virsh(finding, disk);
}

/* The guest */

static void add_return(struct finding *finding, const struct disk *disk)
{
	if (!strcmp(disk->transport, "pci") && disk->address[0]) {
		add_fact(finding, FACT_GUEST, "echo 1 > /sys/bus/pci/devices/%s/remove",
			 disk->address);
		add_fact(finding, FACT_GUEST, "echo 1 > /sys/bus/pci/rescan");
	} else if (!strcmp(disk->transport, "vdpa")) {
		add_fact(finding, FACT_GUEST, "vdpa dev del %s", disk->address);
	}
}

/*
 * Anybody may name a file system, and so its mount: let no shell run the name.  A path
 * that was cut may be that of another directory.
 */
static void add_umount(struct finding *finding, const struct mount *mount)
{
	if (strpbrk(mount->path, "'?") ||
	    strlen(mount->path) == sizeof(mount->path) - 1)
		add_fact(finding, FACT_GUEST, "umount /dev/%s", mount->device);
	else
		add_fact(finding, FACT_GUEST, "umount '%s'", mount->path);
}

static void add_dead(struct finding *finding, const struct disk *disk,
		     const struct users *users)
{
	bool rescan = !strcmp(disk->transport, "pci") ||
		      !strcmp(disk->transport, "vdpa");

	if (is_below_root(users) || !rescan) {
		finding->guest = is_below_root(users) ?
			"The root file system is on this disk: restart the guest." :
			"This bus cannot be rescanned: restart the guest.";
		return;
	}
	finding->guest = "Stop what uses the disk, then remove its device and find it again.";
	for (unsigned int i = 0; i < users->nr_mounts; i++)
		add_umount(finding, &users->mounts[i]);
	if (users->swap[0])
		add_fact(finding, FACT_GUEST, "swapoff %s", users->swap);
	add_return(finding, disk);
}

static void add_guest(struct finding *finding, const struct disk *disk,
		      const struct users *users)
{
	if (is_dead(disk)) {
		add_dead(finding, disk, users);
	} else if (!disk->ours) {
		finding->guest = "The in-tree driver can only wait. The kernel log says where tasks are blocked.";
		add_fact(finding, FACT_GUEST, "echo w > /proc/sysrq-trigger; dmesg | tail -99");
	} else if (!strcmp(disk->state, "resetting") ||
		   !strcmp(disk->state, "suspended")) {
		finding->guest = "Wait, and see whether the state changes.";
		add_fact(finding, FACT_GUEST, "cat /sys/block/%s/state", disk->name);
	} else if (!strcmp(disk->transport, "vdpa")) {
		finding->guest = "Reset the device, and send the requests again:";
		add_fact(finding, FACT_GUEST, "echo 1 > /sys/block/%s/recovery/reset",
			 disk->name);
	} else {
		finding->guest = "If a process or hardware of its own serves the disk (vhost-user, vDPA), reset the device, and the driver sends the requests again. If QEMU serves it, the reset waits for the same storage, and cannot be interrupted:";
		add_fact(finding, FACT_GUEST, "echo 1 > /sys/block/%s/recovery/reset",
			 disk->name);
	}
}

/* Add who is hit, what not to type, and what to do on the host and in the guest. */
void add_advice(struct finding *finding, const struct disk *disk)
{
	struct users users;

	users_find(&users, disk);
	add_users(finding, &users);
	add_avoid(finding, disk, &users);
	add_host(finding, disk);
	add_guest(finding, disk, &users);
	users_free(&users);
}
