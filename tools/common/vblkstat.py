# SPDX-License-Identifier: GPL-2.0
"""Build vblkstat, which shows disks and their queues, for any guest."""

import subprocess
from pathlib import Path

from host import cache, deps, repository
from host.ui import UserError

_TOP = Path(__file__).resolve().parents[2]


def build() -> Path:
    """Build a static vblkstat and return the program's path."""
    deps.need({"gcc": "gcc", "make": "make", "/usr/include/stdio.h": "libc6-dev"})
    place = repository.writable(_TOP / "build/vblkstat/shell")
    with cache.lock(place / ".lock", "vblkstat"):
        made = subprocess.run(
            # Without the path of the repository, which can have a space.
            ["make", "-s", "-C", _TOP / "tools/vblkstat",
             "OUT=../../build/vblkstat/shell", "LDFLAGS=-static -s"],
            text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if made.returncode:
        raise UserError("building vblkstat failed; the output of make:\n"
                        f"{made.stdout}")
    return place / "vblkstat"
