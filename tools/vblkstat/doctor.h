/* SPDX-License-Identifier: GPL-2.0 */
/* What the files of vblkstat doctor share. */
#ifndef DOCTOR_H
#define DOCTOR_H

#include "vblkstat.h"

/* Facts of a finding about a disk that does not answer, in the order of the report. */
enum fact_kind {
	FACT_DISK,	/* which disk it is */
	FACT_SINCE,	/* since when, and how long */
	FACT_HIT,	/* who waits */
	FACT_AVOID,	/* what not to type */
	FACT_HOST,	/* commands there */
	FACT_GUEST,
	NR_FACTS
};

struct fact {
	enum fact_kind kind;
	char *text;
};

/**
 * struct finding - an error or a warning
 * @past: it does not hold now
 * @count: how often it happened, or how many requests it is about
 * @first: when it began, in seconds since 1970
 * @last: when it was seen last
 * @host: what to do there; NULL: nothing
 * @guest: likewise
 */
struct finding {
	const char *disk;
	const char *level;
	const char *id;
	char *what;
	const char *why;
	const char *host;
	const char *guest;
	bool past;
	uint64_t count;
	uint64_t first;
	uint64_t last;
	struct fact *facts;
	unsigned int nr_facts;
};

struct mount {
	char path[256];
	char type[32];
	char options[512];	/* of the mount, and of the file system */
	char source[256];
	char numbers[16];
	char device[32];	/* the device of the disk that it is on: vda1, dm-0 */
};

/**
 * struct users - who uses a disk
 * @mounts: mounts from it, or from what is on top of it
 * @others: swap on it, and the devices on top of it
 * @swap: a device that the guest swaps to; empty if none
 */
struct users {
	bool mounts_known;
	struct mount *mounts;
	unsigned int nr_mounts;
	struct { char text[128]; } *others;
	unsigned int nr_others;
	char swap[128];
};

/**
 * struct doctor - a run of the checks
 * @machine: the machine to check
 * @before: the same machine, read earlier; NULL if it was read only once
 * @earlier: the disk in @before; NULL if it was not there
 * @silent: some disk does not answer; files on it would block the reader
 * @baseline: counters that the administrator has cleared
 * @log: when the kernel logged events
 * @since: leave out events that ended before; in seconds since 1970
 */
struct doctor {
	const struct machine *machine;
	const struct machine *before;
	const struct disk *earlier;
	bool silent;
	struct baseline *baseline;
	struct log *log;
	uint64_t since;
	struct finding *findings;
	unsigned int count;
};

/* findings.c */
extern const char ERROR[];
extern const char WARNING[];
extern const char NOTICE[];
struct finding *add_finding(struct doctor *doctor, const struct disk *disk,
			    const char *level, const char *id,
			    const char *format, ...)
	__printf(5, 6);
void free_finding(struct finding *finding);
void free_findings(struct doctor *doctor);
void advise(struct finding *finding, const char *why, const char *host,
	    const char *guest);
void add_fact(struct finding *finding, enum fact_kind kind, const char *format, ...)
	__printf(3, 4);
uint64_t total(const struct disk *disk, enum counter counter);
uint64_t total_since(const struct doctor *doctor, const struct disk *disk,
		     enum counter counter);
uint64_t total_requests(const struct disk *disk);
uint64_t longest_wait(const struct disk *disk);

/* doctor.c */
void doctor_examine(const struct machine *machine);

/* incident.c */
bool check_incident(struct doctor *doctor, const struct disk *disk);
bool is_silent(const struct doctor *doctor, const struct disk *disk);
const char *timeout_text(const struct disk *disk);

/* history.c */
bool check_past(struct doctor *doctor, const struct disk *disk);
void check_errors(struct doctor *doctor, const struct disk *disk);

/* tail.c */
void check_tail(struct doctor *doctor, const struct disk *disk, bool incident);
uint64_t count_long_requests(const struct doctor *doctor, const struct disk *disk);

/* baseline.c */
#define HIGH_WATER	"io_tlb_used_hiwater"

struct baseline *baseline_read(void);
void baseline_free(struct baseline *baseline);
int baseline_clear(const struct machine *machine);
uint64_t baseline_value(const struct baseline *baseline, const struct disk *disk,
			const char *name);
uint64_t baseline_time(const struct baseline *baseline, const struct disk *disk);
uint64_t since_baseline(const struct doctor *doctor, const struct disk *disk,
			const char *name, uint64_t value);
uint64_t sent_since(const struct doctor *doctor, const struct disk *disk,
		    enum counter counter);
uint64_t slow_since(const struct doctor *doctor, const struct disk *disk,
		    enum kind kind, unsigned int index);

/* log.c */
enum event {
	EVENT_TIMEOUT, EVENT_LOST_INTERRUPT, EVENT_RESET, EVENT_IO_ERROR,
	NR_EVENTS
};

struct log *log_read(const struct machine *machine);
char *log_copy(const struct machine *machine);
void log_free(struct log *log);
bool log_find(const struct log *log, const struct disk *disk, enum event event,
	      uint64_t *first, uint64_t *last);

/* users.c */
void users_find(struct users *users, const struct disk *disk);
void users_free(struct users *users);
void find_blocked_tasks(struct names *tasks);
void add_users(struct finding *finding, const struct users *users);

/* advice.c */
void add_advice(struct finding *finding, const struct disk *disk);

/* report.c */
void print_report(const struct doctor *doctor);
void json_report(const struct doctor *doctor);

/* doctor_queues.c */
void check_queues(struct doctor *doctor, const struct disk *disk);

/* doctor_space.c */
void check_space(struct doctor *doctor, const struct disk *disk);

/* doctor_machine.c */
void check_machine(struct doctor *doctor, const struct disk *disk);

#endif /* DOCTOR_H */
