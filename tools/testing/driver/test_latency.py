# SPDX-License-Identifier: GPL-2.0
"""How long requests take: the histogram of an open file, and the slow requests."""

import re

import pytest

from common import counters
from vm.disk import Disk
from vm.guest import Guest

MIB = 1 << 20
FAST_NS = 3_000_000
SLOW_NS = 300_000_000
# Where the classes of slow requests begin, in ms.
SLOW_MS = [16 << i for i in range(12)]
# Where the bucket of a slow request begins, at least.  16 ms are two jiffies of 10 ms,
# of which the first may be nearly over, and a bucket is a quarter of its lower bound
# wide.
LATE_NS = 8_000_000

pytestmark = pytest.mark.kernels("6.1", "6.12", "7.3-debug")


@pytest.fixture(scope="module")
def guest(kernel):
    """A guest with disks that take 3 ms and 300 ms for each request."""
    disks = [Disk("fast", "null", 64 * MIB, queues=2, latency_ns=FAST_NS),
             Disk("slow", "null", 64 * MIB, queues=2, latency_ns=SLOW_NS),
             Disk("leaves", "null", 64 * MIB, queues=1, latency_ns=FAST_NS)]
    with Guest(kernel, cpus=2, disks=disks) as guest:
        yield guest


def directory(guest, id):
    """Return a disk's directory in debugfs."""
    return f"/sys/kernel/debug/virtio_blk/{guest.dev(id)}"


def read(guest, id, count, cpu=0):
    """Return a command that reads 4 KiB of a disk count times, one after the other."""
    return (f"taskset -c {cpu} dd if=/dev/{guest.dev(id)} of=/dev/null bs=4k "
            f"count={count} iflag=direct status=none")


def parse(text):
    """Return {(queue, kind): (longest ns, {lower bound in ns: count})} of a file."""
    found = {}
    for line in text.splitlines():
        match = re.fullmatch(r"(queue\d+) (reads|writes|others) max (\d+)((?: \d+:\d+)+)",
                             line)
        assert match, line
        pairs = [tuple(map(int, pair.split(":"))) for pair in match[4].split()]
        assert pairs == sorted(pairs) and all(count for _, count in pairs), line
        found[match[1], match[2]] = int(match[3]), dict(pairs)
    return found


def queue_of(guest, id, cpu):
    """Return the name of the queue that a CPU uses."""
    for queue in range(2):
        cpus = counters.of_queue(guest, id, queue)["cpus"]
        if str(cpu) in re.findall(r"\d+", cpus):
            return f"queue{queue}"
    raise AssertionError(f"no queue of {id} has CPU {cpu}")


def slow(guest, id, kind):
    """Return the classes of slow requests of a kind, all queues together."""
    lists = [counters.of_queue(guest, id, queue)[f"slow_{kind}"] for queue in range(2)]
    assert all(len(numbers) == len(SLOW_MS) for numbers in lists)
    return [sum(numbers) for numbers in zip(*lists)]


def test_histogram_counts_while_open(guest):
    """An open file counts each request once, with its queue, kind and time."""
    path, queue = f"{directory(guest, 'fast')}/latency", queue_of(guest, "fast", 0)
    first, second = (parse(text) for text in guest.run(
        f"{read(guest, 'fast', 7)}; exec 3< {path}; "
        f"{read(guest, 'fast', 20)}; cat <&3; echo ---; "
        f"{read(guest, 'fast', 10)}; cat {path}").output.split("---\n"))
    assert first.keys() == second.keys() == {(queue, "reads")}
    longest, buckets = first[queue, "reads"]
    assert sum(buckets.values()) == 20
    # A bucket is a quarter of its lower bound wide.
    assert FAST_NS * 4 / 5 <= min(buckets) and max(buckets) <= longest < 1e10
    # The second file opened while the first was open: both have one count.
    assert sum(second[queue, "reads"][1].values()) == 30
    assert second[queue, "reads"][0] >= longest


def test_reopened_histogram_is_empty(guest):
    """A file that is opened again has nothing of before, and counts each queue apart."""
    path = f"{directory(guest, 'fast')}/latency"
    output = guest.run(f"cat {path}; exec 3< {path}; {read(guest, 'fast', 3, cpu=1)}; "
                       "cat <&3").output
    found = parse(output)
    assert found.keys() == {(queue_of(guest, "fast", 1), "reads")}
    (_, buckets), = found.values()
    assert sum(buckets.values()) == 3


def test_histogram_of_kinds(guest):
    """Writes and flushes have lines of their own."""
    path, dev = f"{directory(guest, 'fast')}/latency", guest.dev("fast")
    found = parse(guest.run(
        f"exec 3< {path}; taskset -c 0 dd if=/dev/zero of=/dev/{dev} bs=4k count=4 "
        "oflag=direct conv=fsync status=none; cat <&3").output)
    queue = queue_of(guest, "fast", 0)
    assert sum(found[queue, "writes"][1].values()) == 4
    assert sum(found[queue, "others"][1].values()) >= 1
    assert (queue, "reads") not in found


def test_slow_requests_are_counted(guest):
    """A request of 300 ms is counted as slow in its class, one of 3 ms is not.

    A busy host delays requests of 3 ms, as the histogram shows, and a guest's jiffies.
    """
    before, fast = slow(guest, "slow", "reads"), slow(guest, "fast", "reads")
    guest.run(read(guest, "slow", 4))
    grown = [now - old for now, old in zip(slow(guest, "slow", "reads"), before)]
    # From 256 ms on; a busy host delays them further.
    assert sum(grown) == 4 and sum(grown[:SLOW_MS.index(256)]) == 0, grown
    assert slow(guest, "slow", "writes") == [0] * 12
    found = parse(guest.run(f"exec 3< {directory(guest, 'fast')}/latency; "
                            f"{read(guest, 'fast', 50)}; cat <&3").output)
    grown = [now - old for now, old in zip(slow(guest, "fast", "reads"), fast)]
    (_, buckets), = found.values()
    late = sum(count for least, count in buckets.items() if least >= LATE_NS)
    assert sum(grown) - late <= (50 - late) / 2, (grown, buckets)
    queue = int(queue_of(guest, "slow", 0).removeprefix("queue"))
    assert counters.of_queue(guest, "slow", queue)["longest_wait_ms"] >= 270


def test_disk_removed_while_file_is_open(guest):
    """An open file delays no removal, keeps no name, and cannot be read after it."""
    dev, driver = guest.dev("leaves"), "/sys/bus/virtio/drivers/virtio_blk"
    path = f"{directory(guest, 'leaves')}/latency"
    virtio = guest.run(f"basename $(readlink -f /sys/block/{dev}/device)").output.strip()
    output = guest.run(
        f"exec 3< {path}; {read(guest, 'leaves', 5)}; echo {virtio} > {driver}/unbind; "
        "cat <&3 2> /dev/null || echo refused; "
        f"echo {virtio} > {driver}/bind; ls /sys/bus/virtio/devices/{virtio}/block; "
        "cat <&3 2> /dev/null || echo refused; exec 3<&-").output
    assert output.split() == ["refused", dev, "refused"]
    again = f"{directory(guest, 'leaves')}/latency"
    found = parse(guest.run(f"exec 3< {again}; {read(guest, 'leaves', 2)}; "
                            "cat <&3").output)
    assert sum(found["queue0", "reads"][1].values()) == 2


@pytest.mark.kernels("6.12", full=("6.1", "7.3-debug"))
def test_histogram_on_ring_of_the_core(kernel):
    """Requests on a ring that the virtio core runs are counted as well."""
    disk = Disk("core", "null", 64 * MIB, queues=1, latency_ns=FAST_NS)
    with Guest(kernel, disks=[disk], params="own_ring=N") as guest:
        assert counters.of_queue(guest, "core")["own_ring"] == 0
        found = parse(guest.run(f"exec 3< {directory(guest, 'core')}/latency; "
                                f"{read(guest, 'core', 20)}; cat <&3").output)
        longest, buckets = found["queue0", "reads"]
        assert sum(buckets.values()) == 20
        assert FAST_NS * 4 / 5 <= min(buckets) and max(buckets) <= longest
