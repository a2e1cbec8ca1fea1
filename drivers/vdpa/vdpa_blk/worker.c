// SPDX-License-Identifier: GPL-2.0
/*
 * The threads that take requests off the rings.
 *
 * The driver's kick sets the queue's bit and wakes its worker, because it may come with
 * interrupts off.  A worker takes all that a ring has, up to VDPA_BLK_BUDGET, under one
 * plug, and publishes together what completes meanwhile.  Before it sleeps it asks for
 * kicks again, and looks once more.
 *
 * To change a queue or the memory, device.c parks the workers: a parked worker uses no
 * ring.  A worker takes no lock that is held meanwhile.
 */

#include <linux/kthread.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>

#include "complete.h"
#include "queue.h"
#include "request.h"
#include "ring.h"
#include "vdpa_blk.h"

/* Chains that a worker takes off one ring before it serves its others that were kicked. */
#define VDPA_BLK_BUDGET		256

/* Completions that a worker collects before it publishes them. */
#define VDPA_BLK_MAX_COLLECTED	32

/**
 * vdpa_blk_break() - stop a virtqueue that the driver has broken
 * @q: the virtqueue
 * @why: the reason, for the log
 *
 * The device sets DEVICE_NEEDS_RESET (VIRTIO 1.4, 2.1.2).
 *
 * Context: the queue's worker, or any task while the workers are parked.
 */
void vdpa_blk_break(struct vdpa_blk_queue *q, const char *why)
{
	struct vdpa_blk *vb = q->vb;

	WRITE_ONCE(q->running, false);
	WRITE_ONCE(q->broken, true);
	q->stats.broken++;
	dev_warn_ratelimited(&vb->vdpa.dev, "virtqueue %u stops, because %s; it needs a reset\n",
			     q->index, why);
	queue_work(vb->wq, &vb->break_work);
}

/*
 * Whether to publish what has completed before the worker submits another bio, which may
 * sleep: while bios are with the backing device it may have no tag.  What completed at once,
 * in submit_bio() or at the end of a plug, waits for more: a backing device that completes
 * so rarely makes the worker sleep.
 */
static bool vdpa_blk_must_publish(const struct vdpa_blk_queue *q)
{
	return q->nr_done >= VDPA_BLK_MAX_COLLECTED ||
	       atomic_read(&q->in_flight) > q->nr_done;
}

/* Let a queue take chains again that had to wait. */
static void vdpa_blk_unstall(struct vdpa_blk_queue *q)
{
	q->may_stall = false;
	clear_bit(q->index, q->vb->stalled);
}

/*
 * Put back a chain that has to wait, and take it again when a request has freed memory.  The
 * worker takes it again at once, in case one did so before the bit was set.  Returns what
 * vdpa_blk_handle_chain() does then.
 */
static noinline int vdpa_blk_stall(struct vdpa_blk_queue *q)
{
	int err;

	vdpa_blk_put_back(&q->ring, q->chain.descs);
	q->may_stall = true;
	set_bit(q->index, q->vb->stalled);
	/* The bit is set before memory is asked for again. */
	smp_mb__after_atomic();
	err = vdpa_blk_handle_chain(q);
	if (err == -EAGAIN)
		vdpa_blk_put_back(&q->ring, q->chain.descs);
	else
		vdpa_blk_unstall(q);
	return err;
}

/*
 * Serve up to @nr chains, which the ring has, and count them down in @budget.  Returns 0
 * if there may be more for this batch, else what vdpa_blk_serve_batch() returns.
 */
static __always_inline int vdpa_blk_serve_chains(struct vdpa_blk_queue *q, unsigned int nr,
						 unsigned int *budget)
{
	int err;

	do {
		err = vdpa_blk_handle_chain(q);
		if (unlikely(err == -EAGAIN))
			err = vdpa_blk_stall(q);
		/* A chain that is not there any more may come back. */
		if (unlikely(err <= 0))
			return err ?: 1;
		if (unlikely(!--*budget))
			return 1;
		if (likely(!q->nr_done) || !vdpa_blk_must_publish(q))
			continue;
		vdpa_blk_flush_completions(q);
		/*
		 * A backing device that completes at once may compute in submit_bio().
		 * Looking here, once in VDPA_BLK_MAX_COLLECTED chains, costs the others
		 * nothing.
		 */
		if (need_resched())
			return 1;
	} while (--nr && !READ_ONCE(q->vb->paused));
	return 0;
}

/*
 * Returns 1 if the queue may have more than the worker took; 0 if it has nothing more, or the
 * workers are paused; -EAGAIN if it has to wait for memory or for a copied write; -EINVAL
 * if the driver has broken it.
 */
static int vdpa_blk_serve_batch(struct vdpa_blk_queue *q)
{
	struct blk_plug *plug = &q->worker->plug;
	unsigned int budget = VDPA_BLK_BUDGET;
	struct vdpa_blk *vb = q->vb;
	bool plugged = false;
	int err = 0;

	/* An earlier batch may have left it set. */
	if (unlikely(q->may_stall))
		vdpa_blk_unstall(q);
	WRITE_ONCE(q->batching, current);
	/* A pause ends the batch; unparking the worker serves the queue again. */
	while (!err && likely(!READ_ONCE(vb->paused))) {
		err = vdpa_blk_find_chains(&q->ring);
		if (err <= 0)
			break;
		/* A plug costs more than it saves for a request that is alone. */
		if (!plugged && (err > 1 || q->ring.packed || budget < VDPA_BLK_BUDGET)) {
			blk_start_plug(plug);
			plugged = true;
		}
		err = vdpa_blk_serve_chains(q, err, &budget);
	}
	if (plugged)
		blk_finish_plug(plug);
	WRITE_ONCE(q->batching, NULL);
	if (likely(q->nr_done))
		vdpa_blk_flush_completions(q);

	if (unlikely(budget == VDPA_BLK_BUDGET && !READ_ONCE(vb->paused)))
		q->stats.empty++;
	return err;
}

/* Returns true if it must be called again. */
static noinline bool vdpa_blk_serve(struct vdpa_blk_queue *q)
{
	int more;

	if (!READ_ONCE(q->running))
		return false;
	q->stats.wakeups++;
	vdpa_blk_suppress_kicks(&q->ring);
	more = vdpa_blk_serve_batch(q);
	/* A worker that polls allows kicks when it ends. */
	if (likely(!more))
		return !q->vb->settings.poll_us && vdpa_blk_allow_kicks(&q->ring);
	if (more == -EINVAL)
		vdpa_blk_break(q, "the driver made a ring or a chain that VIRTIO does not allow");
	/* -EAGAIN: it goes on when memory is free; a kick meanwhile does no harm. */
	return more > 0;
}

static bool vdpa_blk_has_pending(const struct vdpa_blk_worker *worker)
{
	unsigned int i = 0;

	do {
		if (READ_ONCE(worker->pending[i]))
			return true;
	} while (++i < worker->words);
	return false;
}

static void vdpa_blk_serve_pending(struct vdpa_blk_worker *worker)
{
	struct vdpa_blk *vb = worker->vb;
	unsigned int i = 0, j;
	unsigned long bits;

	do {
		if (!READ_ONCE(worker->pending[i]))
			continue;
		/* A kick that comes after the ring is read sets its bit again. */
		for (bits = xchg(&worker->pending[i], 0); bits; ) {
			j = i * BITS_PER_LONG + __ffs(bits);
			bits &= bits - 1;
			if (vdpa_blk_serve(vb->queues[j]))
				set_bit(j, worker->pending);
			/* After the last one the worker sleeps, or lets others run. */
			if (bits)
				cond_resched();
			/* All queues are served when the workers go on. */
			if (unlikely(READ_ONCE(vb->paused)))
				return;
		}
	} while (++i < worker->words);
}

/* Set the bits of the worker's queues that have chains, with kicks allowed or not. */
static void vdpa_blk_find_pending(struct vdpa_blk_worker *worker, bool allow_kicks)
{
	struct vdpa_blk *vb = worker->vb;
	struct vdpa_blk_queue *q;
	unsigned int i;

	for (i = worker->index; i < vb->settings.queues; i += vb->nr_workers) {
		q = vb->queues[i];
		/* A queue that waits for memory must not keep a CPU busy. */
		if (READ_ONCE(q->running) && !test_bit(i, vb->stalled) &&
		    (allow_kicks ? vdpa_blk_allow_kicks(&q->ring) :
				   vdpa_blk_has_more(&q->ring)))
			set_bit(i, worker->pending);
	}
}

/*
 * Look at all queues of the worker until none has had anything for poll_us.  Meanwhile
 * kicks stay suppressed: the worker sees chains without them.
 */
static void vdpa_blk_poll(struct vdpa_blk_worker *worker)
{
	struct vdpa_blk *vb = worker->vb;
	ktime_t end = ktime_add_us(ktime_get(), vb->settings.poll_us);

	do {
		vdpa_blk_find_pending(worker, false);
		if (vdpa_blk_has_pending(worker))
			return;
		cpu_relax();
	} while (ktime_before(ktime_get(), end) && !need_resched() &&
		 !READ_ONCE(vb->paused));
	vdpa_blk_find_pending(worker, true);
}

/* Whether a kick, or the end of a pause, will wake the worker. */
static bool vdpa_blk_may_sleep(const struct vdpa_blk_worker *worker)
{
	if (unlikely(READ_ONCE(worker->vb->paused)))
		return !kthread_should_park() && !kthread_should_stop();
	return !vdpa_blk_has_pending(worker);
}

/*
 * @paused is set before any worker is parked or stopped.  While it is clear, the worker need
 * not ask for either.
 */
static int vdpa_blk_worker_fn(void *data)
{
	struct vdpa_blk_worker *worker = data;
	struct vdpa_blk *vb = worker->vb;

	/* The backing device may hold swap or a file system of this kernel. */
	memalloc_noio_save();
	for (;;) {
		if (unlikely(READ_ONCE(vb->paused))) {
			if (kthread_should_stop())
				return 0;
			if (kthread_should_park()) {
				kthread_parkme();
				continue;
			}
		} else {
			vdpa_blk_serve_pending(worker);
			if (unlikely(vb->settings.poll_us))
				vdpa_blk_poll(worker);
		}
		set_current_state(TASK_IDLE);
		if (likely(vdpa_blk_may_sleep(worker))) {
			schedule();
			continue;
		}
		__set_current_state(TASK_RUNNING);
		cond_resched();
	}
}

static bool vdpa_blk_is_drained(const struct vdpa_blk *vb)
{
	unsigned int i;

	for (i = 0; i < vb->settings.queues; i++)
		if (atomic_read(&vb->queues[i]->in_flight))
			return false;
	return true;
}

/**
 * vdpa_blk_park_workers() - stop serving queues, and wait for what is in flight
 * @vb: the device, its lock held, its workers running
 *
 * Waits as long as the backing device takes for the requests that it has.  After SIGKILL
 * operations that sleep end early, as in a reset.  Context: may sleep.
 */
void vdpa_blk_park_workers(struct vdpa_blk *vb)
{
	unsigned int i;

	WRITE_ONCE(vb->paused, true);
	for (i = 0; i < vb->nr_workers; i++)
		kthread_park(vb->workers[i].task);
	if (!wait_event_killable(vb->drained, vdpa_blk_is_drained(vb)))
		return;
	/* A process that is killed closes the node, which is a reset. */
	WRITE_ONCE(vb->stopping, true);
	wait_event(vb->drained, vdpa_blk_is_drained(vb));
	WRITE_ONCE(vb->stopping, false);
}

/**
 * vdpa_blk_unpark_workers() - go on after vdpa_blk_park_workers()
 * @vb: the device, its lock held
 *
 * Context: may sleep.
 */
void vdpa_blk_unpark_workers(struct vdpa_blk *vb)
{
	unsigned int i;

	WRITE_ONCE(vb->paused, false);
	for (i = 0; i < vb->nr_workers; i++)
		kthread_unpark(vb->workers[i].task);
	/* Kicks may have been suppressed, or come before the queue was ready. */
	for (i = 0; i < vb->settings.queues; i++)
		if (vb->queues[i]->running)
			vdpa_blk_wake_worker(vb->queues[i]);
}

static unsigned int vdpa_blk_count_workers(const struct vdpa_blk_settings *settings)
{
	return min(settings->queues, settings->workers ?: num_online_cpus());
}

/* The CPUs that the administrator has named are for the workers in their order. */
static void vdpa_blk_pin_worker(struct vdpa_blk_worker *worker)
{
	const struct cpumask *cpus = &worker->vb->settings.cpus;
	unsigned int cpu, i;

	if (cpumask_empty(cpus))
		return;
	cpu = cpumask_first(cpus);
	for (i = 0; i < worker->index % cpumask_weight(cpus); i++)
		cpu = cpumask_next(cpu, cpus);
	kthread_bind(worker->task, cpu);
}

/**
 * vdpa_blk_start_workers() - start the threads, parked
 * @vb: the device
 *
 * Return: 0 or an error, and there are none.
 */
int vdpa_blk_start_workers(struct vdpa_blk *vb)
{
	unsigned int nr = vdpa_blk_count_workers(&vb->settings), i;
	struct vdpa_blk_worker *worker;
	struct task_struct *task;

	vb->workers = kcalloc(nr, sizeof(*vb->workers), GFP_KERNEL);
	if (!vb->workers)
		return -ENOMEM;
	vb->paused = true;
	for (i = 0; i < nr; i++) {
		worker = &vb->workers[i];
		worker->vb = vb;
		worker->index = i;
		worker->words = BITS_TO_LONGS(vb->settings.queues);
		task = kthread_create(vdpa_blk_worker_fn, worker, "vdpa_blk/%s:%u",
				      dev_name(&vb->vdpa.dev), i);
		if (IS_ERR(task)) {
			vdpa_blk_stop_workers(vb);
			return PTR_ERR(task);
		}
		worker->task = task;
		vb->nr_workers++;
		vdpa_blk_pin_worker(worker);
		kthread_park(task);
	}
	for (i = 0; i < vb->settings.queues; i++)
		vb->queues[i]->worker = &vb->workers[i % nr];
	return 0;
}

/**
 * vdpa_blk_stop_workers() - end the threads
 * @vb: the device, its workers parked and nothing in flight
 *
 * Context: may sleep.
 */
void vdpa_blk_stop_workers(struct vdpa_blk *vb)
{
	unsigned int i;

	for (i = 0; i < vb->nr_workers; i++)
		kthread_stop(vb->workers[i].task);
	kfree(vb->workers);
	vb->workers = NULL;
	vb->nr_workers = 0;
}
