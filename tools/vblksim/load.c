// SPDX-License-Identifier: GPL-2.0
/*
 * Programs that use a disk in all ways, and ignore errors.
 */

#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/blkzoned.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "fuzz.h"

#define SECTOR_SIZE	512u
#define MAX_BATCH	32
#define BUFFER_BYTES	65536u
#define COUNT(a)	(sizeof(a) / sizeof((a)[0]))

/**
 * struct user - a program that uses a disk
 * @disk: its name, such as "vda"
 * @fd: open for it
 * @until: when to end, in milliseconds
 * @bytes: the disk's size when it was opened
 * @seed: of all random choices
 * @buffer: BUFFER_BYTES for data
 */
struct user {
	const char *disk;
	int fd;
	uint64_t until;
	uint64_t bytes;
	unsigned int seed;
	uint8_t *buffer;
};

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000ull + ts.tv_nsec / 1000000;
}

static bool is_over(const struct user *user)
{
	return now_ms() >= user->until;
}

static uint64_t pick(struct user *user, uint64_t limit)
{
	uint64_t number = (uint64_t)rand_r(&user->seed) << 16;

	return (number ^ rand_r(&user->seed)) % limit;
}

/* Return an offset near the start, with enough data behind it. */
static uint64_t somewhere(struct user *user, uint64_t bytes)
{
	uint64_t most = user->bytes < (16 << 20) ? user->bytes : 16 << 20;

	return most > bytes ? pick(user, (most - bytes) / 4096 + 1) * 4096 : 0;
}

/* Use batches of reads and writes, so that they are in the driver at once. */
static void use_in_batches(struct user *user)
{
	struct iocb iocbs[MAX_BATCH], *list[MAX_BATCH];
	struct io_event events[MAX_BATCH];
	aio_context_t context = 0;

	if (syscall(SYS_io_setup, MAX_BATCH, &context))
		return;
	while (!is_over(user)) {
		long nr = 1 + pick(user, MAX_BATCH), sent;

		for (long i = 0; i < nr; i++) {
			uint64_t bytes = 4096ull << (pick(user, 8) ? 0 :
						     pick(user, 5));

			iocbs[i] = (struct iocb) {
				.aio_fildes = user->fd,
				.aio_lio_opcode = pick(user, 3) ?
					IOCB_CMD_PREAD : IOCB_CMD_PWRITE,
				.aio_buf = (uintptr_t)user->buffer,
				.aio_nbytes = bytes,
				.aio_offset = somewhere(user, bytes),
			};
			list[i] = &iocbs[i];
		}
		sent = syscall(SYS_io_submit, context, nr, list);
		if (sent <= 0 ||
		    syscall(SYS_io_getevents, context, sent, sent, events,
			    NULL) < 0)
			break;
		/* On a dead disk all requests fail at once. */
		if ((int64_t)events[0].res < 0)
			usleep(1000);
	}
	syscall(SYS_io_destroy, context);
}

static void read_file(struct user *user, const char *name)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "/sys/block/%s/%s", user->disk, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	if (read(fd, user->buffer, 4096) < 0)
		usleep(1000);
	close(fd);
}

static void ask_for_zones(struct user *user)
{
	struct blk_zone_report *report = (void *)user->buffer;

	memset(report, 0, sizeof(*report));
	report->sector = somewhere(user, 0) / SECTOR_SIZE;
	report->nr_zones = 1 + pick(user, 64);
	ioctl(user->fd, BLKREPORTZONE, report);
}

static void manage_zone(struct user *user)
{
	static const unsigned long commands[] = {
		BLKRESETZONE, BLKOPENZONE, BLKCLOSEZONE, BLKFINISHZONE,
	};
	uint32_t sectors = 0;
	struct blk_zone_range range;

	if (ioctl(user->fd, BLKGETZONESZ, &sectors) || !sectors)
		return;
	range.sector = somewhere(user, 0) / SECTOR_SIZE / sectors * sectors;
	range.nr_sectors = sectors;
	ioctl(user->fd, commands[pick(user, COUNT(commands))], &range);
}

static void use_range(struct user *user, unsigned long command)
{
	uint64_t range[2] = { 0, 4096 << pick(user, 8) };

	range[0] = somewhere(user, range[1]);
	ioctl(user->fd, command, range);
}

/* Use one random operation at a time. */
static void use_in_turn(struct user *user)
{
	static const char *const files[] = {
		"serial", "lifetime/pre_eol_info", "lifetime/est_typ_a",
		"state", "recovery/resets", "cache_type",
	};

	while (!is_over(user))
		switch (pick(user, 10)) {
		case 0:
			if (fdatasync(user->fd))
				usleep(1000);
			break;
		case 1:
			use_range(user, BLKDISCARD);
			break;
		case 2:
			use_range(user, BLKZEROOUT);
			break;
		case 3:
			use_range(user, BLKSECDISCARD);
			break;
		case 4:
			ask_for_zones(user);
			break;
		case 5:
			manage_zone(user);
			break;
		default:
			read_file(user, files[pick(user, COUNT(files))]);
		}
}

/* Use the page cache, whose pages outlive a failed request. */
static void use_cached(struct user *user)
{
	while (!is_over(user)) {
		uint64_t at = somewhere(user, BUFFER_BYTES);
		ssize_t done;

		if (pick(user, 4))
			done = pread(user->fd, user->buffer, BUFFER_BYTES, at);
		else
			done = pwrite(user->fd, user->buffer, 4096, at);
		if (done <= 0)
			usleep(1000);
		posix_fadvise(user->fd, 0, 0, POSIX_FADV_DONTNEED);
	}
}

void load_disk(const char *disk, unsigned int how, uint64_t seed, uint64_t ms)
{
	static void (*const ways[LOADS])(struct user *user) = {
		use_in_batches, use_in_turn, use_cached,
	};
	int direct = ways[how] == use_cached ? 0 : O_DIRECT;
	struct user user = {
		.disk = disk,
		.until = now_ms() + ms,
		.seed = seed * LOADS + how,
	};
	char path[64];

	user.buffer = mmap(NULL, BUFFER_BYTES, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	snprintf(path, sizeof(path), "/dev/%s", disk);
	user.fd = open(path, O_RDWR | O_CLOEXEC | direct);
	/* The disk may be read-only. */
	if (user.fd < 0)
		user.fd = open(path, O_RDONLY | O_CLOEXEC | direct);
	if (user.fd < 0 || user.buffer == MAP_FAILED)
		return;
	ioctl(user.fd, BLKGETSIZE64, &user.bytes);
	ways[how](&user);
}
