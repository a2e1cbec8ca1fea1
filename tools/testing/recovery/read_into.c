// SPDX-License-Identifier: GPL-2.0
/*
 * Read a file into the memory of another one, at OFFSET bytes: the kernel, in the middle of
 * read(), waits until it has read that page of the other file.
 */

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096

int main(int argc, char **argv)
{
	int from, into;
	void *memory;

	if (argc != 4) {
		fprintf(stderr, "usage: read_into FROM INTO OFFSET\n");
		return 2;
	}
	from = open(argv[1], O_RDONLY);
	into = open(argv[2], O_RDWR);
	if (from < 0 || into < 0) {
		perror(from < 0 ? argv[1] : argv[2]);
		return 1;
	}
	memory = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, into,
		      atoll(argv[3]));
	if (memory == MAP_FAILED) {
		perror("mmap");
		return 1;
	}
	if (read(from, memory, PAGE) < 0) {
		perror("read");
		return 1;
	}
	return 0;
}
