# SPDX-License-Identifier: GPL-2.0
"""Events that may happen to a disk at any time, and the pairs that can overlap.

Each event is a function of events.sh, which the guest runs in a loop.  The host
does what the loop asks for: it presses the power button of a suspended guest, resizes
a disk, unplugs it and plugs it in.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations

from vm.guest import Guest
from vm.kernels import version_of

from .watchdog import SECONDS

MIB = 1 << 20
# The guest's directory for the events' files.
PLACE = "/run/overlap"
_AGAIN_SECONDS = 5
_PRESS_SECONDS = 1
_PLUG_SECONDS = 0.5


@dataclass(frozen=True)
class Event:
    """An event that may happen to a disk.

    name: its name in counters; with an underscore for each blank, its function.
    faults: it needs the driver's fault injection, which debug kernels have.
    since: the oldest kernel that has it.
    one: it happens to the guest, so there is one loop for all disks.
    removes: the disk is gone meanwhile, and its users have errors.
    seconds: how long a run may show no progress, in the guest's time, before it hangs.
    """
    name: str
    faults: bool = False
    since: tuple[int, ...] = ()
    one: bool = False
    removes: bool = False
    seconds: float = SECONDS

    def possible(self, release: str) -> bool:
        """Return whether a kernel has it; release: such as "6.12" or "7.3.4-debug"."""
        return version_of(release) >= self.since and (
            not self.faults or release.endswith(("-debug", "-gcov")))


EVENTS = (
    Event("reset"),
    Event("confuse", faults=True),
    # Older kernels do not report it to the driver.
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
    # On 7.3-debug the pages of all processes come back one by one, from disks that the
    # other event stops again and again.
    Event("memory", one=True, seconds=4 * SECONDS),
)

_SWAP = ("the swap on a disk disappears with the disk, and then the kernel kills the "
         "processes that have memory there")
# Pairs that cannot overlap.  A suspend freezes all loops, but it begins at any point
# of their runs, so it overlaps the run that it freezes.
APART = {
    frozenset(("memory", "unbind")): _SWAP,
    frozenset(("memory", "unplug")): _SWAP,
}
# Pairs that hang with any driver, on kernels before a version.
HANG = {
    # To switch the scheduler, the block layer freezes the queue and allocates memory.
    # Then the kernel writes pages to the swap on the disk, whose queue is frozen.
    frozenset(("scheduler", "memory")): (6, 14),
}


def pairs(release: str, part: int = 0, parts: int = 1) -> list[tuple[Event, Event]]:
    """Return the pairs of events that can overlap on a kernel, or a part of them.

    A pair that hangs leaves its place empty, so that parts on record keep their pairs.
    """
    met = [pair for pair in combinations(EVENTS, 2)
           if all(event.possible(release) for event in pair)
           and frozenset(event.name for event in pair) not in APART]
    return [pair for pair in met[part::parts]
            if version_of(release) >= HANG.get(frozenset(event.name for event in pair), ())]


def title(pair: tuple[Event, Event]) -> str:
    """Return the name of a pair's counter."""
    return " + ".join(event.name for event in pair)


class Loop:
    """The loop of an event, for one disk or for the guest.

    met: begin and end of each effective run, by the guest's clock; missed: the number
    of other runs.  lines: the number of printed lines, which grows as long as the loop
    makes progress.  silent: the guest suspends or is suspended, and the host must not
    send it anything.
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
        """Whether the loop runs."""
        return self._job.running

    def attend(self) -> None:
        """Read its output, and do the next step of what it asked for."""
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


# What the host does for a loop: generators, one step at a time

def _resize(loop: Loop, mib: str) -> Iterator[None]:
    loop.guest.resize_disk(loop.id, int(mib) * MIB)
    yield


def _unplug(loop: Loop) -> Iterator[None]:
    """Unplug a disk, asking until the guest has removed it, and plug it in again.

    A guest that is still busy with the old device may remove the new one as well, so
    this generator does not end.
    """
    clock = loop.guest.clock()
    asked: float = -_AGAIN_SECONDS
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
    """Let the guest suspend, and press the power button until it has resumed."""
    start = loop.guest.log_size()
    loop.guest.start(f"touch {PLACE}/sleep")
    loop.silent = True
    clock = loop.guest.clock()
    pressed = None
    while True:
        log = loop.guest.log_since(start)
        if log.count("PM: suspend entry") == log.count("PM: suspend exit"):
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
    """Return the number of pairs of runs that overlap; a run is in one pair at most."""
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
