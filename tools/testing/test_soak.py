# SPDX-License-Identifier: GPL-2.0
"""What make soak and make fuzz make of their variables, and of a record.

The scenario here needs no guest: what is asked for is how its rounds are counted.
"""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from soak import fuzz, soak
from soak.scenario import Scenario
from vm.ui import UserError

KERNEL = SimpleNamespace(name="6.12", release="6.12.1")
VARIABLES = ("ONLY", "SEED", "RECORD", "DRIVER", "KERNEL", "SECONDS")


def throw(round):
    """Throw a coin until enough have been thrown."""
    while round.wants("throws"):
        round.add("throws")
        round.add("heads", round.random.randrange(2))
    round.add("lost", 0)
    if round.seed == 13:
        raise RuntimeError("the coin rolled under the table")


COIN = Scenario("coin", "A coin is thrown.", throw, goals={"throws": 50},
                each={"throws": 20}, zero=("lost",))
BOTH = Scenario("both", "A coin is thrown.", throw, goals={"throws": 50},
                each={"throws": 20}, drivers=("ours", "stock"))


@pytest.fixture
def variables(monkeypatch):
    """Return a function that sets variables of the environment."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return lambda **values: [monkeypatch.setenv(*item) for item in values.items()]


@pytest.fixture
def scenarios(monkeypatch):
    """Have make soak know two scenarios that need nothing of the host."""
    monkeypatch.setattr(soak, "SCENARIOS", (COIN, BOTH))
    monkeypatch.setattr(soak.kernels, "find", lambda name: KERNEL)
    monkeypatch.setattr(soak.host, "need", lambda *names: None)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "record.json"


def facts(**changes):
    """Return what is on record of a round."""
    return {"scenario": "coin", "driver": "ours", "seed": 1, "kernel": "6.12.1",
            "commit": "0123456", "date": "2026-11-23",
            "counts": {"throws": 20, "heads": 9, "lost": 0}, "error": None,
            "seconds": 1, **changes}


def test_figures_add_up_over_runs(variables, scenarios, path, capsys):
    """All rounds are whole ones: 20, 40 and 60, where 50 were wanted."""
    path.write_text(json.dumps([facts()]))
    variables(RECORD=str(path), ONLY="coin")
    assert soak.main() == 0
    record = json.loads(path.read_text())
    assert [round["counts"]["throws"] for round in record] == [20, 20, 20]
    assert len({round["seed"] for round in record}) == 3
    shown = capsys.readouterr()
    assert "3 rounds, 0 failed: 60 of 50 throws, 0 lost" in shown.out
    assert shown.err.endswith("PASS\n")
    # There is nothing left to do, nor is anything done.
    assert soak.main() == 0
    assert json.loads(path.read_text()) == record


def test_what_cannot_be_counted_is_not_waited_for(
        variables, scenarios, monkeypatch, path, capsys):
    """As leaks, on a kernel that does not look for them."""
    goals = {"throws": 50, "edges": 1}
    monkeypatch.setattr(soak, "SCENARIOS", (replace(COIN, goals=goals),))
    variables(RECORD=str(path))
    assert soak.main() == 1
    shown = capsys.readouterr()
    assert "4 rounds, 0 failed: 80 of 50 throws, 0 of 1 edges" in shown.out
    assert shown.err.endswith("FAIL: coin\n")


def test_two_runs_add_to_one_record(path):
    first, second = soak.Record(path), soak.Record(path)
    first.add(**facts(seed=1))
    second.add(**facts(seed=2))
    first.add(**facts(seed=3))
    assert [round["seed"] for round in json.loads(path.read_text())] == [1, 2, 3]
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_seed_is_played_again(variables, scenarios, path, capsys):
    """Whole, as it was, and beside the record, whose figures may all be reached."""
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
    variables(ONLY="coin", SEED="13")
    assert soak.main() == 1
    said = capsys.readouterr().err
    assert "the coin rolled under the table" in said
    assert "again: make soak ONLY=coin SEED=13 DRIVER=ours KERNEL=6.12\n" in said
    assert said.endswith("FAIL\n")


def test_a_failure_on_record_is_a_failure(variables, scenarios, path, capsys):
    path.write_text(json.dumps([facts()] * 3 + [facts(error="oh dear")]))
    variables(RECORD=str(path), ONLY="coin")
    assert soak.main() == 1
    shown = capsys.readouterr()
    assert "4 rounds, 1 failed" in shown.out
    assert shown.err.endswith("FAIL: coin\n")


def test_what_was_not_looked_for_is_not_0(path):
    path.write_text(json.dumps([facts(), facts(counts={"throws": 20})]))
    assert soak.summary(soak.Record(path), [COIN], "ours").endswith(
        "40 of 50 throws, 0 lost (looked for in 1 of 2 rounds)")


@pytest.mark.parametrize("text", [
    "no JSON", '{"a": 1}', "[1]", "[{}]", '[{"scenario": "coin"}]',
    json.dumps([facts(counts={"throws": "many"})]), json.dumps([facts(counts=[])])])
def test_no_record(path, text):
    """It is refused, and left as it is."""
    path.write_text(text)
    with pytest.raises(UserError, match=r"record\.json is no record of make soak"):
        soak.Record(path)
    assert path.read_text() == text


def test_a_record_that_cannot_be_written(variables, scenarios, tmp_path):
    """That is said before hours have gone into it."""
    variables(RECORD=str(tmp_path / "missing/record.json"), ONLY="coin")
    with pytest.raises(UserError, match="missing is not there or cannot be written"):
        soak.main()


def test_choice(scenarios):
    assert soak.choose("", "ours") == [COIN, BOTH]
    assert soak.choose(" both , coin,both,", "ours") == [BOTH, COIN]
    assert soak.choose("", "stock") == [BOTH]


@pytest.mark.parametrize("values, message", [
    ({"ONLY": "dice"}, "no scenario 'dice'; .* of coin, both"),
    ({"ONLY": "coin", "DRIVER": "stock"}, "coin is not for the kernel's own driver"),
    ({"DRIVER": "theirs"}, "DRIVER is 'theirs'; it is ours or stock"),
    ({"SEED": "5"}, "SEED=5 is of a round of one scenario"),
    ({"SEED": "0", "ONLY": "coin"}, "SEED is '0'; it is a whole number, 1 or more"),
    ({"SEED": "²", "ONLY": "coin"}, "SEED is '²'; it is a whole number, 1 or more")])
def test_soak_refuses(variables, scenarios, values, message):
    variables(**values)
    with pytest.raises(UserError, match=message):
        soak.main()


@pytest.mark.parametrize("values, message", [
    ({"SECONDS": "0"}, "SECONDS is '0'; it is a whole number, 1 or more"),
    ({"SECONDS": "ten"}, "SECONDS is 'ten'; it is a whole number, 1 or more"),
    ({"SEED": "0"}, "SEED is '0'; it is a whole number, 1 or more"),
    ({"DRIVER": "stock"}, "DRIVER is 'stock'; hostile devices are for this driver")])
def test_fuzz_refuses(variables, values, message):
    variables(**values)
    with pytest.raises(UserError, match=message):
        fuzz.main()
