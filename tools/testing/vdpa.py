# SPDX-License-Identifier: GPL-2.0
"""vDPA devices in a guest: the programs that add them, and vdpa_blk.

    with Guest(kernel, disks=[Disk("back", ...)], qemu_args=vdpa.qemu_args()) as guest:
        vdpa.prepare(guest)
        with vdpa.Device(guest, "back", queues=4, workers=2) as device:
            fio.run(guest, f"/dev/{device.disk()}", ...)
"""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from vm import cache, host, kernels, process, qemu_dist
from vm.errors import GuestError
from vm.guest import Guest

_RUN = """\
#!/bin/sh
here=${0%/*}
program=$here/$1
shift
exec $here/lib/ld-linux-x86-64.so.2 --library-path $here/lib $program "$@"
"""


def tools() -> Path:
    """Return an image with the programs for a vDPA device inside a guest.

    qemu-storage-daemon is the device, and vdpa adds it.  The script `run` starts
    both with the host's libraries.
    """
    daemon = qemu_dist.find("qemu-storage-daemon")

    def build(directory):
        tree = directory / "tree"
        (tree / "lib").mkdir(parents=True)
        host.need({"vdpa": "iproute2", "mke2fs": "e2fsprogs"})
        for words in (daemon, [host.which("vdpa")]):
            shutil.copy(words[-1], tree)
            # The words before the last one set the path of libraries.
            listed = subprocess.run([*words[:-1], "ldd", words[-1]], text=True,
                                    check=True, stdout=subprocess.PIPE).stdout
            for library in re.findall(r"(/\S+) \(0x", listed):
                shutil.copy(library, tree / "lib")
        (tree / "run").write_text(_RUN)
        (tree / "run").chmod(0o755)
        subprocess.run([host.which("mke2fs"), "-q", "-t", "ext4", "-m", "0",
                        "-O", "^has_journal", "-L", "vdpa-tools", "-d", tree,
                        directory / "vdpa.ext4", "48M"], check=True,
                       stdout=subprocess.DEVNULL)
        shutil.rmtree(tree)

    number = ".".join(map(str, qemu_dist.version(daemon)))
    return cache.populate(f"vdpa-tools-{number}", build, mib=100) / "vdpa.ext4"


def qemu_args() -> list[str]:
    """Return QEMU's arguments for a guest that gets the programs."""
    return ["-drive", "if=none,id=vdpa,format=raw,snapshot=on," f"file={tools()}",
            "-device", "scsi-hd,drive=vdpa,lun=7"]


def prepare(guest: Guest) -> None:
    """Mount the programs and load vdpa_blk, which is built for the guest's kernel."""
    # Each page of a process that is not next to the last one is an entry.
    guest.run("mkdir -p /etc/modprobe.d && echo options vhost_vdpa "
              "max_iotlb_entries=65536 > /etc/modprobe.d/vdpa.conf")
    guest.run("mkdir /tmp/vdpa && mount -r LABEL=vdpa-tools /tmp/vdpa && "
              "modprobe -a vdpa vhost_iotlb configfs; "
              "mountpoint -q /sys/kernel/config || "
              "mount -t configfs none /sys/kernel/config")
    guest.put(kernels.build_vdpa(guest.kernel).read_bytes(), "/tmp/vdpa_blk.ko")
    guest.run("insmod /tmp/vdpa_blk.ko")


class Device:
    """A device of vdpa_blk.

    guest: a guest that prepare() has prepared; backing: the id of a disk, or a path;
    bus: the module of the bus driver, "virtio_vdpa" or "vhost_vdpa"; settings:
    attributes in configfs, except path.
    """

    def __init__(self, guest: Guest, backing: str, bus: str = "virtio_vdpa",
                 name: str = "disk0", **settings):
        self.guest = guest
        self.name = name
        self._bus = bus
        path = backing if backing.startswith("/") else f"/dev/{guest.dev(backing)}"
        self._settings = {"path": path, **settings}

    def __enter__(self) -> "Device":
        directory = f"/sys/kernel/config/vdpa_blk/{self.name}"
        writes = [f"echo {value} > {directory}/{name}"
                  for name, value in self._settings.items()]
        # It may be built in.
        self.guest.run(" && ".join([f"{{ modprobe {self._bus} || "
                                    f"[ -d /sys/bus/vdpa/drivers/{self._bus} ]; }}",
                                    f"mkdir -p {directory}", *writes]))
        self.add()
        return self

    def __exit__(self, *error) -> None:
        self.guest.run(f"/tmp/vdpa/run vdpa dev del {self.name}; "
                       f"rmdir /sys/kernel/config/vdpa_blk/{self.name}; "
                       f"! [ -d /sys/module/{self._bus}/holders ] || "
                       f"modprobe -r {self._bus}", timeout=60, check=not any(error))

    def add(self) -> None:
        """Add the device, as its settings say by now."""
        self.guest.run(f"/tmp/vdpa/run vdpa dev add name {self.name} mgmtdev vdpa_blk",
                       timeout=60)

    def disk(self) -> str:
        """Return the name of its disk in this guest, with virtio_vdpa."""
        pattern = f"/sys/bus/vdpa/devices/{self.name}/virtio*/block/*"
        found = process.wait_for(lambda: self.guest.run(
            f"ls -d {pattern}", check=False).output.split(), 10)
        if not found:
            raise GuestError(f"no disk of {self.name} appeared; the log:\n"
                             f"{self.guest.log()[-2000:]}")
        return found[0].rsplit("/", 1)[1]

    def counters(self) -> dict[str, int]:
        """Return the sum of each counter over the virtqueues."""
        text = self.guest.run(
            f"cat /sys/kernel/debug/vdpa_blk/{self.name}/queue*").output
        sums: dict[str, int] = {}
        for name, value in re.findall(r"^(\w+) (\d+)$", text, re.MULTILINE):
            sums[name] = sums.get(name, 0) + int(value)
        return sums

    def queues(self) -> Iterator[dict[str, int]]:
        """Yield the counters of each virtqueue."""
        for index in range(int(self._settings.get("queues", 4))):
            text = self.guest.run(f"cat /sys/kernel/debug/vdpa_blk/{self.name}/"
                                  f"queue{index}").output
            yield {name: int(value) for name, value in
                   re.findall(r"^(\w+) (\d+)$", text, re.MULTILINE)}
