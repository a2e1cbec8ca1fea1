# SPDX-License-Identifier: GPL-2.0
"""`make lint`: every fault that can be found without running the code."""

import hashlib
import json
import os
import re
import subprocess
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from host import cache, deps, repository, ui
from host.ui import UserError, say
from vm import kernels

from . import imports

_TOP = Path(__file__).resolve().parents[2]
# What a run without a fault leaves for the next one, which need not look again.
_BUILD = _TOP / "build/lint"
_CHECKER = ("C=1", "CF=-D__CHECK_ENDIAN__")
# Spelt as the field spells them, or wrong on purpose in a test.
_SPELT_SO = "inflight,nd,chekc"
# Phrases that hide who acts, and words that this project has one better word for.
_PHRASES = re.compile(
    r"\b(in vain|for ever|of late|whoever|whatsoever|anew|[Nn]obody (?!cared)|"
    r"not to be had|is to be had|but for (?:the|a|one|those)|"
    r"the kernel's own (?:driver|virtio_blk)|kicks? (?:is |are )?spared|"
    r"overdue)\b")
# The phrases themselves, and a quotation of them.
_MAY_HAVE_PHRASES = {"tools/lint/lint.py", "COPYING", "Documentation/soak.json"}
# What mypy says of a function without types.
_NO_TYPES = re.compile(
    r'(\S+?):\d+: (?:.*\[no-untyped-def\]|note: Use "-> None" if function .*)$')
_TEXT = {".c", ".h", ".py", ".rst", ".md", ".txt", ".sh", ".pml", ".8", ".1", ".mk"}


def _run(argv: Sequence[str | Path], **env: str) -> str:
    """Return what a program prints about files of the project."""
    return subprocess.run(argv, cwd=_TOP, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, check=False,
                          env=os.environ | env).stdout


def _lines(argv: Sequence[str | Path], **env: str) -> list[str]:
    """Return the lines that a program prints, each of them a fault."""
    return _run(argv, **env).splitlines()


def _with(files: Iterable[Path], *suffixes: str) -> list[Path]:
    return [path for path in files if path.suffix in suffixes]


def _needs_no_types(line: str) -> bool:
    """Return whether mypy misses the types of a function of a test."""
    found = _NO_TYPES.match(line)
    return found is not None and Path(found[1]).name.startswith("test_")


def python(files: list[Path]) -> list[str]:
    """Return the syntax errors, unused names and wrong types of the Python sources.

    All functions must have types, except those of tests.
    """
    sources = _with(files, ".py")
    problems = []
    for path in sources:
        try:
            compile((_TOP / path).read_bytes(), path, "exec")
        except SyntaxError as error:
            problems.append(f"{error.filename}:{error.lineno}: {error.msg}")
    if problems:
        return problems
    types = _lines(
        ["mypy", f"--cache-dir={_BUILD / 'mypy'}", "--no-error-summary",
         "--ignore-missing-imports", "--explicit-package-bases",
         "--namespace-packages", "--disallow-untyped-defs",
         "--disallow-incomplete-defs",
         *(path for path in sources if path.parts[0] == "tools")],
        MYPYPATH="tools")
    return _lines(["pyflakes3", *sources]) + [line for line in types
                                              if not _needs_no_types(line)]


def shell(files: list[Path]) -> list[str]:
    """Return the faults that the shell and shellcheck find in the scripts."""
    scripts, problems = [], []
    for path in files:
        with (_TOP / path).open("rb") as file:
            found = re.match(rb"#!/bin/(sh|bash)\b", file.readline())
        if found:
            scripts.append(path)
            problems += _lines([found[1].decode(), "-n", path])
    # What single quotes keep is for another shell, perl or make; a file that a
    # script reads may be of another package.
    return problems + _lines(["shellcheck", "--format=gcc", "--exclude=SC2016,SC1091",
                              *scripts])


def spelling(files: list[Path]) -> list[str]:
    """Return misspelt words, and phrases that this project does not use."""
    texts = [path for path in files if str(path) not in _MAY_HAVE_PHRASES
             and path.suffix not in (".png", ".json")]
    problems = _lines(["codespell", f"--ignore-words-list={_SPELT_SO}", *texts])
    for path in texts:
        if path.suffix in _TEXT or path.suffix == "":
            text = (_TOP / path).read_text(errors="replace")
            problems += [f"{path}:{number}: \"{found[0]}\": see the voice in "
                         "CONTRIBUTING.md"
                         for number, line in enumerate(text.splitlines(), 1)
                         if (found := _PHRASES.search(line))]
    return problems


def userspace(files: list[Path]) -> list[str]:
    """Return what cppcheck finds in the C programs of the tools."""
    programs = [path for path in _with(files, ".c") if path.parts[0] == "tools"]
    known = repository.writable(_BUILD / "cppcheck")
    # It knows no system headers, and the NULL that ends arguments is a pointer here.
    return _lines(["cppcheck", "--quiet", "--enable=warning,performance,portability",
                   f"--cppcheck-build-dir={known}",
                   "--inline-suppr", "-Dnoreturn=__attribute__((noreturn))",
                   '-DPRIu64="lu"', '-DPRIx64="lx"',
                   "--suppress=missingIncludeSystem",
                   "--suppress=varFuncNullUB",
                   "--template={file}:{line}: {message} ({id})",
                   "--template-location=", *programs])


def _checkpatch(tree: Path, files: list[Path], ignored: Iterable[str]) -> list[str]:
    """Return what checkpatch finds in files that it has not found clean before."""
    options = ["--strict", f"--ignore={','.join(ignored)}"] if ignored else ["--strict"]
    program = hashlib.sha256(repr(options).encode())
    for name in ("checkpatch.pl", "spelling.txt", "const_structs.checkpatch"):
        program.update((tree / "scripts" / name).read_bytes())

    def state(path: Path) -> str:
        found = program.copy()
        found.update((_TOP / path).read_bytes())
        return found.hexdigest()

    record = repository.writable(_BUILD) / "checkpatch.json"
    known = json.loads(record.read_text()) if record.exists() else {}
    left = [path for path in files if known.get(str(path)) != state(path)]
    if not left:
        return []
    result = subprocess.run(
        ["perl", tree / "scripts/checkpatch.pl", f"--root={tree}", "--terse",
         "--no-summary", "--quiet", *options, "--file", *left], cwd=_TOP, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    # It also calls helpers that fail where a Python module is missing.
    problems = re.findall(r"^\S+:\d+: (?:ERROR|WARNING|CHECK).*", result.stdout,
                          re.MULTILINE)
    if result.returncode and not problems:
        return [f"checkpatch failed: {result.stdout.strip()}"]
    faulty = {problem.split(":")[0] for problem in problems}
    known |= {str(path): state(path) for path in left if str(path) not in faulty}
    cache.replace(record, json.dumps(known, indent=1).encode())
    return problems


def checkpatch(files: list[Path]) -> list[str]:
    """Return what checkpatch --strict finds in the kernel's and the tools' C."""
    tree = kernels.source()
    ours = [path for path in files if path.parts[0] in ("drivers", "include")
            and (path.suffix in (".c", ".h") or path.name == "Makefile")]
    compat = [path for path in ours if path.parts[:2] == ("include", "compat")]
    trace = [path for path in ours if path.name == "trace.h"]
    tools = [path for path in _with(files, ".c", ".h")
             if path.parts[:2] == ("tools", "vblkstat")]
    return [problem for group, ignored in (
        ([path for path in ours if path not in compat + trace], ()),
        # Telling versions apart is what include/compat is for.
        (compat, ("LINUX_VERSION_CODE", "MACRO_ARG_REUSE", "MACRO_ARG_UNUSED")),
        # A macro of declarations looks like the structure that it makes.
        (trace, ("OPEN_ENDED_LINE", "PARENTHESIS_ALIGNMENT")),
        # A program has no kernel's macros, and returns errno as it is.
        (tools, _NOT_FOR_PROGRAMS))
        for problem in _checkpatch(tree, group, ignored)]


_NOT_FOR_PROGRAMS = (
    "PREFER_DEFINED_ATTRIBUTE_MACRO", "BIT_MACRO", "NEW_TYPEDEFS", "ENOSYS",
    "USE_NEGATIVE_ERRNO", "STATIC_CONST_CHAR_ARRAY", "SPLIT_STRING",
    "LONG_LINE_STRING", "AVOID_EXTERNS", "BLOCK_COMMENT_STYLE", "LONG_LINE",
    "MACRO_ARG_REUSE", "OPEN_ENDED_LINE")


def _objects(directory: Path) -> list[str]:
    """Return the faults of how the driver's files call each other: their circles.

    directory: where the compiler left its objects; compiled without LTO.
    """
    defined: dict[str, str] = {}
    undefined: dict[str, set[str]] = {}
    for path in sorted(directory.rglob("*.o")):
        source = path.relative_to(directory).with_suffix(".c")
        if not (_TOP / source).exists() or source.name.endswith(".mod.c"):
            continue
        for line in _run(["nm", "--format=posix", path]).splitlines():
            name, kind = line.split()[:2]
            if kind == "U":
                undefined.setdefault(str(source), set()).add(name)
            elif kind.isupper():
                defined[name] = str(source)
    calls = {source: {defined[name]: name for name in sorted(names)
                      if defined.get(name, source) != source}
             for source, names in undefined.items()}
    if not any(calls.values()):
        return [f"{directory}: no object of the driver calls another"]
    return circles(calls)


def circles(calls: dict[str, dict[str, str]]) -> list[str]:
    """Return a line for each call that is part of a circle of files.

    calls: for each file, the files that it calls and a name that it calls there.
    """
    return [f"{source}: calls {calls[source][callee]}() of {callee}, which calls back"
            for source, callee in imports.circular(calls)]



def compiled(place: str, build: Path, flags: Iterable[str] = (),
             **part: str) -> list[str]:
    """Return what compiler (W=1) and sparse find in our sources, and their circles.

    build is a KDIR; it is enough that modules can be compiled with it.  part: see
    kernels.compile_module(); by default the driver.  After a run without a fault the
    next one compiles what has changed.
    """
    directory = repository.writable(_BUILD / place)
    clean = directory / "clean"
    if not clean.exists():
        repository.emptied(directory)
    clean.unlink(missing_ok=True)
    try:
        said = kernels.compile_module(build, directory, "KBUILD_MODPOST_WARN=1",
                                      *flags, **part)
    except UserError as error:
        return str(error).splitlines()
    problems = [line for line in said.splitlines()
                if re.match(r"(drivers|include)/\S+:\d+:", line)] + _objects(directory)
    if not problems:
        clean.touch()
    return problems


def main() -> int:
    """Check everything and print the faults; return 1 if there are any."""
    repository.check_own_name()
    repository.writable(_BUILD)
    deps.need("build", "lint")
    files = repository.files()
    problems: list[str] = []

    def check(what: str, found: Callable[..., list[str]], *args: Any,
              **named: Any) -> None:
        lines = found(*args, **named)
        say(f"  {what}: {f'{len(lines)} to mend' if lines else 'clean'}")
        for line in lines:
            print(line, flush=True)
        problems.extend(lines)

    def texts() -> None:
        check("python, pyflakes, mypy", python, files)
        check("circles of imports", imports.circles, files, _TOP)
        check("sh, shellcheck", shell, files)
        check("codespell, phrases", spelling, files)
        check("cppcheck", userspace, files)

    def kernel() -> None:
        check("checkpatch --strict", checkpatch, files)
        check("6.1, W=1", compiled, "6.1", kernels.find("6.1").build)
        check("6.12, W=1 and sparse", compiled, "6.12", kernels.find("6.12").build,
              _CHECKER)
        check("vdpa_blk, 6.12, W=1 and sparse", compiled, "6.12-vdpa",
              kernels.find("6.12").build, _CHECKER, **kernels.VDPA)
        # Debian 12's sparse does not understand the headers of this one.
        newest = kernels.configure()[1]
        check("7.3, W=1", compiled, "7.3", newest)
        check("vdpa_blk, 7.3, W=1", compiled, "7.3-vdpa", newest, **kernels.VDPA)

    with ThreadPoolExecutor(2) as pool:
        for job in [pool.submit(texts), pool.submit(kernel)]:
            job.result()
    print(f"lint: {f'{len(problems)} problems' if problems else 'clean'}")
    return 1 if problems else 0


if __name__ == "__main__":
    ui.main(main)
