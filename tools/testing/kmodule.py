# SPDX-License-Identifier: GPL-2.0
"""Kernel modules that tests load into a guest."""

import subprocess
from pathlib import Path

from vm.kernels import Kernel


def build(kernel: Kernel, source: Path, directory: Path) -> Path:
    """Build a module of one file in a directory for a kernel; return its path."""
    (directory / source.name).write_bytes(source.read_bytes())
    (directory / "Makefile").write_text(f"obj-m := {source.stem}.o\n")
    subprocess.run(["make", "-s", "-C", kernel.build, f"M={directory}", "modules"],
                   check=True)
    return directory / f"{source.stem}.ko"
