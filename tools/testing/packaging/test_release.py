# SPDX-License-Identifier: GPL-2.0
"""Versions, and the tarball of a release.

Each test has a clone with the files of this tree, committed.
"""

import hashlib
import subprocess
import tarfile
import time

import pytest

from host import deps
from vm import kernels

from . import package
from .package import TOP

# Without the person's own settings, except that the tree may be another's.
GIT = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_COUNT": "1",
       "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}


def run(*argv, cwd, **environment):
    """Run a program in a tree; return its CompletedProcess."""
    return package.run(*argv, cwd=cwd, **{**GIT, **environment})


def output(*argv, cwd, **environment):
    """Run a program that succeeds; return what it wrote, without the newline."""
    return package.output(*argv, cwd=cwd, **{**GIT, **environment}).strip()


def commit(tree, date):
    """Commit all changes at a time in UTC, such as "2026-11-29T12:00:00"."""
    output("git", "add", "-A", cwd=tree)
    output("git", "commit", "-q", "--allow-empty", "-m", "A change", cwd=tree,
           GIT_COMMITTER_DATE=f"{date}+0000")


@pytest.fixture
def tree(tmp_path):
    """A repository without tags, of one commit with the files of this tree."""
    deps.need("amd64", {"git": "git", "cpio": "cpio", "make": "make"})
    tree = tmp_path / "tree"
    tree.mkdir()
    files = output("git", "ls-files", "-z", "--cached", "--others",
                   "--exclude-standard", cwd=TOP)
    subprocess.run(["cpio", "--quiet", "-0", "-pdm", tree], cwd=TOP, text=True,
                   input="\0".join(name for name in files.split("\0")
                                   if name and (TOP / name).exists()), check=True)
    output("git", "init", "-q", cwd=tree)
    commit(tree, "2026-11-29T12:00:00")
    return tree


def version(tree):
    """Return what the tree's own program says."""
    return output(tree / "tools/packaging/version", cwd=tree)


def number(tree):
    """Return the number that the tree's header has."""
    return (tree / "include/version.h").read_text().split('"')[1]


def test_version_between_releases(tree):
    """Each commit has a later version than the one before, for apt, also on one day.

    A commit before the tag is older than the release; the tag is the release.
    """
    found = [version(tree)]
    sha = output("git", "rev-parse", "--short=7", "HEAD", cwd=tree)
    assert found == [f"{number(tree)}~git20261129120000.{sha}"]
    (tree / "README.md").write_text("changed\n")
    assert version(tree) == f"{found[0]}.dirty"
    commit(tree, "2026-11-29T12:00:01")
    found.append(version(tree))
    output("git", "tag", "-a", "-m", "release", f"v{number(tree)}", cwd=tree)
    found.append(version(tree))
    assert found[-1] == number(tree)
    commit(tree, "2026-11-30T12:00:00")
    found.append(version(tree))
    assert found[-1].startswith(f"{number(tree)}+git20261130120000.")
    for older, newer in zip(found, found[1:]):
        output("dpkg", "--compare-versions", older, "lt", newer, cwd=tree)


def test_version_of_a_dirty_release(tree):
    """A changed tree at the tag is not the release."""
    output("git", "tag", "-a", "-m", "release", f"v{number(tree)}", cwd=tree)
    (tree / "README.md").write_text("changed\n")
    assert version(tree) == f"{number(tree)}+dirty"


def test_one_version(tree, tmp_path, monkeypatch):
    """The sources for DKMS, those that make modules compiles, and vblkstat agree."""
    wanted = f'VIRTIO_BLK_MQ_VERSION\t"{version(tree)}"'
    root = tmp_path / "root"
    output(tree / "tools/packaging/dkms/files", root, cwd=tree)
    source = root / f"usr/src/virtio-blk-mq-{version(tree)}"
    assert wanted in (source / "include/version.h").read_text()
    assert f'PACKAGE_VERSION="{version(tree)}"' in (source / "dkms.conf").read_text()

    monkeypatch.setattr(kernels, "_TOP", tree)
    kernels._copy_sources(tmp_path / "copy", kernels._DRIVER)
    assert wanted in (tmp_path / "copy/include/version.h").read_text()

    output("make", "-s", "-C", tree / "tools/vblkstat", f"OUT={tmp_path / 'out'}",
           cwd=tree)
    assert version(tree) in output(tmp_path / "out/vblkstat", "--version", cwd=tree)
    # The next commit changes no file of vblkstat.
    commit(tree, "2026-11-30T12:00:00")
    output("make", "-s", "-C", tree / "tools/vblkstat", f"OUT={tmp_path / 'out'}",
           cwd=tree)
    assert version(tree) in output(tmp_path / "out/vblkstat", "--version", cwd=tree)


def dist(tree, **environment):
    """Run make dist; return the tarball and the text of SHA256SUMS."""
    output("make", "-s", "dist", cwd=tree, **environment)
    (tarball,) = (tree / "build/dist").glob("*.tar.gz")
    return tarball, (tree / "build/dist/SHA256SUMS").read_text()


def test_dist_is_reproducible(tree, tmp_path):
    """Two clones write the same bytes, at another time, in another zone and umask."""
    tarball, sums = dist(tree)
    first = tarball.read_bytes()
    assert sums == f"{hashlib.sha256(first).hexdigest()}  {tarball.name}\n"
    time.sleep(1.1)
    other = tmp_path / "other"
    output("git", "clone", "-q", tree, other, cwd=tmp_path)
    output("git", "config", "tar.umask", "077", cwd=other)
    output("git", "config", "core.abbrev", "20", cwd=other)
    again, sums_again = dist(other, TZ="Asia/Tokyo", LC_ALL="C")
    assert again.name == tarball.name and again.read_bytes() == first
    assert sums_again == sums


def test_dist_has_what_is_committed(tree, tmp_path):
    """The tarball has each committed file, and its tree has the version of the commit."""
    tarball, _ = dist(tree)
    name = f"virtio-blk-mq-{version(tree)}"
    assert tarball.name == f"{name}.tar.gz"
    with tarfile.open(tarball) as archive:
        archive.extractall(tmp_path / "unpacked")
    unpacked = tmp_path / "unpacked" / name
    committed = set(output("git", "ls-files", cwd=tree).splitlines())
    assert {str(path.relative_to(unpacked)) for path in unpacked.rglob("*")
            if path.is_file()} == committed
    different = {file for file in committed
                 if (unpacked / file).read_bytes() != (tree / file).read_bytes()}
    assert different == {"tools/packaging/commit"}
    assert version(unpacked) == version(tree)


def test_dist_of_a_release(tree, tmp_path):
    """At the tag the tarball has the release's number, and so has its tree."""
    output("git", "tag", "-a", "-m", "release", f"v{number(tree)}", cwd=tree)
    tarball, _ = dist(tree)
    assert tarball.name == f"virtio-blk-mq-{number(tree)}.tar.gz"
    with tarfile.open(tarball) as archive:
        archive.extractall(tmp_path)
    assert version(tmp_path / f"virtio-blk-mq-{number(tree)}") == number(tree)


@pytest.mark.parametrize("file", ["README.md", "new-file"])
def test_dist_refuses_a_dirty_tree(tree, file):
    """A changed or new file is an error that names it; nothing is written."""
    (tree / file).write_text("changed\n")
    result = run("make", "-s", "dist", cwd=tree)
    assert result.returncode == 2
    assert file in result.stdout and "git stash" in result.stdout
    assert not list((tree / "build/dist").glob("*"))


# Packages of other distributions.  The tests run on Debian, so its rpmbuild and rpmlint
# check the one, and bash runs the function of the other.

SHARED = {"usr/share/virtio-blk-mq-dkms/kernels",
          "usr/share/virtio-blk-mq-dkms/refresh-initramfs",
          "usr/share/virtio-blk-mq-dkms/signatures-enforced"}


def sources(tree):
    """Return the paths that the driver's sources for DKMS have in a package."""
    place = f"usr/src/virtio-blk-mq-{version(tree)}"
    return {f"{place}/{path.relative_to(TOP)}" for path in kernels._sources()} | {
        f"{place}/dkms.conf", f"{place}/dkms-hook"}


@pytest.mark.full
def test_rpm(tree, tmp_path):
    """rpmbuild makes a package of the tarball, with what DKMS needs; rpmlint is content."""
    deps.need({"rpmbuild": "rpm", "rpmlint": "rpmlint"})
    dist(tree)
    spec = tree / "tools/packaging/rpm/virtio-blk-mq.spec"
    output("rpmbuild", "-bb", "--define", f"_topdir {tmp_path / 'rpm'}", "--define",
           f"_sourcedir {tree / 'build/dist'}", spec, cwd=tree)
    (package,) = (tmp_path / "rpm/RPMS").rglob("*.rpm")
    files = {line[1:] for line in output("rpm", "-qp", "-l", package,
                                         cwd=tmp_path).splitlines()}
    assert sources(tree) | SHARED | {
        "usr/lib/kernel/install.d/45-virtio-blk-mq.install",
        "usr/lib/dracut/dracut.conf.d/virtio-blk-mq.conf"} <= files
    assert not any("alpm" in name or "initramfs-tools" in name for name in files)
    assert output("rpm", "-qp", "--qf", "%{VERSION} %{ARCH}", package,
                  cwd=tmp_path) == f"{version(tree)} noarch"
    scripts = output("rpm", "-qp", "--scripts", package, cwd=tmp_path)
    assert "kernels adopt" in scripts and "kernels leave" in scripts
    said = run("rpmlint", "-c", tree / "tools/packaging/rpm/rpmlint.toml", spec, package,
               cwd=tree)
    assert " 0 errors, 0 warnings" in said.stdout, said.stdout


def test_pkgbuild(tree, tmp_path):
    """The PKGBUILD installs what DKMS and pacman need, from the unpacked tarball."""
    tarball, _ = dist(tree)
    with tarfile.open(tarball) as archive:
        archive.extractall(tmp_path)
    output("bash", "-euc", '. "$1"; _version=$2; pkgdir=$3; package', "bash",
           tree / "tools/packaging/arch/PKGBUILD", version(tree), tmp_path / "pkg",
           cwd=tmp_path)
    files = {str(path.relative_to(tmp_path / "pkg"))
             for path in (tmp_path / "pkg").rglob("*") if path.is_file()}
    assert sources(tree) | SHARED | {
        "usr/share/libalpm/hooks/95-virtio-blk-mq.hook",
        "etc/mkinitcpio.conf.d/virtio-blk-mq.conf"} <= files
    assert not any("install.d" in name or "initramfs-tools" in name for name in files)
