# SPDX-License-Identifier: GPL-2.0
"""Test that vblkstat doctor finds what is wrong, and nothing else.

vblkstat reads trees of files with --root, each with one flaw.
"""

import json
import re
import shutil
import time

import pytest

from .vblkstat_files import BLOCK, FEATURES, DiskTree, bits


@pytest.fixture
def tree(tmp_path):
    """A tree with the healthy disk vda."""
    tree = DiskTree(tmp_path / "tree")
    tree.add_disk("vda", 2)
    return tree


# One flaw at a time: a file, its contents, and the id of the finding

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


# A copy of files shows only that these have happened, not that they happen now.
PAST = {"timeouts", "lost-interrupts", "resets", "long-wait", "errors", "unsupported"}


@pytest.mark.parametrize("path,text,id", WAYS)
def test_finding(tree, path, text, id):
    """doctor reports the flaw that a file shows, and no other, with advice."""
    tree.write(path, text + "\n")
    assert tree.findings() == {"vda": {id}}
    done = tree.run("doctor")
    assert done.returncode == (id not in PAST)
    past = "past " if id in PAST else ""
    assert re.search(rf"^vda: {past}(error|warning): ", done.stdout, re.MULTILINE)
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
    assert tree.run("doctor").returncode == (id not in PAST)


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


@pytest.mark.parametrize("queues,changed,intruders", [
    (4, {}, []),
    # Queues 0 and 1 serve CPUs 0, 2 and 1, 3.
    (2, {24: "0", 25: "1"}, []),
    (2, {24: "2", 25: "1"}, ["queue 0: IRQ 24 goes to CPU 2, and serves CPUs 0"]),
    (2, {24: "2", 25: "3"}, ["queue 0: IRQ 24", "queue 1: IRQ 25"]),
])
@pytest.mark.parametrize("file", [
    "sys/devices/system/cpu/isolated", "sys/devices/system/cpu/nohz_full",
    "sys/fs/cgroup/cpuset.cpus.isolated"])
def test_interrupts_on_isolated_cpus(tmp_path, file, queues, changed, intruders):
    """doctor reports interrupts on isolated CPUs that are for I/O of other CPUs."""
    tree = DiskTree(tmp_path / "tree")
    tree.add_disk("vda", 2, queues=queues)
    tree.write(file, "2-3\n")
    for irq, cpus in changed.items():
        tree.write(f"proc/irq/{irq}/effective_affinity_list", f"{cpus}\n")
    found = [finding["what"] for finding in tree.json("doctor")["findings"]
             if finding["id"] == "isolated-cpu"]
    assert len(found) == bool(intruders)
    for text in intruders:
        assert text in found[0]
    # Without interrupts on isolated CPUs there is only the number of queues.
    if not intruders:
        assert tree.findings().get("vda", set()) == ({"few-queues"} if queues < 4
                                                     else set())


def test_affinity_without_isolated_cpus(tmp_path):
    """doctor accepts an affinity that leaves out the isolated CPUs of a queue."""
    tree = DiskTree(tmp_path / "tree")
    tree.add_disk("vda", 2, queues=2)
    for irq, cpu in ((24, 0), (25, 1)):
        for name in ("smp_affinity_list", "effective_affinity_list"):
            tree.write(f"proc/irq/{irq}/{name}", f"{cpu}\n")
    assert tree.findings() == {"vda": {"few-queues", "affinity"}}
    tree.write("sys/devices/system/cpu/isolated", "2-3\n")
    assert tree.findings() == {"vda": {"few-queues"}}


def test_shared_vector_on_an_isolated_cpu(tree):
    """An interrupt that queues share is for the I/O of all CPUs."""
    tree.irqs = {24: ("virtio2-virtqueues", [1, 2, 3, 4])}
    tree.write_interrupts()
    tree.write("sys/devices/system/cpu/isolated", "2-3\n")
    assert tree.findings() == {"vda": {"shared-vector"}}
    tree.write("proc/irq/24/effective_affinity_list", "3\n")
    assert tree.findings() == {"vda": {"shared-vector", "isolated-cpu"}}


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


# Blind spots

@pytest.mark.parametrize("path,missing", (
    ("sys/kernel/debug/virtio_blk", "no counters of queues"),
    ("sys/kernel/debug/virtio_blk/vda/queue2", "no counters of some queues"),
    ("sys/kernel/debug", "the kernel has no debugfs"),
    (f"{BLOCK}/recovery", "/recovery/resets"), (f"{BLOCK}/stat", "/stat"),
    (f"{BLOCK}/inflight", "/inflight"), (f"{BLOCK}/mq", "its queues"),
    ("proc/interrupts", "interrupts are not shown"),
    (f"{BLOCK}/device/features", "features of its device")))
def test_unreadable_files_are_no_good_news(tree, path, missing):
    """Without a file that it needs, doctor is never satisfied, and names the file."""
    (tree.path / path).rename(tree.path / "away")
    output = tree.json("doctor")
    assert output["findings"] == [] and output["complete"] is False
    assert any(missing in text for text in output["missing"])
    done = tree.run("doctor")
    assert done.returncode == 4
    assert "0 findings on 1 disk, but doctor could not check everything:" in done.stdout
    assert missing in " ".join(done.stdout.split())
    # A finding is one, complete or not.
    tree.write("sys/devices/system/cpu/online", "0-7\n")
    if "mq" not in path:
        assert tree.run("doctor").returncode == 1


@pytest.mark.parametrize("changed,status", (({}, 0), ({"in_flight": 3}, 4),
                                            ({"in_flight": 3, "oldest_ms": 9}, 0)))
def test_requests_in_flight_in_a_copy(tree, changed, status):
    """A copy does not show progress; without the age of requests they may be stuck."""
    tree.write_queue("vda", 2, **changed)
    assert tree.run("doctor").returncode == status
    assert tree.json("doctor")["complete"] is (status == 0)


@pytest.mark.parametrize("ms", (999, 1500))
def test_doctor_asks_no_silent_device_for_its_wear(tree, ms):
    """The wear of a device that has not answered for a second is missing, not asked."""
    tree.write(f"{BLOCK}/device/features", bits(FEATURES | {15}) + "\n")
    tree.write(f"{BLOCK}/oldest_ms", f"{ms}\n")
    tree.write(f"{BLOCK}/lifetime/pre_eol_info", "0x03 urgent\n")
    output = json.loads(tree.run("--json", "doctor", "0.1", live=True).stdout)
    ids = {finding["id"] for finding in output["findings"]}
    assert ("worn" in ids) == (ms < 1000)
    assert ms < 1000 or output["missing"] == ["vda: the device does not report its wear"]


# Past and present

def past(tree, *words):
    """Return the findings of the past, by id."""
    findings = tree.json("doctor", *words)["findings"]
    assert not any(finding["active"] for finding in findings)
    return {finding["id"]: finding for finding in findings}


def test_one_pause_is_one_finding(tree):
    """Timeouts, a reset and a long wait of the past are one finding with the counts."""
    tree.write(f"{BLOCK}/recovery/timeouts", "83\n")
    tree.write(f"{BLOCK}/recovery/resets", "2\n")
    tree.write(f"{BLOCK}/recovery/lost_interrupts", "3\n")
    tree.write_queue("vda", 1, longest_wait_ms=95000)
    found = past(tree)
    assert set(found) == {"timeouts", "lost-interrupts"}
    # With this driver a lost interrupt is a timeout, too, and is reported once.
    assert (found["timeouts"]["count"], found["lost-interrupts"]["count"]) == (80, 3)
    assert "95.0 s" in found["timeouts"]["what"] and "2 times" in found["timeouts"]["what"]
    # A driver that counts stalls does not count lost interrupts as timeouts.
    tree.write(f"{BLOCK}/recovery/stalls", "1\n")
    assert past(tree)["timeouts"]["what"].startswith(
        "the disk stalled 1 time: 83 requests took longer than io_timeout; ")
    done = tree.run("doctor")
    assert done.returncode == 0
    assert "0 findings now, 2 in the past, on 1 disk\n" in done.stdout


def test_cleared_counters(tree):
    """After --clear, doctor reports only what has happened since, of that disk."""
    tree.add_disk("vdb", 3)
    for name in ("vda", "vdb"):
        tree.write(f"sys/block/{name}/recovery/timeouts", "5\n")
    tree.write_queue("vda", 1, longest_wait_ms=95000, ioerr=4, ring_full=300)
    assert tree.findings() == {"vda": {"timeouts", "errors", "ring-full"},
                               "vdb": {"timeouts"}}
    done = tree.run("doctor", "--clear", "vda")
    assert done.returncode == 0 and "cleared 1 disk;" in done.stdout
    assert tree.findings() == {"vdb": {"timeouts"}}
    tree.run("doctor", "--clear", "vdb")
    assert tree.findings() == {}
    tree.write(f"{BLOCK}/recovery/timeouts", "7\n")
    tree.write_queue("vda", 1, longest_wait_ms=95000, ioerr=5, ring_full=300)
    found = past(tree)
    assert {id: found[id]["count"] for id in found} == {"timeouts": 2, "errors": 1}
    assert "95.0 s" not in found["timeouts"]["what"]
    assert past(tree, "--since=boot", "vdb")["timeouts"]["count"] == 5
    # Another disk under the same name counts from 0.
    tree.write(f"{BLOCK}/diskseq", "99\n")
    assert tree.findings()["vda"] == {"timeouts", "errors", "ring-full"}


def test_clear_needs_all_counters(tree):
    """--clear refuses to clear what it cannot read or write."""
    tree.write(f"{BLOCK}/recovery/timeouts", "5\n")
    (tree.path / "sys/kernel/debug/virtio_blk").rename(tree.path / "away")
    done = tree.run("doctor", "--clear")
    assert done.returncode == 2 and "cannot clear counters" in done.stderr
    (tree.path / "away").rename(tree.path / "sys/kernel/debug/virtio_blk")
    tree.write("run/vblkstat", "a file\n")
    done = tree.run("doctor", "--clear")
    assert done.returncode == 2 and "/run/vblkstat" in done.stderr
    assert "timeouts" in past(tree)


def test_times_of_the_kernel_log(tree, monkeypatch):
    """Findings have the first and the last time at which the kernel logged the event."""
    now = int(time.time())
    tree.write("proc/stat", f"cpu 1\nbtime {now - 10000}\n")
    tree.write("proc/uptime", "10000.0 1.0\n")
    tree.write(f"{BLOCK}/recovery/timeouts", "5\n")
    tree.write_queue("vda", 1, ioerr=4)
    text = "virtio_blk virtio2: [{}] 2 requests on queues 0 have timed out after 30 s"
    tree.write("dev/kmsg", "".join(f"4,{number},{second}000000,-;{line}\n"
        for number, (second, line) in enumerate((
            (2000, text.format("vda")), (2500, text.format("vdaa")),
            (3000, "virtio_blk virtio2: [vda] all requests that had timed out have "
                   "completed"), (4000, text.format("vdb")),
            (9900, "I/O error, dev vda, sector 8 op 0x0:(READ) flags 0x0"),
            (9990, "I/O error, dev sda, sector 8 op 0x0:(READ) flags 0x0")))))
    found = past(tree)
    assert (found["timeouts"]["first"], found["timeouts"]["last"]) == \
        (now - 8000, now - 7000)
    assert found["errors"]["last"] == now - 100
    assert set(past(tree, "--since=2h")) == {"timeouts", "errors"}
    assert set(past(tree, "--since=110m")) == {"errors"}
    assert "according to the kernel log" in tree.run("doctor").stdout
    # So long ago, as the clock shows it here; a time to come was yesterday.
    monkeypatch.setenv("TZ", "XYZ-5:30")
    for ago, ids in ((3600, {"errors"}), (7500, {"timeouts", "errors"}),
                     (-3600, {"timeouts", "errors"})):
        shown = time.gmtime(now - ago + 19800)
        assert set(past(tree, time.strftime("--since=%H:%M", shown))) == ids
    # What has no time is never left out.
    (tree.path / "dev/kmsg").unlink()
    assert set(past(tree, "--since=1s")) == {"timeouts", "errors"}


@pytest.mark.parametrize("words,message", (
    (["--since=soon", "doctor"], "--since=soon is no time"),
    (["--since=5x", "doctor"], "--since=5x is no time"),
    (["--since=25:00", "doctor"], "--since=25:00 is no time"),
    (["--since=2:60", "doctor"], "--since=2:60 is no time"),
    (["--since=2:", "doctor"], "--since=2: is no time"),
    (["--since=2h", "list"], "only for doctor"), (["--clear", "watch"], "only for doctor")))
def test_invalid_times(tree, words, message):
    """An invalid time, or one for another command, is an error that names it."""
    done = tree.run(*words)
    assert done.returncode == 2 and message in done.stderr
