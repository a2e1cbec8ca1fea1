/* SPDX-License-Identifier: GPL-2.0 */
/*
 * vblksim: a virtio block device that implements all of VIRTIO 1.4's block
 * chapter, checks what the driver does, and misbehaves on demand.
 *
 *	main.c		start and end
 *	settings.c	the command line and the settings file
 *	loop.c		the event loop: files and timers
 *	vduse.c		a front: /dev/vduse, for the driver of this system
 *	vdpa.c		add the device to the vDPA bus, and delete it
 *	vhost_user.c	a front: vhost-user, for the driver of a guest on this host
 *	vhost_messages.c	what each of its messages does
 *	vhost_socket.c	its sockets
 *	vhost_memory.c	the guest's memory
 *	control.c	commands while it runs
 *	features.c	negotiation, and the device status
 *	ring.c		split and packed rings: chains and used entries
 *	request.c	parse and execute the request of a chain
 *	zoned.c		zones, their states and write pointers
 *	store.c		the data: in memory or in a file
 *	script.c	which requests to treat badly, and how
 *	fuzz.c		a hostile device, from a seed
 *	campaign.c	many hostile devices, one after the other
 *	load.c		programs that use them meanwhile
 *	watch.c		the rules for drivers, and which of them were broken
 *
 * A front passes kicks to ring.c.  ring.c takes chains off the ring, checks
 * them and passes each to request_arrive().  request.c and script.c decide how
 * to answer it, and call ring_complete() at the end.  There is one thread.
 */
#ifndef VBLKSIM_H
#define VBLKSIM_H

#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "blk.h"
#include "watch.h"

#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))

#define SECTOR_SIZE	512u
#define MAX_QUEUES	64u
#define MAX_RING	32768u

struct sim;
struct queue;
struct zones;
struct store;
struct script;
struct fuzz;

/**
 * struct settings - properties of the device, from the command line and files
 * @name: name of the device on the vDPA bus and in messages
 * @features: offered feature bits, including those of the transport and rings
 * @required: offered features that the driver must accept
 * @queues: number of virtqueues; num_queues may have another value
 * @ring_size: the largest ring that the driver may set up
 * @config: the configuration space, little-endian as the driver reads it
 * @id: the answer to GET_ID, without a NUL if it has 20 characters
 * @file: file for the data, NULL for memory
 * @lifetime: the answer to GET_LIFETIME
 * @zone_conventional: number of conventional zones, from zone 0 on
 * @zone_capacity: writable sectors of each sequential zone, 0 for all
 * @report: file for the report at the end, NULL for standard output
 * @control: path of the control socket
 * @socket: path of the socket of vhost-user, NULL for VDUSE
 * @attach: add the device to the vDPA bus, so that the guest's driver probes it
 * @scripts: lines for script_add(), in order
 * @nr_scripts: number of lines
 * @tolerate: rules that do not change the exit status when broken
 * @fuzz: the device is hostile, and broken rules are not the driver's fault
 * @seed: the seed of the hostile device
 * @mutate: how many of 256 replies it mutates, 0 to derive it from the seed
 */
struct settings {
	char name[64];
	uint64_t features;
	uint64_t required;
	unsigned int queues;
	unsigned int ring_size;
	struct blk_config config;
	char id[BLK_ID_BYTES];
	const char *file;
	struct blk_lifetime lifetime;
	uint32_t zone_conventional;
	uint64_t zone_capacity;
	const char *report;
	const char *control;
	const char *socket;
	bool attach;
	char **scripts;
	unsigned int nr_scripts;
	bool tolerate[NR_RULES];
	bool fuzz;
	uint64_t seed;
	unsigned int mutate;
};

/**
 * struct segment - a piece of a request's memory in this process
 * @base: its address
 * @len: its length in bytes
 * @joined: belongs to the same descriptor as the segment before, because the
 *	descriptor's memory is not contiguous in this process
 */
struct segment {
	uint8_t *base;
	uint32_t len;
	bool joined;
};

/**
 * struct chain - a request from the ring
 * @queue: its queue
 * @id: index of its first descriptor, or the packed ring's buffer ID
 * @descs: number of descriptors of the ring that it takes
 * @out: segments that the device reads
 * @in: segments that the device writes
 * @nr_out: number of segments that the device reads
 * @nr_in: number of segments that the device writes
 * @out_len: total length of @out, in bytes
 * @in_len: total length of @in, in bytes
 * @number: counts the device's requests from 1 on
 * @life: the queue's life; each time the driver starts the queue, a new one
 *	begins
 * @next: for lists of script.c and request.c
 */
struct chain {
	struct queue *queue;
	uint16_t id;
	uint16_t descs;
	struct segment *out;
	struct segment *in;
	unsigned int nr_out;
	unsigned int nr_in;
	uint64_t out_len;
	uint64_t in_len;
	uint64_t number;
	uint32_t life;
	struct chain *next;
};

/**
 * struct sim - the device
 * @set: its settings; @set.config changes with the device
 * @status: the last status byte that the driver wrote and the device accepted
 * @driver_features: the negotiated features; valid from FEATURES_OK on
 * @queue: the virtqueues, @set.queues of them
 * @store: the data
 * @zones: NULL unless the device is zoned (model HM or HA)
 * @script: how to treat requests badly
 * @fuzz: the state of a hostile device, NULL for others
 * @watch: the rules and their counters
 * @requests: number of received requests
 * @was_reset: the driver has reset the device since its creation
 * @mute: push used entries without an interrupt
 * @front: operations of the front
 */
struct sim {
	struct settings set;
	uint8_t status;
	uint64_t driver_features;
	struct queue *queue;
	struct store *store;
	struct zones *zones;
	struct script *script;
	struct fuzz *fuzz;
	struct watch watch;
	uint64_t requests;
	bool was_reset;
	bool mute;
	struct front *front;
};

/**
 * has_feature() - was a feature negotiated?
 * @sim: the device
 * @bit: the feature's number
 */
static inline bool has_feature(const struct sim *sim, unsigned int bit)
{
	return sim->driver_features & (1ull << bit);
}

/* settings.c */
void settings_init(struct settings *set);
/* return -1 to continue with @set, else the exit status, after a message */
int settings_parse(struct settings *set, int argc, char **argv);
int settings_set_config(struct settings *set, const char *field,
			const char *value, char *why, size_t why_size);
/* return the n-th field's name and size, NULL after the last */
const char *settings_field(unsigned int n, size_t *bytes);

/* loop.c */
struct loop_timer;
typedef void (*loop_fn)(struct sim *sim, void *arg);
int loop_add_fd(int fd, loop_fn fn, void *arg);
void loop_del_fd(int fd);
struct loop_timer *loop_after(uint64_t ns, loop_fn fn, void *arg);
void loop_cancel(struct loop_timer *timer);
void loop_stop(void);
int loop_run(struct sim *sim);

/*
 * Operations of the front, which is between ring.c and the driver.  vduse.c has
 * a front for this system's driver, vhost_user.c one for a guest's, the self test one
 * for rings in its memory.
 */
struct front {
	/* map a driver's address: return NULL unless all of [addr, addr + len)
	 * is accessible (for writing if @write); *run is the length that is
	 * contiguous in this process */
	void *(*map)(struct sim *sim, uint64_t addr, uint64_t len, bool write,
		     uint64_t *run);
	void (*interrupt)(struct sim *sim, unsigned int queue);
	void (*config_changed)(struct sim *sim);
	/* return the features that the driver has written */
	uint64_t (*features)(struct sim *sim);
	/* set DEVICE_NEEDS_RESET; returns false, or is NULL, if not possible */
	bool (*needs_reset)(struct sim *sim);
	/* the device has stopped a queue after an error; may be NULL */
	void (*broken)(struct sim *sim, unsigned int queue);
	/* lose the monitor, which may come back; NULL if there is none */
	void (*disconnect)(struct sim *sim);
	/* begin to end the device: end the loop, now or when the driver is gone */
	void (*stop)(struct sim *sim);
	/* return -1 after any error, now or before */
	int (*close)(struct sim *sim);
};

/* ring.c */
struct queue_addresses {
	uint16_t size;
	uint64_t desc;
	uint64_t driver;	/* available ring, or driver event suppression */
	uint64_t device;	/* used ring, or device event suppression */
	uint16_t avail_index;	/* index to start at */
	bool avail_wrap;	/* the packed ring's wrap counter there */
};

int ring_init(struct sim *sim);
void ring_free(struct sim *sim);
int ring_start(struct sim *sim, unsigned int queue,
	       const struct queue_addresses *where);
void ring_stop(struct sim *sim, unsigned int queue);
/* the driver has kicked the device that many times; 0 to poll without a kick */
void ring_kicked(struct sim *sim, unsigned int queue, uint64_t times);
/* return the device's position in the queue, for a later ring_start() */
void ring_state(const struct sim *sim, unsigned int queue,
		struct queue_addresses *where);
/* memory has new addresses from now on: map the rings again when needed */
void ring_remap(struct sim *sim);
/* call this periodically: finds requests that the driver did not kick for */
void ring_check_idle(struct sim *sim);
/* return chains that chain_free() kept from the driver, with length 0 */
void ring_return_lost(struct sim *sim);
unsigned int ring_index(const struct queue *queue);
/* push a chain to the used ring, interrupt unless suppressed, and free it */
void ring_complete(struct sim *sim, struct chain *chain, uint32_t written);
/* the same for a used entry with any contents, and without a chain */
void ring_push_used(struct sim *sim, unsigned int queue, uint32_t id,
		    uint16_t descs, uint32_t written);
/* clear NEXT in a chain's first descriptor, in the memory of a split ring */
void ring_cut(struct chain *chain);
/* free a chain that the device never answers */
void chain_free(struct chain *chain);
/* copy from or to a chain at an offset; return the number of bytes copied */
size_t chain_read(const struct chain *chain, size_t offset, void *to,
		  size_t len);
size_t chain_write(const struct chain *chain, size_t offset, const void *from,
		   size_t len);

/* features.c: negotiation, checked when the driver sets FEATURES_OK */
const char *feature_name(unsigned int bit);
int feature_number(const char *name);
/* return all implemented features, and those that are offered by default */
uint64_t features_all(void);
uint64_t features_default(void);
bool features_accept(struct sim *sim, uint64_t driver_features);
/* the configuration space for a driver with the negotiated features */
void features_show_config(const struct sim *sim, struct blk_config *view);
/* handle a status byte of the driver; return whether the device accepts it */
bool status_written(struct sim *sim, uint8_t status);
/* the same for a front that sees no status but knows that the driver has set DRIVER_OK:
 * the rules on the status are not checked */
bool status_inferred(struct sim *sim);

/* request.c */

/**
 * struct request - the parsed request of a chain
 * @chain: the chain
 * @type: type of the request
 * @reserved: the header's second word
 * @sector: the header's sector
 * @has_header: the header is complete; else the fields above are 0
 * @out_data: bytes of data that the device reads, after the header
 * @in_data: bytes of data that the device writes, before append_sector of
 *	ZONE_APPEND and the status byte
 */
struct request {
	struct chain *chain;
	uint32_t type;
	uint32_t reserved;
	uint64_t sector;
	bool has_header;
	uint64_t out_data;
	uint64_t in_data;
};

const char *request_type_name(uint32_t type);
/* return the number of a type's name, including "read" and "write", or -1 */
int request_type_number(const char *name);
void request_parse(struct request *req, struct chain *chain);
/* does it touch any of the sectors from first to last? */
bool request_touches(const struct request *req, uint64_t first, uint64_t last);
/* check a chain against the rules; then call the script or request_execute() */
void request_arrive(struct sim *sim, struct chain *chain);
/* execute a chain's request and answer it */
void request_execute(struct sim *sim, struct chain *chain);
/* the first half: execute it, and fill the in segments up to the status byte */
uint8_t request_run(struct sim *sim, const struct request *req);
/* the second half: set the status byte, and push the chain to the used ring */
void request_answer(struct sim *sim, struct chain *chain, uint8_t status);
/* answer with a status, without executing anything */
void request_fail(struct sim *sim, struct chain *chain, uint8_t status);
/* the device was reset: drop pending requests */
void request_reset(struct sim *sim);

/* store.c */
struct store *store_open(const char *file, uint64_t sectors);
void store_close(struct store *store);
int store_resize(struct store *store, uint64_t sectors);
int store_read(struct store *store, uint64_t offset, void *to, size_t len);
int store_write(struct store *store, uint64_t offset, const void *from,
		size_t len);
int store_zero(struct store *store, uint64_t offset, uint64_t len, bool unmap);
int store_flush(struct store *store);
/* overwrite with zeroes, also where unmapping would be enough */
int store_erase(struct store *store, uint64_t offset, uint64_t len);

/* zoned.c: all except zones_new(), zones_free() also work without zones */
struct zones *zones_new(const struct settings *set);
void zones_free(struct zones *zones);
/* are there zones, and has the driver negotiated ZONED? */
bool zones_used(const struct sim *sim);
/* sectors of a zone, also if the configuration has changed; 0 without zones */
uint32_t zones_sectors(const struct sim *sim);
/* check a write or an append against the rules on zones, before its execution */
void zones_watch(struct sim *sim, const struct request *req);
/* is it the first sector of a zone? */
bool zones_at_start(struct sim *sim, uint64_t sector);
uint8_t zones_check_read(struct sim *sim, uint64_t sector, uint64_t sectors);
uint8_t zones_check_discard(struct sim *sim, uint64_t sector, uint64_t sectors);
/* return how many sectors from one on are all written, or all not written */
uint64_t zones_run(struct sim *sim, uint64_t sector, bool *written);
uint8_t zones_write(struct sim *sim, uint64_t sector, uint64_t sectors);
uint8_t zones_append(struct sim *sim, uint64_t sector, uint64_t sectors,
		     uint64_t *where);
uint8_t zones_manage(struct sim *sim, uint32_t type, uint64_t sector);
/* a secure erase resets the zones of its range */
uint8_t zones_erase(struct sim *sim, uint64_t sector, uint64_t sectors);
uint64_t zones_report(struct sim *sim, uint64_t sector,
		      struct blk_zone_descriptor *to, uint64_t most);
/* for control.c: "offline", "readonly"... */
int zones_force(struct sim *sim, uint64_t zone, const char *state);

/* script.c */
struct script *script_new(void);
void script_free(struct script *script);
/* add a line; return 0, or -1 with the error in *why */
int script_add(struct script *script, const char *line, char *why,
	       size_t why_size);
void script_clear(struct script *script);
/* does the script answer this request? */
bool script_takes(struct sim *sim, struct chain *chain);
/* apply the action of that name to a request, without any line */
void script_treat(struct sim *sim, struct chain *chain, const char *name,
		  uint64_t value);
void script_reset(struct sim *sim);
/* execute all held requests; return their number */
unsigned int script_release(struct sim *sim);
void script_help(FILE *out);

/* main.c */
/* run a device until it is told to end; return the exit status */
int simulate(int argc, char **argv);
/* the device is about to be removed, and the driver waits for all its requests: drop
 * the script, and return what was and will be lost, unless the device is stubborn */
void calm_down(struct sim *sim);

/* control.c */
int control_open(struct sim *sim);
void control_close(struct sim *sim);
int control_main(int argc, char **argv);

/* the fronts: set sim->front, and return -1 after a message if that fails */
int vduse_open(struct sim *sim);
int vhost_user_open(struct sim *sim);

#endif /* VBLKSIM_H */
