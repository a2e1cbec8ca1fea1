# SPDX-License-Identifier: GPL-2.0
"""The models of the driver, checked exhaustively; `make model` shows the figures."""

import re
from pathlib import Path

import pytest

from model import check
from model.check import Result, Variant
from vm.ui import UserError

MODELS = Path(check.__file__).parent
DRIVER = MODELS.parents[2] / "drivers/block/virtio_blk"


@pytest.mark.parametrize("variant", check.VARIANTS, ids=lambda variant: variant.name)
def test_model(variant: Variant) -> None:
    """The model of the driver holds, and the checker finds each reinserted bug."""
    assert check.verdict(variant, check.check(variant)) is None


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
