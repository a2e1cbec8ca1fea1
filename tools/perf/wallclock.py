# SPDX-License-Identifier: GPL-2.0
"""Compare the wall-clock speed of our driver with that of the in-tree driver.

usage: python3 -m perf.wallclock [--cpus N] [--queues N] [--queue-size N] ...

Both drivers run in one guest in turns: one is unloaded, the other one loaded.  So
other work on the host affects both.  The result is the ratios of pairs of consecutive
runs, and a sign test over these ratios.  The figures are printed and written to
build/bench/wallclock.json.
"""

import argparse
import json
import math
import os
import statistics
import textwrap
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common import measure, queues
from host import repository, ui
from host.ui import UserError, say, step
from run import run
from vm import kernels, qemu
from vm.disk import Disk
from vm.errors import GuestError
from vm.guest import Guest
from vm.kernels import Kernel

from . import jobs as job_list

KERNEL = "6.12"
ROUNDS = 10
# QEMU's default.
QUEUE_SIZE = 256
SECONDS = 2
RAMP = 1
# fio's options by name.
JOBS = {name: job_list.find(name).options() for name in (
    "randread-4k-qd32", "randwrite-4k-qd32", "randread-4k-qd32-uring",
    "randread-64k-qd8", "randread-4k-qd1")}
DRIVERS = ("ours", "stock")
# The probability that the verdict is a difference if there is none.
LEVEL = 0.05

# Estimates of the time to swap the drivers and to start fio under emulation.  They
# are used until the first round has been measured.
_SWAP_SECONDS = 2
_FIO_SECONDS = 2

_TOP = Path(__file__).resolve().parents[2]
_OUT = _TOP / "build/bench/wallclock.json"
# fio's own reports, of each sample by the clock.
FIO = _TOP / "build/bench/fio"

# A record that goes to JSON or comes from fio, or fio's options, by name.
Figures = dict[str, Any]
# The samples of a round, by job and driver.
_Samples = dict[str, dict[str, Figures]]


@dataclass(frozen=True)
class _Options:
    """What each round runs; jobs: fio's options by name."""
    cpus: int
    queues: int
    seconds: int
    ramp: int
    jobs: Mapping[str, Figures]


# The statistics

def sign_test(wins: int, losses: int) -> float:
    """Return the two-sided p-value of a number of wins and losses.

    It is the probability of an outcome at least as unequal, if wins and losses are
    equally likely.
    """
    total = wins + losses
    tail = sum(math.comb(total, count) for count in range(min(wins, losses) + 1))
    return min(1.0, 2 * tail / 2 ** total)


def interval(ratios: Sequence[float]) -> list[float] | None:
    """Return the confidence interval of the median, None with too few rounds.

    It has the lowest and the highest median that a sign test over the ratios does
    not reject.
    """
    total = len(ratios)
    outside = [count for count in range(total // 2)
               if sign_test(total - count, count) < LEVEL]
    ordered = sorted(ratios)
    return [ordered[outside[-1]], ordered[-1 - outside[-1]]] if outside else None


def spread(ratios: Sequence[float], better: str) -> Figures:
    """Return the median, the spread and the verdict of the rounds' ratios.

    ratios: our driver's to the in-tree driver's; better: "higher" or "lower".  A
    round with equal results does not count for the verdict.
    """
    above, below = (sum(ratio > 1 for ratio in ratios),
                    sum(ratio < 1 for ratio in ratios))
    wins, losses = (above, below) if better == "higher" else (below, above)
    p = sign_test(wins, losses)
    first, median, third = statistics.quantiles(ratios, n=4, method="inclusive")
    ends = interval(ratios)
    verdict = measure.TOO_WIDE if ends else "too few rounds to conclude"
    if p < LEVEL:
        verdict = "faster" if wins > losses else "slower"
    return {"ratios": ratios, "median": median, "low": min(ratios),
            "quartiles": [first, third], "high": max(ratios),
            "interval": ends,
            "wins": wins, "losses": losses, "p": p, "verdict": verdict}


# One sample

def load(guest: Guest, driver: str, count: int) -> str:
    """Load a driver in place of the other one; return the disk's name.

    driver: "ours" or "stock"; count: the number of queues.  Raises GuestError if the
    driver, the number of queues or the scheduler is not as requested.
    """
    name = run.load(guest, driver, count)
    out_of_tree, queue_count, scheduler = guest.run(
        "grep -c O /sys/module/virtio_blk/taint; "
        f"ls /sys/block/{name}/mq | wc -l; "
        f"cat /sys/block/{name}/queue/scheduler").output.splitlines()
    if (out_of_tree == "1") != (driver == "ours"):
        raise GuestError(f"the loaded driver is not {driver!r}, by the module's taint")
    if int(queue_count) != count:
        raise GuestError(f"{name} has {queue_count} queues with the driver "
                         f"{driver!r}, and {count} were requested")
    if scheduler != "none" and "[none]" not in scheduler.split():
        raise GuestError(f"{name} has the scheduler setting {scheduler!r}, and none "
                         "was requested")
    return name


def _summary(said_by_fio: Figures, said: str) -> Figures:
    """Return a summary of fio's report, with latencies in microseconds."""
    found = measure.outcome(said_by_fio, said).as_dict()
    for way in set(found) & {"read", "write"}:
        took = said_by_fio["jobs"][0][way]["clat_ns"]
        found[way] |= {"mean_us": took["mean"] / 1000,
                       "p50_us": took["percentile"]["50.000000"] / 1000}
    return found


def _completed(guest: Guest, name: str) -> int:
    """Return the number of reads and writes that a disk has completed."""
    words = guest.sysfs(f"/sys/block/{name}/stat").split()
    return int(words[0]) + int(words[4])


def fio_report(guest: Guest, path: str, options: Figures, jobs: int, seconds: int,
               ramp: int) -> Figures:
    """Run a timed job of fio in a guest; return fio's JSON report, a dictionary.

    path: the disk's in the guest.  options: fio's.  jobs: the number of parallel jobs,
    each on its own CPU.  seconds: the time measured, after ramp seconds that are not
    measured.  Raises CommandFailed if fio ended with an error.
    """
    return measure.fio_report(
        guest, seconds + ramp, filename=path, numjobs=jobs,
        cpus_allowed=f"0-{jobs - 1}", cpus_allowed_policy="split", time_based=1,
        runtime=seconds, ramp_time=ramp, **options)[0]


def keep_report(path: Path, said: Figures) -> None:
    """Write fio's JSON report to a file, and make the file's directory if needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(said, indent=1) + "\n")


def sample(guest: Guest, virtio: str, name: str, options: Figures, jobs: int,
           seconds: int, ramp: int, kicks: measure.KickCounter | None = None,
           keep: Path | None = None) -> Figures:
    """Run fio on a disk; return iops, latencies, interrupts and kicks per I/O.

    virtio, name: the disk's, such as "virtio2" and "vda".  options: fio's.  jobs: the
    number of parallel jobs, each on its own CPU.  seconds: the time measured, after
    ramp seconds that are not measured.  kicks: a KickCounter, or None.  keep: the file
    for fio's JSON report, or None.
    """
    def work() -> tuple[Figures, int]:
        before = _completed(guest, name)
        said = fio_report(guest, f"/dev/{name}", options, jobs, seconds, ramp)
        return said, _completed(guest, name) - before

    # Interrupts and kicks include the ramp.  fio's count of I/Os does not, so use the
    # disk's count.
    (said, ios), came, kicked = measure.count_while(guest, virtio, work, kicks)
    if keep:
        keep_report(keep, said)
    way = _summary(said, "").get("read" if options["rw"] == "randread" else "write")
    if not way or not way["iops"] or not ios:
        raise GuestError(f"fio completed no {options['rw']} on {name} in {seconds} s")
    total = sum(sum(counts.values()) for counts in came.values())
    return {"iops": way["iops"], "mean_us": way["mean_us"],
            "p50_us": way["p50_us"], "interrupts_per_io": total / ios,
            "kicks_per_io": None if kicked is None else kicked / ios}


# Rounds

def rounds_of(count: int, guess: float) -> Iterator[int]:
    """Yield 0 to count - 1; print the estimated time left in each round.

    guess: an estimate of the seconds per round, used in the first round.
    """
    started = time.monotonic()
    for number in range(count):
        each = (time.monotonic() - started) / number if number else guess
        with step(f"round {number + 1} of {count}, about "
                  f"{each * (count - number):.0f} s left"):
            yield number


def turns(jobs: Iterable[str], number: int) -> list[tuple[str, str]]:
    """Return (job, driver) pairs in the order of the round with that number.

    A job runs on both drivers one after the other.  It begins with the driver of the
    previous job's last run, which saves a swap.  The order of the drivers changes
    with each round.
    """
    return [(job, driver) for place, job in enumerate(jobs)
            for driver in DRIVERS[::-1 if (number + place) % 2 else 1]]


def one_round(guest: Guest, virtio: str, number: int, options: _Options,
              kicks: measure.KickCounter | None = None) -> _Samples:
    """Run each job on each driver; return samples by job, then by driver.

    number: the round's.
    """
    found: _Samples = {}
    loaded: str | None = None
    for job, driver in turns(options.jobs, number):
        if driver != loaded:
            name = load(guest, driver, options.queues)
            loaded = driver
        found.setdefault(job, {})[driver] = sample(
            guest, virtio, name, options.jobs[job], options.cpus,
            options.seconds, options.ramp, kicks,
            FIO / f"clock-{job}-{driver}-round{number + 1}.json"
            if kicks is None else None)
    return found


def _figures(pair: Mapping[str, Figures]) -> dict[str, measure.Figures]:
    """Return the figures that common.measure compares; pair: samples by driver."""
    return {driver: measure.Figures(found["iops"], found["interrupts_per_io"],
                                    found["kicks_per_io"])
            for driver, found in pair.items()}


def _job_result(job: str, words: Figures, rounds: Sequence[dict[str, Figures]],
                counted: dict[str, Figures]) -> Figures:
    """Return a job's result; rounds, counted: that job's samples."""
    found = measure.compare([_figures(pair) for pair in rounds], _figures(counted))
    result: Figures = {
        "job": job, "options": words, "iops": spread(found.ratios, "higher"),
        "ours": asdict(found.ours), "stock": asdict(found.stock)}
    if words["iodepth"] != 1:
        return result
    for key in ("mean_us", "p50_us"):
        result[key] = spread([pair["ours"][key] / pair["stock"][key]
                              for pair in rounds], "lower")
        for side in ("ours", "stock"):
            result[side][key] = [pair[side][key] for pair in rounds]
    return result


def need_modules(kernel: Kernel) -> None:
    """Raise UserError if the drivers of a kernel cannot be swapped."""
    if kernel.builtin:
        raise UserError(f"{kernel.name} has the driver built in, and this measurement "
                        "swaps the drivers as modules; choose KERNEL=6.1 or 6.12")


def _check(kernel: Kernel, cpus: int, queue_count: int, queue_size: int, rounds: int,
           seconds: int) -> None:
    need_modules(kernel)
    if not 1 <= queue_count <= cpus:
        raise UserError(f"--queues is {queue_count}; it must be from 1 to the number "
                        f"of CPUs, {cpus}")
    if not 4 <= queue_size <= 1024 or queue_size & (queue_size - 1):
        raise UserError(f"--queue-size is {queue_size}; it must be a power of 2 from "
                        "4 to 1024")
    if rounds < 2:
        raise UserError(f"--rounds is {rounds}; it must be at least 2 for a spread, "
                        f"and at least {fewest_rounds()} for a verdict")
    if seconds < 1:
        raise UserError(f"--seconds is {seconds}; it must be at least 1")


def fewest_rounds() -> int:
    """Return the smallest number of rounds in which a sign test can be significant."""
    count = 1
    while sign_test(count, 0) >= LEVEL:
        count += 1
    return count


def compare(kernel: Kernel | str | Path = KERNEL, *, cpus: int = 1,
            queue_count: int = 1, queue_size: int = QUEUE_SIZE, rounds: int = ROUNDS,
            seconds: int = SECONDS, ramp: int = RAMP,
            jobs: Mapping[str, Figures] | None = None) -> Figures:
    """Measure both drivers on a null-co disk in one boot; return the facts.

    kernel: the same as of vm.guest.Guest.  queue_size: the disk's, a power of 2 from
    4 to 1024.  jobs: fio's options by name, JOBS by default; each job runs once per
    CPU.  Each round runs each job once on each driver, for some seconds after a ramp.
    An additional round before the first one counts kicks; its times are not used.

    The facts are kernel, accelerator, fio, host_cpus, host_load (the load average
    of the last five minutes), cpus, queues, queue_size, rounds, seconds, ramp,
    words (how to interpret the figures), and for each of the jobs
    job, options   its name, and fio's options
    iops           ratios of IOPS, ours to the in-tree driver's, by round; their
                   median, low, high, quartiles, interval (the confidence interval
                   of the median; None with too few rounds); wins, losses, p, verdict
    mean_us, p50_us
                   the same for the latency from submission to completion, at depth 1
    ours, stock    iops by round, iops_median, interrupts_per_io (median),
                   kicks_per_io (None if not known); at depth 1 mean_us and
                   p50_us by round
    """
    kernel = kernels.find(kernel) if not isinstance(kernel, Kernel) \
        else kernel
    _check(kernel, cpus, queue_count, queue_size, rounds, seconds)
    options = _Options(cpus, queue_count, seconds, ramp, jobs or JOBS)
    disk = Disk("null", queues=queue_count, queue_size=queue_size)
    with Guest(kernel, cpus=cpus, disks=[disk]) as guest:
        counted, samples = _measured(guest, rounds, options)
        fio = guest.run("fio --version").output.strip()
        load_average = round(os.getloadavg()[1], 1)
    results = [_job_result(job, words, [found[job] for found in samples],
                           counted[job]) for job, words in options.jobs.items()]
    facts = {"kernel": kernel.release, "accelerator": qemu.accelerator(),
             "fio": fio, "host_cpus": os.cpu_count(), "host_load": load_average,
             "cpus": cpus, "queues": queue_count, "queue_size": queue_size,
             "rounds": rounds,
             "seconds": seconds, "ramp": ramp, "jobs": results}
    return {**facts, "words": words_about(facts)}


def _measured(guest: Guest, rounds: int,
              options: _Options) -> tuple[_Samples, list[_Samples]]:
    """Return the samples of the round that counts kicks, and of all other rounds."""
    virtio = queues.read(guest, guest.dev("null")).virtio
    # Jobs with large blocks use huge pages for their buffers.
    guest.run(f"echo {2 * options.cpus} > /proc/sys/vm/nr_hugepages")
    guess: float = _SWAP_SECONDS + len(options.jobs) * (
        _SWAP_SECONDS + 2 * (options.seconds + options.ramp + _FIO_SECONDS))
    started = time.monotonic()
    with step(f"counting kicks, about {guess * (rounds + 1)} s left"), \
            measure.KickCounter(guest) as kicks:
        counted = one_round(guest, virtio, 0, options, kicks)
    guess = time.monotonic() - started
    return counted, [one_round(guest, virtio, number, options)
                     for number in rounds_of(rounds, guess)]


# Output

def words_about(facts: Figures) -> str:
    """Return sentences on how to interpret the figures."""
    count = sum(key in job for job in facts["jobs"]
                for key in ("iops", "mean_us", "p50_us"))
    words = [measure.WALL_CLOCK[facts["accelerator"]],
             "A ratio is our driver's figure divided by the in-tree driver's in one "
             "round, in which the two run one after the other. The median is over "
             f"{facts['rounds']} rounds. The range is from the lowest to the highest "
             "ratio, the middle half is between the quartiles.",
             "p is from a two-sided sign test over the rounds. A difference is "
             f"significant if p is below {LEVEL}: in {count} comparisons of equal "
             f"drivers, {count * LEVEL:.1f} are significant by chance. The "
             f"{1 - LEVEL:.0%} interval of the median shows how large a difference "
             "can be.",
             f"The host's load average was {facts['host_load']} on "
             f"{facts['host_cpus']} CPUs. Other work on the host widens the spread."]
    if facts["rounds"] < fewest_rounds():
        words.append("No difference can be significant with fewer than "
                     f"{fewest_rounds()} rounds.")
    return " ".join(words)


_LABELS = {"iops": "IOPS", "mean_us": "mean latency", "p50_us": "median latency"}


def _ratio_lines(key: str, found: Figures) -> list[str]:
    def span(ends: Sequence[float] | None) -> str:
        return "unknown" if ends is None else f"{ends[0]:.3f} to {ends[1]:.3f}"

    return [f"  {_LABELS[key]:<15}{found['median']:.3f}  {found['verdict']} "
            f"(p = {found['p']:.3f})",
            f"  {'':<15}range {span([found['low'], found['high']])}, middle half "
            f"{span(found['quartiles'])}, interval {span(found['interval'])}"]


def _both(job: Figures, key: str) -> str:
    if job["ours"][key] is None:
        return "not known"
    return f"{job['ours'][key]:.3f} / {job['stock'][key]:.3f}"


def text(facts: Figures) -> str:
    """Return the facts as text for a terminal."""
    lines = [f"Linux {facts['kernel']}, vCPUs: {facts['cpus']}, queues: "
             f"{facts['queues']} of {facts['queue_size']} entries, {facts['rounds']} "
             f"rounds of {facts['seconds']} s; our driver / in-tree driver", ""]
    for job in facts["jobs"]:
        lines.append(job["job"])
        for key in _LABELS:
            lines += _ratio_lines(key, job[key]) if key in job else []
        lines.append(f"  interrupts per I/O {_both(job, 'interrupts_per_io')}, "
                     f"kicks per I/O {_both(job, 'kicks_per_io')}")
    return "\n".join([*lines, "", textwrap.fill(facts["words"], 78)])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python3 -m perf.wallclock", allow_abbrev=False,
        description="Compare our driver's speed with that of the in-tree driver.",
        epilog="The environment variable KERNEL sets the kernel to boot (6.12).")
    parser.add_argument("--cpus", type=int, default=1)
    parser.add_argument("--queues", type=int, default=1)
    parser.add_argument("--queue-size", type=int, default=QUEUE_SIZE,
                        help=f"entries of each queue ({QUEUE_SIZE})")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=int, default=SECONDS,
                        help=f"duration of each sample ({SECONDS})")
    parser.add_argument("--ramp", type=int, default=RAMP,
                        help=f"seconds before each sample ({RAMP})")
    parser.add_argument("--job", action="append", choices=list(JOBS),
                        help="run only this job; may be repeated")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser.parse_args()


def main() -> int:
    arguments = _arguments()
    repository.writable(_OUT.parent)
    try:
        facts = compare(os.environ.get("KERNEL", KERNEL), cpus=arguments.cpus,
                        queue_count=arguments.queues,
                        queue_size=arguments.queue_size,
                        rounds=arguments.rounds, seconds=arguments.seconds,
                        ramp=arguments.ramp,
                        jobs={name: words for name, words in JOBS.items()
                              if name in (arguments.job or JOBS)})
    except GuestError as error:
        say(f"error: {error}")
        return 1
    print(json.dumps(facts, indent=1) if arguments.json else text(facts))
    _OUT.write_text(json.dumps(facts, indent=1) + "\n")
    say(f"  wrote the figures to {_OUT.relative_to(_TOP)}")
    return 0


if __name__ == "__main__":
    ui.main(main)
