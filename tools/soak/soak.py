# SPDX-License-Identifier: GPL-2.0
"""make soak: run the scenarios until their figures are reached.

Each scenario runs in rounds, one guest or so each.  What they count is added to
build/soak/record.json, or the file that RECORD= names, after each round, so that a
run can be stopped and gone on with, and figures add up over runs and over those
that go on side by side.  A round that fails is in the record with its seed; SEED=
plays it again, and leaves the record alone.
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

_OUT = Path(__file__).resolve().parents[2] / "build/soak/record.json"
_FACTS = {"scenario": str, "driver": str, "counts": dict}
# So many rounds of a scenario may fail before the next one's turn.
_MAX_FAILURES = 3
_SEEDS = 1_000_000


class Record:
    """What all runs have counted, in a file."""

    def __init__(self, path):
        """Raises UserError if it is no record, or none can be written there."""
        self._path = path
        if not os.access(path.parent, os.W_OK):
            raise UserError(f"{path.parent} is not there or cannot be written; "
                            "make the directory of RECORD= first, or name another")
        self._read()

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
            if not (isinstance(facts, dict) and "error" in facts
                    and all(isinstance(facts.get(name), type)
                            for name, type in _FACTS.items())
                    and all(isinstance(count, int)
                            for count in facts["counts"].values())):
                raise ValueError(f"its entry {number} is not a round")

    def add(self, **facts):
        """Append a round to what the file has by now."""
        with cache.lock(self._path.parent, "the record"):
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
    """Return what a scenario has yet to count, by name."""
    left = {name: goal - record.sum(scenario, driver, name)
            for name, goal in scenario.goals.items()}
    return {name: count for name, count in left.items() if count > 0}


def _play(scenario, driver, kernel, seed):
    """Run a round; return (what goes on record of it, whether it went well).

    All rounds are whole ones, so that a seed stands for the same each time.
    """
    started = time.time()
    facts = {"scenario": scenario.name, "driver": driver, "seed": seed,
             "kernel": kernel.release, "commit": commit(),
             "date": time.strftime("%Y-%m-%d", time.gmtime(started))}
    round_ = Round(scenario, kernel, driver, seed)
    error = None
    try:
        round_.play()
    except UserError:
        raise
    except Exception as failure:
        error = str(failure) or type(failure).__name__
        say("".join(traceback.format_exception(failure)))
        say(f"  again: make soak ONLY={scenario.name} SEED={seed} "
            f"DRIVER={driver} KERNEL={kernel.name}")
    return {**facts, "counts": dict(round_.counts), "error": error,
            "seconds": round(time.time() - started)}, error is None


def _again(scenario, driver, kernel, seed):
    """Play the round of a seed, for whoever wants to see it; return an exit status."""
    facts, well = _play(scenario, driver, kernel, seed)
    print(f"{scenario.name}, seed {seed}: "
          + (", ".join(f"{count} {name}" for name, count in facts["counts"].items())
             or "nothing"))
    say("PASS" if well else "FAIL")
    return 0 if well else 1


def _soak(record, scenario, driver, kernel):
    """Run rounds of a scenario until it has counted enough."""
    failures = 0
    while (left := _left(record, scenario, driver)) and failures < _MAX_FAILURES:
        say(f"{scenario.name}: " + ", ".join(_figures(record, scenario, driver)))
        # Rounds differ, those of runs that go on side by side as well.
        facts, well = _play(scenario, driver, kernel, random.randrange(1, _SEEDS))
        record.add(**facts)
        failures += not well
        # What a kernel cannot do, say, is not waited for.
        if _left(record, scenario, driver) == left:
            return


def _figures(record, scenario, driver):
    """Return what a scenario has counted, as a list of texts."""
    figures = [f"{record.sum(scenario, driver, name)} of {goal} {name}"
               for name, goal in scenario.goals.items()]
    rounds = record.rounds(scenario, driver)
    for name in scenario.zero:
        looked = sum(name in facts["counts"] for facts in rounds)
        figures.append(f"{record.sum(scenario, driver, name)} {name}"
                       + (f" (looked for in {looked} of {len(rounds)} rounds)"
                          if looked < len(rounds) else ""))
    return figures


def summary(record, scenarios, driver):
    """Return a table of what is on record."""
    lines = []
    for scenario in scenarios:
        rounds = len(record.rounds(scenario, driver))
        failures = len(record.failures(scenario, driver))
        lines.append(f"{scenario.name:12} {rounds:3} rounds, {failures} failed: "
                     + ", ".join(_figures(record, scenario, driver)))
    return "\n".join(lines)


def choose(text, driver):
    """Return the scenarios that ONLY= and DRIVER= ask for."""
    if driver not in ("ours", "stock"):
        raise UserError(f"DRIVER is {driver!r}; it is ours or stock")
    fitting = {scenario.name: scenario for scenario in SCENARIOS
               if driver in scenario.drivers}
    chosen = {}
    for name in filter(None, map(str.strip, text.split(","))):
        if name not in [scenario.name for scenario in SCENARIOS]:
            raise UserError(f"no scenario {name!r}; ONLY is one or more, with commas "
                            f"between, of {', '.join(fitting)}")
        if name not in fitting:
            raise UserError(f"{name} is not for the kernel's own driver; what "
                            f"DRIVER={driver} is for is {', '.join(fitting)}")
        chosen[name] = fitting[name]
    return list(chosen.values()) or list(fitting.values())


def _kernel(scenario, driver):
    return kernels.find(os.environ.get("KERNEL") or (
        scenario.kernel if driver == "ours" else scenario.stock_kernel))


def main():
    """Run what ONLY, DRIVER, SEED and KERNEL ask for; 0 if all is well."""
    driver = os.environ.get("DRIVER") or "ours"
    scenarios = choose(os.environ.get("ONLY", ""), driver)
    if os.environ.get("SEED"):
        seed = ui.number("SEED", 1)
        if len(scenarios) != 1:
            raise UserError(f"SEED={seed} is of a round of one scenario; say of which, "
                            "as in ONLY=lost")
        host.need("build", "vm")
        return _again(scenarios[0], driver, _kernel(scenarios[0], driver), seed)
    path = Path(os.environ.get("RECORD") or _OUT)
    if path == _OUT:
        path.parent.mkdir(parents=True, exist_ok=True)
    record = Record(path)
    host.need("build", "vm")
    for scenario in scenarios:
        _soak(record, scenario, driver, _kernel(scenario, driver))
    print(summary(record, scenarios, driver))
    say(f"  left {os.path.relpath(path)}")
    bad = [scenario.name for scenario in scenarios
           if record.failures(scenario, driver) or _left(record, scenario, driver)]
    say(f"FAIL: {', '.join(bad)}" if bad else "PASS")
    return 1 if bad else 0


if __name__ == "__main__":
    ui.main(main)
