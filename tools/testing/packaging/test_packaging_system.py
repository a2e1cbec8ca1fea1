# SPDX-License-Identifier: GPL-2.0
"""Debian systems that use the driver.

With FULL set, through an upgrade of the kernel and the removal of the driver.
"""

import os
import re
from pathlib import Path

import pytest

from vm import kernels
from vm.disk import Disk
from vm.guest import Guest

from . import machine as machines
from .package import OURS, initrds, make_image, version

# Beside the in-tree driver

@pytest.mark.full
@pytest.mark.module
@pytest.mark.kernels("6.12", "6.1")
def test_second_name_beside_in_tree_driver(kernel):
    """virtio_blk_mq binds a disk of the in-tree driver and unbinds it again.

    The other disk keeps its name and driver.
    """
    module = kernels.build_modules(kernel, name="virtio_blk_mq")
    disks = [Disk("kept", "ram", size=1 << 25, queues=2),
             Disk("taken", "ram", size=1 << 25, queues=2)]
    with Guest(kernel, cpus=2, disks=disks, driver="stock") as guest:
        guest.put(module, "/run/virtio_blk_mq.ko")
        before = {id: guest.dev(id) for id in ("kept", "taken")}
        assert set(before.values()) == {"vda", "vdb"}
        drivers = "/sys/bus/virtio/drivers"
        device = Path(guest.run(
            f"readlink -f /sys/block/{before['taken']}/device").output.strip()).name
        guest.run(f"dd if=/dev/urandom of=/run/data bs=1M count=8 && "
                  f"dd if=/run/data of=/dev/{before['taken']} oflag=direct bs=1M")

        guest.run("insmod /run/virtio_blk_mq.ko")
        assert not guest.run(f"ls {drivers}/virtio_blk_mq | grep '^virtio' || true"
                             ).output
        guest.run(f"echo {device} > {drivers}/virtio_blk/unbind && "
                  f"echo {device} > {drivers}/virtio_blk_mq/bind")
        assert guest.dev("taken") == "vdmqa"
        assert guest.dev("kept") == before["kept"]
        assert guest.sysfs("/sys/module/virtio_blk_mq/version") == version()
        guest.run("cmp -n 8388608 /run/data /dev/vdmqa && "
                  "dd if=/run/data of=/dev/vdmqa oflag=direct bs=1M seek=8")
        # The disk's old name is free meanwhile, and a third disk gets it.
        third = Disk("third", "ram", size=1 << 25)
        guest.add_disk(third)
        assert guest.dev("third") == before["taken"]
        guest.remove_disk("third")

        guest.run(f"echo {device} > {drivers}/virtio_blk_mq/unbind && "
                  f"echo {device} > {drivers}/virtio_blk/bind")
        assert guest.dev("taken") == before["taken"]
        guest.run(f"dd if=/dev/{before['taken']} bs=1M skip=8 count=8 iflag=direct "
                  "of=/run/read && cmp /run/data /run/read")
        guest.run("rmmod virtio_blk_mq")


# On a Debian system

OWN = """\
uname -r
test "$(findmnt -no SOURCE /)" = /dev/vda
test "$(readlink -f /sys/block/vda/device/driver)" = /sys/bus/virtio/drivers/virtio_blk
test ! -e /sys/module/virtio_blk/version
"""
STATE = """\
dkms status
for initrd in /boot/initrd.img-*; do
	lsinitramfs $initrd | grep /virtio_blk.ko
done
"""
# Fake kernels with headers that DKMS must not build the driver for.
UNSUPPORTED = """\
for kernel in 6.9.1-none 6.12.1-builtin; do
	mkdir -p /lib/modules/$kernel/build/include /lib/modules/$kernel/kernel
	[ $kernel = 6.9.1-none ] ||
		echo kernel/drivers/block/virtio_blk.ko >/lib/modules/$kernel/modules.builtin
	for hooks in postinst.d header_postinst.d; do
		run-parts --report --exit-on-error --regex=dkms --arg=$kernel \\
			/etc/kernel/$hooks
	done
	rm -r /lib/modules/$kernel
done
"""
VERIFY = """\
fio --name=verify --filename=/root/file --size=8m --rw=randwrite --bs=4k --direct=1 \\
	--ioengine=psync --verify=crc32c --do_verify=1 --verify_state_save=0 >/dev/null
rm /root/file
"""


# Disks of this kernel and of a guest, whose QEMU is file descriptor 3.
SERVICE = """\
uname -r
install -D -t /lib/modules/$(uname -r)/updates vdpa_blk.ko
depmod
truncate -s 64M /root/back
losetup /dev/loop0 /root/back
printf 'path=/dev/loop0\nbus=virtio_vdpa\nqueues=2\n' >/etc/vdpa-blk/disk0.conf
systemctl enable --now vdpa-blk@disk0
test "$(cat /sys/module/vdpa_blk/version)" = {version}
udevadm settle
disk=$(basename /sys/bus/vdpa/devices/disk0/virtio*/block/*)
fio --name=verify --filename=/dev/$disk --size=8m --rw=randwrite --bs=4k --direct=1 \
	--ioengine=psync --verify=crc32c --do_verify=1 --verify_state_save=0 >/dev/null
systemctl stop vdpa-blk@disk0
test ! -e /sys/bus/vdpa/devices/disk0

ln -s /dev/loop0 /run/late
printf 'path=/run/late\n' >/etc/vdpa-blk/disk0.conf
systemctl start vdpa-blk@disk0
test -c /run/vdpa-blk/disk0
! dpkg -r virtio-blk-mq-vdpa
exec 3<>/run/vdpa-blk/disk0
systemctl stop --no-block vdpa-blk@disk0
while ls /dev/vhost-vdpa-*; do sleep 1; done
test "$(systemctl is-active vdpa-blk@disk0)" = deactivating
test "$(systemctl show -P TimeoutStopUSec vdpa-blk@disk0)" = infinity
timeout 60 vdpa dev show disk0
! dpkg -r virtio-blk-mq-vdpa
exec 3>&-
systemctl stop vdpa-blk@disk0
test ! -e /sys/bus/vdpa/devices/disk0

# The machine switches off while the unit is active.
systemctl start vdpa-blk@disk0
test -c /run/vdpa-blk/disk0
"""
# The unit is enabled and waits for its block device, and the package is removed.
SERVICE_AT_BOOT = """\
while [ "$(systemctl is-active vdpa-blk@disk0)" = inactive ]; do sleep 1; done
test "$(systemctl is-active vdpa-blk@disk0)" = activating
losetup /dev/loop0 /root/back
ln -s /dev/loop0 /run/late
while [ "$(systemctl is-active vdpa-blk@disk0)" = activating ]; do sleep 1; done
test "$(systemctl is-active vdpa-blk@disk0)" = active
test -c /run/vdpa-blk/disk0
systemctl stop vdpa-blk@disk0
systemctl disable vdpa-blk@disk0
dpkg -r virtio-blk-mq-vdpa
dpkg -l virtio-blk-mq-vdpa | tail -n 1
"""


@pytest.mark.full
def test_installed_upgraded_and_removed(packages):
    """The root disk uses the driver from installation to removal."""
    with machines.Machine() as machine:
        said = machine.step(OWN + "dpkg -i *.deb\n" + STATE, [
            packages["virtio-blk-mq-dkms"], packages["virtio-blk-mq-tools"]])
        (first,) = initrds(said)
        assert first.startswith("6.1.") and "6.12" not in first
        assert initrds(said)[first] == "updates/dkms/virtio_blk.ko"
        assert f"{first}, x86_64: installed" in said

        # dpkg configures the headers and the kernel in any order.
        said = machine.step(OURS.format(version=version()) + VERIFY
                            + "dpkg -i *.deb\n" + STATE,
                            machines.kernel_packages("6.12"))
        assert said.startswith(first)
        (second,) = set(initrds(said)) - {first}
        assert second.startswith("6.12.")
        assert set(initrds(said).values()) == {"updates/dkms/virtio_blk.ko"}

        said = machine.step(OURS.format(version=version()) + VERIFY + UNSUPPORTED
                            + "dpkg -r virtio-blk-mq-dkms\n" + STATE)
        assert said.startswith(second)
        assert said.count("6.9.1-none keeps its in-tree virtio_blk: this driver") == 2
        assert said.count("6.12.1-builtin keeps its in-tree virtio_blk: it is built") == 2
        assert set(initrds(said)) == {first, second}
        assert all(path.startswith("kernel/drivers/block/virtio_blk.ko")
                   for path in initrds(said).values())
        assert "installed" not in said.rpartition("Removing")[2]

        said = machine.step(OWN)
        assert said.startswith(second)


@pytest.mark.full
def test_unit_of_the_device(packages):
    """systemd adds and deletes devices, at boot and shutdown too.

    A unit that is active, or waits for a guest to stop, keeps its package installed.

    The module is built on the host, because DKMS under emulation takes half an hour.
    """
    module = kernels.build_vdpa(kernels.find("6.12"))
    (image,) = [path for path in machines.kernel_packages("6.12")
                if path.name.startswith("linux-image-")]
    with machines.Machine() as machine:
        said = machine.step("dpkg -i *.deb\n", [image, packages["virtio-blk-mq-vdpa"]])
        assert re.search(r"Linux 6\.1\.\S+ gets no vdpa_blk: it needs 6.12", said)
        assert re.search(r"Linux 6\.12\.\S+ gets no vdpa_blk: its headers are", said)
        said = machine.step(SERVICE.format(version=version()), [module])
        assert said.startswith("6.12.")
        assert said.count("stop them first: systemctl stop vdpa-blk@disk0.service") == 2
        said = machine.step(SERVICE_AT_BOOT)
    assert re.search("^rc +virtio-blk-mq-vdpa", said, re.MULTILINE)


@pytest.mark.full
def test_machine_that_wants_signatures_keeps_its_own(packages):
    """If DKMS's key is not enrolled, the in-tree driver stays in use."""
    with machines.Machine() as machine:
        said = machine.step(OWN + "dpkg -i virtio-blk-mq-dkms_*.deb\n" + STATE,
                            [packages["virtio-blk-mq-dkms"]],
                            cmdline="module.sig_enforce=1")
        assert re.search("keeps its in-tree virtio_blk: .*mokutil --import", said)
        assert all(path.startswith("kernel/") for path in initrds(said).values())
        machine.step(OWN, cmdline="module.sig_enforce=1")


@pytest.mark.full
@pytest.mark.skipif(os.geteuid() != 0, reason="making the image takes root")
def test_image_with_no_other_driver(packages, tmp_path):
    """A cloud image that has no other virtio_blk boots from the driver's module."""
    image = make_image(tmp_path)
    with machines.Machine(image) as machine:
        said = machine.step(OURS.format(version=version())
                            + "find /lib/modules -name 'virtio_blk.ko*'\n" + STATE)
    (module,) = re.findall("^/lib/modules/.*", said, re.MULTILINE)
    assert module.endswith("/updates/dkms/virtio_blk.ko")
    assert set(initrds(said).values()) == {"updates/dkms/virtio_blk.ko"}
