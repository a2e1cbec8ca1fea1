// SPDX-License-Identifier: GPL-2.0
/* Well-formed requests, and the check of their data. */

#include <string.h>

#include "vdpadrv.h"

volatile uint8_t *status_of(struct queue *q, unsigned int s)
{
	return q->meta + STATUSES + s;
}

uint32_t buffer_of(const struct queue *q, unsigned int s)
{
	return DATA + (q->index * q->dev->depth + s) * BUFFER;
}

struct vring_desc part(uint32_t at, uint32_t len, bool write)
{
	return (struct vring_desc){ .addr = IOVA + at, .len = len,
				    .flags = write ? VRING_DESC_F_WRITE : 0 };
}

/* Fill in a header, and describe it. */
struct vring_desc header(struct queue *q, unsigned int s, uint32_t type, uint64_t sector)
{
	uint32_t at = HEADERS + q->index * 0x1000 + s * sizeof(struct virtio_blk_outhdr);

	*(struct virtio_blk_outhdr *)(mem + at) =
		(struct virtio_blk_outhdr){ .type = type, .sector = sector };
	return (struct vring_desc){ .addr = IOVA + at, .len = sizeof(struct virtio_blk_outhdr) };
}

struct vring_desc status_desc(struct queue *q, unsigned int s)
{
	*status_of(q, s) = 0xff;
	return (struct vring_desc){ .addr = IOVA + q->index * META + STATUSES + s, .len = 1,
				    .flags = VRING_DESC_F_WRITE };
}

/* Put the data into up to @most segments, in an order that differs from their addresses. */
static void make_segs(struct queue *q, unsigned int s, unsigned int most)
{
	struct slot *slot = &q->slots[s];
	unsigned int unit = rnd(&q->random) % 8 ? 512 : 1, n, i, k, turn, span;
	uint32_t left = slot->len, at = buffer_of(q, s);
	bool back = rnd(&q->random) & 1;

	n = 1 + rnd(&q->random) % most;
	if (n > left / unit)
		n = left / unit;
	at += rnd(&q->random) % (BUFFER - MAX_BYTES) / unit * unit;
	for (i = 0; i < n; i++) {
		span = left / unit - (n - 1 - i);
		if (span > 2 * (left / unit) / (n - i))
			span = 2 * (left / unit) / (n - i);
		slot->segs[i].len = i + 1 == n ? left : unit * (1 + rnd(&q->random) % span);
		left -= slot->segs[i].len;
	}
	turn = rnd(&q->random) % n;
	for (k = 0; k < n; k++) {
		i = (turn + (back ? n - 1 - k : k)) % n;
		slot->segs[i].at = at;
		at += slot->segs[i].len;
	}
	slot->nr_segs = n;
}

static void make_pattern(struct queue *q, const struct slot *slot)
{
	unsigned int i;

	for (i = 0; i < slot->len / 8; i++)
		q->lin[i] = slot->key + i * 0x9e3779b97f4a7c15ULL;
}

uint64_t place_sectors(const struct queue *q)
{
	return q->dev->config.capacity / q->dev->nr_queues / 128;
}

void submit(struct queue *q, unsigned int s, uint32_t type, uint32_t place, uint64_t round)
{
	struct slot *slot = &q->slots[s];
	struct vring_desc list[MAX_LIST];
	uint64_t sector = (q->index * place_sectors(q) + place) * 128, key;
	unsigned int block = q->dev->config.blk_size, n = 0, i, most;
	uint8_t *from = (uint8_t *)q->lin;

	key = (q->dev->seed + round) * 1000003 + sector;
	slot->key = rnd(&key);
	slot->type = type;
	slot->place = place;
	slot->len = type == VIRTIO_BLK_T_GET_ID ? VIRTIO_BLK_ID_BYTES :
		    type == VIRTIO_BLK_T_FLUSH ? 0 :
		    4096 + slot->key % ((q->dev->most_bytes - 4096) / block + 1) * block;
	slot->nr_segs = 0;
	slot->kind = NULL;
	most = MAX_LIST - 2;
	if (!q->dev->indirect && most > q->per - 2U)
		most = q->per - 2;
	if (most > q->dev->config.seg_max)
		most = q->dev->config.seg_max;
	if (slot->len == VIRTIO_BLK_ID_BYTES)
		slot->segs[slot->nr_segs++] = (struct seg){ buffer_of(q, s), slot->len };
	else if (slot->len)
		make_segs(q, s, most);
	if (type == VIRTIO_BLK_T_OUT)
		make_pattern(q, slot);
	list[n++] = header(q, s, type, slot->len >= 4096 ? sector : 0);
	for (i = 0; i < slot->nr_segs; i++, n++) {
		list[n].addr = IOVA + slot->segs[i].at;
		list[n].len = slot->segs[i].len;
		list[n].flags = type == VIRTIO_BLK_T_OUT ? 0 : VRING_DESC_F_WRITE;
		if (type == VIRTIO_BLK_T_OUT)
			memcpy(mem + slot->segs[i].at, from, slot->segs[i].len);
		else
			memset(mem + slot->segs[i].at, 0xee, slot->segs[i].len);
		from += slot->segs[i].len;
	}
	list[n++] = status_desc(q, s);
	put_chain(q, s, list, n);
}

/* Returns false if the request failed, and is allowed to. */
bool check(struct queue *q, unsigned int s, uint32_t len, bool compare)
{
	struct slot *slot = &q->slots[s];
	uint32_t want = 1 + (slot->type == VIRTIO_BLK_T_OUT ? 0 : slot->len), i;
	uint8_t *expected = (uint8_t *)q->lin, status = *status_of(q, s);
	bool failed = q->dev->tolerant && status == VIRTIO_BLK_S_IOERR;

	q->done++;
	q->errors += failed;
	/* Of a read that failed, the device has written the status byte only. */
	if (failed ? len > 1 : status || len != want)
		fail("queue %u: type %u of %u bytes in %u segments: status %u, used length %u, expected %u",
		     q->index, slot->type, slot->len, slot->nr_segs, status, len, want);
	count(&counts->requests);
	if (failed || slot->type != VIRTIO_BLK_T_IN || !compare)
		return !failed;
	make_pattern(q, slot);
	for (i = 0; i < slot->nr_segs; expected += slot->segs[i++].len)
		if (memcmp(mem + slot->segs[i].at, expected, slot->segs[i].len))
			fail("queue %u: place %u: segment %u of %u, length %u, differs from what was written",
			     q->index, slot->place, i, slot->nr_segs, slot->segs[i].len);
	count(&counts->verified);
	return true;
}
