# SPDX-License-Identifier: GPL-2.0
"""Block devices of null_blk's in a guest."""

import contextlib
from collections.abc import Iterator

from vm.guest import Guest

SETTINGS = "/sys/kernel/config/nullb"


@contextlib.contextmanager
def device(guest: Guest, name: str, **settings: int) -> Iterator[str]:
    """Make the block device /dev/NAME and yield this path; delete it at the end.

    guest: one with configfs mounted, as vdpa.prepare() leaves it; settings: attributes in
    configfs, except power; size is in MiB.

    With memory_backed=1 and blocksize=4096, the data of a request must begin at a page.
    Otherwise null_blk writes beyond its own pages: it copies 4 KiB at a time, from
    wherever in its page the last copy ended.  O_DIRECT with a buffer at 512 bytes of a
    page corrupts the kernel's memory.
    """
    directory = f"{SETTINGS}/{name}"
    guest.run(f"{{ modprobe null_blk nr_devices=0 || [ -d {SETTINGS} ]; }} && "
              f"mkdir {directory}")
    with guest.cleanup(f"rmdir {directory}"):
        writes = [f"echo {value} > {directory}/{attribute}"
                  for attribute, value in settings.items()]
        guest.run(" && ".join([*writes, f"echo 1 > {directory}/power"]))
        yield f"/dev/{name}"
