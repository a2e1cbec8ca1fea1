# SPDX-License-Identifier: GPL-2.0
"""Monitoring of the guest's disks: the plugin, the metrics, and the rules for both.

The tests read trees of files with the disks of a guest, except where they say so.
"""

import itertools
import json
import os
import random
import re
import shutil
import signal
import string
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from common import throttle, vblkstat
from host import process
from vm.disk import Disk
from vm.guest import Guest

from . import prometheus
from .vblkstat_files import BLOCK, FEATURES, TOP, DiskTree, bits, careful, slow

OK, WARNING, CRITICAL, UNKNOWN = range(4)
QUEUES = "sys/kernel/debug/virtio_blk/vda"


@pytest.fixture
def tree(tmp_path):
    """A tree with vda, all of whose requests are answered."""
    tree = DiskTree(tmp_path / "tree")
    add_disk(tree, "vda", 2)
    return tree


def add_disk(tree, name, number):
    """Add a disk whose driver says how long its oldest request waits."""
    tree.add_disk(name, number)
    tree.write(f"sys/block/{name}/oldest_ms", "0\n")
    for index in range(4):
        tree.write_queue(name, index, oldest_ms=0)


def lose(tree, path):
    """Remove a file or directory; the age of requests in debugfs with that in sysfs."""
    place = tree.path / path
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    if path.endswith("/oldest_ms"):
        for index in range(4):
            tree.write_queue(path.split("/")[-2], index)


# The plugin

@dataclass
class Result:
    """The output of a plugin, taken apart."""
    status: int
    text: str
    data: dict[str, str]


# 'label'=value[unit];[warning];[critical];[minimum];[maximum]
DATUM = re.compile(r"([a-z_]+)=(\d+(?:\.\d+)?(?:s|c))((?:;[-\d.:@~]*){0,4})")


def check(tree, *words):
    """Run check; hold its output against the guidelines, and return it."""
    done = tree.run("check", *words)
    match = re.fullmatch(r"VIRTIO_BLK (OK|WARNING|CRITICAL|UNKNOWN) - ([^|\n]+?)"
                         r"(?: \| ?([^|\n]*))?\n", done.stdout)
    assert match, done.stdout
    assert match[1] == ("OK", "WARNING", "CRITICAL", "UNKNOWN")[done.returncode]
    data = {}
    for word in (match[3] or "").split():
        datum = DATUM.fullmatch(word)
        assert datum, word
        data[datum[1]] = datum[2] + datum[3].rstrip(";")
    return Result(done.returncode, match[2], data)


def test_check_of_healthy_disks(tree):
    """Healthy disks are OK, with their ages and counts for graphs."""
    add_disk(tree, "vdb", 3)
    tree.write("sys/block/vdb/oldest_ms", "9999\n")
    tree.write("sys/block/vdb/recovery/resets", "3\n")
    result = check(tree)
    assert result.status == OK and "2 disks" in result.text
    assert result.data == {
        "vda_oldest": "0.000s;10;30;0", "vda_errors": "0c;;;0",
        "vda_timeouts": "0c;;;0", "vda_lost_interrupts": "0c;;;0",
        "vda_resets": "0c;;;0", "vdb_oldest": "9.999s;10;30;0",
        "vdb_errors": "0c;;;0", "vdb_timeouts": "0c;;;0",
        "vdb_lost_interrupts": "0c;;;0", "vdb_resets": "3c;;;0"}
    assert set(check(tree, "vdb").data) == {
        name for name in result.data if name.startswith("vdb")}


@pytest.mark.parametrize("state,status", (
    ("live", OK), ("removing", OK), ("resetting", CRITICAL), ("suspended", CRITICAL),
    ("stalled", CRITICAL), ("dead", CRITICAL), ("a later one", UNKNOWN),
    ("|", UNKNOWN), ("", UNKNOWN)))
def test_check_of_states(tree, state, status):
    """Each state has its status, and one that check does not know is never OK."""
    tree.write(f"{BLOCK}/state", f"{state}\n")
    assert check(tree).status == status


@pytest.mark.parametrize("ms,words,status", (
    (10000, (), OK), (10001, (), WARNING), (30000, (), WARNING), (30001, (), CRITICAL),
    (2000, ("-w", "1.5"), WARNING), (2000, ("-c", "1"), CRITICAL),
    (2000, ("-w", "1:3", "-c", "1:3"), OK), (500, ("-w", "1:3"), WARNING),
    (500, ("-c", "1:"), CRITICAL), (5000, ("-c", "1:"), OK),
    (5000, ("-c", "~:4"), CRITICAL), (3000, ("-c", "@2:4"), CRITICAL),
    (5000, ("-c", "@2:4"), OK)))
def test_check_of_ages(tree, ms, words, status):
    """The age of the oldest request is compared with ranges, as plugins write them."""
    tree.write(f"{BLOCK}/oldest_ms", f"{ms}\n")
    result = check(tree, *words)
    assert result.status == status
    assert (f"{ms / 1000:.3f} s" in result.text) == (status != OK)


@pytest.mark.parametrize("counters,words,status", (
    ({"ioerr": 5}, (), OK), ({"ioerr": 5}, ("-w", "10,0"), WARNING),
    ({"other_errors": 5}, ("-w", "10,4", "-c", "30,5"), WARNING),
    ({"ioerr": 3, "other_errors": 3}, ("-w", "10,4", "-c", "30,5"), CRITICAL),
    ({"unsupp": 9}, ("-c", "30,0"), OK)))
def test_check_of_errors(tree, counters, words, status):
    """Errors count if they have a threshold; requests not supported are no errors."""
    tree.write_queue("vda", 3, oldest_ms=0, **counters)
    result = check(tree, *words)
    assert result.status == status
    count = counters.get("ioerr", 0) + counters.get("other_errors", 0)
    assert result.data["vda_errors"].startswith(f"{count}c")


@pytest.mark.parametrize("lost", (
    f"{BLOCK}/state", f"{BLOCK}/oldest_ms", f"{QUEUES}/queue2", f"{BLOCK}/mq"))
def test_check_when_blind(tree, lost):
    """Without a value that it needs, check is not OK, and a known problem is worse."""
    lose(tree, lost)
    words = ("-w", "10,0") if lost.startswith((QUEUES, f"{BLOCK}/mq")) else ()
    assert check(tree, *words).status == UNKNOWN
    if words:
        assert check(tree).status == OK
    if lost != f"{BLOCK}/state":
        tree.write(f"{BLOCK}/state", "resetting\n")
        assert check(tree, *words).status == CRITICAL
    add_disk(tree, "vdb", 3)
    tree.write("sys/block/vdb/state", "dead\n")
    result = check(tree, *words)
    assert result.status == CRITICAL and "vda: " in result.text


def test_check_of_odd_ages(tree):
    """An age that is no number is unknown."""
    lose(tree, f"{BLOCK}/oldest_ms")
    for text in ("", "-1\n", "3 s\n", "99999999999999999999\n"):
        tree.write(f"{BLOCK}/oldest_ms", text)
        assert check(tree).status == UNKNOWN


def test_check_with_the_in_tree_driver(tree):
    """The in-tree driver shows neither state nor age: unknown, and a line says so."""
    for name in ("state", "oldest_ms", "recovery"):
        lose(tree, f"{BLOCK}/{name}")
    result = check(tree)
    assert result.status == UNKNOWN and "in-tree" in result.text


@pytest.mark.parametrize("words,status,text", (
    (("vdb",), CRITICAL, "vdb: there is no such"), (("-w", "x"), UNKNOWN, "-w x"),
    (("-c", "5:3"), UNKNOWN, "-c 5:3"), (("-w", ""), UNKNOWN, "AGE,ERRORS"),
    (("-w", "10,"), UNKNOWN, "-w 10,"), (("-w", "1e3"), UNKNOWN, "-w 1e3"),
    (("-w", "."), UNKNOWN, "-w ."), (("-c", "9" * 64), UNKNOWN, "-c 999"),
    (("-t", "0"), UNKNOWN, "-t 0"), (("--no-such",), UNKNOWN, "--help"),
    (("7",), UNKNOWN, "too many arguments"), (("--json",), UNKNOWN, "no --json"),
    (("--root=/nonexistent",), UNKNOWN, "check that sysfs is mounted")))
def test_check_bad_arguments(tree, words, status, text):
    """What check cannot do is reported in its own format, and is not OK."""
    result = check(tree, *words)
    assert result.status == status and text in result.text


def test_check_without_disks(tmp_path):
    """Without disks there is nothing to be OK."""
    assert check(DiskTree(tmp_path / "tree")).status == UNKNOWN


def test_options_of_check_are_its_own(tree):
    """Other commands refuse the options of check, and exit with 2."""
    for option in ("-w", "-c", "-t"):
        done = tree.run("list", option, "5")
        assert done.returncode == 2 and option in done.stderr and not done.stdout


def catches_alarm(plugin):
    """Return whether a process catches SIGALRM."""
    status = Path(f"/proc/{plugin.pid}/status").read_text()
    return bool(int(re.search(r"^SigCgt:\s*(\w+)", status, re.MULTILINE)[1], 16)
                & 1 << signal.SIGALRM - 1)


def test_check_timeout(tree):
    """check ends after -t seconds, and what it did not read is unknown."""
    # So many disks that the test can stop check before it has read them all.
    for letters in itertools.product(string.ascii_lowercase, repeat=2):
        tree.link(f"sys/block/vd{''.join(letters)}", "vda")
    with subprocess.Popen([careful(), f"--root={tree.path}", "check", "-t", "1"],
                          stdout=subprocess.PIPE, text=True) as plugin:
        while not catches_alarm(plugin):
            assert plugin.poll() is None
        # The alarm is set right after the signal's handler.
        time.sleep(0.05)
        plugin.send_signal(signal.SIGSTOP)
        time.sleep(1.5)
        plugin.send_signal(signal.SIGCONT)
        said = plugin.communicate(timeout=60)[0]
    assert said.startswith("VIRTIO_BLK UNKNOWN - ") and "-t" in said
    assert said.count("\n") == 1 and plugin.returncode == UNKNOWN


# The metrics

SAMPLE = re.compile(r'(virtio_blk_\w+)(?:\{(.*)\})? (\d+(?:\.\d+)?)')


def parse(text):
    """Return the samples of a text: {(name, labels...): value}, and their names."""
    samples = {}
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        match = SAMPLE.fullmatch(line)
        assert match, line
        labels = re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', match[2] or "")
        key = (match[1].removeprefix("virtio_blk_"), *(value for _, value in labels))
        assert key not in samples, line
        samples[key] = float(match[3])
    return samples


def export(tree, *words):
    """Run export; hold its output against promtool, and return its samples."""
    done = tree.run("export", *words)
    assert done.returncode == 0, done.stderr
    checked = prometheus.promtool("check", "metrics", text=done.stdout)
    assert (checked.returncode, checked.stdout) == (0, "")
    return parse(done.stdout)


def test_export_of_counters(tree):
    """Each counter of each queue has its metric, in base units."""
    add_disk(tree, "vdb", 3)
    tree.write_queue("vdb", 2, oldest_ms=1234, in_flight=7, writes=8, write_bytes=9,
                     flushes=10, kicks=11, kicks_suppressed=12, interrupts=13,
                     ring_full=14, requeues=15, ioerr=16, unsupp=17, other_errors=18,
                     longest_wait_ms=19001, resent=20)
    tree.write("sys/block/vdb/oldest_ms", "1234\n")
    for file, count in (("timeouts", 3), ("lost_interrupts", 4), ("resets", 5),
                        ("stalls", 2)):
        tree.write(f"sys/block/vdb/recovery/{file}", f"{count}\n")
    samples = export(tree)
    queue = ("vdb", "2")
    assert samples.items() >= {
        ("disks",): 2, ("info", "vdb", "vdb", "virtio_blk", "", "virtio3", "pci"): 1,
        ("oldest_request_seconds", "vdb"): 1.234,
        ("oldest_request_seconds", "vda"): 0, ("timeouts_total", "vdb"): 3,
        ("stalls_total", "vdb"): 2,
        ("lost_interrupts_total", "vdb"): 4, ("resets_total", "vdb"): 5,
        ("resets_total", "vda"): 0, ("requests_total", *queue, "read"): 5000,
        ("requests_total", *queue, "write"): 8, ("requests_total", *queue, "flush"): 10,
        ("requests_total", *queue, "query"): 1,
        ("bytes_total", *queue, "read"): 5000 * 4096,
        ("bytes_total", *queue, "write"): 9, ("errors_total", *queue, "ioerr"): 16,
        ("errors_total", *queue, "unsupp"): 17, ("errors_total", *queue, "other"): 18,
        ("kicks_total", *queue): 11, ("kicks_suppressed_total", *queue): 12,
        ("interrupts_total", *queue): 13, ("ring_full_total", *queue): 14,
        ("requeues_total", *queue): 15, ("resent_total", *queue): 20,
        ("in_flight", *queue): 7, ("ring_size", *queue): 256,
        ("queue_oldest_request_seconds", *queue): 1.234,
        ("longest_wait_seconds", *queue): 19.001,
        ("in_flight", "vda", "2"): 0}.items()
    assert {key[2] for key in samples if key[0] == "kicks_total"} == set("0123")
    assert {key[1] for key in export(tree, "vdb") if len(key) > 1} == {"vdb"}


def test_export_of_operations(tree):
    """A kind of request has metrics if the device has its feature."""
    def operations():
        return {key[3] for key in export(tree) if key[0] == "requests_total"}

    assert operations() == {"read", "write", "flush", "query"}
    tree.write(f"{BLOCK}/device/features", bits(FEATURES | {13, 14, 16, 17}) + "\n")
    assert operations() == {"read", "write", "flush", "query", "discard",
                            "write_zeroes", "secure_erase", "zone_append", "zone_op"}


def test_export_of_slow_requests(tree):
    """Slow requests are counted for the disk from each time on, as in a histogram."""
    tree.write_queue("vda", 1, slow_reads=slow({16: 5, 256: 3, 32768: 1}))
    tree.write_queue("vda", 3, slow_reads=slow({256: 2}), slow_others=slow({8192: 7}))
    found = {key[1:]: value for key, value in export(tree).items()
             if key[0] == "slow_requests_total"}
    assert len(found) == 3 * 12
    for operation, values in (
            ("read", {"0.016": 11, "0.032": 6, "0.256": 6, "0.512": 1, "32.768": 1}),
            ("write", {"0.016": 0, "32.768": 0}),
            ("other", {"0.016": 7, "8.192": 7, "16.384": 0})):
        for at_least, count in values.items():
            assert found["vda", operation, at_least] == count, (operation, at_least)
    # A sum without one of the queues would look like a restart of the counter.
    tree.drop_lines("vda", 2, "slow_reads")
    assert {key[2] for key in export(tree) if key[0] == "slow_requests_total"} == \
        {"write", "other"}


@pytest.mark.parametrize("state", ("live", "stalled", "removing", "suspended",
                                   "resetting", "dead", "later"))
def test_export_of_states(tree, state):
    """One state of a disk is 1 and the others are 0."""
    tree.write(f"{BLOCK}/state", f"{state}\n")
    states = {key[2]: value for key, value in export(tree).items()
              if key[0] == "state"}
    assert len(states) == 6 + (state == "later")
    assert [name for name, value in states.items() if value] == [state]


@pytest.mark.parametrize("lost,source,names", (
    (f"{BLOCK}/state", "state", {"state"}),
    (f"{BLOCK}/oldest_ms", "oldest_request", {"oldest_request_seconds"}),
    (QUEUES, "counters", {"requests_total", "errors_total", "kicks_total"}),
    (f"{QUEUES}/queue1", "counters", set())))
def test_export_when_blind(tree, lost, source, names):
    """A metric that cannot be read is left out, and another one says so."""
    before = export(tree)
    lose(tree, lost)
    after = export(tree)
    for each in ("state", "oldest_request", "counters"):
        assert before["readable", "vda", each] == 1
        assert after["readable", "vda", each] == (each != source)
    assert names <= {key[0] for key in before} - {key[0] for key in after}


def test_export_of_serial(tree):
    """The serial number is udev's, if that has one: a stalled device does not answer."""
    def serial():
        return [key[2] for key in export(tree) if key[0] == "info"]

    assert serial() == ["vda"]
    tree.write(f"{BLOCK}/serial", "a\nb\x7f\n")
    assert serial() == ["a?b?"]
    tree.write(f"{BLOCK}/dev", "254:16\n")
    tree.write("run/udev/data/b254:16", "S:disk/by-id/x\nE:ID_SERIAL=a\\b\"c\nG:x\n")
    assert serial() == [r'a\\b\"c']
    # The one that list shows, if udev has two.
    tree.write("run/udev/data/b254:16", "E:ID_SERIAL=long\nE:ID_SERIAL_SHORT=short\n")
    assert serial() == ["short"]


@pytest.mark.parametrize("state,ms,serial", (
    ("live", 999, "vda"), ("live", 1000, ""), ("suspended", 0, "")))
def test_export_asks_no_silent_device(tree, state, ms, serial):
    """A device that has not answered for a second is not asked for its serial number."""
    tree.write(f"{BLOCK}/state", f"{state}\n")
    tree.write(f"{BLOCK}/oldest_ms", f"{ms}\n")
    done = tree.run("export", live=True)
    assert done.returncode == 0, done.stderr
    assert [key[2] for key in parse(done.stdout) if key[0] == "info"] == [serial]


def test_export_to_a_file(tree, tmp_path):
    """The file of the collector is replaced in one step, readable by all."""
    place = tmp_path / "collected"
    place.mkdir()
    path = place / "virtio_blk.prom"
    path.write_text("old")
    with open(path) as reader:
        done = tree.run("export", f"--output={path}")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        # A reader has the old file or the new one, never a part of it.
        assert reader.read() == "old"
    assert path.read_text() == tree.run("export").stdout
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(place.iterdir()) == [path]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a file system takes root")
def test_export_to_a_full_disk(tree, tmp_path):
    """If the disk is full, the old file stays, and nothing else is left."""
    script = (f'mount -t tmpfs -o size=4k none {tmp_path}/full; echo old > "$0"; '
              f'"$@"; status=$?; ls {tmp_path}/full; cat "$0"; exit $status')
    (tmp_path / "full").mkdir()
    path = tmp_path / "full/virtio_blk.prom"
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, path, careful(),
         f"--root={tree.path}", "export", f"--output={path}"], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60)
    assert done.returncode == 2 and "No space left on device" in done.stderr
    assert done.stdout == "virtio_blk.prom\nold\n"


@pytest.mark.parametrize("words,text", (
    (("--output=/nonexistent/x.prom",), "cannot create /nonexistent/x.prom"),
    (("--output=" + "x" * 5000,), "too long"), (("vdb",), "no virtio-blk disk vdb"),
    (("-w", "3"), "-w, -c and -t are for check"), (("--json",), "no --json")))
def test_export_bad_arguments(tree, words, text):
    """export says what it cannot do, and exits with 2."""
    done = tree.run("export", *words)
    assert done.returncode == 2 and text in done.stderr and not done.stdout


@pytest.mark.parametrize("seed", range(30 if os.environ.get("FULL") else 3))
def test_monitoring_of_odd_contents(tmp_path, seed):
    """With any contents of files, the metrics and the plugin's line have their form."""
    tree = DiskTree(tmp_path / "tree")
    for number, name in enumerate(("vda", "vdb")):
        add_disk(tree, name, number)
    tree.spoil(random.Random(seed))
    export(tree)
    check(tree, "-w", "10,0")


# Alerts and the dashboard

MONITORING = TOP / "tools/packaging/monitoring"
RULES = MONITORING / "virtio_blk.rules.yml"
ALERT = re.compile(r"- alert: (\w+)\n +expr: (.+?)\n(?= +(?:for|labels):)", re.DOTALL)


def run_tests(directory, rules):
    """Run the tests of the alerts on a text of rules; return their exit status."""
    (directory / RULES.name).write_text(rules)
    shutil.copy(MONITORING / "virtio_blk.test.yml", directory)
    return prometheus.promtool("test", "rules",
                               directory / "virtio_blk.test.yml").returncode


def test_rules(tmp_path):
    """The alerts are valid, and fire when they must and not before."""
    checked = prometheus.promtool("check", "rules", RULES)
    assert checked.returncode == 0, checked.stdout
    assert run_tests(tmp_path, RULES.read_text()) == 0


@pytest.mark.full
def test_tests_of_rules_can_fail(tmp_path):
    """The tests notice each alert that never fires, and each that always does."""
    text = RULES.read_text()
    alerts = ALERT.findall(text)
    assert len(alerts) == text.count("- alert:")
    for name, expression in alerts:
        for other in ("vector(0) > 1", "vector(1)"):
            assert run_tests(tmp_path, text.replace(expression, other)) == 1, name


@pytest.mark.full
def test_tests_of_limits_can_fail(tmp_path):
    """The tests notice each time and each limit of an alert that is longer."""
    text = RULES.read_text()
    limits = list(re.finditer(r"(?<=for: )\w+|(?<=\[)\w+(?=\])|(?<=> )300?$", text,
                              re.MULTILINE))
    assert len(limits) == 15
    for limit in limits:
        changed = f"{text[:limit.start()]}1{text[limit.start():]}"
        assert run_tests(tmp_path, changed) == 1, limit


def expressions(dashboard):
    """Return the expressions of a dashboard, as Grafana would send them for all disks."""
    found = [target["expr"] for panel in dashboard["panels"]
             for target in panel["targets"]]
    return [re.sub(r"\$(instance|disk)", ".*", expr).replace("$__rate_interval", "1m")
            for expr in found]


def export_to(directory, tree):
    done = tree.run("export", f"--output={directory / 'virtio_blk.prom'}")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture
def servers(tree, tmp_path):
    """Prometheus with the alerts, which wait only a second, and the metrics of vda."""
    collected = tmp_path / "collected"
    collected.mkdir()
    rules = tmp_path / "rules.yml"
    rules.write_text(re.sub(r"for: \w+", "for: 1s", RULES.read_text()))
    export_to(collected, tree)
    with prometheus.Servers(collected, rules) as servers:
        yield servers


def settled(servers, expected):
    """Wait until the alerts that fire are as expected, and return those that do."""
    process.wait_for(lambda: servers.firing() == expected, 60)
    return servers.firing()


def test_prometheus(tree, servers):
    """Prometheus reads the metrics by node_exporter, and each alert fires in its case.

    All expressions of the dashboard have values, except on errors.
    """
    assert process.wait_for(lambda: servers.value("virtio_blk_disks") == 1, 60)
    # Two samples, for rates.
    assert process.wait_for(
        lambda: (servers.value("count_over_time(virtio_blk_disks[1m])") or 0) > 3, 60)
    assert servers.firing() == set()
    assert servers.value("node_textfile_scrape_error") == 0
    assert servers.value('sum(virtio_blk_requests_total{operation="read"})') == 20000
    ((labels, _),) = servers.query(
        "virtio_blk_resets_total * on (instance, disk) group_left (serial) "
        "virtio_blk_info")
    assert (labels["disk"], labels["serial"]) == ("vda", "vda")
    dashboard = json.loads((MONITORING / "virtio_blk.dashboard.json").read_text())
    empty = [expr for expr in expressions(dashboard) if not servers.query(expr)]
    assert [expr for expr in empty if "readable" not in expr] == []

    # One disk for each of these; vda stays healthy.
    add_disk(tree, "vdb", 3)
    add_disk(tree, "vdc", 4)
    add_disk(tree, "vdd", 5)
    add_disk(tree, "vde", 6)
    export_to(servers.collected, tree)
    assert process.wait_for(
        lambda: (servers.value("count_over_time(virtio_blk_timeouts_total"
                               '{disk="vde"}[1m])') or 0) > 1, 60)
    tree.write("sys/block/vdb/state", "dead\n")
    tree.write("sys/block/vdc/oldest_ms", "31000\n")
    tree.write("sys/block/vdd/state", "resetting\n")
    tree.write("sys/block/vdd/recovery/resets", "1\n")
    tree.write("sys/block/vdd/recovery/lost_interrupts", "1\n")
    tree.write_queue("vdd", 1, oldest_ms=0, ioerr=1)
    lose(tree, "sys/block/vde/oldest_ms")
    export_to(servers.collected, tree)
    expected = {("VirtioBlkDiskDead", "vdb"), ("VirtioBlkDiskStalled", "vdc"),
                ("VirtioBlkDiskNotBack", "vdd"), ("VirtioBlkResets", "vdd"),
                ("VirtioBlkLostInterrupts", "vdd"), ("VirtioBlkErrors", "vdd"),
                ("VirtioBlkBlind", "vde")}
    assert settled(servers, expected) == expected
    assert servers.query('virtio_blk_readable == 0')[0][0]["source"] == "oldest_request"

    old = time.time() - 301
    os.utime(servers.collected / "virtio_blk.prom", (old, old))
    expected |= {("VirtioBlkExportStale", "")}
    assert settled(servers, expected) == expected
    (servers.collected / "virtio_blk.prom").unlink()
    expected = {("VirtioBlkExportMissing", "")}
    # What rates rest on is in the past only, and ends with the last sample.
    assert process.wait_for(lambda: expected <= servers.firing(), 60)
    assert not {name for name, _ in servers.firing()} & {
        "VirtioBlkDiskDead", "VirtioBlkDiskStalled", "VirtioBlkExportStale"}


# In a guest

VBLKSTAT = "/run/vblkstat"
USER = "setpriv --reuid=65534 --clear-groups"


def sent(guest, samples, id):
    """Return the reads of each queue of a disk: in the metrics and in debugfs."""
    name = guest.dev(id)
    files = guest.run(f"grep -H '^reads ' /sys/kernel/debug/virtio_blk/{name}/queue*")
    known = dict(re.findall(r"queue(\d+):reads (\d+)", files.output))
    return ({key[2]: value for key, value in samples.items()
             if key[0] == "requests_total" and key[1] == name and key[3] == "read"},
            {queue: int(count) for queue, count in known.items()})


@pytest.mark.kernels("6.12")
def test_monitoring_in_a_guest(kernel):
    """export shows what the driver counted; check turns critical while a disk is silent."""
    disks = [Disk("busy", "ram", 1 << 26, queues=2), Disk("slow", queues=2)]
    with Guest(kernel, cpus=2, disks=disks) as guest:
        guest.put(vblkstat.build(), VBLKSTAT)
        guest.run("mountpoint -q /sys/kernel/debug || "
                  "mount -t debugfs none /sys/kernel/debug")
        busy, slow = guest.dev("busy"), guest.dev("slow")

        def metrics():
            text = guest.run(f"{VBLKSTAT} export --output=/run/virtio_blk.prom && "
                             "cat /run/virtio_blk.prom").output
            said = prometheus.promtool("check", "metrics", text=text)
            assert (said.returncode, said.stdout) == (0, "")
            return parse(text)

        def judge(words, user=""):
            done = guest.run(f"{user} {VBLKSTAT} check {words}", check=False)
            assert re.fullmatch(r"VIRTIO_BLK \w+ - [^|\n]+(\|[^|\n]+)?\n", done.output)
            return done.status, done.output

        before = metrics()
        assert before["info", busy, "busy", "virtio_blk",
                      guest.sysfs("/sys/module/virtio_blk/version"),
                      Path(guest.run(f"readlink /sys/block/{busy}/device").output
                           .strip()).name, "pci"] == 1
        guest.run(f"dd if=/dev/{busy} of=/dev/null bs=4k count=500 iflag=direct")
        after = metrics()
        counted, known = sent(guest, after, "busy")
        assert counted == known and len(known) == 2
        assert sum(counted.values()) - sum(sent(guest, before, "busy")[0].values()) == 500
        assert judge("")[0] == OK
        # Errors need root, the age does not.
        status, said = judge("", USER)
        assert status == OK and f"{slow}_oldest=0.000s" in said and "errors" not in said
        assert judge("-w 10,0", USER)[0] == UNKNOWN

        with throttle.silent(guest, "slow"):
            reader = guest.start(f"dd if=/dev/{slow} of=/dev/null bs=64k count=1 "
                                 "skip=9 iflag=direct")
            guest.run(f"until [ $(cat /sys/block/{slow}/oldest_ms) -gt 1200 ]; do "
                      "sleep 0.1; done", timeout=60)
            status, said = judge("-w 0.5 -c 1", USER)
            assert status == CRITICAL and f"{slow}: the oldest request waits" in said
            assert judge(f"-w 0.5 -c 1 {busy}")[0] == OK
            silent = metrics()
        reader.wait()
        assert silent["oldest_request_seconds", slow] > 1.2
        assert silent["oldest_request_seconds", busy] == 0
        assert max(silent["queue_oldest_request_seconds", slow, queue]
                   for queue in "01") > 1.2
        assert metrics()["oldest_request_seconds", slow] == 0
        assert judge("-w 0.5 -c 1")[0] == OK
