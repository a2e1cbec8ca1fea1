# SPDX-License-Identifier: GPL-2.0
"""Run fio in a guest; a run that has errors or does no I/O raises FioError.

    fio.run(guest, "/dev/vda", rw="randrw", bs="4k", size="16m", verify="crc32c")

Options are fio's own; True and False stand for 1 and 0, and a list gives an
option several times.  Those in DEFAULTS can be overridden, or left out by
giving None.
"""

import json
import re
import shlex
from typing import Any

from host import process
from vm.guest import Guest, Job

# All other processes of a guest have priority: under emulation a shell starves
# beside fio.
DEFAULTS = {"ioengine": "libaio", "direct": 1, "thread": 1, "iodepth": 16,
            "nice": 19, "group_reporting": 1}
# For a run during which the guest suspends.  With libaio fio 3.33 may never end: when the
# freezer interrupts its wait for several requests, of which some have completed, fio waits
# for all of them again, which is more than there are.
FREEZABLE: dict[str, Any] = {"ioengine": "io_uring"}

# fio's report, as its JSON has it.
Report = dict[str, Any]


class FioError(Exception):
    """fio ended with an error, without a report, or without any I/O.

    output: all of fio's output; report: its JSON report, None if there is none.
    """

    def __init__(self, text: str, output: str, report: Report | None = None):
        super().__init__(text)
        self.output = output
        self.report = report


class Run:
    """fio, running in a guest."""

    def __init__(self, guest: Guest, job: Job):
        self._guest = guest
        self._job = job

    @property
    def running(self) -> bool:
        """Whether fio has not ended yet."""
        return self._job.running

    def wait_for_io(self, disk: str, requests: int = 300) -> None:
        """Wait until a disk has completed so many more requests, or fio has ended.

        disk: its name in the guest.  On a slow host fio may end before the shell
        that counts the requests runs.
        """
        stat = f"/sys/block/{disk}/stat"
        job = self._guest.start(
            f"count() {{ awk '{{ print $1 + $5 }}' {stat}; }}; "
            f"goal=$(($(count) + {requests})); "
            "until [ $(count) -ge $goal ]; do sleep 0.1; done", timeout=120)
        process.wait_for(lambda: not (job.running and self.running), 300)
        if self.running:
            job.wait()
        else:
            job.kill()

    def kill(self) -> None:
        """Kill fio; wait() then raises an error."""
        self._job.kill()

    def wait(self) -> Report:
        """Wait until fio has ended and return its report, a dictionary.

        Raises FioError for any error, including a failed verification, and for a
        run that did no I/O.
        """
        result = self._job.wait(check=False)
        report = _report(result.output)
        messages = result.output.partition("\n{\n")[0].strip()[-3000:]
        if report is None:
            raise FioError(f"fio ended with status {result.status} and without "
                           f"a report:\n{messages}", result.output)
        failed = sorted(errors(report))
        if result.status or failed:
            raise FioError(f"fio ended with status {result.status}, errors "
                           f"{failed}:\n{messages}", result.output, report)
        if not any(job[way]["total_ios"] for job in report["jobs"]
                   for way in ("read", "write", "trim", "sync")):
            raise FioError(f"fio did no I/O:\n{messages}", result.output, report)
        return report


def errors(report: Report | None) -> set[int]:
    """Return the numbers of errno of a report's jobs that failed."""
    return {job["error"] for job in report["jobs"]} - {0} if report else set()


def start(guest: Guest, filename: str | list[str], timeout: float = 240,
          **options: object) -> Run:
    """Start fio on a file or disk of the guest and return a Run.

    filename: a name, or a list of names, each of which gets a job.
    timeout: in seconds, after which fio is killed.
    """
    words = ["fio", "--output-format=json", "--eta=never"]
    for name, value in {**DEFAULTS, **options}.items():
        for item in value if isinstance(value, list) else [value]:
            if item is not None:
                item = int(item) if isinstance(item, bool) else item
                words.append(f"--{name}={item}")
    # Options before the first job apply to all jobs.  fio splits a filename at
    # colons, so escape those that are part of a name.
    for name in filename if isinstance(filename, list) else [filename]:
        words += ["--name=job", "--filename=" + name.replace(":", r"\:")]
    # A file for the report keeps fio's messages out of it.
    return Run(guest, guest.start(
        f"report=$(mktemp); {shlex.join(words)} --output=$report; status=$?; "
        "echo; cat $report; rm $report; exit $status", timeout))


def run(guest: Guest, filename: str | list[str], timeout: float = 240,
        **options: object) -> Report:
    """Run fio to its end and return its report; see Run.wait()."""
    return start(guest, filename, timeout, **options).wait()


def ios(report: Report, *ways: str) -> int:
    """Return how many I/Os a report counts; ways: "read", "write", "trim"."""
    return sum(job[way]["total_ios"] for job in report["jobs"]
               for way in ways or ("read", "write", "trim"))


def _report(output: str) -> Report | None:
    found = re.search(r"^\{$", output, re.MULTILINE)
    if not found:
        return None
    try:
        return json.JSONDecoder().raw_decode(output, found.start())[0]
    except json.JSONDecodeError:
        return None
