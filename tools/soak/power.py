# SPDX-License-Identifier: GPL-2.0
"""Power cuts: acknowledged data must be on the disk afterwards.

Four writers for each disk (writer.c) write records to a raw disk, to files of an ext4
and to files of an xfs: with direct and with buffered I/O, and with fdatasync, fsync and
synchronous writes.  The test cuts the power in two ways:

- It kills QEMU with SIGKILL.  The guest boots again and checks all records that the
  writers acknowledged, on their output or in marks on the disk.  Data that had reached
  QEMU survives; data that the driver or QEMU had not passed on does not.  Each kill is
  a "cut" of three disks at once.
- QEMU logs all writes and flushes of a disk.  Each prefix of the log is what the disk
  has received when its power fails, and any part of the data after the last flush may
  be lost.  On the raw disk the test checks each prefix, with each part of the sectors
  that may be lost ("prefixes", see prefixes.py).  Of a file system it writes some
  prefixes to another disk ("replays"), without a random part of the data that may be
  lost, or with all of it.  The guest mounts that disk, and checks records and file
  system.  Most replays end before a flush, where the most data may be lost, or after a
  mark, where data has just been acknowledged.

A file system is clean if it can be mounted, and e2fsck or xfs_repair then finds
nothing to repair.
"""

import contextlib
import dataclasses
import re
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from common.backend import Backend, Logged, WriteLog
from host import process
from host.ui import UserError, say
from vm import image
from vm.arch import Arch
from vm.disk import Disk
from vm.errors import GuestError
from vm.guest import Guest, Job
from vm.kernels import Kernel

from .prefixes import (AREA_SECTORS, BATCH, MARK_DISTANCE, Extent, Image, Witness,
                       mark_of)
from .scenario import Round, Scenario

_MIB = 1 << 20
SECTOR = 512
WRITERS = range(4)
# The first partition is for marks, the second one for data.
MARKS_START, DATA_START = 1 * _MIB, 2 * _MIB
# mkfs.xfs does not make a smaller file system.
SIZES = {"raw": 64 * _MIB, "ext4": 128 * _MIB, "xfs": 320 * _MIB}
FILE_SYSTEMS = ("ext4", "xfs")
_MAKE = {"ext4": "mkfs.ext4 -q -F -b 4096", "xfs": "mkfs.xfs -q -f"}
_CHECK = {"ext4": "e2fsck -fn", "xfs": "xfs_repair -n"}
_LOAD_SECONDS = 4
_FIRST_ACK_SECONDS = 30
# Replays of one log.
_REPLAYS = 4

LOST = "acknowledged bytes lost"
DIRTY = "dirty file systems"

# The last record that each writer acknowledged, by its number.
Acknowledged = dict[int, int]


class Checked(NamedTuple):
    """The number of bytes that were checked, and of those that were lost."""
    checked: int
    lost: int


class Mark(NamedTuple):
    """A mark in a log: the index of its entry, the writer, and its last record."""
    entry: int
    number: int
    record: int


def writer(arch: Arch) -> Path:
    """Return the path of the program that writes and checks records."""
    return image.program(Path(__file__).with_name("writer.c"), arch)


def disk(kind: str, directory: Path, **options: Any) -> Disk:
    """Return a disk for the writers, in a file that outlives a killed guest."""
    return Disk(kind, "raw", DATA_START + SIZES[kind], path=directory / kind,
                queues=4, **options)


@contextlib.contextmanager
def work_directory() -> Iterator[Path]:
    """A directory that outlives the guest, and exists while the block runs."""
    directory = process.work_directory()
    try:
        yield directory
    finally:
        process.remove_work_directory(directory)


class Target:
    """One of a guest's disks, and its writers.

    kind: "raw" or a file system; also the disk's id.  name: the disk's name in the
    guest, if another one than that of this id.  seed: of start().
    """

    seed: int
    _job: Job

    def __init__(self, guest: Guest, kind: str, name: str | None = None):
        self._guest = guest
        self.kind = kind
        self.name = name

    def _device(self, partition: int | str) -> str:
        return f"/dev/{self.name or self._guest.dev(self.kind)}{partition}"

    @property
    def _directory(self) -> str:
        return f"/mnt/{self.kind}"

    def make(self) -> None:
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
                                f"no {self.kind}; set KERNEL={SCENARIO.kernel}")
            self._guest.run(f"{_MAKE[self.kind]} {data}; sync")

    def mount(self) -> None:
        """Mount the file system, if it is one."""
        if self.kind in FILE_SYSTEMS:
            self._guest.run(f"mkdir -p {self._directory}; mount -t {self.kind} "
                            f"{self._device(2)} {self._directory}")

    def place(self, number: int) -> str:
        """Return a writer's TARGET and OFFSET."""
        if self.kind == "raw":
            return f"{self._device(2)} {number * AREA_SECTORS * SECTOR}"
        return f"{self._directory}/{self.seed}.{number} 0"

    def start(self, seed: int, seconds: int) -> None:
        """Start the writers; they end by themselves after some seconds."""
        self.seed = seed
        marks = self._device(1)
        script = "".join(f"timeout {seconds} /run/writer write "
                         f"{self.place(number)} {marks} {seed} {number} & "
                         "all=\"$all $!\"\n" for number in WRITERS)
        self._job = self._guest.start(
            f"{script}for one in $all; do "
            "wait $one; status=$?; [ $status = 124 ] || exit $status; done",
            seconds + 60)

    def wait(self) -> None:
        """Wait for the writers to end; raise CommandFailed if one had an error."""
        self._job.wait()

    @property
    def running(self) -> bool:
        """Whether one of the writers still runs."""
        return self._job.running

    def stop(self) -> Acknowledged:
        """End the writers; return the last record that each acknowledged."""
        self._guest.run("pkill -x writer; true")
        self._job.wait(check=False)
        return self.told()

    def told(self) -> Acknowledged:
        """Return the last record that each writer acknowledged on its output."""
        # An incomplete line may lack digits.
        found = re.findall(r"^(\d+) (\d+)\n", self._job.output, re.MULTILINE)
        return dict.fromkeys(WRITERS, 0) | {
            int(number): int(record) for number, record in found}

    def complaints(self) -> str:
        """Return the error messages of the writers."""
        return re.sub(r"^\d+ \d+\n", "", self._job.output, flags=re.MULTILINE)

    def noted(self) -> Acknowledged:
        """Return the last record that each writer's mark on the disk names."""
        backend = Backend(self._guest, self.kind)
        return {number: mark_of(backend.read(MARKS_START + number * MARK_DISTANCE,
                                             SECTOR), self.seed, number)
                for number in WRITERS}

    def clear(self) -> None:
        """Remove the writers' files, so that the file system does not fill up."""
        if self.kind in FILE_SYSTEMS:
            self._guest.run(f"rm -f {self._directory}/{self.seed}.*")


def check_records(guest: Guest, seed: int, acked: Acknowledged,
                  place: Callable[[int], str]) -> Checked:
    """Check records in a guest.

    acked: the last acknowledged record of each writer; place(number): its TARGET and
    OFFSET.
    """
    output = guest.run("".join(
        f"/run/writer check {place(number)} {seed} {number} {record} || exit\n"
        for number, record in acked.items())).output
    checked = lost = 0
    for line in output.splitlines():
        if line.startswith("checked "):
            _, sectors, _, bad = line.split()
            checked += int(sectors) * SECTOR
            lost += int(bad) * SECTOR
    if lost:
        say(output)
    return Checked(checked, lost)


def check_file_system(guest: Guest, kind: str, device: str) -> int:
    """Return 0 if an unmounted file system is clean and 1 if not."""
    result = guest.run(f"{_CHECK[kind]} {device}", check=False)
    if result.status:
        say(result.output)
    return int(result.status != 0)


# Kill QEMU

def await_first_acks(targets: Iterable[Target], guest: Guest) -> None:
    """Wait until each writer has acknowledged a record."""
    if not process.wait_for(lambda: guest.run("true") and all(
            all(target.told().values()) for target in targets),
            _FIRST_ACK_SECONDS):
        raise GuestError(
            f"a writer acknowledged no record within {_FIRST_ACK_SECONDS} s: "
            + "; ".join(f"{target.kind}: {target.told()} {target.complaints()}"
                        for target in targets))


def interrupt(round: Round, guest: Guest, targets: Sequence[Target],
              way: Callable[[], object]) -> None:
    """Run the writers, call way(), which boots the guest again, and check the records.

    Damage goes to the counters LOST and DIRTY.
    """
    for target in targets:
        target.mount()
        target.start(round.random.getrandbits(31), 120)
    await_first_acks(targets, guest)
    guest.run(f"sleep {round.random.uniform(0.1, _LOAD_SECONDS):.2f}")
    told = {target.kind: target.told() for target in targets}
    way()
    guest.put(writer(guest.arch), "/run/writer")
    for target in targets:
        noted = target.noted()
        acked = {number: max(record, noted[number])
                 for number, record in told[target.kind].items()}
        round.add(DIRTY, _look_after_cut(round, guest, target, acked))


def _look_after_cut(round: Round, guest: Guest, target: Target,
                    acked: Acknowledged) -> int:
    """Check records, and return whether the file system is dirty."""
    target.mount()
    checked, lost = check_records(guest, target.seed, acked, target.place)
    round.add("acknowledged bytes", checked)
    round.add(LOST, lost)
    target.clear()
    if target.kind == "raw":
        return 0
    guest.run(f"umount /mnt/{target.kind}")
    return check_file_system(guest, target.kind, target._device(2))


def _kill(guest: Guest) -> None:
    guest.close(quit=False)
    guest.boot()


def cut_power(round: Round) -> None:
    """Kill QEMU until the round has its number of cuts."""
    with work_directory() as directory, \
            Guest(round.kernel, driver=round.driver,
                  disks=[disk(kind, directory) for kind in SIZES]) as guest:
        guest.put(writer(guest.arch), "/run/writer")
        targets = [Target(guest, kind) for kind in SIZES]
        for target in targets:
            target.make()
        while round.wants("cuts"):
            interrupt(round, guest, targets, lambda: _kill(guest))
            round.add("cuts")


# The log

class Recording:
    """A log of a disk's writes and flushes while writers ran.

    start: the number of its entries before the writers.
    told: the last record that each writer acknowledged on its output.
    """

    def __init__(self, entries: list[Logged], start: int, seed: int,
                 told: Acknowledged):
        self.entries = entries
        self.start = start
        self.seed = seed
        self.told = told

    def marks(self) -> list[Mark]:
        """Return all marks."""
        found = []
        for index, entry in enumerate(self.entries):
            number, rest = divmod(entry.offset - MARKS_START, MARK_DISTANCE)
            if not rest and number in WRITERS and entry.data:
                record = mark_of(entry.data, self.seed, number)
                if record:
                    found.append(Mark(index, number, record))
        # A writer may end after it printed a record and before it wrote the mark.
        last = {number: record for _, number, record in found}
        for number, record in self.told.items():
            if not 0 < record <= last.get(number, 0) + BATCH:
                raise GuestError(f"writer {number} acknowledged record {record}, but "
                                 f"its last mark is of record {last.get(number)}")
        return found

    def data(self, index: int) -> Logged | None:
        """Return an entry relative to the second partition, None if not in it."""
        entry = self.entries[index]
        if "flush" in entry.flags:
            return entry
        if entry.offset < DATA_START:
            return None
        return dataclasses.replace(entry, offset=entry.offset - DATA_START)


def record(guest: Guest, logs: Mapping[str, WriteLog], seeds: Mapping[str, int],
           prepare: str = "true",
           names: Mapping[str, str] | None = None) -> dict[str, Recording]:
    """Run writers on all logged disks; return a Recording for each.

    prepare: a shell script to run when the file systems are mounted; names: of disks
    whose requests the logs have, if they are not the logged disks themselves.
    """
    targets = {kind: Target(guest, kind, (names or {}).get(kind)) for kind in logs}
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


def plan(arch: Arch, seed: int, number: int, count: int) -> list[Extent]:
    """Return the sectors of a writer's records."""
    lines = subprocess.run([writer(arch), "plan", str(seed), str(number),
                            str(count)], check=True, stdout=subprocess.PIPE,
                           text=True).stdout.splitlines()
    return [Extent(*map(int, line.split())) for line in lines]


def check_raw(recording: Recording, arch: Arch) -> Counter[str]:
    """Check all prefixes of a raw disk's log; return a Counter."""
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


def _show(witnesses: list[Witness], entry: Logged | None) -> None:
    """Pass an entry of the log to the witnesses whose area it covers."""
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


def _points(recording: Recording, count: int, random: Random) -> list[int]:
    """Choose entries of a log after which the power fails."""
    last = len(recording.entries) - 1
    marks = [index for index, _, _ in recording.marks()]
    before_flush = [index - 1 for index in range(recording.start, last + 1)
                    if "flush" in recording.entries[index].flags]
    kinds: list[Sequence[int]] = [marks, range(recording.start, last + 1)]
    if before_flush:
        kinds.append(before_flush)
    chosen: set[int] = set()
    while len(chosen) < min(count, last - recording.start):
        chosen.add(random.choice(random.choice(kinds)))
    return sorted(chosen)


def check_replays(guest: Guest, kind: str, recording: Recording, count: int,
                  random: Random) -> Counter[str]:
    """Check some prefixes of a file system's log; return a Counter.

    The guest must have a disk "replay" in memory that is at least as large.
    """
    picture = Image(SIZES[kind])
    marks = {index: (number, last) for index, number, last in recording.marks()}
    acked = dict.fromkeys(WRITERS, 0)
    counts: Counter[str] = Counter()
    points = _points(recording, count, random)
    for index in range(points[-1] + 1):
        entry = recording.data(index)
        if entry is not None:
            picture.add(entry)
        if index in marks:
            number, last = marks[index]
            acked[number] = last
        if index in points:
            # All data that is not durable survives, half of it, or none.
            share = random.choice([0, 0.5, 1])
            picture.store(Backend(guest, "replay").path,
                          lambda: random.random() < share)
            counts += _replay(guest, kind, recording.seed, acked)
    return counts


def _replay(guest: Guest, kind: str, seed: int, acked: Acknowledged) -> Counter[str]:
    """Check records and file system on the disk "replay"."""
    device = f"/dev/{guest.dev('replay')}"
    mounted = guest.run(f"mkdir -p /mnt/replay; blockdev --flushbufs {device}; "
                        f"mount -t {kind} {device} /mnt/replay", check=False)
    if mounted.status:
        say(mounted.output)
        return Counter({"replays": 1, DIRTY: 1})
    checked, lost = check_records(
        guest, seed, acked, lambda number: f"/mnt/replay/{seed}.{number} 0")
    guest.run("umount /mnt/replay")
    return Counter({"replays": 1, "acknowledged bytes": checked, LOST: lost,
                    DIRTY: check_file_system(guest, kind, device)})


@contextlib.contextmanager
def logging_guest(kernel: Kernel, driver: str,
                  kinds: Iterable[str]) -> Iterator[tuple[Guest, dict[str, WriteLog]]]:
    """A guest with logged disks and one for replays; yields it and the logs."""
    with work_directory() as directory:
        logs = {kind: WriteLog(directory / f"{kind}.log") for kind in kinds}
        disks = [disk(kind, directory, filters=[log.node])
                 for kind, log in logs.items()]
        with Guest(kernel, driver=driver, memory=1024, disks=[
                *disks, Disk("replay", "ram", max(SIZES.values()))]) as guest:
            guest.put(writer(guest.arch), "/run/writer")
            yield guest, logs


def replay_logs(round: Round) -> None:
    """Record logs of disks, and check prefixes of them."""
    with logging_guest(round.kernel, round.driver, SIZES) as (guest, logs):
        seeds = {kind: round.random.getrandbits(31) for kind in logs}
        recordings = record(guest, logs, seeds)
        round.counts += check_raw(recordings["raw"], guest.arch)
        while round.wants("replays"):
            for kind in FILE_SYSTEMS:
                round.counts += check_replays(guest, kind, recordings[kind],
                                              _REPLAYS, round.random)


def _run(round: Round) -> None:
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
