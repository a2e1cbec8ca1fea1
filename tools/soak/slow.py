# SPDX-License-Identifier: GPL-2.0
"""Slow but healthy devices: all operations must wait for them.

A device completes 1, 10, 100 or 1000 requests a second, or none for half a minute, or
one of its queues takes three seconds for each.  Meanwhile the disk is removed with
dirty pages in memory, the guest suspends, and the device is reset, resized, flushed
and probed.  No request may fail that the device would have completed.

- The rates are limits of a disk of QEMU's (throttle.py).
- For a stall the test stops the server of a vhost-user disk, and continues it half a
  minute later.  QEMU itself cannot stall: it completes all throttled requests of all
  disks when any device is reset.  A vhost-user disk cannot be resized.
- The slow queue is vblksim's, a process in the guest.  It is frozen while the guest
  is suspended, so there is no suspend with it.
"""

import contextlib
import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from common import fio, throttle, vblksim
from common.dirty import PAGE, Pages
from common.vblksim import Sim
from host import process
from vm.disk import Disk
from vm.errors import GuestError
from vm.guest import Guest

from .events import MIB
from .scenario import Round, Scenario
from .watchdog import watched

_SIZE_MIB = 64
_QUEUES = 4
_STALL_SECONDS = 30
_DELAY_MS = 3000
# By then all users of the device wait for it.
_ARM_SECONDS = 2
_LOAD_SECONDS = 8
# The limit for an operation on a busy host: far longer than the device takes.
_LIMIT = 400
_DRIVER = "/sys/bus/virtio/drivers/virtio_blk"
# Pages are written from here on, every other one, so that each is a request.
_PAGES_MIB = 16


@dataclass(frozen=True)
class Pace:
    """How slow a device is.

    iops: requests that it completes in a second; 0: it is slow in another way.
    pages: dirty pages at its removal, which then takes some 10 seconds or more.
    """
    name: str
    iops: int
    pages: int


RATES = (Pace("1 a second", 1, 10), Pace("10 a second", 10, 100),
         Pace("100 a second", 100, 2048), Pace("1000 a second", 1000, 2048))
STALLED = Pace("stalled", 0, 2048)
ONE_QUEUE = Pace("one slow queue", 0, 20)


class Slow(ABC):
    """A disk whose device can be made slow."""

    def __init__(self, guest: Guest):
        self.guest = guest

    @property
    @abstractmethod
    def name(self) -> str:
        """Its name in the guest, as "vda"."""

    @abstractmethod
    def slow_down(self, pace: Pace) -> None:
        """Make the device slow."""

    @abstractmethod
    def speed_up(self) -> None:
        """Make the device fast again."""

    @abstractmethod
    def resize(self, mib: int) -> None:
        """Resize the device."""

    @property
    def device(self) -> str:
        """The virtio device, as "virtio2"."""
        return self.guest.run("basename $(readlink -f /sys/block/"
                              f"{self.name}/device)").output.strip()


class Throttled(Slow):
    """A disk of QEMU's with a limited rate."""

    def __init__(self, guest: Guest, id: str):
        super().__init__(guest)
        self._id = id

    @property
    def name(self) -> str:
        return self.guest.dev(self._id)

    def slow_down(self, pace: Pace) -> None:
        throttle.limit(self.guest, self._id, iops=pace.iops)

    def speed_up(self) -> None:
        throttle.limit(self.guest, self._id)

    def resize(self, mib: int) -> None:
        self.guest.resize_disk(self._id, mib * MIB)


class Stopped(Slow):
    """A disk whose vhost-user server is stopped for a while."""

    def __init__(self, guest: Guest, id: str):
        super().__init__(guest)
        self._id = id
        self._timer: threading.Timer | None = None

    @property
    def name(self) -> str:
        return self.guest.dev(self._id)

    def slow_down(self, pace: Pace) -> None:
        disk = self.guest.disks[self._id]
        disk.stop_server()
        self._timer = threading.Timer(_STALL_SECONDS, disk.continue_server)
        self._timer.start()

    def speed_up(self) -> None:
        if self._timer:
            self._timer.cancel()
        self.guest.disks[self._id].continue_server()

    def resize(self, mib: int) -> None:
        raise NotImplementedError("a vhost-user disk has the size of its file")


class Simulated(Slow):
    """A disk of vblksim's with a slow queue."""

    def __init__(self, guest: Guest, sim: Sim):
        super().__init__(guest)
        self._sim = sim

    @property
    def name(self) -> str:
        return self._sim.disk()

    def slow_down(self, pace: Pace) -> None:
        self._sim.ctl(f"script 'on queue=0: delay {_DELAY_MS}ms'")

    def speed_up(self) -> None:
        self._sim.ctl("script clear")

    def resize(self, mib: int) -> None:
        self._sim.ctl(f"resize {mib}M")


# Operations on a slow disk

@contextlib.contextmanager
def _load(disk: Slow, pace: Pace, round: Round) -> Iterator[None]:
    """Run I/O of all CPUs on the slow disk while the block runs; none may fail.

    fio's tasks sleep while they wait for the device, so that they can be frozen.
    """
    run = fio.start(disk.guest, f"/dev/{disk.name}", timeout=_LIMIT, rw="randrw",
                    bs=PAGE, numjobs=4, iodepth=2, size="256k",
                    offset_increment="1m", verify="crc32c", time_based=1,
                    runtime=_LOAD_SECONDS, cpus_allowed="0-3",
                    cpus_allowed_policy="split", **fio.FREEZABLE)
    run.wait_for_io(disk.name, 20)
    disk.slow_down(pace)
    disk.guest.run(f"sleep {_ARM_SECONDS}")
    yield
    disk.speed_up()
    try:
        round.add("verified I/Os", fio.ios(run.wait()))
    except fio.FioError:
        round.add("I/O errors")
        raise


def _run_slow(disk: Slow, pace: Pace, script: str) -> None:
    """Run a script whose I/O waits for the device, on the CPU of the first queue."""
    disk.slow_down(pace)
    disk.guest.run(f"taskset -cp 0 $$ > /dev/null; {script}", _LIMIT)
    disk.speed_up()


def _remove(disk: Slow, pace: Pace, round: Round) -> None:
    """Remove a disk with dirty pages; all of them must reach the device."""
    guest, device = disk.guest, disk.device
    pages = Pages(pace.pages, _PAGES_MIB * MIB, 2 * PAGE,
                  round.random.randrange(1 << 30))
    guest.run(f"echo 0 > /sys/block/{disk.name}/queue/wbt_lat_usec; true")
    job = pages.write(guest, disk.name)
    _run_slow(disk, pace, f"echo {device} > {_DRIVER}/unbind")
    job.kill()
    guest.run(f"echo {device} > {_DRIVER}/bind", timeout=120)
    round.add("pages", pace.pages)
    round.add("pages lost", pages.count_missing(guest, disk.name))


def _probe(disk: Slow, pace: Pace, _round: Round) -> None:
    """Probe a disk, which reads its partition table."""
    device = disk.device
    disk.guest.run(f"echo {device} > {_DRIVER}/unbind", timeout=120)
    _run_slow(disk, pace, f"echo {device} > {_DRIVER}/bind")


def _flush(disk: Slow, pace: Pace, _round: Round) -> None:
    """Write pages and wait until they are flushed."""
    _run_slow(disk, pace, "for n in 0 2 4 6 8; do "
              f"dd if=/dev/urandom of=/dev/{disk.name} bs={PAGE} count=1 "
              f"seek=$(({48 * MIB // PAGE} + n)) conv=notrunc,fsync status=none "
              "|| exit; done")


def _reset(disk: Slow, pace: Pace, round: Round) -> None:
    """Reset the device as the administrator."""
    with _load(disk, pace, round):
        disk.guest.run(f"echo 1 > /sys/block/{disk.name}/recovery/reset", _LIMIT)


def _reset_function(disk: Slow, pace: Pace, round: Round) -> None:
    """Reset the PCI function."""
    with _load(disk, pace, round):
        disk.guest.run(f"echo 1 > $(readlink -f /sys/block/{disk.name}/device/..)"
                       "/reset", _LIMIT)


def _suspend(disk: Slow, pace: Pace, round: Round) -> None:
    """Suspend the guest."""
    with _load(disk, pace, round):
        disk.guest.suspend(limit=_LIMIT)


def _resize(disk: Slow, pace: Pace, round: Round) -> None:
    """Grow the disk, and shrink it again."""
    size = f"/sys/block/{disk.name}/size"
    with _load(disk, pace, round):
        for mib in (_SIZE_MIB + 8, _SIZE_MIB):
            disk.resize(mib)
            if not process.wait_for(
                    lambda: int(disk.guest.sysfs(size)) == mib * 2048, _LIMIT):
                raise GuestError(f"the disk was resized to {mib} MiB and still has "
                                 f"{disk.guest.sysfs(size)} sectors after {_LIMIT} s")


OPERATIONS: dict[str, Callable[[Slow, Pace, Round], None]] = {
    "removal": _remove, "probe": _probe, "flush": _flush, "reset": _reset,
    "function reset": _reset_function, "suspend": _suspend, "resize": _resize}


def operations(release: str) -> list[str]:
    """Return the names of the operations that a kernel supports."""
    version = tuple(map(int, re.findall(r"\d+", release)[:2]))
    return [name for name in OPERATIONS
            if name != "function reset" or version >= (6, 14)]


# The scenario

def _do(disk: Slow, pace: Pace, name: str, round: Round) -> None:
    """Run an operation on a slow disk, and check disk and log afterwards."""
    guest = disk.guest
    start = guest.log_size()
    with watched(guest):
        OPERATIONS[name](disk, pace, round)
        if not process.wait_for(lambda: guest.sysfs(
                f"/sys/block/{disk.name}/state") == "live", 60):
            raise GuestError(f"the disk is not live after {name}, {pace.name}; the "
                             f"log:\n{guest.log_since(start)[-3000:]}")
    errors = re.findall(r"I/O error,? (?:on )?dev vd", guest.log_since(start))
    round.add("I/O errors", len(errors))
    round.add("operations")
    round.add(f"{name}, {pace.name}")
    if round.counts["I/O errors"] or round.counts["pages lost"]:
        raise GuestError(f"after {name}, {pace.name}: {round.counts['I/O errors']} "
                         f"I/O errors, {round.counts['pages lost']} pages lost; the "
                         f"log:\n{guest.log_since(start)[-3000:]}")


def play(round: Round, cases: list[tuple[Pace, str]],
         slow: Callable[[Guest, str], Slow], disk: Disk) -> None:
    """Run operations on a disk at several paces, in a random order.

    slow(guest, id): returns the Slow for the disk.
    """
    with Guest(round.kernel, driver=round.driver, disks=[disk], memory=512,
               parallel=False) as guest:
        for pace, name in round.random.sample(cases, len(cases)):
            _do(slow(guest, disk.id), pace, name, round)


def throttled(round: Round, names: list[str],
              rates: tuple[Pace, ...] = RATES) -> None:
    """Run operations on a throttled disk at several rates."""
    play(round, [(pace, name) for pace in rates for name in names], Throttled,
         Disk("slow", "ram", _SIZE_MIB * MIB, queues=_QUEUES))


def stalled(round: Round, names: list[str]) -> None:
    """Run operations on a disk that stalls."""
    play(round, [(STALLED, name) for name in names if name != "resize"], Stopped,
         Disk("slow", "vhost-user", _SIZE_MIB * MIB, queues=_QUEUES))


def one_queue(round: Round, names: list[str]) -> None:
    """Run operations on a disk with one slow queue."""
    names = [name for name in names if name not in ("suspend", "function reset")]
    with Guest(round.kernel, driver=round.driver, memory=512,
               parallel=False) as guest:
        vblksim.prepare(guest)
        # The driver notifies a silent device again, in case a notification was lost.
        with Sim(guest, "slow", ours=round.driver == "ours", queues=_QUEUES,
                 capacity=f"{_SIZE_MIB}M", tolerate="KICK_UNWANTED") as sim:
            slow = Simulated(guest, sim)
            for name in round.random.sample(names, len(names)):
                _do(slow, ONE_QUEUE, name, round)


def run(round: Round) -> None:
    """Run each operation at each pace once."""
    names = operations(round.kernel.release)
    while round.wants("turns"):
        throttled(round, names)
        stalled(round, names)
        if round.kernel.has("CONFIG_VDPA_USER"):
            one_queue(round, names)
        round.add("turns")


SLOW = Scenario(
    "slow", "Slow devices are removed, reset and resized without an error.", run,
    goals={"turns": 5}, each={"turns": 1}, zero=("I/O errors", "pages lost"),
    more_kernels=("6.12", "6.1"))
