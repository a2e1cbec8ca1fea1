# SPDX-License-Identifier: GPL-2.0
"""Requests that end many at a time: all of them, once each, and as they should.

Disks whose requests end in bursts are given what makes a driver, or the block
layer behind it, lose one of them: schedulers, tags that run out, completions
for other CPUs, errors in the midst of a burst, flushes, polling, a ring that
fills up.  After each test nothing is left: no request is in flight, no tag is
taken, and nobody waits for one.

Linux 6.3 had a virtio-blk driver that ended requests in batches, and took it
back: fio hung at its end, after all requests had been answered.  Readers that
sleep for want of tags may be what it was, or a request that a full ring refused:
test_more_readers_than_tags and test_full_ring_at_the_end.
"""

import contextlib
import os
import re

import pytest

import fio
import full_ring
import topology
import vblksim
from backend import Backend
from vblksim import Sim
from vm import process
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

# Sectors that cannot be read, and others that cannot be written.  All tests
# together get no more than the ten errors that the kernel tells of in 5 s.
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
    # Merged, requests would fail that are next to those.
    {"id": "faulty", "backend": "ram", "queues": 2, "request_merging": False,
     "filters": [
        {"driver": "blkdebug", "inject-error": failing("read", UNREADABLE)
         + failing("write", UNWRITABLE)}]},
    # What was sent within a millisecond is answered together.
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
    """The guest; after the test each of its disks has come to rest."""
    yield booted
    assert_at_rest(booted)


def device(guest, id):
    return f"/dev/{guest.dev(id)}"


def set_queue(guest, id, **settings):
    """Write to files in a disk's queue directory."""
    guest.run("".join(f"echo {value} > /sys/block/{guest.dev(id)}/queue/{name};"
                      for name, value in settings.items()))


def leave_schedulers(guest):
    """Have no scheduler on any disk."""
    guest.run("for disk in /sys/block/vd*; do "
              "echo none > $disk/queue/scheduler; done")


# Of each disk all that shows whether it has something left to do.  debugfs has
# busy tags and those who wait for one (ws_active) of each queue.
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
    """Return what the disks of a guest have left to do, as lines."""
    lines = guest.run(_LEFT).output.splitlines()
    assert any("busy=" in line for line in lines)
    return [line for line in lines if not _NOTHING.fullmatch(line)]


def assert_at_rest(guest):
    """No request is left, no tag taken, nobody waits and no queue is stopped.

    What udev reads after a file is closed has a few seconds to end.
    """
    process.wait_for(lambda: not left(guest), 5)
    assert not left(guest)


def few(guest, number):
    """Return how much to do: less where each costs several times more."""
    return number // 4 if guest.kernel.name.endswith("debug") else number


def verified(guest, id, **options):
    """Start jobs on all CPUs that write, read back and compare; a Run."""
    return fio.start(guest, device(guest, id), **{
        **EVERYWHERE, "rw": "randwrite", "bs": "4k", "iodepth": 32,
        "size": few(guest, MIB // 2), "offset_increment": "8m",
        "verify": "crc32c", "verify_fatal": 1, "verify_backlog": 64, **options})


def finish(guest, *runs):
    """Wait for runs of verified(); each has written all that it was to."""
    for run in runs:
        assert fio.ios(run.wait(), "write") * BLOCK == 4 * few(guest, MIB // 2)


# Only what the shell does itself, so as to look often.
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
    """See to it that somebody waits for a tag of a disk meanwhile."""
    watch = guest.start(_WATCH.format(name=guest.dev(id)), timeout=180)
    try:
        yield
    finally:
        guest.run("rm -f /tmp/watching")
    assert int(watch.wait().output) > 0, "there were tags for all"


# Schedulers

@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_scheduler(guest, scheduler):
    """Each scheduler, on a queue for all CPUs and on one for each."""
    for id in ("one", "four"):
        set_queue(guest, id, scheduler=scheduler)
        assert f"[{scheduler}]" in guest.sysfs(
            f"/sys/block/{guest.dev(id)}/queue/scheduler")
    finish(guest, *[verified(guest, id) for id in ("one", "four")])
    leave_schedulers(guest)


def test_switching_schedulers(guest):
    """Schedulers come and go under load."""
    load = verified(guest, "two", time_based=1, runtime=2)
    switches = 0
    while load.running:
        for scheduler in SCHEDULERS:
            set_queue(guest, "two", scheduler=scheduler)
            switches += 1
    assert fio.ios(load.wait()) > few(guest, 400) and switches >= 4
    leave_schedulers(guest)


# Whose CPU ends a request

@pytest.mark.parametrize("affinity", (0, 2))
def test_rq_affinity(guest, affinity):
    """Requests end on the CPU of the interrupt, or on the one they are from.

    0 leaves them where the interrupt is, so that one burst has the requests of
    several CPUs in it; 2 sends each to its own.
    """
    ids = ("one", "two", "four")
    for id in ids:
        set_queue(guest, id, rq_affinity=affinity)
    finish(guest, *[verified(guest, id) for id in ids])
    for id in ids:
        set_queue(guest, id, rq_affinity=1)


# Bursts

def read_all(guest, id, ios, **options):
    """Read so many blocks in each of some jobs; return how many that makes.

    fio and the block layer's own accounts have to agree on it.
    """
    def accounted():
        reads, merged = guest.sysfs(f"/sys/block/{name}/stat").split()[:2]
        return int(reads) + int(merged)

    name = guest.dev(id)
    options = {**EVERYWHERE, "iodepth": 32, **options}
    wanted = ios * options["numjobs"]
    before = accounted()
    report = fio.run(guest, f"/dev/{name}", rw="randread", bs="4k",
                     norandommap=1, size=ios * BLOCK, **options)
    assert fio.ios(report, "read") == wanted
    assert accounted() - before == wanted
    return wanted


@pytest.mark.parametrize("id,affinity", (("burst1", 1), ("burst4", 0),
                                         ("burst4", 2)))
def test_bursts(guest, id, affinity):
    """Small reads that end many at an interrupt, and are all accounted for."""
    set_queue(guest, id, rq_affinity=affinity)
    before = topology.read(guest).disks[id].interrupts.values()
    done = read_all(guest, id, few(guest, 2000), iodepth=64)
    after = topology.read(guest).disks[id].interrupts.values()
    came = sum(irq.total for irq in after) - sum(irq.total for irq in before)
    assert 0 < came < done / 2, "there were no bursts"
    set_queue(guest, id, rq_affinity=1)


@pytest.mark.parametrize("jobs,depth", ((8, 32), (48, 1)))
def test_more_readers_than_tags(guest, jobs, depth):
    """Readers sleep for want of tags, and the last of them is woken.

    Time and again, for it is at the end that nobody comes to wake those whom a
    batch of freed tags has passed over.
    """
    with waiting_for_tags(guest, "fewtags"):
        for affinity in (0, 2):
            set_queue(guest, "fewtags", rq_affinity=affinity)
            read_all(guest, "fewtags", 960 // jobs, numjobs=jobs,
                     iodepth=depth, iodepth_batch=min(depth, 16),
                     ioengine="psync" if depth == 1 else "libaio")
    set_queue(guest, "fewtags", rq_affinity=1)


@pytest.mark.skipif(not os.environ.get("FULL"), reason="long: make check-full")
def test_long(guest):
    """Half a million small reads, and many rounds with too few tags."""
    for id in ("burst1", "burst4"):
        read_all(guest, id, few(guest, 16_000), numjobs=16, iodepth=128)
    for affinity in (0, 1, 2) * 10:
        set_queue(guest, "fewtags", rq_affinity=affinity)
        read_all(guest, "fewtags", few(guest, 1000), numjobs=8, iodepth=64)


# Errors

def failed_sectors(guest, since):
    """Return the sectors of which the kernel's log has told since then."""
    return sorted(int(found) for found in re.findall(
        r"I/O error, dev vd\w+, sector (\d+)", guest.log()[since:]))


def io_with_errors(guest, id, errors, **options):
    """Run jobs of which so many I/Os fail, with EIO; return those sectors."""
    since = len(guest.log())
    with pytest.raises(fio.FioError) as caught:
        verified(guest, id, size="1m", offset_increment="1m",
                 verify_backlog=None, continue_on_error="io", **options).wait()
    (job,) = caught.value.report["jobs"]
    assert (job["error"], job["total_err"]) == (EIO, errors), caught.value
    return failed_sectors(guest, since)


@pytest.mark.parametrize("affinity", (0, 2))
def test_errors_in_a_burst(guest, affinity):
    """Those fail that the device fails, and the others of the burst do not."""
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
    """A question that the device does not answer has an error for an answer.

    The block layer ends a passthrough request of a batch without an error,
    whatever became of it.
    """
    if guest.kernel.name != "6.12":
        pytest.skip("only 6.12 and 7.3-debug have VDUSE, and lockdep takes its "
                    "disks and QEMU's for the same: test_spec.py has a guest "
                    "without the latter")
    vblksim.prepare(guest)
    with Sim(guest, queues=4, script=[
            "on type=get_lifetime every=2: fail ioerr",
            "on type=get_id every=2: fail unsupp"]) as sim:
        name = sim.disk()
        # Ended where the interrupt is, and so in a batch if there are any.
        guest.run(f"echo 0 > /sys/block/{name}/queue/rq_affinity")
        load = fio.start(guest, f"/dev/{name}", rw="randread", bs="4k",
                         iodepth=4, time_based=1, runtime=60, **EVERYWHERE)
        assert process.wait_for(lambda: sim.stats()["requests"] > 500, 30)
        said = guest.run(
            f"cd /sys/block/{name}; for n in $(seq 8); do "
            "taskset -c $((n % 4)) cat lifetime/est_typ_a 2> /dev/null || "
            "echo error; echo id=$(taskset -c $((n % 4)) cat serial); done"
        ).output.splitlines()
        load.kill()
        with pytest.raises((CommandTimeout, fio.FioError)):
            load.wait()
        assert said.count("error") == 4, said
        answers = [line for line in said if line.startswith("id=")]
        assert sorted(answers) == ["id="] * 4 + [f"id={sim.name}"] * 4
        assert_at_rest(guest)


# Flushes, and other requests that are not ended like reads and writes

def test_flushes_and_questions(guest, id="two"):
    """Flushes, synchronous writes, writeback and questions to the device."""
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
    asked = 0
    while any([run.running for run in runs]):
        said = guest.run(f"for n in $(seq 8); do cat /sys/block/{name}/serial; "
                         "echo; done").output.split()
        assert said == [id] * 8
        asked += 8
    for run in runs:
        run.wait()
    assert flushes() - before > 10 and asked >= 16


# Polling

def test_polling_beside_interrupts(guest):
    """One disk's queues, of which one is polled and others interrupt."""
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


# A ring that is full

def test_full_ring(guest):
    """Rings that fill up stop and start their queue, and nothing gets stuck."""
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


def test_full_ring_at_the_end(kernel):
    """What a full ring has refused last is sent, though nothing comes after it.

    Not every end of a request has blk-mq look for those that it could not send:
    that of a batch has not.  The device answers while the guest notifies it, and
    so before blk-mq has put aside what was refused.
    """
    disk = Disk("narrow", backend="null", queues=2, queue_size=16,
                indirect_desc=False, ioeventfd=False, size=64 * MIB)
    with Guest(kernel, cpus=2, disks=[disk]) as guest:
        leave_schedulers(guest)
        name = guest.dev("narrow")
        with full_ring.expected(guest, "narrow"):
            said = guest.run(_SHORT_RUNS.format(
                runs=40 if os.environ.get("FULL") else 15, path=f"/dev/{name}",
                debugfs=f"/sys/kernel/debug/block/{name}",
                memory=full_ring.memory(guest, 8 * 16384)), timeout=300).output
        assert not said.strip(), said
        assert_at_rest(guest)
