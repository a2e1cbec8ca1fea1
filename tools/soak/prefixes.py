# SPDX-License-Identifier: GPL-2.0
"""What a disk may hold if its power fails after any entry of a log of its writes.

The log is QEMU's, of all that came to the disk (backend.WriteLog).  The disk has a
volatile cache: what was written before a flush is there for good, of what came
later any part may be.  Which records have been acknowledged the log says itself:
writer.c, once fsync has returned, writes a mark to the same disk, and writes no
other record before that.  So at each entry all records up to the last mark before
it have to be there.

A write that a driver sends after it has called it done, but before the flush, goes
undetected here.
"""

import mmap
import struct
import zlib

_SECTOR = 512
# As in writer.c.
AREA_SECTORS = 2048
BATCH = 8
MARK_DISTANCE = 4096
_RECORD_MAGIC = 0x64726F6365527642
_MARK_MAGIC = 0x00006B72614D7642
_HEADER = struct.Struct("<QIIQQ")

# The content of a sector that no writer would have left there.
_TORN = -1


def mark_of(data, seed, number):
    """Return up to which record a writer's mark says that all are safe.

    data: a sector, at least.  0 if it is no such mark.
    """
    if not _whole(data[:_SECTOR]):
        return 0
    magic, its_seed, its_number, record, _ = _HEADER.unpack_from(data)
    return record if (magic, its_seed, its_number) == \
        (_MARK_MAGIC, seed, number) else 0


def _whole(sector):
    """Whether a sector has the checksum of what is in it."""
    return len(sector) == _SECTOR and \
        zlib.crc32(sector[:-4]) == int.from_bytes(sector[-4:], "little")


class Witness:
    """What the area of one writer on a raw disk may hold, entry by entry.

    lost: sectors that may be without what was acknowledged, at some entry.
    acked: the last record that is known to be.
    """

    def __init__(self, seed, number, plan):
        """plan: of each record, from the first one on, first sector and count."""
        self._seed = seed
        self._number = number
        self._plan = plan
        # Of each sector the record that is there for good, those that may be, and
        # the one that has to be.
        self._safe = [0] * AREA_SECTORS
        self._maybe = {}
        self._wanted = [0] * AREA_SECTORS
        self.acked = 0
        self.lost = set()

    def _content(self, data, place):
        magic, seed, number, record, its_place = _HEADER.unpack_from(data)
        return record if _whole(data) and (magic, seed, number, its_place) == \
            (_RECORD_MAGIC, self._seed, self._number, place) else _TORN

    def _sectors_of(self, record):
        first, count = self._plan[record - 1]
        return range(first, first + count)

    def _is_coming(self, place):
        """Whether a record may be on its way to a sector."""
        return any(place in self._sectors_of(record) for record
                   in range(self.acked + 1, self.acked + 1 + BATCH))

    def _look_at(self, place, content):
        """Note a sector as lost if this is not what it may hold."""
        wanted = self._wanted[place]
        if wanted and content < wanted and not (content == _TORN
                                                and self._is_coming(place)):
            self.lost.add(place)

    def write(self, place, data):
        """Some of the area's sectors, from a place on, were written to."""
        for start in range(0, len(data), _SECTOR):
            content = self._content(data[start:start + _SECTOR], place)
            self._maybe.setdefault(place, []).append(content)
            self._look_at(place, content)
            place += 1

    def flush(self):
        """All that was written is there for good."""
        for place, contents in self._maybe.items():
            self._safe[place] = contents[-1]
        self._maybe.clear()

    def acknowledge(self, last):
        """The records up to one are said to be safe."""
        while self.acked < last:
            self.acked += 1
            for place in self._sectors_of(self.acked):
                self._wanted[place] = self.acked
        # Few sectors are in the area, and any may have been waited for.
        for place, wanted in enumerate(self._wanted):
            if wanted:
                for content in (self._safe[place], *self._maybe.get(place, ())):
                    self._look_at(place, content)


class Image:
    """What a disk holds for good, and what it may hold, entry by entry."""

    _CHUNK = 64 << 10
    # What a disk with sectors of 512 bytes need not write as a whole.
    _PIECE = 4 << 10

    def __init__(self, size):
        self._size = size
        self._safe = mmap.mmap(-1, size)
        self._used = set()
        self._maybe = []

    def add(self, entry):
        """Take the next entry of the log."""
        if "flush" not in entry.flags:
            self._maybe.append(entry)
        if entry.flags & {"flush", "fua"}:
            for written in self._maybe:
                self._keep(written)
            self._maybe.clear()

    def _keep(self, entry):
        data = bytes(entry.size) if "discard" in entry.flags else entry.data
        end = entry.offset + len(data)
        self._safe[entry.offset:end] = bytes(data)
        self._used.update(range(entry.offset // self._CHUNK,
                                -(-end // self._CHUNK)))

    def store(self, path, survives):
        """Write what the disk holds after a power cut to a file.

        survives: called for each piece that is not there for good.
        """
        with open(path, "r+b") as file:
            # Nothing of what was there before.
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

    def _pieces(self, entry):
        """Return offset and data of what a write may be torn into."""
        if "discard" in entry.flags:
            return
        start, end = entry.offset, entry.offset + len(entry.data)
        while start < end:
            stop = min(end, (start // self._PIECE + 1) * self._PIECE)
            yield start, entry.data[start - entry.offset:stop - entry.offset]
            start = stop
