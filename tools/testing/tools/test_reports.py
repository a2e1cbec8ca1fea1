# SPDX-License-Identifier: GPL-2.0
"""What the tools report when the user's tree, cache, path or kernel does not suit.

A report is one line with the value, the limit and the way out.  No test here boots a
guest.  Only the programs that a test runs can need the network: QEMU, if the cache has
none, and packages that the host lacks.
"""

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from host import cache, debian, deps, process, repository
from host.ui import UserError
from testing.environment import plain_environment
from testing.packaging.test_graft import linux_tree
from vm import kernels, moved, qemu, qemu_dist
from vm.disk import Disk
from vm.guest import Guest

from .test_build import NOBODY, archive, build_tree, bz_image, open_to_all

TOP = Path(__file__).resolve().parents[3]
LEFT_OUT = shutil.ignore_patterns(".git", "build", "__pycache__", "*.o", "*.ko")


def reported(*argv: str | Path, **environment: str) -> str:
    """Run a command that must fail with one line besides make's; return the line."""
    result = subprocess.run(
        argv, text=True, timeout=60, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, env=plain_environment(**environment))
    lines = [line for line in result.stdout.splitlines()
             if not re.match(r"make(\[\d+\])?: ", line)]
    assert (result.returncode, len(lines)) == (2, 1), result.stdout
    return lines[0]


# A tree of another user

def as_nobody() -> list[str]:
    """Return the words that run a command as another user than root."""
    return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"] \
        if os.geteuid() == 0 else []


def in_namespace(*options: str) -> list[str]:
    """Return the words that run a command in namespaces; skip if they cannot be made."""
    argv = ["unshare", *([] if os.geteuid() == 0 else ["--map-root-user"]), *options]
    made = subprocess.run([*argv, "true"], text=True, stderr=subprocess.PIPE)
    if made.returncode:
        pytest.skip(made.stderr.strip())
    return argv


@pytest.fixture(scope="module")
def foreign_tree() -> Iterator[Path]:
    """A copy of the repository that its user cannot write to, with a fake kernel."""
    deps.need("build", "vm", "lint", "plot", "docs", "model", "packaging")
    with tempfile.TemporaryDirectory(prefix="vblk-reports-") as name:
        os.chmod(name, 0o755)
        top = Path(name)
        tree = top / "tree"
        shutil.copytree(TOP, tree, ignore=LEFT_OUT)
        (tree / "build").mkdir()
        (tree / "build/old").touch()
        build_tree(top / "linux")
        (top / "cache").mkdir()
        os.chmod(top / "cache", 0o777)
        directories = [path for path in (tree, *tree.rglob("*")) if path.is_dir()]
        for path in directories:
            path.chmod(0o555)
        yield tree
        for path in directories:
            path.chmod(0o755)


@pytest.mark.parametrize("target", (
    "modules KDIR=../linux", "check QUICK=1", "run", "run-host", "bench QUICK=1",
    "budget", "lint", "tools", "html", "model", "deb", "patch LINUX=../linux",
    "new-test NAME=mine", "clean", "soak ONLY=lost"))
def test_tree_that_cannot_be_written(foreign_tree: Path, target: str) -> None:
    """Each target that writes into the tree says where it cannot, and the way out."""
    line = reported(*as_nobody(), "make", "-C", foreign_tree, *target.split(),
                    XDG_CACHE_HOME=str(foreign_tree.parent / "cache"))
    assert "Traceback" not in line and "Errno" not in line
    if target == "clean":
        assert re.match("error: cannot remove build: rm: .*: Permission denied; correct "
                        "that, or run it as the user who owns all that is in it$", line)
    elif target.startswith("soak"):
        assert "for the record" in line and "set RECORD=" in line
    else:
        assert re.match(rf"error: cannot write to {foreign_tree}/\S+: Permission "
                        r"denied; make it writable for user id \d+, or work in a "
                        "clone of your own$", line), line


@pytest.mark.parametrize("words", (("deb",), ("patch", "{linux}", "{tree}/build")))
def test_script_in_tree_that_cannot_be_written(foreign_tree: Path, tmp_path: Path,
                                               words: tuple[str, ...]) -> None:
    """The scripts that write patches and packages report it when run by themselves."""
    linux = tmp_path / "linux"
    for part in ("Makefile", "Kconfig", "MAINTAINERS", "drivers/block/Kconfig",
                 "drivers/block/Makefile", "drivers/block/virtio_blk.c",
                 "drivers/vdpa/Kconfig", "drivers/vdpa/Makefile"):
        (linux / part).parent.mkdir(parents=True, exist_ok=True)
        (linux / part).touch()
    open_to_all(tmp_path)
    script, *rest = (word.format(linux=linux, tree=foreign_tree) for word in words)
    line = reported(*as_nobody(), foreign_tree / "tools/packaging" / script, *rest,
                    GIT_COMMITTER_NAME="A", GIT_COMMITTER_EMAIL="a@example.org")
    assert re.match(rf"{script}: cannot write to {foreign_tree}/build\S*: \w+: .*: "
                    "Permission denied; correct that, or ", line), line


@pytest.mark.parametrize("words,way_out", (
    (["make", "-C", "{tree}", "html"], "free some space, or move the repository"),
    (["make", "-C", "{tree}", "check"], "free some space, or move the repository"),
    (["{tree}/tools/packaging/deb"], "correct that, or work in a clone of your own"),
    (["{tree}/tools/packaging/patch", "{linux}", "{tree}/build"],
     "correct that, or name another directory")))
def test_tree_on_a_full_disk(foreign_tree: Path, tmp_path: Path, words: list[str],
                             way_out: str) -> None:
    """A full disk is reported as such, and not as a tree of another user."""
    linux = linux_tree(tmp_path / "linux")
    # The directory itself takes the one inode.
    line = reported(*in_namespace("--mount"), "sh", "-c",
                    f"mount -t tmpfs -o nr_inodes=1 none {foreign_tree}/build && "
                    'exec "$@"', "sh",
                    *(word.format(tree=foreign_tree, linux=linux) for word in words),
                    GIT_COMMITTER_NAME="A", GIT_COMMITTER_EMAIL="a@example.org")
    assert "No space left on device; " in line and line.count(way_out) == 1, line
    assert "writable" not in line


def test_directory_that_is_in_use(foreign_tree: Path) -> None:
    """make clean gives the reason of rm, such as a mount point."""
    line = reported(*in_namespace("--mount"), "sh", "-c",
                    f"mount -t tmpfs none {foreign_tree}/build && exec make -C "
                    f"{foreign_tree} clean")
    assert re.match("error: cannot remove build: rm: .*busy; correct that, or ", line)


def test_directory_that_is_a_link(tmp_path: Path) -> None:
    """A link in place of a directory to empty is an error that names it."""
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(UserError, match=f"^cannot write to {tmp_path}/link: Cannot call "
                                        "rmtree on a symbolic link; correct that"):
        repository.emptied(tmp_path / "link")


@pytest.mark.parametrize("file", ("include/config/kernel.release", ".config", ""))
def test_kernel_tree_that_cannot_be_read(tmp_path: Path, file: str) -> None:
    """KDIR of another user is an error about reading it, not about the repository."""
    tree = build_tree(tmp_path / "linux")
    open_to_all(tmp_path)
    (tree / file).chmod(0)
    try:
        result = subprocess.run(
            [*as_nobody(), sys.executable, "-B", "-c",
             "from pathlib import Path; from host import ui\nfrom vm import kernels\n"
             "ui.main(lambda: kernels._tree_to_build_for("
             f"{str(tree)!r}).has('CONFIG_VDPA'))"],
            text=True, stderr=subprocess.PIPE,
            env=plain_environment(PYTHONPATH=str(TOP / "tools")))
    finally:
        (tree / file).chmod(0o755)
    assert result.returncode == 2, result.stderr
    if file == ".config":
        assert re.match(rf"error: cannot access {tree}/\.config: Permission denied; give "
                        r"user id \d+ access to it$", result.stderr)
    else:
        assert re.match(rf"error: cannot read {tree}/\S+: Permission denied; make the "
                        rf"kernel build tree {tree} readable for user id", result.stderr)


def test_file_that_cannot_be_written(foreign_tree: Path) -> None:
    """A file of the repository that a tool cannot write is reported as such."""
    line = reported(*as_nobody(), sys.executable, "-B", "-c",
                    "from host import ui; from pathlib import Path\n"
                    f"ui.main(Path({str(foreign_tree)!r}, 'new').touch)",
                    PYTHONPATH=str(foreign_tree / "tools"))
    assert line.startswith(f"error: cannot write to {foreign_tree}/new: Permission "
                           "denied; make it writable for user id ")


# A cache that was copied

def test_cache_behind_a_link(tmp_path: Path, monkeypatch, capsys) -> None:
    """A build tree in a cache behind a link has not moved: kbuild records real paths."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "link"))
    real = tmp_path / "real/virtio-blk-mq"
    build = cache.root() / "linux-source-7.3-lean"
    build.mkdir()
    (build / "source").symlink_to(real / "linux-source-7.3")
    source = cache.populate("linux-source-7.3", lambda path: None, mib=1)
    assert moved.old_cache(build, source) is None
    moved.follow(build, source)
    assert capsys.readouterr().err == ""


def test_cache_moved_to_a_longer_path(tmp_path: Path, monkeypatch) -> None:
    """Paths that have the old one in them are changed once, also after an interruption."""
    top = Path(f"{tmp_path}/backup{tmp_path}")
    source, build = top / "linux-source-7.3", top / "linux-source-7.3-lean"
    build.mkdir(parents=True)
    (build / "source").symlink_to(tmp_path / "linux-source-7.3")
    (build / "link").symlink_to(tmp_path / "linux-source-7.3/file")
    for name in ("a.cmd", "b.cmd"):
        (build / name).write_text(f"gcc -I{tmp_path}/linux-source-7.3/include\n")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(moved, "_link", Mock(side_effect=KeyboardInterrupt))
        moved.follow(build, source)
    moved.follow(build, source)
    for name in ("a.cmd", "b.cmd"):
        assert (build / name).read_text() == f"gcc -I{source}/include\n"
    assert os.readlink(build / "link") == f"{source}/file"
    assert os.readlink(build / "source") == str(source)


def test_lists_of_a_copied_cache(empty_cache: Path, monkeypatch) -> None:
    """apt finds its lists where the cache is now, and not where its file says."""
    monkeypatch.setenv("DEBIAN_MIRROR", "http://archive.invalid/debian")
    old, here = "/nonexistent/apt", empty_cache / "apt"
    (here / "lists/partial").mkdir(parents=True)
    (here / "apt.conf").write_text(
        debian._CONF.format(arch="amd64")
        + f'Dir::State "{old}";\nDir::State::lists "{old}/lists";\n'
        f'Dir::Cache "{old}";\nDir::Etc::sourcelist "{old}/sources.list";\n')
    (here / "sources.list").write_text(debian.sources())
    name = "archive.invalid_debian_dists_trixie-backports_main_binary-amd64_Packages"
    (here / "lists" / name).write_text(
        "Package: linux-source-7.3\nVersion: 7.3.4-1\nArchitecture: all\n"
        "Filename: pool/x.deb\nSize: 5\n"
        "Description: source\nSHA256: " + "0" * 64 + "\n")
    for name in ("status", "updated"):
        (here / name).touch()
    debian._stanzas.cache_clear()
    found = debian.newest("linux-source-7.3", "LINUX_SOURCE")
    assert (found.version, found.size) == ("7.3.4-1", 5)


def test_build_tree_of_a_copied_cache(empty_cache: Path, monkeypatch, capsys) -> None:
    """A kernel's build tree follows its cache, with a message, and is kept."""
    source, build = (empty_cache / f"linux-source-7.3{end}" for end in ("", "-lean"))
    (build / "kernel").mkdir(parents=True)
    old = "/old/virtio-blk-mq"
    (build / "source").symlink_to(f"{old}/linux-source-7.3")
    (build / "Makefile").write_text(f"include {old}/linux-source-7.3/Makefile\n")
    record = build / "kernel/.fork.o.cmd"
    record.write_text(f"savedcmd := gcc -I{old}/linux-source-7.3/include\n")
    os.utime(record, (1, 1))
    fragments = [TOP / f"tools/vm/kconfig/{part}.config" for part in ("host", "lean")]
    (build / ".configured").write_text(kernels._digest(
        [*fragments, TOP / "Kconfig", TOP / "drivers/vdpa/vdpa_blk/Kconfig"]))
    monkeypatch.setattr(kernels, "source", lambda: source)
    assert kernels.configure("7.3") == (source, build)
    assert os.readlink(build / "source") == str(source)
    assert (build / "Makefile").read_text() == f"include {source}/Makefile\n"
    assert record.read_text() == f"savedcmd := gcc -I{source}/include\n"
    assert record.stat().st_mtime == 1
    said = capsys.readouterr().err
    assert f"linux-source-7.3-lean was built in {old}: changing its paths" in said
    kernels.configure("7.3")
    assert capsys.readouterr().err == ""


# Guests of other programs

def test_guest_of_another_pid_namespace(tmp_path: Path, monkeypatch) -> None:
    """A program in another PID namespace leaves the directory of a live guest alone."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    directory = process.work_directory()
    (directory / "console").touch()
    subprocess.run(
        [*in_namespace("--pid", "--fork", "--mount-proc"), sys.executable, "-B", "-c",
         "from host import process; process.work_directory()"], check=True,
        env={**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(TOP / "tools")})
    assert (directory / "console").exists()


def test_directory_of_a_killed_program(tmp_path: Path, monkeypatch) -> None:
    """The next program removes the directory of a killed one, and no other."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    own = process.work_directory()
    killed = subprocess.run(
        [sys.executable, "-B", "-c", "import os, signal\nfrom host import process\n"
         "print(process.work_directory(), flush=True)\n"
         "os.kill(os.getpid(), signal.SIGKILL)"], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(TOP / "tools")})
    left = Path(killed.stdout.strip())
    assert killed.returncode == -signal.SIGKILL and left.parent == tmp_path
    new = process.work_directory()
    assert sorted(tmp_path.iterdir()) == sorted([own, new])
    for path in (own, new):
        process.remove_work_directory(path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number,kind", ((errno.ENOLCK, UserError),
                                         (errno.EMFILE, OSError)))
def test_directory_that_cannot_be_locked(tmp_path: Path, monkeypatch, number: int,
                                         kind: type[Exception]) -> None:
    """Only a file system without locks is reported as one, and nothing is left."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(process, "_lock", Mock(side_effect=OSError(number, "reason")))
    with pytest.raises(kind, match="reason; set TMPDIR" if kind is UserError else "reason"):
        process.work_directory()
    assert not list(tmp_path.iterdir())


# Disks

@pytest.mark.parametrize("machine,root,most,way_out", (
    ("q35", "scsi", 96, ""), ("pc", "scsi", 28, "q35, which takes 96"),
    ("pc", "initramfs", 29, "q35, which takes 96"),
    ("microvm", "initramfs", 23, "q35, which takes 96")))
def test_more_disks_than_a_machine_takes(machine: str, root: str, most: int,
                                         way_out: str) -> None:
    """Too many disks are an error before QEMU starts; it takes as many as that says."""
    kernel = kernels.Kernel("fake", "6.12.1", None, None, Path("/"), False)
    disks = [Disk(f"d{number}") for number in range(most + 2)]
    options: Any = {"machine": machine, "root": root, "driver": None}
    with pytest.raises(UserError, match=f"^the guest has {most + 2} disks; the machine "
                       f"{machine} takes at most {most}; leave out 2 of them.*"
                       f"{way_out}$"):
        Guest(kernel, disks=disks, **options)
    disks = disks[:most]
    Guest(kernel, disks=disks, **options)
    slots = qemu.Slots(machine, {disk.id: disk for disk in disks})
    started = subprocess.run(
        [*qemu_dist.find(), "-nodefaults", "-no-user-config", "-display", "none", "-S",
         "-accel", "tcg", "-m", "64", "-machine", qemu.MACHINES[machine],
         "-device", f"virtio-serial-{slots.transport}",
         *(["-device", f"virtio-scsi-{slots.transport}"] if root == "scsi" else []),
         *slots.options(),
         *(word for disk in disks for word in qemu.disk_options(disk, slots)),
         "-monitor", "stdio"], input="quit\n", text=True, timeout=60,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert (started.returncode, started.stderr) == (0, "")


# Paths

def test_repository_whose_path_has_a_space(tmp_path: Path) -> None:
    """The path, its character and the way out are reported before a download."""
    tree = tmp_path / "two words"
    shutil.copytree(TOP, tree, ignore=LEFT_OUT)
    for words in (["modules", f"KDIR={build_tree(tmp_path / 'linux')}"], ["modules"],
                  ["run"], ["shell"], ["check"], ["check-arch"], ["budget"], ["bench"]):
        line = reported("make", "-C", tree, *words,
                        XDG_CACHE_HOME=str(tmp_path / "cache"))
        assert f"the path '{tree}' has the character ' ', with which" in line
        assert "move the repository" in line
    assert not list((tmp_path / "cache").glob("*/linux*"))


@pytest.mark.parametrize("name", ("two words", "a,b", "it's", "a(b", "a#b", "a=b"))
def test_cache_whose_path_has_a_character(tmp_path: Path, name: str) -> None:
    """A cache that kbuild cannot work in is reported with the way out."""
    line = reported("make", "-C", TOP, "modules", XDG_CACHE_HOME=str(tmp_path / name))
    assert repr(f"{tmp_path}/{name}/virtio-blk-mq") in line
    assert "set XDG_CACHE_HOME to another directory" in line


def test_packages_with_a_cache_whose_path_has_a_character(tmp_path: Path,
                                                          monkeypatch) -> None:
    """The host's packages are installed with any path of the cache: kbuild is not used."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "two, words"))
    monkeypatch.setattr(deps, "which", lambda program: f"/usr/bin/{program}")
    monkeypatch.setattr(deps, "_as_root", lambda: [])
    monkeypatch.setattr(deps, "_run", lambda argv: subprocess.CompletedProcess(argv, 0))
    deps.install(["virtio-none"])
    assert (tmp_path / "two, words/virtio-blk-mq/.apt-get.lock").exists()


def test_build_tree_whose_path_has_a_space(tmp_path: Path) -> None:
    """A kernel's build tree that kbuild cannot work in is reported."""
    tree = build_tree(tmp_path / "two words", "6.12.1-reports")
    try:
        with pytest.raises(UserError, match="two words' has the character ' '.*move "
                                            "the kernel's build tree"):
            kernels.compile_module(tree, tmp_path / "out")
    finally:
        shutil.rmtree(tmp_path / "out", ignore_errors=True)


# Kernels of Debian 13

RELEASE = "7.3.4+deb13-cloud-amd64"
SPLIT = tuple(f"linux-{part}-{RELEASE} 7.3.4-1~bpo13+1"
              for part in ("image", "binary", "modules", "headers"))
KBUILD = f"usr/lib/linux-kbuild-{RELEASE.removesuffix('-cloud-amd64')}"


def unpack(packages: list[debian.Package], directory: Path) -> None:
    """Write the files that matter of a kernel's packages to a directory."""
    names = {package.name.split("-7")[0] for package in packages}
    files = {}
    if "linux-binary" in names:
        bz_image(directory / "image", bytes(64))
        files[f"usr/lib/modules/{RELEASE}/vmlinuz"] = (directory / "image").read_bytes()
        (directory / "image").unlink()
    if "linux-modules" in names:
        files[f"usr/lib/modules/{RELEASE}/kernel/none"] = b""
        files[f"usr/lib/modules/{RELEASE}/modules.order"] = b""
        files[f"usr/lib/modules/{RELEASE}/modules.builtin"] = b""
    if "linux-headers" in names:
        headers = f"usr/src/linux-headers-{RELEASE}"
        files[f"{headers}/Makefile"] = (f"KBUILD_OUTPUT=/{headers}\n"
                                        "include /usr/src/common/Makefile\n").encode()
        files[f"{headers}/.kernelvariables"] = \
            b"override CROSS_COMPILE = x86_64-linux-gnu-\n"
        libraries = "usr/lib/x86_64-linux-gnu"
        for name in ("ld-linux-x86-64.so.2", "libc.so.6"):
            files[f"{libraries}/{name}"] = \
                Path("/lib/x86_64-linux-gnu", name).read_bytes()
        files[f"{KBUILD}/scripts/basic/fixdep"] = Path("/bin/echo").read_bytes()
        files["usr/libexec/gcc/x86_64-linux-gnu/14/cc1"] = b"no program"
    for name, data in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(0o755)


@pytest.fixture
def debian13(empty_cache: Path, monkeypatch):
    """A function that puts packages of Debian 13 into the archive."""
    def put(*packages: str) -> None:
        archive(monkeypatch, *packages)
        monkeypatch.setattr(debian, "unpack", unpack)
        monkeypatch.setattr(debian, "closure", lambda names, suite, arch: [
            debian.Package(name, "7.3.4-1~bpo13+1", 1, arch) for name in names])

    return put


def test_kernel_whose_packages_are_split(debian13) -> None:
    """A kernel of Debian 13 is found with image, modules and headers."""
    debian13(*SPLIT)
    kernel = kernels.find(f"linux-image-{RELEASE}")
    assert kernel.release == RELEASE
    assert kernel.image == kernel.bzimage and kernel.bootable().exists()
    assert kernel.modules is not None
    assert (kernel.modules / f"lib/modules/{RELEASE}/modules.dep").exists()
    makefile = (kernel.build / "Makefile").read_text()
    assert "KBUILD_OUTPUT := $(abspath $(dir " in makefile


def test_programs_of_debian_13_run(debian13, tmp_path: Path) -> None:
    """A program of the headers runs with their C library, also in a copied cache."""
    debian13(*SPLIT)
    kernel = kernels.find(f"linux-image-{RELEASE}")
    assert kernel.modules is not None
    copy = shutil.copytree(kernel.modules, tmp_path / "copy", symlinks=True)
    shutil.rmtree(kernel.modules)
    fixdep = copy / KBUILD / "scripts/basic/fixdep"
    assert subprocess.check_output([fixdep, "a  b", "c"], text=True) == "a  b c\n"
    (copy / "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2").unlink()
    assert subprocess.run([fixdep], stderr=subprocess.PIPE).returncode
    shown = subprocess.check_output(
        ["make", "-s", "-f", "-", "show"], text=True,
        input=f"include {copy}/usr/src/linux-headers-{RELEASE}/.kernelvariables\n"
              "show: ; @echo $(CROSS_COMPILE) $(PAHOLE)\n")
    assert shown == f"{copy}/usr/bin/x86_64-linux-gnu- {copy}/usr/bin/pahole\n"


@pytest.mark.parametrize("part", ("binary", "modules", "headers"))
def test_kernel_with_a_part_missing(debian13, part: str) -> None:
    """A kernel without one of its packages is an error with the name of that."""
    debian13(*(package for package in SPLIT if part not in package))
    with pytest.raises(UserError, match=re.escape(f"no package linux-{part}-{RELEASE} ")
                       + ".*trixie-backports for amd64; set KERNEL to"):
        kernels.find(f"linux-image-{RELEASE}")


def test_kernel_of_debian_13_for_another_architecture(debian13) -> None:
    """Kernels of Debian 13 for other architectures are refused with the way out."""
    debian13()
    name = "linux-image-7.3.4+deb13-cloud-arm64"
    with pytest.raises(UserError, match="only those for amd64 can be used; choose"):
        kernels.find(name)


# Patches

def test_patch_without_its_source(empty_cache: Path, closed_port: int) -> None:
    """make patch ends with the error that its source could not be had."""
    mirror = f"http://127.0.0.1:{closed_port}/debian"
    result = subprocess.run(
        ["make", "-C", TOP, "patch", f"DEBIAN_MIRROR={mirror}"], text=True, timeout=60,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env=plain_environment())
    lines = [line for line in result.stdout.splitlines()
             if not re.match(r"make(\[\d+\])?: |  ", line)]
    assert result.returncode == 2 and len(lines) == 1, result.stdout
    assert lines[0].startswith(f"error: cannot reach Debian's archive at {mirror}")
