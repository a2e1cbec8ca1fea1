# SPDX-License-Identifier: GPL-2.0
"""Guests that migrate to another QEMU under I/O; `make soak` has the long form."""

import pytest

from soak.migration import MIGRATION
from soak.scenario import Round


@pytest.mark.kernels("6.12", full=("7.3-debug",))
def test_migration(kernel):
    """Verified I/O continues when a guest migrates, or is saved and restored."""
    counts = Round(MIGRATION, kernel, wanted={"migrations": 1,
                                              "restores": 1}).play()
    assert counts["verified I/Os"] > 1000
