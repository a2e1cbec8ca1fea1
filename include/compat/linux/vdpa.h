/* SPDX-License-Identifier: GPL-2.0 */
/* What linux/vdpa.h of older kernels lacks. */
#ifndef VIRTBLK_COMPAT_LINUX_VDPA_H
#define VIRTBLK_COMPAT_LINUX_VDPA_H

#include_next <linux/vdpa.h>

/* 7.0: a device has operations that map memory, and its DMA device is part of a union. */
#ifndef VIRTBLK_HAVE_VDPA_MAP
#define vdpa_blk_dma_dev(vdpa)	((vdpa)->dma_dev)

#undef vdpa_alloc_device
#define vdpa_alloc_device(dev_struct, member, parent, config, map,	\
			  ngroups, nas, name, use_va)			\
	container_of((__vdpa_alloc_device(parent, config, ngroups, nas,	\
			(sizeof(dev_struct) +				\
			 BUILD_BUG_ON_ZERO(offsetof(dev_struct, member))), \
			name, use_va)), dev_struct, member)
#endif

#endif /* VIRTBLK_COMPAT_LINUX_VDPA_H */
