# SPDX-License-Identifier: GPL-2.0
"""Each allocation of vdpa_blk fails once: it fails cleanly, frees all, and works again.

vdpa_refuse.h makes them fail in a copy of the module, so this needs no kernel with fault
injection.
"""

import re
import time
from pathlib import Path

import pytest

from common import vdpa, vdpadrv
from common.device_mapper import Mapped, linear
from host import process
from soak import fuzz_device
from vm.disk import Disk
from vm.errors import CommandFailed

from . import vdpa_faults

PARAMETERS = "/sys/module/vdpa_blk/parameters"
NEEDS_RESET = 0x40
# More than there are: a limit for the loop.
MOST = 100

# 6.1 has no vDPA.
pytestmark = [pytest.mark.kernels("6.12"), pytest.mark.full]


def add_refusals(device):
    """Make the allocations of the device's sources in a directory fail."""
    # configfs.c frees settings that were not counted: compare "held" only while a device
    # has its settings.
    code = Path(__file__).with_name("vdpa_refuse.h").read_text()
    vdpa_faults.add_code(device, re.sub(r"/\* SPDX.*?\*/\n", "", code), "".join(
        f"{kind} vdpa_blk_{name};\n"
        f"module_param_named({name}, vdpa_blk_{name}, {kind}, 0644);\n"
        for name, kind in (("refuse", "int"), ("held", "int"), ("reserves", "bool"))))


@pytest.fixture(scope="module")
def guest(kernel, tmp_path_factory):
    """A guest with the changed module, vdpadrv, and a disk to serve."""
    module = vdpa_faults.build(kernel, tmp_path_factory.mktemp("refuse"), add_refusals)
    with vdpadrv.guest_with(
            kernel, module, disks=[Disk("back", "ram", 64 << 20, queues=4)]) as guest:
        guest.tolerate(r"virtqueue \d+ stops, because|mappings of memory cannot be used")
        yield guest


@pytest.fixture
def device(guest):
    with vdpa.Device(guest, "back", bus="vhost_vdpa", queues=4, workers=2) as device:
        yield device


def held(guest):
    """Return how many allocations of the module have not been freed."""
    return int(guest.sysfs(f"{PARAMETERS}/held"))


def refused(guest):
    """Return whether the allocation of the last refuse() was asked for, and forget it."""
    return guest.run(f"cat {PARAMETERS}/refuse; echo 0 > {PARAMETERS}/refuse"
                     ).output.strip() == "0"


def each_allocation(guest):
    """Yield 1, 2, ...: one allocation fails until the loop has ended without one."""
    for number in range(1, MOST):
        guest.run(f"echo {number} > {PARAMETERS}/refuse")
        yield number
        if not refused(guest):
            return
    raise AssertionError(f"more than {MOST} allocations")


def works(guest, device):
    """I/O of a process is right."""
    output = guest.run(f"{vdpadrv.PROGRAM} io {device.node()} --count 30 --indirect").output
    assert output.splitlines()[-1].startswith("ok io")


def test_device_cannot_be_added_without_memory(guest, device):
    """If an allocation of dev_add fails, it fails, and frees what it had."""
    device.delete()
    before = held(guest)
    failed = 0
    for _ in each_allocation(guest):
        try:
            device.add()
        except CommandFailed as error:
            assert "Cannot allocate memory" in str(error)
            failed += 1
            assert held(guest) == before
            fuzz_device.check_deleted(guest)
    # Pools, workqueues, queues and their requests, workers.
    assert failed >= 5 + 1 + 2 * 4 + 1 + 2
    works(guest, device)


@pytest.mark.full
def test_process_without_memory(guest, device):
    """If an allocation fails while a process sets the device up, the next one works."""
    before = held(guest)
    failed = 0
    for _ in each_allocation(guest):
        result = guest.run(f"{vdpadrv.PROGRAM} io {device.node()} --count 10 --packed "
                           "--hang-ms 3000", timeout=60, check=False)
        failed += result.status != 0
        assert result.status == 0 or "FAIL" in result.output
        # A virtqueue without a ring stops, and the device says so.
        status = re.search(r"hang, no used entry .* status (0x\w+)", result.output)
        assert not status or int(status[1], 16) & NEEDS_RESET, result.output
        assert held(guest) == before
    # The list of memory, and for each virtqueue three areas with a table and a mapping.
    assert failed >= 1 + 4 * 3 * 2
    works(guest, device)


@pytest.mark.parametrize("words", (
    "io --count 200 --indirect --scatter --packed", "io --count 200 --indirect --scatter",
    "errors"))
def test_io_with_reserved_memory_only(guest, device, words):
    """With no memory but what the device has reserved all requests complete."""
    guest.run(f"echo 1 > {PARAMETERS}/reserves")
    try:
        output = vdpadrv.drive(guest, device.node(), words, timeout=150)
    finally:
        guest.run(f"echo 0 > {PARAMETERS}/reserves")
    assert output.splitlines()[-1].startswith("ok")


def test_memory_that_is_refused_to_a_live_device(guest, device):
    """Virtqueues wait for the next change of mappings, which the device can take."""
    output = guest.run(f"{vdpadrv.PROGRAM} remap {device.node()} --name "
                       f"{PARAMETERS}/refuse").output
    assert output.startswith("ok remap") and refused(guest)


def test_worker_sleeps_while_memory_is_short(guest):
    """A request of too many pages for a bio waits for memory without using the CPU."""
    guest.run("modprobe dm_mod")
    with Mapped(guest, "below", linear(f"/dev/{guest.dev('back')}", 0, 64 << 11)) as mapped, \
            vdpa.Device(guest, mapped.path, bus="vhost_vdpa", queues=1) as device:
        guest.run(f"echo 1 > {PARAMETERS}/reserves")
        try:
            mapped.suspend()
            job = guest.start(f"exec {vdpadrv.PROGRAM} starve {device.node()} --scatter "
                              "--hang-ms 100000", timeout=150)
            assert process.wait_for(lambda: job.running and "submitted" in job.output, 60)
            time.sleep(1)
            before = device.counters()["wakeups"]
            time.sleep(2)
            assert device.counters()["wakeups"] - before < 100
            mapped.resume()
            assert job.wait().output.splitlines()[-1] == "ok starve"
        finally:
            guest.run(f"echo 0 > {PARAMETERS}/reserves")
            mapped.resume()
