# SPDX-License-Identifier: GPL-2.0
"""Download, unpack and build kernels, and build our driver for them.

6.1 and 6.12 are Debian 12's binary packages; our driver is a module there.  7.3
is built from Debian's source package, with our driver in place of the in-tree
driver, and vdpa_blk.  A second, unmodified build of 7.3 with modules serves to compare
the two drivers.  All kernels are in the cache; none is installed on the host.
"""

import contextlib
import functools
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from host import cache, debian, debian13, deps, process, repository, ui
from host.ui import UserError, say, step

from . import arch as arches
from . import compiler, elf_image, moved
from .arch import Arch

OLDEST = (6, 1)
NEWEST = (7, 3)
# Before 6.9 a block device is opened in another way.
OLDEST_VDPA = (6, 12)
# These kernels have neither the old nor the new interface for queue limits.
UNSUPPORTED = ((6, 9), (6, 10))
# Counts which lines of the driver run, see vm.gcov.
COVERAGE = "7.3-gcov"
OWN = ("7.3", "7.3-debug", "7.3-kcsan", COVERAGE)
NAMES = ("6.1", "6.12", *OWN)
# For guests of another architecture than the host's; see vm.arch.
FOREIGN = ("6.1-s390x", "6.12-s390x", "6.1-arm64", "6.12-arm64")
# 7.3 with the patch of virtio_ring that tools/packaging/upstream has.  No test asks for
# it by itself.
PREPARED = "7.3-prepared"
# For measuring: 7.3 with the in-tree driver as a module.  The second kernel has
# CONFIG_LOCK_STAT, which slows it down.
MEASURING = ("7.3-perf", "7.3-lockstat", PREPARED)
# For a guest inside a guest: little code, and our driver.
NESTED = "7.3-nested"
# What KERNEL= may name for tests, besides packages and paths.
FOR_TESTS = (*NAMES, *FOREIGN, PREPARED)

_TOP = Path(__file__).resolve().parents[2]
_DRIVER = "drivers/block/virtio_blk"
# The device for hosts, a module of its own.
_DEVICE = "drivers/vdpa/vdpa_blk"
# For compile_module().
VDPA = {"name": "vdpa_blk", "part": _DEVICE}
# The directories that the debug kernels instrument with sanitizers.
_CHECKED = (_DRIVER, "block", "drivers/virtio", "drivers/vdpa",
            "drivers/vdpa/vdpa_user", "drivers/vhost")
# KCSAN must see the barriers in these directories.  Otherwise it reports data races
# that do not exist.
_BARRIERS = ("kernel", "kernel/locking", "kernel/rcu", "lib")
_GRAFT = _TOP / "tools/packaging/graft"
_SUFFIXES = (".c", ".h", ".mk")
# The module's possible names.  Under the second name it can be loaded beside an
# in-tree driver that is built in.
MODULES = ("virtio_blk", "virtio_blk_mq")
# The files in tools/vm/kconfig that configure each kernel built here.  A later file
# overrides an earlier one.
_OPTIONS = {"7.3": ("host", "lean"), "7.3-debug": ("lean", "faults", "debug"),
            "7.3-kcsan": ("lean", "faults", "debug", "kcsan"),
            COVERAGE: ("lean", "faults", "gcov"),
            "7.3-perf": ("lean", "perf"),
            "7.3-lockstat": ("lean", "perf", "lockstat"),
            PREPARED: ("lean", "perf", "prepared"),
            NESTED: ("nested",)}
_PATCH = _TOP / "tools/packaging/upstream/virtio_ring.patch"


@dataclass(frozen=True)
class Kernel:
    """A kernel to boot, or to build the driver for.

    name: the name that find() was called with.
    release: the output of `uname -r`.
    image: the bzImage or ELF file that QEMU boots; None if the kernel can only be
        used to build modules.
    modules: a directory that contains lib/modules/<release>; None without modules.
    build: the KDIR of external modules.
    builtin: our driver is built in, so no module of it can be loaded.
    arch: the architecture that the kernel runs on.
    bzimage: the bzImage that image was unpacked from, for guests that suspend to memory:
        one that QEMU booted by PVH resets when it wakes.
    """
    name: str
    release: str
    image: Path | None
    modules: Path | None
    build: Path
    builtin: bool
    arch: Arch = arches.AMD64
    bzimage: Path | None = None

    def bootable(self) -> Path:
        """Return the image; raise UserError if the kernel has none."""
        if self.image is None:
            raise UserError(f"{self.name} has no bzImage, so no guest can boot it; run "
                            "`make bzImage` there, or choose KERNEL=6.12")
        return self.image

    def has(self, option: str) -> bool:
        """Return whether a configuration option is enabled, such as "CONFIG_SWAP"."""
        config = self.build / ".config"
        return config.exists() and bool(
            re.search(rf"^{option}=[ym]$", config.read_text(), re.MULTILINE))

    def exports(self, symbol: str) -> bool:
        """Return whether the kernel exports a symbol, such as "virtqueue_add_sgs"."""
        symbols = self.build / "Module.symvers"
        return symbols.exists() and f"\t{symbol}\t" in symbols.read_text()

    @property
    def prepared(self) -> bool:
        """Return whether virtio_ring takes prepared requests."""
        return self.exports("virtqueue_add_prepared")


def find(name: str | Path) -> Kernel:
    """Return the Kernel of that name; download or build it first if needed.

    A name is one of NAMES, FOREIGN or MEASURING, the path of a kernel build tree
    (it must contain a slash), or a package of Debian 12 or 13, such
    as linux-image-6.12.95+deb12-cloud-amd64.
    """
    name = str(name)
    if "/" in name:
        return _tree(Path(name))
    if name in ("6.1", "6.12", *FOREIGN):
        series = name.partition("-")[0]
        return _debian(name, rf"linux-image-{re.escape(series)}\.\d[^-]*(-\d+)?"
                             rf"-{arches.of(name).flavour}(-unsigned)?")
    if name.startswith("linux-image-"):
        _supported(name.removeprefix("linux-image-"), name)
        return _debian(name, re.escape(name))
    if name in MEASURING:
        return _built_unmodified(name)
    if name in _OPTIONS:
        return _built(name)
    raise unknown(name, NAMES + FOREIGN + MEASURING)


def check_name(name: str, known: Sequence[str]) -> None:
    """Raise UserError unless the name is in known, or may be a package or a path."""
    if name not in known and "/" not in name \
            and not name.startswith("linux-image-"):
        raise unknown(name, known)


def unknown(name: str, known: Sequence[str]) -> UserError:
    """Return the UserError for an unknown kernel name."""
    return UserError(f"KERNEL is {name!r}, which is unknown; choose one of "
                     f"{', '.join(known)}, a package linux-image-... of Debian 12 "
                     "or 13, or the path of a kernel build tree (with a slash in it)")


def start_building(names: Iterable[str]) -> subprocess.Popen[bytes]:
    """Start building kernels in the background at the lowest CPU priority.

    find() waits for a kernel that is not complete yet, and reports the error of one
    that failed.  Returns the process, for stop_building().
    """
    deps.need("build")
    return process.spawn(
        ["nice", "-n", "19", sys.executable, "-c",
         "import sys; from vm import kernels\n"
         "for name in sys.argv[1:]: kernels.find(name)", *names], os.devnull)


def stop_building(builder: subprocess.Popen[bytes]) -> None:
    """Stop start_building()'s process group; complete kernels stay in the cache."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(builder.pid, signal.SIGTERM)
    process.end(builder)


def version_of(release: str) -> tuple[int, int]:
    """Return the version of a release as numbers, (0, 0) if it has none."""
    match = re.match(r"(\d+)\.(\d+)", release)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _supported(release: str, origin: str) -> None:
    """Raise UserError if the driver does not support the release."""
    version = version_of(release)
    if not OLDEST <= version <= NEWEST or version in UNSUPPORTED:
        raise UserError(
            f"{origin} is Linux {release}; the driver supports "
            f"{OLDEST[0]}.{OLDEST[1]} to {NEWEST[0]}.{NEWEST[1]} except 6.9 and "
            "6.10; choose a supported kernel, such as KERNEL=6.12")


# Debian's kernels

def _debian(name: str, pattern: str) -> Kernel:
    """Return a kernel from Debian's packages, unpacked into the cache."""
    arch = arches.of(name)
    next_release = debian13.is_name(name)

    def build(directory: Path) -> None:
        def unpack() -> None:
            debian.unpack(debian13.packages(name) if next_release
                          else _packages(pattern, arch), directory)

        with step(f"downloading kernel {name} from Debian's archive"):
            debian.current(unpack, debian.NEXT if next_release else arch.name)
            if next_release:
                debian13.adapt(directory, name)
            release = _single_entry(directory / "lib/modules").name
            _make_paths_relative(directory, release)
            subprocess.run([deps.path_of("depmod"), "-b", directory, release],
                           check=True)

    deps.need("archive", {"depmod": "kmod"})
    directory = cache.populate(f"linux-{name.removeprefix('linux-')}", build,
                               mib=1100 if next_release else 700)
    release = _single_entry(directory / "lib/modules").name
    image = debian13.image(directory, release)
    return Kernel(name=name, release=release,
                  image=image if arch.foreign else elf_image.unpacked(image),
                  modules=directory,
                  build=directory / f"usr/src/linux-headers-{release}",
                  builtin=False, arch=arch, bzimage=image)


def _packages(pattern: str, arch: Arch = arches.AMD64) -> list[debian.Package]:
    """Return the newest image that matches, and its headers of the same version.

    For some time after a release the archive has only a part of its packages.  Such
    an incomplete release is skipped.  The headers of a foreign architecture come
    with amd64's linux-kbuild, because the host runs those programs.
    """
    for image in debian.versions(pattern, arch.name):
        abi = re.sub(rf"^linux-image-|(-cloud)?-{arch.name}(-unsigned)?$", "",
                     image.name)
        flavoured = image.name.removesuffix("-unsigned").replace("image",
                                                                 "headers")
        series = ".".join(abi.split(".")[:2])
        wanted = [({flavoured}, arch.name),
                  ({f"linux-headers-{abi}-common"}, "amd64"),
                  ({f"linux-kbuild-{abi}", f"linux-kbuild-{series}"}, "amd64")]
        pieces = [package for names, where in wanted
                  for package in debian.versions(
                      "|".join(map(re.escape, names)), where)
                  if package.version == image.version]
        if all(any(piece.name in names for piece in pieces)
               for names, _ in wanted):
            return [image, *pieces]
    raise debian.gone(f"{pattern} with headers of the same version", "KERNEL",
                      arch.name)


def _make_paths_relative(directory: Path, release: str) -> None:
    """Make the headers' absolute paths relative, because they are not in /usr.

    Only the links in lib/modules and lines of a Makefile need it.
    """
    makefile = directory / f"usr/src/linux-headers-{release}/Makefile"
    here = "$(dir $(lastword $(MAKEFILE_LIST)))"
    text = makefile.read_text()
    for line, relative in (("include /usr/src/", f"include {here}../"),
                           ("KBUILD_OUTPUT=/usr/src/.*",
                            f"KBUILD_OUTPUT := $(abspath {here})")):
        text = re.sub(f"^{line}", relative, text, flags=re.MULTILINE)
    makefile.write_text(text)
    for name in ("build", "source"):
        link = directory / "lib/modules" / release / name
        if link.is_symlink() and os.path.isabs(target := os.readlink(link)):
            link.unlink()
            link.symlink_to(f"../../..{target}")


def _single_entry(directory: Path) -> Path:
    """Return the one entry of a directory."""
    (entry,) = directory.iterdir()
    return entry


# The user's build tree

def _tree(path: Path) -> Kernel:
    """Return the kernel of a build tree; image is None if it has no bzImage."""
    path = path.resolve()
    release = _prepared(path)
    image = path / "arch/x86/boot/bzImage"
    builtin = (path / _DRIVER / "virtio_blk.o").exists()
    modules = None
    if image.exists() and (path / "modules.order").exists():
        deps.need({"depmod": "kmod"})
        modules = output(release) / "root"
        _make(path, "modules_install", f"INSTALL_MOD_PATH={modules}",
              what=f"installing the modules of {path}")
    elif Path("/lib/modules", release, "build").resolve() == path:
        modules = Path("/")
        image = Path("/boot", f"vmlinuz-{release}")
    return Kernel(name=str(path), release=release,
                  image=image if image.exists() else None, modules=modules,
                  build=path, builtin=builtin)


def _prepared(path: Path) -> str:
    """Check that modules can be built with a build tree; return its release."""
    try:
        return _release_if_prepared(path)
    except PermissionError as error:
        raise UserError(
            f"cannot read {error.filename}: {error.strerror}; make the kernel build tree "
            f"{path} readable for user id {os.geteuid()}, or name another one") from None


def _release_if_prepared(path: Path) -> str:
    """Return a build tree's release; raise UserError if it has not what is needed."""
    if not path.is_dir():
        raise UserError(f"KDIR is {path}, which is no directory; set it to a kernel "
                        "build tree, such as /lib/modules/$(uname -r)/build")
    if not (path / "Makefile").exists():
        raise UserError(f"{path} has no Makefile, so it is not a kernel build tree; "
                        "install the kernel's headers, or set KDIR to another "
                        "directory")
    for file in (".config", "include/generated/autoconf.h",
                 "include/config/kernel.release", "scripts/mod/modpost"):
        if not (path / file).exists():
            raise UserError(
                f"{path} has no {file}, which the build of a module needs; run "
                "`make modules_prepare` there, or install the kernel's headers")
    release = (path / "include/config/kernel.release").read_text().strip()
    _supported(release, str(path))
    if not (path / "Module.symvers").exists():
        raise UserError(
            f"{path} has no Module.symvers, the list of the kernel's exported "
            "symbols; build that kernel with `make`, or install its headers")
    return release


# 7.3, from source

def _source() -> Path:
    """Return the directory of Debian's kernel source, unpacked into the cache."""
    name = os.environ.get("LINUX_SOURCE") or "linux-source-7.3"
    if not re.fullmatch(r"linux-source-\d+\.\d+", name):
        raise UserError(f"LINUX_SOURCE is {name!r}; it must be the name of a Debian "
                        "source package, such as linux-source-7.3")
    _supported(name.removeprefix("linux-source-"), name)

    def build(directory: Path) -> None:
        def unpack() -> None:
            debian.unpack([debian.newest(re.escape(name), "LINUX_SOURCE")],
                          directory)

        with step(f"downloading {name} from Debian's archive"):
            debian.current(unpack)
            archive = directory / f"usr/src/{name}.tar.xz"
            subprocess.run(["tar", "-xf", archive, "-C", directory,
                            "--strip-components=1"], check=True)
            shutil.rmtree(directory / "usr/src")
            shutil.rmtree(directory / "usr/share")

    deps.need("archive")
    return cache.populate(name, build, mib=3000)


def source() -> Path:
    """Return the path of the 7.3 source tree that contains our driver."""
    tree = _source()
    _graft(tree)
    return tree


def own_source() -> Path:
    """Return the path of the unmodified 7.3 source tree, with the in-tree driver.

    Its files are hard links to those of source(), which grafting does not write to.
    """
    def build(directory: Path) -> None:
        with _graft_lock():
            _run("cp", "-al", f"{tree}/.", directory)
            _run(_GRAFT, "--undo", directory)

    tree = _source()
    return cache.populate(f"{tree.name}-own", build, mib=100)


def patched_source() -> Path:
    """Return the path of own_source() with tools/packaging/upstream/virtio_ring.patch.

    A patch that changed is applied to the unmodified files again, so that make compiles
    only what depends on them.
    """
    def build(directory: Path) -> None:
        with _graft_lock():
            _run("cp", "-al", f"{own}/.", directory)

    own = own_source()
    tree = cache.populate(f"{own.name.removesuffix('-own')}-patched", build, mib=100)
    text = _PATCH.read_text()
    done = tree / ".patched"
    with _graft_lock():
        if not _holds(done, text):
            done.unlink(missing_ok=True)
            for name in re.findall(r"^\+\+\+ b/(\S+)$", text, re.MULTILINE):
                cache.replace(tree / name, (own / name).read_bytes())
            # A cache inside of a git repository is no part of it.
            _run("env", f"GIT_CEILING_DIRECTORIES={tree.parent}", "git", "-C", tree,
                 "apply", _PATCH)
            done.write_text(text)
    return tree


def _graft(tree: Path) -> None:
    with _graft_lock():
        _run(_GRAFT, tree)


def _graft_lock() -> AbstractContextManager[None]:
    return cache.lock(cache.root() / ".graft.lock", "the kernel source")


def _run(*argv: str | Path) -> None:
    """Run a program; raise UserError with its output if it fails."""
    result = subprocess.run(argv, text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT)
    if result.returncode:
        raise UserError(result.stdout.strip())


class Trees(NamedTuple):
    """The directories of a kernel's source and of its build."""
    source: Path
    build: Path


def configure(name: str = "7.3") -> Trees:
    """Configure and prepare a kernel; return its trees.

    Modules can be compiled in the build tree, but not linked before the kernel is
    built.
    """
    cache.check_name()
    deps.need("build")
    tree = patched_source() if name == PREPARED else \
        own_source() if name in MEASURING else source()
    variant = _OPTIONS[name][-1]
    build = cache.root() / f"{re.sub('-(own|patched)$', '', tree.name)}-{variant}"
    fragments = [_TOP / f"tools/vm/kconfig/{part}.config"
                 for part in _OPTIONS[name]]
    wanted = _merge(fragment.read_text() for fragment in fragments)
    key = _digest([*fragments, _TOP / "Kconfig", _TOP / _DEVICE / "Kconfig"])
    done = build / ".configured"
    if _holds(done, key) and not moved.old_cache(build, tree):
        return Trees(tree, build)
    with _locked_build(build, mib=2000):
        moved.follow(build, tree)
        if not _holds(done, key):
            done.unlink(missing_ok=True)
            options = build / "wanted.config"
            options.write_text(wanted)
            with step(f"configuring the {variant} kernel"):
                _make(tree, f"O={build}", f"KCONFIG_ALLCONFIG={options}",
                      "allnoconfig", what=f"configuring the {variant} kernel")
                _check(wanted, build / ".config")
                _make(tree, f"O={build}", "modules_prepare",
                      what=f"preparing to build the {variant} kernel")
            done.write_text(key)
    return Trees(tree, build)


_OPTION = re.compile(r"^(?:CONFIG_\w+=.*|# CONFIG_\w+ is not set)$",
                     re.MULTILINE)


def _holds(file: Path, text: str) -> bool:
    """Return whether a file exists and its content is the text."""
    return file.exists() and file.read_text() == text


def _symbol(option: str) -> str:
    """Return the name in a line that matches _OPTION."""
    return option.removeprefix("# ").replace("=", " ").split()[0]


def _merge(texts: Iterable[str]) -> str:
    """Return the options in texts; a later setting overrides an earlier one."""
    found = {}
    for option in _OPTION.findall("\n".join(texts)):
        found[_symbol(option)] = option
    return "".join(f"{option}\n" for option in found.values())


def _check(wanted: str, config: Path) -> None:
    """Raise UserError unless a .config has all the wanted options."""
    got = set(_OPTION.findall(config.read_text()))
    missing = []
    for option in _OPTION.findall(wanted):
        symbol = _symbol(option)
        off = option.startswith("#")
        if option not in got and not (
                off and not any(has.startswith(f"{symbol}=") for has in got)):
            missing.append(option)
    if missing:
        raise UserError("this kernel source does not accept these options of "
                        f"tools/vm/kconfig: {', '.join(missing)}; correct those "
                        "files, or set LINUX_SOURCE to another release")


def _built(name: str) -> Kernel:
    """Return 7.3 with our driver built in; rebuild it if the sources changed."""
    tree, build = configure(name)
    sources = _sources() + (_sources(_DEVICE) if "host" in _OPTIONS[name] else [])
    key = _digest([*sources, build / ".config"]) + " ".join(_CHECKED + _BARRIERS)
    done = build / ".built"
    if not _holds(done, key):
        with _locked_build(build, mib=2000):
            if not _holds(done, key):
                done.unlink(missing_ok=True)
                _graft(tree)
                with step(f"building kernel {name} with the driver built in"):
                    _make(tree, f"O={build}", "vmlinux", "modules",
                          *_instrumented(tree), what=f"building kernel {name}")
                done.write_text(key)
    release = (build / "include/config/kernel.release").read_text().strip()
    return Kernel(name=name, release=release, image=build / "vmlinux",
                  modules=None, build=build, builtin=True)


def _instrumented(tree: Path) -> list[str]:
    """Return make arguments that restrict the sanitizers to code near the driver.

    They instrument the driver, the block layer and the transports only.  With the
    whole kernel instrumented a guest takes twice the time.  make knows an object by
    its file name alone, so objects of the same name elsewhere are instrumented, too.
    KASAN poisons freed memory of the whole kernel, so it reports an instrumented
    access to any of it.
    """
    return [f"{what}_SANITIZE{object}" for what in ("KASAN", "UBSAN", "KCSAN")
            for object in ("=n", *_objects(tree, _CHECKED))] + \
        [f"KCSAN_INSTRUMENT_BARRIERS{object}"
         for object in _objects(tree, _BARRIERS)]


def _objects(tree: Path, directories: Iterable[str]) -> list[str]:
    """Return suffixes of make variables: one enables an object of the directories."""
    stems = {path.stem for directory in directories
             for path in (tree / directory).glob("*.c")}
    return [f"_{stem}.o=y" for stem in sorted(stems)]


def _built_unmodified(name: str) -> Kernel:
    """Return our build of 7.3 with the in-tree driver, and its modules."""
    deps.need({"depmod": "kmod"})
    tree, build = configure(name)
    key = _digest([build / ".config", *([_PATCH] if name == PREPARED else [])])
    done = build / ".built"
    installed = build / "root"
    if not _holds(done, key):
        with _locked_build(build, mib=2000):
            if not _holds(done, key):
                done.unlink(missing_ok=True)
                with step(f"building kernel {name}"):
                    _make(tree, f"O={build}", "vmlinux", "modules",
                          what=f"building kernel {name}")
                    shutil.rmtree(installed, ignore_errors=True)
                    _make(tree, f"O={build}", "modules_install",
                          f"INSTALL_MOD_PATH={installed}",
                          what=f"installing the modules of {name}")
                done.write_text(key)
    release = (build / "include/config/kernel.release").read_text().strip()
    return Kernel(name=name, release=release, image=build / "vmlinux",
                  modules=installed, build=build, builtin=False)


@contextlib.contextmanager
def _locked_build(build: Path, mib: int) -> Iterator[None]:
    """Lock a build tree while it is built; remove it if the disk becomes full.

    After any other failure the tree is kept, because make leaves no incomplete file
    behind that it takes for complete.
    """
    with cache.lock(build.with_name(f".{build.name}.lock"), build.name):
        if not build.exists():
            cache.require_space(cache.root(), mib)
            build.mkdir()
        try:
            with cache.space_errors(build):
                yield
        except cache.DiskFull:
            shutil.rmtree(build, ignore_errors=True)
            raise


# The driver

def _sources(part: str = _DRIVER) -> list[Path]:
    """Return the files that the driver, or the device, is built from."""
    found = [path for directory in (part, "include")
             for path in (_TOP / directory).rglob("*")
             if (path.suffix in _SUFFIXES and not path.name.endswith(".mod.c"))
             or path.name == "Makefile"]
    if _TOP / part / "Makefile" not in found:
        raise UserError(f"{_TOP} has no {part}/Makefile, so the driver's sources "
                        "are missing; check them out")
    return sorted(found)


def _digest(paths: Iterable[Path]) -> str:
    """Return a digest of files' names and contents and of the compiler's version."""
    digest = hashlib.sha256()
    digest.update(subprocess.run(["gcc", "--version"], check=True,
                                 stdout=subprocess.PIPE).stdout)
    for path in paths:
        digest.update(f"{path.name}\n".encode())
        if path.exists():
            digest.update(path.read_bytes())
    return digest.hexdigest()


def output(release: str) -> Path:
    """Return the directory for what is built for a kernel release; create it."""
    return repository.writable(_TOP / "build" / release)


def _copy_sources(directory: Path, part: str) -> None:
    """Copy a part's sources that changed; delete copies of removed sources."""
    wanted = set()
    for path in _sources(part):
        copy = directory / path.relative_to(_TOP)
        wanted.add(copy)
        text = path.read_bytes() if path.name != "version.h" else _version_header()
        if not copy.exists() or copy.read_bytes() != text:
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(text)
    for top in (part, "include"):
        for copy in (directory / top).rglob("*"):
            if (copy.suffix in _SUFFIXES and copy not in wanted
                    and not copy.name.endswith(".mod.c")):
                copy.unlink()


def _version_header() -> bytes:
    """Return include/version.h with the version of this tree, as packages have it."""
    return subprocess.run([_TOP / "tools/packaging/version", "--header"], check=True,
                          stdout=subprocess.PIPE).stdout


def build_modules(kernel: Kernel, out: str | Path | None = None,
                  name: str = MODULES[0]) -> Path:
    """Build the driver as a module and return its path.

    The module is in build/<release>/ or in the directory `out`; under its second
    name, in a subdirectory of that name.  Warnings about our sources are printed.
    """
    if name not in MODULES:
        raise UserError(f"NAME is {name!r}; the module's name must be "
                        f"{', '.join(MODULES)} or {VDPA['name']}")
    directory = Path(out) if out else output(kernel.release)
    if name != MODULES[0]:
        directory /= name
    return _build_module(kernel, directory, name=name)


def _build_module(kernel: Kernel, directory: Path, *flags: str, name: str,
                  **part: str) -> Path:
    """Build a module in a directory, print warnings about it, and return its path.

    With headers of the user's only what their build runs must be there.
    """
    if kernel.image:
        deps.need("build")
        kernel.arch.need()
        choice = kernel.arch.make
    else:
        choice = compiler.words(kernel.build)
    with step(f"building {name}.ko for {kernel.release}"):
        said = compile_module(kernel.build, directory, *choice, *flags,
                              name=name, **part)
    if re.search(r"^(drivers|include)/\S+:\d+:|^WARNING: modpost", said,
                 re.MULTILINE):
        say(said)
    return directory / f"{name}.ko"


@functools.cache
def driver(kernel: Kernel) -> Path:
    """Return the driver's module for guests, built once in a process.

    So all guests of a run have the same driver, whatever happens to the sources.
    """
    return build_modules(kernel)


@functools.cache
def vdpa(kernel: Kernel) -> Path:
    """Return the module of vdpa_blk for guests, built once in a process."""
    return build_vdpa(kernel)


def can_have_vdpa(kernel: Kernel) -> bool:
    """Return whether vdpa_blk can be built for a kernel: 6.12 or later, with vDPA."""
    return version_of(kernel.release) >= OLDEST_VDPA and kernel.has("CONFIG_VDPA")


def build_vdpa(kernel: Kernel, kunit: bool = False) -> Path:
    """Build vdpa_blk, the device for hosts, as a module and return its path.

    kunit: with its KUnit tests, which need a kernel with CONFIG_KUNIT.  Raises UserError
    if the kernel is too old or has no vDPA.
    """
    if not can_have_vdpa(kernel):
        # KDIR has named a kernel without an image; KERNEL does not count then.
        others = "KERNEL=6.12 or 7.3-debug" if kernel.image else \
            "KDIR=/lib/modules/RELEASE/build of such a kernel"
        raise UserError(f"kernel {kernel.name} is Linux {kernel.release}; vdpa_blk needs "
                        f"{OLDEST_VDPA[0]}.{OLDEST_VDPA[1]} or later with CONFIG_VDPA; "
                        f"use {others}")
    if kunit:
        return _build_module(kernel, output(kernel.release) / "vdpa-kunit",
                             "CONFIG_VDPA_BLK_KUNIT_TEST=y", **VDPA)
    return _build_module(kernel, output(kernel.release) / "vdpa", **VDPA)


def compile_module(build: Path, directory: Path, *flags: str, name: str = MODULES[0],
                   part: str = _DRIVER) -> str:
    """Build the driver in a directory and return the compiler's output.

    build: the KDIR; flags: more arguments for make; part: the directory of the sources.
    Only changed sources are copied, so that make does not rebuild the others.
    """
    repository.check_name(directory, "move the repository to another directory")
    repository.check_name(build, "move the kernel's build tree to another directory")
    repository.writable(directory)
    cache.require_space(directory, 20, "move the repository to a larger disk")
    with cache.lock(directory / ".lock", f"the module in {directory}"):
        _copy_sources(directory, part)
        place = directory / part
        options = ["CONFIG_VDPA_BLK=m"] if part == _DEVICE else \
            ["CONFIG_VIRTIO_BLK=m", f"VIRTBLK_NAME={name}"]
        try:
            said = _make(build, f"M={place}", "W=1", *options, *flags, "modules",
                         what=f"building {name}.ko with {build}")
        except UserError as error:
            raise UserError(_as_in_repository(str(error), directory, part)) from None
        cache.replace(directory / f"{name}.ko",
                      (place / f"{name}.ko").read_bytes())
    return _as_in_repository(said, directory, part)


def _as_in_repository(said: str, directory: Path, part: str = _DRIVER) -> str:
    """Return compiler messages about a copy with the names of the original files.

    Newer kernels compile a module in its own directory, so names are relative to it.
    """
    said = said.replace(f"{directory}/", "")
    said = re.sub(r"^(In file included from |)(?:\./)*(?:\.\./)+include/",
                  r"\1include/", said, flags=re.MULTILINE)
    return re.sub(r"^(In file included from |)(\w+\.[ch]:\d)",
                  rf"\1{part}/\2", said, flags=re.MULTILINE)


def stock_module(kernel: Kernel) -> Path:
    """Return the path of the in-tree driver's virtio_blk.ko, decompressed."""
    where = "lib/modules/{}/kernel/drivers/block".format(kernel.release)
    found = sorted((kernel.modules / where).glob("virtio_blk.ko*")) \
        if kernel.modules else []
    if not found:
        raise UserError(f"kernel {kernel.name} has no virtio_blk.ko of the in-tree "
                        "driver; choose KERNEL=6.1 or 6.12")
    packed = found[0]
    if packed.suffix == ".ko":
        return packed
    directory = repository.writable(output(kernel.release) / "stock")
    module = directory / "virtio_blk.ko"
    cache.replace(module, elf_image.decompressed(packed.read_bytes()))
    return module


def _make(directory: Path, *words: str, what: str) -> str:
    """Run make in a directory and return its output.

    Raises UserError with the last 40 lines of the output if it fails.
    """
    result = subprocess.run(
        ["make", "-s", f"-j{os.cpu_count()}", "-C", directory, *words],
        text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, env=_environment())
    said = result.stdout.strip()
    if result.returncode:
        last = "\n".join(said.splitlines()[-40:])
        raise UserError(f"{what} failed; the output of make:\n{last}")
    return said


def _environment() -> dict[str, str]:
    """Return the environment without the variables of our own Makefile's make."""
    private = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "KERNEL",
               "KDIR", "DEBUG", "T", "O", "M", "V", "C", "W", "CF")
    return {**{name: value for name, value in os.environ.items()
               if name not in private},
            "LC_ALL": "C"}


def main() -> int:
    """Do the work of the Makefile's targets that build for a kernel.

    `tree` prints the build tree that `driver` and `modules` use.
    """
    what = sys.argv[1]
    if what == "source":
        print(own_source())
    elif what in ("modules", "driver", "tree"):
        repository.check_own_name()
        kdir = os.environ.get("KDIR")
        kernel = _tree_to_build_for(kdir) if kdir else \
            find(os.environ.get("KERNEL") or "6.12")
        if what == "tree":
            print(kernel.build)
            return 0
        name = os.environ.get("NAME")
        if name != VDPA["name"]:
            print(build_modules(kernel, name=name or MODULES[0]))
        # `make install` asks for one module alone.
        if name == VDPA["name"] or (not name and what == "modules"
                                    and can_have_vdpa(kernel)):
            print(build_vdpa(kernel))
    else:
        own = os.environ.get("KERNEL") or "7.3"
        names = (*OWN, PREPARED)
        if own not in names:
            raise UserError(f"KERNEL is {own!r}; make kernel builds {', '.join(names)}, "
                            "and make modules is for other kernels")
        print(find(own).image)
    return 0


def _tree_to_build_for(kdir: str) -> Kernel:
    path = Path(kdir).resolve()
    return Kernel(name=kdir, release=_prepared(path), image=None, modules=None,
                  build=path, builtin=False)


if __name__ == "__main__":
    ui.main(main)
