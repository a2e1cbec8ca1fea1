# SPDX-License-Identifier: GPL-2.0
"""Send SysRq keys from the host to the guest's kernel.

In a guest whose tasks hang, the shell may not answer, and the agent may wait for a
page on the disk that hangs.  The kernel handles a break and a key on the serial
console in the console's interrupt, so it needs neither of them.  The guest's kernel
needs CONFIG_MAGIC_SYSRQ_SERIAL.
"""

import contextlib
import re
import socket
import time
from collections.abc import Callable
from pathlib import Path

from .klog import KernelLog

# QEMU's id of the console's character device, and the socket of its input.
CHARDEV = "console"
SOCKET = "console.sock"
# The SysRq key, and a text in the first line of the kernel's answer.
BLOCKED = ("w", "Show Blocked State")
LOCKS = ("d", "Show Locks Held")

_ANSWER_SECONDS = 5
# The answer is complete when the console has printed nothing for so many seconds.
_QUIET_SECONDS = 1.5
_MOST_SECONDS = 30


def press(key: str, directory: Path, qmp: Callable[..., object], log: KernelLog,
          answer: str) -> str | None:
    """Send a key; return what the kernel logs, None if it does not answer.

    directory: contains the socket; qmp: a function that runs a QMP command; answer: a
    text in the first line of the answer.
    """
    start = log.size()
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as line:
        line.connect(str(directory / SOCKET))
        line.settimeout(0.05)
        qmp("chardev-send-break", id=CHARDEV)
        line.sendall(key.encode())
        limit = time.monotonic() + _ANSWER_SECONDS
        while answer not in log.since(start) and time.monotonic() < limit:
            # QEMU blocks until the output is read; the log has it, too.
            with contextlib.suppress(TimeoutError):
                line.recv(65536)
    if answer not in log.since(start):
        return None
    _await_silence(log)
    return log.since(start)


def _await_silence(log: KernelLog) -> None:
    limit = time.monotonic() + _MOST_SECONDS
    size, since = log.size(), time.monotonic()
    while time.monotonic() < min(limit, since + _QUIET_SECONDS):
        time.sleep(0.1)
        if log.size() > size:
            size, since = log.size(), time.monotonic()


# Functions at the top of every blocked task's stack.
_WAITING = re.compile(r"^(__)?schedule|^io_schedule|^schedule_timeout|^msleep|"
                      r"^__wait_for_common|^wait_for_completion|^preempt_schedule")
_MOST_FRAMES = 6


def summary(said: str) -> str:
    """Return a line for each blocked task: its name, its work, where it waits.

    said: the result of press() for the key BLOCKED.
    """
    lines = []
    for part in re.split(r"^.*?\btask:", said, flags=re.MULTILINE)[1:]:
        name, _, rest = part.partition(" ")
        pid = re.search(r"\bpid:(\d+)", rest)
        work = re.search(r"\bWorkqueue: \S+ (\w+)", rest)
        frames = [frame for frame in re.findall(r"\] +(\w+)[\w.]*\+0x", rest)
                  if not _WAITING.search(frame)]
        lines.append(f"    {name} {pid[1] if pid else '?'}"
                     + (f" ({work[1]})" if work else "") + ": "
                     + " < ".join(frames[:_MOST_FRAMES]))
    return "\n".join(lines) or "    (no task is blocked)"
