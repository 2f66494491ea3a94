"""Work of all kinds over a long time: what the bucket gets for each byte that is written, rows, logs and compactions included."""

import os
import random
import shutil
import sqlite3
import time

from .small import append_line

# A round, and how often one begins. A machine that is slower than that does fewer rounds.
EVERY = 10
STREAM = 8 << 20
RANDOM_WRITES = 256
BLOCK = 4 << 10
BASE = 64 << 20
FILES = 64
FILE_MAX = 16 << 10
LINES = 3


class MixedWork:
    """The files of the work, and the bytes that were written so far."""

    def __init__(self, bench):
        self.bench, self.random, self.user_bytes, self.rounds = bench, random.Random(14), 0, 0
        self.base = bench.path("mixed-base")
        self.rows = sqlite3.connect(bench.path("mixed-rows"), isolation_level=None)
        self.rows.execute("pragma journal_mode = wal")
        self.rows.execute("create table rows (id integer primary key, text text)")

    def write(self, path, data):
        with open(path, "wb") as file:
            file.write(data)
        self.user_bytes += len(data)

    def round(self):
        """Does one round: a stream, random writes, small files, names, appended lines and a transaction."""
        number = self.rounds
        self.rounds += 1
        self.write(self.bench.path(f"mixed-stream-{number}"), self.random.randbytes(STREAM))
        self.random_writes()
        self.small_files(number)
        for _ in range(LINES):
            self.user_bytes += append_line(self.bench.path("mixed-log"))
        text = "x" * 100
        self.rows.execute("insert into rows values (?, ?)", (number, text))
        self.user_bytes += len(text)

    def random_writes(self):
        with open(self.base, "r+b", buffering=0) as file:
            for _ in range(RANDOM_WRITES):
                file.seek(self.random.randrange(BASE // BLOCK) * BLOCK)
                self.user_bytes += file.write(self.random.randbytes(BLOCK))

    def small_files(self, number):
        """Makes a directory of files, saves every second one of the last directory again, moves that directory, and removes the one before it."""
        now, last, old = (self.bench.path(f"mixed-{at}") for at in (number, number - 1, number - 2))
        os.mkdir(now)
        for file in range(FILES):
            self.write(os.path.join(now, f"file-{file}"), self.small())
        if os.path.isdir(last):
            for file in range(0, FILES, 2):
                self.write(os.path.join(last, f"file-{file}"), self.small())
            os.rename(last, last + "-moved")
        if os.path.isdir(old + "-moved"):
            shutil.rmtree(old + "-moved")

    def small(self):
        return self.random.randbytes(self.random.randrange(1, FILE_MAX))

    def run(self, seconds):
        begun = time.monotonic()
        while (now := time.monotonic()) - begun < seconds:
            self.round()
            time.sleep(max(0.0, now + EVERY - time.monotonic()))
        self.rows.close()
        return {"user_bytes": self.user_bytes, "count": self.rounds, "over": time.monotonic() - begun}


def mixed(bench):
    if not bench.system.remote:
        return

    def prepare():
        with open(bench.path("mixed-base"), "wb") as file:
            for _ in range(BASE >> 20):
                file.write(os.urandom(1 << 20))
        bench.system.settle()

    seconds = bench.options.mixed
    if bench.prepared("mixed", prepare):
        bench.step("mixed", lambda: MixedWork(bench).run(seconds), later=bench.options.later, limit=seconds + 4 * bench.options.cap)
