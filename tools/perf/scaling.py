# SPDX-License-Identifier: GPL-2.0
"""Measure how IOPS grow with jobs on 1 and on N queues, for both drivers.

usage: python3 -m perf.scaling [--cpus N] [--rounds N] [--seconds N] [--force]

The first patches for several queues were measured in the same way: 4 KiB random reads
of depth 32 by 1, 2, 4... jobs, with one queue and with one queue per vCPU.  The vCPUs
must run at the same time, so the host needs KVM.
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

# Estimates of the time to swap the drivers and to start fio.
_SWAP_SECONDS = 2
_FIO_SECONDS = 2


def host_cpus():
    """Return the number of the host's CPUs that this process may use."""
    return len(os.sched_getaffinity(0))


def why_meaningless():
    """Return why figures from this host are meaningless, None if they are not."""
    accelerator, count = qemu.accelerator(), host_cpus()
    if accelerator == "kvm" and count >= CPUS_NEEDED:
        return None
    return ("figures of scaling are meaningless on this host "
            f"({accelerator.upper()}, {count} CPUs); use a host with KVM and at least "
            f"{CPUS_NEEDED} CPUs")


def job_counts(cpus):
    """Return 1, 2, 4... up to the number of CPUs, which is the last."""
    counts = [1]
    while counts[-1] < cpus:
        counts.append(min(2 * counts[-1], cpus))
    return counts


def measure(kernel=KERNEL, *, cpus=None, rounds=ROUNDS, seconds=SECONDS,
            ramp=RAMP, force=False):
    """Measure IOPS by driver, queues and jobs in one boot; return the facts.

    kernel: the same as of vm.guest.Guest.  cpus: the guest's number of CPUs, by
    default the host's; the disk has as many queues, each with its own QEMU thread.
    seconds: the duration of each sample, after a ramp.  force: measure even if the
    figures are meaningless; otherwise print why and return None.

    The facts are kernel, accelerator, host_cpus, cpus, queues (the two numbers of
    queues), rounds, seconds, ramp, meaningless (why the figures are meaningless, or
    None), words (how they were measured), and rows, which have for each driver and
    number of jobs
    driver, jobs   "ours" or "stock", and the number of jobs
    one, many      with one and with many queues: iops by round, their median,
                   low and high
    ratios         IOPS with many queues to IOPS with one, by round
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
        raise UserError(f"--cpus is {cpus}; it must be from 2 to the host's number of "
                        f"CPUs, {host_cpus()}")
    if rounds < 1 or seconds < 1:
        raise UserError(f"--rounds is {rounds} and --seconds is {seconds}; each must "
                        "be at least 1")


def _measured(guest, cpus, rounds, seconds, ramp):
    """Return IOPS by round, by driver, queues and jobs."""
    virtio = queues.read(guest, guest.dev("null"))["virtio"]
    turns = [(driver, count) for count in (1, cpus)
             for driver in wallclock.DRIVERS]
    guess = len(turns) * (_SWAP_SECONDS + len(job_counts(cpus)) * (
        seconds + ramp + _FIO_SECONDS))
    found = {}
    for number in wallclock.rounds_of(rounds, guess):
        # Reverse the order in each round.
        for driver, count in turns[::-1 if number % 2 else 1]:
            name = wallclock.load(guest, driver, count)
            for jobs in job_counts(cpus):
                done = wallclock.sample(guest, virtio, name, JOB, jobs, seconds,
                                        ramp)
                found.setdefault((driver, count, jobs), []).append(done["iops"])
    return found


def _row(samples, driver, jobs, many):
    """Return the row of a driver and a number of jobs."""
    one, all_ = samples[driver, 1, jobs], samples[driver, many, jobs]
    ratios = [more / less for more, less in zip(all_, one)]
    return {"driver": driver, "jobs": jobs, "one": _spread(one),
            "many": _spread(all_), "ratios": ratios,
            "ratio": statistics.median(ratios), "ratio_low": min(ratios),
            "ratio_high": max(ratios)}


def _spread(iops):
    return {"iops": iops, "median": statistics.median(iops), "low": min(iops),
            "high": max(iops)}


# Output

def words_about(facts):
    """Return sentences on how the figures were measured."""
    return (f"Random reads of 4 KiB, libaio, depth 32, from a null-co disk. Jobs are "
            f"pinned to the first of {facts['cpus']} vCPUs. The disk has one queue or "
            f"{facts['cpus']}, each served by its own QEMU thread. These threads and "
            f"the vCPUs share the host's {facts['host_cpus']} CPUs. IOPS are medians "
            f"of {facts['rounds']} rounds in one boot. The range of the ratio is from "
            "its lowest to its highest round.")


def text(facts):
    """Return the facts as text for a terminal."""
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
        epilog="The environment variable KERNEL sets the kernel to boot (6.12).")
    parser.add_argument("--cpus", type=int,
                        help="the guest's number of CPUs and queues (the host's)")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=int, default=SECONDS,
                        help=f"duration of each sample ({SECONDS})")
    parser.add_argument("--ramp", type=int, default=RAMP,
                        help=f"seconds before each sample ({RAMP})")
    parser.add_argument("--force", action="store_true",
                        help="measure even if the figures are meaningless")
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
