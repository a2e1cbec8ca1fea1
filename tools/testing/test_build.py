# SPDX-License-Identifier: GPL-2.0
"""Building, and the messages when a build is not possible.

No test here needs the network, or anything in the cache.
"""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vm import cache, debian, host, kernels, process
from vm.ui import UserError

TOP = Path(__file__).resolve().parents[2]
GRAFT = TOP / "tools/packaging/graft"
NOBODY = 65534


def python(code, *prefix, **environment):
    """Run Python code in a new process, with the tools' modules."""
    return subprocess.run(
        [*prefix, sys.executable, "-B", "-c",
         "from vm import cache, debian, host, kernels, ui\n" + code],
        text=True, stdin=subprocess.DEVNULL, capture_output=True, timeout=60,
        env={**os.environ, "PYTHONPATH": str(TOP / "tools"), **environment})


def make(*words, **environment):
    """Run the repository's own make."""
    return subprocess.run(
        ["make", "-C", TOP, *words], text=True, stdin=subprocess.DEVNULL,
        capture_output=True, timeout=60, env={**os.environ, **environment})


def contents(directory):
    """Return the names, modes and contents of all files in a directory."""
    return {path.relative_to(directory): (
                path.stat().st_mode, path.read_bytes() if path.is_file() else None)
            for path in directory.rglob("*")}


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    """Give the tools an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/virtio-blk-mq"


@pytest.fixture
def closed_port():
    """Return a port of this machine on which no program listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    return port


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
            "from vm import process\n"
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
                [sys.executable, "-B", "-c", "from vm import cache\n" + code],
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
    # An unprivileged user must reach the directory, too.
    for path in (directory, *directory.parents[:4]):
        if path.owner() != "root" or path.stat().st_mode & 0o055 != 0o055:
            path.chmod(path.stat().st_mode | 0o055)
    return str(directory)


def drop_root():
    """Return code that makes a process run as the user nobody."""
    return f"import os; os.geteuid() or os.setuid({NOBODY})\n"


def test_no_root_and_no_sudo():
    """Without root and sudo the error has the command that installs the packages."""
    result = python(drop_root() + "host.which = lambda name: "
                    "None if name == 'sudo' else '/usr/bin/apt-get'\n"
                    "ui.main(lambda: host.install(['virtio-none']))")
    assert result.returncode == 2
    assert "virtio-none" in result.stderr
    assert "root or sudo" in result.stderr
    assert "apt-get install --no-install-recommends virtio-none" in result.stderr


def test_nothing_is_run_when_nothing_is_missing(monkeypatch):
    """need() installs nothing if all programs are there."""
    monkeypatch.setattr(host, "install", lambda packages: pytest.fail(packages))
    host.need({"sh": "dash", "/usr/bin/env": "coreutils"})


def test_only_what_is_missing_is_installed(monkeypatch):
    """need() installs the packages of the missing programs only."""
    asked = []
    monkeypatch.setattr(host, "install", asked.append)
    host.need({"sh": "dash", "no-such-program": "b", "/no/such/file": "a"})
    assert asked == [["a", "b"]]


def test_no_python_and_no_root(tmp_path):
    """Without Python and root the error has the command that installs Python."""
    if os.geteuid():
        pytest.skip("hiding Python takes root")
    script = ('mount --bind /dev/null /usr/bin/python3 && '
              f'exec setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups '
              'env PATH="$1" sh -s')
    with (TOP / "tools/vm/bootstrap").open() as bootstrap:
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
        assert name in kernels.NAMES + kernels.MEASURING
    for name in kernels.MEASURING:
        text = [(TOP / f"tools/vm/kconfig/{part}.config").read_text()
                for part in kernels._OPTIONS[name]]
        options = kernels._merge(text).splitlines()
        assert "CONFIG_VIRTIO_BLK=m" in options
        assert "CONFIG_VIRTIO_BLK=y" not in options
        assert f'CONFIG_LOCALVERSION="{name.removeprefix("7.3")}"' in options


# Grafting

KCONFIG = """\
menuconfig BLK_DEV
	bool "Block devices"

if BLK_DEV

config OTHER
	tristate "Another one"

config VIRTIO_BLK
	tristate "Its own"
	depends on VIRTIO
	help
	  A text.

	  And more of it.
{}
endif # BLK_DEV
"""
MAKEFILE = """\
obj-$(CONFIG_OTHER)\t+= other.o
obj-$(CONFIG_VIRTIO_BLK)\t+= virtio_blk.o
"""


def linux_tree(directory, version="6.18", kconfig_end="\nconfig LAST\n\tbool\n"):
    """Make a directory that looks like a Linux source tree."""
    block = directory / "drivers/block"
    block.mkdir(parents=True)
    (directory / "include/trace/events").mkdir(parents=True)
    major, minor = version.split(".")
    (directory / "Makefile").write_text(
        f"# SPDX\nVERSION = {major}\nPATCHLEVEL = {minor}\nSUBLEVEL = 1\n")
    (directory / "Kconfig").write_text("source drivers/block/Kconfig\n")
    (block / "Kconfig").write_text(KCONFIG.format(kconfig_end))
    (block / "Makefile").write_text(MAKEFILE)
    (block / "virtio_blk.c").write_text("/* the in-tree driver */\n")
    (block / "virtio_blk.c").chmod(0o640)
    (block / "Kconfig").chmod(0o600)
    return directory


def graft(*words):
    return subprocess.run([GRAFT, *words], text=True, capture_output=True,
                          timeout=30)


@pytest.mark.parametrize("kconfig_end", ["\nconfig LAST\n\tbool\n", "\n", ""])
def test_graft_and_undo(tmp_path, kconfig_end):
    """A graft replaces the in-tree driver, and --undo restores the tree exactly."""
    tree = linux_tree(tmp_path / "linux", kconfig_end=kconfig_end)
    before = contents(tree)
    result = graft(tree)
    assert result.returncode == 0, result.stderr
    block = tree / "drivers/block"
    assert not (block / "virtio_blk.c").exists()
    sources = {path.name for path in (TOP / kernels._DRIVER).glob("*.[ch]")}
    assert sources <= {path.name for path in (block / "virtio_blk").iterdir()}
    kconfig = (block / "Kconfig").read_text()
    assert 'source "drivers/block/virtio_blk/Kconfig"' in kconfig
    assert "Its own" not in kconfig and "Another one" in kconfig
    assert "+= virtio_blk/" in (block / "Makefile").read_text()
    assert "virtio_blk.o" not in (block / "Makefile").read_text()
    assert (block / "virtio_blk/compat").is_dir() == (TOP / "include/compat").is_dir()

    # --undo also removes the objects of a build.
    (block / "virtio_blk/virtio_blk.o").touch()
    result = graft("--undo", tree)
    assert result.returncode == 0, result.stderr
    assert contents(tree) == before
    assert graft("--undo", tree).returncode == 0
    assert contents(tree) == before


def test_graft_again_updates_what_changed(tmp_path):
    """A second graft restores a changed file, and touches no other."""
    tree = linux_tree(tmp_path / "linux")
    before = contents(tree)
    assert graft(tree).returncode == 0
    driver = tree / kernels._DRIVER
    once = contents(tree)
    header = driver / "virtio_blk.h"
    times = {path: path.stat().st_mtime_ns for path in driver.rglob("*")}
    header.write_text("changed")
    result = graft(tree)
    assert result.returncode == 0, result.stderr
    assert contents(tree) == once
    assert {path for path in times if path.stat().st_mtime_ns != times[path]} <= {
        header, driver}
    assert graft("--undo", tree).returncode == 0
    assert contents(tree) == before


def test_graft_newest_takes_no_compat(tmp_path):
    """A graft into the newest kernel has no compat headers."""
    tree = linux_tree(tmp_path / "linux", "7.3")
    assert graft(tree).returncode == 0
    assert not (tree / kernels._DRIVER / "compat").exists()


def test_unmodified_source_beside_grafted_source(empty_cache, monkeypatch):
    """own_source() is a copy of the original tree; no graft or undo changes it."""
    monkeypatch.setenv("LINUX_SOURCE", "linux-source-7.3")
    empty_cache.mkdir(parents=True)
    tree = linux_tree(empty_cache / "linux-source-7.3", "7.3")
    before = contents(tree)
    assert kernels.source() == tree
    own = kernels.own_source()
    assert own != tree
    assert contents(own) == before
    # Neither a later graft nor an undo changes the copy.
    (tree / kernels._DRIVER / "main.c").write_text("changed")
    assert kernels.source() == tree
    assert graft("--undo", tree).returncode == 0
    assert graft(tree).returncode == 0
    assert contents(own) == before
    assert kernels.own_source() == own
    assert (tree / "drivers/block/virtio_blk/main.c").exists()


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


@pytest.mark.parametrize("version", ["5.15", "6.0", "7.4"])
def test_graft_unsupported_version(tmp_path, version):
    """A graft into an unsupported version is an error, and changes nothing."""
    tree = linux_tree(tmp_path / "linux", version)
    before = contents(tree)
    result = graft(tree)
    assert result.returncode == 2
    assert f"Linux {version}" in result.stderr and "6.1 to 7.3" in result.stderr
    assert contents(tree) == before


def test_graft_wrong_target(tmp_path):
    """A graft into no Linux source tree is an error, and changes nothing."""
    result = graft(tmp_path)
    assert result.returncode == 2
    assert "Linux source tree" in result.stderr
    assert graft().returncode == 2
    assert list(tmp_path.iterdir()) == []


def test_graft_foreign_driver_is_left_alone(tmp_path):
    """A graft does not replace a virtio_blk directory that it did not make."""
    tree = linux_tree(tmp_path / "linux")
    (tree / "drivers/block/virtio_blk").mkdir()
    (tree / "drivers/block/virtio_blk/Makefile").write_text("theirs\n")
    before = contents(tree)
    result = graft(tree)
    assert result.returncode == 2
    assert "of its own" in result.stderr
    assert contents(tree) == before
