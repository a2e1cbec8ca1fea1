# SPDX-License-Identifier: GPL-2.0
"""A scenario: a fault that happens many times, and the damage that it must not do.

    def run(round):
        with Guest(round.kernel, driver=round.driver) as guest:
            while round.wants("cuts"):
                ...
                round.add("cuts")
                round.add("bytes lost", lost)

    SCENARIO = Scenario("powercut", "QEMU is killed ...", run,
                        goals={"cuts": 200}, each={"cuts": 20},
                        zero=("bytes lost",))

`make soak` runs it in rounds until its counts reach the goals.  A test of `make check`
runs one short round: Round(SCENARIO, kernel, wanted={"cuts": 3}).play().
"""

import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from vm.kernels import Kernel


def listed(counts: Mapping[str, int]) -> str:
    """Return counters as a text: "3 cuts, 0 bytes lost"."""
    return ", ".join(f"{count} {name}" for name, count in counts.items())


@dataclass(frozen=True)
class Scenario:
    """A fault that happens many times.

    name: its name in ONLY=.
    what: a sentence for the report.
    run: called once for each Round; raises an exception if the test fails.
    goals: the count of each counter that a full run reaches.
    each: the largest count of each that a round reaches: as many as one guest should
        serve before the next one boots.
    zero: counters that must stay 0.
    parts: the number of parts that a full run consists of; a round plays one of them,
        Round.part, and each has to pass once.
    kernel: the default kernel; more_kernels: further ones, each with its own counts.
    drivers: the drivers that it can run on: "ours", and "stock" or not.
    stock_kernel: the kernel for the in-tree driver.
    """
    name: str
    what: str
    run: Callable[["Round"], object]
    goals: dict[str, int]
    each: dict[str, int]
    zero: tuple[str, ...] = ()
    parts: int = 1
    kernel: str = "7.3-debug"
    more_kernels: tuple[str, ...] = ()
    drivers: tuple[str, ...] = ("ours",)
    stock_kernel: str = "6.12"

    def kernels(self, driver: str) -> tuple[str, ...]:
        """Return the names of the kernels to run a driver on."""
        return (self.kernel, *self.more_kernels) if driver == "ours" \
            else (self.stock_kernel,)


class Round:
    """One run of a scenario.

    kernel and driver are for Guest.  All random choices come from random, a
    random.Random of seed.  counts are the counters so far: counts["cuts"] and so on.
    """

    def __init__(self, scenario: Scenario, kernel: Kernel, driver: str = "ours",
                 seed: int = 1, wanted: Mapping[str, int] | None = None):
        """wanted: the count of each goal; by default scenario.each."""
        self.scenario = scenario
        self.kernel = kernel
        self.driver = driver
        self.seed = seed
        self.random = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self._wanted = wanted or scenario.each

    @property
    def part(self) -> int:
        """The part of the scenario to play; it follows from the seed."""
        return self.seed % self.scenario.parts

    def wants(self, name: str) -> bool:
        """Return whether a counter is below its goal."""
        return self.counts[name] < self._wanted.get(name, 0)

    def add(self, name: str, number: int = 1) -> None:
        """Add to a counter; adding 0 records that the round has checked it."""
        self.counts[name] += number

    def play(self) -> Counter[str]:
        """Run the scenario and return its counters.

        Raises NotZero if a counter that must be 0 is not, and the exceptions of the
        scenario, all with a note of the seed.
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
    """A counter that must be 0 is not."""
