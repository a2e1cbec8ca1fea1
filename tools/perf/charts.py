# SPDX-License-Identifier: GPL-2.0
"""The tables, the plots and the HTML page of make bench.

They are made from its facts:

format         1
kernel, qemu, accelerator, driver, ios, quick, seconds
               the software measured, the number of I/Os per count, and the duration
jobs           for each job and device, the cost of an I/O in the guest's kernel:
               kernel, user, locked, interrupts, kicks, allocations, modules,
               layers, functions [name, module, instructions, calls], ring,
               restarting (finding stopped queues, per interrupt)
usual_ring     the same for our driver with a ring of QEMU's default size
queues         the same by number of queues, without functions
other_kernels  the same on other kernels, named by kernel_name
host           see perf.host.rows()
curves         figures over depths and jobs, see perf.sweep.Record
workers        IOPS of the host's back ends, see perf.workers.Record
wall_clock, scale
               see perf.wallclock, perf.scale
goals          each goal, the measured value, and whether it is met
error          the error that ended make bench early; missing if there was none

Figures that were not measured are missing.
"""

import html
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from host.page import (LIGHT, figure, foot_line, html_table, page, plot, quoted,
                       text_table)

from . import curves, goals, host, jobs, layers, scale, sweep, wallclock, workers
from .devices import TITLES
from .goals import Facts, Row

_HERE = Path(__file__).parent
_HEADLINE_JOB = "randread-4k-qd32"
_BREAKDOWN_JOB = "randread-4k-qd32"
_FUNCTIONS = 25
# The height of a device's boxes, with a gap.
_ROW = 6

# The header and the rows of cells of a table.
Table = tuple[list[str], list[list[str]]]


# Tables

def _job_names(facts: Facts) -> list[str]:
    return list(dict.fromkeys(row["job"] for row in facts["jobs"]))


def _devices(facts: Facts) -> list[str]:
    seen = {row["device"] for row in facts["jobs"]}
    return [device for device in TITLES if device in seen]


def _usual(facts: Facts, job: str) -> Row | None:
    return next((row for row in facts.get("usual_ring", ())
                 if row["job"] == job), None)


def _headline_rows(facts: Facts) -> tuple[Row, Row, Row] | None:
    """Return the rows of null_blk, our driver and the in-tree driver, None if unknown.

    Our driver's is with a ring of QEMU's default size, if that was measured.
    """
    floor = goals.find(facts, _HEADLINE_JOB, "null_blk")
    ours = _usual(facts, _HEADLINE_JOB) or goals.find(facts, _HEADLINE_JOB, "ours")
    stock = goals.find(facts, _HEADLINE_JOB, "stock")
    return (floor, ours, stock) if floor and ours and stock else None


def headline(facts: Facts) -> str:
    """Return what a read costs in the whole kernel and in the driver, "" if unknown."""
    rows = _headline_rows(facts)
    if not rows:
        return ""
    floor, ours, stock = (row["kernel"] for row in rows)
    return (f"{ours:.0f} kernel instructions per 4 KiB read, {stock:.0f} with the "
            f"in-tree driver ({100 * (ours / stock - 1):+.0f} %). The part above "
            f"null_blk: {ours - floor:.0f} against {stock - floor:.0f}.")


def _whole_table(facts: Facts) -> Table:
    """Return instructions per I/O of the whole kernel."""
    devices = _devices(facts)
    return ["job", *(TITLES[device] for device in devices), "our driver, ring 256"], [
        [jobs.find(job).title,
         *("-" if row is None else f"{row['kernel']:.0f}" for row in (
             *(goals.find(facts, job, device) for device in devices),
             _usual(facts, job)))] for job in _job_names(facts)]


def _job_table(facts: Facts) -> Table:
    """Return instructions per I/O of null_blk, and the difference of the others."""
    devices = _devices(facts)
    header = ["job", *(TITLES[device] for device in devices), "goal",
              "our driver, ring 256"]
    rows = []
    for job in _job_names(facts):
        floor = goals.find(facts, job, "null_blk")
        usual = _usual(facts, job)
        rows.append([
            jobs.find(job).title,
            *(_cell(goals.find(facts, job, device), floor, device)
              for device in devices),
            _limit(facts, job),
            _cell(usual, floor, "ours")])
    return header, rows


def _limit(facts: Facts, job: str) -> str:
    """Return our driver's limit above null_blk, as a cell."""
    limit: float | None = goals.ABOVE_NULL_BLK.get(job)
    if job == goals.BURST and (stock := goals.above(facts, job, "stock")):
        limit = goals.BURST_SHARE * stock
    return f"+{limit:.0f}" if limit else "-"


def _cell(row: Row | None, floor: Row | None, device: str) -> str:
    if row and device == "null_blk":
        return f"{row['kernel']:.0f}"
    return f"{row['kernel'] - floor['kernel']:+.0f}" if row and floor else "-"


def _detail_table(facts: Facts) -> Table:
    """Return locks, interrupts, kicks and allocations per I/O."""
    header = ["job", "", "locked", "taken", "interrupts", "kicks", "allocations",
              "driver, ring, interrupt"]
    return header, [
        [row["job"], TITLES[row["device"]], f"{row['locked']:.0f}",
         f"{row['acquisitions']:.2f}", f"{row['interrupts']:.3f}",
         f"{row['kicks']:.3f}", f"{row['allocations']:.2f}",
         f"{row['device_layers']:.0f}"]
        for job in _job_names(facts) for device in _devices(facts)
        for row in [goals.find(facts, job, device)] if row]


def _queue_table(facts: Facts) -> Table:
    header = ["", "queues", "kernel, per I/O", "finding stopped queues",
              "interrupts per I/O"]
    return header, [
        [TITLES[row["device"]], str(row["queues"]), f"{row['kernel']:.0f}",
         f"{row['restarting']:.0f}", f"{row['interrupts']:.2f}"]
        for row in sorted(facts.get("queues", ()), key=lambda row: row["device"])]


def _kernel_table(facts: Facts) -> Table:
    header = ["kernel", "job", "our driver", "in-tree driver", "ratio"]
    found = {(row["kernel_name"], row["job"], row["device"]): goals.compared(row)
             for row in facts.get("other_kernels", ())}
    return header, [
        [kernel, job, f"{count:.0f}", f"{found[kernel, job, 'stock']:.0f}",
         f"{count / found[kernel, job, 'stock']:.3f}"]
        for (kernel, job, device), count in found.items()
        if device == "ours" and (kernel, job, "stock") in found]


def _goal_table(facts: Facts) -> Table:
    return ["", "goal", "measured"], [
        ["met" if goal["met"] else "MISSED", goal["goal"], goal["seen"]]
        for goal in facts["goals"]]


def _layer_table(facts: Facts) -> Table:
    rows = [[TITLES[device], *(f"{row['layers'][name]:.0f}"
                               for name in layers.LAYERS)]
            for device in _devices(facts)
            for row in [goals.find(facts, _BREAKDOWN_JOB, device)] if row]
    return ["", *layers.LAYERS], rows


def _tables(facts: Facts) -> Iterator[tuple[str, str, list[str], list[list[str]]]]:
    """Yield title, explanation, header and rows of each table that has rows."""
    every = (
        (f"Kernel instructions per I/O, Linux {facts['kernel']}",
         "All that the kernel executes for an I/O, from the system call to its return, "
         "with the interrupt. Counted in a guest with one emulated CPU, one queue and "
         "no scheduler; the backend is null-co.", _whole_table(facts)),
        ("The part of driver and device",
         "Kernel instructions per I/O above those of null_blk, which shows the cost of "
         "the block layer and is in its column. virtio-blk has a ring of 1024 entries; "
         "in the last column the ring has QEMU's default size.", _job_table(facts)),
        ("Goals", "", _goal_table(facts)),
        ("Locks, interrupts, kicks and memory per I/O",
         "Instructions while a lock of the virtio-blk driver is held, and how often "
         "the lock is taken; interrupts, notifications of the device and memory "
         "allocations; instructions of driver, ring and interrupt only.",
         _detail_table(facts)),
        ("Instructions by layer", f"Per I/O, {_BREAKDOWN_JOB}.",
         _layer_table(facts)),
        ("With more queues", f"{jobs.find(_BREAKDOWN_JOB).title}, with an interrupt "
         "for each I/O. Finding stopped queues is counted per interrupt.",
         _queue_table(facts)),
        ("On other kernels", "Kernel instructions per I/O; at depth 1, those of "
         "driver, ring and interrupt only.", _kernel_table(facts)),
        ("Through a device of the host", "Instructions per I/O of guest driver and "
         "device in one guest, above those of null_blk, which each device serves; "
         "vdpa_blk: those of the module alone.", host.table(facts.get("host", ()))),
    )
    for title, words, (header, rows) in every:
        if rows:
            yield title, words, header, rows
    record = _record(facts)
    if record:
        for title, header, rows in curves.tables(record):
            yield title, curves.words(record), header, rows
    if facts.get("workers"):
        found = workers.Record.read(facts["workers"])
        yield ("Workers of vdpa_blk and iothreads of QEMU", workers.words(found),
               *workers.table(found))


def _record(facts: Facts) -> sweep.Record | None:
    """Return the figures over depths and jobs, None if they were not measured."""
    return sweep.Record.read(facts["curves"]) if facts.get("curves") else None


def _texts(facts: Facts) -> Iterator[tuple[str, str]]:
    """Yield title and text of the parts that format their own tables."""
    if facts.get("wall_clock"):
        yield "Wall-clock ratios", wallclock.text(facts["wall_clock"])
    for part, found in facts.get("scale", {}).items():
        yield f"Large guests: {part}", scale.TABLES[part](found)


def text(facts: Facts) -> str:
    """Return the whole report as text for a terminal."""
    parts = [headline(facts)] if headline(facts) else []
    parts += [f"{title}\n{text_table(header, rows)}"
              for title, _, header, rows in _tables(facts)]
    parts += [f"{title}\n{body}" for title, body in _texts(facts)]
    return "\n" + "\n\n".join(parts) + "\n"


# Plots

def _bars(facts: Facts, colours: dict[str, str] = LIGHT) -> bytes:
    """Plot kernel instructions per I/O above null_blk's, by job and device."""
    devices = [device for device in _devices(facts) if device != "null_blk"]
    bars: list[tuple[float, float, int]] = []
    names: list[str] = []
    place: float = 0
    for job in _job_names(facts):
        found = [(number, count) for number, device in enumerate(devices, 1)
                 for count in [_above(facts, job, device)] if count is not None]
        if not found:
            continue
        names.append(f"{place + (len(found) - 1) / 2} {quoted(_two_lines(job))}")
        for number, count in found:
            bars.append((count, place, number))
            place += 1
        # A gap between the jobs.
        place += 0.8
    counts = [count for count, _, _ in bars]
    return plot(_HERE / "bars.gnuplot", [
        "$bars << END", *(f'{count} {y} {number} "{count:+.0f}"'
                          for count, y, number in bars), "END",
        "$jobs << END", *names, "END",
        f"array devices[{len(devices)}] = [" + ", ".join(
            quoted(TITLES[device]) for device in devices) + "]",
        f"count = {len(devices)}; bottom = {place - 1.8}",
        f"least = {min(counts)}; most = {max(counts)}",
        f"height = {_bars_size(facts)[1]}",
        f"headline = {quoted(headline(facts))}"],
        colours, title="What a driver adds to an I/O", foot=_foot(
            facts, "our driver on QEMU's usual ring of 256"
            if facts.get("usual_ring") else None))


def _above(facts: Facts, job: str, device: str) -> float | None:
    """Return instructions above null_blk's, our driver's on the usual ring if known."""
    floor, usual = goals.find(facts, job, "null_blk"), _usual(facts, job)
    if device == "ours" and usual and floor:
        return usual["kernel"] - floor["kernel"]
    return goals.above(facts, job, device)


def _two_lines(job: str) -> str:
    """Return the title of a job, with its last words on a line of their own if long."""
    title = jobs.find(job).title
    start, _, end = title.rpartition(", ")
    return f"{start},\n{end}" if len(title) > 40 else title


def _bars_size(facts: Facts) -> tuple[int, int]:
    """Return width and height of the plot, which has a line for each bar."""
    return 1600, 270 + 24 * len(_job_names(facts)) * len(_devices(facts))


def _foot(facts: Facts, more: str | None = None) -> str:
    """Return the foot line of a plot of instruction counts; more: what it adds."""
    return foot_line(
        kernel=facts["kernel"], qemu=facts["qemu"], accelerator="tcg",
        commit=facts["driver"],
        rounds=", ".join(filter(None, (
            f"one count of {facts['ios']} I/Os each, on one emulated CPU", more))))


def _queue_lines(facts: Facts, colours: dict[str, str] = LIGHT) -> bytes:
    """Plot the cost of an I/O and its interrupt by number of queues."""
    lines = []
    for device in ("ours", "stock"):
        lines += [f"${device} << END", *(
            f"{row['queues']} {row['kernel']}" for row in facts["queues"]
            if row["device"] == device), "END"]
    return plot(_HERE / "queues.gnuplot", lines, colours,
                title="What an I/O and its interrupt cost with more queues",
                foot=_foot(facts))


class _Box(NamedTuple):
    """A box of the breakdown; layer: its number, -1 for all."""
    left: float
    right: float
    low: float
    high: float
    layer: int
    name: str


def _boxes(row: Row, level: int) -> list[_Box]:
    """Return the boxes of a device.

    They form three rows: the total, the layers, and their functions.  The width of a
    box is its number of instructions.
    """
    left: float = 0
    boxes = [_Box(left, row["kernel"], level + 4.6, level + 5.4, -1,
                  f"{TITLES[row['device']]}: {row['kernel']:.0f}")]
    for number, layer in enumerate(layers.LAYERS):
        width = row["layers"][layer]
        boxes.append(_Box(left, left + width, level + 3, level + 4.6, number,
                          f"{layer} {width:.0f}"))
        place = left
        for name, module, count, _ in row["functions"]:
            if count > 0 and layers.of(name, module) == layer:
                boxes.append(_Box(place, place + count, level, level + 3, number,
                                  name))
                place += count
        left += width
    return boxes


def _breakdown(facts: Facts, colours: dict[str, str] = LIGHT) -> bytes:
    """Plot the instructions of four devices by layer and function."""
    rows = [row for device in ("null_blk", "stock", "nvme", "ours")
            for row in [goals.find(facts, _BREAKDOWN_JOB, device)] if row]
    lines = ["$boxes << END"]
    for level, row in enumerate(rows):
        for left, right, low, high, layer, name in _boxes(row, level * _ROW):
            lines.append(f'{left} {right} {low} {high} {layer} "{name}"')
    return plot(_HERE / "breakdown.gnuplot", [*lines, "END", (
        f"widest = {max(row['kernel'] for row in rows)}"),
        f"height = {len(rows) * _ROW}"], colours,
        title="Where the instructions of a 4 KiB read go", foot=_foot(facts))


# Name, function, facts that it needs, and the text in place of the picture.
_PICTURES = {
    "cost": (_bars, "jobs", "Kernel instructions per I/O above null_blk's, by job and "
                            "device"),
    "queues": (_queue_lines, "queues",
               "Kernel instructions per I/O by number of queues"),
    "breakdown": (_breakdown, "jobs",
                  "Kernel instructions per I/O by layer and function"),
}


def pictures(facts: Facts) -> dict[str, Callable[..., bytes]]:
    """Return functions that draw the PNGs of the measured facts, by name."""
    found = {name: lambda colours=LIGHT, draw=draw: draw(facts, colours)
             for name, (draw, key, _) in _PICTURES.items() if facts.get(key)}
    if not any(goals.find(facts, job, "null_blk") for job in _job_names(facts)):
        # There is nothing to draw bars above.
        found.pop("cost", None)
    record = _record(facts)
    return {**found, **(curves.pictures(record) if record else {})}


def _figures(facts: Facts) -> dict[str, str]:
    """Return the HTML of all pictures, by name."""
    texts = {name: text for name, (*_, text) in (*_PICTURES.items(),
                                                 *curves.PICTURES.items())}
    return {name: figure(draw, texts[name]) for name, draw in pictures(facts).items()}


# The page

def _function_section(facts: Facts) -> str:
    """Return the functions in which the two virtio-blk drivers differ most."""
    rows = [row for device in ("ours", "stock")
            if (row := goals.find(facts, _BREAKDOWN_JOB, device))]
    if len(rows) < 2:
        return ""
    ours, stock = ({(name, module): count
                    for name, module, count, _ in row["functions"]}
                   for row in rows)
    changes = sorted(((ours.get(key, 0) - stock.get(key, 0), *key)
                      for key in ours.keys() | stock.keys()),
                     key=lambda row: -abs(row[0]))[:_FUNCTIONS]
    return "<h2>Functions that differ most</h2>" + html_table(
        ["function", "our driver", "in-tree driver", "difference"],
        [[f"{name} [{module}]", f"{ours.get((name, module), 0):.1f}",
          f"{stock.get((name, module), 0):.1f}", f"{change:+.1f}"]
         for change, name, module in changes])


# The picture above each table, by the beginning of the table's title.
_ABOVE = {"The part of driver": "cost", "Instructions by layer": "breakdown",
          "With more queues": "queues", "Over depths": "depths", "Over jobs": "jobs"}


def html_page(facts: Facts) -> str:
    """Return a self-contained HTML page of the whole report."""
    drawn = _figures(facts)
    body = []
    for title, words, header, rows in _tables(facts):
        body.append(f"<h2>{html.escape(title)}</h2>")
        body += [drawn.get(name, "") for start, name in _ABOVE.items()
                 if title.startswith(start)]
        body += [html_table(header, rows), f"<p>{html.escape(words)}</p>"]
    body.append(_function_section(facts))
    for title, words in _texts(facts):
        body.append(f"<h2>{html.escape(title)}</h2><pre>{html.escape(words)}</pre>")
    met = f"{sum(goal['met'] for goal in facts['goals'])} of {len(facts['goals'])} " \
        "goals met"
    heading, _, part = headline(facts).partition(". ")
    why = "\n".join(line for line in (
        facts.get("error", ""), part, met if heading else "",
        f"Linux {facts['kernel']}, QEMU {facts['qemu']}, driver "
        f"{facts['driver'] or 'unknown'}, {facts['ios']} I/Os per count, "
        f"{facts['seconds'] / 60:.0f} min") if line)
    return page("make bench", heading or met, why, "\n".join(body))
