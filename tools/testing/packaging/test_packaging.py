# SPDX-License-Identifier: GPL-2.0
"""The packages, and DKMS on a copy of this host and on other distributions."""

import os
import re
from pathlib import Path

import pytest

from host import deps
from vm import kernels

from . import hostcopy
from .package import (DEVICE, DRIVER, PACKAGING, TOP, both_parts, needs_root, output,
                      run, version)


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
            and path.suffix != ".gz"
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
    deps.need({"systemd-analyze": "systemd"})
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
            and path.suffix != ".gz"
            and re.search("@[A-Z]+@", path.read_text(errors="replace"))]
    assert left == []


def test_unknown_hooks(tmp_path):
    """An unknown value of HOOKS is an error with the known ones."""
    result = run(PACKAGING / "dkms/files", tmp_path, HOOKS="fedora")
    assert result.returncode == 2
    assert "HOOKS is 'fedora'; it must be debian or other" in result.stdout
