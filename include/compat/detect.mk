# SPDX-License-Identifier: GPL-2.0
#
# Detect which interfaces that the driver uses exist in this kernel.
#
# The patterns search the kernel's headers.  The kernel's version is not enough, because
# stable and distribution kernels backport interfaces (Debian's 6.12 has rq_list, the
# first 6.12 did not).  A dot in a pattern stands for a parenthesis, because make
# requires parentheses to be balanced.

virtblk-has = $(if $(shell grep -sE '$(3)' $(srctree)/include/linux/$(2)),-DVIRTBLK_HAVE_$(1))

virtblk-have := \
	$(call virtblk-has,RQ_LIST,blk-mq.h,queue_rqs..struct rq_list) \
	$(call virtblk-has,QUEUE_FEATURES,blkdev.h,define BLK_FEAT_ROTATIONAL) \
	$(call virtblk-has,LIMITS_UPDATE,blkdev.h,^queue_limits_start_update) \
	$(call virtblk-has,COMMIT_FROZEN,blkdev.h,queue_limits_commit_update_frozen) \
	$(call virtblk-has,WZEROES_UNMAP,blkdev.h,max_hw_wzeroes_unmap_sectors) \
	$(call virtblk-has,HW_ZONE_APPEND,blkdev.h,max_hw_zone_append_sectors) \
	$(call virtblk-has,REPORT_ZONES_ARGS,blkdev.h,struct blk_report_zones_args) \
	$(call virtblk-has,GETGEO_DISK,blkdev.h,getgeo..struct gendisk) \
	$(call virtblk-has,MERGE_BY_DEFAULT,blk-mq.h,BLK_MQ_F_TAG_RR) \
	$(call virtblk-has,SIGNED_NODE,blk-mq.h,unsigned int. int.;) \
	$(call virtblk-has,FREEZE_MEMFLAGS,blk-mq.h,blk_mq_freeze_queue_nomemsave) \
	$(call virtblk-has,FREEZE_NON_OWNER,blk-mq.h,blk_freeze_queue_start_non_owner) \
	$(call virtblk-has,MAP_SG_WITHOUT_QUEUE,blk-mq.h,blk_rq_map_sg.struct request \*) \
	$(call virtblk-has,MAP_KERN_WITHOUT_QUEUE,blk-mq.h,blk_rq_map_kern.struct request \*) \
	$(call virtblk-has,ZONED_MODEL,blkdev.h,disk_set_zoned.*enum blk_zoned_model) \
	$(call virtblk-has,DEVICE_RESET,virtio.h,reset_prepare) \
	$(call virtblk-has,DMA_DEV,virtio.h,virtqueue_dma_dev) \
	$(call virtblk-has,ZONED_DEVICES,../uapi/linux/virtio_blk.h,VIRTIO_BLK_F_ZONED) \
	$(call virtblk-has,VIRTQUEUE_INFO,virtio_config.h,^struct virtqueue_info) \
	$(call virtblk-has,WQ_PERCPU,workqueue.h,WQ_PERCPU) \
	$(call virtblk-has,EXTENDED_FEATURES,virtio_config.h,get_extended_features) \
	$(call virtblk-has,VDPA_MAP,vdpa.h,union virtio_map vmap) \
	$(call virtblk-has,HRTIMER_SETUP,hrtimer.h,hrtimer_setup.struct)

ccflags-y += $(virtblk-have)
# Before the kernel's headers, because these headers include and extend them.
LINUXINCLUDE := -I$(virtblk-compat) $(LINUXINCLUDE)
