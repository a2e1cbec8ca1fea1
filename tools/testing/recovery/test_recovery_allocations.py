# SPDX-License-Identifier: GPL-2.0
"""The short form of soak's scenario "allocations": one of STEP allocations fails."""

import functools
from dataclasses import replace

import pytest

from common import fio
from soak import allocations
from soak.scenario import Round
from vm.disk import Disk
from vm.guest import Guest

pytestmark = pytest.mark.kernels("7.3-debug")

# One of so many allocations fails.
STEP = 90


@pytest.mark.full
def test_memory_that_cannot_be_had(kernel):
    """When an allocation fails, the driver fails cleanly or works, without a leak."""
    some = replace(allocations.ALLOCATIONS,
                   run=functools.partial(allocations.refuse, step=STEP))
    counts = Round(some, kernel).play()
    assert counts["failed allocations"] > 8
    assert counts["failed probes and returns"] > 0
    assert counts["scans for leaks"] == 1


@pytest.fixture(scope="module")
def guest(kernel):
    """A guest with a disk, in which only the driver's allocations fail."""
    with Guest(kernel, disks=[Disk("disk", "ram", 64 << 20, queues=2)]) as guest:
        allocations.aim(guest)
        yield guest


@pytest.mark.parametrize("event", ("recovery", "resume"))
def test_return_while_memory_is_fragmented(guest, event):
    """A device returns with the rings and vectors that it had, once there is memory.

    Contiguous memory for the rings is short at first.
    """
    name = guest.dev("disk")
    looks = (f"cat /sys/block/{name}/queue/max_segments; "
             f"grep -h ^ring_size /sys/kernel/debug/virtio_blk/{name}/queue?; "
             f"grep -c virtio.-req /proc/interrupts")
    before = guest.run(looks).output
    # Each try needs two rings of order 1.
    guest.run("cd /sys/kernel/debug/fail_page_alloc; echo 1 > min-order; "
              "echo 12 > times; echo 1 > interval; echo 100 > probability")
    if event == "recovery":
        guest.run(f"echo 1 > /sys/block/{name}/recovery/reset", timeout=60)
    else:
        guest.suspend()
    assert guest.sysfs("/sys/kernel/debug/fail_page_alloc/times") == "0"
    assert guest.sysfs(f"/sys/block/{name}/state") == "live"
    assert guest.run(looks).output == before
    report = fio.run(guest, f"/dev/{name}", rw="randrw", bs="4k", size="1m",
                     verify="crc32c")
    assert fio.ios(report) > 200
