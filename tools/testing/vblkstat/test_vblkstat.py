# SPDX-License-Identifier: GPL-2.0
"""Test that vblkstat shows what the files of sysfs, procfs and debugfs say.

vblkstat reads trees of files with --root.  test_vblkstat_guest has the tests in a
guest, test_vblkstat_doctor those of the findings.
"""

import contextlib
import fcntl
import json
import os
import pty
import random
import re
import struct
import subprocess
import termios
import threading
from pathlib import Path

import pytest

from .vblkstat_files import (BLOCK, COUNTERS, FEATURES, SOURCES, TOP, DiskTree, bits,
                             careful, slow, total_of)

COMMANDS = ("list", "queues", "watch", "doctor", "host", "snapshot", "check",
            "export")


@pytest.fixture
def tree(tmp_path):
    """A tree with the healthy disk vda."""
    tree = DiskTree(tmp_path / "tree")
    tree.add_disk("vda", 2)
    return tree


def test_command_line(tree):
    """An invalid command line prints a message and exits with status 2."""
    for words, message in (
            ((), "command is missing"), (("look",), 'no command or disk "look"'),
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
    tree = DiskTree(tmp_path / "tree")
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
    for name in ("completions", "slow_reads", "slow_writes", "slow_others"):
        expected[name] = [int(count) for count in COUNTERS[name].split()]
    for index, queue in enumerate(disk["queues"]):
        assert queue == {
            "queue": index, "type": "default", "cpus": [index], "irq": 24 + index,
            "vector": "own", "affinity": [index], "effective_affinity": [index],
            "interrupts": 40, "depth": 256, "ring": 256, "free": 256,
            "in_flight": 0, "oldest_ms": None, "stopped": False, "counters": expected}


def test_slow_requests_of_a_queue(tree):
    """queues --json has the slow requests; those of an older driver are unknown."""
    tree.write_queue("vda", 1, slow_reads=slow({16: 7, 32768: 1}))
    tree.write_queue("vda", 2, slow_reads="1 2 3", slow_writes="0 0 x " + "0 " * 9)
    tree.drop_lines("vda", 3, "slow_")
    (disk,) = tree.json("queues")["disks"]
    counters = [queue["counters"] for queue in disk["queues"]]
    assert counters[0]["slow_reads"] == [0] * 12
    assert counters[1]["slow_reads"] == [7, *[0] * 10, 1]
    assert counters[1]["slow_writes"] == counters[1]["slow_others"] == [0] * 12
    for index, name in ((2, "slow_reads"), (2, "slow_writes"), (3, "slow_others")):
        assert counters[index][name] == [None] * 12, name


def test_requests_in_flight_of_a_disk(tree):
    """Each command shows the same number, as text and as JSON: the driver's."""
    tree.write(f"{BLOCK}/inflight", "1 1\n")
    tree.write_queue("vda", 1, in_flight=3)
    tree.write_queue("vda", 3, in_flight=2)
    for words in (("list",), ("queues",), ("watch", "0.1", "1")):
        (disk,) = tree.json(*words)["disks"]
        assert disk["in_flight"] == 5, words
    assert "5 in flight" in tree.run("queues").stdout


@pytest.mark.parametrize("own,shown", (({"own_ring": 1}, "256, own"),
                                       ({"own_ring": 0}, "256"), ({}, "256")))
def test_list_shows_who_runs_rings(tree, own, shown):
    """list says that the driver runs a disk's rings; an older driver runs none."""
    tree.write_queue("vda", 0, irq=24, **own)
    assert tree.json("list")["disks"][0]["own_ring"] == (shown != "256")
    lines = tree.run("list").stdout.splitlines()
    assert any(re.search(rf"^vda .* 256 +{shown}$", line) for line in lines)


def test_many(tmp_path):
    """vblkstat shows 27 disks with 64 queues each, in the order of their names."""
    tree = DiskTree(tmp_path / "tree", cpus=64)
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


def test_cpus_of_a_queue(tree):
    """queues shows all CPUs of a queue, isolated ones too, also in a partial copy."""
    # Isolated CPUs are not in cpu_list.
    tree.write(f"{BLOCK}/mq/2/cpu_list", "\n")
    tree.write(f"{BLOCK}/mq/3/cpu_list", "\n")

    def cpus():
        (disk,) = tree.json("queues")["disks"]
        return [queue["cpus"] for queue in disk["queues"]]

    assert cpus() == [[0], [1], [2], [3]]
    for index in range(4):
        (tree.path / BLOCK / f"mq/{index}/cpu{index}").rmdir()
    assert cpus() == [[0], [1], [2], [3]]
    for path in tree.path.glob("sys/kernel/debug/virtio_blk/vda/queue*"):
        path.unlink()
    assert cpus() == [[0], [1], [], []]


def test_copy_without_links(tree):
    """vblkstat finds a disk's device in a copy of sysfs without symbolic links."""
    (tree.path / BLOCK / "device").unlink()
    (tree.path / "sys/bus/virtio/devices/virtio2/block/vda").mkdir(parents=True)
    (disk,) = tree.json("list")["disks"]
    assert disk["device"] == "virtio2"
    assert {feature["bit"] for feature in disk["features"]} == FEATURES


# Names and widths

def test_names_of_disks(tree):
    """A partition, a node and a link of udev name the disk, with every command."""
    (tree.path / BLOCK / "vda1").mkdir()
    (tree.path / "dev").mkdir()
    (tree.path / "dev/vda1").touch()
    tree.link("dev/disk/by-id/virtio-backup-part1", "../../vda1")
    for name in ("vda", "vda1", "/dev/vda", "/dev/vda1",
                 "/dev/disk/by-id/virtio-backup-part1"):
        for command in ("list", "queues"):
            assert [disk["name"] for disk in tree.json(command, name)["disks"]] == \
                ["vda"]
    for name in ("vda2", "/dev/disk/by-id/none", "vdb1", "1"):
        done = tree.run("list", name)
        assert done.returncode == 2 and name.rpartition("/")[2] in done.stderr


def test_disk_without_a_command(tree):
    """The name of a disk alone shows its list and its queues."""
    (tree.path / BLOCK / "vda1").mkdir()
    expected = tree.run("list", "vda").stdout + "\n" + tree.run("queues", "vda").stdout
    for name in ("vda", "/dev/vda", "vda1"):
        assert tree.run(name).stdout == expected
    lines = tree.run("--json", "vda").stdout.splitlines()
    assert [json.loads(line)["command"] for line in lines] == ["list", "queues"]


def test_80_columns(tmp_path):
    """Without a terminal, tables have 80 columns, whatever the values are."""
    tree = DiskTree(tmp_path / "tree", cpus=256)
    tree.add_disk("vdaaa", 12, queues=4)
    block = "sys/block/vdaaa"
    for path, text in (("state", "suspended"), ("serial", "X" * 20),
                       ("oldest_ms", "7200000000"), ("size", str(1 << 50))):
        tree.write(f"{block}/{path}", text + "\n")
    tree.write("sys/module/virtio_blk/version", "0.9-a-long-version\n")
    counts = {name: 10 ** 12 for name in ("reads", "writes", "flushes", "kicks",
                                          "interrupts", "ring_full", "read_bytes")}
    for index in range(4):
        tree.write_queue("vdaaa", index, in_flight=256, free=0, oldest_ms=7200000000)
    texts = [tree.run("list").stdout, tree.run("queues").stdout]
    with watching(tree, "watch", "0.2", "2") as watch:
        first = watch.stdout.readline()
        for index in range(4):
            tree.write_queue("vdaaa", index, in_flight=256, own_ring=1,
                             oldest_ms=7200000000,
                             **{name: count // 10 ** 6 for name, count in
                                counts.items()})
        texts.append(first + watch.stdout.read())
    for text in texts:
        assert max(map(len, text.splitlines())) <= 80, text
        assert "83 days" in text
    # A long list of CPUs is cut, and --json has all of it.
    assert re.search(r" 0,4,8,12[0-9,]*\+ ", texts[1])


@pytest.mark.parametrize("values,features,reason", (
    ({"free": 240, "in_flight": 16}, FEATURES, None),
    ({"free": 208, "in_flight": 16}, FEATURES, "more than IN FLIGHT: requests with"),
    ({"free": 208, "in_flight": 16}, FEATURES - {28}, "three entries"),
    ({"free": 256, "in_flight": 16}, FEATURES, "less than IN FLIGHT")))
def test_rings_add_up_or_say_why(tree, values, features, reason):
    """If FREE and IN FLIGHT are not RING, queues says why."""
    tree.write(f"{BLOCK}/device/features", bits(features) + "\n")
    tree.write_queue("vda", 1, **values)
    text = " ".join(tree.run("queues").stdout.split())
    assert ("RING - FREE" in text) == bool(reason) and (reason or "") in text


def test_age_of_the_oldest_request(tree):
    """list, queues and watch show the age of the oldest request, in JSON and as text."""
    tree.write_queue("vda", 1, in_flight=2, oldest_ms=15200)
    # A driver that has no file in sysfs shows it in debugfs.
    (line,) = tree.run("--json", "watch", "0.1", "1").stdout.splitlines()
    for output in (tree.json("list"), tree.json("queues"), json.loads(line)):
        assert output["disks"][0]["oldest_ms"] == 15200
    tree.write(f"{BLOCK}/oldest_ms", "16000\n")
    (disk,) = tree.json("queues")["disks"]
    assert (disk["oldest_ms"], disk["queues"][1]["oldest_ms"]) == (16000, 15200)
    assert disk["queues"][2]["oldest_ms"] is None
    for words in (["list"], ["queues"], ["watch", "0.1", "1"]):
        assert "16.0 s" in tree.run(*words).stdout


# Rates

# In seconds.  A change after the first of nine must be seen, on a busy host too.
INTERVAL = "0.3"


def watching(tree, *words):
    return subprocess.Popen([careful(), f"--root={tree.path}", *words],
                            stdout=subprocess.PIPE, text=True)


def approx(count):
    """Return a value that equals a count within the precision of the output."""
    return pytest.approx(count, rel=1e-4)


def test_rates(tree):
    """watch shows the growth of the counters as rates of the disk and the queue."""
    with watching(tree, "--json", "watch", "vda", INTERVAL, "9") as watch:
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
    with watching(tree, "--json", "watch", "vda", INTERVAL, "9") as watch:
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
        with watching(tree, "--json", "watch", *words, INTERVAL, "9") as watch:
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

@pytest.mark.parametrize("seed", range(60 if os.environ.get("FULL") else 6))
def test_odd_contents(tmp_path, seed):
    """With any file contents, the output is valid JSON or printable ASCII."""
    chance = random.Random(seed)
    tree = DiskTree(tmp_path / "tree")
    for number, name in enumerate(("vda", "vdb", "vdzzz")):
        tree.add_disk(name, number)
    for name in ("vd", "vda1", "vd\n", "vdabcdef", "vdé", "sda"):
        (tree.path / "sys/block" / name).mkdir()
    (tree.path / BLOCK / "mq/4294967296").mkdir()
    (tree.path / BLOCK / "mq/-1").mkdir()
    (tree.path / BLOCK / "mq/9999").mkdir()
    tree.spoil(chance)
    for words in (["list"], ["queues"], ["watch", "0.1", "1"], ["doctor"]):
        done = tree.run(*words)
        assert done.returncode in (0, 1, 4) and done.stdout
        assert re.fullmatch(r"[ -~\n]*", done.stdout)
        done = tree.run("--json", *words)
        assert done.returncode in (0, 1, 4)
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
        script = ("compopt() { echo compopt $*; }; "
                  f"source {SOURCES}/completion/vblkstat; COMP_WORDS=(\"$@\"); "
                  'COMP_CWORD=$(($# - 1)); _vblkstat; echo "${COMPREPLY[@]}"')
        return subprocess.run(["bash", "-c", script, "bash", "vblkstat", *words],
                              check=True, stdout=subprocess.PIPE,
                              text=True).stdout.split()

    assert complete("") == list(COMMANDS)
    assert complete("--json", "d") == ["doctor"]
    assert "--json" in complete("-")
    # No blank after an option that takes a value.
    for option in ("--output=", "--root=", "--since="):
        assert complete(option[:3]) == ["compopt", "-o", "nospace", option]
    assert complete("--c") == ["--clear"]
    disks = [path.name for path in Path("/sys/block").glob("vd*")]
    assert sorted(complete("queues", "")) == sorted(disks)
    devices = [path.name for path in Path("/sys/bus/vdpa/devices").glob("*")
               if Path("/sys/devices/vdpa_blk", path.name).exists()]
    assert sorted(complete("host", "")) == sorted(devices)
