# SPDX-License-Identifier: GPL-2.0
"""Test that a copy that vblkstat snapshot makes shows what the original shows."""

import json
import subprocess
import tarfile

import pytest

from .test_vblkstat_incident import add_users
from .vblkstat_files import BLOCK, DiskTree, FileTree, slow


@pytest.fixture
def tree(tmp_path):
    """A tree with a stalled disk, its users, a kernel log and a vDPA device."""
    tree = DiskTree(tmp_path / "tree")
    tree.add_disk("vda", 2)
    tree.add_disk("vdb", 3)
    add_users(tree)
    tree.write(f"{BLOCK}/state", "stalled\n")
    tree.write(f"{BLOCK}/oldest_ms", "15200\n")
    tree.write("sys/block/vdb/recovery/timeouts", "4\n")
    tree.write("dev/kmsg", "4,1,900000000,-;[vdb] 2 requests on queues 0 have timed out\n"
               "4,2,900000000,-;a secret of another program\n")
    tree.write("sys/kernel/debug/vdpa_blk/disk0/device",
               f"path /dev/{'x' * 150}\ncapacity 8\nqueues 1\n")
    device = f"sys/devices/vdpa_blk/{'d' * 120}"
    tree.write(f"{device}/virtio9/x", "")
    tree.link(f"sys/bus/vdpa/devices/{'d' * 120}", f"../../../../{device}")
    return tree


def extract(tree, place):
    """Make a snapshot, unpack it with tar, and return it as a tree."""
    file = tree.path.parent / "copy.tar"
    done = tree.run("snapshot", str(file))
    assert done.returncode == 0, done.stderr
    assert file.stat().st_mode & 0o777 == 0o600
    place.mkdir()
    subprocess.run(["tar", "-xf", file, "-C", place], check=True)
    copy = FileTree.__new__(FileTree)
    copy.path = place
    return copy


@pytest.mark.parametrize("words", (["list"], ["queues"], ["doctor"], ["host"]))
def test_snapshot_shows_the_same(tree, tmp_path, words):
    """Each command shows the same of the copy as of the original."""
    copy = extract(tree, tmp_path / "copy")
    expected = tree.json(*words)
    assert expected.get("disks") or expected.get("devices")

    def plain(output):
        return json.dumps(output).replace(str(tree.path), "").replace(
            str(copy.path), "")

    assert plain(copy.json(*words)) == plain(expected)
    assert copy.run(*words).returncode == tree.run(*words).returncode


def test_snapshot_has_only_what_vblkstat_reads(tree, tmp_path):
    """The archive has no other messages and tasks, and can be read with Python as well."""
    tree.write("etc/shadow", "secret")
    copy = extract(tree, tmp_path / "copy")
    with tarfile.open(tmp_path / "copy.tar") as archive:
        names = set(archive.getnames())
    assert {"proc/70/task/70/stat", f"{BLOCK}/state"} <= names
    assert not {"etc/shadow", "proc/72/task/72/stat"} & names
    assert "secret" not in (copy.path / "dev/kmsg").read_text()


def test_snapshot_does_not_measure_latency(tree, tmp_path):
    """The archive has the counts of slow requests, and not the file that has to be open."""
    tree.write_queue("vdb", 1, slow_writes=slow({256: 3}))
    tree.write("sys/kernel/debug/virtio_blk/vdb/latency", "queue0 reads max 5 0:1\n")
    copy = extract(tree, tmp_path / "copy")
    queues = copy.json("queues")["disks"][1]["queues"]
    assert queues[1]["counters"]["slow_writes"][4] == 3
    assert not list(copy.path.rglob("latency"))


def test_snapshot_of_unreadable_files(tree, tmp_path):
    """A copy without the counters is made, with status 4 and a note."""
    (tree.path / "sys/kernel/debug/virtio_blk").rename(tmp_path / "away")
    done = tree.run("snapshot", str(tmp_path / "copy.tar"))
    assert done.returncode == 4 and "no counters of queues" in done.stderr


def test_snapshot_is_private(tree, tmp_path):
    """Only its owner can read a snapshot, also where a file was replaced."""
    path = tmp_path / "copy.tar"
    path.touch(mode=0o644)
    path.chmod(0o644)
    assert tree.run("snapshot", str(path)).returncode in (0, 4)
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("words,message", (
    ([], "snapshot FILE.tar"), (["/none/x.tar"], "cannot write /none/x.tar: No such"),
    (["/dev/full"], "cannot write /dev/full: No space left")))
def test_snapshot_that_cannot_be_written(tree, words, message):
    """A snapshot without a file, or one that is cut, is an error."""
    done = tree.run("snapshot", *words)
    assert done.returncode == 2 and message in done.stderr
