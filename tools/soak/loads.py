# SPDX-License-Identifier: GPL-2.0
"""Verified I/O on a disk while events happen to it.

A disk has a partition for the writers' marks, one for their records and one for swap
(places in MiB below).  fio uses the whole disk, in the 64 MiB behind the table.
"""

import errno
import re
from typing import Any

from common import fio
from host import process
from host.ui import say
from vm.disk import Disk
from vm.guest import Guest

from .events import MIB, PLACE
from .power import writer
from .scenario import Round
from .watchdog import hang

SIZE_MIB = 192
_MARKS, _RECORDS, _SAMPLE, _SWAP, _END = 65, 66, 75, 80, 144
_RUN_SECONDS = 20
_IOPS = 300
# The limit for fio on a busy host.
_LIMIT = 600
# Report a hang before fio is killed at its limit.
_END_SECONDS = 300
_SECTORS = MIB // 512


def disk(id: str, queues: int, **properties: Any) -> Disk:
    """Return a disk whose ring fills up when requests have many segments.

    The disk is slow, so that requests are in flight at all times.
    """
    return Disk(id, "ram", SIZE_MIB * MIB, queues=queues, queue_size=64,
                indirect_desc=False, iops=_IOPS, **properties)


def prepare(guest: Guest, id: str) -> None:
    """Make a disk's partitions and its sample."""
    name = guest.dev(id)
    guest.run(f"""set -e
        sfdisk -q --no-tell-kernel /dev/{name} << end
label: dos
start={_MARKS * _SECTORS}, size={_SECTORS}
start={_RECORDS * _SECTORS}, size={8 * _SECTORS}
start={_SWAP * _SECTORS}, size={(_END - _SWAP) * _SECTORS}
end
        blockdev --rereadpt /dev/{name}
        [ -e {PLACE}/sample ] || head -c {MIB} /dev/urandom > {PLACE}/sample
        dd if={PLACE}/sample of=/dev/{name} bs=1M seek={_SAMPLE} oflag=direct \\
            conv=notrunc,fsync status=none""")


class Verified:
    """fio, which attend() starts again when it has ended.

    It sends the guest nothing while it runs, so the guest may suspend.
    """

    def __init__(self, guest: Guest, id: str, round: Round):
        self._guest = guest
        self._path = f"/dev/{guest.dev(id)}"
        self._round = round
        self._start()

    def _start(self) -> None:
        self._clock = self._guest.clock()
        self._started = self._clock()
        self._run = fio.start(
            self._guest, self._path, timeout=_LIMIT, rw="randrw", bs="4k",
            numjobs=4, iodepth=8, offset="1m", offset_increment="16m", size="1m",
            verify="crc32c", time_based=1, runtime=_RUN_SECONDS, **fio.FREEZABLE)

    def attend(self) -> None:
        """Start fio again if it has ended; raise FioError if it found errors."""
        if not self._run.running:
            self._count()
            self._start()
        elif self._clock() > self._started + _RUN_SECONDS + _END_SECONDS:
            raise hang(self._guest, f"fio on {self._path} does not end")

    def stop(self) -> None:
        """Wait until fio has ended, and has verified all that it wrote."""
        if not process.wait_for(self._ended, _END_SECONDS):
            raise hang(self._guest, f"fio on {self._path} does not end")
        self._count()

    def _ended(self) -> bool:
        self._guest.pump()
        return not self._run.running

    @property
    def running(self) -> bool:
        """Whether fio runs."""
        return self._run.running

    def _count(self) -> None:
        try:
            self._round.add("verified I/Os", fio.ios(self._run.wait()))
        except fio.FioError as error:
            if fio.errors(error.report) == {errno.ECANCELED}:
                # io_uring has this error if there is no memory for its first thread that
                # may wait, for example because the queue is frozen.  No driver has it.
                self._round.add("loads that io_uring canceled", 1)
                return
            error.add_note("The log:\n" + "\n".join(
                f"    {line}" for line in self._guest.log().splitlines()[-40:]))
            raise


class Records:
    """Writers on a disk that is removed and added, and checks of their records."""

    def __init__(self, guest: Guest, id: str, round: Round):
        self._round = round
        self._job = guest.start(
            f"exec bash {PLACE}/events.sh load {id} {round.random.randrange(1 << 30)}",
            timeout=None)

    def attend(self) -> None:
        """Do nothing: the load runs without the host."""

    @property
    def running(self) -> bool:
        """Whether it runs; it ends when the loops are told to end."""
        return self._job.running

    def stop(self) -> None:
        """Wait for its end, and count the sectors that were checked and lost."""
        output = self._job.wait().output
        for sectors, lost in re.findall(r"^checked (\d+) lost (\d+)$", output,
                                        re.MULTILINE):
            self._round.add("sectors of records checked", int(sectors))
            self._round.add("sectors of records lost", int(lost))
        if messages := re.findall(r"^writer .*", output, re.MULTILINE):
            say("\n".join(messages))


def install(guest: Guest) -> None:
    """Copy the loads' program to a guest."""
    guest.put(writer(guest.arch), f"{PLACE}/writer")
