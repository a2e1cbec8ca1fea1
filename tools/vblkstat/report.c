// SPDX-License-Identifier: GPL-2.0
/* vblkstat doctor: print the findings. */

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "doctor.h"

static const char *const fact_names[NR_FACTS] = {
	[FACT_DISK] = "disk",
	[FACT_SINCE] = "since",
	[FACT_HIT] = "hit",
	[FACT_AVOID] = "avoid",
	[FACT_HOST] = "host_commands",
	[FACT_GUEST] = "guest_commands",
};

/* Text */

/* Colour a terminal, unless the user does not want it: https://no-color.org */
static bool has_colour(void)
{
	const char *refused = getenv("NO_COLOR"), *terminal = getenv("TERM");

	return isatty(STDOUT_FILENO) && (!refused || !refused[0]) && terminal &&
	       strcmp(terminal, "dumb");
}

static const char *colour(const char *level)
{
	if (!has_colour())
		return "";
	if (level == NOTICE)
		return "\033[1m";
	return level == ERROR ? "\033[1;31m" : "\033[1;33m";
}

/* Print all facts of a kind below each other; the first one follows the label. */
static void print_facts(const struct finding *finding, enum fact_kind kind,
			const char *label)
{
	static const char indent[] = "           ";

	for (unsigned int i = 0; i < finding->nr_facts; i++) {
		const struct fact *fact = &finding->facts[i];

		if (fact->kind != kind)
			continue;
		/* A command stays on its line, so that it can be copied. */
		if (kind >= FACT_HOST)
			printf("%s%s\n", indent, fact->text);
		else
			print_wrapped(stdout, label, fact->text);
		label = indent;
	}
}

/* Say when a past event happened, or at least after what. */
static void print_dates(const struct doctor *doctor, const struct finding *finding)
{
	const struct disk *disk = machine_disk(doctor->machine, finding->disk);
	uint64_t cleared = baseline_time(doctor->baseline, disk);
	char text[128];

	if (!finding->past)
		return;
	if (finding->last != UNKNOWN) {
		snprintf(text, sizeof(text), "last at %s, according to the kernel log",
			 clock_text(finding->last));
		print_wrapped(stdout, "    when:  ", text);
		return;
	}
	snprintf(text, sizeof(text), "%s%s; the kernel log does not say when",
		 cleared == UNKNOWN ? "since the disk was added" : "after ",
		 cleared == UNKNOWN ? "" : clock_text(cleared));
	print_wrapped(stdout, "    when:  ", text);
}

static void print_finding(const struct doctor *doctor,
			  const struct finding *finding)
{
	char head[64];

	fputs(finding->past ? "" : colour(finding->level), stdout);
	snprintf(head, sizeof(head), "%s: %s%s: ", finding->disk,
		 finding->past ? "past " : "", finding->level);
	print_wrapped(stdout, head, finding->what);
	fputs(has_colour() ? "\033[0m" : "", stdout);
	print_dates(doctor, finding);
	print_facts(finding, FACT_DISK, "    disk:  ");
	print_facts(finding, FACT_SINCE, "    since: ");
	print_facts(finding, FACT_HIT, "    hit:   ");
	print_facts(finding, FACT_AVOID, "    avoid: ");
	print_wrapped(stdout, "    why:   ", finding->why);
	if (finding->host)
		print_wrapped(stdout, "    host:  ", finding->host);
	print_facts(finding, FACT_HOST, "");
	if (finding->guest)
		print_wrapped(stdout, "    guest: ", finding->guest);
	print_facts(finding, FACT_GUEST, "");
}

/* "1 finding now, 2 in the past, on 3 disks" */
static void print_verdict(const struct doctor *doctor)
{
	unsigned int disks = doctor->machine->nr_disks, past = 0, now;

	for (unsigned int i = 0; i < doctor->count; i++)
		past += doctor->findings[i].past;
	now = doctor->count - past;
	printf("%u finding%s", now, now == 1 ? "" : "s");
	if (past)
		printf(" now, %u in the past,", past);
	printf(" on %u disk%s%s\n", disks, disks == 1 ? "" : "s",
	       notes_complete() ? "" :
	       ", but doctor could not check everything:");
	notes_print_missing(stdout);
	if (past)
		puts("\"vblkstat doctor --clear DISK\" clears what is past on a disk.");
}

void print_report(const struct doctor *doctor)
{
	for (unsigned int i = 0; i < doctor->count; i++)
		if (!doctor->findings[i].past)
			print_finding(doctor, &doctor->findings[i]);
	for (unsigned int i = 0; i < doctor->count; i++)
		if (doctor->findings[i].past)
			print_finding(doctor, &doctor->findings[i]);
	if (doctor->count)
		puts("");
	print_verdict(doctor);
}

/* JSON */

static void json_facts(struct json *json, const struct finding *finding)
{
	if (!finding->nr_facts) {
		json_null(json, "incident");
		return;
	}
	json_open(json, "incident", '{');
	for (unsigned int kind = 0; kind < NR_FACTS; kind++) {
		json_open(json, fact_names[kind], '[');
		for (unsigned int i = 0; i < finding->nr_facts; i++)
			if (finding->facts[i].kind == kind)
				json_text(json, NULL, finding->facts[i].text);
		json_close(json, ']');
	}
	json_close(json, '}');
}

static void json_finding(struct json *json, const struct finding *finding)
{
	json_open(json, NULL, '{');
	json_text(json, "disk", finding->disk);
	json_text(json, "level", finding->level);
	json_text(json, "id", finding->id);
	json_bool(json, "active", !finding->past);
	json_number(json, "count", finding->count);
	json_number(json, "first", finding->first);
	json_number(json, "last", finding->last);
	json_text(json, "what", finding->what);
	json_text(json, "why", finding->why);
	json_string(json, "host", finding->host ? finding->host : "");
	json_string(json, "guest", finding->guest ? finding->guest : "");
	json_facts(json, finding);
	json_close(json, '}');
}

static void json_missing(struct json *json)
{
	json_open(json, "missing", '[');
	for (unsigned int i = 0; i < notes_count(); i++)
		if (notes_is_missing(i))
			json_text(json, NULL, notes_text(i));
	json_close(json, ']');
}

void json_report(const struct doctor *doctor)
{
	struct json json = { .out = stdout };

	json_begin(&json, "doctor");
	json_open(&json, "disks", '[');
	for (unsigned int i = 0; i < doctor->machine->nr_disks; i++)
		json_text(&json, NULL, doctor->machine->disks[i].name);
	json_close(&json, ']');
	json_bool(&json, "complete", notes_complete());
	json_missing(&json);
	json_open(&json, "findings", '[');
	for (unsigned int i = 0; i < doctor->count; i++)
		json_finding(&json, &doctor->findings[i]);
	json_close(&json, ']');
	json_end(&json);
}
