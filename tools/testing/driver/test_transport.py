# SPDX-License-Identifier: GPL-2.0
"""The same disk on every transport and every kind of ring.

For each disk the tests check three things: the driver negotiated exactly the expected
features, the rings have the expected size, and data passes verification in requests
of 4 KiB to 1 MiB and with more requests than fit into the ring.
"""

import mmap
import re
import struct

import pytest

from common import fio, topology
from testing import tier
from vm.disk import Disk
from vm.guest import Guest

on_both = pytest.mark.kernels("6.12", full=("6.1",))

MIB = 1 << 20
GIB = 1 << 30

# Numbers of feature bits (VIRTIO 1.4, 5.2.3 and 6).
FEATURES = {"SEG_MAX": 2, "BLK_SIZE": 6, "FLUSH": 9, "TOPOLOGY": 10,
            "CONFIG_WCE": 11, "MQ": 12, "INDIRECT_DESC": 28, "EVENT_IDX": 29,
            "VERSION_1": 32, "RING_PACKED": 34}
# Features that QEMU offers for any disk here by default.
USUAL = set(FEATURES) - {"RING_PACKED"}
DIRECT = USUAL - {"INDIRECT_DESC"}


def pci(id, ring=256, **properties):
    """Return a disk of 4 queues with the properties of its rings."""
    return Disk(id, "ram", 64 * MIB, queues=4, queue_size=ring, **properties)


def features(guest, disk):
    """Return which of FEATURES were negotiated."""
    bits = guest.sysfs(f"/sys/bus/virtio/devices/{disk.virtio}/features")
    return {name for name, bit in FEATURES.items() if bits[bit] == "1"}


def wanted_features(guest, ring, wanted):
    """Return the features that a disk must have with a ring of so many entries.

    With prepared requests a large packed ring keeps its indirect descriptors.
    """
    if guest.kernel.prepared and ring == 1024 and "RING_PACKED" in wanted:
        return wanted | {"INDIRECT_DESC"}
    return wanted


def check_features(guest, disk, wanted):
    """Check that exactly these features were negotiated, and 4 queues are used."""
    assert features(guest, disk) == wanted
    assert len(disk.queues["default"]) == min(4, guest.cpus)


def check_ring(guest, disk, size, indirect, segments=None):
    """Check each queue's ring size and depth, and the disk's segment limit.

    segments: the largest number that a request may have; by default as many as fit.
    """
    depth = size if indirect else max(size // 3, 1)
    tags = guest.run(f"grep -h ^nr_tags= /sys/kernel/debug/block/{disk.name}/"
                     "hctx*/tags").output.split()
    assert tags == [f"nr_tags={depth}"] * len(disk.queues["default"])
    assert f"[{disk.name}]" in guest.log()
    rings = re.findall(rf"\[{disk.name}\] .*\bring (\d+)", guest.log())
    assert rings[-1] == str(size)
    assert int(guest.sysfs(f"/sys/block/{disk.name}/queue/max_segments")) == \
        (segments or size - 2)


def check_io(guest, disk, ring):
    """Check data in large requests, in small ones, and with a full ring."""
    device = f"/dev/{disk.name}"
    report = fio.run(guest, device, rw="randwrite", bsrange="4k-1m",
                     size="6m", iodepth=24, verify="crc32c")
    assert _bytes(report, "write") >= 6 * MIB
    assert _bytes(report, "read") >= 6 * MIB
    # Each CPU uses one queue, so the two jobs fill two rings.
    report = fio.run(guest, device, rw="randrw", bsrange="4k-12k", size="4m",
                     offset="32m", offset_increment="8m", numjobs=2,
                     iodepth=ring + ring // 4, verify="crc32c",
                     cpus_allowed="0,1", cpus_allowed_policy="split")
    assert _bytes(report, "write") >= 2 * MIB


def _bytes(report, way):
    """Return how many bytes fio read or wrote."""
    return sum(job[way]["io_bytes"] for job in report["jobs"])


# PCI

RINGS = {
    "split": ({}, USUAL),
    "direct": ({"indirect_desc": False}, DIRECT),
    "noevent": ({"event_idx": False}, USUAL - {"EVENT_IDX"}),
    "bare": ({"indirect_desc": False, "event_idx": False},
             DIRECT - {"EVENT_IDX"}),
    "packed": ({"packed": True}, USUAL | {"RING_PACKED"}),
    "pkdirect": ({"packed": True, "indirect_desc": False},
                 DIRECT | {"RING_PACKED"}),
    "pknoevent": ({"packed": True, "event_idx": False},
                  USUAL - {"EVENT_IDX"} | {"RING_PACKED"}),
    "legacy": ({"legacy": True}, USUAL - {"VERSION_1"}),
    "lgdirect": ({"legacy": True, "indirect_desc": False},
                 DIRECT - {"VERSION_1"}),
    "intx": ({"vectors": 0}, USUAL),
}
SIZES = {
    "r4": (4, {}, USUAL),
    "r4direct": (4, {"indirect_desc": False}, DIRECT),
    "r8pkdirect": (8, {"packed": True, "indirect_desc": False},
                   DIRECT | {"RING_PACKED"}),
    "r512": (512, {}, USUAL),
    "r1024": (1024, {}, USUAL),
    "r1024direct": (1024, {"indirect_desc": False}, DIRECT),
}
# These rings have room for 256 requests without indirect descriptors, so the driver does
# without unless it runs the ring itself; no request may take more than an eighth then.
LARGE = {
    "r1024packed": (1024, {"packed": True}, DIRECT | {"RING_PACKED"}),
    "r1024legacy": (1024, {"legacy": True}, DIRECT - {"VERSION_1"}),
}
DISKS = {id: (256, *rest) for id, rest in RINGS.items()} | SIZES | LARGE


@pytest.fixture(scope="module")
def q35(kernel):
    """A guest with a disk for each kind of ring, and their Layout."""
    with Guest(kernel, disks=[pci(id, ring, **properties) for id,
                              (ring, properties, _) in DISKS.items()]) as guest:
        yield guest, topology.read(guest)


@on_both
@pytest.mark.parametrize("id", tier.usual(
    DISKS, ("split", "noevent", "packed", "legacy", "intx", "r4", "r8pkdirect",
            "r1024")))
def test_ring(q35, id):
    """Features, ring and I/O are right for each kind and size of ring on PCI."""
    guest, layout = q35
    ring, _, wanted = DISKS[id]
    disk = layout.disks[id]
    wanted = wanted_features(guest, ring, wanted)
    check_features(guest, disk, wanted)
    indirect = "INDIRECT_DESC" in wanted
    check_ring(guest, disk, ring, indirect,
               ring // 8 - 2 if id in LARGE and not indirect else None)
    assert ("" in disk.interrupts) == (id == "intx")
    check_io(guest, disk, ring)


@pytest.fixture(scope="module")
def pc(kernel):
    """A guest on the machine "pc", which has no PCI Express."""
    with Guest(kernel, machine="pc", cpus=2, disks=[
            pci("modern", disable_legacy="on"),
            pci("transitional", disable_legacy="off"),
            pci("legacy", legacy=True)]) as guest:
        yield guest, topology.read(guest)


@pytest.mark.parametrize("id", tier.usual(("modern", "transitional", "legacy"),
                                          ("modern", "legacy")))
def test_conventional_pci(pc, id):
    """Modern, transitional and legacy devices work on conventional PCI."""
    guest, layout = pc
    disk = layout.disks[id]
    check_features(guest, disk, USUAL - ({"VERSION_1"} if id == "legacy"
                                         else set()))
    check_ring(guest, disk, 256, indirect=True)
    assert "req.0" in disk.interrupts
    check_io(guest, disk, 256)


# DMA addresses that differ from physical addresses

TRANSLATED = {
    "split": {}, "packed": {"packed": True},
    "direct": {"indirect_desc": False}, "poll": {"queue_size": 64},
}


def translated(kernel, **options):
    """Boot a guest whose disks use addresses of the DMA layer only."""
    return Guest(kernel, disks=[
        pci(id, properties.pop("queue_size", 256), iommu_platform=True,
            disable_legacy="on", **properties)
        for id, properties in ((id, dict(TRANSLATED[id])) for id in TRANSLATED)],
        **options)


def has_access_platform(guest, disk):
    """Return whether VIRTIO_F_ACCESS_PLATFORM was negotiated."""
    return guest.sysfs(f"/sys/bus/virtio/devices/{disk.virtio}/features")[33] == "1"


@pytest.mark.full
@on_both
def test_iommu(kernel):
    """I/O works on disks whose addresses an IOMMU translates."""
    if kernel.builtin:
        pytest.skip(f"{kernel.name} has no driver for the IOMMU")
    with translated(kernel, iommu=True, cmdline="intel_iommu=on iommu=nopt "
                                                "iommu.passthrough=0") as guest:
        layout = topology.read(guest)
        for id in TRANSLATED:
            disk = layout.disks[id]
            assert has_access_platform(guest, disk)
            group = f"/sys/block/{disk.name}/device/../iommu_group"
            assert guest.sysfs(f"{group}/type").startswith("DMA")
            check_io(guest, disk, 256)


def bounced(guest, disk):
    """Return how many slots of the bounce buffers one read of 4 KiB takes.

    The least of some runs, because the system's disk has its buffers there, too.
    """
    used = "/sys/kernel/debug/swiotlb/io_tlb_used"
    return min(map(int, guest.run(
        f"for run in 1 2 3 4 5; do idle=$(cat {used}); echo 0 > {used}_hiwater; "
        f"dd if=/dev/{disk.name} of=/dev/null bs=4k count=8 iflag=direct status=none; "
        f"echo $(($(cat {used}_hiwater) - idle)); done").output.split()))


# The debug kernel also checks each mapping (DMA_API_DEBUG).
@pytest.mark.full
@pytest.mark.kernels("6.1", "6.12", "7.3-debug")
def test_bounce_buffers(kernel):
    """I/O works through bounce buffers, in segments that fit into them."""
    with translated(kernel, cmdline="swiotlb=force") as guest:
        layout = topology.read(guest)
        for id in TRANSLATED:
            disk = layout.disks[id]
            assert has_access_platform(guest, disk)
            # The largest mapping of the DMA layer through bounce buffers.
            segment = guest.sysfs(f"/sys/block/{disk.name}/queue/max_segment_size")
            assert 248 << 10 <= int(segment) <= 256 << 10
            check_io(guest, disk, 256)
        # The data takes 2 slots of 2 KiB.  Header, status and table take another one
        # each, where the virtio core maps them for each I/O.
        if kernel.name != "6.1":    # It does not count them.
            assert bounced(guest, layout.disks["split"]) == 2
            assert bounced(guest, layout.disks["packed"]) == 5


# virtio-mmio

# QEMU's largest ring, which it offers for any queue size.  Its seg_max follows the
# given queue size, which is 256.
MMIO_RING = 1024
MMIO = {"split": ({}, USUAL, 254),
        "direct": ({"indirect_desc": False}, DIRECT, 254),
        "packed": ({"packed": True}, DIRECT | {"RING_PACKED"}, 126)}


@pytest.fixture(scope="module")
def microvm(kernel):
    """A guest without PCI."""
    with Guest(kernel, machine="microvm", cpus=2, disks=[
            pci(id, **properties) for id, (properties, *_) in MMIO.items()]) as guest:
        yield guest, topology.read(guest)


@pytest.mark.parametrize("id", tier.usual(MMIO, ("split", "packed")))
def test_mmio(microvm, id):
    """All queues of a virtio-mmio device share its one interrupt."""
    guest, layout = microvm
    _, wanted, segments = MMIO[id]
    disk = layout.disks[id]
    wanted = wanted_features(guest, MMIO_RING, wanted)
    check_features(guest, disk, wanted)
    indirect = "INDIRECT_DESC" in wanted
    check_ring(guest, disk, MMIO_RING, indirect, 254 if indirect else segments)
    assert set(disk.interrupts) == {""}
    check_io(guest, disk, MMIO_RING)


@pytest.mark.full
def test_mmio_legacy(kernel):
    """A legacy virtio-mmio device works."""
    with Guest(kernel, machine="microvm", cpus=2,
               disks=[pci("old", legacy=True)]) as guest:
        disk = topology.read(guest).disks["old"]
        check_features(guest, disk, DIRECT - {"VERSION_1"})
        check_ring(guest, disk, MMIO_RING, False, 126)
        check_io(guest, disk, MMIO_RING)


# I/O priority

REALTIME_3 = 1 << 13 | 3


@on_both
def test_io_priority(kernel, tmp_path):
    """Requests to legacy devices have a priority; for others the field is 0.

    QEMU ignores the field.  The test reads it in the guest's memory, where the header
    of a write remains, and finds the header by its sector.
    """
    sectors = {"legacy": 0x1_2345_6788, "modern": 0x1_8765_4320}
    with Guest(kernel, cpus=1, memory=512, disks=[
            Disk(id, size=4096 * GIB, queues=1, legacy=id == "legacy")
            for id in sectors]) as guest:
        for id, sector in sectors.items():
            guest.run("ionice -c realtime -n 3 dd if=/dev/zero bs=4k count=1 "
                      f"of=/dev/{guest.dev(id)} seek={sector // 8} "
                      "oflag=direct status=none")
        memory = tmp_path / "memory"
        guest.qmp("pmemsave", val=0, size=512 * MIB, filename=str(memory))
    assert priorities(memory, sectors["legacy"]) == {REALTIME_3}
    assert priorities(memory, sectors["modern"]) == {0}
    memory.unlink()


def priorities(memory, sector):
    """Return the priorities in the headers of writes to a sector."""
    header = re.compile(re.escape(struct.pack("<I", 1)) + b"(.{4})"
                        + re.escape(struct.pack("<Q", sector)), re.DOTALL)
    with memory.open("rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return {struct.unpack("<I", match[1])[0]
                for match in header.finditer(data)}
