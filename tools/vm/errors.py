# SPDX-License-Identifier: GPL-2.0
"""What can go wrong with a guest, each by its name."""


class GuestError(Exception):
    """Anything that went wrong with a guest."""


class QemuRefused(GuestError):
    """QEMU, or a program that serves a disk, did not take its command line."""


class QemuDied(GuestError):
    """QEMU ended while the guest was in use."""


class QmpError(GuestError):
    """QEMU answered a QMP command with an error, or not at all."""


class BootFailed(GuestError):
    """The guest panicked before it was up, or was not up in time."""


class BootHung(BootFailed):
    """The guest was not up in time, and gave no sign of why."""


class CommandFailed(GuestError):
    """A command in the guest ended with a status other than 0.

    result: the vm.guest.Result
    """

    def __init__(self, text, result):
        super().__init__(text)
        self.result = result


class CommandTimeout(GuestError):
    """A command in the guest did not end within its time limit.

    result: the vm.guest.Result, whose status is None
    """

    def __init__(self, text, result):
        super().__init__(text)
        self.result = result


class GuestSplat(GuestError):
    """The guest's kernel complained: a panic, an oops, a warning, a hang."""
