# SPDX-License-Identifier: GPL-2.0
"""Detect a hang of a guest from the host.

Progress is a set of numbers that grow: lines of loops, I/Os that QEMU has done for a
disk.  A number that does not change for a minute of the guest's time is a hang.  The
report names all these numbers, and the blocked tasks.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from vm import sysrq
from vm.errors import CommandTimeout, GuestError, GuestSplat
from vm.guest import Guest

SECONDS = 60

# The requests that blk-mq and the driver hold, and where fio's threads are: a thread that
# waits for a completion with libaio can be killed, so it is not among the blocked tasks.
_REQUESTS = r"""
cd /sys/kernel/debug
grep -HE '^(cpus|irq|ring|free|in_flight|oldest_ms|stopped|interrupts) ' virtio_blk/*/queue*
grep -H . block/vd*/state block/vd*/requeue_list block/vd*/hctx*/state \
    block/vd*/hctx*/dispatch block/vd*/hctx*/busy block/vd*/hctx*/cpu*/*_rq_list |
    head -n 200
grep virtio /proc/interrupts
for task in $(grep -lx fio /proc/[0-9]*/task/*/comm | head -n 20); do
    echo "${task%/comm}: syscall $(cat ${task%/comm}/syscall)"
    cat "${task%/comm}/stack"
done
"""
_REQUESTS_SECONDS = 60


class Hang(GuestError):
    """Something in the guest makes no progress."""


def hang(guest: Guest, what: str) -> Hang:
    """Return an exception that says what hangs, with the blocked tasks and the log."""
    log = guest.log()
    tasks = guest.blocked_tasks()
    requests = _requests(guest)
    return Hang(f"{what}\nblocked tasks, with the functions that they wait in:\n"
                f"{sysrq.summary(tasks)}\nrequests and fio:\n{requests}\n"
                "the log before that:\n"
                + "\n".join(f"    {line}" for line in log.splitlines()[-60:])
                + f"\nblocked tasks:\n{tasks}")


def _requests(guest: Guest) -> str:
    """Return what blk-mq and the driver hold, unless the guest does not answer."""
    for _ in range(2):
        try:
            return guest.run(_REQUESTS, timeout=_REQUESTS_SECONDS, check=False).output
        except GuestSplat:
            # The hung task, maybe: a splat is raised once.
            continue
        except GuestError as error:
            return f"    (not known: {str(error).partition(chr(10))[0]})"
    return "    (not known: the kernel logs errors)"


@contextmanager
def watched(guest: Guest) -> Iterator[None]:
    """Raise Hang for a command that times out, or a hung task."""
    try:
        yield
    except CommandTimeout as error:
        raise hang(guest, str(error)) from error
    except GuestSplat as error:
        if "blocked for more than" in str(error):
            raise hang(guest, str(error)) from error
        raise


def ios(guest: Guest, id: str) -> int | None:
    """Return the number of I/Os that QEMU has done for a disk; None if unplugged."""
    for found in guest.qmp("query-blockstats"):
        if found.get("node-name") == id:
            stats = found["stats"]
            return sum(stats[f"{way}_operations"] for way in ("rd", "wr", "flush"))
    return None


@dataclass
class Watchdog:
    """Watches numbers of one guest.

    seconds: how long a number may stay the same, in the guest's time, unless watch()
    gives another time.
    """
    guest: Guest
    seconds: float = SECONDS
    _numbers: dict[str, Callable[[], int | None]] = field(default_factory=dict)
    _limits: dict[str, float] = field(default_factory=dict)
    _seen: dict[str, tuple[int | None, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.clock = self.guest.clock()

    def watch(self, name: str, number: Callable[[], int | None],
              seconds: float | None = None) -> None:
        """Watch the result of number() from now on; None means that it need not grow."""
        self._numbers[name] = number
        self._limits[name] = seconds or self.seconds
        self._seen[name] = number(), self.clock()

    def forget(self, *names: str) -> None:
        """Stop watching these numbers."""
        for name in names:
            del self._numbers[name], self._seen[name]

    def look(self) -> None:
        """Raise Hang if a number has stayed the same for too long."""
        now = self.clock()
        for name, number in self._numbers.items():
            value = number()
            if value is None or value != self._seen[name][0]:
                self._seen[name] = value, now
        silence = {name: now - since for name, (_, since) in self._seen.items()}
        if any(silence[name] > self._limits[name] for name in silence):
            raise hang(self.guest, "no progress: " + ", ".join(
                f"{name} for {seconds:.0f} s" for name, seconds in silence.items()
                if seconds > self._limits[name] / 2))
