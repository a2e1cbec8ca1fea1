# SPDX-License-Identifier: GPL-2.0
"""The names of the devices that are compared, and how a guest finds its other disks."""

from vm.errors import GuestError
from vm.guest import Guest

# In the order of pictures and tables.
TITLES = {"null_blk": "null_blk", "stock": "in-tree driver", "nvme": "NVMe",
          "virtio-scsi": "virtio-scsi", "ours": "our driver"}


def by_serial(guest: Guest, serial: str) -> str:
    """Return the path in the guest of the NVMe or SCSI disk with a serial number.

    Raises GuestError unless there is exactly one.
    """
    found = guest.run("cd /sys/block; for disk in *; do "
                      "cat $disk/device/serial $disk/device/vpd_pg80 2>&- |"
                      f"grep -qaw -e {serial} && echo /dev/$disk; done; true")
    # A multipath NVMe disk also has a hidden disk for each path, such as nvme0c0n1.
    paths = [path for path in found.output.split() if "c" not in path[8:]]
    if len(paths) != 1:
        raise GuestError(f"the guest has {len(paths)} disks with serial "
                         f"number {serial}, and there must be one")
    return paths[0]
