# SPDX-License-Identifier: GPL-2.0
"""Random operations on a guest under I/O; `make soak` has the long form."""

import pytest

from soak.mix import MIX
from soak.scenario import Round


@pytest.mark.kernels("7.3-debug", full=("6.12",))
def test_mix(kernel):
    """A minute of random suspends, CPU hotplug, resizes etc. corrupts no data."""
    counts = Round(MIX, kernel, wanted={"minutes": 1}).play()
    assert counts["verified I/Os"] > 1000
    assert counts["samples wrong"] == 0
