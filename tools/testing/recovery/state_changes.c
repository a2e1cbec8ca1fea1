// SPDX-License-Identifier: GPL-2.0
/*
 * Print a file of sysfs, and again whenever poll() says that it has changed.  Ends after
 * COUNT lines.
 */

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	struct pollfd file = { .events = POLLPRI };
	char text[64];
	ssize_t length;
	int count;

	if (argc != 3) {
		fprintf(stderr, "usage: state_changes FILE COUNT\n");
		return 2;
	}
	file.fd = open(argv[1], O_RDONLY);
	if (file.fd < 0) {
		perror(argv[1]);
		return 1;
	}
	for (count = atoi(argv[2]); count; count--) {
		/* sysfs reports a change only after the file was read. */
		length = pread(file.fd, text, sizeof(text), 0);
		if (length < 0 || write(STDOUT_FILENO, text, length) != length ||
		    (count > 1 && poll(&file, 1, -1) < 0)) {
			perror("state_changes");
			return 1;
		}
	}
	return 0;
}
