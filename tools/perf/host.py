# SPDX-License-Identifier: GPL-2.0
"""Count the instructions of an I/O through vdpa_blk, and through its alternatives.

All of them serve /dev/nullb0 to virtio_vdpa in the same guest, which has one CPU.  So a
count has both halves of a disk: the guest driver and the device.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from common import vdpa
from host.ui import step
from vm.kernels import Kernel

from . import jobs
from .counting import Cost, CountingGuest

# One request at each wake-up of a worker, and 16.
JOBS = ("randread-4k-qd1", "randread-4k-qd32-batch")
# Our device, qemu-storage-daemon with VDUSE, and the kernel's simulator.
DEVICES = ("vdpa_blk", "vduse", "vdpa_sim_blk")
# On a ring of this size our driver needs no indirect table, and allocates nothing.
_RING = 1024
# Of an I/O, above null_blk: instructions of the kernel by job, and of the module.
ABOVE = {"randread-4k-qd1": 9500, "randread-4k-qd32-batch": 5000}
MODULE = 450
# The share of VDUSE's instructions, in the kernel and in user mode.
SHARE = 0.2


class _HostGuest(CountingGuest):
    """A counting guest that is also a host: it serves disks to itself."""

    def __init__(self, kernel: Kernel) -> None:
        super().__init__(kernel, qemu_args=vdpa.qemu_args())
        self.served = ""

    def path(self, device: str, burst: bool = False) -> str:
        """Return the path of a device, one of DEVICES as of counting.DEVICES."""
        return self.served if device in DEVICES else super().path(device, burst)

    @contextlib.contextmanager
    def serve(self, device: str) -> Iterator[bool]:
        """Serve /dev/nullb0 by a device; yields whether the guest's kernel has it."""
        guest = self.guest
        serving: vdpa.Device | vdpa.Vduse | vdpa.Simulated
        if device == "vdpa_blk":
            serving = vdpa.Device(guest, "/dev/nullb0", queues=1, workers=1,
                                  ring_size=_RING)
        elif device == "vduse" and vdpa.Vduse.available(guest):
            serving = vdpa.Vduse(guest, "/dev/nullb0", queues=1, ring_size=_RING)
        elif device == "vdpa_sim_blk" and vdpa.Simulated.available(guest):
            serving = vdpa.Simulated(guest)
        else:
            yield False
            return
        with serving:
            self.served = f"/dev/{serving.disk()}"
            # The modules may have moved.
            self._symbols = None
            yield True


def count(kernel: Kernel, ios: int, devices: Sequence[str] = DEVICES) \
        -> dict[str, dict[str, Cost]]:
    """Return the Cost of an I/O by device and job.

    ios: the I/Os to count.  devices: those of DEVICES to count; the result lacks those
    that the kernel does not have, and has null_blk's costs too.
    """
    found: dict[str, dict[str, Cost]] = {}
    with _HostGuest(kernel) as counting:
        def measure(device: str) -> None:
            for job in JOBS:
                with step(f"counting {ios} I/Os, {device}: {job}"):
                    found.setdefault(device, {})[job] = counting.measure(
                        device, jobs.find(job), ios)

        vdpa.prepare(counting.guest)
        measure("null_blk")
        for device in devices:
            with counting.serve(device) as served:
                if served:
                    measure(device)
    return found


def rows(found: dict[str, dict[str, Cost]]) -> list[dict[str, Any]]:
    """Return what count() has found as rows for JSON, above null_blk.

    module: instructions of vdpa_blk, None for other devices; allocations: of both halves.
    """
    made = []
    for device, costs in found.items():
        for job, cost in costs.items():
            block = found["null_blk"][job]
            made.append({
                "device": device, "job": job,
                "kernel": round(cost.kernel - block.kernel, 1),
                "user": round(cost.user - block.user, 1),
                "module": round(cost.modules()["vdpa_blk"], 1)
                if device == "vdpa_blk" else None,
                "allocations": round(cost.allocations - block.allocations, 2)})
    return [row for row in made if row["device"] != "null_blk"]


def table(found: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Return header and cells for rows()."""
    return (["device", "job", "kernel", "user mode", "vdpa_blk", "allocations"],
            [[row["device"], row["job"], f"{row['kernel']:+.0f}", f"{row['user']:+.0f}",
              "-" if row["module"] is None else f"{row['module']:.0f}",
              f"{row['allocations']:.2f}"] for row in found])


def goals(found: list[dict[str, Any]]) -> Iterator[tuple[str, str, bool]]:
    """Yield each goal of the device, the value seen, and whether it is met."""
    sums = {(row["device"], row["job"]): row["kernel"] + row["user"] for row in found}
    for row in found:
        if row["device"] != "vdpa_blk":
            continue
        job = row["job"]
        yield (f"vdpa_blk, {job}: at most {ABOVE[job]} above null_blk",
               f"{row['kernel']:.0f}", row["kernel"] <= ABOVE[job])
        yield (f"vdpa_blk, {job}: at most {MODULE} in the module",
               f"{row['module']:.0f}", row["module"] <= MODULE)
        yield (f"vdpa_blk, {job}: no allocation", f"{row['allocations']:.2f}",
               row["allocations"] <= 0.02)
        if ("vduse", job) in sums:
            share = sums["vdpa_blk", job] / sums["vduse", job]
            yield (f"vdpa_blk, {job}: at most {SHARE} of VDUSE's instructions",
                   f"{share:.2f}", share <= SHARE)
        if ("vdpa_sim_blk", job) in sums:
            yield (f"vdpa_blk, {job}: below vdpa_sim_blk",
                   f"{sums['vdpa_blk', job]:.0f} against {sums['vdpa_sim_blk', job]:.0f}",
                   sums["vdpa_blk", job] < sums["vdpa_sim_blk", job])
