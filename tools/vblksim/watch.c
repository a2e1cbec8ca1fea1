// SPDX-License-Identifier: GPL-2.0
/* The rules for drivers, and which of them were broken. */

#define _GNU_SOURCE
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "vblksim.h"

const struct rule_text rule_texts[NR_RULES] = {
#define X(name, section, strength, text) \
	[RULE_##name] = { #name, section, #strength, text },
	RULES(X)
#undef X
};

bool watch_check(struct watch *watch, enum rule rule, bool kept,
		 const char *fmt, ...)
{
	const struct rule_text *about = &rule_texts[rule];
	char *seen = NULL;
	va_list args;

	watch->checked[rule]++;
	if (kept)
		return true;

	if (watch->broken[rule]++)
		return false;
	va_start(args, fmt);
	if (vasprintf(&seen, fmt, args) < 0)
		seen = NULL;
	va_end(args);
	watch->first[rule] = seen;
	if (!watch->quiet)
		fprintf(stderr, "vblksim: VIRTIO 1.4, %s: %s (%s %s): %s\n",
			about->section, about->text, about->strength,
			about->name, seen ? seen : "");
	return false;
}

void watch_count(struct watch *watch, uint32_t type)
{
	unsigned int last = ARRAY_SIZE(watch->types) - 1;

	watch->types[type < last ? type : last]++;
}

static void put_string(FILE *out, const char *text)
{
	fputc('"', out);
	for (; text && *text; text++) {
		if (*text == '"' || *text == '\\')
			fputc('\\', out);
		if ((unsigned char)*text >= ' ')
			fputc(*text, out);
	}
	fputc('"', out);
}

void watch_report(const struct watch *watch, FILE *out)
{
	const char *comma = "";
	uint64_t requests = 0, checks = 0;
	unsigned int seen = 0;

	for (unsigned int i = 0; i < ARRAY_SIZE(watch->types); i++)
		requests += watch->types[i];
	for (int rule = 0; rule < NR_RULES; rule++) {
		checks += watch->checked[rule];
		seen += !!watch->checked[rule];
	}

	fprintf(out, "{\n  \"requests\": %" PRIu64 ",\n  \"mutated\": %" PRIu64
		",\n  \"types\": {", requests, watch->mutated);
	for (unsigned int i = 0; i < ARRAY_SIZE(watch->types); i++)
		if (watch->types[i]) {
			fprintf(out, "%s\"%s\": %" PRIu64, comma,
				request_type_name(i), watch->types[i]);
			comma = ", ";
		}
	fprintf(out, "},\n  \"checks\": %" PRIu64 ",\n  \"rules\": %d,\n"
		"  \"rules_checked\": %u,\n  \"broken\": [", checks, NR_RULES,
		seen);

	comma = "";
	for (int rule = 0; rule < NR_RULES; rule++) {
		if (!watch->broken[rule])
			continue;
		fprintf(out, "%s\n    {\"rule\": \"%s\", \"section\": \"%s\", "
			"\"strength\": \"%s\", \"times\": %" PRIu64 ", \"text\": ",
			comma, rule_texts[rule].name, rule_texts[rule].section,
			rule_texts[rule].strength, watch->broken[rule]);
		put_string(out, rule_texts[rule].text);
		fprintf(out, ", \"first\": ");
		put_string(out, watch->first[rule]);
		fputc('}', out);
		comma = ",";
	}
	fprintf(out, "%s]\n}\n", *comma ? "\n  " : "");
}

void watch_list(FILE *out)
{
	for (int rule = 0; rule < NR_RULES; rule++)
		fprintf(out, "%-28s %-10s %-6s %s\n", rule_texts[rule].name,
			rule_texts[rule].section, rule_texts[rule].strength,
			rule_texts[rule].text);
}

void watch_free(struct watch *watch)
{
	for (int rule = 0; rule < NR_RULES; rule++)
		free(watch->first[rule]);
}
