# SPDX-License-Identifier: GPL-2.0
"""Faults in a copy of vdpa_blk, to show that each rule of vdpadrv finds one.

A module has all of them, and its parameter `fault` chooses one.
"""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from vm import kernels
from vm.kernels import Kernel

# For each rule a file of the device, text in it, and what replaces it.  FAULT is true if
# this fault is chosen.
FAULTS = {
    "STATUS_RESET": (
        "device.c", "\tvb->status = 0;\n", "\tvb->status = FAULT ? 1 : 0;\n"),
    "RESET_QUIET": (
        "device.c", "\tvdpa_blk_stop_queues(vb);\n\tbitmap_zero",
        "\tif (!FAULT)\n\t\tvdpa_blk_stop_queues(vb);\n"
        "\telse\n\t\tvdpa_blk_unpark_workers(vb);\n\tbitmap_zero"),
    "RESET_FORGETS": (
        "device.c", "\tvb->config.wce = vdpa_blk_has_cache(vb);\n",
        "\tif (!FAULT)\n\t\tvb->config.wce = vdpa_blk_has_cache(vb);\n"),
    "NOT_BEFORE_DRIVER_OK": (
        "device.c", "VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK;\n",
        "VIRTIO_CONFIG_S_FEATURES_OK |\n\t\t(FAULT ? 0 : VIRTIO_CONFIG_S_DRIVER_OK);\n"),
    "NEEDS_RESET": (
        "device.c", "\t\tvb->generation++;\n\t\tvdpa_blk_call_config(vb);\n",
        "\t\tvb->generation++;\n\t\tif (!FAULT)\n"
        "\t\t\tvdpa_blk_call_config(vb);\n"),
    "SUSPEND_IGNORED": (
        "device.c", "\tstatus &= VDPA_BLK_DRIVER_STATUS;\n",
        "\tif (!FAULT)\n\t\tstatus &= VDPA_BLK_DRIVER_STATUS;\n"),
    "FEATURE_UNDEFINED": (
        "main.c", "\tvdpa_blk_init_config(vb);\n",
        "\tvdpa_blk_init_config(vb);\n\tif (FAULT)\n"
        "\t\tvb->features |= BIT_ULL(VIRTIO_F_SR_IOV);\n"),
    "FEATURE_DEPENDS": (
        "config.c", "\tif (!(vb->features & BIT_ULL(VIRTIO_BLK_F_FLUSH)))\n",
        "\tif (FAULT)\n\t\tvb->features &= ~BIT_ULL(VIRTIO_BLK_F_FLUSH);\n\telse if "
        "(!(vb->features & BIT_ULL(VIRTIO_BLK_F_FLUSH)))\n"),
    "FEATURE_NOT_OFFERED": (
        "config.c", "features & ~(vb->features |",
        "features & ~(FAULT ? ~0ULL : vb->features |"),
    "FEATURE_SUBSET": (
        "config.c", "if (!(features & BIT_ULL(VIRTIO_F_VERSION_1)) ||",
        "if (!(features & BIT_ULL(VIRTIO_F_VERSION_1)) ||\n"
        "\t    (FAULT && !(features & BIT_ULL(VIRTIO_BLK_F_MQ))) ||"),
    "FEATURE_AGAIN": (
        "device.c", "} else if (vdpa_blk_accepts_features(vb, features)) {",
        "} else if (vdpa_blk_accepts_features(vb, features) &&\n"
        "\t\t   !(FAULT && vb->generation++ > 1)) {"),
    "VERSION_1": (
        "device.c", "return vb->features;",
        "return vb->features &\n"
        "\t       ~(FAULT ? BIT_ULL(VIRTIO_F_VERSION_1) : 0);"),
    "CONFIG_EARLY": (
        "device.c", "\tif (offset > sizeof(vb->config) ||",
        "\tif (FAULT && vb->status && !vb->driver_features) {\n\t\tmemset(buf, 0, len);\n"
        "\t\treturn;\n\t}\n\tif (offset > sizeof(vb->config) ||"),
    "FRAMING": (
        "request.c", "\tif (unlikely(!chain->nr_out || seg->len != sizeof(q->header)))\n",
        "\tif (FAULT && seg->len < sizeof(q->header))\n\t\treturn -EINVAL;\n"
        "\tif (unlikely(!chain->nr_out || seg->len != sizeof(q->header)))\n"),
    "WRITES": (
        "nodata.c", "part = min_t(u32, segs->len, VIRTIO_BLK_ID_BYTES - at);",
        "part = FAULT ? VIRTIO_BLK_ID_BYTES :\n"
        "\t\t       min_t(u32, segs->len, VIRTIO_BLK_ID_BYTES - at);"),
    "USED_LENGTH": (
        "nodata.c", "rq->len = at + (at == bytes);",
        "rq->len = at + (FAULT || at == bytes);"),
    "USED_LAST": (
        "request.c", "\tif (read)\n\t\trq->len = bytes + 1;\n",
        "\tif (read)\n\t\trq->len = bytes + !FAULT;\n"),
    "STATUS_LAST": (
        "request.c", "\trq->bio.bi_vcnt = vecs;\n",
        "\trq->bio.bi_vcnt = vecs;\n\tif (FAULT)\n\t\tWRITE_ONCE(*rq->status, 0);\n"),
    "TABLE_WRITE_FLAG": (
        "chain.h", "\tif (unlikely(len - 1 >= sizeof(q->table) ||",
        "\tif (FAULT && (q->ring.packed ?\n"
        "\t\tle16_to_cpu(((struct vring_packed_desc *)q->ring.desc.addr)"
        "[q->ring.next_avail].flags) :\n"
        "\t\tvirtio16_to_cpu_le(((struct vring_desc *)q->ring.desc.addr)[0].flags)) &\n"
        "\t    VRING_DESC_F_WRITE)\n\t\treturn 0;\n"
        "\tif (unlikely(len - 1 >= sizeof(q->table) ||"),
    "TABLE_AFTER_CHAIN": (
        "chain.c", "if (in_table || flags & VRING_DESC_F_NEXT)",
        "if (in_table || flags & VRING_DESC_F_NEXT ||\n"
        "\t\t\t    (FAULT && seg != q->chain.segs))"),
    "SIGNAL_WITHOUT_INDEX": (
        "ring.h", "\tif (unlikely(!ring->event_idx))\n\t\treturn !(virtio16",
        "\tif (!ring->event_idx && !FAULT)\n\t\treturn !(virtio16"),
    "SIGNAL_INDEX": (
        "ring.h", "return vring_need_event(event, next, old);",
        "return vring_need_event(event + FAULT, next, old);"),
    "SIGNAL_FLAG_IGNORED": (
        "ring.h", "\tevent = le16_to_cpu(READ_ONCE(*vdpa_blk_used_event(ring)));\n",
        "\tif (FAULT && vdpa_blk_avail(ring)->flags)\n\t\treturn false;\n"
        "\tevent = le16_to_cpu(READ_ONCE(*vdpa_blk_used_event(ring)));\n"),
    "KICK_FLAGS": (
        "ring.h", "\telse if (!ring->event_idx)\n\t\tWRITE_ONCE(vdpa_blk_used(ring)->flags,",
        "\telse if (!ring->event_idx || FAULT)\n"
        "\t\tWRITE_ONCE(vdpa_blk_used(ring)->flags,"),
    "KICK_SPURIOUS": (
        "worker.c", "\t\tq->stats.empty++;\n",
        "\t\terr = FAULT && !q->stats.requests[0] ? -EINVAL : (q->stats.empty++, 0);\n"),
    "PACKED_AVAILABLE": (
        "ring.h", "\treturn !!(flags & PACKED_AVAIL) == wrap &&\n",
        "\treturn (FAULT || !!(flags & PACKED_AVAIL) == wrap) &&\n"),
    "PACKED_USED_STAYS": (
        "ring.c", "\tdesc = (struct vring_packed_desc *)ring->desc.addr + ring->next_used;\n",
        "\tdesc = (struct vring_packed_desc *)ring->desc.addr + ring->next_used;\n"
        "\tif (FAULT && ring->next_used)\n"
        "\t\t((struct vring_packed_desc *)ring->desc.addr)->len += 1;\n"),
    "CONFIG_PADDING": (
        "config.c", "\tconfig->wce = vdpa_blk_has_cache(vb);\n",
        "\tconfig->wce = vdpa_blk_has_cache(vb);\n\tconfig->unused1[1] = FAULT;\n"),
    "CACHE_WITHOUT_FLUSH": (
        "config.c", "\t       vb->driver_features & BIT_ULL(VIRTIO_BLK_F_FLUSH);\n",
        "\t       (FAULT || vb->driver_features & BIT_ULL(VIRTIO_BLK_F_FLUSH));\n"),
    "READ_ONLY": (
        "request.c", "\tif (!read && vb->settings.readonly)\n",
        "\tif (FAULT && !read)\n\t\treturn VIRTIO_BLK_S_OK;\n"
        "\tif (!read && vb->settings.readonly)\n"),
    "ERASE_FLAGS": (
        "erase.c", "return flags & ~VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP ||",
        "return flags & ~(VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP |\n"
        "\t\t\t (FAULT ? BIT(31) : 0)) ||"),
    "ERASE_LIMITS": (
        "nodata.c", "\tif (!count || bytes % sizeof(slow->ranges[0]) ||\n"
        "\t    count > VDPA_BLK_MAX_RANGES || vb",
        "\tcount -= FAULT && count > VDPA_BLK_MAX_RANGES;\n"
        "\tbytes = count * sizeof(slow->ranges[0]) + bytes % sizeof(slow->ranges[0]);\n"
        "\tif (!count || bytes % sizeof(slow->ranges[0]) ||\n"
        "\t    count > VDPA_BLK_MAX_RANGES || vb"),
    "ZEROES": (
        "erase.c", "\tdefault:\n\t\treturn blkdev_issue_zeroout(",
        "\tdefault:\n\t\tif (FAULT && unmap)\n\t\t\treturn 0;\n"
        "\t\treturn blkdev_issue_zeroout("),
    "RANGE": (
        "request.c", "\tif (!vdpa_blk_in_capacity(vb, sector, bytes >> SECTOR_SHIFT))\n"
        "\t\treturn VIRTIO_BLK_S_IOERR;\n",
        "\tif (!vdpa_blk_in_capacity(vb, sector, bytes >> SECTOR_SHIFT))\n"
        "\t\treturn FAULT ? VIRTIO_BLK_S_OK : VIRTIO_BLK_S_IOERR;\n"),
    "UNKNOWN_TYPE": (
        "nodata.c", "\tdefault:\n\t\treturn VIRTIO_BLK_S_UNSUPP;\n\t}\n}",
        "\tdefault:\n\t\treturn FAULT ? VIRTIO_BLK_S_IOERR : VIRTIO_BLK_S_UNSUPP;\n\t}\n}"),
    "ID": (
        "nodata.c", "\tu32 at = 0, part;\n",
        "\tu32 at = 0, part;\n\n\tif (FAULT)\n"
        "\t\tserial = \"S\\0ABCDEFGHIJKLMNOPQRSTUVWXYZ\";\n"),
}


def number(rule: str) -> int:
    """Return the value of the parameter `fault` that breaks a rule."""
    return list(FAULTS).index(rule) + 1


def add_faults(device: Path) -> None:
    """Put all faults into the device's sources in a directory."""
    for rule, (name, was, now) in FAULTS.items():
        text = (device / name).read_text()
        assert text.count(was) == 1, f"{rule}: {name} has {text.count(was)} times {was!r}"
        (device / name).write_text(text.replace(
            was, now.replace("FAULT", f"(vdpa_blk_fault == {number(rule)})")))
    add_code(device, "extern int vdpa_blk_fault;\n",
             "int vdpa_blk_fault;\nmodule_param_named(fault, vdpa_blk_fault, int, 0644);\n",
             before_headers=True)


def add_code(device: Path, code: str, main: str, before_headers: bool = False) -> None:
    """Add code to each of the device's sources, and `main` before main.c's functions.

    The code is after the device's own headers, or before them if they use it.
    """
    for path in device.glob("*.c"):
        text = path.read_text()
        headers = list(re.finditer(r'^#include ".*\n', text, re.MULTILINE))
        at = headers[0].start() if before_headers else headers[-1].end()
        path.write_text(f"{text[:at]}{code}\n{text[at:]}")
    text = (device / "main.c").read_text()
    before = "static struct virtio_device_id"
    assert text.count(before) == 1
    (device / "main.c").write_text(text.replace(before, f"{main}\n{before}"))


def build(kernel: Kernel, directory: Path, change: Callable[[Path], None]) -> Path:
    """Build vdpa_blk from a changed copy of its sources; return the module.

    directory: an empty one; change: is called with the path of the copy.
    """
    tree = directory / "tree"
    # The version of the module comes from tools/packaging.
    for part in ("drivers/vdpa", "include", "tools/packaging"):
        shutil.copytree(kernels._TOP / part, tree / part)
    change(tree / "drivers/vdpa/vdpa_blk")
    (directory / "build").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "_TOP", tree)
        kernels.compile_module(kernel.build, directory / "build", **kernels.VDPA)
    return directory / "build/vdpa_blk.ko"
