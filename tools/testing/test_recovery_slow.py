# SPDX-License-Identifier: GPL-2.0
"""Slow devices that are healthy; `make soak` has all paces and operations."""

import dataclasses
from functools import partial

import pytest

from soak import slow
from soak.scenario import Round

pytestmark = pytest.mark.kernels("6.12")

PACES = {pace.name: pace for pace in slow.RATES}


def play(kernel, run):
    """Play a short round of the scenario; return what it counted."""
    return Round(dataclasses.replace(slow.SLOW, run=run), kernel).play()


@pytest.mark.parametrize("name, pace", (("removal", "100 a second"),
                                        ("suspend", "10 a second")))
def test_slow_device_is_waited_for(kernel, name, pace):
    """What waits for a slow device waits: no I/O fails, and no dirty page is lost."""
    counts = play(kernel, partial(slow.throttled, names=[name],
                                  rates=(PACES[pace],)))
    assert counts["operations"] == 1
    assert counts["pages"] == (PACES[pace].pages if name == "removal" else 0)
    assert counts["pages lost"] == counts["I/O errors"] == 0
