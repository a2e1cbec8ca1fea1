# SPDX-License-Identifier: GPL-2.0
"""An unmodified QEMU inside a guest, with the generic vDPA device of a vhost-vdpa node.

    with Guest(kernel, disks=[...], qemu_args=vdpa.qemu_args() + nested_qemu.qemu_args()):
        vdpa.prepare(guest)
        nested_qemu.prepare(guest)
        with vdpa.Device(guest, "back", bus="vhost_vdpa") as device:
            ended = nested_qemu.boot_sector(guest, device.node())
            ended = nested_qemu.linux(guest, device.node())

The guest has no KVM, so this QEMU emulates what is emulated already.
"""

import hashlib
import struct
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from host import cache, deps
from vm import image, kernels, programs, qemu_dist
from vm.guest import Guest

_BOOT = Path(__file__).with_name("boot.S")
_INIT = Path(__file__).with_name("nested_init.c")
_LABEL = "nested-qemu"
# SeaBIOS, and qboot with the option ROM that starts an ELF kernel.
_FIRMWARE = ("share/seabios/bios-256k.bin", "share/qemu/kvmvapic.bin",
             "share/qemu/qboot.rom", "share/qemu/pvh.bin")
_TOOLS = "/tmp/nested"
_OUT = "/tmp/nested.out"
_KERNEL = "/tmp/nested.kernel"
_INITRAMFS = "/tmp/nested.initramfs"
_QEMU = (f"{_TOOLS}/run qemu-system-x86_64 -L {_TOOLS} -nodefaults -no-user-config "
         "-display none -no-reboot -accel tcg")

# With icount the time stamp counter has 1 GHz of the guest's own time.  The kernel need not
# measure that, nor wait for timers to see that they work.
_CMDLINE = ("earlyprintk=ttyS0", "console=ttyS0", "panic=-1", "tsc_early_khz=1000000",
            "lpj=10000000", "tsc=reliable", "no_timer_check", "io_delay=none")

SECTOR = 512
# See boot.S.
_FACTOR = 0x9e3779b1
OK = 33


@dataclass(frozen=True)
class Area:
    """A part of the disk that a program in the nested guest uses, in sectors."""
    first: int
    sectors: int

    def content(self) -> bytes:
        """Return what it must contain after the program has written it."""
        first = self.first * SECTOR // 4
        return struct.pack(f"<{self.sectors * SECTOR // 4}I", *(
            number * _FACTOR & 0xffffffff
            for number in range(first, first + self.sectors * SECTOR // 4)))

    def digest(self) -> str:
        """Return the SHA-256 of its content."""
        return hashlib.sha256(self.content()).hexdigest()


BOOT_AREA = Area(2048, 64 * 16)
# What Linux reads, and what it writes; see nested_init.c.
GIVEN_AREA = Area(4096, 512)
OWN_AREA = Area(8192, 4096)


@dataclass(frozen=True)
class Ended:
    """What a nested QEMU left.

    status: its exit status; words: what the program in the guest printed; log: what QEMU
    and the guest's kernel printed.
    """
    status: int | None
    words: str
    log: str


def tools() -> Path:
    """Return an image with Debian's QEMU and its firmware."""
    emulator = qemu_dist.find()
    # Without -L the firmware is where the host's QEMU looks for it.
    places = [Path(emulator[at + 1]).parent.parent for at, word in enumerate(emulator)
              if word == "-L"] or [Path("/usr")]
    program = emulator[:emulator.index("-L")] if "-L" in emulator else emulator

    def build(directory: Path) -> None:
        programs.pack(directory / "nested.ext4", _LABEL, 96, [program],
                      [_firmware(places, name) for name in _FIRMWARE])

    number = ".".join(map(str, qemu_dist.version(emulator)))
    return cache.populate(f"{_LABEL}-{number}", build, mib=200) / "nested.ext4"


def _firmware(places: list[Path], name: str) -> Path:
    """Return the path of a firmware file below one of the places."""
    (found,) = {place / name for place in places if (place / name).exists()}
    return found


def qemu_args() -> list[str]:
    """Return arguments of the outer QEMU, for a guest that gets the nested one."""
    return ["-drive", f"if=none,id=nested,format=raw,snapshot=on,file={tools()}",
            "-device", "scsi-hd,drive=nested,lun=6"]


def prepare(guest: Guest) -> None:
    """Mount the nested QEMU in a guest that vdpa.prepare() has prepared."""
    guest.run(f"mkdir {_TOOLS} && mount -r LABEL={_LABEL} {_TOOLS}")


def boot_image() -> bytes:
    """Return the boot sector, assembled."""
    deps.need({"as": "binutils", "ld": "binutils", "gcc": "gcc"})
    with tempfile.TemporaryDirectory() as directory:
        source, objects, linked = (Path(directory, f"boot{end}")
                                   for end in (".s", ".o", ""))
        steps: tuple[tuple[str, list[str | Path]], ...] = (
            ("gcc", ["-E", "-P", "-o", source, _BOOT]),
            ("as", ["--32", "-o", objects, source]),
            ("ld", ["-m", "elf_i386", "-Ttext", "0x7c00", "--oformat", "binary",
                    "-o", linked, objects]))
        for program, words in steps:
            subprocess.run([deps.path_of(program), *words], check=True)
        return linked.read_bytes()


def _run(guest: Guest, node: str, words: str, timeout: int) -> Ended:
    """Run QEMU with a vhost-vdpa node; what the nested guest prints goes to a file.

    words: more of QEMU's arguments, with a character device `out`; timeout: in seconds,
    after which the status is 124.
    """
    # vhost-vdpa counts the nested guest's memory as locked, for root as well.
    done = guest.run(f"rm -f {_OUT}; ulimit -l unlimited; timeout {timeout} "
                     f"{_QEMU} {words} -chardev file,id=out,path={_OUT} "
                     f"-device vhost-vdpa-device-pci,vhostdev={node} 2>&1",
                     timeout=timeout + 60, check=False)
    return Ended(done.status, guest.run(f"cat {_OUT}").output, done.output)


def boot_sector(guest: Guest, node: str, machine: str) -> Ended:
    """Boot the sector that the disk begins with, by SeaBIOS, and return how it ended."""
    return _run(guest, node,
                f"-machine {machine} -m 64 -device isa-debugcon,iobase=0xe9,chardev=out "
                "-device isa-debug-exit,iobase=0xf4", timeout=300)


def linux(guest: Guest, node: str, cpus: int) -> Ended:
    """Boot Linux with our driver and nested_init.c, and return how it ended.

    The guest's clock counts its instructions, of 32 ns each (icount).  By the host's
    clock a timer could expire again before the guest has handled it.  If an instruction
    is shorter, a loop of the kernel that waits for a time takes more of them.
    """
    kernel = kernels.find(kernels.NESTED)
    guest.put(kernel.bootable(), _KERNEL)
    with tempfile.TemporaryDirectory() as directory:
        initramfs = Path(directory, "initramfs")
        image.initramfs_of(initramfs, image.program(_INIT, kernel.arch))
        guest.put(initramfs, _INITRAMFS)
    words = " ".join((*_CMDLINE, *(
        f"{name}={area.first}:{area.sectors}"
        for name, area in (("given", GIVEN_AREA), ("own", OWN_AREA)))))
    return _run(guest, node,
                f"-machine pc -bios qboot.rom -m 64 -smp {cpus} -icount shift=5 "
                f"-kernel {_KERNEL} -initrd {_INITRAMFS} -append '{words}' "
                "-serial stdio -serial chardev:out", timeout=1800)
