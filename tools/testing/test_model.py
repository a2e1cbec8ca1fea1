# SPDX-License-Identifier: GPL-2.0
"""The models of the driver, checked exhaustively; `make model` shows the figures."""

import pytest

from model import check
from model.check import Result, Variant
from vm.ui import UserError


@pytest.mark.parametrize("variant", check.VARIANTS, ids=lambda variant: variant.name)
def test_model(variant: Variant) -> None:
    """The driver as it is holds, and each known bug that is put back is found."""
    assert check.verdict(variant, check.check(variant)) is None


@pytest.mark.parametrize("model", sorted({item.model for item in check.VARIANTS}))
def test_model_has_no_dead_code(model: str) -> None:
    """Each statement of a model runs in one of the variants that must hold."""
    assert check.unreached(model, map(check.check, check.holding(model))) == []


@pytest.mark.parametrize("bug,complaint,wrong", (
    (None, None, False), (None, "assertion violated", True),
    ("a bug", "invalid end state", False), ("a bug", None, True),
    ("a bug", "assertion violated", True)))
def test_verdict_of_model(bug: str | None, complaint: str | None, wrong: bool) -> None:
    """A model that fails is wrong, and so is a known bug that it does not find."""
    variant = Variant("full_ring", "", bug)
    assert bool(check.verdict(variant, Result(1, 1.0, complaint))) == wrong


def test_unknown_model_is_named() -> None:
    """MODEL= with a name that there is not gets one line with those that there are."""
    with pytest.raises(UserError, match="MODEL is 'kik'; it is one of full_ring, kick"):
        check.chosen("kik")
