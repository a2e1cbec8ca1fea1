# SPDX-License-Identifier: GPL-2.0
"""Which QEMU is used, and getting one where the host's is too old.

Queues that are served by several host threads (iothread-vq-mapping) came
with QEMU 9.0, and Debian 12 has 7.2.  Where the host has nothing newer,
Debian's backport is unpacked into the cache, with every library it needs but
the C library, so that it goes on running whatever the host has installed.
"""

import functools
import os
import re
import subprocess
from pathlib import Path

from . import cache, debian, host
from .ui import UserError, step

OLDEST = (9, 0)

_SUITE = "bookworm-backports"
# The last one has the drivers for storage in a network; they are loaded where a
# disk asks for one.
_PACKAGES = ("qemu-system-x86", "qemu-utils", "qemu-block-extra")
_TRIPLET = "x86_64-linux-gnu"


@functools.cache
def find(tool="qemu-system-x86_64"):
    """Return the words that start a tool of QEMU's, to be followed by its arguments.

    Tools are qemu-system-x86_64, qemu-img, qemu-io, qemu-nbd and
    qemu-storage-daemon.  The first word may be `env`, which is replaced by
    the tool: the process id is the tool's own.  The environment variable
    QEMU names another qemu-system-x86_64; its companions are then taken from
    the same directory, or else from PATH.
    """
    chosen = os.environ.get("QEMU")
    if chosen:
        emulator = host.which(chosen)
        if emulator is None:
            raise UserError(f"QEMU is {chosen!r}, which is no program; set it to "
                            "the path of a qemu-system-x86_64, or leave it unset")
        if tool == "qemu-system-x86_64":
            return [emulator]
        beside = Path(emulator).with_name(tool)
        found = str(beside) if beside.exists() else host.which(tool)
        if found is None:
            raise UserError(f"there is no {tool} next to {emulator}, nor in "
                            "PATH; install qemu-utils, or leave QEMU unset")
        return [found]
    if _host_version() >= OLDEST and host.which(tool):
        return [host.which(tool)]
    return _unpacked(tool)


def version(argv):
    """Return the version of the QEMU that argv starts, as (major, minor)."""
    result = subprocess.run([*argv, "--version"], text=True,
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT)
    match = re.search(r"(?:version|qemu-nbd) (\d+)\.(\d+)", result.stdout)
    if result.returncode or not match:
        raise UserError(f"{' '.join(argv)} --version failed: "
                        f"{result.stdout.strip()}")
    return int(match[1]), int(match[2])


def _host_version():
    emulator = host.which("qemu-system-x86_64")
    return version([emulator]) if emulator else (0, 0)


def _unpacked(tool):
    def build(directory):
        def unpack():
            packages = [package
                        for package in debian.closure(_PACKAGES, _SUITE)
                        if re.match(r"lib(?!c6$|c-bin)|zlib1g|qemu-|seabios|ipxe",
                                    package.name)]
            debian.unpack(packages, directory)

        with step("getting QEMU from Debian's backports"):
            debian.current(unpack)
            found = version(_words(directory, "qemu-system-x86_64"))
        if found < OLDEST:
            raise UserError(f"{_SUITE} has QEMU {found[0]}.{found[1]}, and "
                            f"{OLDEST[0]}.{OLDEST[1]} is needed; set QEMU to "
                            "the path of a qemu-system-x86_64")

    return _words(cache.populate("qemu-block-extra", build, mib=600), tool)


def _words(directory, tool):
    """Return the words that run a tool which was unpacked into a directory.

    Debian's QEMU looks for libraries, modules and firmware below /usr only.
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
