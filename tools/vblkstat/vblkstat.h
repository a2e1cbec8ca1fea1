/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The data of vblkstat, and the interfaces of its files.
 *
 * machine_read() reads a machine's virtio-blk disks into a struct machine.  A value
 * that is missing or invalid is UNKNOWN, an empty string, or a set of CPUs that is
 * not known.  The code does not trust the contents of any file.
 */
#ifndef VBLKSTAT_H
#define VBLKSTAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdnoreturn.h>

/* The value of a number that is not known. */
#define UNKNOWN			UINT64_MAX

/* Limits, whatever the files claim. */
#define MAX_CPUS		4096
#define MAX_DISKS		1024
#define MAX_QUEUES		1024	/* of one disk */
#define MAX_ALL_QUEUES		16384
#define MAX_INTERRUPTS		65536
#define MAX_FEATURES		128
#define MAX_TEXT		8192	/* of a file */

/* Have the compiler check arguments against the format, as for printf(). */
#define __printf(a, b)	__attribute__((__format__(__printf__, a, b)))

#define ARRAY_SIZE(array)	(sizeof(array) / sizeof((array)[0]))

enum exit_status {
	ALL_WELL	= 0,
	HAS_FINDINGS	= 1,
	FAILED		= 2,
};

/* Feature bits that vblkstat uses: VIRTIO 1.3, 5.2.3 and 6. */
enum feature {
	F_FLUSH		= 9,
	F_MQ		= 12,
	F_INDIRECT_DESC	= 28,
	F_EVENT_IDX	= 29,
};

struct cpus {
	bool known;
	uint64_t bits[MAX_CPUS / 64];
};

/* Lines of a queue's file in debugfs that have one number. */
enum counter {
	C_IRQ, C_RING, C_FREE, C_IN_FLIGHT, C_STOPPED,
	C_READS, C_READ_BYTES, C_WRITES, C_WRITE_BYTES, C_FLUSHES,
	C_DISCARDS, C_DISCARD_BYTES, C_WRITE_ZEROES, C_WRITE_ZEROES_BYTES,
	C_SECURE_ERASES, C_SECURE_ERASE_BYTES, C_ZONE_APPENDS,
	C_ZONE_APPEND_BYTES, C_ZONE_OPS, C_QUERIES,
	C_KICKS, C_KICKS_SUPPRESSED, C_INTERRUPTS, C_RING_FULL, C_REQUEUES,
	C_IOERR, C_UNSUPP, C_OTHER_ERRORS, C_LONGEST_WAIT_MS, C_TIMEOUTS,
	C_LOST_INTERRUPTS, C_RESENT,
	NR_COUNTERS
};

/* Polls of the ring by the requests they found: 0, 1, 2-3, 4-7, ..., 32. */
#define NR_BATCHES	7

/* The interrupt that a queue uses. */
enum vector {
	VECTOR_NONE,		/* none, or not visible */
	VECTOR_OWN,		/* virtioM-req.N */
	VECTOR_SHARED,		/* virtioM-virtqueues, shared by all queues */
	VECTOR_DEVICE,		/* virtioM, the only one of the device */
};

/**
 * struct queue - a queue of a disk
 * @type: default, read or poll; empty if not known
 * @depth: limit of requests in flight
 * @busy: requests in flight according to blk-mq
 * @interrupts: count of its interrupt, also if that is shared
 * @affinity: CPUs to which its interrupt may go
 * @effective: CPUs to which its interrupt goes
 * @counted: the driver has counters of the queue
 */
struct queue {
	unsigned int index;
	char type[12];
	struct cpus cpus;
	uint64_t depth;
	uint64_t busy;
	enum vector vector;
	uint64_t irq;
	uint64_t interrupts;
	struct cpus affinity;
	struct cpus effective;
	bool counted;
	uint64_t counter[NR_COUNTERS];
	uint64_t batches[NR_BATCHES];
};

/* The fields of /sys/block/vdX/stat, times in ms. */
enum figure {
	S_READS, S_READ_MERGES, S_READ_SECTORS, S_READ_MS,
	S_WRITES, S_WRITE_MERGES, S_WRITE_SECTORS, S_WRITE_MS,
	S_IN_FLIGHT, S_BUSY_MS, S_QUEUE_MS,
	S_DISCARDS, S_DISCARD_MERGES, S_DISCARD_SECTORS, S_DISCARD_MS,
	S_FLUSHES, S_FLUSH_MS,
	NR_STATS
};

/**
 * struct disk - a disk
 * @device: name on the virtio bus, "virtio2"
 * @driver: name of the device's driver
 * @version: version of the driver's module
 * @ours: the driver is this project's, not the in-tree driver
 * @transport: pci, mmio, ccw or vdpa
 * @seq: sequence number; differs if another disk gets the same name
 * @in_flight: requests in flight according to the block layer
 * @cache_type: write cache mode according to the driver
 * @write_cache: write cache mode according to the block layer
 * @when: when the disk was read, in seconds of CLOCK_MONOTONIC
 */
struct disk {
	char name[16];
	char device[32];
	char driver[32];
	char version[64];
	bool ours;
	char state[24];
	char transport[16];
	uint64_t seq;
	uint64_t sectors;
	uint64_t read_only;
	uint64_t in_flight;
	uint64_t iostats;
	char cache_type[24];
	char write_cache[24];
	char scheduler[24];
	char zoned[24];
	bool features_known;
	bool features[MAX_FEATURES];
	uint64_t stat[NR_STATS];
	uint64_t timeouts;
	uint64_t lost_interrupts;
	uint64_t resets;
	double when;
	struct queue *queues;
	unsigned int nr_queues;
};

/**
 * struct machine - the state of a machine at one time
 * @live: the files are of the running kernel, not a copy
 * @online: CPUs that are online
 */
struct machine {
	bool live;
	struct cpus online;
	struct disk *disks;
	unsigned int nr_disks;
	struct interrupts *interrupts;
};

/**
 * struct request - the command line
 * @disks: names of the disks; empty: all disks
 * @interval: seconds between two samples
 * @count: how many samples watch prints; 0: no limit
 */
struct request {
	bool json;
	char **disks;
	unsigned int nr_disks;
	double interval;
	unsigned long count;
};

/* file.c */
extern const char *root;
bool read_text(char *text, size_t size, const char *format, ...)
	__printf(3, 4);
uint64_t read_number(const char *format, ...)
	__printf(1, 2);
bool read_link(char *name, size_t size, const char *format, ...)
	__printf(3, 4);
bool ask_device(char *text, size_t size, const char *disk, const char *file);
FILE *open_file(const char *path);
bool root_path(char *path, size_t size, const char *format, ...)
	__printf(3, 4);
uint64_t parse_number(const char *text, char **end);
void copy_text(char *to, size_t size, const char *from);
void *grow(void *array, unsigned int count, size_t size);
noreturn void fail(const char *format, ...) __printf(1, 2);

/* cpus.c */
void cpus_parse(struct cpus *set, const char *text);
void cpus_read(struct cpus *set, const char *format, ...)
	__printf(2, 3);
bool cpus_has(const struct cpus *set, unsigned int cpu);
unsigned int cpus_count(const struct cpus *set);
void cpus_and(struct cpus *set, const struct cpus *other);
bool cpus_equal(const struct cpus *one, const struct cpus *other);
const char *cpus_text(const struct cpus *set);

/* interrupts.c */
struct interrupts *interrupts_read(void);
void interrupts_free(struct interrupts *table);
void interrupts_find(const struct interrupts *table, const char *device,
		     struct queue *queue);

/* counters.c */
extern const char *const counter_names[NR_COUNTERS];
void counters_read(const struct disk *disk, struct queue *queue);
uint64_t counters_requests(const struct queue *queue);
uint64_t counters_bytes(const struct queue *queue);

/* disk.c */
bool machine_read(struct machine *machine, const struct request *request);
void machine_free(struct machine *machine);
int machine_show(const struct request *request,
		 void (*json)(const struct machine *machine),
		 void (*text)(const struct machine *machine));
struct disk *machine_disk(const struct machine *machine, const char *name);
unsigned int disk_queues(const struct disk *disk, const char *type);
uint64_t queue_in_flight(const struct queue *queue);

/* features.c */
const char *feature_name(unsigned int bit);
const char *feature_words(unsigned int bit);

/* notes.c */
void note(const char *format, ...) __printf(1, 2);
void notes_print(FILE *out);
unsigned int notes_count(void);
const char *notes_text(unsigned int index);

/* table.c */
struct column {
	const char *name;
	bool left;
};

struct table {
	const struct column *columns;
	unsigned int nr_columns;
	char **cells;
	unsigned int nr_cells;
};

void table_text(struct table *table, const char *format, ...)
	__printf(2, 3);
void table_name(struct table *table, const char *name);
void table_number(struct table *table, uint64_t number);
void table_float(struct table *table, double number, int decimals);
void table_cpus(struct table *table, const struct cpus *cpus);
void table_print(struct table *table, FILE *out);
unsigned int screen_width(void);
void print_wrapped(FILE *out, const char *first, const char *text);

/* json.c */
struct json {
	FILE *out;
	bool comma;
};

void json_open(struct json *json, const char *key, char bracket);
void json_close(struct json *json, char bracket);
void json_text(struct json *json, const char *key, const char *value);
void json_string(struct json *json, const char *key, const char *value);
void json_number(struct json *json, const char *key, uint64_t value);
void json_float(struct json *json, const char *key, double value);
void json_bool(struct json *json, const char *key, bool value);
void json_null(struct json *json, const char *key);
void json_cpus(struct json *json, const char *key, const struct cpus *cpus);
void json_begin(struct json *json, const char *command);
void json_end(struct json *json);

/* list.c, queues.c, watch.c, doctor.c: the commands; each returns its exit status */
int list_main(const struct request *request);
int queues_main(const struct request *request);
int watch_main(const struct request *request);
int doctor_main(const struct request *request);

/* watch.c, for doctor.c */
void pause_until(double when);
double clock_now(void);

#endif /* VBLKSTAT_H */
