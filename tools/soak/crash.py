# SPDX-License-Identifier: GPL-2.0
"""The process behind a disk is killed, restarted, or hangs, under load.

    vhost-user  qemu-storage-daemon; QEMU connects again when it returns
    nbd         qemu-storage-daemon behind QEMU's NBD client, which waits for it for
                reconnect-delay, 8 seconds
    vduse       vblksim in the guest

    killed      the process does not return; the administrator removes the disk, except
                with nbd, where QEMU gives up by itself
    restarted   the process is killed, and started again within 2 seconds
    hung        the process stops (SIGSTOP), and continues within 2 seconds

Writers (writer.c) write records to the disk meanwhile.  If the disk survives, they must
go on without an error.  Otherwise each must end with an error, and another disk gets the
same data.  All records that were acknowledged must be there.

"in order" is a device that offers VIRTIO_F_IN_ORDER.  qemu-storage-daemon does not.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import vblksim
from host import process
from vm.disk import Disk
from vm.errors import GuestError
from vm.guest import Guest

from .power import LOST, Target, await_first_acks, check_records, work_directory, writer
from .scenario import Round, Scenario
from .vanish import MortalSim

_MIB = 1 << 20
_SIZE = 16 * _MIB
_QUEUES = 4
_PAUSE_SECONDS = (0.5, 2)
_LOAD_SECONDS = 600
# By then the writers go on, or have ended.
_LIMIT = 120
# A killed process is silent: the removal of its disk fails the rest of the I/O after
# removal_timeout, and a server that has forgotten requests gets them again after
# reset_after.  That is longer than a pause, because QEMU waits for a stopped server when
# it resets its device.
_PARAMS = "io_timeout=1 removal_timeout=3 reset_after=6"
FAULTS = ("killed", "restarted", "hung")


class _Served(ABC):
    """A disk that a process serves, with data that outlives the process.

    after_restart: whether the disk survives a restart of its process.
    """

    after_restart = True

    def __init__(self, guest: Guest, directory: Path, in_order: bool):
        self.guest = guest
        self.directory = directory
        self.in_order = in_order

    @abstractmethod
    def open(self) -> str:
        """Start the process, add the disk, and return its name."""

    @abstractmethod
    def close(self) -> None:
        """Remove the disk, and end the process."""

    @abstractmethod
    def kill(self) -> None:
        """Kill the process."""

    @abstractmethod
    def restart(self) -> None:
        """Start the process again, after kill()."""

    @abstractmethod
    def give_up(self) -> None:
        """Have the I/O fail after kill()."""

    @abstractmethod
    def stop(self) -> None:
        """Stop the process."""

    @abstractmethod
    def go_on(self) -> None:
        """Continue the process after stop()."""

    def reopen(self) -> str:
        """Add the disk again if it did not survive, and return its name."""
        self.close()
        return self.open()


class _OfQemu(_Served):
    """A disk of QEMU's in front of qemu-storage-daemon."""

    backend: str

    def open(self) -> str:
        more: dict[str, Any] = {"in_order": True} if self.in_order else {}
        self._disk = Disk("victim", self.backend, _SIZE, queues=_QUEUES, reconnect=True,
                          path=self.directory / self.backend, **more)
        self.guest.add_disk(self._disk)
        return self.guest.dev("victim")

    def close(self) -> None:
        if "victim" in self.guest.disks:
            self.guest.remove_disk("victim")

    def kill(self) -> None:
        self._disk.kill_server()

    def restart(self) -> None:
        self._disk.restart_server()

    def stop(self) -> None:
        self._disk.stop_server()

    def go_on(self) -> None:
        self._disk.continue_server()


class _VhostUser(_OfQemu):
    backend = "vhost-user"

    def give_up(self) -> None:
        self.close()


class _Nbd(_OfQemu):
    backend = "nbd"

    def give_up(self) -> None:
        """QEMU fails the I/O after reconnect-delay."""


class _Vduse(_Served):
    """A disk of vblksim's.  The next vblksim removes the device of a dead one."""

    after_restart = False

    def _start(self) -> None:
        features = "default,+bit35" if self.in_order else "default"
        # The driver notifies a silent device again, whether the device wants it or not.
        self._sim = MortalSim(self.guest, "victim", capacity=str(_SIZE),
                              queues=_QUEUES, features=features, file="/run/victim",
                              tolerate="KICK_UNWANTED")
        self._sim.__enter__()

    def open(self) -> str:
        self._start()
        return self._sim.disk()

    def close(self) -> None:
        self._sim.stop()

    def kill(self) -> None:
        self._sim.kill()

    def restart(self) -> None:
        self._start()

    def reopen(self) -> str:
        if self._sim.running:
            return self._sim.disk()
        return self.open()

    def give_up(self) -> None:
        self.guest.run("echo victim > /sys/bus/vdpa/drivers/virtio_vdpa/unbind",
                       timeout=_LIMIT)

    def stop(self) -> None:
        self._sim.signal("STOP")

    def go_on(self) -> None:
        self._sim.signal("CONT")


@dataclass(frozen=True)
class Kind:
    """A backend, and whether its device offers VIRTIO_F_IN_ORDER."""
    backend: str
    in_order: bool = False

    def counter(self, fault: str) -> str:
        """Return the name of the counter of a fault."""
        return f"{self.backend}{' in order' if self.in_order else ''} {fault}"


_BACKENDS: dict[str, Callable[..., _Served]] = {
    "vhost-user": _VhostUser, "nbd": _Nbd, "vduse": _Vduse}
KINDS = (Kind("vhost-user"), Kind("nbd"), Kind("nbd", True), Kind("vduse"),
         Kind("vduse", True))


def _await_progress(records: Target) -> None:
    """Wait until each writer has acknowledged another record."""
    told = records.told()
    if not process.wait_for(
            lambda: records.running and all(
                records.told()[number] > last for number, last in told.items()), _LIMIT):
        raise GuestError(f"{records.name}: the writers do not go on within {_LIMIT} s: "
                         f"from {told} to {records.told()}; {records.complaints()}")


def _await_errors(records: Target) -> None:
    """Wait until all writers have ended, each with an error."""
    if not process.wait_for(lambda: not records.running, _LIMIT):
        raise GuestError(f"{records.name}: the writers have not ended within {_LIMIT} s")
    said = records.complaints()
    if said.count("Input/output error") < len(records.told()):
        raise GuestError(f"{records.name}: not each writer had an I/O error: {said}")


def _inflict(guest: Guest, disk: _Served, fault: str, pause: float) -> float:
    """Have a fault happen; return when the process was back, or the disk was given up."""
    if fault == "hung":
        disk.stop()
    else:
        disk.kill()
    if fault != "killed":
        guest.run(f"sleep {pause:.2f}")
    back = time.monotonic()
    {"hung": disk.go_on, "restarted": disk.restart, "killed": disk.give_up}[fault]()
    return back


def strike(round: Round, disk: _Served, kind: Kind, fault: str) -> None:
    """Have a fault happen to a disk in use, and check what its users see."""
    guest = disk.guest
    records = Target(guest, "raw", disk.open())
    records.make()
    records.start(round.random.getrandbits(31), _LOAD_SECONDS)
    await_first_acks([records], guest)
    guest.run(f"sleep {round.random.uniform(0, 1):.2f}")
    back = _inflict(guest, disk, fault, round.random.uniform(*_PAUSE_SECONDS))
    if fault == "hung" or fault == "restarted" and disk.after_restart:
        _await_progress(records)
    else:
        _await_errors(records)
    name = kind.counter(fault)
    round.add(f"ms, {name}", int((time.monotonic() - back) * 1000))
    acked = records.stop()
    records.name = disk.reopen()
    # Read what the device has.
    guest.run(f"echo 3 > /proc/sys/vm/drop_caches; ls /dev/{records.name}2")
    checked, lost = check_records(guest, records.seed, acked, records.place)
    round.add("acknowledged bytes", checked)
    round.add(LOST, lost)
    disk.close()
    round.add(name)


def _strike_all(round: Round, guest: Guest, directory: Path, kinds: list[Kind]) -> None:
    guest.put(writer(guest.arch), "/run/writer")
    # What the kernel logs of failed I/O.
    guest.tolerate("I/O error|Buffer I/O error|lost async page write")
    for kind in kinds:
        disk = _BACKENDS[kind.backend](guest, directory, kind.in_order)
        for fault in FAULTS:
            while round.wants(kind.counter(fault)):
                strike(round, disk, kind, fault)


def _run(round: Round) -> None:
    """Play what the round wants; VDUSE has a guest without disks on PCI."""
    wanted = [kind for kind in KINDS
              if any(round.wants(kind.counter(fault)) for fault in FAULTS)]
    with work_directory() as directory:
        for vduse in (False, True):
            kinds = [kind for kind in wanted if (kind.backend == "vduse") == vduse]
            if not kinds:
                continue
            with Guest(round.kernel, shared=not vduse, params=_PARAMS,
                       parallel=False) as guest:
                if vduse:
                    vblksim.prepare(guest)
                _strike_all(round, guest, directory, kinds)


_COUNTERS = [kind.counter(fault) for kind in KINDS for fault in FAULTS]
CRASH = Scenario(
    "crash", "The process behind a disk is killed, restarted, or hangs, under load.",
    _run, goals=dict.fromkeys(_COUNTERS, 100), each=dict.fromkeys(_COUNTERS, 3),
    zero=(LOST,), kernel="6.12")
