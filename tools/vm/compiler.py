# SPDX-License-Identifier: GPL-2.0
"""The compiler for modules of the user's own kernel.

kbuild takes `gcc`, whatever compiled the kernel.  A kernel that clang compiled has options
that gcc does not know, and a distribution's compiler may have another name, so take the
one that the kernel's configuration names.  CC and LLVM choose another one.
"""

import os
import re
from pathlib import Path

from host import debian13, deps
from host.ui import UserError

# What kbuild runs for a module besides the compiler and POSIX programs.
_PROGRAMS = {"make": "make", "ld": "binutils"}


def words(tree: Path) -> list[str]:
    """Return the arguments for make that choose the compiler of a build tree.

    Installs the compiler and make if they are missing and there is apt-get.  Raises
    UserError if they are missing otherwise.
    """
    if os.environ.get("LLVM"):
        # kbuild reads it from the environment.
        deps.need({"make": "make"})
        return []
    if os.environ.get("CC"):
        deps.need({"make": "make"})
        return [f"CC={os.environ['CC']}"]
    deps.need(_PROGRAMS)
    if debian13.is_adapted(tree):
        return []
    text = (tree / ".config").read_text(errors="replace")
    built_with = re.search(r'^CONFIG_CC_VERSION_TEXT="(.*)"$', text, re.MULTILINE)
    name = built_with[1] if built_with else "gcc"
    if re.search("^CONFIG_CC_IS_CLANG=y$", text, re.MULTILINE):
        return _clang(name, "CONFIG_LD_IS_LLD=y" in text, tree)
    return _gcc(name, tree)


def _gcc(built_with: str, tree: Path) -> list[str]:
    """Return the words for a kernel that GCC compiled.

    built_with: such as "x86_64-linux-gnu-gcc-12 (Debian 12.2.0-14) 12.2.0".
    """
    own = built_with.split()[0]
    # Another version works, too.  kbuild prints a warning.
    for name in (own, re.sub(r"^.*-(gcc-\d+)$", r"\1", own), "gcc"):
        if deps.which(name):
            return [f"CC={name}"]
    if not deps.which("apt-get"):
        raise _missing(own, built_with, tree)
    deps.need({"gcc": "gcc"})
    return ["CC=gcc"]


def _clang(built_with: str, lld: bool, tree: Path) -> list[str]:
    """Return the words for a kernel that clang compiled, and LLD linked if lld is set."""
    number = re.search(r"clang version (\d+)", built_with)
    for suffix in ("", f"-{number[1]}" if number else ""):
        if deps.which(f"clang{suffix}") and (not lld or deps.which(f"ld.lld{suffix}")):
            return [f"LLVM={suffix or 1}"] if lld else [f"CC=clang{suffix}"]
    raise _missing("clang and ld.lld" if lld else "clang", built_with, tree)


def _missing(names: str, built_with: str, tree: Path) -> UserError:
    return UserError(f"{tree} is of a kernel that was compiled with {built_with!r}, and "
                     f"{names} cannot be found in PATH; install the compiler, or name "
                     "another one with CC= (or LLVM=1 for clang and LLD)")
