# SPDX-License-Identifier: GPL-2.0
"""What many queues and many CPUs cost, with our driver and the kernel's own.

usage: python3 -m perf.scale [contention] [memory] [works]

contention: how often CPUs wait for each other's use of a queue's lock, counted
by a kernel that keeps statistics of its locks.  memory: what a queue takes.
works: whether every queue of a large guest does I/O.  Without words all three.
The figures are printed and left in build/bench/scale.json.
"""

import contextlib
import json
import re
import statistics
import sys
import time
from pathlib import Path

from vm import measure, page, queues, ui
from vm.disk import Disk
from vm.errors import GuestError
from vm.guest import Guest
from vm.ui import UserError, say, step

DRIVERS = ("ours", "stock")

_TOP = Path(__file__).resolve().parents[2]
_OUT = _TOP / "build/bench/scale.json"


@contextlib.contextmanager
def _booted(*words, **options):
    """Boot a Guest that has both drivers and has loaded neither; say so."""
    with contextlib.ExitStack() as stack:
        with step(f"booting {words[0]} with {options['cpus']} CPUs"):
            guest = stack.enter_context(Guest(*words, driver="ours", **options))
            guest.unload()
        yield guest


def _load(guest, driver, count):
    """Load a driver with so many queues; return its null disk's name."""
    loader = guest.load if driver == "ours" else guest.load_stock
    loader(f"num_request_queues={count}")
    name = guest.dev("null", timeout=60)
    guest.run(f"echo none > /sys/block/{name}/queue/scheduler")
    found = guest.run(f"ls /sys/block/{name}/mq | wc -l").output.strip()
    if int(found) != count:
        raise GuestError(f"{driver} was asked for {count} queues and has {found}")
    return name


# Contention

CONTENDED = ((1, 2), (1, 4), (2, 2), (4, 4))

# Which classes of locks are a module's: lockdep knows a class by the address of
# a variable, of which the module's own are in the table of symbols.
_CLASSES = """
grep -w '\\[virtio_blk\\]$' /proc/kallsyms
echo @classes
cat /proc/lockdep
"""


def contention(kernel="7.3-lockstat", rounds=5, ios=8192):
    """Count how the CPUs of a guest contend for the locks of its queues.

    ios: 4 KiB random reads of each CPU's job, at depth 32 on a null disk.
    Returns a row for each number of queues and CPUs, and driver: medians of
    the rounds, in which the drivers take turns, and the lowest and highest
    number of contentions per I/O.  Times are in us, by the host's
    clock: where there are fewer CPUs than the guest has, it takes them away
    from those that hold a lock, too, and the others wait for longer.
    """
    rows = []
    for cpus in sorted({cpus for _, cpus in CONTENDED}):
        with _booted(kernel, cpus=cpus, cmdline="no_hash_pointers",
                     disks=[Disk("null", queues=cpus)]) as guest:
            for count in (count for count, with_ in CONTENDED if with_ == cpus):
                rows += _contended(guest, count, rounds, ios)
    return {"kernel": kernel, "ios_per_job": ios, "rounds": rounds, "rows": rows}


def _contended(guest, count, rounds, ios):
    """Return the rows of both drivers for so many queues."""
    found = {driver: [] for driver in DRIVERS}
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


def _lock_figures(guest, driver, count, ios):
    """Run the job once; return what became of the lock of the queues."""
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
    total = done["read"]["ios"]
    lock, figures = busiest(parse_lock_stat(seen), classes_of(symbols, classes))
    per_io = {f"{name}_per_io": figures[name] / total
              for name in ("contentions", "acquisitions", "wait_us", "hold_us")}
    # A queue's lock is taken for each I/O, or for each batch of a few.
    if per_io["acquisitions_per_io"] < 0.01:
        raise GuestError(f"{driver}: of all its locks {lock} was taken most, "
                         f"{figures['acquisitions']} times in {total} I/Os: that "
                         "is no lock of a queue")
    return {"lock": lock, "contentions": figures["contentions"],
            "seen_in": figures["seen_in"], **per_io}


def classes_of(symbols, classes):
    """Return the names of a module's classes of locks.

    symbols: the module's lines of /proc/kallsyms; classes: /proc/lockdep, with
    plain addresses.
    """
    own = {int(line.split()[0], 16) for line in symbols.splitlines()}
    return {name for key, name in re.findall(
                r"^([0-9a-f]{16}): (.*\S)", classes, re.MULTILINE)
            if int(key, 16) in own}


def parse_lock_stat(text):
    """Return the figures of each class in /proc/lock_stat, times in us.

    seen_in has the functions that waited for a lock of the class, or held it
    while others did.
    """
    found = {}
    for line in text.splitlines():
        # Contentions: their bounces, number, shortest, longest, sum and mean
        # of the waits; the same of the acquisitions and holds.
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


def busiest(figures, classes):
    """Return (name, figures) of that of some classes which was taken most."""
    known = [name for name in figures if name in classes]
    if not known:
        raise GuestError("the kernel's statistics have no lock of the driver's; "
                         f"its classes are: {', '.join(sorted(classes)) or 'none'}")
    name = max(known, key=lambda name: figures[name]["acquisitions"])
    return name, figures[name]


# Memory

MEMORY_QUEUES = (1, 16, 64)

# What is freed after a grace period has to be gone.  Slabs are not shrunk: that
# rearranges them, and the figures spread five times as much.
_FREE = """
sync
echo 3 > /proc/sys/vm/drop_caches
sleep 1
cat /proc/zoneinfo /proc/meminfo
"""


def memory(kernel="6.12", rounds=6):
    """Measure the memory that a disk takes, by number of queues and driver.

    That is the pages which are no longer free once the driver is loaded and has
    probed the only disk of a guest with 64 CPUs, of which one is online (queues
    are allocated for all).  It includes the module, blk-mq's requests, tags
    and contexts, rings, interrupts, and entries in sysfs and debugfs.  Bytes;
    medians of the rounds, in which the drivers take turns.  What one queue
    more takes is the difference from 16 to 64, by 48.
    """
    most = max(MEMORY_QUEUES)
    found = {}
    with _booted(kernel, cpus=most, root="initramfs", cmdline="maxcpus=1",
                 disks=[Disk("null", queues=most)]) as guest:
        # The first time has costs that do not come again.
        for driver in DRIVERS:
            _taken(guest, driver, most)
        for number in range(rounds):
            with step(f"measuring memory, round {number + 1} of {rounds}"):
                for count in MEMORY_QUEUES:
                    for driver in DRIVERS[::-1 if number % 2 else 1]:
                        found.setdefault((driver, count), []).append(
                            _taken(guest, driver, count))
    few, many = MEMORY_QUEUES[-2:]
    return {"kernel": kernel, "rounds": rounds,
            "rows": [{"driver": driver, "queues": count, **_medians(runs),
                      "low": min(run["bytes"] for run in runs),
                      "high": max(run["bytes"] for run in runs)}
                     for (driver, count), runs in found.items()],
            "per_queue": {driver: _per_queue(found[driver, few],
                                             found[driver, many], many - few)
                          for driver in DRIVERS}}


def _taken(guest, driver, count):
    """Load a driver and unload it; return what it takes meanwhile, in bytes."""
    before = parse_memory(guest.run(_FREE).output)
    name = _load(guest, driver, count)
    after = parse_memory(guest.run(_FREE).output)
    depth = int(guest.sysfs(f"/sys/block/{name}/mq/0/nr_tags"))
    guest.unload()
    slab, percpu = (after[key] - before[key] for key in ("Slab", "Percpu"))
    taken = before["free"] - after["free"]
    # What is neither is whole pages: requests and rings above all.
    return {"bytes": taken, "slab": slab, "percpu": percpu,
            "pages": taken - slab - percpu, "depth": depth}


def parse_memory(text):
    """Return the bytes of free memory, Slab and Percpu.

    text: /proc/zoneinfo and /proc/meminfo.  MemFree alone leaves out the free
    pages that each CPU keeps to itself.
    """
    pages = re.findall(r"^\s+(?:nr_free_pages|count:)\s+(\d+)$", text, re.MULTILINE)
    found = {"free": sum(map(int, pages)) << 12}
    for name in ("Slab", "Percpu"):
        found[name] = int(re.search(rf"^{name}:\s+(\d+) kB$", text,
                                    re.MULTILINE)[1]) << 10
    return found


def _medians(runs):
    return {name: statistics.median(run[name] for run in runs)
            for name in runs[0]}


def _per_queue(fewer, more, queues):
    """Return what a further queue takes, and of that in pages each request.

    fewer, more: what was taken in each round, the second with so many queues
    more than the first.
    """
    slopes = [{name: (many[name] - few[name]) / queues
               for name in ("bytes", "slab", "percpu", "pages")}
              for few, many in zip(fewer, more, strict=True)]
    found = {**_medians(slopes), "low": min(each["bytes"] for each in slopes),
             "high": max(each["bytes"] for each in slopes)}
    depth = more[0]["depth"]
    return {**found, "depth": depth, "pages_per_request": found["pages"] / depth}


# Every queue works

def works(kernel="6.12", counts=(16, 64), ios=64):
    """See whether each queue of a guest with that many CPUs does I/O.

    All CPUs at once read ios blocks, each one after the other, so that each
    CPU's queue has as many interrupts.  Returns a row for each number and
    driver; in it "all" tells whether every queue interrupted that often, and
    its own CPU only.
    """
    rows = []
    for count in counts:
        with _booted(kernel, cpus=count,
                     disks=[Disk("null", queues=count)]) as guest:
            for driver in DRIVERS:
                with step(f"reading on each of {count} CPUs, {driver}"):
                    rows.append({"driver": driver, "queues": count,
                                 "cpus": count, **_arrivals(guest, driver,
                                                            count, ios)})
    return {"kernel": kernel, "ios_per_cpu": ios, "rows": rows}


def _arrivals(guest, driver, count, ios):
    """Read on all CPUs; return how many queues did their part, and how."""
    name = _load(guest, driver, count)
    disk = queues.read(guest, name)
    before = measure.interrupts(guest, disk["virtio"])
    started = time.monotonic()
    guest.run(f"seq 0 {guest.cpus - 1} | xargs -P {guest.cpus} -I @ taskset -c @ "
              f"dd if=/dev/{name} of=/dev/null bs=4k count={ios} iflag=direct "
              "status=none", timeout=600)
    seconds = time.monotonic() - started
    after = measure.interrupts(guest, disk["virtio"])
    guest.unload()
    came = {index: {cpu: number - before[index][cpu]
                    for cpu, number in counts.items()}
            for index, counts in after.items()}
    seen = measure.where_interrupts_went(disk, [came])
    totals = [sum(came.get(queue["index"], {}).values())
              for queue in disk["queues"]]
    return {"queues_with_cpus": sum(bool(queue["cpus"])
                                    for queue in disk["queues"]),
            "queues_interrupting": seen["queues"],
            "interrupts_elsewhere": seen["elsewhere"],
            "interrupts_of_a_queue": [min(totals), max(totals)],
            "seconds": round(seconds, 1),
            "all": totals == [ios] * count and not seen["elsewhere"]}


# All of it

PARTS = {"contention": contention, "memory": memory, "works": works}


def _table(title, header, rows):
    return f"{title}\n{page.text_table(header, rows)}\n"


def contention_table(found):
    """Return the figures of contention() as a table."""
    return _table(
        f"Locks of the queues, {found['kernel']}, each per I/O",
        ["driver", "queues", "CPUs", "taken", "contended", "low", "high",
         "waited us", "held us", "lock"],
        [[row["driver"], str(row["queues"]), str(row["cpus"]),
          f"{row['acquisitions_per_io']:.2f}", f"{row['contentions_per_io']:.4f}",
          f"{row['low']:.4f}", f"{row['high']:.4f}",
          f"{row['wait_us_per_io']:.2f}", f"{row['hold_us_per_io']:.2f}",
          row["lock"]] for row in found["rows"]])


def memory_table(found):
    """Return the figures of memory() as a table."""
    rows = [[row["driver"], str(row["queues"]),
             *(f"{row[name] / 1024:.0f}"
               for name in ("bytes", "low", "high", "slab", "percpu", "pages"))]
            for row in found["rows"]]
    rows += [[driver, "a further",
              *(f"{queue[name] / 1024:.1f}"
                for name in ("bytes", "low", "high", "slab", "percpu", "pages"))]
             for driver, queue in found["per_queue"].items()]
    return _table(f"Memory of a disk, {found['kernel']}, KiB",
                  ["driver", "queues", "median", "low", "high", "slab", "percpu",
                   "pages"], rows)


def works_table(found):
    """Return the figures of works() as a table."""
    return _table(
        f"{found['ios_per_cpu']} reads on each CPU, {found['kernel']}",
        ["driver", "queues", "CPUs", "interrupted", "each", "elsewhere"],
        [[row["driver"], str(row["queues"]), str(row["cpus"]),
          str(row["queues_interrupting"]),
          "{}..{}".format(*row["interrupts_of_a_queue"]),
          str(row["interrupts_elsewhere"])] for row in found["rows"]])


def keep(name, found):
    """Leave the figures of a part in the file, beside those of the others."""
    _OUT.parent.mkdir(parents=True, exist_ok=True)
    kept = json.loads(_OUT.read_text()) if _OUT.exists() else {}
    _OUT.write_text(json.dumps({**kept, name: found}, indent=1) + "\n")
    say(f"  left the figures of {name} in {_OUT.relative_to(_TOP)}")


TABLES = {"contention": contention_table, "memory": memory_table,
          "works": works_table}


def main():
    """Measure what is asked for, print it and leave it in a file."""
    wanted = sys.argv[1:] or list(PARTS)
    if unknown := set(wanted) - set(PARTS):
        raise UserError(f"there is nothing called {', '.join(sorted(unknown))} to "
                        f"measure; choose of {', '.join(PARTS)}")
    for name in wanted:
        found = PARTS[name]()
        print(TABLES[name](found), flush=True)
        keep(name, found)
    return 0


if __name__ == "__main__":
    ui.main(main)
