# SPDX-License-Identifier: GPL-2.0
"""Memory that cannot be had, wherever the driver or what it calls asks for it.

A task's n-th allocation is made to fail, n = 1, 2, 3... until there are no more,
by the kernel's /proc/self/fail-nth; only those that have the driver on their
stack count.  What workqueues allocate is reached by every n-th failing, whoever
asks.  kmemleak tells what nobody has a pointer to afterwards.

The driver has to be built in, or its code could not be told from all other.
"""

import re

from vm.disk import Disk
from vm.errors import GuestError
from vm.guest import Guest
from vm.ui import say

from . import leaks
from .scenario import Scenario

_MIB = 1 << 20
_MANY = 1_000_000
# More allocations than any operation has: an end for a loop that had none.
_MOST = 2000
# Whose n-th is counted, in debugfs; a pool has some memory left if it gets no more.
_ATTRS = "failslab fail_page_alloc fail_mempool_alloc fail_mempool_alloc_bulk"
# I/O allocates more or less, as its pages are next to each other or not.
_MISSES = 3
_RETURN_SECONDS = 10
_DRIVER = "/sys/bus/virtio/drivers/virtio_blk"
# What the kernel has to say when it is refused memory.  It goes on without the
# files of an interrupt in /proc, and has a warning when it comes to remove them.
_EXPECTED = (r"WARNING: at remove_proc_entry\+|"
             r"I/O error, dev vd|Buffer I/O error|virtqueues failed|error -12|"
             r"returns -12|kobject_add_internal failed for \S+ \(error: -12|"
             r"is offline|Reset done failure")

# What a task does, by name: to /dev/$disk, $device, and its PCI $function.
# I/O: it is not for want of memory that it fails.
_MUST_WORK = {
    "read": "exec dd if=/dev/$disk of=/dev/null bs=1M count=2 iflag=direct",
    "write": "exec dd if=/run/pattern of=/dev/$disk bs=1M seek=8 oflag=direct",
    "small write": "exec dd if=/run/pattern of=/dev/$disk bs=4k count=1 seek=2048 "
                   "oflag=direct,sync",
    "discard": "exec blkdiscard -f -o 16777216 -l 1048576 /dev/$disk",
    "write zeroes": "exec blkdiscard -z -f -o 16777216 -l 1048576 /dev/$disk",
}
# It may fail, and then the disk is gone for good, or is as it was before.
_MAY_FAIL = {
    "recovery": "echo 1 > /sys/block/$disk/recovery/reset",
    "serial number": "exec cat /sys/block/$disk/serial",
    "cache type": 'echo "write through" > /sys/block/$disk/cache_type',
    "reset": "echo 1 > $function/reset",
    "resume": "echo freeze > /sys/power/state",
    "probe": f"echo $device > {_DRIVER}/bind",
}
# What a workqueue does, which a task only asks for, and how many allocations it is
# to be looked for in: setting up a device takes some 120.  What is plugged when a
# task waits goes there as well.
_IN_WORKQUEUES = {"discard": 4, "write zeroes": 4, "recovery": 150}
_OPERATIONS = {**_MUST_WORK, **_MAY_FAIL}

# What the disk of $device is called, if there is one.
_FIND = """disk=
for path in $function/$device/block/*; do [ -e $path ] && disk=${path##*/}; done
"""
# The driver's own faults, which are its disk's, would be counted as well.
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


class _Target:
    """A disk whose driver is refused memory."""

    def __init__(self, guest, id):
        self.guest = guest
        self.id = id
        path = guest.run(f"readlink -f /sys/block/{guest.dev(id)}/device") \
            .output.strip()
        self.function, _, self.device = path.rpartition("/")

    def run(self, script):
        """Run a script that knows $disk, its $device, and its PCI $function."""
        return self.guest.run(
            f"device={self.device} function={self.function}\n"
            f"cd /sys/kernel/debug\n{_FIND}\nexport disk device function\n{script}")

    def refuse(self, number, script):
        """Have a task's number-th allocation fail; return what came of it.

        That is whether there was one, the script's exit status, the state of the
        disk, and whether it has its data.
        """
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
        return refused != "0", int(status), state, same

    def refuse_anyone(self, number, script):
        """Have one of number allocations fail, whoever's; return the same.

        What has been asked for is over when the disk is live, or dead.
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
        return slab == "0", int(status), state, same

    def unbind(self):
        self.run(f"echo $device > {_DRIVER}/unbind")

    def bind(self):
        """Bind the disk's driver; raise GuestError if the disk does not work."""
        state, same = self.run(f"""set -e
            echo $device > {_DRIVER}/bind
            {_FIND}
            {_LOOK}
            echo $state $same""").output.split()[-2:]
        if (state, same) != ("live", "same"):
            raise GuestError(f"{self.id} is {state} when bound anew, its data is "
                             f"{same}")


def _extent(guest):
    """Return where the driver's code begins and ends."""
    symbols = [(int(address, 16), name) for address, name in re.findall(
        r"^(\w+) [tT] (\w+)$", guest.run(
            "grep -A1 ' virtblk_' /proc/kallsyms").output, re.MULTILINE)]
    probe = next(address for address, name in symbols if name == "virtblk_probe")
    # What is seldom run, or at boot only, is elsewhere.
    own = sorted(address for address, name in symbols
                 if name.startswith("virtblk_") and abs(address - probe) < _MIB // 4)
    return own[0], min(address for address, _ in symbols if address > own[-1])


def aim(guest):
    """Have allocations below the driver fail that are asked to, and no other."""
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


def _prepare(guest, targets):
    """Give targets their data, and have a suspend go no further than the devices."""
    aim(guest)
    guest.run("""set -e
        head -c 2M /dev/urandom > /run/pattern
        echo 0 > /sys/power/pm_async
        echo devices > /sys/power/pm_test
        echo 0 > /sys/module/suspend/parameters/pm_test_delay""")
    for target in targets:
        target.run("dd if=/run/pattern of=/dev/$disk bs=1M oflag=direct")


def _one(round, target, name, number):
    """Refuse an operation its number-th allocation; return whether it has one."""
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


def refuse(round, step=1):
    """Have one allocation of each operation fail after the other, until the last.

    step: of so many, try one, at random, beginning with the first.
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


def _sweep(round, target, name, step):
    """Have the allocations of one operation fail, the first of all in any case."""
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
    "allocations", "Memory is refused to the driver, one allocation after another.",
    refuse,
    goals={"operations": len(_OPERATIONS), "scans for leaks": 1},
    each={"operations": len(_OPERATIONS), "scans for leaks": 1},
    zero=("leaks",))
