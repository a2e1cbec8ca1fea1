# SPDX-License-Identifier: GPL-2.0
"""The architectures of guests.

Guests are amd64 unless the kernel's name ends with another architecture, such as
6.12-s390x.  Such guests are emulated, and their programs and modules are built with
Debian's cross compilers.
"""

from dataclasses import dataclass

from host import deps


@dataclass(frozen=True)
class Arch:
    """An architecture.

    name: Debian's name for it.
    flavour: the last part of the names of Debian's kernel packages.
    kbuild: the kernel's name for it.
    triplet: GNU's, the first part of the cross compiler's name.
    emulator: QEMU's program.
    cpu: the CPU that QEMU emulates.
    machines: the possible machines, the default first; see vm.qemu.
    cmdline: the first words of the kernel's command line.
    """
    name: str
    flavour: str
    kbuild: str
    triplet: str
    emulator: str
    cpu: str
    machines: tuple[str, ...]
    cmdline: tuple[str, ...]

    @property
    def foreign(self) -> bool:
        """Whether it differs from the host's architecture."""
        return self != AMD64

    @property
    def make(self) -> list[str]:
        """The arguments for make that select the architecture."""
        return [f"ARCH={self.kbuild}", f"CROSS_COMPILE={self.triplet}-"] \
            if self.foreign else []

    @property
    def compiler(self) -> str:
        """The C compiler for programs of the architecture."""
        return f"{self.triplet}-gcc" if self.foreign else "gcc"

    def need(self) -> None:
        """Install the compiler, the C library and the emulator if missing."""
        deps.need(self.name)


AMD64 = Arch(
    name="amd64", flavour="cloud-amd64", kbuild="x86",
    triplet="x86_64-linux-gnu", emulator="qemu-system-x86_64", cpu="max,la57=off",
    machines=("q35", "pc", "microvm"),
    cmdline=("console=ttyS0", "tsc=reliable", "no_timer_check",
             "pcie_port_pm=off"))

# Big-endian, with devices on the channel subsystem.  Load few modules in such a guest:
# when several are loaded one after the other, QEMU 7.2 sometimes runs the first
# instructions of an unloaded module instead of those of the last one.
S390X = Arch(
    name="s390x", flavour="s390x", kbuild="s390", triplet="s390x-linux-gnu",
    emulator="qemu-system-s390x", cpu="qemu", machines=("s390-ccw-virtio",),
    cmdline=("console=ttyS1",))

# Not a later CPU, because the emulation of pointer authentication is slow.
ARM64 = Arch(
    name="arm64", flavour="cloud-arm64", kbuild="arm64",
    triplet="aarch64-linux-gnu", emulator="qemu-system-aarch64",
    cpu="cortex-a57", machines=("virt", "virt-mmio"),
    cmdline=("console=ttyAMA0",))

ALL = (AMD64, S390X, ARM64)


def of(name: str) -> Arch:
    """Return the architecture at the end of a kernel's or package's name."""
    return next((arch for arch in ALL if name.endswith(f"-{arch.name}")), AMD64)
