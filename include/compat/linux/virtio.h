/* SPDX-License-Identifier: GPL-2.0 */
/* Additions to linux/virtio.h of older kernels. */
#ifndef VIRTBLK_COMPAT_LINUX_VIRTIO_H
#define VIRTBLK_COMPAT_LINUX_VIRTIO_H

#include_next <linux/virtio.h>

/* 6.14: the transport calls reset_prepare() and reset_done() around its resets. */
#ifndef VIRTBLK_HAVE_DEVICE_RESET
#define VIRTBLK_NO_DEVICE_RESET
#endif

/* 6.6 */
#ifndef VIRTBLK_HAVE_DMA_DEV
static inline struct device *virtqueue_dma_dev(struct virtqueue *vq)
{
	return NULL;
}
#endif

#endif /* VIRTBLK_COMPAT_LINUX_VIRTIO_H */
