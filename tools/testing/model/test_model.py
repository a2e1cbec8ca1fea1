# SPDX-License-Identifier: GPL-2.0
"""The models of the driver, checked exhaustively; `make model` shows the figures."""

import re
from pathlib import Path

import pytest

from host.ui import UserError
from testing import tier

from . import check
from .check import Result, Variant

MODELS = Path(check.__file__).parent
DRIVER = MODELS.parents[2] / "drivers/block/virtio_blk"
# What make check proves of the driver as it is: a variant of each model and kind of event.
# The others take eight minutes; make check-full and make model have them.
HOLDING = ("full_ring-PLUGGED1-DIRECT0-ASYNC2", "kick-EVENT", "own_ring-EVENT",
           "recovery-GONE-SUSPEND", "recovery-ASKS1-HOTPLUG1-ADMIN", "recovery-ASKS1-TIMEOUT1-FREEZER",
           "recovery-HANGS-FUNCTION_RESET-CONFIG-LESS",
           "recovery-REMOVE-SECONDS4-ROUNDS2")


@pytest.mark.parametrize("variant", tier.usual(check.VARIANTS, [
    item for item in check.VARIANTS if item.bug or item.name in HOLDING]),
    ids=lambda variant: variant.name)
def test_model(variant: Variant) -> None:
    """The model of the driver holds, and the checker finds each reinserted bug."""
    assert check.verdict(variant, check.check(variant)) is None


@pytest.mark.full
@pytest.mark.parametrize("model", sorted({item.model for item in check.VARIANTS}))
def test_model_has_no_dead_code(model: str) -> None:
    """Each statement of a model runs in at least one of the variants that must hold."""
    assert check.unreached(model, map(check.check, check.holding(model))) == []


@pytest.mark.parametrize("bug,complaint,wrong", (
    (None, None, False), (None, "assertion violated", True),
    ("a bug", "invalid end state", False), ("a bug", None, True),
    ("a bug", "assertion violated", True)))
def test_verdict_of_model(bug: str | None, complaint: str | None, wrong: bool) -> None:
    """A model that fails is an error, and so is a known bug that it does not find."""
    variant = Variant("full_ring", "", bug)
    assert bool(check.verdict(variant, Result(1, 1.0, complaint))) == wrong


def test_each_model_is_proved_in_make_check() -> None:
    """HOLDING names variants that exist, and each model has one."""
    named = [item for item in check.VARIANTS if item.name in HOLDING]
    assert len(named) == len(HOLDING)
    assert {item.model for item in named} == {item.model for item in check.VARIANTS}


def test_unknown_model_is_named() -> None:
    """MODEL= with an unknown name gives one line with the known names."""
    with pytest.raises(UserError, match="MODEL is 'kik'; it must be one of full_ring,"):
        check.chosen("kik")


@pytest.mark.parametrize("model", sorted({item.model for item in check.VARIANTS}))
def test_functions_that_model_names_exist(model: str) -> None:
    """The driver has each function that a model's comments and steps name."""
    driver = "".join(path.read_text() for path in DRIVER.glob("*.[ch]"))
    named = set(re.findall(r"\bvirtblk_\w+", (MODELS / f"{model}.pml").read_text()))
    assert named and not {name for name in named
                          if not re.search(rf"\b{name}\b", driver)}
