// SPDX-License-Identifier: GPL-2.0
/* The sockets of vhost-user: messages, and the file descriptors that they pass. */

#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "vhost_user.h"

#define PAYLOAD(msg)	((uint8_t *)&(msg)->number)
#define PAYLOAD_ROOM	(offsetof(struct vhost_message, fds) - \
			 offsetof(struct vhost_message, number))

bool vhost_refuse(struct vhost_message *msg, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(msg->why, sizeof(msg->why), fmt, args);
	va_end(args);
	return false;
}

static bool fill_address(struct sockaddr_un *address, const char *path)
{
	*address = (struct sockaddr_un) { .sun_family = AF_UNIX };
	if (strlen(path) < sizeof(address->sun_path)) {
		strcpy(address->sun_path, path);
		return true;
	}
	fprintf(stderr, "vblksim: socket: %s has %zu characters, the limit is %zu\n",
		path, strlen(path), sizeof(address->sun_path) - 1);
	return false;
}

/* Does a process listen there? */
static bool is_taken(const struct sockaddr_un *address)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	bool taken;

	taken = !connect(fd, (const struct sockaddr *)address,
			 sizeof(*address)) || errno == EAGAIN;
	close(fd);
	return taken;
}

int vhost_listen(const char *path)
{
	struct sockaddr_un address;
	int fd;

	if (!fill_address(&address, path))
		return -1;
	if (is_taken(&address)) {
		fprintf(stderr, "vblksim: socket: another program listens at %s; choose another path\n",
			path);
		return -1;
	}
	/* A killed vblksim leaves its socket. */
	if (errno == ECONNREFUSED)
		unlink(path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd >= 0 && !bind(fd, (struct sockaddr *)&address, sizeof(address)) &&
	    !listen(fd, 4))
		return fd;
	fprintf(stderr, "vblksim: socket: cannot listen at %s: %s\n", path,
		strerror(errno));
	if (fd >= 0)
		close(fd);
	return -1;
}

/* Keep the file descriptors that came with a part of a message. */
static bool take_fds(struct vhost_message *msg, struct msghdr *from)
{
	struct cmsghdr *part;
	bool good = !(from->msg_flags & MSG_CTRUNC);

	for (part = CMSG_FIRSTHDR(from); part; part = CMSG_NXTHDR(from, part)) {
		size_t nr;

		if (part->cmsg_level != SOL_SOCKET ||
		    part->cmsg_type != SCM_RIGHTS)
			continue;
		nr = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < nr; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(part) + i * sizeof(fd), sizeof(fd));
			if (msg->nr_fds < VHOST_MAX_REGIONS) {
				msg->fds[msg->nr_fds++] = fd;
			} else {
				close(fd);
				good = false;
			}
		}
	}
	return good;
}

/* Read len bytes; returns 1, 0 at the end of the connection, or -1. */
static int read_all(int fd, struct vhost_message *msg, void *to, size_t len)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(VHOST_MAX_REGIONS * sizeof(int))];
	} control;
	size_t done = 0;

	while (done < len) {
		struct iovec piece = { (uint8_t *)to + done, len - done };
		struct msghdr from = {
			.msg_iov = &piece,
			.msg_iovlen = 1,
			.msg_control = &control,
			.msg_controllen = sizeof(control),
		};
		ssize_t got = recvmsg(fd, &from, MSG_CMSG_CLOEXEC);

		if (got < 0 && errno == EINTR)
			continue;
		if (got > 0 && !take_fds(msg, &from)) {
			vhost_refuse(msg, "it passes more than %u files",
				     VHOST_MAX_REGIONS);
			return -1;
		}
		if (got < 0 && errno == ECONNRESET)
			got = 0;
		if (got < 0 || (!got && done)) {
			vhost_refuse(msg, "it ends after %zu of %zu bytes: %s",
				     done, len, got ? strerror(errno) :
				     "the monitor has closed the connection");
			return -1;
		}
		if (!got)
			return 0;
		done += got;
	}
	return 1;
}

int vhost_receive(int fd, struct vhost_message *msg)
{
	struct vhost_header *header = &msg->header;
	int got;

	memset(msg, 0, sizeof(*msg));
	got = read_all(fd, msg, header, sizeof(*header));
	if (got <= 0)
		return got;
	if ((header->flags & VHOST_VERSION_MASK) != VHOST_VERSION ||
	    header->flags & VHOST_REPLY) {
		vhost_refuse(msg, "its flags are %#x; a request of version %u has %#x",
			     header->flags, VHOST_VERSION, VHOST_VERSION);
		return -1;
	}
	if (header->size > PAYLOAD_ROOM) {
		vhost_refuse(msg, "it has %u bytes, and the longest message has %zu",
			     header->size, PAYLOAD_ROOM);
		return -1;
	}
	if (!header->size)
		return 1;
	got = read_all(fd, msg, PAYLOAD(msg), header->size);
	if (!got)
		vhost_refuse(msg, "it ends before its %u bytes", header->size);
	return got > 0 ? 1 : -1;
}

static int send_all(int fd, const void *from, size_t len, int flags)
{
	const uint8_t *at = from;

	while (len) {
		ssize_t done = send(fd, at, len, flags | MSG_NOSIGNAL);

		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			return -1;
		at += done;
		len -= done;
	}
	return 0;
}

int vhost_reply(int fd, struct vhost_message *msg, size_t size)
{
	msg->header.flags = VHOST_VERSION | VHOST_REPLY;
	msg->header.size = size;
	/* The payload follows the header without a gap only on the wire. */
	if (send_all(fd, &msg->header, sizeof(msg->header), size ? MSG_MORE : 0))
		return -1;
	return send_all(fd, PAYLOAD(msg), size, 0);
}

int vhost_notify(int fd, enum vhost_backend_request request)
{
	struct vhost_header header = {
		.request = request,
		.flags = VHOST_VERSION,
	};

	/* A UNIX socket takes all of so few bytes, or nothing. */
	return send_all(fd, &header, sizeof(header), MSG_DONTWAIT);
}

void vhost_release(struct vhost_message *msg)
{
	for (unsigned int i = 0; i < msg->nr_fds; i++)
		if (msg->fds[i] >= 0)
			close(msg->fds[i]);
	msg->nr_fds = 0;
}
