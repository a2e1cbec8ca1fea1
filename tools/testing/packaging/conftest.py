# SPDX-License-Identifier: GPL-2.0
"""What the tests of packages share."""

from pathlib import Path

import pytest

from . import package


@pytest.fixture(scope="session")
def packages() -> dict[str, Path]:
    """The packages, built from the tree as it is: {name: path}."""
    return package.build()
