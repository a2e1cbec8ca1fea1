# SPDX-License-Identifier: GPL-2.0
"""Measure the cost of many queues and many CPUs, for both drivers.

usage: python3 -m perf.scale [contention] [memory] [works]

contention: how often CPUs wait for a queue's lock, on a kernel with CONFIG_LOCK_STAT.
memory: the memory of a queue.  works: whether every queue of a large guest does I/O.
Without arguments, all three.  The figures are printed and written to
build/bench/scale.json.
"""

import contextlib
import json
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from common import measure, queues
from host import page, repository, ui
from host.ui import UserError, say, step
from vm.disk import Disk
from vm.errors import GuestError
from vm.guest import Guest

DRIVERS = ("ours", "stock")

_TOP = Path(__file__).resolve().parents[2]
_OUT = _TOP / "build/bench/scale.json"

# Figures as the file has them.
Figures = dict[str, Any]


@contextlib.contextmanager
def _booted(kernel: str, **options: Any) -> Iterator[Guest]:
    """Boot a Guest that has both drivers, and unload the driver."""
    with contextlib.ExitStack() as stack:
        with step(f"booting {kernel} with {options['cpus']} CPUs"):
            guest = stack.enter_context(Guest(kernel, driver="ours", **options))
            guest.unload()
        yield guest


def _load(guest: Guest, driver: str, count: int) -> str:
    """Load a driver with a number of queues; return the null disk's name."""
    loader = guest.load if driver == "ours" else guest.load_stock
    loader(f"num_request_queues={count}")
    name = guest.dev("null", timeout=60)
    guest.run(f"echo none > /sys/block/{name}/queue/scheduler")
    found = guest.run(f"ls /sys/block/{name}/mq | wc -l").output.strip()
    if int(found) != count:
        raise GuestError(f"{name} has {found} queues with the driver {driver!r}, and "
                         f"{count} were requested")
    return name


# Contention

CONTENDED = ((1, 2), (1, 4), (2, 2), (4, 4))

# A lock class of the module has the address of a variable in lockdep, and the module's
# variables are in the symbol table.
_CLASSES = """
grep -w '\\[virtio_blk\\]$' /proc/kallsyms
echo @classes
cat /proc/lockdep
"""


def contention(kernel: str = "7.3-lockstat", rounds: int = 5,
               ios: int = 8192) -> Figures:
    """Count how the CPUs of a guest contend for the locks of its queues.

    ios: the number of 4 KiB random reads of each CPU's job, at depth 32 on a null
    disk.  Returns a row for each driver and each number of queues and CPUs: medians
    of the rounds, in which the drivers take turns, and the lowest and highest number
    of contentions per I/O.  Times are in us of the host's clock.  A host with fewer
    CPUs than the guest also preempts a CPU that holds a lock, so the others wait
    longer.
    """
    rows = []
    for cpus in sorted({cpus for _, cpus in CONTENDED}):
        with _booted(kernel, cpus=cpus, cmdline="no_hash_pointers",
                     disks=[Disk("null", queues=cpus)]) as guest:
            for count in (count for count, with_ in CONTENDED if with_ == cpus):
                rows += _measure_contention(guest, count, rounds, ios)
    return {"kernel": kernel, "ios_per_job": ios, "rounds": rounds, "rows": rows}


def _measure_contention(guest: Guest, count: int, rounds: int,
                        ios: int) -> list[Figures]:
    """Return the rows of both drivers for a number of queues."""
    found: dict[str, list[Figures]] = {driver: [] for driver in DRIVERS}
    for number in range(rounds):
        with step(f"counting contention, {count} queues and {guest.cpus} CPUs, "
                  f"round {number + 1} of {rounds}"):
            for driver in DRIVERS[::-1 if number % 2 else 1]:
                found[driver].append(_lock_figures(guest, driver, count, ios))
    return [{"driver": driver, "queues": count, "cpus": guest.cpus,
             "lock": runs[0]["lock"],
             "seen_in": sorted({name for run in runs for name in run["seen_in"]}),
             **{name: statistics.median(run[name] for run in runs)
                for name in runs[0] if name.endswith("_per_io")},
             "low": min(run["contentions_per_io"] for run in runs),
             "high": max(run["contentions_per_io"] for run in runs),
             "contentions": [run["contentions"] for run in runs]}
            for driver, runs in found.items()]


def _lock_figures(guest: Guest, driver: str, count: int, ios: int) -> Figures:
    """Run the job once; return the figures of the queues' lock."""
    name = _load(guest, driver, count)
    guest.run("echo 0 > /proc/lock_stat")
    done = measure.fio(guest, seconds=300, filename=f"/dev/{name}",
                       rw="randread", bs="4k", direct=1, ioengine="libaio",
                       iodepth=32, numjobs=guest.cpus, number_ios=ios,
                       norandommap=1, cpus_allowed=f"0-{guest.cpus - 1}",
                       cpus_allowed_policy="split")
    seen = guest.run("cat /proc/lock_stat").output
    symbols, _, classes = guest.run(_CLASSES).output.partition("@classes\n")
    guest.unload()
    if done.read is None:
        raise GuestError(f"fio completed no read on {name}")
    total = done.read.ios
    lock, figures = busiest(parse_lock_stat(seen), classes_of(symbols, classes))
    per_io = {f"{name}_per_io": figures[name] / total
              for name in ("contentions", "acquisitions", "wait_us", "hold_us")}
    # A queue's lock is taken once for each I/O, or for each small batch.
    if per_io["acquisitions_per_io"] < 0.01:
        raise GuestError(f"{driver}: the busiest lock is {lock}, taken "
                         f"{figures['acquisitions']} times in {total} I/Os, which is "
                         "too few for the lock of a queue")
    return {"lock": lock, "contentions": figures["contentions"],
            "seen_in": figures["seen_in"], **per_io}


def classes_of(symbols: str, classes: str) -> set[str]:
    """Return the names of a module's lock classes.

    symbols: the module's lines of /proc/kallsyms; classes: /proc/lockdep, with
    unhashed addresses.
    """
    own = {int(line.split()[0], 16) for line in symbols.splitlines()}
    return {name for key, name in re.findall(
                r"^([0-9a-f]{16}): (.*\S)", classes, re.MULTILINE)
            if int(key, 16) in own}


def parse_lock_stat(text: str) -> dict[str, Figures]:
    """Return the figures of each class in /proc/lock_stat, times in us.

    seen_in: the functions that waited for a lock of the class, or held it while
    another CPU waited.
    """
    found: dict[str, Figures] = {}
    for line in text.splitlines():
        # Contentions: bounces and number; minimum, maximum, sum and mean of the
        # wait times.  Then the same for acquisitions and hold times.
        if row := re.fullmatch(r"\s*(\S.*?):((?:\s+-?[\d.]+){12})\s*", line):
            values = row[2].split()
            found[row[1]] = {"contentions": int(values[1]),
                             "wait_us": float(values[4]),
                             "acquisitions": int(values[7]),
                             "hold_us": float(values[10]), "seen_in": []}
        elif point := re.fullmatch(
                r"\s*(\S.*?)\s+\d+\s+\[<\w+>\]\s+(\w[\w.]*)\+\S+.*", line):
            names = found.get(point[1], {}).get("seen_in", [])
            if point[2] not in names:
                names.append(point[2])
    return found


def busiest(figures: Mapping[str, Figures],
            classes: Iterable[str]) -> tuple[str, Figures]:
    """Return (name, figures) of the class with the most acquisitions."""
    known = [name for name in figures if name in classes]
    if not known:
        raise GuestError("/proc/lock_stat has no lock of the driver; "
                         f"its classes are: {', '.join(sorted(classes)) or 'none'}")
    name = max(known, key=lambda name: figures[name]["acquisitions"])
    return name, figures[name]


# Memory

MEMORY_QUEUES = (1, 16, 64)

# The sleep lets RCU free memory.  Slabs are not shrunk, because that rearranges them,
# and the figures then spread five times as much.
_FREE = """
sync
echo 3 > /proc/sys/vm/drop_caches
sleep 1
cat /proc/zoneinfo /proc/meminfo
"""


def memory(kernel: str = "6.12", rounds: int = 6) -> Figures:
    """Measure the memory of a disk, by number of queues and driver.

    It is the decrease of free pages when the driver is loaded and probes the only
    disk of a guest.  The guest has 64 CPUs, one of them online (queues are allocated
    for all).  The memory includes the module, blk-mq's requests, tags and contexts,
    rings, interrupts, and entries in sysfs and debugfs.  Figures are in bytes, medians
    of the rounds, in which the drivers take turns.  The memory of a further queue is
    the difference between 64 and 16 queues, divided by 48.
    """
    most = max(MEMORY_QUEUES)
    found: dict[tuple[str, int], list[dict[str, int]]] = {}
    with _booted(kernel, cpus=most, root="initramfs", cmdline="maxcpus=1",
                 disks=[Disk("null", queues=most)]) as guest:
        # The first load allocates memory that stays allocated.
        for driver in DRIVERS:
            _measure_memory(guest, driver, most)
        for number in range(rounds):
            with step(f"measuring memory, round {number + 1} of {rounds}"):
                for count in MEMORY_QUEUES:
                    for driver in DRIVERS[::-1 if number % 2 else 1]:
                        found.setdefault((driver, count), []).append(
                            _measure_memory(guest, driver, count))
    few, many = MEMORY_QUEUES[-2:]
    return {"kernel": kernel, "rounds": rounds,
            "rows": [{"driver": driver, "queues": count, **_medians(runs),
                      "low": min(run["bytes"] for run in runs),
                      "high": max(run["bytes"] for run in runs)}
                     for (driver, count), runs in found.items()],
            "per_queue": {driver: _per_queue(found[driver, few],
                                             found[driver, many], many - few)
                          for driver in DRIVERS}}


def _measure_memory(guest: Guest, driver: str, count: int) -> dict[str, int]:
    """Load a driver and unload it; return the memory it takes, in bytes."""
    before = parse_memory(guest.run(_FREE).output)
    name = _load(guest, driver, count)
    after = parse_memory(guest.run(_FREE).output)
    depth = int(guest.sysfs(f"/sys/block/{name}/mq/0/nr_tags"))
    guest.unload()
    slab, percpu = (after[key] - before[key] for key in ("Slab", "Percpu"))
    taken = before["free"] - after["free"]
    # The rest is whole pages, mostly of requests and rings.
    return {"bytes": taken, "slab": slab, "percpu": percpu,
            "pages": taken - slab - percpu, "depth": depth}


def parse_memory(text: str) -> dict[str, int]:
    """Return the bytes of free memory, Slab and Percpu.

    text: /proc/zoneinfo and /proc/meminfo.  MemFree does not include the free pages
    in each CPU's lists.
    """
    pages = re.findall(r"^\s+(?:nr_free_pages|count:)\s+(\d+)$", text, re.MULTILINE)
    found = {"free": sum(map(int, pages)) << 12}
    for name in ("Slab", "Percpu"):
        size = re.search(rf"^{name}:\s+(\d+) kB$", text, re.MULTILINE)
        if not size:
            raise GuestError(f"/proc/meminfo has no {name}")
        found[name] = int(size[1]) << 10
    return found


def _medians(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: statistics.median(run[name] for run in runs)
            for name in runs[0]}


def _per_queue(fewer: Sequence[Mapping[str, int]], more: Sequence[Mapping[str, int]],
               queues: int) -> dict[str, float]:
    """Return the memory of a further queue, and each request's share of its pages.

    fewer, more: the results of each round; queues: how many more queues `more` has.
    """
    slopes = [{name: (many[name] - few[name]) / queues
               for name in ("bytes", "slab", "percpu", "pages")}
              for few, many in zip(fewer, more, strict=True)]
    found = {**_medians(slopes), "low": min(each["bytes"] for each in slopes),
             "high": max(each["bytes"] for each in slopes)}
    depth = more[0]["depth"]
    return {**found, "depth": depth, "pages_per_request": found["pages"] / depth}


# Interrupts of all queues

def works(kernel: str = "6.12", counts: Iterable[int] = (16, 64),
          ios: int = 64) -> Figures:
    """Check whether each queue of a guest does I/O, with a queue per CPU.

    All CPUs read ios blocks at the same time, each CPU one block after the other.  So
    each CPU's queue raises ios interrupts.  Returns a row for each number of CPUs and
    driver; "all" is true if every queue raised ios interrupts, all on its own CPU.
    """
    rows = []
    for count in counts:
        with _booted(kernel, cpus=count,
                     disks=[Disk("null", queues=count)]) as guest:
            for driver in DRIVERS:
                with step(f"reading on each of {count} CPUs, {driver}"):
                    rows.append({"driver": driver, "queues": count,
                                 "cpus": count,
                                 **_measure_interrupts(guest, driver, count, ios)})
    return {"kernel": kernel, "ios_per_cpu": ios, "rows": rows}


def _measure_interrupts(guest: Guest, driver: str, count: int, ios: int) -> Figures:
    """Read on all CPUs; return the interrupts of the queues."""
    name = _load(guest, driver, count)
    disk = queues.read(guest, name)
    before = measure.interrupts(guest, disk.virtio)
    started = time.monotonic()
    guest.run(f"seq 0 {guest.cpus - 1} | xargs -P {guest.cpus} -I @ taskset -c @ "
              f"dd if=/dev/{name} of=/dev/null bs=4k count={ios} iflag=direct "
              "status=none", timeout=600)
    seconds = time.monotonic() - started
    after = measure.interrupts(guest, disk.virtio)
    guest.unload()
    came = {index: {cpu: number - before[index][cpu]
                    for cpu, number in counts.items()}
            for index, counts in after.items()}
    seen = measure.where_interrupts_went(disk, [came])
    totals = [sum(came.get(queue.index, {}).values()) for queue in disk.queues]
    return {"queues_with_cpus": sum(bool(queue.cpus) for queue in disk.queues),
            "queues_interrupting": seen.queues,
            "interrupts_elsewhere": seen.elsewhere,
            "interrupts_of_a_queue": [min(totals), max(totals)],
            "seconds": round(seconds, 1),
            "all": totals == [ios] * count and not seen.elsewhere}


# Output

PARTS: dict[str, Callable[[], Figures]] = {
    "contention": contention, "memory": memory, "works": works}


def _table(title: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return f"{title}\n{page.text_table(header, rows)}\n"


def contention_table(found: Figures) -> str:
    """Return the figures of contention() as a table."""
    return _table(
        f"Locks of the queues, {found['kernel']}, each per I/O",
        ["driver", "queues", "CPUs", "taken", "contended", "low", "high",
         "wait us", "hold us", "lock"],
        [[row["driver"], str(row["queues"]), str(row["cpus"]),
          f"{row['acquisitions_per_io']:.2f}", f"{row['contentions_per_io']:.4f}",
          f"{row['low']:.4f}", f"{row['high']:.4f}",
          f"{row['wait_us_per_io']:.2f}", f"{row['hold_us_per_io']:.2f}",
          row["lock"]] for row in found["rows"]])


def memory_table(found: Figures) -> str:
    """Return the figures of memory() as a table."""
    rows = [[row["driver"], str(row["queues"]),
             *(f"{row[name] / 1024:.0f}"
               for name in ("bytes", "low", "high", "slab", "percpu", "pages"))]
            for row in found["rows"]]
    rows += [[driver, "each more",
              *(f"{queue[name] / 1024:.1f}"
                for name in ("bytes", "low", "high", "slab", "percpu", "pages"))]
             for driver, queue in found["per_queue"].items()]
    return _table(f"Memory of a disk, {found['kernel']}, KiB",
                  ["driver", "queues", "median", "low", "high", "slab", "percpu",
                   "pages"], rows)


def works_table(found: Figures) -> str:
    """Return the figures of works() as a table."""
    return _table(
        f"{found['ios_per_cpu']} reads on each CPU, {found['kernel']}",
        ["driver", "queues", "CPUs", "with interrupts", "each", "elsewhere"],
        [[row["driver"], str(row["queues"]), str(row["cpus"]),
          str(row["queues_interrupting"]),
          "{}..{}".format(*row["interrupts_of_a_queue"]),
          str(row["interrupts_elsewhere"])] for row in found["rows"]])


def write_part(name: str, found: Figures) -> None:
    """Write the figures of a part to the file; keep those of the other parts."""
    repository.writable(_OUT.parent)
    kept = json.loads(_OUT.read_text()) if _OUT.exists() else {}
    _OUT.write_text(json.dumps({**kept, name: found}, indent=1) + "\n")
    say(f"  wrote the figures of {name} to {_OUT.relative_to(_TOP)}")


TABLES: dict[str, Callable[[Figures], str]] = {
    "contention": contention_table, "memory": memory_table,
    "works": works_table}


def main() -> int:
    """Measure the requested parts; print the figures and write them to the file."""
    wanted = sys.argv[1:] or list(PARTS)
    if unknown := set(wanted) - set(PARTS):
        raise UserError(f"unknown part {', '.join(sorted(unknown))}; choose from "
                        f"{', '.join(PARTS)}")
    repository.writable(_OUT.parent)
    for name in wanted:
        found = PARTS[name]()
        print(TABLES[name](found), flush=True)
        write_part(name, found)
    return 0


if __name__ == "__main__":
    ui.main(main)
