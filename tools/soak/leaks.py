# SPDX-License-Identifier: GPL-2.0
"""Memory leaks of the driver, found by kmemleak."""

import re
import time

from vm.ui import say

# kmemleak does not report younger objects.
_YOUNG_SECONDS = 6
_KMEMLEAK = "/sys/kernel/debug/kmemleak"


def look(round, guest):
    """Count the driver's leaks if the kernel has kmemleak.

    The kernel must have booted with kmemleak=on.
    """
    if guest.run(f"[ -e {_KMEMLEAK} ]", check=False).status:
        return
    time.sleep(_YOUNG_SECONDS)
    report = guest.run(f"echo scan > {_KMEMLEAK}; echo scan > {_KMEMLEAK}; "
                       f"cat {_KMEMLEAK}", timeout=300).output
    leaks = [object for object in re.findall(
        r"^unreferenced object.*\n(?:  .*\n)*", report, re.MULTILINE)
        if "virtblk_" in object]
    round.add("scans for leaks")
    round.add("leaks", len(leaks))
    if leaks:
        say("".join(leaks))
