# SPDX-License-Identifier: GPL-2.0
"""Devices that lie: what they answer, what they say of themselves, and when.

Values of the configuration space are tried one by one in the driver's own unit
tests (config_kunit.c), zone reports in test_zoned.py; here is what takes a running
device, and the fuzzer in its short form.
"""

import contextlib
import re

import pytest

import fio
import vblksim
from fio import FioError
from soak import fuzz
from soak.scenario import Round
from vblksim import Sim
from vm import process
from vm.guest import Guest

pytestmark = pytest.mark.kernels("7.3-debug")

MIB = 1 << 20
RINGS = {"split": "default", "packed": "default,+ring_packed"}
IO_ERRORS = "I/O error, dev vd|Buffer I/O error|operation not supported"


@pytest.fixture(scope="module")
def guest(kernel):
    """A guest for vblksim alone: lockdep takes PCI's interrupts for VDUSE's."""
    with Guest(kernel, parallel=False) as guest:
        vblksim.prepare(guest)
        guest.tolerate(IO_ERRORS)
        yield guest


@contextlib.contextmanager
def few_lines(guest):
    """Check that the driver does not fill the log in the meantime."""
    start = len(guest.log())
    yield
    lines = re.findall(r"virtio_blk virtio\d+: .*", guest.log()[start:])
    assert len(lines) <= fuzz.MOST_LINES, "\n".join(lines[:20])


def state(guest, disk):
    return guest.sysfs(f"/sys/block/{disk}/state")


def read(guest, disk, sectors=256):
    """Read the start of a disk past the caches; return whether all of it came.

    A disk that is dead has no size, which for dd is no error.
    """
    found = guest.run(f"dd if=/dev/{disk} bs=4k count={sectors // 8} "
                      "iflag=direct status=none | wc -c").output.split()
    return int(found[-1]) == sectors * 512


def verify(guest, disk, **options):
    """Write and read back with checksums."""
    report = fio.run(guest, f"/dev/{disk}", rw="randrw", bs="4k", size="1m",
                     verify="crc32c", **options)
    assert fio.ios(report) > 200


# One that may be another request's would be believed: all that is left to find
# out then is that the one that was meant is never answered.
# On a packed ring one that answers twice loses its place, and answers no more.
@pytest.mark.parametrize("ring, answer", (
    ("split", "twice"), ("split", "bad_id 60000"), ("packed", "bad_id 60000")))
def test_wrong_id(guest, ring, answer):
    """A device that answers what it was not asked is dead: errors, no hang."""
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


@pytest.mark.parametrize("ring", RINGS)
def test_wrong_length(guest, ring):
    """The used length is not believed: data and status are what they are."""
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
def test_hardened(kernel):
    """Hardened, a read of which less came than was asked for fails, and no other."""
    with Guest(kernel, params="harden=1", parallel=False) as guest:
        vblksim.prepare(guest)
        guest.tolerate(IO_ERRORS)
        with few_lines(guest), Sim(guest, capacity="32M", script=[
                "on type=in sector=128-255: short 1"]) as sim:
            disk = sim.disk()
            assert not read(guest, disk)
            assert "the device says that it wrote" in guest.log()
            assert read(guest, disk, sectors=64)
            verify(guest, disk, offset="1m")
            assert state(guest, disk) == "live"


def test_no_status(guest):
    """A status that was never written hangs nobody and harms nothing later.

    VDUSE's memory has another request's status there, so either may come of it.
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


def test_unknown_status(guest):
    """A status that no device may send is an error, of that request alone."""
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


def test_config_storm(guest):
    """Interrupts for changes of nothing are taken, and cost no line in the log."""
    with Sim(guest, capacity="32M") as sim:
        disk = sim.disk()
        start = len(guest.log())
        running = fio.start(guest, f"/dev/{disk}", rw="randrw", bs="4k",
                            size="8m", verify="crc32c", time_based=1, runtime=8)
        for _ in range(10):
            sim.ctl("storm 2000")
        assert fio.ios(running.wait()) > 50
        assert state(guest, disk) == "live"
        assert "virtio_blk" not in guest.log()[start:]


def test_capacity_storm(guest):
    """The size that a device shows last is that of the disk, however it got there."""
    with few_lines(guest), Sim(guest, capacity="32M") as sim:
        disk = sim.disk()
        running = fio.start(guest, f"/dev/{disk}", rw="randrw", bs="4k",
                            size="8m", verify="crc32c", time_based=1, runtime=8)
        for _ in range(10):
            sim.ctl("storm 1000 48M")
        sim.ctl("resize 40M")
        assert process.wait_for(
            lambda: guest.sysfs(f"/sys/block/{disk}/size") == str(40 * MIB // 512),
            30)
        assert fio.ios(running.wait()) > 50
        assert state(guest, disk) == "live"


def test_capacity_comes_and_goes(guest):
    """I/O beyond a capacity that is gone fails, and works once it is back."""
    with few_lines(guest), Sim(guest, capacity="32M") as sim:
        disk = sim.disk()
        with contextlib.suppress(FioError):
            running = fio.start(guest, f"/dev/{disk}", rw="randread", bs="4k",
                                size="32m", time_based=1, runtime=5,
                                continue_on_error="all")
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
    """An ID that is noise is shown up to its first NUL, and no further than 20."""
    with few_lines(guest), Sim(guest, script=["on type=get_id: garbage"]) as sim:
        disk = sim.disk()
        for _ in range(20):
            shown = guest.run(f"wc -c < /sys/block/{disk}/serial").output
            assert int(shown) <= 20


@pytest.mark.kernels(full=("7.3-debug",))
def test_fuzz(kernel):
    """Hostile devices at random, but the same ones each time."""
    counts = Round(fuzz.SCENARIO, kernel, seed=1,
                   wanted={"configurations": 26}).play()
    assert counts["configurations"] >= 26
    # More than a few can be used, and of those some do their worst.
    assert counts["disks"] >= 5
    assert counts["mutated replies"] >= 100
