# SPDX-License-Identifier: GPL-2.0
"""A Ceph cluster on this host, as a backend for disks.

    with Cluster() as cluster:
        cluster.create("disk", 256 << 20)
        Disk("disk", node=cluster.node("disk"))

Its programs are Debian's.  They are unpacked into the cache, not installed, because
the packages start services that outlive the tests.  The daemons listen on the
loopback interface only, need no authentication, and keep all their files in one
directory, which is removed when the cluster ends.
"""

import json
import re
import socket
import subprocess
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from host import cache, debian, deps, process
from host.ui import step
from vm import qemu_dist
from vm.disk import Options

GIB = 1 << 30
# A discard frees whole objects of this size.
OBJECT = 1 << 20
POOL = "rbd"
REPLICAS = 3
# With fewer replicas than this a write waits.
MIN_REPLICAS = 2

_PACKAGES = ("ceph-mon", "ceph-mgr", "ceph-osd", "ceph-common")
# Of the packages that they depend on, those that these programs themselves use.
_NEEDED = (r"lib(?!c6$|c-bin)|zlib1g|ceph-(?!mgr-modules)|"
           r"python3(\.11(-minimal)?|-(ceph-argparse|rados|prettytable|wcwidth))$")
_TRIPLET = "x86_64-linux-gnu"
_MIB_NEEDED = 1500
_COMMAND_SECONDS = 60
# An idle host needs some 10 s, a busy one more.
_SETTLE_SECONDS = 120

_CONF = """\
[global]
fsid = {fsid}
mon_host = v2:127.0.0.1:{port}
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
ms_bind_msgr1 = false
auth_cluster_required = none
auth_service_required = none
auth_client_required = none

run_dir = {here}
crash_dir = {here}
log_file = {here}/$name.log
admin_socket = {here}/$name.asok
keyring = {here}/keyring
mon_data = {here}/$name
mgr_data = {here}/$name
osd_data = {here}/$name
erasure_code_dir = {libraries}/ceph/erasure-code
plugin_dir = {libraries}/ceph
osd_class_dir = {libraries}/rados-classes
# The cluster needs the manager for its counters only, and so none of its modules.
mgr_module_path = {here}
mgr_initial_modules =

osd_pool_default_size = {replicas}
osd_pool_default_min_size = {min_replicas}
osd_pool_default_pg_num = 8
osd_pool_default_pg_autoscale_mode = off
# Replicas are on different OSDs, not hosts.
osd_crush_chooseleaf_type = 0
mon_osd_min_down_reporters = 1
# Go on while the host's disk is nearly full.
mon_data_avail_warn = 1
mon_data_avail_crit = 1
bluestore_block_size = {size}
bluestore_cache_autotune = false
bluestore_cache_size = 67108864
osd_op_num_shards = 1
osd_op_num_threads_per_shard = 2

[client]
log_file =
admin_socket =
# QEMU's client keeps data in its memory until it is told to flush, so that the tests
# notice a lost flush.
rbd_cache_policy = writeback
rbd_cache_max_dirty_age = 600
"""


class CephError(Exception):
    """A command of the cluster failed, or a state was not reached in time."""


def programs() -> Path:
    """Return the directory of Ceph's programs, downloaded if need be (95 MB)."""
    def build(directory: Path) -> None:
        def unpack() -> None:
            debian.unpack([package
                           for package in debian.closure(_PACKAGES, "bookworm")
                           if re.match(_NEEDED, package.name)], directory)

        with step("getting Ceph from Debian"):
            debian.current(unpack)

    return cache.populate("ceph", build, mib=700)


def need_driver() -> None:
    """Install QEMU's driver for rbd, which is a module, if it is missing."""
    # QEMU's lists of drivers name missing modules, too.
    result = subprocess.run(
        [*qemu_dist.find("qemu-img"), "info", "--image-opts",
         "driver=rbd,pool=none,image=none,conf=/nonexistent"], text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if "Unknown driver" in result.stdout:
        deps.need("ceph")


def free_port() -> int:
    """Return a TCP port of the loopback interface on which no program listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Cluster:
    """One monitor, one manager and some OSDs, for as long as a with block runs.

    osds: how many; size: the size of each OSD's sparse file, in bytes.
    directory: of its files, within the block.
    """

    directory: Path

    def __init__(self, osds: int = REPLICAS, size: int = 2 * GIB):
        self.osds = range(osds)
        self._size = size
        need_driver()
        self._programs = programs()
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        self.directory = process.work_directory()
        try:
            cache.require_space(self.directory, _MIB_NEEDED,
                                "set TMPDIR to a directory with more space")
            with step(f"starting a Ceph cluster with {len(self.osds)} OSDs"):
                self._set_up()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def _end(self) -> None:
        for daemon in self._daemons.values():
            process.end(daemon)
        process.remove_work_directory(self.directory)

    # Setting it up

    @property
    def conf(self) -> Path:
        """The configuration file that a client needs to find the cluster."""
        return self.directory / "ceph.conf"

    def _set_up(self) -> None:
        libraries = self._programs / "usr/lib" / _TRIPLET
        fsid, port = uuid.uuid4(), free_port()
        self.conf.write_text(_CONF.format(
            fsid=fsid, port=port, here=self.directory, libraries=libraries,
            size=self._size, replicas=REPLICAS, min_replicas=MIN_REPLICAS))
        # The programs need the file to exist, although there is no authentication.
        (self.directory / "keyring").touch()
        monmap = self.directory / "monmap"
        self._run("monmaptool", "--create", "--fsid", fsid, "--addv", "a",
                  f"[v2:127.0.0.1:{port}]", monmap)
        self._run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap)
        self._start("mon", "a")
        (self.directory / "mgr.a").mkdir()
        self._start("mgr", "a")
        for osd in self.osds:
            identity = uuid.uuid4()
            self.ceph("osd", "new", identity)
            (self.directory / f"osd.{osd}").mkdir()
            self._run("ceph-osd", "-i", osd, "--mkfs", "--osd-uuid", identity)
            self._start("osd", osd)
        self.ceph("osd", "pool", "create", POOL)
        self.wait_for(self.clean, "clean")

    def _start(self, kind: str, name: str | int) -> None:
        self._daemons[f"{kind}.{name}"] = process.spawn(
            [*self._words(f"ceph-{kind}"), "-f", "-i", str(name)],
            self.directory / f"{kind}.{name}.output")

    def _words(self, program: str) -> list[str | Path]:
        """Return the command line of a program of the cluster."""
        usr = self._programs / "usr"
        words: list[str | Path] = [
            "/usr/bin/env", f"LD_LIBRARY_PATH={usr}/lib/{_TRIPLET}:"
            f"{usr}/lib/{_TRIPLET}/ceph:{self._programs}/lib/{_TRIPLET}",
            f"PYTHONHOME={usr}",
            f"PYTHONPATH={usr}/lib/python3/dist-packages",
            f"CEPH_CONF={self.conf}"]
        if program == "ceph":
            words.append(usr / "bin/python3.11")
        return [*words, usr / "bin" / program]

    def _run(self, program: str, *words: object,
             seconds: float = _COMMAND_SECONDS) -> str:
        """Run a program of the cluster and return its output."""
        found = subprocess.run(
            list(map(str, [*self._words(program), *words])), text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, timeout=seconds)
        if found.returncode:
            raise CephError(f"{program} {' '.join(map(str, words))} failed: "
                            f"{found.stderr.strip()[-2000:]}")
        return found.stdout

    # Its state

    def ceph(self, *words: object) -> Any:
        """Run a command of the program ceph and return its decoded output."""
        output = self._run("ceph", "--format", "json", *words)
        return json.loads(output) if output.strip() else None

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until condition() is true; what: its name, for the error."""
        if not process.wait_for(condition, _SETTLE_SECONDS):
            raise CephError(f"the cluster is not {what} after {_SETTLE_SECONDS} s; "
                            f"its status is {self.ceph('status')}")

    def clean(self) -> bool:
        """Return whether the cluster has all replicas of all its data."""
        counts = self.ceph("status")["pgmap"]
        states = {row["state_name"] for row in counts["pgs_by_state"]}
        return states == {"active+clean"}

    def used(self) -> int:
        """Return how many bytes the images take on all OSDs, with their replicas."""
        (pool,) = self.ceph("df")["pools"]
        return pool["stats"]["bytes_used"]

    # Faults

    def kill(self, *osds: int) -> None:
        """Kill OSDs by SIGKILL, and wait until the cluster has marked them down.

        At least one must be left, because an OSD reports another one as down.
        """
        for osd in osds:
            process.end(self._daemons[f"osd.{osd}"])
        self.wait_for(lambda: not any(self._up_since(osd) for osd in osds),
                      f"without OSDs {osds}")

    def kill_all(self) -> None:
        """Kill all OSDs at once."""
        for osd in self.osds:
            self._daemons[f"osd.{osd}"].kill()
        for osd in self.osds:
            process.end(self._daemons[f"osd.{osd}"])

    def restart(self, *osds: int) -> None:
        """Start OSDs that were killed, and wait until all replicas are complete."""
        before = {osd: self._up_since(osd) for osd in osds}
        for osd in osds:
            self._start("osd", osd)
        self.wait_for(lambda: all(self._up_since(osd) > before[osd] for osd in osds)
                      and self.clean(), "clean")

    def _up_since(self, osd: int) -> int:
        """Return the epoch of the map since which an OSD is up, 0 if it is down."""
        found = self.ceph("osd", "dump")["osds"][osd]
        return found["up"] and found["up_from"]

    # Images

    def create(self, image: str, size: int) -> None:
        """Create an image of size bytes, in objects of OBJECT bytes."""
        self._run("rbd", "create", "--size", f"{size}B", "--object-size",
                  f"{OBJECT}B", f"{POOL}/{image}")

    def allocated(self, image: str) -> int:
        """Return how many bytes an image has objects for."""
        usage = json.loads(self._run("rbd", "du", "--format", "json",
                                     f"{POOL}/{image}"))
        return usage["images"][0]["used_size"]

    def export(self, image: str) -> Path:
        """Copy an image's data, as another client sees it, into a new file."""
        path = self.directory / f"{image}.export"
        path.unlink(missing_ok=True)
        self._run("rbd", "export", "--no-progress", f"{POOL}/{image}", path)
        return path

    def node(self, image: str) -> Options:
        """Return QEMU's block node for an image."""
        return {"driver": "rbd", "pool": POOL, "image": image,
                "conf": str(self.conf)}
