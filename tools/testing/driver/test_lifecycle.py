# SPDX-License-Identifier: GPL-2.0
"""Disks that are added and removed, and guests that suspend and restart, under I/O."""

import contextlib

import pytest

from common import fio
from common.backend import Backend
from soak.faults import counter, tell_to_reset
from vm.disk import Disk
from vm.errors import CommandFailed
from vm.guest import Guest

MIB = 1 << 20
DRIVER = "/sys/bus/virtio/drivers/virtio_blk"

with_debug = pytest.mark.kernels("6.12", "7.3-debug")
on_both = pytest.mark.kernels("6.12", full=("6.1",))
on_all = pytest.mark.kernels("6.12", full=("6.1", "7.3-debug"))
everywhere = pytest.mark.kernels("6.12", "6.1", "7.3-debug")


@contextlib.contextmanager
def _two_disks(kernel, firmware="qboot"):
    """Boot a guest with two disks and a sample to write to them.

    The driver uses no indirect descriptors on the second disk, because its ring is
    large.
    """
    disks = [Disk("data", "ram", 64 * MIB, queues=4),
             Disk("other", "ram", 64 * MIB, queues=2, queue_size=1024,
                  packed=True)]
    with Guest(kernel, disks=disks, firmware=firmware, parallel=False) as guest:
        guest.run("dd if=/dev/urandom of=/tmp/sample bs=1M count=4 status=none")
        yield guest


@pytest.fixture(scope="module")
def guest(kernel):
    with _two_disks(kernel) as guest:
        yield guest


def times(guest, count):
    """Return how often to do something: less on a debug kernel, which is slower."""
    return max(2, count // 5) if guest.kernel.name.endswith("debug") else count


def virtio_device(guest, id):
    """Return the name of a disk's virtio device, e.g. "virtio3"."""
    return guest.run("basename $(readlink -f /sys/block/"
                     f"{guest.dev(id)}/device)").output.strip()


def queues(guest, id):
    """Return the CPUs that each queue serves, and those its interrupt may go to."""
    name, device = guest.dev(id), virtio_device(guest, id)
    maps = guest.run(f"cd /sys/block/{name}/mq && ls -d */cpu[0-9]*").output
    lines = guest.run(f"grep -- '{device}-req' /proc/interrupts").output
    irqs = {line.split()[-1]: line.split(":")[0].strip()
            for line in lines.splitlines()}
    affinity = {queue.partition("-")[2]:
                guest.sysfs(f"/proc/irq/{irq}/smp_affinity_list")
                for queue, irq in irqs.items()}
    assert maps and irqs
    return maps, affinity


def rings(guest):
    """Return features, nr_requests and max_segments of the two disks.

    "data" has indirect descriptors (bit 28), and "other" has none unless the driver
    prepares its requests.
    """
    found = {id: guest.run(f"cd /sys/block/{guest.dev(id)} && cat device/features "
                           "queue/nr_requests queue/max_segments").output.split()
             for id in ("data", "other")}
    prepared = guest.kernel.prepared
    assert (found["data"][0][28], found["other"][0][28]) == ("1", str(int(prepared)))
    assert found["other"][1:] == (["1024", "1022"] if prepared else ["341", "126"])
    return found


def put_sample(guest, id):
    """Write the sample to a disk."""
    guest.run(f"dd if=/tmp/sample of=/dev/{guest.dev(id)} bs=1M oflag=direct "
              "conv=notrunc,fsync status=none")


def check_sample(guest, id):
    """Assert that a disk has the sample that put_sample() wrote."""
    disk = f"/dev/{guest.dev(id)}"
    guest.run(f"blockdev --flushbufs {disk}; cmp -n {4 * MIB} /tmp/sample "
              f"{disk}")


def load(guest, id, **options):
    """Start verified writes from all CPUs beyond the sample."""
    return fio.start(guest, f"/dev/{guest.dev(id)}", timeout=300, **{
        "rw": "randwrite", "bs": "4k", "size": "4m", "offset": "8m",
        "offset_increment": "8m", "numjobs": 4, "verify": "crc32c",
        "verify_backlog": 32, "time_based": 1, "runtime": 240,
        "cpus_allowed": "0-3", "cpus_allowed_policy": "split", **fio.FREEZABLE,
        **options})


def whole_load(guest, id="data"):
    """Run a load to its end: all of its data is verified."""
    load(guest, id, time_based=None, runtime=None, size="1m").wait()


def plain_load(guest, id):
    """Start reads and writes from all CPUs, as load() does, but do not verify.

    Reads from a disk that has been removed return 0 bytes, as at the end of a file, and
    fio would take the old contents of its buffer for wrong data.
    """
    return load(guest, id, rw="randrw", verify=None, verify_backlog=None)


def assert_failed(run):
    """Assert that fio ended because of I/O errors."""
    with pytest.raises(fio.FioError) as caught:
        run.wait()
    errors = {job["error"] for job in caught.value.report["jobs"]} - {0}
    # EIO, ENXIO, ENODEV; ENOSPC for a write beyond the end of a dead disk.
    assert errors and errors <= {5, 6, 19, 28}, caught.value


# Unbind and bind

_REBIND = """
cd {driver}
for n in $(seq {count}); do
    echo {device} > unbind
    [ ! -e /sys/block/{name} ] || exit 2
    echo {device} > bind
    cmp -n 65536 /tmp/sample /dev/{name} || exit 3
done
"""


@pytest.mark.kernels("6.12", "7.3-debug", full=("6.1",))
def test_unbind_and_bind(guest):
    """A disk that is unbound and bound 50 times keeps its queues and its data."""
    put_sample(guest, "data")
    before = queues(guest, "data")
    guest.run(_REBIND.format(driver=DRIVER, name=guest.dev("data"),
                             device=virtio_device(guest, "data"),
                             count=times(guest, 50)), timeout=180)
    assert queues(guest, "data") == before
    check_sample(guest, "data")


@pytest.mark.quick
@on_all
def test_unbind_under_load(guest):
    """An unbind under load fails fio's I/O, and the disk works after the next bind."""
    put_sample(guest, "data")
    for _ in range(times(guest, 5)):
        running = plain_load(guest, "data")
        running.wait_for_io(guest.dev("data"))
        device = virtio_device(guest, "data")
        guest.run(f"echo {device} > {DRIVER}/unbind", timeout=30)
        try:
            assert_failed(running)
        finally:
            guest.run(f"echo {device} > {DRIVER}/bind")
        check_sample(guest, "data")
    whole_load(guest)


@pytest.mark.quick
@everywhere
def test_reset_by_the_administrator_under_load(guest):
    """A reset under verified load loses nothing, and the counter says that it was one."""
    resets = counter(guest, "data", "resets")
    running = load(guest, "data", runtime=8)
    running.wait_for_io(guest.dev("data"))
    tell_to_reset(guest, "data")
    running.wait_for_io(guest.dev("data"))
    assert counter(guest, "data", "resets") == resets + 1
    running.wait()


@on_all
def test_unbind_while_mounted(guest):
    """A file system can be unmounted after an unbind, and fsck repairs it."""
    disk, device = f"/dev/{guest.dev('other')}", virtio_device(guest, "other")
    guest.run(f"mkfs.ext4 -q -F {disk} && mount {disk} /mnt && "
              "cp /tmp/sample /mnt/sample && sync")
    running = fio.start(guest, "/mnt/file", rw="randwrite", bs="4k", size="8m",
                        ioengine="psync", direct=0, fsync=8, time_based=1,
                        runtime=120)
    running.wait_for_io(guest.dev("other"))
    guest.run(f"echo {device} > {DRIVER}/unbind", timeout=30)
    with pytest.raises(fio.FioError):
        running.wait()
    guest.run("umount /mnt", timeout=30)
    guest.run(f"echo {device} > {DRIVER}/bind")
    disk = f"/dev/{guest.dev('other')}"
    guest.run(f"e2fsck -fy {disk} > /tmp/fsck; [ $? -le 1 ] || "
              f"{{ cat /tmp/fsck; exit 1; }}; mount {disk} /mnt && "
              "cmp /tmp/sample /mnt/sample; status=$?; umount /mnt; "
              "exit $status")


# The module

# So many more disks make a leak for each disk visible.
_DISKS = 7

@pytest.fixture(scope="module")
def reloaded(kernel):
    disks = [Disk("data", "ram", 64 * MIB, queues=4),
             *(Disk(f"disk{number}", queues=2) for number in range(_DISKS))]
    with Guest(kernel, disks=disks) as guest:
        guest.run("dd if=/dev/urandom of=/tmp/sample bs=1M count=4 status=none")
        yield guest


@pytest.mark.module
@on_both
def test_unload_in_use(reloaded):
    """The module cannot be unloaded while a disk is open."""
    guest = reloaded
    disk = f"/dev/{guest.dev('data')}"
    guest.run(f"sleep 100 < {disk} > /dev/null 2>&1 & echo $! > /tmp/pid; "
              f"until [ \"$(readlink /proc/$!/fd/0)\" = {disk} ]; do sleep 0.1; done",
              timeout=30)
    with pytest.raises(CommandFailed, match="in use"):
        guest.unload()
    put_sample(guest, "data")
    # The disk is closed when the process is a zombie or gone.
    guest.run("pid=$(cat /tmp/pid); kill $pid; while "
              "grep -q '^State:.[^ZX]' /proc/$pid/status 2> /dev/null; "
              "do sleep 0.1; done", timeout=30)
    guest.unload()
    assert "vd" not in guest.run("ls /sys/block").output
    guest.load()
    check_sample(guest, "data")


_RELOAD = """
for n in $(seq {count}); do
    rmmod virtio_blk || exit 2
    [ ! -e /sys/block/{name} ] || exit 3
    insmod /run/vblk/virtio_blk.ko || exit 4
    cmp -n 65536 /tmp/sample /dev/{name} || exit 5
done
"""

# The number of objects in each of the kernel's general caches, after the kernel has
# freed those that it only keeps for reuse.
_OBJECTS = """
sync; echo 3 > /proc/sys/vm/drop_caches; sleep 1
for cache in /sys/kernel/slab/*; do [ -L $cache ] || echo 1 > $cache/shrink; done
awk '/^kmalloc-|^sgpool|^biovec|^blkdev|^request_queue/ {{ print $1, $2 }}' \\
    /proc/slabinfo
"""


def objects(guest):
    """Return the number of objects in use in each of the kernel's general caches."""
    output = guest.run(_OBJECTS.format()).output
    return {name: int(count) for name, count in
            map(str.split, output.splitlines())}


@pytest.mark.full
@pytest.mark.module
def test_reload_40_times(reloaded):
    """40 unloads and loads of the module leak nothing, and keep queues and data.

    A leak occurs in each round, at least once for each disk.  The number of small
    objects in use varies by some hundred with either driver; it may grow twice in a
    row, but does not grow four times.
    """
    guest = reloaded
    put_sample(guest, "data")
    before = queues(guest, "data")
    rounds = 10
    counts = [objects(guest)]
    for _ in range(4):
        guest.run(_RELOAD.format(count=rounds, name=guest.dev("data")),
                  timeout=300)
        counts.append(objects(guest))
    growth = {name: [later.get(name, 0) - earlier.get(name, 0)
                     for earlier, later in zip(counts, counts[1:])]
              for name in counts[0]}
    assert {name: each for name, each in growth.items()
            if min(each) >= rounds * (_DISKS + 1)} == {}
    assert queues(guest, "data") == before
    check_sample(guest, "data")


# Hot-plug

@on_all
def test_hotplug(guest, tmp_path):
    """A disk that is plugged and unplugged repeatedly keeps its data."""
    path = tmp_path / "disk"
    path.write_bytes(bytes(16 * MIB))
    for number in range(times(guest, 10)):
        guest.add_disk(Disk("plugged", "raw", path=path, queues=4))
        if number:
            check_sample(guest, "plugged")
        put_sample(guest, "plugged")
        guest.remove_disk("plugged")
        assert "plugged" not in guest.run(
            "cat /sys/block/vd*/serial").output


@everywhere
def test_unplug_under_load(guest):
    """Unplugging a busy disk fails its I/O, and does not affect another disk."""
    steady = load(guest, "data", numjobs=1, cpus_allowed="0")
    for _ in range(times(guest, 4)):
        guest.add_disk(Disk("plugged", "ram", 64 * MIB, queues=4))
        running = plain_load(guest, "plugged")
        running.wait_for_io(guest.dev("plugged"))
        guest.remove_disk("plugged")
        assert_failed(running)
    steady.wait_for_io(guest.dev("data"))
    assert steady.running
    steady.kill()


@on_all
def test_pci_remove_and_rescan(guest):
    """A disk works after its PCI device is removed, idle or busy, and rescanned."""
    put_sample(guest, "data")
    path = guest.run("dirname $(readlink -f /sys/block/"
                     f"{guest.dev('data')}/device)").output.strip()
    for busy in (False, True, True):
        running = busy and plain_load(guest, "data")
        if busy:
            running.wait_for_io(guest.dev("data"))
        guest.run(f"echo 1 > {path}/remove", timeout=30)
        try:
            if busy:
                assert_failed(running)
        finally:
            guest.run("echo 1 > /sys/bus/pci/rescan")
        check_sample(guest, "data")


# Suspend

@on_all
def test_suspend_to_idle(guest):
    """Verified I/O from all CPUs continues across suspends, on the same queues."""
    put_sample(guest, "data")
    put_sample(guest, "other")
    before = queues(guest, "data"), queues(guest, "other"), rings(guest)
    exits = guest.log().count("PM: suspend exit")
    cycles = times(guest, 3)
    running = load(guest, "data")
    for _ in range(cycles):
        running.wait_for_io(guest.dev("data"))
        guest.suspend()
    running.wait_for_io(guest.dev("data"))
    assert running.running
    running.kill()
    for id in ("data", "other"):
        check_sample(guest, id)
        whole_load(guest, id)
    assert (queues(guest, "data"), queues(guest, "other"),
            rings(guest)) == before
    assert guest.log().count("PM: suspend exit") == exits + cycles


@with_debug
def test_cache_mode_across_suspend(guest):
    """The cache mode survives the reset of a suspend.

    A reset restores the mode that QEMU's device was configured with.  If the block
    layer did not know of the write-back cache, it would never flush it.
    """
    name = guest.dev("data")
    guest.run(f"echo write through > /sys/block/{name}/cache_type")
    try:
        guest.suspend()
        assert guest.sysfs(f"/sys/block/{name}/cache_type") == "write through"
        assert guest.sysfs(f"/sys/block/{name}/queue/write_cache") == \
            "write through"
    finally:
        guest.run(f"echo write back > /sys/block/{name}/cache_type")
    assert guest.sysfs(f"/sys/block/{name}/queue/write_cache") == "write back"


@pytest.mark.full
@pytest.mark.module
def test_suspend_while_polling(kernel):
    """The guest can suspend with polled I/O in flight.

    The polling tasks are frozen by then, and their requests complete without an
    interrupt.
    """
    disk = Disk("slow", "null", 64 * MIB, queues=4, latency_ns=20_000_000)
    with Guest(kernel, disks=[disk], params="poll_queues=2",
               parallel=False) as guest:
        running = fio.start(
            guest, f"/dev/{guest.dev('slow')}", timeout=120, rw="randread",
            bs="4k", iodepth=16, numjobs=2, ioengine="io_uring", hipri=1,
            time_based=1, runtime=60)
        for _ in range(3):
            running.wait_for_io(guest.dev("slow"))
            guest.suspend()
        running.wait_for_io(guest.dev("slow"))
        assert running.running
        running.kill()


@pytest.fixture(scope="module")
def sleeper(kernel):
    """A guest that suspends to memory once: QEMU does not support a second time."""
    if kernel.name.startswith("7.3"):
        pytest.skip("waking from S3 resets the machine, with this kernel and "
                    "QEMU, before any driver runs")
    with _two_disks(kernel, "seabios") as guest:
        yield guest


@on_both
def test_suspend_to_memory(sleeper):
    """I/O continues on the same queues after a suspend to memory.

    Devices lose their state in it.  The disk gets its new size, although the guest
    could not receive the device's interrupt.  num_request_queues can change at any
    time, and affects only disks that are probed later.
    """
    guest = sleeper
    parameter = "/sys/module/virtio_blk/parameters/num_request_queues"
    put_sample(guest, "data")
    before = queues(guest, "data"), queues(guest, "other"), rings(guest)
    running = load(guest, "data")
    running.wait_for_io(guest.dev("data"))
    guest.run(f"echo 1 > {parameter}")
    job = guest.start("echo mem > /sys/power/state", timeout=90)
    assert guest.wait_event("SUSPEND", timeout=60), guest.log()[-3000:]
    guest.resize_disk("other", 80 * MIB)
    guest.qmp("system_wakeup")
    job.wait()
    guest.run(f"echo 0 > {parameter}")
    running.wait_for_io(guest.dev("data"))
    assert running.running
    running.kill()
    assert (queues(guest, "data"), queues(guest, "other"),
            rings(guest)) == before
    grown = f"$(cat /sys/block/{guest.dev('other')}/size) = {80 * 2048}"
    guest.run(f"for n in $(seq 50); do [ {grown} ] && exit 0; sleep 0.1; done; "
              "exit 1")
    check_sample(guest, "data")
    whole_load(guest)
    whole_load(guest, "other")


# 6.1 does not open its swap a second time for test_resume, and the debug kernel
# is built without hibernation.
@pytest.mark.kernels("6.12")
def test_hibernate(kernel):
    """A hibernation image is written to a disk and read back, and I/O continues.

    With test_resume the kernel reads the image right after it has written it, and
    continues from there: devices freeze, thaw, freeze again, and restore.
    """
    if not kernel.has("CONFIG_HIBERNATION"):
        pytest.skip(f"{kernel.name} does not hibernate")
    disks = [Disk("data", "ram", 64 * MIB, queues=4),
             Disk("swap", "ram", 512 * MIB, queues=2)]
    if kernel.builtin:
        pytest.skip(f"{kernel.name} does not hibernate")
    with Guest(kernel, memory=512, disks=disks, parallel=False) as guest:
        guest.run(f"mkswap /dev/{guest.dev('swap')} && "
                  f"swapon /dev/{guest.dev('swap')} && "
                  "echo 100000000 > /sys/power/image_size && "
                  "echo test_resume > /sys/power/disk")
        running = load(guest, "data")
        running.wait_for_io(guest.dev("data"))
        guest.run("echo disk > /sys/power/state", timeout=200)
        assert "PM: Image loading done" in guest.log()
        running.wait_for_io(guest.dev("data"))
        assert running.running
        running.kill()
        whole_load(guest)


# Restart

@on_all
def test_reboot_under_load(guest):
    """After a restart with I/O in flight, data that was flushed before is intact."""
    put_sample(guest, "data")
    running = load(guest, "data")
    running.wait_for_io(guest.dev("data"))
    sample = Backend(guest, "data").read(0, 4 * MIB)
    guest.reboot()
    guest.put(sample, "/tmp/sample")
    check_sample(guest, "data")
    whole_load(guest)
