"""What is common to all systems: a directory, and how it is mounted, drained and unmounted."""

import os
import shutil
import subprocess

from .errors import Missing
from .machine import cpu_seconds, is_mounted, peak_mebibytes, wait_for

KEYS = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench", "AWS_REGION": "us-east-1"}
QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


def unmount(point):
    """Unmounts by all means. A program that still has a file open keeps it from the first two ways alone."""
    for tool in (["fusermount3", "-u"], ["umount"], ["umount", "-l"], ["fusermount3", "-uz"]):
        if is_mounted(point) and shutil.which(tool[0]):
            try:
                subprocess.run([*tool, point], timeout=60, check=False, **QUIET)
            except subprocess.TimeoutExpired:
                pass


class System:
    """A system to measure."""

    name = ""
    # Whether its requests pass the proxy.
    remote = True
    # None means all.
    phases = None
    # The program, once it is known to be installed.
    binary = None

    def __init__(self, options, scratch, servers, run):
        self.options, self.servers = options, servers
        self.place = os.path.join(scratch, f"{self.name}-{run}")
        self.root = os.path.join(self.place, "files")
        self.cache = os.path.join(self.place, "cache")
        self.bucket = f"bench-{self.name}-{run}"
        self.peak, self.daemon = 0, None
        os.makedirs(self.root)
        os.makedirs(self.cache)

    def prepare(self):
        """Raises Missing unless the system can be mounted here."""

    def command(self):
        """Returns the command that mounts it in the foreground."""
        raise NotImplementedError

    def start(self, command, root):
        """Starts a daemon and returns it once the root can be listed."""
        with open(os.path.join(self.place, "log"), "ab") as log:
            # The daemon must not outlive this script, even if the script is killed; and Ctrl-C must not reach it before the script
            # has unmounted.
            command = ["setpriv", "--pdeathsig", "KILL", *command]
            daemon = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **KEYS}, start_new_session=True)
        try:
            wait_for(f"{self.name} to mount", lambda: daemon.poll() is not None or is_mounted(root))
            if daemon.poll() is not None:
                with open(os.path.join(self.place, "log"), encoding="utf-8", errors="replace") as file:
                    raise Missing(f"{self.name} did not mount:\n{file.read()[-2000:]}")
            os.listdir(root)
        except BaseException:
            self.stop(daemon, root)
            raise
        return daemon

    def stop(self, daemon, root):
        """Unmounts and waits for the end of the daemon."""
        unmount(root)
        try:
            daemon.wait(timeout=30)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()
            unmount(root)

    def mount(self):
        self.daemon = self.start(self.command(), self.root)

    def note_peak(self):
        if self.daemon is not None:
            self.peak = max(self.peak, peak_mebibytes(self.daemon.pid) or 0)

    def cpu(self):
        """Returns the processor time of the daemon so far, or None if there is none."""
        return None if self.daemon is None else cpu_seconds(self.daemon.pid)

    def settle(self):
        """Waits until the bucket has everything."""

    def unmount(self):
        self.note_peak()
        daemon, self.daemon = self.daemon, None
        if daemon is not None:
            self.stop(daemon, self.root)
        else:
            unmount(self.root)

    def empty_cache(self):
        shutil.rmtree(self.cache)
        os.makedirs(self.cache)

    def cold(self):
        """Mounts again with an empty cache."""
        self.settle()
        self.unmount()
        self.empty_cache()
        self.mount()

    def again(self):
        """Mounts again with the cache it has."""
        self.settle()
        self.unmount()
        self.mount()

    def kill(self):
        """Ends the daemon as a crash would."""
        self.note_peak()
        if self.daemon is not None:
            self.daemon.kill()
            self.daemon.wait()

    def abandon(self):
        """Kills it after a step that exceeded its limit, and starts again with an empty bucket."""
        self.kill()
        self.unmount()
        self.bucket += "x"
        self.empty_cache()
        self.mount()

    def close(self):
        """Unmounts and deletes everything. Works in every state, also after an interrupted start."""
        self.unmount()
        if not is_mounted(self.root):
            shutil.rmtree(self.place, ignore_errors=True)
