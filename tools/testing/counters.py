# SPDX-License-Identifier: GPL-2.0
"""What the driver counts of its queues, in debugfs; see Documentation/abi.rst."""

import re
from collections import Counter

DEBUG = "/sys/kernel/debug"


def of_queue(guest, id, queue=0):
    """Return what a queue has counted: numbers, lists of them, words."""
    return of_disk_queue(guest, guest.dev(id), queue)


def of_disk_queue(guest, name, queue=0):
    """Return the same for a disk by its name in the guest."""
    text = guest.sysfs(f"{DEBUG}/virtio_blk/{name}/queue{queue}")
    found = {}
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        numbers = [int(word) for word in value.split() if word.isdigit()]
        found[name] = (value if name in ("cpus", "type") else
                       numbers if name == "completions" else numbers[0])
    return found


def of_disk(guest, id):
    """Return the sums of all that are numbers over a disk's queues."""
    names = guest.run(f"ls {DEBUG}/virtio_blk/{guest.dev(id)}").output.split()
    total = Counter()
    for name in names:
        if match := re.fullmatch(r"queue(\d+)", name):
            total.update({key: value for key, value
                          in of_queue(guest, id, int(match[1])).items()
                          if isinstance(value, int)})
    return total
