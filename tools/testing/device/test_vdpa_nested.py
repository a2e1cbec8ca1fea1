# SPDX-License-Identifier: GPL-2.0
"""vdpa_blk below an unmodified QEMU, which runs inside a guest.

The nested QEMU has the device as `vhost-vdpa-device-pci`, as a host's administrator uses
it.
"""

import random
import zlib

import pytest

from common import vdpa
from testing import tier
from vm.disk import Disk
from vm.guest import Guest
from vm.klog import KernelLog

from . import nested_qemu
from .nested_qemu import BOOT_AREA, GIVEN_AREA, OWN_AREA, SECTOR

MIB = 1 << 20

# 6.1 has no vDPA.
pytestmark = pytest.mark.kernels("6.12", full=("7.3-debug",))


@pytest.fixture(scope="module")
def guest(kernel):
    """A guest with QEMU in it, and a disk for vdpa_blk that begins with boot.S."""
    with Guest(kernel, disks=[Disk("back", "ram", 64 * MIB, queues=4)], memory=2048,
               qemu_args=vdpa.qemu_args() + nested_qemu.qemu_args()) as guest:
        vdpa.prepare(guest)
        nested_qemu.prepare(guest)
        yield guest


def fill(guest, content=b""):
    """Overwrite the start of the backing device: content, and then bytes of 0xff."""
    guest.put(content, "/tmp/content")
    guest.run("{ cat /tmp/content; tr '\\0' '\\377' < /dev/zero; } | "
              f"dd of=/dev/{guest.dev('back')} bs=1M count=8 iflag=fullblock oflag=direct "
              "2>/dev/null")


def digest(guest, area):
    """Return the SHA-256 of a part of the backing device, read past the page cache."""
    return guest.run(f"dd if=/dev/{guest.dev('back')} bs={SECTOR} skip={area.first} "
                     f"count={area.sectors} iflag=direct 2>/dev/null | sha256sum"
                     ).output.split()[0]


@pytest.mark.parametrize("machine,queues", tier.usual(
    (("pc", 4), ("q35", 1)), usual=[("pc", 4)]))
def test_firmware_boots_from_vdpa_blk(guest, machine, queues):
    """SeaBIOS boots from the device, and a boot sector's data is right on both sides."""
    fill(guest, nested_qemu.boot_image())
    with vdpa.Device(guest, "back", bus="vhost_vdpa", queues=queues,
                     workers=min(queues, 2)) as device:
        ended = nested_qemu.boot_sector(guest, device.node(), machine)
        assert ended.words.splitlines() == [f"capacity {64 * MIB // SECTOR:08x}", "ok"], \
            ended
        assert ended.status == nested_qemu.OK
        counters = device.counters()
    # The firmware reads the boot sector, too.
    assert counters["reads"] > 64 and counters["writes"] == 64
    assert counters["errors"] == counters["broken"] == 0
    assert digest(guest, BOOT_AREA) == BOOT_AREA.digest()


@pytest.mark.full
@pytest.mark.kernels("6.12")
def test_linux_with_our_driver_uses_vdpa_blk(guest, tmp_path):
    """A nested Linux with our driver uses two virtqueues; data is right on both sides."""
    given = random.Random(1).randbytes(GIVEN_AREA.sectors * SECTOR)
    fill(guest)
    guest.put(given, "/tmp/content")
    guest.run(f"dd if=/tmp/content of=/dev/{guest.dev('back')} bs={SECTOR} "
              f"seek={GIVEN_AREA.first} oflag=direct 2>/dev/null")
    with vdpa.Device(guest, "back", bus="vhost_vdpa", queues=2, workers=2) as device:
        ended = nested_qemu.linux(guest, device.node(), cpus=2)
        queues = list(device.queues())
    assert ended.words.splitlines() == [
        "cpus 2 queues 2", f"given {zlib.crc32(given):08x}", "ok"], ended
    (tmp_path / "log").write_text(ended.log)
    assert KernelLog(tmp_path / "log").new_splat() is None
    for queue in queues:
        assert queue["reads"] and queue["writes"]
        assert queue["errors"] == queue["broken"] == 0
    assert digest(guest, OWN_AREA) == OWN_AREA.digest()
