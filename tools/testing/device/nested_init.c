// SPDX-License-Identifier: GPL-2.0
/*
 * Process 1 of a Linux guest inside a guest: it reads, writes and compares its disk.
 *
 * The kernel's command line names two areas of the disk, each by its first sector and
 * number of sectors:
 *
 *	given=FIRST:SECTORS	the host has written it; print the CRC-32 of its content
 *	own=FIRST:SECTORS	write it, read it again, and compare
 *
 * A dword of the area `own` has the value of its number on the disk times FACTOR, which
 * a host can compute as well.  JOBS processes work on it at the same time, on all CPUs in
 * turn, so that each virtqueue has several requests.  Another CPU reads a piece than has
 * written it, and so another virtqueue.
 *
 * The last line is "ok", or says what failed.  Then the guest restarts.
 */

#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

/* The kernel prints to the first port, and could cut a line in two. */
#define OUTPUT	"/dev/ttyS1"
#define DISK	"/dev/vda"
#define QUEUES	"/sys/block/vda/mq"
#define FACTOR	0x9e3779b1U
#define SECTOR	512
#define PIECE	(64 << 10)
#define JOBS	4

struct area {
	off_t first, end;	/* in bytes */
};

static int disk;
static long cpus;
static unsigned char data[PIECE] __attribute__((aligned(4096)));

static void restart(void)
{
	fflush(stdout);
	tcdrain(STDOUT_FILENO);
	reboot(RB_AUTOBOOT);
	/* The kernel panics if process 1 exits. */
	for (;;)
		pause();
}

/*
 * Called by jobs, too: only process 1 restarts the guest.  An errno of 0 means that the
 * data is wrong.
 */
static void die(const char *what, off_t place)
{
	printf("%s at byte %lld: %s\n", what, (long long)place,
	       errno ? strerror(errno) : "wrong length or content");
	if (getpid() == 1)
		restart();
	fflush(stdout);
	_exit(1);
}

static struct area area(const char *name)
{
	const char *value = getenv(name);
	long long first, sectors;

	if (!value || sscanf(value, "%lld:%lld", &first, &sectors) != 2)
		die(name, -1);
	return (struct area){ first * SECTOR, (first + sectors) * SECTOR };
}

static void set_up(void)
{
	mkdir("/dev", 0755);
	mkdir("/sys", 0755);
	if (mount("devtmpfs", "/dev", "devtmpfs", 0, NULL) && errno != EBUSY)
		die("mount /dev", -1);
	if (mount("sysfs", "/sys", "sysfs", 0, NULL))
		die("mount /sys", -1);
	if (!freopen(OUTPUT, "w", stdout))
		die("open " OUTPUT, -1);
	cpus = sysconf(_SC_NPROCESSORS_ONLN);
	disk = open(DISK, O_RDWR | O_DIRECT | O_CLOEXEC);
	if (disk < 0)
		die("open " DISK, -1);
}

static int count_queues(void)
{
	DIR *dir = opendir(QUEUES);
	struct dirent *entry;
	int queues = 0;

	while (dir && (entry = readdir(dir)))
		queues += *entry->d_name != '.';
	if (dir)
		closedir(dir);
	return queues;
}

/* A request uses the virtqueue of the CPU that submits it. */
static void run_on(long cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu % cpus, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		die("sched_setaffinity", -1);
}

static void transfer(bool write, off_t place)
{
	ssize_t done;

	errno = 0;
	done = write ? pwrite(disk, data, PIECE, place) :
		pread(disk, data, PIECE, place);
	if (done != PIECE)
		die(write ? "write" : "read", place);
}

static uint32_t crc32_add(uint32_t crc)
{
	for (int i = 0; i < PIECE; i++) {
		crc ^= data[i];
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
	}
	return crc;
}

static void read_given(void)
{
	struct area given = area("given");
	uint32_t crc = ~0U;
	long cpu = 0;

	for (off_t place = given.first; place < given.end; place += PIECE) {
		run_on(cpu++);
		transfer(false, place);
		crc = crc32_add(crc);
	}
	printf("given %08x\n", ~crc);
}

static void write_piece(off_t place)
{
	uint32_t *dword = (uint32_t *)data;

	for (size_t i = 0; i < PIECE / sizeof(*dword); i++)
		dword[i] = (place / sizeof(*dword) + i) * FACTOR;
	transfer(true, place);
}

static void compare_piece(off_t place)
{
	uint32_t *dword = (uint32_t *)data;

	memset(data, 0, PIECE);
	transfer(false, place);
	for (size_t i = 0; i < PIECE / sizeof(*dword); i++) {
		if (dword[i] != (uint32_t)((place / sizeof(*dword) + i) * FACTOR))
			die("compare", place + i * sizeof(*dword));
	}
}

/* Each job does every JOBS-th piece. */
static void run_jobs(struct area own, void (*work)(off_t place), long shift)
{
	int status;
	bool failed = false;

	fflush(stdout);
	for (int job = 0; job < JOBS; job++) {
		pid_t pid = fork();

		if (pid < 0)
			die("fork", -1);
		if (pid)
			continue;
		run_on(job + shift);
		for (off_t place = own.first + job * PIECE; place < own.end;
		     place += JOBS * PIECE)
			work(place);
		_exit(0);
	}
	while (wait(&status) > 0)
		failed |= status != 0;
	if (failed) {
		printf("a job failed\n");
		restart();
	}
}

int main(void)
{
	struct area own;

	set_up();
	printf("cpus %ld queues %d\n", cpus, count_queues());
	read_given();
	own = area("own");
	run_jobs(own, write_piece, 0);
	if (fsync(disk))
		die("fsync", -1);
	run_jobs(own, compare_piece, 1);
	printf("ok\n");
	restart();
}
