# SPDX-License-Identifier: GPL-2.0
"""Run the KUnit suites of the driver and of vdpa_blk in the debug kernel, with no disk.

The driver's are built in: config_kunit.c, affinity_kunit.c, latency_kunit.c,
ring_kunit.c and device_kunit.c.  Those of vdpa_blk are part of its module: ring_kunit.c, used_kunit.c,
random_kunit.c and usual_kunit.c.
"""

import re
import subprocess

import pytest

from host import process
from vm import kernels
from vm.guest import Guest

pytestmark = pytest.mark.kernels("7.3-debug")

SUITES = "/sys/kernel/debug/kunit"
FEWEST_ROWS = 150
# The suites of vdpa_blk, and how many results each has at least: rows and kinds of rings.
OF_VDPA_BLK = {"vdpa_blk_ring": 35, "vdpa_blk_used": 20, "vdpa_blk_random": 4,
               "vdpa_blk_usual": 90}


@pytest.fixture(scope="module")
def guest(kernel):
    # Without kunit.enable the kernel has the suite, but does not run it.
    # affinity_kunit.c needs four possible CPUs; two of them are enough to run it.
    with Guest(kernel, cpus=4, root="initramfs",
               cmdline="kunit.enable=1 maxcpus=2") as guest:
        # The task that runs a suite waits for its end, on a busy host for minutes.
        guest.run("""timeout=/proc/sys/kernel/hung_task_timeout_secs
            [ ! -e $timeout ] || echo 0 > $timeout""")
        yield guest


@pytest.fixture(scope="module")
def report(guest):
    """KUnit's report of the suite, which runs once."""
    return run(guest, "virtio_blk_config")


@pytest.fixture(scope="module")
def guest_of_vdpa_blk(guest):
    """The guest, with vdpa_blk and its suites."""
    if guest.run(f"ls -d {SUITES}/vdpa_blk_ring", check=False).status:
        module = kernels.build_vdpa(guest.kernel, kunit=True)
        guest.put(module.read_bytes(), "/tmp/vdpa_blk.ko")
        guest.run("insmod /tmp/vdpa_blk.ko")
    return guest


def run(guest, suite):
    """Run a suite, which has not run before, and return KUnit's report."""
    assert f"Subtest: {suite}" not in guest.log(), "the suite ran by itself"
    guest.run(f"echo run > {SUITES}/{suite}/run", timeout=240)
    return guest.sysfs(f"{SUITES}/{suite}/results")


def results(report, indent):
    """Return {name: passed} of the results at an indentation of the report.

    A skipped test has not passed.
    """
    found = re.findall(rf"^ {{{indent}}}(not ok|ok) \d+ ([^#\n]*)(.*)$", report,
                       re.MULTILINE)
    return {name.strip(): word == "ok" and "SKIP" not in more
            for word, name, more in found}


def check(report, suite):
    """Check that every test of a suite ran and passed."""
    tests = results(report, 4)
    planned = re.search(r"^ {4}1\.\.(\d+)$", report, re.MULTILINE)
    assert len(tests) == int(planned[1]) > 0
    failed = [name for depth in (0, 4, 8)
              for name, passed in results(report, depth).items() if not passed]
    assert not failed, report
    assert results(report, 0) == {suite: True}


def test_kunit_suite_of_rings_passes(guest):
    """A ring that the driver runs itself is right, also with a hostile device."""
    found = run(guest, "virtio_blk_ring")
    check(found, "virtio_blk_ring")
    assert len(results(found, 4)) == 4 and len(results(found, 8)) == 2


def test_latency_suite_passes(guest):
    """Each time belongs to one bucket of a histogram, which is narrow."""
    report = run(guest, "virtio_blk_latency")
    check(report, "virtio_blk_latency")
    assert len(results(report, 4)) == 3


def test_device_suite_passes(guest):
    """A device that the virtio core would warn about is refused before that."""
    report = run(guest, "virtio_blk_device")
    check(report, "virtio_blk_device")
    assert len(results(report, 8)) == 5, report


def test_kunit_suite_passes(guest, report):
    """Every test of the driver's suite runs and passes."""
    check(report, "virtio_blk_config")


def test_affinity_suite_passes(guest):
    """The queue map has a queue for each CPU, whatever CPUs the vectors go to."""
    report = run(guest, "virtio_blk_affinity")
    check(report, "virtio_blk_affinity")
    assert len(results(report, 8)) >= 15, report


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

    def lines():
        return len(re.findall(r" virtblk-config-test: (?:block size |a ring of |"
                              r"segments of |zones of |a write granularity of )",
                              guest.log()))

    # The console may lag behind.
    process.wait_for(lambda: lines() >= refused, 30)
    assert lines() == refused


def test_kunit_suite_causes_no_warning(guest, report):
    """The suite causes no warning, for example of the block layer about limits."""
    guest.check_log()
    taint = int(guest.sysfs("/proc/sys/kernel/tainted"))
    assert not taint & (1 << 9), "the kernel is tainted by a warning"


@pytest.mark.parametrize("suite", OF_VDPA_BLK)
def test_kunit_suite_of_vdpa_blk_passes(guest_of_vdpa_blk, suite):
    """Every test of the suite runs and passes, and the kernel warns of nothing."""
    report = run(guest_of_vdpa_blk, suite)
    check(report, suite)
    rows = re.findall(r"^ {4,8}ok \d+", report, re.MULTILINE)
    assert len(rows) >= OF_VDPA_BLK[suite], report
    guest_of_vdpa_blk.check_log()


def test_sanitizers_instrument_vdpa_blk(kernel):
    """The sanitizers of a debug kernel instrument the module that the suites test."""
    if not kernel.has("CONFIG_UBSAN"):
        pytest.skip("only the debug kernels have sanitizers")
    module = kernels.build_vdpa(kernel, kunit=True)
    calls = subprocess.run(["nm", "-u", module], check=True, text=True,
                           stdout=subprocess.PIPE).stdout
    assert ("__tsan_write" if kernel.name.endswith("-kcsan") else "__asan_load") in calls
    assert "__ubsan_handle" in calls


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
