# SPDX-License-Identifier: GPL-2.0
"""vdpa-blk, which vdpa-blk@NAME.service runs: it adds and deletes devices of vdpa_blk.

The guest is a host that has both bus drivers loaded, virtio_vdpa first.
"""

import contextlib
import re
from pathlib import Path

import pytest

from common import vdpa
from host import process
from vm.disk import Disk
from vm.guest import Guest

SCRIPT = Path(__file__).resolve().parents[2] / "packaging/vdpa-blk/vdpa-blk"
MIB = 1 << 20
BUS = "/sys/bus/vdpa"
NODE = "/run/vdpa-blk/disk0"

# 6.1 has no vDPA.
pytestmark = pytest.mark.kernels("6.12")


@pytest.fixture(scope="module")
def guest(kernel):
    """A guest with vdpa_blk, vdpa-blk, and a program vdpa."""
    with Guest(kernel, cpus=2, disks=[Disk("back", "ram", 32 * MIB, queues=2)],
               parallel=False, qemu_args=vdpa.qemu_args()) as guest:
        vdpa.prepare(guest)
        guest.run("mkdir -p /tmp/bin /etc/vdpa-blk; "
                  "modprobe -a virtio_vdpa vhost_vdpa")
        guest.put(SCRIPT, "/tmp/bin/vdpa-blk")
        guest.put(b'#!/bin/sh\nexec /tmp/vdpa/run vdpa "$@"\n', "/tmp/bin/vdpa")
        yield guest


def vdpa_blk(guest, words, conf=None, check=True):
    """Run vdpa-blk, with this text in disk0.conf; return the Result."""
    guest.run("rm -f /etc/vdpa-blk/disk0.conf")
    if conf is not None:
        guest.put(conf.encode(), "/etc/vdpa-blk/disk0.conf", mode=0o644)
    return guest.run(f"PATH=/tmp/bin:$PATH; exec vdpa-blk {words}", timeout=60,
                     check=check)


@contextlib.contextmanager
def open_node(guest):
    """Keep the node of disk0 open during the block, as QEMU does."""
    job = guest.start(f"exec 3<>{NODE}; echo open; exec sleep 120")
    try:
        assert process.wait_for(lambda: job.running and "open" in job.output, 10)
        yield
    finally:
        job.kill()


def node_is_gone(guest):
    """Return whether /dev has no node of vhost_vdpa, within 20 s."""
    return process.wait_for(
        lambda: guest.run("ls /dev/vhost-vdpa-*", check=False).status, 20)


def nothing_is_left(guest):
    """Return whether there is no device and no settings, and drivers take devices."""
    return guest.run(f"ls {BUS}/devices /sys/kernel/config/vdpa_blk; "
                     f"ls /run/vdpa-blk 2>/dev/null; cat {BUS}/drivers_autoprobe"
                     ).output.split() == [f"{BUS}/devices:",
                                          "/sys/kernel/config/vdpa_blk:", "1"]


def test_service_gives_its_device_to_qemu(guest):
    """The device has its settings, owner and link, and never a disk of the host."""
    conf = f"""\
# A comment, and an empty line.

  path=/dev/{guest.dev("back")}
queues=2
	# An indented comment.
serial=a = b=
owner=daemon:nogroup
"""
    disks = guest.run("ls /sys/block").output
    start = guest.log_size()
    vdpa_blk(guest, "add disk0", conf)
    driver = guest.run(f"readlink {BUS}/devices/disk0/driver").output.strip()
    assert driver.endswith("/vhost_vdpa")
    assert guest.run(f"stat -L -c '%F %U %G' {NODE}").output.strip() == \
        "character special file daemon nogroup"
    settings = "/sys/kernel/config/vdpa_blk/disk0"
    assert guest.sysfs(f"{settings}/queues") == "2"
    assert guest.sysfs(f"{settings}/serial") == "a = b="
    assert guest.run("ls /sys/block").output == disks
    assert "virtio_blk virtio" not in guest.log_since(start)
    vdpa_blk(guest, "del disk0")
    assert nothing_is_left(guest)
    # Deleting it again is what `systemctl stop` does after `vdpa dev del`.
    vdpa_blk(guest, "del disk0")


def test_service_deletes_a_device_that_is_open(guest):
    """del waits until the node is closed, and vdpa commands go on meanwhile."""
    vdpa_blk(guest, "add disk0", f"path=/dev/{guest.dev('back')}\n")
    with open_node(guest):
        delete = guest.start("PATH=/tmp/bin:$PATH; exec vdpa-blk del disk0")
        assert node_is_gone(guest)
        assert "disk0: " in guest.run("/tmp/bin/vdpa dev show", timeout=20).output
        assert delete.running
    delete.wait()
    assert nothing_is_left(guest)


def test_service_adds_no_device_while_vdpa_hangs(guest):
    """While `vdpa dev del` waits for a process, add waits and leaves autoprobe set."""
    vdpa_blk(guest, "add disk0", f"path=/dev/{guest.dev('back')}\n")
    with open_node(guest):
        delete = guest.start("exec /tmp/bin/vdpa dev del disk0")
        assert node_is_gone(guest)
        add = guest.start("mv /etc/vdpa-blk/disk0.conf /etc/vdpa-blk/disk1.conf; "
                          "PATH=/tmp/bin:$PATH; exec vdpa-blk add disk1")
        # The brackets keep the pattern from matching itself.
        assert process.wait_for(lambda: not guest.run(
            "cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | "
            "grep -E '[v]dpa dev (show|add)'", check=False).status, 20)
        assert guest.sysfs(f"{BUS}/drivers_autoprobe") == "1"
        assert add.running and delete.running
    delete.wait()
    add.wait()
    # disk0's settings and link are left.
    vdpa_blk(guest, "del disk0")
    vdpa_blk(guest, "del disk1")
    guest.run("rm /etc/vdpa-blk/disk1.conf")
    assert nothing_is_left(guest)


def test_service_gives_its_device_to_this_kernel(guest):
    """With bus=virtio_vdpa the device is a disk of the host, and holds data."""
    back = f"/dev/{guest.dev('back')}"
    vdpa_blk(guest, "add disk0", f"bus=virtio_vdpa\npath={back}\n")
    pattern = f"{BUS}/devices/disk0/virtio*/block/*"
    assert process.wait_for(
        lambda: not guest.run(f"ls -d {pattern}", check=False).status, 10)
    disk = guest.run(f"basename {pattern}").output.strip()
    guest.run(f"dd if=/dev/urandom of=/tmp/data bs=64k count=4 status=none; "
              f"dd if=/tmp/data of=/dev/{disk} bs=64k oflag=direct status=none")
    vdpa_blk(guest, "del disk0")
    guest.run(f"dd if={back} bs=64k count=4 iflag=direct status=none | cmp - /tmp/data")
    assert nothing_is_left(guest)


def test_service_waits_for_a_late_block_device(guest):
    """The device is added when its path becomes a block device."""
    job = guest.start("rm -f /etc/vdpa-blk/disk0.conf /tmp/late; "
                      "echo path=/tmp/late > /etc/vdpa-blk/disk0.conf; "
                      "PATH=/tmp/bin:$PATH; exec vdpa-blk add disk0")
    assert process.wait_for(
        lambda: job.running and "waiting for /tmp/late" in job.output, 20)
    assert nothing_is_left(guest)
    guest.run(f"ln -s /dev/{guest.dev('back')} /tmp/late")
    job.wait()
    assert not guest.run(f"test -c {NODE}").status
    vdpa_blk(guest, "del disk0")


@pytest.mark.parametrize("words, conf, said", [
    ("add disk0", None, "there is no /etc/vdpa-blk/disk0.conf; write path=/dev/"),
    ("add disk0", "queues=2\n", "disk0.conf has no line path=/dev/"),
    ("add disk0", "path=BACK\nworker=2\n", "no setting worker; .* workers"),
    ("add disk0", "path=BACK\nqueues=300\n", "vdpa_blk refuses queues=300; "),
    ("add disk0", "path=BACK\nqueues 2\n", "'queues 2' is not NAME=VALUE"),
    ("add disk0", "path=BACK\nbus=vhost\n", "bus is 'vhost'; .* virtio_vdpa"),
    ("add disk0", "path=BACK\nowner=no-such-user\n", "no-such-user"),
    ("add disk0", "path=USED\n", "the kernel did not add disk0; "),
    ("add ../disk0", None, "usage"),
    ("delete disk0", None, "usage"),
], ids=["no-file", "no-path", "unknown-setting", "refused-setting", "no-equals-sign",
        "unknown-bus", "unknown-owner", "path-in-use", "bad-name", "bad-command"])
def test_service_leaves_nothing_when_it_fails(guest, words, conf, said):
    """An error names the line and the way out; device, settings and link are gone."""
    used = guest.run("findmnt -no SOURCE /").output.strip()
    if conf:
        conf = conf.replace("BACK", f"/dev/{guest.dev('back')}").replace("USED", used)
    result = vdpa_blk(guest, words, conf, check=False)
    assert result.status in (1, 2)
    assert re.search(said, result.output), result.output
    assert nothing_is_left(guest)


def test_service_leaves_a_device_that_it_did_not_add(guest):
    """add refuses a name that a device has, and the device stays."""
    with vdpa.Device(guest, "back", bus="vhost_vdpa"):
        result = vdpa_blk(guest, "add disk0", f"path=/dev/{guest.dev('back')}\n",
                          check=False)
        assert result.status == 1
        assert "there is a vDPA device disk0 already" in result.output
        assert not guest.run(f"test -d {BUS}/devices/disk0").status
