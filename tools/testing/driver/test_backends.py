# SPDX-License-Identifier: GPL-2.0
"""Every backend that the runner knows, served by QEMU's threads.

Each test compares the guest's writes with the host's data, and the host's writes with
the guest's reads, so that a mistake that the driver makes both in writing and in
reading is found.
"""

import hashlib
import subprocess
from pathlib import Path

import pytest

from common import fio, topology
from vm import qemu_dist
from vm.disk import BACKENDS, Disk
from vm.guest import Guest

MIB = 1 << 20
SIZE = 64 * MIB
SECTOR = 512

# The program behind vhost-user serves its queues, not QEMU's threads.
CASES = [(backend, threads) for backend in BACKENDS for threads in (0, 1, 2)
         if backend != "vhost-user" or not threads]


def pattern(first, count):
    """Return sectors that each hold their own number, in decimal."""
    return b"".join(b"%0511d\n" % number
                    for number in range(first, first + count))


@pytest.fixture(scope="module")
def guest(kernel, tmp_path_factory):
    """A guest with all backends, served by no, one and two threads.

    Backends in files hold the pattern in their first MiB.
    """
    directory = tmp_path_factory.mktemp("backends")
    disks = []
    for backend, threads in CASES:
        id = f"{backend}{threads}"
        path = directory / id if backend in ("raw", "nbd", "vhost-user") else None
        if path:
            with path.open("wb") as file:
                file.write(pattern(0, MIB // SECTOR))
                file.truncate(SIZE)
        disks.append(Disk(id, backend, SIZE, path=path, queues=4,
                          iothreads=threads))
    with Guest(kernel, disks=disks) as guest:
        yield guest
    for path in directory.iterdir():
        path.unlink()


def held(guest, id, start, length):
    """Return the data of a disk's backend, as the host sees it."""
    path = guest.disk_path(id)
    if guest.disks[id].backend == "qcow2":
        # QEMU has the file open: -U shares it.
        output = subprocess.run(
            [*qemu_dist.find("qemu-io"), "-U", "-r", "-f", "qcow2", "-c",
             f"read -v {start} {length}", str(path)],
            check=True, stdout=subprocess.PIPE, text=True).stdout
        return b"".join(bytes.fromhex(line[11:58]) for line in output.splitlines()
                        if line[8:9] == ":")
    with Path(path).open("rb") as file:
        file.seek(start)
        return file.read(length)


def thread_seconds(guest, id):
    """Return how long each of a disk's threads has run so far, in seconds."""
    used = {}
    for thread in guest.qmp("query-iothreads"):
        if thread["id"].startswith(f"{id}-io"):
            number = thread["thread-id"]
            stat = Path(f"/proc/{number}/task/{number}/schedstat").read_text()
            used[thread["id"]] = int(stat.split()[0]) / 1e9
    return used


@pytest.mark.parametrize("backend,threads", CASES)
def test_data_on_each_backend(guest, backend, threads):
    """Data is correct on the host and when read back, and each thread serves I/O."""
    id = f"{backend}{threads}"
    name = guest.dev(id)
    before = thread_seconds(guest, id)
    assert len(before) == threads
    if guest.disk_path(id) and guest.disks[id].backend in ("raw", "nbd",
                                                           "vhost-user"):
        check_read(guest, name)
    everywhere = {"cpus_allowed": "0-3", "cpus_allowed_policy": "split",
                  "numjobs": 4, "offset_increment": "12m"}
    if backend == "null":
        report = fio.run(guest, f"/dev/{name}", rw="randrw", bsrange="4k-1m",
                         size="12m", **everywhere)
        assert fio.ios(report, "read") and fio.ios(report, "write")
    else:
        fio.run(guest, f"/dev/{name}", rw="randwrite", bsrange="4k-1m",
                offset="2m", size="4m", verify="crc32c", **everywhere)
        check_write(guest, id, name)
    after = thread_seconds(guest, id)
    assert all(after[thread] > before[thread] for thread in before), \
        f"a thread served no I/O: seconds before {before}, after {after}"


def check_read(guest, name):
    """The guest reads the host's data."""
    expected = hashlib.sha256(pattern(0, MIB // SECTOR)).hexdigest()
    found = guest.run(f"dd if=/dev/{name} bs=64k count=16 iflag=direct "
                      "status=none | sha256sum").output.split()[0]
    assert found == expected


def check_write(guest, id, name):
    """The host finds the guest's data, and nothing beside it."""
    first, count = 60 * MIB // SECTOR, MIB // SECTOR
    # 70 sectors, so that requests end inside pages.
    guest.run(f"seq -f %0511.0f {first} {first + count - 1} | "
              f"dd of=/dev/{name} bs=35840 seek={first * SECTOR}B "
              "iflag=fullblock oflag=direct status=none && sync")
    assert held(guest, id, first * SECTOR, MIB) == pattern(first, count)
    around = held(guest, id, first * SECTOR - MIB, MIB) + \
        held(guest, id, first * SECTOR + MIB, MIB)
    assert not any(around)


def test_two_threads_serve_different_queues(guest):
    """Each of two threads serves half of the queues."""
    disk = topology.read(guest).disks["raw2"]
    for cpu in range(4):
        before = thread_seconds(guest, "raw2")
        guest.run(f"taskset -c {cpu} dd if=/dev/{disk.name} of=/dev/null bs=4k "
                  "count=400 iflag=direct status=none")
        after = thread_seconds(guest, "raw2")
        busy = [after[thread] - before[thread] for thread in sorted(before)]
        serving = disk.queue_of(cpu) % 2
        assert busy[serving] > 2 * busy[1 - serving], \
            f"queue {disk.queue_of(cpu)} of CPU {cpu}: threads were busy for {busy} s"
