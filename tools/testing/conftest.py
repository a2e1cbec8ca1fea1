# SPDX-License-Identifier: GPL-2.0
"""What all suites share: the kernels that tests run on.

A test that takes the fixture `kernel` runs once for each kernel that its mark
names, on 6.12 if it has none:

    pytestmark = pytest.mark.kernels("6.1", "6.12")

kernels("6.12", full=("7.3-debug",)) has it run on the second with
`make check-full` only.  `make check KERNEL=6.1` runs all of them on that kernel
instead.  Tests marked `module` load and unload the driver, and leave out
kernels that have it built in.

A test that takes the fixture `front` as well runs once for each front of vblksim, see
vblksim.FRONTS: VDUSE on the kernels above, and vhost-user on 6.12, with `make check-full`
on all of VHOST_KERNELS.  The mark says otherwise, with the same words:

    @pytest.mark.fronts("vduse", "vhost-user")

The default is fronts("vduse", full=("vhost-user",)).

With QUICK set, only tests marked `quick` run, on 6.12 unless KERNEL names another:
they tell within minutes whether a change is worth the whole suite.

With MINUTES set, tests that would begin later than that are skipped, and the last
lines tell how many.

With pytest's option -n several workers, processes of their own, run tests at the
same time; -n auto has as many as the host can serve.  What a file tests on one
kernel is one worker's: its guests boot once.
"""

import contextlib
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from common import vblksim
from _pytest.terminal import TerminalReporter
from host.ui import UserError
from vm import kernels, qemu
from vm.guest import Guest
from vm.kernels import Kernel

DEFAULT = ("6.12",)
# Kernels for vblksim's devices on PCI.  6.1 has no VDUSE.
VHOST_KERNELS = {"usual": DEFAULT, "full": ("6.1", "7.3-debug")}
# The CPUs of most guests, which under KVM run all at once.
_GUEST_CPUS = 4
_GUEST_BYTES = 2 << 30
# Files with few tests that take minutes.
_LONG = ("test_recovery_mix.py", "test_recovery_overlap.py")
# What tells the workers when the time of MINUTES is up, in seconds since 1970.
_END = "VBLK_TESTS_END"
_LATE = "not begun: MINUTES={} were up"
# As in test_x.py::test_y[packed-6.12].
_KERNEL = re.compile(r"[\[-](%s)[\]-]" % "|".join(
    sorted((re.escape(name) for name in kernels.FOR_TESTS), key=len, reverse=True)))


def pytest_configure(config: pytest.Config) -> None:
    # On a busy host xdist may run a worker's tests in a second thread, which
    # is not one to set signals from.
    if threading.current_thread() is threading.main_thread():
        # Being told to end means all tests, as ^C does; not the one that runs.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        if hasattr(config, "workerinput"):
            # So xdist ends its workers; a shell's background jobs ignore it.
            signal.signal(signal.SIGINT, signal.default_int_handler)
    if os.environ.get("KERNEL"):
        try:
            kernels.check_name(os.environ["KERNEL"], kernels.FOR_TESTS)
        except UserError as error:
            raise pytest.UsageError(str(error)) from None
    minutes = os.environ.get("MINUTES")
    if minutes and not os.environ.get(_END):
        if not re.fullmatch(r"[1-9]\d{0,4}", minutes):
            raise pytest.UsageError(f"MINUTES is {minutes!r}, and must be a number "
                                    "of minutes, 1 to 99999")
        os.environ[_END] = str(time.time() + int(minutes) * 60)
    # On a busy host, QEMU's emulator loses things: see vm.qemu.FLAW.
    Guest.PARALLEL = bool(os.environ.get("FULL"))
    config.addinivalue_line(
        "markers", "kernels(*names, full=()): the kernels that the test runs on")
    config.addinivalue_line(
        "markers", "fronts(*names, full=()): the fronts of vblksim that it runs on")
    config.addinivalue_line(
        "markers", "module: needs the driver as a module")
    config.addinivalue_line(
        "markers", "full(reason='long'): part of make check-full only")
    config.addinivalue_line(
        "markers", "quick(only=False): part of QUICK=1; only=True: of nothing else")


def _names(metafunc: pytest.Metafunc) -> list[str]:
    wanted = os.environ.get("KERNEL")
    mark = metafunc.definition.get_closest_marker("kernels")
    if os.environ.get("QUICK"):
        wanted = wanted or DEFAULT[0]
    names: tuple[str, ...] = (wanted,) if wanted else mark.args if mark else DEFAULT
    if mark and not wanted and os.environ.get("FULL"):
        names += mark.kwargs.get("full", ())
    if metafunc.definition.get_closest_marker("module"):
        names = tuple(name for name in names if name not in kernels.OWN)
    # pytest shares a fixture between tests whose parameter is the same object.
    return [sys.intern(name) for name in names]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Leave out what there is no time for."""
    if time.time() > float(os.environ.get(_END) or "inf"):
        pytest.skip(_LATE.format(os.environ["MINUTES"]))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand over what a worker's guests have counted."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["vblksim"] = dict(vblksim.seen)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Add up what the workers have counted; one that crashed tells nothing."""
    vblksim.seen.update(getattr(node, "workeroutput", {}).get("vblksim", {}))


def pytest_terminal_summary(terminalreporter: TerminalReporter,
                            exitstatus: int) -> None:
    """Tell what there was no time for, and what the driver was seen to do."""
    late = sum(_LATE.format(os.environ.get("MINUTES")) in str(report.longrepr)
               for report in terminalreporter.stats.get("skipped", ()))
    if late:
        terminalreporter.write_line(
            f"{late} tests were {_LATE.format(os.environ['MINUTES'])}; what has not "
            "been run has not passed")
    if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
        terminalreporter.write_line(
            "no test's name, file or parameters match T="
            f"{terminalreporter.config.option.keyword or ''}")
    line = vblksim.summary()
    if line:
        terminalreporter.write_line(line)


def _vhost_names() -> tuple[str, ...]:
    """Return the kernels for tests with vblksim's front vhost-user."""
    if os.environ.get("KERNEL"):
        return (os.environ["KERNEL"],)
    more = VHOST_KERNELS["full"] if os.environ.get("FULL") else ()
    return (*VHOST_KERNELS["usual"], *more)


def _pairs(metafunc: pytest.Metafunc) -> Iterator[Any]:
    """Return the pairs of kernel and front that a test runs on."""
    mark = metafunc.definition.get_closest_marker("fronts")
    usual = mark.args if mark else (vblksim.VDUSE,)
    full = mark.kwargs.get("full", ()) if mark else (vblksim.VHOST_USER,)
    for front in (*usual, *full):
        names = _names(metafunc) if front == vblksim.VDUSE else _vhost_names()
        for name in map(sys.intern, names):
            yield pytest.param(
                name, front, marks=[pytest.mark.full] if front in full else [],
                id=name if front == vblksim.VDUSE else f"{name}-{front}")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "front" in metafunc.fixturenames:
        metafunc.parametrize("kernel,front", _pairs(metafunc), indirect=True,
                             scope="session")
    elif "kernel" in metafunc.fixturenames:
        metafunc.parametrize("kernel", _names(metafunc), indirect=True,
                             scope="session")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Take the folders of tests out of T=, which is about files, tests and parameters.

    Else T=recovery would run all files in recovery/.
    """
    for node in item.listchain():
        if isinstance(node, pytest.Package):
            node.name = ""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config,
                                  items: list[pytest.Item]) -> None:
    """Leave out what QUICK leaves out, skip what is long, and sort by kernel and file.

    Tests of a file on one kernel are together, and our kernels come last.  pytest
    groups by a parameter's place in each test's own list, and would boot the guests of
    a file again wherever two tests name other kernels.
    """
    left_out = [item for item in items if _is_left_out(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not _is_left_out(item)]
    for item in items:
        named = _group(item.nodeid)[1]
        if named in kernels.OWN and named != _kernel_of(item):
            # Else it would be built, and the test would come last.
            raise pytest.UsageError(f"{item.nodeid} does not run on {named}: "
                                    "give its parameters other ids")
        long = item.get_closest_marker("full")
        if long and not os.environ.get("FULL"):
            why = long.kwargs.get("reason", "long")
            item.add_marker(pytest.mark.skip(reason=f"{why}: make check-full"))
    files = list(dict.fromkeys(item.path for item in items))

    def place(item: pytest.Item) -> tuple[bool, int, int, str]:
        name = _kernel_of(item)
        names = kernels.FOR_TESTS
        front = _parameters(item).get("front", "") if name else ""
        return (name in kernels.OWN, files.index(item.path),
                names.index(name) if name in names else len(names), front)

    items.sort(key=place)


def _is_left_out(item: pytest.Item) -> bool:
    """Tell whether QUICK leaves out a test, or a test is for QUICK only."""
    mark = item.get_closest_marker("quick")
    if os.environ.get("QUICK"):
        return mark is None
    return mark is not None and bool(mark.kwargs.get("only"))


def _kernel_of(item: pytest.Item) -> str | None:
    """Return the name of the kernel that a test runs on, None if of none."""
    return _parameters(item).get("kernel")


def _parameters(item: pytest.Item) -> dict[str, Any]:
    """Return the parameters of a test by name."""
    return item.callspec.params if hasattr(item, "callspec") else {}


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build our kernels while tests run on Debian's, and leave a CPU idle."""
    if not hasattr(session.config, "workerinput"):
        _start_building(session.config, [item.nodeid for item in session.items])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: Any, ids: list[str]) -> None:
    """Build our kernels beside the workers, which all collect the same."""
    if node.gateway.id == "gw0":
        _start_building(node.config, ids)


def _start_building(config: pytest.Config, ids: Iterable[str]) -> None:
    wanted = {_group(id)[1] for id in ids}
    names = [name for name in kernels.OWN if name in wanted]
    if names and not config.option.collectonly:
        # What the host lacks for it, the first test that needs one will tell.
        with contextlib.suppress(UserError):
            builder = kernels.start_building(names)
            config.add_cleanup(lambda: kernels.stop_building(builder))


def _group(id: str) -> tuple[str, str | None]:
    """Return file and kernel, or None, of a test with a node id of pytest's."""
    file, _, test = id.partition("::")
    found = _KERNEL.search(test)
    return file, found[1] if found else None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return for how many guests at a time the host has CPUs and memory.

    0 is for none but the process itself.  A guest that is emulated keeps little
    more than one CPU busy, unless each of its CPUs has a thread.  One guest more than
    CPUs uses the time for which others wait.
    """
    try:
        turns = not qemu.has_kvm() and not os.environ.get("FULL")
    except UserError:
        return 0    # The first test that boots a guest will tell why.
    cpus = len(os.sched_getaffinity(0))
    guests = min(cpus + 1 if turns else cpus // _GUEST_CPUS,
                 os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
                 // _GUEST_BYTES)
    return guests if guests > 1 else 0


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give each worker a group of tests at a time, see _group()."""
    from xdist.scheduler import LoadScopeScheduling

    class Groups(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> tuple[str, str | None]:
            return _group(nodeid)

        def _assign_work_unit(self, node: Any) -> None:
            """Long and large groups go first, so that the workers end together.

            Those on our kernels come last: these may yet have to be built.
            """
            def place(group: tuple[str, str | None]) -> tuple[bool, bool, int]:
                file, kernel = group
                return (kernel in kernels.OWN, not file.endswith(_LONG),
                        -len(self.workqueue[group]))

            self.workqueue.move_to_end(min(self.workqueue, key=place), last=False)
            super()._assign_work_unit(node)

        def _reschedule(self, node: Any) -> None:
            """Wait with a worker's next group until its last test but one is done.

            A worker begins a test when it knows which comes after it.
            """
            if not self.workqueue \
                    or self._pending_of(self.assigned_work[node]) <= 1:
                super()._reschedule(node)

    return Groups(config, log)


@pytest.fixture(scope="module")
def sims(kernel: Kernel) -> Iterator[Guest]:
    """A guest for vblksim alone: lockdep takes PCI's interrupts for VDUSE's.

    A file whose devices fail requests has a fixture of this name around it, which
    takes the kernel as well: pytest does not see what the one below it takes.
    """
    with Guest(kernel, parallel=False) as guest:
        vblksim.prepare(guest)
        yield guest


@pytest.fixture(scope="session")
def kernel(request: pytest.FixtureRequest) -> Kernel:
    """The vm.kernels.Kernel to boot, downloaded or built first if need be."""
    return kernels.find(request.param)


@pytest.fixture(scope="session")
def front(request: pytest.FixtureRequest) -> str:
    """The front of vblksim's devices, one of vblksim.FRONTS."""
    return request.param


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the tools an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/virtio-blk-mq"


@pytest.fixture
def closed_port() -> int:
    """Return a port of this machine on which no program listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    return port
