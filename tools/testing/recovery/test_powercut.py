# SPDX-License-Identifier: GPL-2.0
"""Power cuts: the short form of the soak test, and a check that it detects a loss."""

import os
import random
import signal
import subprocess

import pytest

from soak import power
from soak.scenario import Round
from vm.arch import AMD64

SECTOR = power.SECTOR


def test_acknowledged_data_after_power_cut(kernel):
    """All acknowledged data is on the disk after QEMU is killed or a log is cut off."""
    if not kernel.has("CONFIG_XFS_FS"):
        pytest.skip("this kernel has no xfs")
    cuts = 2 if os.environ.get("FULL") else 1
    counts = Round(power.SCENARIO, kernel, wanted={"cuts": cuts, "replays": 4}).play()
    assert counts["cuts"] == cuts
    assert counts["replays"] >= 4
    assert counts["prefixes"] > 100
    assert counts["acknowledged bytes"] > 1 << 20


def test_flushes_that_are_not_sent(kernel):
    """Prefixes and replays both detect the data that is lost without flushes.

    After mkfs the test sets write_cache to "write through", so that fsync and
    synchronous writes do not flush.
    """
    kinds = ("raw", "ext4")
    with power.logging_guest(kernel, "ours", kinds) as (guest, logs):
        recordings = power.record(
            guest, logs, seeds={"raw": 1, "ext4": 2},
            prepare="echo write through | tee /sys/block/vd*/queue/write_cache")
        counts = power.check_raw(recordings["raw"], guest.arch)
        assert counts["prefixes"] > 200
        assert counts[power.LOST] > 1 << 20
        counts = power.check_replays(guest, "ext4", recordings["ext4"], 10,
                                     random.Random(1))
        assert counts["replays"] == 10
        assert counts[power.LOST] + counts[power.DIRTY]


# The writer's check, on the host

@pytest.fixture
def written(tmp_path):
    """A function that runs a writer on a file of the host and kills it.

    It returns the file and the number of the last acknowledged record.
    """
    program = power.writer(AMD64)

    def write(number):
        path, marks = tmp_path / "records", tmp_path / "marks"
        marks.write_bytes(bytes(1 << 16))
        running = subprocess.Popen(
            [program, "write", path, "0", marks, "7", str(number)],
            stdout=subprocess.PIPE, text=True)
        lines = [running.stdout.readline() for _ in range(200)]
        running.send_signal(signal.SIGKILL)
        lines += running.communicate()[0].splitlines()
        return path, int(lines[-1].split()[1])

    return write


def check(path, number, acked):
    """Return how many sectors were checked, and how many are lost."""
    said = subprocess.run([power.writer(AMD64), "check", path, "0", "7",
                           str(number), str(acked)], check=True,
                          stdout=subprocess.PIPE, text=True).stdout
    _, checked, _, lost = said.splitlines()[-1].split()
    return int(checked), int(lost)


@pytest.mark.parametrize("number", power.WRITERS)
def test_the_writer_finds_what_it_wrote(written, number):
    """The check finds each record that a killed writer has acknowledged."""
    path, acked = written(number)
    checked, lost = check(path, number, acked)
    assert checked > 100
    assert lost == 0


def test_writer_check_detects_damage(written):
    """The check detects a changed byte, a misplaced or zeroed sector, an empty file."""
    path, acked = written(1)
    data = path.read_bytes()
    # Sectors that no write in flight covers.
    coming = [power.plan(AMD64, 7, 1, acked + power.BATCH)[record]
              for record in range(acked, acked + power.BATCH)]
    still = [place for place in range(power.AREA_SECTORS)
             if not any(first <= place < first + count for first, count in coming)
             and any(data[place * SECTOR:(place + 1) * SECTOR])]
    one, other = still[0], still[-1]

    def with_sector(place, sector):
        path.write_bytes(data[:place * SECTOR] + sector
                         + data[(place + 1) * SECTOR:])
        return check(path, 1, acked)[1]

    def sector(place):
        return data[place * SECTOR:(place + 1) * SECTOR]

    assert with_sector(one, sector(one)) == 0
    assert with_sector(one, sector(one)[:100] + b"?" + sector(one)[101:]) == 1
    assert with_sector(one, sector(other)) == 1
    assert with_sector(one, bytes(SECTOR)) == 1
    path.write_bytes(b"")
    assert check(path, 1, acked)[1] > len(still) / 2


def test_writer_check_detects_old_records(written):
    """The check reports a loss where a record is older than an acknowledged one."""
    path, last = written(1)
    later = power.plan(AMD64, 7, 1, last + 100)[last + power.BATCH:]
    places = {place for first, count in later
              for place in range(first, first + count)}
    assert len(places) > 1000
    assert check(path, 1, last + 100)[1] >= len(places)
