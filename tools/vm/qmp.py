# SPDX-License-Identifier: GPL-2.0
"""A client of the QEMU Machine Protocol."""

import json
import socket
import time
from collections.abc import Callable
from typing import Any

from .errors import QmpError


# A command, an answer or an event.
Message = dict[str, Any]


class Qmp:
    """The QMP monitor at the other end of a connected socket.

    Methods raise EOFError if QEMU has exited.
    """

    def __init__(self, sock: socket.socket, timeout: float = 30):
        self._sock = sock
        self._buffer = b""
        self._events: list[Message] = []
        self._receive(time.monotonic() + timeout)
        self.command("qmp_capabilities")

    def command(self, name: str, arguments: dict[str, Any] | None = None,
                timeout: float = 30) -> Any:
        """Run a command and return its result; raise QmpError on an error."""
        message = {"execute": name, "arguments": arguments or {}}
        try:
            self._sock.sendall(json.dumps(message).encode() + b"\n")
        except OSError as error:
            raise EOFError from error
        limit = time.monotonic() + timeout
        while True:
            answer = self._receive(limit)
            if answer is None:
                raise QmpError(f"{name}: QEMU did not answer within {timeout} s")
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                raise QmpError(f"{name}: {answer['error']['desc']}")
            self._events.append(answer)

    def event(self, name: str, matches: Callable[[dict[str, Any]], bool],
              timeout: float) -> Message | None:
        """Return the first event of a name whose data matches(data) accepts.

        Events that arrived earlier count, until this method has returned them.
        Returns None if no such event arrives within timeout seconds.
        """
        limit = time.monotonic() + timeout
        while True:
            for event in self._events:
                if event["event"] == name and matches(event.get("data", {})):
                    self._events.remove(event)
                    return event
            message = self._receive(limit)
            if message is None:
                return None
            self._events.append(message)

    def _receive(self, limit: float) -> Message | None:
        """Return the next message; None if it does not arrive before limit."""
        while b"\n" not in self._buffer:
            self._sock.settimeout(max(limit - time.monotonic(), 0.001))
            try:
                data = self._sock.recv(65536)
            except TimeoutError:
                return None
            except OSError as error:
                raise EOFError from error
            if not data:
                raise EOFError
            self._buffer += data
        line, self._buffer = self._buffer.split(b"\n", 1)
        return json.loads(line)
