# SPDX-License-Identifier: GPL-2.0
"""vdpa_blk stops within seconds, however much a process asks of its block device.

The block device is one of null_blk's that stores nothing, and takes half a minute for
what vdpadrv asks of it.
"""

import pytest

from common import null_blk, vdpa, vdpadrv

# 6.1 has no vDPA.
pytestmark = pytest.mark.kernels("6.12", full=("7.3-debug",))


@pytest.fixture(scope="module")
def guest(kernel):
    """A guest with the device's module and vdpadrv."""
    with vdpadrv.guest_with(kernel) as guest:
        yield guest


@pytest.mark.parametrize("mbps,words", (
    # 256 reads of 15.9 MiB, which are not copied; and one of 508 MiB.
    (100, "reset --count 256 --bytes 65536"), (20, "reset --count 1"),
    # Two of 508 MiB, while a thread waits for them to disable the virtqueue.
    (20, "kill --count 2")),
    ids=("many-reads", "large-read", "kill"))
def test_slow_block_device_stops_soon(guest, mbps, words):
    """A reset, and the end of a killed process, take less than 5 s.

    The device serves the next driver.
    """
    # null_blk serves no request of more than a fiftieth of the rate.
    with null_blk.device(guest, "slow", size=8192, mbps=mbps, max_sectors=256,
                         hw_queue_depth=8) as path, \
            vdpa.Device(guest, path, bus="vhost_vdpa", queues=1) as device:
        output = vdpadrv.drive(guest, device.node(), words, timeout=200, check=False)
        assert output.splitlines()[-1].startswith(f"ok {words.split()[0]}"), output
