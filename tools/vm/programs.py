# SPDX-License-Identifier: GPL-2.0
"""An image with programs of the host and their libraries, for guests."""

import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from host import deps

from . import image

_RUN = """\
#!/bin/sh
here=${0%/*}
program=$here/$1
shift
exec $here/lib/ld-linux-x86-64.so.2 --library-path $here/lib $program "$@"
"""


def pack(path: Path, label: str, mib: int, programs: Iterable[list[str]],
         files: Iterable[Path] = ()) -> None:
    """Write an image with a file system of that label to path.

    programs: the words that start each, of which the last one is its path; files: more
    of them.  All are on the image's top level, and the script `run` there starts a
    program by its name, with the host's libraries.  mib: the size of the image.
    """
    tree = path.with_name("tree")
    (tree / "lib").mkdir(parents=True)
    deps.need({"mke2fs": "e2fsprogs"})
    for words in programs:
        shutil.copy(words[-1], tree)
        # The words before the last one set the path of libraries.
        listed = subprocess.run([*words[:-1], "ldd", words[-1]], text=True,
                                check=True, stdout=subprocess.PIPE).stdout
        for library in re.findall(r"(/\S+) \(0x", listed):
            shutil.copy(library, tree / "lib")
    for file in files:
        shutil.copy(file, tree)
    (tree / "run").write_text(_RUN)
    (tree / "run").chmod(0o755)
    image.make_ext4(tree, path, label, mib, "-O", "^has_journal")
    shutil.rmtree(tree)
