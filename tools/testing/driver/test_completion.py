# SPDX-License-Identifier: GPL-2.0
"""Requests that complete many at a time: each completes once, with the right status.

The tests expose disks whose requests complete in bursts to conditions in which a
driver or the block layer may lose a request: schedulers, tags that run out,
completions for other CPUs, errors inside a burst, flushes, polling, a full ring.
After each test no request is in flight, no tag is allocated, and no task waits for a
tag.

Linux 6.3 gave the in-tree driver completion of requests in batches, and then reverted
it: fio hung at its end, after the device had completed all requests.  The cause may be
readers that sleep for tags (test_more_readers_than_tags), or a request that a full
ring refused (test_full_ring_at_the_end).
"""

import contextlib
import os
import re

import pytest

from common import fio, full_ring, topology, vblksim
from common.backend import Backend
from common.vblksim import Sim
from host import process
from testing import tier
from vm.disk import Disk
from vm.errors import CommandTimeout
from vm.guest import Guest

MIB = 1 << 20
BLOCK = 4096
SECTOR = 512
EIO = 5

pytestmark = pytest.mark.kernels("6.12", full=("6.1", "7.3", "7.3-debug"))

SCHEDULERS = ("none", "mq-deadline", "bfq", "kyber")
EVERYWHERE = {"numjobs": 4, "cpus_allowed": "0-3",
              "cpus_allowed_policy": "split"}

# Sectors that cannot be read, and others that cannot be written.  They are few, because
# the kernel logs no more than ten errors in 5 s.
UNREADABLE = ((2 * MIB + 40960) // SECTOR, (2 * MIB + 45056) // SECTOR)
UNWRITABLE = (9 * MIB // SECTOR, (12 * MIB - BLOCK) // SECTOR)


def failing(iotype, sectors):
    """Return blkdebug's rules by which these sectors always fail."""
    return [{"event": "none", "iotype": iotype, "errno": EIO, "sector": sector,
             "once": False} for sector in sectors]


DISKS = (
    # One queue for all CPUs, one for two of them, and one for each.
    {"id": "one", "backend": "ram", "queues": 1},
    {"id": "two", "backend": "ram", "queues": 2},
    {"id": "four", "backend": "ram", "queues": 4, "iothreads": 1},
    # 16 descriptors: two requests of 16 KiB, or 5 of 4 KiB.
    {"id": "narrow", "backend": "ram", "queues": 2, "queue_size": 16,
     "indirect_desc": False},
    # If QEMU merged requests, those next to a bad one would fail, too.
    {"id": "faulty", "backend": "ram", "queues": 2, "request_merging": False,
     "filters": [
        {"driver": "blkdebug", "inject-error": failing("read", UNREADABLE)
         + failing("write", UNWRITABLE)}]},
    # Requests that are sent within one millisecond complete together.
    {"id": "burst1", "backend": "null", "queues": 1, "latency_ns": 1_000_000},
    {"id": "burst4", "backend": "null", "queues": 4, "latency_ns": 1_000_000},
    {"id": "fewtags", "backend": "null", "queues": 2, "queue_size": 16,
     "latency_ns": 20_000_000},
)


@pytest.fixture(scope="module")
def booted(kernel):
    with Guest(kernel,
               disks=[Disk(size=64 * MIB, **disk) for disk in DISKS]) as guest:
        guest.run("modprobe -a bfq kyber-iosched mq-deadline 2>/dev/null; true")
        leave_schedulers(guest)
        yield guest


@pytest.fixture
def guest(booted):
    """The guest; after the test each of its disks must be at rest."""
    yield booted
    assert_at_rest(booted)


def device(guest, id):
    return f"/dev/{guest.dev(id)}"


def set_queue(guest, id, **settings):
    """Write to files in a disk's queue directory."""
    guest.run("".join(f"echo {value} > /sys/block/{guest.dev(id)}/queue/{name};"
                      for name, value in settings.items()))


def leave_schedulers(guest):
    """Set the scheduler of all disks to none."""
    guest.run("for disk in /sys/block/vd*; do "
              "echo none > $disk/queue/scheduler; done")


# All files that show whether a disk has requests left.  debugfs has the busy tags of
# each queue and its tasks that wait for a tag (ws_active).
_LEFT = """
cd /sys/kernel/debug/block
grep -HE . /sys/block/vd*/inflight vd*/hctx*/dispatch vd*/hctx*/active \\
    vd*/rqos/wbt/inflight 2> /dev/null
grep -HE '^(busy|ws_active)=|STOPPED' vd*/hctx*/tags vd*/hctx*/sched_tags \\
    vd*/hctx*/state
true
"""
_NOTHING = re.compile(r"\S+/inflight:\s+0\s+0|\S+:(busy|ws_active)=0|"
                      r"\S+/active:0|\S+/wbt/inflight:\d: inflight 0")


def left(guest):
    """Return the lines of _LEFT that show requests or waiters of the guest's disks."""
    lines = guest.run(_LEFT).output.splitlines()
    assert any("busy=" in line for line in lines)
    return [line for line in lines if not _NOTHING.fullmatch(line)]


def assert_at_rest(guest):
    """No request is in flight, no tag allocated, no task waits, no queue is stopped.

    udev reads a disk after its file is closed; these reads get 5 s to end.
    """
    process.wait_for(lambda: not left(guest), 5)
    assert not left(guest)


def few(guest, number):
    """Return how much to do: less on a debug kernel, where I/O is slower."""
    return number // 4 if guest.kernel.name.endswith("debug") else number


def verified(guest, id, **options):
    """Start jobs on all CPUs that write, read back and compare; a Run."""
    return fio.start(guest, device(guest, id), **{
        **EVERYWHERE, "rw": "randwrite", "bs": "4k", "iodepth": 32,
        "size": few(guest, MIB // 2), "offset_increment": "8m",
        "verify": "crc32c", "verify_fatal": 1, "verify_backlog": 64, **options})


def finish(guest, *runs):
    """Wait for runs of verified(); each must have written all of its data."""
    for run in runs:
        assert fio.ios(run.wait(), "write") * BLOCK == 4 * few(guest, MIB // 2)


# Only builtins of the shell, so that it polls often.
_WATCH = """
touch /tmp/watching
seen=0
while [ -e /tmp/watching ]; do
    for file in /sys/kernel/debug/block/{name}/hctx*/tags; do
        while read -r line; do
            case $line in ws_active=[1-9]*) seen=$((seen + 1)) ;; esac
        done < $file
    done
    sleep 0.02
done
echo $seen
"""


@contextlib.contextmanager
def waiting_for_tags(guest, id):
    """Check that in the block tasks wait for a tag of a disk."""
    watch = guest.start(_WATCH.format(name=guest.dev(id)), timeout=180)
    guest.run("until [ -e /tmp/watching ]; do sleep 0.1; done", timeout=30)
    try:
        yield
    finally:
        guest.run("rm -f /tmp/watching")
    assert int(watch.wait().output) > 0, f"no task waited for a tag of {id}"


# Schedulers

@pytest.mark.parametrize("scheduler", tier.usual(SCHEDULERS, ("none", "mq-deadline")))
def test_data_under_each_scheduler(guest, scheduler):
    """Data is correct under each scheduler, with one queue and with one per CPU."""
    for id in ("one", "four"):
        set_queue(guest, id, scheduler=scheduler)
        assert f"[{scheduler}]" in guest.sysfs(
            f"/sys/block/{guest.dev(id)}/queue/scheduler")
    finish(guest, *[verified(guest, id) for id in ("one", "four")])
    leave_schedulers(guest)


def test_switching_schedulers(guest):
    """I/O goes on without error while the scheduler changes under load."""
    load = verified(guest, "two", time_based=1, runtime=2)
    switches = 0
    while load.running:
        for scheduler in SCHEDULERS:
            set_queue(guest, "two", scheduler=scheduler)
            switches += 1
    assert fio.ios(load.wait()) > few(guest, 400) and switches >= 4
    leave_schedulers(guest)


# The CPU that completes a request

@pytest.mark.parametrize("affinity", tier.usual((0, 2), [2]))
def test_rq_affinity(guest, affinity):
    """Data is correct when requests complete on the interrupt's CPU, or on their own.

    0 completes them where the interrupt is, so that one burst has requests of several
    CPUs; 2 completes each on the CPU that submitted it.
    """
    ids = ("one", "two", "four")
    for id in ids:
        set_queue(guest, id, rq_affinity=affinity)
    finish(guest, *[verified(guest, id) for id in ids])
    for id in ids:
        set_queue(guest, id, rq_affinity=1)


# Bursts

def read_all(guest, id, ios, **options):
    """Read ios blocks in each of some jobs; return how many blocks that is.

    The counts of fio and of the block layer must agree on it.
    """
    def accounted():
        reads, merged = guest.sysfs(f"/sys/block/{name}/stat").split()[:2]
        return int(reads) + int(merged)

    name = guest.dev(id)
    options = {**EVERYWHERE, "iodepth": 32, **options}
    expected = ios * options["numjobs"]
    before = accounted()
    report = fio.run(guest, f"/dev/{name}", rw="randread", bs="4k",
                     norandommap=1, size=ios * BLOCK, **options)
    assert fio.ios(report, "read") == expected
    assert accounted() - before == expected
    return expected


@pytest.mark.parametrize("id,affinity", tier.usual(
    (("burst1", 1), ("burst4", 0), ("burst4", 2)), (("burst1", 1), ("burst4", 0))))
def test_reads_counted_in_bursts(guest, id, affinity):
    """All small reads are counted when many complete in one interrupt."""
    set_queue(guest, id, rq_affinity=affinity)
    before = topology.read(guest).disks[id].interrupts.values()
    done = read_all(guest, id, few(guest, 2000), iodepth=64)
    after = topology.read(guest).disks[id].interrupts.values()
    raised = sum(irq.total for irq in after) - sum(irq.total for irq in before)
    assert 0 < raised < done / 2, \
        f"no bursts: {raised} interrupts for {done} reads of {id}"
    set_queue(guest, id, rq_affinity=1)


@pytest.mark.parametrize("jobs,depth", tier.usual(((8, 32), (48, 1)), [(48, 1)]))
def test_more_readers_than_tags(guest, jobs, depth):
    """Each reader that sleeps for a tag is woken, even the last one.

    The test reads several times, because the end of a run is the critical moment: no
    later completion wakes a reader that a batch of freed tags did not wake.
    """
    with waiting_for_tags(guest, "fewtags"):
        for affinity in (0, 2):
            set_queue(guest, "fewtags", rq_affinity=affinity)
            read_all(guest, "fewtags", 960 // jobs, numjobs=jobs,
                     iodepth=depth, iodepth_batch=min(depth, 16),
                     ioengine="psync" if depth == 1 else "libaio")
    set_queue(guest, "fewtags", rq_affinity=1)


@pytest.mark.full
def test_half_a_million_reads(guest):
    """Half a million small reads, and many rounds with too few tags, all complete."""
    for id in ("burst1", "burst4"):
        read_all(guest, id, few(guest, 16_000), numjobs=16, iodepth=128)
    for affinity in (0, 1, 2) * 10:
        set_queue(guest, "fewtags", rq_affinity=affinity)
        read_all(guest, "fewtags", few(guest, 1000), numjobs=8, iodepth=64)


# Errors

def failed_sectors(guest):
    """Return the sectors of the I/O errors in dmesg; the console may lag behind it."""
    return sorted(int(found) for found in re.findall(
        r"I/O error, dev vd\w+, sector (\d+)", guest.run("dmesg").output))


def io_with_errors(guest, id, errors, **options):
    """Run jobs of which so many I/Os must fail with EIO; return their sectors."""
    guest.run("dmesg -C")
    with pytest.raises(fio.FioError) as caught:
        verified(guest, id, size="1m", offset_increment="1m",
                 verify_backlog=None, continue_on_error="io", **options).wait()
    (job,) = caught.value.report["jobs"]
    assert (job["error"], job["total_err"]) == (EIO, errors), caught.value
    return failed_sectors(guest)


@pytest.mark.parametrize("affinity", tier.usual((0, 2), [0]))
def test_errors_in_a_burst(guest, affinity):
    """Requests that the device fails fail, and the others of the burst do not."""
    set_queue(guest, "faulty", rq_affinity=affinity, nomerges=2)
    backend = Backend(guest, "faulty")
    backend.write(0, b"\xa5" * (12 * MIB))
    verified(guest, "faulty", size="1m", offset_increment="1m",
             do_verify=0).wait()
    assert io_with_errors(guest, "faulty", len(UNREADABLE),
                          verify_only=1) == list(UNREADABLE)

    assert io_with_errors(guest, "faulty", len(UNWRITABLE), offset="8m",
                          do_verify=0) == list(UNWRITABLE)
    unwritten = [place // SECTOR for place in range(8 * MIB, 12 * MIB, BLOCK)
                 if backend.read(place, BLOCK) == b"\xa5" * BLOCK]
    assert unwritten == list(UNWRITABLE)


@pytest.mark.kernels("6.12")
def test_passthrough_that_fails(guest):
    """A passthrough request that the device fails returns an error, even in a batch.

    The block layer completes the passthrough requests of a batch without an error,
    whatever their status.
    """
    if guest.kernel.name != "6.12":
        pytest.skip("only 6.12 and 7.3-debug have VDUSE, and lockdep on 7.3-debug "
                    "confuses its disks with QEMU's: test_spec.py has a guest "
                    "without QEMU's")
    vblksim.prepare(guest)
    with Sim(guest, queues=4, script=[
            "on type=get_lifetime every=2: fail ioerr",
            "on type=get_id every=2: fail unsupp"]) as sim:
        name = sim.disk()
        # Complete where the interrupt is, and so in a batch, if the driver has them.
        guest.run(f"echo 0 > /sys/block/{name}/queue/rq_affinity")
        load = fio.start(guest, f"/dev/{name}", rw="randread", bs="4k",
                         iodepth=4, time_based=1, runtime=60, **EVERYWHERE)
        assert process.wait_for(lambda: sim.stats()["requests"] > 500, 30)
        lines = guest.run(
            f"cd /sys/block/{name}; for n in $(seq 8); do "
            "taskset -c $((n % 4)) cat lifetime/est_typ_a 2> /dev/null || "
            "echo error; echo id=$(taskset -c $((n % 4)) cat serial); done"
        ).output.splitlines()
        load.kill()
        with pytest.raises((CommandTimeout, fio.FioError)):
            load.wait()
        assert lines.count("error") == 4, lines
        ids = [line for line in lines if line.startswith("id=")]
        assert sorted(ids) == ["id="] * 4 + [f"id={sim.name}"] * 4
        assert_at_rest(guest)


# Flushes, and other requests that do not complete like reads and writes

def test_flushes_beside_queries(guest, id="two"):
    """Data and serial are correct under flushes, synchronous writes and writeback."""
    def flushes():
        return int(guest.sysfs(f"/sys/block/{name}/stat").split()[15])

    name = guest.dev(id)
    before = flushes()
    runs = [
        verified(guest, id, fsync=8, offset_increment="2m"),
        verified(guest, id, offset="16m", offset_increment="2m", sync=1,
                 iodepth=8, size=few(guest, MIB // 8)),
        verified(guest, id, offset="32m", offset_increment="2m", direct=0,
                 ioengine="psync", iodepth=1, fsync=64, bsrange="4k-64k"),
    ]
    queries = 0
    while any([run.running for run in runs]):
        output = guest.run(f"for n in $(seq 8); do cat /sys/block/{name}/serial; "
                           "echo; done").output.split()
        assert output == [id] * 8
        queries += 8
    for run in runs:
        run.wait()
    assert flushes() - before > 10 and queries >= 16


# Polling

def test_polling_beside_interrupts(guest):
    """Data is correct when one queue of a disk is polled and others interrupt."""
    polled = {"ioengine": "io_uring", "hipri": 1}
    topology.probe_again(guest, poll_queues=1)
    try:
        leave_schedulers(guest)
        set_queue(guest, "four", rq_affinity=0)
        runs = [verified(guest, "four", **polled),
                verified(guest, "four", offset="4m")]
        reads = fio.run(guest, device(guest, "burst4"), rw="randread", bs="4k",
                        size=few(guest, 2 * MIB), **EVERYWHERE, **polled)
        assert fio.ios(reads, "read") == few(guest, 2048)
        finish(guest, *runs)
        assert_at_rest(guest)
    finally:
        topology.probe_again(guest, poll_queues=0)
        leave_schedulers(guest)


# A full ring

def test_full_ring(guest):
    """A full ring stops its queue and starts it again, and no request gets stuck."""
    for affinity in (0, 2):
        set_queue(guest, "narrow", rq_affinity=affinity)
        with full_ring.expected(guest, "narrow"):
            runs = [verified(guest, "narrow", numjobs=1, cpus_allowed=cpu,
                             offset=cpu * 8 * MIB, size=few(guest, 2 * MIB),
                             bssplit="4k/60:16k/40", iodepth_batch=16,
                             iomem=full_ring.memory(guest, 32 * 16384))
                    for cpu in (0, 3)]
            for run in runs:
                assert fio.ios(run.wait(), "write") > few(guest, 128)
    set_queue(guest, "narrow", rq_affinity=1)


_SHORT_RUNS = r"""
for n in $(seq {runs}); do
    timeout -s KILL 20 fio --name=job --thread --filename={path} --direct=1 \
        --ioengine=libaio --iodepth=$((3 + n % 3)) --iodepth_batch=$((1 + n % 5)) \
        --bs=16k --rw=randread --norandommap --size=32m --io_size=1g \
        --number_ios=60 --cpus_allowed=1 --iomem={memory} --output=/run/fio.txt \
        || {{ echo "run $n, status $?"; cat {debugfs}/hctx*/{{state,dispatch}}; }}
done
"""


@pytest.mark.full
def test_full_ring_at_the_end(kernel):
    """The last request that a full ring refuses is sent, though no other follows.

    blk-mq does not rerun the queue at each completion: not at the end of a batch.
    The device completes requests while the guest notifies it, and so before blk-mq has
    put the refused request on its dispatch list.
    """
    disk = Disk("narrow", backend="null", queues=2, queue_size=16,
                indirect_desc=False, ioeventfd=False, size=64 * MIB)
    with Guest(kernel, cpus=2, disks=[disk]) as guest:
        leave_schedulers(guest)
        name = guest.dev("narrow")
        with full_ring.expected(guest, "narrow"):
            failures = guest.run(_SHORT_RUNS.format(
                runs=40 if os.environ.get("FULL") else 15, path=f"/dev/{name}",
                debugfs=f"/sys/kernel/debug/block/{name}",
                memory=full_ring.memory(guest, 8 * 16384)), timeout=300).output
        assert not failures.strip(), failures
        assert_at_rest(guest)
