# SPDX-License-Identifier: GPL-2.0
"""graft and patch, which put the driver and the device into a kernel's sources.

The trees are small ones that look like a kernel's.  No guest, and no network.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from testing.environment import plain_environment
from vm import kernels

TOP = Path(__file__).resolve().parents[3]
GRAFT = TOP / "tools/packaging/graft"
PATCH = TOP / "tools/packaging/patch"

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
VDPA_KCONFIG = """\
if VDPA

config VDPA_SIM
	tristate "A simulator"

endif # VDPA
"""


def contents(directory):
    """Return the names, modes and contents of all files in a directory."""
    return {path.relative_to(directory): (
                path.stat().st_mode, path.read_bytes() if path.is_file() else None)
            for path in directory.rglob("*")}


def linux_tree(directory, version="6.18", kconfig_end="\nconfig LAST\n\tbool\n"):
    """Make a directory that looks like a Linux source tree."""
    block, vdpa = directory / "drivers/block", directory / "drivers/vdpa"
    block.mkdir(parents=True)
    vdpa.mkdir()
    (directory / "include/trace/events").mkdir(parents=True)
    major, minor = version.split(".")
    (directory / "Makefile").write_text(
        f"# SPDX\nVERSION = {major}\nPATCHLEVEL = {minor}\nSUBLEVEL = 1\n")
    (directory / "Kconfig").write_text("source drivers/block/Kconfig\n")
    (directory / "MAINTAINERS").write_text("F:\tdrivers/block/virtio_blk.c\n")
    (block / "Kconfig").write_text(KCONFIG.format(kconfig_end))
    (block / "Makefile").write_text(MAKEFILE)
    (block / "virtio_blk.c").write_text("/* the in-tree driver */\n")
    (block / "virtio_blk.c").chmod(0o640)
    (block / "Kconfig").chmod(0o600)
    (vdpa / "Kconfig").write_text(VDPA_KCONFIG)
    (vdpa / "Makefile").write_text("obj-$(CONFIG_VDPA_SIM) += vdpa_sim/\n")
    return directory


def graft(*words):
    return subprocess.run([GRAFT, *words], text=True, capture_output=True,
                          timeout=30)


def patch(*words, cwd, config):
    """Run patch in a directory; git has only these lines of configuration."""
    file = cwd.parent / "gitconfig"
    file.write_text(config)
    environment = {name: value for name, value in os.environ.items()
                   if not name.startswith("GIT_")}
    return subprocess.run([PATCH, *words], text=True, capture_output=True, timeout=60,
                          cwd=cwd, env={**environment, "GIT_CONFIG_GLOBAL": str(file),
                                        "GIT_CONFIG_NOSYSTEM": "1"})


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


def test_graft_adds_the_device(tmp_path):
    """A graft adds vdpa_blk with what it needs, and its lines once."""
    tree = linux_tree(tmp_path / "linux")
    for _ in range(2):
        result = graft(tree)
        assert result.returncode == 0, result.stderr
    vdpa = tree / "drivers/vdpa"
    assert (vdpa / "Kconfig").read_text() == VDPA_KCONFIG.replace(
        "endif", 'source "drivers/vdpa/vdpa_blk/Kconfig"\n\nendif')
    assert (vdpa / "Makefile").read_text().splitlines() == [
        "obj-$(CONFIG_VDPA_SIM) += vdpa_sim/", "obj-$(CONFIG_VDPA_BLK) += vdpa_blk/"]
    for name in ("Kconfig", "Makefile", "main.c", "version.h", "compat/detect.mk"):
        assert (vdpa / "vdpa_blk" / name).exists()


def test_graft_older_kernel_gets_no_device(tmp_path):
    """A graft into a kernel before 6.12 leaves drivers/vdpa as it is."""
    tree = linux_tree(tmp_path / "linux", "6.8")
    before = contents(tree / "drivers/vdpa")
    assert graft(tree).returncode == 0
    assert contents(tree / "drivers/vdpa") == before


def test_graft_leaves_hard_links_alone(tmp_path):
    """A tree that shares files with the grafted one by hard links does not change."""
    tree = linux_tree(tmp_path / "linux")
    shutil.copytree(tree, tmp_path / "other", copy_function=os.link)
    before = contents(tmp_path / "other")
    assert graft(tree).returncode == 0
    assert contents(tmp_path / "other") == before


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
    assert not (tree / kernels._DEVICE / "compat").exists()


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


@pytest.mark.parametrize("part", [kernels._DRIVER, kernels._DEVICE])
def test_graft_foreign_driver_is_left_alone(tmp_path, part):
    """A graft does not replace a directory of a driver that it did not make."""
    tree = linux_tree(tmp_path / "linux")
    (tree / part).mkdir()
    (tree / part / "Makefile").write_text("theirs\n")
    before = contents(tree)
    result = graft(tree)
    assert result.returncode == 2
    assert "of its own" in result.stderr
    assert contents(tree) == before


def test_graft_vdpa_kconfig_with_another_end(tmp_path):
    """A graft that finds no place for the device's line changes nothing."""
    tree = linux_tree(tmp_path / "linux")
    (tree / "drivers/vdpa/Kconfig").write_text(VDPA_KCONFIG.replace(" # VDPA", ""))
    before = contents(tree)
    result = graft(tree)
    assert result.returncode == 2
    assert "no line 'endif # VDPA'" in result.stderr
    assert contents(tree) == before


def test_make_patch(tmp_path):
    """make patch writes patches that together make the changes of graft."""
    tree, grafted = linux_tree(tmp_path / "linux"), linux_tree(tmp_path / "grafted")
    clone = shutil.copytree(TOP, tmp_path / "clone", ignore=shutil.ignore_patterns(
        ".git", "build", "__pycache__", "*.o", "*.ko"))
    person = {f"GIT_{who}_{what}": f"a@{what}.org" for who in ("AUTHOR", "COMMITTER")
              for what in ("NAME", "EMAIL")}

    def output(*argv):
        return subprocess.run(argv, check=True, text=True, stdout=subprocess.PIPE,
                              cwd=tree, env=plain_environment(**person)).stdout

    patches = output("make", "-s", "-C", clone, "patch", f"LINUX={tree}").splitlines()
    assert patches == ["build/virtio_blk.patch", "build/vdpa_blk.patch"]
    output("git", "init", "-q")
    output("git", "add", "-Af")
    output("git", "commit", "-q", "-m", "as it was")
    # Neither patch needs the other, so the order is free.
    output("git", "am", "-q", *(clone / patch for patch in reversed(patches)))
    assert graft(grafted).returncode == 0
    shutil.rmtree(grafted / "drivers/block/virtio_blk.undo")
    output("diff", "-r", "-x", ".git", "-x", "MAINTAINERS", tree, grafted)
    assert (tree / "MAINTAINERS").read_text() == "F:\tdrivers/block/virtio_blk/\n"


def test_patch_has_files_that_git_ignores(tmp_path):
    """A patch has all sources, even if the user's excludesFile lists their names."""
    tree = linux_tree(tmp_path / "linux")
    (tmp_path / "excludes").write_text("tests/\nmain.c\n")
    result = patch(tree, "made", cwd=tree, config=f"""\
[user]
	name = A Person
	email = a@example.org
[core]
	excludesFile = {tmp_path / "excludes"}
""")
    assert result.returncode == 0, result.stderr
    for part, name in (kernels._DRIVER, "virtio_blk"), (kernels._DEVICE, "vdpa_blk"):
        text = (tree / f"made/{name}.patch").read_text()
        for source in (TOP / part).rglob("*.[ch]"):
            assert f"+++ b/{source.relative_to(TOP)}\n" in text


def test_patch_older_kernel_removes_the_devices_patch(tmp_path):
    """For a kernel before 6.12, patch removes an earlier patch of the device."""
    tree = linux_tree(tmp_path / "linux", "6.8")
    stale = tree / "made/vdpa_blk.patch"
    stale.parent.mkdir()
    stale.touch()
    result = patch(tree, "made", cwd=tree, config="""\
[user]
	name = A Person
	email = a@example.org
""")
    assert result.returncode == 0, result.stderr
    assert "gets no vdpa_blk" in result.stderr
    assert result.stdout == "made/virtio_blk.patch\n"
    assert [path.name for path in stale.parent.iterdir()] == ["virtio_blk.patch"]
    assert "gets no virtio_ring.patch" in result.stderr


def test_patch_identity_of_one_repository(tmp_path):
    """patch refuses an identity that git has in the current repository only."""
    tree, clone = linux_tree(tmp_path / "linux"), tmp_path / "clone"
    subprocess.run(["git", "init", "-q", clone], check=True)
    with (clone / ".git/config").open("a") as config:
        config.write("[user]\n\tname = A Person\n\temail = a@example.org\n")
    result = patch(tree, "made", cwd=clone, config="[user]\n\tuseConfigOnly = true\n")
    assert result.returncode == 2
    assert "git config --global user.name" in result.stderr
    assert not (clone / "made").exists()
