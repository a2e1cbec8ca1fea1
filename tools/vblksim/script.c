// SPDX-License-Identifier: GPL-2.0
/*
 * Which requests to treat badly, and how.
 *
 * Each line of a script has conditions and a behaviour.  Each line counts the
 * requests that meet its conditions, and the first line that is due handles the
 * request.  A new behaviour needs a function and a line in the table below.
 */

#define _GNU_SOURCE
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vblksim.h"

/* a reorder waits so long for further requests */
#define REORDER_NS		1000000000ull
#define LINE_BYTES		256
/* the sum of the clock's time and a delay must not overflow */
#define MAX_NS			(1ull << 62)

enum argument { ARG_NONE, ARG_TIME, ARG_STATUS, ARG_NUMBER };

struct line;
typedef void (*act_fn)(struct sim *sim, struct line *line,
		       struct chain *chain);

/* a behaviour: its name, its argument, its description, and the function */
struct behaviour {
	const char *name;
	enum argument argument;
	const char *text;
	act_fn act;
};

/* a first-in, first-out list of chains */
struct chains {
	struct chain *first;
	struct chain **end;
	uint64_t nr;
};

/* a request that waits for its timer; without a chain, a queue's interrupt */
struct delayed {
	struct delayed *next;
	struct chain *chain;
	unsigned int queue;
	struct loop_timer *timer;
};

/**
 * struct line - a line of the script
 * @type: request type, -1 for any
 * @queue: queue, -1 for any
 * @any_sector: ignore @first and @last
 * @first: the first sector of a range that the request must touch
 * @last: the last sector of that range
 * @nth: only the n-th that meets the conditions above, 0 for any
 * @from: from the n-th on
 * @every: from there on each n-th
 * @count: largest number of applications, 0 for no limit
 * @what: the behaviour
 * @value: its argument
 * @seen: number of requests that have met the conditions
 * @applied: number of requests that the line has handled
 * @forced: a line of script_treat()'s, not of the user's
 * @waiting: executed requests that wait for their answer
 * @timer: ends the wait
 */
struct line {
	struct line *next;
	int type;
	int queue;
	bool any_sector;
	uint64_t first, last;
	uint64_t nth, from, every, count;
	const struct behaviour *what;
	uint64_t value;
	uint64_t seen, applied;
	bool forced;
	struct chain *waiting;
	uint64_t nr_waiting;
	struct loop_timer *timer;
};

/**
 * struct script - the lines and their requests
 * @sim: the device, from its first request on
 * @lines: the lines, in order
 * @held: requests to execute when released
 * @delayed: requests and interrupts that wait for their timers
 * @stopped: the device answers nothing until it is reset
 */
struct script {
	struct sim *sim;
	struct line *lines;
	struct chains held;
	struct delayed *delayed;
	bool stopped;
};

/* ---- behaviours ---- */

static uint8_t run(struct sim *sim, struct chain *chain)
{
	struct request req;

	request_parse(&req, chain);
	return request_run(sim, &req);
}

/* execute a request and set its status byte; returns the right used length */
static uint32_t run_all(struct sim *sim, struct chain *chain)
{
	uint8_t status = run(sim, chain);

	if (chain->in_len)
		chain_write(chain, chain->in_len - 1, &status, sizeof(status));
	return chain->in_len > UINT32_MAX ? UINT32_MAX : chain->in_len;
}

static void fire(struct sim *sim, void *arg)
{
	struct delayed *delayed = arg;
	struct delayed **at = &sim->script->delayed;
	struct chain *chain = delayed->chain;
	unsigned int queue = delayed->queue;

	while (*at != delayed)
		at = &(*at)->next;
	*at = delayed->next;
	free(delayed);
	if (chain)
		request_execute(sim, chain);
	else
		sim->front->interrupt(sim, queue);
}

/* call fire() after some time; returns NULL on failure */
static struct delayed *fire_after(struct sim *sim, uint64_t ns)
{
	struct delayed *delayed = calloc(1, sizeof(*delayed));

	if (delayed)
		delayed->timer = loop_after(ns, fire, delayed);
	if (!delayed || !delayed->timer) {
		free(delayed);
		return NULL;
	}
	delayed->next = sim->script->delayed;
	sim->script->delayed = delayed;
	return delayed;
}

static void act_delay(struct sim *sim, struct line *line, struct chain *chain)
{
	struct delayed *delayed = fire_after(sim, line->value);

	if (delayed)
		delayed->chain = chain;
	else
		request_execute(sim, chain);
}

static void act_late(struct sim *sim, struct line *line, struct chain *chain)
{
	struct delayed *delayed = fire_after(sim, line->value);

	if (delayed)
		delayed->queue = ring_index(chain->queue);
	sim->mute = delayed;
	ring_complete(sim, chain, run_all(sim, chain));
	sim->mute = false;
}

static void act_hold(struct sim *sim, struct line *line, struct chain *chain)
{
	struct chains *held = &sim->script->held;

	(void)line;
	chain->next = NULL;
	*held->end = chain;
	held->end = &chain->next;
	held->nr++;
}

/* answer the waiting requests, the last one first */
static void answer_waiting(struct sim *sim, struct line *line)
{
	struct chain *chain = line->waiting, *next;

	line->waiting = NULL;
	line->nr_waiting = 0;
	if (line->timer)
		loop_cancel(line->timer);
	line->timer = NULL;
	for (; chain; chain = next) {
		next = chain->next;
		ring_complete(sim, chain, chain->in_len > UINT32_MAX ?
					  UINT32_MAX : chain->in_len);
	}
}

static void give_up(struct sim *sim, void *arg)
{
	struct line *line = arg;

	line->timer = NULL;
	answer_waiting(sim, line);
}

static void act_reorder(struct sim *sim, struct line *line,
			struct chain *chain)
{
	run_all(sim, chain);
	chain->next = line->waiting;
	line->waiting = chain;
	if (++line->nr_waiting >= line->value)
		answer_waiting(sim, line);
	else if (!line->timer)
		line->timer = loop_after(REORDER_NS, give_up, line);
}

static void act_fail(struct sim *sim, struct line *line, struct chain *chain)
{
	request_fail(sim, chain, line->value);
}

static void act_status(struct sim *sim, struct line *line, struct chain *chain)
{
	run(sim, chain);
	request_answer(sim, chain, line->value);
}

static void act_drop(struct sim *sim, struct line *line, struct chain *chain)
{
	(void)sim;
	(void)line;
	chain_free(chain);
}

static void act_lose(struct sim *sim, struct line *line, struct chain *chain)
{
	run_all(sim, chain);
	act_drop(sim, line, chain);
}

static void act_part(struct sim *sim, struct line *line, struct chain *chain)
{
	struct request req;

	request_parse(&req, chain);
	if (line->value < req.out_data / SECTOR_SIZE)
		req.out_data = line->value * SECTOR_SIZE;
	request_run(sim, &req);
	act_drop(sim, line, chain);
}

static void act_cut(struct sim *sim, struct line *line, struct chain *chain)
{
	ring_cut(chain);
	act_drop(sim, line, chain);
}

static void act_cut_done(struct sim *sim, struct line *line,
			 struct chain *chain)
{
	(void)line;
	ring_cut(chain);
	request_execute(sim, chain);
}

static void act_twice(struct sim *sim, struct line *line, struct chain *chain)
{
	unsigned int queue = ring_index(chain->queue);
	uint16_t id = chain->id, descs = chain->descs;
	uint32_t written = run_all(sim, chain);

	(void)line;
	ring_complete(sim, chain, written);
	ring_push_used(sim, queue, id, descs, written);
}

static void act_no_status(struct sim *sim, struct line *line,
			  struct chain *chain)
{
	uint64_t written = chain->in_len ? chain->in_len - 1 : 0;

	(void)line;
	run(sim, chain);
	ring_complete(sim, chain, written > UINT32_MAX ? UINT32_MAX : written);
}

static void act_short(struct sim *sim, struct line *line, struct chain *chain)
{
	uint32_t written = run_all(sim, chain);

	ring_complete(sim, chain,
		      line->value < written ? written - line->value : 0);
}

static void act_long(struct sim *sim, struct line *line, struct chain *chain)
{
	uint32_t written = run_all(sim, chain);

	ring_complete(sim, chain, line->value < UINT32_MAX - written ?
				  written + line->value : UINT32_MAX);
}

static void act_bad_id(struct sim *sim, struct line *line, struct chain *chain)
{
	unsigned int queue = ring_index(chain->queue);
	uint16_t descs = chain->descs;
	uint32_t written = run_all(sim, chain);

	chain_free(chain);
	ring_push_used(sim, queue, line->value, descs, written);
}

/* a byte of the device-writable part */
static uint8_t *in_byte(struct chain *chain, uint64_t at)
{
	for (unsigned int i = 0; i < chain->nr_in; i++) {
		if (at < chain->in[i].len)
			return chain->in[i].base + at;
		at -= chain->in[i].len;
	}
	return NULL;
}

static void act_corrupt(struct sim *sim, struct line *line,
			struct chain *chain)
{
	uint8_t status = run(sim, chain);
	uint64_t end = chain->in_len ? chain->in_len - 1 : 0;

	(void)line;
	for (uint64_t at = 0; at < end; at += SECTOR_SIZE)
		*in_byte(chain, at) ^= 0xff;
	request_answer(sim, chain, status);
}

static void act_garbage(struct sim *sim, struct line *line,
			struct chain *chain)
{
	uint8_t status = run(sim, chain);
	uint64_t left = chain->in_len ? chain->in_len - 1 : 0;
	uint32_t noise = 0x9e3779b9u ^ (uint32_t)line->applied;

	for (unsigned int i = 0; i < chain->nr_in && left; i++)
		for (uint32_t j = 0; j < chain->in[i].len && left; j++) {
			noise ^= noise << 13;
			noise ^= noise >> 17;
			noise ^= noise << 5;
			chain->in[i].base[j] = noise;
			left--;
		}
	request_answer(sim, chain, status);
}

static void act_nr_zones(struct sim *sim, struct line *line,
			 struct chain *chain)
{
	uint8_t status = run(sim, chain);
	uint64_t nr = htole64(line->value);

	if (chain->in_len > sizeof(nr))
		chain_write(chain, 0, &nr, sizeof(nr));
	request_answer(sim, chain, status);
}

static void act_stop(struct sim *sim, struct line *line, struct chain *chain)
{
	sim->script->stopped = true;
	act_drop(sim, line, chain);
}

static void act_needs_reset(struct sim *sim, struct line *line,
			    struct chain *chain)
{
	act_stop(sim, line, chain);
	if ((!sim->front->needs_reset || !sim->front->needs_reset(sim)) &&
	    !sim->watch.quiet)
		fputs("vblksim: the device stops, but the front cannot set DEVICE_NEEDS_RESET\n",
		      stderr);
}

static void act_kill(struct sim *sim, struct line *line, struct chain *chain)
{
	(void)sim;
	(void)line;
	(void)chain;
	_exit(EXIT_FAILURE);
}

static const struct behaviour behaviours[] = {
	{ "delay", ARG_TIME, "execute it after that time", act_delay },
	{ "hold", ARG_NONE, "execute it after the command release", act_hold },
	{ "reorder", ARG_NUMBER,
	  "execute it; answer that many in reverse order, within a second",
	  act_reorder },
	{ "fail", ARG_STATUS, "do not execute it, answer that status", act_fail },
	{ "status", ARG_STATUS, "execute it, answer that status", act_status },
	{ "no_status", ARG_NONE, "execute it, do not write the status byte",
	  act_no_status },
	{ "late", ARG_TIME, "execute it; interrupt that much later", act_late },
	{ "drop", ARG_NONE, "do not execute it, and never answer", act_drop },
	{ "lose", ARG_NONE, "execute it, and never answer", act_lose },
	{ "part", ARG_NUMBER,
	  "execute that many sectors of a write, and never answer", act_part },
	{ "cut", ARG_NONE,
	  "never answer; clear NEXT in its first descriptor in a split ring",
	  act_cut },
	{ "cut_done", ARG_NONE, "the same, but execute it and answer",
	  act_cut_done },
	{ "twice", ARG_NONE, "execute it, and answer twice", act_twice },
	{ "short", ARG_NUMBER,
	  "execute it; the used length is that many bytes less", act_short },
	{ "long", ARG_NUMBER,
	  "execute it; the used length is that many bytes more", act_long },
	{ "bad_id", ARG_NUMBER,
	  "execute it; answer with that id instead of its own",
	  act_bad_id },
	{ "corrupt", ARG_NONE,
	  "execute it; invert the first byte of each 512 bytes of data for the driver",
	  act_corrupt },
	{ "garbage", ARG_NONE, "execute it; random data for the driver",
	  act_garbage },
	{ "nr_zones", ARG_NUMBER, "execute it; a zone report has that many zones",
	  act_nr_zones },
	{ "stop", ARG_NONE, "answer nothing from now on, until a reset",
	  act_stop },
	{ "needs_reset", ARG_NONE,
	  "stop, and set DEVICE_NEEDS_RESET if the front supports it",
	  act_needs_reset },
	{ "kill", ARG_NONE, "exit at once", act_kill },
};

/* ---- lines ---- */

static int complain(char *why, size_t why_size, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

static int complain(char *why, size_t why_size, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(why, why_size, fmt, args);
	va_end(args);
	return -1;
}

/* parse a number; return the text after it, or NULL if there is none */
static const char *get_number(const char *text, uint64_t *value)
{
	char *end;

	if (!isdigit((unsigned char)*text))
		return NULL;
	errno = 0;
	*value = strtoull(text, &end, 0);
	return errno ? NULL : end;
}

static bool get_whole_number(const char *text, uint64_t *value)
{
	const char *end = get_number(text, value);

	return end && !*end;
}

static bool get_time(const char *text, uint64_t *ns)
{
	static const struct {
		const char *name;
		uint64_t ns;
	} units[] = {
		{ "ns", 1 }, { "us", 1000 }, { "ms", 1000000 },
		{ "s", 1000000000 },
	};
	const char *unit = get_number(text, ns);

	for (size_t i = 0; unit && i < ARRAY_SIZE(units); i++)
		if (!strcmp(unit, units[i].name))
			return !__builtin_mul_overflow(*ns, units[i].ns, ns) &&
			       *ns <= MAX_NS;
	return false;
}

static bool get_status(const char *text, uint64_t *status)
{
	static const char *const names[] = {
		[BLK_S_OK] = "ok",
		[BLK_S_IOERR] = "ioerr",
		[BLK_S_UNSUPP] = "unsupp",
		[BLK_S_ZONE_INVALID_CMD] = "zone_invalid_cmd",
		[BLK_S_ZONE_UNALIGNED_WP] = "zone_unaligned_wp",
		[BLK_S_ZONE_OPEN_RESOURCE] = "zone_open_resource",
		[BLK_S_ZONE_ACTIVE_RESOURCE] = "zone_active_resource",
	};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (!strcmp(text, names[i])) {
			*status = i;
			return true;
		}
	return get_whole_number(text, status) && *status <= UINT8_MAX;
}

static bool get_sectors(struct line *line, const char *text)
{
	const char *end = get_number(text, &line->first);

	if (!end)
		return false;
	line->any_sector = false;
	line->last = line->first;
	if (!*end)
		return true;
	return *end == '-' && get_whole_number(end + 1, &line->last) &&
	       line->last >= line->first;
}

static int add_type(struct line *line, const char *value, char *why,
		    size_t why_size)
{
	uint64_t number;

	line->type = request_type_number(value);
	if (line->type >= 0)
		return 0;
	if (!get_whole_number(value, &number) || number > INT32_MAX)
		return complain(why, why_size,
				"no request type '%s': use a name as in the report, such as in, out or flush, or a number up to %d",
				value, INT32_MAX);
	line->type = number;
	return 0;
}

static int add_condition(struct line *line, char *word, char *why,
			 size_t why_size)
{
	struct {
		const char *name;
		uint64_t *where;
	} numbers[] = {
		{ "nth", &line->nth }, { "from", &line->from },
		{ "every", &line->every }, { "count", &line->count },
	};
	char *value = strchr(word, '=');
	uint64_t number;

	if (!value)
		return complain(why, why_size,
				"'%s' is no condition: write name=value, with a colon before the behaviour",
				word);
	*value++ = '\0';
	if (!strcmp(word, "type"))
		return add_type(line, value, why, why_size);
	if (!strcmp(word, "sector"))
		return get_sectors(line, value) ? 0 :
		       complain(why, why_size,
				"'sector=%s': give a sector, or FIRST-LAST with FIRST not above LAST",
				value);
	if (!strcmp(word, "queue")) {
		if (!get_whole_number(value, &number) || number >= MAX_QUEUES)
			return complain(why, why_size,
					"'queue=%s': give a number from 0 to %u",
					value, MAX_QUEUES - 1);
		line->queue = number;
		return 0;
	}
	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++)
		if (!strcmp(word, numbers[i].name))
			return get_whole_number(value, numbers[i].where) &&
			       *numbers[i].where ? 0 :
			       complain(why, why_size,
					"'%s=%s': give a number from 1 on",
					word, value);
	return complain(why, why_size,
			"no condition '%s': there are type, queue, sector, nth, from, every and count",
			word);
}

static int add_argument(struct line *line, const char *word, char *why,
			size_t why_size)
{
	const char *name = line->what->name;

	switch (line->what->argument) {
	case ARG_NONE:
		return !word ? 0 : complain(why, why_size,
			"'%s' takes no argument: leave out '%s'", name, word);
	case ARG_TIME:
		return word && get_time(word, &line->value) ? 0 :
		       complain(why, why_size,
				"'%s' needs a time such as 10ms, with ns, us, ms or s, not '%s'",
				name, word ? word : "");
	case ARG_STATUS:
		return word && get_status(word, &line->value) ? 0 :
		       complain(why, why_size,
				"'%s' needs a status such as ioerr or unsupp, or a number up to 255, not '%s'",
				name, word ? word : "");
	case ARG_NUMBER:
		return word && get_whole_number(word, &line->value) ? 0 :
		       complain(why, why_size, "'%s' needs a number, not '%s'",
				name, word ? word : "");
	}
	return -1;
}

static int add_behaviour(struct line *line, char *text, char *why,
			 size_t why_size)
{
	char *save, *name = strtok_r(text, " \t\n", &save);
	char *argument = name ? strtok_r(NULL, " \t\n", &save) : NULL;
	char *rest = argument ? strtok_r(NULL, " \t\n", &save) : NULL;

	for (size_t i = 0; name && i < ARRAY_SIZE(behaviours); i++)
		if (!strcmp(name, behaviours[i].name))
			line->what = &behaviours[i];
	if (!line->what)
		return complain(why, why_size,
				"no behaviour '%s': --list-script lists them",
				name ? name : "");
	if (rest)
		return complain(why, why_size,
				"'%s' after the argument of '%s': leave it out",
				rest, name);
	return add_argument(line, argument, why, why_size);
}

static int parse_line(struct line *line, char *text, char *why,
		      size_t why_size)
{
	char *colon = strchr(text, ':');
	char *word, *save;

	if (!colon)
		return complain(why, why_size,
				"no colon in '%s': write conditions, a colon and a behaviour, such as 'on type=out nth=3: fail ioerr'",
				text);
	*colon++ = '\0';
	word = strtok_r(text, " \t\n", &save);
	if (word && !strcmp(word, "on"))
		word = strtok_r(NULL, " \t\n", &save);
	for (; word; word = strtok_r(NULL, " \t\n", &save))
		if (add_condition(line, word, why, why_size))
			return -1;
	return add_behaviour(line, colon, why, why_size);
}

/**
 * script_new() - make an empty script
 *
 * Return: the script, NULL without memory.
 */
struct script *script_new(void)
{
	struct script *script = calloc(1, sizeof(*script));

	if (script)
		script->held.end = &script->held.first;
	return script;
}

/**
 * script_add() - add a line to the script
 * @script: the script
 * @line: conditions, a colon and a behaviour; nothing, or a comment after #
 * @why: set to the error
 * @why_size: size of @why
 *
 * Return: 0, or -1 with @why set.
 */
int script_add(struct script *script, const char *line, char *why,
	       size_t why_size)
{
	struct line **end = &script->lines;
	char text[LINE_BYTES];
	struct line *new;

	line += strspn(line, " \t\n");
	if (!*line || *line == '#')
		return 0;
	if (strlen(line) >= sizeof(text))
		return complain(why, why_size,
				"a line of %zu characters: %zu is the limit",
				strlen(line), sizeof(text) - 1);
	strcpy(text, line);
	new = calloc(1, sizeof(*new));
	if (!new)
		return complain(why, why_size, "out of memory");
	new->type = -1;
	new->queue = -1;
	new->any_sector = true;
	if (parse_line(new, text, why, why_size)) {
		free(new);
		return -1;
	}
	while (*end)
		end = &(*end)->next;
	*end = new;
	return 0;
}

/**
 * script_clear() - remove all lines
 * @script: the script
 *
 * This releases requests that are held or wait for their answer.
 */
void script_clear(struct script *script)
{
	struct line *line;

	if (script->sim)
		script_release(script->sim);
	while ((line = script->lines)) {
		script->lines = line->next;
		free(line);
	}
}

/**
 * script_free() - the opposite of script_new()
 * @script: the script, or NULL
 */
void script_free(struct script *script)
{
	if (!script)
		return;
	if (script->sim)
		script_reset(script->sim);
	script_clear(script);
	free(script);
}

/* ---- requests ---- */

static bool matches(const struct line *line, const struct request *req)
{
	if (line->forced)
		return false;
	if (line->type >= 0 &&
	    (!req->has_header || (uint32_t)line->type != req->type))
		return false;
	if (line->queue >= 0 &&
	    (unsigned int)line->queue != ring_index(req->chain->queue))
		return false;
	return line->any_sector ||
	       request_touches(req, line->first, line->last);
}

/* does the line apply to the request that it counted last? */
static bool is_due(const struct line *line)
{
	uint64_t from = line->from ? line->from : 1;

	if (line->nth && line->seen != line->nth)
		return false;
	if (line->seen < from)
		return false;
	/* without from, every=10 means the tenth, the twentieth... */
	if (line->every &&
	    (line->from ? line->seen - from : line->seen) % line->every)
		return false;
	return !line->count || line->applied < line->count;
}

/**
 * script_takes() - let the script treat a request badly
 * @sim: the device
 * @chain: the request
 *
 * Return: whether the script handles it, and answers it or not.
 */
bool script_takes(struct sim *sim, struct chain *chain)
{
	struct script *script = sim->script;
	struct line *taker = NULL;
	struct request req;

	if (!script)
		return false;
	script->sim = sim;
	if (script->stopped) {
		chain_free(chain);
		return true;
	}
	if (!script->lines)
		return false;
	request_parse(&req, chain);
	for (struct line *line = script->lines; line; line = line->next) {
		if (!matches(line, &req))
			continue;
		line->seen++;
		if (!taker && is_due(line))
			taker = line;
	}
	if (!taker)
		return false;
	taker->applied++;
	taker->what->act(sim, taker, chain);
	return true;
}

/* find or create script_treat()'s line for a behaviour */
static struct line *forced_line(struct script *script, const char *name)
{
	struct line **at = &script->lines;

	for (; *at; at = &(*at)->next)
		if ((*at)->forced && !strcmp((*at)->what->name, name))
			return *at;
	*at = calloc(1, sizeof(**at));
	if (!*at)
		return NULL;
	(*at)->forced = true;
	for (size_t i = 0; i < ARRAY_SIZE(behaviours); i++)
		if (!strcmp(behaviours[i].name, name))
			(*at)->what = &behaviours[i];
	return *at;
}

/**
 * script_treat() - treat a request badly
 * @sim: the device
 * @chain: the request, not valid afterwards
 * @name: the name of an existing behaviour
 * @value: its argument, as a number
 */
void script_treat(struct sim *sim, struct chain *chain, const char *name,
		  uint64_t value)
{
	struct script *script = sim->script;
	struct line *line;

	script->sim = sim;
	if (script->stopped) {
		chain_free(chain);
		return;
	}
	line = forced_line(script, name);
	if (!line) {
		request_execute(sim, chain);
		return;
	}
	line->value = value;
	line->applied++;
	line->what->act(sim, line, chain);
}

static void free_chains(struct chain *chain)
{
	struct chain *next;

	for (; chain; chain = next) {
		next = chain->next;
		chain_free(chain);
	}
}

static struct chain *take_held(struct script *script)
{
	struct chain *first = script->held.first;

	script->held = (struct chains){ .end = &script->held.first };
	return first;
}

/**
 * script_reset() - the device was reset: free all kept requests
 * @sim: the device
 *
 * The lines stay, and continue to count.
 */
void script_reset(struct sim *sim)
{
	struct script *script = sim->script;
	struct delayed *delayed;

	if (!script)
		return;
	script->stopped = false;
	free_chains(take_held(script));
	while ((delayed = script->delayed)) {
		script->delayed = delayed->next;
		loop_cancel(delayed->timer);
		if (delayed->chain)
			chain_free(delayed->chain);
		free(delayed);
	}
	for (struct line *line = script->lines; line; line = line->next) {
		if (line->timer)
			loop_cancel(line->timer);
		line->timer = NULL;
		free_chains(line->waiting);
		line->waiting = NULL;
		line->nr_waiting = 0;
	}
}

unsigned int script_release(struct sim *sim)
{
	struct script *script = sim->script;
	struct chain *chain, *next;
	unsigned int nr;

	if (!script)
		return 0;
	nr = script->held.nr;
	for (chain = take_held(script); chain; chain = next) {
		next = chain->next;
		request_execute(sim, chain);
	}
	for (struct line *line = script->lines; line; line = line->next) {
		nr += line->nr_waiting;
		answer_waiting(sim, line);
	}
	return nr;
}

/**
 * script_help() - print how to write a script
 * @out: the file to print to
 */
void script_help(FILE *out)
{
	static const char *const arguments[] = {
		[ARG_NONE] = "",
		[ARG_TIME] = "TIME",
		[ARG_STATUS] = "STATUS",
		[ARG_NUMBER] = "NUMBER",
	};

	fputs("A line has conditions, a colon and a behaviour:\n\n"
	      "  on type=out sector=100-200 nth=3: fail ioerr\n\n"
	      "Conditions, all of which a request must meet:\n"
	      "  type=NAME          in (read), out (write), flush..., or a number\n"
	      "  queue=NUMBER       it is in that queue\n"
	      "  sector=FIRST-LAST  it touches any of these sectors\n"
	      "  nth=NUMBER         it is the n-th that meets those above\n"
	      "  from=NUMBER        it is the n-th or a later one\n"
	      "  every=NUMBER       each n-th, counted from that of from\n"
	      "  count=NUMBER       the line has handled fewer than that many\n\n"
	      "Behaviours:\n", out);
	for (size_t i = 0; i < ARRAY_SIZE(behaviours); i++)
		fprintf(out, "  %-11s %-6s  %s\n", behaviours[i].name,
			arguments[behaviours[i].argument], behaviours[i].text);
}
