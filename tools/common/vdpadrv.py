# SPDX-License-Identifier: GPL-2.0
"""vdpadrv, a driver in user space for vhost-vdpa, in a guest with vdpa_blk."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vm import image
from vm.guest import Guest
from vm.kernels import Kernel

from . import vdpa

_TOOLS = Path(__file__).resolve().parents[1]
# Its path in a guest.
PROGRAM = "/tmp/vdpadrv"


def install(guest: Guest) -> None:
    """Copy vdpadrv to PROGRAM in a guest."""
    guest.put(image.program(_TOOLS / "vdpadrv", guest.arch, _TOOLS / "vblksim/vdpa.c"),
              PROGRAM)


@contextlib.contextmanager
def guest_with(kernel: Kernel, module: Path | None = None,
               **options: Any) -> Iterator[Guest]:
    """Boot a guest with vdpa_blk and vdpadrv.

    module: see vdpa.prepare(); options: of Guest.
    """
    with Guest(kernel, parallel=False, qemu_args=vdpa.qemu_args(), **options) as guest:
        vdpa.prepare(guest, module)
        install(guest)
        yield guest


def drive(guest: Guest, node: str, words: str, timeout: int = 120,
          check: bool = True) -> str:
    """Run vdpadrv on a device's node and return its output.

    words: its command and options; timeout, in seconds, and check: see Guest.run().
    """
    command, _, options = words.partition(" ")
    return guest.run(f"{PROGRAM} {command} {node} {options}", timeout=timeout,
                     check=check).output
