# SPDX-License-Identifier: GPL-2.0
"""Installing, upgrading and removing the driver.

With FULL set also on a Debian system whose root disk uses the driver, through an
upgrade of the kernel and the removal of the driver.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import machine as machines
from vm import debian, host, kernels
from vm.disk import Disk
from vm.guest import Guest

TOP = Path(__file__).resolve().parents[2]
PACKAGING = TOP / "tools/packaging"


def run(*argv, cwd=TOP, timeout=120, **environment):
    """Run a program, with a name and address for git; return its CompletedProcess."""
    person = {"GIT_AUTHOR_NAME": "A Person", "GIT_AUTHOR_EMAIL": "a@example.org",
              "GIT_COMMITTER_NAME": "A Person",
              "GIT_COMMITTER_EMAIL": "a@example.org"}
    return subprocess.run(list(map(str, argv)), cwd=cwd, text=True, timeout=timeout,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT,
                          env={**os.environ, **person, **environment})


def output(*argv, **options):
    """Run a program that succeeds and return what it wrote."""
    result = run(*argv, **options)
    assert result.returncode == 0, f"{argv}:\n{result.stdout}"
    return result.stdout


def version():
    """Return the version of the packages and the module."""
    return output(PACKAGING / "version").strip()


@pytest.fixture(scope="session")
def packages():
    """The packages, built from the tree as it is: {name: path}."""
    host.need("packaging")
    built = re.findall(r"\S+\.deb", output(PACKAGING / "deb", timeout=300))
    return {Path(path).name.partition("_")[0]: TOP / path for path in built}


# Packages

def test_packages(packages):
    """make deb builds both packages without lintian warnings, and leaves no debian/."""
    assert {path.name for path in packages.values()} == {
        f"virtio-blk-mq-dkms_{version()}_all.deb",
        f"virtio-blk-mq-tools_{version()}_amd64.deb"}
    result = run("lintian", *(["--allow-root"] if os.geteuid() == 0 else []),
                 "--fail-on", "error,warning", *packages.values())
    assert result.returncode == 0, result.stdout
    assert not (TOP / "debian").exists()


def test_dkms_package_has_all_that_is_built(packages, tmp_path):
    """The DKMS package has all sources, and no placeholder is left in its files."""
    output("dpkg", "-x", packages["virtio-blk-mq-dkms"], tmp_path)
    source = tmp_path / f"usr/src/virtio-blk-mq-{version()}"
    packed = {path.relative_to(source) for path in source.rglob("*")
              if path.is_file()}
    assert packed == {path.relative_to(TOP) for path in kernels._sources()} | {
        Path("dkms.conf")}
    left = [path for path in tmp_path.rglob("*") if path.is_file()
            and re.search("@[A-Z]+@", path.read_text(errors="replace"))]
    assert left == []


def test_tools_package(packages):
    """The tools package has vblkstat, its manual page and its completion."""
    listed = output("dpkg", "-c", packages["virtio-blk-mq-tools"])
    for path in ("usr/sbin/vblkstat", "usr/share/man/man8/vblkstat.8.gz",
                 "usr/share/bash-completion/completions/vblkstat"):
        assert f" ./{path}\n" in listed


def dkms_builds_for(release, tmp_path):
    """Return whether dkms.conf lets DKMS build for a release."""
    conf = tmp_path / f"usr/src/virtio-blk-mq-{version()}/dkms.conf"
    return run("bash", "-c", f'. {conf}; [[ "$1" =~ $BUILD_EXCLUSIVE_KERNEL ]]',
               "bash", release).returncode == 0


def test_dkms_builds_for_the_kernels_that_are_supported(tmp_path):
    """DKMS builds for supported kernels only."""
    output(PACKAGING / "dkms/files", tmp_path)
    for major, minor in [(5, 10), (5, 19), *((6, n) for n in range(20)),
                         *((7, n) for n in range(12)), (8, 0), (61, 0), (16, 1)]:
        for release in (f"{major}.{minor}.0-56-cloud-amd64", f"{major}.{minor}-rc1",
                        f"{major}.{minor}", f"{major}.{minor}.117+deb12-amd64"):
            wanted = (kernels.OLDEST <= (major, minor) <= kernels.NEWEST
                      and (major, minor) not in kernels.UNSUPPORTED)
            assert dkms_builds_for(release, tmp_path) == wanted, release


# Without a package

def build_tree(directory, release):
    """Make a directory that looks like a kernel's build tree; return it."""
    (directory / "include/config").mkdir(parents=True)
    (directory / "include/config/kernel.release").write_text(f"{release}\n")
    return directory


@pytest.fixture
def built():
    """Make a fake module of a kernel; return the kernel's release."""
    release = "6.12.0-none"
    directory = TOP / "build" / release
    directory.mkdir(parents=True)
    (directory / "virtio_blk.ko").write_text("a module")
    yield release
    shutil.rmtree(directory)


def test_install_and_uninstall_below_a_directory(tmp_path, built):
    """With DESTDIR, install copies the module there and --undo removes it."""
    tree = build_tree(tmp_path / "tree", built)
    root = tmp_path / "root"
    said = output(PACKAGING / "install", tree, DESTDIR=str(root))
    module = root / "lib/modules" / built / "updates/virtio_blk.ko"
    assert module.read_text() == "a module"
    assert "initramfs" in said and str(module) in said
    output(PACKAGING / "install", "--undo", tree, DESTDIR=str(root))
    assert not module.parent.exists()
    assert "there is no" in output(PACKAGING / "install", "--undo", tree,
                                   DESTDIR=str(root))


def test_uninstall_needs_no_headers(tmp_path):
    """install --undo works when the kernel's headers are gone."""
    module = tmp_path / "lib/modules/6.12.0-none/updates/virtio_blk.ko"
    module.parent.mkdir(parents=True)
    module.touch()
    output(PACKAGING / "install", "--undo", "/lib/modules/6.12.0-none/build",
           DESTDIR=str(tmp_path))
    assert not module.exists()


@pytest.mark.parametrize("words, said", [
    (["nowhere"], "nowhere is no kernel build tree.*KDIR"),
    ([], "usage"),
    (["--what"], "usage"),
    (["tree"], "make modules"),
])
def test_install_bad_arguments(tmp_path, words, said):
    """install exits with 2 and says what is wrong with its arguments."""
    build_tree(tmp_path / "tree", "6.12.0-not-built")
    result = run(PACKAGING / "install", *words, cwd=tmp_path)
    assert result.returncode == 2
    assert re.search(said, result.stdout), result.stdout


def test_install_for_a_kernel_that_is_not_installed(tmp_path, built):
    """install refuses a kernel that is not installed on this host."""
    result = run(PACKAGING / "install", build_tree(tmp_path / "tree", built))
    assert result.returncode == 2
    assert f"Linux {built} is not installed here" in result.stdout


def test_install_with_builtin_driver(tmp_path, built):
    """install refuses a kernel with virtio_blk built in, and suggests another name."""
    modules = tmp_path / "root/lib/modules" / built
    modules.mkdir(parents=True)
    (modules / "modules.builtin").write_text("kernel/drivers/block/virtio_blk.ko\n")
    result = run(PACKAGING / "install", build_tree(tmp_path / "tree", built),
                 DESTDIR=str(tmp_path / "root"))
    assert result.returncode == 2
    assert "NAME=virtio_blk_mq" in result.stdout
    assert not (modules / "updates").exists()


def test_unknown_name():
    """make modules refuses an unknown NAME, and says which names it knows."""
    result = run("make", "modules", "NAME=vda")
    assert result.returncode == 2
    assert "NAME is 'vda'" in result.stdout and "virtio_blk_mq" in result.stdout


@pytest.mark.parametrize("tool", [
    "version", "deb", "install", "patch", "graft", "dkms/files", "dkms/register",
    "dkms/kernels", "cloud-image/make-image"])
def test_packaging_tools_help(tool):
    """Each tool has --help, and refuses an unknown option."""
    assert output(PACKAGING / tool, "--help").startswith("usage: ")
    assert run(PACKAGING / tool, "--no-such-option").returncode in (1, 2)


# Built in

def test_graft_unsupported_release(tmp_path):
    """graft refuses Linux 6.9, which the driver does not support."""
    for file in ("Kconfig", "drivers/block/Kconfig", "drivers/block/Makefile"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    (tmp_path / "Makefile").write_text("VERSION = 6\nPATCHLEVEL = 9\n")
    result = run(PACKAGING / "graft", tmp_path)
    assert result.returncode == 2
    assert "is Linux 6.9" in result.stdout and "6.10" in result.stdout


def check_patch(tree, tmp_path):
    """Check that a tree's patch passes checkpatch and has the same result as graft."""
    patch = tmp_path / "virtio_blk.patch"
    output(PACKAGING / "patch", tree, patch)
    said = output("perl", tree / "scripts/checkpatch.pl", f"--root={tree}", patch,
                  cwd=tmp_path)
    assert "total: 0 errors, 0 warnings, " in said, said

    copy, grafted = tmp_path / "copy", tmp_path / "grafted"
    for directory in (copy, grafted):
        for file in ("Makefile", "Kconfig", "MAINTAINERS", "drivers/block/Kconfig",
                     "drivers/block/Makefile", "drivers/block/virtio_blk.c"):
            (directory / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(tree / file, directory / file)
    output("git", "init", "-q", cwd=copy)
    output("git", "add", "-A", cwd=copy)
    output("git", "commit", "-q", "-m", "as it was", cwd=copy)
    output("git", "am", "-q", patch, cwd=copy)
    assert output("git", "status", "--short", cwd=copy) == ""
    output(PACKAGING / "graft", grafted)
    shutil.rmtree(grafted / "drivers/block/virtio_blk.undo")
    output("diff", "-r", "-x", "MAINTAINERS", "-x", ".git", copy, grafted)


def test_patch(tmp_path):
    """The patch for the default kernel source is clean and equals graft."""
    check_patch(kernels.own_source(), tmp_path)


@pytest.mark.full
@pytest.mark.parametrize("series", ["6.1", "6.12"])
def test_patch_for_older_kernels(series, tmp_path, monkeypatch):
    """The patches for older kernel sources are clean and equal graft."""
    monkeypatch.setenv("LINUX_SOURCE", f"linux-source-{series}")
    check_patch(kernels.own_source(), tmp_path)


def test_patch_bad_source(tmp_path):
    """patch refuses a directory that is no kernel source, and writes no file."""
    result = run(PACKAGING / "patch", tmp_path, tmp_path / "out")
    assert result.returncode == 2
    assert f"{tmp_path} has no Makefile" in result.stdout
    assert not (tmp_path / "out").exists()


# Beside the in-tree driver

@pytest.mark.module
@pytest.mark.kernels("6.12", full=("6.1",))
def test_second_name_beside_in_tree_driver(kernel):
    """virtio_blk_mq binds a disk of the in-tree driver and unbinds it again.

    The other disk keeps its name and driver.
    """
    module = kernels.build_modules(kernel, name="virtio_blk_mq")
    disks = [Disk("kept", "ram", size=1 << 25, queues=2),
             Disk("taken", "ram", size=1 << 25, queues=2)]
    with Guest(kernel, cpus=2, disks=disks, driver="stock") as guest:
        guest.put(module, "/run/virtio_blk_mq.ko")
        before = {id: guest.dev(id) for id in ("kept", "taken")}
        assert set(before.values()) == {"vda", "vdb"}
        drivers = "/sys/bus/virtio/drivers"
        device = Path(guest.run(
            f"readlink -f /sys/block/{before['taken']}/device").output.strip()).name
        guest.run(f"dd if=/dev/urandom of=/run/data bs=1M count=8 && "
                  f"dd if=/run/data of=/dev/{before['taken']} oflag=direct bs=1M")

        guest.run("insmod /run/virtio_blk_mq.ko")
        assert not guest.run(f"ls {drivers}/virtio_blk_mq | grep '^virtio' || true"
                             ).output
        guest.run(f"echo {device} > {drivers}/virtio_blk/unbind && "
                  f"echo {device} > {drivers}/virtio_blk_mq/bind")
        assert guest.dev("taken") == "vdmqa"
        assert guest.dev("kept") == before["kept"]
        assert guest.sysfs("/sys/module/virtio_blk_mq/version") == version()
        guest.run("cmp -n 8388608 /run/data /dev/vdmqa && "
                  "dd if=/run/data of=/dev/vdmqa oflag=direct bs=1M seek=8")
        # The disk's old name is free meanwhile, and a third disk gets it.
        third = Disk("third", "ram", size=1 << 25)
        guest.add_disk(third)
        assert guest.dev("third") == before["taken"]
        guest.remove_disk("third")

        guest.run(f"echo {device} > {drivers}/virtio_blk_mq/unbind && "
                  f"echo {device} > {drivers}/virtio_blk/bind")
        assert guest.dev("taken") == before["taken"]
        guest.run(f"dd if=/dev/{before['taken']} bs=1M skip=8 count=8 iflag=direct "
                  "of=/run/read && cmp /run/data /run/read")
        guest.run("rmmod virtio_blk_mq")


# On a Debian system

OURS = """\
uname -r
test "$(findmnt -no SOURCE /)" = /dev/vda
test "$(cat /sys/module/virtio_blk/version)" = {version}
dmesg | grep 'virtio_blk.*\\[vda\\].*ring'
"""
OWN = """\
uname -r
test "$(findmnt -no SOURCE /)" = /dev/vda
test "$(readlink -f /sys/block/vda/device/driver)" = /sys/bus/virtio/drivers/virtio_blk
test ! -e /sys/module/virtio_blk/version
"""
STATE = """\
dkms status
for initrd in /boot/initrd.img-*; do
	lsinitramfs $initrd | grep /virtio_blk.ko
done
"""
# Fake kernels with headers that DKMS must not build the driver for.
UNSUPPORTED = """\
for kernel in 6.9.1-none 6.12.1-builtin; do
	mkdir -p /lib/modules/$kernel/build/include /lib/modules/$kernel/kernel
	[ $kernel = 6.9.1-none ] ||
		echo kernel/drivers/block/virtio_blk.ko >/lib/modules/$kernel/modules.builtin
	for hooks in postinst.d header_postinst.d; do
		run-parts --report --exit-on-error --regex=dkms --arg=$kernel \\
			/etc/kernel/$hooks
	done
	rm -r /lib/modules/$kernel
done
"""
VERIFY = """\
fio --name=verify --filename=/root/file --size=8m --rw=randwrite --bs=4k --direct=1 \\
	--ioengine=psync --verify=crc32c --do_verify=1 --verify_state_save=0 >/dev/null
rm /root/file
"""


def initrds(said):
    """Return the file of virtio_blk in each initramfs: {release: path}."""
    return dict(re.findall(r"^usr/lib/modules/([^/]+)/(\S+/virtio_blk\.ko\S*)$", said,
                           re.MULTILINE))


@pytest.mark.full
def test_installed_upgraded_and_removed(packages):
    """The root disk uses the driver from installation to removal."""
    with machines.Machine() as machine:
        said = machine.step(OWN + "dpkg -i *.deb\n" + STATE, packages.values())
        (first,) = initrds(said)
        assert first.startswith("6.1.") and "6.12" not in first
        assert initrds(said)[first] == "updates/dkms/virtio_blk.ko"
        assert f"{first}, x86_64: installed" in said

        # dpkg configures the headers and the kernel in any order.
        said = machine.step(OURS.format(version=version()) + VERIFY
                            + "dpkg -i *.deb\n" + STATE,
                            machines.kernel_packages("6.12"))
        assert said.startswith(first)
        (second,) = set(initrds(said)) - {first}
        assert second.startswith("6.12.")
        assert set(initrds(said).values()) == {"updates/dkms/virtio_blk.ko"}

        said = machine.step(OURS.format(version=version()) + VERIFY + UNSUPPORTED
                            + "dpkg -r virtio-blk-mq-dkms\n" + STATE)
        assert said.startswith(second)
        assert said.count("6.9.1-none keeps its in-tree virtio_blk: this driver") == 2
        assert said.count("6.12.1-builtin keeps its in-tree virtio_blk: it is built") == 2
        assert set(initrds(said)) == {first, second}
        assert all(path.startswith("kernel/drivers/block/virtio_blk.ko")
                   for path in initrds(said).values())
        assert "installed" not in said.rpartition("Removing")[2]

        said = machine.step(OWN)
        assert said.startswith(second)


@pytest.mark.full
def test_machine_that_wants_signatures_keeps_its_own(packages):
    """If DKMS's key is not enrolled, the in-tree driver stays in use."""
    with machines.Machine() as machine:
        said = machine.step(OWN + "dpkg -i virtio-blk-mq-dkms_*.deb\n" + STATE,
                            [packages["virtio-blk-mq-dkms"]],
                            cmdline="module.sig_enforce=1")
        assert re.search("keeps its in-tree virtio_blk: .*mokutil --import", said)
        assert all(path.startswith("kernel/") for path in initrds(said).values())
        machine.step(OWN, cmdline="module.sig_enforce=1")


@pytest.mark.full
@pytest.mark.skipif(os.geteuid() != 0, reason="making the image takes root")
def test_image_with_no_other_driver(packages, tmp_path):
    """A cloud image that has no other virtio_blk boots from the driver's module."""
    host.need("vm", "archive")
    added, image = tmp_path / "added", tmp_path / "image"
    machines.add_runner(added)
    sources = tmp_path / "sources.list"
    sources.write_text(debian.sources(machines.SUITES))
    output(PACKAGING / "cloud-image/make-image", image, "--quiet",
           f"--customize-hook=sync-in {added} /", SOURCES=str(sources), timeout=1800)
    with machines.Machine(image) as machine:
        said = machine.step(OURS.format(version=version())
                            + "find /lib/modules -name 'virtio_blk.ko*'\n" + STATE)
    (module,) = re.findall("^/lib/modules/.*", said, re.MULTILINE)
    assert module.endswith("/updates/dkms/virtio_blk.ko")
    assert set(initrds(said).values()) == {"updates/dkms/virtio_blk.ko"}
