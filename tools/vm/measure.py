# SPDX-License-Identifier: GPL-2.0
"""Run fio in a guest, and count the interrupts and kicks of its I/O."""

import json
import re
import statistics

from . import queues
from .errors import CommandFailed, GuestError

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

_GRACE = 120


def fio(guest, seconds=0, summary=None, **options):
    """Run fio in a guest and return the summary of its JSON report.

    seconds: the run time, if the options set one; summary: the function that
    summarizes the report, outcome() by default; options: fio's.  Jobs are threads.
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
        return (summary or outcome)(json.loads(text[text.index("{"):]), said)
    except (ValueError, LookupError):
        raise CommandFailed(f"status {result.status} from: fio {words}\n"
                            f"{said.strip()}", result) from None


def outcome(report, said):
    """Return a summary of fio's report, with fio's messages if there are errors.

    It has the number of verify errors, and ios, bytes and iops of reads, writes and
    trims.  Raises ValueError if another error ended fio.
    """
    (job,) = report["jobs"]
    errors = job.get("total_err", 0)
    if job["error"] and not errors:
        raise ValueError(f"fio ended with error {job['error']}")
    found = {"errors": errors}
    if errors:
        found["said"] = said.strip()
    for way in ("read", "write", "trim"):
        if job[way]["total_ios"]:
            found[way] = {"ios": job[way]["total_ios"],
                          "bytes": job[way]["io_bytes"],
                          "iops": round(job[way]["iops"])}
    return found


def interrupts(guest, virtio):
    """Return the number of each queue's interrupts, by queue and CPU."""
    irqs = queues.parse_interrupts(guest.run("cat /proc/interrupts").output)
    return {index: irq.counts
            for index, irq in queues.disk_irqs(irqs, virtio).items()}


class KickCounter:
    """Counts the kicks of virtio-blk queues in a with block.

    read() returns None if the guest's kernel has no kprobe events.
    """

    def __init__(self, guest):
        self._guest = guest

    def __enter__(self):
        made = self._guest.run(
            f"echo '{_PROBE}' > {_TRACING}/kprobe_events && "
            f"echo 'hist:keys=name' > {_TRIGGER}", check=False)
        self.known = made.status == 0
        return self

    def read(self):
        """Return the number of kicks since the last call."""
        if not self.known:
            return None
        text = self._guest.run(
            f"cat {_HIST}; echo 'hist:keys=name:clear' >> {_TRIGGER}").output
        return sum(int(count) for count in re.findall(
            r"\{ name: req\.\d+\s*\} hitcount:\s*(\d+)", text))

    def __exit__(self, kind, error, traceback):
        if self.known and error is None:
            self._guest.run(f"echo '!hist:keys=name' >> {_TRIGGER}; "
                            f"echo '-:vblk/kick' >> {_TRACING}/kprobe_events")


def count_while(guest, virtio, work, kicks=None):
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


def timed(guest, name, rw, seconds, cpus, depth=32):
    """Run one timed job on a disk; return fio's figures: ios, bytes and iops.

    name: the disk's, such as "vda".  Each CPU has a job of this depth.
    """
    done = fio(guest, seconds, filename=f"/dev/{name}", rw=rw, bs="4k", direct=1,
               ioengine="libaio", iodepth=depth, numjobs=cpus,
               cpus_allowed=f"0-{cpus - 1}", cpus_allowed_policy="split",
               norandommap=1, time_based=1, runtime=seconds)
    way = done.get("read" if rw == "randread" else "write")
    if not way or not way["iops"]:
        raise GuestError(f"fio completed no {rw} on {name} in {seconds} s")
    return way


def workload(guest, virtio, name, rw, seconds, cpus, kicks=None):
    """Run one timed job on a disk; return its figures.

    virtio, name: the disk's, such as "virtio2" and "vda".  kicks: a KickCounter, or
    None.
    """
    way, came, kicked = count_while(
        guest, virtio, lambda: timed(guest, name, rw, seconds, cpus), kicks)
    total = sum(sum(counts.values()) for counts in came.values())
    return {"ios": way["ios"], "iops": way["iops"], "interrupts": came,
            "interrupts_per_io": total / way["ios"],
            "kicks_per_io": None if kicked is None else kicked / way["ios"]}


def compare(rounds, counted):
    """Compare the two drivers in one job.

    rounds: for each round, the figures from workload() of "ours" and "stock";
    counted: those of the round that counted kicks.
    """
    ratios = [pair["ours"]["iops"] / pair["stock"]["iops"] for pair in rounds]
    found = {"ratios": ratios, "median": statistics.median(ratios),
             "low": min(ratios), "high": max(ratios)}
    for side in ("ours", "stock"):
        runs = [pair[side] for pair in rounds]
        found[side] = {
            "iops": [run["iops"] for run in runs],
            "iops_median": statistics.median(run["iops"] for run in runs),
            "interrupts_per_io": statistics.median(
                run["interrupts_per_io"] for run in runs),
            "kicks_per_io": counted[side]["kicks_per_io"]}
    return found


def conclusion(low, high):
    """Return what the range of the rounds' IOPS ratios says of our driver."""
    if low > 1:
        return "faster"
    return "slower" if high < 1 else TOO_WIDE


def where_interrupts_went(disk, counts):
    """Return how many of a disk's queues raised interrupts, and the stray interrupts.

    disk: from queues.read(); counts: a list of results of interrupts().  "elsewhere"
    is the number of interrupts on CPUs outside the queue's CPUs.
    """
    own, elsewhere = {}, 0
    for queue in disk["queues"]:
        for by_cpu in (each.get(queue["index"], {}) for each in counts):
            for cpu, count in by_cpu.items():
                if cpu in queue["cpus"]:
                    own[queue["index"]] = own.get(queue["index"], 0) + count
                else:
                    elsewhere += count
    return {"queues": sum(count > 0 for count in own.values()),
            "elsewhere": elsewhere}
