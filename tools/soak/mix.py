# SPDX-License-Identifier: GPL-2.0
"""All operations of an administrator on a guest, in any order, under verified I/O.

Operations that a kernel lacks are left out: the debug kernel does not hibernate, and
kernels before 6.14 do not report a reset of the transport to the driver.
"""

import dataclasses
from collections.abc import Callable
from random import Random

from common import fio
from host import process
from vm.disk import Disk
from vm.errors import GuestError
from vm.guest import Guest

from . import faults
from .scenario import Round, Scenario

_MIB = 1 << 20
_LOAD_SECONDS = 60
# The limit for fio on a busy host, with all operations meanwhile.
_LIMIT = 600
# Behind the area of load().
_SAMPLE_MIB = 60
_SIZES_MIB = range(64, 129, 8)
_RESIZE_SECONDS = 30
_DRIVER = "/sys/bus/virtio/drivers/virtio_blk"
_Operation = Callable[[Guest, Random], None]
_DATA = ("split", "packed", "direct")


def _disks() -> list[Disk]:
    return [Disk("split", "ram", 64 * _MIB, queues=4),
            Disk("packed", "ram", 64 * _MIB, queues=2, packed=True),
            Disk("direct", "ram", 64 * _MIB, queues=2, queue_size=1024),
            Disk("swap", "ram", 512 * _MIB, queues=2)]


# Operations under load

def _suspend(guest: Guest, random: Random) -> None:
    guest.suspend()


def _hibernate(guest: Guest, random: Random) -> None:
    """Hibernate: write an image of the guest and resume from it."""
    guest.run("echo disk > /sys/power/state", timeout=300)


def _switch_cpu(guest: Guest, random: Random) -> None:
    """Take a CPU offline or online."""
    cpu = f"/sys/devices/system/cpu/cpu{random.randrange(1, guest.cpus)}/online"
    guest.run(f"echo $((1 - $(cat {cpu}))) > {cpu}")


def _resize(guest: Guest, random: Random) -> None:
    id, mib = random.choice(_DATA), random.choice(_SIZES_MIB)
    size = f"/sys/block/{guest.dev(id)}/size"
    guest.resize_disk(id, mib * _MIB)
    if not process.wait_for(lambda: int(guest.sysfs(size)) == mib * 2048,
                            _RESIZE_SECONDS):
        raise GuestError(f"{id} was resized to {mib} MiB and still has "
                         f"{guest.sysfs(size)} sectors after {_RESIZE_SECONDS} s")


def _reset_transport(guest: Guest, random: Random) -> None:
    device = f"/sys/block/{guest.dev(random.choice(_DATA))}/device"
    guest.run(f"echo 1 > $(readlink -f {device}/..)/reset")


def _reset(guest: Guest, random: Random) -> None:
    faults.tell_to_reset(guest, random.choice(_DATA))


def _possible(guest: Guest) -> dict[str, _Operation]:
    """Return the operations that a guest supports, by name."""
    steps: dict[str, _Operation] = {"suspends": _suspend, "CPU switches": _switch_cpu,
                                    "resizes": _resize}
    if "disk" in guest.sysfs("/sys/power/state").split():
        steps["hibernations"] = _hibernate
    if tuple(map(int, guest.release.split(".")[:2])) >= (6, 14):
        steps["transport resets"] = _reset_transport
    if guest.run(f"ls /sys/block/{guest.dev('split')}/recovery/reset",
                 check=False).status == 0:
        steps["resets"] = _reset
    return steps


# Operations between loads

def _change_queues(guest: Guest, random: Random) -> None:
    """Make the driver probe all its disks again, with another number of queues."""
    count = random.randrange(guest.cpus + 1)
    guest.run("echo {} > /sys/module/virtio_blk/parameters/num_request_queues"
              .format(count))
    for id in _DATA:
        name = guest.dev(id)
        guest.run(f"device=$(basename $(readlink -f /sys/block/{name}/device)); "
                  f"echo $device > {_DRIVER}/unbind; "
                  f"echo $device > {_DRIVER}/bind", timeout=120)
        queues = guest.run(f"ls /sys/block/{guest.dev(id)}/mq").output.split()
        if count and len(queues) > count:
            raise GuestError(f"{id} has {len(queues)} queues with "
                             f"num_request_queues={count}")


def _put_sample(guest: Guest) -> None:
    guest.run("dd if=/dev/urandom of=/tmp/sample bs=1M count=1 status=none")
    for id in _DATA:
        guest.run(f"dd if=/tmp/sample of=/dev/{guest.dev(id)} bs=1M "
                  f"seek={_SAMPLE_MIB} oflag=direct conv=fsync status=none")


def _check_sample(guest: Guest, round: Round) -> None:
    for id in _DATA:
        disk = f"/dev/{guest.dev(id)}"
        same = guest.run(
            f"dd if={disk} bs=1M skip={_SAMPLE_MIB} count=1 iflag=direct "
            "status=none | cmp - /tmp/sample", check=False)
        round.add("samples wrong", int(same.status != 0))


def _count_lost(guest: Guest, round: Round) -> None:
    """Count lost interrupts, because they cause no I/O error."""
    if round.driver == "ours":
        round.add("lost interrupts", sum(
            faults.counter(guest, id, "lost_interrupts") for id in _DATA))


def _load(guest: Guest, steps: dict[str, _Operation], round: Round) -> None:
    """Run random operations for a minute, under verified I/O on all data disks."""
    # fio binds its jobs to all CPUs, once.
    guest.run("for cpu in /sys/devices/system/cpu/cpu[1-9]*/online; do "
              "echo 1 > $cpu; done")
    runs = [faults.load(guest, id, timeout=_LIMIT, time_based=1,
                        runtime=_LOAD_SECONDS)
            for id in _DATA]
    for id, run in zip(_DATA, runs):
        run.wait_for_io(guest.dev(id))
    done = 0
    while all(run.running for run in runs):
        name = round.random.choice(sorted(steps))
        steps[name](guest, round.random)
        round.add(name)
        done += 1
        guest.run(f"sleep {round.random.uniform(0, 2):.1f}")
    for run in runs:
        round.add("verified I/Os", fio.ios(run.wait()))
    if not done:
        raise GuestError("no operation ended within the "
                         f"{_LOAD_SECONDS} s of the disks' I/O")


def _run(round: Round) -> None:
    with Guest(round.kernel, driver=round.driver, disks=_disks(), memory=512,
               parallel=False) as guest:
        swap = f"/dev/{guest.dev('swap')}"
        guest.run(f"mkswap {swap} && swapon {swap}; "
                  "echo 100000000 > /sys/power/image_size; "
                  "echo test_resume > /sys/power/disk; true")
        steps = _possible(guest)
        _put_sample(guest)
        while round.wants("minutes"):
            _load(guest, steps, round)
            _check_sample(guest, round)
            _count_lost(guest, round)
            _change_queues(guest, round.random)
            round.add("queue changes")
            _check_sample(guest, round)
            round.add("minutes")


MIX = Scenario(
    "mix", "Random operations of an administrator run under verified I/O.",
    _run, goals={"minutes": 30}, each={"minutes": 5},
    zero=("samples wrong", "lost interrupts"))

# On a kernel that can hibernate, with either driver.
MIX_DEBIAN = dataclasses.replace(
    MIX, name="mix-debian", kernel="6.12", drivers=("ours", "stock"))
