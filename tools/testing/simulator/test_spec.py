# SPDX-License-Identifier: GPL-2.0
"""The block chapter of VIRTIO 1.4, on a device that checks the driver.

The device is vblksim.  It checks each request, and a rule that the driver breaks fails
the test at the end of its `with Sim(...)`.  Zoned devices are in test_zoned.py.

Most tests run with both fronts of vblksim.  VDUSE has no CONFIG_WCE, and QEMU's
vhost-user-blk offers no other feature than QEMU knows: neither LIFETIME, SECURE_ERASE and
ZONED, nor a number of queues that is not its own.
"""

import os
import re
import subprocess

import pytest

from common import fio, simulator, vblksim
from common.vblksim import Sim
from host import process
from testing import tier
from vm.errors import CommandFailed
from vm.guest import Guest

# On the debug kernel `make check` runs the tests in which memory errors are likely,
# `make check-full` all tests.
pytestmark = pytest.mark.kernels("6.12", full=("7.3-debug",))
on_debug_kernel = pytest.mark.kernels("6.12", "7.3-debug")
both_fronts = pytest.mark.fronts("vduse", "vhost-user")
only_vduse = pytest.mark.fronts("vduse")

MIB = 1 << 20
# Kinds of rings, and the features that select them.
RINGS = {"split": "default", "packed": "default,+ring_packed",
         "split-direct": "default,-indirect_desc",
         "packed-direct": "default,+ring_packed,-indirect_desc",
         "split-no-event": "default,-event_idx",
         "packed-no-event": "default,+ring_packed,-event_idx"}


def test_watch_catches_each_rule():
    """vblksim's self test breaks each rule of the table, and the watch reports it."""
    result = subprocess.run([simulator.build("selftest")], text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    last = result.stdout.strip().splitlines()[-1]
    assert result.returncode == 0, result.stdout[-4000:]
    assert re.fullmatch(r"\d+ passed, 0 failed", last), last


@pytest.fixture(scope="module")
def guest(kernel, front):
    """A guest for devices of vblksim's."""
    with vblksim.booted(kernel, front) as guest:
        yield guest


def io(guest, disk, size="1m"):
    """Run verified I/O of all kinds on all CPUs; return the number of I/Os."""
    block = guest.sysfs(f"/sys/block/{disk}/queue/logical_block_size")
    report = fio.run(guest, f"/dev/{disk}", rw="randrw",
                     bsrange=f"{block}-64k", numjobs=4, size=size, fsync=16,
                     offset_increment="8m", verify="crc32c",
                     cpus_allowed="0-3", cpus_allowed_policy="split")
    return fio.ios(report)


@on_debug_kernel
@both_fronts
@pytest.mark.parametrize("ring", RINGS)
def test_each_ring_is_watched(guest, ring, queues=4):
    """The driver breaks no rule on any kind of ring with a queue for each CPU."""
    with Sim(guest, features=RINGS[ring], queues=queues, capacity="32M") as sim:
        assert io(guest, sim.disk()) > 30
    assert sim.report["types"].keys() >= {"in", "out", "flush"}


@on_debug_kernel
@both_fronts
@pytest.mark.parametrize("ring", ("split", "packed"))
def test_large_rings(guest, ring):
    """On a ring of 1024 the driver negotiates again without indirect descriptors.

    A ring that the driver runs itself keeps them, and so does one with prepared requests.
    It does so on PCI, and not on VDUSE.
    """
    pci = vblksim.front_of(guest) == vblksim.VHOST_USER
    own = str(int(pci and ring == "split"))
    indirect = str(int(pci and (ring == "split" or guest.kernel.prepared)))
    with Sim(guest, features=RINGS[ring], queues=2, ring_size=1024,
             capacity="32M") as sim:
        disk = sim.disk()
        features = guest.sysfs(f"/sys/block/{disk}/device/features")
        assert (features[28], features[32]) == (indirect, "1")
        assert guest.sysfs(f"/sys/block/{disk}/own_ring") == own
        assert io(guest, disk) > 30


@only_vduse
@pytest.mark.parametrize("ring", tier.usual(("split", "packed"), ["split"]))
def test_large_rings_of_indirect_descriptors(guest, ring):
    """A large ring has indirect descriptors if the device requires them."""
    with Sim(guest, features=RINGS[ring], required="indirect_desc", queues=2,
             ring_size=1024, capacity="32M") as sim:
        disk = sim.disk()
        features = guest.sysfs(f"/sys/block/{disk}/device/features")
        assert (features[28], features[32]) == ("1", "1")
        assert guest.sysfs(f"/sys/block/{disk}/queue/nr_requests") == "1024"
        assert io(guest, disk) > 30


@pytest.mark.parametrize("ring", tier.usual(RINGS, ("split", "packed")))
def test_rings_of_one_queue(guest, ring):
    """The driver breaks no rule on any kind of ring that all CPUs share."""
    test_each_ring_is_watched(guest, ring, queues=1)


@pytest.mark.parametrize("queues", tier.usual((16, 64), [64]))
def test_many_queues(guest, queues):
    """With more queues than CPUs the driver uses one for each CPU."""
    with Sim(guest, queues=queues, ring_size=64) as sim:
        disk = sim.disk()
        used = guest.run(f"ls /sys/block/{disk}/mq").output.split()
        assert len(used) == 4
        assert io(guest, disk) > 30


@only_vduse
def test_mq_without_queues(guest):
    """The driver uses one queue if a device offers MQ with num_queues 0."""
    with Sim(guest, queues=1, num_queues=0) as sim:
        disk = sim.disk()
        assert io(guest, disk) > 30
    assert "it has 0 queues; using 1" in guest.log()


def test_features_of_others_are_declined(guest):
    """The driver accepts no feature for PCI, none of other devices, and no reserved one.

    SR_IOV and ADMIN_VQ (37, 41) are for PCI, 42 is of network devices, 44 and 49 are
    reserved.  No kernel knows NOTIF_CONFIG_DATA and SUSPEND (39, 43).
    """
    offered = (37, 39, 41, 42, 43, 44, 49)
    with Sim(guest, features="default," + ",".join(f"+bit{bit}" for bit in offered),
             capacity="32M") as sim:
        disk = sim.disk()
        found = guest.sysfs(f"/sys/block/{disk}/device/features")
        assert [bit for bit in offered if found[bit] != "0"] == []
        assert found[32] == "1"
        assert io(guest, disk) > 30


@pytest.mark.parametrize("feature", tier.usual((
    "size_max", "seg_max", "geometry", "blk_size", "flush", "topology", "mq",
    "discard", "write_zeroes", "lifetime", "secure_erase"),
    ("seg_max", "flush", "mq", "write_zeroes")))
def test_one_feature_less(guest, feature):
    """The driver sends no request that depends on a feature that the device lacks."""
    vduse = vblksim.front_of(guest) == vblksim.VDUSE
    with Sim(guest, features=f"default,-{feature}", capacity="32M") as sim:
        disk = sim.disk()
        assert io(guest, disk) > 30
        guest.run(f"blkdiscard -o 1M -l 4M /dev/{disk}; "
                  f"blkdiscard -z -o 8M -l 4M /dev/{disk}; "
                  f"blkdiscard -s -o 16M -l 1M /dev/{disk}; "
                  f"cat /sys/block/{disk}/lifetime/*; true")
        has_lifetime = guest.run(f"[ -d /sys/block/{disk}/lifetime ]",
                                 check=False).status == 0
        assert has_lifetime == (vduse and feature != "lifetime")
    types = sim.report["types"]
    for name, lacking in (("flush", "flush"), ("discard", "discard"),
                          ("write_zeroes", "write_zeroes"),
                          *((("secure_erase", "secure_erase"),
                             ("get_lifetime", "lifetime")) if vduse else ())):
        assert (name in types) == (feature != lacking), name


def test_least_device(guest):
    """The driver works with a device of one queue, a ring of four and no feature."""
    platform = {"vduse": ",access_platform", "vhost-user": ""}
    with Sim(guest, features="version_1" + platform[vblksim.front_of(guest)], queues=1,
             ring_size=4) as sim:
        assert io(guest, sim.disk()) > 30


@pytest.mark.parametrize("limits", tier.usual((
    {"seg_max": 1, "size_max": 4096}, {"seg_max": 2, "size_max": 65536},
    {"seg_max": 3, "size_max": 5000}, {"blk_size": 4096, "seg_max": 7},
    {"seg_max": 4000, "ring_size": 16}),
    ({"seg_max": 3, "size_max": 5000}, {"seg_max": 4000, "ring_size": 16})), ids=str)
def test_segment_limits(guest, limits):
    """Requests keep to seg_max, size_max and the ring's size."""
    with Sim(guest, **limits) as sim:
        disk = sim.disk()
        report = fio.run(guest, f"/dev/{disk}", rw="randrw", bsrange="4k-512k",
                         numjobs=4, size="2m", offset_increment="8m",
                         verify="crc32c")
        assert fio.ios(report) > 30


# Configurations that the driver refuses, and the message in the log.
REFUSED = {
    "blk_size-0": ({"blk_size": 0}, "block size 0 is not a power of two"),
    "blk_size-777": ({"blk_size": 777}, "block size 777 is not"),
    "size_max": ({"size_max": 512}, "segments of 512 bytes are too small"),
    "ring": ({"ring_size": 2}, "a ring of 2 has no room"),
    "model": ({"features": "default,+zoned", "model": 7},
              "zoned model 7 is not known"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_configuration_refused(guest, case):
    """The driver refuses an unusable configuration and logs the reason."""
    settings, reason = REFUSED[case]
    if case == "model" and vblksim.front_of(guest) != vblksim.VDUSE:
        pytest.skip("QEMU offers no ZONED of a vhost-user device")
    before = guest.log().count(reason)
    with Sim(guest, **settings) as sim:
        assert process.wait_for(
            lambda: guest.log().count(reason) > before, 30), guest.log()[-2000:]
        assert sim.running
        assert not sim.find_disk()


@pytest.mark.parametrize("id", ("short", "exactly twenty chars", ""))
def test_get_id(guest, id):
    """serial shows an ID of up to 20 characters; one of 20 has no NUL at the end."""
    with Sim(guest, id=id) as sim:
        assert guest.run(f"cat /sys/block/{sim.disk()}/serial").output == id
    assert sim.report["types"]["get_id"] >= 1


# Each value of the device, and its text in sysfs.
LIFETIMES = (
    (0, "0x00 undefined", 0, "0x00 undefined", 1, "0x01 0-10% used"),
    (1, "0x01 normal", 2, "0x02 10-20% used", 10, "0x0a 90-100% used"),
    (2, "0x02 warning", 11, "0x0b exceeded", 12, "0x0c reserved"),
    (3, "0x03 urgent", 5, "0x05 40-50% used", 0, "0x00 undefined"),
    (4, "0x04 reserved", 65535, "0xffff reserved", 6, "0x06 50-60% used"),
)


@only_vduse
@pytest.mark.parametrize("values", LIFETIMES, ids=lambda values: str(values[0]))
def test_lifetime(guest, values):
    """sysfs shows the device's wear as a number and text."""
    eol, eol_text, a, a_text, b, b_text = values
    with Sim(guest, pre_eol_info=eol, device_lifetime_est_typ_a=a,
             device_lifetime_est_typ_b=b) as sim:
        place = f"/sys/block/{sim.disk()}/lifetime"
        assert guest.sysfs(f"{place}/pre_eol_info") == eol_text
        assert guest.sysfs(f"{place}/est_typ_a") == a_text
        assert guest.sysfs(f"{place}/est_typ_b") == b_text
    assert sim.report["types"]["get_lifetime"] == 3


def fill(guest, disk, mib):
    """Fill the start of a disk with something that is not zero."""
    guest.run(f"tr '\\0' x < /dev/zero | dd of=/dev/{disk} bs=1M count={mib} "
              "iflag=fullblock oflag=direct status=none")


def zeroes(guest, disk, first, size):
    """Return whether size bytes from first on are all zero."""
    status = guest.run(f"cmp -n {size} -i {first}:0 /dev/{disk} /dev/zero",
                       check=False).status
    # 2: it could not read.
    assert status in (0, 1)
    return status == 0


@on_debug_kernel
@only_vduse
def test_secure_erase(guest):
    """Secure erase clears its range only, and keeps to its own limits."""
    with Sim(guest, max_secure_erase_sectors="1M", max_secure_erase_seg=3,
             secure_erase_sector_alignment="64k",
             max_discard_sectors="8M") as sim:
        disk = sim.disk()
        fill(guest, disk, 16)
        guest.run(f"blkdiscard -s -o 2M -l 8M /dev/{disk}")
        assert zeroes(guest, disk, 2 * MIB, 8 * MIB)
        assert not zeroes(guest, disk, 0, 2 * MIB)
        assert not zeroes(guest, disk, 10 * MIB, 4096)
    assert sim.report["types"]["secure_erase"] >= 8


@only_vduse
def test_secure_erase_refused(guest):
    """With max_secure_erase_seg 0 the disk has no secure erase; the log says why."""
    with Sim(guest, max_secure_erase_seg=0) as sim:
        disk = sim.disk()
        assert guest.run(f"blkdiscard -s -l 1M /dev/{disk}", check=False).status
    assert "no secure erase: max_secure_erase_seg is 0" in guest.log()
    assert "secure_erase" not in sim.report["types"]


@pytest.mark.parametrize("may_unmap", (0, 1))
def test_write_zeroes(guest, may_unmap):
    """Write zeroes clears its range only, in requests within the device's limits."""
    with Sim(guest, max_write_zeroes_sectors="512k", max_write_zeroes_seg=1,
             write_zeroes_may_unmap=may_unmap) as sim:
        disk = sim.disk()
        fill(guest, disk, 8)
        guest.run(f"blkdiscard -z -o 1M -l 4M /dev/{disk} && "
                  f"fallocate -z -n -o 5M -l 1M /dev/{disk}")
        assert zeroes(guest, disk, MIB, 5 * MIB)
        assert not zeroes(guest, disk, 0, MIB)
        assert not zeroes(guest, disk, 6 * MIB, 4096)
    assert sim.report["types"]["write_zeroes"] >= 10


@on_debug_kernel
@pytest.mark.parametrize("segments", tier.usual((1, 8, 256), (1, 256)))
def test_discard(guest, segments):
    """Parallel discards keep to max_discard_seg, and touch no other data."""
    with Sim(guest, max_discard_seg=segments, max_discard_sectors="1M",
             discard_sector_alignment="4k", queues=2) as sim:
        disk = sim.disk()
        guest.run(f"echo mq-deadline > /sys/block/{disk}/queue/scheduler "
                  "2>/dev/null || { modprobe mq-deadline; "
                  f"echo mq-deadline > /sys/block/{disk}/queue/scheduler; }}")
        report = fio.run(guest, f"/dev/{disk}", rw="randtrim", bs="4k",
                         iodepth=64, numjobs=4, size="1m",
                         offset_increment="8m")
        assert fio.ios(report, "trim") == 1024
        fill(guest, disk, 8)
        guest.run(f"blkdiscard -o 1M -l 4M /dev/{disk}")
        assert not zeroes(guest, disk, 0, MIB)
    assert sim.report["types"]["discard"] > 100


@both_fronts
def test_resize_is_watched(guest):
    """The disk's size follows the device's capacity up and down."""
    with Sim(guest, capacity="32M") as sim:
        disk = sim.disk()

        def size():
            return int(guest.sysfs(f"/sys/block/{disk}/size"))

        for mib in (96, 16, 64):
            sim.ctl(f"resize {mib}M")
            assert process.wait_for(lambda: size() == mib * 2048, 10), size()
            last = mib * MIB // 4096 - 1
            guest.run(f"dd if=/dev/zero of=/dev/{disk} bs=4k count=1 seek={last} "
                      "oflag=direct status=none")


def test_read_only_is_watched(guest):
    """The driver sends no write to a read-only device, and its disk is read-only."""
    with Sim(guest, features="default,+ro") as sim:
        disk = sim.disk()
        assert guest.sysfs(f"/sys/block/{disk}/ro") == "1"
        fio.run(guest, f"/dev/{disk}", rw="randread", size="2m")
        assert guest.run(f"dd if=/dev/zero of=/dev/{disk} bs=4k count=1",
                         check=False).status
    assert "out" not in sim.report["types"]


# Errors

def read_block(guest, disk):
    """Read a block with direct I/O; return dd's status and output."""
    result = guest.run(f"dd if=/dev/{disk} of=/dev/null bs=4k count=1 "
                       "iflag=direct", check=False)
    return result.status, result.output


# Without "no_status": VDUSE does not initialize its bounce buffers, so the driver
# would read the status of an earlier request.
@pytest.mark.parametrize("behaviour", (
    "fail ioerr", "fail unsupp", "status 3", "status 0x77", "fail 255"))
def test_failed_request(guest, behaviour):
    """A status other than OK fails that request and no other."""
    guest.tolerate("I/O error, dev vd|Buffer I/O error|operation not supported")
    with Sim(guest) as sim:
        disk = sim.disk()
        assert read_block(guest, disk)[0] == 0
        sim.ctl(f"script 'on type=in count=1: {behaviour}'")
        status, words = read_block(guest, disk)
        assert status and ("Input/output error" in words
                           or "not supported" in words), words
        assert read_block(guest, disk)[0] == 0
        assert io(guest, disk) > 30


@pytest.mark.parametrize("type", ("discard", "write_zeroes", "secure_erase",
                                  "flush"))
def test_failed_command(guest, type):
    """The program that issued a command gets the command's error."""
    if type == "secure_erase" and vblksim.front_of(guest) != vblksim.VDUSE:
        pytest.skip("QEMU offers no SECURE_ERASE of a vhost-user device")
    guest.tolerate("I/O error, dev vd|Buffer I/O error|operation not supported")
    command = {"discard": "blkdiscard -l 1M", "secure_erase": "blkdiscard -s -l 1M",
               "write_zeroes": "fallocate -p -n -o 0 -l 1M",
               "flush": "blockdev --flushbufs --rereadpt"}[type]
    if type == "flush":
        command = "dd if=/dev/zero bs=4k count=1 conv=fsync,notrunc of="
    with Sim(guest) as sim:
        disk = sim.disk()
        sim.ctl(f"script 'on type={type}: fail ioerr'")
        place = f"/dev/{disk}" if command.endswith("=") else f" /dev/{disk}"
        result = guest.run(f"{command}{place}", check=False)
        assert result.status, result.output
        assert sim.stats()["types"][type] >= 1


@both_fronts
def test_reordered_and_delayed(guest):
    """Completions that are late or out of order corrupt no data."""
    with Sim(guest, queues=2, script=[
            "on type=in every=7: delay 3ms", "on type=out every=5: delay 1ms",
            "on type=in every=3: reorder 4"]) as sim:
        assert io(guest, sim.disk()) > 30


# Read queues and poll queues

def probe_with(guest, **params):
    """Set parameters of the driver for devices that it probes later."""
    guest.run("".join(f"echo {value} > /sys/module/virtio_blk/parameters/{name}\n"
                      for name, value in params.items()))


@pytest.fixture
def parameters(guest):
    """A function that sets parameters; the fixture resets them afterwards."""
    yield lambda **params: probe_with(guest, **params)
    probe_with(guest, read_queues=0, poll_queues=0, num_request_queues=0)


@pytest.mark.parametrize("read", tier.usual((1, 2, 3), (1, 3)))
def test_read_queues(guest, parameters, read):
    """Reads, and only reads, go to the read queues."""
    parameters(read_queues=read)
    writing = 4 - read
    astray = [f"on type=in queue={queue}: fail ioerr" for queue in range(writing)]
    astray += [f"on type={type} queue={queue}: fail ioerr"
               for queue in range(writing, 4)
               for type in ("out", "flush", "discard")]
    with Sim(guest, queues=4, script=astray) as sim:
        disk = sim.disk()
        assert f"[{disk}] {writing}/{read}/0 default/read/poll queues" in guest.log()
        assert io(guest, disk) > 30
        guest.run(f"blkdiscard -l 1M /dev/{disk}")


def test_read_queues_clamped(guest, parameters):
    """With too many read_queues the driver keeps one queue for writes and logs it."""
    parameters(read_queues=9)
    start = guest.log_size()
    with Sim(guest, queues=4) as sim:
        disk = sim.disk()
        said = guest.log_since(start)
        assert f"[{disk}] 1/3/0 default/read/poll queues" in said
        assert "read_queues=9: using 3, one of 4 queues must take writes" in said
        assert io(guest, disk) > 30


@on_debug_kernel
@pytest.mark.parametrize("ring", ("split", "packed"))
def test_polled_io_is_watched(guest, parameters, ring):
    """Polled I/O of io_uring works beside reads and writes with interrupts."""
    parameters(poll_queues=1, read_queues=1)
    start = guest.log_size()
    with Sim(guest, queues=4, features=RINGS[ring]) as sim:
        disk = sim.disk()
        assert f"[{disk}] 2/1/1 default/read/poll queues" in guest.log_since(start)
        job = fio.start(guest, f"/dev/{disk}", ioengine="io_uring", hipri=1,
                        rw="randread", bs="4k", iodepth=32, numjobs=2,
                        size="4m", offset="32m")
        assert io(guest, disk) > 30
        assert fio.ios(job.wait(), "read") == 2048


# A file system, and a long run

def test_file_system(guest):
    """ext4 with copied, removed and trimmed files is consistent at the end."""
    with Sim(guest, capacity="256M", features=RINGS["packed"]) as sim:
        disk = sim.disk()
        guest.run(
            f"mkfs.ext4 -q -E nodiscard /dev/{disk} && mkdir -p /tmp/mnt && "
            f"mount -o discard /dev/{disk} /tmp/mnt && "
            "copy() { cp -r /usr/sbin /tmp/mnt/$1 && sync && same $1; }; "
            "same() { diff -r --no-dereference /usr/sbin /tmp/mnt/$1; }; "
            "for n in 1 2; do copy $n && rm -r /tmp/mnt/$n || exit; done; "
            "copy last && fstrim /tmp/mnt && "
            f"umount /tmp/mnt && mount /dev/{disk} /tmp/mnt && "
            "same last && umount /tmp/mnt && "
            f"fsck.ext4 -fn /dev/{disk}", timeout=300)
    assert sim.report["types"]["discard"] > 0


@pytest.mark.full
@pytest.mark.parametrize("ring", tier.usual(("split", "packed"), ["packed"]))
def test_many_requests(guest, ring):
    """Tens of thousands of requests break no rule; with FULL there are more."""
    each = 64_000 if os.environ.get("FULL") else 8_000
    with Sim(guest, queues=4, features=RINGS[ring], capacity="256M") as sim:
        disk = sim.disk()
        fio.run(guest, f"/dev/{disk}", timeout=900, rw="randrw", bs="4k",
                numjobs=4, iodepth=32, size="64m", offset_increment="64m",
                norandommap=1, io_size=f"{each * 4}k")
    assert sim.report["requests"] >= 4 * each


# The in-tree driver.  The rules that it breaks are in Documentation/conformance.rst,
# and show that the watch is not made to fit this driver.

@pytest.mark.kernels("6.12")
@pytest.mark.module
def test_watching_the_in_tree_driver(kernel):
    """The watch finds the two rules that the in-tree driver is known to break."""
    with Guest(kernel, driver="stock") as guest:
        vblksim.prepare(guest)
        with Sim(guest, ours=False, queues=4, max_write_zeroes_seg=0) as sim:
            disk = sim.disk()
            assert io(guest, disk) > 30
            guest.run(f"blkdiscard -z -o 8M -l 4M /dev/{disk}; true")
            sim.stop(check=False)
        broken = {rule["rule"] for rule in sim.report["broken"]}
        assert broken == {"REQUEST_RESERVED", "WRITE_ZEROES_SEG"}


# Probes of devices that answer late, or never

IO_TIMEOUT = 3
DRIVER = "/sys/bus/virtio/drivers/virtio_blk"


@pytest.fixture
def impatient(guest):
    """The guest, in which new disks have a short timeout."""
    parameter = "/sys/module/virtio_blk/parameters/io_timeout"
    before = guest.sysfs(parameter)
    guest.tolerate("I/O error, dev vd|Buffer I/O error")
    guest.run(f"echo {IO_TIMEOUT} > {parameter}")
    yield guest
    guest.run(f"echo {before} > {parameter}")


@only_vduse
def test_probe_of_silent_and_slow_devices(impatient):
    """A probe fails if the device never answers, and waits for one that is slow.

    The slow device takes longer than the timeout for each of some requests, and longer
    than the probe waits for all of them.
    """
    guest = impatient
    # The virtio core does not reset a device whose probe has failed.  The driver notifies
    # a device again for a request that has timed out.
    with Sim(guest, capacity="32M",
             tolerate="STATUS_AFTER_FAILED,STATUS_ORDER,KICK_UNWANTED") as sim:
        disk = sim.disk()
        device = guest.run(f"basename $(readlink -f /sys/block/{disk}/device)"
                           ).output.strip()
        guest.run(f"echo 'start=2048, size=4096' | sfdisk -q /dev/{disk}")

        def bind(check=True):
            return guest.run(f"LC_ALL=C /bin/echo {device} > {DRIVER}/bind",
                             check=check, timeout=60)

        start = guest.log_size()
        guest.run(f"echo {device} > {DRIVER}/unbind")
        sim.ctl(f"script 'on type=in count=2: delay {IO_TIMEOUT}500ms'")
        bind()
        assert guest.run(f"ls -d /sys/block/{disk}/{disk}1")
        assert "so the probe fails" not in guest.log_since(start)

        guest.run(f"echo {device} > {DRIVER}/unbind")
        sim.ctl("script clear")
        sim.ctl("script 'on type=in: drop'")
        # Not all kernels return the error of a probe to the writer.
        bind(check=False)
        assert f"[{disk}] died while it was probed, so the probe fails; when the " \
               f"device answers again, write {device} to " in guest.log()
        assert guest.run(f"ls /sys/block/{disk}", check=False).status

        sim.ctl("script clear")
        bind()
        assert guest.run(f"ls -d /sys/block/{disk}/{disk}1")
        assert io(guest, disk) > 30


@only_vduse
def test_probe_of_silent_zoned_device(impatient):
    """A probe whose report on zones is never answered fails before there is a disk."""
    guest = impatient
    start = guest.log_size()
    with Sim(guest, "zones", features="default,+zoned", model="hm", capacity="64M",
             tolerate="KICK_UNWANTED", script=["on type=zone_report: drop"]) as sim:
        assert process.wait_for(lambda: "cannot use its zones: error"
                                in guest.log_since(start), 5 * IO_TIMEOUT + 20)
        assert sim.running
    assert "died while it was probed" in guest.log_since(start)


@only_vduse
def test_probe_of_a_backend_that_dies(impatient):
    """A backend that dies while its disk is probed does not block the next device."""
    guest = impatient
    start = guest.log_size()
    dying = Sim(guest, "dying", script=["on type=in: kill"])
    with dying:
        # It is not there to be stopped, and VDUSE waits for it at a reset.
        dying.report = {}
        guest.run("""for n in $(seq 100); do
            echo 1 > /sys/class/vduse/dying/msg_timeout && exit; sleep 0.1
            done 2> /dev/null; exit 1""")
    with Sim(guest, "next", capacity="32M") as sim:
        assert io(guest, sim.disk(timeout=60)) > 30
    assert "so the probe fails" in guest.log_since(start)
    assert not dying.running


@only_vduse
def test_bad_settings(guest):
    """vblksim names the wrong argument, and says what is allowed."""
    for words, reason in (("--queues=0", "1 to 64"), ("--queues=x", "queues"),
                          ("--features=nonsense", "nonsense"),
                          ("--capacitee=1M", "capacitee"),
                          ("--mutate=9", "--fuzz=N"),
                          ("--script='on type=in: explode'", "explode")):
        result = vblksim.program(guest, words, check=False)
        assert result.status == 2, result.output
        assert reason in result.output, result.output
    with pytest.raises(CommandFailed, match="sim"):
        vblksim.program(guest, "ctl --control=/run/none.sock stats")
