# SPDX-License-Identifier: GPL-2.0
"""Writes to zones that a reset of the device interrupts.

A sequential zone takes each write once, at its write pointer.  A write whose answer a
reset has taken away may have been executed, in part or not at all: it succeeds all
the same, and its data is in the zone once.
"""

from collections.abc import Iterator

import pytest

import fio
import vblksim
from test_zoned import GEOMETRY, ZONE, write, zones
from vblksim import Sim
from vm import process
from vm.guest import Guest
from vm.kernels import Kernel

pytestmark = pytest.mark.kernels("6.12", full=("7.3-debug",))

SECTOR = 512
# What is in the zone when the write comes, and the write itself, in bytes.
BEFORE = 4096
SIZE = 64 << 10
CAPACITY = 3 << 20


@pytest.fixture(scope="module")
def guest(kernel: Kernel) -> Iterator[Guest]:
    """A guest in which vblksim can run."""
    with Guest(kernel, parallel=False) as guest:
        vblksim.prepare(guest)
        guest.run(f"dd if=/dev/urandom of=/tmp/data bs={SIZE} count=1 status=none")
        yield guest


def writes(sim: Sim) -> int:
    """Return how many writes the device has had."""
    return sim.stats()["types"].get("out", 0)


def interrupted_write(guest: Guest, sim: Sim, zone: int, offset: int,
                      what: str) -> int:
    """Write to a zone, and reset the device that treats the write as a script says.

    Return how many writes the device had for that; what is read back is right.
    """
    disk = sim.disk()
    before = writes(sim)
    sim.ctl(f"script 'on type=out count=1: {what}'")
    place = zone * ZONE + offset
    job = guest.start(f"dd if=/tmp/data of=/dev/{disk} bs={SIZE} count=1 "
                      f"seek={place}B oflag=direct conv=notrunc status=none")
    assert process.wait_for(lambda: writes(sim) == before + 1, 30)
    guest.run(f"echo 1 > /sys/block/{disk}/recovery/reset", timeout=30)
    job.wait()
    guest.run(f"dd if=/dev/{disk} bs={SIZE} count=1 skip={place}B iflag=direct "
              "status=none | cmp - /tmp/data")
    assert guest.sysfs(f"/sys/block/{disk}/state") == "live"
    return writes(sim) - before


# What the device has done of the write, and how often it gets one for that: a write
# that was executed is not sent again, and of another one only the rest.
@pytest.mark.kernels("6.12", "7.3-debug")
@pytest.mark.parametrize("what,times", (
    ("lose", 1), ("part 8", 2), ("part 120", 2), ("drop", 2)))
def test_interrupted_zone_write(guest: Guest, what: str, times: int) -> None:
    """An interrupted write succeeds, and its data is in the zone once."""
    with Sim(guest, **GEOMETRY, tolerate="KICK_UNWANTED") as sim:
        disk = sim.disk()
        write(guest, disk, 4, 0, BEFORE)
        assert interrupted_write(guest, sim, 4, BEFORE, what) == times
        assert zones(guest, disk)[4]["wptr"] == (BEFORE + SIZE) // SECTOR
        # The block layer agrees where the zone goes on.
        write(guest, disk, 4, BEFORE + SIZE, BEFORE)


@pytest.mark.parametrize("what,times", (("lose", 1), ("part 64", 2)))
def test_interrupted_write_that_fills_zone(guest: Guest, what: str,
                                           times: int) -> None:
    """A write that fills its zone was executed when the zone is full."""
    with Sim(guest, **GEOMETRY, tolerate="KICK_UNWANTED") as sim:
        disk = sim.disk()
        for offset in range(0, CAPACITY - (1 << 20), 1 << 20):
            write(guest, disk, 4, offset, 1 << 20)
        write(guest, disk, 4, CAPACITY - (1 << 20), (1 << 20) - SIZE)
        assert interrupted_write(guest, sim, 4, CAPACITY - SIZE, what) == times
        assert zones(guest, disk)[4]["state"] == "fu"


@pytest.mark.parametrize("what", ("lose", "part 8"))
def test_interrupted_write_to_conventional_zone(guest: Guest, what: str) -> None:
    """A write to a conventional zone is sent again as a whole."""
    with Sim(guest, **GEOMETRY, tolerate="KICK_UNWANTED") as sim:
        assert interrupted_write(guest, sim, 1, BEFORE, what) == 2


def test_zone_reports_are_interrupted(guest: Guest) -> None:
    """A report that a reset interrupts is asked for again."""
    with Sim(guest, **GEOMETRY, tolerate="KICK_UNWANTED") as sim:
        disk = sim.disk()
        sim.ctl("script 'on type=zone_report count=1: lose'")
        job = guest.start(f"blkzone report /dev/{disk} | wc -l")
        guest.run(f"sleep 1; echo 1 > /sys/block/{disk}/recovery/reset", timeout=30)
        assert int(job.wait().output) == 17


# Every few writes one is interrupted, in several zones at once.
SCRIPT = [f"on type=out nth={number}: {what}" for number, what in enumerate(
    ("lose", "part 8", "drop", "part 16", "lose", "lose"), 1)
    for number in (number * 40, number * 40 + 1)]


@pytest.mark.parametrize("ring", ("default,+zoned", "default,+zoned,+ring_packed",
                                  "default,+zoned,-indirect_desc"))
def test_interrupted_writes_of_fio(guest: Guest, ring: str) -> None:
    """Under resets, fio finds what it has written to several zones at once."""
    with Sim(guest, **GEOMETRY | {"features": ring}, tolerate="KICK_UNWANTED",
             script=SCRIPT) as sim:
        disk = sim.disk()
        running = fio.start(guest, f"/dev/{disk}", zonemode="zbd", max_open_zones=4,
                            offset="8m", rw="randwrite", bs="16k",
                            verify="crc32c", size="24m", io_size="8m")
        resets = 0
        while running.running and resets < 60:
            guest.run(f"sleep 0.5; echo 1 > /sys/block/{disk}/recovery/reset",
                      timeout=30)
            resets += 1
        assert fio.ios(running.wait(), "write") >= 512
        assert resets >= 3
