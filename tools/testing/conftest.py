# SPDX-License-Identifier: GPL-2.0
"""What all suites share: the kernels that tests run on.

A test that takes the fixture `kernel` runs once for each kernel that its mark
names, on 6.12 if it has none:

    pytestmark = pytest.mark.kernels("6.1", "6.12")

kernels("6.12", full=("7.3-debug",)) has it run on the second with
`make check-full` only.  `make check KERNEL=6.1` runs all of them on that kernel
instead.  Tests marked `module` load and unload the driver, and leave out
kernels that have it built in.
"""

import contextlib
import os
import signal
import sys

import pytest

import vblksim
from vm import kernels
from vm.guest import Guest
from vm.ui import UserError

DEFAULT = ("6.12",)


def pytest_configure(config):
    # Being told to end means all tests, as ^C does; not the one that runs.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # On a busy host, QEMU's emulator loses things: see vm.qemu.FLAW.  Where CPUs
    # have to get in each other's way, tests say so themselves.
    Guest.PARALLEL = bool(os.environ.get("FULL"))
    config.addinivalue_line(
        "markers", "kernels(*names, full=()): the kernels that the test runs on")
    config.addinivalue_line(
        "markers", "module: needs the driver as a module")


def _names(metafunc):
    wanted = os.environ.get("KERNEL")
    mark = metafunc.definition.get_closest_marker("kernels")
    names = (wanted,) if wanted else mark.args if mark else DEFAULT
    if mark and not wanted and os.environ.get("FULL"):
        names += mark.kwargs.get("full", ())
    if metafunc.definition.get_closest_marker("module"):
        names = [name for name in names if not name.startswith("7.3")]
    # pytest shares a fixture between tests whose parameter is the same object.
    return [sys.intern(name) for name in names]


def pytest_terminal_summary(terminalreporter):
    """Tell what the driver was seen to do by the device that watches it."""
    line = vblksim.summary()
    if line:
        terminalreporter.write_line(line)


def pytest_generate_tests(metafunc):
    if "kernel" in metafunc.fixturenames:
        metafunc.parametrize("kernel", _names(metafunc), indirect=True,
                             scope="session")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Within a file, put together what runs on one kernel; ours come last.

    pytest groups by a parameter's place in each test's own list, and would
    boot the guests of a file anew wherever two tests name other kernels.
    """
    files = list(dict.fromkeys(item.path for item in items))

    def place(item):
        name = _kernel_of(item)
        names = kernels.NAMES + kernels.FOREIGN
        return (name in kernels.OWN, files.index(item.path),
                names.index(name) if name in names else len(names))

    items.sort(key=place)


def _kernel_of(item):
    """Return the name of the kernel that a test runs on, None if of none."""
    return item.callspec.params.get("kernel") if hasattr(item, "callspec") \
        else None


def pytest_collection_finish(session):
    """Build our kernels while tests run on Debian's, and leave a CPU idle."""
    wanted = {_kernel_of(item) for item in session.items}
    names = [name for name in kernels.OWN if name in wanted]
    if names and not session.config.option.collectonly:
        # What the host lacks for it, the first test that needs one will tell.
        with contextlib.suppress(UserError):
            builder = kernels.start_building(names)
            session.config.add_cleanup(lambda: kernels.stop_building(builder))


@pytest.fixture(scope="session")
def kernel(request):
    """The vm.kernels.Kernel to boot, downloaded or built first if need be."""
    return kernels.find(request.param)
