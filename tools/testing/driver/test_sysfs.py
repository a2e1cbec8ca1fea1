# SPDX-License-Identifier: GPL-2.0
"""The interface of a disk: sysfs, module parameters, resizing, and refused devices.

QEMU's device checks its own properties, so a device that offers MQ without queues, or
with an otherwise invalid configuration space, is in test_spec.py.
"""

import re

import pytest

from common import fio
from common.backend import Backend
from testing import tier
from vm.disk import Disk
from vm.errors import CommandFailed
from vm.guest import Guest

MIB = 1 << 20


def block(guest, id):
    """Return a disk's directory in sysfs."""
    return f"/sys/block/{guest.dev(id)}"


def limit(guest, id, name):
    """Return a limit of a disk's queue as a number."""
    return int(guest.sysfs(f"{block(guest, id)}/queue/{name}"))


def exists(guest, path):
    """Return whether a path exists in the guest."""
    return guest.run(f"test -e {path}", check=False).status == 0


def log(guest):
    """Return the lines of dmesg; the console may lag behind it."""
    return guest.run("dmesg").output.splitlines()


def new_lines(guest, before, pattern):
    """Return the lines of the log since `before` in which a pattern occurs."""
    return [line for line in log(guest)[len(before):]
            if re.search(pattern, line)]


def wait_until(guest, condition, timeout=10):
    """Wait until a shell condition holds in the guest."""
    guest.run(f"for i in $(seq {timeout * 10}); do {condition} && exit 0; "
              f"sleep 0.1; done; echo timed out waiting for: '{condition}'; exit 1",
              timeout=timeout * 2 + 20)


@pytest.fixture(scope="module")
def guest(kernel):
    disks = [
        Disk("plain", "ram", 64 * MIB, queues=2),
        Disk("twenty", serial="ABCDEFGHIJ0123456789"),
        Disk("nameless", serial=""),
        Disk("spaced", serial="  two words "),
        Disk("readonly", "ram", 8 * MIB, read_only=True),
        Disk("shaped", size=1000 * 5 * 17 * 512, cyls=1000, heads=5, secs=17),
        Disk("limits", queue_size=256, seg_max_adjust=False, discard=True,
             physical_block_size=4096, min_io_size=8192, opt_io_size=65536,
             discard_granularity=8192, max_discard_sectors=8192,
             max_write_zeroes_sectors=2048),
        Disk("bridge", opt_io_size=(1 << 32) - 512),
        Disk("unmatched", min_io_size=8192, opt_io_size=12288),
        Disk("short", queue_size=64, seg_max_adjust=False, discard=False,
             write_zeroes=False),
        Disk("blocks", "ram", 128 * MIB, logical_block_size=4096,
             physical_block_size=4096),
        Disk("fixed", config_wce=False),
        Disk("through", write_cache="off", config_wce=False),
    ]
    with Guest(kernel, cpus=2, disks=disks) as guest:
        yield guest


on_both = pytest.mark.kernels("6.12", full=("6.1",))


# Files of the disk

@on_both
@pytest.mark.parametrize("id,serial", [
    ("plain", "plain"), ("twenty", "ABCDEFGHIJ0123456789"), ("nameless", ""),
    ("spaced", "  two words ")])
def test_serial(guest, id, serial):
    """serial shows the device's serial number: up to 20 bytes, or nothing."""
    assert guest.run(f"cat {block(guest, id)}/serial").output == serial


@on_both
def test_cache_type(guest):
    """cache_type shows and accepts the two modes, and refuses other text."""
    path = f"{block(guest, 'plain')}/cache_type"
    for mode in ("write through", "write back", "write through", "write back"):
        guest.run(f"echo {mode} > {path}")
        assert guest.sysfs(path) == mode
        assert guest.sysfs(f"{block(guest, 'plain')}/queue/write_cache") == mode
    for wrong in ("'write forward'", "''", "1", "writeback", "'write back x'"):
        with pytest.raises(CommandFailed, match="Invalid argument"):
            guest.run(f"LC_ALL=C /bin/echo {wrong} > {path}")
        assert guest.sysfs(path) == "write back"


@on_both
@pytest.mark.parametrize("id,mode", [("fixed", "write back"),
                                     ("through", "write through")])
def test_fixed_cache_type(guest, id, mode):
    """Without CONFIG_WCE cache_type is read-only."""
    path = f"{block(guest, id)}/cache_type"
    assert guest.run(f"stat -c %a {path}; cat {path}").output.splitlines() == \
        ["444", mode]
    with pytest.raises(CommandFailed, match="Permission denied"):
        guest.run(f"echo write back > {path}")
    assert guest.sysfs(path) == mode


@on_both
def test_read_only(guest):
    """A read-only device makes a read-only disk, and root cannot change that."""
    disk = f"/dev/{guest.dev('readonly')}"
    backend = Backend(guest, "readonly")
    assert guest.sysfs(f"{block(guest, 'readonly')}/ro") == "1"
    assert guest.sysfs(f"{block(guest, 'plain')}/ro") == "0"
    guest.run(f"blockdev --setrw {disk}", check=False)
    for command in (f"dd if=/dev/zero of={disk} bs=4k count=1 oflag=direct "
                    "conv=notrunc", f"blkdiscard {disk}",
                    f"blkdiscard -z {disk}"):
        with pytest.raises(CommandFailed):
            guest.run(command)
    assert guest.sysfs(f"{block(guest, 'readonly')}/ro") == "1"
    assert backend.count("wr_operations", "discard-nb-ok",
                         "invalid_wr_operations") == (0, 0, 0)
    guest.run(f"dd if={disk} of=/dev/null bs=4k count=16 iflag=direct")


# HDIO_GETGEO fills in struct hd_geometry.
_GETGEO = """perl -e 'open F, "<", $ARGV[0] or die $!; my $geo = "\\0" x 16;
ioctl F, 0x301, $geo or die $!; print join " ", unpack "CCSx4Q", $geo' {}"""


@on_both
def test_geometry(guest):
    """HDIO_GETGEO returns the device's heads, sectors and cylinders."""
    disk = f"/dev/{guest.dev('shaped')}"
    assert guest.run(_GETGEO.format(disk)).output == "5 17 1000 0"


@on_both
@pytest.mark.parametrize("id,limits", [
    ("limits", {"logical_block_size": 512, "physical_block_size": 4096,
                "minimum_io_size": 8192, "optimal_io_size": 65536,
                # The device's seg_max is 128 - 2 for any ring.
                "max_segments": 126,
                "discard_granularity": 8192,
                "discard_max_hw_bytes": 8192 * 512,
                "max_discard_segments": 1,
                "write_zeroes_max_bytes": 2048 * 512}),
    # seg_max is 126 here too, but a request must fit into the ring of 64.
    ("short", {"max_segments": 62, "discard_max_hw_bytes": 0,
               "discard_granularity": 0, "write_zeroes_max_bytes": 0,
               "physical_block_size": 512, "logical_block_size": 512}),
    ("blocks", {"logical_block_size": 4096, "physical_block_size": 4096,
                "minimum_io_size": 4096, "discard_granularity": 4096}),
    ("bridge", {"optimal_io_size": 0, "read_ahead_kb": 128}),
    ("unmatched", {"minimum_io_size": 8192, "optimal_io_size": 0}),
    ("plain", {"logical_block_size": 512, "minimum_io_size": 512,
               "optimal_io_size": 0, "max_segments": 254,
               "rotational": 1, "nr_requests": 256}),
])
def test_limits(guest, id, limits):
    """The queue's limits follow the device's configuration space and ring."""
    queue = f"{block(guest, id)}/queue"
    found = guest.run(f"cd {queue} && grep . {' '.join(limits)}").output
    assert dict(line.split(":") for line in found.splitlines()) == \
        {name: str(value) for name, value in limits.items()}


@on_both
def test_optimal_io_size_is_ignored(guest):
    """One line in the log says why the driver ignores an optimal I/O size."""
    for id, why in (("bridge", "of 8388607 blocks: more than 64 MiB"),
                    ("unmatched", "of 24 blocks: no multiple of the minimum of 8192")):
        device = guest.run(f"basename $(readlink -f {block(guest, id)}/device)"
                           ).output.strip()
        (line,) = [line for line in log(guest)
                   if f"{device}: ignoring an optimal I/O size" in line]
        assert why in line


@on_both
def test_limit_of_unmapping_zeroes(guest):
    """From 6.17 on, write_zeroes_unmap_max_hw_bytes shows the device's limit."""
    name = "write_zeroes_unmap_max_hw_bytes"
    shown = exists(guest, f"{block(guest, 'limits')}/queue/{name}")
    # The file came with 6.17.
    release = tuple(map(int, guest.release.split(".")[:2]))
    assert shown == (release >= (6, 17))
    if shown:
        assert limit(guest, "limits", name) == 2048 * 512
        assert limit(guest, "short", name) == 0


def test_partitions(guest):
    """A disk has up to 15 partitions, each with its minor number and sectors."""
    name, backend = guest.dev("plain"), Backend(guest, "plain")
    table = "label: gpt\n" + "".join(
        f"start={2048 + 4096 * n}, size=4096\n" for n in range(15))
    guest.run(f"printf '{table}' | sfdisk -q /dev/{name} && "
              f"blockdev --rereadpt /dev/{name}")
    try:
        major, minor = guest.sysfs(f"/sys/block/{name}/dev").split(":")
        for n in range(1, 16):
            part = f"{name}{n}"
            assert guest.sysfs(f"/sys/class/block/{part}/dev") == \
                f"{major}:{int(minor) + n}"
            guest.run(f"printf {part}- | dd of=/dev/{part} bs=4k "
                      "conv=notrunc,fsync status=none")
        for n in range(15):
            mark = f"{name}{n + 1}-".encode()
            assert backend.read((2048 + 4096 * n) * 512, len(mark)) == mark
    finally:
        guest.run(f"wipefs -qa /dev/{name} && blockdev --rereadpt /dev/{name}")


# Sizes

def _size(guest, id):
    """Return a disk's size in bytes."""
    return int(guest.sysfs(f"{block(guest, id)}/size")) * 512


def _resize(guest, id, size):
    """Resize a disk; wait for its new size, and check for one line in the log."""
    before = log(guest)
    guest.resize_disk(id, size)
    wait_until(guest, f"[ $(cat {block(guest, id)}/size) = {size // 512} ]")
    sectors = size // 512
    lines = new_lines(guest, before,
                      rf"\[{guest.dev(id)}\] new size: {sectors} 512-byte")
    assert len(lines) == 1, log(guest)[len(before):]


@on_both
def test_resize_while_mounted(guest):
    """A mounted file system keeps its data while its disk grows and shrinks."""
    disk = f"/dev/{guest.dev('plain')}"
    try:
        guest.run(f"mkfs.ext4 -q -F {disk} 32M && mount {disk} /mnt && "
                  "dd if=/dev/urandom of=/mnt/file bs=1M count=16 status=none "
                  "&& sync && sha256sum /mnt/file > /tmp/sum")
        guest.run("rm -f /tmp/events; udevadm monitor -k -p > /tmp/events & "
                  "until grep -qs '^KERNEL - ' /tmp/events; do sleep 0.1; done")
        _resize(guest, "plain", 128 * MIB)
        wait_until(guest, "grep -q RESIZE=1 /tmp/events")
        guest.run(f"resize2fs {disk} 96M && "
                  "dd if=/dev/urandom of=/mnt/more bs=1M count=48 status=none "
                  "&& sync && sha256sum /mnt/more >> /tmp/sum")
        # Shrink to the size of the file system, and grow again.
        _resize(guest, "plain", 96 * MIB)
        _resize(guest, "plain", 112 * MIB)
        guest.run("echo 3 > /proc/sys/vm/drop_caches && sha256sum -c /tmp/sum")
    finally:
        guest.run("killall udevadm || busybox killall udevadm", check=False)
        guest.run("umount /mnt", check=False)
    guest.run(f"e2fsck -fn {disk}")
    # The last block can be read, and there is nothing beyond it.
    _resize(guest, "plain", 64 * MIB)
    for place, length in ((64 * 256 - 1, 4096), (64 * 256, 0)):
        read = guest.run(f"dd if={disk} bs=4k count=1 skip={place} iflag=direct "
                         "status=none | wc -c")
        assert int(read.output) == length


def _capacity_lines(guest, before):
    """Return the lines since `before` about a capacity of no whole blocks."""
    return new_lines(guest, before, "is no multiple of the logical block of 4096 bytes")


def _probe_again(guest, id):
    """Unbind a disk from the driver, and bind it again."""
    device = guest.run(f"basename $(readlink -f {block(guest, id)}/device)"
                       ).output.strip()
    guest.run(f"cd /sys/bus/virtio/drivers/virtio_blk && echo {device} > unbind && "
              f"echo {device} > bind")


@on_both
def test_resize_to_part_of_a_block(guest):
    """The disk has the whole logical blocks of the capacity, and its end is usable.

    That holds after a resize, after a reset and after a probe.  One line in the log says
    so each time, and a disk of less than one block is empty.
    """
    size = f"{block(guest, 'blocks')}/size"
    before = log(guest)
    guest.resize_disk("blocks", 64 * MIB + 3 * 512)
    wait_until(guest, f"[ $(cat {size}) -lt {65 * MIB // 512} ]")
    assert guest.sysfs(size) == "131072"
    (line,) = _capacity_lines(guest, before)
    assert "a capacity of 131075 sectors" in line and "using 131072" in line

    for again in (lambda: guest.run(f"echo 1 > {block(guest, 'blocks')}/recovery/reset"),
                  lambda: _probe_again(guest, "blocks"), None):
        disk = f"/dev/{guest.dev('blocks')}"
        guest.run(f"""set -e
            echo 'label: gpt' | sfdisk -q {disk}
            blkdiscard {disk}
            blkdiscard -z {disk}
            dd if={disk} of=/dev/null bs=1M skip=60 status=none
            dd if={disk} bs=4k skip=16383 iflag=direct status=none | cmp -n 4096 - \
                /dev/zero""")
        if again:
            before = log(guest)
            again()
            assert guest.sysfs(f"{block(guest, 'blocks')}/size") == "131072"
            assert len(_capacity_lines(guest, before)) == 1

    before = log(guest)
    guest.resize_disk("blocks", 7 * 512)
    wait_until(guest, f"[ $(cat {block(guest, 'blocks')}/size) = 0 ]")
    assert len(_capacity_lines(guest, before)) == 1
    guest.resize_disk("blocks", 128 * MIB)
    wait_until(guest, f"[ $(cat {block(guest, 'blocks')}/size) = {128 * MIB // 512} ]")


def test_resize_under_load(guest):
    """Verified I/O below the smallest size works while the disk is resized."""
    load = fio.start(guest, f"/dev/{guest.dev('plain')}", rw="randwrite",
                     bs="4k", size="32m", verify="crc32c", verify_backlog=64,
                     iodepth=16)
    for size in (120, 48, 250, 64):
        _resize(guest, "plain", size * MIB)
    load.wait()
    assert _size(guest, "plain") == 64 * MIB


# Many disks

@pytest.mark.full
def test_thirty_disks(kernel):
    """30 disks are vda to vdad, with 16 minors each, and each has its own data."""
    disks = [Disk(f"disk{number:02}", "ram", 8 * MIB, queues=1)
             for number in range(30)]
    letters = "abcdefghijklmnopqrstuvwxyz"
    names = [f"vd{letter}" for letter in letters] + \
            [f"vda{letter}" for letter in letters[:4]]
    with Guest(kernel, cpus=2, disks=disks) as guest:
        listed = guest.run("cd /sys/block; for name in vd*; do echo $name "
                           "$(cat $name/dev $name/serial); done").output
        found = {name: (place, serial) for name, place, serial in
                 map(str.split, listed.splitlines())}
        assert set(found) == set(names)
        majors = {place.split(":")[0] for place, _ in found.values()}
        assert len(majors) == 1
        assert [int(found[name][0].split(":")[1]) for name in names] == \
            [16 * number for number in range(30)]
        # All at once; then the host reads each backend.
        guest.run("for name in " + " ".join(names) + "; do (yes $name-$(cat "
                  "/sys/block/$name/serial) | dd of=/dev/$name bs=64k count=16 "
                  "iflag=fullblock oflag=direct conv=notrunc status=none || "
                  "echo $name >> /tmp/failed) & done; wait; ! cat /tmp/failed",
                  timeout=180)
        for name in names:
            serial = found[name][1]
            line = f"{name}-{serial}\n".encode()
            data = Backend(guest, serial).read(0, MIB)
            assert data == (line * (MIB // len(line) + 1))[:MIB]


# Parameters

@pytest.fixture(scope="module")
def bare(kernel):
    """A guest with two disks, from which the driver has been unloaded."""
    disks = [Disk("four", "ram", 16 * MIB, queues=4),
             Disk("two", "ram", 16 * MIB, queues=2, queue_size=64)]
    with Guest(kernel, cpus=4, disks=disks) as guest:
        guest.unload()
        yield guest


_TYPES = "cat /sys/kernel/debug/block/{}/hctx*/type"


def _check_queues(guest, id, default, poll, depth):
    """Check a disk's queues and depth, and its I/O from every CPU."""
    name = guest.dev(id)
    types = guest.run(_TYPES.format(name)).output.split()
    assert (types.count("default"), types.count("poll")) == (default, poll)
    assert limit(guest, id, "nr_requests") == depth
    reported = rf"\[{name}\] {default}/0/{poll} default/read/poll queues, ring \d+, " \
               rf"depth {depth}(, own ring|, prepared requests)?$"
    assert re.search(reported, "\n".join(log(guest)), re.MULTILINE)
    guest.run(
        "dd if=/dev/urandom of=/tmp/data bs=1M count=4 status=none; "
        "for cpu in 0 1 2 3; do taskset -c $cpu dd if=/tmp/data "
        f"of=/dev/{name} bs=64k count=16 skip=$((cpu * 16)) "
        "seek=$((cpu * 16)) oflag=direct conv=notrunc status=none & done; wait; "
        f"blockdev --flushbufs /dev/{name}; cmp -n {4 * MIB} /tmp/data "
        f"/dev/{name}")


# Parameters; (default queues, poll queues, depth) of each disk; and if clamped:
# parameter, value of each disk, and a word of the reason.
_GOOD = [
    ("", (4, 0, 256), (2, 0, 64), None),
    ("num_request_queues=0", (4, 0, 256), (2, 0, 64), None),
    ("num_request_queues=1", (1, 0, 256), (1, 0, 64), None),
    ("num_request_queues=2", (2, 0, 256), (2, 0, 64), None),
    ("num_request_queues=1000000", (4, 0, 256), (2, 0, 64),
     ("num_request_queues=1000000", 4, 2, "CPU")),
    ("queue_depth=0", (4, 0, 256), (2, 0, 64), None),
    ("queue_depth=1", (4, 0, 1), (2, 0, 1), None),
    ("queue_depth=17", (4, 0, 17), (2, 0, 17), None),
    ("queue_depth=1000000", (4, 0, 256), (2, 0, 64),
     ("queue_depth=1000000", 256, 64, "ring")),
    ("poll_queues=1", (3, 1, 256), (1, 1, 64), None),
    ("poll_queues=1000000", (1, 3, 256), (1, 1, 64),
     ("poll_queues=1000000", 3, 1, "interrupt")),
    ("num_request_queues=2 poll_queues=2 queue_depth=8", (1, 1, 8), (1, 1, 8),
     ("poll_queues=2", 1, 1, "interrupt")),
]
# What make check does not try follows from these.
_USUAL = ("", "num_request_queues=1", "num_request_queues=1000000",
          "queue_depth=1000000", "poll_queues=1000000",
          "num_request_queues=2 poll_queues=2 queue_depth=8")


@pytest.mark.module
@pytest.mark.parametrize("params,four,two,clamped", tier.usual(_GOOD, [
    case for case in _GOOD if case[0] in _USUAL]),
    ids=[case[0] or "none" for case in _GOOD])
def test_parameters(bare, params, four, two, clamped):
    """The driver uses a parameter's value, or clamps it and logs the reason once."""
    before = log(bare)
    bare.load(params)
    try:
        _check_queues(bare, "four", *four)
        _check_queues(bare, "two", *two)
        lines = new_lines(bare, before, "using")
        if clamped:
            what, first, second, why = clamped
            assert len(lines) == 2, lines
            for line, to in zip(lines, (first, second)):
                assert f" {what}: using {to}, " in line
                assert why in line
        else:
            assert lines == []
    finally:
        bare.unload()


@pytest.mark.module
@pytest.mark.parametrize("depth,indirect,segments", [
    (85, "0", 256 // 8 - 2), (86, "1", 254)])
def test_queue_depth_and_indirect_descriptors(bare, depth, indirect, segments):
    """The driver does without indirect descriptors if queue_depth requests fit so.

    In a ring of 256, 85 requests take three descriptors each.  A ring of 64 always
    has indirect descriptors, and so has one that the driver runs itself.
    """
    bare.load(f"own_ring=N queue_depth={depth}"
              + " prepared=N" * bare.kernel.prepared)
    try:
        _check_queues(bare, "four", 4, 0, depth)
        assert bare.sysfs(f"{block(bare, 'four')}/device/features")[28] == indirect
        assert limit(bare, "four", "max_segments") == segments
        assert bare.sysfs(f"{block(bare, 'two')}/device/features")[28] == "1"
        assert limit(bare, "two", "max_segments") == 62
    finally:
        bare.unload()


@pytest.mark.module
@pytest.mark.parametrize("params", [
    "num_request_queues=-1", "queue_depth=-1", "poll_queues=-1",
    "queue_depth=many", "num_request_queues=4294967296"])
def test_parameters_that_are_no_numbers(bare, params):
    """Loading with an invalid parameter fails, with a message and no module left."""
    before = log(bare)
    with pytest.raises(CommandFailed):
        bare.load(params)
    assert new_lines(bare, before, f"`{params.split('=')[1]}' invalid for "
                     f"parameter `{params.split('=')[0]}'")
    assert not exists(bare, "/sys/module/virtio_blk")
    assert bare.run("ls /sys/block").output.count("vd") == 0


@pytest.mark.module
def test_parameters_in_sysfs(bare):
    """Parameters that apply at probe are writable in sysfs, the others read-only."""
    base = "/sys/module/virtio_blk/parameters"
    bare.load("queue_depth=32")
    try:
        modes = bare.run(f"cd {base} && stat -c '%n %a' *").output
        assert modes.splitlines() == ["harden 444", "io_timeout 644",
                                      "num_request_queues 644",
                                      "own_ring 644",
                                      "poll_queues 644",
                                      *["prepared 644"] * bare.kernel.prepared,
                                      "queue_depth 444",
                                      "read_queues 644",
                                      "removal_timeout 644", "reset_after 644",
                                      "reset_attempts 644"]
        assert bare.sysfs(f"{base}/harden") == "0"
        assert bare.sysfs(f"{base}/queue_depth") == "32"
        # A disk keeps its queues until it is probed again.
        bare.run(f"echo 1 > {base}/num_request_queues")
        _check_queues(bare, "four", 4, 0, 32)
        _probe_again(bare, "four")
        _check_queues(bare, "four", 1, 0, 32)
        with pytest.raises(CommandFailed):
            bare.run(f"/bin/echo -1 > {base}/num_request_queues")
    finally:
        bare.unload()


@pytest.mark.module
def test_poll_queues_in_sysfs(bare):
    """Polled I/O through a poll queue passes verification."""
    bare.load("poll_queues=1")
    try:
        assert limit(bare, "four", "io_poll") == 1
        fio.run(bare, f"/dev/{bare.dev('four')}", ioengine="io_uring", hipri=1,
                rw="randwrite", bs="4k", size="2m", verify="crc32c")
    finally:
        bare.unload()


# Devices that the driver refuses

@pytest.mark.module
def test_bad_devices(kernel):
    """The driver logs why it refuses a device, and other disks work.

    "huge" has a block size larger than Linux supports.  "empty" has a capacity of 0,
    and works after a resize.
    """
    disks = [Disk("huge", logical_block_size=1 << 21,
                  physical_block_size=1 << 21),
             Disk("empty", "ram", 0),
             Disk("good", "ram", 16 * MIB)]
    with Guest(kernel, cpus=2, disks=disks) as guest:
        guest.unload()
        for _ in range(2):
            before = log(guest)
            guest.load()
            (line,) = new_lines(guest, before, r"block size")
            assert re.search(r"block size 2097152 is not a power of two from "
                             r"512 to \d+", line)
            assert int(line.split(" to ")[1].split(";")[0]) in (4096, 65536)
            assert new_lines(guest, before, "virtio_blk: probe of .* failed "
                             "with error -22|probe with driver virtio_blk "
                             "failed with error -22")
            disk = f"/dev/{guest.dev('good')}"
            fio.run(guest, disk, rw="randwrite", bs="4k", size="1m",
                    verify="crc32c")
            assert guest.run("ls -d /sys/block/vd*").output.count("vd") == 2
            guest.unload()
            assert not exists(guest, disk)

        before = log(guest)
        guest.load()
        assert new_lines(guest, before, r"\[vd.\] the capacity is 0, ")
        empty = guest.dev("empty")
        assert guest.sysfs(f"/sys/block/{empty}/size") == "0"
        read = guest.run(f"dd if=/dev/{empty} bs=512 count=1 iflag=direct "
                         "status=none | wc -c", timeout=20)
        assert read.output.strip() == "0"
        _resize(guest, "empty", 8 * MIB)
        fio.run(guest, f"/dev/{empty}", rw="randwrite", bs="4k", size="1m",
                verify="crc32c")
        guest.unload()
