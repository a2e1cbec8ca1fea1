# SPDX-License-Identifier: GPL-2.0
"""Child processes that cannot outlive this program.

The kernel kills a child when the thread that started it ends, even by SIGKILL.
atexit kills those that are left.  Each child has its own session, so that only this
program receives ^C from a terminal.
"""

import atexit
import contextlib
import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from .ui import UserError

_Value = TypeVar("_Value")

_running: set[subprocess.Popen[bytes]] = set()


def spawn(argv: Iterable[str | os.PathLike[str]], log: str | os.PathLike[str],
          **options: Any) -> subprocess.Popen[bytes]:
    """Start a program; its standard output and error go to the file log."""
    _exit_on_sigterm()
    with open(log, "wb") as output:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", *map(str, argv)],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True, **options)
    _running.add(process)
    return process


def end(process: subprocess.Popen[bytes], timeout: float = 0) -> None:
    """Wait up to timeout seconds for a program to exit, then kill it."""
    try:
        process.wait(timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    _running.discard(process)


@atexit.register
def _end_all() -> None:
    for process in list(_running):
        end(process)


def _exit_on_sigterm() -> None:
    """Turn SIGTERM into SystemExit, so that context managers and atexit run."""
    if (threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL):
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


# Open directories of this process, by path.  Each is locked until it is closed.
_directories: dict[Path, int] = {}
# Earlier releases do not lock their directories, which are named vblk-PID-*.
_PREFIX = "vblk-guest-"
# The errors of flock() on a file system without locks, or without its lock server.
_NO_LOCKS = (errno.ENOLCK, errno.EBADF, errno.EOPNOTSUPP)


def _lock(path: Path, how: int) -> int:
    """Open and lock a directory and return the descriptor; raise OSError if not."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, how)
        # Another process can have removed it before the lock.
        os.stat(path)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _remove_abandoned() -> None:
    """Remove the work directories whose program has ended."""
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        # It is in use, another user's, or removed by another program just now.
        with contextlib.suppress(OSError):
            descriptor = _lock(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
            os.close(descriptor)


def work_directory() -> Path:
    """Create a directory for one guest's files, for remove_work_directory().

    Also removes such directories of programs that no longer run: the kernel releases
    the lock of a directory when its program ends.  Process ids do not show that,
    because programs of another PID namespace can share the place.
    """
    _remove_abandoned()
    while True:
        path = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
        try:
            _directories[path] = _lock(path, fcntl.LOCK_EX)
            return path
        except FileNotFoundError:
            # Another program took it for abandoned before it was locked.
            continue
        except OSError as error:
            with contextlib.suppress(OSError):
                path.rmdir()
            if error.errno not in _NO_LOCKS:
                raise
            raise UserError(f"cannot lock {path}: {error.strerror}; set TMPDIR to a "
                            "directory on a local disk") from error


def remove_work_directory(path: Path) -> None:
    """Remove a directory that work_directory() created."""
    shutil.rmtree(path, ignore_errors=True)
    if path in _directories:
        os.close(_directories.pop(path))


def wait_for(condition: Callable[[], _Value], timeout: float) -> _Value:
    """Poll condition() until it is true or timeout seconds pass; return its value."""
    limit = time.monotonic() + timeout
    while not (value := condition()) and time.monotonic() < limit:
        time.sleep(0.02)
    return value
