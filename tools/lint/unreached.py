# SPDX-License-Identifier: GPL-2.0
"""The lines of the driver that no test reaches, and why: tools/lint/unreached.txt.

A line of that file without indentation is a reason.  The indented lines below it are
what it is the reason for:

    FILE FUNCTION: TEXT

FILE is a path from the top of the repository, and TEXT a line of FUNCTION without the
space around it, or * for all of its lines.  Lines that begin with # are comments.
"""

import re
from dataclasses import dataclass

from host import repository
from host.ui import UserError

from . import executed
from .executed import Source

NAME = "tools/lint/unreached.txt"
_ENTRY = re.compile(r"(\S+) (\w+): (.+)")


@dataclass(frozen=True)
class Entry:
    """Lines that no test reaches."""
    path: str
    function: str
    text: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path} {self.function}: {self.text}"


@dataclass(frozen=True)
class Compared:
    """The lines that were not reached, and the reasons for lines that were.

    explained, unexplained: lines, as "file:number function: text".
    stale: entries none of whose lines was unreached.
    """
    explained: list[str]
    unexplained: list[str]
    stale: list[Entry]


def read() -> list[Entry]:
    """Return the entries of the file; raise UserError if one is not as it must be."""
    return parse((repository.TOP / NAME).read_text())


def parse(text: str) -> list[Entry]:
    """Return the entries in a text, see read()."""
    found: list[Entry] = []
    reason = ""
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        if not line[0].isspace():
            reason = line.strip()
            continue
        match = _ENTRY.fullmatch(line.strip())
        if match is None or not reason:
            raise UserError(f"{NAME}:{number}: {line.strip()!r} must be FILE FUNCTION: "
                            "TEXT, below a reason")
        found.append(Entry(match[1], match[2], match[3], reason))
    return found


def check(entries: list[Entry]) -> list[str]:
    """Return an error for each entry whose file, function or text does not exist."""
    wrong = []
    for entry in entries:
        path = repository.TOP / entry.path
        text = path.read_text().splitlines() if path.exists() else []
        lines = executed.functions(text).get(entry.function)
        if lines is None:
            wrong.append(f"{entry}: there is no such function")
        elif entry.text not in ("*", *(text[line - 1].strip() for line in lines)):
            wrong.append(f"{entry}: the function has no such line")
    return wrong


def compare(sources: list[Source], entries: list[Entry]) -> Compared:
    """Compare the lines that were not reached with the entries."""
    explained: list[str] = []
    unexplained: list[str] = []
    used: set[Entry] = set()
    for source in sources:
        for number in source.unreached():
            name = source.function_of(number)
            text = source.text[number - 1].strip()
            matching = {entry for entry in entries
                        if (entry.path, entry.function) == (source.path, name)
                        and entry.text in ("*", text)}
            used |= matching
            (explained if matching else unexplained).append(
                f"{source.path}:{number} {name}: {text}")
    return Compared(explained, unexplained,
                    [entry for entry in entries if entry not in used])
