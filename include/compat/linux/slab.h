/* SPDX-License-Identifier: GPL-2.0 */
/* Additions to linux/slab.h of older kernels. */
#ifndef VIRTBLK_COMPAT_LINUX_SLAB_H
#define VIRTBLK_COMPAT_LINUX_SLAB_H

#include_next <linux/slab.h>

/* 7.0 */
#ifndef kzalloc_obj
#define kzalloc_obj(object, gfp)	kzalloc(sizeof(object), gfp)
#define kvzalloc_obj(object, gfp)	kvzalloc(sizeof(object), gfp)
#endif

#endif /* VIRTBLK_COMPAT_LINUX_SLAB_H */
