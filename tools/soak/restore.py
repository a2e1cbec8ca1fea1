# SPDX-License-Identifier: GPL-2.0
"""Guests that are restored from a snapshot, with interrupts and kicks lost meanwhile.

The host has a VM generation ID, from which the kernel and the driver learn that the guest
was restored.  The driver injects the losses (see fault_inject.c).
"""

from host import process
from vm.disk import Disk
from vm.errors import GuestError
from vm.guest import Guest
from vm.kernels import Kernel

from . import faults
from .scenario import Round, Scenario

_MIB = 1 << 20
_GENERATION = ("-device", "vmgenid,guid=auto")
_LOAD_SECONDS = 15
_LIMIT = 300
# Each job of faults.load() has one request in flight, so that all of them get stuck.
_LOST = 4
# The longest wait for an I/O: the guest's clock does not advance while it is saved.
_SLOWEST_SECONDS = 1.0


def guest_for(kernel: Kernel, disks: list[Disk]) -> Guest:
    """Return a guest that can be restored and learns of it."""
    return Guest(kernel, disks=disks, memory=512, movable=True, parallel=False,
                 # Only SeaBIOS tells the host where the generation ID is in memory.
                 firmware="seabios", qemu_args=_GENERATION)


def restored(guest: Guest, id: str) -> int:
    """Return how often the driver has logged that a disk's guest was restored."""
    return guest.log().count(f"[{guest.dev(id)}] the guest was restored")


def restore(guest: Guest, id: str, what: str, round: Round,
            slowest_seconds: float = _SLOWEST_SECONDS) -> None:
    """Save and restore a guest whose last interrupts or kicks were lost.

    No I/O may be lost, and none may take longer than slowest_seconds.
    """
    fault, before = faults.LOSSES[what], restored(guest, id)
    running = faults.load(guest, id, timeout=_LIMIT, time_based=1,
                          runtime=_LOAD_SECONDS)
    running.wait_for_io(guest.dev(id))
    faults.set_fault(guest, id, fault, 100, times=_LOST)
    try:
        guest.save_and_restore()
        left = int(guest.sysfs(f"{faults.faults(guest, id)}/{fault}/times"))
    finally:
        faults.set_fault(guest, id, fault, 0)
    if not process.wait_for(lambda: restored(guest, id) == before + 1, 10):
        raise GuestError(f"the driver did not learn that the guest of {id} was restored")
    slowest = max(job[way]["clat_ns"]["max"] for job in running.wait()["jobs"]
                  for way in ("read", "write")) / 1e9
    if slowest > slowest_seconds:
        raise GuestError(f"an I/O of {id} took {slowest:.1f} s while {what} were lost in a "
                         f"restore, more than {slowest_seconds:g} s")
    round.add("restores")
    round.add(what, _LOST - left)


def _run(round: Round) -> None:
    disks = [Disk("split", "ram", 64 * _MIB, queues=4),
             Disk("packed", "ram", 64 * _MIB, queues=2, packed=True)]
    with guest_for(round.kernel, disks) as guest:
        while round.wants("restores"):
            restore(guest, round.random.choice(disks).id,
                    round.random.choice(list(faults.LOSSES)), round)


RESTORE = Scenario(
    "restore", "Guests are restored from a snapshot; interrupts and kicks are lost.",
    _run, goals={"restores": 50}, each={"restores": 25})
