# SPDX-License-Identifier: GPL-2.0
"""Recovery does not deadlock with kernel code that waits for requests.

Recovery, suspend and a reset of the PCI function hold requests back.  Other parts of
the kernel wait for requests: CPU hotplug, frozen queues, memory reclaim.  When these
meet, all of them must end.  See Documentation/design.rst.
"""

import contextlib
import re
from collections.abc import Iterator

import pytest

from common import fio, throttle
from common.dirty import Pages, unthrottled
from host import process
from soak import faults
from vm.disk import Disk
from vm.guest import Guest
from vm.kernels import Kernel

MIB = 1 << 20
# The driver waits twice io_timeout, which is 1 s here, for a hung device.
PATIENCE = 2
# A busy host takes so many seconds more.
GRACE = 10

_RESETS = """
until [ -e /tmp/toggles ]; do sleep 0.1; done
for n in $(seq {count}); do
    echo 1 > /sys/block/{name}/recovery/reset || exit
done
echo done > /tmp/resets
"""
_TOGGLES = """
count=0
touch /tmp/toggles
until [ -e /tmp/resets ]; do
    for cpu in 1 2 3; do
        echo 0 > /sys/devices/system/cpu/cpu$cpu/online || exit
        echo 1 > /sys/devices/system/cpu/cpu$cpu/online || exit
        count=$((count + 2))
    done
done
echo $count
"""


# CPU hotplug

@pytest.mark.kernels("6.12", full=("6.1", "7.3-debug"))
def test_resets_while_cpus_go_offline(kernel: Kernel) -> None:
    """Resets and CPU hotplug at the same time do not deadlock.

    A CPU that goes offline waits for the requests of its queue, and holds the lock
    under which the kernel spreads interrupts.  A reset holds these requests back.
    """
    disk = Disk("busy", "null", 64 * MIB, queues=4, latency_ns=500_000)
    with Guest(kernel, disks=[disk], parallel=False) as guest:
        name = guest.dev("busy")
        guest.run("rm -f /tmp/resets /tmp/toggles")
        load = fio.start(guest, f"/dev/{name}", rw="randread", bs="4k", iodepth=16,
                         numjobs=4, time_based=1, runtime=60)
        load.wait_for_io(name, requests=50)
        resets = guest.start(_RESETS.format(name=name, count=30), timeout=60)
        toggles = guest.start(_TOGGLES, timeout=70)
        resets.wait()
        assert int(toggles.wait().output.split()[-1]) > 10
        assert faults.counter(guest, "busy", "resets") >= 30
        load.kill()
        # A request whose interrupt goes to an offline CPU would not end.
        fio.run(guest, f"/dev/{name}", rw="randread", bs="4k", numjobs=4,
                size="1m", timeout=60)


# Devices that do not answer

@pytest.fixture(scope="module")
def guest(kernel: Kernel) -> Iterator[Guest]:
    """A guest with disks that tests make silent, and another one.

    When a guest suspends, QEMU completes all its throttled requests.  A test of suspend
    therefore needs "remote", whose device is another process.
    """
    disks = [Disk("throttled", "ram", 64 * MIB, queues=4),
             Disk("remote", "vhost-user", 64 * MIB, queues=4),
             Disk("other", "ram", 512 * MIB, queues=4)]
    with Guest(kernel, disks=disks, parallel=False) as guest:
        for id in ("throttled", "remote"):
            faults.hasten(guest, id)
        yield guest


@contextlib.contextmanager
def io_in_flight(guest: Guest, id: str,
                 silence: contextlib.AbstractContextManager) -> Iterator[None]:
    """Keep verified I/O waiting for a silent device in the block, and end it after."""
    with silence:
        running = fio.start(guest, f"/dev/{guest.dev(id)}", rw="randwrite",
                            bs="4k", iodepth=8, numjobs=4, size="128k",
                            offset_increment="8m", verify="crc32c", timeout=120,
                            **fio.FREEZABLE)
        inflight = f"/sys/block/{guest.dev(id)}/inflight"
        assert process.wait_for(
            lambda: int(guest.sysfs(inflight).split()[1]) == 4 * 8, 60)
        try:
            yield
            assert running.running
        except BaseException:
            running.kill()
            raise
    assert fio.ios(running.wait(), "write") == 4 * 32


@pytest.mark.kernels("7.3-debug", full=("6.12", "6.1"))
def test_function_reset_of_hung_device(guest: Guest) -> None:
    """A reset of the PCI function ends, and the I/O ends once the device answers."""
    with io_in_flight(guest, "throttled", throttle.silent(guest, "throttled")):
        guest.run("echo 1 > $(readlink -f /sys/block/"
                  f"{guest.dev('throttled')}/device/..)/reset",
                  timeout=PATIENCE + GRACE)
    assert process.wait_for(lambda: faults.state(guest, "throttled") == "live", 10)


@contextlib.contextmanager
def paused(disk: Disk) -> Iterator[None]:
    """Stop the process behind a disk while the block runs."""
    disk.stop_server()
    try:
        yield
    finally:
        disk.continue_server()


def try_to_suspend(guest: Guest, disk: Disk) -> str:
    """Suspend to idle; return the shell's output, which is "" if the guest slept.

    A device that delays suspend by PATIENCE + GRACE is continued, and answers.
    """
    clock = guest.clock()
    limit = clock() + PATIENCE + GRACE
    job = guest.start("/bin/echo freeze > /sys/power/state", timeout=120)
    process.wait_for(lambda: not job.running or clock() > limit, 120)
    if job.running:
        disk.continue_server()
        while job.running:
            guest.qmp("system_powerdown")
            process.wait_for(lambda: not job.running, 1)
    return job.wait(check=False).output


@pytest.mark.kernels("7.3-debug", full=("6.12", "6.1"))
def test_suspend_with_hung_device_is_aborted(guest: Guest) -> None:
    """A device that does not answer aborts suspend, and all disks keep working."""
    remote = guest.disks["remote"]
    with io_in_flight(guest, "remote", paused(remote)):
        said = try_to_suspend(guest, remote)
        assert re.search("resource busy|timed out", said), f"the guest slept: {said}"
        works(guest, "other")
    guest.suspend()
    for id in guest.disks:
        works(guest, id)


def works(guest: Guest, id: str) -> None:
    """Write, read and compare."""
    fio.run(guest, f"/dev/{guest.dev(id)}", rw="randrw", bs="4k", size="1m",
            verify="crc32c", timeout=60)
    assert faults.state(guest, id) == "live"


@pytest.mark.kernels("7.3-debug")
def test_suspend_with_writes_of_the_kernel(guest: Guest) -> None:
    """Suspend takes secondary CPUs offline although write-back writes to a disk.

    Write-back is not frozen with the processes.  A CPU that goes offline must not wait
    for a request that write-back sends while the device is suspended.
    """
    name = unthrottled(guest, "other")
    guest.run("""set -e
        echo 0 > /sys/power/sync_on_suspend
        echo processors > /sys/power/pm_test
        echo 1 > /sys/module/suspend/parameters/pm_test_delay
        echo deep > /sys/power/mem_sleep
        echo e > /sys/bus/workqueue/devices/writeback/cpumask
        echo 10 > /proc/sys/vm/dirty_writeback_centisecs
        echo 1 > /proc/sys/vm/dirty_expire_centisecs""")
    with throttle.slow(guest, "other", iops=200):
        writer = Pages(4000).write(guest, name)
        # At 200 pages a second, write-back lasts longer than suspend takes to begin.
        left = guest.run("until [ $(awk '/^Writeback:/ { print $2 }' /proc/meminfo) "
                         "-gt 100 ]; do sleep 0.1; done; "
                         "awk '/^Dirty|^Writeback:/ { kb += $2 } END { print kb }' "
                         "/proc/meminfo", timeout=60).output
        said = guest.run("/bin/echo mem > /sys/power/state", timeout=60, check=False)
        assert not said.status, said.output + guest.log()[-3000:]
    guest.run("sync", timeout=60)
    writer.kill()
    assert "CPU 3 is now offline" in guest.run("dmesg").output
    assert int(left) > 1000
    assert not Pages(4000).missing(guest, "other")


# Probe and removal

_BIND = """
cd /sys/bus/virtio/drivers/virtio_blk
until [ -e /tmp/reset ]; do
    echo {virtio} > unbind
    # A reset in the middle of the probe may make it fail.
    echo {virtio} > bind
    echo bound
done
"""


@pytest.mark.kernels("7.3-debug")
def test_function_reset_while_disk_is_probed(kernel: Kernel) -> None:
    """Resets of the PCI function while the disk is probed and removed harm nothing."""
    with Guest(kernel, disks=[Disk("data", "ram", 64 * MIB, queues=2)], cpus=2,
               parallel=False) as guest:
        virtio = guest.run(f"basename $(readlink -f /sys/block/{guest.dev('data')}"
                           "/device)").output.strip()
        function = guest.run("dirname $(readlink -f /sys/bus/virtio/devices/"
                             f"{virtio})").output.strip()
        # The core warns if it does not get the device's features back.
        guest.tolerate(r"failed to (probe|restore)|virtio_blk: probe of|error -")
        # It also warns about a device that it has set up itself during a removal.
        guest.tolerate("WARNING: at virtio_dev_remove")
        resets = guest.start(f"for n in $(seq 30); do echo 1 > {function}/reset || exit; "
                             "done; touch /tmp/reset", timeout=300)
        bound = guest.run(_BIND.format(virtio=virtio), timeout=300, check=False).output
        resets.wait()
        assert bound.count("bound") >= 10

        guest.run(f"[ -e /sys/bus/virtio/drivers/virtio_blk/{virtio} ] || "
                  f"echo {virtio} > /sys/bus/virtio/drivers/virtio_blk/bind")
        report = fio.run(guest, f"/dev/{guest.dev('data')}", rw="randwrite", bs="4k",
                         size="4m", iodepth=16, verify="crc32c")
        assert fio.ios(report, "write") == 1024
