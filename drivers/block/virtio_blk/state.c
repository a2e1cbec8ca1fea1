// SPDX-License-Identifier: GPL-2.0
/*
 * The state of a disk, and how user space learns of a change.
 *
 *	          probe
 *	            |
 *	            v       pm.c: suspend, reset of the function
 *	          live ------------------------------------> suspended
 *	          ^ |  <------------------------------------     |
 *	          | |       the device returns as it was         | does not return,
 *	          | |                                            | or offers less
 *	          | '-------> resetting ----------------.        |
 *	          '-----------    |                     |        |
 *	           was reset      | no attempt succeeds |        |
 *	                          v                     |        |
 *	          live ------> dead <-------------------'--------'
 *	          gone, broken,
 *	          silent while it is probed or removed
 *
 * virtblk_set_state() is the one place where the state changes.  DEAD is final.
 *
 *	state		virtqueues	requests
 *	live		present		go to the device
 *	suspended	none		wait: the block layer's queue is frozen
 *	resetting	none		wait in a quiesced queue, or, if they were in
 *					flight, on the requeue list
 *	dead		none		fail
 *
 * sysfs adds two states: a live disk is "stalled" while requests have timed out, and
 * "removing" while it is being removed.
 */

#include <linux/kobject.h>
#include <linux/sched/mm.h>
#include <linux/sysfs.h>
#include <linux/workqueue.h>

#include "virtio_blk.h"

static const char virtblk_stalled[] = "stalled";

static const char *const virtblk_state_names[] = {
	[VIRTBLK_NEW]		= "new",
	[VIRTBLK_LIVE]		= "live",
	[VIRTBLK_SUSPENDED]	= "suspended",
	[VIRTBLK_RESETTING]	= "resetting",
	[VIRTBLK_DEAD]		= "dead",
};

/* From each state, the states that may follow it. */
static const u8 virtblk_transitions[] = {
	[VIRTBLK_NEW]		= BIT(VIRTBLK_LIVE) | BIT(VIRTBLK_DEAD),
	[VIRTBLK_LIVE]		= BIT(VIRTBLK_SUSPENDED) |
				  BIT(VIRTBLK_RESETTING) | BIT(VIRTBLK_DEAD),
	[VIRTBLK_SUSPENDED]	= BIT(VIRTBLK_LIVE) | BIT(VIRTBLK_DEAD),
	[VIRTBLK_RESETTING]	= BIT(VIRTBLK_LIVE) | BIT(VIRTBLK_DEAD),
	[VIRTBLK_DEAD]		= 0,
};

static const char *virtblk_text(struct virtblk_recovery *recovery,
				enum virtblk_state state)
{
	if (state == VIRTBLK_LIVE && READ_ONCE(recovery->stalled))
		return virtblk_stalled;
	return virtblk_state_names[state];
}

/**
 * virtblk_state_text() - get the state of a disk for user space
 * @vblk: the disk
 *
 * Return: the state as sysfs shows it.
 */
const char *virtblk_state_text(struct virtio_blk *vblk)
{
	struct virtblk_recovery *recovery = &vblk->recovery;
	enum virtblk_state state = READ_ONCE(recovery->state);

	if (state == VIRTBLK_LIVE && READ_ONCE(recovery->removing))
		return "removing";
	return virtblk_text(recovery, state);
}

/**
 * virtblk_set_state() - change the state of a disk
 * @vblk: the disk, its recovery.lock held
 * @state: the new state; only a transition of the table is allowed
 */
void virtblk_set_state(struct virtio_blk *vblk, enum virtblk_state state)
{
	enum virtblk_state old = vblk->recovery.state;

	lockdep_assert_held(&vblk->recovery.lock);
	if (WARN(!(virtblk_transitions[old] & BIT(state)),
		 "virtio_blk: a disk cannot go from %s to %s\n",
		 virtblk_state_names[old], virtblk_state_names[state]))
		return;
	if (state == VIRTBLK_DEAD && vblk->recovery.probing)
		vblk->recovery.died_in_probe = true;
	WRITE_ONCE(vblk->recovery.state, state);
	wake_up_all(&vblk->recovery.wait);
	virtblk_report_state(vblk);
}

/* Reports */

/**
 * virtblk_report_state() - let user space know that the state may have changed
 * @vblk: the disk
 *
 * Context: any.
 */
void virtblk_report_state(struct virtio_blk *vblk)
{
	/* Not a workqueue that I/O needs: the work allocates memory. */
	queue_work(system_long_wq, &vblk->recovery.report);
}

/*
 * The state for an event, or NULL if it has none: suspend, the probe and removal have
 * events of their own.  The same pointer for the same state.
 */
static const char *virtblk_report_text(struct virtio_blk *vblk)
{
	struct virtblk_recovery *recovery = &vblk->recovery;
	enum virtblk_state state = READ_ONCE(recovery->state);

	if (READ_ONCE(recovery->removing) || READ_ONCE(recovery->probing) ||
	    state == VIRTBLK_NEW || state == VIRTBLK_SUSPENDED)
		return NULL;
	return virtblk_text(recovery, state);
}

static void virtblk_send_event(struct virtio_blk *vblk, const char *text)
{
	char disk[DISK_NAME_LEN + 16], state[32];
	char *env[3] = { disk, state };

	snprintf(disk, sizeof(disk), "VIRTBLK_DISK=%s", vblk->disk->disk_name);
	snprintf(state, sizeof(state), "VIRTBLK_STATE=%s", text);
	sysfs_notify(&disk_to_dev(vblk->disk)->kobj, NULL, "state");
	kobject_uevent_env(&vblk->vdev->dev.kobj, KOBJ_CHANGE, env);
}

/**
 * virtblk_report_work() - send an event if the state has changed since the last one
 * @work: the disk's recovery.report
 *
 * The event belongs to the virtio device.  One of the disk would make udev read the disk,
 * which hangs while the disk is stalled.  Recovery does not wait for this work; a removal
 * does.
 */
void virtblk_report_work(struct work_struct *work)
{
	struct virtio_blk *vblk = container_of(work, struct virtio_blk,
					       recovery.report);
	struct virtblk_recovery *recovery = &vblk->recovery;
	const char *text = virtblk_report_text(vblk);
	unsigned int noio;

	if (!text || text == recovery->reported)
		return;
	/* A probed disk is live, and has an event of its own. */
	if (!recovery->reported && text == virtblk_state_names[VIRTBLK_LIVE])
		return;
	recovery->reported = text;
	/* The memory that becomes free must not be what this disk has to write first. */
	noio = memalloc_noio_save();
	virtblk_send_event(vblk, text);
	memalloc_noio_restore(noio);
}
