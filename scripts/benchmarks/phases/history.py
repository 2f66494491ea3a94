"""History in front: the same work with and without many versions behind the files."""

import itertools
import os
import statistics
import subprocess
import time

from ..step import FAILURES
from .small import append_line

# How often each measurement is repeated; files with and without versions take turns, so that a disturbance meets both.
ROUNDS = 9
FEW = 10
APPENDS = 50
BLOCK = b"y" * 4080
SAVES = itertools.count()
# What making the versions may take, seconds. It is no step, so --cap is not its limit.
PATIENCE = 3600


def history(bench):
    if bench.system.name != "rewindfs":
        return
    for work in (beside, deep):
        try:
            with bench.guard(PATIENCE * 2):
                work(bench)
        except FAILURES as error:
            # The step at which it failed cannot be told, so a row of its own does.
            bench.fail("history-create" if work is beside else "deep-append", error)


def save(path):
    """Opens, writes and closes: one more version, without an fsync. A save of the bytes that are there already would be none."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        os.write(file, b"%016d" % next(SAVES) + BLOCK)
    finally:
        os.close(file)


def make_versions(paths, versions):
    end = time.monotonic() + PATIENCE
    for _ in range(versions):
        for path in paths:
            save(path)
        if time.monotonic() > end:
            raise OSError(f"the versions could not be made within {PATIENCE} s")


def versions_of(path):
    """Returns the directory that lists the versions of a file."""
    directory, name = os.path.split(path)
    return os.path.join(directory, ".versions", "@files", name)


def count_versions(path):
    """Returns how many versions are listed; latest and previous are links to two of them."""
    return len([name for name in os.listdir(versions_of(path)) if name not in ("latest", "previous")])


def check_versions(paths, versions):
    for path in paths:
        found = count_versions(path)
        if found < versions:
            raise OSError(f"{os.path.basename(path)} has {found} versions, expected {versions}")


def timed(work):
    start = time.monotonic()
    work()
    return time.monotonic() - start


def add_ratio(bench, name, deep_times, flat_times):
    """Notes the medians of both, in milliseconds, and their ratio."""
    with_ms, without_ms = (statistics.median(times) * 1000 for times in (deep_times, flat_times))
    bench.figures.add(bench.system.name, name, ratio=with_ms / without_ms, with_ms=with_ms, without_ms=without_ms)


def turns():
    """Yields which files have their turn. Each kind is first in every second round."""
    for turn in range(ROUNDS):
        yield from sorted(("deep", "flat"), reverse=bool(turn % 2))


def compare(bench, name, work):
    """Does the same work for "deep" and for "flat" by turns, and notes the ratio."""
    times = {"deep": [], "flat": []}
    for which in turns():
        # The uploads of one turn must not slow down the next one.
        bench.system.settle()
        times[which].append(timed(lambda: work(which, len(times[which]))))
    add_ratio(bench, name, times["deep"], times["flat"])


def list_long(path):
    """ls -l, as users do it. The output must be read, else ls(1) does less."""
    subprocess.run(["ls", "-l", path], check=True, stdout=subprocess.PIPE, timeout=600)


def beside(bench):
    """200 files with 1,000 versions behind each, against 200 files with one version."""
    options, system = bench.options, bench.system
    files = {which: [bench.path(f"{which}/f{at:04}") for at in range(options.beside)] for which in ("flat", "deep")}
    for which, paths in files.items():
        os.mkdir(bench.path(which))
        make_versions(paths, 1 if which == "flat" else options.behind + 1)
    system.settle()
    check_versions([files["deep"][0], files["deep"][-1]], options.behind + 1)

    def create(which, turn):
        for at in range(options.beside):
            save(bench.path(f"{which}/new{turn}-{at:04}"))

    def overwrite(which, _):
        for path in files[which]:
            save(path)

    def append(which, _):
        for path in files[which][:APPENDS]:
            append_line(path)

    compare(bench, "history-create", create)
    compare(bench, "history-overwrite", overwrite)
    compare(bench, "history-append", append)
    system.note_peak()
    listed, read = ({"deep": [], "flat": []} for _ in range(2))
    for which in turns():
        system.cold()
        listed[which].append(timed(lambda: list_long(bench.path(which))))
        read[which].append(timed(lambda: [read_whole(path) for path in files[which]]))
    add_ratio(bench, "history-list", listed["deep"], listed["flat"])
    add_ratio(bench, "history-read", read["deep"], read["flat"])


def read_whole(path):
    with open(path, "rb", buffering=0) as file:
        while file.read(1 << 20):
            pass


def deep(bench):
    """One file with very many versions, against one with 10; its list of versions against a directory of as many files."""
    options, system = bench.options, bench.system
    os.mkdir(bench.path("one"))
    paths = {"deep": bench.path("one/deep"), "flat": bench.path("one/flat")}
    make_versions([paths["deep"]], options.versions)
    make_versions([paths["flat"]], FEW)
    ordinary = bench.path("ordinary")
    os.mkdir(ordinary)
    for at in range(options.versions):
        save(os.path.join(ordinary, f"2026-11-29T00-00-00.{at:09}Z"))
    system.settle()
    check_versions([paths["deep"]], options.versions)

    def appends(which, _):
        for _ in range(APPENDS):
            append_line(paths[which])

    compare(bench, "deep-append", appends)
    times = {"deep": [], "flat": []}
    for which in turns():
        system.cold()
        times[which].append(timed(lambda: read_whole(paths[which])))
    add_ratio(bench, "deep-read", times["deep"], times["flat"])
    # A list of versions has more entries than one with 10, so it is compared with a directory that has as many entries.
    for name, listing in (("deep-names", os.listdir), ("deep-list", list_long)):
        system.cold()
        versions = timed(lambda: listing(versions_of(paths["deep"])))
        few = timed(lambda: listing(versions_of(paths["flat"])))
        system.cold()
        files = timed(lambda: listing(ordinary))
        bench.figures.add(system.name, name, ratio=versions / files, with_ms=versions * 1000, without_ms=files * 1000, few_ms=few * 1000)
    system.note_peak()
