# SPDX-License-Identifier: GPL-2.0
"""The vhost-user protocol of vblksim, with a monitor that also sends what is wrong.

No guest.  The protocol is that of QEMU's docs/interop/vhost-user.rst.
"""

import os
import select
import struct

import pytest

from . import monitor as m
from .monitor import Monitor

PROTOCOL = 1 << 30
CONFIG_WCE, MQ, EVENT_IDX, VERSION_1, ACCESS_PLATFORM = \
    1 << 11, 1 << 12, 1 << 29, 1 << 32, 1 << 33
MIB = 1 << 20
# The guest's memory: 1 MiB at address 0, which the monitor has at USER.
USER = 0x7f0000000000
SIZE = 16


@pytest.fixture
def monitor(tmp_path):
    """A connected monitor of a device with two queues, that may send anything."""
    with Monitor(tmp_path, "--queues=2", "--features=default,+config_wce",
                 "--writeback=1", "--capacity=1M") as monitor:
        yield monitor


def number(value: int) -> bytes:
    return struct.pack("=Q", value)


def state(queue: int, value: int) -> bytes:
    return struct.pack("=II", queue, value)


def config(offset: int, data: bytes, flags: int = 0) -> bytes:
    return struct.pack("=III", offset, len(data), flags) + data


def addresses(queue: int, *, desc: int = 0, used: int = 0x2000, avail: int = 0x1000,
              flags: int = 0) -> bytes:
    return struct.pack("=IIQQQQ", queue, flags, USER + desc, USER + used,
                       USER + avail, 0)


def negotiate(monitor: Monitor) -> None:
    """Accept all features but EVENT_IDX, and ask for confirmations."""
    monitor.send(m.SET_PROTOCOL_FEATURES,
                 number(monitor.number(m.GET_PROTOCOL_FEATURES)))
    features = monitor.number(m.GET_FEATURES) & ~EVENT_IDX
    assert monitor.confirm(m.SET_FEATURES, number(features)) == 0


def set_up(monitor: Monitor, queue: int = 0, base: int = 0) -> tuple[int, int, int]:
    """Set a queue up as QEMU does; return memory, kick and call."""
    guest, kick, call = m.memory(MIB), m.event(1), m.event(0)
    assert monitor.confirm(m.SET_MEM_TABLE, m.table(m.region(0, MIB, USER)),
                           (guest,)) == 0
    for request, payload, files in (
            (m.SET_VRING_NUM, state(queue, SIZE), ()),
            (m.SET_VRING_BASE, state(queue, base), ()),
            (m.SET_VRING_ADDR, addresses(queue), ()),
            (m.SET_VRING_KICK, number(queue), (kick,)),
            (m.SET_VRING_CALL, number(queue), (call,)),
            (m.SET_VRING_ENABLE, state(queue, 1), ())):
        assert monitor.confirm(request, payload, files) == 0
    return guest, kick, call


def put_get_id(guest: int, slot: int) -> None:
    """Make a GET_ID request available at a slot of the ring; its answer is at 0x4000."""
    head = slot % 4 * 3
    os.pwrite(guest, struct.pack("<IIQ", 8, 0, 0), 0x3000)
    os.pwrite(guest, struct.pack(
        "<QIHH QIHH QIHH", 0x3000, 16, 1, head + 1, 0x4000, 20, 3, head + 2,
        0x4014, 1, 2, 0), head * 16)
    os.pwrite(guest, b"\xff" * 21, 0x4000)
    os.pwrite(guest, struct.pack("<H", head), 0x1004 + slot % SIZE * 2)
    os.pwrite(guest, struct.pack("<H", slot + 1), 0x1002)


def interrupts(call: int) -> int:
    """Wait for an interrupt, and return how many there were."""
    assert select.select([call], [], [], 20)[0]
    return struct.unpack("=Q", os.read(call, 8))[0]


def used_index(guest: int) -> int:
    return struct.unpack("<H", os.pread(guest, 2, 0x2002))[0]


def wait_used(guest: int, index: int) -> bytes:
    """Wait for the used ring to reach an index; return the answer of put_get_id()."""
    assert m.process.wait_for(lambda: used_index(guest) == index, 20)
    return os.pread(guest, 21, 0x4000)


def test_offer(monitor):
    """The device offers its features and queues, and not what VDUSE alone needs."""
    features = monitor.number(m.GET_FEATURES)
    assert features & (PROTOCOL | VERSION_1 | CONFIG_WCE | MQ) == \
        PROTOCOL | VERSION_1 | CONFIG_WCE | MQ
    assert not features & ACCESS_PLATFORM
    assert monitor.number(m.GET_PROTOCOL_FEATURES) == 1 << 0 | 1 << 3 | 1 << 5 | 1 << 9
    assert monitor.number(m.GET_QUEUE_NUM) == 2
    assert "num-queues=2,queue-size=128\n" in monitor.output
    assert monitor.end() == 0
    assert not monitor.path.exists()


def test_request_and_reply(monitor):
    """A request is executed, its interrupt is sent, and the base follows the ring."""
    negotiate(monitor)
    guest, kick, call = set_up(monitor)
    for slot in range(3):
        put_get_id(guest, slot)
        os.eventfd_write(kick, 1)
        assert wait_used(guest, slot + 1) == b"vblksim".ljust(20, b"\0") + b"\0"
        assert interrupts(call) == 1
    assert monitor.ask(m.GET_VRING_BASE, state(0, 0)) == state(0, 3)
    # A queue that is stopped takes nothing.
    put_get_id(guest, 3)
    assert monitor.ask(m.GET_VRING_BASE, state(0, 0)) == state(0, 3)
    assert used_index(guest) == 3
    assert monitor.end() == 0


def test_second_connection_goes_on(monitor):
    """A monitor that connects again goes on with the same rings, at a base."""
    negotiate(monitor)
    guest, kick, call = set_up(monitor)
    put_get_id(guest, 0)
    os.eventfd_write(kick, 1)
    wait_used(guest, 1)
    monitor.disconnect()
    put_get_id(guest, 1)
    assert monitor.saw("the monitor has closed the connection")
    monitor.connect()
    negotiate(monitor)
    for file in (kick, call):
        os.close(file)
    kick, call = m.event(1), m.event(0)
    assert monitor.confirm(m.SET_MEM_TABLE, m.table(m.region(0, MIB, USER)),
                           (guest,)) == 0
    for request, payload, files in (
            (m.SET_VRING_NUM, state(0, SIZE), ()),
            (m.SET_VRING_BASE, state(0, 1), ()),
            (m.SET_VRING_ADDR, addresses(0), ()),
            (m.SET_VRING_KICK, number(0), (kick,)),
            (m.SET_VRING_ENABLE, state(0, 1), ())):
        assert monitor.confirm(request, payload, files) == 0
    # The request that came without a monitor is taken without a kick.
    assert wait_used(guest, 2)[:7] == b"vblksim"
    # Its interrupt had no file yet, and comes as soon as there is one.
    assert monitor.confirm(m.SET_VRING_CALL, number(0), (call,)) == 0
    assert interrupts(call) == 1
    assert monitor.end() == 0


def test_second_monitor_is_refused(monitor):
    """A second monitor is refused, and the first one goes on."""
    assert monitor.other_is_closed()
    assert "a second monitor" in monitor.output
    assert monitor.number(m.GET_QUEUE_NUM) == 2


def test_configuration_space(monitor):
    """The monitor reads the configuration space, and writes its one writable field."""
    negotiate(monitor)
    whole = monitor.ask(m.GET_CONFIG, config(0, bytes(60)))
    assert whole[:12] == struct.pack("=III", 0, 60, 0)
    assert whole[12:20] == struct.pack("<Q", MIB // 512)
    assert whole[12 + 32] == 1
    assert monitor.ask(m.GET_CONFIG, config(34, bytes(2)))[12:] == b"\2\0"
    assert monitor.confirm(m.SET_CONFIG, config(32, b"\0")) == 0
    assert monitor.ask(m.GET_CONFIG, config(32, bytes(1)))[12:] == b"\0"


# Message, payload, number of files, and what vblksim says of it.
BAD = {
    "unknown": (99, b"", 0, "message 99: there is no such message"),
    "not-offered": (m.SET_VRING_ERR + 5, b"", 0, "no such message, or its feature"),
    "short": (m.SET_FEATURES, b"1234", 0, "it has 4 bytes, and must have 8"),
    "long": (m.GET_FEATURES, b"12345678", 0, "it has 8 bytes, and must have 0"),
    "files": (m.GET_FEATURES, b"", 1, "it passes 1 files, and can pass 0"),
    "protocol": (m.SET_PROTOCOL_FEATURES, number(1 << 40), 0, "were not offered"),
    "queue": (m.SET_VRING_NUM, state(2, SIZE), 0, "queue 2: there are 2 queues"),
    "queue-of-base": (m.GET_VRING_BASE, state(1 << 31, 0), 0, "there are 2 queues"),
    "queue-of-file": (m.SET_VRING_CALL, number(255), 1, "queue 255: there are 2"),
    "ring-0": (m.SET_VRING_NUM, state(0, 0), 0, "a ring of 0 entries"),
    "ring-65536": (m.SET_VRING_NUM, state(0, 65536), 0, "a ring of 65536 entries"),
    "log": (m.SET_VRING_ADDR, addresses(0, flags=1), 0, "flags 0x1 were not offered"),
    "kick-without-file": (m.SET_VRING_KICK, number(1 << 8), 0, "does not poll"),
    "call-without-file": (m.SET_VRING_CALL, number(0), 0, "number 0 and 0 files"),
    "call-with-file": (m.SET_VRING_CALL, number(1 << 8), 1, "number 0x100 and 1 files"),
    "no-backend": (m.SET_BACKEND_REQ_FD, b"", 0, "it has no socket"),
    "config-size": (m.GET_CONFIG, struct.pack("=III", 0, 200, 0), 0,
                    "200 bytes of the configuration space in a message of 12"),
    "config-head": (m.GET_CONFIG, b"1234", 0, "in a message of 4"),
    "config-end": (m.GET_CONFIG, config(90, bytes(7)), 0, "7 bytes at 90 of a "),
    "config-offset": (m.GET_CONFIG, config(0xffffffff, bytes(2)), 0,
                      "2 bytes at 4294967295 of a "),
    "config-read-only": (m.SET_CONFIG, config(0, bytes(8)), 0, "only writeback"),
    "config-migration": (m.SET_CONFIG, config(32, b"\0", 1), 0, "only writeback"),
    "memory-without-file": (m.SET_MEM_TABLE, m.table(m.region(0, MIB, USER)), 0,
                            "1 regions and 0 files"),
    "memory-count": (m.SET_MEM_TABLE, struct.pack("=II", 9, 0), 0, "9 regions"),
    "memory-short": (m.SET_MEM_TABLE, struct.pack("=II", 2, 0), 2,
                     "2 regions in 8 bytes"),
    "memory-empty": (m.SET_MEM_TABLE, m.table(m.region(0, 0, USER)), 1,
                     "no range of addresses"),
    "memory-wraps": (m.SET_MEM_TABLE, m.table(m.region(1 << 63, 1 << 63 | MIB, 0)), 1,
                     "no range of addresses"),
    "memory-ends": (m.SET_MEM_TABLE, m.table(m.region(0, MIB, USER, 4096)), 1,
                    "region 0 ends at byte 1052672 of a file of 1048576 bytes"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_message(monitor, case):
    """A message that is not valid is named with the reason, and ends the connection.

    The device then serves the next monitor.  At the end it says that it had an error.
    """
    request, payload, files, reason = BAD[case]
    negotiate(monitor)
    monitor.send(request, payload, tuple(m.memory(MIB) for _ in range(files)))
    assert monitor.is_closed()
    assert monitor.saw("closing the connection")
    assert reason in monitor.output
    monitor.connect()
    negotiate(monitor)
    guest, kick, _ = set_up(monitor)
    put_get_id(guest, 0)
    os.eventfd_write(kick, 1)
    assert wait_used(guest, 1)[:7] == b"vblksim"
    assert monitor.end() == 1


BAD_HEADERS = {
    "version": ({"flags": 2}, "its flags are 0x2"),
    "reply": ({"flags": 1 | 1 << 2}, "its flags are 0x5"),
    "huge": ({"size": 1 << 31}, "it has 2147483648 bytes, and the longest"),
    "truncated": ({"size": 100}, "it ends after 8 of 100 bytes"),
}


@pytest.mark.parametrize("case", BAD_HEADERS)
def test_bad_header(monitor, case):
    """A message with a wrong header, or that stops half-way, ends the connection."""
    header, reason = BAD_HEADERS[case]
    monitor.send(m.SET_FEATURES, number(0), **header)
    assert monitor.is_closed()
    assert monitor.saw(reason), monitor.output
    monitor.connect()
    assert monitor.number(m.GET_QUEUE_NUM) == 2


def test_settings_while_a_queue_runs(monitor):
    """A monitor that moves a ring that runs, or changes features, is refused."""
    for request, payload in ((m.SET_VRING_NUM, state(0, 8)),
                             (m.SET_VRING_BASE, state(0, 8)),
                             (m.SET_VRING_ADDR, addresses(0)),
                             (m.SET_FEATURES, number(VERSION_1 | PROTOCOL))):
        negotiate(monitor)
        set_up(monitor)
        monitor.send(request, payload)
        assert monitor.is_closed()
        monitor.connect()
    assert monitor.saw("SET_VRING_ADDR: queue 0 runs")
    assert monitor.saw("SET_FEATURES: features change")


@pytest.mark.parametrize("wrong", ({"desc": MIB}, {"avail": -1}, {"used": MIB + 16}),
                         ids=str)
def test_ring_outside_memory(monitor, wrong):
    """A ring that is not in the guest's memory is refused."""
    negotiate(monitor)
    assert monitor.confirm(m.SET_MEM_TABLE, m.table(m.region(0, MIB, USER)),
                           (m.memory(MIB),)) == 0
    monitor.send(m.SET_VRING_NUM, state(0, SIZE))
    monitor.send(m.SET_VRING_ADDR, addresses(0, **wrong))
    monitor.send(m.SET_VRING_KICK, number(0), (m.event(0),))
    monitor.send(m.SET_VRING_ENABLE, state(0, 1))
    assert monitor.is_closed()
    assert monitor.saw("is not in the guest's memory"), monitor.output


def test_new_memory_under_a_request(tmp_path):
    """A request that the device has stays valid when the memory table is replaced."""
    with Monitor(tmp_path, "--script=on type=get_id: hold") as monitor:
        negotiate(monitor)
        guest, kick, _ = set_up(monitor)
        put_get_id(guest, 0)
        os.eventfd_write(kick, 1)
        assert m.process.wait_for(lambda: monitor.ctl("requests") == "1", 20)
        half = MIB // 2
        assert monitor.confirm(
            m.SET_MEM_TABLE, m.table(m.region(0, half, USER),
                                     m.region(half, half, USER + half, half)),
            (guest, guest)) == 0
        assert monitor.ctl("release") == "1"
        assert wait_used(guest, 1)[:7] == b"vblksim"
        assert monitor.end() == 0


def test_ring_that_cannot_start(monitor):
    """A ring of the driver's that breaks a rule is not started, and can be set up again."""
    negotiate(monitor)
    assert monitor.confirm(m.SET_MEM_TABLE, m.table(m.region(0, MIB, USER)),
                           (m.memory(MIB),)) == 0
    for request, payload, files in (
            (m.SET_VRING_NUM, state(0, 12), ()), (m.SET_VRING_ADDR, addresses(0), ()),
            (m.SET_VRING_KICK, number(0), (m.event(0),)),
            (m.SET_VRING_ENABLE, state(0, 1), ())):
        assert monitor.confirm(request, payload, files) == 0
    assert monitor.saw("SPLIT_SIZE_POWER"), monitor.output
    assert monitor.ask(m.GET_VRING_BASE, state(0, 0)) == state(0, 0)
    # With no queue running, the features can change.
    assert monitor.confirm(m.SET_FEATURES, number(VERSION_1 | PROTOCOL)) == 0
    guest, kick, _ = set_up(monitor)
    put_get_id(guest, 0)
    os.eventfd_write(kick, 1)
    assert wait_used(guest, 1)[:7] == b"vblksim"
    # The rule counts.
    assert monitor.end() == 3


def test_features_that_do_not_work(monitor):
    """A device whose driver lacks a feature that it needs says so, and does nothing."""
    negotiate(monitor)
    assert monitor.confirm(m.SET_FEATURES, number(PROTOCOL)) == 0
    guest, kick, _ = set_up(monitor)
    put_get_id(guest, 0)
    os.eventfd_write(kick, 1)
    assert monitor.saw("its queues stay stopped")
    assert monitor.ask(m.GET_VRING_BASE, state(0, 0)) == state(0, 0)
    assert used_index(guest) == 0
    # VERSION_1 must be accepted.
    assert monitor.end() == 3


def test_required_is_refused(tmp_path):
    """The device says that it cannot require a feature of the driver."""
    log = tmp_path / "log"
    started = m.process.spawn([m.simulator.build(), f"--socket={tmp_path / 'vhost'}",
                               f"--control={tmp_path / 'control'}",
                               "--required=indirect_desc"], log)
    assert started.wait(20) == 1
    assert "required: a vhost-user device cannot refuse" in log.read_text()


def test_socket_in_use(monitor, tmp_path):
    """A second vblksim does not take the socket of the first one."""
    log = tmp_path / "log2"
    started = m.process.spawn([m.simulator.build(), f"--socket={monitor.path}",
                               f"--control={tmp_path / 'control2'}"], log)
    assert started.wait(20) == 1
    assert "another program listens at" in log.read_text()
    assert monitor.number(m.GET_QUEUE_NUM) == 2
