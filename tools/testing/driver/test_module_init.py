# SPDX-License-Identifier: GPL-2.0
"""The module's init fails cleanly when the kernel refuses it memory.

The module has its second name, so that it loads beside the driver that is built in.
"""

import re

import pytest

from vm import kernels
from vm.guest import Guest

pytestmark = pytest.mark.kernels("7.3-debug")

NAME = "virtio_blk_mq"
# More allocations than the init has: a limit for the loop.
MOST = 300

# Prints all that an init leaves behind.  A work queue has a thread, by a name that the
# kernel cuts.
LOOK = f"""look() {{
    for path in module bus/virtio/drivers kernel/debug; do
        ls /sys/$path | grep -c '^{NAME}$'
    done
    grep -c virtblk /proc/devices
    grep -c . /sys/devices/system/cpu/hotplug/states
    cat /proc/[0-9]*/comm | grep -c '^kworker/R-virti'
}}
"""
# Fails the allocations of the init one after the other, until there are no more.  A slab
# that needs a page is a second allocation, which another fault counts, at any of them.
REFUSE = LOOK + f"""
cd /sys/kernel/debug
look > /tmp/before
number=0
while [ $number -lt {MOST} ]; do
    number=$((number + 1))
    for times in fail*/times; do echo 1 > $times; done
    sh -c "echo $number > /proc/self/fail-nth
           exec insmod /tmp/{NAME}.ko" > /tmp/said 2>&1
    status=$?
    left=1
    for times in fail*/times; do read left < $times; [ $left -ne 0 ] || break; done
    [ $status -ne 0 ] || rmmod {NAME} || exit 1
    # A thread of a work queue may take a moment to exit.
    for try in 1 2 3 4 5 6 7 8 9; do
        look > /tmp/after
        ! cmp -s /tmp/before /tmp/after || break
        sleep 0.1
    done
    echo "allocation $number: status $status, left $left," \\
        $(cmp -s /tmp/before /tmp/after && echo clean || cat /tmp/after) $(cat /tmp/said)
    [ $left -eq 0 ] || break
done
"""


@pytest.fixture(scope="module")
def guest(kernel):
    if not kernel.builtin or not kernel.has("CONFIG_FAILSLAB"):
        pytest.skip(f"{kernel.name} has no driver built in, or no failslab")
    # Not busybox's insmod: if one system call fails, it tries another.
    with Guest(kernel) as guest:
        guest.put(kernels.build_modules(kernel, name=NAME), f"/tmp/{NAME}.ko")
        yield guest


def aim_at_init(guest):
    """Restrict faults to the init of modules.

    Each of the kernel's faults counts in fail-nth, also those of the disk that insmod
    is read from.
    """
    symbols = guest.run("grep -A1 ' do_init_module$' /proc/kallsyms").output.split()
    guest.run(f"""set -e
        cd /sys/kernel/debug
        for start in fail*/require-start; do
            cd ${{start%/*}}
            echo 0x{symbols[0]} > require-start
            echo 0x{symbols[3]} > require-end
            echo 32 > stacktrace-depth
            echo 0 > verbose
            cd ..
        done
        echo N > failslab/ignore-gfp-wait""")


@pytest.mark.full
def test_allocations_of_init_fail(guest):
    """Without memory the module does not load, or works, and leaves nothing behind."""
    aim_at_init(guest)
    guest.tolerate("kobject_add_internal failed|sysfs: cannot create")
    output = guest.run(REFUSE, timeout=600).output
    found = re.findall(r"^allocation (\d+): status (\d+), left (\d+), clean(.*)$", output,
                       re.MULTILINE)
    assert len(found) == len(output.splitlines()), output
    refused = [(int(status), said) for _, status, left, said in found if left == "0"]
    # The last load had no allocation left to fail.
    assert [(status, left) for _, status, left, _ in found][-1] == ("0", "1"), output
    failed = [said for status, said in refused if status]
    assert len(failed) > 10, output
    # The driver core has this error if it cannot create a file of the driver.
    assert all(re.search("Cannot allocate memory|Invalid parameters", said)
               for said in failed), output
