// SPDX-License-Identifier: GPL-2.0
/*
 * A life cycle of the device's user: it opens the node, plays some parts, and closes the
 * node in one way or another.  All of it follows from a seed.
 */

#define _GNU_SOURCE
#include <stdio.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "vdpadrv.h"

#define LIFE_BYTES	0x380000U
#define VICTIM_BYTES	0x40000U

static const struct {
	void (*play)(struct dev *d);
	unsigned int weight;
} parts[] = {
	{ part_attack, 30 }, { part_attack_beside, 20 }, { part_wild, 10 }, { part_set_up, 5 },
	{ part_verify, 5 }, { part_mappings, 5 }, { part_victim, 6 }, { part_ring_unmap, 4 },
	{ part_suspend, 4 }, { part_move, 6 }, { part_enable, 5 }, { part_calls, 5 },
	{ part_resets, 6 }, { part_ioctls, 5 },
};

const char * const part_names[] = {
	"attack", "attack-beside", "wild", "set-up", "verify", "mappings", "victim",
	"ring-unmap", "suspend", "move", "enable", "calls", "resets", "ioctls",
};

const unsigned int nr_parts = LENGTH(parts);

_Static_assert(LENGTH(parts) == LENGTH(part_names), "each part has a name");
_Static_assert(LENGTH(parts) <= MAX_PARTS, "each part has a count");

static unsigned int pick_part(struct dev *d)
{
	unsigned int sum = 0, left, i;

	for (i = 0; i < nr_parts; i++)
		sum += parts[i].weight;
	left = rnd(&d->random) % sum;
	for (i = 0; left >= parts[i].weight; i++)
		left -= parts[i].weight;
	return i;
}

/* Half of the times requests are in flight, and half of the times a reset comes first. */
static void end_life(struct dev *d, bool verbose)
{
	unsigned int way = rnd(&d->random) % 8;

	if (way & 1)
		submit_all(d);
	if (way & 2)
		set_status(d, 0);
	if (verbose)
		printf("  end%s%s%s\n", way & 1 ? ", requests in flight" : "",
		       way & 2 ? ", reset" : "", way & 4 ? ", close" : "");
	/* Otherwise the exit of the process closes the node. */
	if (way & 4)
		close(d->fd);
}

void live(struct dev *d, bool verbose)
{
	unsigned int turns, part;

	d->random = d->seed * 0x9e3779b97f4a7c15ULL | 1;
	d->scatter = rnd(&d->random) % 4 == 0;
	d->config_call = eventfd(0, EFD_NONBLOCK);
	make_pieces(d, LIFE_BYTES, VICTIM_BYTES);
	limit_options(d);
	count(&counts->cycles);
	d->places = between(d, 4, 12);
	d->most_bytes = rnd(&d->random) % 8 ? 8192 : MAX_BYTES;
	for (turns = between(d, 1, 3); turns; turns--) {
		part = pick_part(d);
		if (verbose)
			printf("  %s\n", part_names[part]);
		parts[part].play(d);
		count(&counts->parts[part]);
	}
	end_life(d, verbose);
}
