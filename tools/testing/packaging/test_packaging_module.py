# SPDX-License-Identifier: GPL-2.0
"""The package of a module for one kernel, for systems without a compiler."""

import os
import re

import pytest

from host import deps
from vm import kernels

from . import hostcopy
from . import machine as machines
from .package import (OURS, PACKAGING, TOP, initrds, make_image, needs_root, output,
                      run, version)


@pytest.fixture(scope="module")
def key(tmp_path_factory):
    """A private key and its certificate, in that order."""
    deps.need("packaging", {"openssl": "openssl"})
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


@pytest.mark.full
@pytest.mark.skipif(os.geteuid() != 0, reason="making the image takes root")
def test_image_with_no_compiler(module_package, tmp_path):
    """An image with the package of the module, and no other virtio_blk, boots from it.

    It has no compiler, no DKMS and no headers.  A kernel without a package is named.
    """
    image = make_image(tmp_path, MODULES=str(module_package))
    with machines.Machine(image) as machine:
        said = machine.step(OURS.format(version=version()) + """\
if command -v gcc || command -v dkms; then exit 1; fi
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
