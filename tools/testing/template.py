# SPDX-License-Identifier: GPL-2.0
"""TOPIC: what holds, and for which devices and kernels."""

from collections.abc import Iterator

import pytest

from common import fio
from vm.disk import Disk
from vm.guest import Guest
from vm.kernels import Kernel

MIB = 1 << 20

# On 6.12 if there is no mark; full=: on these as well with `make check-full`.
pytestmark = pytest.mark.kernels("6.12", full=("6.1", "7.3-debug"))


@pytest.fixture(scope="module")
def guest(kernel: Kernel) -> Iterator[Guest]:
    """A guest with a disk of two queues; all tests of this file share it.

    A warning in its log fails the test that saw it: guest.tolerate("pattern") if it
    must be there.
    """
    with Guest(kernel, disks=[Disk("data", "ram", 64 * MIB, queues=2)]) as guest:
        yield guest


def test_TOPIC(guest: Guest) -> None:
    """What is written is read again.  Say what must hold; then break it, and see."""
    report = fio.run(guest, f"/dev/{guest.dev('data')}", rw="randwrite", bs="4k",
                     size="4m", iodepth=16, verify="crc32c")
    assert fio.ios(report, "write") == fio.ios(report, "read") == 1024
