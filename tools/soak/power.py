# SPDX-License-Identifier: GPL-2.0
"""Power cuts: what was acknowledged is there afterwards.

Writers (writer.c), four to a disk, write records to a raw disk, to files of an ext4
and to files of an xfs: past the page cache and through it, with fdatasync, fsync and
synchronous writes.  The power is cut in two ways:

- QEMU is killed by SIGKILL, the guest boots again and looks for all records that
  the writers had told the host are safe, or had noted so on the disk.  What has
  reached QEMU by then survives; what the driver, or QEMU, had not yet passed on does
  not.  Each time that is a cut, of three disks at once.
- All that comes to a disk is logged, and then each prefix of the log is what the
  disk has seen when its power fails.  With it goes any part of what was written after
  the last flush.  On the raw disk each prefix, with each part of the sectors that may
  be lost, is looked at ("prefixes", see prefixes.py).  Of those of a file system
  some ("replays") are written to another disk, with a part that is chosen at random,
  or nothing, missing; the guest mounts it, looks for the records, and checks it.
  Most are prefixes that end where a flush comes next, or after a mark, which is
  where the most may be lost, or has just been promised.

A file system is clean if it can be mounted, and after that e2fsck or xfs_repair
finds nothing to repair.
"""

import contextlib
import dataclasses
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

from backend import Backend, WriteLog
from vm import image, process
from vm.disk import Disk
from vm.errors import GuestError
from vm.guest import Guest
from vm.ui import UserError, say

from .prefixes import AREA_SECTORS, BATCH, MARK_DISTANCE, Image, Witness, mark_of
from .scenario import Scenario

_MIB = 1 << 20
SECTOR = 512
WRITERS = range(4)
# The first partition is for marks, the second one for data.
MARKS_START, DATA_START = 1 * _MIB, 2 * _MIB
# mkfs.xfs makes none that is smaller.
SIZES = {"raw": 64 * _MIB, "ext4": 128 * _MIB, "xfs": 320 * _MIB}
FILE_SYSTEMS = ("ext4", "xfs")
_MAKE = {"ext4": "mkfs.ext4 -q -F -b 4096", "xfs": "mkfs.xfs -q -f"}
_CHECK = {"ext4": "e2fsck -fn", "xfs": "xfs_repair -n"}
_LOAD_SECONDS = 4
_FIRST_ACK_SECONDS = 30
# Of a log, in one go.
_REPLAYS = 4

LOST = "acknowledged bytes lost"
DIRTY = "dirty file systems"


def writer(arch):
    """Return the path of the program that writes and checks records."""
    return image.program(Path(__file__).with_name("writer.c"), arch)


def disk(kind, directory, **options):
    """Return a disk for the writers, in a file that a killed guest leaves."""
    return Disk(kind, "raw", DATA_START + SIZES[kind], path=directory / kind,
                queues=4, **options)


@contextlib.contextmanager
def work_directory():
    """A directory that outlives the guest, for as long as the block runs."""
    directory = process.work_directory()
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


class Target:
    """One of a guest's disks, with writers at work on it.

    kind: the disk's id, too: "raw" or a file system.
    """

    def __init__(self, guest, kind):
        self._guest = guest
        self.kind = kind
        self._job = None
        self.seed = None

    def _device(self, partition):
        return f"/dev/{self._guest.dev(self.kind)}{partition}"

    @property
    def _directory(self):
        return f"/mnt/{self.kind}"

    def make(self):
        """Make partitions, and the file system."""
        whole, data = self._device(""), self._device(2)
        self._guest.run(
            f"sfdisk -q {whole} << end\nlabel: dos\n"
            f"start={MARKS_START // SECTOR}, "
            f"size={(DATA_START - MARKS_START) // SECTOR}\n"
            f"start={DATA_START // SECTOR}\nend\n")
        if self.kind in FILE_SYSTEMS:
            if not self._guest.has_file_system(self.kind):
                raise UserError(f"KERNEL is {self._guest.kernel.name}, which has "
                                f"no {self.kind}; one that has is "
                                f"{SCENARIO.kernel}")
            self._guest.run(f"{_MAKE[self.kind]} {data}; sync")

    def mount(self):
        """Mount the file system, if it is one."""
        if self.kind in FILE_SYSTEMS:
            self._guest.run(f"mkdir -p {self._directory}; mount -t {self.kind} "
                            f"{self._device(2)} {self._directory}")

    def place(self, number):
        """Return a writer's TARGET and OFFSET."""
        if self.kind == "raw":
            return f"{self._device(2)} {number * AREA_SECTORS * SECTOR}"
        return f"{self._directory}/{self.seed}.{number} 0"

    def start(self, seed, seconds):
        """Set the writers to work; they end by themselves after some seconds."""
        self.seed = seed
        marks = self._device(1)
        script = "".join(f"timeout {seconds} /run/writer write "
                         f"{self.place(number)} {marks} {seed} {number} & "
                         "all=\"$all $!\"\n" for number in WRITERS)
        self._job = self._guest.start(
            f"{script}for one in $all; do "
            "wait $one; status=$?; [ $status = 124 ] || exit $status; done",
            seconds + 60)

    def wait(self):
        """Wait for the writers to end; raises CommandFailed if one had an error."""
        self._job.wait()

    def told(self):
        """Return of each writer the last record that it said to be safe."""
        # A line that has not come to its end may lack digits.
        said = re.findall(r"^(\d+) (\d+)\n", self._job.output, re.MULTILINE)
        return dict.fromkeys(WRITERS, 0) | {
            int(number): int(record) for number, record in said}

    def complaints(self):
        """Return what writers have said of errors."""
        return re.sub(r"^\d+ \d+\n", "", self._job.output, flags=re.MULTILINE)

    def noted(self):
        """Return of each writer the last record that its mark on disk names."""
        backend = Backend(self._guest, self.kind)
        return {number: mark_of(backend.read(MARKS_START + number * MARK_DISTANCE,
                                             SECTOR), self.seed, number)
                for number in WRITERS}

    def clear(self):
        """Remove the writers' files, so that the file system does not fill up."""
        if self.kind in FILE_SYSTEMS:
            self._guest.run(f"rm -f {self._directory}/{self.seed}.*")


def _check_records(guest, seed, acked, place):
    """Look for records in a guest; return bytes looked at, and lost.

    acked: the last safe record of each writer; place(number): TARGET and OFFSET.
    """
    said = guest.run("".join(
        f"/run/writer check {place(number)} {seed} {number} {record} || exit\n"
        for number, record in acked.items())).output
    checked = lost = 0
    for line in said.splitlines():
        if line.startswith("checked "):
            _, sectors, _, bad = line.split()
            checked += int(sectors) * SECTOR
            lost += int(bad) * SECTOR
    if lost:
        say(said)
    return checked, lost


def check_file_system(guest, kind, device):
    """Return 0 if a file system, not mounted, is clean and 1 if not."""
    result = guest.run(f"{_CHECK[kind]} {device}", check=False)
    if result.status:
        say(result.output)
    return int(result.status != 0)


# QEMU is killed

def _await_first_acks(targets, guest):
    """Wait until each writer has said that some record is safe."""
    if not process.wait_for(lambda: guest.run("true") and all(
            all(target.told().values()) for target in targets),
            _FIRST_ACK_SECONDS):
        raise GuestError(
            f"a writer had no record safe in {_FIRST_ACK_SECONDS} s: "
            + "; ".join(f"{target.kind}: {target.told()} {target.complaints()}"
                        for target in targets))


def _cut(round, guest, targets):
    """Have the writers write, kill QEMU, and look for what they wrote."""
    for target in targets:
        target.mount()
        target.start(round.random.getrandbits(31), 120)
    _await_first_acks(targets, guest)
    guest.run(f"sleep {round.random.uniform(0.1, _LOAD_SECONDS):.2f}")
    told = {target.kind: target.told() for target in targets}
    guest.close(quit=False)
    guest.boot()
    guest.put(writer(guest.arch), "/run/writer")
    for target in targets:
        noted = target.noted()
        acked = {number: max(record, noted[number])
                 for number, record in told[target.kind].items()}
        round.add(DIRTY, _look_after_cut(round, guest, target, acked))
    round.add("cuts")


def _look_after_cut(round, guest, target, acked):
    """Look for records, and return whether the file system is dirty."""
    target.mount()
    checked, lost = _check_records(guest, target.seed, acked, target.place)
    round.add("acknowledged bytes", checked)
    round.add(LOST, lost)
    target.clear()
    if target.kind == "raw":
        return 0
    guest.run(f"umount /mnt/{target.kind}")
    return check_file_system(guest, target.kind, target._device(2))


def cut_power(round):
    """Kill QEMU as often as a round is to."""
    with work_directory() as directory, \
            Guest(round.kernel, driver=round.driver,
                  disks=[disk(kind, directory) for kind in SIZES]) as guest:
        guest.put(writer(guest.arch), "/run/writer")
        targets = [Target(guest, kind) for kind in SIZES]
        for target in targets:
            target.make()
        while round.wants("cuts"):
            _cut(round, guest, targets)


# The log

class Recording:
    """A log of what came to a disk, with writers at work.

    start: the number of its entries before they began.
    told: of each writer the last record that it said to be safe.
    """

    def __init__(self, entries, start, seed, told):
        self.entries = entries
        self.start = start
        self.seed = seed
        self.told = told

    def marks(self):
        """Return (index of the entry, writer, record) of all marks."""
        found = []
        for index, entry in enumerate(self.entries):
            number, rest = divmod(entry.offset - MARKS_START, MARK_DISTANCE)
            if not rest and number in WRITERS and entry.data:
                record = mark_of(entry.data, self.seed, number)
                if record:
                    found.append((index, number, record))
        # What was told last may have gone without a mark, as writers end there.
        last = {number: record for _, number, record in found}
        for number, record in self.told.items():
            if not 0 < record <= last.get(number, 0) + BATCH:
                raise GuestError(f"writer {number} said that record {record} is "
                                 f"safe, and its last mark {last.get(number)}")
        return found

    def data(self, index):
        """Return an entry as the second partition sees it, None if not there."""
        entry = self.entries[index]
        if "flush" in entry.flags:
            return entry
        if entry.offset < DATA_START:
            return None
        return dataclasses.replace(entry, offset=entry.offset - DATA_START)


def record(guest, logs, seeds, prepare="true"):
    """Have writers write to all logged disks; return a Recording for each.

    prepare: a shell script, run once the file systems are mounted.
    """
    targets = {kind: Target(guest, kind) for kind in logs}
    for kind, target in targets.items():
        target.make()
        target.mount()
    guest.run(f"sync; {prepare}")
    starts = {kind: len(log.entries()) for kind, log in logs.items()}
    for kind, target in targets.items():
        target.start(seeds[kind], _LOAD_SECONDS)
    for target in targets.values():
        target.wait()
    for kind in logs:
        if kind in FILE_SYSTEMS:
            guest.run(f"umount /mnt/{kind}")
    return {kind: Recording(log.requests(), starts[kind], seeds[kind],
                            targets[kind].told()) for kind, log in logs.items()}


def plan(arch, seed, number, count):
    """Return where a writer's records go: first sector and count of each."""
    said = subprocess.run([writer(arch), "plan", str(seed), str(number),
                           str(count)], check=True, stdout=subprocess.PIPE,
                          text=True).stdout
    return [tuple(map(int, line.split())) for line in said.splitlines()]


def check_raw(recording, arch):
    """Look at all prefixes of a raw disk's log; return a Counter."""
    marks = {index: (number, record)
             for index, number, record in recording.marks()}
    witnesses = [Witness(recording.seed, number, plan(
        arch, recording.seed, number, recording.told[number] + 3 * BATCH))
        for number in WRITERS]
    for index in range(len(recording.entries)):
        _show(witnesses, recording.data(index))
        if index in marks:
            number, last = marks[index]
            witnesses[number].acknowledge(last)
    lost = sum(len(witness.lost) for witness in witnesses)
    return Counter({"prefixes": len(recording.entries) - recording.start,
                    LOST: lost * SECTOR})


def _show(witnesses, entry):
    """Show an entry of the log, if it is one of theirs, to the witnesses."""
    if entry is None:
        return
    start, end = entry.offset, entry.offset + len(entry.data)
    for number, witness in enumerate(witnesses):
        first = number * AREA_SECTORS * SECTOR
        low, high = max(start, first), min(end, first + AREA_SECTORS * SECTOR)
        if low < high:
            witness.write((low - first) // SECTOR,
                          entry.data[low - start:high - start])
        if entry.flags & {"flush", "fua"}:
            witness.flush()


def _points(recording, count, random):
    """Choose prefixes of a log: after each of these entries the power fails."""
    last = len(recording.entries) - 1
    marks = [index for index, _, _ in recording.marks()]
    before_flush = [index - 1 for index in range(recording.start, last + 1)
                    if "flush" in recording.entries[index].flags]
    kinds = [marks, range(recording.start, last + 1)]
    if before_flush:
        kinds.append(before_flush)
    chosen = set()
    while len(chosen) < min(count, last - recording.start):
        chosen.add(random.choice(random.choice(kinds)))
    return sorted(chosen)


def check_replays(guest, kind, recording, count, random):
    """Look at some prefixes of a file system's log; return a Counter.

    The guest has a disk "replay", in memory, of at least that size.
    """
    picture = Image(SIZES[kind])
    marks = {index: (number, last) for index, number, last in recording.marks()}
    acked = dict.fromkeys(WRITERS, 0)
    counts = Counter()
    points = _points(recording, count, random)
    for index in range(points[-1] + 1):
        entry = recording.data(index)
        if entry is not None:
            picture.add(entry)
        if index in marks:
            number, last = marks[index]
            acked[number] = last
        if index in points:
            # All that was written is there, half of it, or none.
            share = random.choice([0, 0.5, 1])
            picture.store(Backend(guest, "replay").path,
                          lambda: random.random() < share)
            counts += _replay(guest, kind, recording.seed, acked)
    return counts


def _replay(guest, kind, seed, acked):
    """Look for records, and for damage, on the disk "replay"."""
    device = f"/dev/{guest.dev('replay')}"
    mounted = guest.run(f"mkdir -p /mnt/replay; blockdev --flushbufs {device}; "
                        f"mount -t {kind} {device} /mnt/replay", check=False)
    if mounted.status:
        say(mounted.output)
        return Counter({"replays": 1, DIRTY: 1})
    checked, lost = _check_records(
        guest, seed, acked, lambda number: f"/mnt/replay/{seed}.{number} 0")
    guest.run("umount /mnt/replay")
    return Counter({"replays": 1, "acknowledged bytes": checked, LOST: lost,
                    DIRTY: check_file_system(guest, kind, device)})


@contextlib.contextmanager
def logging_guest(kernel, driver, kinds):
    """A guest with logged disks and one for replays; yields it and the logs."""
    with work_directory() as directory:
        logs = {kind: WriteLog(directory / f"{kind}.log") for kind in kinds}
        disks = [disk(kind, directory, filters=[log.node])
                 for kind, log in logs.items()]
        with Guest(kernel, driver=driver, memory=1024, disks=[
                *disks, Disk("replay", "ram", max(SIZES.values()))]) as guest:
            guest.put(writer(guest.arch), "/run/writer")
            yield guest, logs


def replay_logs(round):
    """Record what comes to disks, and cut it off anywhere."""
    with logging_guest(round.kernel, round.driver, SIZES) as (guest, logs):
        seeds = {kind: round.random.getrandbits(31) for kind in logs}
        recordings = record(guest, logs, seeds)
        round.counts += check_raw(recordings["raw"], guest.arch)
        while round.wants("replays"):
            for kind in FILE_SYSTEMS:
                round.counts += check_replays(guest, kind, recordings[kind],
                                              _REPLAYS, round.random)


def _run(round):
    while round.wants("replays") or round.wants("prefixes"):
        replay_logs(round)
    cut_power(round)


SCENARIO = Scenario(
    "powercut",
    "QEMU is killed by SIGKILL, or a log of all writes and flushes cut off, while "
    "records are written to a raw disk, ext4 and xfs",
    _run, goals={"cuts": 200, "replays": 400, "prefixes": 5000},
    each={"cuts": 20, "replays": 40, "prefixes": 500},
    zero=(LOST, DIRTY), kernel="6.12", drivers=("ours", "stock"))
