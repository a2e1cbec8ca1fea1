# SPDX-License-Identifier: GPL-2.0
"""make budget: count the instructions of an I/O, and store them as the budget.

`make check` compares new counts with tools/perf/budget.json, see over().
"""

import json
from pathlib import Path

from vm import host, kernels, ui
from vm.ui import UserError, say, step

from . import jobs, profile
from .counting import CountingGuest, Cost

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


def count(kernel, ring, kept=None):
    """Return the Cost of an I/O on a ring of that size, by job.

    kept: the budget from load() to compare with, or None.  A job over the budget is
    counted again and the lower count is used, because in a guest that has just booted
    some counts are 1 % higher.  Unless the budget is from the same kernel, "null_blk"
    has the Cost of the block layer in the first job.
    """
    found = {}
    with CountingGuest(kernel, properties={"queue_size": ring}) as counting:
        def measure(device, name):
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


def _key(name, module):
    return f"{name} [{module}]"


def as_kept(release, costs):
    """Return the budget for {ring: {job: Cost}}, counted on a kernel release."""
    return {"kernel": release, "ios": IOS, "rings": {str(ring): {
        job: {"kernel": round(cost.kernel, 1),
              "locked": round(cost.locked, 1),
              "functions": {_key(*function): round(count, 1)
                            for function, (count, _)
                            in sorted(cost.functions.items(),
                                      key=lambda item: -item[1][0])
                            if count >= 1}}
        for job, cost in found.items()} for ring, found in costs.items()}}


def load():
    """Return the budget from the file."""
    return json.loads(FILE.read_text())


def over(kept, release, ring, costs, names=None):
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


def _over_job(title, kept, cost, block_layer):
    """Return a message if a job is over its budget, None otherwise."""
    may = kept["kernel"] * (1 + ALLOWED) + block_layer
    if cost.kernel <= may:
        return None
    was = Cost(0, {tuple(key[:-1].split(" [")): (count, 0)
                   for key, count in kept["functions"].items()},
               {}, 0, kept["locked"], 0)
    lines = [f"{title}: an I/O takes {cost.kernel:.0f} instructions in the kernel; "
             f"the budget is {kept['kernel']:.0f}, and the limit is {may:.0f}"]
    lines += [f"{change:+9.1f}  {name} [{module}], {before:.1f} -> {now:.1f}"
              for change, before, now, name, module
              in profile.growth(was, cost)[:_NAMED]]
    lines.append(f"  {cost.locked - kept['locked']:+7.1f}  with the lock held")
    return "\n".join(lines)


def main():
    """Count all jobs and write the file."""
    host.need("build", "vm")
    kernel = kernels.find(KERNEL)
    costs = {ring: count(kernel, ring) for ring in JOBS}
    try:
        before = load()
    except FileNotFoundError:
        before = None
    for ring, names in JOBS.items():
        for job in names:
            was = before and before["rings"].get(str(ring), {}).get(job)
            print(f"{job}, ring of {ring}: {costs[ring][job].kernel:.0f}"
                  + (f", was {was['kernel']:.0f}" if was else ""))
    try:
        FILE.write_text(json.dumps(as_kept(kernel.release, costs), indent=1) + "\n")
    except OSError as error:
        raise UserError(f"cannot write {FILE}: {error.strerror}; make it "
                        "writable") from None
    say("  wrote tools/perf/budget.json; commit it with the change that needs it")
    return 0


if __name__ == "__main__":
    ui.main(main)
