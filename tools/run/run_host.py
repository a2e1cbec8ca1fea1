# SPDX-License-Identifier: GPL-2.0
"""`make run-host`: verified I/O through our driver and vdpa_blk, and a report of it.

usage: python3 -m run.run_host

One guest has both halves: vdpa_blk serves a block device of null_blk's, and our driver
uses it through virtio_vdpa.  The run then compares its speed with that of VDUSE and
qemu-storage-daemon, and of vdpa_sim_blk on a kernel that has it.  The report is printed
and written to build/run-host/report.json.  The exit status is 0 for PASS, 1 for FAIL, 2
if a UserError prevents the run.
"""

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from common import measure, null_blk, queues, vdpa
from host import cache, deps, repository, ui
from host.ui import UserError, say, step
from vm import kernels, qemu
from vm.guest import Guest

from . import report, run_host_report, verdict
from .run import attempt, origin
from .run_host_report import (BACKING, SIMULATOR, VDPA_BLK, VDUSE, Comparison, Device,
                              Ends, Modules, Plan, Run, Series, Verified)

_TOP = Path(__file__).resolve().parents[2]
_OUT = _TOP / "build/run-host"
_NEEDED_MIB = 100

# Two block devices of null_blk's: one keeps data, the other one is for speed.
_DATA, _SPEED = "nulldata", "nullspeed"
# fio reads the speed device anywhere, so a small one shows the same.
_SPEED_MIB = 1024


@contextlib.contextmanager
def backing(guest: Guest, name: str, kept: bool, mib: int, count: int) -> Iterator[str]:
    """Make a block device of null_blk's, and yield its path.

    kept: it stores data in memory; count: of its queues.
    """
    with null_blk.device(guest, name, memory_backed=int(kept), size=mib,
                         submit_queues=count, hw_queue_depth=128) as path:
        guest.run(f"echo none > /sys/block/{name}/queue/scheduler")
        yield path


# The data

def write_and_verify(guest: Guest, plan: Plan, disk: str, rw: str) -> Verified:
    """Run fio on a disk or block device with verification, each job in its own part.

    rw: "randwrite", or "read" to compare what was written before.  Prints fio's
    messages about errors.
    """
    found = measure.fio(
        guest, filename=f"/dev/{disk}", rw=rw, bs="4k", size=f"{plan.mib}m",
        offset_increment=f"{plan.mib}m", numjobs=plan.cpus, direct=1,
        ioengine="libaio", iodepth=plan.depth, cpus_allowed=f"0-{plan.cpus - 1}",
        cpus_allowed_policy="split", verify="crc32c", verify_fatal=0,
        continue_on_error="verify")
    if found.said is not None:
        say(found.said)
    return Verified(found.read.bytes if found.read else 0, found.errors)


def read_device(guest: Guest, device: vdpa.Device, disk: str) -> Device:
    """Read what both ends count of each queue; there must be no I/O."""
    driver = queues.read(guest, disk).queues
    ends = [_ends(queue, vdpa.parse_counters(guest.sysfs(
                f"/sys/kernel/debug/virtio_blk/{disk}/queue{queue.index}")), taken)
            for queue, taken in zip(driver, device.queues(), strict=True)]
    return Device(device.name, disk, f"/dev/{_DATA}", ends, device.workers())


def _ends(queue: queues.Queue, driver: dict[str, int],
          device: dict[str, int]) -> Ends:
    """Return a queue from common.queues, and what its driver and its device count."""
    return Ends(
        index=queue.index, cpus=queue.cpus, vector=queue.vector,
        ring=device["ring"], sent=driver["reads"] + driver["writes"],
        kicks=driver["kicks"], interrupts=driver["interrupts"],
        worker=device["worker"], taken=device["reads"] + device["writes"],
        batches=device["wakeups"] - device["empty_wakeups"],
        failed=device["errors"] + device["unsupported"] + device["broken"],
        in_flight=device["in_flight"])


def _settings(plan: Plan) -> dict[str, str]:
    """Return the attributes of vdpa_blk that the plan has."""
    return {"queues": str(plan.queues), "ring_size": str(plan.ring_size),
            "workers": str(plan.workers), "cpus": ",".join(map(str, plan.worker_cpus))}


def verified_io(guest: Guest, found: Run) -> None:
    """Write through both halves, and verify; then verify on the backing device."""
    plan = found.plan
    total = plan.cpus * plan.mib
    with backing(guest, _DATA, True, 2 * total, plan.queues) as path:
        with vdpa.Device(guest, path, **_settings(plan)) as device:
            disk = device.disk()
            found.modules = Modules(virtio_blk=origin(guest, "virtio_blk"),
                                    vdpa_blk=origin(guest, "vdpa_blk"))
            with step(f"writing {total} MiB through both halves and verifying them "
                      f"(crc32c), {plan.queues} queues and {plan.workers} workers"):
                found.written = write_and_verify(guest, plan, disk, "randwrite")
            found.device = read_device(guest, device, disk)
        with step("verifying them again on the backing device, without vdpa_blk"):
            found.reread = write_and_verify(guest, plan, _DATA, "read")


# The comparison

@contextlib.contextmanager
def compared(guest: Guest, plan: Plan) -> Iterator[Comparison]:
    """Add the devices to compare, all on the same block device; delete them at the end.

    Prints which are left out, and why.
    """
    found = Comparison({BACKING: _SPEED}, {}, [], [])
    with contextlib.ExitStack() as stack:
        path = stack.enter_context(backing(guest, _SPEED, False, _SPEED_MIB,
                                           plan.queues))
        # The one that unloads virtio_vdpa when it is left is the outermost.
        ours = stack.enter_context(vdpa.Device(
            guest, path, name="speed0", **_settings(plan)))
        found.disks[VDPA_BLK] = ours.disk()
        if vdpa.Vduse.available(guest):
            found.disks[VDUSE] = stack.enter_context(vdpa.Vduse(
                guest, path, queues=plan.queues, ring_size=plan.ring_size)).disk()
        else:
            found.missing.append(f"{VDUSE} is left out: Linux {guest.release} has no "
                                 "module vduse (CONFIG_VDPA_USER).")
        if vdpa.Simulated.available(guest):
            found.disks[SIMULATOR] = stack.enter_context(vdpa.Simulated(guest)).disk()
        else:
            found.missing.append(f"{SIMULATOR} is left out: Linux {guest.release} has "
                                 "no module vdpa_sim_blk (CONFIG_VDPA_SIM_BLOCK).")
        for reason in found.missing:
            say(f"  {reason}")
        for name, disk in found.disks.items():
            guest.run(f"echo none > /sys/block/{disk}/queue/scheduler")
            if name != BACKING:
                found.drivers[name] = guest.run(
                    f"basename $(readlink /sys/block/{disk}/device/driver)"
                    ).output.strip()
        yield found


def compare(guest: Guest, found: Run) -> None:
    """Run each job on each device, in rounds whose order of devices changes."""
    plan = found.plan
    with contextlib.ExitStack() as stack:
        with step("adding the devices to compare"):
            comparison = stack.enter_context(compared(guest, plan))
        names = list(comparison.disks)
        comparison.series.extend(Series(job, {name: [] for name in names})
                                 for job in plan.jobs)
        for number in range(plan.rounds):
            with step(f"measuring, round {number + 1} of {plan.rounds}"):
                turn = number % len(names)
                for series in comparison.series:
                    for name in names[turn:] + names[:turn]:
                        way = measure.timed(guest, comparison.disks[name],
                                            series.job.rw, plan.seconds, plan.cpus,
                                            series.job.depth)
                        series.iops[name].append(way.iops)
        found.comparison = comparison


# The whole run

def unload(guest: Guest) -> str:
    """Unload both halves; return the devices and modules that are left, or "none"."""
    left = guest.run("rmmod vdpa_blk; rmmod virtio_blk; ls /sys/bus/vdpa/devices; "
                     "ls -d /sys/module/vdpa_blk /sys/block/vd* 2>/dev/null",
                     check=False).output.split()
    return ", ".join(left) or "none"


def in_guest(guest: Guest, module: Path, found: Run) -> None:
    """Run all parts that use the guest; print each table when it is ready.

    module: vdpa_blk.ko.
    """
    with step("loading vdpa_blk"):
        vdpa.prepare(guest, module)
    verified_io(guest, found)
    assert found.device
    print(run_host_report.queue_table(found.device), flush=True)
    print(run_host_report.drawing(found.plan, found.device), flush=True)
    if found.plan.rounds:
        compare(guest, found)
        assert found.comparison
        print(run_host_report.comparison_table(found.plan, found.comparison)
              + run_host_report.clock_words(found.accelerator), flush=True)
    with step("deleting the devices and unloading both halves"):
        found.left = unload(guest)


def find_kernel(name: str) -> kernels.Kernel:
    """Return the kernel of that name, which can load both halves as modules.

    Raises UserError if it cannot; those of this project do not get built for that.
    """
    choose = "make run-host loads both halves as modules; choose KERNEL=6.12"
    if name in kernels.OWN:
        raise UserError(f"KERNEL is {name}, which has our driver built in; {choose}")
    kernel = kernels.find(name)
    if kernel.builtin:
        raise UserError(f"KERNEL is {name}, which has our driver built in; {choose}")
    if not kernels.can_have_vdpa(kernel):
        oldest = ".".join(map(str, kernels.OLDEST_VDPA))
        raise UserError(f"KERNEL is {name}, Linux {kernel.release}; vdpa_blk needs "
                        f"Linux {oldest} or later with CONFIG_VDPA; {choose}")
    return kernel


def run_all(found: Run) -> None:
    """Install and build what the run needs, do it, and record the results in found."""
    (_OUT / "report.json").unlink(missing_ok=True)
    cache.require_space(_OUT, _NEEDED_MIB, "move the repository to a larger disk")
    deps.need("build", "vm")
    kernel = find_kernel(found.plan.kernel)
    module = kernels.build_vdpa(kernel)
    driver = kernels.build_modules(kernel)
    with step("making an image with qemu-storage-daemon and vdpa"):
        qemu_args = vdpa.qemu_args()
    found.release, found.accelerator = kernel.release, qemu.accelerator()
    with contextlib.ExitStack() as stack:
        with step(f"booting a guest with {found.plan.cpus} CPUs, Linux "
                  f"{kernel.release}"):
            guest = stack.enter_context(Guest(kernel, cpus=found.plan.cpus,
                                              driver=driver, qemu_args=qemu_args))
        in_guest(guest, module, found)
    found.kernel_log = "no complaint"


def execute(plan: Plan) -> int:
    """Do a run of this size, print its report, and return the exit status."""
    found = Run(plan)
    started = time.monotonic()
    found.error, status = attempt(lambda: run_all(found))
    found.seconds = round(time.monotonic() - started, 1)
    judged = verdict.conclude(run_host_report.checks(found), found.error)
    facts = {"format": 1, **asdict(found), **judged.as_dict()}
    try:
        (_OUT / "report.json").write_text(json.dumps(facts, indent=1) + "\n")
        say(f"  wrote {(_OUT / 'report.json').relative_to(_TOP)}")
    except OSError as error:
        say(f"error: there is no report.json: {error}")
    print(report.verdict_text(judged), end="")
    return status or int(judged.word != "PASS")


def main() -> int:
    """Run with the default size, and return the exit status."""
    if sys.argv[1:]:
        raise UserError("usage: python3 -m run.run_host (it takes no arguments; "
                        "`make help` lists the variables)")
    repository.check_own_name()
    repository.writable(_OUT)
    say("make run-host: verified I/O through both halves in one guest")
    return execute(Plan(kernel=os.environ.get("KERNEL") or Plan.kernel))


if __name__ == "__main__":
    ui.main(main)
