# SPDX-License-Identifier: GPL-2.0
"""The variables and the record of make soak, make fuzz and make fuzz-device.

The scenarios here need no guest: the tests check how rounds are run and counted.
"""

import errno
import fcntl
import itertools
import json
import re
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from common import fio
from host.ui import UserError
from soak import fuzz, fuzz_device, loads, soak
from soak.scenario import Scenario

TOP = Path(__file__).resolve().parents[3]
VARIABLES = ("ONLY", "SEED", "RECORD", "DRIVER", "KERNEL", "SECONDS")


def throw(round):
    """Throw a coin until the goal is reached; seed 13 fails."""
    while round.wants("throws"):
        round.add("throws")
        round.add("heads", round.random.randrange(2))
    round.add("lost", 0)
    if round.seed == 13:
        raise RuntimeError("the coin rolled\nunder the table")


COIN = Scenario("coin", "A coin is thrown.", throw, goals={"throws": 50},
                each={"throws": 20}, zero=("lost",))
BOTH = replace(COIN, name="both", drivers=("ours", "stock"))
JOB = soak.Job(COIN, "ours", "7.3-debug")


@pytest.fixture
def variables(monkeypatch):
    """Return a function that sets variables of the environment."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return lambda **values: [monkeypatch.setenv(*item) for item in values.items()]


@pytest.fixture
def scenarios(monkeypatch, tmp_path):
    """Replace make soak's scenarios by two that need nothing of the host.

    Returns a list of the names of the kernels that it looks for.
    """
    found = []

    def find(name):
        found.append(name)
        return SimpleNamespace(name=name, release=f"{name}.1")

    monkeypatch.setattr(soak, "SCENARIOS", (COIN, BOTH))
    monkeypatch.setattr(soak.kernels, "find", find)
    monkeypatch.setattr(soak.deps, "need", lambda *names: None)
    monkeypatch.setattr(soak, "_OUT", tmp_path / "build/soak/record.json")
    return found


@pytest.fixture
def path(tmp_path):
    """Return the path of a record that does not exist yet."""
    return tmp_path / "record.json"


def facts(**changes):
    """Return the facts of a round in the record."""
    return {"scenario": "coin", "driver": "ours", "seed": 1, "kernel": "7.3-debug",
            "release": "7.3.4-debug", "commit": "0123456", "date": "2026-11-23",
            "counts": {"throws": 20, "heads": 9, "lost": 0}, "error": None,
            "seconds": 1, **changes}


def rows():
    """Return each scenario's state in Documentation/reliability.rst."""
    page = (TOP / "Documentation/reliability.rst").read_text()
    table = page[page.index("\nscenario  "):]
    return dict(re.findall(r"^(\S+) +\S.*  (reached|in part|not run yet)\b", table,
                           re.MULTILINE))


def test_the_record_of_this_driver():
    """The record confirms each "reached" in Documentation/reliability.rst."""
    record = soak.Record(TOP / "Documentation/soak.json")
    states = rows()
    for job in soak.choose("", "ours", ""):
        if states[job.scenario.name] == "reached":
            assert not record.left(job) and not record.failures(job), \
                soak.summary(record, [job])


# Counts

def test_figures_add_up_over_runs(variables, scenarios, path, capsys):
    """Complete rounds of 20 run until the goal of 50 is reached, over all runs."""
    path.write_text(json.dumps([facts()]))
    variables(RECORD=str(path), ONLY="coin")
    assert soak.main() == 0
    record = json.loads(path.read_text())
    assert [round["counts"]["throws"] for round in record] == [20, 20, 20]
    assert len({round["seed"] for round in record}) == 3
    shown = capsys.readouterr()
    assert "3 rounds on 7.3-debug, 0 failed: 60 of 50 throws, 0 lost\n" in shown.out
    assert shown.err.endswith("PASS\n")
    # The goal is reached: no further round, and no search for a kernel.
    scenarios.clear()
    assert soak.main() == 0
    assert json.loads(path.read_text()) == record
    assert not scenarios


def test_kernels_and_drivers_have_figures_of_their_own(variables, scenarios, path):
    """Each kernel and each driver has its own counts."""
    path.write_text(json.dumps([facts(), facts(scenario="both")] * 3))
    for values in ({"KERNEL": "6.12"}, {"KERNEL": "", "DRIVER": "stock"}):
        variables(RECORD=str(path), ONLY="both", **values)
        assert soak.main() == 0
    new = [(round["driver"], round["kernel"], round["release"])
           for round in json.loads(path.read_text())[6:]]
    assert new == [("ours", "6.12", "6.12.1")] * 3 + [("stock", "6.12", "6.12.1")] * 3
    assert scenarios == ["6.12"] * 6


def test_each_part_of_scenario_passes_once(variables, scenarios, monkeypatch, path,
                                           capsys):
    """Rounds play the parts that have not passed yet; a failed round does not count."""
    played = []
    monkeypatch.setattr(soak, "SCENARIOS", (Scenario(
        "parts", "All parts are played.", lambda round: played.append(round.part),
        goals={}, each={}, parts=3),))
    path.write_text(json.dumps([facts(scenario="parts", seed=7, counts={}),
                                facts(scenario="parts", seed=8, counts={},
                                      error="broken")]))
    variables(RECORD=str(path))
    assert soak.main() == 1
    assert sorted(played) == [0, 2]
    assert "4 rounds on 7.3-debug, 1 failed: 3 of 3 parts\n" in capsys.readouterr().out


def test_run_ends_without_progress(
        variables, scenarios, monkeypatch, path, capsys):
    """make soak stops when a round does not bring a goal nearer, and fails."""
    goals = {"throws": 50, "edges": 1}
    monkeypatch.setattr(soak, "SCENARIOS", (replace(COIN, goals=goals),))
    variables(RECORD=str(path))
    assert soak.main() == 1
    shown = capsys.readouterr()
    assert "4 rounds on 7.3-debug, 0 failed: 80 of 50 throws, 0 of 1 edges" \
        in shown.out
    assert shown.err.endswith("FAIL: coin\n")


def test_summary_of_unchecked_counter(path):
    """The summary says in how many rounds a counter that must be 0 was checked."""
    path.write_text(json.dumps([facts(), facts(counts={"throws": 20})]))
    assert soak.summary(soak.Record(path), [JOB]).endswith(
        "40 of 50 throws, 0 lost (checked in 1 of 2 rounds)")


# Failures

def test_rounds_that_fail(variables, scenarios, monkeypatch, path, capsys):
    """A scenario ends after three failed rounds, and the next one runs."""
    def fail(round):
        raise RuntimeError("no coin")

    monkeypatch.setattr(soak, "SCENARIOS", (replace(COIN, run=fail), BOTH))
    variables(RECORD=str(path))
    assert soak.main() == 1
    record = json.loads(path.read_text())
    assert [round["error"] for round in record] == ["no coin"] * 3 + [None] * 3
    shown = capsys.readouterr()
    for round in record[:3]:
        assert "failed: no coin\n" \
            f"             again:  make soak ONLY=coin SEED={round['seed']} " \
            "DRIVER=ours KERNEL=7.3-debug\n" in shown.out
    assert shown.err.endswith("FAIL: coin\n")


def test_user_error_is_not_recorded(
        variables, scenarios, monkeypatch, path):
    """A UserError ends make soak, and is no failed round in the record."""
    def fail(round):
        raise UserError("the disk is full")

    monkeypatch.setattr(soak, "SCENARIOS", (replace(COIN, run=fail),))
    variables(RECORD=str(path))
    with pytest.raises(UserError, match="the disk is full"):
        soak.main()
    assert not path.exists()


def test_a_failure_on_record_stays_one(variables, scenarios, path, capsys):
    """A failed round in the record makes later runs fail."""
    path.write_text(json.dumps(
        [facts()] * 3 + [facts(error="oh dear:\nit is\nso", seed=77)]))
    variables(RECORD=str(path), ONLY="coin")
    assert soak.main() == 1
    shown = capsys.readouterr()
    assert "4 rounds on 7.3-debug, 1 failed" in shown.out
    assert "failed: oh dear: it is\n" in shown.out
    assert "again:  make soak ONLY=coin SEED=77 DRIVER=ours" in shown.out
    assert shown.err.endswith("FAIL: coin\n")


def test_a_seed_is_played_again(variables, scenarios, path, capsys):
    """SEED= repeats the same complete round, and does not change the record."""
    path.write_text(json.dumps([facts()] * 3))
    before = path.read_text()
    variables(RECORD=str(path), ONLY="coin", SEED="5")
    assert soak.main() == 0
    first = capsys.readouterr()
    assert "coin, seed 5: 20 throws, " in first.out
    assert first.err.endswith("PASS\n")
    assert soak.main() == 0
    assert capsys.readouterr().out == first.out
    assert path.read_text() == before


def test_a_failure_says_how_to_repeat_it(variables, scenarios, capsys):
    """A failed round prints the command that repeats it."""
    variables(ONLY="both", SEED="13", DRIVER="stock", KERNEL="6.1")
    assert soak.main() == 1
    output = capsys.readouterr().err
    assert "under the table" in output
    assert "again: make soak ONLY=both SEED=13 DRIVER=stock KERNEL=6.1\n" in output
    assert output.endswith("FAIL\n")


# The record's file

def test_two_runs_add_to_one_record(path):
    """Two parallel runs both add to one record."""
    first, second = soak.Record(path), soak.Record(path)
    first.add(**facts(seed=1))
    second.add(**facts(seed=2))
    first.add(**facts(seed=3))
    assert [round["seed"] for round in json.loads(path.read_text())] == [1, 2, 3]


def test_one_run_adds_at_a_time(path):
    """add() waits for the lock, and keeps the rounds that were added meanwhile."""
    record = soak.Record(path)
    with open(f"{path}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        adding = threading.Thread(target=record.add, kwargs=facts(seed=2))
        adding.start()
        time.sleep(0.2)
        assert not path.exists()
        path.write_text(json.dumps([facts(seed=1)]))
    adding.join()
    assert [round["seed"] for round in json.loads(path.read_text())] == [1, 2]


def test_the_directory_is_made(variables, scenarios, tmp_path):
    """make soak creates the record's directory, also after it was removed."""
    path = tmp_path / "build/soak/record.json"
    record = soak.Record(path)
    shutil.rmtree(tmp_path / "build")
    record.add(**facts())
    assert json.loads(path.read_text()) == [facts()]
    variables(ONLY="coin")
    assert soak.main() == 0
    assert len(json.loads(path.read_text())) == 3


def test_a_record_elsewhere(tmp_path, path):
    """A record that is a symbolic link stays one."""
    link = tmp_path / "link.json"
    link.symlink_to(path)
    soak.Record(link).add(**facts())
    assert link.is_symlink() and json.loads(path.read_text()) == [facts()]


@pytest.mark.parametrize("text", [
    "no JSON", '{"a": 1}', "[1]", "[{}]", '[{"scenario": "coin"}]',
    json.dumps([{name: value for name, value in facts().items()
                 if name != "error"}]),
    json.dumps([facts(counts={"throws": "many"})]), json.dumps([facts(counts=[])])])
def test_invalid_record_refused(path, text):
    """A file that is no record is an error, and is not changed."""
    path.write_text(text)
    with pytest.raises(UserError, match=r"record\.json is no record of make soak"):
        soak.Record(path)
    assert path.read_text() == text


def test_a_record_that_cannot_be_written(variables, scenarios, tmp_path):
    """A record that cannot be written is an error before the first round."""
    (tmp_path / "file").write_text("")
    variables(RECORD=str(tmp_path / "file/record.json"), ONLY="coin")
    with pytest.raises(UserError, match="cannot create .*/file for the record: "):
        soak.main()


# Variables

def chosen(*args):
    """Return the jobs that soak.choose() returns, as tuples."""
    return [(job.scenario.name, job.driver, job.kernel)
            for job in soak.choose(*args)]


def test_choose_jobs(scenarios):
    """ONLY and DRIVER select scenarios in the order of ONLY, each once."""
    coin, both = (("coin", "ours", "7.3-debug"), ("both", "ours", "7.3-debug"))
    assert chosen("", "ours", "") == [coin, both]
    assert chosen(None, "ours", None) == [coin, both]
    assert chosen(" both , coin,both", "ours", "") == [both, coin]
    assert chosen("", "stock", "") == [("both", "stock", "6.12")]
    assert chosen("both", "stock", "6.1") == [("both", "stock", "6.1")]


def test_a_scenario_on_several_kernels(scenarios, monkeypatch):
    """Each kernel of a scenario is a job, unless KERNEL= names one."""
    many = replace(COIN, name="many", more_kernels=("6.12", "6.1"))
    monkeypatch.setattr(soak, "SCENARIOS", (COIN, many))
    names = ("7.3-debug", "6.12", "6.1")
    assert chosen("many", "ours", "") == [("many", "ours", name) for name in names]
    assert chosen("many", "ours", "6.12") == [("many", "ours", "6.12")]


def test_a_seed_is_of_one_kernel(variables, scenarios, monkeypatch):
    """SEED= of a scenario that runs on several kernels needs KERNEL=."""
    monkeypatch.setattr(soak, "SCENARIOS", (replace(COIN, more_kernels=("6.1",)),))
    variables(ONLY="coin", SEED="5")
    with pytest.raises(UserError, match="KERNEL= to one of 7.3-debug, 6.1"):
        soak.main()
    variables(KERNEL="6.1")
    assert soak.main() == 0
    assert scenarios == ["6.1"]


@pytest.mark.parametrize("values, message", [
    ({"ONLY": "dice"}, "no scenario 'dice'; .* of coin, both"),
    ({"ONLY": "coin,"}, "no scenario ''; "),
    ({"ONLY": "coin", "DRIVER": "stock"}, "coin does not run on the in-tree driver"),
    ({"DRIVER": "theirs"}, "DRIVER is 'theirs'; it must be ours or stock"),
    ({"SEED": "5"}, "SEED=5 repeats a round of one scenario"),
    ({"SEED": "0", "ONLY": "coin"}, "SEED is '0'; it must be a whole number from 1"),
    ({"SEED": "9" * 5000, "ONLY": "coin"}, "SEED is '9{40}'; it must be a whole"),
    ({"SEED": "²", "ONLY": "coin"}, "SEED is '²'; it must be a whole number")])
def test_soak_refuses(variables, scenarios, values, message):
    """make soak refuses a wrong variable, and names its value."""
    variables(**values)
    with pytest.raises(UserError, match=message):
        soak.main()


@pytest.mark.parametrize("values, message", [
    ({"SECONDS": "0"}, "SECONDS is '0'; it must be a whole number from 1 to"),
    ({"SECONDS": "ten"}, "SECONDS is 'ten'; it must be a whole number from 1 to"),
    ({"SEED": "0"}, "SEED is '0'; it must be a whole number from 1 to"),
    ({"DRIVER": "stock"}, "DRIVER is 'stock'; make fuzz tests only this driver")])
def test_fuzz_refuses(variables, values, message):
    """make fuzz and make fuzz-device refuse a wrong variable, and name its value."""
    variables(**values)
    with pytest.raises(UserError, match=message):
        fuzz.main()
    with pytest.raises(UserError, match=message.replace("make fuzz", "make fuzz-device")):
        fuzz_device.main()


# The time of make fuzz

def attack(round):
    """Count devices in batches of 75, each of which takes a tenth of a second."""
    while round.wants("configurations"):
        time.sleep(0.1)
        round.add("configurations", 75)


@pytest.fixture
def hostile(variables, monkeypatch):
    """Replace make fuzz's scenario by one that needs no guest."""
    monkeypatch.setattr(fuzz, "SCENARIO", replace(fuzz.SCENARIO, run=attack))
    monkeypatch.setattr(fuzz.kernels, "find",
                        lambda name: SimpleNamespace(name=name, release=name))
    monkeypatch.setattr(fuzz.deps, "need", lambda *names: None)


def test_fuzz_ends_when_its_time_is_up(hostile, variables, capsys):
    """make fuzz ends after SECONDS, within a round, but after one batch at least."""
    variables(SECONDS="1")
    assert fuzz.main() == 0
    output = capsys.readouterr().err
    # One batch for each tenth of a second, or one more; complete rounds of 300
    # would make 900.
    assert 75 <= int(re.search(r"PASS: (\d+) configurations", output)[1]) <= 825


def test_a_round_sees_a_device_though_the_time_is_up(hostile):
    """A round that starts after the end still counts one batch."""
    round = fuzz.TimedRound(fuzz.SCENARIO, None, 1, time.monotonic() - 1)
    assert round.play()["configurations"] == 75


def test_fuzz_device_fails_with_a_round(hostile, monkeypatch, capsys):
    """make fuzz-device ends with a round that fails, and prints how to repeat it."""
    def leak(round):
        round.add("malformed requests", 5)
        round.add("pages left", 2)

    monkeypatch.setattr(fuzz_device, "SCENARIO", replace(fuzz_device.SCENARIO, run=leak))
    monkeypatch.setenv("SEED", "7")
    assert fuzz_device.main() == 1
    output = capsys.readouterr().err
    assert "fuzz-device: 2 pages left" in output
    assert "FAIL; again: make fuzz-device SEED=7 KERNEL=7.3-debug" in output


def test_fuzz_device_refuses_unsuitable_kernels(hostile, variables, monkeypatch):
    """make fuzz-device does not build 7.3, and boots no kernel that it cannot test."""
    monkeypatch.setattr(fuzz.kernels, "find", lambda name: pytest.fail(name))
    variables(KERNEL="7.3")
    with pytest.raises(UserError, match="KERNEL is 7.3; .* choose KERNEL=6.12 or 7.3-d"):
        fuzz_device.main()

    options = {"CONFIG_VDPA", "CONFIG_VHOST_VDPA"}
    kernel = SimpleNamespace(name="./tree", release="6.12.1",
                             has=lambda option: option in options)
    fuzz_device.check_kernel(kernel)
    for changed in (options | {"CONFIG_VDPA_BLK"}, {"CONFIG_VDPA"}):
        kernel.has = changed.__contains__
        with pytest.raises(UserError, match="KERNEL is ./tree; "):
            fuzz_device.check_kernel(kernel)


@pytest.mark.parametrize("scans,claim", (
    (1, "without a splat, a hang or a leak"), (0, "kmemleak was not available")))
def test_fuzz_device_claims_what_it_checked(hostile, monkeypatch, capsys, scans, claim):
    """PASS says that there is no leak only if kmemleak has looked for some."""
    def pass_(round):
        round.add("malformed requests", 5)
        round.add("scans for leaks", scans)

    monkeypatch.setattr(fuzz_device, "SCENARIO", replace(fuzz_device.SCENARIO, run=pass_))
    monkeypatch.setenv("SEED", "7")
    assert fuzz_device.main() == 0
    assert claim in capsys.readouterr().err


def test_fuzz_plays_the_round_of_a_seed_to_its_end(hostile, variables, monkeypatch,
                                                   capsys):
    """With SEED= make fuzz ignores SECONDS and runs a complete round."""
    variables(SEED="7", SECONDS="1")
    monkeypatch.setattr(fuzz.time, "monotonic", iter(range(0, 10000, 100)).__next__)
    assert fuzz.main() == 0
    output = capsys.readouterr().err
    assert output.startswith("fuzz: round with seed 7, 7.3-debug\n")
    assert "PASS: 300 configurations" in output


def test_fuzzers_print_their_rates(hostile, monkeypatch, capsys):
    """PASS has the time, and how many things of each kind there were a second."""
    now = itertools.count(0, 5)
    monkeypatch.setattr(fuzz.time, "monotonic", lambda: next(now))
    monkeypatch.setattr(fuzz, "play_rounds", lambda *words: {
        "configurations": 31, "mutated replies": 2500, "life cycles": 1000,
        "malformed requests": 80000, "scans for leaks": 1})
    assert fuzz.main() == fuzz_device.main() == 0
    output = capsys.readouterr().err
    assert "PASS: 31 configurations and 2,500 mutated replies in 5 s, 6.20 and 500.0 a " \
        "second, without a splat" in output
    assert "PASS: 1,000 life cycles and 80,000 malformed requests in 5 s, 200.00 and " \
        "16000.0 a second, without a splat" in output


@pytest.mark.parametrize("errors,canceled", (
    ((errno.ECANCELED, 0), 1), ((errno.EIO, errno.ECANCELED), None), ((0,), None)),
    ids=("canceled", "an I/O error as well", "no I/O"))
def test_load_that_io_uring_canceled(monkeypatch, errors, canceled):
    """A load fails a round, unless all errors of its jobs are io_uring's own.

    fio's report is a stand-in, because no guest lacks memory at that moment on demand.
    """
    def wait():
        raise fio.FioError("fio ended", "", {
            "jobs": [{"error": error} for error in errors]})

    counts = {}
    guest = SimpleNamespace(dev=lambda id: id, clock=lambda: time.monotonic,
                            pump=lambda: None, log=lambda: "")
    monkeypatch.setattr(loads.fio, "start", lambda *words, **options: SimpleNamespace(
        running=False, wait=wait))
    load = loads.Verified(guest, "disk", SimpleNamespace(add=counts.__setitem__))
    if canceled:
        load.stop()
        assert counts == {"loads that io_uring canceled": canceled}
    else:
        with pytest.raises(fio.FioError):
            load.stop()
        assert not counts
