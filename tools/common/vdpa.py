# SPDX-License-Identifier: GPL-2.0
"""vDPA devices in a guest: vdpa_blk, VDUSE and the kernel's simulator.

    with Guest(kernel, disks=[Disk("back", ...)], qemu_args=vdpa.qemu_args()) as guest:
        vdpa.prepare(guest)
        with vdpa.Device(guest, "back", queues=4, workers=2) as device:
            fio.run(guest, f"/dev/{device.disk()}", ...)
"""

import contextlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from host import cache, deps, process
from vm import kernels, programs, qemu_dist
from vm.errors import GuestError
from vm.guest import Guest, Job

from .queues import parse_cpus

# The host's programs in the image besides qemu-storage-daemon, and their packages.
_PACKAGES = {"vdpa": "iproute2", "dmsetup": "dmsetup"}
_LABEL = "vdpa-tools"
# How to run one of the image's programs in a guest.
PROGRAM = "/tmp/vdpa/run"
_SETTINGS = "/sys/kernel/config/vdpa_blk"
_DEBUG = "/sys/kernel/debug/vdpa_blk"


def tools() -> Path:
    """Return an image with the programs for a vDPA device inside a guest.

    qemu-storage-daemon is the device, vdpa adds it, and dmsetup makes backing devices
    that fail.  The script `run` starts them with the host's libraries.
    """
    daemon = qemu_dist.find("qemu-storage-daemon")

    def build(directory: Path) -> None:
        deps.need(_PACKAGES)
        programs.pack(directory / "vdpa.ext4", _LABEL, 48,
                      [daemon, *([deps.path_of(name)] for name in _PACKAGES)])

    number = ".".join(map(str, qemu_dist.version(daemon)))
    name = "-".join((_LABEL, *_PACKAGES, number))
    return cache.populate(name, build, mib=100) / "vdpa.ext4"


def qemu_args() -> list[str]:
    """Return QEMU's arguments for a guest that gets the programs."""
    return ["-drive", "if=none,id=vdpa,format=raw,snapshot=on," f"file={tools()}",
            "-device", "scsi-hd,drive=vdpa,lun=7"]


def prepare(guest: Guest, module: Path | None = None) -> None:
    """Mount the programs and load vdpa_blk.

    module: vdpa_blk.ko; by default it is built for the guest's kernel.
    """
    # Each page of a process that is not next to the last one is an entry.
    guest.run("mkdir -p /etc/modprobe.d && echo options vhost_vdpa "
              "max_iotlb_entries=65536 > /etc/modprobe.d/vdpa.conf")
    guest.run(f"mkdir /tmp/vdpa && mount -r LABEL={_LABEL} /tmp/vdpa && "
              "modprobe -a vdpa vhost_iotlb configfs; "
              "mountpoint -q /sys/kernel/config || "
              "mount -t configfs none /sys/kernel/config")
    if not guest.kernel.has("CONFIG_VDPA_BLK"):
        guest.put(module or kernels.vdpa(guest.kernel), "/tmp/vdpa_blk.ko")
        guest.run("insmod /tmp/vdpa_blk.ko")


def parse_counters(text: str) -> dict[str, int]:
    """Return the values of the lines of a debugfs file that are a name and a number."""
    return {name: int(value) for name, value in
            re.findall(r"^(\w+) (\d+)$", text, re.MULTILINE)}


@dataclass(frozen=True)
class Worker:
    """A thread of vdpa_blk: the CPU that it ran on last, and those that it may use."""
    index: int
    cpu: int
    allowed: list[int]


class _Added:
    """A device that `vdpa dev add` creates, for a with block.

    manager: the name of the management device.
    """

    manager: str

    def __init__(self, guest: Guest, name: str):
        self.guest = guest
        self.name = name

    def add(self) -> None:
        """Add the device; a device of vdpa_blk is as its settings say by now."""
        self.guest.run(f"{PROGRAM} vdpa dev add name {self.name} "
                       f"mgmtdev {self.manager}", timeout=60)

    def delete(self, check: bool = True) -> None:
        """Delete the device; this waits for its I/O."""
        self.guest.run(f"{PROGRAM} vdpa dev del {self.name}", timeout=60, check=check)

    def disk(self) -> str:
        """Return the name of its disk in this guest, with virtio_vdpa."""
        pattern = f"/sys/bus/vdpa/devices/{self.name}/virtio*/block/*"
        found = process.wait_for(lambda: self.guest.run(
            f"ls -d {pattern}", check=False).output.split(), 10)
        if not found:
            raise GuestError(f"no disk of {self.name} appeared; the log:\n"
                             f"{self.guest.log()[-2000:]}")
        return found[0].rsplit("/", 1)[1]


class Device(_Added):
    """A device of vdpa_blk.

    guest: a guest that prepare() has prepared; backing: the id of a disk, or a path;
    bus: the module of the bus driver, "virtio_vdpa" or "vhost_vdpa"; settings:
    attributes in configfs, except path.
    """

    manager = "vdpa_blk"

    def __init__(self, guest: Guest, backing: str, bus: str = "virtio_vdpa",
                 name: str = "disk0", **settings: Any):
        super().__init__(guest, name)
        self._bus = bus
        path = backing if backing.startswith("/") else f"/dev/{guest.dev(backing)}"
        self._settings: dict[str, Any] = {"path": path, **settings}
        self._cleanup = contextlib.ExitStack()

    def __enter__(self) -> Self:
        directory = f"{_SETTINGS}/{self.name}"
        # A directory that is left from another device has its settings.
        self.guest.run(f"{{ modprobe {self._bus} || "
                       # It may be built in.
                       f"[ -d /sys/bus/vdpa/drivers/{self._bus} ]; }} && "
                       f"mkdir {directory}")
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.guest.cleanup(
                f"{PROGRAM} vdpa dev del {self.name}; rmdir {directory}; "
                f"! [ -d /sys/module/{self._bus}/holders ] || modprobe -r {self._bus}",
                timeout=60))
            if self._bus == "vhost_vdpa":
                # A process there says by itself what it accepts: offer packed rings.
                self.guest.run(f"echo $(($(cat {directory}/features) | 1 << 34)) "
                               f"> {directory}/features")
            self.guest.run(" && ".join(f"echo {value} > {directory}/{name}"
                                       for name, value in self._settings.items()))
            self.add()
            self._cleanup = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._cleanup.__exit__(*error)

    def add(self) -> None:
        """Add the device, as its settings say by now, and bind it to its bus driver."""
        if self._bus == "virtio_vdpa":
            super().add()
            return
        # Where virtio_vdpa is built in, it takes each device.
        bus = "/sys/bus/vdpa"
        self.guest.run(f"echo 0 > {bus}/drivers_autoprobe")
        try:
            super().add()
            self.guest.run(f"echo {self._bus} > {bus}/devices/{self.name}/driver_override"
                           f" && echo {self.name} > {bus}/drivers_probe")
        finally:
            self.guest.run(f"echo 1 > {bus}/drivers_autoprobe")

    def node(self) -> str:
        """Return the path of its node, with vhost_vdpa."""
        found = self.guest.run(f"ls /sys/bus/vdpa/devices/{self.name}").output.split()
        (node,) = [name for name in found if name.startswith("vhost-vdpa-")]
        return f"/dev/{node}"

    def workers(self) -> list[Worker]:
        """Return its workers, in their order."""
        threads = self.guest.run(
            f"for pid in $(sed -n 's/^worker_pids //p' {_DEBUG}/{self.name}/device); "
            "do echo $(ps -o psr= -p $pid; "
            "grep Cpus_allowed_list /proc/$pid/status); done")
        return [Worker(index, int(cpu), parse_cpus(allowed))
                for index, (cpu, allowed) in enumerate(re.findall(
                    r"^(\d+) Cpus_allowed_list: (\S+)$", threads.output, re.MULTILINE))]

    def features(self) -> int:
        """Return the mask of the features that it offers."""
        return int(self.guest.run(f"sed -n 's/^features //p' {_DEBUG}/{self.name}/device"
                                  ).output, 16)

    def counters(self) -> dict[str, int]:
        """Return the sum of each counter over the virtqueues."""
        sums: Counter[str] = Counter()
        for queue in self.queues():
            sums.update(queue)
        return dict(sums)

    def queues(self) -> Iterator[dict[str, int]]:
        """Yield the counters of each virtqueue."""
        for index in range(int(self._settings.get("queues", 4))):
            yield parse_counters(self.guest.run(
                f"cat {_DEBUG}/{self.name}/queue{index}").output)


class Vduse(_Added):
    """A device of VDUSE, which qemu-storage-daemon serves in the guest.

    backing: the path of a block device; queues, ring_size: of the device.  The daemon
    uses Linux AIO without a page cache.  Leave the block before that of a Device, which
    unloads virtio_vdpa.
    """

    manager = "vduse"

    def __init__(self, guest: Guest, backing: str, *, name: str = "vduse0",
                 queues: int = 4, ring_size: int = 256):
        super().__init__(guest, name)
        self._words = (
            f"--pidfile /run/{name}.pid --blockdev driver=host_device,"
            f"filename={backing},node-name={name},cache.direct=on,aio=native "
            f"--export type=vduse-blk,id={name},node-name={name},name={name},"
            f"num-queues={queues},queue-size={ring_size},writable=on,serial={name}")
        self._cleanup = contextlib.ExitStack()

    @staticmethod
    def available(guest: Guest) -> bool:
        """Return whether the guest's kernel has VDUSE and virtio_vdpa; load them."""
        return not guest.run("modprobe -q vduse; modprobe -q virtio_vdpa; "
                             "[ -e /dev/vduse/control ] && "
                             "[ -d /sys/bus/vdpa/drivers/virtio_vdpa ]",
                             check=False).status

    def __enter__(self) -> Self:
        server = self.guest.start(f"exec {PROGRAM} qemu-storage-daemon {self._words}",
                                  timeout=None)
        there = f"[ -d /sys/class/vduse/{self.name} ]"
        process.wait_for(lambda: not server.running or not self.guest.run(
            there, check=False).status, 30)
        if not server.running or self.guest.run(there, check=False).status:
            server.kill()
            raise GuestError("qemu-storage-daemon did not create the device "
                             f"{self.name}; its output:\n{server.output.strip()}")
        with contextlib.ExitStack() as stack:
            stack.callback(self._stop, server)
            self.add()
            stack.push(self._delete)
            self._cleanup = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._cleanup.__exit__(*error)

    def _delete(self, *error: object) -> None:
        self.delete(check=not any(error))

    def _stop(self, server: Job) -> None:
        """End the daemon."""
        # If the guest is lost, so is the daemon.
        with contextlib.suppress(GuestError):
            self.guest.run(f"kill $(cat /run/{self.name}.pid)", check=False)
            if not process.wait_for(lambda: not server.running, 10):
                server.kill()


class Simulated(_Added):
    """A device of vdpa_sim_blk, the kernel's simulator; its disk is in memory."""

    manager = "vdpasim_blk"

    def __init__(self, guest: Guest, name: str = "sim0"):
        super().__init__(guest, name)

    @staticmethod
    def available(guest: Guest) -> bool:
        """Return whether the guest's kernel has the simulator; load it."""
        return not guest.run("modprobe -q vdpa_sim_blk; "
                             f"{PROGRAM} vdpa mgmtdev show | grep -q ^vdpasim_blk",
                             check=False).status

    def __enter__(self) -> Self:
        self.add()
        return self

    def __exit__(self, *error: object) -> None:
        self.delete(check=not any(error))
