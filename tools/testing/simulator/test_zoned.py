# SPDX-License-Identifier: GPL-2.0
"""Host-managed zoned devices, on vblksim, which checks the driver.

The device is in the guest.  A rule that the driver breaks fails the test at the
end of its `with Sim(...)`.
"""

import re
import struct
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from common import fio, vblksim
from common.vblksim import Sim
from host import process
from testing import tier
from vm.guest import Guest

# On the debug kernel `make check` runs the tests in which memory errors are likely,
# `make check-full` all tests.
pytestmark = pytest.mark.kernels("6.12", full=("7.3-debug",))
on_debug_kernel = pytest.mark.kernels("6.12", "7.3-debug")

MIB = 1 << 20
ZONE = 4 * MIB
# 2 conventional zones, 14 sequential ones with a capacity of 3 of their 4 MiB, and
# a last one of half the size.
GEOMETRY: dict[str, Any] = {
    "features": "default,+zoned", "model": "hm", "capacity": "66M",
    "zone_sectors": "4M", "zone_conventional": 2, "zone_capacity": "3M",
    "max_open_zones": 4, "max_active_zones": 6,
    "write_granularity": 4096}


@pytest.fixture(scope="module")
def guest(kernel):
    """A guest in which vblksim can run."""
    with Guest(kernel) as guest:
        vblksim.prepare(guest)
        guest.run("modprobe zonefs 2> /dev/null; true")
        yield guest


def zones(guest, disk, options=""):
    """Return a dictionary for each zone that blkzone reports.

    start, len, cap and wptr are in sectors; wptr is relative to the zone's start.
    """
    found = []
    for line in guest.run(f"blkzone report {options} /dev/{disk}").output.splitlines():
        numbers = dict(re.findall(r"(start|len|cap|wptr):? (0x[0-9a-f]+)", line))
        state = re.search(r"zcond: *(\d+)\((\w+)\) \[type: (\d)", line)
        found.append({name: int(value, 16) for name, value in numbers.items()}
                     | {"state": state[2], "type": int(state[3])})
    return found


def blkzone(guest, command, disk, zone=None, check=True):
    """Run a command of blkzone on a zone, or on all."""
    where = "" if zone is None else \
        f"-o {zone * ZONE // 512} -l {ZONE // 512}"
    return guest.run(f"blkzone {command} {where} /dev/{disk}", check=check)


def write(guest, disk, zone, offset, size, check=True):
    """Write to a zone at an offset from its start, in one request."""
    return guest.run(
        f"dd if=/dev/urandom of=/dev/{disk} bs={size} count=1 "
        f"seek={zone * ZONE + offset}B oflag=direct conv=notrunc "
        "iflag=fullblock status=none", check=check)


def test_last_zone_ends_in_part_of_a_block(guest):
    """A last zone that rounding the capacity has cut ends with the disk."""
    sectors = 66 * MIB // 512
    with Sim(guest, **{**GEOMETRY, "blk_size": 4096,
                       "capacity": sectors + 3}) as sim:
        disk = sim.disk()
        assert guest.sysfs(f"/sys/block/{disk}/size") == str(sectors)
        last = zones(guest, disk)[-1]
        assert last["start"] + last["len"] == sectors
        assert last["cap"] == last["len"]


@on_debug_kernel
def test_zone_report(guest):
    """Reports and limits match the device's zones, also the short last one."""
    with Sim(guest, **GEOMETRY) as sim:
        disk = sim.disk()
        found = zones(guest, disk)
        assert len(found) == 17
        assert [zone["start"] for zone in found] == \
            [index * ZONE // 512 for index in range(17)]
        assert [zone["type"] for zone in found] == [1] * 2 + [2] * 15
        assert [zone["state"] for zone in found] == ["nw"] * 2 + ["em"] * 15
        assert all(zone["cap"] == 3 * 2048 for zone in found[2:-1])
        assert found[-1]["len"] == 2 * 2048
        # A report that begins in the middle of the disk.
        part = zones(guest, disk, f"-o {5 * ZONE // 512} -c 3")
        assert part == found[5:8]

        queue = f"/sys/block/{disk}/queue"
        for name, value in {
                "zoned": "host-managed", "nr_zones": 17, "max_open_zones": 4,
                "max_active_zones": 6, "chunk_sectors": ZONE // 512,
                "zone_write_granularity": 4096, "discard_max_bytes": 0,
                "write_zeroes_max_bytes": 0}.items():
            assert guest.sysfs(f"{queue}/{name}") == str(value), name


def test_many_zones(guest):
    """A report on more zones than fit into one request is complete."""
    with Sim(guest, **GEOMETRY | {"capacity": "600M", "zone_sectors": "64k",
                                  "zone_capacity": 0, "seg_max": 2}) as sim:
        found = zones(guest, sim.disk())
        assert len(found) == 9600
        assert found[-1]["start"] == 9599 * 128


def change_zone_states(guest: Guest, disk: str,
                       state: Callable[[int], tuple[str, int]]) -> None:
    """Take zone 4 of an empty disk through its states; at the end all zones are empty.

    state: a function that returns a zone's state and write pointer.
    """
    blkzone(guest, "open", disk, 4)
    assert state(4) == ("oe", 0)
    blkzone(guest, "close", disk, 4)
    assert state(4) == ("em", 0)
    write(guest, disk, 4, 0, 64 << 10)
    assert state(4) == ("oi", 128)
    blkzone(guest, "open", disk, 4)
    assert state(4) == ("oe", 128)
    blkzone(guest, "close", disk, 4)
    assert state(4) == ("cl", 128)
    write(guest, disk, 4, 64 << 10, 64 << 10)
    assert state(4) == ("oi", 256)
    blkzone(guest, "finish", disk, 4)
    assert state(4)[0] == "fu"
    blkzone(guest, "reset", disk, 4)
    assert state(4) == ("em", 0)
    for place in range(3):
        write(guest, disk, 4, place * MIB, MIB)
    assert state(4)[0] == "fu"
    write(guest, disk, 5, 0, 4096)
    blkzone(guest, "reset", disk)
    assert state(4) == state(5) == ("em", 0)


@on_debug_kernel
def test_zone_states(guest):
    """A zone's state and write pointer follow open, write, close, finish and reset."""
    with Sim(guest, **GEOMETRY) as sim:
        disk = sim.disk()

        def state(zone):
            found = zones(guest, disk)[zone]
            return found["state"], found["wptr"]

        change_zone_states(guest, disk, state)
    types = sim.report["types"]
    assert types.keys() >= {"zone_open", "zone_close", "zone_finish",
                            "zone_reset", "zone_reset_all", "zone_report"}


def test_zone_limits(guest):
    """Too many open or active zones fail with ETOOMANYREFS or EOVERFLOW."""
    guest.tolerate("I/O error, dev vd|error, dev vd|Buffer I/O error")
    with Sim(guest, **GEOMETRY) as sim:
        disk = sim.disk()
        for zone in range(4, 8):
            blkzone(guest, "open", disk, zone)
        result = blkzone(guest, "open", disk, 8, check=False)
        assert result.status and "Too many references" in result.output, \
            result.output
        for zone in range(4, 8):
            write(guest, disk, zone, 0, 4096)
            blkzone(guest, "close", disk, zone)
        for zone in (8, 9):
            write(guest, disk, zone, 0, 4096)
            blkzone(guest, "close", disk, zone)
        result = blkzone(guest, "open", disk, 10, check=False)
        assert result.status and "Value too large" in result.output, \
            result.output
        assert not blkzone(guest, "open", disk, 9, check=False).status


# Jobs of fio: in sequence, at random with resets of full zones, and from several
# CPUs at once.
JOBS = {
    "write": {"rw": "write", "bs": "16k", "verify": "crc32c", "size": "20m"},
    "randwrite": {"rw": "randwrite", "bs": "16k", "verify": "crc32c",
                  "size": "40m", "io_size": "24m"},
    "parallel": {"rw": "randwrite", "bs": "4k", "numjobs": 4, "size": "40m",
                 "io_size": "4m", "iodepth": 1, "ioengine": "psync"},
    "randrw": {"rw": "randrw", "bs": "8k", "size": "40m", "io_size": "16m"},
}


# With 0 the block layer emulates appends by writes, on kernels that support it.
@pytest.mark.parametrize("job,append", tier.usual(
    [(job, append) for job in JOBS for append in ("512k", 0)],
    [("parallel", "512k"), ("randrw", 0)]))
def test_fio_zone_mode(guest, job, append):
    """fio writes at the write pointers in its zone mode, and verifies its data."""
    with Sim(guest, **GEOMETRY, max_append_sectors=append) as sim:
        disk = sim.disk()
        report = fio.run(guest, f"/dev/{disk}", zonemode="zbd",
                         max_open_zones=4, offset="8m", job_max_open_zones=1,
                         **JOBS[job])
        assert fio.ios(report, "write") > 500


@pytest.mark.parametrize("ring", tier.usual(
    ("default,+zoned", "default,+zoned,+ring_packed", "default,+zoned,-indirect_desc"),
    ("default,+zoned", "default,+zoned,+ring_packed")))
def test_zones_on_each_ring(guest, ring):
    """Verified writes to zones work on each kind of ring."""
    with Sim(guest, **GEOMETRY | {"features": ring}) as sim:
        fio.run(guest, f"/dev/{sim.disk()}", zonemode="zbd", max_open_zones=4,
                offset="8m", **JOBS["write"])


# The superblock of a zonefs is in the first zone; Debian 12 has no mkfs for it.
def _zonefs():
    """Return the first block of a zonefs without options."""
    block = bytearray(struct.pack(
        "<II64s16sQIII", 0x5a4f4653, 0, b"test", bytes(range(16)), 0, 0, 0,
        0o640).ljust(4096, b"\0"))
    # The kernel's CRC lacks the last inversion.
    struct.pack_into("<I", block, 4, zlib.crc32(block) ^ 0xffffffff)
    return bytes(block)


def append_to_files(guest, disk):
    """Append to two files of a zonefs in parallel; compare with a copy."""
    guest.put(_zonefs(), "/tmp/zonefs")
    guest.run(
        f"dd if=/tmp/zonefs of=/dev/{disk} bs=4k oflag=direct status=none && "
        f"mkdir -p /tmp/zones && mount -t zonefs /dev/{disk} /tmp/zones")
    guest.run(
        "dd if=/dev/urandom of=/tmp/data bs=1M count=2 status=none\n"
        "for file in 0 1; do (for part in $(seq 0 31); do "
        "dd if=/tmp/data of=/tmp/zones/seq/$file bs=64k count=1 skip=$part "
        "oflag=append,direct,sync conv=notrunc status=none || exit; done) & "
        "done; wait; "
        "for file in 0 1; do "
        "[ $(stat -c %s /tmp/zones/seq/$file) = 2097152 ] && "
        "cmp /tmp/data /tmp/zones/seq/$file || exit; done; "
        "truncate -s 0 /tmp/zones/seq/0 && umount /tmp/zones", timeout=120)


@pytest.mark.parametrize("append", tier.usual(("512k", 0), ["512k"]))
def test_zonefs(guest, append):
    """Data that zonefs appends is intact, with zone append and without."""
    with Sim(guest, **GEOMETRY, max_append_sectors=append) as sim:
        append_to_files(guest, sim.disk())


# btrfs writes its data by parallel zone appends to one zone.
BTRFS = {**GEOMETRY, "capacity": "256M", "zone_conventional": 0,
         "zone_capacity": 0, "max_open_zones": 0, "max_active_zones": 0}


def make_btrfs(guest, disk):
    """Make a btrfs on a zoned disk and mount it."""
    if guest.run("modprobe -q btrfs; grep -w btrfs /proc/filesystems",
                 check=False).status:
        pytest.skip("this kernel has no btrfs")
    guest.run(f"mkfs.btrfs -q -f -m single -d single "
              f"-O zoned /dev/{disk} && mkdir -p /tmp/btrfs && "
              f"mount -t btrfs /dev/{disk} /tmp/btrfs", timeout=120)


# With 0 the block layer emulates appends by writes, on kernels that support it.
@pytest.mark.full
@pytest.mark.parametrize("append", tier.usual(("512k", "16k", 0), ["16k"]))
def test_btrfs(guest, append):
    """btrfs, which appends to zones and resets them, keeps its data."""
    with Sim(guest, **BTRFS, max_append_sectors=append) as sim:
        disk = sim.disk()
        make_btrfs(guest, disk)
        guest.run(
            "for n in 1 2 3 4; do cp -r /usr/sbin /tmp/btrfs/$n & done; wait; sync; "
            "rm -r /tmp/btrfs/1; echo 3 > /proc/sys/vm/drop_caches; "
            "for n in 2 3 4; do "
            "diff -r --no-dereference /usr/sbin /tmp/btrfs/$n || exit; done; "
            "umount /tmp/btrfs && "
            f"mount -t btrfs /dev/{disk} /tmp/btrfs && "
            "diff -r --no-dereference /usr/sbin /tmp/btrfs/2 && "
            "umount /tmp/btrfs", timeout=240)
    assert ("zone_append" in sim.report["types"]) == bool(append)


def test_append_reported_at_wrong_sector(guest):
    """The driver fails an append that the device reports outside its zone."""
    guest.tolerate("BTRFS|I/O error, dev vd|reports an append at")
    with Sim(guest, **BTRFS, max_append_sectors="512k") as sim:
        make_btrfs(guest, sim.disk())
        sim.ctl("script 'on type=zone_append: garbage'")
        guest.run("dd if=/dev/urandom of=/tmp/btrfs/file bs=64k count=4 conv=fsync",
                  check=False)
        assert "the device reports an append at sector" in guest.log()
        sim.ctl("script clear")
        guest.run("umount /tmp/btrfs")


def test_failed_zones(guest):
    """A report shows read-only and offline zones."""
    guest.tolerate("I/O error, dev vd|Buffer I/O error")
    with Sim(guest, **GEOMETRY) as sim:
        disk = sim.disk()
        write(guest, disk, 4, 0, 4096)
        sim.ctl("zone 4 readonly")
        sim.ctl("zone 5 offline")
        found = zones(guest, disk)
        assert (found[4]["state"], found[5]["state"]) == ("ro", "of")
        assert blkzone(guest, "reset", disk, 5, check=False).status
        assert not guest.run(
            f"dd if=/dev/{disk} of=/dev/null bs=4k count=1 iflag=direct "
            f"skip={4 * ZONE // 4096}", check=False).status


@on_debug_kernel
@pytest.mark.parametrize("behaviour", ("garbage", "nr_zones 0",
                                       "nr_zones 4000000000", "fail ioerr"))
def test_bad_report(guest, behaviour):
    """An invalid report is an error, and later reports work."""
    guest.tolerate("invalid zone|zones from sector|I/O error|failed to revalidate|"
                   "error")
    with Sim(guest, **GEOMETRY) as sim:
        disk = sim.disk()
        sim.ctl(f"script 'on type=zone_report: {behaviour}'")
        result = guest.run(f"blkzone report /dev/{disk}", check=False)
        assert result.status or not re.search("start", result.output), \
            result.output
        sim.ctl("script clear")
        assert len(zones(guest, disk)) == 17


# Zones that Linux does not support, and the message in the log.
REFUSED = {
    "size": ({"zone_sectors": "3M"}, "zones of 6144 sectors"),
    "no-size": ({"zone_sectors": 0}, "zones of 0 sectors"),
    "no-granularity": ({"write_granularity": 0}, "write granularity of 0 bytes"),
    "granularity": ({"write_granularity": 3000},
                    "write granularity of 3000 bytes"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_zoned_device_refused(guest, case):
    """The driver refuses zones that Linux does not support, and logs the reason."""
    settings, reason = REFUSED[case]
    before = guest.log().count(reason)
    with Sim(guest, **GEOMETRY | settings) as sim:
        assert process.wait_for(
            lambda: guest.log().count(reason) > before, 30), guest.log()[-2000:]
        assert sim.running


@pytest.mark.parametrize("model", tier.usual(("none", "ha"), ["ha"]))
def test_other_models(guest, model):
    """Host-aware and non-zoned devices are ordinary disks."""
    with Sim(guest, **GEOMETRY | {"model": model}) as sim:
        disk = sim.disk()
        assert guest.sysfs(f"/sys/block/{disk}/queue/zoned") == "none"
        fio.run(guest, f"/dev/{disk}", rw="randrw", bs="512", size="1m",
                offset="20m", verify="crc32c")
        guest.run(f"blkdiscard -l 1M /dev/{disk}")
    assert "discard" in sim.report["types"]


def resize(guest, sim, disk, mib):
    """Change the capacity, and wait until the disk has it.

    Until then a report on zones can fail: the device's are not those of the disk.
    """
    sim.ctl(f"resize {mib}M")
    assert process.wait_for(lambda: guest.sysfs(f"/sys/block/{disk}/size")
                            == str(mib * MIB // 512), 15)


@on_debug_kernel
def test_zoned_resize(guest):
    """A device that grows has more zones, which can be written."""
    with Sim(guest, **GEOMETRY) as sim:
        disk = sim.disk()
        resize(guest, sim, disk, 80)
        assert len(zones(guest, disk)) == 20
        write(guest, disk, 19, 0, 4096)
        assert zones(guest, disk)[19]["wptr"] == 8


@on_debug_kernel
def test_zones_lost_and_some_back(guest):
    """The guest survives when a zone with a write plug disappears in a resize.

    The block layer keeps a write plug for a zone that is partly written, and on its
    release updates a table with a byte for each zone.
    """
    with Sim(guest, **GEOMETRY) as sim:
        disk = sim.disk()
        write(guest, disk, 15, 0, 4096)
        for mib, count in (40, 10), (48, 12):
            resize(guest, sim, disk, mib)
            assert len(zones(guest, disk)) == count
        write(guest, disk, 11, 0, 4096)


@on_debug_kernel
def test_more_zones_than_ever(guest):
    """A disk that shrank can grow to more zones than it had at first."""
    with Sim(guest, **GEOMETRY) as sim:
        disk = sim.disk()
        for mib, count in (40, 10), (80, 20):
            resize(guest, sim, disk, mib)
            assert len(zones(guest, disk)) == count
        write(guest, disk, 19, 0, 4096)


@on_debug_kernel
def test_too_many_zones(guest):
    """The driver keeps a disk's size if a resize would make too many zones."""
    with Sim(guest, **GEOMETRY) as sim:
        disk = sim.disk()
        sim.ctl("set capacity 0x4000000000000")
        assert process.wait_for(lambda: "are more than 16777216 zones; give the "
                                "device larger zones" in guest.log(), 15)
        assert guest.sysfs(f"/sys/block/{disk}/size") == str(66 * MIB // 512)
        # vblksim itself has no zones with that capacity.
        sim.ctl("resize 66M")
        assert len(zones(guest, disk)) == 17
        write(guest, disk, 15, 0, 4096)
