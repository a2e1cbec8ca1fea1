# SPDX-License-Identifier: GPL-2.0
"""Hostile devices: wrong completions, configuration changes, IDs, and the fuzzer.

The driver's unit tests (config_kunit.c) try values of the configuration space one by
one, and test_zoned.py tries zone reports.  The tests here need a running device; the
last one runs the fuzzer for a short time.
"""

import contextlib
import re

import pytest

from common import fio, vblksim
from common.fio import FioError
from common.vblksim import Sim
from host import process
from soak import fuzz
from soak.scenario import Round
from testing import tier
from vm.guest import Guest

pytestmark = pytest.mark.kernels("7.3-debug")
both_fronts = pytest.mark.fronts("vduse", "vhost-user")

MIB = 1 << 20
RINGS = {"split": "default", "packed": "default,+ring_packed"}
IO_ERRORS = "I/O error, dev vd|Buffer I/O error|operation not supported"


@pytest.fixture(scope="module")
def guest(kernel, front):
    """A guest for devices of vblksim's, which fail requests."""
    with vblksim.booted(kernel, front, parallel=False) as guest:
        guest.tolerate(IO_ERRORS)
        yield guest


@contextlib.contextmanager
def few_lines(guest):
    """Check that the driver logs no more than fuzz.MOST_LINES lines in the block."""
    start = len(guest.log())
    yield
    lines = re.findall(r"virtio_blk virtio\d+: .*", guest.log()[start:])
    assert len(lines) <= fuzz.MOST_LINES, "\n".join(lines[:20])


def state(guest, disk):
    return guest.sysfs(f"/sys/block/{disk}/state")


def read(guest, disk, sectors=256):
    """Read the start of a disk past the caches; return whether all of it was read.

    A dead disk has size 0, which is no error for dd.
    """
    found = guest.run(f"dd if=/dev/{disk} bs=4k count={sectors // 8} "
                      "iflag=direct status=none | wc -c").output.split()
    return int(found[-1]) == sectors * 512


def verify(guest, disk, **options):
    """Write and read back with checksums."""
    report = fio.run(guest, f"/dev/{disk}", rw="randrw", bs="4k", size="1m",
                     verify="crc32c", **options)
    assert fio.ios(report) > 200


# No case returns the id of another request in flight: the driver cannot tell that from
# a valid completion.  A packed ring has no case "twice", because the device loses its
# place in the ring and completes no more requests.
@both_fronts
@pytest.mark.parametrize("ring, answer", tier.usual((
    ("split", "twice"), ("split", "bad_id 60000"), ("packed", "bad_id 60000")),
    [("split", "twice"), ("packed", "bad_id 60000")]))
def test_wrong_id(guest, ring, answer):
    """A device that returns an unknown id is dead: I/O fails, and does not hang."""
    with few_lines(guest), Sim(guest, capacity="32M", features=RINGS[ring],
                               script=[f"on type=in sector=128-255: {answer}"],
                               ) as sim:
        disk = sim.disk()
        assert read(guest, disk, sectors=64)
        with pytest.raises(FioError):
            fio.run(guest, f"/dev/{disk}", rw="read", bs="4k", size="1m",
                    timeout=60)
        assert process.wait_for(lambda: state(guest, disk) == "dead", 10)
        assert not read(guest, disk, sectors=8)


def test_wrong_id_while_disk_is_probed(guest):
    """The probe of a device whose virtqueue breaks fails; the device can be bound again."""
    guest.tolerate(IO_ERRORS)
    with few_lines(guest), Sim(
            guest, capacity="32M",
            tolerate="STATUS_AFTER_FAILED,STATUS_ORDER,KICK_UNWANTED") as sim:
        disk = sim.disk()
        device = guest.run(f"basename $(readlink -f /sys/block/{disk}/device)"
                           ).output.strip()
        driver = "/sys/bus/virtio/drivers/virtio_blk"
        guest.run(f"echo {device} > {driver}/unbind")
        start = guest.log_size()
        sim.ctl("script 'on type=in: bad_id 60000'")
        # Not all kernels return the error of a probe to the writer.
        guest.run(f"echo {device} > {driver}/bind", check=False, timeout=60)
        said = guest.log_since(start)
        assert "is broken, its I/O fails from now on" in said
        assert "so the probe fails; when the device answers again, write " \
               f"{device} to " in said
        assert guest.run(f"ls /sys/block/{disk}", check=False).status

        sim.ctl("script clear")
        guest.run(f"echo {device} > {driver}/bind", timeout=60)
        verify(guest, disk)


@pytest.mark.parametrize("ring", tier.usual(RINGS, ["packed"]))
def test_wrong_length(guest, ring):
    """A wrong used length affects neither data nor status."""
    with few_lines(guest), Sim(guest, capacity="32M",
                               features=RINGS[ring]) as sim:
        disk = sim.disk()
        for length in ("short 1", "short 4000", "short 4294967295",
                       "long 1", "long 65536", "long 4294967295"):
            sim.ctl("script clear")
            sim.ctl(f"script 'on from=1: {length}'")
            verify(guest, disk)
            assert guest.run(f"cat /sys/block/{disk}/serial").output == sim.name
        assert state(guest, disk) == "live"


@pytest.mark.kernels("6.12")
def test_short_length_with_harden(kernel):
    """With harden=1 a read with too short a used length fails, and no other request."""
    with Guest(kernel, params="harden=1", parallel=False) as guest:
        vblksim.prepare(guest)
        guest.tolerate(IO_ERRORS)
        with few_lines(guest), Sim(guest, capacity="32M", script=[
                "on type=in sector=128-255: short 1"]) as sim:
            disk = sim.disk()
            assert not read(guest, disk)
            assert "bytes written for a read of" in guest.log()
            assert read(guest, disk, sectors=64)
            verify(guest, disk, offset="1m")
            assert state(guest, disk) == "live"


def test_no_status(guest):
    """A missing status causes no hang, and does not affect later requests.

    VDUSE's memory has another request's status there, so that the request may succeed
    or fail.
    """
    with few_lines(guest), Sim(guest, capacity="32M") as sim:
        disk = sim.disk()
        for type in ("in", "out", "flush", "get_id"):
            sim.ctl(f"script 'on type={type} count=20: no_status'")
        guest.run(f"dd if=/dev/zero of=/dev/{disk} bs=4k count=32 oflag=direct "
                  f"conv=fsync,notrunc; cat /sys/block/{disk}/serial; true")
        read(guest, disk)
        sim.ctl("script clear")
        verify(guest, disk)
        assert state(guest, disk) == "live"


@both_fronts
def test_unknown_status(guest):
    """An unknown status fails its request, and no other."""
    with few_lines(guest), Sim(guest, capacity="32M") as sim:
        disk = sim.disk()
        for status in (255, 7, 128):
            sim.ctl("script clear")
            sim.ctl(f"script 'on type=in count=1: status {status}'")
            assert not read(guest, disk, sectors=8)
            assert read(guest, disk, sectors=8)
            sim.ctl(f"script 'on type=get_id: status {status}'")
            assert guest.run(f"cat /sys/block/{disk}/serial").output == ""
        verify(guest, disk)


@both_fronts
def test_config_storm(guest):
    """I/O goes on under configuration interrupts without a change; none is logged."""
    with Sim(guest, capacity="32M") as sim:
        disk = sim.disk()
        start = len(guest.log())
        running = fio.start(guest, f"/dev/{disk}", rw="randrw", bs="4k",
                            size="8m", verify="crc32c", time_based=1, runtime=8)
        running.wait_for_io(disk, requests=20)
        for _ in range(10):
            sim.ctl("storm 2000")
        assert fio.ios(running.wait()) > 50
        assert state(guest, disk) == "live"
        assert "virtio_blk" not in guest.log()[start:]


def test_capacity_storm(guest):
    """After many changes of the capacity the disk has the last one."""
    with few_lines(guest), Sim(guest, capacity="32M") as sim:
        disk = sim.disk()
        running = fio.start(guest, f"/dev/{disk}", rw="randrw", bs="4k",
                            size="8m", verify="crc32c", time_based=1, runtime=8)
        running.wait_for_io(disk, requests=20)
        for _ in range(10):
            sim.ctl("storm 1000 48M")
        sim.ctl("resize 40M")
        assert process.wait_for(
            lambda: guest.sysfs(f"/sys/block/{disk}/size") == str(40 * MIB // 512),
            30)
        assert fio.ios(running.wait()) > 50
        assert state(guest, disk) == "live"


@both_fronts
def test_capacity_comes_and_goes(guest):
    """The disk works again after its capacity was 0 and 2^64-1 under I/O."""
    with few_lines(guest), Sim(guest, capacity="32M") as sim:
        disk = sim.disk()
        with contextlib.suppress(FioError):
            running = fio.start(guest, f"/dev/{disk}", rw="randread", bs="4k",
                                size="32m", time_based=1, runtime=5,
                                continue_on_error="all")
            running.wait_for_io(disk, requests=20)
            for _ in range(2):
                sim.ctl("storm 500 0")
                sim.ctl("storm 500 18446744073709551615")
            running.wait()
        sim.ctl("resize 32M")
        assert process.wait_for(
            lambda: guest.sysfs(f"/sys/block/{disk}/size") == str(32 * MIB // 512),
            30)
        verify(guest, disk)
        assert state(guest, disk) == "live"


def test_id_without_end(guest):
    """serial shows a random ID up to its first NUL, and at most 20 bytes."""
    with few_lines(guest), Sim(guest, script=["on type=get_id: garbage"]) as sim:
        disk = sim.disk()
        for _ in range(20):
            shown = guest.run(f"wc -c < /sys/block/{disk}/serial").output
            assert int(shown) <= 20


@pytest.mark.kernels(full=("7.3-debug",))
def test_fuzz(kernel):
    """The driver survives hostile devices, random from a fixed seed."""
    counts = Round(fuzz.SCENARIO, kernel, seed=1,
                   wanted={"configurations": 26}).play()
    assert counts["configurations"] >= 26
    # Some of them become disks, and those return mutated replies.
    assert counts["disks"] >= 5
    assert counts["mutated replies"] >= 100
