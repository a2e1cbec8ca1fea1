/* SPDX-License-Identifier: GPL-2.0 */
/*
 * vblksim: a virtio block device that implements all of VIRTIO 1.3's block
 * chapter, watches what the driver does, and misbehaves when told to.
 *
 *	main.c		start and end
 *	settings.c	the command line and the settings file
 *	loop.c		waiting for files and timers
 *	vduse.c		the front: /dev/vduse, and the guest's memory
 *	vdpa.c		putting it on the vDPA bus
 *	control.c	commands while it runs
 *	features.c	negotiation, and the device status
 *	ring.c		split and packed rings: chains come, used entries go
 *	request.c	what a chain asks for, and doing it
 *	zoned.c		zones, their states and write pointers
 *	store.c		the data: in memory or in a file
 *	script.c	which requests to treat badly, and how
 *	fuzz.c		a device that is hostile, out of a seed
 *	campaign.c	many of those, one after the other
 *	load.c		what they are used for meanwhile
 *	watch.c		the rules for drivers, and which of them were broken
 *
 * A front hands kicks to ring.c.  ring.c takes chains off the ring, checks
 * them and hands each to request_arrive(); what becomes of it is up to
 * request.c and script.c, and ends in ring_complete().  One thread does it all.
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
 * struct settings - what the device is to be, from the command line and files
 * @name: name of the device on the vDPA bus and in messages
 * @features: offered feature bits, those of the transport and rings included
 * @required: of them, those without which a driver is not taken
 * @queues: how many virtqueues there are; num_queues may say something else
 * @ring_size: the largest ring that the driver may set up
 * @config: the configuration space, little-endian as the driver reads it
 * @id: what GET_ID answers, without a NUL if it has 20 characters
 * @file: keep the data in this file, NULL for memory
 * @lifetime: what GET_LIFETIME answers
 * @zone_conventional: how many conventional zones there are, from zone 0 on
 * @zone_capacity: sectors of each sequential zone that can be written, 0 for
 *	all of it
 * @report: file to write the report to at the end, NULL for standard output
 * @control: path of the control socket
 * @attach: put the device on the vDPA bus, so that the guest's driver finds it
 * @scripts: lines for script_add(), in their order
 * @nr_scripts: how many lines
 * @tolerate: rules that may be broken, as far as the exit status goes
 * @fuzz: the device is hostile, and broken rules are not the driver's
 * @seed: what that comes from
 * @mutate: how many of 256 replies it mutates, 0 for what the seed says
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
	bool attach;
	char **scripts;
	unsigned int nr_scripts;
	bool tolerate[NR_RULES];
	bool fuzz;
	uint64_t seed;
	unsigned int mutate;
};

/**
 * struct segment - a piece of a request's memory, as this program sees it
 * @base: where it is
 * @len: its length in bytes
 * @joined: goes on with the descriptor of the segment before, whose memory is
 *	not contiguous here; the driver made one of the two
 */
struct segment {
	uint8_t *base;
	uint32_t len;
	bool joined;
};

/**
 * struct chain - a request as it came off the ring
 * @queue: where it came from, and goes back to
 * @id: index of its first descriptor, or the packed ring's buffer ID
 * @descs: how many descriptors of the ring it takes
 * @out: segments that the device reads
 * @in: segments that the device writes
 * @nr_out: how many segments the device reads
 * @nr_in: how many segments the device writes
 * @out_len: their length together, in bytes
 * @in_len: their length together, in bytes
 * @number: counts the device's requests from 1 on
 * @life: of the queue, which begins another when the driver sets it up anew
 * @next: for whoever holds the chain: script.c's and request.c's lists
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
 * @set: what it is to be; @set.config changes as the device does
 * @status: the driver's status byte, as it last wrote it and the device took
 *	it
 * @driver_features: what was negotiated; valid from FEATURES_OK on
 * @queue: the virtqueues, @set.queues of them
 * @store: the data
 * @zones: NULL unless the device is zoned (model HM or HA)
 * @script: what is to go wrong
 * @fuzz: the same for a hostile device, NULL for others
 * @watch: the rules and what was seen
 * @requests: how many have arrived
 * @was_reset: the driver has reset the device since it is there
 * @mute: used entries go on the ring without an interrupt
 * @front: what the virtqueues' front needs
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
/* -1 to go on with @set, or else the status to exit with: all is said */
int settings_parse(struct settings *set, int argc, char **argv);
int settings_set_config(struct settings *set, const char *field,
			const char *value, char *why, size_t why_size);
/* the n-th field's name and size, NULL after the last */
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
 * What ring.c needs of whoever stands between it and the driver.  vduse.c has
 * one for the guest's driver, the tests have one for rings in their memory.
 */
struct front {
	/* memory at a driver's address: NULL unless [addr, addr + len) is all
	 * accessible (for writing if @write); *run is how much of it is
	 * contiguous here */
	void *(*map)(struct sim *sim, uint64_t addr, uint64_t len, bool write,
		     uint64_t *run);
	void (*interrupt)(struct sim *sim, unsigned int queue);
	void (*config_changed)(struct sim *sim);
	/* the features that the driver has written */
	uint64_t (*features)(struct sim *sim);
	/* show the driver DEVICE_NEEDS_RESET; false or NULL if that cannot be */
	bool (*needs_reset)(struct sim *sim);
};

/* ring.c */
struct queue_addresses {
	uint16_t size;
	uint64_t desc;
	uint64_t driver;	/* available ring, or driver event suppression */
	uint64_t device;	/* used ring, or device event suppression */
	uint16_t avail_index;	/* where to start: the split ring's */
	bool avail_wrap;	/* and the packed ring's wrap counter */
};

int ring_init(struct sim *sim);
void ring_free(struct sim *sim);
int ring_start(struct sim *sim, unsigned int queue,
	       const struct queue_addresses *where);
void ring_stop(struct sim *sim, unsigned int queue);
/* the driver has notified the device, that many times; 0 to look for work
 * without that */
void ring_kicked(struct sim *sim, unsigned int queue, uint64_t times);
/* where the device is in the queue, for ring_start() later on */
void ring_state(const struct sim *sim, unsigned int queue,
		struct queue_addresses *where);
/* memory has other addresses from now on: map the rings again when needed */
void ring_remap(struct sim *sim);
/* call now and then: finds work that the driver did not notify of */
void ring_check_idle(struct sim *sim);
/* give back, as not written to, what chain_free() kept from the driver */
void ring_return_lost(struct sim *sim);
unsigned int ring_index(const struct queue *queue);
/* put a chain on the used ring, interrupt unless told not to, and free it */
void ring_complete(struct sim *sim, struct chain *chain, uint32_t written);
/* the same for a used entry of any contents, and without a chain */
void ring_push_used(struct sim *sim, unsigned int queue, uint32_t id,
		    uint16_t descs, uint32_t written);
/* clear NEXT in a chain's first descriptor, in the memory of a split ring */
void ring_cut(struct chain *chain);
/* free a chain that is never to be answered */
void chain_free(struct chain *chain);
/* copy out of, or into, a chain from an offset on; return how much there was */
size_t chain_read(const struct chain *chain, size_t offset, void *to,
		  size_t len);
size_t chain_write(const struct chain *chain, size_t offset, const void *from,
		   size_t len);

/* features.c: negotiation, checked when the driver sets FEATURES_OK */
const char *feature_name(unsigned int bit);
int feature_number(const char *name);
/* all that this program implements, and the ones it offers unless told else */
uint64_t features_all(void);
uint64_t features_default(void);
bool features_accept(struct sim *sim, uint64_t driver_features);
/* the configuration space as a driver with these features is to see it */
void features_show_config(const struct sim *sim, struct blk_config *view);
/* each status byte that the driver writes; tells whether the device takes it */
bool status_written(struct sim *sim, uint8_t status);

/* request.c */

/**
 * struct request - what a chain asks for
 * @chain: the chain
 * @type: kind of request
 * @reserved: the header's second word
 * @sector: where, for the types that say it in the header
 * @has_header: the header is all there; else what is above reads as 0
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
/* number of a type's name, "read" and "write" included, -1 for none */
int request_type_number(const char *name);
void request_parse(struct request *req, struct chain *chain);
/* does it touch any of the sectors from first to last? */
bool request_touches(const struct request *req, uint64_t first, uint64_t last);
/* hold a chain against the rules; then the script or request_execute() */
void request_arrive(struct sim *sim, struct chain *chain);
/* do what a chain asks for and answer it */
void request_execute(struct sim *sim, struct chain *chain);
/* the first half: do it, and fill the in segments up to the status byte */
uint8_t request_run(struct sim *sim, const struct request *req);
/* the second half: put the status into the last byte, and use the chain */
void request_answer(struct sim *sim, struct chain *chain, uint8_t status);
/* answer without doing anything: status goes into the last byte */
void request_fail(struct sim *sim, struct chain *chain, uint8_t status);
/* the device was reset: forget what is pending */
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
/* overwrite with zeroes, also where zeroes could be had for less */
int store_erase(struct store *store, uint64_t offset, uint64_t len);

/* zoned.c: all but zones_new(), zones_free() are fine without zones */
struct zones *zones_new(const struct settings *set);
void zones_free(struct zones *zones);
/* are there zones, and does the driver know about them? */
bool zones_used(const struct sim *sim);
/* sectors of a zone, which the configuration may no longer tell; 0 without */
uint32_t zones_sectors(const struct sim *sim);
/* hold the rules on zones against a write or an append, before it is done */
void zones_watch(struct sim *sim, const struct request *req);
/* is it the first sector of a zone? */
bool zones_at_start(struct sim *sim, uint64_t sector);
uint8_t zones_check_read(struct sim *sim, uint64_t sector, uint64_t sectors);
uint8_t zones_check_discard(struct sim *sim, uint64_t sector, uint64_t sectors);
/* how many sectors from one on are alike, and whether they were written */
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
/* add a line; 0, or -1 with *why telling what is wrong with it */
int script_add(struct script *script, const char *line, char *why,
	       size_t why_size);
void script_clear(struct script *script);
/* does the script take this request over?  If so it is answered there. */
bool script_takes(struct sim *sim, struct chain *chain);
/* treat a request in the way of that name, whatever the lines say */
void script_treat(struct sim *sim, struct chain *chain, const char *name,
		  uint64_t value);
void script_reset(struct sim *sim);
/* execute what is held; return how many requests that were */
unsigned int script_release(struct sim *sim);
void script_help(FILE *out);

/* main.c: be a device until told to end; the exit status */
int simulate(int argc, char **argv);

/* control.c */
int control_open(struct sim *sim);
void control_close(struct sim *sim);
int control_main(int argc, char **argv);

/* vduse.c */
int vduse_open(struct sim *sim);
/* take the device from the driver, and end the loop when that is done */
void vduse_stop(struct sim *sim);
/* -1 if something went wrong, then or before */
int vduse_close(struct sim *sim);

#endif /* VBLKSIM_H */
