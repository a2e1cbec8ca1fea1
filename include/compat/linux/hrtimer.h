/* SPDX-License-Identifier: GPL-2.0 */
/* Additions to linux/hrtimer.h of older kernels. */
#ifndef VIRTBLK_COMPAT_LINUX_HRTIMER_H
#define VIRTBLK_COMPAT_LINUX_HRTIMER_H

#include_next <linux/hrtimer.h>

/* 6.13 */
#ifndef VIRTBLK_HAVE_HRTIMER_SETUP
static inline void hrtimer_setup(struct hrtimer *timer,
				 enum hrtimer_restart (*function)(struct hrtimer *),
				 clockid_t clock_id, enum hrtimer_mode mode)
{
	hrtimer_init(timer, clock_id, mode);
	timer->function = function;
}
#endif

#endif /* VIRTBLK_COMPAT_LINUX_HRTIMER_H */
