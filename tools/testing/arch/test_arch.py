# SPDX-License-Identifier: GPL-2.0
"""The driver on other architectures, emulated: big-endian s390x, and arm64.

The numbers that the driver and the device exchange have no two significant bytes
alike, so that a wrong byte order gives another number.  The host checks the guest's
work in the file behind the disk.
"""

import contextlib
import hashlib
import random
import re
from pathlib import Path

import pytest

from common.backend import Backend
from vm import image
from vm.disk import Disk
from vm.guest import Guest

MIB = 1 << 20
SECTOR = 512

pytestmark = pytest.mark.kernels("6.1-s390x", "6.12-s390x", "6.1-arm64",
                                 "6.12-arm64")

# Disks of 2 TiB, of which the host stores only what was written.
CAPACITY = 0x1_0203_0408
SECTORS = (0, 0x0102_0308, CAPACITY - 8)
SERIAL = "a serial of 20 bytes"

# For each disk: its properties, whether it has VIRTIO_F_VERSION_1, and whether it
# has VIRTIO_F_RING_PACKED.
VERSION_1, RING_PACKED = 32, 34
DISKS = {
    "modern": ({}, True, False),
    "packed": ({"packed": True}, True, True),
    "legacy": ({"legacy": True}, False, False),
}
LIMITS = {
    "logical_block_size": 4096, "physical_block_size": 16384,
    "min_io_size": 0x0020_4000, "opt_io_size": 0x0204_0000,
    "queue_size": 128, "cyls": 0x1234, "heads": 0x12, "secs": 0x38,
    "discard_granularity": 0x8000, "max_discard_sectors": 0x0002_0340,
    "max_write_zeroes_sectors": 0x0003_0408,
}
each_disk = pytest.mark.parametrize("id", DISKS)


def disk(id, **properties):
    """Return a disk of 2 queues."""
    return Disk(id, "ram", CAPACITY * SECTOR, queues=2, **properties)


def fails_at(sector):
    """Return the filter that fails each read and write of a sector."""
    return {"driver": "blkdebug", "inject-error": [
        {"event": "none", "iotype": kind, "errno": 5, "sector": sector}
        for kind in ("read", "write")]}


@contextlib.contextmanager
def booted(kernel, disks, machine=None):
    """A guest with these disks and with blkctl."""
    with Guest(kernel, machine=machine, cpus=2, memory=512, root="initramfs",
               disks=disks) as guest:
        source = Path(__file__).with_name("blkctl.c")
        guest.put(image.program(source, guest.arch), "/bin/blkctl")
        yield guest


@pytest.fixture(scope="module")
def guest(kernel):
    disks = [disk(id, **properties) for id, (properties, _, _) in DISKS.items()]
    disks += [
        disk("serial", serial=SERIAL),
        disk("bad", filters=[fails_at(SECTORS[1])]),
        disk("limits", **LIMITS),
        disk("old-limits", legacy=True, **LIMITS),
    ]
    with booted(kernel, disks) as guest:
        yield guest


def noise(size, seed):
    """Return data in which no two sectors are alike and no sector is empty."""
    return random.Random(seed).randbytes(size)


def write(guest, id, sector, data, block):
    """Have the guest write, past its page cache, and flush."""
    guest.put(data, "/tmp/data")
    guest.run(f"blkctl write /dev/{guest.dev(id)} {sector * SECTOR} {len(data)} "
              f"{block} < /tmp/data")


def digest(guest, id, sector, size, block):
    """Return the SHA-256 of the data that the guest reads, past its page cache."""
    return guest.run(
        f"blkctl read /dev/{guest.dev(id)} {sector * SECTOR} {size} {block} "
        "| sha256sum").output.split()[0]


def queue_file(guest, id, name):
    return guest.sysfs(f"/sys/block/{guest.dev(id)}/queue/{name}")


def check_data(guest, id):
    """Guest and host read at each place what the other one wrote."""
    backend = Backend(guest, id)
    for sector in SECTORS:
        for block, size in (4096, 4096), (SECTOR, 3 * SECTOR):
            ours = noise(size, f"{id}, guest, {sector}, {size}")
            write(guest, id, sector, ours, block)
            assert backend.read(sector * SECTOR, size) == ours
            theirs = noise(size, f"{id}, host, {sector}, {size}")
            backend.write(sector * SECTOR, theirs)
            assert digest(guest, id, sector, size, block) == \
                hashlib.sha256(theirs).hexdigest()


# Configuration

@each_disk
def test_negotiation(guest, id):
    """The driver negotiates the disk's features, and has a queue for each CPU."""
    name = guest.dev(id)
    bits = guest.sysfs(f"/sys/block/{name}/device/features")
    _, modern, packed = DISKS[id]
    assert bits[VERSION_1] == str(int(modern))
    assert bits[RING_PACKED] == str(int(packed))
    assert guest.run(f"ls /sys/block/{name}/mq").output.split() == ["0", "1"]


@each_disk
def test_capacity(guest, id):
    """The disk has the device's capacity, of more than 32 bits of sectors."""
    name = guest.dev(id)
    assert guest.sysfs(f"/sys/block/{name}/size") == str(CAPACITY)
    assert guest.run(f"blockdev --getsize64 /dev/{name}").output.strip() == \
        str(CAPACITY * SECTOR)


def test_serial_of_20_bytes(guest):
    """The driver reads an ID of the full 20 bytes (GET_ID)."""
    assert guest.sysfs(f"/sys/block/{guest.dev('serial')}/serial") == SERIAL


@pytest.mark.parametrize("id", ("limits", "old-limits"))
def test_limits_in_both_byte_orders(guest, id):
    """The driver reads each multi-byte field of the configuration space correctly."""
    expected = {
        "logical_block_size": LIMITS["logical_block_size"],
        "physical_block_size": LIMITS["physical_block_size"],
        "minimum_io_size": LIMITS["min_io_size"],
        "optimal_io_size": LIMITS["opt_io_size"],
        "max_segments": LIMITS["queue_size"] - 2,
        "discard_granularity": LIMITS["discard_granularity"],
        "discard_max_bytes": LIMITS["max_discard_sectors"] * SECTOR,
        "write_zeroes_max_bytes": LIMITS["max_write_zeroes_sectors"] * SECTOR,
    }
    found = {name: int(queue_file(guest, id, name)) for name in expected}
    if byte_order_is_unclear(guest, id) and not found["discard_max_bytes"]:
        expected |= {"discard_granularity": found["discard_granularity"],
                   "discard_max_bytes": 0, "write_zeroes_max_bytes": 0}
    assert found == expected
    assert guest.run(f"blkctl geometry /dev/{guest.dev(id)}").output.split() == \
        [str(LIMITS[name]) for name in ("cyls", "heads", "secs")]


@each_disk
def test_resize_in_both_byte_orders(guest, id):
    """The disk follows the device's capacity, down and up again."""
    for capacity in (CAPACITY - 0x0304_0500, CAPACITY):
        guest.resize_disk(id, capacity * SECTOR)
        size = f"/sys/block/{guest.dev(id)}/size"
        guest.run(f"until [ $(cat {size}) = {capacity} ]; do sleep 0.1; done",
                  timeout=20)


# Data

@each_disk
def test_data_in_both_byte_orders(guest, id):
    """Guest and host read at each place what the other one wrote."""
    check_data(guest, id)


@each_disk
def test_both_queues(guest, id):
    """Large requests of two CPUs at once are written, each through its own queue."""
    name = guest.dev(id)
    size = 8 * MIB
    before = used(guest, id)
    output = guest.run(
        f"for cpu in 0 1; do head -c {size} /dev/urandom > /tmp/$cpu; done\n"
        "for cpu in 0 1; do\n"
        f"  taskset $((1 << cpu)) blkctl write /dev/{name} "
        f"$(((cpu + 1) << 29)) {size} {MIB} < /tmp/$cpu &\n"
        "done; wait\n"
        "sha256sum /tmp/0 /tmp/1; rm /tmp/0 /tmp/1", timeout=120).output
    sums = re.findall(r"^(\w{64}) ", output, re.MULTILINE)
    assert sums == [hashlib.sha256(Backend(guest, id).read(place * MIB, size))
                    .hexdigest() for place in (512, 1024)]
    assert all(behind > before
               for before, behind in zip(before, used(guest, id)))


def used(guest, id):
    """Return the device's used index of each queue."""
    return [guest.qmp("x-query-virtio-queue-status", queue=queue,
                      path=f"/machine/peripheral/{id}/virtio-backend")["used-idx"]
            for queue in (0, 1)]


@each_disk
def test_flush_by_cache_mode_on_arch(guest, id):
    """A flush reaches the device, unless its write-back cache is off."""
    backend = Backend(guest, id)
    mode = f"/sys/block/{guest.dev(id)}/cache_type"
    assert guest.sysfs(mode) == "write back"
    before, = backend.count("flush_operations")
    write(guest, id, 8, noise(4096, id), 4096)
    behind, = backend.count("flush_operations")
    assert behind > before
    guest.run(f"echo write through > {mode}")
    assert guest.sysfs(mode) == "write through"
    asked, = backend.count("flush_operations")
    write(guest, id, 8, noise(4096, id), 4096)
    assert backend.count("flush_operations") == (asked,)
    guest.run(f"echo write back > {mode}")
    assert guest.sysfs(mode) == "write back"


# Ranges

# (first sector, number of sectors).  In the wrong byte order the first one is another
# range of the same disk.
RANGES = ((0, 0x100), (SECTORS[1], 0x8010))
AROUND = 64 << 10


@pytest.fixture
def filled(guest, id):
    """A function that fills a range and its surroundings, from the host."""
    backend = Backend(guest, id)

    def fill(sector, sectors):
        start = max(sector * SECTOR - AROUND, 0)
        size = (sector + sectors) * SECTOR + AROUND - start
        # Up to the end of a range whose length is read in the wrong byte order.
        far = (0x10000 + 64) * SECTOR
        data = noise(max(size, far), f"{id}, {sector}")
        backend.write(start, data)
        return backend, start, data

    return fill


def check_range(backend, start, data, sector, sectors):
    """The range reads as zeroes, and all other filled sectors are unchanged."""
    first = sector * SECTOR - start
    expected = bytearray(data)
    expected[first:first + sectors * SECTOR] = bytes(sectors * SECTOR)
    found = backend.read(start, len(data))
    wrong = [place // SECTOR for place in range(0, len(data), SECTOR)
             if found[place:place + SECTOR] != expected[place:place + SECTOR]]
    assert not wrong, (f"{len(wrong)} sectors are wrong, from {wrong[0]} to "
                       f"{wrong[-1]} after sector {start // SECTOR}")


@pytest.mark.parametrize("sector, sectors", RANGES)
@each_disk
def test_discard_in_both_byte_orders(guest, id, filled, sector, sectors):
    """A discard zeroes and frees its range, and no other sector."""
    if queue_file(guest, id, "discard_max_bytes") == "0":
        assert byte_order_is_unclear(guest, id)
        return
    backend, start, data = filled(sector, sectors)
    full = backend.allocated()
    guest.run(f"blkdiscard -o {sector * SECTOR} -l {sectors * SECTOR} "
              f"/dev/{guest.dev(id)}")
    check_range(backend, start, data, sector, sectors)
    assert full - backend.allocated() == sectors * SECTOR


@pytest.mark.parametrize("sector, sectors", RANGES)
@each_disk
def test_write_zeroes_in_both_byte_orders(guest, id, filled, sector, sectors):
    """The range is zeroed, by one request if the device supports such requests."""
    backend, start, data = filled(sector, sectors)
    offered = queue_file(guest, id, "write_zeroes_max_bytes") != "0"
    assert offered or byte_order_is_unclear(guest, id)
    before = backend.count("wr_operations", "wr_bytes")
    guest.run(f"blkctl zeroout /dev/{guest.dev(id)} {sector * SECTOR} "
              f"{sectors * SECTOR}")
    behind = backend.count("wr_operations", "wr_bytes")
    check_range(backend, start, data, sector, sectors)
    assert behind[1] - before[1] == sectors * SECTOR
    if offered:
        assert behind[0] - before[0] == 1


def byte_order_is_unclear(guest, id):
    """Whether devices differ in the byte order of the ranges of such a disk."""
    return guest.disks[id].legacy and guest.arch.name == "s390x"


# Errors and reload

def test_error_names_its_sector(guest):
    """An error of the device fails the request, and the log names its sector."""
    name = guest.dev("bad")
    for way in "read", "write":
        result = guest.run(f"blkctl {way} /dev/{name} {SECTORS[1] * SECTOR} 512 "
                           "512 < /dev/zero", check=False)
        assert result.status == 1
        assert "Input/output error" in result.output
    errors = re.findall(rf"I/O error, dev {name}, sector (\d+) op 0x(\d)",
                        guest.run("dmesg").output)
    assert errors == [(str(SECTORS[1]), "0"), (str(SECTORS[1]), "1")]
    check = noise(4096, "after errors")
    write(guest, "bad", 0, check, 4096)
    assert Backend(guest, "bad").read(0, 4096) == check


def test_data_after_reload_on_arch(guest):
    """After the driver is unloaded and loaded again, the disks have their data."""
    place = MIB // SECTOR
    data = noise(MIB, "reload")
    for id in DISKS:
        write(guest, id, place, data, 4096)
    guest.unload()
    assert "vd" not in guest.run("ls /sys/block").output
    guest.load()
    for id in DISKS:
        assert digest(guest, id, place, MIB, 4096) == \
            hashlib.sha256(data).hexdigest()


@pytest.mark.kernels("6.12-arm64")
@pytest.mark.parametrize("ids", (("modern", "packed"), ("legacy",)),
                         ids=("modern", "legacy"))
def test_disks_on_arm64_mmio(kernel, ids):
    """Disks work on arm64 without PCI, with all devices modern or all legacy."""
    if "virt-mmio" not in kernel.arch.machines:
        pytest.skip(f"{kernel.arch.name} has no machine of that kind here")
    disks = [disk(id, **DISKS[id][0]) for id in ids]
    with booted(kernel, disks, machine="virt-mmio") as guest:
        for id in ids:
            test_negotiation(guest, id)
            test_capacity(guest, id)
            check_data(guest, id)
