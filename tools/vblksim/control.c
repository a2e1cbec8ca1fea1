// SPDX-License-Identifier: GPL-2.0
/*
 * Commands to a running device, by a UNIX socket.  A command is a line; the last
 * line of its answer is "ok" or "error: ...".  vblksim ctl is the client.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "vblksim.h"
#include "virtio.h"

#define LINE_SIZE	4096
#define WHY_SIZE	512
#define DEFAULT_PATH	"/run/vblksim-sim.sock"

/**
 * struct client - a connection
 * @next: the next one
 * @fd: its socket
 * @len: received length of an incomplete line
 * @line: that line
 */
struct client {
	struct client *next;
	int fd;
	size_t len;
	char line[LINE_SIZE];
};

static struct client *clients;
static int listener = -1;

/* A command writes its answer to out, or returns -1 with the error in why. */
typedef int (*command_fn)(struct sim *sim, char *args, FILE *out, char *why,
			  size_t why_size);

static char *next_word(char **args)
{
	char *word;

	do
		word = strsep(args, " \t");
	while (word && !*word);
	return word;
}

static int run_stats(struct sim *sim, char *args, FILE *out, char *why,
		     size_t why_size)
{
	(void)args, (void)why, (void)why_size;
	watch_report(&sim->watch, out);
	return 0;
}

static int run_requests(struct sim *sim, char *args, FILE *out, char *why,
			size_t why_size)
{
	(void)args, (void)why, (void)why_size;
	fprintf(out, "%" PRIu64 "\n", sim->requests);
	return 0;
}

static int run_features(struct sim *sim, char *args, FILE *out, char *why,
			size_t why_size)
{
	(void)args, (void)why, (void)why_size;
	for (unsigned int bit = 0; bit < 64; bit++) {
		const char *name = feature_name(bit);

		if (has_feature(sim, bit) && name)
			fprintf(out, "%s\n", name);
		else if (has_feature(sim, bit))
			fprintf(out, "bit%u\n", bit);
	}
	return 0;
}

static int set_field(struct sim *sim, const char *name, const char *value,
		     char *why, size_t why_size)
{
	struct settings changed = sim->set;
	uint64_t sectors;

	if (settings_set_config(&changed, name, value, why, why_size))
		return -1;
	sectors = le64toh(changed.config.capacity);
	if (changed.config.capacity != sim->set.config.capacity &&
	    store_resize(sim->store, sectors)) {
		snprintf(why, why_size, "cannot resize the data to %" PRIu64
			 " sectors: %s", sectors, strerror(errno));
		return -1;
	}
	sim->set.config = changed.config;
	sim->front->config_changed(sim);
	return 0;
}

static int run_set(struct sim *sim, char *args, FILE *out, char *why,
		   size_t why_size)
{
	char *name = next_word(&args), *value = next_word(&args);

	(void)out;
	if (!value) {
		snprintf(why, why_size, "set takes a field and a value");
		return -1;
	}
	return set_field(sim, name, value, why, why_size);
}

static int run_resize(struct sim *sim, char *args, FILE *out, char *why,
		      size_t why_size)
{
	char *size = next_word(&args);

	(void)out;
	if (!size) {
		snprintf(why, why_size, "resize takes a size, such as 128M");
		return -1;
	}
	return set_field(sim, "capacity", size, why, why_size);
}

/* More changes than the driver can handle: it sees only a few of them. */
static int run_storm(struct sim *sim, char *args, FILE *out, char *why,
		     size_t why_size)
{
	char *number = next_word(&args), *size = next_word(&args), *end = "";
	char was[24];
	uint64_t left = number ? strtoull(number, &end, 0) : 0;

	(void)out;
	if (!left || *end || left > 1000000) {
		snprintf(why, why_size, "storm takes a number up to 1000000, and a size");
		return -1;
	}
	snprintf(was, sizeof(was), "%" PRIu64,
		 (uint64_t)le64toh(sim->set.config.capacity));
	for (; left; left--) {
		if (!size)
			sim->front->config_changed(sim);
		else if (set_field(sim, "capacity", left % 2 ? was : size, why,
				   why_size))
			return -1;
	}
	return 0;
}

static int run_script(struct sim *sim, char *args, FILE *out, char *why,
		      size_t why_size)
{
	(void)out;
	if (!args || !*args) {
		snprintf(why, why_size, "script takes a line, or clear");
		return -1;
	}
	if (strcmp(args, "clear"))
		return script_add(sim->script, args, why, why_size);
	script_clear(sim->script);
	return 0;
}

static int run_zone(struct sim *sim, char *args, FILE *out, char *why,
		    size_t why_size)
{
	char *number = next_word(&args), *state = next_word(&args), *end;
	uint64_t zone;

	(void)out;
	if (!sim->zones) {
		snprintf(why, why_size, "the device is not zoned; it needs model=hm or ha");
		return -1;
	}
	if (!state) {
		snprintf(why, why_size, "zone takes a number and a state");
		return -1;
	}
	zone = strtoull(number, &end, 0);
	if (*end || end == number || zones_force(sim, zone, state)) {
		snprintf(why, why_size, "there is no zone %s, or it cannot be %s",
			 number, state);
		return -1;
	}
	return 0;
}

static int run_release(struct sim *sim, char *args, FILE *out, char *why,
		       size_t why_size)
{
	(void)args, (void)why, (void)why_size;
	fprintf(out, "%u\n", script_release(sim));
	return 0;
}

static int run_return_lost(struct sim *sim, char *args, FILE *out, char *why,
			   size_t why_size)
{
	(void)args, (void)out, (void)why, (void)why_size;
	ring_return_lost(sim);
	return 0;
}

/* A spurious interrupt: there may be no new used entry. */
static int run_interrupt(struct sim *sim, char *args, FILE *out, char *why,
			 size_t why_size)
{
	char *number = next_word(&args), *end = "";
	uint64_t queue = number ? strtoull(number, &end, 0) : UINT64_MAX;

	(void)out;
	if (queue >= sim->set.queues || *end) {
		snprintf(why, why_size, "interrupt takes a queue, 0 to %u",
			 sim->set.queues - 1);
		return -1;
	}
	sim->front->interrupt(sim, queue);
	return 0;
}

static int run_needs_reset(struct sim *sim, char *args, FILE *out, char *why,
			   size_t why_size)
{
	(void)args, (void)out;
	if (sim->front->needs_reset && sim->front->needs_reset(sim))
		return 0;
	snprintf(why, why_size,
		 "a device behind VDUSE or vhost-user cannot set a status bit; only the driver can");
	return -1;
}

static int run_stop(struct sim *sim, char *args, FILE *out, char *why,
		    size_t why_size)
{
	(void)args, (void)out, (void)why, (void)why_size;
	sim->front->stop(sim);
	return 0;
}

static int run_disconnect(struct sim *sim, char *args, FILE *out, char *why,
			  size_t why_size)
{
	(void)args, (void)out;
	if (!sim->front->disconnect) {
		snprintf(why, why_size, "a VDUSE device has no connection; only a device with --socket has");
		return -1;
	}
	sim->front->disconnect(sim);
	return 0;
}

static int run_calm(struct sim *sim, char *args, FILE *out, char *why,
		    size_t why_size)
{
	(void)args, (void)out, (void)why, (void)why_size;
	calm_down(sim);
	return 0;
}

static const struct {
	const char *name;
	const char *args;
	const char *help;
	command_fn fn;
} commands[] = {
	{ "stats", "", "the report so far", run_stats },
	{ "requests", "", "the number of received requests", run_requests },
	{ "features", "", "the negotiated features", run_features },
	{ "set", "FIELD VALUE", "change the configuration space", run_set },
	{ "resize", "SIZE", "change the capacity", run_resize },
	{ "storm", "N [SIZE]", "so many changes of configuration at once", run_storm },
	{ "script", "LINE|clear", "add a line, or remove all", run_script },
	{ "zone", "N STATE", "offline, readonly, full, empty...", run_zone },
	{ "release", "", "execute held requests", run_release },
	{ "return_lost", "", "return dropped requests", run_return_lost },
	{ "interrupt", "QUEUE", "send a spurious interrupt", run_interrupt },
	{ "needs_reset", "", "request a reset, if the front supports it", run_needs_reset },
	{ "disconnect", "", "close the connection to QEMU, which may connect again", run_disconnect },
	{ "calm", "", "lose no request from now on, before a removal", run_calm },
	{ "stop", "", "remove the device and end", run_stop },
};

static void list_commands(FILE *out)
{
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		fprintf(out, "  %-11s %-12s %s\n", commands[i].name,
			commands[i].args, commands[i].help);
}

static void run_line(struct sim *sim, char *line, FILE *out)
{
	char *args = line, *name = next_word(&args), why[WHY_SIZE] = "";

	if (!name) {
		fprintf(out, "ok\n");
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		if (strcmp(commands[i].name, name))
			continue;
		if (commands[i].fn(sim, args, out, why, sizeof(why)))
			fprintf(out, "error: %s\n", why);
		else
			fprintf(out, "ok\n");
		return;
	}
	fprintf(out, "error: there is no command \"%s\"; there are", name);
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		fprintf(out, " %s", commands[i].name);
	fprintf(out, "\n");
}

static bool send_all(int fd, const char *text, size_t len)
{
	ssize_t done;

	while (len) {
		done = send(fd, text, len, MSG_NOSIGNAL);
		if (done <= 0)
			return false;
		text += done;
		len -= done;
	}
	return true;
}

static bool answer(struct sim *sim, struct client *client)
{
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);
	bool good;

	if (!out)
		return false;
	run_line(sim, client->line, out);
	fclose(out);
	good = send_all(client->fd, text, len);
	free(text);
	return good;
}

static void drop(struct client *client)
{
	struct client **at = &clients;

	while (*at != client)
		at = &(*at)->next;
	*at = client->next;
	loop_del_fd(client->fd);
	close(client->fd);
	free(client);
}

/* Read from the client and answer its complete lines. */
static void client_wrote(struct sim *sim, void *arg)
{
	struct client *client = arg;
	size_t room = sizeof(client->line) - client->len;
	ssize_t len;
	char *end;

	len = recv(client->fd, client->line + client->len, room, MSG_DONTWAIT);
	if (len < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (len <= 0) {
		drop(client);
		return;
	}
	client->len += len;
	while ((end = memchr(client->line, '\n', client->len))) {
		*end++ = '\0';
		if (!answer(sim, client)) {
			drop(client);
			return;
		}
		client->len -= end - client->line;
		memmove(client->line, end, client->len);
	}
	if (client->len == sizeof(client->line)) {
		send_all(client->fd, "error: the line is too long\n", 28);
		drop(client);
	}
}

static void client_came(struct sim *sim, void *arg)
{
	/* A client that does not read its answers must not stop the device. */
	struct timeval limit = { .tv_sec = 2 };
	struct client *client;
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

	(void)sim;
	(void)arg;
	if (fd < 0)
		return;
	client = calloc(1, sizeof(*client));
	if (!client) {
		close(fd);
		return;
	}
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	client->fd = fd;
	client->next = clients;
	clients = client;
	if (loop_add_fd(fd, client_wrote, client))
		drop(client);
}

static int fill_address(struct sockaddr_un *address, const char *path)
{
	*address = (struct sockaddr_un) { .sun_family = AF_UNIX };
	if (strlen(path) >= sizeof(address->sun_path)) {
		fprintf(stderr, "vblksim: control: %s has %zu characters, the limit is %zu\n",
			path, strlen(path), sizeof(address->sun_path) - 1);
		return -1;
	}
	strcpy(address->sun_path, path);
	return 0;
}

static int connect_to(const char *path)
{
	struct sockaddr_un address;
	int fd;

	if (fill_address(&address, path))
		return -1;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -1;
	if (connect(fd, (struct sockaddr *)&address, sizeof(address))) {
		close(fd);
		return -1;
	}
	return fd;
}

int control_open(struct sim *sim)
{
	struct sockaddr_un address;
	const char *path = sim->set.control;
	int other;

	if (fill_address(&address, path))
		return -1;
	other = connect_to(path);
	if (other >= 0) {
		close(other);
		fprintf(stderr, "vblksim: control: another vblksim answers at %s; choose another name or path\n",
			path);
		return -1;
	}
	/* No process listens: a killed vblksim has left the socket. */
	if (errno == ECONNREFUSED)
		unlink(path);
	listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK,
			  0);
	if (listener < 0 ||
	    bind(listener, (struct sockaddr *)&address, sizeof(address)) ||
	    listen(listener, 8) || loop_add_fd(listener, client_came, NULL)) {
		fprintf(stderr, "vblksim: control: cannot listen at %s: %s\n",
			path, strerror(errno));
		return -1;
	}
	return 0;
}

void control_close(struct sim *sim)
{
	if (listener < 0)
		return;
	loop_del_fd(listener);
	close(listener);
	listener = -1;
	unlink(sim->set.control);
}

/* The client. */

static int print_answer(FILE *from)
{
	char *line = NULL;
	size_t room = 0;
	int status = 1;

	while (getline(&line, &room, from) > 0) {
		if (!strncmp(line, "error: ", 7)) {
			fprintf(stderr, "vblksim: %s", line + 7);
			break;
		}
		if (!strcmp(line, "ok\n")) {
			status = 0;
			break;
		}
		fputs(line, stdout);
	}
	free(line);
	return status;
}

static bool send_words(int fd, int argc, char **argv)
{
	for (int i = 0; i < argc; i++)
		if (!send_all(fd, argv[i], strlen(argv[i])) ||
		    !send_all(fd, i + 1 < argc ? " " : "\n", 1))
			return false;
	return true;
}

int control_main(int argc, char **argv)
{
	const char *path = DEFAULT_PATH;
	int fd, status, first = 1;
	FILE *from;

	if (argc > 1 && !strncmp(argv[1], "--control=", 10)) {
		path = argv[1] + 10;
		first = 2;
	}
	if (first >= argc) {
		fprintf(stderr, "usage: vblksim ctl [--control=PATH] COMMAND...\n\n"
			"The default PATH is that of the device sim, " DEFAULT_PATH ".\n\n");
		list_commands(stderr);
		return 2;
	}
	fd = connect_to(path);
	if (fd < 0) {
		fprintf(stderr, "vblksim: cannot connect to %s: %s; start vblksim, or give its --control=PATH\n",
			path, strerror(errno));
		return 1;
	}
	from = fdopen(fd, "r+");
	if (!from || !send_words(fd, argc - first, argv + first)) {
		fprintf(stderr, "vblksim: cannot write to %s: %s\n", path,
			strerror(errno));
		return 1;
	}
	status = print_answer(from);
	/* vblksim closes the connection when it ends. */
	if (!status && !strcmp(argv[first], "stop"))
		while (fgetc(from) != EOF)
			;
	fclose(from);
	return status;
}
