# SPDX-License-Identifier: GPL-2.0
"""Guests that migrate or are restored under I/O; `make soak` has the long form."""

import pytest

from soak import faults, restore
from soak.migration import MIGRATION
from soak.restore import RESTORE
from soak.scenario import Round
from testing import tier
from vm.disk import Disk


@pytest.mark.kernels("6.12", full=("7.3-debug",))
def test_migration(kernel):
    """Verified I/O continues when a guest migrates, or is saved and restored."""
    counts = Round(MIGRATION, kernel, wanted={"migrations": 1,
                                              "restores": 1}).play()
    assert counts["verified I/Os"] > 1000


@pytest.mark.kernels("7.3-debug")
@pytest.mark.parametrize("what", tier.usual(faults.LOSSES, ["kicks"]))
def test_loss_in_a_restore(kernel, what):
    """I/O whose interrupts or kicks a snapshot lost continues once it is restored.

    The driver learns of the restore, so that no I/O waits for a time-out.
    """
    played = Round(RESTORE, kernel)
    with restore.guest_for(kernel, [Disk("data", "ram", 64 << 20, queues=4)]) as guest:
        # Half of io_timeout: a busy host takes seconds, and make soak has the limit of 1 s.
        restore.restore(guest, "data", what, played, slowest_seconds=15)
    assert played.counts[what] > 0
