// SPDX-License-Identifier: GPL-2.0
/*
 * Drive a vDPA block device through /dev/vhost-vdpa-N, as a virtio driver in user space.
 * It tests drivers/vdpa/vdpa_blk with rings, chains and mappings that no virtio driver in
 * a kernel makes.
 *
 *	gcc -std=gnu11 -O2 -Wall -Wextra -static -o vdpadrv vdpadrv.c
 *	vdpadrv io /dev/vhost-vdpa-0 --packed --count 2000
 *
 * It overwrites the disk.  Each command prints "ok ..." and exits with 0, or prints
 * "FAIL: ..." and exits with 1.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/vhost.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Newer than Linux 6.1 */
#ifndef VHOST_VDPA_RESUME
#define VHOST_VDPA_RESUME	_IO(VHOST_VIRTIO, 0x7E)
#endif

#define F(bit)		(1ULL << (bit))
#define NEEDS_RESET	0x40
#define MAX_QUEUES	16
#define MAX_DEPTH	32
#define MAX_LIST	64	/* descriptors of a chain, and entries of a table */
#define MAX_BYTES	65536	/* data of a request */
#define HANG_MS		10000

/*
 * The shared memory.  Each queue has META bytes with its rings, status bytes and
 * indirect tables, a page of headers, and a data buffer for each slot.
 */
#define IOVA		0x100000ULL
#define MEM_BYTES	(16U << 20)
/* vhost_vdpa.max_iotlb_entries allows 2048 mappings, one for each contiguous run of pages. */
#define SCATTER_BYTES	(7U << 20)
#define HUGE_PAGE	(2U << 20)
#define META		0x10000U
#define DRIVER_AREA	0x1000U
#define DEVICE_AREA	0x2000U
#define STATUSES	0x3000U
#define TABLES		0x4000U
#define HEADERS		(MAX_QUEUES * META)
#define DATA		(HEADERS + MAX_QUEUES * 0x1000U)
#define BUFFER		(MAX_BYTES + 0x1000U)
#define PIECE		0x13b000U

#define PACKED_AVAIL	(1 << VRING_PACKED_DESC_F_AVAIL)
#define PACKED_USED	(1 << VRING_PACKED_DESC_F_USED)

#define load(p)		__atomic_load_n(p, __ATOMIC_ACQUIRE)
#define store(p, v)	__atomic_store_n(p, v, __ATOMIC_RELEASE)
#define mb()		__atomic_thread_fence(__ATOMIC_SEQ_CST)

struct seg {
	uint32_t at;		/* offset in the shared memory */
	uint32_t len;
};

struct slot {			/* a request in flight */
	bool busy;
	uint16_t descs;		/* ring entries that it takes */
	uint32_t type;
	uint32_t place;
	uint32_t len;
	uint64_t key;		/* of the data pattern */
	unsigned int nr_segs;
	struct seg segs[MAX_LIST];
};

struct queue {
	struct dev *dev;
	unsigned int index;
	uint8_t *meta;
	int kick, call;
	uint16_t per;		/* descriptors of a slot in a split ring */
	uint16_t avail, used;	/* split: free running; packed: in the ring */
	uint16_t added;		/* ring entries since the last kick */
	bool avail_wrap, used_wrap;
	unsigned int in_flight, descs;	/* requests, and their ring entries */
	uint64_t random;
	uint64_t done, errors;
	struct slot slots[MAX_DEPTH];
	uint64_t lin[MAX_BYTES / 8];
};

struct piece {			/* a mapping */
	uint32_t at, len;
	bool mapped;
};

struct dev {
	const char *path;
	int fd, config_call;
	bool packed, indirect, event_idx, scatter;
	bool tolerant;		/* requests may return VIRTIO_BLK_S_IOERR */
	bool stop;		/* ends I/O; another thread sets it */
	unsigned int nr_queues, depth, num, count, seconds;
	uint64_t seed, features;
	struct virtio_blk_config config;
	unsigned int nr_pieces;
	struct piece pieces[MEM_BYTES / 4096];
	struct queue queues[MAX_QUEUES];
};

static uint8_t *mem;
static uint32_t mem_bytes = MEM_BYTES;

static void __attribute__((noreturn, format(printf, 1, 2))) fail(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	printf("FAIL: ");
	vprintf(format, args);
	printf("\n");
	va_end(args);
	fflush(stdout);
	_exit(1);
}

/* xorshift64* */
static uint64_t rnd(uint64_t *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return (*state * 0x2545f4914f6cdd1dULL) >> 16;
}

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000ULL + t.tv_nsec / 1000000;
}

static void call_ioctl(struct dev *d, unsigned long request, void *arg, const char *name)
{
	if (ioctl(d->fd, request, arg) < 0)
		fail("%s: %s", name, strerror(errno));
}

#define IOCTL(d, request, arg)	call_ioctl(d, request, arg, #request)

static uint8_t get_status(struct dev *d)
{
	uint8_t status;

	IOCTL(d, VHOST_VDPA_GET_STATUS, &status);
	return status;
}

static void set_status(struct dev *d, uint8_t status)
{
	IOCTL(d, VHOST_VDPA_SET_STATUS, &status);
}

/* Memory */

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

static void map_piece(struct dev *d, struct piece *piece, bool map)
{
	if (piece->mapped != map)
		send_iotlb(d, map ? VHOST_IOTLB_UPDATE : VHOST_IOTLB_INVALIDATE, piece);
	piece->mapped = map;
}

static void map_all(struct dev *d, bool map)
{
	unsigned int i;

	send_iotlb(d, VHOST_IOTLB_BATCH_BEGIN, NULL);
	for (i = 0; i < d->nr_pieces; i++)
		map_piece(d, &d->pieces[i], map);
	send_iotlb(d, VHOST_IOTLB_BATCH_END, NULL);
}

/* Pages are allocated in the order of the pieces, so that few of them are contiguous. */
static void make_pieces(struct dev *d)
{
	uint64_t state = d->seed;
	unsigned int i, k;
	uint32_t at = 0, len;
	struct piece swap;

	mem = mmap(NULL, MEM_BYTES + HUGE_PAGE, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (mem == MAP_FAILED)
		fail("mmap: %s", strerror(errno));
	mem += -(uintptr_t)mem % HUGE_PAGE;
	/* Without huge pages in the kernel this fails, and memory has more extents. */
	madvise(mem, MEM_BYTES, d->scatter ? MADV_NOHUGEPAGE : MADV_HUGEPAGE);
	if (d->scatter)
		mem_bytes = SCATTER_BYTES;
	for (; at < mem_bytes; at += len) {
		len = at < HEADERS ? HEADERS / 4 : at < DATA ? DATA - at : PIECE;
		if (d->scatter)
			len = 4096;
		if (len > mem_bytes - at)
			len = mem_bytes - at;
		d->pieces[d->nr_pieces++] = (struct piece){ .at = at, .len = len };
	}
	for (i = d->nr_pieces - 1; i; i--) {
		k = rnd(&state) % (i + 1);
		swap = d->pieces[i];
		d->pieces[i] = d->pieces[k];
		d->pieces[k] = swap;
	}
	for (i = 0; i < d->nr_pieces; i++)
		memset(mem + d->pieces[i].at, 0, d->pieces[i].len);
}

/* Set-up */

static void open_dev(struct dev *d)
{
	struct {
		struct vhost_vdpa_config head;
		struct virtio_blk_config config;
	} buf = { .head.len = sizeof(buf.config) };
	uint64_t backend;
	unsigned int i;

	d->fd = open(d->path, O_RDWR | O_CLOEXEC);
	if (d->fd < 0)
		fail("open %s: %s", d->path, strerror(errno));
	IOCTL(d, VHOST_SET_OWNER, NULL);
	IOCTL(d, VHOST_GET_BACKEND_FEATURES, &backend);
	backend &= F(VHOST_BACKEND_F_IOTLB_MSG_V2) | F(VHOST_BACKEND_F_IOTLB_BATCH);
	IOCTL(d, VHOST_SET_BACKEND_FEATURES, &backend);
	IOCTL(d, VHOST_GET_FEATURES, &d->features);
	IOCTL(d, VHOST_VDPA_GET_CONFIG, &buf);
	d->config = buf.config;
	for (i = 0; i < d->nr_pieces; i++)
		d->pieces[i].mapped = false;
}

static void start_queue(struct dev *d, unsigned int i, unsigned int base, bool keep)
{
	struct queue *q = &d->queues[i];
	struct vhost_vring_state state = { .index = i, .num = d->num };
	struct vhost_vring_addr addr = { .index = i };
	struct vhost_vring_file file = { .index = i };
	unsigned int s;

	if (!keep) {
		memset(q->meta, 0, META);
		for (s = 0; s < MAX_DEPTH; s++)
			q->slots[s].busy = false;
		q->avail = 0;
		q->used = 0;
		q->added = 0;
		q->in_flight = 0;
		q->descs = 0;
		q->avail_wrap = true;
		q->used_wrap = true;
		base = d->packed ? 0x80008000 : 0;
	}
	q->per = d->num / d->depth;
	IOCTL(d, VHOST_SET_VRING_NUM, &state);
	addr.desc_user_addr = IOVA + i * META;
	addr.avail_user_addr = addr.desc_user_addr + DRIVER_AREA;
	addr.used_user_addr = addr.desc_user_addr + DEVICE_AREA;
	IOCTL(d, VHOST_SET_VRING_ADDR, &addr);
	state.num = base;
	IOCTL(d, VHOST_SET_VRING_BASE, &state);
	file.fd = q->kick;
	IOCTL(d, VHOST_SET_VRING_KICK, &file);
	file.fd = q->call;
	IOCTL(d, VHOST_SET_VRING_CALL, &file);
	state.num = 1;
	IOCTL(d, VHOST_VDPA_SET_VRING_ENABLE, &state);
}

static void start_dev(struct dev *d, const unsigned int *bases, bool share)
{
	uint64_t features = d->features;
	uint8_t status = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER;
	unsigned int i;

	set_status(d, 0);
	/* A reset can drop it. */
	IOCTL(d, VHOST_VDPA_SET_CONFIG_CALL, &d->config_call);
	set_status(d, status);
	if (d->packed && !(features & F(VIRTIO_F_RING_PACKED)))
		fail("the device does not offer packed rings");
	features &= ~(F(VIRTIO_F_RING_PACKED) | F(VIRTIO_RING_F_INDIRECT_DESC) |
		      F(VIRTIO_RING_F_EVENT_IDX));
	features |= d->features & ((uint64_t)d->packed << VIRTIO_F_RING_PACKED |
				   (uint64_t)d->indirect << VIRTIO_RING_F_INDIRECT_DESC |
				   (uint64_t)d->event_idx << VIRTIO_RING_F_EVENT_IDX);
	IOCTL(d, VHOST_SET_FEATURES, &features);
	set_status(d, status |= VIRTIO_CONFIG_S_FEATURES_OK);
	if (get_status(d) != status)
		fail("status %#x after FEATURES_OK", get_status(d));
	for (i = 0; i < d->nr_queues; i++)
		start_queue(d, i, bases ? bases[i] : 0, bases);
	if (share)
		map_all(d, true);
	set_status(d, status |= VIRTIO_CONFIG_S_DRIVER_OK);
	if (share && get_status(d) != status)
		fail("status %#x after DRIVER_OK", get_status(d));
}

/* The most that the device, its rings and the shared memory allow. */
static void limit_options(struct dev *d)
{
	unsigned int most, i;
	uint16_t num;

	open_dev(d);
	IOCTL(d, VHOST_VDPA_GET_VRING_NUM, &num);
	if (!d->num || d->num > 256)
		d->num = num < 256 ? num : 256;
	if (!d->nr_queues || d->nr_queues > d->config.num_queues)
		d->nr_queues = d->config.num_queues;
	if (d->nr_queues > MAX_QUEUES)
		d->nr_queues = MAX_QUEUES;
	most = (mem_bytes - DATA) / BUFFER / d->nr_queues;
	if (most > d->num / 3)
		most = d->num / 3;
	if (most > MAX_DEPTH)
		most = MAX_DEPTH;
	if (!d->depth || d->depth > most)
		d->depth = most;
	for (i = 0; i < MAX_QUEUES; i++) {
		d->queues[i].dev = d;
		d->queues[i].index = i;
		d->queues[i].meta = mem + i * META;
		d->queues[i].random = d->seed * 31 + i + 1;
		d->queues[i].kick = eventfd(0, EFD_NONBLOCK);
		d->queues[i].call = eventfd(0, EFD_NONBLOCK);
	}
}

/* Rings */

static struct vring_avail *avail_of(struct queue *q)
{
	return (void *)(q->meta + DRIVER_AREA);
}

static struct vring_used *used_of(struct queue *q)
{
	return (void *)(q->meta + DEVICE_AREA);
}

static uint16_t *used_event(struct queue *q)
{
	return &avail_of(q)->ring[q->dev->num];
}

static uint16_t *avail_event(struct queue *q)
{
	return (uint16_t *)&used_of(q)->ring[q->dev->num];
}

/* Copy a list of descriptors into an indirect table; returns the descriptor for it. */
static struct vring_desc fill_table(struct queue *q, unsigned int s,
				    const struct vring_desc *list, unsigned int nr)
{
	uint32_t at = TABLES + s * MAX_LIST * sizeof(struct vring_desc);
	struct vring_packed_desc *packed = (void *)(q->meta + at);
	struct vring_desc *split = (void *)(q->meta + at);
	unsigned int i;

	for (i = 0; i < nr; i++) {
		if (q->dev->packed) {
			packed[i].addr = list[i].addr;
			packed[i].len = list[i].len;
			packed[i].flags = list[i].flags;
			continue;
		}
		split[i] = list[i];
		split[i].next = i + 1;
		if (i + 1 < nr)
			split[i].flags |= VRING_DESC_F_NEXT;
	}
	return (struct vring_desc){ .addr = IOVA + q->index * META + at,
				    .len = nr * sizeof(struct vring_desc),
				    .flags = VRING_DESC_F_INDIRECT };
}

/* Make descriptors available as they are, for slot @s. */
static void put_raw(struct queue *q, unsigned int s, const struct vring_desc *list,
		    unsigned int nr, unsigned int head)
{
	struct vring_packed_desc *packed = (void *)q->meta, *first = packed + q->avail;
	struct vring_desc *split = (void *)q->meta;
	unsigned int i, num = q->dev->num;
	uint16_t flags, first_flags = 0;

	q->slots[s].busy = true;
	q->slots[s].descs = nr;
	q->in_flight++;
	q->descs += nr;
	q->added += q->dev->packed ? nr : 1;
	if (!q->dev->packed) {
		memcpy(split + s * q->per, list, nr * sizeof(*list));
		avail_of(q)->ring[q->avail++ & (num - 1)] = head;
		return;
	}
	for (i = 0; i < nr; i++) {
		flags = list[i].flags | (q->avail_wrap ? PACKED_AVAIL : PACKED_USED);
		packed[q->avail].addr = list[i].addr;
		packed[q->avail].len = list[i].len;
		packed[q->avail].id = s;
		if (i)
			packed[q->avail].flags = flags;
		else
			first_flags = flags;
		if (++q->avail == num) {
			q->avail = 0;
			q->avail_wrap = !q->avail_wrap;
		}
	}
	store(&first->flags, first_flags);
}

static void put_chain(struct queue *q, unsigned int s, struct vring_desc *list,
		      unsigned int nr)
{
	unsigned int i;

	if (q->dev->indirect && (nr > q->per || rnd(&q->random) % 4)) {
		list[0] = fill_table(q, s, list, nr);
		nr = 1;
	}
	for (i = 0; i + 1 < nr; i++) {
		list[i].flags |= VRING_DESC_F_NEXT;
		list[i].next = s * q->per + i + 1;
	}
	put_raw(q, s, list, nr, s * q->per);
}

static bool wants_kick(struct queue *q)
{
	struct vring_packed_desc_event *event = (void *)(q->meta + DEVICE_AREA);
	uint16_t old = q->avail - q->added, off, flags;

	q->added = 0;
	if (!q->dev->packed) {
		store(&avail_of(q)->idx, q->avail);
		/* Either the device sees the chains, or the driver sees that it must kick. */
		mb();
		if (q->dev->event_idx)
			return vring_need_event(load(avail_event(q)), q->avail, old);
		return !(load(&used_of(q)->flags) & VRING_USED_F_NO_NOTIFY);
	}
	/* As above. */
	mb();
	flags = load(&event->flags);
	if (flags != VRING_PACKED_EVENT_FLAG_DESC || !q->dev->event_idx)
		return flags != VRING_PACKED_EVENT_FLAG_DISABLE;
	off = load(&event->off_wrap);
	return vring_need_event((off & 0x7fff) - (off >> 15 == q->avail_wrap ? 0 : q->dev->num),
				q->avail, old);
}

static void kick(struct queue *q, bool always)
{
	uint64_t one = 1;

	if ((wants_kick(q) || always) && write(q->kick, &one, sizeof(one)) < 0)
		fail("kick: %s", strerror(errno));
}

static bool has_used(struct queue *q)
{
	struct vring_packed_desc *desc = (void *)q->meta;
	uint16_t flags;

	if (!q->dev->packed)
		return load(&used_of(q)->idx) != q->used;
	flags = load(&desc[q->used].flags);
	return !!(flags & PACKED_AVAIL) == q->used_wrap && !!(flags & PACKED_USED) == q->used_wrap;
}

/* Returns the slot of the next used entry, which must exist. */
static unsigned int take_used(struct queue *q, uint32_t *len)
{
	struct vring_packed_desc *desc = (struct vring_packed_desc *)q->meta + q->used;
	struct vring_used_elem *elem = &used_of(q)->ring[q->used & (q->dev->num - 1)];
	unsigned int id = q->dev->packed ? desc->id : elem->id, s = id;

	*len = q->dev->packed ? desc->len : elem->len;
	if (!q->dev->packed)
		s = id % q->per ? MAX_DEPTH : id / q->per;
	if (s >= q->dev->depth || !q->slots[s].busy)
		fail("queue %u: used entry %u has id %u, which is not in flight",
		     q->index, q->used, id);
	q->slots[s].busy = false;
	q->in_flight--;
	q->descs -= q->slots[s].descs;
	q->used += q->dev->packed ? q->slots[s].descs : 1;
	if (q->dev->packed && q->used >= q->dev->num) {
		q->used -= q->dev->num;
		q->used_wrap = !q->used_wrap;
	}
	return s;
}

/* Ask for an interrupt; with an event index, after some of what is in flight. */
static void arm_call(struct queue *q)
{
	struct vring_packed_desc_event *event = (void *)(q->meta + DRIVER_AREA);
	unsigned int later = rnd(&q->random) % (q->dev->packed ? q->descs : q->in_flight);
	bool wrap = q->used_wrap;

	if (!q->dev->packed) {
		store(&avail_of(q)->flags, 0);
		store(used_event(q), q->used + later);
	} else if (q->dev->event_idx) {
		later += q->used;
		if (later >= q->dev->num) {
			later -= q->dev->num;
			wrap = !wrap;
		}
		store(&event->off_wrap, later | wrap << 15);
		store(&event->flags, VRING_PACKED_EVENT_FLAG_DESC);
	} else {
		store(&event->flags, VRING_PACKED_EVENT_FLAG_ENABLE);
	}
	/* Either the driver sees a used entry, or the device sees that it must interrupt. */
	mb();
}

static void disarm_call(struct queue *q)
{
	struct vring_packed_desc_event *event = (void *)(q->meta + DRIVER_AREA);

	if (q->dev->packed)
		store(&event->flags, VRING_PACKED_EVENT_FLAG_DISABLE);
	else
		store(&avail_of(q)->flags, VRING_AVAIL_F_NO_INTERRUPT);
}

/* Wait for a used entry.  Returns false after @ms. */
static bool wait_used(struct queue *q, unsigned int ms)
{
	uint64_t end = now_ms() + ms, value, now;
	struct pollfd call = { .fd = q->call, .events = POLLIN };

	for (;;) {
		arm_call(q);
		if (has_used(q))
			break;
		now = now_ms();
		if (now >= end || poll(&call, 1, end - now) == 0)
			return false;
		if (read(q->call, &value, sizeof(value)) < 0 && errno != EAGAIN)
			fail("read of the call's eventfd: %s", strerror(errno));
	}
	disarm_call(q);
	return true;
}

static void must_wait(struct queue *q)
{
	if (wait_used(q, HANG_MS))
		return;
	fail("queue %u: %s within %u ms: %u in flight, avail %u, used %u, status %#x",
	     q->index, has_used(q) ? "used entries, but no interrupt" : "hang, no used entry",
	     HANG_MS, q->in_flight, q->avail, q->used, get_status(q->dev));
}

/* Requests */

static volatile uint8_t *status_of(struct queue *q, unsigned int s)
{
	return q->meta + STATUSES + s;
}

static uint32_t buffer_of(struct queue *q, unsigned int s)
{
	return DATA + (q->index * q->dev->depth + s) * BUFFER;
}

/* Fill in a header, and describe it. */
static struct vring_desc header(struct queue *q, unsigned int s, uint32_t type, uint64_t sector)
{
	uint32_t at = HEADERS + q->index * 0x1000 + s * sizeof(struct virtio_blk_outhdr);

	*(struct virtio_blk_outhdr *)(mem + at) =
		(struct virtio_blk_outhdr){ .type = type, .sector = sector };
	return (struct vring_desc){ .addr = IOVA + at, .len = sizeof(struct virtio_blk_outhdr) };
}

static struct vring_desc status_desc(struct queue *q, unsigned int s)
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

static uint64_t place_sectors(struct queue *q)
{
	return q->dev->config.capacity / q->dev->nr_queues / 128;
}

static void submit(struct queue *q, unsigned int s, uint32_t type, uint32_t place, uint64_t round)
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
		    4096 + slot->key % ((MAX_BYTES - 4096) / block + 1) * block;
	slot->nr_segs = 0;
	most = q->dev->indirect ? MAX_LIST - 2 : q->per - 2;
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
static bool check(struct queue *q, unsigned int s, uint32_t len, bool compare)
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
	if (failed || slot->type != VIRTIO_BLK_T_IN || !compare)
		return !failed;
	make_pattern(q, slot);
	for (i = 0; i < slot->nr_segs; expected += slot->segs[i++].len)
		if (memcmp(mem + slot->segs[i].at, expected, slot->segs[i].len))
			fail("queue %u: place %u: segment %u of %u, length %u, differs from what was written",
			     q->index, slot->place, i, slot->nr_segs, slot->segs[i].len);
	return true;
}

/* Write or read the first @count places; @good has those that are known to be written. */
static void run_phase(struct queue *q, uint32_t type, unsigned int count, uint64_t round,
		      bool *good)
{
	unsigned int sent = 0, s, batch;
	uint32_t len;

	while (sent < count || q->in_flight) {
		batch = 1 + rnd(&q->random) % q->dev->depth;
		for (s = 0; s < q->dev->depth && batch && sent < count; s++) {
			if (q->slots[s].busy)
				continue;
			batch--;
			if (rnd(&q->random) % 32 == 0)
				submit(q, s, rnd(&q->random) & 1 ? VIRTIO_BLK_T_FLUSH :
				       VIRTIO_BLK_T_GET_ID, 0, 0);
			else
				submit(q, s, type, sent++, round);
		}
		kick(q, false);
		must_wait(q);
		while (has_used(q)) {
			bool ok, io;

			s = take_used(q, &len);
			io = q->slots[s].type <= VIRTIO_BLK_T_OUT;
			ok = check(q, s, len, io && good[q->slots[s].place]);
			if (io && q->slots[s].type == VIRTIO_BLK_T_OUT)
				good[q->slots[s].place] = ok;
		}
	}
}

static void *io_thread(void *arg)
{
	struct queue *q = arg;
	struct dev *d = q->dev;
	unsigned int places = place_sectors(q), left = d->count, n;
	bool *good = calloc(places + 1, sizeof(*good));
	uint64_t round;

	if (!places || !good)
		fail("the disk of %llu sectors is too small", (unsigned long long)d->config.capacity);
	if (places > 256)
		places = 256;
	for (round = rnd(&q->random); left && !load(&d->stop); round++, left -= n) {
		n = left < places ? left : places;
		run_phase(q, VIRTIO_BLK_T_OUT, n, round, good);
		run_phase(q, VIRTIO_BLK_T_IN, n, round, good);
	}
	free(good);
	return NULL;
}

/* I/O on all queues; @meanwhile runs beside it and ends it. */
static void run_io(struct dev *d, void (*meanwhile)(struct dev *d))
{
	pthread_t threads[MAX_QUEUES];
	unsigned int i;

	d->stop = false;
	for (i = 0; i < d->nr_queues; i++)
		if (pthread_create(&threads[i], NULL, io_thread, &d->queues[i]))
			fail("pthread_create");
	if (meanwhile) {
		meanwhile(d);
		store(&d->stop, true);
	}
	for (i = 0; i < d->nr_queues; i++)
		pthread_join(threads[i], NULL);
}

static uint64_t total(struct dev *d, bool errors)
{
	uint64_t sum = 0;
	unsigned int i;

	for (i = 0; i < d->nr_queues; i++)
		sum += errors ? d->queues[i].errors : d->queues[i].done;
	return sum;
}

/* That the device works after something else. */
static void check_io(struct dev *d)
{
	unsigned int count = d->count;

	d->count = 64;
	start_dev(d, NULL, true);
	run_io(d, NULL);
	d->count = count;
}

/* Commands */

static void run_info(struct dev *d)
{
	struct virtio_blk_config *c = &d->config;

	printf("ok info: features %#llx capacity %llu blk_size %u seg_max %u num_queues %u wce %u ring %u\n",
	       (unsigned long long)d->features, (unsigned long long)c->capacity, c->blk_size,
	       c->seg_max, c->num_queues, c->wce, d->num);
}

static void run_io_command(struct dev *d)
{
	uint64_t begin = now_ms();

	start_dev(d, NULL, true);
	run_io(d, NULL);
	printf("ok io: %s%s%s%s, %u queues of %u, depth %u: %llu requests in %llu ms\n",
	       d->packed ? "packed" : "split", d->indirect ? ", indirect" : "",
	       d->event_idx ? ", event index" : "", d->scatter ? ", scattered" : "",
	       d->nr_queues, d->num, d->depth, (unsigned long long)total(d, false),
	       (unsigned long long)(now_ms() - begin));
}

static struct vring_desc part(uint32_t at, uint32_t len, bool write)
{
	return (struct vring_desc){ .addr = IOVA + at, .len = len,
				    .flags = write ? VRING_DESC_F_WRITE : 0 };
}

/* Send one chain on queue 0; it must return a status and a used length. */
static void expect(struct dev *d, const char *what, struct vring_desc *list, unsigned int nr,
		   uint8_t status, uint32_t used)
{
	struct queue *q = &d->queues[0];
	uint32_t len;

	put_chain(q, 0, list, nr);
	kick(q, false);
	if (!wait_used(q, HANG_MS))
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
	range->flags = 0;
	range->sector = d->config.capacity - 1;
	expect3(d, "range beyond the capacity", VIRTIO_BLK_T_WRITE_ZEROES, 0, at, 16, 1, 1);
	if (!(d->features & F(VIRTIO_BLK_F_SECURE_ERASE)))
		expect3(d, "secure erase, not offered", VIRTIO_BLK_T_SECURE_ERASE, 0, at, 16, 2, 1);
}

static void check_errors(struct dev *d)
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

static void run_errors(struct dev *d)
{
	unsigned int mode;

	for (mode = 0; mode < 4; mode++) {
		d->packed = mode & 1;
		d->indirect = mode & 2;
		check_errors(d);
	}
	printf("ok errors: %llu requests\n", (unsigned long long)total(d, false));
}

/* Wait for NEEDS_RESET, and for the interrupt that VIRTIO 1.3, 2.1.1 demands with it. */
static void await_needs_reset(struct dev *d, const char *when)
{
	struct pollfd p = { .fd = d->config_call, .events = POLLIN };
	uint64_t end = now_ms() + HANG_MS, value;

	while (!(get_status(d) & NEEDS_RESET)) {
		if (now_ms() > end)
			fail("%s: status %#x without NEEDS_RESET", when, get_status(d));
		usleep(1000);
	}
	if (poll(&p, 1, 1000) != 1)
		printf("note: %s: NEEDS_RESET without a configuration interrupt\n", when);
	else if (read(d->config_call, &value, sizeof(value)) < 0)
		fail("read of the configuration's eventfd: %s", strerror(errno));
}

static void run_unshared(struct dev *d)
{
	struct queue *q = &d->queues[0];

	start_dev(d, NULL, false);
	await_needs_reset(d, "DRIVER_OK without memory");
	submit(q, 0, VIRTIO_BLK_T_IN, 0, 0);
	kick(q, true);
	map_all(d, true);
	kick(q, true);
	usleep(100000);
	check_io(d);

	submit(q, 0, VIRTIO_BLK_T_IN, 0, 0);
	kick(q, true);
	map_all(d, false);
	await_needs_reset(d, "memory taken back");
	kick(q, true);
	map_all(d, true);
	usleep(100000);
	check_io(d);
	printf("ok unshared: %llu requests after resets\n", (unsigned long long)total(d, false));
}

/* Chains and rings.  The first ones must break the queue. */
enum { LOOP, NEXT_RANGE, TABLE_LENGTH, TABLE_NESTED, TABLE_LONG, TABLE_NEXT, TABLE_UNSHARED,
       AVAIL_JUMP, HEAD_RANGE, ORDER, NO_STATUS, STATUS_UNSHARED, STATUS_READONLY, ZERO_LENGTH,
       /* The device returns these with an error. */
       HEADER_UNSHARED, DATA_UNSHARED, DATA_STRADDLES,
       /* It may do either with these. */
       GARBAGE, SCRIBBLE, KINDS };

static const char * const kinds[KINDS] = {
	"loop", "next-range", "table-length", "table-nested", "table-long", "table-next",
	"table-unshared", "avail-jump", "head-range", "order", "no-status", "status-unshared",
	"status-readonly", "zero-length", "header-unshared", "data-unshared", "data-straddles",
	"garbage", "scribble" };

static struct vring_desc garbage(struct queue *q)
{
	uint64_t r = rnd(&q->random);
	struct vring_desc desc = { .addr = IOVA + rnd(&q->random) % (mem_bytes + 0x2000),
				   .len = r % 3 ? r % 5000 : r, .flags = (r >> 32) & 7,
				   .next = (r >> 35) % 8 };

	/* Most addresses are shared, and some are in the ring itself. */
	if (r % 16 == 0)
		desc.addr = rnd(&q->random) << 20 | (r & 0xfff);
	return desc;
}

/* Change random parts of the ring while the device uses it. */
static void scribble(struct queue *q)
{
	uint64_t end = now_ms() + 10, one = 1;
	uint32_t at;

	do {
		at = rnd(&q->random) % 4 * 0x1000;
		if (at == STATUSES)
			at = TABLES;
		at += rnd(&q->random) % (at == DEVICE_AREA || at == DRIVER_AREA ? 64 : 1024);
		if (rnd(&q->random) % 2 && at < DRIVER_AREA)
			((struct vring_desc *)q->meta)[at % 16] = garbage(q);
		else
			store(q->meta + at, (uint8_t)rnd(&q->random));
		if (write(q->kick, &one, sizeof(one)) < 0)
			fail("kick: %s", strerror(errno));
	} while (now_ms() < end);
}

static void put_broken(struct queue *q, unsigned int kind, unsigned int s)
{
	unsigned int nr = 3, head = s * q->per, i, num = q->dev->num;
	struct vring_desc list[256] = { header(q, s, rnd(&q->random) & 1, 0),
					part(buffer_of(q, s), 4096, true), status_desc(q, s) };

	if (*(uint32_t *)(mem + list[0].addr - IOVA))
		list[1].flags = 0;
	for (i = 0; i < 2; i++) {
		list[i].flags |= VRING_DESC_F_NEXT;
		list[i].next = head + i + 1;
	}
	switch (kind) {
	case LOOP:
		list[1].next = head + rnd(&q->random) % 2;
		if (q->dev->packed) {
			nr = num;
			for (i = 1; i < nr; i++)
				list[i] = list[1];
		}
		break;
	case NEXT_RANGE:
		list[1].next = num + rnd(&q->random) % (65536 - num);
		break;
	case TABLE_LENGTH:
	case TABLE_NESTED:
	case TABLE_LONG:
	case TABLE_NEXT:
	case TABLE_UNSHARED:
		if (kind == TABLE_NESTED)
			list[1].flags |= VRING_DESC_F_INDIRECT;
		list[0] = fill_table(q, s, list, 3);
		nr = 1;
		if (kind == TABLE_LENGTH)
			list[0].len = rnd(&q->random) & 1 ? 0 : 1 + rnd(&q->random) % 47;
		if (kind == TABLE_LENGTH && list[0].len % 16 == 0)
			list[0].len = 0;
		if (kind == TABLE_LONG)
			list[0].len = 16 << (9 + rnd(&q->random) % 12);
		if (kind == TABLE_UNSHARED)
			list[0].addr = IOVA + mem_bytes - (rnd(&q->random) & 1 ? 16 : -4096);
		if (kind == TABLE_NEXT) {
			list[0].flags |= VRING_DESC_F_NEXT;
			list[0].next = head + 1;
			nr = 3;
		}
		break;
	case HEAD_RANGE:
		head = num + rnd(&q->random) % (65536 - num);
		break;
	case ORDER:
		list[0].flags |= VRING_DESC_F_WRITE;
		list[1].flags &= ~VRING_DESC_F_WRITE;
		break;
	case NO_STATUS:
		list[1].flags = 0;
		nr = 2;
		break;
	case STATUS_UNSHARED:
		list[2].addr = rnd(&q->random) & 1 ? IOVA - 1 : IOVA + mem_bytes;
		break;
	case STATUS_READONLY:
		list[2].addr = IOVA + HEADERS + 0x1000;
		break;
	case ZERO_LENGTH:
		list[rnd(&q->random) % 3].len = 0;
		break;
	case HEADER_UNSHARED:
		list[0].addr = rnd(&q->random) & 1 ? IOVA - 8 : ~0ULL - 7;
		break;
	case DATA_UNSHARED:
		list[1].addr = rnd(&q->random) & 1 ? 0 : rnd(&q->random) << 24;
		break;
	case DATA_STRADDLES:
		list[1].addr = IOVA + mem_bytes - 1 - rnd(&q->random) % 4095;
		break;
	case GARBAGE:
	case SCRIBBLE:
		nr = 1 + rnd(&q->random) % 8;
		for (i = 0; i < nr; i++)
			list[i] = garbage(q);
		break;
	}
	put_raw(q, s, list, nr, head);
	if (kind == AVAIL_JUMP)
		q->avail += num + rnd(&q->random) % (65536 - 2 * num);
}

static void check_readonly(const char *when)
{
	uint32_t i;

	for (i = HEADERS + 0x1000; i < DATA; i++)
		if (mem[i] != 0x5a)
			fail("%s: the device wrote to offset %#x, which is read-only", when, i);
}

static void run_broken(struct dev *d)
{
	unsigned int counts[KINDS][3] = { }, i, kind, s, most, all = d->nr_queues;
	struct queue *q = &d->queues[0];
	uint64_t end;

	for (i = 0; i < d->count; i++) {
		d->packed = rnd(&q->random) & 1;
		d->event_idx = rnd(&q->random) & 1;
		kind = rnd(&q->random) % KINDS;
		/* The kinds that a packed ring cannot have are a loop there. */
		if (d->packed && (kind == NEXT_RANGE || kind == HEAD_RANGE || kind == AVAIL_JUMP))
			kind = LOOP;
		d->indirect = rnd(&q->random) % 4 ||
			      (kind >= TABLE_LENGTH && kind <= TABLE_UNSHARED);
		d->nr_queues = 1;
		start_dev(d, NULL, true);
		memset(mem + HEADERS + 0x1000, 0x5a, DATA - HEADERS - 0x1000);
		/* Valid requests come first, except that a loop takes all of a packed ring. */
		most = d->packed && kind == LOOP ? 0 : rnd(&q->random) % 4;
		for (s = 0; s < most; s++)
			submit(q, s, VIRTIO_BLK_T_IN, s, 0);
		put_broken(q, kind, s);
		kick(q, true);
		if (kind == SCRIBBLE)
			scribble(q);
		end = now_ms() + 200;
		for (s = 2; s == 2 && now_ms() < end; usleep(500)) {
			if (get_status(d) & NEEDS_RESET)
				s = 0;
			else if (kind >= GARBAGE ? has_used(q) : kind >= HEADER_UNSHARED &&
				 *status_of(q, most) != 0xff)
				s = 1;
		}
		counts[kind][s]++;
		if (kind >= HEADER_UNSHARED && kind < GARBAGE &&
		    (s != 1 || *status_of(q, most) != VIRTIO_BLK_S_IOERR))
			fail("%s, %s, seed %llu, round %u: status %u, expected 1", kinds[kind],
			     d->packed ? "packed" : "split", (unsigned long long)d->seed, i,
			     *status_of(q, most));
		if (s && kind < HEADER_UNSHARED)
			fail("%s, %s, seed %llu, round %u: no NEEDS_RESET within 200 ms, status %#x",
			     kinds[kind], d->packed ? "packed" : "split",
			     (unsigned long long)d->seed, i, get_status(d));
		set_status(d, 0);
		check_readonly(kinds[kind]);
	}
	for (kind = 0; kind < KINDS; kind++)
		printf("  %-16s needs-reset %u used %u neither %u\n", kinds[kind],
		       counts[kind][0], counts[kind][1], counts[kind][2]);
	d->nr_queues = all;
	check_io(d);
	printf("ok broken: %u rounds, seed %llu\n", d->count, (unsigned long long)d->seed);
}

static void change_mappings(struct dev *d)
{
	uint64_t end = now_ms() + d->seconds * 1000, state = d->seed;
	struct piece *piece;
	unsigned int i, batch;

	while (now_ms() < end) {
		batch = rnd(&state) & 1;
		if (batch)
			send_iotlb(d, VHOST_IOTLB_BATCH_BEGIN, NULL);
		for (i = 0; i < 1 + batch * 3; i++) {
			piece = &d->pieces[rnd(&state) % d->nr_pieces];
			/* Rings stay, and most of the data is shared most of the time. */
			if (piece->at >= HEADERS)
				map_piece(d, piece, rnd(&state) % 8);
		}
		if (batch)
			send_iotlb(d, VHOST_IOTLB_BATCH_END, NULL);
		usleep(rnd(&state) % 5000);
		if (rnd(&state) % 4 == 0)
			map_all(d, true);
	}
	map_all(d, true);
}

static void run_unmap(struct dev *d)
{
	start_dev(d, NULL, true);
	d->tolerant = true;
	d->count = UINT32_MAX;
	run_io(d, change_mappings);
	printf("ok unmap: %llu requests, %llu with errors\n", (unsigned long long)total(d, false),
	       (unsigned long long)total(d, true));
	d->tolerant = false;
	d->count = 64;
	run_io(d, NULL);
}

static void submit_all(struct dev *d)
{
	unsigned int i, s;

	start_dev(d, NULL, true);
	for (i = 0; i < d->nr_queues; i++) {
		for (s = 0; s < d->depth; s++)
			submit(&d->queues[i], s, s & 1, s, 0);
		kick(&d->queues[i], false);
	}
	usleep(rnd(&d->queues[0].random) % 2000);
}

/* Every second time a process exits instead. */
static void run_close(struct dev *d)
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

static void get_bases(struct dev *d, unsigned int *bases)
{
	struct vhost_vring_state state;
	unsigned int i, want;
	struct queue *q;

	for (i = 0; i < d->nr_queues; i++) {
		q = &d->queues[i];
		state.index = i;
		IOCTL(d, VHOST_GET_VRING_BASE, &state);
		want = q->avail;
		if (d->packed)
			want |= q->avail_wrap << 15 | q->used << 16 | (unsigned int)q->used_wrap << 31;
		if (state.num != want)
			fail("queue %u: VHOST_GET_VRING_BASE %#x, expected %#x", i, state.num, want);
		bases[i] = want;
	}
}

static void suspend_often(struct dev *d)
{
	unsigned int i;

	for (i = 0; i < 50; i++) {
		IOCTL(d, VHOST_VDPA_SUSPEND, NULL);
		usleep(i * 200);
		IOCTL(d, VHOST_VDPA_RESUME, NULL);
		usleep(20000);
	}
}

static void run_suspend(struct dev *d)
{
	struct queue *q = &d->queues[0];
	unsigned int bases[MAX_QUEUES], s;
	uint32_t len;

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
	run_io(d, suspend_often);
	printf("ok suspend: %llu requests\n", (unsigned long long)total(d, false));
}

static const struct {
	const char *name;
	void (*run)(struct dev *d);
	unsigned int count;
} commands[] = {
	{ "info", run_info, 0 },
	{ "io", run_io_command, 1000 },
	{ "errors", run_errors, 0 },
	{ "unshared", run_unshared, 0 },
	{ "broken", run_broken, 300 },
	{ "unmap", run_unmap, 0 },
	{ "close", run_close, 20 },
	{ "suspend", run_suspend, 200 },
};

static void parse_options(struct dev *d, int argc, char **argv)
{
	static const struct option options[] = {
		{ "packed", no_argument, NULL, 'p' }, { "indirect", no_argument, NULL, 'i' },
		{ "no-event-idx", no_argument, NULL, 'e' }, { "scatter", no_argument, NULL, 'x' },
		{ "queues", required_argument, NULL, 'q' }, { "depth", required_argument, NULL, 'd' },
		{ "num", required_argument, NULL, 'n' }, { "count", required_argument, NULL, 'c' },
		{ "seed", required_argument, NULL, 's' }, { "seconds", required_argument, NULL, 't' },
		{ },
	};
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 'p': d->packed = true; break;
		case 'i': d->indirect = true; break;
		case 'e': d->event_idx = false; break;
		case 'x': d->scatter = true; break;
		case 'q': d->nr_queues = strtoul(optarg, NULL, 0); break;
		case 'd': d->depth = strtoul(optarg, NULL, 0); break;
		case 'n': d->num = strtoul(optarg, NULL, 0); break;
		case 'c': d->count = strtoul(optarg, NULL, 0); break;
		case 's': d->seed = strtoull(optarg, NULL, 0); break;
		case 't': d->seconds = strtoul(optarg, NULL, 0); break;
		default: exit(2);
		}
	}
}

int main(int argc, char **argv)
{
	struct rlimit unlimited = { RLIM_INFINITY, RLIM_INFINITY };
	static struct dev d = { .seed = 1, .depth = 16, .seconds = 10, .event_idx = true };
	unsigned int i;

	setvbuf(stdout, NULL, _IOLBF, 0);
	for (i = 0; argc > 2 && i < sizeof(commands) / sizeof(commands[0]); i++) {
		if (strcmp(argv[1], commands[i].name))
			continue;
		d.path = argv[2];
		d.count = commands[i].count;
		parse_options(&d, argc - 2, argv + 2);
		/* vhost-vdpa counts the shared memory as locked. */
		setrlimit(RLIMIT_MEMLOCK, &unlimited);
		d.config_call = eventfd(0, EFD_NONBLOCK);
		make_pieces(&d);
		limit_options(&d);
		commands[i].run(&d);
		return 0;
	}
	fprintf(stderr, "usage: %s info|io|errors|unshared|broken|unmap|close|suspend /dev/vhost-vdpa-N [options]\n",
		argv[0]);
	return 2;
}
