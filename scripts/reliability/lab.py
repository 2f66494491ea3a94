"""Stores, mounts and disks for one fault."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time

from .errors import Missing, Stuck
from .proxy import Proxy

PROJECT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TARGET = os.path.join(PROJECT, os.environ.get("CARGO_TARGET_DIR", "target"))
KEYS = ("rewindfs-key", "rewindfs-secret")
MOUNT_MAX = 180.0


def wait_for(what, condition, limit):
    """Waits until a condition holds; returns the seconds that it took."""
    start = time.monotonic()
    while not condition():
        if time.monotonic() - start > limit:
            raise Stuck(f"waited {limit:.0f} s for {what}")
        time.sleep(0.02)
    return time.monotonic() - start


def is_mounted(point):
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        return any(line.split(" ")[4] == point for line in table)


def answers(point):
    """Tells whether a FUSE mount answers there."""
    try:
        ran = subprocess.run(["stat", "-f", "-c", "%T", point], capture_output=True, text=True, timeout=5, check=False)
    except subprocess.TimeoutExpired:
        return False
    return ran.stdout.strip() == "fuseblk" or ran.stdout.strip().startswith("fuse")


class S3:
    """s3s-fs, whose objects are files and outlive it."""

    def __init__(self, directory):
        self.program = os.path.join(TARGET, "s3s-fs/bin/s3s-fs")
        if not os.access(self.program, os.X_OK):
            raise Missing("s3s-fs is missing: run scripts/setup tests")
        self.directory = directory
        os.makedirs(os.path.join(directory, "bucket"))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.process = None
        self.start()

    def start(self, keys=KEYS):
        command = ["setpriv", "--pdeathsig", "KILL", self.program, "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--access-key", keys[0], "--secret-key", keys[1], self.directory]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for("the S3 server", self.listens, 20)

    def listens(self):
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self):
        self.process.kill()
        self.process.wait()


class Mount:
    """A mount with its own directories."""

    def __init__(self, lab, name, flags=(), env=None):
        self.lab, self.flags, self.env = lab, list(flags), dict(env or {})
        self.directory = os.path.join(lab.directory, name)
        self.root = os.path.join(self.directory, "files")
        self.cache = os.path.join(self.directory, "cache")
        for each in (self.root, self.cache):
            os.makedirs(each)
        # While nothing is mounted, no writer must find a directory to write into.
        os.mkdir(os.path.join(self.root, "probe"))
        for number in range(1000):
            with open(os.path.join(self.root, f"w{number}"), "wb"):
                pass
        self.log = open(os.path.join(self.directory, "log"), "ab")
        self.process = None

    def start(self, *flags, limit=MOUNT_MAX):
        """Mounts; returns the seconds until it answers."""
        begin = time.monotonic()
        self.launch(*flags)
        self.wait_until_ready(limit)
        return time.monotonic() - begin

    def wait_until_ready(self, limit=MOUNT_MAX):
        """Waits until a mount that was launched answers."""

        def ready():
            if self.process.poll() is not None:
                raise Stuck(f"the mount ended with status {self.process.returncode}: {self.last_words()}")
            return answers(self.root)

        wait_for("the mount", ready, limit)

    def launch(self, *flags):
        command = ["setpriv", "--pdeathsig", "KILL", self.lab.program, "mount", self.lab.url, self.root, "--foreground"]
        command += ["--cache-dir", self.cache, *self.lab.flags, *self.flags, *flags]
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, env={**os.environ, **self.lab.env, **self.env}
        )

    def last_words(self):
        with open(self.log.name, "rb") as log:
            return log.read()[-400:].decode(errors="replace").strip().replace("\n", " | ")

    def signal(self, number):
        self.process.send_signal(number)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def command(self, name, *flags, limit=300.0):
        """Runs a command of the program on this mount; returns its exit status and its output."""
        words = [self.lab.program, name, self.root, *flags]
        env = {**os.environ, **self.lab.env}
        try:
            ran = subprocess.run(words, capture_output=True, text=True, timeout=limit, env=env, check=False)
        except subprocess.TimeoutExpired:
            raise Stuck(f"rewindfs {name} took longer than {limit:.0f} s") from None
        return ran.returncode, (ran.stdout + ran.stderr).strip()

    def unmount(self):
        status, told = self.command("umount")
        if status != 0:
            raise Stuck(f"umount: {told}")
        self.process.wait(60)

    def works(self):
        """Tells whether a small file can be written and fsynced."""
        path = os.path.join(self.root, "probe")
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            try:
                os.write(descriptor, b"x")
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError:
            return False
        return True

    def clean(self):
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        while is_mounted(self.root):
            subprocess.run(["umount", "-l", self.root], check=False)
        self.log.close()


class Lab:
    """The directories, the store and the mounts of one fault; everything is gone after it."""

    def __init__(self, options, seed):
        self.program, self.options, self.seed = options.program, options, seed
        self.directory = tempfile.mkdtemp(prefix="rewindfs-faults.", dir=options.scratch)
        self.url, self.env, self.flags = "", {}, []
        self.server = self.proxy = None
        self.mounts, self.disks = [], []

    def s3(self):
        """Uses a bucket behind a proxy."""
        self.server = S3(os.path.join(self.directory, "server"))
        self.proxy = Proxy(self.server.port, self.seed)
        self.url = "s3://bucket/place"
        self.env = {"AWS_ACCESS_KEY_ID": KEYS[0], "AWS_SECRET_ACCESS_KEY": KEYS[1], "AWS_REGION": "us-east-1"}
        self.flags = ["--endpoint", f"http://127.0.0.1:{self.proxy.port}"]
        return self

    def local(self, size=None):
        """Uses a local directory, on a disk of `size` bytes if that is given."""
        path = os.path.join(self.directory, "store")
        os.mkdir(path)
        if size is not None:
            self.disk(path, size)
        self.url = f"file://{path}"
        return self

    def disk(self, path, size):
        """Mounts a small disk."""
        ran = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path], check=False)
        if ran.returncode != 0:
            raise Missing("a small disk needs root")
        self.disks.append(path)

    def mount(self, name="one", flags=(), env=None):
        mount = Mount(self, name, flags, env)
        self.mounts.append(mount)
        return mount

    def close(self):
        for mount in self.mounts:
            mount.clean()
        if self.server is not None:
            self.server.kill()
        for disk in reversed(self.disks):
            subprocess.run(["umount", "-l", disk], check=False)
        if self.options.keep:
            print(f"kept: {self.directory}", file=sys.stderr)
        else:
            shutil.rmtree(self.directory, ignore_errors=True)
