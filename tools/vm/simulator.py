# SPDX-License-Identifier: GPL-2.0
"""vblksim, the device that watches its driver: built here, run in a guest."""

import functools
import subprocess
from pathlib import Path

from . import cache, host
from .ui import UserError

_TOP = Path(__file__).resolve().parents[2]


@functools.cache
def build(program="vblksim"):
    """Build "vblksim" or its "selftest" and return the program's path."""
    host.need({"gcc": "gcc", "make": "make", "/usr/include/stdio.h": "libc6-dev",
               "/usr/include/linux/vduse.h": "linux-libc-dev"})
    place = _TOP / "build/vblksim" / program
    place.parent.mkdir(parents=True, exist_ok=True)
    with cache.lock(place.parent / ".lock", program):
        made = subprocess.run(
            ["make", "-s", "-C", _TOP / "tools/testing/vblksim",
             f"OUT={place.parent}", place],
            text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if made.returncode:
        raise UserError(f"building {program} failed; make said:\n{made.stdout}")
    return place


def install(guest, path):
    """Give a guest the program, and the modules that it needs.

    Return whether the guest's kernel can have such devices.
    """
    if guest.run("modprobe -q vduse && modprobe -q virtio_vdpa; "
                 "[ -e /dev/vduse/control ]", check=False).status:
        return False
    guest.put(build(), path)
    return True
