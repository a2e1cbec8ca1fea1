/* SPDX-License-Identifier: GPL-2.0 */
/* What linux/virtio.h of older kernels lacks. */
#ifndef VIRTBLK_COMPAT_LINUX_VIRTIO_H
#define VIRTBLK_COMPAT_LINUX_VIRTIO_H

#include_next <linux/virtio.h>

/* 6.14: drivers are told when the transport resets a device. */
#ifndef VIRTBLK_HAVE_DEVICE_RESET
#define VIRTBLK_NO_DEVICE_RESET
#endif

#endif /* VIRTBLK_COMPAT_LINUX_VIRTIO_H */
