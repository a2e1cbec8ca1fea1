# SPDX-License-Identifier: GPL-2.0
"""The contents that a disk may have if its power fails after any entry of a log.

QEMU logs all writes and flushes of the disk (backend.WriteLog).  The disk has a
volatile cache: data that was written before a flush is durable, and any part of later
data may be.  The log also shows which records are acknowledged: when fsync has
returned, writer.c writes a mark to the same disk, and only then further records.  So
at each entry the disk must have all records up to the last mark before it.

This does not detect a driver that completes a write early, and sends it later but
before the flush.
"""

import mmap
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from common.backend import Logged

_SECTOR = 512
# As in writer.c.
AREA_SECTORS = 2048
BATCH = 8
MARK_DISTANCE = 4096
_RECORD_MAGIC = 0x64726F6365527642
_MARK_MAGIC = 0x00006B72614D7642
_HEADER = struct.Struct("<QIIQQ")

# The content of a sector that holds no record.
_TORN = -1

Buffer = bytes | memoryview


class Extent(NamedTuple):
    """The sectors of a record in its writer's area."""
    first: int
    sectors: int


def mark_of(data: Buffer, seed: int, number: int) -> int:
    """Return the last acknowledged record that a writer's mark names.

    data: a sector, at least.  Return 0 if it is no mark of this writer.
    """
    if not _whole(data[:_SECTOR]):
        return 0
    magic, its_seed, its_number, record, _ = _HEADER.unpack_from(data)
    return record if (magic, its_seed, its_number) == \
        (_MARK_MAGIC, seed, number) else 0


def _whole(sector: Buffer) -> bool:
    """Return whether a sector has the right checksum."""
    return len(sector) == _SECTOR and \
        zlib.crc32(sector[:-4]) == int.from_bytes(sector[-4:], "little")


class Witness:
    """The possible contents of one writer's area on a raw disk, entry by entry.

    lost: sectors that may lack an acknowledged record, at some entry.
    acked: the last acknowledged record.
    """

    def __init__(self, seed: int, number: int, plan: Sequence[Extent]):
        """plan: first sector and count of each record, from the first one on."""
        self._seed = seed
        self._number = number
        self._plan = plan
        # For each sector the record that is durable, those that may be there, and
        # the oldest one that must be.
        self._safe = [0] * AREA_SECTORS
        self._maybe: dict[int, list[int]] = {}
        self._wanted = [0] * AREA_SECTORS
        self.acked = 0
        self.lost: set[int] = set()

    def _content(self, data: Buffer, place: int) -> int:
        magic, seed, number, record, its_place = _HEADER.unpack_from(data)
        return record if _whole(data) and (magic, seed, number, its_place) == \
            (_RECORD_MAGIC, self._seed, self._number, place) else _TORN

    def _sectors_of(self, record: int) -> range:
        first, count = self._plan[record - 1]
        return range(first, first + count)

    def _is_coming(self, place: int) -> bool:
        """Return whether a write in flight may cover a sector."""
        return any(place in self._sectors_of(record) for record
                   in range(self.acked + 1, self.acked + 1 + BATCH))

    def _look_at(self, place: int, content: int) -> None:
        """Note a sector as lost if it may not have this content."""
        wanted = self._wanted[place]
        if wanted and content < wanted and not (content == _TORN
                                                and self._is_coming(place)):
            self.lost.add(place)

    def write(self, place: int, data: Buffer) -> None:
        """Take a write to sectors of the area from place on."""
        for start in range(0, len(data), _SECTOR):
            content = self._content(data[start:start + _SECTOR], place)
            self._maybe.setdefault(place, []).append(content)
            self._look_at(place, content)
            place += 1

    def flush(self) -> None:
        """Take a flush: all written data is durable."""
        for place, contents in self._maybe.items():
            self._safe[place] = contents[-1]
        self._maybe.clear()

    def acknowledge(self, last: int) -> None:
        """Take an acknowledgement of all records up to last."""
        while self.acked < last:
            self.acked += 1
            for place in self._sectors_of(self.acked):
                self._wanted[place] = self.acked
        # The area is small, and any sector may be affected: check all.
        for place, wanted in enumerate(self._wanted):
            if wanted:
                for content in (self._safe[place], *self._maybe.get(place, ())):
                    self._look_at(place, content)


class Image:
    """The durable and the possible contents of a disk, entry by entry."""

    _CHUNK = 64 << 10
    # A disk may tear a write into pieces of this size.
    _PIECE = 4 << 10

    def __init__(self, size: int):
        self._size = size
        self._safe = mmap.mmap(-1, size)
        self._used: set[int] = set()
        self._maybe: list[Logged] = []

    def add(self, entry: Logged) -> None:
        """Take the next entry of the log."""
        if "flush" not in entry.flags:
            self._maybe.append(entry)
        if entry.flags & {"flush", "fua"}:
            for written in self._maybe:
                self._keep(written)
            self._maybe.clear()

    def _keep(self, entry: Logged) -> None:
        data = bytes(entry.size) if "discard" in entry.flags else entry.data
        end = entry.offset + len(data)
        self._safe[entry.offset:end] = bytes(data)
        self._used.update(range(entry.offset // self._CHUNK,
                                -(-end // self._CHUNK)))

    def store(self, path: Path, survives: Callable[[], bool]) -> None:
        """Write the disk's contents after a power cut to a file.

        survives: called for each piece that is not durable; returns whether to keep it.
        """
        with open(path, "r+b") as file:
            # Remove all previous contents.
            file.truncate(0)
            file.truncate(self._size)
            for chunk in self._used:
                start = chunk * self._CHUNK
                file.seek(start)
                file.write(self._safe[start:start + self._CHUNK])
            for entry in self._maybe:
                for offset, data in self._pieces(entry):
                    if survives():
                        file.seek(offset)
                        file.write(data)

    def _pieces(self, entry: Logged) -> Iterator[tuple[int, Buffer]]:
        """Yield offset and data of each piece that a write may be torn into."""
        if "discard" in entry.flags:
            return
        start, end = entry.offset, entry.offset + len(entry.data)
        while start < end:
            stop = min(end, (start // self._PIECE + 1) * self._PIECE)
            yield start, entry.data[start - entry.offset:stop - entry.offset]
            start = stop
