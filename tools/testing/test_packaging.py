# SPDX-License-Identifier: GPL-2.0
"""Installing, upgrading and removing the driver and the device.

With FULL set also on a Debian system whose root disk uses the driver, through an
upgrade of the kernel and the removal of the driver.
"""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

import hostcopy
import machine as machines
from vm import debian, host, kernels
from vm.disk import Disk
from vm.guest import Guest

TOP = Path(__file__).resolve().parents[2]
PACKAGING = TOP / "tools/packaging"


@dataclass(frozen=True)
class Part:
    """The driver or the device.

    module: its name; dkms: its name for DKMS; package: its Debian package; sources:
    their directory; oldest: the oldest version of Linux.
    """
    module: str
    dkms: str
    package: str
    sources: str
    oldest: tuple[int, int]


DRIVER = Part("virtio_blk", "virtio-blk-mq", "virtio-blk-mq-dkms", kernels._DRIVER,
              kernels.OLDEST)
DEVICE = Part("vdpa_blk", "virtio-blk-mq-vdpa", "virtio-blk-mq-vdpa", kernels._DEVICE,
              kernels.OLDEST_VDPA)
both_parts = pytest.mark.parametrize("part", [DRIVER, DEVICE],
                                     ids=lambda part: part.module)
needs_root = pytest.mark.skipif(os.geteuid() != 0,
                                reason="a copy of the host takes root")


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
    """make deb builds all packages without lintian warnings, and leaves no debian/."""
    assert {path.name for path in packages.values()} == {
        f"virtio-blk-mq-dkms_{version()}_all.deb",
        f"virtio-blk-mq-vdpa_{version()}_all.deb",
        f"virtio-blk-mq-tools_{version()}_amd64.deb"}
    result = run("lintian", *(["--allow-root"] if os.geteuid() == 0 else []),
                 "--fail-on", "error,warning", *packages.values())
    assert result.returncode == 0, result.stdout
    assert not (TOP / "debian").exists()


@both_parts
def test_dkms_package_has_all_that_is_built(packages, tmp_path, part):
    """A DKMS package has all sources, and no placeholder is left in its files."""
    output("dpkg", "-x", packages[part.package], tmp_path)
    source = tmp_path / f"usr/src/{part.dkms}-{version()}"
    packed = {path.relative_to(source) for path in source.rglob("*")
              if path.is_file()}
    assert packed == {path.relative_to(TOP) for path in kernels._sources(part.sources)
                      } | {Path("dkms.conf")}
    left = [path for path in tmp_path.rglob("*") if path.is_file()
            and re.search("@[A-Z]+@", path.read_text(errors="replace"))]
    assert left == []


def test_device_package(packages):
    """The device's package has its unit and documentation, nothing of the driver."""
    package = packages["virtio-blk-mq-vdpa"]
    listed = output("dpkg", "-c", package)
    for path in ("etc/vdpa-blk/", "lib/systemd/system/vdpa-blk@.service",
                 "usr/share/virtio-blk-mq-vdpa/vdpa-blk",
                 "usr/share/doc/virtio-blk-mq-vdpa/host.rst.gz",
                 "usr/share/doc/virtio-blk-mq-vdpa/examples/disk0.conf"):
        assert f" ./{path}\n" in listed
    assert "initramfs" not in listed and "drivers/block" not in listed
    depends = output("dpkg-deb", "-f", package, "Depends")
    assert "iproute2" in depends and "virtio-blk-mq" not in depends


def test_tools_package(packages):
    """The tools package has vblkstat, its manual page, and what a monitor needs."""
    listed = output("dpkg", "-c", packages["virtio-blk-mq-tools"])
    for path in ("usr/sbin/vblkstat", "usr/share/man/man8/vblkstat.8.gz",
                 "usr/share/bash-completion/completions/vblkstat",
                 "usr/share/virtio-blk-mq-tools/virtio_blk.rules.yml",
                 "usr/share/virtio-blk-mq-tools/virtio_blk.dashboard.json"):
        assert f" ./{path}\n" in listed


@both_parts
def test_dkms_builds_for_the_kernels_that_are_supported(tmp_path, part):
    """DKMS builds for supported kernels only."""
    output(PACKAGING / "dkms/files", tmp_path, NAME=part.module)
    conf = tmp_path / f"usr/src/{part.dkms}-{version()}/dkms.conf"
    releases = {release: part.oldest <= number <= kernels.NEWEST
                and number not in kernels.UNSUPPORTED
                for number in [(5, 10), (5, 19), *((6, n) for n in range(20)),
                               *((7, n) for n in range(12)), (8, 0), (61, 0), (16, 1)]
                for release in (f"{number[0]}.{number[1]}{rest}" for rest in (
                    ".0-56-cloud-amd64", "-rc1", "", ".117+deb12-amd64"))}
    built = output("bash", "-c", f'. {conf}; for release; do '
                   '[[ ! "$release" =~ $BUILD_EXCLUSIVE_KERNEL ]] || echo "$release"; '
                   'done', "bash", *releases).split()
    assert built == [release for release, wanted in releases.items() if wanted]


# On a copy of this host, because DKMS under emulation takes half an hour

ENABLE = """\
SYSTEMD_OFFLINE=1 systemctl enable vdpa-blk@disk0
readlink /etc/systemd/system/multi-user.target.wants/vdpa-blk@disk0.service
"""
STATE_OF_DEVICE = """\
for kernel in /lib/modules/*; do
	modprobe -n -D -S ${kernel##*/} vdpa_blk 2>&1 | sed "s|^|${kernel##*/}: |"
done
find /etc /usr /lib/modules/*/ /var/lib/dkms -xdev -name '*vdpa[-_]blk*' \
	-o -xdev -name '*blk-mq-vdpa*' | sed 's/^/has /'
echo
"""


@pytest.mark.full
@needs_root
def test_device_package_on_a_host(packages):
    """DKMS builds vdpa_blk for 6.12, a note says why 6.1 has none, and purging ends it.

    Purging also disables units, because nothing else does so without the unit's file.
    """
    old, new = kernels.find("6.1"), kernels.find("6.12")
    said = hostcopy.run(
        f"dpkg --force-depends -i virtio-blk-mq-vdpa_*.deb\n{STATE_OF_DEVICE}"
        f"systemd-analyze verify vdpa-blk@disk0.service\n{ENABLE}"
        f"dpkg --force-depends -P virtio-blk-mq-vdpa\n{STATE_OF_DEVICE}",
        [packages["virtio-blk-mq-vdpa"]], [old, new])
    installed, _, purged = said.partition("Removing virtio-blk-mq-vdpa")
    assert re.search(rf"{re.escape(old.release)} gets no vdpa_blk: it needs 6.12 to "
                     r"7.3 with vDPA \(CONFIG_VDPA\)", installed)
    assert f"{new.release} gets no" not in installed
    assert "systemctl enable --now vdpa-blk@NAME" in installed
    loads = re.findall(rf"^{re.escape(new.release)}: insmod \S+/(\S+?)\.ko", installed,
                       re.MULTILINE)
    assert set(loads) == {"vdpa", "vhost_iotlb", "configfs", "vdpa_blk"}
    assert f"/{new.release}/updates/dkms/vdpa_blk.ko" in installed
    assert "has /usr/lib/systemd/system/vdpa-blk@.service" in installed
    assert "not executable" not in installed
    assert purged and "\nhas " not in purged


EXPORT = """\
unit=prometheus-node-exporter-virtio-blk
systemd-analyze verify $unit.timer $unit.service
readlink /etc/systemd/system/timers.target.wants/$unit.timer
mkdir -p /var/lib/prometheus/node-exporter
mount -t sysfs none /sys
$(sed -n s/^ExecStart=//p /lib/systemd/system/$unit.service)
cat /var/lib/prometheus/node-exporter/virtio_blk.prom
dpkg -P virtio-blk-mq-tools
find /etc/systemd /lib/systemd /var/lib/prometheus /var/lib/systemd \\
	-name '*virtio*blk*' | sed 's/^/has /'
"""


@needs_root
def test_timer_of_the_tools(packages):
    """The timer is enabled, its unit writes the metrics, and purging removes them."""
    host.need({"systemd-analyze": "systemd"})
    said = hostcopy.run(f"dpkg --force-depends -i virtio-blk-mq-tools_*.deb\n{EXPORT}",
                        [packages["virtio-blk-mq-tools"]])
    assert "/lib/systemd/system/prometheus-node-exporter-virtio-blk.timer" in said
    assert re.search(r"^virtio_blk_disks \d+$", said, re.MULTILINE)
    assert not re.search("^prometheus-node-exporter-virtio-blk.*:", said, re.MULTILINE)
    assert "\nhas " not in said


@needs_root
@both_parts
def test_dkms_without_package(part):
    """make dkms registers what NAME says and no more; make undkms leaves nothing.

    The administrator may have enabled a unit, and removed the unit's settings.
    """
    other = DRIVER if part == DEVICE else DEVICE
    used = f"{ENABLE}rm -r /etc/vdpa-blk\n" if part == DEVICE else ""
    # Only a note, because there is no kernel that can have a module.
    said = hostcopy.run(f"""\
mkdir -p /lib/modules/5.10.0-none/build/include /lib/modules/5.10.0-none/kernel
mkdir -p /etc/systemd/system/multi-user.target.wants
find /etc /usr -xdev | sort >before
make -s -C {TOP} dkms NAME={part.module}
dkms status
find /etc /usr -xdev | sort | comm -13 before - | sed 's/^/has /'
{used}make -s -C {TOP} undkms NAME={part.module}
dkms status
find /etc /usr -xdev | sort | comm -3 before - | sed 's/^/left /'
""")
    assert re.search(rf"^{part.dkms}: Linux 5\.10\.0-none (gets|keeps) .*"
                     r"(CONFIG_VDPA|6\.1 )", said, re.MULTILINE)
    assert said.count(f"\n{part.dkms}/{version()}: added\n") == 1
    assert f"has /usr/src/{part.dkms}-{version()}/{part.sources}/main.c" in said
    assert f"make undkms NAME={part.module}" in said
    assert other.sources not in "".join(re.findall("^has .*", said, re.MULTILINE))
    assert "\nleft " not in said


def test_dkms_of_an_unknown_module():
    """make dkms refuses an unknown NAME, and names those that it knows."""
    result = run("make", "dkms", "NAME=virtio_blk_mq")
    assert result.returncode == 2
    assert "NAME is 'virtio_blk_mq'" in result.stdout and "vdpa_blk" in result.stdout


# Other distributions.  The tests run on Debian, so the programs are fakes that print their
# arguments, except DKMS and dracut, which are Debian's.

REFRESH = """\
kernel=6.12.0-none
mkdir -p /boot /lib/modules/$kernel /etc/mkinitcpio.d
rm -f /boot/*
attempt() {
	rm -rf bin
	mkdir bin
	ln -s $(command -v cat) $(command -v find) $(command -v head) /bin/sh bin
	for program in $2; do
		printf '#!/bin/sh\\necho "ran ${0##*/} $*"\\n%s\\n' "${3-}" >bin/$program
		chmod +x bin/$program
	done
	echo "case $1"
	PATH=$PWD/bin @REFRESH@ --if-older-than module $kernel 2>&1 || echo "exit $?"
}
touch -d 2021-01-01 module
attempt none-yet-dracut dracut
attempt none-yet-debian update-initramfs
touch -d 2020-01-01 /boot/initramfs-$kernel.img
attempt fedora dracut
attempt fails dracut 'exit 1'
attempt unknown "booster mkinitrd"
touch /boot/initramfs-$kernel.img
attempt newer dracut
mkdir -p /boot/EFI/Linux
touch -d 2020-01-01 /boot/initramfs-$kernel.img /boot/EFI/Linux/id-$kernel.efi
attempt unified dracut
rm -r /boot/EFI /boot/initramfs-$kernel.img
touch -d 2020-01-01 /boot/initrd.img-$kernel
attempt debian "update-initramfs dracut"
rm /boot/initrd.img-$kernel
echo linux >/lib/modules/$kernel/pkgbase
touch -d 2020-01-01 /boot/initramfs-linux.img
touch /etc/mkinitcpio.d/linux.preset
attempt arch mkinitcpio
touch /boot/initramfs-linux.img
attempt arch-newer mkinitcpio
rm -r /lib/modules/$kernel/pkgbase /etc/mkinitcpio.d/linux.preset
"""


@needs_root
def test_initramfs_of_other_distributions():
    """refresh-initramfs runs the program that the distribution has on the right image.

    If there is none, if it fails, or if the image is of a kind that it cannot make, the
    output says that the old driver may boot.
    """
    said = hostcopy.run(REFRESH.replace("@REFRESH@",
                                        f"{PACKAGING}/dkms/refresh-initramfs"))
    cases = {part.partition("\n")[0]: part.partition("\n")[2].rstrip()
             for part in said.split("case ")[1:]}
    kernel = "6.12.0-none"
    image = f"/boot/initramfs-{kernel}.img"
    dracut = f"dracut: rebuilding {image}\nran dracut --quiet --force {image} {kernel}"
    assert cases["none-yet-dracut"] == cases["none-yet-debian"] == ""
    assert cases["fedora"] == dracut
    assert cases["fails"] == f"{dracut}\nexit 1"
    assert cases["newer"] == cases["arch-newer"] == ""
    assert cases["debian"] == f"ran update-initramfs -u -k {kernel}"
    assert cases["arch"] == "ran mkinitcpio -p linux"
    for name, word in (("unknown", "none of update-initramfs, dracut and mkinitcpio"),
                       ("unified", f"kernel-install add {kernel}")):
        assert "WARNING" in cases[name] and "old virtio_blk" in cases[name]
        assert word in cases[name] and cases[name].endswith("exit 1")


# dracut packs both drivers; modprobe loads the one that is listed.
IN_INITRAMFS = """\
lsinitrd -f usr/lib/modules/$kernel/modules.dep /boot/initrd.img-$kernel |
	sed -n 's|^\\(.*/virtio_blk\\.ko.*\\):.*|loads \\1|p'
"""


@needs_root
@pytest.mark.full
def test_dkms_with_dracut():
    """The initramfs of dracut gets the driver with DKMS, and again the in-tree one.

    With HOOKS=other DKMS installs the driver for a new kernel by itself, the plugin of
    kernel-install says which kernels do not get it, and `make undkms` leaves nothing.
    """
    new = kernels.find("6.12")
    said = hostcopy.run(f"""\
dpkg --force-depends -i udev_*.deb dracut*.deb >/dev/null
kernel={new.release}
touch -d 2020-01-01 /boot/initrd.img-$kernel
find /etc /usr -xdev | sort >before
make -s -C {TOP} dkms HOOKS=other
{IN_INITRAMFS}
echo "alone"
dkms uninstall -m virtio-blk-mq -v {version()} -k $kernel
touch -d 2020-01-01 /boot/initrd.img-$kernel
dkms autoinstall -k $kernel
{IN_INITRAMFS}
echo "plugin"
mkdir -p /lib/modules/6.9.1-none/build/include /lib/modules/6.9.1-none/kernel
mkdir -p /lib/modules/6.12.1-none/kernel
for release in $kernel 6.9.1-none 6.12.1-none; do
	/usr/lib/kernel/install.d/45-virtio-blk-mq.install add $release
done
echo "undo"
make -s -C {TOP} undkms
{IN_INITRAMFS}
find /etc /usr -xdev | sort | comm -3 before - | sed 's/^/left /'
""", [hostcopy.package(name) for name in ("udev", "dracut-core", "dracut")], [new],
        timeout=1800)
    first, _, rest = said.partition("\nalone\n")
    alone, _, rest = rest.partition("\nplugin\n")
    plugin, _, undone = rest.partition("\nundo\n")
    ours = "\nloads updates/dkms/virtio_blk.ko"
    assert ours in first and ours in alone
    assert "6.9.1-none keeps its in-tree virtio_blk: this driver supports" in plugin
    assert "6.12.1-none keeps its in-tree virtio_blk: its headers are" in plugin
    assert f"Linux {new.release}" not in plugin
    assert "\nloads kernel/drivers/block/virtio_blk.ko" in undone
    assert "\nleft " not in undone


@both_parts
def test_files_for_other_distributions(tmp_path, part):
    """HOOKS=other has no file of Debian's hooks; what DKMS is to run is there."""
    output(PACKAGING / "dkms/files", tmp_path, NAME=part.module, HOOKS="other")
    assert not (tmp_path / "etc/kernel").exists() and not (tmp_path / "lib").exists()
    source = tmp_path / f"usr/src/{part.dkms}-{version()}"
    said = output("bash", "-c", f"kernelver=6.12.0-none; . {source}/dkms.conf; "
                  'echo "$AUTOINSTALL; $PRE_INSTALL; $POST_INSTALL"')
    assert said == ("yes; dkms-hook allowed 6.12.0-none; "
                    "dkms-hook installed 6.12.0-none\n")
    hook = (source / "dkms-hook").read_text()
    kernels_script = re.search(r"^exec /(\S+)", hook, re.MULTILINE)[1]
    plugin = tmp_path / f"usr/lib/kernel/install.d/45-{part.dkms}.install"
    for script in (source / "dkms-hook", tmp_path / kernels_script, plugin):
        assert os.access(script, os.X_OK)
    assert f"/{kernels_script}" in plugin.read_text()
    left = [path for path in tmp_path.rglob("*") if path.is_file()
            and re.search("@[A-Z]+@", path.read_text(errors="replace"))]
    assert left == []


def test_unknown_hooks(tmp_path):
    """An unknown value of HOOKS is an error with the known ones."""
    result = run(PACKAGING / "dkms/files", tmp_path, HOOKS="fedora")
    assert result.returncode == 2
    assert "HOOKS is 'fedora'; it must be debian or other" in result.stdout


# Without a package

def build_tree(directory, release):
    """Make a directory that looks like a kernel's build tree; return it."""
    (directory / "include/config").mkdir(parents=True)
    (directory / "include/config/kernel.release").write_text(f"{release}\n")
    return directory


@pytest.fixture
def built():
    """Make fake modules of a kernel; return the kernel's release."""
    release = "6.12.0-none"
    directory = TOP / "build" / release
    (directory / "vdpa").mkdir(parents=True)
    (directory / "virtio_blk.ko").write_text("a module: virtio_blk")
    (directory / "vdpa/vdpa_blk.ko").write_text("a module: vdpa_blk")
    yield release
    shutil.rmtree(directory)


@both_parts
def test_install_and_uninstall_below_a_directory(tmp_path, built, part):
    """With DESTDIR, install copies the module there and --undo removes it.

    Only the driver is in an initramfs.
    """
    tree = build_tree(tmp_path / "tree", built)
    root = tmp_path / "root"
    where = {"DESTDIR": str(root), "NAME": part.module}
    said = output(PACKAGING / "install", tree, **where)
    module = root / f"lib/modules/{built}/updates/{part.module}.ko"
    assert module.read_text() == f"a module: {part.module}"
    assert ("initramfs" in said) == (part == DRIVER) and str(module) in said
    output(PACKAGING / "install", "--undo", tree, **where)
    assert not module.parent.exists()
    assert "there is no" in output(PACKAGING / "install", "--undo", tree, **where)


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
    "version", "deb", "deb-modules", "dist", "maintainer", "fill", "install", "patch",
    "graft", "dkms/files", "dkms/register", "dkms/kernels", "vdpa-blk/vdpa-blk",
    "cloud-image/make-image"])
def test_packaging_tools_help(tool):
    """Each tool has --help, and refuses an unknown option."""
    assert output(PACKAGING / tool, "--help").startswith("usage: ")
    assert run(PACKAGING / tool, "--no-such-option").returncode in (1, 2)


def test_install_device_for_a_kernel_without_vdpa():
    """make install refuses 6.1, and advises KDIR, because it refuses KERNEL."""
    result = run("make", "install", "NAME=vdpa_blk",
                 KDIR=str(kernels.find("6.1").build))
    assert result.returncode == 2
    assert "vdpa_blk needs 6.12 or later with CONFIG_VDPA; use KDIR=" in result.stdout
    assert "KERNEL" not in result.stdout


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


def check_patches(tree, tmp_path):
    """Check that patches pass checkpatch and together have the same result as graft.

    Each applies to the unmodified tree.  Returns the names of the files.
    """
    made = output(PACKAGING / "patch", tree, tmp_path / "made").split()
    patches = sorted((tmp_path / "made").iterdir())
    assert {str(path) for path in patches} <= set(made)
    for patch in patches:
        # MAINTAINERS has drivers/vdpa already.
        said = output("perl", tree / "scripts/checkpatch.pl", f"--root={tree}",
                      *(["--ignore=FILE_PATH_CHANGES"] if "vdpa" in patch.name else []),
                      patch, cwd=tmp_path)
        assert "total: 0 errors, 0 warnings, " in said, said

    # The device's comes first, so neither needs the other.
    copy, grafted = tmp_path / "copy", tmp_path / "grafted"
    for directory in (copy, grafted):
        for file in ("Makefile", "Kconfig", "MAINTAINERS", "drivers/block/Kconfig",
                     "drivers/block/Makefile", "drivers/block/virtio_blk.c",
                     "drivers/vdpa/Kconfig", "drivers/vdpa/Makefile"):
            (directory / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(tree / file, directory / file)
    output("git", "init", "-q", cwd=copy)
    output("git", "add", "-A", cwd=copy)
    output("git", "commit", "-q", "-m", "as it was", cwd=copy)
    output("git", "am", "-q", *patches, cwd=copy)
    assert output("git", "status", "--short", cwd=copy) == ""
    output(PACKAGING / "graft", grafted)
    shutil.rmtree(grafted / "drivers/block/virtio_blk.undo")
    output("diff", "-r", "-x", "MAINTAINERS", "-x", ".git", copy, grafted)
    return {patch.name for patch in patches}


@pytest.mark.full
def test_patch(tmp_path):
    """The patches for the default kernel source are clean and equal graft."""
    assert check_patches(kernels.own_source(), tmp_path) == {"vdpa_blk.patch",
                                                             "virtio_blk.patch"}


@pytest.mark.full
@pytest.mark.parametrize("series", ["6.1", "6.12"])
def test_patch_for_older_kernels(series, tmp_path, monkeypatch):
    """The patches for older kernel sources are clean and equal graft.

    There is none of the device for 6.1.
    """
    monkeypatch.setenv("LINUX_SOURCE", f"linux-source-{series}")
    assert check_patches(kernels.own_source(), tmp_path) == {
        "virtio_blk.patch", *(["vdpa_blk.patch"] if series == "6.12" else [])}


def test_patch_bad_source(tmp_path):
    """patch refuses a directory that is no kernel source, and writes no file."""
    result = run(PACKAGING / "patch", tmp_path, tmp_path / "out")
    assert result.returncode == 2
    assert f"{tmp_path} has no Makefile" in result.stdout
    assert not (tmp_path / "out").exists()


# A module without a compiler

@pytest.fixture(scope="module")
def key(tmp_path_factory):
    """A private key and its certificate, in that order."""
    host.need("packaging", {"openssl": "openssl"})
    directory = tmp_path_factory.mktemp("key")
    paths = directory / "key.pem", directory / "cert.pem"
    output("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
           "-subj", "/CN=Key of a test", "-keyout", paths[0], "-out", paths[1])
    return paths


@pytest.fixture(scope="module")
def module_package(key):
    """The package of the module for 6.12, signed."""
    said = output("make", "-s", "deb-modules", KERNEL="6.12", KEY=str(key[0]),
                  CERT=str(key[1]), timeout=600)
    return TOP / said.splitlines()[-1]


@pytest.mark.module
def test_module_package(module_package, tmp_path):
    """make deb-modules packages the module of one kernel, signed, and nothing to build.

    The package needs that kernel, and none that has DKMS.
    """
    release = kernels.find("6.12").release
    name = f"virtio-blk-mq-modules-{release}"
    fields = dict(line.split(": ", 1) for line in output(
        "dpkg-deb", "-f", module_package).splitlines() if not line.startswith(" "))
    assert fields["Package"] == name and fields["Version"] == version()
    assert fields["Depends"].startswith(f"linux-image-{release} |")
    assert "dkms" not in fields["Depends"]
    output("dpkg-deb", "-R", module_package, tmp_path)
    module = tmp_path / f"lib/modules/{release}/updates/virtio_blk.ko"

    def field(name):
        return output("modinfo", "-F", name, module).strip()

    assert field("version") == version()
    assert field("vermagic").split()[0] == release
    assert field("signer") == "Key of a test" and field("sig_hashalgo") == "sha256"
    assert not list(tmp_path.rglob("*.c")) and not list(tmp_path.rglob("*.pem"))
    hooks = [next((tmp_path / place).iterdir()) for place in (
        "etc/kernel/postinst.d", "usr/share/initramfs-tools/hooks")]
    # run-parts and initramfs-tools skip others.
    assert all(re.fullmatch("[A-Za-z0-9_-]+", hook.name) for hook in hooks)
    for script in (tmp_path / "DEBIAN/postinst", tmp_path / "DEBIAN/postrm", *hooks):
        output("sh", "-n", script)
    assert f"refresh-initramfs {release}" in (tmp_path / "DEBIAN/postinst").read_text()
    result = run("lintian", *(["--allow-root"] if os.geteuid() == 0 else []),
                 "--fail-on", "error,warning", "--suppress-tags",
                 "package-has-long-file-name", module_package)
    assert result.returncode == 0, result.stdout


REMOVE = """\
mkdir -p bin /boot /lib/modules/{release}/kernel
ln -s /bin/sh bin
cat >postrm <<'END'
{postrm}
END
attempt() {{
	echo "case $1"
	PATH=$PWD/bin sh postrm remove 2>&1 || echo "exit $?"
}}
program() {{
	printf '#!/bin/sh\\necho "ran ${{0##*/}} $*"\\n' >bin/$1
	chmod +x bin/$1
}}
program depmod
rm -f /boot/initrd.img-{release}
attempt none
touch /boot/initrd.img-{release}
attempt other
program update-initramfs
attempt debian
"""


@needs_root
@pytest.mark.module
def test_module_package_without_initramfs_tools(module_package, tmp_path):
    """The removal succeeds without update-initramfs; the log names an old initramfs."""
    release = kernels.find("6.12").release
    output("dpkg-deb", "-e", module_package, tmp_path)
    said = hostcopy.run(REMOVE.format(
        release=release, postrm=(tmp_path / "postrm").read_text()))
    none, other, debian = (part.splitlines()[1:] for part in said.split("case ")[1:])
    assert none == [f"ran depmod {release}"]
    assert other[:1] == none and "WARNING" in other[1] and len(other) == 2
    assert f"dracut --force /boot/initrd.img-{release} {release}" in other[1]
    assert debian == [*none, f"ran update-initramfs -u -k {release}"]


@pytest.mark.module
def test_module_package_with_relative_paths(key, module_package, tmp_path):
    """deb-modules takes the paths relative to where it runs, not to its repository."""
    names = {"tree": kernels.find("6.12").build, "key.pem": key[0], "cert.pem": key[1],
             "virtio_blk.ko": kernels.build_modules(kernels.find("6.12"))}
    for name, target in names.items():
        (tmp_path / name).symlink_to(target)
    said = output(PACKAGING / "deb-modules", "tree", "virtio_blk.ko", cwd=tmp_path,
                  KEY="key.pem", CERT="cert.pem")
    assert TOP / said.strip() == module_package


@pytest.mark.parametrize("words, said", [
    ((), "name the kernel by KERNEL="),
    (("KERNEL=6.12", "NAME=vdpa_blk"), "NAME is vdpa_blk"),
])
def test_module_package_bad_arguments(words, said):
    """make deb-modules requires a kernel, and packages the driver only."""
    result = run("make", "deb-modules", *words, KERNEL="", KDIR="")
    assert result.returncode == 2 and said in result.stdout


@pytest.mark.parametrize("given, missing", [("KEY", "CERT"), ("CERT", "KEY")])
def test_module_package_half_a_key(tmp_path, given, missing):
    """A key without its certificate, or the reverse, is an error that names both."""
    kernel = kernels.find("6.12")
    module = next((kernel.modules / "lib/modules" / kernel.release).rglob("*.ko*"))
    result = run(PACKAGING / "deb-modules", kernel.build, module,
                 **{"KEY": "", "CERT": "", given: "/a/file"})
    assert result.returncode == 2
    assert f"{given} is /a/file and {missing} is not set" in result.stdout


def test_module_package_of_another_kernel(tmp_path):
    """A module of another kernel is an error that names it."""
    (tmp_path / "virtio_blk.ko").write_text("no module")
    result = run(PACKAGING / "deb-modules", kernels.find("6.12").build,
                 tmp_path / "virtio_blk.ko")
    assert result.returncode == 2
    assert f"{tmp_path}/virtio_blk.ko is no module for Linux" in result.stdout


# Beside the in-tree driver

@pytest.mark.full
@pytest.mark.module
@pytest.mark.kernels("6.12", "6.1")
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


# Disks of this kernel and of a guest, whose QEMU is file descriptor 3.
SERVICE = """\
uname -r
install -D -t /lib/modules/$(uname -r)/updates vdpa_blk.ko
depmod
truncate -s 64M /root/back
losetup /dev/loop0 /root/back
printf 'path=/dev/loop0\nbus=virtio_vdpa\nqueues=2\n' >/etc/vdpa-blk/disk0.conf
systemctl enable --now vdpa-blk@disk0
test "$(cat /sys/module/vdpa_blk/version)" = {version}
udevadm settle
disk=$(basename /sys/bus/vdpa/devices/disk0/virtio*/block/*)
fio --name=verify --filename=/dev/$disk --size=8m --rw=randwrite --bs=4k --direct=1 \
	--ioengine=psync --verify=crc32c --do_verify=1 --verify_state_save=0 >/dev/null
systemctl stop vdpa-blk@disk0
test ! -e /sys/bus/vdpa/devices/disk0

ln -s /dev/loop0 /run/late
printf 'path=/run/late\n' >/etc/vdpa-blk/disk0.conf
systemctl start vdpa-blk@disk0
test -c /run/vdpa-blk/disk0
! dpkg -r virtio-blk-mq-vdpa
exec 3<>/run/vdpa-blk/disk0
systemctl stop --no-block vdpa-blk@disk0
while ls /dev/vhost-vdpa-*; do sleep 1; done
test "$(systemctl is-active vdpa-blk@disk0)" = deactivating
test "$(systemctl show -P TimeoutStopUSec vdpa-blk@disk0)" = infinity
timeout 60 vdpa dev show disk0
! dpkg -r virtio-blk-mq-vdpa
exec 3>&-
systemctl stop vdpa-blk@disk0
test ! -e /sys/bus/vdpa/devices/disk0

# The machine switches off while the unit is active.
systemctl start vdpa-blk@disk0
test -c /run/vdpa-blk/disk0
"""
# The unit is enabled and waits for its block device, and the package is removed.
SERVICE_AT_BOOT = """\
while [ "$(systemctl is-active vdpa-blk@disk0)" = inactive ]; do sleep 1; done
test "$(systemctl is-active vdpa-blk@disk0)" = activating
losetup /dev/loop0 /root/back
ln -s /dev/loop0 /run/late
while [ "$(systemctl is-active vdpa-blk@disk0)" = activating ]; do sleep 1; done
test "$(systemctl is-active vdpa-blk@disk0)" = active
test -c /run/vdpa-blk/disk0
systemctl stop vdpa-blk@disk0
systemctl disable vdpa-blk@disk0
dpkg -r virtio-blk-mq-vdpa
dpkg -l virtio-blk-mq-vdpa | tail -n 1
"""


def initrds(said):
    """Return the file of virtio_blk in each initramfs: {release: path}."""
    return dict(re.findall(r"^usr/lib/modules/([^/]+)/(\S+/virtio_blk\.ko\S*)$", said,
                           re.MULTILINE))


@pytest.mark.full
def test_installed_upgraded_and_removed(packages):
    """The root disk uses the driver from installation to removal."""
    with machines.Machine() as machine:
        said = machine.step(OWN + "dpkg -i *.deb\n" + STATE, [
            packages["virtio-blk-mq-dkms"], packages["virtio-blk-mq-tools"]])
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
def test_unit_of_the_device(packages):
    """systemd adds and deletes devices, at boot and shutdown too.

    A unit that is active, or waits for a guest to stop, keeps its package installed.

    The module is built on the host, because DKMS under emulation takes half an hour.
    """
    module = kernels.build_vdpa(kernels.find("6.12"))
    (image,) = [path for path in machines.kernel_packages("6.12")
                if path.name.startswith("linux-image-")]
    with machines.Machine() as machine:
        said = machine.step("dpkg -i *.deb\n", [image, packages["virtio-blk-mq-vdpa"]])
        assert re.search(r"Linux 6\.1\.\S+ gets no vdpa_blk: it needs 6.12", said)
        assert re.search(r"Linux 6\.12\.\S+ gets no vdpa_blk: its headers are", said)
        said = machine.step(SERVICE.format(version=version()), [module])
        assert said.startswith("6.12.")
        assert said.count("stop them first: systemctl stop vdpa-blk@disk0.service") == 2
        said = machine.step(SERVICE_AT_BOOT)
    assert re.search("^rc +virtio-blk-mq-vdpa", said, re.MULTILINE)


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


def make_image(tmp_path, **variables):
    """Make an image with make-image that runs the steps of a Machine."""
    host.need("vm", "archive")
    added, image = tmp_path / "added", tmp_path / "image"
    machines.add_runner(added)
    sources = tmp_path / "sources.list"
    sources.write_text(debian.sources(machines.SUITES))
    output(PACKAGING / "cloud-image/make-image", image, "--quiet",
           f"--customize-hook=sync-in {added} /", SOURCES=str(sources), timeout=1800,
           **variables)
    return image


@pytest.mark.full
@pytest.mark.skipif(os.geteuid() != 0, reason="making the image takes root")
def test_image_with_no_compiler(module_package, tmp_path):
    """An image with the package of the module, and no other virtio_blk, boots from it.

    It has no compiler, no DKMS and no headers.  A kernel without a package is named.
    """
    image = make_image(tmp_path, MODULES=str(module_package))
    with machines.Machine(image) as machine:
        said = machine.step(OURS.format(version=version()) + """\
! command -v gcc
! command -v dkms
modinfo -F signer virtio_blk
find /lib/modules -name 'virtio_blk.ko*'
lsinitramfs /boot/initrd.img-* | grep /virtio_blk.ko
run-parts --arg=6.99.0-none /etc/kernel/postinst.d --regex=virtio-blk
""")
    assert said.startswith(kernels.find("6.12").release)
    assert "\nKey of a test\n" in said
    (module,) = re.findall("^/lib/modules/.*", said, re.MULTILINE)
    assert module.endswith("/updates/virtio_blk.ko")
    assert set(initrds(said).values()) == {"updates/virtio_blk.ko"}
    assert "6.99.0-none keeps its in-tree virtio_blk: install" in said


@pytest.mark.full
@pytest.mark.skipif(os.geteuid() != 0, reason="making the image takes root")
def test_image_with_no_other_driver(packages, tmp_path):
    """A cloud image that has no other virtio_blk boots from the driver's module."""
    image = make_image(tmp_path)
    with machines.Machine(image) as machine:
        said = machine.step(OURS.format(version=version())
                            + "find /lib/modules -name 'virtio_blk.ko*'\n" + STATE)
    (module,) = re.findall("^/lib/modules/.*", said, re.MULTILINE)
    assert module.endswith("/updates/dkms/virtio_blk.ko")
    assert set(initrds(said).values()) == {"updates/dkms/virtio_blk.ko"}
