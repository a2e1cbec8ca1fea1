# SPDX-License-Identifier: GPL-2.0
"""What has to hold for `make run` to end in PASS.

Each check is its name, what is expected, and where in the facts that the run
has gathered (see vm.report) the value is.  A fact that is not there was not
reached, and fails its check.  No figure of speed is among them: how fast a
machine is says nothing about whether the driver is right.
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
    ("queues that interrupted, with jobs on each CPU", 4,
     lambda facts: facts["interrupts"]["queues"]),
    ("interrupts on a CPU that is not its queue's", 0,
     lambda facts: facts["interrupts"]["elsewhere"]),
    ("MiB written and verified", _VERIFIED,
     lambda facts: facts["write"]["read"]["bytes"] >> 20),
    ("MiB verified again after a restart", _VERIFIED,
     lambda facts: facts["reread"]["read"]["bytes"] >> 20),
    ("verify errors", 0, lambda facts: facts["verify_errors"]),
    ("e2fsck's exit status", 0, lambda facts: facts["fsck"]["status"]),
    *((f"{name}: {what}", expected,
       lambda facts, name=name, key=key: facts["clearing"][name][key])
      for name in ("discard", "write zeroes", "write zeroes, may unmap")
      for what, key, expected in (
          ("reads back as", "inside", "zeroes"),
          ("around it is", "around", "the pattern"),
          ("the qcow2 file holds there", "image_inside", "no data"),
          ("the qcow2 file holds around it", "image_around", "data"))),
    ("qemu-img check's exit status", 0,
     lambda facts: facts["image_check"]["status"]),
    ("measured as ours: a module that is", "out of tree",
     lambda facts: facts["drivers"]["ours"]),
    ("measured as the kernel's own: a module that is", "in tree",
     lambda facts: facts["drivers"]["stock"]),
    ("kernel log of the guest", "no complaint",
     lambda facts: facts["kernel_log"]),
)

NOT_REACHED = "not reached"


def judge(facts):
    """Add checks, verdict and why to the facts; error, if there, is a FAIL."""
    facts["checks"] = [_check(facts, *check) for check in CHECKS]
    failed = [check for check in facts["checks"] if not check["passed"]]
    wrong = [f"{check['name']}: expected {check['expected']}, seen {check['seen']}"
             for check in failed if check["seen"] != NOT_REACHED]
    if "error" in facts:
        wrong.insert(0, facts["error"])
    if failed and not wrong:
        wrong = [f"{len(failed)} checks were not reached"]
    facts["verdict"] = "FAIL" if wrong else "PASS"
    facts["why"] = "\n".join(wrong) or f"all {len(CHECKS)} checks hold"


def _check(facts, name, expected, find):
    try:
        seen = find(facts)
    except (KeyError, TypeError):
        seen = NOT_REACHED
    return {"name": name, "expected": expected, "seen": seen,
            "passed": type(seen) is type(expected) and seen == expected}
