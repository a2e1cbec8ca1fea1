# SPDX-License-Identifier: GPL-2.0
"""The repository, as the place that tools write to and that kbuild works in.

usage: python3 -m host.repository [--for-kbuild] DIRECTORY...

It creates directories, or says why it cannot.  With --for-kbuild it first checks that
modules can be built in the repository.
"""

import functools
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from . import ui
from .ui import UserError

TOP = Path(__file__).resolve().parents[2]

# make, or the shell that it starts, takes these for its own.
_NOT_FOR_KBUILD = re.compile(r"[\s:%$,;&|<>()*?'\"`\\#=]")


def writable(path: Path) -> Path:
    """Create a directory of the repository if needed and return it.

    Raises UserError with the reason if no file can be created in it.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            return path
    except OSError as error:
        raise UserError(ui.cannot_write(path, error)) from error


def emptied(path: Path) -> Path:
    """Create an empty directory of the repository in place of what is there."""
    writable(path.parent)
    try:
        if path.exists():
            shutil.rmtree(path)
    except OSError as error:
        raise UserError(ui.cannot_write(error.filename or path, error)) from error
    return writable(path)


def files() -> list[Path]:
    """Return the project's files, relative to its top and sorted; new files included."""
    found = []
    for place, directories, names in os.walk(TOP):
        # Another process may remove directories of build/ at the same time.
        directories[:] = set(directories) - {".git", "build", "__pycache__"}
        found += [Path(place, name).relative_to(TOP) for name in names]
    return sorted(found)


@functools.cache
def commit() -> str | None:
    """Return the commit that a process builds the driver from; None outside git."""
    said = subprocess.run(["git", "-C", TOP, "describe", "--always", "--dirty"],
                          text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL)
    return said.stdout.strip() or None


def check_name(path: Path | str, way_out: str) -> None:
    """Raise UserError if kbuild cannot work in a directory because of its name."""
    found = _NOT_FOR_KBUILD.search(str(path))
    if found:
        raise UserError(f"the path {str(path)!r} has the character {found[0]!r}, with "
                        "which the kernel's build system does not work; it must have "
                        f"no space and none of :%$,;&|<>()*?'\"`\\#=; {way_out}")


def check_own_name() -> None:
    """Raise UserError if modules cannot be built in the repository."""
    check_name(TOP, "move the repository to another directory")


def main() -> int:
    """Create the directories that the arguments name."""
    names = sys.argv[1:]
    if names[:1] == ["--for-kbuild"]:
        check_own_name()
        del names[0]
    for name in names:
        writable(TOP / name)
    return 0


if __name__ == "__main__":
    ui.main(main)
