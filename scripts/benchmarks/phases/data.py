"""Large files: streams and random access."""

import os
import random
import threading
import time

from ..errors import Capped
from ..figures import percentile_99
from ..step import FAILURES

BLOCK = 4096
# Two reads are at least so far apart that one does not bring the bytes of the other.
APART = 256 << 10
# The most reads of one measurement.
READS = 2000
WRITES, FSYNCS = 2000, 200


def write_large(bench, name):
    """Writes the large file and waits for its fsync. Returns the share that could be written within the limit."""
    size, start = bench.options.mebibytes, time.monotonic()
    with open(bench.path(name), "wb", buffering=0) as file:
        for at in range(size):
            file.write(bench.inputs.chunk(at))
            if time.monotonic() - start > bench.options.cap:
                return (at + 1) / size
        os.fsync(file.fileno())
    return 1.0


def read_large(bench, name):
    """Reads the large file in order. Returns the share that could be read within the limit."""
    size, start = bench.options.mebibytes, time.monotonic()
    with open(bench.path(name), "rb", buffering=0) as file:
        for at in range(size):
            rest = 1 << 20
            while rest:
                got = len(file.read(rest))
                if not got:
                    raise OSError("the large file is too short")
                rest -= got
            if time.monotonic() - start > bench.options.cap:
                return (at + 1) / size
    return 1.0


def raw_stream(bench):
    """Transfers as many bytes as the large file has in objects of 1 MiB and of 8 MiB. The faster size counts."""
    size, system = bench.options.mebibytes, bench.system
    for name, direction in (("write", "put"), ("read-cold", "get")):
        tried = []
        for mebibytes in (1, 8):
            count = max(1, size // mebibytes)
            start = time.monotonic()
            try:
                system.transfer(direction, count, mebibytes << 20)
            except FAILURES as error:
                bench.fail(name, error)
                return
            # A size that 8 does not divide moves less.
            tried.append(((time.monotonic() - start) * size / (count * mebibytes), mebibytes))
        best, slow = sorted(tried)
        bench.figures.add(system.name, name, seconds=best[0], object_mib=best[1], other_seconds=slow[0])


def stream(bench):
    if bench.system.name == "raw":
        raw_stream(bench)
        return
    if not bench.step("write", lambda: write_large(bench, "large"), bench.options.mebibytes << 20):
        return
    if not bench.prepared("read-cold", bench.system.cold):
        return
    if bench.step("read-cold", lambda: read_large(bench, "large"), settle=False):
        bench.step("read-warm", lambda: read_large(bench, "large"), settle=False)


def have_large(bench):
    """Makes the large file if it is missing or could not be written whole."""
    path, size = bench.path("large"), bench.options.mebibytes << 20
    if not os.path.isfile(path) or os.path.getsize(path) < size:
        if write_large(bench, "large") < 1:
            raise Capped("the large file could not be written within the limit")
    bench.system.settle()


def read_at_random(path, size, threads, seed, until=None, limit=60.0):
    """Reads 4 KiB at random places with many threads, each place once, half of all at most.

    Ends sooner when `until` says so, or after `limit` seconds. Returns the seconds of each read.
    """
    places = list(range(0, size - BLOCK + 1, APART))
    random.Random(seed).shuffle(places)
    places = places[: max(threads, min(READS, len(places) // 2))]
    times, errors, end = [], [], time.monotonic() + limit

    def work(mine):
        try:
            file = os.open(path, os.O_RDONLY)
            try:
                for place in mine:
                    if time.monotonic() > end or until is not None and until():
                        break
                    start = time.monotonic()
                    if len(os.pread(file, BLOCK, place)) != BLOCK:
                        raise OSError("a read was short")
                    times.append(time.monotonic() - start)
            finally:
                os.close(file)
        except OSError as error:
            errors.append(error)

    workers = [threading.Thread(target=work, args=(places[at::threads],), daemon=True) for at in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if errors or not times:
        raise errors[0] if errors else OSError("nothing was read")
    return times


def random_reads(bench, threads):
    times = read_at_random(bench.path("large"), bench.options.mebibytes << 20, threads, threads, limit=bench.options.cap)
    return {"count": len(times), "p99_ms": percentile_99(times)}


def random_writes(bench, count, with_fsync):
    """Writes 4 KiB at random places of the large file, and waits for an fsync at the end or after each write."""
    source, times, blocks = random.Random(2), [], (bench.options.mebibytes << 20) // BLOCK
    # Each place once, so that every write has bytes of its own to send.
    places = source.sample(range(blocks), min(count, blocks))
    begun = time.monotonic()
    with open(bench.path("large"), "r+b", buffering=0) as file:
        for place in places:
            data, start = source.randbytes(BLOCK), time.monotonic()
            os.pwrite(file.fileno(), data, place * BLOCK)
            if with_fsync:
                os.fsync(file.fileno())
            times.append(time.monotonic() - start)
            if time.monotonic() - begun > bench.options.cap:
                break
        if not with_fsync:
            os.fsync(file.fileno())
    values = {"count": len(times), "user_bytes": len(times) * BLOCK}
    if with_fsync:
        ordered = sorted(times)
        values.update(each_ms=ordered[len(ordered) // 2] * 1000, p99_ms=percentile_99(times))
    return values


def raw_reads(bench):
    """Reads small objects, as many at a time as there are threads: the round trips that a cold read waits for."""
    count, size = 500, BLOCK

    def gets(threads):
        times = bench.system.round_trips("get", count, size, threads)
        return {"per_second": threads * count / sum(times), "p99_ms": percentile_99(times)}

    if bench.prepared("random-read-4", lambda: bench.system.transfer("put", count, size)):
        for threads in (4, 16):
            bench.step(f"random-read-{threads}", lambda at_once=threads: gets(at_once), settle=False)


def random_access(bench):
    if bench.system.name == "raw":
        raw_reads(bench)
        return
    for threads in (4, 16):
        name = f"random-read-{threads}"
        if not bench.prepared(name, lambda: have_large(bench)) or not bench.prepared(name, bench.system.cold):
            return
        if not bench.step(name, lambda count=threads: random_reads(bench, count), settle=False):
            return
    later = bench.options.later if bench.system.name == "rewindfs" else 0
    bench.step("random-write", lambda: random_writes(bench, WRITES, False), later=later)
    if bench.prepared("random-fsync", lambda: have_large(bench)):
        bench.step("random-fsync", lambda: random_writes(bench, FSYNCS, True), later=later)
