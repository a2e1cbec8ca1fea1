# SPDX-License-Identifier: GPL-2.0
"""Run the driver's KUnit suite, config_kunit.c, in the debug kernel, with no disk."""

import re
import subprocess

import pytest

from vm.guest import Guest

pytestmark = pytest.mark.kernels("7.3-debug")

SUITE = "/sys/kernel/debug/kunit/virtio_blk_config"
FEWEST_ROWS = 150


@pytest.fixture(scope="module")
def guest(kernel):
    # Without kunit.enable the kernel has the suite, but does not run it.
    with Guest(kernel, cpus=2, root="initramfs",
               cmdline="kunit.enable=1") as guest:
        yield guest


@pytest.fixture(scope="module")
def report(guest):
    """KUnit's report of the suite, which runs once."""
    assert "Subtest: virtio_blk_config" not in guest.log(), "the suite ran at boot"
    guest.run(f"echo run > {SUITE}/run", timeout=240)
    return guest.sysfs(f"{SUITE}/results")


def results(report, indent):
    """Return {name: passed} of the results at an indentation of the report.

    A skipped test has not passed.
    """
    found = re.findall(rf"^ {{{indent}}}(not ok|ok) \d+ ([^#\n]*)(.*)$", report,
                       re.MULTILINE)
    return {name.strip(): word == "ok" and "SKIP" not in more
            for word, name, more in found}


def test_kunit_suite_passes(guest, report):
    """Every test of the suite runs and passes."""
    tests = results(report, 4)
    planned = re.search(r"^ {4}1\.\.(\d+)$", report, re.MULTILINE)
    assert len(tests) == int(planned[1]) > 0
    failed = [name for depth in (0, 4, 8)
              for name, passed in results(report, depth).items() if not passed]
    assert not failed, report
    assert results(report, 0) == {"virtio_blk_config": True}


def test_table_is_long_enough(guest, report):
    """The table has enough rows, each with a name; some are refused, some accepted."""
    rows, refused = map(int, re.search(r"(\d+) rows, (\d+) refused",
                                       report).groups())
    table = report[:report.index("virtblk_test_count")]
    assert len(results(table, 8)) == rows >= FEWEST_ROWS
    assert 0 < refused < rows


def test_each_refusal_has_a_reason(guest, report):
    """The driver logs one line for each configuration that it refuses."""
    refused = sum(int(number) for number in
                  re.findall(r"\d+ (?:rows|random devices), (\d+) refused",
                             report))
    lines = re.findall(r" virtblk-config-test: (?:block size |a ring of |"
                       r"segments of |zones of |a write granularity of )",
                       guest.log())
    assert len(lines) == refused


def test_kunit_suite_causes_no_warning(guest, report):
    """The suite causes no warning, for example of the block layer about limits."""
    guest.check_log()
    taint = int(guest.sysfs("/proc/sys/kernel/tainted"))
    assert not taint & (1 << 9), "the kernel is tainted by a warning"


def _calls(kernel, object):
    """Return the undefined symbols of an object of a kernel that was built here."""
    return subprocess.run(["nm", "-u", kernel.build / f"{object}.o"], check=True,
                          text=True, stdout=subprocess.PIPE).stdout


def test_sanitizers_instrument_the_driver(kernel):
    """The sanitizers instrument the driver, the block layer and virtio_ring.

    KCSAN also instruments the code that orders their accesses.
    """
    checked = ("drivers/block/virtio_blk/queue", "block/blk-mq",
               "drivers/virtio/virtio_ring")
    ordering = ("kernel/locking/spinlock_debug", "kernel/workqueue", "lib/sbitmap")
    if kernel.name.endswith("-debug"):
        expected = [(object, "__asan_load") for object in checked]
    elif kernel.name.endswith("-kcsan"):
        expected = [(object, "__tsan_write") for object in checked] + \
            [(object, "__kcsan_") for object in ordering]
    else:
        pytest.skip("only the debug kernels have sanitizers")
    for object, function in expected:
        assert function in _calls(kernel, object), object
    for object in checked:
        assert "__ubsan_handle" in _calls(kernel, object), object
