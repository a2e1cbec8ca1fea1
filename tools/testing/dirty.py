# SPDX-License-Identifier: GPL-2.0
"""Pages of a disk that wait in the page cache, and whether they reach the disk.

The kernel writes them by itself: they are there when a disk is removed, or when all
processes are frozen for a suspend.
"""

from backend import Backend
from vm import process
from vm.guest import Guest, Job

PAGE = 4096
# The block layer merges writes of neighbours; these are none.
STRIDE = 16 * PAGE

# As long as the program runs the disk is open: closing it waits for the pages.
_WRITE = """
$| = 1;
open my $disk, "+<", $ARGV[0] or die "$ARGV[0]: $!";
for my $page (1 .. $ARGV[1]) {
    sysseek $disk, ($page - 1) * $ARGV[2], 0;
    my $size = syswrite $disk, pack("Q<", $page) x 512;
    die "page $page: $!" unless $size == 4096;
}
print "dirty\\n";
sleep 1000;
"""


def unthrottled(guest: Guest, id: str) -> str:
    """Have the block layer send all that there is at once; return the disk's name."""
    name = guest.dev(id)
    guest.run(f"cd /sys/block/{name}/queue; echo none > scheduler; "
              "if [ -e wbt_lat_usec ]; then echo 0 > wbt_lat_usec; fi")
    return name


def dirty_pages(guest: Guest, name: str, count: int) -> Job:
    """Write pages of a disk to the page cache; kill the job that is returned."""
    guest.put(_WRITE.encode(), "/tmp/dirty")
    job = guest.start(f"exec perl /tmp/dirty /dev/{name} {count} {STRIDE}",
                      timeout=600)
    assert process.wait_for(lambda: "dirty" in job.output or not job.running, 60)
    assert job.running, job.output
    return job


def missing_pages(guest: Guest, id: str, count: int) -> list[int]:
    """Return which of the pages are not on the disk, as the host sees it."""
    backend = Backend(guest, id)
    return [page for page in range(1, count + 1)
            if backend.read((page - 1) * STRIDE, PAGE)
            != page.to_bytes(8, "little") * (PAGE // 8)]
