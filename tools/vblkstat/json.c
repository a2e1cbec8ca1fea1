// SPDX-License-Identifier: GPL-2.0
/* Write JSON, one object on a line.  An unknown value is null. */

#include "vblkstat.h"

/* Interpret bytes beyond ASCII as Latin-1, so that any input gives valid JSON. */
static void print_string(FILE *out, const char *text)
{
	fputc('"', out);
	for (; *text; text++) {
		unsigned char c = *text;

		if (c == '"' || c == '\\')
			fprintf(out, "\\%c", c);
		else if (c < ' ' || c > '~')
			fprintf(out, "\\u%04x", c);
		else
			fputc(c, out);
	}
	fputc('"', out);
}

/* Begin a member of an object or, if key is NULL, an element of an array. */
static void begin(struct json *json, const char *key)
{
	if (json->comma)
		fputs(", ", json->out);
	json->comma = true;
	if (key) {
		print_string(json->out, key);
		fputs(": ", json->out);
	}
}

void json_open(struct json *json, const char *key, char bracket)
{
	begin(json, key);
	fputc(bracket, json->out);
	json->comma = false;
}

void json_close(struct json *json, char bracket)
{
	fputc(bracket, json->out);
	json->comma = true;
}

void json_null(struct json *json, const char *key)
{
	begin(json, key);
	fputs("null", json->out);
}

void json_text(struct json *json, const char *key, const char *value)
{
	begin(json, key);
	print_string(json->out, value);
}

/* Like json_text(), but the empty string is an unknown value. */
void json_string(struct json *json, const char *key, const char *value)
{
	if (*value)
		json_text(json, key, value);
	else
		json_null(json, key);
}

void json_number(struct json *json, const char *key, uint64_t value)
{
	if (value == UNKNOWN) {
		json_null(json, key);
		return;
	}
	begin(json, key);
	fprintf(json->out, "%llu", (unsigned long long)value);
}

/* A negative number is unknown. */
void json_float(struct json *json, const char *key, double value)
{
	if (!(value >= 0)) {
		json_null(json, key);
		return;
	}
	begin(json, key);
	fprintf(json->out, "%.6f", value);
}

void json_bool(struct json *json, const char *key, bool value)
{
	begin(json, key);
	fputs(value ? "true" : "false", json->out);
}

void json_cpus(struct json *json, const char *key, const struct cpus *cpus)
{
	if (!cpus->known) {
		json_null(json, key);
		return;
	}
	json_open(json, key, '[');
	for (unsigned int cpu = 0; cpu < MAX_CPUS; cpu++)
		if (cpus_has(cpus, cpu))
			json_number(json, NULL, cpu);
	json_close(json, ']');
}

/* Open the object of a command's output. */
void json_begin(struct json *json, const char *command)
{
	json_open(json, NULL, '{');
	json_string(json, "vblkstat", VBLKSTAT_VERSION);
	json_string(json, "command", command);
}

/* Add the notes and close the object. */
void json_end(struct json *json)
{
	json_open(json, "notes", '[');
	for (unsigned int i = 0; i < notes_count(); i++)
		json_string(json, NULL, notes_text(i));
	json_close(json, ']');
	json_close(json, '}');
	fputc('\n', json->out);
	json->comma = false;
}
