# SPDX-License-Identifier: GPL-2.0
"""Guests that move to another QEMU while their disks are busy.

They migrate live, or are saved to a file and restored from it.  The driver gets no
notice; requests in flight move with the device.
"""

from common import fio
from vm.disk import Disk
from vm.errors import GuestError
from vm.guest import Guest

from . import faults
from .scenario import Round, Scenario

_MIB = 1 << 20
_LOAD_SECONDS = 40
# The limit for fio on a busy host, with the verification at its end.
_LIMIT = 300


def _disks() -> list[Disk]:
    return [Disk("split", "raw", 64 * _MIB, queues=4),
            Disk("packed", "ram", 64 * _MIB, queues=2, packed=True),
            Disk("direct", "qcow2", 64 * _MIB, queues=2, queue_size=1024)]


def _move(guest: Guest, round: Round) -> str:
    """Move a guest in a way whose goal is not reached yet; return the way."""
    ways = {"migrations": guest.migrate, "restores": guest.save_and_restore}
    way = round.random.choice([name for name in ways if round.wants(name)])
    ways[way]()
    return way


def _move_under_load(guest: Guest, round: Round) -> None:
    """Move a guest while all its disks are under verified I/O."""
    runs = [faults.load(guest, id, timeout=_LIMIT, time_based=1,
                        runtime=_LOAD_SECONDS)
            for id in guest.disks]
    moves = 0
    while any(map(round.wants, MIGRATION.goals)):
        for id, run in zip(guest.disks, runs):
            run.wait_for_io(guest.dev(id))
        if not all(run.running for run in runs):
            break
        way = _move(guest, round)
        if not all(run.running for run in runs):
            break
        moves += 1
        round.add(way)
    for run in runs:
        round.add("verified I/Os", fio.ios(run.wait()))
    if not moves:
        raise GuestError("the guest did not move within the "
                         f"{_LOAD_SECONDS} s of its disks' I/O")


def _run(round: Round) -> None:
    with Guest(round.kernel, driver=round.driver, disks=_disks(), memory=512,
               movable=True, parallel=False) as guest:
        while any(map(round.wants, MIGRATION.goals)):
            _move_under_load(guest, round)


MIGRATION = Scenario(
    "migration", "Guests move to another QEMU under verified I/O.", _run,
    goals={"migrations": 10, "restores": 10},
    each={"migrations": 5, "restores": 5},
    kernel="6.12", drivers=("ours", "stock"))
