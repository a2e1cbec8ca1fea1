# SPDX-License-Identifier: GPL-2.0
"""Data that is written reads back unchanged, and is in the backend.

Discards of several ranges in one request are not tested here: QEMU's devices offer
one range (max_discard_seg is 1) and reject more, so that test_spec.py uses vblksim.
"""

import hashlib

import pytest

from common import counters, fio, full_ring
from common.backend import Backend, WriteLog
from testing import tier
from vm.disk import Disk
from vm.errors import CommandTimeout
from vm.guest import Guest

MIB = 1 << 20

short = pytest.mark.kernels("6.12", "6.1", full=("7.3-debug",))
with_debug = pytest.mark.kernels("6.12", "7.3-debug")


@pytest.fixture(scope="module")
def guest(kernel, tmp_path_factory):
    log = WriteLog(tmp_path_factory.mktemp("log") / "writes")
    disks = [
        Disk("sector", "ram", 384 * MIB, queues=4, queue_size=1024),
        Disk("packed", "ram", 64 * MIB, queues=4, queue_size=1024, packed=True),
        Disk("direct", "ram", 64 * MIB, queues=4, queue_size=1024,
             indirect_desc=False),
        Disk("wide", "ram", 64 * MIB, queues=1, queue_size=512),
        Disk("page", "ram", 384 * MIB, queues=4, logical_block_size=4096,
             physical_block_size=4096),
        Disk("narrow", "ram", 64 * MIB, queues=2, queue_size=8),
        Disk("full", "ram", 64 * MIB, queues=2, queue_size=16,
             indirect_desc=False),
        Disk("slow", "null", 64 * MIB, queues=2, queue_size=16,
             indirect_desc=False, latency_ns=3_000_000),
        Disk("null", "null", 64 * MIB, queues=4),
        Disk("thin", "raw", 64 * MIB, queues=2, max_discard_sectors=2048,
             max_write_zeroes_sectors=4096),
        Disk("logged", "ram", 64 * MIB, queues=1, filters=[log.node]),
        Disk("through", "ram", 16 * MIB, queues=1, write_cache="off",
             config_wce=False),
    ]
    with Guest(kernel, disks=disks) as guest:
        guest.write_log = log
        yield guest


def device(guest, id):
    return f"/dev/{guest.dev(id)}"


def quota(guest, size):
    """Return how much I/O to do: less on a debug kernel, where I/O is slower."""
    return size // 4 if guest.kernel.name.endswith("debug") else size


def queue_file(guest, id, name):
    return f"/sys/block/{guest.dev(id)}/queue/{name}"


def verified(guest, filename, **options):
    """Write, read back and compare, a backlog of blocks at a time."""
    return fio.run(guest, filename, **{
        "rw": "randwrite", "verify": "crc32c", "verify_fatal": 1,
        "verify_backlog": 64, "iodepth": 32, **options})


# The whole disk, raw

@short
@pytest.mark.parametrize("id,bs", tier.usual(
    [(id, bs) for bs in ("4k", "64k", "1m", "4m") for id in ("sector", "page")],
    [("sector", "4k"), ("page", "64k"), ("sector", "1m"), ("page", "4m")]))
def test_raw_data_by_request_size(guest, id, bs):
    """Data of each request size reads back unchanged, on both block sizes."""
    size = quota(guest, {"4k": 4, "64k": 16, "1m": 48, "4m": 64}[bs] * MIB)
    report = verified(guest, device(guest, id), bs=bs, size=size, iodepth=8)
    assert fio.ios(report, "write") * fio_bytes(bs) == size


def fio_bytes(bs):
    return int(bs[:-1]) * {"k": 1024, "m": MIB}[bs[-1]]


def test_smallest_requests(guest):
    """A disk with blocks of 512 bytes takes requests of 512 bytes."""
    verified(guest, device(guest, "sector"), bs="512", size=MIB)


@pytest.mark.parametrize("id,size", [("wide", 2040 << 10),
                                     ("packed", 504 << 10)])
def test_large_requests_stay_whole(guest, id, size):
    """510 scattered pages are one request on a ring of 512.

    A packed ring of 1024 takes 126: the driver uses it without indirect descriptors.
    """
    guest.run(f"echo 4096 > {queue_file(guest, id, 'max_sectors_kb')}")
    backend = Backend(guest, id)
    before, merged = backend.count("wr_operations", "wr_merged")
    fio.run(guest, device(guest, id), rw="write", bs=size, size=16 * size,
            iodepth=1, iomem=full_ring.memory(guest, size))
    after, merged_after = backend.count("wr_operations", "wr_merged")
    # QEMU merged no requests itself.
    assert merged_after == merged
    assert after - before == 16


def _stamp(first, sectors):
    """Return sectors that each hold their own number, many times."""
    return b"".join(number.to_bytes(8, "little") * 64
                    for number in range(first, first + sectors))


@pytest.mark.quick
@short
@pytest.mark.parametrize("id", ["sector", "page"])
def test_each_sector_is_in_its_place(guest, id):
    """Guest and host read each other's data at the same offsets.

    A driver whose writes and reads are off by the same number of sectors passes any
    test from within the guest.
    """
    disk, backend = device(guest, id), Backend(guest, id)
    places = [(0, 8 * MIB, "4M"), (100 * MIB, MIB, "4k"),
              (383 * MIB, MIB, "1M")]
    for place, size, bs in places:
        data = _stamp(place // 512, size // 512)
        backend.write(place, data)
        output = guest.run(f"dd if={disk} iflag=direct,skip_bytes,count_bytes "
                           f"bs={bs} skip={place} count={size} status=none "
                           "| sha256sum").output
        assert output.split()[0] == hashlib.sha256(data).hexdigest(), place

    output = guest.run("dd if=/dev/urandom of=/tmp/noise bs=1M count=8 "
                       "status=none; sha256sum /tmp/noise").output
    for place, size, bs in places:
        around = backend.read(place + size, MIB)
        guest.run(f"dd if=/tmp/noise of={disk} oflag=direct,seek_bytes "
                  f"iflag=count_bytes bs={bs} seek={place} count={size} "
                  "conv=notrunc status=none")
        if size == 8 * MIB:
            assert hashlib.sha256(backend.read(place, size)).hexdigest() == \
                output.split()[0]
        else:
            assert backend.read(place, size) == backend.read(0, size)
        assert backend.read(place + size, MIB) == around
    guest.run("rm /tmp/noise")


# Full rings

@short
@pytest.mark.parametrize("id", tier.usual(("narrow", "full"), ["full"]))
def test_more_than_the_ring_holds(guest, id):
    """Requests of mixed sizes, 64 deep on each CPU, pass rings of 8 and 16.

    "narrow" has indirect descriptors, so that its 8 tags run out.  "full" has none:
    its ring fills up with requests of several segments.
    """
    size = quota(guest, 8 * MIB)
    verified(guest, device(guest, id), size=size, offset_increment=16 * MIB,
             numjobs=4, bssplit="4k/50:8k/20:64k/20:256k/5:1m/5", iodepth=64,
             cpus_allowed="0-3", cpus_allowed_policy="split")


@with_debug
@pytest.mark.parametrize("id", ["direct", "packed"])
def test_large_ring_that_is_full(guest, id):
    """Data is correct while 32 requests of 31 segments fill a ring of 1024."""
    if guest.kernel.prepared and id == "packed":
        pytest.skip("with prepared requests each takes one descriptor")
    requests = {"bs": 31 * 4096, "iodepth": 64, "iodepth_batch": 32}
    with full_ring.expected(guest, id):
        runs = [fio.start(guest, device(guest, id), rw="randwrite", size="8m",
                          offset=cpu * 16 * MIB, cpus_allowed=cpu,
                          verify="crc32c", verify_fatal=1, **requests,
                          iomem=full_ring.memory(guest, 64 * 31 * 4096))
                for cpu in (0, 3)]
        for run in runs:
            assert fio.ios(run.wait(), "write") == 8 * MIB // (31 * 4096)


# Direct writes of 14 pieces of memory with a gap after each: they cannot be merged, and
# so take 14 segments and 16 descriptors.
_PIECES = r"""
use Fcntl;
sysopen F, $ARGV[0], O_RDWR | 040000 or die "$ARGV[0]: $!";
my $memory = "x" x 65536;
my $start = (unpack("Q", pack("P", $memory)) + 511) & ~511;
my $iov = pack("Q*", map { $start + 1024 * $_, 512 } 0 .. 13);
for (1 .. $ARGV[1]) {
    sysseek F, 0, 0;
    syscall(20, fileno F, $iov, 14) == 14 * 512 or die "writev: $!";
}
"""


@pytest.mark.kernels("6.12", full=("7.3-debug",))
def test_full_ring_stops_its_own_queue_only(guest):
    """A full ring stops its own queue, and another queue goes on.

    The device is slow, so that one request fills the ring of the first queue nearly
    always and others must wait; all of them complete.  The second queue has two
    requests of one segment at a time.
    """
    name = guest.dev("slow")
    first, second = (counters.of_queue(guest, "slow", number)["cpus"]
                     for number in (0, 1))
    guest.put(_PIECES.encode(), "/tmp/pieces")
    before = [counters.of_queue(guest, "slow", number) for number in (0, 1)]
    neighbour = fio.start(guest, f"/dev/{name}", rw="randread", bs="4k",
                          iodepth=2, cpus_allowed=second, time_based=1,
                          runtime=4)
    guest.run("for n in 1 2 3 4; do "
              f"taskset -c {first} perl /tmp/pieces /dev/{name} 300 || "
              "touch /tmp/failed & done; wait; [ ! -e /tmp/failed ]",
              timeout=120)
    neighbour.wait()
    after = [counters.of_queue(guest, "slow", number) for number in (0, 1)]
    assert after[0]["ring_full"] > before[0]["ring_full"]
    assert after[1]["ring_full"] == before[1]["ring_full"]
    assert after[1]["reads"] > before[1]["reads"]


@with_debug
def test_all_cpus_while_another_disk_is_busy(guest):
    """Data of all CPUs is correct while one of them keeps another disk busy."""
    busy = fio.start(guest, device(guest, "null"), rw="randread", bs="4k",
                     size="64m", iodepth=128, cpus_allowed="3",
                     time_based=1, runtime=300)
    try:
        verified(guest, device(guest, "sector"), bssplit="4k/70:64k/30",
                 size=quota(guest, 8 * MIB), offset_increment=64 * MIB,
                 numjobs=4, cpus_allowed="0-3", cpus_allowed_policy="split")
        assert busy.running
    finally:
        busy.kill()
        with pytest.raises((CommandTimeout, fio.FioError)):
            busy.wait()


# File systems

_MAKE = {"ext4": "mkfs.ext4 -q -F", "xfs": "mkfs.xfs -q -f"}
_CHECK = {"ext4": "e2fsck -fn", "xfs": "xfs_repair -n"}
_WAYS = {
    "buffered": {"ioengine": "psync", "direct": 0, "bs": "16k", "iodepth": 1},
    "mapped": {"ioengine": "mmap", "direct": 0, "bs": "4k", "iodepth": 1},
    "direct": {"ioengine": "libaio", "direct": 1, "bs": "64k", "iodepth": 16},
}


def _use_file_system(guest, kind, id):
    disk = device(guest, id)
    size = quota(guest, 8 * MIB)

    def each_way(**options):
        runs = [fio.start(guest, f"/mnt/{way}", rw="randwrite", size=size,
                          verify="crc32c", fallocate="none", **how, **options)
                for way, how in _WAYS.items()]
        for run in runs:
            run.wait()

    if not guest.has_file_system(kind):
        pytest.skip(f"this kernel has no {kind}")
    guest.run(f"{_MAKE[kind]} {disk} && mount -t {kind} {disk} /mnt")
    try:
        each_way(do_verify=0, end_fsync=1)
        guest.run("mkdir /mnt/etc && cp -a /etc /mnt/etc && umount /mnt")
        guest.run(f"{_CHECK[kind]} {disk} && mount -t {kind} {disk} /mnt")
        each_way(verify_only=1)
        guest.run("diff -r --no-dereference /etc /mnt/etc/etc")
    finally:
        guest.run("umount /mnt")


@pytest.mark.kernels("6.12", full=("6.1", "7.3-debug"))
@pytest.mark.parametrize("kind,id", tier.usual(
    (("ext4", "page"), ("xfs", "sector")), [("ext4", "page")]))
def test_file_system_after_remount(guest, kind, id):
    """Buffered, mapped and direct writes are intact after the next mount."""
    _use_file_system(guest, kind, id)


@pytest.mark.full
@pytest.mark.parametrize("kind,id", [("ext4", "sector"), ("xfs", "page")])
def test_file_system_on_other_blocks(guest, kind, id):
    """Writes are intact after the next mount, with the other logical block size."""
    _use_file_system(guest, kind, id)


# Discard and write zeroes

_FILL = b"\xa5" * MIB
# Metadata that the host's file system may add for a file with holes.
_METADATA = 256 * 1024


def _filled(guest, id, size):
    """Return the backend of a disk, filled."""
    backend = Backend(guest, id)
    guest.run(f"blockdev --flushbufs {device(guest, id)}")
    for place in range(0, size, MIB):
        backend.write(place, _FILL)
    return backend


def _assert_zeroed(backend, size, start, end):
    """Assert that the range reads as zeroes, and all other data is unchanged."""
    for place in range(0, size, MIB):
        inside = start <= place < end
        assert backend.read(place, MIB) == (bytes(MIB) if inside else _FILL), \
            f"at {place // MIB} MiB"


@short
def test_discard_frees_its_range(guest):
    """A discard frees exactly its range, in requests of the device's maximum size."""
    backend = _filled(guest, "thin", 64 * MIB)
    counters = ("discard-nb-ok", "discard-bytes-ok", "discard-nb-failed",
                "wr_operations")
    before = backend.count(*counters)
    held = backend.allocated()
    guest.run(f"blkdiscard -o {8 * MIB} -l {16 * MIB} {device(guest, 'thin')}")
    after = backend.count(*counters)
    # The device takes 1 MiB at a time.
    assert [b - a for a, b in zip(before, after)] == [16, 16 * MIB, 0, 0]
    assert abs(backend.allocated() - (held - 16 * MIB)) <= _METADATA
    _assert_zeroed(backend, 64 * MIB, 8 * MIB, 24 * MIB)


@short
@pytest.mark.parametrize("command,unmaps", [
    ("fallocate -z", False), ("blkdiscard -z", False), ("fallocate -p", True)])
def test_write_zeroes_by_the_device(guest, command, unmaps):
    """The device writes the zeroes, and frees space only if the request allows it."""
    backend = _filled(guest, "thin", 64 * MIB)
    counters = ("wr_operations", "wr_bytes", "discard-nb-ok")
    before = backend.count(*counters)
    held = backend.allocated()
    guest.run(f"{command} -o {4 * MIB} -l {16 * MIB} {device(guest, 'thin')}")
    after = backend.count(*counters)
    # 2 MiB at a time; pages of zeroes from the block layer would be more requests.
    assert [b - a for a, b in zip(before, after)] == [8, 16 * MIB, 0]
    freed = 16 * MIB if unmaps else 0
    assert abs(backend.allocated() - (held - freed)) <= _METADATA
    _assert_zeroed(backend, 64 * MIB, 4 * MIB, 20 * MIB)


@with_debug
def test_trim_of_a_file_system(guest):
    """fstrim frees the space of deleted files, and does not affect other files."""
    disk, backend = device(guest, "thin"), Backend(guest, "thin")
    guest.run(f"mkfs.ext4 -q -F {disk} && mount {disk} /mnt")
    try:
        # Many pieces of free space: fstrim discards each one.
        guest.run("cd /mnt && for i in $(seq 100); do "
                  "dd if=/dev/urandom of=$i bs=256k count=1 status=none; done; "
                  "sync; fstrim /mnt; sha256sum $(seq 1 2 100) > sums; "
                  "rm $(seq 2 2 100); sync")
        held = backend.allocated()
        (pieces,) = backend.count("discard-nb-ok")
        guest.run("fstrim /mnt && cd /mnt && sync && "
                  "echo 3 > /proc/sys/vm/drop_caches && sha256sum -c sums")
        assert backend.allocated() <= held - 50 * 256 * 1024 * 9 // 10
        assert backend.count("discard-nb-ok") >= (pieces + 10,)
    finally:
        guest.run("umount /mnt")
    guest.run(f"e2fsck -fn {disk}")


# Flushes

def _entries(guest, command):
    """Return the requests that a command makes to the backend of the disk "logged"."""
    seen = len(guest.write_log.entries())
    guest.run(command)
    return guest.write_log.entries()[seen:]


def _kinds(entries):
    """Return a letter for each entry of the log: a write, or a flush."""
    return "".join("F" if "flush" in flags else "W" for flags, _, _ in entries)


def _write(guest, id, flags="", conv=""):
    return (f"dd if=/dev/zero of={device(guest, id)} bs=4k count=4 seek=16 "
            f"status=none oflag=direct{flags} conv=notrunc{conv}")


@with_debug
def test_flush_with_a_volatile_cache(guest):
    """fsync sends one flush, after the writes; without fsync there is none."""
    backend = Backend(guest, "logged")
    assert guest.sysfs(queue_file(guest, "logged", "write_cache")) == \
        "write back"
    start = backend.count("flush_operations")[0]
    done = _entries(guest, _write(guest, "logged"))
    assert done == [(set(), 128 + 8 * n, 8) for n in range(4)]
    assert backend.count("flush_operations")[0] == start

    done = _entries(guest, _write(guest, "logged", conv=",fsync"))
    assert done == [*((set(), 128 + 8 * n, 8) for n in range(4)),
                    ({"flush"}, 0, 0)]
    assert backend.count("flush_operations")[0] == start + 1


@with_debug
def test_fua_becomes_a_flush(guest):
    """A flush follows each synchronous write before the next one.

    virtio-blk has no FUA: the block layer flushes instead, if the driver does not
    offer FUA.
    """
    backend = Backend(guest, "logged")
    assert guest.sysfs(queue_file(guest, "logged", "fua")) == "0"
    start = backend.count("flush_operations")[0]
    done = _entries(guest, _write(guest, "logged", flags=",dsync"))
    assert _kinds(done) == "WF" * 4
    # One for FUA itself, one because dd's file is synchronous; QEMU passes
    # the second one on only if something was written in between.
    assert backend.count("flush_operations")[0] == start + 8


@with_debug
def test_no_flush_without_a_volatile_cache(guest):
    """A write-through device receives no flush."""
    backend = Backend(guest, "through")
    assert guest.sysfs(queue_file(guest, "through", "write_cache")) == \
        "write through"
    start = backend.count("flush_operations", "wr_operations")
    guest.run(_write(guest, "through", conv=",fsync"))
    guest.run(_write(guest, "through", flags=",dsync"))
    assert backend.count("flush_operations", "wr_operations") == \
        (start[0], start[1] + 8)


@with_debug
def test_changing_the_cache_mode(guest):
    """The mode written to cache_type reaches the device and the block layer."""
    name = guest.dev("logged")
    backend = Backend(guest, "logged")
    cache_type = f"/sys/block/{name}/cache_type"
    start = backend.count("flush_operations")[0]
    guest.run(f"echo write through > {cache_type}")
    try:
        assert guest.sysfs(queue_file(guest, "logged", "write_cache")) == \
            "write through"
        # The change flushes the cache, and nothing flushes after it.
        assert backend.count("flush_operations")[0] == start + 1
        done = _entries(guest, _write(guest, "logged", conv=",fsync"))
        # The flushes after single writes are QEMU's own, not the guest's.
        assert "FW" in _kinds(done)
        assert backend.count("flush_operations")[0] == start + 1
    finally:
        guest.run(f"echo write back > {cache_type}")
    # The driver flushes what was written while the mode changed.
    assert backend.count("flush_operations")[0] == start + 2
    done = _entries(guest, _write(guest, "logged", conv=",fsync"))
    assert _kinds(done) == "WWWWF"
    assert backend.count("flush_operations")[0] == start + 3
