# SPDX-License-Identifier: GPL-2.0
"""The verdict and the report of `make run`; no test here boots a guest."""

import json
import re
import sys
from dataclasses import replace

import pytest

from common import measure, queues
from common.measure import Arrivals, Comparison, Direction, Figures, Outcome, Side
from common.queues import DiskQueues, Queue
from host import deps
from host.ui import UserError
from run import report, run, verdict
from run.run_record import Content, Disks, Drivers, Ended, Phase, Row, Run, Versions
from vm.errors import GuestError

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
    found = disk("vda", 2, cpus=([0, 1], [2]))
    quiet = {0: {0: 0, 1: 9, 2: 0}, 1: {0: 0, 1: 0, 2: 0}}
    stray = {0: {0: 1, 1: 0, 2: 4}, 1: {0: 0, 1: 0, 2: 3}}
    assert measure.where_interrupts_went(found, [quiet]) == Arrivals(
        queues=1, elsewhere=0)
    assert measure.where_interrupts_went(found, [quiet, stray]) == Arrivals(
        queues=2, elsewhere=4)


def figures(iops, interrupts=0.5, kicks=None):
    """Return the figures of a run of a job."""
    return Figures(iops, interrupts, kicks)


def test_ratios_are_of_rounds_and_their_median():
    """A ratio is of one round; the result has their median, lowest and highest."""
    rounds = [{"ours": figures(ours), "stock": figures(stock)}
              for ours, stock in ((100, 50), (30, 30), (10, 20))]
    found = measure.compare(rounds, {"ours": figures(1, kicks=0.25),
                                     "stock": figures(1)})
    assert found.ratios == [2, 1, 0.5]
    assert (found.low, found.median, found.high) == (0.5, 1, 2)
    assert found.ours.kicks_per_io == 0.25
    assert found.stock.kicks_per_io is None


def fio_report(**job):
    """Return a report of fio's."""
    nothing = {"total_ios": 0, "io_bytes": 0, "iops": 0.0}
    done = {"total_ios": 8, "io_bytes": 32768, "iops": 7.6}
    return {"jobs": [{"error": 0, "read": done, "write": nothing,
                      "trim": nothing, **job}]}


def test_what_fio_reports():
    """The outcome has the errors, and I/Os, bytes and IOPS of each direction used."""
    found = measure.outcome(fio_report(), "")
    assert found == Outcome(0, read=Direction(ios=8, bytes=32768, iops=8))
    assert found.as_dict() == {
        "errors": 0, "read": {"ios": 8, "bytes": 32768, "iops": 8}}


def test_verify_errors_that_fio_reports():
    """The outcome has the number of verify errors and fio's output."""
    found = measure.outcome(fio_report(error=84, total_err=3), "bad header\n")
    assert (found.errors, found.said) == (3, "bad header")


def test_an_error_that_ended_fio_is_not_taken_for_a_verify_error():
    """An I/O error of fio raises ValueError."""
    with pytest.raises(ValueError):
        measure.outcome(fio_report(error=5, total_err=0), "Input/output error")


def disk(name, count, equal=None, cpus=None):
    """Return the queues of a disk; equal: how many affinities are, all by default."""
    return DiskQueues(name, "virtio2", [
        Queue(index=index, type="default", cpus=cpus[index] if cpus else [index],
              vector=index + 1, irq=40 + index,
              affinity=[index] if equal is None or index < equal else [9],
              effective=[index], ring=256, depth=256)
        for index in range(count)])


CLEARED = ("discard", "write zeroes", "write zeroes, may unmap")


def cleared(inside, around, **changed):
    """Return the content for each command; changed: of a command, by its name."""
    return {name: replace(Content(inside, around), **changed.get(name, {}))
            for name in CLEARED}


def read(**changed):
    """Return the clearing of a run that passes, with these changes."""
    return cleared("zeroes", "the pattern", **changed)


def held(**changed):
    """Return what the qcow2 file of a run that passes holds, with these changes."""
    return cleared("no data", "data", **changed)


def row(job, count, **changed):
    """Return a row of the comparison; changed: of the figures."""
    side = Side(iops=[1000], iops_median=1000, interrupts_per_io=0.1, kicks_per_io=0.2)
    return Row(job, count, replace(
        Comparison(ratios=[1.5, 0.5], median=1.0, low=0.5, high=1.5, ours=side,
                   stock=side), **changed))


def rows(**changed):
    """Return the comparison of a run; changed: of each row's figures."""
    return [row(job, count, **changed) for job in measure.JOBS for count in (1, 4)]


DONE = Direction(ios=16384, bytes=64 << 20, iops=1000)
VERSIONS = Versions(kernel="6.12", qemu="10.0", accelerator="tcg", driver="abc1234",
                    module_sha256="00ff" * 16)


def good(**changed):
    """Return a run that passes."""
    return replace(Run(
        phases=[Phase("booting", 8.0)], versions=VERSIONS, one_thread=False,
        fio="fio-3.33", disks=Disks(null=disk("vda", 4), files=disk("vdb", 4)),
        one_queue=disk("vda", 1), queues=4, affinities_equal=4,
        write=Outcome(0, read=DONE, write=DONE), fsck=Ended(0, ""), clearing=read(),
        reread=Outcome(0, read=DONE), verify_errors=0,
        drivers=Drivers(ours="out of tree", stock="in tree"), comparison=rows(),
        interrupts=Arrivals(queues=4, elsewhere=0), kernel_log="no complaint",
        image_check=Ended(0, ""), image=held(), seconds=150.0), **changed)


def test_a_good_run_passes():
    """A run without any wrong value passes."""
    judged = verdict.judge(good())
    assert judged.word == "PASS"
    assert all(check.passed for check in judged.checks)


@pytest.mark.parametrize("changed, seen", [
    ({"queues": 3}, 3), ({"queues": "4"}, 4), ({"affinities_equal": 3}, 3),
    ({"verify_errors": 1}, 1), ({"verify_errors": False}, False),
    ({"disks": Disks(null=disk("vda", 4), files=disk("vdb", 4, equal=0))}, 0),
    ({"disks": Disks(null=disk("vda", 4), files=disk("vdb", 5, equal=4))}, 5),
    ({"one_queue": disk("vda", 1, equal=0)}, 0),
    ({"reread": Outcome(0, read=replace(DONE, bytes=0))}, 0),
    ({"fsck": Ended(4, "")}, 4), ({"image_check": Ended(3, "")}, 3),
    ({"clearing": read(**{"discard": {"inside": "the pattern"}})}, "the pattern"),
    ({"clearing": read(**{"write zeroes": {"around": "the pattern and zeroes"}})},
     "the pattern and zeroes"),
    ({"image": held(**{"write zeroes, may unmap": {"inside": "data"}})}, "data"),
    ({"image": held(**{"discard": {"around": "no data"}})}, "no data"),
    ({"interrupts": Arrivals(queues=3, elsewhere=0)}, 3),
    ({"interrupts": Arrivals(queues=4, elsewhere=1)}, 1),
    ({"drivers": Drivers(ours="in tree", stock="in tree")}, "in tree"),
    ({"drivers": Drivers(ours="out of tree", stock="out of tree")}, "out of tree"),
    ({"kernel_log": "BUG"}, "BUG"),
])
def test_wrong_value_fails(changed, seen):
    """One wrong value fails one check, and is in the reason."""
    judged = verdict.judge(good(**changed))
    assert judged.word == "FAIL"
    assert f"seen {seen}" in judged.why
    assert sum(not check.passed for check in judged.checks) == 1


def test_a_verification_that_stopped_short_fails():
    """A run that verified too few bytes fails."""
    short = replace(DONE, bytes=DONE.bytes - 4096)
    judged = verdict.judge(good(write=Outcome(0, read=short, write=DONE)))
    assert judged.why == "MiB written and verified: expected 64, seen 63"


@pytest.mark.parametrize("name", (
    "queues", "affinities_equal", "verify_errors", "disks", "one_queue", "write",
    "reread", "fsck", "image_check", "clearing", "image", "interrupts", "drivers",
    "kernel_log"))
def test_missing_fact_fails(name):
    """A fact that was not reached fails, its check says so, and the report has none."""
    found = good(**{name: None})
    judged = verdict.judge(found)
    assert judged.word == "FAIL"
    assert any(check.seen == verdict.NOT_REACHED for check in judged.checks)
    assert name not in found.as_dict()


@pytest.mark.parametrize("changed", (
    {"write": Outcome(0, write=DONE)}, {"reread": Outcome(0)},
    {"drivers": Drivers(stock="in tree")}))
def test_part_of_a_fact_that_is_missing_fails(changed):
    """A record without the value of a check fails the check as not reached."""
    judged = verdict.judge(good(**changed))
    assert judged.why == "1 checks were not reached"


def test_an_error_fails_and_is_the_reason():
    """A run with an error fails, and the error is the reason."""
    judged = verdict.judge(good(error="QEMU exited with status -9"))
    assert (judged.word, judged.why) == ("FAIL", "QEMU exited with status -9")


def test_a_run_that_never_began_has_a_page():
    """A run that fails before its first phase still has a page and a verdict."""
    found = Run(seconds=0.1, error="missing: <gnuplot>")
    judged = verdict.judge(found)
    page = report.html_page(found, judged)
    assert "FAIL" in page and "missing: &lt;gnuplot&gt;" in page
    count = len(verdict.checks(found))
    assert report.verdict_text(judged) == (
        f"\n{count} of {count} checks were not "
        "reached.\n\nFAIL: missing: <gnuplot>\n")


def test_tables_tell_which_affinity_is_off():
    """The table shows which queue's affinity differs, or has no interrupt."""
    def tables(**changed):
        null = disk("vda", 4)
        null.queues[2] = replace(null.queues[2], **changed)
        return report.queue_tables(Disks(null=null, files=disk("vdb", 4)),
                                   disk("vda", 1))

    assert "no, it is 0-1,3" in tables(affinity=[0, 1, 3])
    assert "no IRQ of its own" in tables(affinity=None, effective=None, irq=None,
                                         vector=None)


def test_a_figure_that_is_not_known_is_called_so():
    """A missing number of kicks is shown as "not known"."""
    assert "0.200 / 0.200" in report.comparison_table(rows(), "tcg")
    unknown = replace(rows()[0].figures.ours, kicks_per_io=None)
    assert "not known" in report.comparison_table(rows(ours=unknown), "tcg")


@pytest.mark.parametrize("low, high, said", (
    (1.01, 1.5, "faster"), (0.5, 0.99, "slower"), (0.9, 1.5, measure.TOO_WIDE),
    (1.0, 1.5, measure.TOO_WIDE), (0.5, 1.0, measure.TOO_WIDE)))
def test_conclusion_from_a_range(low, high, said):
    """A range of ratios with 1 in it concludes nothing, in table, page and picture."""
    assert measure.conclusion(low, high) == said
    found = rows(low=low, high=high, ratios=[low, high])
    assert report.comparison_table(found, "tcg").count(said) == len(found)
    deps.need("plot")
    page = report.html_page(good(comparison=found), verdict.judge(good()))
    assert page.count(f">{said}</td>") == len(found)


def test_page_explains_itself():
    """The page begins with the verdict, colours marks, and explains each column."""
    deps.need("plot")
    found = good(verify_errors=1)
    page = report.html_page(found, verdict.judge(found))
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
    report.plot(rows(), VERSIONS)
    assert '1.0 1.00 "1 queue" "too wide to conclude"' in seen["lines"]
    assert "our driver" in seen["title"]
    assert seen["foot"] == ("Linux 6.12  ·  QEMU 10.0  ·  TCG  ·  commit abc1234  ·  "
                            "2 rounds")


def test_another_kernel_is_refused_before_a_report_is_touched(tmp_path, monkeypatch):
    """make run refuses a KERNEL other than 6.12, and keeps the last run's report."""
    (tmp_path / "report.html").write_text("PASS")
    monkeypatch.setattr(run, "_OUT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["run.run"])
    monkeypatch.setenv("KERNEL", "5.4")
    with pytest.raises(UserError, match="boots kernel 6.12 only, and KERNEL is 5.4"):
        run.main()
    assert (tmp_path / "report.html").read_text() == "PASS"


def written(tmp_path, monkeypatch, found):
    """Return what write_report() writes of a run, by file, without the picture."""
    monkeypatch.setattr(run, "_OUT", tmp_path)
    monkeypatch.setattr(run, "_TOP", tmp_path)
    monkeypatch.setattr(report, "draw", lambda *words, **texts: b"\x89PNG" + bytes(28))
    run.write_report(found, verdict.judge(found))
    return {path.name: path.read_bytes() for path in tmp_path.iterdir()}


def test_report_of_a_good_run_has_each_fact(tmp_path, monkeypatch):
    """report.json has the names and the form that run.run_record describes."""
    files = written(tmp_path, monkeypatch, good())
    assert set(files) == {"report.json", "report.html", "ratios.png"}
    found = json.loads(files["report.json"])
    assert list(found) == [
        "format", "phases", "versions", "wall_clock", "one_thread", "disks",
        "one_queue", "queues", "affinities_equal", "write", "fsck", "clearing",
        "reread", "verify_errors", "drivers", "comparison", "interrupts",
        "kernel_log", "image_check", "seconds", "checks", "verdict", "why"]
    assert found["versions"] == {
        "kernel": "6.12", "qemu": "10.0", "accelerator": "tcg", "driver": "abc1234",
        "module_sha256": "00ff" * 16, "fio": "fio-3.33"}
    assert found["wall_clock"] == measure.WALL_CLOCK["tcg"]
    assert found["disks"]["null"]["affinities_equal"] == 4
    assert found["disks"]["files"]["queues"][3] == {
        "index": 3, "type": "default", "cpus": [3], "vector": 4, "irq": 43,
        "affinity": [3], "effective": [3], "ring": 256, "depth": 256,
        "affinity_equal": True}
    assert found["reread"] == {
        "errors": 0, "read": {"ios": 16384, "bytes": 64 << 20, "iops": 1000}}
    assert found["clearing"]["write zeroes, may unmap"] == {
        "inside": "zeroes", "around": "the pattern", "image_inside": "no data",
        "image_around": "data"}
    side = {"iops": [1000], "iops_median": 1000, "interrupts_per_io": 0.1,
            "kicks_per_io": 0.2}
    assert found["comparison"][1] == {
        "job": "randread", "queues": 4, "ratios": [1.5, 0.5], "median": 1.0,
        "low": 0.5, "high": 1.5, "ours": side, "stock": side}
    assert found["interrupts"] == {"queues": 4, "elsewhere": 0}
    assert found["checks"][0] == {"name": "null disk: queues", "expected": 4,
                                  "seen": 4, "passed": True}


def test_report_of_a_run_that_failed_has_what_it_reached(tmp_path, monkeypatch):
    """A run that ends within a stage has a report of all that it has found so far."""
    def fail(found):
        found.versions = replace(VERSIONS, driver=None)
        found.drivers = Drivers(stock="in tree")
        found.clearing = read()
        raise GuestError("the guest is lost")

    found = Run()
    found.error, status = run.attempt(lambda: fail(found))
    files = written(tmp_path, monkeypatch, found)
    assert status == 1 and set(files) == {"report.json", "report.html"}
    facts = json.loads(files["report.json"])
    assert list(facts) == ["format", "phases", "versions", "wall_clock", "clearing",
                           "drivers", "error", "seconds", "checks", "verdict", "why"]
    assert facts["versions"]["driver"] is None and "fio" not in facts["versions"]
    assert facts["drivers"] == {"stock": "in tree"}
    assert facts["clearing"]["discard"] == {"inside": "zeroes",
                                            "around": "the pattern"}
    assert (facts["verdict"], facts["why"]) == ("FAIL", "the guest is lost")
    assert sum(check["passed"] for check in facts["checks"]) == 7
