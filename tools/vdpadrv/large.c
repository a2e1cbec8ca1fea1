// SPDX-License-Identifier: GPL-2.0
/* Reads that take the block device many seconds, and how soon the device ends them. */

#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "vdpadrv.h"

#define BUFFERS		254
/* In a huge page of its own, where memory has huge pages. */
#define LARGE		0x400000U
#define LIMIT_MS	5000

/* Submit --count reads on queue 0, each of 254 times the same buffer of --bytes. */
static void submit_large(struct dev *d)
{
	struct vring_desc list[BUFFERS + 2], table;
	struct queue *q = &d->queues[0];
	unsigned int i;

	d->indirect = true;
	start_dev(d, NULL, true);
	list[0] = header(q, 0, VIRTIO_BLK_T_IN, 0);
	for (i = 1; i <= BUFFERS; i++)
		list[i] = part(LARGE, d->bytes, true);
	list[i] = status_desc(q, 0);
	table = fill_table(q, 0, list, LENGTH(list));
	for (i = 0; i < d->count && i < d->num; i++)
		put_raw(q, 0, &table, 1, ring_of(q)->head(q, 0));
	kick(q, true);
	/* The worker is at the first of them. */
	usleep(500000);
}

/* The next driver's read completes. */
static void must_read(struct dev *d)
{
	struct queue *q = &d->queues[0];
	unsigned int s;
	uint32_t len;

	start_dev(d, NULL, true);
	submit(q, 0, VIRTIO_BLK_T_IN, 0, 0);
	kick(q, false);
	must_wait(q);
	s = take_used(q, &len);
	check(q, s, len, false);
}

/* A reset under these reads. */
void run_reset(struct dev *d)
{
	uint64_t begin;

	submit_large(d);
	begin = now_ms();
	set_status(d, 0);
	begin = now_ms() - begin;
	if (begin > LIMIT_MS)
		fail("the reset took %llu ms", (unsigned long long)begin);
	must_read(d);
	printf("ok reset: %llu ms\n", (unsigned long long)begin);
}

/* SIGKILL for a process that disables the virtqueue under these reads. */
void run_kill(struct dev *d)
{
	struct vhost_vring_state state = { .index = 0, .num = 0 };
	struct child child;
	int pipes[2];
	char byte = 0;

	close(d->fd);
	if (pipe(pipes))
		fail("pipe: %s", strerror(errno));
	if (!start_child(&child)) {
		open_dev(d);
		submit_large(d);
		if (write(pipes[1], &byte, 1) != 1)
			fail("write to a pipe: %s", strerror(errno));
		IOCTL(d, VHOST_VDPA_SET_VRING_ENABLE, &state);
		_exit(0);
	}
	close(pipes[1]);
	if (read(pipes[0], &byte, 1) != 1)
		fail("the child ended early");
	if (has_ended(&child, 1000))
		fail("the virtqueue was disabled while it had reads in flight");
	kill(child.pid, SIGKILL);
	if (!has_ended(&child, LIMIT_MS)) {
		print_stacks(&child);
		fail("the process has not ended %u ms after SIGKILL", LIMIT_MS);
	}
	open_dev(d);
	must_read(d);
	printf("ok kill\n");
}
