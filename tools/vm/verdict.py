# SPDX-License-Identifier: GPL-2.0
"""The checks that must all pass for `make run` to end with PASS.

A check has a name, the expected value, and a function that finds the seen value in
the facts of the run (see vm.report).  If the fact is missing, the run did not reach
it and the check fails.  No check is about speed, because the speed of a machine does
not show whether the driver is correct.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

_VERIFIED = 4 * 16

CHECKS = (
    ("null disk: queues", 4, lambda facts: facts["queues"]),
    ("null disk: IRQ affinities equal to their queue's CPUs", 4,
     lambda facts: facts["affinities_equal"]),
    ("file-system disk: queues", 4,
     lambda facts: len(facts["disks"]["files"]["queues"])),
    ("file-system disk: IRQ affinities equal to their queue's CPUs", 4,
     lambda facts: facts["disks"]["files"]["affinities_equal"]),
    ("null disk with num_request_queues=1: queues", 1,
     lambda facts: len(facts["one_queue"]["queues"])),
    ("null disk with num_request_queues=1: affinities equal", 1,
     lambda facts: facts["one_queue"]["affinities_equal"]),
    ("queues that raised interrupts, with jobs on each CPU", 4,
     lambda facts: facts["interrupts"]["queues"]),
    ("interrupts on a CPU outside the queue's CPUs", 0,
     lambda facts: facts["interrupts"]["elsewhere"]),
    ("MiB written and verified", _VERIFIED,
     lambda facts: facts["write"]["read"]["bytes"] >> 20),
    ("MiB verified again after a reboot", _VERIFIED,
     lambda facts: facts["reread"]["read"]["bytes"] >> 20),
    ("verify errors", 0, lambda facts: facts["verify_errors"]),
    ("e2fsck's exit status", 0, lambda facts: facts["fsck"]["status"]),
    *((f"{name}: {what}", expected,
       lambda facts, name=name, key=key: facts["clearing"][name][key])
      for name in ("discard", "write zeroes", "write zeroes, may unmap")
      for what, key, expected in (
          ("reads back as", "inside", "zeroes"),
          ("blocks around it read back as", "around", "the pattern"),
          ("in the qcow2 file", "image_inside", "no data"),
          ("around it in the qcow2 file", "image_around", "data"))),
    ("qemu-img check's exit status", 0,
     lambda facts: facts["image_check"]["status"]),
    ("module measured as our driver", "out of tree",
     lambda facts: facts["drivers"]["ours"]),
    ("module measured as the in-tree driver", "in tree",
     lambda facts: facts["drivers"]["stock"]),
    ("the guest's kernel log", "no complaint",
     lambda facts: facts["kernel_log"]),
)

NOT_REACHED = "not reached"


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

    def facts(self) -> dict:
        """Return checks, verdict and why, as vm.report has them."""
        return {"checks": [{**asdict(check), "passed": check.passed}
                           for check in self.checks],
                "verdict": self.word, "why": self.why}


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


def judge(facts):
    """Add checks, verdict and why to the facts; facts with an error are a FAIL."""
    checks = [Check(name, expected, _seen(facts, find))
              for name, expected, find in CHECKS]
    facts.update(conclude(checks, facts.get("error")).facts())


def _seen(facts, find):
    try:
        return find(facts)
    except (KeyError, TypeError):
        return NOT_REACHED
