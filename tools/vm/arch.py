# SPDX-License-Identifier: GPL-2.0
"""Architectures: what of a guest depends on its processor.

Guests are amd64 unless their kernel's name ends in another one's, as
6.12-s390x does.  Those are emulated, and what runs in them is built with
Debian's cross compilers.
"""

from dataclasses import dataclass

from . import host


@dataclass(frozen=True)
class Arch:
    """An architecture, by Debian's name for it.

    flavour: of Debian's kernels, at the end of their packages' names.
    kbuild: the kernel's name for it.
    triplet: GNU's, with which the cross compiler's names begin.
    emulator: QEMU's program.
    cpu: that it emulates.
    machines: that guests can be, the usual one first; see vm.qemu.
    cmdline: the kernel's command line begins with these words.
    """
    name: str
    flavour: str
    kbuild: str
    triplet: str
    emulator: str
    cpu: str
    machines: tuple
    cmdline: tuple

    @property
    def foreign(self):
        """Whether it is not the host's."""
        return self != AMD64

    @property
    def make(self):
        """The words that make kbuild compile for it."""
        return [f"ARCH={self.kbuild}", f"CROSS_COMPILE={self.triplet}-"] \
            if self.foreign else []

    @property
    def compiler(self):
        """The C compiler for its programs."""
        return f"{self.triplet}-gcc" if self.foreign else "gcc"

    def need(self):
        """See to it that its compiler, C library and emulator are installed."""
        host.need(self.name)


AMD64 = Arch(
    name="amd64", flavour="cloud-amd64", kbuild="x86",
    triplet="x86_64-linux-gnu", emulator="qemu-system-x86_64", cpu="max,la57=off",
    machines=("q35", "pc", "microvm"),
    cmdline=("console=ttyS0", "tsc=reliable", "no_timer_check",
             "pcie_port_pm=off"))

# Big-endian; its devices are on the channel subsystem.  QEMU 7.2 has been seen
# to run the first instructions of a module long gone in place of those of the
# last of several that are loaded one after the other: guests load few.
S390X = Arch(
    name="s390x", flavour="s390x", kbuild="s390", triplet="s390x-linux-gnu",
    emulator="qemu-system-s390x", cpu="qemu", machines=("s390-ccw-virtio",),
    cmdline=("console=ttyS1",))

# Pointer authentication, which later CPUs have, takes long to emulate.
ARM64 = Arch(
    name="arm64", flavour="cloud-arm64", kbuild="arm64",
    triplet="aarch64-linux-gnu", emulator="qemu-system-aarch64",
    cpu="cortex-a57", machines=("virt", "virt-mmio"),
    cmdline=("console=ttyAMA0",))

ALL = (AMD64, S390X, ARM64)


def of(name):
    """Return the architecture of a kernel or package, by the end of its name."""
    return next((arch for arch in ALL if name.endswith(f"-{arch.name}")), AMD64)
