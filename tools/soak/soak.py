# SPDX-License-Identifier: GPL-2.0
"""make soak: run the scenarios until their figures are reached.

Each scenario runs in rounds, one guest or so each.  What they count is added to
build/soak/record.json, or the file that RECORD= names, after each round, so that a
run can be stopped and gone on with, and figures add up over runs and over those
that go on side by side.  A round that fails is in the record with its seed; SEED=
repeats it.
"""

import json
import os
import random
import time
import traceback
from pathlib import Path

from vm import cache, host, kernels, ui
from vm.run import commit
from vm.ui import UserError, say

from . import allocations, faults, fuzz, migration, mix, power, vanish
from .scenario import Round

SCENARIOS = (faults.LOST, faults.RESETS, power.SCENARIO, vanish.VANISH,
             migration.MIGRATION, mix.MIX, mix.MIX_DEBIAN, fuzz.SCENARIO,
             allocations.ALLOCATIONS)

_TOP = Path(__file__).resolve().parents[2]
_OUT = _TOP / "build/soak/record.json"
# So many rounds of a scenario may fail before the next one's turn.
_MAX_FAILURES = 3
_SEEDS = 1_000_000


class Record:
    """What all runs have counted, in a file."""

    def __init__(self, path):
        """Raises UserError if the file is there and no record."""
        self._path = path
        self._read()

    def _read(self):
        try:
            self._rounds = json.loads(self._path.read_text())
        except FileNotFoundError:
            self._rounds = []
        except (OSError, ValueError) as error:
            raise UserError(f"{self._path} is no record of make soak ({error}); "
                            "name another with RECORD=, or move it away") from error

    def add(self, **facts):
        """Append a round to what the file has by now."""
        _OUT.parent.mkdir(parents=True, exist_ok=True)
        with cache.lock(_OUT.with_suffix(".lock"), "the record"):
            self._read()
            self._rounds.append(facts)
            cache.replace(self._path,
                          (json.dumps(self._rounds, indent=1) + "\n").encode())

    def rounds(self, scenario, driver):
        """Return the rounds of a scenario with a driver."""
        return [facts for facts in self._rounds
                if (facts["scenario"], facts["driver"]) == (scenario.name, driver)]

    def sum(self, scenario, driver, name):
        """Return the sum of a counter over all rounds."""
        return sum(facts["counts"].get(name, 0)
                   for facts in self.rounds(scenario, driver))

    def failures(self, scenario, driver):
        """Return the rounds that failed."""
        return [facts for facts in self.rounds(scenario, driver)
                if facts["error"]]


def _left(record, scenario, driver):
    """Return what a scenario has yet to count."""
    left = {name: goal - record.sum(scenario, driver, name)
            for name, goal in scenario.goals.items()}
    return {name: count for name, count in left.items() if count > 0}


def _play(record, scenario, driver, kernel, seed, wanted):
    """Run one round and put it on record; return whether it went well."""
    started = time.time()
    facts = {"scenario": scenario.name, "driver": driver, "seed": seed,
             "kernel": kernel.release, "commit": commit(),
             "date": time.strftime("%Y-%m-%d", time.gmtime(started))}
    round_ = Round(scenario, kernel, driver, seed, wanted)
    error = None
    try:
        round_.play()
    except UserError:
        raise
    except Exception as failure:
        error = str(failure) or type(failure).__name__
        say("".join(traceback.format_exception(failure)))
        say(f"  again: make soak ONLY={scenario.name} SEED={seed} "
            f"DRIVER={driver}")
    record.add(**facts, counts=dict(round_.counts), error=error,
               seconds=round(time.time() - started))
    return error is None


def _soak(record, scenario, driver, kernel, seed):
    """Run rounds of a scenario until it has counted enough."""
    failures = 0
    while (left := _left(record, scenario, driver)) and failures < _MAX_FAILURES:
        say(f"{scenario.name}: " + ", ".join(
            f"{record.sum(scenario, driver, name)} of {goal} {name}"
            for name, goal in scenario.goals.items()))
        wanted = {name: min(count, left.get(name, 0))
                  for name, count in scenario.each.items()}
        # Rounds differ, those of runs that go on side by side as well.
        number = seed or random.randrange(1, _SEEDS)
        failures += not _play(record, scenario, driver, kernel, number, wanted)
        # What a kernel cannot do, say, is not waited for.
        if seed or _left(record, scenario, driver) == left:
            return


def summary(record, scenarios, driver):
    """Return a table of what is on record."""
    lines = [f"{'scenario':12} {'figures':50} failed"]
    for scenario in scenarios:
        if driver not in scenario.drivers:
            continue
        figures = [f"{record.sum(scenario, driver, name)} of {goal} {name}"
                   for name, goal in scenario.goals.items()]
        figures += [f"{record.sum(scenario, driver, name)} {name}"
                    for name in scenario.zero]
        rounds = record.rounds(scenario, driver)
        lines.append(f"{scenario.name:12} {', '.join(figures):50} "
                     f"{len(record.failures(scenario, driver))} of "
                     f"{len(rounds)} rounds")
    return "\n".join(lines)


def _choose(names):
    """Return the scenarios of a list of names with commas between."""
    by_name = {scenario.name: scenario for scenario in SCENARIOS}
    unknown = [name for name in names if name not in by_name]
    if unknown:
        raise UserError(f"no scenario {unknown[0]!r}; ONLY is one or more of "
                        + ", ".join(by_name))
    return [by_name[name] for name in names] or list(SCENARIOS)


def _seed(text):
    if text and not text.isdigit():
        raise UserError(f"SEED is {text!r}; it is a whole number, as a round that "
                        "failed has named it")
    return int(text or 0)


def main():
    """Run what ONLY, DRIVER, SEED and KERNEL ask for; 0 if all is well."""
    scenarios = _choose([name for name in os.environ.get("ONLY", "").split(",")
                         if name])
    driver = os.environ.get("DRIVER") or "ours"
    if driver not in ("ours", "stock"):
        raise UserError(f"DRIVER is {driver!r}; it is ours or stock")
    seed = _seed(os.environ.get("SEED", ""))
    host.need("build", "vm")
    path = Path(os.environ.get("RECORD") or _OUT)
    record = Record(path)
    for scenario in scenarios:
        if driver not in scenario.drivers:
            say(f"{scenario.name}: not for the kernel's own driver")
            continue
        name = os.environ.get("KERNEL") or \
            (scenario.kernel if driver == "ours" else scenario.stock_kernel)
        _soak(record, scenario, driver, kernels.find(name), seed)
    print(summary(record, scenarios, driver))
    say(f"  left {os.path.relpath(path)}")
    bad = [scenario.name for scenario in scenarios if driver in scenario.drivers
           and (record.failures(scenario, driver)
                or _left(record, scenario, driver))]
    say(f"FAIL: {', '.join(bad)}" if bad else "PASS")
    return 1 if bad else 0


if __name__ == "__main__":
    ui.main(main)
