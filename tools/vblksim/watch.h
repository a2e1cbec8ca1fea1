/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The rules for drivers, and which of them were broken.
 *
 * Each rule has a name, its section in VIRTIO 1.4, its strength, and its text
 * in a line.  They are in rules_ring.h (device status, feature bits, rings) and
 * rules_block.h (the block chapter).
 */
#ifndef VBLKSIM_WATCH_H
#define VBLKSIM_WATCH_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "rules_block.h"
#include "rules_ring.h"

#define RULES(X)	RING_RULES(X) BLOCK_RULES(X)

enum rule {
#define X(name, section, strength, text)	RULE_##name,
	RULES(X)
#undef X
	NR_RULES
};

struct rule_text {
	const char *name;
	const char *section;
	const char *strength;	/* "MUST" or "SHOULD" */
	const char *text;
};

extern const struct rule_text rule_texts[NR_RULES];

/**
 * struct watch - counters of rules and requests
 * @checked: how often each rule was checked
 * @broken: how often it was broken
 * @first: what broke it the first time, NULL if it was not broken
 * @types: number of requests by type
 * @mutated: number of replies that fuzz.c has mutated
 * @quiet: do not print broken rules to standard error
 */
struct watch {
	uint64_t checked[NR_RULES];
	uint64_t broken[NR_RULES];
	char *first[NR_RULES];
	uint64_t types[32];
	uint64_t mutated;
	bool quiet;
};

/**
 * watch_check() - count a check of a rule, and report it if broken
 * @watch: the counters
 * @rule: the rule
 * @kept: whether the driver kept it
 * @fmt: a message with the values that broke it
 *
 * Return: @kept.
 */
bool watch_check(struct watch *watch, enum rule rule, bool kept,
		 const char *fmt, ...) __attribute__((format(printf, 4, 5)));

/* count a request of that type; types above 31 count as 31 */
void watch_count(struct watch *watch, uint32_t type);

/* JSON: requests by type, rules checked, rules broken with section and text */
void watch_report(const struct watch *watch, FILE *out);

/* print the table of rules: name, section, strength, text */
void watch_list(FILE *out);

void watch_free(struct watch *watch);

#endif /* VBLKSIM_WATCH_H */
