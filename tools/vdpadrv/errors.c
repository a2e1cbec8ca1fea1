// SPDX-License-Identifier: GPL-2.0
/* Requests whose error VIRTIO or the device's limits define, one at a time. */

#include <string.h>

#include "vdpadrv.h"

/* Send one chain on queue 0; it must return a status and a used length. */
static void expect(struct dev *d, const char *what, struct vring_desc *list, unsigned int nr,
		   uint8_t status, uint32_t used)
{
	struct queue *q = &d->queues[0];
	uint32_t len;

	put_chain(q, 0, list, nr);
	kick(q, false);
	if (!wait_used(q, hang_ms))
		fail("%s: hang; device status %#x", what, get_status(d));
	take_used(q, &len);
	/* The status byte follows data that a failed request did not write: 0 is right, too. */
	if (*status_of(q, 0) != status || (len != used && !(status && !len)))
		fail("%s: status %u, used length %u; expected %u, %u", what, *status_of(q, 0),
		     len, status, used);
	q->done++;
}

/* A chain of header, one buffer and status. */
static void expect3(struct dev *d, const char *what, uint32_t type, uint64_t sector, uint32_t at,
		    uint32_t len, uint8_t status, uint32_t used)
{
	struct queue *q = &d->queues[0];
	bool write = type == VIRTIO_BLK_T_IN || type == VIRTIO_BLK_T_GET_ID;
	struct vring_desc list[] = { header(q, 0, type, sector), part(at, len, write),
				     status_desc(q, 0) };

	expect(d, what, list, 3, status, used);
}

static void check_odd(struct dev *d, uint32_t shift, uint32_t len)
{
	uint32_t from = DATA + 2 * BUFFER + shift, to = DATA + 0x400000 + shift * 2, i;
	uint64_t random = d->seed + shift;

	for (i = 0; i < len; i++) {
		mem[from + i] = rnd(&random);
		mem[to + i] = 0;
	}
	mem[to - 1] = mem[to + len] = 0xa5;
	expect3(d, "write from any address", VIRTIO_BLK_T_OUT, 64, from, len, 0, 1);
	expect3(d, "read to any address", VIRTIO_BLK_T_IN, 64, to, len, 0, len + 1);
	if (memcmp(mem + from, mem + to, len) || mem[to - 1] != 0xa5 || mem[to + len] != 0xa5)
		fail("data at the odd address %#x differs", from);
}

static void check_layouts(struct dev *d)
{
	struct queue *q = &d->queues[0];
	uint32_t at = DATA + BUFFER;
	struct vring_desc h = header(q, 0, VIRTIO_BLK_T_IN, 0), s = status_desc(q, 0), h2 = h;

	h.len = 5;
	h2.addr += 5;
	h2.len -= 5;
	expect(d, "header in two buffers",
	       (struct vring_desc[]){ h, h2, part(at, 512, true), s }, 4, 0, 513);
	*status_of(q, 0) = 0xff;
	s.addr -= 512 - 64;
	s.len = 512 - 64 + 1;
	/* The bytes before the status byte of slot 0 are free: DEVICE_AREA is smaller. */
	h = header(q, 0, VIRTIO_BLK_T_IN, 0);
	expect(d, "data and status in one buffer",
	       (struct vring_desc[]){ h, part(at, 64, true), s }, 3, 0, 513);
	memset(mem + at, 0, 1024);
	*(struct virtio_blk_outhdr *)(mem + at) = (struct virtio_blk_outhdr){ .type = 1 };
	expect(d, "header and data in one buffer",
	       (struct vring_desc[]){ part(at, 16 + 1024, false), status_desc(q, 0) }, 2, 0, 1);
	h = header(q, 0, VIRTIO_BLK_T_IN, 0);
	h.len = 8;
	expect(d, "short header",
	       (struct vring_desc[]){ h, part(at, 512, true), status_desc(q, 0) }, 3, 1, 1);
	h.addr = IOVA - 0x1000;
	h.len = 16;
	expect(d, "header that is not shared",
	       (struct vring_desc[]){ h, part(at, 512, true), status_desc(q, 0) }, 3, 1, 1);
	h = header(q, 0, VIRTIO_BLK_T_FLUSH, 0);
	expect(d, "flush", (struct vring_desc[]){ h, status_desc(q, 0) }, 2, 0, 1);
	/* The used length counts from the first byte that the device may write. */
	expect(d, "flush with a buffer",
	       (struct vring_desc[]){ h, part(at, 512, true), status_desc(q, 0) }, 3, 0, 0);
	h = header(q, 0, VIRTIO_BLK_T_OUT, 0);
	expect(d, "write with a buffer that stays as it is",
	       (struct vring_desc[]){ h, part(at, 512, false), part(at + 4096, 512, true),
				      status_desc(q, 0) }, 4, 0, 0);
	h = header(q, 0, VIRTIO_BLK_T_IN, 0);
	expect(d, "read without data", (struct vring_desc[]){ h, status_desc(q, 0) }, 2, 1, 1);
}

static void check_erase(struct dev *d)
{
	uint32_t at = DATA + BUFFER, i;
	struct virtio_blk_discard_write_zeroes *range = (void *)(mem + at);

	*range = (struct virtio_blk_discard_write_zeroes){ .sector = 64, .num_sectors = 64 };
	expect3(d, "write zeroes", VIRTIO_BLK_T_WRITE_ZEROES, 0, at, 16, 0, 1);
	expect3(d, "read of zeroes", VIRTIO_BLK_T_IN, 64, DATA, 32768, 0, 32769);
	for (i = 0; i < 32768; i++)
		if (mem[DATA + i])
			fail("byte %u is %#x after write zeroes", i, mem[DATA + i]);
	expect3(d, "range of 15 bytes", VIRTIO_BLK_T_WRITE_ZEROES, 0, at, 15, 1, 1);
	range->flags = 8;
	expect3(d, "unknown flag", VIRTIO_BLK_T_WRITE_ZEROES, 0, at, 16, 2, 1);
	range[1] = range[0];
	range->flags = 0;
	range->sector = d->config.capacity - 1;
	expect3(d, "range beyond the capacity", VIRTIO_BLK_T_WRITE_ZEROES, 0, at, 16, 1, 1);
	expect3(d, "unknown flag after a range beyond the capacity", VIRTIO_BLK_T_WRITE_ZEROES,
		0, at, 32, 2, 1);
	if (!(d->features & F(VIRTIO_BLK_F_SECURE_ERASE)))
		expect3(d, "secure erase, not offered", VIRTIO_BLK_T_SECURE_ERASE, 0, at, 16, 2, 1);
}

void check_errors(struct dev *d)
{
	uint64_t end = d->config.capacity;
	uint32_t at = DATA + BUFFER, odd[] = { 1, 3, 4, 511, 4095 }, i;
	uint8_t kept[512];

	start_dev(d, NULL, true);
	expect3(d, "read at the capacity", 0, end, at, 512, 1, 1);
	expect3(d, "read across the capacity", 0, end - 1, at, 1024, 1, 1);
	expect3(d, "read of the last sector", 0, end - d->config.blk_size / 512, at,
		d->config.blk_size, 0, d->config.blk_size + 1);
	expect3(d, "read at sector 2^64-1", 0, ~0ULL, at, 1024, 1, 1);
	expect3(d, "write at the capacity", 1, end, at, 512, 1, 1);
	expect3(d, "read of 1000 bytes", 0, 0, at, 1000, 1, 1);
	expect3(d, "write of 511 bytes", 1, 0, at, 511, 1, 1);
	expect3(d, "unknown type", 0x7777, 0, at, 512, VIRTIO_BLK_S_UNSUPP, 1);
	expect3(d, "GET_ID", VIRTIO_BLK_T_GET_ID, 0, at, 20, 0, 21);
	expect3(d, "GET_ID to 8 bytes", VIRTIO_BLK_T_GET_ID, 0, at, 8, 0, 9);
	expect3(d, "GET_ID to 32 bytes", VIRTIO_BLK_T_GET_ID, 0, at, 32, 0, 20);
	expect3(d, "read of 2 MiB", 0, 0, DATA + 0x200000, 2 << 20, 0, (2 << 20) + 1);
	memcpy(kept, mem + HEADERS + 0x1000, sizeof(kept));
	expect3(d, "read to memory that is read-only", 0, 0, HEADERS + 0x1000, 512, 1, 1);
	expect3(d, "unaligned read to memory that is read-only", 0, 0, HEADERS + 0x1001, 512, 1, 1);
	if (memcmp(kept, mem + HEADERS + 0x1000, sizeof(kept)))
		fail("the device wrote to memory that is read-only");
	expect3(d, "write from memory that is read-only", 1, 0, HEADERS + 0x1000, 512, 0, 1);
	expect3(d, "read to memory that is not shared", 0, 0, mem_bytes + 0x1000, 512, 1, 1);
	expect3(d, "read across the end of the memory", 0, 0, mem_bytes - 512, 1024, 1, 1);
	expect3(d, "write across the end of the memory", 1, 0, mem_bytes - 100, 512, 1, 1);
	for (i = 0; i < sizeof(odd) / sizeof(odd[0]); i++) {
		check_odd(d, odd[i], 4096);
		check_odd(d, odd[i], 512 * 301);
	}
	check_layouts(d);
	check_erase(d);
}
