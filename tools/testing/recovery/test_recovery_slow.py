# SPDX-License-Identifier: GPL-2.0
"""Slow but healthy devices; `make soak` has all rates and operations."""

import dataclasses
from functools import partial

import pytest

from soak import slow
from soak.scenario import Round

pytestmark = pytest.mark.kernels("6.12")


def test_slow_device_is_waited_for(kernel):
    """Removal and suspend wait for a slow device: no I/O or dirty page is lost."""
    pace = next(pace for pace in slow.RATES if pace.iops == 100)
    scenario = dataclasses.replace(slow.SLOW, run=partial(
        slow.throttled, names=["removal", "suspend"], rates=(pace,)))
    counts = Round(scenario, kernel).play()
    assert counts["operations"] == 2
    assert counts["pages"] == pace.pages
    assert counts["pages lost"] == counts["I/O errors"] == 0
