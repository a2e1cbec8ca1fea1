# SPDX-License-Identifier: GPL-2.0
"""QEMU: with which accelerator, on what command line."""

import functools
import json
import os
import re
import subprocess
from pathlib import Path

from . import qemu_dist, sysrq
from .ui import UserError, say

MACHINES = {
    "q35": "q35",
    "pc": "pc",
    "microvm": "microvm,acpi=on,rtc=on,isa-serial=on",
    "s390-ccw-virtio": "s390-ccw-virtio",
    "virt": "virt",
    "virt-mmio": "virt",
}
# How the devices' names end on those machines that have them not on PCI.
_TRANSPORTS = {"microvm": "device", "s390-ccw-virtio": "ccw",
               "virt-mmio": "device"}

# Up to how many disks have a root port each, how many ports there are for
# disks that are plugged in later, and the slots where ports and disks begin.
PORTS = 8
SPARE_PORTS = 4
_FIRST_PORT_SLOT = 0x10
_FIRST_DIRECT_SLOT = 0x04

# To come before the devices that it is in front of.
IOMMU_OPTIONS = ("-device", "intel-iommu,intremap=off,caching-mode=on")

_PROBE_SECONDS = 2

# What QEMU says when one of its CPUs rearranges the memory map and another gets
# in its way, under TCG only, and no fault of the guest.  Kernels do so while they
# look for PCI devices, and when they put them to sleep.  More often it says
# nothing, but loses what the other CPU wrote: the end of an interrupt, and that
# CPU never has another one, or a kick.  On a busy host four CPUs under I/O come to
# that by some twenty removals of a device; emulated in turn by one thread they
# did not in 560.
FLAW = "iotlb_to_section: Assertion"


@functools.cache
def accelerator():
    """Return "kvm" or "tcg", having said which one and why."""
    name, reason = _choose_accelerator()
    number = ".".join(map(str, qemu_dist.version(qemu_dist.find())))
    say(f"  guests run on QEMU {number} with {name.upper()}: {reason}")
    return name


def _choose_accelerator():
    flags = Path("/proc/cpuinfo").read_text().split("\n\n", 1)[0].split()
    if not {"vmx", "svm"} & set(flags):
        return "tcg", "the processor's flags have neither vmx nor svm"
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg", "/dev/kvm cannot be opened"
    if not _kvm_starts_a_guest():
        return "tcg", "/dev/kvm is there, but no guest starts on it"
    return "kvm", "a guest was seen to start"


def _kvm_starts_a_guest():
    """Tell whether the firmware gets as far as its first words."""
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


def json_option(value):
    """Return an argument of -blockdev, -device or -object."""
    return json.dumps(value)


def accelerator_options(arch, extra, parallel):
    """Return -accel and -cpu; instructions can be counted on one thread only.

    parallel: emulate each CPU by a thread of its own.
    """
    if arch.foreign:
        return ["-accel", "tcg,thread=multi", "-cpu", arch.cpu]
    if accelerator() == "kvm" and "-icount" not in extra:
        return ["-accel", "kvm", "-cpu", "host"]
    thread = "multi" if parallel and "-icount" not in extra else "single"
    # Five levels of page tables only make address translation slower.  A device
    # that cannot be put to sleep stays where it is in the memory map: see FLAW.
    return ["-accel", f"tcg,thread={thread}", "-cpu", arch.cpu,
            "-global", "virtio-pci.x-pcie-pm-init=off"]


def clock_words(kernel):
    """Return words for the kernel's command line that tell it the clock's rate.

    Under TCG the guest's time stamp counter is the host's.  To measure its
    rate, as a kernel does with each CPU, fails on a busy host: it takes
    minutes with many CPUs, and a microvm then has no clock at all.
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


def machine_options(arch, machine, cpus, maxcpus, nodes, memory, shared,
                    firmware):
    """Return the options for the machine, its CPUs, memory and NUMA nodes.

    memory in MiB; shared memory can be handed to a vhost-user device;
    firmware: "qboot", or "seabios", QEMU's own default.
    """
    if machine not in arch.machines:
        raise UserError(f"no machine {machine!r} for {arch.name}; there are "
                        f"{', '.join(arch.machines)}")
    if nodes < 1 or nodes > cpus:
        raise UserError(f"{nodes} NUMA nodes need as many CPUs, and there are {cpus}")
    kind = ({"qom-type": "memory-backend-memfd", "share": True} if shared
            else {"qom-type": "memory-backend-ram"})
    name = MACHINES[machine]
    total = maxcpus or cpus
    smp = f"{cpus},maxcpus={total}"
    if nodes > 1:
        # A socket that is on two nodes makes Linux complain.
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
    # Unlike SeaBIOS this firmware leaves the PCI devices to the kernel, which
    # then moves them less (see FLAW), and vhost-user disks alone: on a microvm
    # SeaBIOS stumbles over them.
    if firmware == "qboot" and not arch.foreign:
        options += ["-bios", "qboot.rom"]
    return ["-machine", name, *options]


class Slots:
    """The places of a machine into which disks go.

    On q35 a disk has a root port of its own, from which it can be unplugged.
    Where there are many it takes long to set up that many ports: then they
    are on the root bus for good, as is a disk that speaks virtio 0.9, which
    needs I/O ports.
    """

    def __init__(self, machine, disks):
        self.transport = _TRANSPORTS.get(machine, "pci")
        self._many = machine == "q35" and len(disks) > PORTS
        ports = 0 if machine != "q35" else SPARE_PORTS if self._many \
            else len(disks) + SPARE_PORTS
        self._ports = [f"{_FIRST_PORT_SLOT + number // 8:02x}.{number % 8}"
                       for number in range(ports)]
        self._free = list(range(ports))
        self._taken = {}
        self._direct = [f"{_FIRST_DIRECT_SLOT + number // 8:02x}.{number % 8}"
                        for number in range(len(disks) if self._many else 0)]

    def options(self):
        """Return the devices that make the places."""
        options = []
        for number, address in enumerate(self._ports):
            options += ["-device", json_option(
                {"driver": "pcie-root-port", "id": f"port{number}",
                 "bus": "pcie.0", "addr": address, "chassis": number + 1,
                 "multifunction": True})]
        return options

    def take(self, disk):
        """Return the properties that put a disk into its place."""
        if self._direct:
            place = {"bus": "pcie.0", "addr": self._direct.pop(0),
                     "multifunction": True}
            return place if disk.legacy else {**place, "disable-legacy": "on"}
        if disk.legacy or not self._ports:
            return {}
        if not self._free:
            raise UserError(f"no free slot for disk {disk.id}: {SPARE_PORTS} can "
                            "be added to those that a guest has at its start")
        self._taken[disk.id] = self._free.pop(0)
        return self.place(disk)

    def place(self, disk):
        """Return the properties of the place that a disk has taken."""
        return {"bus": f"port{self._taken[disk.id]}"}

    def give_back(self, disk):
        """Free the place of a disk."""
        if disk.id in self._taken:
            self._free.append(self._taken.pop(disk.id))

    def address(self, disk):
        """Return the PCI address of a disk's port, None if it has none."""
        number = self._taken.get(disk.id)
        return None if number is None else f"0000:00:{self._ports[number]}"


def disk_options(disk, slots):
    """Return the options that give a machine a disk."""
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


def scsi_options(transport, images, layers=None):
    """Return a virtio-scsi controller with disks that forget what is written.

    layers: qcow2 files over the images, which get what is written.
    """
    # With several queues the kernel's driver of 7.3, which does not follow vectors
    # that move, loses interrupts after a suspend with a CPU offline.
    options = ["-device", f"virtio-scsi-{transport},id=scsi,num_queues=1"]
    for lun, image in enumerate(layers or images):
        kind = "format=qcow2" if layers else "format=raw,snapshot=on"
        options += ["-drive", f"if=none,id=lun{lun},{kind},"
                              f"cache=unsafe,file={image}",
                    "-device", f"scsi-hd,drive=lun{lun},lun={lun}"]
    return options


def root_disk_options(transport, image, cpus):
    """Return the disk from which a guest boots that has no initramfs.

    It comes before all other disks and forgets what is written.
    """
    place = ",addr=02.0" if transport == "pci" else ""
    return ["-drive", f"if=none,id=root,format=raw,snapshot=on,cache=unsafe,"
                      f"file={image}",
            "-device", f"virtio-blk-{transport},id=root,drive=root,serial=root,"
                       f"num-queues={cpus}{place}"]


def channel_options(transport, agent, qmp, console):
    """Return the guest's serial console, the agent's port, and the monitor.

    agent and qmp are file descriptors of connected sockets, console the
    path of the log.  What the host writes to the socket sysrq.SOCKET is the
    console's input; as long as it is not connected to it, the output goes to the
    log alone.
    """
    return ["-chardev", f"socket,id={sysrq.CHARDEV},path={sysrq.SOCKET},server=on,"
                        f"wait=off,logfile={console},logappend=on",
            "-serial", f"chardev:{sysrq.CHARDEV}",
            "-chardev", f"socket,id=agent,fd={agent}",
            "-device", f"virtio-serial-{transport}",
            "-device", "virtserialport,chardev=agent,name=vblk.agent",
            "-chardev", f"socket,id=qmp,fd={qmp}",
            "-mon", "chardev=qmp,mode=control"]
