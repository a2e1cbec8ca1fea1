# SPDX-License-Identifier: GPL-2.0
"""The performance goals of the driver, and whether it meets them.

A goal without a measurement is left out.
"""

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


def above(facts, job, device):
    """Return a device's instructions minus those of null_blk, None if unknown."""
    own, floor = find(facts, job, device), find(facts, job, "null_blk")
    return own["kernel"] - floor["kernel"] if own and floor else None


def find(facts, job, device):
    """Return the row of a job and a device, None if there is none."""
    for row in facts["jobs"]:
        if (row["job"], row["device"]) == (job, device):
            return row
    return None


def compared(row):
    """Return the instructions of a row that are compared with other rows.

    At depth 1 they exclude the scheduler and the idle loop, whose instructions vary.
    """
    return row["device_layers" if row["job"] == LATENCY else "kernel"]


def judge(facts):
    """Return a list of goals, each with the measured value and whether it is met."""
    return [goal for part in (_above, _latency, _burst, _per_io, _locked,
                              _queues, _other_kernels, _clock, _scale, _host)
            for goal in part(facts)]


def _goal(goal, seen, met):
    return {"goal": goal, "seen": seen, "met": bool(met)}


def _above(facts):
    for job, limit in ABOVE_NULL_BLK.items():
        seen = above(facts, job, "ours")
        if seen is not None:
            yield _goal(f"{job}: at most {limit} above null_blk",
                        f"{seen:.0f}", seen <= limit)


def _latency(facts):
    rows = [find(facts, LATENCY, device) for device in ("ours", "stock", "nvme")]
    if all(rows):
        ours, stock, nvme = (row["device_layers"] for row in rows)
        for name, other in (("the in-tree driver", stock), ("NVMe", nvme)):
            yield _goal(f"{LATENCY}: driver, ring and interrupt below {name}",
                        f"{ours:.0f} against {other:.0f}", ours < other)


def _burst(facts):
    ours, stock, nvme = (above(facts, BURST, device)
                         for device in ("ours", "stock", "nvme"))
    if None in (ours, stock, nvme):
        return
    yield _goal(f"{BURST}: at most {BURST_SHARE} of the in-tree driver's",
                f"{ours / stock:.2f} ({ours:.0f} of {stock:.0f})",
                ours <= BURST_SHARE * stock)
    yield _goal(f"{BURST}: below NVMe", f"{ours:.0f} against {nvme:.0f}",
                ours < nvme)


def _per_io(facts):
    """Interrupts and kicks: at most the in-tree driver's; allocations: null_blk's."""
    names = sorted({row["job"] for row in facts["jobs"]})
    for key, words in (("interrupts", "interrupts per I/O"),
                       ("kicks", "kicks per I/O")):
        pairs = [(name, find(facts, name, "ours")[key],
                  find(facts, name, "stock")[key])
                 for name in names
                 if find(facts, name, "ours") and find(facts, name, "stock")]
        worse = [f"{name}: {ours:.3f} against {stock:.3f}"
                 for name, ours, stock in pairs if ours > stock + _NOISE]
        if pairs:
            yield _goal(f"{words} at most the in-tree driver's, in every job",
                        "; ".join(worse) or f"in {len(pairs)} jobs", not worse)
    more = [(name, find(facts, name, "ours")["allocations"]
             - find(facts, name, "null_blk")["allocations"]) for name in names
            if find(facts, name, "ours") and find(facts, name, "null_blk")]
    if more:
        name, most = max(more, key=lambda pair: pair[1])
        # null_blk's allocations are those of the block layer.
        floor = find(facts, name, "null_blk")["allocations"]
        yield _goal("memory allocations per I/O at most null_blk's",
                    f"{most:+.2f} above its {floor:.2f}, {name}", most <= 0.05)


def _locked(facts):
    ours, stock = (find(facts, "randread-4k-qd32", device)
                   for device in ("ours", "stock"))
    if ours and stock:
        share = ours["locked"] / stock["locked"]
        yield _goal(f"with the queue's lock held at most {LOCKED_SHARE} of the "
                    "in-tree driver's",
                    f"{share:.3f} ({ours['locked']:.0f} of {stock['locked']:.0f})",
                    share <= LOCKED_SHARE)


def _queues(facts):
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


def _listed(values):
    return ", ".join(map(str, values))


def _other_kernels(facts):
    rows = facts.get("other_kernels", ())
    for kernel in dict.fromkeys(row["kernel_name"] for row in rows):
        counts = {(row["device"], row["job"]): compared(row) for row in rows
                  if row["kernel_name"] == kernel}
        shares = {job: counts["ours", job] / counts["stock", job]
                  for device, job in counts if device == "ours"
                  and ("stock", job) in counts}
        if shares:
            worst = max(shares, key=shares.get)
            yield _goal(f"on {kernel} below the in-tree driver in every job",
                        f"at most {shares[worst]:.3f} of it ({worst})",
                        shares[worst] < 1)


def _clock(facts):
    for row in (facts.get("wall_clock") or {}).get("jobs", ()):
        limit = DEEP_RATIO if row["options"]["iodepth"] == 32 else ANY_RATIO
        ratio = row["iops"]["median"]
        yield _goal(f"{row['job']}: at least {limit} of the in-tree driver's IOPS",
                    f"{ratio:.3f} ({row['iops']['low']:.2f} to "
                    f"{row['iops']['high']:.2f}; {row['iops']['verdict']})",
                    ratio >= limit)


def _scale(facts):
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


def _host(facts):
    for goal in host.goals(facts.get("host", ())):
        yield _goal(*goal)
