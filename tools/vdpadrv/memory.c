// SPDX-License-Identifier: GPL-2.0
/* The memory that the device may use, in pieces, each of which is a mapping. */

#define _GNU_SOURCE
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vdpadrv.h"

/* vhost_vdpa.max_iotlb_entries allows 2048 mappings, one for each contiguous run of pages. */
#define SCATTER_BYTES	(7U << 20)
#define HUGE_PAGE	(2U << 20)
#define PIECE		0x13b000U
/* The victim's pieces are small, so that some are mapped while others are not. */
#define VICTIM_PIECE	0x10000U

uint8_t *mem;
uint32_t mem_bytes;

static void send_iotlb(struct dev *d, uint8_t type, const struct piece *piece)
{
	struct vhost_msg_v2 msg = { .type = VHOST_IOTLB_MSG_V2, .iotlb.type = type };

	if (piece) {
		msg.iotlb.iova = IOVA + piece->at;
		msg.iotlb.size = piece->len;
		msg.iotlb.uaddr = (uintptr_t)mem + piece->at;
		/* The device only reads headers. */
		msg.iotlb.perm = piece->at >= HEADERS && piece->at < DATA ?
				 VHOST_ACCESS_RO : VHOST_ACCESS_RW;
	}
	if (write(d->fd, &msg, sizeof(msg)) != sizeof(msg))
		fail("IOTLB message %u for offset %#x: %s; do mappings exceed %s?", type,
		     piece ? piece->at : 0, strerror(errno), "vhost_vdpa.max_iotlb_entries");
}

/* Between begin and end the device does not see changes; at the end it sees all. */
void batch_mappings(struct dev *d, bool begin)
{
	send_iotlb(d, begin ? VHOST_IOTLB_BATCH_BEGIN : VHOST_IOTLB_BATCH_END, NULL);
}

void map_piece(struct dev *d, struct piece *piece, bool map)
{
	if (piece->mapped != map)
		send_iotlb(d, map ? VHOST_IOTLB_UPDATE : VHOST_IOTLB_INVALIDATE, piece);
	piece->mapped = map;
}

void map_all(struct dev *d, bool map)
{
	unsigned int i;

	batch_mappings(d, true);
	for (i = 0; i < d->nr_pieces; i++)
		map_piece(d, &d->pieces[i], map);
	batch_mappings(d, false);
}

static void shuffle_pieces(struct dev *d)
{
	uint64_t state = d->seed;
	struct piece swap;
	unsigned int i, k;

	for (i = d->nr_pieces - 1; i; i--) {
		k = rnd(&state) % (i + 1);
		swap = d->pieces[i];
		d->pieces[i] = d->pieces[k];
		d->pieces[k] = swap;
	}
}

/*
 * Allocate @bytes of memory, 0 for as much as is usual; the last @victim_bytes of it are
 * the victim.  Pages are allocated in the order of the pieces, so that few of them are
 * contiguous.
 */
void make_pieces(struct dev *d, uint32_t bytes, uint32_t victim_bytes)
{
	uint32_t at = 0, len, end;
	unsigned int i;

	mem_bytes = bytes ? bytes : d->scatter ? SCATTER_BYTES : MEM_BYTES;
	d->victim = mem_bytes - victim_bytes;
	mem = mmap(NULL, MEM_BYTES + HUGE_PAGE, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (mem == MAP_FAILED)
		fail("mmap: %s", strerror(errno));
	mem += -(uintptr_t)mem % HUGE_PAGE;
	/* Without huge pages in the kernel this fails, and memory has more extents. */
	madvise(mem, MEM_BYTES, d->scatter ? MADV_NOHUGEPAGE : MADV_HUGEPAGE);
	for (; at < mem_bytes; at += len) {
		len = at < HEADERS ? HEADERS / 4 : at < DATA ? DATA - at :
		      at < d->victim ? PIECE : VICTIM_PIECE;
		if (d->scatter)
			len = 4096;
		end = at < d->victim ? d->victim : mem_bytes;
		if (len > end - at)
			len = end - at;
		d->pieces[d->nr_pieces++] = (struct piece){ .at = at, .len = len };
	}
	shuffle_pieces(d);
	for (i = 0; i < d->nr_pieces; i++)
		memset(mem + d->pieces[i].at, 0, d->pieces[i].len);
}
