# SPDX-License-Identifier: GPL-2.0
"""Test that vblkstat shows the true state of a guest's disks, with either driver.

The guest has healthy disks and disks with flaws.  The tests compare the output of
vblkstat with sysfs, procfs and debugfs.
"""

import json

import pytest

from common import fio, topology, vblkstat
from vm.disk import Disk
from vm.guest import Guest

from .vblkstat_files import total_of

MIB = 1 << 20

# Findings of doctor by disk.  On a busy host, any disk may also have late requests.
FINDINGS = {
    "four": set(), "one": {"few-queues"}, "small": {"small-ring"},
    "shared": {"shared-vector"}, "plain": {"no-event-index"}, "slow": set(),
}
VBLKSTAT = "/run/vblkstat"


@pytest.fixture(scope="module")
def guest(kernel):
    """A guest with four CPUs, healthy disks and one disk for each flaw."""
    disks = [
        Disk("four", "ram", 64 * MIB, queues=4),
        Disk("one", queues=1),
        Disk("small", queues=4, queue_size=16, seg_max_adjust=True),
        Disk("shared", queues=4, vectors=2),
        Disk("plain", queues=4, event_idx=False),
        Disk("slow", queues=4),
    ]
    with Guest(kernel, cpus=4, disks=disks) as guest:
        guest.put(vblkstat.build(), VBLKSTAT)
        guest.run("mountpoint -q /sys/kernel/debug || "
                  "mount -t debugfs none /sys/kernel/debug")
        yield guest


def ask(guest, words, status=0):
    """Run vblkstat --json in the guest and return the parsed output."""
    done = guest.run(f"{VBLKSTAT} --json {words}", check=False, timeout=120)
    assert done.status == status, done.output
    return json.loads(done.output)


def by_id(guest, output):
    """Return the data of each disk, by the disk's id."""
    names = {guest.dev(id): id for id in guest.disks}
    return {names[disk["name"]]: disk for disk in output["disks"]}


def check_list(guest, ours):
    """Check that list agrees with sysfs."""
    disks = by_id(guest, ask(guest, "list"))
    assert set(disks) == set(guest.disks)
    for id, disk in disks.items():
        block = f"/sys/block/{guest.dev(id)}"
        features = guest.sysfs(f"{block}/device/features")
        assert [feature["bit"] for feature in disk["features"]] == \
            [bit for bit, value in enumerate(features) if value == "1"]
        assert disk["bytes"] == int(guest.sysfs(f"{block}/size")) * 512
        assert disk["serial"] == id
        assert disk["bus"] == "pci"
        assert disk["driver"]["in_tree"] is not ours
        assert disk["state"] == (guest.sysfs(f"{block}/state") if ours else None)
        assert disk["queues"]["total"] == guest.disks[id].queues
        assert disk["depth"] == int(guest.sysfs(f"{block}/mq/0/nr_tags"))
        assert not [feature for feature in disk["features"]
                    if feature["name"] == feature["words"]]


def check_queues(guest):
    """Check that queues agrees with /proc and sysfs; return its output by disk id."""
    disks = by_id(guest, ask(guest, "queues"))
    layout = topology.read(guest)
    for id, disk in disks.items():
        known = layout.disks[id]
        assert disk["device"] == known.virtio
        assert {queue["queue"]: set(queue["cpus"]) for queue in disk["queues"]} \
            == known.queues["default"]
        for queue in disk["queues"]:
            vector = {"own": f"req.{queue['queue']}",
                      "shared": "virtqueues"}[queue["vector"]]
            interrupt = known.interrupts[vector]
            assert queue["irq"] == interrupt.number
            assert set(queue["affinity"]) == interrupt.affinity
            assert queue["effective_affinity"] == sorted(topology.parse_cpus(
                guest.sysfs(f"/proc/irq/{queue['irq']}/effective_affinity_list")))
    assert {queue["vector"] for queue in disks["shared"]["queues"]} == {"shared"}
    return disks


def check_counters(guest):
    """Check that queues shows the counters in debugfs, while no I/O runs."""
    disks = ask(guest, "queues")["disks"]
    listing = guest.run("cd /sys/kernel/debug/virtio_blk; grep . */queue*").output
    known = {}
    for line in listing.splitlines():
        path, _, text = line.partition(":")
        known.setdefault(path, {}).update([text.split(" ", 1)])
    for disk in disks:
        for queue in disk["queues"]:
            lines = known.pop(f"{disk['name']}/queue{queue['queue']}")
            for name in ("type", "ring", "free", "in_flight"):
                assert str(queue[name]) == lines[name]
            assert lines["irq"] in ("0", str(queue["irq"]))
            for name in ("completions", "slow_reads", "slow_writes", "slow_others"):
                counts = queue["counters"].pop(name)
                assert " ".join(map(str, counts)) == lines[name]
            assert None not in queue["counters"].values()
            assert queue["counters"] == {name: int(lines[name])
                                         for name in queue["counters"]}
        assert any(queue["counters"]["reads"] for queue in disk["queues"])
    assert not known


def check_watch(guest, counted):
    """Check that watch shows no more I/O than there was, and at least half of it."""
    name = guest.dev("four")
    stat = f"/sys/block/{name}/stat"
    load = fio.start(guest, f"/dev/{name}", rw="randread", bs="4k", iodepth=4,
                     time_based=True, runtime=60, size="32m", numjobs=2)
    first = int(guest.sysfs(stat).split()[0])
    output = guest.run(
        f"for i in $(seq 300); do read reads rest < {stat}; "
        f"[ $reads -gt {first + 100} ] && break; sleep 0.1; done; cat {stat}; "
        f"{VBLKSTAT} --json watch {name} 0.5 3; cat {stat}").output.splitlines()
    load.kill()
    before, *lines, after = output
    completed = int(after.split()[0]) - int(before.split()[0])
    assert 0.5 * completed < total_of(lines, "reads_per_second") <= completed + 1
    for line in lines:
        (disk,) = json.loads(line)["disks"]
        assert disk["read_ms"] > 0
        assert sum(queue["interrupts_per_second"] for queue in disk["queues"]) > 0
        if counted:
            # The driver counts requests in flight; the block layer does not.
            reads = sum(queue["reads_per_second"] for queue in disk["queues"])
            assert abs(reads - disk["reads_per_second"]) * disk["seconds"] < \
                0.2 * reads * disk["seconds"] + 20


def findings(guest, seconds=0.5, status=1):
    """Return the ids of doctor's active findings by disk id, without those of latency.

    On a busy host a disk that was throttled may have stalled; that is past.
    """
    output = ask(guest, f"doctor {seconds}", status)
    names = {guest.dev(id): id for id in guest.disks}
    found = {id: set() for id in guest.disks}
    for finding in output["findings"]:
        assert finding["what"] and finding["why"]
        assert finding["host"] or finding["guest"]
        if finding["active"]:
            found[names[finding["disk"]]].add(finding["id"])
    return {id: ids - {"long-wait", "tail-latency"} for id, ids in found.items()}


@pytest.mark.kernels("6.12")
def test_list(guest):
    """list agrees with sysfs and shows features in words."""
    check_list(guest, ours=True)
    text = guest.run(f"{VBLKSTAT} list").output
    assert "event index" in text and "in-tree" not in text


@pytest.mark.kernels("6.12")
def test_queues(guest):
    """queues agrees with sysfs, procfs and the driver's counters."""
    check_queues(guest)
    check_counters(guest)


@pytest.mark.kernels("6.12")
def test_watch(guest):
    """watch's rates agree with the counts of the block layer."""
    check_watch(guest, counted=True)


@pytest.mark.kernels("6.12")
def test_doctor(guest):
    """doctor reports the flaw of each disk, and no other."""
    assert findings(guest) == FINDINGS
    done = guest.run(f"{VBLKSTAT} doctor {guest.dev('one')} 0.1", check=False)
    assert done.status == 1 and "num-queues" in done.output
    ask(guest, f"doctor {guest.dev('four')} 0.1", status=0)


# Copies only the files that vblkstat reads: reading some others has side effects.
_COPY = """
mkdir -p /run/copy; cd /
for name in stat inflight state size cache_type recovery/timeouts \\
    recovery/lost_interrupts recovery/resets diskseq mq/*/cpu_list mq/*/nr_tags \\
    queue/scheduler queue/write_cache; do
    files="$files sys/block/{disk}/$name"
done
for irq in {irqs}; do files="$files proc/irq/$irq/*_list"; done
cp --parents $files sys/devices/system/cpu/online proc/interrupts \\
    sys/bus/virtio/devices/{device}/features \\
    sys/bus/virtio/devices/{device}/block/{disk}/size \\
    sys/kernel/debug/virtio_blk/{disk}/queue* /run/copy
"""


@pytest.mark.kernels("6.12")
def test_doctor_affinity(guest):
    """doctor reports an interrupt whose affinity differs from its queue's CPUs."""
    # The affinity of managed interrupts cannot be changed: change it in a copy.
    disk = by_id(guest, ask(guest, "queues"))["four"]
    irqs = [queue["irq"] for queue in disk["queues"]]
    guest.run(_COPY.format(disk=disk["name"], device=disk["device"],
                           irqs=" ".join(map(str, irqs))))
    copied = f"--root=/run/copy doctor {disk['name']}"
    ask(guest, copied, status=0)
    guest.run(f"echo 0-3 > /run/copy/proc/irq/{irqs[2]}/smp_affinity_list")
    output = ask(guest, copied, status=1)
    assert [finding["id"] for finding in output["findings"]] == ["affinity"]
    assert f"IRQ {irqs[2]}" in output["findings"][0]["what"]


@pytest.mark.kernels("6.12")
def test_doctor_stuck(guest):
    """doctor reports requests that do not complete, and list does not wait for them."""
    name = guest.dev("slow")

    def limit(bytes):
        guest.qmp("block_set_io_throttle", bps=bytes, bps_rd=0, bps_wr=0, iops=0,
                  iops_rd=0, iops_wr=0,
                  id="/machine/peripheral/slow/virtio-backend")

    limit(1)
    reader = guest.start(f"for i in 1 2; do dd if=/dev/{name} of=/dev/null bs=64k "
                         "count=1 skip=$i iflag=direct & done; wait")
    try:
        guest.run(f"for i in $(seq 100); do awk '{{ exit !($1 > 0) }}' "
                  f"/sys/block/{name}/inflight && exit 0; sleep 0.1; done; exit 1")
        guest.run("sleep 1")
        found = findings(guest)
        (stuck,) = ask(guest, f"doctor {name} 0.5", status=1)["findings"]
        # The status is 4 with a driver that does not show the age of requests.
        guest.run(f"{VBLKSTAT} snapshot /run/copy.tar; "
                  "mkdir -p /run/stuck && tar -xf /run/copy.tar -C /run/stuck")
        copied = ask(guest, f"--root=/run/stuck queues {name}")["disks"][0]
        listed = by_id(guest, ask(guest, "list"))["slow"]["serial"]
    finally:
        limit(0)
    reader.wait()
    assert found == FINDINGS | {"slow": {"stuck"}}
    assert listed in ("slow", None)
    assert stuck["active"] and stuck["count"] == sum(
        queue["in_flight"] for queue in copied["queues"]) > 0
    incident = stuck["incident"]
    assert any(guest.sysfs(f"/sys/block/{name}/device/../uevent").split(
        "PCI_SLOT_NAME=")[1].split()[0] in text for text in incident["disk"])
    assert any(" dd" in text for text in incident["hit"])
    assert f"echo 1 > /sys/block/{name}/recovery/reset" in incident["guest_commands"]
    assert "stuck" not in findings(guest)["slow"]


@pytest.mark.kernels("6.12")
def test_without_debugfs(guest):
    """Without debugfs or root, only the counters are missing, and a note says why."""
    plain = f"setpriv --reuid=65534 --clear-groups {VBLKSTAT} --json"
    output = json.loads(guest.run(f"{plain} queues").output)
    assert any("root" in note for note in output["notes"])
    done = guest.run(f"{plain} doctor {guest.dev('four')} 0.1", check=False)
    output = json.loads(done.output)
    assert (done.status, output["complete"]) == (4, False)
    assert any("root" in text for text in output["missing"])
    guest.run("umount -R /sys/kernel/debug")
    try:
        output = ask(guest, "queues")
        assert any("mount -t debugfs" in note for note in output["notes"])
        for disk in by_id(guest, output).values():
            assert all(queue["counters"] is None and queue["irq"]
                       for queue in disk["queues"])
        assert findings(guest, 0.1) == FINDINGS
        text = guest.run(f"{VBLKSTAT} queues").output
        assert text.count("mount -t debugfs") == 1
    finally:
        guest.run("mount -t debugfs none /sys/kernel/debug")


@pytest.mark.kernels("6.12")
@pytest.mark.module
def test_in_tree_driver_in_guest(guest):
    """With the in-tree driver, everything except the counters works."""
    guest.unload()
    guest.load_stock()
    try:
        check_list(guest, ours=False)
        for disk in check_queues(guest).values():
            assert {queue["type"] for queue in disk["queues"]} == {"default"}
            assert {queue["counters"] for queue in disk["queues"]} == {None}
        check_watch(guest, counted=False)
        found = findings(guest, 0.1)
        assert all("in-tree-driver" in ids for ids in found.values())
        assert "few-queues" in found["one"] and "shared-vector" in found["shared"]
        assert "in-tree" in guest.run(f"{VBLKSTAT} list").output
    finally:
        guest.unload()
        guest.load()
