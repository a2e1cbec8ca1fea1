# SPDX-License-Identifier: GPL-2.0
"""Measure IOPS, latency and CPU time over depths and over jobs, by the clock.

The in-tree driver, our driver and NVMe run in one guest in turns: 4 KiB random reads
by one job at depths 1 to 128, and by 1, 2, 4... jobs at depth 32 with one queue and
with one per vCPU, as the first patches for several queues were measured.  Under KVM the
figures are absolute.  Under emulation only their ratios to the in-tree driver's in the
same round mean anything.

fio's own reports are kept in build/bench/fio.
"""

import json
import os
import re
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from host import repository
from host.ui import UserError
from vm import kernels, qemu, qemu_dist
from vm.disk import GIB, Disk
from vm.errors import GuestError
from vm.guest import Guest

from . import wallclock
from .devices import by_serial

KERNEL = "6.12"
# Figures per second mean something on a host with KVM and so many CPUs.
CPUS_NEEDED = 4
DEVICES = ("stock", "ours", "nvme")
DEPTHS, QUICK_DEPTHS = (1, 2, 4, 8, 16, 32, 64, 128), (1, 8, 128)
# The depth of each of several jobs.
JOBS_DEPTH = 32
ROUNDS, QUICK_ROUNDS = 5, 2
SECONDS, QUICK_SECONDS = 3, 1
RAMP = 1

# fio's names of the percentiles, and ours.
PERCENTILES = {"p50_us": "50.000000", "p99_us": "99.000000", "p999_us": "99.900000"}
# Estimates of the time to swap the drivers and to start fio.
_SWAP_SECONDS = 2
_FIO_SECONDS = 2
# Ticks per second in /proc/stat.
_TICKS = 100


@dataclass(frozen=True)
class Point:
    """What a sample measures.

    sweep: "depth" or "jobs", the quantity that varies; queues: of the device; depth:
    of each job; jobs: in parallel, each on its own CPU.
    """
    sweep: str
    queues: int
    depth: int
    jobs: int

    @property
    def x(self) -> int:
        """The value of the quantity that varies."""
        return self.depth if self.sweep == "depth" else self.jobs


@dataclass(frozen=True)
class Sample:
    """One run of fio.

    p50_us, p99_us, p999_us: percentiles of the latency from submission to completion.
    cpu_us: the time per I/O in which the guest's CPUs were busy.
    """
    iops: float
    p50_us: float
    p99_us: float
    p999_us: float
    cpu_us: float


@dataclass(frozen=True)
class Series:
    """The samples of a device at a point, by round."""
    device: str
    point: Point
    samples: list[Sample]

    def of(self, figure: str) -> list[float]:
        """Return a figure of each round, by the name of Sample's field."""
        return [getattr(sample, figure) for sample in self.samples]


@dataclass(frozen=True)
class Record:
    """All that was measured in one boot.

    kernel, qemu, accelerator, commit: the software.  cpus: the guest's.  host_load: the
    host's load average of the last five minutes, which includes QEMU.  seconds, ramp:
    the time measured of each sample, and before it.
    """
    kernel: str
    qemu: str
    accelerator: str
    commit: str | None
    cpus: int
    host_cpus: int
    host_load: float
    rounds: int
    seconds: int
    ramp: int
    series: list[Series] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return the record for JSON."""
        return asdict(self)

    @classmethod
    def read(cls, facts: dict[str, Any]) -> Self:
        """Return the record that as_dict() has made."""
        values: dict[str, Any] = facts | {"series": [
            Series(row["device"], Point(**row["point"]),
                   [Sample(**sample) for sample in row["samples"]])
            for row in facts["series"]]}
        return cls(**values)

    @property
    def absolute(self) -> bool:
        """Whether figures per second mean something, and not only ratios."""
        return self.accelerator == "kvm" and self.host_cpus >= CPUS_NEEDED

    def find(self, device: str, point: Point) -> Series:
        """Return the samples of a device at a point."""
        (found,) = [series for series in self.series
                    if (series.device, series.point) == (device, point)]
        return found

    def points(self, sweep: str, queues: int | None = None) -> list[Point]:
        """Return the points of a sweep, of any number of queues or of this one."""
        return [point for point in dict.fromkeys(
                    series.point for series in self.series)
                if point.sweep == sweep and queues in (None, point.queues)]


@dataclass(frozen=True)
class Spread:
    """The median of the rounds, the lowest and the highest."""
    median: float
    low: float
    high: float


def spread(figures: Sequence[float]) -> Spread:
    """Return the spread of figures."""
    return Spread(statistics.median(figures), min(figures), max(figures))


def ratios(record: Record, device: str, point: Point, figure: str) -> Spread:
    """Return the spread of a device's figure divided by the in-tree driver's.

    Each ratio is of two runs of one round.
    """
    own, stock = (record.find(name, point).of(figure) for name in (device, "stock"))
    return spread([ours / theirs for ours, theirs in zip(own, stock, strict=True)])


# Measuring

def host_cpus() -> int:
    """Return the number of the host's CPUs that this process may use."""
    return len(os.sched_getaffinity(0))


def job_counts(cpus: int) -> list[int]:
    """Return 1, 2, 4... up to the number of CPUs, which is the last."""
    counts = [1]
    while counts[-1] < cpus:
        counts.append(min(2 * counts[-1], cpus))
    return counts


def plan(cpus: int, quick: bool) -> list[Point]:
    """Return the points to measure, those with the same number of queues together."""
    numbers = [1, cpus] if quick else job_counts(cpus)
    jobs = [Point("jobs", queues, JOBS_DEPTH, count)
            for queues in (1, cpus) for count in numbers]
    return jobs + [Point("depth", cpus, depth, 1)
                   for depth in (QUICK_DEPTHS if quick else DEPTHS)]


def turns(points: Sequence[Point], number: int) -> Iterator[tuple[Point, str]]:
    """Yield (point, device) pairs in the order of the round with that number.

    All devices run at a point one after the other.  The order of the two drivers
    changes with each point, which saves a swap, and with each round.
    """
    for place, point in enumerate(points):
        drivers = ["stock", "ours"][::-1 if (number + place) % 2 else 1]
        yield from ((point, device) for device in ("nvme", *drivers))


def measure(kernel: str | kernels.Kernel = KERNEL, *, cpus: int | None = None,
            rounds: int | None = None, seconds: int | None = None, ramp: int = RAMP,
            quick: bool = False) -> Record:
    """Measure all points in one boot.

    kernel: the same as of vm.guest.Guest.  cpus: the guest's number of CPUs, by default
    the host's, at least 2; the virtio disk has as many queues, each with its own QEMU
    thread.  seconds: the duration of each sample, after a ramp.  quick: fewer points,
    rounds and seconds.
    """
    kernel = kernel if isinstance(kernel, kernels.Kernel) else kernels.find(kernel)
    cpus = max(2, host_cpus()) if cpus is None else cpus
    if rounds is None:
        rounds = QUICK_ROUNDS if quick else ROUNDS
    if seconds is None:
        seconds = QUICK_SECONDS if quick else SECONDS
    _check(kernel, cpus, rounds, seconds)
    points = plan(cpus, quick)
    samples: dict[tuple[str, Point], list[Sample]] = {}
    with Guest(kernel, cpus=cpus, disks=[Disk("null", queues=cpus, iothreads=cpus)],
               qemu_args=_nvme(cpus)) as guest:
        guess = len(points) * (_SWAP_SECONDS
                               + len(DEVICES) * (seconds + ramp + _FIO_SECONDS))
        for number in wallclock.rounds_of(rounds, guess):
            for key, sample in _one_round(guest, points, number, seconds, ramp):
                samples.setdefault(key, []).append(sample)
        load = round(os.getloadavg()[1], 1)
    return Record(
        kernel=kernel.release,
        qemu=".".join(map(str, qemu_dist.version(qemu_dist.find()))),
        accelerator=qemu.accelerator(), commit=repository.commit(), cpus=cpus,
        host_cpus=host_cpus(), host_load=load, rounds=rounds, seconds=seconds, ramp=ramp,
        series=[Series(device, point, samples[device, point])
                for point in points for device in DEVICES])


def _check(kernel: kernels.Kernel, cpus: int, rounds: int, seconds: int) -> None:
    wallclock.need_modules(kernel)
    if not 2 <= cpus <= max(2, host_cpus()):
        raise UserError(f"--cpus is {cpus}; it must be from 2 to the host's number of "
                        f"CPUs, {host_cpus()}")
    if rounds < 1 or seconds < 1:
        raise UserError(f"--rounds is {rounds} and --seconds is {seconds}; each must "
                        "be at least 1")


def _nvme(cpus: int) -> list[str]:
    """Return QEMU's options for NVMe devices of one queue and of `cpus`."""
    options = []
    for queues in (1, cpus):
        options += ["-blockdev", json.dumps({"driver": "null-co", "size": GIB,
                                             "node-name": f"nvme-queues{queues}"}),
                    "-device", f"nvme,drive=nvme-queues{queues},"
                               f"serial=nvme-queues{queues},max_ioqpairs={queues}"]
    return options


def _one_round(guest: Guest, points: Sequence[Point], number: int, seconds: int,
               ramp: int) -> Iterator[tuple[tuple[str, Point], Sample]]:
    """Run fio at each point on each device; yield the samples by device and point."""
    loaded = None
    for point, device in turns(points, number):
        if device == "nvme":
            path = by_serial(guest, f"nvme-queues{point.queues}")
        else:
            if loaded != (device, point.queues):
                name = wallclock.load(guest, device, point.queues)
                loaded = device, point.queues
            path = f"/dev/{name}"
        keep = wallclock.FIO / (f"{point.sweep}-{device}-queues{point.queues}-"
                                f"depth{point.depth}-jobs{point.jobs}-"
                                f"round{number + 1}.json")
        yield (device, point), _sample(guest, path, point, seconds, ramp, keep)


def _sample(guest: Guest, path: str, point: Point, seconds: int, ramp: int,
            keep: Path) -> Sample:
    """Run fio on a disk at a point, and keep its report."""
    # Read the times of the CPUs in the middle half of the run, without fio's start.
    # The shell reads both files itself: on busy CPUs a new process takes long to start.
    snapshot = ("read -r cpus < /proc/stat; read -r uptime < /proc/uptime; "
                "printf '%s\\n' \"$cpus\" \"$uptime\"")
    watch = guest.start(f"sleep {ramp + seconds / 4}; {snapshot}; "
                        f"sleep {seconds / 2}; {snapshot}", timeout=120)
    said = wallclock.fio_report(
        guest, path, {"rw": "randread", "bs": "4k", "ioengine": "libaio",
                      "iodepth": point.depth, "direct": 1, "norandommap": 1},
        point.jobs, seconds, ramp)
    wallclock.keep_report(keep, said)
    return summary(said, busy(watch.wait().output))


def busy(text: str) -> float:
    """Return how many CPUs were busy between two readings of their times.

    text: the first lines of /proc/stat and of /proc/uptime, twice.  Time that the
    hypervisor took (steal) is not busy.  Raises GuestError if the readings are not as
    expected.
    """
    found = re.findall(r"^cpu +((?:\d+ ?)+)\n([\d.]+) ", text, re.MULTILINE)
    if len(found) != 2:
        raise GuestError(f"cannot read the times of the guest's CPUs from {text!r}")
    times = []
    for ticks, uptime in found:
        user, nice, system, _idle, _iowait, irq, softirq, *_ = map(int, ticks.split())
        times.append(((user + nice + system + irq + softirq) / _TICKS, float(uptime)))
    (before, first), (after, last) = times
    if last <= first:
        raise GuestError("the guest's clock did not move between two readings: "
                         f"{text!r}")
    return (after - before) / (last - first)


def summary(said: dict[str, Any], cpus: float) -> Sample:
    """Return the sample of fio's JSON report of a job that reads.

    cpus: how many CPUs were busy.  Raises GuestError if fio completed no I/O.
    """
    way = said["jobs"][0]["read"]
    if not way["total_ios"] or not way["iops"]:
        raise GuestError("fio completed no read; see its report in build/bench/fio")
    percentiles = way["clat_ns"]["percentile"]
    return Sample(iops=way["iops"], cpu_us=cpus / way["iops"] * 1e6,
                  **{name: percentiles[key] / 1000
                     for name, key in PERCENTILES.items()})
