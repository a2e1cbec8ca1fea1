# SPDX-License-Identifier: GPL-2.0
"""The pages for readers build, and all that they name exists.

The tests read the pages as text, and look up words in literals and words that can only
be names of the driver.  No guest.
"""

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from host import repository

from .test_conformance import functions

TOP = Path(__file__).resolve().parents[3]
PAGES = ("README.md", "CONTRIBUTING.md",
         *(f"Documentation/{path.name}"
           for path in sorted((TOP / "Documentation").glob("*.rst"))))
# A file that the reader writes, and one that is in build/.
FOREIGN = {"experiment.py", "report.json"}
SOURCES = ("drivers", "include", "tools")
FILE = re.compile(r"(?<![\w/.$~-])[\w.-]+(?:/[\w.-]+)*"
                  r"\.(?:c|h|py|rst|md|mk|json|txt|config|gnuplot|bt)(?![\w/.])")


# Pages

def literals(text):
    """Yield the text of a page between backquotes and in literal blocks."""
    for match in re.finditer(r"``(.+?)``|`([^`]+)`(?!_)", text, re.DOTALL):
        yield re.sub(r"\s+", " ", match[1] or match[2])
    yield from blocks(text)


def blocks(text):
    """Yield the lines of a page that are indented by four or more, each stripped.

    These are the lines of literal blocks, and a few others, which do no harm.
    """
    for line in text.splitlines():
        if line.startswith("    ") and line.strip():
            yield line.strip()


def files(text):
    """Return the names of files in a page's literals.

    Absolute paths and those that begin with ~, a variable or build/ are left out,
    because they are not in the tree.
    """
    return {name for literal in literals(text) for name in FILE.findall(literal)
            if not name.startswith("build/")} - FOREIGN


def targets(text):
    """Return the targets of make on a page, except those of make -C."""
    return {match[1] for literal in literals(text)
            if (match := re.match(r"(?:\w+=\S+ )*make ([a-z][a-z-]*)", literal))}


def modules(text):
    """Return the modules that a page starts with python3 -m."""
    return {module for literal in literals(text)
            for module in re.findall(r"python3 -m (\w+(?:\.\w+)+)", literal)}


def suites(text):
    """Return the names of test files and tests on a page."""
    return set(re.findall(r"(?<![\w/])test_\w+", text))


# The tree

def is_there(name, paths):
    """Return whether a path, or the end of a path, names a file."""
    return any(path == name or path.endswith(f"/{name}") for path in paths)


class Tree:
    """The names in the tree that a page can refer to."""

    def __init__(self):
        self.paths = set(map(str, repository.files()))
        self.functions = set().union(*functions(TOP).values())
        rules = re.findall(r"^([a-z][a-z -]*):", (TOP / "Makefile").read_text(),
                           re.MULTILINE)
        self.targets = {word for words in rules for word in words.split()}
        self.words = self._found(r"virtblk_\w+", (".c", ".h", ".mk", ".bt"))
        self.tests = self._found(r"(?<=def )test_\w+", (".py",)) | {
            Path(path).stem for path in self.paths if path.startswith("tools/testing")}

    def _found(self, pattern, suffixes):
        """Return the matches of a pattern in the sources with these suffixes."""
        return {word for path in self.paths
                if path.startswith(SOURCES) and path.endswith(suffixes)
                for word in re.findall(pattern, (TOP / path).read_text())}


def complaints(page, text, there):
    """Return the names on a page that the tree does not have, as sentences."""
    found = [f"{page}: there is no file {name}" for name in sorted(files(text))
             if not is_there(name, there.paths)]
    found += [f"{page}: make has no target {name}"
              for name in sorted(targets(text) - there.targets)]
    found += [f"{page}: there is no module {name}" for name in sorted(modules(text))
              if f"tools/{name.replace('.', '/')}.py" not in there.paths]
    found += [f"{page}: there is no test {name}"
              for name in sorted(suites(text) - there.tests)]
    found += [f"{page}: the driver has no function {name}()" for name in
              sorted(set(re.findall(r"\b(virtblk_\w+)\(\)", text)) - there.functions)]
    found += [f"{page}: nothing is called {name}" for name in
              sorted(set(re.findall(r"\bvirtblk_\w+", text)) - there.words)]
    return found


@pytest.fixture(scope="module")
def there():
    return Tree()


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_names_is_there(page, there):
    """All files, functions, targets of make and tests on a page are in the tree."""
    assert not complaints(page, (TOP / page).read_text(), there)


@pytest.mark.parametrize("text,complaint", (
    ("``io.c`` and ``reset.c``, ``tools/vm/guest.py``, ``include/compat/detect.mk``",
     None),
    ("``oi.c``", "no file oi.c"),
    ("`drivers/block/io.c`", "no file drivers/block/io.c"),
    ("``virtblk_reap()`` of ``struct virtblk_queue``", None),
    ("``virtblk_queue()``", "no function virtblk_queue()"),
    ("virtblk_harvest", "nothing is called virtblk_harvest"),
    ("``make check\nT=affinity``, ``KERNEL=6.1 make shell``", None),
    ("    make chekc T=affinity", "no target chekc"),
    ("``PYTHONPATH=tools python3 -m perf.scale``", None),
    ("``python3 -m perf.snail``", "no module perf.snail"),
    ("``test_sysfs``, ``test_thirty_disks``", None),
    ("``test_forty_disks``", "no test test_forty_disks"),
    ("``build/run/report.html`` and ``/usr/src/x.c``, ``$HOME/y.c``, ``~/z.c``", None),
))
def test_missing_names_are_reported(text, complaint, there):
    """A name that does not exist gives one error, and a name that does gives none."""
    found = complaints("page", text, there)
    assert len(found) == bool(complaint)
    assert not complaint or complaint in found[0]


def test_help_has_every_target():
    """`make help` names all targets, in one screen."""
    makefile = (TOP / "Makefile").read_text().replace("\\\n", "")
    targets = set(re.search(r"^\.PHONY: (.*)", makefile, re.MULTILINE)[1].split())
    shown = (TOP / "tools/run/help.txt").read_text()
    assert targets - {"help", "python"} == set(re.findall(r"make ([a-z-]+)", shown))
    assert len(shown.splitlines()) <= 48


def test_every_suite_is_in_the_table():
    """Documentation/testing.rst has a line for each test file."""
    page = (TOP / "Documentation/testing.rst").read_text()
    missing = [path.stem for path in sorted((TOP / "tools/testing").rglob("test_*.py"))
               if not re.search(rf"^``{path.stem}`` ", page, re.MULTILINE)]
    assert not missing


# HTML

class Links(HTMLParser):
    """The ids and the link targets of a page."""

    def __init__(self, path):
        super().__init__()
        self.ids = set()
        self.links = set()
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.ids |= {attributes.get("id")}
        for name in ("href", "src"):
            if attributes.get(name):
                self.links.add(attributes[name])


def broken(directory):
    """Return the broken links between built pages, as (page, link)."""
    pages = {path: Links(path) for path in directory.glob("*.html")}
    found = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = path.parent / unquote(parts.path) if parts.path else path
            ids = pages[target].ids if target in pages else set()
            if not target.exists() or parts.fragment and parts.fragment not in ids \
                    and target in pages:
                found.append((path.name, link))
    return found


def make_html(top):
    """Run make html in a tree, and return the completed process."""
    return subprocess.run(
        ["make", "-C", top, "-f", TOP / "Makefile", "html"], text=True, timeout=300,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


@pytest.fixture
def copy(tmp_path):
    """A tree whose pages a test may change."""
    shutil.copytree(TOP / "Documentation", tmp_path / "Documentation")
    (tmp_path / "tools").symlink_to(TOP / "tools")
    return tmp_path


def test_html(copy):
    """make html has no warning, builds each page, and no link is broken."""
    made = make_html(copy)
    assert made.returncode == 0, made.stdout
    pages = {path.stem for path in (copy / "build/html").glob("*.html")}
    assert {Path(page).stem for page in PAGES if page.endswith(".rst")} <= pages
    assert not broken(copy / "build/html")


def test_html_warning_fails(copy):
    """make html fails on a warning, and shows its file and line."""
    page = copy / "Documentation/guide.rst"
    page.write_text(page.read_text() + "\nSee :doc:`nowhere`.\n")
    made = make_html(copy)
    assert made.returncode
    assert re.search(r"guide\.rst:\d+: WARNING: .*nowhere", made.stdout)


def test_links_that_lead_nowhere(tmp_path):
    """broken() finds links to missing files and missing ids, and no others."""
    (tmp_path / "a.html").write_text('<p id="x"><a href="b.html"><a href="#x">')
    (tmp_path / "b.html").write_text('<a href="a.html#x"><a href="https://c.org/d">')
    assert broken(tmp_path) == []
    (tmp_path / "b.html").write_text('<a href="a.html#y"><img src="c.png">')
    assert sorted(broken(tmp_path)) == [("b.html", "a.html#y"), ("b.html", "c.png")]
