# SPDX-License-Identifier: GPL-2.0
"""The host's side of the protocol with a guest's agent (see agent.c)."""

import contextlib
import re
import select
import socket
import time
from dataclasses import dataclass

_SEND_SECONDS = 60
# The longest message that says that an agent is ready.
_READY_BYTES = 100


@dataclass(frozen=True)
class Result:
    """The result of a command.

    output: its standard output and standard error
    status: the value of $?; None if the command was killed
    seconds: its duration, measured on the host
    """
    output: str
    status: int | None
    seconds: float


class Task:
    """A command that the agent runs.

    outcome: None while it runs, then "exit", "timeout", "stuck" if it was killed but
    did not exit, or "silent" if the agent does not answer.
    result: set with the outcome.
    """

    result: Result

    def __init__(self, number: int, command: str, limit: float | None):
        self.number = number
        self.command = command
        self.limit = limit
        self.started = time.monotonic()
        self.outcome: str | None = None
        self.output = b""

    def end(self, outcome: str, status: int | None) -> None:
        """Record the outcome and the result."""
        self.outcome = outcome
        self.result = Result(self.output.decode(errors="replace"), status,
                             time.monotonic() - self.started)


class Agent:
    """The agent at the other end of a connected socket.

    release: the guest kernel's; None until the agent is ready.
    """

    def __init__(self, sock: socket.socket):
        sock.settimeout(_SEND_SECONDS)
        self._sock = sock
        self._buffer = b""
        self._tasks: dict[int, Task] = {}
        self._next = 1
        self._restarted = False
        self.release: str | None = None

    def run(self, script: str, limit: float | None) -> Task:
        """Start a shell script; limit: in seconds, None for no limit."""
        data = script.encode()
        task = self._add(script, limit)
        milliseconds = max(int((limit or 0) * 1000), 0 if limit is None else 1)
        self._send(f"run {task.number} {milliseconds} {len(data)}\n".encode()
                   + data)
        return task

    def put(self, path: str, data: bytes, mode: int) -> Task:
        """Start writing a file in the guest."""
        task = self._add(f"write {path}", _SEND_SECONDS)
        self._send(f"put {task.number} {mode:o} {len(data)} {path}\n".encode()
                   + data)
        return task

    def kill(self, task: Task) -> None:
        """Kill a command's process group."""
        self._send(f"kill {task.number}\n".encode())

    def reboot(self) -> None:
        """Reboot the guest."""
        self._send(b"reboot\n")

    def pump(self, timeout: float) -> None:
        """Handle the agent's messages; wait for one up to timeout seconds.

        Raises EOFError if QEMU has exited.
        """
        if not self._readable(timeout):
            return
        try:
            data = self._sock.recv(65536)
        except ConnectionError as error:
            raise EOFError from error
        if not data:
            raise EOFError
        self._buffer += data
        while self._take_message():
            pass

    def follow(self, sock: socket.socket) -> None:
        """Use another socket, after the other end of the old one was closed.

        Messages that arrived on the old socket are handled first.
        """
        with contextlib.suppress(EOFError):
            while True:
                self.pump(0)
        self._sock.close()
        sock.settimeout(_SEND_SECONDS)
        self._sock = sock

    def await_next(self) -> None:
        """Forget all commands, and wait for the agent of the guest's next kernel.

        The old one stops anywhere, also within a message.
        """
        self.release = None
        self._tasks.clear()
        self._restarted = True

    def _readable(self, timeout: float) -> bool:
        return bool(select.select([self._sock], [], [], timeout)[0])

    def _add(self, command: str, limit: float | None) -> Task:
        task = Task(self._next, command, limit)
        self._tasks[self._next] = task
        self._next += 1
        return task

    def _send(self, data: bytes) -> None:
        try:
            self._sock.sendall(data)
        except ConnectionError as error:
            raise EOFError from error

    def _take_message(self) -> bool:
        """Handle one message in the buffer; return False if it is incomplete."""
        if self._restarted and not self._skip_to_ready():
            return False
        line, newline, rest = self._buffer.partition(b"\n")
        if not newline:
            return False
        kind, *words = line.decode(errors="replace").split()
        if kind == "out":
            length = int(words[1])
            if len(rest) < length:
                return False
            self._handle(kind, words, rest[:length])
            rest = rest[length:]
        else:
            self._handle(kind, words)
        self._buffer = rest
        return True

    def _skip_to_ready(self) -> bool:
        """Drop what the last kernel's agent left; return whether the next one is ready."""
        found = re.search(rb"ready \S+\n", self._buffer)
        self._restarted = found is None
        self._buffer = self._buffer[found.start():] if found else \
            self._buffer[-_READY_BYTES:]
        return found is not None

    def _handle(self, kind: str, words: list[str], data: bytes = b"") -> None:
        if kind == "ready":
            self.release = words[0]
            return
        task = self._tasks.get(int(words[0])) if words[0].isdigit() else None
        if task is None:
            return
        if kind == "out":
            task.output += data
            return
        task.end(kind, int(words[1]) if kind == "exit" else None)
        del self._tasks[task.number]
