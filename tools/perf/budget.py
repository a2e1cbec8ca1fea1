# SPDX-License-Identifier: GPL-2.0
"""make budget: count the instructions of an I/O, and store them as the budget.

`make check` compares new counts with tools/perf/budget.json, see over().
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from host import deps, repository, ui
from host.ui import UserError, say, step
from vm import kernels
from vm.kernels import Kernel

from . import host as perf_host
from . import jobs, profile
from .counting import Cost, CountingGuest

FILE = Path(__file__).parent / "budget.json"
KERNEL = "6.12"
# Jobs by ring size.  On the large ring our driver uses direct descriptors.
JOBS = {1024: ("randread-4k-qd32", "randread-4k-qd32-uring",
               "randread-4k-qd32-batch"),
        256: ("randread-4k-qd32",)}
IOS = 8192
# The allowed growth of an I/O's instructions: 1 %.
ALLOWED = 0.01
# The number of functions that a message lists.
_NAMED = 12

# The contents of FILE, or a part of them.
Budget = dict[str, Any]


def count(kernel: Kernel, ring: int, kept: Budget | None = None) -> dict[str, Cost]:
    """Return the Cost of an I/O on a ring of that size, by job.

    kept: the budget from load() to compare with, or None.  A job over the budget is
    counted again and the lower count is used, because in a guest that has just booted
    some counts are 1 % higher.  Unless the budget is from the same kernel, "null_blk"
    has the Cost of the block layer in the first job.
    """
    found = {}
    with CountingGuest(kernel, properties={"queue_size": ring}) as counting:
        def measure(device: str, name: str) -> Cost:
            with step(f"counting {IOS} I/Os, {device}, ring of {ring}: {name}"):
                return counting.measure(device, jobs.find(name), IOS)

        if not kept or kept["kernel"] != kernel.release:
            found["null_blk"] = measure("null_blk", JOBS[ring][0])
        for name in JOBS[ring]:
            found[name] = measure("ours", name)
            if kept and over(kept, kernel.release, ring, found, [name]):
                found[name] = min(found[name], measure("ours", name),
                                  key=lambda cost: cost.kernel)
    return found


def _key(name: str, module: str) -> str:
    return f"{name} [{module}]"


def _parsed(key: str) -> tuple[str, str]:
    """Return the name and the module of which _key() made a key."""
    name, module = key[:-1].split(" [")
    return name, module


def _functions(cost: Cost) -> dict[str, float]:
    """Return the functions of a Cost for the file, the most expensive first."""
    return {_key(*function): round(count, 1) for function, (count, _)
            in sorted(cost.functions.items(), key=lambda item: -item[1][0])
            if count >= 1}


def _grown(functions: Mapping[str, float], cost: Cost) -> list[str]:
    """Return a line for each of the functions that grew most since the budget."""
    was = Cost(0, {_parsed(key): (count, 0)
                   for key, count in functions.items()}, {}, 0, 0, 0)
    return [f"{change:+9.1f}  {name} [{module}], {before:.1f} -> {now:.1f}"
            for change, before, now, name, module
            in profile.growth(was, cost)[:_NAMED]]


def as_kept(release: str, costs: Mapping[int, Mapping[str, Cost]]) -> Budget:
    """Return the budget for {ring: {job: Cost}}, counted on a kernel release."""
    return {"kernel": release, "ios": IOS, "rings": {str(ring): {
        job: {"kernel": round(cost.kernel, 1),
              "locked": round(cost.locked, 1),
              "functions": _functions(cost)}
        for job, cost in found.items()} for ring, found in costs.items()}}


def _module(cost: Cost) -> float:
    """Return the instructions of vdpa_blk in a Cost."""
    return cost.modules().get("vdpa_blk", 0)


def _of_module(cost: Cost) -> Cost:
    """Return a Cost of vdpa_blk's functions alone."""
    return Cost(cost.ios, {key: value for key, value in cost.functions.items()
                           if key[1] == "vdpa_blk"}, {}, 0, 0, 0)


def device_as_kept(costs: Mapping[str, Cost]) -> Budget:
    """Return the budget of vdpa_blk for {job: Cost}.

    It is for the module's own instructions, because most of the others are the
    scheduler's.
    """
    return {job: {"module": round(_module(cost), 1),
                  "functions": _functions(_of_module(cost))}
            for job, cost in costs.items()}


def device_over(kept: Budget, costs: Mapping[str, Cost]) -> list[str]:
    """Return a message for each job in which vdpa_blk is over its budget.

    kept: the budget; costs: {job: Cost}, from perf.host.count().
    """
    found = []
    for job, cost in costs.items():
        was = kept["vdpa_blk"][job]
        limit = was["module"] * (1 + ALLOWED)
        if _module(cost) <= limit:
            continue
        found.append("\n".join(
            [f"vdpa_blk, {job}: an I/O takes {_module(cost):.0f} instructions in the "
             f"module; the budget is {was['module']:.0f}, and the limit is {limit:.0f}",
             *_grown(was["functions"], _of_module(cost))]))
    return found


def load() -> Budget:
    """Return the budget from the file."""
    return json.loads(FILE.read_text())


def over(kept: Budget, release: str, ring: int, costs: Mapping[str, Cost],
         names: Iterable[str] | None = None) -> list[str]:
    """Return a message for each job over its budget.

    kept: the budget; costs: from count(), on a kernel of that release.  On another
    release than the budget's the block layer differs, too.  Then the budget is
    adjusted by the difference of null_blk's cost.  names: the jobs to check, all by
    default.
    """
    kept_jobs = kept["rings"][str(ring)]
    block_layer = 0
    if release != kept["kernel"]:
        block_layer = (costs["null_blk"].kernel
                       - kept_jobs["null_blk"]["kernel"])
    return [text for job in names or JOBS[ring] for text in [_over_job(
        f"{job}, ring of {ring}", kept_jobs[job], costs[job], block_layer)]
        if text]


def _over_job(title: str, kept: Budget, cost: Cost, block_layer: float) -> str | None:
    """Return a message if a job is over its budget, None otherwise."""
    may = kept["kernel"] * (1 + ALLOWED) + block_layer
    if cost.kernel <= may:
        return None
    lines = [f"{title}: an I/O takes {cost.kernel:.0f} instructions in the kernel; "
             f"the budget is {kept['kernel']:.0f}, and the limit is {may:.0f}"]
    lines += _grown(kept["functions"], cost)
    lines.append(f"  {cost.locked - kept['locked']:+7.1f}  with the lock held")
    return "\n".join(lines)


def main() -> int:
    """Count all jobs and write the file."""
    repository.check_own_name()
    repository.writable(FILE.parent)
    deps.need("build", "vm")
    kernel = kernels.find(KERNEL)
    costs = {ring: count(kernel, ring) for ring in JOBS}
    device = device_as_kept(perf_host.count(kernel, IOS, ["vdpa_blk"])["vdpa_blk"])
    try:
        before = load()
    except FileNotFoundError:
        before = None
    for ring, names in JOBS.items():
        for job in names:
            was = before and before["rings"].get(str(ring), {}).get(job)
            print(f"{job}, ring of {ring}: {costs[ring][job].kernel:.0f}"
                  + (f", was {was['kernel']:.0f}" if was else ""))
    for job, kept in device.items():
        was = before and before.get("vdpa_blk", {}).get(job)
        print(f"vdpa_blk, {job}: {kept['module']:.0f}"
              + (f", was {was['module']:.0f}" if was else ""))
    try:
        FILE.write_text(json.dumps(as_kept(kernel.release, costs) | {"vdpa_blk": device},
                                   indent=1) + "\n")
    except OSError as error:
        raise UserError(f"cannot write {FILE}: {error.strerror}; make it "
                        "writable") from None
    say("  wrote tools/perf/budget.json; commit it with the change that needs it")
    return 0


if __name__ == "__main__":
    ui.main(main)
