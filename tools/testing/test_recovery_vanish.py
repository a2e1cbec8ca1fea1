# SPDX-License-Identifier: GPL-2.0
"""Devices that vanish while they are used; `make soak` has the long form."""

import pytest

from soak import vanish
from soak.scenario import Round

pytestmark = pytest.mark.kernels("7.3-debug")


# With the seed 1 all that a disk can be used for has its turn.
@pytest.mark.parametrize("wanted", (
    {"unplugged": 2, "pulled": 2}, {"backends killed": 2}, {"sims killed": 3}),
    ids=("pci", "vhost-user", "vblksim"))
def test_vanish(kernel, wanted, monkeypatch):
    """Whatever was done with the disk ends, and the removal is done in time.

    Five seconds is the figure for a host that is known, as soak's; this one may be
    several times slower, and the debug kernel is without that.
    """
    monkeypatch.setattr(vanish, "REMOVAL_SECONDS", 20)
    counts = Round(vanish.VANISH, kernel, seed=1, wanted=wanted).play()
    assert counts["removals"] == sum(wanted.values())
