# SPDX-License-Identifier: GPL-2.0
"""The verdict and the report of `make run`; no test here boots a guest."""

import copy
import re
import sys

import pytest

from vm import host, measure, queues, report, run, verdict
from vm.ui import UserError

# /proc/interrupts of Linux 6.12.
INTERRUPTS = """\
           CPU0       CPU1       CPU2       CPU3
  0:        107          0          0          0   IO-APIC   2-edge      timer
 24:          0          0          0          0  PCI-MSIX-0000:00:10.0   0-edge      PCIe PME, aerdrv
 39:          0          0          0          0  PCI-MSIX-0000:01:00.0   0-edge      virtio2-config
 40:        678          0          0          0  PCI-MSIX-0000:01:00.0   1-edge      virtio2-req.0
 41:          0        611          0          1  PCI-MSIX-0000:01:00.0   2-edge      virtio2-req.1
 50:          0          0         13          0  PCI-MSIX-0000:0b:00.0   1-edge      virtio22-req.0
NMI:          0          0          0          0   Non-maskable interrupts
ERR:          0
"""


def test_interrupts_of_a_disk():
    """disk_irqs() returns number, vector and counts of each queue's interrupt."""
    found = queues.disk_irqs(queues.parse_interrupts(INTERRUPTS), "virtio2")
    assert {index: (irq.number, irq.vector, irq.counts)
            for index, irq in found.items()} == {
        0: (40, 1, {0: 678, 1: 0, 2: 0, 3: 0}),
        1: (41, 2, {0: 0, 1: 611, 2: 0, 3: 1})}


def test_interrupts_other_than_msi_have_no_vector():
    """Only MSI interrupts have a vector."""
    timer, bridge, *_ = queues.parse_interrupts(INTERRUPTS)
    assert (timer.name, timer.vector) == ("timer", None)
    assert (bridge.name, bridge.vector) == ("PCIe PME, aerdrv", 0)


@pytest.mark.parametrize("line, vector", [
    # On 6.1 the number includes the device's address.
    (" 27:          0          5   PCI-MSI 524289-edge      virtio0-req.0", 1),
    ("127: 4294967295 4294967295  IR-PCI-MSIX-0000:01:00.0    12-edge   "
     "virtio0-req.0", 12),
    ("  5:  1  2  PCI-MSIX-0000:01:00.0   3-edge  virtio0-req.0  ", 3),
    ("  5:  1  2  IO-APIC  10-fasteoi   virtio0-req.0", None),
])
def test_spacings_of_interrupts(line, vector):
    """The parser accepts the spacing of each kernel's /proc/interrupts."""
    (irq,) = queues.parse_interrupts(f"     CPU0   CPU1\n{line}\n")
    assert (irq.name.strip(), irq.vector) == ("virtio0-req.0", vector)
    assert len(irq.counts) == 2


def test_interrupts_with_a_cpu_offline():
    """Counts belong to the CPUs that the heading names."""
    (irq,) = queues.parse_interrupts(
        "   CPU0  CPU2\n 40:  7  9  PCI-MSIX-0000:01:00.0  1-edge  virtio0-req.0\n")
    assert irq.counts == {0: 7, 2: 9}


@pytest.mark.parametrize("text, cpus, short", [
    ("0-3", [0, 1, 2, 3], "0-3"), ("0, 1, 2, 3", [0, 1, 2, 3], "0-3"),
    ("3,0-1", [0, 1, 3], "0-1,3"), ("0,2,4-5,64", [0, 2, 4, 5, 64], "0,2,4-5,64"),
    ("7\n", [7], "7"), ("", [], ""),
])
def test_cpu_lists(text, cpus, short):
    """CPU lists are parsed, and formatted with ranges."""
    assert queues.parse_cpus(text) == cpus
    assert queues.format_cpus(cpus) == short


def assembled(smp="0-1", cpus="0, 1", log="", **files):
    """Return a queue as assemble() makes it from files and a log."""
    irq = queues.Irq(40, {0: 0, 1: 0}, "PCI-MSIX", 1, "virtio2-req.0")
    (queue,) = queues.assemble("vda", {
        **{f"/sys/block/vda/mq/0/cpu{cpu}": "" for cpu in queues.parse_cpus(cpus)},
        "/sys/block/vda/mq/0/nr_tags": "85",
        "/proc/irq/40/smp_affinity_list": smp,
        "/proc/irq/40/effective_affinity_list": "1", **files}, {0: irq}, log)
    return queue


def test_affinity_equal():
    """A vector's affinity equals its queue's CPUs in any notation."""
    assert assembled().affinity_equal
    assert assembled(smp="0,1").affinity_equal
    assert assembled().effective == [1]


@pytest.mark.parametrize("smp", ["0", "0-2", "2-3", ""])
def test_affinity_not_equal(smp):
    """A vector with fewer, more or other CPUs than its queue is not equal."""
    assert not assembled(smp=smp).affinity_equal


def test_queues_are_in_the_order_of_their_numbers():
    """Queues are sorted by number, and are those of this disk only."""
    files = {}
    for index in (0, 10, 2):
        files |= {f"/sys/block/vda/mq/{index}/cpu{index}": "",
                  f"/sys/block/vda/mq/{index}/nr_tags": "64",
                  f"/sys/block/vdaa/mq/{index}/cpu99": ""}
    found = queues.assemble("vda", files, {}, "")
    assert [queue.index for queue in found] == [0, 2, 10]
    assert not any(queue.affinity_equal for queue in found)


def test_ring_and_type_from_the_last_word_of_the_driver():
    """The driver's last message gives ring, depth and type; debugfs wins."""
    log = ("virtio_blk virtio2: [vda] 4/0/0 default/read/poll queues, ring 128, depth 9\n"
           "virtio_blk virtio3: [vdb] 1/0/0 default/read/poll queues, ring 64, depth 9\n"
           "virtio_blk virtio2: [vda] 0/0/1 default/read/poll queues, ring 256, depth 85\n")
    queue = assembled(log=log)
    assert (queue.ring, queue.depth, queue.type) == (256, 85, "poll")
    assert assembled().ring is None
    file = {"/sys/kernel/debug/block/vda/hctx0/type": "default"}
    assert assembled(log=log, **file).type == "default"


def test_where_interrupts_went():
    """Interrupts count per queue, and those on CPUs of other queues as elsewhere."""
    disk = {"queues": [{"index": 0, "cpus": [0, 1]}, {"index": 1, "cpus": [2]}]}
    quiet = {0: {0: 0, 1: 9, 2: 0}, 1: {0: 0, 1: 0, 2: 0}}
    stray = {0: {0: 1, 1: 0, 2: 4}, 1: {0: 0, 1: 0, 2: 3}}
    assert measure.where_interrupts_went(disk, [quiet]) == {
        "queues": 1, "elsewhere": 0}
    assert measure.where_interrupts_went(disk, [quiet, stray]) == {
        "queues": 2, "elsewhere": 4}


def figures(iops, interrupts=0.5, kicks=None):
    """Return the figures of a run of a job."""
    return {"iops": iops, "interrupts_per_io": interrupts, "kicks_per_io": kicks}


def test_ratios_are_of_rounds_and_their_median():
    """A ratio is of one round; the result has their median, lowest and highest."""
    rounds = [{"ours": figures(ours), "stock": figures(stock)}
              for ours, stock in ((100, 50), (30, 30), (10, 20))]
    found = measure.compare(rounds, {"ours": figures(1, kicks=0.25),
                                     "stock": figures(1)})
    assert found["ratios"] == [2, 1, 0.5]
    assert (found["low"], found["median"], found["high"]) == (0.5, 1, 2)
    assert found["ours"]["kicks_per_io"] == 0.25
    assert found["stock"]["kicks_per_io"] is None


def fio_report(**job):
    """Return a report of fio's."""
    nothing = {"total_ios": 0, "io_bytes": 0, "iops": 0.0}
    done = {"total_ios": 8, "io_bytes": 32768, "iops": 7.6}
    return {"jobs": [{"error": 0, "read": done, "write": nothing,
                      "trim": nothing, **job}]}


def test_what_fio_reports():
    """The outcome has the errors, and I/Os, bytes and IOPS of each direction used."""
    assert measure.outcome(fio_report(), "") == {
        "errors": 0, "read": {"ios": 8, "bytes": 32768, "iops": 8}}


def test_verify_errors_that_fio_reports():
    """The outcome has the number of verify errors and fio's output."""
    found = measure.outcome(fio_report(error=84, total_err=3), "bad header\n")
    assert (found["errors"], found["said"]) == (3, "bad header")


def test_an_error_that_ended_fio_is_not_taken_for_a_verify_error():
    """An I/O error of fio raises ValueError."""
    with pytest.raises(ValueError):
        measure.outcome(fio_report(error=5, total_err=0), "Input/output error")


def disk(name, count):
    """Return the facts of a disk."""
    return {"name": name, "virtio": "virtio2", "affinities_equal": count,
            "queues": [{"index": index, "type": "default", "cpus": [index],
                        "vector": index + 1, "irq": 40 + index,
                        "affinity": [index], "effective": [index], "ring": 256,
                        "depth": 256, "affinity_equal": True}
                       for index in range(count)]}


def good():
    """Return the facts of a run that passes."""
    done = {"ios": 16384, "bytes": 64 << 20, "iops": 1000}
    cleared = {"inside": "zeroes", "around": "the pattern",
               "image_inside": "no data", "image_around": "data"}
    side = {"iops": [1000], "iops_median": 1000, "interrupts_per_io": 0.1,
            "kicks_per_io": 0.2}
    return {
        "phases": [{"name": "booting", "seconds": 8.0}], "seconds": 150.0,
        "versions": {"kernel": "6.12", "qemu": "10.0", "accelerator": "tcg",
                     "driver": "abc1234"}, "wall_clock": report.WALL_CLOCK["tcg"],
        "queues": 4, "affinities_equal": 4, "verify_errors": 0,
        "disks": {"null": disk("vda", 4), "files": disk("vdb", 4)},
        "one_queue": disk("vda", 1),
        "write": {"errors": 0, "read": dict(done), "write": dict(done)},
        "reread": {"errors": 0, "read": dict(done)},
        "fsck": {"status": 0, "said": ""},
        "image_check": {"status": 0, "said": ""},
        "clearing": {name: dict(cleared) for name in
                     ("discard", "write zeroes", "write zeroes, may unmap")},
        "interrupts": {"queues": 4, "elsewhere": 0},
        "drivers": {"ours": "out of tree", "stock": "in tree"},
        "comparison": [{"job": job, "queues": count, "ratios": [1.5, 0.5],
                        "median": 1.0, "low": 0.5, "high": 1.5,
                        "ours": side, "stock": side}
                       for job in measure.JOBS for count in (1, 4)],
        "kernel_log": "no complaint"}


def judged(facts):
    """Judge facts and return them."""
    verdict.judge(facts)
    return facts


def test_a_good_run_passes():
    """A run without any wrong value passes."""
    facts = judged(good())
    assert facts["verdict"] == "PASS"
    assert all(check["passed"] for check in facts["checks"])


@pytest.mark.parametrize("path, value", [
    (["queues"], 3), (["queues"], None), (["affinities_equal"], 3),
    (["verify_errors"], 1), (["verify_errors"], False),
    (["disks", "files", "affinities_equal"], 0),
    (["one_queue", "affinities_equal"], 0),
    (["reread", "read", "bytes"], 0),
    (["fsck", "status"], 4), (["image_check", "status"], 3),
    (["clearing", "discard", "inside"], "the pattern"),
    (["clearing", "write zeroes", "around"], "the pattern and zeroes"),
    (["clearing", "write zeroes, may unmap", "image_inside"], "data"),
    (["interrupts", "queues"], 3), (["interrupts", "elsewhere"], 1),
    (["drivers", "ours"], "in tree"), (["drivers", "stock"], "out of tree"),
    (["kernel_log"], "BUG"),
])
def test_wrong_value_fails(path, value):
    """One wrong value fails one check, and is in the reason."""
    facts = good()
    place = facts
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    judged(facts)
    assert facts["verdict"] == "FAIL"
    assert f"seen {value}" in facts["why"]
    assert sum(not check["passed"] for check in facts["checks"]) == 1


def test_a_verification_that_stopped_short_fails():
    """A run that verified too few bytes fails."""
    facts = good()
    facts["write"]["read"]["bytes"] -= 4096
    judged(facts)
    assert facts["why"] == "MiB written and verified: expected 64, seen 63"


@pytest.mark.parametrize("key", sorted(
    set(good()) - {"phases", "seconds", "versions", "wall_clock", "comparison"}))
def test_missing_fact_fails(key):
    """A missing fact fails, and its check says that it was not reached."""
    facts = good()
    del facts[key]
    judged(facts)
    assert facts["verdict"] == "FAIL"
    assert any(check["seen"] == verdict.NOT_REACHED for check in facts["checks"])


def test_an_error_fails_and_is_the_reason():
    """A run with an error fails, and the error is the reason."""
    facts = judged({**good(), "error": "QEMU exited with status -9"})
    assert (facts["verdict"], facts["why"]) == ("FAIL", "QEMU exited with status -9")


def test_a_run_that_never_began_has_a_page():
    """A run that fails before its first phase still has a page and a verdict."""
    facts = judged({"phases": [], "seconds": 0.1, "error": "missing: <gnuplot>"})
    page = report.html_page(facts)
    assert "FAIL" in page and "missing: &lt;gnuplot&gt;" in page
    assert report.verdict_text(facts) == (
        f"\n{len(verdict.CHECKS)} of {len(verdict.CHECKS)} checks were not "
        "reached.\n\nFAIL: missing: <gnuplot>\n")


def test_tables_tell_which_affinity_is_off():
    """The table shows which queue's affinity differs, or has no interrupt."""
    facts = good()
    facts["disks"]["null"] = copy.deepcopy(facts["disks"]["null"])
    queue = facts["disks"]["null"]["queues"][2]
    queue |= {"affinity": [0, 1, 3], "affinity_equal": False}
    text = report.queue_tables(facts)
    assert "no, it is 0-1,3" in text
    queue |= {"affinity": None, "effective": None, "irq": None, "vector": None}
    assert "no IRQ of its own" in report.queue_tables(facts)


def test_a_figure_that_is_not_known_is_called_so():
    """A missing number of kicks is shown as "not known"."""
    facts = good()
    assert "0.200 / 0.200" in report.comparison_table(facts)
    for row in facts["comparison"]:
        row["ours"] = {**row["ours"], "kicks_per_io": None}
    assert "not known" in report.comparison_table(facts)


@pytest.mark.parametrize("low, high, said", (
    (1.01, 1.5, "faster"), (0.5, 0.99, "slower"), (0.9, 1.5, measure.TOO_WIDE),
    (1.0, 1.5, measure.TOO_WIDE), (0.5, 1.0, measure.TOO_WIDE)))
def test_conclusion_from_a_range(low, high, said):
    """A range of ratios with 1 in it concludes nothing, in table, page and picture."""
    assert measure.conclusion(low, high) == said
    facts = judged(good())
    facts["comparison"] = [{**row, "low": low, "high": high, "ratios": [low, high]}
                           for row in facts["comparison"]]
    assert report.comparison_table(facts).count(said) == len(facts["comparison"])
    host.need("plot")
    assert report.html_page(facts).count(f">{said}</td>") == len(facts["comparison"])


def test_page_explains_itself():
    """The page begins with the verdict, colours marks, and explains each column."""
    host.need("plot")
    facts = judged({**good(), "verify_errors": 1})
    page = report.html_page(facts)
    assert page.index('<h1 class="fail">FAIL</h1>') < page.index("<h2>")
    assert '<td class="fail">FAIL</td>' in page and '<td class="pass">ok</td>' in page
    assert "The median of the ratios is not the ratio of the medians" in page
    tables = re.findall(r"<thead>(.*?)</thead>.*?</table></div>(<dl.*?</dl>)?", page)
    assert len(tables) == 6
    # The table of versions has no heads.
    for heads, notes in tables[:-1]:
        named = [head for head in re.findall(r"<th>(.*?)</th>", heads) if head]
        assert named == re.findall(r"<dt>(.+?)</dt>", notes)


def test_picture_says_what_was_measured(monkeypatch):
    """The picture has the medians, a title, and a foot line with all versions."""
    seen = {}
    monkeypatch.setattr(report, "draw", lambda script, lines, colours, **texts:
                        seen.update(texts, lines="\n".join(lines)))
    report.plot(judged(good()))
    assert '1.0 1.00 "1 queue" "too wide to conclude"' in seen["lines"]
    assert "our driver" in seen["title"]
    assert seen["foot"] == ("Linux 6.12  ·  QEMU 10.0  ·  TCG  ·  commit abc1234  ·  "
                            "2 rounds")


def test_another_kernel_is_refused_before_a_report_is_touched(tmp_path, monkeypatch):
    """make run refuses a KERNEL other than 6.12, and keeps the last run's report."""
    (tmp_path / "report.html").write_text("PASS")
    monkeypatch.setattr(run, "_OUT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["vm.run"])
    monkeypatch.setenv("KERNEL", "5.4")
    with pytest.raises(UserError, match="boots kernel 6.12 only, and KERNEL is 5.4"):
        run.main()
    assert (tmp_path / "report.html").read_text() == "PASS"
