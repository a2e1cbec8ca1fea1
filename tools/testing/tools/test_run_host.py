# SPDX-License-Identifier: GPL-2.0
"""`make run-host`: both halves in one guest, and the tables and checks of a run."""

import contextlib
import json
import os
import re
import signal
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from common.vdpa import Worker
from host.ui import UserError
from run import run_host, run_host_report, verdict
from run.run_host_report import (BACKING, VDPA_BLK, VDUSE, Comparison, Device, Ends,
                                 Job, Modules, Plan, Ratio, Run, Series, Verified)

TOP = Path(__file__).resolve().parents[3]
PLAN = Plan()
# One short round, so that the whole run takes less than a minute.
SHORT = Plan(mib=1, rounds=1, jobs=(Job("randread", 32),))


def ends(index, **changed):
    """Return a queue of a run that passes."""
    return replace(Ends(index=index, cpus=[index], vector=None, ring=256, sent=8192,
                        kicks=610 + index, interrupts=580 + index, worker=index % 2,
                        taken=8192, batches=512, failed=0, in_flight=0), **changed)


def device(**changed):
    """Return the device of a run that passes; changed: of its queue 2."""
    return Device("disk0", "vda", "/dev/nulldata",
                  [ends(index, **(changed if index == 2 else {}))
                   for index in range(4)],
                  [Worker(0, 1, [1]), Worker(1, 3, [3])])


def series(job=Job("randread", 32)):
    """Return three rounds of three devices."""
    return Series(job, {BACKING: [1000, 2000, 1000], VDPA_BLK: [500, 800, 600],
                        VDUSE: [100, 100, 100]})


def good(**changed):
    """Return a run that passes."""
    return replace(Run(
        PLAN, "6.12", "tcg", Modules("out of tree", "out of tree"), device(),
        Verified(64 << 20, 0), Verified(64 << 20, 0),
        Comparison({}, {VDPA_BLK: "virtio_blk", VDUSE: "virtio_blk"}, [series()], []),
        "none", "no complaint"), **changed)


def judged(run):
    """Return the verdict of a run."""
    return verdict.conclude(run_host_report.checks(run), run.error)


# The checks

def test_good_run_of_both_halves_passes():
    """A run without any wrong value passes, and each check was reached."""
    found = judged(good())
    assert found.word == "PASS"
    assert all(check.passed for check in found.checks)


@pytest.mark.parametrize("changed,why", (
    ({"modules": Modules("in tree", "out of tree")}, "guest's half: expected"),
    ({"modules": Modules("out of tree", "in tree")}, "host's half: expected"),
    ({"device": replace(device(), queues=device().queues[:3])}, "queues of the disk"),
    ({"device": device(sent=0, taken=0)}, "carried requests: expected 4, seen 3"),
    ({"device": device(sent=8193)}, "count the same requests: expected 4, seen 3"),
    ({"device": device(worker=1)}, "expected 0, 1, 0, 1, seen 0, 1, 1, 1"),
    ({"device": replace(device(), workers=[Worker(0, 1, [1]), Worker(1, 0, [3])])},
     "CPUs of the workers: expected 1, 3, seen 1, 0"),
    ({"device": replace(device(), workers=[])}, "CPUs of the workers"),
    ({"device": device(failed=2)}, "failed: expected 0, seen 2"),
    ({"device": device(in_flight=1)}, "in flight: expected 0, seen 1"),
    ({"written": Verified((64 << 20) - 4096, 0)}, "expected 64, seen 63"),
    ({"written": Verified(64 << 20, 1)}, "verify errors, both halves"),
    ({"reread": Verified(0, 0)}, "verified again on the backing device"),
    ({"reread": Verified(64 << 20, 3)}, "verify errors, backing device"),
    ({"comparison": Comparison({}, {VDUSE: "other"}, [], [])},
     "driver of the compared disks: expected virtio_blk, seen other"),
    ({"left": "vdpa_blk"}, "left at the end: expected none, seen vdpa_blk"),
    ({"kernel_log": "BUG"}, "seen BUG"),
    ({"error": "QEMU exited with status -9"}, "QEMU exited with status -9")))
def test_wrong_value_fails_run_of_both_halves(changed, why):
    """One wrong value is a FAIL, whose reason has the value."""
    found = judged(good(**changed))
    assert found.word == "FAIL"
    assert why in found.why


@pytest.mark.parametrize("name", ("modules", "device", "written", "reread",
                                  "comparison", "left", "kernel_log"))
def test_part_that_was_not_reached_fails(name):
    """A run that ends before a part fails, and its check says so."""
    found = judged(good(**{name: None}))
    assert found.word == "FAIL"
    assert verdict.NOT_REACHED in {check.seen for check in found.checks}


def test_run_without_rounds_passes():
    """A plan without rounds compares no disks, and its run has no check of them."""
    found = judged(good(plan=replace(PLAN, rounds=0), comparison=None))
    assert found.word == "PASS"
    assert "driver of the compared disks" not in {check.name for check in found.checks}


# Tables and drawing

def test_ratios_are_of_a_round():
    """The median, lowest and highest ratios are of figures of the same round."""
    assert series().ratio(VDPA_BLK, BACKING) == Ratio(0.5, 0.4, 0.6)
    assert series().ratio(VDPA_BLK, VDUSE) == Ratio(6, 5, 8)


def test_comparison_table_has_each_device():
    """Each device has a row; what is left out has its reason below."""
    found = Comparison({}, {}, [series(), series(Job("randread", 1))],
                       ["vdpa_sim_blk is left out: there is none."])
    lines = run_host_report.comparison_table(PLAN, found).splitlines()
    rows = [line for line in lines if line.startswith("  random read, depth 32 ")]
    assert [line.split("  ")[2].strip() for line in rows] == [BACKING, VDPA_BLK, VDUSE]
    assert re.search(r"\b600\s+0.50\s+0.40 to 0.60\s+-\s+-$", rows[1])
    assert re.search(r"\b100\s+0.10\s+0.05 to 0.10\s+6.00\s+5.00 to 8.00$", rows[2])
    assert sum("random read, depth 1 " in line for line in lines) == 3
    assert "  vdpa_sim_blk is left out: there is none." in lines


def test_queue_table_has_both_ends():
    """A row has a queue's worker, its CPU, requests, batches, kicks and interrupts."""
    text = run_host_report.queue_table(replace(device(kicks=7, batches=0, vector=3)))
    rows = re.findall(r"^ +(\d .*)$", text, re.MULTILINE)
    assert [row.split() for row in rows] == [
        ["0", "0", "0", "1", "callback", "8192", "512", "16.0", "610", "580"],
        ["1", "1", "1", "3", "callback", "8192", "512", "16.0", "611", "581"],
        ["2", "2", "0", "1", "vector", "3", "8192", "0", "0.0", "7", "582"],
        ["3", "3", "1", "3", "callback", "8192", "512", "16.0", "613", "583"]]


def test_drawing_has_the_figures_of_each_queue():
    """Figures stand below their queue, and all lines of a box have one width."""
    text = run_host_report.drawing(PLAN, device(sent=4321))
    rows = {line[3:17].strip(): line[17:].split() for line in text.splitlines()}
    assert rows["kicks"][:4] == ["610", "611", "612", "613"]
    assert rows["its CPU"][:4] == ["1", "3", "1", "3"]
    assert rows["virtqueue"] == ["|", "0", "|", "|", "1", "|", "|", "2", "|", "|", "3",
                                 "|"]
    assert "/dev/nulldata" in text and "disk vda" in text
    lines = text.splitlines()
    column = next(line for line in lines if "virtqueue" in line).index(" 2 ")
    figures = next(line for line in lines if "4321" in line)
    assert abs(figures.index("4321") + 1 - column) <= 2
    assert len({len(line) for line in lines if re.match("  [+|]", line)}) == 1


# Runs

@pytest.mark.parametrize("name", run_host.kernels.OWN, ids="KERNEL={}".format)
def test_run_on_kernel_of_this_project_is_refused(monkeypatch, name):
    """A kernel that would be built with the driver in it is not even looked for."""
    monkeypatch.setattr(run_host.kernels, "find", lambda name: pytest.fail(name))
    with pytest.raises(UserError, match=f"KERNEL is {name}, .* choose KERNEL=6.12"):
        run_host.find_kernel(name)


@pytest.mark.parametrize("builtin,vdpa,why", (
    (True, True, "KERNEL is ./tree, which has our driver built in; "),
    (False, False, "KERNEL is ./tree, Linux 6.1.0; vdpa_blk needs Linux 6.12 or later")))
def test_run_on_unsuitable_kernel_is_refused(monkeypatch, tmp_path, builtin, vdpa, why):
    """A kernel that cannot load both halves ends the run before a guest boots."""
    kernel = SimpleNamespace(release="6.1.0", builtin=builtin)
    monkeypatch.setattr(run_host, "_OUT", tmp_path)
    monkeypatch.setattr(run_host.kernels, "find", lambda name: kernel)
    monkeypatch.setattr(run_host.kernels, "can_have_vdpa", lambda kernel: vdpa)
    with pytest.raises(UserError, match=f"{why}.* choose KERNEL=6.12$"):
        run_host.run_all(Run(replace(PLAN, kernel="./tree")))


@pytest.mark.module
@pytest.mark.kernels("6.12")
def test_short_run_of_both_halves(kernel, monkeypatch, tmp_path, capsys):
    """A run with real drivers, devices and I/O passes, and has the figures."""
    monkeypatch.setattr(run_host, "_OUT", tmp_path)
    monkeypatch.setattr(run_host, "_TOP", tmp_path)
    status = run_host.execute(replace(SHORT, kernel=kernel.name))
    text = capsys.readouterr().out
    assert status == 0, text
    found = json.loads((tmp_path / "report.json").read_text())
    assert found["verdict"] == "PASS" and found["error"] is None
    # Each job writes in blocks of 4 KiB, and reads them again.
    assert sum(queue["taken"] for queue in found["device"]["queues"]) >= 2 * 4 * 256
    (measured,) = found["comparison"]["series"]
    assert {BACKING, VDPA_BLK, VDUSE} <= set(measured["iops"])
    assert all(iops > 0 for rounds in measured["iops"].values() for iops in rounds)
    assert "disk0: vda of virtio_blk, on /dev/nulldata" in text
    assert text.endswith(f"PASS: all {len(found['checks'])} checks passed\n")


@pytest.mark.full
def test_make_run_host():
    """The command that a person types passes, in the size that it has by default."""
    make = subprocess.Popen(["make", "-C", TOP, "run-host"], text=True,
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, start_new_session=True,
                            env={name: value for name, value in os.environ.items()
                                 if name != "KERNEL"})
    try:
        output = make.communicate(timeout=1200)[0]
    finally:
        # make's children are Python and what it has started to build.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(make.pid, signal.SIGKILL)
        make.wait()
    assert make.returncode == 0, output
    assert "PASS: all" in output.splitlines()[-1]
