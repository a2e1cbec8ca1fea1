// SPDX-License-Identifier: GPL-2.0
/* The device in states that a driver passes through, or brings it into by mistake. */

#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "vdpadrv.h"

/* Interrupts of the configuration */

static uint64_t read_capacity(struct dev *d)
{
	struct {
		struct vhost_vdpa_config head;
		uint64_t capacity;
	} __attribute__((packed)) buf = { .head.len = sizeof(buf.capacity) };

	IOCTL(d, VHOST_VDPA_GET_CONFIG, &buf);
	return buf.capacity;
}

/* Have the test change the capacity.  Returns how often the device interrupts for it. */
static uint64_t change_capacity(struct dev *d, const char *when)
{
	uint64_t old = read_capacity(d), end = now_ms() + hang_ms, calls = 0;

	printf("change the capacity %s\n", when);
	while (read_capacity(d) == old) {
		if (now_ms() > end)
			fail("%s: the capacity stays %llu", when, (unsigned long long)old);
		usleep(10000);
	}
	/* The interrupt comes after the change. */
	usleep(500000);
	if (read(d->config_call, &calls, sizeof(calls)) < 0 && errno != EAGAIN)
		fail("read of the configuration's eventfd: %s", strerror(errno));
	return calls;
}

static void expect_calls(uint64_t calls, uint64_t expected, const char *when)
{
	if (calls != expected)
		fail("%s: %llu interrupts of the configuration, expected %llu", when,
		     (unsigned long long)calls, (unsigned long long)expected);
}

/* The device interrupts a driver only between DRIVER_OK and FAILED. */
void run_config(struct dev *d)
{
	uint64_t calls = 0;

	negotiate(d);
	expect_calls(change_capacity(d, "before DRIVER_OK"), 0, "before DRIVER_OK");
	/* The driver may have read the configuration before the change. */
	set_status(d, get_status(d) | VIRTIO_CONFIG_S_DRIVER_OK);
	if (read(d->config_call, &calls, sizeof(calls)) < 0 && errno != EAGAIN)
		fail("read of the configuration's eventfd: %s", strerror(errno));
	expect_calls(calls, 1, "at DRIVER_OK, after a change");
	expect_calls(change_capacity(d, "after DRIVER_OK"), 1, "after DRIVER_OK");
	set_status(d, get_status(d) | VIRTIO_CONFIG_S_FAILED);
	expect_calls(change_capacity(d, "after FAILED"), 0, "after FAILED");
	printf("ok config\n");
}

/* Mappings */

/* The piece with the ring of queue 0, or the last one, which has data. */
static struct piece *find_piece(struct dev *d, bool ring)
{
	unsigned int i;

	for (i = 0; i < d->nr_pieces; i++)
		if (ring ? !d->pieces[i].at : d->pieces[i].at + d->pieces[i].len == mem_bytes)
			return &d->pieces[i];
	fail("there is no such piece of memory");
}

static void write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		fail("write to %s: %s", path, strerror(errno));
	close(fd);
}

/*
 * Rings are away while the device is suspended.  With --name, it has no memory for a new
 * list while it is live: the file is the module's parameter `refuse`.
 */
void run_remap(struct dev *d)
{
	struct piece *piece = find_piece(d, !d->name);
	bool suspend = !d->name;

	start_dev(d, NULL, true);
	run_io(d, NULL);
	if (suspend)
		IOCTL(d, VHOST_VDPA_SUSPEND, NULL);
	else
		write_text(d->name, "1");
	map_piece(d, piece, false);
	map_piece(d, piece, true);
	if (suspend)
		IOCTL(d, VHOST_VDPA_RESUME, NULL);
	if (get_status(d) & NEEDS_RESET)
		fail("the device needs a reset");
	run_io(d, NULL);
	printf("ok remap: %llu requests\n", (unsigned long long)total(d, false));
}

/* Virtqueues with an address of 0 */

static void start_at(struct dev *d, uint64_t desc, uint64_t driver, uint64_t device)
{
	negotiate(d);
	start_queue(d, 0, NULL);
	set_ring_addresses(d, 0, desc, driver, device);
	set_status(d, get_status(d) | VIRTIO_CONFIG_S_DRIVER_OK);
}

void run_zero(struct dev *d)
{
	map_all(d, true);
	start_at(d, 0, IOVA + DRIVER_AREA, IOVA + DEVICE_AREA);
	must_need_reset(d, "a descriptor area at 0, which is not shared");

	/* QEMU enables virtqueues that it does not use so. */
	start_at(d, 0, 0, 0);
	usleep(100000);
	if (get_status(d) & NEEDS_RESET)
		fail("the device needs a reset for a virtqueue without addresses");
	start_dev(d, NULL, true);
	run_io(d, NULL);
	printf("ok zero: %llu requests\n", (unsigned long long)total(d, false));
}

/* Memory is short */

#define SLOW	4		/* operations that sleep for which vdpa_blk has reserved memory */
#define PAGES	300		/* more than a bio can have */

/*
 * A read whose pages are too many for a bio, with --scatter, waits until one of four
 * operations that sleep has completed.
 */
void run_starve(struct dev *d)
{
	struct queue *q = &d->queues[0];
	struct vring_desc list[3];
	unsigned int s;
	uint32_t len;

	start_dev(d, NULL, true);
	for (s = 0; s <= SLOW; s++) {
		uint32_t at = DATA + s * 4096;
		struct virtio_blk_discard_write_zeroes *range = (void *)(mem + at);
		bool last = s == SLOW;

		*range = (struct virtio_blk_discard_write_zeroes){ .num_sectors = 8 };
		list[0] = header(q, s, last ? VIRTIO_BLK_T_IN : VIRTIO_BLK_T_WRITE_ZEROES, 0);
		list[1] = part(at, last ? PAGES * 4096 : sizeof(*range), last);
		list[2] = status_desc(q, s);
		put_chain(q, s, list, 3);
	}
	kick(q, true);
	printf("submitted\n");
	while (q->in_flight) {
		must_wait(q);
		s = take_used(q, &len);
		if (*status_of(q, s))
			fail("request %u has status %u", s, *status_of(q, s));
	}
	printf("ok starve\n");
}
