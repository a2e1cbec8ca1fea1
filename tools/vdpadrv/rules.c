// SPDX-License-Identifier: GPL-2.0
/* Hold the device to the rules of VIRTIO, one after the other. */

#include <stdio.h>
#include <string.h>

#include "rules.h"

static const struct {
	const char *name, *section;
	enum where where;
	void (*check)(struct dev *d);
} rules[] = {
#define RULE(name, section, where, check) { #name, section, where, check },
	RULES(RULE)
};

/* Run a check with the options of a new start. */
static void run_check(struct dev *d, unsigned int i, bool packed)
{
	d->packed = packed;
	d->indirect = false;
	d->event_idx = true;
	d->any_base = false;
	d->refused = 0;
	d->num = d->max_num;
	d->depth = d->max_depth;
	printf("rule %s (%s)%s\n", rules[i].name, rules[i].section,
	       rules[i].where == ONCE ? "" : packed ? ", packed" : ", split");
	rules[i].check(d);
}

/* With --name one rule, otherwise all that the device can be held to. */
void run_rules(struct dev *d)
{
	bool read_only = d->features & F(VIRTIO_BLK_F_RO), found = false;
	unsigned int i;

	for (i = 0; i < LENGTH(rules); i++) {
		if (d->name && strcmp(d->name, rules[i].name))
			continue;
		found = true;
		if (read_only != (rules[i].where == READ_ONLY_DEVICE))
			continue;
		if (rules[i].where != PACKED)
			run_check(d, i, false);
		if (rules[i].where != SPLIT && rules[i].where != ONCE)
			run_check(d, i, true);
	}
	if (!found)
		fail("there is no rule %s", d->name);
	printf("ok rules\n");
}
