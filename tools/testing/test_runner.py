# SPDX-License-Identifier: GPL-2.0
"""The guest runner itself, on the kernel's own driver.

Whatever goes wrong in a guest must come out as what it is, and nothing may
be left behind.
"""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vm import kernels, klog, process, qemu
from vm.disk import BACKENDS, Disk
from vm.errors import (BootFailed, CommandFailed, CommandTimeout, GuestError,
                       GuestSplat, QemuDied, QemuRefused, QmpError)
from vm.guest import Guest
from vm.ui import UserError

KERNEL = "6.12"
MIB = 1 << 20
BOOT_LIMIT = 90


def quick(**options):
    """Return a guest with nothing but busybox, which is up soonest."""
    return Guest(KERNEL, **{"root": "initramfs", "cpus": 1, "memory": 512,
                            "driver": None, **options})


@pytest.fixture(scope="module")
def guest():
    disks = [Disk(backend, backend, 64 * MIB, queues=2) for backend in BACKENDS]
    with Guest(KERNEL, driver="stock", disks=disks) as guest:
        yield guest


@pytest.fixture(scope="module")
def small():
    with quick(cpus=2) as guest:
        yield guest


# Commands

def test_boot_is_quick(guest):
    """Some ten seconds, and several times that where the host is slow and busy.

    A guest that had to measure its clock, or to wait for a disk, takes minutes.
    """
    assert guest.boot_seconds < BOOT_LIMIT


def test_output_and_status(guest):
    result = guest.run("echo out; echo err >&2; exit 3", check=False)
    assert (result.output, result.status) == ("out\nerr\n", 3)
    assert result.seconds < 5


def test_status_of_a_killed_command(guest):
    assert guest.run("kill -9 $$", check=False).status == 128 + signal.SIGKILL


def test_failed_command_shows_itself(guest):
    with pytest.raises(CommandFailed, match="(?s)status 1 from.*oh dear") as caught:
        guest.run("echo oh dear; false")
    assert caught.value.result.status == 1


def test_much_output(guest):
    assert guest.run("seq 300000").output.split() == \
        [str(number) for number in range(1, 300001)]


def test_time_limit_ends_all_that_was_started(guest):
    started = time.monotonic()
    with pytest.raises(CommandTimeout, match="(?s)did not end.*begun") as caught:
        guest.run("echo begun; sleep 1234 & sleep 1234", timeout=1)
    assert time.monotonic() - started < 10
    assert caught.value.result.status is None
    assert guest.run("pgrep -f 'sleep 123[4]'", check=False).status == 1


def test_commands_side_by_side(guest):
    jobs = [guest.start(f"sleep 1; echo {number}") for number in range(8)]
    assert guest.run("echo between").output == "between\n"
    assert all(job.running for job in jobs)
    assert [job.wait().output for job in jobs] == [f"{n}\n" for n in range(8)]
    assert not jobs[0].running


def test_job_can_be_killed(guest):
    job = guest.start("echo started; sleep 1234", timeout=None)
    assert process.wait_for(lambda: job.running and job.output, timeout=10)
    job.kill()
    with pytest.raises(CommandTimeout):
        job.wait()


def test_files(guest, tmp_path):
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


def test_messages_that_make_no_sense(small):
    for nonsense in (b"what?\n", b"run x y z\n", b"\0" * 20000 + b"\n",
                     b"run 1 1 999999999999\n", b"kill 4711\n"):
        small._agent._send(nonsense)
    assert small.run("echo still here").output == "still here\n"


def test_unkillable_command(guest):
    """One that waits for a file system to thaw."""
    guest.run(f"mkfs.ext4 -q /dev/{guest.dev('ram')} && "
              f"mount /dev/{guest.dev('ram')} /mnt && fsfreeze -f /mnt")
    with pytest.raises(CommandTimeout,
                       match=r"(?s)cannot be killed.*task:touch +state:D"):
        guest.run("echo before; touch /mnt/file; echo after", timeout=1)
    guest.run("fsfreeze -u /mnt; while pgrep touch; do sleep 0.1; done; "
              "umount /mnt")


def test_blocked_tasks_without_agent(guest, monkeypatch):
    """A task that is blocked is reported by the kernel, with no help of the agent."""
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
    assert "loop" in guest.run("modprobe loop && lsmod").output
    assert guest.run("uname -r").output.strip() == guest.release


def test_driver_can_be_changed(guest):
    guest.unload()
    assert guest.run("ls /sys/block/ | grep -c vd", check=False).output == "0\n"
    guest.load_stock("num_request_queues=1")
    assert guest.run("ls /sys/block/vda/mq").output.split() == ["0"]
    guest.unload()
    guest.load_stock()


def test_plug_and_unplug(guest):
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


def test_resize(guest):
    name = guest.dev("raw")
    for size in (96 * MIB, 64 * MIB):
        guest.resize_disk("raw", size)
        assert process.wait_for(lambda: guest.sysfs(
            f"/sys/block/{name}/size") == str(size // 512), timeout=10)
    with pytest.raises(UserError, match="cannot resize"):
        guest.resize_disk("null", size)


def test_suspend(guest):
    entries = guest.log().count("PM: suspend exit")
    guest.suspend(seconds=1)
    assert guest.log().count("PM: suspend exit") == entries + 1
    assert guest.run("echo awake").output == "awake\n"


def test_restart(guest):
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
    with quick(machine="microvm", driver="stock",
               disks=[Disk("one"), Disk("two", queues=1)]) as guest:
        assert {guest.dev("one"), guest.dev("two")} == {"vda", "vdb"}
        assert "virtio-mmio" in guest.run("readlink -f /sys/block/vda").output \
            or "LNRO0005" in guest.run("readlink -f /sys/block/vda").output


def test_old_kernel_with_two_nodes_and_a_legacy_disk():
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


# What goes wrong

def test_qemu_refuses_an_option():
    with pytest.raises(QemuRefused, match="no-such-option"):
        with quick(disks=[Disk("disk", no_such_option=1)]):
            pass
    with pytest.raises(QemuRefused, match="(?s)storage-daemon.*[Cc]ould not open"):
        with quick(disks=[Disk("disk", "nbd", path="/proc/self")]):
            pass


def test_bad_arguments():
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
    kernel = kernels.find(KERNEL)
    image = bytearray(kernel.image.read_bytes())
    image[MIB:] = os.urandom(len(image) - MIB)
    (tmp_path / "image").write_bytes(image)
    fields = {**vars(kernel), "image": tmp_path / "image"}
    with pytest.raises(BootFailed, match="not up within 4 s|did not come up"):
        with Guest(kernels.Kernel(**fields), root="initramfs", driver=None,
                   boot_timeout=4):
            pass


def test_guest_that_panics_while_it_comes_up():
    with pytest.raises(BootFailed, match="(?s)panicked.*Unable to mount root"):
        with quick(cmdline="rdinit=/none init=/none"):
            pass


def test_qemu_that_dies():
    with pytest.raises(QemuDied, match="status -11"):
        with quick() as guest:
            job = guest.start("sleep 100")
            guest._process.send_signal(signal.SIGSEGV)
            with pytest.raises(QemuDied, match="(?s)status -11.*Run /init"):
                job.wait()
            guest.run("true")


def test_guest_that_switches_itself_off():
    with pytest.raises(QemuDied, match="switched itself off"):
        with quick() as guest:
            guest.run("poweroff -f")


def test_panic():
    with pytest.raises(GuestSplat, match="(?s)Kernel panic.*Call Trace"):
        with quick() as guest:
            started = time.monotonic()
            try:
                guest.run("echo c > /proc/sysrq-trigger")
            finally:
                assert time.monotonic() - started < 10


def test_splats_fail_whoever_uses_the_guest(small):
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
            guest.start("sleep 0.2;" + complain("BUG: by itself"))
            time.sleep(2)


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
UBSAN: shift-out-of-bounds in drivers/block/virtio_blk/config.c:1:2
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


def test_patterns(tmp_path, monkeypatch):
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


# What is left behind

_CHILD = """
import signal, sys, time
from vm.disk import Disk
from vm.guest import Guest
# A shell starts what it runs in the background with SIGINT ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
with Guest("6.12", root="initramfs", driver=None, cpus=1, memory=512,
           disks=[Disk("disk", "nbd")]) as guest:
    print(guest.directory, flush=True)
    time.sleep(600)
"""


def _processes(directory):
    """Return the ids of the processes that have a directory's files open."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            links = [os.readlink(link) for link in (entry / "fd").iterdir()]
        except OSError:
            continue
        if any(link.startswith(f"{directory}/") for link in links):
            found.append(int(entry.name))
    return found


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_outlives_its_runner(how):
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
        process.work_directory().rmdir()
    assert not directory.exists()


def test_nothing_is_left_by_a_guest_that_failed():
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
    shell = subprocess.run(
        [sys.executable, "-m", "vm.shell", "--stock", "--disk",
         "ram,queues=2,logical_block_size=4096"],
        input="cat /sys/block/vda/queue/logical_block_size; exit 7", text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=300)
    assert (shell.stdout, shell.returncode) == ("4096\n", 7), shell.stderr


# The time that tests have

def _run_tests(**environment):
    """Run some quick tests in a pytest of its own."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q",
         Path(__file__).with_name("test_wallclock.py"), "-k", "interval"],
        env={**os.environ, "PYTEST_ADDOPTS": "", **environment}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def test_time_that_is_up():
    """What begins too late is skipped, and the last lines say so."""
    result = _run_tests(MINUTES="1", VBLK_TESTS_END="0")
    assert result.returncode == 0, result.stdout
    assert re.search(r"\n([1-9]\d*) tests were not begun: MINUTES=1 were up.*"
                     r"\n\1 skipped", result.stdout, re.DOTALL), result.stdout
    assert "passed" not in result.stdout.splitlines()[-1]


def test_unknown_kernel():
    """A KERNEL that there is not is told of once, before any test."""
    result = _run_tests(KERNEL="5.4.nonsense")
    assert result.returncode == 4
    assert result.stdout.count("KERNEL is '5.4.nonsense'; known are 6.1, 6.12") == 1


@pytest.mark.parametrize("minutes", ("0", "-1", "soon", "1.5", "100000"))
def test_bad_minutes(minutes):
    # Within a run that has MINUTES itself, that is what counts.
    result = _run_tests(MINUTES=minutes, VBLK_TESTS_END="")
    assert result.returncode == 4
    assert f"MINUTES is '{minutes}', and must be" in result.stdout
