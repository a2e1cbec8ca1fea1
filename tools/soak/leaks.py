# SPDX-License-Identifier: GPL-2.0
"""Memory that nobody has a pointer to any more, as kmemleak finds it."""

import re
import time

from vm.ui import say

# kmemleak takes what is younger for something still on its way.
_YOUNG_SECONDS = 6
_KMEMLEAK = "/sys/kernel/debug/kmemleak"


def look(round, guest):
    """Count what the driver has leaked, where the kernel has kmemleak.

    It has to have been told kmemleak=on when it booted.
    """
    if guest.run(f"[ -e {_KMEMLEAK} ]", check=False).status:
        return
    time.sleep(_YOUNG_SECONDS)
    said = guest.run(f"echo scan > {_KMEMLEAK}; echo scan > {_KMEMLEAK}; "
                     f"cat {_KMEMLEAK}", timeout=300).output
    leaks = [object for object in re.findall(
        r"^unreferenced object.*\n(?:  .*\n)*", said, re.MULTILINE)
        if "virtblk_" in object]
    round.add("scans for leaks")
    round.add("leaks", len(leaks))
    if leaks:
        say("".join(leaks))
