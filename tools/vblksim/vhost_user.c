// SPDX-License-Identifier: GPL-2.0
/*
 * The second front: vhost-user, and the memory of a guest of a monitor such as QEMU.
 *
 * This process listens on a socket, and the monitor connects.  The monitor has the PCI
 * device, sets this device up when the driver has set DRIVER_OK, and passes memory and
 * an eventfd for each kick and interrupt.  It handles the device status itself.  So
 * this front infers it: the device has DRIVER_OK while any of its rings runs.  The
 * protocol's own messages for the status are not offered, because QEMU does not pass
 * on what the driver writes, but sends its own values at the same two times.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "vblksim.h"
#include "vhost_user.h"
#include "virtio.h"

#define BIT(n)		(1ull << (n))
#define MILLISECOND	1000000ull
/* A kick that has not come after one to two of these is missing. */
#define IDLE_INTERVAL	(4000 * MILLISECOND)
/* A monitor that stops within a message must not stop the device. */
#define MESSAGE_SECONDS	5

struct vhost vhost = {
	.listener = -1,
	.socket = -1,
	.backend = -1,
};

void vhost_replace_fd(int *fd, int by)
{
	loop_del_fd(*fd);
	if (*fd >= 0)
		close(*fd);
	*fd = by;
}

void vhost_signal(int fd)
{
	uint64_t one = 1;

	/* An eventfd is full only if the monitor has not read it, and then knows. */
	if (fd >= 0 && write(fd, &one, sizeof(one)) < 0 && errno != EAGAIN)
		fprintf(stderr, "vblksim: an eventfd of the monitor cannot be written: %s\n",
			strerror(errno));
}

/* Operations for ring.c. */

static void *map(struct sim *sim, uint64_t addr, uint64_t len, bool write,
		 uint64_t *run)
{
	(void)sim, (void)write;
	return vhost_memory_map(addr, len, run);
}

static void interrupt(struct sim *sim, unsigned int queue)
{
	struct vhost_queue *vring = &vhost.vring[queue];

	(void)sim;
	vring->interrupted = true;
	vhost_signal(vring->call);
}

static void broken(struct sim *sim, unsigned int queue)
{
	(void)sim;
	vhost_signal(vhost.vring[queue].error);
}

static uint64_t driver_features(struct sim *sim)
{
	(void)sim;
	return vhost.features & ~BIT(VHOST_F_PROTOCOL);
}

static void tell_config(struct sim *sim, void *arg);

/* The socket is full of the same news: the monitor is busy, so try later. */
static void tell_config_later(void)
{
	if (!vhost.config_timer)
		vhost.config_timer = loop_after(MILLISECOND, tell_config, NULL);
}

static void notify_config(struct sim *sim)
{
	if (vhost.backend < 0 || !(sim->status & STATUS_DRIVER_OK))
		return;
	if (vhost_notify(vhost.backend, VHOST_CONFIG_CHANGE) && errno == EAGAIN)
		tell_config_later();
}

static void tell_config(struct sim *sim, void *arg)
{
	(void)arg;
	vhost.config_timer = NULL;
	if (vhost.config_news)
		notify_config(sim);
}

static void config_changed(struct sim *sim)
{
	vhost.config_news = true;
	notify_config(sim);
}

/* Queues. */

uint64_t vhost_read_kicks(int fd)
{
	struct pollfd poll_fd = { .fd = fd, .events = POLLIN };
	uint64_t times;

	/* It may be a file that blocks. */
	if (poll(&poll_fd, 1, 0) != 1 ||
	    read(fd, &times, sizeof(times)) != sizeof(times))
		return 0;
	return times;
}

void vhost_kicked(struct sim *sim, void *arg)
{
	unsigned int queue = (uintptr_t)arg;
	struct vhost_queue *vring = &vhost.vring[queue];
	uint64_t times = vhost_read_kicks(vring->kick);

	/* vhost_start_queue() polls the ring, so that no kick from before is needed. */
	if (times && vring->running)
		ring_kicked(sim, queue, times);
}

static bool find_ring(const struct sim *sim, const struct vhost_queue *vring,
		      struct queue_addresses *where)
{
	const struct vhost_vring_addr *addr = &vring->addr;

	where->size = vring->size;
	where->avail_index = vring->base;
	if (has_feature(sim, F_RING_PACKED)) {
		where->avail_index = vring->base & 0x7fff;
		where->avail_wrap = vring->base >> 15 & 1;
	}
	return vhost_memory_guest(addr->desc_user_addr, &where->desc) &&
	       vhost_memory_guest(addr->avail_user_addr, &where->driver) &&
	       vhost_memory_guest(addr->used_user_addr, &where->device);
}

static bool is_complete(const struct vhost_queue *vring)
{
	return vring->size && vring->addr.desc_user_addr && vring->kick >= 0;
}

/* There is no way to tell the driver, so it waits for a device that does nothing. */
static void refuse_features(struct sim *sim)
{
	vhost.refused = true;
	fprintf(stderr, "vblksim: the device does not work with the features %#" PRIx64 " that the driver has accepted; its queues stay stopped\n",
		sim->front->features(sim));
}

/* Start a queue when all of it is known. */
bool vhost_start_queue(struct sim *sim, unsigned int queue,
		       struct vhost_message *msg)
{
	struct vhost_queue *vring = &vhost.vring[queue];
	bool enabled = vring->enabled ||
		       !(vhost.features & BIT(VHOST_F_PROTOCOL));
	struct queue_addresses where = {};

	if (vring->running || !enabled || !is_complete(vring))
		return true;
	if (vhost.refused)
		return true;
	if (!(sim->status & STATUS_DRIVER_OK) && !status_inferred(sim)) {
		refuse_features(sim);
		return true;
	}
	if (!find_ring(sim, vring, &where))
		return vhost_refuse(msg, "queue %u: its ring at %#" PRIx64 " is not in the guest's memory",
				    queue, (uint64_t)vring->addr.desc_user_addr);
	if (ring_start(sim, queue, &where)) {
		/* The driver's fault, and counted as such. */
		fprintf(stderr, "vblksim: queue %u cannot be started\n", queue);
		return true;
	}
	vring->running = true;
	ring_kicked(sim, queue, 0);
	if (vhost.config_news)
		notify_config(sim);
	return true;
}

static void halt_queue(struct sim *sim, unsigned int queue)
{
	struct vhost_queue *vring = &vhost.vring[queue];
	struct queue_addresses where;
	uint32_t at;

	ring_state(sim, queue, &where);
	at = where.avail_index;
	if (has_feature(sim, F_RING_PACKED)) {
		at |= where.avail_wrap ? BIT(15) : 0;
		/* The device gives up what it has not answered. */
		at |= at << 16;
	}
	ring_stop(sim, queue);
	vring->base = at;
	vring->running = false;
}

/* Stop a queue, and the device with its last one. */
void vhost_stop_queue(struct sim *sim, unsigned int queue)
{
	if (vhost.vring[queue].running)
		halt_queue(sim, queue);
	/* It also has DRIVER_OK if no queue could be started. */
	if (!(sim->status & STATUS_DRIVER_OK))
		return;
	for (unsigned int i = 0; i < sim->set.queues; i++)
		if (vhost.vring[i].running)
			return;
	status_written(sim, 0);
	vhost_memory_trim();
}

static void forget_queue(struct vhost_queue *vring)
{
	vhost_replace_fd(&vring->kick, -1);
	vhost_replace_fd(&vring->call, -1);
	vhost_replace_fd(&vring->error, -1);
	*vring = (struct vhost_queue) { .kick = -1, .call = -1, .error = -1 };
}

/* The connection. */

static void disconnect(struct sim *sim)
{
	for (unsigned int i = 0; i < sim->set.queues; i++) {
		vhost_stop_queue(sim, i);
		forget_queue(&vhost.vring[i]);
	}
	vhost_replace_fd(&vhost.socket, -1);
	vhost_replace_fd(&vhost.backend, -1);
	vhost_memory_free();
	vhost.features = 0;
	vhost.protocol = 0;
	vhost.refused = false;
}

static void complain(const struct vhost_message *msg)
{
	const char *name = vhost_message_name(msg->header.request);
	char number[32];

	snprintf(number, sizeof(number), "message %u", msg->header.request);
	fprintf(stderr, "vblksim: vhost-user: %s: %s; closing the connection\n",
		name ? name : number, msg->why);
	vhost.failed = true;
}

static void message_came(struct sim *sim, void *arg)
{
	struct vhost_message msg;
	int got = vhost_receive(vhost.socket, &msg);

	(void)arg;
	if (!got)
		fprintf(stderr, "vblksim: the monitor has closed the connection\n");
	if (got < 0 || (got && !vhost_handle(sim, &msg))) {
		complain(&msg);
		got = 0;
	}
	vhost_release(&msg);
	if (!got)
		disconnect(sim);
}

/* Has the monitor closed its end, which message_came() has not seen yet? */
static bool has_ended(int fd)
{
	char byte;

	return !recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
}

static void monitor_came(struct sim *sim, void *arg)
{
	struct timeval limit = { .tv_sec = MESSAGE_SECONDS };
	int fd = accept4(vhost.listener, NULL, NULL, SOCK_CLOEXEC);

	(void)arg;
	if (fd < 0)
		return;
	if (vhost.socket >= 0 && has_ended(vhost.socket))
		disconnect(sim);
	if (vhost.socket >= 0) {
		fprintf(stderr, "vblksim: a second monitor has connected, and is refused: the device has one already\n");
		close(fd);
		return;
	}
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	vhost.socket = fd;
	if (loop_add_fd(fd, message_came, NULL))
		disconnect(sim);
	else
		fprintf(stderr, "vblksim: a monitor has connected\n");
}

/* Opening and closing. */

static void look_idle(struct sim *sim, void *arg)
{
	(void)arg;
	if (sim->status & STATUS_DRIVER_OK)
		ring_check_idle(sim);
	loop_after(IDLE_INTERVAL, look_idle, NULL);
}

static void stop(struct sim *sim)
{
	(void)sim;
	loop_stop();
}

static int close_front(struct sim *sim)
{
	disconnect(sim);
	loop_del_fd(vhost.listener);
	close(vhost.listener);
	unlink(sim->set.socket);
	return vhost.failed ? -1 : 0;
}

/* QEMU does not ask the device for these. */
static void print_options(const struct settings *set)
{
	fprintf(stderr, "vblksim: waiting for QEMU with: -chardev socket,id=%s,path=%s -device vhost-user-blk-pci,chardev=%s,num-queues=%u,queue-size=%u%s%s\n",
		set->name, set->socket, set->name, set->queues, set->ring_size,
		set->features & BIT(F_RING_PACKED) ? ",packed=on" : "",
		set->features & BIT(F_ACCESS_PLATFORM) ? ",iommu_platform=on" :
							 "");
}

int vhost_user_open(struct sim *sim)
{
	if (sim->set.required & sim->set.features) {
		fprintf(stderr, "vblksim: required: a vhost-user device cannot refuse the driver's features; remove it\n");
		return -1;
	}
	vhost.front = (struct front) {
		.map = map,
		.interrupt = interrupt,
		.config_changed = config_changed,
		.features = driver_features,
		.broken = broken,
		.disconnect = disconnect,
		.stop = stop,
		.close = close_front,
	};
	sim->front = &vhost.front;
	for (unsigned int i = 0; i < MAX_QUEUES; i++)
		forget_queue(&vhost.vring[i]);
	vhost.listener = vhost_listen(sim->set.socket);
	if (vhost.listener < 0)
		return -1;
	if (loop_add_fd(vhost.listener, monitor_came, NULL))
		return -1;
	loop_after(IDLE_INTERVAL, look_idle, NULL);
	print_options(&sim->set);
	return 0;
}
