"""One run of the phases on one system: how a step is measured."""

import contextlib
import os
import signal
import subprocess
import threading
import time

from .errors import Capped, Missing

FAILURES = (Capped, OSError, subprocess.SubprocessError, Missing)


class Bench:
    """What the phases work with: the system, the inputs, and the place for the figures."""

    def __init__(self, options, system, figures, inputs):
        self.options, self.system, self.figures, self.inputs = options, system, figures, inputs
        # The share of the many files that could be made within the time limit.
        self.share = 1.0

    def path(self, name):
        return os.path.join(self.system.root, name)

    def fail(self, name, error, after=None):
        """Notes a failure and sets the system up again for the next step."""
        self.figures.add(self.system.name, name, failed=str(error) or "failed", after=after)
        self.system.abandon()
        return False

    def prepared(self, name, work):
        """Does unmeasured work that the step `name` needs. Returns whether it succeeded."""
        try:
            work()
        except FAILURES as error:
            return self.fail(name, error)
        return True

    def step(self, name, work, user_bytes=0, settle=True, later=0, limit=None):
        """Measures `work`. It returns the share that it has done, or a dictionary of values; None means that it has done all.

        `later` is for how many seconds the bytes that follow are counted too, `limit` after how many blocked work is ended. Returns whether the step succeeded.
        """
        before, cpu = self.system.servers.stats(), self.system.cpu()
        start = time.monotonic()
        done, values = 1.0, {}
        try:
            # The work ends by itself at the limit, unless a call is blocked.
            with self.guard(limit or self.options.cap * 2 + 60):
                answer = work()
            if isinstance(answer, float):
                done = answer
            elif isinstance(answer, dict):
                values = answer
                # An operation that is repeated until the limit tells what it has written by then.
                user_bytes = values.pop("user_bytes", user_bytes)
            acknowledged = (time.monotonic() - start) / done
            if settle:
                self.system.settle()
            durable = (time.monotonic() - start) / done
        except FAILURES as error:
            return self.fail(name, error, time.monotonic() - start)
        now = self.system.cpu()
        if cpu is not None and now is not None:
            values["cpu"] = (now - cpu) / done
        after = self.system.servers.stats()
        if later and self.system.remote:
            time.sleep(later)
            after = {**after, "up": self.system.servers.stats()["up"]}
        values.update(seconds=acknowledged, durable=durable if settle else None, scaled=done < 1)
        if self.system.remote:
            values.update({key: (after[key] - before[key]) / done for key in after})
            if user_bytes:
                values["up_per_byte"] = (after["up"] - before["up"]) / (user_bytes * done)
        if values.get("count") and "per_second" not in values:
            # Operations are durable when the bucket has all of them.
            values["per_second"] = values["count"] / (durable if settle else acknowledged)
        self.system.note_peak()
        self.figures.add(self.system.name, name, **values)
        return True

    @contextlib.contextmanager
    def guard(self, seconds):
        """Kills the daemon if the work below takes longer: a call that is blocked in it then fails."""

        def kill():
            daemon = self.system.daemon
            if daemon is not None:
                daemon.kill()

        timer = threading.Timer(seconds, kill)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def sh(self, script, cwd=None):
        process = subprocess.Popen(["sh", "-euc", script], cwd=cwd or self.system.root, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
        try:
            _, words = process.communicate(timeout=self.options.cap)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            # A call that is blocked in the kernel ends when the daemon ends.
            self.system.kill()
            process.communicate()
            if isinstance(error, subprocess.TimeoutExpired):
                raise Capped(f"more than {self.options.cap:.0f} s") from None
            raise
        if process.returncode != 0:
            raise OSError(words.decode(errors="replace").strip()[-300:])

    def within(self, items):
        """Works on items until the time limit, and returns the share that was done."""
        start = time.monotonic()
        for at, work in enumerate(items):
            work()
            if time.monotonic() - start > self.options.cap:
                return (at + 1) / len(items)
        return 1.0
