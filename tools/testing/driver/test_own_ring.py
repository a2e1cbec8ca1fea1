# SPDX-License-Identifier: GPL-2.0
"""Rings that the driver runs itself, and those that it leaves to the virtio core.

65536 completions after the driver took a ring over, the virtio core drops an interrupt;
see ring.c.
"""

import pytest

from common import counters, fio
from soak import faults
from vm.disk import Disk
from vm.guest import Guest

MIB = 1 << 20
# Properties of a disk, and whether the driver runs its rings.
DISKS: dict[str, tuple[dict, bool]] = {
    "plain": ({}, True), "large": ({"queue_size": 1024}, True),
    "noevent": ({"event_idx": False}, True),
    "packed": ({"packed": True}, False), "direct": ({"indirect_desc": False}, False),
    "platform": ({"iommu_platform": True}, True)}
# So many requests pass the index at which the virtio core drops an interrupt 6 times.
WRAPS, SPAN = 6, 65536

pytestmark = pytest.mark.kernels("6.12", full=("6.1", "7.3-debug"))


@pytest.fixture(scope="module")
def guest(kernel):
    """A guest with one disk for each kind of ring.

    With all CPUs on one thread QEMU itself loses interrupts, see
    vm.qemu.accelerator_options().
    """
    disks = [Disk(name, "ram", 32 * MIB, queues=1, **properties)
             for name, (properties, _) in DISKS.items()]
    with Guest(kernel, parallel=True, disks=disks) as guest:
        yield guest


@pytest.mark.parametrize("name", DISKS)
def test_rings_of_driver(guest, name):
    """sysfs, debugfs and the log say whether the driver runs a disk's rings."""
    disk, own = guest.dev(name), DISKS[name][1]
    if name == "platform" and guest.kernel.name == "6.1":
        own = False    # It has no virtqueue_dma_dev().
    assert guest.sysfs(f"/sys/block/{disk}/own_ring") == str(int(own))
    assert counters.of_disk_queue(guest, disk)["own_ring"] == int(own)
    lines = [line for line in guest.log().splitlines()
             if f"[{disk}] " in line and "read/poll queues" in line]
    assert lines[-1].endswith(", own ring") == own
    fio.run(guest, f"/dev/{disk}", rw="randwrite", bsrange="512-1m", size="16m",
            iodepth=16, verify="crc32c")


@pytest.mark.module
def test_own_ring_off(guest):
    """With own_ring=N the virtio core runs all rings, and data is right."""
    guest.unload()
    guest.load("own_ring=N")
    try:
        disk = guest.dev("plain")
        assert guest.sysfs(f"/sys/block/{disk}/own_ring") == "0"
        fio.run(guest, f"/dev/{disk}", rw="randwrite", bs="4k", size="8m", iodepth=16,
                verify="crc32c")
    finally:
        guest.unload()
        guest.load()
    assert guest.sysfs(f"/sys/block/{guest.dev('plain')}/own_ring") == "1"


@pytest.mark.parametrize("name,depth,wraps", (
    ("noevent", 1, 1),
    *(pytest.param(name, depth, WRAPS, marks=pytest.mark.full)
      for name in ("plain", "noevent", "large") for depth in (1, 32))))
def test_no_interrupt_is_lost_when_index_wraps(guest, name, depth, wraps):
    """No interrupt is lost when the index of the used ring comes round."""
    if guest.hung and depth > 1:
        pytest.skip("QEMU hung, and runs all CPUs on one thread, where it loses interrupts")
    disk = guest.dev(name)
    before = faults.counter(guest, name, "lost_interrupts")
    report = fio.run(guest, f"/dev/{disk}", rw="randread", bs="512", iodepth=depth,
                     size="16m", io_size=(wraps * SPAN + 2 * depth) * 512,
                     norandommap=1, timeout=600)
    assert fio.ios(report) >= wraps * SPAN
    assert faults.counter(guest, name, "lost_interrupts") == before


@pytest.mark.kernels(full=("7.3-debug",))
def test_lost_interrupt_without_guard(guest):
    """Without the driver's timer the virtio core drops an interrupt.

    So the test above would see it.
    """
    if not guest.kernel.has("CONFIG_FAULT_INJECTION"):
        pytest.skip(f"{guest.kernel.name} injects no faults")
    guard = f"{faults.faults(guest, 'noevent')}/no_guard"
    guest.run(f"echo 1 > {guard}")
    try:
        before = faults.counter(guest, "noevent", "lost_interrupts")
        fio.run(guest, f"/dev/{guest.dev('noevent')}", rw="randread", bs="512", iodepth=1,
                size="16m", io_size=(SPAN + 64) * 512, norandommap=1, timeout=600)
        assert faults.counter(guest, "noevent", "lost_interrupts") == before + 1
    finally:
        guest.run(f"echo 0 > {guard}")
