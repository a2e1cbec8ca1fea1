# SPDX-License-Identifier: GPL-2.0
"""`make lint` finds what it is there to find; with QUICK=1, that the tree is clean.

The rest of the suite leaves the whole of it to `make lint`.
"""

import subprocess
from pathlib import Path

import pytest

from host import deps, repository
from host.ui import UserError
from lint import imports, lint
from testing import new_test
from vm import kernels


@pytest.fixture(autouse=True, scope="module")
def programs():
    """Install the programs of `make lint`, which the rest of the suite does without."""
    deps.need("lint")


@pytest.mark.quick(only=True)
def test_lint_is_clean(capsys):
    """The tree has no fault that `make lint` finds."""
    assert lint.main() == 0, capsys.readouterr().out


@pytest.mark.parametrize("calls,found", (
    ({"a.c": {"b.c": "f"}, "b.c": {"c.c": "g"}}, []),
    ({"a.c": {"b.c": "f"}, "b.c": {"a.c": "g"}},
     ["a.c: calls f() of b.c, which calls back",
      "b.c: calls g() of a.c, which calls back"]),
    ({"a.c": {"b.c": "f"}, "b.c": {"c.c": "g"}, "c.c": {"b.c": "h"}},
     ["b.c: calls g() of c.c, which calls back",
      "c.c: calls h() of b.c, which calls back"])))
def test_circle_of_files_is_found(calls, found):
    """A call between two files is a fault if the callee leads back to the caller."""
    assert lint.circles(calls) == found


def imports_of(top, files):
    """Make Python files below tools/, {path: text}, and return their circles."""
    for name, text in files.items():
        path = top / "tools" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return imports.circles([Path("tools", name) for name in files], top)


@pytest.mark.parametrize("files,found", (
    ({"a/x.py": "import os\nfrom b import y\n", "b/y.py": "from . import z\n",
      "b/z.py": "from c.w import f\n", "c/w.py": ""}, []),
    ({"a/x.py": "from . import y\n", "a/y.py": "def f():\n    from a.x import g\n"},
     ["tools/a/x.py: imports tools/a/y.py, which imports back",
      "tools/a/y.py: imports tools/a/x.py, which imports back"]),
    ({"a/x.py": "import b.y\n", "b/y.py": "", "b/z.py": "from a.w import f\n",
      "a/w.py": ""},
     ["tools/a/x.py imports tools/b/y.py, and tools/b/ imports from tools/a/",
      "tools/b/z.py imports tools/a/w.py, and tools/a/ imports from tools/b/"])))
def test_circle_of_imports_is_found(tmp_path, files, found):
    """Files or folders that import each other are a fault, inside functions too."""
    assert imports_of(tmp_path, files) == found


def test_tree_has_no_circle_of_imports():
    """The tools' Python files and folders import without a circle."""
    files = [path.relative_to(repository.TOP)
             for path in (repository.TOP / "tools").rglob("*.py")]
    assert len(files) > 100
    assert imports.circles(files, repository.TOP) == []


def put(tmp_path, monkeypatch, name, text):
    """Make a project of one file, and return its path as lint has it."""
    monkeypatch.setattr(lint, "_TOP", tmp_path)
    (tmp_path / name).write_text(text)
    return [Path(name)]


@pytest.mark.parametrize("text,fault", (
    ("It is lost for" " ever.\n", 'x.rst:1: "for' ' ever"'),
    ("A\nthe" " kernel's own driver\n", "x.rst:2: \"the" " kernel's own driver\""),
    ("a rec" "ieved request\n", "rec" "ieved ==> received"),
    ("The driver polls the ring.\n", None)))
def test_words_of_text(tmp_path, monkeypatch, text, fault):
    """A phrase that the project does not use, or a misspelt word, is a fault."""
    found = lint.spelling(put(tmp_path, monkeypatch, "x.rst", text))
    assert (fault in found[0]) if fault else not found


def test_unused_import_is_found(tmp_path, monkeypatch):
    """pyflakes sees the Python sources."""
    files = put(tmp_path, monkeypatch, "x.py", "import os\n")
    assert "'os' imported but unused" in lint.python(files)[0]


@pytest.mark.parametrize("name,faulty", (("x.py", True), ("test_x.py", False)))
def test_function_without_types(tmp_path, monkeypatch, name, faulty):
    """A function without types is a fault, except in a test."""
    (tmp_path / "tools").mkdir()
    monkeypatch.setattr(lint, "_BUILD", tmp_path / "build")
    files = put(tmp_path, monkeypatch, f"tools/{name}", "def f():\n    pass\n")
    assert bool(lint.python(files)) == faulty


def test_unquoted_word_is_found(tmp_path, monkeypatch):
    """shellcheck sees the scripts."""
    files = put(tmp_path, monkeypatch, "x", "#!/bin/sh\nrm $1\n")
    assert "SC2086" in "".join(lint.shell(files))


def test_checkpatch_repeats_a_fault(tmp_path, monkeypatch):
    """A fault is found each time; a clean file is not checked again until it changes."""
    (tmp_path / "drivers").mkdir()
    monkeypatch.setattr(lint, "_BUILD", tmp_path / "build")
    tree = kernels.source()
    monkeypatch.setattr(kernels, "source", lambda: tree)

    def found(body):
        text = f"// SPDX-License-Identifier: GPL-2.0\nint f(void)\n{{\n{body}\n}}\n"
        return lint.checkpatch(put(tmp_path, monkeypatch, "drivers/x.c", text))

    for _ in range(2):
        assert "spaces required around that '='" in "".join(found("\treturn a=1;"))
    assert not found("\treturn 1;")
    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "run", None)
        assert not found("\treturn 1;")
    assert found("\treturn a=1;")


def test_checkpatch_that_fails_is_a_fault(tmp_path, monkeypatch):
    """A checkpatch that ends early finds nothing, and that is no clean tree."""
    (tmp_path / "scripts").mkdir()
    for name, text in (("checkpatch.pl", "die 'early'"), ("spelling.txt", ""),
                       ("const_structs.checkpatch", "")):
        (tmp_path / "scripts" / name).write_text(text)
    (tmp_path / "drivers").mkdir()
    monkeypatch.setattr(lint, "_BUILD", tmp_path / "build")
    monkeypatch.setattr(kernels, "source", lambda: tmp_path)
    files = put(tmp_path, monkeypatch, "drivers/x.c", "int x;\n")
    for _ in range(2):
        assert "checkpatch failed: early" in lint.checkpatch(files)[0]


# make new-test

def test_new_test_is_clean_and_new(tmp_path):
    """The template becomes a file that lint likes, under a name that is free."""
    path = new_test.create("write_zeroes", tmp_path)
    assert path == tmp_path / "test_write_zeroes.py"
    assert "def test_write_zeroes_data(guest: Guest) -> None:" in path.read_text()
    assert "TOPIC" not in path.read_text()
    compile(path.read_text(), path, "exec")
    with pytest.raises(UserError, match="is there already"):
        new_test.create("write_zeroes", tmp_path)


@pytest.mark.parametrize("name", ("", "Zeroes", "a-b", "../x", "1st", "a" * 41))
def test_bad_name_of_new_test(tmp_path, name):
    """A name that makes no good file is refused, and says which does."""
    with pytest.raises(UserError, match="such as NAME=write_zeroes"):
        new_test.create(name, tmp_path)
    assert not list(tmp_path.iterdir())
