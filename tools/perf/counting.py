# SPDX-License-Identifier: GPL-2.0
"""Count the instructions that a guest's kernel executes per I/O.

A guest with one emulated CPU, whose clock counts instructions, runs fio twice on a
device, with more I/Os the second time.  The plugin insncount counts how often each
block of the kernel's code runs.  The cost of an I/O is the difference between the two
runs, divided by the difference in I/Os.  All other work of fio and of the guest is the
same in both runs, and cancels out.

The load of the host does not affect the counts, because no clock is involved.
"""

import json
import re
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from host import cache, deps
from host.ui import UserError
from vm import image, qemu_dist
from vm.arch import AMD64
from vm.disk import GIB, Disk
from vm.errors import GuestError
from vm.guest import Guest
from vm.kernels import Kernel

from .devices import by_serial
from .jobs import Job
from .symbols import Symbols

_HERE = Path(__file__).resolve().parent
_OLDEST_QEMU = (9, 1)

# The functions that allocate memory, the function that handles an interrupt, and the
# registers that notify a device.
_ALLOCATES = re.compile(r"(kmem_cache_alloc|__kmalloc|kmalloc|__alloc_pages"
                        r"|__alloc_frozen_pages)(?!.*bulk)\w*$")
_INTERRUPT = "common_interrupt"
_NOTIFIED = re.compile(r"virtio-pci-notify-virtio-(blk|scsi)$|nvme$")
_TAKE = ("_raw_spin_lock", "_raw_spin_lock_irq", "_raw_spin_lock_irqsave",
         "_raw_spin_lock_bh", "_raw_spin_trylock")
_RELEASE = ("_raw_spin_unlock", "_raw_spin_unlock_irq",
            "_raw_spin_unlock_irqrestore", "_raw_spin_unlock_bh")

# null_blk shows the cost of the block layer.  All other devices have QEMU's null
# backend.
DEVICES = ("null_blk", "nvme", "virtio-scsi", "stock", "ours")
DRIVERS = ("stock", "ours")
# Long enough that all requests of fio's queue complete together.
_LATENCY_NS = 2_000_000

_WARM_UP = 2048


@dataclass
class Cost:
    """The average cost of an I/O.

    ios: the number of I/Os that were counted.
    functions: {(function, module): (instructions, calls)} of the kernel.
    stores: {registers: number} of stores to devices.
    user: instructions in user mode.
    locked, acquisitions: instructions executed while a lock of the virtio-blk driver
        is held, and how often such a lock is taken.
    irqsoff: the kernel's instructions with interrupts off; None if not counted.
    """
    ios: int
    functions: dict[tuple[str, str], tuple[float, float]]
    stores: dict[str, float]
    user: float
    locked: float
    acquisitions: float
    irqsoff: float | None = None

    @property
    def kernel(self) -> float:
        """Instructions in the kernel."""
        return sum(count for count, _ in self.functions.values())

    def modules(self) -> dict[str, float]:
        """Return the instructions of each module, and of vmlinux."""
        found: dict[str, float] = {}
        for (_, module), (count, _) in self.functions.items():
            found[module] = found.get(module, 0) + count
        return found

    def _calls(self, wanted: Callable[[str], object]) -> float:
        return sum(calls for (name, _), (_, calls) in self.functions.items()
                   if wanted(name))

    @property
    def interrupts(self) -> float:
        """Interrupts of devices."""
        return self._calls(lambda name: name == _INTERRUPT)

    @property
    def kicks(self) -> float:
        """Stores that notify a device, of requests or of replies taken."""
        return sum(count for name, count in self.stores.items()
                   if _NOTIFIED.match(name))

    @property
    def allocations(self) -> float:
        """Calls that allocate memory."""
        return self._calls(_ALLOCATES.match)

    def as_dict(self) -> dict[str, Any]:
        """Return the Cost for JSON, with the most expensive functions first."""
        functions = sorted(self.functions.items(), key=lambda item: -item[1][0])
        return {
            "ios": self.ios, "kernel": round(self.kernel, 2),
            "user": round(self.user, 2), "locked": round(self.locked, 2),
            "acquisitions": round(self.acquisitions, 3),
            "irqsoff": self.irqsoff and round(self.irqsoff, 2),
            # A negative count comes from other work of the guest in the first run.
            "interrupts": max(round(self.interrupts, 4), 0),
            "kicks": max(round(self.kicks, 4), 0),
            "allocations": max(round(self.allocations, 4), 0),
            "modules": {name: round(count, 2)
                        for name, count in sorted(self.modules().items())
                        if round(count, 2)},
            "functions": [[name, module, round(count, 2), round(calls, 4)]
                          for (name, module), (count, calls) in functions
                          if abs(count) >= 0.05]}


class _Counts:
    """The counts that the plugin wrote at one mark."""

    user: int
    irqsoff: int
    locked: int
    acquisitions: int

    def __init__(self, path: Path):
        self.blocks: dict[tuple[int, int], int] = {}
        self.io: dict[str, int] = {}
        for line in path.read_text().splitlines():
            kind, *words = line.split()
            if kind == "block":
                self.blocks[int(words[0], 16), int(words[1])] = int(words[2])
            elif kind == "io":
                self.io[" ".join(words[:-1])] = int(words[-1])
            elif kind == "locked":
                self.locked, self.acquisitions = map(int, words)
            else:
                setattr(self, kind, int(words[0]))


def _cost(marks: list[_Counts], ios: int, symbols: Symbols, fine: bool) -> Cost:
    """Return the cost of an I/O from the three marks around two runs of fio.

    ios: the number of I/Os that the second run has more than the first.
    """
    def extra(read: Callable[[_Counts], float]) -> float:
        first, second, third = map(read, marks)
        return ((third - second) - (second - first)) / ios

    functions: dict[tuple[str, str], tuple[float, float]] = {}
    for key in marks[2].blocks:
        times = extra(lambda counts: counts.blocks.get(key, 0))
        if times:
            address, size = key
            name, module, entry = symbols.at(address)
            count, calls = functions.get((name, module), (0, 0))
            functions[name, module] = (count + times * size,
                                       calls + times * entry)
    stores = {name: extra(lambda counts: counts.io.get(name, 0))
              for name in marks[2].io}
    return Cost(ios, functions, stores, extra(lambda counts: counts.user),
                extra(lambda counts: counts.locked),
                extra(lambda counts: counts.acquisitions),
                extra(lambda counts: counts.irqsoff) if fine else None)


def _compile(directory: Path, source: Path, *flags: str) -> None:
    made = subprocess.run(
        ["gcc", "-O2", "-Wall", "-Wextra", "-Wno-unused-parameter", "-Werror",
         "-fPIC", "-shared", "-fvisibility=hidden", *flags,
         "-o", directory / f"{source.stem}.so", source],
        text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if made.returncode:
        raise UserError(f"compiling {source.name} failed:\n{made.stdout}")


def plugin() -> Path:
    """Return the path of the plugin; compile it first if needed."""
    deps.need("amd64")
    found = qemu_dist.version(qemu_dist.find())
    if found < _OLDEST_QEMU:
        raise UserError(
            f"QEMU is {found[0]}.{found[1]}, and counting instructions needs at least "
            f"{_OLDEST_QEMU[0]}.{_OLDEST_QEMU[1]}; set QEMU to the path of a newer "
            "qemu-system-x86_64, or unset it to use Debian's backport")
    source = _HERE / "insncount.c"
    name = "insncount-" + image._digest(source.read_text(),
                                        (_HERE / "qemu_plugin.h").read_text())
    return cache.populate(name, lambda made: _compile(made, source),
                          mib=4) / "insncount.so"


class CountingGuest:
    """A guest whose instructions are counted, in a with block.

    kernel: a vm.kernels.Kernel, or a name for vm.kernels.find().
    driver: the first virtio-blk driver to load, see Guest.
    queues: the disks' number of queues.  The guest has as many CPUs, but uses only
        the first one.
    properties: the disks' properties.
    options: further options of Guest.
    """

    def __init__(self, kernel: Kernel | str | Path, driver: str | Path = "ours",
                 queues: int = 1, properties: dict[str, Any] | None = None,
                 **options: Any):
        # Without ioeventfd the device runs in the CPU's thread, so the load of the
        # host does not change when it runs.
        properties = {"ioeventfd": False, **(properties or {})}
        self.guest = Guest(
            kernel, cpus=queues, driver=driver, cmdline="nokaslr maxcpus=1",
            disks=[Disk("null", queues=queues, **properties),
                   Disk("burst", queues=queues, latency_ns=_LATENCY_NS,
                        **properties)],
            **options)
        self.driver = driver
        self._mark = 0
        self._symbols: Symbols | None = None

    def __enter__(self) -> Self:
        self._temporary = tempfile.TemporaryDirectory(prefix="vblk-counts-")
        self._directory = Path(self._temporary.name)
        self._watch = self._directory / "watch"
        self._watch.write_text("")
        self.guest._qemu_args += [
            "-icount", "shift=0,sleep=off",
            "-plugin", f"file={plugin()},out={self._directory}/counts,"
                       f"watch={self._watch}",
            *_other_devices()]
        self.guest.__enter__()
        self.guest.put(image.program(_HERE / "mark.c", AMD64), "/run/mark")
        # Let the kernel finish its work after the boot.  The sleep takes almost no
        # real time, because the guest's clock counts instructions.
        self.guest.run("echo 4 > /proc/sys/vm/nr_hugepages; sleep 60",
                       timeout=300)
        return self

    def __exit__(self, *error: Any) -> None:
        try:
            # Kill QEMU: an idle guest with such a clock leaves its main thread little
            # time to handle QMP.
            if error[0] is None:
                self.guest.close(quit=False)
            self.guest.__exit__(*error)
        finally:
            self._temporary.cleanup()

    def use(self, driver: str) -> None:
        """Load a virtio-blk driver in place of the current one, or reload it."""
        self.guest.unload()
        if driver == "stock":
            self.guest.load_stock()
        else:
            self.guest.load()
        self.driver = driver
        self._symbols = None

    def path(self, device: str, burst: bool = False) -> str:
        """Return the path in the guest of a device, one of DEVICES."""
        guest = self.guest
        if device in DRIVERS:
            if device != self.driver:
                self.use(device)
            return "/dev/" + guest.dev("burst" if burst else "null")
        if device == "null_blk":
            guest.run("[ -e /dev/nullb0 ] || modprobe null_blk nr_devices=1")
            return "/dev/nullb0"
        return by_serial(guest, f"{device}-{'burst' if burst else 'null'}")

    def measure(self, device: str, job: Job, ios: int = 65536,
                fine: bool = False) -> Cost:
        """Return the Cost of an I/O of a job on a device.

        ios: the number of I/Os that the second run has more than the first.
        fine: also count instructions with interrupts off, which is slow.
        """
        path = self.path(device, job.burst)
        self._no_scheduler(path.removeprefix("/dev/"))
        if self._symbols is None or device == "null_blk":
            self._symbols = Symbols(
                self.guest.run("cat /proc/kallsyms", timeout=300).output)
        self._write_watch(self._symbols, fine)
        self._run(path, job, _WARM_UP, fine)
        marks = self._run(path, job, ios, fine)
        return _cost(marks, ios, self._symbols, fine)

    def _no_scheduler(self, name: str) -> None:
        """Set the scheduler none: others cost thousands of instructions.

        NVMe multipath disks have no scheduler file.
        """
        file = f"/sys/block/{name}/queue/scheduler"
        self.guest.run(f"[ ! -e {file} ] || "
                       f"{{ echo none > {file} && grep -qF '[none]' {file}; }}")

    def _write_watch(self, symbols: Symbols, fine: bool) -> None:
        lines = ["fine"] if fine else []
        extent = symbols.extent("virtio_blk")
        if extent:
            lines += [f"module {extent[0]:x} {extent[1]:x}"]
            lines += [f"take {address:x}"
                      for address in symbols.addresses(_TAKE)]
            lines += [f"release {address:x}"
                      for address in symbols.addresses(_RELEASE)]
        self._watch.write_text("".join(f"{line}\n" for line in lines))

    def _run(self, path: str, job: Job, ios: int, fine: bool) -> list[_Counts]:
        """Run fio with few I/Os, then with ios more; return the counts at the marks."""
        amounts = (_WARM_UP, _WARM_UP + ios)
        words = [f"--{key}={value}" for key, value in job.options().items()]
        fio = " ".join(["fio --name=job --thread --output-format=json",
                        f"--filename={path}", *words])
        script = "cd /run && rm -f *.json && /run/mark"
        for amount in amounts:
            script += (f" && {fio} --number_ios={amount} --size=1g "
                       f"--io_size=1t --output={amount}.json && /run/mark")
        self.guest.run(script, timeout=None)
        for amount in amounts:
            text = self.guest.run(f"cat /run/{amount}.json").output
            (done,) = json.loads(text[text.index("{"):])["jobs"]
            number = done["read"]["total_ios"] + done["write"]["total_ios"]
            if number != amount or done["error"]:
                raise GuestError(f"fio completed {number} of {amount} I/Os on {path}, "
                                 f"with error {done['error']}")
        marks = [_Counts(self._directory / f"counts.{self._mark + number}")
                 for number in range(3)]
        for number in range(3):
            (self._directory / f"counts.{self._mark + number}").unlink()
        self._mark += 3
        return marks


def _other_devices() -> list[str]:
    """Return QEMU's options for the NVMe and virtio-scsi devices."""
    options = ["-device", "virtio-scsi-pci,id=peer,num_queues=1,"
               "ioeventfd=off"]
    for kind, latency in (("null", 0), ("burst", _LATENCY_NS)):
        for device in ("nvme", "virtio-scsi"):
            options += ["-blockdev", json.dumps(
                {"driver": "null-co", "node-name": f"{device}-{kind}",
                 "size": GIB, "latency-ns": latency})]
        options += ["-device", f"nvme,drive=nvme-{kind},serial=nvme-{kind},"
                               "max_ioqpairs=1",
                    "-device", f"scsi-hd,bus=peer.0,drive=virtio-scsi-{kind},"
                               f"serial=virtio-scsi-{kind}"]
    return options
