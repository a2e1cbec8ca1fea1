# SPDX-License-Identifier: GPL-2.0
"""Power cuts below vdpa_blk: what it acknowledges must be on the block device.

dm-log-writes, below the device, logs writes when they complete, and flushes.  The
checks are those of soak.power, whose writers use the device through our driver.
"""

import os
import random
from contextlib import contextmanager

import pytest

from common import vdpa, vdpadrv
from common.backend import WriteLog
from common.device_mapper import Mapped
from host import process
from soak import power
from vm.disk import Disk

LOG_BYTES = 512 << 20
SIZES = {kind: power.DATA_START + size for kind, size in power.SIZES.items()}
FLUSH, CONFIG_WCE = 1 << 9, 1 << 11

# 6.1 has no vDPA.
pytestmark = pytest.mark.kernels("6.12")


@pytest.fixture(scope="module")
def guest(kernel):
    """A guest with the device's module, the writers, and disks for data and log."""
    disks = [Disk(kind, "ram", SIZES[kind], queues=2) for kind in ("raw", "ext4")]
    disks += [Disk("log", "ram", LOG_BYTES), Disk("replay", "ram", SIZES["ext4"])]
    with vdpadrv.guest_with(kernel, memory=1024, disks=disks) as guest:
        guest.put(power.writer(guest.arch), "/run/writer")
        yield guest


class Log(WriteLog):
    """The log of dm-log-writes, on the disk "log"."""

    def __init__(self, guest, mapped):
        self._guest = guest
        self._mapped = mapped
        path = guest.disk_path("log")
        # It may have the log of another test.
        for size in (0, LOG_BYTES):
            os.truncate(path, size)
        super().__init__(path)

    def requests(self):
        """Return the requests with their data.

        dm-log-writes logs the last writes with a flush, which this adds.
        """
        marks = self._marks()
        self._guest.run(f"dd if=/dev/null of={self._mapped.path} count=0 "
                        "conv=notrunc,fsync status=none")
        self._mapped.message("mark end")
        assert process.wait_for(lambda: self._marks() > marks, 30)
        return [entry for entry in super().requests() if "mark" not in entry.flags]

    def _marks(self):
        return sum("mark" in entry.flags for entry in super(Log, self).requests())


@contextmanager
def logged(guest, kind, bus="virtio_vdpa", **settings):
    """A device of vdpa_blk above dm-log-writes: yield it and the log."""
    data, log = (f"/dev/{guest.dev(id)}" for id in (kind, "log"))
    with Mapped(guest, "logged",
                f"0 {SIZES[kind] // 512} log-writes {data} {log}") as mapped:
        with vdpa.Device(guest, mapped.path, bus=bus, workers=2, **settings) as device:
            yield device, Log(guest, mapped)


def record(guest, kind, seed, prepare="true", **settings):
    """Run the writers on a device; return what has reached the block device."""
    with logged(guest, kind, **settings) as (device, log):
        name = device.disk()
        return power.record(guest, {kind: log}, {kind: seed},
                            prepare.format(disk=name), {kind: name})[kind]


@pytest.mark.parametrize("write_cache", (1, 0))
def test_acknowledged_data_below_vdpa_blk(guest, write_cache):
    """Each prefix of the log has all data that was acknowledged before it."""
    counts = power.check_raw(record(guest, "raw", 5, write_cache=write_cache), guest.arch)
    assert counts["prefixes"] > 100
    assert counts[power.LOST] == 0


def test_file_system_below_vdpa_blk(guest):
    """A file system on any prefix of the log is clean, and has acknowledged records."""
    counts = power.check_replays(guest, "ext4", record(guest, "ext4", 6), 4,
                                 random.Random(1))
    assert counts["replays"] == 4
    assert counts["acknowledged bytes"] > 0
    assert counts[power.LOST] == counts[power.DIRTY] == 0


def test_flushes_that_do_not_reach_vdpa_blk(guest):
    """The check finds data that is lost because the driver does not flush."""
    recording = record(guest, "raw", 7, "echo write through > "
                       "/sys/block/{disk}/queue/write_cache")
    assert power.check_raw(recording, guest.arch)[power.LOST] > 0


@pytest.mark.parametrize("words,durable", (
    ("", False), (f"--refuse {FLUSH | CONFIG_WCE}", True), ("--write-through", True),
    (f"--refuse {FLUSH}", True)),
    ids=("cached", "no-flush", "writeback-0", "config-wce-alone"))
def test_writes_are_durable_without_flushes(guest, words, durable):
    """Writes are FUA unless the driver has a write cache that it can flush."""
    first, blocks = 4096, 500
    with logged(guest, "raw", bus="vhost_vdpa") as (device, log):
        output = guest.run(f"{vdpadrv.PROGRAM} survey {device.node()} --sector {first} "
                           f"--count {blocks} {words}").output
        assert "ok survey" in output and "failed" not in output
        sectors = {fua: set() for fua in (True, False)}
        for entry in log.requests():
            at = entry.offset // 512
            if entry.data and first <= at < first + blocks:
                sectors["fua" in entry.flags] |= set(range(at, at + entry.size // 512))
    written = set(range(first, first + blocks))
    assert sectors[durable] >= written
    if durable:
        assert not sectors[False] & written
