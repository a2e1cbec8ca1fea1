// SPDX-License-Identifier: GPL-2.0
/* Processes that take memory back, close without a reset, suspend. */

#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vdpadrv.h"

void run_unshared(struct dev *d)
{
	struct queue *q = &d->queues[0];

	start_dev(d, NULL, false);
	must_need_reset(d, "DRIVER_OK without memory");
	submit(q, 0, VIRTIO_BLK_T_IN, 0, 0);
	kick(q, true);
	map_all(d, true);
	kick(q, true);
	usleep(100000);
	check_io(d);

	submit(q, 0, VIRTIO_BLK_T_IN, 0, 0);
	kick(q, true);
	map_all(d, false);
	must_need_reset(d, "memory taken back");
	kick(q, true);
	map_all(d, true);
	usleep(100000);
	check_io(d);
	printf("ok unshared: %llu requests after resets\n", (unsigned long long)total(d, false));
}

/* Unmap and map data for @ms; at the end all memory is mapped. */
void change_mappings(struct dev *d, unsigned int ms)
{
	uint64_t end = now_ms() + ms;
	struct piece *piece;
	unsigned int i, batch;

	while (now_ms() < end) {
		batch = rnd(&d->random) & 1;
		if (batch)
			batch_mappings(d, true);
		for (i = 0; i < 1 + batch * 3; i++) {
			piece = &d->pieces[rnd(&d->random) % d->nr_pieces];
			/* Rings stay, and most of the data is shared most of the time. */
			if (piece->at >= HEADERS)
				map_piece(d, piece, rnd(&d->random) % 8);
		}
		if (batch)
			batch_mappings(d, false);
		usleep(rnd(&d->random) % 5000);
		if (rnd(&d->random) % 4 == 0)
			map_all(d, true);
	}
	map_all(d, true);
}

static void change_for_seconds(struct dev *d)
{
	change_mappings(d, d->seconds * 1000);
}

void run_unmap(struct dev *d)
{
	start_dev(d, NULL, true);
	d->tolerant = true;
	d->count = UINT32_MAX;
	run_io(d, change_for_seconds);
	printf("ok unmap: %llu requests, %llu with errors\n", (unsigned long long)total(d, false),
	       (unsigned long long)total(d, true));
	d->tolerant = false;
	d->count = 64;
	run_io(d, NULL);
}

/* Leave requests in flight on all queues, which are empty. */
void fill_queues(struct dev *d)
{
	unsigned int i, s;

	for (i = 0; i < d->nr_queues; i++) {
		for (s = 0; s < d->depth; s++)
			submit(&d->queues[i], s, s & 1, s, 0);
		kick(&d->queues[i], false);
	}
	usleep(rnd(&d->queues[0].random) % 2000);
}

/* Start the device for these requests. */
void submit_all(struct dev *d)
{
	start_dev(d, NULL, true);
	fill_queues(d);
}

/* Every second time a process exits instead. */
void run_close(struct dev *d)
{
	unsigned int i;
	int status;
	pid_t pid;

	close(d->fd);
	for (i = 0; i < d->count; i++) {
		fflush(stdout);
		pid = i & 1 ? fork() : 0;
		if (pid < 0)
			fail("fork: %s", strerror(errno));
		if (pid) {
			if (waitpid(pid, &status, 0) != pid || status)
				fail("child %u: wait status %#x", i, status);
			continue;
		}
		open_dev(d);
		submit_all(d);
		if (i & 1)
			_exit(0);
		close(d->fd);
	}
	open_dev(d);
	check_io(d);
	printf("ok close: %u times\n", d->count);
}

void suspend_often(struct dev *d, unsigned int times)
{
	unsigned int i;

	for (i = 0; i < times; i++) {
		IOCTL(d, VHOST_VDPA_SUSPEND, NULL);
		usleep(i * 200);
		IOCTL(d, VHOST_VDPA_RESUME, NULL);
		usleep(20000);
	}
}

static void suspend_50_times(struct dev *d)
{
	suspend_often(d, 50);
}

void run_suspend(struct dev *d)
{
	struct queue *q = &d->queues[0];
	uint32_t bases[MAX_QUEUES], len;
	unsigned int s;

	start_dev(d, NULL, true);
	run_io(d, NULL);
	IOCTL(d, VHOST_VDPA_SUSPEND, NULL);
	get_bases(d, bases);
	submit(q, 0, VIRTIO_BLK_T_IN, 0, 0);
	kick(q, true);
	if (wait_used(q, 300))
		fail("the device served a request while suspended");
	IOCTL(d, VHOST_VDPA_RESUME, NULL);
	must_wait(q);
	s = take_used(q, &len);
	check(q, s, len, false);
	run_io(d, NULL);

	/* As if another device took over. */
	IOCTL(d, VHOST_VDPA_SUSPEND, NULL);
	get_bases(d, bases);
	start_dev(d, bases, true);
	run_io(d, NULL);
	d->count = UINT32_MAX;
	run_io(d, suspend_50_times);
	printf("ok suspend: %llu requests\n", (unsigned long long)total(d, false));
}
