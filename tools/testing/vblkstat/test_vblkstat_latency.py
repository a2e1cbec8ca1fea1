# SPDX-License-Identifier: GPL-2.0
"""Test how vblkstat watch shows the time that requests take.

vblkstat reads trees of files with --root, and a disk of a guest that is late.
"""

import contextlib
import fcntl
import json
import os
import pty
import re
import shutil
import struct
import subprocess
import tempfile
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from common import fio, vblkstat
from common.vblksim import Sim

from .vblkstat_files import BLOCK, CLOSED, OPENED, DiskTree, Events, careful

LATENCY = "sys/kernel/debug/virtio_blk/vda/latency"
# Requests of before the first sample.
OLD = "queue0 reads max 9000000 6291456:100 8388608:1\nqueue3 writes max 5000 4096:3\n"
NONE = {"requests": 0, "p50_us": None, "p99_us": None, "max_us": None}


@pytest.fixture
def tree(tmp_path):
    """A tree with the disk vda, and its histogram."""
    tree = DiskTree(tmp_path / "tree")
    tree.add_disk("vda", 2)
    tree.write(LATENCY, OLD)
    return tree


def with_lines(text: str, *lines: str) -> str:
    """Add lines to the text of a histogram, which has the queues in order."""
    return "".join(sorted([*text.splitlines(keepends=True),
                           *(f"{line}\n" for line in lines)]))


def overwrite(path: Path, text: str) -> None:
    """Change a file in one step, without another inode: vblkstat has it open."""
    with open(path, "r+") as file:
        os.pwrite(file.fileno(), text.encode(), 0)
        file.truncate(len(text))


@contextlib.contextmanager
def watching(tree, *words: str, interval: float = 0.2) -> Iterator[subprocess.Popen]:
    """Run watch without an end, and terminate it.  It must not fail or note."""
    with subprocess.Popen([careful(), f"--root={tree.path}", *words, str(interval)],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True) as running:
        try:
            yield running
            failed = running.poll()
        finally:
            running.terminate()
        assert running.stderr and (failed, running.stderr.read()) == (None, "")


def read_until(running, wanted, more=0):
    """Return watch's lines until one is wanted, and more; it must be soon."""
    lines = []
    while not lines or not wanted(lines[-1]):
        lines.append(running.stdout.readline())
        assert lines[-1] and len(lines) < 500, lines[-9:]
    return lines + [running.stdout.readline() for _ in range(more)]


def disk_of(line):
    """Return the disk of a line of watch's output, None if it has none."""
    disks = json.loads(line)["disks"]
    return disks[0] if disks else None


def has_requests(line):
    """Return whether requests have completed in the interval of a line."""
    latency = disk_of(line)["latency"]
    return latency and any(kind["requests"] for kind in latency.values())


def watch(tree, text, *words):
    """Return what watch shows of text, which replaces the histogram.

    That is the lines until a change is seen, and two more.
    """
    with watching(tree, "--json", "watch", *words, "vda") as running:
        first = running.stdout.readline()
        overwrite(tree.path / LATENCY, text)
        lines = read_until(running, lambda line: has_requests(line) or
                           not disk_of(line)["latency"], more=2)
    return [disk_of(line) for line in [first, *lines]]


def watch_text(tree, text, *words, until):
    """Return watch's lines until an expression matches one, and 40 more."""
    with watching(tree, "watch", *words, "vda") as running:
        first = running.stdout.readline()
        overwrite(tree.path / LATENCY, text)
        lines = read_until(running, lambda line: re.search(until, line), more=40)
    return "".join([first, *lines])


def added(disks, kind="reads"):
    """Return the disk of the interval in which requests of a kind completed."""
    (found,) = (disk for disk in disks
                if disk["latency"] and disk["latency"][kind]["requests"])
    return found


def test_percentiles_of_an_interval(tree):
    """p50, p99 and max are of the requests of the interval, of the disk and each queue."""
    disk = added(watch(tree, with_lines(
        OLD.replace("9000000", "320000000").replace("8388608:1",
                                                    "8388608:1 268435456:20"),
        "queue1 reads max 98000 65536:40 81920:140", "queue3 others max 700 0:1")))
    reads = disk["latency"]["reads"]
    assert reads["requests"] == 200
    # The 100th of 200 reads is the 60th of 140 between 81.920 and 98.304 us; the 198th
    # is the 18th of 20 between 268 and 320 ms, which is the longest.
    assert reads["p50_us"] == pytest.approx(81.92 + 16.384 * 59.5 / 140, rel=1e-4)
    assert reads["p99_us"] == pytest.approx(268435 + 51565 * 17.5 / 20, rel=1e-4)
    assert reads["max_us"] == 320000
    assert disk["latency"]["writes"] == NONE
    assert disk["latency"]["others"]["max_us"] == 0.7
    queues = [queue["latency"] for queue in disk["queues"]]
    assert [queue["reads"]["requests"] for queue in queues] == [20, 180, 0, 0]
    assert queues[1]["reads"]["max_us"] == 98
    assert queues[1]["reads"]["p99_us"] == pytest.approx(98, rel=0.02)
    assert queues[2] == {"reads": NONE, "writes": NONE, "others": NONE}


@pytest.mark.parametrize("text,longest", (
    # The longest since the file was opened was before: the bucket's end is the bound.
    ("max 9000000 6291456:101 8388608:1", 7340.032),
    ("max 9000000 6291456:100 8388608:2", 9000),
    # A new longest is exact.
    ("max 9100000 6291456:100 8388608:2", 9100),
    # The last bucket has no end.
    ("max 500000000000 6291456:100 8388608:1 481036337152:1", 500000000)))
def test_max_of_an_interval(tree, text, longest):
    """No request of the interval took longer than max."""
    reads = added(watch(tree, f"queue0 reads {text}\nqueue3 writes max 5000 4096:3\n")
                  )["latency"]["reads"]
    assert reads["max_us"] == pytest.approx(longest)


def test_intervals_without_requests(tree):
    """Times are unknown if nothing completed, and intervals do not add up."""
    disks = watch(tree, OLD.replace("4096:3", "4096:5"))
    assert [disk["latency"]["writes"]["requests"] for disk in disks].count(2) == 1
    assert [disk["latency"]["writes"] for disk in disks].count(NONE) == len(disks) - 1


def test_histogram_that_restarts(tree):
    """If counts shrink, the interval is unknown, and those after it are not."""
    disks = watch(tree, "queue0 reads max 5 0:1\n")
    assert [disk["latency"] for disk in disks].count(None) == 1
    assert disks[-1]["latency"]["reads"] == NONE


def test_histogram_that_cannot_be_read(tree):
    """watch goes on, with null and one line that says why, if there is no histogram."""
    (tree.path / LATENCY).unlink()
    done = tree.run("--json", "watch", "0.1", "2")
    disk = json.loads(done.stdout.splitlines()[1])["disks"][0]
    assert disk["latency"] is disk["queues"][0]["latency"] is None
    done = tree.run("watch", "0.1", "2")
    assert done.returncode == 0 and "P99" not in done.stdout
    assert done.stderr == "vblkstat: no latency of vda; the copy has none\n"
    tree.add_disk("vdb", 3)
    tree.write(LATENCY.replace("vda", "vdb"), OLD)
    done = tree.run("watch", "0.1", "2")
    assert done.stderr.count("no latency of vda;") == 1
    assert re.search(r"^vda( +-){9}$", done.stdout, re.MULTILINE)
    assert tree.run("watch", "--histogram", "0.1", "1").stdout.count("vda: -\n") == 1


def test_reason_is_of_the_file(tree):
    """The note has the error of the file that exists, under the driver's other name."""
    device = tree.path / "sys/block/vda/device"
    (device / "driver").unlink()
    (device / "driver").symlink_to("../../../../bus/virtio/virtio_blk_mq")
    tree.link(LATENCY.replace("virtio_blk", "virtio_blk_mq"), "latency")
    (tree.path / LATENCY).unlink()
    done = tree.run("watch", "0.1", "1")
    assert done.returncode == 0
    assert "no latency of vda; Too many levels of symbolic links" in done.stderr


def test_histogram_that_is_late(tree):
    """One sample before the driver has made the histogram has no note."""
    with watching(tree, "watch", "--histogram", interval=1) as running:
        read_until(running, lambda line: line.startswith("vda: no "))
        (tree.path / LATENCY).unlink()
        tree.write(f"{BLOCK}/diskseq", "77\n")
        read_until(running, lambda line: line.startswith("vda: -"))
        tree.write(LATENCY, OLD)
        read_until(running, lambda line: line.startswith("vda: no "))


@pytest.mark.parametrize("limit,noted", (("60:200", False), ("60:60", True)))
def test_more_disks_than_open_files(tmp_path, limit, noted):
    """watch raises its limit of open files, and measures fewer disks if it cannot."""
    tree = DiskTree(tmp_path / "many")
    for index in range(70):
        name = f"vd{chr(97 + index // 26)}{chr(97 + index % 26)}"
        tree.add_disk(name, index, queues=1)
        tree.write(LATENCY.replace("vda", name), OLD)

    def run(*options):
        done = subprocess.run(
            ["prlimit", f"--nofile={limit}", careful(), f"--root={tree.path}", *options,
             "watch", "0.1", "1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True)
        assert done.returncode == 0, done.stderr
        return done

    measured = [bool(disk["latency"])
                for disk in json.loads(run("--json").stdout)["disks"]]
    assert len(measured) == 70 and sum(measured) == (28 if noted else 70)
    assert ("ulimit -n" in run().stderr) == noted


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run it as another user")
def test_histogram_without_permission(tree):
    """Without permission, watch says how to get it, in one line."""
    # pytest's directories are its user's only, and so may be those of the program.
    place = Path(tempfile.mkdtemp(dir="/tmp"))
    try:
        place.chmod(0o755)
        shutil.copy(careful(), place / "vblkstat")
        shutil.copytree(tree.path, place / "tree", symlinks=True)
        (place / "tree" / LATENCY).chmod(0)
        done = subprocess.run(
            ["setpriv", "--reuid=65534", "--clear-groups", place / "vblkstat",
             f"--root={place}/tree", "watch", "0.1", "2"], stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True)
    finally:
        shutil.rmtree(place)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "vblkstat: no latency of vda; run vblkstat as root\n"


def test_disk_that_returns(tree):
    """A disk that is another one now is measured again, from its own histogram."""
    with watching(tree, "--json", "watch") as running:
        running.stdout.readline()
        tree.write(LATENCY, "queue0 reads max 9 0:7\n")
        tree.write(f"{BLOCK}/diskseq", "77\n")
        read_until(running, lambda line: not disk_of(line))
        # watch has opened the new file now.
        overwrite(tree.path / LATENCY, "queue0 reads max 9 0:12\n")
        disks = [disk_of(line) for line in read_until(running, has_requests, more=2)]
    assert added(disks)["latency"]["reads"]["requests"] == 5


def opens(tree, *words):
    """Return how often vblkstat opens the histogram."""
    # An event between two that are the same keeps the kernel from merging them.
    with Events(OPENED | CLOSED, tree.path / LATENCY) as events:
        tree.run(*words)
        return events.read().count(OPENED)


def test_only_watch_measures(tree):
    """No other command opens the histogram, because the driver would begin to count."""
    for words in (["list"], ["queues"], ["doctor"], ["export"], ["check"],
                  ["snapshot", str(tree.path / "copy.tar")]):
        assert opens(tree, *words) == 0, words
    assert opens(tree, "watch", "0.1", "3") == 1


# Text

def test_table_of_latency(tree):
    """watch has a row of times for the disk and for each queue, in 80 columns."""
    text = watch_text(tree, with_lines(
        OLD.replace("9000000", "320000000").replace(
            "8388608:1", "8388608:101 268435456:1"), "queue1 writes max 7 0:1"),
        until=r"^vda +9\.4 ms")
    assert max(map(len, text.splitlines())) <= 80
    assert re.search(r"^vda +9\.4 ms +10 ms +320 ms +4 ns +4 ns +7 ns( +-){3}$",
                     text, re.MULTILINE), text
    assert re.search(r"^vda 0 +9\.4 ms +10 ms +320 ms( +-){6}$", text, re.MULTILINE)
    assert re.search(r"^vda 1( +-){3} +4 ns", text, re.MULTILINE)


def bars(text, name="vda"):
    """Return {lower bound: ((reads, bar), (writes, bar), (others, bar))}."""
    rows, inside = {}, False
    for line in text.splitlines():
        if re.match(rf"{name} +READS +WRITES +OTHERS", line):
            inside = True
        elif inside:
            match = re.fullmatch(r" *(\d.*? [num]?s)  +(\d+[kM]?) (#*) +(\d+[kM]?) (#*) +"
                                 r"(\d+[kM]?) ?(#*)", line)
            if not match:
                break
            rows[match[1]] = tuple((match[index], len(match[index + 1]))
                                   for index in (2, 4, 6))
    return rows


MANY = with_lines(
    OLD.replace("8388608:1", "8388608:11 10485760:10 12582912:20 14680064:60 "
                "16777216:50 67108864:1"),
    "queue2 writes max 7000 6144:4", "queue1 others max 70000000 67108864:9",
    "queue1 reads max 9 0:0")


def test_histogram_of_a_disk(tree):
    """--histogram shows a bar for each doubling, the slowest first, in 80 columns."""
    text = watch_text(tree, MANY, "--histogram", until=r"^ +67 ms +1 ")
    assert max(map(len, text.splitlines())) <= 80
    shown = [part for part in text.split("\n\n") if "#" in part]
    assert len(shown) == 1
    rows = bars(shown[0])
    assert list(rows) == ["67 ms", "34 ms", "17 ms", "8.4 ms", "4.2 ms", "2.1 ms",
                          "1.0 ms", "524 us", "262 us", "131 us", "66 us", "33 us",
                          "16 us", "8.2 us", "4.1 us"]
    longest = rows["8.4 ms"][0][1]
    assert rows["8.4 ms"] == (("100", longest), ("0", 0), ("0", 0)) and longest > 10
    assert rows["17 ms"][0] == ("50", longest // 2)
    # A bar is never too short to be seen.
    assert rows["67 ms"] == (("1", 1), ("0", 0), ("9", longest))
    assert rows["4.1 us"][1] == ("4", longest)
    assert "vda: no requests" in text and "KICK/IO" not in text and "STATE" not in text


def test_slow_end_on_a_small_terminal(tree):
    """On a terminal with 24 lines, the slowest requests are shown."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    tree.write(LATENCY, "")
    with subprocess.Popen([careful(), f"--root={tree.path}", "watch", "--histogram",
                           "vda", "0.5"], stdout=theirs) as running:
        os.close(theirs)
        output = os.read(ours, 65536)
        overwrite(tree.path / LATENCY, "queue0 reads max 70000000000 0:7 68719476736:3\n")
        while b"more lines" not in output and output.count(b"\033[H") < 20:
            output += os.read(ours, 65536)
        running.terminate()
    os.close(ours)
    screens = re.sub(r"\033\[[KJ]", "", output.decode().replace("\r", "")).split(
        "\033[H")
    # A late reader has the next screen as well, on which nothing has completed.
    screen = next(screen for screen in screens if "more lines" in screen)
    assert list(bars(screen).values())[0][0][0] == "3", screen


def test_large_counts_of_a_histogram(tree):
    """Counts of 10 million and more are in thousands, so that the columns stay."""
    text = watch_text(tree, "queue0 reads max 9000000 6291456:100 8388608:9999999\n"
                      "queue1 writes max 9000000 8388608:12345678\n"
                      "queue2 others max 900 0:98765432109\n"
                      "queue3 writes max 5000 4096:3\n", "--histogram",
                      until=r"^ +8\.4 ms +9999998 ")
    assert max(map(len, text.splitlines())) <= 80
    rows = bars(text)
    assert [count for count, _ in rows["8.4 ms"]] == ["9999998", "12345k", "0"]
    assert [count for count, _ in rows["0 ns"]] == ["0", "0", "98765M"]


def test_histogram_in_json(tree):
    """With --json, the buckets that are not empty are in the output."""
    disk = added(watch(tree, OLD.replace("8388608:1", "8388608:3 481036337152:1"),
                       "--histogram"))
    expected = [{"from_ns": 8388608, "to_ns": 10485760, "requests": 2},
                {"from_ns": 481036337152, "to_ns": None, "requests": 1}]
    assert disk["latency"]["reads"]["buckets"] == expected
    assert disk["queues"][0]["latency"]["reads"]["buckets"] == expected
    assert disk["queues"][1]["latency"]["reads"]["buckets"] == []


def test_histogram_is_of_watch(tree):
    """Other commands refuse --histogram."""
    done = tree.run("--histogram", "list")
    assert done.returncode == 2 and "--histogram is for watch" in done.stderr


ODD = {
    "empty": "", "line": "\n", "queue": "queue0", "kind": "queue0 reads",
    "max": "queue0 reads max", "word": "queue0 reads max x 1:2\n",
    "index": "queue99999999999 reads max 1 0:1\n", "trims": "queue0 trims max 1 0:1\n",
    "large": "queue0 reads max 1 0:18446744073709551615 1:18446744073709551615\n",
    "pairs": "queue0 reads max 1 18446744073709551615:1 -5:3 7 :: 5:\n",
    "zeroes": "\0" * 9000, "escape": "%s%n\x1b[2J" * 50,
    "queues": "".join(f"queue{index} writes max 1 0:1\n" for index in range(70000)),
    "long": "queue0 reads max 9 " + "0:1 " * 100000,
}


@pytest.mark.parametrize("text", ODD.values(), ids=ODD)
def test_odd_histograms(tree, text):
    """With any contents, the output is valid JSON or printable ASCII."""
    overwrite(tree.path / LATENCY, text)
    for words in (["watch", "0.1", "2"], ["watch", "--histogram", "0.1", "2"]):
        done = tree.run(*words)
        assert done.returncode == 0 and re.fullmatch(r"[ -~\n]*", done.stdout)
        for line in tree.run("--json", *words).stdout.splitlines():
            json.loads(line)
    with watching(tree, "--json", "watch", interval=0.1) as running:
        for line in ("", "queue0 reads max 99 0:9 1024:5\n", text):
            json.loads(running.stdout.readline())
            overwrite(tree.path / LATENCY, text + line)


# In a guest

# /run/vblkstat is its directory.
VBLKSTAT = "/run/vblkstat-program"
USUAL_MS, LATE_MS, EACH = 5, 300, 9


@pytest.fixture
def late(sims):
    """The name of a disk that takes 5 ms for a read, and 300 ms for one in nine."""
    sims.put(vblkstat.build(), VBLKSTAT)
    # One pause delays at most two full rings, so that more are a tail of the past.
    with Sim(sims, queues=2, capacity="64M", ring_size=16,
             script=[f"on type=in every={EACH}: delay {LATE_MS}ms",
                     f"on type=in: delay {USUAL_MS}ms"]) as sim:
        yield sim.disk()


def percentiles(report):
    """Return fio's 50th and 99th percentile of reads, in us."""
    (job,) = report["jobs"]
    found = job["read"]["clat_ns"]["percentile"]
    return found["50.000000"] / 1000, found["99.000000"] / 1000


def read_for(sims, disk, seconds):
    """Start reading, eight requests at a time."""
    return fio.start(sims, f"/dev/{disk}", rw="randread", bs="4k", iodepth=8,
                     time_based=True, runtime=seconds, size="32m")


@pytest.mark.kernels("6.12")
def test_latency_of_a_late_disk(sims, late):
    """watch's percentiles are fio's, within a quarter, and count the same reads."""
    running = sims.start(f"{VBLKSTAT} --json watch --histogram {late} 25 1", timeout=90)
    # A busy host may start fio first.
    sims.run("until ls -l /proc/[0-9]*/fd 2> /dev/null | grep -q /latency; do "
             "sleep 0.1; done", timeout=20)
    report = read_for(sims, late, 8).wait()
    assert running.running
    (disk,) = json.loads(running.wait().output)["disks"]
    reads = disk["latency"]["reads"]
    assert reads["requests"] == pytest.approx(fio.ios(report, "read"), abs=16)
    assert sum(bucket["requests"] for bucket in reads["buckets"]) == reads["requests"]
    assert sum(queue["latency"]["reads"]["requests"] for queue in disk["queues"]) == \
        reads["requests"]
    p50, p99 = percentiles(report)
    assert reads["p50_us"] == pytest.approx(p50, rel=0.25)
    assert reads["p99_us"] == pytest.approx(p99, rel=0.25)
    assert USUAL_MS * 1000 * 0.8 <= reads["p50_us"] < LATE_MS * 500
    assert LATE_MS * 1000 <= reads["max_us"]
    slow = sum(bucket["requests"] for bucket in reads["buckets"]
               if bucket["to_ns"] > LATE_MS * 10 ** 6)
    assert slow == pytest.approx(reads["requests"] / EACH, rel=0.1)


@pytest.mark.kernels("6.12")
def test_late_disk_has_a_finding(sims, late):
    """doctor names the share while reads are late, and afterwards as past."""
    def doctor(seconds):
        done = sims.run(f"{VBLKSTAT} --json doctor {late} {seconds}", check=False)
        found = [finding for finding in json.loads(done.output)["findings"]
                 if finding["id"] == "tail-latency"]
        assert len(found) <= 1 and done.status in (0, 1)
        return found[0] if found else None

    sims.run(f"{VBLKSTAT} doctor --clear {late}")
    running = read_for(sims, late, 15)
    running.wait_for_io(late)
    now = doctor(6)
    running.wait()
    assert now["active"]
    # "in the last 6.0 s, 158 of 1414 reads (11.2%) took 256 to 511 ms, on all 2 queues"
    match = re.match(r"in the last \d+\.\d s, \d+ of \d+ reads \(([\d.]+)%\) took 256 "
                     r"to \d+ ms, on (all 2 queues|queue [01]); most reads take less than "
                     r"\d+ ms", now["what"])
    # On a busy host there are fewer, and those in flight weigh more.
    assert match and abs(float(match[1]) - 100 / EACH) < 5, now["what"]
    past = doctor(0.5)
    assert not past["active"] and re.match(r"\d+ of \d+ reads", past["what"])
    sims.run(f"{VBLKSTAT} doctor --clear")
    assert doctor(0.5) is None


def wait_for_line(sims, expression):
    """Wait until watch has printed a line that an expression matches."""
    sims.run(f"until grep -q '{expression}' /run/watched; do sleep 0.2; done",
             timeout=60)


@pytest.mark.kernels("6.12")
def test_watch_while_the_disk_goes(sims):
    """A disk that watch measures can be removed, and watch goes on."""
    sims.put(vblkstat.build(), VBLKSTAT)
    with Sim(sims, capacity="64M") as sim:
        disk = sim.disk()
        running = sims.start(f"exec {VBLKSTAT} --json watch 0.5 > /run/watched",
                             timeout=240)
        wait_for_line(sims, f'"name": "{disk}"')
        fio.run(sims, f"/dev/{disk}", rw="randread", bs="4k", size="4m")
        wait_for_line(sims, '"requests": [1-9]')
    wait_for_line(sims, '"disks": \\[\\]')
    assert running.running
    running.kill()
    output = sims.run("cat /run/watched").output
    lines = [json.loads(line) for line in output[:output.rindex("\n")].splitlines()]
    assert any(disk["latency"] and disk["latency"]["reads"]["requests"]
               for line in lines for disk in line["disks"])
