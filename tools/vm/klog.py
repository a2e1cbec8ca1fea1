# SPDX-License-Identifier: GPL-2.0
"""The guest's kernel log, and what must not be in it."""

import re
import time

# What the kernel prints when something is wrong with it, whoever is to blame.
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
    # Drivers that clean up badly
    r"sysfs: cannot create duplicate filename",
    r"kobject_add_internal failed",
)

# What looks like one of these and is part of a normal boot.
_HARMLESS = (
    r"DMA-API: (preallocated|debugging|debug_)",
    r"Spectre V2 ?: WARNING",
    r"kernel command line|Kernel command line",
)

_SPLAT = re.compile("|".join(SPLATS))
# How many lines of a splat are shown, and how long it may take to be printed.
_FOLLOWING = 60
_SETTLE = 1.0
_TAIL = 25


class KernelLog:
    """The file to which QEMU writes the guest's serial console."""

    def __init__(self, path):
        self._path = path
        self._seen = 0
        self._tolerated = [re.compile(pattern) for pattern in _HARMLESS]

    def size(self):
        """Return how many bytes the console has shown."""
        return self._path.stat().st_size if self._path.exists() else 0

    def text(self):
        """Return all that the console has shown."""
        return self._read(0).decode(errors="replace").replace("\r", "")

    def since(self, start):
        """Return what it has shown since it had a size of start bytes."""
        return self._read(start).decode(errors="replace").replace("\r", "")

    def tail(self, lines=_TAIL):
        """Return the last lines, indented."""
        found = self.text().strip().splitlines()[-lines:]
        return "\n".join(f"    {line}" for line in found) or "    (nothing)"

    def tolerate(self, pattern):
        """Pass over lines that match a regular expression from now on."""
        self._tolerated.append(re.compile(pattern))

    def new_splat(self):
        """Return what the kernel has complained about since the last call.

        That is the first line that is a splat and those that follow it, or
        None.
        """
        # A line that is still being written is left for the next time.
        complete, newline, _ = self._read(self._seen).rpartition(b"\n")
        start = self._seen
        for line in (complete + newline).splitlines(keepends=True):
            if self._is_splat(line.decode(errors="replace")):
                return self._splat_at(start)
            start += len(line)
        self._seen = start
        return None

    def _splat_at(self, start):
        """Return the splat that starts at a place in the file."""
        time.sleep(_SETTLE)
        data = self._read(start)
        self._seen = start + len(data)
        lines = data.decode(errors="replace").splitlines()
        return "\n".join(lines[:_FOLLOWING])

    def _read(self, start):
        try:
            with open(self._path, "rb") as file:
                file.seek(start)
                return file.read()
        except FileNotFoundError:
            return b""

    def _is_splat(self, line):
        return (_SPLAT.search(line) is not None
                and not any(known.search(line) for known in self._tolerated))
