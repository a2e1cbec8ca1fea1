# SPDX-License-Identifier: GPL-2.0
"""Documentation/conformance.rst is true: all names in it exist.

The tests read the list-tables of the page, and compare each row with the driver, the
tests and the rules of vblksim.  No guest.
"""

import ast
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest

from . import virtio_sections
from .virtio_sections import SECTIONS

TOP = Path(__file__).resolve().parents[3]
PAGE = "Documentation/conformance.rst"
DRIVER = "drivers/block/virtio_blk"
TESTS = "tools/testing"
VBLKSIM = "tools/vblksim"

COLUMNS = ("Section", "What it says", "Driver", "Test", "Rule", "In-tree driver")
# The tables of features have two more.
FEATURE_COLUMNS = COLUMNS[:1] + ("Feature", "Negotiated") + COLUMNS[1:]
# A cell without a name gives the reason.
REASON = re.compile(r"none: \S")


# The page

def tables(text):
    """Yield (line number, [[cell, ...], ...]) of each list-table of a page."""
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        if not line.startswith(".. list-table::"):
            continue
        rows = []
        for inner in lines[number:]:
            if inner and not inner.startswith("   "):
                break
            if match := re.match(r"   \* -(.*)", inner):
                rows.append([match[1].strip()])
            elif match := re.match(r"     -(.*)", inner):
                rows[-1].append(match[1].strip())
            elif rows and inner.strip():
                rows[-1][-1] = f"{rows[-1][-1]} {inner.strip()}".strip()
        yield number, rows


def literals(cell):
    """Return the words of a cell between double backquotes."""
    return re.findall(r"``(.+?)``", cell)


# The tree

def functions(top):
    """Return {file: names} of the functions that the driver defines."""
    return {path.name: set(re.findall(
        r"^(?:[A-Za-z_][\w \t*]*?[ *])?(\w+)\([^;{}]*?\)\n\{",
        path.read_text(), re.MULTILINE))
        for path in (top / DRIVER).glob("*.[ch]")}


def driver_features(top):
    """Return the names in the driver's table of features, without prefix."""
    (table,) = re.findall(r"virtblk_features\[\] = \{(.*?)\};",
                          (top / DRIVER / "main.c").read_text(), re.DOTALL)
    return set(re.findall(r"_F_(\w+)", table))


def feature_numbers(top):
    """Return {name: bit} of the features that vblksim knows.

    Names have the prefixes of VIRTIO, except "VIRTIO_RING".
    """
    text = "".join((top / VBLKSIM / name).read_text()
                   for name in ("blk.h", "virtio.h"))
    return {f"VIRTIO_{name}": int(bit) for name, bit in
            re.findall(r"^\t((?:BLK_)?F_(?!RESERVED)\w+)\s*= (\d+),", text,
                       re.MULTILINE)}


def known_tests(top):
    """Return all tests as "suite::name"."""
    return {f"{path.stem}::{node.name}"
            for path in (top / TESTS).rglob("test_*.py")
            for node in ast.parse(path.read_text()).body
            if isinstance(node, ast.FunctionDef)
            and node.name.startswith("test_")}


def config_rows(top):
    """Return the names of the rows in config_kunit.c."""
    return set(re.findall(r'"([^"\n]+)"',
                          (top / DRIVER / "tests/config_kunit.c").read_text()))


def rules(top, kind):
    """Return the names of vblksim's rules: of "block" or of "ring"."""
    text = (top / VBLKSIM / f"rules_{kind}.h").read_text()
    return set(re.findall(r'^\tX\((\w+), "', text, re.MULTILINE))


# The page against the tree

class Checker:
    """Compares the page with a tree; errors are sentences that name the row."""

    def __init__(self, top):
        self.errors = []
        self._functions = functions(top)
        self._tests = known_tests(top) | {f"config_kunit: {name}"
                                    for name in config_rows(top)}
        self._rules = rules(top, "block") | rules(top, "ring")
        self._in_driver = driver_features(top)
        self._numbers = feature_numbers(top)
        self._named_rules = set()
        self._features = set()
        # How often the rows of each section say MUST.
        self._musts = Counter()
        text = (top / PAGE).read_text()
        for line, rows in tables(text):
            self._check_table(line, rows)
        self._check_complete()

    def _complain(self, where, what):
        self.errors.append(f"{PAGE}: {where}: {what}")

    def _check_table(self, line, rows):
        header = tuple(rows[0]) if rows else ()
        if header not in (COLUMNS, FEATURE_COLUMNS):
            self._complain(f"the table at line {line}", f"its columns are "
                           f"{header}, not those of this page")
            return
        for cells in rows[1:]:
            where = f"the row {' | '.join(cells)[:60]!r}"
            if len(cells) != len(header):
                self._complain(where, f"has {len(cells)} cells, and the table "
                               f"{len(header)} columns")
                continue
            row = dict(zip(header, cells))
            for name, cell in row.items():
                if not cell.strip("`*_. "):
                    self._complain(where, f"has nothing under {name!r}")
            self._check_section(where, row["Section"])
            self._musts[row["Section"]] += len(re.findall(r"\bMUST\b",
                                                          row["What it says"]))
            self._check_driver(where, row["Driver"])
            self._check_test(where, row["Test"])
            self._check_rule(where, row["Rule"])
            if "Feature" in row:
                self._check_feature(where, row["Feature"], row["Negotiated"])

    def _check_section(self, where, cell):
        if cell not in SECTIONS:
            self._complain(where, f"{cell!r} is no section of VIRTIO "
                           f"{virtio_sections.VERSION} in virtio_sections.py")

    def _check_driver(self, where, cell):
        file = None
        for name in literals(cell):
            if re.fullmatch(r"\w+\.[ch]", name):
                file = name
                if name not in self._functions:
                    self._complain(where, f"the driver has no file {name}")
            elif name.endswith("()"):
                if name[:-2] not in self._functions.get(file, ()):
                    self._complain(where, f"{file} has no function {name}")
        if not file and not REASON.match(cell):
            self._complain(where, "names no file of the driver, and does not "
                           'say why, as in "none: because"')

    def _check_test(self, where, cell):
        names = [name for name in literals(cell) if ":" in name]
        for name in names:
            if name not in self._tests:
                self._complain(where, f"there is no test {name}")
        if not names and not REASON.match(cell):
            self._complain(where, "names no test, and does not say why, as in "
                           '"none: because"')

    def _check_rule(self, where, cell):
        names = literals(cell)
        for name in names:
            if name not in self._rules:
                self._complain(where, f"vblksim has no rule {name}")
        if not names and not REASON.match(cell):
            self._complain(where, "names no rule of vblksim, and does not say "
                           'why, as in "none: because"')
        self._named_rules.update(names)

    def _check_feature(self, where, feature, negotiated):
        match = re.fullmatch(r"``(VIRTIO_(?:BLK_|RING_)?F_(\w+))`` \((\d+)\)",
                             feature)
        claim = re.match(r"(yes|no)\b", negotiated)
        if not match or not claim:
            self._complain(where, "needs ``NAME`` (BIT) as its feature, and to "
                           'say "yes" or "no" of it')
            return
        full, name, bit = match.groups()
        if full in self._features:
            self._complain(where, f"{full} has a row already")
        self._features.add(full)
        number = self._numbers.get(full.replace("_RING_F_", "_F_"), int(bit))
        if number != int(bit):
            self._complain(where, f"{full} is bit {number}")
        # The virtio core negotiates features that are not of the block device.
        claimed = claim[1] == "yes" and ("_BLK_" in full or not
                                         negotiated.startswith("yes, by the"))
        if claimed != (name in self._in_driver):
            self._complain(where, f"says {negotiated!r}, and the driver's table "
                           f"has {name}" if not claimed else
                           f"says {negotiated!r}, and the driver's table has no "
                           f"{name}")

    def _check_complete(self):
        named = {name.replace("_RING_F_", "_F_") for name in self._features}
        known = self._numbers.keys() | {
            f"VIRTIO_BLK_F_{name}" for name in self._in_driver}
        for name in sorted(known - named):
            self._complain("features", f"{name} has no row")
        for name in sorted(self._rules - self._named_rules):
            self._complain("rules", f"no row names vblksim's rule {name}")
        for section in SECTIONS.values():
            number = section.number
            if section.binds_drivers and number not in self._musts:
                self._complain("sections", f"{number} ({section.title}) has no row")
            if self._musts[number] != section.musts:
                self._complain("sections", f"the rows of {number} say MUST "
                               f"{self._musts[number]} times, and the section "
                               f"{section.musts} times")


def test_conformance_page_matches_tree():
    """All names on the page exist, and it covers all features, rules and sections."""
    assert not Checker(TOP).errors


def test_vblkstat_names_each_feature():
    """vblkstat has the names of all features on the page, and no others."""
    source = TOP / "tools/vblkstat"
    numbers = dict(re.findall(r"\t(F_\w+)\s*= (\d+),", (source / "vblkstat.h").read_text()))
    named = {int(numbers.get(bit, bit)): name for bit, name in re.findall(
        r'^\t\[(\w+)\] = \{ "(\w+)"', (source / "features.c").read_text(), re.MULTILINE)}
    assert named == {int(bit): name for name, bit in re.findall(
        r"- ``VIRTIO_(?:BLK_|RING_)?F_(\w+)`` \((\d+)\)$", (TOP / PAGE).read_text(),
        re.MULTILINE)}


# The checker

# (file, text in it, text that replaces it in a copy of the tree, the expected error)
WRONG = {
    "test": (PAGE, "``test_spec::test_lifetime``", "``test_spec::test_livetime``",
             "no test test_spec::test_livetime"),
    "suite": (PAGE, "``test_spec::test_lifetime``", "``test_sysfs::test_lifetime``",
              "no test test_sysfs::test_lifetime"),
    "config-row": (PAGE, "``config_kunit: 257 ranges``", "``config_kunit: 258 r``",
                   "no test config_kunit: 258 r"),
    "renamed-test": (f"{TESTS}/simulator/test_spec.py", "def test_lifetime(",
                     "def test_wear(", "no test test_spec::test_lifetime"),
    "file": (PAGE, "``zoned.c``", "``zones.c``", "no file zones.c"),
    "function": (PAGE, "``virtblk_parse_zone()``", "``virtblk_get_zone()``",
                 "zoned.c has no function virtblk_get_zone()"),
    "function-elsewhere": (PAGE, "``queue.c``: ``virtblk_device_queues()``",
                           "``io.c``: ``virtblk_device_queues()``",
                           "io.c has no function virtblk_device_queues()"),
    "renamed-function": (f"{DRIVER}/zoned.c", "virtblk_parse_zone(",
                         "virtblk_believe_zone(",
                         "zoned.c has no function virtblk_parse_zone()"),
    "rule": (PAGE, "``ZONE_NO_DATA``", "``ZONE_SOME_DATA``",
             "no rule ZONE_SOME_DATA"),
    "rule-without-row": (f"{VBLKSIM}/rules_block.h", "X(FLUSH_DATA,",
                         'X(FLUSH_TWICE, "5.2.6", MUST, "")\t\\\n\tX(FLUSH_DATA,',
                         "no row names vblksim's rule FLUSH_TWICE"),
    "no-rule-left": (PAGE, "``ZONE_NO_DATA``, ``REQUEST_DIRECTION``",
                     "``REQUEST_DIRECTION``",
                     "no row names vblksim's rule ZONE_NO_DATA"),
    "empty-cell": (PAGE, "     - ``ZONE_RESET_ALL_SECTOR``\n", "     -\n",
                   "has nothing under 'Rule'"),
    "no-cell": (PAGE, "     - ``ZONE_RESET_ALL_SECTOR``\n", "",
                "has 5 cells"),
    "no-reason": (PAGE, "- none: not visible to a device\n", "- none\n",
                  "names no rule of vblksim, and does not say why"),
    "columns": (PAGE, "     - In-tree driver\n", "     - Others\n",
                "not those of this page"),
    "section": (PAGE, "* - 5.2.6.1\n", "* - 5.2.7.1\n",
                "'5.2.7.1' is no section of VIRTIO 1.4"),
    "section-without-row": (PAGE, "* - 2.4.2\n", "* - 2.4.1\n",
                            "2.4.2 (Driver Requirements: Device Reset) has no row"),
    "must-forgotten": (PAGE, "- MUST set the sector of a flush to 0\n",
                       "- sets the sector of a flush to 0\n",
                       "the rows of 5.2.6.1 say MUST 19 times, and the section 20"),
    "ring-rule-without-row": (PAGE, "- ``SPLIT_HEAD``\n", "- ``SPLIT_NEXT``\n",
                              "no row names vblksim's rule SPLIT_HEAD"),
    "feature-without-row": (PAGE, "``VIRTIO_F_SUSPEND`` (43)", "``VIRTIO_F_OTHER`` (44)",
                            "VIRTIO_F_SUSPEND has no row"),
    "feature-dropped": (f"{DRIVER}/main.c", "\tVIRTBLK_F_LIFETIME,\n", "",
                        "the driver's table has no LIFETIME"),
    "feature-added": (f"{DRIVER}/main.c", "\tVIRTBLK_F_LIFETIME,\n",
                      "\tVIRTBLK_F_LIFETIME,\n\tVIRTIO_BLK_F_COPY,\n",
                      "VIRTIO_BLK_F_COPY has no row"),
    "feature-denied": (f"{DRIVER}/main.c", "\tVIRTBLK_F_LIFETIME,\n",
                       "\tVIRTBLK_F_LIFETIME,\n\tVIRTIO_BLK_F_SCSI,\n",
                       "the driver's table has SCSI"),
    "claim": (PAGE, "``VIRTIO_BLK_F_LIFETIME`` (15)\n     - yes",
              "``VIRTIO_BLK_F_LIFETIME`` (15)\n     - no",
              "the driver's table has LIFETIME"),
    "bit": (PAGE, "``VIRTIO_BLK_F_LIFETIME`` (15)",
            "``VIRTIO_BLK_F_LIFETIME`` (14)", "VIRTIO_BLK_F_LIFETIME is bit 15"),
    "ring-bit": (PAGE, "``VIRTIO_RING_F_EVENT_IDX`` (29)",
                 "``VIRTIO_RING_F_EVENT_IDX`` (30)",
                 "VIRTIO_RING_F_EVENT_IDX is bit 29"),
}


@pytest.mark.parametrize("case", WRONG)
def test_checker_finds_each_error(tmp_path, case):
    """The checker finds each kind of error in a copy of the tree that has it."""
    file, was, now, complaint = WRONG[case]
    for place in (Path(PAGE).parent, DRIVER, TESTS, VBLKSIM):
        shutil.copytree(TOP / place, tmp_path / place,
                        ignore=shutil.ignore_patterns("*.png", "__pycache__"))
    text = (tmp_path / file).read_text()
    assert was in text
    (tmp_path / file).write_text(text.replace(was, now))
    errors = Checker(tmp_path).errors
    assert any(complaint in error for error in errors), errors
