/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The vhost-user protocol, of QEMU's docs/interop/vhost-user.rst: its messages, the
 * connection to a monitor, and the memory that a monitor shares.  All numbers are in
 * the byte order of this machine.
 */
#ifndef VBLKSIM_VHOST_USER_H
#define VBLKSIM_VHOST_USER_H

#include <linux/vhost_types.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vblksim.h"

#define VHOST_MAX_REGIONS	8u
#define VHOST_MAX_CONFIG	256u

/* In GET_FEATURES and SET_FEATURES: there are protocol features. */
#define VHOST_F_PROTOCOL	30

enum vhost_protocol_feature {
	VHOST_PROTOCOL_MQ		= 0,
	VHOST_PROTOCOL_REPLY_ACK	= 3,
	VHOST_PROTOCOL_BACKEND_REQ	= 5,
	VHOST_PROTOCOL_CONFIG		= 9,
};

/* Requests of the monitor. */
enum vhost_request {
	VHOST_GET_FEATURES		= 1,
	VHOST_SET_FEATURES		= 2,
	VHOST_SET_OWNER			= 3,
	VHOST_RESET_OWNER		= 4,
	VHOST_SET_MEM_TABLE		= 5,
	VHOST_SET_VRING_NUM		= 8,
	VHOST_SET_VRING_ADDR		= 9,
	VHOST_SET_VRING_BASE		= 10,
	VHOST_GET_VRING_BASE		= 11,
	VHOST_SET_VRING_KICK		= 12,
	VHOST_SET_VRING_CALL		= 13,
	VHOST_SET_VRING_ERR		= 14,
	VHOST_GET_PROTOCOL_FEATURES	= 15,
	VHOST_SET_PROTOCOL_FEATURES	= 16,
	VHOST_GET_QUEUE_NUM		= 17,
	VHOST_SET_VRING_ENABLE		= 18,
	VHOST_SET_BACKEND_REQ_FD	= 21,
	VHOST_GET_CONFIG		= 24,
	VHOST_SET_CONFIG		= 25,
	NR_VHOST_REQUESTS,
};

/* Requests of the device, on a socket of their own. */
enum vhost_backend_request {
	VHOST_CONFIG_CHANGE		= 2,
};

enum vhost_flag {
	VHOST_VERSION			= 1,
	VHOST_VERSION_MASK		= 3,
	VHOST_REPLY			= 1 << 2,
	VHOST_NEED_REPLY		= 1 << 3,
};

/* The number of a vring's eventfd: its index, and whether there is no eventfd. */
#define VHOST_FD_INDEX		0xffu
#define VHOST_FD_NONE		0x100u

struct vhost_header {
	uint32_t request;
	uint32_t flags;
	uint32_t size;
};

/**
 * struct vhost_region - a piece of the guest's memory
 * @guest: its address in the guest
 * @size: its length in bytes
 * @user: its address in the monitor, in which it gives the rings' addresses
 * @offset: where it begins in the file
 */
struct vhost_region {
	uint64_t guest;
	uint64_t size;
	uint64_t user;
	uint64_t offset;
};

/**
 * struct vhost_message - a message of the monitor, and the reply to it
 * @header: its header
 * @number: GET and SET_FEATURES, and all that pass an eventfd
 * @state: SET_VRING_NUM, BASE, ENABLE
 * @addr: SET_VRING_ADDR
 * @memory: SET_MEM_TABLE
 * @config: GET_CONFIG and SET_CONFIG
 * @fds: file descriptors that came with it, -1 for those that a handler has taken
 * @nr_fds: their number
 * @why: the error, if it is refused
 */
struct vhost_message {
	struct vhost_header header;
	union {
		uint64_t number;
		struct vhost_vring_state state;
		struct vhost_vring_addr addr;
		struct {
			uint32_t count;
			uint32_t padding;
			struct vhost_region region[VHOST_MAX_REGIONS];
		} memory;
		struct {
			uint32_t offset;
			uint32_t size;
			uint32_t flags;
			uint8_t bytes[VHOST_MAX_CONFIG];
		} config;
	};
	int fds[VHOST_MAX_REGIONS];
	unsigned int nr_fds;
	char why[256];
};

#define VHOST_CONFIG_HEAD	(3 * sizeof(uint32_t))

/* Write an error to msg->why; returns false. */
bool vhost_refuse(struct vhost_message *msg, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* vhost_socket.c: the connection; one process, one monitor at a time */

/* Listen at a path; returns the socket, or -1 after a message. */
int vhost_listen(const char *path);
/* Read a message; returns 1, 0 at the end of the connection, -1 with @msg->why.
 * vhost_release() closes its file descriptors. */
int vhost_receive(int fd, struct vhost_message *msg);
/* Send @msg back, with @size bytes of payload. */
int vhost_reply(int fd, struct vhost_message *msg, size_t size);
/* Send a request without payload that needs no reply; never waits, and returns -1
 * with EAGAIN if the socket is full. */
int vhost_notify(int fd, enum vhost_backend_request request);
void vhost_release(struct vhost_message *msg);

/* vhost_memory.c: the guest's memory */

/* Map the regions of SET_MEM_TABLE in place of the old ones, which stay mapped until
 * vhost_memory_trim(), because chains may point to them. */
bool vhost_memory_set(struct vhost_message *msg);
void vhost_memory_trim(void);
void vhost_memory_free(void);
/* As struct front's map. */
void *vhost_memory_map(uint64_t addr, uint64_t len, uint64_t *run);
/* Return the guest's address of one in the monitor; false if there is none. */
bool vhost_memory_guest(uint64_t user, uint64_t *guest);

/**
 * struct vhost_queue - what the monitor has said of a queue
 * @size: its number of entries, 0 before that
 * @addr: its addresses in the monitor; descriptors are at 0 before that
 * @base: the position to start at, as the protocol has it
 * @kick: becomes readable when the driver has kicked, or -1
 * @call: to be written for an interrupt, or -1
 * @error: to be written when the device stops the queue, or -1
 * @enabled: the device may process it
 * @running: ring.c processes it
 * @interrupted: there was an interrupt that @call may not have passed to the driver
 */
struct vhost_queue {
	unsigned int size;
	struct vhost_vring_addr addr;
	uint32_t base;
	int kick;
	int call;
	int error;
	bool enabled;
	bool running;
	bool interrupted;
};

/**
 * struct vhost - the front
 * @front: for ring.c
 * @listener: the socket that a monitor connects to
 * @socket: the connection to the monitor, or -1
 * @backend: the monitor's socket for requests of this device, or -1
 * @features: the features that the driver has accepted, and VHOST_F_PROTOCOL
 * @protocol: the protocol features that the monitor has accepted
 * @refused: the device does not work with @features
 * @vring: the queues
 * @config_news: the monitor has not read the configuration space since it changed
 * @config_timer: tells the monitor so again
 * @failed: a monitor has sent a message that is not valid
 */
struct vhost {
	struct front front;
	int listener;
	int socket;
	int backend;
	uint64_t features;
	uint64_t protocol;
	bool refused;
	struct vhost_queue vring[MAX_QUEUES];
	bool config_news;
	struct loop_timer *config_timer;
	bool failed;
};

extern struct vhost vhost;

/* vhost_user.c: queues */

/* Start a queue if all of it is known and it is enabled; false with msg->why. */
bool vhost_start_queue(struct sim *sim, unsigned int queue,
		       struct vhost_message *msg);
/* Stop a queue, and reset the device with its last one; its base is then current. */
void vhost_stop_queue(struct sim *sim, unsigned int queue);
/* For the loop: a queue's eventfd is readable. */
void vhost_kicked(struct sim *sim, void *queue);
/* Return how often an eventfd was written, and never wait. */
uint64_t vhost_read_kicks(int fd);
void vhost_signal(int fd);
/* Close a file descriptor, and put another one in its place. */
void vhost_replace_fd(int *fd, int by);

/* vhost_messages.c */

/* Do what a message says, and reply if it asks for that; false with msg->why. */
bool vhost_handle(struct sim *sim, struct vhost_message *msg);
/* Return the name of a message, NULL if there is none of that number. */
const char *vhost_message_name(uint32_t request);

#endif /* VBLKSIM_VHOST_USER_H */
