# SPDX-License-Identifier: GPL-2.0
"""A disk of vblksim's, which checks the driver, see vblksim/vblksim.1.

    with Sim(guest, features="default,+ring_packed", capacity="64M") as sim:
        fio.run(guest, f"/dev/{sim.disk()}", rw="randrw")

At the end of the block the device is removed, and vblksim writes its report.  A rule
that the driver has broken fails the test.

vblksim runs in the guest, as a VDUSE device, or on the host, as a vhost-user device of
QEMU's.  prepare() chooses which, for all devices of a guest.
"""

import collections
import contextlib
import json
import re
import shlex
import signal
import subprocess
import time
import weakref
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, Self

from host import process
from vm.agent import Result
from vm.disk import Disk
from vm.errors import CommandFailed, GuestError
from vm.guest import Guest, Job
from vm.kernels import Kernel

from . import simulator

VDUSE, VHOST_USER = FRONTS = ("vduse", "vhost-user")

_PROGRAM = "/run/vblksim"
_START_SECONDS = 30
_STOP_SECONDS = 20
# After the driver's own time limits for a device that does not answer.
_UNPLUG_SECONDS = 90

# Counts of this driver over all tests: requests, checks, broken.
seen: collections.Counter[str] = collections.Counter()

_fronts: weakref.WeakKeyDictionary[Guest, str] = weakref.WeakKeyDictionary()

# A device's report, as its JSON has it.
Report = dict[str, Any]


class RulesBroken(Exception):
    """The driver has broken rules of the specification.

    report: the device's, as a dictionary.
    """

    def __init__(self, report: Report):
        super().__init__("".join(
            f"\n  VIRTIO 1.4, {rule['section']}: {rule['text']} "
            f"({rule['strength']} {rule['rule']}), {rule['times']} times; first: "
            f"{rule['first']}" for rule in report["broken"]))
        self.report = report


def prepare(guest: Guest, front: str = VDUSE) -> None:
    """Prepare a guest for devices of vblksim's, with one of FRONTS.

    VDUSE: copy the program to the guest and load the modules that it needs.  The driver
    can be loaded before or later.  VHOST_USER: the guest must have been created with
    shared=True, and parallel=False, because disks are plugged in and unplugged.
    """
    if front == VDUSE and not simulator.install(guest, _PROGRAM):
        raise GuestError(f"the kernel {guest.release} has no VDUSE")
    _fronts[guest] = front


@contextlib.contextmanager
def booted(kernel: Kernel, front: str = VDUSE, **options: Any) -> Iterator[Guest]:
    """Boot a guest for vblksim's devices alone, and prepare() it.

    options: of the Guest.  QEMU's devices are not with it, because lockdep takes the
    interrupts of PCI for VDUSE's.
    """
    if front == VHOST_USER:
        options |= {"shared": True, "parallel": False}
    with Guest(kernel, **options) as guest:
        prepare(guest, front)
        yield guest


def front_of(guest: Guest) -> str:
    """Return the front of a guest's devices, VDUSE if prepare() was not called."""
    return _fronts.get(guest, VDUSE)


def program(guest: Guest, words: str, check: bool = True,
            timeout: float = 30) -> Result:
    """Run vblksim with these arguments in a guest to its end and return the Result."""
    return guest.run(f"{_PROGRAM} {words}", timeout, check=check)


class _InGuest:
    """vblksim in the guest: a device of VDUSE, on the vDPA bus."""

    directory = "/run"
    _job: Job

    def __init__(self, guest: Guest, name: str):
        self._guest = guest
        self._name = name

    @property
    def options(self) -> list[str]:
        return []

    def start(self, words: list[str]) -> None:
        self._job = self._guest.start(f"exec {_PROGRAM} {shlex.join(words)}",
                                      timeout=None)

    @property
    def output(self) -> str:
        return self._job.output

    @property
    def running(self) -> bool:
        return self._job.running

    def kill(self) -> None:
        self._job.kill()

    def find_disk(self) -> str | None:
        place = f"/sys/bus/vdpa/devices/{self._name}/virtio*/block"
        found = self._guest.run(f"ls {place} 2>/dev/null", check=False).output.split()
        return found[0] if found else None

    def control(self, words: str, check: bool) -> Result:
        return self._guest.run(f"{_PROGRAM} ctl {words}", check=check)

    def signal(self, name: str, check: bool) -> None:
        self._guest.run(f"pkill -{name} -f '^{_PROGRAM} --name={self._name} '",
                        check=check)

    def remove(self) -> None:
        """SIGTERM removes the device, too."""

    def wait(self) -> Result:
        return self._job.wait(check=False)

    def read(self, path: str) -> str:
        return self._guest.run(f"cat {path}").output


class _OnHost:
    """vblksim on the host: a vhost-user disk that QEMU plugs in."""

    _process: subprocess.Popen[bytes]
    _started: float

    def __init__(self, guest: Guest, name: str):
        self._guest = guest
        self._name = name
        self.directory = str(guest.directory)
        self._log = guest.directory / f"vblksim-{name}.log"
        self._socket = guest.directory / f"{name}.vhost"

    @property
    def options(self) -> list[str]:
        return [f"--socket={self._socket}"]

    def start(self, words: list[str]) -> None:
        self._started = time.monotonic()
        self._process = process.spawn([simulator.build(), *words], self._log)
        device = process.wait_for(
            lambda: re.search(r"^vblksim: waiting for QEMU with: .* "
                              r"-device vhost-user-blk-pci,(.*)$", self.output,
                              re.MULTILINE) or not self.running, _START_SECONDS)
        if not isinstance(device, re.Match):
            return
        options = dict(item.split("=") for item in device[1].split(","))
        try:
            self._guest.add_disk(Disk(
                self._name, "vhost-user", address=self._socket,
                queues=int(options["num-queues"]),
                queue_size=int(options["queue-size"]), reconnect=True,
                packed="packed" in options,
                iommu_platform="iommu_platform" in options))
        except BaseException:
            self.kill()
            raise

    @property
    def output(self) -> str:
        return self._log.read_text(errors="replace")

    @property
    def running(self) -> bool:
        # So that the guest's kernel log is checked, as it is by a Job of the guest.
        self._guest.pump()
        return self._process.poll() is None

    def kill(self) -> None:
        process.end(self._process)

    def find_disk(self) -> str | None:
        return self._guest.find_dev(self._name)

    def control(self, words: str, check: bool) -> Result:
        started = time.monotonic()
        done = subprocess.run([simulator.build(), "ctl", *shlex.split(words)],
                              text=True, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        result = Result(done.stdout, done.returncode, time.monotonic() - started)
        if check and result.status:
            raise CommandFailed(f"status {result.status} from vblksim ctl {words}\n"
                                f"{result.output}", result)
        return result

    def signal(self, name: str, check: bool) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.Signals[f"SIG{name}"])
        elif check:
            raise GuestError(f"vblksim {self._name} has ended; its output:\n"
                             f"{self.output[-3000:]}")

    def remove(self) -> None:
        """Unplug the disk, which the driver releases when it has all its requests."""
        self.control(f"--control={self.directory}/vblksim-{self._name}.sock calm",
                     check=False)
        if self._name in self._guest.disks:
            self._guest.remove_disk(self._name, _UNPLUG_SECONDS)

    def wait(self) -> Result:
        process.end(self._process, _STOP_SECONDS)
        return Result(self.output, self._process.returncode,
                      time.monotonic() - self._started)

    def read(self, path: str) -> str:
        with open(path) as file:
            return file.read()


_PLACES: dict[str, type[_InGuest | _OnHost]] = {VDUSE: _InGuest, VHOST_USER: _OnHost}


def _words(settings: dict[str, Any]) -> Iterable[str]:
    for key, value in settings.items():
        for item in value if isinstance(value, list) else [value]:
            yield f"--{key}={item}"


class Sim:
    """A device of vblksim's.

    guest: a Guest that prepare() was called for.
    name: the device's name, and its ID unless settings have another.
    ours: this driver probes it; summary() does not count other drivers.
    settings: of vblksim; script is a list of lines.
    """

    def __init__(self, guest: Guest, name: str = "sim", *, ours: bool = True,
                 **settings: Any):
        self._guest = guest
        self.name = name
        self._ours = ours
        self._tolerated = settings.get("tolerate", "").split(",")
        self._place = _PLACES[front_of(guest)](guest, name)
        self.report: Report | None = None
        self._report = f"{self._place.directory}/{name}.json"
        self._control = f"{self._place.directory}/vblksim-{name}.sock"
        self._words = [f"--name={name}", f"--report={self._report}",
                       f"--control={self._control}", *self._place.options,
                       *_words({"id": name, **settings})]

    def __enter__(self) -> Self:
        self._place.start(self._words)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        if error is None:
            self.stop()
        else:
            error.add_note(f"vblksim's output:\n{self.output[-3000:]}")
            # The device must not block the name for the next one.
            with contextlib.suppress(GuestError):
                self.stop(check=False)
            self._place.kill()

    @property
    def output(self) -> str:
        """Its output so far."""
        return self._place.output

    @property
    def running(self) -> bool:
        """Whether it still runs."""
        return self._place.running

    def find_disk(self) -> str | None:
        """Return the disk's name, None if the driver has no disk of this device."""
        return self._place.find_disk()

    def disk(self, timeout: float = _START_SECONDS) -> str:
        """Wait for the disk and return its name, such as "vda"."""
        found = process.wait_for(
            lambda: self.find_disk() or not self.running, timeout)
        if not isinstance(found, str):
            raise GuestError(f"vblksim's disk {self.name} did not appear; vblksim's "
                             f"output:\n{self.output[-3000:]}")
        self._guest.run(f"for n in $(seq 100); do [ -b /dev/{found} ] && "
                        "exit; sleep 0.1; done; exit 1")
        return found

    def ctl(self, command: str, check: bool = True) -> str:
        """Send it a command while it runs; return its answer."""
        return self._place.control(f"--control={self._control} {command}",
                                   check).output.strip()

    def stats(self) -> Report:
        """Return the report so far, as a dictionary."""
        output = self.ctl("stats")
        return json.loads(output[:output.rindex("}") + 1])

    def signal(self, name: str, check: bool = True) -> None:
        """Send its process a signal: "TERM" or "KILL".

        Raises GuestError if there is no such process, unless check is not set.
        """
        self._place.signal(name, check)

    def stop(self, check: bool = True) -> Report:
        """Remove the device and return its report.

        Raises RulesBroken if the driver has broken any rule, unless check is
        not set.
        """
        if self.report is None:
            self._place.remove()
            self.signal("TERM", check=False)
            if not process.wait_for(lambda: not self.running, _STOP_SECONDS):
                raise GuestError(f"vblksim has not ended {_STOP_SECONDS} s after "
                                 f"SIGTERM; its output:\n{self.output[-3000:]}")
            result = self._place.wait()
            if result.status not in (0, 3):
                raise GuestError(f"vblksim ended with status {result.status}; its "
                                 f"output:\n{result.output[-3000:]}")
            self.report = json.loads(self._place.read(self._report))
            self.report["broken"] = [
                rule for rule in self.report["broken"]
                if rule["rule"] not in self._tolerated]
            self._count(self.report)
            if check and self.report["broken"]:
                raise RulesBroken(self.report)
        return self.report

    def _count(self, report: Report) -> None:
        if self._ours:
            seen["requests"] += report["requests"]
            seen["checks"] += report["checks"]
            seen["broken"] += sum(rule["times"] for rule in report["broken"])


def summary() -> str | None:
    """Return a line with the counts of all tests, None if no test used vblksim."""
    if not seen:
        return None
    return (f"vblksim watched {seen['requests']:,} requests of the driver and "
            f"checked {seen['checks']:,} times: {seen['broken']} rules broken")

