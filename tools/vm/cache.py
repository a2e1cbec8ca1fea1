# SPDX-License-Identifier: GPL-2.0
"""The cache: what was downloaded, unpacked or built once and is kept.

It is one directory, $XDG_CACHE_HOME/virtio-blk-mq, and may be removed at
any time.  A name in it either does not exist or is complete.
"""

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
from pathlib import Path

from .ui import UserError, say

_MIB = 1 << 20
_MORE_ROOM = "set XDG_CACHE_HOME to a directory with more space"
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class DiskFull(UserError):
    """The disk filled up while something was made."""


def root():
    """Return the cache directory, which is made if need be."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):
        base = os.path.expanduser("~/.cache")
    path = Path(base, "virtio-blk-mq")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot make the cache directory {path}: {error.strerror}; "
            "set XDG_CACHE_HOME to a directory that can be written"
        ) from error
    if not os.access(path, os.W_OK):
        raise UserError(
            f"the cache directory {path} cannot be written by user id "
            f"{os.geteuid()}; set XDG_CACHE_HOME to one that can")
    return path


def _free_mib(path):
    return shutil.disk_usage(path).free // _MIB


def require_space(path, mib, way_out=_MORE_ROOM):
    """Raise UserError unless the file system of path has mib MiB free."""
    free = _free_mib(path)
    if free < mib:
        raise UserError(f"{path} has {free} MiB free and {mib} MiB are needed; "
                        f"make room, or {way_out}")


@contextlib.contextmanager
def space_errors(path):
    """Turn any failure inside that is owed to a full disk into DiskFull.

    Programs report a full disk each in their own way, so whatever failed,
    a disk found full afterwards is taken to be the cause.
    """
    try:
        yield
    except Exception as error:
        if getattr(error, "errno", None) in _NO_SPACE or _free_mib(path) < 1:
            raise DiskFull(
                f"the disk of {path} is full ({_free_mib(path)} MiB free); make "
                f"room, or {_MORE_ROOM}") from error
        raise


@contextlib.contextmanager
def lock(path, what):
    """Hold the lock file at path; say what is waited for while another does."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise UserError(
            f"cannot make the lock file {path}: {error.strerror}; see to its "
            "directory") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"  waiting for another process that is making {what} ...")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def replace(path, data):
    """Give a file other contents; whoever reads it has the old or the new."""
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


def populate(name, build, mib):
    """Return the cache's directory `name`, having filled it if need be.

    build(path) fills an empty directory, which appears under its name only
    when build has returned.  It must not record the path: the directory is
    renamed afterwards.  mib is how many MiB of free disk it needs.  If it
    fails, or is interrupted, nothing is left behind.
    """
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
