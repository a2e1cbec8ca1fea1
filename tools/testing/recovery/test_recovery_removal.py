# SPDX-License-Identifier: GPL-2.0
"""Removal of a disk whose device is slow, silent, or gone.

A device that completes requests is alive, and removal waits for it however slow it
is.  Removal gives up only when no request of the whole disk has completed for
removal_timeout seconds, or when the driver knows that the device is gone.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from common import fio, throttle
from common.dirty import Pages, unthrottled
from common.vblksim import Sim
from host import process
from soak.vanish import REMOVAL_SECONDS, slot_power
from vm import image
from vm.disk import Disk
from vm.guest import Guest, Job
from vm.kernels import Kernel

from .test_recovery_faults import parameters

pytestmark = pytest.mark.kernels("6.12", full=("6.1", "7.3-debug"))

MIB = 1 << 20
DRIVER = "/sys/bus/virtio/drivers/virtio_blk"


@pytest.fixture(scope="module")
def guest(kernel: Kernel) -> Iterator[Guest]:
    """A guest with disks that tests make slow or silent.

    "ports" is a legacy device (virtio 0.9): its registers are in I/O ports.
    """
    disks = [Disk("slow", "ram", 64 * MIB, queues=2),
             Disk("ports", "ram", 64 * MIB, queues=2, legacy=True)]
    with Guest(kernel, disks=disks, parallel=False) as guest:
        guest.tolerate("I/O error, dev vd|Buffer I/O error|lost async page write")
        yield guest


@pytest.fixture(scope="module")
def sims(kernel: Kernel, sims: Guest) -> Guest:
    """The guest for vblksim, whose requests may fail."""
    sims.tolerate("I/O error, dev vd|Buffer I/O error|lost async page write")
    return sims


@dataclass
class Removal:
    """A removal that has begun; kept_waiting: as in Guest.kept_waiting()."""

    guest: Guest
    device: str
    job: Job
    kept_waiting: Callable[[], float]

    @classmethod
    def begin(cls, guest: Guest, name: str) -> "Removal":
        """Unbind the driver from a disk."""
        device = guest.run("basename $(readlink -f /sys/block/"
                           f"{name}/device)").output.strip()
        now = "cut -d' ' -f1 /proc/uptime"
        kept_waiting = guest.kept_waiting()
        job = guest.start(f"{now}; echo {device} > {DRIVER}/unbind; {now}", timeout=120)
        return cls(guest, device, job, kept_waiting)

    def seconds(self) -> float:
        """Wait until the removal ends; return its duration by the guest's clock."""
        begin, end = map(float, self.job.wait().output.split())
        return end - begin

    def seconds_with_cpu(self) -> float:
        """Return the same without the time for which a busy host gave QEMU no CPU."""
        return self.seconds() - self.kept_waiting()

    def undo(self) -> None:
        """Bind the driver again."""
        self.guest.run(f"echo {self.device} > {DRIVER}/bind")


def start_to_read(guest: Guest, name: str) -> Job:
    """Start a read of one block of a disk that does not answer."""
    return guest.start(f"dd if=/dev/{name} of=/dev/null bs=4k skip=4096 count=1 "
                       "iflag=direct")


def works(guest: Guest, id: str) -> None:
    """Write, read and compare."""
    report = fio.run(guest, f"/dev/{guest.dev(id)}", rw="randrw", bs="4k",
                     size="1m", offset="48m", verify="crc32c")
    assert fio.ios(report) > 200


def test_removal_of_slow_disk_writes_all_back(guest: Guest) -> None:
    """No dirty page is lost although requests wait in the device for seconds.

    At 50 requests a second, the device completes the last of 256 requests that a
    queue sends at once after more than five seconds.
    """
    name = unthrottled(guest, "slow")
    with throttle.slow(guest, "slow", iops=50):
        writer = Pages(400).write(guest, name)
        removal = Removal.begin(guest, name)
        seconds = removal.seconds()
        writer.kill()
    missing = Pages(400).missing(guest, "slow")
    removal.undo()
    assert not missing, f"{len(missing)} of 400 pages, in {seconds} s: {missing}"
    works(guest, "slow")


def test_removal_timeout_is_of_silence_not_of_requests(guest: Guest) -> None:
    """Removal waits for all requests of a device that completes one a second."""
    name = unthrottled(guest, "slow")
    with parameters(guest, removal_timeout=3), \
            throttle.slow(guest, "slow", iops=1):
        writer = Pages(10).write(guest, name)
        removal = Removal.begin(guest, name)
        seconds = removal.seconds()
        writer.kill()
    missing = Pages(10).missing(guest, "slow")
    removal.undo()
    assert not missing, f"{missing} in {seconds} s"
    assert seconds > 6
    works(guest, "slow")


@pytest.mark.kernels("6.12", full=("7.3-debug",))
def test_removal_of_silent_disk_ends_after_timeout(sims: Guest) -> None:
    """Removal of a silent device ends after removal_timeout, and then its I/O fails.

    Afterwards the disk works again, because binding the driver resets the device.
    """
    with parameters(sims, removal_timeout=6), \
            Sim(sims, capacity="32M", tolerate="KICK_UNWANTED",
                script=["on type=out nth=1: stop"]) as sim:
        name = sim.disk()
        pages = Pages(4).write(sims, name)
        # From here on the removal has 6 s to begin: else it would end at once.
        silent_since = time.monotonic()
        writer = sims.start(f"dd if=/dev/zero of=/dev/{name} bs=4k seek=4096 "
                            "count=1 oflag=direct")
        assert process.wait_for(
            lambda: sims.sysfs(f"/sys/block/{name}/inflight").split()[1] == "1", 5)
        removal = Removal.begin(sims, name)
        assert process.wait_for(
            lambda: sims.sysfs(f"/sys/block/{name}/state") == "removing", 5)
        seconds = removal.seconds_with_cpu()
        silent = time.monotonic() - silent_since
        pages.kill()
        assert "Input/output error" in writer.wait(check=False).output
        removal.undo()
        # The device is silent before the removal begins, on a busy host for seconds.
        assert silent >= 6
        assert seconds < 6 + REMOVAL_SECONDS
        report = fio.run(sims, f"/dev/{sim.disk()}", rw="randrw", bs="4k", size="1m",
                         verify="crc32c")
        assert fio.ios(report) > 200


def test_removal_without_timeout_waits(guest: Guest) -> None:
    """With removal_timeout=0 removal waits until a silent device answers."""
    name = unthrottled(guest, "slow")
    with parameters(guest, removal_timeout=0), throttle.silent(guest, "slow"):
        writer = Pages(20).write(guest, name)
        removal = Removal.begin(guest, name)
        # Longer than the removal timeouts of the other tests.
        guest.run("sleep 8")
        waits = removal.job.running
        throttle.limit(guest, "slow")
        removal.seconds()
        writer.kill()
    missing = Pages(20).missing(guest, "slow")
    removal.undo()
    assert waits
    assert not missing
    works(guest, "slow")


@pytest.mark.parametrize("file", ("queue0", "latency"))
def test_removal_while_reader_of_debugfs_waits(guest: Guest, file: str) -> None:
    """Removal of a silent disk ends although a reader of its files waits for the disk."""
    name = unthrottled(guest, "slow")
    guest.put(image.program(Path(__file__).with_name("read_into.c"), guest.arch),
              "/tmp/read_into")
    guest.run(f"blockdev --flushbufs /dev/{name}")
    files = f"/sys/kernel/debug/virtio_blk/{name}"
    # The file latency has something to print when requests complete while it is open.
    guest.run("rm -f /tmp/counts /tmp/silent")
    reader = guest.start(
        f"exec 3< {files}/latency; dd if=/dev/{name} of=/dev/null bs=4k count=1 "
        "iflag=direct status=none; touch /tmp/counts; "
        "until [ -e /tmp/silent ]; do sleep 0.1; done; "
        f"exec /tmp/read_into {files}/{file} /dev/{name} {32 * MIB}", timeout=120)
    guest.run("until [ -e /tmp/counts ]; do sleep 0.1; done", timeout=30)
    with parameters(guest, removal_timeout=3), throttle.silent(guest, "slow"):
        guest.run("touch /tmp/silent")
        assert process.wait_for(
            lambda: guest.sysfs(f"/sys/block/{name}/inflight").split()[0] != "0", 30)
        removal = Removal.begin(guest, name)
        seconds = removal.seconds_with_cpu()
    # QEMU may complete the read when the driver resets the device.
    reader.wait(check=False)
    removal.undo()
    assert seconds < 3 + REMOVAL_SECONDS
    works(guest, "slow")


def test_removal_while_reader_of_proc_irq_waits(guest: Guest) -> None:
    """Removal of a silent disk ends although a reader of its interrupt waits for the disk.

    Other requests have all tags of the reader's queue.
    """
    name = unthrottled(guest, "slow")
    block = f"/sys/block/{name}"
    guest.put(image.program(Path(__file__).with_name("read_into.c"), guest.arch),
              "/tmp/read_into")
    depth = guest.sysfs(f"{block}/queue/nr_requests")
    irq = guest.run(f"basename $(readlink -f {block}/device) | "
                    "xargs -I% sed -n 's/^ *\\([0-9]*\\):.*%-req.0$/\\1/p' "
                    "/proc/interrupts").output.strip()
    guest.run(f"blockdev --flushbufs /dev/{name}; echo 4 > {block}/queue/nr_requests")
    with parameters(guest, removal_timeout=3), throttle.silent(guest, "slow"):
        others = [guest.start(f"taskset -c 0 dd if=/dev/{name} of=/dev/null bs=4k "
                              f"skip={4096 + n} count=1 iflag=direct", timeout=120)
                  for n in range(4)]
        assert process.wait_for(
            lambda: guest.sysfs(f"{block}/inflight").split()[0] == "4", 30)
        reader = guest.start("echo $$ > /run/reader; exec taskset -c 0 /tmp/read_into "
                             f"/proc/irq/{irq}/smp_affinity /dev/{name} {32 * MIB}",
                             timeout=120)
        guest.run("until grep -qs '^State:.D' /proc/$(cat /run/reader)/status; "
                  "do sleep 0.1; done", timeout=30)
        removal = Removal.begin(guest, name)
        seconds = removal.seconds_with_cpu()
    for job in (*others, reader):
        job.wait(check=False)
    removal.undo()
    guest.run(f"echo {depth} > /sys/block/{guest.dev('slow')}/queue/nr_requests")
    assert seconds < 3 + REMOVAL_SECONDS
    works(guest, "slow")


# Devices that are gone

def remove_function(guest: Guest, function: str) -> float:
    """Remove a PCI function; return how long it took, in seconds."""
    kept_waiting = guest.kept_waiting()
    begin, end = map(float, guest.run(
        f"cut -d' ' -f1 /proc/uptime; echo 1 > {function}/remove; "
        "cut -d' ' -f1 /proc/uptime", timeout=60).output.split())
    return end - begin - kept_waiting()


@dataclass
class Victim:
    """A disk that is about to vanish while requests wait in its device."""

    guest: Guest
    id: str
    name: str
    function: str
    jobs: list[Job]

    @classmethod
    def waiting(cls, guest: Guest, id: str) -> "Victim":
        """Start a read and writes on the disk of a silent device."""
        name = unthrottled(guest, id)
        function = guest.run(f"readlink -f /sys/block/{name}/device/..") \
            .output.strip()
        jobs = [start_to_read(guest, name), Pages(4).write(guest, name)]
        assert process.wait_for(
            lambda: guest.sysfs(f"/sys/block/{name}/inflight").split()[0] == "1", 10)
        return cls(guest, id, name, function, jobs)

    def removed(self) -> None:
        """Check that its I/O has failed, and that the disk works after a rescan."""
        reader, writer = self.jobs
        assert "Input/output error" in reader.wait(check=False).output
        writer.kill()
        throttle.limit(self.guest, self.id)
        self.guest.run("sleep 0.5; echo 1 > /sys/bus/pci/rescan", timeout=60)
        works(self.guest, self.id)


def test_removal_of_pulled_disk_is_immediate(guest: Guest) -> None:
    """Removal does not wait for a device that is no longer in its slot."""
    with throttle.silent(guest, "slow"):
        victim = Victim.waiting(guest, "slow")
        port = victim.function.split("/")[-2]
        slot_power(guest, port, False)
        seconds = remove_function(guest, victim.function)
        slot_power(guest, port, True)
        victim.removed()
    assert seconds < REMOVAL_SECONDS


def test_removal_of_disk_that_reads_all_ones(guest: Guest) -> None:
    """A device whose status reads 0xff is gone: removal is immediate, without a WARN.

    Its status never becomes 0, and the virtio core would warn that the driver has not
    reset the device.  I/O ports of a function that does not decode them read as all
    ones; in QEMU its memory does not.
    """
    with throttle.silent(guest, "ports"):
        victim = Victim.waiting(guest, "ports")
        guest.run(f"setpci -s {victim.function.split('/')[-1]} COMMAND=0:3")
        assert guest.run(f"cat {victim.function}/virtio*/status") \
            .output.strip() == "0x000000ff"
        seconds = remove_function(guest, victim.function)
        victim.removed()
    assert seconds < REMOVAL_SECONDS
