# SPDX-License-Identifier: GPL-2.0
"""`make coverage`: which lines, branches and error labels of the driver the tests reach.

It runs the tests on kernels.COVERAGE and reads the counters of all guests (vm.gcov).
T= runs a part of them.  build/coverage/index.html shows each line.
tools/lint/unreached.txt has the lines that no test reaches, and why; lint.unreached
reads it.
"""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from host import deps, repository, ui
from host.ui import UserError, say, step
from vm import gcov, kernels

from . import executed, unreached
from .executed import Source

_TESTS = repository.TOP / "tools/testing"
_PAGE = repository.TOP / "build/coverage"
# The driver, which the goals are for.  vdpa_blk's figures are only shown.
_DRIVER = gcov.PARTS[0]
# At least so many percent must be reached.
GOALS = {"lines": 95.0, "branches": 85.0, "error labels": 100.0}
# pytest's status if all tests passed.
_PASSED = 0


@dataclass(frozen=True)
class Share:
    """How many of something were reached."""
    reached: int
    all: int

    @property
    def percent(self) -> float:
        """The share in percent; 100 if there is none to reach."""
        return 100.0 * self.reached / self.all if self.all else 100.0

    def __str__(self) -> str:
        return f"{self.percent:5.1f} % of {self.all}"


def shares(sources: list[Source]) -> dict[str, Share]:
    """Return the shares of lines, branches and error labels, by the names of GOALS."""
    lines = [count > 0 for one in sources for count in one.lines.values()]
    ways = [count > 0 for one in sources for counts in one.branches.values()
            for count in counts]
    labels = [reached for one in sources for reached in one.labels().values()]
    return {name: Share(sum(found), len(found))
            for name, found in zip(GOALS, (lines, ways, labels))}


def tracefile(sources: list[Source]) -> str:
    """Return what ran in lcov's format, for genhtml."""
    text = ""
    for one in sources:
        text += f"TN:\nSF:{repository.TOP / one.path}\n"
        for name, place in one.functions.items():
            calls = one.calls(name)
            if calls is not None:
                text += f"FN:{place.start},{name}\nFNDA:{calls},{name}\n"
        for line, ways in sorted(one.branches.items()):
            for number, count in enumerate(ways):
                # A branch of code that never ran has no count.
                taken = count if one.lines[line] else "-"
                text += f"BRDA:{line},0,{number},{taken}\n"
        for line, count in sorted(one.lines.items()):
            text += f"DA:{line},{count}\n"
        text += "end_of_record\n"
    return text


def write_page(sources: list[Source], directory: Path) -> None:
    """Write a page for each source, and index.html, into an empty directory."""
    info = directory / "coverage.info"
    info.write_text(tracefile(sources))
    done = subprocess.run(
        ["genhtml", "--quiet", "--branch-coverage", "--legend",
         "--title", "virtio_blk and vdpa_blk", "--prefix", repository.TOP,
         "--output-directory", directory, info], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        raise UserError(f"genhtml failed:\n{done.stdout.strip()[-400:]}")


def table(sources: list[Source]) -> str:
    """Return the shares by file, and the sum of each part."""
    rows = []
    for part in gcov.PARTS:
        files = [one for one in sources if one.path.startswith(f"{part}/")]
        if files:
            rows += [(one.path, shares([one])) for one in files]
            rows.append((f"{part}, all", shares(files)))
    width = max((len(name) for name, _ in rows), default=0)
    head = f"{'':{width}}  " + "".join(f"{name:<18}" for name in GOALS)
    lines = [f"{name:{width}}  " + "".join(f"{share!s:<18}" for share in found.values())
             for name, found in rows]
    return "\n".join(line.rstrip() for line in (head, *lines))


def missed(sources: list[Source], reasons: list[unreached.Entry]) -> list[str]:
    """Return what a run of all tests must reach and did not, one text for each.

    A line that is not reached needs a reason, and a reason an unreached line.  An error
    label counts as reached if its line has a reason.
    """
    driver = [one for one in sources if one.path.startswith(f"{_DRIVER}/")]
    compared = unreached.compare(driver, reasons)
    found = [f"not reached, and without a reason in {unreached.NAME}: {line}"
             for line in compared.unexplained]
    found += [f"reached, or gone: remove its reason from {unreached.NAME}: {entry}"
              for entry in compared.stale]
    for name, share in shares(driver).items():
        # The lines of a label have reasons of their own.
        if name != "error labels" and share.percent < GOALS[name]:
            found.append(f"{name}: {share.percent:.1f} %, and the goal is "
                         f"{GOALS[name]:.0f} %")
    return found


def report(sources: list[Source], lost: list[str]) -> None:
    """Print the figures, the lines that are not reached, and write the page."""
    write_page(sources, repository.emptied(_PAGE))
    print(table(sources))
    driver = [one for one in sources if one.path.startswith(f"{_DRIVER}/")]
    compared = unreached.compare(driver, unreached.read())
    print(f"\nnot reached in {_DRIVER}: {len(compared.explained)} lines with a reason in "
          f"{unreached.NAME}, {len(compared.unexplained)} without:")
    print("".join(f"  {line}\n" for line in compared.unexplained), end="")
    for why in lost:
        print(f"the counters of a guest are lost: {why}")
    print(f"\n{(_PAGE / 'index.html').relative_to(repository.TOP)}")


def _run_tests(expression: str) -> int:
    """Run the tests on kernels.COVERAGE and return pytest's status."""
    chosen = f"({expression}) and {kernels.COVERAGE}" if expression \
        else kernels.COVERAGE
    words = [] if expression else ["-n", "auto"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-k", chosen, *words,
         f"--ignore={_TESTS / 'arch'}", _TESTS], cwd=repository.TOP,
        env={**os.environ, "KERNEL": kernels.COVERAGE}).returncode


def main() -> int:
    """Run the tests, report, and return 1 if one failed or a goal was missed."""
    if os.environ.get("KERNEL", kernels.COVERAGE) != kernels.COVERAGE:
        raise UserError(f"KERNEL is {os.environ['KERNEL']}, and only "
                        f"{kernels.COVERAGE} counts what runs; leave KERNEL out")
    deps.need("coverage")
    reasons = unreached.read()
    expression = os.environ.get("T", "")
    # The tests would wait for it, and build it at the lowest priority.
    kernels.find(kernels.COVERAGE)
    gcov.forget()
    status = _run_tests(expression)
    with step("reading the counters of all guests"):
        sources = executed.sources(gcov.counters())
    if not sources:
        say("no guest handed over counters")
        return status or 1
    report(list(sources.values()), gcov.lost())
    if status != _PASSED:
        print("FAIL: tests failed, see above")
        return status
    if expression or os.environ.get("MINUTES"):
        print("the tests passed; the goals are for all of them, and this was a part")
        return 0
    wrong = missed(list(sources.values()), reasons)
    print("".join(f"MISSED: {one}\n" for one in wrong) or "PASS: the goals are reached")
    return 1 if wrong else 0


if __name__ == "__main__":
    ui.main(main)
