# SPDX-License-Identifier: GPL-2.0
"""A monitor without a guest: it speaks vhost-user to vblksim on the host.

    with Monitor(directory, "--queues=2") as monitor:
        features = monitor.ask(GET_FEATURES)
"""

import os
import re
import signal
import socket
import struct
import subprocess
from pathlib import Path

from common import simulator
from host import process

GET_FEATURES, SET_FEATURES, SET_OWNER, RESET_OWNER, SET_MEM_TABLE = range(1, 6)
SET_VRING_NUM, SET_VRING_ADDR, SET_VRING_BASE, GET_VRING_BASE = range(8, 12)
SET_VRING_KICK, SET_VRING_CALL, SET_VRING_ERR = range(12, 15)
GET_PROTOCOL_FEATURES, SET_PROTOCOL_FEATURES, GET_QUEUE_NUM = range(15, 18)
SET_VRING_ENABLE, SET_BACKEND_REQ_FD, GET_CONFIG, SET_CONFIG = 18, 21, 24, 25

_VERSION, _REPLY, _NEED_REPLY = 1, 1 << 2, 1 << 3
_HEADER = struct.Struct("=III")
_SECONDS = 20


class Monitor:
    """A vblksim on the host, and a connection to it.

    words: further arguments of vblksim.
    """

    def __init__(self, directory: Path, *words: str):
        self.path = directory / "vhost"
        self._log = directory / "log"
        self._control = directory / "control"
        self._words = [f"--socket={self.path}", f"--control={self._control}",
                       f"--report={directory / 'report'}", *words]

    def __enter__(self) -> "Monitor":
        self._process = process.spawn([simulator.build(), *self._words], self._log)
        assert self.saw("waiting for QEMU"), self.output
        self.connect()
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.close()
        process.end(self._process)

    @property
    def output(self) -> str:
        """What vblksim has printed so far."""
        return self._log.read_text()

    def saw(self, pattern: str, times: int = 1) -> bool:
        """Wait until vblksim has printed a pattern so many times."""
        return bool(process.wait_for(
            lambda: len(re.findall(pattern, self.output)) >= times, _SECONDS))

    def connect(self) -> None:
        """Connect, instead of the connection before."""
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(_SECONDS)
        self._socket.connect(str(self.path))

    def disconnect(self) -> None:
        """Close the connection."""
        self._socket.close()

    def send(self, request: int, payload: bytes = b"", files: tuple[int, ...] = (), *,
             flags: int = _VERSION, size: int | None = None) -> None:
        """Send a message; size: the one in its header, if it is not the payload's."""
        header = _HEADER.pack(request, flags, len(payload) if size is None else size)
        socket.send_fds(self._socket, [header + payload], files)

    def receive(self) -> tuple[int, bytes]:
        """Receive a reply: its request and payload."""
        request, flags, size = _HEADER.unpack(self._bytes(_HEADER.size))
        assert flags == _VERSION | _REPLY
        return request, self._bytes(size)

    def _bytes(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            piece = self._socket.recv(size - len(found))
            assert piece, f"vblksim has closed the connection:\n{self.output}"
            found += piece
        return found

    def ask(self, request: int, payload: bytes = b"") -> bytes:
        """Send a message and return the payload of its reply."""
        self.send(request, payload)
        replied, answer = self.receive()
        assert replied == request
        return answer

    def number(self, request: int) -> int:
        """The same for a reply that is a number."""
        return struct.unpack("=Q", self.ask(request))[0]

    def confirm(self, request: int, payload: bytes = b"",
                files: tuple[int, ...] = ()) -> int:
        """Send a message that asks for a confirmation, and return that: 0 is success."""
        self.send(request, payload, files, flags=_VERSION | _NEED_REPLY)
        replied, answer = self.receive()
        assert replied == request
        return struct.unpack("=Q", answer)[0]

    def ctl(self, command: str) -> str:
        """Send vblksim a command and return its answer."""
        return subprocess.run(
            [simulator.build(), "ctl", f"--control={self._control}", command],
            text=True, check=True, stdout=subprocess.PIPE).stdout.strip()

    def is_closed(self) -> bool:
        """Tell whether vblksim closes the connection."""
        try:
            return self._socket.recv(1) == b""
        except ConnectionResetError:
            return True

    def other_is_closed(self) -> bool:
        """Tell whether vblksim closes a second connection beside this one."""
        with socket.socket(socket.AF_UNIX) as other:
            other.settimeout(_SECONDS)
            other.connect(str(self.path))
            return other.recv(1) == b""

    def end(self) -> int:
        """Tell vblksim to end and return its status."""
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(_SECONDS)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"vblksim does not end:\n{self.output}") from None


def memory(size: int) -> int:
    """Return the file descriptor of size bytes of memory."""
    file = os.memfd_create("guest")
    os.ftruncate(file, size)
    return file


def event(count: int) -> int:
    """Return an eventfd with an initial count, as QEMU makes them."""
    return os.eventfd(count, os.EFD_NONBLOCK | os.EFD_CLOEXEC)  # type: ignore[attr-defined]


def region(guest: int, size: int, user: int, offset: int = 0) -> bytes:
    """Return a region of SET_MEM_TABLE's."""
    return struct.pack("=QQQQ", guest, size, user, offset)


def table(*regions: bytes) -> bytes:
    """Return the payload of SET_MEM_TABLE."""
    return struct.pack("=II", len(regions), 0) + b"".join(regions)
