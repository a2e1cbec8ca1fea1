# SPDX-License-Identifier: GPL-2.0
"""The kernel ends under load, and another one finds the disks: kexec, kdump, reboot.

- The writers of power.py write to a raw disk, an ext4 and an xfs.  The kernel starts
  another one by kexec, reboots, or powers the machine off, while they write.  Nothing
  stops them, and nothing is unmounted.  The next kernel checks all records that they
  acknowledged, and the file systems.
- The kernel panics under load.  The crash kernel has one CPU and little memory.  It
  writes /proc/vmcore to a disk with a split ring, copies it from there to one with a
  packed ring, and back.  In the files of the disks the copies must be equal, and be a
  complete core: an ELF file with all memory of the dead kernel, with its VMCOREINFO, and
  with pages that were in its memory.
"""

import functools
import hashlib
import struct
from pathlib import Path

from common import fio
from host.ui import UserError
from vm import image, kernels
from vm.disk import Disk
from vm.errors import GuestError
from vm.guest import Guest
from vm.kernels import Kernel

from .power import DIRTY, LOST, SIZES, Target, disk, interrupt, work_directory, writer
from .scenario import Round, Scenario

_MIB = 1 << 20
PAGE = 4096
_PLACE = "/run/kexec"
# What the crash kernel has, and what it leaves to the kernel that panics.
_CRASH_MIB = 160
_MEMORY_MIB = _CRASH_MIB + 192
# Memory that the firmware keeps, and that the kernel frees to none of its zones.
_NOT_IN_CORE_MIB = 4
# What the driver and its disks may take of a crash kernel's memory.
DRIVER_KIB = 8 << 10
_WITNESS_PAGES = 512
# The bounds for a step of a guest, and for the copies of a core.
_LIMIT = 300
_SAVE_SECONDS = 900
_NEEDED = ("CONFIG_KEXEC_FILE", "CONFIG_PROC_VMCORE")


def program(guest: Guest) -> Path:
    """Return the path of the program that loads and starts kernels."""
    return image.program(Path(__file__).with_name("kexec.c"), guest.arch)


def check_kernel(kernel: Kernel) -> None:
    """Raise UserError if a kernel cannot load another one."""
    missing = [option for option in _NEEDED if not kernel.has(option)]
    if missing:
        raise UserError(f"KERNEL is {kernel.name}, which has no {' and no '.join(missing)}; "
                        "choose KERNEL=6.12, or a kernel that has both")


def load(guest: Guest, way: str, initramfs: Path, cmdline: str) -> None:
    """Load the guest's own kernel; way: "load", or "panic" for the crash kernel."""
    guest.run(f"mkdir -p {_PLACE}")
    guest.put(program(guest), f"{_PLACE}/kexec")
    guest.put(guest.kernel.bzimage or guest.kernel.bootable(), f"{_PLACE}/kernel")
    guest.put(initramfs, f"{_PLACE}/initramfs")
    guest.run(f"{_PLACE}/kexec {way} {_PLACE}/kernel {_PLACE}/initramfs '{cmdline}'; "
              f"status=$?; rm {_PLACE}/kernel {_PLACE}/initramfs; exit $status",
              timeout=_LIMIT)


# Under load, with another kernel afterwards

def start_next(guest: Guest) -> None:
    """Start the same kernel again by kexec."""
    guest.follow_kexec(f"{_PLACE}/kexec start")
    guest.load_first_driver()


# The way to the next kernel, by the name of its counter.
WAYS = {"kexecs": start_next, "reboots": Guest.reboot,
        "power cycles": Guest.power_cycle}


def restart_under_load(round: Round, kinds: tuple[str, ...] = tuple(SIZES)) -> None:
    """Have the guest restart in each way that the round wants."""
    with work_directory() as directory, \
            Guest(round.kernel, driver=round.driver,
                  disks=[disk(kind, directory) for kind in kinds]) as guest:
        guest.put(writer(guest.arch), "/run/writer")
        targets = [Target(guest, kind) for kind in kinds]
        for target in targets:
            target.make()
        for name, way in WAYS.items():
            while round.wants(name):
                if name == "kexecs":
                    load(guest, "load", guest.directory / "initramfs",
                         guest.sysfs("/proc/cmdline"))
                interrupt(round, guest, targets, functools.partial(way, guest))
                round.add(name)


# A core

class Core:
    """A core of a kernel, in the file of a disk from a start on.

    loads: offset, physical address and size of each range of memory; notes: the note
    segments.
    """

    def __init__(self, path: Path, size: int, start: int = 0):
        self._path = path
        self._start = start
        self.size = size
        with path.open("rb") as file:
            file.seek(start)
            head = file.read(64)
            if head[:6] != b"\x7fELF\x02\x01":
                raise GuestError(f"the core is no ELF file; it begins with {head[:16]!r}")
            at, = struct.unpack_from("<Q", head, 32)
            length, count = struct.unpack_from("<HH", head, 54)
            file.seek(start + at)
            table = file.read(length * count)
            # Type, flags, offset, two addresses, size in the file.
            rows = [struct.unpack_from("<IIQQQQ", table, number * length)
                    for number in range(count)]
            self.loads = [(row[2], row[4], row[5]) for row in rows if row[0] == 1]
            self.notes = b""
            for row in rows:
                if row[0] == 4:
                    file.seek(start + row[2])
                    self.notes += file.read(row[5])

    @property
    def end(self) -> int:
        """The end of its last segment."""
        return max(offset + size for offset, _, size in self.loads)

    @property
    def memory(self) -> int:
        """How much memory it has, in bytes; it has the kernel's text twice."""
        total = end = 0
        for address, size in sorted((address, size) for _, address, size in self.loads):
            total += max(0, address + size - max(address, end))
            end = max(end, address + size)
        return total

    def digest(self) -> str:
        """Return the digest of the core."""
        found = hashlib.sha256()
        with self._path.open("rb") as file:
            file.seek(self._start)
            for at in range(0, self.size, _MIB):
                found.update(file.read(min(_MIB, self.size - at)))
        return found.hexdigest()

    def missing(self, pages: set[bytes]) -> int:
        """Return how many of some pages are at no page of its memory."""
        left = set(pages)
        with self._path.open("rb") as file:
            for offset, _, size in self.loads:
                file.seek(self._start + offset)
                for _ in range(size // PAGE):
                    left.discard(file.read(PAGE))
        return len(left)


def check_core(core: Core, release: str, memory: int, digest: str,
               pages: set[bytes]) -> list[str]:
    """Return what is wrong with a core.

    memory: the least that it has, in bytes; digest: that of another copy;
    pages: some pages of the memory of the kernel that panicked.
    """
    wrong = []
    if core.end != core.size:
        wrong.append(f"its segments end at {core.end}, and it has {core.size} bytes")
    if core.memory < memory:
        wrong.append(f"it has {core.memory} bytes of memory, fewer than {memory}")
    if f"OSRELEASE={release}\n".encode() not in core.notes:
        wrong.append(f"its notes do not have the release {release}")
    if (found := core.digest()) != digest:
        wrong.append(f"its digest is {found}, and that of the other copy {digest}")
    if missing := core.missing(pages):
        wrong.append(f"{missing} of {len(pages)} pages are missing")
    return wrong


def crash(guest: Guest, directory: Path) -> None:
    """Load a crash kernel, and panic under I/O of all CPUs on all disks.

    The crash kernel has an initramfs only, as kdump-tools makes one.
    """
    ours, stock = (None, None) if guest.kernel.builtin else \
        (kernels.driver(guest.kernel), kernels.stock_module(guest.kernel))
    initramfs = directory / "crash-initramfs"
    image.initramfs(initramfs, guest.kernel, ours=ours, stock=stock, tools=True)
    words = [word for word in guest.sysfs("/proc/cmdline").split()
             if not word.startswith(("crashkernel=", "vblk_"))]
    load(guest, "panic", initramfs,
         " ".join([*words, "nr_cpus=1", "reset_devices", "irqpoll"]))
    for id in guest.disks:
        running = fio.start(guest, f"/dev/{guest.dev(id)}", rw="randrw", bs="64k",
                            numjobs=4, size="16m", offset_increment="16m",
                            time_based=1, runtime=_LIMIT)
        running.wait_for_io(guest.dev(id), requests=100)
    guest.tolerate("Kernel panic - not syncing: sysrq triggered crash")
    guest.follow_kexec("echo c > /proc/sysrq-trigger", panics=True, tools=True)


def _free_kib(guest: Guest) -> int:
    """Return the guest's free memory, without what it caches."""
    return int(guest.run(
        "sync; echo 3 > /proc/sys/vm/drop_caches; echo 1 > /proc/sys/vm/compact_memory; "
        "awk '/^MemFree:/ { print $2 }' /proc/meminfo").output)


def load_driver(guest: Guest) -> int:
    """Load the driver in a crash kernel; return the KiB that it takes with its disks."""
    before = _free_kib(guest)
    guest.load_first_driver()
    for id in guest.disks:
        guest.dev(id)
    return before - _free_kib(guest)


def _save(guest: Guest) -> list[Core]:
    """Write the core to the first disk, copy it to the second and back; return all three.

    So each disk is read as well.  The guest compares nothing, because that is slow in
    a guest that is emulated.
    """
    first, second = (f"/dev/{guest.dev(id)}" for id in guest.disks)
    guest.run(f"""set -e
        fresh() {{ echo 3 > /proc/sys/vm/drop_caches; }}
        count=$(($(stat -c %s /proc/vmcore) / {_MIB} + 1))
        dd if=/proc/vmcore of={first} bs=1M conv=fsync; fresh
        dd if={first} of={second} bs=1M count=$count conv=fsync; fresh
        dd if={second} of={first} bs=1M count=$count seek={_MEMORY_MIB} conv=fsync
        """, timeout=_SAVE_SECONDS)
    size = int(guest.run("stat -c %s /proc/vmcore").output)
    paths = [path for id in guest.disks if (path := guest.disk_path(id))]
    return [Core(paths[0], size), Core(paths[1], size),
            Core(paths[0], size, _MEMORY_MIB * _MIB)]


def save_cores(round: Round) -> None:
    """Panic, and have the crash kernel write the core to disks with different rings."""
    with work_directory() as directory:
        disks = [Disk(name, "raw", 2 * _MEMORY_MIB * _MIB, queues=4,
                      path=directory / name, packed=packed)
                 for name, packed in (("split", False), ("packed", True))]
        while round.wants("cores"):
            with Guest(round.kernel, driver=round.driver, disks=disks,
                       memory=_MEMORY_MIB, cmdline=f"crashkernel={_CRASH_MIB}M") as guest:
                _save_cores(round, guest, directory)


def _save_cores(round: Round, guest: Guest, directory: Path) -> None:
    witness = round.random.randbytes(_WITNESS_PAGES * PAGE)
    guest.put(witness, "/dev/shm/witness")
    pages = {witness[at:at + PAGE] for at in range(0, len(witness), PAGE)}
    release = guest.release
    crash(guest, directory)
    if not guest.kernel.builtin:
        kib = load_driver(guest)
        round.add("KiB of the driver", kib)
        if kib > DRIVER_KIB:
            raise GuestError(f"in the crash kernel the driver and {len(guest.disks)} disks "
                             f"take {kib} KiB, more than {DRIVER_KIB}")
    for id in guest.disks:
        queues = guest.run(f"ls /sys/block/{guest.dev(id)}/mq").output.split()
        if queues != ["0"]:
            raise GuestError(f"{id} has the queues {queues} in the crash kernel")
    cores = _save(guest)
    for number, core in enumerate(cores):
        wrong = check_core(core, release,
                           (_MEMORY_MIB - _CRASH_MIB - _NOT_IN_CORE_MIB) * _MIB,
                           cores[0].digest(), pages)
        if wrong:
            raise GuestError(f"copy {number} of the core: {'; '.join(wrong)}")
    round.add("cores", len(guest.disks))
    round.add("MiB of cores", sum(core.size for core in cores) // _MIB)


def _run(round: Round) -> None:
    check_kernel(round.kernel)
    if any(round.wants(name) for name in WAYS):
        restart_under_load(round)
    if round.wants("cores"):
        save_cores(round)


KEXEC = Scenario(
    "kexec", "The kernel starts another one by kexec, reboots, powers off or panics "
    "under load.", _run,
    goals={"kexecs": 20, "reboots": 10, "power cycles": 10, "cores": 20},
    each={"kexecs": 5, "reboots": 3, "power cycles": 3, "cores": 4},
    zero=(LOST, DIRTY), kernel="6.12", drivers=("ours", "stock"))
