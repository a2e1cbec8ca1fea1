# SPDX-License-Identifier: GPL-2.0
"""Build vblksim, the device that checks its driver, and install it in a guest."""

import functools
import subprocess
from pathlib import Path

from host import cache, deps, repository
from host.ui import UserError
from vm.guest import Guest

_TOP = Path(__file__).resolve().parents[2]


@functools.cache
def build(program: str = "vblksim") -> Path:
    """Build "vblksim" or its "selftest" and return the program's path."""
    deps.need({"gcc": "gcc", "make": "make", "/usr/include/stdio.h": "libc6-dev",
               "/usr/include/linux/vduse.h": "linux-libc-dev"})
    place = _TOP / "build/vblksim" / program
    repository.writable(place.parent)
    with cache.lock(place.parent / ".lock", program):
        made = subprocess.run(
            # Without the path of the repository, which can have a space.
            ["make", "-s", "-C", _TOP / "tools/vblksim",
             "OUT=../../build/vblksim", f"../../build/vblksim/{program}"],
            text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if made.returncode:
        raise UserError(f"building {program} failed; the output of make:\n"
                        f"{made.stdout}")
    return place


def install(guest: Guest, path: str) -> bool:
    """Load the modules that vblksim needs into a guest, and copy vblksim there.

    Return False if the guest's kernel has no VDUSE.
    """
    if guest.run("modprobe -q vduse && modprobe -q virtio_vdpa; "
                 "[ -e /dev/vduse/control ]", check=False).status:
        return False
    guest.put(build(), path)
    return True
