// SPDX-License-Identifier: GPL-2.0
/*
 * Workqueues that all disks share.
 */

#include <linux/workqueue.h>

#include "virtio_blk.h"

struct workqueue_struct *virtblk_wq;
struct workqueue_struct *virtblk_complete_wq;
struct workqueue_struct *virtblk_freezable_wq;

/**
 * virtblk_init_workqueues() - allocate the workqueues
 *
 * Return: 0 or -ENOMEM.
 */
int virtblk_init_workqueues(void)
{
	virtblk_wq = alloc_workqueue(KBUILD_MODNAME, WQ_UNBOUND | WQ_MEM_RECLAIM,
				     0);
	if (!virtblk_wq)
		return -ENOMEM;
	virtblk_complete_wq = alloc_workqueue(KBUILD_MODNAME "-complete",
					      WQ_PERCPU | WQ_HIGHPRI |
					      WQ_MEM_RECLAIM, 0);
	if (!virtblk_complete_wq)
		goto out_destroy_wq;
	virtblk_freezable_wq = alloc_workqueue(KBUILD_MODNAME "-freezable",
					       WQ_UNBOUND | WQ_FREEZABLE |
					       WQ_MEM_RECLAIM, 0);
	if (!virtblk_freezable_wq)
		goto out_destroy_complete_wq;
	return 0;

out_destroy_complete_wq:
	destroy_workqueue(virtblk_complete_wq);
out_destroy_wq:
	destroy_workqueue(virtblk_wq);
	return -ENOMEM;
}

/**
 * virtblk_exit_workqueues() - free the workqueues
 *
 * Context: may sleep.  No work may be pending.
 */
void virtblk_exit_workqueues(void)
{
	destroy_workqueue(virtblk_freezable_wq);
	destroy_workqueue(virtblk_complete_wq);
	destroy_workqueue(virtblk_wq);
}
