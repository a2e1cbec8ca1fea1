# SPDX-License-Identifier: GPL-2.0
"""vblksim in a guest: a disk that checks the driver, see vblksim/vblksim.1.

    with Sim(guest, features="default,+ring_packed", capacity="64M") as sim:
        fio.run(guest, f"/dev/{sim.disk()}", rw="randrw")

At the end of the block vblksim removes the device and writes its report.  A rule that
the driver has broken fails the test.
"""

import collections
import contextlib
import json
import shlex

from vm import process, simulator
from vm.errors import GuestError

_PROGRAM = "/run/vblksim"
_START_SECONDS = 30
_STOP_SECONDS = 20

# Counts of this driver over all tests: requests, checks, broken.
seen: collections.Counter[str] = collections.Counter()


class RulesBroken(Exception):
    """The driver has broken rules of the specification.

    report: the device's, as a dictionary.
    """

    def __init__(self, report):
        super().__init__("".join(
            f"\n  VIRTIO 1.4, {rule['section']}: {rule['text']} "
            f"({rule['strength']} {rule['rule']}), {rule['times']} times; first: "
            f"{rule['first']}" for rule in report["broken"]))
        self.report = report


def prepare(guest):
    """Copy the program to a guest and load the modules that it needs.

    The driver can be loaded before or later.
    """
    if not simulator.install(guest, _PROGRAM):
        raise GuestError(f"the kernel {guest.release} has no VDUSE")


def program(guest, words, check=True, timeout=30):
    """Run vblksim with these arguments to its end and return the Result."""
    return guest.run(f"{_PROGRAM} {words}", timeout, check=check)


class Sim:
    """A device of vblksim's.

    guest: a Guest that prepare() was called for.
    name: the device's name, and its ID unless settings have another.
    ours: this driver probes it; summary() does not count other drivers.
    settings: of vblksim; script is a list of lines.
    """

    def __init__(self, guest, name="sim", *, ours=True, **settings):
        self._guest = guest
        self.name = name
        self._ours = ours
        self._tolerated = settings.get("tolerate", "").split(",")
        self._job = None
        self.report = None
        words = [f"--name={name}", f"--report=/run/{name}.json"]
        for key, value in {"id": name, **settings}.items():
            for item in value if isinstance(value, list) else [value]:
                words.append(f"--{key}={item}")
        self._words = shlex.join(words)

    def __enter__(self):
        self._job = self._guest.start(f"exec {_PROGRAM} {self._words}",
                                      timeout=None)
        return self

    def __exit__(self, kind, error, traceback):
        if error is None:
            self.stop()
        else:
            error.add_note(f"vblksim's output:\n{self._job.output[-3000:]}")
            # The device must not block the name for the next one.
            with contextlib.suppress(GuestError):
                self.stop(check=False)
            self._job.kill()

    @property
    def output(self):
        """Its output so far."""
        return self._job.output

    @property
    def running(self):
        """Whether it still runs."""
        return self._job.running

    def disk(self, timeout=_START_SECONDS):
        """Wait for the disk and return its name, such as "vda"."""
        place = f"/sys/bus/vdpa/devices/{self.name}/virtio*/block"
        found = process.wait_for(
            lambda: self._guest.run(f"ls {place} 2>/dev/null",
                                    check=False).output.split()
            or not self._job.running, timeout)
        if not found or found is True:
            raise GuestError(f"vblksim's disk {self.name} did not appear; vblksim's "
                             f"output:\n{self._job.output[-3000:]}")
        self._guest.run(f"for n in $(seq 100); do [ -b /dev/{found[0]} ] && "
                        "exit; sleep 0.1; done; exit 1")
        return found[0]

    def ctl(self, command, check=True):
        """Send it a command while it runs; return its answer."""
        result = self._guest.run(f"{_PROGRAM} ctl "
                                 f"--control=/run/vblksim-{self.name}.sock "
                                 f"{command}", check=check)
        return result.output.strip()

    def stats(self):
        """Return the report so far, as a dictionary."""
        output = self.ctl("stats")
        return json.loads(output[:output.rindex("}") + 1])

    def signal(self, name, check=True):
        """Send its process a signal: "TERM" or "KILL".

        Raises CommandFailed if there is no such process, unless check is not set.
        """
        self._guest.run(f"pkill -{name} -f '^{_PROGRAM} --name={self.name} '",
                        check=check)

    def stop(self, check=True):
        """Remove the device and return its report.

        Raises RulesBroken if the driver has broken any rule, unless check is
        not set.
        """
        if self.report is None:
            self.signal("TERM", check=False)
            if not process.wait_for(lambda: not self._job.running,
                                    _STOP_SECONDS):
                raise GuestError(f"vblksim has not ended {_STOP_SECONDS} s after "
                                 f"SIGTERM; its output:\n{self._job.output[-3000:]}")
            result = self._job.wait(check=False)
            if result.status not in (0, 3):
                raise GuestError(f"vblksim ended with status {result.status}; its "
                                 f"output:\n{result.output[-3000:]}")
            self.report = json.loads(
                self._guest.run(f"cat /run/{self.name}.json").output)
            self.report["broken"] = [
                rule for rule in self.report["broken"]
                if rule["rule"] not in self._tolerated]
            self._count()
            if check and self.report["broken"]:
                raise RulesBroken(self.report)
        return self.report

    def _count(self):
        if self._ours:
            seen["requests"] += self.report["requests"]
            seen["checks"] += self.report["checks"]
            seen["broken"] += sum(rule["times"] for rule in self.report["broken"])


def summary():
    """Return a line with the counts of all tests, None if no test used vblksim."""
    if not seen:
        return None
    return (f"vblksim watched {seen['requests']:,} requests of the driver and "
            f"checked {seen['checks']:,} times: {seen['broken']} rules broken")

