# SPDX-License-Identifier: GPL-2.0
"""How IOPS grow with jobs on 1 and on N queues, ours and the kernel's own.

usage: python3 -m perf.scaling [--cpus N] [--rounds N] [--seconds N] [--force]

It is the experiment that came with the first patches for several queues: 4 KiB
random reads of depth 32 by 1, 2, 4... jobs, against one queue and against one
per vCPU.  It takes CPUs that run at the same time, so a host with KVM.
"""

import argparse
import json
import os
import statistics
import textwrap

from vm import kernels, qemu, queues, ui
from vm.disk import Disk
from vm.errors import GuestError
from vm.guest import Guest
from vm.ui import UserError, say

from . import wallclock

KERNEL = "6.12"
CPUS_NEEDED = 4
ROUNDS = 3
SECONDS = 5
RAMP = 1
JOB = wallclock.JOBS["randread-4k-qd32"]

# What swapping the drivers and starting fio take, roughly.
_SWAP_SECONDS = 2
_FIO_SECONDS = 2


def host_cpus():
    """Return how many of the host's CPUs may be used."""
    return len(os.sched_getaffinity(0))


def why_meaningless():
    """Return why the figures would mean nothing on this host, None if they do."""
    accelerator, count = qemu.accelerator(), host_cpus()
    if accelerator == "kvm" and count >= CPUS_NEEDED:
        return None
    return (f"figures of scaling mean nothing here ({accelerator.upper()}, {count} "
            f"CPUs); they take a host with KVM and at least {CPUS_NEEDED} CPUs")


def job_counts(cpus):
    """Return 1, 2, 4... up to the number of CPUs, which is the last."""
    counts = [1]
    while counts[-1] < cpus:
        counts.append(min(2 * counts[-1], cpus))
    return counts


def measure(kernel=KERNEL, *, cpus=None, rounds=ROUNDS, seconds=SECONDS,
            ramp=RAMP, force=False):
    """Measure IOPS by driver, queues and jobs in one boot; return the facts.

    kernel: as vm.guest.Guest takes it.  cpus: of the guest, as many as of the
    host if not given, and as many queues, each with a thread of QEMU's own.
    seconds: that each sample is measured for, after a ramp.  force: go on where
    the figures mean nothing; without it that is said, and None returned.

    The facts are kernel, accelerator, host_cpus, cpus, queues (the two numbers
    of them), rounds, seconds, ramp, meaningless (why the figures are; None if
    they are not), words (how it was done), and rows, which for each driver and
    number of jobs have
    driver, jobs   "ours" or "stock", and how many
    one, many      with one and with many queues: iops by round, their median,
                   low and high
    ratios         many to one, by round
    ratio, ratio_low, ratio_high
                   their median, lowest and highest
    """
    meaningless = why_meaningless()
    if meaningless:
        say(f"  {meaningless}")
        if not force:
            return None
    kernel = kernels.find(kernel) if not isinstance(kernel, kernels.Kernel) \
        else kernel
    cpus = cpus or host_cpus()
    _check(kernel, cpus, rounds, seconds)
    disk = Disk("null", queues=cpus, iothreads=cpus)
    with Guest(kernel, cpus=cpus, disks=[disk]) as guest:
        samples = _measured(guest, cpus, rounds, seconds, ramp)
    facts = {"kernel": kernel.release, "accelerator": qemu.accelerator(),
             "host_cpus": host_cpus(), "cpus": cpus, "queues": [1, cpus],
             "rounds": rounds, "seconds": seconds, "ramp": ramp,
             "meaningless": meaningless,
             "rows": [_row(samples, driver, jobs, cpus)
                      for driver in wallclock.DRIVERS
                      for jobs in job_counts(cpus)]}
    return {**facts, "words": words_about(facts)}


def _check(kernel, cpus, rounds, seconds):
    wallclock.need_modules(kernel)
    if not 2 <= cpus <= host_cpus():
        raise UserError(f"{cpus} vCPUs: there must be 2 at least, and no more than "
                        f"the {host_cpus()} CPUs of the host")
    if rounds < 1 or seconds < 1:
        raise UserError(f"rounds is {rounds} and seconds {seconds}; each must be "
                        "1 at least")


def _measured(guest, cpus, rounds, seconds, ramp):
    """Return IOPS by round, by driver, queues and jobs."""
    virtio = queues.read(guest, guest.dev("null"))["virtio"]
    turns = [(driver, count) for count in (1, cpus)
             for driver in wallclock.DRIVERS]
    guess = len(turns) * (_SWAP_SECONDS + len(job_counts(cpus)) * (
        seconds + ramp + _FIO_SECONDS))
    found = {}
    for number in wallclock.rounds_of(rounds, guess):
        # What comes first in one round comes last in the next.
        for driver, count in turns[::-1 if number % 2 else 1]:
            name = wallclock.load(guest, driver, count)
            for jobs in job_counts(cpus):
                done = wallclock.sample(guest, virtio, name, JOB, jobs, seconds,
                                        ramp)
                found.setdefault((driver, count, jobs), []).append(done["iops"])
    return found


def _row(samples, driver, jobs, many):
    """Return what is known of a driver with that many jobs."""
    one, all_ = samples[driver, 1, jobs], samples[driver, many, jobs]
    ratios = [more / less for more, less in zip(all_, one)]
    return {"driver": driver, "jobs": jobs, "one": _spread(one),
            "many": _spread(all_), "ratios": ratios,
            "ratio": statistics.median(ratios), "ratio_low": min(ratios),
            "ratio_high": max(ratios)}


def _spread(iops):
    return {"iops": iops, "median": statistics.median(iops), "low": min(iops),
            "high": max(iops)}


# What is said of it

def words_about(facts):
    """Return how the figures came about, in sentences."""
    return (f"Random reads of 4 KiB, libaio, depth 32, from a null-co disk; jobs "
            f"pinned to the first vCPUs of {facts['cpus']}, one queue or "
            f"{facts['cpus']}, each served by a thread of QEMU's own. These "
            f"threads and the vCPUs share the host's {facts['host_cpus']} CPUs. "
            f"IOPS are medians of {facts['rounds']} rounds in one boot; the range "
            "of the ratio is from its lowest round to its highest.")


def text(facts):
    """Return the facts as they are shown on a terminal."""
    many = facts["queues"][1]
    lines = [f"Linux {facts['kernel']}, {facts['cpus']} vCPUs, "
             f"{facts['accelerator'].upper()}", "",
             f"  driver  jobs  {'IOPS, 1 queue':>15}  "
             f"{f'IOPS, {many} queues':>15}  {f'{many} queues / 1':>15}  range"]
    lines += [f"  {row['driver']:<6}  {row['jobs']:>4}  "
              f"{row['one']['median']:>15.0f}  {row['many']['median']:>15.0f}  "
              f"{row['ratio']:>15.2f}  {row['ratio_low']:.2f} to "
              f"{row['ratio_high']:.2f}" for row in facts["rows"]]
    lines += ["", textwrap.fill(facts["words"], 78)]
    if facts["meaningless"]:
        lines += ["", textwrap.fill(facts["meaningless"], 78)]
    return "\n".join(lines)


def _arguments():
    parser = argparse.ArgumentParser(
        prog="python3 -m perf.scaling", allow_abbrev=False,
        description="Measure how IOPS grow with jobs on 1 and on N queues.",
        epilog="The environment's KERNEL is the kernel to boot, 6.12 if not set.")
    parser.add_argument("--cpus", type=int,
                        help="of the guest, and queues (as many as the host's)")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=int, default=SECONDS,
                        help=f"that each sample is measured for ({SECONDS})")
    parser.add_argument("--ramp", type=int, default=RAMP,
                        help=f"seconds before that ({RAMP})")
    parser.add_argument("--force", action="store_true",
                        help="measure where the figures mean nothing, too")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser.parse_args()


def main():
    arguments = _arguments()
    try:
        facts = measure(os.environ.get("KERNEL", KERNEL), cpus=arguments.cpus,
                        rounds=arguments.rounds, seconds=arguments.seconds,
                        ramp=arguments.ramp, force=arguments.force)
    except GuestError as error:
        say(f"error: {error}")
        return 1
    if facts:
        print(json.dumps(facts, indent=1) if arguments.json else text(facts))
    return 0


if __name__ == "__main__":
    ui.main(main)
