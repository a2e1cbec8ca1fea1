# SPDX-License-Identifier: GPL-2.0
"""Run fio in a guest, and count the interrupts and kicks of its I/O."""

import json
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

from vm.errors import CommandFailed, GuestError
from vm.guest import Guest

from . import queues

# A kick is a call of vp_notify(), which writes to the device's notification register.
# The third pointer in struct virtqueue, after the list head, is the queue's name,
# which is "req.N" for the queues of both virtio-blk drivers.
_TRACING = "/sys/kernel/tracing"
_PROBE = "p:vblk/kick vp_notify name=+0(+24(%di)):string"
_TRIGGER = f"{_TRACING}/events/vblk/kick/trigger"
_HIST = f"{_TRACING}/events/vblk/kick/hist"

JOBS = ("randread", "randwrite")
# Of ratios whose range has 1 in it.
TOO_WIDE = "too wide to conclude"

# What the figures per second are valid for, by accelerator.
WALL_CLOCK = {
    "tcg": "The guest runs under emulation (TCG): figures per second do not apply to "
           "hardware. Only ratios of runs side by side are meaningful.",
    "kvm": "The guest runs under KVM: figures per second depend on this machine and "
           "its load. Ratios of runs side by side vary less.",
}

_GRACE = 120

_Done = TypeVar("_Done")
# Numbers of interrupts, by queue and CPU.
Interrupts = dict[int, dict[int, int]]


# fio

@dataclass(frozen=True)
class Direction:
    """The I/O that fio did in one direction."""
    ios: int
    bytes: int
    iops: int


@dataclass(frozen=True)
class Outcome:
    """The summary of a report of fio's.

    errors: the number of verify errors; said: fio's messages if there are errors.
    read, write, trim: None if fio did no such I/O.
    """
    errors: int
    said: str | None = None
    read: Direction | None = None
    write: Direction | None = None
    trim: Direction | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the outcome for JSON, without what is None."""
        return {name: value for name, value in asdict(self).items()
                if value is not None}


def fio(guest: Guest, seconds: int = 0, **options: Any) -> Outcome:
    """Run fio in a guest as fio_report() does; return the summary of its report."""
    return fio_report(guest, seconds, **options)[1]


def fio_report(guest: Guest, seconds: int = 0,
               **options: Any) -> tuple[dict[str, Any], Outcome]:
    """Run fio in a guest; return its JSON report and the summary of it.

    seconds: the run time, if the options set one; options: fio's.  Jobs are threads.
    Raises CommandFailed if fio did not finish its work.  Verify errors that the
    options tolerate are not a failure.
    """
    words = " ".join(f"--{name}={value}" for name, value in options.items())
    result = guest.run(
        f"fio --name=job --thread --group_reporting --output-format=json "
        f"--output=/run/fio.json {words}; status=$?; "
        "echo; echo @json; cat /run/fio.json; exit $status",
        timeout=seconds + _GRACE, check=False)
    said, _, text = result.output.partition("\n@json\n")
    try:
        report = json.loads(text[text.index("{"):])
        return report, outcome(report, said)
    except (ValueError, LookupError):
        raise CommandFailed(f"status {result.status} from: fio {words}\n"
                            f"{said.strip()}", result) from None


def outcome(report: dict[str, Any], said: str) -> Outcome:
    """Return a summary of fio's report, with fio's messages if there are errors.

    Raises ValueError if an error other than verify errors ended fio.
    """
    (job,) = report["jobs"]
    errors = job.get("total_err", 0)
    if job["error"] and not errors:
        raise ValueError(f"fio ended with error {job['error']}")
    return Outcome(errors, said.strip() if errors else None,
                   read=_direction(job["read"]), write=_direction(job["write"]),
                   trim=_direction(job["trim"]))


def _direction(found: dict[str, Any]) -> Direction | None:
    """Return a direction of a job in fio's report; None if it was not used."""
    if not found["total_ios"]:
        return None
    return Direction(found["total_ios"], found["io_bytes"], round(found["iops"]))


# Interrupts and kicks

def interrupts(guest: Guest, virtio: str) -> Interrupts:
    """Return the number of each queue's interrupts, by queue and CPU."""
    irqs = queues.parse_interrupts(guest.run("cat /proc/interrupts").output)
    return {index: irq.counts
            for index, irq in queues.disk_irqs(irqs, virtio).items()}


class KickCounter:
    """Counts the kicks of virtio-blk queues in a with block.

    read() returns None if the guest's kernel has no kprobe events.
    """

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        self.known = False

    def __enter__(self) -> Self:
        made = self._guest.run(
            f"echo '{_PROBE}' > {_TRACING}/kprobe_events && "
            f"echo 'hist:keys=name' > {_TRIGGER}", check=False)
        self.known = made.status == 0
        return self

    def read(self) -> int | None:
        """Return the number of kicks since the last call."""
        if not self.known:
            return None
        text = self._guest.run(
            f"cat {_HIST}; echo 'hist:keys=name:clear' >> {_TRIGGER}").output
        return sum(int(count) for count in re.findall(
            r"\{ name: req\.\d+\s*\} hitcount:\s*(\d+)", text))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        if self.known and error is None:
            self._guest.run(f"echo '!hist:keys=name' >> {_TRIGGER}; "
                            f"echo '-:vblk/kick' >> {_TRACING}/kprobe_events")


def count_while(guest: Guest, virtio: str, work: Callable[[], _Done],
                kicks: KickCounter | None = None
                ) -> tuple[_Done, Interrupts, int | None]:
    """Call work() and count the interrupts and kicks of a disk such as "virtio2".

    Returns what work() returns, the interrupts by queue and CPU, and the kicks, which
    are None without a KickCounter.
    """
    before = interrupts(guest, virtio)
    if kicks:
        kicks.read()
    done = work()
    kicked = kicks.read() if kicks else None
    after = interrupts(guest, virtio)
    came = {index: {cpu: after[index][cpu] - before[index][cpu]
                    for cpu in after[index]} for index in after}
    return done, came, kicked


# Jobs on both drivers

@dataclass(frozen=True)
class Figures:
    """The figures of a job on a driver; kicks are None if they are not known."""
    iops: int
    interrupts_per_io: float
    kicks_per_io: float | None


@dataclass(frozen=True)
class Sample(Figures):
    """The figures of workload(), and the interrupts by queue and CPU."""
    interrupts: Interrupts


def timed(guest: Guest, name: str, rw: str, seconds: int, cpus: int,
          depth: int = 32) -> Direction:
    """Run one timed job on a disk; return fio's figures.

    name: the disk's, such as "vda".  Each CPU has a job of this depth.
    """
    done = fio(guest, seconds, filename=f"/dev/{name}", rw=rw, bs="4k", direct=1,
               ioengine="libaio", iodepth=depth, numjobs=cpus,
               cpus_allowed=f"0-{cpus - 1}", cpus_allowed_policy="split",
               norandommap=1, time_based=1, runtime=seconds)
    way = done.read if rw == "randread" else done.write
    if way is None or not way.iops:
        raise GuestError(f"fio completed no {rw} on {name} in {seconds} s")
    return way


def workload(guest: Guest, virtio: str, name: str, rw: str, seconds: int, cpus: int,
             kicks: KickCounter | None = None) -> Sample:
    """Run one timed job on a disk; return its figures.

    virtio, name: the disk's, such as "virtio2" and "vda".  kicks: a KickCounter, or
    None.
    """
    way, came, kicked = count_while(
        guest, virtio, lambda: timed(guest, name, rw, seconds, cpus), kicks)
    total = sum(sum(counts.values()) for counts in came.values())
    return Sample(way.iops, total / way.ios,
                  None if kicked is None else kicked / way.ios, came)


@dataclass(frozen=True)
class Side:
    """The figures of a job on one driver: IOPS by round, and medians of the rounds.

    kicks_per_io: of the round that counted kicks; None if not known.
    """
    iops: list[int]
    iops_median: float
    interrupts_per_io: float
    kicks_per_io: float | None


@dataclass(frozen=True)
class Comparison:
    """A job on both drivers: ratios of IOPS, ours to the in-tree driver's, by round.

    median, low, high: of the ratios.
    """
    ratios: list[float]
    median: float
    low: float
    high: float
    ours: Side
    stock: Side


def compare(rounds: Sequence[Mapping[str, Figures]],
            counted: Mapping[str, Figures]) -> Comparison:
    """Compare the two drivers in one job.

    rounds: for each round, the figures of "ours" and of "stock"; counted: those of the
    round that counted kicks.
    """
    ratios = [pair["ours"].iops / pair["stock"].iops for pair in rounds]
    return Comparison(ratios, statistics.median(ratios), min(ratios), max(ratios),
                      *(_side([pair[driver] for pair in rounds], counted[driver])
                        for driver in ("ours", "stock")))


def _side(runs: Sequence[Figures], counted: Figures) -> Side:
    return Side([run.iops for run in runs],
                statistics.median(run.iops for run in runs),
                statistics.median(run.interrupts_per_io for run in runs),
                counted.kicks_per_io)


def conclusion(low: float, high: float) -> str:
    """Return what the range of the rounds' IOPS ratios says of our driver."""
    if low > 1:
        return "faster"
    return "slower" if high < 1 else TOO_WIDE


@dataclass(frozen=True)
class Arrivals:
    """How many queues raised interrupts, and the stray interrupts.

    elsewhere: the number of interrupts on CPUs outside the queue's CPUs.
    """
    queues: int
    elsewhere: int


def where_interrupts_went(disk: queues.DiskQueues,
                          counts: Sequence[Interrupts]) -> Arrivals:
    """Return on which CPUs the interrupts of a disk's queues arrived.

    counts: results of interrupts().
    """
    own: dict[int, int] = {}
    elsewhere = 0
    for queue in disk.queues:
        for by_cpu in (each.get(queue.index, {}) for each in counts):
            for cpu, count in by_cpu.items():
                if cpu in queue.cpus:
                    own[queue.index] = own.get(queue.index, 0) + count
                else:
                    elsewhere += count
    return Arrivals(sum(count > 0 for count in own.values()), elsewhere)
