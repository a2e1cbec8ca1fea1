# SPDX-License-Identifier: GPL-2.0
"""Settings and events of each disk, and the age of its oldest request."""

from pathlib import Path

import pytest

from common import counters, fio
from host import process
from soak import faults
from vm import image
from vm.disk import Disk
from vm.guest import Guest

from . import uevents

MIB = 1 << 20
# The settings, a parameter's value, and two values that are refused.
SETTINGS = {"reset_after": ("0", "77", ("-1", "4294967295")),
            "reset_attempts": ("3", "7", ("0", "256")),
            "removal_timeout": ("300", "77", ("-1", "4294967295"))}
PARAMETERS = "/sys/module/virtio_blk/parameters"

pytestmark = pytest.mark.kernels("6.12", full=("6.1", "7.3-debug"))


@pytest.fixture(scope="module")
def guest(kernel):
    """A guest with two fast disks, and one that takes 8 s for a request."""
    disks = [Disk("db", "ram", 64 * MIB, queues=2),
             Disk("other", "ram", 64 * MIB, queues=2),
             Disk("slow", "null", 64 * MIB, queues=2, latency_ns=8_000_000_000)]
    with Guest(kernel, disks=disks) as guest:
        faults.hasten(guest, "slow")
        yield guest


def setting(guest, id, name):
    """Return the path of a disk's setting."""
    return f"/sys/block/{guest.dev(id)}/recovery/{name}"


@pytest.mark.parametrize("name", SETTINGS)
def test_setting_of_one_disk(guest, name):
    """A disk's setting comes before the parameter, which others follow."""
    default, value, refused = SETTINGS[name]
    db, other = setting(guest, "db", name), setting(guest, "other", name)
    assert (guest.sysfs(db), guest.sysfs(other)) == (default, default)
    guest.run(f"echo 5 > {db}; echo {value} > {PARAMETERS}/{name}")
    try:
        assert (guest.sysfs(db), guest.sysfs(other)) == ("5", value)
        for text in (*refused, "x", ""):
            result = guest.run(f"/bin/echo '{text}' > {db}", check=False)
            assert "Invalid argument" in result.output
        assert guest.sysfs(db) == "5"
        guest.run(f"echo default > {db}")
        assert guest.sysfs(db) == value
    finally:
        guest.run(f"echo {default} > {PARAMETERS}/{name}; echo default > {db}")


def test_settings_by_udev_rule(guest):
    """A udev rule sets the policy of the disk with one serial number alone."""
    names = ("reset_after", "reset_attempts", "removal_timeout")
    rule = ('ACTION=="add", SUBSYSTEM=="block", ENV{DEVTYPE}=="disk", '
            'ATTR{serial}=="db", ATTR{queue/io_timeout}="10000", '
            'ATTR{recovery/reset_after}="60", ATTR{recovery/reset_attempts}="9", '
            'ATTR{recovery/removal_timeout}="90"')
    # Not of the slow disk, whose partition tables udev would read.
    disks = " ".join(f"/sys/block/{guest.dev(id)}" for id in ("db", "other"))
    guest.run("mkdir -p /run/udev/rules.d && "
              f"echo '{rule}' > /run/udev/rules.d/60-virtio-blk.rules && "
              "/lib/systemd/systemd-udevd --daemon && "
              f"udevadm trigger --action=add --settle {disks}; "
              "udevadm control --exit; rm /run/udev/rules.d/60-virtio-blk.rules")
    found = [guest.sysfs(setting(guest, "db", name)) for name in names]
    for name in names:
        guest.run(f"echo default > {setting(guest, 'db', name)}")
    assert found == ["60", "9", "90"]
    assert guest.sysfs(f"/sys/block/{guest.dev('db')}/queue/io_timeout") == "10000"
    assert [guest.sysfs(setting(guest, "other", name)) for name in names] == \
        ["0", "3", "300"]


def test_stalled_disk_is_reported(guest):
    """A stall and its end each send one uevent, and poll() of `state` returns.

    The age of the request is shown.  The log names the duration, and `stalls` counts once
    for all requests.
    """
    name = guest.dev("slow")
    block = f"/sys/block/{name}"
    assert guest.sysfs(f"{block}/oldest_ms") == "0"
    stalls = faults.counter(guest, "slow", "stalls")
    timeouts = faults.counter(guest, "slow", "timeouts")
    guest.put(image.program(Path(__file__).with_name("state_changes.c"), guest.arch),
              "/tmp/state_changes")
    polled = guest.start(f"/tmp/state_changes {block}/state 3", timeout=90)
    assert process.wait_for(lambda: polled.running and polled.output, 30)
    uevents.start(guest)
    try:
        running = fio.start(guest, f"/dev/{name}", rw="randread", bs="4k", iodepth=4,
                            number_ios=4, timeout=60)
        ages = guest.run(f"until grep -q stalled {block}/state; do sleep 0.1; done; "
                         f"cat {block}/oldest_ms; sed -n 's/oldest_ms //p' "
                         f"{counters.DEBUG}/virtio_blk/{name}/queue?", timeout=60)
        disk, *queues = map(int, ages.output.split())
        assert 900 < disk <= max(queues) < 9000 and len(queues) == 2
        fio.ios(running.wait())
        assert process.wait_for(lambda: faults.state(guest, "slow") == "live", 10)
        assert polled.wait().output.split() == ["live", "stalled", "live"]
        assert process.wait_for(
            lambda: "VIRTBLK_STATE=live" in uevents.seen(guest), 10)
    finally:
        events = [line for line in uevents.end(guest).splitlines()
                  if line.startswith("VIRTBLK_")]
    states = [line for line in events if line.startswith("VIRTBLK_STATE")]
    assert states[0] == "VIRTBLK_STATE=stalled" and states[-1] == "VIRTBLK_STATE=live"
    assert events.count(f"VIRTBLK_DISK={name}") == len(states)
    assert guest.sysfs(f"{block}/oldest_ms") == "0"
    assert len(states) == 2 and faults.counter(guest, "slow", "stalls") == stalls + 1
    # Each request counts once, although each has waited for eight times io_timeout.
    assert faults.counter(guest, "slow", "timeouts") == timeouts + 4
    ends = [line for line in guest.run("dmesg").output.splitlines()
            if f"[{name}] all requests that had timed out have completed; the disk "
               "was stalled for" in line]
    assert len(ends) == 1 and ends[0].endswith("with up to 4 of them")


def test_probe_and_removal_send_no_event(guest):
    """Binding and unbinding a disk sends no event of a state."""
    device = guest.run(f"basename $(readlink -f /sys/block/{guest.dev('other')}/device)"
                       ).output.strip()
    uevents.start(guest)
    try:
        guest.run(f"cd /sys/bus/virtio/drivers/virtio_blk && echo {device} > unbind && "
                  f"echo {device} > bind")
        assert process.wait_for(
            lambda: "ACTION=bind" in uevents.seen(guest), 10)
    finally:
        events = uevents.end(guest)
    assert "VIRTBLK_STATE" not in events
