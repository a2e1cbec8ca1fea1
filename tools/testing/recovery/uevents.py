# SPDX-License-Identifier: GPL-2.0
"""Collect the events that the kernel sends of virtio devices."""

from vm.guest import Guest

_FILE = "/tmp/events"


def start(guest: Guest) -> None:
    """Collect events from now on, until end()."""
    guest.run(f"rm -f {_FILE}; udevadm monitor --kernel --property "
              f"--subsystem-match=virtio > {_FILE} & "
              f"until grep -qs '^KERNEL - ' {_FILE}; do sleep 0.1; done", timeout=30)


def seen(guest: Guest) -> str:
    """Return the events so far, as udevadm monitor prints them."""
    return guest.run(f"cat {_FILE}").output


def end(guest: Guest) -> str:
    """Collect no more events, and return those so far."""
    guest.run("busybox killall udevadm")
    return seen(guest)
