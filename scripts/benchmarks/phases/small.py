"""Small writes that must be durable: appends and transactions."""

import os
import sqlite3
import statistics
import time

from ..figures import percentile_99

TIMES = 200
LINE = b"x" * 99 + b"\n"


def repeat(bench, work):
    """Repeats an operation until it is done often enough or the limit is reached. Returns the values of the step."""
    times, begun = [], time.monotonic()
    for number in range(TIMES):
        start = time.monotonic()
        work(number)
        times.append(time.monotonic() - start)
        if time.monotonic() - begun > bench.options.cap:
            break
    return {"each_ms": statistics.median(times) * 1000, "p99_ms": percentile_99(times), "count": len(times), "user_bytes": len(times) * len(LINE)}


def append_line(path):
    """Opens a file, appends a line, waits for its fsync and closes it. Returns the bytes of the line."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(file, LINE)
        os.fsync(file)
        return len(LINE)
    finally:
        os.close(file)


def raw_append(bench):
    """A PUT of as many bytes as a line has, one after another: the round trip that an fsync waits for."""

    def puts():
        times = bench.system.round_trips("put", TIMES, len(LINE), 1)
        return {"each_ms": statistics.median(times) * 1000, "p99_ms": percentile_99(times), "count": len(times)}

    bench.step("append", puts, settle=False)


def append(bench):
    if bench.system.name == "raw":
        raw_append(bench)
        return

    def to_one(name):
        file = os.open(bench.path(name), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

        def once(_):
            os.write(file, LINE)
            os.fsync(file)

        try:
            return repeat(bench, once)
        finally:
            os.close(file)

    bench.step("append", lambda: to_one("log0"))
    bench.step("reopen", lambda: repeat(bench, lambda _: append_line(bench.path("log1"))))


def sqlite(bench):
    def inserts(journal):
        base = sqlite3.connect(bench.path(f"base-{journal}"), isolation_level=None)
        try:
            base.execute(f"pragma journal_mode = {journal}")
            base.execute("pragma synchronous = full")
            base.execute("create table rows (id integer primary key, text text)")
            start = time.monotonic()
            values = repeat(bench, lambda number: base.execute("insert into rows values (?, ?)", (number, "x" * 100)))
            # A transaction is durable when it returns, so what follows the last one does not count.
            values["per_second"] = values["count"] / (time.monotonic() - start)
            return values
        except sqlite3.Error as error:
            raise OSError(f"sqlite: {error}") from None
        finally:
            base.close()

    bench.step("sqlite-wal", lambda: inserts("wal"))
    bench.step("sqlite-delete", lambda: inserts("delete"))
