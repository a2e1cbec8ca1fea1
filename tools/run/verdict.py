# SPDX-License-Identifier: GPL-2.0
"""The checks that must all pass for `make run` to end with PASS.

A check has a name, the expected value, and the value that the run has seen.  If the run
did not reach the value, the check fails.  No check is about speed, because the speed of
a machine does not show whether the driver is correct.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from common.measure import Outcome
from common.queues import DiskQueues

from .run_record import Content, Run

_VERIFIED = 4 * 16

NOT_REACHED = "not reached"

_Fact = TypeVar("_Fact")


@dataclass(frozen=True)
class Check:
    """A check of a run, and what it found."""
    name: str
    expected: int | str
    seen: int | str

    @property
    def passed(self) -> bool:
        """Whether the run is as expected."""
        return type(self.seen) is type(self.expected) and self.seen == self.expected


@dataclass(frozen=True)
class Verdict:
    """What follows from the checks: "PASS" or "FAIL", and why."""
    word: str
    why: str
    checks: tuple[Check, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return checks, verdict and why for JSON."""
        return {"checks": [{**asdict(check), "passed": check.passed}
                           for check in self.checks],
                "verdict": self.word, "why": self.why}


def check(name: str, expected: int | str, fact: _Fact | None,
          find: Callable[[_Fact], int | str | None]) -> Check:
    """Return a check of the value that find() finds in a fact of the run.

    A fact or a value that is None was not reached.
    """
    seen = None if fact is None else find(fact)
    return Check(name, expected, NOT_REACHED if seen is None else seen)


def conclude(checks: Sequence[Check], error: str | None = None) -> Verdict:
    """Return the verdict of these checks; a run that ended by an error is a FAIL."""
    failed = [check for check in checks if not check.passed]
    wrong = [f"{check.name}: expected {check.expected}, seen {check.seen}"
             for check in failed if check.seen != NOT_REACHED]
    if error is not None:
        wrong.insert(0, error)
    if failed and not wrong:
        wrong = [f"{len(failed)} checks were not reached"]
    return Verdict("FAIL" if wrong else "PASS",
                   "\n".join(wrong) or f"all {len(checks)} checks passed",
                   tuple(checks))


# Of make run

def judge(run: Run) -> Verdict:
    """Return the verdict of a run; a run that ended by an error is a FAIL."""
    return conclude(checks(run), run.error)


def checks(run: Run) -> list[Check]:
    """Return the checks of a run."""
    return [
        check("null disk: queues", 4, run.queues, _itself),
        check("null disk: IRQ affinities equal to their queue's CPUs", 4,
              run.affinities_equal, _itself),
        check("file-system disk: queues", 4, run.disks,
              lambda disks: len(disks.files.queues)),
        check("file-system disk: IRQ affinities equal to their queue's CPUs", 4,
              run.disks, lambda disks: disks.files.affinities_equal),
        *_one_queue(run.one_queue),
        check("queues that raised interrupts, with jobs on each CPU", 4,
              run.interrupts, lambda found: found.queues),
        check("interrupts on a CPU outside the queue's CPUs", 0,
              run.interrupts, lambda found: found.elsewhere),
        check("MiB written and verified", _VERIFIED, run.write, _mib_read),
        check("MiB verified again after a reboot", _VERIFIED, run.reread, _mib_read),
        check("verify errors", 0, run.verify_errors, _itself),
        check("e2fsck's exit status", 0, run.fsck, lambda ended: ended.status),
        *(found for name in ("discard", "write zeroes", "write zeroes, may unmap")
          for found in _cleared(name, run.clearing, run.image)),
        check("qemu-img check's exit status", 0, run.image_check,
              lambda ended: ended.status),
        check("module measured as our driver", "out of tree", run.drivers,
              lambda drivers: drivers.ours),
        check("module measured as the in-tree driver", "in tree", run.drivers,
              lambda drivers: drivers.stock),
        check("the guest's kernel log", "no complaint", run.kernel_log, _itself),
    ]


def _one_queue(disk: DiskQueues | None) -> list[Check]:
    name = "null disk with num_request_queues=1"
    return [check(f"{name}: queues", 1, disk, lambda disk: len(disk.queues)),
            check(f"{name}: affinities equal", 1, disk,
                  lambda disk: disk.affinities_equal)]


def _cleared(name: str, clearing: dict[str, Content] | None,
             image: dict[str, Content] | None) -> list[Check]:
    """Return the checks of the blocks that a command has cleared."""
    return [check(f"{name}: reads back as", "zeroes", clearing,
                  lambda found: found[name].inside),
            check(f"{name}: blocks around it read back as", "the pattern", clearing,
                  lambda found: found[name].around),
            check(f"{name}: in the qcow2 file", "no data", image,
                  lambda found: found[name].inside),
            check(f"{name}: around it in the qcow2 file", "data", image,
                  lambda found: found[name].around)]


def _mib_read(outcome: Outcome) -> int | None:
    return None if outcome.read is None else outcome.read.bytes >> 20


def _itself(fact: _Fact) -> _Fact:
    return fact
