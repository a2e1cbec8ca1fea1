# SPDX-License-Identifier: GPL-2.0
"""Measure how IOPS grow with vCPUs: workers of vdpa_blk against QEMU's iothreads.

This is the experiment of the vhost-blk patches of 2022, in which a kernel thread of the
host serves virtqueues: virtqueues = vCPUs = jobs = 1, 2, 4, 8, random reads of 4 KiB,
libaio, depth 128.  It needs a host with KVM and at least four CPUs.

The tools change nothing in the host's kernel.  So the administrator provides the
devices, as Documentation/host.rst shows: /dev/nullb0 for QEMU, and nodes of vdpa_blk
with 1 and 2 workers at NODES.  Those that are missing are not measured, and the table
says so.
"""

import os
import resource
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from vm import qemu
from vm.disk import Disk
from vm.errors import GuestError
from vm.guest import Guest
from vm.kernels import Kernel

from . import sweep, wallclock

# The patches' numbers of vCPUs, virtqueues and jobs.
CPUS = (1, 2, 4, 8)
DEPTH = 128
ROUNDS = 3
SECONDS = 5
RAMP = 1
BACKING = Path("/dev/nullb0")
# Nodes of vdpa_blk by their number of workers.
NODES = {1: Path("/run/vdpa-blk/bench1"), 2: Path("/run/vdpa-blk/bench2")}
_MEMORY_MIB = 1024
# The guest's memory, and that of its ROMs.
_LOCKED_MIB = _MEMORY_MIB + 256

# IOPS in thousands of random reads from a RAM disk, by vCPUs: QEMU, and vhost-blk with
# one and two workers.  1, 2 and 4 vCPUs: kvm@vger.kernel.org, "vhost-blk: in-kernel
# accelerator for virtio-blk guests", 2022-07-25.  8 vCPUs: its version 2, 2022-10-13.
PUBLISHED = {1: (123, 110, None), 2: (253, 247, None), 4: (158, 576, None),
             8: (271, 576, 803)}


@dataclass(frozen=True)
class BackEnd:
    """A disk of the guest, and what serves it.

    title: its name in tables.  id: its serial number.  iothreads: of QEMU; 0 is one for
    each vCPU.  node: of vdpa_blk, which then serves the disk without QEMU.
    """
    title: str
    id: str
    iothreads: int = 1
    node: Path | None = None

    def guest(self, kernel: Kernel, cpus: int, backing: dict[str, Any]) -> Guest:
        """Return a guest with so many vCPUs and this disk.

        backing: the block node that QEMU serves, as for -blockdev.
        """
        if self.node:
            return Guest(kernel, cpus=cpus, memory=_MEMORY_MIB, qemu_args=[
                "-device", f"vhost-vdpa-device-pci,vhostdev={self.node}"])
        return Guest(kernel, cpus=cpus, memory=_MEMORY_MIB, disks=[
            Disk(self.id, node=backing, queues=cpus, iothreads=self.iothreads or cpus)])


@dataclass(frozen=True)
class Row:
    """IOPS by round, of a back end and a number of vCPUs."""
    back_end: str
    cpus: int
    iops: list[float]


@dataclass(frozen=True)
class Record:
    """What was measured; missing: why back ends were not."""
    rounds: int
    seconds: int
    missing: list[str]
    rows: list[Row] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return the record for JSON."""
        return asdict(self)

    @classmethod
    def read(cls, facts: dict[str, Any]) -> Self:
        """Return the record that as_dict() has made."""
        values: dict[str, Any] = facts | {"rows": [Row(**row) for row in facts["rows"]]}
        return cls(**values)


def why_meaningless() -> str | None:
    """Return why figures from this host mean nothing, None if they mean something."""
    accelerator, count = qemu.accelerator(), sweep.host_cpus()
    if accelerator == "kvm" and count >= sweep.CPUS_NEEDED:
        return None
    return (f"IOPS of several vCPUs mean nothing on this host ({accelerator.upper()}, "
            f"{count} CPUs); use a host with KVM and at least {sweep.CPUS_NEEDED} CPUs")


def back_ends(nodes: dict[int, Path], backing: Path, locked: int) \
        -> tuple[list[BackEnd], list[str]]:
    """Return the back ends that this host has, and why it does not have the others.

    nodes: of vdpa_blk by number of workers.  locked: the bytes that a process may lock,
    -1 without a limit.
    """
    found, missing = [], []
    if os.access(backing, os.R_OK | os.W_OK):
        found += [BackEnd("QEMU, 1 iothread", "qemu-one"),
                  BackEnd("QEMU, iothread per vCPU", "qemu-many", iothreads=0)]
    else:
        missing.append(f"QEMU: {backing} cannot be opened; modprobe null_blk")
    for workers, node in nodes.items():
        title = f"vdpa_blk, {workers} worker{'s' * (workers > 1)}"
        if not os.access(node, os.R_OK | os.W_OK):
            missing.append(f"{title}: {node} cannot be opened; Documentation/host.rst, "
                           "\"More workers\", shows how to add it")
        elif 0 <= locked < _LOCKED_MIB << 20:
            missing.append(f"{title}: a process may lock {locked >> 20} MiB, and the "
                           f"guest needs {_LOCKED_MIB}; ulimit -l unlimited")
        else:
            found.append(BackEnd(title, node.name, node=node))
    return found, missing


def turns(ends: Sequence[BackEnd], counts: Sequence[int], number: int) \
        -> Iterator[tuple[BackEnd, int]]:
    """Yield (back end, vCPUs) in the order of the round with that number."""
    for cpus in counts:
        yield from ((end, cpus) for end in ends[::-1 if number % 2 else 1])


def measure(kernel: Kernel, *, nodes: dict[int, Path] | None = None,
            backing: Path = BACKING, counts: Sequence[int] | None = None,
            rounds: int = ROUNDS, seconds: int = SECONDS, ramp: int = RAMP,
            block_node: dict[str, Any] | None = None) -> Record:
    """Measure each back end with each number of vCPUs, in a guest of its own.

    nodes: see back_ends(), NODES by default.  counts: the numbers of vCPUs, by default
    those of CPUS that the host has.  block_node: what QEMU serves, by default backing.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (hard, hard))
    try:
        ends, missing = back_ends(NODES if nodes is None else nodes, backing, hard)
        counts = counts or [cpus for cpus in CPUS if cpus <= sweep.host_cpus()]
        block_node = block_node or {
            "driver": "host_device", "filename": str(backing), "aio": "native",
            "cache": {"direct": True}}
        found: dict[tuple[str, int], list[float]] = {}
        for number in wallclock.rounds_of(rounds, len(ends) * len(counts) * (
                seconds + ramp + 12)):
            for end, cpus in turns(ends, counts, number):
                with end.guest(kernel, cpus, block_node) as guest:
                    iops = _sample(guest, end, cpus, seconds, ramp, number)
                found.setdefault((end.title, cpus), []).append(iops)
    finally:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (soft, hard))
    return Record(rounds, seconds, missing,
                  [Row(title, cpus, iops) for (title, cpus), iops in found.items()])


def _sample(guest: Guest, end: BackEnd, cpus: int, seconds: int, ramp: int,
            number: int) -> float:
    """Return the IOPS of a job on each vCPU."""
    disks = guest.run(f"cd /sys/block; grep -lx {end.id} vd*/serial",
                      check=False).output.split()
    if len(disks) != 1:
        raise GuestError(f"the guest has {len(disks)} disks with serial number "
                         f"{end.id}, and there must be one ({end.title})")
    name = disks[0].partition("/")[0]
    count = int(guest.run(f"ls /sys/block/{name}/mq | wc -l").output)
    if count != cpus:
        raise GuestError(f"{name} has {count} queues, and there must be {cpus} "
                         f"({end.title}); give the device at least {max(CPUS)}")
    guest.run(f"echo none > /sys/block/{name}/queue/scheduler")
    said = wallclock.fio_report(
        guest, f"/dev/{name}", {"rw": "randread", "bs": "4k", "ioengine": "libaio",
                                "iodepth": DEPTH, "direct": 1, "norandommap": 1},
        cpus, seconds, ramp)
    wallclock.keep_report(wallclock.FIO / f"workers-{end.id}-vcpus{cpus}-"
                          f"round{number + 1}.json", said)
    iops = said["jobs"][0]["read"]["iops"]
    if not iops:
        raise GuestError(f"fio completed no read on {name} ({end.title})")
    return iops


def table(record: Record) -> tuple[list[str], list[list[str]]]:
    """Return header and cells: thousands of IOPS by vCPUs, beside the patches' own."""
    titles = list(dict.fromkeys(row.back_end for row in record.rows))
    found = {(row.back_end, row.cpus): row.iops for row in record.rows}
    header = ["vCPUs", *titles, "2022: QEMU", "2022: vhost-blk, 1 worker",
              "2022: 2 workers"]
    return header, [
        [str(cpus), *(_cell(found.get((title, cpus))) for title in titles),
         *("-" if figure is None else f"{figure}k"
           for figure in PUBLISHED.get(cpus, (None,) * 3))]
        for cpus in dict.fromkeys(row.cpus for row in record.rows)]


def _cell(iops: list[float] | None) -> str:
    if not iops:
        return "-"
    found = sweep.spread([figure / 1000 for figure in iops])
    return f"{found.median:.0f}k ({found.low:.0f} to {found.high:.0f})"


def words(record: Record) -> str:
    """Return sentences on how the figures were measured, and what is missing."""
    return " ".join([
        "Thousands of IOPS of random reads, 4 KiB, libaio, depth 128, with as many "
        "virtqueues and jobs as vCPUs, from a null_blk device of the host; the median "
        f"of {record.rounds} rounds of {record.seconds} s, the lowest and the highest. "
        "Each guest was booted for its sample. The last columns are those that the "
        "vhost-blk patches of 2022 reported, from a RAM disk of another host: compare "
        "how they grow, not their size.",
        *(f"Not measured: {why}." for why in record.missing)])
