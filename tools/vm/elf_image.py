# SPDX-License-Identifier: GPL-2.0
"""The kernel of a bzImage, unpacked on the host.

QEMU boots an ELF kernel by PVH, without a boot loader's code and without the kernel's
own decompression, which takes an emulated guest a second and a half.
"""

import gzip
import hashlib
import lzma
import mmap
import struct
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

from host import cache, deps
from host.ui import UserError

_ELF = b"\x7fELF"


def _filter(program: str, data: bytes) -> bytes:
    """Pass data through a program, which its package is named after."""
    deps.need({program: program})
    return subprocess.run([deps.path_of(program), "-qdc"], input=data, check=True,
                          stdout=subprocess.PIPE).stdout


_KINDS: dict[bytes, Callable[[bytes], bytes]] = {
    b"\x1f\x8b": gzip.decompress, b"\xfd7zXZ": lzma.decompress,
    b"\x28\xb5\x2f\xfd": partial(_filter, "zstd"),
    b"\x02\x21\x4c\x18": partial(_filter, "lz4")}


def decompressed(data: bytes) -> bytes:
    """Return what gzip, xz, zstd or lz4 (-l) has compressed."""
    for magic, function in _KINDS.items():
        if data.startswith(magic):
            return function(data)
    raise UserError("data is compressed by none of gzip, xz, zstd, lz4 -l; it begins "
                    f"with {data[:8].hex()}")


def _payload(image: bytes | mmap.mmap) -> slice:
    """Return where in a bzImage its kernel is (Documentation/arch/x86/boot.rst)."""
    setup_sectors = image[0x1f1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    begin = (setup_sectors + 1) * 512 + offset
    # The build appends the size, except to gzip, which has it already.
    size = 0 if image[begin:begin + 2] == b"\x1f\x8b" else 4
    return slice(begin, begin + length - size)


def _unpack(image: Path, directory: Path) -> None:
    data = image.read_bytes()
    plain = decompressed(data[_payload(data)])
    if not plain.startswith(_ELF):
        raise UserError(f"{image} has no ELF kernel in it; remove {cache.root()} to "
                        "download it again")
    (directory / "vmlinux").write_bytes(plain)


def unpacked(image: Path) -> Path:
    """Return the ELF kernel of a bzImage, in the cache; the bzImage if it is of no
    known kind.
    """
    with open(image, "rb") as file, \
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[0x202:0x206] != b"HdrS" or \
                not data[(at := _payload(data).start):at + 8].startswith(tuple(_KINDS)):
            return image
    # Not by its contents: each test asks for its kernel.
    stat = image.stat()
    key = f"{image.name} {stat.st_size} {stat.st_mtime_ns}"
    name = f"vmlinux-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    return cache.populate(name, partial(_unpack, image), mib=100) / "vmlinux"
