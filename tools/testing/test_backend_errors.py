# SPDX-License-Identifier: GPL-2.0
"""The host cannot read, write, flush, discard: what becomes of it in the guest.

QEMU's filter blkdebug makes the errors.  virtio-blk has one status for all that
goes wrong at the host (VIRTIO_BLK_S_IOERR), so that an application is told EIO even
where the host had ENOSPC.
"""

import pytest

import fio
from backend import Backend
from fio import FioError
from vm.disk import Disk
from vm.guest import Guest

MIB = 1 << 20
SECTOR = 512
BLOCK = 4096
EIO, ENOSPC = 5, 28

# Where reads, writes, discards and writes of zeroes fail, each time.
BAD = 32 * MIB
# Of four jobs with 16 MiB each, the one whose reads and writes fail.
BAD_JOB = BAD // (16 * MIB)


def failing(iotype, errno=EIO, offset=BAD, once=False):
    """Return blkdebug's rule by which an offset fails; None for any."""
    return {"event": "none", "iotype": iotype, "errno": errno, "once": once,
            **({} if offset is None else {"sector": offset // SECTOR})}


def disk(id, rules, **options):
    """Return a disk that has faults."""
    # Merged by QEMU, requests would fail that are next to those.
    return Disk(id, "ram", 64 * MIB, queues=4, request_merging=False,
                filters=[{"driver": "blkdebug", "discard": "unmap",
                          "inject-error": rules}], **options)


DISKS = (
    disk("bad", [failing(kind) for kind in
                 ("read", "write", "discard", "write-zeroes")]),
    # Left to itself QEMU stops the guest when the host has no space.
    disk("full", [failing("write", ENOSPC)], werror="report"),
    # Each time that QEMU goes on the next of these is in its way.
    disk("stops", [failing("write", ENOSPC, once=True) for _ in range(3)],
         werror="enospc"),
    disk("waits", [failing(kind, once=True) for kind in
                   ("read", "write", "discard", "write-zeroes")],
         rerror="stop", werror="stop"),
)


@pytest.fixture(scope="module")
def guest(kernel):
    with Guest(kernel, disks=DISKS) as guest:
        guest.tolerate("I/O error, dev vd|Buffer I/O error|lost async page write")
        # Of more than ten errors in 5 s the kernel would not tell.
        guest.run("echo 0 > /proc/sys/kernel/printk_ratelimit")
        yield guest


@pytest.fixture
def flush_disk(guest, request):
    """A disk whose first flush fails; QEMU flushes all disks when it stops."""
    added = disk("flush", [failing("flush", offset=None, once=True)],
                 **request.param)
    guest.add_disk(added)
    yield added.id
    guest.remove_disk(added.id)


def device(guest, id):
    return f"/dev/{guest.dev(id)}"


def command(guest, id, what, offset):
    """Return a shell command that has the block layer do something at a place."""
    path = device(guest, id)
    area = f"-o {offset} -l {BLOCK}"
    return {
        "read": f"dd if={path} of=/dev/null bs=4k skip={offset // BLOCK} count=1 "
                "iflag=direct status=none",
        "write": f"dd if=/dev/urandom of={path} bs=4k seek={offset // BLOCK} "
                 "count=1 oflag=direct status=none",
        "buffered write": f"dd if=/dev/urandom of={path} bs=4k "
                          f"seek={offset // BLOCK} count=1 conv=notrunc,fsync "
                          "status=none",
        "flush": f"dd if=/dev/urandom of={path} bs=4k seek={offset // BLOCK} "
                 "count=1 oflag=direct conv=notrunc,fsync status=none",
        "discard": f"blkdiscard {area} {path}",
        "write zeroes": f"fallocate -z {area} {path}",
        "punch hole": f"fallocate -p {area} {path}",
    }[what]


def assert_fails(guest, id, what, offset):
    """Something fails, with EIO, and the same next to it does not."""
    result = guest.run(command(guest, id, what, offset), check=False)
    assert result.status and "Input/output error" in result.output, result
    guest.run(command(guest, id, what, offset + MIB))


@pytest.mark.parametrize("what", ["read", "write", "buffered write", "discard",
                                  "write zeroes", "punch hole"])
def test_error(guest, what):
    """EIO at the host is EIO in the guest, and what comes next is unharmed."""
    assert_fails(guest, "bad", what, BAD)


@pytest.mark.parametrize("flush_disk", [{}], indirect=True)
def test_flush_error(guest, flush_disk):
    """A flush that fails fails fsync, once; the next one is as good as any."""
    assert_fails(guest, flush_disk, "flush", BAD)


def test_no_space(guest):
    """The host's ENOSPC has no word in virtio-blk: it is an I/O error, EIO."""
    assert_fails(guest, "full", "write", BAD)


def test_the_block_layer_reads_again(guest):
    """A page that cannot be read spoils none of those that are read with it.

    What is read ahead is one request, and fails as a whole; the block layer
    then reads each page that somebody wants.
    """
    backend = Backend(guest, "bad")
    start, size = BAD - 64 * BLOCK, 128 * BLOCK
    data = b"".join(number.to_bytes(8, "little") * (BLOCK // 8)
                    for number in range(size // BLOCK))
    backend.write(start, data)
    path = device(guest, "bad")
    (before,) = backend.count("failed_rd_operations")
    guest.run(f"blockdev --flushbufs --setra 256 {path}; "
              f"dd if={path} of=/tmp/read bs=4k skip={start // BLOCK} "
              f"count={size // BLOCK} conv=noerror,sync status=none; true")
    said = guest.run("for page in $(seq 0 127); do "
                     "od -An -tu8 -N8 -j $((page * 4096)) /tmp/read; done").output
    # dd leaves a page of zeroes in the place of the bad one.
    wanted = list(range(size // BLOCK))
    wanted[64] = 0
    assert [int(word) for word in said.split()] == wanted
    (after,) = backend.count("failed_rd_operations")
    assert after - before >= 2


@pytest.mark.parametrize("rw", ["randwrite", "randread"])
def test_others_are_unharmed(guest, rw):
    """Of four jobs on four queues the one with a bad block fails, and no other."""
    path = device(guest, "bad")
    verified = {"bs": "4k", "size": "4m", "verify": "crc32c", "iodepth": 32}
    # There have to be blocks to read; the bad one is not among them.
    jobs = [number * 16 * MIB for number in range(4)]
    if rw == "randread":
        for start in jobs:
            offset = start + BLOCK if start == BAD else start
            fio.run(guest, path, **{**verified, "size": 4 * MIB - BLOCK},
                    rw="randwrite", offset=offset, do_verify=0)
    runs = [fio.start(guest, path, rw=rw, offset=start, cpus_allowed=number,
                      **verified, verify_fatal=1)
            for number, start in enumerate(jobs)]
    for number, run in enumerate(runs):
        if number == BAD_JOB:
            with pytest.raises(FioError, match="Input/output error"):
                run.wait()
        else:
            assert fio.ios(run.wait()) >= 4 * MIB // BLOCK - 1


# QEMU stops the guest

def go_on(guest, id, operation, errors):
    """Have QEMU stop and go on as often as there are errors."""
    for _ in range(errors):
        assert guest.wait_event("BLOCK_IO_ERROR", 30, action="stop",
                                operation=operation, **{"node-name": id})
        assert guest.wait_event("STOP", 10)
        assert guest.qmp("query-status")["status"] == "io-error"
        guest.qmp("cont")
        assert guest.wait_event("RESUME", 10)


def test_stop_and_resume_without_space(guest):
    """Writes for which the host has no space wait until it has, under load.

    Four jobs write, verified.  The guest is stopped three times, and no error
    reaches an application.
    """
    running = fio.start(guest, device(guest, "stops"), rw="write", bs="4k",
                        numjobs=4, offset=BAD - 2 * MIB, offset_increment="4m",
                        size="3m", verify="crc32c", verify_fatal=1, iodepth=16)
    go_on(guest, "stops", "write", 3)
    assert fio.ios(running.wait(), "write") == 4 * 3 * MIB // BLOCK
    stats = Backend(guest, "stops").stats()
    assert stats["failed_wr_operations"] == 0


@pytest.mark.parametrize("what,operation", [
    ("read", "read"), ("write", "write"), ("discard", "write"),
    ("write zeroes", "write")])
def test_stop_and_resume(guest, what, operation):
    """Whatever failed is done once the guest goes on, and was no error to it."""
    running = guest.start(command(guest, "waits", what, BAD))
    go_on(guest, "waits", operation, 1)
    running.wait()


@pytest.mark.parametrize("flush_disk", [{"werror": "stop"}], indirect=True)
def test_stop_and_resume_flush(guest, flush_disk):
    """So is a flush."""
    running = guest.start(command(guest, flush_disk, "flush", BAD))
    go_on(guest, flush_disk, "write", 1)
    running.wait()
