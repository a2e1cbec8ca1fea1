# SPDX-License-Identifier: GPL-2.0
"""Hostile drivers of vdpa_blk, random from fixed seeds: a short form of make fuzz-device."""

from collections import Counter

import pytest

from common import vdpa, vdpadrv
from soak import fuzz_device
from soak.fuzz_device import SCENARIO, Batch, Broken, Settings
from soak.scenario import Round
from vm.errors import CommandFailed
from vm.guest import Guest

# 6.1 has no vDPA.
pytestmark = pytest.mark.kernels("6.12", full=("7.3-debug",))


@pytest.fixture(scope="module")
def guest(kernel):
    """A guest that has vdpa_blk, vdpadrv, and a disk to serve."""
    with Guest(kernel, parallel=False, cmdline=fuzz_device.CMDLINE,
               disks=fuzz_device.disks(),
               qemu_args=vdpa.qemu_args()) as guest:
        fuzz_device.prepare(guest)
        yield guest


def test_pages_that_are_held_are_counted(guest):
    """A page that something holds after its process has unmapped it is a page left."""
    before = fuzz_device.held_pages(guest)
    for _ in range(3):
        assert fuzz_device.held_pages(guest, hold=8) == before + 8
        assert fuzz_device.held_pages(guest) == before


def test_hostile_drivers(guest, kernel):
    """Malformed requests are refused, other data is right, and nothing is left behind."""
    before = fuzz_device.held_pages(guest)
    round = Round(SCENARIO, kernel, seed=1)
    played = fuzz_device.attack(round, guest, 1, 25)
    assert fuzz_device.held_pages(guest) <= before
    # 8 of the 25 are killed, perhaps before they have opened the node.
    assert round.counts["life cycles"] >= 17
    assert round.counts["malformed requests"] >= 300
    assert round.counts["verified reads"] >= 100
    assert round.counts["killed"] and round.counts["devices deleted"]
    # Each part and kind has a count, and many are played in 25 life cycles.
    assert {"part attack", "part ioctls", "kind loop", "kind scribble"} <= played.keys()
    assert sum(number > 0 for number in played.values()) >= len(played) // 2


def test_life_cycle_of_a_seed_repeats(guest):
    """vdpadrv plays the same parts for the same seed, and names them."""
    with vdpa.Device(guest, "back", bus="vhost_vdpa", queues=4) as device:
        outputs = [guest.run(f"{vdpadrv.PROGRAM} fuzz {device.node()} --seed 3 --count 1"
                             ).output for _ in range(2)]
    played = [output.partition("\ncount ")[0] for output in outputs]
    assert played[0].startswith("seed 3\n  ")
    assert played[0] == played[1]


def test_device_that_cannot_be_added_leaves_nothing(guest):
    """When `vdpa dev add` fails, the next device of the name has no stale settings."""
    guest.tolerate("cannot open path")
    with pytest.raises(CommandFailed):
        with vdpa.Device(guest, "/dev/none", bus="vhost_vdpa", serial="STALE", queues=1):
            pass
    with vdpa.Device(guest, "back", bus="vhost_vdpa") as device:
        assert guest.sysfs("/sys/kernel/config/vdpa_blk/disk0/queues") != "1"
        assert guest.sysfs("/sys/kernel/config/vdpa_blk/disk0/serial") != "STALE"
        device.node()


def test_failure_names_the_device(guest):
    """A failure of vdpadrv has the device's settings, which a repetition needs."""
    settings = Settings({"queues": 3}, "back", None)
    with vdpa.Device(guest, "back", bus="vhost_vdpa", **settings.configfs) as device:
        # It refuses the seed.
        with pytest.raises(Broken, match="status 2, on the device with {'queues': 3} on "
                                         "QEMU's back; its output:\n0: the number"):
            fuzz_device.life_cycles(guest, device, 0, 1, settings)


# Without a guest

def complete(**counts):
    """Return a round that has reached its goals, except those of the arguments."""
    round = Round(SCENARIO, None)
    round.counts.update(SCENARIO.each | counts)
    return round


def test_complete_round_must_play_all():
    """A part or kind that a round never plays is an error if the round is complete."""
    played = Counter({"part attack": 3, "kind loop": 0, "kind type": 1})
    with pytest.raises(Broken, match="never played kind loop;"):
        fuzz_device.check_played(complete(), played)
    with pytest.raises(Broken, match="never played anything;"):
        fuzz_device.check_played(complete(), Counter())
    fuzz_device.check_played(complete(**{"life cycles": 999}), played)
    fuzz_device.check_played(complete(), played + Counter({"kind loop": 1}))


def test_counts_of_vdpadrv_are_parsed():
    """Sums, parts and kinds are apart, and those that are 0 are there, too."""
    assert Batch.parse("count life cycles: 25\npart set-up: 0\nkind data-long: 7\n"
                       "ok fuzz: 25 life cycles from seed 1\n") == Batch(
        {"life cycles": 25}, {"part set-up": 0, "kind data-long": 7})


@pytest.mark.full
def test_round_of_hostile_drivers(kernel):
    """A round leaves no memory behind, and the module can be removed."""
    counts = Round(SCENARIO, kernel, seed=1, wanted={"life cycles": 100}).play()
    assert counts["malformed requests"] >= 1000
    assert counts["verified reads"] >= 400
    assert counts["scans for leaks"] or kernel.name != "7.3-debug"
