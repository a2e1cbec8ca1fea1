# SPDX-License-Identifier: GPL-2.0
"""Programs that run beside us, and never without us.

Each dies when the thread that started it does, even by SIGKILL, and at the
latest when this program ends; it has a session of its own, so that ^C in a
terminal is for us to handle.
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
    """Start a program with its standard and error output in the file log."""
    _exit_on_sigterm()
    with open(log, "wb") as output:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", *map(str, argv)],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True, **options)
    _running.add(process)
    return process


def end(process, timeout=0):
    """Wait up to timeout seconds for a program to end by itself, then kill it."""
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
    """Let SIGTERM unwind us, so that context managers and atexit do their work."""
    if (threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL):
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def work_directory():
    """Make a directory for one guest's files, to be removed by its user.

    Those of programs that were killed before they could are removed here.
    """
    for path in Path(tempfile.gettempdir()).glob("vblk-*-*"):
        owner = path.name.split("-")[1]
        if owner.isdigit() and not os.path.exists(f"/proc/{owner}"):
            shutil.rmtree(path, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"vblk-{os.getpid()}-"))


def wait_for(condition, timeout):
    """Poll until condition() is true, for timeout seconds; return its value."""
    limit = time.monotonic() + timeout
    while not (value := condition()) and time.monotonic() < limit:
        time.sleep(0.02)
    return value
