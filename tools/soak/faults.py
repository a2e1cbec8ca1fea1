# SPDX-License-Identifier: GPL-2.0
"""Lost interrupts and kicks, and devices that request a reset.

The driver injects the faults through debugfs (see fault_inject.c), so these scenarios
do not run on the in-tree driver.
"""

from typing import Any

from common import fio
from host import process
from vm.disk import Disk
from vm.errors import GuestError
from vm.guest import Guest

from .scenario import Round, Scenario

_MIB = 1 << 20
_TIMEOUT_MS = 1000
# The block layer checks for timed-out requests about once a second, and a busy host
# delays the guest.
_RECOVERY_SECONDS = 15
# One time-out, another until the block layer checks, and the delay of a busy host.
_SLOWEST_SECONDS = 6
_MANY = 1 << 20
LOSSES = {"interrupts": "drop_interrupt", "kicks": "drop_kick"}


def faults(guest: Guest, id: str) -> str:
    """Return the debugfs directory of a disk's faults."""
    return f"/sys/kernel/debug/virtio_blk/{guest.dev(id)}"


def counter(guest: Guest, id: str, name: str) -> int:
    """Return one of a disk's recovery counters."""
    return int(guest.sysfs(f"/sys/block/{guest.dev(id)}/recovery/{name}"))


def state(guest: Guest, id: str) -> str:
    """Return a disk's state."""
    return guest.sysfs(f"/sys/block/{guest.dev(id)}/state")


def set_fault(guest: Guest, id: str, what: str, percent: int, times: int = -1) -> None:
    """Inject a fault with a probability, times at most; -1: without limit."""
    guest.run(f"""set -e
        cd {faults(guest, id)}/{what}
        echo 0 > verbose
        echo 1 > interval
        echo {times} > times
        echo {percent} > probability""")


def load(guest: Guest, id: str, **options: Any) -> fio.Run:
    """Start verified I/O from all CPUs, also while the guest suspends."""
    return fio.start(guest, f"/dev/{guest.dev(id)}", rw="randrw", bs="4k",
                     numjobs=4, offset_increment="16m", size="1m",
                     verify="crc32c", cpus_allowed="0-3",
                     cpus_allowed_policy="split", **fio.FREEZABLE, **options)


def hasten(guest: Guest, id: str) -> None:
    """Set a disk's io_timeout to 1 s."""
    guest.run(f"echo {_TIMEOUT_MS} > /sys/block/{guest.dev(id)}/queue/io_timeout")


def confuse(guest: Guest, id: str, queue: int) -> None:
    """Make a disk's device request a reset; wait until it is done."""
    resets = counter(guest, id, "resets")
    guest.run(f"echo {queue} > {faults(guest, id)}/confuse_device")
    if not process.wait_for(
            lambda: counter(guest, id, "resets") == resets + 1, _RECOVERY_SECONDS):
        raise GuestError(f"{resets} resets before and "
                         f"{counter(guest, id, 'resets')} after the device requested "
                         f"one; the disk is {state(guest, id)}")


# The scenarios

def _lose(round: Round) -> None:
    """Lose interrupts, then kicks, on disks with different rings."""
    disks = [Disk("split", "ram", 64 * _MIB, queues=4),
             Disk("direct", "ram", 64 * _MIB, queues=4, queue_size=1024),
             Disk("packed", "ram", 64 * _MIB, queues=4, packed=True)]
    with Guest(round.kernel, disks=disks, parallel=False) as guest:
        for disk in disks:
            hasten(guest, disk.id)
        for what in LOSSES:
            while round.wants(what):
                lose_some(guest, round.random.choice(disks).id, what, round)


def lose_some(guest: Guest, id: str, what: str, round: Round,
              seconds: int = 10) -> None:
    """Lose interrupts or kicks for some seconds of verified I/O; no I/O may be lost."""
    fault = LOSSES[what]
    found = counter(guest, id, "lost_interrupts")
    set_fault(guest, id, fault, 20, times=_MANY)
    try:
        report = load(guest, id, time_based=1, runtime=seconds).wait()
        left = int(guest.sysfs(f"{faults(guest, id)}/{fault}/times"))
    finally:
        set_fault(guest, id, fault, 0)
    round.add(what, _MANY - left)
    round.add("found by looking", counter(guest, id, "lost_interrupts") - found)
    slowest = max(job[way]["clat_ns"]["max"] for job in report["jobs"]
                  for way in ("read", "write")) / 1e9
    if slowest > _SLOWEST_SECONDS:
        raise GuestError(f"an I/O of {id} took {slowest:.1f} s while {what} were "
                         f"lost, more than {_SLOWEST_SECONDS} s")
    if not process.wait_for(lambda: state(guest, id) == "live",
                            _RECOVERY_SECONDS):
        raise GuestError(f"{id} is {state(guest, id)} after {what} were lost")


def _reset(round: Round) -> None:
    """Make devices request a reset, or reset them, under verified I/O."""
    disks = [Disk("split", "ram", 64 * _MIB, queues=4),
             Disk("direct", "ram", 64 * _MIB, queues=4, queue_size=1024)]
    with Guest(round.kernel, disks=disks, parallel=False) as guest:
        while round.wants("resets"):
            id = round.random.choice(disks).id
            running = load(guest, id, time_based=1, runtime=30)
            while running.running and round.wants("resets"):
                guest.run(f"sleep {round.random.uniform(0, 1):.2f}")
                if round.random.random() < 0.5:
                    confuse(guest, id, round.random.randrange(4))
                else:
                    tell_to_reset(guest, id)
                round.add("resets")
            running.wait()


def tell_to_reset(guest: Guest, id: str) -> None:
    """Reset a disk's device as an administrator does."""
    guest.run(f"echo 1 > /sys/block/{guest.dev(id)}/recovery/reset", timeout=30)


LOST = Scenario(
    "lost", "Interrupts and kicks are lost under verified I/O.", _lose,
    goals={"interrupts": 1000, "kicks": 1000},
    each={"interrupts": 250, "kicks": 250})

RESETS = Scenario(
    "resets", "The device or the administrator requests resets under verified I/O.",
    _reset, goals={"resets": 200}, each={"resets": 50})
