// SPDX-License-Identifier: GPL-2.0
/* The event loop: one thread, one epoll, and a list of timers. */

#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include "vblksim.h"

#define EVENTS_AT_ONCE	64

/**
 * struct loop_timer - a call at a later time
 * @next: the timer after it
 * @when: the time, in nanoseconds of the monotonic clock
 * @fn: the function
 * @arg: for @fn
 */
struct loop_timer {
	struct loop_timer *next;
	uint64_t when;
	loop_fn fn;
	void *arg;
};

struct watched {
	loop_fn fn;
	void *arg;
};

static struct {
	int epoll;
	bool open;
	bool stop;
	struct watched *watched;	/* by file descriptor */
	int nr_watched;
	struct loop_timer *timers;	/* the next one first */
} loop;

static uint64_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ull + ts.tv_nsec;
}

static int open_loop(void)
{
	if (loop.open)
		return 0;
	loop.epoll = epoll_create1(EPOLL_CLOEXEC);
	if (loop.epoll < 0)
		return -1;
	loop.open = true;
	return 0;
}

int loop_add_fd(int fd, loop_fn fn, void *arg)
{
	struct epoll_event event = { .events = EPOLLIN, .data.fd = fd };

	if (open_loop())
		return -1;
	if (fd >= loop.nr_watched) {
		int more = fd + 64;
		struct watched *larger;

		larger = realloc(loop.watched, more * sizeof(*larger));
		if (!larger)
			return -1;
		memset(larger + loop.nr_watched, 0,
		       (more - loop.nr_watched) * sizeof(*larger));
		loop.watched = larger;
		loop.nr_watched = more;
	}
	loop.watched[fd] = (struct watched) { fn, arg };
	return epoll_ctl(loop.epoll, EPOLL_CTL_ADD, fd, &event);
}

void loop_del_fd(int fd)
{
	if (fd < 0 || fd >= loop.nr_watched || !loop.watched[fd].fn)
		return;
	loop.watched[fd].fn = NULL;
	epoll_ctl(loop.epoll, EPOLL_CTL_DEL, fd, NULL);
}

struct loop_timer *loop_after(uint64_t ns, loop_fn fn, void *arg)
{
	struct loop_timer **at = &loop.timers, *timer;

	timer = malloc(sizeof(*timer));
	if (!timer)
		return NULL;
	*timer = (struct loop_timer) {
		.when = now() + ns,
		.fn = fn,
		.arg = arg,
	};
	while (*at && (*at)->when <= timer->when)
		at = &(*at)->next;
	timer->next = *at;
	*at = timer;
	return timer;
}

void loop_cancel(struct loop_timer *timer)
{
	for (struct loop_timer **at = &loop.timers; *at; at = &(*at)->next)
		if (*at == timer) {
			*at = timer->next;
			free(timer);
			return;
		}
}

void loop_stop(void)
{
	loop.stop = true;
}

/* Run the timers that are due now, but not those that they add. */
static void run_timers(struct sim *sim)
{
	uint64_t until = now();
	struct loop_timer *timer;

	while ((timer = loop.timers) && timer->when <= until && !loop.stop) {
		loop.timers = timer->next;
		timer->fn(sim, timer->arg);
		free(timer);
	}
}

/* Return the time to the next timer, in milliseconds, rounded up. */
static int timeout(void)
{
	uint64_t time = now(), ms;

	if (!loop.timers)
		return -1;
	if (loop.timers->when <= time)
		return 0;
	ms = (loop.timers->when - time + 999999) / 1000000;
	return ms > 1000000 ? 1000000 : ms;
}

int loop_run(struct sim *sim)
{
	struct epoll_event events[EVENTS_AT_ONCE];
	int nr;

	if (open_loop())
		return -1;
	for (loop.stop = false; !loop.stop; ) {
		nr = epoll_wait(loop.epoll, events, EVENTS_AT_ONCE, timeout());
		if (nr < 0 && errno != EINTR)
			return -1;
		for (int i = 0; i < nr && !loop.stop; i++) {
			/* A handler before may have removed this one. */
			struct watched *it = &loop.watched[events[i].data.fd];

			if (it->fn)
				it->fn(sim, it->arg);
		}
		run_timers(sim);
	}
	return 0;
}
