# SPDX-License-Identifier: GPL-2.0
"""Kernels that start another one, reboot or panic under load; `make soak` has more."""

import socket
import struct

import pytest

from soak import kexec
from soak.kexec import PAGE, Core, check_core
from soak.power import LOST
from soak.scenario import Round
from vm.agent import Agent

pytestmark = pytest.mark.kernels("6.12")
_RELEASE = "6.12.1"


@pytest.mark.parametrize("way", [
    "kexecs", *(pytest.param(way, marks=pytest.mark.full)
                for way in ("reboots", "power cycles"))])
def test_next_kernel_finds_acknowledged_data(kernel, way):
    """After a kexec, a reboot or a power cycle under load all acknowledged data is there."""
    counts = Round(kexec.KEXEC, kernel, wanted={way: 1}).play()
    assert counts[way] == 1
    assert counts["acknowledged bytes"] > 1 << 18
    assert counts[LOST] == 0


@pytest.mark.full
def test_crash_kernel_writes_core(kernel):
    """The crash kernel writes a complete core to split and packed rings."""
    counts = Round(kexec.KEXEC, kernel, wanted={"cores": 2}).play()
    assert counts["cores"] == 2
    assert counts["MiB of cores"] > 3 * 180
    assert 0 < counts["KiB of the driver"] <= kexec.DRIVER_KIB


# The check of a core, without a guest

@pytest.fixture
def pages():
    """Four pages that differ."""
    return [bytes([number]) * PAGE for number in range(4)]


def write_core(path, pages, release=_RELEASE):
    """Write an ELF file with a note and ranges of memory; return its size."""
    note = f"VMCOREINFO\0\0OSRELEASE={release}\n".encode()
    half = len(pages) // 2
    # The first page of the second range comes first, too, as the kernel's text does.
    ranges = [(half, pages[half:half + 1]), (0, pages[:half]), (half, pages[half:])]
    at = PAGE + len(note)
    rows = [struct.pack("<IIQQQQQQ", 4, 0, PAGE, 0, 0, len(note), 0, 0)]
    for first, found in ranges:
        size = len(found) * PAGE
        rows.append(struct.pack("<IIQQQQQQ", 1, 0, at, 0, first * PAGE, size, 0, 0))
        at += size
    head = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 4, 62, 1, 0, 64, 0, 0,
                       64, 56, len(rows), 0, 0, 0)
    path.write_bytes((head + b"".join(rows)).ljust(PAGE, b"\0") + note
                     + b"".join(page for _, found in ranges for page in found)
                     + bytes(PAGE))
    return at


def complaints(path, size, pages, digest=None):
    """Check a core of 4 pages, by default against its own digest."""
    core = Core(path, size)
    return check_core(core, _RELEASE, 4 * PAGE, digest or core.digest(), set(pages))


def test_core_is_complete(tmp_path, pages):
    """A complete core has no faults, wherever it begins on the disk."""
    path = tmp_path / "core"
    size = write_core(path, pages)
    assert complaints(path, size, pages) == []
    digest = Core(path, size).digest()
    path.write_bytes(bytes(PAGE) + path.read_bytes())
    assert check_core(Core(path, size, PAGE), _RELEASE, 4 * PAGE, digest,
                      set(pages)) == []


def test_damage_of_core_is_found(tmp_path, pages):
    """A core that is cut, stale, of another kernel, or lacks a page is refused."""
    path = tmp_path / "core"
    size = write_core(path, pages)
    digest = Core(path, size).digest()
    assert "segments end at" in complaints(path, size - PAGE, pages)[0]
    assert complaints(path, size, [*pages, b"?" * PAGE]) == ["1 of 5 pages are missing"]
    data = path.read_bytes()
    path.write_bytes(data[:size - 1] + b"?" + data[size:])
    found = complaints(path, size, pages, digest)
    assert len(found) == 2
    assert "that of the other copy" in found[0] and found[1] == "1 of 4 pages are missing"
    size = write_core(path, pages[:2])
    assert "fewer than" in complaints(path, size, pages[:2])[0]
    size = write_core(path, pages, "6.1.0")
    assert "do not have the release 6.12.1" in complaints(path, size, pages)[0]
    path.write_bytes(b"no ELF" * 100)
    with pytest.raises(kexec.GuestError, match="is no ELF file"):
        Core(path, 600)


def test_kernel_without_kexec_is_refused():
    """A kernel that lacks an option is an error that names both."""
    class Lean:
        name = "7.3"

        def has(self, option):
            return option == "CONFIG_PROC_VMCORE"

    with pytest.raises(kexec.UserError, match="KERNEL is 7.3, which has no "
                       "CONFIG_KEXEC_FILE; choose KERNEL=6.12"):
        kexec.check_kernel(Lean())


def test_messages_of_last_kernel_are_dropped():
    """The agent of the next kernel is heard after any part of the last one's messages."""
    here, there = socket.socketpair()
    with here, there:
        agent = Agent(here)
        there.sendall(b"ready 6.12\n")
        agent.pump(1)
        old = agent.run("true", 5)
        there.sendall(b"out 1 1000\nhalf of it")
        agent.pump(1)
        agent.await_next()
        for part in (b"exit 1 0\nout 1 7", b"rea", b"dy 7.3\n"):
            assert agent.release is None
            there.sendall(part)
            agent.pump(1)
        assert agent.release == "7.3"
        new = agent.run("true", 5)
        there.sendall(b"out 2 3\nabcexit 2 0\n")
        agent.pump(1)
        assert (new.outcome, new.output) == ("exit", b"abc")
        assert old.outcome is None
