# SPDX-License-Identifier: GPL-2.0
"""Builds of vblkstat, and directories with sys and proc that it reads with --root.

The directories can contain data that no kernel produces, so the program that reads
them is built with the address and undefined-behaviour sanitizers.
"""

import ctypes
import functools
import json
import os
import random
import select
import struct
import subprocess
from collections.abc import Container, Iterable
from pathlib import Path
from typing import Any

from host import cache, deps, repository

TOP = Path(__file__).resolve().parents[3]
SOURCES = TOP / "tools/vblkstat"

# Contents of files that no kernel produces.
ODD = [b"", b"\0" * 64, b"\xff" * 9000, b"-1\n", b"18446744073709551615\n",
       b"99999999999999999999999999\n", b"0-4294967295\n", b"3-1,,-\n", b"a\n",
       b"1 " * 5000, b"0x10\n", b"\n" * 5000, b"CPU" * 3000, b"%s%n%s%n\n",
       b"1" * 200 + b"\n", b"[", b"]none[\n", b"\x1b[2J\"\\\xc3\n",
       b"completions 1 2 3\nring -5\nreads\ncpus 9-1\ntype \x1b[31mpoll\n",
       b"reads 9\nslow_reads" + b" 18446744073709551614" * 12 + b"\nslow_others 1\n",
       b"  40: 1 2 3 4 virtio2-req.0\n  40:\n99999999999: 1 virtio2\n"]


@functools.cache
def build(kind: str, **variables: str) -> Path:
    """Build vblkstat in its own directory and return the path of the program."""
    deps.need("amd64", {"make": "make"})
    place = repository.writable(TOP / "build/vblkstat" / kind)
    words = [f"{name}={value}" for name, value in variables.items()]
    with cache.lock(place / ".lock", "vblkstat"):
        # Without the path of the repository, which can have a space.
        made = subprocess.run(["make", "-s", "-C", SOURCES,
                               f"OUT=../../build/vblkstat/{kind}", *words],
                              text=True, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT)
    # A warning of the compiler is output, and fails the test.
    assert (made.returncode, made.stdout) == (0, "")
    return place / "vblkstat"


def careful() -> Path:
    """Return a vblkstat with sanitizers, which abort on an invalid memory access."""
    return build("careful", CFLAGS="-O1 -g -Werror -fsanitize=address,undefined "
                                   "-fno-sanitize-recover=all")


@functools.cache
def _sysfs() -> Path:
    """Return a library for LD_PRELOAD with which each file system is sysfs."""
    deps.need("amd64")
    library = repository.writable(TOP / "build/vblkstat") / "sysfs.so"
    with cache.lock(library.with_name(".lock"), "sysfs.so"):
        subprocess.run(
            ["gcc", "-shared", "-fPIC", "-o", library, "-xc", "-"], check=True, text=True,
            input="#include <sys/vfs.h>\n"
                  "int statfs(const char *path, struct statfs *status)\n"
                  "{ (void)path; status->f_type = 0x62656572; return 0; }\n")
    return library


# Events of inotify: a process opened a file, or closed it after reading.
OPENED, CLOSED = 0x20, 0x10


class Events:
    """The kernel's events of a file that exists; one that replaces it has none."""

    def __init__(self, mask: int, path: Path):
        libc = ctypes.CDLL(None)
        self._queue = open(libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC), "rb",
                           buffering=0)
        assert libc.inotify_add_watch(self._queue.fileno(), str(path).encode(), mask) > 0

    def __enter__(self) -> "Events":
        return self

    def __exit__(self, *_: object) -> None:
        self._queue.close()

    def wait(self, seconds: float = 100) -> None:
        """Wait until there is an event that was not read."""
        assert select.select([self._queue], [], [], seconds)[0], "no event"

    def read(self) -> list[int]:
        """Return the events so far.  The kernel merges those that repeat each other."""
        data = self._queue.read(65536) or b""
        return [mask for _, mask, _, _ in struct.iter_unpack("iIII", data)]


def as_lines(values: dict[str, Any]) -> str:
    """Return the contents of a file in debugfs: a line for each name and value."""
    return "".join(f"{name} {value}\n" for name, value in values.items())


class FileTree:
    """A directory with sys and proc."""

    def __init__(self, path: Path, cpus: int = 4):
        self.path = path
        self.cpus = cpus
        self.write("sys/devices/system/cpu/online", f"0-{cpus - 1}\n")
        (path / "sys/kernel/debug").mkdir(parents=True)

    def write(self, path: str, text: str) -> None:
        """Write a file atomically: a reader sees the old or the new contents."""
        file = self.path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        new = self.path / "new" if file.exists() else file
        new.write_text(text)
        if new is not file:
            os.replace(new, file)

    def link(self, path: str, target: str) -> None:
        """Make a symbolic link."""
        file = self.path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.symlink_to(target)

    def run(self, *words: str,
            live: bool = False) -> subprocess.CompletedProcess[str]:
        """Run vblkstat on the tree and return the finished process.

        live: vblkstat takes the tree for the running kernel's, not for a copy.
        """
        env = dict(os.environ)
        if live:
            env |= {"LD_PRELOAD": str(_sysfs()),
                    "ASAN_OPTIONS": "verify_asan_link_order=0"}
        done = subprocess.run([careful(), f"--root={self.path}", *words], env=env,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              timeout=120, encoding="utf-8")
        assert "Sanitizer" not in done.stderr and "runtime error" not in \
            done.stderr, done.stderr
        return done

    def json(self, *words: str) -> dict[str, Any]:
        """Run vblkstat --json on the tree and return the parsed output."""
        return json.loads(self.run("--json", *words).stdout)

    def spoil(self, chance: random.Random) -> None:
        """Replace some files at random."""
        for path in sorted(self.path.rglob("*")):
            if path.is_dir() and not path.is_symlink() or chance.random() > 0.15:
                continue
            way = chance.choice(["odd"] * 6 + ["noise", "none", "directory", "fifo",
                                               "loop", "cut"])
            data = path.read_bytes() if path.is_file() else b""
            path.unlink()
            if way == "odd":
                path.write_bytes(chance.choice(ODD))
            elif way == "noise":
                path.write_bytes(chance.randbytes(chance.randrange(20000)))
            elif way == "directory":
                path.mkdir()
            elif way == "fifo":
                os.mkfifo(path)
            elif way == "loop":
                path.symlink_to(path.name)
            elif way == "cut":
                path.write_bytes(data[:chance.randrange(len(data) + 1)])


# A tree: four CPUs, and healthy disks with four queues each

def slow(counts: dict[int, int] | None = None) -> str:
    """Return the value of slow_reads for {ms: requests that took so long or more}."""
    return " ".join(str((counts or {}).get(16 << index, 0)) for index in range(12))


COUNTERS = {
    "ring": 256, "free": 256, "in_flight": 0, "stopped": 0, "reads": 5000,
    "read_bytes": 5000 * 4096, "writes": 0, "write_bytes": 0, "flushes": 0,
    "discards": 0, "discard_bytes": 0, "write_zeroes": 0, "write_zeroes_bytes": 0,
    "secure_erases": 0, "secure_erase_bytes": 0, "zone_appends": 0,
    "zone_append_bytes": 0, "zone_ops": 0, "queries": 1, "kicks": 1000,
    "kicks_suppressed": 4000, "interrupts": 900, "completions": "0 100 200 600 0 0 0",
    "ring_full": 0, "requeues": 0, "ioerr": 0, "unsupp": 0, "other_errors": 0,
    "longest_wait_ms": 12, "timeouts": 0, "lost_interrupts": 0, "resent": 0,
    "slow_reads": slow(), "slow_writes": slow(), "slow_others": slow(),
    "a_later_one": 7,
}
BLOCK = "sys/block/vda"
FEATURES = {1, 2, 6, 9, 12, 28, 29, 32}


def bits(features: Container[int], count: int = 64) -> str:
    return "".join("01"[bit in features] for bit in range(count))


class DiskTree(FileTree):
    """A directory with sys and proc, to which tests add disks."""

    def __init__(self, path: Path, cpus: int = 4):
        super().__init__(path, cpus)
        # For each interrupt its name, and its number on each CPU.
        self.irqs: dict[int, tuple[str, list[int]]] = {}
        (path / "sys/block").mkdir(parents=True)
        self.write_interrupts()

    def write_interrupts(self) -> None:
        lines = ["".join(f"{f'CPU{cpu}':>11}" for cpu in range(self.cpus))]
        for irq, (name, counts) in self.irqs.items():
            lines.append(f"{irq:>4}:" + "".join(f"{count:>11}" for count in counts)
                         + f"  PCI-MSIX-0000:00:05.0   {irq}-edge      {name}")
        self.write("proc/interrupts", "\n".join([*lines, " NMI:  0  0", "ERR: 0"])
                   + "\n")

    def add_disk(self, name: str, number: int, queues: int = 4) -> None:
        """Add a disk whose queues share the CPUs evenly."""
        virtio, block = f"virtio{number}", f"sys/block/{name}"
        device = f"sys/devices/pci0000:00/0000:00:{number:02x}.0"
        self.write(f"{device}/{virtio}/features", bits(FEATURES) + "\n")
        self.link(f"{device}/subsystem", "../../../bus/pci")
        self.link(f"{device}/{virtio}/driver", "../../../../bus/virtio/virtio_blk")
        self.link(f"{block}/device", f"../../../{device}/{virtio}")
        self.link(f"sys/bus/virtio/devices/{virtio}", f"../../../../{device}/{virtio}")
        for file, text in {
                "state": "live", "serial": name, "cache_type": "write back",
                "queue/write_cache": "write back", "size": "2097152", "ro": "0",
                "queue/scheduler": "[none] mq-deadline", "queue/iostats": "1",
                "queue/zoned": "none", "diskseq": str(number), "inflight": "0 0",
                "stat": "5 0 40 10 6 0 48 30 0 20 40 0 0 0 0 2 6",
                "recovery/timeouts": "0", "recovery/lost_interrupts": "0",
                "recovery/resets": "0"}.items():
            self.write(f"{block}/{file}", text + "\n")
        for index in range(queues):
            cpus = range(index, self.cpus, queues)
            for cpu in cpus:
                (self.path / block / f"mq/{index}/cpu{cpu}").mkdir(parents=True)
            self.write(f"{block}/mq/{index}/cpu_list",
                       ", ".join(map(str, cpus)) + "\n")
            self.write(f"{block}/mq/{index}/nr_tags", "256\n")
            irq = 24 + len(self.irqs)
            self.irqs[irq] = (f"{virtio}-req.{index}", [10] * self.cpus)
            for file in ("smp_affinity_list", "effective_affinity_list"):
                self.write(f"proc/irq/{irq}/{file}",
                           ",".join(map(str, cpus)) + "\n")
            self.write_queue(name, index, irq=irq)
        self.write_interrupts()

    def write_queue(self, name: str, index: int, **changed: Any) -> None:
        """Write the file of a queue in debugfs."""
        values = {"cpus": index, "type": "default", **COUNTERS, **changed}
        self.write(f"sys/kernel/debug/virtio_blk/{name}/queue{index}",
                   as_lines(values))

    def drop_lines(self, name: str, index: int, prefix: str) -> None:
        """Remove lines of a queue's file, as if the driver were older."""
        path = f"sys/kernel/debug/virtio_blk/{name}/queue{index}"
        lines = (self.path / path).read_text().splitlines(keepends=True)
        self.write(path, "".join(line for line in lines
                                 if not line.startswith(prefix)))

    def findings(self) -> dict[str, set[str]]:
        """Return the ids of doctor's findings, by disk."""
        found: dict[str, set[str]] = {}
        for finding in self.json("doctor")["findings"]:
            found.setdefault(finding["disk"], set()).add(finding["id"])
        return found


def total_of(lines: Iterable[str], name: str, *path: str | int) -> float:
    """Return the total count behind a rate, over lines of watch's JSON."""
    total: float = 0
    for line in lines:
        (disk,) = json.loads(line)["disks"]
        node = disk
        for step in path:
            node = node[step]
        total += node[name] * disk["seconds"]
    return total
