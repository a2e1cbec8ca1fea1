# SPDX-License-Identifier: GPL-2.0
"""The instructions of an I/O stay within the budget in tools/perf/budget.json.

The counts do not depend on the load of the machine or on its speed.
"""

import pytest

from perf import budget, host
from perf.counting import Cost
from testing import tier

pytestmark = [pytest.mark.kernels("6.12"), pytest.mark.module]

BOOTS = 3


@pytest.mark.parametrize("ring", tier.usual(budget.JOBS, [1024]))
def test_budget(kernel, ring):
    """No main job needs over 1 % more instructions than its budget.

    make check counts three jobs on a ring of 1024, make check-full one on 256 as well.

    Counts differ between boots by about as much, so a job over its budget is counted
    in another boot: a driver that costs more does so in all of them.  If a change is
    worth its cost, `make budget` writes the file again.
    """
    kept = budget.load()
    for _ in range(BOOTS):
        costs = budget.count(kernel, ring, kept)
        over = budget.over(kept, kernel.release, ring, costs)
        if not over:
            break
    assert not over, "\n\n".join(over)

    # The counters work, and see the driver.
    cost = costs["randread-4k-qd32"]
    assert cost.interrupts == pytest.approx(1, abs=0.03)
    assert cost.kicks == pytest.approx(1, abs=0.03)
    assert cost.acquisitions == pytest.approx(2, abs=0.05)
    assert 0 < cost.locked < cost.kernel / 5
    names = {name for name, module in cost.functions if module == "virtio_blk"}
    assert {"virtblk_interrupt", "virtblk_queue_rqs"} <= names


@pytest.mark.full
def test_device_budget(kernel):
    """vdpa_blk needs no more instructions than its budget, and allocates nothing.

    Its parts stand above those of the guest driver and of null_blk, which is behind it.
    """
    kept = budget.load()
    for _ in range(BOOTS):
        found = host.count(kernel, budget.IOS, ["vdpa_blk"])
        over = budget.device_over(kept, found["vdpa_blk"])
        if not over:
            break
    assert not over, "\n\n".join(over)
    for job, cost in found["vdpa_blk"].items():
        assert cost.allocations == pytest.approx(found["null_blk"][job].allocations,
                                                 abs=0.02)
        names = {name for name, module in cost.functions if module == "vdpa_blk"}
        assert {"vdpa_blk_handle_chain", "vdpa_blk_end_bio"} <= names


@pytest.mark.full
def test_device_against_vduse(kernel):
    """An I/O through vdpa_blk takes a fifth of one through VDUSE, and less than a copy.

    Counted are instructions above null_blk's, in the kernel and in user mode.
    """
    found = host.count(kernel, budget.IOS)

    def above(device, job):
        cost, block = found[device][job], found["null_blk"][job]
        return cost.kernel + cost.user - block.kernel - block.user

    for job in host.JOBS:
        assert above("vdpa_blk", job) * 5 <= above("vduse", job)
        if "vdpa_sim_blk" in found:
            assert above("vdpa_blk", job) <= above("vdpa_sim_blk", job)


def cost(functions, locked=0):
    return Cost(1, {key: (count, 1) for key, count in functions.items()}, {}, 0,
                locked, 0)


def kept(costs):
    return budget.as_kept("6.12.0", {1024: costs})


def all_jobs(functions, null_blk=1000):
    """Return the costs of all jobs, and of null_blk."""
    return {**{job: cost(functions) for job in budget.JOBS[1024]},
            "null_blk": cost({("blk", "vmlinux"): null_blk})}


BEFORE = {("virtqueue_add", "vmlinux"): 900.0, ("virtblk_build", "virtio_blk"): 100.0}


@pytest.mark.parametrize("now,fits", ((100.0, True), (109.0, True), (111.0, False),
                                      (50.0, True)))
def test_growth_of_one_percent(now, fits):
    """Growth of less than 1 % fits into the budget, and more does not."""
    costs = all_jobs({**BEFORE, ("virtblk_build", "virtio_blk"): now})
    over = budget.over(kept(all_jobs(BEFORE)), "6.12.0", 1024, costs)
    assert bool(over) != fits
    assert len(over) == (0 if fits else len(budget.JOBS[1024]))


def test_growth_names_its_functions():
    """The message has both counts, and the functions that grew but no other."""
    costs = all_jobs({**BEFORE, ("kmalloc", "vmlinux"): 40.0})
    first, *_ = budget.over(kept(all_jobs(BEFORE)), "6.12.0", 1024, costs)
    assert "1040 instructions" in first and "1000" in first
    assert "+40.0  kmalloc [vmlinux], 0.0 -> 40.0" in first
    assert "virtblk_build" not in first


def test_growth_of_device_names_its_functions():
    """The message on vdpa_blk has both counts, and the functions that grew."""
    was = {("vdpa_blk_complete", "vdpa_blk"): 100.0, ("vdpa_blk_take", "vdpa_blk"): 50.0,
           ("schedule", "vmlinux"): 900.0}
    kept_device = {"vdpa_blk": budget.device_as_kept({"job": cost(was)})}
    assert not budget.device_over(kept_device, {"job": cost(
        was | {("schedule", "vmlinux"): 2000.0})})
    (text,) = budget.device_over(kept_device, {"job": cost(
        was | {("vdpa_blk_take", "vdpa_blk"): 60.0})})
    assert "160 instructions" in text and "150" in text
    assert "+10.0  vdpa_blk_take" in text and "vdpa_blk_complete" not in text


def test_another_kernel_has_another_block_layer():
    """On another kernel, growth that null_blk has too is not the driver's."""
    before = kept(all_jobs(BEFORE))
    grown = {**BEFORE, ("blk", "vmlinux"): 200.0}
    assert budget.over(before, "6.12.0", 1024, all_jobs(grown, 1200))
    assert not budget.over(before, "6.12.1", 1024, all_jobs(grown, 1200))
    assert budget.over(before, "6.12.1", 1024, all_jobs(grown, 1000))
