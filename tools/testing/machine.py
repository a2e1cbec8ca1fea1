# SPDX-License-Identifier: GPL-2.0
"""A machine with a Debian system of its own on /dev/vda: systemd, GCC, DKMS.

    with Machine() as machine:
        print(machine.step("uname -r; findmnt /"))
        machine.step("dpkg -i *.deb", packages)

Unlike a vm.guest.Guest it boots its own kernel and initramfs, the ones that
/vmlinuz and /initrd.img name, and keeps what is written to its disk.  Each step
is a boot, a script that runs when systemd has come up, and a shutdown.
"""

import hashlib
import re
import shutil
import subprocess
import time

from vm import cache, debian, host, kernels, process, qemu, qemu_dist
from vm.agent import Result
from vm.errors import BootHung, CommandFailed, GuestSplat
from vm.klog import KernelLog
from vm.ui import step

SUITES = ("bookworm", "bookworm-updates", "bookworm-security")
PACKAGES = ("dkms", "e2fsprogs", "fio", "initramfs-tools", "kmod",
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
# lsinitramfs for one expects that a pipe can break.
IgnoreSIGPIPE=no

[Install]
WantedBy=multi-user.target
"""
# An emulated CPU takes long to make an initramfs small.
_QUICK = "COMPRESS=zstd\nCOMPRESSLEVEL=1\n"


def _run(*argv):
    """Run a program of the host; return its output or fail with it."""
    result = subprocess.run([host.which(argv[0]) or argv[0], *map(str, argv[1:])],
                            text=True, stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert result.returncode == 0, f"{argv}:\n{result.stdout}"
    return result.stdout


def make_disk(image, tree, mib, label):
    """Make an ext4 image of what is in a directory, all of it root's."""
    _run("mke2fs", "-q", "-t", "ext4", "-L", label, "-m", "0", "-E",
         "root_owner=0:0", "-d", tree, image, f"{mib}M")


def add_runner(tree):
    """Add to a system, or to an empty directory, what runs a Machine's steps."""
    runner = tree / "usr/local/sbin/vblk-step"
    units = tree / "etc/systemd/system"
    wanted = units / "multi-user.target.wants"
    for directory in (runner.parent, wanted):
        directory.mkdir(parents=True, exist_ok=True)
    runner.write_text(_RUNNER)
    runner.chmod(0o755)
    (units / "vblk-step.service").write_text(_SERVICE)
    (wanted / "vblk-step.service").symlink_to("../vblk-step.service")


def system():
    """Return the path of the system's disk image, which is made once."""
    def build(directory):
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

    host.need("vm", "archive")
    text = "\0".join((*PACKAGES, *_NOT_NEEDED, _RUNNER, _SERVICE, _QUICK))
    name = f"system-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    return cache.populate(name, build, mib=4000) / "root.ext4"


def kernel_packages(series):
    """Return the .debs of a kernel of Debian 12, as in "6.12", and its headers."""
    def build(directory):
        def download():
            debian.download(kernels._packages(
                rf"linux-image-{re.escape(series)}\.\d[^-]*-cloud-amd64"), directory)

        with step(f"getting the packages of Linux {series}"):
            debian.current(download)

    return sorted(cache.populate(f"debs-{series}", build, mib=200).glob("*.deb"))


class Machine:
    """A machine, to be used in a with block.

    image: of its disk, which is copied; cpus: how many.
    """

    def __init__(self, image=None, cpus=2):
        self._image = image
        self._cpus = cpus

    def __enter__(self):
        self._directory = process.work_directory()
        self._disk = self._directory / "root.ext4"
        _run("cp", "--sparse=always", self._image or system(), self._disk)
        return self

    def __exit__(self, *_):
        shutil.rmtree(self._directory, ignore_errors=True)

    def step(self, script, files=(), cmdline="", timeout=1800):
        """Boot, run a shell script as root, switch off; return what it wrote.

        files are in its working directory.  Raises CommandFailed if it fails,
        BootHung if the machine is not off within timeout seconds, GuestSplat if
        its kernel complained.
        """
        self._make_step_disk(script, files)
        console, output = (self._directory / name for name in ("console", "output"))
        for log in (console, output):
            log.unlink(missing_ok=True)
        log = KernelLog(console)
        started = time.monotonic()
        machine = process.spawn(self._argv(console, output, cmdline),
                                self._directory / "qemu.log")
        try:
            machine.wait(timeout)
        except subprocess.TimeoutExpired:
            raise BootHung(f"the machine was not off after {timeout} s; it wrote:\n"
                           f"{self._said(output)}\nits console:\n{log.tail(40)}"
                           ) from None
        finally:
            process.end(machine)
        self.seconds = time.monotonic() - started
        self.log = log.text()
        return self._judge(self._said(output), log)

    def _judge(self, said, log):
        found = re.search(r"^status (\d+)\n", said, re.MULTILINE)
        if splat := log.new_splat():
            raise GuestSplat(f"the machine's kernel complained:\n{splat}")
        if not found:
            raise BootHung(f"the machine did not get as far as the step; it wrote:\n"
                           f"{said}\nits console:\n{log.tail(40)}")
        result = Result(said[:found.start()], int(found[1]), self.seconds)
        if result.status:
            raise CommandFailed(f"the step failed with status {result.status}:\n"
                                f"{result.output}", result)
        return result.output

    def _said(self, output):
        return output.read_text(errors="replace").replace("\r", "") \
            if output.exists() else ""

    def _make_step_disk(self, script, files):
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

    def _extract(self, name):
        """Copy a file of the system, by the link to it in its root, and return it."""
        said = _run("debugfs", "-R", f"stat /{name}", self._disk)
        target = re.search(r'link dest: "(.+)"', said)[1]
        copy = self._directory / name
        _run("debugfs", "-R", f"dump /{target} {copy}", self._disk)
        return copy

    def _argv(self, console, output, cmdline):
        kernel = kernels.find("6.12")
        words = [*_CMDLINE, *qemu.clock_words(kernel), cmdline]
        argv = [*qemu_dist.find(), "-name", "machine", "-nodefaults",
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
