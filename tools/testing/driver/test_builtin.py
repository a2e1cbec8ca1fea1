# SPDX-License-Identifier: GPL-2.0
"""A kernel with the driver built in boots from a virtio-blk disk, with no initramfs.

7.3 also has the device for hosts built in.
"""

import re
import subprocess

import pytest

from common import fio, vdpa
from host import process
from vm import kernels
from vm.disk import Disk
from vm.guest import Guest

pytestmark = pytest.mark.kernels("7.3-debug", full=("7.3",))

MIB = 1 << 20


@pytest.fixture(scope="module")
def guest(kernel):
    disks = [Disk("data", "ram", 64 * MIB, queues=4)]
    # The programs of vdpa.py are on a SCSI disk.
    with Guest(kernel, root="virtio-blk", disks=disks,
               qemu_args=["-device", "virtio-scsi-pci", *vdpa.qemu_args()],
               params="num_request_queues=2 queue_depth=32") as guest:
        yield guest


def logged(guest, pattern):
    """Return whether the kernel has logged a pattern; the console may lag behind."""
    return process.wait_for(lambda: re.search(pattern, guest.log(), re.MULTILINE), 30)


def test_root_is_on_our_disk(guest):
    """/ is on vda, and this driver serves vda: its line in the log is its own."""
    assert guest.run("findmnt -no SOURCE / || awk '$2 == \"/\" { print $1 }' "
                     "/proc/mounts").output.split()[-1] in ("/dev/vda",
                                                            "/dev/root")
    name, major_minor = guest.run(
        "mountpoint -d /; cat /sys/block/vda/dev").output.split()
    assert name == major_minor
    assert guest.sysfs("/sys/block/vda/serial") == "root"
    assert guest.run("readlink -f /sys/block/vda/device/driver"
                     ).output.strip().endswith("/virtio/drivers/virtio_blk")
    assert logged(guest, r"\[vda\] \d/0/0 default/read/poll queues, ring \d+, "
                  r"depth \d+, own ring$")
    # Neither a module nor an initramfs can have brought the driver.
    assert guest.run("cat /proc/modules 2>/dev/null || true").output == ""
    assert "initrd" not in guest.sysfs("/proc/cmdline")


def test_parameters_on_the_command_line(guest):
    """virtio_blk.name=value on the kernel's command line sets a parameter."""
    base = "/sys/module/virtio_blk/parameters"
    assert guest.sysfs(f"{base}/num_request_queues") == "2"
    assert guest.sysfs(f"{base}/queue_depth") == "32"
    for name in ("vda", guest.dev("data")):
        assert guest.run(f"ls /sys/block/{name}/mq").output.split() == \
            ["0", "1"]
        assert guest.sysfs(f"/sys/block/{name}/queue/nr_requests") == "32"
        assert logged(guest, rf"\[{name}\] 2/0/0 default/read/poll queues, ring \d+, "
                      "depth 32, own ring$")


def test_using_the_root_file_system(guest):
    """Data written to / and to another disk is read back from the device."""
    fio.run(guest, "/root/file", rw="randwrite", bs="16k", size="8m",
            verify="crc32c", end_fsync=1)
    fio.run(guest, f"/dev/{guest.dev('data')}", rw="randwrite", bs="4k",
            size="4m", numjobs=4, offset_increment="8m", verify="crc32c")
    guest.run("cp -a /usr/bin /root/bin && sync && "
              "echo 3 > /proc/sys/vm/drop_caches && diff -r --no-dereference "
              "/usr/bin /root/bin && rm -r /root/bin", timeout=300)


def test_restart_from_root_disk(guest):
    """The guest restarts from its disk, and another disk keeps its data."""
    data = b"written before the restart\n" * 1000
    guest.put(data, "/tmp/data")
    guest.run(f"dd if=/tmp/data of=/dev/{guest.dev('data')} conv=fsync "
              "status=none")
    guest.reboot()
    guest.put(data, "/tmp/data")
    guest.run(f"head -c {len(data)} /dev/{guest.dev('data')} | "
              "cmp - /tmp/data")


def test_device_compiles_in_a_kernel_tree(kernel):
    """The device compiles as a part of the newest kernel, without a warning.

    main.c and trace.c are those of its files that include files of their own directory
    through the kernel's headers or flags.
    """
    tree, build = kernels.configure(kernel.name)
    objects = [build / kernels._DEVICE / f"{name}.o" for name in ("main", "trace")]
    for path in objects:
        path.unlink(missing_ok=True)
    said = subprocess.run(
        ["make", "-s", "-C", tree, f"O={build}", "W=1", "CONFIG_VDPA_BLK=y",
         *(path.relative_to(build) for path in objects)], text=True, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300)
    assert said.returncode == 0 and kernels._DEVICE not in said.stdout, said.stdout
    names = subprocess.run(["nm", objects[0]], text=True, check=True,
                           stdout=subprocess.PIPE).stdout
    # A module has init_module() instead.
    assert re.search("__initcall_.*vdpa_blk_init", names)


def test_device_built_in(guest):
    """The device serves a disk of a kernel that has no modules at all."""
    if not guest.kernel.has("CONFIG_VDPA_BLK"):
        pytest.skip("7.3 has the device built in; see tools/vm/kconfig/host.config")
    vdpa.prepare(guest)
    with vdpa.Device(guest, "data", queues=2) as device:
        fio.run(guest, f"/dev/{device.disk()}", rw="randwrite", bs="4k", size="4m",
                numjobs=2, offset_increment="8m", verify="crc32c")
        assert device.counters()["writes"] >= 2048
    assert guest.sysfs("/sys/module/vdpa_blk/version")
