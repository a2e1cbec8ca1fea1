# SPDX-License-Identifier: GPL-2.0
"""`make run`: verified I/O through our driver in a guest, and a report of it.

usage: python3 -m vm.run

It writes report.json, report.html and ratios.png to build/run, see vm.report.
The exit status is 0 for PASS, 1 for FAIL, 2 if a UserError prevents the run.
"""

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from . import (cache, host, kernels, measure, qemu, qemu_dist, queues, report,
               repository, ui, verdict)
from .disk import GIB, Disk
from .errors import CommandTimeout, GuestError
from .guest import Guest
from .ui import UserError, say, step

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
_VERIFY = {"directory": _MOUNT, "bs": "4k", "size": "16m", "numjobs": CPUS,
           "direct": 1, "ioengine": "libaio", "iodepth": 32,
           "cpus_allowed": f"0-{CPUS - 1}", "cpus_allowed_policy": "split",
           "verify": "crc32c", "verify_fatal": 0,
           "continue_on_error": "verify"}

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
def phase(facts, text):
    """Print the name of a part of the run, and record how long it took."""
    started = time.monotonic()
    with step(text):
        yield
    facts["phases"].append({"name": text,
                            "seconds": round(time.monotonic() - started, 1)})


def prepare(facts):
    """Install and build all that the run needs; return the kernel and our module."""
    for name in ("report.json", "report.html", "ratios.png"):
        (_OUT / name).unlink(missing_ok=True)
    cache.require_space(_OUT, _NEEDED_MIB,
                        "move the repository to a larger disk")
    host.need("build", "vm", "plot")
    kernel = kernels.find(KERNEL)
    module = kernels.build_modules(kernel)
    accelerator = qemu.accelerator()
    version = qemu_dist.version(qemu_dist.find())
    facts["versions"] = {
        "kernel": kernel.release, "qemu": ".".join(map(str, version)),
        "accelerator": accelerator, "driver": commit(),
        "module_sha256": hashlib.sha256(module.read_bytes()).hexdigest()}
    facts["wall_clock"] = report.WALL_CLOCK[accelerator]
    return kernel, module


def commit():
    """Return the commit that the driver is built from; None outside git."""
    said = subprocess.run(["git", "-C", _TOP, "describe", "--always", "--dirty"],
                          text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL)
    return said.stdout.strip() or None


# The queues

def record_queues(guest, facts):
    """Record each disk's queues, then the null disk's with num_request_queues=1."""
    facts["one_thread"] = guest.hung
    facts["versions"]["fio"] = guest.run("fio --version").output.strip()
    facts["disks"] = {id: queues.read(guest, guest.dev(id))
                      for id in ("null", "files")}
    guest.unload()
    guest.load("num_request_queues=1")
    facts["one_queue"] = queues.read(guest, guest.dev("null"))
    guest.unload()
    guest.load()
    facts["queues"] = len(facts["disks"]["null"]["queues"])
    facts["affinities_equal"] = facts["disks"]["null"]["affinities_equal"]


# The data

def write_and_verify(guest, facts):
    """Write files to a file system, verify them, unmount and check it."""
    dev = f"/dev/{guest.dev('files')}"
    guest.run(f"mkfs.ext4 -q {dev} {_FS_MIB}M && mkdir -p {_MOUNT} && "
              f"busybox mount {dev} {_MOUNT}")
    facts["write"] = verified(guest, "randwrite")
    fsck = guest.run(f"busybox umount {_MOUNT} && e2fsck -fn {dev}", check=False)
    facts["fsck"] = {"status": fsck.status, "said": fsck.output.strip()}


def verified(guest, rw):
    """Run fio with verification; print its messages about errors, return its result."""
    found = measure.fio(guest, rw=rw, **_VERIFY)
    if found["errors"]:
        say(found["said"])
    return found


def verify_again(guest, facts):
    """Verify the files again, after a reboot of the guest that wrote them."""
    dev = f"/dev/{guest.dev('files')}"
    guest.run(f"mkdir -p {_MOUNT} && busybox mount -o ro {dev} {_MOUNT}")
    facts["reread"] = verified(guest, "read")
    guest.run(f"busybox umount {_MOUNT}")
    facts["verify_errors"] = (facts["write"]["errors"]
                              + facts["reread"]["errors"])


def clear(guest, facts):
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
    facts["clearing"] = {
        name: {"inside": _same(seen[4 * number + 1:4 * number + 3]),
               "around": _same([seen[4 * number], seen[4 * number + 3]])}
        for number, name in enumerate(_CLEARING)}


_CONTENTS = {hashlib.sha256(byte * _MIB).hexdigest(): name
             for byte, name in ((b"\0", "zeroes"), (_PATTERN, "the pattern"))}


def _same(names):
    return " and ".join(sorted(set(names)))


def check_image(path, facts):
    """Record where the qcow2 file holds data, and the result of qemu-img check."""
    tool = qemu_dist.find("qemu-img")
    check = subprocess.run([*tool, "check", path], text=True,
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    facts["image_check"] = {"status": check.returncode,
                            "said": check.stdout.strip()}
    listing = subprocess.run([*tool, "map", "--output=json", path], text=True,
                             stdout=subprocess.PIPE, check=True)
    extents = json.loads(listing.stdout)
    for number, found in enumerate(facts["clearing"].values()):
        start = _CLEARING_AT + 4 * number
        found["image_inside"] = _same(_allocation(extents, start + 1, 2))
        found["image_around"] = _same(_allocation(extents, start, 1)
                                      + _allocation(extents, start + 3, 1))


def _allocation(extents, mib, length):
    """Return "data" or "no data" for each extent that overlaps a range in MiB."""
    start, end = mib * _MIB, (mib + length) * _MIB
    return ["data" if extent["data"] else "no data" for extent in extents
            if extent["start"] < end and start < extent["start"] + extent["length"]]


# The comparison

def load(guest, driver, count):
    """Load a driver with a number of queues; return the null disk's name."""
    guest.unload()
    loader = guest.load if driver == "ours" else guest.load_stock
    loader(f"num_request_queues={count}")
    name = guest.dev("null")
    guest.run(f"echo none > /sys/block/{name}/queue/scheduler")
    return name


def one_round(guest, disk, order, kicks=None):
    """Run each job on each driver; return figures by (job, queues), then by driver.

    For each number of queues the two drivers run one after the other.
    """
    found = {}
    for count in (1, QUEUES):
        for driver in order:
            name = load(guest, driver, count)
            for job in measure.JOBS:
                found.setdefault((job, count), {})[driver] = measure.workload(
                    guest, disk["virtio"], name, job, SECONDS, CPUS, kicks)
    return found


def compare(guest, facts):
    """Measure our driver and the in-tree driver in turns."""
    disk = facts["disks"]["null"]
    facts["drivers"] = {}
    for driver in ("stock", "ours"):
        load(guest, driver, QUEUES)
        taint = guest.sysfs("/sys/module/virtio_blk/taint")
        facts["drivers"][driver] = "out of tree" if "O" in taint else "in tree"
    with phase(facts, "counting kicks of our driver and the in-tree driver"), \
            measure.KickCounter(guest) as kicks:
        counted = one_round(guest, disk, ("ours", "stock"), kicks)
    rounds = []
    for number in range(ROUNDS):
        with phase(facts, f"measuring, round {number + 1} of {ROUNDS}"):
            order = ("stock", "ours") if number % 2 else ("ours", "stock")
            rounds.append(one_round(guest, disk, order))
    facts["comparison"] = [
        {"job": job, "queues": count,
         **measure.compare([round_[job, count] for round_ in rounds],
                           counted[job, count])}
        for job in measure.JOBS for count in (1, QUEUES)]
    facts["interrupts"] = measure.where_interrupts_went(
        disk, [round_[job, QUEUES]["ours"]["interrupts"]
               for round_ in [counted, *rounds] for job in measure.JOBS])


# The whole run

def in_guest(guest, facts):
    """Run all parts that use the guest; print each table when it is ready."""
    with phase(facts, "checking queues, vectors and affinities"):
        record_queues(guest, facts)
    print(report.queue_tables(facts), flush=True)
    with phase(facts, "writing files and verifying them (crc32c), fsck"):
        write_and_verify(guest, facts)
    with phase(facts, "discarding and writing zeroes"):
        clear(guest, facts)
    with phase(facts, "restarting the guest"):
        guest.reboot()
    with phase(facts, "verifying the files again"):
        verify_again(guest, facts)
    compare(guest, facts)
    print(report.comparison_table(facts), flush=True)


@contextlib.contextmanager
def full_disk_reported(guest):
    """Replace a timeout by another error if QEMU stopped the guest on a full disk."""
    try:
        yield
    except CommandTimeout:
        if guest.qmp("query-status")["status"] == "io-error":
            raise GuestError("QEMU could not write the guest's qcow2 disk and "
                             f"stopped the guest; check whether the disk of {_OUT} "
                             "is full") from None
        raise


def run_all(facts):
    """Do the whole run and record the results in facts."""
    kernel, module = prepare(facts)
    with tempfile.TemporaryDirectory(prefix="disk-", dir=_OUT) as directory:
        image = Path(directory, "files.qcow2")
        guest = Guest(kernel, cpus=CPUS, driver=module, disks=[
            Disk("null", queues=QUEUES, read_zeroes=True),
            Disk("files", "qcow2", GIB, path=image, queues=QUEUES)])
        with contextlib.ExitStack() as stack:
            with phase(facts, f"booting a guest with {CPUS} CPUs and two disks"):
                stack.enter_context(guest)
            with full_disk_reported(guest):
                in_guest(guest, facts)
        facts["kernel_log"] = "no complaint"
        check_image(image, facts)


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


def main():
    """Run, report, and return the exit status."""
    if sys.argv[1:]:
        raise UserError("usage: python3 -m vm.run (it takes no arguments; "
                        "`make help` lists the variables)")
    if (os.environ.get("KERNEL") or KERNEL) != KERNEL:
        raise UserError(f"make run boots kernel {KERNEL} only, and KERNEL is "
                        f"{os.environ['KERNEL']}; use make shell or make check for "
                        "other kernels")
    repository.check_own_name()
    repository.writable(_OUT)
    facts = {"format": 1, "phases": []}
    started = time.monotonic()
    say("make run: verified I/O through our driver in a guest")
    error, status = attempt(lambda: run_all(facts))
    if error is not None:
        facts["error"] = error
    facts["seconds"] = round(time.monotonic() - started, 1)
    verdict.judge(facts)
    write_report(facts)
    print(report.verdict_text(facts), end="")
    return status or int(facts["verdict"] != "PASS")


def write_report(facts):
    """Write the report's files to build/run; print an error if that fails."""
    files = {"report.json": lambda: (json.dumps(facts, indent=1) + "\n").encode(),
             "report.html": lambda: report.html_page(facts).encode()}
    if "comparison" in facts:
        files["ratios.png"] = lambda: report.plot(facts)
    try:
        for name, make in files.items():
            (_OUT / name).write_bytes(make())
            say(f"  wrote {(_OUT / name).relative_to(_TOP)}")
    except OSError as error:
        say(f"error: the report is incomplete: {error}")


if __name__ == "__main__":
    ui.main(main)
