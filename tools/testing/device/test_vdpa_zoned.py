# SPDX-License-Identifier: GPL-2.0
"""vdpa_blk with zones: a zoned block device of the guest, offered as it is.

The guest has a zoned device of null_blk's or scsi_debug's, and vdpa_blk over it.  Our
driver uses it through virtio_vdpa.  vdpadrv, a process with rings of its own, checks
the status of each request.
"""

import contextlib
import re
from collections.abc import Iterator

import pytest

from common import fio, null_blk, vdpa, vdpadrv
from testing.simulator.test_zoned import (JOBS, MIB, ZONE, append_to_files, blkzone,
                                          change_zone_states, make_btrfs, write, zones)
from vm.errors import CommandFailed
from vm.guest import Guest

# 6.1 has no vDPA.
pytestmark = pytest.mark.kernels("6.12", full=("7.3-debug",))

BACK = "zonedback"
# 2 conventional zones, 14 sequential ones with a capacity of 3 of their 4 MiB.
GEOMETRY = {"size": 64, "blocksize": 4096, "max_sectors": 1024, "zone_size": 4,
            "zone_capacity": 3, "zone_nr_conv": 2, "zone_max_open": 4,
            "zone_max_active": 6}
# What the block layer logs of requests that a zone refuses.
REFUSALS = ("I/O error, dev|Buffer I/O error|Aborting plugged BIOs|"
            "critical .* error, dev")
_TRACE = "/sys/kernel/tracing"


@pytest.fixture(scope="module")
def guest(kernel):
    """A guest with vdpa_blk, null_blk, and vdpadrv."""
    with vdpadrv.guest_with(kernel) as guest:
        guest.run("modprobe zonefs 2> /dev/null; "
                  f"mountpoint -q {_TRACE} || mount -t tracefs none {_TRACE}")
        yield guest


def backing(guest: Guest, **geometry: int) -> contextlib.AbstractContextManager[str]:
    """Return a context manager for the path of a zoned device of null_blk's."""
    values = {"memory_backed": 1, "zoned": 1, "submit_queues": 4} | GEOMETRY | geometry
    return null_blk.device(guest, BACK, **values)


@contextlib.contextmanager
def zoned_disk(guest: Guest, readonly: bool = False, **geometry: int) -> Iterator[str]:
    """Make a disk of a zoned device through vdpa_blk; yield the disk's name.

    geometry: settings of the backing device.
    """
    with backing(guest, **geometry) as path, \
            vdpa.Device(guest, path, workers=2, readonly=int(readonly)) as device:
        yield device.disk()


@contextlib.contextmanager
def traced(guest: Guest, kind: int) -> Iterator[list[int]]:
    """Count the requests of a type that the device takes; yield a list for the number."""
    event = f"{_TRACE}/events/vdpa_blk/vdpa_blk_begin"
    found: list[int] = []
    guest.run(f"echo > {_TRACE}/trace; echo 'type == {kind}' > {event}/filter && "
              f"echo 1 > {event}/enable")
    with guest.cleanup(f"echo 0 > {event}/enable"):
        yield found
    seen = guest.run(f"grep -c vdpa_blk_begin: {_TRACE}/trace", check=False).output
    found.append(int(seen))


def break_zone(guest: Guest, zone: int, how: str) -> None:
    """Make a zone of the backing device "readonly" or "offline"."""
    guest.run(f"echo {zone * ZONE // 512} > {null_blk.SETTINGS}/{BACK}/zone_{how}")


def test_zone_report_of_vdpa_blk(guest):
    """Zones and limits are those of the backing device."""
    with zoned_disk(guest) as disk:
        found = zones(guest, disk)
        assert found == zones(guest, BACK)
        assert [zone["type"] for zone in found] == [1] * 2 + [2] * 14
        assert all(zone["cap"] == 3 * 2048 for zone in found[2:])
        assert zones(guest, disk, f"-o {5 * ZONE // 512} -c 3") == found[5:8]
        for name, value in {
                "zoned": "host-managed", "nr_zones": 16, "max_open_zones": 4,
                "max_active_zones": 6, "chunk_sectors": ZONE // 512,
                "zone_write_granularity": 4096, "discard_max_bytes": 0,
                "write_zeroes_max_bytes": 0,
                # What the device can copy.
                "zone_append_max_bytes": 256 << 10}.items():
            assert guest.sysfs(f"/sys/block/{disk}/queue/{name}") == str(value), name


@pytest.mark.full()
def test_many_zones_of_vdpa_blk(guest):
    """A report on more zones than a request returns is complete."""
    with zoned_disk(guest, size=6000, zone_size=1, zone_capacity=1, memory_backed=0,
                    zone_max_open=0, zone_max_active=0) as disk:
        found = zones(guest, disk)
        assert len(found) == 6000
        assert found == zones(guest, BACK)


def test_zone_states_of_vdpa_blk(guest):
    """A zone of the backing device follows open, write, close, finish and reset."""
    with zoned_disk(guest) as disk:
        def state(zone):
            found, expected = zones(guest, disk)[zone], zones(guest, BACK)[zone]
            if found["state"] == "fu":
                # A full zone's is undefined.
                expected["wptr"] = found["wptr"]
            assert found == expected
            return found["state"], found["wptr"]

        change_zone_states(guest, disk, state)
        assert all(zone["state"] == "em" for zone in zones(guest, BACK)[2:])


@pytest.mark.full()
def test_zone_limits_of_vdpa_blk(guest):
    """Too many open or active zones fail with ETOOMANYREFS or EOVERFLOW."""
    guest.tolerate(REFUSALS)
    with zoned_disk(guest) as disk:
        for zone in range(4, 8):
            blkzone(guest, "open", disk, zone)
        result = blkzone(guest, "open", disk, 8, check=False)
        assert result.status and "Too many references" in result.output, result.output
        for zone in range(4, 10):
            write(guest, disk, zone, 0, 4096, check=zone < 8)
            blkzone(guest, "close", disk, zone, check=zone < 8)
        for zone in (8, 9):
            write(guest, disk, zone, 0, 4096, check=False)
            blkzone(guest, "close", disk, zone, check=False)
        result = blkzone(guest, "open", disk, 10, check=False)
        assert result.status and "Value too large" in result.output, result.output
        blkzone(guest, "open", disk, 9)


def test_misplaced_write_to_vdpa_blk(guest):
    """A write that is not at the write pointer fails, and the next one succeeds."""
    guest.tolerate(REFUSALS)
    with zoned_disk(guest) as disk:
        for offset in (0, 8 << 10, 20 << 10, 3 * MIB):
            write(guest, disk, 4, 0, 16 << 10)
            assert write(guest, disk, 4, offset, 4096, check=False).status, offset
            # The driver's block layer learns the write pointer from the report.
            assert zones(guest, disk)[4]["wptr"] == 16 << 10 >> 9
            write(guest, disk, 4, 16 << 10, 4096)
            assert zones(guest, BACK)[4]["wptr"] == 20 << 10 >> 9
            # The driver's block layer does not know of this reset.
            guest.run(f"blkzone reset -f -o {4 * ZONE // 512} -l {ZONE // 512} "
                      f"/dev/{BACK}")
            assert write(guest, disk, 4, 20 << 10, 4096, check=False).status
            assert zones(guest, disk)[4]["wptr"] == 0


@pytest.mark.full()
def test_failed_zones_of_vdpa_blk(guest):
    """Read-only and offline zones are reported, and refuse writes."""
    guest.tolerate(REFUSALS)
    with zoned_disk(guest) as disk:
        write(guest, disk, 4, 0, 4096)
        break_zone(guest, 4, "readonly")
        break_zone(guest, 5, "offline")
        found = zones(guest, disk)
        assert (found[4]["state"], found[5]["state"]) == ("ro", "of")
        for zone in (4, 5):
            assert blkzone(guest, "reset", disk, zone, check=False).status
            assert write(guest, disk, zone, 4096, 4096, check=False).status
        write(guest, disk, 6, 0, 4096)


@pytest.mark.parametrize("job", [job if job == "write" else
                                 pytest.param(job, marks=pytest.mark.full())
                                 for job in JOBS])
def test_fio_zone_mode_of_vdpa_blk(guest, job):
    """fio writes at the write pointers in its zone mode, and verifies its data."""
    options = JOBS[job] | ({"size": "9m"} if job == "write" else {})
    with zoned_disk(guest) as disk:
        report = fio.run(guest, f"/dev/{disk}", zonemode="zbd", max_open_zones=4,
                         offset="8m", job_max_open_zones=1, **options)
        assert fio.ios(report, "write") > 300


@pytest.mark.full()
def test_zonefs_on_vdpa_blk(guest):
    """Data that zonefs appends to its files is intact."""
    with zoned_disk(guest) as disk:
        append_to_files(guest, disk)


# btrfs writes its data by parallel zone appends to one zone.  With 0 null_blk has no
# append, and the host's block layer emulates it.
@pytest.mark.full()
@pytest.mark.parametrize("append", (512, 16, 0))
def test_btrfs_on_vdpa_blk(guest, append):
    """btrfs, which appends to zones, keeps its data."""
    with zoned_disk(guest, size=256, zone_nr_conv=0, zone_capacity=4, zone_max_open=0,
                    zone_max_active=0, zone_append_max_sectors=append) as disk:
        with traced(guest, 15) as appends:
            make_btrfs(guest, disk)
            guest.run(
                "for n in 1 2; do head -c 8M /dev/urandom > /tmp/btrfs/$n & done; "
                "wait; sync; sha256sum /tmp/btrfs/? > /tmp/sums; umount /tmp/btrfs && "
                f"mount -t btrfs /dev/{disk} /tmp/btrfs && "
                "sha256sum -c --quiet /tmp/sums && umount /tmp/btrfs", timeout=240)
        assert appends[0] >= 16 * MIB // (256 << 10)
        assert any(zone["wptr"] for zone in zones(guest, BACK))


@pytest.mark.parametrize("settings", ({}, {"zone_append_max_sectors": 0}),
                         ids=("append", "emulated-append"))
def test_status_of_each_zone_request(guest, settings):
    """Each request has the status that VIRTIO demands; writes stay in order."""
    guest.tolerate(REFUSALS)
    with backing(guest, **settings) as path:
        break_zone(guest, 14, "readonly")
        break_zone(guest, 15, "offline")
        with vdpa.Device(guest, path, bus="vhost_vdpa", queues=2) as device:
            output = guest.run(f"{vdpadrv.PROGRAM} zones {device.node()}",
                               timeout=200).output
            assert re.fullmatch(r"ok zones: \d+ requests, last states 13 15\n", output)
            counters = device.counters()
            assert counters["broken"] == counters["in_flight"] == 0
            assert counters["bounced"] > 0


@pytest.mark.kernels("6.12")
def test_status_of_zone_requests_to_scsi(guest):
    """A disk with other errors than null_blk's leads to the same status."""
    if guest.run("modinfo scsi_debug", check=False).status:
        pytest.skip("this kernel has no scsi_debug")
    guest.tolerate(REFUSALS + r"|sd \d|scsi_debug|Attached SCSI|tag#|host-managed")
    guest.run("modprobe scsi_debug dev_size_mb=64 sector_size=4096 zbc=managed "
              "zone_size_mb=4 zone_cap_mb=3 zone_nr_conv=2 zone_max_open=4")
    try:
        disk = guest.run("ls /sys/bus/pseudo/drivers/scsi_debug/adapter0/host*/"
                         "target*/*:0/block").output.strip()
        with vdpa.Device(guest, f"/dev/{disk}", bus="vhost_vdpa", queues=2) as device:
            assert guest.run(f"{vdpadrv.PROGRAM} zones {device.node()}",
                             timeout=200).output.startswith("ok zones")
    finally:
        guest.run("modprobe -r scsi_debug")


def test_zones_need_the_feature(guest):
    """A device that must not offer ZONED is not added, and the log says why."""
    guest.tolerate("lack ZONED")
    with backing(guest) as path:
        with pytest.raises(CommandFailed):
            # VERSION_1 and ACCESS_PLATFORM.
            with vdpa.Device(guest, path, features=3 << 32):
                pass
        assert "lack ZONED (bit 17), without which no driver can use the zones of " \
               f"path {path}" in guest.run("dmesg").output
        # The settings of the device that was not added are gone.
        with vdpa.Device(guest, path) as device:
            assert zones(guest, device.disk()) == zones(guest, BACK)


def test_read_only_zones_of_vdpa_blk(guest):
    """A read-only device with zones reports them, and refuses writes and resets."""
    guest.tolerate(REFUSALS)
    with zoned_disk(guest, readonly=True) as disk:
        assert zones(guest, disk) == zones(guest, BACK)
        assert write(guest, disk, 4, 0, 4096, check=False).status
        assert blkzone(guest, "reset", disk, 4, check=False).status
        guest.run(f"dd if=/dev/{disk} of=/dev/null bs=1M count=8 iflag=direct")


@pytest.mark.full()
def test_zoned_vdpa_blk_deleted_under_load(guest):
    """A device with zones goes away under writes, and the next of its name works."""
    guest.tolerate(REFUSALS + r"|beyond end of device|removed")
    with backing(guest) as path:
        with vdpa.Device(guest, path, workers=2) as device:
            load = fio.start(guest, f"/dev/{device.disk()}", rw="randwrite", bs="4k",
                             numjobs=4, ioengine="psync", zonemode="zbd",
                             max_open_zones=4, offset="8m", size="40m",
                             rate_iops=200, time_based=True, runtime=60)
            load.wait_for_io(device.disk(), 100)
        with pytest.raises(fio.FioError):
            load.wait()
        guest.run(f"blkzone reset /dev/{BACK}")
        with vdpa.Device(guest, path) as device:
            write(guest, device.disk(), 4, 0, 4096)
