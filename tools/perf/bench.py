# SPDX-License-Identifier: GPL-2.0
"""make bench: compare our driver with the in-tree driver, NVMe and virtio-scsi.

It counts instructions for all jobs and devices, and for several numbers of queues,
and measures IOPS, latency and CPU time over depths and jobs.  Without QUICK it also
counts on the other kernels and through vdpa_blk and its alternatives, and measures
wall-clock ratios, large guests and, with KVM, workers of the host's vdpa_blk.  It
writes bench.json, bench.html and plots to build/bench, see perf.charts, and fio's own
reports of the samples by the clock to build/bench/fio.  bench.json is written after
each part, so an error loses no figures.
"""

import json
import os
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

from host import cache, deps, repository, ui
from host.ui import UserError, say, step
from vm import kernels, qemu, qemu_dist
from vm.errors import GuestError
from vm.kernels import Kernel

from . import charts, goals, jobs, layers, scale, sweep, wallclock, workers
from . import host as perf_host
from .counting import Cost, CountingGuest
from .goals import Facts, Row

_TOP = Path(__file__).resolve().parents[2]
_OUT = _TOP / "build/bench"
_NEEDED_MIB = 64

# With the large ring our driver uses direct descriptors.  The usual ring is QEMU's
# default size.
LARGE_RING = 1024
USUAL_RING = 256

QUICK_JOBS = ("randread-4k-qd32", "randread-4k-qd32-uring",
              "randread-4k-qd32-burst")
QUEUES, QUICK_QUEUES = (1, 8, 16, 64), (1, 16)
IOS, QUICK_IOS = 16384, 4096
OTHER_KERNELS = ("6.1", "7.3-perf")
QUEUES_JOB = "randread-4k-qd32"

# The functions that find and start stopped queues.
_RESTARTING = ("blk_mq_start_stopped_hw_queues", "blk_mq_start_stopped_hw_queue",
               "xa_find", "xa_find_after", "xas_find")


class Progress:
    """Counts the measurements done, and estimates the time left."""

    def __init__(self, count: int):
        self._count = count
        self._done = 0
        self._started = time.monotonic()

    def step(self, text: str) -> AbstractContextManager[None]:
        """Return a context manager that prints the next measurement."""
        left = ""
        if self._done:
            each = (time.monotonic() - self._started) / self._done
            left = f", about {each * (self._count - self._done) / 60:.0f} min left"
        self._done += 1
        return step(f"[{self._done}/{self._count}{left}] {text}")


def _row(cost: Cost, **about: Any) -> Row:
    """Return a Cost as a row of the facts."""
    found = layers.sums(cost.functions)
    return {**about, **cost.as_dict(),
            "layers": {name: round(count, 2) for name, count in found.items()},
            "device_layers": round(layers.device(cost.functions), 2),
            "restarting": abs(round(_restarting(cost), 1))}


def _restarting(cost: Cost) -> float:
    """Return the instructions that find and start stopped queues, per interrupt."""
    count = sum(cost.functions.get((name, "vmlinux"), (0, 0))[0]
                for name in _RESTARTING)
    return count / cost.interrupts if cost.interrupts > 0.01 else 0


def count_jobs(rows: list[Row], kernel: Kernel, names: Iterable[str],
               devices: Iterable[str], ios: int, progress: Progress,
               ring: int = LARGE_RING) -> None:
    """Count all jobs on all devices in one guest; append a row for each."""
    with CountingGuest(kernel, properties={"queue_size": ring}) as counting:
        for device in devices:
            for name in names:
                job = jobs.find(name)
                with progress.step(f"{device}, {job.title}, ring of {ring}, "
                                   f"Linux {kernel.name}"):
                    cost = counting.measure(device, job, ios)
                rows.append(_row(cost, kernel_name=kernel.name, device=device,
                                 job=name, ring=ring))


def count_queues(rows: list[Row], kernel: Kernel, counts: Iterable[int], ios: int,
                 progress: Progress) -> None:
    """Count an I/O for each number of queues; append a row for each driver."""
    for count in counts:
        with CountingGuest(kernel, queues=count,
                           properties={"queue_size": LARGE_RING}) as counting:
            for device in ("ours", "stock"):
                with progress.step(f"{device}, queues: {count}"):
                    name = counting.path(device).removeprefix("/dev/")
                    found = counting.guest.run(f"ls /sys/block/{name}/mq | wc -l")
                    if int(found.output) != count:
                        raise GuestError(f"{name} has {found.output.strip()} queues, "
                                         f"and {count} were requested")
                    cost = counting.measure(device, jobs.find(QUEUES_JOB), ios)
                row = _row(cost, device=device, queues=count)
                del row["functions"]
                rows.append(row)


class _Plan(NamedTuple):
    """What to measure, and the number of instruction counts."""
    jobs: tuple[str, ...]
    devices: tuple[str, ...]
    queues: tuple[int, ...]
    kernels: tuple[str, ...]
    total: int


def _plan(quick: bool) -> _Plan:
    """Return what to measure."""
    names: tuple[str, ...] = QUICK_JOBS if quick else tuple(jobs.JOBS)
    devices: tuple[str, ...] = ("ours", "stock", "nvme", "null_blk") \
        if quick else ("ours", "stock", "nvme", "virtio-scsi", "null_blk")
    counts: tuple[int, ...] = QUICK_QUEUES if quick else QUEUES
    others = () if quick else OTHER_KERNELS
    total = len(names) * (len(devices) + 1 + 2 * len(others)) + 2 * len(counts)
    return _Plan(names, devices, counts, others, total)


def measure(facts: Facts, quick: bool) -> None:
    """Measure everything; add the results to facts and write them after each part."""
    kernel = kernels.find("6.12")
    kernels.build_modules(kernel)
    names, devices, counts, others, total = _plan(quick)
    ios = QUICK_IOS if quick else IOS
    facts |= {"kernel": kernel.release, "ios": ios, "quick": quick,
              "accelerator": qemu.accelerator(),
              "qemu": ".".join(map(str, qemu_dist.version(qemu_dist.find()))),
              "driver": repository.commit()}
    progress = Progress(total)
    parts = {name: facts.setdefault(name, [])
             for name in ("jobs", "usual_ring", "queues", "other_kernels")}
    count_jobs(parts["jobs"], kernel, names, devices, ios, progress)
    _write_json(facts)
    count_jobs(parts["usual_ring"], kernel, names, ("ours",), ios, progress,
               ring=USUAL_RING)
    _write_json(facts)
    count_queues(parts["queues"], kernel, counts, ios, progress)
    _write_json(facts)
    for name in others:
        count_jobs(parts["other_kernels"], kernels.find(name), names,
                   ("ours", "stock"), ios, progress)
        _write_json(facts)
    facts["curves"] = sweep.measure(kernel, quick=quick).as_dict()
    _write_json(facts)
    if quick:
        return
    facts["host"] = perf_host.rows(perf_host.count(kernel, ios))
    _write_json(facts)
    meaningless = workers.why_meaningless()
    if meaningless:
        say(f"  {meaningless}")
    else:
        facts["workers"] = workers.measure(kernel).as_dict()
    _write_json(facts)
    facts["wall_clock"] = wallclock.compare(kernel, queue_size=LARGE_RING)
    _write_json(facts)
    facts["scale"] = {}
    for part, function in scale.PARTS.items():
        facts["scale"][part] = function()
        _write_json(facts)


def _write_json(facts: Facts) -> None:
    (_OUT / "bench.json").write_text(json.dumps(facts, indent=1) + "\n")


def write_report(facts: Facts) -> None:
    """Write the plots and the page; print an error if that fails."""
    files: dict[str, Callable[[], bytes]] = {
        f"{name}.png": draw for name, draw in charts.pictures(facts).items()}
    files["bench.html"] = lambda: charts.html_page(facts).encode()
    say("  wrote build/bench/bench.json")
    for name, make in files.items():
        try:
            (_OUT / name).write_bytes(make())
            say(f"  wrote build/bench/{name}")
        except OSError as error:
            say(f"error: cannot write build/bench/{name}: {error}")


def main() -> int:
    """Run the measurements, print the results and write them to build/bench."""
    quick = os.environ.get("QUICK", "0")
    if quick not in ("", "0", "1"):
        raise UserError(f"QUICK is {quick!r}; it must be 0 or 1")
    if os.environ.get("KERNEL", "6.12") != "6.12":
        raise UserError("make bench measures on kernel 6.12 and, without QUICK, on "
                        f"{' and '.join(OTHER_KERNELS)}, and KERNEL is "
                        f"{os.environ['KERNEL']}; use make profile for other kernels")
    repository.check_own_name()
    repository.writable(_OUT)
    deps.need("build", "vm", "plot")
    for file in (*_OUT.glob("bench.*"), *wallclock.FIO.glob("*.json")):
        file.unlink()
    cache.require_space(_OUT, _NEEDED_MIB, "move the repository to a larger disk")
    started = time.monotonic()
    facts: Facts = {"format": 1}
    status = 0
    try:
        measure(facts, quick == "1")
    except (GuestError, KeyboardInterrupt) as error:
        say(f"error: {str(error) or 'interrupted'}")
        status = 130 if isinstance(error, KeyboardInterrupt) else 1
        facts["error"] = str(error) or "interrupted"
    facts["seconds"] = round(time.monotonic() - started)
    if not facts.get("jobs"):
        say("error: nothing was measured")
        return status or 1
    facts["goals"] = goals.judge(facts)
    _write_json(facts)
    print(charts.text(facts), flush=True)
    write_report(facts)
    missed = [goal["goal"] for goal in facts["goals"] if not goal["met"]]
    say(f"make bench took {facts['seconds'] / 60:.0f} min; "
        f"{len(facts['goals']) - len(missed)} of {len(facts['goals'])} goals are met")
    return status


if __name__ == "__main__":
    ui.main(main)
