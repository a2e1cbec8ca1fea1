# SPDX-License-Identifier: GPL-2.0
"""Errors of the block device that vdpa_blk serves: failing sectors, hangs, removals.

The device mapper and scsi_debug make the errors.  vdpadrv sends a request for each
sector, and so finds those that fail; our driver passes the errors on to applications.
"""

import re
import time
from contextlib import contextmanager

import pytest

from common import fio, vdpa, vdpadrv
from common.device_mapper import Mapped, linear
from host import process
from testing import tier
from vm.disk import Disk
from vm.errors import CommandFailed

MIB = 1 << 20
SECTORS = 64 * MIB // 512
DEBUG = "/sys/kernel/debug/vdpa_blk/disk0"

# 6.1 has no vDPA.
pytestmark = pytest.mark.kernels("6.12", full=("7.3-debug",))


@pytest.fixture(scope="module")
def guest(kernel):
    """A guest with the device's module, vdpadrv, and a disk for the device mapper."""
    with vdpadrv.guest_with(
            kernel, disks=[Disk("back", "ram", SECTORS * 512, queues=4)]) as guest:
        if guest.run("modprobe dm_mod", check=False).status:
            pytest.skip("this kernel has no device mapper")
        yield guest


@pytest.fixture
def mapped(guest):
    """A mapped device that passes all requests on to the disk."""
    with Mapped(guest, "below", whole(guest)) as mapped:
        yield mapped


def back(guest):
    return f"/dev/{guest.dev('back')}"


def whole(guest):
    """The line of a table for all of the disk."""
    return linear(back(guest), 0, SECTORS)


def survey(guest, device, first, blocks, *options):
    """Send a request for each block; return the runs of sectors that failed."""
    output = vdpadrv.drive(guest, device.node(), f"survey --sector {first} --count "
                           f"{blocks} {' '.join(options)}")
    assert output.splitlines()[-1].startswith("ok survey"), output
    return re.findall(r"^(read|write) failed: (\S+)$", output, re.MULTILINE)


# Sectors

@pytest.mark.parametrize("ring", tier.usual(("", "--packed --indirect"), [""]))
def test_only_failing_sectors_of_backing_fail(guest, mapped, ring):
    """The sectors that fail below get IOERR, the others keep their data.

    A write that has failed has changed nothing.  Afterwards all sectors work.
    """
    first, blocks, bad = 4096, 2048, (5000, 40)
    end = sum(bad)
    with vdpa.Device(guest, mapped.path, bus="vhost_vdpa", workers=2) as device:
        assert survey(guest, device, first, blocks, "--seed 1", ring) == []
        mapped.load(linear(back(guest), 0, bad[0]), f"{bad[0]} {bad[1]} error",
                    linear(back(guest), end, SECTORS - end))
        before = device.counters()["errors"]
        assert survey(guest, device, first, blocks, "--seed 2", ring) == \
            [("write", f"{bad[0]}+{bad[1]}"), ("read", f"{bad[0]}+{bad[1]}")]
        assert device.counters()["errors"] - before == 2 * bad[1]
        mapped.load(whole(guest))
        assert survey(guest, device, *bad, "--no-write --seed 1", ring) == []
        assert survey(guest, device, first, bad[0] - first,
                      "--no-write --seed 2", ring) == []
        assert survey(guest, device, end, first + blocks - end,
                      "--no-write --seed 2", ring) == []
        assert survey(guest, device, first, blocks, "--seed 3", ring) == []


@contextmanager
def scsi_disk(guest, **options):
    """A disk of scsi_debug's: yield its path, or skip the test if there is none."""
    words = " ".join(f"{name}={value}" for name, value in options.items())
    if guest.run(f"modprobe scsi_debug dev_size_mb=64 delay=0 {words}",
                 check=False).status:
        pytest.skip("this kernel has no scsi_debug")
    pattern = "/sys/bus/pseudo/drivers/scsi_debug/adapter*/host*/target*/*/block/*"
    # A module that stays would have these options in the next test, too.
    with guest.cleanup("for n in $(seq 100); do modprobe -r scsi_debug && exit; "
                       "sleep 0.2; done; exit 1"):
        found = process.wait_for(lambda: guest.run(
            f"ls -d {pattern}", check=False).output.split(), 20)
        assert found, guest.log()[-2000:]
        yield f"/dev/{found[0].rsplit('/', 1)[1]}"


def test_medium_errors_of_backing(guest):
    """A disk that cannot read ten sectors: these reads fail, and no other request does.

    The block layer may merge requests for the disk, and then fails them together, so
    the test forbids it.
    """
    with scsi_disk(guest, opts=2) as path:
        guest.run(f"echo 2 > /sys/block/{path[5:]}/queue/nomerges")
        with vdpa.Device(guest, path, bus="vhost_vdpa") as device:
            # scsi_debug's own: OPT_MEDIUM_ERR_ADDR and OPT_MEDIUM_ERR_NUM.
            assert survey(guest, device, 0x1200, 256) == [("read", f"{0x1234}+10")]


# Kinds of requests

COMMANDS = {
    "read": "dd if={disk} of=/dev/null bs=4k count=1 skip=100 iflag=direct status=none",
    "write": "dd if=/dev/urandom of={disk} bs=4k count=1 seek=100 oflag=direct "
             "status=none",
    "flush": "dd if=/dev/null of={disk} bs=4k count=0 conv=notrunc,fsync status=none",
    "durable write": "dd if=/dev/urandom of={disk} bs=4k count=1 seek=100 "
                     "oflag=direct,dsync status=none",
    "discard": "blkdiscard -o 1M -l 1M {disk}",
    "write zeroes": "blkdiscard -z -o 1M -l 1M {disk}",
}
# dm-flakey fails all writes, flushes included; dm-error fails all but flushes, because
# it has no write cache.
TARGETS = {
    "error": (f"0 {SECTORS} error", set(COMMANDS) - {"flush"}),
    "flakey": (f"0 {SECTORS} flakey {{path}} 0 0 1 1 error_writes",
               set(COMMANDS) - {"read"}),
}


@pytest.mark.parametrize("target", tier.usual(TARGETS, ["error"]))
def test_each_kind_of_request_fails_with_eio(guest, mapped, target):
    """Each request that fails below is EIO for the application, and the next one works.

    The device can be deleted and added again.
    """
    line, failing = TARGETS[target]
    with vdpa.Device(guest, mapped.path, serial="STAYS") as device:
        disk = f"/dev/{device.disk()}"
        mapped.load(line.format(path=back(guest)))
        for name in sorted(failing):
            result = guest.run(COMMANDS[name].format(disk=disk), check=False)
            assert result.status and "Input/output error" in result.output, (name, result)
        assert guest.sysfs(f"/sys/block/{disk[5:]}/serial") == "STAYS"
        mapped.load(whole(guest))
        for command in COMMANDS.values():
            guest.run(command.format(disk=disk))
        assert device.counters()["in_flight"] == 0
        device.delete()
        device.add()
        fio.run(guest, f"/dev/{device.disk()}", rw="randwrite", bs="4k", size="2m",
                verify="crc32c")


@pytest.mark.parametrize("features", tier.usual(
    ("", "1 error_writes", "1 error_reads"), ["1 error_writes"]))
def test_errors_that_come_and_go(guest, mapped, features):
    """Requests fail in every other second, and the data of all others is right."""
    mapped.load(f"0 {SECTORS} flakey {back(guest)} 0 1 1 {features}")
    with vdpa.Device(guest, mapped.path, bus="vhost_vdpa", workers=2) as device:
        output = vdpadrv.drive(guest, device.node(),
                               "io --tolerant --seconds 6 --packed --scatter")
        requests = int(re.search(r"(\d+) requests", output)[1])
        failed = int(re.search(r"^count failed: (\d+)$", output, re.MULTILINE)[1])
        assert 0 < failed < requests, output
        assert device.counters()["errors"] == failed
        mapped.load(whole(guest))
        assert "ok io" in vdpadrv.drive(guest, device.node(), "io --count 100")


# Hangs

def in_flight(device):
    return device.counters()["in_flight"]


def await_hang(device, job):
    """Wait until requests are stuck below, and check that they stay."""
    assert process.wait_for(lambda: in_flight(device) and device.counters()["running"], 20)
    time.sleep(2)
    assert in_flight(device) and job.running


def test_backing_that_hangs_and_goes_on(guest, mapped):
    """Requests wait as long as the backing device does, and then complete with success.

    Meanwhile the device answers all that needs no request.
    """
    with vdpa.Device(guest, mapped.path, workers=2) as device:
        disk = device.disk()
        # It must not end before the suspend, for which a busy host takes seconds.
        load = fio.start(guest, f"/dev/{disk}", rw="randrw", bs="4k", size="8m",
                         verify="crc32c", rate_iops=100)
        load.wait_for_io(disk, 50)
        mapped.suspend()
        await_hang(device, load)
        stuck = in_flight(device)
        assert guest.sysfs(f"/sys/block/{disk}/serial") == ""
        assert guest.sysfs(f"/sys/block/{disk}/size") == str(SECTORS)
        assert in_flight(device) >= stuck
        mapped.resume()
        assert fio.ios(load.wait()) >= 8 * MIB // 4096
        assert device.counters()["errors"] == 0


@pytest.mark.parametrize("how", tier.usual(("killed", "deleted"), ["killed"]))
def test_user_of_hanging_backing_ends(guest, mapped, how):
    """A kill of the process, or a deletion, waits for the requests, and not longer."""
    with vdpa.Device(guest, mapped.path, bus="vhost_vdpa", workers=2) as device:
        driver = guest.start(f"exec {vdpadrv.PROGRAM} io {device.node()} --seconds 100")
        assert process.wait_for(lambda: device.counters()["writes"] > 100, 30)
        mapped.suspend()
        await_hang(device, driver)
        # The process ends when the node is closed, which waits for the requests.
        guest.run("pkill -KILL -x vdpadrv")
        ending = driver if how == "killed" else guest.start(
            f"{vdpa.PROGRAM} vdpa dev del {device.name}", timeout=100)
        time.sleep(2)
        assert ending.running and driver.running and in_flight(device)
        mapped.resume()
        if how == "deleted":
            ending.wait()
        assert driver.wait(check=False).status
        if how == "deleted":
            device.add()
        assert in_flight(device) == device.counters()["running"] == 0
        assert "ok io" in vdpadrv.drive(guest, device.node(), "io --count 100")


# Removal

@contextmanager
def removable(guest, kind):
    """Yield the path of a disk, and a function that removes it."""
    if kind == "scsi":
        with scsi_disk(guest) as path:
            yield path, lambda: guest.run(f"echo 1 > /sys/block/{path[5:]}/device/delete")
    else:
        guest.add_disk(Disk("unplugged", "ram", 64 * MIB, queues=2))
        yield (f"/dev/{guest.dev('unplugged')}",
               lambda: guest.remove_disk("unplugged"))


def gone(guest, start, path):
    return process.wait_for(lambda: f"the backing device {path} is gone"
                            in guest.log_since(start), 20)


@pytest.mark.parametrize("kind", ("scsi", "virtio"))
def test_backing_removed_under_driver(guest, kind):
    """I/O fails when the backing device is removed; nothing hangs; a new one works."""
    start = guest.log_size()
    with removable(guest, kind) as (path, remove):
        with vdpa.Device(guest, path, workers=2) as device:
            disk = device.disk()
            load = fio.start(guest, f"/dev/{disk}", rw="randrw", bs="4k", numjobs=2,
                             rate_iops=200, time_based=True, runtime=60)
            load.wait_for_io(disk, 100)
            remove()
            with pytest.raises(fio.FioError, match="Input/output error"):
                load.wait()
            assert gone(guest, start, path)
            # The device looks at the capacity every two seconds.
            time.sleep(3)
            assert guest.sysfs(f"/sys/block/{disk}/size") == str(SECTORS)
            with pytest.raises(CommandFailed, match="Input/output error"):
                guest.run(COMMANDS["read"].format(disk=f"/dev/{disk}"), timeout=20)
            assert in_flight(device) == 0
    with removable(guest, kind) as (path, remove):
        with vdpa.Device(guest, path) as device:
            fio.run(guest, f"/dev/{device.disk()}", rw="randwrite", bs="4k", size="2m",
                    verify="crc32c")
        remove()


@pytest.mark.parametrize("kind", ("scsi", "virtio"))
def test_backing_removed_under_process(guest, kind):
    """The device of a process answers each request with an error after the removal."""
    start = guest.log_size()
    with removable(guest, kind) as (path, remove):
        with vdpa.Device(guest, path, bus="vhost_vdpa", workers=2) as device:
            driver = guest.start(f"exec {vdpadrv.PROGRAM} io {device.node()} --tolerant "
                                 "--seconds 12 --packed")
            assert process.wait_for(lambda: device.counters()["writes"] > 100, 30)
            remove()
            output = driver.wait().output
            failed = int(re.search(r"^count failed: (\d+)$", output, re.MULTILINE)[1])
            assert failed > 0 and device.counters()["errors"] == failed
            assert gone(guest, start, path)
            assert survey(guest, device, 0, 64) == [("write", "0+64"), ("read", "0+64")]
