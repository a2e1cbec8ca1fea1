# SPDX-License-Identifier: GPL-2.0
"""The fio jobs of the measurements."""

from dataclasses import dataclass, field
from typing import Any

from host.ui import UserError


@dataclass(frozen=True)
class Job:
    """A fio job.

    name, title: its names on the command line and in tables.
    rw, bs, engine, depth: fio's options, bs in fio's notation.
    burst: the device delays requests, so that many complete together.  Otherwise
        QEMU completes each request before the guest executes its next instruction,
        and each request has an interrupt.
    extra: further options of fio.
    """
    name: str
    title: str
    rw: str = "randread"
    bs: str = "4k"
    engine: str = "libaio"
    depth: int = 32
    burst: bool = False
    extra: dict[str, Any] = field(default_factory=dict)

    def options(self) -> dict[str, Any]:
        """Return fio's options except the file and the number of I/Os."""
        return {"rw": self.rw, "bs": self.bs, "ioengine": self.engine,
                "iodepth": self.depth, "direct": 1, "norandommap": 1,
                **self.extra}


_BATCHES = {"iodepth_batch_submit": 16, "iodepth_batch_complete_min": 16,
            "iodepth_batch_complete_max": 32}

JOBS = {job.name: job for job in (
    Job("randread-4k-qd32", "4 KiB random read, libaio, depth 32"),
    Job("randwrite-4k-qd32", "4 KiB random write, libaio, depth 32",
        rw="randwrite"),
    Job("randread-4k-qd32-uring", "4 KiB random read, io_uring, depth 32",
        engine="io_uring"),
    # In small pages the number of segments of a buffer depends on the state of
    # memory, and their cost exceeds the driver's.
    Job("randread-64k-qd8", "64 KiB random read, libaio, depth 8", bs="64k",
        depth=8, extra={"iomem": "shmhuge"}),
    Job("randread-4k-qd1", "4 KiB random read, libaio, depth 1", depth=1),
    Job("randread-4k-qd32-burst",
        "4 KiB random read, libaio, depth 32, completions in bursts",
        burst=True),
    Job("randread-4k-qd32-batch",
        "4 KiB random read, libaio, depth 32, submitted 16 at a time",
        extra=_BATCHES),
)}


def find(name: str) -> Job:
    """Return the job of that name."""
    if name not in JOBS:
        raise UserError(f"JOB is {name!r}; it must be one of {', '.join(JOBS)}")
    return JOBS[name]
