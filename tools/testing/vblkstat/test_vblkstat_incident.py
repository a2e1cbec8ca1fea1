# SPDX-License-Identifier: GPL-2.0
"""Test what vblkstat doctor says about a disk that does not answer.

vblkstat reads trees of files with --root.  Each tree has a disk with a file system, a
volume group and swap on it, and tasks that wait.
"""

import contextlib
import json
import os
import pty
import random
import re
import subprocess

import pytest

from .vblkstat_files import BLOCK, DiskTree, careful

UUID = "4dea22b3-1d52-d8f3-2516-782e98ab3fa0"
MOUNTS = """\
22 1 253:0 / / rw,relatime - ext4 /dev/mapper/vg0-root rw
23 22 254:1 / /srv/a\\040place rw,relatime shared:1 - xfs /dev/vda1 rw
24 22 0:31 / /data rw - btrfs /dev/vda3 rw
25 22 254:1 / /srv/a\\040place rw,relatime shared:1 - xfs /dev/vda1 rw
26 22 254:17 / /other rw - ext4 /dev/vdb1 rw
27 22 0:5 / /proc rw - proc proc rw
"""


def add_users(tree):
    """Put partitions, a volume group, swap and mounts on vda, and let tasks wait."""
    for number, name in enumerate(("vda1", "vda2", "vda3", "vda5"), 1):
        tree.write(f"{BLOCK}/{name}/dev", f"254:{number}\n")
        (tree.path / BLOCK / name / "holders").mkdir()
    tree.write(f"{BLOCK}/dev", "254:0\n")
    tree.link(f"{BLOCK}/vda5/holders/dm-0", "../../../dm-0")
    tree.write("sys/block/dm-0/dev", "253:0\n")
    tree.write("sys/block/dm-0/dm/name", "vg0-root\n")
    (tree.path / "sys/block/dm-0/holders").mkdir()
    tree.write("proc/1/mountinfo", MOUNTS)
    tree.write("proc/swaps", "Filename Type Size Used Priority\n"
               "/dev/vda2                partition 1000 0 -2\n")
    for pid, name, state in ((70, "postgres", "D"), (71, "a (b) c", "D"),
                             (72, "sh", "S"), (73, "fake) D (", "S")):
        tree.write(f"proc/{pid}/task/{pid}/stat", f"{pid} ({name}) {state} 1 1 0\n")
    tree.write("run/udev/data/b254:0", "I:1\nE:ID_PART=x\nE:ID_SERIAL=backup-0001\n")
    tree.write("sys/class/dmi/id/product_uuid", f"{UUID}\n")
    tree.write("proc/stat", "cpu 1 2\nbtime 1800000000\n")
    tree.write("proc/uptime", "1000.50 900.00\n")


@pytest.fixture
def tree(tmp_path):
    """A tree whose disk vda has users and is stalled: 17 requests, for 15.2 s."""
    tree = DiskTree(tmp_path / "tree")
    tree.add_disk("vda", 2)
    add_users(tree)
    tree.write(f"{BLOCK}/state", "stalled\n")
    tree.write(f"{BLOCK}/oldest_ms", "15200\n")
    tree.write(f"{BLOCK}/recovery/timeouts", "83\n")
    (tree.path / BLOCK / "serial").unlink()
    tree.write_queue("vda", 0, in_flight=16, oldest_ms=15200, longest_wait_ms=9000)
    tree.write_queue("vda", 3, in_flight=1, oldest_ms=10)
    return tree


def incident(tree):
    """Return the only finding of doctor."""
    (finding,) = tree.json("doctor")["findings"]
    return finding


def test_incident_is_one_finding(tree):
    """A stall, its timeouts and its long wait are one finding, with the true count."""
    finding = incident(tree)
    assert finding["id"] == "stalled"
    assert finding["what"] == \
        "the device has not answered 17 requests, the oldest for 15.2 s"
    assert "queues 0, 3" in finding["incident"]["since"][-1]
    tree.write(f"{BLOCK}/recovery/reset_after", "60\n")
    assert "resets the device after 60 s" in incident(tree)["incident"]["since"][1]


def test_incident_says_which_disk_and_since_when(tree):
    """The serial number is udev's while the device is silent; the time is local."""
    found = incident(tree)["incident"]
    assert found["disk"] == ["serial number backup-0001, says udev",
                             "virtio2, driver virtio_blk on pci 0000:00:02.0, 1.0 GiB"]
    done = subprocess.run([careful(), f"--root={tree.path}", "doctor"],
                          env={"TZ": "UTC"}, stdout=subprocess.PIPE, text=True)
    # The copy was made 1000 s after its boot, at 2027-01-15 08:00:00.
    assert "since: 2027-01-15 08:16:25, 15.2 s ago" in done.stdout


@pytest.mark.parametrize("when,zone,text", (
    (951782400, "UTC", "2000-02-29 00:00:00"), (951868800, "UTC", "2000-03-01 00:00:00"),
    (1798761599, "UTC", "2026-12-31 23:59:59"), (4107542400, "UTC", "2100-03-01 00:00:00"),
    (1798761600, "XYZ-5:30", "2027-01-01 05:30:00"),
    (1798761600, "XYZ+2", "2026-12-31 22:00:00")))
def test_times_of_incidents(tree, when, zone, text):
    """Times are local; vblkstat computes the date itself, and knows leap years."""
    tree.write("proc/stat", f"btime {when - 10}\n")
    tree.write("proc/uptime", "10 10\n")
    tree.write(f"{BLOCK}/oldest_ms", "999\n")
    done = subprocess.run([careful(), f"--root={tree.path}", "doctor"],
                          env={"TZ": zone}, stdout=subprocess.PIPE, text=True)
    assert f"since: {text}, 999 ms ago" in done.stdout


@pytest.mark.parametrize("words", (("watch", "0.1", "1"), ("doctor", "--since=02:30")))
def test_times_without_a_zone(tree, tmp_path, words):
    """A time zone on a disk that does not answer delays nothing: times are in UTC."""
    os.mkfifo(tmp_path / "zone")
    done = subprocess.run([careful(), f"--root={tree.path}", *words], timeout=20,
                          env={"TZ": f":{tmp_path}/zone"}, stdout=subprocess.PIPE,
                          text=True)
    assert re.search(r"\d\d:\d\d:\d\d UTC\b", done.stdout), done.stdout


def test_incident_hides_what_would_read_the_disk(tree):
    """While a disk is silent, doctor looks at no file that may be on it."""
    features = (tree.path / BLOCK / "device/features").read_text().strip()
    tree.write(f"{BLOCK}/device/features", features[:13] + "1" + features[14:] + "\n")
    (tree.path / "etc/systemd").mkdir(parents=True)
    assert incident(tree)["id"] == "stalled"
    tree.write(f"{BLOCK}/state", "live\n")
    tree.write(f"{BLOCK}/oldest_ms", "1\n")
    assert "discard-unused" in tree.findings()["vda"]


def test_incident_says_who_is_hit(tree):
    """Mounts, swap, holders and tasks in state D are named; those of others are not."""
    *others, tasks = incident(tree)["incident"]["hit"]
    assert others == [
        "/ (ext4 on dm-0)", "/srv/a place (xfs on vda1)", "/data (btrfs on vda3)",
        "swap on vda2", "dm-0 (vg0-root) on vda5"]
    assert tasks.startswith("2 tasks in state D, on this disk or another: ")
    assert "70 postgres" in tasks and "71 a (b) c" in tasks


def test_incident_names_commands_of_this_disk(tree):
    """Commands for the host have the guest's UUID; the guest's have the disk's name."""
    found = incident(tree)["incident"]
    assert f"VM={UUID}" in found["host_commands"]
    assert "virsh dumpxml $VM | grep -B9 '>backup-0001<'" in found["host_commands"]
    assert found["guest_commands"] == ["echo 1 > /sys/block/vda/recovery/reset"]
    assert any("df" in text and "kill -9" in text for text in found["avoid"])
    # A serial number that a shell would run is not in a command.
    tree.write("run/udev/data/b254:0", "E:ID_SERIAL_SHORT=';reboot;'\n")
    found = incident(tree)["incident"]
    assert not any("reboot" in text for text in found["host_commands"])
    assert "virsh domblklist $VM --details" in found["host_commands"]


def test_incident_of_a_vdpa_device(tree):
    """A disk that virtio_vdpa made has no commands of libvirt, and no others' advice."""
    device = "sys/devices/vdpa_blk/disk0"
    (tree.path / BLOCK / "device").unlink()
    tree.link(f"{BLOCK}/device", f"../../../{device}/virtio2")
    (tree.path / device / "virtio2").mkdir(parents=True)
    tree.link(f"{device}/subsystem", "../../../bus/vdpa")
    found = incident(tree)
    assert found["incident"]["host_commands"] == ["vblkstat host disk0",
                                                  "vdpa dev show disk0"]
    assert "QEMU" not in found["guest"]


@pytest.mark.parametrize("below_root", (True, False))
def test_incident_of_a_dead_disk(tree, below_root):
    """A dead disk is removed and found again, unless the root file system is on it."""
    tree.write(f"{BLOCK}/state", "dead\n")
    if not below_root:
        tree.write("proc/1/mountinfo", MOUNTS.partition("\n")[2])
    finding = incident(tree)
    found = finding["incident"]
    assert finding["id"] == "dead" and not found["avoid"]
    assert ("restart the guest" in finding["guest"]) == below_root
    assert found["guest_commands"] == ([] if below_root else [
        "umount '/srv/a place'", "umount '/data'", "swapoff /dev/vda2",
        "echo 1 > /sys/bus/pci/devices/0000:00:02.0/remove",
        "echo 1 > /sys/bus/pci/rescan"])


def test_incident_with_a_mount_that_a_shell_would_run(tree):
    """A path with a quote is not in a command; its device is unmounted instead."""
    tree.write(f"{BLOCK}/state", "dead\n")
    tree.write("proc/1/mountinfo", "23 22 254:1 / /media/';reboot;' rw - xfs /dev/x rw\n")
    commands = incident(tree)["incident"]["guest_commands"]
    assert commands[0] == "umount /dev/vda1"
    assert not any("reboot" in command for command in commands)


def test_incident_with_a_mount_whose_path_is_cut(tree):
    """A path too long to keep, which may be another directory's, is in no command."""
    tree.write(f"{BLOCK}/state", "dead\n")
    for length, command in ((254, f"umount '/{'x' * 253}'"), (255, "umount /dev/vda1"),
                            (300, "umount /dev/vda1")):
        tree.write("proc/1/mountinfo",
                   f"23 22 254:1 / /{'x' * (length - 1)} rw - xfs /dev/x rw\n")
        assert incident(tree)["incident"]["guest_commands"][0] == command


def test_incident_without_oldest_ms(tree):
    """With a driver that does not show the oldest request, io_timeout is the bound."""
    (tree.path / BLOCK / "oldest_ms").unlink()
    tree.write_queue("vda", 0, in_flight=16)
    tree.write_queue("vda", 3, in_flight=1)
    tree.write(f"{BLOCK}/queue/io_timeout", "30000\n")
    finding = incident(tree)
    assert finding["what"] == \
        "the device has not answered 17 requests for longer than io_timeout (now 30.0 s)"
    assert "io_timeout (now 30.0 s)" in finding["incident"]["since"][0]


@pytest.mark.parametrize("ms,id", ((4999, None), (5000, "long-wait")))
def test_request_in_flight_for_seconds(tree, ms, id):
    """A request that waits for 5 s is found while it waits, also on a live disk."""
    tree.write(f"{BLOCK}/state", "live\n")
    tree.write(f"{BLOCK}/recovery/timeouts", "0\n")
    tree.write(f"{BLOCK}/oldest_ms", f"{ms}\n")
    tree.write_queue("vda", 0, in_flight=16, oldest_ms=ms)
    findings = tree.json("doctor")["findings"]
    assert [finding["id"] for finding in findings] == ([id] if id else [])


def test_incident_without_files(tmp_path):
    """Without mounts, udev's database and a UUID, doctor says what it does not know."""
    tree = DiskTree(tmp_path / "tree")
    tree.add_disk("vda", 2)
    tree.write(f"{BLOCK}/state", "stalled\n")
    (tree.path / BLOCK / "serial").unlink()
    found = incident(tree)["incident"]
    assert "serial number not known" in found["disk"][0]
    assert any("mounts are not known" in text for text in found["hit"])
    assert any(text.startswith("VM=NAME") for text in found["host_commands"])


def on_terminal(tree, **environment):
    """Return what doctor prints on a terminal."""
    ours, theirs = pty.openpty()
    with subprocess.Popen([careful(), f"--root={tree.path}", "doctor"], stdout=theirs,
                          env={"TERM": "xterm", **environment}):
        os.close(theirs)
        output = b""
        with contextlib.suppress(OSError):
            while more := os.read(ours, 65536):
                output += more
    os.close(ours)
    return output.decode()


def test_incident_has_80_columns_and_colour(tree):
    """No line is longer than 80 characters; only a terminal without NO_COLOR has colour."""
    text = tree.run("doctor").stdout
    assert max(map(len, text.splitlines())) <= 80
    labels = re.findall(r"^    (\w+): ", text, re.MULTILINE)
    assert labels == ["disk", "since", "hit", "avoid", "why", "host", "guest"]
    assert "\033" not in text
    assert "\033[1;31mvda: error: " in on_terminal(tree)
    assert "\033" not in on_terminal(tree, NO_COLOR="1")
    assert "\033" not in on_terminal(tree, TERM="dumb")


def test_list_knows_the_serial_number_of_a_stalled_disk(tree):
    """list shows udev's serial number, and says that it is udev's."""
    (disk,) = tree.json("list")["disks"]
    assert (disk["serial"], disk["serial_source"]) == ("backup-0001", "udev")
    assert (disk["oldest_ms"], disk["in_flight"]) == (15200, 17)
    assert "backup-0001" in tree.run("list").stdout


@pytest.mark.parametrize("seed", range(60 if os.environ.get("FULL") else 4))
def test_incident_with_odd_contents(tree, seed):
    """With any contents of files, the report is valid JSON or printable ASCII."""
    tree.write("dev/kmsg", "4,1,900000000,-;[vda] 2 requests have timed out\n" * 9)
    tree.write("run/vblkstat/cleared", "vda 2 timeouts 5\nvda 2 time 1800000000\n")
    tree.write("sys/kernel/debug/swiotlb/io_tlb_nslabs", "100\n")
    tree.spoil(random.Random(seed))
    for words in (["doctor"], ["list"], ["vda5"], ["doctor", "--clear"],
                  ["snapshot", str(tree.path.parent / "copy.tar")]):
        done = tree.run(*words)
        assert done.returncode in (0, 1, 2, 4)
        assert re.fullmatch(r"[ -~\n]*", done.stdout)
    done = tree.run("--json", "doctor")
    assert done.returncode in (0, 1, 4)
    assert json.loads(done.stdout)["command"] == "doctor"
