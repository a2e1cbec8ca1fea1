/* SPDX-License-Identifier: GPL-2.0 */
/* Additions to linux/workqueue.h of older kernels. */
#ifndef VIRTBLK_COMPAT_LINUX_WORKQUEUE_H
#define VIRTBLK_COMPAT_LINUX_WORKQUEUE_H

#include_next <linux/workqueue.h>

/* 6.17: a flag for per-CPU workqueues, which are the default before. */
#ifndef VIRTBLK_HAVE_WQ_PERCPU
#define WQ_PERCPU	0
#endif

#endif /* VIRTBLK_COMPAT_LINUX_WORKQUEUE_H */
