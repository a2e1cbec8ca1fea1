# SPDX-License-Identifier: GPL-2.0
"""The behaviour of virtio_ring that the driver relies on, for each kind of ring.

A comment in submit.c lists it: how many descriptors a request takes, when callbacks come,
what happens with unknown ids.  Other tests check that the driver does not negotiate
further features of the ring.
"""

import re
from collections.abc import Callable
from functools import partial

import pytest

from common import counters, fio, full_ring, throttle
from common.fio import FioError
from common.vblksim import Sim
from host import process
from soak import faults
from testing import tier
from vm.disk import Disk
from vm.guest import Guest, Job
from vm.kernels import Kernel

pytestmark = pytest.mark.kernels("6.12", full=("7.3-debug",))
on_debug_kernel = pytest.mark.kernels("6.12", "7.3-debug")

MIB = 1 << 20
PAGE = 4096
RING = 64
RINGS = {"split-indirect": "default", "split-direct": "default,-indirect_desc",
         "packed-indirect": "default,+ring_packed",
         "packed-direct": "default,+ring_packed,-indirect_desc"}
INDIRECT = ("split-indirect", "packed-indirect")
DIRECT = ("split-direct", "packed-direct")
IN_ORDER = 35
NOTIFICATION_DATA = 38


@pytest.fixture(scope="module")
def sims(kernel: Kernel, sims: Guest) -> Guest:
    """The guest for vblksim, whose requests may fail."""
    sims.tolerate("I/O error, dev vd|Buffer I/O error")
    return sims


def features(guest: Guest, disk: str) -> str:
    """Return the features that a disk has negotiated, a digit for each bit."""
    return guest.sysfs(f"/sys/block/{disk}/device/features")


def verify(guest: Guest, disk: str, **options) -> None:
    """Write, read and compare from all CPUs."""
    report = fio.run(guest, f"/dev/{disk}", rw="randrw", bs="4k", size="512k",
                     numjobs=4, offset_increment="4m", verify="crc32c",
                     cpus_allowed="0-3", cpus_allowed_policy="split",
                     timeout=120, **options)
    assert fio.ios(report) > 500


# Descriptors

# Options of fio, and the number of segments of a request if a segment is a page.
REQUESTS = (({"rw": "randread", "bs": "4k"}, 1),
            ({"rw": "randwrite", "bs": "16k"}, 4))
DEPTH = 5


def taken(guest: Guest, sim: Sim, start: Callable[[], fio.Run | Job],
          requests: int) -> int:
    """Return how many descriptors requests take while the device holds them.

    start: sends so many requests, and returns a job to wait() for.
    """
    disk = sim.disk()

    def queue() -> dict:
        return counters.of_disk_queue(guest, disk)

    def is_idle() -> bool:
        return queue()["free"] == queue()["ring"] == RING

    assert process.wait_for(is_idle, 5)
    sim.ctl("script 'on : hold'")
    running = start()
    assert process.wait_for(lambda: queue()["in_flight"] == requests, 30)
    found = RING - queue()["free"]
    sim.ctl("script clear")
    running.wait()
    assert process.wait_for(is_idle, 5)
    return found


@pytest.mark.parametrize("ring", tier.usual(RINGS, INDIRECT))
def test_request_takes_descriptors(sims: Guest, ring: str) -> None:
    """A request takes 1 indirect descriptor or 2 plus its segments, and frees them.

    From num_free the driver knows whether a request fits, and whether requests are in
    flight.
    """
    def each(segments: int) -> int:
        return segments + 2 if ring in DIRECT else 1

    with Sim(sims, features=RINGS[ring], queues=1, ring_size=RING, size_max=PAGE,
             capacity="32M") as sim:
        disk = f"/dev/{sim.disk()}"
        for options, segments in REQUESTS:
            start = partial(fio.start, sims, disk, iodepth=DEPTH, number_ios=DEPTH,
                            size="8m", **options)
            found = taken(sims, sim, start, DEPTH)
            assert found == DEPTH * each(segments), options
        sims.run(f"dd if=/dev/zero of={disk} bs=4k count=1 oflag=direct "
                 "conv=notrunc status=none")
        assert taken(sims, sim, lambda: sims.start(f"sync {disk}"), 1) == each(0)


# Callbacks

@pytest.mark.parametrize("ring", tier.usual(RINGS, ["split-indirect"]))
def test_late_and_spurious_callbacks(sims: Guest, ring: str) -> None:
    """Spurious and late callbacks cause no time-out, and leave no request behind."""
    with Sim(sims, features=RINGS[ring], queues=2, ring_size=RING, capacity="32M",
             script=["on every=7: late 20ms", "on every=11: delay 5ms"]) as sim:
        disk = sim.disk()
        for queue in (0, 1, 0, 1):
            sim.ctl(f"interrupt {queue}")
        storm = sims.start(
            "while [ -e /sys/block/%s ]; do for queue in 0 1; do "
            "/run/vblksim ctl --control=/run/vblksim-sim.sock interrupt $queue; "
            "done; done > /dev/null 2>&1" % disk, timeout=None)
        verify(sims, disk)
        storm.kill()
        for queue in (0, 1):
            found = counters.of_disk_queue(sims, disk, queue)
            assert found["timeouts"] == found["lost_interrupts"] == 0

            def is_empty(queue: int = queue) -> bool:
                return counters.of_disk_queue(sims, disk, queue)["free"] == RING

            assert process.wait_for(is_empty, 5)


# Ids

@pytest.mark.parametrize("ring,id", tier.usual(
    [(ring, id) for ring in RINGS for id in (RING - 1, 60000)],
    [("split-indirect", RING - 1), ("split-direct", 60000), ("packed-indirect", 60000)]))
def test_unknown_id_breaks_virtqueue(sims: Guest, ring: str, id: int) -> None:
    """virtio_ring breaks the virtqueue on an unknown id, and the disk is dead."""
    with Sim(sims, features=RINGS[ring], queues=1, ring_size=RING, capacity="32M",
             script=[f"on type=in sector=128-255: bad_id {id}"]) as sim:
        disk = sim.disk()
        with pytest.raises(FioError):
            fio.run(sims, f"/dev/{disk}", rw="read", bs="4k", size="1m",
                    iodepth=4, timeout=60)
        assert process.wait_for(
            lambda: sims.sysfs(f"/sys/block/{disk}/state") == "dead", 10)


# Features that are not negotiated

@on_debug_kernel
@pytest.mark.parametrize("ring", tier.usual(INDIRECT, ["split-indirect"]))
def test_in_order_and_notification_data_declined(sims: Guest, ring: str) -> None:
    """The driver accepts neither IN_ORDER nor NOTIFICATION_DATA, and its I/O works."""
    offered = f"{RINGS[ring]},bit{IN_ORDER},bit{NOTIFICATION_DATA}"
    with Sim(sims, features=offered, capacity="32M",
             script=["on every=9: reorder 2"]) as sim:
        disk = sim.disk()
        found = features(sims, disk)
        assert (found[IN_ORDER], found[NOTIFICATION_DATA]) == ("0", "0")
        verify(sims, disk)


@pytest.mark.kernels("7.3-debug")
def test_in_order_device_of_qemu(kernel: Kernel) -> None:
    """QEMU's device with in_order=on completes a load that hangs in-order rings."""
    disks = [Disk("split", "ram", 64 * MIB, queues=2, in_order=True),
             Disk("packed", "ram", 64 * MIB, queues=2, in_order=True, packed=True)]
    with Guest(kernel, disks=disks) as guest:
        for disk in disks:
            name = guest.dev(disk.id)
            assert features(guest, name)[IN_ORDER] == "0"
            report = fio.run(guest, f"/dev/{name}", rw="randread", bs="4k",
                             iodepth=32, numjobs=2, number_ios=500, timeout=60)
            assert fio.ios(report, "read") == 1000


# Full rings

@pytest.mark.kernels(full=("7.3-debug",))
def test_full_ring_with_delays(kernel: Kernel) -> None:
    """No request is lost when rings fill up and each step is delayed.

    Interrupts, other dispatchers and ends of batches may happen after the ring refuses
    a request and before blk-mq lists it.  Each job waits for all of its requests before
    it sends more, so that a lost request stops the job.
    """
    if not kernel.has("CONFIG_FAULT_INJECTION"):
        pytest.skip(f"{kernel.name} injects no faults")
    depth, block = 16, 64 << 10
    disk = Disk("narrow", "ram", 64 * MIB, queues=1, queue_size=64,
                indirect_desc=False)
    with Guest(kernel, disks=[disk]) as guest:
        name = guest.dev("narrow")
        guest.run(f"cd /sys/block/{name}/queue; echo none > scheduler; "
                  "echo 2 > nomerges")
        faults.set_fault(guest, "narrow", "delay", 10)
        guest.run(f"echo 2000 > {faults.faults(guest, 'narrow')}/delay_us")
        with full_ring.expected(guest, "narrow"):
            runs = [fio.start(guest, f"/dev/{name}", rw="randread", bs=block,
                              iodepth=depth, iodepth_batch_submit=depth,
                              iodepth_batch_complete_min=depth, iodepth_low=1,
                              cpus_allowed=cpu, time_based=1, runtime=20, timeout=120,
                              iomem=full_ring.memory(guest, depth * block))
                    for cpu in range(4)]
            for run in runs:
                assert fio.ios(run.wait()) > depth
        assert counters.of_queue(guest, "narrow")["in_flight"] == 0


# Interrupts

_IRQ = re.compile(r"\[(\d+)\] .*?: irq_handler_(entry|exit): irq=(\d+)")
_COMPLETE = re.compile(r"\[(\d+)\] .*?: virtblk_complete: (\w+) ")
# The last poll of the ring may exceed the budget by up to BATCH requests.
BUDGET, BATCH = 256, 32
FULL = 341


def test_hard_interrupt_is_bounded(kernel: Kernel) -> None:
    """A hard interrupt completes fewer than BUDGET + BATCH requests; none is lost.

    A work of the queue completes the others that are done by then.
    """
    disk = Disk("burst", "ram", 64 * MIB, queues=1, queue_size=1024)
    with Guest(kernel, disks=[disk], parallel=False) as guest:
        name = guest.dev("burst")
        guest.run(f"cd /sys/block/{name}/queue; echo none > scheduler; "
                  "echo 0 > rq_affinity; echo 2 > nomerges; "
                  "cd /sys/kernel/tracing; echo 8192 > buffer_size_kb; "
                  "echo 1 > events/irq/irq_handler_entry/enable; "
                  "echo 1 > events/irq/irq_handler_exit/enable; "
                  "echo 1 > events/virtio_blk/virtblk_complete/enable")
        with throttle.silent(guest, "burst"):
            running = fio.start(guest, f"/dev/{name}", rw="randread", bs="4k",
                                iodepth=FULL, number_ios=FULL)
            assert process.wait_for(lambda: counters.of_queue(
                guest, "burst")["in_flight"] == FULL, 60)
            guest.run("echo > /sys/kernel/tracing/trace")
        assert fio.ios(running.wait()) == FULL
        most = completed_in_interrupts(
            guest.run("cat /sys/kernel/tracing/trace").output, name)
        assert sum(most) > BUDGET // 2, f"there was no burst: {most}"
        assert max(most) < BUDGET + BATCH, most


def completed_in_interrupts(trace: str, disk: str) -> list[int]:
    """Return how many requests of a disk each hard interrupt completed."""
    inside: dict[str, int] = {}
    found = []
    for line in trace.splitlines():
        if match := _IRQ.search(line):
            cpu, step, _ = match.groups()
            if step == "entry":
                inside[cpu] = 0
            elif cpu in inside:
                found.append(inside.pop(cpu))
        elif (match := _COMPLETE.search(line)) and match[2] == disk \
                and match[1] in inside:
            inside[match[1]] += 1
    return [count for count in found if count]


# Flags that change: last, because from here on the guest tolerates VDUSE's warnings

@on_debug_kernel
@pytest.mark.parametrize("what", tier.usual(("cut", "cut_done"), ["cut"]))
def test_reset_after_device_changed_flags(sims: Guest, what: str) -> None:
    """A device that clears NEXT in chains of its requests does not panic the guest.

    virtio_ring follows NEXT in memory that the device can write to.  It panics when
    all buffers are back but descriptors of the ring are missing from the free list.
    A reset restores the list.  The mappings of the descriptors that are cut off stay:
    VDUSE never copies that status, and warns when the device is removed.
    """
    sims.tolerate("WARNING: .* vduse_domain_")
    with Sim(sims, features=RINGS["split-direct"], queues=1, ring_size=RING,
             capacity="32M", tolerate="KICK_UNWANTED",
             script=[f"on type=in sector=8192-16383 count=3: {what}"]) as sim:
        disk = sim.disk()

        def queue() -> dict:
            return counters.of_disk_queue(sims, disk)

        running = fio.start(sims, f"/dev/{disk}", rw="randread", bs="4k",
                            offset="4m", size="4m", iodepth=3, number_ios=3)
        if what == "cut":
            assert process.wait_for(lambda: queue()["in_flight"] == 3, 30)
        else:
            with pytest.raises(FioError):
                running.wait()
            assert queue()["free"] == RING - 3 * 2
        sims.run(f"echo 1 > /sys/block/{disk}/recovery/reset", timeout=30)
        if what == "cut":
            assert fio.ios(running.wait()) == 3
        assert queue()["free"] == RING
        verify(sims, disk)
        assert sims.sysfs(f"/sys/block/{disk}/state") == "live"
