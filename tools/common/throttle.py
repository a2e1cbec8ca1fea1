# SPDX-License-Identifier: GPL-2.0
"""Make QEMU's disks slow, or stop them from completing requests, for a while."""

import contextlib
from collections.abc import Iterator

from vm.guest import Guest


def limit(guest: Guest, id: str, iops: int = 0, bps: int = 0) -> None:
    """Limit a disk to so many requests, or bytes, a second; 0: no limit.

    When the limit is removed, QEMU serves the waiting requests at once.
    A reset of the device releases them, too.
    """
    guest.qmp("block_set_io_throttle", bps=bps, bps_rd=0, bps_wr=0, iops=iops,
              iops_rd=0, iops_wr=0,
              id=f"/machine/peripheral/{id}/virtio-backend")


@contextlib.contextmanager
def slow(guest: Guest, id: str, iops: int) -> Iterator[None]:
    """Limit a disk to so many requests a second for as long as the block runs."""
    limit(guest, id, iops=iops)
    try:
        yield
    finally:
        limit(guest, id)


@contextlib.contextmanager
def silent(guest: Guest, id: str) -> Iterator[None]:
    """Have a disk complete nothing for as long as the block runs, or until limit().

    The first request passes any limit, so that a read is sent before the block.
    """
    limit(guest, id, bps=1)
    try:
        guest.run(f"dd if=/dev/{guest.dev(id)} of=/dev/null bs=4k count=1 "
                  "iflag=direct status=none", timeout=30)
        yield
    finally:
        limit(guest, id)
