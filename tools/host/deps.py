# SPDX-License-Identifier: GPL-2.0
"""Check which packages the tools need on the host, and install missing ones.

The tools change nothing else on the host.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping

from . import cache, ui
from .ui import UserError, step

# For so long the list of packages is new enough.
_UPDATED_SECONDS = 3600
# For each group, the required files and programs and their Debian packages.  A name
# with a slash is a file, any other name a program.
_INCLUDE = "/usr/include"
_PYTHON = "/usr/lib/python3/dist-packages"
GROUPS = {
    "build": {
        "make": "make",
        "gcc": "gcc",
        "gcc-12": "gcc-12",
        "ld": "binutils",
        "bc": "bc",
        "bison": "bison",
        "flex": "flex",
        "cpio": "cpio",
        "depmod": "kmod",
        "rsync": "rsync",
        "xz": "xz-utils",
        "zstd": "zstd",
        "perl": "perl",
        "pahole": "pahole",
        f"{_INCLUDE}/stdio.h": "libc6-dev",
        f"{_INCLUDE}/libelf.h": "libelf-dev",
        f"{_INCLUDE}/openssl/ssl.h": "libssl-dev",
    },
    "lint": {
        "sparse": "sparse",
        "perl": "perl",
        "nm": "binutils",
        "pyflakes3": "pyflakes3",
        "mypy": "mypy",
        "shellcheck": "shellcheck",
        "codespell": "codespell",
        "cppcheck": "cppcheck",
    },
    "vm": {
        "mmdebstrap": "mmdebstrap",
        "mke2fs": "e2fsprogs",
        "cpio": "cpio",
        "jq": "jq",
        "fio": "fio",
        "nbdkit": "nbdkit",
        "depmod": "kmod",
    },
    # QEMU's driver for Ceph, if the host's QEMU is used.
    "ceph": {
        "/usr/lib/x86_64-linux-gnu/qemu/block-rbd.so": "qemu-block-extra",
    },
    "model": {
        "spin": "spin",
        "gcc": "gcc",
        f"{_INCLUDE}/stdio.h": "libc6-dev",
    },
    "test": {
        f"{_PYTHON}/pytest": "python3-pytest",
        f"{_PYTHON}/xdist": "python3-pytest-xdist",
    },
    # gcov reads what the compiler of the same version wrote.
    "coverage": {
        "gcov-12": "gcc-12",
        "gcov-tool-12": "gcc-12",
        "genhtml": "lcov",
    },
    "packaging": {
        "dpkg-buildpackage": "dpkg-dev",
        "dh": "debhelper",
        "dh_dkms": "dh-dkms",
        "gcc": "gcc",
        f"{_INCLUDE}/stdio.h": "libc6-dev",
        "lintian": "lintian",
    },
    # A package of a module that is built already.
    "modules": {
        "dpkg-deb": "dpkg",
        "modinfo": "kmod",
        "strip": "binutils",
    },
    "docs": {
        "/usr/bin/sphinx-build": "python3-sphinx",
    },
    "plot": {
        "gnuplot": "gnuplot-nox",
    },
    # Compilers of programs for guests, and QEMU for foreign architectures.
    "amd64": {
        "gcc": "gcc",
        f"{_INCLUDE}/stdio.h": "libc6-dev",
    },
    "s390x": {
        "s390x-linux-gnu-gcc": "gcc-s390x-linux-gnu",
        "s390x-linux-gnu-gcc-12": "gcc-12-s390x-linux-gnu",
        "/usr/s390x-linux-gnu/lib/libc.a": "libc6-dev-s390x-cross",
        "qemu-system-s390x": "qemu-system-misc",
    },
    "arm64": {
        "aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu",
        "aarch64-linux-gnu-gcc-12": "gcc-12-aarch64-linux-gnu",
        "/usr/aarch64-linux-gnu/lib/libc.a": "libc6-dev-arm64-cross",
        "qemu-system-aarch64": "qemu-system-arm",
    },
    "archive": {
        "apt-get": "apt",
        "xz": "xz-utils",
        "/usr/share/keyrings/debian-archive-keyring.gpg":
            "debian-archive-keyring",
    },
}


def which(program: str) -> str | None:
    """Return the path of a program in PATH or the sbin directories, or None."""
    path = os.environ.get("PATH", os.defpath)
    return shutil.which(program, path=f"{path}:/usr/sbin:/sbin")


def path_of(program: str) -> str:
    """Return the path of a program that need() has installed."""
    path = which(program)
    if path is None:
        raise UserError(f"there is no {program} on this host, although its package is "
                        "installed; add its directory to PATH")
    return path


def _there(probe: str) -> bool:
    return os.path.exists(probe) if "/" in probe else which(probe) is not None


def need(*groups: str | Mapping[str, str]) -> None:
    """Install the packages of the groups that are missing.

    A group is a key of GROUPS, or a dictionary like its values.  Nothing runs if
    nothing is missing.  If the installation is not possible, the UserError names the
    missing packages and the command that installs them.
    """
    missing: set[str] = set()
    for group in groups:
        probes = GROUPS[group] if isinstance(group, str) else group
        missing |= {package for probe, package in probes.items()
                    if not _there(probe)}
    if missing:
        install(sorted(missing))


def _as_root() -> list[str] | None:
    """Return the words that run a command as root; None if that is impossible."""
    if os.geteuid() == 0:
        return []
    if which("sudo"):
        return ["sudo"] if sys.stdin.isatty() else ["sudo", "-n"]
    return None


def install(packages: list[str]) -> None:
    """Install Debian packages on the host, or raise UserError."""
    names = " ".join(packages)
    by_hand = f"apt-get update && apt-get install --no-install-recommends {names}"
    if not which("apt-get"):
        raise UserError(f"missing on this host: {names} (Debian's package names), and "
                        "there is no apt-get; install them with the host's package "
                        "manager")
    prefix = _as_root()
    if prefix is None:
        raise UserError(f"missing on this host: {names}; their installation needs "
                        f"root or sudo, and there is neither; run as root: {by_hand}")
    apt = [*prefix, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q",
           "-o", "Acquire::Retries=1", "-o", "Acquire::http::Timeout=10",
           "-o", "DPkg::Lock::Timeout=120"]
    # Two runs of apt-get update must not overlap: the second one does not wait.
    lock = cache.lock(cache.root() / ".apt-get.lock", f"an installation of {names}")
    with lock, step(f"installing {names}"):
        result = _install(apt, packages)
    if result.returncode:
        tail = "\n".join(result.stdout.strip().splitlines()[-8:])
        raise UserError(f"cannot install {names}; the output of apt-get:\n{tail}\n"
                        f"correct that error, or run as root: {by_hand}")


def _install(apt: list[str],
             packages: list[str]) -> subprocess.CompletedProcess[str]:
    """Install packages; update the list of packages before, unless that was lately."""
    updated = cache.root() / ".apt-get.updated"
    argv = [*apt, "install", "-y", "--no-install-recommends", *packages]
    if updated.exists() and time.time() - updated.stat().st_mtime < _UPDATED_SECONDS:
        result = _run(argv)
        if not result.returncode:
            return result
    # Ignore the result: a third party's repository may fail to update.  The
    # installation fails if our packages are not available.
    if not _run([*apt, "update"]).returncode:
        updated.touch()
    return _run(argv)


def _run(argv: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)


if __name__ == "__main__":
    ui.main(lambda: need(*sys.argv[1:]))
