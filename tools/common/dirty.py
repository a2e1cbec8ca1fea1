# SPDX-License-Identifier: GPL-2.0
"""Dirty pages of a disk in the page cache, and whether they reach the disk.

The kernel writes them back by itself, even when a disk is removed or when all
processes are frozen for a suspend.
"""

from dataclasses import dataclass

from host import process
from vm.errors import GuestError
from vm.guest import Guest, Job

from .backend import Backend

PAGE = 4096

# The program keeps the disk open, because closing it waits for the pages.
_WRITE = """
$| = 1;
open my $disk, "+<", $ARGV[0] or die "$ARGV[0]: $!";
for my $page (1 .. $ARGV[1]) {
    sysseek $disk, $ARGV[2] + ($page - 1) * $ARGV[3], 0;
    my $size = syswrite $disk, pack("Q<", $ARGV[4] + $page) x 512;
    die "page $page: $!" unless $size == 4096;
}
print "dirty\\n";
sleep;
"""
_COUNT = """
open my $disk, "<", $ARGV[0] or die "$ARGV[0]: $!";
my $missing = 0;
for my $page (1 .. $ARGV[1]) {
    sysseek $disk, $ARGV[2] + ($page - 1) * $ARGV[3], 0;
    sysread $disk, my $found, 4096;
    $missing++ if $found ne pack("Q<", $ARGV[4] + $page) x 512;
}
print "$missing\\n";
"""


@dataclass(frozen=True)
class Pages:
    """Pages of a disk.

    count: how many; start: offset of the first, in bytes; stride: from one to the
    next, in bytes, more than a page, because the block layer merges writes of adjacent
    pages; seed: each page is filled with its number, from 1 on, plus seed.
    """
    count: int
    start: int = 0
    stride: int = 16 * PAGE
    seed: int = 0

    def _run(self, guest: Guest, program: str, name: str) -> Job:
        path = f"/run/pages-{'write' if program == _WRITE else 'count'}"
        guest.put(program.encode(), path)
        return guest.start(f"exec perl {path} /dev/{name} {self.count} {self.start} "
                           f"{self.stride} {self.seed}", timeout=None)

    def write(self, guest: Guest, name: str) -> Job:
        """Write the pages to the page cache; the caller must kill the returned job.

        name: the disk's name in the guest.  Raises GuestError on failure.
        """
        job = self._run(guest, _WRITE, name)
        process.wait_for(lambda: "dirty" in job.output or not job.running, 60)
        if "dirty" not in job.output or not job.running:
            raise GuestError(f"{self} were not written within 60 s: {job.output}")
        return job

    def missing(self, guest: Guest, id: str) -> list[int]:
        """Return the pages that the host does not find on a disk, by QEMU's id."""
        backend = Backend(guest, id)
        return [page for page in range(1, self.count + 1)
                if backend.read(self.start + (page - 1) * self.stride, PAGE)
                != (self.seed + page).to_bytes(8, "little") * (PAGE // 8)]

    def count_missing(self, guest: Guest, name: str) -> int:
        """Return how many pages the guest does not find on a disk, by its name."""
        return int(self._run(guest, _COUNT, name).wait().output)


def unthrottled(guest: Guest, id: str) -> str:
    """Have the block layer send all requests at once; return the disk's name."""
    name = guest.dev(id)
    guest.run(f"cd /sys/block/{name}/queue; echo none > scheduler; "
              "if [ -e wbt_lat_usec ]; then echo 0 > wbt_lat_usec; fi")
    return name
