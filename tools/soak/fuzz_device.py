# SPDX-License-Identifier: GPL-2.0
"""Hostile drivers of vdpa_blk: `vdpadrv fuzz` in a guest, on vhost-vdpa.

`make fuzz-device SECONDS=600` runs rounds for 600 seconds.  SEED= repeats the round of
that seed.  KERNEL= selects another kernel than 7.3-debug.  A single life cycle repeats
with `vdpadrv fuzz NODE --seed N --count 1`, which a failure names.
"""

import os
import random
import re
import time
from collections import Counter
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from common import null_blk, vdpa, vdpadrv
from host import ui
from host.ui import UserError, say
from vm import kernels
from vm.disk import Disk
from vm.guest import Guest
from vm.kernels import Kernel

from . import fuzz, leaks
from .scenario import Round, Scenario, listed

# Each life cycle has its own seed; the first is the round's seed times this.
_SEEDS = 1_000_000
# Life cycles of one device; the next one has other settings.  To add and to delete a
# device, with its backing device, takes as long as several life cycles.
_BATCH = 100
_BATCH_SECONDS = 1800
# A complete round plays the rarest kinds of chains some 30 times on average.  If it
# misses one, it goes on for up to so many batches.
_MORE = 5
_MIB = 1 << 20
_DISK_MIB = 64
# A process maps its memory in pieces of a page.
CMDLINE = "kmemleak=on vhost_vdpa.max_iotlb_entries=65536"
_COUNT = re.compile(r"^count ([\w ]+): (\d+)$", re.MULTILINE)
_PLAYED = re.compile(r"^((?:kind|part) [\w-]+): (\d+)$", re.MULTILINE)
# It has vdpa_blk built in, and no vhost_vdpa.
_BUILT_IN = "7.3"
# Lines that vdpa_blk may log for a life cycle on average: it limits those of broken rings.
MOST_LINES = 16


class Broken(Exception):
    """vdpadrv has failed, or something of the device was left behind."""


@dataclass(frozen=True)
class Settings:
    """A device: its settings in configfs, and its backing device.

    disk: the id of a disk of QEMU's; null_blk: settings of a device of null_blk's, which
    is used instead, or None.
    """
    configfs: dict[str, Any]
    disk: str
    null_blk: dict[str, int] | None

    @classmethod
    def choose(cls, chosen: random.Random) -> "Settings":
        """Return settings that follow from random numbers."""
        configfs = {"queues": chosen.choice((1, 2, 4, 8)),
                    "workers": chosen.choice((0, 1, 2, 3)),
                    "ring_size": chosen.choice((8, 64, 256, 256, 1024)),
                    "poll_us": chosen.choice((0, 0, 50)),
                    "write_cache": chosen.randrange(2)}
        disk = chosen.choice(("back", "blocks"))
        # With larger blocks null_blk overruns its pages: see common.null_blk.
        null = {"blocksize": 512, "discard": chosen.randrange(2),
                "irqmode": chosen.randrange(3)} if chosen.randrange(3) else None
        return cls(configfs, disk, null)

    def __str__(self) -> str:
        where = f"null_blk {self.null_blk}" if self.null_blk else f"QEMU's {self.disk}"
        return f"{self.configfs} on {where}"


def disks() -> list[Disk]:
    """Return the disks that Settings can name, with blocks of 512 bytes and of 4 KiB."""
    return [Disk("back", "ram", _DISK_MIB * _MIB, queues=4),
            Disk("blocks", "ram", _DISK_MIB * _MIB, queues=4, logical_block_size=4096,
                 physical_block_size=4096)]


def prepare(guest: Guest) -> None:
    """Prepare a guest for hostile drivers."""
    vdpa.prepare(guest)
    vdpadrv.install(guest)
    # Messages about broken rings are no splat, and some of them are enough.
    guest.tolerate(r"virtqueue \d+ stops, because")


def _backing(guest: Guest, settings: Settings) -> AbstractContextManager[str]:
    """Return a context manager for the path of a backing device."""
    if settings.null_blk is None:
        return nullcontext(f"/dev/{guest.dev(settings.disk)}")
    return null_blk.device(guest, "fuzzed", memory_backed=1, size=_DISK_MIB,
                           submit_queues=2, **settings.null_blk)


def held_pages(guest: Guest, hold: int = 0) -> int:
    """Return the number of pages that are held though their process has ended.

    hold: pages to hold meanwhile, which must be found.
    """
    output = guest.run(f"{vdpadrv.PROGRAM} pages - --count {hold}").output
    return int(_COUNT.findall(output)[0][1])


@dataclass(frozen=True)
class Batch:
    """What vdpadrv has counted.

    sums: of each of its counters; played: how often each part was complete, and how
    often the device met each kind of malformed chain, by names such as "part attack".
    """
    sums: dict[str, int]
    played: dict[str, int]

    @classmethod
    def parse(cls, output: str) -> "Batch":
        """Return the counts that are in the output of `vdpadrv fuzz`."""
        return cls({name: int(value) for name, value in _COUNT.findall(output)},
                   {name: int(value) for name, value in _PLAYED.findall(output)})


def life_cycles(guest: Guest, device: vdpa.Device, seed: int, number: int,
                settings: Settings) -> Batch:
    """Run life cycles of consecutive seeds on a device that has these settings."""
    output, log = fuzz.run_fuzzer(
        guest, f"{vdpadrv.PROGRAM} fuzz {device.node()} --name {device.name} "
        f"--seed {seed} --count {number}", _BATCH_SECONDS, Broken,
        f", on the device with {settings}")
    lines = len(re.findall(r"virtqueue \d+ stops", log))
    if lines > MOST_LINES * number:
        raise Broken(f"vdpa_blk logged {lines} lines on broken rings from seed {seed}, "
                     f"more than {MOST_LINES * number}; the device: {settings}")
    return Batch.parse(output)


def _check_idle(device: vdpa.Device) -> None:
    """Check that nothing is left of the last process."""
    counters = device.counters()
    left = {name: counters[name] for name in ("in_flight", "running") if counters[name]}
    if left:
        raise Broken(f"no process uses the device, which has {left}")


def check_deleted(guest: Guest) -> None:
    """Check that a deleted device has left neither mapping nor thread behind."""
    left = guest.run("grep -F '[vdpa_blk]' /proc/vmallocinfo | grep -v load_module; "
                     "grep -l ^vdpa_blk/ /proc/[0-9]*/comm; true").output.strip()
    if left:
        raise Broken(f"the device was deleted, and this is left of it:\n{left}")


def missing(round: Round, played: Counter[str]) -> list[str]:
    """Return the parts and kinds of chains that a complete round has not played."""
    if any(round.counts[name] < number for name, number in round.scenario.each.items()):
        return []
    return [name for name, number in played.items() if not number] \
        if played else ["anything"]


def check_played(round: Round, played: Counter[str]) -> None:
    """Raise Broken if a complete round has not played all parts and kinds of chains."""
    if names := missing(round, played):
        raise Broken(f"a complete round never played {', '.join(names)}; vdpadrv "
                     "counted 0")


def attack(round: Round, guest: Guest, seed: int, number: int = _BATCH
           ) -> dict[str, int]:
    """Add a device, have it attacked, and delete it; count what has happened.

    seed: of the first life cycle; number: of life cycles.  Returns how often each part
    and kind of chain was played.
    """
    settings = Settings.choose(round.random)
    say(f"  seeds from {seed}: {settings}")
    with _backing(guest, settings) as path:
        with vdpa.Device(guest, path, bus="vhost_vdpa", **settings.configfs) as device:
            batch = life_cycles(guest, device, seed, number, settings)
            for name, count in batch.sums.items():
                round.add(name, count)
            _check_idle(device)
    check_deleted(guest)
    say(f"  {listed(round.counts)}")
    return batch.played


def check_kernel(kernel: Kernel) -> None:
    """Raise UserError unless a kernel has vhost_vdpa, and vdpa_blk as a module."""
    if not kernels.can_have_vdpa(kernel) or not kernel.has("CONFIG_VHOST_VDPA") \
            or kernel.has("CONFIG_VDPA_BLK"):
        raise _unsuitable(kernel.name)


def _unsuitable(name: str) -> UserError:
    oldest = ".".join(map(str, kernels.OLDEST_VDPA))
    return UserError(f"KERNEL is {name}; make fuzz-device needs Linux {oldest} or later "
                     "with CONFIG_VHOST_VDPA, and vdpa_blk as a module; choose "
                     "KERNEL=6.12 or 7.3-debug")


def run(round: Round) -> None:
    """Run a round: boot a guest, and attack devices until the goals are reached."""
    check_kernel(round.kernel)
    seed = round.seed * _SEEDS
    played: Counter[str] = Counter()
    with Guest(round.kernel, driver=round.driver, parallel=False, cmdline=CMDLINE,
               disks=disks(),
               qemu_args=vdpa.qemu_args()) as guest:
        prepare(guest)
        before = held_pages(guest)
        while round.wants("life cycles") or round.wants("malformed requests"):
            played.update(attack(round, guest, seed))
            seed += _BATCH
        for seed in range(seed, seed + _MORE * _BATCH, _BATCH):
            if missing(round, played):
                played.update(attack(round, guest, seed))
        check_played(round, played)
        round.add("pages left", max(held_pages(guest) - before, 0))
        leaks.look(round, guest, ("vdpa_blk_", "vhost_"))
        guest.run("rmmod vdpa_blk")


SCENARIO = Scenario(
    "fuzz-device", "hostile drivers of vdpa_blk: rings, requests, mappings, closes",
    run, goals={"malformed requests": 1_000_000, "life cycles": 20_000},
    each={"malformed requests": 50_000, "life cycles": 1_000},
    zero=("leaks", "pages left"))


def main() -> int:
    """Run rounds for SECONDS; with SEED only the round of that seed, completely."""
    # Building it would take long, and check_kernel() refuses it then.
    if os.environ.get("KERNEL") == _BUILT_IN:
        raise _unsuitable(_BUILT_IN)
    started = time.monotonic()
    sums = fuzz.play_rounds(SCENARIO, "fuzz-device", (Broken,))
    if sums is None:
        return 1
    done = fuzz.rates(sums, ("life cycles", "malformed requests"),
                      time.monotonic() - started)
    say(f"PASS: {done} "
        + ("without a splat, a hang or a leak" if sums["scans for leaks"] else
           "without a splat or a hang; kmemleak was not available, so only pages of "
           "processes were checked for leaks"))
    return 0


if __name__ == "__main__":
    ui.main(main)
