# SPDX-License-Identifier: GPL-2.0
"""Queue maps, and the affinity of interrupts.

Most guests here have the same eight disks: four with 1, 2, 4 and 16 queues
and a vector for each of them, and four with 4 queues each and 0, 1, 2 and 3
vectors.  The checks at the beginning of this file hold for any number of CPUs,
and all guests share them.
"""

import json
import re

import pytest

from common import counters, fio, topology, vblkstat, vdpa
from host import process
from soak.faults import counter, tell_to_reset
from vm import qemu
from vm.disk import Disk
from vm.guest import Guest

on_both = pytest.mark.kernels("6.12", full=("6.1",))

MIB = 1 << 20
QUEUES = {"q1": 1, "q2": 2, "q4": 4, "q16": 16,
          "v0": 4, "v1": 4, "v2": 4, "v3": 4}


def disks():
    """Return the eight disks."""
    return [Disk(id, queues=queues, vectors=vectors(id))
            for id, queues in QUEUES.items()]


def vectors(id):
    """Return how many vectors a disk has, one of them for its configuration."""
    return int(id[1:]) if id[0] == "v" else QUEUES[id] + 1


# Checks that hold for every disk

def check_counts(layout, id, limit=0, poll=0):
    """Check that a disk has the expected number of queues of each type."""
    total = min(QUEUES[id], len(layout.possible), limit or QUEUES[id])
    poll = min(poll, total - 1)
    wanted = {"default": total - poll} | ({"poll": poll} if poll else {})
    found = {type: len(queues)
             for type, queues in layout.disks[id].queues.items()}
    assert found == wanted, id


def check_map(layout, id, probed):
    """Check that each possible CPU uses one queue of each type, and no queue is idle.

    probed: the layout when the disk was probed.
    """
    for type, queues in layout.disks[id].queues.items():
        what = f"{id}: the {type} queues serve CPUs {queues}"
        users = sorted(cpu for cpus in queues.values() for cpu in cpus)
        assert users == sorted(layout.possible), what
        assert all(queues.values()), what
        # The kernel spreads present CPUs first, then the other possible CPUs.
        for some in (probed.present, probed.possible - probed.present):
            sizes = {len(cpus & some) for cpus in queues.values()}
            assert max(sizes) - min(sizes) <= 1, what


def own_vectors(layout, id):
    """Return whether a disk has a vector for each queue with an interrupt."""
    return vectors(id) > len(layout.disks[id].queues["default"])


def check_vectors(layout, id, probed):
    """Check that each queue's vector goes to its CPUs, and a shared one to all.

    probed: the layout when the disk was probed.
    """
    disk = layout.disks[id]
    found = {vector: interrupt.affinity
             for vector, interrupt in disk.interrupts.items()}
    if own_vectors(layout, id):
        del found["config"]
        assert found == disk.wanted_affinity(), id
    elif vectors(id) >= 2:
        assert set(found) == {"config", "virtqueues"}, id
        assert found["virtqueues"] >= probed.online, id
    else:
        assert set(found) == {""}, id
        assert found[""] >= probed.online, id


def check_arrivals(guest, layout, id, ios=16):
    """Check that I/O from each CPU raises its own queue's interrupt and no other."""
    disk = layout.disks[id]
    for arrival in topology.read_from_each_cpu(guest, disk, layout.online, ios):
        what = f"{id}: I/O of CPU {arrival.cpu} came in at {arrival.counts}"
        vector, cpus = "virtqueues" if vectors(id) >= 2 else "", layout.online
        if own_vectors(layout, id):
            index = disk.queue_of(arrival.cpu)
            vector, cpus = f"req.{index}", disk.queues["default"][index]
        assert set(arrival.counts) == {vector}, what
        assert set(arrival.counts[vector]) <= cpus, what
        count = sum(arrival.counts[vector].values())
        # The pin of an INTx may belong to several disks.
        assert ios // 2 <= count and (count <= ios or not vector), what


def check_layout(guest, probed=None, **limits):
    """Check the queues and vectors of all disks; return the layout.

    probed: the layout when the disks were probed, if it has changed since.
    """
    layout = topology.read(guest)
    assert set(layout.disks) == set(QUEUES)
    for id in QUEUES:
        check_counts(layout, id, **limits)
        check_map(layout, id, probed or layout)
        check_vectors(layout, id, probed or layout)
    return layout


# Numbers of CPUs and queues

@pytest.fixture(scope="module",
                params=(pytest.param(1, marks=pytest.mark.full),
                        pytest.param(3, marks=pytest.mark.quick),
                        pytest.param(4, marks=pytest.mark.full),
                        pytest.param(16, marks=pytest.mark.full)),
                ids=lambda cpus: f"{cpus}cpus")
def guest(request, kernel):
    """A guest with 1, 3, 4 or 16 CPUs and the eight disks."""
    with Guest(kernel, cpus=request.param, disks=disks()) as guest:
        yield guest


@on_both
def test_affinity(guest):
    """With default parameters the queue map and the vectors' affinity agree."""
    layout = check_layout(guest)
    assert len(layout.possible) == len(layout.online) == guest.cpus


@on_both
def test_affinity_of_io(guest):
    """I/O from each CPU raises the interrupt of its own queue only."""
    layout = topology.read(guest)
    for id in QUEUES:
        check_arrivals(guest, layout, id)


def clamped(guest, name):
    """Return to which value the driver logged that it clamped a parameter, by disk."""
    return dict(re.findall(rf"virtio_blk (virtio\d+): {name}=\d+: using (\d+)",
                           guest.run("dmesg -c").output))


@on_both
def test_affinity_num_request_queues(guest):
    """num_request_queues limits the queues; the driver clamps a larger value."""
    for limit in (1, 3, 100):
        guest.run("dmesg -C")
        topology.probe_again(guest, num_request_queues=limit, poll_queues=0)
        layout = check_layout(guest, limit=limit)
        most = {layout.disks[id].virtio: min(queues, len(layout.possible))
                for id, queues in QUEUES.items()}
        assert clamped(guest, "num_request_queues") == {
            virtio: str(queues) for virtio, queues in most.items()
            if queues < limit}
        if limit == 3:
            for id in ("q4", "v2"):
                check_arrivals(guest, layout, id)


@on_both
def test_affinity_poll_queues(guest):
    """poll_queues reserves queues for polling, and leaves one with an interrupt."""
    for poll, limit in ((1, 0), (2, 3), (100, 0)):
        guest.run("dmesg -C")
        topology.probe_again(guest, num_request_queues=limit, poll_queues=poll)
        layout = check_layout(guest, limit=limit, poll=poll)
        most = {layout.disks[id].virtio:
                min(queues, len(layout.possible), limit or queues) - 1
                for id, queues in QUEUES.items()}
        assert clamped(guest, "poll_queues") == {
            virtio: str(queues) for virtio, queues in most.items()
            if queues < poll}
        # I/O that is not polled uses the queues with an interrupt.
        for id in ("q4", "v1") if poll < 100 else ("q16",):
            check_arrivals(guest, layout, id)
    topology.probe_again(guest, num_request_queues=0, poll_queues=0)
    check_layout(guest)


# NUMA nodes, and CPUs that are brought up later

@pytest.mark.full
@on_both
def test_affinity_numa_and_cpus_brought_up_later(kernel):
    """A queue serves CPUs of one node, and offline CPUs have queues for later.

    Three CPUs of six, on two nodes, are not brought up at first.  They have queues
    nevertheless, which work when the CPUs are online.
    """
    with Guest(kernel, cpus=6, nodes=2, disks=disks(),
               cmdline="maxcpus=3") as guest:
        layout = check_layout(guest)
        assert len(layout.online) == 3 and len(layout.possible) == 6
        check_nodes(guest, layout)
        for id in QUEUES:
            check_arrivals(guest, layout, id)
        guest.run("for cpu in 3 4 5; do "
                  "echo 1 > /sys/devices/system/cpu/cpu$cpu/online; done")
        layout = check_layout(guest, probed=layout)
        assert len(layout.online) == 6
        for id in QUEUES:
            check_arrivals(guest, layout, id)


def check_nodes(guest, layout):
    """Check that no queue serves two nodes on disks with at least two queues."""
    nodes = [topology.parse_cpus(cpus) for cpus in guest.run(
        "cat /sys/devices/system/node/node*/cpulist").output.splitlines()]
    possible = [topology.parse_cpus(cpus) for cpus in ("0-2", "3-5")]
    # An offline CPU belongs to no node yet.
    assert nodes == [cpus & layout.online for cpus in possible]
    for id in ("q2", "q4", "q16"):
        for cpus in layout.disks[id].queues["default"].values():
            assert any(cpus <= node for node in possible), \
                f"{id}: a queue serves CPUs {cpus} of both nodes"


# Later kernels believe firmware like QEMU's that CPUs can be plugged in only if
# they recognize the hypervisor, and they do not recognize TCG.  For those the test
# above is the closest one.
@pytest.mark.full
@pytest.mark.kernels("6.1")
def test_affinity_of_cpus_plugged_in(kernel):
    """CPUs that are plugged in later have queues, which work then."""
    with Guest(kernel, cpus=3, maxcpus=6, disks=disks()) as guest:
        layout = probed = check_layout(guest)
        if (kernel.name != "6.1" and qemu.accelerator() == "tcg"
                and layout.possible == layout.present):
            pytest.skip(f"under TCG {kernel.name} ignores CPUs to be plugged in")
        assert len(layout.present) == 3 and len(layout.possible) == 6
        for id in QUEUES:
            check_arrivals(guest, layout, id)
        free = [cpu for cpu in guest.qmp("query-hotpluggable-cpus")
                if "qom-path" not in cpu]
        assert len(free) == 3
        for cpu in free:
            guest.qmp("device_add", driver=cpu["type"], **cpu["props"])
        guest.run("for try in $(seq 100); do "
                  "[ $(cat /sys/devices/system/cpu/present) = 0-5 ] && break; "
                  "sleep 0.1; done; "
                  "for cpu in /sys/devices/system/cpu/cpu[345]; do "
                  "[ $(cat $cpu/online) = 1 ] || echo 1 > $cpu/online; done")
        layout = check_layout(guest, probed=probed)
        assert len(layout.online) == 6
        for id in QUEUES:
            check_arrivals(guest, layout, id)

        # The kernel would spread new vectors over all six CPUs; at probe it spread
        # them over three.  The queue map must not change.
        guest.run("echo 0 > /sys/devices/system/cpu/cpu3/online")
        for id in QUEUES:
            tell_to_reset(guest, id)
            assert process.wait_for(lambda: counter(guest, id, "resets") == 1, 30), id
            # x86 moves a vector when its next interrupt arrives, on the old CPU.
            topology.read_from_each_cpu(guest, layout.disks[id], {0, 1, 2, 4, 5}, 2)
            check_arrivals(guest, topology.read(guest), id)
        guest.run("echo 1 > /sys/devices/system/cpu/cpu3/online")
        for id in QUEUES:
            topology.read_from_each_cpu(guest, layout.disks[id], layout.online, 2)
        again = check_layout(guest, probed=probed)
        for id in QUEUES:
            assert again.disks[id].queues == layout.disks[id].queues, id
            check_arrivals(guest, again, id)


# Isolated CPUs

@on_both
@pytest.mark.module
def test_isolated_cpus(kernel):
    """Isolated CPUs have queues, which debugfs and vblkstat show, and no others' I/O.

    The kernel leaves isolated CPUs out of cpu_list, but they submit I/O all the same.
    After a reset with a CPU offline the driver sends the vectors of the queues, and not
    the kernel; that makes no difference.
    """
    ids = {"q4": 4, "q2": 2}
    with Guest(kernel, cpus=4, cmdline="isolcpus=managed_irq,domain,2-3",
               disks=[Disk(id, queues=ids[id], vectors=ids[id] + 1) for id in ids],
               ) as guest:
        guest.put(vblkstat.build(), "/run/vblkstat")
        assert guest.sysfs("/sys/devices/system/cpu/isolated") == "2-3"
        for again in (False, True):
            if again:
                guest.run("echo 0 > /sys/devices/system/cpu/cpu1/online")
                for id in ids:
                    guest.run(f"echo 1 > /sys/block/{guest.dev(id)}/recovery/reset")
                guest.run("echo 1 > /sys/devices/system/cpu/cpu1/online")
            for id in ids:
                check_isolated(guest, id, ids[id])
        found = json.loads(guest.run("/run/vblkstat --json doctor", check=False).output)
        # Two isolated CPUs share a queue of q2, so one of them gets the other's interrupts.
        assert [finding["disk"] for finding in found["findings"]
                if finding["id"] == "isolated-cpu"] == [guest.dev("q2")]


def check_isolated(guest, id, count):
    """Check the CPUs of a disk's queues, and who is interrupted by the I/O of each."""
    layout = topology.read(guest)
    disk = layout.disks[id]
    check_map(layout, id, layout)
    (shown,) = json.loads(guest.run(f"/run/vblkstat --json queues {disk.name}"
                                    ).output)["disks"]
    assert {queue["queue"]: set(queue["cpus"]) for queue in shown["queues"]} == \
        disk.queues["default"]
    for index, cpus in disk.queues["default"].items():
        assert topology.parse_cpus(
            counters.of_queue(guest, id, index)["cpus"]) == cpus
    if count == 4:
        assert all(len(cpus) == 1 for cpus in disk.queues["default"].values())
    for arrival in topology.read_from_each_cpu(guest, disk, layout.online):
        index = disk.queue_of(arrival.cpu)
        cpus = disk.queues["default"][index]
        assert set(arrival.counts) == {f"req.{index}"}
        # Only a queue of isolated CPUs interrupts one of them.
        assert set(arrival.counts[f"req.{index}"]) <= ((cpus - {2, 3}) or cpus)


# Under load

@pytest.fixture(scope="module")
def loaded(kernel):
    """A guest with a disk of 4 queues that keeps its data."""
    with Guest(kernel, cpus=4, disks=[
            Disk("q4", "ram", 64 * MIB, queues=4)]) as guest:
        yield guest


@on_both
def test_affinity_while_cpus_go_and_come(loaded):
    """No I/O is lost when CPUs go offline; online again they use their queues."""
    disk = topology.read(loaded).disks["q4"]
    load = fio.start(loaded, f"/dev/{disk.name}", rw="randwrite", bs="4k",
                     numjobs=4, offset_increment="16m", size="16m", iodepth=64,
                     verify="crc32c", verify_backlog=256,
                     time_based=True, runtime=6)
    flips = 0
    while load.running:
        cpu = 1 + flips % 3
        loaded.run(f"echo 0 > /sys/devices/system/cpu/cpu{cpu}/online; sleep 0.2; "
                   f"echo 1 > /sys/devices/system/cpu/cpu{cpu}/online")
        flips += 1
    report = load.wait()
    assert flips >= 3
    assert fio.ios(report, "write") > 500 and fio.ios(report, "read") > 500
    layout = topology.read(loaded)
    check_counts(layout, "q4")
    check_map(layout, "q4", layout)
    check_vectors(layout, "q4", layout)
    check_arrivals(loaded, layout, "q4")


@on_both
def test_polled_io(loaded):
    """Polled I/O passes verification and raises no interrupt."""
    topology.probe_again(loaded, poll_queues=2)
    disk = topology.read(loaded).disks["q4"]
    assert {type: len(queues) for type, queues in disk.queues.items()} == {
        "default": 2, "poll": 2}
    assert loaded.sysfs(f"/sys/block/{disk.name}/queue/io_poll") == "1"
    polled = {"ioengine": "io_uring", "hipri": True, "rw": "randwrite",
              "bsrange": "4k-256k", "verify": "crc32c", "numjobs": 2,
              "size": "8m", "offset_increment": "8m",
              "cpus_allowed": "0-3", "cpus_allowed_policy": "split"}
    before = topology.read(loaded).disks["q4"].interrupts
    # Reading the layout asks the device for its serial number.
    serials = topology.read(loaded).disks["q4"].interrupts
    report = fio.run(loaded, f"/dev/{disk.name}", **polled)
    after = topology.read(loaded).disks["q4"].interrupts
    assert fio.ios(report, "write") > 50 and fio.ios(report, "read") > 50
    cost = _total(serials) - _total(before)
    assert _total(after) - _total(serials) <= cost, \
        f"{fio.ios(report)} polled I/Os came in by interrupts: {before} {after}"

    # The same again, beside I/O that is not polled.
    other = fio.start(loaded, f"/dev/{disk.name}", rw="randwrite", bs="4k",
                      offset="32m", size="8m", verify="crc32c")
    fio.run(loaded, f"/dev/{disk.name}", **polled)
    other.wait()
    after = _total(topology.read(loaded).disks["q4"].interrupts) - _total(after)
    assert after > cost

    topology.probe_again(loaded, poll_queues=0)
    assert loaded.sysfs(f"/sys/block/{disk.name}/queue/io_poll") == "0"


def _total(interrupts):
    return sum(interrupt.total for interrupt in interrupts.values())


# vDPA

# The cloud kernel 6.1 has neither vduse nor virtio_vdpa.
@pytest.mark.full
@pytest.mark.kernels("6.12")
@pytest.mark.module
def test_affinity_vdpa(kernel):
    """On a transport without managed vectors the driver sets each queue's affinity.

    The devices are in the guest, by VDUSE.  Their interrupts are callbacks, whose
    affinity is in sysfs.
    """
    counts = {"d1": 1, "d2": 2, "d3": 3, "d4": 4}
    with Guest(kernel, cpus=4, qemu_args=vdpa.qemu_args()) as guest:
        if (kernel.name != "6.12"
                and guest.run("modinfo vduse virtio_vdpa", check=False).status):
            pytest.skip(f"{kernel.name} has no modules vduse and virtio_vdpa")
        guest.run("mkdir /tmp/vdpa && "
                  "mount -r LABEL=vdpa-tools /tmp/vdpa && "
                  "modprobe vduse && modprobe virtio_vdpa && "
                  + " && ".join(f"truncate -s 64M /tmp/{id}" for id in counts))
        server = guest.start(
            "exec /tmp/vdpa/run qemu-storage-daemon " + " ".join(
                f"--blockdev driver=file,filename=/tmp/{id},node-name={id} "
                f"--export type=vduse-blk,id={id},node-name={id},name={id},"
                f"num-queues={queues},queue-size=128,writable=on,serial={id}"
                for id, queues in counts.items()), timeout=None)
        guest.run("for try in $(seq 100); do "
                  f"[ $(ls -d /sys/class/vduse/d? | wc -l) = {len(counts)} ] "
                  "&& break; sleep 0.1; done; " + "; ".join(
                      f"/tmp/vdpa/run vdpa dev add name {id} mgmtdev vduse"
                      for id in counts))
        for poll in (0, 1):
            topology.probe_again(guest, poll_queues=poll)
            layout = topology.read(guest)
            assert set(layout.disks) == set(counts)
            for id, queues in counts.items():
                check_vdpa(guest, layout, id, queues, poll)
        guest.run("for disk in d1 d2 d3 d4; do "
                  "/tmp/vdpa/run vdpa dev del $disk; done")
        assert not topology.read(guest).disks
        assert server.running
        server.kill()


def check_vdpa(guest, layout, id, count, poll):
    """Check that the queues of a disk are spread, and their callbacks fit the map."""
    poll = min(poll, count - 1)
    queues = layout.disks[id].queues
    assert len(queues["default"]) == count - poll
    assert len(queues.get("poll", ())) == poll
    check_map(layout, id, layout)
    for index, cpus in queues["default"].items():
        mask = guest.sysfs(f"/sys/class/vduse/{id}/vq{index}/irq_cb_affinity")
        mask = int(mask.replace(",", ""), 16)
        assert cpus == {cpu for cpu in layout.possible if mask >> cpu & 1}, \
            f"{id}: queue {index} serves CPUs {cpus}, its callback has {mask:x}"
    report = fio.run(guest, f"/dev/{layout.disks[id].name}", rw="randwrite",
                     bsrange="4k-64k", numjobs=4, size="1m",
                     offset_increment="16m", verify="crc32c",
                     cpus_allowed="0-3", cpus_allowed_policy="split")
    assert fio.ios(report, "read") > 50
