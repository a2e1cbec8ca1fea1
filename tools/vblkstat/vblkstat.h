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

#include <dirent.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdnoreturn.h>
#include <sys/types.h>

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

/* Whether files in debugfs can be read. */
enum debugfs {
	DEBUGFS_THERE,
	DEBUGFS_REFUSED,	/* not by this user */
	DEBUGFS_MISSING,	/* the kernel has none */
	DEBUGFS_EMPTY,		/* it is not mounted */
};

enum exit_status {
	ALL_WELL	= 0,
	HAS_FINDINGS	= 1,
	FAILED		= 2,
	CHECK_UNKNOWN	= 3,	/* of check, which is a monitoring plugin */
	INCOMPLETE	= 4,	/* no findings, but doctor could not read everything */
};

/* Feature bits that vblkstat uses: VIRTIO 1.4, 5.2.3 and 6. */
enum feature {
	F_FLUSH		= 9,
	F_MQ		= 12,
	F_DISCARD	= 13,
	F_WRITE_ZEROES	= 14,
	F_LIFETIME	= 15,
	F_SECURE_ERASE	= 16,
	F_ZONED		= 17,
	F_INDIRECT_DESC	= 28,
	F_EVENT_IDX	= 29,
	F_ACCESS_PLATFORM = 33,
};

struct cpus {
	bool known;
	uint64_t bits[MAX_CPUS / 64];
};

/* Lines of a queue's file in debugfs that have one number. */
enum counter {
	C_IRQ, C_RING, C_OWN_RING, C_FREE, C_IN_FLIGHT, C_STOPPED, C_OLDEST_MS,
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

/* Kinds of requests for which the driver measures how long they take. */
enum kind {
	KIND_READS,
	KIND_WRITES,
	KIND_OTHERS,		/* flushes, discards and all the rest */
	NR_KINDS
};

/* Requests by the time that they took: 16-31 ms, 32-63, ..., 32768 or more. */
#define NR_SLOW		12
#define SLOW_MS		16u

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
 * @cpus: CPUs whose requests go to the queue, isolated ones included
 * @depth: limit of requests in flight
 * @busy: requests in flight according to blk-mq
 * @interrupts: count of its interrupt, also if that is shared
 * @affinity: CPUs to which its interrupt may go
 * @effective: CPUs to which its interrupt goes
 * @counted: the driver has counters of the queue
 * @slow: completed requests of each kind by the time that they took
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
	uint64_t slow[NR_KINDS][NR_SLOW];
};

/* Who knows a disk's serial number. */
enum serial_source {
	SERIAL_UNKNOWN,
	SERIAL_DEVICE,		/* the device has answered now */
	SERIAL_UDEV,		/* it answered when the disk was added */
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
 * @address: the device on that bus, "0000:00:05.0"
 * @numbers: major and minor number, "254:0"
 * @serial: serial number as it is, after read_serials(); empty also if there is none
 * @seq: sequence number; differs if another disk gets the same name
 * @in_flight: requests in flight according to the block layer
 * @oldest_ms: time since the oldest request in flight was sent; 0: none in flight
 * @cache_type: write cache mode according to the driver
 * @write_cache: write cache mode according to the block layer
 * @stalls: how often the disk stalled; UNKNOWN with an older driver
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
	char address[64];
	char numbers[16];
	char serial[64];
	enum serial_source serial_source;
	uint64_t seq;
	uint64_t sectors;
	uint64_t read_only;
	uint64_t in_flight;
	uint64_t oldest_ms;
	uint64_t iostats;
	char cache_type[24];
	char write_cache[24];
	char scheduler[24];
	char zoned[24];
	bool features_known;
	bool features[MAX_FEATURES];
	uint64_t stat[NR_STATS];
	uint64_t stalls;
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
 * @time: when they were read, or copied, in seconds since 1970
 * @booted: when the kernel's clock was 0, in seconds since 1970
 * @online: CPUs that are online
 * @isolated: CPUs that the administrator keeps free of other work
 */
struct machine {
	bool live;
	uint64_t time;
	uint64_t booted;
	struct cpus online;
	struct cpus isolated;
	struct disk *disks;
	unsigned int nr_disks;
	struct interrupts *interrupts;
};

/**
 * struct request - the command line
 * @disks: names of the disks, or of the devices for host; empty: all
 * @interval: seconds between two samples
 * @count: how many samples watch prints; 0: no limit
 * @histogram: watch shows a histogram of the time that requests take
 * @clear: doctor only clears the counters
 * @since: doctor leaves out what ended before, in seconds since 1970
 * @since_boot: doctor counts what was cleared, too
 * @warning: thresholds of check, as -w has them
 * @critical: the same for -c
 * @timeout: seconds that check may take, as -t has them
 * @output: the file that export writes; NULL: standard output
 */
struct request {
	bool json;
	char **disks;
	unsigned int nr_disks;
	double interval;
	unsigned long count;
	bool histogram;
	bool clear;
	uint64_t since;
	bool since_boot;
	const char *warning;
	const char *critical;
	const char *timeout;
	const char *output;
};

/* file.c */
extern const char *root;
bool read_text(char *text, size_t size, const char *format, ...)
	__printf(3, 4);
uint64_t read_number(const char *format, ...)
	__printf(1, 2);
bool read_link(char *name, size_t size, const char *format, ...)
	__printf(3, 4);
void read_word(char *to, size_t size, const char *format, ...)
	__printf(3, 4);
bool parent_name(char *name, size_t size, const char *format, ...)
	__printf(3, 4);
ssize_t ask_child(ssize_t (*function)(const char *what, void *data, size_t size),
		  const char *what, void *data, size_t size, int ms);
bool ask_device(char *text, size_t size, const char *disk, const char *file);
bool path_exists(const char *path);
FILE *open_file(const char *path);
bool root_path(char *path, size_t size, const char *format, ...)
	__printf(3, 4);
DIR *open_directory(const char *path);
const char *next_entry(DIR *directory);
enum debugfs debugfs_state(void);
bool sysfs_is_live(void);
uint64_t parse_number(const char *text, char **end);
uint64_t parse_hex(const char *text);
void copy_text(char *to, size_t size, const char *from);
void *grow(void *array, unsigned int count, size_t size);
void fail_as_plugin(void);
noreturn void fail(const char *format, ...) __printf(1, 2);

/* cpus.c */
void cpus_parse(struct cpus *set, const char *text);
void cpus_read(struct cpus *set, const char *format, ...)
	__printf(2, 3);
void cpus_add(struct cpus *set, unsigned int cpu);
bool cpus_has(const struct cpus *set, unsigned int cpu);
unsigned int cpus_count(const struct cpus *set);
void cpus_and(struct cpus *set, const struct cpus *other);
void cpus_or(struct cpus *set, const struct cpus *other);
void cpus_remove(struct cpus *set, const struct cpus *other);
bool cpus_equal(const struct cpus *one, const struct cpus *other);
const char *cpus_text(const struct cpus *set);

/* interrupts.c */
struct interrupts *interrupts_read(void);
void interrupts_free(struct interrupts *table);
void interrupts_find(const struct interrupts *table, const char *device,
		     struct queue *queue);

/* counters.c */
extern const char *const counter_names[NR_COUNTERS];
extern const char *const slow_names[NR_KINDS];
void counters_read(const struct disk *disk, struct queue *queue);
uint64_t counters_requests(const struct queue *queue);
uint64_t counters_bytes(const struct queue *queue);
uint64_t find_growth(uint64_t before, uint64_t now);

/* disk.c */
bool machine_read(struct machine *machine, const struct request *request);
void machine_free(struct machine *machine);
int machine_show(const struct request *request, bool serials,
		 void (*json)(const struct machine *machine),
		 void (*text)(const struct machine *machine));
struct disk *machine_disk(const struct machine *machine, const char *name);
unsigned int disk_queues(const struct disk *disk, const char *type);
uint64_t queue_in_flight(const struct queue *queue);
uint64_t disk_in_flight(const struct disk *disk);
bool queue_is_polled(const struct queue *queue);
uint64_t disk_sent(const struct disk *disk, enum counter counter);
uint64_t disk_slow(const struct disk *disk, enum kind kind, unsigned int index);

/* names.c */
/* Text that names the first items of a list; count counts all of them. */
struct names {
	char text[1024];
	unsigned int count;
};

char *disk_name(const char *word);
void add_name(struct names *names, const char *format, ...)
	__printf(2, 3);

/* clock.c */
const char *clock_text(uint64_t when);
uint64_t clock_parse(const char *text);

/* identity.c */
bool device_answers(const struct machine *machine, const struct disk *disk);
void read_serials(struct machine *machine, bool stored);
bool read_uuid(char *uuid, size_t size);

/* notes.c */
void note(const char *format, ...) __printf(1, 2);
void note_missing(const char *format, ...) __printf(1, 2);
bool notes_complete(void);
bool notes_is_missing(unsigned int index);
void notes_print(FILE *out);
void notes_print_missing(FILE *out);
unsigned int notes_count(void);
const char *notes_text(unsigned int index);

/* table.c */
/**
 * struct column - a column of a table
 * @left: align to the left
 * @narrow: width to which it may be cut on a narrow screen; 0: it is never cut
 */
struct column {
	const char *name;
	bool left;
	unsigned int narrow;
};

struct table {
	const struct column *columns;
	unsigned int nr_columns;
	char **cells;
	unsigned int nr_cells;
};

bool happened(uint64_t count);
double ratio(uint64_t part, uint64_t whole);
const char *size_text(uint64_t sectors);
void table_text(struct table *table, const char *format, ...)
	__printf(2, 3);
void table_name(struct table *table, const char *name);
void table_number(struct table *table, uint64_t number);
void table_float(struct table *table, double number, int decimals);
void table_age(struct table *table, uint64_t ms);
void table_rate(struct table *table, double number);
void table_cpus(struct table *table, const struct cpus *cpus);
void table_print(struct table *table, FILE *out);
unsigned int screen_width(void);
const char *age_text(uint64_t ms);
unsigned int text_width(void);
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

/* features.c */
const char *features_text(const bool *features);
void json_features(struct json *json, const char *key, const bool *features);

/* The files of the commands; each command returns its exit status. */
int list_main(const struct request *request);
int show_main(const struct request *request);
int queues_main(const struct request *request);
int watch_main(const struct request *request);
int doctor_main(const struct request *request);
int host_main(const struct request *request);
int snapshot_main(const struct request *request);
int check_main(const struct request *request);
int export_main(const struct request *request);

/* queues.c, for list.c */
void queues_json_of(const struct machine *machine);
void queues_text_of(const struct machine *machine);

/* watch.c, for doctor.c */
void pause_until(double when);
double clock_now(void);

#endif /* VBLKSTAT_H */
