// SPDX-License-Identifier: GPL-2.0
/*
 * The device as the vDPA bus sees it: features, status, virtqueues, memory.
 *
 * The order in which bus drivers set a device up differs (QEMU enables virtqueues before
 * it shares memory, and also those that it does not use), so rings are mapped when
 * DRIVER_OK is set, or when a virtqueue is enabled after that.
 *
 * Workers run while DRIVER_OK is set and the device is neither suspended nor being
 * changed.  All changes of rings and memory are made with the workers parked and nothing
 * in flight.
 */

#include <linux/sched/mm.h>
#include <linux/vhost_iotlb.h>
#include <uapi/linux/vhost_types.h>
#include <uapi/linux/virtio_ids.h>

#include "memory.h"
#include "queue.h"
#include "ring.h"
#include "vdpa_blk.h"

#define VDPA_BLK_VENDOR		0

/* Status and I/O */

/* Whether the bus driver is the one that shares this kernel's memory. */
static bool vdpa_blk_is_local(struct vdpa_blk *vb)
{
	const struct device_driver *driver = READ_ONCE(vb->vdpa.dev.driver);

	return driver && !strcmp(driver->name, "virtio_vdpa");
}

/* Whether the driver has set the device up (VIRTIO 1.4, 3.1.1). */
static bool vdpa_blk_is_live(const struct vdpa_blk *vb)
{
	const u8 both = VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK;

	return (vb->status & both) == both;
}

static void vdpa_blk_stop_io(struct vdpa_blk *vb)
{
	if (!vb->paused)
		vdpa_blk_park_workers(vb);
}

/*
 * Allocations wait for no I/O while the lock is held, because this kernel may have swap
 * or a file system on the disk.
 */
static unsigned int vdpa_blk_lock(struct vdpa_blk *vb)
{
	unsigned int noio = memalloc_noio_save();

	mutex_lock(&vb->lock);
	return noio;
}

static void vdpa_blk_unlock(struct vdpa_blk *vb, unsigned int noio)
{
	mutex_unlock(&vb->lock);
	memalloc_noio_restore(noio);
}

/**
 * vdpa_blk_break_work() - set DEVICE_NEEDS_RESET, and interrupt the driver
 * @work: the device's break_work
 */
void vdpa_blk_break_work(struct work_struct *work)
{
	struct vdpa_blk *vb = container_of(work, struct vdpa_blk, break_work);
	bool broken = false;
	unsigned int i;

	/* A reset repairs the queues with this lock held, and clears the status. */
	spin_lock_irq(&vb->config_lock);
	for (i = 0; i < vb->settings.queues; i++)
		broken |= READ_ONCE(vb->queues[i]->broken);
	if (broken) {
		vb->status |= VIRTIO_CONFIG_S_NEEDS_RESET;
		vb->generation++;
		vdpa_blk_call_config(vb);
	}
	spin_unlock_irq(&vb->config_lock);
}

/* Map the rings of enabled virtqueues, and serve them, if nothing speaks against it. */
static void vdpa_blk_start_io(struct vdpa_blk *vb)
{
	if (!vdpa_blk_is_live(vb) || vb->suspended || vb->map_failed)
		return;
	vdpa_blk_start_queues(vb);
	vdpa_blk_unpark_workers(vb);
}

/**
 * vdpa_blk_reset_device() - stop all I/O, and forget what the driver has set
 * @vb: the device
 *
 * Waits for requests that the backing device has.  Calls none of the driver's callbacks
 * any more.  Memory that a process shares stays until vhost-vdpa takes it back.
 *
 * Context: may sleep.
 */
void vdpa_blk_reset_device(struct vdpa_blk *vb)
{
	unsigned int noio, i;

	noio = vdpa_blk_lock(vb);
	WRITE_ONCE(vb->stopping, true);
	vdpa_blk_stop_io(vb);
	WRITE_ONCE(vb->stopping, false);
	vdpa_blk_stop_queues(vb);
	bitmap_zero(vb->stalled, VDPA_BLK_MAX_QUEUES);

	spin_lock_irq(&vb->config_lock);
	for (i = 0; i < vb->settings.queues; i++)
		WRITE_ONCE(vb->queues[i]->broken, false);
	vb->status = 0;
	vb->driver_features = 0;
	memset(&vb->config_cb, 0, sizeof(vb->config_cb));
	vb->config_missed = false;
	vb->config.wce = vdpa_blk_has_cache(vb);
	spin_unlock_irq(&vb->config_lock);

	for (i = 0; i < vb->settings.queues; i++)
		vdpa_blk_reset_queue(vb->queues[i]);
	vb->suspended = false;
	if (vb->memory && vb->memory->identity) {
		vdpa_blk_free_memory(vb->memory, NULL);
		vb->memory = NULL;
	}
	vdpa_blk_unlock(vb, noio);
}

/* Virtqueues */

static struct vdpa_blk_queue *vdpa_blk_queue_of(struct vdpa_device *vdpa, u16 index)
{
	return vdpa_to_blk(vdpa)->queues[index];
}

static int vdpa_blk_set_vq_address(struct vdpa_device *vdpa, u16 index,
				   u64 desc, u64 driver, u64 device)
{
	struct vdpa_blk_queue *q = vdpa_blk_queue_of(vdpa, index);
	int err = 0;
	unsigned int noio;

	noio = vdpa_blk_lock(q->vb);
	if (q->ring.desc.addr) {
		err = -EBUSY;
	} else {
		q->desc_addr = desc;
		q->driver_addr = driver;
		q->device_addr = device;
	}
	vdpa_blk_unlock(q->vb, noio);
	return err;
}

static void vdpa_blk_set_vq_num(struct vdpa_device *vdpa, u16 index, u32 num)
{
	struct vdpa_blk_queue *q = vdpa_blk_queue_of(vdpa, index);
	unsigned int noio;

	/* The bus drivers check it as well; a packed ring may be of any size. */
	noio = vdpa_blk_lock(q->vb);
	if (!q->ring.desc.addr && num >= 1 && num <= q->vb->settings.ring_size)
		q->num = num;
	vdpa_blk_unlock(q->vb, noio);
}

static void vdpa_blk_kick_vq(struct vdpa_device *vdpa, u16 index)
{
	struct vdpa_blk_queue *q = vdpa_blk_queue_of(vdpa, index);

	if (READ_ONCE(q->running))
		vdpa_blk_wake_worker(q);
}

static void vdpa_blk_set_vq_cb(struct vdpa_device *vdpa, u16 index,
			       struct vdpa_callback *cb)
{
	struct vdpa_blk_queue *q = vdpa_blk_queue_of(vdpa, index);

	spin_lock_irq(&q->lock);
	q->cb = *cb;
	spin_unlock_irq(&q->lock);
}

static void vdpa_blk_set_vq_ready(struct vdpa_device *vdpa, u16 index, bool ready)
{
	struct vdpa_blk_queue *q = vdpa_blk_queue_of(vdpa, index);
	struct vdpa_blk *vb = q->vb;
	unsigned int noio;

	noio = vdpa_blk_lock(vb);
	q->ready = ready;
	if (vdpa_blk_is_live(vb)) {
		vdpa_blk_stop_io(vb);
		if (!ready)
			vdpa_blk_stop_queue(q);
		vdpa_blk_start_io(vb);
	}
	vdpa_blk_unlock(vb, noio);
}

static bool vdpa_blk_get_vq_ready(struct vdpa_device *vdpa, u16 index)
{
	return READ_ONCE(vdpa_blk_queue_of(vdpa, index)->ready);
}

static int vdpa_blk_set_vq_state(struct vdpa_device *vdpa, u16 index,
				 const struct vdpa_vq_state *state)
{
	struct vdpa_blk_queue *q = vdpa_blk_queue_of(vdpa, index);
	int err = 0;
	unsigned int noio;

	noio = vdpa_blk_lock(q->vb);
	if (q->ring.desc.addr) {
		err = -EBUSY;
	} else {
		q->state = *state;
		q->has_state = true;
	}
	vdpa_blk_unlock(q->vb, noio);
	return err;
}

static int vdpa_blk_get_vq_state(struct vdpa_device *vdpa, u16 index,
				 struct vdpa_vq_state *state)
{
	struct vdpa_blk_queue *q = vdpa_blk_queue_of(vdpa, index);
	unsigned int noio;

	noio = vdpa_blk_lock(q->vb);
	if (q->ring.desc.addr)
		vdpa_blk_save_state(q);
	else
		vdpa_blk_default_state(q);
	*state = q->state;
	vdpa_blk_unlock(q->vb, noio);
	return 0;
}

/* The device */

static u32 vdpa_blk_get_vq_align(struct vdpa_device *vdpa)
{
	return PAGE_SIZE;
}

static u64 vdpa_blk_get_device_features(struct vdpa_device *vdpa)
{
	struct vdpa_blk *vb = vdpa_to_blk(vdpa);

	/* The driver of this kernel passes physical addresses (VIRTIO 1.4, 6). */
	if (vdpa_blk_is_local(vb))
		return vb->features & ~BIT_ULL(VIRTIO_F_ACCESS_PLATFORM);
	return vb->features;
}

static u64 vdpa_blk_get_backend_features(const struct vdpa_device *vdpa)
{
	return BIT_ULL(VHOST_BACKEND_F_ENABLE_AFTER_DRIVER_OK);
}

static int vdpa_blk_set_driver_features(struct vdpa_device *vdpa, u64 features)
{
	struct vdpa_blk *vb = vdpa_to_blk(vdpa);
	unsigned int noio;
	int err = 0;

	noio = vdpa_blk_lock(vb);
	if (vb->status & VIRTIO_CONFIG_S_FEATURES_OK) {
		err = -EBUSY;
	} else if (vdpa_blk_accepts_features(vb, features)) {
		vb->driver_features = features;
	} else {
		/* Without features the device refuses FEATURES_OK. */
		vb->driver_features = 0;
		err = -EINVAL;
	}
	vdpa_blk_unlock(vb, noio);
	return err;
}

static u64 vdpa_blk_get_driver_features(struct vdpa_device *vdpa)
{
	return vdpa_to_blk(vdpa)->driver_features;
}

static void vdpa_blk_set_config_cb(struct vdpa_device *vdpa,
				   struct vdpa_callback *cb)
{
	struct vdpa_blk *vb = vdpa_to_blk(vdpa);

	spin_lock_irq(&vb->config_lock);
	vb->config_cb = *cb;
	spin_unlock_irq(&vb->config_lock);
}

static u16 vdpa_blk_get_vq_num_max(struct vdpa_device *vdpa)
{
	return vdpa_to_blk(vdpa)->settings.ring_size;
}

static u32 vdpa_blk_get_device_id(struct vdpa_device *vdpa)
{
	return VIRTIO_ID_BLOCK;
}

static u32 vdpa_blk_get_vendor_id(struct vdpa_device *vdpa)
{
	return VDPA_BLK_VENDOR;
}

static u8 vdpa_blk_get_status(struct vdpa_device *vdpa)
{
	return READ_ONCE(vdpa_to_blk(vdpa)->status);
}

static void vdpa_blk_start_device(struct vdpa_blk *vb)
{
	struct vdpa_blk_memory *memory;

	if (!vb->memory && vdpa_blk_is_local(vb)) {
		memory = vdpa_blk_create_identity();
		if (!IS_ERR(memory))
			vb->memory = memory;
	}
	/* Without memory the virtqueues break, and the driver learns it. */
	vb->map_failed = false;
	vdpa_blk_start_io(vb);
}

/*
 * A driver sets no other bits.  SUSPEND has no meaning without VIRTIO_F_SUSPEND, and the
 * device must ignore it before it is set up (VIRTIO 1.4, 3.4.2).
 */
#define VDPA_BLK_DRIVER_STATUS						\
	(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER |		\
	 VIRTIO_CONFIG_S_DRIVER_OK | VIRTIO_CONFIG_S_FEATURES_OK |	\
	 VIRTIO_CONFIG_S_FAILED)

static void vdpa_blk_set_status(struct vdpa_device *vdpa, u8 status)
{
	struct vdpa_blk *vb = vdpa_to_blk(vdpa);
	unsigned int noio;
	bool was_live;

	noio = vdpa_blk_lock(vb);
	was_live = vdpa_blk_is_live(vb);
	status &= VDPA_BLK_DRIVER_STATUS;
	/* FEATURES_OK stays off if the features were refused (VIRTIO 1.4, 2.2.2). */
	if (!vb->driver_features)
		status &= ~VIRTIO_CONFIG_S_FEATURES_OK;
	if (!((vb->status | status) & VIRTIO_CONFIG_S_FEATURES_OK))
		status &= ~VIRTIO_CONFIG_S_DRIVER_OK;
	spin_lock_irq(&vb->config_lock);
	vb->status |= status;
	if (status & VIRTIO_CONFIG_S_FEATURES_OK)
		vdpa_blk_update_writeback(vb);
	if (vb->config_missed)
		vdpa_blk_call_config(vb);
	spin_unlock_irq(&vb->config_lock);
	if (!was_live && vdpa_blk_is_live(vb))
		vdpa_blk_start_device(vb);
	vdpa_blk_unlock(vb, noio);
}

static int vdpa_blk_reset(struct vdpa_device *vdpa)
{
	vdpa_blk_reset_device(vdpa_to_blk(vdpa));
	return 0;
}

static int vdpa_blk_suspend(struct vdpa_device *vdpa)
{
	struct vdpa_blk *vb = vdpa_to_blk(vdpa);
	unsigned int noio;

	noio = vdpa_blk_lock(vb);
	vdpa_blk_stop_io(vb);
	vb->suspended = true;
	vdpa_blk_unlock(vb, noio);
	return 0;
}

static int vdpa_blk_resume(struct vdpa_device *vdpa)
{
	struct vdpa_blk *vb = vdpa_to_blk(vdpa);
	unsigned int noio;

	noio = vdpa_blk_lock(vb);
	if (vb->suspended) {
		vb->suspended = false;
		vdpa_blk_start_io(vb);
	}
	vdpa_blk_unlock(vb, noio);
	return 0;
}

static size_t vdpa_blk_get_config_size(struct vdpa_device *vdpa)
{
	return sizeof(struct virtio_blk_config);
}

static void vdpa_blk_get_config(struct vdpa_device *vdpa, unsigned int offset,
				void *buf, unsigned int len)
{
	struct vdpa_blk *vb = vdpa_to_blk(vdpa);

	if (offset > sizeof(vb->config) || len > sizeof(vb->config) - offset)
		return;
	/* Not the other lock: its holder may wait for the backing device. */
	spin_lock_irq(&vb->config_lock);
	memcpy(buf, (u8 *)&vb->config + offset, len);
	spin_unlock_irq(&vb->config_lock);
}

/* The driver may only change the cache mode (VIRTIO 1.4, 5.2.6.1). */
static void vdpa_blk_set_config(struct vdpa_device *vdpa, unsigned int offset,
				const void *buf, unsigned int len)
{
	struct vdpa_blk *vb = vdpa_to_blk(vdpa);
	unsigned int at = offsetof(struct virtio_blk_config, wce);

	if (offset > at || len <= at - offset || len > sizeof(vb->config) ||
	    !(vb->driver_features & BIT_ULL(VIRTIO_BLK_F_CONFIG_WCE)))
		return;
	spin_lock_irq(&vb->config_lock);
	vb->config.wce = !!((const u8 *)buf)[at - offset];
	vdpa_blk_update_writeback(vb);
	spin_unlock_irq(&vb->config_lock);
}

static u32 vdpa_blk_get_generation(struct vdpa_device *vdpa)
{
	return READ_ONCE(vdpa_to_blk(vdpa)->generation);
}

/* Memory */

/*
 * Replace the list of extents.  Without @iotlb, or with an empty one, the driver shares
 * nothing.
 */
static int vdpa_blk_replace_memory(struct vdpa_blk *vb, struct vhost_iotlb *iotlb)
{
	struct vdpa_blk_memory *memory = NULL, *old;
	unsigned int noio;
	int err = 0;

	noio = vdpa_blk_lock(vb);
	old = vb->memory;
	if (iotlb && iotlb->nmaps)
		memory = vdpa_blk_create_memory(iotlb, old);
	/*
	 * vhost-vdpa may ignore the error: do without memory that it has unpinned, until it
	 * passes a table again.
	 */
	if (IS_ERR(memory)) {
		err = PTR_ERR(memory);
		memory = NULL;
		dev_err_ratelimited(&vb->vdpa.dev, "the mappings of memory cannot be used, error %d; no virtqueue is served until they change\n",
				    err);
	}
	vdpa_blk_stop_io(vb);
	vdpa_blk_stop_queues(vb);
	vb->memory = memory;
	vb->map_failed = err;
	vdpa_blk_start_io(vb);
	/* After I/O goes on, because marking pages dirty waits for those that are locked. */
	vdpa_blk_free_memory(old, memory);
	vdpa_blk_unlock(vb, noio);
	return err;
}

static int vdpa_blk_set_map(struct vdpa_device *vdpa, unsigned int asid,
			    struct vhost_iotlb *iotlb)
{
	return vdpa_blk_replace_memory(vdpa_to_blk(vdpa), iotlb);
}

static int vdpa_blk_reset_map(struct vdpa_device *vdpa, unsigned int asid)
{
	return vdpa_blk_replace_memory(vdpa_to_blk(vdpa), NULL);
}

/* Free what the device holds; the bus frees the structure itself. */
static void vdpa_blk_free(struct vdpa_device *vdpa)
{
	struct vdpa_blk *vb = vdpa_to_blk(vdpa);

	vdpa_blk_stop_workers(vb);
	/* A completion may still be at its end. */
	synchronize_rcu();
	vdpa_blk_free_pools(vb);
	vdpa_blk_free_memory(vb->memory, NULL);
	vdpa_blk_close_backing(vb);
	vdpa_blk_free_queues(vb);
}

const struct vdpa_config_ops vdpa_blk_ops = {
	.set_vq_address		= vdpa_blk_set_vq_address,
	.set_vq_num		= vdpa_blk_set_vq_num,
	.kick_vq		= vdpa_blk_kick_vq,
	.set_vq_cb		= vdpa_blk_set_vq_cb,
	.set_vq_ready		= vdpa_blk_set_vq_ready,
	.get_vq_ready		= vdpa_blk_get_vq_ready,
	.set_vq_state		= vdpa_blk_set_vq_state,
	.get_vq_state		= vdpa_blk_get_vq_state,
	.get_vq_align		= vdpa_blk_get_vq_align,
	.get_device_features	= vdpa_blk_get_device_features,
	.get_backend_features	= vdpa_blk_get_backend_features,
	.set_driver_features	= vdpa_blk_set_driver_features,
	.get_driver_features	= vdpa_blk_get_driver_features,
	.set_config_cb		= vdpa_blk_set_config_cb,
	.get_vq_num_max		= vdpa_blk_get_vq_num_max,
	.get_device_id		= vdpa_blk_get_device_id,
	.get_vendor_id		= vdpa_blk_get_vendor_id,
	.get_status		= vdpa_blk_get_status,
	.set_status		= vdpa_blk_set_status,
	.reset			= vdpa_blk_reset,
	.suspend		= vdpa_blk_suspend,
	.resume			= vdpa_blk_resume,
	.get_config_size	= vdpa_blk_get_config_size,
	.get_config		= vdpa_blk_get_config,
	.set_config		= vdpa_blk_set_config,
	.get_generation		= vdpa_blk_get_generation,
	.set_map		= vdpa_blk_set_map,
	.reset_map		= vdpa_blk_reset_map,
	.free			= vdpa_blk_free,
};
