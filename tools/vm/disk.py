# SPDX-License-Identifier: GPL-2.0
"""One disk of a guest: its backend on the host, and its virtio-blk device."""

import os
import signal
import socket
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from host import process
from host.ui import UserError

from . import qemu_dist
from .errors import QemuRefused

GIB = 1 << 30
BACKENDS = ("null", "ram", "raw", "qcow2", "nbd", "vhost-user")

# QEMU's properties that are spelled with underscores; all others have hyphens.
_UNDERSCORED = {"any_layout", "backend_defaults", "discard_granularity",
                "event_idx", "failover_pair_id", "in_order", "indirect_desc",
                "iommu_platform", "logical_block_size", "max_revision",
                "min_io_size",
                "notify_on_empty", "opt_io_size", "physical_block_size",
                "queue_reset"}
_START_SECONDS = 15
_RECONNECT_MS = 200
NBD_SECONDS = 8

# A node, an object or a device, as in QMP; the values can be dictionaries, too.
Options = dict[str, Any]


class Disk:
    """A virtio-blk disk of a Guest.

    id: the name in QEMU, the node name, and the serial number (the first 20
        characters; all vhost-user disks have the same serial number).
    backend: "null" stores no data; "ram" stores it in memory; "raw" and "qcow2" in
        a file; "nbd" in a raw file behind an NBD server; "vhost-user" in a raw file,
        with qemu-storage-daemon as the device.
    size: in bytes; ignored if path is an existing file.
    path: the file, which is kept; None creates a new file, which is removed with the
        guest.
    address: the path of the socket at which a "vhost-user" server of the caller's
        listens; it has the data, in place of size and path.
    node: a block node, as for -blockdev, in place of backend, size and path, for
        storage that the caller creates and serves.
    queues: the number of virtqueues; QEMU's default is one per CPU.
    legacy: the device supports virtio 0.9 only.
    iothreads: the number of QEMU threads that serve the queues; 0 is the main loop.
    latency_ns, read_zeroes: options of the null backend.
    reconnect: QEMU (9.2 or newer) reconnects when a "vhost-user" server returns; I/O
        waits NBD_SECONDS for an "nbd" server.
    iops: the maximum number of requests per second, also after the disk was
        unplugged and plugged in again; None is no limit.
    filters: block nodes, as for -blockdev, between device and backend, the nearest
        to the backend first.
    properties: any properties of QEMU's virtio-blk device, with underscores:
        queue_size=1024, packed=True, write_cache="off", config_wce=False,
        discard=True, logical_block_size=4096, share_rw=True, serial=""...
    """

    def __init__(self, id: str, backend: str = "null", size: int = GIB, *,
                 path: str | Path | None = None, address: str | Path | None = None,
                 node: Options | None = None, queues: int | None = None,
                 legacy: bool = False, iothreads: int = 0, latency_ns: int = 0,
                 read_zeroes: bool = False, read_only: bool = False,
                 reconnect: bool = False, iops: int | None = None,
                 filters: Iterable[Options] = (), **properties: Any):
        if backend not in BACKENDS:
            raise UserError(f"disk {id}: backend is {backend!r}; it must be one of "
                            + ", ".join(BACKENDS))
        self.id = id
        self.backend = backend
        self.size = size
        self.path = Path(path) if path else None
        self._address = Path(address) if address else None
        self._served = address is not None
        self.node = node
        self.queues = queues
        self.legacy = legacy
        self.iothreads = iothreads
        self.latency_ns = latency_ns
        self.read_zeroes = read_zeroes
        self.read_only = read_only
        self.reconnect = reconnect
        self.iops = iops
        self.filters = list(filters)
        self.properties = properties
        self._file: Path | None = None
        self._memory: int | None = None
        self._server: subprocess.Popen[bytes] | None = None

    @property
    def file(self) -> Path | None:
        """The file that backs the disk in use; None for the null backend."""
        return self._file

    @property
    def serial(self) -> str:
        """The serial number that the guest sees."""
        if self.backend == "vhost-user":
            return "vhost_user_blk"
        return self.properties.get("serial", self.id[:20])

    def __repr__(self) -> str:
        return f"Disk({self.id!r}, {self.backend!r})"

    def prepare(self, directory: Path, cpus: int) -> None:
        """Create the file and start the server that the disk needs.

        directory: for the disk's files; cpus: the guest's number of CPUs.
        """
        if self.backend == "ram":
            self._memory = os.memfd_create(self.id)
            os.ftruncate(self._memory, self.size)
            self._file = Path(f"/proc/{os.getpid()}/fd/{self._memory}")
        elif self.backend != "null" and not self._served:
            self._file = self.path or directory / f"{self.id}.img"
            if not self._file.exists():
                self._make_file(self._file)
        if self.backend == "vhost-user":
            self.queues = self.queues or cpus
        if self.backend in ("nbd", "vhost-user") and not self._served:
            self._start_server(directory)

    def _make_file(self, path: Path) -> None:
        if self.backend != "qcow2":
            with open(path, "wb") as file:
                file.truncate(self.size)
            return
        make_qcow2(path, path, self.size)

    def _start_server(self, directory: Path) -> None:
        """Start a qemu-storage-daemon on a socket that listens already."""
        log = directory / f"{self.id}.log"
        self._address = directory / f"{self.id}.sock"
        # A killed server, or an earlier disk of this id, leaves its socket behind.
        self._address.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        with listener:
            listener.bind(str(self._address))
            listener.listen()
            address = {"addr.type": "fd", "addr.str": listener.fileno()}
            self._server = process.spawn(
                [*qemu_dist.find("qemu-storage-daemon"),
                 "--blockdev", _join({"driver": "raw", "node-name": "disk",
                                      "discard": "unmap", "file.driver": "file",
                                      "file.filename": self._file}),
                 *self._export(address)],
                log, pass_fds=[listener.fileno()])

    def _export(self, address: Options) -> list[str]:
        writable = "off" if self.read_only else "on"
        if self.backend == "nbd":
            return ["--nbd-server", _join(address),
                    "--export", _join({"type": "nbd", "id": self.id,
                                       "node-name": "disk", "name": "disk",
                                       "writable": writable})]
        block_size = self.properties.get("logical_block_size", 512)
        return ["--export", _join({"type": "vhost-user-blk", "id": self.id,
                                   "node-name": "disk", **address,
                                   "writable": writable,
                                   "num-queues": self.queues,
                                   "logical-block-size": block_size})]

    def kill_server(self) -> None:
        """Kill the server of a disk with the backend "nbd" or "vhost-user"."""
        process.end(self._own_server())
        self._server = None

    def _own_server(self) -> subprocess.Popen[bytes]:
        if self._server is None:
            raise UserError(f"disk {self.id}: no server of it runs; start it, or use "
                            "the backend nbd or vhost-user")
        return self._server

    def stop_server(self) -> None:
        """Stop the server's process until continue_server().

        QEMU itself waits for the server when it resets a "vhost-user" device or
        drains its other requests.
        """
        self._own_server().send_signal(signal.SIGSTOP)

    def continue_server(self) -> None:
        """Continue a stopped server."""
        if self._server:
            self._server.send_signal(signal.SIGCONT)

    def restart_server(self) -> None:
        """Start the server again at the same address."""
        if self._address is None:
            raise UserError(f"disk {self.id}: the backend {self.backend} has no server")
        self._start_server(self._address.parent)

    def release(self) -> None:
        """Stop the server, free the memory and drop the reference to the file."""
        self._file = None
        if self._server:
            process.end(self._server)
            self._server = None
        if self._memory is not None:
            os.close(self._memory)
            self._memory = None

    def block_nodes(self) -> list[Options]:
        """Return the nodes for -blockdev or blockdev-add, the lowest first."""
        if self.backend == "vhost-user":
            return []
        limit = [] if self.iops is None else [
            {"driver": "throttle", "throttle-group": self.limit_id}]
        nodes = [self._backend_node(), *limit, *self.filters]
        for number, node in enumerate(nodes):
            last = number == len(nodes) - 1
            node = nodes[number] = {
                **node, "node-name": self.id if last else f"{self.id}-{number}"}
            if number:
                child = "image" if node["driver"] == "blkdebug" else "file"
                node[child] = nodes[number - 1]["node-name"]
        return nodes

    def _backend_node(self) -> Options:
        node = {"read-only": self.read_only, "discard": "unmap"}
        if self.node:
            return {**node, **self.node}
        if self.backend == "null":
            return {**node, "driver": "null-co", "size": self.size,
                    "latency-ns": self.latency_ns,
                    "read-zeroes": self.read_zeroes}
        if self.backend == "nbd":
            return {**node, "driver": "nbd", "export": "disk",
                    "reconnect-delay": NBD_SECONDS if self.reconnect else 0,
                    "server": {"type": "unix", "path": str(self._address)}}
        return {**node, "driver": "qcow2" if self.backend == "qcow2" else "raw",
                "file": {"driver": "file", "filename": str(self._file)}}

    @property
    def limit_id(self) -> str:
        """The name of the throttle group that enforces iops."""
        return f"{self.id}-limit"

    def objects(self) -> list[Options]:
        """Return the objects that the disk needs, for -object or object-add."""
        limit = [] if self.iops is None else [
            {"qom-type": "throttle-group", "id": self.limit_id,
             "limits": {"iops-total": self.iops}}]
        return limit + [{"qom-type": "iothread", "id": name}
                        for name in self.iothread_ids()]

    def iothread_ids(self) -> list[str]:
        """Return the names of the disk's own threads in QEMU."""
        return [f"{self.id}-io{number}" for number in range(self.iothreads)]

    def chardev(self) -> Options | None:
        """Return the character device of a vhost-user disk, None for others."""
        if self.backend != "vhost-user":
            return None
        data = {"addr": {"type": "unix", "data": {"path": str(self._address)}},
                "server": False}
        if self.reconnect:
            data["reconnect-ms"] = _RECONNECT_MS
        return {"id": f"{self.id}-socket",
                "backend": {"type": "socket", "data": data}}

    def device(self, transport: str) -> Options:
        """Return the device for -device or device_add.

        transport: "pci", "device" or "ccw", the last part of QEMU's device names.
        """
        device: Options = {"id": self.id}
        if self.backend == "vhost-user":
            # On virtio-mmio the device's name has no "-device" at its end.
            name = f"vhost-user-blk-{transport}".removesuffix("-device")
            device |= {"driver": name, "chardev": f"{self.id}-socket"}
        else:
            device |= {"driver": f"virtio-blk-{transport}", "drive": self.id,
                       "serial": self.serial}
        if self.queues is not None:
            device["num-queues"] = self.queues
        if self.legacy and transport == "pci":
            device |= {"disable-modern": True, "disable-legacy": "off"}
        if self.legacy and transport == "ccw":
            device["max_revision"] = 0
        if block_size := self.properties.get("logical_block_size"):
            device["physical_block_size"] = block_size
        device |= self._threads()
        for name, value in self.properties.items():
            if self.backend == "vhost-user" and name == "logical_block_size":
                continue
            device[name if name in _UNDERSCORED
                   else name.replace("_", "-")] = value
        return device

    def _threads(self) -> Options:
        if self.iothreads > 1:
            return {"iothread-vq-mapping": [{"iothread": name}
                                            for name in self.iothread_ids()]}
        return {"iothread": name for name in self.iothread_ids()}


def make_qcow2(path: Path, *words: str | int | Path) -> None:
    """Create a qcow2 file; words: further arguments of qemu-img create."""
    log = path.with_suffix(".log")
    making = process.spawn([*qemu_dist.find("qemu-img"), "create", "-q", "-f",
                            "qcow2", *map(str, words)], log)
    process.end(making, _START_SECONDS)
    if making.returncode:
        raise QemuRefused(f"qemu-img: {log.read_text().strip()}")


def _join(options: Options) -> str:
    """Return options in QEMU's notation key=value,..."""
    return ",".join(f"{key}={str(value).replace(',', ',,')}"
                    for key, value in options.items())
