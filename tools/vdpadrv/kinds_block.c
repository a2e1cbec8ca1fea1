// SPDX-License-Identifier: GPL-2.0
/*
 * Requests that VIRTIO's block chapter does not allow, in chains that are well formed.
 * The device must return an error, and execute nothing.
 */

#include <string.h>

#include "vdpadrv.h"

static struct virtio_blk_outhdr *header_of(const struct chain *c)
{
	return (void *)(mem + c->list[0].addr - IOVA);
}

/* The header area behind the headers in use; the device may only read it. */
uint32_t readonly_at(const struct dev *d)
{
	return HEADERS + d->nr_queues * 0x1000;
}

/* Make a chain of the list, in the descriptors of slot @s. */
void link_chain(struct queue *q, unsigned int s, struct chain *c)
{
	unsigned int i;

	for (i = 0; i < c->nr; i++) {
		c->list[i].flags &= ~VRING_DESC_F_NEXT;
		if (i + 1 < c->nr)
			c->list[i].flags |= VRING_DESC_F_NEXT;
		c->list[i].next = s * q->per + i + 1;
	}
}

void make_short_header(struct queue *q, unsigned int s, struct chain *c)
{
	/* The data of a write would be the rest of the header. */
	header_of(c)->type = VIRTIO_BLK_T_IN;
	c->list[0].len = 1 + rnd(&q->random) % (sizeof(struct virtio_blk_outhdr) - 1);
	c->list[1].flags = VRING_DESC_F_WRITE;
	link_chain(q, s, c);
}

void make_odd_length(struct queue *q, unsigned int s, struct chain *c)
{
	(void)s;
	c->list[1].len = 1 + rnd(&q->random) % 8191;
	if (c->list[1].len % 512 == 0)
		c->list[1].len++;
}

/* More than 4 GiB, or nearly: sums of 32 bits wrap. */
void make_long_data(struct queue *q, unsigned int s, struct chain *c)
{
	if (rnd(&q->random) & 1) {
		c->list[1].len = 0U - 512 * (1 + rnd(&q->random) % 64);
		return;
	}
	c->list[3] = c->list[2];
	c->list[2] = c->list[1];
	c->list[1].len = 0x80000000;
	c->list[2].len = 0x80000000 + 512 * (rnd(&q->random) % 64);
	c->nr = 4;
	link_chain(q, s, c);
}

void make_far_sector(struct queue *q, unsigned int s, struct chain *c)
{
	uint64_t end = q->dev->config.capacity;
	const uint64_t sectors[] = { end, end - 1, end + rnd(&q->random) % 65536, 1ULL << 63,
				     ~0ULL, ~0ULL - 7, (1ULL << 55) - 8 };

	(void)s;
	header_of(c)->sector = sectors[rnd(&q->random) % LENGTH(sectors)];
}

void make_no_data(struct queue *q, unsigned int s, struct chain *c)
{
	c->list[1] = c->list[2];
	c->nr = 2;
	link_chain(q, s, c);
}

void make_unknown_type(struct queue *q, unsigned int s, struct chain *c)
{
	uint32_t type;

	(void)s;
	do {
		type = rnd(&q->random) & 1 ? rnd(&q->random) % 32 : rnd(&q->random);
	} while (type <= VIRTIO_BLK_T_OUT || type == VIRTIO_BLK_T_FLUSH ||
		 type == VIRTIO_BLK_T_GET_ID || type == VIRTIO_BLK_T_DISCARD ||
		 type == VIRTIO_BLK_T_WRITE_ZEROES || type == VIRTIO_BLK_T_SECURE_ERASE);
	header_of(c)->type = type;
	c->status = VIRTIO_BLK_S_UNSUPP;
}

/* Discards and the like */

static const struct {
	uint32_t type;
	unsigned int feature;
} erasures[] = {
	{ VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_F_DISCARD },
	{ VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_F_WRITE_ZEROES },
	{ VIRTIO_BLK_T_SECURE_ERASE, VIRTIO_BLK_F_SECURE_ERASE },
};

/* Make a request of @nr ranges, each of which is allowed. */
static struct virtio_blk_discard_write_zeroes *make_ranges(struct queue *q, unsigned int s,
							    struct chain *c, unsigned int nr)
{
	unsigned int i = rnd(&q->random) % LENGTH(erasures);
	struct virtio_blk_discard_write_zeroes *ranges = (void *)(mem + buffer_of(q, s));
	uint64_t sector = header_of(c)->sector;

	header_of(c)->type = erasures[i].type;
	header_of(c)->sector = 0;
	if (!(q->dev->accepted & F(erasures[i].feature)))
		c->status = VIRTIO_BLK_S_UNSUPP;
	c->list[1] = part(buffer_of(q, s), nr * sizeof(*ranges), false);
	link_chain(q, s, c);
	for (i = 0; i < nr; i++)
		ranges[i] = (struct virtio_blk_discard_write_zeroes){
			.sector = sector, .num_sectors = 8 };
	return ranges;
}

void make_ranges_odd(struct queue *q, unsigned int s, struct chain *c)
{
	make_ranges(q, s, c, 8);
	c->list[1].len = 1 + rnd(&q->random) % 127;
	if (c->list[1].len % 16 == 0)
		c->list[1].len--;
}

void make_ranges_many(struct queue *q, unsigned int s, struct chain *c)
{
	/* The device reports a limit of 64. */
	make_ranges(q, s, c, 65 + rnd(&q->random) % 100);
}

void make_ranges_far(struct queue *q, unsigned int s, struct chain *c)
{
	unsigned int nr = 1 + rnd(&q->random) % 4;
	struct virtio_blk_discard_write_zeroes *range = make_ranges(q, s, c, nr);
	uint64_t end = q->dev->config.capacity;

	range += rnd(&q->random) % nr;
	switch (rnd(&q->random) % 4) {
	case 0:
		range->sector = end;
		break;
	case 1:
		range->sector = end - 8;
		range->num_sectors = 16;
		break;
	case 2:
		range->sector = ~0ULL - 7;
		range->num_sectors = 16;
		break;
	default:
		range->num_sectors = ~0U - 7;
	}
}

void make_ranges_flags(struct queue *q, unsigned int s, struct chain *c)
{
	unsigned int nr = 1 + rnd(&q->random) % 4;
	struct virtio_blk_discard_write_zeroes *range = make_ranges(q, s, c, nr);

	range += rnd(&q->random) % nr;
	range->flags = 2U << rnd(&q->random) % 31;
	if (header_of(c)->type != VIRTIO_BLK_T_WRITE_ZEROES && rnd(&q->random) & 1)
		range->flags = VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;
	c->status = VIRTIO_BLK_S_UNSUPP;
}

void make_id_unshared(struct queue *q, unsigned int s, struct chain *c)
{
	header_of(c)->type = VIRTIO_BLK_T_GET_ID;
	c->list[1] = part(rnd(&q->random) & 1 ? mem_bytes - 8 : readonly_at(q->dev), 20, true);
	link_chain(q, s, c);
}
