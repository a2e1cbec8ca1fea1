# SPDX-License-Identifier: GPL-2.0
"""`make coverage`: counters of guests, what they say of a source, and the verdict.

The sources here are programs of the host, compiled with the flags of CONFIG_GCOV_KERNEL.
"""

import dataclasses
import io
import re
import subprocess
import tarfile
from pathlib import Path

import pytest

from host import deps, repository
from host.ui import UserError
from lint import coverage, executed, unreached
from vm import gcov, kernels
from vm.agent import Result

PART = gcov.PARTS[0]
SOURCE = """\
int remove(const char *path);

static int twice(int number)
{
	if (number > 2 && number < 100)
		goto out_big;
	return 2 * number;
out_big:
	return -1;
}

static void never(void)
{
	remove("/nonexistent");
}

int main(int argc, char **argv)
{
	if (argc > 8)
		never();
	return twice(argc) < 0 && argv[0];
}
"""
KERNEL = kernels.Kernel(name=kernels.COVERAGE, release="7.3.4-gcov", image=None,
                        modules=None, build=Path("/nonexistent"), builtin=True)


class Program:
    """A program that is compiled as the driver's main.c, in a repository of its own."""

    def __init__(self, top: Path):
        deps.need("coverage")
        self.original = top / PART / "main.c"
        self.source = top / "kernel" / PART / "main.c"
        self.counters = self.source.with_suffix(".gcda")
        self.compile(SOURCE)

    def compile(self, text: str) -> None:
        """Write the source, and compile the copy of it in the kernel's tree."""
        for path in (self.original, self.source):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        place = self.source.parent
        subprocess.run(["gcc-12", "-O2", "-fno-early-inlining", "-fprofile-arcs",
                        "-ftest-coverage", "-c", self.source, "-o", place / "main.o"],
                       check=True)
        subprocess.run(["gcc-12", "--coverage", place / "main.o", "-o",
                        place / "program"], check=True)

    def run(self, *words: str) -> bytes:
        """Run it once; return the archive that a guest would hand over."""
        self.counters.unlink(missing_ok=True)
        subprocess.run([self.source.with_name("program"), *words])
        data = io.BytesIO()
        with tarfile.open(fileobj=data, mode="w:gz") as files:
            files.add(self.counters, arcname=f".{self.counters}")
        return data.getvalue()


@pytest.fixture
def program(tmp_path, empty_cache, monkeypatch):
    """A program that stands for the driver."""
    monkeypatch.setattr(repository, "TOP", tmp_path)
    return Program(tmp_path)


def the_source() -> executed.Source:
    """Return what ran of the program, in all runs whose counters were added."""
    (found,) = executed.sources(gcov.counters()).values()
    return found


def test_counters_of_guests_are_added(program):
    """Lines and branches count the runs of all guests; what only one reached counts."""
    gcov.add(program.run())
    found = the_source()
    assert found.path == f"{PART}/main.c"
    assert [found.lines[line] for line in (5, 6, 7, 9)] == [1, 0, 1, 0]
    assert found.labels() == {8: False}
    gcov.add(program.run("a", "b"))
    gcov.add(program.run("a", "b"))
    found = the_source()
    assert [found.lines[line] for line in (5, 6, 7, 9)] == [3, 2, 1, 2]
    assert found.labels() == {8: True}
    assert sorted(found.branches[5]) == [1, 2]
    assert [found.function_of(line) for line in (6, 14, 11)] == ["twice", "never", ""]
    assert (found.calls("twice"), found.calls("never")) == (3, 0)
    assert found.unreached() == [12, 14, 15, 20]


def test_header_of_several_objects():
    """A header's lines count in all objects; branches are those of a complete copy."""
    one = executed.Source("a.h", ["x"])
    line = {"line_number": 1, "count": 2, "branches": [{"count": 2}, {"count": 0}]}
    for counted in (line, {**line, "branches": []}, line,
                    {**line, "branches": [{"count": 9}]}):
        one.add({"lines": [counted]})
    assert one.lines == {1: 8} and one.branches == {1: [4, 0]}


def test_changed_source_is_refused(program):
    """A source that changed, or notes that are gone, are an error that names them."""
    gcov.add(program.run())
    program.original.write_text(SOURCE + "\n")
    with pytest.raises(UserError, match=f"{PART}/main.c is not what the kernel"):
        the_source()
    program.compile(SOURCE.replace("number < 100", "number < 50 && number < 40"))
    with pytest.raises(UserError, match="cannot read .*main.gcda"):
        the_source()
    with pytest.raises(gcov.BadCounters, match="main.gcda was compiled again"):
        gcov.add(program.run())
    program.counters.with_suffix(".gcno").unlink()
    with pytest.raises(UserError, match="main.gcno is gone"):
        the_source()


def test_guest_that_hands_over_nothing(program):
    """A guest without counters, or one that hangs, fails no test, and is told of."""
    def collect(result):
        gcov.collect(KERNEL, lambda script, timeout: result)

    gcov.forget()
    collect(None)
    collect(Result("tar: no\nspace", 1, 0.1))
    collect(Result("bm90IGEgdGFy", 0, 0.1))
    empty = io.BytesIO()
    tarfile.open(fileobj=empty, mode="w:gz").close()
    with pytest.raises(gcov.BadCounters, match="no counters of the driver"):
        gcov.add(empty.getvalue())
    assert gcov.lost()[:2] == ["the guest did not answer within 60 s",
                               "status 1: tar: no space"] and len(gcov.lost()) == 3
    gcov.forget()
    assert not gcov.lost()
    gcov.collect(dataclasses.replace(KERNEL, name="7.3"), lambda *_: pytest.fail("asked"))


def test_page_and_table(program, capsys, tmp_path, monkeypatch):
    """The table has the shares of each file, and the page each line that did not run."""
    (tmp_path / unreached.NAME).parent.mkdir(parents=True)
    (tmp_path / unreached.NAME).write_text(f"Never.\n  {PART}/main.c never: *\n")
    monkeypatch.setattr(coverage, "_PAGE", tmp_path / "build/coverage")
    gcov.add(program.run())
    coverage.report([the_source()], ["status 1"])
    said = capsys.readouterr().out
    # 6 of 12 lines: not 12, 14, 15 and 20 for never(), and not 6 and 9 for the label.
    assert re.search(rf"^{PART}/main.c +50\.0 % of 12 +37\.5 % of 8 +0\.0 % of 1$",
                     said, re.MULTILINE)
    assert "3 lines with a reason" in said and "the counters of a guest are lost" in said
    assert f"{PART}/main.c:9 twice: return -1;" in said and "build/coverage/index" in said
    pages = "".join(path.read_text() for path in
                    (tmp_path / "build/coverage").rglob("main.c.gcov.html"))
    assert "goto out_big" in pages and "lineNoCov" in pages


def test_missed_goals(program):
    """A line without a reason, a reason without a line, and each goal are MISSED."""
    gcov.add(program.run())
    gcov.add(program.run("a", "b"))
    sources = [the_source()]

    def missed(text):
        return coverage.missed(sources, unreached.parse(text))

    never = f"No code calls it.\n  {PART}/main.c never: *\n"
    found = missed(never)
    assert found[0] == (f"not reached, and without a reason in {unreached.NAME}: "
                        f"{PART}/main.c:20 main: never();")
    assert "lines: " in found[1] and "the goal is 95 %" in found[1]
    assert "branches: " in found[2] and len(found) == 3
    text = never + f"  {PART}/main.c main: never();\n"
    assert not any("without a reason" in one for one in missed(text))
    stale = f"{PART}/main.c twice: return -1;"
    assert f"remove its reason from {unreached.NAME}: {stale}" \
        in missed(f"{text}  {stale}\n")[0]


def test_unreached_entries_exist():
    """Each entry of unreached.txt names a line of the driver that exists."""
    entries = unreached.read()
    assert entries and not unreached.check(entries)
    assert all(entry.path.startswith(PART) and len(entry.reason) > 20
               for entry in entries)
    first = entries[0]
    for changed, why in (({"path": "drivers/no.c"}, "no such function"),
                         ({"function": "virtblk_no"}, "no such function"),
                         ({"text": "return no;"}, "no such line")):
        assert why in unreached.check([dataclasses.replace(first, **changed)])[0]


@pytest.mark.parametrize("text", ("a.c f: x\n", "  a.c f: x\n", "Why.\n  a.c f\n"),
                         ids=("unindented", "no reason", "no text"))
def test_bad_unreached_entry(text):
    """A line that is neither a reason nor an entry below one is an error."""
    if text[0] != "a":
        with pytest.raises(UserError, match="unreached.txt:[12]: .*below a reason"):
            unreached.parse(text)
    else:
        assert not unreached.parse(text)
