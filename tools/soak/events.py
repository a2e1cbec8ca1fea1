# SPDX-License-Identifier: GPL-2.0
"""What may happen to a disk at any time, and which of that can happen at once.

Each event is a function of events.sh, which the guest runs in a loop.  The host
does what the loop asks for: presses the power button of a guest that sleeps, gives a
disk another size, unplugs it and plugs it in.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations

from vm.guest import Guest

MIB = 1 << 20
# Where the guest has what it takes.
PLACE = "/run/overlap"
_AGAIN_SECONDS = 5
_PRESS_SECONDS = 1
_PLUG_SECONDS = 0.5


@dataclass(frozen=True)
class Event:
    """Something that may happen to a disk.

    name: in counters, and with an underscore for each blank that of its function.
    faults: it takes the driver's faults, which debug kernels have.
    since: the oldest kernel that has it.
    one: it happens to the guest, so one loop is for all disks.
    removes: the disk is gone meanwhile, and its users have errors.
    """
    name: str
    faults: bool = False
    since: tuple = ()
    one: bool = False
    removes: bool = False

    def possible(self, release: str) -> bool:
        """Tell whether a kernel has it; release: as "6.12" or "7.3.4-debug"."""
        version = tuple(map(int, re.findall(r"\d+", release)[:2]))
        return version >= self.since and (
            not self.faults or release.endswith("-debug"))


EVENTS = (
    Event("reset"),
    Event("confuse", faults=True),
    # Drivers of older kernels are not told of it.
    Event("function reset", since=(6, 14)),
    Event("cpus", one=True),
    Event("suspend", one=True),
    Event("resize"),
    Event("cache type"),
    Event("scheduler"),
    Event("nr requests"),
    Event("unbind", removes=True),
    Event("unplug", removes=True),
    Event("files"),
    Event("timeout", faults=True),
    Event("ring full"),
    Event("allocations", faults=True),
    Event("memory"),
)

_SWAP = ("the swap on a disk goes with the disk, and then the kernel kills those who "
         "had memory there")
# Pairs that cannot meet.  A suspend freezes all loops, but begins at any point of
# what they do, so it has met what it began in.
APART = {
    frozenset(("memory", "unbind")): _SWAP,
    frozenset(("memory", "unplug")): _SWAP,
}

# Events that are named elsewhere, and are none.
NONE = {
    "remap": "queues keep their CPUs and the driver aims the vectors at these: no "
             "work follows vectors that have moved",
}


def pairs(release: str) -> list[tuple[Event, Event]]:
    """Return the pairs of events that can meet on a kernel."""
    return [pair for pair in combinations(EVENTS, 2)
            if all(event.possible(release) for event in pair)
            and frozenset(event.name for event in pair) not in APART]


def title(pair: tuple[Event, Event]) -> str:
    """Return the name of a pair, as counters have it."""
    return " + ".join(event.name for event in pair)


class Loop:
    """The loop of an event, for one disk or for the guest.

    met: the begin and end of each run that did what it is there for, by the guest's
    clock; missed: how many others there were.  lines: how many it has printed, which
    grows as long as it gets on.  silent: the guest goes to sleep or sleeps, and must
    not be told anything.
    """

    def __init__(self, guest: Guest, event: Event, id: str, partner: Event,
                 seed: int):
        self.guest = guest
        self.event = event
        self.id = id
        self.met: list[tuple[float, float]] = []
        self.missed = 0
        self.lines = 0
        self.silent = False
        self._begin = 0.0
        self._asked: Iterator[None] = iter(())
        self._job = guest.start(
            f"exec bash {PLACE}/events.sh loop {event.name.replace(' ', '_')} "
            f"{id} {partner.name.replace(' ', '_')} {seed}", timeout=None)

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._job.running

    def attend(self) -> None:
        """Read what it has printed, and do some of what it has asked for."""
        lines = self._job.output.split("\n")[:-1]
        for line in lines[self.lines:]:
            self._take(*line.split())
        self.lines = len(lines)
        next(self._asked, None)

    def _take(self, kind: str, *words: str) -> None:
        if kind == "begin":
            self._begin = float(words[0])
            return
        if kind == "ask":
            self._asked = HOST[words[0]](self, *words[1:])
            return
        self.silent = False
        if words[1] == "0":
            self.met.append((self._begin, float(words[0])))
        else:
            self.missed += 1


# What the host does for a loop, some of it at each step

def _resize(loop: Loop, mib: str) -> Iterator[None]:
    loop.guest.resize_disk(loop.id, int(mib) * MIB)
    yield


def _unplug(loop: Loop) -> Iterator[None]:
    """Unplug a disk, asking until the guest lets go of it, and plug it in again.

    A guest that is still busy with the old device may let go of the new one as well,
    so this has no end.
    """
    clock = loop.guest.clock()
    asked = -_AGAIN_SECONDS
    while not loop.guest.wait_event("DEVICE_DELETED", 0, device=loop.id):
        if clock() > asked + _AGAIN_SECONDS:
            loop.guest.request_unplug(loop.id)
            asked = clock()
        yield
    while True:
        gone = clock()
        while clock() < gone + _PLUG_SECONDS:
            yield
        loop.guest.plug_again(loop.id)
        while not loop.guest.wait_event("DEVICE_DELETED", 0, device=loop.id):
            yield


def _suspend(loop: Loop) -> Iterator[None]:
    """Let the guest sleep, and press the power button until it has woken up."""
    start = loop.guest.log_size()
    loop.guest.start(f"touch {PLACE}/sleep")
    loop.silent = True
    clock = loop.guest.clock()
    pressed = None
    while True:
        said = loop.guest.log_since(start)
        if said.count("PM: suspend entry") == said.count("PM: suspend exit"):
            pressed = None
        elif pressed is None:
            pressed = clock()
        elif clock() > pressed + _PRESS_SECONDS:
            loop.guest.qmp("system_powerdown")
            pressed = clock()
        yield


HOST: dict[str, Callable[..., Iterator[None]]] = {
    "resize": _resize, "unplug": _unplug, "suspend": _suspend}


def meetings(first: list[tuple[float, float]],
             second: list[tuple[float, float]]) -> int:
    """Return how many runs of the first overlap one of the second, in pairs."""
    count = i = j = 0
    while i < len(first) and j < len(second):
        if first[i][0] < second[j][1] and second[j][0] < first[i][1]:
            count += 1
            i += 1
            j += 1
        elif first[i][1] < second[j][1]:
            i += 1
        else:
            j += 1
    return count
