# SPDX-License-Identifier: GPL-2.0
"""A scenario: something that goes wrong many times, and what must not come of it.

    def run(round):
        with Guest(round.kernel, driver=round.driver) as guest:
            while round.wants("cuts"):
                ...
                round.add("cuts")
                round.add("bytes lost", lost)

    SCENARIO = Scenario("powercut", "QEMU is killed ...", run,
                        goals={"cuts": 200}, each={"cuts": 20},
                        zero=("bytes lost",))

`make soak` runs it in rounds until what it has counted reaches the goals; a test
of `make check` plays one short round: Round(SCENARIO, kernel,
wanted={"cuts": 3}).play().
"""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass


def listed(counts):
    """Return counters as a text: "3 cuts, 0 bytes lost"."""
    return ", ".join(f"{count} {name}" for name, count in counts.items())


@dataclass(frozen=True)
class Scenario:
    """Something that goes wrong many times.

    name: what ONLY= calls it.
    what: a sentence for the report.
    run: called with a Round, once for each; raises an exception for what must
        not happen.
    goals: how many of each counter a full run takes.
    each: how many of them a round takes at most: as many as a guest should serve
        before the next one boots.
    zero: counters that have to stay 0.
    kernel: the one that it runs on unless told otherwise; more_kernels: further ones,
        each of which has figures of its own.
    drivers: those that it makes sense with, "ours" and maybe "stock".
    stock_kernel: the one to run the kernel's own driver on, if another.
    """
    name: str
    what: str
    run: Callable
    goals: dict
    each: dict
    zero: tuple = ()
    kernel: str = "7.3-debug"
    more_kernels: tuple = ()
    drivers: tuple = ("ours",)
    stock_kernel: str = "6.12"

    def kernels(self, driver):
        """Return the names of the kernels that it runs on with a driver."""
        return (self.kernel, *self.more_kernels) if driver == "ours" \
            else (self.stock_kernel,)


class Round:
    """One run of a scenario.

    kernel and driver are for Guest; seed makes random, a random.Random, which is
    all that is left to chance.  counts is what has been counted, ["cuts"] and so
    on.
    """

    def __init__(self, scenario, kernel, driver="ours", seed=1, wanted=None):
        """wanted: how many of each goal; as many as a round has unless given."""
        self.scenario = scenario
        self.kernel = kernel
        self.driver = driver
        self.seed = seed
        self.random = random.Random(seed)
        self.counts = Counter()
        self._wanted = wanted or scenario.each

    def wants(self, name):
        """Whether there are to be more of a counter."""
        return self.counts[name] < self._wanted.get(name, 0)

    def add(self, name, number=1):
        """Count something; 0 tells that it was looked for."""
        self.counts[name] += number

    def play(self):
        """Run the scenario and return what it counted.

        Raises NotZero if what has to be 0 is not, and whatever the scenario
        raises, with a note of the seed.
        """
        try:
            self.scenario.run(self)
            found = {name: self.counts[name] for name in self.scenario.zero
                     if self.counts[name]}
            if found:
                raise NotZero(f"{self.scenario.name}: {listed(found)}")
        except Exception as error:
            error.add_note(f"{self.scenario.name}, seed {self.seed}; so far: "
                           + (listed(self.counts) or "nothing"))
            raise
        return self.counts


class NotZero(Exception):
    """Something was counted that must not happen."""
