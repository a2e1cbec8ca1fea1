# SPDX-License-Identifier: GPL-2.0
"""Memory leaks, found by kmemleak."""

import re
import time

from host.ui import say
from vm.guest import Guest

from .scenario import Round

# kmemleak does not report younger objects.
_YOUNG_SECONDS = 6
_KMEMLEAK = "/sys/kernel/debug/kmemleak"


def look(round: Round, guest: Guest, functions: tuple[str, ...] = ("virtblk_",)) -> None:
    """Count leaks of the driver, or of other functions, if the kernel has kmemleak.

    The kernel must have booted with kmemleak=on.  functions: beginnings of the names of
    functions that allocate.
    """
    if guest.run(f"[ -e {_KMEMLEAK} ]", check=False).status:
        return
    time.sleep(_YOUNG_SECONDS)
    report = guest.run(f"echo scan > {_KMEMLEAK}; echo scan > {_KMEMLEAK}; "
                       f"cat {_KMEMLEAK}", timeout=300).output
    leaks = [object for object in re.findall(
        r"^unreferenced object.*\n(?:  .*\n)*", report, re.MULTILINE)
        if any(name in object for name in functions)]
    round.add("scans for leaks")
    round.add("leaks", len(leaks))
    if leaks:
        say("".join(leaks))
