# SPDX-License-Identifier: GPL-2.0
"""vdpa_blk through vhost-vdpa, as QEMU uses it: a process that may be hostile.

vdpadrv.c is that process: a driver in user space, with rings and memory of its own.
"""

from pathlib import Path

import pytest

import vdpa
from vm import image
from vm.disk import Disk
from vm.guest import Guest

MIB = 1 << 20
NODE = "/dev/vhost-vdpa-0"

# 6.1 has no vDPA.
pytestmark = pytest.mark.kernels("6.12")


@pytest.fixture(scope="module")
def guest(kernel):
    """A guest with a device of 4 queues and 2 workers behind its node, and vdpadrv."""
    program = image.program(Path(__file__).with_name("vdpadrv.c"), kernel.arch)
    with Guest(kernel, disks=[Disk("back", "ram", 64 * MIB, queues=4)], parallel=False,
               qemu_args=vdpa.qemu_args()) as guest:
        vdpa.prepare(guest)
        guest.put(program.read_bytes(), "/tmp/vdpadrv")
        guest.run("chmod +x /tmp/vdpadrv")
        # A broken ring is logged once, and no more often than the limit allows.
        guest.tolerate(r"virtqueue \d+ stops, because")
        with vdpa.Device(guest, "back", bus="vhost_vdpa", queues=4, workers=2,
                         serial="SERIAL123"):
            yield guest


@pytest.mark.parametrize("words", (
    "io --count 100", "io --packed --count 100", "io --indirect --count 100",
    "io --packed --indirect --scatter --count 100 --seed 7",
    "io --no-event-idx --scatter --count 100", "io --num 8 --depth 2 --packed",
    "errors", "unshared", "unshared --packed", "suspend", "suspend --packed --indirect",
    "unmap --seconds 5", "close --count 10", "close --packed --count 10 --scatter",
    "broken --count 150 --seed 1", "broken --count 150 --seed 2 --scatter"))
def test_process_drives_vdpa_blk(guest, words):
    """Data is right, bad rings need a reset, nothing hangs, and the next user works."""
    command, _, options = words.partition(" ")
    output = guest.run(f"/tmp/vdpadrv {command} {NODE} {options}", timeout=200).output
    assert output.splitlines()[-1].startswith("ok"), output


def test_callback_ends_with_its_process(guest):
    """When its capacity changes, the device calls no process that has closed its node."""
    guest.run(f"/tmp/vdpadrv info {NODE}")
    guest.run("modprobe -r vhost_vdpa")
    guest.resize_disk("back", 80 * MIB)
    # The device looks every two seconds.
    guest.run("sleep 5; modprobe vhost_vdpa; "
              f"until [ -e {NODE} ]; do sleep 0.1; done", timeout=30)
    assert "163840" in guest.run(f"/tmp/vdpadrv info {NODE}").output
    guest.resize_disk("back", 64 * MIB)
