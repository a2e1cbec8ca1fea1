// SPDX-License-Identifier: GPL-2.0
/*
 * Add devices to the vDPA bus, and delete them, by plain generic netlink, because
 * the guest may not have iproute2's vdpa.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <linux/genetlink.h>
#include <linux/netlink.h>
#include <linux/vdpa.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vdpa.h"

#define MESSAGE_SIZE	4096

struct message {
	struct nlmsghdr head;
	struct genlmsghdr genl;
	char attributes[MESSAGE_SIZE];
};

static void start(struct message *message, int family, int command)
{
	memset(message, 0, sizeof(*message));
	message->head.nlmsg_len = NLMSG_LENGTH(GENL_HDRLEN);
	message->head.nlmsg_type = family;
	message->head.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
	message->genl.cmd = command;
	message->genl.version = 1;
}

static void add_string(struct message *message, int type, const char *text)
{
	size_t len = strlen(text) + 1;
	char *at = (char *)message + NLMSG_ALIGN(message->head.nlmsg_len);
	struct nlattr head = {
		.nla_len = NLA_HDRLEN + len,
		.nla_type = type,
	};

	memcpy(at, &head, sizeof(head));
	memcpy(at + NLA_HDRLEN, text, len);
	message->head.nlmsg_len = NLMSG_ALIGN(message->head.nlmsg_len) +
				  NLA_ALIGN(NLA_HDRLEN + len);
}

/* Return the ID of a family from the answer to CTRL_CMD_GETFAMILY, or 0. */
static int find_family(const struct message *answer)
{
	const char *at = (const char *)&answer->genl + GENL_HDRLEN;
	const char *end = (const char *)answer + answer->head.nlmsg_len;
	struct nlattr head;
	uint16_t id;

	while (at + NLA_HDRLEN <= end) {
		memcpy(&head, at, sizeof(head));
		if (head.nla_len < NLA_HDRLEN || at + head.nla_len > end)
			break;
		if (head.nla_type == CTRL_ATTR_FAMILY_ID) {
			memcpy(&id, at + NLA_HDRLEN, sizeof(id));
			return id;
		}
		at += NLA_ALIGN(head.nla_len);
	}
	return 0;
}

/* Send a request and read answers until it is acknowledged; return the error, and
 * in *family the family ID of an answer. */
static int talk(int fd, struct message *message, int *family)
{
	struct message answer;
	const struct nlmsgerr *error;
	ssize_t len;

	if (send(fd, message, message->head.nlmsg_len, 0) < 0)
		return errno;
	for (;;) {
		len = recv(fd, &answer, sizeof(answer), 0);
		if (len < 0)
			return errno;
		if (len < (ssize_t)NLMSG_HDRLEN ||
		    answer.head.nlmsg_len > (size_t)len)
			return EPROTO;
		if (answer.head.nlmsg_type == NLMSG_ERROR) {
			error = NLMSG_DATA(&answer.head);
			return -error->error;
		}
		if (family)
			*family = find_family(&answer);
	}
}

static int run(int fd, int command, const char *management, const char *name)
{
	struct message message;
	int family = 0, error;

	start(&message, GENL_ID_CTRL, CTRL_CMD_GETFAMILY);
	add_string(&message, CTRL_ATTR_FAMILY_NAME, VDPA_GENL_NAME);
	error = talk(fd, &message, &family);
	if (error || !family)
		return error ? error : ENOENT;

	start(&message, family, command);
	add_string(&message, VDPA_ATTR_DEV_NAME, name);
	if (management)
		add_string(&message, VDPA_ATTR_MGMTDEV_DEV_NAME, management);
	return talk(fd, &message, NULL);
}

static int open_and_run(int command, const char *management, const char *name)
{
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC);
	int error;

	if (fd < 0)
		return errno;
	error = run(fd, command, management, name);
	close(fd);
	return error;
}

int vdpa_add_to(const char *management, const char *name)
{
	return open_and_run(VDPA_CMD_DEV_NEW, management, name);
}

int vdpa_add(const char *name)
{
	return vdpa_add_to("vduse", name);
}

int vdpa_delete(const char *name)
{
	return open_and_run(VDPA_CMD_DEV_DEL, NULL, name);
}
