// SPDX-License-Identifier: GPL-2.0
/*
 * The agent: process 1 of a test guest, which runs commands for the host.
 *
 * It loads the modules in the initramfs, mounts the usual file systems, switches
 * to the root file system if there is one, and then serves commands from the
 * host on the virtio-serial port "vblk.agent" until the guest stops.
 *
 * A message is one line of text, followed by LENGTH bytes of data:
 *
 *	run ID LIMIT_MS LENGTH		data: the script; LIMIT_MS 0: no limit
 *	put ID MODE LENGTH PATH		data: the file's content
 *	kill ID
 *	reboot
 *
 * The agent's messages:
 *
 *	ready RELEASE			once, and again when the host reconnects
 *	out ID LENGTH			data: a part of the command's output
 *	exit ID STATUS			the value of $?: 128 + N for signal N
 *	timeout ID			the command was killed, and has exited
 *	stuck ID			the command was killed, but does not exit
 *	error TEXT			the agent received an unknown message
 *
 * The agent must never exit, whatever the host or a command does, because the
 * kernel panics if process 1 exits.
 */

#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PORT_NAME	"vblk.agent"
#define DRIVER		"/sys/bus/virtio/drivers/virtio_console"
#define MAX_JOBS	64
#define MAX_LINE	(PATH_MAX + 64)
#define MAX_PAYLOAD	(256UL << 20)
#define OUT_SIZE	(256 << 10)
#define OUT_CHUNK	(16 << 10)
/* Space in the output buffer that is reserved for short messages. */
#define OUT_RESERVE	(32 << 10)
/* A killed command is stuck if it does not exit within this time. */
#define DEATH_MS	5000
#define DEVICE_WAIT_MS	30000
/* How long to wait for the port, and for the host to connect to it. */
#define PORT_WAIT_MS	3000
#define HOST_WAIT_MS	1000

#define EXT4_LABEL_OFFSET	(1024 + 0x78)
#define EXT4_LABEL_SIZE		16
#define RAMFS_MAGIC		0x858458f6
#define TMPFS_MAGIC		0x01021994

enum job_state { FREE, RUNNING, EXITED, KILLED };

struct job {
	enum job_state state;
	unsigned int id;
	pid_t pid;		/* also its process group and session */
	int fd;			/* output pipe, -1 after its end */
	int status;
	bool limited;
	long deadline;		/* ms: time limit; if KILLED: when it is stuck */
};

static struct job jobs[MAX_JOBS];

static struct {
	int fd;
	bool connected;
	long disconnected_since;
	char *in;
	size_t in_len, in_size;
	char out[OUT_SIZE];
	size_t out_len;
} port = { .fd = -1 };

static long now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void sleep_ms(long ms)
{
	struct timespec time = { ms / 1000, ms % 1000 * 1000000 };

	nanosleep(&time, NULL);
}

/* Write to the kernel log, and so to the console, which the host records. */
static void log_error(const char *what, const char *name)
{
	int fd = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);

	dprintf(fd < 0 ? STDERR_FILENO : fd, "<3>agent: %s %s: %s\n", what,
		name, strerror(errno));
	if (fd >= 0)
		close(fd);
}

/*
 * Set-up of the guest
 */

static int mount_at(const char *root, const char *path, const char *type,
		    const char *source, unsigned long flags)
{
	char target[PATH_MAX];

	snprintf(target, sizeof(target), "%s%s", root, path);
	mkdir(target, 0755);
	if (!mount(source, target, type, flags, NULL))
		return 0;
	/* The kernel may have mounted /dev already, or may not have debugfs. */
	if (errno != EBUSY && errno != ENODEV)
		log_error("mount", target);
	return -1;
}

static void load_module(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) && errno != EEXIST))
		log_error("load", path);
	if (fd >= 0)
		close(fd);
}

/* The host sorts the list: each module follows those that it depends on. */
static void load_modules(void)
{
	FILE *list = fopen("/vblk/load", "re");
	char path[PATH_MAX];

	if (!list)
		return;
	while (fgets(path, sizeof(path), list)) {
		path[strcspn(path, "\n")] = 0;
		load_module(path);
	}
	fclose(list);
}

static bool has_label(const char *device, const char *label)
{
	char found[EXT4_LABEL_SIZE + 1] = "";
	int fd = open(device, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return false;
	if (pread(fd, found, EXT4_LABEL_SIZE, EXT4_LABEL_OFFSET) < 0)
		found[0] = 0;
	close(fd);
	return !strcmp(found, label);
}

/* Skip the devices under test, because reading from a broken one may hang. */
static bool find_disk(const char *label, char *device, size_t size)
{
	DIR *dir = opendir("/sys/block");
	struct dirent *entry;
	bool found = false;

	while (dir && !found && (entry = readdir(dir))) {
		if (strncmp(entry->d_name, "sd", 2))
			continue;
		snprintf(device, size, "/dev/%s", entry->d_name);
		found = has_label(device, label);
	}
	if (dir)
		closedir(dir);
	return found;
}

static void mount_label(const char *root, const char *path, const char *label,
			unsigned long flags)
{
	long limit = now_ms() + DEVICE_WAIT_MS;
	char device[PATH_MAX];

	while (!find_disk(label, device, sizeof(device))) {
		if (now_ms() > limit) {
			errno = ENODEV;
			log_error("find a disk labelled", label);
			return;
		}
		sleep_ms(20);
	}
	mount_at(root, path, "ext4", device, flags);
}

static bool in_initramfs(void)
{
	struct statfs fs;

	return !statfs("/", &fs) &&
	       (fs.f_type == RAMFS_MAGIC || fs.f_type == TMPFS_MAGIC);
}

static void enter_root(const char *root)
{
	static const char * const moved[] = { "/proc", "/sys", "/dev" };
	char target[PATH_MAX];

	for (size_t i = 0; i < sizeof(moved) / sizeof(*moved); i++) {
		snprintf(target, sizeof(target), "%s%s", root, moved[i]);
		mount(moved[i], target, NULL, MS_MOVE, NULL);
	}
	if (chdir(root) || mount(".", "/", NULL, MS_MOVE, NULL) || chroot("."))
		log_error("enter", root);
}

/*
 * The kernel puts unknown words of its command line into the environment:
 * vblk_root and vblk_modules are the labels of the file systems to mount.
 */
static void set_up_guest(void)
{
	const char *root = "";

	mount_at("", "/proc", "proc", "proc", 0);
	mount_at("", "/sys", "sysfs", "sysfs", 0);
	mount_at("", "/dev", "devtmpfs", "devtmpfs", 0);
	load_modules();
	if (in_initramfs() && getenv("vblk_root")) {
		root = "/newroot";
		mount_label("", root, getenv("vblk_root"), MS_NOATIME);
	}
	mount_at(root, "/run", "tmpfs", "tmpfs", 0);
	mount_at(root, "/tmp", "tmpfs", "tmpfs", 0);
	if (!access("/vblk", F_OK))
		mount_at(root, "/run/vblk", NULL, "/vblk", MS_BIND);
	if (*root)
		enter_root(root);
	mount_at("", "/dev/pts", "devpts", "devpts", 0);
	mount_at("", "/dev/shm", "tmpfs", "tmpfs", 0);
	mount_at("", "/sys/kernel/debug", "debugfs", "debugfs", 0);
	mount_at("", "/sys/kernel/tracing", "tracefs", "tracefs", 0);
	if (getenv("vblk_modules"))
		mount_label("", "/lib/modules", getenv("vblk_modules"),
			    MS_RDONLY);
	symlink("/proc/self/fd", "/dev/fd");
	sethostname("guest", 5);
}

/*
 * Communication with the host
 */

static bool port_is_ours(const char *name)
{
	char path[PATH_MAX], found[64] = "";
	FILE *file;

	snprintf(path, sizeof(path), "/sys/class/virtio-ports/%s/name", name);
	file = fopen(path, "re");
	if (!file)
		return false;
	if (fgets(found, sizeof(found), file))
		found[strcspn(found, "\n")] = 0;
	fclose(file);
	return !strcmp(found, PORT_NAME);
}

static void open_port(void)
{
	DIR *dir = opendir("/sys/class/virtio-ports");
	char path[PATH_MAX];
	struct dirent *entry;

	while (dir && port.fd < 0 && (entry = readdir(dir))) {
		if (!port_is_ours(entry->d_name))
			continue;
		snprintf(path, sizeof(path), "/dev/%s", entry->d_name);
		port.fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	}
	if (dir)
		closedir(dir);
}

static void write_driver_file(const char *verb, const char *device)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), DRIVER "/%s", verb);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, device, strlen(device)) < 0)
		log_error(verb, device);
	if (fd >= 0)
		close(fd);
}

/*
 * Rebinding the port's driver repairs a port that does not work. After a resume
 * the driver may believe that the host is not connected; on Linux 7.3 it always
 * does. QEMU under TCG sometimes loses the first interrupt, too.
 */
static void rebind_driver(void)
{
	DIR *dir = opendir(DRIVER);
	struct dirent *entry;
	char device[NAME_MAX + 1] = "";

	while (dir && !*device && (entry = readdir(dir))) {
		if (!strncmp(entry->d_name, "virtio", 6))
			snprintf(device, sizeof(device), "%s", entry->d_name);
	}
	if (dir)
		closedir(dir);
	if (!*device)
		return;
	write_driver_file("unbind", device);
	write_driver_file("bind", device);
}

static void wait_for_port(void)
{
	long limit = now_ms() + PORT_WAIT_MS;

	for (open_port(); port.fd < 0; open_port()) {
		if (now_ms() > limit) {
			rebind_driver();
			limit = now_ms() + PORT_WAIT_MS;
		}
		sleep_ms(20);
	}
	port.disconnected_since = now_ms();
}

static void reopen_port(void)
{
	close(port.fd);
	port.fd = -1;
	rebind_driver();
	wait_for_port();
}

static size_t out_room(void)
{
	return OUT_SIZE - port.out_len;
}

/* If the host does not read, drop the message: the host's command times out. */
static void send_message(const char *format, ...)
{
	size_t room = out_room();
	va_list args;
	int len;

	va_start(args, format);
	len = vsnprintf(port.out + port.out_len, room, format, args);
	va_end(args);
	if (len > 0 && (size_t)len < room)
		port.out_len += len;
}

static void flush_port(void)
{
	ssize_t sent = write(port.fd, port.out, port.out_len);

	if (sent <= 0)
		return;
	port.out_len -= sent;
	memmove(port.out, port.out + sent, port.out_len);
}

/*
 * Commands
 */

static struct job *find_job(unsigned int id)
{
	for (struct job *job = jobs; job < jobs + MAX_JOBS; job++) {
		if (job->state != FREE && job->id == id)
			return job;
	}
	return NULL;
}

static struct job *free_job(void)
{
	for (struct job *job = jobs; job < jobs + MAX_JOBS; job++) {
		if (job->state == FREE)
			return job;
	}
	return NULL;
}

static void exec_script(const char *script, int output)
{
	sigset_t none;
	int null = open("/dev/null", O_RDONLY);

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	setsid();
	dup2(null, STDIN_FILENO);
	dup2(output, STDOUT_FILENO);
	dup2(output, STDERR_FILENO);
	if (null > STDERR_FILENO)
		close(null);
	execl("/bin/sh", "sh", "-c", script, NULL);
	dprintf(STDERR_FILENO, "/bin/sh: %s\n", strerror(errno));
	_exit(126);
}

static void start_job(unsigned int id, long limit_ms, const char *script)
{
	struct job *job = free_job();
	int pipes[2];

	if (!job || pipe2(pipes, O_CLOEXEC)) {
		send_message("exit %u 125\n", id);
		return;
	}
	job->pid = fork();
	if (!job->pid)
		exec_script(script, pipes[1]);
	close(pipes[1]);
	if (job->pid < 0) {
		close(pipes[0]);
		send_message("exit %u 125\n", id);
		return;
	}
	fcntl(pipes[0], F_SETFL, O_NONBLOCK);
	job->fd = pipes[0];
	job->id = id;
	job->limited = limit_ms > 0;
	job->deadline = now_ms() + limit_ms;
	job->state = RUNNING;
}

static void end_job(struct job *job)
{
	if (job->fd >= 0)
		close(job->fd);
	job->state = FREE;
}

static void kill_job(struct job *job)
{
	kill(-job->pid, SIGKILL);
	job->state = KILLED;
	job->deadline = now_ms() + DEATH_MS;
}

/* Return true if there is nothing more to read now. */
static bool forward_output(struct job *job)
{
	char data[OUT_CHUNK];
	ssize_t len;

	while (job->fd >= 0) {
		if (out_room() < OUT_RESERVE + OUT_CHUNK)
			return false;
		len = read(job->fd, data, sizeof(data));
		if (len < 0)
			return true;
		if (!len) {
			close(job->fd);
			job->fd = -1;
			return true;
		}
		send_message("out %u %zd\n", job->id, len);
		memcpy(port.out + port.out_len, data, len);
		port.out_len += len;
	}
	return true;
}

/*
 * A killed command has exited when its whole process group has: the shell exits
 * at once, but a program that it started may hang in the kernel.
 */
static void update_job(struct job *job)
{
	bool drained = forward_output(job);
	long now = now_ms();

	if (job->state == RUNNING && job->limited && now >= job->deadline) {
		kill_job(job);
	} else if (job->state == EXITED && drained) {
		send_message("exit %u %d\n", job->id, job->status);
		end_job(job);
	} else if (job->state == KILLED && drained) {
		bool dead = kill(-job->pid, 0) && errno == ESRCH;

		if (!dead && now < job->deadline)
			return;
		send_message("%s %u\n", dead ? "timeout" : "stuck", job->id);
		end_job(job);
	}
}

static void reap_children(int signals)
{
	struct signalfd_siginfo info;
	int status;
	pid_t pid;

	while (read(signals, &info, sizeof(info)) > 0)
		;
	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		for (struct job *job = jobs; job < jobs + MAX_JOBS; job++) {
			if (job->state != RUNNING || job->pid != pid)
				continue;
			job->status = WIFSIGNALED(status) ?
				128 + WTERMSIG(status) : WEXITSTATUS(status);
			job->state = EXITED;
		}
	}
}

static void put_file(unsigned int id, unsigned int mode, const char *path,
		     const char *data, size_t len)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
	size_t done = 0;
	ssize_t sent = 0;

	while (fd >= 0 && done < len && sent >= 0) {
		sent = write(fd, data + done, len - done);
		done += sent > 0 ? sent : 0;
	}
	send_message("exit %u %d\n", id, fd < 0 || sent < 0 ? errno : 0);
	if (fd < 0)
		return;
	fchmod(fd, mode);
	close(fd);
}

static void restart_machine(void)
{
	sync();
	reboot(RB_AUTOBOOT);
}

/* Return the number of bytes that follow this line, -1 if it is invalid. */
static long payload_of(const char *line)
{
	unsigned int id, mode;
	long limit, len = 0;

	if (sscanf(line, "run %u %ld %ld", &id, &limit, &len) == 3 ||
	    sscanf(line, "put %u %o %ld %*s", &id, &mode, &len) == 3)
		return len >= 0 && len <= (long)MAX_PAYLOAD ? len : -1;
	if (sscanf(line, "kill %u", &id) == 1 || !strcmp(line, "reboot"))
		return 0;
	return -1;
}

static void handle_message(const char *line, char *payload, size_t len)
{
	unsigned int id, mode;
	int path = 0;
	long limit;

	if (sscanf(line, "run %u %ld", &id, &limit) == 2) {
		char after = payload[len];

		payload[len] = 0;
		start_job(id, limit, payload);
		payload[len] = after;
	} else if (sscanf(line, "put %u %o %*d %n", &id, &mode, &path) == 2) {
		put_file(id, mode, line + path, payload, len);
	} else if (sscanf(line, "kill %u", &id) == 1) {
		struct job *job = find_job(id);

		if (job && job->state == RUNNING)
			kill_job(job);
	} else {
		restart_machine();
	}
}

/* Handle one message of the input; return false if it is incomplete. */
static bool take_message(void)
{
	char line[MAX_LINE], *end;
	size_t used;
	long len;

	end = memchr(port.in, '\n', port.in_len);
	used = end ? (size_t)(end + 1 - port.in) : port.in_len;
	if (used >= sizeof(line)) {
		len = -1;
	} else if (!end) {
		return false;
	} else {
		memcpy(line, port.in, used);
		line[used - 1] = 0;
		len = payload_of(line);
	}
	if (len < 0) {
		send_message("error unknown message\n");
		len = 0;
	} else if (port.in_len - used < (size_t)len) {
		return false;
	} else {
		handle_message(line, port.in + used, len);
	}
	used += len;
	port.in_len -= used;
	memmove(port.in, port.in + used, port.in_len);
	return true;
}

static void read_port(void)
{
	ssize_t len;

	for (;;) {
		/* Keep one byte free for the NUL at the end of a script. */
		if (port.in_size - port.in_len < OUT_CHUNK) {
			size_t size = port.in_size * 2 + 4 * OUT_CHUNK;
			char *in = realloc(port.in, size);

			if (!in)
				break;
			port.in = in;
			port.in_size = size;
		}
		len = read(port.fd, port.in + port.in_len, OUT_CHUNK - 1);
		if (len <= 0)
			break;
		port.in_len += len;
	}
	while (port.in_len && take_message())
		;
}

static void host_connected(void)
{
	struct utsname name;

	uname(&name);
	port.connected = true;
	send_message("ready %s\n", name.release);
}

static void host_disconnected(void)
{
	if (port.connected)
		port.disconnected_since = now_ms();
	port.connected = false;
	if (now_ms() - port.disconnected_since > HOST_WAIT_MS)
		reopen_port();
	/* poll() returns at once while no host is connected. */
	sleep_ms(50);
}

static void handle_port(short events)
{
	if (events & POLLHUP) {
		host_disconnected();
		return;
	}
	if (!port.connected)
		host_connected();
	if (events & POLLIN)
		read_port();
	if (port.out_len)
		flush_port();
}

static bool any_deadline(void)
{
	for (struct job *job = jobs; job < jobs + MAX_JOBS; job++) {
		if (job->state == KILLED ||
		    (job->state == RUNNING && job->limited))
			return true;
	}
	return false;
}

static void serve(int signals)
{
	struct pollfd fds[MAX_JOBS + 2];
	int count = 2;

	fds[0] = (struct pollfd){ .fd = signals, .events = POLLIN };
	fds[1] = (struct pollfd){ .fd = port.fd, .events = POLLIN };
	if (port.out_len || !port.connected)
		fds[1].events |= POLLOUT;
	for (struct job *job = jobs; job < jobs + MAX_JOBS; job++) {
		if (job->state == FREE || job->fd < 0 ||
		    out_room() < OUT_RESERVE + OUT_CHUNK)
			continue;
		fds[count++] = (struct pollfd){ job->fd, POLLIN, 0 };
	}
	if (poll(fds, count, any_deadline() ? 100 : -1) < 0)
		return;
	if (fds[0].revents)
		reap_children(signals);
	for (struct job *job = jobs; job < jobs + MAX_JOBS; job++) {
		if (job->state != FREE)
			update_job(job);
	}
	handle_port(fds[1].revents);
}

static int catch_signals(void)
{
	sigset_t set;

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	return signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
}

int main(void)
{
	int signals = catch_signals();

	set_up_guest();
	setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin", 1);
	setenv("HOME", "/root", 1);
	setenv("LC_ALL", "C.UTF-8", 1);
	chdir("/tmp");
	wait_for_port();
	for (;;)
		serve(signals);
}
