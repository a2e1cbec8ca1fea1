// SPDX-License-Identifier: GPL-2.0
/* Rules of requests to a block device. */

#include <string.h>

#include "rules.h"

#define AT	(DATA + BUFFER)
#define SECTOR	128ULL
#define BYTES	32768U
#define ON_DISK	0x5a

static struct virtio_blk_discard_write_zeroes *range(void)
{
	return (void *)(mem + AT);
}

static void expect_range(struct queue *q, const char *what, uint32_t type, uint64_t sector,
			 uint32_t sectors, uint32_t flags, uint8_t status)
{
	*range() = (struct virtio_blk_discard_write_zeroes){ .sector = sector,
							     .num_sectors = sectors,
							     .flags = flags };
	expect_status(send_one(q, what, type, 0, AT, sizeof(*range())), status, what);
}

/* All of the test area must have the same bytes. */
static void expect_data(struct queue *q, uint8_t byte, const char *what)
{
	uint32_t i;

	memset(mem + DATA, ~byte, BYTES);
	expect_status(send_one(q, "read", VIRTIO_BLK_T_IN, SECTOR, DATA, BYTES), VIRTIO_BLK_S_OK,
		      "read");
	for (i = 0; i < BYTES; i++)
		if (mem[DATA + i] != byte)
			fail("%s: byte %u is %#x, expected %#x", what, i, mem[DATA + i], byte);
}

/* Whether or not the driver has accepted RO. */
void check_read_only(struct dev *d)
{
	uint32_t at = DATA + BUFFER, other = AT + BUFFER;
	unsigned int accepted;
	struct queue *q;

	for (accepted = 0; accepted < 2; accepted++) {
		d->refused = accepted ? 0 : F(VIRTIO_BLK_F_RO);
		q = begin(d);
		expect_status(send_one(q, "read", VIRTIO_BLK_T_IN, SECTOR, at, 4096),
			      VIRTIO_BLK_S_OK, "read");
		memset(mem + other, ~mem[at], 4096);
		expect_status(send_one(q, "write", VIRTIO_BLK_T_OUT, SECTOR, other, 4096),
			      VIRTIO_BLK_S_IOERR, "write to a read-only device");
		expect_status(send_one(q, "read", VIRTIO_BLK_T_IN, SECTOR, other, 4096),
			      VIRTIO_BLK_S_OK, "read");
		if (memcmp(mem + at, mem + other, 4096))
			fail("a write has changed a read-only device");
	}
}

static const struct {
	const char *what;
	uint32_t type;
	unsigned int feature;
} erasures[] = {
	{ "discard", VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_F_DISCARD },
	{ "secure erase", VIRTIO_BLK_T_SECURE_ERASE, VIRTIO_BLK_F_SECURE_ERASE },
	{ "write zeroes", VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_F_WRITE_ZEROES },
};

void check_erase_flags(struct dev *d)
{
	struct queue *q = begin(d);
	unsigned int i, bit;

	fill_disk(q, SECTOR, ON_DISK, BYTES);
	for (i = 0; i < LENGTH(erasures); i++)
		for (bit = 0; bit < 32; bit++)
			/* The first flag is unmap, which write zeroes may have. */
			if (bit || erasures[i].type != VIRTIO_BLK_T_WRITE_ZEROES)
				expect_range(q, erasures[i].what, erasures[i].type, SECTOR, 64,
					     1U << bit, VIRTIO_BLK_S_UNSUPP);
	expect_data(q, ON_DISK, "after requests with unknown flags");
}

static uint32_t most_sectors(const struct dev *d, uint32_t type)
{
	return type == VIRTIO_BLK_T_DISCARD ? d->config.max_discard_sectors :
	       type == VIRTIO_BLK_T_WRITE_ZEROES ? d->config.max_write_zeroes_sectors :
						   d->config.max_secure_erase_sectors;
}

static uint32_t most_ranges(const struct dev *d, uint32_t type)
{
	return type == VIRTIO_BLK_T_DISCARD ? d->config.max_discard_seg :
	       type == VIRTIO_BLK_T_WRITE_ZEROES ? d->config.max_write_zeroes_seg :
						   d->config.max_secure_erase_seg;
}

/* One range and 2^32 more: their bytes are 16 again, modulo 2^36. */
static uint8_t send_many_ranges(struct queue *q, uint32_t type)
{
	const uint32_t most = 0xfffffff0;
	struct vring_desc list[19];
	unsigned int i;

	list[0] = header(q, 0, type, 0);
	for (i = 1; i <= 16; i++)
		list[i] = part(AT, most, false);
	list[i++] = part(AT, 16 * 16 + 16, false);
	list[i++] = status_desc(q, 0);
	return send_chain(q, "2^32 ranges", list, i, NULL);
}

void check_erase_limits(struct dev *d)
{
	const struct virtio_blk_discard_write_zeroes one = { .sector = SECTOR, .num_sectors = 8 };
	struct queue *q = begin(d);
	unsigned int i, k, most;
	uint32_t sectors;

	fill_disk(q, SECTOR, ON_DISK, BYTES);
	for (i = 0; i < LENGTH(erasures); i++) {
		uint8_t refused = d->accepted & F(erasures[i].feature) ? VIRTIO_BLK_S_IOERR :
									 VIRTIO_BLK_S_UNSUPP;
		uint32_t type = erasures[i].type;

		sectors = most_sectors(d, type);
		if (refused == VIRTIO_BLK_S_IOERR && sectors < d->config.capacity - SECTOR)
			expect_range(q, "a range of more sectors than the limit", type, SECTOR,
				     sectors + d->config.blk_size / 512, 0, refused);
		expect_range(q, "a range at the capacity", type, d->config.capacity, 8, 0, refused);
		expect_range(q, "a range across the capacity", type, d->config.capacity - 8, 16, 0,
			     refused);
		expect_range(q, "a range that wraps", type, ~0ULL - 7, 16, 0, refused);
		most = most_ranges(d, type);
		if (refused != VIRTIO_BLK_S_IOERR)
			continue;
		for (k = 0; k < most + 1; k++)
			range()[k] = one;
		expect_status(send_one(q, "more ranges than the limit", type, 0, AT,
				       (most + 1) * sizeof(one)), refused,
			      "more ranges than the limit");
		expect_status(send_many_ranges(q, type), refused, "2^32 ranges");
	}
	expect_data(q, ON_DISK, "after requests beyond the limits");
}

void check_zeroes(struct dev *d)
{
	struct queue *q = begin(d);
	unsigned int unmap;

	for (unmap = 0; unmap < 2; unmap++) {
		fill_disk(q, SECTOR, ON_DISK, BYTES);
		expect_range(q, "write zeroes", VIRTIO_BLK_T_WRITE_ZEROES, SECTOR, BYTES / 512,
			     unmap, VIRTIO_BLK_S_OK);
		expect_data(q, 0, unmap ? "zeroes with unmap" : "zeroes without unmap");
	}
}

void check_range(struct dev *d)
{
	const uint64_t end = d->config.capacity, sectors[] = { end, end - 1, end + 1, 1ULL << 55,
							       1ULL << 63, ~0ULL, ~0ULL - 1 };
	struct queue *q = begin(d);
	unsigned int i;

	for (i = 0; i < LENGTH(sectors); i++) {
		expect_status(send_one(q, "read", VIRTIO_BLK_T_IN, sectors[i], AT, 8192),
			      VIRTIO_BLK_S_IOERR, "read beyond the capacity");
		expect_status(send_one(q, "write", VIRTIO_BLK_T_OUT, sectors[i], AT, 8192),
			      VIRTIO_BLK_S_IOERR, "write beyond the capacity");
	}
	expect_status(send_one(q, "read", VIRTIO_BLK_T_IN, end - 16, AT, 8192), VIRTIO_BLK_S_OK,
		      "read of the last sectors");
}

static bool is_known(const struct dev *d, uint32_t type)
{
	unsigned int i;

	for (i = 0; i < LENGTH(erasures); i++)
		if (type == erasures[i].type)
			return d->accepted & F(erasures[i].feature);
	return type == VIRTIO_BLK_T_IN || type == VIRTIO_BLK_T_OUT ||
	       type == VIRTIO_BLK_T_FLUSH || type == VIRTIO_BLK_T_GET_ID;
}

/* Types that VIRTIO does not have, has reserved, or that the device does not offer. */
void check_unknown_type(struct dev *d)
{
	struct queue *q = begin(d);
	unsigned int bit;
	uint32_t type;

	for (type = 0; type < 64; type++)
		if (!is_known(d, type))
			expect_status(send_one(q, "unknown type", type, 0, AT, 512),
				      VIRTIO_BLK_S_UNSUPP, "unknown type");
	for (bit = 6; bit < 32; bit++)
		expect_status(send_one(q, "unknown type", 1U << bit, 0, AT, 512),
			      VIRTIO_BLK_S_UNSUPP, "unknown type");
}

/* Up to 20 characters; zeroes follow a shorter ID. */
void check_id(struct dev *d)
{
	struct queue *q = begin(d);
	unsigned int i;

	memset(mem + AT, 0xee, 64);
	expect_status(send_one(q, "ID", VIRTIO_BLK_T_GET_ID, 0, AT, VIRTIO_BLK_ID_BYTES),
		      VIRTIO_BLK_S_OK, "ID");
	for (i = 0; i < VIRTIO_BLK_ID_BYTES && mem[AT + i]; i++)
		if (mem[AT + i] & 0x80)
			fail("byte %u of the ID is %#x", i, mem[AT + i]);
	for (; i < VIRTIO_BLK_ID_BYTES; i++)
		if (mem[AT + i])
			fail("byte %u of the ID is %#x, after its end", i, mem[AT + i]);
	if (mem[AT + i] != 0xee)
		fail("the ID has more than %u bytes", i);
}
