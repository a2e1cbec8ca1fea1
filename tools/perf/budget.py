# SPDX-License-Identifier: GPL-2.0
"""make budget: count what an I/O costs, and keep it as what it may cost.

tools/perf/budget.json is what `make check` compares with, see over().
"""

import json
from pathlib import Path

from vm import host, kernels, ui
from vm.ui import UserError, say, step

from . import jobs, profile
from .counting import CountingGuest, Cost

FILE = Path(__file__).parent / "budget.json"
KERNEL = "6.12"
# By the size of the ring: on the large one descriptors are direct.
JOBS = {1024: ("randread-4k-qd32", "randread-4k-qd32-uring",
               "randread-4k-qd32-batch"),
        256: ("randread-4k-qd32",)}
IOS = 8192
# By how much an I/O may grow.
ALLOWED = 0.01
# How many functions are named.
_NAMED = 12


def count(kernel, ring, kept=None):
    """Return by job the Cost of an I/O, on a ring of that size.

    kept: what load() returns, if it is to be compared with that.  What is over is
    then counted once more, and the lower count taken: in a guest that has just
    booted some are 1 % higher.  "null_blk" has the Cost of the block layer alone,
    in the first job, unless what is kept is of the same kernel.
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
    """Return what is kept of {ring: {job: Cost}}, counted on a kernel."""
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
    """Return what is kept."""
    return json.loads(FILE.read_text())


def over(kept, release, ring, costs, names=None):
    """Return what is wrong with costs, as text for each job that is over.

    costs: as count() returns them, of a kernel of that release.  On another than
    the budget's the block layer is another, too: then what counts is what the
    driver costs beyond it.  names: of the jobs to look at, if not all.
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
    """Return why a job is over its budget, None if it is not."""
    may = kept["kernel"] * (1 + ALLOWED) + block_layer
    if cost.kernel <= may:
        return None
    was = Cost(0, {tuple(key[:-1].split(" [")): (count, 0)
                   for key, count in kept["functions"].items()},
               {}, 0, kept["locked"], 0)
    lines = [f"{title}: an I/O takes {cost.kernel:.0f} instructions in the kernel; "
             f"the budget has {kept['kernel']:.0f} and allows {may:.0f}"]
    lines += [f"{change:+9.1f}  {name} [{module}], {before:.1f} -> {now:.1f}"
              for change, before, now, name, module
              in profile.growth(was, cost)[:_NAMED]]
    lines.append(f"  {cost.locked - kept['locked']:+7.1f}  with the lock held")
    return "\n".join(lines)


def main():
    """Count all of it and write the file."""
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
        raise UserError(f"{FILE} cannot be written: {error.strerror}") from None
    say("  left tools/perf/budget.json: commit it with the change that needs it")
    return 0


if __name__ == "__main__":
    ui.main(main)
