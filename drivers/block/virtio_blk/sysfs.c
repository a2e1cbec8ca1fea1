// SPDX-License-Identifier: GPL-2.0
/*
 * A disk's files in sysfs: serial, cache_type, state, recovery/, lifetime/.
 */

#include <linux/blk-mq.h>
#include <linux/device.h>
#include <linux/mutex.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/sysfs.h>

#include "virtio_blk.h"

/* Indexed by the values of the device's writeback field. */
static const char *const virtblk_cache_types[] = {
	"write through", "write back",
};

static ssize_t serial_show(struct device *dev, struct device_attribute *attr,
			   char *buf)
{
	int err;

	err = virtblk_get_id(dev_to_disk(dev), buf);
	/* A device without an ID has an empty file. */
	if (err == -EOPNOTSUPP || err == -EIO)
		return 0;
	if (err)
		return err;
	/* The in-tree driver emits no newline, either. */
	return strlen(buf);
}
static DEVICE_ATTR_RO(serial);

/* The cache mode of a live device, 1 for write back; -EBUSY for one that is not. */
static int virtblk_read_mode(struct virtio_blk *vblk)
{
	lockdep_assert_held(&vblk->recovery.lock);
	if (vblk->recovery.state != VIRTBLK_LIVE)
		return -EBUSY;
	return virtblk_writeback(vblk->vdev);
}

static ssize_t cache_type_show(struct device *dev,
			       struct device_attribute *attr, char *buf)
{
	struct virtio_blk *vblk = dev_to_disk(dev)->private_data;
	unsigned int noio = memalloc_noio_save();
	int mode = -EBUSY;

	/* Do not wait for a reset that is stuck. */
	if (mutex_trylock(&vblk->recovery.lock)) {
		mode = virtblk_read_mode(vblk);
		mutex_unlock(&vblk->recovery.lock);
	}
	memalloc_noio_restore(noio);
	if (mode < 0)
		mode = READ_ONCE(vblk->writeback);
	return sysfs_emit(buf, "%s\n", virtblk_cache_types[mode]);
}

/*
 * Request a cache mode from the device.  Returns the mode that the device then has, 1
 * for write back, or -EBUSY if the device is not live.
 */
static int virtblk_request_writeback(struct virtio_blk *vblk, u8 writeback)
{
	unsigned int noio = virtblk_lock_recovery(&vblk->recovery);
	int mode;

	if (vblk->recovery.state == VIRTBLK_LIVE)
		virtio_cwrite(vblk->vdev, struct virtio_blk_config, wce,
			      &writeback);
	mode = virtblk_read_mode(vblk);
	/* A reset must not restore a cache that the block layer stops flushing. */
	if (!mode)
		WRITE_ONCE(vblk->writeback, false);
	virtblk_unlock_recovery(&vblk->recovery, noio);
	return mode;
}

/*
 * No acknowledged write may stay in the device's cache without a flush (VIRTIO 1.4,
 * 5.2.6.1).  Therefore the block layer starts to flush before the device starts to
 * cache.  It stops only after the device has stopped caching and a flush has emptied
 * the cache.  The mode that the device reports after the request decides.
 */
static int virtblk_change_cache_type(struct virtio_blk *vblk, u8 writeback)
{
	unsigned int noio;
	int err, mode;

	if (writeback) {
		err = virtblk_set_write_cache(vblk, true);
		if (err)
			return err;
	}

	mode = virtblk_request_writeback(vblk, writeback);
	if (mode < 0)
		return mode;
	/*
	 * The block layer may have issued writes for a device without a cache that it
	 * sends only now: they waited for the change of the limits.  A device that has
	 * turned its cache on by itself may refuse to turn it off.
	 */
	if (mode)
		return virtblk_start_flushing(vblk);

	err = blkdev_issue_flush(vblk->disk->part0);
	if (err)
		return err;
	err = virtblk_set_write_cache(vblk, false);
	if (err)
		return err;

	/* The device may have turned its cache on again by itself. */
	noio = virtblk_lock_recovery(&vblk->recovery);
	mode = virtblk_read_mode(vblk);
	virtblk_unlock_recovery(&vblk->recovery, noio);
	if (!mode)
		return 0;
	err = virtblk_start_flushing(vblk);
	return err ?: min(mode, 0);
}

static ssize_t cache_type_store(struct device *dev,
				struct device_attribute *attr,
				const char *buf, size_t count)
{
	struct virtio_blk *vblk = dev_to_disk(dev)->private_data;
	int i, err;

	i = sysfs_match_string(virtblk_cache_types, buf);
	if (i < 0)
		return i;

	mutex_lock(&vblk->cache_lock);
	err = virtblk_change_cache_type(vblk, i);
	mutex_unlock(&vblk->cache_lock);
	return err ?: count;
}
static DEVICE_ATTR_RW(cache_type);

static ssize_t state_show(struct device *dev, struct device_attribute *attr,
			  char *buf)
{
	struct virtio_blk *vblk = dev_to_disk(dev)->private_data;

	return sysfs_emit(buf, "%s\n", virtblk_state_text(vblk));
}
static DEVICE_ATTR_RO(state);

static ssize_t oldest_ms_show(struct device *dev, struct device_attribute *attr,
			      char *buf)
{
	struct virtio_blk *vblk = dev_to_disk(dev)->private_data;
	struct virtblk_stall stall = { };

	virtblk_scan_inflight(vblk, &stall);
	return sysfs_emit(buf, "%u\n", virtblk_age_ms(&stall));
}
static DEVICE_ATTR_RO(oldest_ms);

static ssize_t own_ring_show(struct device *dev, struct device_attribute *attr,
			     char *buf)
{
	struct virtio_blk *vblk = dev_to_disk(dev)->private_data;

	/* Queue 0 stands for all.  It changes only while the disk is reset. */
	return sysfs_emit(buf, "%d\n", data_race(vblk->queues[0]->own_ring));
}
static DEVICE_ATTR_RO(own_ring);

static struct attribute *virtblk_attrs[] = {
	&dev_attr_serial.attr,
	&dev_attr_cache_type.attr,
	&dev_attr_state.attr,
	&dev_attr_oldest_ms.attr,
	&dev_attr_own_ring.attr,
	NULL,
};

static umode_t virtblk_attr_is_visible(struct kobject *kobj,
				       struct attribute *attr, int n)
{
	struct gendisk *disk = dev_to_disk(kobj_to_dev(kobj));
	struct virtio_blk *vblk = disk->private_data;

	if (attr == &dev_attr_cache_type.attr &&
	    !virtio_has_feature(vblk->vdev, VIRTIO_BLK_F_CONFIG_WCE))
		return 0444;
	return attr->mode;
}

static const struct attribute_group virtblk_attr_group = {
	.attrs		= virtblk_attrs,
	.is_visible	= virtblk_attr_is_visible,
};

/* recovery/ */

/* Emit the sum over all queues of the counter at @offset in struct virtblk_stats. */
static ssize_t virtblk_show_sum(struct device *dev, size_t offset, char *buf)
{
	struct virtio_blk *vblk = dev_to_disk(dev)->private_data;
	atomic64_t *counter;
	s64 sum = 0;
	unsigned int i;

	for (i = 0; i < vblk->nr_vqs; i++) {
		counter = (void *)&vblk->queues[i]->stats + offset;
		sum += atomic64_read(counter);
	}
	return sysfs_emit(buf, "%lld\n", sum);
}

static ssize_t timeouts_show(struct device *dev, struct device_attribute *attr,
			     char *buf)
{
	return virtblk_show_sum(dev, offsetof(struct virtblk_stats, timeouts),
				buf);
}
static DEVICE_ATTR_RO(timeouts);

static ssize_t lost_interrupts_show(struct device *dev,
				    struct device_attribute *attr, char *buf)
{
	return virtblk_show_sum(dev, offsetof(struct virtblk_stats,
					      lost_interrupts), buf);
}
static DEVICE_ATTR_RO(lost_interrupts);

static ssize_t resets_show(struct device *dev, struct device_attribute *attr,
			   char *buf)
{
	struct virtio_blk *vblk = dev_to_disk(dev)->private_data;

	return sysfs_emit(buf, "%ld\n", atomic_long_read(&vblk->recovery.resets));
}
static DEVICE_ATTR_RO(resets);

static ssize_t reset_store(struct device *dev, struct device_attribute *attr,
			   const char *buf, size_t count)
{
	struct virtio_blk *vblk = dev_to_disk(dev)->private_data;
	bool reset;
	int err;

	err = kstrtobool(buf, &reset);
	if (err || !reset)
		return -EINVAL;
	err = virtblk_reset_now(vblk);
	return err ?: count;
}
static DEVICE_ATTR_WO(reset);

static ssize_t stalls_show(struct device *dev, struct device_attribute *attr,
			   char *buf)
{
	struct virtio_blk *vblk = dev_to_disk(dev)->private_data;

	return sysfs_emit(buf, "%u\n", READ_ONCE(vblk->recovery.stalls));
}
static DEVICE_ATTR_RO(stalls);

/* Store a setting from @least to @most, or let it follow the module's parameter again. */
static ssize_t virtblk_store_setting(unsigned int *setting, const char *buf,
				     size_t count, unsigned int least,
				     unsigned int most)
{
	unsigned int value;

	if (sysfs_streq(buf, "default"))
		value = VIRTBLK_UNSET;
	else if (kstrtouint(buf, 0, &value) || value < least || value > most)
		return -EINVAL;
	WRITE_ONCE(*setting, value);
	return count;
}

static ssize_t reset_after_show(struct device *dev,
				struct device_attribute *attr, char *buf)
{
	struct virtio_blk *vblk = dev_to_disk(dev)->private_data;

	return sysfs_emit(buf, "%u\n", virtblk_reset_after(vblk));
}

static ssize_t reset_after_store(struct device *dev,
				 struct device_attribute *attr,
				 const char *buf, size_t count)
{
	struct virtio_blk *vblk = dev_to_disk(dev)->private_data;

	return virtblk_store_setting(&vblk->recovery.reset_after, buf, count,
				     0, VIRTBLK_MAX_SECONDS);
}
static DEVICE_ATTR_RW(reset_after);

static ssize_t reset_attempts_show(struct device *dev,
				   struct device_attribute *attr, char *buf)
{
	struct virtio_blk *vblk = dev_to_disk(dev)->private_data;

	return sysfs_emit(buf, "%u\n", virtblk_reset_attempts(vblk));
}

static ssize_t reset_attempts_store(struct device *dev,
				    struct device_attribute *attr,
				    const char *buf, size_t count)
{
	struct virtio_blk *vblk = dev_to_disk(dev)->private_data;

	return virtblk_store_setting(&vblk->recovery.reset_attempts, buf, count,
				     1, VIRTBLK_MAX_ATTEMPTS);
}
static DEVICE_ATTR_RW(reset_attempts);

static ssize_t removal_timeout_show(struct device *dev,
				    struct device_attribute *attr, char *buf)
{
	struct virtio_blk *vblk = dev_to_disk(dev)->private_data;

	return sysfs_emit(buf, "%u\n", virtblk_removal_timeout(vblk));
}

static ssize_t removal_timeout_store(struct device *dev,
				     struct device_attribute *attr,
				     const char *buf, size_t count)
{
	struct virtio_blk *vblk = dev_to_disk(dev)->private_data;

	return virtblk_store_setting(&vblk->recovery.removal_timeout, buf, count,
				     0, VIRTBLK_MAX_SECONDS);
}
static DEVICE_ATTR_RW(removal_timeout);

static struct attribute *virtblk_recovery_attrs[] = {
	&dev_attr_reset_after.attr,
	&dev_attr_reset_attempts.attr,
	&dev_attr_removal_timeout.attr,
	&dev_attr_stalls.attr,
	&dev_attr_reset.attr,
	&dev_attr_resets.attr,
	&dev_attr_timeouts.attr,
	&dev_attr_lost_interrupts.attr,
	NULL,
};

static const struct attribute_group virtblk_recovery_group = {
	.name	= "recovery",
	.attrs	= virtblk_recovery_attrs,
};

/* VIRTIO 1.2 and later; the kernel's headers do not define these. */
#define VIRTBLK_T_GET_LIFETIME	10

struct virtblk_lifetime {
	__le16 pre_eol_info;
	__le16 device_lifetime_est_typ_a;
	__le16 device_lifetime_est_typ_b;
};

/*
 * lifetime/: each file has a value in hexadecimal, as in the MMC driver's files, and
 * its meaning in words (VIRTIO 1.4, 5.2.6).
 */
static int virtblk_get_lifetime(struct device *dev,
				struct virtblk_lifetime *lifetime)
{
	/* A buffer on the stack is not fit for DMA. */
	void *buf = kmemdup(lifetime, sizeof(*lifetime), GFP_KERNEL);
	int err;

	if (!buf)
		return -ENOMEM;

	err = virtblk_query(dev_to_disk(dev), VIRTBLK_T_GET_LIFETIME, 0, buf,
			    sizeof(*lifetime));
	memcpy(lifetime, buf, sizeof(*lifetime));
	kfree(buf);
	return err;
}

static ssize_t pre_eol_info_show(struct device *dev,
				 struct device_attribute *attr, char *buf)
{
	static const char *const words[] = {
		"undefined", "normal", "warning", "urgent",
	};
	struct virtblk_lifetime lifetime = { };
	unsigned int value;
	int err;

	err = virtblk_get_lifetime(dev, &lifetime);
	if (err)
		return err;
	value = le16_to_cpu(lifetime.pre_eol_info);
	return sysfs_emit(buf, "0x%02x %s\n", value, value < ARRAY_SIZE(words) ?
			  words[value] : "reserved");
}
static DEVICE_ATTR_RO(pre_eol_info);

/* 1 is 0-10% of the lifetime used, 10 is 90-100%, 11 is more. */
static ssize_t virtblk_emit_estimate(char *buf, unsigned int value)
{
	if (!value)
		return sysfs_emit(buf, "0x00 undefined\n");
	if (value <= 10)
		return sysfs_emit(buf, "0x%02x %u-%u%% used\n", value,
				  value * 10 - 10, value * 10);
	return sysfs_emit(buf, "0x%02x %s\n", value,
			  value == 11 ? "exceeded" : "reserved");
}

static ssize_t est_typ_a_show(struct device *dev, struct device_attribute *attr,
			      char *buf)
{
	struct virtblk_lifetime lifetime = { };
	int err = virtblk_get_lifetime(dev, &lifetime);

	return err ?: virtblk_emit_estimate(buf,
			le16_to_cpu(lifetime.device_lifetime_est_typ_a));
}
static DEVICE_ATTR_RO(est_typ_a);

static ssize_t est_typ_b_show(struct device *dev, struct device_attribute *attr,
			      char *buf)
{
	struct virtblk_lifetime lifetime = { };
	int err = virtblk_get_lifetime(dev, &lifetime);

	return err ?: virtblk_emit_estimate(buf,
			le16_to_cpu(lifetime.device_lifetime_est_typ_b));
}
static DEVICE_ATTR_RO(est_typ_b);

static struct attribute *virtblk_lifetime_attrs[] = {
	&dev_attr_pre_eol_info.attr,
	&dev_attr_est_typ_a.attr,
	&dev_attr_est_typ_b.attr,
	NULL,
};

static const struct attribute_group virtblk_lifetime_group = {
	.name	= "lifetime",
	.attrs	= virtblk_lifetime_attrs,
};

static const struct attribute_group *virtblk_groups[] = {
	&virtblk_attr_group,
	&virtblk_recovery_group,
	NULL,
};

static const struct attribute_group *virtblk_groups_with_lifetime[] = {
	&virtblk_attr_group,
	&virtblk_recovery_group,
	&virtblk_lifetime_group,
	NULL,
};

/**
 * virtblk_attr_groups() - get the disk's sysfs files
 * @vblk: the disk
 *
 * Return: the attribute groups, for device_add_disk().
 */
const struct attribute_group **virtblk_attr_groups(struct virtio_blk *vblk)
{
	if (virtio_has_feature(vblk->vdev, VIRTBLK_F_LIFETIME))
		return virtblk_groups_with_lifetime;
	return virtblk_groups;
}
