# SPDX-License-Identifier: GPL-2.0
"""Devices that vanish while they are used, in all possible ways.

    unplugged   the host unplugs the disk, and the guest's driver is notified
    pulled      the slot loses its power, and the guest finds an empty slot
    killed      the process that is the device is killed: vblksim in the guest, or
                qemu-storage-daemon for vhost-user.  It is restarted or not, and
                then the disk is removed

All users of the disk must end with an error, and the removal must end in time.  A new
device then gets the name of the old one and works.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from common import fio, vblksim
from common.vblksim import Sim
from host import process
from vm.disk import Disk
from vm.errors import GuestError
from vm.guest import Guest, Job

from .scenario import Round, Scenario

_Item = TypeVar("_Item")

_MIB = 1 << 20
_SIZE = 64 * _MIB
# Limits for a removal, from its request until the device is gone, and then for the
# end of all users of the disk.
REMOVAL_SECONDS = 5
_END_SECONDS = 15
# The limit for operations that should end long before.
_LIMIT = 300
# The driver detects a PCI device that is gone.  A killed process leaves a silent
# device: removal waits for it for removal_timeout seconds, and then fails the rest.
_SILENCE = "removal_timeout=3"

# Uses of the disk when the device vanishes.
_USES = ("open", "mounted", "flush", "sysfs")
_SIM_USES = (*_USES, "zones")
_ZONED = {"features": "default,+zoned", "model": "hm", "zone_sectors": "4M"}
# VDUSE itself waits so long, in seconds, for a process that is gone.
_VDUSE_SECONDS = 1


class MortalSim(Sim):
    """A vblksim that can be killed."""

    def kill(self) -> None:
        """Kill its process; the device stays."""
        self._guest.run(f"echo {_VDUSE_SECONDS} > "
                        f"/sys/class/vduse/{self.name}/msg_timeout")
        self.signal("KILL")
        self.report = {}


# Uses

def _repeat(guest: Guest, command: str) -> list[Job]:
    """Start two processes that repeat a command until it fails."""
    return [guest.start(f"while {command}; do :; done > /dev/null 2>&1", _LIMIT)
            for _ in range(2)]


def _fio(guest: Guest, path: str, **options: object) -> fio.Run:
    words: dict[str, Any] = {
        "rw": "randrw", "bs": "4k", "size": "8m", "offset_increment": "8m",
        "numjobs": 4, "time_based": 1, "runtime": _LIMIT, **options}
    return fio.start(guest, path, timeout=_LIMIT, **words)


def _begin(guest: Guest, disk: str, use: str) -> tuple[fio.Run, list[Job]]:
    """Begin to use a disk; return fio's run, and a list of other jobs."""
    path = f"/dev/{disk}"
    if use == "mounted":
        guest.run(f"mkfs.ext4 -q -F {path} && mount {path} /mnt")
        return _fio(guest, "/mnt/file", rw="randwrite", ioengine="psync",
                    direct=0, offset_increment=0, fsync=8), []
    if use == "flush":
        return _fio(guest, path, rw="randwrite", fsync=1, iodepth=4), []
    if use == "zones":
        return _fio(guest, path, rw="randread"), \
            _repeat(guest, f"blkzone report {path}")
    others = _repeat(guest, f"cat /sys/block/{disk}/serial") \
        if use == "sysfs" else []
    return _fio(guest, path), others


def _end(guest: Guest, run: fio.Run, others: list[Job], use: str, round: Round) -> None:
    """Check that all users of a disk that has vanished end with an error."""
    process.wait_for(lambda: not run.running
                     and not any(job.running for job in others), _END_SECONDS)
    left = run.running + sum(job.running for job in others)
    with contextlib.suppress(GuestError):
        if use == "mounted" and not left:
            guest.run("umount /mnt", timeout=_END_SECONDS)
    process.wait_for(lambda: not _blocked(guest), _END_SECONDS)
    blocked = _blocked(guest)
    round.add("hung tasks", left + len(blocked))
    if left or blocked:
        raise GuestError(f"{left} users of the disk have not ended within "
                         f"{_END_SECONDS} s, and these tasks are blocked: "
                         f"{blocked}")
    try:
        run.wait()
    except fio.FioError:
        return
    raise GuestError("fio reported no error although the disk is gone")


def _blocked(guest: Guest) -> list[str]:
    """Return the tasks in uninterruptible sleep."""
    return guest.run("ps -eo stat=,comm= | grep ^D; true").output.splitlines()


# Removal

@contextlib.contextmanager
def _removal(guest: Guest, disk: str, round: Round) -> Iterator[None]:
    """Check that the removal of a disk's device that the block requests ends in time.

    The time is by the guest's clock, from before the block until the device has
    disappeared from sysfs, after its driver has released it.  It excludes the time
    for which QEMU got no CPU of a busy host.  The guest itself polls, but so seldom
    that this does not keep it busy.
    """
    # Compare inodes: the next device may have the same name before the guest polls.
    job = guest.start(
        f"device=$(readlink -f /sys/block/{disk}/device); "
        "inode() { stat -c %i $device 2> /dev/null; }; was=$(inode); "
        "cut -d' ' -f1 /proc/uptime; "
        "while [ \"$(inode)\" = $was ]; do sleep 0.2; done; "
        "cut -d' ' -f1 /proc/uptime", timeout=_LIMIT)
    process.wait_for(lambda: not job.running or job.output, _LIMIT)
    kept_waiting = guest.kept_waiting()
    yield
    begin, end = map(float, job.wait().output.split())
    seconds = end - begin - kept_waiting()
    round.add("removals")
    round.add("ms of removal", int(seconds * 1000))
    if seconds > REMOVAL_SECONDS:
        log = guest.run(f"dmesg | grep -F '[{disk}]' | tail -5").output
        raise GuestError(f"the removal of {disk} took {seconds:.1f} s, from {begin} to "
                         f"{end} by the guest's clock, more than {REMOVAL_SECONDS} s; "
                         f"the driver logged:\n{log}")


def _vanish(guest: Guest, disk: str, use: str, round: Round,
            way: Callable[[], None]) -> None:
    """Use a disk, make its device vanish by calling way(), and check that uses end."""
    run, others = _begin(guest, disk, use)
    run.wait_for_io(disk, requests=50)
    guest.run(f"sleep {round.random.uniform(0, 0.3):.2f}")
    way()
    _end(guest, run, others, use, round)


def _works(guest: Guest, disk: str, name: str) -> None:
    """Check that a new device has the name of the old one, and works."""
    if disk != name:
        raise GuestError(f"the new device is {disk}; the one that vanished was "
                         f"{name}")
    fio.run(guest, f"/dev/{disk}", rw="randrw", bs="4k", numjobs=4, size="1m",
            offset_increment="8m", verify="crc32c", timeout=_LIMIT)


def _succeed(guest: Guest, disk: Disk, name: str) -> None:
    """Check that a disk that is plugged in next has the name, and works."""
    guest.add_disk(disk)
    _works(guest, guest.dev(disk.id), name)
    guest.remove_disk(disk.id)


def _in_turn(round: Round, items: Sequence[_Item]) -> Iterator[_Item]:
    """Return an endless iterator over items in a random order."""
    return itertools.cycle(round.random.sample(items, len(items)))


# PCI

def unplug(guest: Guest, round: Round, uses: Iterator[str]) -> None:
    """Make disks vanish: the host unplugs them."""
    while round.wants("unplugged"):
        guest.add_disk(Disk("victim", "ram", _SIZE, queues=4))
        name = guest.dev("victim")

        def way(name: str = name) -> None:
            with _removal(guest, name, round):
                guest.remove_disk("victim")

        _vanish(guest, name, next(uses), round, way)
        _succeed(guest, Disk("victim", "ram", _SIZE, queues=4), name)
        round.add("unplugged")


def slot_power(guest: Guest, port: str, on: bool) -> None:
    """Switch the power of a slot, given its root port's PCI address.

    This sets power controller and power indicator in the slot control register.
    """
    guest.run(f"setpci -s {port} CAP_EXP+18.w={'0' if on else '0700'}:0700")


def pull(guest: Guest, round: Round, uses: Iterator[str]) -> None:
    """Make a disk vanish: its slot loses power."""
    guest.add_disk(Disk("victim", "ram", _SIZE, queues=4))
    name = guest.dev("victim")
    function = guest.run(f"readlink -f /sys/block/{name}/device/..") \
        .output.strip()
    port = function.split("/")[-2]

    def way() -> None:
        # The driver may use the missing device for a while.
        slot_power(guest, port, False)
        guest.run(f"sleep {round.random.choice((0, 0.5))}")
        with _removal(guest, name, round):
            guest.run(f"echo 1 > {function}/remove", timeout=_LIMIT)

    while round.wants("pulled"):
        _vanish(guest, name, next(uses), round, way)
        slot_power(guest, port, True)
        guest.run("sleep 0.5; echo 1 > /sys/bus/pci/rescan", timeout=_LIMIT)
        _works(guest, guest.dev("victim"), name)
        round.add("pulled")
    guest.remove_disk("victim")


def _on_pci(round: Round) -> None:
    uses = _in_turn(round, _USES)
    with Guest(round.kernel, driver=round.driver, parallel=False) as guest:
        unplug(guest, round, uses)
        pull(guest, round, uses)


# Processes

def kill_backends(guest: Guest, round: Round, uses: Iterator[str]) -> None:
    """Make disks vanish: their vhost-user server is killed."""
    come_back = _in_turn(round, (False, True))
    while round.wants("backends killed"):
        disk = Disk("victim", "vhost-user", _SIZE, queues=4, reconnect=True)
        guest.add_disk(disk)
        name = guest.dev("victim")
        returns = next(come_back)

        def way(disk: Disk = disk, name: str = name, returns: bool = returns) -> None:
            disk.kill_server()
            guest.run("sleep 0.5")
            if returns:
                disk.restart_server()
                guest.run("sleep 1")
            with _removal(guest, name, round):
                guest.remove_disk("victim")

        _vanish(guest, name, next(uses), round, way)
        _succeed(guest, Disk("victim", "vhost-user", _SIZE, queues=4), name)
        round.add("backends killed")


def kill_sims(guest: Guest, round: Round, uses: Iterator[str]) -> None:
    """Make disks vanish: their vblksim is killed."""
    come_back = _in_turn(round, (False, True))
    while round.wants("sims killed"):
        use = next(uses)
        settings = _ZONED if use == "zones" else {}
        returns = next(come_back)
        with contextlib.ExitStack() as stack:
            sim = stack.enter_context(MortalSim(
                guest, "victim", ours=round.driver == "ours", capacity="64M",
                **settings))
            successor = Sim(guest, "victim", ours=round.driver == "ours",
                            capacity="64M")
            name = sim.disk()

            def way(sim: MortalSim = sim, name: str = name, returns: bool = returns,
                    stack: contextlib.ExitStack = stack,
                    successor: Sim = successor) -> None:
                sim.kill()
                with _removal(guest, name, round):
                    # The next vblksim removes the device that the old one left.
                    if returns:
                        stack.enter_context(successor)
                    else:
                        guest.run("echo victim > "
                                  "/sys/bus/vdpa/drivers/virtio_vdpa/unbind",
                                  timeout=_LIMIT)

            _vanish(guest, name, use, round, way)
            if not returns:
                stack.enter_context(successor)
            # If the old device is still in use, its name is not free.
            new = successor.disk()
            _works(guest, new, new if returns else name)
        round.add("sims killed")


def _params(round: Round) -> str:
    """Return the driver's parameters; the in-tree driver has no removal_timeout."""
    return _SILENCE if round.driver == "ours" else ""


def _on_vhost_user(round: Round) -> None:
    with Guest(round.kernel, driver=round.driver, shared=True,
               params=_params(round), parallel=False) as guest:
        kill_backends(guest, round, _in_turn(round, _USES))


def _on_vdpa(round: Round) -> None:
    # No disk on PCI, because lockdep confuses its interrupts with VDUSE's.
    with Guest(round.kernel, driver=round.driver, params=_params(round),
               parallel=False) as guest:
        vblksim.prepare(guest)
        kill_sims(guest, round, _in_turn(round, _SIM_USES))


def _run(round: Round) -> None:
    """Make devices vanish in each way whose goal is not reached yet."""
    if round.wants("unplugged") or round.wants("pulled"):
        _on_pci(round)
    if round.wants("backends killed"):
        _on_vhost_user(round)
    if round.wants("sims killed"):
        _on_vdpa(round)


VANISH = Scenario(
    "vanish", "Devices vanish while they are used.", _run,
    goals={"unplugged": 25, "pulled": 25, "backends killed": 25,
           "sims killed": 25},
    each={"unplugged": 4, "pulled": 4, "backends killed": 4, "sims killed": 5},
    zero=("hung tasks",), drivers=("ours", "stock"))
