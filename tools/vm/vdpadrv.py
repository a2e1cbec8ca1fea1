# SPDX-License-Identifier: GPL-2.0
"""Build vdpadrv, a driver in user space for vhost-vdpa, and install it in a guest."""

from pathlib import Path

from . import image
from .guest import Guest

_TESTING = Path(__file__).resolve().parents[1] / "testing"
# Its path in a guest.
PROGRAM = "/tmp/vdpadrv"


def install(guest: Guest) -> None:
    """Copy vdpadrv to PROGRAM in a guest."""
    guest.put(image.program(_TESTING / "vdpadrv", guest.arch,
                            _TESTING / "vblksim/vdpa.c"), PROGRAM)
