# SPDX-License-Identifier: GPL-2.0
"""The exceptions of guests."""

from .agent import Result


class GuestError(Exception):
    """The base class of a guest's errors."""


class QemuRefused(GuestError):
    """QEMU, or a program that serves a disk, rejected its command line."""


class QemuDied(GuestError):
    """QEMU exited while the guest was in use."""


class QmpError(GuestError):
    """QEMU answered a QMP command with an error, or did not answer."""


class BootFailed(GuestError):
    """The guest panicked while it booted, or did not boot in time."""


class BootHung(BootFailed):
    """The guest did not boot in time, and its log does not show why."""


class CommandFailed(GuestError):
    """A command in the guest ended with a status other than 0.

    result: the vm.guest.Result
    """

    def __init__(self, text: str, result: Result):
        super().__init__(text)
        self.result = result


class CommandTimeout(GuestError):
    """A command in the guest did not end within its time limit.

    result: the vm.guest.Result, whose status is None
    """

    def __init__(self, text: str, result: Result):
        super().__init__(text)
        self.result = result


class GuestSplat(GuestError):
    """The guest's kernel logged a panic, an oops, a warning or a hang."""
