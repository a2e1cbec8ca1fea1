# SPDX-License-Identifier: GPL-2.0
"""Installing without a package, and building into a kernel."""

import re
import shutil

import pytest

from vm import kernels

from .package import DRIVER, PACKAGING, TOP, both_parts, output, run

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
                      *(["--strict"] if "ring" in patch.name else []),
                      patch, cwd=tmp_path)
        assert "total: 0 errors, 0 warnings, " in said, said
        assert "ring" not in patch.name or ", 0 checks, " in said, said

    # The driver's comes last, so none needs another.
    copy, grafted = tmp_path / "copy", tmp_path / "grafted"
    for directory in (copy, grafted):
        for file in ("drivers/virtio/virtio_ring.c", "include/linux/virtio.h", "Makefile", "Kconfig", "MAINTAINERS", "drivers/block/Kconfig",
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
    # graft does not change virtio_ring.
    output("diff", "-r", "-x", "MAINTAINERS", "-x", ".git", "-x", "virtio_ring.c",
           "-x", "virtio.h", copy, grafted)
    return {patch.name for patch in patches}


@pytest.mark.full
def test_patch(tmp_path):
    """The patches for the default kernel source are clean, and equal graft.

    Only virtio_ring's is no part of graft.
    """
    assert check_patches(kernels.own_source(), tmp_path) == {
        "vdpa_blk.patch", "virtio_blk.patch", "virtio_ring.patch"}


@pytest.mark.full
def test_virtio_ring_patch(tmp_path):
    """The patch of virtio_ring is signed off, and describes the function that it adds."""
    tree = kernels.own_source()
    output(PACKAGING / "patch", tree, tmp_path)
    text = (tmp_path / "virtio_ring.patch").read_text()
    message = text[:text.index("\n---\n")]
    assert "Subject: [PATCH] virtio_ring: " in message
    assert message.splitlines()[-1].startswith("Signed-off-by: ")
    assert all(len(line) <= 75 for line in message.splitlines()[4:-1])
    assert "SPDX" not in message
    said = output(tree / "scripts/kernel-doc", "-none", "-Wall",
                  kernels.patched_source() / "drivers/virtio/virtio_ring.c")
    assert "virtqueue_add_prepared" not in said


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
