// SPDX-License-Identifier: GPL-2.0
/* Read files of sysfs, procfs and debugfs, or copies of them under --root. */

#define _GNU_SOURCE
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "record.h"

/* Give up on a device that does not answer for so many ms. */
#define ANSWER_MS	2000

#define SYSFS_MAGIC	0x62656572

/* The directory of --root: the prefix of /sys and /proc. */
const char *root = "";

static bool plugin;

/* From now on, fail as a monitoring plugin does: its caller reads standard output. */
void fail_as_plugin(void)
{
	plugin = true;
}

/* Print a message and exit with status FAILED, or CHECK_UNKNOWN of a plugin. */
void fail(const char *format, ...)
{
	FILE *out = plugin ? stdout : stderr;
	va_list args;

	fflush(stdout);
	fputs(plugin ? "VIRTIO_BLK UNKNOWN - " : "vblkstat: ", out);
	va_start(args, format);
	vfprintf(out, format, args);
	va_end(args);
	fputc('\n', out);
	exit(plugin ? CHECK_UNKNOWN : FAILED);
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

/* Return whether a path exists.  A copy may have links to files that it lacks. */
bool path_exists(const char *path)
{
	char whole[PATH_MAX];
	struct stat status;

	if (!root_path(whole, sizeof(whole), "%s", path) || lstat(whole, &status))
		return false;
	if (S_ISREG(status.st_mode))
		record_file(whole, "");
	else
		record_link(whole);
	return true;
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
	record_file(path, NULL);
	file = fdopen(fd, "r");
	if (!file)
		close(fd);
	return file;
}

/* Read what fits.  Return how many bytes that is, -1 on failure. */
static ssize_t read_fd(int fd, void *data, size_t size)
{
	size_t length = 0;
	ssize_t more;

	do {
		more = read(fd, (char *)data + length, size - length);
		if (more > 0)
			length += more;
	} while (length < size && (more > 0 || (more < 0 && errno == EINTR)));
	return more < 0 ? -1 : (ssize_t)length;
}

/* Read and terminate the text of a file.  Callers ignore data after a NUL byte. */
static bool read_path(const char *path, char *text, size_t size)
{
	int fd = open_regular(path);
	ssize_t length;
	int error;

	text[0] = '\0';
	if (fd < 0)
		return false;
	length = read_fd(fd, text, size - 1);
	error = errno;
	close(fd);
	text[length < 0 ? 0 : length] = '\0';
	if (length >= 0)
		record_file(path, text);
	errno = error;
	return length >= 0;
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

/* Read a file like read_text(), and replace what is not printable. */
void read_word(char *to, size_t size, const char *format, ...)
{
	char path[PATH_MAX], text[256];
	va_list args;

	to[0] = '\0';
	va_start(args, format);
	if (format_path(path, sizeof(path), format, args) &&
	    read_path(path, text, sizeof(text))) {
		trim(text);
		copy_text(to, size, text);
	}
	va_end(args);
}

/* Find the name of the directory that a path's directory is really in. */
bool parent_name(char *name, size_t size, const char *format, ...)
{
	char path[PATH_MAX], target[PATH_MAX], *slash = NULL;
	va_list args;

	name[0] = '\0';
	va_start(args, format);
	if (format_path(path, sizeof(path), format, args) &&
	    realpath(path, target)) {
		slash = strrchr(target, '/');
		record_link(path);
	}
	va_end(args);
	if (!slash || slash == target)
		return false;
	*slash = '\0';
	copy_text(name, size, strrchr(target, '/') + 1);
	return name[0];
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

/* Parse a hexadecimal number.  Return UNKNOWN if there is anything else. */
uint64_t parse_hex(const char *text)
{
	unsigned long long number;
	char *end;

	if (!isxdigit((unsigned char)text[0]))
		return UNKNOWN;
	errno = 0;
	number = strtoull(text, &end, 16);
	return errno || *end ? UNKNOWN : number;
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
	record_link(path);
	target[length] = '\0';
	slash = strrchr(target, '/');
	copy_text(name, size, slash ? slash + 1 : target);
	return name[0];
}

/* Open a directory.  Return NULL and set errno on failure. */
DIR *open_directory(const char *path)
{
	char whole[PATH_MAX];

	DIR *directory = NULL;

	errno = ENAMETOOLONG;
	if (root_path(whole, sizeof(whole), "%s", path))
		directory = opendir(whole);
	if (directory)
		record_directory(whole);
	return directory;
}

/* Return the next name in a directory.  At its end, close it and return NULL. */
const char *next_entry(DIR *directory)
{
	struct dirent *entry;

	if (!directory)
		return NULL;
	while ((entry = readdir(directory)))
		if (entry->d_name[0] != '.')
			return entry->d_name;
	closedir(directory);
	return NULL;
}

/* Return whether files in debugfs can be read, and if not, why. */
enum debugfs debugfs_state(void)
{
	DIR *directory = open_directory("/sys/kernel/debug");

	if (!directory)
		return errno == EACCES ? DEBUGFS_REFUSED : DEBUGFS_MISSING;
	if (!next_entry(directory))
		return DEBUGFS_EMPTY;
	closedir(directory);
	return DEBUGFS_THERE;
}

/* Return whether the files are of the running kernel, not a copy. */
bool sysfs_is_live(void)
{
	struct statfs status;
	char path[PATH_MAX];

	return root_path(path, sizeof(path), "/sys") && !statfs(path, &status) &&
	       status.f_type == SYSFS_MAGIC;
}

/* The child of ask_child().  A reader of our output must not wait for it. */
static noreturn void answer(ssize_t (*function)(const char *what, void *data,
						size_t size),
			    const char *what, void *data, size_t size, int out)
{
	ssize_t length;

	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
		if (fd != out)
			close(fd);
	length = function(what, data, size);
	_exit(length < 0 || write(out, data, length) != length);
}

/*
 * Call a function that may never return, in a child.  After @ms, kill the child, but do
 * not wait for it, because it may stay blocked.
 * @function: puts its answer into @data; returns how many bytes it has, or -1
 *
 * Return what the function returns, -1 if it does not return.
 */
ssize_t ask_child(ssize_t (*function)(const char *what, void *data, size_t size),
		  const char *what, void *data, size_t size, int ms)
{
	struct pollfd end = { .events = POLLIN };
	ssize_t length = -1;
	int ends[2], status;
	pid_t child;

	if (pipe2(ends, O_CLOEXEC))
		return -1;
	child = fork();
	if (!child)
		answer(function, what, data, size, ends[1]);
	close(ends[1]);
	end.fd = ends[0];
	if (child > 0 && poll(&end, 1, ms) == 1)
		length = read_fd(ends[0], data, size);
	close(ends[0]);
	if (child > 0 && length < 0) {
		kill(child, SIGKILL);
		waitpid(child, NULL, WNOHANG);
	} else if (child > 0 && (waitpid(child, &status, 0) != child || status)) {
		return -1;
	}
	return length;
}

static ssize_t read_answer(const char *path, void *text, size_t size)
{
	return read_text(text, size, "%s", path) ? (ssize_t)strlen(text) : -1;
}

/* Read a file for which the driver sends a request to the device. */
bool ask_device(char *text, size_t size, const char *disk, const char *file)
{
	char path[PATH_MAX], whole[PATH_MAX];
	ssize_t length = -1;

	if (snprintf(path, sizeof(path), "/sys/block/%s/%s", disk, file) <
	    (int)sizeof(path))
		length = ask_child(read_answer, path, text, size - 1, ANSWER_MS);
	text[length < 0 ? 0 : length] = '\0';
	/* The child has recorded it for itself. */
	if (length >= 0 && root_path(whole, sizeof(whole), "%s", path))
		record_file(whole, text);
	return length >= 0;
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
