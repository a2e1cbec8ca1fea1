# SPDX-License-Identifier: GPL-2.0
"""The layout of a guest's disks: queues, CPUs and interrupts.

It comes from the guest's own tables, as an administrator would read them: sysfs for the
CPUs of each hctx (the directories cpuM, because cpu_list lacks isolated CPUs), debugfs
for its type, /proc/irq for the affinity of each interrupt, and /proc/interrupts for the
counts.
"""

import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from vm.errors import CommandTimeout
from vm.guest import Guest

_CPUS = "/sys/devices/system/cpu"
_TABLES = f"""
cd /sys/block
grep -H . {_CPUS}/possible {_CPUS}/present {_CPUS}/online \\
    vd*/serial /sys/kernel/debug/block/vd*/hctx*/type \\
    /proc/irq/*/smp_affinity_list 2> /dev/null
printf '%s:\\n' vd*/mq/*/cpu[0-9]*
for disk in vd*; do [ -e $disk ] && echo "$disk/device:$(readlink $disk/device)"; done
echo interrupts:
cat /proc/interrupts
"""

# For each type of queue, the CPUs of each hctx by its index.
Queues = dict[str, dict[int, frozenset[int]]]
# The interrupts of each vector by CPU.
Counts = dict[str, dict[int, int]]


@dataclass(frozen=True)
class Interrupt:
    """An interrupt of a disk.

    vector: "config", "req.N", "virtqueues", or "" for the disk's only one.
    affinity: the CPUs that may receive it.  counts: by CPU, online CPUs only.
    """
    number: int
    vector: str
    affinity: frozenset[int]
    counts: dict[int, int]

    @property
    def total(self) -> int:
        """How often it was raised on all CPUs together."""
        return sum(self.counts.values())


@dataclass(frozen=True)
class Disk:
    """The queues of a disk: for each type, the CPUs of each hctx by its index."""
    name: str
    virtio: str
    queues: Queues
    interrupts: dict[str, Interrupt]

    def queue_of(self, cpu: int, type: str = "default") -> int:
        """Return the index of the one queue that a CPU uses."""
        (index,) = [index for index, cpus in self.queues[type].items()
                    if cpu in cpus]
        return index

    def wanted_affinity(self) -> dict[str, frozenset[int]]:
        """Return the affinity that each queue's vector must have: its CPUs."""
        return {f"req.{index}": cpus for type in ("default", "read")
                for index, cpus in self.queues.get(type, {}).items()}


@dataclass(frozen=True)
class Layout:
    """A guest's CPUs, and its virtio-blk disks by serial number.

    A disk without a serial number has its name as the key.
    """
    possible: frozenset[int]
    present: frozenset[int]
    online: frozenset[int]
    disks: dict[str, Disk]


def parse_cpus(text: str) -> frozenset[int]:
    """Return the CPUs in a list such as "0-2,5" or "0, 1, 2, 5"."""
    cpus: set[int] = set()
    for part in text.replace(" ", "").split(","):
        first, _, last = part.partition("-")
        if first:
            cpus.update(range(int(first), int(last or first) + 1))
    return frozenset(cpus)


def read(guest: Guest) -> Layout:
    """Return the Layout of a guest."""
    tables, _, interrupts = guest.run(_TABLES).output.partition("interrupts:\n")
    facts = dict(line.rsplit(":", 1) for line in tables.splitlines())
    affinity = {int(path.split("/")[3]): parse_cpus(cpus)
                for path, cpus in facts.items()
                if path.startswith("/proc/irq/")}
    disks = {}
    for path, target in facts.items():
        if path.endswith("/device"):
            name, virtio = path.split("/")[0], target.rsplit("/", 1)[-1]
            disks[facts.get(f"{name}/serial", name)] = Disk(
                name, virtio, _queues(name, facts),
                parse_interrupts(interrupts, virtio, affinity))
    possible, present, online = (parse_cpus(facts[f"{_CPUS}/{which}"])
                                 for which in ("possible", "present", "online"))
    return Layout(possible, present, online, disks)


def _queues(name: str, facts: Mapping[str, str]) -> Queues:
    """Return the queues of a disk.

    debugfs lists every hctx, sysfs only those that at least one CPU uses.
    """
    users: dict[str, set[int]] = {}
    for path in facts:
        if found := re.fullmatch(rf"{name}/mq/(\d+)/cpu(\d+)", path):
            users.setdefault(found[1], set()).add(int(found[2]))
    queues: Queues = {}
    pattern = re.compile(rf"/sys/kernel/debug/block/{name}/hctx(\d+)/type")
    for path, type in facts.items():
        if found := pattern.fullmatch(path):
            queues.setdefault(type, {})[int(found[1])] = frozenset(
                users.get(found[1], ()))
    return {type: dict(sorted(found.items())) for type, found in queues.items()}


def parse_interrupts(table: str, virtio: str,
                     affinity: Mapping[int, frozenset[int]]) -> dict[str, Interrupt]:
    """Return a device's interrupts by vector, from /proc/interrupts."""
    header, *lines = table.splitlines()
    cpus = [int(word.removeprefix("CPU")) for word in header.split()]
    found = {}
    for line in lines:
        number, _, rest = line.partition(":")
        words = rest.split()
        for word in words[len(cpus):]:
            word = word.rstrip(",")
            if word == virtio or word.startswith(f"{virtio}-"):
                vector = word.removeprefix(virtio).removeprefix("-")
                found[vector] = Interrupt(
                    int(number), vector, affinity.get(int(number), frozenset()),
                    dict(zip(cpus, map(int, words))))
    return found


def probe_again(guest: Guest, **params: object) -> None:
    """Set the driver's parameters and have it probe all its disks again.

    This works with a built-in driver, too.
    """
    setting = "".join(f"echo {value} > /sys/module/virtio_blk/parameters/{name}\n"
                      for name, value in params.items())
    guest.run(f"set -e\n{setting}"
              "cd /sys/bus/virtio/drivers/virtio_blk\n"
              "disks=$(ls -d virtio* | sort -V)\n"
              "for disk in $disks; do echo $disk > unbind; done\n"
              "for disk in $disks; do echo $disk > bind; done", timeout=120)


@dataclass(frozen=True)
class Arrival:
    """Interrupts raised while one CPU did I/O: vector -> {CPU: count}."""
    cpu: int
    counts: Counts


def read_from_each_cpu(guest: Guest, disk: Disk, cpus: Iterable[int],
                       ios: int = 16) -> list[Arrival]:
    """Read from a disk on one CPU after the other; return their Arrivals.

    Each CPU reads ios blocks of 4 KiB, one at a time.
    """
    table = f"echo; grep -wE 'CPU0|{disk.virtio}' /proc/interrupts"
    script = (
        f"{table}; for cpu in {' '.join(map(str, sorted(cpus)))}; do "
        f"taskset -c $cpu dd if=/dev/{disk.name} of=/dev/null bs=4k "
        f"count={ios} iflag=direct status=none || exit; {table}; done")
    try:
        snapshots = guest.run(script, timeout=120).output.strip().split("\n\n")
    except CommandTimeout as error:
        error.add_note(f"In flight, as QEMU sees it:\n{rings_in_use(guest)}")
        raise
    counts = [{vector: interrupt.counts for vector, interrupt in
               parse_interrupts(snapshot, disk.virtio, {}).items()}
              for snapshot in snapshots]
    return [Arrival(cpu, _difference(*pair)) for cpu, pair
            in zip(sorted(cpus), itertools.pairwise(counts), strict=True)]


def rings_in_use(guest: Guest) -> str:
    """Return the state of the disks' split rings in flight, as QEMU sees it.

    Where I/O hangs it shows whether the device has seen the request (the driver's
    avail index equals the device's last), and whether it has completed it (the used
    index is the same).  The indices are read from guest memory, because QEMU's query
    of a ring's elements writes to the ring, and the next kick is lost.
    """
    lines = []
    for device in guest.qmp("x-query-virtio"):
        if device["name"] != "virtio-blk":
            continue
        status = guest.qmp("x-query-virtio-status", path=device["path"])
        for number in range(status["num-vqs"]):
            queue = guest.qmp("x-query-virtio-queue-status",
                              path=device["path"], queue=number)
            size, avail, used = (queue[f"vring-{part}"]
                                 for part in ("num", "avail", "used"))
            if not avail:
                continue
            words = {"avail": avail + 2, "used": used + 2,
                     "used event": avail + 4 + 2 * size,
                     "avail event": used + 4 + 8 * size}
            found = {name: _word(guest, place) for name, place in words.items()}
            found |= {"device's last": queue["last-avail-idx"],
                      "in use": queue["inuse"]}
            if not found["avail"] == found["used"] == found["device's last"]:
                lines.append(f"{device['path']} queue {number}: {found}")
    return "\n".join(lines) or "nothing"


def _word(guest: Guest, address: int) -> int:
    """Return two bytes of the guest's memory."""
    output = guest.qmp("human-monitor-command",
                       **{"command-line": f"xp /1hx {address:#x}"})
    return int(output.split(":")[1], 16)


def _difference(before: Counts, after: Counts) -> Counts:
    """Return by how much counts have grown, without those that have not."""
    grown = {}
    for vector, counts in after.items():
        more = {cpu: count - before[vector][cpu] for cpu, count in counts.items()
                if count != before[vector][cpu]}
        if more:
            grown[vector] = more
    return grown
