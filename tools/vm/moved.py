# SPDX-License-Identifier: GPL-2.0
"""Kernel build trees in a cache that was copied or moved.

kbuild records absolute paths of the source and of the build tree.  With the old ones it
would use the other cache, or fail, or compile the whole kernel again.
"""

import os
from pathlib import Path

from host import cache
from host.ui import step

# The files in which kbuild records paths, besides symbolic links.
_RECORDS = ("*.cmd", "*.d", "Makefile")


def old_cache(build: Path, source: Path) -> Path | None:
    """Return the cache that a build tree was made in; None if it is still there.

    source: the source tree, in the same cache as the build tree.
    """
    link = build / "source"
    if not link.is_symlink() or (old := os.readlink(link)) == str(source):
        return None
    return Path(old).parent


def follow(build: Path, source: Path) -> None:
    """Replace the paths of the old cache in a build tree, if it was made in another.

    The link that shows the old cache comes last, so that an interrupted change is
    done again.
    """
    old = old_cache(build, source)
    if old is None:
        return
    with step(f"{build.name} was built in {old}: changing its paths"):
        before, after = (f"{path}/".encode() for path in (old, build.parent))
        for pattern in _RECORDS:
            for path in build.rglob(pattern):
                if path.is_file() and not path.is_symlink():
                    _rewrite(path, before, after)
        for path in build.rglob("*"):
            if path.is_symlink() and path != build / "source":
                _link(path, old, build.parent)
        _link(build / "source", old, build.parent)


def _rewrite(path: Path, before: bytes, after: bytes) -> None:
    """Replace text in a file, which keeps its times, so that make sees no change.

    The new text can contain the old one.  An interrupted change leaves files with the
    new text, and that must not be replaced again.
    """
    data = path.read_bytes()
    restored = data.replace(after, before) if before in after else data
    changed = restored.replace(before, after)
    if changed != data:
        times = path.stat()
        cache.replace(path, changed)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def _link(path: Path, old: Path, new: Path) -> None:
    """Point a symbolic link into the old cache to the same file of the new one."""
    target = Path(os.readlink(path))
    if target.is_relative_to(old) and not target.is_relative_to(new):
        path.unlink()
        path.symlink_to(new / target.relative_to(old))
