# SPDX-License-Identifier: GPL-2.0
"""HTML pages, tables and plots for the tools that write a report.

A table is a header and rows of strings.
"""

import base64
import html
import re
import struct
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from string import Template

from . import deps

_TEMPLATE = Path(__file__).parent / "page.html"

LIGHT = {"ink": "#1f2328", "paper": "#ffffff", "faint": "#6b7280",
         "accent": "#2563a8"}
DARK = {"ink": "#e4e6ea", "paper": "#16181c", "faint": "#9aa1ac",
        "accent": "#6ea8e8"}


def text_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table for a terminal; columns of numbers are right-aligned."""
    widths = [max(map(len, column)) for column in zip(header, *rows)]
    numeric = [all(re.match(r"[-+]?\d[\d.]*( [(/]|$)|-$|not known$", cell)
                   for cell in column)
               for column in zip(*rows)]
    lines = ["  ".join(cell.rjust(width) if right else cell.ljust(width)
                       for cell, width, right in zip(row, widths, numeric))
             for row in [header, *rows]]
    return "\n".join(f"  {line}".rstrip() for line in lines)


# Cells that are a verdict: the page colours them.
_MARKS = {"ok": "pass", "met": "pass", "faster": "pass", "FAIL": "fail",
          "MISSED": "fail", "slower": "fail"}


def html_table(header: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "wide",
               columns: Mapping[str, str] | None = None) -> str:
    """Return an HTML table; kind "wide" does not wrap lines, and scrolls.

    columns: a line of explanation for each column by its head, shown below the table.
    """
    columns = columns or {}

    def cell(text: str) -> str:
        start = f'<td class="{_MARKS[text]}">' if text in _MARKS else "<td>"
        return f"{start}{html.escape(text)}</td>"

    head = "".join(f"<th>{html.escape(text)}</th>" for text in header)
    body = "".join(f"<tr>{''.join(map(cell, cells))}</tr>" for cells in rows)
    notes = "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(columns[name])}</dd>"
                    for name in header if name in columns)
    head = f"<tr>{head}</tr>" if any(header) else ""
    return (f'<div class="{kind}"><table><thead>{head}</thead>'
            f"<tbody>{body}</tbody></table></div>"
            + (f'<dl class="columns">{notes}</dl>' if notes else ""))


def foot_line(*, kernel: str, qemu: str, accelerator: str, commit: str | None,
              rounds: str | None = None) -> str:
    """Return the line at the foot of a picture: what was measured, and how often.

    kernel: its release; commit: of the driver, None if unknown; rounds: text, such as
    "5 rounds of 3 s", or None.
    """
    parts = [f"Linux {kernel}", f"QEMU {qemu}", accelerator.upper(),
             f"commit {commit or 'unknown'}", rounds]
    return "  ·  ".join(part for part in parts if part)


def plot(script: Path, lines: Iterable[str], colours: Mapping[str, str] = LIGHT, *,
         title: str, foot: str) -> bytes:
    """Return the PNG that a gnuplot script draws; raise OSError if it fails.

    lines: gnuplot statements that run before the script.  The script also has the
    colours, and the texts title and foot, which it must show.
    """
    texts = {**colours, "title": title, "foot": foot}
    made = subprocess.run([deps.path_of("gnuplot")], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, input="\n".join(
                              [*lines, *(f"{name} = {quoted(value)}"
                                         for name, value in texts.items()),
                               f"load '{script}'", ""]).encode())
    if made.returncode or not made.stdout:
        raise OSError(f"gnuplot failed: {made.stderr.decode().strip()}")
    return made.stdout


def quoted(text: str) -> str:
    """Return a text as a string of gnuplot's language."""
    for plain, escaped in (("\\", r"\\"), ('"', r'\"'), ("\n", r"\n")):
        text = text.replace(plain, escaped)
    return f'"{text}"'


def figure(draw: Callable[[dict[str, str]], bytes], alt: str) -> str:
    """Return HTML for a picture in a light and a dark variant.

    draw: a function that returns a PNG in the given colours; alt: text in its place.
    """
    light, dark = (draw(colours) for colours in (LIGHT, DARK))
    # The first chunk of a PNG begins with width and height.
    width, height = struct.unpack(">II", light[16:24])
    bright, dim = (base64.b64encode(png).decode() for png in (light, dark))
    return ('<figure><picture><source media="(prefers-color-scheme: dark)" '
            f'srcset="data:image/png;base64,{dim}">'
            f'<img src="data:image/png;base64,{bright}" width="{width}" '
            f'height="{height}" alt="{html.escape(alt)}"></picture></figure>')


def page(command: str, heading: str, why: str, body: str, mark: str = "") -> str:
    """Return a self-contained HTML page.

    command: the command that made it; why: text below the heading; body: HTML;
    mark: "pass" or "fail" if the heading is a verdict.
    """
    return Template(_TEMPLATE.read_text()).substitute(
        command=command, heading=html.escape(heading), mark=mark,
        why=html.escape(why), body=body)
