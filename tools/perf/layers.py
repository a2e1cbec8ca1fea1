# SPDX-License-Identifier: GPL-2.0
"""Assign functions to layers of the kernel, by module or by prefix of the name.

Functions that every layer calls, such as memory allocation, belong to the rest of the
kernel.
"""

import re
from collections.abc import Mapping

DRIVER, RING, INTERRUPT, BLOCK, KERNEL = LAYERS = (
    "driver", "ring and mapping", "interrupt", "block layer", "rest of the kernel")
# The layers whose instructions depend on the device.
DEVICE = (DRIVER, RING, INTERRUPT)

_DRIVERS = {"virtio_blk", "nvme", "nvme_core", "virtio_scsi", "scsi_mod", "sd_mod",
            "scsi_common", "null_blk"}
_RINGS = {"virtio", "virtio_ring", "virtio_pci", "virtio_pci_modern_dev",
          "virtio_pci_legacy_dev"}
_NAMES = (
    (DRIVER, r"scsi_|sd_|__scsi_|nvme_"),
    (RING, r"virtqueue_|vring_|detach_buf_|vp_|virtio_|dma_|iommu_|swiotlb_|sg_"
           r"|iowrite|ioread|blk_rq_map_sg|__blk_rq_map_sg|more_used"),
    (INTERRUPT, r"(asm_|__)?common_interrupt|handle_(edge_)?irq|.*_irq_(event|rcu)"
                r"|__handle_irq|note_interrupt|add_interrupt_randomness|fast_mix"
                r"|irq_|irqentry_|apic_|native_apic|.*_eoi$|error_(entry|return)"
                r"|sync_regs|msi_|.*_msi$|ack_edge"),
    (BLOCK, r"_*blk_|_*bio_|_*sbitmap_|submit_bio|_*blkdev_|bvec_|bdev_"
            r"|_*part_|_*rq_|elv_|wbt_|update_io_ticks|iov_iter_|bounce"
            r"|block_"),
)
_PATTERNS = [(layer, re.compile(pattern)) for layer, pattern in _NAMES]

# {(function, module): (instructions, calls)} of a Cost.
Functions = Mapping[tuple[str, str], tuple[float, float]]


def of(function: str, module: str) -> str:
    """Return the layer, one of LAYERS, of a function in a module."""
    if module in _DRIVERS:
        return DRIVER
    if module in _RINGS:
        return RING
    for layer, pattern in _PATTERNS:
        if pattern.match(function):
            return layer
    return KERNEL


def sums(functions: Functions) -> dict[str, float]:
    """Return the instructions of a Cost's functions by layer."""
    found: dict[str, float] = dict.fromkeys(LAYERS, 0)
    for (name, module), (count, _) in functions.items():
        found[of(name, module)] += count
    return found


def device(functions: Functions) -> float:
    """Return the instructions of driver, ring and interrupt together."""
    found = sums(functions)
    return sum(found[layer] for layer in DEVICE)
