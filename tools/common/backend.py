# SPDX-License-Identifier: GPL-2.0
"""A guest's disk as the host sees it: its data, its holes, its requests.

A test that writes and reads only through the driver does not find a driver that
makes the same mistake both ways.  The host is the second witness.
"""

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vm.guest import Guest

_LOG_FLAGS = {"flush": 1, "fua": 2, "discard": 4, "mark": 8}
_LOG_BLOCK = 512


class Backend:
    """The file behind a disk of a guest, with the backend "ram" or "raw"."""

    def __init__(self, guest: Guest, id: str):
        self._guest = guest
        self.id = id
        self._path = guest.disk_path(id)

    @property
    def path(self) -> Path:
        """The file."""
        if self._path is None:
            raise LookupError(f"no file backs {self.id}")
        return self._path

    def read(self, offset: int, size: int) -> bytes:
        """Return size bytes of the disk from an offset."""
        with open(self.path, "rb") as file:
            file.seek(offset)
            return file.read(size)

    def write(self, offset: int, data: bytes) -> None:
        """Overwrite the disk's data from an offset; the guest does not see it."""
        with open(self.path, "r+b") as file:
            file.seek(offset)
            file.write(data)

    def allocated(self) -> int:
        """Return for how many bytes the host has allocated memory or blocks."""
        with open(self.path, "rb") as file:
            os.fdatasync(file.fileno())
            return os.fstat(file.fileno()).st_blocks * 512

    def stats(self) -> dict[str, Any]:
        """Return QEMU's statistics of the guest's requests.

        QEMU counts discards only where they reach the file: discard-nb-ok,
        discard-nb-failed and discard-bytes-ok.
        """
        for row in self._guest.qmp("query-blockstats"):
            if row.get("node-name") == self.id:
                return {**row["stats"],
                        **row["parent"].get("driver-specific", {})}
        raise LookupError(f"QEMU has no statistics of {self.id}")

    def count(self, *names: str) -> tuple[int, ...]:
        """Return some of the statistics, as in count("flush_operations")."""
        stats = self.stats()
        return tuple(stats[name] for name in names)


@dataclass(frozen=True)
class Logged:
    """A request that reached a backend.

    flags: a subset of "flush", "fua" and "discard"; a plain write has none.  "mark" is no
    request: dm-log-writes writes one when the administrator wants it.
    offset, size: in bytes; data: the data of a write, empty otherwise.
    """
    flags: frozenset[str]
    offset: int
    size: int
    data: bytes | memoryview


class WriteLog:
    """The log of QEMU's filter blklogwrites in front of a backend.

    The disk's filters must include node.
    """

    def __init__(self, path: Path):
        path.touch()
        self._path = path
        self.node = {"driver": "blklogwrites", "log-sector-size": _LOG_BLOCK,
                     "log": {"driver": "file", "filename": str(path)}}

    def entries(self) -> list[tuple[set[str], int, int]]:
        """Return the requests: a list of (set of flags, sector, sectors)."""
        return [(set(entry.flags), entry.offset // _LOG_BLOCK,
                 entry.size // _LOG_BLOCK) for entry in self.requests()]

    def requests(self) -> list[Logged]:
        """Return the requests with their data: a list of Logged.

        The order is that in which the filter received them.
        """
        data = memoryview(self._path.read_bytes())
        found = []
        # The first block is a header, which QEMU does not keep up to date.
        place = _LOG_BLOCK
        while place < len(data):
            sector, sectors, flags, _ = struct.unpack_from("<QQQQ", data, place)
            names = frozenset(name for name, bit in _LOG_FLAGS.items()
                              if flags & bit)
            if not sectors and not names:
                break
            place += _LOG_BLOCK
            size = sectors * _LOG_BLOCK
            written = b"" if "discard" in names else data[place:place + size]
            found.append(Logged(names, sector * _LOG_BLOCK, size, written))
            place += len(written)
        return found
