# SPDX-License-Identifier: GPL-2.0
"""Disks on a Ceph cluster of three OSDs, by QEMU's driver for rbd.

`make check-full` runs these, or `make check T=ceph`.  Each object has three
replicas, and two of them have to be written before a write is done: the cluster
goes on without one OSD, and waits without two.
"""

import subprocess

import pytest

import fio
from ceph import OBJECT, REPLICAS, Cluster
from soak import faults, power
from vm import process
from vm.arch import AMD64
from vm.disk import Disk
from vm.guest import Guest

pytestmark = pytest.mark.skipif(
    "not os.environ.get('FULL') and 'ceph' not in config.option.keyword",
    reason="long: make check-full, or make check T=ceph")

MIB = 1 << 20
SIZE = 128 * MIB
SECTOR = 512
SEED = 1


@pytest.fixture(scope="module")
def cluster():
    with Cluster() as cluster:
        cluster.create("data", SIZE)
        yield cluster


@pytest.fixture(scope="module")
def guest(kernel, cluster):
    with Guest(kernel, disks=[Disk("data", queues=4,
                                   node=cluster.node("data"))]) as guest:
        faults.hasten(guest, "data")
        yield guest


def device(guest):
    return f"/dev/{guest.dev('data')}"


def stored(cluster, offset, size):
    """Return what the cluster has of the disk "data", not what QEMU has of it."""
    with cluster.export("data").open("rb") as file:
        file.seek(offset)
        return file.read(size)


def test_data(guest):
    """Four queues' data comes back."""
    report = fio.run(guest, device(guest), rw="randrw", bsrange="4k-256k",
                     numjobs=4, offset_increment="16m", size="8m",
                     verify="crc32c", cpus_allowed="0-3",
                     cpus_allowed_policy="split")
    assert fio.ios(report, "read") and fio.ios(report, "write")


def test_flush(guest, cluster):
    """What is flushed is in the cluster; what is not is still in QEMU's memory."""
    text = b"".join(b"%0511d\n" % number for number in range(64))
    offset = 120 * MIB
    write = (f"seq -f %0511.0f 0 63 | dd of={device(guest)} bs=32k "
             f"seek={offset}B iflag=fullblock oflag=direct status=none conv=")
    # The cache writes through until it has seen a flush.
    guest.run(f"blockdev --flushbufs {device(guest)}; sync; "
              f"dd if=/dev/zero of={device(guest)} count=1 conv=fsync")
    guest.run(f"{write}notrunc")
    assert stored(cluster, offset, len(text)) == bytes(len(text))
    guest.run(f"{write}notrunc,fsync")
    assert stored(cluster, offset, len(text)) == text


def test_discard(guest, cluster):
    """What is discarded takes no room in the cluster, on any OSD."""
    path = device(guest)
    guest.run(f"dd if=/dev/urandom of={path} bs=1M count=64 oflag=direct "
              "conv=fsync status=none", timeout=120)
    full = cluster.allocated("data")
    assert full >= 64 * MIB
    # The OSDs tell of what they hold some seconds later.
    assert process.wait_for(lambda: cluster.used() >= REPLICAS * 64 * MIB, 60)
    guest.run(f"blkdiscard -o 16M -l 32M {path}; sync")
    assert cluster.allocated("data") == full - 32 * MIB
    guest.run(f"blkdiscard {path}; sync")
    assert cluster.allocated("data") == 0
    assert process.wait_for(lambda: cluster.used() < 8 * MIB, 60)


def test_fstrim(guest, cluster):
    """A file that is removed from a file system takes no room after fstrim."""
    guest.run(f"mkfs.ext4 -q -F {device(guest)}; mkdir -p /mnt/ceph; "
              f"mount {device(guest)} /mnt/ceph; sync")
    empty = cluster.allocated("data")
    guest.run("dd if=/dev/urandom of=/mnt/ceph/file bs=1M count=40 status=none; "
              "sync", timeout=120)
    full = cluster.allocated("data")
    assert full - empty >= 40 * MIB
    guest.run("rm /mnt/ceph/file; sync; fstrim /mnt/ceph; sync")
    trimmed = cluster.allocated("data")
    guest.run("umount /mnt/ceph")
    assert full - trimmed >= 40 * MIB - 4 * OBJECT, (empty, full, trimmed)


def test_too_few_osds(guest, cluster):
    """I/O waits for a second replica: the disk is stalled, then live, no error."""
    # At that rate, 5 s at least.
    running = fio.start(guest, device(guest), rw="randrw", bs="4k", numjobs=4,
                        offset_increment="16m", size="4m", rate_iops=100,
                        verify="crc32c", fsync=16, cpus_allowed="0-3",
                        cpus_allowed_policy="split", timeout=300)
    guest.run("sleep 1")
    cluster.kill(0, 1)
    assert process.wait_for(lambda: faults.state(guest, "data") == "stalled", 30)
    # For as long as it takes.
    guest.run("sleep 10")
    assert faults.state(guest, "data") == "stalled"
    assert running.running
    cluster.restart(0, 1)
    assert process.wait_for(lambda: faults.state(guest, "data") == "live", 60)
    assert fio.ios(running.wait()) > 4000
    assert faults.counter(guest, "data", "timeouts") > 0
    assert faults.counter(guest, "data", "resets") == 0


def test_acknowledged_data_is_there(kernel, cluster):
    """OSDs die one by one and come back, at last all die, and QEMU: nothing is lost."""
    def one_by_one(guest, target):
        for osd in cluster.osds:
            cluster.kill(osd)
            await_records(guest, target)
            cluster.restart(osd)
            await_records(guest, target)

    checked, lost = cut_power(kernel, cluster, "safe", one_by_one)
    assert checked > 4000
    assert lost == 0


def test_flushes_that_are_not_sent(kernel, cluster):
    """The same finds what is lost where the kernel is told that it need not flush."""
    def no_flushes(guest, target):
        guest.run("echo write through > "
                  f"/sys/block/{guest.dev('raw')}/queue/write_cache")
        await_records(guest, target)

    checked, lost = cut_power(kernel, cluster, "unsafe", no_flushes)
    assert checked > 4000
    assert lost > 0


def cut_power(kernel, cluster, image, disturb):
    """Have four writers write to a new image, and all that serves it die.

    disturb(guest, target): what happens meanwhile.  Returns how many of the
    sectors that the guest's kernel has called safe were looked for in the cluster,
    and how many are lost.
    """
    cluster.create(image, power.DATA_START + power.SIZES["raw"])
    with Guest(kernel, disks=[Disk("raw", queues=4,
                                   node=cluster.node(image))]) as guest:
        guest.put(power.writer(guest.arch), "/run/writer")
        target = power.Target(guest, "raw")
        target.make()
        target.start(SEED, 600)
        await_records(guest, target)
        disturb(guest, target)
        told = target.told()
        guest.close(quit=False)
    cluster.kill_all()
    cluster.restart(*cluster.osds)
    found = [check(cluster.export(image), number, record)
             for number, record in told.items()]
    return tuple(map(sum, zip(*found)))


def await_records(guest, target):
    """Wait until each writer has got some more records safe."""
    told = target.told()
    assert process.wait_for(lambda: guest.run("true") and all(
        record > told[number] + 50 for number, record in target.told().items()),
        120), f"{told} {target.told()} {target.complaints()}"


def check(path, number, acked):
    """Look for a writer's records; return how many sectors, and how many are lost."""
    place = power.DATA_START + number * power.AREA_SECTORS * SECTOR
    said = subprocess.run(
        [power.writer(AMD64), "check", path, str(place), str(SEED), str(number),
         str(acked)], check=True, stdout=subprocess.PIPE, text=True).stdout
    _, checked, _, lost = said.splitlines()[-1].split()
    return int(checked), int(lost)
