# SPDX-License-Identifier: GPL-2.0
"""Counters of executed code, from guests whose kernel has CONFIG_GCOV_KERNEL.

Each guest hands over its counters before its kernel ends (see vm.guest.Guest), and they
are added up in the cache.  gcov_persist, the kernel's default, keeps those of modules
that were unloaded.  lint.coverage reads them.
"""

import base64
import contextlib
import io
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from host import cache, deps

from . import kernels
from .agent import Result
from .errors import GuestError

# The directories whose Makefiles have GCOV_PROFILE := y.
PARTS = ("drivers/block/virtio_blk", "drivers/vdpa/vdpa_blk")
# How long a guest may take to hand over its counters, in seconds.
_SECONDS = 60
# tar takes files of debugfs for empty, because their size is 0.
_SCRIPT = f"""
set -e
copy=/run/vblk-gcov
rm -rf $copy
cd /sys/kernel/debug/gcov
for place in $(find . -type d | grep -E '/({"|".join(PARTS)})$'); do
    mkdir -p $copy/$place
    for file in $place/*.gcda; do
        cat $file > $copy/$file
    done
done
tar -cz -C $copy . | base64
rm -rf $copy
"""


class BadCounters(Exception):
    """A guest's counters cannot be added to the others'."""


def counters() -> Path:
    """Return the directory of the counters; it may not exist.

    In it each file has the path that it has on the host, beside its notes (.gcno).
    """
    return cache.root() / "coverage"


def forget() -> None:
    """Remove all counters."""
    with _lock():
        shutil.rmtree(counters(), ignore_errors=True)
        _lost_record().unlink(missing_ok=True)


def lost() -> list[str]:
    """Return why counters of guests were lost, one text for each guest."""
    record = _lost_record()
    return record.read_text().splitlines() if record.exists() else []


def collect(kernel: kernels.Kernel,
            run: Callable[[str, int], Result | None]) -> None:
    """Add the counters of a guest that is about to end to those of the others.

    run: runs a script with a time limit in seconds; it returns None if the script did
    not end.  Other kernels than kernels.COVERAGE have no counters.  A guest that
    cannot hand them over fails no test; lost() returns the reason.
    """
    if kernel.name != kernels.COVERAGE:
        return
    try:
        result = run(_SCRIPT, _SECONDS)
        if result is None:
            raise BadCounters(f"the guest did not answer within {_SECONDS} s")
        if result.status:
            raise BadCounters(f"status {result.status}: {result.output.strip()[-200:]}")
        add(base64.b64decode(result.output))
    except (BadCounters, GuestError, ValueError, OSError, tarfile.TarError) as error:
        with _lock(), open(_lost_record(), "a") as record:
            record.write(" ".join(str(error).split())[:300] + "\n")


def add(archive: bytes) -> None:
    """Add the counters in a tar archive, compressed by gzip.

    Raises BadCounters if gcov-tool does not accept them, or if an object was compiled
    again since other guests ran.
    """
    deps.need("coverage")
    with _lock(), tempfile.TemporaryDirectory(dir=cache.root(),
                                              prefix=".coverage-") as work:
        new = Path(work, "new")
        with tarfile.open(fileobj=io.BytesIO(archive)) as files:
            files.extractall(new)
        if not any(new.rglob("*.gcda")):
            raise BadCounters("the guest's kernel has no counters of the driver")
        if not counters().exists():
            new.rename(counters())
            return
        _check_stamps(new)
        merged = Path(work, "merged")
        done = subprocess.run(
            ["gcov-tool-12", "merge", counters(), new, "-o", merged], text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode or not any(merged.rglob("*.gcda")):
            raise BadCounters(f"gcov-tool: {done.stdout.strip()[-200:]}")
        counters().rename(Path(work, "old"))
        merged.rename(counters())


def _check_stamps(new: Path) -> None:
    """Raise BadCounters if counters are of another build.

    gcov-tool drops those silently.  The third word of a file is the compilation's stamp.
    """
    for data in new.rglob("*.gcda"):
        known = counters() / data.relative_to(new)
        if known.exists() and known.read_bytes()[8:12] != data.read_bytes()[8:12]:
            raise BadCounters(f"{data.name} was compiled again since other guests ran")


def _lost_record() -> Path:
    return cache.root() / "coverage.lost"


@contextlib.contextmanager
def _lock() -> Iterator[None]:
    with cache.lock(cache.root() / ".coverage.lock", "the counters of executed code"):
        yield
