# SPDX-License-Identifier: GPL-2.0
"""What the tools need of the host, and installing what is missing.

Installed packages are the only thing that is ever changed on the host.
"""

import os
import shutil
import subprocess
import sys

from . import cache, ui
from .ui import UserError, step

# For each group, what must be there and the Debian package that brings it.
# A name with a slash is a file, any other name a program.
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
    # QEMU's driver for Ceph's disks, where QEMU is the host's own.
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
    "packaging": {
        "dpkg-buildpackage": "dpkg-dev",
        "dh": "debhelper",
        "dh_dkms": "dh-dkms",
        "gcc": "gcc",
        f"{_INCLUDE}/stdio.h": "libc6-dev",
        "lintian": "lintian",
    },
    "docs": {
        "/usr/bin/sphinx-build": "python3-sphinx",
    },
    "plot": {
        "gnuplot": "gnuplot-nox",
    },
    # Programs for guests, and QEMU for those that are not like the host.
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


def which(program):
    """Return the path of a program, system directories included, or None."""
    path = os.environ.get("PATH", os.defpath)
    return shutil.which(program, path=f"{path}:/usr/sbin:/sbin")


def _there(probe):
    return os.path.exists(probe) if "/" in probe else which(probe) is not None


def need(*groups):
    """See to it that all in the named groups is installed.

    A group is a key of GROUPS, or a dictionary like its values.  Nothing is
    run when all is there.  UserError names what is missing, and the command
    that installs it, where that cannot be done here.
    """
    missing = set()
    for group in groups:
        probes = GROUPS[group] if isinstance(group, str) else group
        missing |= {package for probe, package in probes.items()
                    if not _there(probe)}
    if missing:
        install(sorted(missing))


def _as_root():
    """Return the words that make a command run as root, None if there are none."""
    if os.geteuid() == 0:
        return []
    if which("sudo"):
        return ["sudo"] if sys.stdin.isatty() else ["sudo", "-n"]
    return None


def install(packages):
    """Install Debian packages on the host, or raise UserError."""
    names = " ".join(packages)
    by_hand = f"apt-get update && apt-get install --no-install-recommends {names}"
    if not which("apt-get"):
        raise UserError(f"missing on this machine: {names} (names of Debian "
                        "packages), and there is no apt-get to install them with")
    prefix = _as_root()
    if prefix is None:
        raise UserError(f"missing on this machine: {names}; installing them "
                        "takes root or sudo, and there is neither; as root run: "
                        f"{by_hand}")
    apt = [*prefix, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q",
           "-o", "Acquire::Retries=1", "-o", "Acquire::http::Timeout=10",
           "-o", "DPkg::Lock::Timeout=120"]
    # apt-get update does not wait for another one.
    lock = cache.lock(cache.root() / ".apt-get.lock", f"an installation of {names}")
    with lock, step(f"installing {names}"):
        # A third party's repository that fails to update need not concern
        # us: whether ours can be had is for the installation to say.
        _run([*apt, "update"])
        result = _run([*apt, "install", "-y", "--no-install-recommends",
                       *packages])
    if result.returncode:
        tail = "\n".join(result.stdout.strip().splitlines()[-8:])
        raise UserError(f"could not install {names}; apt-get said:\n{tail}\n"
                        f"mend that, or install them as root: {by_hand}")


def _run(argv):
    return subprocess.run(argv, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)


if __name__ == "__main__":
    ui.main(lambda: need(*sys.argv[1:]))
