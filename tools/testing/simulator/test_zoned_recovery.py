# SPDX-License-Identifier: GPL-2.0
"""Writes to zones that a reset of the device interrupts.

A sequential zone accepts each write once, at its write pointer.  If a reset discards
a write's completion, the device may have executed the write, a part of it or nothing.
The write must succeed anyway, and its data must be in the zone once.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from common import fio, vblksim
from common.vblksim import Sim
from host import process
from vm.guest import Guest
from vm.kernels import Kernel

from .test_zoned import GEOMETRY, ZONE, write, zones

pytestmark = pytest.mark.kernels("6.12", full=("7.3-debug",))

SECTOR = 512
# Bytes in the zone before the write, and bytes of the write.
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
    """Return how many writes the device has received."""
    return sim.stats()["types"].get("out", 0)


def interrupted_write(guest: Guest, sim: Sim, zone: int, offset: int,
                      what: str) -> int:
    """Write to a zone and reset the device during the write; check the data.

    what: the action of vblksim's script on the write.  Return how many writes the
    device received for it.
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


# How much of the write the device executes, and how many writes it receives.  The
# driver does not resend an executed write, and resends only the rest of another.
@pytest.mark.parametrize("what,times", (
    ("lose", 1), ("part 8", 2), ("part 120", 2), ("drop", 2)))
def test_interrupted_zone_write(guest: Guest, what: str, times: int) -> None:
    """An interrupted write succeeds, and its data is in the zone once."""
    with Sim(guest, **GEOMETRY, tolerate="KICK_UNWANTED") as sim:
        disk = sim.disk()
        write(guest, disk, 4, 0, BEFORE)
        assert interrupted_write(guest, sim, 4, BEFORE, what) == times
        assert zones(guest, disk)[4]["wptr"] == (BEFORE + SIZE) // SECTOR
        # The block layer knows the new write pointer.
        write(guest, disk, 4, BEFORE + SIZE, BEFORE)


@pytest.mark.parametrize("what,times", (("lose", 1), ("part 64", 2)))
def test_interrupted_write_that_fills_zone(guest: Guest, what: str,
                                           times: int) -> None:
    """A write counts as executed if its zone is full after the reset."""
    with Sim(guest, **GEOMETRY, tolerate="KICK_UNWANTED") as sim:
        disk = sim.disk()
        for offset in range(0, CAPACITY - (1 << 20), 1 << 20):
            write(guest, disk, 4, offset, 1 << 20)
        write(guest, disk, 4, CAPACITY - (1 << 20), (1 << 20) - SIZE)
        assert interrupted_write(guest, sim, 4, CAPACITY - SIZE, what) == times
        assert zones(guest, disk)[4]["state"] == "fu"


@pytest.mark.parametrize("what", ("lose", "part 8"))
def test_interrupted_write_to_conventional_zone(guest: Guest, what: str) -> None:
    """The driver resends a whole write to a conventional zone."""
    with Sim(guest, **GEOMETRY, tolerate="KICK_UNWANTED") as sim:
        assert interrupted_write(guest, sim, 1, BEFORE, what) == 2


def test_zone_reports_are_interrupted(guest: Guest) -> None:
    """The driver resends a zone report that a reset interrupts."""
    with Sim(guest, **GEOMETRY, tolerate="KICK_UNWANTED") as sim:
        disk = sim.disk()
        sim.ctl("script 'on type=zone_report count=1: lose'")
        before = sim.stats()["types"].get("zone_report", 0)
        job = guest.start(f"blkzone report /dev/{disk} | wc -l")
        assert process.wait_for(
            lambda: sim.stats()["types"].get("zone_report", 0) > before, 30)
        guest.run(f"echo 1 > /sys/block/{disk}/recovery/reset", timeout=30)
        assert int(job.wait().output) == 17


# Two of each 40 writes are interrupted, in several zones at once.
SCRIPT = [f"on type=out nth={number}: {what}" for number, what in enumerate(
    ("lose", "part 8", "drop", "part 16", "lose", "lose"), 1)
    for number in (number * 40, number * 40 + 1)]


@pytest.mark.parametrize("ring", ("default,+zoned", "default,+zoned,+ring_packed",
                                  "default,+zoned,-indirect_desc"))
def test_interrupted_writes_of_fio(guest: Guest, ring: str) -> None:
    """Data that fio writes to several zones at once is intact under repeated resets."""
    settings: dict[str, Any] = {**GEOMETRY, "features": ring}
    with Sim(guest, **settings, tolerate="KICK_UNWANTED",
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
