/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A full ring: one hctx that several CPUs share, without an elevator.
 *
 * Each step names the function of the driver (virtblk_*) or of blk-mq that it
 * models.  blk-mq is that of 6.12 and 7.3.  6.1 differs in the second check of
 * blk_mq_run_hw_queue(), which is about quiescing and not in this model, and in
 * the place where it checks for a stopped queue, which is the same step here.
 *
 * A step ends before an access to a variable that another process of the model
 * writes without holding the same lock.  atomic joins all other statements.
 *
 * Requests have no identity, because only their number on each list matters:
 *
 *	sw		ctx->rq_lists, the software queues
 *	listed		hctx->dispatch
 *	requeued	q->requeue_list
 *	ring		in the ring, owned by the device
 *	used		in the ring, the device has answered
 *	ended		completed
 *
 * A request that queue_rq() has refused and that is not listed yet is in a
 * local variable (mine) of the process that dispatches it.
 *
 * What must hold: all requests complete.  A state that the model cannot leave
 * before all have completed is a hang, and Spin reports it as an invalid end
 * state.  ltl all_end also covers states that repeat without end.
 *
 *	ROOM=n		requests that fit the ring
 *	PLUGGED=n	requests of a plug, for virtblk_queue_rqs()
 *	DIRECT=n	requests that a task issues one by one
 *	ASYNC=n		requests of a plug that is flushed because its task sleeps
 *	ALONE		requests may end one by one: they failed, or end on another
 *			CPU
 *	LIVENESS	ltl all_end, with weak fairness
 *
 * Variants restore a known bug, or have another fix:
 *
 *	OLD_UNSTOP	BLK_STS_DEV_RESOURCE for a full ring, and requests end
 *			one by one only if the queue had been stopped
 *	HANG_2023	BLK_STS_DEV_RESOURCE, all requests end in a batch under
 *			the queue's lock, no flag: the in-tree driver of 6.4-rc1
 *	STOP_UNLOCKED	the driver stops the queue after it has dropped the lock
 *	END_SINGLY	BLK_STS_DEV_RESOURCE, and requests end one by one while
 *			BLK_MQ_S_SCHED_RESTART is set: a fix that works but costs
 *			more
 */

#ifndef ROOM
#define ROOM	1		/* requests that fit the ring */
#endif
#ifndef PLUGGED
#define PLUGGED	2		/* requests of each submitter */
#endif
#ifndef DIRECT
#define DIRECT	1
#endif
#ifndef ASYNC
#define ASYNC	1
#endif
#define REQUESTS (PLUGGED + DIRECT + ASYNC)

/* hctx->run_work: not queued, queued, or queued when its timer expires. */
mtype = { IDLE, NOW, LATER };
mtype run_work = IDLE;

byte sw, listed, requeued, ring, used, ended;
bool requeue_kicked;		/* q->requeue_work is queued */
bool bit_stopped;		/* BLK_MQ_S_STOPPED */
bool bit_restart;		/* BLK_MQ_S_SCHED_RESTART */
bool q_locked;			/* struct virtblk_queue: lock */
bool q_stopped;			/* and stopped */

#ifdef LIVENESS
ltl all_end { <> (ended == REQUESTS) }
#endif

/* blk-mq: run a queue */

/* blk_mq_delay_run_hw_queue(): the check and the queueing are two steps. */
inline delay_run(when)
{
	if
	:: bit_stopped
	:: else -> run_work = when
	fi
}

/* blk_mq_run_hw_queue(hctx, true) */
inline run_async()
{
	if
	:: listed + sw > 0 -> delay_run(NOW)
	:: else
	fi
}

/* blk_mq_start_stopped_hw_queue(hctx, true) */
inline start_stopped()
{
	if
	:: bit_stopped -> bit_stopped = false; run_async()
	:: else
	fi
}

/* The driver: submit */

/*
 * virtblk_queue_rq(): virtblk_add(), and virtblk_refuse() if there is no room,
 * under the queue's lock.  BLK_MQ_S_STOPPED is read without that lock, so it and
 * the work that blk_mq_stop_hw_queue() cancels are steps of their own.
 */
#ifdef STOP_UNLOCKED
#define HOLD	skip
#else
#define HOLD	q_locked = true
#endif

inline add()
{
	if
	:: ring + used < ROOM -> ring++; mine--
	:: else -> refused = true; HOLD
	fi
}

inline refuse()
{
	if
	:: refused ->
		run_work = IDLE;
		d_step {
			bit_stopped = true;
			q_stopped = true;
			q_locked = false
		}
	:: else
	fi
}

/* blk-mq: dispatch */

/*
 * blk_mq_dispatch_rq_list() with the requests in mine.  Between the end of
 * queue_rq() and the listing the refused request is on no list.
 */
inline dispatch_list()
{
	do
	:: atomic { mine > 0 && !refused && !q_locked -> add() };
		refuse()
	:: atomic { mine == 0 || refused -> break }
	od;
	if
	:: atomic { refused -> listed = listed + mine; mine = 0 };
		/* smp_mb(); needs_restart = blk_mq_sched_needs_restart() */
		if
		:: !bit_restart -> run_async()
		:: bit_restart ->
#if defined(OLD_UNSTOP) || defined(HANG_2023) || defined(END_SINGLY)
			/* BLK_STS_DEV_RESOURCE: a completion will run the queue. */
			skip
#else
			/* BLK_STS_RESOURCE: run it again after 3 ms. */
			delay_run(LATER)
#endif
		fi
	:: else
	fi
}

/* blk_mq_do_dispatch_ctx(): one request at a time from the software queues. */
inline dispatch_ctx()
{
	do
	:: atomic { refused -> break }
	:: atomic { !refused && listed > 0 -> again = true; break }	/* -EAGAIN */
	:: atomic { !refused && listed == 0 };
		if
		:: atomic { sw > 0 -> sw--; mine = 1 };
			dispatch_list()
		:: atomic { sw == 0 -> break }
		fi
	od
}

/* __blk_mq_sched_dispatch_requests() */
inline dispatch_once()
{
	if
	:: atomic { listed > 0 -> mine = listed; listed = 0 };
		bit_restart = true;	/* blk_mq_sched_mark_restart_hctx() */
		dispatch_list();
		dispatch_ctx()
	/* hctx->dispatch_busy may be anything. */
	:: listed == 0 -> dispatch_ctx()
	:: atomic { listed == 0 -> skip };
		/* blk_mq_flush_busy_ctxs() */
		atomic { mine = sw; sw = 0 };
		dispatch_list()
	fi
}

/* blk_mq_sched_dispatch_requests() */
inline dispatch()
{
	if
	:: bit_stopped
	:: else ->
		do
		:: dispatch_once();
			if
			:: atomic { again && !round -> again = false; round = true }
			:: atomic { else -> refused = false; break }
			fi
		od;
		if
		:: atomic { again -> again = false; round = false };
			run_async()
		:: atomic { else -> round = false }
		fi
	fi
}

/* blk_mq_run_hw_queue(hctx, false) on a CPU of the hctx */
inline run_sync()
{
	if
	:: listed + sw > 0 -> dispatch()
	:: else
	fi
}

#define LOCALS	byte mine; bool refused, again, round

/* blk_mq_run_work_fn(): never runs on two CPUs at a time. */
active proctype run_work_fn()
{
	LOCALS;
end:	do
	:: atomic { run_work == NOW -> run_work = IDLE };
		dispatch()
	od
}

/* The timer of hctx->run_work */
active proctype run_timer()
{
end:	do
	:: atomic { run_work == LATER -> run_work = NOW }
	od
}

/* blk_mq_requeue_work(): started requests go to hctx->dispatch. */
active proctype requeue_work_fn()
{
	LOCALS;
end:	do
	:: atomic { requeue_kicked -> requeue_kicked = false; mine = requeued;
		    requeued = 0 };
		atomic { listed = listed + mine; mine = 0 };
		/* blk_mq_run_hw_queues(q, false) */
		if
		:: bit_stopped
		:: else -> run_sync()
		fi
	od
}

/*
 * blk_mq_try_issue_directly(), blk_mq_request_issue_directly(): refused requests
 * go to hctx->dispatch (blk_mq_request_bypass_insert()), requests of a stopped
 * queue to the software queue (blk_mq_insert_request()).
 */
#if DIRECT
active proctype submit_directly()
{
	LOCALS;
	byte left = DIRECT;
	do
	:: atomic { left > 0 -> left--; mine = 1 };
		if
		:: bit_stopped -> atomic { sw++; mine = 0 }
		:: else ->
			atomic { !q_locked -> add() };
			refuse();
			if
			:: atomic { refused -> listed++; mine = 0; refused = false }
			:: else
			fi
		fi;
		run_sync()
	:: else -> break
	od
}
#endif

/* A plug that is flushed because its task sleeps: blk_mq_insert_requests() */
#if ASYNC
active proctype submit_async()
{
	sw = sw + ASYNC;
	run_async()
}
#endif

/*
 * blk_mq_flush_plug_list(): virtblk_queue_rqs() submits the batch, or leaves it to
 * blk_mq_plug_issue_direct() if the queue is stopped.
 */
#if PLUGGED
active proctype submit_plugged()
{
	byte mine = PLUGGED;
	bool refused;

#if !defined(OLD_UNSTOP) && !defined(HANG_2023)
	if
	:: atomic { q_stopped -> mine = 0 };
		sw = sw + PLUGGED;
		run_async()
	:: else
	fi;
#endif
	/* virtblk_submit_batch() */
	atomic {
		!q_locked;
		do
		:: mine > 0 && ring + used < ROOM -> mine--; ring++
		:: else -> break
		od;
		if
		:: mine > 0 -> refused = true; HOLD
		:: else
		fi
	};
	refuse();
	/* blk_mq_requeue_request(req, true) */
	if
	:: atomic { mine > 0 -> requeued = requeued + mine; mine = 0 };
		requeue_kicked = true
	:: else
	fi
}
#endif

/* The device, and the driver: complete */

active proctype device()
{
end:	do
	:: atomic { ring > 0 -> ring--; used++ }
	od
}

/* __blk_mq_end_request(): blk_mq_free_request() -> blk_mq_sched_restart() */
inline end_singly()
{
	do
	:: atomic { done > 0 -> done--; ended++ };
		if
		:: bit_restart -> bit_restart = false; run_async()
		:: else
		fi
	:: atomic { else -> break }
	od
}

/* blk_mq_end_request_batch(): ignores BLK_MQ_S_SCHED_RESTART. */
inline end_batch()
{
	atomic { ended = ended + done; done = 0 }
}

/*
 * virtblk_complete_queue(), in the interrupt and on another CPU at the same
 * time: virtblk_poll_queue(), or a time-out that finds a lost interrupt.
 */
active [2] proctype complete_queue()
{
	byte done;
	bool restart;
end:	do
	:: atomic {
		used > 0 && !q_locked;
		done = used; used = 0;		/* virtblk_reap() */
		restart = q_stopped; q_stopped = false;	/* virtblk_clear_stopped() */
#ifdef HANG_2023
		q_locked = true
#endif
	   };
#if defined(HANG_2023)
		end_batch();
		start_stopped();
		q_locked = false;
#else
#if defined(OLD_UNSTOP)
		if
		:: restart -> end_singly()
		:: else -> end_batch()
		fi;
#elif defined(END_SINGLY)
		if
		:: bit_restart -> end_singly()
		:: else -> end_batch()
		fi;
#elif defined(ALONE)
		if
		:: true -> end_singly()
		:: true -> end_batch()
		fi;
#else
		end_batch();
#endif
		if
		:: atomic { restart -> restart = false };
			start_stopped()
		:: else
		fi
#endif
	od
}

/* The tasks that wait for their I/O. */
active proctype wait_for_all()
{
	ended == REQUESTS
}
