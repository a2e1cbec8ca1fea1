# SPDX-License-Identifier: GPL-2.0
"""vblksim as a vhost-user device: PCI and MSI-X, and kernels without VDUSE.

What both fronts of vblksim can do is in test_spec.py and test_hostile.py.
"""

import os

import pytest

from common import fio, vblksim
from common.vblksim import Sim
from host import process
from soak import fuzz
from testing import tier
from vm.guest import Guest

pytestmark = pytest.mark.kernels("6.12", full=("6.1", "7.3-debug"))

OWN_RING = "/sys/module/virtio_blk/parameters/own_ring"


@pytest.fixture(scope="module")
def guest(kernel):
    """A guest whose memory vblksim shares."""
    with Guest(kernel, shared=True, parallel=False) as guest:
        vblksim.prepare(guest, vblksim.VHOST_USER)
        yield guest


@pytest.mark.parametrize("own_ring", ("Y", "N"))
def test_vhost_user_disk(guest, own_ring):
    """A vhost-user disk has its own PCI device and vectors, and the data that it got."""
    guest.run(f"echo {own_ring} > {OWN_RING}")
    with guest.cleanup(f"echo Y > {OWN_RING}"), \
            Sim(guest, id="from the host", capacity="32M") as sim:
        disk = sim.disk()
        device = guest.run(f"readlink -f /sys/block/{disk}/device/..").output.strip()
        assert guest.sysfs(f"{device}/vendor") == "0x1af4"
        assert len(guest.run(f"ls {device}/msi_irqs").output.split()) == 5
        assert guest.sysfs(f"/sys/block/{disk}/serial") == "from the host"
        assert guest.sysfs(f"/sys/block/{disk}/own_ring") == ("1" if own_ring == "Y"
                                                              else "0")
        report = fio.run(guest, f"/dev/{disk}", rw="randrw", bsrange="512-64k",
                         numjobs=4, size="2m", offset_increment="8m", fsync=16,
                         verify="crc32c")
        assert fio.ios(report) > 200
    assert sim.report["types"].keys() >= {"in", "out", "flush", "get_id"}


def test_cache_mode_of_device(guest):
    """The device gets the cache mode that the administrator writes to cache_type.

    In write through the driver sends no flush.  So a device whose flushes fail then
    does not fail an fsync.
    """
    guest.tolerate("I/O error, dev vd|Buffer I/O error")
    with Sim(guest, features="default,+config_wce", writeback=1,
             capacity="32M") as sim:
        disk = sim.disk()
        for mode, value in (("write through", 0), ("write back", 1)):
            path = f"/sys/block/{disk}/cache_type"
            # The driver flushes after the change to write through.
            guest.run(f"echo {mode} > {path}")
            assert guest.sysfs(path) == mode
            assert f"the driver has set writeback to {value}\n" in sim.output
            sim.ctl("script 'on type=flush: fail ioerr'")
            before = sim.stats()["types"].get("flush", 0)
            synced = guest.run(f"dd if=/dev/zero of=/dev/{disk} bs=4k count=1 "
                               "oflag=direct conv=fsync,notrunc", check=False)
            assert (synced.status == 0) == (value == 0), synced.output
            assert (sim.stats()["types"].get("flush", 0) > before) == (value == 1)
            sim.ctl("script clear")


def test_connection_is_lost(guest):
    """I/O goes on, and data is right, after QEMU has connected to the device again."""
    with Sim(guest, capacity="32M") as sim:
        disk = sim.disk()
        running = fio.start(guest, f"/dev/{disk}", rw="randrw", bs="4k", size="8m",
                            verify="crc32c", time_based=1, runtime=8)
        for times in range(2, 5):
            running.wait_for_io(disk, requests=20)
            sim.ctl("disconnect")
            assert process.wait_for(
                lambda: sim.output.count("a monitor has connected\n") == times, 30)
        assert fio.ios(running.wait()) > 50
        assert guest.sysfs(f"/sys/block/{disk}/state") == "live"


@pytest.mark.parametrize("own_ring", tier.usual(("Y", "N"), "Y"))
def test_hostile_devices_on_pci(kernel, own_ring):
    """The driver survives hostile devices on PCI: mutated configurations and replies."""
    batches = 5 if os.environ.get("FULL") else 1
    with Guest(kernel, shared=True, parallel=False,
               params=f"own_ring={own_ring}") as guest:
        fuzz.prepare(guest, vblksim.VHOST_USER)
        start = len(guest.log())
        reports = [report for batch in range(batches)
                   for report in fuzz.under_fio(guest, 11 + batch * 1000, seconds=5)]
        assert "new size" in guest.log()[start:], "no device became a disk"
    assert len(reports) == 4 * batches
    assert sum(report["mutated"] for report in reports) >= 100 * batches
