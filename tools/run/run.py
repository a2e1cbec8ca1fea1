# SPDX-License-Identifier: GPL-2.0
"""`make run`: verified I/O through our driver in a guest, and a report of it.

usage: python3 -m run.run

It writes report.json, report.html and ratios.png to build/run, see run.run_record and
run.report.  The exit status is 0 for PASS, 1 for FAIL, 2 if a UserError prevents the
run.
"""

import contextlib
import functools
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from common import measure, queues
from host import cache, deps, repository, ui
from host.ui import UserError, say, step
from vm import kernels, qemu, qemu_dist
from vm.disk import GIB, Disk
from vm.errors import CommandTimeout, GuestError
from vm.guest import Guest

from . import report, verdict
from .run_record import Content, Disks, Drivers, Ended, Phase, Row, Run, Versions

KERNEL = "6.12"
CPUS = 4
QUEUES = 4
ROUNDS = 5
SECONDS = 1

_TOP = Path(__file__).resolve().parents[2]
_OUT = _TOP / "build/run"
_NEEDED_MIB = 500

_MIB = 1 << 20
# The file system uses the first part of its disk.  The test discards and zeroes
# blocks beyond it.
_FS_MIB = 512
_MOUNT = "/mnt/files"
_VERIFY: dict[str, Any] = {
    "directory": _MOUNT, "bs": "4k", "size": "16m", "numjobs": CPUS,
    "direct": 1, "ioengine": "libaio", "iodepth": 32,
    "cpus_allowed": f"0-{CPUS - 1}", "cpus_allowed_policy": "split",
    "verify": "crc32c", "verify_fatal": 0, "continue_on_error": "verify"}

# The test writes a pattern to 4 MiB for each command, which clears the 2 MiB in the
# middle.
_CLEARING = {
    "discard": "blkdiscard -o {at}M -l 2M {dev}",
    "write zeroes": "blkdiscard -z -o {at}M -l 2M {dev}",
    "write zeroes, may unmap": "fallocate --punch-hole -o {at}M -l 2M {dev}",
}
_CLEARING_AT = 768
_PATTERN = b"\xa5"


@contextlib.contextmanager
def phase(found: Run, text: str) -> Iterator[None]:
    """Print the name of a part of the run, and record how long it took."""
    started = time.monotonic()
    with step(text):
        yield
    found.phases.append(Phase(text, round(time.monotonic() - started, 1)))


def prepare(found: Run) -> tuple[kernels.Kernel, Path]:
    """Install and build all that the run needs; return the kernel and our module."""
    for name in ("report.json", "report.html", "ratios.png"):
        (_OUT / name).unlink(missing_ok=True)
    cache.require_space(_OUT, _NEEDED_MIB,
                        "move the repository to a larger disk")
    deps.need("build", "vm", "plot")
    kernel = kernels.find(KERNEL)
    module = kernels.build_modules(kernel)
    accelerator = qemu.accelerator()
    version = qemu_dist.version(qemu_dist.find())
    found.versions = Versions(
        kernel=kernel.release, qemu=".".join(map(str, version)),
        accelerator=accelerator, driver=repository.commit(),
        module_sha256=hashlib.sha256(module.read_bytes()).hexdigest())
    return kernel, module


# The queues

def record_queues(guest: Guest, found: Run) -> tuple[Disks, queues.DiskQueues]:
    """Record each disk's queues, then the null disk's with num_request_queues=1."""
    found.one_thread = guest.hung
    found.fio = guest.run("fio --version").output.strip()
    disks = Disks(null=queues.read(guest, guest.dev("null")),
                  files=queues.read(guest, guest.dev("files")))
    found.disks = disks
    guest.unload()
    guest.load("num_request_queues=1")
    one_queue = queues.read(guest, guest.dev("null"))
    found.one_queue = one_queue
    guest.unload()
    guest.load()
    found.queues = len(disks.null.queues)
    found.affinities_equal = disks.null.affinities_equal
    return disks, one_queue


# The data

def write_and_verify(guest: Guest, found: Run) -> measure.Outcome:
    """Write files to a file system, verify them, unmount and check it."""
    dev = f"/dev/{guest.dev('files')}"
    guest.run(f"mkfs.ext4 -q {dev} {_FS_MIB}M && mkdir -p {_MOUNT} && "
              f"busybox mount {dev} {_MOUNT}")
    written = found.write = verified(guest, "randwrite")
    fsck = guest.run(f"busybox umount {_MOUNT} && e2fsck -fn {dev}", check=False)
    found.fsck = Ended(fsck.status, fsck.output.strip())
    return written


def verified(guest: Guest, rw: str) -> measure.Outcome:
    """Run fio with verification; print its messages about errors, return its result."""
    done = measure.fio(guest, rw=rw, **_VERIFY)
    if done.said is not None:
        say(done.said)
    return done


def verify_again(guest: Guest, found: Run, written: measure.Outcome) -> None:
    """Verify the files again, after a reboot of the guest that wrote them."""
    dev = f"/dev/{guest.dev('files')}"
    guest.run(f"mkdir -p {_MOUNT} && busybox mount -o ro {dev} {_MOUNT}")
    reread = found.reread = verified(guest, "read")
    guest.run(f"busybox umount {_MOUNT}")
    found.verify_errors = written.errors + reread.errors


def clear(guest: Guest, found: Run) -> None:
    """Discard and write zeroes, and record what then reads back."""
    dev = f"/dev/{guest.dev('files')}"
    total = 4 * len(_CLEARING)
    guest.run(f"busybox tr '\\0' '\\{_PATTERN[0]:o}' </dev/zero | "
              f"dd of={dev} bs=1M seek={_CLEARING_AT} count={total} "
              "iflag=fullblock oflag=direct")
    for number, command in enumerate(_CLEARING.values()):
        at = _CLEARING_AT + 4 * number + 1
        guest.run(command.format(at=at, dev=dev))
    listing = guest.run(
        f"sync {dev}; for at in $(seq {_CLEARING_AT} {_CLEARING_AT + total - 1}); "
        f"do dd if={dev} bs=1M skip=$at count=1 iflag=direct status=none | "
        "sha256sum; done")
    seen = [_CONTENTS.get(line.split()[0], "something else")
            for line in listing.output.splitlines()]
    found.clearing = {
        name: Content(inside=_same(seen[4 * number + 1:4 * number + 3]),
                      around=_same([seen[4 * number], seen[4 * number + 3]]))
        for number, name in enumerate(_CLEARING)}


_CONTENTS = {hashlib.sha256(byte * _MIB).hexdigest(): name
             for byte, name in ((b"\0", "zeroes"), (_PATTERN, "the pattern"))}


def _same(names: Iterable[str]) -> str:
    return " and ".join(sorted(set(names)))


def check_image(path: Path, found: Run) -> None:
    """Record where the qcow2 file holds data, and the result of qemu-img check."""
    tool = qemu_dist.find("qemu-img")
    check = subprocess.run([*tool, "check", path], text=True,
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    found.image_check = Ended(check.returncode, check.stdout.strip())
    listing = subprocess.run([*tool, "map", "--output=json", path], text=True,
                             stdout=subprocess.PIPE, check=True)
    extents = json.loads(listing.stdout)
    found.image = {name: _kept(extents, _CLEARING_AT + 4 * number)
                   for number, name in enumerate(_CLEARING)}


# The extents of an image, as qemu-img prints them.
_Extents = Sequence[dict[str, Any]]


def _kept(extents: _Extents, mib: int) -> Content:
    """Return where the image holds data in the 4 MiB of a command."""
    return Content(inside=_same(_allocation(extents, mib + 1, 2)),
                   around=_same(_allocation(extents, mib, 1)
                                + _allocation(extents, mib + 3, 1)))


def _allocation(extents: _Extents, mib: int, length: int) -> list[str]:
    """Return "data" or "no data" for each extent that overlaps a range in MiB."""
    start, end = mib * _MIB, (mib + length) * _MIB
    return ["data" if extent["data"] else "no data" for extent in extents
            if extent["start"] < end and start < extent["start"] + extent["length"]]


# The comparison

# The figures of a round, by job and number of queues, then by driver.
_Round = dict[tuple[str, int], dict[str, measure.Sample]]


def origin(guest: Guest, module: str) -> str:
    """Return where a loaded module is from, as its taint says."""
    return "out of tree" if "O" in guest.sysfs(f"/sys/module/{module}/taint") \
        else "in tree"


def load(guest: Guest, driver: str, count: int) -> str:
    """Load a driver with a number of queues; return the null disk's name."""
    guest.unload()
    loader = guest.load if driver == "ours" else guest.load_stock
    loader(f"num_request_queues={count}")
    name = guest.dev("null")
    guest.run(f"echo none > /sys/block/{name}/queue/scheduler")
    return name


def one_round(guest: Guest, disk: queues.DiskQueues, order: Sequence[str],
              kicks: measure.KickCounter | None = None) -> _Round:
    """Run each job on each driver; return figures by (job, queues), then by driver.

    For each number of queues the two drivers run one after the other.
    """
    found: _Round = {(job, count): {} for count in (1, QUEUES) for job in measure.JOBS}
    for count in (1, QUEUES):
        for driver in order:
            name = load(guest, driver, count)
            for job in measure.JOBS:
                found[job, count][driver] = measure.workload(
                    guest, disk.virtio, name, job, SECONDS, CPUS, kicks)
    return found


def compare(guest: Guest, found: Run, disk: queues.DiskQueues) -> list[Row]:
    """Measure our driver and the in-tree driver in turns; disk: the null disk's."""
    drivers = found.drivers = Drivers()
    load(guest, "stock", QUEUES)
    drivers.stock = origin(guest, "virtio_blk")
    load(guest, "ours", QUEUES)
    drivers.ours = origin(guest, "virtio_blk")
    with phase(found, "counting kicks of our driver and the in-tree driver"), \
            measure.KickCounter(guest) as kicks:
        counted = one_round(guest, disk, ("ours", "stock"), kicks)
    rounds = []
    for number in range(ROUNDS):
        with phase(found, f"measuring, round {number + 1} of {ROUNDS}"):
            order = ("stock", "ours") if number % 2 else ("ours", "stock")
            rounds.append(one_round(guest, disk, order))
    rows = [Row(job, count, measure.compare([round_[job, count] for round_ in rounds],
                                            counted[job, count]))
            for job in measure.JOBS for count in (1, QUEUES)]
    found.comparison = rows
    found.interrupts = measure.where_interrupts_went(
        disk, [round_[job, QUEUES]["ours"].interrupts
               for round_ in [counted, *rounds] for job in measure.JOBS])
    return rows


# The whole run

def in_guest(guest: Guest, found: Run) -> None:
    """Run all parts that use the guest; print each table when it is ready."""
    with phase(found, "checking queues, vectors and affinities"):
        disks, one_queue = record_queues(guest, found)
    print(report.queue_tables(disks, one_queue), flush=True)
    with phase(found, "writing files and verifying them (crc32c), fsck"):
        written = write_and_verify(guest, found)
    with phase(found, "discarding and writing zeroes"):
        clear(guest, found)
    with phase(found, "restarting the guest"):
        guest.reboot()
    with phase(found, "verifying the files again"):
        verify_again(guest, found, written)
    rows = compare(guest, found, disks.null)
    print(report.comparison_table(rows, qemu.accelerator()), flush=True)


@contextlib.contextmanager
def full_disk_reported(guest: Guest) -> Iterator[None]:
    """Replace a timeout by another error if QEMU stopped the guest on a full disk."""
    try:
        yield
    except CommandTimeout:
        if guest.qmp("query-status")["status"] == "io-error":
            raise GuestError("QEMU could not write the guest's qcow2 disk and "
                             f"stopped the guest; check whether the disk of {_OUT} "
                             "is full") from None
        raise


def run_all(found: Run) -> None:
    """Do the whole run and record the results in found."""
    kernel, module = prepare(found)
    with tempfile.TemporaryDirectory(prefix="disk-", dir=_OUT) as directory:
        image = Path(directory, "files.qcow2")
        guest = Guest(kernel, cpus=CPUS, driver=module, disks=[
            Disk("null", queues=QUEUES, read_zeroes=True),
            Disk("files", "qcow2", GIB, path=image, queues=QUEUES)])
        with contextlib.ExitStack() as stack:
            with phase(found, f"booting a guest with {CPUS} CPUs and two disks"):
                stack.enter_context(guest)
            with full_disk_reported(guest):
                in_guest(guest, found)
        found.kernel_log = "no complaint"
        check_image(image, found)


def attempt(work: Callable[[], None]) -> tuple[str | None, int]:
    """Call work(); return the error that ended it, or None, and the exit status.

    The status is 0; 1 for an error of the guest; 2 for one that the user can correct.
    """
    try:
        work()
    except (UserError, GuestError, OSError) as error:
        return ("\n".join([str(error), *getattr(error, "__notes__", ())]),
                2 if isinstance(error, UserError) else 1)
    return None, 0


def main() -> int:
    """Run, report, and return the exit status."""
    if sys.argv[1:]:
        raise UserError("usage: python3 -m run.run (it takes no arguments; "
                        "`make help` lists the variables)")
    if (os.environ.get("KERNEL") or KERNEL) != KERNEL:
        raise UserError(f"make run boots kernel {KERNEL} only, and KERNEL is "
                        f"{os.environ['KERNEL']}; use make shell or make check for "
                        "other kernels")
    repository.check_own_name()
    repository.writable(_OUT)
    found = Run()
    started = time.monotonic()
    say("make run: verified I/O through our driver in a guest")
    found.error, status = attempt(lambda: run_all(found))
    found.seconds = round(time.monotonic() - started, 1)
    judged = verdict.judge(found)
    write_report(found, judged)
    print(report.verdict_text(judged), end="")
    return status or int(judged.word != "PASS")


def write_report(found: Run, judged: verdict.Verdict) -> None:
    """Write the report's files to build/run; print an error if that fails."""
    facts = {**found.as_dict(), **judged.as_dict()}
    files = {"report.json": lambda: (json.dumps(facts, indent=1) + "\n").encode(),
             "report.html": lambda: report.html_page(found, judged).encode()}
    if found.comparison is not None and found.versions is not None:
        files["ratios.png"] = functools.partial(report.plot, found.comparison,
                                                found.versions)
    try:
        for name, make in files.items():
            (_OUT / name).write_bytes(make())
            say(f"  wrote {(_OUT / name).relative_to(_TOP)}")
    except OSError as error:
        say(f"error: the report is incomplete: {error}")


if __name__ == "__main__":
    ui.main(main)
