# SPDX-License-Identifier: GPL-2.0
"""Block devices of the device mapper in a guest: disks that fail or hang on demand.

    with device_mapper.Mapped(guest, "bad", device_mapper.linear(path, 0, 131072)) as bad:
        bad.load("0 131072 error")
        bad.suspend()

The guest needs the programs of vdpa.prepare().
"""

from typing import Self

from vm.guest import Guest

from .vdpa import PROGRAM

# The kernel makes the node by itself, and there is no udev to wait for.
_NO_UDEV = "--noudevrules --noudevsync"


def linear(path: str, first: int, sectors: int) -> str:
    """Return a line of a table that passes sectors on to the same ones of a disk."""
    return f"{first} {sectors} linear {path} {first}"


class Mapped:
    """A mapped device, for a with block.

    path: of its node, in the block; table: lines of dmsetup's.
    """

    def __init__(self, guest: Guest, name: str, *table: str):
        self._guest = guest
        self._name = name
        self._table = table
        self.path = ""

    def __enter__(self) -> Self:
        self._dmsetup(f"create {_NO_UDEV} {self._name}", *self._table)
        self.path = "/dev/" + self._dmsetup(
            f"info -c --noheadings -o blkdevname {self._name}")
        return self

    def __exit__(self, *error: object) -> None:
        # The device may be suspended still, and then its users would hang.
        self._dmsetup(f"resume {_NO_UDEV} {self._name}", check=not any(error))
        self._dmsetup(f"remove {_NO_UDEV} --retry {self._name}", check=not any(error))

    def load(self, *table: str) -> None:
        """Exchange the table.  Requests that come meanwhile wait for the new one."""
        self.suspend()
        self._dmsetup(f"load {self._name}", *table)
        self.resume()

    def suspend(self) -> None:
        """Let new requests wait; those that the disk below has complete first."""
        self._dmsetup(f"suspend --nolockfs --noflush {self._name}")

    def resume(self) -> None:
        """Let requests go on."""
        self._dmsetup(f"resume {_NO_UDEV} {self._name}")

    def message(self, text: str) -> None:
        """Send a message to the target at sector 0."""
        self._dmsetup(f"message {self._name} 0 {text}")

    def _dmsetup(self, words: str, *table: str, check: bool = True) -> str:
        """Run dmsetup, with a table on its standard input; return its output."""
        lines = "\n".join(table) or "nothing"
        return self._guest.run(f"{PROGRAM} dmsetup {words} << end\n{lines}\nend\n",
                               timeout=60, check=check).output.strip()
