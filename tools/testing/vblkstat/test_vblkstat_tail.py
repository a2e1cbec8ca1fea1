# SPDX-License-Identifier: GPL-2.0
"""Test that vblkstat doctor finds late requests among fast ones, and only these.

vblkstat reads trees of files with --root.
"""

import json
import re
import threading
import time

import pytest

from .vblkstat_files import BLOCK, CLOSED, DiskTree, Events, slow

QUEUE3 = "sys/kernel/debug/virtio_blk/vda/queue3"
CLEARED = "run/vblkstat/cleared"
RESET_AT_1000_S = "4,1,1000000000,-;virtio_blk virtio2: [vda] the device was reset\n" \
    "4,2,1000000000,-;virtio_blk virtio2: [vda] was reset\n"


@pytest.fixture
def tree(tmp_path):
    """A tree with the healthy disk vda, whose four queues had 5000 reads each.

    256 requests can be in flight on all its queues, so that one pause delays no more.
    """
    tree = DiskTree(tmp_path / "tree")
    tree.add_disk("vda", 2)
    for index in range(4):
        tree.write(f"{BLOCK}/mq/{index}/nr_tags", "64\n")
    return tree


def tail(tree, *words):
    """Return the finding about late requests, None if there is none."""
    found = [finding for finding in tree.json("doctor", *words)["findings"]
             if finding["id"] == "tail-latency"]
    assert len(found) <= 1
    return found[0] if found else None


def test_one_read_in_nine_is_late(tree):
    """The finding has the share, the kind, the time and the queues, and is past."""
    for index in (1, 3):
        tree.write_queue("vda", index, reads=9000, slow_reads=slow({256: 1000}))
    for index in (0, 2):
        tree.write_queue("vda", index, reads=0)
    finding = tail(tree)
    assert finding["what"] == \
        "2000 of 18000 reads (11.1%) took 256 to 511 ms, on queues 1, 3; " \
        "most reads take less than 16 ms"
    assert (finding["level"], finding["active"], finding["count"]) == \
        ("warning", False, 2000)
    assert finding["host"] and finding["guest"] and finding["incident"] is None
    done = tree.run("doctor")
    assert done.returncode == 0 and "vda: past warning: 2000 of 18000" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    # The guest's own load comes first, and other disks keep what happened to them.
    assert "IN FLIGHT" in finding["why"]
    assert "doctor --clear DISK" in finding["guest"]
    assert "doctor DISK 300" in finding["guest"]
    assert "doctor --clear DISK" in done.stdout.splitlines()[-1]


# Counters of each of the four queues, and a part of the text
LATE = [
    ({"reads": 10000, "slow_reads": slow({256: 100})},
     "400 of 40000 reads (1.0%) took 256 to 511 ms, on all 4 queues"),
    ({"slow_reads": slow({16: 500, 512: 80, 2048: 1})}, "324 of 20000 reads (1.6%) took "
     "512 to 4095 ms"),
    ({"slow_reads": slow({4096: 500})}, "took 4096 to 8191 ms"),
    ({"writes": 1000, "slow_writes": slow({256: 100})}, "400 of 4000 writes (10.0%)"),
    ({"flushes": 1000, "queries": 0, "slow_others": slow({256: 100})},
     "400 of 4000 flushes (10.0%) took 256 to 511 ms, on all 4 queues; "),
    # The driver counts late discards with the flushes, so doctor names no queues.
    ({"flushes": 1000, "queries": 0, "discards": 2, "slow_others": slow({256: 100})},
     "392 of 4000 flushes (9.8%) took 256 to 511 ms; "),
    # Most take 32 to 63 ms, so that 8 times as long is late.
    ({"flushes": 1000, "queries": 0, "slow_others": slow({32: 900, 256: 20, 512: 80})},
     "took 512 to 1023 ms, on all 4 queues; most flushes take less than 64 ms"),
    ({"slow_reads": slow({16: 4000, 256: 80})}, "most reads take less than 32 ms"),
    ({"slow_reads": slow({256: 500}), "writes": 1000, "slow_writes": slow({256: 100})},
     "2000 of 20000 reads (10.0%) took 256 to 511 ms, on all 4 queues; most reads take "
     "less than 16 ms; 400 of 4000 writes (10.0%) took 256 to 511 ms as well, on all 4 "
     "queues; most writes take"),
]
HEALTHY = [
    # Less than 1 in 100, or no more than one pause can delay with all queues full.
    {"reads": 100000, "slow_reads": slow({256: 999})},
    {"slow_reads": slow({256: 64})},
    {"reads": 40, "slow_reads": slow({256: 4})},
    # A hard disk, alone and with its queue full.
    {"slow_reads": slow({16: 900, 32: 200, 64: 100, 128: 60})},
    {"slow_reads": slow({16: 300, 32: 700, 64: 2000, 128: 1500, 256: 499})},
    {"flushes": 1000, "slow_others": slow({32: 900, 64: 80, 256: 20})},
    # All are slow: a throttled disk, or a tape; that is no tail.
    {"slow_reads": slow({256: 2000, 512: 2999})},
    {"slow_reads": slow({4096: 4000, 8192: 500})},
    # Discards may be what is slow.
    {"flushes": 1000, "discards": 110, "slow_others": slow({256: 110})},
    {"flushes": 1000, "zone_appends": 110, "slow_others": slow({256: 110})},
]


@pytest.mark.parametrize("counters,text", LATE)
def test_late_requests_are_found(tree, counters, text):
    """A share of 1 in 100 that takes far longer than most is found."""
    for index in range(4):
        tree.write_queue("vda", index, **counters)
    assert text in tail(tree)["what"]


@pytest.mark.parametrize("counters", HEALTHY)
def test_slow_storage_is_no_finding(tree, counters):
    """Storage that is slow and healthy has no finding."""
    for index in range(4):
        tree.write_queue("vda", index, **counters)
    assert tree.findings() == {}


def test_driver_without_counts_of_slow_requests(tree):
    """With an older driver there is no finding, and doctor says that it is incomplete."""
    for index in range(4):
        tree.drop_lines("vda", index, "slow_")
    done = tree.run("doctor")
    assert done.returncode == 4
    assert "the driver is older and does not count slow requests" in \
        " ".join(done.stdout.split())
    assert tree.findings() == {}
    # The other counters can be cleared.
    assert tree.run("doctor", "--clear").returncode == 0


def test_polled_requests_are_not_late(tree):
    """A queue that is polled counts neither with its late requests nor with all of them."""
    tree.write_queue("vda", 3, type="poll", reads=10 ** 6,
                     slow_reads=slow({256: 10 ** 5}))
    assert tail(tree) is None
    assert 'operation="read",at_least="0.256"} 0\n' in tree.run("export").stdout
    tree.write_queue("vda", 0, slow_reads=slow({256: 400}))
    assert tail(tree)["what"].startswith("400 of 15000 reads (2.7%) took 256 to 511 ms, "
                                         "on queue 0; ")
    tree.run("doctor", "--clear")
    assert tail(tree) is None
    tree.write_queue("vda", 0, reads=6000, slow_reads=slow({256: 700}))
    tree.write_queue("vda", 3, type="poll", reads=2 * 10 ** 6,
                     slow_reads=slow({256: 2 * 10 ** 5}))
    assert tail(tree)["what"].startswith("300 of 1000 reads (30.0%)")


# Cleared

def test_late_requests_are_cleared(tree):
    """--clear ends the finding; later ones count against later requests."""
    tree.write_queue("vda", 1, slow_reads=slow({256: 500}))
    assert tail(tree)["count"] == 500
    assert tree.run("doctor", "--clear").returncode == 0
    assert tree.findings() == {}
    assert tail(tree, "--since=boot")["count"] == 500
    tree.write_queue("vda", 1, slow_reads=slow({256: 500}), reads=6000)
    tree.write_queue("vda", 2, slow_reads=slow({512: 400}), reads=6000)
    # Which queue had which part before is not saved, so doctor names none.
    assert tail(tree)["what"].startswith(
        "400 of 2000 reads (20.0%) took 512 to 1023 ms; ")
    # When requests were late is not known, and --since never leaves them out.
    assert tail(tree, "--since=1s")
    tree.write(f"{BLOCK}/diskseq", "99\n")
    assert tail(tree)["count"] == 900


def test_cleared_counts_are_of_the_disk(tree):
    """--clear saves one line for each kind and time, and queues without any are named."""
    for index in range(4):
        tree.write_queue("vda", index, slow_reads=slow({16: 9, 32: 1}))
    assert tree.run("doctor", "--clear").returncode == 0
    lines = (tree.path / CLEARED).read_text().splitlines()
    assert [line for line in lines if "slow" in line] == \
        ["vda 2 slow_reads_16 36", "vda 2 slow_reads_32 4"]
    tree.write_queue("vda", 2, slow_reads=slow({16: 9, 32: 1, 512: 400}), reads=6000)
    assert tail(tree)["what"].startswith(
        "400 of 1000 reads (40.0%) took 512 to 1023 ms, on queue 2; ")


def test_cleared_file_with_many_lines(tree):
    """Lines of disks that are gone do not keep --clear from working; none is lost silently."""
    tree.write_queue("vda", 1, slow_reads=slow({256: 500}))
    tree.write(CLEARED, "".join(f"vdz 9 counter{number} 1\n" for number in range(50000)))
    done = tree.run("doctor", "--clear")
    assert done.returncode == 0 and not done.stderr
    assert tree.findings() == {}
    assert "vdz" not in (tree.path / CLEARED).read_text()
    tree.write(CLEARED, "vdz 9 timeouts 1\n" * 200000)
    done = tree.run("doctor")
    assert done.stderr.count("cleared has more than") == 1


# Stalls

INCIDENTS = [
    (f"{BLOCK}/recovery/timeouts", "20", {}, "timeouts"),
    (f"{BLOCK}/recovery/resets", "2", {}, "resets"),
    # A lost interrupt costs two to three seconds.
    (f"{BLOCK}/recovery/lost_interrupts", "2", {}, "lost-interrupts"),
    (f"{BLOCK}/oldest_ms", "1", {"longest_wait_ms": 7000}, "long-wait"),
    (f"{BLOCK}/state", "stalled", {}, "stalled"),
    (f"{BLOCK}/oldest_ms", "5000", {}, "long-wait"),
]


@pytest.mark.parametrize("path,text,counters,id", INCIDENTS)
def test_stall_is_no_tail(tree, path, text, counters, id):
    """What a stall has delayed is reported as the stall, once."""
    tree.write(path, f"{text}\n")
    delayed = {2048: 500} if id == "lost-interrupts" else {
        256: 10, 512: 20, 1024: 40, 2048: 80, 4096: 160, 8192: 200, 16384: 400}
    if id == "resets":
        delayed = {512: 500}
    tree.write_queue("vda", 1, slow_reads=slow(delayed), **counters)
    assert tree.findings() == {"vda": {id}}


def test_long_wait_has_the_number_of_requests(tree):
    """A long wait says how many requests waited about as long."""
    tree.write_queue("vda", 1, slow_reads=slow({4096: 3, 16384: 2}),
                     slow_writes=slow({4096: 1}), longest_wait_ms=20000)
    (finding,) = tree.json("doctor")["findings"]
    assert finding["count"] == 6
    assert finding["what"] == "a request took 20.0 s (expected: less than 5 s), and 5 " \
        "more took 4.1 s or longer"


@pytest.mark.parametrize("path", (f"{BLOCK}/recovery/timeouts", f"{BLOCK}/ro"))
def test_tail_besides_a_stall(tree, path):
    """Many more late requests than a stall explains are a finding of their own."""
    tree.write(path, "3\n")
    tree.write_queue("vda", 1, longest_wait_ms=7000,
                     slow_reads=slow({256: 2000, 4096: 20, 16384: 3}))
    stall = "timeouts" if path.endswith("timeouts") else "long-wait"
    assert tree.findings() == {"vda": {stall, "tail-latency"}}
    assert tail(tree)["count"] == 2000


@pytest.mark.parametrize("file,id", (("lost_interrupts", "lost-interrupts"),
                                     ("resets", "resets")))
def test_tail_besides_one_event(tree, file, id):
    """A lost interrupt or a reset delays no more requests than can be in flight."""
    tree.write(f"{BLOCK}/recovery/{file}", "1\n")
    tree.write_queue("vda", 1, slow_reads=slow({256: 2000}))
    assert tree.findings() == {"vda": {id, "tail-latency"}}


def test_tail_besides_an_event_before_since(tree):
    """An event that --since leaves out explains no late requests."""
    now = int(time.time())
    tree.write("proc/stat", f"cpu 1\nbtime {now - 10000}\n")
    tree.write("proc/uptime", "10000.0 1.0\n")
    tree.write(f"{BLOCK}/recovery/resets", "2\n")
    tree.write("dev/kmsg", RESET_AT_1000_S)
    tree.write_queue("vda", 1, slow_reads=slow({256: 500}))
    assert tree.findings() == {"vda": {"resets"}}
    assert [finding["id"] for finding in
            tree.json("doctor", "--since=1h")["findings"]] == ["tail-latency"]


# Now

def doctor_while(tree, change):
    """Run doctor on what it takes for a live machine, and change it between readings."""
    tree.write(f"{BLOCK}/oldest_ms", "1\n")

    def change_after_reading():
        # The last file of a reading.
        events.wait()
        change()

    with Events(CLOSED, tree.path / QUEUE3) as events:
        thread = threading.Thread(target=change_after_reading)
        thread.start()
        try:
            done = tree.run("--json", "doctor", "2", live=True)
        finally:
            thread.join()
    return done.returncode, {finding["id"]: finding
                             for finding in json.loads(done.stdout)["findings"]}


@pytest.mark.parametrize("late,all,share", ((100, 1000, "10.0%"), (20, 2000, "1.0%")))
def test_late_requests_of_now(tree, late, all, share):
    """The requests between two readings show a tail, whatever the past was like."""
    for index in range(4):
        tree.write_queue("vda", index, reads=10 ** 7)
    started = int(time.time())
    status, found = doctor_while(tree, lambda: tree.write_queue(
        "vda", 3, reads=10 ** 7 + all, slow_reads=slow({256: late})))
    finding = found["tail-latency"]
    assert status == 1 and finding["active"]
    text = f", {late} of {all} reads ({share}) took 256 to 511 ms, on queue 3; "
    assert re.match(r"in the last \d+\.\d s" + re.escape(text), finding["what"])
    assert started <= finding["last"] <= time.time()


def test_long_requests_of_now_after_a_long_wait(tree):
    """A long wait of the past does not hide requests that are as late now."""
    values = {"longest_wait_ms": 7000}
    for index in range(4):
        tree.write_queue("vda", index, reads=10 ** 7, **values)
    status, found = doctor_while(tree, lambda: tree.write_queue(
        "vda", 3, reads=10 ** 7 + 1000, slow_reads=slow({4096: 100}), **values))
    assert status == 1 and not found["long-wait"]["active"]
    assert "100 of 1000 reads (10.0%) took 4096 to 8191 ms" in \
        found["tail-latency"]["what"]


@pytest.mark.parametrize("values,file", (
    # As many as one pause delays, with 32 requests in flight.
    ({"reads": 6000, "in_flight": 32, "slow_reads": slow({256: 40})}, None),
    # A stall between the two readings is what has delayed them.
    ({"reads": 6000, "slow_reads": slow({2048: 100})}, "recovery/lost_interrupts"),
    ({"reads": 6000, "slow_reads": slow({1024: 100})}, "recovery/resets")))
def test_pause_of_now_is_no_tail(tree, values, file):
    """What one pause or a stall delays between two readings is no tail."""
    def change():
        if file:
            tree.write(f"{BLOCK}/{file}", "1\n")
        tree.write_queue("vda", 3, **values)

    for index in range(3):
        tree.write_queue("vda", index, reads=10 ** 7)
    tree.write_queue("vda", 3, in_flight=values.get("in_flight", 0))
    assert "tail-latency" not in doctor_while(tree, change)[1]


READS = {"reads": 5000, "slow_reads": slow({256: 500})}
FLUSHES = {"flushes": 1000, "slow_others": slow({256: 400})}


@pytest.mark.parametrize("past,added,active", (
    (READS, {}, False),
    (READS, {"reads": 5027, "slow_reads": slow({256: 503})}, True),
    # Its share is less than 1 in 100 now, or one or two are chance.
    (READS, {"reads": 5400, "slow_reads": slow({256: 503})}, False),
    (READS, {"reads": 5018, "slow_reads": slow({256: 502})}, False),
    # Requests of another kind are late now.
    (FLUSHES, {"reads": 5027, "slow_reads": slow({256: 3})}, False),
    (FLUSHES, {"flushes": 1027, "slow_others": slow({256: 403})}, True)))
def test_past_tail_that_continues(tree, past, added, active):
    """A tail of the past is one of now if 1 in 100 of the same kind is late, and 3 are."""
    tree.write_queue("vda", 3, **past)
    status, found = doctor_while(tree, lambda: tree.write_queue(
        "vda", 3, **{**past, **added}))
    assert (status, found["tail-latency"]["active"]) == (int(active), active)
    assert not found["tail-latency"]["what"].startswith("in the last")
