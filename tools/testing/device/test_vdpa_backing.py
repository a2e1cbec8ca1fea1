# SPDX-License-Identifier: GPL-2.0
"""vdpa_blk on block devices that need more than others, and what its worker does then.

They need buffers that are aligned, have pages in the host's cache, or execute one
request at a time.  vdpadrv is the driver.
"""

import re
import time

import pytest

from common import vdpa, vdpadrv
from vm.disk import Disk

MIB = 1 << 20
TRACING = "/sys/kernel/tracing"

# 6.1 has no vDPA.
pytestmark = pytest.mark.kernels("6.12")


@pytest.fixture(scope="module")
def guest(kernel):
    """A guest with the device's module, vdpadrv, and a disk to serve."""
    with vdpadrv.guest_with(
            kernel, disks=[Disk("back", "ram", 64 * MIB, queues=4)]) as guest:
        yield guest


@pytest.fixture
def zram(guest):
    """The path of a compressed RAM disk, which has blocks of 4096 bytes."""
    if guest.run("modprobe zram num_devices=1", check=False).status:
        pytest.skip("this kernel has no zram")
    with guest.cleanup("modprobe -r zram"):
        guest.run("echo 64M > /sys/block/zram0/disksize")
        assert guest.sysfs("/sys/block/zram0/queue/logical_block_size") == "4096"
        yield "/dev/zram0"


def drive(guest, device, words):
    """Run vdpadrv on a device's node without an error; return its output."""
    output = vdpadrv.drive(guest, device.node(), words)
    assert f"ok {words.split()[0]}" in output
    return output


@pytest.mark.parametrize("offset", (0, 512, 2048))
@pytest.mark.parametrize("ring", ("", "--scatter"))
def test_buffers_that_are_not_aligned_to_blocks(guest, zram, offset, ring):
    """Data is right if buffers begin inside a block of the backing device.

    zram takes each piece of a bio for whole pages.  Such a request is copied.
    """
    with vdpa.Device(guest, zram, bus="vhost_vdpa") as device:
        drive(guest, device, f"survey --count 256 --offset {offset} {ring}")
        assert device.counters()["errors"] == 0
        assert device.counters()["bounced"] == (512 if offset else 0)


def test_dirty_pages_of_an_earlier_user(guest):
    """What a program has written before the device was added is not written later."""
    back = f"/dev/{guest.dev('back')}"
    fill = "tr '\\0' {} < /dev/zero | head -c 1M"
    # The last program that closes a block device writes its dirty pages.
    job = guest.start(f"exec 9<> {back}; {fill.format('x')} >&9; touch /tmp/dirty; "
                      "until [ -e /tmp/sync ]; do sleep 0.1; done; sync", timeout=60)
    with guest.cleanup("rm -f /tmp/dirty /tmp/sync"):
        guest.run("until [ -e /tmp/dirty ]; do sleep 0.1; done", timeout=20)
        with vdpa.Device(guest, "back") as device:
            guest.run(f"{fill.format('y')} | dd of=/dev/{device.disk()} bs=1M "
                      "oflag=direct iflag=fullblock")
            guest.run("touch /tmp/sync")
            job.wait()
            found = guest.run(f"dd if={back} bs=1M count=1 iflag=direct status=none | "
                              "tr -d y | wc -c")
            assert found.output.strip() == "0"


def test_clean_pages_of_an_earlier_user(guest):
    """A program that has read the block device before sees what the guest has written."""
    back = f"/dev/{guest.dev('back')}"
    guest.run(f"tr '\\0' x < /dev/zero | dd of={back} bs=1M count=1 oflag=direct "
              "iflag=fullblock")
    # Pages stay in the cache as long as the block device is open.
    job = guest.start(f"exec 9< {back}; head -c 1M <&9 > /dev/null; touch /tmp/cached; "
                      f"until [ -e /tmp/again ]; do sleep 0.1; done; "
                      f"head -c 1M {back} | tr -d y | wc -c", timeout=60)
    with guest.cleanup("rm -f /tmp/cached /tmp/again"):
        guest.run("until [ -e /tmp/cached ]; do sleep 0.1; done", timeout=20)
        with vdpa.Device(guest, "back") as device:
            guest.run(f"tr '\\0' y < /dev/zero | head -c 1M | dd of=/dev/{device.disk()} "
                      "bs=1M oflag=direct iflag=fullblock; touch /tmp/again")
            assert job.wait().output.split() == ["0"]


@pytest.mark.parametrize("queues,count,ring,least", (
    (1, 4, "", 1500), (1, 4, "--packed", 1500), (2, 1, "", 700)))
def test_request_that_is_done_does_not_wait_for_others(guest, queues, count, ring,
                                                       least):
    """The ID comes at once, though the worker sleeps to submit the reads after it.

    The backing device executes one read at a time, each in half a second.  With two
    queues it is a read of the other one for which the worker sleeps.
    """
    if guest.run("modprobe null_blk nr_devices=1 queue_mode=2 irqmode=2 "
                 "completion_nsec=500000000 hw_queue_depth=1 submit_queues=1 gb=1",
                 check=False).status:
        pytest.skip("this kernel has no null_blk")
    with guest.cleanup("modprobe -r null_blk"), \
            vdpa.Device(guest, "/dev/nullb0", bus="vhost_vdpa", queues=queues,
                        workers=1) as device:
        # A pause of the host, which can delay the ID as well, does not come each time.
        for _ in range(3):
            output = drive(guest, device, f"early --queues {queues} --depth 8 "
                           f"--count {count} {ring}")
            first, every = map(int, re.findall(r"after (\d+) ms", output))
            assert every >= least, output
            if first < every / 3:
                break
        else:
            pytest.fail(output)


@pytest.mark.parametrize("ring", ("--packed", "--no-event-idx", ""))
def test_no_kicks_while_the_worker_polls(guest, ring):
    """With poll_us the driver need not kick while the worker polls the ring."""
    with vdpa.Device(guest, "back", bus="vhost_vdpa", queues=1, workers=1,
                     poll_us=10000) as device:
        output = drive(guest, device, f"io --depth 1 --count 400 {ring}")
        requests = int(re.search(r"(\d+) requests", output)[1])
        kicks = int(re.search(r"^count kicks: (\d+)$", output, re.MULTILINE)[1])
        assert kicks < requests / 2, output
        # After a pause the worker sleeps, and the driver must kick again.
        time.sleep(0.5)
        drive(guest, device, f"io --depth 4 --count 50 {ring}")


def written_with(guest, device, offset):
    """Return {block device: flags of its writes}, of bios with buffers at an offset."""
    # bi_bdev and bi_opf of struct bio.  After a sync only the device writes.
    guest.run(f"sync; echo > {TRACING}/trace; "
              f"echo 1 > {TRACING}/events/kprobes/bio/enable")
    with guest.cleanup(f"echo 0 > {TRACING}/events/kprobes/bio/enable"):
        drive(guest, device, f"survey --count 16 --offset {offset}")
    found = {}
    for bdev, opf in re.findall(r" bdev=(\w+) opf=(\w+)",
                                guest.run(f"cat {TRACING}/trace").output):
        if int(opf, 16) & 0xff == 1:
            found.setdefault(bdev, set()).add(opf)
    return found


def test_flags_of_copied_writes(guest):
    """The block layer sees the same flags whether a write is copied or not.

    Without REQ_IDLE it throttles a write as if no task waited for it.
    """
    guest.run(f"mountpoint -q {TRACING} || mount -t tracefs tracefs {TRACING}")
    if guest.run("echo 'p:bio submit_bio_noacct bdev=+8(%di):x64 opf=+16(%di):x32' "
                 f"> {TRACING}/kprobe_events", check=False).status:
        pytest.skip("this kernel has no kprobe events")
    with guest.cleanup(f"echo > {TRACING}/kprobe_events"), \
            vdpa.Device(guest, "back", bus="vhost_vdpa") as device:
        direct = written_with(guest, device, 0)
        assert device.counters()["bounced"] == 0
        copied = written_with(guest, device, 8)
        assert device.counters()["bounced"] == 32
        ((bdev, flags),) = direct.items()
        assert copied[bdev] == flags
