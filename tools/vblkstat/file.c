// SPDX-License-Identifier: GPL-2.0
/* Read files of sysfs, procfs and debugfs, or copies of them under --root. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vblkstat.h"

/* Give up on a device that does not answer for so many ms. */
#define ANSWER_MS	2000

/* The directory of --root: the prefix of /sys and /proc. */
const char *root = "";

/* Print a message and exit with status FAILED. */
void fail(const char *format, ...)
{
	va_list args;

	fflush(stdout);
	fputs("vblkstat: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	exit(FAILED);
}

static bool format_path(char *path, size_t size, const char *format,
			va_list args)
{
	int length = snprintf(path, size, "%s", root);
	int more;

	if (length < 0 || (size_t)length >= size)
		return false;
	more = vsnprintf(path + length, size - length, format, args);
	return more >= 0 && (size_t)more < size - length;
}

/* Prefix a path with the root.  Return false if it becomes too long. */
bool root_path(char *path, size_t size, const char *format, ...)
{
	va_list args;
	bool fits;

	va_start(args, format);
	fits = format_path(path, size, format, args);
	va_end(args);
	return fits;
}

/* Open a regular file.  Others, such as a FIFO, could block the reader. */
static int open_regular(const char *path)
{
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
	struct stat status;

	if (fd < 0)
		return -1;
	if (!fstat(fd, &status) && S_ISREG(status.st_mode))
		return fd;
	close(fd);
	errno = ENOENT;
	return -1;
}

/* Open a path that root_path() made.  Return NULL and set errno on failure. */
FILE *open_file(const char *path)
{
	int fd = open_regular(path);
	FILE *file;

	if (fd < 0)
		return NULL;
	file = fdopen(fd, "r");
	if (!file)
		close(fd);
	return file;
}

/* Read what fits and terminate it.  Callers ignore data after a NUL byte. */
static bool read_fd(int fd, char *text, size_t size)
{
	size_t length = 0;
	ssize_t more;

	do {
		more = read(fd, text + length, size - 1 - length);
		if (more > 0)
			length += more;
	} while (length < size - 1 && (more > 0 || (more < 0 && errno == EINTR)));
	text[length] = '\0';
	return more >= 0;
}

static bool read_path(const char *path, char *text, size_t size)
{
	int fd = open_regular(path);
	int error;
	bool done;

	text[0] = '\0';
	if (fd < 0)
		return false;
	done = read_fd(fd, text, size);
	error = errno;
	close(fd);
	errno = error;
	if (!done)
		text[0] = '\0';
	return done;
}

static void trim(char *text)
{
	size_t length = strlen(text);

	while (length && strchr(" \t\n", text[length - 1]))
		text[--length] = '\0';
}

/*
 * Read a file, truncate it to @size and strip white space at its end.  On failure
 * return false, set errno and leave @text empty.
 */
bool read_text(char *text, size_t size, const char *format, ...)
{
	char path[PATH_MAX];
	va_list args;
	bool fits;

	text[0] = '\0';
	va_start(args, format);
	fits = format_path(path, sizeof(path), format, args);
	va_end(args);
	if (!fits) {
		errno = ENAMETOOLONG;
		return false;
	}
	if (!read_path(path, text, size))
		return false;
	trim(text);
	return true;
}

/* Parse a decimal number.  Return UNKNOWN if there is none or it is too large. */
uint64_t parse_number(const char *text, char **end)
{
	unsigned long long number;

	while (*text == ' ' || *text == '\t')
		text++;
	*end = (char *)text;
	if (*text < '0' || *text > '9')
		return UNKNOWN;
	errno = 0;
	number = strtoull(text, end, 10);
	return errno ? UNKNOWN : number;
}

/* Read a file with one decimal number.  Return UNKNOWN if it has anything else. */
uint64_t read_number(const char *format, ...)
{
	char path[PATH_MAX], text[64], *end;
	uint64_t number;
	va_list args;
	bool fits;

	va_start(args, format);
	fits = format_path(path, sizeof(path), format, args);
	va_end(args);
	if (!fits || !read_path(path, text, sizeof(text)))
		return UNKNOWN;
	trim(text);
	number = parse_number(text, &end);
	return *end ? UNKNOWN : number;
}

/* Read the last component of a symbolic link's target. */
bool read_link(char *name, size_t size, const char *format, ...)
{
	char path[PATH_MAX], target[PATH_MAX], *slash;
	ssize_t length = -1;
	va_list args;

	name[0] = '\0';
	va_start(args, format);
	if (format_path(path, sizeof(path), format, args))
		length = readlink(path, target, sizeof(target) - 1);
	va_end(args);
	if (length <= 0)
		return false;
	target[length] = '\0';
	slash = strrchr(target, '/');
	copy_text(name, size, slash ? slash + 1 : target);
	return name[0];
}

/*
 * Read a file for which the driver sends a request to the device.  The device may
 * never answer, so a child reads the file.  On timeout, kill the child, but do not
 * wait for it, because it may stay blocked.
 */
bool ask_device(char *text, size_t size, const char *disk, const char *file)
{
	struct pollfd answer = { .events = POLLIN };
	int ends[2], status;
	pid_t child;
	bool done;

	text[0] = '\0';
	if (pipe2(ends, O_CLOEXEC))
		return false;
	child = fork();
	if (child < 0) {
		close(ends[0]);
		close(ends[1]);
		return false;
	}
	if (!child) {
		/* A reader of our output must not wait for a blocked child. */
		for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
			if (fd != ends[1])
				close(fd);
		done = read_text(text, size, "/sys/block/%s/%s", disk, file) &&
		       write(ends[1], text, strlen(text)) >= 0;
		_exit(done ? 0 : 1);
	}
	close(ends[1]);
	answer.fd = ends[0];
	done = poll(&answer, 1, ANSWER_MS) == 1 && read_fd(ends[0], text, size);
	close(ends[0]);
	if (!done) {
		text[0] = '\0';
		kill(child, SIGKILL);
		waitpid(child, NULL, WNOHANG);
		return false;
	}
	return waitpid(child, &status, 0) == child && !status;
}

/* Copy what fits and replace all but printable ASCII by '?'. */
void copy_text(char *to, size_t size, const char *from)
{
	size_t i;

	for (i = 0; i < size - 1 && from[i]; i++)
		to[i] = from[i] >= ' ' && from[i] <= '~' ? from[i] : '?';
	to[i] = '\0';
}

/* Make room for one more item in an array of @count items. */
void *grow(void *array, unsigned int count, size_t size)
{
	void *larger;

	/* The size doubles: the array is full when count is 0 or a power of two. */
	if (count & (count - 1))
		return array;
	larger = realloc(array, (count ? 2 * (size_t)count : 1) * size);
	if (!larger)
		fail("out of memory");
	return larger;
}
