# SPDX-License-Identifier: GPL-2.0
"""The calculations of the tools that measure speed and memory.

No test here boots a guest: the input is output of kernels and of fio.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from host.ui import UserError
from perf import scale, wallclock
from vm.errors import GuestError
from vm.kernels import Kernel

TOOLS = Path(__file__).resolve().parents[2]
MODULAR, BUILT_IN = (
    Kernel(name=name, release=name, image=None, modules=None, build=Path(),
           builtin=builtin) for name, builtin in (("6.12", False), ("7.3", True)))


def tool(name, *words):
    """Run a tool as from the command line; return its CompletedProcess."""
    return subprocess.run([sys.executable, "-m", f"perf.{name}", *words],
                          env={**os.environ, "PYTHONPATH": str(TOOLS),
                               "KERNEL": "6.12"},
                          text=True, capture_output=True, timeout=60)


# wallclock: statistics

@pytest.mark.parametrize("wins, losses, p", [
    (6, 0, 2 / 64), (5, 0, 2 / 32), (9, 1, 22 / 1024), (8, 2, 112 / 1024),
    (2, 8, 112 / 1024), (5, 5, 1), (0, 0, 1)])
def test_sign_test(wins, losses, p):
    """The two-sided p of wins and losses is exact."""
    assert wallclock.sign_test(wins, losses) == p


def test_fewest_rounds_that_tell_anything():
    """A verdict needs at least 6 rounds."""
    assert wallclock.fewest_rounds() == 6


@pytest.mark.parametrize("rounds, ends", [
    (5, None), (6, [0, 5]), (8, [0, 7]), (9, [1, 7]), (10, [1, 8]), (20, [5, 14])])
def test_interval_of_the_median(rounds, ends):
    """The interval's ends equal those in tables of the sign test."""
    ratios = [(7 * number) % rounds for number in range(rounds)]
    assert wallclock.interval(ratios) == ends


@pytest.mark.parametrize("ratios, better, verdict", [
    ([1.01] * 6, "higher", "faster"), ([1.01] * 6, "lower", "slower"),
    ([0.99] * 6, "higher", "slower"), ([0.99] * 6, "lower", "faster"),
    ([1.5] * 5, "higher", "too few rounds to conclude"),
    ([1.5] * 5 + [1.0] * 5, "higher", "too wide to conclude"),
    ([1.5] * 8 + [0.5] * 2, "higher", "too wide to conclude"),
    ([1.5] * 9 + [0.5], "higher", "faster")])
def test_verdict(ratios, better, verdict):
    """A driver is faster or slower only if the interval of ratios excludes 1."""
    assert wallclock.spread(ratios, better)["verdict"] == verdict


def test_spread():
    """The spread has median, range, quartiles, wins, losses and p."""
    found = wallclock.spread([1.2, 0.9, 1.0, 1.1, 1.4], "higher")
    assert (found["median"], found["low"], found["high"]) == (1.1, 0.9, 1.4)
    assert found["quartiles"] == [1.0, 1.2]
    assert (found["wins"], found["losses"], found["p"]) == (3, 1, 10 / 16)


# wallclock: rounds and figures

def test_both_drivers_run_a_job_side_by_side():
    """Both drivers run each job in turn, and the order alternates."""
    assert wallclock.turns(["a", "b", "c"], 0) == [
        ("a", "ours"), ("a", "stock"), ("b", "stock"), ("b", "ours"),
        ("c", "ours"), ("c", "stock")]
    assert wallclock.turns(["a", "b"], 3) == [
        ("a", "stock"), ("a", "ours"), ("b", "ours"), ("b", "stock")]


def test_latencies_in_us():
    """The summary has latencies in microseconds, and omits unused directions."""
    nothing = {"total_ios": 0}
    read = {"total_ios": 9120, "io_bytes": 37355520, "iops": 4557.721,
            "clat_ns": {"mean": 204713.5, "percentile": {"50.000000": 199680}}}
    report = {"jobs": [{"error": 0, "read": read, "write": nothing,
                        "trim": nothing}]}
    assert wallclock._summary(report, "") == {
        "errors": 0, "read": {"ios": 9120, "bytes": 37355520, "iops": 4558,
                              "mean_us": 204.7135, "p50_us": 199.68}}


@pytest.mark.parametrize("chosen, change, message", [
    (BUILT_IN, {}, "7.3 has the driver built in.*choose KERNEL="),
    (MODULAR, {"queue_count": 3}, "queues is 3; .*from 1 to the number of CPUs, 2"),
    (MODULAR, {"queue_count": 0}, "queues is 0; .*from 1 to"),
    (MODULAR, {"queue_size": 300}, "queue-size is 300; .*from 4 to 1024"),
    (MODULAR, {"queue_size": 2048}, "queue-size is 2048"),
    (MODULAR, {"queue_size": 2}, "queue-size is 2;"),
    (MODULAR, {"rounds": 1}, "rounds is 1; .*at least 2 .* at least 6"),
    (MODULAR, {"seconds": 0}, "seconds is 0")])
def test_wallclock_bad_arguments(chosen, change, message):
    """wallclock refuses a kernel or a value that it cannot use, and says why."""
    right = {"cpus": 2, "queue_count": 2, "queue_size": 1024, "rounds": 2,
             "seconds": 1}
    wallclock._check(MODULAR, **right)
    with pytest.raises(UserError, match=message):
        wallclock._check(chosen, **{**right, **change})


def test_wallclock_says_what_it_refuses():
    """The command exits with 2 and prints the error."""
    result = tool("wallclock", "--queue-size", "100")
    assert result.returncode == 2
    assert "\nerror: --queue-size is 100" in f"\n{result.stderr}"


# scale

SYMBOLS = """\
ffffffffa02061c0 d virtblk_ida	[virtio_blk]
ffffffffa0206090 b __key.0	[virtio_blk]
ffffffffa000eb00 t virtblk_queue_rq	[virtio_blk]
"""
CLASSES = """\
all lock classes:
ffffffff81c3eb80: cpu_hotplug_lock
ffffffff82aca1d0: &rq->__lock
ffffffffa02061d8: virtblk_ida.xa_lock
ffffffffa0206090: &q->lock
"""
LOCK_STAT = """\
lock_stat version 0.4
--------------------------------------------------------------------------------
                              class name    con-bounces    contentions   waittime-min   waittime-max waittime-total   waittime-avg    acq-bounces   acquisitions   holdtime-min   holdtime-max holdtime-total   holdtime-avg
--------------------------------------------------------------------------------

                                &q->lock:            74             76           1.11       12057.54      207886.34        2735.35          12930          30543           2.36        8078.76      375832.45          12.31
                                --------
                                &q->lock             48          [<ffffffffa000eb3b>] virtblk_queue_rq+0x3b/0x150 [virtio_blk]
                                &q->lock             28          [<ffffffffa000f07b>] virtblk_interrupt+0x8b/0x180 [virtio_blk]
                                --------
                                &q->lock             69          [<ffffffffa000eb3b>] virtblk_queue_rq+0x3b/0x150 [virtio_blk]
                                &q->lock              7          [<ffffffffa000f07b>] virtblk_interrupt+0x8b/0x180 [virtio_blk]

................................................................................

                             &rq->__lock:            19             19         558.46       12902.66       99176.12        5219.80            158          62148           0.43       27574.54      107130.40           1.72
                             -----------
                             &rq->__lock              5          [<ffffffff8163c74d>] __schedule+0xad/0x910
                    ptlock_ptr(ptdesc)#2:             0              0           0.00           0.00           0.00           0.00              2             61           0.70          13.37         193.07           3.17
              (local_lock_t *)&pcs->lock:             0              0           0.00           0.00           0.00           0.00              0          12201           0.45          67.07       10101.72           0.83
              drivers/char/random.c:1021:             0              0           0.00           0.00           0.00           0.00              0              1           2.46           2.46           2.46           2.46
"""  # noqa: E501


def test_the_driver_s_lock_among_all():
    # Other locks of the kernel are taken more often.
    """busiest() finds the driver's lock, its figures and its functions."""
    figures = scale.parse_lock_stat(LOCK_STAT)
    own = scale.classes_of(SYMBOLS, CLASSES)
    assert own == {"&q->lock"}
    assert scale.busiest(figures, own) == ("&q->lock", {
        "contentions": 76, "wait_us": 207886.34, "acquisitions": 30543,
        "hold_us": 375832.45,
        "seen_in": ["virtblk_queue_rq", "virtblk_interrupt"]})


def test_all_locks_have_figures():
    """The parser reads each lock of lock_stat, whatever its name."""
    figures = scale.parse_lock_stat(LOCK_STAT)
    assert {name: row["acquisitions"] for name, row in figures.items()} == {
        "&q->lock": 30543, "&rq->__lock": 62148, "ptlock_ptr(ptdesc)#2": 61,
        "(local_lock_t *)&pcs->lock": 12201, "drivers/char/random.c:1021": 1}
    assert figures["&rq->__lock"]["seen_in"] == ["__schedule"]
    assert figures["ptlock_ptr(ptdesc)#2"]["seen_in"] == []


def test_lock_stat_without_driver_lock():
    """If none of the driver's locks has figures, busiest() raises GuestError."""
    figures = scale.parse_lock_stat(LOCK_STAT)
    with pytest.raises(GuestError, match="no lock of the driver.*: none"):
        scale.busiest(figures, scale.classes_of("", CLASSES))
    with pytest.raises(GuestError, match="its classes are: &other->lock"):
        scale.busiest(figures, {"&other->lock"})


def test_free_memory_includes_that_of_each_cpu():
    """Free memory includes the pages on the CPUs' lists."""
    assert scale.parse_memory("""\
Node 0, zone    DMA32
  per-node stats
      nr_inactive_anon 259
  pages free     243667
        boost    0
      nr_free_pages 243667
      nr_free_pages_blocks 241664
      nr_free_cma  0
  pagesets
    cpu: 0
              count:    557
              high:     624
              batch:    63
    cpu: 1
              count:    465
              high:     624
  node_unreclaimable:  0
Node 0, zone   Normal
  pages free     0
        min      0
MemTotal:        1007248 kB
MemFree:          974668 kB
KReclaimable:       1712 kB
Slab:              10148 kB
SReclaimable:       1712 kB
Percpu:             4024 kB
""") == {"free": (243667 + 557 + 465) * 4096, "Slab": 10148 * 1024,
         "Percpu": 4024 * 1024}


def test_memory_of_a_further_queue():
    """The memory of a queue is the difference divided by the number of queues."""
    few = [{"bytes": first, "slab": 100, "percpu": 0, "pages": first - 100,
            "depth": 256} for first in (1000, 1200, 900)]
    many = [{"bytes": first, "slab": 340, "percpu": 48, "pages": first - 388,
             "depth": 256} for first in (25000, 25200, 27300)]
    found = scale._per_queue(few, many, 48)
    assert (found["bytes"], found["low"], found["high"]) == (500, 500, 550)
    assert (found["slab"], found["percpu"], found["pages"]) == (5, 1, 494)
    assert (found["depth"], found["pages_per_request"]) == (256, 494 / 256)


def test_scale_knows_its_parts():
    """An unknown part is an error that lists the known parts."""
    result = tool("scale", "works", "speed")
    assert result.returncode == 2
    assert "unknown part speed" in result.stderr
    assert all(part in result.stderr for part in scale.PARTS)
