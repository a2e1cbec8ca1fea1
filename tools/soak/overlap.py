# SPDX-License-Identifier: GPL-2.0
"""Each pair of events at the same time, under verified I/O.

A guest has two disks: four CPUs share the one queue of the first, and the second has
a queue for each.  For each pair of events (events.py) two loops run on each disk, with
random pauses, until runs of one have overlapped runs of the other often enough on
both disks.  A run counts if its event took effect.

fio verifies its data meanwhile.  If one of the events removes the disk, I/O must fail.
Writers then note which records were acknowledged, and check them when the disk is
back.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from common import full_ring
from host.ui import say
from vm.disk import Disk
from vm.errors import GuestError
from vm.guest import Guest

from . import allocations, events, faults, loads
from .events import PLACE, Event, Loop
from .scenario import Round, Scenario
from .watchdog import Watchdog, hang, ios, watched

_POLL_SECONDS = 0.05
# The limit for a pair to overlap once and for each further time, by the guest's clock.
_PAIR_SECONDS, _TIME_SECONDS = 120, 10
# A pair that has not overlapped often enough by then gets another turn, in so many.
_TURNS = 4
# By then a guest does not remove a disk any more that was just plugged in.
_SETTLE_SECONDS = 3
# Overlaps of each pair in a round, and the number of rounds in which all pairs run.
TIMES = 20
_PARTS = 16
DISKS = ("shared", "spread")

Pair = tuple[Event, Event]


def _disks() -> list[Disk]:
    return [loads.disk("shared", 1), loads.disk("spread", 4, iothreads=1)]


def _prepare(guest: Guest) -> None:
    """Copy the events' files to a guest, and prepare its disks."""
    guest.run(f"mkdir -p {PLACE}; modprobe -qa mq-deadline kyber-iosched bfq; true")
    guest.put(Path(__file__).with_name("events.sh"), f"{PLACE}/events.sh")
    guest.put(full_ring.SCATTER.encode(), f"{PLACE}/scatter")
    loads.install(guest)
    for id in DISKS:
        guest.put(f"{guest.slot(id)}\n".encode(), f"{PLACE}/{id}")
        loads.prepare(guest, id)
    if any(event.faults and event.possible(guest.kernel.release)
           for event in events.EVENTS):
        allocations.aim(guest)


def _ios(guest: Guest, id: str, load: loads.Verified | loads.Records) -> int | None:
    """Return the number of I/Os of a disk; None while its load has ended.

    A load is not started again before the guest has resumed from a suspend.
    """
    return ios(guest, id) if load.running else None


class _Meeting:
    """The loops of a pair of events."""

    def __init__(self, guest: Guest, pair: Pair, round: Round,
                 running: Sequence[loads.Verified | loads.Records]):
        self._guest = guest
        self._pair = pair
        self._loads = running
        self._watchdog = Watchdog(guest)
        for id, load in zip(DISKS, running, strict=True):
            self._watchdog.watch(f"I/O of {id}", partial(_ios, guest, id, load))
        self._loops = {}
        for event, partner in (pair, pair[::-1]):
            for id in DISKS[:1] if event.one else DISKS:
                loop = Loop(guest, event, id, partner, round.random.randrange(1 << 15))
                self._loops[event, id] = loop
                self._watchdog.watch(
                    event.name if event.one else f"{event.name} of {id}",
                    partial(getattr, loop, "lines"), event.seconds)

    def _met(self, id: str) -> int:
        """Return how often the two have overlapped on a disk."""
        first, second = (self._loops[event, DISKS[0] if event.one else id].met
                         for event in self._pair)
        return events.meetings(first, second)

    def met(self) -> int:
        """Return how often they have overlapped on each disk."""
        return min(map(self._met, DISKS))

    def until(self, done: Callable[[], bool], seconds: int = _PAIR_SECONDS) -> None:
        """Attend to loops and loads until done() or the time limit."""
        limit = self._watchdog.clock() + seconds
        while not done() and self._watchdog.clock() < limit:
            self._guest.pump()
            for loop in self._loops.values():
                loop.attend()
            if not self._silent():
                for load in self._loads:
                    load.attend()
            self._watchdog.look()
            time.sleep(_POLL_SECONDS)

    def _silent(self) -> bool:
        """Return whether the guest is suspended, and must not be sent anything."""
        return any(loop.silent for loop in self._loops.values())

    def end(self) -> None:
        """Tell the loops to end, and wait until they have."""
        self.until(lambda: not self._silent())
        self._guest.start(f"touch {PLACE}/stop")
        self.until(lambda: not any(loop.running for loop in self._loops.values()))
        if "unplug" in (event.name for event in self._pair):
            settled = self._watchdog.clock() + _SETTLE_SECONDS
            self.until(lambda: self._watchdog.clock() > settled)
        if late := [f"{event.name} of {id}" for (event, id), loop
                    in self._loops.items() if loop.running]:
            raise hang(self._guest, f"did not end: {', '.join(late)}")

    def missed(self) -> str:
        """Return the number of effective and other runs of each loop, as a text."""
        return ", ".join(f"{event.name} of {id}: {len(loop.met)} runs and "
                         f"{loop.missed} without effect"
                         for (event, id), loop in self._loops.items())


def _swap(guest: Guest, pair: Pair, how: str) -> None:
    """Turn swap on the disks on or off, if an event needs it and the kernel has it."""
    if "memory" in (event.name for event in pair) and guest.kernel.has("CONFIG_SWAP"):
        for id in DISKS:
            swap = f"/dev/{guest.dev(id)}3"
            # With the same priority the kernel uses them in turn.
            guest.run(f"mkswap {swap} && swapon -p 1 {swap}" if how == "on"
                      else f"swapoff {swap}", timeout=300)


def _meet(guest: Guest, pair: Pair, round: Round, times: int,
          running: Sequence[loads.Verified | loads.Records]) -> None:
    """Run a pair until it has overlapped so many times; count how often it did."""
    times -= round.counts[events.title(pair)]
    seconds = _PAIR_SECONDS + _TIME_SECONDS * times
    started = time.monotonic()
    guest.run(f"rm -f {PLACE}/stop")
    _swap(guest, pair, "on")
    meeting = _Meeting(guest, pair, round, running)
    meeting.until(lambda: meeting.met() >= times, seconds)
    meeting.end()
    say(f"  {events.title(pair)} overlapped {meeting.met()} times in "
        f"{time.monotonic() - started:.0f} s"
        + (f": {meeting.missed()}" if meeting.met() < times else ""))
    round.add(events.title(pair), min(meeting.met(), times))
    round.add("pairs overlapped", min(meeting.met(), times))


def _tidy(guest: Guest, pair: Pair, round: Round) -> None:
    """Check the disks and CPUs after a pair, and undo its settings."""
    lines = guest.run(f"bash {PLACE}/events.sh tidy {' '.join(DISKS)}; "
                      "cat /sys/devices/system/cpu/offline").output.splitlines()
    for id, state, same in map(str.split, lines[:len(DISKS)]):
        if state != "live":
            raise GuestError(f"{id} is {state} after {events.title(pair)}; the log:\n"
                             + "\n".join(guest.log().splitlines()[-40:]))
        round.add("samples wrong", int(same != "same"))
    if offline := lines[-1].strip():
        raise GuestError(f"CPUs {offline} are offline after {events.title(pair)}")
    _swap(guest, pair, "off")


def _recoveries(guest: Guest) -> dict[str, int]:
    """Return the numbers of time-outs and lost interrupts of both disks."""
    return {name: sum(faults.counter(guest, id, name) for id in DISKS)
            for name in ("timeouts", "lost_interrupts")}


def _with_disks(guest: Guest, pairs: Iterable[Pair], round: Round,
                times: int) -> None:
    """Run pairs that do not remove the disks."""
    running = [loads.Verified(guest, id, round) for id in DISKS]
    for pair in pairs:
        with watched(guest):
            _meet(guest, pair, round, times, running)
            _tidy(guest, pair, round)
    with watched(guest):
        for load in running:
            load.stop()


def _without_disks(guest: Guest, pairs: Iterable[Pair], round: Round,
                   times: int) -> None:
    """Run pairs of which one event removes the disks."""
    for pair in pairs:
        with watched(guest):
            running = [loads.Records(guest, id, round) for id in DISKS]
            _meet(guest, pair, round, times, running)
            for load in running:
                load.stop()
            _tidy(guest, pair, round)


def sweep(guest: Guest, pairs: list[Pair], round: Round, times: int) -> None:
    """Run each pair until it has overlapped `times` times in the round, in any order.

    Pairs after which no request may have timed out are first.
    """
    pairs = round.random.sample(pairs, len(pairs))
    lasting = [pair for pair in pairs if not any(event.removes for event in pair)]
    plain = [pair for pair in lasting if not any(event.faults for event in pair)]
    if plain:
        before = _recoveries(guest)
        _with_disks(guest, plain, round, times)
        for name, count in _recoveries(guest).items():
            round.add(f"unexpected {name.replace('_', ' ')}", count - before[name])
    if faulty := [pair for pair in lasting if pair not in plain]:
        _with_disks(guest, faulty, round, times)
    _without_disks(guest, [pair for pair in pairs if pair not in lasting], round,
                   times)


def run(round: Round, pairs: list[Pair] | None = None, times: int = TIMES) -> None:
    """Boot a guest and run pairs of events, by default those of the round's part."""
    with Guest(round.kernel, driver=round.driver, disks=_disks(),
               memory=384 if round.kernel.name.endswith("debug") else 256,
               parallel=False) as guest:
        _prepare(guest)
        chosen = pairs or events.pairs(guest.kernel.release, round.part, _PARTS)
        for _ in range(_TURNS):
            if left := [pair for pair in chosen
                        if round.counts[events.title(pair)] < times]:
                sweep(guest, left, round, times)
        round.add("times each pair",
                  min(round.counts[events.title(pair)] for pair in chosen))
        if missed := [pair for pair in chosen
                      if round.counts[events.title(pair)] < times]:
            raise GuestError("overlapped too rarely: " + ", ".join(
                f"{events.title(pair)} {round.counts[events.title(pair)]} times"
                for pair in missed))


OVERLAP = Scenario(
    "overlap", "Each pair of events overlaps, under verified I/O.", run,
    goals={}, each={"times each pair": TIMES}, parts=_PARTS,
    zero=("samples wrong", "sectors of records lost", "unexpected timeouts",
          "unexpected lost interrupts"), more_kernels=("6.12", "6.1"))
