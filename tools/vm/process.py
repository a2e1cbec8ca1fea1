# SPDX-License-Identifier: GPL-2.0
"""Child processes that cannot outlive this program.

The kernel kills a child when the thread that started it ends, even by SIGKILL.
atexit kills those that are left.  Each child has its own session, so that only this
program receives ^C from a terminal.
"""

import atexit
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

_running = set()


def spawn(argv, log, **options):
    """Start a program; its standard output and error go to the file log."""
    _exit_on_sigterm()
    with open(log, "wb") as output:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", *map(str, argv)],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True, **options)
    _running.add(process)
    return process


def end(process, timeout=0):
    """Wait up to timeout seconds for a program to exit, then kill it."""
    try:
        process.wait(timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    _running.discard(process)


@atexit.register
def _end_all():
    for process in list(_running):
        end(process)


def _exit_on_sigterm():
    """Turn SIGTERM into SystemExit, so that context managers and atexit run."""
    if (threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL):
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def work_directory():
    """Create a directory for one guest's files; the caller removes it.

    Also removes such directories of programs that no longer run.
    """
    for path in Path(tempfile.gettempdir()).glob("vblk-*-*"):
        owner = path.name.split("-")[1]
        if owner.isdigit() and not os.path.exists(f"/proc/{owner}"):
            shutil.rmtree(path, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"vblk-{os.getpid()}-"))


def wait_for(condition, timeout):
    """Poll condition() until it is true or timeout seconds pass; return its value."""
    limit = time.monotonic() + timeout
    while not (value := condition()) and time.monotonic() < limit:
        time.sleep(0.02)
    return value
