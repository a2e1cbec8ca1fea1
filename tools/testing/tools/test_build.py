# SPDX-License-Identifier: GPL-2.0
"""Building, and the messages when a build is not possible.

No test here needs the network, or anything in the cache.
"""

import contextlib
import gzip
import os
import re
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from host import cache, debian, deps, process
from host.ui import UserError
from testing.environment import plain_environment
from vm import compiler, elf_image, kernels

TOP = Path(__file__).resolve().parents[3]
NOBODY = 65534


def python(code, *prefix, **environment):
    """Run Python code in a new process, with the tools' modules."""
    return subprocess.run(
        [*prefix, sys.executable, "-B", "-c",
         "from host import cache, debian, deps, ui\nfrom vm import kernels\n" + code],
        text=True, stdin=subprocess.DEVNULL, capture_output=True, timeout=60,
        env={**os.environ, "PYTHONPATH": str(TOP / "tools"), **environment})


def make(*words, **environment):
    """Run the repository's own make."""
    return subprocess.run(
        ["make", "-C", TOP, *words], text=True, stdin=subprocess.DEVNULL,
        capture_output=True, timeout=60, env=plain_environment(**environment))


def open_to_all(directory):
    """Let each user reach and read a directory that pytest made for a test."""
    for path in (directory, *directory.parents[:4]):
        if path.stat().st_mode & 0o055 != 0o055:
            path.chmod(path.stat().st_mode | 0o055)


# The cache

def test_cache_is_filled_once(empty_cache):
    """populate() builds an entry the first time only, in a temporary directory."""
    calls = []

    def build(path):
        calls.append(path)
        (path / "file").write_text("done")

    for _ in range(2):
        assert (cache.populate("thing", build, mib=1) / "file").read_text() == "done"
    assert len(calls) == 1
    assert calls[0] != empty_cache / "thing"


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, ValueError])
def test_cache_drops_what_was_interrupted(empty_cache, interruption):
    """An interrupted build leaves nothing in the cache except its lock."""
    def build(path):
        (path / "half").write_text("done")
        raise interruption

    with pytest.raises(interruption):
        cache.populate("thing", build, mib=1)
    assert [path.name for path in empty_cache.iterdir()] == [".thing.lock"]


def test_cache_clears_what_a_killed_process_left(empty_cache):
    """The next build removes the remains of a build that was killed."""
    code = ("import os, signal\n"
            "def build(path):\n"
            "    (path / 'half').touch()\n"
            "    os.kill(os.getpid(), signal.SIGKILL)\n"
            "cache.populate('thing', build, mib=1)")
    assert python(code).returncode == -9
    assert not (empty_cache / "thing").exists()
    path = cache.populate("thing", lambda path: (path / "whole").touch(), mib=1)
    assert [entry.name for entry in path.iterdir()] == ["whole"]
    assert sorted(entry.name for entry in empty_cache.iterdir()) == [
        ".thing.lock", "thing"]


def test_cache_is_filled_by_one_process_at_a_time(empty_cache, tmp_path):
    """Of two processes that need an entry at the same time one builds it."""
    log = tmp_path / "log"
    # The build ends when /proc/locks shows that the other process waits for the lock.
    code = ("import os\n"
            "from host import process\n"
            "lock = cache.root() / '.thing.lock'\n"
            "def awaited():\n"
            "    inode = f':{os.stat(lock).st_ino} '\n"
            "    return any('->' in line and inode in line\n"
            "               for line in open('/proc/locks'))\n"
            "def build(path):\n"
            f"    open({str(log)!r}, 'a').write('built\\n')\n"
            "    process.wait_for(awaited, 5)\n"
            "cache.populate('thing', build, mib=1)")
    both = [subprocess.Popen(
                [sys.executable, "-B", "-c", "from host import cache\n" + code],
                env={**os.environ, "PYTHONPATH": str(TOP / "tools")})
            for _ in range(2)]
    assert [process.wait(timeout=30) for process in both] == [0, 0]
    assert log.read_text() == "built\n"


def on_small_disk(code, directory):
    """Run Python code with its cache on a file system of 8 MiB."""
    directory.mkdir()
    mapped = [] if os.geteuid() == 0 else ["--map-root-user"]
    script = ('mount -t tmpfs -o size=8m none "$XDG_CACHE_HOME" || exit 99\n'
              'exec "$@"')
    result = python(code, "unshare", "--mount", *mapped, "sh", "-c", script, "sh",
                    XDG_CACHE_HOME=str(directory))
    assert result.returncode != 99, result.stderr
    return result


def test_too_little_disk_before_download(tmp_path):
    """Too little disk space is an error with both sizes, before any download."""
    result = on_small_disk("ui.main(lambda: kernels.find('6.12'))",
                           tmp_path / "small")
    assert result.returncode == 2
    assert re.search(r"small\S* has \d MiB free and \d+ MiB are needed.*"
                     "XDG_CACHE_HOME", result.stderr)
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("write", [
    "(path / 'big').write_bytes(bytes(20 << 20))",
    "subprocess.run(['dd', 'if=/dev/zero', f'of={path}/big', 'bs=1M'], "
    "check=True, stderr=subprocess.DEVNULL)",
])
def test_disk_that_fills_up_during_build(tmp_path, write):
    """A disk that fills up during a build is an error, and the build is removed."""
    code = ("import os, subprocess\n"
            "def build(path):\n"
            f"    {write}\n"
            "try:\n"
            "    cache.populate('thing', build, mib=4)\n"
            "except ui.UserError as error:\n"
            "    print(error)\n"
            "print(os.listdir(cache.root()))")
    result = on_small_disk(code, tmp_path / "small")
    message, left = result.stdout.splitlines()
    assert "full" in message and "XDG_CACHE_HOME" in message
    assert left == "['.thing.lock']"


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user takes root")
def test_cache_that_cannot_be_written(tmp_path):
    """A cache directory without write permission is an error with its path."""
    result = python("import os\n"
                    f"os.setuid({NOBODY})\n"
                    "ui.main(cache.root)", XDG_CACHE_HOME="/proc/1")
    assert result.returncode == 2
    assert "/proc/1" in result.stderr and "XDG_CACHE_HOME" in result.stderr


# The network, and Debian's archive

def test_no_network(empty_cache, closed_port):
    """Without a network make fails within 30 s, and names the mirror."""
    mirror = f"http://127.0.0.1:{closed_port}/debian"
    start = time.monotonic()
    result = make("modules", "KERNEL=6.12", f"DEBIAN_MIRROR={mirror}")
    assert time.monotonic() - start < 30
    assert result.returncode == 2
    assert mirror in result.stderr and "DEBIAN_MIRROR" in result.stderr
    assert "Traceback" not in result.stderr
    left = {path.name for path in empty_cache.iterdir()}
    assert left == {"apt", ".apt.lock", ".linux-6.12.lock"}


def test_no_mirror_known(empty_cache, tmp_path):
    """Without any known mirror the error asks for DEBIAN_MIRROR."""
    nothing = tmp_path / "apt.conf"
    nothing.write_text('Dir::Etc::sourcelist "/dev/null";\n'
                       'Dir::Etc::sourceparts "/dev/null";\n')
    result = python("ui.main(debian.mirrors)", APT_CONFIG=str(nothing),
                    DEBIAN_MIRROR="")
    assert result.returncode == 2
    assert "DEBIAN_MIRROR" in result.stderr


def test_mirror_that_is_no_address(monkeypatch):
    """A DEBIAN_MIRROR that is no URL is an error with its value."""
    monkeypatch.setenv("DEBIAN_MIRROR", "somewhere")
    with pytest.raises(UserError, match="DEBIAN_MIRROR is 'somewhere'"):
        debian.mirrors()


def archive(monkeypatch, *packages):
    """Replace the archive by one with these packages, given as 'name version'."""
    stored = [debian.Package(*package.split(), 1) for package in packages]
    monkeypatch.setattr(debian, "versions", lambda pattern, arch: [
        package for package in stored if re.fullmatch(pattern, package.name)])
    monkeypatch.setattr(debian, "mirrors", lambda: ("http://archive", "-"))


def test_release_that_is_incomplete_is_passed_over(monkeypatch):
    """A release without all of its packages is skipped for an older complete one."""
    archive(monkeypatch,
            "linux-image-6.12.9+deb12-cloud-amd64 6.12.9-1",
            "linux-headers-6.12.9+deb12-common 6.12.9-1",
            "linux-kbuild-6.12.9+deb12 6.12.9-1",
            "linux-image-6.12.8+deb12-cloud-amd64-unsigned 6.12.8-1",
            "linux-headers-6.12.8+deb12-cloud-amd64 6.12.8-1",
            "linux-headers-6.12.8+deb12-common 6.12.8-1",
            "linux-kbuild-6.12.8+deb12 6.12.8-1")
    packages = kernels._packages(r"linux-image-6\.12\..*")
    assert len(packages) == 4
    assert {package.version for package in packages} == {"6.12.8-1"}


def test_kernel_without_package(empty_cache, monkeypatch):
    """A kernel that no suite has is an error that names the suites and KERNEL."""
    archive(monkeypatch, "linux-image-6.11.1-cloud-amd64 6.11.1-1")
    with pytest.raises(UserError) as caught:
        kernels.find("6.12")
    message = str(caught.value)
    assert "linux-image-6.12" in message and "set KERNEL to" in message
    assert all(suite in message for suite in debian.SUITES)
    assert [path.name for path in empty_cache.iterdir()] == [".linux-6.12.lock"]


def test_superseded_package_is_looked_for_again(monkeypatch):
    """When a package is no longer in the archive, its lists are refreshed once."""
    calls = []
    monkeypatch.setattr(debian, "refresh",
                        lambda force, arch: calls.append(arch))

    def download():
        if not calls:
            raise FileNotFoundError
        return "next release"

    assert debian.current(download) == "next release"
    assert calls == ["amd64"]


def test_source_package_that_is_not_one(monkeypatch):
    """A LINUX_SOURCE that is unsupported, or no package name, is an error."""
    monkeypatch.setenv("LINUX_SOURCE", "linux-source-5.10")
    with pytest.raises(UserError, match="linux-source-5.10.*supports 6.1 to 7.3"):
        kernels.source()
    monkeypatch.setenv("LINUX_SOURCE", "../linux")
    with pytest.raises(UserError, match="LINUX_SOURCE"):
        kernels.source()


# The host

def without_sudo(tmp_path):
    """Return a PATH with the programs that the tools run, and no sudo."""
    directory = tmp_path / "bin"
    directory.mkdir()
    for program in ("apt-get", "id", "tail", "sh", "env", "dirname"):
        (directory / program).symlink_to(shutil.which(program))
    open_to_all(directory)
    return str(directory)


def drop_root():
    """Return code that makes a process run as the user nobody."""
    return f"import os; os.geteuid() or os.setuid({NOBODY})\n"


def test_no_root_and_no_sudo():
    """Without root and sudo the error has the command that installs the packages."""
    result = python(drop_root() + "deps.which = lambda name: "
                    "None if name == 'sudo' else '/usr/bin/apt-get'\n"
                    "ui.main(lambda: deps.install(['virtio-none']))")
    assert result.returncode == 2
    assert "virtio-none" in result.stderr
    assert "root or sudo" in result.stderr
    assert "apt-get install --no-install-recommends virtio-none" in result.stderr


def test_nothing_is_run_when_nothing_is_missing(monkeypatch):
    """need() installs nothing if all programs are there."""
    monkeypatch.setattr(deps, "install", lambda packages: pytest.fail(packages))
    deps.need({"sh": "dash", "/usr/bin/env": "coreutils"})


def test_only_what_is_missing_is_installed(monkeypatch):
    """need() installs the packages of the missing programs only."""
    asked = []
    monkeypatch.setattr(deps, "install", asked.append)
    deps.need({"sh": "dash", "no-such-program": "b", "/no/such/file": "a"})
    assert asked == [["a", "b"]]


@pytest.mark.parametrize("age,fails,wanted", (
    (None, (), ["update", "install"]),
    (60, (), ["install"]),
    (60, ("install",), ["install", "update", "install"]),
    (2 * 3600, (), ["update", "install"]),
    (None, ("update",), ["update", "install"])), ids=(
        "never", "lately", "lately but too old", "long ago", "without network"))
def test_update_of_the_list_of_packages(monkeypatch, tmp_path, age, fails, wanted):
    """apt-get update runs if it has not lately, or if the installation fails without.

    What apt-get returns is a stand-in's: a real one would change the host.
    """
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    stamp = cache.root() / ".apt-get.updated"
    ran, left = [], list(fails)
    if age is not None:
        stamp.touch()
        os.utime(stamp, (time.time() - age,) * 2)

    def run(argv):
        ran.append("update" if "update" in argv else "install")
        failed = ran[-1] in left
        if failed:
            left.remove(ran[-1])
        return subprocess.CompletedProcess(argv, int(failed), "")

    monkeypatch.setattr(deps, "_run", run)
    monkeypatch.setattr(deps, "_as_root", lambda: [])
    deps.install(["virtio-none"])
    assert ran == wanted
    assert stamp.exists() == ("update" not in fails)


def test_no_python_and_no_root(tmp_path):
    """Without Python and root the error has the command that installs Python."""
    if os.geteuid():
        pytest.skip("hiding Python takes root")
    script = ('mount --bind /dev/null /usr/bin/python3 && '
              f'exec setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups '
              'env PATH="$1" sh -s')
    with (TOP / "tools/host/bootstrap").open() as bootstrap:
        result = subprocess.run(
            ["unshare", "--mount", "sh", "-c", script, "sh",
             without_sudo(tmp_path)],
            text=True, stdin=bootstrap, capture_output=True, timeout=30)
    assert result.returncode == 2
    assert "python3 is missing" in result.stderr
    assert "apt-get install --no-install-recommends python3" in result.stderr


# Kernels

def test_build_of_unknown_kernel():
    """An unknown KERNEL is an error with all known names."""
    result = make("modules", "KERNEL=5.4")
    assert result.returncode == 2
    assert "KERNEL is '5.4'" in result.stderr
    assert all(name in result.stderr
               for name in kernels.NAMES + kernels.MEASURING)
    assert "Traceback" not in result.stderr


def test_unsupported_package():
    """A kernel package of an unsupported version is an error with the range."""
    with pytest.raises(UserError, match="supports 6.1 to 7.3"):
        kernels.find("linux-image-5.10.0-1-amd64")


def build_tree(directory, release="6.12.1", without=None):
    """Make a directory that looks like a prepared kernel build tree."""
    for name in ("Makefile", ".config", "include/generated/autoconf.h",
                 "include/config/kernel.release", "scripts/mod/modpost",
                 "Module.symvers"):
        if name != without:
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            (directory / name).write_text(f"{release}\n")
    return directory


@pytest.mark.parametrize("release", ["5.15.0-1", "6.0.19", "7.4.0-rc1", "nonsense"])
def test_unsupported_version(tmp_path, release):
    """A KDIR of an unsupported version is an error with the range; nothing is built."""
    tree = build_tree(tmp_path / "tree", release)
    result = make("modules", f"KDIR={tree}")
    assert result.returncode == 2
    assert f"is Linux {release}" in result.stderr
    assert "6.1 to 7.3" in result.stderr
    assert not (TOP / "build" / release).exists()


@pytest.mark.parametrize("file", ["Makefile", ".config", "Module.symvers",
                                  "include/generated/autoconf.h",
                                  "scripts/mod/modpost"])
def test_headers_missing(tmp_path, file):
    """A KDIR without one of its files is an error with the file, and builds nothing."""
    tree = build_tree(tmp_path / "tree", "6.12.1-headless", without=file)
    result = make("modules", f"KDIR={tree}")
    assert result.returncode == 2
    assert str(tree) in result.stderr and f"no {file}" in result.stderr
    assert "headers" in result.stderr
    assert not (TOP / "build/6.12.1-headless").exists()


def test_kdir_is_not_there(tmp_path):
    """A KDIR that does not exist is an error with its path."""
    result = make("modules", f"KDIR={tmp_path}/nowhere")
    assert result.returncode == 2
    assert "nowhere" in result.stderr and "no directory" in result.stderr


# Another distribution

def other_distribution(directory, *more):
    """Return a PATH with what this host has, except apt, dpkg and any compiler.

    more: pairs of a name and the program that it is a link to.
    """
    directory.mkdir()
    for path in [*Path("/usr/bin").iterdir(), *Path("/usr/sbin").iterdir()]:
        if not re.match(r"apt|dpkg|sudo|.*(gcc|g\+\+|clang|cpp|cc)(-|$)", path.name) \
                and not (directory / path.name).exists():
            (directory / path.name).symlink_to(path)
    for name, program in more:
        (directory / name).symlink_to(program)
    return str(directory)


def headers(directory, release, built_with):
    """Copy the headers of 6.12 for another release and compiler; return their tree."""
    own = kernels.find("6.12").build
    tree = directory / own.name
    shutil.copytree(own, tree, symlinks=True)
    for path in own.parent.glob("linux-*"):
        if path != own:
            (directory / path.name).symlink_to(path)
    for link in tree.iterdir():
        if link.is_symlink():
            target = (own / link.name).resolve()
            link.unlink()
            link.symlink_to(target)
    (tree / "include/config/kernel.release").write_text(f"{release}\n")
    config = (tree / ".config").read_text()
    (tree / ".config").write_text(re.sub(
        "(?m)^CONFIG_CC_VERSION_TEXT=.*", f'CONFIG_CC_VERSION_TEXT="{built_with}"',
        config))
    return tree


@pytest.mark.full
@pytest.mark.module
def test_modules_without_apt(tmp_path):
    """make modules KDIR= needs no apt, and runs the compiler that the kernel names.

    There is no gcc by any other name.
    """
    deps.need("build")
    tree = headers(tmp_path, "6.12.1-other", "mycc (Distribution 12.2) 12.2.0")
    path = other_distribution(tmp_path / "bin", ("mycc", shutil.which("gcc-12")))
    try:
        result = subprocess.run(
            ["make", "-C", TOP, "modules", f"KDIR={tree}", "NAME=vdpa_blk"], text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            timeout=300, env=plain_environment(PATH=path))
        assert result.returncode == 0, result.stdout
        assert (TOP / "build/6.12.1-other/vdpa/vdpa_blk.ko").exists()
    finally:
        shutil.rmtree(TOP / "build/6.12.1-other", ignore_errors=True)


def test_modules_without_a_compiler(tmp_path):
    """Without the kernel's compiler and apt the error names it and the way out."""
    tree = build_tree(tmp_path / "tree", "6.12.1-other")
    (tree / ".config").write_text('CONFIG_CC_VERSION_TEXT="mycc (Dist 12.2) 12.2.0"\n')
    result = make("modules", f"KDIR={tree}",
                  PATH=other_distribution(tmp_path / "bin"))
    assert result.returncode == 2
    assert "compiled with 'mycc (Dist 12.2) 12.2.0'" in result.stderr
    assert "CC=" in result.stderr and "apt" not in result.stderr


@pytest.mark.parametrize("programs, options, built_with, words", [
    ("gcc gcc-12", "", "x86_64-linux-gnu-gcc-12 (Debian 12.2.0) 12.2.0", ["CC=gcc-12"]),
    ("gcc", "", "gcc (GCC) 15.1.1 20250521 (Red Hat 15.1.1-2)", ["CC=gcc"]),
    ("gcc", "", "x86_64-linux-gnu-gcc-13 (Ubuntu 13.2.0) 13.2.0", ["CC=gcc"]),
    ("clang ld.lld", "CONFIG_LD_IS_LLD=y\n", "clang version 18.1.8", ["LLVM=1"]),
    ("clang-18 ld.lld-18", "CONFIG_LD_IS_LLD=y\n", "Ubuntu clang version 18.1.3",
     ["LLVM=-18"]),
    ("clang gcc", "", "Debian clang version 14.0.6", ["CC=clang"]),
])
def test_compiler_of_a_kernel(tmp_path, monkeypatch, programs, options, built_with,
                              words):
    """The compiler is the one that built the kernel, or a gcc if that one is missing."""
    for name in ("CC", "LLVM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(deps, "which", lambda name: name in [*programs.split(), "make",
                                                             "ld"] or None)
    if "clang" in built_with:
        options += "CONFIG_CC_IS_CLANG=y\n"
    (tmp_path / ".config").write_text(
        f'CONFIG_CC_VERSION_TEXT="{built_with}"\n{options}')
    assert compiler.words(tmp_path) == words
    monkeypatch.setenv("CC", "mine")
    assert compiler.words(tmp_path) == ["CC=mine"]


@pytest.mark.parametrize("line", [
    "/b/drivers/block/virtio_blk/io.c:3:1: warning",
    "io.c:3:1: warning",
])
def test_compiler_names_the_original(line):
    """Messages of the compiler have the path of a source in the repository."""
    assert kernels._as_in_repository(line, Path("/b")) == \
        "drivers/block/virtio_blk/io.c:3:1: warning"


@pytest.mark.parametrize("line", [
    "/b/include/compat/linux/blkdev.h:3:1: warning",
    "././../../../include/compat/linux/blkdev.h:3:1: warning",
])
def test_compiler_names_the_original_header(line):
    """Messages of the compiler have the path of a header in the repository."""
    assert kernels._as_in_repository(line, Path("/b")) == \
        "include/compat/linux/blkdev.h:3:1: warning"


def test_option_the_source_does_not_know(tmp_path):
    """Options that a kernel's .config does not have are an error with their names."""
    config = tmp_path / ".config"
    config.write_text("CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_D=m\n")
    kernels._check("CONFIG_A=y\n# CONFIG_B is not set\n# CONFIG_C is not set\n",
                   config)
    with pytest.raises(UserError, match="CONFIG_C=y, # CONFIG_D is not set;"):
        kernels._check("CONFIG_C=y\n# CONFIG_D is not set\n", config)


def test_later_options_override():
    """When fragments are merged, the last value of an option wins."""
    assert kernels._merge(["# A text\nCONFIG_A=y\nCONFIG_B=y\n",
                           "CONFIG_A=m\n# CONFIG_B is not set\nCONFIG_C=1\n"]) \
        == "CONFIG_A=m\n# CONFIG_B is not set\nCONFIG_C=1\n"


def test_options_of_the_kernels_built_here():
    """Kernels built here are known; those for measuring have the driver as a module."""
    for name in kernels._OPTIONS:
        assert name in (*kernels.NAMES, *kernels.MEASURING, kernels.NESTED)
    for name in kernels.MEASURING:
        text = [(TOP / f"tools/vm/kconfig/{part}.config").read_text()
                for part in kernels._OPTIONS[name]]
        options = kernels._merge(text).splitlines()
        assert "CONFIG_VIRTIO_BLK=m" in options
        assert "CONFIG_VIRTIO_BLK=y" not in options
        assert f'CONFIG_LOCALVERSION="{name.removeprefix("7.3")}"' in options


def test_kernel_that_is_not_built_here(monkeypatch):
    """make kernel refuses a kernel of Debian's, and names those that it builds."""
    monkeypatch.setattr(sys, "argv", ["kernels", "kernel"])
    monkeypatch.setenv("KERNEL", "6.12")
    with pytest.raises(UserError, match="KERNEL is '6.12'; make kernel builds 7.3, 7.3-debug"
                                        ".*, 7.3-prepared, and make modules"):
        kernels.main()


def running_in_group(group):
    """Return the processes of a group, except zombies."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, of = path.read_text().rpartition(")")[2].split()[:3]
            if int(of) == group and state != "Z":
                found.append(path.parent.name)
    return found


def test_building_beside_tests_can_be_stopped(empty_cache):
    """stop_building() ends all processes of a build, at any point of it."""
    builder = kernels.start_building(["7.3"])
    assert process.wait_for(empty_cache.is_dir, 30)
    assert builder.poll() is None
    kernels.stop_building(builder)
    assert process.wait_for(lambda: not running_in_group(builder.pid), 5)
    kernels.stop_building(builder)


def bz_image(path, payload):
    """Write a bzImage with a compressed kernel."""
    image = bytearray(1024)
    image[0x1f1], image[0x202:0x206] = 1, b"HdrS"
    image[0x248:0x250] = struct.pack("<II", 0, len(payload))
    path.write_bytes(image + payload)
    return path


def test_kernel_is_unpacked_for_qemu(tmp_path):
    """Debian's kernels boot as ELF files; an image of another kind stays as it is."""
    image = kernels.find("6.12").image
    assert image.read_bytes().startswith(b"\x7fELF")
    assert elf_image.unpacked(image) == image
    other = bz_image(tmp_path / "bzImage", bytes(64))
    assert elf_image.unpacked(other) == other


@pytest.mark.parametrize("words,size", ((["gzip", "-c"], b""), (["xz", "-c"], b"size"),
                                        (["zstd", "-c"], b"size"),
                                        (["lz4", "-lc"], b"size")))
def test_kernel_of_each_compression(empty_cache, tmp_path, words, size):
    """The kernel's build appends a size to all kinds but gzip."""
    deps.need({words[0]: {"xz": "xz-utils"}.get(words[0], words[0])})
    plain = b"\x7fELF" + bytes(range(256)) * 16
    packed = subprocess.run(words, input=plain, check=True,
                            stdout=subprocess.PIPE).stdout
    image = bz_image(tmp_path / "bzImage", packed + size)
    assert elf_image.unpacked(image).read_bytes() == plain


def test_kernel_that_is_no_elf_file(empty_cache, tmp_path):
    """A bzImage with something else in it is an error that names the file."""
    image = bz_image(tmp_path / "bzImage", gzip.compress(b"not a kernel"))
    with pytest.raises(UserError, match="bzImage has no ELF kernel in it"):
        elf_image.unpacked(image)
