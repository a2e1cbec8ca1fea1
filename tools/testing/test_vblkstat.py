# SPDX-License-Identifier: GPL-2.0
"""Test that vblkstat shows the true state of the disks, with either driver.

One guest has healthy disks and disks with flaws.  The tests compare the output of
vblkstat with sysfs, procfs and debugfs.  On the host, vblkstat reads trees of files
with --root.  They can contain data that no kernel produces, so that program is built
with the address and undefined-behaviour sanitizers.
"""

import contextlib
import fcntl
import functools
import json
import os
import pty
import random
import re
import shutil
import struct
import subprocess
import termios
import threading
from pathlib import Path

import pytest

import fio
import topology
from vm import cache, host
from vm.disk import Disk
from vm.guest import Guest

MIB = 1 << 20
TOP = Path(__file__).resolve().parents[2]
SOURCES = TOP / "tools/vblkstat"
COMMANDS = ("list", "queues", "watch", "doctor")


@functools.cache
def build(kind, **variables):
    """Build vblkstat in its own directory and return the path of the program."""
    host.need("amd64", {"make": "make"})
    place = TOP / "build/vblkstat" / kind
    place.mkdir(parents=True, exist_ok=True)
    words = [f"{name}={value}" for name, value in variables.items()]
    with cache.lock(place / ".lock", "vblkstat"):
        made = subprocess.run(["make", "-s", "-C", SOURCES, f"OUT={place}", *words],
                              text=True, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT)
    # A warning of the compiler is output, and fails the test.
    assert (made.returncode, made.stdout) == (0, "")
    return place / "vblkstat"


def static():
    """Return a static vblkstat, which any guest can run."""
    return build("static", LDFLAGS="-static", CFLAGS="-O2 -g -Werror")


def careful():
    """Return a vblkstat with sanitizers, which abort on an invalid memory access."""
    return build("careful", CFLAGS="-O1 -g -Werror -fsanitize=address,undefined "
                                   "-fno-sanitize-recover=all")


# A tree: four CPUs, and healthy disks with four queues each

COUNTERS = {
    "ring": 256, "free": 256, "in_flight": 0, "stopped": 0, "reads": 5000,
    "read_bytes": 5000 * 4096, "writes": 0, "write_bytes": 0, "flushes": 0,
    "discards": 0, "discard_bytes": 0, "write_zeroes": 0, "write_zeroes_bytes": 0,
    "secure_erases": 0, "secure_erase_bytes": 0, "zone_appends": 0,
    "zone_append_bytes": 0, "zone_ops": 0, "queries": 1, "kicks": 1000,
    "kicks_suppressed": 4000, "interrupts": 900, "completions": "0 100 200 600 0 0 0",
    "ring_full": 0, "requeues": 0, "ioerr": 0, "unsupp": 0, "other_errors": 0,
    "longest_wait_ms": 12, "timeouts": 0, "lost_interrupts": 0, "resent": 0,
    "a_later_one": 7,
}
FEATURES = {1, 2, 6, 9, 12, 28, 29, 32}


def bits(features, count=64):
    return "".join("01"[bit in features] for bit in range(count))


class Tree:
    """A directory with sys and proc, to which tests add disks."""

    def __init__(self, path, cpus=4):
        self.path = path
        self.cpus = cpus
        self.irqs = {}
        self.write("sys/devices/system/cpu/online", f"0-{cpus - 1}\n")
        (path / "sys/block").mkdir(parents=True)
        (path / "sys/kernel/debug").mkdir(parents=True)
        self.write_interrupts()

    def write(self, path, text):
        """Write a file atomically: a reader sees the old or the new contents."""
        file = self.path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        new = self.path / "new" if file.exists() else file
        new.write_text(text)
        if new is not file:
            os.replace(new, file)

    def write_interrupts(self):
        lines = ["".join(f"{f'CPU{cpu}':>11}" for cpu in range(self.cpus))]
        for irq, (name, counts) in self.irqs.items():
            lines.append(f"{irq:>4}:" + "".join(f"{count:>11}" for count in counts)
                         + f"  PCI-MSIX-0000:00:05.0   {irq}-edge      {name}")
        self.write("proc/interrupts", "\n".join([*lines, " NMI:  0  0", "ERR: 0"])
                   + "\n")

    def add_disk(self, name, number, queues=4):
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

    def write_queue(self, name, index, **changed):
        """Write the file of a queue in debugfs."""
        values = {"cpus": index, "type": "default", **COUNTERS, **changed}
        self.write(f"sys/kernel/debug/virtio_blk/{name}/queue{index}", "".join(
            f"{key} {value}\n" for key, value in values.items()))

    def link(self, path, target):
        file = self.path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.symlink_to(target)

    def run(self, *words):
        """Run vblkstat on the tree and return the finished process."""
        done = subprocess.run([careful(), f"--root={self.path}", *words],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              timeout=120, encoding="utf-8")
        assert "Sanitizer" not in done.stderr and "runtime error" not in \
            done.stderr, done.stderr
        return done

    def json(self, *words):
        """Run vblkstat --json on the tree and return the parsed output."""
        return json.loads(self.run("--json", *words).stdout)

    def findings(self):
        """Return the ids of doctor's findings, by disk."""
        found = {}
        for finding in self.json("doctor")["findings"]:
            found.setdefault(finding["disk"], set()).add(finding["id"])
        return found


@pytest.fixture
def tree(tmp_path):
    """A tree with the healthy disk vda."""
    tree = Tree(tmp_path / "tree")
    tree.add_disk("vda", 2)
    return tree


def test_command_line(tree):
    """An invalid command line prints a message and exits with status 2."""
    for words, message in (
            ((), "command is missing"), (("look",), 'no command "look"'),
            (("list", "vdb"), "no virtio-blk disk vdb"),
            (("queues", "1"), "too many arguments"),
            (("watch", "1", "2", "3"), "too many arguments"),
            (("watch", "0"), "not an interval"), (("watch", "1", "0"), "not a count"),
            (("--root=", "list"), "--root= is empty"),
            (("--jsan", "list"), "--help")):
        done = tree.run(*words)
        assert done.returncode == 2 and message in done.stderr, words
        assert not done.stdout
    version = subprocess.check_output([TOP / "tools/packaging/version"], text=True)
    for option, text in (("--help", "vblkstat doctor"),
                         ("--version", f"vblkstat {version}")):
        done = tree.run(option)
        assert done.returncode == 0 and text in done.stdout and not done.stderr
    with open("/dev/full", "w") as full:
        done = subprocess.run([careful(), f"--root={tree.path}", "list"],
                              stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2 and "No space left" in done.stderr


def test_no_disks(tmp_path):
    """Without disks, list and queues print none, and doctor fails."""
    tree = Tree(tmp_path / "tree")
    assert tree.run("list").returncode == 0
    assert tree.json("list")["disks"] == tree.json("queues")["disks"] == []
    assert tree.run("doctor").returncode == 2


def test_well(tree):
    """A healthy disk has no findings, and list and queues show all its data."""
    done = tree.run("doctor")
    assert done.returncode == 0 and "0 findings on 1 disk\n" in done.stdout
    (disk,) = tree.json("list")["disks"]
    assert {feature["bit"] for feature in disk["features"]} == FEATURES
    assert (disk["device"], disk["bus"], disk["serial"], disk["bytes"]) == \
        ("virtio2", "pci", "vda", 1 << 30)
    assert disk["driver"] == {"name": "virtio_blk", "version": None,
                              "in_tree": False}
    (disk,) = tree.json("queues", "/dev/vda")["disks"]
    expected = {name: value for name, value in COUNTERS.items()
                if name not in ("ring", "free", "in_flight", "stopped",
                                "a_later_one")}
    expected["completions"] = [int(count) for count in COUNTERS["completions"].split()]
    for index, queue in enumerate(disk["queues"]):
        assert queue == {
            "queue": index, "type": "default", "cpus": [index], "irq": 24 + index,
            "vector": "own", "affinity": [index], "effective_affinity": [index],
            "interrupts": 40, "depth": 256, "ring": 256, "free": 256,
            "in_flight": 0, "stopped": False, "counters": expected}


def test_many(tmp_path):
    """vblkstat shows 27 disks with 64 queues each, in the order of their names."""
    tree = Tree(tmp_path / "tree", cpus=64)
    names = [f"vd{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"]
    for number, name in enumerate([*reversed(names), "vdaa"]):
        tree.add_disk(name, number, queues=64)
    disks = tree.json("queues")["disks"]
    assert [disk["name"] for disk in disks] == [*names, "vdaa"]
    for disk in disks:
        assert [queue["cpus"] for queue in disk["queues"]] == \
            [[cpu] for cpu in range(64)]
    (line,) = tree.run("--json", "watch", "0.1", "1").stdout.splitlines()
    assert sum(len(disk["queues"]) for disk in json.loads(line)["disks"]) == 27 * 64


# One flaw at a time: a file, its contents, and the id of the finding

BLOCK = "sys/block/vda"
PARAMETERS = "sys/module/virtio_blk/parameters"
WAYS = [
    (f"{BLOCK}/state", "stalled", "stalled"),
    (f"{BLOCK}/state", "dead", "dead"),
    (f"{BLOCK}/state", "resetting", "resetting"),
    (f"{BLOCK}/state", "suspended", "suspended"),
    (f"{BLOCK}/recovery/timeouts", "3", "timeouts"),
    (f"{BLOCK}/recovery/lost_interrupts", "1", "lost-interrupts"),
    (f"{BLOCK}/recovery/resets", "1", "resets"),
    (f"{BLOCK}/device/features", bits(FEATURES - {9}), "no-flush"),
    (f"{BLOCK}/device/features", bits(FEATURES - {29}), "no-event-index"),
    (f"{BLOCK}/queue/write_cache", "write through", "flush-off"),
    (f"{BLOCK}/lifetime/pre_eol_info", "0x03 urgent", "worn"),
    (f"{BLOCK}/queue/scheduler", "none [mq-deadline]", "scheduler"),
    (f"{BLOCK}/mq/0/nr_tags", "42", "small-ring"),
    (f"{PARAMETERS}/queue_depth", "1000", "clamped-depth"),
    ("proc/irq/25/smp_affinity_list", "0-3", "affinity"),
    ("proc/irq/25/effective_affinity_list", "0", "affinity"),
    ("sys/devices/system/cpu/online", "0-7", "few-queues"),
]
WELL = [
    (f"{BLOCK}/state", "removing"),
    (f"{BLOCK}/queue/scheduler", "none [kyber]"),
    (f"{BLOCK}/lifetime/pre_eol_info", "0x01 normal"),
    (f"{PARAMETERS}/queue_depth", "256"),
    # CPU 9 is offline and gets no interrupts.
    ("proc/irq/25/smp_affinity_list", "1,9"),
    ("sys/devices/system/cpu/online", "0-1"),
]
COUNTED = [
    ({"longest_wait_ms": 5000}, "long-wait"), ({"ioerr": 1}, "errors"),
    ({"other_errors": 1}, "errors"), ({"unsupp": 1}, "unsupported"),
    ({"ring_full": 300}, "ring-full"), ({"kicks": 19000}, "many-kicks"),
    ({"type": "poll", "irq": 0}, "few-queues"),
]
COUNTED_WELL = [
    {"longest_wait_ms": 4999}, {"ring_full": 200}, {"ring_full": 99, "reads": 5},
    # With one request at a time, no kick can be suppressed.
    {"kicks": 19000, "completions": "0 5000 0 0 0 0 0"},
]


@pytest.mark.parametrize("path,text,id", WAYS)
def test_finding(tree, path, text, id):
    """doctor reports the flaw that a file shows, and no other, with advice."""
    tree.write(path, text + "\n")
    assert tree.findings() == {"vda": {id}}
    done = tree.run("doctor")
    assert done.returncode == 1
    assert "vda: error: " in done.stdout or "vda: warning: " in done.stdout
    assert "why: " in done.stdout
    assert "host: " in done.stdout or "guest: " in done.stdout


@pytest.mark.parametrize("path,text", WELL)
def test_no_finding(tree, path, text):
    """doctor reports nothing for harmless values."""
    tree.write(path, text + "\n")
    assert tree.findings() == {}


@pytest.mark.parametrize("counters,id", COUNTED)
def test_counted_finding(tree, counters, id):
    """doctor reports the flaw that a queue's counters show."""
    tree.write_queue("vda", 2, **counters)
    assert tree.findings() == {"vda": {id}}


@pytest.mark.parametrize("counters", COUNTED_WELL)
def test_no_counted_finding(tree, counters):
    """doctor reports nothing for counters below its limits."""
    tree.write_queue("vda", 2, **counters)
    assert tree.findings() == {}


@pytest.mark.parametrize("vector", ["-virtqueues", ""])
def test_shared_vector(tree, vector):
    """doctor reports queues that share an interrupt, and queues shows its number."""
    tree.irqs = {24: (f"virtio2{vector}, virtio3{vector}", [1, 2, 3, 4])}
    tree.write_interrupts()
    assert tree.findings() == {"vda": {"shared-vector"}}
    (disk,) = tree.json("queues")["disks"]
    assert {(queue["irq"], queue["vector"], queue["interrupts"])
            for queue in disk["queues"]} == \
        {(24, "shared" if vector else "device", 10)}


def test_in_tree_driver_is_found(tree):
    """Without the files state and version, vblkstat takes the driver as in-tree."""
    (tree.path / BLOCK / "state").unlink()
    shutil.rmtree(tree.path / BLOCK / "recovery")
    shutil.rmtree(tree.path / "sys/kernel/debug/virtio_blk")
    assert tree.findings() == {"vda": {"in-tree-driver"}}
    output = tree.json("queues")
    assert all(queue["counters"] is queue["type"] is None
               for queue in output["disks"][0]["queues"])
    assert len(output["notes"]) == 1


def test_copy_without_links(tree):
    """vblkstat finds a disk's device in a copy of sysfs without symbolic links."""
    (tree.path / BLOCK / "device").unlink()
    (tree.path / "sys/bus/virtio/devices/virtio2/block/vda").mkdir(parents=True)
    (disk,) = tree.json("list")["disks"]
    assert disk["device"] == "virtio2"
    assert {feature["bit"] for feature in disk["features"]} == FEATURES


# Rates

def watching(tree, *words):
    return subprocess.Popen([careful(), f"--root={tree.path}", *words],
                            stdout=subprocess.PIPE, text=True)


def total_of(lines, name, *path):
    """Return the total count behind a rate, over lines of watch's JSON."""
    total = 0
    for line in lines:
        (disk,) = json.loads(line)["disks"]
        node = disk
        for step in path:
            node = node[step]
        total += node[name] * disk["seconds"]
    return total


def approx(count):
    """Return a value that equals a count within the precision of the output."""
    return pytest.approx(count, rel=1e-4)


def test_rates(tree):
    """watch shows the growth of the counters as rates of the disk and the queue."""
    with watching(tree, "--json", "watch", "vda", "0.1", "9") as watch:
        first = watch.stdout.readline()
        tree.write_queue("vda", 1, reads=5600, read_bytes=5600 * 4096, kicks=1150,
                         interrupts=1000, ring_full=9)
        tree.write(f"{BLOCK}/stat",
                   "605 0 4840 1210 6 0 48 30 0 20 40 0 0 0 0 4 10\n")
        lines = watch.stdout.readlines()
    assert watch.returncode == 0 and len(lines) == 8
    assert total_of([first], "reads_per_second") == 0
    for name, count in {"reads": 600, "read_bytes": 4800 * 512, "flushes": 2}.items():
        assert total_of(lines, f"{name}_per_second") == approx(count), name
    for name, count in {"reads": 600, "bytes": 600 * 4096, "kicks": 150,
                        "interrupts": 100, "ring_full": 9}.items():
        assert total_of(lines, f"{name}_per_second", "queues", 1) == approx(count), name
        assert total_of(lines, f"{name}_per_second", "queues", 2) == 0, name
    for line in lines:
        (disk,) = json.loads(line)["disks"]
        if disk["reads_per_second"]:
            assert (disk["read_ms"], disk["write_ms"], disk["flush_ms"]) == \
                (2, None, 2)
        queue = disk["queues"][1]
        if queue["reads_per_second"]:
            assert (queue["kicks_per_request"],
                    queue["requests_per_interrupt"]) == (0.25, 6)


def test_rates_of_another_disk(tree):
    """watch shows no rate for counters that restart."""
    with watching(tree, "--json", "watch", "vda", "0.1", "9") as watch:
        watch.stdout.readline()
        tree.write_queue("vda", 1, reads=1)
        tree.write(f"{BLOCK}/stat", "1 0 8 1 0 0 0 0 0 0 0\n")
        rates = [json.loads(line)["disks"][0] for line in watch.stdout]
    assert None in [disk["reads_per_second"] for disk in rates]
    assert None in [disk["queues"][1]["reads_per_second"] for disk in rates]
    assert {disk["reads_per_second"] for disk in rates} == {None, 0}


def test_disk_that_goes(tree):
    """watch of one disk ends when the disk disappears; watch of all disks continues."""
    for words, status in ((("vda",), 2), ((), 0)):
        with watching(tree, "--json", "watch", *words, "0.1", "9") as watch:
            watch.stdout.readline()
            os.rename(tree.path / BLOCK, tree.path / "gone")
            rest = watch.stdout.readlines()
        os.rename(tree.path / "gone", tree.path / BLOCK)
        assert watch.returncode == status
        assert len(rest) == 8 or status


def test_terminal(tree):
    """On a terminal, watch draws in place and stays within the size of the screen."""
    for number in range(3, 9):
        tree.add_disk(f"vd{'abcdefghi'[number]}", number)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 20, 60, 0, 0))
    with subprocess.Popen([careful(), f"--root={tree.path}", "watch", "0.1", "2"],
                          stdout=theirs) as watch:
        os.close(theirs)
        output = b""
        with contextlib.suppress(OSError):
            while more := os.read(ours, 65536):
                output += more
    os.close(ours)
    assert watch.returncode == 0
    _, *screens = output.decode().split("\033[H")
    assert len(screens) == 2
    for screen in screens:
        lines = re.sub(r"\033\[[KJ]", "", screen).splitlines()
        assert len(lines) < 20 and max(map(len, lines)) < 60
        assert "more lines" in lines[-1] and "vda " in screen


# Contents that no kernel produces

ODD = [b"", b"\0" * 64, b"\xff" * 9000, b"-1\n", b"18446744073709551615\n",
       b"99999999999999999999999999\n", b"0-4294967295\n", b"3-1,,-\n", b"a\n",
       b"1 " * 5000, b"0x10\n", b"\n" * 5000, b"CPU" * 3000, b"%s%n%s%n\n",
       b"1" * 200 + b"\n", b"[", b"]none[\n", b"\x1b[2J\"\\\xc3\n",
       b"completions 1 2 3\nring -5\nreads\ncpus 9-1\ntype \x1b[31mpoll\n",
       b"  40: 1 2 3 4 virtio2-req.0\n  40:\n99999999999: 1 virtio2\n"]


def spoil(tree, chance):
    """Replace some files of a tree at random."""
    for path in sorted(tree.path.rglob("*")):
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


@pytest.mark.parametrize("seed", range(60 if os.environ.get("FULL") else 6))
def test_odd_contents(tmp_path, seed):
    """With any file contents, the output is valid JSON or printable ASCII."""
    chance = random.Random(seed)
    tree = Tree(tmp_path / "tree")
    for number, name in enumerate(("vda", "vdb", "vdzzz")):
        tree.add_disk(name, number)
    for name in ("vd", "vda1", "vd\n", "vdabcdef", "vdé", "sda"):
        (tree.path / "sys/block" / name).mkdir()
    (tree.path / BLOCK / "mq/4294967296").mkdir()
    (tree.path / BLOCK / "mq/-1").mkdir()
    (tree.path / BLOCK / "mq/9999").mkdir()
    spoil(tree, chance)
    for words in (["list"], ["queues"], ["watch", "0.1", "1"], ["doctor"]):
        done = tree.run(*words)
        assert done.returncode in (0, 1) and done.stdout
        assert re.fullmatch(r"[ -~\n]*", done.stdout)
        done = tree.run("--json", *words)
        assert done.returncode in (0, 1)
        assert json.loads(done.stdout)["command"] == words[0]


def test_files_that_come_and_go(tree):
    """vblkstat works while disks and queues disappear and return."""
    stop = threading.Event()
    places = [tree.path / BLOCK, tree.path / BLOCK / "mq/2",
              tree.path / "sys/kernel/debug/virtio_blk", tree.path / "proc/irq/25"]

    def move():
        while not stop.is_set():
            for place in places:
                os.rename(place, tree.path / "away")
                os.rename(tree.path / "away", place)

    mover = threading.Thread(target=move)
    mover.start()
    try:
        for _ in range(4):
            for words in (["list"], ["queues"], ["watch", "0.1", "1"]):
                json.loads(tree.run("--json", *words).stdout)
    finally:
        stop.set()
        mover.join()


def test_completion():
    """bash completes commands, options and names of disks."""
    def complete(*words):
        script = (f"source {SOURCES}/completion/vblkstat; COMP_WORDS=(\"$@\"); "
                  'COMP_CWORD=$(($# - 1)); _vblkstat; echo "${COMPREPLY[@]}"')
        return subprocess.run(["bash", "-c", script, "bash", "vblkstat", *words],
                              check=True, stdout=subprocess.PIPE,
                              text=True).stdout.split()

    assert complete("") == list(COMMANDS)
    assert complete("--json", "d") == ["doctor"]
    assert "--json" in complete("-")
    disks = [path.name for path in Path("/sys/block").glob("vd*")]
    assert sorted(complete("queues", "")) == sorted(disks)


# In a guest

# Findings of doctor by disk.  On a busy host, any disk may also have long-wait.
FINDINGS = {
    "four": set(), "one": {"few-queues"}, "small": {"small-ring"},
    "shared": {"shared-vector"}, "plain": {"no-event-index"}, "slow": set(),
}
VBLKSTAT = "/run/vblkstat"


@pytest.fixture(scope="module")
def guest(kernel):
    """A guest with four CPUs, healthy disks and one disk for each flaw."""
    disks = [
        Disk("four", "ram", 64 * MIB, queues=4),
        Disk("one", queues=1),
        Disk("small", queues=4, queue_size=16, seg_max_adjust=True),
        Disk("shared", queues=4, vectors=2),
        Disk("plain", queues=4, event_idx=False),
        Disk("slow", queues=4),
    ]
    with Guest(kernel, cpus=4, disks=disks) as guest:
        guest.put(static(), VBLKSTAT)
        guest.run("mountpoint -q /sys/kernel/debug || "
                  "mount -t debugfs none /sys/kernel/debug")
        yield guest


def ask(guest, words, status=0):
    """Run vblkstat --json in the guest and return the parsed output."""
    done = guest.run(f"{VBLKSTAT} --json {words}", check=False, timeout=120)
    assert done.status == status, done.output
    return json.loads(done.output)


def by_id(guest, output):
    """Return the data of each disk, by the disk's id."""
    names = {guest.dev(id): id for id in guest.disks}
    return {names[disk["name"]]: disk for disk in output["disks"]}


def check_list(guest, ours):
    """Check that list agrees with sysfs."""
    disks = by_id(guest, ask(guest, "list"))
    assert set(disks) == set(guest.disks)
    for id, disk in disks.items():
        block = f"/sys/block/{guest.dev(id)}"
        features = guest.sysfs(f"{block}/device/features")
        assert [feature["bit"] for feature in disk["features"]] == \
            [bit for bit, value in enumerate(features) if value == "1"]
        assert disk["bytes"] == int(guest.sysfs(f"{block}/size")) * 512
        assert disk["serial"] == id
        assert disk["bus"] == "pci"
        assert disk["driver"]["in_tree"] is not ours
        assert disk["state"] == (guest.sysfs(f"{block}/state") if ours else None)
        assert disk["queues"]["total"] == guest.disks[id].queues
        assert disk["depth"] == int(guest.sysfs(f"{block}/mq/0/nr_tags"))
        assert not [feature for feature in disk["features"]
                    if feature["name"] == feature["words"]]


def check_queues(guest):
    """Check that queues agrees with /proc and sysfs; return its output by disk id."""
    disks = by_id(guest, ask(guest, "queues"))
    layout = topology.read(guest)
    for id, disk in disks.items():
        known = layout.disks[id]
        assert disk["device"] == known.virtio
        assert {queue["queue"]: set(queue["cpus"]) for queue in disk["queues"]} \
            == known.queues["default"]
        for queue in disk["queues"]:
            vector = {"own": f"req.{queue['queue']}",
                      "shared": "virtqueues"}[queue["vector"]]
            interrupt = known.interrupts[vector]
            assert queue["irq"] == interrupt.number
            assert set(queue["affinity"]) == interrupt.affinity
            assert queue["effective_affinity"] == sorted(topology.parse_cpus(
                guest.sysfs(f"/proc/irq/{queue['irq']}/effective_affinity_list")))
    assert {queue["vector"] for queue in disks["shared"]["queues"]} == {"shared"}
    return disks


def check_counters(guest):
    """Check that queues shows the counters in debugfs, while no I/O runs."""
    disks = ask(guest, "queues")["disks"]
    listing = guest.run("cd /sys/kernel/debug/virtio_blk; grep . */queue*").output
    known = {}
    for line in listing.splitlines():
        path, _, text = line.partition(":")
        known.setdefault(path, {}).update([text.split(" ", 1)])
    for disk in disks:
        for queue in disk["queues"]:
            lines = known.pop(f"{disk['name']}/queue{queue['queue']}")
            for name in ("type", "ring", "free", "in_flight"):
                assert str(queue[name]) == lines[name]
            assert lines["irq"] in ("0", str(queue["irq"]))
            completions = queue["counters"].pop("completions")
            assert " ".join(map(str, completions)) == lines["completions"]
            assert None not in queue["counters"].values()
            assert queue["counters"] == {name: int(lines[name])
                                         for name in queue["counters"]}
        assert any(queue["counters"]["reads"] for queue in disk["queues"])
    assert not known


def check_watch(guest, counted):
    """Check that watch shows no more I/O than there was, and at least half of it."""
    name = guest.dev("four")
    stat = f"/sys/block/{name}/stat"
    load = fio.start(guest, f"/dev/{name}", rw="randread", bs="4k", iodepth=4,
                     time_based=True, runtime=60, size="32m", numjobs=2)
    first = int(guest.sysfs(stat).split()[0])
    output = guest.run(
        f"for i in $(seq 300); do read reads rest < {stat}; "
        f"[ $reads -gt {first + 100} ] && break; sleep 0.1; done; cat {stat}; "
        f"{VBLKSTAT} --json watch {name} 0.5 3; cat {stat}").output.splitlines()
    load.kill()
    before, *lines, after = output
    completed = int(after.split()[0]) - int(before.split()[0])
    assert 0.5 * completed < total_of(lines, "reads_per_second") <= completed + 1
    for line in lines:
        (disk,) = json.loads(line)["disks"]
        assert disk["read_ms"] > 0
        assert sum(queue["interrupts_per_second"] for queue in disk["queues"]) > 0
        if counted:
            # The driver counts requests in flight; the block layer does not.
            reads = sum(queue["reads_per_second"] for queue in disk["queues"])
            assert abs(reads - disk["reads_per_second"]) * disk["seconds"] < \
                0.2 * reads * disk["seconds"] + 20


def findings(guest, seconds=0.5, status=1):
    """Return the ids of doctor's findings by the disk's id, without long-wait."""
    output = ask(guest, f"doctor {seconds}", status)
    names = {guest.dev(id): id for id in guest.disks}
    found = {id: set() for id in guest.disks}
    for finding in output["findings"]:
        assert finding["what"] and finding["why"]
        assert finding["host"] or finding["guest"]
        found[names[finding["disk"]]].add(finding["id"])
    return {id: ids - {"long-wait"} for id, ids in found.items()}


@pytest.mark.kernels("6.12")
def test_list(guest):
    """list agrees with sysfs and shows features in words."""
    check_list(guest, ours=True)
    text = guest.run(f"{VBLKSTAT} list").output
    assert "event index" in text and "in-tree" not in text


@pytest.mark.kernels("6.12")
def test_queues(guest):
    """queues agrees with sysfs, procfs and the driver's counters."""
    check_queues(guest)
    check_counters(guest)


@pytest.mark.kernels("6.12")
def test_watch(guest):
    """watch's rates agree with the counts of the block layer."""
    check_watch(guest, counted=True)


@pytest.mark.kernels("6.12")
def test_doctor(guest):
    """doctor reports the flaw of each disk, and no other."""
    assert findings(guest) == FINDINGS
    done = guest.run(f"{VBLKSTAT} doctor {guest.dev('one')} 0.1", check=False)
    assert done.status == 1 and "num-queues" in done.output
    ask(guest, f"doctor {guest.dev('four')} 0.1", status=0)


# Copies only the files that vblkstat reads: reading some others has side effects.
_COPY = """
mkdir -p /run/copy; cd /
for name in stat inflight state size cache_type diskseq mq/*/cpu_list mq/*/nr_tags \\
    queue/scheduler queue/write_cache; do
    files="$files sys/block/{disk}/$name"
done
for irq in {irqs}; do files="$files proc/irq/$irq/*_list"; done
cp --parents $files sys/devices/system/cpu/online proc/interrupts \\
    sys/bus/virtio/devices/{device}/features \\
    sys/bus/virtio/devices/{device}/block/{disk}/size \\
    sys/kernel/debug/virtio_blk/{disk}/queue* /run/copy
"""


@pytest.mark.kernels("6.12")
def test_doctor_affinity(guest):
    """doctor reports an interrupt whose affinity differs from its queue's CPUs."""
    # The affinity of managed interrupts cannot be changed: change it in a copy.
    disk = by_id(guest, ask(guest, "queues"))["four"]
    irqs = [queue["irq"] for queue in disk["queues"]]
    guest.run(_COPY.format(disk=disk["name"], device=disk["device"],
                           irqs=" ".join(map(str, irqs))))
    copied = f"--root=/run/copy doctor {disk['name']}"
    ask(guest, copied, status=0)
    guest.run(f"echo 0-3 > /run/copy/proc/irq/{irqs[2]}/smp_affinity_list")
    output = ask(guest, copied, status=1)
    assert [finding["id"] for finding in output["findings"]] == ["affinity"]
    assert f"IRQ {irqs[2]}" in output["findings"][0]["what"]


@pytest.mark.kernels("6.12")
def test_doctor_stuck(guest):
    """doctor reports requests that do not complete, and list does not wait for them."""
    name = guest.dev("slow")

    def limit(bytes):
        guest.qmp("block_set_io_throttle", bps=bytes, bps_rd=0, bps_wr=0, iops=0,
                  iops_rd=0, iops_wr=0,
                  id="/machine/peripheral/slow/virtio-backend")

    limit(1)
    reader = guest.start(f"for i in 1 2; do dd if=/dev/{name} of=/dev/null bs=64k "
                         "count=1 skip=$i iflag=direct & done; wait")
    try:
        guest.run(f"for i in $(seq 100); do awk '{{ exit !($1 > 0) }}' "
                  f"/sys/block/{name}/inflight && exit 0; sleep 0.1; done; exit 1")
        guest.run("sleep 1")
        found = findings(guest)
        listed = by_id(guest, ask(guest, "list"))["slow"]["serial"]
    finally:
        limit(0)
    reader.wait()
    assert found == FINDINGS | {"slow": {"stuck"}}
    assert listed in ("slow", None)
    assert "stuck" not in findings(guest)["slow"]


@pytest.mark.kernels("6.12")
def test_without_debugfs(guest):
    """Without debugfs or root, only the counters are missing, and a note says why."""
    plain = f"setpriv --reuid=65534 --clear-groups {VBLKSTAT} --json"
    output = json.loads(guest.run(f"{plain} queues").output)
    assert any("root" in note for note in output["notes"])
    guest.run("umount -R /sys/kernel/debug")
    try:
        output = ask(guest, "queues")
        assert any("mount -t debugfs" in note for note in output["notes"])
        for disk in by_id(guest, output).values():
            assert all(queue["counters"] is None and queue["irq"]
                       for queue in disk["queues"])
        assert findings(guest, 0.1) == FINDINGS
        text = guest.run(f"{VBLKSTAT} queues").output
        assert text.count("mount -t debugfs") == 1
    finally:
        guest.run("mount -t debugfs none /sys/kernel/debug")


@pytest.mark.kernels("6.12")
@pytest.mark.module
def test_in_tree_driver_in_guest(guest):
    """With the in-tree driver, everything except the counters works."""
    guest.unload()
    guest.load_stock()
    try:
        check_list(guest, ours=False)
        for disk in check_queues(guest).values():
            assert {queue["type"] for queue in disk["queues"]} == {"default"}
            assert {queue["counters"] for queue in disk["queues"]} == {None}
        check_watch(guest, counted=False)
        found = findings(guest, 0.1)
        assert all("in-tree-driver" in ids for ids in found.values())
        assert "few-queues" in found["one"] and "shared-vector" in found["shared"]
        assert "in-tree" in guest.run(f"{VBLKSTAT} list").output
    finally:
        guest.unload()
        guest.load()
