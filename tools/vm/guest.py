# SPDX-License-Identifier: GPL-2.0
"""A guest: a Linux system in QEMU with virtio-blk disks, for tests and measurements.

    with Guest("6.12", disks=[Disk("data", queues=4)]) as guest:
        print(guest.run("lsblk").output)

All times are in seconds.  Use a guest from one thread only, which must not end
before the guest does.
"""

import contextlib
import os
import re
import shlex
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from host import deps, process, repository
from host.ui import UserError, say

from . import gcov, image, kernels, qemu, qemu_dist, sysrq
from .agent import Agent, Result, Task
from .disk import Disk, Options, make_qcow2
from .errors import (BootFailed, BootHung, CommandFailed, CommandTimeout, GuestError,
                     GuestSplat, QemuDied, QemuRefused, QmpError)
from .klog import KernelLog
from .qmp import Message, Qmp

_Answer = TypeVar("_Answer")

ROOTS = ("scsi", "virtio-blk", "initramfs")

# Other work on the host takes CPU time from emulated CPUs, so the kernel's watchdogs
# have long timeouts.  Mitigations of CPU vulnerabilities are off: they do not
# affect what is tested, and cost time.
_CMDLINE = ("loglevel=7", "mitigations=off", "no_console_suspend",
            "random.trust_cpu=on", "watchdog_thresh=60", "sysrq_always_enabled",
            "rcupdate.rcu_cpu_stall_timeout=300",
            "workqueue.watchdog_thresh=300")

# To a QEMU on the same host the state is sent without a limit of the bandwidth.  The
# downtime in ms is long enough to send the memory of a busy guest.
_MIGRATION = {"max-bandwidth": 1 << 40, "downtime-limit": 2000}

_TICK = 0.25
# How long after a command's time limit the host waits for the agent's answer.
_GRACE = 20
_REFUSAL_SECONDS = 60
# A booting guest hangs if its console prints nothing for so many seconds.
_BOOT_SILENCE = 120


class Job:
    """A command that runs in the guest."""

    def __init__(self, guest: "Guest", task: Task):
        self._guest = guest
        self._task = task

    @property
    def running(self) -> bool:
        """Whether the command still runs."""
        self._guest._pump(0)
        return self._task.outcome is None

    @property
    def output(self) -> str:
        """The command's output so far."""
        return self._task.output.decode(errors="replace")

    def kill(self) -> None:
        """Kill the command's process group; wait() then returns status None."""
        self._guest._agent.kill(self._task)

    def wait(self, check: bool = True) -> Result:
        """Wait until the command ends and return its Result.

        Raises CommandFailed if check is set and the status is not 0,
        CommandTimeout if the command was killed, GuestSplat if the kernel
        logged an error or warning meanwhile.
        """
        return self._guest._wait(self._task, check)


@dataclass(frozen=True)
class _Qemu:
    """A running QEMU; agent is the socket connected to the guest's agent."""
    argv: list[str | Path]
    process: subprocess.Popen[bytes]
    agent: socket.socket
    qmp: Qmp


class Guest:
    """A guest, which boots at the beginning of a with block.

    kernel: a vm.kernels.Kernel, or a name or path for vm.kernels.find().
    cpus, maxcpus: the number of CPUs at boot, and the largest possible number.
    nodes: the number of NUMA nodes that CPUs and memory are spread over.
    memory: in MiB.
    machine: "q35", "pc", or "microvm", which has virtio-mmio and no PCI; vm.arch
        lists those of other architectures.
    disks: the virtio-blk disks, see vm.disk.Disk.
    driver: "ours", "stock" (the in-tree driver), the path of a virtio_blk.ko, or
        None to load no driver.
    params: the driver's module parameters, as on insmod's command line.
    cmdline: more words for the kernel's command line.
    root: "scsi" for Debian on a virtio-scsi disk, which the driver does not serve,
        on the host's architecture only;
        "virtio-blk" for Debian on /dev/vda without an initramfs, for kernels with
        our driver built in; "initramfs" for busybox only, which boots fastest.
    shared: use shared memory, which vhost-user disks added later need.
    firmware: "qboot", or "seabios" for guests that suspend to memory, because only
        SeaBIOS can resume them.
    iommu: put an emulated IOMMU in front of the devices that use it.
    parallel: under TCG, emulate each CPU in its own thread instead of all CPUs in
        one thread; None uses PARALLEL.  Set it to False for guests whose devices are
        plugged, unplugged or suspended under I/O (see qemu.FLAW).
    movable: the guest can be moved to another QEMU by migrate() or
        save_and_restore().
    boot_timeout: the time limit until the agent answers.
    qemu_args: more arguments for QEMU.

    A guest that has booted has boot_seconds, release (the kernel's), and directory
    (where the guest's files are).
    """

    PARALLEL = True

    def __init__(self, kernel: kernels.Kernel | str | Path, *, cpus: int = 4,
                 maxcpus: int | None = None, nodes: int = 1, memory: int = 1024,
                 machine: str | None = None, disks: Sequence[Disk] = (),
                 driver: str | Path | None = "ours", params: str = "",
                 cmdline: str = "", root: str = "scsi", shared: bool = False,
                 firmware: str = "qboot", iommu: bool = False,
                 parallel: bool | None = None, movable: bool = False,
                 boot_timeout: float | None = None, qemu_args: Iterable[str] = ()):
        if driver == "ours":
            # Before a download, after which no module could be built.
            repository.check_own_name()
        self.kernel = kernels.find(kernel) if isinstance(kernel, (str, Path)) \
            else kernel
        if root not in ROOTS:
            raise UserError(f"root is {root!r}; it must be one of {', '.join(ROOTS)}")
        if root == "virtio-blk" and not self.kernel.builtin:
            raise UserError('root="virtio-blk" needs a kernel with the driver '
                            f"built in, and {self.kernel.name} has it as a module; "
                            "choose KERNEL=7.3")
        if driver == "stock" and self.kernel.builtin:
            raise UserError(f"{self.kernel.name} has our driver built in; for the "
                            "in-tree driver choose a kernel with modules, such as "
                            "KERNEL=6.12")
        self.arch = self.kernel.arch
        if self.arch.foreign and root != "initramfs":
            raise UserError(f"{self.kernel.name} supports root=\"initramfs\" only, "
                            f"and root is {root!r}; use `make check-arch`, or choose "
                            "KERNEL=6.12")
        self.cpus = cpus
        self.machine = machine or self.arch.machines[0]
        self.disks = {disk.id: disk for disk in disks}
        if len(self.disks) < len(disks):
            raise UserError("two disks of a guest have the same id")
        # The console's device, and the root file system's.
        qemu.check_disks(self.machine, len(self.disks), 1 + (root != "initramfs"))
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
        # Whether the guest hung and was booted again, with all CPUs on one thread.
        self.hung = False
        self._movable = movable
        self._boot_timeout = boot_timeout or 240 + 6 * cpus
        self._qemu_args = list(qemu_args)
        self._process: subprocess.Popen[bytes] | None = None
        self._directory: Path | None = None

    @property
    def directory(self) -> Path:
        """Where the guest's files are."""
        if self._directory is None:
            raise GuestError("the guest is not running")
        return self._directory

    @property
    def _running_qemu(self) -> subprocess.Popen[bytes]:
        """The process of QEMU."""
        if self._process is None:
            raise GuestError("the guest is not running")
        return self._process

    # Boot and shutdown

    def __enter__(self) -> Self:
        self.boot()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        if error is None:
            self.close()
            return
        splat = self._log.new_splat()
        if splat:
            error.add_note(f"The guest's kernel log has:\n{splat}")
        self._collect_counters()
        self._end()

    def boot(self) -> None:
        """Boot the guest and load the driver."""
        self._directory = process.work_directory()
        self._log = KernelLog(self._directory / "console")
        try:
            for disk in self.disks.values():
                disk.prepare(self.directory, self.cpus)
            self._switch_on()
        except BaseException:
            self._end()
            raise

    def _switch_on(self) -> None:
        """Start QEMU, again if a bug in QEMU stops it, and load the driver."""
        for last in (False, False, True):
            try:
                self._start_qemu()
                started = time.monotonic()
                self._await_agent()
                break
            except QemuDied as death:
                if last or qemu.FLAW not in str(death):
                    raise
                say("  QEMU exited because of a known bug in QEMU; booting again")
            except BootHung as hang:
                # The cause can be our driver only if it is built in, and QEMU
                # only if the CPUs have several threads.
                if last or self.kernel.builtin and not self._parallel:
                    raise
                self._parallel = False
                self.hung = True
                say(f"  {hang}\n  This can be a known bug in QEMU's emulator (see "
                    "Documentation/testing.rst); booting again with all CPUs on one "
                    "thread")
        self.boot_seconds = time.monotonic() - started
        if self._root == "initramfs":
            self.run(image.INSTALL_TOOLS)
        self.load_first_driver()

    def close(self, quit: bool = True) -> None:
        """Stop the guest; raise GuestSplat if its kernel logged an error or warning.

        quit: ask QEMU to quit first; otherwise kill it.
        """
        if self._process is None:
            return
        try:
            self.check_log()
            self._collect_counters()
            if quit:
                self.qmp("quit")
                process.end(self._process, timeout=10)
        finally:
            self._end()

    def _end(self) -> None:
        """Stop QEMU and the disks' servers, and remove the guest's files."""
        if self._process:
            process.end(self._process)
            self._process = None
        for disk in self.disks.values():
            disk.release()
        if self._directory:
            process.remove_work_directory(self._directory)
            self._directory = None

    def reboot(self) -> None:
        """Reboot the guest in a new QEMU with the same disks.

        The driver chosen for the guest is loaded again.  Mounted file systems are
        synced, but not unmounted; changes to the root file system are lost.
        """
        self._restart("reboot", self._agent.reboot)

    def power_cycle(self) -> None:
        """Power the guest off, without a sync; the rest is as in reboot()."""
        self._restart("power off", lambda: self._agent.run(
            "busybox poweroff -n -f", None))

    def _restart(self, what: str, request: Callable[[], object]) -> None:
        self.check_log()
        self._collect_counters()
        self._ask(request)
        try:
            self._running_qemu.wait(timeout=180)
        except subprocess.TimeoutExpired:
            raise GuestError(f"the guest did not {what} within 180 s; the end of its "
                             f"console:\n{self._log.tail()}") from None
        self.check_log()
        self._switch_on()

    def follow_kexec(self, script: str, panics: bool = False,
                     tools: bool = False) -> None:
        """Run a script that starts another kernel in the same machine; wait for it.

        All running commands are forgotten, and no driver is loaded.
        panics: the old kernel panics first; tools: the new one has no root file system.
        """
        self.check_log()
        self._collect_counters()
        self._ask(lambda: self._agent.run(script, None))
        self._ask(self._agent.await_next)
        self._await_agent(panics)
        if tools:
            self.run(image.INSTALL_TOOLS)

    def suspend(self, seconds: float = 1, meanwhile: Callable[[], object] | None = None,
                limit: float | None = None) -> Result:
        """Suspend the guest to idle; after some seconds resume it.

        meanwhile: a function called once, while the guest sleeps; limit: the time
        limit of suspend and resume together.

        The power button wakes the guest, because an RTC alarm, as set by rtcwake,
        wakes a guest of QEMU from S3 only.
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

    # Migration

    def migrate(self, timeout: float = 300) -> None:
        """Migrate the running guest to another QEMU on this host.

        Both have the same disks.  Commands in the guest continue.  Raises GuestError
        if the migration takes longer than timeout seconds.
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
        process.end(self._running_qemu)
        self._follow(moved)

    def save_and_restore(self, timeout: float = 300) -> None:
        """Save the guest's state to a file, stop QEMU, and restore it in another.

        Otherwise the same as migrate().
        """
        self._prepare_move()
        where = f"file:{self.directory}/state"
        self.qmp("stop")
        self._send_state(where, timeout)
        process.end(self._running_qemu)
        moved = self._spawn_qemu("-incoming", "defer")
        moved.qmp.command("migrate-incoming", {"uri": where}, timeout)
        self._follow(moved)
        # The saved state is "stopped", so "cont" works only after it was loaded.
        if not process.wait_for(lambda: self.qmp("query-status")["status"]
                                != "inmigrate", timeout):
            raise GuestError("QEMU did not restore the guest's state within "
                             f"{timeout} s; its output:\n{self._stderr()}")
        self.qmp("cont")

    def _prepare_move(self) -> None:
        if not self._movable:
            raise UserError("the guest cannot be moved; create it with movable=True")
        if list(self.disks) != self._first_disks:
            raise UserError("the guest cannot be moved, because disks were added or "
                            "removed since it booted; reboot it first")
        # After this answer no message to the agent is in transit.
        self.run("true")
        self.qmp("migrate-set-parameters", **_MIGRATION)

    def _send_state(self, where: str, timeout: float) -> None:
        """Send the guest's state and wait until the migration is complete."""
        self.qmp("migrate", uri=where)
        limit = time.monotonic() + timeout
        while (found := self.qmp("query-migrate"))["status"] != "completed":
            if found["status"] in ("failed", "cancelled"):
                raise GuestError("QEMU could not migrate the guest: "
                                 f"{found.get('error-desc', found['status'])}; "
                                 f"its output:\n{self._stderr()}")
            if time.monotonic() > limit:
                raise GuestError(f"QEMU did not migrate the guest within {timeout} s; "
                                 f"query-migrate: {found}")
            self._pump(_TICK)

    def _follow(self, moved: _Qemu) -> None:
        """Use the QEMU that the guest was moved to; the old one has exited."""
        self._agent.follow(moved.agent)
        self._process, self._qmp, self.argv = moved.process, moved.qmp, moved.argv

    def _collect_counters(self) -> None:
        """Collect the counters of executed code, if the kernel that ends has them."""
        if self._process is not None and self._agent.release is not None:
            gcov.collect(self.kernel, self._run_unwatched)

    def _run_unwatched(self, script: str, timeout: int) -> Result | None:
        """Run a script without looking at the kernel's log; None if it did not end."""
        task = self._ask(lambda: self._agent.run(script, timeout))
        limit = task.started + timeout + _GRACE
        while task.outcome is None and time.monotonic() < limit:
            self._pump(_TICK)
        return task.result if task.outcome == "exit" else None

    # Commands

    def start(self, script: str, timeout: float | None = 180) -> Job:
        """Start a shell script and return a Job.

        The agent kills its process group after timeout seconds; None is no limit.
        """
        return Job(self, self._ask(lambda: self._agent.run(script, timeout)))

    def run(self, script: str, timeout: float | None = 180,
            check: bool = True) -> Result:
        """Run a shell script in the guest as root and return its Result.

        Raises what Job.wait() does.
        """
        return self.start(script, timeout).wait(check)

    @contextlib.contextmanager
    def cleanup(self, script: str, timeout: int = 180) -> Iterator[None]:
        """Run a script at the end of a with block, however it ends.

        If the block raises an exception, an error of the script does not replace it.
        """
        try:
            yield
        except BaseException:
            with contextlib.suppress(GuestError):
                self.run(script, timeout, check=False)
            raise
        self.run(script, timeout)

    def put(self, source: bytes | str | Path, path: str, mode: int = 0o755) -> None:
        """Copy a file of the host, or bytes, to a path in the guest."""
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
        task = self._ask(lambda: self._agent.put(path, data, mode))
        self._wait(task, check=True)

    def sysfs(self, path: str) -> str:
        """Return the content of a file in the guest, without surrounding space."""
        return self.run(f"cat {shlex.quote(path)}").output.strip()

    def has_file_system(self, kind: str) -> bool:
        """Return whether the guest's kernel supports a file system, such as "xfs"."""
        return not self.run(f"modprobe -q {kind}; "
                            f"grep -qw {kind} /proc/filesystems",
                            check=False).status

    # The driver

    def load(self, params: str = "") -> None:
        """Load our driver."""
        self.run(f"insmod /run/vblk/virtio_blk.ko {params}", timeout=120)

    def load_stock(self, params: str = "") -> None:
        """Load the in-tree driver."""
        self.run(f"insmod /run/vblk/stock/virtio_blk.ko {params}", timeout=120)

    def unload(self) -> None:
        """Unload our driver or the in-tree driver."""
        self.run("rmmod virtio_blk", timeout=120)

    # Disks

    def dev(self, id: str, timeout: float = 60) -> str:
        """Return a disk's name in the guest, such as "vda".

        Waits up to timeout seconds for the disk to appear.
        """
        limit = time.monotonic() + timeout
        while True:
            if name := self.find_dev(id):
                return name
            if time.monotonic() > limit:
                raise GuestError(f"disk {id} did not appear in the guest within "
                                 f"{timeout} s")
            time.sleep(0.1)

    def find_dev(self, id: str) -> str | None:
        """Return a disk's name in the guest now, None if the guest has no such disk."""
        address = self._pci_address(self.disks[id])
        return self._at_address(address) if address else \
            self._with_serial(self.disks[id].serial)

    def _at_address(self, address: str) -> str | None:
        """Return the name of the disk at or behind a PCI address, or None."""
        found = re.search(rf"(vd\w+) -> \S*/{address}/",
                          self.run("ls -l /sys/block").output)
        return found[1] if found else None

    def _with_serial(self, serial: str) -> str | None:
        """Return the name of the disk with a serial number, or None."""
        found = re.search(rf"^(vd\w+)/serial:{re.escape(serial)}$", self.run(
            "cd /sys/block; grep -H . vd*/serial; true").output, re.MULTILINE)
        return found[1] if found else None

    def _pci_address(self, disk: Disk) -> str | None:
        """Return the PCI address of a disk or its port, None without PCI."""
        if self._slots.transport != "pci":
            return None
        if address := self._slots.address(disk):
            return address
        found = self.qmp("qom-get", path=f"/machine/peripheral/{disk.id}",
                         property="addr")
        return f"0000:00:{found >> 3:02x}.{found & 7}"

    def disk_path(self, id: str) -> Path | None:
        """Return the host's file that backs a disk; None for the null backend."""
        return self.disks[id].file

    def add_disk(self, disk: Disk) -> None:
        """Plug in a disk."""
        if disk.backend == "vhost-user" and not self._shared:
            raise UserError(f"disk {disk.id}: vhost-user needs shared memory; create "
                            "the guest with shared=True")
        if disk.id in self.disks:
            raise UserError(f"the guest has a disk {disk.id} already; use another id")
        disk.prepare(self.directory, self.cpus)
        self.disks[disk.id] = disk
        undo: list[tuple[str, Options]] = []
        try:
            self._plug(disk, undo)
        except BaseException:
            for command, arguments in reversed(undo):
                self.qmp(command, **arguments)
            self._forget(disk)
            raise

    def _plug(self, disk: Disk, undo: list[tuple[str, Options]]) -> None:
        """Add a disk to QEMU; append to undo the command that reverts each step."""
        def step(command: str, arguments: Options, back: str,
                 **back_arguments: Any) -> None:
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

    def remove_disk(self, id: str, timeout: float = 60) -> None:
        """Unplug a disk; the guest must release it within timeout seconds."""
        disk = self.disks[id]
        if not self._unplug(id, timeout):
            raise GuestError(f"the guest did not release disk {id} within {timeout} s; "
                             f"the end of its console:\n{self._log.tail()}")
        for node in reversed(disk.block_nodes()):
            self.qmp("blockdev-del", **{"node-name": node["node-name"]})
        for item in disk.objects():
            self.qmp("object-del", id=item["id"])
        if chardev := disk.chardev():
            self.qmp("chardev-remove", id=chardev["id"])
        self._forget(disk)
        self.check_log()

    def _unplug(self, id: str, timeout: float) -> bool:
        """Request the removal of a device again and again until it is gone.

        The guest loses a request that arrives while it still enables the slot.
        """
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            self.request_unplug(id)
            if self.wait_event("DEVICE_DELETED", 5, device=id):
                return True
        return False

    def request_unplug(self, id: str) -> None:
        """Ask the guest to release a disk, without waiting for it.

        QEMU sends the event DEVICE_DELETED when the guest has released it.
        """
        try:
            self.qmp("device_del", id=id)
        except QmpError as error:
            # The removal is pending, or has just completed.
            if not re.search("unplug|not found", str(error)):
                raise

    def plug_again(self, id: str) -> None:
        """Plug in the disk of an earlier request_unplug() again, with its data."""
        disk = self.disks[id]
        self.qmp("device_add", **disk.device(self._slots.transport),
                 **self._slots.place(disk))

    def slot(self, id: str) -> str:
        """Return the sysfs directory of a disk's PCI port."""
        return f"/sys/devices/pci0000:00/{self._slots.address(self.disks[id])}"

    def _forget(self, disk: Disk) -> None:
        self._slots.give_back(disk)
        disk.release()
        del self.disks[disk.id]

    def resize_disk(self, id: str, size: int) -> None:
        """Change a disk's size, in bytes; the device notifies the guest."""
        if self.disks[id].backend not in ("ram", "raw", "qcow2"):
            raise UserError(f"disk {id}: QEMU cannot resize the backend "
                            f"{self.disks[id].backend}; use ram, raw or qcow2")
        self.qmp("block_resize", **{"node-name": id, "size": size})

    # Time

    def kept_waiting(self) -> Callable[[], float]:
        """Return a function that returns how long QEMU has had no CPU since this call.

        In seconds: the longest run-queue wait of a QEMU thread, which is one that
        emulates CPUs, plus the largest steal time of a host CPU, if the host is a
        guest itself.
        """
        def waited() -> float:
            most = 0
            for thread in Path(f"/proc/{self._running_qemu.pid}/task").glob(
                    "*/schedstat"):
                # The threads that do a disk's I/O can exit at any time.
                with contextlib.suppress(OSError):
                    most = max(most, int(thread.read_text().split()[1]))
            return most / 1e9

        def stolen() -> list[float]:
            lines = Path("/proc/stat").read_text().splitlines()
            return [int(line.split()[8]) / os.sysconf("SC_CLK_TCK")
                    for line in lines if re.match(r"cpu\d", line)]

        waited_before, stolen_before = waited(), stolen()
        return lambda: waited() - waited_before + max(
            now - before for now, before in zip(stolen(), stolen_before))

    def clock(self) -> Callable[[], float]:
        """Return a clock, in seconds, that stops while QEMU has no CPU."""
        waited = self.kept_waiting()
        return lambda: time.monotonic() - waited()

    def pump(self) -> None:
        """Handle the agent's messages; raise GuestSplat as check_log() does."""
        self._pump(0)
        self.check_log()

    # QMP

    def qmp(self, command: str, /, **arguments: Any) -> Any:
        """Run a QMP command and return its result.

        Arguments whose names are not Python identifiers go into a dictionary:
        qmp("block_resize", **{"node-name": ...}).
        """
        return self._ask(lambda: self._qmp.command(command, arguments))

    def wait_event(self, name: str, timeout: float = 30,
                   **data: object) -> Message | None:
        """Return the next QMP event of a name whose data has these values.

        Returns None if it does not arrive within timeout seconds.
        """
        return self._ask(lambda: self._qmp.event(
            name, lambda found: data.items() <= found.items(), timeout))

    # The kernel's log

    def log(self) -> str:
        """Return what the guest's kernel has logged since it booted."""
        return self._log.text()

    def blocked_tasks(self) -> str:
        """Return the kernel's log of blocked tasks and of held locks.

        The host sends SysRq keys to the serial console, so this works while all of
        user space hangs.  If the kernel does not answer there, the agent writes to
        /proc/sysrq-trigger.  Only a kernel with lockdep knows which locks are held.
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
        return said or "    (the kernel did not answer SysRq)"

    def log_since(self, start: int) -> str:
        """Return the log without its first start bytes."""
        return self._log.since(start)

    def log_size(self) -> int:
        """Return the size of the log in bytes."""
        return self._log.size()

    def check_log(self) -> None:
        """Raise GuestSplat if the kernel logged a splat since the last call."""
        splat = self._log.new_splat()
        if splat:
            raise GuestSplat(f"the guest's kernel logged an error or warning:\n{splat}")

    def tolerate(self, pattern: str) -> None:
        """From now on ignore splats whose first line matches a pattern."""
        self._log.tolerate(pattern)

    # Implementation

    def _start_qemu(self) -> None:
        if self._process:
            process.end(self._process)
        started = self._spawn_qemu()
        self._process, self._qmp, self.argv = \
            started.process, started.qmp, started.argv
        self._agent: Agent = Agent(started.agent)

    def _spawn_qemu(self, *more: str) -> _Qemu:
        """Start a QEMU and return a _Qemu.

        more: further arguments for a QEMU that another guest's state moves to; it
        has the same disks and kernel.
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

    def _make_layers(self) -> None:
        """Create qcow2 files for what a movable guest writes to the system's disks.

        Other guests use QEMU's snapshot=on, whose files vanish with the QEMU.
        """
        self._layers: list[Path] = []
        for number, lower in enumerate(self._images() if self._movable else ()):
            layer = self.directory / f"layer{number}"
            make_qcow2(layer, "-b", lower, "-F", "raw", layer)
            self._layers.append(layer)

    def _images(self) -> list[Path]:
        """Return the images of the system's disks; guests never change them."""
        if self._root != "scsi":
            return []
        modules = image.modules(self.kernel)
        return [image.root(), *([modules] if modules else [])]

    def _argv(self, agent: int, qmp: int) -> list[str | Path]:
        transport = self._slots.transport
        argv: list[str | Path] = [
            *self._emulator(), "-name", "vblk", "-nodefaults",
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

    def _emulator(self) -> list[str]:
        if not self.arch.foreign:
            return qemu_dist.find()
        self.arch.need()
        return [deps.path_of(self.arch.emulator)]

    def _boot_options(self) -> list[str | Path]:
        """Return QEMU's options for kernel, initramfs and the system's disks."""
        words = [*self.arch.cmdline, *_CMDLINE, *qemu.clock_words(self.kernel)]
        kernel = self.kernel.bootable()
        if self._firmware == "seabios" and self.kernel.bzimage:
            kernel = self.kernel.bzimage
        options: list[str | Path] = ["-kernel", kernel]
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

    def _our_module(self) -> Path | None:
        if self.kernel.builtin:
            return None
        if isinstance(self._driver, Path):
            return self._driver
        return kernels.driver(self.kernel) if self._driver == "ours" else None

    def _stock_module(self) -> Path | None:
        return None if self.kernel.builtin else kernels.stock_module(self.kernel)

    def load_first_driver(self) -> None:
        """Load the driver chosen for the guest."""
        if self.kernel.builtin or self._driver is None:
            self.check_log()
        elif self._driver == "stock":
            self.load_stock(self._params)
        else:
            self.load(self._params)

    def _await_agent(self, panics: bool = False) -> None:
        """Wait until the agent answers; raise an error on a panic or a timeout.

        panics: a panic is the last kernel's, and starts this one.
        """
        limit = time.monotonic() + self._boot_timeout
        size, silence = 0, limit
        while self._agent.release is None:
            try:
                self._pump(_TICK)
            except QemuDied as death:
                if self._running_qemu.returncode:
                    raise
                raise BootFailed(f"the guest did not boot: {death}") from None
            if "Kernel panic" in self._log.tail() and not panics:
                time.sleep(1)
                raise BootFailed("the guest panicked while it booted:\n"
                                 + self._log.tail(60))
            if self._log.size() > size:
                size = self._log.size()
                silence = time.monotonic() + _BOOT_SILENCE
            if time.monotonic() > min(limit, silence):
                what = "did not boot within %s s" % self._boot_timeout \
                    if limit < silence else \
                    f"printed nothing for {_BOOT_SILENCE} s while it booted"
                raise BootHung(
                    f"the guest {what}; the end of its "
                    f"console:\n{self._log.tail()}"
                    + self._pending_interrupts())
        self.release = self._agent.release

    def _pump(self, timeout: float) -> None:
        self._ask(lambda: self._agent.pump(timeout))

    def _ask(self, question: Callable[[], _Answer]) -> _Answer:
        """Call question(); raise QemuDied if QEMU has exited."""
        running = self._running_qemu
        try:
            return question()
        except EOFError:
            process.end(running, timeout=5)
        status = running.returncode
        why = "" if status else " (the guest rebooted or powered off)"
        raise QemuDied(
            f"QEMU exited with status {status}{why}; its output:\n"
            f"{self._stderr()}\nthe end of the guest's console:\n{self._log.tail()}")

    def _stderr(self) -> str:
        """Return the last lines of output of QEMU and the disks' servers."""
        text = "".join(path.read_text(errors="replace")
                       for path in sorted(self.directory.glob("*.log")))
        lines = text.strip().splitlines()[-20:]
        return "\n".join(f"    {line}" for line in lines) or "    (nothing)"

    def _wait(self, task: Task, check: bool) -> Result:
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

    def _timeout(self, task: Task) -> CommandTimeout:
        """Return the exception for a task that timed out."""
        said = _tail(task.result.output)
        text = f"timed out after {task.limit} s: {task.command}\n{said}"
        if task.outcome == "stuck":
            text += "\nthe command cannot be killed; the end of the log:\n" \
                    f"{self._log.tail()}\nblocked tasks:\n" + self.blocked_tasks()
        elif task.outcome == "silent":
            text += ("\nthe guest's agent does not answer; the end of the guest's "
                     f"console:\n{self._log.tail()}")
        return CommandTimeout(text + self._pending_interrupts(), task.result)

    def _pending_interrupts(self) -> str:
        """Return the interrupts in service or pending on each CPU, as text.

        An idle guest has none.  If I/O hangs, they show whether an interrupt was
        lost, or whether QEMU lost a CPU's end of interrupt (see qemu.FLAW).
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


def _tail(output: str, lines: int = 30) -> str:
    found = output.strip().splitlines()[-lines:]
    return "\n".join(f"    {line}" for line in found) or "    (no output)"
