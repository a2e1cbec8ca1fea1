// SPDX-License-Identifier: GPL-2.0
/*
 * A QEMU plugin for TCG that counts the instructions that a guest executes.
 *
 *	-plugin insncount.so,out=PATH[,watch=PATH]
 *
 * The plugin counts how often each block of the guest's kernel code runs, and
 * the sum of all instructions in user mode.  The guest makes it write the counts
 * by executing MARK, an instruction without effect that no compiler generates.
 * The n-th mark writes the file PATH.n; the guest continues when the file is
 * complete.  Its lines, with all counts since QEMU started:
 *
 *	user N			instructions in user mode
 *	locked N TIMES		instructions with a watched lock held, and how
 *				often it was released
 *	irqsoff N		kernel instructions with interrupts off (see "fine")
 *	io NAME TIMES		stores to a device's registers, by region
 *	block ADDRESS N TIMES	a block of N instructions, and how often it ran
 *
 * At each mark the plugin reads the watch file, whose lines may be
 *
 *	module FIRST LAST	watch calls from these addresses, in hexadecimal
 *	take ADDRESS		a function that takes a lock
 *	release ADDRESS		a function that releases a lock
 *	fine			read the interrupt flag before each block, which
 *				is slow; needed to count irqsoff
 *
 * A lock is held from the call that takes it to the call that releases it.  The
 * plugin counts the first CPU only, so a guest with more CPUs must not use the
 * others (maxcpus=1 on Linux's command line).
 *
 * QEMU's devices run in its main thread.  Without a wait, the host's scheduler
 * would determine how many instructions the guest executes until the device has
 * handled a notification, and so how many requests share an interrupt.  So after
 * each store to a device the guest waits until the main thread is idle.  Then a
 * device without latency has completed its work.
 */

#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "qemu_plugin.h"

#define MARK		"\x66\x87\xdb"	/* xchg %bx, %bx */
#define MARK_SIZE	(sizeof(MARK) - 1)
#define CLI		0xfa
#define CALL		0xe8
#define CALL_SIZE	5

#define KERNEL		(1ULL << 63)
#define EFLAGS_IF	0x200

#define MAX_BLOCKS	(1U << 19)
#define MAX_LOCKS	32U
#define MAX_REGIONS	64U

struct block {
	uint64_t address;
	uint32_t size;
	/* The number of instructions after one that turns interrupts off. */
	uint32_t after_cli;
};

/* A device's registers; QEMU keeps one copy of each name. */
struct region {
	const char *name;
	uint64_t stores;
};

struct call {
	uint64_t from;
	uint64_t to;
};

/* The counters of a CPU; the code that QEMU generates adds to them. */
struct counters {
	uint64_t fine;
	uint64_t user;
	uint64_t kernel;
	uint64_t times[MAX_BLOCKS];
};

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

static struct qemu_plugin_scoreboard *board;
static struct block blocks[MAX_BLOCKS];
static unsigned int nr_blocks;

static char *out, *watch;
static unsigned int marks;

static struct call module;
static uint64_t takes[MAX_LOCKS], releases[MAX_LOCKS];
static unsigned int nr_takes, nr_releases;

static bool held;
static uint64_t taken_at, locked, locked_times, irqs_off;

static struct region regions[MAX_REGIONS];
static unsigned int nr_regions;

/* The file in /proc with the system call that the main thread is in. */
static int main_syscall;

static struct qemu_plugin_register *eflags;
static GByteArray *buffer;

static void die(const char *what, const char *name)
{
	fprintf(stderr, "insncount: %s: ", what);
	perror(name);
	exit(1);
}

/* Return the counters of the first CPU. */
static struct counters *counters(void)
{
	return qemu_plugin_scoreboard_find(board, 0);
}

static qemu_plugin_u64 counter(size_t offset)
{
	return (qemu_plugin_u64){ board, offset };
}

/* Find or add a block, because QEMU translates the same code many times. */
static unsigned int find_block(uint64_t address, uint32_t size,
			       uint32_t after_cli)
{
	static unsigned int heads[MAX_BLOCKS];
	unsigned int slot = (address * 0x9e3779b97f4a7c15ULL + size) >> 45;
	unsigned int i;

	/* blocks[0] is unused, so a head of 0 is free. */
	for (; heads[slot]; slot = (slot + 1) % MAX_BLOCKS) {
		i = heads[slot];
		if (blocks[i].address == address && blocks[i].size == size)
			return i;
	}
	if (nr_blocks + 1 == MAX_BLOCKS) {
		fprintf(stderr, "insncount: the guest's kernel has more than %u blocks\n",
			MAX_BLOCKS - 1);
		exit(1);
	}
	heads[slot] = ++nr_blocks;
	blocks[nr_blocks] = (struct block){ address, size, after_cli };
	return nr_blocks;
}

static void add_lock(uint64_t *locks, unsigned int *count, uint64_t address)
{
	if (*count == MAX_LOCKS) {
		fprintf(stderr, "insncount: more than %u functions to watch\n",
			MAX_LOCKS);
		exit(1);
	}
	locks[(*count)++] = address;
}

static void read_watch(void)
{
	char line[128];
	uint64_t first, last;
	FILE *file;

	nr_takes = 0;
	nr_releases = 0;
	module = (struct call){ 0, 0 };
	held = false;
	counters()->fine = 0;
	if (!watch)
		return;

	file = fopen(watch, "r");
	if (!file)
		die("cannot read the watch file", watch);
	while (fgets(line, sizeof(line), file)) {
		if (sscanf(line, "module %" SCNx64 " %" SCNx64, &first, &last) == 2)
			module = (struct call){ first, last };
		else if (sscanf(line, "take %" SCNx64, &first) == 1)
			add_lock(takes, &nr_takes, first);
		else if (sscanf(line, "release %" SCNx64, &first) == 1)
			add_lock(releases, &nr_releases, first);
		else if (!strcmp(line, "fine\n"))
			counters()->fine = 1;
	}
	fclose(file);
}

static void write_counts(void)
{
	struct counters *count = counters();
	char name[4096];
	unsigned int i;
	FILE *file;

	snprintf(name, sizeof(name), "%s.%u", out, marks++);
	file = fopen(name, "w");
	if (!file)
		die("cannot write", name);
	fprintf(file, "user %" PRIu64 "\n", count->user);
	fprintf(file, "locked %" PRIu64 " %" PRIu64 "\n", locked, locked_times);
	fprintf(file, "irqsoff %" PRIu64 "\n", irqs_off);
	for (i = 0; i < nr_regions; i++)
		fprintf(file, "io %s %" PRIu64 "\n", regions[i].name,
			regions[i].stores);
	for (i = 1; i <= nr_blocks; i++)
		if (count->times[i])
			fprintf(file, "block %" PRIx64 " %u %" PRIu64 "\n",
				blocks[i].address, blocks[i].size,
				count->times[i]);
	if (fclose(file))
		die("cannot write", name);
}

static void on_mark(unsigned int cpu, void *data)
{
	write_counts();
	read_watch();
}

static bool among(const uint64_t *locks, unsigned int count, uint64_t address)
{
	while (count--)
		if (locks[count] == address)
			return true;
	return false;
}

/* A call ends its block, so all instructions before it have been counted. */
static void on_call(unsigned int cpu, void *data)
{
	const struct call *call = data;
	uint64_t now = counters()->kernel;

	if (cpu || call->from < module.from || call->from > module.to)
		return;
	if (among(takes, nr_takes, call->to)) {
		held = true;
		taken_at = now;
	} else if (held && among(releases, nr_releases, call->to)) {
		held = false;
		locked += now - taken_at;
		locked_times++;
	}
}

static void on_fine_block(unsigned int cpu, void *data)
{
	const struct block *block = data;
	uint32_t flags;

	if (cpu)
		return;
	buffer->len = 0;
	if (qemu_plugin_read_register(eflags, buffer) < (int)sizeof(flags))
		return;
	memcpy(&flags, buffer->data, sizeof(flags));
	irqs_off += flags & EFLAGS_IF ? block->after_cli : block->size;
}

static void count_store(const char *name)
{
	unsigned int i;

	for (i = 0; i < nr_regions; i++)
		if (regions[i].name == name)
			break;
	if (i == MAX_REGIONS) {
		fprintf(stderr, "insncount: more than %u regions of device registers\n",
			MAX_REGIONS);
		exit(1);
	}
	if (i == nr_regions)
		regions[nr_regions++].name = name;
	regions[i].stores++;
}

/* The main thread is idle if it waits in ppoll(); a wait for a lock is not idle. */
static bool main_thread_idle(void)
{
	char text[8] = "";

	if (pread(main_syscall, text, sizeof(text) - 1, 0) <= 0)
		die("cannot read", "the main thread's system call");
	return strtol(text, NULL, 10) == SYS_ppoll;
}

static void on_store(unsigned int cpu, qemu_plugin_meminfo_t info,
		     uint64_t address, void *data)
{
	struct qemu_plugin_hwaddr *where = qemu_plugin_get_hwaddr(info, address);

	if (!where || !qemu_plugin_hwaddr_is_io(where))
		return;
	count_store(qemu_plugin_hwaddr_device_name(where));
	while (!main_thread_idle())
		sched_yield();
}

static void on_cpu(qemu_plugin_id_t id, unsigned int cpu)
{
	qemu_plugin_reg_descriptor *found;
	GArray *registers;
	unsigned int i;

	if (cpu)
		return;
	registers = qemu_plugin_get_registers();
	found = (void *)registers->data;
	for (i = 0; i < registers->len; i++)
		if (!strcmp(found[i].name, "eflags"))
			eflags = found[i].handle;
	if (!eflags) {
		fprintf(stderr, "insncount: this CPU has no register eflags\n");
		exit(1);
	}
	buffer = g_byte_array_new();
}

static void watch_call(struct qemu_plugin_insn *insn)
{
	struct call *call;
	uint8_t code[CALL_SIZE];
	int32_t distance;

	if (qemu_plugin_insn_size(insn) != CALL_SIZE)
		return;
	qemu_plugin_insn_data(insn, code, sizeof(code));
	if (code[0] != CALL)
		return;

	call = malloc(sizeof(*call));
	if (!call)
		die("no memory for", "a call");
	memcpy(&distance, code + 1, sizeof(distance));
	call->from = qemu_plugin_insn_vaddr(insn);
	call->to = call->from + CALL_SIZE + distance;
	qemu_plugin_register_vcpu_insn_exec_cb(insn, on_call,
					       QEMU_PLUGIN_CB_NO_REGS, call);
}

static void find_marks(struct qemu_plugin_tb *tb, size_t size)
{
	uint8_t code[MARK_SIZE];
	size_t i;

	for (i = 0; i < size; i++) {
		struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);

		if (qemu_plugin_insn_size(insn) != MARK_SIZE)
			continue;
		qemu_plugin_insn_data(insn, code, sizeof(code));
		if (!memcmp(code, MARK, MARK_SIZE))
			qemu_plugin_register_vcpu_insn_exec_cb(
				insn, on_mark, QEMU_PLUGIN_CB_NO_REGS, NULL);
	}
}

static uint32_t count_after_cli(struct qemu_plugin_tb *tb, size_t size)
{
	size_t i;

	for (i = 0; i < size; i++) {
		struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
		uint8_t code;

		if (qemu_plugin_insn_size(insn) != 1)
			continue;
		qemu_plugin_insn_data(insn, &code, 1);
		if (code == CLI)
			return size - i - 1;
	}
	return 0;
}

static void on_translation(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
	uint64_t address = qemu_plugin_tb_vaddr(tb);
	size_t j, size = qemu_plugin_tb_n_insns(tb);
	unsigned int i;

	if (address < KERNEL) {
		qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(
			tb, QEMU_PLUGIN_INLINE_ADD_U64,
			counter(offsetof(struct counters, user)), size);
		find_marks(tb, size);
		return;
	}

	i = find_block(address, size, count_after_cli(tb, size));
	qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(
		tb, QEMU_PLUGIN_INLINE_ADD_U64,
		counter(offsetof(struct counters, kernel)), size);
	qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(
		tb, QEMU_PLUGIN_INLINE_ADD_U64,
		counter(offsetof(struct counters, times) +
			i * sizeof(uint64_t)), 1);
	qemu_plugin_register_vcpu_tb_exec_cond_cb(
		tb, on_fine_block, QEMU_PLUGIN_CB_R_REGS,
		QEMU_PLUGIN_COND_NE, counter(offsetof(struct counters, fine)),
		0, &blocks[i]);
	watch_call(qemu_plugin_tb_get_insn(tb, size - 1));
	for (j = 0; j < size; j++)
		qemu_plugin_register_vcpu_mem_cb(qemu_plugin_tb_get_insn(tb, j),
						 on_store,
						 QEMU_PLUGIN_CB_NO_REGS,
						 QEMU_PLUGIN_MEM_W, NULL);
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id,
					   const qemu_info_t *info,
					   int argc, char **argv)
{
	char name[64];
	int i;

	for (i = 0; i < argc; i++) {
		if (!strncmp(argv[i], "out=", 4)) {
			out = strdup(argv[i] + 4);
		} else if (!strncmp(argv[i], "watch=", 6)) {
			watch = strdup(argv[i] + 6);
		} else {
			fprintf(stderr, "insncount: unknown argument %s; use out=PATH and watch=PATH\n",
				argv[i]);
			return -1;
		}
	}
	if (!out) {
		fprintf(stderr, "insncount: the argument out=PATH is missing\n");
		return -1;
	}
	if (strcmp(info->target_name, "x86_64")) {
		fprintf(stderr, "insncount: the guest is %s; only x86_64 is supported\n",
			info->target_name);
		return -1;
	}

	snprintf(name, sizeof(name), "/proc/self/task/%d/syscall", getpid());
	main_syscall = open(name, O_RDONLY | O_CLOEXEC);
	if (main_syscall < 0) {
		perror(name);
		return -1;
	}

	board = qemu_plugin_scoreboard_new(sizeof(struct counters));
	qemu_plugin_register_vcpu_init_cb(id, on_cpu);
	qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
	return 0;
}
