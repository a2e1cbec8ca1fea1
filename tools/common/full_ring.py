# SPDX-License-Identifier: GPL-2.0
"""Fill a ring that has no indirect descriptors, and check that it was full.

The ring runs out before the tags do only if requests have many segments.  fio's
own memory is too contiguous for that, so these tests give it scattered memory.
"""

import contextlib
from collections.abc import Iterator

from vm.guest import Guest

PAGE = 4096

# The pages of a file in /dev/shm, made in such an order that pages that are adjacent
# in the file are not adjacent in memory.
SCATTER = """
open my $file, "+>", $ARGV[0] or die $!;
for my $first (0 .. 7) {
    for (my $page = $first; $page < $ARGV[1]; $page += 8) {
        sysseek $file, $page * 4096, 0;
        syswrite $file, "x" x 4096 or die $!;
    }
}
"""
_EVENT = "/sys/kernel/tracing/events/block/block_rq_requeue/enable"


def memory(guest: Guest, bytes: int) -> str:
    """Return a value for fio's iomem: scattered memory for one job.

    bytes: the size of its requests together, iodepth times bs.
    """
    guest.put(SCATTER.encode(), "/tmp/scatter")
    # fio adds a page, and rounds.
    file = guest.run("file=$(mktemp /dev/shm/fioXXXXXX) && perl /tmp/scatter "
                     f"$file {bytes // PAGE + 2} && echo $file").output.strip()
    return f"mmapshared:{file}"


@contextlib.contextmanager
def expected(guest: Guest, id: str) -> Iterator[None]:
    """Check that a disk's ring fills up in the block: the driver requeues requests.

    A trace event counts the requeues, because a ring is full for moments only.
    """
    numbers = guest.sysfs(f"/sys/block/{guest.dev(id)}/dev").replace(":", ",")
    trace = "/sys/kernel/tracing/trace"
    guest.run(f"echo > {trace}; echo 1 > {_EVENT}")
    try:
        yield
    finally:
        guest.run(f"echo 0 > {_EVENT}; rm -f /dev/shm/fio*")
    requeued = guest.run(f"grep -c 'block_rq_requeue: {numbers} ' {trace}",
                         check=False).output
    assert int(requeued) > 0, f"the ring of {id} was never full: no request requeued"
