# SPDX-License-Identifier: GPL-2.0
"""Counters of each queue in debugfs, and trace points.

The tests compare each with a second source: fio, /proc/interrupts, sysfs, or the
other trace points.
"""

import contextlib
import re
import shutil
import statistics
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from common import counters, fio, full_ring
from host import deps
from vm import image
from vm.disk import Disk
from vm.guest import Guest

pytestmark = pytest.mark.kernels("6.12", full=("6.1", "7.3-debug"))

MIB = 1 << 20
EVENTS = "/sys/kernel/tracing"
SCRIPT = Path(__file__).resolve().parents[2] / "trace/virtblk-life.bt"
# Latency of the null device.  The longest wait has the resolution of a jiffy, which
# is 10 ms on the debug kernel.
LATENCY_MS = 250
JIFFY_MS = 10


@pytest.fixture(scope="module")
def guest(kernel):
    """A guest with disks that are fast, slow, or fail a write."""
    disks = [
        Disk("wide", "ram", 64 * MIB, queues=4),
        Disk("thin", "raw", 64 * MIB, queues=1),
        Disk("slow", "null", 64 * MIB, queues=1, queue_size=16,
             indirect_desc=False, latency_ns=LATENCY_MS * 1_000_000),
        Disk("bad", "ram", 64 * MIB, queues=1, filters=[
            {"driver": "blkdebug", "inject-error": [
                {"event": "none", "iotype": "write", "errno": 5,
                 "sector": 100}]}]),
    ]
    with Guest(kernel, disks=disks) as guest:
        guest.tolerate("I/O error, dev vd")
        guest.run(f"mountpoint -q {counters.DEBUG} || "
                  f"mount -t debugfs none {counters.DEBUG}; "
                  f"mountpoint -q {EVENTS} || mount -t tracefs none {EVENTS}")
        yield guest


def vectors(guest, id):
    """Return {queue: (irq, interrupts)} from /proc/interrupts."""
    device = guest.run(f"basename $(readlink /sys/block/{guest.dev(id)}/device)"
                       ).output.strip()
    found = {}
    for line in guest.sysfs("/proc/interrupts").splitlines():
        if match := re.search(rf"^\s*(\d+):.*\s{device}-req\.(\d+)$", line):
            counts = [int(word) for word in line.split()[1:1 + guest.cpus]]
            found[int(match[2])] = int(match[1]), sum(counts)
    return found


# Counters

def test_requests_are_counted(guest):
    """Counted requests, bytes and kicks agree with fio's report."""
    before = counters.of_disk(guest, "wide")
    report = fio.run(guest, f"/dev/{guest.dev('wide')}", rw="randrw", bs="4k",
                     size="4m", numjobs=4, cpus_allowed="0-3",
                     cpus_allowed_policy="split")
    grown = counters.of_disk(guest, "wide") - before
    reads = sum(job["read"]["total_ios"] for job in report["jobs"])
    writes = sum(job["write"]["total_ios"] for job in report["jobs"])
    # The block layer may merge requests; the number of bytes is the same.
    assert 0 < grown["reads"] <= reads
    assert 0 < grown["writes"] <= writes
    assert grown["read_bytes"] == 4096 * reads
    assert grown["write_bytes"] == 4096 * writes
    assert 0 < grown["kicks"] <= grown["reads"] + grown["writes"]
    assert not grown["requeues"] and not grown["ioerr"]


def test_interrupts_are_counted(guest):
    """Counted interrupts equal /proc/interrupts; completions add up to the requests."""
    seen = vectors(guest, "wide")
    assert sorted(seen) == [0, 1, 2, 3]
    for queue, (irq, interrupts) in seen.items():
        counted = counters.of_queue(guest, "wide", queue)
        assert counted["irq"] == irq
        assert counted["interrupts"] == interrupts
        empty, *found = counted["completions"]
        requests = counted["reads"] + counted["writes"]
        # Each class begins with a power of two.
        assert sum(found) <= requests <= sum(
            count << (place + 1) for place, count in enumerate(found))
        assert interrupts <= empty + sum(found)


def test_queue_tells_its_state(guest):
    """An idle queue shows its CPUs, type, empty ring and no request in flight."""
    for queue in range(4):
        found = counters.of_queue(guest, "wide", queue)
        mq = f"/sys/block/{guest.dev('wide')}/mq/{queue}"
        assert guest.run(f"cd {mq} && echo cpu[0-9]*").output.split() == \
            [f"cpu{cpu}" for cpu in found["cpus"].split(",")]
        assert found["type"] == "default"
        assert found["ring"] == found["free"] == 256
        assert found["in_flight"] == found["stopped"] == 0


def test_kinds_are_told_apart(guest):
    """Discards, write zeroes, flushes and other requests have their own counters."""
    disk = f"/dev/{guest.dev('thin')}"
    before = counters.of_disk(guest, "thin")
    guest.run(f"blkdiscard -o 0 -l 1M {disk} && "
              f"blkdiscard -z -o 1M -l 2M {disk} && "
              f"dd if=/dev/zero of={disk} bs=4k count=1 conv=fsync && "
              f"cat /sys/block/{guest.dev('thin')}/serial")
    grown = counters.of_disk(guest, "thin") - before
    assert grown["discards"] >= 1 and grown["discard_bytes"] == MIB
    assert grown["write_zeroes"] >= 1
    assert grown["write_zeroes_bytes"] == 2 * MIB
    assert grown["flushes"] >= 1
    assert grown["queries"] == 1


def _fill_ring(guest, seconds):
    """Start fio with requests of which only two fit into the ring.

    nice=None: the reader of the counters must not starve fio.
    """
    return fio.start(guest, f"/dev/{guest.dev('slow')}", rw="randread", bs="16k",
                     iodepth=5, nice=None, time_based=1, runtime=seconds,
                     iomem=full_ring.memory(guest, 5 * 16384))


def test_full_ring_and_longest_wait(guest):
    """A full ring is counted with its requests, stops, requeues and longest wait."""
    load = _fill_ring(guest, 5)
    samples = []
    while load.running:
        samples.append(counters.of_queue(guest, "slow"))
    load.wait()
    # A request takes six of the sixteen descriptors: four for its data and two
    # others.  virtio_ring frees them one by one, so a sample may have any number of
    # free descriptors from 4 on.  The driver counts requests after the descriptors,
    # and one may start or end during a sample; in most samples none does.
    full = [sample["in_flight"] for sample in samples if sample["free"] == 4]
    assert statistics.median(full) == 2
    assert {sample["ring"] for sample in samples} == {16}
    assert all(4 <= sample["free"] <= 16 for sample in samples)
    assert any(sample["stopped"] for sample in samples)
    after = counters.of_queue(guest, "slow")
    assert after["ring_full"] and after["requeues"] >= after["ring_full"]
    assert after["longest_wait_ms"] >= LATENCY_MS - JIFFY_MS
    assert not after["stopped"] and not after["in_flight"]


def test_errors_are_counted(guest):
    """A failed write counts as one ioerr and as no other error."""
    disk = f"/dev/{guest.dev('bad')}"
    before = counters.of_disk(guest, "bad")
    result = guest.run(f"dd if=/dev/zero of={disk} bs=4k seek=12 count=1 "
                       "oflag=direct", check=False)
    assert result.status
    grown = counters.of_disk(guest, "bad") - before
    assert grown["ioerr"] == 1
    assert not grown["unsupp"] and not grown["other_errors"]


# Trace points

_LINE = re.compile(r"\s(\d+\.\d+): (virtblk_\w+): (\w+)(.*)")


@dataclass
class Event:
    """A line of the trace: seconds, trace point, disk, fields, and other words."""
    time: float
    name: str
    disk: str
    fields: dict
    words: list


@contextlib.contextmanager
def traced(guest):
    """Collect the events of the block, in a list that is filled at its end."""
    events = []
    enable = f"{EVENTS}/events/virtio_blk/enable"
    guest.run(f"echo > {EVENTS}/trace; echo 1 > {enable}")
    try:
        yield events
    finally:
        guest.run(f"echo 0 > {enable}")
    for line in guest.sysfs(f"{EVENTS}/trace").splitlines():
        if match := _LINE.search(line):
            events.append(Event(
                float(match[1]), match[2], match[3],
                dict(re.findall(r"(\w+)=(\S+)", match[4])),
                [word for word in match[4].split() if "=" not in word]))


def test_life_of_requests(guest):
    """Each request has submit, kick, interrupt and complete events with its fields."""
    disk = guest.dev("wide")
    with traced(guest) as events:
        guest.run(f"taskset 4 dd if=/dev/{disk} of=/dev/null bs=8k count=20 "
                  "iflag=direct")
    events = [event for event in events if event.disk == disk]
    assert [event.name for event in events] == [
        "virtblk_submit", "virtblk_kick", "virtblk_interrupt",
        "virtblk_complete"] * 20
    assert all(event.fields["queue"] == "2" for event in events)
    for number in range(20):
        sent, kick, _, ended = events[4 * number:4 * number + 4]
        assert kick.words == ["sent"]
        assert sent.words == ended.words == ["read"]
        assert sent.fields["sector"] == str(16 * number)
        assert sent.fields["bytes"] == "8192"
        assert ended.fields == {**sent.fields, "status": "0", "written": "8193"}
    times = [event.time for event in events]
    assert times == sorted(times)


def test_operations_have_numbers(guest):
    """The format has the names of operations, for perf and trace-cmd."""
    for name in ("virtblk_submit", "virtblk_complete"):
        text = guest.sysfs(f"{EVENTS}/events/virtio_blk/{name}/format")
        assert '{ 1, "write" }' in text, text


def test_full_ring_is_traced(guest):
    """virtblk_stop names the disk whose ring is full, and no other."""
    slow = guest.dev("slow")
    with traced(guest) as events:
        _fill_ring(guest, 1).wait()
    assert {event.disk for event in events
            if event.name == "virtblk_stop"} == {slow}


def test_reset_is_traced(guest):
    """A reset has two virtblk_recover events: "reset" and "resend"."""
    with traced(guest) as events:
        guest.run(f"echo 1 > /sys/block/{guest.dev('slow')}/recovery/reset")
    assert [event.words for event in events
            if event.name == "virtblk_recover"] == [["reset"], ["resend"]]


def test_new_capacity_is_traced(guest):
    """A resize has one virtblk_config event with the new capacity."""
    thin = guest.dev("thin")
    with traced(guest) as events:
        guest.resize_disk("thin", 80 * MIB)
        guest.run(f"for i in $(seq 100); do [ $(cat /sys/block/{thin}/size) = "
                  f"{80 * MIB // 512} ] && exit; sleep 0.1; done; exit 1")
    assert [event.fields for event in events
            if event.name == "virtblk_config"] == \
        [{"capacity": str(80 * MIB // 512)}]


# The script for bpftrace

def _tools_image(directory):
    """Make an ext4 image with bpftrace, its libraries and the script."""
    deps.need({"bpftrace": "bpftrace"})
    program = deps.which("bpftrace")
    listed = subprocess.run(["ldd", program], text=True, check=True,
                            capture_output=True).stdout
    tree = directory / "tree"
    tree.mkdir()
    for path in [program, *re.findall(r"(/\S+) \(0x", listed)]:
        shutil.copy(path, tree)
    shutil.copy(SCRIPT, tree)
    image.make_ext4(tree, directory / "tools.img", "tools", 384)
    return directory / "tools.img"


@pytest.mark.full(reason="200 MB of LLVM")
@pytest.mark.kernels("6.12")
def test_script_for_bpftrace(kernel, tmp_path):
    """The bpftrace script counts each request once in each stage."""
    tools = Disk("tools", "raw", path=_tools_image(tmp_path))
    with Guest(kernel, disks=[Disk("wide", "ram", 64 * MIB, queues=4),
                              tools]) as guest:
        guest.run(f"mountpoint -q {counters.DEBUG} || "
                  f"mount -t debugfs none {counters.DEBUG}; "
                  f"mkdir /t && mount -o ro /dev/{guest.dev('tools')} /t")
        wide = guest.dev("wide")
        dd = f"/bin/dd if=/dev/{wide} of=/dev/null bs=4k count=2000 iflag=direct"
        output = guest.run(f"LD_LIBRARY_PATH=/t /t/bpftrace -c '{dd}' "
                           f"/t/{SCRIPT.name} {wide}", timeout=300).output
    # Without a scheduler no request waits before the ring.
    stages = re.split(r"@(\w+)_us:", output)[1:]
    counts = {name: sum(map(int, re.findall(r"(\d+) +\|", histogram)))
              for name, histogram in zip(stages[::2], stages[1::2])}
    assert counts == dict.fromkeys(("plug", "device", "interrupt", "end"), 2000), \
        output
