# SPDX-License-Identifier: GPL-2.0
"""A copy of this host to install packages in: nothing in it changes the host.

    output = hostcopy.run("dpkg -i *.deb; dkms status", packages, [kernel])

The copy is a mount namespace with an overlay of the root file system.  It runs the
host's kernel, so nothing in it can load the modules that it builds.
"""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

from host import cache, debian, deps
from host.ui import step
from vm.kernels import Kernel

_TOP = Path(__file__).resolve().parents[3]
# $1: an empty directory; $2, $3: the cache, in which the kernels are, and the
# repository, which the copy sees read-only; then each kernel's release and directory.
_SETUP = """\
set -eu
mount -t tmpfs -o mode=755 none "$1"
cd "$1"
mkdir upper work root
mount -t overlay -o lowerdir=/,upperdir=upper,workdir=work none root
for directory in /dev /proc; do
	mount --rbind $directory root$directory
done
for directory in "$2" "$3"; do
	mkdir -p "root$directory"
	mount --bind "$directory" "root$directory"
	mount -o remount,bind,ro "root$directory"
done
mkdir -p root/lib/modules root/step
mount -t tmpfs none root/lib/modules
mount --bind "$PWD.step" root/step
shift 3
while [ $# -gt 0 ]; do
	modules=root/lib/modules/$1
	mkdir -p "upper-$1" "work-$1" "$modules"
	mount -t overlay -o "lowerdir=$2/lib/modules/$1,upperdir=upper-$1,workdir=work-$1" \\
		none "$modules"
	ln -sfn "$2/usr/src/linux-headers-$1" "$modules/build"
	shift 2
done
cd root
exec chroot . sh -eu -c 'cd /step; exec sh -eu ./script'
"""


def package(name: str) -> Path:
    """Return the file of a package of Debian 12 itself, to install in a copy."""
    def build(directory: Path) -> None:
        with step(f"downloading the package {name}"):
            debian.current(lambda: debian.download(
                [debian.newest(re.escape(name), "DEBIAN_MIRROR",
                               lambda package: "~bpo" not in package.version)],
                directory))

    deps.need("archive")
    (deb,) = cache.populate(name, build, mib=5).glob("*.deb")
    return deb


def run(script: str, files: Iterable[Path] = (), kernels: Iterable[Kernel] = (),
        timeout: float = 600) -> str:
    """Run a shell script as root in a copy of the host; return what it wrote.

    files: copied to its working directory; kernels: those of Debian that are installed
    in the copy, with headers and without /boot; timeout: in seconds.  DKMS is
    installed.  The script must succeed.
    """
    deps.need("build")
    dkms = package("dkms")
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        (top / "copy").mkdir()
        (top / "copy.step").mkdir()
        (top / "copy.step/script").write_text(
            f"dpkg --force-depends -i {dkms.name} >/dev/null\n{script}")
        for file in (dkms, *files):
            shutil.copy(file, top / "copy.step")
        installed = [str(word) for kernel in kernels
                     for word in (kernel.release, kernel.modules)]
        result = subprocess.run(
            ["unshare", "--mount", "sh", "-c", _SETUP, "sh", top / "copy", cache.root(),
             _TOP, *installed], text=True, timeout=timeout, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env={**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"})
    assert result.returncode == 0, result.stdout
    return result.stdout
