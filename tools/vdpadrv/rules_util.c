// SPDX-License-Identifier: GPL-2.0
/* What the checks of rules share: one request at a time, in slot 0 of queue 0. */

#define _GNU_SOURCE
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "rules.h"

/* Start the device as the options say.  Returns its first queue. */
struct queue *begin(struct dev *d)
{
	start_dev(d, NULL, true);
	was_called(&d->queues[0], 0);
	return &d->queues[0];
}

/* Fail if a device that must use a request has not by @end, in ms. */
void check_hang(struct queue *q, const char *what, uint64_t end)
{
	if (now_ms() > end)
		fail("%s: no used entry within %u ms; device status %#x", what, hang_ms,
		     get_status(q->dev));
}

/* Wait for a used entry, with a pause of @us between two looks. */
void await_used(struct queue *q, const char *what, unsigned int us)
{
	uint64_t end = now_ms() + hang_ms;

	while (!has_used(q)) {
		check_hang(q, what, end);
		if (us)
			usleep(us);
	}
}

/* Wait for the request in slot 0.  Returns its status. */
uint8_t finish(struct queue *q, const char *what, uint32_t *len)
{
	uint32_t unused;

	if (!wait_used(q, hang_ms))
		fail("%s: no used entry; device status %#x", what, get_status(q->dev));
	take_used(q, len ? len : &unused);
	return *status_of(q, 0);
}

uint8_t send_chain(struct queue *q, const char *what, struct vring_desc *list, unsigned int nr,
		   uint32_t *len)
{
	put_chain(q, 0, list, nr);
	kick(q, false);
	return finish(q, what, len);
}

/* A request with one buffer; of a type that is unknown the device may write to it. */
uint8_t send_one(struct queue *q, const char *what, uint32_t type, uint64_t sector, uint32_t at,
		 uint32_t bytes)
{
	bool out = type == VIRTIO_BLK_T_OUT || type == VIRTIO_BLK_T_DISCARD ||
		   type == VIRTIO_BLK_T_WRITE_ZEROES || type == VIRTIO_BLK_T_SECURE_ERASE;
	struct vring_desc list[] = { header(q, 0, type, sector), part(at, bytes, !out),
				     status_desc(q, 0) };

	return send_chain(q, what, list, LENGTH(list), NULL);
}

void expect_status(uint8_t status, uint8_t expected, const char *what)
{
	if (status != expected)
		fail("%s: status %u, expected %u", what, status, expected);
}

/* Make a read of the first block available, without a kick. */
void put_read(struct queue *q, unsigned int s)
{
	struct vring_desc list[] = { header(q, s, VIRTIO_BLK_T_IN, 0),
				     part(buffer_of(q, s), q->dev->config.blk_size, true),
				     status_desc(q, s) };

	put_chain(q, s, list, LENGTH(list));
}

/* Whether the device has sent an interrupt for the queue; forgets it. */
bool was_called(struct queue *q, unsigned int ms)
{
	struct pollfd call = { .fd = q->call, .events = POLLIN };
	uint64_t value;

	if (poll(&call, 1, ms) != 1)
		return false;
	if (read(q->call, &value, sizeof(value)) < 0)
		fail("read of the call's eventfd: %s", strerror(errno));
	return true;
}

/* The device must neither use the request in slot 0 nor send an interrupt. */
void must_be_quiet(struct queue *q, const char *when)
{
	if (was_called(q, QUIET_MS))
		fail("%s: an interrupt", when);
	if (has_used(q))
		fail("%s: a used entry", when);
	if (*status_of(q, 0) != 0xff)
		fail("%s: status %u of a request", when, *status_of(q, 0));
}

void fill_disk(struct queue *q, uint64_t sector, uint8_t byte, uint32_t bytes)
{
	memset(mem + DATA, byte, bytes);
	expect_status(send_one(q, "write", VIRTIO_BLK_T_OUT, sector, DATA, bytes),
		      VIRTIO_BLK_S_OK, "write");
}
