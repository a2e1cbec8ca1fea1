/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The state of a disk and what changes it: progress.c, state.c, reset.c, pm.c and
 * timeout.c.
 */
#ifndef VIRTBLK_RECOVERY_H
#define VIRTBLK_RECOVERY_H

#include <linux/atomic.h>
#include <linux/blk-mq.h>
#include <linux/ktime.h>
#include <linux/mutex.h>
#include <linux/notifier.h>
#include <linux/ratelimit.h>
#include <linux/sched/mm.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

struct virtblk_queue;
struct virtio_blk;

/* The maximum of settings that are times, in seconds, and of reset_attempts. */
#define VIRTBLK_MAX_SECONDS	((unsigned int)INT_MAX / HZ)
#define VIRTBLK_MAX_ATTEMPTS	((unsigned int)U8_MAX)

/* How long the virtio core may take to set a device up again, in jiffies. */
#define VIRTBLK_SET_UP_TIME	HZ

/* A setting of a disk that follows the module's parameter. */
#define VIRTBLK_UNSET		UINT_MAX

/*
 * How often the block layer calls virtblk_timeout() for a request in flight, in jiffies.
 * It is not io_timeout, because an interrupt or a notification may be lost long before.
 */
#define VIRTBLK_RECHECK		HZ

/**
 * enum virtblk_state - the state of a disk; see state.c
 * @VIRTBLK_NEW: the disk is being probed
 * @VIRTBLK_LIVE: the device serves requests
 * @VIRTBLK_SUSPENDED: the device is suspended, or its PCI function is being reset; there
 *	are no virtqueues
 * @VIRTBLK_RESETTING: the driver resets the device; there are no virtqueues
 * @VIRTBLK_DEAD: the device is gone, or offers less than at probe; I/O fails
 */
enum virtblk_state {
	VIRTBLK_NEW,
	VIRTBLK_LIVE,
	VIRTBLK_SUSPENDED,
	VIRTBLK_RESETTING,
	VIRTBLK_DEAD,
};

/**
 * enum virtblk_reset - why the driver resets a device that does not ask for it
 * @VIRTBLK_RESET_NONE: it does not reset the device
 * @VIRTBLK_RESET_STALLED: the disk has completed no request for reset_after
 * @VIRTBLK_RESET_NO_INTERRUPT: the interrupts of a queue do not arrive any more
 * @VIRTBLK_RESET_REQUESTED: the administrator asked for it
 */
enum virtblk_reset {
	VIRTBLK_RESET_NONE,
	VIRTBLK_RESET_STALLED,
	VIRTBLK_RESET_NO_INTERRUPT,
	VIRTBLK_RESET_REQUESTED,
};

/**
 * struct virtblk_stall - the requests in flight of a disk
 * @in_flight: their number
 * @timed_out: how many of them have timed out
 * @oldest: when the oldest was sent, in jiffies
 * @oldest_timed_out: when the oldest that has timed out was sent, in jiffies
 * @queues: a bit for each queue with a request that has timed out, or NULL
 */
struct virtblk_stall {
	unsigned int in_flight;
	unsigned int timed_out;
	unsigned long oldest;
	unsigned long oldest_timed_out;
	unsigned long *queues;
};

/**
 * struct virtblk_recovery - the state of a disk, and the works that change it
 * @lock: held while @state changes, while virtqueues are created and deleted, and while
 *	the driver reads the device's status and configuration.  No holder waits for a
 *	request, or for a queue to freeze.
 * @state: the state; only virtblk_set_state() changes it
 * @work: resets the device if it asks for it, declares the disk dead if it is gone
 * @watch: checks once a second for requests that have timed out
 * @report: sends an event if the state has changed since the last one
 * @reported: the state of the last event, NULL before the first
 * @deadline: declares a suspended disk dead whose device does not return
 * @held: the probe has succeeded; until virtblk_release_recovery(), @work ignores
 *	the device, and the disk is not suspended
 * @wait: woken when @state or @held changes
 * @wanted: why @work must reset a device that does not ask for it
 * @last_reset: when the device returned from its last reset
 * @was_reset: the device was reset, and the virtio core may be setting it up again
 * @was_reset_since: when @work noticed that, in jiffies
 * @zone_writes: writes to sequential zones that a reset requeues
 * @requeued: requests that the last reset requeued
 * @fruitless: resets of a stalled disk since a request last completed
 * @completed_at_reset: virtblk_count_completions() at the last of them
 * @resets: how often @work has reset the device
 * @completed: virtblk_count_completions() at the last check for silence
 * @progress: when it last changed, or the device last returned, in jiffies
 * @probing: the probe may wait for requests
 * @died_in_probe: the disk has died while @probing was set
 * @removing: the disk is being removed
 * @stalled: requests have timed out, and the driver has logged that
 * @stalls: how often that has begun
 * @stalled_since: when the oldest of them was sent, in jiffies
 * @most_timed_out: the most of them at a time
 * @next_log: when the driver logs the next line about them, in jiffies
 * @log_interval: the time until the line after that
 * @lost_log: limits the lines about lost interrupts
 * @vmfork: calls the driver when the guest has been restored from a snapshot
 * @poll_all: @watch must poll and notify all queues
 * @affinity_late: @watch must set the interrupts' affinities
 * @reset_after: the setting of the disk in seconds, or VIRTBLK_UNSET
 * @reset_attempts: the setting of the disk, or VIRTBLK_UNSET
 * @removal_timeout: the setting of the disk in seconds, or VIRTBLK_UNSET
 */
struct virtblk_recovery {
	struct mutex lock;		/* see above */
	enum virtblk_state state;
	struct work_struct work;
	struct delayed_work watch;
	struct work_struct report;
	const char *reported;
	struct delayed_work deadline;
	bool held;
	wait_queue_head_t wait;
	enum virtblk_reset wanted;
	ktime_t last_reset;
	bool was_reset;
	unsigned long was_reset_since;
	struct list_head zone_writes;
	unsigned int requeued;
	unsigned int fruitless;
	u64 completed_at_reset;
	atomic_long_t resets;
	u64 completed;
	unsigned long progress;
	bool probing;
	bool died_in_probe;
	bool removing;
	bool stalled;
	unsigned int stalls;
	unsigned long stalled_since;
	unsigned int most_timed_out;
	unsigned long next_log;
	unsigned long log_interval;
	struct ratelimit_state lost_log;
	struct notifier_block vmfork;
	bool poll_all;
	bool affinity_late;
	unsigned int reset_after;
	unsigned int reset_attempts;
	unsigned int removal_timeout;
};

/*
 * Take recovery.lock.  An allocation below must not wait for a request of this disk, which
 * may wait for the lock.  The result is for virtblk_unlock_recovery().
 */
static inline unsigned int virtblk_lock_recovery(struct virtblk_recovery *recovery)
{
	unsigned int noio = memalloc_noio_save();

	mutex_lock(&recovery->lock);
	return noio;
}

static inline void virtblk_unlock_recovery(struct virtblk_recovery *recovery,
					   unsigned int noio)
{
	mutex_unlock(&recovery->lock);
	memalloc_noio_restore(noio);
}

/* progress.c */
bool virtblk_rq_done(struct request *req);
u64 virtblk_count_polls(struct virtblk_queue *q);
u64 virtblk_count_completions(struct virtio_blk *vblk);
bool virtblk_scan_one(struct request *req, void *data);
void virtblk_scan_inflight(struct virtio_blk *vblk, struct virtblk_stall *stall);
void virtblk_sync_timeouts(struct request_queue *queue);
unsigned long virtblk_update_silence(struct virtio_blk *vblk,
				     const struct virtblk_stall *stall);
unsigned int virtblk_age_ms(const struct virtblk_stall *stall);
unsigned int virtblk_setting(const unsigned int *setting,
			     const unsigned int *parameter, unsigned int most);
unsigned int virtblk_removal_timeout(struct virtio_blk *vblk);
bool virtblk_removal_timed_out(struct virtio_blk *vblk);
unsigned long virtblk_answer_timeout(struct virtio_blk *vblk);
unsigned long virtblk_probe_timeout(struct virtio_blk *vblk);
bool virtblk_probe_timed_out(struct virtio_blk *vblk);

/* state.c */
const char *virtblk_state_text(struct virtio_blk *vblk);
void virtblk_set_state(struct virtio_blk *vblk, enum virtblk_state state);
void virtblk_report_state(struct virtio_blk *vblk);
void virtblk_report_work(struct work_struct *work);

/* reset.c */
unsigned int virtblk_reset_attempts(struct virtio_blk *vblk);
bool virtblk_recently_reset(struct virtio_blk *vblk, u64 ms);
void virtblk_requeue_inflight(struct virtio_blk *vblk);
int virtblk_restart_vqs(struct virtio_blk *vblk);
void virtblk_fail_waiting(struct virtio_blk *vblk);
void virtblk_log_offline(struct virtio_blk *vblk);
void virtblk_recovery_work(struct work_struct *work);
void virtblk_release_recovery(struct virtio_blk *vblk);
void virtblk_request_reset(struct virtio_blk *vblk, enum virtblk_reset why);
int virtblk_reset_now(struct virtio_blk *vblk);

/* pm.c */
int virtblk_stop_device(struct virtio_blk *vblk, unsigned long return_within,
			bool requeue);
int virtblk_start_device(struct virtio_blk *vblk);
bool virtblk_abandon_suspended(struct virtio_blk *vblk);
void virtblk_deadline_work(struct work_struct *work);

/* timeout.c */
unsigned int virtblk_timeout_jiffies(void);
unsigned int virtblk_reset_after(struct virtio_blk *vblk);
enum blk_eh_timer_return virtblk_timeout(struct request *req);
void virtblk_register_vmfork(struct virtio_blk *vblk);
void virtblk_unregister_vmfork(struct virtio_blk *vblk);
void virtblk_watch_work(struct work_struct *work);

#endif /* VIRTBLK_RECOVERY_H */
