// SPDX-License-Identifier: GPL-2.0
/* Processes that the fuzzer starts, and what they are doing if they do not end. */

#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vdpadrv.h"

/* Start a process.  Returns false in it; it ends with this one. */
bool start_child(struct child *child)
{
	pid_t parent = getpid();

	fflush(stdout);
	*child = (struct child){ .pid = fork() };
	if (child->pid < 0)
		fail("fork: %s", strerror(errno));
	if (child->pid)
		return true;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
	return false;
}

/* Wait for up to @ms for a process to end.  Returns false if it has not. */
bool has_ended(struct child *child, unsigned int ms)
{
	uint64_t end = now_ms() + ms;

	while (!child->ended) {
		child->ended = waitpid(child->pid, &child->status, WNOHANG) == child->pid;
		if (child->ended || now_ms() >= end)
			break;
		usleep(500);
	}
	return child->ended;
}

static void print_file(pid_t pid, const char *task, const char *name)
{
	char path[512], text[4096];
	ssize_t len;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/task/%s/%s", pid, task, name);
	fd = open(path, O_RDONLY);
	if (fd < 0)
		return;
	len = read(fd, text, sizeof(text));
	if (len > 0)
		printf("%s:\n%.*s\n", path, (int)len, text);
	close(fd);
}

/* Print where the threads of a process are. */
void print_stacks(const struct child *child)
{
	struct dirent *entry;
	char path[64];
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/task", child->pid);
	dir = opendir(path);
	while (dir && (entry = readdir(dir))) {
		if (entry->d_name[0] == '.')
			continue;
		print_file(child->pid, entry->d_name, "wchan");
		print_file(child->pid, entry->d_name, "stack");
	}
	if (dir)
		closedir(dir);
}
