# SPDX-License-Identifier: GPL-2.0
"""Kernels of Debian 13, among them those of its backports.

Their modules must be built with Debian 13's compiler, and the programs that come with
their headers need its C library.  Both are unpacked beside the kernel, and run on the
host without being installed.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from . import debian
from .debian import NEXT, Package
from .ui import UserError

_LIBRARIES = "usr/lib/x86_64-linux-gnu"
_LOADER = f"{_LIBRARIES}/ld-linux-x86-64.so.2"
# The directories with programs that a build runs.
_PROGRAMS = ("usr/bin", "usr/libexec", "usr/lib/linux-kbuild-*")
# A shell script in place of a program.
_WRAPPER = """\
#!/bin/sh
# Run the program beside this file with Debian 13's C library.
here=$(dirname "$(readlink -f "$0")")
top=$here/{up}
exec "$top/{loader}" --library-path "$top/{libraries}" --argv0 "$0" \\
	"$here/{name}.elf" "$@"
"""
# The first lines of the headers' settings for kbuild.
_SETTINGS = """\
own := $(abspath $(dir $(lastword $(MAKEFILE_LIST)))/../../bin)/
override PAHOLE = $(own)pahole
"""


def is_name(name: str) -> bool:
    """Return whether a package is a kernel of Debian 13."""
    return "+deb13" in name


def is_adapted(tree: Path) -> bool:
    """Return whether a build tree runs the compiler that adapt() has put beside it."""
    settings = tree / ".kernelvariables"
    return settings.exists() and settings.read_text().startswith(_SETTINGS)


def packages(name: str) -> list[Package]:
    """Return the packages of a kernel, its headers and all that a build with them runs.

    Since Linux 6.19 the kernel's image and its modules have packages of their own.
    """
    if not name.endswith("-amd64"):
        raise UserError(f"KERNEL is {name}; of Debian 13's kernels only those for "
                        "amd64 can be used; choose a package that ends with -amd64")
    image = debian.newest(re.escape(name), "KERNEL", arch=NEXT)
    headers = name.replace("linux-image", "linux-headers")
    debian.newest(re.escape(headers), "KERNEL", arch=NEXT,
                  wanted=lambda package: package.version == image.version)
    pieces = [package for package in debian.versions(
        re.escape(name).replace("image", "(binary|modules)"), NEXT)
              if package.version == image.version]
    suite = f"{NEXT}-backports" if "~bpo" in image.version else NEXT
    return [image, *pieces, *debian.closure([headers], suite, NEXT)]


def adapt(directory: Path, name: str) -> None:
    """Make what was unpacked into a directory usable there.

    Raises UserError if a part of the kernel is missing.
    """
    if not (directory / "lib").exists():
        (directory / "lib").symlink_to("usr/lib")
    release = name.removeprefix("linux-image-")
    if not image(directory, release).exists():
        raise debian.gone(name.replace("image", "binary"), "KERNEL", NEXT)
    if not (directory / "lib/modules" / release / "kernel").exists():
        raise debian.gone(name.replace("image", "modules"), "KERNEL", NEXT)
    for program in list(_programs(directory)):
        elf = program.with_name(f"{program.name}.elf")
        program.rename(elf)
        program.write_text(_WRAPPER.format(
            up=os.path.relpath(directory, program.parent), loader=_LOADER,
            libraries=_LIBRARIES, name=program.name))
        program.chmod(0o755)
    # The compiler looks here for the other programs that it runs, and then in PATH.
    for path in directory.glob("usr/libexec/gcc/*/*/"):
        for tool in ("as", "ld"):
            (path / tool).symlink_to(f"../../../../bin/{path.parent.name}-{tool}")
    _use_programs(directory / f"usr/src/linux-headers-{release}/.kernelvariables")


def image(directory: Path, release: str) -> Path:
    """Return the path of a kernel's bzImage: with its modules, or in /boot."""
    path = directory / f"lib/modules/{release}/vmlinuz"
    return path if path.exists() else directory / f"boot/vmlinuz-{release}"


def _programs(directory: Path) -> Iterator[Path]:
    """Yield the programs of Debian 13 that are no scripts."""
    for place in _PROGRAMS:
        for top in directory.glob(place):
            for path in top.rglob("*"):
                if path.is_symlink() or not path.is_file() or path.suffix == ".so" \
                        or not os.access(path, os.X_OK):
                    continue
                with path.open("rb") as file:
                    if file.read(4) == b"\x7fELF":
                        yield path


def _use_programs(settings: Path) -> None:
    """Have kbuild run the compiler and the programs in our directory."""
    text, count = re.subn(r"^override CROSS_COMPILE = (.*)$",
                          r"override CROSS_COMPILE = $(own)\1", settings.read_text(),
                          flags=re.MULTILINE)
    if not count:
        raise UserError(f"{settings} does not set CROSS_COMPILE, so the compiler of "
                        "Debian 13 cannot be used; choose another KERNEL")
    settings.write_text(_SETTINGS + text)
