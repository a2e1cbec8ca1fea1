# SPDX-License-Identifier: GPL-2.0
"""Variants of a test: some run in make check, the others in make check-full only."""

from collections.abc import Iterable
from typing import Any

import pytest


def usual(values: Iterable[Any], usual: Iterable[Any]) -> list[Any]:
    """Return the parameters of a test; those not in `usual` are marked full."""
    wanted = list(usual)
    values = list(values)
    assert all(value in values for value in wanted), wanted
    return [value if value in wanted else pytest.param(
                *(value if isinstance(value, tuple) else (value,)),
                marks=pytest.mark.full)
            for value in values]
