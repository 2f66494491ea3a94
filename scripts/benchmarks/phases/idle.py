"""Requests of a mount that nobody uses."""

import os
import shutil
import time

from ..errors import Missing

# Until a read-only mount that was just mounted reads nothing more.
SETTLE = 30


def idle(bench):
    system, seconds = bench.system, bench.options.idle
    if not system.remote:
        return
    if not bench.prepared("idle", system.settle):
        return
    count(bench, "idle-quiet", bench.options.quiet, 0.0)
    alone = count(bench, "idle", seconds, 0.0)
    if system.name == "rewindfs":
        follow(bench, seconds, alone)


def count(bench, name, seconds, subtract):
    """Counts requests for some time. Returns the requests a second."""
    servers = bench.system.servers
    before, start = servers.stats(), time.monotonic()
    time.sleep(seconds)
    after, taken = servers.stats(), time.monotonic() - start
    rate = (after["requests"] - before["requests"]) / taken
    values = {key: after[key] - before[key] for key in after}
    bench.figures.add(bench.system.name, name, **values, requests_per_second=max(0.0, rate - subtract), over=taken)
    return rate


def follow(bench, seconds, alone):
    """Counts the requests that a read-only mount adds to those of the idle writer beside it."""
    root, cache = (os.path.join(bench.system.place, name) for name in ("follower", "follower-cache"))
    for directory in (root, cache):
        os.makedirs(directory, exist_ok=True)
    try:
        daemon = bench.system.follow(root, cache)
    except Missing as missing:
        bench.figures.add(bench.system.name, "idle-follower", failed=str(missing))
        return
    try:
        time.sleep(SETTLE)
        count(bench, "idle-follower", seconds, alone)
    finally:
        bench.system.stop(daemon, root)
        shutil.rmtree(cache, ignore_errors=True)
