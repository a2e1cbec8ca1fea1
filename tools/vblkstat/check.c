// SPDX-License-Identifier: GPL-2.0
/*
 * vblkstat check: the disks for Nagios, Icinga and what runs their plugins.
 *
 * The output is that of the Monitoring Plugins: one line, performance data behind its
 * "|", and an exit status of 0 to 3.  A value that cannot be read is UNKNOWN, never OK.
 * check sends no request to a device, so that a stalled disk does not delay it.
 */

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vblkstat.h"

/* Seconds: below the 60 of Nagios, as other plugins. */
#define DEFAULT_TIMEOUT		"10"
#define MAX_TIMEOUT		3600

/* The driver's io_timeout is 30 s by default. */
#define DEFAULT_WARNING		"10"
#define DEFAULT_CRITICAL	"30"

#define MAX_THRESHOLD		64

/* The exit statuses of a plugin. */
enum verdict {
	OK		= 0,
	WARNING		= 1,
	CRITICAL	= 2,
	NOT_KNOWN	= CHECK_UNKNOWN,
};

static const char *const verdict_words[] = {
	[OK] = "OK",
	[WARNING] = "WARNING",
	[CRITICAL] = "CRITICAL",
	[NOT_KNOWN] = "UNKNOWN",
};

/**
 * struct range - a threshold: [@]start:end of the Monitoring Plugins
 * @text: as the caller gave it, for the performance data; empty: no threshold
 * @inside: alert within the range, not outside of it
 */
struct range {
	char text[MAX_THRESHOLD];
	double start;
	double end;
	bool inside;
};

/* The thresholds of -w or -c. */
struct thresholds {
	struct range age;	/* of the oldest unanswered request, in seconds */
	struct range errors;	/* requests that the device failed since the probe */
};

/**
 * struct check - a run of the check
 * @worst: the verdict on the disks that were checked
 * @problems: text: what is not OK
 * @data: the performance data
 */
struct check {
	struct thresholds warning;
	struct thresholds critical;
	enum verdict worst;
	FILE *problems;
	FILE *data;
};

/* Thresholds */

/* Parse a bound of a range.  It may be empty, or "~" for no lower bound. */
static bool parse_bound(const char *text, size_t length, double empty, double *bound)
{
	char *end;

	*bound = empty;
	if (!length)
		return true;
	if (strspn(text, "0123456789.") < length)
		return false;
	*bound = strtod(text, &end);
	return end == text + length;
}

static bool parse_range(struct range *range, const char *text, size_t length)
{
	const char *colon;

	if (length >= sizeof(range->text))
		return false;
	memcpy(range->text, text, length);
	range->text[length] = '\0';
	text = range->text;
	range->inside = *text == '@';
	text += range->inside;
	colon = strchr(text, ':');
	range->start = 0;
	if (colon && colon == text + 1 && *text == '~')
		range->start = -INFINITY;
	else if (colon && !parse_bound(text, colon - text, 0, &range->start))
		return false;
	text = colon ? colon + 1 : text;
	/* "10:" has no upper bound, and "10" is one. */
	return (colon || *text) &&
	       parse_bound(text, strlen(text), INFINITY, &range->end) &&
	       range->start <= range->end;
}

/* Parse AGE[,ERRORS].  Without ERRORS, errors have no threshold. */
static void parse_thresholds(struct thresholds *thresholds, char option,
			     const char *text)
{
	size_t length = strcspn(text, ",");
	const char *more = text[length] ? text + length + 1 : NULL;

	if (!parse_range(&thresholds->age, text, length) ||
	    (more && !parse_range(&thresholds->errors, more, strlen(more))))
		fail("-%c %s is no threshold; use AGE or AGE,ERRORS, each N, N:, ~:N, N:M or @N:M",
		     option, text);
}

static bool is_outside(const struct range *range, double value)
{
	bool within = value >= range->start && value <= range->end;

	return range->text[0] && within == range->inside;
}

static enum verdict judge(const struct range *warning, const struct range *critical,
			  double value)
{
	if (is_outside(critical, value))
		return CRITICAL;
	return is_outside(warning, value) ? WARNING : OK;
}

/* Checks */

/* A known problem is worse than a value that is not known, which is worse than OK. */
static bool is_worse(enum verdict one, enum verdict other)
{
	static const int rank[] = {
		[OK] = 0, [NOT_KNOWN] = 1, [WARNING] = 2, [CRITICAL] = 3,
	};

	return rank[one] > rank[other];
}

static void add_problem(struct check *check, enum verdict verdict, const char *disk,
			const char *text)
{
	if (verdict == OK)
		return;
	fprintf(check->problems, "%s%s: %s", ftell(check->problems) ? "; " : "", disk,
		text);
	if (is_worse(verdict, check->worst))
		check->worst = verdict;
}

/* Judge a value, and add a problem if it is over a threshold. */
static void judge_value(struct check *check, const struct range *warning,
			const struct range *critical, double value, const char *disk,
			const char *what)
{
	enum verdict verdict = judge(warning, critical, value);
	char text[256];

	snprintf(text, sizeof(text), "%s (%s)", what,
		 verdict == CRITICAL ? critical->text : warning->text);
	add_problem(check, verdict, disk, text);
}

static void check_state(struct check *check, const struct disk *disk)
{
	static const struct {
		const char *state;
		enum verdict verdict;
		const char *text;
	} states[] = {
		{ "live", OK, "" },
		/* The administrator removes it, and the age shows whether that hangs. */
		{ "removing", OK, "" },
		{ "stalled", CRITICAL, "stalled, the device does not answer" },
		{ "dead", CRITICAL, "dead, all its I/O fails" },
		/* I/O waits.  A monitor checks again before it alerts. */
		{ "resetting", CRITICAL, "the device is being reset" },
		{ "suspended", CRITICAL, "the device is suspended or being reset" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(states); i++) {
		if (!strcmp(disk->state, states[i].state)) {
			add_problem(check, states[i].verdict, disk->name,
				    states[i].text);
			return;
		}
	}
	if (!disk->ours)
		add_problem(check, NOT_KNOWN, disk->name,
			    "the in-tree driver shows no state");
	else
		add_problem(check, NOT_KNOWN, disk->name, disk->state[0] ?
			    "the state is one that vblkstat does not know" :
			    "cannot read the state");
}

static void check_age(struct check *check, const struct disk *disk)
{
	const struct range *warning = &check->warning.age;
	const struct range *critical = &check->critical.age;
	char text[64];
	double age;

	if (disk->oldest_ms == UNKNOWN) {
		/* check_state() reports the in-tree driver. */
		if (disk->ours)
			add_problem(check, NOT_KNOWN, disk->name,
				    "cannot read oldest_ms; the driver may be older than vblkstat");
		return;
	}
	age = disk->oldest_ms / 1e3;
	snprintf(text, sizeof(text), "the oldest request waits for %.3f s", age);
	judge_value(check, warning, critical, age, disk->name, text);
	fprintf(check->data, " %s_oldest=%.3fs;%s;%s;0", disk->name, age, warning->text,
		critical->text);
}

/* Return how many requests the device failed; UNKNOWN if a queue does not say. */
static uint64_t count_errors(const struct disk *disk)
{
	uint64_t sum = disk->nr_queues ? 0 : UNKNOWN;

	for (unsigned int i = 0; i < disk->nr_queues; i++) {
		const uint64_t *counter = disk->queues[i].counter;

		if (counter[C_IOERR] == UNKNOWN || counter[C_OTHER_ERRORS] == UNKNOWN)
			return UNKNOWN;
		sum += counter[C_IOERR] + counter[C_OTHER_ERRORS];
	}
	return sum;
}

static void check_errors(struct check *check, const struct disk *disk)
{
	const struct range *warning = &check->warning.errors;
	const struct range *critical = &check->critical.errors;
	uint64_t errors = count_errors(disk);
	char text[64];

	if (errors == UNKNOWN) {
		if (warning->text[0] || critical->text[0])
			add_problem(check, NOT_KNOWN, disk->name,
				    "cannot read the errors, which need root, debugfs and this driver");
		return;
	}
	snprintf(text, sizeof(text), "%llu requests failed",
		 (unsigned long long)errors);
	judge_value(check, warning, critical, errors, disk->name, text);
	fprintf(check->data, " %s_errors=%lluc;%s;%s;0", disk->name,
		(unsigned long long)errors, warning->text, critical->text);
}

static void add_counter(struct check *check, const struct disk *disk,
			const char *name, uint64_t count)
{
	if (count != UNKNOWN)
		fprintf(check->data, " %s_%s=%lluc;;;0", disk->name, name,
			(unsigned long long)count);
}

static void check_disk(struct check *check, const struct disk *disk)
{
	check_state(check, disk);
	check_age(check, disk);
	check_errors(check, disk);
	add_counter(check, disk, "timeouts", disk->timeouts);
	add_counter(check, disk, "lost_interrupts", disk->lost_interrupts);
	add_counter(check, disk, "resets", disk->resets);
}

static void check_disks(struct check *check, const struct machine *machine,
			const struct request *request)
{
	for (unsigned int i = 0; i < request->nr_disks; i++) {
		const struct disk *disk = machine_disk(machine, request->disks[i]);

		if (disk)
			check_disk(check, disk);
		else
			add_problem(check, CRITICAL, request->disks[i],
				    "there is no such virtio-blk disk");
	}
	for (unsigned int i = 0; !request->nr_disks && i < machine->nr_disks; i++)
		check_disk(check, &machine->disks[i]);
	if (!request->nr_disks && !machine->nr_disks)
		fail("there are no virtio-blk disks to check");
}

/* The command */

static void on_timeout(int signal)
{
	static const char message[] =
		"VIRTIO_BLK UNKNOWN - vblkstat did not finish in time, see -t\n";

	(void)signal;
	if (write(STDOUT_FILENO, message, strlen(message)) < 0)
		_exit(CHECK_UNKNOWN);
	_exit(CHECK_UNKNOWN);
}

static void start_timeout(const char *text)
{
	char *end;
	uint64_t seconds = parse_number(text, &end);

	if (*end || seconds < 1 || seconds > MAX_TIMEOUT)
		fail("-t %s is no timeout; use 1 to %u seconds", text, MAX_TIMEOUT);
	signal(SIGALRM, on_timeout);
	alarm(seconds);
}

static FILE *open_text(char **text, size_t *size)
{
	FILE *stream = open_memstream(text, size);

	if (!stream)
		fail("out of memory");
	return stream;
}

int check_main(const struct request *request)
{
	struct request all = { };
	struct check check = { };
	struct machine machine;
	char *problems, *data;
	size_t sizes[2];

	start_timeout(request->timeout ? request->timeout : DEFAULT_TIMEOUT);
	parse_thresholds(&check.warning, 'w',
			 request->warning ? request->warning : DEFAULT_WARNING);
	parse_thresholds(&check.critical, 'c',
			 request->critical ? request->critical : DEFAULT_CRITICAL);
	check.problems = open_text(&problems, &sizes[0]);
	check.data = open_text(&data, &sizes[1]);
	machine_read(&machine, &all);
	check_disks(&check, &machine, request);
	if (fclose(check.problems) || fclose(check.data))
		fail("out of memory");
	/* From here on, a timeout would print a second line. */
	alarm(0);
	printf("VIRTIO_BLK %s - ", verdict_words[check.worst]);
	if (problems[0])
		fputs(problems, stdout);
	else if (request->nr_disks == 1 || machine.nr_disks == 1)
		printf("the disk answers");
	else
		printf("%u disks answer", request->nr_disks ? request->nr_disks :
		       machine.nr_disks);
	printf("%s%s\n", data[0] ? " |" : "", data);
	free(problems);
	free(data);
	machine_free(&machine);
	return check.worst;
}
