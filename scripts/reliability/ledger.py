"""Programs that write through a mount, and the ledger of what they were told.

Every state of a file says which one it is: its writer, its number, and bytes that follow from both. So a read tells a whole state from a torn one,
and an old one from the newest. The ledger is in the memory of this process, which no fault touches.
"""

import hashlib
import os
import random
import struct
import threading
import time

MAGIC = b"rewindfs ledger\n"
HEADER = struct.Struct("<16sQQQ")  # magic, name, number, length
RECORD = struct.Struct("<QQ16s")  # name, number, sum
FILES = 12
WRITERS = 4


def body(name, number, length):
    """The bytes of a state after its header."""
    seed = hashlib.blake2b(struct.pack("<QQ", name, number), digest_size=32).digest()
    return (seed * (length // len(seed) + 1))[:length]


def state(name, number, length):
    return HEADER.pack(MAGIC, name, number, length) + body(name, number, length)


def record(name, number):
    head = struct.pack("<QQ", name, number)
    return head + hashlib.blake2b(head, digest_size=16).digest()


class Entry:
    """What is known of a file: the newest state that was begun, the newest that was acknowledged, and the newest that was fsynced."""

    def __init__(self, name, length):
        self.name, self.length = name, length
        self.begun = self.acknowledged = self.synced = 0


class Writer(threading.Thread):
    """Replaces files, rewrites them in place, and appends to a log, all in a directory of its own."""

    def __init__(self, root, number, seed, ledger):
        super().__init__(daemon=True)
        self.ledger = ledger
        self.random = random.Random(seed)
        self.directory = os.path.join(root, f"w{number}")
        first = number * 1000
        self.entries = {
            f"f{at}": Entry(first + at, self.random.choice([200, 3000, 20_000, 200_000])) for at in range(FILES)
        }
        self.log = Entry(first + 999, RECORD.size)
        self.operations = self.errors = 0

    def run(self):
        while not self.ledger.stopping.is_set():
            try:
                os.makedirs(self.directory, exist_ok=True)
                self.step()
                self.operations += 1
            except OSError:
                self.errors += 1
                time.sleep(0.1)

    def step(self):
        name, entry = self.random.choice(list(self.entries.items()))
        path = os.path.join(self.directory, name)
        kind = self.random.random()
        if kind < 0.3:
            return self.append()
        entry.begun += 1
        number = entry.begun
        data = state(entry.name, number, entry.length)
        is_new = entry.acknowledged == 0
        if kind < 0.6 or is_new:
            self.replace(path, data)
        else:
            self.rewrite(path, data)
        entry.acknowledged = number
        if self.random.random() < 0.15:
            self.sync(path)
            entry.synced = max(entry.synced, number)
        return None

    def replace(self, path, data):
        new = path + ".new"
        with open(new, "wb", buffering=0) as file:
            file.write(data)
        os.rename(new, path)

    def rewrite(self, path, data):
        # One call of write(2), so that a crash leaves the state before or the state after it.
        descriptor = os.open(path, os.O_WRONLY)
        try:
            if os.pwrite(descriptor, data, 0) != len(data):
                raise OSError("a short write")
        finally:
            os.close(descriptor)

    def append(self):
        path = os.path.join(self.directory, "log")
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            # After an error the record may be there: then the next one has the next number.
            here = os.fstat(descriptor).st_size // RECORD.size
            if here < self.log.acknowledged:
                self.ledger.note(f"{path} has {here} records, {self.log.acknowledged} were acknowledged")
            self.log.begun = max(self.log.begun, here + 1)
            os.write(descriptor, record(self.log.name, here + 1))
            if self.random.random() < 0.15:
                os.fsync(descriptor)
                self.sync(self.directory)
                self.log.synced = here + 1
        finally:
            os.close(descriptor)
        self.log.acknowledged = max(self.log.acknowledged, here + 1)

    def sync(self, path):
        for each in (path, self.directory):
            descriptor = os.open(each, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


class Ledger:
    """The writers of one mount point."""

    def __init__(self, root, seed, first=0):
        self.root = root
        self.stopping = threading.Event()
        self.notes = []
        self.writers = [Writer(root, first + number, seed * 100 + number, self) for number in range(WRITERS)]

    def start(self):
        for writer in self.writers:
            writer.start()

    def stop(self, limit=90):
        self.stopping.set()
        end = time.monotonic() + limit
        for writer in self.writers:
            writer.join(max(0.0, end - time.monotonic()))
        return not any(writer.is_alive() for writer in self.writers)

    def note(self, text):
        self.notes.append(text)

    @property
    def acknowledged(self):
        return sum(writer.operations for writer in self.writers)

    @property
    def errors(self):
        return sum(writer.errors for writer in self.writers)

    def verify(self, root, floor):
        """Reads every file below `root`. `floor` is `acknowledged` or `synced`: which states may not be lost. Returns the lost and the torn ones."""
        lost, torn = list(self.notes), []
        for writer in self.writers:
            directory = os.path.join(root, os.path.basename(writer.directory))
            for name, entry in writer.entries.items():
                self.verify_file(os.path.join(directory, name), entry, getattr(entry, floor), lost, torn)
            self.verify_log(os.path.join(directory, "log"), writer.log, getattr(writer.log, floor), lost, torn)
        return lost, torn

    @staticmethod
    def verify_file(path, entry, least, lost, torn):
        try:
            with open(path, "rb") as file:
                data = file.read()
        except FileNotFoundError:
            if least > 0:
                lost.append(f"{path} is missing, state {least} was told to be there")
            return
        if len(data) < HEADER.size:
            torn.append(f"{path} has {len(data)} bytes")
            return
        magic, name, number, length = HEADER.unpack_from(data)
        if magic != MAGIC or name != entry.name or length != entry.length or data != state(name, number, length):
            torn.append(f"{path} is no state of its file")
        elif number > entry.begun:
            torn.append(f"{path} has state {number}, only {entry.begun} were begun")
        elif number < least:
            lost.append(f"{path} has state {number}, state {least} was told to be there")

    @staticmethod
    def verify_log(path, entry, least, lost, torn):
        try:
            with open(path, "rb") as file:
                data = file.read()
        except FileNotFoundError:
            data = b""
        count = len(data) // RECORD.size
        if data != b"".join(record(entry.name, number) for number in range(1, count + 1)):
            torn.append(f"{path} has records that were not written so")
        if count < least:
            lost.append(f"{path} has {count} records, {least} were told to be there")
