# SPDX-License-Identifier: GPL-2.0
"""Read the driver's counters of queues in debugfs; see Documentation/abi.rst."""

import re
from collections import Counter
from typing import Any

from vm.guest import Guest

DEBUG = "/sys/kernel/debug"


def of_queue(guest: Guest, id: str, queue: int = 0) -> dict[str, Any]:
    """Return a queue's counters by name, from a disk's id.

    A value is a number, or a list where the line has several, or for "cpus" and "type"
    text.
    """
    return of_disk_queue(guest, guest.dev(id), queue)


def of_disk_queue(guest: Guest, name: str, queue: int = 0) -> dict[str, Any]:
    """Return a queue's counters, from a disk's name in the guest."""
    text = guest.sysfs(f"{DEBUG}/virtio_blk/{name}/queue{queue}")
    counters: dict[str, Any] = {}
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        numbers = [int(word) for word in value.split() if word.isdigit()]
        counters[name] = (value if name in ("cpus", "type") else
                          numbers if len(numbers) > 1 else numbers[0])
    return counters


def of_disk(guest: Guest, id: str) -> Counter[str]:
    """Return the sum of each numeric counter over all queues of a disk."""
    names = guest.run(f"ls {DEBUG}/virtio_blk/{guest.dev(id)}").output.split()
    total: Counter[str] = Counter()
    for name in names:
        if match := re.fullmatch(r"queue(\d+)", name):
            total.update({key: value for key, value
                          in of_queue(guest, id, int(match[1])).items()
                          if isinstance(value, int)})
    return total
