# SPDX-License-Identifier: GPL-2.0
"""A guest: a Linux system on virtual disks, to be tested and measured.

    with Guest("6.12", disks=[Disk("data", queues=4)]) as guest:
        print(guest.run("lsblk").output)

All times are in seconds.  A guest is used from one thread, which has to live
as long as the guest does.
"""

import contextlib
import os
import re
import shlex
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from . import host, image, kernels, process, qemu, qemu_dist, sysrq
from .agent import Agent
from .disk import make_qcow2
from .errors import (BootFailed, BootHung, CommandFailed, CommandTimeout,
                     GuestError, GuestSplat, QemuDied, QemuRefused, QmpError)
from .klog import KernelLog
from .qmp import Qmp
from .ui import UserError, say

ROOTS = ("scsi", "virtio-blk", "initramfs")

# Emulated CPUs have their time taken away by whatever else the host does:
# the kernel's watchdogs are told to be patient.  Mitigations of the
# processor's flaws have nothing to do with what is tested, and cost time.
_CMDLINE = ("loglevel=7", "mitigations=off", "no_console_suspend",
            "random.trust_cpu=on", "watchdog_thresh=60", "sysrq_always_enabled",
            "rcupdate.rcu_cpu_stall_timeout=300",
            "workqueue.watchdog_thresh=300")

# To a QEMU on the same host the state goes as fast as it can, and the guest may
# stand still for as long, in ms, as a busy one's memory takes.
_MIGRATION = {"max-bandwidth": 1 << 40, "downtime-limit": 2000}

_TICK = 0.25
# How much later than the agent the host concludes that a command hangs.
_GRACE = 20
_REFUSAL_SECONDS = 60
# A console that says nothing for so long, in seconds, is a hung guest's.
_BOOT_SILENCE = 120


class Job:
    """A command that runs in the guest."""

    def __init__(self, guest, task):
        self._guest = guest
        self._task = task

    @property
    def running(self):
        """Whether it has not ended yet."""
        self._guest._pump(0)
        return self._task.outcome is None

    @property
    def output(self):
        """What it has written so far."""
        return self._task.output.decode(errors="replace")

    def kill(self):
        """Kill it and all that it has started; wait() then has status None."""
        self._guest._agent.kill(self._task)

    def wait(self, check=True):
        """Wait until it has ended and return its Result.

        Raises CommandFailed if check is set and the status is not 0,
        CommandTimeout if it had to be stopped, GuestSplat if the kernel
        complained meanwhile.
        """
        return self._guest._wait(self._task, check)


@dataclass(frozen=True)
class _Qemu:
    """A QEMU that has started; agent is the socket that the agent is behind."""
    argv: list
    process: subprocess.Popen
    agent: socket.socket
    qmp: Qmp


class Guest:
    """A guest, which boots at the beginning of a with block.

    kernel: a vm.kernels.Kernel, or a name or path for vm.kernels.find().
    cpus, maxcpus: how many there are, and how many there might be.
    nodes: NUMA nodes over which CPUs and memory are spread.
    memory: in MiB.
    machine: "q35", "pc", or "microvm", which has virtio-mmio and no PCI; those
        of other architectures are in vm.arch.
    disks: the virtio-blk disks, see vm.disk.Disk.
    driver: "ours", "stock", the path of a virtio_blk.ko, or None for none.
    params: the driver's module parameters, as on insmod's command line.
    cmdline: more for the kernel's command line.
    root: "scsi" for Debian on a disk that the driver has nothing to do with,
        on the host's architecture only;
        "virtio-blk" for Debian on /dev/vda and no initramfs, for kernels with
        our driver built in; "initramfs" for busybox alone, which is quickest.
    shared: memory that later vhost-user disks can use.
    firmware: "qboot", or "seabios" for guests that suspend to memory, from
        which only the latter can wake them.
    iommu: put an emulated IOMMU in front of the devices that take part.
    parallel: under TCG, emulate each CPU by a thread of its own, not all of them
        in turn; None for what PARALLEL says.  Not for guests whose devices come
        and go, or sleep, under I/O (see qemu.FLAW).
    movable: it can be moved to another QEMU, by migrate() or save_and_restore().
    boot_timeout: how long it may take until the first command.
    qemu_args: more for QEMU's command line.

    Once up it has boot_seconds; release, the kernel's; and directory, where its
    files are.
    """

    PARALLEL = True

    def __init__(self, kernel, *, cpus=4, maxcpus=None, nodes=1, memory=1024,
                 machine=None, disks=(), driver="ours", params="", cmdline="",
                 root="scsi", shared=False, firmware="qboot",
                 iommu=False, parallel=None, movable=False, boot_timeout=None,
                 qemu_args=()):
        self.kernel = kernels.find(kernel) if isinstance(kernel, (str, Path)) \
            else kernel
        if root not in ROOTS:
            raise UserError(f"no root {root!r}; there are {', '.join(ROOTS)}")
        if root == "virtio-blk" and not self.kernel.builtin:
            raise UserError('root="virtio-blk" takes a kernel with the driver '
                            f"built in, and {self.kernel.name} has it as a module")
        if driver == "stock" and self.kernel.builtin:
            raise UserError(f"{self.kernel.name} has our driver built in; for the "
                            "kernel's own choose one with modules, as KERNEL=6.12")
        self.arch = self.kernel.arch
        if self.arch.foreign and root != "initramfs":
            raise UserError(f"{self.kernel.name} runs without a root file system "
                            'only, as in `make check-arch`: root is "initramfs" '
                            f"there, and here {root!r}; choose KERNEL=6.12")
        self.cpus = cpus
        self.machine = machine or self.arch.machines[0]
        self.disks = {disk.id: disk for disk in disks}
        if len(self.disks) < len(disks):
            raise UserError("two disks of a guest have the same id")
        self._maxcpus = maxcpus
        self._nodes = nodes
        self._memory = memory
        self._driver = driver
        self._params = params
        self._cmdline = cmdline
        self._root = root
        self._shared = shared or any(disk.backend == "vhost-user"
                                     for disk in disks)
        self._firmware = firmware
        self._iommu = iommu
        self._parallel = self.PARALLEL if parallel is None else parallel
        # Whether it had to be booted again, with all CPUs on one thread.
        self.hung = False
        self._movable = movable
        self._boot_timeout = boot_timeout or 240 + 6 * cpus
        self._qemu_args = list(qemu_args)
        self._process = None
        self.directory = None

    # Coming and going

    def __enter__(self):
        self.boot()
        return self

    def __exit__(self, kind, error, traceback):
        if error is None:
            self.close()
            return
        splat = self._log.new_splat()
        if splat:
            error.add_note(f"The guest's kernel log has:\n{splat}")
        self._end()

    def boot(self):
        """Boot the guest and load the driver."""
        self.directory = process.work_directory()
        self._log = KernelLog(self.directory / "console")
        try:
            for disk in self.disks.values():
                disk.prepare(self.directory, self.cpus)
            self._switch_on()
        except BaseException:
            self._end()
            raise

    def _switch_on(self):
        """Start QEMU, once more if it fails by itself, and load the driver."""
        for last in (False, False, True):
            try:
                self._start_qemu()
                started = time.monotonic()
                self._await_agent()
                break
            except QemuDied as death:
                if last or qemu.FLAW not in str(death):
                    raise
                say("  QEMU fell over a flaw of its own; booting once more")
            except BootHung as hang:
                # A driver that is built in may have hung it, a module that is
                # yet to be loaded has not, and with all CPUs on one thread
                # QEMU has not either.
                if last or self.kernel.builtin and not self._parallel:
                    raise
                self._parallel = False
                self.hung = True
                say(f"  {hang}\n  QEMU's emulator is known for it "
                    "(Documentation/testing.rst); booting once more, with all CPUs "
                    "on one thread")
        self.boot_seconds = time.monotonic() - started
        if self._root == "initramfs":
            self.run(image.INSTALL_TOOLS)
        self._load_first_driver()

    def close(self, quit=True):
        """Switch the guest off; raise GuestSplat if its kernel complained.

        quit: ask QEMU to; otherwise it is ended as it is.
        """
        if self._process is None:
            return
        try:
            self.check_log()
            if quit:
                self.qmp("quit")
                process.end(self._process, timeout=10)
        finally:
            self._end()

    def _end(self):
        """Leave nothing running and nothing lying about."""
        if self._process:
            process.end(self._process)
            self._process = None
        for disk in self.disks.values():
            disk.release()
        if self.directory:
            shutil.rmtree(self.directory, ignore_errors=True)
            self.directory = None

    def reboot(self):
        """Restart the guest, in another QEMU and with the same disks.

        The driver that was asked for at first is loaded again.  What is
        mounted is written back, but not unmounted; the root file system is
        as new.
        """
        self.check_log()
        self._ask(self._agent.reboot)
        try:
            self._process.wait(timeout=180)
        except subprocess.TimeoutExpired:
            raise GuestError("the guest was told to restart and did not; its "
                             f"last words:\n{self._log.tail()}") from None
        self.check_log()
        self._switch_on()

    def suspend(self, seconds=1, meanwhile=None, limit=None):
        """Suspend the guest to idle; after some seconds resume it.

        meanwhile: called once, while it sleeps; limit: how long all of it may take.

        The power button wakes it: an alarm of the clock, as set by rtcwake,
        wakes a guest of QEMU's from S3 only.
        """
        entry = "PM: suspend entry"
        entries = self.log().count(entry)
        limit = limit or seconds + 30
        job = self.start("echo freeze > /sys/power/state", limit)
        process.wait_for(lambda: self.log().count(entry) > entries
                         or not job.running, limit)
        started = time.monotonic()
        while job.running and time.monotonic() < started + limit:
            time.sleep(seconds)
            if meanwhile:
                meanwhile()
                meanwhile = None
            self.qmp("system_powerdown")
        return job.wait()

    # Moving

    def migrate(self, timeout=300):
        """Move the running guest to another QEMU on this host.

        Both have the same disks.  Commands in the guest go on.  Raises
        GuestError if it has not moved within timeout seconds.
        """
        self._prepare_move()
        moved = self._spawn_qemu("-incoming", "defer")
        try:
            where = f"unix:{self.directory}/migration"
            moved.qmp.command("migrate-incoming", {"uri": where})
            self._send_state(where, timeout)
        except BaseException:
            process.end(moved.process)
            raise
        process.end(self._process)
        self._follow(moved)

    def save_and_restore(self, timeout=300):
        """Write the guest to a file, end QEMU, and go on from there in another.

        As migrate() otherwise.
        """
        self._prepare_move()
        where = f"file:{self.directory}/state"
        self.qmp("stop")
        self._send_state(where, timeout)
        process.end(self._process)
        moved = self._spawn_qemu("-incoming", "defer")
        moved.qmp.command("migrate-incoming", {"uri": where}, timeout)
        self._follow(moved)
        # Before it has been read, it would be halted again by what is read.
        if not process.wait_for(lambda: self.qmp("query-status")["status"]
                                != "inmigrate", timeout):
            raise GuestError(f"the guest was not read within {timeout} s; QEMU "
                             f"said:\n{self._stderr()}")
        self.qmp("cont")

    def _prepare_move(self):
        if not self._movable:
            raise UserError("only a guest with movable=True can be moved")
        if list(self.disks) != self._first_disks:
            raise UserError("a guest whose disks are not those of its start cannot "
                            "be moved: restart it first")
        # Once it has answered, nothing is left on the way to the agent.
        self.run("true")
        self.qmp("migrate-set-parameters", **_MIGRATION)

    def _send_state(self, where, timeout):
        """Send the guest's state and wait until all of it has been sent."""
        self.qmp("migrate", uri=where)
        limit = time.monotonic() + timeout
        while (found := self.qmp("query-migrate"))["status"] != "completed":
            if found["status"] in ("failed", "cancelled"):
                raise GuestError("the guest could not be moved: "
                                 f"{found.get('error-desc', found['status'])}; "
                                 f"QEMU said:\n{self._stderr()}")
            if time.monotonic() > limit:
                raise GuestError(f"the guest has not moved within {timeout} s; "
                                 f"QEMU says {found}")
            self._pump(_TICK)

    def _follow(self, moved):
        """Go on with a QEMU that has taken over from the one that has ended."""
        self._agent.follow(moved.agent)
        self._process, self._qmp, self.argv = moved.process, moved.qmp, moved.argv

    # Commands

    def start(self, script, timeout=180):
        """Start a shell script and return a Job.

        It is killed, with all it has started, after timeout seconds; None is
        no limit.
        """
        return Job(self, self._ask(lambda: self._agent.run(script, timeout)))

    def run(self, script, timeout=180, check=True):
        """Run a shell script in the guest as root and return its Result.

        Raises what Job.wait() does.
        """
        return self.start(script, timeout).wait(check)

    def put(self, source, path, mode=0o755):
        """Copy a file of the host, or bytes, to a path in the guest."""
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
        task = self._ask(lambda: self._agent.put(path, data, mode))
        self._wait(task, check=True)

    def sysfs(self, path):
        """Return what a file of the guest contains, stripped."""
        return self.run(f"cat {shlex.quote(path)}").output.strip()

    def has_file_system(self, kind):
        """Whether the guest's kernel knows a file system, "xfs" for instance."""
        return not self.run(f"modprobe -q {kind}; "
                            f"grep -qw {kind} /proc/filesystems",
                            check=False).status

    # The driver

    def load(self, params=""):
        """Load our driver."""
        self.run(f"insmod /run/vblk/virtio_blk.ko {params}", timeout=120)

    def load_stock(self, params=""):
        """Load the kernel's own driver."""
        self.run(f"insmod /run/vblk/stock/virtio_blk.ko {params}", timeout=120)

    def unload(self):
        """Unload whichever driver is loaded."""
        self.run("rmmod virtio_blk", timeout=120)

    # Disks

    def dev(self, id, timeout=60):
        """Return the name that a disk has in the guest, as "vda".

        It may take up to timeout seconds to appear.
        """
        address = self._pci_address(self.disks[id])
        limit = time.monotonic() + timeout
        while True:
            name = self._at_address(address) if address else \
                self._with_serial(self.disks[id].serial)
            if name:
                return name
            if time.monotonic() > limit:
                raise GuestError(f"disk {id} has not appeared in the guest")
            time.sleep(0.1)

    def _at_address(self, address):
        """Return the name of the disk at or behind a PCI address, or None."""
        found = re.search(rf"(vd\w+) -> \S*/{address}/",
                          self.run("ls -l /sys/block").output)
        return found and found[1]

    def _with_serial(self, serial):
        """Return the name of the disk with a serial number, or None."""
        found = re.search(rf"^(vd\w+)/serial:{re.escape(serial)}$", self.run(
            "cd /sys/block; grep -H . vd*/serial; true").output, re.MULTILINE)
        return found and found[1]

    def _pci_address(self, disk):
        """Return the PCI address of a disk or its port, None without PCI."""
        if self._slots.transport != "pci":
            return None
        if address := self._slots.address(disk):
            return address
        found = self.qmp("qom-get", path=f"/machine/peripheral/{disk.id}",
                         property="addr")
        return f"0000:00:{found >> 3:02x}.{found & 7}"

    def disk_path(self, id):
        """Return the host's file behind a disk; None for the null backend."""
        return self.disks[id].file

    def add_disk(self, disk):
        """Plug in a disk."""
        if disk.backend == "vhost-user" and not self._shared:
            raise UserError(f"disk {disk.id}: vhost-user needs a guest with "
                            "shared=True")
        if disk.id in self.disks:
            raise UserError(f"there is a disk {disk.id} already")
        disk.prepare(self.directory, self.cpus)
        self.disks[disk.id] = disk
        undo = []
        try:
            self._plug(disk, undo)
        except BaseException:
            for command, arguments in reversed(undo):
                self.qmp(command, **arguments)
            self._forget(disk)
            raise

    def _plug(self, disk, undo):
        """Give QEMU a disk, noting in undo how to take back each step."""
        def step(command, arguments, back, **back_arguments):
            self.qmp(command, **arguments)
            undo.append((back, back_arguments))

        if chardev := disk.chardev():
            step("chardev-add", chardev, "chardev-remove", id=chardev["id"])
        for item in disk.objects():
            step("object-add", item, "object-del", id=item["id"])
        for node in disk.block_nodes():
            step("blockdev-add", node, "blockdev-del",
                 **{"node-name": node["node-name"]})
        self.qmp("device_add", **disk.device(self._slots.transport),
                 **self._slots.take(disk))

    def remove_disk(self, id, timeout=60):
        """Unplug a disk; the guest has timeout seconds to let go of it."""
        disk = self.disks[id]
        if not self._unplug(id, timeout):
            raise GuestError(f"the guest did not let go of disk {id} within "
                             f"{timeout} s; its last words:\n{self._log.tail()}")
        for node in reversed(disk.block_nodes()):
            self.qmp("blockdev-del", **{"node-name": node["node-name"]})
        for item in disk.objects():
            self.qmp("object-del", id=item["id"])
        if chardev := disk.chardev():
            self.qmp("chardev-remove", id=chardev["id"])
        self._forget(disk)
        self.check_log()

    def _unplug(self, id, timeout):
        """Ask for a device until it is gone, as one presses a button again.

        A request that comes while the guest still brings the slot up is lost.
        """
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            self.request_unplug(id)
            if self.wait_event("DEVICE_DELETED", 5, device=id):
                return True
        return False

    def request_unplug(self, id):
        """Ask the guest to let go of a disk, and do not wait for it.

        The event DEVICE_DELETED says that it has.
        """
        try:
            self.qmp("device_del", id=id)
        except QmpError as error:
            # It is on its way, or has just gone.
            if not re.search("unplug|not found", str(error)):
                raise

    def plug_again(self, id):
        """Plug a disk in that request_unplug() was for, with the data that it had."""
        disk = self.disks[id]
        self.qmp("device_add", **disk.device(self._slots.transport),
                 **self._slots.place(disk))

    def slot(self, id):
        """Return the directory in sysfs of the PCI slot of a disk."""
        return f"/sys/devices/pci0000:00/{self._slots.address(self.disks[id])}"

    def _forget(self, disk):
        self._slots.give_back(disk)
        disk.release()
        del self.disks[disk.id]

    def resize_disk(self, id, size):
        """Give a disk another size, in bytes, and tell the guest."""
        if self.disks[id].backend not in ("ram", "raw", "qcow2"):
            raise UserError(f"disk {id}: QEMU cannot resize the backend "
                            f"{self.disks[id].backend}")
        self.qmp("block_resize", **{"node-name": id, "size": size})

    # Time

    def kept_waiting(self):
        """Return a function that tells for how long QEMU has since had no CPU.

        In seconds: what the thread has waited that has waited most, which emulates
        CPUs; and where the host is a guest itself, what was stolen from the CPU
        from which most was.
        """
        def waited():
            most = 0
            for thread in Path(f"/proc/{self._process.pid}/task").glob("*/schedstat"):
                # Those that do a disk's I/O come and go.
                with contextlib.suppress(OSError):
                    most = max(most, int(thread.read_text().split()[1]))
            return most / 1e9

        def stolen():
            lines = Path("/proc/stat").read_text().splitlines()
            return [int(line.split()[8]) / os.sysconf("SC_CLK_TCK")
                    for line in lines if re.match(r"cpu\d", line)]

        waited_before, stolen_before = waited(), stolen()
        return lambda: waited() - waited_before + max(
            now - before for now, before in zip(stolen(), stolen_before))

    def clock(self):
        """Return a clock that stands still while QEMU has no CPU, in seconds."""
        waited = self.kept_waiting()
        return lambda: time.monotonic() - waited()

    def pump(self):
        """Take in what the guest has said; raise GuestSplat as check_log() does."""
        self._pump(0)
        self.check_log()

    # QMP

    def qmp(self, command, /, **arguments):
        """Run a QMP command and return its result.

        Arguments whose names are no Python names go in a dictionary:
        qmp("block_resize", **{"node-name": ...}).
        """
        return self._ask(lambda: self._qmp.command(command, arguments))

    def wait_event(self, name, timeout=30, **data):
        """Return the next QMP event of a name whose data has these values.

        None if it has not come within timeout seconds.
        """
        return self._ask(lambda: self._qmp.event(
            name, lambda found: data.items() <= found.items(), timeout))

    # The kernel's log

    def log(self):
        """Return what the guest's kernel has logged, since its start."""
        return self._log.text()

    def blocked_tasks(self):
        """Return what the kernel logs of its blocked tasks and of the locks held.

        The host presses keys on its console, so this works while all of user space
        hangs; a kernel that does not listen there is asked by the agent.  Only a
        kernel with lockdep knows which locks are held.
        """
        keys = [sysrq.BLOCKED]
        if self.kernel.has("CONFIG_LOCKDEP"):
            keys.append(sysrq.LOCKS)
        said = ""
        for key, answer in keys:
            found = sysrq.press(key, self.directory, self.qmp, self._log, answer)
            if found is None:
                start = self._log.size()
                self._agent.run(f"echo {key} > /proc/sysrq-trigger", 5)
                time.sleep(2)
                found = self._log.since(start)
            said += found
        return said or "    (the kernel does not answer)"

    def log_since(self, start):
        """Return what the log has beyond its first start bytes."""
        return self._log.since(start)

    def log_size(self):
        """Return how many bytes the log has."""
        return self._log.size()

    def check_log(self):
        """Raise GuestSplat if the kernel has complained since the last time."""
        splat = self._log.new_splat()
        if splat:
            raise GuestSplat(f"the guest's kernel complained:\n{splat}")

    def tolerate(self, pattern):
        """From now on pass over splats whose first line matches a pattern."""
        self._log.tolerate(pattern)

    # How it works

    def _start_qemu(self):
        if self._process:
            process.end(self._process)
        started = self._spawn_qemu()
        self._process, self._qmp, self.argv = \
            started.process, started.qmp, started.argv
        self._agent = Agent(started.agent)

    def _spawn_qemu(self, *more):
        """Start a QEMU and return a _Qemu.

        more: for the command line of one that takes over from another, and has
        the same disks and kernel.
        """
        self._slots = qemu.Slots(self.machine, self.disks)
        if not more:
            self._first_disks = list(self.disks)
            self._make_layers()
            self._system = self._boot_options()
        agent, agent_end = socket.socketpair()
        qmp, qmp_end = socket.socketpair()
        with agent_end, qmp_end:
            argv = [*self._argv(agent_end.fileno(), qmp_end.fileno()), *more]
            started = process.spawn(
                argv, self.directory / ("moved.log" if more else "qemu.log"),
                pass_fds=[agent_end.fileno(), qmp_end.fileno()],
                cwd=self.directory)
        try:
            return _Qemu(argv, started, agent, Qmp(qmp, _REFUSAL_SECONDS))
        except EOFError:
            process.end(started, timeout=5)
            raise QemuRefused(f"QEMU did not start:\n{self._stderr()}") from None

    def _make_layers(self):
        """Give a guest that moves files of its own for what it writes.

        Those that are for one QEMU only are gone when it is.
        """
        self._layers = []
        for number, lower in enumerate(self._images() if self._movable else ()):
            layer = self.directory / f"layer{number}"
            make_qcow2(layer, "-b", lower, "-F", "raw", layer)
            self._layers.append(layer)

    def _images(self):
        """Return the images of the system's disks, which it never changes."""
        if self._root != "scsi":
            return []
        modules = image.modules(self.kernel)
        return [image.root(), *([modules] if modules else [])]

    def _argv(self, agent, qmp):
        transport = self._slots.transport
        argv = [*self._emulator(), "-name", "vblk", "-nodefaults",
                "-no-user-config", "-display", "none", "-no-reboot",
                *qemu.machine_options(self.arch, self.machine, self.cpus,
                                      self._maxcpus, self._nodes, self._memory,
                                      self._shared, self._firmware),
                *qemu.accelerator_options(self.arch, self._qemu_args,
                                          self._parallel),
                *(qemu.IOMMU_OPTIONS if self._iommu else ()),
                *qemu.channel_options(transport, agent, qmp, "console"),
                *self._system]
        if transport == "device":
            legacy = any(disk.legacy for disk in self.disks.values())
            argv += ["-global", "virtio-mmio.force-legacy="
                     + ("on" if legacy else "off")]
        argv += self._slots.options()
        for disk in self.disks.values():
            argv += qemu.disk_options(disk, self._slots)
        return [*argv, *self._qemu_args]

    def _emulator(self):
        if not self.arch.foreign:
            return qemu_dist.find()
        self.arch.need()
        return [host.which(self.arch.emulator)]

    def _boot_options(self):
        """Return kernel, initramfs, command line, and the disks of the system."""
        words = [*self.arch.cmdline, *_CMDLINE, *qemu.clock_words(self.kernel)]
        options = ["-kernel", self.kernel.image]
        images = self._images()
        if images:
            words += [f"vblk_root={image.ROOT_LABEL}"]
        if images[1:]:
            words += [f"vblk_modules={image.MODULES_LABEL}"]
        if self._root == "virtio-blk":
            words += ["root=/dev/vda", "rw", "init=/usr/sbin/agent"]
            options += qemu.root_disk_options(self._slots.transport,
                                              image.root_with_agent(), self.cpus)
        else:
            initramfs = self.directory / "initramfs"
            image.initramfs(initramfs, self.kernel, ours=self._our_module(),
                            stock=self._stock_module(),
                            tools=self._root == "initramfs")
            options += ["-initrd", initramfs]
        if images:
            options += qemu.scsi_options(self._slots.transport, images,
                                         self._layers)
        if self.kernel.builtin:
            words += [f"virtio_blk.{word}" for word in self._params.split()]
        return [*options, "-append", " ".join([*words, self._cmdline])]

    def _our_module(self):
        if self.kernel.builtin:
            return None
        if isinstance(self._driver, Path):
            return self._driver
        return kernels.build_modules(self.kernel) if self._driver == "ours" \
            else None

    def _stock_module(self):
        return None if self.kernel.builtin else kernels.stock_module(self.kernel)

    def _load_first_driver(self):
        if self.kernel.builtin or self._driver is None:
            self.check_log()
        elif self._driver == "stock":
            self.load_stock(self._params)
        else:
            self.load(self._params)

    def _await_agent(self):
        """Wait until the guest is up, unless it panics or QEMU ends."""
        limit = time.monotonic() + self._boot_timeout
        size, silence = 0, limit
        while self._agent.release is None:
            try:
                self._pump(_TICK)
            except QemuDied as death:
                if self._process.returncode:
                    raise
                raise BootFailed(f"the guest did not come up: {death}") from None
            if "Kernel panic" in self._log.tail():
                time.sleep(1)
                raise BootFailed("the guest panicked while it came up:\n"
                                 + self._log.tail(60))
            if self._log.size() > size:
                size = self._log.size()
                silence = time.monotonic() + _BOOT_SILENCE
            if time.monotonic() > min(limit, silence):
                what = "was not up within %s s" % self._boot_timeout \
                    if limit < silence else \
                    f"said nothing for {_BOOT_SILENCE} s while it came up"
                raise BootHung(
                    f"the guest {what}; the last lines of its "
                    f"console:\n{self._log.tail()}"
                    + self._pending_interrupts())
        self.release = self._agent.release

    def _pump(self, timeout):
        self._ask(lambda: self._agent.pump(timeout))

    def _ask(self, question):
        """Do something that takes a living QEMU."""
        if self._process is None:
            raise GuestError("the guest is not running")
        try:
            return question()
        except EOFError:
            process.end(self._process, timeout=5)
        status = self._process.returncode
        why = "" if status else " (the guest restarted or switched itself off)"
        raise QemuDied(
            f"QEMU ended with status {status}{why}; it said:\n"
            f"{self._stderr()}\nand the guest's console:\n{self._log.tail()}")

    def _stderr(self):
        """Return what QEMU and the disks' servers have written."""
        text = "".join(path.read_text(errors="replace")
                       for path in sorted(self.directory.glob("*.log")))
        lines = text.strip().splitlines()[-20:]
        return "\n".join(f"    {line}" for line in lines) or "    (nothing)"

    def _wait(self, task, check):
        limit = None if task.limit is None else \
            task.started + task.limit + _GRACE
        while task.outcome is None:
            self._pump(_TICK)
            self.check_log()
            if limit is not None and time.monotonic() > limit:
                task.end("silent", None)
        self.check_log()
        if task.outcome != "exit":
            raise self._timeout(task)
        if check and task.result.status:
            raise CommandFailed(
                f"status {task.result.status} from: {task.command}\n"
                + _tail(task.result.output), task.result)
        return task.result

    def _timeout(self, task):
        """Return the exception for a task that did not end."""
        said = _tail(task.result.output)
        text = f"within {task.limit} s did not end: {task.command}\n{said}"
        if task.outcome == "stuck":
            text += f"\nit cannot be killed; the log:\n{self._log.tail()}\n" \
                    "and the tasks that are blocked:\n" + self.blocked_tasks()
        elif task.outcome == "silent":
            text += ("\nthe guest itself gives no answer; the last lines of "
                     f"its console:\n{self._log.tail()}")
        return CommandTimeout(text + self._pending_interrupts(), task.result)

    def _pending_interrupts(self):
        """Tell which interrupts its CPUs have not ended, or not begun with.

        An idle guest has none.  Where I/O hangs they tell whether an interrupt
        is lost, or a CPU that QEMU has forgotten (see qemu.FLAW).
        """
        if self.arch.foreign:
            return ""
        found = []
        for cpu in range(self.cpus):
            with contextlib.suppress(GuestError):
                text = self.qmp("human-monitor-command",
                                **{"command-line": f"info lapic {cpu}"})
                found += [f"    CPU {cpu}: {line.strip()}"
                          for line in text.splitlines()
                          if re.match(r"(ISR|IRR)\s+\d", line)]
        return "\ninterrupts in service (ISR) and pending (IRR):\n" + \
            ("\n".join(found) or "    none")


def _tail(output, lines=30):
    found = output.strip().splitlines()[-lines:]
    return "\n".join(f"    {line}" for line in found) or "    (no output)"
