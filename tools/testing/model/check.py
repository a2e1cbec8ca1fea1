# SPDX-License-Identifier: GPL-2.0
"""make model: check the Spin models of the driver exhaustively.

Each model has variants.  Variants of the driver as it is must hold.  Variants with a
known bug must fail, which detects a model that no longer shows the bug.  MODEL= names
one model.  Builds go to build/model.
"""

import functools
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from host import deps, repository, ui
from host.ui import UserError, say

_HERE = Path(__file__).resolve().parent
_OUT = _HERE.parents[2] / "build/model"
# Limits of Spin's checker: memory in MiB, and depth of its search in steps.
_MEMORY_MIB = 2000
_DEPTH = 2_000_000
# A variant that takes longer is an error, in seconds.
LIMIT = 900


@dataclass(frozen=True)
class Variant:
    """A model with some of its parts, which the comment at its top lists.

    bug: the restored bug, with which the model must fail; None for the driver as it
    is.  complaint: the error that the checker must then report.
    """
    model: str
    defines: str
    bug: str | None = None
    complaint: str = "invalid end state"

    @property
    def name(self) -> str:
        """The name in make model and in tests."""
        return "-".join([self.model, *self.defines.split()]).replace("=", "")


@dataclass(frozen=True)
class Result:
    """The checker's result: stored states, seconds, its first complaint.

    lines: the lines of the model with statements.  reached: those that ran in at
    least one process.  Both are empty if there is a complaint.
    """
    states: int
    seconds: float
    complaint: str | None
    lines: frozenset[int] = frozenset()
    reached: frozenset[int] = frozenset()


# Assertions: of why_dead(), use_vq(), complete() and config_work().
_WORKS = "device!=0"
_DELETED = "vq_there"
_OWNED = "owned[i]"
_NOT_LIVE = "state==0"

VARIANTS = (
    Variant("full_ring", "PLUGGED=2 DIRECT=0 ASYNC=1"),
    Variant("full_ring", "PLUGGED=1 DIRECT=0 ASYNC=2"),
    Variant("full_ring", "PLUGGED=0 DIRECT=2 ASYNC=1"),
    Variant("full_ring", "PLUGGED=1 DIRECT=0 ASYNC=2 ALONE"),
    Variant("full_ring", "PLUGGED=1 DIRECT=0 ASYNC=2 END_SINGLY"),
    Variant("full_ring", "PLUGGED=0 DIRECT=1 ASYNC=1 LIVENESS"),
    Variant("full_ring", "PLUGGED=2 DIRECT=0 ASYNC=1 OLD_UNSTOP",
            "a request refused but not listed yet is not run again"),
    Variant("full_ring", "PLUGGED=2 DIRECT=0 ASYNC=1 HANG_2023",
            "the hang after completion in batches, 2023"),
    Variant("full_ring", "PLUGGED=0 DIRECT=1 ASYNC=1 HANG_2023 LIVENESS",
            "the same, found by the claim all_end", "acceptance cycle"),
    Variant("full_ring", "PLUGGED=2 DIRECT=0 ASYNC=1 STOP_UNLOCKED",
            "the hctx is stopped without the lock"),
    Variant("kick", ""),
    Variant("kick", "EVENT"),
    Variant("kick", "PACKED"),
    Variant("kick", "PACKED EVENT"),
    Variant("kick", "EVENT WORK TIMES_OUT=1 REQUESTS=2"),
    Variant("kick", "PACKED EVENT WORK TIMES_OUT=1 REQUESTS=2"),
    Variant("kick", "NO_MB_KICK", "no barrier before the device's suppression is read"),
    Variant("kick", "EVENT NO_MB_KICK", "the same with an event index"),
    Variant("kick", "EVENT NO_RECHECK", "the ring is not polled after unmasking"),
    Variant("kick", "PACKED EVENT NO_MB_POLL", "no barrier before that poll"),
    Variant("kick", "NO_COMMIT", "commit_rqs does not kick"),
    Variant("own_ring", ""),
    Variant("own_ring", "EVENT"),
    Variant("own_ring", "NO_GUARD", "no timer polls where the core drops an interrupt"),
    Variant("own_ring", "EVENT NO_GUARD", "the same with an event index"),
    Variant("own_ring", "EVENT GUARD_SHORT", "the timer polls once"),
    Variant("own_ring", "NO_MB_KICK", "no barrier before the suppression is read"),
    Variant("own_ring", "EVENT NO_MB_POLL", "no barrier before the poll"),
    Variant("own_ring", "EVENT NO_RECHECK", "the ring is not polled after unmasking"),
    Variant("recovery", "ASKS=1 HOTPLUG=1 ADMIN"),
    Variant("recovery", "ASKS=1 HOTPLUG=1 CPUS_LOCK",
            "find_vqs takes cpus_read_lock while requests are held back"),
    Variant("recovery", "ASKS=1 TIMEOUT=1 FREEZER"),
    Variant("recovery", "ASKS=1 TIMEOUT=1 NO_SYNC",
            "reset does not wait for timeout handlers and callbacks", _DELETED),
    Variant("recovery", "ASKS=1 TAKE_BACK_FIRST",
            "requests are requeued before the device is reset", _OWNED),
    Variant("recovery", "ASKS=1 NO_REQUEUE", "the requeue list is not kicked"),
    Variant("recovery", "ASKS=1 CONFIG HOTPLUG=1"),
    Variant("recovery", "ASKS=1 CONFIG CONFIG_UNLOCKED",
            "config_work reads the configuration space during a reset", _NOT_LIVE),
    Variant("recovery", "GONE ASKS=1 HOTPLUG=1"),
    Variant("recovery", "ASKS=1 SUSPEND LESS FREEZER"),
    Variant("recovery", "GONE SUSPEND"),
    Variant("recovery", "SUSPEND ONLY_QUIESCED",
            "requests wait in a quiesced queue while a CPU goes offline"),
    Variant("recovery", "HANGS FUNCTION_RESET HOTPLUG=1 LESS FREEZER"),
    Variant("recovery", "HANGS FUNCTION_RESET CONFIG LESS"),
    Variant("recovery", "GONE FUNCTION_RESET HOTPLUG=1"),
    Variant("recovery", "HANGS FUNCTION_RESET WAIT_FOREVER",
            "a function reset waits for the hung device that it must repair"),
    Variant("recovery", "HANGS FUNCTION_RESET CONFIG CONFIG_FIRST",
            "a function reset waits for config_work, which waits for that device"),
    Variant("recovery", "HANGS FUNCTION_RESET LIMITS_IN_RETURN",
            "a return changes limits, and waits for requests that it holds back"),
    Variant("recovery", "REMOVE SECONDS=4 ROUNDS=2"),
    Variant("recovery", "REMOVE SECONDS=4 ROUNDS=2 BY_AGE",
            "a removal gives up because of one old request of a working disk", _WORKS),
    Variant("recovery", "REMOVE SECONDS=4 ROUNDS=2 IDLE_COUNTS",
            "a removal counts time in which nothing is in flight", _WORKS),
    Variant("recovery", "REMOVE SECONDS=5 ROUNDS=2 NUDGE_EARLY",
            "a removal gives up without a last poll of the rings", _WORKS),
    Variant("recovery", "REMOVE ASKS=1 SECONDS=1"),
    Variant("recovery", "REMOVE ASKS=1 SECONDS=1 ROUNDS=2 SILENT_STAYS",
            "a removal counts the silence before a reset", _WORKS),
    Variant("recovery", "REMOVE HANGS HOTPLUG=1"),
    Variant("recovery", "REMOVE HANGS SECONDS=4"),
    Variant("recovery", "REMOVE HANGS CONFIG"),
    Variant("recovery", "REMOVE HANGS CONFIG NOT_DYING",
            "a dead disk is not dying (6.1), and config_work waits at its queue"),
    Variant("recovery", "REMOVE GONE"),
    Variant("recovery", "REMOVE HANGS ASKS=1 SUSPEND LESS"),
    Variant("recovery", "REMOVE HANGS ASKS=1 FUNCTION_RESET LESS"),
)


def _run(argv: list[str], directory: Path, log: str, limit: float) -> str:
    """Run a program with its output in a file of the directory; return the output."""
    path = directory / log
    with open(path, "w") as file:
        try:
            status = subprocess.run(argv, cwd=directory, stdout=file, timeout=limit,
                                    stderr=subprocess.STDOUT).returncode
        except subprocess.TimeoutExpired:
            raise UserError(f"{shlex.join(argv)} did not end within {limit:.0f} s in "
                            f"{directory}; try again on a less busy machine"
                            ) from None
    text = path.read_text(errors="replace")
    # The checker's exit status does not depend on its result.
    if status and argv[0] != "./pan":
        raise UserError(f"{shlex.join(argv)} failed in {directory}:\n{text[-2000:]}")
    return text


def _complaint(text: str) -> str | None:
    """Return the first error that the checker reports, None if there is none."""
    found = re.search(r"^pan:\d+: (.*)$", text, re.MULTILINE)
    if found:
        return found[1]
    errors = re.search(r"errors: (\d+)", text)
    if not errors:
        raise UserError(f"Spin's checker did not finish:\n{text[-2000:]}")
    return None if errors[1] == "0" else "an error without a message"


def _exhaustive(text: str) -> bool:
    """Return whether the checker searched all states."""
    return not re.search(r"max search depth too small|out of memory|"
                         r"Search not completed|reached -DMEMLIM", text)


def _coverage(text: str, states: str) -> tuple[frozenset[int], frozenset[int]]:
    """Return the lines of a model that have statements, and those that ran.

    text: the checker's report; states: its list of all statements.  A statement of an
    inline is in each process that uses the inline, and counts if one of them ran it.
    """
    process = ""
    missed = set()
    for line in text.splitlines():
        if line.startswith("unreached in "):
            process = line.split()[-1]
        elif found := re.match(r"\t\S+\.pml:\d+, state (\d+), ", line):
            missed.add((process, found[1]))
    lines: set[int] = set()
    reached: set[int] = set()
    for line in states.splitlines():
        found = re.match(r"\tstate +(\d+) -\(tr.*?\S+\.pml:(\d+) => ", line)
        if line.startswith("proctype "):
            process = line.split()[1]
        elif found and "-end-" not in line:
            lines.add(int(found[2]))
            if (process, found[1]) not in missed:
                reached.add(int(found[2]))
    return frozenset(lines), frozenset(reached)


def unreached(model: str, results: Iterable[Result]) -> list[str]:
    """Return the lines of a model that no run of a holding variant reached."""
    lines: set[int] = set()
    reached: set[int] = set()
    for result in results:
        lines |= result.lines
        reached |= result.reached
    source = (_HERE / f"{model}.pml").read_text().splitlines()
    return [f"{model}.pml:{number} never runs: {source[number - 1].strip()}"
            for number in sorted(lines - reached)]


@functools.cache
def check(variant: Variant) -> Result:
    """Check a variant and return the result.

    Raises UserError if Spin or the compiler fails, or if the search was not complete
    without a complaint.
    """
    deps.need("model")
    directory = repository.emptied(_OUT / variant.name)
    started = time.monotonic()
    _run(["spin", "-a", *(f"-D{define}" for define in variant.defines.split()),
          str(_HERE / f"{variant.model}.pml")], directory, "spin.log", LIMIT)
    liveness = "LIVENESS" in variant.defines.split()
    # With few states the compiler takes longer than the search.
    few = variant.bug or variant.model == "recovery"
    _run(["gcc", "-O0" if few else "-O1", "-w",
          "-DNFAIR=3" if liveness else "-DSAFETY", f"-DMEMLIM={_MEMORY_MIB}",
          "-o", "pan", "pan.c"], directory, "gcc.log", LIMIT)
    text = _run(["./pan", f"-m{_DEPTH}", "-w22", *(["-a", "-f"] if liveness else [])],
                directory, "pan.log", LIMIT)
    complaint = _complaint(text)
    if complaint is None and not _exhaustive(text):
        raise UserError(f"the search of {variant.name} is not complete, see "
                        f"{directory}/pan.log: raise _DEPTH or _MEMORY_MIB in "
                        f"{Path(__file__).name}")
    states = re.search(r"([\d.e+]+) states, stored", text)
    covered = (frozenset[int](), frozenset[int]())
    if complaint is None and not liveness:
        covered = _coverage(text, _run(["./pan", "-d"], directory, "states.log", LIMIT))
    return Result(int(float(states[1])) if states else 0,
                  time.monotonic() - started, complaint, *covered)


def verdict(variant: Variant, result: Result) -> str | None:
    """Return the problem of a result, None if there is none."""
    if variant.bug is None and result.complaint:
        return f"{variant.name} fails: {result.complaint}"
    if variant.bug and not result.complaint:
        return (f"{variant.name} holds although it has a known bug ({variant.bug}): "
                "the model no longer shows the bug")
    if variant.bug and variant.complaint not in str(result.complaint):
        return (f"{variant.name} fails for another reason than its bug "
                f"({variant.bug}): expected {variant.complaint}, found "
                f"{result.complaint}")
    return None


def chosen(model: str | None) -> list[Variant]:
    """Return the variants of a model, or of all of them."""
    models = sorted({variant.model for variant in VARIANTS})
    if model and model not in models:
        raise UserError(f"MODEL is {model!r}; it must be one of {', '.join(models)}")
    return [variant for variant in VARIANTS if model in (None, "", variant.model)]


def holding(model: str) -> list[Variant]:
    """Return the variants of a model that must hold."""
    return [variant for variant in chosen(model) if variant.bug is None]


def main() -> int:
    """Check the models that MODEL selects; return 0 if there is no problem."""
    wrong = []
    for variant in chosen(os.environ.get("MODEL")):
        result = check(variant)
        problem = verdict(variant, result)
        say(f"  {'ok  ' if problem is None else 'FAIL'} {variant.name}: "
            f"{result.states:,} states, {result.seconds:.0f} s, "
            + (f"fails as it must: {variant.bug}" if variant.bug else "holds"))
        if problem:
            wrong.append(problem)
    for model in sorted({variant.model for variant in chosen(os.environ.get("MODEL"))}):
        wrong += unreached(model, map(check, holding(model)))
    for problem in wrong:
        print(problem, file=sys.stderr)
    say("FAIL" if wrong else "PASS")
    return int(bool(wrong))


if __name__ == "__main__":
    ui.main(main)
