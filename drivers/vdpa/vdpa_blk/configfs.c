// SPDX-License-Identifier: GPL-2.0
/*
 * What the administrator sets before a device is added:
 *
 *	mkdir /sys/kernel/config/vdpa_blk/disk0
 *	echo /dev/nvme0n1 > /sys/kernel/config/vdpa_blk/disk0/path
 *	vdpa dev add name disk0 mgmtdev vdpa_blk
 *
 * A device takes a copy when it is added: later changes are for the next one of the
 * name, and removing the directory does not disturb it.
 */

#include <linux/configfs.h>
#include <linux/cpumask.h>
#include <linux/log2.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/slab.h>
#include <linux/string.h>

#include "settings.h"

#define VDPA_BLK_MIN_RING	4
#define VDPA_BLK_MAX_RING	1024
#define VDPA_BLK_DEFAULT_QUEUES	4
#define VDPA_BLK_DEFAULT_RING	256
/* This project's driver runs split rings itself, in fewer instructions than packed ones. */
#define VDPA_BLK_DEFAULT_FEATURES	\
	(VDPA_BLK_FEATURES & ~BIT_ULL(VIRTIO_F_RING_PACKED))
/* A worker that polls for longer keeps a CPU for nothing. */
#define VDPA_BLK_MAX_POLL_US	10000

/* Held while settings are read and written. */
static DEFINE_MUTEX(vdpa_blk_settings_lock);

struct vdpa_blk_item {
	struct config_item item;
	struct vdpa_blk_settings settings;
};

static struct vdpa_blk_settings *vdpa_blk_settings_of(struct config_item *item)
{
	return &container_of(item, struct vdpa_blk_item, item)->settings;
}

/* Text */

static ssize_t vdpa_blk_store_text(char *to, size_t size, const char *name,
				   const char *page, size_t count)
{
	size_t len = strcspn(page, "\n");

	if (len > size) {
		pr_err("vdpa_blk: %s has %zu characters, and %zu are the most\n",
		       name, len, size);
		return -EINVAL;
	}
	mutex_lock(&vdpa_blk_settings_lock);
	memset(to, 0, size);
	memcpy(to, page, len);
	mutex_unlock(&vdpa_blk_settings_lock);
	return count;
}

static ssize_t vdpa_blk_path_show(struct config_item *item, char *page)
{
	return sysfs_emit(page, "%s\n", vdpa_blk_settings_of(item)->path);
}

static ssize_t vdpa_blk_path_store(struct config_item *item, const char *page,
				   size_t count)
{
	struct vdpa_blk_settings *settings = vdpa_blk_settings_of(item);

	/* It stays terminated. */
	return vdpa_blk_store_text(settings->path, sizeof(settings->path) - 1,
				   "path", page, count);
}
CONFIGFS_ATTR(vdpa_blk_, path);

static ssize_t vdpa_blk_serial_show(struct config_item *item, char *page)
{
	return sysfs_emit(page, "%.*s\n", VIRTIO_BLK_ID_BYTES,
			  vdpa_blk_settings_of(item)->serial);
}

static ssize_t vdpa_blk_serial_store(struct config_item *item, const char *page,
				     size_t count)
{
	struct vdpa_blk_settings *settings = vdpa_blk_settings_of(item);

	return vdpa_blk_store_text(settings->serial, sizeof(settings->serial),
				   "serial", page, count);
}
CONFIGFS_ATTR(vdpa_blk_, serial);

static ssize_t vdpa_blk_cpus_show(struct config_item *item, char *page)
{
	return sysfs_emit(page, "%*pbl\n",
			  cpumask_pr_args(&vdpa_blk_settings_of(item)->cpus));
}

static ssize_t vdpa_blk_cpus_store(struct config_item *item, const char *page,
				   size_t count)
{
	cpumask_var_t cpus;
	int err;

	if (!alloc_cpumask_var(&cpus, GFP_KERNEL))
		return -ENOMEM;
	err = cpulist_parse(page, cpus);
	if (!err && !cpumask_subset(cpus, cpu_online_mask))
		err = -EINVAL;
	if (err) {
		pr_err("vdpa_blk: cpus is not a list of CPUs that are online, such as 0-3,8\n");
	} else {
		mutex_lock(&vdpa_blk_settings_lock);
		cpumask_copy(&vdpa_blk_settings_of(item)->cpus, cpus);
		mutex_unlock(&vdpa_blk_settings_lock);
	}
	free_cpumask_var(cpus);
	return err ?: count;
}
CONFIGFS_ATTR(vdpa_blk_, cpus);

/* Numbers */

static ssize_t vdpa_blk_show_number(unsigned int value, char *page)
{
	return sysfs_emit(page, "%u\n", value);
}

static int vdpa_blk_parse_number(const char *name, const char *page, unsigned int least,
				 unsigned int most, unsigned int *value)
{
	int err = kstrtouint(page, 0, value);

	if (!err && (*value < least || *value > most))
		err = -ERANGE;
	if (err)
		pr_err("vdpa_blk: %s must be a number from %u to %u\n", name,
		       least, most);
	return err;
}

static ssize_t vdpa_blk_queues_show(struct config_item *item, char *page)
{
	return vdpa_blk_show_number(vdpa_blk_settings_of(item)->queues, page);
}

static ssize_t vdpa_blk_queues_store(struct config_item *item,
				     const char *page, size_t count)
{
	unsigned int value;
	int err = vdpa_blk_parse_number("queues", page, 1, VDPA_BLK_MAX_QUEUES, &value);

	if (err)
		return err;
	WRITE_ONCE(vdpa_blk_settings_of(item)->queues, value);
	return count;
}
CONFIGFS_ATTR(vdpa_blk_, queues);

static ssize_t vdpa_blk_workers_show(struct config_item *item, char *page)
{
	return vdpa_blk_show_number(vdpa_blk_settings_of(item)->workers, page);
}

static ssize_t vdpa_blk_workers_store(struct config_item *item,
				      const char *page, size_t count)
{
	unsigned int value;
	int err = vdpa_blk_parse_number("workers", page, 0, VDPA_BLK_MAX_QUEUES, &value);

	if (err)
		return err;
	WRITE_ONCE(vdpa_blk_settings_of(item)->workers, value);
	return count;
}
CONFIGFS_ATTR(vdpa_blk_, workers);

static ssize_t vdpa_blk_poll_us_show(struct config_item *item, char *page)
{
	return vdpa_blk_show_number(vdpa_blk_settings_of(item)->poll_us, page);
}

static ssize_t vdpa_blk_poll_us_store(struct config_item *item,
				      const char *page, size_t count)
{
	unsigned int value;
	int err = vdpa_blk_parse_number("poll_us", page, 0, VDPA_BLK_MAX_POLL_US, &value);

	if (err)
		return err;
	WRITE_ONCE(vdpa_blk_settings_of(item)->poll_us, value);
	return count;
}
CONFIGFS_ATTR(vdpa_blk_, poll_us);

static ssize_t vdpa_blk_readonly_show(struct config_item *item, char *page)
{
	return vdpa_blk_show_number(vdpa_blk_settings_of(item)->readonly, page);
}

static ssize_t vdpa_blk_readonly_store(struct config_item *item,
				       const char *page, size_t count)
{
	unsigned int value;
	int err = vdpa_blk_parse_number("readonly", page, 0, 1, &value);

	if (err)
		return err;
	WRITE_ONCE(vdpa_blk_settings_of(item)->readonly, value);
	return count;
}
CONFIGFS_ATTR(vdpa_blk_, readonly);

static ssize_t vdpa_blk_write_cache_show(struct config_item *item, char *page)
{
	return vdpa_blk_show_number(vdpa_blk_settings_of(item)->write_cache, page);
}

static ssize_t vdpa_blk_write_cache_store(struct config_item *item,
					  const char *page, size_t count)
{
	unsigned int value;
	int err = vdpa_blk_parse_number("write_cache", page, 0, 1, &value);

	if (err)
		return err;
	WRITE_ONCE(vdpa_blk_settings_of(item)->write_cache, value);
	return count;
}
CONFIGFS_ATTR(vdpa_blk_, write_cache);

static ssize_t vdpa_blk_features_show(struct config_item *item, char *page)
{
	return sysfs_emit(page, "%#llx\n", vdpa_blk_settings_of(item)->features);
}

static ssize_t vdpa_blk_features_store(struct config_item *item,
				       const char *page, size_t count)
{
	u64 value;
	int err = kstrtou64(page, 0, &value);

	if (!err && (value & ~VDPA_BLK_FEATURES ||
		     !(value & BIT_ULL(VIRTIO_F_VERSION_1))))
		err = -EINVAL;
	if (err) {
		pr_err("vdpa_blk: features must have VERSION_1, %#llx, and none beyond %#llx\n",
		       BIT_ULL(VIRTIO_F_VERSION_1), VDPA_BLK_FEATURES);
		return err;
	}
	WRITE_ONCE(vdpa_blk_settings_of(item)->features, value);
	return count;
}
CONFIGFS_ATTR(vdpa_blk_, features);

static ssize_t vdpa_blk_ring_size_show(struct config_item *item, char *page)
{
	return vdpa_blk_show_number(vdpa_blk_settings_of(item)->ring_size, page);
}

static ssize_t vdpa_blk_ring_size_store(struct config_item *item,
					const char *page, size_t count)
{
	unsigned int value;
	int err = vdpa_blk_parse_number("ring_size", page, VDPA_BLK_MIN_RING,
					VDPA_BLK_MAX_RING, &value);

	if (!err && !is_power_of_2(value)) {
		pr_err("vdpa_blk: ring_size %u is not a power of two\n", value);
		err = -EINVAL;
	}
	if (err)
		return err;
	WRITE_ONCE(vdpa_blk_settings_of(item)->ring_size, value);
	return count;
}
CONFIGFS_ATTR(vdpa_blk_, ring_size);

static struct configfs_attribute *vdpa_blk_attrs[] = {
	&vdpa_blk_attr_path,
	&vdpa_blk_attr_serial,
	&vdpa_blk_attr_cpus,
	&vdpa_blk_attr_features,
	&vdpa_blk_attr_queues,
	&vdpa_blk_attr_ring_size,
	&vdpa_blk_attr_workers,
	&vdpa_blk_attr_poll_us,
	&vdpa_blk_attr_readonly,
	&vdpa_blk_attr_write_cache,
	NULL,
};

/* Directories */

static void vdpa_blk_release_item(struct config_item *item)
{
	kfree(container_of(item, struct vdpa_blk_item, item));
}

static struct configfs_item_operations vdpa_blk_item_ops = {
	.release	= vdpa_blk_release_item,
};

static const struct config_item_type vdpa_blk_item_type = {
	.ct_item_ops	= &vdpa_blk_item_ops,
	.ct_attrs	= vdpa_blk_attrs,
	.ct_owner	= THIS_MODULE,
};

static struct config_item *vdpa_blk_make_item(struct config_group *group,
					      const char *name)
{
	struct vdpa_blk_item *item = kzalloc_obj(*item, GFP_KERNEL);

	if (!item)
		return ERR_PTR(-ENOMEM);
	item->settings.queues = VDPA_BLK_DEFAULT_QUEUES;
	item->settings.ring_size = VDPA_BLK_DEFAULT_RING;
	item->settings.write_cache = true;
	item->settings.features = VDPA_BLK_DEFAULT_FEATURES;
	config_item_init_type_name(&item->item, name, &vdpa_blk_item_type);
	return &item->item;
}

static struct configfs_group_operations vdpa_blk_group_ops = {
	.make_item	= vdpa_blk_make_item,
};

static const struct config_item_type vdpa_blk_group_type = {
	.ct_group_ops	= &vdpa_blk_group_ops,
	.ct_owner	= THIS_MODULE,
};

static struct configfs_subsystem vdpa_blk_subsystem = {
	.su_group.cg_item = {
		.ci_namebuf	= "vdpa_blk",
		.ci_type	= &vdpa_blk_group_type,
	},
};

/**
 * vdpa_blk_find_settings() - copy the settings of a name
 * @name: the device's name
 * @settings: filled in
 *
 * Context: may sleep.
 *
 * Return: 0; -ENOENT if there is no directory of the name, -EINVAL if its path is not
 * set. Both are in the log.
 */
int vdpa_blk_find_settings(const char *name, struct vdpa_blk_settings *settings)
{
	struct config_item *item;
	int err = 0;

	mutex_lock(&vdpa_blk_subsystem.su_mutex);
	item = config_group_find_item(&vdpa_blk_subsystem.su_group, name);
	mutex_unlock(&vdpa_blk_subsystem.su_mutex);
	if (!item) {
		pr_err("vdpa_blk: there are no settings for %s; make the directory vdpa_blk/%s in configfs and set its path\n",
		       name, name);
		return -ENOENT;
	}
	mutex_lock(&vdpa_blk_settings_lock);
	*settings = *vdpa_blk_settings_of(item);
	mutex_unlock(&vdpa_blk_settings_lock);
	if (!settings->path[0]) {
		pr_err("vdpa_blk: the path of %s is not set; write the path of a block device to it\n",
		       name);
		err = -EINVAL;
	}
	config_item_put(item);
	return err;
}

/**
 * vdpa_blk_init_configfs() - make the directory vdpa_blk
 *
 * Return: 0 or an error.
 */
int vdpa_blk_init_configfs(void)
{
	config_group_init(&vdpa_blk_subsystem.su_group);
	mutex_init(&vdpa_blk_subsystem.su_mutex);
	return configfs_register_subsystem(&vdpa_blk_subsystem);
}

/**
 * vdpa_blk_exit_configfs() - remove it
 */
void vdpa_blk_exit_configfs(void)
{
	configfs_unregister_subsystem(&vdpa_blk_subsystem);
}
