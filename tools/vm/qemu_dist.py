# SPDX-License-Identifier: GPL-2.0
"""Find QEMU; download a newer one if the host's is too old.

Queues served by several host threads (iothread-vq-mapping) need QEMU 9.0, and Debian
12 has 7.2.  If the host has no newer QEMU, Debian's backport is unpacked into the
cache with all its libraries except the C library.  So it does not depend on the
libraries that the host has installed.
"""

import functools
import os
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

from host import cache, debian, deps
from host.ui import UserError, step

OLDEST = (9, 0)

_SUITE = "bookworm-backports"
# qemu-block-extra has the drivers for network storage.  QEMU loads them on demand.
_PACKAGES = ("qemu-system-x86", "qemu-utils", "qemu-block-extra")
_TRIPLET = "x86_64-linux-gnu"


@functools.cache
def find(tool: str = "qemu-system-x86_64") -> list[str]:
    """Return the words that start a QEMU tool; the caller appends its arguments.

    Tools are qemu-system-x86_64, qemu-img, qemu-io, qemu-nbd and
    qemu-storage-daemon.  The first word may be `env`, which execs the tool, so the
    process id is the tool's.  The environment variable QEMU selects another
    qemu-system-x86_64; the other tools then come from the same directory, or else
    from PATH.
    """
    chosen = os.environ.get("QEMU")
    if chosen:
        emulator = deps.which(chosen)
        if emulator is None:
            raise UserError(f"QEMU is {chosen!r}, which is not a program; set it to "
                            "the path of a qemu-system-x86_64, or unset it")
        if tool == "qemu-system-x86_64":
            return [emulator]
        beside = Path(emulator).with_name(tool)
        found = str(beside) if beside.exists() else deps.which(tool)
        if found is None:
            raise UserError(f"there is no {tool} next to {emulator} or in PATH; "
                            "install qemu-utils, or unset QEMU")
        return [found]
    if _host_version() >= OLDEST and (found := deps.which(tool)):
        return [found]
    return _unpacked(tool)


def version(argv: Iterable[str]) -> tuple[int, int]:
    """Return the version of the QEMU that argv starts, as (major, minor)."""
    result = subprocess.run([*argv, "--version"], text=True,
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT)
    match = re.search(r"(?:version|qemu-nbd) (\d+)\.(\d+)", result.stdout)
    if result.returncode or not match:
        raise UserError(f"{' '.join(argv)} --version failed: "
                        f"{result.stdout.strip()}")
    return int(match[1]), int(match[2])


def _host_version() -> tuple[int, int]:
    emulator = deps.which("qemu-system-x86_64")
    return version([emulator]) if emulator else (0, 0)


def _unpacked(tool: str) -> list[str]:
    def build(directory: Path) -> None:
        def unpack() -> None:
            packages = [package
                        for package in debian.closure(_PACKAGES, _SUITE)
                        if re.match(r"lib(?!c6$|c-bin)|zlib1g|qemu-|seabios|ipxe",
                                    package.name)]
            debian.unpack(packages, directory)

        with step("downloading QEMU from Debian's backports"):
            debian.current(unpack)
            found = version(_words(directory, "qemu-system-x86_64"))
        if found < OLDEST:
            raise UserError(f"{_SUITE} has QEMU {found[0]}.{found[1]}, and at least "
                            f"{OLDEST[0]}.{OLDEST[1]} is needed; set QEMU to the path "
                            "of such a qemu-system-x86_64")

    return _words(cache.populate("qemu-block-extra", build, mib=600), tool)


def _words(directory: Path, tool: str) -> list[str]:
    """Return the words that run a tool that was unpacked into a directory.

    Without them Debian's QEMU finds libraries, modules and firmware only in /usr.
    """
    libraries = ":".join(str(directory / path / _TRIPLET)
                         for path in ("usr/lib", "lib"))
    words = ["/usr/bin/env", f"LD_LIBRARY_PATH={libraries}",
             f"QEMU_MODULE_DIR={directory}/usr/lib/{_TRIPLET}/qemu",
             str(directory / "usr/bin" / tool)]
    if tool == "qemu-system-x86_64":
        for firmware in ("share/qemu", "share/seabios", "lib/ipxe/qemu"):
            words += ["-L", str(directory / "usr" / firmware)]
    return words
