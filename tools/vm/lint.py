# SPDX-License-Identifier: GPL-2.0
"""`make lint`: everything that can be found wrong without running it."""

import re
import shutil
import subprocess
from pathlib import Path

from . import host, kernels, ui
from .ui import UserError, say

_TOP = Path(__file__).resolve().parents[2]
_CHECKER = ["C=1", "CF=-D__CHECK_ENDIAN__"]


def _ours():
    """Return the project's files, those not yet committed included."""
    return sorted(path for path in _TOP.rglob("*") if path.is_file()
                  and not {".git", "build"} & set(path.relative_to(_TOP).parts))


def _run(argv):
    return subprocess.run(argv, cwd=_TOP, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)


def python(files):
    """Return the syntax errors of the Python sources."""
    problems = []
    for path in files:
        if path.suffix == ".py":
            try:
                compile(path.read_bytes(), path.relative_to(_TOP), "exec")
            except SyntaxError as error:
                problems.append(f"{error.filename}:{error.lineno}: {error.msg}")
    return problems


def shell(files):
    """Return what is wrong with the shell scripts."""
    problems = []
    for path in files:
        with path.open("rb") as file:
            found = re.match(rb"#!/bin/(sh|bash)\b", file.readline())
        if found:
            said = _run([found[1].decode(), "-n", path.relative_to(_TOP)]).stdout
            problems += said.splitlines()
    return problems


def checkpatch(files):
    """Return what checkpatch --strict has against the driver's sources."""
    tree = kernels.source()
    ours = [path.relative_to(_TOP) for path in files
            if path.relative_to(_TOP).parts[0] in ("drivers", "include")
            and (path.suffix in (".c", ".h") or path.name == "Makefile")]
    compat = [path for path in ours if path.parts[:2] == ("include", "compat")]
    trace = [path for path in ours if path.name == "trace.h"]
    problems = []
    for group, options in (
            ([path for path in ours if path not in compat + trace], []),
            # Telling versions apart is what include/compat is for.
            (compat, ["--ignore", "LINUX_VERSION_CODE"]),
            # A macro of declarations looks like the structure that it makes.
            (trace, ["--ignore", "OPEN_ENDED_LINE,PARENTHESIS_ALIGNMENT"])):
        if group:
            result = _run(
                ["perl", tree / "scripts/checkpatch.pl", f"--root={tree}",
                 "--strict", "--terse", "--no-summary", "--quiet", "--file",
                 *options, *group])
            # It also calls helpers that fail where a Python module is missing.
            found = re.findall(r"^\S+:\d+: .*", result.stdout, re.MULTILINE)
            if result.returncode and not found:
                found = [result.stdout.strip()]
            problems += found
    return problems


def compiled(name, build, flags=()):
    """Return the complaints of compiler (W=1) and sparse about our sources.

    build is a KDIR; it is enough that modules can be compiled with it.
    """
    directory = _TOP / "build/lint" / name
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    try:
        said = kernels.compile_module(build, directory, "KBUILD_MODPOST_WARN=1",
                                      *flags)
    except UserError as error:
        return str(error).splitlines()
    return [line for line in said.splitlines()
            if re.match(r"(drivers|include)/\S+:\d+:", line)]


def main():
    """Run everything and say how it ended; 1 if there is anything to mend."""
    host.need("build", "lint")
    files = _ours()
    problems = []

    def check(what, found):
        say(f"  {what}: {f'{len(found)} to mend' if found else 'clean'}")
        for line in found:
            print(line, flush=True)
        problems.extend(found)

    check("python", python(files))
    check("shell", shell(files))
    check("checkpatch --strict", checkpatch(files))
    check("6.1, W=1", compiled("6.1", kernels.find("6.1").build))
    check("6.12, W=1 and sparse",
          compiled("6.12", kernels.find("6.12").build, _CHECKER))
    # Debian 12's sparse does not understand the headers of this one.
    check("7.3, W=1", compiled("7.3", kernels.configure()[1]))
    print(f"lint: {f'{len(problems)} problems' if problems else 'clean'}")
    return 1 if problems else 0


if __name__ == "__main__":
    ui.main(main)
