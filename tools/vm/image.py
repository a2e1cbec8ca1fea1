# SPDX-License-Identifier: GPL-2.0
"""Build what a guest boots from: root file system, kernel modules, initramfs.

Images are built once and kept in the cache; guests never change them.  The
initramfs is built for each boot.
"""

import hashlib
import lzma
import shutil
import stat
import subprocess
from collections.abc import Iterable
from pathlib import Path

from host import cache, debian, deps
from host.ui import UserError, step

from .arch import AMD64, Arch
from .kernels import Kernel

ROOT_LABEL = "vblk-root"
MODULES_LABEL = "vblk-modules"
# The first command in a guest without a root file system.
INSTALL_TOOLS = "/bin/busybox --install -s /bin"

PACKAGES = ("btrfs-progs", "busybox-static", "e2fsprogs", "fdisk", "fio",
            "kmod", "mount", "pciutils", "procps", "udev", "util-linux",
            "xfsprogs")
_SUITES = ("bookworm", "bookworm-updates", "bookworm-security")
_NOT_NEEDED = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*")
_ROOT_MIB = 2048

# The modules for the connection to the host and for the power button, and those for
# the root file system.  Modules that are built into a kernel are skipped.
_BOOT_MODULES = ("virtio_pci", "virtio_mmio", "virtio_console", "button")
_ROOT_MODULES = ("virtio_scsi", "sd_mod", "ext4")


def _run(argv: Iterable[str | Path]) -> None:
    """Run a program; raise UserError with the end of its output if it fails."""
    program, *words = map(str, argv)
    result = subprocess.run([deps.which(program) or program, *words],
                            text=True, stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if result.returncode:
        tail = "\n".join(result.stdout.strip().splitlines()[-15:])
        raise UserError(f"{program} failed with status {result.returncode}:\n"
                        f"{tail}")


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def make_ext4(tree: Path, image: Path, label: str, mib: int, *options: str) -> None:
    """Create an ext4 image of mib MiB from a directory; options: for mke2fs."""
    _run(["mke2fs", "-q", "-t", "ext4", "-L", label, "-m", "0", *options,
          "-d", tree, image, f"{mib}M"])


def agent(arch: Arch = AMD64) -> Path:
    """Return the path of the guest's agent, a static executable."""
    return program(Path(__file__).with_name("agent.c"), arch)


def program(source: Path, arch: Arch, *more: Path) -> Path:
    """Compile a C file, or a folder of C files; return the path of the executable.

    It is static, so that any guest can run it.  more: further C files, with headers of
    their own names.
    """
    sources = sorted(source.glob("*.c")) if source.is_dir() else [source]
    headers = sorted(source.glob("*.h")) if source.is_dir() else []
    headers += [path.with_suffix(".h") for path in more]

    def build(directory: Path) -> None:
        arch.need()
        _run([arch.compiler, "-static", "-O2", "-Wall", "-Wextra", "-Werror",
              "-o", directory / source.stem, *sources, *more])

    suffix = f"-{arch.name}" if arch.foreign else ""
    digest = _digest(*(path.read_text() for path in (*sources, *more, *headers)))
    return cache.populate(f"{source.stem}-{digest}{suffix}", build,
                          mib=4) / source.stem


def _build_root(directory: Path) -> None:
    deps.need("vm", "archive")
    tree = directory / "tree"
    tarball = directory / "root.tar"
    sources = directory / "sources.list"
    sources.write_text(debian.sources(_SUITES))
    with step("building the guests' root file system"):
        # Packing and unpacking makes the current user the owner of all files and
        # drops device files, so this works without root.  Guests do not mind,
        # because they run everything as root.
        _run(["mmdebstrap", "--quiet", "--variant=apt",
              f"--include={','.join(PACKAGES)}",
              *(f"--dpkgopt=path-exclude={path}" for path in _NOT_NEEDED),
              _SUITES[0], tarball, sources])
        tree.mkdir()
        _run(["tar", "-x", "--no-same-owner", "--exclude=./dev/*",
              "-f", tarball, "-C", tree])
        (tree / "usr/lib/modules").mkdir(exist_ok=True)
        make_ext4(tree, directory / "root.ext4", ROOT_LABEL, _ROOT_MIB,
                   "-E", "root_owner=0:0", "-J", "size=8")
        _run(["chmod", "-R", "u+rwX", tree])
        shutil.rmtree(tree)
    tarball.unlink()
    sources.unlink()


def root() -> Path:
    """Return the path of the Debian root file system, an ext4 image."""
    name = f"root-{_digest(*PACKAGES, *_NOT_NEEDED)}"
    return cache.populate(name, _build_root, mib=2000) / "root.ext4"


def root_with_agent() -> Path:
    """Return a root file system that contains the agent as /usr/sbin/agent.

    Guests without an initramfs boot from it.
    """
    def build(directory: Path) -> None:
        image = directory / "root.ext4"
        _run(["cp", "--sparse=always", root(), image])
        _run(["debugfs", "-w", "-R", f"write {agent()} /usr/sbin/agent", image])

    name = f"{root().parent.name}-{agent().parent.name}"
    return cache.populate(name, build, mib=600) / "root.ext4"


def busybox(arch: Arch = AMD64) -> Path:
    """Return the path of a static busybox."""
    if arch.foreign:
        return _foreign_busybox(arch.name)

    def build(directory: Path) -> None:
        _run(["debugfs", "-R",
              f"dump -p /usr/bin/busybox {directory}/busybox", root()])

    return cache.populate(f"busybox-{root().parent.name}", build,
                          mib=4) / "busybox"


def _foreign_busybox(arch: str) -> Path:
    def build(directory: Path) -> None:
        def unpack() -> None:
            debian.unpack(debian.closure(["busybox-static"], _SUITES[0], arch),
                          directory)

        with step(f"downloading busybox for {arch} from Debian's archive"):
            debian.current(unpack, arch)

    return cache.populate(f"busybox-{arch}", build, mib=10) / "bin/busybox"


def modules(kernel: Kernel) -> Path | None:
    """Return the path of an image of a kernel's modules; None without modules."""
    if kernel.modules is None:
        return None
    tree = kernel.modules / "lib/modules"
    table = tree / kernel.release / "modules.dep"

    def build(directory: Path) -> None:
        size = sum(path.lstat().st_size // 4096 + 1 for path in tree.rglob("*"))
        with step(f"packing the modules of {kernel.release}"):
            make_ext4(tree, directory / "modules.ext4", MODULES_LABEL,
                       size // 256 * 5 // 4 + 32, "-O", "^has_journal")

    name = f"modules-{_digest(kernel.release, table.read_text())}"
    return cache.populate(name, build, mib=800) / "modules.ext4"


def _plain(path: Path) -> bytes:
    """Return a module's contents, decompressed."""
    data = Path(path).read_bytes()
    if path.suffix == ".xz":
        return lzma.decompress(data)
    if path.suffix == ".ko":
        return data
    raise UserError(f"{path} has an unknown compression; use a kernel with "
                    "uncompressed or xz modules")


def _module_files(kernel: Kernel, names: Iterable[str]) -> list[Path]:
    """Return the files of modules, each one after the modules it depends on."""
    if kernel.modules is None:
        return []
    base = kernel.modules / "lib/modules" / kernel.release
    needs = {}
    paths = {}
    for line in (base / "modules.dep").read_text().splitlines():
        path, _, needed = line.partition(":")
        needs[path] = needed.split()
        paths[path.rsplit("/", 1)[-1].partition(".")[0]] = path
    order: list[str] = []

    def add(path: str) -> None:
        if path not in order:
            for needed in needs[path]:
                add(needed)
            order.append(path)

    for name in names:
        if name in paths:
            add(paths[name])
    return [base / path for path in order]


class _Cpio:
    """An archive in the "newc" format, which the kernel unpacks."""

    def __init__(self, path: Path):
        self._file = open(path, "wb")
        self._count = 0

    def add(self, name: str, mode: int, data: bytes = b"",
            device: tuple[int, int] = (0, 0)) -> None:
        self._count += 1
        fields = (self._count, mode, 0, 0, 1, 0, len(data), 0, 0, *device,
                  len(name) + 1, 0)
        header = "070701" + "".join(f"{field:08x}" for field in fields)
        self._pad(header.encode() + name.encode() + b"\0")
        self._pad(data)

    def _pad(self, data: bytes) -> None:
        self._file.write(data + bytes(-len(data) % 4))

    def directory(self, name: str) -> None:
        self.add(name, stat.S_IFDIR | 0o755)

    def file(self, name: str, data: bytes, mode: int = 0o755) -> None:
        self.add(name, stat.S_IFREG | mode, data)

    def link(self, name: str, target: str) -> None:
        self.add(name, stat.S_IFLNK | 0o777, target.encode())

    def close(self) -> None:
        self.add("TRAILER!!!", 0)
        self._file.close()


def initramfs(path: Path, kernel: Kernel, ours: Path | None = None,
              stock: Path | None = None, tools: bool = False) -> None:
    """Write the initramfs for one boot to path.

    ours, stock: modules that the guest gets as /run/vblk/virtio_blk.ko and
    /run/vblk/stock/virtio_blk.ko; tools: add busybox, for guests without a root file
    system.
    """
    archive = _Cpio(path)
    for directory in ("bin", "dev", "lib", "lib/modules", "mnt", "newroot",
                      "proc", "root", "run", "sys", "tmp", "vblk", "vblk/stock"):
        archive.directory(directory)
    archive.add("dev/console", stat.S_IFCHR | 0o600, device=(5, 1))
    archive.file("init", agent(kernel.arch).read_bytes())
    load = []
    names = _BOOT_MODULES if tools else _BOOT_MODULES + _ROOT_MODULES
    for module in _module_files(kernel, names):
        name = module.name.partition(".")[0]
        archive.file(f"vblk/{name}.ko", _plain(module), 0o644)
        load.append(f"/vblk/{name}.ko\n")
    archive.file("vblk/load", "".join(load).encode(), 0o644)
    if ours:
        archive.file("vblk/virtio_blk.ko", _plain(ours), 0o644)
    if stock:
        archive.file("vblk/stock/virtio_blk.ko", _plain(stock), 0o644)
    if tools:
        # INSTALL_TOOLS creates the links of the other commands.
        archive.file("bin/busybox", busybox(kernel.arch).read_bytes())
        archive.link("bin/sh", "busybox")
    archive.close()


def initramfs_of(path: Path, program: Path) -> None:
    """Write an initramfs with one static program to path; it is process 1."""
    archive = _Cpio(path)
    archive.directory("dev")
    archive.add("dev/console", stat.S_IFCHR | 0o600, device=(5, 1))
    archive.file("init", program.read_bytes())
    archive.close()
