/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A split ring that the driver runs itself (ring.c): no kick and no interrupt is lost,
 * although vring_interrupt() drops an interrupt when the index of the used ring is what
 * it was when the driver took the ring over.
 *
 * Indexes are modulo SPAN instead of 65536.  The model begins shortly before the index
 * comes round, which is BLIND, with nothing in flight and an interrupt asked for.  Stores
 * pass through buffers as in kick.pml, which explains them.
 *
 *	cpu 0	the submitter: virtblk_queue_rq(), virtblk_commit_rqs()
 *	cpu 1	the interrupt: vring_interrupt(), virtblk_interrupt(); and the timer:
 *		virtblk_guard_poll().  The queue's lock serializes what they do to the ring.
 *	cpu 2	the device
 *
 *	EVENT		VIRTIO_F_EVENT_IDX, else flags
 *
 * Submission and completion have a lock each; the submitter is alone, so its lock is left
 * out.  What must hold: all submitted requests complete.
 *
 * Variants leave out a step; check.py lists them.
 */

#define RING	2
#define SPAN	8
#ifndef REQUESTS
#define REQUESTS 3
#endif

#define plus(a, b)	(((a) + (b)) % SPAN)
#define minus(a, b)	(((a) + SPAN - (b)) % SPAN)
/* vring_need_event() */
#define need_event(event, new, old)	\
	(minus(minus(new, event), 1) < minus(new, old))

/* The index at the takeover. */
#define BLIND	3
#define START	(BLIND - 1)

/* Written by the driver */
#define AVAIL		0	/* avail->idx */
#define USED_EVENT	1
#define FLAGS_DRIVER	2	/* avail->flags */
#define LOCKED		3	/* struct virtblk_queue: lock */
#define KICK		4	/* the doorbell */
/* Written by the device */
#define USED		5	/* used->idx */
#define AVAIL_EVENT	6
#define FLAGS_DEVICE	7	/* used->flags */
#define IRQ		8

#define ENABLE		0
#define DISABLE		1

byte mem[9];
chan buffer[3] = [2] of { byte, byte };

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
	:: drain(2)
	od
}

#define spin_lock()	mem[LOCKED] == 0 -> mem[LOCKED] = 1
#define spin_unlock()	store(LOCKED, 0)

/* struct virtblk_queue; used_idx changes under the lock, whose release is a store. */
byte avail_idx = START, kicked = START;
byte used_idx = START;
/* hrtimer_start() takes locks, so that all CPUs see the timer at once. */
bool timer;

#define in_flight	(minus(avail_idx, used_idx))

/* virtblk_ring_must_kick(), virtqueue_notify() */
inline kick()
{
	atomic {
#ifndef NO_GUARD
		if
		:: minus(avail_idx, BLIND) < minus(avail_idx, kicked) -> timer = true
		:: else
		fi;
#endif
		skip
	};
#ifndef NO_MB_KICK
	mb();
#endif
	atomic {
#ifdef EVENT
		must = need_event(mem[AVAIL_EVENT], avail_idx, kicked);
#else
		must = (mem[FLAGS_DEVICE] == ENABLE);
#endif
		kicked = avail_idx;
		if
		:: must -> store(KICK, 1)
		:: else
		fi;
		must = false
	}
}

proctype submit()
{
	bool must;
	bool last = true;	/* bd->last: no request follows immediately */
	byte cpu = 0;
	byte left = REQUESTS;

	do
	:: atomic {
		/* A request has a tag, so the ring has room. */
		left > 0 && in_flight < RING ->
		left--;
		avail_idx = plus(avail_idx, 1);
		store(AVAIL, avail_idx);
		if
		:: last = true
		:: left > 0 -> last = false
		fi
	   };
		if
		:: last -> kick()
		:: else
		fi
	/* virtblk_commit_rqs() */
	:: atomic { !last -> last = true };
		kick()
	:: last && in_flight -> !in_flight
	:: left == 0 && last && !in_flight -> break
	od
}

/* virtblk_ring_mask() */
inline mask()
{
#ifndef EVENT
	store(FLAGS_DRIVER, DISABLE)
#else
	skip
#endif
}

/*
 * virtblk_complete_queue(), with virtblk_reap_own(), virtblk_ring_unmask() and
 * virtblk_unmask_empty(), which is here a round that finds nothing.
 */
inline complete_queue()
{
	do
	:: atomic {
		spin_lock();
		found = false;
		mask()
	   };
		atomic {
			do
			:: mem[USED] != used_idx ->
				used_idx = plus(used_idx, 1);
				found = true
			:: else -> break
			od;
			/* Nothing in flight, or nothing found. */
			armed = (!found || !in_flight)
		};
		if
		:: armed ->
#ifdef EVENT
			store(USED_EVENT, used_idx);
#else
			store(FLAGS_DRIVER, ENABLE);
#endif
#ifndef NO_MB_POLL
			mb();
#endif
#ifndef NO_RECHECK
			armed = (mem[USED] == used_idx)
#endif
		:: else
		fi;
		atomic {
			spin_unlock();
			if
			:: armed -> armed = false; found = false; break
			:: else
			fi
		}
	od
}

proctype interrupt()
{
	bool armed, found, guarded;
	byte cpu = 1;
end:	do
	:: atomic { mem[IRQ] == 1 -> mem[IRQ] = 0 };
		if
		/* vring_interrupt(): more_used() */
		:: mem[USED] == BLIND
		/* virtblk_interrupt() looks without the lock. */
		:: mem[USED] != BLIND && mem[USED] == used_idx
		:: mem[USED] != BLIND && mem[USED] != used_idx -> complete_queue()
		fi
#ifndef NO_GUARD
	/* virtblk_guard_poll(): the timer expires at any time. */
	:: atomic { timer -> timer = false };
		complete_queue();
#ifndef GUARD_SHORT
		atomic {
			/* virtblk_ring_guarded(): as a signed number */
			spin_lock();
			timer = timer || minus(used_idx, BLIND) >= SPAN / 2;
			spin_unlock()
		}
#endif
#endif
	od
}

/* The device */

byte taken = START;		/* index of the next request to take */
byte used = START;		/* index of the next answer */
byte signalled = START;		/* index at the last decision to interrupt */

/*
 * Answer one or more requests, and then decide whether to interrupt.  The device does not
 * put the decision off while it answers SPAN requests.
 */
inline answer()
{
	do
	:: atomic {
		used != taken ->
		used = plus(used, 1);
		store(USED, used)
	   }
	:: break
	od;
	mb();
	atomic {
#ifdef EVENT
		irq = need_event(mem[USED_EVENT], used, signalled);
#else
		irq = (mem[FLAGS_DRIVER] == ENABLE && used != signalled);
#endif
		signalled = used;
		if
		:: irq -> store(IRQ, 1)
		:: else
		fi;
		irq = false
	}
}

proctype device()
{
	bool irq;
	byte cpu = 2;
end:	do
	:: atomic { mem[KICK] == 1 -> mem[KICK] = 0 };
#ifndef EVENT
		store(FLAGS_DEVICE, DISABLE);
#endif
		do
		:: atomic { mem[AVAIL] != taken -> taken = plus(taken, 1) };
			if
			:: answer()
			:: skip
			fi
		:: mem[AVAIL] == taken ->
			if
			:: used != taken -> answer()
			:: used == taken ->
#ifdef EVENT
				store(AVAIL_EVENT, taken);
#else
				store(FLAGS_DEVICE, ENABLE);
#endif
				mb();
				if
				:: mem[AVAIL] == taken -> break
				:: mem[AVAIL] != taken
				fi
			fi
		od
	od
}

init
{
	atomic {
		mem[AVAIL] = START;
		mem[USED] = START;
		mem[USED_EVENT] = START;
		mem[AVAIL_EVENT] = START;
		run memory();
		run submit();
		run interrupt();
		run device()
	}
}
