# SPDX-License-Identifier: GPL-2.0
"""The performance goals of the driver, and whether it meets them.

A goal without a measurement is left out.
"""

from collections.abc import Iterable, Iterator
from typing import Any, TypedDict

from . import host

# Kernel instructions per I/O above those of null_blk in the same job.
ABOVE_NULL_BLK = {"randread-4k-qd32": 770, "randwrite-4k-qd32": 770,
                  "randread-4k-qd32-uring": 770, "randread-64k-qd8": 800,
                  "randread-4k-qd32-batch": 0}
BURST, BURST_SHARE = "randread-4k-qd32-burst", 0.35
LATENCY = "randread-4k-qd1"
LOCKED_SHARE = 0.08
RESTARTING = 20
# Ratios of our IOPS to the in-tree driver's.
DEEP_RATIO, ANY_RATIO = 1.05, 0.99
# Differences up to this share are noise.
_NOISE = 0.01

# The facts of make bench, and a row of them, see perf.charts.
Facts = dict[str, Any]
Row = dict[str, Any]


class Goal(TypedDict):
    """A goal, the value seen, and whether it is met."""
    goal: str
    seen: str
    met: bool


def above(facts: Facts, job: str, device: str) -> float | None:
    """Return a device's instructions minus those of null_blk, None if unknown."""
    own, floor = find(facts, job, device), find(facts, job, "null_blk")
    return own["kernel"] - floor["kernel"] if own and floor else None


def find(facts: Facts, job: str, device: str) -> Row | None:
    """Return the row of a job and a device, None if there is none."""
    for row in facts["jobs"]:
        if (row["job"], row["device"]) == (job, device):
            return row
    return None


def compared(row: Row) -> float:
    """Return the instructions of a row that are compared with other rows.

    At depth 1 they exclude the scheduler and the idle loop, whose instructions vary.
    """
    return row["device_layers" if row["job"] == LATENCY else "kernel"]


def judge(facts: Facts) -> list[Goal]:
    """Return a list of goals, each with the measured value and whether it is met."""
    return [goal for part in (_above, _latency, _burst, _per_io, _locked,
                              _queues, _other_kernels, _clock, _scale, _host)
            for goal in part(facts)]


def _goal(goal: str, seen: str, met: object) -> Goal:
    return {"goal": goal, "seen": seen, "met": bool(met)}


def _above(facts: Facts) -> Iterator[Goal]:
    for job, limit in ABOVE_NULL_BLK.items():
        seen = above(facts, job, "ours")
        if seen is not None:
            yield _goal(f"{job}: at most {limit} above null_blk",
                        f"{seen:.0f}", seen <= limit)


def _latency(facts: Facts) -> Iterator[Goal]:
    rows = [row for device in ("ours", "stock", "nvme")
            if (row := find(facts, LATENCY, device))]
    if len(rows) == 3:
        ours, stock, nvme = (row["device_layers"] for row in rows)
        for name, other in (("the in-tree driver", stock), ("NVMe", nvme)):
            yield _goal(f"{LATENCY}: driver, ring and interrupt below {name}",
                        f"{ours:.0f} against {other:.0f}", ours < other)


def _burst(facts: Facts) -> Iterator[Goal]:
    ours, stock, nvme = (above(facts, BURST, device)
                         for device in ("ours", "stock", "nvme"))
    if ours is None or stock is None or nvme is None:
        return
    yield _goal(f"{BURST}: at most {BURST_SHARE} of the in-tree driver's",
                f"{ours / stock:.2f} ({ours:.0f} of {stock:.0f})",
                ours <= BURST_SHARE * stock)
    yield _goal(f"{BURST}: below NVMe", f"{ours:.0f} against {nvme:.0f}",
                ours < nvme)


def _per_io(facts: Facts) -> Iterator[Goal]:
    """Interrupts and kicks: at most the in-tree driver's; allocations: null_blk's."""
    names = sorted({row["job"] for row in facts["jobs"]})
    for key, words in (("interrupts", "interrupts per I/O"),
                       ("kicks", "kicks per I/O")):
        pairs = [(name, ours[key], stock[key]) for name in names
                 if (ours := find(facts, name, "ours"))
                 and (stock := find(facts, name, "stock"))]
        worse = [f"{name}: {count:.3f} against {other:.3f}"
                 for name, count, other in pairs if count > other + _NOISE]
        if pairs:
            yield _goal(f"{words} at most the in-tree driver's, in every job",
                        "; ".join(worse) or f"in {len(pairs)} jobs", not worse)
    # null_blk's allocations are those of the block layer.
    more = [(name, ours["allocations"] - block["allocations"], block["allocations"])
            for name in names if (ours := find(facts, name, "ours"))
            and (block := find(facts, name, "null_blk"))]
    if more:
        name, most, floor = max(more, key=lambda each: each[1])
        yield _goal("memory allocations per I/O at most null_blk's",
                    f"{most:+.2f} above its {floor:.2f}, {name}", most <= 0.05)


def _locked(facts: Facts) -> Iterator[Goal]:
    ours, stock = (find(facts, "randread-4k-qd32", device)
                   for device in ("ours", "stock"))
    if ours and stock:
        share = ours["locked"] / stock["locked"]
        yield _goal(f"with the queue's lock held at most {LOCKED_SHARE} of the "
                    "in-tree driver's",
                    f"{share:.3f} ({ours['locked']:.0f} of {stock['locked']:.0f})",
                    share <= LOCKED_SHARE)


def _queues(facts: Facts) -> Iterator[Goal]:
    rows = [row for row in facts.get("queues", ()) if row["device"] == "ours"]
    if rows:
        seen = [row["restarting"] for row in rows]
        yield _goal(f"finding a stopped queue at most {RESTARTING} per interrupt, "
                    f"the same with {_listed(row['queues'] for row in rows)} queues",
                    _listed(f"{count:.0f}" for count in seen),
                    max(seen) <= RESTARTING and max(seen) - min(seen) < 1)
        least = min(row["kernel"] for row in rows)
        grown = max(row["kernel"] for row in rows) / least - 1
        yield _goal("an I/O costs the same with any number of queues",
                    f"at most {100 * grown:.1f} % more", grown <= _NOISE)


def _listed(values: Iterable[object]) -> str:
    return ", ".join(map(str, values))


def _other_kernels(facts: Facts) -> Iterator[Goal]:
    rows = facts.get("other_kernels", ())
    for kernel in dict.fromkeys(row["kernel_name"] for row in rows):
        counts = {(row["device"], row["job"]): compared(row) for row in rows
                  if row["kernel_name"] == kernel}
        shares = {job: counts["ours", job] / counts["stock", job]
                  for device, job in counts if device == "ours"
                  and ("stock", job) in counts}
        if shares:
            worst = max(shares, key=lambda job: shares[job])
            yield _goal(f"on {kernel} below the in-tree driver in every job",
                        f"at most {shares[worst]:.3f} of it ({worst})",
                        shares[worst] < 1)


def _clock(facts: Facts) -> Iterator[Goal]:
    for row in (facts.get("wall_clock") or {}).get("jobs", ()):
        limit = DEEP_RATIO if row["options"]["iodepth"] == 32 else ANY_RATIO
        ratio = row["iops"]["median"]
        yield _goal(f"{row['job']}: at least {limit} of the in-tree driver's IOPS",
                    f"{ratio:.3f} ({row['iops']['low']:.2f} to "
                    f"{row['iops']['high']:.2f}; {row['iops']['verdict']})",
                    ratio >= limit)


def _scale(facts: Facts) -> Iterator[Goal]:
    parts = facts.get("scale", {})
    for row in parts.get("works", {}).get("rows", ()):
        if row["driver"] == "ours":
            yield _goal(f"{row['queues']} queues and CPUs: every queue does I/O, on "
                        "its own CPU", "all" if row["all"] else
                        f"{row['queues_interrupting']} of {row['queues']}",
                        row["all"])
    if "memory" in parts:
        ours, stock = (parts["memory"]["per_queue"][driver]["bytes"] / 1024
                       for driver in ("ours", "stock"))
        yield _goal("a queue takes no more memory than with the in-tree driver",
                    f"{ours:.1f} KiB against {stock:.1f} KiB",
                    ours <= stock * (1 + _NOISE))
    for row in parts.get("contention", {}).get("rows", ()):
        if row["driver"] == "ours" and row["queues"] == row["cpus"]:
            yield _goal(f"no contention with {row['queues']} queues for as many "
                        "CPUs", f"{row['contentions_per_io']:.4f} per I/O",
                        not any(row["contentions"]))


def _host(facts: Facts) -> Iterator[Goal]:
    for goal in host.goals(facts.get("host", ())):
        yield _goal(*goal)
