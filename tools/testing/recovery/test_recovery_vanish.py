# SPDX-License-Identifier: GPL-2.0
"""Devices that vanish while they are used; `make soak` has the long form."""

import pytest

from soak import vanish
from soak.scenario import Round

pytestmark = pytest.mark.kernels("7.3-debug")


# Seed 1 covers all uses of a disk.
@pytest.mark.parametrize("wanted", (
    pytest.param({"unplugged": 2, "pulled": 2}, marks=pytest.mark.full),
    {"backends killed": 2}, pytest.param({"sims killed": 3}, marks=pytest.mark.full)),
    ids=("pci", "vhost-user", "vblksim"))
def test_vanish(kernel, wanted, monkeypatch):
    """All uses of a disk that vanishes end, and its removal ends in time.

    The limit is 20 s instead of soak's 5 s, because the host may be several times
    slower, and so is the debug kernel.
    """
    monkeypatch.setattr(vanish, "REMOVAL_SECONDS", 20)
    counts = Round(vanish.VANISH, kernel, seed=1, wanted=wanted).play()
    assert counts["removals"] == sum(wanted.values())
