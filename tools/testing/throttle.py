# SPDX-License-Identifier: GPL-2.0
"""Disks of QEMU's that are slow, or do not answer at all, for a while."""

import contextlib
from collections.abc import Iterator

from vm.guest import Guest


def limit(guest: Guest, id: str, iops: int = 0, bps: int = 0) -> None:
    """Let a disk serve so many requests, or bytes, a second; 0: no limit.

    When there is no limit any more, requests that have waited go on at once.
    A reset of the device lets them go on, too.
    """
    guest.qmp("block_set_io_throttle", bps=bps, bps_rd=0, bps_wr=0, iops=iops,
              iops_rd=0, iops_wr=0,
              id=f"/machine/peripheral/{id}/virtio-backend")


@contextlib.contextmanager
def slow(guest: Guest, id: str, iops: int) -> Iterator[None]:
    """Let a disk serve so many requests a second for as long as the block runs."""
    limit(guest, id, iops=iops)
    try:
        yield
    finally:
        limit(guest, id)


@contextlib.contextmanager
def silent(guest: Guest, id: str) -> Iterator[None]:
    """Have a disk answer nothing for as long as the block runs, or until limit().

    A limit lets one request pass at once: a read takes that place.
    """
    limit(guest, id, bps=1)
    try:
        guest.run(f"dd if=/dev/{guest.dev(id)} of=/dev/null bs=4k count=1 "
                  "iflag=direct status=none", timeout=30)
        yield
    finally:
        limit(guest, id)
