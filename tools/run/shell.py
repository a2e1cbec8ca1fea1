# SPDX-License-Identifier: GPL-2.0
"""A shell in a guest whose disks our driver serves.

    python3 -m run.shell 6.12
    echo 'lsblk; fio ...' | python3 -m run.shell 6.1 --disk null,queues=8

If standard input is not a terminal, it is run as a script, and the exit status is the
script's.
"""

import argparse
import contextlib
import os
import select
import shutil
import signal
import socket
import sys
import termios
import tty
from collections.abc import Iterator
from typing import Any

from common import simulator, vblkstat
from host import ui
from host.ui import UserError, say
from vm import kernels
from vm.disk import Disk
from vm.errors import GuestError, GuestSplat
from vm.guest import Guest

_ESCAPE = b"\x1d"
_HINT = """\
  Leave with `exit` or ^D; ^] stops the guest even if it hangs.
  The guest's disks are then removed. `dmesg` shows the kernel's log."""

_SIMULATOR = """\
  `vblkstat` shows disks and their queues.
  `vblksim &` adds a disk whose device checks its driver; see `vblksim --help`."""

_TTY = "tty"
_TTY_ARGS = ["-chardev", f"socket,id=tty,path={_TTY},server=on,wait=off",
             "-device", "virtconsole,chardev=tty"]
_SIZE = "stty -F /dev/hvc0 rows {lines} cols {columns}"
_LOGIN = "cd; TERM={term} exec setsid -w -c bash -l <>/dev/hvc0 >&0 2>&0"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="run.shell", description="Start a shell in a guest.")
    parser.add_argument("kernel", nargs="?",
                        default=os.environ.get("KERNEL") or "6.12",
                        help="name or build tree of the kernel (default: the "
                             "environment variable KERNEL, or 6.12)")
    parser.add_argument("--cpus", type=int, default=4)
    parser.add_argument("--machine", default="q35", help="q35, pc or microvm")
    parser.add_argument("--stock", action="store_true",
                        help="use the in-tree driver")
    parser.add_argument("--params", default="",
                        help='module parameters, such as "num_request_queues=2"')
    parser.add_argument("--disk", action="append", metavar="BACKEND[,KEY=VALUE...]",
                        help="such as ram,queues=4,packed=on; KEY is an argument of "
                             "vm.disk.Disk; may be repeated")
    return parser.parse_args()


def _value(text: str) -> int | str:
    switch: dict[str, int | str] = {"on": True, "off": False}
    return int(text) if text.isdigit() else switch.get(text, text)


def _disk(number: int, description: str) -> Disk:
    backend, *options = description.split(",")
    keywords: dict[str, Any] = {}
    for option in options:
        key, equals, value = option.partition("=")
        if not equals:
            raise UserError(f"--disk {description}: {option!r} must be KEY=VALUE, "
                            "such as queues=4")
        keywords[key] = _value(value)
    return Disk(keywords.pop("id", f"disk{number}"), backend, **keywords)


def _guest(arguments: argparse.Namespace, **options: Any) -> Guest:
    disks = arguments.disk or ["null,queues=4,id=null", "qcow2,queues=4,id=data"]
    return Guest(arguments.kernel, cpus=arguments.cpus, params=arguments.params,
                 machine=arguments.machine,
                 driver="stock" if arguments.stock else "ours",
                 disks=[_disk(number, text) for number, text in enumerate(disks)],
                 **options)


@contextlib.contextmanager
def _raw_terminal() -> Iterator[None]:
    saved = termios.tcgetattr(sys.stdin)
    tty.setraw(sys.stdin)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSAFLUSH, saved)


class _Terminal:
    """The terminal on the host, connected to one in the guest."""

    def __init__(self, guest: Guest, sock: socket.socket):
        self._guest = guest
        self._sock = sock
        self._fit()

    def _fit(self, *_: object) -> None:
        size = shutil.get_terminal_size()
        self._guest.start(_SIZE.format(lines=size.lines, columns=size.columns))

    def run(self) -> None:
        """Relay input and output until the guest's shell exits."""
        term = os.environ.get("TERM", "linux")
        job = self._guest.start(_LOGIN.format(term=term), timeout=None)
        signal.signal(signal.SIGWINCH, self._fit)
        with _raw_terminal():
            while job.running and self._relay():
                self._show_splats()
        signal.signal(signal.SIGWINCH, signal.SIG_DFL)
        while self._show(timeout=0.1):
            pass

    def _relay(self) -> bool:
        """Relay for 0.2 s at most; return False on ^] or the end of the input."""
        ready, _, _ = select.select([sys.stdin, self._sock], [], [], 0.2)
        if self._sock in ready:
            self._show(timeout=0)
        if sys.stdin not in ready:
            return True
        typed = os.read(sys.stdin.fileno(), 4096)
        if not typed or _ESCAPE in typed:
            return False
        self._sock.sendall(typed)
        return True

    def _show(self, timeout: float) -> bool:
        if not select.select([self._sock], [], [], timeout)[0]:
            return False
        data = self._sock.recv(65536)
        os.write(sys.stdout.fileno(), data)
        return bool(data)

    def _show_splats(self) -> None:
        try:
            self._guest.check_log()
        except GuestSplat as splat:
            print(f"\n{splat}\n".replace("\n", "\r\n"), file=sys.stderr)


def _install_programs(guest: Guest) -> None:
    guest.put(vblkstat.build(), "/usr/sbin/vblkstat")
    if simulator.install(guest, "/usr/bin/vblksim"):
        say(_SIMULATOR)
    else:
        say("  vblksim does not work here, because this kernel has no VDUSE; "
            "use KERNEL=6.12 for it")


def _interactive(arguments: argparse.Namespace) -> int:
    with _guest(arguments, qemu_args=_TTY_ARGS) as guest:
        say(f"  Linux {guest.release}, booted in {guest.boot_seconds:.0f} s\n{_HINT}")
        _install_programs(guest)
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(guest.directory / _TTY))
            _Terminal(guest, sock).run()
    return 0


def _script(arguments: argparse.Namespace) -> int | None:
    script = sys.stdin.read()
    with _guest(arguments) as guest:
        _install_programs(guest)
        job = guest.start(script, timeout=None)
        shown = 0
        while True:
            running = job.running
            print(job.output[shown:], end="", flush=True)
            shown = len(job.output)
            if not running:
                return job.wait(check=False).status
            guest.check_log()
            select.select([], [], [], 0.1)


def main() -> int | None:
    arguments = _arguments()
    kernels.check_name(arguments.kernel, (*kernels.NAMES, kernels.PREPARED))
    if arguments.cpus < 1:
        raise UserError(f"--cpus is {arguments.cpus}; it must be 1 or more")
    try:
        return (_interactive if sys.stdin.isatty() else _script)(arguments)
    except GuestError as error:
        say(f"error: {error}")
        return 1


if __name__ == "__main__":
    ui.main(main)
