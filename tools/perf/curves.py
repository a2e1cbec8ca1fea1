# SPDX-License-Identifier: GPL-2.0
"""Show what perf.sweep measured: pictures of small multiples, and tables.

usage: python3 -m perf.curves [--cpus N] [--rounds N] [--seconds N] [--quick]
                              [--absolute] [--draw FILE]

Under KVM the figures are absolute.  Under emulation the same pictures show ratios to
the in-tree driver, with their range over the rounds.  The record is written to
build/bench/curves.json, the pictures beside it.
"""

import argparse
import json
import os
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from common import measure
from host import repository, ui
from host.page import LIGHT, foot_line, plot, quoted, text_table
from host.ui import say
from vm.errors import GuestError

from . import sweep
from .devices import TITLES
from .sweep import Point, Record, Spread

_HERE = Path(__file__).parent
_OUT = Path(__file__).resolve().parents[2] / "build/bench"
_COLOURS = {"stock": "#d9843b", "nvme": "#5b9e6f"}
_SHADES = {"p50_us": "#3b82c4", "p99_us": "#9b72c4", "p999_us": "#c2577a"}
_NAMES = {"iops": "IOPS", "p50_us": "p50", "p99_us": "p99", "p999_us": "p99.9",
          "cpu_us": "CPU µs"}


@dataclass(frozen=True)
class _Line:
    """A line of a row of panels: its name, a figure of Sample, and its queues."""
    name: str
    figure: str
    queues: int
    colour: str | None = None


@dataclass(frozen=True)
class _Row:
    """A row of panels: the labels of its axis, and its lines.

    scale: to divide figures by.  logarithmic: of figures; ratios always are.
    """
    label: str
    ratio_label: str
    lines: tuple[_Line, ...]
    scale: float = 1
    logarithmic: bool = False


def _depth_rows(record: Record) -> list[_Row]:
    return [
        _Row("IOPS, thousands", "IOPS\n(higher is better)",
             (_Line("", "iops", record.cpus),), scale=1000),
        _Row("latency, µs", "latency\n(lower is better)",
             tuple(_Line(_NAMES[name], name, record.cpus, _SHADES[name])
                   for name in sweep.PERCENTILES), logarithmic=True),
        _Row("CPU µs per I/O", "CPU time per I/O\n(lower is better)",
             (_Line("", "cpu_us", record.cpus),))]


def _jobs_rows(record: Record) -> list[_Row]:
    return [_Row("IOPS, thousands", "IOPS\n(higher is better)", (
        _Line("1 queue", "iops", 1, "#9b72c4"),
        _Line(f"{record.cpus} queues", "iops", record.cpus, "#3b82c4")), scale=1000)]


def _spread(record: Record, device: str, point: Point, figure: str,
            absolute: bool, scale: float = 1) -> Spread:
    """Return a figure, divided by scale, or its ratio to the in-tree driver's."""
    if not absolute:
        return sweep.ratios(record, device, point, figure)
    return sweep.spread([value / scale
                         for value in record.find(device, point).of(figure)])


def _block(record: Record, device: str, name: str, row: _Row, line: _Line,
           absolute: bool) -> list[tuple[int, Spread]]:
    return [(point.x, _spread(record, device, point, line.figure, absolute, row.scale))
            for point in sorted(record.points(name, line.queues), key=lambda it: it.x)]


def _array(name: str, values: Sequence[str | float | bool]) -> str:
    return f"array {name}[{len(values)}] = [" + ", ".join(
        quoted(value) if isinstance(value, str) else str(float(value))
        for value in values) + "]"


def _limits(found: list[Spread], absolute: bool, logarithmic: bool) \
        -> tuple[float, float]:
    """Return the range of the y axis that shows all spreads."""
    low, high = min(each.low for each in found), max(each.high for each in found)
    if not absolute:
        reach = max(high, 1 / low, 1.2) * 1.1
        return 1 / reach, reach
    return (low / 1.5, high * 1.5) if logarithmic else (0, high * 1.1)


def _referred(row: _Row, absolute: bool) -> bool:
    """Return whether a row also shows the in-tree driver's last line."""
    return absolute and not row.logarithmic


def _panels(record: Record, name: str, row: _Row, devices: Sequence[str], most: int,
            absolute: bool) -> tuple[list[str], tuple[float, float]]:
    """Return the blocks of a row of panels as curves.gnuplot has them, and its limits.

    most: the number of lines of the row that has most.
    """
    blocks: list[str] = []
    shown: list[Spread] = []
    for device in devices:
        lines = [_block(record, device, name, row, line, absolute) for line in row.lines]
        shown += [spread for line in lines for _, spread in line]
        lines += [[] for _ in range(most - len(lines))]
        lines.append(_block(record, "stock", name, row, row.lines[-1], True)
                     if _referred(row, absolute) and device != "stock" else [])
        blocks += ["\n".join(f"{x} {each.low} {each.median} {each.high}"
                             for x, each in line) or "1 NaN NaN NaN" for line in lines]
    return blocks, _limits(shown, absolute, row.logarithmic)


def _draw(record: Record, name: str, rows: list[_Row], title: str, xlabel: str,
          absolute: bool, height: int, colours: dict[str, str]) -> bytes:
    """Return the PNG of a sweep."""
    devices = [device for device in sweep.DEVICES if absolute or device != "stock"]
    most = max(len(row.lines) for row in rows)
    panels = [_panels(record, name, row, devices, most, absolute) for row in rows]
    names, shades = [], []
    for row in rows:
        none = [_Line("", "", 0)] * (most - len(row.lines))
        names += [each.name for each in (*row.lines, *none)]
        shades += [each.colour or colours["accent"] for each in (*row.lines, *none)]
    ticks = sorted(point.x for point in record.points(name, record.cpus))
    return plot(_HERE / "curves.gnuplot", [
        "$data << END", "\n\n\n".join(
            block for blocks, _ in panels for block in blocks), "END",
        f"rows = {len(rows)}; cols = {len(devices)}; lines = {most}",
        f"width = 1600; height = {height}; level = {0 if absolute else 1}",
        _array("heads", [TITLES[device] + ("" if absolute else " ÷ in-tree driver")
                         for device in devices]),
        _array("labels", [row.label if absolute else row.ratio_label for row in rows]),
        _array("logs", [row.logarithmic or not absolute for row in rows]),
        _array("floors", [low for _, (low, _) in panels]),
        _array("tops", [high for _, (_, high) in panels]),
        _array("names", names), _array("shades", shades),
        _array("references", ["" if not _referred(row, absolute) else
                              f"- - {TITLES['stock']}" + ", " * bool(row.lines[-1].name)
                              + row.lines[-1].name for row in rows]),
        f"xlabel = {quoted(xlabel)}",
        f"set xtics ({', '.join(map(str, ticks))})",
        f"set xrange [{ticks[0] * 0.9}:{ticks[-1] * 1.15}]",
    ], colours, title=title, foot=_foot(record, absolute))


def _foot(record: Record, absolute: bool) -> str:
    hollow = "" if absolute else f", hollow: {measure.TOO_WIDE}"
    return foot_line(
        kernel=record.kernel, qemu=record.qemu, accelerator=record.accelerator,
        commit=record.commit,
        rounds=f"{record.rounds} rounds of {record.seconds} s; line: median, "
               f"band: lowest to highest{hollow}")


def _depth(record: Record, absolute: bool, colours: dict[str, str]) -> bytes:
    title = "4 KiB random reads by one job, over depths"
    return _draw(record, "depth", _depth_rows(record),
                 title if absolute else title + ": ratios",
                 "depth (requests in flight)", absolute, 1000, colours)


def _jobs(record: Record, absolute: bool, colours: dict[str, str]) -> bytes:
    title = f"4 KiB random reads at depth {sweep.JOBS_DEPTH}, over jobs"
    return _draw(record, "jobs", _jobs_rows(record),
                 title if absolute else title + ": ratios",
                 "jobs, each on its own vCPU", absolute, 560, colours)


# Name, function, size, and text in place of the picture.
PICTURES = {
    "depths": (_depth, (1600, 1000),
               "IOPS, latency and CPU time of an I/O over depths; the table below has "
               "the same figures"),
    "jobs": (_jobs, (1600, 560),
             "IOPS over jobs, with one queue and with one per vCPU; the table below has "
             "the same figures"),
}


def pictures(record: Record, absolute: bool | None = None) \
        -> dict[str, Callable[..., bytes]]:
    """Return functions that draw PNGs, given colours, by name.

    absolute: whether to show figures, and not ratios; by default as the record says.
    """
    shown = record.absolute if absolute is None else absolute
    return {name: lambda colours=LIGHT, draw=draw: draw(record, shown, colours)
            for name, (draw, _, _) in PICTURES.items()}


# Tables

# In a cell of a table; words() explains it.
_WIDE = "too wide"


def _cell(found: Spread, absolute: bool) -> str:
    if absolute:
        return f"{found.median:.0f} ({found.low:.0f} to {found.high:.0f})"
    if found.low <= 1 <= found.high:
        return f"{_WIDE}: {found.low:.2f} to {found.high:.2f}"
    return f"{found.median:.2f} ({found.low:.2f} to {found.high:.2f})"


def tables(record: Record, absolute: bool | None = None) \
        -> list[tuple[str, list[str], list[list[str]]]]:
    """Return title, header and cells of a table for each sweep; see pictures()."""
    shown = record.absolute if absolute is None else absolute
    devices = [device for device in sweep.DEVICES if shown or device != "stock"]
    made = []
    for name, figures in (("depth", tuple(_NAMES)), ("jobs", ("iops",))):
        rows = [[TITLES[device], str(point.queues), str(point.x),
                 *(_cell(_spread(record, device, point, figure, shown), shown)
                   for figure in figures)]
                for device in devices for point in record.points(name)]
        heads = ["", "queues", name, *(_NAMES[figure] for figure in figures)]
        made.append(("Over depths" if name == "depth" else "Over jobs", heads, rows))
    return made


def words(record: Record, absolute: bool | None = None) -> str:
    """Return sentences on how the figures were measured."""
    shown = record.absolute if absolute is None else absolute
    what = ("A figure is the median of the rounds, with the lowest and the highest."
            if shown else
            "A figure is the median of the rounds' ratios to the in-tree driver, with "
            f"the lowest and the highest. \"{_WIDE.capitalize()}\" is {measure.TOO_WIDE}: "
            "the range has 1 in it. Figures per second mean nothing without KVM and "
            f"{sweep.CPUS_NEEDED} CPUs; the record has them.")
    return (f"4 KiB random reads, libaio, from null-co disks; {record.rounds} rounds of "
            f"{record.seconds} s in one boot, in which the devices take turns. {what} "
            "Latency is from submission to completion, in µs. CPU time is that in which "
            "the guest's CPUs were busy. Each virtio queue is served by its own QEMU "
            f"thread, and all NVMe queues by QEMU's main loop. {record.cpus} vCPUs and "
            f"these threads share the host's {record.host_cpus} CPUs, whose load average "
            f"was {record.host_load}. fio's own reports are in build/bench/fio.")


def text(record: Record, absolute: bool | None = None) -> str:
    """Return the tables for a terminal; see pictures()."""
    parts = [f"{title}\n{text_table(header, rows)}"
             for title, header, rows in tables(record, absolute)]
    return "\n\n".join([*parts, textwrap.fill(words(record, absolute), 78)])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python3 -m perf.curves", allow_abbrev=False,
        description="Measure IOPS, latency and CPU time over depths and jobs.",
        epilog="The environment variable KERNEL sets the kernel to boot (6.12).")
    parser.add_argument("--cpus", type=int,
                        help="the guest's number of CPUs and queues (the host's)")
    parser.add_argument("--rounds", type=int,
                        help=f"({sweep.ROUNDS}, or {sweep.QUICK_ROUNDS})")
    parser.add_argument("--seconds", type=int, help="duration of each sample "
                        f"({sweep.SECONDS}, or {sweep.QUICK_SECONDS})")
    parser.add_argument("--quick", action="store_true", help="fewer points and rounds")
    parser.add_argument("--absolute", action="store_true",
                        help="show figures per second, even under emulation")
    parser.add_argument("--draw", metavar="FILE", type=Path,
                        help="measure nothing; draw the record of a curves.json")
    return parser.parse_args()


def main() -> int:
    """Measure, or read a record; print the tables and write the pictures."""
    arguments = _arguments()
    repository.writable(_OUT)
    try:
        if arguments.draw:
            record = Record.read(json.loads(arguments.draw.read_text()))
        else:
            record = sweep.measure(
                os.environ.get("KERNEL", sweep.KERNEL), cpus=arguments.cpus,
                rounds=arguments.rounds, seconds=arguments.seconds,
                quick=arguments.quick)
            (_OUT / "curves.json").write_text(
                json.dumps(record.as_dict(), indent=1) + "\n")
    except GuestError as error:
        say(f"error: {error}")
        return 1
    absolute = arguments.absolute or record.absolute
    print(text(record, absolute))
    for name, draw in pictures(record, absolute).items():
        (_OUT / f"{name}.png").write_bytes(draw())
        say(f"  wrote build/bench/{name}.png")
    return 0


if __name__ == "__main__":
    ui.main(main)
