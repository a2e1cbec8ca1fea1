# SPDX-License-Identifier: GPL-2.0
"""Two events that happen to a disk at once; `make soak` has all pairs, more often."""

import dataclasses
import os
from functools import partial
from itertools import combinations

import pytest

from soak import events, overlap
from soak.scenario import Round
from soak.watchdog import Hang, Watchdog
from vm import sysrq
from vm.errors import GuestError

# `make soak` has each pair 20 times.
TIMES = 2 if os.environ.get("FULL") else 1
EVENTS = {event.name: event for event in events.EVENTS}

# For each kernel pairs that have hung, or may hang, because the block layer, CPU hotplug
# or suspend wait for requests that the driver holds back.
DANGEROUS = {
    "7.3-debug": ("function reset + cpus", "reset + unbind"),
    "6.12": ("reset + cpus", "reset + scheduler", "reset + suspend", "resize + unplug"),
}


def pairs(names):
    """Return the pairs of events that texts like "reset + cpus" name."""
    return [tuple(EVENTS[name] for name in text.split(" + ")) for text in names]


@pytest.mark.kernels("6.12", "7.3-debug")
def test_overlap(kernel):
    """Two events at once do not hang, and corrupt no data."""
    chosen = pairs(DANGEROUS[kernel.name if kernel.name in DANGEROUS else "6.12"])
    scenario = dataclasses.replace(overlap.OVERLAP,
                                   run=partial(overlap.run, pairs=chosen, times=TIMES))
    counts = Round(scenario, kernel).play()
    assert counts["times each pair"] == TIMES
    assert counts["verified I/Os"] > 200
    assert counts["sectors of records checked"] > 0


# Without a guest

@pytest.mark.parametrize("release, hang", (
    ("6.1", {frozenset(("scheduler", "memory"))}),
    ("6.13", {frozenset(("scheduler", "memory"))}),
    ("6.14", set()), ("7.3-debug", set())),
    ids=("on 6.1", "on 6.13", "on 6.14", "on 7.3-debug"))
def test_each_pair_meets_or_has_a_reason(release, hang):
    """All pairs of events that are possible on a kernel run, except APART and HANG."""
    possible = [event for event in events.EVENTS if event.possible(release)]
    played = {frozenset(event.name for event in pair)
              for pair in events.pairs(release)}
    every = {frozenset(event.name for event in pair)
             for pair in combinations(possible, 2)}
    assert every - played == {pair for pair in events.APART if pair in every} | hang
    assert all(pair <= set(EVENTS) for pair in (*events.APART, *events.HANG))


def test_parts_keep_their_pairs(monkeypatch):
    """A pair that hangs on a kernel leaves its place in a part of `make soak` empty."""
    def parts():
        return [events.pairs("6.12", part, 16) for part in range(16)]

    less = parts()
    monkeypatch.setattr(events, "HANG", {})
    every = parts()
    missing = [[pair for pair in full if pair not in left]
               for full, left in zip(every, less, strict=True)]
    assert [events.title(pair) for part in missing for pair in part] == [
        "scheduler + memory"]
    assert all(pair in full for full, left in zip(every, less, strict=True)
               for pair in left)


def test_events_that_kernels_have():
    """Faults need a debug kernel, function resets a virtio core that reports them."""
    def names(release):
        return {event.name for event in events.EVENTS if event.possible(release)}

    faults = {"confuse", "timeout", "allocations"}
    assert names("6.1") == names("6.12.117+deb12-cloud-amd64") == \
        set(EVENTS) - faults - {"function reset"}
    assert names("7.3.4-debug") == names("7.3.4-gcov") == set(EVENTS)
    assert names("7.3.4") == set(EVENTS) - faults


@pytest.mark.parametrize("first, second, count", (
    ([(0, 1)], [(1, 2)], 0),
    ([(0, 2)], [(1, 3)], 1),
    ([(0, 9)], [(1, 2), (3, 4)], 1),
    ([(0, 2), (3, 5), (6, 8)], [(1, 4), (4.5, 7)], 2),
    ([(0, 1), (4, 5)], [(2, 3), (4, 9)], 1),
    ([], [(0, 1)], 0)))
def test_meetings(first, second, count):
    """A run of one event pairs with at most one overlapping run of the other."""
    assert events.meetings(first, second) == count
    assert events.meetings(second, first) == count


BLOCKED = """\
[   55.088743] sysrq: Show Blocked State
[   55.132749] task:kworker/u16:0   state:D stack:0     pid:12    tgid:12    ppid:2
[   55.133424] Workqueue: virtio_blk virtblk_recover_work [virtio_blk]
[   55.133633] Call Trace:
[   55.133858]  <TASK>
[   55.134174]  __schedule+0x4e0/0xbf0
[   55.140432]  schedule+0x27/0xc0
[   55.141335]  percpu_rwsem_wait+0x11f/0x140
[   55.141336]  ? __pfx_percpu_rwsem_wake_function+0x10/0x10
[   55.141736]  cpus_read_lock+0x4f/0x60
[   55.142065]  virtblk_find_vqs+0x120/0x1d0 [virtio_blk]
[   55.164200]  </TASK>
[   55.164447] task:cpuhp/2         state:D stack:0     pid:31    tgid:31    ppid:2
[   55.165838] Call Trace:
[   55.168282]  msleep+0x2b/0x40
[   55.168283]  blk_mq_hctx_notify_offline+0x12b/0x1e0
"""


class StuckGuest:
    """A guest whose clock advances, but which does nothing."""

    def __init__(self):
        self.seconds = 0

    def clock(self):
        return lambda: self.seconds

    def log(self):
        return "the last line\n"

    def blocked_tasks(self):
        return BLOCKED

    def run(self, command, timeout, check):
        raise GuestError(f"timed out after {timeout} s")


def test_summary_of_blocked_tasks():
    """The summary lists each blocked task: name, work and waiting functions."""
    assert sysrq.summary(BLOCKED).splitlines() == [
        "    kworker/u16:0 12 (virtblk_recover_work): percpu_rwsem_wait < "
        "cpus_read_lock < virtblk_find_vqs",
        "    cpuhp/2 31: blk_mq_hctx_notify_offline"]
    assert sysrq.summary("") == "    (no task is blocked)"


def test_watchdog_tells_who_waits():
    """A counter without progress is a hang; the report lists the blocked tasks."""
    guest = StuckGuest()
    watchdog = Watchdog(guest, seconds=60)
    watchdog.watch("lines", lambda: guest.seconds)
    watchdog.watch("I/O", lambda: min(guest.seconds, 10))
    for guest.seconds in range(70):
        watchdog.look()
    guest.seconds = 71
    with pytest.raises(Hang, match=r"(?s)no progress: I/O for 61 s\n.*cpuhp/2 31: "
                                   r"blk_mq_hctx.*the last line.*Show Blocked"):
        watchdog.look()
    watchdog.forget("I/O")
    watchdog.look()


def test_watchdog_waits_for_no_load_that_has_ended():
    """A counter that is None is no hang; the time counts from when it is a number."""
    guest = StuckGuest()
    watchdog = Watchdog(guest, seconds=60)
    watchdog.watch("I/O", lambda: None if 10 <= guest.seconds < 100 else 1)
    for guest.seconds in range(161):
        watchdog.look()
    guest.seconds = 161
    with pytest.raises(Hang, match="no progress: I/O for 61 s"):
        watchdog.look()
