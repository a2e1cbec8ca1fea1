# SPDX-License-Identifier: GPL-2.0
"""HTML pages, tables and plots for the tools that write a report.

A table is a header and rows of strings.
"""

import base64
import html
import re
import subprocess
from pathlib import Path
from string import Template

from . import host

_TEMPLATE = Path(__file__).parent / "page.html"

LIGHT = {"ink": "#1f2328", "paper": "#ffffff", "faint": "#6b7280",
         "accent": "#2563a8"}
DARK = {"ink": "#e4e6ea", "paper": "#16181c", "faint": "#9aa1ac",
        "accent": "#6ea8e8"}


def text_table(header, rows):
    """Return a table for a terminal; columns of numbers are right-aligned."""
    widths = [max(map(len, column)) for column in zip(header, *rows)]
    numeric = [all(re.match(r"[-+]?\d|-$|not known$", cell) for cell in column)
               for column in zip(*rows)]
    lines = ["  ".join(cell.rjust(width) if right else cell.ljust(width)
                       for cell, width, right in zip(row, widths, numeric))
             for row in [header, *rows]]
    return "\n".join(f"  {line}".rstrip() for line in lines)


def html_table(header, rows, kind="wide"):
    """Return an HTML table; kind "wide" does not wrap lines, and scrolls."""
    def row(cells, tag):
        return "<tr>" + "".join(
            f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    head = row(header, "th") if any(header) else ""
    body = "".join(row(cells, "td") for cells in rows)
    return (f'<div class="{kind}"><table><thead>{head}</thead>'
            f"<tbody>{body}</tbody></table></div>")


def plot(script, lines, colours=LIGHT):
    """Return the PNG that a gnuplot script draws; raise OSError if it fails.

    lines: gnuplot statements that run before the script, besides the colours.
    """
    colours = [f"{name} = '{value}'" for name, value in colours.items()]
    made = subprocess.run([host.which("gnuplot")], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, input="\n".join(
                              [*lines, *colours, f"load '{script}'", ""]).encode())
    if made.returncode or not made.stdout:
        raise OSError(f"gnuplot failed: {made.stderr.decode().strip()}")
    return made.stdout


def figure(draw, size, alt):
    """Return HTML for a picture in a light and a dark variant.

    draw: a function that returns a PNG in the given colours; size: width and height.
    """
    light, dark = (base64.b64encode(draw(colours)).decode()
                   for colours in (LIGHT, DARK))
    return ('<figure><picture><source media="(prefers-color-scheme: dark)" '
            f'srcset="data:image/png;base64,{dark}">'
            f'<img src="data:image/png;base64,{light}" width="{size[0]}" '
            f'height="{size[1]}" alt="{html.escape(alt)}"></picture></figure>')


def page(command, heading, why, body, mark=""):
    """Return a self-contained HTML page.

    command: the command that made it; why: text below the heading; body: HTML;
    mark: "pass" or "fail" if the heading is a verdict.
    """
    return Template(_TEMPLATE.read_text()).substitute(
        command=command, heading=html.escape(heading), mark=mark,
        why=html.escape(why), body=body)
