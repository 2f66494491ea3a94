"""What every fault has in common: writers before, during and after it, and the comparison with their ledger."""

import signal
import time

from .errors import Stuck
from .lab import wait_for
from .ledger import Ledger

# How long a mount may take to work again.
RECOVER_MAX = 120.0


class Outcome:
    """What a fault did."""

    def __init__(self):
        self.acknowledged = self.errors = self.rounds = 0
        self.lost, self.torn, self.seconds = [], [], []

    def add(self, ledger, found):
        lost, torn = found
        self.acknowledged += ledger.acknowledged
        self.errors += ledger.errors
        self.lost += lost
        self.torn += torn
        self.rounds += 1


class Run:
    """One fault in its lab."""

    def __init__(self, lab, options):
        self.lab, self.options = lab, options
        self.outcome = Outcome()
        self.ledgers = 0

    @property
    def calm(self):
        """Seconds of work without a fault, before it and after it."""
        return self.options.calm

    def write(self, mount):
        """Starts writers in directories that no other ledger has."""
        ledger = Ledger(mount.root, self.lab.seed * 1000 + self.ledgers, first=self.ledgers * 10)
        self.ledgers += 1
        ledger.start()
        return ledger

    def recovered(self, mount, since=None):
        """Waits until a small file can be fsynced, and notes how long that took."""
        took = wait_for("a write that works", mount.works, RECOVER_MAX)
        self.outcome.seconds.append(took if since is None else time.monotonic() - since)

    def settle(self, mount, ledger):
        """Stops the writers, uploads everything, and compares the bucket with the ledger through a mount with an empty cache."""
        time.sleep(self.calm)
        self.stop(ledger)
        status, told = mount.command("drain")
        if status != 0:
            raise Stuck(f"drain: {told}")
        mount.unmount()
        self.compare(ledger, "acknowledged")

    def compare(self, ledger, floor):
        reader = self.lab.mount(f"reader{self.ledgers}-{len(self.lab.mounts)}", ["--read-only"])
        reader.start()
        self.outcome.add(ledger, ledger.verify(reader.root, floor))
        reader.unmount()

    @staticmethod
    def stop(ledger):
        if not ledger.stop():
            raise Stuck("a writer did not return from its call")

    def disturbed(self, mount, disturb, heal, seconds):
        """Writes before, during and after a fault that does not end the daemon."""
        ledger = self.write(mount)
        time.sleep(self.calm)
        disturb()
        time.sleep(seconds)
        heal()
        self.recovered(mount)
        self.settle(mount, ledger)

    def pause(self, mount, seconds):
        mount.signal(signal.SIGSTOP)
        time.sleep(seconds)
        mount.signal(signal.SIGCONT)
