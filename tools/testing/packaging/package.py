# SPDX-License-Identifier: GPL-2.0
"""Build the packages of the driver and the device, and Debian systems that have them."""

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from host import debian, deps
from vm import kernels

from . import machine as machines

TOP = Path(__file__).resolve().parents[3]
PACKAGING = TOP / "tools/packaging"


@dataclass(frozen=True)
class Part:
    """The driver or the device.

    module: its name; dkms: its name for DKMS; package: its Debian package; sources:
    their directory; oldest: the oldest version of Linux.
    """
    module: str
    dkms: str
    package: str
    sources: str
    oldest: tuple[int, int]


DRIVER = Part("virtio_blk", "virtio-blk-mq", "virtio-blk-mq-dkms", kernels._DRIVER,
              kernels.OLDEST)
DEVICE = Part("vdpa_blk", "virtio-blk-mq-vdpa", "virtio-blk-mq-vdpa", kernels._DEVICE,
              kernels.OLDEST_VDPA)
both_parts = pytest.mark.parametrize("part", [DRIVER, DEVICE],
                                     ids=lambda part: part.module)
needs_root = pytest.mark.skipif(os.geteuid() != 0,
                                reason="a copy of the host takes root")


def run(*argv: object, cwd: Path = TOP, timeout: float = 120,
        **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program, with a name and address for git; return its CompletedProcess."""
    person = {"GIT_AUTHOR_NAME": "A Person", "GIT_AUTHOR_EMAIL": "a@example.org",
              "GIT_COMMITTER_NAME": "A Person",
              "GIT_COMMITTER_EMAIL": "a@example.org"}
    return subprocess.run(list(map(str, argv)), cwd=cwd, text=True, timeout=timeout,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT,
                          env={**os.environ, **person, **environment})


def output(*argv: object, **options: Any) -> str:
    """Run a program that succeeds and return what it wrote."""
    result = run(*argv, **options)
    assert result.returncode == 0, f"{argv}:\n{result.stdout}"
    return result.stdout


def version() -> str:
    """Return the version of the packages and the module."""
    return output(PACKAGING / "version").strip()


def build() -> dict[str, Path]:
    """Build the packages from the tree as it is; return {name: path}."""
    deps.need("packaging")
    built = re.findall(r"\S+\.deb", output(PACKAGING / "deb", timeout=300))
    return {Path(path).name.partition("_")[0]: TOP / path for path in built}


# Systems.  A step of a Machine with OURS fails unless its root disk uses the driver.

OURS = """\
uname -r
test "$(findmnt -no SOURCE /)" = /dev/vda
test "$(cat /sys/module/virtio_blk/version)" = {version}
dmesg | grep 'virtio_blk.*\\[vda\\].*ring'
"""


def initrds(said: str) -> dict[str, str]:
    """Return the file of virtio_blk in each initramfs: {release: path}."""
    return dict(re.findall(r"^usr/lib/modules/([^/]+)/(\S+/virtio_blk\.ko\S*)$", said,
                           re.MULTILINE))


def make_image(tmp_path: Path, **variables: str) -> Path:
    """Make an image with make-image that runs the steps of a Machine."""
    deps.need("vm", "archive")
    added, image = tmp_path / "added", tmp_path / "image"
    machines.add_runner(added)
    sources = tmp_path / "sources.list"
    sources.write_text(debian.sources(machines.SUITES))
    output(PACKAGING / "cloud-image/make-image", image, "--quiet",
           f"--customize-hook=sync-in {added} /", SOURCES=str(sources), timeout=1800,
           **variables)
    return image
