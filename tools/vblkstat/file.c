// SPDX-License-Identifier: GPL-2.0
/* Files of sysfs, procfs and debugfs, or copies of them under another root. */

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

/* How long a device may take to answer, in ms. */
#define ANSWER_MS	2000

/* What stands in front of /sys and /proc. */
const char *root = "";

/* End with a message: the command line asks for what cannot be done. */
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

/* Put the root in front of a path; false if that is too long. */
bool root_path(char *path, size_t size, const char *format, ...)
{
	va_list args;
	bool fits;

	va_start(args, format);
	fits = format_path(path, size, format, args);
	va_end(args);
	return fits;
}

/* Open a file, but nothing that would keep its reader waiting. */
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

/* Open a file whose name has its root in front; NULL with errno set. */
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

/* Read what fits, and end it like a string; what is after a NUL is lost. */
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
 * Read a file, without white space at its end.  What is too long is cut off.
 * False, errno and an empty text if it cannot be read.
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

/* Return a decimal number, UNKNOWN if there is none or it is too large. */
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

/* Read a file that is one decimal number, UNKNOWN if it is not. */
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

/* Find the last part of where a symbolic link leads to. */
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
 * Read a file for which the driver asks the device, which may never answer.
 * Then the one who waits for it is a child that is left behind.
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
		/* Whoever reads our output is not to wait for this one. */
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

/* Copy what fits; what a terminal would not take for text becomes a '?'. */
void copy_text(char *to, size_t size, const char *from)
{
	size_t i;

	for (i = 0; from[i] && i < size - 1; i++)
		to[i] = from[i] >= ' ' && from[i] <= '~' ? from[i] : '?';
	to[i] = '\0';
}

/* Make room for one more item of an array that has so many. */
void *grow(void *array, unsigned int count, size_t size)
{
	void *larger;

	/* It is full whenever count is a power of two. */
	if (count & (count - 1))
		return array;
	larger = realloc(array, (count ? 2 * (size_t)count : 1) * size);
	if (!larger)
		fail("out of memory");
	return larger;
}
