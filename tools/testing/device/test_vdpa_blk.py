# SPDX-License-Identifier: GPL-2.0
"""vdpa_blk: the virtio block device in the kernel, used by the same kernel's drivers.

The guest has both ends: vdpa_blk serves a disk of QEMU's, and our driver uses it
through virtio_vdpa.
"""

import pytest

from common import fio, vdpa
from host import process
from testing import tier
from vm.disk import Disk
from vm.errors import CommandFailed
from vm.guest import Guest

MIB = 1 << 20

# Feature bits of VIRTIO 1.4, by number.
_PACKED, _INDIRECT, _EVENT_IDX = 34, 28, 29
_FLUSH, _CONFIG_WCE = 9, 11
_ALL = sum(1 << bit for bit in (2, 6, 9, 10, 11, 12, 14, 28, 29, 32, 33, 34))
RINGS = {"packed": _ALL,
         "packed-direct": _ALL & ~(1 << _INDIRECT),
         "packed-no-event-idx": _ALL & ~(1 << _EVENT_IDX),
         "split": _ALL & ~(1 << _PACKED),
         "split-direct": _ALL & ~(1 << _PACKED | 1 << _INDIRECT),
         "split-no-event-idx": _ALL & ~(1 << _PACKED | 1 << _EVENT_IDX)}

# 6.1 has no vDPA.
pytestmark = pytest.mark.kernels("6.12", full=("7.3-debug",))


@pytest.fixture(scope="module")
def guest(kernel):
    """A guest with the device's module, and disks for it to serve."""
    with Guest(kernel, disks=[Disk("back", "ram", 128 * MIB, queues=4),
                              Disk("blocks", "ram", 64 * MIB, queues=2,
                                   logical_block_size=4096,
                                   physical_block_size=4096),
                              Disk("spare", "ram", 64 * MIB, queues=2)],
               parallel=False, qemu_args=vdpa.qemu_args()) as guest:
        vdpa.prepare(guest)
        yield guest


def verify(guest, disk, **options):
    """Write to a disk and compare; return fio's report."""
    return fio.run(guest, f"/dev/{disk}", **{
        "rw": "randwrite", "bsrange": "4k-128k", "size": "16m", "iodepth": 16,
        "verify": "crc32c", **options})


@pytest.mark.parametrize("ring", tier.usual(RINGS, ("split", "packed")))
def test_data_on_each_ring_of_vdpa_blk(guest, ring):
    """4 queues and 2 workers keep data, on each kind of ring; all queues are used."""
    with vdpa.Device(guest, "back", features=RINGS[ring], queues=4,
                     workers=2) as device:
        disk = device.disk()
        verify(guest, disk, numjobs=4, size="8m", offset_increment="16m",
               cpus_allowed="0-3", cpus_allowed_policy="split")
        queues = list(device.queues())
        assert [queue["worker"] for queue in queues] == [0, 1, 0, 1]
        assert all(queue["writes"] for queue in queues)
        counters = device.counters()
        assert counters["errors"] == counters["broken"] == 0
        assert counters["in_flight"] == 0
        assert counters["writes"] >= 4 * 64


def test_file_system_on_vdpa_blk(guest):
    """A file system is found again on the backing device, with what was written."""
    with vdpa.Device(guest, "back") as device:
        disk = device.disk()
        guest.run(f"mkfs.ext4 -q /dev/{disk} && mount /dev/{disk} /mnt && "
                  "head -c 20M /dev/urandom > /mnt/file && "
                  "sha256sum < /mnt/file > /tmp/sum && umount /mnt", timeout=120)
        assert device.counters()["flushes"] > 0
    back = guest.dev("back")
    guest.run(f"mount /dev/{back} /mnt && sha256sum < /mnt/file | cmp - /tmp/sum && "
              f"umount /mnt && e2fsck -fn /dev/{back}", timeout=120)


def test_limits_of_vdpa_blk(guest):
    """Block size, serial number and cache mode are those of the backing device."""
    with vdpa.Device(guest, "blocks", serial="ABCDEFGHIJ0123456789", queues=2,
                     ring_size=64) as device:
        block = f"/sys/block/{device.disk()}"
        assert guest.sysfs(f"{block}/serial") == "ABCDEFGHIJ0123456789"
        assert guest.sysfs(f"{block}/queue/logical_block_size") == "4096"
        assert guest.sysfs(f"{block}/queue/max_segments") == "62"
        assert guest.sysfs(f"{block}/cache_type") == "write back"
        verify(guest, device.disk(), bsrange="4k-64k")


def test_cache_mode_of_vdpa_blk(guest):
    """Without a cache each write is durable: the backing device is flushed for it."""
    back = f"/sys/block/{guest.dev('back')}/stat"
    with vdpa.Device(guest, "back", write_cache=0) as device:
        disk = device.disk()
        assert guest.sysfs(f"/sys/block/{disk}/cache_type") == "write through"
        before = int(guest.sysfs(back).split()[15])
        # The block layer merges flushes for writes at the same time.
        verify(guest, disk, size="256k", bsrange="4k-4k", iodepth=1)
        assert int(guest.sysfs(back).split()[15]) - before >= 64


def test_zeroes_and_discards_of_vdpa_blk(guest):
    """Zeroes read as zeroes; a discard succeeds; what surrounds them stays."""
    with vdpa.Device(guest, "back") as device:
        disk = device.disk()
        guest.run(f"set -e; tr '\\0' x < /dev/zero | head -c 4M | "
                  f"dd of=/dev/{disk} bs=1M oflag=direct conv=notrunc iflag=fullblock; "
                  f"blkdiscard -z -o 1M -l 1M /dev/{disk}; "
                  f"blkdiscard -o 2M -l 1M /dev/{disk}; "
                  f"dd if=/dev/{disk} bs=1M count=4 iflag=direct > /tmp/all; "
                  "head -c 1M /tmp/all | tr -d x | wc -c > /tmp/first; "
                  "tail -c +1048577 /tmp/all | head -c 1M | tr -d '\\0' | wc -c "
                  "> /tmp/zeroes; tail -c 1M /tmp/all | tr -d x | wc -c > /tmp/last")
        assert guest.run("cat /tmp/first /tmp/zeroes /tmp/last").output.split() == \
            ["0", "0", "0"]


def test_read_only_vdpa_blk(guest):
    """A read-only device refuses writes."""
    with vdpa.Device(guest, "spare", readonly=1) as device:
        disk = device.disk()
        assert guest.sysfs(f"/sys/block/{disk}/ro") == "1"
        with pytest.raises(CommandFailed):
            guest.run(f"dd if=/dev/zero of=/dev/{disk} bs=4k count=1 oflag=direct")


def test_capacity_of_vdpa_blk_follows(guest):
    """A larger backing device becomes a larger disk, without a command."""
    with vdpa.Device(guest, "spare") as device:
        disk = device.disk()
        guest.resize_disk("spare", 96 * MIB)
        try:
            assert process.wait_for(lambda: guest.sysfs(
                f"/sys/block/{disk}/size") == str(96 * MIB // 512), 15)
            verify(guest, disk, offset="70m", size="8m")
        finally:
            guest.resize_disk("spare", 64 * MIB)


def test_vdpa_blk_deleted_under_load(guest):
    """A device goes away under load, and the next one of its name works."""
    guest.tolerate("I/O error, dev vd|Buffer I/O error|beyond end of device|removed")
    for _ in range(3):
        with vdpa.Device(guest, "back", workers=2) as device:
            # Without a rate fio and the workers leave the guest's shell no CPU.  Reads
            # would succeed, with 0 bytes, because the size of a deleted disk is 0.
            load = fio.start(guest, f"/dev/{device.disk()}", rw="randwrite", bs="4k",
                             iodepth=32, numjobs=4, rate_iops=200, time_based=True,
                             runtime=60)
            load.wait_for_io(device.disk(), 200)
        with pytest.raises(fio.FioError):
            load.wait()
    with vdpa.Device(guest, "back") as device:
        verify(guest, device.disk(), size="4m")


@pytest.mark.parametrize("settings,error", (
    ({"path": "/dev/none"}, "cannot open path /dev/none: error -2"),
    ({"path": "/etc"}, "cannot open path /etc: error"),))
def test_bad_settings_of_vdpa_blk(guest, settings, error):
    """A backing device that cannot be used is an error that names it."""
    guest.tolerate("cannot open path")
    name = "/sys/kernel/config/vdpa_blk/bad"
    guest.run(f"mkdir {name} && echo {settings['path']} > {name}/path")
    try:
        with pytest.raises(CommandFailed):
            guest.run("/tmp/vdpa/run vdpa dev add name bad mgmtdev vdpa_blk")
        assert error in guest.run("dmesg").output
    finally:
        guest.run(f"rmdir {name}")


def test_features_of_vdpa_blk_that_need_others(guest):
    """The cache mode needs FLUSH, and a read-only device cannot leave out RO."""
    with vdpa.Device(guest, "spare", features=_ALL & ~(1 << _FLUSH)) as device:
        assert not device.features() & (1 << _FLUSH | 1 << _CONFIG_WCE)
        verify(guest, device.disk(), size="2m")
    guest.tolerate("lack RO")
    with pytest.raises(CommandFailed), \
            vdpa.Device(guest, "spare", readonly=1, features=_ALL):
        pass
    assert "lack RO (bit 5), and readonly is 1" in guest.run("dmesg").output


def test_backing_device_of_vdpa_blk_is_read_only(guest):
    """A device that can only be read needs the setting readonly; the log says so."""
    path = f"/dev/{guest.dev('spare')}"
    guest.tolerate("cannot open path")
    guest.run(f"blockdev --setro {path}")
    try:
        with pytest.raises(CommandFailed), vdpa.Device(guest, "spare"):
            pass
        assert "error -13; if it is read-only, write 1 to readonly" in \
            guest.run("dmesg").output
        with vdpa.Device(guest, "spare", readonly=1) as device:
            guest.run(f"dd if=/dev/{device.disk()} of=/dev/null bs=1M count=8")
    finally:
        guest.run(f"blockdev --setrw {path}")


@pytest.mark.parametrize("name,value", (
    ("queues", "0"), ("queues", "257"), ("ring_size", "100"), ("ring_size", "2048"),
    ("workers", "x"), ("cpus", "4096"), ("serial", "A" * 21), ("poll_us", "10001")))
def test_bad_value_of_vdpa_blk(guest, name, value):
    """A value beyond the limits is refused, and the log has the limits."""
    directory = "/sys/kernel/config/vdpa_blk/bad"
    text = f"vdpa_blk: {name}"
    # Another value of the name may be in the log.
    before = guest.run("dmesg").output.count(text)
    guest.run(f"mkdir {directory}")
    try:
        with pytest.raises(CommandFailed):
            guest.run(f"echo {value} > {directory}/{name}")
        assert guest.run("dmesg").output.count(text) > before
    finally:
        guest.run(f"rmdir {directory}")
