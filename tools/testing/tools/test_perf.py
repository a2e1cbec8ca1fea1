# SPDX-License-Identifier: GPL-2.0
"""The logic of make profile and make bench, without a guest."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from common import measure
from host import deps
from host.ui import UserError
from perf import charts, counting, goals, jobs, layers, profile
from perf.symbols import Symbols

TOP = Path(__file__).resolve().parents[3]

KALLSYMS = """\
ffffffff81000000 T _stext
ffffffff81000100 T blk_mq_submit_bio
ffffffff81000180 t blk_mq_submit_bio.cold
ffffffff81000200 T common_interrupt
ffffffff81000200 T common_interrupt_alias
ffffffff81000300 D some_data
ffffffff81000400 T __kmalloc_noprof
ffffffffc0100000 t virtblk_build\t[virtio_blk]
ffffffffc0100080 t virtblk_interrupt\t[virtio_blk]
"""


@pytest.mark.parametrize("address,expected", (
    (0xffffffff81000100, ("blk_mq_submit_bio", "vmlinux", True)),
    (0xffffffff8100017f, ("blk_mq_submit_bio", "vmlinux", False)),
    (0xffffffff81000188, ("blk_mq_submit_bio", "vmlinux", False)),
    (0xffffffff81000210, ("common_interrupt", "vmlinux", False)),
    (0xffffffff81000310, ("common_interrupt", "vmlinux", False)),
    (0xffffffffc0100080, ("virtblk_interrupt", "virtio_blk", True)),
    (0xffffffffc0200000, ("unknown", "vmlinux", False)),
    (0xffffffff80000000, ("unknown", "vmlinux", False)),
))
def test_which_function(address, expected):
    """An address belongs to the last function that starts at or below it."""
    assert Symbols(KALLSYMS).at(address) == expected


def test_extent_of_a_module():
    """A module's extent covers its functions; an unknown module has none."""
    symbols = Symbols(KALLSYMS)
    first, last = symbols.extent("virtio_blk")
    assert first == 0xffffffffc0100000 and last > 0xffffffffc0100080
    assert symbols.extent("nvme") is None


def counts(path, blocks, **others):
    """Write a mark as the plugin writes it; return it as counting reads it."""
    lines = [f"block {address:x} {size} {times}"
             for (address, size), times in blocks.items()]
    lines += [f"{kind} {value}" for kind, value in others.items()]
    path.write_text("\n".join(lines) + "\n")
    return counting._Counts(path)


def test_cost_is_the_difference_of_differences(tmp_path):
    """A cost excludes what both runs have in common, and is a sum for each function."""
    interrupt, body = (0xffffffff81000200, 10), (0xffffffff81000220, 5)
    alloc = (0xffffffff81000400, 20)

    def mark(name, first, second, third, user):
        return counts(tmp_path / name, {interrupt: first, body: second,
                                        alloc: third}, user=user,
                      locked="0 0", irqsoff=0)

    marks = [mark("0", 0, 0, 0, 0), mark("1", 150, 150, 7, 1000),
             mark("2", 400, 600, 14, 2500)]
    cost = counting._cost(marks, 100, Symbols(KALLSYMS), fine=False)
    # 100 more entries of ten instructions, and 300 more of the other block.
    assert cost.functions["common_interrupt", "vmlinux"] == (25.0, 1.0)
    assert ("__kmalloc_noprof", "vmlinux") not in cost.functions
    assert (cost.kernel, cost.user) == (25.0, 5.0)
    assert (cost.interrupts, cost.allocations) == (1.0, 0)
    assert cost.irqsoff is None


def cost_of(functions, **others):
    """Return a Cost with these functions."""
    return counting.Cost(1, functions, **{
        "stores": {}, "user": 0, "locked": 0, "acquisitions": 0, **others})


def test_allocations_and_kicks():
    """Allocations are calls that allocate; kicks are stores to virtio and to nvme."""
    cost = cost_of({("__kmalloc_noprof", "vmlinux"): (100, 1),
                    ("kmem_cache_alloc_noprof", "vmlinux"): (50, 2),
                    ("kmem_cache_alloc_bulk_noprof", "vmlinux"): (50, 4),
                    ("kfree", "vmlinux"): (50, 8)},
                   stores={"virtio-pci-notify-virtio-blk": 1.0, "apic-msi": 3,
                           "nvme": 2})
    assert cost.allocations == 3
    assert cost.kicks == 3


def test_growth():
    """growth() lists each function whose cost differs, the largest growth first."""
    before = cost_of({("a", "m"): (10, 1), ("b", "m"): (5, 1), ("c", "m"): (7, 1)})
    after = cost_of({("a", "m"): (30, 1), ("c", "m"): (7.2, 1), ("d", "m"): (2, 1)})
    assert profile.growth(before, after) == [
        (20, 10, 30, "a", "m"), (-5, 5, 0, "b", "m"), (2, 0, 2, "d", "m")]


@pytest.mark.parametrize("function,module,layer", (
    ("virtblk_build", "virtio_blk", layers.DRIVER),
    ("nvme_irq", "nvme", layers.DRIVER),
    ("virtqueue_add_split", "vmlinux", layers.RING),
    ("virtqueue_add_split", "virtio_ring", layers.RING),
    ("dma_map_page_attrs", "vmlinux", layers.RING),
    ("handle_edge_irq", "vmlinux", layers.INTERRUPT),
    ("asm_common_interrupt", "vmlinux", layers.INTERRUPT),
    ("blk_mq_submit_bio", "vmlinux", layers.BLOCK),
    ("__kmalloc_noprof", "vmlinux", layers.KERNEL),
    ("_raw_spin_lock_irqsave", "vmlinux", layers.KERNEL),
))
def test_layers(function, module, layer):
    """Each function belongs to the layer of its module and name."""
    assert layers.of(function, module) == layer


def test_unknown_job():
    """An unknown JOB is an error that lists the known jobs."""
    with pytest.raises(UserError, match="JOB is 'x'; .* one of randread-4k-qd32"):
        jobs.find("x")


@pytest.mark.parametrize("variables,said", (
    ({"JOB": "fast"}, "JOB is 'fast'"),
    ({"DRIVER": "theirs"}, "'theirs'; it must be one of null_blk, nvme"),
    ({"DRIVER": "stock", "BASE": "HEAD"}, "unset one of them"),
    ({"IOS": "many"}, "IOS is 'many'"),
    ({"IOS": "10"}, "from 1024 to"),
    ({"FINE": "yes"}, "FINE is 'yes'"),
    ({"PACKED": "yes"}, "PACKED is 'yes'"),
    ({"RING": "100"}, "RING is '100'"),
    ({"KERNEL": "7.3"}, "choose 6.1, 6.12 or 7.3-perf"),
    ({"QUICK": "yes"}, "QUICK is 'yes'"),
))
def test_bench_bad_variables(variables, said):
    """make exits with 2 and names the variable whose value is wrong."""
    target = "bench" if "QUICK" in variables else "profile"
    result = subprocess.run(["make", "-C", TOP, target], text=True, timeout=60,
                            capture_output=True, env={**os.environ, **variables})
    assert result.returncode == 2
    assert said in result.stderr and "Traceback" not in result.stderr


# Goals, text and pages

def row(job, device, kernel, **others):
    """Return the figures of a job on a device."""
    sums = dict.fromkeys(layers.LAYERS, kernel / len(layers.LAYERS))
    return {"job": job, "device": device, "kernel": kernel, "user": 0,
            "locked": 0, "acquisitions": 2, "interrupts": 1, "kicks": 1,
            "allocations": 2, "layers": sums, "device_layers": 100,
            "restarting": 0, "functions": [["f", "vmlinux", kernel, 1]], **others}


def facts(ours=7560, stock=9250, **others):
    """Return the facts of a run of make bench."""
    job = "randread-4k-qd32"
    return {"kernel": "6.12.0", "qemu": "10.0.0", "driver": "v1", "ios": 1,
            "seconds": 60, "quick": True, "jobs": [
                row(job, "null_blk", 6800), row(job, "nvme", 8800),
                row(job, "stock", stock, locked=2000),
                row(job, "ours", ours, locked=160, **others)]}


def judged(facts):
    """Return whether each goal is met: {goal: met}."""
    return {goal["goal"].split(":")[0]: goal["met"]
            for goal in goals.judge(facts)}


@pytest.mark.parametrize("ours,met", ((7560, True), (7570, True), (7571, False)))
def test_goal_above_null_blk(ours, met):
    """The goal is met when the cost above null_blk is within its limit."""
    assert judged(facts(ours))["randread-4k-qd32"] == met


@pytest.mark.parametrize("others,goal", (
    ({"allocations": 3}, "memory allocations per I/O at most null_blk's"),
    ({"interrupts": 1.1}, "interrupts per I/O at most the in-tree driver's, in every "
                          "job"),
    ({"locked": 161}, "with the queue's lock held at most 0.08 of the in-tree driver's"),
))
def test_goals_that_are_missed(others, goal):
    """A figure above its limit misses the goal that it belongs to."""
    assert judged(facts())[goal]
    found = facts()
    found["jobs"][-1] |= others
    assert not judged(found)[goal]


def test_goal_by_the_clock_says_what_it_rests_on():
    """A goal by the clock shows the range of the ratios, and what it concludes."""
    clock = {"jobs": [{"job": "randread-4k-qd32", "options": {"iodepth": 32}, "iops": {
        "median": 1.06, "low": 0.9, "high": 1.3, "verdict": measure.TOO_WIDE}}]}
    (goal,) = [goal for goal in goals.judge(facts() | {"wall_clock": clock})
               if "IOPS" in goal["goal"]]
    assert goal["met"]
    assert goal["seen"] == "1.060 (0.90 to 1.30; too wide to conclude)"


def queue_rows(*costs):
    """Return rows of runs with several numbers of queues."""
    return [row("", "ours", kernel, queues=queues, restarting=restarting)
            for queues, kernel, restarting in costs]


@pytest.mark.parametrize("rows,met", (
    (((1, 8250, 0), (64, 8300, 0)), (True, True)),
    (((1, 8250, 10), (64, 8250, 30)), (False, True)),
    (((1, 8250, 10), (64, 8250, 15)), (False, True)),
    (((1, 8250, 0), (64, 8400, 0)), (True, False)),
))
def test_goals_of_many_queues(rows, met):
    """Restarts per interrupt and cost per I/O must be the same with many queues."""
    found = [goal["met"] for goal in goals.judge({**facts(),
                                                  "queues": queue_rows(*rows)})
             if "queue" in goal["goal"] and "lock" not in goal["goal"]]
    assert tuple(found) == met


def host_rows(kernel=4500, user=0, module=440, allocations=0):
    """Return the rows of vdpa_blk, and of a VDUSE device of 25,000 instructions."""
    own = {"device": "vdpa_blk", "job": "randread-4k-qd32-batch", "kernel": kernel,
           "user": user, "module": module, "allocations": allocations}
    return [own, own | {"device": "vduse", "kernel": 10000, "user": 15000,
                        "module": None}]


@pytest.mark.parametrize("changed,missed", (
    ({}, []),
    ({"kernel": 5001}, ["at most 5000 above null_blk",
                        "at most 0.2 of VDUSE's instructions"]),
    ({"module": 451}, ["at most 450 in the module"]),
    ({"allocations": 1}, ["no allocation"]),
    ({"user": 501}, ["at most 0.2 of VDUSE's instructions"])))
def test_goals_of_the_device(changed, missed):
    """Each goal of vdpa_blk is missed by a figure above its limit, and shown."""
    found = facts() | {"host": host_rows(**changed)}
    found["goals"] = goals.judge(found)
    wrong = [goal["goal"].rpartition(": ")[2] for goal in found["goals"]
             if not goal["met"] and goal["goal"].startswith("vdpa_blk")]
    assert wrong == missed
    assert "Through a device of the host" in charts.text(found)


def test_report_begins_with_the_headline():
    """Text and page begin with the whole kernel's cost of a read, then the driver's."""
    deps.need("plot")
    found = facts() | {"usual_ring": [row("randread-4k-qd32", "ours", 7704)]}
    found["goals"] = goals.judge(found)
    whole = ("7704 kernel instructions per 4 KiB read, 9250 with the in-tree driver "
             "(-17 %)")
    part = "The part above null_blk: 904 against 2450."
    assert charts.text(found).startswith(f"\n{whole}. {part}\n")
    page = charts.html_page(found)
    assert f'<h1 class="">{whole}</h1>\n<p class="why">{part}\n' in page
    assert page.index("Kernel instructions per I/O") < page.index("The part of driver")
    # Without the in-tree driver there is nothing to compare.
    found["jobs"] = [each for each in found["jobs"] if each["device"] != "stock"]
    assert charts.headline(found) == ""
    assert "goals met</h1>" in charts.html_page(found)


def test_bars_are_above_null_blk(monkeypatch):
    """Each bar has its value above null_blk, and the picture title, foot, headline."""
    seen = {}
    monkeypatch.setattr(charts, "plot", lambda script, lines, colours, **texts:
                        seen.update(texts, lines=lines))
    found = facts(ours=7700)
    found["jobs"] += [row("randread-4k-qd32-batch", device, kernel) for device, kernel
                      in (("null_blk", 5600), ("stock", 7000), ("ours", 5530))]
    found["usual_ring"] = [row("randread-4k-qd32", "ours", 7800)]
    charts.pictures(found)["cost"]()
    bars = seen["lines"][1:seen["lines"].index("END")]
    # The driver on its usual ring, where that was measured.
    assert [line.split()[0] + line.split()[3] for line in bars] == [
        '2450"+2450"', '2000"+2000"', '1000"+1000"', '1400"+1400"', '-70"-70"']
    places = [float(line.split()[1]) for line in bars]
    assert places == sorted(set(places))
    assert any("7800 kernel instructions" in line for line in seen["lines"])
    assert seen["title"] and "commit v1" in seen["foot"] and "TCG" in seen["foot"]


def test_report_of_an_interrupted_run():
    """A run that ended before null_blk was counted has a report, without the bars."""
    deps.need("plot")
    found = facts() | {"error": "interrupted"}
    found["jobs"] = [each for each in found["jobs"] if each["device"] != "null_blk"]
    found["goals"] = goals.judge(found)
    assert set(charts.pictures(found)) == {"breakdown"}
    assert "interrupted" in charts.html_page(found)


def test_every_picture_shows_title_and_foot():
    """Every gnuplot script of the tools shows the title and the foot line."""
    scripts = list((TOP / "tools").glob("*/*.gnuplot"))
    assert len(scripts) >= 5
    for script in scripts:
        text = script.read_text()
        for shown in ("title", "foot"):
            assert re.search(rf"^set label \d {shown} at", text, re.MULTILINE), script


def test_report_shows_missed_goal():
    """Text and page show the figures and the missed goal."""
    deps.need("plot")
    found = facts(ours=8300)
    found["goals"] = goals.judge(found)
    text = charts.text(found)
    assert "+1500" in text and "+2450" in text and "MISSED" in text
    page = charts.html_page(found)
    assert "+1500" in page and "goals met" in page and "$" not in page
    assert '<td class="fail">MISSED</td>' in page and '<td class="pass">met</td>' in page
    json.dumps(found)


def test_pictures():
    """make bench draws three PNG pictures."""
    deps.need("plot")
    found = facts()
    found["queues"] = [row("", device, 8000, queues=queues)
                       for device in ("ours", "stock") for queues in (1, 16)]
    drawn = charts.pictures(found)
    assert set(drawn) == {"cost", "queues", "breakdown"}
    for draw in drawn.values():
        assert draw().startswith(b"\x89PNG")
