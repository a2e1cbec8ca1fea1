// SPDX-License-Identifier: GPL-2.0
/*
 * The first front: /dev/vduse, and this system's memory.
 *
 * VDUSE makes this process a vDPA device.  The kernel sends messages for status
 * writes, and eventfds for kicks; this process can map the memory that the driver
 * has mapped for the device.  Adding the device to the vDPA bus lasts until the
 * driver's probe has ended, which needs the device, so a child process does it.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/vduse.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vblksim.h"
#include "vdpa.h"
#include "virtio.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ	22
#define MADV_POPULATE_WRITE	23
#endif

#define CONTROL_PATH	"/dev/vduse/control"
#define RING_ALIGNMENT	4096
#define PAGE		4096ull
#define MILLISECOND	1000000ull
/* A kick that has not come after one to two of these is missing. */
#define IDLE_INTERVAL	(4000 * MILLISECOND)
#define LEFTOVER_SECONDS	20

/**
 * struct region - memory that the driver has mapped for the device
 * @next: the next one; the most recently used is the first
 * @start: first address
 * @last: last address
 * @perm: whether it can be read and written
 * @base: its address in this process
 * @there: a bit for each page that is known to exist.  The kernel has no page
 *	where the driver has never mapped anything, and an access to it would kill
 *	this process
 */
struct region {
	struct region *next;
	uint64_t start;
	uint64_t last;
	uint8_t perm;
	uint8_t *base;
	uint64_t *there;
};

/**
 * struct vduse - the front
 * @front: for ring.c
 * @control: the control device
 * @device: the device
 * @kick: an eventfd for each queue
 * @regions: the mapped memory
 * @retired: memory that is no longer the device's, but that chains may point to
 * @child: adds or deletes the vDPA device
 * @child_end: becomes readable when @child ends
 * @stopping: the device is being removed
 * @deleting: @child is deleting it
 * @late: interrupts that the kernel has refused so far, by queue
 * @late_timer: retries these
 * @idle_timer: checks for missing kicks
 * @failed: an error occurred that is not the driver's fault
 */
struct vduse {
	struct front front;
	int control;
	int device;
	int kick[MAX_QUEUES];
	struct region *regions;
	struct region *retired;
	pid_t child;
	int child_end;
	bool stopping;
	bool deleting;
	uint64_t late;
	struct loop_timer *late_timer;
	struct loop_timer *idle_timer;
	bool failed;
};

static struct vduse vduse = {
	.control = -1,
	.device = -1,
	.child_end = -1,
};

/* Memory. */

static uint64_t region_bytes(const struct region *region)
{
	return (region->last - region->start + PAGE) & ~(PAGE - 1);
}

static int region_prot(uint8_t perm)
{
	return (perm & VDUSE_ACCESS_RO ? PROT_READ : 0) |
	       (perm & VDUSE_ACCESS_WO ? PROT_WRITE : 0);
}

static struct region *map_region(uint64_t addr)
{
	struct vduse_iotlb_entry entry = { .start = addr, .last = addr };
	struct region *region;
	uint64_t pages;
	int fd;

	fd = ioctl(vduse.device, VDUSE_IOTLB_GET_FD, &entry);
	if (fd < 0)
		return NULL;
	region = calloc(1, sizeof(*region));
	if (!region)
		goto close;
	region->start = entry.start;
	region->last = entry.last;
	region->perm = entry.perm;
	pages = region_bytes(region) / PAGE;
	region->there = calloc(pages / 64 + 1, sizeof(*region->there));
	if (!region->there)
		goto free;
	region->base = mmap(NULL, region_bytes(region), region_prot(entry.perm),
			    MAP_SHARED, fd, entry.offset);
	if (region->base == MAP_FAILED)
		goto free;
	close(fd);
	region->next = vduse.regions;
	vduse.regions = region;
	return region;

free:
	free(region->there);
	free(region);
close:
	close(fd);
	return NULL;
}

static struct region *find_region(uint64_t addr)
{
	struct region **at, *region;

	for (at = &vduse.regions; (region = *at); at = &region->next)
		if (addr >= region->start && addr <= region->last) {
			*at = region->next;
			region->next = vduse.regions;
			vduse.regions = region;
			return region;
		}
	return map_region(addr);
}

static bool is_there(struct region *region, uint64_t offset, uint64_t len)
{
	uint64_t first = offset / PAGE, last = (offset + len - 1) / PAGE;
	bool known = true;
	int advice = region->perm & VDUSE_ACCESS_WO ? MADV_POPULATE_WRITE :
						      MADV_POPULATE_READ;

	for (uint64_t page = first; page <= last && known; page++)
		known = region->there[page / 64] >> page % 64 & 1;
	if (known)
		return true;
	if (madvise(region->base + first * PAGE, (last - first + 1) * PAGE,
		    advice))
		return false;
	for (uint64_t page = first; page <= last; page++)
		region->there[page / 64] |= 1ull << page % 64;
	return true;
}

/* Map one piece, as far as it is in one region. */
static uint8_t *map_piece(uint64_t addr, uint64_t len, bool write,
			  uint64_t *run)
{
	struct region *region = find_region(addr);
	uint64_t offset;

	if (!region || !(region->perm & (write ? VDUSE_ACCESS_WO :
						 VDUSE_ACCESS_RO)))
		return NULL;
	offset = addr - region->start;
	*run = region->last - addr;
	/* last is inclusive, because it may be the highest address. */
	*run = *run >= len ? len : *run + 1;
	return is_there(region, offset, *run) ? region->base + offset : NULL;
}

static void *map(struct sim *sim, uint64_t addr, uint64_t len, bool write,
		 uint64_t *run)
{
	uint64_t first_run = 0, piece;
	uint8_t *first = NULL, *at;

	(void)sim;
	if (!len || addr + len - 1 < addr)
		return NULL;
	while (len) {
		at = map_piece(addr, len, write, &piece);
		if (!at)
			return NULL;
		if (!first) {
			first = at;
			first_run = piece;
		}
		addr += piece;
		len -= piece;
	}
	*run = first_run;
	return first;
}

static void free_regions(struct region **list)
{
	struct region *region;

	while ((region = *list)) {
		*list = region->next;
		munmap(region->base, region_bytes(region));
		free(region->there);
		free(region);
	}
}

/* Addresses have new memory now; chains may still point to the old memory. */
static void retire_regions(struct sim *sim, uint64_t start, uint64_t last)
{
	struct region **at = &vduse.regions, *region;

	while ((region = *at)) {
		if (region->start > last || region->last < start) {
			at = &region->next;
			continue;
		}
		*at = region->next;
		region->next = vduse.retired;
		vduse.retired = region;
	}
	ring_remap(sim);
}

/* Interrupts. */

static void interrupt_late(struct sim *sim, void *arg);

/* The kernel refuses interrupts until the answer that accepts DRIVER_OK. */
static void interrupt(struct sim *sim, unsigned int queue)
{
	uint32_t index = queue;

	(void)sim;
	if (!ioctl(vduse.device, VDUSE_VQ_INJECT_IRQ, &index))
		return;
	vduse.late |= 1ull << queue;
	if (!vduse.late_timer)
		vduse.late_timer = loop_after(MILLISECOND, interrupt_late,
					      NULL);
}

static void interrupt_late(struct sim *sim, void *arg)
{
	uint64_t late = vduse.late;

	(void)arg;
	vduse.late_timer = NULL;
	vduse.late = 0;
	if (!(sim->status & STATUS_DRIVER_OK))
		return;
	for (unsigned int i = 0; i < sim->set.queues; i++)
		if (late >> i & 1)
			interrupt(sim, i);
}

static int write_config(struct sim *sim)
{
	struct {
		struct vduse_config_data head;
		struct blk_config config;
	} __attribute__((packed)) data = {
		.head.length = sizeof(struct blk_config),
	};
	struct blk_config view;

	features_show_config(sim, &view);
	data.config = view;
	return ioctl(vduse.device, VDUSE_DEV_SET_CONFIG, &data);
}

static void config_changed(struct sim *sim)
{
	if (write_config(sim))
		fprintf(stderr, "vblksim: the kernel refuses the configuration space: %s\n",
			strerror(errno));
	/* Before DRIVER_OK the driver needs no notification. */
	if (sim->status & STATUS_DRIVER_OK)
		ioctl(vduse.device, VDUSE_DEV_INJECT_CONFIG_IRQ);
}

static uint64_t driver_features(struct sim *sim)
{
	uint64_t features = 0;

	(void)sim;
	if (ioctl(vduse.device, VDUSE_DEV_GET_FEATURES, &features))
		fprintf(stderr, "vblksim: cannot read the driver's features: %s\n",
			strerror(errno));
	return features;
}

/* Kicks. */

static uint64_t read_kicks(unsigned int queue)
{
	uint64_t times;

	if (read(vduse.kick[queue], &times, sizeof(times)) != sizeof(times))
		return 0;
	return times;
}

static void kicked(struct sim *sim, void *arg)
{
	unsigned int queue = (uintptr_t)arg;
	uint64_t times = read_kicks(queue);

	if (times)
		ring_kicked(sim, queue, times);
}

/* After a reset the kernel has dropped the eventfds. */
static void set_kickfds(struct sim *sim)
{
	for (unsigned int i = 0; i < sim->set.queues; i++) {
		struct vduse_vq_eventfd eventfd = {
			.index = i,
			.fd = vduse.kick[i],
		};

		if (ioctl(vduse.device, VDUSE_VQ_SETUP_KICKFD, &eventfd))
			fprintf(stderr, "vblksim: cannot set the kick eventfd of queue %u: %s\n",
				i, strerror(errno));
	}
}

static void look_idle(struct sim *sim, void *arg)
{
	(void)arg;
	if (sim->status & STATUS_DRIVER_OK)
		ring_check_idle(sim);
	vduse.idle_timer = loop_after(IDLE_INTERVAL, look_idle, NULL);
}

/* Status. */

static void start_queue(struct sim *sim, unsigned int queue)
{
	struct vduse_vq_info info = { .index = queue };
	struct queue_addresses where;

	if (ioctl(vduse.device, VDUSE_VQ_GET_INFO, &info)) {
		fprintf(stderr, "vblksim: cannot read the state of queue %u: %s\n",
			queue, strerror(errno));
		return;
	}
	if (!info.ready)
		return;
	where = (struct queue_addresses) {
		.size = info.num <= UINT16_MAX ? info.num : 0,
		.desc = info.desc_addr,
		.driver = info.driver_addr,
		.device = info.device_addr,
		.avail_index = info.split.avail_index,
	};
	if (has_feature(sim, F_RING_PACKED)) {
		where.avail_index = info.packed.last_avail_idx;
		where.avail_wrap = info.packed.last_avail_counter;
	}
	if (ring_start(sim, queue, &where))
		fprintf(stderr, "vblksim: queue %u cannot be started\n", queue);
}

/* Check kicks from before DRIVER_OK before the status changes. */
static void drain_kicks(struct sim *sim)
{
	for (unsigned int i = 0; i < sim->set.queues; i++)
		kicked(sim, (void *)(uintptr_t)i);
}

static bool set_status(struct sim *sim, uint8_t status)
{
	uint8_t old = sim->status;
	bool good;

	if (!(old & STATUS_DRIVER_OK) || !status)
		drain_kicks(sim);
	good = status_written(sim, status);
	if (!status) {
		free_regions(&vduse.regions);
		free_regions(&vduse.retired);
		vduse.late = 0;
		write_config(sim);
	}
	if (~old & sim->status & STATUS_FEATURES_OK) {
		set_kickfds(sim);
		write_config(sim);
	}
	if (~old & sim->status & STATUS_DRIVER_OK)
		for (unsigned int i = 0; i < sim->set.queues; i++)
			start_queue(sim, i);
	return good;
}

static void get_state(struct sim *sim, const struct vduse_vq_state *asked,
		      struct vduse_vq_state *state)
{
	struct queue_addresses where;

	state->index = asked->index;
	if (asked->index >= sim->set.queues)
		return;
	ring_state(sim, asked->index, &where);
	if (has_feature(sim, F_RING_PACKED)) {
		state->packed.last_avail_idx = where.avail_index;
		state->packed.last_avail_counter = where.avail_wrap;
		state->packed.last_used_idx = where.avail_index;
		state->packed.last_used_counter = where.avail_wrap;
	} else {
		state->split.avail_index = where.avail_index;
	}
}

static void read_message(struct sim *sim, void *arg)
{
	struct vduse_dev_request request;
	struct vduse_dev_response response = {};
	uint8_t old = sim->status;

	(void)arg;
	if (read(vduse.device, &request, sizeof(request)) != sizeof(request))
		return;
	response.request_id = request.request_id;
	response.result = VDUSE_REQ_RESULT_OK;
	switch (request.type) {
	case VDUSE_GET_VQ_STATE:
		get_state(sim, &request.vq_state, &response.vq_state);
		break;
	case VDUSE_SET_STATUS:
		if (!set_status(sim, request.s.status))
			response.result = VDUSE_REQ_RESULT_FAILED;
		break;
	case VDUSE_UPDATE_IOTLB:
		retire_regions(sim, request.iova.start, request.iova.last);
		break;
	default:
		response.result = VDUSE_REQ_RESULT_FAILED;
	}
	if (write(vduse.device, &response, sizeof(response)) < 0)
		fprintf(stderr, "vblksim: the kernel refuses an answer: %s\n",
			strerror(errno));
	/* There may be buffers that the driver has not kicked for yet. */
	if (~old & sim->status & STATUS_DRIVER_OK)
		for (unsigned int i = 0; i < sim->set.queues; i++)
			ring_kicked(sim, i, 0);
}

/* The vDPA bus. */

static void child_ended(struct sim *sim, void *arg);

/* Run a function in a child, because it needs this process meanwhile. */
static int start_child(struct sim *sim, int (*fn)(const char *name))
{
	int ends[2];

	if (pipe2(ends, O_CLOEXEC))
		return -1;
	vduse.child = fork();
	if (vduse.child < 0) {
		close(ends[0]);
		close(ends[1]);
		return -1;
	}
	if (!vduse.child) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		/* Only the parent keeps the device open. */
		close(vduse.device);
		close(ends[0]);
		_exit(fn(sim->set.name));
	}
	close(ends[1]);
	vduse.child_end = ends[0];
	return loop_add_fd(vduse.child_end, child_ended, NULL);
}

/* Returns the child's error. */
static int reap_child(void)
{
	int status;

	loop_del_fd(vduse.child_end);
	close(vduse.child_end);
	vduse.child_end = -1;
	if (waitpid(vduse.child, &status, 0) < 0)
		status = 0;
	vduse.child = 0;
	return WIFEXITED(status) ? WEXITSTATUS(status) : EINTR;
}

static void start_delete(struct sim *sim)
{
	vduse.deleting = true;
	if (start_child(sim, vdpa_delete)) {
		vduse.failed = true;
		loop_stop();
	}
}

static void child_ended(struct sim *sim, void *arg)
{
	int error = reap_child();
	const char *name = sim->set.name;

	(void)arg;
	if (vduse.stopping && !vduse.deleting) {
		start_delete(sim);
		return;
	}
	if (vduse.stopping) {
		/* The device may not be on the bus. */
		if (error && error != ENODEV && error != ENOENT) {
			fprintf(stderr, "vblksim: cannot delete the vDPA device %s: %s\n",
				name, strerror(error));
			vduse.failed = true;
		}
		loop_stop();
		return;
	}
	if (error) {
		fprintf(stderr, "vblksim: cannot add the vDPA device %s: %s%s\n",
			name, strerror(error), error == EPERM ?
			"; only root may" : "");
		vduse.failed = true;
		loop_stop();
		return;
	}
	fprintf(stderr, "vblksim: %s is on the vDPA bus%s\n", name,
		access("/sys/bus/vdpa/drivers/virtio_vdpa", F_OK) ?
		", and has no driver there: modprobe virtio_vdpa" : "");
}

static void stop(struct sim *sim)
{
	if (vduse.stopping) {
		fprintf(stderr, "vblksim: told to end twice; the device stays on the vDPA bus\n");
		vduse.failed = true;
		loop_stop();
		return;
	}
	vduse.stopping = true;
	calm_down(sim);
	/* If the device is just being added, child_ended() deletes it. */
	if (!vduse.child)
		start_delete(sim);
}

/* Opening and closing. */

static bool features_possible(const struct settings *set)
{
	if (!(set->features & 1ull << F_ACCESS_PLATFORM)) {
		fprintf(stderr, "vblksim: features: VDUSE takes only devices that offer access_platform; add +access_platform\n");
		return false;
	}
	if (set->features & 1ull << BLK_F_CONFIG_WCE) {
		fprintf(stderr, "vblksim: features: VDUSE takes no block device that offers config_wce; remove it\n");
		return false;
	}
	return true;
}

static int open_control(void)
{
	uint64_t version = VDUSE_API_VERSION;

	vduse.control = open(CONTROL_PATH, O_RDWR | O_CLOEXEC);
	if (vduse.control < 0) {
		fprintf(stderr, "vblksim: cannot open %s: %s%s\n", CONTROL_PATH,
			strerror(errno), errno == ENOENT || errno == ENXIO ?
			"; modprobe vduse virtio_vdpa" :
			errno == EACCES || errno == EPERM ?
			"; only root may" : "");
		return -1;
	}
	if (ioctl(vduse.control, VDUSE_SET_API_VERSION, &version)) {
		fprintf(stderr, "vblksim: this kernel's VDUSE has no version %d: %s\n",
			VDUSE_API_VERSION, strerror(errno));
		return -1;
	}
	return 0;
}

static int create(const struct settings *set)
{
	size_t size = sizeof(struct vduse_dev_config) + sizeof(set->config);
	struct vduse_dev_config *config = calloc(1, size);
	int error;

	if (!config)
		return ENOMEM;
	strcpy(config->name, set->name);
	config->vendor_id = 0;
	config->device_id = BLK_DEVICE_ID;
	config->features = set->features;
	config->vq_num = set->queues;
	config->vq_align = RING_ALIGNMENT;
	config->config_size = sizeof(set->config);
	memcpy(config->config, &set->config, sizeof(set->config));
	error = ioctl(vduse.control, VDUSE_CREATE_DEV, config) ? errno : 0;
	free(config);
	return error;
}

static int destroy(const char *name)
{
	char padded[VDUSE_NAME_MAX] = "";

	strncpy(padded, name, sizeof(padded) - 1);
	return ioctl(vduse.control, VDUSE_DESTROY_DEV, padded) ? errno : 0;
}

static int open_device(const char *name)
{
	char path[sizeof("/dev/vduse/") + 64];
	int fd = -1;

	snprintf(path, sizeof(path), "/dev/vduse/%s", name);
	/* udev may not have created the file yet. */
	for (int try = 0; try < 100 && fd < 0; try++) {
		fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
		if (fd < 0 && errno != ENOENT)
			break;
		if (fd < 0)
			usleep(20000);
	}
	return fd;
}

/* Answer OK to all messages to a device that is being removed. */
static void answer_leftover(int device)
{
	struct vduse_dev_request request;
	struct vduse_dev_response response = {};

	if (read(device, &request, sizeof(request)) != sizeof(request))
		return;
	response.request_id = request.request_id;
	response.result = VDUSE_REQ_RESULT_OK;
	if (write(device, &response, sizeof(response)) < 0)
		perror("vblksim: leftover");
}

/*
 * Delete the device that a killed vblksim has left on the bus.  The driver then
 * resets the device, and this process must answer.
 */
static int delete_leftover(const char *name)
{
	int device = open_device(name), status, waited;
	pid_t child, ended = 0;

	if (device < 0)
		return errno;
	child = fork();
	if (!child) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(device);
		_exit(vdpa_delete(name));
	}
	for (waited = 0; child > 0 && waited < LEFTOVER_SECONDS * 10; waited++) {
		struct pollfd poll_fd = { .fd = device, .events = POLLIN };

		if (poll(&poll_fd, 1, 100) > 0 && poll_fd.revents & POLLIN)
			answer_leftover(device);
		else if (poll_fd.revents)
			usleep(100000);
		ended = waitpid(child, &status, WNOHANG);
		if (ended)
			break;
	}
	if (child > 0 && !ended) {
		kill(child, SIGKILL);
		close(device);
		return ETIMEDOUT;
	}
	close(device);
	return destroy(name);
}

static int create_anew(const struct settings *set)
{
	int error = create(set);

	if (error != EEXIST)
		return error;
	error = destroy(set->name);
	if (error == EBUSY)
		error = delete_leftover(set->name);
	return error ? EEXIST : create(set);
}

static int set_up_queue(unsigned int queue, unsigned int size)
{
	struct vduse_vq_config config = { .index = queue, .max_size = size };

	if (ioctl(vduse.device, VDUSE_VQ_SETUP, &config))
		return -1;
	vduse.kick[queue] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (vduse.kick[queue] < 0)
		return -1;
	return loop_add_fd(vduse.kick[queue], kicked,
			   (void *)(uintptr_t)queue);
}

static int set_up_device(struct sim *sim)
{
	const struct settings *set = &sim->set;

	vduse.device = open_device(set->name);
	if (vduse.device < 0) {
		fprintf(stderr, "vblksim: cannot open /dev/vduse/%s: %s\n",
			set->name, strerror(errno));
		return -1;
	}
	for (unsigned int i = 0; i < set->queues; i++)
		if (set_up_queue(i, set->ring_size)) {
			fprintf(stderr, "vblksim: cannot set up queue %u: %s\n",
				i, strerror(errno));
			return -1;
		}
	if (loop_add_fd(vduse.device, read_message, NULL))
		return -1;
	vduse.idle_timer = loop_after(IDLE_INTERVAL, look_idle, NULL);
	return set->attach ? start_child(sim, vdpa_add) : 0;
}

static int close_front(struct sim *sim);

int vduse_open(struct sim *sim)
{
	int error;

	vduse.front = (struct front) {
		.map = map,
		.interrupt = interrupt,
		.config_changed = config_changed,
		.features = driver_features,
		.stop = stop,
		.close = close_front,
	};
	sim->front = &vduse.front;
	if (!features_possible(&sim->set) || open_control())
		return -1;
	error = create_anew(&sim->set);
	if (error) {
		fprintf(stderr, "vblksim: the kernel does not create the device %s: %s%s\n",
			sim->set.name, strerror(error), error == EEXIST ?
			"; there is one, and it is in use: choose another name" :
			error == EINVAL ? "; it may not take a feature" : "");
		return -1;
	}
	if (set_up_device(sim)) {
		close(vduse.device);
		destroy(sim->set.name);
		return -1;
	}
	return 0;
}

static int close_front(struct sim *sim)
{
	int error = EBUSY;

	/* It may wait in the driver, where it does not end by itself. */
	if (vduse.child)
		kill(vduse.child, SIGKILL);
	free_regions(&vduse.regions);
	free_regions(&vduse.retired);
	close(vduse.device);
	for (int try = 0; try < 50 && error == EBUSY; try++) {
		error = destroy(sim->set.name);
		if (error == EBUSY)
			usleep(20000);
	}
	if (error) {
		fprintf(stderr, "vblksim: the device %s stays: %s\n",
			sim->set.name, strerror(error));
		vduse.failed = true;
	}
	close(vduse.control);
	return vduse.failed ? -1 : 0;
}
