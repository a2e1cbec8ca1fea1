# SPDX-License-Identifier: GPL-2.0
"""make soak: run the scenarios until their figures are reached.

Each scenario runs in rounds, one guest or so each.  What they count is added to
build/soak/record.json, or the file that RECORD= names, after each round, so that a
run can be stopped and gone on with, and figures add up over runs and over those
that go on side by side; those of another KERNEL= are figures of their own.  A round
that fails is in the record with its seed; SEED= plays it again, and leaves the record
alone.
"""

import json
import os
import random
import time
import traceback
from pathlib import Path
from typing import NamedTuple

from vm import cache, host, kernels, ui
from vm.run import commit
from vm.ui import UserError, say

from . import (allocations, faults, fuzz, migration, mix, overlap, power, slow,
               vanish)
from .scenario import Round, Scenario, listed

SCENARIOS = (faults.LOST, faults.RESETS, power.SCENARIO, vanish.VANISH,
             migration.MIGRATION, mix.MIX, mix.MIX_DEBIAN, fuzz.SCENARIO,
             allocations.ALLOCATIONS, overlap.OVERLAP, slow.SLOW)

_OUT = Path(__file__).resolve().parents[2] / "build/soak/record.json"
# What a round on record has, and what is made of it here.
_FACTS = {"scenario": str, "driver": str, "kernel": str, "seed": int, "counts": dict,
          "error": (str, type(None))}
# So many rounds of a scenario may fail before the next one's turn.
_MAX_FAILURES = 3
_SEEDS = 1_000_000


class Job(NamedTuple):
    """A scenario, the driver to play it with, and the kernel by its name."""
    scenario: Scenario
    driver: str
    kernel: str

    def again(self, seed):
        """Return the command that plays a round once more."""
        return (f"make soak ONLY={self.scenario.name} SEED={seed} "
                f"DRIVER={self.driver} KERNEL={self.kernel}")


class Record:
    """What all runs have counted, in a file."""

    def __init__(self, path):
        """Raises UserError if it is no record, or none can be written there."""
        self._path = path.resolve()
        self._make_directory()
        self._read()

    def _make_directory(self):
        directory = self._path.parent
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot make {directory} for the record: "
                            f"{error.strerror}; name another with RECORD=") from error
        if not os.access(directory, os.W_OK):
            raise UserError(f"{directory}, which is to have the record, cannot be "
                            "written; name another with RECORD=")

    def _read(self):
        try:
            self._rounds = json.loads(self._path.read_text())
            self._check()
        except FileNotFoundError:
            self._rounds = []
        except (OSError, ValueError) as error:
            raise UserError(f"{self._path} is no record of make soak ({error}); "
                            "name another with RECORD=, or move it away") from error

    def _check(self):
        if not isinstance(self._rounds, list):
            raise ValueError("it is not a list of rounds")
        for number, facts in enumerate(self._rounds, 1):
            if not (isinstance(facts, dict)
                    and all(name in facts and isinstance(facts[name], type)
                            for name, type in _FACTS.items())
                    and all(isinstance(count, int)
                            for count in facts["counts"].values())):
                raise ValueError(f"its entry {number} is not a round")

    def add(self, **facts):
        """Append a round to what the file has by now."""
        # Whoever cleans up while a round is played takes the directory along.
        self._make_directory()
        lock = self._path.with_name(f"{self._path.name}.lock")
        with cache.lock(lock, "the record"):
            self._read()
            self._rounds.append(facts)
            cache.replace(self._path,
                          (json.dumps(self._rounds, indent=1) + "\n").encode())

    def rounds(self, job):
        """Return the rounds of a job."""
        return [facts for facts in self._rounds
                if (facts["scenario"], facts["driver"], facts["kernel"])
                == (job.scenario.name, job.driver, job.kernel)]

    def sum(self, job, name):
        """Return the sum of a counter over all rounds."""
        return sum(facts["counts"].get(name, 0) for facts in self.rounds(job))

    def failures(self, job):
        """Return the rounds that failed."""
        return [facts for facts in self.rounds(job) if facts["error"] is not None]

    def left(self, job):
        """Return what a job has yet to count, by name."""
        left = {name: goal - self.sum(job, name)
                for name, goal in job.scenario.goals.items()}
        return {name: count for name, count in left.items() if count > 0}


def _play(job, seed):
    """Run a round and return what goes on record of it.

    All rounds are whole ones, so that a seed stands for the same each time.
    """
    host.need("build", "vm")
    kernel = kernels.find(job.kernel)
    started = time.time()
    facts = {"scenario": job.scenario.name, "driver": job.driver, "seed": seed,
             "kernel": job.kernel, "release": kernel.release, "commit": commit(),
             "date": time.strftime("%Y-%m-%d", time.gmtime(started))}
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
    return {**facts, "counts": dict(round_.counts), "error": error,
            "seconds": round(time.time() - started)}


def _play_again(job, seed):
    """Play the round of a seed, for whoever wants to see it; return an exit status."""
    facts = _play(job, seed)
    print(f"{job.scenario.name}, seed {seed}: "
          + (listed(facts["counts"]) or "nothing"))
    say("PASS" if facts["error"] is None else "FAIL")
    return int(facts["error"] is not None)


def _soak(record, job):
    """Run rounds until a job has counted enough."""
    failures = 0
    while (left := record.left(job)) and failures < _MAX_FAILURES:
        say(f"{job.scenario.name}: " + ", ".join(_figures(record, job)))
        # Rounds differ, those of runs that go on side by side as well.
        facts = _play(job, random.randrange(1, _SEEDS))
        record.add(**facts)
        if facts["error"] is not None:
            failures += 1
        elif record.left(job) == left:
            # What a kernel cannot do, say, is not waited for.
            return


def _figures(record, job):
    """Return what a job has counted, as a list of texts."""
    figures = [f"{record.sum(job, name)} of {goal} {name}"
               for name, goal in job.scenario.goals.items()]
    rounds = record.rounds(job)
    for name in job.scenario.zero:
        looked = sum(name in facts["counts"] for facts in rounds)
        figures.append(f"{record.sum(job, name)} {name}"
                       + (f" (looked for in {looked} of {len(rounds)} rounds)"
                          if looked < len(rounds) else ""))
    return figures


def summary(record, jobs):
    """Return a table of what is on record, and of what has failed."""
    lines = []
    for job in jobs:
        failures = record.failures(job)
        lines.append(f"{job.scenario.name:12} {len(record.rounds(job)):3} rounds on "
                     f"{job.kernel}, {len(failures)} failed: "
                     + ", ".join(_figures(record, job)))
        for facts in failures:
            # A kernel's complaint begins in the second line.
            lines += [f"{'':12} failed: " + " ".join(facts["error"].split("\n")[:2]),
                      f"{'':12} again:  {job.again(facts['seed'])}"]
    return "\n".join(lines)


def choose(only, driver, kernel):
    """Return the jobs that ONLY=, DRIVER= and KERNEL= ask for."""
    if driver not in ("ours", "stock"):
        raise UserError(f"DRIVER is {driver!r}; it is ours or stock")
    jobs = {scenario.name: [Job(scenario, driver, name) for name in
                            ((kernel,) if kernel else scenario.kernels(driver))]
            for scenario in SCENARIOS if driver in scenario.drivers}
    # By name, for each is played once, however often it is named.
    chosen = {}
    for name in map(str.strip, only.split(",")) if only else jobs:
        if name not in jobs and name in [scenario.name for scenario in SCENARIOS]:
            raise UserError(f"{name} is not for the kernel's own driver; what "
                            f"DRIVER={driver} is for is {', '.join(jobs)}")
        if name not in jobs:
            raise UserError(f"no scenario {name!r}; ONLY is one or more, with commas "
                            f"between, of {', '.join(jobs)}")
        chosen[name] = jobs[name]
    return [job for found in chosen.values() for job in found]


def main():
    """Run what ONLY, DRIVER, SEED and KERNEL ask for; 0 if all is well."""
    jobs = choose(os.environ.get("ONLY"), os.environ.get("DRIVER") or "ours",
                  os.environ.get("KERNEL"))
    if seed := ui.number("SEED"):
        if len({job.scenario.name for job in jobs}) > 1:
            raise UserError(f"SEED={seed} is of a round of one scenario; say of which, "
                            "as in ONLY=lost")
        if len(jobs) > 1:
            raise UserError(f"SEED={seed} is of a round on one kernel; say KERNEL= one "
                            f"of {', '.join(job.kernel for job in jobs)}")
        return _play_again(jobs[0], seed)
    path = Path(os.environ.get("RECORD") or _OUT)
    record = Record(path)
    for job in jobs:
        _soak(record, job)
    print(summary(record, jobs))
    say(f"  left {os.path.relpath(path)}")
    bad = [job.scenario.name for job in jobs if record.failures(job) or record.left(job)]
    say(f"FAIL: {', '.join(bad)}" if bad else "PASS")
    return 1 if bad else 0


if __name__ == "__main__":
    ui.main(main)
