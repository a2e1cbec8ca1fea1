// SPDX-License-Identifier: GPL-2.0
/*
 * Load a kernel, and start it without a reset of the machine, as `kexec -s` does.
 *
 *	kexec load KERNEL INITRAMFS CMDLINE	for "start"
 *	kexec panic KERNEL INITRAMFS CMDLINE	for the time when this kernel panics
 *	kexec start
 *
 * "start" neither syncs nor stops any process, so that disks are in use until the
 * kernel shuts its devices down.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/kexec.h>
#include <linux/reboot.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int fail(const char *what)
{
	fprintf(stderr, "kexec: %s: %s\n", what, strerror(errno));
	return 1;
}

static int load(char **argv, unsigned long flags)
{
	int kernel = open(argv[0], O_RDONLY | O_CLOEXEC);
	int initramfs = open(argv[1], O_RDONLY | O_CLOEXEC);

	if (kernel < 0)
		return fail(argv[0]);
	if (initramfs < 0)
		return fail(argv[1]);
	if (syscall(SYS_kexec_file_load, kernel, initramfs, strlen(argv[2]) + 1,
		    argv[2], flags))
		return fail("kexec_file_load");
	return 0;
}

int main(int argc, char **argv)
{
	bool loads = argc == 5;

	if (loads && !strcmp(argv[1], "load"))
		return load(argv + 2, 0);
	if (loads && !strcmp(argv[1], "panic"))
		return load(argv + 2, KEXEC_FILE_ON_CRASH);
	if (argc != 2 || strcmp(argv[1], "start")) {
		fprintf(stderr, "usage: see the top of kexec.c\n");
		return 2;
	}
	syscall(SYS_reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2,
		LINUX_REBOOT_CMD_KEXEC, NULL);
	return fail("no kernel is loaded");
}
