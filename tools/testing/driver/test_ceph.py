# SPDX-License-Identifier: GPL-2.0
"""Disks on a Ceph cluster of three OSDs, by QEMU's driver for rbd.

`make check-full` runs these, or `make check T=ceph`.  Each object has three
replicas, and a write needs two of them: the cluster goes on without one OSD, and
waits without two.
"""

import subprocess

import pytest

from common import fio
from host import process
from soak import faults, power
from vm.arch import AMD64
from vm.disk import Disk
from vm.guest import Guest

from .ceph import OBJECT, REPLICAS, Cluster

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
    """Return data of the disk "data" from the cluster, without QEMU's cache."""
    with cluster.export("data").open("rb") as file:
        file.seek(offset)
        return file.read(size)


def test_data_on_ceph(guest):
    """Data written through four queues is read back."""
    report = fio.run(guest, device(guest), rw="randrw", bsrange="4k-256k",
                     numjobs=4, offset_increment="16m", size="8m",
                     verify="crc32c", cpus_allowed="0-3",
                     cpus_allowed_policy="split")
    assert fio.ios(report, "read") and fio.ios(report, "write")


def test_flush_on_ceph(guest, cluster):
    """Flushed data is in the cluster, and data not yet flushed is in QEMU's memory."""
    text = b"".join(b"%0511d\n" % number for number in range(64))
    offset = 120 * MIB
    write = (f"seq -f %0511.0f 0 63 | dd of={device(guest)} bs=32k "
             f"seek={offset}B iflag=fullblock oflag=direct status=none conv=")
    # The client's cache writes through until the first flush.
    guest.run(f"blockdev --flushbufs {device(guest)}; sync; "
              f"dd if=/dev/zero of={device(guest)} count=1 conv=fsync")
    guest.run(f"{write}notrunc")
    assert stored(cluster, offset, len(text)) == bytes(len(text))
    guest.run(f"{write}notrunc,fsync")
    assert stored(cluster, offset, len(text)) == text


def test_discard_on_ceph(guest, cluster):
    """Discarded data takes no space in the cluster, on any OSD."""
    path = device(guest)
    guest.run(f"dd if=/dev/urandom of={path} bs=1M count=64 oflag=direct "
              "conv=fsync status=none", timeout=120)
    full = cluster.allocated("data")
    assert full >= 64 * MIB
    # The OSDs report their usage some seconds later.
    assert process.wait_for(lambda: cluster.used() >= REPLICAS * 64 * MIB, 60)
    guest.run(f"blkdiscard -o 16M -l 32M {path}; sync")
    assert cluster.allocated("data") == full - 32 * MIB
    guest.run(f"blkdiscard {path}; sync")
    assert cluster.allocated("data") == 0
    assert process.wait_for(lambda: cluster.used() < 8 * MIB, 60)


def test_fstrim(guest, cluster):
    """A file that is removed from a file system takes no space after fstrim."""
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
    """I/O waits for a second replica: the disk is stalled, then live, with no error."""
    # At that rate the run takes 5 s at least.
    running = fio.start(guest, device(guest), rw="randrw", bs="4k", numjobs=4,
                        offset_increment="16m", size="4m", rate_iops=100,
                        verify="crc32c", fsync=16, cpus_allowed="0-3",
                        cpus_allowed_policy="split", timeout=300)
    running.wait_for_io(guest.dev("data"), requests=100)
    cluster.kill(0, 1)
    assert process.wait_for(lambda: faults.state(guest, "data") == "stalled", 30)
    # The disk stays stalled, without an error, while the OSDs are down.
    guest.run("sleep 10")
    assert faults.state(guest, "data") == "stalled"
    assert running.running
    cluster.restart(0, 1)
    assert process.wait_for(lambda: faults.state(guest, "data") == "live", 60)
    assert fio.ios(running.wait()) > 4000
    assert faults.counter(guest, "data", "timeouts") > 0
    assert faults.counter(guest, "data", "resets") == 0


def test_acknowledged_data_is_there(kernel, cluster):
    """No acknowledged data is lost when OSDs die in turn, then all and QEMU."""
    def one_by_one(guest, target):
        for osd in cluster.osds:
            cluster.kill(osd)
            await_records(guest, target)
            cluster.restart(osd)
            await_records(guest, target)

    checked, lost = cut_power(kernel, cluster, "safe", one_by_one)
    assert checked > 4000
    assert lost == 0


def test_data_lost_without_flushes_on_ceph(kernel, cluster):
    """The check finds lost data where the kernel is told that it need not flush."""
    def no_flushes(guest, target):
        guest.run("echo write through > "
                  f"/sys/block/{guest.dev('raw')}/queue/write_cache")
        await_records(guest, target)

    checked, lost = cut_power(kernel, cluster, "unsafe", no_flushes)
    assert checked > 4000
    assert lost > 0


def cut_power(kernel, cluster, image, disturb):
    """Have four writers write to a new image, then kill QEMU and all OSDs.

    disturb(guest, target): called while they write.  Returns how many of the sectors
    that the guest's kernel has acknowledged were checked in the cluster, and how many
    of them are lost.
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
        acknowledged = target.told()
        guest.close(quit=False)
    cluster.kill_all()
    cluster.restart(*cluster.osds)
    found = [check(cluster.export(image), number, record)
             for number, record in acknowledged.items()]
    return tuple(map(sum, zip(*found)))


def await_records(guest, target):
    """Wait until each writer has more than 50 more acknowledged records."""
    before = target.told()
    assert process.wait_for(lambda: guest.run("true") and all(
        record > before[number] + 50 for number, record in target.told().items()),
        120), f"{before} {target.told()} {target.complaints()}"


def check(path, number, acked):
    """Check a writer's records; return how many sectors, and how many are lost."""
    place = power.DATA_START + number * power.AREA_SECTORS * SECTOR
    output = subprocess.run(
        [power.writer(AMD64), "check", path, str(place), str(SEED), str(number),
         str(acked)], check=True, stdout=subprocess.PIPE, text=True).stdout
    _, checked, _, lost = output.splitlines()[-1].split()
    return int(checked), int(lost)
