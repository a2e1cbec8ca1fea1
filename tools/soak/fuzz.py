# SPDX-License-Identifier: GPL-2.0
"""Hostile devices: `vblksim fuzz` in a guest, see vblksim.1.

`make fuzz SECONDS=600` runs rounds for 600 seconds.  SEED= repeats the round of that
seed.  KERNEL= selects another kernel than 7.3-debug.
"""

import contextlib
import errno
import json
import math
import os
import re
import time
from collections import Counter

from common import fio, vblksim
from common.fio import FioError
from common.vblksim import Sim
from host import deps, process, ui
from host.ui import UserError, say
from vm import kernels
from vm.errors import GuestError
from vm.guest import Guest
from vm.kernels import Kernel

from . import leaks
from .scenario import NotZero, Round, Scenario, listed

# Each configuration has its own seed; the first is the round's seed times this.
_SEEDS = 1_000_000
_BATCH = 75
_JOBS = 3
# Limits for one configuration and for a batch; one host CPU emulates all CPUs.
_LIMIT_SECONDS = 90
_BATCH_SECONDS = 600
_FIO_SECONDS = 12
_DEVICES = 4
# On PCI the end of a probe is seen only by the disk.  A device that never answers makes
# the probe last five times io_timeout.
_PROBE_SECONDS = 10
# fio prints a line for each error that it does not ignore.
_ERRORS = ":".join(str(error) for error in (
    errno.EIO, errno.ENXIO, errno.ENOMEM, errno.ENODEV, errno.EINVAL, errno.ENOSPC,
    errno.EOPNOTSUPP, errno.EREMOTEIO, errno.ETIMEDOUT, errno.ENODATA, errno.EILSEQ,
    errno.EOVERFLOW, errno.ETOOMANYREFS))
# Lines that the driver may log for one device, from its probe to its removal.
MOST_LINES = 200
# Short values, so that devices that do not answer are reset and fail soon.
PARAMETERS = {"io_timeout": 1, "reset_after": 2, "reset_attempts": 1}

_LINE = re.compile(r"virtio_blk (virtio\d+): ")
_END = re.compile(r"vblksim: (\S+) was seed (\d+)")


class Flood(Exception):
    """A device made the driver fill the log."""


class Hostile(Exception):
    """A configuration did not end, or vblksim itself failed."""


def prepare(guest: Guest, front: str = vblksim.VDUSE) -> None:
    """Prepare a guest for hostile devices with a front of vblksim's."""
    vblksim.prepare(guest, front)
    guest.run("echo on > /proc/sys/kernel/printk_devkmsg")
    # Hostile devices cause I/O errors, which are no splat.
    guest.tolerate("I/O error, dev vd|Buffer I/O error")
    for name, value in PARAMETERS.items():
        guest.run(f"echo {value} > /sys/module/virtio_blk/parameters/{name}")


def lines_per_device(log: str) -> list[tuple[int, int]]:
    """Return (lines, seed) for each device that a log has from probe to removal."""
    lines: dict[str, int] = {}
    found = []
    for line in log.splitlines():
        if match := _LINE.search(line):
            lines[match[1]] = lines.get(match[1], 0) + 1
        elif match := _END.search(line):
            found.append((lines.pop(match[1], 0), int(match[2])))
    return found


def _check_flood(log: str) -> None:
    for lines, seed in lines_per_device(log):
        if lines > MOST_LINES:
            raise Flood(f"the driver logged {lines} lines on the device of seed "
                        f"{seed}, more than {MOST_LINES}")


def run_fuzzer(guest: Guest, command: str, seconds: int, error: type[Exception],
               note: str = "") -> tuple[str, str]:
    """Run a fuzzer in a guest; return its output, and what the kernel logged meanwhile.

    seconds: its time limit; error: what to raise if it fails; note: what the message
    says besides.
    """
    start = len(guest.log())
    result = guest.run(command, seconds, check=False)
    if result.status:
        # The log then shows where tasks hang.
        guest.run("echo w > /proc/sysrq-trigger; sleep 2", check=False)
        raise error(f"{command} ended with status {result.status}{note}; its output:\n"
                    f"{result.output[-4000:]}\nThe kernel's log:\n"
                    f"{guest.log()[start:][-12000:]}")
    guest.check_log()
    return result.output, guest.log()[start:]


def campaign(guest: Guest, seed: int, configurations: int,
             load: int = 300) -> dict[str, int]:
    """Probe, use and remove hostile devices; return vblksim's counts.

    seed: of the first device; each further one has the next seed.  load: the time of
    use of each, in milliseconds.
    """
    output, log = run_fuzzer(
        guest, f"/run/vblksim fuzz --seed={seed} --configurations={configurations} "
        f"--jobs={_JOBS} --load={load} --limit={_LIMIT_SECONDS}", _BATCH_SECONDS, Hostile)
    _check_flood(log)
    return json.loads(output[output.rindex('{"configurations"'):])


def _attached_disk(guest: Guest, sim: Sim) -> str | None:
    """Return the name of a device's disk, or None if the driver refused the device."""
    if vblksim.front_of(guest) == vblksim.VHOST_USER:
        return process.wait_for(sim.find_disk, _PROBE_SECONDS)
    if not process.wait_for(lambda: "on the vDPA bus" in sim.output
                            or not sim.running, _LIMIT_SECONDS):
        raise Hostile(f"the probe of {sim.name} has not ended within "
                      f"{_LIMIT_SECONDS} s:\n{sim.output}")
    return sim.find_disk()


def under_fio(guest: Guest, seed: int,
              seconds: int = _FIO_SECONDS) -> list[vblksim.Report]:
    """Run fio on devices with the most mutations; return their reports.

    seconds: how long fio runs.

    Most replies of a round come from here, because probing takes long.  Devices are
    slow, so there are several at a time, and requests come in batches.
    """
    with contextlib.ExitStack() as stack:
        sims = [stack.enter_context(Sim(guest, f"long{number}", ours=False,
                                        fuzz=seed + number, mutate=256))
                for number in range(_DEVICES)]
        disks = [_attached_disk(guest, sim) for sim in sims]
        paths = [f"/dev/{disk}" for disk in disks if disk]
        # fio may fail: a disk may be too small.
        with contextlib.suppress(FioError):
            if paths:
                fio.run(guest, paths, timeout=seconds + 60, rw="randrw",
                        bssplit="4k/90:64k/10", size="8m", iodepth=64,
                        iodepth_batch_submit=32, iodepth_batch_complete_min=16,
                        fsync=500, continue_on_error="all", error_dump=0,
                        ignore_error=f"{_ERRORS},{_ERRORS}", time_based=1,
                        runtime=seconds)
        reports = [sim.stop(check=False) for sim in sims]
    return reports


def run(round: Round) -> None:
    """Run a round: boot a guest, and probe hostile devices until the goals."""
    seed = round.seed * _SEEDS
    with Guest(round.kernel, driver=round.driver, parallel=False,
               cmdline="kmemleak=on") as guest:
        prepare(guest)
        polled = round.random.randrange(2)
        guest.run(f"echo {polled} > /sys/module/virtio_blk/parameters/poll_queues")
        while round.wants("configurations") or round.wants("mutated replies"):
            if round.wants("mutated replies"):
                for report in under_fio(guest, seed):
                    round.add("configurations")
                    round.add("replies", report["requests"])
                    round.add("mutated replies", report["mutated"])
            counts = campaign(guest, seed + _DEVICES, _BATCH)
            seed += _DEVICES + _BATCH
            for name in ("configurations", "disks", "replies"):
                round.add(name, counts[name])
            round.add("mutated replies", counts["mutated"])
            say(f"  {listed(round.counts)}")
        leaks.look(round, guest)


SCENARIO = Scenario(
    "fuzz", "hostile devices: mutated configurations and mutated replies",
    run, goals={"configurations": 20_000, "mutated replies": 1_000_000},
    each={"configurations": 300, "mutated replies": 15_000}, zero=("leaks",))


class TimedRound(Round):
    """A round that ends at a given time, but not before the first of its goals counts."""

    def __init__(self, scenario: Scenario, kernel: Kernel, seed: int, until: float):
        """until: the end, in seconds of the monotonic clock."""
        super().__init__(scenario, kernel, seed=seed)
        self._until = until

    def wants(self, name: str) -> bool:
        first = next(iter(self.scenario.goals))
        if self.counts[first] and time.monotonic() >= self._until:
            return False
        return super().wants(name)


def play_rounds(scenario: Scenario, target: str,
                errors: tuple[type[Exception], ...]) -> Counter[str] | None:
    """Run rounds for SECONDS; with SEED only the round of that seed, completely.

    target: make's; errors: what a round may raise besides errors of the guest.  Returns
    the sums of all counters, or None after a round that has failed.
    """
    driver = os.environ.get("DRIVER") or "ours"
    if driver not in scenario.drivers:
        raise UserError(f"DRIVER is {driver!r}; make {target} tests only this driver, so "
                        "unset DRIVER")
    seconds = ui.number("SECONDS", 600)
    seed = ui.number("SEED")
    kernel = kernels.find(os.environ.get("KERNEL") or scenario.kernel)
    deps.need("build", "vm")
    until = math.inf if seed else time.monotonic() + seconds
    number = seed or int(time.time())
    sums: Counter[str] = Counter()
    failures: tuple[type[Exception], ...] = (GuestError, NotZero, *errors)
    while True:
        say(f"{target}: round with seed {number}, {kernel.name}")
        try:
            sums.update(TimedRound(scenario, kernel, number, until).play())
        except failures as error:
            say(f"{type(error).__name__}: {error}\n"
                + "\n".join(getattr(error, "__notes__", ())))
            say(f"FAIL; again: make {target} SEED={number} KERNEL={kernel.name}")
            return None
        number += 1
        if seed or time.monotonic() >= until:
            return sums


def rates(sums: Counter[str], names: tuple[str, str], seconds: float) -> str:
    """Return how many of two things there were, and how many a second."""
    first, second = (sums[name] for name in names)
    return (f"{first:,} {names[0]} and {second:,} {names[1]} in {seconds:.0f} s, "
            f"{first / seconds:.2f} and {second / seconds:.1f} a second,")


def main() -> int:
    """Run rounds of hostile devices; return 0 if all have passed."""
    started = time.monotonic()
    sums = play_rounds(SCENARIO, "fuzz", (Flood, Hostile))
    if sums is None:
        return 1
    done = rates(sums, ("configurations", "mutated replies"), time.monotonic() - started)
    say(f"PASS: {done} without a splat, a hang or a flood of messages")
    return 0


if __name__ == "__main__":
    ui.main(main)
