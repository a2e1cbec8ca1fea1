# SPDX-License-Identifier: GPL-2.0
"""What `make run-host` finds out: its tables, its drawing and its checks."""

import statistics
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from common.measure import WALL_CLOCK
from common.queues import format_cpus
from common.vdpa import Worker
from host.page import text_table

from .verdict import Check, check


# What is run

@dataclass(frozen=True)
class Job:
    """A job of fio's on each CPU, with requests of 4 KiB."""
    rw: str
    depth: int

    @property
    def title(self) -> str:
        """Its name in a table."""
        return f"{self.rw.replace('rand', 'random ')}, depth {self.depth}"


@dataclass(frozen=True)
class Plan:
    """The size of a run.

    kernel: its name.  cpus: of the guest.  queues, ring_size, workers: of the device,
    worker_cpus: the CPUs of its workers.  mib: what each job writes and verifies.
    rounds: how often each job runs on each device, for some seconds; 0 is never.
    """
    kernel: str = "6.12"
    cpus: int = 4
    queues: int = 4
    ring_size: int = 256
    workers: int = 2
    worker_cpus: tuple[int, ...] = (1, 3)
    depth: int = 32
    mib: int = 16
    rounds: int = 5
    seconds: int = 1
    jobs: tuple[Job, ...] = (Job("randread", 32), Job("randwrite", 32),
                             Job("randread", 1))


# What is found

@dataclass(frozen=True)
class Modules:
    """Where each driver's module is from: "out of tree" or "in tree"."""
    virtio_blk: str
    vdpa_blk: str


@dataclass(frozen=True)
class Ends:
    """A virtqueue, as its driver and its device describe it.

    cpus: those that submit to it.  vector: of the driver's interrupt; None if the
    device calls the driver.  sent, taken: reads and writes that the driver sent, and
    that the device took off the ring.  interrupts: as the driver counts them.
    batches: how often the worker found requests.  failed: requests that failed or were
    not supported, and broken chains.
    """
    index: int
    cpus: list[int]
    vector: int | None
    ring: int
    sent: int
    kicks: int
    interrupts: int
    worker: int
    taken: int
    batches: int
    failed: int
    in_flight: int

    @property
    def per_batch(self) -> float:
        """Requests per batch."""
        return self.taken / self.batches if self.batches else 0.0


@dataclass(frozen=True)
class Device:
    """The device of the verified I/O, when the I/O is over: both ends of its queues."""
    name: str
    disk: str
    backing: str
    queues: list[Ends]
    workers: list[Worker]


@dataclass(frozen=True)
class Verified:
    """Bytes that fio has read and compared, and the blocks with other content."""
    bytes: int
    errors: int


@dataclass(frozen=True)
class Ratio:
    """The median of the rounds, the lowest and the highest."""
    median: float
    low: float
    high: float

    @property
    def span(self) -> str:
        """The range as text."""
        return f"{self.low:.2f} to {self.high:.2f}"


@dataclass(frozen=True)
class Series:
    """The IOPS of a job in each round, by device."""
    job: Job
    iops: dict[str, list[int]]

    def ratio(self, device: str, other: str) -> Ratio:
        """Return the IOPS of a device divided by those of another, round by round."""
        ratios = [mine / its for mine, its in
                  zip(self.iops[device], self.iops[other], strict=True)]
        return Ratio(statistics.median(ratios), min(ratios), max(ratios))


# The names of the compared devices.  Each is compared with the first.
BACKING, VDPA_BLK, VDUSE, SIMULATOR = (
    "null_blk", "vdpa_blk", "vduse and qemu-storage-daemon", "vdpa_sim_blk")


@dataclass(frozen=True)
class Comparison:
    """Devices by the clock.

    disks: their disks; drivers: what drives these.  missing: why devices are left out.
    """
    disks: dict[str, str]
    drivers: dict[str, str]
    series: list[Series]
    missing: list[str]


@dataclass
class Run:
    """All that a run has found; None and empty texts are what it has not reached.

    left: the devices that are there when all have been deleted, and the modules that
    stay.
    """
    plan: Plan
    release: str = ""
    accelerator: str = ""
    modules: Modules | None = None
    device: Device | None = None
    written: Verified | None = None
    reread: Verified | None = None
    comparison: Comparison | None = None
    left: str | None = None
    kernel_log: str | None = None
    error: str | None = None
    seconds: float = 0


# Tables

def _interrupt(queue: Ends) -> str:
    return "callback" if queue.vector is None else f"vector {queue.vector}"


def _worker(device: Device, queue: Ends) -> Worker | None:
    return next((worker for worker in device.workers
                 if worker.index == queue.worker), None)


def _worker_cpu(device: Device, queue: Ends) -> str:
    worker = _worker(device, queue)
    return "-" if worker is None else str(worker.cpu)


def queue_table(device: Device) -> str:
    """Return the queues of the device, with what both ends have counted."""
    header = ["queue", "CPUs", "worker", "its CPU", "interrupt", "requests", "batches",
              "per batch", "kicks", "interrupts"]
    rows = [[str(queue.index), format_cpus(queue.cpus), str(queue.worker),
             _worker_cpu(device, queue), _interrupt(queue), str(queue.taken),
             str(queue.batches), f"{queue.per_batch:.1f}", str(queue.kicks),
             str(queue.interrupts)] for queue in device.queues]
    words = ("CPUs submit to the queue; the worker's CPU is where its thread ran last. "
             "A device of vDPA that is software has no vectors: it calls the driver. A "
             "batch is what a worker finds when it serves a queue.")
    return (f"\n{device.name}: {device.disk} of virtio_blk, on {device.backing}\n"
            f"{text_table(header, rows)}\n\n{_filled(words)}\n")


def comparison_table(plan: Plan, found: Comparison) -> str:
    """Return the IOPS of the devices side by side, as ratios."""
    header = ["job", "device", "IOPS", f"/ {BACKING}", "range", "vdpa_blk / it",
              "range"]
    rows = [row for series in found.series for row in _series_rows(series)]
    words = [f"4 KiB, {plan.cpus} jobs on a CPU each, {plan.queues} queues. Each round "
             f"runs a job on one device after the other, {plan.seconds} s each. Ratios "
             f"are of a round; shown are the medians of {plan.rounds} rounds, and the "
             "range from the lowest to the highest."]
    return "\n".join(["\nspeed in the same boot", text_table(header, rows), "",
                      *map(_filled, words + found.missing), ""])


def _series_rows(series: Series) -> list[list[str]]:
    rows = []
    for device, iops in series.iops.items():
        share, times, span, times_span = "-", "-", "-", "-"
        if device != BACKING:
            ratio = series.ratio(device, BACKING)
            share, span = f"{ratio.median:.2f}", ratio.span
        if device not in (BACKING, VDPA_BLK):
            ratio = series.ratio(VDPA_BLK, device)
            times, times_span = f"{ratio.median:.2f}", ratio.span
        rows.append([series.job.title, device, f"{statistics.median(iops):.0f}",
                     share, span, times, times_span])
    return rows


def clock_words(accelerator: str) -> str:
    """Return what the figures by the clock are valid for."""
    return f"\n{_filled(WALL_CLOCK[accelerator])}\n"


def _filled(text: str) -> str:
    return textwrap.fill(text, 78, initial_indent="  ", subsequent_indent="  ")


# The drawing

_LABEL = 14
_COLUMN = 12


def drawing(plan: Plan, device: Device) -> str:
    """Return a picture of both halves and what went through their queues."""
    queues = device.queues
    inside = _LABEL + _COLUMN * len(queues) + 2

    def line(label: str, cells: Sequence[str], edge: str = "|") -> str:
        text = label.ljust(_LABEL) + "".join(cell.center(_COLUMN) for cell in cells)
        return f"  {edge}{text.ljust(inside)}{edge}".rstrip()

    def row(label: str, find: Callable[[Ends], object]) -> str:
        return line(f"   {label}", [str(find(queue)) for queue in queues])

    def border(mark: str) -> str:
        cells = "".join(mark.center(_COLUMN, "-") for _ in queues)
        return f"  +{('-' * _LABEL + cells).ljust(inside, '-')}+"

    def middle(text: str) -> str:
        return ("   " + text.center(inside)).rstrip()

    return "\n".join([
        "",
        line("", [f"CPU {format_cpus(queue.cpus)}" for queue in queues], " "),
        line(" fio", ["|   ^"] * len(queues), " "),
        border("v---|"),
        line(f" virtio_blk: the guest's half, disk {device.disk}", []),
        row("requests", lambda queue: queue.sent),
        row("kicks", lambda queue: queue.kicks),
        row("interrupts", lambda queue: queue.interrupts),
        border("|---^"),
        line(" virtqueue", [f"| {queue.index} |" for queue in queues], " "),
        line(f" of {queues[0].ring if queues else 0}", ["|   |"] * len(queues), " "),
        border("v---|"),
        line(f" vdpa_blk: the host's half, device {device.name}", []),
        row("worker", lambda queue: queue.worker),
        row("its CPU", lambda queue: _worker_cpu(device, queue)),
        row("requests", lambda queue: queue.taken),
        row("batches", lambda queue: queue.batches),
        row("per batch", lambda queue: f"{queue.per_batch:.1f}"),
        f"  +{'|   ^'.center(inside, '-')}+",
        middle("v   |"),
        middle(f"{device.backing}: a block device of this kernel"),
        "",
        _filled(f"fio: {plan.cpus} jobs of depth {plan.depth} wrote {plan.mib} MiB "
                "each in blocks of 4 KiB, and verified them."),
        "",
    ])


# Checks

def checks(run: Run) -> list[Check]:
    """Return the checks that must all pass; none is about speed, see run.verdict."""
    plan = run.plan
    total = plan.cpus * plan.mib
    served = [index % plan.workers for index in range(plan.queues)]
    return [
        check("module of the guest's half", "out of tree", run.modules,
              lambda modules: modules.virtio_blk),
        check("module of the host's half", "out of tree", run.modules,
              lambda modules: modules.vdpa_blk),
        check("queues of the disk", plan.queues, run.device,
              lambda device: len(device.queues)),
        check("queues that carried requests", plan.queues, run.device,
              lambda device: sum(queue.taken > 0 for queue in device.queues)),
        check("queues whose two ends count the same requests", plan.queues, run.device,
              lambda device: sum(queue.sent == queue.taken
                                 for queue in device.queues)),
        check("workers of the queues", _listed(served), run.device,
              lambda device: _listed(queue.worker for queue in device.queues)),
        check("CPUs of the workers", _listed(plan.worker_cpus), run.device,
              lambda device: _listed(worker.cpu for worker in device.workers)),
        check("requests that failed", 0, run.device,
              lambda device: sum(queue.failed for queue in device.queues)),
        check("requests still in flight", 0, run.device,
              lambda device: sum(queue.in_flight for queue in device.queues)),
        check("MiB written and verified through both halves", total, run.written,
              lambda found: found.bytes >> 20),
        check("MiB verified again on the backing device", total, run.reread,
              lambda found: found.bytes >> 20),
        check("verify errors, both halves", 0, run.written,
              lambda found: found.errors),
        check("verify errors, backing device", 0, run.reread,
              lambda found: found.errors),
        # Without rounds no disks are compared.
        *([check("driver of the compared disks", "virtio_blk", run.comparison,
                 lambda found: _listed(sorted(set(found.drivers.values()))))]
          if plan.rounds else []),
        check("devices and modules left at the end", "none", run.left,
              lambda left: left),
        check("the kernel's log", "no complaint", run.kernel_log, lambda log: log),
    ]


def _listed(values: Iterable[object]) -> str:
    return ", ".join(map(str, values))
