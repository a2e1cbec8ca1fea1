# SPDX-License-Identifier: GPL-2.0
"""Disks on an NBD server, which QEMU reaches over TCP.

The network is the loopback interface, and the fault is the one of any network: the
server disappears, and returns some time later.  QEMU's option reconnect-delay decides
whether I/O waits meanwhile or fails.
"""

import re
import socket

import pytest

from common import fio
from common.backend import WriteLog
from common.fio import FioError
from host import deps, process
from soak import faults
from vm import qemu_dist
from vm.disk import Disk
from vm.guest import Guest

MIB = 1 << 20
SIZE = 64 * MIB
SECTOR = 512
PROGRAMS = ("nbdkit", "qemu-nbd")
# For how many seconds I/O waits for a server (reconnect-delay); 0: it fails at once.
PATIENCE = 120
_START_SECONDS = 60
_EXPORT = "disk"


class Server:
    """An NBD server in front of a file; the file outlives the server."""

    def __init__(self, program, directory, id):
        self.file = directory / f"{id}.raw"
        with self.file.open("wb") as file:
            file.truncate(SIZE)
        self._log = directory / f"{id}.log"
        self._writes = WriteLog(directory / f"{id}.writes")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self._program = program
        self._process = None
        self.start()

    def _nbdkit(self):
        return [deps.which("nbdkit"), "--foreground", "--ipaddr", "127.0.0.1",
                "--port", self._port, "--filter", "log",
                "--filter", "exportname", "file", self.file,
                f"logfile={self._log}", "logappend=true",
                f"exportname={_EXPORT}", "exportname-strict=true"]

    def _qemu_nbd(self):
        node = self._writes.node
        return [*qemu_dist.find("qemu-nbd"), "--persistent", "--bind", "127.0.0.1",
                "--port", self._port, "--export-name", _EXPORT,
                "--discard", "unmap", "--image-opts",
                f"driver={node['driver']},discard=unmap,file.driver=file,"
                f"file.filename={self.file},file.discard=unmap,log.driver=file,"
                f"log.filename={node['log']['filename']}"]

    def start(self):
        """Start the server, always at the same address, and wait until it listens."""
        words = self._nbdkit() if self._program == "nbdkit" else self._qemu_nbd()
        self._process = process.spawn(words, f"{self.file}.output")
        assert process.wait_for(self._listens, _START_SECONDS)

    def _listens(self):
        try:
            socket.create_connection(("127.0.0.1", self._port), 1).close()
        except ConnectionRefusedError:
            return False
        return True

    def kill(self):
        """Kill the server, whatever it is doing."""
        process.end(self._process)

    def node(self, patience=PATIENCE):
        """Return QEMU's block node for the server."""
        return {"driver": "nbd", "export": _EXPORT, "reconnect-delay": patience,
                "server": {"type": "inet", "host": "127.0.0.1",
                           "port": str(self._port)}}

    def asked(self):
        """Return the flushes and discards that the server has logged, by name."""
        if self._program == "nbdkit":
            log = self._log.read_text()
            return re.findall(r"connection=\d+ (Flush|Trim) ", log)
        names = {"flush": "Flush", "discard": "Trim"}
        return [names[flag] for entry in self._writes.requests()
                for flag in entry.flags if flag in names]

    def allocated(self):
        """Return how many bytes of the file have blocks of the host's disk."""
        return self.file.stat().st_blocks * SECTOR


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    """The servers by name; the disk on "fragile" does not wait for its server."""
    deps.need("vm")
    directory = tmp_path_factory.mktemp("network")
    found = {program: Server(program, directory, program) for program in PROGRAMS}
    found["fragile"] = Server("nbdkit", directory, "fragile")
    yield found
    for server in found.values():
        server.kill()
    for path in directory.iterdir():
        path.unlink()


@pytest.fixture(scope="module")
def guest(kernel, servers):
    disks = [Disk(id, queues=4, node=server.node(0 if id == "fragile" else PATIENCE))
             for id, server in servers.items()]
    with Guest(kernel, disks=disks) as guest:
        for disk in disks:
            faults.hasten(guest, disk.id)
        yield guest


def device(guest, id):
    return f"/dev/{guest.dev(id)}"


@pytest.mark.parametrize("id", PROGRAMS)
def test_data_over_nbd(guest, servers, id):
    """Data of four queues reads back unchanged, and is in the server's file."""
    fio.run(guest, device(guest, id), rw="randrw", bsrange="4k-64k", numjobs=4,
            offset_increment="12m", size="4m", verify="crc32c",
            cpus_allowed="0-3", cpus_allowed_policy="split")
    text = b"".join(b"%0511d\n" % number for number in range(MIB // SECTOR))
    guest.run(f"seq -f %0511.0f 0 {MIB // SECTOR - 1} | dd of={device(guest, id)} "
              "bs=64k seek=60M oflag=direct,seek_bytes iflag=fullblock "
              "conv=notrunc,fsync status=none")
    with servers[id].file.open("rb") as file:
        file.seek(60 * MIB)
        assert file.read() == text + bytes(SIZE - 61 * MIB)


@pytest.mark.parametrize("id", PROGRAMS)
def test_discard_over_nbd(guest, servers, id):
    """Discarded data takes no space on the server's disk."""
    guest.run(f"dd if=/dev/urandom of={device(guest, id)} bs=1M count=16 "
              "oflag=direct conv=fsync status=none")
    before, full = servers[id].asked().count("Trim"), servers[id].allocated()
    guest.run(f"blkdiscard -o 4M -l 8M {device(guest, id)}")
    assert servers[id].asked().count("Trim") > before
    # The host's file system may need a block more for the file's metadata.
    assert 7 * MIB < full - servers[id].allocated() <= 8 * MIB


@pytest.mark.parametrize("id", PROGRAMS)
def test_flush_over_nbd(guest, servers, id):
    """fsync sends the server one flush; writes without fsync send none."""
    def flushes(conv):
        before = servers[id].asked().count("Flush")
        guest.run(f"dd if=/dev/zero of={device(guest, id)} bs=4k count=4 "
                  f"oflag=direct conv={conv} status=none")
        return servers[id].asked().count("Flush") - before

    assert flushes("notrunc") == 0
    assert flushes("notrunc,fsync") == 1


def load(guest, id):
    """Start verified I/O from all CPUs: 2048 requests, which take at least 5 s."""
    return fio.start(guest, device(guest, id), rw="randrw", bs="4k", numjobs=4,
                     offset_increment="16m", size="2m", rate_iops=50,
                     verify="crc32c", cpus_allowed="0-3",
                     cpus_allowed_policy="split")


def reads(guest, id):
    """Return whether a read from a disk succeeds."""
    return not guest.run(f"dd if={device(guest, id)} of=/dev/null bs=4k count=1 "
                         "iflag=direct status=none", check=False).status


def await_writes(guest, id):
    """Wait until a disk has completed more than 50 more writes."""
    def writes():
        return int(guest.sysfs(f"/sys/block/{guest.dev(id)}/stat").split()[4])

    before = writes()
    assert process.wait_for(lambda: writes() > before + 50, _START_SECONDS)


@pytest.mark.parametrize("id", PROGRAMS)
def test_server_comes_back(guest, servers, id):
    """I/O waits for the server: the disk is stalled, then live, with no error."""
    running = load(guest, id)
    await_writes(guest, id)
    servers[id].kill()
    assert process.wait_for(lambda: faults.state(guest, id) == "stalled", 15)
    assert running.running
    servers[id].start()
    assert process.wait_for(lambda: faults.state(guest, id) == "live", 30)
    assert fio.ios(running.wait()) > 2000
    assert faults.counter(guest, id, "timeouts") > 0
    assert faults.counter(guest, id, "resets") == 0


def test_server_not_waited_for(guest, servers):
    """With reconnect-delay 0 I/O fails, and works again when the server is back."""
    guest.tolerate("I/O error, dev vd|Buffer I/O error")
    running = load(guest, "fragile")
    await_writes(guest, "fragile")
    servers["fragile"].kill()
    with pytest.raises(FioError, match="Input/output error"):
        running.wait()
    # QEMU may take more than a second to notice, and the driver checks once a second.
    assert process.wait_for(lambda: faults.state(guest, "fragile") == "live", 5)
    servers["fragile"].start()
    # QEMU reconnects in the background, after I/O has asked for it.
    assert process.wait_for(lambda: reads(guest, "fragile"), 30)
    assert fio.ios(load(guest, "fragile").wait()) > 2000
