# SPDX-License-Identifier: GPL-2.0
"""The CPUs, vectors and interrupts of a disk's queues, as the guest sees them."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from vm.guest import Guest

# The bits of an MSI's number that are the vector's index in its device.  Older kernels
# show the device's address in the other bits.
_VECTOR_MASK = 0x7ff


@dataclass(frozen=True)
class Irq:
    """A line of /proc/interrupts.

    vector: the index of an MSI vector in its device; None for other interrupts.
    counts: the number of interrupts, by CPU.
    """
    number: int
    counts: dict[int, int]
    chip: str
    vector: int | None
    name: str


def parse_interrupts(text: str) -> list[Irq]:
    """Return the Irqs in the contents of /proc/interrupts."""
    header, *lines = text.splitlines()
    cpus = [int(name.removeprefix("CPU")) for name in header.split()]
    irqs = []
    for line in lines:
        number, *words = line.split(None, len(cpus) + 1)
        source = _source(words[len(cpus):])
        if not re.fullmatch(r"\d+:", number) or source is None:
            continue
        chip, pin, name = source
        counts = dict(zip(cpus, map(int, words)))
        vector = int(pin) & _VECTOR_MASK if "MSI" in chip else None
        irqs.append(Irq(int(number[:-1]), counts, chip, vector, name))
    return irqs


def _source(words: Sequence[str]) -> tuple[str, str, str] | None:
    """Return the chip, its interrupt number, and the name, which follow the counts.

    The result is None for a line that has other words there.
    """
    match = re.match(r"(\S+)\s+(\d+)-\S+\s*(.*)", words[0].strip()) \
        if words else None
    return (match[1], match[2], match[3]) if match else None


def parse_cpus(text: str) -> list[int]:
    """Return the CPUs in a list in the kernel's format: "0-3,8" or "0, 1"."""
    cpus: set[int] = set()
    for part in text.replace(",", " ").split():
        first, _, last = part.partition("-")
        cpus.update(range(int(first), int(last or first) + 1))
    return sorted(cpus)


def format_cpus(cpus: Iterable[int]) -> str:
    """Return a list of CPUs as ranges: "0-3,8"."""
    runs: list[list[int]] = []
    for cpu in sorted(cpus):
        if runs and cpu == runs[-1][1] + 1:
            runs[-1][1] = cpu
        else:
            runs.append([cpu, cpu])
    return ",".join(str(first) if first == last else f"{first}-{last}"
                    for first, last in runs)


def disk_irqs(irqs: Iterable[Irq], virtio: str) -> dict[int, Irq]:
    """Return the Irqs of a device's queues, by queue."""
    found = {}
    for irq in irqs:
        match = re.fullmatch(re.escape(virtio) + r"-req\.(\d+)", irq.name)
        if match:
            found[int(match[1])] = irq
    return found


@dataclass(frozen=True)
class Queue:
    """One queue of a disk; cpus: the CPUs that submit to it.

    vector, irq and the affinities are None if the queue has no interrupt of its own;
    ring is None if the driver does not log the ring size.
    """
    index: int
    type: str
    cpus: list[int]
    vector: int | None
    irq: int | None
    affinity: list[int] | None
    effective: list[int] | None
    ring: int | None
    depth: int

    @property
    def affinity_equal(self) -> bool:
        """Whether the interrupt's affinity is exactly the queue's CPUs."""
        return self.affinity is not None and self.affinity == self.cpus

    def as_dict(self) -> dict[str, Any]:
        """Return the queue for JSON."""
        return {**asdict(self), "affinity_equal": self.affinity_equal}


@dataclass(frozen=True)
class DiskQueues:
    """The queues of a disk; name, virtio: the disk's, such as "vda" and "virtio2"."""
    name: str
    virtio: str
    queues: list[Queue]

    @property
    def affinities_equal(self) -> int:
        """The number of queues whose interrupt has exactly the queue's CPUs."""
        return sum(queue.affinity_equal for queue in self.queues)

    def as_dict(self) -> dict[str, Any]:
        """Return the disk for JSON."""
        return {"name": self.name, "virtio": self.virtio,
                "queues": [queue.as_dict() for queue in self.queues],
                "affinities_equal": self.affinities_equal}


def read(guest: Guest, name: str) -> DiskQueues:
    """Read the queues of a disk such as "vda" from the guest."""
    files = _files(guest, f"/sys/block/{name}/mq/*/nr_tags",
                   f"/sys/kernel/debug/block/{name}/hctx*/type",
                   "/proc/irq/*/smp_affinity_list",
                   "/proc/irq/*/effective_affinity_list")
    # A queue's directory has one for each CPU; cpu_list lacks isolated CPUs.
    files |= dict.fromkeys(guest.run(
        f"printf '%s\\n' /sys/block/{name}/mq/*/cpu[0-9]*").output.split(), "")
    virtio = guest.run(f"basename $(readlink /sys/block/{name}/device)").output.strip()
    irqs = parse_interrupts(guest.run("cat /proc/interrupts").output)
    return DiskQueues(name, virtio,
                      assemble(name, files, disk_irqs(irqs, virtio), guest.log()))


def _files(guest: Guest, *patterns: str) -> dict[str, str]:
    """Return the contents of the guest's files that match, by path."""
    # Reading some /proc/irq files of an unused interrupt fails.
    listing = guest.run(f"grep -H '' {' '.join(patterns)} 2>/dev/null; true")
    return {path: content for path, content in
            (line.split(":", 1) for line in listing.output.splitlines())}


def assemble(name: str, files: Mapping[str, str], irqs: Mapping[int, Irq],
             log: str) -> list[Queue]:
    """Return a disk's Queues from the parts that read() collects.

    files: contents by path, "" for a directory; irqs: from disk_irqs(); log: the
    kernel's log.
    """
    said = re.findall(rf"\[{name}\] (\d+)/(\d+)/(\d+) default/read/poll queues, "
                      r"ring (\d+), depth \d+", log)
    counts: list[int] = []
    ring = None
    if said:
        *counts, ring = map(int, said[-1])
    found = []
    cpus: dict[int, list[int]] = {}
    for path in files:
        match = re.fullmatch(rf"/sys/block/{name}/mq/(\d+)/cpu(\d+)", path)
        if match:
            cpus.setdefault(int(match[1]), []).append(int(match[2]))
    for index in cpus:
        kind = _kind(index, counts)
        irq = irqs.get(index)
        found.append(Queue(
            index=index,
            type=files.get(f"/sys/kernel/debug/block/{name}/hctx{index}/type",
                           kind),
            cpus=sorted(cpus[index]),
            vector=None if irq is None else irq.vector,
            irq=None if irq is None else irq.number,
            affinity=_affinity(files, irq, "smp_affinity_list"),
            effective=_affinity(files, irq, "effective_affinity_list"),
            ring=ring, depth=int(files[f"/sys/block/{name}/mq/{index}/nr_tags"])))
    return sorted(found, key=lambda queue: queue.index)


def _kind(index: int, counts: Sequence[int]) -> str:
    """Return the type of a queue, given the number of queues of each type."""
    for kind, count in zip(("default", "read", "poll"), counts):
        if index < count:
            return kind
        index -= count
    return "default"


def _affinity(files: Mapping[str, str], irq: Irq | None,
              file: str) -> list[int] | None:
    return None if irq is None else parse_cpus(files[f"/proc/irq/{irq.number}/{file}"])
