# SPDX-License-Identifier: GPL-2.0
"""Failed memory allocations in the driver and in functions that it calls.

The kernel's /proc/self/fail-nth makes a task's n-th allocation fail, n = 1, 2, 3...
until there are no more.  Only allocations with the driver on their stack count.  To
reach allocations in workqueues, every n-th allocation of any task fails.  kmemleak
finds the leaks afterwards.

The driver must be built in, because the address range of its code selects the
allocations.
"""

import re
from typing import NamedTuple

from host.ui import say
from vm.agent import Result
from vm.disk import Disk
from vm.errors import GuestError
from vm.guest import Guest

from . import leaks
from .scenario import Round, Scenario

_MIB = 1 << 20
_MANY = 1_000_000
# More allocations than any operation has: a limit for the loop.
_MOST = 2000
# The faults that fail-nth counts, in debugfs.  A mempool may still have reserves.
_ATTRS = "failslab fail_page_alloc fail_mempool_alloc fail_mempool_alloc_bulk"
# The number of allocations of an I/O varies with how contiguous its pages are.
_MISSES = 3
_RETURN_SECONDS = 10
_DRIVER = "/sys/bus/virtio/drivers/virtio_blk"
# Expected messages of the kernel after a failed allocation.  If it cannot create the
# files of an interrupt in /proc, it warns when it removes them.
_EXPECTED = (r"WARNING: at remove_proc_entry\+|"
             r"I/O error, dev vd|Buffer I/O error|virtqueues failed|error -12|"
             r"returns -12|kobject_add_internal failed for \S+ \(error: -12|"
             r"is offline|Reset done failure")

# Operations of a task, by name, on /dev/$disk, $device and its PCI $function.
# I/O must not fail because an allocation fails.
_MUST_WORK = {
    "read": "exec dd if=/dev/$disk of=/dev/null bs=1M count=2 iflag=direct",
    "write": "exec dd if=/run/pattern of=/dev/$disk bs=1M seek=8 oflag=direct",
    "small write": "exec dd if=/run/pattern of=/dev/$disk bs=4k count=1 seek=2048 "
                   "oflag=direct,sync",
    "discard": "exec blkdiscard -f -o 16777216 -l 1048576 /dev/$disk",
    "write zeroes": "exec blkdiscard -z -f -o 16777216 -l 1048576 /dev/$disk",
}
# These may fail, and then the disk is dead or unbound, or as before.
_MAY_FAIL = {
    "recovery": "echo 1 > /sys/block/$disk/recovery/reset",
    "serial number": "exec cat /sys/block/$disk/serial",
    "cache type": 'echo "write through" > /sys/block/$disk/cache_type',
    "reset": "echo 1 > $function/reset",
    "resume": "echo freeze > /sys/power/state",
    "probe": f"echo $device > {_DRIVER}/bind",
}
# Operations that a workqueue does for the task, and the number of allocations to try:
# initializing a device takes some 120.  Requests that are plugged when a task sleeps
# are submitted by a workqueue as well.
_IN_WORKQUEUES = {"discard": 4, "write zeroes": 4, "recovery": 150}
_OPERATIONS = {**_MUST_WORK, **_MAY_FAIL}

# Sets $disk to the name of $device's disk, if there is one.
_FIND = """disk=
for path in $function/$device/block/*; do [ -e $path ] && disk=${path##*/}; done
"""
# fail-nth would count the driver's own faults as well.
_EXEMPT = """for fault in virtio_blk/${disk:-none}/*/; do
    [ -e $fault/require-end ] || continue
    echo 1 > $fault/require-start; echo 1 > $fault/require-end
done
"""
_LOOK = """state=unbound; same=unknown
[ -z "$disk" ] || read state < /sys/block/$disk/state
[ $state != live ] || { dd if=/dev/$disk bs=256k count=8 iflag=direct 2> /dev/null |
    cmp -s - /run/pattern && same=same || same=different; }
"""


class _Refusal(NamedTuple):
    """What one refused allocation did.

    refused: whether there was one; status: the operation's exit status; state: of the
    disk; same: "same" if the disk has its data.
    """
    refused: bool
    status: int
    state: str
    same: str


class _Target:
    """A disk whose driver gets failed allocations."""

    def __init__(self, guest: Guest, id: str):
        self.guest = guest
        self.id = id
        path = guest.run(f"readlink -f /sys/block/{guest.dev(id)}/device") \
            .output.strip()
        self.function, _, self.device = path.rpartition("/")

    def run(self, script: str) -> Result:
        """Run a script with $disk, its $device, and its PCI $function set."""
        return self.guest.run(
            f"device={self.device} function={self.function}\n"
            f"cd /sys/kernel/debug\n{_FIND}\nexport disk device function\n{script}")

    def refuse(self, number: int, script: str) -> _Refusal:
        """Make a task's number-th allocation fail."""
        *_, status, refused, state, same = self.run(f"""{_EXEMPT}
            for attr in {_ATTRS}; do echo {_MANY} > $attr/times; done
            sh -c 'echo {number} > /proc/self/fail-nth; {script}' > /dev/null 2>&1
            status=$?
            refused=0
            for attr in {_ATTRS}; do
                read times < $attr/times; refused=$((refused + {_MANY} - times))
            done
            {_FIND}
            {_LOOK}
            echo $status $refused $state $same""").output.split()
        return _Refusal(refused != "0", int(status), state, same)

    def refuse_anyone(self, number: int, script: str) -> _Refusal:
        """Make one of number allocations of any task fail; return the same.

        The operation has ended when the disk is live or dead.
        """
        *_, status, slab, state, same = self.run(f"""
            echo 1 > failslab/times; echo {number} > failslab/interval
            echo 100 > failslab/probability
            sh -c '{script}' > /dev/null 2>&1
            status=$?
            for n in $(seq {10 * _RETURN_SECONDS}); do
                read state < /sys/block/$disk/state
                case $state in live|dead) break; esac
                sleep 0.1
            done
            echo 0 > failslab/probability
            read slab < failslab/times
            {_LOOK}
            echo $status $slab $state $same""").output.split()
        return _Refusal(slab == "0", int(status), state, same)

    def unbind(self) -> None:
        self.run(f"echo $device > {_DRIVER}/unbind")

    def bind(self) -> None:
        """Bind the driver to the disk; raise GuestError if the disk does not work."""
        state, same = self.run(f"""set -e
            echo $device > {_DRIVER}/bind
            {_FIND}
            {_LOOK}
            echo $state $same""").output.split()[-2:]
        if (state, same) != ("live", "same"):
            raise GuestError(f"{self.id} is {state} when bound again, its data is "
                             f"{same}")


def _extent(guest: Guest) -> tuple[int, int]:
    """Return the first and the last address of the driver's code."""
    symbols = [(int(address, 16), name) for address, name in re.findall(
        r"^(\w+) [tT] (\w+)$", guest.run(
            "grep -A1 ' virtblk_' /proc/kallsyms").output, re.MULTILINE)]
    probe = next(address for address, name in symbols if name == "virtblk_probe")
    # Cold functions and those for boot are in other sections.
    own = sorted(address for address, name in symbols
                 if name.startswith("virtblk_") and abs(address - probe) < _MIB // 4)
    return own[0], min(address for address, _ in symbols if address > own[-1])


def aim(guest: Guest) -> None:
    """Restrict the kernel's fault injection to allocations below the driver."""
    start, end = _extent(guest)
    guest.tolerate(_EXPECTED)
    guest.run(f"""set -e
        for attr in {_ATTRS}; do
            cd /sys/kernel/debug/$attr
            echo {start:#x} > require-start
            echo {end:#x} > require-end
            echo 32 > stacktrace-depth
            echo 0 > verbose
            echo 0 > probability
        done
        cd /sys/kernel/debug
        echo N > failslab/ignore-gfp-wait
        echo N > fail_page_alloc/ignore-gfp-wait
        echo N > fail_page_alloc/ignore-gfp-highmem
        echo 0 > fail_page_alloc/min-order""")


def _prepare(guest: Guest, targets: list[_Target]) -> None:
    """Write the targets' data, and limit suspend to the devices."""
    aim(guest)
    guest.run("""set -e
        head -c 2M /dev/urandom > /run/pattern
        echo 0 > /sys/power/pm_async
        echo devices > /sys/power/pm_test
        echo 0 > /sys/module/suspend/parameters/pm_test_delay""")
    for target in targets:
        target.run("dd if=/run/pattern of=/dev/$disk bs=1M oflag=direct")


def _one(round: Round, target: _Target, name: str, number: int) -> bool:
    """Fail the number-th allocation of an operation; return whether it has one."""
    if name == "probe":
        target.unbind()
    refuse = target.refuse_anyone if name in _IN_WORKQUEUES else target.refuse
    refused, status, state, same = refuse(number, _OPERATIONS[name])
    works = (state, same) == ("live", "same")
    allowed = refused and name not in _MUST_WORK
    gone = state in ("unbound", "dead")
    if (status and not allowed) or not (works or allowed and gone):
        raise GuestError(
            f"{name} of {target.id} ended with status {status}, the disk is {state}, "
            f"its data {same}, when allocation {number} " +
            ("failed" if refused else "did not fail, nor any other"))
    if state == "dead":
        target.unbind()
    if gone:
        target.bind()
    if refused:
        round.add("failed allocations")
        round.add("failed probes and returns", gone)
        round.add(f"in {name}")
    return refused


def refuse(round: Round, step: int = 1) -> None:
    """Fail the allocations of each operation, one after the other.

    step: try one of so many, at random, beginning with the first.
    """
    disks = [Disk("split", "ram", 64 * _MIB, queues=2),
             Disk("packed", "ram", 64 * _MIB, queues=2, packed=True)]
    with Guest(round.kernel, cpus=2, memory=512, disks=disks,
               cmdline="kmemleak=on") as guest:
        targets = [_Target(guest, disk.id) for disk in disks]
        _prepare(guest, targets)
        for name in _OPERATIONS:
            _sweep(round, round.random.choice(targets), name, step)
        leaks.look(round, guest)


def _sweep(round: Round, target: _Target, name: str, step: int) -> None:
    """Fail the allocations of one operation, and in any case the first."""
    number = 1
    most = _IN_WORKQUEUES.get(name, _MOST)
    misses = 0
    while number <= most and misses < _MISSES:
        if _one(round, target, name, number):
            number += round.random.randint(1, 2 * step - 1)
            misses = 0
        else:
            misses += 1
    if number > _MOST:
        raise GuestError(f"{name} has more than {_MOST} allocations")
    round.add("operations")
    say(f"  {name} on {target.id}: {round.counts[f'in {name}']} allocations failed")


ALLOCATIONS = Scenario(
    "allocations", "The driver's allocations fail, one after another.",
    refuse,
    goals={"operations": len(_OPERATIONS), "scans for leaks": 1},
    each={"operations": len(_OPERATIONS), "scans for leaks": 1},
    zero=("leaks",))
