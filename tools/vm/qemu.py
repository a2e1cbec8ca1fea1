# SPDX-License-Identifier: GPL-2.0
"""QEMU's accelerator and command line."""

import functools
import json
import os
import re
import subprocess
from collections.abc import Iterable, Sequence, Sized
from pathlib import Path

from host.ui import UserError, say

from . import qemu_dist, sysrq
from .arch import Arch
from .disk import Disk, Options
from .kernels import Kernel

MACHINES = {
    "q35": "q35",
    "pc": "pc",
    "microvm": "microvm,acpi=on,rtc=on,isa-serial=on",
    "s390-ccw-virtio": "s390-ccw-virtio",
    "virt": "virt",
    "virt-mmio": "virt",
}
# The last part of QEMU's device names on machines without PCI.
_TRANSPORTS = {"microvm": "device", "s390-ccw-virtio": "ccw",
               "virt-mmio": "device"}

# The largest number of disks that have a root port each, the number of ports for
# disks plugged in later, and the first slots of ports and of disks without a port.
PORTS = 8
SPARE_PORTS = 4
_FIRST_PORT_SLOT = 0x10
_FIRST_DIRECT_SLOT = 0x04

# The number of disks that fit on q35's root bus: the functions of the slots between.
MOST_ON_Q35 = 8 * (_FIRST_PORT_SLOT - _FIRST_DIRECT_SLOT)
# The number of virtio devices that other machines have room for.
_ROOM = {"pc": 30, "microvm": 24}

# On QEMU's command line the IOMMU must come before the devices that use it.
IOMMU_OPTIONS = ("-device", "intel-iommu,intremap=off,caching-mode=on")

_PROBE_SECONDS = 2

# A race in QEMU under TCG, not a bug of the guest: one CPU changes the memory map while
# another CPU accesses it.  Kernels change it when they enumerate PCI devices, and
# when they suspend them.  Sometimes QEMU fails with this assertion.  More often it
# silently loses the other CPU's write: an end of interrupt, after which that CPU gets
# no more interrupts, or a kick.  On a busy host, four CPUs under I/O reach it after
# some 20 removals of a device.  With all CPUs emulated in one thread it did not
# occur in 560.
FLAW = "iotlb_to_section: Assertion"


@functools.cache
def accelerator() -> str:
    """Return "kvm" or "tcg"; print which one and why."""
    name, reason = _accelerator_and_reason()
    number = ".".join(map(str, qemu_dist.version(qemu_dist.find())))
    say(f"  guests run in QEMU {number} with {name.upper()}: {reason}")
    return name


def has_kvm() -> bool:
    """Return whether guests run under KVM; do without QEMU if the CPU tells."""
    return _accelerator_and_reason()[0] == "kvm"


@functools.cache
def _accelerator_and_reason() -> tuple[str, str]:
    flags = Path("/proc/cpuinfo").read_text().split("\n\n", 1)[0].split()
    if not {"vmx", "svm"} & set(flags):
        return "tcg", "the CPU has neither vmx nor svm"
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg", "/dev/kvm cannot be opened"
    if not _kvm_starts_a_guest():
        return "tcg", "/dev/kvm exists, but a test guest did not start"
    return "kvm", "a test guest started"


def _kvm_starts_a_guest() -> bool:
    """Return whether the firmware of a test guest prints anything."""
    argv = ["setpriv", "--pdeathsig", "KILL", "--", *qemu_dist.find(),
            "-nodefaults", "-no-user-config", "-display", "none",
            "-machine", "pc", "-accel", "kvm", "-m", "64",
            "-chardev", "stdio,id=words",
            "-device", "isa-debugcon,iobase=0x402,chardev=words"]
    probe = subprocess.Popen(argv, stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        words, _ = probe.communicate(timeout=_PROBE_SECONDS)
    except subprocess.TimeoutExpired:
        probe.kill()
        words, _ = probe.communicate()
    return bool(words)


def json_option(value: Options) -> str:
    """Return an argument of -blockdev, -device or -object."""
    return json.dumps(value)


def accelerator_options(arch: Arch, extra: Sequence[str], parallel: bool) -> list[str]:
    """Return -accel and -cpu; -icount in extra needs TCG with one thread.

    parallel: emulate each CPU in its own thread.
    """
    if arch.foreign:
        return ["-accel", "tcg,thread=multi", "-cpu", arch.cpu]
    if accelerator() == "kvm" and "-icount" not in extra:
        return ["-accel", "kvm", "-cpu", "host"]
    # With one thread QEMU emulates "lock addl", which is Linux's smp_mb(), without a
    # barrier, although its devices run in another thread.  So rarely an interrupt or a
    # kick is lost at depths above 1, whatever the driver does, and the driver finds it
    # after a second or two.
    thread = "multi" if parallel and "-icount" not in extra else "single"
    # Five-level page tables would only slow down address translation.  Without PCI
    # power management a suspended device stays in the memory map: see FLAW.
    return ["-accel", f"tcg,thread={thread}", "-cpu", arch.cpu,
            "-global", "virtio-pci.x-pcie-pm-init=off"]


def clock_words(kernel: Kernel) -> list[str]:
    """Return words for the kernel's command line that set the clock's rate.

    Under TCG the guest's time stamp counter is the host's.  A kernel measures its
    rate on each CPU, which fails on a busy host: with many CPUs it takes minutes, and
    a microvm then has no clock at all.
    """
    rate = re.search(r"^bogomips\s*: ([\d.]+)$",
                     Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    if kernel.arch.foreign or accelerator() == "kvm" or not rate:
        return []
    khz = round(float(rate[1]) * 500)
    config = kernel.build / ".config"
    ticks = re.search(r"^CONFIG_HZ=(\d+)$",
                      config.read_text() if config.exists() else "", re.MULTILINE)
    return [f"tsc_early_khz={khz}",
            *([f"lpj={khz * 1000 // int(ticks[1])}"] if ticks else [])]


def machine_options(arch: Arch, machine: str, cpus: int, maxcpus: int | None,
                    nodes: int, memory: int, shared: bool, firmware: str) -> list[str]:
    """Return the options for the machine, its CPUs, memory and NUMA nodes.

    memory: in MiB; shared: use shared memory, which vhost-user devices need;
    firmware: "qboot", or "seabios", QEMU's default.
    """
    if machine not in arch.machines:
        raise UserError(f"machine is {machine!r}; for {arch.name} it must be one of "
                        f"{', '.join(arch.machines)}")
    if nodes < 1 or nodes > cpus:
        raise UserError(f"the number of NUMA nodes is {nodes}; it must be from 1 to "
                        f"the number of CPUs, {cpus}")
    kind = ({"qom-type": "memory-backend-memfd", "share": True} if shared
            else {"qom-type": "memory-backend-ram"})
    name = MACHINES[machine]
    total = maxcpus or cpus
    smp = f"{cpus},maxcpus={total}"
    if nodes > 1:
        # Linux logs a warning if a socket spans two nodes.
        smp += f",sockets={total},cores=1" if total % nodes else \
            f",sockets={nodes},cores={total // nodes}"
    options = ["-smp", smp, "-m", str(memory)]
    for node in range(nodes):
        options += ["-object", json_option(
            {**kind, "id": f"mem{node}", "size": (memory // nodes) << 20})]
        if nodes > 1:
            first, last = node * total // nodes, (node + 1) * total // nodes - 1
            options += ["-numa", f"node,nodeid={node},memdev=mem{node},"
                                 f"cpus={first}-{last}"]
    if nodes == 1:
        name += ",memory-backend=mem0"
    # Unlike SeaBIOS, qboot does not set up PCI devices, so the kernel moves them less
    # (see FLAW).  It does not access vhost-user disks either, on which SeaBIOS fails
    # on a microvm.
    if firmware == "qboot" and not arch.foreign:
        options += ["-bios", "qboot.rom"]
    return ["-machine", name, *options]


def check_disks(machine: str, count: int, others: int) -> None:
    """Raise UserError if a machine has no room for so many disks.

    others: the number of its other virtio devices.
    """
    if machine == "q35":
        most, way_out = MOST_ON_Q35, ""
    elif machine in _ROOM:
        most, way_out = (_ROOM[machine] - others,
                         f", or choose machine q35, which takes {MOST_ON_Q35}")
    else:
        return
    if count > most:
        raise UserError(f"the guest has {count} disks; the machine {machine} takes at "
                        f"most {most}; leave out {count - most} of them{way_out}")


class Slots:
    """The PCI slots of a machine's disks.

    On q35 each disk has its own root port, so it can be unplugged.  With more than
    PORTS disks, the set-up of so many ports takes too long.  Then the disks are on the
    root bus and cannot be unplugged.  So is a disk with virtio 0.9, because it needs
    I/O ports.
    """

    def __init__(self, machine: str, disks: Sized):
        self.transport = _TRANSPORTS.get(machine, "pci")
        self._many = machine == "q35" and len(disks) > PORTS
        ports = 0 if machine != "q35" else SPARE_PORTS if self._many \
            else len(disks) + SPARE_PORTS
        self._ports = [f"{_FIRST_PORT_SLOT + number // 8:02x}.{number % 8}"
                       for number in range(ports)]
        self._free = list(range(ports))
        self._taken: dict[str, int] = {}
        self._direct = [f"{_FIRST_DIRECT_SLOT + number // 8:02x}.{number % 8}"
                        for number in range(len(disks) if self._many else 0)]

    def options(self) -> list[str]:
        """Return QEMU's options for the root ports."""
        options = []
        for number, address in enumerate(self._ports):
            options += ["-device", json_option(
                {"driver": "pcie-root-port", "id": f"port{number}",
                 "bus": "pcie.0", "addr": address, "chassis": number + 1,
                 "multifunction": True})]
        return options

    def take(self, disk: Disk) -> Options:
        """Reserve a slot for a disk; return the device's properties for it."""
        if self._direct:
            place = {"bus": "pcie.0", "addr": self._direct.pop(0),
                     "multifunction": True}
            return place if disk.legacy else {**place, "disable-legacy": "on"}
        if disk.legacy or not self._ports:
            return {}
        if not self._free:
            raise UserError(f"no free slot for disk {disk.id}; a running guest takes "
                            f"at most {SPARE_PORTS} more disks, so remove one first")
        self._taken[disk.id] = self._free.pop(0)
        return self.place(disk)

    def place(self, disk: Disk) -> Options:
        """Return the device's properties for the slot that a disk has."""
        return {"bus": f"port{self._taken[disk.id]}"}

    def give_back(self, disk: Disk) -> None:
        """Free a disk's slot."""
        if disk.id in self._taken:
            self._free.append(self._taken.pop(disk.id))

    def address(self, disk: Disk) -> str | None:
        """Return the PCI address of a disk's port, None if it has none."""
        number = self._taken.get(disk.id)
        return None if number is None else f"0000:00:{self._ports[number]}"


def disk_options(disk: Disk, slots: Slots) -> list[str]:
    """Return QEMU's options for a disk."""
    options = []
    chardev = disk.chardev()
    if chardev:
        data = chardev["backend"]["data"]
        again = f",reconnect-ms={data['reconnect-ms']}" if disk.reconnect else ""
        options += ["-chardev", f"socket,id={chardev['id']},"
                                f"path={data['addr']['data']['path']}{again}"]
    for item in disk.objects():
        options += ["-object", json_option(item)]
    for node in disk.block_nodes():
        options += ["-blockdev", json_option(node)]
    device = disk.device(slots.transport) | slots.take(disk)
    return [*options, "-device", json_option(device)]


def scsi_options(transport: str, images: Iterable[Path],
                 layers: Iterable[Path] | None = None) -> list[str]:
    """Return a virtio-scsi controller with disks whose changes are discarded.

    layers: qcow2 files over the images; if given, they take the writes.
    """
    # One queue, because the virtio-scsi driver of 7.3 does not follow vectors that
    # move: with several queues it loses interrupts after a suspend with a CPU offline.
    options = ["-device", f"virtio-scsi-{transport},id=scsi,num_queues=1"]
    for lun, image in enumerate(layers or images):
        kind = "format=qcow2" if layers else "format=raw,snapshot=on"
        options += ["-drive", f"if=none,id=lun{lun},{kind},"
                              f"cache=unsafe,file={image}",
                    "-device", f"scsi-hd,drive=lun{lun},lun={lun}"]
    return options


def root_disk_options(transport: str, image: Path, cpus: int) -> list[str]:
    """Return the root disk of a guest without an initramfs.

    It comes before all other disks.  Its changes are discarded.
    """
    place = ",addr=02.0" if transport == "pci" else ""
    return ["-drive", f"if=none,id=root,format=raw,snapshot=on,cache=unsafe,"
                      f"file={image}",
            "-device", f"virtio-blk-{transport},id=root,drive=root,serial=root,"
                       f"num-queues={cpus}{place}"]


def channel_options(transport: str, agent: int, qmp: int, console: str) -> list[str]:
    """Return the guest's serial console, the agent's port, and the monitor.

    agent, qmp: file descriptors of connected sockets; console: the path of the log.
    The socket sysrq.SOCKET is the console's input.  While nothing is connected to it,
    the console's output goes only to the log.
    """
    return ["-chardev", f"socket,id={sysrq.CHARDEV},path={sysrq.SOCKET},server=on,"
                        f"wait=off,logfile={console},logappend=on",
            "-serial", f"chardev:{sysrq.CHARDEV}",
            "-chardev", f"socket,id=agent,fd={agent}",
            "-device", f"virtio-serial-{transport}",
            "-device", "virtserialport,chardev=agent,name=vblk.agent",
            "-chardev", f"socket,id=qmp,fd={qmp}",
            "-mon", "chardev=qmp,mode=control"]
