# SPDX-License-Identifier: GPL-2.0
"""What `make run` finds out, and how report.json holds it.

format          1
verdict, why    "PASS" or "FAIL", and the reasons
queues, affinities_equal
                null disk: the number of queues, and the number of queues whose
                IRQ affinity equals the queue's CPUs
verify_errors   blocks with wrong content found by fio, before and after a reboot
error           the error that ended the run early; missing if there was none
checks          each with name, expected, seen, passed
versions        kernel, qemu, accelerator, driver (commit), module_sha256, fio
wall_clock      what the figures per second are valid for
seconds, phases the duration of the whole run, and of its parts
disks           "null" and "files": name, virtio, affinities_equal, and for
                each of queues index, type, cpus, vector, irq, affinity,
                effective, affinity_equal, ring, depth
one_queue       the same for the null disk with num_request_queues=1
write, reread   fio's verified writes, and the reads after the reboot: errors, and
                for read and write ios, bytes, iops
fsck, image_check
                exit status and output of e2fsck and `qemu-img check`
clearing        for discard and both kinds of write zeroes: what the cleared blocks
                and those around them read back as, and what the qcow2 file holds
drivers         "ours" and "stock": whether the module is "out of tree"
comparison      for each job and number of queues: ratios of IOPS, ours to the
                in-tree driver's, by round; their median, low and high; and
                for "ours" and "stock" iops by round, iops_median,
                interrupts_per_io, kicks_per_io (null if not known)
interrupts      queues: how many raised interrupts; elsewhere: the number of
                interrupts on CPUs outside the queue's CPUs
kernel_log      "no complaint" if the guest's kernel logged no error or warning

A fact that the run did not reach is missing in report.json, and None in a Run.
"""

from dataclasses import asdict, dataclass, field
from typing import Any

from common import measure
from common.queues import DiskQueues


@dataclass(frozen=True)
class Phase:
    """A part of the run, and how long it took."""
    name: str
    seconds: float


@dataclass(frozen=True)
class Versions:
    """The software of the run.

    kernel: its release.  driver: the commit that it is built from; None outside git.
    """
    kernel: str
    qemu: str
    accelerator: str
    driver: str | None
    module_sha256: str


@dataclass(frozen=True)
class Disks:
    """The queues of both disks."""
    null: DiskQueues
    files: DiskQueues


@dataclass(frozen=True)
class Ended:
    """The exit status and the output of a program; status: as of vm.agent.Result."""
    status: int | None
    said: str


@dataclass(frozen=True)
class Content:
    """What is in the blocks that a command has cleared, and in those around them."""
    inside: str
    around: str


@dataclass
class Drivers:
    """Where each driver's module is from: "in tree" or "out of tree"."""
    stock: str | None = None
    ours: str | None = None


@dataclass(frozen=True)
class Row:
    """A job on both drivers with a number of queues."""
    job: str
    queues: int
    figures: measure.Comparison

    def as_dict(self) -> dict[str, Any]:
        """Return the row for JSON."""
        return {"job": self.job, "queues": self.queues, **asdict(self.figures)}


@dataclass
class Run:
    """All that a run has found; None is what it has not reached.

    one_thread: whether all CPUs of the guest are emulated on one thread.  clearing,
    image: what the guest reads, and what the qcow2 file holds, by the name of the
    command that cleared the blocks; each has all commands.  fio: its version in the
    guest.  See the top of this file for the other fields.
    """
    phases: list[Phase] = field(default_factory=list)
    versions: Versions | None = None
    one_thread: bool | None = None
    fio: str | None = None
    disks: Disks | None = None
    one_queue: DiskQueues | None = None
    queues: int | None = None
    affinities_equal: int | None = None
    write: measure.Outcome | None = None
    fsck: Ended | None = None
    clearing: dict[str, Content] | None = None
    reread: measure.Outcome | None = None
    verify_errors: int | None = None
    drivers: Drivers | None = None
    comparison: list[Row] | None = None
    interrupts: measure.Arrivals | None = None
    kernel_log: str | None = None
    image_check: Ended | None = None
    image: dict[str, Content] | None = None
    error: str | None = None
    seconds: float = 0

    def as_dict(self) -> dict[str, Any]:
        """Return the record for JSON, without what the run has not reached."""
        return _reached({
            "format": 1,
            "phases": [asdict(phase) for phase in self.phases],
            "versions": self.versions and self._versions(self.versions),
            "wall_clock": self.versions
            and measure.WALL_CLOCK[self.versions.accelerator],
            "one_thread": self.one_thread,
            "disks": self.disks and {"null": self.disks.null.as_dict(),
                                     "files": self.disks.files.as_dict()},
            "one_queue": self.one_queue and self.one_queue.as_dict(),
            "queues": self.queues,
            "affinities_equal": self.affinities_equal,
            "write": self.write and self.write.as_dict(),
            "fsck": self.fsck and asdict(self.fsck),
            "clearing": self.clearing and self._clearing(self.clearing),
            "reread": self.reread and self.reread.as_dict(),
            "verify_errors": self.verify_errors,
            "drivers": self.drivers and _reached(asdict(self.drivers)),
            "comparison": None if self.comparison is None else
            [row.as_dict() for row in self.comparison],
            "interrupts": self.interrupts and asdict(self.interrupts),
            "kernel_log": self.kernel_log,
            "image_check": self.image_check and asdict(self.image_check),
            "error": self.error,
            "seconds": self.seconds})

    def _versions(self, versions: Versions) -> dict[str, Any]:
        return {**asdict(versions), **_reached({"fio": self.fio})}

    def _clearing(self, clearing: dict[str, Content]) -> dict[str, dict[str, str]]:
        found = {name: asdict(content) for name, content in clearing.items()}
        for name, content in (self.image or {}).items():
            found[name] |= {"image_inside": content.inside,
                            "image_around": content.around}
        return found


def _reached(facts: dict[str, Any]) -> dict[str, Any]:
    """Return the facts that are not None."""
    return {name: value for name, value in facts.items() if value is not None}
