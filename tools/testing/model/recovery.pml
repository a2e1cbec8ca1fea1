/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The state of a disk, and all code that changes it or waits for it.
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
 *	          silent while it is removed
 *
 * The driver has the same drawing, and set_state() is virtblk_set_state().  Each
 * process is a task, a work, or the device; the comment above it names the function
 * that it models.  Two hctxs have one request each.  The CPU of hctx 0 goes offline
 * and online.
 *
 * What must hold, in any order of these steps:
 *
 *  - There is no deadlock.  If processes wait without end, Spin reports an invalid
 *    end state.  If a device may hang for good, a removal or a reset of the function
 *    follows, so that a request that never completes is an invalid end state, too.
 *  - A request completes once, and not while the device owns it: complete().
 *  - A removal does not give up a device that works: why_dead().
 *  - No process uses a deleted virtqueue: use_vq().
 *  - The state changes under recovery.lock and only as drawn; dead is final:
 *    set_state().
 *
 * A time-out may expire at any time, because the model does not bound the duration of
 * a step.  The silence of a disk that is being removed is an exception: see
 * watch_work().
 *
 * Parts: a run has some of them, because all together have too many states.
 *
 *	ROUNDS=n	requests of each hctx, one after the other
 *	HANGS		the device may stop answering
 *	ASKS=n		the device sets DEVICE_NEEDS_RESET, n times
 *	GONE		the device may vanish
 *	LESS		the device may return with fewer capabilities, or with a
 *			cache that it does not turn off
 *	HOTPLUG=n	the CPU of hctx 0 goes offline and online, n times
 *	SUSPEND		suspend, which takes the CPU of hctx 0 offline, and resume
 *	FUNCTION_RESET	the PCI function is reset
 *	REMOVE		the disk is removed in the end
 *	SECONDS=n	n seconds pass during the removal although the device works
 *	ADMIN		the administrator resets the device
 *	TIMEOUT=n	n requests time out although the device works
 *	FREEZER		a task freezes the queue: an elevator switch, nr_requests
 *	CONFIG		the configuration space changes
 *
 * Variants restore a known bug, or leave out a step that looks superfluous.  The table
 * in check.py says what each of them breaks.
 */

#ifndef ROUNDS
#define ROUNDS	1
#endif
#ifndef ASKS
#define ASKS	0
#endif
#ifndef HOTPLUG
#define HOTPLUG	0
#endif
#ifndef TIMEOUT
#define TIMEOUT	0
#endif
#ifndef SECONDS
#define SECONDS	0
#endif

#ifdef CONFIG
#define REQUESTS	3	/* the third is virtblk_config_work()'s */
#define any(what)	(rq[0] == what || rq[1] == what || rq[2] == what)
#define any_owned	(owned[0] || owned[1] || owned[2])
#else
#define REQUESTS	2
#define any(what)	(rq[0] == what || rq[1] == what)
#define any_owned	(owned[0] || owned[1])
#endif

/* enum virtblk_state */
#define LIVE		0
#define SUSPENDED	1
#define RESETTING	2
#define DEAD		3
byte state = LIVE;

/* The place of a request. */
#define FREE		0	/* not allocated */
#define REQUEUED	1	/* on q->requeue_list, or on recovery.zone_writes */
#define LISTED		2	/* on another list of blk-mq */
#define RING		3	/* in the ring */
#define USED		4	/* in the ring, answered */
#define TAKEN		5	/* off the ring, not completed yet */
#define ENDED		6	/* completed */
byte rq[REQUESTS] = FREE;
bool owned[REQUESTS];		/* the device may read and write its buffers */

#define in_flight(i)	(rq[i] == RING || rq[i] == USED)
#define any_in_flight	(any(RING) || any(USED))

/* The device */
#define WORKS		0
#define HUNG		1	/* answers nothing */
#define NEEDS_RESET	2	/* DEVICE_NEEDS_RESET is set */
#define VANISHED	3	/* reads as 0xff */
byte device = WORKS;
byte asks = ASKS;
bool may_hang = true;		/* a removal or a reset follows */
bool config_enabled = true;	/* the virtio core passes config_changed on */
bool busy;			/* had requests all the time since the last second */
bool answered;			/* answered one since then */
byte seconds = SECONDS;

/* struct virtblk_recovery, and struct virtblk_queue: vq */
byte lock;			/* recovery.lock: 0, or 1 + its owner */
bool vq_bound = true;		/* q->vq is not NULL */
bool vq_there = true;		/* the virtqueue is allocated */
bool work_queued, work_running;	/* recovery.work */
bool deadline_queued, deadline_running;
bool watch_on, watch_running;
bool wanted, silent;
bool progress;			/* completions since the last run of the watch */
bool reset_since;		/* a reset of the device since then */
bool config_queued = true, config_running;

/* The block layer: the request queue and its disk */
byte q_usage;			/* q_usage_counter: requests and other holders */
byte frozen;			/* mq_freeze_depth */
byte quiesced;			/* quiesce_depth */
bool dispatching;		/* in queue_rq(), an RCU or SRCU reader */
byte callbacks;			/* in the virtqueue's callback */
bool gd_dead, dying;		/* GD_DEAD, QUEUE_FLAG_DYING */
bool timeout_running;		/* q->timeout_work */
byte timeouts = TIMEOUT;
bool limits_lock;		/* q->limits_lock */

/* CPU hotplug: cpu_hotplug_lock, which prefers writers; BLK_MQ_S_INACTIVE */
bool cpus_writer;		/* a writer holds it, or waits for its readers */
byte cpus_readers;
bool inactive;
bool tasks_frozen, hotplugging;
byte finished;			/* tasks of the model */
#ifdef BY_AGE
byte age[REQUESTS];
#endif

/* The driver: locks and state */

inline mutex_lock()
{
	atomic { lock == 0 -> lock = 1 + _pid }
}

inline mutex_unlock()
{
	lock = 0
}

inline set_state(next)
{
	atomic {
		assert(lock == 1 + _pid);
		assert(state != DEAD && state != next);
		assert(state == LIVE || next == LIVE || next == DEAD);
		state = next
	}
}

/* The caller uses a virtqueue without the queue's lock. */
#define use_vq()	assert(vq_there)

/* flush_work(&vblk->recovery.work) */
#define flush_work()	(!work_queued && !work_running)

/* Requests */

/* blk_mq_end_request() */
inline complete(i)
{
	assert(!owned[i]);
	assert(rq[i] != FREE && rq[i] != ENDED);
	rq[i] = ENDED;
	q_usage--
}

/* blk_mq_unquiesce_queue(), blk_mq_kick_requeue_list(), blk_mq_requeue_work() */
inline unquiesce_and_kick()
{
	atomic {
		assert(quiesced > 0);
		quiesced--;
		i = 0;
		do
		:: i < REQUESTS && rq[i] == REQUEUED -> rq[i] = LISTED; i++
		:: i < REQUESTS && rq[i] != REQUEUED -> i++
		:: else -> i = 0; break
		od
	}
}

/* blk_mq_quiesce_queue(): waits for callers of queue_rq(). */
inline quiesce()
{
	quiesced++;
	!dispatching
}

/*
 * blk_mark_disk_dead(): I/O that enters the queue from now on fails.  6.1 does not
 * set QUEUE_FLAG_DYING, and without it the driver's own requests wait at the frozen
 * queue.
 */
inline mark_disk_dead()
{
	atomic {
		if
		:: !gd_dead -> gd_dead = true; frozen++
		:: else
		fi;
#ifndef NOT_DYING
		dying = true
#endif
	}
}

/* The driver: tear down and set up the virtqueues */

/* virtblk_poll_ring(): completes requests that the device has answered. */
inline poll_rings()
{
	atomic {
		i = 0;
		do
		:: i < REQUESTS && rq[i] == USED && vq_bound ->
			progress = true;
			complete(i);
			i++
		:: i < REQUESTS && !(rq[i] == USED && vq_bound) -> i++
		:: else -> i = 0; break
		od
	}
}

/*
 * virtblk_requeue_one(): requeues or fails requests in flight.  The process that took
 * a request off the ring completes it.
 */
inline take_back()
{
	atomic {
		i = 0;
		do
		:: i < REQUESTS && in_flight(i) && state == DEAD -> complete(i); i++
		:: i < REQUESTS && in_flight(i) && state != DEAD ->
			assert(!owned[i]);
			rq[i] = REQUEUED;
			i++
		:: i < REQUESTS && !in_flight(i) -> i++
		:: else -> i = 0; break
		od
	}
}

/* virtblk_reset_device(): from here on the device owns no request. */
inline reset_device()
{
	atomic {
		if
		:: device == NEEDS_RESET || device == HUNG -> device = WORKS
		:: device == HUNG && may_hang
		:: device == WORKS || device == VANISHED
		fi;
		disown()
	}
}

inline disown()
{
	owned[0] = false;
#ifdef CONFIG
	owned[2] = false;
#endif
	owned[1] = false;
	busy = false
}

/* virtblk_requeue_inflight() */
inline reclaim()
{
#ifndef NO_SYNC
	!timeout_running;		/* blk_sync_queue() */
#endif
#ifdef TAKE_BACK_FIRST
	take_back();
#endif
	reset_device();
	poll_rings();
	vq_bound = false;		/* virtblk_unbind_vqs() */
#ifndef NO_SYNC
	callbacks == 0;			/* virtio_synchronize_cbs() */
#endif
#ifndef TAKE_BACK_FIRST
	take_back();
#endif
	vq_there = false		/* virtblk_del_vqs() */
}

/* virtblk_set_write_cache(): queue_limits_commit_update_frozen() */
inline set_write_cache()
{
	atomic { !limits_lock -> limits_lock = true };
	frozen++;
	q_usage == 0;
	atomic { frozen--; limits_lock = false }
}

/* virtblk_restart_vqs() */
inline bring_back()
{
	/* virtblk_find_vqs() */
#ifdef CPUS_LOCK
	atomic { !cpus_writer -> cpus_readers++ };
	cpus_readers--;
#endif
	vq_there = true;
	if
	:: device == VANISHED -> failed = true
	:: device != VANISHED
#ifdef LESS
	/* virtblk_check_return(), virtblk_restore_writeback() */
	:: device != VANISHED -> failed = true
#endif
#ifdef LIMITS_IN_RETURN
	:: device != VANISHED && state == SUSPENDED -> set_write_cache()
#endif
	fi;
	if
	:: failed ->
		reset_device();
		vq_there = false
	:: else ->
		vq_bound = true;	/* virtblk_bind_vqs() */
		atomic { reset_since = true; set_state(LIVE) };
#ifdef NO_REQUEUE
		quiesced--
#else
		unquiesce_and_kick()
#endif
	fi
}

/* Recovery */

/*
 * virtblk_why_dead(): a device that is gone, or that has completed nothing for
 * removal_timeout since its last reset or completion.
 */
inline why_dead()
{
	atomic {
		died = (device == VANISHED);
		if
#ifdef SILENT_STAYS
		:: silent && !progress ->
#else
		:: silent && !progress && !reset_since ->
#endif
			assert(device != WORKS);
			died = true
		:: else
		fi;
		silent = false
	}
}

/* virtblk_recovery_work() */
active proctype recovery_work()
{
	byte i;
	bool died, failed, want;
end:	do
	:: atomic { work_queued -> work_queued = false; work_running = true };
		atomic { lock == 0 -> lock = 1 + _pid; want = wanted; wanted = false };
		if
		:: state == LIVE ->
			why_dead();
			if
			:: died ->
				/* virtblk_declare_dead() */
				quiesce();
				set_state(DEAD);
				reclaim();
				unquiesce_and_kick()
			:: !died && (device == NEEDS_RESET || want) ->
				/* virtblk_reset_and_resend() */
				quiesce();
				set_state(RESETTING);
				reclaim();
				wanted = false;
				reset_device();
				bring_back();
				if
				:: failed ->
					set_state(DEAD);
					unquiesce_and_kick();
					died = true
				:: else
				fi
			:: else
			fi
		:: else
		fi;
		mutex_unlock();
		if
		:: died -> mark_disk_dead()
		:: else
		fi;
		atomic {
			died = false; failed = false; want = false;
			work_running = false
		}
	od
}

/* I/O */

/* A task that has ROUNDS requests, on hctx id. */
proctype io(byte id)
{
	byte left = ROUNDS;
	do
	:: atomic {
		/* bio_queue_enter(), blk_mq_get_tag() */
		left > 0 && (gd_dead || (frozen == 0 && !(inactive && id == 0))) ->
		left--;
		if
		:: gd_dead
		:: else -> q_usage++; rq[id] = LISTED
		fi
	   };
		atomic { rq[id] == ENDED || rq[id] == FREE -> rq[id] = FREE }
	:: atomic { left == 0 -> finished++; break }
	od
}

inline pick(what)
{
	if
	:: rq[0] == what -> i = 0
	:: rq[1] == what -> i = 1
#ifdef CONFIG
	:: rq[2] == what -> i = 2
#endif
	fi
}

/* blk_mq_run_work_fn(): virtblk_queue_rq() */
active proctype dispatch()
{
	byte i;
	bool kick;
end:	do
	:: atomic {
		quiesced == 0 && any(LISTED) ->
		dispatching = true;
		pick(LISTED);
		if
		:: vq_bound -> rq[i] = RING; owned[i] = true; kick = true;
#ifdef BY_AGE
			age[i] = 0
#endif
		:: else -> complete(i)	/* BLK_STS_IOERR */
		fi
	   };
		atomic {
			/* virtqueue_notify(), without the queue's lock */
			if
			:: kick -> use_vq()
			:: else
			fi;
			kick = false; i = 0;
			dispatching = false
		}
	od
}

inline answer(i)
{
	owned[i] = false;
	rq[i] = USED;
	answered = true;
	busy = busy && any_owned
}

active proctype the_device()
{
end:	do
	/* Requests are answered in any order. */
	:: atomic { device == WORKS && owned[0] -> answer(0) }
	:: atomic { device == WORKS && owned[1] -> answer(1) }
#ifdef CONFIG
	:: atomic { device == WORKS && owned[2] -> answer(2) }
#endif
#ifdef HANGS
	:: atomic { device == WORKS && may_hang -> device = HUNG }
#endif
#if ASKS
	/* virtblk_config_changed() */
	:: atomic {
		device == WORKS && asks > 0 ->
		asks--;
		device = NEEDS_RESET;
		work_queued = work_queued || config_enabled
	   }
#endif
#ifdef GONE
	:: atomic { device != VANISHED -> device = VANISHED; disown() }
#endif
	od
}

/* virtblk_complete_queue(), called by the interrupt */
active proctype interrupt()
{
	byte i;
end:	do
	:: atomic {
		vq_bound && any(USED) ->
		pick(USED);
		rq[i] = TAKEN;
		progress = true;
		callbacks++
	   };
		atomic { use_vq(); complete(i); i = 0; callbacks-- }
	od
}

#if TIMEOUT || ASKS || defined(GONE)
/*
 * blk_mq_timeout_work(): virtblk_timeout().  Requests time out TIMEOUT times if the
 * device works, and otherwise whenever the time-out has an effect.
 */
active proctype timeout_work()
{
	byte i;
	bool live;
end:	do
	:: atomic {
		any_in_flight &&
		(timeouts > 0 || (state == LIVE && flush_work() &&
				  (device == NEEDS_RESET || device == VANISHED))) ->
		timeouts = (timeouts > 0 -> timeouts - 1 : 0);
		timeout_running = true;
		q_usage++
	   };
		live = (state == LIVE);
		if
		:: live ->
			poll_rings();
			if
			:: vq_bound -> use_vq()	/* virtqueue_notify() */
			:: else
			fi;
			work_queued = true
		:: else
		fi;
		atomic { live = false; q_usage--; timeout_running = false }
	od
}
#endif

/* CPU hotplug */

#if HOTPLUG || defined(SUSPEND)
/* _cpu_down(): blk_mq_hctx_notify_offline() waits for the requests of hctx 0. */
inline cpu_down()
{
	atomic { !cpus_writer -> cpus_writer = true };
	cpus_readers == 0;
	inactive = true;
	if
	:: atomic { q_usage > 0 -> q_usage++ };	/* percpu_ref_tryget() */
		atomic { rq[0] == FREE || rq[0] == ENDED -> q_usage-- }
	:: q_usage == 0
	fi;
	cpus_writer = false
}

inline cpu_up()
{
	atomic { !cpus_writer -> cpus_writer = true };
	cpus_readers == 0;
	atomic { inactive = false; cpus_writer = false }
}
#endif

#if HOTPLUG
active proctype hotplug()
{
	byte left = HOTPLUG;
	do
	:: atomic { left > 0 && !tasks_frozen -> left--; hotplugging = true };
		cpu_down();
		cpu_up();
		hotplugging = false
	:: left == 0 -> break
	od
}
#endif

/* Other tasks and works */

#ifdef FREEZER
/* queue_limits_commit_update_frozen(), and all other functions that freeze the queue */
active proctype freezer()
{
	set_write_cache()
}
#endif

#ifdef ADMIN
/* virtblk_reset_now() */
active proctype administrator()
{
	wanted = true;
	work_queued = true;
	flush_work()
}
#endif

#ifdef CONFIG
/*
 * virtblk_config_work(): reads the configuration space, which is not valid during a
 * reset, and then sends its own requests (virtblk_query()), or freezes the queue
 * (virtblk_set_write_cache()).
 */
active proctype config_work()
{
	bool live;
end:	atomic { config_queued -> config_queued = false; config_running = true };
#ifndef CONFIG_UNLOCKED
	mutex_lock();
#endif
	live = (state == LIVE);
	if
	:: live -> assert(state == LIVE)	/* virtblk_read_changes() */
	:: else
	fi;
#ifndef CONFIG_UNLOCKED
	mutex_unlock();
#endif
	if
	:: live ->
		atomic {
			/* blk_queue_enter() */
			frozen == 0 || dying;
			if
			:: dying
			:: else -> q_usage++; rq[2] = LISTED
			fi
		};
		atomic { rq[2] == ENDED || rq[2] == FREE -> rq[2] = FREE }
	:: live -> set_write_cache()
	:: !live
	fi;
	config_running = false
}
#endif

#ifdef REMOVE
/*
 * virtblk_watch_work(): runs once a second while the disk is being removed.
 * removal_timeout is two seconds.  A device that works and has had requests all the
 * time answers at least one of them in each second.  Seconds that change nothing do
 * not pass, because otherwise no state would be final.
 */
active proctype watch_work()
{
	byte i, silence;
end:	do
	:: atomic {
		watch_on && !silent &&
		((device == WORKS && seconds > 0 && !(busy && !answered)) ||
		 (device != WORKS && state == LIVE && any_in_flight)) ->
		watch_running = true;
		seconds = (device == WORKS -> seconds - 1 : seconds);
		busy = any_owned;
		answered = false;
#ifdef BY_AGE
		age[0] = (age[0] < 3 -> age[0] + 1 : 3);
		age[1] = (age[1] < 3 -> age[1] + 1 : 3)
#endif
	   };
		/* virtblk_update_silence() */
		atomic {
			if
#ifdef IDLE_COUNTS
			:: state != LIVE || progress || reset_since ->
#else
			:: state != LIVE || progress || reset_since || !any_in_flight ->
#endif
				silence = 0
			:: else -> silence = (silence < 3 -> silence + 1 : 3)
			fi;
			progress = false;
			reset_since = false
		};
#ifndef NO_NUDGE
		/* virtblk_poll_and_kick() */
		if
#ifdef NUDGE_EARLY
		:: silence > 0 && silence < 3 ->
#else
		:: silence > 0 ->
#endif
			mutex_lock();
			if
			:: state == LIVE -> poll_rings(); use_vq()
			:: else
			fi;
			mutex_unlock()
		:: else
		fi;
#endif
		/* virtblk_watch() and virtblk_why_dead() */
		if
#ifdef BY_AGE
		:: (in_flight(0) && age[0] == 3) || (in_flight(1) && age[1] == 3) ->
#else
		:: silence == 3 && !progress ->
#endif
			silent = true;
			work_queued = true
		:: else
		fi;
		watch_running = false
	od
}
#endif

/* virtio_config_core_enable(): passes on changes of the meantime. */
inline config_on()
{
	atomic {
		config_enabled = true;
		work_queued = work_queued || device == NEEDS_RESET
	}
}

#if defined(SUSPEND) || defined(FUNCTION_RESET)
/* blk_mq_unfreeze_queue_non_owner() */
#ifdef ONLY_QUIESCED
#define unfreeze()	skip
#else
#define unfreeze()	frozen--
#endif

/* virtblk_fail_suspended() */
inline lose_suspended()
{
	set_state(DEAD);
	unquiesce_and_kick();
	unfreeze()
}

/* virtblk_abandon_suspended() */
inline abandon_suspended()
{
	mutex_lock();
	if
	:: state == SUSPENDED -> lose_suspended(); died = true
	:: else
	fi;
	mutex_unlock();
	if
	:: died -> mark_disk_dead()
	:: else
	fi;
	died = false
}

/* virtblk_deadline_work(), whose work queue is frozen during a suspend */
active proctype deadline_work()
{
	byte i;
	bool died;
end:	do
	:: atomic {
		deadline_queued && !tasks_frozen ->
		deadline_queued = false;
		deadline_running = true
	   };
		abandon_suspended();
		deadline_running = false
	od
}

/* virtblk_stop_device() */
inline stop_device(may_take_back)
{
#ifdef CONFIG_FIRST
	/* cancel_delayed_work_sync(&vblk->config_work) */
	config_queued = false;
	!config_running;
#endif
	frozen++;
	/* virtblk_drain(): until nothing is in flight, or nothing completes. */
	if
	:: q_usage == 0 -> drained = true
#ifndef WAIT_FOREVER
	:: q_usage > 0 -> drained = false
#endif
	fi;
	if
	:: !drained && !may_take_back -> frozen--
	:: else ->
		mutex_lock();
		if
		:: state == LIVE ->
			quiesce();
#ifdef ONLY_QUIESCED
			frozen--;
#endif
			set_state(SUSPENDED);
			reclaim();
			deadline_queued = true;
			stopped = true
		:: else -> frozen--
		fi;
		mutex_unlock()
	fi;
	drained = false
}

/* virtblk_start_device() */
inline start_device()
{
	deadline_queued = false;	/* cancel_delayed_work_sync() */
	!deadline_running;
	mutex_lock();
	if
	:: state == SUSPENDED ->
		bring_back();
		if
		:: failed -> lose_suspended()
		:: else -> unfreeze()
		fi
	:: else
	fi;
	mutex_unlock();
	if
	:: failed -> mark_disk_dead()
	:: else
	fi;
	failed = false
}
#endif

/* virtblk_remove() */
inline remove()
{
	config_enabled = false;
	/* virtblk_start_removal() */
	work_queued = true;
	flush_work();
#if defined(SUSPEND) || defined(FUNCTION_RESET)
	if
	:: atomic { deadline_queued -> deadline_queued = false };
		abandon_suspended()
	:: !deadline_queued -> !deadline_running
	fi;
#endif
	watch_on = true;
#ifdef CONFIG
	config_queued = false;
	!config_running;
#endif
	/* del_gendisk(): write back, then block new I/O, and wait. */
	frozen == 0 || gd_dead;
	atomic {
		if
		:: !gd_dead -> gd_dead = true; frozen++
		:: else
		fi;
		dying = true
	};
	q_usage == 0;
	/* blk_mq_exit_queue(): cpuhp_state_remove_instance_nocalls() */
	atomic { !cpus_writer -> cpus_readers++ };
	cpus_readers--;
	/* virtblk_teardown() */
	watch_on = false;
	!watch_running;
	work_queued = false;
	!work_running;
	mutex_lock();
	if
	:: state != DEAD -> set_state(DEAD)
	:: else
	fi;
	mutex_unlock();
	!dispatching;
	reset_device();
	callbacks == 0;
	vq_there = false;
	work_queued = false;
	!work_running
}

/* Assertions on the final state */
active proctype at_rest()
{
end:	timeout && finished == 3 ->
	assert(lock == 0 && quiesced == 0 && q_usage == 0 && !limits_lock);
	assert(frozen == (gd_dead -> 1 : 0));
	assert(!any_owned && !any(REQUEUED) && !any(LISTED))
}

/*
 * The task that holds device_lock of the device: suspend, a reset of the function,
 * and a removal exclude each other.
 */
active proctype device_task()
{
	byte i;
	bool drained, stopped, failed, died;

	atomic { run io(0); run io(1) };

#ifdef SUSPEND
	/* virtio_device_freeze(): virtblk_freeze() */
	atomic { !hotplugging -> tasks_frozen = true };
	config_enabled = false;
	stop_device(false);
	if
	:: stopped ->
		cpu_down();
		cpu_up();
		/* virtio_device_restore(): the device may offer less by now. */
		if
		:: true ->
			reset_device();
			start_device();
			config_on()
#ifdef LESS
		:: true
#endif
		fi
	:: else -> config_on()
	fi;
	atomic { tasks_frozen = false; stopped = false };
#endif

#ifdef FUNCTION_RESET
	/* virtio_device_reset_prepare(): virtblk_reset_prepare() */
	config_enabled = false;
	stop_device(true);
	/* pcie_flr(): repairs the device, unless it is gone. */
	atomic {
#ifndef REMOVE
		may_hang = false;
#endif
		device = (device != VANISHED -> WORKS : VANISHED);
		stopped = false
	};
	/* virtio_device_reset_done(): virtblk_start() */
	if
	:: true ->
		reset_device();
		start_device();
		config_on()
#ifdef LESS
	:: true
#endif
	fi;
#endif

#ifdef REMOVE
	remove();
#endif
	finished++
}
