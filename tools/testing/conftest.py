# SPDX-License-Identifier: GPL-2.0
"""What all suites share: the kernels that tests run on.

A test that takes the fixture `kernel` runs once for each kernel that its mark
names, on 6.12 if it has none:

    pytestmark = pytest.mark.kernels("6.1", "6.12")

`make check KERNEL=6.1` runs all of them on that kernel instead.  Tests marked
`module` load and unload the driver, and leave out kernels that have it built
in.
"""

import os

import pytest

from vm import kernels

DEFAULT = ("6.12",)


def pytest_configure(config):
    config.addinivalue_line(
        "markers", "kernels(*names): the kernels that the test runs on")
    config.addinivalue_line(
        "markers", "module: needs the driver as a module")


def _names(metafunc):
    wanted = os.environ.get("KERNEL")
    mark = metafunc.definition.get_closest_marker("kernels")
    names = (wanted,) if wanted else mark.args if mark else DEFAULT
    if metafunc.definition.get_closest_marker("module"):
        names = [name for name in names if not name.startswith("7.3")]
    return names


def pytest_generate_tests(metafunc):
    if "kernel" in metafunc.fixturenames:
        metafunc.parametrize("kernel", _names(metafunc), indirect=True,
                             scope="session")


@pytest.fixture(scope="session")
def kernel(request):
    """The vm.kernels.Kernel to boot, downloaded or built first if need be."""
    return kernels.find(request.param)
