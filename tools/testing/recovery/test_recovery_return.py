# SPDX-License-Identifier: GPL-2.0
"""Devices that return from a reset or a suspend with fewer or more capabilities.

A capability that requests rely on must be present again.  Others may be missing, and
never existed on devices that lack a feature.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from common import fio, throttle
from common.vblksim import Sim
from host import process
from testing import kmodule
from vm.disk import Disk
from vm.guest import Guest
from vm.kernels import Kernel

pytestmark = pytest.mark.kernels("6.12", full=("7.3-debug",))

MIB = 1 << 20
PAGE = 4096
FEATURES = ("size_max", "seg_max", "geometry", "blk_size", "flush", "topology", "mq",
            "discard", "write_zeroes", "lifetime", "secure_erase", "event_idx")


def reset(guest: Guest, disk: str) -> None:
    """Reset a disk's device; check that the disk is live afterwards."""
    guest.run(f"/bin/echo 1 > /sys/block/{disk}/recovery/reset", timeout=30)
    assert guest.sysfs(f"/sys/block/{disk}/state") == "live"


def works(guest: Guest, disk: str) -> None:
    """Write, read and compare."""
    report = fio.run(guest, f"/dev/{disk}", rw="randrw", bs="4k", size="1m",
                     offset="8m", verify="crc32c", timeout=60)
    assert fio.ios(report) > 200


@pytest.mark.parametrize("missing", ("discard", "write_zeroes", "flush", *[FEATURES]),
                         ids=lambda missing: missing if isinstance(missing, str)
                         else "all")
def test_device_without_feature_returns(sims: Guest, missing: str | tuple) -> None:
    """A device that never had a feature is live without it after a reset."""
    names = [missing] if isinstance(missing, str) else missing
    with Sim(sims, features=",".join(["default", *[f"-{name}" for name in names]]),
             capacity="32M", tolerate="KICK_UNWANTED") as sim:
        disk = sim.disk()
        reset(sims, disk)
        works(sims, disk)


def blocks(guest: Guest, path: str) -> int:
    """Return how many bytes a file has allocated."""
    return int(guest.run(f"stat -c '%b %B' {path} | awk '{{ print $1 * $2 }}'").output)


def test_device_that_may_no_longer_unmap(sims: Guest) -> None:
    """The driver does not set UNMAP for a device that lost write_zeroes_may_unmap.

    Its disk is live, and write zeroes still writes zeroes.
    """
    sims.run("rm -f /tmp/backing")
    with Sim(sims, capacity="32M", file="/tmp/backing",
             tolerate="KICK_UNWANTED") as sim:
        disk = sim.disk()

        def zeroed(at: int) -> int:
            """Write zeroes to a MiB with data; return how many bytes were unmapped."""
            sims.run(f"dd if=/dev/urandom of=/dev/{disk} bs=1M seek={at} count=1 "
                     "oflag=direct status=none; sync /tmp/backing")
            before = blocks(sims, "/tmp/backing")
            sims.run(f"fallocate -p -o {at}M -l 1M /dev/{disk}; sync /tmp/backing; "
                     f"cmp -n {MIB} -i {at * MIB}:0 /dev/{disk} /dev/zero")
            return before - blocks(sims, "/tmp/backing")

        assert zeroed(1) == MIB
        sim.ctl("set write_zeroes_may_unmap 0")
        reset(sims, disk)
        assert zeroed(2) == 0
        works(sims, disk)


# The cache

_STUCK_CACHE = Path(__file__).with_name("stuck_cache.c")
_STAYS_ON = "the write cache stays on"
_WRITE = """
use Fcntl;
sysopen my $disk, $ARGV[0], O_WRONLY | 010000 or die $!;    # O_DSYNC
for (my $page = 0; ; $page = ($page + 1) % 64) {
    sysseek $disk, ($ARGV[1] * 64 + $page) * 4096, 0;
    die $! unless syswrite $disk, chr($page) x 4096;
}
"""


@pytest.fixture
def stuck(kernel: Kernel, tmp_path: Path) -> Iterator[Guest]:
    """A guest with a disk in write-through mode that returns from a reset write-back.

    Four programs write to it synchronously all the time.
    """
    disk = Disk("cached", "ram", 64 * MIB, queues=2)
    with Guest(kernel, disks=[disk], parallel=False) as guest:
        name = guest.dev("cached")
        guest.put(kmodule.build(kernel, _STUCK_CACHE, tmp_path),
                  "/tmp/stuck_cache.ko")
        guest.run(f"""echo write through > /sys/block/{name}/cache_type
            insmod /tmp/stuck_cache.ko disk=/dev/{name}
            cd /sys/kernel/tracing
            echo 1 > events/virtio_blk/virtblk_complete/enable
            echo 1 > events/printk/console/enable""")
        guest.put(_WRITE.encode(), "/tmp/write")
        writers = [guest.start(f"exec perl /tmp/write /dev/{name} {number}",
                               timeout=600) for number in range(4)]
        guest.run("cd /sys/kernel/tracing; "
                  "until grep -q 'virtblk_complete: .* write ' trace; do sleep 0.1; done",
                  timeout=60)
        yield guest
        for writer in writers:
            writer.kill()


@pytest.mark.kernels("7.3-debug", full=("6.12",))
@pytest.mark.parametrize("way", ("reset", "suspend"))
def test_cache_that_stays_on(stuck: Guest, way: str) -> None:
    """A disk is dead if its device does not turn its cache off again.

    Writes waited that the block layer does not flush, because they were issued for a
    device without a cache.  The device must not get any of them.
    """
    stuck.tolerate("I/O error, dev vd|Buffer I/O error|is offline")
    name = stuck.dev("cached")
    if way == "suspend":
        stuck.suspend()
    else:
        stuck.run(f"echo 1 > /sys/block/{name}/recovery/reset", timeout=30, check=False)
    assert stuck.sysfs(f"/sys/block/{name}/state") == "dead"
    assert "volatile write cache that cannot be turned off" in stuck.run("dmesg").output
    before, found, after = stuck.run("cat /sys/kernel/tracing/trace").output.rpartition(
        _STAYS_ON)
    written = re.compile(r"virtblk_complete: .* write ")
    assert found and written.search(before) and not written.search(after)


@pytest.mark.kernels("6.12", "6.1", full=("7.3-debug",))
def test_write_back_waits_for_a_write_in_flight(kernel: Kernel) -> None:
    """The device caches only after writes that the block layer will not flush are done."""
    with Guest(kernel, disks=[Disk("cached", "ram", 64 * MIB, queues=2)]) as guest:
        name = guest.dev("cached")
        mode = f"/sys/block/{name}/cache_type"
        guest.run(f"echo write through > {mode}")
        with throttle.silent(guest, "cached"):
            write = guest.start(f"dd if=/dev/zero of=/dev/{name} bs=4k count=1 "
                                "oflag=direct,dsync status=none")
            assert process.wait_for(
                lambda: guest.sysfs(f"/sys/block/{name}/inflight").split() == ["0", "1"],
                30)
            change = guest.start(f"echo $$ > /run/change; echo write back > {mode}")
            # It waits in the kernel, unless it has ended.
            guest.run("until [ -s /run/change ]; do sleep 0.1; done; "
                      "for n in $(seq 300); do grep -q '^State:.D' "
                      "/proc/$(cat /run/change)/status || [ $? = 2 ] && break; "
                      "sleep 0.1; done", timeout=60)
            shown = guest.sysfs(mode)
            assert write.running
            assert shown == "write through"
        write.wait()
        change.wait()
        assert guest.sysfs(mode) == "write back"
        assert guest.sysfs(f"/sys/block/{name}/queue/write_cache") == "write back"


# Requests for a reset

@pytest.mark.kernels("7.3-debug")
def test_reset_that_was_refused_is_forgotten(kernel: Kernel) -> None:
    """A reset that is refused while the device is away does not come later."""
    with Guest(kernel, disks=[Disk("disk", "ram", 64 * MIB, queues=2)]) as guest:
        name = guest.dev("disk")
        block = f"/sys/block/{name}"
        for _ in range(10):
            done = guest.run(f"""exec bash << 'end'
                (echo 1 > $(readlink -f {block}/device/..)/reset) &
                until read state < {block}/state && [ $state = suspended ] ||
                    ! kill -0 $! 2> /dev/null; do :; done
                # Bash's own echo: on a busy host a program may start too late.
                echo $state; echo 1 > {block}/recovery/reset
                wait
end
""", timeout=60, check=False).output
            if "suspended" in done and "No such device" in done:
                break
        else:
            pytest.fail(f"no reset was refused: {done}")
        assert guest.sysfs(f"{block}/state") == "live"
        before = guest.sysfs(f"{block}/recovery/resets")
        # A change of the configuration is one of the reasons for recovery to look.
        guest.resize_disk("disk", 96 * MIB)
        assert process.wait_for(lambda: guest.sysfs(f"{block}/size") == "196608", 30)
        works(guest, name)
        assert guest.sysfs(f"{block}/recovery/resets") == before
