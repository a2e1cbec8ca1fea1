# SPDX-License-Identifier: GPL-2.0
"""The checks that must all pass for `make run` to end with PASS.

A check has a name, the expected value, and a function that finds the seen value in
the facts of the run (see vm.report).  If the fact is missing, the run did not reach
it and the check fails.  No check is about speed, because the speed of a machine does
not show whether the driver is correct.
"""

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


def judge(facts):
    """Add checks, verdict and why to the facts; facts with an error are a FAIL."""
    facts["checks"] = [_check(facts, *check) for check in CHECKS]
    failed = [check for check in facts["checks"] if not check["passed"]]
    wrong = [f"{check['name']}: expected {check['expected']}, seen {check['seen']}"
             for check in failed if check["seen"] != NOT_REACHED]
    if "error" in facts:
        wrong.insert(0, facts["error"])
    if failed and not wrong:
        wrong = [f"{len(failed)} checks were not reached"]
    facts["verdict"] = "FAIL" if wrong else "PASS"
    facts["why"] = "\n".join(wrong) or f"all {len(CHECKS)} checks passed"


def _check(facts, name, expected, find):
    try:
        seen = find(facts)
    except (KeyError, TypeError):
        seen = NOT_REACHED
    return {"name": name, "expected": expected, "seen": seen,
            "passed": type(seen) is type(expected) and seen == expected}
