# SPDX-License-Identifier: GPL-2.0
"""The tables, the plot and the HTML page of `make run`.

They are made from the run's facts, which report.json holds, too:

format          1
verdict, why    "PASS" or "FAIL", and the reasons
queues, affinities_equal
                null disk: the number of queues, and the number of queues whose
                IRQ affinity equals the queue's CPUs
verify_errors   blocks with wrong content found by fio, before and after a reboot
error           the error that ended the run early; missing if there was none
checks          each with name, expected, seen, passed
versions        kernel, qemu, accelerator, driver (commit), module_sha256, fio
wall_clock      what the figures per second are valid for
seconds, phases the duration of the whole run, and of its parts
disks           "null" and "files": name, virtio, affinities_equal, and for
                each of queues index, type, cpus, vector, irq, affinity,
                effective, affinity_equal, ring, depth
one_queue       the same for the null disk with num_request_queues=1
write, reread   fio's verified writes, and the reads after the reboot: errors, and
                for read and write ios, bytes, iops
fsck, image_check
                exit status and output of e2fsck and `qemu-img check`
clearing        for discard and both kinds of write zeroes: what the cleared blocks
                and those around them read back as, and what the qcow2 file holds
drivers         "ours" and "stock": whether the module is "out of tree"
comparison      for each job and number of queues: ratios of IOPS, ours to the
                in-tree driver's, by round; their median, low and high; and
                for "ours" and "stock" iops by round, iops_median,
                interrupts_per_io, kicks_per_io (null if not known)
interrupts      queues: how many raised interrupts; elsewhere: the number of
                interrupts on CPUs outside the queue's CPUs
kernel_log      "no complaint" if the guest's kernel logged no error or warning

A fact that the run did not reach is missing.
"""

import html
import textwrap
from pathlib import Path

from .measure import conclusion
from .page import LIGHT, figure, foot_line, html_table, page, quoted, text_table
from .page import plot as draw
from .queues import format_cpus
from .verdict import NOT_REACHED

WALL_CLOCK = {
    "tcg": "The guest runs under emulation (TCG): figures per second do not apply to "
           "hardware. Only ratios of runs side by side are meaningful.",
    "kvm": "The guest runs under KVM: figures per second depend on this machine and "
           "its load. Ratios of runs side by side vary less.",
}
JOB_NAMES = {"randread": "random read", "randwrite": "random write"}
_DISK_NAMES = {"null": "null-co", "files": "qcow2 with ext4"}
_HERE = Path(__file__).parent


# Tables: a header and rows of strings

def _queue_table(disk):
    header = ["queue", "type", "CPUs", "vector", "IRQ", "effective affinity",
              "ring", "depth", "affinity = CPUs"]
    rows = [[_number(queue["index"]), queue["type"], format_cpus(queue["cpus"]),
             _number(queue["vector"]), _number(queue["irq"]),
             "-" if queue["effective"] is None else
             format_cpus(queue["effective"]),
             _number(queue["ring"]), _number(queue["depth"]),
             _equality(queue)] for queue in disk["queues"]]
    return header, rows


def _equality(queue):
    if queue["affinity"] is None:
        return "no IRQ of its own"
    return "yes" if queue["affinity_equal"] else \
        f"no, it is {format_cpus(queue['affinity'])}"


def _number(value):
    return "-" if value is None else str(value)


def _comparison_table(facts):
    header = ["job", "queues", "our driver is", "IOPS ratio", "range", "IOPS",
              "interrupts per I/O", "kicks per I/O"]
    return header, [
        [JOB_NAMES[row["job"]], str(row["queues"]),
         conclusion(row["low"], row["high"]), f"{row['median']:.2f}",
         f"{row['low']:.2f} to {row['high']:.2f}",
         _both(row, "iops_median", "{:.0f}"),
         _both(row, "interrupts_per_io", "{:.3f}"),
         _both(row, "kicks_per_io", "{:.3f}")] for row in facts["comparison"]]


def _both(row, key, form):
    """Return a figure of our driver and of the in-tree driver."""
    if row["ours"][key] is None:
        return "not known"
    return " / ".join(form.format(row[side][key]) for side in ("ours", "stock"))


def _check_table(facts):
    """Return the table of the checks that the run reached."""
    return ["", "check", "expected", "seen"], [
        ["ok" if check["passed"] else "FAIL", check["name"],
         str(check["expected"]), str(check["seen"])]
        for check in facts["checks"] if check["seen"] != NOT_REACHED]


def _missing_words(facts):
    """Return a sentence with the number of checks not reached, "" if there are none."""
    missing = sum(check["seen"] == NOT_REACHED for check in facts["checks"])
    return f"{missing} of {len(facts['checks'])} checks were not reached." \
        if missing else ""


def _rounds(facts):
    return len(facts["comparison"][0]["ratios"])


def _comparison_words(facts):
    return ("Our driver / in-tree driver. 4 KiB I/O on the null disk, 4 jobs of depth "
            f"32 pinned to CPUs 0-3. Medians of {_rounds(facts)} rounds in one boot, "
            "in which the drivers take turns. The median of the ratios is not the "
            "ratio of the medians: a ratio compares two runs of one round, and the "
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


def _disk_title(facts, id):
    disk = facts["disks"][id]
    return f"{disk['name']}, {_DISK_NAMES[id]} ({disk['virtio']})"


def _affinity_words(disk):
    return (f"{disk['affinities_equal']} of {len(disk['queues'])} IRQ affinities "
            "equal their queue's CPUs")


# For the terminal

def queue_tables(facts):
    """Return the queue tables of both disks, as text."""
    parts = [f"\n{_disk_title(facts, id)}\n{text_table(*_queue_table(disk))}\n"
             f"  {_affinity_words(disk)}\n" for id, disk in facts["disks"].items()]
    (queue, *_), one = facts["one_queue"]["queues"], facts["one_queue"]
    parts.append(f"\n{one['name']} with num_request_queues=1: CPUs "
                 f"{format_cpus(queue['cpus'])}, {_affinity_words(one)}\n")
    return "".join(parts)


def comparison_table(facts):
    """Return the figures of both drivers side by side, as text."""
    header, rows = _comparison_table(facts)
    words = "\n".join(
        textwrap.fill(text, 78, initial_indent="  ", subsequent_indent="  ")
        for text in (_comparison_words(facts), facts["wall_clock"]))
    return (f"\nour driver and the in-tree driver\n{text_table(header, rows)}\n"
            f"\n{words}\n")


def verdict_text(facts):
    """Return the checks and the verdict, as text."""
    header, rows = _check_table(facts)
    parts = [text_table(header, rows) if rows else "",
             _missing_words(facts), f"{facts['verdict']}: {facts['why']}"]
    return "".join(f"\n{part}\n" for part in parts if part)


# The plot

def plot(facts, colours=LIGHT):
    """Return a PNG with the ratio of each round, made with gnuplot."""
    # A gap between the jobs.
    rows = [(number + number // 2 * 0.5, row)
            for number, row in enumerate(facts["comparison"])]
    extreme = max(max(row["high"], 1 / row["low"]) for _, row in rows)
    lines = ["$rounds << END",
             *(f"{number} {ratio}" for number, row in rows
               for ratio in row["ratios"]), "END",
             "$medians << END",
             *(f"{number} {row['median']} {row['median']:.2f} "
               f'"{_queues(row)}" {quoted(conclusion(row["low"], row["high"]))}'
               for number, row in rows), "END",
             "$jobs << END",
             *(f'{number} "{JOB_NAMES[row["job"]]}"'
               for number, row in rows[::2]), "END",
             f"reach = {max(extreme * 1.1, 1.4)}"]
    versions = facts["versions"]
    return draw(_HERE / "ratios.gnuplot", lines, colours,
                title="IOPS of our driver ÷ IOPS of the in-tree driver",
                foot=foot_line(kernel=versions["kernel"], qemu=versions["qemu"],
                               accelerator=versions["accelerator"],
                               commit=versions["driver"],
                               rounds=f"{_rounds(facts)} rounds"))


def _queues(row):
    return f"{row['queues']} queue{'s' * (row['queues'] > 1)}"


# The page

def html_page(facts):
    """Return a self-contained HTML page of the whole run."""
    sections = [_queue_section, _comparison_section, _data_section]
    body = "\n".join([
        f'<div class="figures">{_figures(facts)}</div>',
        *(section(facts) for section in sections),
        "<h2>Checks</h2>", html_table(*_check_table(facts), kind="text",
                                      columns=_CHECK_COLUMNS),
        f"<p>{_missing_words(facts)}</p>", "<h2>Versions and times</h2>",
        html_table(["", ""], _version_rows(facts), kind="text")])
    return page("make run", facts["verdict"], facts["why"], body,
                mark=facts["verdict"].lower())


def _figures(facts):
    """Return the HTML of the figures at the top of the page."""
    found = []
    if "queues" in facts:
        found += [(facts["queues"], "queues"),
                  (f"{facts['affinities_equal']} of {facts['queues']}",
                   "affinities equal")]
    if "verify_errors" in facts:
        found.append((facts["verify_errors"], "verify errors"))
    passed = sum(check["passed"] for check in facts["checks"])
    found.append((f"{passed} of {len(facts['checks'])}", "checks passed"))
    return "".join(f"<div><b>{value}</b> {label}</div>" for value, label in found)


def _queue_section(facts):
    if "one_queue" not in facts:
        return ""
    return "<h2>Queues</h2>" + "".join(
        f"<h3>{html.escape(_disk_title(facts, id))}</h3>"
        f"{html_table(*_queue_table(disk), columns=_QUEUE_COLUMNS)}"
        f"<p>{_affinity_words(disk)}.</p>"
        for id, disk in facts["disks"].items())


def _comparison_section(facts):
    if "comparison" not in facts:
        return ""
    return (
        "<h2>Our driver and the in-tree driver</h2>"
        + figure(lambda colours: plot(facts, colours),
                 "IOPS ratios by job and number of queues; the table below has the "
                 "same figures") +
        f"<p><strong>{html.escape(facts['wall_clock'])}</strong></p>"
        f"{html_table(*_comparison_table(facts), columns=_COMPARISON_COLUMNS)}"
        f"<p>{html.escape(_comparison_words(facts))}</p>")


def _data_section(facts):
    if not any("image_inside" in found
               for found in facts.get("clearing", {}).values()):
        return ""
    rows = [[name, found["inside"], found["around"], found["image_inside"],
             found["image_around"]] for name, found in facts["clearing"].items()]
    return "<h2>Discard and write zeroes</h2>" + html_table(
        ["", "reads back as", "blocks around it", "in the qcow2 file",
         "around it in the qcow2 file"], rows, columns=_CLEARING_COLUMNS)


def _version_rows(facts):
    names = {"kernel": "Linux", "qemu": "QEMU", "accelerator": "accelerator",
             "driver": "driver", "module_sha256": "virtio_blk.ko, SHA-256",
             "fio": "fio"}
    versions = facts.get("versions", {})
    rows = [[label, str(versions[key])[:24]] for key, label in names.items()
            if versions.get(key)]
    if facts.get("one_thread"):
        rows.append(["emulation", "all CPUs on one thread, because with one thread per "
                     "CPU the guest hung while it booted: a bug in QEMU"])
    rows += [[phase["name"], f"{phase['seconds']:.1f} s"]
             for phase in facts["phases"]]
    return [*rows, ["total", f"{facts['seconds']:.0f} s"]]
