# SPDX-License-Identifier: GPL-2.0
"""Processes behind disks that are killed, restarted or hang; `make soak` has more."""

import pytest

from soak import crash
from soak.power import LOST
from soak.scenario import Round
from testing import tier

pytestmark = pytest.mark.kernels("6.12")


@pytest.mark.parametrize("kind, fault", tier.usual(
    ((kind, fault) for kind in crash.KINDS for fault in crash.FAULTS),
    usual=()),
    ids=lambda value: value if isinstance(value, str) else value.counter("").strip())
def test_backend_crash(kernel, kind, fault):
    """No acknowledged data is lost, and users go on or have an error, as the fault is."""
    name = kind.counter(fault)
    counts = Round(crash.CRASH, kernel, wanted={name: 1}).play()
    assert counts[name] == 1
    assert counts["acknowledged bytes"] > 1 << 18
    assert counts[LOST] == 0
