/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Suppressed kicks and interrupts: none may be lost.
 *
 * Driver and device each tell the other when to notify, and then check the ring again.
 * Between the two a full barrier is needed, because a CPU may let a load overtake a
 * store.  The model includes that: each CPU has a store buffer, first in first out,
 * that drains at any time (TSO, the memory model of x86).  Loads read memory; here no
 * CPU loads a value that is still in its own buffer.
 *
 *	cpu 0	the submitter: virtblk_queue_rq(), virtblk_commit_rqs()
 *	cpu 1	the interrupt: vring_interrupt(), virtblk_complete_queue()
 *	cpu 2	virtblk_complete_work(), for the rest after an interrupt, and
 *		virtblk_poll_ring(), for a request that times out
 *	cpu 3	the device
 *
 * virtio_ring's functions are those of 6.1 to 7.3, under the common names of the
 * functions for both kinds of ring.  virtio_ring writes its private fields (num_added,
 * last_used_idx, the shadow of the flags) under the queue's lock.  The next owner sees
 * them, because the release of the lock is the owner's last store.
 *
 *	PACKED		a packed ring, else a split one
 *	EVENT		VIRTIO_F_EVENT_IDX, else flags
 *
 * What must hold: all submitted requests complete.  The submitter sometimes waits for
 * all its requests.  If a kick or an interrupt is lost, it waits without end, which
 * Spin reports as an invalid end state.  With REQUESTS requests each wrap counter has
 * both its values.
 *
 * Variants leave out a step that looks superfluous; check.py lists them.
 */

#define RING	2		/* descriptors: one for each request */
#define SPAN	8		/* indexes are modulo this, instead of 65536 */
#ifndef REQUESTS
#define REQUESTS 4
#endif
#ifndef TIMES_OUT
#define TIMES_OUT 0
#endif

#define plus(a, b)	(((a) + (b)) % SPAN)
#define minus(a, b)	(((a) + SPAN - (b)) % SPAN)

/* vring_need_event() */
#define need_event(event, new, old)	\
	(minus(minus(new, event), 1) < minus(new, old))

/* Memory, and stores in the buffers */

/* Written by the driver */
#define AVAIL		0	/* split: avail->idx */
#define OFF_DRIVER	1	/* split: used_event; packed: driver->off_wrap */
#define FLAGS_DRIVER	2	/* split: avail->flags; packed: driver->flags */
#define LOCKED		3	/* struct virtblk_queue: lock */
#define KICK		4	/* the doorbell */
/* Written by the device */
#define USED		5	/* split: used->idx */
#define OFF_DEVICE	6	/* split: avail_event; packed: device->off_wrap */
#define FLAGS_DEVICE	7	/* split: used->flags; packed: device->flags */
#define IRQ		8
/* Written by both in turn */
#define DESC		9	/* packed: the flags of each descriptor */

/* Values of the flags; those of a split ring know only the first two. */
#define ENABLE		0
#define DISABLE		1
#define EVENT_INDEX	2	/* VRING_PACKED_EVENT_FLAG_DESC */

byte mem[DESC + RING];
chan buffer[4] = [2] of { byte, byte };

#define store(var, value)	buffer[cpu]!var,value
#define mb()			empty(buffer[cpu])

inline drain(which)
{
	atomic {
		buffer[which]?where,what ->
		mem[where] = what;
		where = 0;
		what = 0
	}
}

proctype memory()
{
	byte where, what;
end:	do
	:: drain(0)
	:: drain(1)
#ifdef WORK
	:: drain(2)
#endif
	:: drain(3)
	od
}

/* Taking the lock is an atomic operation on memory, releasing it a store. */
#define spin_lock()	mem[LOCKED] == 0 -> mem[LOCKED] = 1
#define spin_unlock()	store(LOCKED, 0)

/*
 * A position in the ring: the index, and for a packed ring the wrap counter, which
 * is bit 15 of off_wrap.
 */
#ifdef PACKED
#define WRAP		4
#define START		WRAP
#define index(p)	((p) & (WRAP - 1))
#define wrap(p)		((p) / WRAP)
#define next(p)		(index(p) + 1 < RING -> (p) + 1 : WRAP - wrap(p) * WRAP)
/* Flags of a descriptor: bit 0 is AVAIL, bit 1 is USED. */
#define made_avail(p)	(wrap(p) -> 1 : 2)
#define made_used(p)	(wrap(p) -> 3 : 0)
#define is_avail(p)	(mem[DESC + index(p)] == made_avail(p))
#define is_used(p)	(mem[DESC + index(p)] == made_used(p))
#define store_avail(p)	store(DESC + index(p), made_avail(p))
#define store_used(p)	store(DESC + index(p), made_used(p))
/* An event index of the other round is RING behind. */
#define event_of(off, p)	\
	(wrap(off) == wrap(p) -> index(off) : minus(index(off), RING))
#else
#define START		(SPAN - RING)
#define index(p)	(p)
#define next(p)		plus(p, 1)
#define is_avail(p)	(mem[AVAIL] != (p))
#define is_used(p)	(mem[USED] != (p))
#define store_avail(p)	store(AVAIL, next(p))
#define store_used(p)	store(USED, next(p))
#define event_of(off, p)	(off)
#endif

/* virtio_ring: struct vring_virtqueue */
byte next_avail = START, last_used = START;
byte num_added, num_free = RING;
bool cb_disabled;		/* the shadow of the driver's flags */
bool event_triggered;		/* written without a lock, as in the kernel */
bool work_queued;		/* struct virtblk_queue: work */
bool may_time_out = TIMES_OUT;

#define in_flight	(num_free < RING)

/*
 * virtqueue_kick_prepare(), and virtqueue_notify(), which the driver calls without
 * the queue's lock.
 */
inline kick_and_unlock()
{
#ifndef NO_MB_KICK
	mb();
#endif
	atomic {
		/* A packed ring's flags and index are read at once. */
#ifdef EVENT
#ifdef PACKED
		if
		:: mem[FLAGS_DEVICE] != EVENT_INDEX ->
			kick = (mem[FLAGS_DEVICE] == ENABLE)
		:: else ->
			kick = need_event(event_of(mem[OFF_DEVICE], next_avail),
					  index(next_avail),
					  minus(index(next_avail), num_added))
		fi;
#else
		kick = need_event(mem[OFF_DEVICE], next_avail,
				  minus(next_avail, num_added));
#endif
#else
		kick = (mem[FLAGS_DEVICE] == ENABLE);
#endif
		num_added = 0;
		spin_unlock();
		if
		:: kick -> store(KICK, 1)
		:: else
		fi;
		kick = false
	}
}

/* The driver: submit */

proctype submit()
{
	bool kick, refused;
	bool last = true;	/* bd->last: no request follows immediately */
	byte cpu = 0;
	byte left = REQUESTS;
	do
	:: atomic {
		/* virtblk_queue_rq() */
		left > 0;
		spin_lock();
		if
		:: num_free > 0 ->
			left--;
			store_avail(next_avail);
			next_avail = next(next_avail);
			num_added++;
			num_free--;
			if
			:: last = true
			/* A list has no more requests than there are tags. */
			:: num_added <= RING -> last = false
			fi
		:: num_free == 0 ->
			/* virtblk_refuse() */
			refused = true;
			last = true
		fi
	   };
		if
		:: last -> kick_and_unlock()
		:: else -> spin_unlock()
		fi;
		/* The queue is stopped until a completion frees descriptors. */
		if
		:: atomic { refused -> refused = false };
			num_free > 0
		:: else
		fi
	/* virtblk_commit_rqs() */
	:: atomic { !last; spin_lock(); last = true };
#ifdef NO_COMMIT
		spin_unlock()
#else
		kick_and_unlock()
#endif
	:: last && in_flight -> !in_flight
	:: left == 0 && last && !in_flight -> break
	od
}

/* The driver: complete */

/* virtqueue_disable_cb() */
inline disable_cb()
{
	if
	:: !cb_disabled && !event_triggered ->
#if defined(EVENT) && !defined(PACKED)
		store(OFF_DRIVER, 0)
#else
		store(FLAGS_DRIVER, DISABLE)
#endif
	:: else
	fi;
	cb_disabled = true
}

/* virtqueue_enable_cb_prepare() */
inline enable_cb_prepare()
{
	event_triggered = false;
#ifdef EVENT
	store(OFF_DRIVER, last_used);
#endif
	if
	:: cb_disabled ->
#if defined(EVENT) && defined(PACKED)
		store(FLAGS_DRIVER, EVENT_INDEX);
#elif !defined(EVENT)
		store(FLAGS_DRIVER, ENABLE);
#endif
		cb_disabled = false
	:: else
	fi
}

/*
 * virtblk_complete_queue(), with virtblk_reap() and virtblk_unmask().  When the budget
 * of a hard interrupt is used up, the work continues; interrupts stay disabled until
 * then.
 */
inline complete_queue()
{
	do
	:: atomic {
		spin_lock();
		disable_cb()
	   };
		/* virtqueue_get_buf() */
		atomic {
			if
			:: in_flight && is_used(last_used) ->
				last_used = next(last_used);
				num_free++;
				armed = !in_flight
			:: else -> armed = true
			fi;
			if
			:: armed -> enable_cb_prepare()
			:: else
			fi
		};
#ifndef NO_RECHECK
		/* virtqueue_enable_cb(): virtqueue_poll() */
		if
		:: armed && in_flight ->
#ifndef NO_MB_POLL
			mb();
#endif
			armed = !is_used(last_used)
		:: else
		fi;
#endif
		atomic {
			spin_unlock();
			if
			:: armed -> armed = false; break
			:: else
#ifdef WORK
			:: !armed && cpu == 1 -> work_queued = true; break
#endif
			fi
		}
	od
}

/* vring_interrupt(), virtblk_interrupt() */
proctype interrupt()
{
	bool armed;
	byte cpu = 1;
end:	do
	:: atomic { mem[IRQ] == 1 -> mem[IRQ] = 0 };
		if
		:: atomic {
			is_used(last_used) ->
#ifdef EVENT
			event_triggered = true
#endif
		   };
			complete_queue()
		:: !is_used(last_used)
		fi
	od
}

#ifdef WORK
proctype work()
{
	bool armed;
	byte cpu = 2;
end:	do
	:: atomic { work_queued -> work_queued = false };
		complete_queue()
	:: atomic { may_time_out && in_flight -> may_time_out = false };
		complete_queue()
	od
}
#endif

/* The device */

byte taken = START;		/* position of the next request to take */
byte used = START;		/* position of the next answer */
byte signalled = START;		/* position at the last decision to interrupt */
bool signalled_valid;
byte pending;			/* taken, not answered */

inline disable_notification()
{
#if defined(PACKED) || !defined(EVENT)
	store(FLAGS_DEVICE, DISABLE)
#else
	skip
#endif
}

inline enable_notification()
{
#ifdef EVENT
	store(OFF_DEVICE, taken);
#ifdef PACKED
	store(FLAGS_DEVICE, EVENT_INDEX)
#endif
#else
	store(FLAGS_DEVICE, ENABLE)
#endif
}

/* Answer one or more requests, and then decide whether to interrupt. */
inline answer()
{
	do
	:: atomic {
		pending > 0 ->
		store_used(used);
		pending--;
		used = next(used);
#ifdef PACKED
		signalled_valid = signalled_valid && index(used) > 0
#endif
	   }
	:: break
	od;
	mb();
#if defined(EVENT) && defined(PACKED)
	/* The flags are read first, and then the index. */
	flags = mem[FLAGS_DRIVER];
	atomic {
		irq = (flags == ENABLE || (flags == EVENT_INDEX &&
			(!signalled_valid ||
			 need_event(event_of(mem[OFF_DRIVER], used), index(used),
				    index(signalled)))));
		flags = 0;
		interrupt_or_not()
	}
#else
	atomic {
#ifdef EVENT
		irq = (!signalled_valid ||
		       need_event(mem[OFF_DRIVER], used, signalled));
#else
		irq = (mem[FLAGS_DRIVER] == ENABLE);
#endif
		interrupt_or_not()
	}
#endif
}

inline interrupt_or_not()
{
	signalled = used;
	signalled_valid = true;
	if
	:: irq -> store(IRQ, 1)
	:: else
	fi;
	irq = false
}

proctype device()
{
	byte flags;
	bool irq, asleep;
	byte cpu = 3;
end:	do
	:: atomic { !asleep && is_avail(taken) -> taken = next(taken); pending++ }
	:: pending > 0 -> answer()
	:: atomic { !asleep && !is_avail(taken) -> enable_notification() };
		mb();
		if
		:: atomic { is_avail(taken) -> disable_notification() }
		:: atomic { !is_avail(taken) -> asleep = true }
		fi
	:: atomic {
		asleep && mem[KICK] == 1 ->
		mem[KICK] = 0;
		asleep = false;
		disable_notification()
	   }
	od
}

init {
	atomic {
		mem[AVAIL] = START;
		mem[USED] = START;
		mem[OFF_DRIVER] = START;
		mem[OFF_DEVICE] = START;
		run memory();
		run submit();
		run interrupt();
#ifdef WORK
		run work();
#endif
		run device()
	}
}
