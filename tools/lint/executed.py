# SPDX-License-Identifier: GPL-2.0
"""What ran of a source file, from the counters that vm.gcov collected.

gcov reads counters (.gcda) and the compiler's notes (.gcno).  The same source can be in
several builds, and a header in several objects: all of them are added up.
"""

import functools
import gzip
import json
import re
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from host import repository
from host.ui import UserError
from vm import gcov

# Tables of trace points, and tests that run in the kernel.
_NOT_COUNTED = re.compile(r"/(trace\.[ch]|tests/.*)$")
_PART = re.compile(r"(?:^|/)((?:%s)/.*)$" % "|".join(gcov.PARTS))
_HEAD = re.compile(r"(\w+)\(")
_LABEL = re.compile(r"^ ?([a-z]\w*):$")


@dataclass
class Source:
    """A source file, and what ran of it.

    path: from the top of the repository.
    text: its lines; line 1 is text[0].
    lines: how often each line that has code ran, by its number.
    branches: how often each way out of a line was taken, by the line's number.
    """
    path: str
    text: list[str]
    lines: dict[int, int] = field(default_factory=dict)
    branches: dict[int, list[int]] = field(default_factory=dict)

    @functools.cached_property
    def functions(self) -> dict[str, range]:
        """The numbers of each function's lines."""
        return functions(self.text)

    def function_of(self, line: int) -> str:
        """Return the name of the function that has a line, "" if none has."""
        return next((name for name, lines in self.functions.items() if line in lines),
                    "")

    def calls(self, name: str) -> int | None:
        """Return how often a function began; None if it has no code."""
        return next((self.lines[line] for line in self.functions[name]
                     if line in self.lines), None)

    def unreached(self) -> list[int]:
        """Return the numbers of the lines with code that never ran."""
        return sorted(line for line, count in self.lines.items() if not count)

    def labels(self) -> dict[int, bool]:
        """Return whether the code of each label that a goto names has run.

        The key is the label's line.  A label of a function that has no code, because
        it is for another configuration, is left out.
        """
        found = {}
        for lines in self.functions.values():
            for line in lines:
                if _LABEL.match(self.text[line - 1]):
                    code = [at for at in lines if at > line and at in self.lines]
                    if code:
                        found[line] = self.lines[code[0]] > 0
        return found

    def add(self, found: dict[str, Any]) -> None:
        """Add what gcov's JSON says about this file in one object."""
        for line in found["lines"]:
            number = line["line_number"]
            self.lines[number] = self.lines.get(number, 0) + line["count"]
            self._add_branches(number, [way["count"] for way in line["branches"]])

    def _add_branches(self, number: int, ways: list[int]) -> None:
        """Add branches; the longest list is of the copy with nothing optimized away."""
        known = self.branches.get(number, [])
        if len(ways) == len(known):
            ways = [one + other for one, other in zip(ways, known)]
        if ways and len(ways) >= len(known):
            self.branches[number] = ways


def functions(text: list[str]) -> dict[str, range]:
    """Return the lines' numbers of each function of a C source in the kernel's style.

    gcov does not know a function that the compiler inlined everywhere.
    """
    found = {}
    for number, line in enumerate(text):
        if line != "{":
            continue
        begin = number - 1
        while begin and text[begin][:1].isspace():
            begin -= 1
        head = _HEAD.search(text[begin])
        if head:
            found[head[1]] = range(begin + 1, text.index("}", number) + 2)
    return found


def sources(counters: Path) -> dict[str, Source]:
    """Return the driver's sources by path, with the counters of a directory.

    Raises UserError if the notes are gone, or a source is not what was compiled.
    """
    found: dict[str, Source] = {}
    for data in sorted(counters.rglob("*.gcda")):
        notes = Path("/", data.relative_to(counters)).with_suffix(".gcno")
        for file in _gcov(data, notes):
            path = _PART.search(file["file"])
            if path is None or _NOT_COUNTED.search(path[1]):
                continue
            name = path[1]
            if name not in found:
                found[name] = Source(name, _text(Path(file["file"]), name))
            found[name].add(file)
    return dict(sorted(found.items()))


def _gcov(data: Path, notes: Path) -> list[dict[str, Any]]:
    """Return what gcov says about the files that an object was compiled from.

    The names of the files are absolute.
    """
    if not notes.exists():
        raise UserError(f"{notes} is gone, and without it {data} cannot be read; run "
                        "`make coverage` again")
    with tempfile.TemporaryDirectory() as work:
        # gcov looks for the notes beside the counters.
        for path in (data, notes):
            Path(work, path.name).symlink_to(path.resolve())
        done = subprocess.run(
            ["gcov-12", "--branch-probabilities", "--json-format", data.name], cwd=work,
            text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        out = Path(work, f"{data.stem}.gcov.json.gz")
        if done.returncode or "stamp mismatch" in done.stdout or not out.exists():
            raise UserError(f"gcov cannot read {data}:\n{done.stdout.strip()[-400:]}\n"
                            "Run `make coverage` again")
        said = json.loads(gzip.decompress(out.read_bytes()))
    top = Path(said["current_working_directory"])
    return [{**file, "file": str(top / file["file"])} for file in said["files"]]


def _text(compiled: Path, name: str) -> list[str]:
    """Return the lines of a source; raise UserError if it changed since it was built."""
    here = repository.TOP / name
    try:
        same = here.read_bytes() == compiled.read_bytes()
    except OSError:
        same = False
    if not same:
        raise UserError(f"{name} is not what the kernel was built from; run `make "
                        "coverage` again, and change no source while it runs")
    return here.read_text().splitlines()
