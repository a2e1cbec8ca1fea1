/* SPDX-License-Identifier: GPL-2.0 */
/* Additions to linux/virtio_config.h of older kernels. */
#ifndef VIRTBLK_COMPAT_LINUX_VIRTIO_CONFIG_H
#define VIRTBLK_COMPAT_LINUX_VIRTIO_CONFIG_H

#include_next <linux/virtio_config.h>

/* 6.4 */
#ifndef VIRTIO_F_NOTIFICATION_DATA
#define VIRTIO_F_NOTIFICATION_DATA	38
#endif

/* 6.6, in uapi/linux/virtio_config.h */
#ifndef VIRTIO_F_IN_ORDER
#define VIRTIO_F_IN_ORDER		35
#endif

/* 6.11: find_vqs takes one array of structures instead of one array per field. */
#ifndef VIRTBLK_HAVE_VIRTQUEUE_INFO
#include <linux/slab.h>

struct virtqueue_info {
	const char *name;
	vq_callback_t *callback;
};

static inline int virtblk_compat_find_vqs(struct virtio_device *vdev,
					  unsigned int nvqs,
					  struct virtqueue *vqs[],
					  struct virtqueue_info vqs_info[],
					  struct irq_affinity *desc)
{
	vq_callback_t **callbacks;
	const char **names;
	unsigned int i;
	int err = -ENOMEM;

	callbacks = kcalloc(nvqs, sizeof(*callbacks), GFP_KERNEL);
	names = kcalloc(nvqs, sizeof(*names), GFP_KERNEL);
	if (callbacks && names) {
		for (i = 0; i < nvqs; i++) {
			callbacks[i] = vqs_info[i].callback;
			names[i] = vqs_info[i].name;
		}
		err = virtio_find_vqs(vdev, nvqs, vqs, callbacks, names, desc);
	}
	kfree(names);
	kfree(callbacks);
	return err;
}

#define virtio_find_vqs(vdev, nvqs, vqs, vqs_info, desc) \
	virtblk_compat_find_vqs(vdev, nvqs, vqs, vqs_info, desc)
#endif

/* 6.17: a device may have more than 64 feature bits. */
#ifndef VIRTBLK_HAVE_EXTENDED_FEATURES
#define VIRTIO_FEATURES_U64S	1

static inline void virtio_get_features(struct virtio_device *vdev,
				       u64 *features_out)
{
	*features_out = vdev->config->get_features(vdev);
}
#endif

#endif /* VIRTBLK_COMPAT_LINUX_VIRTIO_CONFIG_H */
