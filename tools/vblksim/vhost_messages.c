// SPDX-License-Identifier: GPL-2.0
/*
 * The messages of vhost-user.  A handler returns false after vhost_refuse().  One that
 * replies leaves the payload in the message.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "vblksim.h"
#include "vhost_user.h"
#include "virtio.h"

#define BIT(n)		(1ull << (n))

#define PROTOCOL_FEATURES						\
	(BIT(VHOST_PROTOCOL_MQ) | BIT(VHOST_PROTOCOL_REPLY_ACK) |	\
	 BIT(VHOST_PROTOCOL_BACKEND_REQ) | BIT(VHOST_PROTOCOL_CONFIG))

static bool check_queue(const struct sim *sim, struct vhost_message *msg,
			uint32_t queue)
{
	return queue < sim->set.queues ||
	       vhost_refuse(msg, "queue %u: there are %u queues", queue,
			    sim->set.queues);
}

/* The same for a message that may only come while the queue is stopped. */
static bool check_stopped(const struct sim *sim, struct vhost_message *msg,
			  uint32_t queue)
{
	return check_queue(sim, msg, queue) &&
	       (!vhost.vring[queue].running ||
		vhost_refuse(msg, "queue %u runs", queue));
}

static bool get_features(struct sim *sim, struct vhost_message *msg)
{
	msg->number = sim->set.features | BIT(VHOST_F_PROTOCOL);
	return true;
}

static bool set_features(struct sim *sim, struct vhost_message *msg)
{
	if (sim->status & STATUS_DRIVER_OK && msg->number != vhost.features)
		return vhost_refuse(msg, "features change from %#" PRIx64 " to %#" PRIx64 " while a queue runs",
				    vhost.features, msg->number);
	vhost.features = msg->number;
	vhost.refused = false;
	return true;
}

static bool nothing(struct sim *sim, struct vhost_message *msg)
{
	(void)sim, (void)msg;
	return true;
}

static bool set_memory(struct sim *sim, struct vhost_message *msg)
{
	size_t size = offsetof(struct vhost_message, memory.region[0]) -
		      offsetof(struct vhost_message, memory);

	if (msg->header.size >= size && msg->memory.count <= VHOST_MAX_REGIONS)
		size += msg->memory.count * sizeof(struct vhost_region);
	/* QEMU sends no more regions than there are. */
	if (msg->header.size < size)
		return vhost_refuse(msg, "%u regions in %u bytes",
				    msg->memory.count, msg->header.size);
	if (!vhost_memory_set(msg))
		return false;
	ring_remap(sim);
	if (!(sim->status & STATUS_DRIVER_OK))
		vhost_memory_trim();
	return true;
}

static bool set_size(struct sim *sim, struct vhost_message *msg)
{
	if (!check_stopped(sim, msg, msg->state.index))
		return false;
	if (!msg->state.num || msg->state.num > UINT16_MAX)
		return vhost_refuse(msg, "queue %u: a ring of %u entries",
				    msg->state.index, msg->state.num);
	vhost.vring[msg->state.index].size = msg->state.num;
	return true;
}

static bool set_addresses(struct sim *sim, struct vhost_message *msg)
{
	if (!check_stopped(sim, msg, msg->addr.index))
		return false;
	if (msg->addr.flags)
		return vhost_refuse(msg, "queue %u: flags %#x were not offered",
				    msg->addr.index, msg->addr.flags);
	vhost.vring[msg->addr.index].addr = msg->addr;
	return true;
}

static bool set_base(struct sim *sim, struct vhost_message *msg)
{
	if (!check_stopped(sim, msg, msg->state.index))
		return false;
	vhost.vring[msg->state.index].base = msg->state.num;
	return true;
}

static bool get_base(struct sim *sim, struct vhost_message *msg)
{
	if (!check_queue(sim, msg, msg->state.index))
		return false;
	vhost_stop_queue(sim, msg->state.index);
	/* The monitor sets the queue up again before it starts it again. */
	vhost_replace_fd(&vhost.vring[msg->state.index].kick, -1);
	msg->state.num = vhost.vring[msg->state.index].base;
	return true;
}

static bool set_enabled(struct sim *sim, struct vhost_message *msg)
{
	unsigned int queue = msg->state.index;

	if (!check_queue(sim, msg, queue))
		return false;
	vhost.vring[queue].enabled = msg->state.num;
	if (msg->state.num)
		return vhost_start_queue(sim, queue, msg);
	vhost_stop_queue(sim, queue);
	return true;
}

/* Take the file descriptor of a message on a queue; *fd is -1 if it has none. */
static bool take_fd(const struct sim *sim, struct vhost_message *msg,
		    unsigned int *queue, int *fd)
{
	bool none = msg->number & VHOST_FD_NONE;

	*fd = -1;
	*queue = msg->number & VHOST_FD_INDEX;
	if (!check_queue(sim, msg, *queue))
		return false;
	if (none != !msg->nr_fds)
		return vhost_refuse(msg, "queue %u: number %#" PRIx64 " and %u files",
				    *queue, msg->number, msg->nr_fds);
	if (!none)
		*fd = msg->fds[0];
	msg->fds[0] = -1;
	return true;
}

static bool set_kick(struct sim *sim, struct vhost_message *msg)
{
	unsigned int queue;
	int fd;

	if (!take_fd(sim, msg, &queue, &fd))
		return false;
	if (fd < 0)
		return vhost_refuse(msg, "queue %u: no file, and this device does not poll",
				    queue);
	/* QEMU's first kick is its own, not the driver's. */
	vhost_read_kicks(fd);
	vhost_replace_fd(&vhost.vring[queue].kick, fd);
	if (loop_add_fd(fd, vhost_kicked, (void *)(uintptr_t)queue))
		return vhost_refuse(msg, "queue %u: no event comes from its file: %s",
				    queue, strerror(errno));
	return vhost_start_queue(sim, queue, msg);
}

static bool set_call(struct sim *sim, struct vhost_message *msg)
{
	struct vhost_queue *vring;
	unsigned int queue;
	int fd;

	if (!take_fd(sim, msg, &queue, &fd))
		return false;
	vring = &vhost.vring[queue];
	vhost_replace_fd(&vring->call, fd);
	/* The monitor need not read the file that it had passed before. */
	if (vring->running && vring->interrupted)
		vhost_signal(fd);
	return true;
}

static bool set_error(struct sim *sim, struct vhost_message *msg)
{
	unsigned int queue;
	int fd;

	if (!take_fd(sim, msg, &queue, &fd))
		return false;
	vhost_replace_fd(&vhost.vring[queue].error, fd);
	return true;
}

static bool get_protocol(struct sim *sim, struct vhost_message *msg)
{
	(void)sim;
	msg->number = PROTOCOL_FEATURES;
	return true;
}

static bool set_protocol(struct sim *sim, struct vhost_message *msg)
{
	(void)sim;
	if (msg->number & ~PROTOCOL_FEATURES)
		return vhost_refuse(msg, "%#" PRIx64 " has features that were not offered; those are %#llx",
				    msg->number, PROTOCOL_FEATURES);
	vhost.protocol = msg->number;
	return true;
}

static bool get_queues(struct sim *sim, struct vhost_message *msg)
{
	msg->number = sim->set.queues;
	return true;
}

static bool set_backend(struct sim *sim, struct vhost_message *msg)
{
	(void)sim;
	if (msg->nr_fds != 1)
		return vhost_refuse(msg, "it has no socket");
	vhost_replace_fd(&vhost.backend, msg->fds[0]);
	msg->fds[0] = -1;
	return true;
}

/* Check that a message on the configuration space has all its bytes. */
static bool check_config(struct vhost_message *msg)
{
	uint32_t size = msg->config.size, offset = msg->config.offset;

	if (msg->header.size != VHOST_CONFIG_HEAD + size)
		return vhost_refuse(msg, "%u bytes of the configuration space in a message of %u",
				    size, msg->header.size);
	return (offset <= sizeof(struct blk_config) &&
		size <= sizeof(struct blk_config) - offset) ||
	       vhost_refuse(msg, "%u bytes at %u of a configuration space of %zu",
			    size, offset, sizeof(struct blk_config));
}

static bool get_config(struct sim *sim, struct vhost_message *msg)
{
	struct blk_config view;

	if (!check_config(msg))
		return false;
	features_show_config(sim, &view);
	memcpy(msg->config.bytes, (uint8_t *)&view + msg->config.offset,
	       msg->config.size);
	vhost.config_news = false;
	return true;
}

/* The driver has written; 5.2.4 has one field that it may write. */
static bool set_config(struct sim *sim, struct vhost_message *msg)
{
	if (!check_config(msg))
		return false;
	if (msg->config.flags ||
	    msg->config.offset != offsetof(struct blk_config, writeback) ||
	    msg->config.size != sizeof(sim->set.config.writeback) ||
	    !(sim->set.features & BIT(BLK_F_CONFIG_WCE)))
		return vhost_refuse(msg, "%u bytes at %u, flags %#x: only writeback can be written, and only with CONFIG_WCE",
				    msg->config.size, msg->config.offset,
				    msg->config.flags);
	sim->set.config.writeback = msg->config.bytes[0];
	if (!sim->watch.quiet)
		fprintf(stderr, "vblksim: the driver has set writeback to %u\n",
			sim->set.config.writeback);
	return true;
}

#define NUMBER	sizeof(uint64_t)
#define STATE	sizeof(struct vhost_vring_state)
#define ADDR	sizeof(struct vhost_vring_addr)
#define ANY	SIZE_MAX

/*
 * All messages: the size of the payload, ANY if the handler checks it, the most files,
 * and the size of the reply, ANY for that of the message.
 */
static const struct kind {
	const char *name;
	size_t size;
	unsigned int fds;
	size_t reply;
	bool (*handle)(struct sim *sim, struct vhost_message *msg);
} kinds[NR_VHOST_REQUESTS] = {
#define KIND(name, size, fds, reply, fn)	\
	[VHOST_##name] = { #name, size, fds, reply, fn }
	KIND(GET_FEATURES, 0, 0, NUMBER, get_features),
	KIND(SET_FEATURES, NUMBER, 0, 0, set_features),
	KIND(SET_OWNER, 0, 0, 0, nothing),
	KIND(RESET_OWNER, 0, 0, 0, nothing),
	KIND(SET_MEM_TABLE, ANY, VHOST_MAX_REGIONS, 0, set_memory),
	KIND(SET_VRING_NUM, STATE, 0, 0, set_size),
	KIND(SET_VRING_ADDR, ADDR, 0, 0, set_addresses),
	KIND(SET_VRING_BASE, STATE, 0, 0, set_base),
	KIND(GET_VRING_BASE, STATE, 0, STATE, get_base),
	KIND(SET_VRING_KICK, NUMBER, 1, 0, set_kick),
	KIND(SET_VRING_CALL, NUMBER, 1, 0, set_call),
	KIND(SET_VRING_ERR, NUMBER, 1, 0, set_error),
	KIND(GET_PROTOCOL_FEATURES, 0, 0, NUMBER, get_protocol),
	KIND(SET_PROTOCOL_FEATURES, NUMBER, 0, 0, set_protocol),
	KIND(GET_QUEUE_NUM, 0, 0, NUMBER, get_queues),
	KIND(SET_VRING_ENABLE, STATE, 0, 0, set_enabled),
	KIND(SET_BACKEND_REQ_FD, 0, 1, 0, set_backend),
	KIND(GET_CONFIG, ANY, 0, ANY, get_config),
	KIND(SET_CONFIG, ANY, 0, 0, set_config),
#undef KIND
};

static const struct kind *find_kind(uint32_t request)
{
	return request < NR_VHOST_REQUESTS && kinds[request].name ?
	       &kinds[request] : NULL;
}

const char *vhost_message_name(uint32_t request)
{
	const struct kind *kind = find_kind(request);

	return kind ? kind->name : NULL;
}

static bool handle(struct sim *sim, struct vhost_message *msg)
{
	const struct kind *kind = find_kind(msg->header.request);

	if (!kind)
		return vhost_refuse(msg, "there is no such message, or its feature was not offered");
	if (kind->size != ANY && msg->header.size != kind->size)
		return vhost_refuse(msg, "it has %u bytes, and must have %zu",
				    msg->header.size, kind->size);
	if (msg->nr_fds > kind->fds)
		return vhost_refuse(msg, "it passes %u files, and can pass %u",
				    msg->nr_fds, kind->fds);
	return kind->handle(sim, msg);
}

static bool answer(struct vhost_message *msg)
{
	size_t size = kinds[msg->header.request].reply;
	bool ask = msg->header.flags & VHOST_NEED_REPLY &&
		   vhost.protocol & BIT(VHOST_PROTOCOL_REPLY_ACK);

	if (!size && !ask)
		return true;
	if (!size) {
		msg->number = 0;
		size = NUMBER;
	}
	if (size == ANY)
		size = msg->header.size;
	return !vhost_reply(vhost.socket, msg, size) ||
	       vhost_refuse(msg, "its reply cannot be sent: %s", strerror(errno));
}

bool vhost_handle(struct sim *sim, struct vhost_message *msg)
{
	return handle(sim, msg) && answer(msg);
}
