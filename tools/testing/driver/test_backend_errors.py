# SPDX-License-Identifier: GPL-2.0
"""Errors of the host's reads, writes, flushes and discards, as the guest sees them.

QEMU's filter blkdebug injects the errors.  virtio-blk has one status for all errors of
the host (VIRTIO_BLK_S_IOERR), so that an application gets EIO even where the host had
ENOSPC.
"""

import pytest

from common import fio
from common.backend import Backend
from common.fio import FioError
from vm.disk import Disk
from vm.guest import Guest

MIB = 1 << 20
SECTOR = 512
BLOCK = 4096
EIO, ENOSPC = 5, 28

# At this offset reads, writes, discards and writes of zeroes always fail.
BAD = 32 * MIB
# The one of four jobs with 16 MiB each whose reads and writes fail.
BAD_JOB = BAD // (16 * MIB)


def failing(iotype, errno=EIO, offset=BAD, once=False):
    """Return blkdebug's rule that fails requests at an offset, or all if it is None."""
    return {"event": "none", "iotype": iotype, "errno": errno, "once": once,
            **({} if offset is None else {"sector": offset // SECTOR})}


def disk(id, rules, **options):
    """Return a disk with rules of blkdebug."""
    # If QEMU merged requests, those next to a bad one would fail, too.
    return Disk(id, "ram", 64 * MIB, queues=4, request_merging=False,
                filters=[{"driver": "blkdebug", "discard": "unmap",
                          "inject-error": rules}], **options)


DISKS = (
    disk("bad", [failing(kind) for kind in
                 ("read", "write", "discard", "write-zeroes")]),
    # By default QEMU stops the guest on ENOSPC.
    disk("full", [failing("write", ENOSPC)], werror="report"),
    # Each time that QEMU resumes, the next of these rules stops it again.
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
        # Otherwise the kernel logs no more than ten errors in 5 s.
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
    """Return a shell command that makes a kind of request at an offset."""
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
    """A request at an offset fails with EIO, and the same 1 MiB further on does not."""
    result = guest.run(command(guest, id, what, offset), check=False)
    assert result.status and "Input/output error" in result.output, result
    guest.run(command(guest, id, what, offset + MIB))


@pytest.mark.parametrize("what", ["read", "write", "buffered write", "discard",
                                  "write zeroes", "punch hole"])
def test_host_error_is_eio(guest, what):
    """EIO at the host is EIO in the guest, and the next request succeeds."""
    assert_fails(guest, "bad", what, BAD)


@pytest.mark.parametrize("flush_disk", [{}], indirect=True)
def test_flush_error(guest, flush_disk):
    """A failed flush fails one fsync, and the next fsync succeeds."""
    assert_fails(guest, flush_disk, "flush", BAD)


def test_no_space(guest):
    """ENOSPC at the host is EIO in the guest: virtio-blk has no status for it."""
    assert_fails(guest, "full", "write", BAD)


def test_the_block_layer_reads_again(guest):
    """An unreadable page does not affect the pages that are read ahead with it.

    Readahead is one request, which fails as a whole; the block layer then reads
    each requested page again.
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
    output = guest.run("for page in $(seq 0 127); do "
                       "od -An -tu8 -N8 -j $((page * 4096)) /tmp/read; done").output
    # dd writes a page of zeroes in place of the bad one.
    expected = list(range(size // BLOCK))
    expected[64] = 0
    assert [int(word) for word in output.split()] == expected
    (after,) = backend.count("failed_rd_operations")
    assert after - before >= 2


@pytest.mark.parametrize("rw", ["randwrite", "randread"])
def test_others_are_unharmed(guest, rw):
    """The job with a bad block fails, and the three jobs on other queues do not."""
    path = device(guest, "bad")
    verified = {"bs": "4k", "size": "4m", "verify": "crc32c", "iodepth": 32}
    # Write the blocks to read, except the bad one.
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

def resume_after(guest, id, operation, errors):
    """For each of so many errors wait until QEMU stops the guest, and resume it."""
    for _ in range(errors):
        assert guest.wait_event("BLOCK_IO_ERROR", 30, action="stop",
                                operation=operation, **{"node-name": id})
        assert guest.wait_event("STOP", 10)
        assert guest.qmp("query-status")["status"] == "io-error"
        guest.qmp("cont")
        assert guest.wait_event("RESUME", 10)


def test_stop_and_resume_without_space(guest):
    """Writes wait while the host has no space, and no error reaches an application.

    Four jobs write and verify, while QEMU stops the guest three times.
    """
    running = fio.start(guest, device(guest, "stops"), rw="write", bs="4k",
                        numjobs=4, offset=BAD - 2 * MIB, offset_increment="4m",
                        size="3m", verify="crc32c", verify_fatal=1, iodepth=16)
    resume_after(guest, "stops", "write", 3)
    assert fio.ios(running.wait(), "write") == 4 * 3 * MIB // BLOCK
    stats = Backend(guest, "stops").stats()
    assert stats["failed_wr_operations"] == 0


@pytest.mark.parametrize("what,operation", [
    ("read", "read"), ("write", "write"), ("discard", "write"),
    ("write zeroes", "write")])
def test_stop_and_resume(guest, what, operation):
    """A failed request completes when QEMU resumes, and the guest sees no error."""
    running = guest.start(command(guest, "waits", what, BAD))
    resume_after(guest, "waits", operation, 1)
    running.wait()


@pytest.mark.parametrize("flush_disk", [{"werror": "stop"}], indirect=True)
def test_stop_and_resume_flush(guest, flush_disk):
    """A failed flush completes when QEMU resumes, and the guest sees no error."""
    running = guest.start(command(guest, flush_disk, "flush", BAD))
    resume_after(guest, flush_disk, "write", 1)
    running.wait()
