# SPDX-License-Identifier: GPL-2.0
"""make soak: run the scenarios until their figures are reached.

Each scenario runs in rounds of one guest or so.  After each round its counts go to
the record, which is build/soak/record.json or the file that RECORD= names.  So a run
can be stopped and continued, and counts add up over runs, also over parallel ones.
Each KERNEL= has its own counts.  The record has failed rounds with their seeds; SEED=
repeats such a round and does not change the record.
"""

import dataclasses
import json
import os
import random
import time
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from host import cache, deps, ui
from host.repository import commit
from host.ui import UserError, say
from vm import kernels

from . import (allocations, crash, faults, fuzz, fuzz_device, kexec, migration, mix,
               overlap, power, restore, slow, vanish)
from .scenario import Round, Scenario, listed

SCENARIOS = (faults.LOST, faults.RESETS, power.SCENARIO, vanish.VANISH,
             migration.MIGRATION, restore.RESTORE, mix.MIX, mix.MIX_DEBIAN, fuzz.SCENARIO,
             allocations.ALLOCATIONS, overlap.OVERLAP, slow.SLOW, fuzz_device.SCENARIO,
             kexec.KEXEC, crash.CRASH)

_OUT = Path(__file__).resolve().parents[2] / "build/soak/record.json"
# The fields of a round in the record that this module needs, and their types.
_FACTS: dict[str, type | tuple[type, ...]] = {
    "scenario": str, "driver": str, "kernel": str, "seed": int, "counts": dict,
    "error": (str, type(None))}
# After so many failed rounds the next scenario runs.
_MAX_FAILURES = 3
_SEEDS = 1_000_000


@dataclass(frozen=True)
class Facts:
    """A round in the record.

    release, commit: of the kernel and of this tree; date: UTC; error: None if the round
    has passed; seconds: how long it took.
    """
    scenario: str
    driver: str
    seed: int
    kernel: str
    release: str | None
    commit: str | None
    date: str | None
    counts: dict[str, int]
    error: str | None
    seconds: int | None


def _facts(found: dict[str, Any]) -> Facts:
    """Return an entry of the record's file as Facts."""
    known: dict[str, Any] = {field.name: found.get(field.name)
                             for field in dataclasses.fields(Facts)}
    return Facts(**known)


class Job(NamedTuple):
    """A scenario, the driver to run it with, and the name of the kernel."""
    scenario: Scenario
    driver: str
    kernel: str

    def again(self, seed: int) -> str:
        """Return the command that repeats a round."""
        return (f"make soak ONLY={self.scenario.name} SEED={seed} "
                f"DRIVER={self.driver} KERNEL={self.kernel}")


class Record:
    """The counts of all runs, in a file."""

    _rounds: list[dict[str, Any]]

    def __init__(self, path: Path):
        """Raises UserError if the file is no record, or cannot be written."""
        self._path = path.resolve()
        self._make_directory()
        self._read()

    def _make_directory(self) -> None:
        directory = self._path.parent
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot create {directory} for the record: "
                            f"{error.strerror}; set RECORD= to another file") from error
        if not os.access(directory, os.W_OK):
            raise UserError(f"{directory} for the record is not writable; set RECORD= "
                            "to another file")

    def _read(self) -> None:
        try:
            self._rounds = json.loads(self._path.read_text())
            self._check()
        except FileNotFoundError:
            self._rounds = []
        except (OSError, ValueError) as error:
            raise UserError(f"{self._path} is no record of make soak ({error}); "
                            "set RECORD= to another file, or move it away") from error

    def _check(self) -> None:
        if not isinstance(self._rounds, list):
            raise ValueError("it is not a list of rounds")
        for number, facts in enumerate(self._rounds, 1):
            if not (isinstance(facts, dict)
                    and all(name in facts and isinstance(facts[name], type)
                            for name, type in _FACTS.items())
                    and all(isinstance(count, int)
                            for count in facts["counts"].values())):
                raise ValueError(f"its entry {number} is not a round")

    def add(self, **facts: Any) -> None:
        """Append a round to the file, to which other runs may have added rounds."""
        # make clean during a round removes the directory.
        self._make_directory()
        lock = self._path.with_name(f"{self._path.name}.lock")
        with cache.lock(lock, "the record"):
            self._read()
            self._rounds.append(facts)
            cache.replace(self._path,
                          (json.dumps(self._rounds, indent=1) + "\n").encode())

    def rounds(self, job: Job) -> list[Facts]:
        """Return the rounds of a job."""
        return [_facts(facts) for facts in self._rounds
                if (facts["scenario"], facts["driver"], facts["kernel"])
                == (job.scenario.name, job.driver, job.kernel)]

    def sum(self, job: Job, name: str) -> int:
        """Return the sum of a counter over all rounds."""
        return sum(facts.counts.get(name, 0) for facts in self.rounds(job))

    def failures(self, job: Job) -> list[Facts]:
        """Return the rounds that failed."""
        return [facts for facts in self.rounds(job) if facts.error is not None]

    def parts_left(self, job: Job) -> list[int]:
        """Return the parts of a job that have not passed yet."""
        passed = {facts.seed % job.scenario.parts for facts in self.rounds(job)
                  if facts.error is None}
        return sorted(set(range(job.scenario.parts)) - passed)

    def left(self, job: Job) -> dict[str, int]:
        """Return how much of each goal of a job is left: {name: count}."""
        left = {name: goal - self.sum(job, name)
                for name, goal in job.scenario.goals.items()}
        if job.scenario.parts > 1:
            left["parts"] = len(self.parts_left(job))
        return {name: count for name, count in left.items() if count > 0}


def _play(job: Job, seed: int) -> Facts:
    """Run a round and return its facts for the record.

    All rounds are complete, so that a seed means the same each time.
    """
    deps.need("build", "vm")
    kernel = kernels.find(job.kernel)
    started = time.time()
    described = commit()
    round_ = Round(job.scenario, kernel, job.driver, seed)
    error = None
    try:
        round_.play()
    except UserError:
        raise
    except Exception as failure:
        error = str(failure) or type(failure).__name__
        say("".join(traceback.format_exception(failure)))
        say(f"  again: {job.again(seed)}")
    return Facts(scenario=job.scenario.name, driver=job.driver, seed=seed,
                 kernel=job.kernel, release=kernel.release, commit=described,
                 date=time.strftime("%Y-%m-%d", time.gmtime(started)),
                 counts=dict(round_.counts), error=error,
                 seconds=round(time.time() - started))


def _play_again(job: Job, seed: int) -> int:
    """Repeat the round of a seed and print its counts; return an exit status."""
    facts = _play(job, seed)
    print(f"{job.scenario.name}, seed {seed}: "
          + (listed(facts.counts) or "nothing"))
    say("PASS" if facts.error is None else "FAIL")
    return int(facts.error is not None)


def _soak(record: Record, job: Job) -> None:
    """Run rounds until a job has reached its goals, fails too often or is stuck."""
    failures = 0
    while (left := record.left(job)) and failures < _MAX_FAILURES:
        say(f"{job.scenario.name}: " + ", ".join(_figures(record, job)))
        facts = _play(job, _seed(record, job))
        record.add(**dataclasses.asdict(facts))
        if facts.error is not None:
            failures += 1
        elif record.left(job) == left:
            # This kernel cannot count the rest, for example leaks.
            return


def _seed(record: Record, job: Job) -> int:
    """Return a seed for a part that is left; parallel runs have different seeds."""
    parts = job.scenario.parts
    return (random.randrange(1, _SEEDS // parts) * parts
            + random.choice(record.parts_left(job) or range(parts)))


def _figures(record: Record, job: Job) -> list[str]:
    """Return a job's counts as a list of texts."""
    parts = job.scenario.parts
    figures = [f"{parts - len(record.parts_left(job))} of {parts} parts"] \
        if parts > 1 else []
    figures += [f"{record.sum(job, name)} of {goal} {name}"
               for name, goal in job.scenario.goals.items()]
    rounds = record.rounds(job)
    for name in job.scenario.zero:
        checked = sum(name in facts.counts for facts in rounds)
        figures.append(f"{record.sum(job, name)} {name}"
                       + (f" (checked in {checked} of {len(rounds)} rounds)"
                          if checked < len(rounds) else ""))
    return figures


def summary(record: Record, jobs: Iterable[Job]) -> str:
    """Return a table of the record's counts and failed rounds."""
    lines = []
    for job in jobs:
        failures = record.failures(job)
        lines.append(f"{job.scenario.name:12} {len(record.rounds(job)):3} rounds on "
                     f"{job.kernel}, {len(failures)} failed: "
                     + ", ".join(_figures(record, job)))
        for facts in failures:
            # The kernel's message begins in the second line.
            said = " ".join((facts.error or "").split("\n")[:2])
            lines += [f"{'':12} failed: {said}",
                      f"{'':12} again:  {job.again(facts.seed)}"]
    return "\n".join(lines)


def choose(only: str | None, driver: str, kernel: str | None) -> list[Job]:
    """Return the jobs that ONLY=, DRIVER= and KERNEL= select."""
    if driver not in ("ours", "stock"):
        raise UserError(f"DRIVER is {driver!r}; it must be ours or stock")
    jobs = {scenario.name: [Job(scenario, driver, name) for name in
                            ((kernel,) if kernel else scenario.kernels(driver))]
            for scenario in SCENARIOS if driver in scenario.drivers}
    # By name, because each runs once, however often ONLY names it.
    chosen: dict[str, list[Job]] = {}
    for name in map(str.strip, only.split(",")) if only else jobs:
        if name not in jobs and name in [scenario.name for scenario in SCENARIOS]:
            raise UserError(f"{name} does not run on the in-tree driver; with "
                            f"DRIVER={driver} ONLY can be {', '.join(jobs)}")
        if name not in jobs:
            raise UserError(f"no scenario {name!r}; ONLY must be one or more, "
                            f"separated by commas, of {', '.join(jobs)}")
        chosen[name] = jobs[name]
    return [job for found in chosen.values() for job in found]


def main() -> int:
    """Run the scenarios that the variables select; return 0 if all passed."""
    jobs = choose(os.environ.get("ONLY"), os.environ.get("DRIVER") or "ours",
                  os.environ.get("KERNEL"))
    if seed := ui.number("SEED"):
        if len({job.scenario.name for job in jobs}) > 1:
            raise UserError(f"SEED={seed} repeats a round of one scenario; name it, "
                            "as in ONLY=lost")
        if len(jobs) > 1:
            raise UserError(f"SEED={seed} repeats a round on one kernel; set KERNEL= "
                            f"to one of {', '.join(job.kernel for job in jobs)}")
        return _play_again(jobs[0], seed)
    path = Path(os.environ.get("RECORD") or _OUT)
    record = Record(path)
    for job in jobs:
        _soak(record, job)
    print(summary(record, jobs))
    say(f"  wrote {os.path.relpath(path)}")
    bad = [job.scenario.name for job in jobs
           if record.failures(job) or record.left(job)]
    say(f"FAIL: {', '.join(bad)}" if bad else "PASS")
    return 1 if bad else 0


if __name__ == "__main__":
    ui.main(main)
