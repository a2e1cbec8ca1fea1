# SPDX-License-Identifier: GPL-2.0
"""The short form of soak's scenario "allocations": one of STEP allocations fails."""

import functools
from dataclasses import replace

import pytest

from soak import allocations
from soak.scenario import Round

pytestmark = pytest.mark.kernels("7.3-debug")

# One of so many allocations fails.
STEP = 90


@pytest.mark.full
def test_memory_that_cannot_be_had(kernel):
    """When an allocation fails, the driver fails cleanly or works, without a leak."""
    some = replace(allocations.ALLOCATIONS,
                   run=functools.partial(allocations.refuse, step=STEP))
    counts = Round(some, kernel).play()
    assert counts["failed allocations"] > 8
    assert counts["failed probes and returns"] > 0
    assert counts["scans for leaks"] == 1
