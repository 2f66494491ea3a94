"""The systems that are measured."""

import glob
import json
import os
import shlex
import shutil
import subprocess

from .errors import Missing
from .machine import is_mounted, program, wait_for
from .servers import TOOL
from .system import KEYS, QUIET, System, unmount


class Rewindfs(System):
    name = "rewindfs"

    def prepare(self):
        if not os.access(self.options.program, os.X_OK):
            raise Missing(f"there is no program {self.options.program}")
        self.binary = self.options.program

    def command(self):
        return [self.options.program, "mount", f"s3://{self.bucket}/bench", self.root, "--foreground", "--cache-dir", self.cache, "--endpoint", self.servers.endpoint]

    def settle(self):
        subprocess.run([self.options.program, "drain", self.root], check=True, timeout=600, **QUIET)

    def follow(self, root, cache):
        """Mounts the namespace read-only at a second place, and returns the daemon."""
        command = [self.options.program, "mount", f"s3://{self.bucket}/bench", root, "--read-only", "--foreground", "--cache-dir", cache, "--endpoint", self.servers.endpoint]
        return self.start(command, root)


class Nothing(System):
    """bindfs over memory: what the kernel, FUSE and the test programs take without a file system's work."""

    name = "nothing"
    remote = False

    def __init__(self, options, scratch, servers, run):
        super().__init__(options, scratch, servers, run)
        self.below = os.path.join(self.place, "below")
        os.makedirs(self.below)

    def prepare(self):
        self.binary = program("bindfs")
        # Only root may mount a tmpfs; others have the scratch directory below.
        if os.geteuid() == 0:
            subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", self.below], check=True)

    def command(self):
        allow = [] if os.geteuid() == 0 else ["--no-allow-other"]
        return [self.binary, "-f", *allow, self.below, self.root]

    def abandon(self):
        self.kill()
        self.unmount()
        for name in os.listdir(self.below):
            path = os.path.join(self.below, name)
            shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)
        self.mount()

    def close(self):
        self.unmount()
        if is_mounted(self.below):
            unmount(self.below)
        if not is_mounted(self.below):
            super().close()


class Local(System):
    name = "local"
    remote = False

    def mount(self):
        pass

    def unmount(self):
        pass

    def abandon(self):
        pass

    def settle(self):
        subprocess.run(["sync", "-f", self.root], check=True)

    def cold(self):
        self.settle()
        if os.geteuid() == 0:
            with open("/proc/sys/vm/drop_caches", "w", encoding="utf-8") as file:
                file.write("3")


class Raw(System):
    """Transfers of whole objects without a mount, many at a time, by the library that rewindfs uses."""

    name = "raw"
    phases = ["create", "stream", "random", "append"]

    def mount(self):
        pass

    def unmount(self):
        pass

    def abandon(self):
        self.bucket += "x"

    def transfer(self, direction, count, size):
        command = [TOOL, direction, self.servers.endpoint, self.bucket, str(count), str(size)]
        subprocess.run(command, check=True, timeout=self.options.cap)

    def round_trips(self, direction, count, size, at_once):
        """Transfers objects, so many at a time. Returns the seconds of each."""
        command = [TOOL, direction, self.servers.endpoint, self.bucket, str(count), str(size), str(at_once)]
        ended = subprocess.run(command, check=True, timeout=self.options.cap, stdout=subprocess.PIPE, text=True)
        return [float(line) / 1000 for line in ended.stdout.split()]


class S3fs(System):
    name = "s3fs"

    def prepare(self):
        self.binary = program("s3fs")

    def command(self):
        keys = os.path.join(self.place, "keys")
        with open(os.open(keys, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write("bench:bench")
        words = f"url={self.servers.endpoint},use_path_request_style,passwd_file={keys},use_cache={self.cache},tmpdir={self.place},listobjectsv2,enable_noobj_cache,notsup_compat_dir,parallel_count=20,multireq_max=100"
        return [self.binary, self.bucket, self.root, "-f", "-o", words]


class Rclone(System):
    name = "rclone"
    flags = (
        "--s3-provider Other --s3-force-path-style --s3-no-check-bucket --vfs-cache-mode full --vfs-write-back 1s --vfs-links "
        "--vfs-fast-fingerprint --transfers 32 --dir-cache-time 1h --vfs-read-chunk-streams 16 --vfs-read-chunk-size 4M "
        "--s3-upload-concurrency 16 --s3-chunk-size 16M --attr-timeout 1s --rc --rc-no-auth"
    ).split()

    def prepare(self):
        self.binary = program("rclone")

    def command(self):
        self.socket = os.path.join(self.place, "rc")
        if os.path.exists(self.socket):
            os.unlink(self.socket)
        keys = ["--s3-access-key-id", "bench", "--s3-secret-access-key", "bench", "--config", os.path.join(self.place, "none")]
        return [self.binary, "mount", f":s3:{self.bucket}", self.root, "--s3-endpoint", self.servers.endpoint, "--cache-dir", self.cache, "--rc-addr", "unix://" + self.socket, *self.flags, *keys]

    def settle(self):
        # rclone's counters are zero for a moment after close, so the dirty marks in its cache are checked too.
        wait_for("rclone to upload", lambda: self.queued() == 0 and not self.dirty(), limit=600)

    def queued(self):
        ran = subprocess.run([self.binary, "rc", "--unix-socket", self.socket, "vfs/stats"], capture_output=True, text=True, check=False)
        cache = json.loads(ran.stdout or "{}").get("diskCache", {})
        return cache.get("uploadsQueued", 1) + cache.get("uploadsInProgress", 1)

    def dirty(self):
        for path in glob.iglob(os.path.join(self.cache, "vfsMeta/**"), recursive=True):
            if os.path.isfile(path):
                with open(path, "rb") as file:
                    if b'"Dirty": true' in file.read():
                        return True
        return False


class Described(System):
    """A peer of --peer."""

    def __init__(self, options, scratch, servers, run, peer):
        self.name, self.peer = peer.name, peer
        super().__init__(options, scratch, servers, run)

    def prepare(self):
        self.binary = program(self.filled(self.peer.mount)[0])

    def filled(self, words):
        places = {"endpoint": self.servers.endpoint, "bucket": self.bucket, "mountpoint": self.root, "cache": self.cache, "place": self.place}
        return self.peer.fill(words, places)

    def command(self):
        return self.filled(self.peer.mount)

    def settle(self):
        if self.peer.settle:
            words = self.filled(self.peer.settle)
            ran = subprocess.run(words, check=False, timeout=600, env={**os.environ, **KEYS}, capture_output=True, text=True)
            if ran.returncode != 0:
                raise OSError(f"{shlex.join(words)}: {ran.stderr.strip()[-300:]}")


KINDS = {kind.name: kind for kind in (Rewindfs, Nothing, Local, Raw, S3fs, Rclone)}


def make(name, options, scratch, servers, run):
    """Makes a system; it is not mounted yet."""
    if name in options.peers:
        return Described(options, scratch, servers, run, options.peers[name])
    return KINDS[name](options, scratch, servers, run)
