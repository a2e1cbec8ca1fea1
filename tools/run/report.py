# SPDX-License-Identifier: GPL-2.0
"""The tables, the plot and the HTML page of `make run`.

They are made from the record of the run, see run.run_record, and its verdict.
"""

import functools
import html
import textwrap
from collections.abc import Sequence
from pathlib import Path

from common.measure import WALL_CLOCK, conclusion
from common.queues import DiskQueues, Queue, format_cpus
from host.page import LIGHT, figure, foot_line, html_table, page, quoted, text_table
from host.page import plot as draw

from .run_record import Disks, Row, Run, Versions
from .verdict import NOT_REACHED, Verdict

JOB_NAMES = {"randread": "random read", "randwrite": "random write"}
_HERE = Path(__file__).parent

_Table = tuple[list[str], list[list[str]]]


# Tables: a header and rows of strings

def _queue_table(disk: DiskQueues) -> _Table:
    header = ["queue", "type", "CPUs", "vector", "IRQ", "effective affinity",
              "ring", "depth", "affinity = CPUs"]
    rows = [[_number(queue.index), queue.type, format_cpus(queue.cpus),
             _number(queue.vector), _number(queue.irq),
             "-" if queue.effective is None else format_cpus(queue.effective),
             _number(queue.ring), _number(queue.depth),
             _equality(queue)] for queue in disk.queues]
    return header, rows


def _equality(queue: Queue) -> str:
    if queue.affinity is None:
        return "no IRQ of its own"
    return "yes" if queue.affinity_equal else \
        f"no, it is {format_cpus(queue.affinity)}"


def _number(value: int | None) -> str:
    return "-" if value is None else str(value)


def _comparison_table(comparison: Sequence[Row]) -> _Table:
    header = ["job", "queues", "our driver is", "IOPS ratio", "range", "IOPS",
              "interrupts per I/O", "kicks per I/O"]
    return header, [_comparison_row(row) for row in comparison]


def _comparison_row(row: Row) -> list[str]:
    found, ours, stock = row.figures, row.figures.ours, row.figures.stock
    return [JOB_NAMES[row.job], str(row.queues),
            conclusion(found.low, found.high), f"{found.median:.2f}",
            f"{found.low:.2f} to {found.high:.2f}",
            _both(ours.iops_median, stock.iops_median, 0),
            _both(ours.interrupts_per_io, stock.interrupts_per_io, 3),
            _both(ours.kicks_per_io, stock.kicks_per_io, 3)]


def _both(ours: float | None, stock: float | None, digits: int) -> str:
    """Return a figure of our driver and of the in-tree driver."""
    if ours is None or stock is None:
        return "not known"
    return f"{ours:.{digits}f} / {stock:.{digits}f}"


def _check_table(judged: Verdict) -> _Table:
    """Return the table of the checks that the run reached."""
    return ["", "check", "expected", "seen"], [
        ["ok" if check.passed else "FAIL", check.name,
         str(check.expected), str(check.seen)]
        for check in judged.checks if check.seen != NOT_REACHED]


def _missing_words(judged: Verdict) -> str:
    """Return a sentence with the number of checks not reached, "" if there are none."""
    missing = sum(check.seen == NOT_REACHED for check in judged.checks)
    return f"{missing} of {len(judged.checks)} checks were not reached." \
        if missing else ""


def _rounds(comparison: Sequence[Row]) -> int:
    return len(comparison[0].figures.ratios)


def _comparison_words(comparison: Sequence[Row]) -> str:
    return ("Our driver / in-tree driver. 4 KiB I/O on the null disk, 4 jobs of depth "
            f"32 pinned to CPUs 0-3. Medians of {_rounds(comparison)} rounds in one "
            "boot, in which the drivers take turns. The median of the ratios is not "
            "the ratio of the medians: a ratio compares two runs of one round, and the "
            "medians of IOPS may come from different rounds.")


_QUEUE_COLUMNS = {
    "queue": "The number of the virtqueue, and of the hardware context in sysfs.",
    "type": "The requests that blk-mq sends to it: default, or those that are polled.",
    "CPUs": "The CPUs whose requests go to this queue.",
    "vector": "The MSI-X vector of the device that the queue's interrupt uses.",
    "IRQ": "The number of that interrupt in /proc/interrupts.",
    "effective affinity": "The CPU on which the interrupt arrives.",
    "ring": "The number of descriptors of the virtqueue.",
    "depth": "How many requests the queue can have in flight.",
    "affinity = CPUs": "Whether the interrupt may arrive on the queue's CPUs only.",
}
_COMPARISON_COLUMNS = {
    "job": "What each of the 4 jobs does.",
    "queues": "The number of queues that the driver uses (num_request_queues).",
    "our driver is": "faster or slower in every round; too wide to conclude if the "
                     "range has 1 in it.",
    "IOPS ratio": "Our driver's IOPS divided by the in-tree driver's in the same "
                  "round; the median of the rounds.",
    "range": "The lowest and the highest ratio of a round.",
    "IOPS": "I/Os per second, our driver / in-tree driver; each is a median.",
    "interrupts per I/O": "Interrupts of the disk, our driver / in-tree driver.",
    "kicks per I/O": "Notifications of the device (calls of vp_notify), counted in a "
                     "separate round.",
}
_CHECK_COLUMNS = {
    "check": "What the run compares; no check is about speed.",
    "expected": "The value that passes.", "seen": "The value of this run."}
_CLEARING_COLUMNS = {
    "reads back as": "What the guest reads where it discarded or wrote zeroes.",
    "blocks around it": "What it reads before and after; these blocks must not change.",
    "in the qcow2 file": "Whether the host's image still holds data for these blocks.",
    "around it in the qcow2 file": "Whether it holds data for the blocks around them.",
}


def _titled(disks: Disks) -> list[tuple[str, DiskQueues]]:
    """Return both disks with their titles."""
    return [(f"{disk.name}, {kind} ({disk.virtio})", disk)
            for disk, kind in ((disks.null, "null-co"),
                               (disks.files, "qcow2 with ext4"))]


def _affinity_words(disk: DiskQueues) -> str:
    return (f"{disk.affinities_equal} of {len(disk.queues)} IRQ affinities "
            "equal their queue's CPUs")


# For the terminal

def queue_tables(disks: Disks, one_queue: DiskQueues) -> str:
    """Return the queue tables of both disks, as text.

    one_queue: the null disk with num_request_queues=1.
    """
    parts = [f"\n{title}\n{text_table(*_queue_table(disk))}\n"
             f"  {_affinity_words(disk)}\n" for title, disk in _titled(disks)]
    parts.append(f"\n{one_queue.name} with num_request_queues=1: CPUs "
                 f"{format_cpus(one_queue.queues[0].cpus)}, "
                 f"{_affinity_words(one_queue)}\n")
    return "".join(parts)


def comparison_table(comparison: Sequence[Row], accelerator: str) -> str:
    """Return the figures of both drivers side by side, as text."""
    header, rows = _comparison_table(comparison)
    words = "\n".join(
        textwrap.fill(text, 78, initial_indent="  ", subsequent_indent="  ")
        for text in (_comparison_words(comparison), WALL_CLOCK[accelerator]))
    return (f"\nour driver and the in-tree driver\n{text_table(header, rows)}\n"
            f"\n{words}\n")


def verdict_text(judged: Verdict) -> str:
    """Return the checks and the verdict, as text."""
    header, rows = _check_table(judged)
    parts = [text_table(header, rows) if rows else "",
             _missing_words(judged), f"{judged.word}: {judged.why}"]
    return "".join(f"\n{part}\n" for part in parts if part)


# The plot

def plot(comparison: Sequence[Row], versions: Versions,
         colours: dict[str, str] = LIGHT) -> bytes:
    """Return a PNG with the ratio of each round, made with gnuplot."""
    # A gap between the jobs.
    rows = [(number + number // 2 * 0.5, row, row.figures)
            for number, row in enumerate(comparison)]
    extreme = max(max(found.high, 1 / found.low) for _, _, found in rows)
    lines = ["$rounds << END",
             *(f"{number} {ratio}" for number, _, found in rows
               for ratio in found.ratios), "END",
             "$medians << END",
             *(f"{number} {found.median} {found.median:.2f} "
               f'"{_queues(row)}" {quoted(conclusion(found.low, found.high))}'
               for number, row, found in rows), "END",
             "$jobs << END",
             *(f'{number} "{JOB_NAMES[row.job]}"'
               for number, row, _ in rows[::2]), "END",
             f"reach = {max(extreme * 1.1, 1.4)}"]
    return draw(_HERE / "ratios.gnuplot", lines, colours,
                title="IOPS of our driver ÷ IOPS of the in-tree driver",
                foot=foot_line(kernel=versions.kernel, qemu=versions.qemu,
                               accelerator=versions.accelerator,
                               commit=versions.driver,
                               rounds=f"{_rounds(comparison)} rounds"))


def _queues(row: Row) -> str:
    return f"{row.queues} queue{'s' * (row.queues > 1)}"


# The page

def html_page(run: Run, judged: Verdict) -> str:
    """Return a self-contained HTML page of the whole run."""
    sections = [_queue_section, _comparison_section, _data_section]
    body = "\n".join([
        f'<div class="figures">{_figures(run, judged)}</div>',
        *(section(run) for section in sections),
        "<h2>Checks</h2>", html_table(*_check_table(judged), kind="text",
                                      columns=_CHECK_COLUMNS),
        f"<p>{_missing_words(judged)}</p>", "<h2>Versions and times</h2>",
        html_table(["", ""], _version_rows(run), kind="text")])
    return page("make run", judged.word, judged.why, body, mark=judged.word.lower())


def _figures(run: Run, judged: Verdict) -> str:
    """Return the HTML of the figures at the top of the page."""
    found: list[tuple[int | str, str]] = []
    if run.queues is not None:
        found += [(run.queues, "queues"),
                  (f"{run.affinities_equal} of {run.queues}", "affinities equal")]
    if run.verify_errors is not None:
        found.append((run.verify_errors, "verify errors"))
    passed = sum(check.passed for check in judged.checks)
    found.append((f"{passed} of {len(judged.checks)}", "checks passed"))
    return "".join(f"<div><b>{value}</b> {label}</div>" for value, label in found)


def _queue_section(run: Run) -> str:
    if run.disks is None or run.one_queue is None:
        return ""
    return "<h2>Queues</h2>" + "".join(
        f"<h3>{html.escape(title)}</h3>"
        f"{html_table(*_queue_table(disk), columns=_QUEUE_COLUMNS)}"
        f"<p>{_affinity_words(disk)}.</p>"
        for title, disk in _titled(run.disks))


def _comparison_section(run: Run) -> str:
    comparison, versions = run.comparison, run.versions
    if comparison is None or versions is None:
        return ""
    return (
        "<h2>Our driver and the in-tree driver</h2>"
        + figure(functools.partial(plot, comparison, versions),
                 "IOPS ratios by job and number of queues; the table below has the "
                 "same figures") +
        f"<p><strong>{html.escape(WALL_CLOCK[versions.accelerator])}</strong></p>"
        f"{html_table(*_comparison_table(comparison), columns=_COMPARISON_COLUMNS)}"
        f"<p>{html.escape(_comparison_words(comparison))}</p>")


def _data_section(run: Run) -> str:
    if run.clearing is None or run.image is None:
        return ""
    rows = [[name, found.inside, found.around, run.image[name].inside,
             run.image[name].around] for name, found in run.clearing.items()]
    return "<h2>Discard and write zeroes</h2>" + html_table(
        ["", "reads back as", "blocks around it", "in the qcow2 file",
         "around it in the qcow2 file"], rows, columns=_CLEARING_COLUMNS)


def _version_rows(run: Run) -> list[list[str]]:
    named: list[tuple[str, str | None]] = []
    if run.versions:
        named = [("Linux", run.versions.kernel), ("QEMU", run.versions.qemu),
                 ("accelerator", run.versions.accelerator),
                 ("driver", run.versions.driver),
                 ("virtio_blk.ko, SHA-256", run.versions.module_sha256),
                 ("fio", run.fio)]
    rows = [[label, value[:24]] for label, value in named if value]
    if run.one_thread:
        rows.append(["emulation", "all CPUs on one thread, because with one thread per "
                     "CPU the guest hung while it booted: a bug in QEMU"])
    rows += [[phase.name, f"{phase.seconds:.1f} s"] for phase in run.phases]
    return [*rows, ["total", f"{run.seconds:.0f} s"]]
