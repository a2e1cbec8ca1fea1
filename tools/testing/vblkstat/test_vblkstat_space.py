# SPDX-License-Identifier: GPL-2.0
"""Test what vblkstat doctor finds about discards, serial numbers and bounce buffers.

vblkstat reads trees of files with --root.
"""

import pytest

from .vblkstat_files import BLOCK, FEATURES, DiskTree, bits

MIB = 1 << 20
TIMER = "etc/systemd/system/timers.target.wants/fstrim.timer"
SWIOTLB = "sys/kernel/debug/swiotlb"


@pytest.fixture
def tree(tmp_path):
    """A disk with discards, and ext4 with the option discard on an aligned partition."""
    tree = DiskTree(tmp_path / "tree")
    tree.add_disk("vda", 2)
    tree.write(f"{BLOCK}/device/features", bits(FEATURES | {13, 33}) + "\n")
    for name, value in (("discard_max_bytes", 1 << 31), ("discard_granularity", 4096),
                        ("discard_max_hw_bytes", 1 << 31)):
        tree.write(f"{BLOCK}/queue/{name}", f"{value}\n")
    tree.write(f"{BLOCK}/discard_alignment", "0\n")
    tree.write(f"{BLOCK}/vda1/start", "2048\n")
    tree.write(f"{BLOCK}/vda1/dev", "254:1\n")
    (tree.path / "etc/systemd").mkdir(parents=True)
    mount(tree, "rw,discard")
    return tree


def mount(tree, options="rw", type="ext4", device="254:1 / /srv"):
    tree.write("proc/1/mountinfo",
               f"22 1 {device} rw,relatime shared:1 - {type} /dev/x {options}\n")


def found(tree):
    """Return the notices and warnings, by id; no notice changes the exit status."""
    findings = {finding["id"]: finding for finding in tree.json("doctor")["findings"]}
    active = [id for id, finding in findings.items()
              if finding["active"] and finding["level"] != "notice"]
    assert tree.run("doctor").returncode == bool(active)
    return findings


def test_discards_that_work(tree):
    """With an option, a timer or discard=async, and aligned, there is no finding."""
    assert found(tree) == {}
    mount(tree, "rw,discard=async,space_cache", "btrfs")
    assert found(tree) == {}
    mount(tree)
    tree.write(TIMER, "")
    assert found(tree) == {}


@pytest.mark.parametrize("options,type,id", (
    ("rw", "ext4", "discard-unused"), ("rw,nodiscard", "xfs", "discard-unused"),
    ("ro", "ext4", None), ("rw", "iso9660", None)))
def test_discards_that_nothing_asks_for(tree, options, type, id):
    """A file system that can discard, but does not, is found, with its mount."""
    mount(tree, options, type)
    findings = found(tree)
    assert set(findings) == ({id} if id else set())
    assert not id or "/srv" in findings[id]["what"]


def test_copy_without_timers(tree):
    """A copy that has no /etc does not show whether a timer discards."""
    mount(tree)
    (tree.path / "etc/systemd").rename(tree.path / "away")
    assert found(tree) == {}


@pytest.mark.parametrize("start,offset,distance", (
    (2048, 0, 0), (63, 0, 63 * 512), (2048, 4096, 65536 - 4096), (2056, 4096, 0)))
def test_partition_between_units_of_discard(tree, start, offset, distance):
    """A partition that does not begin at a unit of the granularity is found."""
    tree.write(f"{BLOCK}/queue/discard_granularity", "65536\n")
    tree.write(f"{BLOCK}/vda1/start", f"{start}\n")
    tree.write(f"{BLOCK}/discard_alignment", f"{offset}\n")
    findings = found(tree)
    assert set(findings) == ({"discard-misaligned"} if distance else set())
    assert not distance or \
        f"vda1 by {distance} bytes" in findings["discard-misaligned"]["what"]


@pytest.mark.parametrize("size,id", ((MIB, None), (4 * MIB, "discard-coarse")))
def test_coarse_discard_granularity(tree, size, id):
    """A granularity of more than 1 MiB is found, if the partition is aligned."""
    tree.write(f"{BLOCK}/queue/discard_granularity", f"{size}\n")
    tree.write(f"{BLOCK}/vda1/start", "8192\n")
    assert set(found(tree)) == ({id} if id else set())


@pytest.mark.parametrize("hardware,advice", ((1 << 31, "guest"), (0, "host")))
def test_discards_that_are_off(tree, hardware, advice):
    """A limit of 0 is found; the advice is for the side that set it."""
    tree.write(f"{BLOCK}/queue/discard_max_bytes", "0\n")
    tree.write(f"{BLOCK}/queue/discard_max_hw_bytes", f"{hardware}\n")
    finding = found(tree)["discard-off"]
    assert finding[advice] and not finding[{"guest": "host", "host": "guest"}[advice]]
    # A device that does not offer discards is no finding.
    tree.write(f"{BLOCK}/device/features", bits(FEATURES) + "\n")
    assert found(tree) == {}


def test_volume_that_swallows_discards(tree):
    """A volume whose limit is 0 is found with its mount, and is the only finding."""
    mount(tree, device="253:0 / /home")
    (tree.path / BLOCK / "vda1/holders").mkdir()
    tree.link(f"{BLOCK}/vda1/holders/dm-0", "../../../dm-0")
    tree.write("sys/block/dm-0/dev", "253:0\n")
    tree.write("sys/block/dm-0/queue/discard_max_bytes", "0\n")
    findings = found(tree)
    assert set(findings) == {"discard-layer"}
    assert "dm-0 (/home)" in findings["discard-layer"]["what"]
    tree.write("sys/block/dm-0/queue/discard_max_bytes", "4096\n")
    assert set(found(tree)) == {"discard-unused"}


def test_equal_serial_numbers(tree):
    """Disks with one serial number are one finding, of the later disk."""
    for number, name in enumerate(("vdb", "vdc"), 3):
        tree.add_disk(name, number)
    assert found(tree) == {}
    tree.write("sys/block/vdc/serial", "vda")
    finding = found(tree)["same-serial"]
    assert finding["disk"] == "vdc" and finding["what"].endswith("of vda")
    # Disks without a serial number have none in common.
    tree.write("sys/block/vda/serial", "")
    tree.write("sys/block/vdc/serial", "")
    assert found(tree) == {}


@pytest.mark.parametrize("length", (19, 20))
def test_serial_number_that_may_have_been_cut(tree, length):
    """A serial number of 20 bytes is a notice."""
    tree.write(f"{BLOCK}/serial", "X" * length)
    assert set(found(tree)) == ({"cut-serial"} if length == 20 else set())


@pytest.mark.parametrize("used,most,active", (
    (95, 95, True), (10, 95, False), (10, 80, None), (95, None, True), (89, None, None)))
def test_bounce_buffers_in_use(tree, used, most, active):
    """Full bounce buffers are found now, and as past from the high-water mark."""
    for name, value in (("nslabs", 100), ("used", used), ("used_hiwater", most)):
        if value is not None:
            tree.write(f"{SWIOTLB}/io_tlb_{name}", f"{value}\n")
    findings = found(tree)
    assert set(findings) == ({"bounce-buffers"} if active is not None else set())
    if active is not None:
        assert findings["bounce-buffers"]["active"] is active
        assert tree.run("doctor", "--clear").returncode == 0
        assert bool(found(tree)) is active
    # Only a device that needs the DMA layer has bounce buffers.
    tree.write(f"{BLOCK}/device/features", bits(FEATURES) + "\n")
    assert found(tree) == {}
