# SPDX-License-Identifier: GPL-2.0
"""IOPS, latency and CPU time over depths and jobs: measuring, ratios and pictures.

One test boots a guest and measures it end to end, in few rounds.  Where these tests run
there may be no KVM.  So the pictures of absolute figures, which a host with KVM gets,
are drawn from what was measured under emulation; those figures mean nothing.
"""

import json
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from common import measure
from host import deps
from host.ui import UserError
from perf import curves, sweep, wallclock
from perf.sweep import Point, Record, Sample, Series
from vm.errors import GuestError
from vm.kernels import Kernel

MODULAR, BUILT_IN = (
    Kernel(name=name, release=name, image=None, modules=None, build=Path(),
           builtin=builtin) for name, builtin in (("6.12", False), ("7.3", True)))


def record(accelerator="tcg", cpus=4, rounds=3, **factors):
    """Return a record of all points; factors: of each device's IOPS."""
    factors = {"stock": 1.0, "ours": 1.25, "nvme": 0.8, **factors}
    series = []
    for point in sweep.plan(cpus, quick=False):
        for device in sweep.DEVICES:
            samples = []
            for number in range(rounds):
                # A round is as fast as the host lets it be, for all devices.
                iops = 1000 * point.x * factors[device] * (1 + number)
                samples.append(Sample(iops, 1e6 / iops, 2e6 / iops, 9e6 / iops,
                                      5e5 / iops))
            series.append(Series(device, point, samples))
    return Record("6.12.1", "10.0.11", accelerator, "abc1234", cpus, cpus, 0.5, rounds,
                  1, 1, series)


# What is measured

@pytest.mark.parametrize("cpus, counts", [
    (1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])])
def test_numbers_of_jobs(cpus, counts):
    """Numbers of jobs are the powers of two, and the number of CPUs."""
    assert sweep.job_counts(cpus) == counts


def test_points_of_a_sweep():
    """All depths to 128 with one job, and all numbers of jobs on 1 and on N queues."""
    points = sweep.plan(8, quick=False)
    assert [point.depth for point in points if point.sweep == "depth"] == [
        1, 2, 4, 8, 16, 32, 64, 128]
    assert [(point.queues, point.jobs) for point in points if point.sweep == "jobs"] == [
        (queues, jobs) for queues in (1, 8) for jobs in (1, 2, 4, 8)]
    queues = [point.queues for point in points]
    # Each change of the number of queues reloads the driver.
    assert queues == sorted(queues)


def test_devices_take_turns():
    """Each device runs at each point, and the order of the drivers alternates."""
    points = sweep.plan(2, quick=True)[:3]
    orders = []
    for number in range(2):
        turns = list(sweep.turns(points, number))
        assert sorted(turns, key=str) == sorted(
            ((point, device) for point in points for device in sweep.DEVICES), key=str)
        orders.append([device for _, device in turns if device != "nvme"])
    assert orders[0] == ["stock", "ours", "ours", "stock", "stock", "ours"]
    assert orders[1] == ["ours", "stock", "stock", "ours", "ours", "stock"]


def test_busy_cpus():
    """Busy is all that is not idle, waiting for I/O, or taken by the hypervisor."""
    text = ("cpu  100 10 200 5000 70 5 15 999 0 0\n100.00 50.00\n"
            "cpu  150 10 250 5300 90 25 45 1999 0 0\n102.00 53.00\n")
    assert sweep.busy(text) == pytest.approx((50 + 50 + 20 + 30) / 100 / 2)


@pytest.mark.parametrize("text", (
    "", "cpu  1 1 1 1 1 1 1 1 0 0\n1.0 1.0\n",
    2 * "cpu  1 1 1 1 1 1 1 1 0 0\n1.0 1.0\n"))
def test_busy_without_two_readings(text):
    """Fewer than two readings, or two at one time, raise an error and are no figure."""
    with pytest.raises(GuestError):
        sweep.busy(text)


def report(**read):
    """Return fio's JSON report of a job that reads."""
    return {"jobs": [{"read": {
        "total_ios": 5000, "iops": 2000.0, "clat_ns": {"percentile": {
            "50.000000": 100000, "99.000000": 250000, "99.900000": 900000}}, **read}}]}


def test_figures_of_a_sample():
    """Latencies are in microseconds; CPU time is that of all busy CPUs, per I/O."""
    assert sweep.summary(report(), cpus=0.5) == Sample(
        iops=2000, p50_us=100, p99_us=250, p999_us=900, cpu_us=250)


def test_sample_without_io():
    """A run of fio that completed nothing raises an error and is no figure."""
    with pytest.raises(GuestError, match="no read"):
        sweep.summary(report(total_ios=0, iops=0), cpus=1)


@pytest.mark.parametrize("chosen, cpus, rounds, seconds, message", [
    (BUILT_IN, 2, 1, 1, "7.3 has the driver built in"),
    (MODULAR, 1, 1, 1, "cpus is 1; it must be from 2"),
    (MODULAR, max(2, sweep.host_cpus()) + 1, 1, 1, "from 2 to the"),
    (MODULAR, 2, 0, 1, "rounds is 0"), (MODULAR, 2, 1, 0, "seconds is 0")])
def test_what_a_sweep_refuses(chosen, cpus, rounds, seconds, message):
    """A sweep refuses a kernel or a value that it cannot use, and says why."""
    with pytest.raises(UserError, match=message):
        sweep._check(chosen, cpus, rounds, seconds)


# Ratios

def test_ratio_compares_rounds_and_not_medians():
    """A ratio compares two runs of one round, whatever other rounds were like."""
    found = record()
    point = Point("depth", 4, 8, 1)
    series = [replace(each, samples=[replace(sample, iops=iops) for sample, iops in zip(
        each.samples, {"ours": (300, 200, 800), "stock": (100, 200, 400)}[each.device])])
        for each in found.series if each.point == point and each.device != "nvme"]
    ratios = sweep.ratios(replace(found, series=series), "ours", point, "iops")
    assert (ratios.low, ratios.median, ratios.high) == (1, 2, 3)


@pytest.mark.parametrize("accelerator, cpus, absolute", (
    ("kvm", 4, True), ("kvm", 2, False), ("tcg", 8, False)))
def test_when_figures_are_absolute(accelerator, cpus, absolute):
    """Figures per second need KVM and four CPUs; elsewhere there are ratios only."""
    found = record(accelerator, cpus)
    assert found.absolute is absolute
    text = curves.text(found)
    assert ("ratios to the in-tree driver" in curves.words(found)) is not absolute
    # 2000 IOPS at depth 1 in the second of three rounds.
    assert ("2000 (1000 to 3000)" in text) is absolute
    assert ("1.25 (1.25 to 1.25)" in text) is not absolute


def test_range_that_spans_1_concludes_nothing():
    """A ratio whose range has 1 in it is marked, and no other one is."""
    found = record()
    assert "too wide" not in str(curves.tables(found))
    assert measure.TOO_WIDE in curves.words(found)
    slow = [replace(each, samples=[replace(each.samples[0], iops=1.0),
                                   *each.samples[1:]])
            if each.device == "ours" and each.point == Point("depth", 4, 8, 1) else each
            for each in found.series]
    (depths, _) = curves.tables(replace(found, series=slow))
    marked = [row[:3] for row in depths[2] if row[3] == "too wide: 0.00 to 1.25"]
    assert marked == [["our driver", "4", "8"]]


def test_record_survives_json():
    """A record that was written as JSON is the same when it is read."""
    found = record()
    assert Record.read(json.loads(json.dumps(found.as_dict()))) == found


# Pictures

def drawn(found, absolute):
    """Draw all pictures; check that each is a PNG of its size, and return them."""
    deps.need("plot")
    made = {name: draw() for name, draw in curves.pictures(found, absolute).items()}
    assert set(made) == {"depths", "jobs"}
    for name, png in made.items():
        assert png.startswith(b"\x89PNG\r\n\x1a\n")
        assert struct.unpack(">II", png[16:24]) == curves.PICTURES[name][1]
    return made


def test_pictures_of_a_record():
    """Absolute figures and ratios have different pictures, which show the figures."""
    found = record("kvm")
    absolute, ratios = drawn(found, True), drawn(found, False)
    faster = record("kvm", ours=2.0)
    for name in absolute:
        assert absolute[name] != ratios[name]
        assert drawn(faster, True)[name] != absolute[name]
        assert drawn(faster, False)[name] != ratios[name]


@pytest.mark.full
@pytest.mark.kernels("6.12")
def test_sweep_end_to_end(kernel, monkeypatch, tmp_path):
    """All devices are measured in one boot, and fio's reports and pictures are there.

    Under emulation this draws the pictures of a host with KVM from figures that do not
    mean anything: it shows that their code works on what fio really reports.
    """
    monkeypatch.setattr(wallclock, "FIO", tmp_path / "fio")
    monkeypatch.setattr(sweep, "QUICK_DEPTHS", (1, 128))
    found = sweep.measure(kernel, cpus=2, rounds=1, seconds=1, ramp=0, quick=True)
    assert (found.rounds, found.cpus, found.kernel) == (1, 2, kernel.release)
    points = [Point("jobs", queues, 32, jobs) for queues in (1, 2) for jobs in (1, 2)]
    points += [Point("depth", 2, depth, 1) for depth in (1, 128)]
    assert [(each.device, each.point) for each in found.series] == [
        (device, point) for point in points for device in sweep.DEVICES]
    for each in found.series:
        (sample,) = each.samples
        assert sample.iops > 0
        assert 0 < sample.p50_us <= sample.p99_us <= sample.p999_us
        # Two CPUs cannot be busy for more than two seconds each second.
        assert 0 < sample.cpu_us * sample.iops <= 2.2e6
    for device in sweep.DEVICES:
        for point in points:
            name = (f"{point.sweep}-{device}-queues{point.queues}-depth{point.depth}-"
                    f"jobs{point.jobs}")
            report = (tmp_path / "fio" / f"{name}-round1.json").read_text()
            (job,) = json.loads(report)["jobs"]
            said = job["job options"]
            assert said["filename"].startswith(
                "/dev/nvme" if device == "nvme" else "/dev/vd")
            assert (int(said["iodepth"]), int(said["numjobs"])) == (
                point.depth, point.jobs)
            assert job["read"]["total_ios"] and not job["error"]
    drawn(found, True)
    drawn(found, False)
