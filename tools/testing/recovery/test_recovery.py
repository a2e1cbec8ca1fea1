# SPDX-License-Identifier: GPL-2.0
"""Suspend, and resets of the transport: the device returns, or fails to.

The virtio core reports resets of the transport from 6.14 on.  Only the debug kernel
can make an allocation of the driver fail.
"""

import pytest

from common import counters, fio, throttle, topology
from common.fio import FioError
from host import process
from soak.faults import counter, hasten, load, tell_to_reset
from testing import tier
from vm.disk import Disk
from vm.guest import Guest

pytestmark = pytest.mark.kernels("7.3-debug")

MIB = 1 << 20


@pytest.fixture(scope="module")
def guest(kernel):
    """A guest with three disks.

    The driver does without indirect descriptors on "direct" because its ring is
    large enough.
    """
    with Guest(kernel, disks=[Disk("data", "ram", 64 * MIB, queues=4),
                              Disk("packed", "ram", 64 * MIB, queues=2,
                                   packed=True),
                              Disk("direct", "ram", 64 * MIB, queues=2,
                                   queue_size=1024, packed=True)],
               params="poll_queues=1", parallel=False) as guest:
        yield guest


def function_of(guest, id):
    """Return the directory of a disk's PCI function in sysfs."""
    return guest.run(f"readlink -f /sys/block/{guest.dev(id)}/device/..") \
        .output.strip()


def rings(guest, id):
    """Return a disk's features, queue depth and largest number of segments."""
    return guest.run(f"cd /sys/block/{guest.dev(id)} && cat device/features "
                     "queue/nr_requests queue/max_segments").output.split()


@pytest.mark.parametrize("id", ("data", "packed", "direct"))
def test_transport_reset_under_load(guest, id):
    """I/O waits while its device is reset, and then continues: none is lost."""
    function = function_of(guest, id)
    before = rings(guest, id)
    direct = id == "direct" and not guest.kernel.prepared
    assert before[0][28] == ("0" if direct else "1")
    running = load(guest, id, time_based=1, runtime=6)
    for _ in range(3):
        running.wait_for_io(guest.dev(id), requests=50)
        guest.run(f"echo 1 > {function}/reset")
    assert fio.ios(running.wait()) > 100
    assert rings(guest, id) == before


def test_transport_reset_while_polling(guest):
    """A reset completes although polled I/O never pauses, and no I/O is lost."""
    running = fio.start(guest, f"/dev/{guest.dev('data')}", ioengine="io_uring",
                        hipri=1, rw="randread", bs="4k", iodepth=32, numjobs=2,
                        time_based=1, runtime=6)
    for _ in range(3):
        running.wait_for_io(guest.dev("data"), requests=50)
        guest.run(f"echo 1 > {function_of(guest, 'data')}/reset")
    assert fio.ios(running.wait()) > 100


@pytest.mark.kernels("6.12", full=("6.1",))
def test_function_reset_that_is_not_reported(kernel):
    """The driver initializes a device again that was reset without a report.

    Kernels before 6.14 do not report a reset of the PCI function.  After each reset
    verified I/O continues when a request has timed out, and none of it fails.
    """
    with Guest(kernel, disks=[Disk("data", "ram", 64 * MIB, queues=4)],
               parallel=False) as guest:
        hasten(guest, "data")
        running = load(guest, "data", time_based=1, runtime=12)
        for number in (1, 2):
            running.wait_for_io(guest.dev("data"))
            guest.run(f"echo 1 > {function_of(guest, 'data')}/reset")
            # On a busy host the load may have ended, and then no request would time out.
            guest.run(f"dd if=/dev/{guest.dev('data')} of=/dev/null bs=4k count=1 "
                      "iflag=direct status=none", timeout=60)
            assert process.wait_for(
                lambda: counter(guest, "data", "resets") == number, 30)
        assert fio.ios(running.wait()) > 100
        assert "was reset by somebody else" in guest.log()
        assert guest.sysfs(f"/sys/block/{guest.dev('data')}/state") != "dead"


@pytest.mark.kernels("6.1", full=("6.12", "7.3-debug"))
def test_reset_finds_the_requests_of_a_batch(kernel):
    """A reset sends requests again that came as a batch, on tags that are used first.

    Before 6.7 blk-mq finds them only if the driver enters them into the table of requests.
    """
    depth = 64
    with Guest(kernel, disks=[Disk("data", "ram", 64 * MIB, queues=1)],
               parallel=False) as guest:
        # A scheduler dispatches requests one by one.
        guest.run(f"echo none > /sys/block/{guest.dev('data')}/queue/scheduler")
        with throttle.silent(guest, "data"):
            running = fio.start(guest, f"/dev/{guest.dev('data')}", ioengine="io_uring",
                                rw="randread", bs="4k", iodepth=depth, number_ios=depth,
                                iodepth_batch_submit=depth, timeout=60)
            found = process.wait_for(lambda: counters.of_queue(
                guest, "data")["in_flight"] == depth, 20)
            assert found, counters.of_queue(guest, "data")
            guest.run(f"echo 1 > /sys/block/{guest.dev('data')}/recovery/reset")
        assert fio.ios(running.wait()) == depth


def test_transport_reset_resize(guest):
    """After a reset the driver reads a capacity that changed without an interrupt."""
    guest.resize_disk("packed", 96 * MIB)
    guest.run(f"echo 1 > {function_of(guest, 'packed')}/reset")
    size = f"/sys/block/{guest.dev('packed')}/size"
    assert process.wait_for(lambda: int(guest.sysfs(size)) == 96 * 2048, 10)


def fail_allocation_in(guest, function, times=1):
    """Make the next allocations in a function of the kernel fail; times: -1 is all."""
    guest.run(f"""set -e
        set -- $(grep -A1 ' {function}$' /proc/kallsyms)
        cd /sys/kernel/debug/failslab
        echo 0x$1 > require-start
        echo 0x$4 > require-end
        echo 32 > stacktrace-depth
        echo N > ignore-gfp-wait
        echo 0 > verbose
        echo 1 > interval
        echo {times} > times
        echo 100 > probability""")


@pytest.mark.parametrize("command", ("blkdiscard", "blkdiscard -z"))
def test_ranges_without_memory(guest, command):
    """A discard and write zeroes complete although no memory for ranges can be had.

    What waits behind them in the queue may be what would free memory.
    """
    fail_allocation_in(guest, "virtblk_add_ranges")
    attempts = "/sys/kernel/debug/failslab/times"
    guest.run(f"echo 1000000 > {attempts}")
    try:
        guest.run(f"timeout 20 {command} -f -o 16M -l 1M /dev/{guest.dev('data')}")
        assert int(guest.sysfs(attempts)) < 1000000
    finally:
        guest.run("echo 0 > /sys/kernel/debug/failslab/probability")
    assert fio.ios(load(guest, "data").wait()) > 1000


# Vectors and CPUs

def mask_vectors(guest, id):
    """Mask a disk's vectors behind the kernel's back: its device interrupts no more."""
    config = f"{function_of(guest, id)}/config"
    bytes_ = [int(byte, 16) for byte in guest.run(f"od -An -v -tx1 {config}").output.split()]
    # From the pointer to the first capability on: number, next; MSI-X has number 17.
    place = bytes_[0x34]
    while bytes_[place] != 17:
        place = bytes_[place + 1]
    # Function Mask is bit 14 of Message Control.
    guest.run(f"printf '\\{bytes_[place + 3] | 0x40:03o}' | "
              f"dd of={config} bs=1 seek={place + 3} conv=notrunc status=none")


@pytest.mark.kernels("6.12", full=("6.1", "7.3-debug"))
def test_vectors_that_are_dead(kernel):
    """A disk that gets no interrupts any more is reset, once, and gets them again."""
    in_a_row, ios = 8, 40
    with Guest(kernel, disks=[Disk("data", "ram", 64 * MIB, queues=2)],
               parallel=False) as guest:
        for resets in (1, 2):
            mask_vectors(guest, "data")
            fio.run(guest, f"/dev/{guest.dev('data')}", rw="randread", bs="4k", iodepth=1,
                    number_ios=ios, cpus_allowed=0)
            assert counter(guest, "data", "resets") == resets
            # Another one may be found while the reset begins.
            assert in_a_row <= counter(guest, "data", "lost_interrupts") // resets \
                <= in_a_row + 1
        assert "gets no interrupts, resetting it" in guest.log()


def switch_cpu(guest, cpu, on):
    """Take a CPU offline or online."""
    guest.run(f"echo {int(on)} > /sys/devices/system/cpu/cpu{cpu}/online")


def requests(guest, id):
    """Return how many reads and writes a disk has completed."""
    stat = guest.sysfs(f"/sys/block/{guest.dev(id)}/stat").split()
    return int(stat[0]) + int(stat[4])


def vectors_fit(guest):
    """Return whether each queue's vector goes to the CPUs that use the queue."""
    return all(disk.wanted_affinity() == {
        vector: interrupt.affinity for vector, interrupt
        in disk.interrupts.items() if vector != "config"}
        for disk in topology.read(guest).disks.values())


@pytest.mark.kernels("6.12", full=("7.3-debug",))
@pytest.mark.parametrize("way,params", (
    pytest.param("reset", "", id="reset"),
    pytest.param("transport reset", "read_queues=1", id="transport-reset",
                 marks=pytest.mark.full),
    pytest.param("suspend", "", id="suspend", marks=pytest.mark.full)))
def test_vectors_follow_queue_map(kernel, way, params):
    """A device that returns with a CPU offline has vectors that fit its queue map.

    The kernel spreads managed vectors over the CPUs that are online, and shuts a
    vector down with the last of its CPUs.  Other CPUs that use its queue would then
    wait for an interrupt that does not come.  No request may time out, the queue map
    must not change, and each vector goes to its queue's CPUs when these are online.
    """
    disks = [Disk("many", "ram", 64 * MIB, queues=4),
             Disk("few", "ram", 64 * MIB, queues=3)]

    def come_back():
        for disk in disks:
            if way == "reset":
                tell_to_reset(guest, disk.id)
            elif way == "transport reset":
                guest.run(f"echo 1 > {function_of(guest, disk.id)}/reset")
        if way == "suspend":
            guest.suspend()

    with Guest(kernel, disks=disks, params=params, parallel=False) as guest:
        assert vectors_fit(guest)
        before = topology.read(guest)
        runs = [load(guest, disk.id, time_based=1, runtime=15) for disk in disks]
        # By then fio has bound its jobs to their CPUs, and CPUs may go offline.
        assert process.wait_for(
            lambda: all(requests(guest, disk.id) > 50 for disk in disks), 120)
        switch_cpu(guest, 2, False)
        come_back()
        for cpu in (3, 1):
            switch_cpu(guest, cpu, False)
        for run in runs:
            assert fio.ios(run.wait()) > 100
        for cpu in (1, 2, 3):
            switch_cpu(guest, cpu, True)
        assert process.wait_for(lambda: vectors_fit(guest), 10)
        come_back()
        assert process.wait_for(lambda: vectors_fit(guest), 10)
        layout = topology.read(guest)
        for disk in disks:
            assert layout.disks[disk.id].queues == before.disks[disk.id].queues
            topology.read_from_each_cpu(guest, layout.disks[disk.id],
                                        layout.online)
            assert counter(guest, disk.id, "timeouts") == 0


# Devices that return changed, or fail to return

def is_suspended(guest, id):
    """Return whether a disk's device is reset, as it is while the guest sleeps."""
    found = guest.qmp("x-query-virtio-status",
                      path=f"/machine/peripheral/{id}/virtio-backend")
    return not found["status"]["statuses"]


def test_capacity_shrank_during_suspend(guest):
    """A device that returns from suspend with a smaller capacity is dead."""
    name, function = guest.dev("direct"), function_of(guest, "direct")

    def shrink():
        # A live disk would follow the new capacity.
        assert process.wait_for(lambda: is_suspended(guest, "direct"), 30)
        guest.resize_disk("direct", 32 * MIB)

    guest.suspend(2, shrink)
    try:
        assert "capacity shrank from 131072 to 65536 sectors while suspended" in \
            guest.run("dmesg | tail -n 20").output
        assert guest.sysfs(f"/sys/block/{name}/state") == "dead"
        with pytest.raises(FioError):
            load(guest, "direct").wait()
    finally:
        guest.resize_disk("direct", 64 * MIB)
        guest.run(f"echo 1 > {function}/remove; echo 1 > /sys/bus/pci/rescan")
    assert fio.ios(load(guest, "direct").wait()) > 1000


# way: what takes the device away; where: the function whose allocation fails; how: once,
# and then the driver tries again, or always, which is longer than it tries.
@pytest.mark.parametrize("where,way,how", tier.usual(
    [("virtblk_find_vqs", "reset", "always"),
     *((where, way, "once") for where in ("virtblk_find_vqs", "vp_find_vqs_msix",
                                          "vring_create_virtqueue_split")
       for way in ("reset", "suspend"))],
    [("virtblk_find_vqs", "reset", "always"), ("virtblk_find_vqs", "suspend", "once"),
     ("vring_create_virtqueue_split", "reset", "once")]))
def test_return_without_memory(guest, where, way, how):
    """A device that cannot be initialized again is offline, or it works.

    Offline means: waiting I/O fails, new I/O fails at once, the log has a message,
    and the disk can be removed and found again.
    """
    if not guest.run(f"grep ' {where}$' /proc/kallsyms", check=False).output:
        pytest.skip(f"this kernel has no function {where}")
    guest.tolerate("is offline|I/O error, dev vd|Buffer I/O error|"
                   "virtqueues failed|PM: .*fail|error -12|returns -12|"
                   "Reset done failure")
    function = function_of(guest, "data")
    disk = guest.dev("data")
    offline = f"[{disk}] is offline, its I/O fails from now on"
    before = guest.log().count(offline)
    running = load(guest, "data", time_based=1, runtime=15)
    running.wait_for_io(disk, requests=50)
    fail_allocation_in(guest, where, 1 if how == "once" else -1)
    if way == "suspend":
        guest.suspend()
    else:
        guest.run(f"echo 1 > {function}/reset; true")
    guest.run("echo 0 > /sys/kernel/debug/failslab/probability")

    if guest.sysfs(f"/sys/block/{disk}/state") != "dead":
        assert how == "once"
        assert fio.ios(running.wait()) > 100
        return
    # The console may lag behind.
    assert process.wait_for(lambda: guest.log().count(offline) > before, 10)
    with pytest.raises(FioError):
        running.wait()
    result = guest.run(f"timeout 10 dd if=/dev/zero of=/dev/{disk} bs=4k count=1 "
                       "oflag=direct", check=False)
    assert result.status not in (0, 124), result.output
    assert guest.sysfs(f"/sys/block/{disk}/size") == "0"
    guest.run(f"echo 1 > {function}/remove; echo 1 > /sys/bus/pci/rescan",
              timeout=30)
    assert fio.ios(load(guest, "data").wait()) > 1000
