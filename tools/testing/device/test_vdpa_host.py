# SPDX-License-Identifier: GPL-2.0
"""vdpa_blk through vhost-vdpa, as QEMU uses it: a process that may be hostile.

vdpadrv is that process: a driver in user space, with rings and memory of its own.
"""

import pytest

from common import vdpa, vdpadrv
from host import process
from vm.disk import Disk

MIB = 1 << 20
NODE = "/dev/vhost-vdpa-0"
DEBUG = "/sys/kernel/debug/vdpa_blk/disk0"

# 6.1 has no vDPA.
pytestmark = pytest.mark.kernels("6.12")


@pytest.fixture(scope="module")
def guest(kernel):
    """A guest with a device of 4 queues and 2 workers behind its node, and vdpadrv."""
    with vdpadrv.guest_with(
            kernel, disks=[Disk("back", "ram", 64 * MIB, queues=4)]) as guest:
        # A broken ring is logged once, and no more often than the limit allows.
        guest.tolerate(r"virtqueue \d+ stops, because")
        with vdpa.Device(guest, "back", bus="vhost_vdpa", queues=4, workers=2,
                         serial="SERIAL123"):
            yield guest


@pytest.mark.parametrize("words", (
    "io --count 100", "io --packed --count 100", "io --indirect --count 100",
    "io --packed --indirect --scatter --count 100 --seed 7",
    "io --no-base --count 100", "io --packed --no-base --count 100",
    "io --no-event-idx --scatter --count 100", "io --num 8 --depth 2 --packed",
    "errors", "unshared", "unshared --packed", "suspend", "suspend --packed --indirect",
    "unmap --seconds 5", "remap", "remap --packed", "zero",
    "close --count 10", "close --packed --count 10 --scatter",
    "broken --count 150 --seed 1", "broken --count 150 --seed 2 --scatter"))
def test_process_drives_vdpa_blk(guest, words):
    """Data is right, bad rings need a reset, nothing hangs, and the next user works."""
    output = vdpadrv.drive(guest, NODE, words, timeout=200)
    assert output.splitlines()[-1].startswith("ok"), output


def test_callback_ends_with_its_process(guest):
    """When its capacity changes, the device calls no process that has closed its node."""
    guest.run(f"{vdpadrv.PROGRAM} info {NODE}")
    guest.run("modprobe -r vhost_vdpa")
    capacity = f"cat {DEBUG}/device | grep -x 'capacity {80 * MIB // 512}'"
    try:
        guest.resize_disk("back", 80 * MIB)
        # The device looks every two seconds.
        assert process.wait_for(lambda: not guest.run(capacity, check=False).status, 30)
        guest.run(f"modprobe vhost_vdpa; until [ -e {NODE} ]; do sleep 0.1; done",
                  timeout=30)
        assert f"capacity {80 * MIB // 512} " in guest.run(
            f"{vdpadrv.PROGRAM} info {NODE}").output
    finally:
        guest.resize_disk("back", 64 * MIB)


def test_configuration_interrupt_needs_a_live_driver(guest):
    """Between DRIVER_OK and FAILED, and at DRIVER_OK if the driver missed a change."""
    job = guest.start(f"exec {vdpadrv.PROGRAM} config {NODE} --hang-ms 60000", timeout=200)
    try:
        for mib, when in ((72, "before DRIVER_OK"), (80, "after DRIVER_OK"),
                          (88, "after FAILED")):
            assert process.wait_for(lambda: not job.running or
                                    f"change the capacity {when}" in job.output, 60)
            assert job.running, job.wait(check=False)
            guest.resize_disk("back", mib * MIB)
        assert job.wait().output.splitlines()[-1] == "ok config"
    finally:
        guest.resize_disk("back", 64 * MIB)


@pytest.mark.parametrize("words", (
    "--count abc", "--count ''", "--count 5x", "--count -1", "--seed 0", "--num 1",
    "--depth 0", "--seed 18446744073709551616", "5"))
def test_wrong_option_of_vdpadrv(guest, words):
    """A wrong value ends vdpadrv with status 2, and not with a test of nothing."""
    done = guest.run(f"{vdpadrv.PROGRAM} io {NODE} {words} 2>&1", check=False)
    assert done.status == 2 and "ok" not in done.output
