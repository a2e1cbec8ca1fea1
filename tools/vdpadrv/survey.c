// SPDX-License-Identifier: GPL-2.0
/*
 * A request for each block of a range: which of them fail, and whether the others keep
 * their data.  The output names each run of blocks that have failed.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vdpadrv.h"

/* Blocks of the range, from d->sector on. */
struct survey {
	uint32_t type;
	uint8_t *status;
};

static uint32_t place_of(const struct queue *q, unsigned int s)
{
	return buffer_of(q, s) + q->dev->offset;
}

static uint64_t *data_of(const struct queue *q, unsigned int s)
{
	return (void *)(mem + place_of(q, s));
}

static uint64_t word_of(const struct dev *d, uint64_t sector, unsigned int i)
{
	return (d->seed * 1000003 + sector) * 0x9e3779b97f4a7c15ULL + i;
}

static void put_block(struct queue *q, unsigned int s, const struct survey *survey,
		      unsigned int block)
{
	struct dev *d = q->dev;
	uint32_t bytes = d->config.blk_size;
	uint64_t sector = d->sector + (uint64_t)block * (bytes / 512);
	bool write = survey->type == VIRTIO_BLK_T_OUT;
	struct vring_desc list[] = { header(q, s, survey->type, sector),
				     part(place_of(q, s), bytes, !write),
				     status_desc(q, s) };
	unsigned int i;

	q->slots[s].place = block;
	for (i = 0; i < bytes / 8; i++)
		data_of(q, s)[i] = write ? word_of(d, sector, i) : ~0ULL;
	put_chain(q, s, list, LENGTH(list));
}

static void judge_block(struct queue *q, unsigned int s, uint32_t len,
			const struct survey *survey)
{
	struct dev *d = q->dev;
	unsigned int block = q->slots[s].place, i;
	uint64_t sector = d->sector + (uint64_t)block * (d->config.blk_size / 512);
	bool read = survey->type == VIRTIO_BLK_T_IN;
	uint8_t status = *status_of(q, s);

	if (status == VIRTIO_BLK_S_OK ? len != 1 + (read ? d->config.blk_size : 0) :
					status != VIRTIO_BLK_S_IOERR || len > 1)
		fail("sector %llu: status %u, used length %u", (unsigned long long)sector, status,
		     len);
	survey->status[block] = status;
	for (i = 0; read && !status && i < d->config.blk_size / 8; i++)
		if (data_of(q, s)[i] != word_of(d, sector, i))
			fail("sector %llu: byte %u differs from what was written with seed %llu",
			     (unsigned long long)sector, i * 8, (unsigned long long)d->seed);
}

static void survey_blocks(struct queue *q, const struct survey *survey)
{
	struct dev *d = q->dev;
	unsigned int sent = 0, s;
	uint32_t len;

	while (sent < d->count || q->in_flight) {
		for (s = 0; s < d->depth && sent < d->count; s++)
			if (!q->slots[s].busy)
				put_block(q, s, survey, sent++);
		kick(q, false);
		must_wait(q);
		while (has_used(q)) {
			s = take_used(q, &len);
			judge_block(q, s, len, survey);
		}
	}
}

static void print_failed(const struct dev *d, const struct survey *survey, const char *what)
{
	unsigned int per = d->config.blk_size / 512, i, first;

	for (i = 0; i < d->count; i++) {
		if (!survey->status[i])
			continue;
		for (first = i; i + 1 < d->count && survey->status[i + 1];)
			i++;
		printf("%s failed: %llu+%u\n", what,
		       (unsigned long long)(d->sector + first * per), (i + 1 - first) * per);
	}
}

/* Write all blocks unless --no-write, then read them. */
void run_survey(struct dev *d)
{
	const struct {
		const char *name;
		uint32_t type;
	} passes[] = { { "write", VIRTIO_BLK_T_OUT }, { "read", VIRTIO_BLK_T_IN } };
	struct survey survey = { .status = calloc(d->count + 1, 1) };
	unsigned int i;

	if (!survey.status)
		fail("calloc: %s", strerror(errno));
	if (d->sector + d->count * (d->config.blk_size / 512) > d->config.capacity)
		fail("the disk has %llu sectors only", (unsigned long long)d->config.capacity);
	start_dev(d, NULL, true);
	if (d->write_through)
		set_cache_mode(d, 0);
	for (i = d->no_write; i < LENGTH(passes); i++) {
		survey.type = passes[i].type;
		survey_blocks(&d->queues[0], &survey);
		print_failed(d, &survey, passes[i].name);
	}
	printf("ok survey: %u blocks from sector %llu\n", d->count,
	       (unsigned long long)d->sector);
	free(survey.status);
}
