// SPDX-License-Identifier: GPL-2.0
/*
 * Count the pages of processes that have ended, and that something still holds: they are
 * anonymous, and no process maps them.  The guest has no swap.
 */

#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/kernel-page-flags.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include "vdpadrv.h"

#define CHUNK	4096		/* pages to read at once */

/* All pages of a folio are held if one is. */
static uint64_t folio_pages, folio_maps, folio_flags, held;

static void end_folio(void)
{
	/*
	 * KPF_ANON is a bit of page->mapping.  In a slab that is part of the slab's list or
	 * count of slabs, so some slabs have the bit, now these, now others.
	 */
	if ((folio_flags & (F(KPF_ANON) | F(KPF_SLAB))) == F(KPF_ANON) && !folio_maps)
		held += folio_pages;
	folio_pages = 0;
	folio_maps = 0;
	folio_flags = 0;
}

static void add_page(uint64_t flags, uint64_t maps)
{
	if (!(flags & F(KPF_COMPOUND_TAIL)))
		end_folio();
	folio_pages++;
	folio_maps += maps;
	folio_flags |= flags;
}

static int open_or_fail(const char *path, int flags)
{
	int fd = open(path, flags);

	if (fd < 0)
		fail("open %s: %s; the kernel needs CONFIG_PROC_PAGE_MONITOR", path,
		     strerror(errno));
	return fd;
}

/* Pages that wait to be freed, or to be put on a list, are not held. */
static void drain(void)
{
	int fd = open_or_fail("/proc/sys/vm/drop_caches", O_WRONLY);

	if (write(fd, "1", 1) != 1)
		fail("write to /proc/sys/vm/drop_caches: %s", strerror(errno));
	close(fd);
}

static uint64_t count_held(void)
{
	int flags = open_or_fail("/proc/kpageflags", O_RDONLY);
	int maps = open_or_fail("/proc/kpagecount", O_RDONLY);
	static uint64_t flag[CHUNK], map[CHUNK];
	ssize_t len, i;

	held = 0;
	while ((len = read(flags, flag, sizeof(flag))) > 0) {
		if (read(maps, map, len) != len)
			fail("read of /proc/kpagecount: %s", strerror(errno));
		for (i = 0; i < len / 8; i++)
			add_page(flag[i], map[i]);
	}
	end_folio();
	close(flags);
	close(maps);
	return held;
}

/* Have a pipe hold @nr pages, which this process does not map any more. */
static void hold(unsigned int nr)
{
	size_t bytes = (size_t)nr * sysconf(_SC_PAGESIZE);
	void *pages = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			   -1, 0);
	struct iovec vec = { .iov_base = pages, .iov_len = bytes };
	int pipes[2];

	if (pages == MAP_FAILED || pipe(pipes))
		fail("mmap or pipe: %s", strerror(errno));
	/* Of a large folio all pages would count. */
	madvise(pages, bytes, MADV_NOHUGEPAGE);
	memset(pages, 1, bytes);
	if (vmsplice(pipes[1], &vec, 1, SPLICE_F_NONBLOCK) != (ssize_t)bytes)
		fail("vmsplice of %u pages: %s; a pipe holds 16", nr, strerror(errno));
	munmap(pages, bytes);
}

/* --count N holds N pages meanwhile, which shows that they would be found. */
void run_pages(struct dev *d)
{
	if (d->count)
		hold(d->count);
	drain();
	printf("count pages held: %llu\n", (unsigned long long)count_held());
	printf("ok pages\n");
}
