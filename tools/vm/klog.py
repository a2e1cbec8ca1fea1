# SPDX-License-Identifier: GPL-2.0
"""The guest's kernel log, and the errors and warnings that fail a test."""

import re
import time
from pathlib import Path

# The kernel's messages of bugs and hangs, whatever their cause.
SPLATS = (
    r"Kernel panic - not syncing",
    r"\bOops\b",
    r"\bBUG\b",
    r"\bWARNING: ",
    r"unable to handle|Unable to handle",
    r"general protection fault",
    r"invalid opcode:",
    r"divide error:",
    r"stack segment:",
    r"Attempted to kill init",
    # Locks, contexts, RCU
    r"possible recursive locking",
    r"possible circular locking",
    r"inconsistent lock state",
    r"possible irq lock inversion",
    r"Invalid wait context",
    r"bad unlock balance|lock held when returning to user space",
    r"trying to register non-static key",
    r"suspicious RCU usage",
    r"detected stalls|self-detected stall",
    r"sleeping function called from invalid context",
    r"scheduling while atomic",
    # Memory
    r"KASAN:|KCSAN:|KFENCE:|UBSAN:|KMSAN:",
    r"refcount_t: ",
    r"list_(add|del) corruption",
    r"Redzone overwritten|Poison overwritten|Object already free",
    r"new suspected memory leaks",
    r"DMA-API: ",
    # Hangs
    r"blocked for more than",
    r"soft lockup|hard LOCKUP",
    r"nobody cared",
    # Incomplete cleanup by a driver
    r"sysfs: cannot create duplicate filename",
    r"kobject_add_internal failed",
)

# Messages of a normal boot that match SPLATS.
_HARMLESS = (
    r"DMA-API: (preallocated|debugging|debug_)",
    r"Spectre V2 ?: WARNING",
    r"kernel command line|Kernel command line",
)

_SPLAT = re.compile("|".join(SPLATS))
# How many lines of a splat are shown; how many seconds the kernel gets to print it.
_FOLLOWING = 60
_SETTLE = 1.0
_TAIL = 25


class KernelLog:
    """The file to which QEMU writes the guest's serial console."""

    def __init__(self, path: Path):
        self._path = path
        self._seen = 0
        self._tolerated = [re.compile(pattern) for pattern in _HARMLESS]

    def size(self) -> int:
        """Return the size of the console's output in bytes."""
        return self._path.stat().st_size if self._path.exists() else 0

    def text(self) -> str:
        """Return the console's whole output."""
        return self._read(0).decode(errors="replace").replace("\r", "")

    def since(self, start: int) -> str:
        """Return the console's output after its first start bytes."""
        return self._read(start).decode(errors="replace").replace("\r", "")

    def tail(self, lines: int = _TAIL) -> str:
        """Return the last lines, indented."""
        found = self.text().strip().splitlines()[-lines:]
        return "\n".join(f"    {line}" for line in found) or "    (nothing)"

    def tolerate(self, pattern: str) -> None:
        """From now on ignore lines that match a regular expression."""
        self._tolerated.append(re.compile(pattern))

    def new_splat(self) -> str | None:
        """Return the next splat since the last call, or None.

        It is the first line that matches SPLATS, and the lines that follow.
        """
        # An incomplete last line is left for the next call.
        complete, newline, _ = self._read(self._seen).rpartition(b"\n")
        start = self._seen
        for line in (complete + newline).splitlines(keepends=True):
            if self._is_splat(line.decode(errors="replace")):
                return self._splat_at(start)
            start += len(line)
        self._seen = start
        return None

    def _splat_at(self, start: int) -> str:
        """Return the splat that starts at an offset in the file."""
        time.sleep(_SETTLE)
        data = self._read(start)
        self._seen = start + len(data)
        lines = data.decode(errors="replace").splitlines()
        return "\n".join(lines[:_FOLLOWING])

    def _read(self, start: int) -> bytes:
        try:
            with open(self._path, "rb") as file:
                file.seek(start)
                return file.read()
        except FileNotFoundError:
            return b""

    def _is_splat(self, line: str) -> bool:
        return (_SPLAT.search(line) is not None
                and not any(known.search(line) for known in self._tolerated))
