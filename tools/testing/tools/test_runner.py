# SPDX-License-Identifier: GPL-2.0
"""The guest runner itself, on the in-tree driver.

Each failure in a guest must raise the exception that names it, and no process or file
may be left behind.
"""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from host import process
from host.ui import UserError
from testing import tier
from vm import kernels, klog, qemu
from vm.disk import BACKENDS, Disk
from vm.errors import (BootFailed, CommandFailed, CommandTimeout, GuestError,
                       GuestSplat, QemuDied, QemuRefused, QmpError)
from vm.guest import Guest

KERNEL = "6.12"
MIB = 1 << 20
BOOT_LIMIT = 90


def quick(**options):
    """Return a guest with only busybox, which boots fastest."""
    return Guest(KERNEL, **{"root": "initramfs", "cpus": 1, "memory": 512,
                            "driver": None, **options})


@pytest.fixture(scope="module")
def guest():
    """A guest with a disk on each backend."""
    disks = [Disk(backend, backend, 64 * MIB, queues=2) for backend in BACKENDS]
    with Guest(KERNEL, driver="stock", disks=disks) as guest:
        yield guest


@pytest.fixture(scope="module")
def small():
    """A guest with only busybox."""
    with quick(cpus=2) as guest:
        yield guest


# Commands

def test_boot_is_quick(guest):
    """A guest boots within BOOT_LIMIT seconds.

    Booting takes some ten seconds, and several times that on a slow and busy host.  A
    guest that calibrates its clock or waits for a disk takes minutes.
    """
    assert guest.boot_seconds < BOOT_LIMIT


def test_output_and_status(guest):
    """run() returns stdout, stderr and the status of a command."""
    result = guest.run("echo out; echo err >&2; exit 3", check=False)
    assert (result.output, result.status) == ("out\nerr\n", 3)
    assert result.seconds < 5


def test_status_of_a_killed_command(guest):
    """A command that a signal killed has status 128 plus the signal."""
    assert guest.run("kill -9 $$", check=False).status == 128 + signal.SIGKILL


def test_failed_command_shows_itself(guest):
    """A failed command raises CommandFailed with its status and output."""
    with pytest.raises(CommandFailed, match="(?s)status 1 from.*oh dear") as caught:
        guest.run("echo oh dear; false")
    assert caught.value.result.status == 1


def test_much_output(guest):
    """run() returns all of a large output."""
    assert guest.run("seq 300000").output.split() == \
        [str(number) for number in range(1, 300001)]


def test_time_limit_ends_all_that_was_started(guest):
    """A command that times out is killed with its background jobs."""
    started = time.monotonic()
    with pytest.raises(CommandTimeout, match="(?s)timed out.*begun") as caught:
        guest.run("echo begun; sleep 1234 & sleep 1234", timeout=1)
    assert time.monotonic() - started < 10
    assert caught.value.result.status is None
    assert guest.run("pgrep -f 'sleep 123[4]'", check=False).status == 1


def test_commands_side_by_side(guest):
    """Commands run in parallel, and each has its own output."""
    jobs = [guest.start(f"until [ -e /tmp/end ]; do sleep 0.5; done; echo {number}")
            for number in range(8)]
    with guest.cleanup("rm -f /tmp/end"):
        assert guest.run("echo between").output == "between\n"
        assert all(job.running for job in jobs)
        guest.run("touch /tmp/end")
        assert [job.wait().output for job in jobs] == [f"{n}\n" for n in range(8)]
        assert not jobs[0].running


def test_job_can_be_killed(guest):
    """kill() ends a job, and wait() then raises CommandTimeout."""
    job = guest.start("echo started; sleep 1234", timeout=None)
    assert process.wait_for(lambda: job.running and job.output, timeout=10)
    job.kill()
    with pytest.raises(CommandTimeout):
        job.wait()


def test_put_files(guest, tmp_path):
    """put() copies files of any size, mode and name, and fails without a directory."""
    data = os.urandom(3 * MIB)
    (tmp_path / "data").write_bytes(data)
    guest.put(tmp_path / "data", "/tmp/the data", mode=0o600)
    guest.put(b"#!/bin/sh\necho mine\n", "/tmp/program")
    assert guest.run("wc -c < '/tmp/the data'; stat -c %a '/tmp/the data'; "
                     "/tmp/program").output.split() == \
        [str(len(data)), "600", "mine"]
    with pytest.raises(CommandFailed):
        guest.put(b"", "/no/such/directory")
    assert guest.sysfs("/sys/kernel/mm/transparent_hugepage/enabled")


def test_agent_malformed_messages(small):
    """The agent ignores malformed messages and keeps working."""
    for nonsense in (b"what?\n", b"run x y z\n", b"\0" * 20000 + b"\n",
                     b"run 1 1 999999999999\n", b"kill 4711\n"):
        small._agent._send(nonsense)
    assert small.run("echo still here").output == "still here\n"


def test_unkillable_command(guest):
    """A command in a frozen file system times out, with its blocked task."""
    guest.run(f"mkfs.ext4 -q /dev/{guest.dev('ram')} && "
              f"mount /dev/{guest.dev('ram')} /mnt && fsfreeze -f /mnt")
    with pytest.raises(CommandTimeout,
                       match=r"(?s)cannot be killed.*task:touch +state:D"):
        # touch must have begun when the time is up.
        guest.run("echo before; touch /mnt/file; echo after", timeout=5)
    guest.run("fsfreeze -u /mnt; while pgrep touch; do sleep 0.1; done; "
              "umount /mnt")


def test_blocked_tasks_without_agent(guest, monkeypatch):
    """The kernel reports a blocked task without the help of the agent."""
    name = guest.dev("ram")
    guest.run(f"mkfs.ext4 -q -F /dev/{name} && mount /dev/{name} /mnt && "
              "fsfreeze -f /mnt")
    job = guest.start("touch /mnt/file", timeout=None)
    guest.run("until ps -o stat= -C touch | grep -q D; do sleep 0.1; done")
    with monkeypatch.context() as patch:
        patch.delattr(type(guest._agent), "run")
        said = guest.blocked_tasks()
    guest.run("fsfreeze -u /mnt")
    job.wait()
    guest.run("umount /mnt")
    assert re.search(r"Show Blocked State\n.*task:touch +state:D", said, re.DOTALL)


# The machine

def test_each_backend_holds_data(guest):
    """A disk on each backend has its size and queues, and all but null keep data."""
    for backend in BACKENDS:
        name = guest.dev(backend)
        assert guest.sysfs(f"/sys/block/{name}/size") == str(64 * MIB // 512)
        assert len(guest.run(f"ls /sys/block/{name}/mq").output.split()) == 2
        text = f"written to {backend}."
        read = guest.run(
            f"printf '%-4096s' '{text}' | dd of=/dev/{name} oflag=direct bs=4k &&"
            f"dd if=/dev/{name} iflag=direct bs=4k count=1 2> /dev/null | "
            "head -c 50 | tr -d '\\0'").output
        assert (text in read) == (backend != "null")
        if backend in ("ram", "raw", "nbd", "vhost-user"):
            with open(guest.disk_path(backend), "rb") as file:
                assert file.read(len(text)) == text.encode()


def test_modules_are_at_hand(guest):
    """The guest can load modules of its kernel."""
    assert "loop" in guest.run("modprobe loop && lsmod").output
    assert guest.run("uname -r").output.strip() == guest.release


def test_driver_can_be_changed(guest):
    """unload() removes all disks; load_stock() adds them with new parameters."""
    guest.unload()
    assert guest.run("ls /sys/block/ | grep -c vd", check=False).output == "0\n"
    guest.load_stock("num_request_queues=1")
    assert guest.run("ls /sys/block/vda/mq").output.split() == ["0"]
    guest.unload()
    guest.load_stock()


def test_plug_and_unplug(guest):
    """A disk can be plugged and unplugged repeatedly; a bad option is a QmpError."""
    for number in range(3):
        guest.add_disk(Disk("extra", "qcow2", 32 * MIB, queues=2, iothreads=2))
        name = guest.dev("extra")
        assert guest.sysfs(f"/sys/block/{name}/size") == str(32 * MIB // 512)
        guest.remove_disk("extra")
        assert guest.run(f"ls /sys/block/{name}", check=False).status
    with pytest.raises(QmpError, match="no-such-property"):
        guest.add_disk(Disk("extra", "raw", no_such_property=1))
    guest.add_disk(Disk("extra"))
    guest.remove_disk("extra")


def test_resize_disk_of_guest(guest):
    """A disk's size in the guest follows resize_disk(); null cannot be resized."""
    name = guest.dev("raw")
    for size in (96 * MIB, 64 * MIB):
        guest.resize_disk("raw", size)
        assert process.wait_for(lambda: guest.sysfs(
            f"/sys/block/{name}/size") == str(size // 512), timeout=10)
    with pytest.raises(UserError, match="cannot resize"):
        guest.resize_disk("null", size)


def test_suspend(guest):
    """suspend() suspends and resumes the guest once, and its agent works."""
    entries = guest.log().count("PM: suspend exit")
    guest.suspend(seconds=1)
    assert guest.log().count("PM: suspend exit") == entries + 1
    assert guest.run("echo awake").output == "awake\n"


def test_restart(guest):
    """A restart keeps disks and the log, and clears /run."""
    name = guest.dev("ram")
    guest.run(f"echo kept | dd of=/dev/{name} oflag=sync")
    guest.run("touch /run/gone")
    before = guest.log()
    guest.reboot()
    assert guest.run(f"head -c 4 /dev/{guest.dev('ram')}").output == "kept"
    assert guest.run("ls /run/gone", check=False).status
    # A guest that hung in its boot may have been started more than once.
    assert guest.log().startswith(before)
    assert "Linux version" in guest.log()[len(before):]


def test_microvm():
    """The microvm machine has disks on virtio-mmio."""
    with quick(machine="microvm", driver="stock",
               disks=[Disk("one"), Disk("two", queues=1)]) as guest:
        assert {guest.dev("one"), guest.dev("two")} == {"vda", "vdb"}
        assert "virtio-mmio" in guest.run("readlink -f /sys/block/vda").output \
            or "LNRO0005" in guest.run("readlink -f /sys/block/vda").output


def test_old_kernel_with_two_nodes_and_a_legacy_disk():
    """6.1 boots with two NUMA nodes, packed rings and a legacy disk."""
    disks = [Disk("new", "ram", packed=True, logical_block_size=4096),
             Disk("old", legacy=True)]
    with Guest("6.1", driver="stock", nodes=2, disks=disks) as guest:
        assert guest.run("ls -d /sys/devices/system/node/node* | wc -l").output \
            == "2\n"
        assert guest.sysfs(f"/sys/block/{guest.dev('new')}"
                           "/queue/logical_block_size") == "4096"
        device = guest.run("readlink -f /sys/block/"
                           f"{guest.dev('old')}/device").output.strip()
        assert guest.sysfs(f"{device}/features")[32] == "0"


# Failures

def test_qemu_refuses_an_option():
    """An option that QEMU or its storage daemon refuses raises QemuRefused."""
    with pytest.raises(QemuRefused, match="no-such-option"):
        with quick(disks=[Disk("disk", no_such_option=1)]):
            pass
    with pytest.raises(QemuRefused, match="(?s)storage-daemon.*[Cc]ould not open"):
        with quick(disks=[Disk("disk", "nbd", path="/proc/self")]):
            pass


def test_bad_arguments():
    """Unknown backend or machine, duplicate id and built-in driver are UserErrors."""
    for disk in ({"backend": "tape"},):
        with pytest.raises(UserError, match="tape"):
            Disk("disk", **disk)
    with pytest.raises(UserError, match="pdp11"):
        with quick(machine="pdp11"):
            pass
    with pytest.raises(UserError, match="same id"):
        quick(disks=[Disk("a"), Disk("a")])
    with pytest.raises(UserError, match="built in"):
        quick(root="virtio-blk")


def test_guest_that_does_not_come_up(tmp_path):
    """A kernel that does not boot raises BootFailed after boot_timeout."""
    kernel = kernels.find(KERNEL)
    # QEMU refuses an ELF file that is damaged in this way.
    packed = kernel.modules / f"boot/vmlinuz-{kernel.release}"
    image = bytearray(packed.read_bytes())
    image[MIB:] = os.urandom(len(image) - MIB)
    (tmp_path / "image").write_bytes(image)
    fields = {**vars(kernel), "image": tmp_path / "image"}
    with pytest.raises(BootFailed, match="not boot within 4 s|did not boot:"):
        with Guest(kernels.Kernel(**fields), root="initramfs", driver=None,
                   boot_timeout=4):
            pass


def test_guest_that_panics_while_it_comes_up():
    """A panic while booting raises BootFailed with the kernel's reason."""
    with pytest.raises(BootFailed, match="(?s)panicked.*Unable to mount root"):
        with quick(cmdline="rdinit=/none init=/none"):
            pass


def test_qemu_that_dies():
    """A QEMU that is killed raises QemuDied with its signal and the end of the log."""
    with pytest.raises(QemuDied, match="status -11"):
        with quick() as guest:
            job = guest.start("sleep 100")
            guest._process.send_signal(signal.SIGSEGV)
            with pytest.raises(QemuDied, match="(?s)status -11.*Run /init"):
                job.wait()
            guest.run("true")


def test_guest_that_switches_itself_off():
    """A guest that powers off during a command raises QemuDied."""
    with pytest.raises(QemuDied, match="powered off"):
        with quick() as guest:
            guest.run("poweroff -f")


def test_panic():
    """A panic during a command raises GuestSplat with the call trace within 10 s."""
    with pytest.raises(GuestSplat, match="(?s)Kernel panic.*Call Trace"):
        with quick() as guest:
            started = time.monotonic()
            try:
                guest.run("echo c > /proc/sysrq-trigger")
            finally:
                assert time.monotonic() - started < 10


def test_splats_fail_whoever_uses_the_guest(small):
    """A splat fails the command that runs, or the guest's end."""
    def complain(text, after="true"):
        return f"echo '<4>{text}' > /dev/kmsg; {after}"

    with pytest.raises(GuestSplat, match="(?s)WARNING: CPU: 0.*\n.*next line"):
        small.run(complain("WARNING: CPU: 0 PID: 1 at kernel/nothing.c:1",
                           complain("next line")))
    with pytest.raises(GuestSplat, match="blocked for more"):
        small.run(complain("INFO: task x:1 blocked for more than 120 seconds."))
    small.run(complain("all is well"))
    small.tolerate("WARNING: .*on purpose")
    small.run(complain("WARNING: CPU: 0 PID: 1 on purpose"))
    with pytest.raises(GuestSplat, match="by itself"):
        with quick() as guest:
            # No command waits: the guest's end finds the splat.
            guest.start("sleep 0.2;" + complain("BUG: by itself", complain("the end")))
            assert process.wait_for(lambda: "the end" in guest.log(), 60)


SPLATS = """
BUG: KASAN: slab-use-after-free in virtblk_done+0x1/0x2 [virtio_blk]
BUG: unable to handle page fault for address: ffff8880000
Oops: Oops: 0002 [#1] PREEMPT SMP NOPTI
Oops: general protection fault, probably for non-canonical address
WARNING: possible circular locking dependency detected
WARNING: inconsistent lock state
WARNING: suspicious RCU usage
WARNING: drivers/block/virtio_blk/io.c:10 at virtblk_done+0x1/0x2, CPU#1: fio/12
BUG: sleeping function called from invalid context at mm/slab.h:1
BUG: scheduling while atomic: fio/12/0x00000002
UBSAN: shift-out-of-bounds in drivers/block/virtio_blk/limits.c:1:2
refcount_t: underflow; use-after-free.
list_add corruption. prev->next should be next (0), but was 1.
DMA-API: virtio-pci 0000:01:00.0: device driver frees DMA memory
INFO: task kworker/0:1:9 blocked for more than 60 seconds.
watchdog: BUG: soft lockup - CPU#1 stuck for 120s! [fio:12]
rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:
irq 24: nobody cared (try booting with the "irqpoll" option)
"""

HARMLESS = """
Kernel command line: console=ttyS0 debug_boot_weak_hash panic=1 BUG
DMA-API: preallocated 65536 debug entries
DMA-API: debugging enabled by kernel config
kasan: KernelAddressSanitizer initialized (generic)
Spectre V2 : WARNING: Unprivileged eBPF is enabled with eIBRS on
rcu: \tRCU CPU stall warnings timeout set to 300 (rcu_cpu_stall_timeout).
Running RCU self tests
debug: unmapping init memory 0xffffffff9a000000-0xffffffff9a200000
workqueue: virtblk_work hogged CPU for >10000us 4 times
blk_update_request: I/O error, dev vda, sector 0
[Firmware Bug]: TSC ADJUST differs within socket(s)
"""


def test_splat_patterns(tmp_path, monkeypatch):
    """Each line of SPLATS is a splat, and no line of HARMLESS is."""
    monkeypatch.setattr(klog, "_SETTLE", 0)

    def found(line):
        console = tmp_path / "console"
        console.write_text(f"[    1.000000] {line}\n")
        return klog.KernelLog(console).new_splat()

    for line in SPLATS.strip().splitlines():
        assert found(line), line
    for line in HARMLESS.strip().splitlines():
        assert not found(line), line


def test_qemu_that_fails_by_itself_is_started_again(monkeypatch):
    """QEMU starts again after its known flaw, with the same disks."""
    await_agent = Guest._await_agent
    failures = iter([QemuDied(qemu.FLAW)])

    def fail_once(guest):
        for failure in failures:
            raise failure
        await_agent(guest)

    monkeypatch.setattr(Guest, "_await_agent", fail_once)
    with quick(disks=[Disk("disk", "vhost-user", 4 * MIB)]) as guest:
        assert guest.run("echo up").output == "up\n"
        assert guest.disk_path("disk").stat().st_size == 4 * MIB


# Processes and files that are left behind

_CHILD = """
import signal, sys, time
from vm.disk import Disk
from vm.guest import Guest
# A shell starts background jobs with SIGINT ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
with Guest("6.12", root="initramfs", driver=None, cpus=1, memory=512,
           disks=[Disk("disk", "nbd")]) as guest:
    print(guest.directory, flush=True)
    time.sleep(600)
"""


def _processes(directory):
    """Return the ids of the processes that have files of a directory open."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            links = [os.readlink(link) for link in (entry / "fd").iterdir()]
        except OSError:
            continue
        if any(link.startswith(f"{directory}/") for link in links):
            found.append(int(entry.name))
    return found


@pytest.mark.parametrize("how", tier.usual(
    (signal.SIGKILL, signal.SIGTERM, signal.SIGINT), (signal.SIGKILL, signal.SIGINT)))
def test_nothing_outlives_its_runner(how):
    """A runner that a signal ends leaves no process and no directory."""
    runner = subprocess.Popen([sys.executable, "-c", _CHILD], text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    with runner:
        directory = Path(runner.stdout.readline().strip())
        assert len(_processes(directory)) == 2    # QEMU and the NBD server
        runner.send_signal(how)
        try:
            runner.wait(timeout=15)
        finally:
            runner.kill()
    assert process.wait_for(lambda: not _processes(directory), timeout=5)
    if how == signal.SIGKILL:
        process.remove_work_directory(process.work_directory())
    # Another worker can be removing it, with its lock held.
    assert process.wait_for(lambda: not directory.exists(), timeout=5)


def test_nothing_is_left_by_a_guest_that_failed():
    """An exception leaves no process and no directory of the guest."""
    with pytest.raises(ZeroDivisionError):
        with quick(disks=[Disk("disk", "nbd")]) as guest:
            directory = guest.directory
            assert _processes(directory)
            1 / 0
    assert not _processes(directory)
    assert not directory.exists()
    with pytest.raises(GuestError, match="not running"):
        guest.run("true")


# The shell

def test_shell_runs_a_script_from_a_pipe():
    """make shell runs a script from stdin and exits with its status."""
    shell = subprocess.run(
        [sys.executable, "-m", "run.shell", "--stock", "--disk",
         "ram,queues=2,logical_block_size=4096"],
        input="cat /sys/block/vda/queue/logical_block_size; exit 7", text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=300)
    assert (shell.stdout, shell.returncode) == ("4096\n", 7), shell.stderr


# MINUTES and KERNEL of make check

def _run_tests(**environment):
    """Run some quick tests in a pytest of its own."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q",
         Path(__file__).with_name("test_wallclock.py"), "-k", "interval"],
        env={**os.environ, "PYTEST_ADDOPTS": "", **environment}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def test_time_that_is_up():
    """Tests that would begin after MINUTES are skipped, and the last lines say so."""
    result = _run_tests(MINUTES="1", VBLK_TESTS_END="0")
    assert result.returncode == 0, result.stdout
    assert re.search(r"\n([1-9]\d*) tests were not begun: MINUTES=1 were up.*"
                     r"\n\1 skipped", result.stdout, re.DOTALL), result.stdout
    assert "passed" not in result.stdout.splitlines()[-1]


def test_unknown_kernel():
    """An unknown KERNEL is one error before any test."""
    result = _run_tests(KERNEL="5.4.nonsense")
    assert result.returncode == 4
    assert result.stdout.count("KERNEL is '5.4.nonsense', which is unknown") == 1


@pytest.mark.parametrize("minutes", ("0", "-1", "soon", "1.5", "100000"))
def test_bad_minutes(minutes):
    # In a run with MINUTES, VBLK_TESTS_END has precedence.
    """MINUTES that is no whole number in its range is an error before any test."""
    result = _run_tests(MINUTES=minutes, VBLK_TESTS_END="")
    assert result.returncode == 4
    assert f"MINUTES is '{minutes}', and must be" in result.stdout
