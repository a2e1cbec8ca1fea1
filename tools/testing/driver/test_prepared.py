# SPDX-License-Identifier: GPL-2.0
"""Prepared requests, on a kernel with tools/packaging/upstream/virtio_ring.patch.

No other kernel has them, so no test runs unless KERNEL=7.3-prepared, or a tree with the
patch, asks for it.
"""

import re
from pathlib import Path

import pytest

from common import counters, fio
from soak import faults
from testing import kmodule
from vm.disk import Disk
from vm.guest import Guest
from vm.kernels import Kernel

MIB = 1 << 20
INDIRECT_DESC = 28
# Properties of a disk, and whether its requests are prepared with own_ring=N.
DISKS: dict[str, tuple[dict, bool]] = {
    "packed": ({"packed": True}, True),
    "packed-large": ({"packed": True, "queue_size": 1024}, True),
    "packed-noevent": ({"packed": True, "event_idx": False}, True),
    "packed-platform": ({"packed": True, "iommu_platform": True}, True),
    "packed-direct": ({"packed": True, "indirect_desc": False}, False),
    "split": ({}, True),
    "split-large": ({"queue_size": 1024}, True),
    "split-noevent": ({"event_idx": False}, True),
    "split-platform": ({"iommu_platform": True}, True),
    "split-direct": ({"indirect_desc": False}, False)}
PREPARED = tuple(name for name, (_, prepared) in DISKS.items() if prepared)

pytestmark = pytest.mark.kernels()


@pytest.fixture(scope="module")
def patched(kernel: Kernel) -> Kernel:
    """The kernel, which must have prepared requests."""
    if not kernel.prepared:
        pytest.skip(f"{kernel.name} has no prepared requests")
    return kernel


@pytest.fixture(scope="module")
def guest(patched):
    """A guest that runs no ring itself, with one disk for each kind of ring."""
    disks = [Disk(name, "ram", 64 * MIB, queues=2, **properties)
             for name, (properties, _) in DISKS.items()]
    with Guest(patched, parallel=True, disks=disks, params="own_ring=N") as guest:
        yield guest


def is_prepared(guest: Guest, id: str) -> bool:
    """Return whether a disk's requests are prepared; sysfs, debugfs and log agree."""
    disk = guest.dev(id)
    queue = counters.of_queue(guest, id)
    (line,) = [line for line in guest.log().splitlines()
               if f"[{disk}] " in line and "read/poll queues" in line][-1:]
    assert line.endswith(", prepared requests") == bool(queue["prepared"])
    assert line.endswith(", own ring") == bool(queue["own_ring"])
    assert guest.sysfs(f"/sys/block/{disk}/own_ring") == str(queue["own_ring"])
    return bool(queue["prepared"])


def verify(guest: Guest, id: str, **options) -> None:
    """Write requests of 1 to 256 segments from all CPUs, and compare what is read."""
    fio.run(guest, f"/dev/{guest.dev(id)}", rw="randrw", bsrange="512-1m", size="4m",
            numjobs=4, offset_increment="16m", iodepth=16, verify="crc32c",
            cpus_allowed="0-3", cpus_allowed_policy="split", **options)


@pytest.mark.parametrize("id", DISKS)
def test_rings_with_prepared_requests(guest, id):
    """Rings with indirect descriptors take prepared requests, and data is right."""
    expected = DISKS[id][1]
    assert is_prepared(guest, id) == expected
    features = guest.sysfs(f"/sys/block/{guest.dev(id)}/device/features")
    assert features[INDIRECT_DESC] == str(int(expected))
    verify(guest, id)
    assert counters.of_queue(guest, id)["in_flight"] == 0


@pytest.mark.parametrize("id", PREPARED)
def test_prepared_requests_free_descriptors(guest, id):
    """A prepared request takes one descriptor, and the ring is empty after the last one.

    A packed ring comes round many times meanwhile, and so do its wrap counters.
    """
    disk = guest.dev(id)
    before = counters.of_disk(guest, id)
    report = fio.run(guest, f"/dev/{disk}", rw="randread", bs="4k", size="16m",
                     iodepth=64, number_ios=20000, norandommap=1, io_size="1g",
                     timeout=600)
    assert fio.ios(report) == 20000
    assert counters.of_disk(guest, id)["reads"] - before["reads"] >= 20000
    for queue in (0, 1):
        found = counters.of_queue(guest, id, queue)
        assert found["free"] == found["ring"]
        assert found["timeouts"] == found["lost_interrupts"] == found["ring_full"] == 0


@pytest.mark.parametrize("id", PREPARED)
def test_reset_with_prepared_requests(guest, id):
    """Prepared requests in flight are sent again after resets, and none is lost."""
    running = faults.load(guest, id, time_based=1, runtime=8)
    for _ in range(3):
        running.wait_for_io(guest.dev(id), requests=50)
        faults.tell_to_reset(guest, id)
    assert fio.ios(running.wait()) > 100
    assert faults.counter(guest, id, "resets") >= 3
    assert is_prepared(guest, id)
    verify(guest, id)


def test_discard_and_write_zeroes_of_prepared_requests(guest):
    """Requests with ranges, and flushes, which have no data, are prepared as well."""
    disk = f"/dev/{guest.dev('packed')}"
    guest.run(f"dd if=/dev/urandom of={disk} bs=1M count=2 oflag=direct status=none "
              f"&& sync {disk} && blkdiscard -z -l 1M {disk} && blkdiscard -o 1M -l 64k "
              f"{disk} && cmp -n 1M {disk} /dev/zero")
    found = counters.of_disk(guest, "packed")
    assert found["flushes"] and found["discards"] and found["write_zeroes"]


def test_prepared_requests_of_each_layout(guest, tmp_path):
    """virtio_ring returns each prepared request once, on in-order rings as well.

    The driver declines VIRTIO_F_IN_ORDER, so a module plays these devices.  Requests of
    scatterlists are mixed in.
    """
    source = Path(__file__).with_name("prepared_ring.c")
    guest.put(kmodule.build(guest.kernel, source, tmp_path), "/tmp/prepared_ring.ko")
    guest.run("insmod /tmp/prepared_ring.ko && rmmod prepared_ring", timeout=600)
    found = re.findall(r"prepared_ring: (.*): \d+ requests$",
                       guest.run("dmesg").output, re.MULTILINE)
    assert found == [layout for layout in ("split", "packed", "split in order",
                                           "packed in order") for _ in range(2)]


def test_polled_queue_with_prepared_requests(patched):
    """Polled I/O of a packed ring is prepared, and passes verification."""
    with Guest(patched, disks=[Disk("packed", "ram", 64 * MIB, queues=2, packed=True)],
               params="poll_queues=1") as guest:
        assert is_prepared(guest, "packed")
        fio.run(guest, f"/dev/{guest.dev('packed')}", ioengine="io_uring", hipri=1,
                rw="randwrite", bs="4k", size="4m", iodepth=16, verify="crc32c")


@pytest.mark.module
def test_prepared_off(guest):
    """With prepared=N requests go the old way; with own_ring only packed rings prepare."""
    try:
        for params, prepared, own in (("own_ring=N prepared=N", (), ()),
                                      ("", ("packed",), ("split",))):
            guest.unload()
            guest.load(params)
            for id in ("packed", "split"):
                assert is_prepared(guest, id) == (id in prepared)
                assert counters.of_queue(guest, id)["own_ring"] == int(id in own)
                verify(guest, id)
    finally:
        guest.unload()
        guest.load("own_ring=N")
