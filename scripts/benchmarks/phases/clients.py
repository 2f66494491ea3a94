"""Many clients at once: whether they scale, and whether a slow one delays the others."""

import os
import signal
import statistics
import subprocess
import sys
import threading
import time

from ..errors import Capped
from ..figures import percentile_99
from .data import have_large, read_at_random
from .small import LINE

CLIENTS = 16
APPENDS = 100
READERS = 4
HUGE_MEBIBYTES = 256

# Programs of their own, so that they do not share the interpreter with the readers.
WRITER = """
import os, sys
with open(sys.argv[1], "wb", buffering=0) as file:
    data = os.urandom(1 << 20)
    for _ in range(int(sys.argv[2])):
        file.write(data)
    os.fsync(file.fileno())
"""
READER = """
import sys
while True:
    with open(sys.argv[1], "rb", buffering=0) as file:
        while file.read(1 << 17):
            pass
"""


def in_threads(count, work):
    """Runs work(0), work(1), ... at once, and raises the first error of them."""
    errors = []

    def guarded(number):
        try:
            work(number)
        except OSError as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(number,), daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def append_at_once(bench, clients):
    """Each client appends to a file of its own and waits for the fsync. Returns the values of the step."""
    end, done, start = time.monotonic() + bench.options.cap, [0] * clients, time.monotonic()

    def one(number):
        file = os.open(bench.path(f"client{clients}-{number}"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            while done[number] < APPENDS and time.monotonic() < end:
                os.write(file, LINE)
                os.fsync(file)
                done[number] += 1
        finally:
            os.close(file)

    in_threads(clients, one)
    return {"count": sum(done), "user_bytes": sum(done) * len(LINE), "per_second": sum(done) / (time.monotonic() - start)}


def reads(bench, until=None):
    """Returns the values of reads at random places with an empty cache. Their figure is the 99th percentile."""
    times = read_at_random(bench.path("large"), bench.options.mebibytes << 20, READERS, READERS, until, bench.options.cap)
    return {"each_ms": percentile_99(times), "median_ms": statistics.median(times) * 1000, "reads": len(times)}


def reads_beside_fsync(bench):
    """The reads begin with the write and last as long as it does, at most until half of the file is read."""
    huge, end = bench.path("huge"), time.monotonic() + bench.options.cap
    command = [sys.executable, "-c", WRITER, huge, str(HUGE_MEBIBYTES)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as writer:
        try:
            while not (os.path.exists(huge) and os.path.getsize(huge)) and writer.poll() is None and time.monotonic() < end:
                time.sleep(0.005)
            values = reads(bench, lambda: writer.poll() is not None)
            writer.wait(timeout=bench.options.cap)
        except subprocess.TimeoutExpired:
            raise Capped("the write beside the reads exceeded the limit") from None
        finally:
            writer.kill()
    if writer.returncode != 0:
        raise OSError("the write beside the reads failed")
    return values


def reads_beside_stopped(bench):
    """The reader of another large file is stopped while it reads, with requests on their way."""
    with subprocess.Popen([sys.executable, "-c", READER, bench.path("huge")], stdin=subprocess.DEVNULL) as reader:
        try:
            time.sleep(0.3)
            reader.send_signal(signal.SIGSTOP)
            return reads(bench)
        finally:
            reader.kill()


def clients(bench):
    if bench.system.name not in ("rewindfs", "nothing"):
        return
    for count in (1, CLIENTS):
        bench.step(f"clients-{count}", lambda clients=count: append_at_once(bench, clients))
    # The reader that is stopped reads what the writer has written.
    for name, work in (("reads-alone", reads), ("reads-fsync", reads_beside_fsync), ("reads-stopped", reads_beside_stopped)):
        if not bench.prepared(name, lambda: have_large(bench)) or not bench.prepared(name, bench.system.cold):
            return
        if not bench.step(name, lambda measure=work: measure(bench), settle=False):
            return
