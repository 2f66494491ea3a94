"""The faults, one function each. The first line of its text is its row in the table."""

import os
import random
import shutil
import signal
import subprocess
import time

from .errors import Missing, Stuck
from .lab import MOUNT_MAX, wait_for

NOW = ("--takeover", "now")
FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1"
SMALL_DISK = 96 << 20


def killed(run):
    """Kills the daemon again and again under the same writers."""
    mount = run.lab.mount()
    mount.start()
    moments = random.Random(run.lab.seed)
    ledger = run.write(mount)
    for _ in range(run.options.rounds):
        time.sleep(moments.uniform(0.2, 1.5))
        mount.kill()
        begin = time.monotonic()
        # The lock of the same cache directory shows that the writer is dead: there is nothing to wait for.
        mount.start("--takeover", "never")
        run.recovered(mount, begin)
    run.settle(mount, ledger)


def kill_kept(run):
    """kill -9 of the daemon, cache kept"""
    run.lab.s3()
    killed(run)


def kill_kept_local(run):
    """the same on a local directory"""
    run.lab.local()
    killed(run)


def cut(cache, moments):
    """Cuts the files of a cache directory that are never synced: the newest of the journal, and the staged ones. Some are gone."""
    for namespace in os.listdir(cache):
        journal = os.path.join(cache, namespace, "journal")
        staging = os.path.join(cache, namespace, "staging")
        files = sorted(os.path.join(journal, name) for name in os.listdir(journal) if name != "LOCK")[-1:]
        files += [os.path.join(staging, name) for name in os.listdir(staging)]
        for path in filter(os.path.isfile, files):
            if path in files[:1] or moments.random() < 0.7:
                os.truncate(path, moments.randrange(os.path.getsize(path) + 1))
            else:
                os.unlink(path)


def lossy(run, lose):
    run.lab.s3()
    mount = run.lab.mount()
    mount.start()
    moments = random.Random(run.lab.seed)
    for _ in range(run.options.rounds):
        ledger = run.write(mount)
        time.sleep(moments.uniform(0.5, 1.5))
        mount.kill()
        run.stop(ledger)
        lose(mount.cache, moments)
        begin = time.monotonic()
        mount.start(*NOW)
        run.recovered(mount, begin)
        ledger.notes.clear()
        run.outcome.add(ledger, ledger.verify(mount.root, "synced"))
    mount.unmount()


def power_loss(run):
    """power loss: kill -9, unsynced ends of local files gone (what was fsynced)"""
    lossy(run, cut)


def kill_wiped(run):
    """kill -9, cache deleted (what was fsynced)"""

    def wipe(cache, _moments):
        shutil.rmtree(cache)
        os.mkdir(cache)

    lossy(run, wipe)


def server_killed(run):
    """the S3 server killed and started again"""
    run.lab.s3()
    mount = run.lab.mount()
    mount.start()
    ledger = run.write(mount)
    for _ in range(min(run.options.rounds, 5)):
        time.sleep(run.calm)
        run.lab.server.kill()
        time.sleep(2)
        run.lab.server.start()
        run.recovered(mount)
    run.settle(mount, ledger)


def refused(run):
    """connections refused"""
    run.lab.s3()
    mount = run.lab.mount()
    mount.start()
    run.disturbed(mount, run.lab.proxy.refuse, run.lab.proxy.accept, run.options.outage)


def partition(run):
    """a partition: no answer to any request"""
    run.lab.s3()
    mount = run.lab.mount()
    mount.start()
    proxy = run.lab.proxy

    def heal():
        # As after a partition: the connections of then stay silent.
        proxy.refuse()
        proxy.clear()
        proxy.accept()

    run.disturbed(mount, lambda: setattr(proxy, "silent", True), heal, run.options.outage)


def share(run, name):
    run.lab.s3()
    mount = run.lab.mount()
    mount.start()
    proxy = run.lab.proxy
    run.disturbed(mount, lambda: setattr(proxy, name, 0.05), proxy.clear, run.options.outage)


def busy(run):
    """5 % of requests answered 503, half of them done"""
    share(run, "busy")


def reset(run):
    """5 % of connections reset, half of the requests done"""
    share(run, "reset")


def slow(run):
    """5 % of answers 5 s late"""
    share(run, "slow")


def cut_answers(run):
    """5 % of answers cut half-way"""
    share(run, "cut")


def fill(path):
    """Writes a file until its disk is full."""
    with open(path, "wb") as file:
        try:
            while True:
                file.write(bytes(1 << 20))
                file.flush()
        except OSError:
            pass


def cache_full(run):
    """the cache directory's disk full"""
    run.lab.s3()
    mount = run.lab.mount()
    run.lab.disk(mount.cache, SMALL_DISK)
    mount.start()
    filler = os.path.join(mount.cache, "filler")

    run.disturbed(mount, lambda: fill(filler), lambda: os.unlink(filler), run.options.outage)


def cache_read_only(run):
    """the cache directory read-only at a mount"""
    run.lab.s3()
    mount = run.lab.mount()
    mount.start()
    ledger = run.write(mount)
    time.sleep(run.calm)
    mount.kill()
    for words in (["--bind", mount.cache, mount.cache], ["-o", "remount,bind,ro", mount.cache]):
        if subprocess.run(["mount", *words], check=False).returncode != 0:
            raise Missing("a read-only directory needs root")
    mount.launch()
    wait_for("the refusal", lambda: mount.process.poll() is not None, MOUNT_MAX)
    if mount.process.returncode == 0:
        raise Stuck("a mount with a read-only cache directory ended with status 0")
    subprocess.run(["umount", mount.cache], check=True)
    begin = time.monotonic()
    mount.start()
    run.recovered(mount, begin)
    run.settle(mount, ledger)


def cache_deleted(run):
    """the cache directory deleted under the daemon"""
    run.lab.s3()
    mount = run.lab.mount()
    mount.start()

    def delete():
        for name in os.listdir(mount.cache):
            shutil.rmtree(os.path.join(mount.cache, name), ignore_errors=True)

    ledger = run.write(mount)
    time.sleep(run.calm)
    delete()
    begin = time.monotonic()
    time.sleep(run.calm)
    run.stop(ledger)
    # What only the deleted files had is gone; what was fsynced is not.
    status, _told = mount.command("drain", "--drain-timeout", "20s")
    mount.command("umount", "--lazy", *([] if status == 0 else ["--keep"]))
    wait_for("the daemon's end", lambda: mount.process.poll() is not None, MOUNT_MAX)
    run.compare(ledger, "acknowledged" if status == 0 else "synced")
    mount.start()
    run.recovered(mount, begin)
    mount.unmount()


def store_full(run):
    """the store's disk full"""
    run.lab.local(2 * SMALL_DISK)
    mount = run.lab.mount()
    mount.start()
    filler = os.path.join(run.lab.disks[0], "filler")

    run.disturbed(mount, lambda: fill(filler), lambda: os.unlink(filler), min(run.options.outage, 20))


def credentials(run):
    """credentials revoked and given back"""
    run.lab.s3()
    mount = run.lab.mount()
    mount.start()
    server = run.lab.server

    def exchange(keys):
        server.kill()
        server.start(*keys)

    run.disturbed(mount, lambda: exchange([("other-key", "other-secret")]), lambda: exchange([]), run.options.outage)


def clock(run):
    """the clock jumps: an hour ahead, two back"""
    if not os.path.exists(FAKETIME):
        raise Missing("faketime is missing: run scripts/setup tests")
    run.lab.local()
    jump = os.path.join(run.lab.directory, "jump")

    def jump_to(text):
        with open(jump + ".new", "w", encoding="utf-8") as file:
            file.write(text)
        os.rename(jump + ".new", jump)

    jump_to("+0")
    env = {"LD_PRELOAD": FAKETIME, "FAKETIME_TIMESTAMP_FILE": jump, "FAKETIME_CACHE_DURATION": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    mount = run.lab.mount(env=env)
    mount.start()

    def jumps():
        jump_to("+1h")
        time.sleep(run.calm)
        jump_to("-1h")

    run.disturbed(mount, jumps, lambda: jump_to("+0"), run.calm)


def stopped(run):
    """the writer stopped for 70 s, nothing else"""
    run.lab.s3()
    mount = run.lab.mount()
    mount.start()
    ledger = run.write(mount)
    time.sleep(run.calm)
    run.pause(mount, 70)
    run.recovered(mount)
    run.settle(mount, ledger)


def taken(run):
    """the writer stopped, the namespace taken, the writer goes on"""
    run.lab.s3()
    first, second = run.lab.mount("first"), run.lab.mount("second")
    first.start()
    before = run.write(first)
    time.sleep(run.calm)
    # Begun before the stop: a new process of this one would close the writers' files, and wait for the daemon that is stopped.
    second.launch("--takeover", "wait")
    wait_for("the writer to know of the second mount", lambda: '"watched_by":null' not in first.command("status", "--json")[1].replace(" ", ""), 60)
    first.signal(signal.SIGSTOP)
    begin = time.monotonic()
    second.wait_until_ready()
    run.recovered(second, begin)
    after = run.write(second)
    time.sleep(run.calm)
    first.signal(signal.SIGCONT)
    wait_for("the first mount to see that it lost the namespace", lambda: not first.works(), 60)
    counted = before.acknowledged
    time.sleep(run.calm)
    if before.acknowledged != counted:
        before.note(f"{before.acknowledged - counted} changes were acknowledged by a writer that had lost the namespace")
    run.stop(before)
    run.outcome.add(before, before.verify(second.root, "synced"))
    run.settle(second, after)


def standby(run):
    """kill -9 of a writer that has a standby"""
    run.lab.s3()
    first, second = run.lab.mount("first"), run.lab.mount("second", ["--standby"])
    first.start()
    time.sleep(1)
    second.start()
    wait_for("the writer to know of the standby", lambda: '"watched_by":null' not in first.command("status", "--json")[1].replace(" ", ""), 60)
    ledger = run.write(first)
    time.sleep(run.calm)
    first.kill()
    begin = time.monotonic()
    run.recovered(second, begin)
    run.stop(ledger)
    ledger.notes.clear()
    run.outcome.add(ledger, ledger.verify(second.root, "synced"))
    second.unmount()


FAULTS = [
    kill_kept,
    kill_kept_local,
    power_loss,
    kill_wiped,
    server_killed,
    refused,
    partition,
    busy,
    reset,
    slow,
    cut_answers,
    cache_full,
    cache_read_only,
    cache_deleted,
    store_full,
    credentials,
    clock,
    stopped,
    taken,
    standby,
]
