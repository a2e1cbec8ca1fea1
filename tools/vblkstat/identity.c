// SPDX-License-Identifier: GPL-2.0
/*
 * Which disk is it: its serial number, and the guest's own UUID.
 *
 * A device that does not answer does not report its serial number, either.  udev asked
 * for it when the disk was added, and keeps the answer in its database.
 */

#include <string.h>

#include "vblkstat.h"

/* A request that waits for so long shows that the device does not answer now. */
#define SILENT_MS	1000

/* Copy the value of a property from the text of a file of udev's database. */
static bool find_property(const char *text, const char *name, char *value,
			  size_t size)
{
	size_t length = strlen(name), end;
	char line[MAX_TEXT];

	for (; *text; text += end + (text[end] == '\n')) {
		end = strcspn(text, "\n");
		if (strncmp(text, name, length))
			continue;
		snprintf(line, sizeof(line), "%.*s", (int)(end - length),
			 text + length);
		copy_text(value, size, line);
		return value[0];
	}
	return false;
}

static bool read_udev(const struct disk *disk, char *serial, size_t size)
{
	char text[MAX_TEXT];

	serial[0] = '\0';
	return disk->numbers[0] &&
	       read_text(text, sizeof(text), "/run/udev/data/b%s", disk->numbers) &&
	       (find_property(text, "E:ID_SERIAL_SHORT=", serial, size) ||
		find_property(text, "E:ID_SERIAL=", serial, size));
}

/* A driver that does not show the age of requests leaves open whether they are stuck. */
static bool is_doubtful(const struct machine *machine, const struct disk *disk)
{
	return machine->live && disk->oldest_ms == UNKNOWN &&
	       happened(disk_in_flight(disk));
}

/* Do not ask a device that would not answer: the reader would hang. */
bool device_answers(const struct machine *machine, const struct disk *disk)
{
	if (!machine->live)
		return true;
	return (!disk->state[0] || !strcmp(disk->state, "live")) &&
	       (disk->oldest_ms == UNKNOWN || disk->oldest_ms < SILENT_MS);
}

/*
 * Find the serial numbers of the disks, each once: a silent device takes seconds.
 * @stored: ask only a device of which udev has no answer
 */
void read_serials(struct machine *machine, bool stored)
{
	for (unsigned int i = 0; i < machine->nr_disks; i++) {
		struct disk *disk = &machine->disks[i];
		size_t size = sizeof(disk->serial);

		if ((stored || is_doubtful(machine, disk)) &&
		    read_udev(disk, disk->serial, size))
			disk->serial_source = SERIAL_UDEV;
		else if (device_answers(machine, disk) &&
			 ask_device(disk->serial, size, disk->name, "serial"))
			disk->serial_source = SERIAL_DEVICE;
		else if (read_udev(disk, disk->serial, size))
			disk->serial_source = SERIAL_UDEV;
	}
}

/* Read the UUID that the host gave this guest.  Only root may read it. */
bool read_uuid(char *uuid, size_t size)
{
	char text[64];

	uuid[0] = '\0';
	if (!read_text(text, sizeof(text), "/sys/class/dmi/id/product_uuid") ||
	    strspn(text, "0123456789abcdefABCDEF-") != 36 || text[36])
		return false;
	copy_text(uuid, size, text);
	return true;
}
