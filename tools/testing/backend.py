# SPDX-License-Identifier: GPL-2.0
"""What the host sees of a guest's disk: its data, its holes, what it was asked.

A test that writes and reads through the driver alone believes a driver that is
wrong in the same way twice; this is the second witness.
"""

import os
import struct
from dataclasses import dataclass

_LOG_FLAGS = {"flush": 1, "fua": 2, "discard": 4}
_LOG_BLOCK = 512


class Backend:
    """The file behind a disk of a guest, with the backend "ram" or "raw"."""

    def __init__(self, guest, id):
        self._guest = guest
        self.id = id
        self.path = guest.disk_path(id)

    def read(self, offset, size):
        """Return what the disk holds at a place."""
        with open(self.path, "rb") as file:
            file.seek(offset)
            return file.read(size)

    def write(self, offset, data):
        """Change what the disk holds at a place, behind the guest's back."""
        with open(self.path, "r+b") as file:
            file.seek(offset)
            file.write(data)

    def allocated(self):
        """Return for how many bytes the host has set memory or blocks aside."""
        with open(self.path, "rb") as file:
            os.fdatasync(file.fileno())
            return os.fstat(file.fileno()).st_blocks * 512

    def stats(self):
        """Return what QEMU has counted of the guest's requests.

        Discards it counts only where they reach the file: discard-nb-ok,
        discard-nb-failed and discard-bytes-ok.
        """
        for row in self._guest.qmp("query-blockstats"):
            if row.get("node-name") == self.id:
                return {**row["stats"],
                        **row["parent"].get("driver-specific", {})}
        raise LookupError(f"QEMU has no statistics of {self.id}")

    def count(self, *names):
        """Return some of the statistics, as in count("flush_operations")."""
        stats = self.stats()
        return tuple(stats[name] for name in names)


@dataclass(frozen=True)
class Logged:
    """What a backend was asked.

    flags: some of "flush", "fua" and "discard"; a write without has none.
    offset, size: in bytes; data: what a write wrote, empty otherwise.
    """
    flags: frozenset
    offset: int
    size: int
    data: bytes | memoryview


class WriteLog:
    """What QEMU's filter blklogwrites has seen on the way to a backend.

    node is to be among the disk's filters.
    """

    def __init__(self, path):
        path.touch()
        self._path = path
        self.node = {"driver": "blklogwrites", "log-sector-size": _LOG_BLOCK,
                     "log": {"driver": "file", "filename": str(path)}}

    def entries(self):
        """Return what was asked: a list of (set of flags, sector, sectors)."""
        return [(set(entry.flags), entry.offset // _LOG_BLOCK,
                 entry.size // _LOG_BLOCK) for entry in self.requests()]

    def requests(self):
        """Return what was asked, with all that was written: a list of Logged.

        They are in the order in which they came to the filter.
        """
        data = memoryview(self._path.read_bytes())
        found = []
        # The first block is a header, which QEMU writes only now and then.
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
