# SPDX-License-Identifier: GPL-2.0
"""vdpa_blk keeps the rules of VIRTIO: each rule of vdpadrv, and the page that lists them.

Documentation/conformance-device.rst has a row for each rule.
"""

import re
from pathlib import Path

import pytest

from common import vdpa, vdpadrv
from testing.docs.test_conformance import known_tests, literals, tables
from testing.docs.virtio_sections import SECTIONS
from vm.disk import Disk

from . import vdpa_faults

TOP = Path(__file__).resolve().parents[3]
PAGE = TOP / "Documentation/conformance-device.rst"
RULES = dict(re.findall(r'^\tX\((\w+), "([\d.]+)", ',
                        (TOP / "tools/vdpadrv/rules.h").read_text(), re.MULTILINE))
# A device that is read-only is held to this one, and others to all others.
READ_ONLY = "READ_ONLY"


def problems(text, rules, tests):
    """Return what is wrong with the page's text, as sentences."""
    found, named, sections = [], {}, set()
    for line, rows in tables(text):
        for row in rows[1:]:
            where = f"the row {' | '.join(row)[:60]!r}"
            if len(row) != len(rows[0]) or not all(row):
                found.append(f"{where} has an empty cell")
                continue
            sections.add(row[0])
            if row[0] not in SECTIONS:
                found.append(f"{where}: VIRTIO has no section {row[0]}")
            names = literals(row[2])
            if not names and not re.match(r"none: \S", row[2]):
                found.append(f"{where} names no rule or test, and gives no reason")
            for name in names:
                if "::" in name:
                    if name not in tests:
                        found.append(f"{where}: there is no test {name}")
                elif rules.get(name) != row[0]:
                    found.append(f"{where}: the section of {name} is {rules.get(name)}")
                else:
                    named[name] = row
    return (found + [f"{name} has no row" for name in rules if name not in named] +
            [f"{section.number} ({section.title}) has no row"
             for section in SECTIONS.values()
             if section.binds_devices and section.number not in sections])


def test_page_of_device_matches_rules():
    """Each rule and each section on devices has a row, and all names on the page exist."""
    assert len(RULES) > 30
    assert problems(PAGE.read_text(), RULES, known_tests(TOP)) == []


@pytest.mark.parametrize("was,now,problem", (
    ("``USED_LENGTH``", "``USED_LENGHT``", "the section of USED_LENGHT is None"),
    ("- 2.7.8.2\n", "- 2.7.8.1\n", "the section of USED_LENGTH is 2.7.8.2"),
    ("``ZEROES``", "none: why not", "ZEROES has no row"),
    ("     - none: vhost-vdpa", "     - vhost-vdpa", "gives no reason"),
    ("- 2.8.12\n", "- 2.8.11\n", "2.8.12 (Device Requirements: Virtqueues) has no row"),
    ("- 3.4.2\n", "- 3.5.2\n", "VIRTIO has no section 3.5.2"),
    ("::test_writes_are_durable", "::test_writes_are_dirable", "there is no test"),
))
def test_errors_on_page_of_device_are_found(was, now, problem):
    """The comparison finds a wrong name, a wrong section, and a rule without a row."""
    text = PAGE.read_text()
    assert was in text
    found = problems(text.replace(was, now), RULES, known_tests(TOP))
    assert any(problem in each for each in found), found


# The device

@pytest.fixture(scope="module")
def guest(kernel):
    """A guest with the device's module, vdpadrv, and disks for it to serve."""
    disks = [Disk("back", "ram", 64 << 20, queues=4),
             Disk("blocks", "ram", 64 << 20, queues=2, logical_block_size=4096,
                  physical_block_size=4096)]
    with vdpadrv.guest_with(kernel, disks=disks) as guest:
        guest.tolerate(r"virtqueue \d+ stops, because")
        yield guest


def held_to(guest, backing, words="", **settings):
    """Run vdpadrv's rules on a device; return those that it was held to."""
    with vdpa.Device(guest, backing, bus="vhost_vdpa", **settings) as device:
        output = guest.run(f"{vdpadrv.PROGRAM} rules {device.node()} {words} 2>&1",
                           timeout=240, check=False).output
        assert output.splitlines()[-1] == "ok rules", output[-1500:]
    return set(re.findall(r"^rule (\w+) ", output, re.MULTILINE))


# 6.1 has no vDPA.
@pytest.mark.kernels("6.12", full=("7.3-debug",))
@pytest.mark.parametrize("backing,settings", (
    ("back", {"queues": 4, "workers": 2, "serial": "SERIAL123"}),
    pytest.param("back", {"queues": 1, "write_cache": 0,
                          "serial": "ABCDEFGHIJ0123456789"}, marks=pytest.mark.full)),
    ids=("usual", "no-cache"))
def test_vdpa_blk_keeps_the_rules(guest, backing, settings):
    """The device keeps all rules, on split and on packed rings."""
    assert held_to(guest, backing, **settings) == set(RULES) - {READ_ONLY}


@pytest.mark.kernels("6.12", full=("7.3-debug",))
def test_read_only_vdpa_blk_writes_nothing(guest):
    """A read-only device fails writes with IOERR, also of a driver that ignores RO."""
    assert held_to(guest, "back", readonly=1) == {READ_ONLY}


# vdpadrv

@pytest.fixture(scope="module")
def faulty(guest, kernel, tmp_path_factory):
    """The guest, with a vdpa_blk in which the parameter `fault` chooses a fault."""
    module = vdpa_faults.build(kernel, tmp_path_factory.mktemp("faults"),
                               vdpa_faults.add_faults)
    guest.put(module, "/tmp/faulty.ko")
    with guest.cleanup("rmmod vdpa_blk; insmod /tmp/vdpa_blk.ko"):
        guest.run("rmmod vdpa_blk; insmod /tmp/faulty.ko")
        yield guest


def test_each_rule_has_a_fault():
    """There is a fault for each rule, which a broken rule would not find."""
    assert vdpa_faults.FAULTS.keys() == RULES.keys()


@pytest.mark.full(reason="a test of the tests")
@pytest.mark.kernels("6.12")
@pytest.mark.parametrize("rule", vdpa_faults.FAULTS)
def test_rule_finds_its_fault(faulty, rule):
    """A device with a fault breaks the rule, and vdpadrv says so."""
    parameter = "/sys/module/vdpa_blk/parameters/fault"
    settings = {"readonly": 1} if rule == READ_ONLY else {}
    faulty.run(f"echo {vdpa_faults.number(rule)} > {parameter}")
    try:
        with vdpa.Device(faulty, "back", bus="vhost_vdpa", serial="S", **settings) as device:
            result = faulty.run(f"{vdpadrv.PROGRAM} rules {device.node()} --name {rule} "
                                "--hang-ms 3000", timeout=60, check=False)
    finally:
        faulty.run(f"echo 0 > {parameter}")
    assert result.status == 1 and "FAIL: " in result.output, result
