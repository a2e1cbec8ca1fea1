# SPDX-License-Identifier: GPL-2.0
"""The comparison of vdpa_blk's workers with QEMU's iothreads, which make bench does.

It needs a host with KVM and devices that its administrator provides.  Here QEMU's half
is measured in guests under emulation, where the figures mean nothing.
"""

import json
from pathlib import Path

import pytest

from perf import charts, wallclock, workers
from perf.workers import BackEnd, Record, Row
from vm.errors import GuestError


@pytest.fixture
def host_files(tmp_path):
    """Files in place of /dev/nullb0 and of the nodes with 1 and 2 workers."""
    files = {name: tmp_path / name for name in ("nullb0", "bench1", "bench2")}
    for file in files.values():
        file.touch()
    return files


def found_on(files, locked=-1):
    """Return the titles of the back ends of a host, and what is missing."""
    ends, missing = workers.back_ends({1: files["bench1"], 2: files["bench2"]},
                                      files["nullb0"], locked)
    return [end.title for end in ends], missing


def test_back_ends_of_a_host(host_files):
    """A host that provides everything has four back ends, and nothing is missing."""
    assert found_on(host_files) == (
        ["QEMU, 1 iothread", "QEMU, iothread per vCPU", "vdpa_blk, 1 worker",
         "vdpa_blk, 2 workers"], [])


@pytest.mark.parametrize("name, said", (
    ("nullb0", "modprobe null_blk"), ("bench1", "vdpa_blk, 1 worker"),
    ("bench2", "vdpa_blk, 2 workers")))
def test_missing_back_end(host_files, name, said):
    """A device that the host lacks is named, with what to do; others are measured."""
    host_files[name].unlink()
    titles, (missing,) = found_on(host_files)
    assert said in missing and str(host_files[name]) in missing
    assert len(titles) == (2 if name == "nullb0" else 3)


def test_limit_of_locked_memory(host_files):
    """vdpa_blk is not measured if QEMU may not lock the guest's memory."""
    titles, missing = found_on(host_files, locked=64 << 20)
    assert titles == ["QEMU, 1 iothread", "QEMU, iothread per vCPU"]
    assert all("may lock 64 MiB" in why and "ulimit -l" in why for why in missing)
    assert len(missing) == 2


def test_guest_of_vdpa_blk():
    """A node of vdpa_blk is a device of QEMU's command line, and no disk of QEMU's."""
    end = BackEnd("vdpa_blk, 1 worker", "bench1", node=Path("/run/vdpa-blk/bench1"))
    guest = end.guest("6.12", 4, {"driver": "null-co"})
    assert guest._qemu_args == [
        "-device", "vhost-vdpa-device-pci,vhostdev=/run/vdpa-blk/bench1"]
    assert (guest.cpus, guest.disks) == (4, {})


def test_back_ends_take_turns():
    """Each number of vCPUs has each back end, in an order that alternates by round."""
    one, two = BackEnd("one", "a"), BackEnd("two", "b")
    assert list(workers.turns([one, two], (1, 2), 0)) == [
        (one, 1), (two, 1), (one, 2), (two, 2)]
    assert list(workers.turns([one, two], (1,), 1)) == [(two, 1), (one, 1)]


def test_table_of_workers():
    """The figures are beside those of the patches, and what is missing is said."""
    record = Record(3, 5, ["vdpa_blk, 2 workers: no node"], [
        Row("QEMU, 1 iothread", 4, [150e3, 160e3, 140e3]),
        Row("vdpa_blk, 1 worker", 4, [500e3, 510e3, 490e3]),
        Row("QEMU, 1 iothread", 8, [200e3, 200e3, 200e3])])
    header, rows = workers.table(record)
    assert header[:3] == ["vCPUs", "QEMU, 1 iothread", "vdpa_blk, 1 worker"]
    assert rows == [
        ["4", "150k (140 to 160)", "500k (490 to 510)", "158k", "576k", "-"],
        ["8", "200k (200 to 200)", "-", "271k", "576k", "803k"]]
    assert "Not measured: vdpa_blk, 2 workers: no node." in workers.words(record)
    assert Record.read(json.loads(json.dumps(record.as_dict()))) == record
    facts = {"kernel": "6.12", "jobs": [], "goals": [], "workers": record.as_dict()}
    assert "150k (140 to 160)" in charts.text(facts)


@pytest.mark.kernels("6.12")
@pytest.mark.full
def test_workers_end_to_end(kernel, host_files, monkeypatch, tmp_path):
    """QEMU's iothreads are measured with 1 and 2 vCPUs, each with as many queues."""
    monkeypatch.setattr(wallclock, "FIO", tmp_path / "fio")
    record = workers.measure(
        kernel, nodes={1: tmp_path / "no-node"}, backing=host_files["nullb0"],
        counts=(1, 2), rounds=1, seconds=1, ramp=0,
        block_node={"driver": "null-co", "size": 1 << 30})
    assert [(row.back_end, row.cpus) for row in record.rows] == [
        (title, cpus) for cpus in (1, 2)
        for title in ("QEMU, 1 iothread", "QEMU, iothread per vCPU")]
    assert all(len(row.iops) == 1 and row.iops[0] > 10 for row in record.rows)
    assert len(record.missing) == 1
    assert len(list((tmp_path / "fio").glob("*.json"))) == 4


def test_disk_that_the_guest_lacks():
    """A guest without the disk raises an error that names the back end."""
    class Empty:
        def run(self, words, check=True):
            return type("Result", (), {"output": ""})

    with pytest.raises(GuestError, match="0 disks with serial number qemu-one"):
        workers._sample(Empty(), BackEnd("QEMU, 1 iothread", "qemu-one"), 1, 1, 0, 0)
