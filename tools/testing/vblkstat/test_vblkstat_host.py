# SPDX-License-Identifier: GPL-2.0
"""Test that `vblkstat host` shows the true state of vdpa_blk devices.

One guest has two devices: virtio_vdpa makes a disk of one, and vhost_vdpa a node of
the other.  Without a guest, vblkstat reads trees of files with --root.
"""

import json
import os
import random
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from common import fio, vblkstat, vdpa
from vm.disk import Disk
from vm.guest import Guest

from .vblkstat_files import SOURCES, FileTree, as_lines

MIB = 1 << 20
PROGRAM = "/run/vblkstat"
DEBUGFS = "/sys/kernel/debug/vdpa_blk"

# Trees

COUNTERS = {
    "reads": 600, "read_bytes": 600 * 4096, "writes": 200, "write_bytes": 200 * 8192,
    "flushes": 7, "others": 1, "errors": 2, "unsupported": 3, "broken": 1,
    "bounced": 4, "wakeups": 250, "empty_wakeups": 48, "interrupts": 100,
    "interrupts_suppressed": 30,
}
OFFERED, ACCEPTED = {9, 12, 28, 29, 32, 33, 34, 40}, {9, 12, 29, 32}


def mask(bits: set[int]) -> str:
    return hex(sum(1 << bit for bit in bits))


class Tree(FileTree):
    """A host with vDPA devices."""

    def add_device(self, name: str, child: str = "virtio3/block/vdb",
                   driver: str = "virtio_vdpa",
                   counters: Mapping[str, int] = COUNTERS, **changed: Any) -> None:
        """Add a device with four queues and two workers, whose pids are 70 and 71."""
        place = f"sys/devices/vdpa_blk/{name}"
        (self.path / place / child).mkdir(parents=True)
        self.link(f"sys/bus/vdpa/devices/{name}", f"../../../../{place}")
        if driver:
            self.link(f"{place}/driver", f"../../../bus/vdpa/drivers/{driver}")
        self.write(f"{DEBUGFS[1:]}/{name}/device", as_lines({
            "path": "/dev/mapper/a disk", "gone": 0, "capacity": 2097152, "queues": 4,
            "workers": 2, "worker_pids": "70 71", "features": mask(OFFERED),
            "driver_features": mask(ACCEPTED), "status": "0xf", "suspended": 0,
            "a_later_one": 7, **changed}))
        for index in range(4):
            self.write(f"{DEBUGFS[1:]}/{name}/queue{index}", as_lines({
                "worker": index % 2, "running": int(index < 2), "ring": 256,
                "in_flight": 8, **counters, "a_later_one": 7}))

    def add_threads(self, name: str) -> None:
        """Add the threads of the device's workers."""
        for index, pid in enumerate((70, 71)):
            thread = f"vdpa_blk/{name}:{index}"[:63]
            # The last field is 39, the processor, and the name has parentheses.
            fields = ["S", "2", "0", "0", "-1", *["0"] * 31, str(index + 2)]
            self.write(f"proc/{pid}/comm", f"{thread}\n")
            self.write(f"proc/{pid}/stat", f"{pid} ({thread}) {' '.join(fields)} 0 0\n")
            self.write(f"proc/{pid}/status", f"Name:\t{thread}\n"
                       "Cpus_allowed:\tff\nCpus_allowed_list:\t1-7\nMems:\t0\n")

    def device(self, *words: str) -> dict[str, Any]:
        """Return what vblkstat shows of the only device."""
        (device,) = self.json("host", *words)["devices"]
        return device


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """A tree with the device disk0."""
    tree = Tree(tmp_path / "tree")
    tree.add_device("disk0")
    tree.add_threads("disk0")
    return tree


def keys(value: Any) -> Iterator[str]:
    """Yield the names of all members of a JSON value."""
    if isinstance(value, list):
        for item in value:
            yield from keys(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from keys(item)


def test_host_shows_all_of_a_device(tree: Tree):
    """host shows each value of sysfs, procfs and debugfs, and ratios of counters."""
    device = tree.device("disk0")
    queues, workers = device.pop("queues"), device.pop("workers")
    features = {kind: {feature["bit"] for feature in found}
                for kind, found in device.pop("features").items()}
    assert features == {"offered": OFFERED, "accepted": ACCEPTED}
    assert device == {"name": "disk0", "driver": "virtio_vdpa", "disk": "vdb",
                      "node": None, "state": "running", "status": 15,
                      "suspended": False, "path": "/dev/mapper/a disk",
                      "gone": False, "bytes": 1 << 30}
    # The tree has CPUs 0 to 3 online.
    assert workers == [{"worker": index, "thread": f"vdpa_blk/disk0:{index}",
                        "pid": 70 + index, "cpus": [1, 2, 3], "last_cpu": index + 2,
                        "queues": [index, index + 2]} for index in range(2)]
    # 808 requests; 202 of 250 wakeups found some; 8 are in flight; 100 interrupts.
    assert queues == [{"queue": index, "worker": index % 2, "running": index < 2,
                       "ring": 256, "in_flight": 8, "requests_per_wakeup": 4,
                       "requests_per_interrupt": 8, "counters": COUNTERS}
                      for index in range(4)]
    assert tree.json("host")["notes"] == []


def test_host_members_are_in_the_manual(tree: Tree):
    """The manual page names all members of the JSON objects, and no other."""
    page = (SOURCES / "vblkstat.8").read_text()
    section = page[page.index("Each device has these members"):]
    section = section[:section.index("\n.Sh ")]
    named = {word for line in re.findall(r"^\.(?:It )?Cm (.*)$", section, re.MULTILINE)
             for word in line.split() if len(word) > 1}
    assert named == set(keys(tree.json("host")["devices"]))


def test_host_prints_tables(tree: Tree):
    """Without --json there is a line for the device, and for each worker and queue."""
    done = tree.run("host")
    assert done.returncode == 0 and not done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "disk0, /dev/mapper/a disk, 1.0 GiB, running, virtio_vdpa, vdb"
    assert "     1  vdpa_blk/disk0:1   71  1-3          3  1,3" in lines
    requests, batches = (line.split() for line in lines
                         if line.split()[:2] == ["3", "1"])
    assert requests == ["3", "1", "no", "256", "600", "200", "7", "1", "8"]
    assert batches == ["3", "1", "4.0", "8.0", "100", "30", "2", "3", "1"]
    assert "    accepted:     flush, multiple queues, event index, virtio 1" in lines
    assert sum("packed rings" in line for line in lines) == 1


def test_host_fits_a_terminal(tmp_path: Path):
    """No line is longer than 80 columns, with large counters."""
    tree = Tree(tmp_path / "tree")
    tree.add_device("disk0", counters={
        name: 9_999_999_999 if name in ("reads", "writes") else 99_999
        for name in COUNTERS})
    lines = tree.run("host").stdout.splitlines()
    assert any("9999999999" in line for line in lines)
    assert [line for line in lines if len(line) > 80] == []


@pytest.mark.parametrize("changed,state", (
    ({"status": "0x1"}, "idle"), ({"status": "0"}, "idle"),
    ({"status": "0x3"}, "starting"), ({"suspended": 1}, "suspended"),
    ({"status": "0x4f"}, "needs reset"),
    ({"status": "0x8f"}, "failed"), ({"gone": 1, "status": "0x4f"}, "gone"),
    ({"status": "x"}, None)))
def test_host_state(tmp_path: Path, changed: dict[str, Any], state: str | None):
    """The state is the worst of what the device reports."""
    tree = Tree(tmp_path / "tree")
    tree.add_device("disk0", **changed)
    assert tree.device()["state"] == state
    assert not state or f", {state}, " in tree.run("host").stdout


def test_host_names(tree: Tree):
    """Devices are sorted and chosen by name; other modules' devices are not shown."""
    tree.add_device("1", "vhost-vdpa-0", "vhost_vdpa")
    tree.add_device("a" * 200, "power", driver="")
    (tree.path / "sys/devices/vdpa_sim/sim0").mkdir(parents=True)
    tree.link("sys/bus/vdpa/devices/sim0", "../../../../sys/devices/vdpa_sim/sim0")
    devices = tree.json("host")["devices"]
    assert [(device["name"], device["driver"], device["disk"], device["node"])
            for device in devices] == [
        ("1", "vhost_vdpa", None, "/dev/vhost-vdpa-0"), ("a" * 200, None, None, None),
        ("disk0", "virtio_vdpa", "vdb", None)]
    assert tree.device("1")["name"] == "1"
    assert tree.run("host", "1").stdout.startswith(
        "1, /dev/mapper/a disk, 1.0 GiB, running, vhost_vdpa, /dev/vhost-vdpa-0\n")
    for words, message in ((("sim0",), "no vdpa_blk device sim0"),
                           (("disk0", "none"), "no vdpa_blk device none"),
                           (("disk0", "2"), "no vdpa_blk device 2")):
        done = tree.run("host", *words)
        assert (done.returncode, done.stdout) == (2, "") and message in done.stderr


@pytest.mark.parametrize("digits,disk", ((1, "vdb"), (10, "vdb"), (19, "vdb"),
                                         (20, None), (25, None), (40, None)))
def test_host_with_long_name_of_child(tmp_path: Path, digits: int, disk: str | None):
    """A copy can have a longer name than a kernel gives; then the disk is unknown."""
    tree = Tree(tmp_path / "tree")
    tree.add_device("disk0", f"virtio{'9' * digits}/block/vdb")
    assert tree.device()["disk"] == disk


def test_host_without_devices(tmp_path: Path):
    """Without a device, host says so, and whether the module is loaded."""
    tree = Tree(tmp_path / "tree")
    done = tree.run("host")
    assert done.returncode == 0 and "vdpa_blk is not loaded" in done.stdout
    (tree.path / "sys/devices/vdpa_blk").mkdir(parents=True)
    assert tree.run("host").stdout == "no vdpa_blk devices\n"
    assert tree.json("host")["devices"] == []


@pytest.mark.parametrize("path,note", (
    ("sys/kernel/debug", "the kernel has no debugfs"),
    ("sys/kernel/debug/vdpa_blk", "the copy has no files of debugfs"),
    ("sys/kernel/debug/vdpa_blk/disk0/device", "the module vdpa_blk is older")))
def test_host_without_some_files_of_debugfs(tree: Tree, path: str, note: str):
    """Without files of debugfs host shows the rest, and prints once what is missing."""
    (tree.path / path).rename(tree.path / "away")
    device = tree.device()
    assert (device["driver"], device["disk"]) == ("virtio_vdpa", "vdb")
    assert device["path"] is device["state"] is device["workers"] is None
    assert (device["queues"] is None) is not path.endswith("device")
    done = tree.run("host")
    assert done.returncode == 0 and note in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_host_does_not_take_other_threads_for_workers(tree: Tree):
    """A worker's thread and CPUs are unknown if its pid is another thread's."""
    tree.write("proc/71/comm", "vdpa_blk/disk1:1\n")
    first, second = tree.device()["workers"]
    assert (first["thread"], first["last_cpu"]) == ("vdpa_blk/disk0:0", 2)
    assert second == {"worker": 1, "thread": None, "pid": 71, "cpus": None,
                      "last_cpu": None, "queues": [1, 3]}
    (note,) = tree.json("host")["notes"]
    assert "/proc does not show them" in note


def test_host_knows_threads_with_long_names(tmp_path: Path):
    """The kernel truncates the name of a thread; host knows it by the rest."""
    tree = Tree(tmp_path / "tree")
    tree.add_device("a" * 80)
    tree.add_threads("a" * 80)
    assert [worker["last_cpu"] for worker in tree.device()["workers"]] == [2, 3]


@pytest.mark.parametrize("seed", range(60 if os.environ.get("FULL") else 6))
def test_host_with_odd_contents(tmp_path: Path, seed: int):
    """With any contents of files, the output is valid JSON or printable ASCII."""
    tree = Tree(tmp_path / "tree")
    for name in ("disk0", "disk1", "a disk", "dïsk"):
        tree.add_device(name)
        tree.add_threads(name)
    (tree.path / "sys/bus/vdpa/devices/gone").symlink_to("nowhere")
    for name in ("queue-1", "queue", "queue99999999999", "queue4096", "queue1x"):
        tree.write(f"{DEBUGFS[1:]}/disk0/{name}", "worker 0\n")
    tree.spoil(random.Random(seed))
    done = tree.run("host")
    assert done.returncode == 0 and re.fullmatch(r"[ -~\n]+", done.stdout)
    done = tree.run("--json", "host")
    assert done.returncode == 0
    assert json.loads(done.stdout)["command"] == "host"


# In a guest

@pytest.fixture(scope="module")
def guest(kernel) -> Iterator[Guest]:
    """A guest with vdpa_blk, disks for it to serve, and vblkstat."""
    with Guest(kernel, disks=[Disk("back", "ram", 64 * MIB, queues=4),
                              Disk("spare", "ram", 32 * MIB, queues=1)],
               parallel=False, qemu_args=vdpa.qemu_args()) as guest:
        vdpa.prepare(guest)
        guest.put(vblkstat.build(), PROGRAM)
        guest.run("mountpoint -q /sys/kernel/debug || "
                  "mount -t debugfs none /sys/kernel/debug")
        yield guest


@pytest.fixture(scope="module")
def disk0(guest: Guest) -> Iterator[vdpa.Device]:
    """A device that virtio_vdpa makes a disk of."""
    with vdpa.Device(guest, "back", queues=4, workers=2, cpus="1-2",
                     ring_size=128) as device:
        device.disk()
        yield device


@pytest.fixture(scope="module")
def disk1(guest: Guest, disk0: vdpa.Device) -> Iterator[vdpa.Device]:
    """A device that vhost_vdpa makes a node of, without a process that opens it."""
    with vdpa.Device(guest, "spare", name="disk1", queues=1) as device:
        device.disk()
        guest.run("echo vhost_vdpa > /sys/bus/vdpa/devices/disk1/driver_override; "
                  "echo disk1 > /sys/bus/vdpa/drivers/virtio_vdpa/unbind; "
                  "modprobe vhost_vdpa")
        yield device
        guest.run("modprobe -r vhost_vdpa")


def ask(guest: Guest, words: str = "") -> dict[str, dict[str, Any]]:
    """Return what `vblkstat --json host` shows of each device, by name."""
    output = json.loads(guest.run(f"{PROGRAM} --json host {words}").output)
    assert output["notes"] == []
    return {device["name"]: device for device in output["devices"]}


def sums(device: dict[str, Any]) -> dict[str, int]:
    """Return the sum of each counter over a device's queues."""
    return {name: sum(queue["counters"][name] for queue in device["queues"])
            for name in device["queues"][0]["counters"]}


@pytest.mark.kernels("6.12")
def test_host_shows_devices_of_a_guest(guest: Guest, disk0: vdpa.Device,
                                       disk1: vdpa.Device):
    """host agrees with what the devices were set to, and with sysfs and procfs."""
    devices = ask(guest)
    assert set(devices) == {"disk0", "disk1"}
    first, second = devices["disk0"], devices["disk1"]
    disk = disk0.disk()
    assert (first["path"], first["bytes"], first["gone"]) == \
        (f"/dev/{guest.dev('back')}", 64 * MIB, False)
    assert (first["driver"], first["disk"], first["state"], first["status"]) == \
        ("virtio_vdpa", disk, "running", 15)
    accepted = guest.sysfs(f"/sys/block/{disk}/device/features")
    assert [feature["bit"] for feature in first["features"]["accepted"]] == \
        [bit for bit, value in enumerate(accepted) if value == "1"]
    for index, worker in enumerate(first["workers"]):
        thread = f"vdpa_blk/disk0:{index}"
        assert worker["thread"] == thread
        assert guest.sysfs(f"/proc/{worker['pid']}/comm") == thread
        assert worker["cpus"] == [index + 1]
        assert worker["queues"] == [index, index + 2]
    assert [(queue["worker"], queue["running"], queue["ring"])
            for queue in first["queues"]] == \
        [(index % 2, True, 128) for index in range(4)]

    assert (second["driver"], second["disk"], second["node"], second["state"]) == \
        ("vhost_vdpa", None, "/dev/vhost-vdpa-0", "idle")
    assert [queue["running"] for queue in second["queues"]] == [False]
    guest.run(f"test -c {second['node']}")


@pytest.mark.kernels("6.12")
def test_host_counts_what_was_done(guest: Guest, disk0: vdpa.Device):
    """The counters grow by the requests that were made, and are those in debugfs."""
    disk = disk0.disk()
    before = sums(ask(guest, "disk0")["disk0"])
    guest.run(f"dd if=/dev/zero of=/dev/{disk} bs=4k count=100 oflag=direct "
              "conv=fsync; "
              f"dd if=/dev/{disk} of=/dev/null bs=8k count=50 iflag=direct")
    device = ask(guest, "disk0")["disk0"]
    after = sums(device)
    assert {name: after[name] - before[name] for name in
            ("writes", "write_bytes", "reads", "read_bytes", "errors", "broken")} == {
        "writes": 100, "write_bytes": 100 * 4096, "reads": 50,
        "read_bytes": 50 * 8192, "errors": 0, "broken": 0}
    assert after["flushes"] > before["flushes"]
    for queue, known in zip(device["queues"], disk0.queues(), strict=True):
        assert queue["counters"] == {name: known[name] for name in queue["counters"]}
        assert queue["in_flight"] == 0


@pytest.mark.kernels("6.12")
def test_host_shows_batches(guest: Guest, disk0: vdpa.Device):
    """The averages are of the counters; with many requests at a time, of several."""
    before = ask(guest, "disk0")["disk0"]
    fio.run(guest, f"/dev/{disk0.disk()}", rw="randread", bs="4k", iodepth=32,
            iodepth_batch_submit=16, iodepth_batch_complete_min=8, size="8m",
            cpus_allowed="3")
    after = ask(guest, "disk0")["disk0"]
    grown = [number for number, queue in enumerate(after["queues"])
             if queue["counters"]["reads"] -
             before["queues"][number]["counters"]["reads"] > 1000]
    assert len(grown) == 1
    queue = after["queues"][grown[0]]
    counters = queue["counters"]
    requests = sum(counters[name] for name in ("reads", "writes", "flushes", "others"))
    assert 2 < queue["requests_per_wakeup"] == pytest.approx(
        requests / (counters["wakeups"] - counters["empty_wakeups"]), rel=1e-4)
    assert 1 <= queue["requests_per_interrupt"] == pytest.approx(
        requests / counters["interrupts"], rel=1e-4)
    rows = [line.split()
            for line in guest.run(f"{PROGRAM} host disk0").output.splitlines()
            if line.split()[:2] == [str(queue["queue"]), str(queue["worker"])]]
    assert rows[1][2] == f"{queue['requests_per_wakeup']:.1f}"


@pytest.mark.kernels("6.12")
def test_host_without_root_or_debugfs(guest: Guest, disk0: vdpa.Device):
    """Without root or debugfs, names and users are shown, and a note says why."""
    plain = f"setpriv --reuid=65534 --clear-groups {PROGRAM}"
    output = json.loads(guest.run(f"{plain} --json host disk0").output)
    (device,) = output["devices"]
    assert (device["driver"], device["disk"]) == ("virtio_vdpa", disk0.disk())
    assert device["path"] is device["workers"] is device["queues"] is None
    assert "run vblkstat as root" in guest.run(f"{plain} host 2>&1").output
    guest.run("umount -R /sys/kernel/debug")
    try:
        output = guest.run(f"{PROGRAM} host disk0 2>&1").output
        assert "mount -t debugfs none /sys/kernel/debug" in output
        assert "disk0, unknown backing device, virtio_vdpa, " in output
    finally:
        guest.run("mount -t debugfs none /sys/kernel/debug")


@pytest.mark.kernels("6.12")
def test_host_refuses_unknown_devices_in_a_guest(guest: Guest):
    """The name of a device that does not exist is an error with status 2."""
    done = guest.run(f"{PROGRAM} host disk7 2>&1", check=False)
    assert done.status == 2 and "no vdpa_blk device disk7" in done.output


@pytest.mark.kernels("6.12")
def test_host_shows_a_backing_device_that_is_gone(guest: Guest, disk1: vdpa.Device):
    """When the backing device is removed, the device's state is gone."""
    guest.tolerate("the backing device /dev/vd[a-z]+ is gone")
    guest.remove_disk("spare")
    device = ask(guest, "disk1")["disk1"]
    assert (device["state"], device["gone"]) == ("gone", True)
