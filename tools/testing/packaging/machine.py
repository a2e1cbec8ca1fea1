# SPDX-License-Identifier: GPL-2.0
"""A machine with a Debian system of its own on /dev/vda: systemd, GCC, DKMS.

    with Machine() as machine:
        print(machine.step("uname -r; findmnt /"))
        machine.step("dpkg -i *.deb", packages)

Unlike a vm.guest.Guest, a Machine boots its own kernel and initramfs, those that
/vmlinuz and /initrd.img name, and keeps the data written to its disk.  Each step
boots, runs a script when systemd is up, and shuts down.
"""

import hashlib
import re
import shutil
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Self

from host import cache, debian, deps, process
from host.ui import step
from vm import kernels, qemu, qemu_dist
from vm.agent import Result
from vm.errors import BootHung, CommandFailed, GuestSplat
from vm.klog import KernelLog

SUITES = ("bookworm", "bookworm-updates", "bookworm-security")
PACKAGES = ("dkms", "e2fsprogs", "fio", "initramfs-tools", "iproute2", "kmod",
            "linux-headers-cloud-amd64", "linux-image-cloud-amd64", "openssl",
            "pahole", "systemd-sysv", "udev", "zstd")
_NOT_NEEDED = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*")
_MIB = 4096
_CMDLINE = ("root=/dev/vda", "rw", "console=ttyS0", "loglevel=7", "panic=-1",
            "mitigations=off", "random.trust_cpu=on", "watchdog_thresh=60",
            "rcupdate.rcu_cpu_stall_timeout=300")

_RUNNER = """\
#!/bin/sh
exec >/dev/ttyS1 2>&1
mkdir -p /run/step
mount -o ro LABEL=vblk-step /run/step
cd /run/step
sh -eu ./script
echo "status $?"
systemctl --no-block poweroff 2>/dev/null
"""
_SERVICE = """\
[Unit]
Description=A step of a test
After=local-fs.target systemd-udev-settle.service

[Service]
ExecStart=/usr/local/sbin/vblk-step
# Some programs, for example lsinitramfs, expect SIGPIPE when a pipe breaks.
IgnoreSIGPIPE=no

[Install]
WantedBy=multi-user.target
"""
# Strong compression of an initramfs takes long on an emulated CPU.
_QUICK = "COMPRESS=zstd\nCOMPRESSLEVEL=1\n"


def _run(*argv: str | Path) -> str:
    """Run a program of the host; return its output, which must be a success."""
    program, *words = map(str, argv)
    result = subprocess.run([deps.which(program) or program, *words],
                            text=True, stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert result.returncode == 0, f"{argv}:\n{result.stdout}"
    return result.stdout


def make_disk(image: Path, tree: Path, mib: int, label: str) -> None:
    """Make an ext4 image of a directory; root owns all files in it."""
    _run("mke2fs", "-q", "-t", "ext4", "-L", label, "-m", "0", "-E",
         "root_owner=0:0", "-d", tree, image, f"{mib}M")


def add_runner(tree: Path) -> None:
    """Add the service that runs a Machine's steps to a directory tree."""
    runner = tree / "usr/local/sbin/vblk-step"
    units = tree / "etc/systemd/system"
    wanted = units / "multi-user.target.wants"
    for directory in (runner.parent, wanted):
        directory.mkdir(parents=True, exist_ok=True)
    runner.write_text(_RUNNER)
    runner.chmod(0o755)
    (units / "vblk-step.service").write_text(_SERVICE)
    (wanted / "vblk-step.service").symlink_to("../vblk-step.service")


def system() -> Path:
    """Return the path of the system's disk image; the first call makes it."""
    def build(directory: Path) -> None:
        tree = directory / "tree"
        tarball = directory / "root.tar"
        sources = directory / "sources.list"
        sources.write_text(debian.sources(SUITES))
        with step("making a Debian system with DKMS"):
            _run("mmdebstrap", "--quiet", "--variant=apt",
                 f"--include={','.join(PACKAGES)}",
                 *(f"--dpkgopt=path-exclude={path}" for path in _NOT_NEEDED),
                 SUITES[0], tarball, sources)
            tree.mkdir()
            _run("tar", "-x", "--no-same-owner", "--exclude=./dev/*",
                 "-f", tarball, "-C", tree)
            (tree / "etc/fstab").write_text("/dev/vda / ext4 defaults 0 1\n")
            (tree / "etc/initramfs-tools/conf.d/quick").write_text(_QUICK)
            add_runner(tree)
            make_disk(directory / "root.ext4", tree, _MIB, "root")
            _run("chmod", "-R", "u+rwX", tree)
            shutil.rmtree(tree)
        tarball.unlink()
        sources.unlink()

    deps.need("vm", "archive")
    text = "\0".join((*PACKAGES, *_NOT_NEEDED, _RUNNER, _SERVICE, _QUICK))
    name = f"system-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    return cache.populate(name, build, mib=4000) / "root.ext4"


def kernel_packages(series: str) -> list[Path]:
    """Return the .debs of a Debian 12 kernel, e.g. "6.12", and of its headers."""
    def build(directory: Path) -> None:
        def download() -> None:
            debian.download(kernels._packages(
                rf"linux-image-{re.escape(series)}\.\d[^-]*-cloud-amd64"), directory)

        with step(f"getting the packages of Linux {series}"):
            debian.current(download)

    return sorted(cache.populate(f"debs-{series}", build, mib=200).glob("*.deb"))


class Machine:
    """A machine, to use in a with block.

    image: the disk image, which is copied; cpus: the number of CPUs.
    """

    def __init__(self, image: Path | None = None, cpus: int = 2):
        self._image = image
        self._cpus = cpus

    def __enter__(self) -> Self:
        self._directory = process.work_directory()
        self._disk = self._directory / "root.ext4"
        _run("cp", "--sparse=always", self._image or system(), self._disk)
        return self

    def __exit__(self, *_: object) -> None:
        process.remove_work_directory(self._directory)

    def step(self, script: str, files: Iterable[Path] = (), cmdline: str = "",
             timeout: float = 1800) -> str:
        """Boot, run a shell script as root, switch off; return the script's output.

        The script finds the files in its working directory.  Raises CommandFailed
        if the script fails, BootHung if the machine is not off within timeout
        seconds, GuestSplat if its kernel logs a splat.
        """
        self._make_step_disk(script, files)
        console, output = (self._directory / name for name in ("console", "output"))
        for file in (console, output):
            file.unlink(missing_ok=True)
        log = KernelLog(console)
        started = time.monotonic()
        machine = process.spawn(self._argv(console, output, cmdline),
                                self._directory / "qemu.log")
        try:
            machine.wait(timeout)
        except subprocess.TimeoutExpired:
            raise BootHung(f"the machine was not off after {timeout} s; it wrote:\n"
                           f"{self._read(output)}\nits console:\n{log.tail(40)}"
                           ) from None
        finally:
            process.end(machine)
        self.seconds = time.monotonic() - started
        self.log = log.text()
        return self._judge(self._read(output), log)

    def _judge(self, output: str, log: KernelLog) -> str:
        found = re.search(r"^status (\d+)\n", output, re.MULTILINE)
        if splat := log.new_splat():
            raise GuestSplat(f"the machine's kernel logged a splat:\n{splat}")
        if not found:
            raise BootHung(f"the machine went off before the step ended; it wrote:\n"
                           f"{output}\nits console:\n{log.tail(40)}")
        result = Result(output[:found.start()], int(found[1]), self.seconds)
        if result.status:
            raise CommandFailed(f"the step failed with status {result.status}:\n"
                                f"{result.output}", result)
        return result.output

    def _read(self, output: Path) -> str:
        return output.read_text(errors="replace").replace("\r", "") \
            if output.exists() else ""

    def _make_step_disk(self, script: str, files: Iterable[Path]) -> None:
        tree = self._directory / "step"
        shutil.rmtree(tree, ignore_errors=True)
        tree.mkdir()
        (tree / "script").write_text(script)
        for file in files:
            shutil.copy(file, tree)
        size = sum(file.stat().st_size for file in tree.iterdir()) >> 20
        image = self._directory / "step.ext4"
        image.unlink(missing_ok=True)
        make_disk(image, tree, size + 32, "vblk-step")

    def _extract(self, name: str) -> Path:
        """Copy the file that a link in the system's root names; return the copy."""
        status = _run("debugfs", "-R", f"stat /{name}", self._disk)
        target = re.search(r'link dest: "(.+)"', status)
        assert target, f"/{name} is no link:\n{status}"
        copy = self._directory / name
        _run("debugfs", "-R", f"dump /{target[1]} {copy}", self._disk)
        return copy

    def _argv(self, console: Path, output: Path, cmdline: str) -> list[str | Path]:
        kernel = kernels.find("6.12")
        words = [*_CMDLINE, *qemu.clock_words(kernel), cmdline]
        argv: list[str | Path] = [
            *qemu_dist.find(), "-name", "machine", "-nodefaults",
            "-no-user-config", "-display", "none", "-no-reboot",
            *qemu.machine_options(kernel.arch, "q35", self._cpus, None, 1, 2048,
                                  False, "qboot"),
            *qemu.accelerator_options(kernel.arch, [], parallel=False),
            "-serial", f"file:{console}", "-serial", f"file:{output}",
            "-kernel", self._extract("vmlinuz"),
            "-initrd", self._extract("initrd.img"),
            "-append", " ".join(words)]
        for name, path in (("root", self._disk),
                           ("step", self._directory / "step.ext4")):
            argv += ["-drive", f"if=none,id={name},format=raw,cache=unsafe,"
                               f"file={path}",
                     "-device", f"virtio-blk-pci,drive={name},serial={name},"
                                f"num-queues={self._cpus},disable-legacy=on"]
        return argv
