# SPDX-License-Identifier: GPL-2.0
"""make bench: our driver beside the kernel's own, NVMe and virtio-scsi.

Counts instructions for all jobs and devices, and for growing numbers of queues;
without QUICK also on the other kernels, and measures by the clock and at scale.
It leaves bench.json, bench.html and pictures in build/bench, see perf.charts;
bench.json is written after each part, so that what was measured is not lost.
"""

import json
import os
import time
from pathlib import Path

from vm import cache, host, kernels, qemu, qemu_dist, run, ui
from vm.errors import GuestError
from vm.ui import UserError, say, step

from . import charts, goals, jobs, layers, scale, scaling, wallclock
from .counting import CountingGuest

_TOP = Path(__file__).resolve().parents[2]
_OUT = _TOP / "build/bench"
_NEEDED_MIB = 64

# Large enough for our driver to do without indirect descriptors, and the size
# that QEMU gives a ring unless it is told otherwise.
LARGE_RING = 1024
USUAL_RING = 256

QUICK_JOBS = ("randread-4k-qd32", "randread-4k-qd32-uring",
              "randread-4k-qd32-burst")
QUEUES, QUICK_QUEUES = (1, 8, 16, 64), (1, 16)
IOS, QUICK_IOS = 16384, 4096
OTHER_KERNELS = ("6.1", "7.3-perf")
QUEUES_JOB = "randread-4k-qd32"

# What calls it takes to find the queues that are to be started again.
_RESTARTING = ("blk_mq_start_stopped_hw_queues", "blk_mq_start_stopped_hw_queue",
               "xa_find", "xa_find_after", "xas_find")


class Progress:
    """How many measurements are done, and how long the others will take."""

    def __init__(self, count):
        self._count = count
        self._done = 0
        self._started = time.monotonic()

    def step(self, text):
        """Announce the next one: a context manager."""
        left = ""
        if self._done:
            each = (time.monotonic() - self._started) / self._done
            left = f", about {each * (self._count - self._done) / 60:.0f} min left"
        self._done += 1
        return step(f"[{self._done}/{self._count}{left}] {text}")


def _row(cost, **about):
    """Return a Cost as the facts have it."""
    found = layers.sums(cost.functions)
    return {**about, **cost.as_dict(),
            "layers": {name: round(count, 2) for name, count in found.items()},
            "device_layers": round(layers.device(cost.functions), 2),
            "restarting": abs(round(_restarting(cost), 1))}


def _restarting(cost):
    """Return what finding and starting stopped queues takes, per interrupt."""
    count = sum(cost.functions.get((name, "vmlinux"), (0, 0))[0]
                for name in _RESTARTING)
    return count / cost.interrupts if cost.interrupts > 0.01 else 0


def count_jobs(rows, kernel, names, devices, ios, progress, ring=LARGE_RING):
    """Count all jobs on all devices in one guest, a row for each."""
    with CountingGuest(kernel, properties={"queue_size": ring}) as counting:
        for device in devices:
            for name in names:
                job = jobs.find(name)
                with progress.step(f"{device}, {job.title}, ring of {ring}, "
                                   f"Linux {kernel.name}"):
                    cost = counting.measure(device, job, ios)
                rows.append(_row(cost, kernel_name=kernel.name, device=device,
                                 job=name, ring=ring))


def count_queues(rows, kernel, counts, ios, progress):
    """Count an I/O with so many queues each, a row for each driver."""
    for count in counts:
        with CountingGuest(kernel, queues=count,
                           properties={"queue_size": LARGE_RING}) as counting:
            for device in ("ours", "stock"):
                with progress.step(f"{device}, queues: {count}"):
                    name = counting.path(device).removeprefix("/dev/")
                    found = counting.guest.run(f"ls /sys/block/{name}/mq | wc -l")
                    if int(found.output) != count:
                        raise GuestError(f"{name} has {found.output.strip()} queues, "
                                         f"not {count}")
                    cost = counting.measure(device, jobs.find(QUEUES_JOB), ios)
                row = _row(cost, device=device, queues=count)
                del row["functions"]
                rows.append(row)


def _plan(quick):
    """Return what is measured, and how many measurements of counts that is."""
    names = QUICK_JOBS if quick else tuple(jobs.JOBS)
    devices = ("ours", "stock", "nvme", "null_blk") if quick else \
        ("ours", "stock", "nvme", "virtio-scsi", "null_blk")
    counts = QUICK_QUEUES if quick else QUEUES
    others = () if quick else OTHER_KERNELS
    total = len(names) * (len(devices) + 1 + 2 * len(others)) + 2 * len(counts)
    return names, devices, counts, others, total


def measure(facts, quick):
    """Measure everything into facts, which is left in a file time and again."""
    kernel = kernels.find("6.12")
    kernels.build_modules(kernel)
    names, devices, counts, others, total = _plan(quick)
    ios = QUICK_IOS if quick else IOS
    facts |= {"kernel": kernel.release, "ios": ios, "quick": quick,
              "accelerator": qemu.accelerator(),
              "qemu": ".".join(map(str, qemu_dist.version(qemu_dist.find()))),
              "driver": run.commit()}
    progress = Progress(total)
    parts = {name: facts.setdefault(name, [])
             for name in ("jobs", "usual_ring", "queues", "other_kernels")}
    count_jobs(parts["jobs"], kernel, names, devices, ios, progress)
    _leave_json(facts)
    count_jobs(parts["usual_ring"], kernel, names, ("ours",), ios, progress,
               ring=USUAL_RING)
    _leave_json(facts)
    count_queues(parts["queues"], kernel, counts, ios, progress)
    _leave_json(facts)
    for name in others:
        count_jobs(parts["other_kernels"], kernels.find(name), names,
                   ("ours", "stock"), ios, progress)
        _leave_json(facts)
    if quick:
        return
    facts["wall_clock"] = wallclock.compare(kernel, queue_size=LARGE_RING)
    _leave_json(facts)
    facts["scaling"] = scaling.measure(kernel)
    facts["scale"] = {}
    for part, function in scale.PARTS.items():
        facts["scale"][part] = function()
        _leave_json(facts)


def _leave_json(facts):
    (_OUT / "bench.json").write_text(json.dumps(facts, indent=1) + "\n")


def leave(facts):
    """Leave the pictures and the page; say so where that fails."""
    files = {f"{name}.png": draw for name, draw in charts.pictures(facts).items()}
    files["bench.html"] = lambda: charts.html_page(facts).encode()
    say("  left build/bench/bench.json")
    for name, make in files.items():
        try:
            (_OUT / name).write_bytes(make())
            say(f"  left build/bench/{name}")
        except OSError as error:
            say(f"  {name} could not be written: {error}")


def main():
    """Run what QUICK asks for, show it and leave it in build/bench."""
    quick = os.environ.get("QUICK", "0")
    if quick not in ("", "0", "1"):
        raise UserError(f"QUICK is {quick!r}; it is 1, or not set")
    if os.environ.get("KERNEL", "6.12") != "6.12":
        raise UserError("make bench measures on 6.12 and, without QUICK, on "
                        f"{' and '.join(OTHER_KERNELS)}, and KERNEL is "
                        f"{os.environ['KERNEL']}; make profile takes others")
    host.need("build", "vm", "plot")
    _OUT.mkdir(parents=True, exist_ok=True)
    for file in _OUT.glob("bench.*"):
        file.unlink()
    cache.require_space(_OUT, _NEEDED_MIB, "move the repository to a larger disk")
    started = time.monotonic()
    facts, status = {"format": 1}, 0
    try:
        measure(facts, quick == "1")
    except (GuestError, KeyboardInterrupt) as error:
        say(f"error: {str(error) or 'interrupted'}")
        status = 130 if isinstance(error, KeyboardInterrupt) else 1
        facts["error"] = str(error) or "interrupted"
    facts["seconds"] = round(time.monotonic() - started)
    if not facts.get("jobs"):
        say("nothing was measured")
        return status or 1
    facts["goals"] = goals.judge(facts)
    _leave_json(facts)
    print(charts.text(facts), flush=True)
    leave(facts)
    missed = [goal["goal"] for goal in facts["goals"] if not goal["met"]]
    say(f"in {facts['seconds'] / 60:.0f} min; {len(facts['goals']) - len(missed)} "
        f"of {len(facts['goals'])} goals are met")
    return status


if __name__ == "__main__":
    ui.main(main)
