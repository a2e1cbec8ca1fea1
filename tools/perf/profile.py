# SPDX-License-Identifier: GPL-2.0
"""make profile: count the instructions of an I/O by module and function."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from host import ui
from host.ui import UserError, say, step
from vm import kernels
from vm.kernels import Kernel

from . import bench, jobs
from .counting import DEVICES, DRIVERS, Cost, CountingGuest

_TOP = Path(__file__).resolve().parents[2]
_ROWS = 40
_RINGS = tuple(1 << power for power in range(4, 11))


def functions_table(cost: Cost, rows: int = _ROWS) -> str:
    """Return the functions of a Cost as text, the most expensive first."""
    lines = ["  instructions    calls  function"]
    ordered = sorted(cost.functions.items(), key=lambda item: -item[1][0])
    for (name, module), (count, calls) in ordered[:rows]:
        lines.append(f"{count:14.1f} {calls:8.2f}  {name} [{module}]")
    rest = sum(count for _, (count, _) in ordered[rows:])
    if len(ordered) > rows:
        lines.append(f"{rest:14.1f}           {len(ordered) - rows} other functions")
    return "\n".join(lines)


def summary(cost: Cost) -> str:
    """Return a Cost's totals as text."""
    modules = sorted(cost.modules().items(), key=lambda item: -item[1])
    lines = [f"{cost.kernel:14.1f}  instructions in the kernel, per I/O",
             *(f"{count:14.1f}    in {name}" for name, count in modules
               if count >= 0.05),
             f"{cost.user:14.1f}  instructions in user mode",
             f"{cost.locked:14.1f}  with the queue's lock held, taken "
             f"{cost.acquisitions:.2f} times"]
    if cost.irqsoff is not None:
        lines.append(f"{cost.irqsoff:14.1f}  with interrupts off")
    lines += [f"{cost.interrupts:14.3f}  interrupts",
              f"{cost.kicks:14.3f}  notifications of the device",
              f"{cost.allocations:14.3f}  allocations of memory"]
    return "\n".join(lines)


class Growth(NamedTuple):
    """A function's instructions per I/O before and after, and the difference."""
    change: float
    before: float
    after: float
    function: str
    module: str


def growth(before: Cost, after: Cost) -> list[Growth]:
    """Return what has changed between two Costs, the largest changes first."""
    rows = []
    for key in before.functions.keys() | after.functions.keys():
        was = before.functions.get(key, (0, 0))[0]
        now = after.functions.get(key, (0, 0))[0]
        if abs(now - was) >= 0.5:
            rows.append(Growth(now - was, was, now, *key))
    return sorted(rows, key=lambda row: -abs(row[0]))


def growth_table(before: Cost, after: Cost, rows: int = _ROWS) -> str:
    """Return the changes between two Costs as text."""
    total = after.kernel - before.kernel
    lines = [f"{before.kernel:10.1f} -> {after.kernel:.1f} instructions per I/O: "
             f"{total:+.1f} ({100 * total / before.kernel:+.2f} %)",
             f"{before.locked:10.1f} -> {after.locked:.1f} with the lock held",
             "", "    change     before      after  function"]
    for change, was, now, name, module in growth(before, after)[:rows]:
        lines.append(f"{change:+10.1f} {was:10.1f} {now:10.1f}  {name} [{module}]")
    return "\n".join(lines)


def build_revision(kernel: Kernel, revision: str) -> Path:
    """Build the driver's module of a git revision and return its path."""
    found = subprocess.run(["git", "-C", _TOP, "rev-parse", "--verify", "-q",
                            f"{revision}^{{commit}}"], text=True,
                           stdout=subprocess.PIPE)
    if found.returncode:
        raise UserError(f"BASE is {revision!r}, which is not a commit; set it to one, "
                        "such as BASE=HEAD~1")
    commit = found.stdout.strip()
    out = kernels.output(kernel.release) / f"base-{commit[:12]}"
    with tempfile.TemporaryDirectory(prefix="vblk-base-") as tree:
        archive = subprocess.Popen(["git", "-C", _TOP, "archive", commit],
                                   stdout=subprocess.PIPE)
        subprocess.run(["tar", "-x", "-C", tree], stdin=archive.stdout, check=True)
        if archive.stdout:
            archive.stdout.close()
        if archive.wait():
            raise UserError(f"git archive of BASE={revision} failed; check the "
                            "repository with git fsck")
        # Use that revision's tools, because its build may differ.
        built = subprocess.run(
            [sys.executable, "-c",
             "import sys; from vm import kernels; "
             "kernels.compile_module(kernels.Path(sys.argv[1]), "
             "kernels.Path(sys.argv[2]))", kernel.build, out],
            cwd=tree, env={**os.environ, "PYTHONPATH": f"{tree}/tools"},
            text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if built.returncode:
        raise UserError(f"building BASE={revision} failed; the output:\n{built.stdout}")
    return out / "virtio_blk.ko"


def _ios() -> int:
    return ui.number("IOS", 65536, least=1024, what="a number of I/Os")


def _ring() -> int:
    text = os.environ.get("RING") or str(bench.LARGE_RING)
    if text not in map(str, _RINGS):
        raise UserError(f"RING is {text!r}; it must be one of "
                        f"{', '.join(map(str, _RINGS))}")
    return int(text)


def _switch(name: str, meaning: str) -> bool:
    """Return whether a variable that is 0 or 1 is 1."""
    text = os.environ.get(name) or "0"
    if text not in ("0", "1"):
        raise UserError(f"{name} is {text!r}; it must be 0, or 1 {meaning}")
    return text == "1"


class _Disk(NamedTuple):
    """The ring of the disk, and the parameters of the driver."""
    ring: int
    packed: bool
    params: str

    def __str__(self) -> str:
        return (f", {'packed ' if self.packed else ''}ring of {self.ring}"
                + (f", {self.params}" if self.params else ""))


def _count(kernel: Kernel, driver: str | Path, device: str, job: jobs.Job, ios: int,
           disk: _Disk, fine: bool, what: str) -> Cost:
    with CountingGuest(kernel, driver=driver, params=disk.params,
                       properties={"queue_size": disk.ring,
                                   "packed": disk.packed}) as counting:
        if isinstance(driver, Path):
            counting.driver = "ours"
        with step(f"counting {ios} I/Os, {what}: {job.title}"):
            return counting.measure(device, job, ios, fine)


def main() -> int:
    """Print a profile.

    KERNEL, DRIVER, JOB, RING, PACKED, PARAMS, IOS, FINE and BASE select it.
    """
    job = jobs.find(os.environ.get("JOB") or "randread-4k-qd32")
    device = os.environ.get("DRIVER") or "ours"
    if device not in DEVICES:
        raise UserError(f"DRIVER is {device!r}; it must be one of "
                        f"{', '.join(DEVICES)}")
    base = os.environ.get("BASE")
    if base and device != "ours":
        raise UserError(f"BASE compares two builds of our driver, and DRIVER is "
                        f"{device!r}; unset one of them")
    ios, fine = _ios(), _switch("FINE", "to also count instructions with interrupts off")
    disk = _Disk(_ring(), _switch("PACKED", "for a packed ring"),
                 os.environ.get("PARAMS") or "")
    name = os.environ.get("KERNEL") or "6.12"
    if name in ("7.3", "7.3-debug"):
        raise UserError(f"KERNEL is {name!r}, which has our driver built in; "
                        "choose 6.1, 6.12 or 7.3-perf")
    kernel = kernels.find(name)
    before, was = None, None
    if base:
        with step(f"building the driver as of {base}"):
            before = build_revision(kernel, base)
    driver = device if device in DRIVERS else "ours"
    if base and before:
        was = _count(kernel, before, device, job, ios, disk, fine, base)
    cost = _count(kernel, driver, device, job, ios, disk, fine, device)
    say("")
    where = str(disk) if device in DRIVERS else ""
    print(f"{device}, {job.title}{where}, Linux {kernel.release}\n")
    print(summary(cost), end="\n\n")
    print(functions_table(cost))
    if was:
        print(f"\ncompared with {base}:")
        print(growth_table(was, cost))
    return 0


if __name__ == "__main__":
    ui.main(main)
