# SPDX-License-Identifier: GPL-2.0
"""The cache of downloaded, unpacked and built files.

It is the directory $XDG_CACHE_HOME/virtio-blk-mq, and may be removed at any time.
An entry in it is complete or does not exist.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from . import repository
from .ui import NO_SPACE, UserError, say

_MIB = 1 << 20
_MORE_ROOM = "set XDG_CACHE_HOME to a directory with more space"


class DiskFull(UserError):
    """The disk became full while files were written."""


def root() -> Path:
    """Return the cache directory; create it if it does not exist."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):
        base = os.path.expanduser("~/.cache")
    path = Path(base, "virtio-blk-mq")
    try:
        path.mkdir(parents=True, exist_ok=True)
        # kbuild records the path without symbolic links, see vm.moved.
        path = path.resolve()
    except OSError as error:
        raise UserError(
            f"cannot create the cache directory {path}: {error.strerror}; "
            "set XDG_CACHE_HOME to a writable directory"
        ) from error
    if not os.access(path, os.W_OK):
        raise UserError(
            f"user id {os.geteuid()} cannot write to the cache directory {path}; "
            "set XDG_CACHE_HOME to a writable directory")
    return path


def check_name() -> None:
    """Raise UserError if kbuild cannot work in the cache because of its path.

    Tools that only lock files in the cache work in any directory.
    """
    repository.check_name(root(), "set XDG_CACHE_HOME to another directory")


def _free_mib(path: Path) -> int:
    return shutil.disk_usage(path).free // _MIB


def require_space(path: Path, mib: int, way_out: str = _MORE_ROOM) -> None:
    """Raise UserError unless the file system of path has mib MiB free."""
    free = _free_mib(path)
    if free < mib:
        raise UserError(f"{path} has {free} MiB free and {mib} MiB are needed; "
                        f"free some space, or {way_out}")


@contextlib.contextmanager
def space_errors(path: Path) -> Iterator[None]:
    """Turn an exception inside into DiskFull if the disk is full.

    Each program reports a full disk in another way.  So if the disk is full after
    any exception, that is taken to be the cause.
    """
    try:
        yield
    except Exception as error:
        if getattr(error, "errno", None) in NO_SPACE or _free_mib(path) < 1:
            raise DiskFull(
                f"the disk of {path} is full ({_free_mib(path)} MiB free); free some "
                f"space, or {_MORE_ROOM}") from error
        raise


@contextlib.contextmanager
def lock(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file at path; print a message if another process holds it."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise UserError(
            f"cannot create the lock file {path}: {error.strerror}; make its "
            "directory writable") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"  waiting for another process that works on {what} ...")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def replace(path: Path, data: bytes) -> None:
    """Replace a file's content atomically: readers see the old or the new one."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.",
                                     delete=False) as new:
        try:
            new.write(data)
            new.flush()
            os.chmod(new.name, 0o644)
            os.rename(new.name, path)
        except BaseException:
            os.unlink(new.name)
            raise


def populate(name: str, build: Callable[[Path], object], mib: int) -> Path:
    """Return the cache's directory `name`; build it first if it does not exist.

    build(path) fills an empty directory, which is renamed to its name when build has
    returned.  So build must not record the path.  mib: the free disk space that it
    needs, in MiB.  If build fails or is interrupted, nothing is left behind.
    """
    check_name()
    final = root() / name
    if final.is_dir():
        return final
    with lock(root() / f".{name}.lock", name):
        if final.is_dir():
            return final
        partial = root() / f".{name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        require_space(root(), mib)
        try:
            with space_errors(root()):
                partial.mkdir()
                build(partial)
                partial.rename(final)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return final
