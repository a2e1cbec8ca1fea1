# SPDX-License-Identifier: GPL-2.0
"""Lost interrupts and kicks, and devices that need a reset or are broken.

The driver injects the faults through debugfs (see fault_inject.c), except for a disk
that is only slow.  The block layer calls the driver about once a second for each request
in flight.
"""

import contextlib
import re

import pytest

from common import fio
from common.fio import FioError
from common.vblksim import Sim
from host import process
from soak import faults
from soak.scenario import Round
from testing import tier
from vm.disk import Disk
from vm.guest import Guest

from . import uevents

pytestmark = pytest.mark.kernels("7.3-debug")

MIB = 1 << 20


@pytest.fixture(scope="module")
def guest(kernel):
    """A guest with fast disks of three kinds, and one that takes 6 s for a request.

    All have a time-out of a second, except two, which have the default.
    """
    disks = [Disk("data", "ram", 64 * MIB, queues=4),
             Disk("patient", "ram", 64 * MIB, queues=4),
             Disk("patient-packed", "ram", 64 * MIB, queues=2, packed=True),
             Disk("direct", "ram", 64 * MIB, queues=2, queue_size=1024),
             Disk("packed", "ram", 64 * MIB, queues=2, packed=True),
             Disk("slow", "null", 64 * MIB, queues=4,
                  latency_ns=6_000_000_000)]
    with Guest(kernel, disks=disks, parallel=False) as guest:
        for disk in disks:
            if not disk.id.startswith("patient"):
                faults.hasten(guest, disk.id)
        yield guest


@pytest.mark.parametrize("id", (
    "data", pytest.param("direct", marks=pytest.mark.full), "packed"))
@pytest.mark.parametrize("what", faults.LOSSES)
def test_lost_interrupts_and_kicks(guest, id, what):
    """I/O continues when interrupts or kicks are lost: no I/O is lost."""
    timeouts = faults.counter(guest, id, "timeouts")
    played = Round(faults.LOST, guest.kernel)
    # On a busy host the guest completes few requests in a second.
    for _ in range(6):
        if played.counts[what] < 4:
            faults.lose_some(guest, id, what, played, seconds=6)
    assert played.counts[what] >= 4
    assert faults.counter(guest, id, "timeouts") - timeouts >= 4
    if what == "interrupts":
        assert played.counts["found by looking"] > 0


# A packed ring does not show that the device has missed a kick.
@pytest.mark.parametrize("what,id", tier.usual(
    (("interrupts", "patient"), ("interrupts", "patient-packed"), ("kicks", "patient")),
    (("interrupts", "patient-packed"), ("kicks", "patient"))))
def test_loss_is_found_long_before_io_timeout(guest, what, id):
    """With the default io_timeout, 30 s, a lost interrupt or kick costs some seconds.

    A kick does so on a ring of the driver's own with an event index.
    """
    timeouts = faults.counter(guest, id, "timeouts")
    found = faults.counter(guest, id, "lost_interrupts")
    running = faults.load(guest, id, time_based=1, runtime=15)
    running.wait_for_io(guest.dev(id), requests=50)
    # Each of the four jobs has one request in flight.
    faults.set_fault(guest, id, faults.LOSSES[what], 100, times=4)
    slowest = max(job[way]["clat_ns"]["max"] for job in running.wait()["jobs"]
                  for way in ("read", "write")) / 1e9
    assert 1 <= slowest < 12
    assert faults.counter(guest, id, "timeouts") == timeouts
    assert (faults.counter(guest, id, "lost_interrupts") > found) \
        == (what == "interrupts")


def test_interrupts_that_a_reset_does_not_bring_back(guest):
    """A disk that gets no interrupts is reset once, not once for each of its queues."""
    def counts():
        return [faults.counter(guest, "patient", name)
                for name in ("resets", "lost_interrupts")]

    resets, lost = counts()
    faults.set_fault(guest, "patient", "drop_interrupt", 100)
    fio.run(guest, f"/dev/{guest.dev('patient')}", rw="randread", bs="4k", iodepth=1,
            numjobs=4, cpus_allowed="0-3", cpus_allowed_policy="split", number_ios=16)
    faults.set_fault(guest, "patient", "drop_interrupt", 0)
    # The driver finds the reads of all queues, most of them lost, in the same steps.
    assert counts()[1] >= lost + 8 * 4
    assert counts()[0] == resets + 1


def test_slow_device(guest):
    """The driver waits for a slow device, and logs one line each at begin and end."""
    def lines(text):
        # The console may lag behind.
        return len(re.findall(rf"\[{guest.dev('slow')}\] {text}",
                              guest.run("dmesg").output))

    running = fio.start(guest, f"/dev/{guest.dev('slow')}", rw="randread",
                        bs="4k", iodepth=8, number_ios=8, timeout=60)
    assert process.wait_for(lambda: faults.state(guest, "slow") == "stalled", 60)
    assert lines("[1-8] requests on queues") == 1
    fio.ios(running.wait())
    assert process.wait_for(lambda: faults.state(guest, "slow") == "live", 5)
    assert lines("[1-8] requests on queues") == 1
    assert lines("all requests that had timed out have completed") == 1
    assert faults.counter(guest, "slow", "lost_interrupts") == 0


@pytest.mark.parametrize("id", (
    "data", pytest.param("direct", marks=pytest.mark.full)))
def test_resets(guest, id):
    """No I/O fails when the device or the administrator requests a reset."""
    running = faults.load(guest, id, time_based=1, runtime=30)
    for number in range(4):
        running.wait_for_io(guest.dev(id), requests=50)
        faults.confuse(guest, id, number % 2)
        assert faults.state(guest, id) == "live"
        resets = faults.counter(guest, id, "resets")
        faults.tell_to_reset(guest, id)
        assert faults.counter(guest, id, "resets") == resets + 1
    assert fio.ios(running.wait()) > 200


def test_requeue_when_ring_add_fails(guest):
    """The driver requeues requests that virtio_ring cannot add: none is lost."""
    running = faults.load(guest, "data", time_based=1, runtime=20)
    left = f"{faults.faults(guest, 'data')}/fail_add/times"
    faults.set_fault(guest, "data", "fail_add", 30, times=1000)
    try:
        assert process.wait_for(lambda: int(guest.sysfs(left)) <= 980, 60)
    finally:
        faults.set_fault(guest, "data", "fail_add", 0)
    assert fio.ios(running.wait()) > 50


@pytest.mark.parametrize("text", ("0", "", "reset", "2"))
def test_bad_reset(guest, text):
    """recovery/reset refuses any text except "1", and resets nothing."""
    resets = faults.counter(guest, "data", "resets")
    path = f"/sys/block/{guest.dev('data')}/recovery/reset"
    result = guest.run(f"/bin/echo '{text}' > {path}", check=False)
    assert "Invalid argument" in result.output
    assert faults.counter(guest, "data", "resets") == resets


def test_broken_device(guest):
    """When the virtqueues are broken, I/O fails and the disk can be removed."""
    guest.tolerate("I/O error, dev vd|Buffer I/O error")
    name = guest.dev("data")
    path = guest.run(f"readlink -f /sys/block/{name}/device/..").output.strip()
    uevents.start(guest)
    try:
        running = faults.load(guest, "data", time_based=1, runtime=20)
        running.wait_for_io(name, requests=50)
        guest.run(f"echo 1 > {faults.faults(guest, 'data')}/break_device")
        with pytest.raises(FioError):
            running.wait()
        assert faults.state(guest, "data") == "dead"
        assert process.wait_for(
            lambda: "VIRTBLK_STATE=dead" in uevents.seen(guest), 10)
    finally:
        uevents.end(guest)
    reset = guest.run(f"/bin/echo 1 > /sys/block/{name}/recovery/reset", check=False)
    assert "No such device" in reset.output
    guest.run(f"echo 1 > {path}/remove", timeout=30)
    guest.run("echo 1 > /sys/bus/pci/rescan", timeout=30)
    assert faults.state(guest, "data") == "live"
    assert fio.ios(faults.load(guest, "data").wait()) > 1000


@contextlib.contextmanager
def parameters(guest, **values):
    """Set parameters of the driver while the block runs."""
    directory = "/sys/module/virtio_blk/parameters"
    before = {name: guest.sysfs(f"{directory}/{name}") for name in values}
    try:
        for name, value in values.items():
            guest.run(f"echo {value} > {directory}/{name}")
        yield
    finally:
        for name, value in before.items():
            guest.run(f"echo {value} > {directory}/{name}")


def quick(guest, sim):
    """Set a vblksim disk's io_timeout to a second; return the disk's name."""
    name = sim.disk()
    guest.run(f"echo 1000 > /sys/block/{name}/queue/io_timeout")
    return name


def fail_to_read(guest, name):
    """Read a disk that does not answer all requests; the read must fail."""
    with pytest.raises(FioError):
        fio.run(guest, f"/dev/{name}", rw="read", bs="4k", size="1m", timeout=60)


def test_reset_after(sims):
    """With reset_after=2 the driver resets a silent device, and no I/O is lost."""
    with parameters(sims, reset_after=2), \
            Sim(sims, capacity="32M",
                tolerate="KICK_UNWANTED",
                script=["on type=out nth=300: stop"]) as sim:
        name = quick(sims, sim)
        report = fio.run(sims, f"/dev/{name}", rw="randrw", bs="4k", size="8m",
                         verify="crc32c")
        assert fio.ios(report) > 1000
        assert sims.sysfs(f"/sys/block/{name}/recovery/resets") == "1"
        # The driver checks once a second whether a request is still stalled.
        assert process.wait_for(
            lambda: sims.sysfs(f"/sys/block/{name}/state") == "live", 5)


def test_request_fails_after_repeated_resets(sims):
    """A request that the device never answers fails after 4 resets; others do not."""
    sims.tolerate("I/O error, dev vd|Buffer I/O error")
    with Sim(sims, capacity="32M", tolerate="KICK_UNWANTED",
             script=["on sector=800-807: drop"]) as sim:
        name = quick(sims, sim)
        job = sims.start(f"dd if=/dev/{name} of=/dev/null bs=4k skip=100 count=1 "
                         "iflag=direct")
        for _ in range(4):
            assert process.wait_for(
                lambda: sims.sysfs(f"/sys/block/{name}/inflight").split()[0] == "1", 10)
            assert job.running
            sims.run(f"echo 1 > /sys/block/{name}/recovery/reset")
        result = job.wait(check=False)
        assert "Input/output error" in result.output
        assert sims.sysfs(f"/sys/block/{name}/recovery/resets") == "4"
        assert fio.ios(fio.run(sims, f"/dev/{name}", rw="randrw", bs="4k",
                               offset="1m", size="8m", verify="crc32c")) > 1000


def test_device_dead_after_reset_attempts(sims):
    """A device that still does not answer after reset_attempts resets is dead."""
    sims.tolerate("I/O error, dev vd|Buffer I/O error")
    with parameters(sims, reset_after=2, reset_attempts=2), \
            Sim(sims, capacity="32M",
                tolerate="KICK_UNWANTED",
                script=["on sector=100-200: drop"]) as sim:
        name = quick(sims, sim)
        fail_to_read(sims, name)
        assert sims.sysfs(f"/sys/block/{name}/recovery/resets") == "2"
        assert sims.sysfs(f"/sys/block/{name}/state") == "dead"


def test_reset_with_changed_block_size(sims):
    """A device that returns from a reset with another block size is dead."""
    sims.tolerate("I/O error, dev vd|Buffer I/O error")
    with Sim(sims, capacity="32M", tolerate="KICK_UNWANTED") as sim:
        name = quick(sims, sim)
        sim.ctl("set blk_size 4096")
        result = sims.run(f"/bin/echo 1 > /sys/block/{name}/recovery/reset",
                          check=False)
        assert "No such device" in result.output
        assert "came back with another block size" in \
            sims.run("dmesg | tail -n 20").output
        assert sims.sysfs(f"/sys/block/{name}/state") == "dead"
        fail_to_read(sims, name)


def test_unknown_descriptor_id(sims):
    """A device that returns an unknown descriptor id is dead, and its I/O fails."""
    sims.tolerate("I/O error, dev vd|Buffer I/O error|id 77 is not a head")
    with Sim(sims, capacity="32M",
             script=["on type=in sector=100-200: bad_id 77"]) as sim:
        name = quick(sims, sim)
        fail_to_read(sims, name)
        assert sims.sysfs(f"/sys/block/{name}/state") == "dead"
